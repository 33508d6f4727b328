"""Witnesses of the stability of two copies, and its comparison with the other routes to the same condition."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from quenched.theory.copy_stability import CopyStability, ExpandSharedCopies, MultiplyPropagators
from quenched.theory.errors import QuenchedError
from quenched.theory.problem_dyson import DysonProblem
from quenched.theory.record import Rule, Step
from quenched.theory.shared_sites import LowerPencil, ReplicaSite, ResolventSite
from quenched.theory.spectral import derive_spectrum
from quenched.theory.stability_identities import stability_identities
from quenched.validate.meaning_stability import expansion_deviation, pencil_deviation, stability_deviation
from quenched.validate.witness_types import DIFFERENCES, EXACT, Tick, Witness
from quenched.validate.witnesses_replicas import declared

#: One witness per rule.
WITNESSES: dict[type[Rule], Witness] = {
    LowerPencil: Witness(
        "i ŷᵀ L y of explicit atoms at 3 sites against the uses",
        EXACT,
        lambda b, a, s: pencil_deviation(b, a, s),
    ),
    ExpandSharedCopies: Witness(
        "second differences of the averaged exponent of two explicit copies",
        DIFFERENCES,
        lambda b, a, s: expansion_deviation(b, a, s),
    ),
    MultiplyPropagators: Witness(
        "derivatives of site equations and outputs; sums over states; the doubled equation by differences",
        DIFFERENCES,
        lambda b, a, s: stability_deviation(b, a, s, _doubled(a, s)) if _comparable(a, s) else None,
    ),
}


def _comparable(form: CopyStability, scene: Any) -> bool:
    """Whether sums over states can be compared with: refused where there are too many."""
    return not isinstance(form.site, ReplicaSite) or declared(scene) is not None


def _doubled(form: CopyStability, scene: Any) -> DysonProblem | None:
    """The doubled equation of a spectrum, from its declaration."""
    return derive_spectrum(scene.model).problem.doubled if isinstance(form.site, ResolventSite) else None


def stability_steps(derivation: Any) -> tuple[Step, ...]:
    """The steps from the quadratic action between two copies to P''Σ; none where they are not built."""
    if not hasattr(derivation, "stability") or derivation.find(CopyStability) is not None:
        return ()
    try:
        return tuple(derivation.stability().steps[len(derivation.steps) :])
    except QuenchedError:
        return ()


def identity_ticks(derivation: Any) -> list[Tick]:
    """P''Σ against the condition of every other route: differences of derived expressions are 0."""
    begin = perf_counter()
    if not hasattr(derivation, "stability"):
        return []
    try:
        taken = derivation if derivation.find(CopyStability) is not None else derivation.stability()
        found = stability_identities(taken)
    except QuenchedError:
        return []
    each = (perf_counter() - begin) / max(len(found), 1)
    method = "difference of the derived expressions (sympy, or at random numbers)"
    return [Tick(i.title, i.holds, 0.0 if i.holds else float("inf"), 0.0, method, each) for i in found]
