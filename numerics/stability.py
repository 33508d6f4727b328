"""Stability of fixed points in the network.

A perturbation of a fixed point grows as e^{zt} in two ways: modes in random directions, where the covariance of
perturbations reproduces itself, ρ[Σ_s gain(z, z̄) ⟨f'g'⟩] = 1, and modes that carry the mean or follow the fixed point
itself, where the linearised static equations with gain(z, 0) have the eigenvalue one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from .averages import Averages
from .types import Array, Number

#: Variance that stands for the limit V → 0⁺ (kinks included).
TINY = 1e-24
_EPS = float(np.finfo(float).eps)


def variances(averages: Averages, covariance: Array) -> Array:
    """Variances of the arguments from the covariances of pairs (arguments,); 0 where no pair says."""
    out = np.zeros(len(averages.problem.arguments))
    for q, (a, b) in zip(covariance, averages.problem.pairs, strict=False):
        if a == b:
            out[a] = q
    return out


def ordered_pairs(averages: Averages) -> list[tuple[int, int]]:
    """The closure's pairs and their transposes."""
    pairs = list(averages.problem.pairs[: averages.problem.closure])
    return pairs + [(b, a) for a, b in pairs if a != b]


def reproduction(averages: Averages, slopes: Array, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Matrices (n, ordered pairs, ordered pairs): covariance of perturbations from itself, given ⟨f'g'⟩."""
    problem = averages.problem
    ordered = ordered_pairs(averages)
    gains = averages.gains(first, second)[:, : problem.closure]
    swapped = averages.gains(second, first)[:, : problem.closure]
    out = np.zeros((len(first), len(ordered), len(ordered)), dtype=complex)
    pairs = list(problem.pairs[: problem.closure])
    for i, (a, b) in enumerate(ordered):
        p, flipped = (pairs.index((a, b)), False) if (a, b) in pairs else (pairs.index((b, a)), True)
        for s, t in enumerate(problem.two_points):
            source = (t.b, t.a) if flipped else (t.a, t.b)
            if source not in ordered:
                continue
            out[:, i, ordered.index(source)] += (swapped if flipped else gains)[:, p, s] * slopes[s]
    return out


def _operators(averages: Averages, rate: float, phase: Array) -> tuple[np.ndarray, np.ndarray]:
    if averages.problem.clock == "flow":
        return rate + 1j * phase, rate - 1j * phase
    return np.exp(rate + 1j * phase), np.exp(rate - 1j * phase)


def random_rate(averages: Averages, slopes: Array) -> Number:
    """Leading rate of modes in random directions for constant ⟨f'g'⟩: largest Re z (flow) or log|z| (map)."""
    if np.any(np.isinf(slopes)):
        return Number(np.inf, 0.0)
    edge = averages.edge()
    flow = averages.problem.clock == "flow"
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 200)]) if flow else np.linspace(0, np.pi, 181)

    def radius(rate: float, phase: Array) -> Array:
        return np.max(
            np.abs(np.linalg.eigvals(reproduction(averages, slopes, *_operators(averages, rate, phase)))), axis=1
        )

    def largest(rate: float) -> float:
        values = radius(rate, grid)
        i = int(np.argmax(values))
        if 0 < i < len(grid) - 1:
            best = minimize_scalar(
                lambda w: -radius(rate, np.array([w]))[0],
                bounds=(grid[i - 1], grid[i + 1]),
                method="bounded",
                options={"xatol": 1e-9 * (1 + grid[i])},
            )
            return float(max(values[i], -best.fun))
        return float(values[i])

    low = edge + 1e-9 * (1 + abs(edge))
    if not np.any(slopes) or largest(low) <= 1:
        return Number(edge, 4 * _EPS * abs(edge))
    high = edge + 1.0
    while largest(high) > 1:
        high = edge + 2 * (high - edge)
    rate = brentq(lambda x: np.log(largest(x)), low, high, xtol=1e-15, rtol=4 * _EPS)
    return Number(float(rate), 1e-13 * (1 + abs(rate)))


def leading_rate(averages: Averages, m: Array, q: Array) -> tuple[Number, tuple[str, ...]]:
    """Rate of the leading eigenvalue of the network linearised at a fixed point, and notes on what is assumed."""
    v = np.maximum(variances(averages, q), TINY)
    slopes = equal_time_slopes(averages, m, v, q)
    rate = random_rate(averages, slopes)
    if not np.isfinite(rate.value):
        return rate, ()
    collective = collective_rate(averages, m, v, q, slopes)
    if collective is None:
        return rate, ()
    notes = ("the filter of the mean is taken from the gain, of which the mean equation gives the zero frequency only",)
    return (collective if collective.value > rate.value else rate), notes if np.any(averages.mean_gain()) else ()


def equal_time_slopes(averages: Averages, m: Array, v: Array, q: Array) -> Array:
    """⟨f'g'⟩ of every two-point source at a fixed point with covariances q of the closure's pairs."""
    problem = averages.problem
    covariance = {pair: q[p] for p, pair in enumerate(problem.pairs[: problem.closure])}
    return np.array([_slope(averages, s, m, v, covariance) for s in range(len(problem.two_points))])


def _slope(averages: Averages, s: int, m: Array, v: Array, covariance: dict[tuple[int, int], float]) -> float:
    t = averages.problem.two_points[s]
    if t.a == t.b:
        sites = averages.generated.site(t.f), averages.generated.site(t.g)
        return averages.equal_time(*sites, t.a, float(m[t.a]), float(v[t.a]), derivative=True).value
    c = covariance.get((t.a, t.b), covariance.get((t.b, t.a), 0.0))
    table = averages.table(s, m, v)
    return float(table.slope(table.theta(np.array(c))))


def collective_rate(averages: Averages, m: Array, v: Array, q: Array, slopes: Array) -> Number | None:
    """Leading rate of modes of the mean and along the fixed point, by counting zeros of det(1 − M(z)); None if none."""
    if not np.any(q) and not np.any(averages.mean_gain()):
        return None
    return rightmost_zero(averages, _collective(averages, m, v, q, slopes))


def oscillating_mean(averages: Averages, m: Array, v: Array) -> Number | None:
    """Rate at which an oscillation of the means about a state grows, its covariances kept; None if none does."""
    if not np.any(averages.mean_gain()):
        return None
    nothing = np.zeros(averages.problem.closure)
    determinant = _collective(averages, m, v, nothing, np.zeros(len(averages.problem.two_points)))
    still = determinant(_operators(averages, 0.0, np.zeros(1))[0])[0]
    if np.real(still) <= 0:  # a real mode grows: whether it does with the covariances is told by the state's equations
        return None
    rate = rightmost_zero(averages, determinant, 0.0)
    return rate if rate is not None and rate.value > 10 * rate.error else None


def _collective(averages: Averages, m: Array, v: Array, q: Array, slopes: Array) -> Callable[[np.ndarray], np.ndarray]:
    """det(1 − M(z)) of perturbations of the means and, with static covariances q, along the fixed point."""
    matrix = collective_matrix(averages, m, v, q, slopes)

    def determinant(z: np.ndarray) -> np.ndarray:
        values = matrix(z)
        return np.asarray(np.linalg.det(np.eye(values.shape[1]) - values))

    return determinant


def collective_matrix(
    averages: Averages, m: Array, v: Array, q: Array, slopes: Array
) -> Callable[[np.ndarray], np.ndarray]:
    """M(z) (n_z, k, k) on the means, then the covariances of ordered pairs (none where all q vanish)."""
    problem = averages.problem
    n, trivial = len(m), not np.any(q)
    ordered = [] if trivial else ordered_pairs(averages)
    one, two = one_derivatives(averages, m, v), _two_derivatives(averages, m, v, q, slopes)
    dc = 0.0 if problem.clock == "flow" else 1.0

    def at(z: np.ndarray) -> np.ndarray:
        gains, swapped = averages.gains(z, dc), averages.gains(z, dc)
        matrix = np.zeros((len(z), n + len(ordered), n + len(ordered)), dtype=complex)
        mean_gain = averages.mean_gain()
        for a in range(n):
            filter_ = own_filter(averages, a, z, gains)
            for k, o in enumerate(problem.one_points):
                matrix[:, a, o.a] += filter_ * mean_gain[a, k] * one[k][0]
                if (o.a, o.a) in ordered:
                    matrix[:, a, n + ordered.index((o.a, o.a))] += filter_ * mean_gain[a, k] * one[k][1]
        pairs = list(problem.pairs[: problem.closure])
        for i, (a, b) in enumerate(ordered):
            p, flipped = (pairs.index((a, b)), False) if (a, b) in pairs else (pairs.index((b, a)), True)
            for s, t in enumerate(problem.two_points):
                weight = averages_gain(averages, z, dc, p, s, flipped, gains, swapped)
                source = (t.b, t.a) if flipped else (t.a, t.b)
                by_mean, by_variance, by_cov = two[s][1 if flipped else 0]
                matrix[:, n + i, source[0]] += weight * by_mean
                if (source[0], source[0]) in ordered:
                    matrix[:, n + i, n + ordered.index((source[0], source[0]))] += weight * by_variance
                if source in ordered:
                    matrix[:, n + i, n + ordered.index(source)] += weight * by_cov
        return matrix

    return at


def averages_gain(
    averages: Averages, z: np.ndarray, dc: float, p: int, s: int, flipped: bool, gains: np.ndarray, _: np.ndarray
) -> np.ndarray:
    """Gain of ordered pair with the growing perturbation on its first member."""
    if not flipped:
        return gains[:, p, s]
    rows = averages.code.gain(dc, z, averages.p[0])
    return np.broadcast_to(rows[p][s], z.shape)


def own_filter(averages: Averages, a: int, z: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Response of argument a at z relative to that at zero frequency, read from its own gain, else from its field."""
    problem = averages.problem
    dc = 0.0 if problem.clock == "flow" else 1.0
    pairs, name = list(problem.pairs), f"R_{problem.arguments[a].name}"
    if (a, a) in pairs:
        row = averages.gains(np.array([dc + 0j]), dc)[0][pairs.index((a, a))]
        s = int(np.argmax(np.abs(row))) if len(row) else 0
        if len(row) and row[s] != 0:
            return gains[:, pairs.index((a, a)), s] / row[s]
    if name in problem.responses:
        k = list(problem.responses).index(name)
        return averages.code.responses(z, averages.p[0])[k] / averages.code.responses(dc, averages.p[0])[k] + 0 * z
    return np.ones(len(z), dtype=complex)


def one_derivatives(averages: Averages, m: Array, v: Array) -> list[tuple[float, float]]:
    """(⟨f'⟩, ⟨f''⟩) of one-point sources."""
    one = []
    for o in averages.problem.one_points:
        k, x, y = averages.generated.site(o.f), float(m[o.a]), float(v[o.a])
        h = 1e-4 * max(np.sqrt(y), 1e-4)
        first = averages.site_mean(k, o.a, x, y, derivative=True).value
        ends = [averages.site_mean(k, o.a, x + e, y, derivative=True).value for e in (h, -h)]
        one.append((first, (ends[0] - ends[1]) / (2 * h)))
    return one


def _two_derivatives(averages: Averages, m: Array, v: Array, q: Array, slopes: Array) -> list:
    """(∂m, 2·∂v, ∂c) of two-point sources for a change of either argument; none at a trivial point."""
    if not np.any(q):
        return []
    problem = averages.problem
    covariance = {pair: q[p] for p, pair in enumerate(problem.pairs[: problem.closure])}
    two = []
    for s, t in enumerate(problem.two_points):
        c = v[t.a] if t.a == t.b else covariance.get((t.a, t.b), covariance.get((t.b, t.a), 0.0))
        two.append(tuple(_change(averages, s, m, v, float(c), slopes[s], second) for second in (False, True)))
    return two


def _change(
    averages: Averages, s: int, m: Array, v: Array, c: float, slope: float, second: bool
) -> tuple[float, float, float]:
    """Derivatives of ⟨fg⟩ by mean and (twice) variance of its first or second argument, by forward differences in v."""
    t = averages.problem.two_points[s]
    if t.a == t.b:
        direct = averages.curvature(s, float(m[t.a]), float(v[t.a]), second)
        if direct is not None:
            return direct[0], direct[1], slope
    a, b = float(v[t.a]), float(v[t.b])

    def at(dm: float, dv: float) -> float:
        shifted = (m[t.a], m[t.b] + dm, a, b + dv, c) if second else (m[t.a] + dm, m[t.b], a + dv, b, c)
        return averages.pair_average(s, *(float(x) for x in shifted))

    h = 1e-4 * np.sqrt(b if second else a)
    k = 1e-4 * (b if second else a)
    by_mean = (at(h, 0.0) - at(-h, 0.0)) / (2 * h)
    by_variance = (-3 * at(0.0, 0.0) + 4 * at(0.0, k) - at(0.0, 2 * k)) / (2 * k)
    return by_mean, 2 * by_variance, slope


def rightmost_zero(
    averages: Averages, determinant: Callable[[np.ndarray], np.ndarray], above: float | None = None
) -> Number | None:
    """Largest Re z (flow) or log|z| (map), above a bound, of the zeros of a determinant that tends to 1 far out."""
    edge = averages.edge()
    flow = averages.problem.clock == "flow"
    # Close to the axis as fine as poles are to the line: those of units sit there at the edge.
    near, far = np.geomspace(1e-8, 0.05, 300), np.geomspace(5, 1e5, 400)
    line = np.concatenate([[0.0], near, np.linspace(0.05, 5, 800)[1:], far[1:]])
    half = line if flow else np.linspace(0, np.pi, 1200)

    def count(rate: float) -> int:
        values = determinant(_operators(averages, rate, half)[0]) + 1e-300
        turn = float(np.sum(np.angle(values[1:] / values[:-1])))
        # The half line ω > 0 gives half of the winding number; zeros to the right of the line turn it clockwise.
        return round(-turn / np.pi)

    low = edge + 1e-6 * (1 + abs(edge)) if above is None else above
    high = low + 1.0
    if count(low) < 1:
        return None
    while count(high) >= 1:
        low, high = high, high + 2 * (high - low)
        if high > 1e6:
            return Number(np.inf, 0.0)
    while high - low > 1e-6 * (1 + abs(high)):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) >= 1 else (low, middle)
    return _polished_zero(averages, determinant, (low + high) / 2, 1e-5 * (1 + abs(high)))


def _polished_zero(
    averages: Averages, determinant: Callable[[np.ndarray], np.ndarray], rate: float, width: float
) -> Number:
    """The zero near a rate to full accuracy if it is real, else the rate with the width of the bisection as error."""

    def real(x: float) -> float:
        z = _operators(averages, x, np.zeros(1))[0]
        return float(np.real(determinant(z)[0]))

    if real(rate - width) * real(rate + width) < 0:
        return Number(float(brentq(real, rate - width, rate + width, xtol=1e-14)), 1e-6 * width)
    return Number(rate, width)
