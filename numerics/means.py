"""Means at given variances: all roots of the mean equation of a one-argument problem, and one root of any."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq, root

from .averages import Averages
from .quadrature import trapezoid
from .types import Array


def coarse_mean(averages: Averages, m: Array, v: float) -> Array:
    """Right-hand side of the mean equation of argument 0 on a grid of means, by a coarse rule."""
    z, weight = trapezoid(129, 8.0)
    offsets = averages.offsets()
    out = np.full(len(m), float(averages.mean_constant()[0]))
    for k, w in enumerate(averages.mean_gain()[0]):
        if w == 0:
            continue
        site = averages.generated.site(averages.problem.one_points[k].f)
        nodes = averages.nodes((site,), (0,))
        many = averages.stacked((site,), nodes)
        if many is not None:
            at, shares = [l for l, _ in nodes], np.array([w for _, w in nodes])
            where = offsets[at, 0][:, None, None] + m[:, None] + np.sqrt(v) * z
            out += w * shares @ (many[0].value(where) @ weight)
            continue
        for l, share in nodes:
            u = (m + offsets[l, 0])[:, None] + np.sqrt(v) * z
            out += w * share * (averages.site(site, l).value(u) @ weight)
    return out


def mean_roots(averages: Averages, v: float) -> list[float]:
    """All means at a given variance, ascending."""
    constant = float(averages.mean_constant()[0])
    if not np.any(averages.mean_gain()[0]):
        return [constant]
    tail = np.geomspace(1e-6, 300, 90)
    grid = np.concatenate([-tail[::-1], tail]) + constant
    residual = grid - coarse_mean(averages, grid, v)
    roots = [float(x) for x in grid[residual == 0]]
    for i in np.flatnonzero(residual[:-1] * residual[1:] < 0):
        a, b = grid[i], grid[i + 1]
        roots.append(float(brentq(lambda x: float((x - coarse_mean(averages, np.array([x]), v))[0]), a, b, xtol=1e-10)))
    return sorted(roots)


def followed_mean(averages: Averages, v: Array, start: Array) -> Array:
    """Means of all arguments at their variances, near `start`; `start` itself where none is found."""
    gain, constant, unit = averages.mean_gain(), averages.mean_constant(), float(np.sqrt(np.max(v)))
    if not np.any(gain) or unit == 0:
        return constant

    def residual(x: Array) -> Array:
        one = [averages.one(k, unit * x[s.a], v[s.a]).value for k, s in enumerate(averages.problem.one_points)]
        return np.asarray(x - (constant + gain @ np.array(one)) / unit)

    answer = root(residual, start / unit)
    return np.asarray(unit * answer.x) if answer.success else start
