"""Largest Lyapunov exponent of a time-dependent state: two copies that share the disorder and the noise.

Perturbations e^{λ(t+s)} ψ(t − s) of the cross-covariance reproduce themselves where the operator
ψ_p → Σ_s gain_ps(λ + D, λ − D) [⟨f_s' g_s'⟩(τ) ψ_s(τ)] has spectral radius one (Birman–Schwinger). It maps covariance
functions to covariance functions, so that its leading eigenvalue is real and positive.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.sparse.linalg import ArpackNoConvergence, eigs

from quenched.theory.errors import ConvergenceError

from .assemble import Wave
from .averages import Averages
from .delays import is_delayed
from .stability import random_rate, reproduction
from .system import Kernels
from .tables import Table
from .timegrid import FlowGrid, MapGrid, partial_fractions
from .types import Array, Number

#: Elements beyond which a grid is not split any further.
_MANY = 80


def growth_rate(averages: Averages, wave: Wave, tables: list[Table]) -> Number:
    """λ of a state (per unit time, per step for a map), with the change between two grids as its error."""
    if any(averages.diverging_slope(s) for s in range(len(tables))):
        return Number(np.inf, 0.0)
    where = [p for p, _ in _folds(averages)]
    limits = np.array([float(t.slope(t.theta(np.array(wave.static[p])))) for t, p in zip(tables, where, strict=True)])
    edge = random_rate(averages, limits)
    kinked = any(len(averages.site(k).kinks) > 0 for k in range(len(averages.generated.sites)))
    grids = _grids(wave.grid, kinked, 6 / abs(averages.edge()))
    coarse, fine = (_Operator(averages, wave, tables, limits, grid) for grid in grids)
    value = _root(coarse.log_radius, edge.value, averages.edge())
    relative = float(np.max(wave.error / np.maximum(wave.origin, 1e-300)))
    slope_error = max(_relative_slope_error(t) for t in tables)
    error = (relative + slope_error) * (1 + abs(value)) + edge.error + 1e-12
    if not coarse.open:
        error += (np.pi / 2 / wave.grid.window) ** 2 * (value - edge.value < (12 / wave.grid.window) ** 2)
    if value == edge.value:
        return Number(value, error)
    if isinstance(coarse.grid, FlowGrid) and float(np.max(coarse.grid.widths)) * abs(averages.edge()) > 12.1:
        # Elements much wider than the kernels hold spurious modes close to the edge of the continuous spectrum.
        error += value - edge.value
    step = 1e-4 * (1 + abs(value))
    slope = (coarse.log_radius(value + step) - coarse.log_radius(value)) / step
    corrected = max(value - fine.log_radius(value) / slope, edge.value)
    return Number(corrected, abs(corrected - value) + error)


def _relative_slope_error(table: Table) -> float:
    if table.slopes is None:
        return table.slope_error / (table.scale + 1e-300)
    return table.slope_error / (float(np.max(np.abs(table.slopes))) + 1e-300)


def _grids(grid: FlowGrid | MapGrid, kinked: bool, wide: float) -> tuple[FlowGrid | MapGrid, FlowGrid | MapGrid]:
    """Two grids whose results differ by about the error of the coarser one, without elements that are too wide."""
    if isinstance(grid, MapGrid):
        return MapGrid(int(0.7 * grid.length)), grid
    while np.max(grid.widths) > wide and len(grid.edges) < _MANY:
        grid = grid.refine(np.diff(np.array(grid.edges)) > wide)
    edges = grid.edges if len(grid.edges) % 2 else (*grid.edges, 2 * grid.edges[-1] - grid.edges[-2])
    if not kinked and len(grid.edges) > _MANY:
        return grid, grid.stretched(1.2)
    if not kinked:
        return FlowGrid(edges[::2]), FlowGrid(edges)
    # With noise ⟨f'g'⟩ of kinked functions starts like a square root of the lag: grade the first element.
    steps = tuple(edges[1] * 4.0 ** -np.arange(8.0, 0.0, -1.0))
    return FlowGrid((0.0, *steps[::2], *edges[2::2])), FlowGrid((0.0, *steps, *edges[1:]))


class _Operator:
    """The two-copy operator on one grid. `open`: beyond the window ψ decays as its own rate says, else it is cut."""

    def __init__(
        self, averages: Averages, wave: Wave, tables: list[Table], limits: Array, grid: FlowGrid | MapGrid
    ) -> None:
        self.averages, self.grid, self.limits = averages, grid, limits
        self.slopes = _slopes(averages, wave, tables, grid)
        self.open = isinstance(grid, FlowGrid) and partial_fractions_exist(averages)

    def log_radius(self, rate: float) -> float:
        """Logarithm of the spectral radius at growth rate λ."""
        kernels = Kernels(self.averages, self.grid, rate)
        cuts = np.cumsum([0, *kernels.sizes()])
        operator = np.zeros((cuts[-1], cuts[-1]))
        for (p, s), matrix in kernels.matrix.items():
            source = kernels.where[s][0]
            operator[cuts[p] : cuts[p + 1], cuts[source] : cuts[source + 1]] += matrix * self.slopes[s]
        if self.open:
            self._outside(operator, kernels, cuts, rate)
        if not np.any(operator):
            return -700.0
        return float(np.log(_spectral_radius(operator, kernels.sizes())))

    def _outside(self, operator: Array, kernels: Kernels, cuts: Array, rate: float) -> None:
        """Add what ψ(±T) e^{−κ(|τ| − T)} beyond the window T gives inside it."""
        grid = self.grid
        assert isinstance(grid, FlowGrid)
        kappa = outer_rate(self.averages, self.limits, rate)
        ratios = self.averages.code.gain_rational(rate, self.averages.p[0])
        last, tau, window = grid.last, np.concatenate([-grid.tau[::-1], grid.tau]), grid.window
        for p, s in kernels.matrix:
            source, flipped = kernels.where[s]
            parts = partial_fractions(ratios[p][s])
            assert parts is not None
            _, poles, residues = parts
            right, left = np.zeros(len(tau), dtype=complex), np.zeros(len(tau), dtype=complex)
            for pole, residue in zip(poles, residues, strict=True):
                if np.real(pole) > 0:
                    right -= residue * np.exp(pole * (tau - window)) / (pole + kappa)
                else:
                    left += residue * np.exp(pole * (tau + window)) / (kappa - pole)
            rows = grid.fold(kernels.even[p])
            right, left = (self.limits[s] * np.real(x)[rows] for x in (right, left))
            block = operator[cuts[p] : cuts[p + 1], cuts[source] : cuts[source + 1]]
            if kernels.even[source]:
                block += np.outer(right + left, last)
            else:
                first, second = (left, right) if flipped else (right, left)
                block[:, grid.size :] += np.outer(first, last)
                block[:, : grid.size] += np.outer(second, last[::-1])


def partial_fractions_exist(averages: Averages) -> bool:
    """Whether all poles of the gains are simple and apart."""
    rows = averages.code.gain_rational(0.0, averages.p[0])
    return all(not is_delayed(r) and partial_fractions(r) is not None for row in rows for r in row)


def outer_rate(averages: Averages, limits: Array, rate: float) -> float:
    """Decay rate κ of ψ at long lags: radius one for D_t = λ − κ, D_s = λ + κ with the limits of ⟨f'g'⟩."""

    def log_radius(kappa: float) -> float:
        pair = np.array([rate - kappa + 0j]), np.array([rate + kappa + 0j])
        return float(np.log(np.max(np.abs(np.linalg.eigvals(reproduction(averages, limits, *pair)[0]))) + 1e-300))

    top = rate - averages.edge()
    if not np.any(limits) or log_radius(0.0) >= 0:
        return top if not np.any(limits) else 0.0
    end = top * (1 - 1e-9)
    return float(brentq(log_radius, 0.0, end, xtol=1e-14)) if log_radius(end) > 0 else top


def _root(log_radius: Callable[[float], float], edge: float, floor: float) -> float:
    """Growth rate at which the radius is one; the edge itself where no rate above it does."""
    low = max(edge, floor + 1e-9) + 1e-12
    if log_radius(low) <= 1e-12:
        return edge
    step = 0.05 * (1 + abs(low))
    high = low + step
    while log_radius(high) > 0:
        low, high = high, high + 2 * (high - low)
        if high > 1e6:
            raise ConvergenceError("the growth rate is larger than 1e6")
    return float(brentq(log_radius, low, high, xtol=1e-10, rtol=1e-10))


def _slopes(averages: Averages, wave: Wave, tables: list[Table], grid: FlowGrid | MapGrid) -> list[Array]:
    """⟨f'g'⟩ of every source, folded as its pair, on a grid."""
    out = []
    for table, (p, even) in zip(tables, _folds(averages), strict=True):
        halves = [grid_values(wave, c, grid) for c in wave.decaying[p]]
        values = halves[0] if even else grid.full(*halves)
        theta = table.theta(values + wave.static[p])
        if table.slopes is None:
            theta = np.clip(theta, -np.pi / 2 + 1e-6, np.pi / 2 - 1e-6)
        out.append(table.slope(theta))
    return out


def grid_values(wave: Wave, half: Array, grid: FlowGrid | MapGrid) -> Array:
    """Half-line values on another grid (zero beyond the window)."""
    return wave.grid.interpolate(half, grid.tau)


def _folds(averages: Averages) -> list[tuple[int, bool]]:
    pairs = list(averages.problem.pairs[: averages.problem.closure])
    out = []
    for t in averages.problem.two_points:
        p = pairs.index((t.a, t.b)) if (t.a, t.b) in pairs else pairs.index((t.b, t.a))
        out.append((p, pairs[p][0] == pairs[p][1]))
    return out


def _spectral_radius(operator: Array, sizes: list[int]) -> float:
    if len(operator) < 40:
        return float(np.max(np.abs(np.linalg.eigvals(operator))))
    start = np.concatenate([np.exp(-np.abs(np.linspace(-1, 1, n))) for n in sizes])
    try:
        values = eigs(operator, k=1, which="LM", v0=start, tol=1e-13, return_eigenvectors=False)
    except ArpackNoConvergence:
        values = eigs(operator, k=1, which="LM", v0=start, tol=1e-7, ncv=60, return_eigenvectors=False)
    return float(np.max(np.abs(values)))
