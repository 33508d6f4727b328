"""States that do not change in time: every root of the static equations, and their stability in the network.

The static equations are m_a = constant_a + Σ mean_gain ⟨f⟩ and q_p = Σ gain(0) ⟨f g⟩ + static. A perturbation of a
fixed point grows as e^{zt} in two ways: modes at random directions, where the covariance of perturbations reproduces
itself, ρ[Σ_s gain(z, z̄) ⟨f'g'⟩] = 1, and modes that carry the mean or follow the fixed point itself, where the linearised
static equations with gain(z, 0) have the eigenvalue one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import brentq, minimize_scalar, root

from .averages import Averages
from .means import mean_roots
from .quadrature import trapezoid
from .types import Array, Number

#: Variance that stands for the limit V → 0⁺ (kinks included).
TINY = 1e-24
_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class FixedPoint:
    """Means (arguments,), covariances of the closure's pairs and their errors; `growth` is the leading rate."""

    mean: Array
    covariance: Array
    mean_error: Array
    covariance_error: Array
    growth: Number
    residual: float
    iterations: int
    notes: tuple[str, ...]

    @property
    def trivial(self) -> bool:
        """Whether units do not differ from each other."""
        return bool(np.all(self.covariance == 0))


def variances(averages: Averages, covariance: Array) -> Array:
    """Variances of the arguments from the covariances of pairs (arguments,); 0 where no pair says."""
    out = np.zeros(len(averages.problem.arguments))
    for q, (a, b) in zip(covariance, averages.problem.pairs, strict=False):
        if a == b:
            out[a] = q
    return out


def _static_map(averages: Averages, m: Array, q: Array) -> tuple[Array, Array]:
    """Right-hand sides of the static equations."""
    problem = averages.problem
    v = np.maximum(variances(averages, q), TINY)
    ones = [averages.one(k, float(m[o.a]), float(v[o.a])).value for k, o in enumerate(problem.one_points)]
    mean = averages.mean_constant() + averages.mean_gain() @ np.array(ones) if ones else averages.mean_constant()
    covariance = {pair: q[p] for p, pair in enumerate(problem.pairs[: problem.closure])}
    two = []
    for s, t in enumerate(problem.two_points):
        c = v[t.a] if t.a == t.b else covariance.get((t.a, t.b), covariance.get((t.b, t.a), 0.0))
        two.append(averages.pair_average(s, m[t.a], m[t.b], v[t.a], v[t.b], c))
    q_new = averages.static_gain()[: problem.closure] @ np.array(two) + averages.static()[: problem.closure]
    return mean, q_new


def fixed_points(averages: Averages) -> list[FixedPoint]:
    """All fixed points that a scan (one argument) or many starts (several) find; none if there is noise."""
    return [] if averages.noisy() else [_finish(averages, *candidate) for candidate in static_roots(averages)]


def static_roots(averages: Averages) -> list[tuple[Array, Array, float, int]]:
    """Roots of the static equations, noise ignored: means, covariances, residual, iterations."""
    found = _one_argument(averages) if _is_scalar(averages) else _many_arguments(averages)
    unique: list[tuple[Array, Array, float, int]] = []
    for candidate in found:
        scale = 1e-6 + np.max(np.abs(candidate[0])) + np.sqrt(np.max(np.abs(candidate[1])))
        if all(_distance(candidate, other) > 1e-6 * scale for other in unique):
            unique.append(candidate)
    return unique


def _distance(a: tuple, b: tuple) -> float:
    return float(np.max(np.abs(a[0] - b[0])) + np.max(np.abs(np.sqrt(np.abs(a[1])) - np.sqrt(np.abs(b[1])))))


def _is_scalar(averages: Averages) -> bool:
    return len(averages.problem.arguments) == 1 and averages.problem.closure == 1


