"""Log-partition functions of one site, with two derivatives, on arrays of fields.

Priors and weights are sums of atoms and of pieces exp(c0 + c1 u + c2 u²/2) on intervals, found from their
expressions at given parameter values. Against such a piece a Gaussian is a truncated Gaussian, in logarithms
throughout, so that steps far in the tail and small widths keep their relative accuracy. Other smooth weights of a local
field are integrated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import expit, log_ndtr, logsumexp
from sympy import Symbol

from quenched.theory.errors import ConvergenceError

from .quadrature import legendre
from .replica_parts import Part
from .replica_signs import FreeLabel
from .replica_smooth import convolved
from .types import Array

#: Logarithm of what is left out of integrals up to infinity, and cells of the grid that tells where they are large.
DEPTH, CELLS = 40.0, 256
LOG2PI = float(np.log(2 * np.pi))
#: Where a tail of a normal number is as its expansion in the inverse of its end says, to rounding.
FAR_TAIL = 40.0
#: Nodes of the integral over a weight that has no closed form.
SMOOTH = 160


@dataclass(frozen=True)
class Case:
    """Values of the labels of a site for which its measure has the same parts, each an array (labels, 1)."""

    labels: dict[Symbol, Array]
    probability: Array
    parts: tuple[Part, ...]

    @cached_property
    def edges(self) -> tuple[float, ...]:
        """Finite ends of the parts."""
        ends = {float(e) for p in self.parts for end in (p.lo, p.hi) for e in np.ravel(end)}
        return tuple(sorted(e for e in ends if np.isfinite(e)))


@dataclass(frozen=True)
class Site:
    """A site at given parameter values; `free` are labels that are too many to write their values out."""

    kind: str
    cases: tuple[Case, ...]
    name: str
    cold: bool = False
    free: tuple[FreeLabel, ...] = ()
    fine: float = 1.0

    @property
    def work(self) -> int:
        """How many functions of one field have to be evaluated, relative to one closed form."""
        if self.cold:
            return 0
        cost = (SMOOTH if any(p.c is None for p in case.parts) else 1 for case in self.cases)
        return sum(c * len(case.probability) for c, case in zip(cost, self.cases, strict=True))

    def edges(self, case: int) -> tuple[float, ...]:
        """Finite ends of the pieces of a weight."""
        return self.cases[case].edges

    def gaussian(self, case: int) -> bool:
        """Whether the site is Gaussian, so that L is quadratic in its field."""
        parts = self.cases[case].parts
        return len(parts) == 1 and parts[0].c is not None and not self.edges(case)

    def logs(self, case: int, b: Array, v: Any) -> tuple[Array, Array, Array]:
        """(L, ∂_b L, ∂_b² L) at fields b and coefficient V."""
        nodes = int(SMOOTH * self.fine)
        return (channel if self.kind == "channel" else state)(self.cases[case].parts, b, v, self.name, nodes)


# -- truncated Gaussians -------------------------------------------------------------------------------------------
def log_mass(a: Array, b: Array) -> Array:
    """ln P(a < z < b) of a standard normal number, accurate in both tails."""
    flip = a > 0
    lo, hi = np.where(flip, -b, a), np.where(flip, -a, b)
    top, bottom = log_ndtr(hi), log_ndtr(lo)
    with np.errstate(divide="ignore"):
        return top + np.log1p(-np.exp(np.minimum(bottom - top, 0.0)))


def truncated(a: Any, b: Any) -> tuple[Array, Array, Array]:
    """(log mass, mean, variance − 1) of a standard normal number between a and b."""
    if np.ndim(a) == 0 and a == -np.inf:  # half-lines are common, and need half the work
        return _tail(b, -1.0) if np.ndim(b) or b < np.inf else (np.zeros(1), np.zeros(1), np.zeros(1))
    if np.ndim(b) == 0 and b == np.inf:
        return _tail(a, 1.0)
    mass = log_mass(a, b)
    with np.errstate(over="ignore", invalid="ignore"):
        low = np.exp(-0.5 * a * a - 0.5 * LOG2PI - mass)
        high = np.exp(-0.5 * b * b - 0.5 * LOG2PI - mass)
        edge = np.where(np.isfinite(a), a, 0.0) * low - np.where(np.isfinite(b), b, 0.0) * high
    mean = low - high
    return mass, mean, edge - mean**2


def _tail(a: Array, side: float) -> tuple[Array, Array, Array]:
    """The same above (side = 1) or below (−1) finite a."""
    mass = log_ndtr(-side * a)
    with np.errstate(over="ignore"):
        mean = side * np.exp(-0.5 * a * a - (0.5 * LOG2PI + mass))
    if np.max(side * a, initial=0.0) < FAR_TAIL:
        return mass, mean, (a - mean) * mean
    t = np.maximum(side * a, FAR_TAIL)  # beyond, both terms of the exponent are as large as their rounding
    far = side * (t + 1 / t - 2 / t**3 + 10 / t**5 - 74 / t**7)
    more = -1 + 1 / t**2 - 6 / t**4 + 50 / t**6 - 518 / t**8
    near = side * a < FAR_TAIL
    return mass, np.where(near, mean, far), np.where(near, (a - np.where(near, mean, 0.0)) * mean, more)


def mixture(logs: list[Array], means: list[Array], excess: list[Array]) -> tuple[Array, Array, Array]:
    """(log of the sum, mean, variance − 1) of a mixture of parts."""
    if len(logs) == 1:
        return logs[0], means[0], excess[0]
    if len(logs) == 2 and min(np.min(logs[0]), np.min(logs[1])) > -np.inf:
        gap, apart = logs[1] - logs[0], means[1] - means[0]
        share = expit(gap)
        more = excess[0] + share * (excess[1] - excess[0]) + share * (1 - share) * apart**2
        return np.logaddexp(logs[0], logs[1]), means[0] + share * apart, more
    top = logs[0]
    for other in logs[1:]:
        top = np.maximum(top, other)
    top = np.where(np.isfinite(top), top, 0.0)
    shares = [np.exp(x - top) for x in logs]  # a few parts: cheaper one by one than stacked
    norm = sum(shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [share / norm for share in shares]
        total = top + np.log(norm)
    mean = sum(p * m for p, m in zip(parts, means, strict=True))
    spread = sum(p * (e + (m - mean) ** 2) for p, e, m in zip(parts, excess, means, strict=True))
    return np.asarray(total), np.asarray(mean), np.asarray(spread)


def _scaled(end: Any, centre: Any, width: Any) -> Any:
    """An end of a piece in units of a width from a centre; an infinite one stays a number."""
    return end if np.ndim(end) == 0 and abs(end) == np.inf else (end - centre) / width


def channel(parts: tuple[Part, ...], b: Array, v: Any, name: str, nodes: int = SMOOTH) -> tuple[Array, Array, Array]:
    """L = ln ∫Dy f(b + √V y) with derivatives in b."""
    if np.ndim(v) == 0 and -1e-11 < v <= 0:
        v = 1e-15  # rounding of overlaps next to 1
    if (v <= 0) if np.ndim(v) == 0 else np.any(v <= 0):
        raise ConvergenceError(f"the local field of {name} has no width left (V = {np.min(v):.3g})")
    root = np.sqrt(v)
    logs: list[Array] = []
    means: list[Array] = []
    excess: list[Array] = []
    for part in parts:
        lo, hi = _scaled(part.lo, b, root), _scaled(part.hi, b, root)
        if part.c is None:
            assert part.smooth is not None
            found = _integrated(part.smooth, b, root, lo, hi, nodes)
        else:
            c0, c1, c2 = part.c
            if np.ndim(c1) == np.ndim(c2) == 0 and c1 == c2 == 0 and np.ndim(lo) + np.ndim(hi):
                mass, mean, more = truncated(lo, hi)
                for target, array in zip((logs, means, excess), (c0 + mass, mean, more), strict=True):
                    target.append(array)
                continue
            a = 1 - c2 * v
            if (a <= 0) if np.ndim(a) == 0 else np.any(a <= 0):
                raise ConvergenceError(f"the weight of {name} outgrows its local field (V = {np.max(v):.3g})")
            shift, width = root * (c1 + c2 * b) / a, 1 / np.sqrt(a)
            if np.all(np.isinf(lo)) and np.all(np.isinf(hi)):
                mass, mean, more = 0 * b, 0 * b, 0 * b
            else:
                mass, mean, more = truncated(_scaled(lo, shift, width), _scaled(hi, shift, width))
            value = c0 + c1 * b + c2 * b * b / 2 + a * shift**2 / 2 - 0.5 * np.log(a) + mass
            found = value, shift + width * mean, width**2 * more + (width**2 - 1)
        for target, array in zip((logs, means, excess), found, strict=True):
            target.append(array)
    total, mean, more = mixture(logs, means, excess)
    return total, mean / root, more / v


def _integrated(
    smooth: Callable[[Array], Array], b: Array, root: Any, lo: Array, hi: Array, nodes: int
) -> tuple[Array, Array, Array]:
    """The same for a weight that is only known as a function."""
    if np.ndim(lo) == np.ndim(hi) == 0 and (lo, hi) == (-np.inf, np.inf) and (found := convolved(smooth, b, root)):
        return found
    x, w = legendre(nodes)
    lo, hi = np.clip(lo, -9.5, 9.5), np.clip(hi, -9.5, 9.5)
    half = (hi - lo) / 2
    y = (lo + half)[..., None] + half[..., None] * x
    scale = np.asarray(root)[..., None]
    exponent = smooth(b[..., None] + scale * y) + np.zeros_like(y) - 0.5 * y * y - 0.5 * LOG2PI
    with np.errstate(divide="ignore"):
        exponent = exponent + np.log(w * half[..., None])
    total = logsumexp(exponent, axis=-1)
    p = np.exp(exponent - np.where(np.isfinite(total), total, 0.0)[..., None])
    mean = np.sum(p * y, axis=-1)
    return total, mean, np.sum(p * (y - mean[..., None]) ** 2, axis=-1) - 1


def state(parts: tuple[Part, ...], b: Array, v: Any, name: str, nodes: int = SMOOTH) -> tuple[Array, Array, Array]:
    """L = ln ∫dμ(s) exp(b s + V s²/2) with derivatives in b."""
    logs: list[Array] = []
    means: list[Array] = []
    excess: list[Array] = []
    zero = np.zeros_like(b)
    for part in parts:
        if part.lo is part.hi or (np.isscalar(part.lo) and part.lo == part.hi):
            assert part.c is not None
            s: Any = part.lo
            found: Any = ((part.c[0] + v * (s * s / 2)) + b * s, zero + s, zero - 1.0)
        elif part.c is not None and np.all(part.c[2] + v < 0):
            c0, c1, c2 = part.c
            a = -(c2 + v)
            centre, width = (c1 + b) / a, 1 / np.sqrt(a)
            mass, mean, more = truncated(_scaled(part.lo, centre, width), _scaled(part.hi, centre, width))
            value = c0 + a * centre**2 / 2 + 0.5 * (LOG2PI - np.log(a)) + mass
            found = value, centre + width * mean, width**2 * (1 + more) - 1 + zero
        else:
            found = _over_interval(part, b, v, name, nodes)
        for target, array in zip((logs, means, excess), found, strict=True):
            target.append(array)
    total, mean, more = mixture(logs, means, excess)
    return total, mean, more + 1


def _over_interval(part: Part, b: Array, v: Any, name: str, nodes: int) -> tuple[Array, Array, Array]:
    if not (np.all(np.isfinite(part.lo)) and np.all(np.isfinite(part.hi))):
        return _unbounded(part, b, v, name)
    x, w = legendre(nodes)
    lo, hi = (np.asarray(end)[..., None] for end in (part.lo, part.hi))
    half = (hi - lo) / 2
    s = lo + half * (1 + x)
    c0, c1, c2 = (np.asarray(c)[..., None] for c in part.c) if part.c is not None else (0.0, 0.0, 0.0)
    base = c0 + c1 * s + c2 * s * s / 2 if part.smooth is None else part.smooth(s)
    return _summed(base + np.asarray(v)[..., None] * s * s / 2 + np.log(w * half) + b[..., None] * s, s)


def _summed(exponent: Array, s: Array) -> tuple[Array, Array, Array]:
    """(ln of the sum, mean, variance − 1) over nodes s with these logarithms of their weights."""
    total = logsumexp(exponent, axis=-1)
    p = np.exp(exponent - total[..., None])
    mean = np.sum(p * s, axis=-1)
    return total, mean, np.sum(p * (s - mean[..., None]) ** 2, axis=-1) - 1


def _unbounded(part: Part, b: Array, v: Any, name: str) -> tuple[Array, Array, Array]:
    """The same up to infinity for a smooth density: integrated where it is more than e^−`DEPTH` of its maximum.

    Where that is follows for every field from a grid of all fields, which reaches as far as any of them needs.
    """
    width = np.asarray(v, float)[..., None]

    def exponent(s: Array) -> Array:
        assert part.smooth is not None
        with np.errstate(over="ignore", divide="ignore"):
            return np.asarray(part.smooth(s) + width * s * s / 2 + b[..., None] * s)

    reach = _reach(part, exponent) if part.smooth is not None else None
    if reach is None:
        raise ConvergenceError(f"the measure of {name} is not normalisable in its field (V = {np.max(v):.3g})")
    grid = np.linspace(max(part.lo, -reach), min(part.hi, reach), CELLS + 1)
    found = exponent(grid)
    large = found > np.max(found, axis=-1, keepdims=True) - DEPTH
    first, last = np.argmax(large, axis=-1), CELLS - np.argmax(large[..., ::-1], axis=-1)
    lo, hi = grid[np.maximum(first - 1, 0)], grid[np.minimum(last + 1, CELLS)]
    x, w = legendre(160)
    half = ((hi - lo) / 2)[..., None]
    s = lo[..., None] + half * (1 + x)
    return _summed(exponent(s) + np.log(w * half), s)


def _reach(part: Part, exponent: Callable[[Array], Array]) -> float | None:
    """How far from 0 all measures in their fields have died out, None where they do not."""
    ends = [sign for sign, end in ((-1.0, part.lo), (1.0, part.hi)) if not np.isfinite(end)]
    inner = [end for end in (part.lo, part.hi) if np.isfinite(end)]
    far = np.geomspace(1e-2, 1e4, 241) + max(map(abs, inner), default=0.0)
    points = np.concatenate([sign * far for sign in ends])
    values = exponent(points).reshape(-1, len(points))
    deep = values < values.max(axis=1, keepdims=True) - 2 * DEPTH
    beyond = np.all(np.logical_and.accumulate(np.all(deep, axis=0).reshape(len(ends), -1)[:, ::-1], axis=1), axis=0)
    return float(far[::-1][beyond][-1]) if beyond[0] else None
