"""The instance reading: messages on one draw of the couplings, their law over draws, and their stability.

Nothing here uses replicas. `quenched.theory.instance_identities` compares the two readings where both apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Expr, Heaviside, Mul, Poly, S, Symbol, log

from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, unbind
from quenched.theory.gibbs import Gibbs
from quenched.theory.instance_evolution import EvolutionForm, FieldLaw, GrowthForm, LineariseMessages, StateEvolution
from quenched.theory.instance_graph import OneInstance, PairGraph
from quenched.theory.instance_messages import (
    MJ,
    OLD,
    VJ,
    A,
    BeliefPropagation,
    Bethe,
    BetheForm,
    CentralLimit,
    GaussianMessages,
    Messages,
    NodeEquations,
    Onsager,
)
from quenched.theory.observables import Functional, Mean
from quenched.theory.problem_messages import MessageBlock, MessageLabel, MessageProblem, MessageSite
from quenched.theory.problem_replicas import L, ReplicaProblem, ReplicaSite
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, text
from quenched.theory.replica_forms import moment
from quenched.theory.replica_lower import GibbsDeclaration
from quenched.theory.replica_observe import AT_THE_SADDLE, declared_name
from quenched.theory.steps import Steps


@dataclass(frozen=True)
class InstanceState(Form):
    """What the solvers get: the fixed point of state evolution, in the terms of a single-site problem."""

    name: ClassVar[str] = "fixed point of state evolution"
    problem: ReplicaProblem
    messages: MessageProblem

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
        seen += list(self._declared(evolution, dict(seen)))
        known = known_widths(evolution)
        seen = [(name, expr.xreplace(known)) for name, expr in seen]
        constraints = tuple((lam, a.xreplace(known), value) for lam, (a, value) in evolution.constraints.items())
        used = [*(e for _, e in seen), *(a for _, a, _ in constraints)]
        equations = needed({s: rhs.xreplace(known) for s, rhs in evolution.equations.items()}, used)
        matrix = tuple(tuple(e.xreplace(known) for e in row) for row in before.matrix)
        kinds = kinds_of(evolution)
        problem = ReplicaProblem(
            evolution.graph.parameters,
            tuple(f.measure for f in evolution.laws),
            equations,
            constraints,
            evolution.free_entropy.xreplace(known),
            matrix,
            tuple(seen),
            tuple(kinds[s] for s, _ in equations),
        )
        return InstanceState(problem, message_problem(evolution))

    def _declared(self, evolution: EvolutionForm, known: Mapping[str, Expr]) -> Iterator[tuple[str, Expr]]:
        """The declared observables that are averages at the fixed point (the others take more than one point)."""
        for name, expr in self.declared:
            try:
                yield declared_name(name), declared(expr, evolution, known)
            except NotCovered:
                continue


def known_widths(evolution: EvolutionForm) -> dict[Expr, Expr]:
    """E[c L₂] by the overlap, where x² (or on a sphere its average) is fixed and c is no label."""
    out: dict[Expr, Expr] = {}
    for (name, factor), width in evolution.widths.items():
        norm = evolution.graph.site(name).norm
        if norm is not None and not factor.has(*evolution.graph.site(name).labels):
            out[width] = factor * norm - evolution.overlaps[name, factor]
    return out


def needed(equations: dict[Symbol, Expr], used: list[Expr]) -> tuple[tuple[Symbol, Expr], ...]:
    """The equations of all unknowns that the used expressions need, and those that their equations need."""
    wanted: list[Symbol] = []
    pending = list(used)
    while pending:
        symbols = pending.pop().free_symbols
        for s in equations:
            if s in symbols and s not in wanted:
                wanted.append(s)
                pending.append(equations[s])
    return tuple((s, rhs) for s, rhs in equations.items() if s in wanted)


def kinds_of(evolution: EvolutionForm) -> dict[Symbol, str]:
    """What every unknown is, for its starting values."""
    kinds = dict.fromkeys(evolution.means.values(), "mean") | dict.fromkeys(evolution.overlaps.values(), "overlap")
    kinds |= dict.fromkeys(evolution.responses.values(), "mean")
    for (name, _), s in evolution.widths.items():
        kinds[s] = "norm" if evolution.graph.site(name).kind == "state" else "response"
    return kinds


def message_problem(evolution: EvolutionForm) -> MessageProblem:
    """The iteration on one instance as data, constraints first."""
    graph, nodes, counts = evolution.graph, evolution.nodes, counts_states(evolution)
    fields = sorted(evolution.laws, key=lambda f: f.site.kind != "channel")
    drawn = {law.name for law in graph.laws if any(len(d.edges) > 1 for d in law.diagrams)}
    direct = (nodes.field - nodes.reaction).coeff(A, 1).coeff(MJ, 1)
    reaction = nodes.reaction.coeff(A, 2).coeff(VJ, 1).coeff(OLD, 1)
    spread = nodes.width.coeff(A, 2).coeff(VJ, 1)
    return MessageProblem(
        graph.parameters,
        tuple(
            MessageSite(
                f.site.symbol.name,
                _on_instance(f),
                f.site.bias,
                f.site.quadratic,
                f.site.norm if f.site.sphere else None,
                _count(f) if counts else None,
                _taught(f),
            )
            for f in fields
        ),
        tuple(
            MessageBlock(
                c.matrix if c.matrix in drawn else None, c.coef, c.row.site, c.row.factor, c.col.site, c.col.factor
            )
            for c in graph.couplings
        ),
        float(direct),
        float(reaction),
        float(spread),
        (float(evolution.bethe[0]), float(evolution.bethe[1])),
    )


def _on_instance(f: FieldLaw) -> ReplicaSite:
    """The base measure with a teacher's label as one more label, a number on an instance."""
    seen, base = f.site.seen, f.site.measure
    return base if seen is None else replace(base, labels=(*base.labels, (seen.symbol, (), S.Zero)))


