"""Largest Lyapunov exponent of a time-dependent state: two copies that share the disorder and the noise.

Perturbations e^{λ(t+s)} ψ(t − s) of the cross-covariance reproduce themselves where the operator
ψ_p → Σ_s gain_ps(λ + D, λ − D) [⟨f_s' g_s'⟩(τ) ψ_s(τ)] has spectral radius one (Birman–Schwinger). It maps covariance
functions to covariance functions, so that its leading eigenvalue is real and positive.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.sparse.linalg import ArpackNoConvergence, eigs

from quenched.theory.errors import ConvergenceError

from .assemble import Wave
from .averages import Averages, Table
from .fixedpoints import random_rate
from .system import Kernels
from .timegrid import FlowGrid, MapGrid
from .types import Array, Number


def growth_rate(averages: Averages, wave: Wave, tables: list[Table]) -> Number:
    """λ of a state (per unit time, per step for a map), with the change on a shorter window as its error."""
    where = Kernels(averages, _small(wave.grid)).where
    limits = np.array([float(t.slope(t.theta(np.array(wave.static[p])))) for t, (p, _) in zip(tables, where, strict=True)])
    if any(t.slopes is None and _jumps_twice(averages, s) for s, t in enumerate(tables)):
        return Number(np.inf, 0.0)
    edge = random_rate(averages, limits)
    long = wave.grid.stretched(2.0, growth=1.3) if isinstance(wave.grid, FlowGrid) else wave.grid
    value = _root(averages, wave, tables, long, edge.value)
    short = wave.grid if isinstance(wave.grid, FlowGrid) else MapGrid(int(0.7 * wave.grid.length))
    other = _root(averages, wave, tables, short, edge.value, near=value)
    relative = float(np.max(wave.error / np.maximum(wave.origin, 1e-300)))
    slope_error = max(t.slope_error / (abs(float(t.slope(np.array(t.high)))) + 1e-300) for t in tables if t.slopes is not None)
    return Number(value, abs(value - other) + (relative + slope_error) * (1 + abs(value)) + 1e-12)


def _small(grid: FlowGrid | MapGrid) -> FlowGrid | MapGrid:
    return FlowGrid(grid.edges[:2]) if isinstance(grid, FlowGrid) else MapGrid(2)


def _jumps_twice(averages: Averages, s: int) -> bool:
    """Whether ⟨f'g'⟩ diverges at equal times so strongly (like 1/τ) that perturbations grow without bound."""
    t = averages.problem.two_points[s]
    f, g = averages.site(averages.generated.site(t.f)), averages.site(averages.generated.site(t.g))
    if t.a != t.b or f.slope is not None or g.slope is not None:
        return False
    both = np.intersect1d(np.round(f.kinks, 10), np.round(g.kinks, 10))
    return any(abs(_jump(f.value, k)) > 1e-6 and abs(_jump(g.value, k)) > 1e-6 for k in both)


def _jump(f: object, kink: float) -> float:
    ends = f(np.array([kink - 1e-8, kink + 1e-8]))  # type: ignore[operator]
    return float(ends[1] - ends[0])


def _root(
    averages: Averages, wave: Wave, tables: list[Table], grid: FlowGrid | MapGrid, edge: float, near: float | None = None
) -> float:
    slopes = _slopes(averages, wave, tables, grid)

    def log_radius(rate: float) -> float:
        return float(np.log(radius(averages, grid, slopes, rate)))

    floor = averages.edge()
    low = max(edge, floor + 1e-9) + 1e-12
    if log_radius(low) <= 0:
        return edge
    step = 0.05 * (1 + abs(low)) if near is None else max(1e-7, 0.01 * abs(near - low))
    high = low + step if near is None or near - step <= low else near + step
    while log_radius(high) > 0:
        low, high = high, high + 2 * (high - low)
        if high > 1e6:
            raise ConvergenceError("the growth rate is larger than 1e6")
    return float(brentq(log_radius, low, high, xtol=1e-13, rtol=1e-13))


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


def radius(averages: Averages, grid: FlowGrid | MapGrid, slopes: list[Array], rate: float) -> float:
    """Spectral radius of the two-copy operator at growth rate λ."""
    kernels = Kernels(averages, grid, rate)
    cuts = np.cumsum([0, *kernels.sizes()])
    operator = np.zeros((cuts[-1], cuts[-1]))
    for (p, s), matrix in kernels.matrix.items():
        source = kernels.where[s][0]
        operator[cuts[p] : cuts[p + 1], cuts[source] : cuts[source + 1]] += matrix * slopes[s]
    if not np.any(operator):
        return 1e-300
    if len(operator) < 40:
        return float(np.max(np.abs(np.linalg.eigvals(operator))))
    start = np.concatenate([np.exp(-np.abs(np.linspace(-1, 1, n))) for n in kernels.sizes()])
    try:
        values = eigs(operator, k=1, which="LM", v0=start, tol=1e-13, return_eigenvectors=False)
    except ArpackNoConvergence:
        values = np.linalg.eigvals(operator)
    return float(np.max(np.abs(values)))
