"""Step 4b: the largest-time rule, for readings whose weight conserves probability.

A conjugate field ĥ(s) measures a response. In an average, some field without a hat must be later than every hat
(strictly later, since a unit answers a kick only afterwards); retarded kernels order their copies as well. A term
is zero when every way of choosing those later fields closes a loop in time.
Replica readings must not use this rule: there conjugate averages are order parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

from quenched.theory.errors import NotCovered
from quenched.theory.lower import SiteField
from quenched.theory.record import Form, Rule
from quenched.theory.saddle import OPRef, SiteProblem, SiteTerm, op_name
from quenched.theory.terms import PAST

Arrow = tuple[int, int]


@dataclass(frozen=True)
class LargestTime(Rule):
    """Drop what causality and normalisation set to zero."""

    title: ClassVar[str] = "Largest-time rule"
    assumption: ClassVar[str] = "the dynamics is causal and conserves probability"
    source: ClassVar[str] = "dedominicis1978"

    def __call__(self, before: Form) -> SiteProblem:
        assert isinstance(before, SiteProblem)
        return drop_acausal(before)


def drop_acausal(problem: SiteProblem) -> SiteProblem:
    """Move the site terms that vanish to `gone`, each with its reason.

    Raises
    ------
    NotCovered
        If a term without conjugate fields survives: the model is not causal or not normalised.
    """
    fields = problem.action.fields
    kept: list[SiteTerm] = []
    gone = list(problem.gone)
    for term in problem.terms:
        reason = why_zero(term, fields)
        if reason:
            gone.append((term, reason))
        elif not any(fields[a].role == "hat" for a, _ in term.atoms):
            raise NotCovered(
                f"the site term with {[op_name(r.op, fields)[0] for r in term.refs]} has no conjugate field: not causal"
            )
        else:
            kept.append(term)
    return replace(problem, terms=tuple(kept), gone=tuple(gone))


def why_zero(term: SiteTerm, fields: dict[str, SiteField]) -> str:
    """The reason why a site term vanishes, or an empty string."""
    choices: list[list[list[Arrow]]] = []
    for ref in term.refs:
        later = _orders(ref, fields)
        if later is None:
            continue
        if not later:
            return f"{op_name(ref.op, fields)[0]} has no field later than its conjugate field"
        choices.append(later)
    memory = [(cs[1], cs[0]) for kind, cs in term.kernels if kind.startswith(PAST)]
    own = [[*memory, *(a for option in combo for a in option)] for combo in product(*choices)]
    if all(_cyclic(arrows) for arrows in own):
        return "responses would close a loop in time"
    return ""


def _orders(ref: OPRef, fields: dict[str, SiteField]) -> list[list[Arrow]] | None:
    """Ways to be non-zero, each as arrows (earlier copy, later copy); None if there is no hat."""
    hats = {ref.at[s] for a, s in ref.op.atoms if fields[a].role == "hat"}
    if not hats:
        return None
    plain = {ref.at[s] for a, s in ref.op.atoms if fields[a].role != "hat"}
    return [[(h, late) for h in sorted(hats)] for late in sorted(plain - hats)]


def _cyclic(arrows: list[Arrow]) -> bool:
    """Whether directed arrows contain a loop."""
    after: dict[int, set[int]] = {}
    for a, b in arrows:
        after.setdefault(a, set()).add(b)

    def reaches(start: int, goal: int, seen: frozenset[int]) -> bool:
        return any(n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in after.get(start, ()))

    return any(reaches(node, node, frozenset()) for node in after)