def _taught(f: FieldLaw) -> MessageLabel | None:
    seen = f.site.seen
    if seen is None:
        return None
    uses = tuple((matrix, at_row, coef * end.factor, end.site) for matrix, at_row, coef, end in seen.uses)
    return MessageLabel(seen.symbol, seen.mean, seen.variance, uses)


def _states(evolution: EvolutionForm) -> Iterator[tuple[str, Expr]]:
    """Mean, overlap and second moment of every declared state, by the names of the other readings."""
    states = [f for f in evolution.laws if f.site.kind == "state"]
    for f in states:
        tag = "" if len(states) == 1 else f"_{f.site.symbol.name}"
        for name, poly in (("m", L[1]), ("q", L[1] ** 2), ("Q", L[2] + L[1] ** 2)):
            yield name + tag, f.average(poly)


def _entropy(evolution: EvolutionForm) -> Iterator[tuple[str, Expr]]:
    """The logarithm of the number of states, where the measure counts them."""
    if counts_states(evolution):
        states = [f for f in evolution.laws if f.site.kind == "state"]
        shares = [f.site.fraction * c for f in states if (c := _count(f)) is not None]
        yield "entropy", evolution.free_entropy + Add(*shares)


def counts_states(evolution: EvolutionForm) -> bool:
    """Whether the measure is uniform over states that meet constraints."""
    states = [f for f in evolution.laws if f.site.kind == "state"]
    pieces = [p for f in evolution.laws if f.site.kind == "channel" for p in f.site.measure.pieces]
    hard = all(g.func is Heaviside for p in pieces for g in Mul.make_args(p.weight))
    plain = not any(f.site.bias or f.site.quadratic for f in evolution.laws)
    return bool(pieces) and hard and plain and all(_count(f) is not None for f in states)


def _count(f: FieldLaw) -> Expr | None:
    """ln of the number of states of a unit, 0 on a sphere (relative to its volume); None where nothing is counted."""
    if f.site.sphere:
        return S.Zero
    pieces = f.site.measure.pieces
    even = all(p.value is not None and p.weight == pieces[0].weight for p in pieces)
    return log(len(pieces)) if even else None


def declared(expr: Expr, evolution: EvolutionForm, known: Mapping[str, Expr]) -> Expr:
    """A declared observable: means of products of a state's copies and of labels, and functionals of the fixed point.

    Raises
    ------
    NotCovered
        Something else in it.
    """
    swap: dict[Expr, Expr] = {node: _mean(node, evolution) for node in expr.atoms(Mean)}
    for node in expr.atoms(Functional):
        name = {**AT_THE_SADDLE, "Growth": "replicon"}.get(type(node).__name__, "")
        if name not in known:
            raise NotCovered(f"{node} is not given by the fixed point of state evolution")
        swap[node] = known[name]
    return expr.xreplace(swap)


def _mean(node: Mean, evolution: EvolutionForm) -> Expr:
    """Copies of the system share the instance, so that they are independent given the field of a site."""
    f = evolution.law(node.population.name)
    total = []
    for term in Add.make_args(unbind(node.body).expand()):
        powers = []
        for x in sorted(term.atoms(Field), key=lambda x: x.copy or 0):
            if x.name != f.site.symbol.name or f.site.kind != "state" or not term.is_polynomial(x):
                raise NotCovered(f"{node} is no mean of moments of a state")
            power = Poly(term, x).degree()
            if power > 2:
                raise NotCovered(f"means of a state and of its square are covered, got {node}")
            powers.append(power)
            term = (term / x**power).expand()
        total.append(term * Mul(*(moment(p) for p in powers)))
    return f.average(Add(*total))


@dataclass(frozen=True)
class InstanceDerivation(Steps):
    """A Gibbs measure and the steps taken from it on one instance."""

    model: Gibbs

    @property
    def declaration(self) -> GibbsDeclaration:
        """The form that everything starts from."""
        return GibbsDeclaration(self.model)

    @property
    def instance_problem(self) -> ReplicaProblem | None:
        """The fixed point of state evolution as a problem, if the derivation reached one."""
        found = self.find(InstanceState)
        return found.problem if found else None

    @property
    def solvable(self) -> bool:
        """Whether the steps reached a problem that a solver takes."""
        return self.instance_problem is not None

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


def start(model: Gibbs, values: Mapping[object, object] | None = None, **fixed: object) -> InstanceDerivation:
    """A measure as sites coupled in pairs, with parameters fixed first if any are given."""
    if values or fixed:
        model = model.fix(values, **fixed)
    return InstanceDerivation(model).apply(OneInstance())


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
        return d.refuse(StateEvolution.title, str(stop))
    return d.observables()
