"""Damped iteration of saddle-point equations, extrapolated where it is steady."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from quenched.theory.errors import ConvergenceError

from .types import Array

if TYPE_CHECKING:
    from .replica_evaluator import Evaluator

#: How far a solution nearby may be, relative to its size.
NEAR = 0.2
#: Change, relative to the unknowns, below which damped iteration is extrapolated.
STEADY = 0.05


def iterate(
    ev: Evaluator, x: Array, sweeps: int = 400, damping: float = 0.5, known: Sequence[Array] = ()
) -> tuple[Array, int] | None:
    """Damped iteration until changes are small enough for Newton's method; None where it runs into a known saddle.

    Where changes shrink by one and the same factor for a few sweeps, the iteration goes on from their sum.
    """
    moves: list[Array] = []
    new = ev.update(x)
    for k in range(sweeps):
        change = relative(new - x, x)
        if change < 1e-4:
            return new, k
        if change < 1e-2 and any(relative(new - other, other) < min(1e-2, 5 * change) for other in known):
            return None
        moves = [*moves[-2:], (1 - damping) * (new - x)]
        x = x + moves[-1]
        ahead = _extrapolated(x, moves) if change < STEADY else None
        if ahead is not None:
            if any(relative(ahead - other, other) < 0.1 * relative(x - other, other) < 0.1 * NEAR for other in known):
                return None
            moves = []
            with suppress(ConvergenceError, ValueError):
                x, new = ahead, ev.update(ahead)
                continue
        new = ev.update(x)
    return x, sweeps


def _extrapolated(x: Array, moves: Sequence[Array]) -> Array | None:
    """Where moves that shrink by a common factor lead from x, unless an unknown changes its sign on the way."""
    rate = common_factor(moves)
    if rate is None:
        return None
    ahead: Array = x + moves[-1] * (rate / (1 - rate))
    return ahead if np.all(ahead * x >= 0) else None


def common_factor(moves: Sequence[Array]) -> float | None:
    """The factor by which the last three moves shrink in one direction; None where there is none well below 1."""
    if len(moves) < 3:
        return None
    a, b, c = moves[-3:]
    one, two = float(a @ b / (a @ a)), float(b @ c / (b @ b))
    straight = np.linalg.norm(c - two * b) < 0.05 * np.linalg.norm(c)
    return two if straight and 0.2 < two < 0.95 and abs(two - one) < 0.03 else None


def relative(residual: Array, x: Array) -> float:
    """Largest residual relative to 1 + |x|."""
    return float(np.max(np.abs(residual) / (1 + np.abs(x)), initial=0.0))
