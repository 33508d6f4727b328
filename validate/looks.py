"""Sequential looks: how many realisations a verdict still needs, with the error shared by the planned looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quenched.theory.errors import QuenchedError
from quenched.validate import statistics as st
from quenched.validate.agreement import Agreement, Point
from quenched.validate.cases import MOST_LOOKS, Options

#: The scatter is itself an estimate: aim this much below the target.
MARGIN = 0.9
#: A plan never asks for more than this many times the present realisations at once.
GROWTH = 8


@dataclass(frozen=True)
class Plan:
    """What to do after a look: `more` data or not, the new total number of `realisations` per N, and why."""

    more: bool
    realisations: int
    reason: str


@dataclass(frozen=True)
class Looks:
    """A planned sequence of looks at growing data.

    Attributes
    ----------
    planned : int
        Number of looks, 1 to 5, fixed before the first. Each spends an equal share of the level.
    quick, ci : bool
        As in `judge`.
    limit : int
        Most realisations per N.

    Examples
    --------
    ::

        looks, R = Looks(3, quick=True), 16
        for look in range(1, 4):
            report = judge(runs(R), theory, **looks.options(look))
            plan = looks.plan(report)
            if not plan.more:
                break
            R = plan.realisations
    """

    planned: int = 1
    quick: bool = False
    ci: bool = False
    limit: int = 100_000

    def __post_init__(self) -> None:
        if not 1 <= self.planned <= MOST_LOOKS:
            raise QuenchedError(f"looks = {self.planned}: expected 1 to {MOST_LOOKS}, fixed before the first")

    def options(self, look: int) -> dict[str, int | bool]:
        """Keyword arguments of `judge` for this look (1, 2, …)."""
        return {"look": look, "looks": self.planned, "quick": self.quick, "ci": self.ci}

    def rule(self, look: int) -> Options:
        """The same for `judge_points`."""
        return Options(self.quick, self.ci, look, self.planned)

    def plan(self, agreement: Agreement) -> Plan:
        """Whether more realisations can settle the verdict, and how many per N in total."""
        now = max(point.realisations for point in agreement.points)
        if agreement.verdict != "inconclusive":
            return Plan(False, now, f"settled: {agreement.verdict}")
        if agreement.p_value >= agreement.level and agreement.detectable <= agreement.target:
            return Plan(False, now, agreement.reason)
        if agreement.reason.startswith(("not asymptotic", "outside the range")):
            return Plan(False, now, "larger networks are needed, not more of them")
        wanted = realisations_needed(agreement)
        if wanted is None:
            return Plan(False, now, "no number of realisations reaches the target: the other errors are larger than it")
        total = min(wanted, GROWTH * now, self.limit)
        if agreement.look >= agreement.looks:
            return Plan(
                False, wanted, f"all {agreement.looks} planned looks are spent; {wanted} realisations are needed"
            )
        if total <= now:
            return Plan(False, wanted, f"{wanted} realisations are needed, the limit is {self.limit}")
        return Plan(True, total, f"{total} realisations per N instead of {now}")


def realisations_needed(agreement: Agreement, target: float | None = None, most: int = 10**7) -> int | None:
    """Smallest multiple of 4 realisations per N whose minimal detectable error reaches the target (None: impossible).

    Assumes that the scatter of one realisation stays as measured; aims 10 % below the target because it is an estimate.
    """
    goal = MARGIN * (agreement.target if target is None else target)

    def reached(R: int) -> bool:
        return predicted_error(agreement, R) <= goal

    high = 8
    while not reached(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > 4:
        middle = (low + high) // 8 * 4
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def predicted_error(agreement: Agreement, R: int) -> float:
    """Relative minimal detectable error of the worst-resolved observable with R realisations per N.

    Points with fewer realisations keep their share.
    """
    most = max(point.realisations for point in agreement.points)
    counts = [max(4, round(R * point.realisations / most)) for point in agreement.points]
    sizes = [sum(len(row.components) for row in point.rows) for point in agreement.points]
    tests = sum(len(st.component_blocks(d, count)) for d, count in zip(sizes, counts, strict=True))
    level = agreement.level / tests
    return max(_point_error(point, n, level) for point, n in zip(agreement.points, counts, strict=True))


def _point_error(point: Point, R: int, level: float) -> float:
    parts = [(c, row.scale) for row in point.rows for c in row.components]
    worst = 0.0
    for block in st.component_blocks(len(parts), R):
        shift = st.detectable_shift(level, R, block.stop - block.start)
        for c, scale in parts[block]:
            error = shift * float(np.hypot(c.spread / math.sqrt(R), c.extra))
            worst = max(worst, error / scale if scale > 0 else math.inf)
    return worst
