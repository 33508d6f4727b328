"""Deliberately wrong theories of Gibbs measures: mistakes in the problem that the replicas end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sympy import Add, Expr, Rational, S

from quenched.replica_theory import ReplicaTheory
from quenched.theory.errors import NotCovered
from quenched.theory.problem_replicas import L, ReplicaProblem, SiteAverage, site_average

if TYPE_CHECKING:
    from quenched.theory_object import Theory


@dataclass(frozen=True)
class ReplicaMutant:
    """One mistake: in words, as a change of the problem, and as a change of expressions that are read off it."""

    what: str
    problem: Callable[[ReplicaProblem], ReplicaProblem]
    expression: Callable[[Expr], Expr] = lambda expr: expr


class MistakenReplicas(ReplicaTheory):
    """The theory of a measure with a deliberate mistake."""

    def __init__(self, right: ReplicaTheory, name: str, mutant: ReplicaMutant) -> None:
        super().__init__(right.derivation, fixed=right.fixed)
        self._change = mutant
        self.mistaken(f"{name}: {mutant.what}", right)

    @property
    def problem(self) -> ReplicaProblem:  # type: ignore[override]
        return self._change.problem(super().problem)

    def growth_expression(self) -> Expr:
        return self._change.expression(super().growth_expression())


def mutate_replicas(theory: Theory, name: str) -> Theory:
    """The theory of a measure with the mistake called `name`.

    Raises
    ------
    NotCovered
        The theory is not one of replicas, or the mistake changes nothing in it.
    """
    if not isinstance(theory, ReplicaTheory):
        raise NotCovered(f"the mutant {name!r} is a mistake in replicas, and this theory has none")
    changed = MistakenReplicas(theory, name, REPLICA_MUTANTS[name])
    if changed.problem == theory.problem:
        raise NotCovered(f"the mutant {name!r} changes nothing in {theory.model.name or 'this measure'}")
    return changed


# --- mistakes -----------------------------------------------------------------------------------------------------
def _observed(p: ReplicaProblem, change: Callable[[Expr], Expr]) -> ReplicaProblem:
    return replace(
        p,
        free_entropy=change(p.free_entropy),
        observables=tuple((n, change(e)) for n, e in p.observables),
        replicon=tuple(tuple(change(e) for e in row) for row in p.replicon),
    )


def _overlaps(change: Callable[[Expr], Expr], kinds: str = "state") -> Callable[[ReplicaProblem], ReplicaProblem]:
    """Change the right-hand sides of the overlaps of states, or of all sites of the given kinds."""

    def apply(p: ReplicaProblem) -> ReplicaProblem:
        states = {s.name for s in p.sites if s.kind in kinds}
        rows = []
        for (s, rhs), kind in zip(p.equations, p.kinds, strict=True):
            mine = kind == "overlap" and {a.site for a in rhs.atoms(SiteAverage)} <= states
            rows.append((s, change(rhs) if mine else rhs))
        return replace(p, equations=tuple(rows))

    return apply


def _averaged_first(expr: Expr) -> Expr:
    """E[L₂]² for E[L₂²]: the response of a site averaged before it is squared."""
    swap = {}
    for node in expr.atoms(SiteAverage):
        if node.poly == L[2] ** 2:
            b, k, v = node.field
            swap[node] = site_average(node.site, L[2], b, k, v, node.labels) ** 2
    return expr.xreplace(swap)


def _without_overlap_terms(p: ReplicaProblem) -> ReplicaProblem:
    unknowns = {s for s, _ in p.equations}

    def change(expr: Expr) -> Expr:
        if not expr.atoms(SiteAverage) or not any(a.poly == L[0] for a in expr.atoms(SiteAverage)):
            return expr
        kept = [t for t in Add.make_args(expr.expand()) if t.atoms(SiteAverage) or not t.free_symbols & unknowns]
        return Add(*kept)

    return _observed(p, change)


REPLICA_MUTANTS: dict[str, ReplicaMutant] = {
    "annealed": ReplicaMutant(
        "ln E Z for E ln Z: no overlap of two states", _overlaps(lambda rhs: S.Zero, "state channel")
    ),
    "overlap-tenth": ReplicaMutant(
        "the overlap of two states 10 % too large", _overlaps(lambda rhs: rhs * Rational(11, 10))
    ),
    "overlap-terms-dropped": ReplicaMutant(
        "no terms of the order parameters alone in the free entropy", _without_overlap_terms
    ),
    "averaged-before-squared": ReplicaMutant(
        "responses averaged before they are squared in the stability, E[L₂]² for E[L₂²]",
        lambda p: _observed(p, _averaged_first),
        _averaged_first,
    ),
}
