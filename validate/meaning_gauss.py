"""Gaussian averages by composite Gauss–Legendre quadrature, split at the kinks and jumps of the functions.

Slow and simple on purpose: it shares nothing with the solvers' quadrature, and it checks closed forms, potentials and
derivatives of averages to about ten digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import brentq
from sympy import (
    Abs,
    Add,
    Basic,
    DiracDelta,
    Dummy,
    Expr,
    Heaviside,
    Integral,
    Max,
    Min,
    Mod,
    Mul,
    Piecewise,
    S,
    ceiling,
    floor,
    sign,
)
from sympy.core.relational import Relational

from quenched.theory.errors import NotCovered
from quenched.theory.problem import SiteFunction, TwoPoint, U
from quenched.validate.meaning import Array, Values, evaluate, number

#: Half-width of the Gaussian that is integrated over, in standard deviations.
REACH = 9.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


@dataclass(frozen=True)
class Numeric:
    """A site function as numbers: its regular part, its kinks, and its point masses (place, weight)."""

    regular: Callable[[Array], Array]
    kinks: tuple[float, ...] = ()
    masses: tuple[tuple[float, float], ...] = ()


def numeric(f: SiteFunction, values: Values) -> Numeric:
    """A site function at given parameters.

    Raises
    ------
    NotCovered
        For derivatives of delta functions, which only averages of smoother functions could show, and for functions
        with endless jumps or unbounded at a kink, where this quadrature loses its digits.
    """
    if f.expr.has(floor, ceiling, Mod):
        raise NotCovered(f"no quadrature for {f.name}, which jumps at every whole number: not compared")
    smooth, masses = _split_deltas(f.expr, values) if f.expr.has(DiracDelta) else (f.expr, ())
    out = Numeric(_callable(smooth, values), _kinks(smooth, values), masses)
    for kink in out.kinks:
        beside = out.regular(kink + np.array([-1e-9, 1e-9, -1e-3, 1e-3]))
        if not np.isfinite(beside).all() or np.abs(beside[:2]).max() > 100 * (1 + np.abs(beside[2:]).max()):
            raise NotCovered(f"no quadrature for {f.name}, which is unbounded at {kink:.3g}: not compared")
    return out


def _callable(expr: Expr, values: Values) -> Callable[[Array], Array]:
    integrals = sorted(expr.atoms(Integral), key=str)
    marks = [Dummy(f"I{k}") for k in range(len(integrals))]
    flat = expr.xreplace(dict(zip(integrals, marks, strict=True)))

    inner = {m: _antiderivative(i, values) for m, i in zip(marks, integrals, strict=True)}

    def run(u: Array) -> Array:
        parts = {m: integrate(u) for m, integrate in inner.items()}
        return np.broadcast_to(np.asarray(evaluate(flat, {**values, **parts, U: u}), dtype=float), np.shape(u))

    return run


def _antiderivative(integral: Integral, values: Values) -> Callable[[Array], Array]:
    """∫_0^u of an unevaluated integral: sums over short panels between kinks, and the rest of the last panel."""
    dummy, low, _ = integral.limits[0]
    assert low == 0
    expr = integral.function.xreplace({dummy: U})
    edges = np.unique([*np.linspace(-45, 45, 901), 0.0, *_kinks(expr, values)])
    nodes, weights = np.polynomial.legendre.leggauss(10)

    def between(start: Array, end: Array) -> Array:
        points = start[..., None] + (end - start)[..., None] * (1 + nodes) / 2
        heights = np.broadcast_to(np.asarray(evaluate(expr, {**values, U: points}), dtype=float), points.shape)
        total: Array = heights @ weights * (end - start) / 2
        return total

    sums = np.concatenate([[0.0], np.cumsum(between(edges[:-1], edges[1:]))])
    sums -= sums[np.searchsorted(edges, 0.0)]

    def run(u: Array) -> Array:
        place = np.clip(np.searchsorted(edges, u) - 1, 0, len(edges) - 2)
        return np.asarray(sums[place] + between(edges[place], np.asarray(u, dtype=float)))

    return run


def _kinks(expr: Expr, values: Values) -> tuple[float, ...]:
    """Where a function is not smooth: sign changes of what its kinked parts compare."""
    inside = [i.function.xreplace({i.limits[0][0]: U}) for i in expr.atoms(Integral)]
    found = [k for integrand in inside for k in _kinks(integrand, values)]
    borders: list[Expr] = [node.args[0] for node in expr.atoms(Heaviside, sign, Abs)]
    borders += [node.args[0] - other for node in expr.atoms(Max, Min) for other in node.args[1:]]
    borders += [r.lhs - r.rhs for node in expr.atoms(Piecewise) for r in node.atoms(Relational)]
    for border in sorted(set(borders), key=str):
        if border.has(U):
            found += _roots(partial(_at, border, values))
    return tuple(sorted(found))


def _at(expr: Expr, values: Values, u: Any) -> Any:
    return evaluate(expr, {**values, U: u})


def _roots(f: Callable[[Any], Any]) -> list[float]:
    grid = np.linspace(-40, 40, 4001) + 1e-7
    heights = np.broadcast_to(f(grid), grid.shape)
    change = np.flatnonzero(np.sign(heights[1:]) != np.sign(heights[:-1]))
    return [float(brentq(lambda u: float(f(u)), grid[k], grid[k + 1], xtol=1e-14)) for k in change]


def _split_deltas(expr: Expr, values: Values) -> tuple[Expr, tuple[tuple[float, float], ...]]:
    smooth: list[Expr] = []
    masses: list[tuple[float, float]] = []
    for term in Add.make_args(expr.expand()):
        deltas = [factor for factor in Mul.make_args(term) if isinstance(factor, DiracDelta)]
        if not deltas:
            smooth.append(term)
            continue
        if len(deltas) != 1 or len(deltas[0].args) != 1 or (term / deltas[0]).has(DiracDelta):
            raise NotCovered(f"no numeric meaning of {term}: a derivative or a product of delta functions")
        slope = number(deltas[0].args[0].diff(U), values).real
        for place in _roots(partial(_at, deltas[0].args[0], values)):
            weight = float(evaluate(term / deltas[0], {**values, U: place})) / abs(slope)
            masses.append((place, weight))
    return Add(*smooth) if smooth else S.Zero, tuple(masses)


# ------------------------------------------------------------------------------------------------------------ averages
def average_one(f: Numeric, mean: float, variance: float) -> float:
    """⟨f(u)⟩ for u ~ N(mean, variance)."""
    nodes, weights = _gauss_grid(f.kinks, mean, variance)
    total = float(weights @ f.regular(nodes))
    return total + sum(w * _density(place, mean, variance) for place, w in f.masses)


def average_two(f: Numeric, g: Numeric, means: tuple[float, float], cov: tuple[float, float, float]) -> float:
    """⟨f(u) g(v)⟩ for means (m1, m2) and covariance (v1, v2, c): v is averaged first, given u."""
    m1, m2 = means
    v1, v2, c = cov
    spread = np.sqrt(max(v2 - c**2 / v1, 1e-14))

    def inner(u: Array) -> Array:
        return _conditional(g, m2 + c / v1 * (u - m1), spread)

    crossings = [m1 + (k - m2) * v1 / c for k in (*g.kinks, *(p for p, _ in g.masses))] if abs(c) > 1e-9 else []
    width = spread * v1 / max(abs(c), 1e-9)
    breaks = [x + s * width for x in crossings for s in (-8, -4, -2, -1, 0, 1, 2, 4, 8)]
    nodes, weights = _gauss_grid((*f.kinks, *breaks), m1, v1)
    total = float(weights @ (f.regular(nodes) * inner(nodes)))
    for place, w in f.masses:
        total += w * _density(place, m1, v1) * float(inner(np.array([place]))[0])
    return total


def _conditional(g: Numeric, centre: Array, spread: float) -> Array:
    """⟨g(v)⟩ for v ~ N(centre, spread²), one average for each centre."""
    cuts = np.array([(k - centre) / spread for k in g.kinks]).reshape(len(g.kinks), len(centre)).T
    edges = np.sort(
        np.clip(np.hstack([np.full((len(centre), 1), -REACH), cuts, np.full((len(centre), 1), REACH)]), -REACH, REACH)
    )
    fine = np.linspace(0, 1, 9)
    total = np.zeros(len(centre))
    for k in range(edges.shape[1] - 1):
        left, width = edges[:, k, None], (edges[:, k + 1] - edges[:, k])[:, None]
        for a, b in pairwise(fine):
            z = left + width * (a + (b - a) * (1 + _NODES) / 2)
            heights = g.regular(centre[:, None] + spread * z) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
            total += (heights * _WEIGHTS * width * (b - a) / 2).sum(axis=1)
    for place, w in g.masses:
        total += w * np.exp(-(((place - centre) / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi))
    return total


def _gauss_grid(breaks: tuple[float, ...], mean: float, variance: float) -> tuple[Array, Array]:
    """Nodes and weights of a Gaussian average, composite between the breaks."""
    sd = np.sqrt(variance)
    inside = [b for b in breaks if abs(b - mean) < REACH * sd]
    edges = np.unique(np.concatenate([mean + sd * np.linspace(-REACH, REACH, 13), inside]))
    half = np.diff(edges)[:, None] / 2
    nodes = (edges[:-1, None] + half * (1 + _NODES)).ravel()
    weights = (half * _WEIGHTS).ravel() * np.exp(-((nodes - mean) ** 2) / (2 * variance)) / (sd * np.sqrt(2 * np.pi))
    return nodes, weights


def _density(place: float, mean: float, variance: float) -> float:
    return float(np.exp(-((place - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))


def two_point_value(
    point: TwoPoint, means: tuple[float, float], cov: tuple[float, float, float], values: Values
) -> float:
    """⟨f(u) g(v)⟩ of a two-point average, by quadrature."""
    read = sorted((point.f.expr.free_symbols | point.g.expr.free_symbols) - {U}, key=str)
    return _quadrature(point.f, point.g, means, cov, tuple((s, float(values[s])) for s in read))


@lru_cache(maxsize=4096)
def _quadrature(
    f: SiteFunction,
    g: SiteFunction,
    means: tuple[float, float],
    cov: tuple[float, float, float],
    values: tuple[tuple[Basic, float], ...],
) -> float:
    """The average, remembered: a form and its mutants ask for the same ones."""
    return average_two(numeric(f, dict(values)), numeric(g, dict(values)), means, cov)
