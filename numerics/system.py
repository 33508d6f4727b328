"""The stationary equations on a time grid: residual and Jacobian, for any gains, arguments and populations.

Unknowns are stacked as the decaying parts of the closure's pairs (half a line for (a, a), the full line for (a, b)),
their limits q, and the means m:

    C_p = Σ_s K_ps [T_s(C + q) − T_s(q)] + noise_p,  q_p = Σ_s gain_ps(0) T_s(q) + static_p,  m = c + Σ mean_gain ⟨f⟩

with T_s(c) = ⟨f_s g_s⟩ at covariance c. Derivatives with respect to c are ⟨f'g'⟩ (Price), those with respect to the
variances and means finite differences of the tables.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .assemble import map_noise, pair_index, variance_of
from .averages import Averages
from .delays import empty
from .tables import Table
from .timegrid import FlowGrid, MapGrid
from .types import Array


@dataclass
class Unknowns:
    """Views of the stacked vector: decaying parts (list), limits (closure,), means (arguments,)."""

    decaying: list[Array]
    static: Array
    mean: Array


class Kernels:
    """Convolution matrices K_ps of a problem on a grid, at growth rate λ (0: the state itself)."""

    def __init__(self, averages: Averages, grid: FlowGrid | MapGrid, rate: float = 0.0) -> None:
        self.averages, self.grid = averages, grid
        problem = averages.problem
        self.even = [a == b for a, b in problem.pairs[: problem.closure]]
        self.where = [pair_index(averages, t.a, t.b) for t in problem.two_points]
        cache: dict[tuple, Array] = {}
        key: tuple
        self.matrix: dict[tuple[int, int], Array] = {}
        if isinstance(grid, FlowGrid):
            ratios = averages.code.gain_rational(rate, averages.p[0])
        else:
            theta = np.array([0.3, 1.7])
            probe = averages.gains(np.exp(rate + 1j * theta), np.exp(rate - 1j * theta))
        for p in range(problem.closure):
            for s, (source, flipped) in enumerate(self.where):
                flags = (self.even[source], self.even[p])
                if isinstance(grid, FlowGrid):
                    ratio = ratios[p][s]
                    if empty(ratio):
                        continue
                    key = (tuple(ratio[0]), tuple(ratio[1]), *flags)
                    if key not in cache:
                        cache[key] = grid.kernel(ratio, *flags)
                else:
                    if not np.any(probe[:, p, s]):
                        continue
                    key = (p, s, *flags)
                    cache[key] = grid.kernel(averages.transfer(p, s, rate), *flags)
                matrix = cache[key]
                self.matrix[p, s] = matrix[:, ::-1] if flipped else matrix

    def sizes(self) -> list[int]:
        """Length of the vector of each pair."""
        return [self.grid.size if even else self.grid.lines for even in self.even]


class System:
    """Residual and Jacobian on one grid; `extra` scales additional white noise on the site functions."""

    def __init__(self, averages: Averages, grid: FlowGrid | MapGrid) -> None:
        self.averages, self.grid = averages, grid
        self.kernels = Kernels(averages, grid)
        problem = averages.problem
        self.pairs = problem.pairs[: problem.closure]
        self.noise = [self._noise(p) for p in range(problem.closure)]
        self.shake = [self._shake(p) for p in range(problem.closure)]
        self.free = [bool(np.any(row)) for row in averages.mean_gain()]
        self.extra, self.tol = 0.0, 1e-12
        cuts = np.cumsum([0, *self.kernels.sizes(), problem.closure, len(problem.arguments)])
        self.blocks = [slice(a, b) for a, b in itertools.pairwise(cuts)]
        self.size = int(cuts[-1])

    # -- vectors

    def unpack(self, x: Array) -> Unknowns:
        """Views of a stacked vector."""
        parts = [x[b] for b in self.blocks]
        return Unknowns(parts[:-2], parts[-2], parts[-1])

    def pack(self, decaying: list[Array], static: Array, mean: Array) -> Array:
        """The stacked vector."""
        return np.concatenate([*decaying, static, mean])

    def origin(self, p: int) -> Array:
        """Row from the vector of pair p to its value at τ = 0⁺."""
        row = self.grid.origin
        if self.kernels.even[p]:
            return row
        full = np.zeros(self.kernels.sizes()[p])
        full[-len(row) :] = row
        return full

    def variance(self, u: Unknowns) -> Array:
        """Variances of the arguments."""
        total = [self.origin(p) @ u.decaying[p] + u.static[p] for p in range(len(self.pairs))]
        return variance_of(self.averages, np.array(total))

    def halves(self, p: int, vector: Array) -> tuple[Array, Array]:
        """Values at ±τ of the vector of pair p."""
        return (vector, vector) if self.kernels.even[p] else self.grid.split(vector)

    def _folded(self, p: int, plus: Array, minus: Array) -> Array:
        return plus if self.kernels.even[p] else self.grid.full(plus, minus)

    def _noise(self, p: int) -> Array:
        averages = self.averages
        if isinstance(self.grid, FlowGrid):
            ratio = averages.code.noise_rational(0.0, averages.p[0])[p]
            return self._folded(p, *self.grid.impulse(ratio))
        return map_noise(averages, self.grid, p)[self.grid.fold(self.kernels.even[p])]

    def _shake(self, p: int) -> Array:
        """Covariance from unit white noise on every site function (a positive definite perturbation)."""
        averages, grid = self.averages, self.grid
        total = np.zeros(self.kernels.sizes()[p])
        for s, t in enumerate(averages.problem.two_points):
            if t.f.expr != t.g.expr or t.a != t.b:
                continue
            if isinstance(grid, FlowGrid):
                ratio = averages.code.gain_rational(0.0, averages.p[0])[p][s]
                total += self._folded(p, *grid.impulse(ratio))
            else:
                full = grid.response(averages.transfer(p, s))
                total += full[grid.fold(self.kernels.even[p])]
        return total

    # -- equations

    def tables(self, u: Unknowns, v: Array, mean: Array) -> list[Table]:
        """Tables of all sources over the covariances that occur."""
        out = []
        for s, t in enumerate(self.averages.problem.two_points):
            p = self.kernels.where[s][0]
            scale = np.sqrt(v[t.a] * v[t.b])
            least = float(np.min(np.append(u.decaying[p], 0.0)) + u.static[p]) / scale
            low = max(np.arcsin(np.clip(least, -1, 1)) - 0.05, -np.pi / 2)
            out.append(self.averages.table(s, mean, v, low=float(min(low, 1.0)), tol=self.tol))
        return out

    def _values(self, u: Unknowns, tables: list[Table]) -> tuple[list[Array], Array]:
        """T_s on the vectors of their pairs, and their limits."""
        values, limits = [], []
        for table, (p, _) in zip(tables, self.kernels.where, strict=True):
            limit = float(table.at(table.theta(u.static[p])))
            values.append(table.at(table.theta(u.decaying[p] + u.static[p])) - limit)
            limits.append(limit)
        return values, np.array(limits)

    def _parts(self, values: list[Array], limits: Array) -> tuple[list[Array], Array]:
        """Contributions of the sources to C and q."""
        closure = len(self.pairs)
        out = [np.zeros(n) for n in self.kernels.sizes()]
        for (p, s), matrix in self.kernels.matrix.items():
            out[p] += matrix @ values[s]
        return out, self.averages.static_gain()[:closure] @ limits

    def _means(self, mean: Array, v: Array) -> Array:
        averages = self.averages
        ones = [
            averages.one(k, float(mean[o.a]), float(v[o.a])).value for k, o in enumerate(averages.problem.one_points)
        ]
        return averages.mean_constant() + (averages.mean_gain() @ np.array(ones) if ones else 0.0)

    def residual(self, x: Array) -> Array:
        """Left minus right side of all equations."""
        u = self.unpack(x)
        v = self.variance(u)
        return self._residual(u, v, self.tables(u, v, u.mean))

    def _residual(self, u: Unknowns, v: Array, tables: list[Table]) -> Array:
        parts, static = self._parts(*self._values(u, tables))
        decaying = [
            c - new - noise - self.extra * shake
            for c, new, noise, shake in zip(u.decaying, parts, self.noise, self.shake, strict=True)
        ]
        return self.pack(
            decaying, u.static - static - self.averages.static()[: len(self.pairs)], u.mean - self._means(u.mean, v)
        )

    def newton(self, x: Array) -> tuple[Array, Array]:
        """Residual and Jacobian."""
        u = self.unpack(x)
        v = self.variance(u)
        tables = self.tables(u, v, u.mean)
        here = self._residual(u, v, tables)
        jacobian = np.eye(self.size)
        static_block, mean_block = self.blocks[-2], self.blocks[-1]
        gain = self.averages.static_gain()
        for s, (table, (p, _)) in enumerate(zip(tables, self.kernels.where, strict=True)):
            slope = _tame(table, table.theta(u.decaying[p] + u.static[p]))
            limit = float(_tame(table, table.theta(u.static[p])))
            for q in range(len(self.pairs)):
                if (q, s) in self.kernels.matrix:
                    matrix = self.kernels.matrix[q, s]
                    jacobian[self.blocks[q], self.blocks[p]] -= matrix * slope
                    jacobian[self.blocks[q], static_block.start + p] -= matrix @ (slope - limit)
                jacobian[static_block.start + q, static_block.start + p] -= gain[q, s] * limit
        self._scalar_columns(u, v, here, jacobian, mean_block.start)
        return here, jacobian

    def _scalar_columns(self, u: Unknowns, v: Array, here: Array, jacobian: Array, first_mean: int) -> None:
        """Add the dependence on variances and means, by differences at fixed covariances."""
        diagonal = {a: p for p, (a, b) in enumerate(self.pairs) if a == b}
        for a, p in diagonal.items():
            step = 1e-6 * v[a]
            shifted = v.copy()
            shifted[a] += step
            change = (self._residual(u, shifted, self.tables(u, shifted, u.mean)) - here) / step
            jacobian[:, self.blocks[p]] += np.outer(change, self.origin(p))
            jacobian[:, self.blocks[-2].start + p] += change
        for a, free in enumerate(self.free):
            if not free:
                continue
            step = 1e-6 * max(np.sqrt(v[a]), 1e-8)
            mean = u.mean.copy()
            mean[a] += step
            moved = Unknowns(u.decaying, u.static, mean)
            change = (self._residual(moved, v, self.tables(moved, v, mean)) - here) / step
            jacobian[:, first_mean + a] = change


def _tame(table: Table, theta: Array) -> Array:
    """⟨f'g'⟩, kept finite at equal times where two jumps meet (the Jacobian only steers)."""
    if table.slopes is None:
        theta = np.clip(theta, -np.pi / 2 + 1e-4, np.pi / 2 - 1e-4)
    return table.slope(theta)
