"""How many fixed points a flow has: the annealed complexity by Kac and Rice.

At given states the field of a unit is Gaussian over the couplings, whose variance and mean depend on averages over
units alone. The density of zeros is that of this field times the determinant of the slopes; outside of the bulk of the
Jacobian's random part that determinant is the product over units of what is not random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from sympy import Add, DiracDelta, Expr, I, ImmutableMatrix, Mul, Rational, S, Symbol, linear_eq_to_matrix
from sympy.solvers.solveset import NonlinearError

from quenched.theory.average import Functional
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At
from quenched.theory.lower import CopiedAction, SiteField
from quenched.theory.plastic import BondMemory, IntegratedAction
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.terms import PAST, Term

if TYPE_CHECKING:
    from quenched.theory.derivation import Derivation
    from quenched.theory.model import Model

#: The average over units that the fields hang on, as a number.
ORDER = Symbol("C", positive=True)
#: What a unit is at.
STATE = Symbol("x", real=True)


@dataclass(frozen=True)
class UnitsAtRest(Form):
    """A unit at rest: 0 = drift(x) + ζ, with ζ Gaussian over the couplings at given states.

    Attributes
    ----------
    state : the unit's variable
    drift : what is not random, in the state and the order parameter C
    variance : of ζ, in C
    average : the function of the state whose average over units is C
    spread : variance that the couplings give to the slope, of which `variance` has the value
    feedback : the part of the drift that dynamic couplings give
    parameters : of the declaration
    followers : (field, its value at rest) of the other fields of a unit
    inner : derivatives of a unit's equations by its fields, the couplings' part apart, in the state
    ends : the equation that couplings enter, and the field that they read, as row and column of `inner`
    """

    name: ClassVar[str] = "units at rest"
    state: Symbol
    drift: Expr
    variance: Expr
    average: Expr
    spread: Expr
    feedback: Expr
    parameters: tuple[Symbol, ...]
    followers: tuple[tuple[Symbol, Expr], ...] = ()
    inner: ImmutableMatrix | None = None
    ends: tuple[int, int] = (0, 0)

    @property
    def slope(self) -> Expr:
        """What is not random in the slope of a unit."""
        return self.drift.diff(self.state)

    def lines(self) -> list[Line]:
        x, c = text(self.state), text(self.average)
        return [
            Line(f"0 = {text(self.drift)} + ζ", rf"0 = {latex(self.drift)} + \zeta", "a unit at rest"),
            Line(
                f"⟨ζ²⟩ = {text(self.variance)}",
                rf"\langle \zeta^2 \rangle = {latex(self.variance)}",
                "over the couplings, at given states",
            ),
            Line(f"C = ⟨{c}⟩", rf"C = \langle {latex(self.average)} \rangle", f"over units, of {x}"),
            *(Line(f"{text(f)} = {text(e)}", f"{latex(f)} = {latex(e)}", "at rest") for f, e in self.followers),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, piece in enumerate(Add.make_args(self.drift)):
            yield f"term {k + 1} of the drift dropped", replace(self, drift=self.drift - piece)
            yield f"term {k + 1} of the drift × 1.1", replace(self, drift=self.drift + piece / 10)
        yield "variance × 1.1", replace(self, variance=self.variance * Rational(11, 10))
        for k, (follower, value) in enumerate(self.followers):
            more = (*self.followers[:k], (follower, value * Rational(11, 10)), *self.followers[k + 1 :])
            yield f"{follower} × 1.1", replace(self, followers=more)


@dataclass(frozen=True)
class StableCount(Form):
    """The exponent of the mean number of stable fixed points, as an extremum over one integral of a unit.

    Attributes
    ----------
    units : what the integral is over
    weight : of a unit, the product of which is the determinant outside of the bulk
    edge : its average over units is below 1 where the bulk of the Jacobian does not reach zero
    """

    name: ClassVar[str] = "number of stable fixed points"
    units: UnitsAtRest
    weight: Expr
    edge: Expr

    def lines(self) -> list[Line]:
        u = self.units
        one = f"({text(u.average)} − C)"
        return [
            Line(
                f"Σ = max_C min_(a, b≥0) ln ∫d{text(u.state)} w N({text(u.drift)}; {text(u.variance)}) "
                f"exp(−a {one} − b (h − 1))",
                rf"\Sigma = \max_C \min_{{a,\, b \ge 0}} \ln \int d{latex(u.state)}\, w\, \mathcal N("
                rf"{latex(u.drift)};\, {latex(u.variance)})\, e^{{-a({latex(u.average)} - C) - b(h - 1)}}",
                "over states with w > 0, per unit",
            ),
            Line(f"w = {text(self.weight)}", f"w = {latex(self.weight)}", "minus the slope of a unit"),
            Line(f"h = {text(self.edge)}", f"h = {latex(self.edge)}", "the bulk leaves zero out where ⟨h⟩ < 1"),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        yield "weight × 1.1", replace(self, weight=self.weight * Rational(11, 10))
        yield "edge × 1.1", replace(self, edge=self.edge * Rational(11, 10))


@dataclass(frozen=True)
class RestUnits(Rule):
    """Let everything rest: one configuration in place of the history, dynamic couplings where their units hold them."""

    title: ClassVar[str] = "Units at rest in the field of given states"
    assumption: ClassVar[str] = "a fixed point of units and bonds; N → ∞"
    source: ClassVar[str] = "clark2024"

    def __call__(self, before: Form) -> UnitsAtRest:
        assert isinstance(before, Functional)
        return units_at_rest(before)


@dataclass(frozen=True)
class CountStable(Rule):
    """Kac–Rice: density of the field at zero times the determinant, over states that are stable."""

    title: ClassVar[str] = "Mean number of stable fixed points"
    assumption: ClassVar[str] = (
        "stability is lost at a growth rate of zero; the bulk decides (single eigenvalues change no exponent)"
    )
    source: ClassVar[str] = "clark2024"

    def __call__(self, before: Form) -> StableCount:
        assert isinstance(before, UnitsAtRest)
        return StableCount(before, -before.slope, before.spread / before.slope**2)


def derive_count(model: Model) -> Derivation:
    """The steps from a declared flow to the number of its stable fixed points.

    Raises
    ------
    NotCovered
        A declaration whose count is not derived: the message names the term.
    """
    from quenched.theory.derivation import start

    return start(model).average().apply(RestUnits()).apply(CountStable())


def units_at_rest(functional: Functional) -> UnitsAtRest:
    """What a unit feels at rest, from the averaged exponent.

    Raises
    ------
    NotCovered
        Anything but a flow of one population whose units are affine in what couplings bring, without time, noise, unit
        disorder, or correlated couplings, and whose other fields follow the one that couplings read.
    """
    action = functional.action
    unit = _unit(action)
    variance: Expr = S.Zero
    feedback: Expr = S.Zero
    spread: Expr = S.Zero
    averages: list[Expr] = []
    for term in functional.terms:
        hats, own, others = _split(term, action)
        scale, average = Mul(*outputs(others, action)).as_independent(STATE, as_Add=False)
        averages.append(average)
        size = term.coef * _remembered(term, action)
        for hat in hats:
            size = size * unit.factors[hat]
        if len(hats) == 2:
            variance += -2 * size * scale * ORDER
            spread += -2 * size * Mul(*(o.diff(STATE) for o in outputs(others, action)))
        else:
            feedback += I * size * scale * Mul(*outputs(own, action)) * ORDER
    if len(set(averages)) != 1:
        shown = ", ".join(dict.fromkeys(map(str, averages))) or "none"
        raise NotCovered(f"counting fixed points is derived for one average over units, these couplings make: {shown}")
    if variance == 0:
        raise NotCovered("fixed points are counted by the density of random fields, which these couplings do not bring")
    drift, parameters = unit.rest + feedback, tuple(action.parameters)
    said = drift, variance, averages[0], spread, feedback, parameters
    return UnitsAtRest(STATE, *said, unit.followers, unit.inner, unit.ends)


@dataclass(frozen=True)
class _Unit:
    """The equations of a unit at rest: one of its state is left, with the factor of each conjugate field."""

    rest: Expr
    factors: dict[str, Expr]
    followers: tuple[tuple[Symbol, Expr], ...]
    inner: ImmutableMatrix
    ends: tuple[int, int]


def _unit(action: CopiedAction) -> _Unit:
    """Let the fields that no coupling reads follow the one that couplings read.

    That is sound where the determinant of all of a unit's equations is that of the one left times a positive constant.
    """
    if action.clock != "flow":
        raise NotCovered("fixed points are counted in a flow so far")
    if len(action.populations) != 1:
        shown = ", ".join(p.name for p in action.populations)
        raise NotCovered(f"fixed points are counted in a flow of one population so far, these are several: {shown}")
    _check_smooth(action)
    locals_ = {f"hat_{f.name}": f.symbol for f in action.of_role("local")}
    symbols = [action.fields[name].symbol for name, _ in action.equations]
    column = symbols.index(_read(action).symbol)
    row = _driven(action, set(locals_.values()))
    rows = [rhs.xreplace({symbols[column]: STATE}) for _, rhs in action.equations]
    _check_affine(rows, symbols, action, locals_)
    rates = [[rhs.diff(s if k != column else STATE) for k, s in enumerate(symbols)] for rhs in rows]
    followers = _followers(rows, symbols, row, column, action)
    values = dict(followers)
    kept = rows[row].xreplace(values)
    rest = kept.xreplace(dict.fromkeys(locals_.values(), S.Zero))
    factors = {hat: rows[row].diff(symbol) for hat, symbol in locals_.items()}
    inner = ImmutableMatrix(rates).xreplace(values)
    return _Unit(rest, factors, followers, inner, (row, column))


def _check_smooth(action: CopiedAction) -> None:
    """Delays may lose stability by an oscillation; what jumps has no slope."""
    outputs = [f.definition for f in action.of_role("output") if f.definition is not None]
    for body in (*outputs, *(rhs for _, rhs in action.equations)):
        if body.has(At):
            raise NotCovered(f"fixed points are counted without delays, got {body}")
        if any(body.diff(symbol).has(DiracDelta) for symbol in body.free_symbols):
            raise NotCovered(f"fixed points are counted in smooth flows, {body} jumps")


def _read(action: CopiedAction) -> SiteField:
    """The one field that couplings read."""
    states = action.of_role("state")
    bodies = [f.definition for f in action.of_role("output") if f.definition is not None]
    used = {name for use in action.uses for name, _ in (*use.row, *use.col)}
    used |= {name for term in action.terms for f in term.factors for name, _ in f.atoms}
    found = [f for f in states if f.name in used or any(f.symbol in body.free_symbols for body in bodies)]
    if len(found) != 1:
        shown = ", ".join(f.name for f in found) or "none"
        raise NotCovered(f"fixed points are counted where couplings read one field of a unit, these read: {shown}")
    return found[0]


def _driven(action: CopiedAction, locals_: set[Symbol]) -> int:
    """The equation that couplings enter."""
    found = [k for k, (_, rhs) in enumerate(action.equations) if rhs.free_symbols & locals_]
    if len(found) != 1:
        shown = ", ".join(action.equations[k][0] for k in found) or "none"
        raise NotCovered(f"fixed points are counted where couplings drive one field of a unit, these drive: {shown}")
    return found[0]


def _check_affine(rows: list[Expr], symbols: list[Symbol], action: CopiedAction, locals_: dict[str, Symbol]) -> None:
    constants, inputs = {*action.parameters}, set(locals_.values())
    for rhs in rows:
        factors = [rhs.diff(symbol) for symbol in inputs]
        if not all(f.free_symbols <= constants for f in factors) or not rhs.free_symbols <= {
            *(constants | inputs),
            *symbols,
            STATE,
        }:
            raise NotCovered(f"fixed points are counted where a unit is affine in its inputs, without noise, got {rhs}")


def _followers(
    rows: list[Expr], symbols: list[Symbol], row: int, column: int, action: CopiedAction
) -> tuple[tuple[Symbol, Expr], ...]:
    """The other fields in terms of the state, from the other equations.

    Raises
    ------
    NotCovered
        Equations that are not linear in these fields, or that change the sign of the determinant.
    """
    others = [s for k, s in enumerate(symbols) if k != column]
    left = [rhs for k, rhs in enumerate(rows) if k != row]
    if not others:
        return ()
    names = ", ".join(map(str, others))
    try:
        matrix, values = linear_eq_to_matrix(left, others)
    except NonlinearError:
        raise NotCovered(
            f"fixed points are counted where other fields of a unit rest at one value, not {names}"
        ) from None
    cofactor = (-1) ** (row + column) * (-matrix).det()
    if not cofactor.free_symbols <= {*action.parameters} or not cofactor.is_positive:
        raise NotCovered(
            f"fixed points are counted where other fields of a unit decay to a value that the state gives; {names} "
            f"need {cofactor} > 0"
        )
    return tuple(zip(others, matrix.LUsolve(values), strict=True))


def _split(term: Term, action: CopiedAction) -> tuple[list[str], list[str], list[str]]:
    """Conjugate fields of a term, outputs that stand beside them, and those of the average that multiplies them."""
    roles = {name: f.role for name, f in action.fields.items()}
    conjugate = [f for f in term.factors if any(roles[a] == "hat" for a, _ in f.atoms)]
    others = [f for f in term.factors if f not in conjugate]
    hats = [a for f in conjugate for a, _ in f.atoms if roles[a] == "hat"]
    own = [a for f in conjugate for a, _ in f.atoms if roles[a] != "hat"]
    plain = len(conjugate) == len(others) == 1 and term.power == 0
    if not plain or (len(hats), len(own)) not in ((2, 0), (1, 1)):
        raise NotCovered(
            "fixed points are counted for couplings without mean, symmetry or other correlations: "
            f"the average has {' '.join(a for f in term.factors for a, _ in f.atoms)}"
        )
    return hats, own, [a for a, _ in others[0].atoms]


def outputs(names: list[str], action: CopiedAction) -> list[Expr]:
    """Outputs of a unit, in its state."""
    state = _read(action)
    found = [action.fields[name] for name in names]
    bodies = [f.symbol if f.definition is None else f.definition for f in found]
    return [body.xreplace({state.symbol: STATE}) for body in bodies]


def _remembered(term: Term, action: CopiedAction) -> Expr:
    """What a constant drive leaves in the memory of a bond: one over its rate of decay."""
    memories: tuple[BondMemory, ...] = action.memories if isinstance(action, IntegratedAction) else ()
    out: Expr = S.One
    for kind, _ in term.kernels:
        found = [m for m in memories if PAST + m.name == kind]
        if len(found) != 1 or found[0].timed or found[0].rate == 0:
            raise NotCovered("fixed points of bonds need a constant rate of decay, and no halt")
        out = out / -found[0].rate
    return out


__all__ = ["ORDER", "CountStable", "RestUnits", "StableCount", "UnitsAtRest", "derive_count", "units_at_rest"]