def _one_argument(averages: Averages) -> list[tuple[Array, Array, float, int]]:
    """Follow every mean along a scan of the variance; sign changes of the static equation, polished."""
    found = []
    for m in mean_roots(averages, TINY):
        q = _static_map(averages, np.array([m]), np.zeros(1))[1]
        if abs(q[0]) < 1e-20:
            found.append(_polish(averages, np.array([m]), np.zeros(1)))
    scan = np.geomspace(1e-9, 1e7, 129)
    if np.any(averages.mean_gain()):
        rows = [[(m, _excess(averages, m, v)) for m in mean_roots(averages, float(v))] for v in scan]
    else:
        m = float(averages.mean_constant()[0])
        rows = [[(m, float(e))] for e in _coarse_excess(averages, m, scan)]
    for i, (first, second) in enumerate(zip(rows[:-1], rows[1:], strict=True)):
        for m, e in first:
            if not second:
                continue
            near = min(second, key=lambda r, m=m: abs(r[0] - m))
            if e * near[1] < 0:
                start = _bracket(averages, scan[i], scan[i + 1], m, near[0])
                found.append(_polish(averages, np.array([start[0]]), np.array([start[1]])))
    return [f for f in found if f is not None]


def _excess(averages: Averages, m: float, v: float) -> float:
    """(static map of the variance)/variance − 1, zero within its rounding error."""
    value = float(_static_map(averages, np.array([m]), np.array([v]))[1][0]) / v - 1
    return 0.0 if abs(value) < 1e-14 else value


def _coarse_excess(averages: Averages, m: float, v: Array) -> Array:
    """`_excess` by a fixed rule on an array of variances; zero within the error of the rule."""
    z, weight = trapezoid(401)
    offsets = averages.offsets()[:, 0]
    total = np.full(len(v), float(averages.static()[0]))
    for gain, t in zip(averages.static_gain()[0], averages.problem.two_points, strict=True):
        for l, share in enumerate(averages.weights):
            f, g = (averages.site(averages.generated.site(x), l) for x in (t.f, t.g))
            u = m + offsets[l] + np.sqrt(v)[:, None] * z
            first = f.value(u)
            total += gain * share * ((first * (first if g is f else g.value(u))) @ weight)
    excess = total / v - 1
    # The sign of what is zero to rounding is left open; a kinked function's rule is good to about 1e-4.
    kinked = any(len(averages.site(k).kinks) > 0 for k in range(len(averages.generated.sites)))
    exact = [
        _excess(averages, m, float(x)) if abs(e) < (1e-2 if kinked else 1e-12) else e
        for x, e in zip(v, excess, strict=True)
    ]
    return np.array(exact)


def _bracket(averages: Averages, low: float, high: float, m1: float, m2: float) -> tuple[float, float]:
    def mean(v: float) -> float:
        guess = m1 + (m2 - m1) * (v - low) / (high - low)
        return min(mean_roots(averages, v), key=lambda m: abs(m - guess))

    v = brentq(lambda v: _excess(averages, mean(v), v), low, high, xtol=1e-300, rtol=1e-10)
    return mean(v), v


def _many_arguments(averages: Averages) -> list[tuple[Array, Array, float, int]]:
    """Newton's method from a lattice of means and a list of common variances."""
    problem = averages.problem
    n, closure = len(problem.arguments), problem.closure
    zero = _polish(averages, averages.mean_constant(), np.zeros(closure))
    found = [] if zero is None else [zero]
    shifts = (0.0, 2.0, -2.0) if np.any(averages.mean_gain()) and n <= 3 else (0.0,)
    diagonal = np.array([float(a == b) for a, b in problem.pairs[:closure]])
    for shift in product(shifts, repeat=n):
        for v in (0.05, 1.0, 20.0):
            answer = _polish(averages, averages.mean_constant() + np.array(shift), v * diagonal)
            if answer is not None:
                found.append(answer)
    return found


def _polish(averages: Averages, m: Array, q: Array) -> tuple[Array, Array, float, int] | None:
    """Newton's method; None without convergence or with a covariance that is not positive."""
    n, closure = len(m), averages.problem.closure
    if not np.any(q):
        return _polish_trivial(averages, m)
    unit = np.sqrt(np.max(q))
    diagonal = [p for p, (a, b) in enumerate(averages.problem.pairs[:closure]) if a == b]

    def residual(x: Array) -> Array:
        m, q = x[:n] * unit, x[n:] * unit**2
        q = q.copy()
        q[diagonal] = np.abs(q[diagonal])
        new_m, new_q = _static_map(averages, m, q)
        return np.concatenate([(new_m - m) / unit, (new_q - q) / unit**2])

    for _ in range(5 if n + closure > 2 else 0):
        new_m, new_q = _static_map(averages, m, q)
        m, q = (m + new_m) / 2, (q + new_q) / 2
    start = np.concatenate([m / unit, q / unit**2])
    answer = root(residual, start, method="hybr", options={"xtol": 1e-14})
    m, q = answer.x[:n] * unit, answer.x[n:] * unit**2
    rest = float(np.max(np.abs(residual(answer.x))))
    if rest > 1e-9 * max(1.0, float(np.max(np.abs(answer.x)))):
        return None
    if np.max(np.abs(q)) < 1e-9 * unit**2 or np.min(q[diagonal]) <= 0:
        return _polish_trivial(averages, m)
    return m, q, rest, int(answer.nfev)


