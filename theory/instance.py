"""The instance reading: messages on one draw of the couplings, their law over draws, and their stability.

Nothing here uses replicas. `quenched.theory.instance_identities` compares the two readings where both apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sympy import Add, Expr, Heaviside, Mul, Poly, S, Symbol, log

from quenched.theory.derivation import Derivation
from quenched.theory.errors import NotCovered
from quenched.theory.fields import unbind
from quenched.theory.gibbs import Gibbs
from quenched.theory.instance_evolution import EvolutionForm, FieldLaw, GrowthForm, LineariseMessages, StateEvolution
from quenched.theory.instance_graph import OneInstance, PairGraph
from quenched.theory.instance_messages import (
    BeliefPropagation,
    Bethe,
    BetheForm,
    CentralLimit,
    GaussianMessages,
    Messages,
    NodeEquations,
    Onsager,
)
from quenched.theory.observables import Mean
from quenched.theory.problem_replicas import L, ReplicaProblem
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, text
from quenched.theory.replica_ansatz import moment
from quenched.theory.replica_lower import GibbsDeclaration


@dataclass(frozen=True)
class InstanceState(Form):
    """What the solvers get: the fixed point of state evolution, in the terms of a single-site problem."""

    name: ClassVar[str] = "fixed point of state evolution"
    problem: ReplicaProblem

    def lines(self) -> list[Line]:
        p = self.problem
        out = [equation_line(s, rhs) for s, rhs in p.equations]
        out += [equation_line(value, average, f"fixes {text(lam)}") for lam, average, value in p.constraints]
        return out + [equation_line(Symbol(name), expr) for name, expr in p.observables]


@dataclass(frozen=True)
class ObserveInstance(Rule):
    """Write the observables as averages over the fields of a typical instance."""

    title: ClassVar[str] = "Observables on a typical instance"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = ""

    #: The declared observables by name.
    declared: tuple[tuple[str, Expr], ...] = ()

    def __call__(self, before: Form) -> InstanceState:
        assert isinstance(before, GrowthForm)
        evolution = before.evolution
        seen = [("free_entropy", evolution.free_entropy), ("replicon", before.eigenvalue)]
        seen += list(_states(evolution)) + list(_entropy(evolution))
        seen += [(name, _declared(name, expr, evolution)) for name, expr in self.declared]
        equations = tuple(evolution.equations.items())
        kinds = {s: "mean" for s in evolution.means.values()} | {s: "overlap" for s in evolution.overlaps.values()}
        kinds |= {s: "norm" if evolution.graph.site(n).kind == "state" else "response" for (n, _), s in _widths(evolution)}
        return InstanceState(
            ReplicaProblem(
                evolution.graph.parameters,
                tuple(f.site.measure for f in evolution.laws),
                equations,
                tuple((lam, average, value) for lam, (average, value) in evolution.constraints.items()),
                evolution.free_entropy,
                before.matrix,
                tuple(seen),
                tuple(kinds[s] for s, _ in equations),
            )
        )


def _widths(evolution: EvolutionForm) -> list[tuple[tuple[str, Expr], Symbol]]:
    return list(evolution.widths.items())


def _states(evolution: EvolutionForm) -> Iterator[tuple[str, Expr]]:
    """Mean, overlap and second moment of every declared state, by the names of the other readings."""
    states = [f for f in evolution.laws if f.site.kind == "state"]
    for f in states:
        tag = "" if len(states) == 1 else f"_{f.site.symbol.name}"
        for name, poly in (("m", L[1]), ("q", L[1] ** 2), ("Q", L[2] + L[1] ** 2)):
            yield name + tag, f.average(poly)


def _entropy(evolution: EvolutionForm) -> Iterator[tuple[str, Expr]]:
    """The logarithm of the number of states, where the measure counts them."""
    counts = [_count(f) for f in evolution.laws if f.site.kind == "state"]
    channels = [f.site for f in evolution.laws if f.site.kind == "channel"]
    hard = all(g.func is Heaviside for s in channels for p in s.measure.pieces for g in Mul.make_args(p.weight))
    if None not in counts and hard and channels and not any(f.site.bias or f.site.quadratic for f in evolution.laws):
        yield "entropy", evolution.free_entropy + Add(*counts)


def _count(f: FieldLaw) -> Expr | None:
    """ln of the number of states of a unit, 0 on a sphere (relative to its volume)."""
    if f.site.sphere:
        return S.Zero
    pieces = f.site.measure.pieces
    even = all(p.value is not None and p.weight == pieces[0].weight for p in pieces)
    return f.site.fraction * log(len(pieces)) if even else None


def _declared(name: str, expr: Expr, evolution: EvolutionForm) -> Expr:
    """An expression in means of a state and of its square, times labels."""
    swap = {}
    for node in expr.atoms(Mean):
        f = evolution.law(node.population.name)
        inside = unbind(node.body)
        body = Poly(inside, f.site.symbol) if inside.is_polynomial(f.site.symbol) else None
        if (
            body is None
            or body.degree() > 2
            or f.site.kind != "state"
            or body.free_symbols_in_domain - set(f.site.labels)
        ):
            raise NotCovered(f"observable {name!r}: means of a state and of its square are covered, got {node}")
        swap[node] = f.average(Add(*(c * moment(p) for (p,), c in body.terms())))
    return expr.xreplace(swap)


@dataclass(frozen=True)
class InstanceDerivation(Derivation):
    """A Gibbs measure and the steps taken from it on one instance."""

    @property
    def declaration(self) -> GibbsDeclaration:  # type: ignore[override]
        return GibbsDeclaration(self.model)  # type: ignore[arg-type]

    @property
    def form(self) -> Form:
        return self.steps[-1].after if self.steps else self.declaration

    @property
    def instance_problem(self) -> ReplicaProblem | None:
        """The fixed point of state evolution as a problem, if the derivation reached one."""
        found = self.find(InstanceState)
        return found.problem if found else None

    @property
    def refusal(self) -> str | None:
        if self.instance_problem is not None:
            return None
        return self.refusals[-1][1] if self.refusals else "the derivation was stopped before a solvable problem"

    @property
    def equations(self) -> list[Line]:
        """The equations of an instance, and of a typical one, as far as they were reached."""
        found = [self.find(kind) for kind in (NodeEquations, EvolutionForm)]
        return [line for form in found if form is not None for line in form.lines()]

    # -- verbs ----------------------------------------------------------------------------------------------
    def messages(self) -> InstanceDerivation:
        """Belief propagation."""
        return self._take(BeliefPropagation(), PairGraph, "messages")

    def relax(self) -> InstanceDerivation:
        """Gaussian messages."""
        return self._take(CentralLimit(), Messages, "relax")

    def sites(self) -> InstanceDerivation:
        """Approximate message passing: sites in place of messages."""
        return self._take(Onsager(), GaussianMessages, "sites")

    def bethe(self) -> InstanceDerivation:
        """The Bethe free entropy."""
        return self._take(Bethe(), NodeEquations, "bethe")

    def evolution(self) -> InstanceDerivation:
        """State evolution."""
        return self._take(StateEvolution(), BetheForm, "evolution")

    def stability(self) -> InstanceDerivation:
        """Growth of perturbed messages."""
        return self._take(LineariseMessages(), EvolutionForm, "stability")

    def observables(self) -> InstanceDerivation:
        declared = tuple(self.declaration.model.observables.items())
        return self._take(ObserveInstance(declared), GrowthForm, "observables")

    def _take(self, rule: Any, kind: Any, verb: str) -> InstanceDerivation:
        return self.apply(rule, self._need(kind, verb))  # type: ignore[return-value]


def start(model: Gibbs, values: Mapping[object, object] | None = None, **fixed: object) -> InstanceDerivation:
    """A measure as sites coupled in pairs, with parameters fixed first if any are given."""
    if values or fixed:
        model = model.fix(values, **fixed)
    return InstanceDerivation(model).apply(OneInstance())  # type: ignore[arg-type,return-value]


def derive(model: Gibbs, values: Mapping[object, object] | None = None, **fixed: object) -> InstanceDerivation:
    """Derive message passing on an instance of a Gibbs measure, and its behaviour on typical instances.

    Raises
    ------
    NotCovered
        If the measure has no form of sites coupled in pairs.
    """
    d = start(model, values, **fixed).messages().relax().sites().bethe()
    try:
        d = d.evolution().stability()
    except NotCovered as stop:
        return d.refuse(StateEvolution.title, str(stop))  # type: ignore[return-value]
    return d.observables()
