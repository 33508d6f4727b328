"""Smooth weights of local fields: functions of all their labels, integrated against all fields as a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .types import Array

#: First step of the grid of a local field in units of its width, and most nodes of a grid.
STEP, MOST = 0.25, 6000
#: Largest second difference of a log weight on a grid, and how far below its maximum it is looked at.
BEND, DEPTH = 0.7, 60.0
_TINY = 1e-280


@dataclass(frozen=True)
class LabelledDensity:
    """A log density of a variable at all values of labels, arrays (labels,), which are the first axis of the variable.

    Variables without this axis are taken at every value.
    """

    function: Callable[..., Array]
    labels: tuple[Array, ...]

    def __call__(self, u: Array) -> Array:
        """Log density (labels, ...) of variables (labels or 1, ...)."""
        u = np.asarray(u)
        u = u[None, :] if u.ndim == 1 else u
        own = [q.reshape(-1, *[1] * (u.ndim - 1)) for q in self.labels]
        return np.asarray(self.function(u, *own)) + np.zeros(np.broadcast_shapes(u.shape, own[0].shape))

    def taken(self, take: Callable[[Array], Array]) -> LabelledDensity:
        """The same for other labels, such as some of these."""
        return LabelledDensity(self.function, tuple(map(take, self.labels)))

    def at_row(self, row: int) -> Callable[[Array], Array]:
        """The log density at one set of values."""
        own = [float(q[row]) for q in self.labels]
        return lambda u: np.asarray(self.function(u, *own))


def convolved(smooth: Callable[[Array], Array], b: Array, root: Any) -> tuple[Array, Array, Array] | None:
    """(ln ∫Dy w(b + √V y), mean, variance − 1 of y), or None where one grid for all fields does not suffice.

    Fields b (labels, fields) that are a field of the label plus one that all labels share meet the weight on one grid a
    label; Gaussians around them on this grid are one matrix for all labels. A trapezoidal sum of analytic functions
    converges geometrically.
    """
    if b.ndim != 2 or (np.ndim(root) and np.ptp(root)):
        return None
    width = float(np.ravel(root)[0])
    own, shared = b[:, :1], b[0] - b[0, 0]
    if b.shape[0] > 1 and np.abs(b - own - shared).max() > 1e-12 * (1 + np.abs(b).max()):
        return None
    lo, hi = shared.min() - 9.5 * width, shared.max() + 9.5 * width
    count = int(np.ceil((hi - lo) / (STEP * width)))
    while True:
        if count >= MOST:
            return None
        grid = np.linspace(lo, hi, count + 1)
        exponent = smooth(own + grid)
        top = exponent.max(axis=1, keepdims=True)
        if not np.isfinite(top).all():
            return None
        if _resolved(exponent, top):
            break
        count *= 2
    y = (grid[:, None] - shared) / width
    kernel = np.exp(-0.5 * y * y) * ((grid[1] - grid[0]) / (width * np.sqrt(2 * np.pi)))
    weight = np.exp(exponent - top)
    total = weight @ kernel
    if not (total > _TINY).all():
        return None
    mean = weight @ (kernel * y) / total
    return np.log(total) + top, mean, weight @ (kernel * y * y) / total - mean**2 - 1


def _resolved(exponent: Array, top: Array) -> bool:
    """Whether log weights hardly bend between the nodes of a grid, where they are not negligible."""
    bend = np.abs(np.diff(np.maximum(exponent - top, -DEPTH), 2, axis=1))
    here = exponent[:, 1:-1] > top - (DEPTH - 5)
    return bool(np.max(bend, where=here, initial=0.0) < BEND)


def products(grids: Sequence[tuple[Array, Array]]) -> tuple[list[Array], Array]:
    """Nodes (labels,) of several labels together with their weights; those of no weight left out."""
    nodes = [u.ravel() for u in np.meshgrid(*(u for u, _ in grids), indexing="ij")]
    weights = np.prod(np.meshgrid(*(w for _, w in grids), indexing="ij"), axis=0).ravel()
    kept = weights > 1e-16 * weights.max()
    return [u[kept] for u in nodes], weights[kept]
