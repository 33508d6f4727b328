"""Growth of perturbations of the numbers that a state determines itself (overlaps), together with those of the state.

About a fixed point δx = F'(z) δx, where units follow a change of their input as their filter says. Only numbers that
enter inputs are perturbed; those in filters of power spectra are held.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .averages import Averages
from .stability import TINY, collective_matrix, equal_time_slopes, one_derivatives, own_filter, rightmost_zero
from .types import Array, Branch, Number

#: Averages of the problem at given numbers.
At = Callable[[Array], Averages]
#: Step of differences, and what counts as no change.
_STEP, _STILL = 1e-4, 1e-6


def coupled_rate(
    at: At, coefficients: Callable[[Array], Array], x: Array, free: list[int], state: Branch
) -> Number | None:
    """Leading rate of the modes that carry numbers; None if none decays slower than units alone, or it is not covered.

    Parameters
    ----------
    at : numbers → `Averages`
    coefficients : numbers → matrix (numbers × one_points), of which the numbers are the products with the averages
    x : consistent numbers
    free : those that enter inputs
    state : the state there: a fixed point, or a moving one that they leave as it is to first order (by symmetry)
    """
    averages = at(x)
    if not free or not covered(averages) or not np.isfinite(state.growth.value):
        return None
    problem = averages.problem
    fixed = state.kind in ("trivial", "static")
    q = np.array([state.static[p] if fixed else 0.0 for p in problem.pairs[: problem.closure]])
    m, v = state.mean, np.maximum(state.variance, TINY)
    slopes = equal_time_slopes(averages, m, v, q) if np.any(q) else np.zeros(len(problem.two_points))
    base, changes = collective_matrix(averages, m, v, q, slopes), Changes(at, coefficients, x, free, m, v)
    if not fixed and not changes.odd(averages, m, v):
        return None
    one, weights = one_derivatives(averages, m, v), coefficients(x)[free]
    n, dc = len(m), 0.0 if problem.clock == "flow" else 1.0
    diagonal = {a: p for p, (a, b) in enumerate(problem.pairs[: problem.closure]) if a == b} if np.any(q) else {}

    def determinant(z: np.ndarray) -> np.ndarray:
        inner, gains = base(z), averages.gains(z, dc)
        size = inner.shape[1]
        matrix = np.zeros((len(z), size + len(free), size + len(free)), dtype=complex)
        matrix[:, :size, :size] = inner
        filters = [own_filter(averages, a, z, gains) for a in range(n)]
        numbers = slice(size, None)
        for a in range(n):
            row = np.multiply.outer(filters[a], changes.constant[a])
            for k, o in enumerate(problem.one_points):
                read = averages.mean_gain()[a, k] * changes.one[k] + changes.mean_gain[a, k] * changes.value[k]
                row = row + np.multiply.outer(filters[a] * filters[o.a], read)
            matrix[:, a, numbers] += row
        for a, p in diagonal.items():
            matrix[:, n + p, numbers] += np.multiply.outer(filters[a], changes.static[p])
            for s, t in enumerate(problem.two_points):
                matrix[:, n + p, numbers] += np.multiply.outer(gains[:, p, s] * filters[t.a], changes.two[s])
        for k, o in enumerate(problem.one_points):
            matrix[:, numbers, o.a] += weights[:, k] * one[k][0]
            if o.a in diagonal:
                matrix[:, numbers, n + diagonal[o.a]] += weights[:, k] * one[k][1]
            read = np.outer(weights[:, k], changes.one[k]) + changes.turned[k]
            matrix[:, numbers, numbers] += np.multiply.outer(filters[o.a], read)
        return np.asarray(np.linalg.det(np.eye(matrix.shape[1]) - matrix))

    rate = rightmost_zero(averages, determinant)
    # Where outputs jump at the very place where units are, only the step limits a difference quotient.
    return Number(np.inf, 0.0) if rate is not None and rate.value > 0.01 / _STEP else rate


def covered(averages: Averages) -> bool:
    """Whether a change of one of two copies is half a change of both: averages of one output with itself alone."""
    problem = averages.problem
    return all(t.a == t.b and t.f.expr == t.g.expr for t in problem.two_points) and all(
        a == b for a, b in problem.pairs[: problem.closure]
    )


class Changes:
    """How constants, averages and static parts change with free numbers, means and variances kept (…, numbers)."""

    def __init__(
        self, at: At, coefficients: Callable[[Array], Array], x: Array, free: list[int], m: Array, v: Array
    ) -> None:
        here = at(x)
        problem = here.problem
        ends = [(at(x + h), at(x - h)) for h in _STEP * np.eye(len(x))[free]]

        def slope(read: Callable[[Averages], Array]) -> Array:
            return np.stack([(read(a) - read(b)) / (2 * _STEP) for a, b in ends], axis=-1)

        def ones(averages: Averages) -> Array:
            return np.array([averages.one(k, m[o.a], v[o.a]).value for k, o in enumerate(problem.one_points)])

        def twos(averages: Averages) -> Array:
            rows = enumerate(problem.two_points)
            return np.array([averages.pair_average(s, m[t.a], m[t.a], *3 * (v[t.a],)) for s, t in rows])

        self.value = ones(here)
        self.turned = _turned(coefficients, x, free, self.value)
        self.constant, self.mean_gain = slope(Averages.mean_constant), slope(Averages.mean_gain)
        self.one, self.two, self.static = slope(ones), slope(twos) / 2, slope(Averages.static) / 2

    def odd(self, averages: Averages, m: Array, v: Array) -> bool:
        """Whether neither the numbers nor the means change covariances."""
        rows = enumerate(averages.problem.two_points)
        lean = [averages.curvature(s, float(m[t.a]), float(v[t.a])) for s, t in rows]
        by_mean = [np.inf if pair is None else abs(pair[0]) for pair in lean]
        return bool(max(np.max(np.abs(self.two)), np.max(np.abs(self.static)), *by_mean) < _STILL)


def _turned(coefficients: Callable[[Array], Array], x: Array, free: list[int], value: Array) -> Array:
    """Changes of the coefficients of every average times its value (one_points, numbers, numbers)."""
    steps = _STEP * np.eye(len(x))[free]
    rows = [(coefficients(x + h) - coefficients(x - h))[free] / (2 * _STEP) * value for h in steps]
    return np.stack(rows, axis=-1).transpose(1, 0, 2)
