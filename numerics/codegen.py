"""From the expressions of a problem to one readable module of array code.

The module has no state and needs no sympy: every function takes arrays first and the tuple `p` of parameter (and
label) values last. Site functions are numpy array code: with vector instructions numpy evaluates a two-point average
several times faster than a compiled scalar loop, and nobody waits for a compiler.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

from sympy import (
    Abs,
    DiracDelta,
    Expr,
    Heaviside,
    Integral,
    Max,
    Min,
    Piecewise,
    Poly,
    PolynomialError,
    S,
    Symbol,
    ceiling,
    floor,
    fraction,
    preorder_traversal,
    sign,
    srepr,
    sympify,
    together,
)
from sympy.core.relational import Relational
from sympy.printing.numpy import SciPyPrinter

from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.problem import (
    C12,
    DS,
    DT,
    LAMBDA,
    M1,
    M2,
    V1,
    V2,
    OnePoint,
    PotentialProblem,
    SiteFunction,
    StationaryGaussian,
    TwoPoint,
    U,
)
from quenched.theory.problem_delays import Delay, as_exponentials

from .cache import digest, load

VERSION = "8"
_SLOTS = {DT, DS, U, M1, M2, V1, V2, C12, LAMBDA}
_D = Symbol("D")
_SWITCHING = (Abs, sign, Heaviside, Max, Min, Piecewise, floor, ceiling)


class Generated:
    """A problem as numerical functions: which module, which parameters, which site functions.

    Attributes
    ----------
    parameters : tuple of Symbol
        Order of the leading entries of `p`; the label symbols follow.
    sites : tuple of SiteFunction
        Distinct site functions of all sources.
    """

    def __init__(self, problem: StationaryGaussian, potential: PotentialProblem | None = None) -> None:
        self.problem, self.potential = problem, potential
        self.labels = tuple(label.symbol for label in problem.labels)
        self.sites = _distinct_sites(problem)
        self.parameters = _free_parameters(problem, potential, self.labels)
        self._sites_at: dict[tuple[float, ...], Any] = {}

    def site_at(self, k: int, p: tuple[float, ...], make: Callable[[int, tuple[float, ...]], Any]) -> Any:
        """What `make` makes of site function k at parameters and labels p, remembered for those that it contains."""
        at = [x for s, x in zip((*self.parameters, *self.labels), p, strict=True) if self.sites[k].expr.has(s)]
        key = (float(k), *at)
        if key not in self._sites_at:
            if len(self._sites_at) > 4096:
                self._sites_at.clear()
            self._sites_at[key] = make(k, p)
        return self._sites_at[key]

    def site(self, f: SiteFunction) -> int:
        """Index of a site function."""
        return [s.expr for s in self.sites].index(f.expr)

    @cached_property
    def key(self) -> str:
        """Content hash of everything the module is generated from."""
        return digest(f"{VERSION} {_fingerprint(self.problem)} {_fingerprint(self.potential)}")

    @cached_property
    def module(self) -> ModuleType:
        """The imported module (generated if no earlier run did)."""
        return load(self.key, self.source)

    def bind(self, values: dict[Symbol, float]) -> tuple[float, ...]:
        """The values of `parameters`, looked up by symbol, then by name; a missing one is a QuenchedError."""
        by_name = {s.name: v for s, v in values.items()}
        for s in self.parameters:
            if s.name not in by_name:
                raise QuenchedError(f"parameter {s.name!r} has no value: {nearest(s.name, by_name)}")
        return tuple(float(by_name[s.name]) for s in self.parameters)

    def source(self) -> str:
        """Source text of the module."""
        return _Writer(self).text()


_GENERATED: dict[tuple[int, int], Generated] = {}


def generate(problem: StationaryGaussian, potential: PotentialProblem | None = None) -> Generated:
    """`Generated` for a problem, remembered in this process."""
    key = (id(problem), id(potential))
    if key not in _GENERATED or _GENERATED[key].problem is not problem:
        _GENERATED[key] = Generated(problem, potential)
    return _GENERATED[key]


def switching(expr: Expr) -> tuple[Expr, ...]:
    """Expressions in `U` whose zeros are the kinks and jumps of a site function."""
    found: list[Expr] = []
    for node in preorder_traversal(expr):
        if isinstance(node, (Abs, sign, Heaviside)):
            found.append(node.args[0])
        elif isinstance(node, (Max, Min)):
            found += [a - b for i, a in enumerate(node.args) for b in node.args[:i]]
        elif isinstance(node, Piecewise):
            found += [r.lhs - r.rhs for _, c in node.args for r in sympify(c).atoms(Relational)]
        elif isinstance(node, (floor, ceiling)):
            raise NotCovered(f"{node.func.__name__} in a site function has infinitely many jumps; use Heaviside steps")
    return tuple(dict.fromkeys(e for e in found if e.has(U)))


def rational(expr: Expr, what: str) -> Ratio:
    """Numerator and denominator in D of a flow's filter at D_t=λ+D, D_s=λ−D: one (0, coefficients) without delays.

    Terms of a filter with delays are (d, coefficients) of P(D) e^{−dD}, the highest power of D first.
    """
    shifted = sympify(expr).subs({DT: LAMBDA + _D, DS: LAMBDA - _D}, simultaneous=True)
    top, bottom = fraction(together(shifted))
    try:
        return delayed_terms(top, _D, [bottom]), delayed_terms(bottom, _D, [top])
    except PolynomialError as error:
        raise NotCovered(f"{what} is not a rational function of the time derivative: {expr}") from error


#: (delay, coefficients of the polynomial that it multiplies)
Term = tuple[Expr, list[Expr]]
Ratio = tuple[list[Term], list[Term]]


def delayed_terms(expr: Expr, z: Symbol, others: Sequence[Expr] = ()) -> list[Term]:
    """Σ P_d(z) e^{−dz} as terms (d, coefficients of P_d); delays of `others` count as occurring."""
    atoms = {a for e in (expr, *others) for a in e.atoms(Delay) if a.args[1] == z}
    delays = sorted(atoms, key=str)
    marks = [Symbol(f"X_{k}") for k in range(len(delays))]
    flat = expr.xreplace(dict(zip(delays, marks, strict=True)))
    if not delays:
        return [(S.Zero, Poly(flat, z).all_coeffs())]
    parts: dict[Expr, list[Expr]] = {}
    for powers, part in Poly(flat, *marks).terms():
        delay = sum((k * a.args[0] for k, a in zip(powers, delays, strict=True)), S.Zero)
        parts[delay] = [*parts.get(delay, []), part]
    return [(d, Poly(sum(e, S.Zero), z).all_coeffs()) for d, e in parts.items()]


def _distinct_sites(problem: StationaryGaussian) -> tuple[SiteFunction, ...]:
    found: dict[Expr, SiteFunction] = {}
    for one in problem.one_points:
        found.setdefault(one.f.expr, one.f)
    for two in problem.two_points:
        found.setdefault(two.f.expr, two.f)
        found.setdefault(two.g.expr, two.g)
    return tuple(found.values())


def _expressions(problem: StationaryGaussian, potential: PotentialProblem | None) -> list[Expr]:
    found: list[Expr] = [a.constant for a in problem.arguments]
    found += [o.f.expr for o in problem.one_points]
    found += [e for s in problem.two_points for e in (s.f.expr, s.g.expr)]
    found += [e for row in (*problem.mean_gain, *problem.gain) for e in row]
    found += [*problem.noise, *problem.static, *problem.responses.values()]
    if potential is not None:
        found += [potential.inertia, potential.stiffness, potential.kick, potential.static, *potential.weights]
        found += [potential.growth_stiffness]
    return [sympify(e) for e in found]


def _free_parameters(
    problem: StationaryGaussian, potential: PotentialProblem | None, labels: Iterable[Symbol]
) -> tuple[Symbol, ...]:
    free: set[Symbol] = set().union(*(e.free_symbols for e in _expressions(problem, potential)))
    free |= set(problem.parameters)
    for label in problem.labels:
        free |= getattr(label.law, "free_symbols", set())
    return tuple(sorted(free - _SLOTS - set(labels), key=lambda s: s.name))


def _fingerprint(problem: StationaryGaussian | PotentialProblem | None) -> str:
    if problem is None:
        return "none"
    if isinstance(problem, PotentialProblem):
        scalars = (problem.inertia, problem.stiffness, problem.kick, problem.static, *problem.weights)
        return " ".join(srepr(sympify(e)) for e in (*scalars, problem.growth_stiffness))
    closed = [o.closed for o in problem.one_points] + [s.closed for s in problem.two_points]
    names = [problem.clock, str(problem.pairs), str([(s.a, s.b) for s in problem.two_points])]
    names += [label.symbol.name + srepr(label.law) for label in problem.labels] + list(problem.responses)
    names += [s.name for s in problem.parameters]
    return " ".join(names + [srepr(sympify(e)) for e in _expressions(problem, None)] + [srepr(c) for c in closed])


class _Printer(SciPyPrinter):
    """numpy code that broadcasts: the two-argument Max of sympy's printer wants arrays of one shape."""

    _module = "np"

    def _print_Max(self, expr: Expr) -> str:
        return self._nested("np.maximum", expr.args)

    def _print_Min(self, expr: Expr) -> str:
        return self._nested("np.minimum", expr.args)

    def _nested(self, name: str, args: Sequence[Expr]) -> str:
        text = self._print(args[0])
        for arg in args[1:]:
            text = f"{name}({text}, {self._print(arg)})"
        return text

    def _print_Heaviside(self, expr: Expr) -> str:
        return f"np.heaviside({self._print(expr.args[0])}, 0.5)"

    def _print_sech(self, expr: Expr) -> str:
        return f"(1/np.cosh({self._print(expr.args[0])}))"