def _polish_trivial(averages: Averages, m: Array) -> tuple[Array, Array, float, int] | None:
    zero = np.zeros(averages.problem.closure)
    answer = root(lambda x: _static_map(averages, x, zero)[0] - x, m, method="hybr", options={"xtol": 1e-14})
    mean, q = _static_map(averages, answer.x, zero)
    rest = float(np.max(np.abs(mean - answer.x)))
    if rest > 1e-9 * (1 + np.max(np.abs(mean))) or np.max(np.abs(q)) > 1e-18:
        return None
    return np.where(np.abs(answer.x) < 1e-300, 0.0, answer.x), zero, rest, int(answer.nfev)


def _finish(averages: Averages, m: Array, q: Array, rest: float, iterations: int) -> FixedPoint:
    """Errors from the inverse Jacobian; growth from both kinds of modes."""
    n = len(m)
    unit = max(float(np.sqrt(np.max(np.abs(q)))), 1e-8)
    scale = np.concatenate([np.full(n, unit), np.full(len(q), unit**2)])

    def residual(x: Array) -> Array:
        full = x * scale
        new_m, new_q = _static_map(averages, full[:n], full[n:])
        return np.concatenate([new_m, new_q]) / scale - x

    x = np.concatenate([m, q]) / scale
    if np.any(q):
        step = 1e-6
        jacobian = np.array([(residual(x + h) - residual(x - h)) / (2 * step) for h in step * np.eye(len(x))]).T
        size = float(np.max(np.abs(x))) + 1
        error = np.abs(np.linalg.pinv(jacobian)) @ np.full(len(x), rest + 8 * _EPS * size) * scale
    else:
        error = np.concatenate([np.full(n, rest), np.zeros(len(q))])
    growth, notes = leading_rate(averages, m, q)
    return FixedPoint(m, q, error[:n], error[n:], growth, rest, iterations, notes)


# -- stability ------------------------------------------------------------------------------------------------------


def ordered_pairs(averages: Averages) -> list[tuple[int, int]]:
    """The closure's pairs and their transposes."""
    pairs = list(averages.problem.pairs[: averages.problem.closure])
    return pairs + [(b, a) for a, b in pairs if a != b]


