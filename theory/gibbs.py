"""The head `Gibbs`: a measure over the states of units, with quenched disorder in its energy or its constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sympy import Add, Basic, Expr, S, Symbol, sympify

from quenched.theory.checks import check_domain, check_key, check_laws, check_names, check_observable
from quenched.theory.couplings import Apply, RandomMatrix, Row
from quenched.theory.distributions import Law, as_law
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import Field, Quenched, WhiteNoise, plain, population_of
from quenched.theory.keywords import named_arguments
from quenched.theory.landscape import Height, Landscape
from quenched.theory.observables import Functional, Mean
from quenched.theory.priors import on_sphere
from quenched.theory.spaces import N, Population, as_expr, as_scalar
from quenched.theory.substitute import (
    canonical,
    content_key,
    matrices_of,
    parameters_of,
    populations_of,
    substitute,
    unit_symbols_of,
    walk,
)


class Gibbs:
    """P(s) ∝ Π_i prior(s_i) · exp(−beta·energy) · Π weight.

    Parameters
    ----------
    priors : dict of Field to law
        A priori law of every unit of a field, such as `Ising`, `Normal`, `Uniform`, `SpikeSlab`, `Spherical`.
    energy : expression without open unit index, default 0
        Extensive: built from `total` and `mean`, such as ``-total(s*(J @ s))/2 - h*total(s)``.
    weight : expression per unit of one population, or a sequence of them
        The measure is multiplied by its product over the units, such as ``Heaviside(xi @ w - kappa)``.
    beta : expression in parameters, default 1
        Inverse temperature. It multiplies the energy only.
    name, defaults : as for `Dynamics`
    cold : bool, default False
        Zero temperature: all weight on the states of lowest energy. Made by `zero_temperature`.
    starts : sequence of initial states, default ()
        Where the copies s[1], s[2], … of the system start, if that differs between them. Made by `copies`.

    Raises
    ------
    QuenchedError
        Whenever this is not a measure: one line naming the thing and what was expected.
    """

    clock = "none"
    dt = None

    @named_arguments
    def __init__(
        self,
        priors: Mapping[Field, Law],
        energy: Any = 0,
        weight: Any = (),
        beta: Any = 1,
        name: str | None = None,
        defaults: Mapping[Any, Any] | None = None,
        cold: bool = False,
        starts: Sequence[Expr] = (),
    ) -> None:
        if not isinstance(priors, Mapping) or not priors:
            raise QuenchedError(f"Gibbs takes a dict of fields to laws, as in Gibbs({{s: Ising()}}), got {priors!r}")
        for field in priors:
            check_key("Gibbs", field)
        self.priors = {field: as_law(law, f"prior of {field}") for field, law in priors.items()}
        self.energy = _closed(energy)
        self.weights = tuple(_factor(w) for w in (weight if isinstance(weight, (tuple, list)) else (weight,)))
        self.beta = as_scalar(beta, "beta of Gibbs")
        self.name = name
        self.cold = cold
        self.starts = tuple(starts)
        self.observables: dict[str, Expr] = {}
        self._check()
        self._collect()
        self.defaults: dict[Symbol, Any] = {}
        self.defaults = {self._symbol(k): check_domain(self._symbol(k), v) for k, v in (defaults or {}).items()}

    # -- contents --------------------------------------------------------------------------------------------------
    def _nodes(self) -> tuple[Basic, ...]:
        return (*self.priors, *self.priors.values(), self.energy, *self.weights, self.beta)

    def _check(self) -> None:
        nodes = self._nodes()
        check_names(list(nodes))
        check_laws(nodes, {})
        if self.energy == 0 and not self.weights:
            raise QuenchedError("Gibbs needs an energy= or a weight=, got neither")
        if any(isinstance(part, WhiteNoise) for node in nodes for part in walk(node)):
            raise QuenchedError("a Gibbs measure has no time, so no WhiteNoise: use Quenched for disorder per unit")
        for field in unit_symbols_of(Field, *nodes):
            if field not in self.priors:
                raise QuenchedError(f"the field {field} has no prior: {nearest(str(field), map(str, self.priors))}")
        for part in (part for node in nodes for part in walk(node) if isinstance(part, Height)):
            self._check_height(part)

    def _check_height(self, node: Height) -> None:
        """A random polynomial of degree 3 and more outgrows every density on the line; one population reads it."""
        law, degree = self.priors[node.field], max(p for p, _ in node.landscape.powers)
        if degree > 2 and not bounded(law):
            raise QuenchedError(
                f"{node} is of degree {degree} and has no largest value under the prior {law} of {node.field}: "
                "expected a sphere, an interval or a finite set"
            )
        if self.landscapes[node.landscape] != node.population:
            raise QuenchedError(f"{node.landscape} is read by states of two populations: make one for each")

    def _collect(self) -> None:
        self._keys: dict[tuple[tuple[str, Expr], ...], str] = {}
        nodes = self._nodes()
        self.fields: tuple[Field, ...] = tuple(self.priors)
        self.matrices: tuple[RandomMatrix, ...] = tuple(matrices_of(*nodes))
        self.noises: tuple[WhiteNoise, ...] = ()
        self.quenched: tuple[Quenched, ...] = tuple(unit_symbols_of(Quenched, *nodes))
        self.populations: tuple[Population, ...] = tuple(populations_of(*nodes))
        self.parameters: tuple[Symbol, ...] = tuple(sorted(parameters_of(*nodes), key=lambda s: s.name))
        self.uses_N = any(part == N for node in nodes for part in walk(node))

    def key(self) -> str:
        """Content key: 64 hexadecimal digits, equal in every process for equal declarations."""
        known = tuple(self.observables.items())  # all that may change; solutions ask for the key every time
        if known not in self._keys:
            self._keys[known] = self._key()
        return self._keys[known]

    def _key(self) -> str:
        priors = [f"{canonical(x)}:{canonical(law)}" for x, law in self.priors.items()]
        rest = [f"{name}:{canonical(expr)}" for name, expr in sorted(self.observables.items())]
        rest += [f"start:{canonical(x)}" for x in self.starts]
        rest += [canonical(self.energy), *(canonical(w) for w in self.weights), canonical(self.beta)]
        return content_key("gibbs" if not self.cold else "gibbs at T = 0", *priors, "exponent", *rest)

    @property
    def landscapes(self) -> dict[Landscape, Population]:
        """The random functions that the energy or an observable reads, with the population of their states."""
        heights = [part for node in (self.energy, *self.observables.values()) for part in walk(node)]
        return {part.landscape: part.population for part in heights if isinstance(part, Height)}

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of matrices that the measure names: stored patterns that states start from or are compared with."""
        nodes = [*self.observables.values(), self.energy, *self.weights]
        nodes += [*self.starts, *(f.initial for f in self.fields if isinstance(f.initial, Expr))]
        found = {part if not part.bound else part.free() for node in nodes for part in walk(node) if type(part) is Row}
        return tuple(sorted(found, key=lambda r: (r.matrix.name, r.index)))

    # -- observables -----------------------------------------------------------------------------------------------
    def observe(self, **named: Any) -> Gibbs:
        """Declare observables by name, such as ``mean(s)`` or ``mean(s**2)``; returns the measure itself.

        Raises
        ------
        QuenchedError
            For an open unit index, a field without prior, or a name that is declared twice.
        """
        for name, given in named.items():
            expr = check_observable(name, given, self.priors, self.parameters)
            if self.observables.get(name, expr) != expr:
                raise QuenchedError(f"observable {name!r} is already declared as {self.observables[name]}")
            self.observables[name] = expr
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Gibbs) and self.key() == other.key()

    def __hash__(self) -> int:
        return int(self.key()[:15], 16)

    # -- parameters ------------------------------------------------------------------------------------------------
    def _symbol(self, key: Any) -> Symbol:
        for symbol in self.parameters:
            if key == symbol or key == symbol.name:
                return symbol
        raise QuenchedError(f"unknown parameter {str(key)!r}: {nearest(str(key), (s.name for s in self.parameters))}")

    def fix(self, values: Mapping[Any, Any] | None = None, **named: Any) -> Gibbs:
        """The measure with some parameters replaced everywhere by numbers or expressions."""
        given = {**(values or {}), **named}
        return self.rewritten({self._symbol(k): check_domain(self._symbol(k), v) for k, v in given.items()})

    def rewritten(self, chosen: Mapping[Basic, Any]) -> Gibbs:
        """The measure with parts (parameters, matrices, …) replaced everywhere by others."""

        def put(node: Any) -> Any:
            return substitute(node, chosen)

        fixed = Gibbs(
            {put(x): put(law) for x, law in self.priors.items()},
            put(self.energy),
            tuple(put(w) for w in self.weights),
            put(self.beta),
            self.name,
            {s: v for s, v in self.defaults.items() if s not in chosen},
            self.cold,
            tuple(put(x) for x in self.starts),
        )
        return fixed.observe(**{name: put(expr) for name, expr in self.observables.items()})

    def values(self, params: Mapping[Any, Any] | None = None, **named: Any) -> dict[Symbol, float]:
        """Complete numeric values of all parameters: the given ones, then the defaults.

        Raises
        ------
        QuenchedError
            For an unknown name, a missing value, or a value outside the symbol's assumptions.
        """
        given = {**(params or {}), **named}
        chosen = self.defaults | {self._symbol(k): check_domain(self._symbol(k), v) for k, v in given.items()}
        missing = [s.name for s in self.parameters if s not in chosen]
        if missing:
            raise QuenchedError(f"no value for {', '.join(missing)}: give {missing[0]}=…")
        numbers = {}
        for symbol in self.parameters:
            value = sympify(chosen[symbol])
            if value.free_symbols:
                raise QuenchedError(f"parameter {symbol.name!r} needs a number, got {value}")
            numbers[symbol] = float(value)
        check_laws(self._nodes(), numbers)
        return numbers

    # -- printing --------------------------------------------------------------------------------------------------
    def indexed(self) -> list[str]:
        """The measure with explicit indices, as lines of text."""
        from quenched.theory.indices import TextPrinter, entry_law

        printer = TextPrinter(len(self.populations) > 1)
        parts = [f"Π_i prior({printer.unit(x, 'i')})" for x in self.fields]
        if self.energy != 0:
            beta = "β" if self.cold else printer.tidy(self.beta)
            parts.append(f"exp[−({beta}) ({printer.tidy(self.energy)})]")
        parts += [f"Π_i [{printer.tidy(w)}]" for w in self.weights]
        head = "P = lim_{β→∞} (1/Z)" if self.cold else "P = (1/Z)"
        lines = [f"{head} {' '.join(parts)}"]
        lines += [f"{printer.unit(x, 'i')} ~ {printer.law(law)} a priori" for x, law in self.priors.items()]
        lines += [entry_law(m, printer.tagged) for m in self.matrices]
        lines += [v.law_text(printer.tidy) for v in self.landscapes]
        lines += [f"{printer.unit(q, 'i')} ~ {printer.law(q.law)}" for q in self.quenched]
        if printer.tagged:
            lines += [f"{p.name}: i = 1 … {printer.count(p)}" for p in self.populations]
        return lines

    def indexed_latex(self) -> str:
        """The measure with explicit indices as one LaTeX ``aligned`` block."""
        from quenched.theory.indices import TexPrinter, entry_law_latex

        printer = TexPrinter(len(self.populations) > 1)
        parts = [rf"\prod_i \mathrm{{prior}}\left({printer.unit(x, 'i')}\right)" for x in self.fields]
        if self.energy != 0:
            beta = r"\beta" if self.cold else printer._print(self.beta)
            parts.append(rf"\exp\left[-\left({beta}\right)\left({printer._print(self.energy)}\right)\right]")
        parts += [rf"\prod_i \left[{printer._print(w)}\right]" for w in self.weights]
        limit = r"\lim_{\beta\to\infty} " if self.cold else ""
        rows = [rf"P &= {limit}\frac{{1}}{{Z}} {' '.join(parts)}"]
        rows += [rf"{printer.unit(x, 'i')} &\sim {printer.law(law)}" for x, law in self.priors.items()]
        laws = [entry_law_latex(m, printer.tagged) for m in self.matrices]
        rows += [law.replace(r" \sim ", r" &\sim ", 1) for law in laws]
        rows += [v.law_latex(printer._print) for v in self.landscapes]
        rows += [rf"{printer.unit(q, 'i')} &\sim {printer.law(q.law)}" for q in self.quenched]
        if printer.tagged:
            names = [(rf"\mathrm{{{p.name}}}", printer._print(p.count)) for p in self.populations]
            rows += [rf"{name}: i &= 1, \dots, {count}" for name, count in names]
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def __str__(self) -> str:
        return "\n".join(self.indexed())

    __repr__ = __str__

    def _repr_latex_(self) -> str:
        return self.indexed_latex()


