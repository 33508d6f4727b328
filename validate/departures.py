"""Realisations that leave the state which they start from, told from the runs alone.

A measure with a declared start is observed in the state that is reached from it. At finite N such a state lasts for
a finite time, and now and then a run leaves it. The rule below is fixed before anything is compared: a realisation
has *left* where its departure, the spread of the overlaps between mean states of its replicas at early and at late
times, exceeds both `SMALLEST` of a state's own square and the median over realisations by `ERRORS` robust standard
deviations. What left is counted and told; verdicts are then on condition of staying, and inconclusive where more than
`MOST` of the realisations of any size left.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quenched.validate.estimators import Estimator

#: Name under which a run reports how far it moved away from its own early states.
DEPARTURE = "departure"
#: Departure of a realisation that has left its state, at least.
SMALLEST = 0.02
#: The same in robust standard deviations above the median of all realisations of its size.
ERRORS = 5.0
#: Fewest realisations that tell which of them stand out.
FEWEST = 4
#: Share of departed realisations beyond which there is no state to compare with.
MOST = 0.2


def departure_estimator() -> Estimator:
    """Of the diagnostic of one realisation."""
    return Estimator(
        DEPARTURE,
        "largest minus smallest overlap between mean states of replicas at early and at late times, over their square",
        bias="of order 1/√N in a state that lasts",
        conditions="left the state that they start from",
    )


def departed(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which realisations, (R,) or (R, 1), have left their state."""
    x = np.asarray(values, float).reshape(-1)
    if len(x) < FEWEST:
        return np.zeros(len(x), bool)
    middle = np.median(x)
    spread = 1.4826 * np.median(np.abs(x - middle))
    return np.asarray(x > max(SMALLEST, middle + ERRORS * spread))


def told(left: Mapping[int, tuple[int, int]]) -> tuple[str, ...]:
    """In words: departed and all realisations by size."""
    parts = [f"{gone} of {count} at N = {N}" for N, (gone, count) in sorted(left.items()) if gone]
    return (f"realisations that left the state of their start are not compared: {', '.join(parts)}",) if parts else ()


def too_many(left: Mapping[int, tuple[int, int]]) -> tuple[str, ...]:
    """Why no state is left to compare with, where too many realisations departed."""
    return tuple(
        f"{gone} of {count} realisations at N = {N} left the state that they start from (at most {MOST:.0%}): use "
        "larger N, or a point at which it is more stable"
        for N, (gone, count) in sorted(left.items())
        if gone > MOST * count
    )
