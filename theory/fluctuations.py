"""Step 10: fluctuations of the order parameters at finite N.

Two copies of the network share their couplings and nothing else, so that ⟨a¹(t) b²(s)⟩ = (1/N) Σ_i a_i¹(t) b_i²(s) is
zero as N → ∞. It fluctuates with N·Cov = Σ(1 − P''Σ)^{-1}: P'' from the averaged exponent, Σ the covariance of the
single-site monomials, which factorises into one propagator for each copy. Averaging over independent copies,
N⟨O_aa(t, s) O_aa(t', s')⟩ = (1/N) Σ_ij C_ij(t − t') C_ij(s − s'): the variance of cross-covariances between units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import ClassVar

from sympy import (
    Add,
    Expr,
    I,
    ImmutableMatrix,
    Matrix,
    Mul,
    Poly,
    Rational,
    S,
    Symbol,
    eye,
    factor,
    fraction,
    together,
    zeros,
)

from quenched.theory.average import Functional, term_print
from quenched.theory.closure import argument_transfers
from quenched.theory.errors import NotCovered
from quenched.theory.linear import LinearUnits
from quenched.theory.lower import CopiedAction, SiteField
from quenched.theory.problem import DT, SiteFunction, StationaryGaussian, U
from quenched.theory.problem_fluctuations import FluctuationProblem, QuadraticProblem, UnitField
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.terms import Atom, Factor, Term

#: Above so many coupled modes the covariance is left as a matrix formula.
CLOSED_UP_TO = 4


@dataclass(frozen=True)
class Mode:
    """⟨first¹(t) second²(s)⟩ of one population: an order parameter between two copies."""

    population: str
    first: str
    second: str

    def shown(self, fields: dict[str, SiteField]) -> tuple[str, str]:
        """In both notations."""
        a, b = fields[self.first].symbol, fields[self.second].symbol
        several = len({f.population for f in fields.values()}) > 1
        tag, tag_tex = (f"_{self.population}", f"_{{{self.population}}}") if several else ("", "")
        return f"⟨{text(a)}¹ {text(b)}²⟩{tag}", rf"\langle {{{latex(a)}}}^1 {{{latex(b)}}}^2 \rangle{tag_tex}"


@dataclass(frozen=True)
class QuadraticAction(Form):
    """The averaged exponent to second order in the order parameters between two copies.

    Attributes
    ----------
    action : fields and site equations
    modes : the order parameters between copies that occur
    hessian : P'', symmetric, (modes × modes)
    apart : terms that do not enter, with the reason
    """

    name: ClassVar[str] = "quadratic action between two copies"
    action: CopiedAction
    modes: tuple[Mode, ...]
    hessian: ImmutableMatrix
    apart: tuple[tuple[Term, str], ...] = ()

    def lines(self) -> list[Line]:
        pieces = []
        for i, a in enumerate(self.modes):
            for j, b in enumerate(self.modes[i:], start=i):
                coef = self.hessian[i, j] / (2 if i == j else 1)
                if coef != 0:
                    (p, tex), (q, tex_q) = a.shown(self.action.fields), b.shown(self.action.fields)
                    pieces.append((coef, p + q, tex + tex_q))
        plain, tex = signed_sum(pieces)
        over = "" if self.action.clock == "none" else "summed over both times"
        return [Line(f"P₂ = {plain}", f"P_2 = {tex}", over)]

    def dropped(self) -> list[Line]:
        out = []
        for term, reason in self.apart:
            plain, tex = term_print(term, self.action.fields)
            out.append(Line(f"{text(term.coef)}·{plain}", f"{latex(term.coef)} {tex}", reason))
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for i in range(len(self.modes)):
            for j in range(i, len(self.modes)):
                for label, scale in (("dropped", S.Zero), ("× 1.1", Rational(11, 10))):
                    if self.hessian[i, j] != 0:
                        changed = self.hessian.as_mutable()
                        changed[i, j] = changed[j, i] = scale * self.hessian[i, j]
                        yield f"P''[{i},{j}] {label}", replace(self, hessian=ImmutableMatrix(changed))


@dataclass(frozen=True)
class ExpandBetweenCopies(Rule):
    """Take two copies with the same couplings and expand in what connects them."""

    title: ClassVar[str] = "Fluctuations: quadratic action between two copies"
    assumption: ClassVar[str] = "same couplings, independent noise and initial states; at frequencies other than 0"
    source: ClassVar[str] = "clark2023"

    def __call__(self, before: Form) -> QuadraticAction:
        assert isinstance(before, Functional)
        return expand_between_copies(before)


#: Value of a site average that joins two copies, at the saddle.
Overlap = Callable[[Factor], Expr]
#: Stands in P'' where a term counts pairs of equal copies only: equal times, or equal layers.
SAME = Symbol("delta_c", real=True)


def expand_between_copies(functional: Functional, overlap: Overlap | None = None) -> QuadraticAction:
    """P'' of the order parameters ⟨a¹ b²⟩.

    Parameters
    ----------
    functional : the averaged exponent
    overlap : their values at the saddle; without it they vanish there

    Raises
    ------
    NotCovered
        For a term that is no product of two averages at the same two copies (with `overlap`: one that reaches over
        more than two copies).
    """
    pairs: dict[tuple[Mode, Mode], Expr] = {}
    apart = []
    for term in functional.terms:
        if all(len({c for _, c in f.atoms}) == 1 for f in term.factors):
            apart.append((term, "within one copy"))
            continue
        found = _vanishing(term) if overlap is None else _joined(term, functional.action.fields, overlap)
        if not found:
            apart.append((term, "not of second order in what connects two copies"))
        for first, second, coef in found:
            pairs[first, second] = pairs.get((first, second), S.Zero) + coef
    modes = tuple(sorted({m for pair in pairs for m in pair}, key=lambda m: (m.population, m.first, m.second)))
    hessian = zeros(len(modes), len(modes))
    for (first, second), coef in pairs.items():
        i, j = modes.index(first), modes.index(second)
        hessian[i, j] += coef
        hessian[j, i] += coef
    return QuadraticAction(functional.action, modes, ImmutableMatrix(hessian), tuple(apart))


def _vanishing(term: Term) -> list[tuple[Mode, Mode, Expr]]:
    """The products of two modes in a term where all modes vanish at the saddle."""
    copies = term.copies
    shaped = all(len(f.atoms) == 2 and {c for _, c in f.atoms} == set(copies) for f in term.factors)
    if term.kernels or term.power != 0 or len(term.factors) != 2 or len(copies) != 2 or not shaped:
        raise NotCovered(
            f"the term with averages of {[[a for a, _ in f.atoms] for f in term.factors]}: its fluctuations are not "
            "built yet (expected a product of two averages at the same two copies)"
        )
    return list(_between_copies(term.factors, term.coef, copies))


def _joined(term: Term, fields: dict[str, SiteField], overlap: Overlap) -> list[tuple[Mode, Mode, Expr]]:
    """The same about a saddle where copies overlap: other averages of the term take their values."""
    shown = [[a for a, _ in f.atoms] for f in term.factors]
    moving = {c for f in term.factors for a, c in f.atoms if not fields[a].single}
    copies = tuple(c for c in term.copies if c in moving)
    if len(copies) < 2:
        return []
    if len(copies) > 2 or term.power != 0:
        raise NotCovered(f"the term with averages of {shown} couples {len(copies)} copies: its stability is not built")
    if any(kind != "same" for kind, _ in term.kernels):
        raise NotCovered(f"the term with averages of {shown} remembers dynamic couplings: its stability is not built")
    coef = term.coef * (SAME if term.kernels else S.One)
    cross = [k for k, f in enumerate(term.factors) if len(f.atoms) == 2 and {c for _, c in f.atoms} == set(copies)]
    out: list[tuple[Mode, Mode, Expr]] = []
    for i, j in combinations(cross, 2):
        rest = Mul(*(overlap(f) for k, f in enumerate(term.factors) if k not in (i, j)))
        out += _between_copies((term.factors[i], term.factors[j]), coef * rest, copies)
    return out


def _between_copies(
    factors: tuple[Factor, ...], coef: Expr, copies: tuple[int, ...]
) -> Iterator[tuple[Mode, Mode, Expr]]:
    """Two averages as modes, each of their copy indices in either copy of the network."""
    for one, two in (copies, copies[::-1]):
        first, second = (Mode(f.population, _at(f.atoms, one), _at(f.atoms, two)) for f in factors)
        yield first, second, coef


def _at(atoms: tuple[Atom, ...], copy: int) -> str:
    return next(a for a, c in atoms if c == copy)


# --- propagators of one site ---------------------------------------------------------------------------------------

#: A propagator K_ac at ω₁ (copy 1) or ω₂ (copy 2), for two field names.
Propagator = Callable[[str, str, int], Expr]


def symbolic_propagator(fields: dict[str, SiteField]) -> Propagator:
    """Propagators as symbols: spectra C, responses R and their complex conjugates (with a bar)."""

    def propagator(a: str, c: str, copy: int) -> Expr:
        roles = [fields[n].role == "hat" for n in (a, c)]
        if all(roles):
            return S.Zero
        if roles[1]:
            return I * response(a, c, copy)
        if roles[0]:
            return I * response(c, a, copy, bar=True)
        return spectrum(a, c, copy)

    return propagator


def spectrum(a: str, c: str, copy: int) -> Symbol:
    """C_ac(ω_copy); C_ca is its complex conjugate."""
    name = f"C_{a}" if a == c else f"C_{a};{c}" if a < c else f"Cbar_{c};{a}"
    return Symbol(f"{name}__{copy}", real=True if a == c else None)


def response(a: str, hat: str, copy: int, bar: bool = False) -> Symbol:
    """R_a(ω_copy): response of field a to the local field that `hat` is conjugate to."""
    return Symbol(f"{'Rbar' if bar else 'R'}_{a};{hat.removeprefix('hat_')}__{copy}")


def site_covariance(first: Mode, second: Mode, k: Propagator, fractions: dict[str, Expr]) -> Expr:
    """Σ between two modes: one propagator for each copy."""
    if first.population != second.population:
        return S.Zero
    return k(first.first, second.first, 1) * k(first.second, second.second, 2) / fractions[first.population]


def covariance(q: QuadraticAction, k: Propagator, first: Mode, second: Mode | None = None) -> Expr:
    """N·Cov of two modes, Σ_AB + Σ_Ao P''(1 − Σ_oo P'')^{-1} Σ_oB over the modes o of the quadratic action.

    Observed modes need not occur in the action.
    """
    second = second or first
    f = fractions_of(q.action)
    size = len(q.modes)
    among = Matrix(size, size, lambda i, j: site_covariance(q.modes[i], q.modes[j], k, f))
    left = Matrix(1, size, lambda _, j: site_covariance(first, q.modes[j], k, f))
    right = Matrix(size, 1, lambda i, _: site_covariance(q.modes[i], second, k, f))
    solved = (eye(size) - among * q.hessian).LUsolve(right) if size else right
    total: Expr = site_covariance(first, second, k, f) + (left * q.hessian * solved)[0, 0]
    return total


def fractions_of(action: CopiedAction) -> dict[str, Expr]:
    """Share of every population."""
    return {p.name: p.fraction for p in action.populations}


@dataclass(frozen=True)
class SitePropagators(Form):
    """Spectra and responses of the fields of one unit, and the fluctuation problem that they complete.

    Attributes
    ----------
    quadratic : the quadratic action
    problem : the problem for the solver
    """

    name: ClassVar[str] = "propagators of one unit"
    quadratic: QuadraticAction
    problem: FluctuationProblem = field(hash=False)

    def lines(self) -> list[Line]:
        left, tex = "Σ_ab,cd(ω1,ω2)", r"\Sigma_{ab,cd}(\omega_1,\omega_2)"
        product, product_tex = "K_ac(ω1)·K_bd(ω2)", r"K_{ac}(\omega_1)\, K_{bd}(\omega_2)"
        why = "copies are independent: one propagator each"
        if self.problem.shared:
            product, product_tex = f"⟨{product}⟩", rf"\langle {product_tex} \rangle"
            why = "over labels and frozen inputs, which the copies of a unit share; one propagator each, given these"
        out = [Line(f"{left} = {product}", f"{tex} = {product_tex}", why)]
        for unit in self.problem.fields:
            for h, transfer in unit.transfer.items():
                if transfer != 0:
                    out.append(self._response_line(unit, h, transfer))
        return out

    def _response_line(self, unit: UnitField, h: str, transfer: Expr) -> Line:
        omega = Symbol("omega", real=True)
        gain = transfer.subs(DT, I * omega if self.problem.full.clock == "flow" else Symbol("z"))
        slope = S.One if unit.f.expr == U else Symbol(f"{unit.f.name}'")
        mark = ("", "") if slope == 1 else (f"⟨{text(slope)}⟩·", rf"\langle {latex(slope)} \rangle\,")
        name = Symbol(unit.name)
        hat = self.quadratic.action.fields[f"hat_{h}"].symbol
        return Line(
            f"K_{text(name)},{text(hat)}(ω) = i·R,  R = {mark[0]}{text(gain)}",
            rf"K_{{{latex(name)},{latex(hat)}}}(\omega) = i R,\quad R = {mark[1]}{latex(gain)}",
            "Price's theorem" if slope != 1 else "",
        )

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, unit in enumerate(self.problem.fields):
            for h, transfer in unit.transfer.items():
                if transfer != 0:
                    scaled = replace(unit, transfer=unit.transfer | {h: transfer * Rational(11, 10)})
                    fields = (*self.problem.fields[:k], scaled, *self.problem.fields[k + 1 :])
                    yield (
                        f"response of {unit.name} to {h} × 1.1",
                        replace(self, problem=replace(self.problem, fields=fields)),
                    )


@dataclass(frozen=True)
class PropagateUnits(Rule):
    """Spectra and responses of Gaussian units."""

    title: ClassVar[str] = "Propagators of one unit"
    assumption: ClassVar[str] = "stationary state of Gaussian units, given their labels and frozen inputs"
    source: ClassVar[str] = "price1958"
    units: LinearUnits = field(hash=False)
    problem: StationaryGaussian = field(hash=False)

    def __call__(self, before: Form) -> SitePropagators:
        assert isinstance(before, QuadraticAction)
        return SitePropagators(before, fluctuation_problem(before, self.units, self.problem))


def fluctuation_problem(q: QuadraticAction, units: LinearUnits, problem: StationaryGaussian) -> FluctuationProblem:
    """The problem that solvers take.

    Where units have labels or constant inputs, or outputs with a mean, copies of a unit share those.
    """
    transfers = argument_transfers(units)
    functions = {s.f.name: (s.f, s.a) for s in problem.two_points}
    fields = []
    for out in q.action.of_role("output"):
        if out.name in functions:
            f, a = functions[out.name]
            fields.append(UnitField(out.name, out.population.name, f, a, transfers[a]))
    names = [a.name for a in problem.arguments]
    for state in q.action.of_role("state"):
        a = names.index(state.name)
        fields.append(UnitField(state.name, state.population.name, SiteFunction(state.name, U), a, transfers[a]))
    own = quadratic_problem(q)
    return FluctuationProblem(
        own.conjugates, own.fractions, own.modes, own.hessian, problem, tuple(fields), _shared(problem)
    )


def _shared(p: StationaryGaussian) -> bool:
    """Whether copies of a unit may share labels, constant inputs, or frozen ones (of outputs that are not odd)."""
    constant = any(e != 0 for e in (*p.static, *(a.constant for a in p.arguments)))
    return bool(p.labels) or constant or not all(is_odd(f) for s in p.two_points for f in (s.f, s.g))


def is_odd(f: SiteFunction) -> bool:
    """Whether f(−u) = −f(u)."""
    both = f.expr + f.expr.xreplace({U: -U})
    return bool(both == 0 or both.expand() == 0 or together(both).expand() == 0)


def _bodies(action: CopiedAction) -> list[Expr]:
    return [e for _, e in action.equations] + [o.definition for o in action.of_role("output") if o.definition]


def quadratic_problem(q: QuadraticAction) -> QuadraticProblem:
    """The quadratic action as solvers take it."""
    return QuadraticProblem(
        {f"hat_{h.name}": h.name for h in q.action.of_role("local")},
        fractions_of(q.action),
        tuple((m.population, m.first, m.second) for m in q.modes),
        tuple(tuple(q.hessian.row(i)) for i in range(len(q.modes))),
    )


@dataclass(frozen=True)
class CrossCovariances(Form):
    """N·Cov of every observable field between copies: the variance of its cross-covariances between units.

    Attributes
    ----------
    quadratic : the quadratic action
    observed : names of the fields, the outputs that couplings read first
    closed : field → C(ω₁)C(ω₂) + ψ(ω₁, ω₂) in spectra and responses, where there are few modes
    """

    name: ClassVar[str] = "variance of cross-covariances"
    quadratic: QuadraticAction
    observed: tuple[str, ...]
    closed: dict[str, Expr] = field(hash=False)

    def lines(self) -> list[Line]:
        out = []
        for observed in self.observed:
            name = Symbol(observed)
            left = f"C_{text(name)}(ω1)·C_{text(name)}(ω2) + ψ_{text(name)}(ω1,ω2)"
            at = rf"_{{{latex(name)}}}"
            tex = rf"C{at}(\omega_1) C{at}(\omega_2) + \psi{at}(\omega_1,\omega_2)"
            value = self.closed.get(observed)
            if value is None:
                out.append(
                    Line(f"{left} = f·[Σ(1 − P''Σ)^(-1)]", rf"{tex} = f \left[\Sigma (1 - P''\Sigma)^{{-1}}\right]")
                )
            else:
                value = _without_label(value, self.quadratic.action)
                out.append(
                    Line(f"{left} = {_plain(value)}", f"{tex} = {_tex(value)}", "ψ = N·mean over i≠j of C_ij C_ij")
                )
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for name, value in self.closed.items():
            yield f"{name} × 1.1", replace(self, closed=self.closed | {name: value * Rational(11, 10)})


@dataclass(frozen=True)
class InvertQuadraticAction(Rule):
    """Invert the quadratic action for each pair of frequencies."""

    title: ClassVar[str] = "Variance of cross-covariances"
    assumption: ClassVar[str] = "Gaussian fluctuations, N → ∞"
    source: ClassVar[str] = "clark2023"

    def __call__(self, before: Form) -> CrossCovariances:
        assert isinstance(before, SitePropagators | QuadraticAction)
        q = before.quadratic if isinstance(before, SitePropagators) else before
        fields = q.action.fields
        observed = [f.name for role in ("output", "state") for f in q.action.of_role(role)]
        closed = {}
        alike = not (isinstance(before, SitePropagators) and before.problem.shared)
        if alike and len(q.modes) <= CLOSED_UP_TO:
            k, fractions = symbolic_propagator(fields), fractions_of(q.action)
            for name in observed:
                mode = Mode(fields[name].population.name, name, name)
                closed[name] = tidied(fractions[mode.population] * covariance(q, k, mode))
        return CrossCovariances(q, tuple(observed), closed)


def tidied(expr: Expr) -> Expr:
    """A sum over pairs of spectra, each with its coefficient factored."""
    spectra = sorted((s for s in expr.free_symbols if s.name.startswith("C")), key=str)
    numerator, denominator = fraction(together(expr))
    parts = Poly(numerator, *spectra).terms()
    return Add(
        *(factor(c / denominator) * Mul(*(s**n for s, n in zip(spectra, powers, strict=True))) for powers, c in parts)
    )


def _plain(expr: Expr) -> str:
    return text(expr.xreplace({s: Symbol(_name(s, text, "(ω{})", ("R\u0304", "C\u0304"))) for s in expr.free_symbols}))


def _tex(expr: Expr) -> str:
    bars = (r"\bar{R}", r"\bar{C}")
    return latex(expr.xreplace({s: Symbol(_name(s, latex, r"(\omega_{})", bars)) for s in expr.free_symbols}))


def _name(symbol: Symbol, show: Callable[[object], str], frequency: str, bars: tuple[str, str]) -> str:
    """A spectrum or response as it is printed: letter, fields, frequency; other symbols as they are."""
    head, sep, copy = symbol.name.rpartition("__")
    if not sep:
        return str(symbol.name)
    letter, _, names = head.partition("_")
    letter = {"Rbar": bars[0], "Cbar": bars[1]}.get(letter, letter)
    index = ",".join(show(Symbol(n)) for n in names.split(";"))
    wrapped = f"{{{index}}}" if show is latex else index
    return f"{letter}_{wrapped}{frequency.format(copy)}"


def _without_label(expr: Expr, action: CopiedAction) -> Expr:
    """Responses without the name of the local field, where a unit has one only."""
    inputs = [h.name for h in action.of_role("local")]
    if len(inputs) != 1:
        return expr
    ends = f";{inputs[0]}__"
    return expr.xreplace({s: Symbol(s.name.replace(ends, "__")) for s in expr.free_symbols if s.name.startswith("R")})
