"""What a comparison says of each observable alone: a verdict a row, beside the joint one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quenched.validate import statistics as st
from quenched.validate.agreement import Point, Row, Verdict
from quenched.validate.cases import Options


@dataclass(frozen=True)
class Whole:
    """The joint comparison, as far as rows depend on it.

    Attributes
    ----------
    verdict, p_value : as in `Agreement`
    spoiled : why no row can agree (doubtful states, unreliable runs), or ""
    outside : names of observables whose estimators are used outside their range
    """

    verdict: Verdict
    p_value: float
    spoiled: str = ""
    outside: frozenset[str] = frozenset()


def with_outcomes(points: Sequence[Point], whole: Whole, options: Options) -> tuple[Point, ...]:
    """The points with a verdict for each row; all rows of a joint agreement agree."""
    rows = sum(len(point.rows) for point in points)
    tested = sum(len(row.components) for point in points for row in point.rows)
    alone = any(row.p_value < options.level / rows for point in points for row in point.rows)

    def judged(row: Row) -> Row:
        outcome, why = _outcome(row, whole, options, rows, tested, alone)
        return replace(row, outcome=outcome, outcome_reason=why)

    return tuple(replace(point, rows=tuple(judged(row) for row in point.rows)) for point in points)


def _outcome(row: Row, whole: Whole, options: Options, rows: int, tested: int, alone: bool) -> tuple[Verdict, str]:
    rejected = row.p_value < options.level / rows
    if whole.verdict == "agree":
        return "agree", f"an error of {percent(row.detectable)} would have been caught"
    if whole.spoiled:
        return "inconclusive", whole.spoiled
    if row.name in whole.outside:
        return "inconclusive", "outside the range of its estimator"
    if min(c.shift_p for c in row.components) * tested < st.THREE_SIGMA:
        return "inconclusive", f"does not follow {row.law}"
    if rejected and whole.p_value < options.level:
        return "disagree", f"rejected alone (p = {row.p_value:.2g})"
    if rejected:
        return "inconclusive", f"deviates alone (p = {row.p_value:.2g}), all numbers together do not"
    if whole.p_value < options.level and not alone:
        return "inconclusive", "not rejected alone, but in combination"
    if not row.detectable <= options.target:
        caught = f"only errors above {percent(row.detectable)} would have been caught"
        return "inconclusive", caught if np.isfinite(row.detectable) else "relative errors are undefined"
    if row.independence == "theory":
        return "inconclusive", "consistent, but its estimator uses the theory"
    return "agree", f"an error of {percent(row.detectable)} would have been caught"


def those_that_agree(points: Iterable[Point]) -> list[str]:
    """Observables that agree at every point."""
    found: dict[str, bool] = {}
    for point in points:
        for row in point.rows:
            found[row.name] = found.get(row.name, True) and row.outcome == "agree"
    return [name for name, agrees in found.items() if agrees]


def percent(x: float) -> str:
    """Two digits of a relative number."""
    return f"{100 * x:.2g} %"
