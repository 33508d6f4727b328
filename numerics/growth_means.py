"""Growth of perturbations that carry means and overlaps of a moving state: tangents of its own equations.

A copy that is perturbed by e^{λt} has covariance C(τ) + ε e^{λt} χ(τ) with one that is not (τ = t − s, noise shared):

    χ = gain(λ + D, −D) [⟨f'f'⟩ χ + ∂_v⟨ff⟩ χ(0) + ½ ∂_m⟨ff⟩ δm + ½ ∂_y⟨ff⟩ δy] + static parts,

with the equations of the means m and of the numbers y linearised likewise. χ is eliminated; λ is where the determinant
of what is left vanishes. Only real λ are looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from .assemble import Wave, variance_of
from .averages import Averages
from .closing_rates import At, Changes, covered
from .delays import is_delayed
from .stability import TINY, one_derivatives, own_filter
from .timegrid import FlowGrid, MapGrid
from .types import Array, Number

_POINTS = 14
_SMALL = 1e-4


@dataclass(frozen=True)
class Numbers:
    """Numbers y that a state determines: averages of the problem at other y, their coefficients, y, those in inputs."""

    at: At
    coefficients: Callable[[Array], Array]
    x: Array
    free: list[int]


def rate_of_means(averages: Averages, wave: Wave, numbers: Numbers | None, above: Number) -> Number | None:
    """The largest real rate above that of random modes; None without one, or where it is not covered."""
    if not covered(averages) or not np.isfinite(above.value) or not (numbers or np.any(averages.mean_gain())):
        return None
    rows = averages.code.gain_rational(0.0, averages.p[0]) if averages.problem.clock == "flow" else []
    if any(is_delayed(r) for row in rows for r in row):
        return None
    tangent = _Tangent(averages, _coarse(wave), numbers)
    low = above.value + max(1e-3 * abs(averages.edge() - above.value), 10 * above.error, 1e-6)
    rates = low + abs(averages.edge()) * np.concatenate([[0.0], np.geomspace(1e-2, 8, _POINTS)])
    signs = [tangent.determinant(float(r)) for r in rates]
    for k in range(len(rates) - 2, -1, -1):
        if signs[k] * signs[k + 1] < 0:
            value = float(brentq(tangent.determinant, rates[k], rates[k + 1], xtol=1e-11))
            return _corrected(_Tangent(averages, wave, numbers), value)
    return None


def _coarse(wave: Wave) -> Wave:
    """The state on every other element."""
    if not isinstance(wave.grid, FlowGrid):
        return wave
    edges = wave.grid.edges if len(wave.grid.edges) % 2 else (*wave.grid.edges, 1.5 * wave.grid.window)
    grid = FlowGrid(edges[::2])
    halves = [(wave.grid.interpolate(a, grid.tau), wave.grid.interpolate(b, grid.tau)) for a, b in wave.decaying]
    return replace(wave, grid=grid, decaying=halves)


def _corrected(tangent: _Tangent, value: float) -> Number:
    """The zero on the finer grid by one secant; the change, and the accuracy of differences, is the error."""
    step = 1e-4 * (1 + abs(value))
    here, there = tangent.determinant(value), tangent.determinant(value + step)
    change = -here * step / (there - here)
    return Number(value + change, abs(change) + 1e-7 * (1 + abs(value)))


class _Tangent:
    """The linearised equations of one state."""

    def __init__(self, averages: Averages, wave: Wave, numbers: Numbers | None) -> None:
        self.averages, self.wave, self.numbers = averages, wave, numbers
        problem = averages.problem
        self.grid, self.pairs = wave.grid, problem.pairs[: problem.closure]
        self.m = wave.mean
        self.v = np.maximum(variance_of(averages, wave.origin + wave.static), TINY)
        self.free = numbers.free if numbers else []
        self.one = one_derivatives(averages, self.m, self.v)
        self.changes = (
            Changes(numbers.at, numbers.coefficients, numbers.x, numbers.free, self.m, self.v) if numbers else None
        )
        self.pair = [self.pairs.index((t.a, t.a)) for t in problem.two_points]
        self.total = [self._line(wave.decaying[p][0]) + wave.static[p] for p in range(len(self.pairs))]
        self.sources = [self._source(s) for s in range(len(problem.two_points))]

    def _line(self, half: Array) -> Array:
        return self.grid.full(half, half)

    def _source(self, s: int) -> tuple[Array, Array, Array, Array]:
        """⟨f'f'⟩, ∂_v⟨ff⟩, ½∂_m⟨ff⟩ and ½∂_y⟨ff⟩ on the line and at its far end (…, last entry)."""
        p, a = self.pair[s], self.averages.problem.two_points[s].a
        at = np.append(self.total[p], self.wave.static[p])

        def values(averages: Averages, m: Array, v: Array) -> Array:
            low = float(np.arcsin(np.clip(np.min(at) / v[a], -1, 1)))
            table = averages.table(s, m, v, low=min(low, 1.4) - 0.05, high=np.pi / 2)
            return table.at(table.theta(at))

        unit = np.eye(len(self.m))[a]
        low = float(np.arcsin(np.clip(np.min(at) / self.v[a], -1, 1)))
        table = self.averages.table(s, self.m, self.v, low=min(low, 1.4) - 0.05, high=np.pi / 2)
        slope = table.slope(np.minimum(table.theta(at), np.pi / 2 - 1e-6))
        h, k = _SMALL * float(np.sqrt(self.v[a])), _SMALL * float(self.v[a])
        here = values(self.averages, self.m, self.v)
        nearer, farther = (values(self.averages, self.m, self.v + n * k * unit) for n in (1, 2))
        by_variance = (-3 * here + 4 * nearer - farther) / (2 * k)
        above, below = (values(self.averages, self.m + n * h * unit, self.v) for n in (1, -1))
        by_number = np.zeros((len(at), len(self.free)))
        if self.numbers is not None:
            for j, step in enumerate(_SMALL * np.eye(len(self.numbers.x))[self.free]):
                ends = [values(self.numbers.at(self.numbers.x + e), self.m, self.v) for e in (step, -step)]
                by_number[:, j] = (ends[0] - ends[1]) / (4 * _SMALL)
        return slope, by_variance, (above - below) / (4 * h), by_number

    def _kernel(self, p: int, s: int, rate: float) -> Array | None:
        """Matrix of gain(λ + D, −D) on the line."""
        averages = self.averages
        if isinstance(self.grid, MapGrid):

            def gain(theta: np.ndarray) -> np.ndarray:
                return averages.gains(np.exp(rate + 1j * theta), np.exp(-1j * theta))[:, p, s]

            return self.grid.kernel(gain, False, False)
        num, den = averages.code.gain_rational(rate / 2, averages.p[0])[p][s]
        if not np.any(num):
            return None
        shift = np.poly1d([1.0, rate / 2])
        moved = tuple(tuple(float(c) for c in np.atleast_1d(np.poly1d(part)(shift))) for part in (num, den))
        return self.grid.kernel(moved, False, False)  # type: ignore[arg-type]

    def _origin(self, line: Array) -> Array:
        """Values at equal times of functions on the line, by the mean of both sides."""
        plus = self.grid.origin @ line[-len(self.grid.origin) :]
        minus = self.grid.origin @ line[: len(self.grid.origin)][::-1]
        return np.asarray((plus + minus) / 2)

    def _chi(self, rate: float) -> tuple[list[Array], Array]:
        """Responses of every χ's decaying part to (χ(0), χ(∞) of pairs, δm, δy), (lines, inputs), and gains to DC."""
        problem, count = self.averages.problem, len(self.pairs)
        n, inputs = len(self.m), 2 * count + len(self.m) + len(self.free)
        dc = 0.0 if problem.clock == "flow" else 1.0
        z = np.array([rate + 0j]) if problem.clock == "flow" else np.array([np.exp(rate) + 0j])
        self.gains = self.averages.gains(z, dc)
        self.filters = [float(np.real(own_filter(self.averages, a, z, self.gains)[0])) for a in range(n)]
        size = len(self.total[0])
        left, right = np.eye(count * size), np.zeros((count * size, inputs))
        for p in range(count):
            rows = slice(p * size, (p + 1) * size)
            for s, source in enumerate(self.pair):
                kernel = self._kernel(p, s, rate)
                if kernel is None:
                    continue
                left[rows, source * size : (source + 1) * size] -= kernel * self.sources[s][0][:-1]
                right[rows] += kernel @ self._driven(s, source, count, n)
        return list(np.linalg.solve(left, right).reshape(count, size, inputs)), self.gains

    def _driven(self, s: int, p: int, count: int, n: int) -> Array:
        """What drives χ besides itself, less its far end."""
        a = self.averages.problem.two_points[s].a
        slope, by_variance, by_mean, by_number = self.sources[s]
        rows = np.zeros((len(slope), 2 * count + n + len(self.free)))
        rows[:, p], rows[:, count + p], rows[:, 2 * count + a] = by_variance, slope, by_mean
        rows[:, 2 * count + n :] = by_number * self.filters[a]
        return rows[:-1] - rows[-1]

    def determinant(self, rate: float) -> float:
        """det(1 − M) on χ(0), χ(∞), δm and δy."""
        matrix = self.matrix(rate)
        return float(np.linalg.det(np.eye(len(matrix)) - matrix))

    def matrix(self, rate: float) -> Array:
        problem, count, n = self.averages.problem, len(self.pairs), len(self.m)
        lines, gains = self._chi(rate)
        means, numbers = slice(2 * count, 2 * count + n), slice(2 * count + n, None)
        out = np.zeros((2 * count + n + len(self.free),) * 2)
        for p in range(count):
            out[p] = self._origin(lines[p])
            out[p, count + p] += 1
            for s, source in enumerate(self.pair):
                gain, a = float(np.real(gains[0, p, s])), problem.two_points[s].a
                slope, by_variance, by_mean, by_number = (x[-1] for x in self.sources[s])
                out[count + p, count + source] += gain * slope
                out[count + p, source] += gain * by_variance
                out[count + p, 2 * count + a] += gain * by_mean
                out[count + p, numbers] += gain * self.filters[a] * by_number
            if self.changes is not None:
                out[count + p, numbers] += self.filters[self.pairs[p][0]] * self.changes.static[p]
        self._points(out, means, numbers)
        return out

    def _points(self, out: Array, means: slice, numbers: slice) -> None:
        """Rows of the means and of the numbers."""
        problem, gain = self.averages.problem, self.averages.mean_gain()
        where = {a: p for p, (a, _) in enumerate(self.pairs)}
        weights = self.numbers.coefficients(self.numbers.x)[self.free] if self.numbers else np.zeros((0, len(self.one)))
        for a in range(len(self.m)):
            if self.changes is not None:
                out[means.start + a, numbers] += self.filters[a] * self.changes.constant[a]
        for k, o in enumerate(problem.one_points):
            first, second = self.one[k]
            out[means, means.start + o.a] += np.array(self.filters) * gain[:, k] * first
            out[numbers, means.start + o.a] += weights[:, k] * first
            if o.a in where:
                out[means, where[o.a]] += np.array(self.filters) * gain[:, k] * second
                out[numbers, where[o.a]] += weights[:, k] * second
            if self.changes is not None:
                change, f = self.changes, self.filters[o.a]
                read = np.outer(gain[:, k], change.one[k]) + change.mean_gain[:, k] * change.value[k]
                out[means, numbers] += f * np.array(self.filters)[:, None] * read
                out[numbers, numbers] += f * (np.outer(weights[:, k], change.one[k]) + change.turned[k])
