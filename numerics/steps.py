"""Averages of functions that are constant but for jumps: sums over the jumps instead of quadratures of their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from .quadrature import legendre
from .types import Array

_PROBES = np.concatenate([-np.geomspace(1e3, 12, 40), np.linspace(-12, 12, 481) + 1e-7, np.geomspace(12, 1e3, 40)])
_COARSE, _FINE = 24, 48


@dataclass(frozen=True)
class Steps:
    """f(u) = first + Σ_i sizes[i]·(u > places[i])."""

    first: float
    places: Array
    sizes: Array

    def mean(self, m: float, v: float) -> float:
        """⟨f⟩ at mean m and variance v."""
        return self.first + float(self.sizes @ ndtr((m - self.places) / np.sqrt(v)))

    def slope(self, m: float, v: float) -> float:
        """d⟨f⟩/dm."""
        z = (self.places - m) / np.sqrt(v)
        return float(self.sizes @ np.exp(-z * z / 2)) / float(np.sqrt(2 * np.pi * v))

    def times(self, other: Steps) -> Steps:
        """The product of two."""
        places = np.unique(np.concatenate([self.places, other.places]))
        ends = np.concatenate([[-np.inf], places])
        levels = self._after(ends) * other._after(ends)
        return Steps(float(levels[0]), places, np.diff(levels))

    def _after(self, ends: Array) -> Array:
        """Values just above some places."""
        return self.first + (ends[:, None] >= self.places) @ self.sizes


def steps_of(value: object, kinks: Array) -> Steps | None:
    """The jumps of a function with the given kinks, None if it is not constant between them."""
    if not len(kinks) or not callable(value):
        return None
    edges = np.concatenate([[-1.1e3], kinks, [1.1e3]])
    inside = edges[:-1, None] + np.diff(edges)[:, None] * np.array([1e-6, 0.2, 0.5, 0.8, 1 - 1e-6])
    levels = np.broadcast_to(value(inside), inside.shape)
    if np.any(levels != levels[:, :1]):
        return None
    between = np.searchsorted(kinks, _PROBES)
    clear = np.min(np.abs(_PROBES[:, None] - kinks), axis=1) > 1e-9
    if np.any((np.broadcast_to(value(_PROBES), _PROBES.shape) != levels[between, 0])[clear]):
        return None
    return Steps(float(levels[0, 0]), np.array(kinks), np.diff(levels[:, 0]))


def steps_plane(
    f: Steps,
    g: Steps,
    m1: Array | float,
    s1: float,
    m2: Array | float,
    s2: float,
    theta: Array,
    share: Array | None = None,
) -> tuple[Array, None, float]:
    """⟨f g⟩ at angles θ between two normals, and its error: d⟨fg⟩/dθ is the density at pairs of jumps.

    With `share` (nodes,) the means are arrays (nodes,), and the weighted sum over nodes is returned.
    """
    weight = np.ones(1) if share is None else share
    first, second = np.atleast_1d(m1), np.atleast_1d(m2)
    start = sum(w * f.mean(a, s1**2) * g.mean(b, s2**2) for w, a, b in zip(weight, first, second, strict=True))
    coarse, fine = np.full(len(theta), start), np.full(len(theta), start)
    size = abs(start)
    for x, j in zip(f.places, f.sizes, strict=True):
        for y, k in zip(g.places, g.sizes, strict=True):
            at = (x - first) / s1, (y - second) / s2
            coarse, fine = (t + j * k * weight @ _turned(*at, theta, n) for t, n in ((coarse, _COARSE), (fine, _FINE)))
            size += abs(j * k) * float(np.sum(np.abs(weight)))
    return fine, None, float(np.max(np.abs(fine - coarse))) + 4 * float(np.finfo(float).eps) * float(size)


def _turned(first: Array, second: Array, theta: Array, order: int) -> Array:
    """∫_0^θ exp(−(a² − 2ab sin t + b²)/(2 cos² t)) dt/2π, (nodes, angles).

    With φ = π/2 − |t| the power is (a ∓ b)²/(2 sin² φ) ± ab/(1 + cos φ): nothing cancels at small φ, where it ends at
    about |a ∓ b|/9; a logarithm of φ resolves it there.
    """
    z, w = legendre(order)
    a, b = first[:, None], second[:, None]
    sign = np.where(theta < 0, -1.0, 1.0)
    gap = np.abs(a - sign * b)
    last = np.maximum(np.pi / 2 - np.abs(theta), 0.0) + 0 * gap
    graded = gap > 1e-13
    low = np.minimum(np.where(graded, np.maximum(last, gap / 9), last), np.pi / 2)
    safe = np.where(graded, low, 1.0)
    span = np.where(graded, np.log(np.pi / 2 / safe), np.pi / 2 - low)[..., None]
    along = span * (1 + z) / 2
    phi = np.where(graded[..., None], safe[..., None] * np.exp(along), low[..., None] + along)
    weight = np.where(graded[..., None], phi, 1.0) * span / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(graded[..., None], (gap[..., None] / np.sin(phi)) ** 2 / 2, 0.0)
    power = apart + (sign * a * b)[..., None] / (1 + np.cos(phi))
    return np.asarray(sign * ((np.exp(-power) * weight) @ w) / (2 * np.pi))