def reproduction(averages: Averages, slopes: Array, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Matrices (n, ordered pairs, ordered pairs): covariance of perturbations from itself, given ⟨f'g'⟩ (two_points,)."""
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
    problem = averages.problem
    v = np.maximum(variances(averages, q), TINY)
    covariance = {pair: q[p] for p, pair in enumerate(problem.pairs[: problem.closure])}
    slopes = np.array([_slope(averages, s, m, v, covariance) for s in range(len(problem.two_points))])
    rate = random_rate(averages, slopes)
    if not np.isfinite(rate.value):
        return rate, ()
    collective = collective_rate(averages, m, v, q, slopes)
    if collective is None:
        return rate, ()
    notes = ("the filter of the mean is taken from the gain, of which the mean equation gives the zero frequency only",)
    return (collective if collective.value > rate.value else rate), notes if np.any(averages.mean_gain()) else ()


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
    problem = averages.problem
    n, trivial = len(m), not np.any(q)
    if trivial and not np.any(averages.mean_gain()):
        return None
    ordered = [] if trivial else ordered_pairs(averages)
    one, two = _derivatives(averages, m, v, q, slopes)
    dc = 0.0 if problem.clock == "flow" else 1.0
    base = averages.gains(np.array([dc + 0j]), dc)[0]

    def determinant(z: np.ndarray) -> np.ndarray:
        gains, swapped = averages.gains(z, dc), averages.gains(z, dc)
        matrix = np.zeros((len(z), n + len(ordered), n + len(ordered)), dtype=complex)
        mean_gain = averages.mean_gain()
        for a in range(n):
            filter_ = _own_filter(averages, a, gains, base)
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
        return np.linalg.det(np.eye(n + len(ordered)) - matrix)

    return _rightmost_zero(averages, determinant)


def averages_gain(
    averages: Averages, z: np.ndarray, dc: float, p: int, s: int, flipped: bool, gains: np.ndarray, _: np.ndarray
) -> np.ndarray:
    """Gain of ordered pair with the growing perturbation on its first member."""
    if not flipped:
        return gains[:, p, s]
    rows = averages.code.gain(dc, z, averages.p[0])
    return np.broadcast_to(rows[p][s], z.shape)


def _own_filter(averages: Averages, a: int, gains: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Frequency dependence of the response of argument a, relative to zero frequency, read from its own gain."""
    pairs = list(averages.problem.pairs)
    if (a, a) in pairs:
        row = base[pairs.index((a, a))]
        s = int(np.argmax(np.abs(row)))
        if row[s] != 0:
            return gains[:, pairs.index((a, a)), s] / row[s]
    return np.ones(len(gains), dtype=complex)


def _derivatives(averages: Averages, m: Array, v: Array, q: Array, slopes: Array) -> tuple[list, list]:
    """(⟨f'⟩, ⟨f''⟩) of one-point sources; (∂m, 2·∂v, ∂c) of two-point sources for a change of either argument."""
    problem = averages.problem
    one = []
    for o in problem.one_points:
        k, x, y = averages.generated.site(o.f), float(m[o.a]), float(v[o.a])
        h = 1e-4 * max(np.sqrt(y), 1e-4)
        first = averages.site_mean(k, o.a, x, y, derivative=True).value
        ends = [averages.site_mean(k, o.a, x + e, y, derivative=True).value for e in (h, -h)]
        one.append((first, (ends[0] - ends[1]) / (2 * h)))
    if not np.any(q):
        return one, []
    covariance = {pair: q[p] for p, pair in enumerate(problem.pairs[: problem.closure])}
    two = []
    for s, t in enumerate(problem.two_points):
        c = v[t.a] if t.a == t.b else covariance.get((t.a, t.b), covariance.get((t.b, t.a), 0.0))
        two.append(tuple(_change(averages, s, m, v, float(c), slopes[s], second) for second in (False, True)))
    return one, two


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


def _rightmost_zero(averages: Averages, determinant: object) -> Number | None:
    """Largest Re z (flow) or log|z| (map) of the zeros of a determinant that tends to 1 at infinity."""
    edge = averages.edge()
    flow = averages.problem.clock == "flow"
    half = (
        np.concatenate([np.linspace(0, 5, 800), np.geomspace(5, 1e5, 400)[1:]]) if flow else np.linspace(0, np.pi, 1200)
    )

    def count(rate: float) -> int:
        values = determinant(_operators(averages, rate, half)[0]) + 1e-300  # type: ignore[operator]
        turn = float(np.sum(np.angle(values[1:] / values[:-1])))
        # The half line ω > 0 gives half of the winding number; zeros to the right of the line turn it clockwise.
        return round(-turn / np.pi)

    low, high = edge + 1e-6 * (1 + abs(edge)), edge + 1.0
    if count(low) < 1:
        return None
    while count(high) >= 1:
        low, high = high, edge + 2 * (high - edge)
        if high > 1e6:
            return Number(np.inf, 0.0)
    while high - low > 1e-6 * (1 + abs(high)):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) >= 1 else (low, middle)
    return _polished_zero(averages, determinant, (low + high) / 2, 1e-5 * (1 + abs(high)))


def _polished_zero(averages: Averages, determinant: object, rate: float, width: float) -> Number:
    """The zero near a rate to full accuracy if it is real, else the rate with the width of the bisection as error."""

    def real(x: float) -> float:
        z = _operators(averages, x, np.zeros(1))[0]
        return float(np.real(determinant(z)[0]))  # type: ignore[operator]

    if real(rate - width) * real(rate + width) < 0:
        return Number(float(brentq(real, rate - width, rate + width, xtol=1e-14)), 1e-6 * width)
    return Number(rate, width)
