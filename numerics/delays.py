"""Filters of flows with delays: quotients of Σ_k P_k(D) e^{−d_k D}, as matrices on a time grid, and their modes.

One term of the denominator has the highest power of D: the others, divided by it, are decaying filters with a delay, so
that the whole filter is one linear solve on the grid, (1 + Σ e^{−dD} Q/P)^{-1} Σ e^{−dD} N/P, exact on its elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeGuard

import numpy as np
from scipy.linalg import lu_factor, lu_solve
from scipy.sparse import csr_matrix
from scipy.special import comb, factorial

from quenched.theory.errors import ConvergenceError, NotCovered

from .timegrid import NODES, FlowGrid, flow_grid, impulse, interpolation
from .types import Array

#: The highest power of D first.
Coefficients = Sequence[complex] | np.ndarray
#: (delay, coefficients)
Term = tuple[float, Coefficients]
Terms = Sequence[Term]
#: Order of the rational approximation of e^{−z} that modes are first looked for with.
_PADE = 10


def is_delayed(ratio: Any) -> TypeGuard[tuple[Terms, Terms]]:
    """Whether a numerator and denominator are sums over delays, and not plain polynomials."""
    return bool(len(ratio[0])) and isinstance(ratio[0][0], tuple)


def empty(ratio: Any) -> bool:
    """Whether a filter is zero."""
    return not is_delayed(ratio) and not np.any(ratio[0])


def lags_of(ratios: Sequence[Any]) -> Array:
    """Lags > 0 by which any of the filters shifts something."""
    found = {abs(d) for r in ratios if is_delayed(r) for part in r for d, _ in part}
    return np.array(sorted(d for d in found if d > 0))


def with_kinks(grid: FlowGrid, lags: Array, repeats: int = 4) -> FlowGrid:
    """The grid with edges at the lags and their multiples, where delayed covariances kink."""
    edges = list(grid.edges)
    for point in sorted({float(k * lag) for lag in lags for k in range(1, repeats + 1)}):
        if point >= grid.window:
            continue
        j = int(np.argmin(np.abs(np.array(edges[1:]) - point))) + 1
        width = edges[j] - edges[j - 1]
        if abs(edges[j] - point) < 0.3 * width and edges[j] not in lags:
            edges[j] = point
        elif abs(edges[j] - point) > 1e-9 * point:
            edges = sorted([*edges, point])
    return FlowGrid(tuple(edges))


def _full(grid: FlowGrid) -> tuple[Array, Array]:
    """Edges and nodes of the full line."""
    edges = np.array(grid.edges)
    return np.concatenate([-edges[:0:-1], edges]), np.concatenate([-grid.tau[::-1], grid.tau])


def shift_matrix(grid: FlowGrid, delay: float) -> csr_matrix:
    """f(τ) → f(τ − delay) on the full line, 0 from beyond the window."""
    edges, tau = _full(grid)
    at = tau - delay
    element = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    weights = interpolation(2 * (at - edges[element]) / np.diff(edges)[element] - 1, NODES)
    weights = np.where((np.abs(at) < grid.window)[:, None], weights, 0.0)
    columns = element[:, None] * NODES + np.arange(NODES)
    rows = np.repeat(np.arange(grid.lines), NODES)
    return csr_matrix((weights.ravel(), (rows, columns.ravel())), shape=(grid.lines, grid.lines))


def _leading(den: Terms) -> tuple[Term, list[Term]]:
    """The term of highest degree, and the others with their delays counted from it.

    Raises
    ------
    NotCovered
        If two delays share the highest degree (a neutral equation).
    """
    degrees = [len(np.trim_zeros(np.array(c), "f")) for _, c in den]
    top = max(degrees)
    if degrees.count(top) > 1:
        raise NotCovered("a delayed derivative: the equation is neutral, which is not built yet")
    lead = den[degrees.index(top)]
    return lead, [(d - lead[0], c) for d, c in den if d != lead[0]]


def filter_matrix(grid: FlowGrid, ratio: tuple[Terms, Terms], even: bool = False) -> Array:
    """Matrix of the filter on the full line, from the full line or (even functions) from its positive half."""
    num, den = ratio
    (origin, lead), rest = _leading(den)
    return _solved(grid, lead, rest, _passed(grid, [(d - origin, c) for d, c in num], lead, even))


def _passed(grid: FlowGrid, terms: Terms, lead: Coefficients, even: bool = False) -> Array:
    """Σ e^{−dD} c(D)/lead(D)."""
    total = np.zeros((grid.lines, grid.size if even else grid.lines))
    for delay, c in terms:
        kernel = grid.kernel(_real(c, lead), even, False)
        total += kernel if delay == 0 else shift_matrix(grid, delay) @ kernel
    return total


def _real(c: Coefficients, lead: Coefficients) -> tuple[list[float], list[float]]:
    return np.real(c).tolist(), np.real(lead).tolist()


def _solved(grid: FlowGrid, lead: Coefficients, rest: Terms, right: Array) -> Array:
    if not rest:
        return right
    factors = _factors(grid, tuple(lead), tuple((d, tuple(c)) for d, c in rest))
    return np.asarray(lu_solve(factors, right, check_finite=False))


@lru_cache(maxsize=4)
def _factors(grid: FlowGrid, lead: tuple[complex, ...], rest: Terms) -> tuple[Array, Array]:
    """1 + Σ e^{−dD} Q/P, factorised: the filters of one state share it."""
    matrix = _passed(grid, rest, lead)
    matrix[np.diag_indices(grid.lines)] += 1.0
    found: tuple[Array, Array] = lu_factor(matrix, overwrite_a=True, check_finite=False)
    return found


def filtered_impulse(grid: FlowGrid, ratio: tuple[Terms, Terms]) -> Array:
    """What the filter makes of δ(τ), on the full line."""
    num, den = ratio
    (origin, lead), rest = _leading(den)
    tau, total = _full(grid)[1], np.zeros(grid.lines)
    for delay, c in num:
        at, pair = tau - (delay - origin), _real(c, lead)
        total[at > 0] += impulse(pair, at[at > 0])
        total[at < 0] += impulse(pair, -at[at < 0], causal=False)
    return _solved(grid, lead, rest, total)


def decays(ratio: Any) -> bool:
    """Whether a filter falls off with frequency, so that its impulse response is a function."""
    num, den = ratio if is_delayed(ratio) else ([(0.0, part)] for part in ratio)
    return max(len(c) for _, c in num) < max(len(c) for _, c in den)


def causal_impulse(ratio: Any, lag: Array) -> Array:
    """Impulse response of a causal filter at lags ≥ 0."""
    if not is_delayed(ratio):
        return impulse(ratio, lag)
    fast = float(np.max(np.abs(np.roots(np.real(_leading(ratio[1])[0][1])))))
    end = float(np.max(lag, initial=0.0)) + 1 / fast
    grid = with_kinks(flow_grid(2 / end, fast, end), lags_of([ratio]), 8)
    return grid.interpolate(grid.split(filtered_impulse(grid, ratio))[0], lag)


# -- modes ------------------------------------------------------------------------------------------------------------
def modes(terms: Any) -> np.ndarray:
    """Roots of a polynomial, or the rightmost roots of Σ_k P_k(z) e^{−d_k z}.

    Raises
    ------
    ConvergenceError
        If a root to the right of all that were found is missed.
    """
    if not len(terms) or not isinstance(terms[0], tuple):
        return np.roots(np.array(terms, dtype=complex))
    origin = min(d for d, _ in terms)
    shifted = [(float(d - origin), np.array(c, dtype=complex)) for d, c in terms]
    lead, _ = _leading(shifted)
    if lead[0] != 0:
        raise NotCovered("the highest derivative is delayed: the equation is not causal")
    found = [_polished(shifted, z) for z in _rational_roots(shifted)]
    roots = np.array([z for z in found if z is not None])
    top = float(np.max(np.real(roots), initial=-np.inf))
    bound = top + 1e-6 * (1 + abs(top)) if np.isfinite(top) else -1.0 / max(d for d, _ in shifted)
    if _count_right(shifted, lead[1], bound):
        raise ConvergenceError("modes of the delayed linear part were not all found")
    return roots


def value(terms: Terms, z: Any) -> Any:
    """Σ_k P_k(z) e^{−d_k z}."""
    return sum(np.polyval(c, z) * np.exp(-d * z) for d, c in terms)


def _rational_roots(terms: Terms) -> np.ndarray:
    """Roots with e^{−z} replaced by its diagonal Padé approximant."""
    k = np.arange(_PADE, -1, -1)
    weights = comb(_PADE, k) * factorial(2 * _PADE - k) / factorial(2 * _PADE)
    total = np.zeros(1, dtype=complex)
    delays = [d for d, _ in terms if d > 0]
    tops = {d: weights * (-d) ** k for d in delays}
    bottoms = {d: weights * d**k for d in delays}
    for d, c in terms:
        part = np.array(c, dtype=complex)
        for e in delays:
            part = np.polymul(part, tops[e] if e == d else bottoms[e])
        total = np.polyadd(total, part)
    return np.roots(total)


def _polished(terms: Terms, start: complex) -> complex | None:
    """Newton's method from a near root; None if it leads elsewhere."""
    z = complex(start)
    for _ in range(40):
        slope = sum(
            (np.polyval(np.polyder(np.asarray(c)), z) - d * np.polyval(c, z)) * np.exp(-d * z) for d, c in terms
        )
        if slope == 0 or not np.isfinite(slope):
            return None
        step = complex(value(terms, z) / slope)
        z -= step
        if abs(z - start) > 1 + abs(start) or z.real > 700:
            return None
        if abs(step) < 1e-13 * (1 + abs(z)):
            return z
    return None


def _count_right(terms: Terms, lead: Coefficients, rate: float) -> int:
    """Zeros with a larger real part, by the winding of the values over those of (z − rate + 1)^n."""
    degree = len(np.trim_zeros(np.asarray(lead), "f")) - 1
    half = np.concatenate([np.linspace(0, 50, 20000), np.geomspace(50, 1e6, 4000)[1:]])
    values = [value(terms, rate + 1j * w) / (1 + 1j * w) ** degree for w in (half, -half)]
    turn = [float(np.sum(np.angle(v[1:] / v[:-1]))) for v in values]
    return round((turn[1] - turn[0]) / (2 * np.pi))
