"""Annealed complexity: an extremum over one order parameter of the logarithm of an integral over a unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from quenched.numerics.types import Number
from quenched.theory.errors import NotCovered

Array = NDArray[np.float64]
UnitFunction = Callable[[Array, float], Array]
#: Beyond so many standard deviations of the field nothing is counted; points per interval; nearest to an end.
_REACH, _POINTS, _NEAREST = 9.0, 60, 1e-10
#: Intervals end where the field is as many standard deviations.
_DEVIATIONS = -_REACH, -3.0, 0.0, 3.0, _REACH
#: No state is looked for beyond this.
_FURTHEST = 1e5
#: Where the order parameter is searched: −ln of what it lacks of its largest value, relative.
_LEVELS = 0.02, 16.0
#: Below this the multiplier of the edge is taken for zero: it changes Σ by less.
_NO_MULTIPLIER = 1e-16


@dataclass(frozen=True)
class Site:
    """The functions of a unit, each of its states and the order parameter C."""

    drift: UnitFunction
    variance: Callable[[float], float]
    average: UnitFunction
    weight: UnitFunction
    edge: UnitFunction


@dataclass(frozen=True)
class Count:
    """Complexity (1/N) ln of the mean number, with the order parameter at which most fixed points are."""

    complexity: Number
    order: float

    @property
    def exist(self) -> bool | None:
        """Whether stable fixed points exist (their mean number grows with N) or not; None where neither is sure."""
        value, error = self.complexity.value, self.complexity.error
        return None if abs(value) <= error else value > 0

    def __str__(self) -> str:
        told = {True: "exponentially many stable fixed points", False: "no stable fixed point", None: "not resolved"}
        where = f", most at C = {self.order:.6g}" if self.exist else ""
        return f"Σ = {self.complexity.value:.6g} ± {self.complexity.error:.1g}: {told[self.exist]}{where}"


def count(site: Site) -> Count:
    """Maximise over the order parameter below its largest value; −inf where no state is stable.

    Raises
    ------
    NotCovered
        The order parameter has no largest value: outputs are not bounded. Couplings bring no random field.
    """
    from scipy.optimize import minimize_scalar

    if not site.variance(1.0) > 0:
        raise NotCovered("fixed points are counted by the density of random fields, whose variance is zero here")
    top = largest_order(site)

    def order(level: float) -> float:
        return -top * float(np.expm1(-level))

    grid = np.concatenate([np.linspace(_LEVELS[0], 3, 24), np.linspace(3, _LEVELS[1], 27)[1:]])
    values = _raised(lambda u, free: exponent(site, order(u), free=free), grid)
    k = int(np.argmax(values))
    if not np.isfinite(values[k]):
        return Count(Number(-np.inf, 0.0), float("nan"))
    ends = grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)]
    best = minimize_scalar(lambda u: -exponent(site, order(u)), bounds=ends, method="bounded", options={"xatol": 1e-9})
    found = order(float(best.x))
    error = abs(exponent(site, found, _POINTS // 2) + float(best.fun))
    if k == len(grid) - 1:  # most points lie beyond the last order parameter that is told from the largest
        error += abs(values[k] - exponent(site, order(grid[k - 1])))
    return Count(Number(-float(best.fun), error), found)


def _raised(at: Callable[[float, bool], float], grid: Array) -> Array:
    """Values where they may be the largest, −∞ elsewhere: without the multiplier of the edge they are no smaller."""
    above = np.array([at(u, True) for u in grid])
    values = np.full(len(grid), -np.inf)
    for k in np.argsort(-above):
        if above[k] <= values.max():
            break
        values[k] = at(grid[k], False)
    return values


def largest_order(site: Site) -> float:
    """The supremum of what the order parameter is the mean of."""
    x = np.logspace(-3, 6, 361)
    values = np.maximum(site.average(x, 1.0), site.average(-x, 1.0))
    if not np.isfinite(values).all() or values[-1] > 1.01 * values[x <= 1e3].max():
        raise NotCovered("stable fixed points are counted for bounded outputs; those of these units grow without bound")
    return float(values.max())


def exponent(site: Site, order: float, points: int = _POINTS, free: bool = False) -> float:
    """min over a and b ≥ 0 of ln ∫dx w N(drift) exp(−a (average − C) − b (edge − 1)), over states with w > 0.

    `free` leaves out b, which gives an upper bound.
    """
    x, measure = nodes(site, order, points)
    if x.size == 0:
        return -np.inf
    variance = site.variance(order)
    weight, drift = site.weight(x, order), site.drift(x, order)
    good = weight > 0
    with np.errstate(all="ignore"):
        log = np.log(measure * weight) - drift**2 / (2 * variance) - np.log(2 * np.pi * variance) / 2
        excess, over = site.average(x, order) - order, site.edge(x, order) - 1
    good &= np.isfinite(log) & np.isfinite(over)
    return dual(log[good], excess[good], over[good], free)


def dual(log: Array, excess: Array, over: Array, free: bool = False) -> float:
    """The minimum over both multipliers, or over the first alone; a convex function of them."""
    from scipy.optimize import minimize_scalar

    if log.size == 0 or not excess.min() < 0 < excess.max() or over.min() >= 0:
        return -np.inf

    plain, first = _over_one(log, excess)
    if free or not _leans(log, excess, over, plain, first):
        return plain

    def at(b: float) -> float:
        return _over_one(log - b * over, excess, first)[0]

    found = minimize_scalar(lambda s: at(np.exp(s)), bounds=(np.log(_NO_MULTIPLIER), 8.0), method="bounded")
    return float(min(plain, found.fun))


def _over_one(log: Array, excess: Array, first: float = 0.0) -> tuple[float, float]:
    """min over a of ln Σ exp(log − a·excess), by safeguarded Newton steps from a first guess; and the a."""
    a = first

    def value(a: float) -> tuple[float, float, float]:
        shown = log - a * excess
        top = shown.max()
        p = np.exp(shown - top)
        total = p.sum()
        p /= total
        mean = float(p @ excess)
        return float(top + np.log(total)), mean, float(p @ (excess - mean) ** 2)

    now, mean, spread = value(a)
    for _ in range(200):
        step = mean / max(spread, 1e-300)
        step = float(np.clip(step, -50.0 - abs(a), 50.0 + abs(a)))
        while True:
            then = value(a + step)
            if then[0] <= now + 1e-15 or abs(step) < 1e-14:
                break
            step /= 2
        a, (now, mean, spread) = a + step, then
        if abs(mean) < 1e-12:
            break
    return now, a


def _leans(log: Array, excess: Array, over: Array, plain: float, first: float) -> bool:
    """Whether the edge would lie beyond zero without its multiplier."""
    return _over_one(log - _NO_MULTIPLIER * over, excess, first)[0] < plain + 1e-13


def nodes(site: Site, order: float, points: int) -> tuple[Array, Array]:
    """States with a positive weight and their measure: each interval with points that crowd at its ends."""
    reach = _furthest(site, order)
    grid = np.linspace(-reach, reach, 4001)
    positive = site.weight(grid, order) > 0
    turns = np.flatnonzero(positive[1:] != positive[:-1])
    turned = [_turn(site, order, grid[k], grid[k + 1]) for k in turns]
    field = site.drift(grid, order) / np.sqrt(site.variance(order))
    passed = [grid[1:][np.diff(np.sign(field - d)) != 0] for d in _DEVIATIONS]
    kept = [x for x in np.concatenate(passed) if all(abs(x - turn) > grid[1] - grid[0] for turn in turned)]
    ends = sorted([-reach, *turned, *kept, reach])
    parts = [_crowded(a, b, points) for a, b in pairwise(ends) if site.weight(np.array([(a + b) / 2]), order)[0] > 0]
    if not parts:
        return np.zeros(0), np.zeros(0)
    x, w = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(w)


def _furthest(site: Site, order: float) -> float:
    """Beyond this the field of no state is one that couplings bring."""
    wide = _REACH * float(np.sqrt(site.variance(order)))
    reach = wide + _REACH
    while np.abs(site.drift(np.array([-reach, reach]), order)).min() < wide and reach < _FURTHEST:
        reach *= 1.5
    return reach


def _turn(site: Site, order: float, a: float, b: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(lambda x: float(site.weight(np.array([x]), order)[0]), a, b, xtol=1e-15, rtol=1e-15))


def _crowded(a: float, b: float, points: int) -> tuple[Array, Array]:
    """Double-exponential nodes of an interval."""
    u = np.linspace(-3.6, 3.6, 2 * points + 1)
    s = np.pi / 2 * np.sinh(u)
    near = np.exp(-np.abs(s)) / (2 * np.cosh(s))  # distance to the nearer end, of an interval of length 1
    x = np.where(u < 0, a + (b - a) * near, b - (b - a) * near)
    w = (b - a) * (u[1] - u[0]) * np.pi / 4 * np.cosh(u) / np.cosh(s) ** 2
    kept = (b - a) * near > _NEAREST
    return x[kept], w[kept]


def answers_slowly(inner: Array, driven: int, read: int) -> bool:
    """Whether units are stable and answer no oscillating drive more than a constant one.

    The response is analytic where growth rates are positive, so that it is nowhere larger there: then no slower
    feedback that supports a unit, and no bulk of a Jacobian, reaches a growth rate or an oscillation before zero.

    Parameters
    ----------
    inner : array (states, fields, fields)
        Derivatives of a unit's equations.
    driven, read : int
        The equation that is driven and the field that is read.
    """
    rates = np.linalg.eigvals(inner)
    if np.any(rates.real >= 0):
        return False
    size = np.abs(rates)
    ring = np.concatenate([[0.0], np.geomspace(1e-3 * size.min(), 1e3 * size.max(), 241)])
    shifted = 1j * ring[:, None, None, None] * np.eye(inner.shape[1]) - inner
    response = np.linalg.inv(shifted)[:, :, read, driven]
    return bool(np.all(response[0].real > 0) and np.all(np.abs(response) <= response[0].real * (1 + 1e-9)))
