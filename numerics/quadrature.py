"""Quadrature against Gaussian weights: trapezoid for smooth functions, panels split at kinks otherwise.

All rules integrate over a standard normal z. The trapezoidal rule converges geometrically for functions that are
analytic near the real axis; panels of Gauss–Legendre nodes do so for piecewise smooth ones and also give cumulative
integrals, with full *relative* accuracy near z = 0 (antiderivatives of small arguments must not cancel).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .types import Array

#: |z| beyond which the normal density (2e-20 relative) does not matter to bounded functions.
REACH = 9.5
#: Gauss–Legendre nodes a panel.
ORDER = 16


@lru_cache(maxsize=64)
def legendre(n: int) -> tuple[Array, Array]:
    """Nodes and weights on [−1, 1]."""
    x, w = np.polynomial.legendre.leggauss(n)
    return x, w


@lru_cache(maxsize=64)
def cumulative_matrix(n: int) -> Array:
    """Q with Σ_j Q[i, j] f(x_j) = ∫_{−1}^{x_i} f for polynomials f of degree < n; x are the Legendre nodes."""
    x, w = legendre(n)
    p = np.polynomial.legendre.legvander(x, n)
    k = np.arange(n)
    coefficients = (k[:, None] + 0.5) * (p[:, :n] * w[:, None]).T
    antiderivative = np.empty((n, n))
    antiderivative[:, 0] = x + 1
    antiderivative[:, 1:] = (p[:, 2 : n + 1] - p[:, : n - 1]) / (2 * k[1:] + 1)
    return antiderivative @ coefficients


@lru_cache(maxsize=16)
def trapezoid(n: int, reach: float = REACH) -> tuple[Array, Array]:
    """n equidistant nodes and weights for ⟨f(z)⟩."""
    z = np.linspace(-reach, reach, n)
    return z, np.exp(-0.5 * z * z) * ((z[1] - z[0]) / np.sqrt(2 * np.pi))


def density(z: Array) -> Array:
    """Standard normal density."""
    return np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class Panels:
    """Composite Gauss–Legendre rule on sorted edges that contain 0.

    Attributes
    ----------
    z, w : arrays (panels, ORDER)
        Nodes and weights; the weights include the normal density.
    half : array (panels,)
        Half widths.
    first : int
        Index of the first panel with z > 0.
    """

    z: Array
    w: Array
    half: Array
    first: int

    def mean(self, f: Array) -> Array:
        """⟨f⟩ from values f (..., panels, ORDER)."""
        return np.einsum("...ij,ij->...", f, self.w)

    def cumulative(self, f: Array) -> Array:
        """∫_0^z f dz' at the nodes, accurate relative to its size also near z = 0."""
        part = f @ cumulative_matrix(ORDER).T * self.half[:, None]
        whole = (f @ legendre(ORDER)[1]) * self.half
        k = self.first
        start = np.zeros_like(whole)
        start[..., k + 1 :] = np.cumsum(whole[..., k:-1], axis=-1)
        # To the left of zero integrate from the right end of each panel: values near 0 stay relatively accurate.
        start[..., :k] = -np.cumsum(whole[..., :k][..., ::-1], axis=-1)[..., ::-1]
        out = part + start[..., None]
        if k:
            out[..., k - 1, :] = -(f[..., k - 1, :] @ cumulative_matrix(ORDER)[::-1, ::-1].T) * self.half[k - 1]
        return out


def panels(kinks: Array, width: float, reach: float = REACH) -> Panels:
    """Panels not wider than `width`, split at 0 and at the kinks inside ±reach."""
    inside = kinks[np.abs(kinks) < reach]
    coarse = np.unique(np.concatenate([[-reach, 0.0, reach], inside]))
    edges = [np.array([coarse[0]])]
    for a, b in itertools.pairwise(coarse):
        edges.append(np.linspace(a, b, int(np.ceil((b - a) / width - 1e-9)) + 1)[1:])
    return panels_from_edges(np.concatenate(edges))


@lru_cache(maxsize=32)
def smooth_panels(width: float, reach: float = REACH) -> Panels:
    """Panels without kinks, remembered."""
    return panels(np.empty(0), width, reach)


def panels_from_edges(edges: Array) -> Panels:
    """Composite rule on given edges; one of them must be 0."""
    x, w = legendre(ORDER)
    half = np.diff(edges) / 2
    z = (edges[:-1] + half)[:, None] + half[:, None] * x
    first = int(np.searchsorted(edges, 0.0))
    return Panels(z, density(z) * w * half[:, None], half, first)


def graded_edges(kinks: Array, width: float, levels: int = 14, reach: float = REACH) -> Array:
    """Edges that refine geometrically towards every kink: for functions with layers of unknown width there."""
    inside = np.unique(kinks[np.abs(kinks) < reach])
    steps = reach * 0.5 ** np.arange(1, levels)
    edges = np.concatenate([[-reach, 0.0, reach], inside, *(k + s * steps for k in inside for s in (-1.0, 1.0))])
    edges = np.unique(edges[np.abs(edges) <= reach])
    out = [edges[:1]]
    for a, b in itertools.pairwise(edges):
        out.append(np.linspace(a, b, int(np.ceil((b - a) / width - 1e-9)) + 1)[1:])
    return np.concatenate(out)


@lru_cache(maxsize=64)
def chebyshev(n: int) -> tuple[Array, Array]:
    """First-kind nodes on [−1, 1] and the matrix from values at them to Chebyshev coefficients."""
    angle = np.pi * (np.arange(n) + 0.5) / n
    matrix = np.cos(np.outer(np.arange(n), angle)) * (2 / n)
    matrix[0] /= 2
    return np.cos(angle), matrix


@lru_cache(maxsize=128)
def trapezoid_row(count: int) -> tuple[Array, Array]:
    """`trapezoid` as arrays (1, count)."""
    z, w = trapezoid(count)
    return z[None, :], w[None, :]


@lru_cache(maxsize=16)
def graded_row(kinks: tuple[float, ...], width: float, levels: int) -> tuple[Array, Array]:
    """Nodes and weights (1, n) on panels that refine towards kinks."""
    panels = panels_from_edges(graded_edges(np.array(kinks), width, levels))
    return panels.z.reshape(1, -1), panels.w.reshape(1, -1)


@lru_cache(maxsize=4)
def hermite(n: int) -> tuple[Array, Array]:
    """Gauss–Hermite nodes and weights for a standard normal number: exact for polynomials."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return x, w / np.sqrt(2 * np.pi)
