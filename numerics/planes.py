"""Averages over one and two normal numbers: Hermite series, nested trapezoids, panels that follow the kinks."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from quenched.theory.errors import ConvergenceError, QuenchedError

from .quadrature import (
    ORDER,
    REACH,
    Panels,
    density,
    graded_edges,
    legendre,
    panels,
    panels_from_edges,
    smooth_panels,
    trapezoid,
)
from .sites import Function, Site
from .steps import steps_plane
from .types import Array, Number

_EPS = float(np.finfo(float).eps)
_WIDTHS = tuple(2.0**-k for k in range(8))
#: Variance beyond which Hermite series are too long.
_WIDEST = 90
_POINTS = (101, 201, 401, 801, 1601, 3201)


def line_average(f: Callable[[Array, Array], Array], m: float, v: float, kinks: Array, tol: float = 1e-14) -> Number:
    """⟨f(u, z)⟩ for u = m + √v z, with the difference of two refinements as its error."""
    s = np.sqrt(v)
    where = (kinks - m) / s if s > 0 else np.empty(0)

    def rule(width: float) -> Panels:
        return panels(where, width) if len(where) else smooth_panels(width)

    return _refined(lambda r: f(m + s * r.z, r.z), np.ones(1), rule, f"mean {m:.6g}", v, tol)


def smooth_line_averages(
    f: Callable[[Array, Array], Array], m: Array, v: float, weights: Array, tol: float = 1e-14
) -> Number:
    """Σ_l w_l ⟨f(u_l, z)⟩ for u_l = m_l + √v z and a smooth f of arrays (nodes, …)."""
    u = np.reshape(m, (-1, 1, 1))
    s = np.sqrt(v)
    return _refined(
        lambda r: f(u + s * r.z, r.z), weights, smooth_panels, f"means about {float(np.mean(m)):.6g}", v, tol
    )


def _refined(
    values_on: Callable[[Panels], Array],
    weights: Array,
    rule: Callable[[float], Panels],
    where: str,
    v: float,
    tol: float,
) -> Number:
    previous, value, size = None, 0.0, 0.0
    for width in _WIDTHS:
        here = rule(width)
        values = np.reshape(values_on(here), (len(weights), -1)) * here.w.ravel()
        value, size = float(weights @ values.sum(axis=1)), float(np.abs(weights) @ np.abs(values).sum(axis=1))
        if previous is not None and abs(value - previous) <= tol * max(size, 1e-300):
            break
        previous, _last = value, previous
    error = abs(value - (previous if previous is not None else value)) + 2 * _EPS * size
    if not np.isfinite(value):
        raise QuenchedError(f"a Gaussian average does not exist at {where} and variance {v:.6g}")
    return Number(value, error)


def kinked_covariance(f: Site, g: Site, m: float, v: float, width: float, kinks: Array) -> float:
    s = np.sqrt(v)
    return float(_weighted_covariance(f, g, np.array(m), np.array(s), panels((kinks - m) / s, width)))


def smooth_covariances(f: Site, g: Site, m: float, v: Array, rule: Panels) -> Array:
    s = np.sqrt(v)[..., None, None]
    return _weighted_covariance(f, g, np.array(m), s, rule)


def _weighted_covariance(f: Site, g: Site, m: Array, s: Array, rule: Panels) -> Array:
    u = m + s * rule.z
    scale = s[..., 0, 0] if np.ndim(s) else s
    first = rule.cumulative(f.value(u))
    second = first if g is f else rule.cumulative(g.value(u))
    first = first - rule.mean(first)[..., None, None]
    second = second - rule.mean(second)[..., None, None]
    return rule.mean(first * second) * scale**2


def plane_average(
    f: Site,
    g: Site,
    m1: float,
    s1: float,
    m2: float,
    s2: float,
    theta: Array,
    tol: float = 1e-14,
    want: bool = True,
) -> tuple[Array, Array | None, float]:
    """⟨f g⟩ and (unless unwanted) ⟨f' g'⟩, None for distributions, at angles θ; estimated error of the former."""
    if f.steps is not None and g.steps is not None:
        return steps_plane(f.steps, g.steps, m1, s1, m2, s2, theta)
    smooth = not len(f.kinks) and not len(g.kinks)
    slopes = f.slope is not None and g.slope is not None
    if smooth and slopes:
        series = mehler(f, g, m1, s1, m2, s2, theta, tol, want=want)
        if series is not None:
            return series
    average = _smooth_plane if smooth else _kinked_plane
    slots = (f.kinks, g.kinks, m1, s1, m2, s2)
    with np.errstate(all="ignore"):
        level, error, size = _level(
            lambda where, level: average(f.raw, g.raw, *slots, where, level), theta, smooth, tol
        )
        values = average(f.raw, g.raw, *slots, theta, level)
    check_finite(values, f"<{f.name} {g.name}>")
    derivative = None
    if slopes and want:
        assert f.slope is not None
        assert g.slope is not None
        derivative = average(f.slope, g.slope, *slots, theta, level)
    return values, derivative, error + 2 * _EPS * size


def _level(average: Callable[[Array, int], Array], theta: Array, smooth: bool, tol: float) -> tuple[int, float, float]:
    """Refinement that reaches a relative accuracy at three of the angles; its estimated error and the size of values.

    A level more gains at least two digits: the error of the finer of two levels is a hundredth of their difference.
    """
    probe = theta[[0, len(theta) // 3, -1]]
    level, last = (0, 4) if smooth else (-2, 1)
    reference = average(probe, level)
    while True:
        refined = average(probe, level + 1)
        gap, size = float(np.max(np.abs(refined - reference))), float(np.max(np.abs(refined))) + 1e-300
        if gap < 3 * tol * size:
            return level, gap, size
        if gap < 100 * tol * size or level + 1 >= last:
            return level + 1, gap / 100 if gap < 100 * tol * size else gap, size
        level, reference = level + 1, refined


@lru_cache(maxsize=8)
def hermite_rule(orders: int) -> tuple[Array, Array]:
    """Nodes z and matrix (orders, nodes) from f(z) to its coefficients in normalised Hermite polynomials."""
    reach = 13.5
    z = np.linspace(-reach, reach, 401 if orders <= 256 else 801 if orders <= 512 else 1201 if orders <= 2048 else 1601)
    root = np.exp(-0.25 * z * z)
    basis = np.empty((orders, len(z)))
    basis[0], basis[1] = root, z * root
    for n in range(1, orders - 1):
        basis[n + 1] = (z * basis[n] - np.sqrt(n) * basis[n - 1]) / np.sqrt(n + 1)
    return z, basis * (root * (z[1] - z[0]) / np.sqrt(2 * np.pi))


def mehler(
    f: Site,
    g: Site,
    m1: float | Array,
    s1: float,
    m2: float | Array,
    s2: float,
    theta: Array,
    tol: float,
    weights: Array | None = None,
    want: bool = True,
) -> tuple[Array, Array | None, float] | None:
    """⟨fg⟩ = Σ a_n b_n ρⁿ and (unless unwanted) the same for the slopes, if their squares exhaust ⟨f²⟩ and ⟨f'²⟩.

    With `weights` (nodes,) the means are arrays (nodes,), the functions take arrays (nodes, points), and the weighted
    sum over nodes is returned.
    """
    assert f.slope is not None
    assert g.slope is not None
    if s1 * s2 > _WIDEST:
        return None
    share = np.ones(1) if weights is None else weights
    first_mean, second_mean = (np.reshape(m, (-1, 1)) for m in (m1, m2))
    same = f is g and s1 == s2 and np.array_equal(first_mean, second_mean)
    for orders in (64, 128, 256, 512, 1024, 2048, 4096):
        z, matrix = hermite_rule(orders)
        with np.errstate(all="ignore"):
            u, v = first_mean + s1 * z, second_mean + s2 * z
            first = f.raw(u), f.slope(u)
            second = first if same else (g.raw(v), g.slope(v))
        if not all(np.all(np.isfinite(x)) for x in (*first, *second)):
            return None
        pairs, ripe, error = [], True, 0.0
        for a, b in list(zip(first, second, strict=True))[: 2 if want else 1]:
            ca, size_a, lost_a, last_a = _coefficients(np.broadcast_to(a, u.shape), matrix)
            cb, size_b, lost_b, last_b = (
                (ca, size_a, lost_a, last_a) if same else _coefficients(np.broadcast_to(b, v.shape), matrix)
            )
            size, lost, last = (
                float(share @ np.sqrt(x * y)) for x, y in ((size_a, size_b), (lost_a, lost_b), (last_a, last_b))
            )
            # Rounding of the recurrence alone leaves a few 1e-14.
            ripe = ripe and lost < max(2 * tol, 1e-13) * size and last < tol * size
            pairs.append(share @ (ca * cb))
            error = error or lost
        if ripe:
            powers = np.sin(theta)[:, None] ** np.arange(orders)
            return powers @ pairs[0], powers @ pairs[1] if want else None, error
    return None


def _coefficients(values: Array, matrix: Array) -> tuple[Array, Array, Array, Array]:
    """Hermite coefficients (nodes, orders) of values (nodes, points); ⟨f²⟩, what they miss of it and the last hold."""
    found = values @ matrix.T
    size = (values * values) @ matrix[0]
    return found, size, np.abs(size - np.sum(found * found, axis=1)), np.sum(found[:, -8:] ** 2, axis=1)


def _smooth_plane(
    f: Function, g: Function, _f: Array, _g: Array, m1: float, s1: float, m2: float, s2: float, theta: Array, level: int
) -> Array:
    z, w = trapezoid(_POINTS[level])
    first = f(m1 + s1 * z) * w
    grid = np.empty((len(z), len(z)))
    out = np.empty(len(theta))
    for i, t in enumerate(theta):
        np.add.outer(m2 + (s2 * np.sin(t)) * z, (s2 * np.cos(t)) * z, out=grid)
        out[i] = first @ (g(grid) @ w)
    return out


def _kinked_plane(
    f: Function, g: Function, kf: Array, kg: Array, m1: float, s1: float, m2: float, s2: float, theta: Array, level: int
) -> Array:
    width = 1.0 * 0.5**level
    # For θ → ±π/2 the inner average has a layer of width cos θ where v crosses a kink.
    places = (kg - m2) / s2
    where = np.concatenate([(kf - m1) / s1, places, -places])
    outer = panels_from_edges(graded_edges(where, 2 * width))
    z, w = outer.z.ravel(), outer.w.ravel()
    first = f(m1 + s1 * z) * w
    count = int(np.ceil(REACH / width))
    x, weights = legendre(ORDER)
    unit = ((np.arange(count)[:, None] + 0.5 + 0.5 * x) / count).ravel()
    share = np.tile(weights / (2 * count), count)
    out = np.empty(len(theta))
    for i, t in enumerate(theta):
        sin, cos = np.sin(t), max(np.cos(t), 1e-300)
        cuts = np.sort(np.clip((kg - m2 - s2 * sin * z[:, None]) / (s2 * cos), -REACH, REACH), axis=1)
        edges = np.concatenate([np.full((len(z), 1), -REACH), cuts, np.full((len(z), 1), REACH)], axis=1)
        inner = np.zeros(len(z))
        for a, b in zip(edges[:, :-1].T, edges[:, 1:].T, strict=True):
            y = a[:, None] + (b - a)[:, None] * unit
            inner += ((g(m2 + s2 * (sin * z[:, None] + cos * y)) * density(y)) @ share) * (b - a)
        out[i] = first @ inner
    return out


def check_finite(values: Array, what: str) -> None:
    """Raise a ConvergenceError naming `what` if an array holds anything that is not finite."""
    if not np.all(np.isfinite(values)):
        raise ConvergenceError(f"{what} is not finite")