def bounded(law: Law) -> bool:
    """Whether all states of a prior lie in a bounded set."""
    return on_sphere(law) or bool(law.weights()) or law.support().measure.is_finite is not False


def _closed(given: Any) -> Expr:
    """An energy: extensive, no open unit index, no named functional."""
    energy = plain(as_expr(given, "energy of Gibbs")).expand()
    if population_of(energy, "energy of Gibbs") is not None:
        raise QuenchedError(f"the energy of Gibbs has an open unit index: {given}; sum over units, as in total(s*h)")
    if energy.atoms(Functional):
        raise NotCovered(f"the energy of Gibbs contains the functional {min(map(str, energy.atoms(Functional)))}")
    for term in Add.make_args(energy):
        if term != 0 and not term.atoms(Mean, Height) and not (term / N).is_constant(N):
            raise QuenchedError(f"the term {term} of the energy does not depend on the units: leave it out")
    return energy


def _factor(given: Any) -> Expr:
    """One weight: an expression per unit of one population."""
    factor = plain(as_expr(given, "weight of Gibbs"))
    if population_of(factor, "weight of Gibbs") is None:
        raise QuenchedError(f"the weight of Gibbs is per unit of a population, as in Heaviside(xi @ w), got {given}")
    if factor.is_extended_negative:
        raise QuenchedError(f"the weight of Gibbs should be positive, got {given}")
    if factor.atoms(Apply) == set() and factor == S.One:
        raise QuenchedError("a weight of 1 does nothing: leave it out")
    return factor
