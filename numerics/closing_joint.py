"""States together with the numbers that they determine: one Newton iteration for both.

A state of one kind is a short vector: means and covariances of a fixed point, or variance, limit and mean of a particle
that moves. Its equations at given numbers and the numbers' own equation are solved at once from a neighbour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.optimize import root

from quenched.theory.errors import QuenchedError

from .averages import Averages
from .fixedpoints import static_map
from .potential import Particle, equations, is_maximum
from .stability import TINY
from .types import Array, Branch

#: Averages of the problem at given numbers.
At = Callable[[Array], Averages]
_LOST = 1e3


class Vector(Protocol):
    """The unknowns of one kind of state, of order one."""

    def start(self, state: Branch) -> Array:
        """The vector of a state."""

    def residual(self, averages: Averages, y: Array) -> Array:
        """What the equations of the state miss."""

    def moments(self, y: Array) -> tuple[Array, Array]:
        """Means and variances of the arguments."""

    def holds(self, averages: Averages, y: Array) -> bool:
        """Whether a solution is of this kind."""


def vector_of(averages: Averages, state: Branch) -> Vector | None:
    """The unknowns of a state's kind; None where it needs a function of the lag."""
    if state.kind in ("trivial", "static"):
        return _Fixed(averages, state)
    return _Moving() if averages.potential is not None else None


class _Fixed:
    """Means and covariances of a fixed point, in units of its size."""

    def __init__(self, averages: Averages, state: Branch) -> None:
        problem = averages.problem
        self.pairs = problem.pairs[: problem.closure]
        self.trivial = state.kind == "trivial"
        q = self._covariances(state)
        self.unit = max(float(np.sqrt(np.max(np.abs(q), initial=0.0))), float(np.max(np.abs(state.mean))), 1e-3)
        self.count = len(state.mean)

    def _covariances(self, state: Branch) -> Array:
        return np.array([0.0 if self.trivial else state.static[p] for p in self.pairs])

    def _parts(self, y: Array) -> tuple[Array, Array]:
        q = np.zeros(len(self.pairs)) if self.trivial else y[self.count :] * self.unit**2
        return y[: self.count] * self.unit, q

    def start(self, state: Branch) -> Array:
        q = np.zeros(0) if self.trivial else self._covariances(state) / self.unit**2
        return np.concatenate([state.mean / self.unit, q])

    def residual(self, averages: Averages, y: Array) -> Array:
        m, q = self._parts(y)
        mean, new = static_map(averages, m, q)
        rest = np.zeros(0) if self.trivial else (new - q) / self.unit**2
        return np.concatenate([(mean - m) / self.unit, rest])

    def moments(self, y: Array) -> tuple[Array, Array]:
        m, q = self._parts(y)
        v = np.zeros(self.count)
        for x, (a, b) in zip(q, self.pairs, strict=True):
            v[a] = x if a == b else v[a]
        return m, np.maximum(v, TINY)

    def holds(self, averages: Averages, y: Array) -> bool:
        m, q = self._parts(y)
        if self.trivial:
            return bool(np.max(np.abs(static_map(averages, m, q)[1]), initial=0.0) < 1e-18)
        own = [x for x, (a, b) in zip(q, self.pairs, strict=True) if a == b]
        return bool(min(own) > 1e-9 * self.unit**2)


class _Moving:
    """Logarithm of the variance, limit and mean of a particle, both relative to the former."""

    def _parts(self, y: Array) -> tuple[float, float, float]:
        v = float(np.exp(np.clip(y[0], -50, 50)))
        return v, float(np.clip(y[1], -1, 1)) * v, float(y[2]) * float(np.sqrt(v))

    def start(self, state: Branch) -> Array:
        v = float(state.variance[0])
        return np.array([np.log(v), state.static[0, 0] / v, float(state.mean[0]) / np.sqrt(v)])

    def residual(self, averages: Averages, y: Array) -> Array:
        outside = max(abs(float(y[1])) - 1, 0.0)
        return equations(Particle(averages), *self._parts(y), 1e-12)[0] + outside

    def moments(self, y: Array) -> tuple[Array, Array]:
        v, _, m = self._parts(y)
        return np.array([m]), np.array([v])

    def holds(self, averages: Averages, y: Array) -> bool:
        return bool(-1 <= y[1] < 1 - 1e-6) and is_maximum(Particle(averages), *self._parts(y))


def ones(vector: Vector, averages: Averages, y: Array) -> Array:
    """One-point averages in a state."""
    m, v = vector.moments(y)
    points = enumerate(averages.problem.one_points)
    return np.array([averages.one(k, float(m[o.a]), float(v[o.a])).value for k, o in points])


def follow(vector: Vector, averages: Averages, y: Array) -> Array | None:
    """The state at changed numbers, from a neighbour's; None where it is lost or jumps."""
    try:
        answer = root(lambda z: vector.residual(averages, z), y, method="hybr", options={"xtol": 1e-12, "maxfev": 40})
        near = np.max(np.abs(answer.fun)) < 1e-6 and np.max(np.abs(answer.x - y)) < 1
        return answer.x if near and vector.holds(averages, answer.x) else None
    except (QuenchedError, ValueError, FloatingPointError):
        return None


def joint(
    vector: Vector, at: At, coefficients: Callable[[Array], Array], y: Array, x: Array
) -> tuple[Array, Array, float] | None:
    """A state and consistent numbers near given ones, and what is left of the numbers' equation; None without any."""
    n = len(y)

    def residual(z: Array) -> Array:
        try:
            averages = at(z[n:])
            rest = coefficients(z[n:]) @ ones(vector, averages, z[:n]) - z[n:]
            return np.concatenate([vector.residual(averages, z[:n]), rest])
        except (QuenchedError, ValueError):
            return np.full(len(z), _LOST)

    start = np.concatenate([y, x])
    options = {"xtol": 1e-13, "eps": 1e-9, "maxfev": 25 * (len(start) + 1)}
    answer = root(residual, start, method="hybr", options=options)
    z, left = answer.x, np.abs(answer.fun)
    if (
        not np.all(np.isfinite(z))
        or np.max(left) > 1e-9 * (1 + np.max(np.abs(z)))
        or not vector.holds(at(z[n:]), z[:n])
    ):
        return None
    return z[:n], z[n:], float(np.max(left[n:]))