def _identifier(name: str) -> str:
    """A Python name for a symbol, apart from the names that generated functions use themselves."""
    safe = re.sub(r"\W", "_", name)
    taken = {"p", "np", "special", "constants", "D"} | {s.name for s in _SLOTS}
    return safe + "_value" if safe in taken or keyword.iskeyword(safe) or not safe.isidentifier() else safe


def _scalars(parts: Iterable[list[Term]]) -> list[Expr]:
    """Every delay and coefficient of sums over delays."""
    return [e for part in parts for delay, coefficients in part for e in (delay, *coefficients)]


class _Writer:
    """Writes the module of one problem."""

    def __init__(self, generated: Generated) -> None:
        self.g = generated
        self.printer = _Printer({"fully_qualified_modules": True, "allow_unknown_functions": False})
        names = (*generated.parameters, *generated.labels)
        self.python = {s: Symbol(_identifier(s.name)) for s in names if _identifier(s.name) != s.name}

    def text(self) -> str:
        problem, potential = self.g.problem, self.g.potential
        parts = [self._header()]
        for k, f in enumerate(self.g.sites):
            parts += self._site(k, f)
        for k, one in enumerate(problem.one_points):
            parts += self._one_point(k, one)
        for k, two in enumerate(problem.two_points):
            parts += self._two_point(k, two)
        parts += self._linear(problem)
        if potential is not None:
            parts += self._potential(potential)
        return "\n\n\n".join(parts) + "\n"

    def expr(self, e: Expr) -> str:
        try:
            return (
                self.printer.doprint(as_exponentials(sympify(e)).xreplace(self.python))
                .replace("numpy.", "np.")
                .replace("scipy.", "")
            )
        except Exception as error:
            raise NotCovered(f"no numerical code for {e}: {error}") from error

    def column(self, e: Expr) -> str:
        """Code whose value has the shape of u."""
        return self.expr(e) if sympify(e).has(U) else f"{self.expr(e)} + 0*u"

    def _header(self) -> str:
        names = [s.name for s in (*self.g.parameters, *self.g.labels)]
        return (
            '"""Generated from a self-consistency problem: array code, one function a term. Edits are lost."""\n\n'
            "import numpy as np\nfrom scipy import constants, special  # noqa: F401\n\n"
            f"#: order of the entries of p\nNAMES = {tuple(names)!r}"
        )

    def function(self, name: str, args: str, body: str, exprs: Iterable[Expr], doc: str) -> str:
        used = set().union(*(sympify(e).free_symbols for e in exprs)) if exprs else set()
        names = (*self.g.parameters, *self.g.labels)
        lines = [f"def {name}({args}, p):", f'    """{doc}"""']
        lines += [f"    {self.expr(s)} = p[{i}]" for i, s in enumerate(names) if s in used]
        return "\n".join([*lines, f"    return {body}"])

    def _site(self, k: int, f: SiteFunction) -> list[str]:
        doc = f"Site function {f.name}."
        parts = [self.function(f"site_{k}", "u", self.column(f.expr), [f.expr], doc)]
        slope = f.diff().expr
        body = "None"
        if not slope.has(DiracDelta, Integral):
            body = self.column(slope)
        parts.append(self.function(f"slope_{k}", "u", body, [slope], f"Derivative of {f.name} (None: a distribution)."))
        kinks = switching(f.expr)
        body = "[" + ", ".join(self.column(e) for e in kinks) + "]"
        parts.append(self.function(f"switches_{k}", "u", body, kinks, f"Zeros of these are the kinks of {f.name}."))
        return parts

    def _one_point(self, k: int, one: OnePoint) -> list[str]:
        if one.closed is None or one.closed.has(Integral):
            return []
        doc = f"Closed form of <{one.f.name}>."
        return [self.function(f"one_{k}", "m_1, v_1", self.expr(one.closed), [one.closed], doc)]

    def _two_point(self, k: int, two: TwoPoint) -> list[str]:
        if two.closed is None or two.closed.has(Integral):
            return []
        slots = "m_1, m_2, v_1, v_2, c_12"
        doc = f"Closed form of <{two.f.name} {two.g.name}>."
        parts = [self.function(f"two_{k}", slots, self.expr(two.closed), [two.closed], doc)]
        slope = two.closed.diff(C12)
        if not slope.has(DiracDelta):
            doc = f"Derivative of <{two.f.name} {two.g.name}> with respect to the covariance."
            parts.append(self.function(f"two_slope_{k}", slots, self.expr(slope), [slope], doc))
        return parts

    def nested(self, rows: Sequence[Sequence[Expr]]) -> str:
        return "[" + ", ".join(self.flat(row) for row in rows) + "]"

    def flat(self, row: Sequence[Expr]) -> str:
        return "[" + ", ".join(self.expr(e) for e in row) + "]"

    def _linear(self, problem: StationaryGaussian) -> list[str]:
        constants = [a.constant for a in problem.arguments]
        gains = [e for row in problem.gain for e in row]
        means = [e for row in problem.mean_gain for e in row]
        f = self.function
        parts = [
            f("mean_constants", "_", self.flat(constants), constants, "Constant parts of the means."),
            f("mean_gain", "_", self.nested(problem.mean_gain), means, "Mean of argument a from one-point source k."),
            f("gain", "D_t, D_s", self.nested(problem.gain), gains, "Gain of pair p from two-point source s."),
            f("noise", "D_t, D_s", self.flat(problem.noise), problem.noise, "White noise, filtered, for each pair."),
            f("static", "_", self.flat(problem.static), problem.static, "Constant covariance of each pair."),
        ]
        # Without couplings that vary, the units' own responses say how fast they are.
        filters = gains if any(e != 0 for e in gains) else list(problem.responses.values())
        poles = [self._pole_polynomial(e) for e in filters]
        doc = "Denominators of the gains (else responses), row by row: coefficients in D_t, highest power first."
        body = "[" + ", ".join(self._terms(row) for row in poles) + "]"
        parts.append(f("gain_poles", "D_s", body, _scalars(poles), doc))
        transfer = list(problem.responses.values())
        parts.append(f("responses", "D_t", self.flat(transfer), transfer, "Transfer functions of the responses."))
        if problem.clock == "flow":
            parts += self._rationals(problem)
        return parts

    def _pole_polynomial(self, gain: Expr) -> list[Term]:
        try:
            return delayed_terms(fraction(together(sympify(gain)))[1], DT)
        except PolynomialError as error:
            raise NotCovered(f"a gain is not a rational function of the time operators: {gain}") from error

    def _rationals(self, problem: StationaryGaussian) -> list[str]:
        rows = [[rational(e, "a gain") for e in row] for row in problem.gain]
        used = _scalars([part for row in rows for pair in row for part in pair])
        body = "[" + ", ".join("[" + ", ".join(self._ratio(r) for r in row) + "]" for row in rows) + "]"
        doc = (
            "Numerator and denominator (highest power of D first) of every gain at D_t = lambda + D, D_s = lambda - D."
        )
        name = self.printer.doprint(LAMBDA)
        parts = [self.function("gain_rational", name, body, used, doc)]
        noise = [rational(e, "a noise filter") for e in problem.noise]
        used = _scalars([part for pair in noise for part in pair])
        body = "[" + ", ".join(self._ratio(r) for r in noise) + "]"
        parts.append(self.function("noise_rational", name, body, used, "The same for the noise."))
        transfers = [rational(e.subs(DT, DT - LAMBDA), "a response") for e in problem.responses.values()]
        used = _scalars([part for pair in transfers for part in pair])
        body = "[" + ", ".join(self._ratio(r) for r in transfers) + "]"
        parts.append(self.function("response_rational", "_", body, used, "The same for the responses, at D_t = D."))
        return parts

    def _ratio(self, pair: Ratio) -> str:
        plain = all(d == 0 for part in pair for d, _ in part)
        return f"({', '.join(self.flat(part[0][1]) if plain else self._delayed(part) for part in pair)})"

    def _terms(self, terms: list[Term]) -> str:
        """One list of coefficients, or a tuple (delay, coefficients) for every delay."""
        return self.flat(terms[0][1]) if all(d == 0 for d, _ in terms) else self._delayed(terms)

    def _delayed(self, terms: list[Term]) -> str:
        rows = (f"({self.expr(d)}, ({', '.join(self.expr(c) for c in cs)},))" for d, cs in terms)
        return "[" + ", ".join(rows) + "]"

    def _potential(self, q: PotentialProblem) -> list[str]:
        scalars = (q.inertia, q.stiffness, q.kick, q.static)
        body = f"({', '.join(self.expr(e) for e in scalars)}, {self.flat(q.weights)})"
        used = [*scalars, *q.weights]
        parts = [self.function("particle", "_", body, used, "Inertia, stiffness, kick, static force, weights.")]
        try:
            powers = Poly(q.growth_stiffness, LAMBDA).all_coeffs()
        except PolynomialError as error:
            raise NotCovered(f"the growth stiffness {q.growth_stiffness} is not a polynomial in lambda") from error
        doc = "Stiffness of the two-copy operator: coefficients in lambda, highest power first."
        parts.append(self.function("growth_stiffness", "_", self.flat(powers), powers, doc))
        return parts
