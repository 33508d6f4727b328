"""States that do not change in time: every root of the static equations, with its stability.

The static equations are m_a = constant_a + Σ mean_gain ⟨f⟩ and q_p = Σ gain(0) ⟨f g⟩ + static.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from scipy.optimize import brentq, root

from .averages import Averages
from .means import mean_roots
from .quadrature import trapezoid
from .stability import TINY, leading_rate, variances
from .types import Array, Number

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


def static_map(averages: Averages, m: Array, q: Array) -> tuple[Array, Array]:
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
        q = static_map(averages, np.array([m]), np.zeros(1))[1]
        if abs(q[0]) < 1e-20:
            found.append(_polish(averages, np.array([m]), np.zeros(1)))
    scan = np.geomspace(1e-9, 1e7, 129)
    if np.any(averages.mean_gain()):
        rows = [[(m, _excess(averages, m, v)) for m in mean_roots(averages, float(v))] for v in scan]
    else:
        m = float(averages.mean_constant()[0])
        rows = [[(m, float(e))] for e in _coarse_excess(averages, m, scan)]
    for i, (first, second) in enumerate(pairwise(rows)):
        for m, e in first:
            if not second:
                continue
            near = second[int(np.argmin([abs(r[0] - m) for r in second]))]
            if e * near[1] < 0:
                start = _bracket(averages, scan[i], scan[i + 1], m, near[0])
                found.append(_polish(averages, np.array([start[0]]), np.array([start[1]])))
    return [f for f in found if f is not None]


def _excess(averages: Averages, m: float, v: float) -> float:
    """(static map of the variance)/variance − 1, zero within its rounding error."""
    value = float(static_map(averages, np.array([m]), np.array([v]))[1][0]) / v - 1
    return 0.0 if abs(value) < 1e-14 else value


def _coarse_excess(averages: Averages, m: float, v: Array) -> Array:
    """`_excess` by a fixed rule on an array of variances; zero within the error of the rule."""
    z, weight = trapezoid(401)
    offsets = averages.offsets()[:, 0]
    total = np.full(len(v), float(averages.static()[0]))
    for gain, t in zip(averages.static_gain()[0], averages.problem.two_points, strict=True):
        sites = [averages.generated.site(x) for x in (t.f, t.g)]
        for l, share in averages.nodes(sites, (0,)):
            f, g = (averages.site(k, l) for k in sites)
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
        new_m, new_q = static_map(averages, m, q)
        return np.concatenate([(new_m - m) / unit, (new_q - q) / unit**2])

    for _ in range(5 if n + closure > 2 else 0):
        new_m, new_q = static_map(averages, m, q)
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
    answer = root(lambda x: static_map(averages, x, zero)[0] - x, m, method="hybr", options={"xtol": 1e-14})
    mean, q = static_map(averages, answer.x, zero)
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
        new_m, new_q = static_map(averages, full[:n], full[n:])
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
