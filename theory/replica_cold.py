"""Zero temperature: β → ∞ in the saddle-point equations, after N → ∞ and n → 0.

Two replicas of a state differ by ⟨x²⟩ − ⟨x_a x_b⟩ = χ/β, and what they feel grows as β: conjugates x = −iû as β, fields
b of states as β, their variances as β². L then becomes β times a maximum (a Moreau envelope of the energy),

    L(b; V) → β max_x [b x + V x²/2 − E(x)]        of a state,
    L(b; V) → β max_u [−E(u) − (u − b)²/2V]        of a local field,

and every equation keeps its leading power of β.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Expr, Mul, Rational, S, Symbol

from quenched.theory.errors import NotCovered
from quenched.theory.problem_replicas import (
    L,
    PairSite,
    Piece,
    ReplicaProblem,
    ReplicaSite,
    SiteAverage,
    X,
    site_average,
)
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, text
from quenched.theory.replica_ansatz import orbit_of
from quenched.theory.replica_forms import Orbit, SiteInField, Variable, polynomial, prior_pieces, replica_site
from quenched.theory.replica_limit import RepliconForm, average_of, site_of
from quenched.theory.replica_lower import COLD, ReplicatedAction
from quenched.theory.replica_state import Observe, ReplicaState, closure, orbit_kind, started


@dataclass(frozen=True)
class ColdForm(Form):
    """The saddle at zero temperature.

    Attributes
    ----------
    warm : the equations at finite temperature
    meaning : (order parameter, its value in the new ones), leading powers of β
    sites : field of every site, powers of β taken out
    value : lim Φ/β, minus the energy of the ground state
    equations, constraints, eigenvalue, matrix : as at finite temperature
    kinds : of every unknown
    """

    name: ClassVar[str] = "zero temperature"
    warm: RepliconForm
    meaning: tuple[tuple[Symbol, Expr], ...]
    sites: tuple[SiteInField, ...]
    value: Expr
    equations: dict[Symbol, Expr]
    constraints: dict[Symbol, tuple[Expr, Expr]]
    eigenvalue: Expr
    matrix: tuple[tuple[Expr, ...], ...]
    kinds: dict[Symbol, str]

    def __hash__(self) -> int:
        return hash((self.value, tuple(self.equations.items())))

    @property
    def bare(self) -> bool:
        """Whether there are constraints, but no energy."""
        action = self.warm.state.free.action.problem.action
        assert isinstance(action, ReplicatedAction)
        return not any(s.exponent.has(COLD) for s in action.sites) and not any(u.coef.has(COLD) for u in action.uses)

    def lines(self) -> list[Line]:
        out = [equation_line(old, new, "β → ∞") for old, new in self.meaning]
        out += [cold_line(s) for s in self.sites]
        out.append(equation_line(Symbol("e"), -self.value, "energy of the ground state per unit of N"))
        out += [equation_line(s, rhs) for s, rhs in self.equations.items()]
        out += [
            equation_line(value, average, f"fixes {text(lam)}") for lam, (average, value) in self.constraints.items()
        ]
        return [*out, equation_line(Symbol("replicon"), self.eigenvalue)]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, piece in enumerate(Add.make_args(self.value)):
            yield f"term {k + 1} of the energy × 1.1", replace(self, value=self.value + piece / 10)
        for s, rhs in self.equations.items():
            yield f"equation of {s} × 1.1", replace(self, equations=self.equations | {s: rhs * Rational(11, 10)})
        if self.eigenvalue != 0:
            yield "replicon × 1.1", replace(self, eigenvalue=self.eigenvalue * Rational(11, 10))


def cold_line(s: SiteInField) -> Line:
    """The envelope of one site, written out."""
    name = s.variable.population
    head = f"L_{name}: b = {text(s.b)} + √({text(s.k)}) z, V = {text(s.v)}"
    tex = rf"L_{{\mathrm{{{name}}}}}:\ b = {latex(s.b)} + \sqrt{{{latex(s.k)}}}\, z,\ V = {latex(s.v)}"
    state = s.variable.kind == "state"
    return Line(head, tex, "L = max_x [b x + V x²/2 − E(x)]" if state else "L = max_u [−E(u) − (u − b)²/2V]")


@dataclass(frozen=True)
class ZeroTemperature(Rule):
    """Keep the leading power of β in every equation."""

    title: ClassVar[str] = "Zero temperature: β → ∞"
    assumption: ClassVar[str] = "one ground state: replicas differ by χ/β, what a field of order 1/β changes"
    source: ClassVar[str] = "gardner1988"

    def __call__(self, before: Form) -> ColdForm:
        assert isinstance(before, RepliconForm)
        return _Cooling(before).run()


class _Cooling:
    """Substitutes the scaling of every order parameter and takes leading powers."""

    def __init__(self, warm: RepliconForm) -> None:
        self.warm = warm
        self.state, self.action = warm.state, warm.state.free.action
        self.fields = self.action.problem.action.fields
        self.swap: dict[Expr, Expr] = {}
        self.equations: dict[Symbol, Expr] = {}
        self.kinds: dict[Symbol, str] = {}

    def run(self) -> ColdForm:
        for lam in self.action.multipliers.values():
            self.swap[lam] = COLD * lam
        pending: list[tuple[Symbol, Expr, int]] = []
        for orbit, value in self.action.values.items():
            pending += self._scale(orbit, value)
        for symbol, rhs, power in pending:
            self.equations[symbol] = leading(self.cooled(rhs), power, f"the equation of {symbol}")
        sites = tuple(self._site(s) for s in self.action.sites)
        meaning = tuple((s, e) for s, e in self.swap.items() if isinstance(s, Symbol) and s != e)
        constraints = {
            lam: (leading(self.cooled(average), 0, f"the equation of {lam}"), value)
            for lam, (average, value) in self.state.constraints.items()
        }
        powers = [self._hats(o) for o in self.warm.pairs]
        matrix = tuple(
            tuple(leading(self.cooled(e), powers[i] - powers[j], "the replicon", loose=True) for j, e in enumerate(row))
            for i, row in enumerate(self.warm.matrix)
        )
        return ColdForm(
            self.warm,
            meaning,
            sites,
            leading(self.cooled(self.state.free.value), 1, "the free entropy"),
            self.equations,
            constraints,
            leading(self.cooled(self.warm.eigenvalue), 0, "the replicon"),
            matrix,
            self.kinds,
        )

    def _hats(self, orbit: Orbit) -> int:
        """How many conjugate fields of replicas an orbit has: its power of β."""
        return sum(self.fields[a].role == "hat" and not self.fields[a].single for a, _ in orbit.atoms)

    def _scale(self, orbit: Orbit, value: Expr) -> list[tuple[Symbol, Expr, int]]:
        """The scaling of one order parameter, and the equations of the new ones: (unknown, old average, power)."""
        power = self._hats(orbit)
        moving = [(a, c) for a, c in orbit.atoms if not self.fields[a].single]
        if len(moving) == 2 and orbit.copies == 2 and len(orbit.atoms) == 2:
            same = orbit_of(orbit.population, tuple((a, 0) for a, _ in orbit.atoms))
            return self._pair(value, same, orbit, power)
        paired = len(moving) == 2 and any(
            o != orbit
            and o.population == orbit.population
            and sorted(a for a, _ in o.atoms) == sorted(a for a, _ in moving)
            for o in self.action.values
        )
        if not isinstance(value, Symbol) or paired:
            return []
        self.swap[value] = COLD**power * value
        self.kinds[value] = orbit_kind(self.action, orbit)
        return [(value, average_of(self.action, orbit), power)]

    def _pair(self, off: Expr, same: Orbit, orbit: Orbit, power: int) -> list[tuple[Symbol, Expr, int]]:
        """⟨x x⟩ and ⟨x_a x_b⟩ differ by χ/β relative to their own size."""
        assert isinstance(off, Symbol)
        chi = Symbol("chi" + off.name[1:] if off.name[0] == "q" else f"chi_{off.name}", real=True)
        diagonal = self.action.values.get(same)
        difference = average_of(self.action, same) - average_of(self.action, orbit)
        out = [(chi, difference, power - 1)]
        self.kinds[chi] = "response" if power else "susceptibility"
        if diagonal is not None and not isinstance(diagonal, Symbol):
            self.swap[off] = diagonal - COLD ** (power - 1) * chi
            return out
        self.swap[off] = COLD**power * off
        self.kinds[off] = orbit_kind(self.action, orbit)
        if isinstance(diagonal, Symbol):
            self.swap[diagonal] = COLD**power * off + COLD ** (power - 1) * chi
        return [*out, (off, average_of(self.action, orbit), power)]

    def _site(self, s: SiteInField) -> SiteInField:
        b, k, v = self._field(s.variable.population, s.b, s.k, s.v)
        return replace(s, b=b, k=k, v=v)

    def _field(self, population: str, b: Expr, k: Expr, v: Expr) -> tuple[Expr, Expr, Expr]:
        state = site_of(self.action, population).variable.kind == "state"
        powers = (1, 2, 1) if state else (0, 0, -1)
        new = [e.xreplace(self.swap) for e in (b, k, v)]
        what = f"the field of {population}"
        return tuple(leading(e, p, what) for e, p in zip(new, powers, strict=True))

    def cooled(self, expr: Expr) -> Expr:
        """An expression in site averages with powers of β written out."""
        nodes = {node: self._average(node) for node in expr.atoms(SiteAverage)}
        slots = {node: Symbol(f"_{k}") for k, node in enumerate(nodes)}
        inside = expr.xreplace(slots).xreplace(self.swap)
        return inside.xreplace({slots[n]: new for n, new in nodes.items()}).expand()

    def _average(self, node: SiteAverage) -> Expr:
        state = site_of(self.action, node.site).variable.kind == "state"
        power = 0
        for factor in Mul.make_args(node.poly):
            base, exponent = factor.as_base_exp()
            if base in L:
                power += int(exponent) * (1 - L.index(base) if state else 1)
        b, k, v = self._field(node.site, *node.field)
        return COLD**power * site_average(node.site, node.poly, b, k, v, node.labels)


def cooled_pairs(form: ColdForm, sites: tuple[PairSite, ...], unknowns: dict[Orbit, Symbol]) -> tuple[PairSite, ...]:
    """Fields of sites in two states at zero temperature, the overlaps of both scaled as those of one."""
    cooling = _Cooling(form.warm)
    cooling.run()
    swap = cooling.swap | {s: COLD ** cooling._hats(o) * s for o, s in unknowns.items()}
    out = []
    for pair, cold in zip(sites, form.sites, strict=True):
        power = 2 if cold.variable.kind == "state" else 0
        cross = leading(pair.cross.xreplace(swap), power, f"the covariance of fields of {pair.site}")
        out.append(replace(pair, b=cold.b, k=cold.k, v=cold.v, cross=cross))
    return tuple(out)


def leading(expr: Expr, power: int, what: str, loose: bool = False) -> Expr:
    """The coefficient of β^power, the largest power that may occur."""
    found: dict[Expr, list[Expr]] = {}
    for term in Add.make_args(expr.expand()):
        coefficient, exponent = term.as_coeff_exponent(COLD)
        found.setdefault(exponent, []).append(coefficient)
    larger = [p for p in found if not (p - power).is_nonpositive and Add(*found[p]).expand().simplify() != 0]
    if larger and not loose:
        raise NotCovered(
            f"{what} grows as β^{max(larger, key=float)}, expected β^{power}: no scaling of a ground state"
        )
    return Add(*found.get(S(power), [])).expand()


# -- hand over -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ObserveCold(Rule):
    """Write the observables as site averages over the ground state."""

    title: ClassVar[str] = Observe.title
    source: ClassVar[str] = ""

    #: The declared observables by name.
    declared: tuple[tuple[str, Expr], ...] = ()

    def __call__(self, before: Form) -> ReplicaState:
        assert isinstance(before, ColdForm)
        action = before.warm.state.free.action
        replicated = action.problem.action
        assert isinstance(replicated, ReplicatedAction)
        cooling = _Cooling(before.warm)
        cooling.run()
        observe = Observe(COLD, self.declared)
        seen = [(n, leading(cooling.cooled(e), 0, n)) for n, e in observe._states(action)]
        known = {"replicon": before.warm.eigenvalue}
        seen += [(n, leading(cooling.cooled(e), 0, n)) for n, e in observe._declared(action, known)]
        taken = {n for n, _ in seen}
        seen += [(s.name, before.equations[s]) for s in before.equations if s.name not in taken and s.name[:3] == "chi"]
        used = [before.value, before.eigenvalue, *(e for _, e in seen)]
        equations = closure(before.equations, before.constraints, used)
        return ReplicaState(
            ReplicaProblem(
                replicated.parameters,
                tuple(cold_site(s.variable) for s in before.sites),
                equations,
                tuple((lam, average, value) for lam, (average, value) in before.constraints.items()),
                before.value,
                before.matrix,
                (("free_entropy", before.value), ("replicon", before.eigenvalue), ("energy", -before.value), *seen),
                tuple(before.kinds[s] for s, _ in equations),
                cold=True,
                bare=before.bare,
                start=started(action),
            )
        )


def cold_site(variable: Variable) -> ReplicaSite:
    """Base measure of a site at zero temperature: where its variable may be, and its energy there."""
    weight, plain = variable.weight, replica_site(variable)
    if weight.prior is None:
        energy = _energy(weight.exponent.xreplace({variable.local: X}))
        pieces: Iterable[Piece] = (Piece(None, weight.factor.xreplace({variable.local: X}), energy),)
    else:
        state, law = weight.prior
        _, _, rest = polynomial(weight.exponent, state)
        energy, factor = _energy(rest.xreplace({state: X})), weight.factor.xreplace({state: X})
        pieces = (_placed(p, factor, energy) for p in prior_pieces(law))
    return replace(plain, pieces=tuple(pieces), cold=True)


def _placed(piece: Piece, factor: Expr, energy: Expr) -> Piece:
    at = {X: piece.value} if piece.value is not None else {}
    return Piece(piece.value, (piece.weight * factor).xreplace(at), energy.xreplace(at))


def _energy(exponent: Expr) -> Expr:
    return -leading(exponent, 1, f"the exponent {exponent}")
