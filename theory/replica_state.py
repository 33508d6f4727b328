"""A state as it is handed over: the closed equations with everything that may be read at their solution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Expr, Heaviside, Mul, Rational, S, Symbol, interpolate, log

from quenched.theory.errors import NotCovered
from quenched.theory.observables import Mean, SpinGlassSusceptibility
from quenched.theory.priors import on_sphere
from quenched.theory.problem_replicas import L, ReplicaProblem, X, site_average
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, text
from quenched.theory.replica_forms import (
    Orbit,
    RSAction,
    SiteInField,
    moment,
    replica_site,
)
from quenched.theory.replica_limit import (
    FreeEntropyForm,
    RepliconForm,
    average_of,
    label_part,
    site_of,
    susceptibilities,
)
from quenched.theory.replica_lower import ReplicatedAction
from quenched.theory.replica_observe import declared, declared_name, of_mean, part_name


@dataclass(frozen=True)
class ReplicaState(Form):
    """What the solvers get."""

    name: ClassVar[str] = "replica-symmetric problem"
    problem: ReplicaProblem

    def lines(self) -> list[Line]:
        p = self.problem
        out = [equation_line(s, rhs) for s, rhs in p.equations]
        out += [equation_line(value, average, f"fixes {text(lam)}") for lam, average, value in p.constraints]
        return out + [equation_line(Symbol(name), expr) for name, expr in p.observables]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for k, (s, rhs) in enumerate(p.equations):
            wrong = (*p.equations[:k], (s, rhs * Rational(11, 10)), *p.equations[k + 1 :])
            yield f"equation of {s} × 1.1", replace(self, problem=replace(p, equations=wrong))
        for k, (name, expr) in enumerate(p.observables):
            seen = (*p.observables[:k], (name, expr + Rational(1, 10)), *p.observables[k + 1 :])
            yield f"{name} + 0.1", replace(self, problem=replace(p, observables=seen))


@dataclass(frozen=True)
class Observe(Rule):
    """Write the observables as site averages at the saddle."""

    title: ClassVar[str] = "Observables at the saddle"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = ""

    #: The inverse temperature, and the declared observables by name.
    beta: Expr = S.One
    declared: tuple[tuple[str, Expr], ...] = ()

    def __call__(self, before: Form) -> ReplicaState:
        assert isinstance(before, RepliconForm)
        state, free = before.state, before.state.free
        action = free.action
        replicated = action.problem.action
        assert isinstance(replicated, ReplicatedAction)
        named = {"free_entropy": free.value, "replicon": before.eigenvalue}
        if any(e.has(SpinGlassSusceptibility) for _, e in self.declared):
            named |= susceptibilities(before)
        seen = tuple(self._states(action)) + tuple(self._thermodynamics(free))
        seen += tuple(self._declared(action, dict(seen) | named))
        used = [free.value, before.eigenvalue, *(e for _, e in seen)]
        equations = closure(state.equations, state.constraints, used)
        kinds = {v: orbit_kind(action, o) for o, v in action.values.items() if isinstance(v, Symbol)}
        return ReplicaState(
            ReplicaProblem(
                replicated.parameters,
                tuple(replica_site(s.variable) for s in action.sites),
                equations,
                tuple((lam, average, value) for lam, (average, value) in state.constraints.items()),
                free.value,
                before.matrix,
                (("free_entropy", free.value), ("replicon", before.eigenvalue), *seen),
                tuple(kinds[s] for s, _ in equations),
                start=started(action),
            )
        )

    def _states(self, action: RSAction) -> Iterator[tuple[str, Expr]]:
        """Mean, overlap of two replicas, and second moment of every declared state."""
        states = [s for s in action.sites if s.variable.kind == "state"]
        for s in states:
            tag = "" if len(states) == 1 else f"_{s.variable.name}"
            for name, poly in (("m", L[1]), ("q", L[1] ** 2), ("Q", L[2] + L[1] ** 2)):
                labels = s.variable.weight.labels
                average = site_average(s.variable.population, poly, s.b, s.k, s.v, labels)
                known = next((o for o, v in action.values.items() if str(v) == name + tag), None)
                if known is None:
                    yield name + tag, average
                elif average_of(action, known) != average:
                    yield f"{name}_{s.variable.name}", average

    def _declared(self, action: RSAction, known: dict[str, Expr]) -> Iterator[tuple[str, Expr]]:
        """Observables that are site averages; of the others, those means in them that are, under names of their own.

        What is left is measured by sources (see `replica_observe`).
        """
        for name, expr in self.declared:
            try:
                yield declared_name(name), declared(expr, action, known)
            except NotCovered:
                for node in sorted(expr.atoms(Mean), key=str):
                    with suppress(NotCovered):
                        yield part_name(node), of_mean(node, action)

    def _thermodynamics(self, free: FreeEntropyForm) -> Iterator[tuple[str, Expr]]:
        sites = [replica_site(s.variable) for s in free.action.sites]
        hidden = {x for s in sites for p in s.pieces for x in p.weight.free_symbols}
        energy = None
        symbols = self.beta.free_symbols
        if len(symbols) == 1 and not (symbols & hidden):
            (scale,) = symbols
            energy = (-free.value.diff(scale) / self.beta.diff(scale)).expand()
            yield "energy", energy
        counts = [self._count(s) for s in free.action.sites if s.variable.kind == "state"]
        soft = any(not indicator(p.weight) for s in sites if s.kind == "channel" for p in s.pieces)
        if None in counts or soft or (energy is None and self.beta != 0 and symbols):
            return
        yield "entropy", free.value + Add(*counts) + (self.beta * energy if energy is not None else 0)

    @staticmethod
    def _count(site: SiteInField) -> Expr | None:
        """What turns the free entropy relative to the prior into an entropy: ln of the number of states per unit.

        On a sphere the entropy is relative to its volume.
        """
        assert site.variable.weight.prior is not None
        law = site.variable.weight.prior[1]
        if on_sphere(law):
            return S.Zero
        weights = law.weights()
        kinds = len({p for _, p in weights})
        if not weights or (len(weights) > 3 and kinds > 1) or site.variable.weight.factor != 1:
            return None
        if kinds == 1:
            return site.variable.fraction * log(len(weights))
        bits = interpolate([(a, -log(p)) for a, p in weights], X)  # −⟨ln p(s)⟩ by moments of s
        poly = Add(*(bits.coeff(X, k) * moment(k) for k in range(3)))
        labels = site.variable.weight.labels
        return site.variable.fraction * site_average(site.variable.population, poly, site.b, site.k, site.v, labels)


def indicator(weight: Expr) -> bool:
    """Whether a weight only takes the values 0 and 1: a product of steps."""
    return all(f.func is Heaviside for f in Mul.make_args(weight))


def orbit_kind(action: RSAction, orbit: Orbit) -> str:
    """What kind of unknown an order parameter is (see `ReplicaProblem.kinds`)."""
    fields = action.problem.action.fields
    if len([a for a, _ in orbit.atoms if not fields[a].single]) == 1:
        return "mean"
    if orbit.copies == 2:
        return "overlap"
    hat = action.problem.action.fields[orbit.atoms[0][0]].role == "hat"
    return "response" if hat else "norm"


def started(action: RSAction) -> tuple[tuple[Symbol, float], ...]:
    """Means at the declared initial state, where that is a label that a mean is taken with."""
    fields = action.problem.action.fields
    out = []
    for orbit, value in action.values.items():
        if len(orbit.atoms) != 1 or not isinstance(value, Symbol):
            continue
        state = fields[site_of(action, orbit.population).variable.name].symbol
        initial = getattr(state, "initial", None)
        if isinstance(initial, Expr) and label_part(action, orbit.atoms[0][0]) == initial:
            out.append((value, 0.97))
    return tuple(out)


def closure(
    equations: dict[Symbol, Expr], constraints: dict[Symbol, tuple[Expr, Expr]], used: list[Expr]
) -> tuple[tuple[Symbol, Expr], ...]:
    """The equations of all unknowns that the used expressions need, and those that their equations need."""
    wanted: list[Symbol] = []
    pending = [*used, *(a for a, _ in constraints.values())]
    while pending:
        expr = pending.pop()
        for s in equations:
            if s in expr.free_symbols and s not in wanted:
                wanted.append(s)
                pending.append(equations[s])
    return tuple((s, equations[s]) for s in equations if s in wanted)
