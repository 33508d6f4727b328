"""Compiled log-partition functions of single sites: truncated Gaussians in logarithms, and quadrature.

Against a piece exp(c0 + c1 u + c2 u²/2) on an interval a Gaussian is a truncated Gaussian. Every function returns
(log, mean, second moment about 0) of one piece, so that pieces add up by `merge`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from .quadrature import legendre

HALF_LOG2PI = 0.5 * math.log(2 * math.pi)
NODES, WEIGHTS = (np.ascontiguousarray(a) for a in legendre(160))

Piece = Any


@njit(cache=True, error_model="numpy")
def log_cdf(x: float) -> float:
    """ln P(z < x) of a standard normal number."""
    if x > 5.0:
        return math.log1p(-0.5 * math.erfc(x / math.sqrt(2.0)))
    if x > -25.0:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))
    if x == -np.inf:
        return -np.inf
    r = 1.0 / (x * x)
    tail = 1.0 - r * (1.0 - 3.0 * r * (1.0 - 5.0 * r * (1.0 - 7.0 * r * (1.0 - 9.0 * r))))
    return -0.5 * x * x - HALF_LOG2PI - math.log(-x) + math.log(tail)


@njit(cache=True, error_model="numpy")
def truncated(a: float, b: float) -> Piece:
    """(log mass, mean, variance − 1) of a standard normal number between a and b."""
    lo, hi = (-b, -a) if a > 0 else (a, b)
    top, bottom = log_cdf(hi), log_cdf(lo)
    mass = top + math.log1p(-math.exp(min(bottom - top, 0.0)))
    low = math.exp(-0.5 * a * a - HALF_LOG2PI - mass) if a > -np.inf else 0.0
    high = math.exp(-0.5 * b * b - HALF_LOG2PI - mass) if b < np.inf else 0.0
    mean = low - high
    edge = (a * low if a > -np.inf else 0.0) - (b * high if b < np.inf else 0.0)
    return mass, mean, edge - mean * mean


@njit(cache=True, error_model="numpy")
def gaussian_piece(lo: float, hi: float, c0: float, c1: float, c2: float, b: float, root: float) -> Piece:
    """(log, mean of y, variance of y − 1) of ∫Dy exp(c0 + c1 u + c2 u²/2) over u = b + root·y between lo and hi."""
    a = 1.0 - c2 * root * root
    shift, width = root * (c1 + c2 * b) / a, 1.0 / math.sqrt(a)
    mass, mean, more = truncated(((lo - b) / root - shift) / width, ((hi - b) / root - shift) / width)
    value = c0 + c1 * b + 0.5 * c2 * b * b + 0.5 * a * shift * shift - 0.5 * math.log(a) + mass
    return value, shift + width * mean, width * width * more + (width * width - 1.0)


@njit(cache=True, error_model="numpy")
def density_piece(lo: float, hi: float, c0: float, c1: float, c2: float, b: float, v: float) -> Piece:
    """(log, mean, variance) of the density exp(c0 + (c1 + b) s + (c2 + v) s²/2) between lo and hi."""
    a = -(c2 + v)
    if a > 0.0:
        centre, width = (c1 + b) / a, 1.0 / math.sqrt(a)
        mass, mean, more = truncated((lo - centre) / width, (hi - centre) / width)
        value = c0 + 0.5 * a * centre * centre + HALF_LOG2PI - 0.5 * math.log(a) + mass
        return value, centre + width * mean, width * width * (1.0 + more)
    if not (lo > -np.inf and hi < np.inf):
        return np.nan, np.nan, np.nan  # not normalisable
    half = 0.5 * (hi - lo)
    top = -np.inf
    for k in range(NODES.size):
        s = lo + half * (1.0 + NODES[k])
        top = max(top, (c1 + b) * s + 0.5 * (c2 + v) * s * s)
    total, mean, square = 0.0, 0.0, 0.0
    for k in range(NODES.size):
        s = lo + half * (1.0 + NODES[k])
        w = WEIGHTS[k] * math.exp((c1 + b) * s + 0.5 * (c2 + v) * s * s - top)
        total += w
        mean += w * s
        square += w * s * s
    mean /= total
    return c0 + top + math.log(total * half), mean, square / total - mean * mean


@njit(cache=True, error_model="numpy")
def merge(one: Piece, two: Piece) -> Piece:
    """The mixture of two pieces, each (log, mean, variance or variance − 1)."""
    if one[0] == -np.inf:
        return two
    if two[0] == -np.inf:
        return one
    top = max(one[0], two[0])
    p, q = math.exp(one[0] - top), math.exp(two[0] - top)
    total = p + q
    p, q = p / total, q / total
    mean = p * one[1] + q * two[1]
    spread = p * (one[2] + (one[1] - mean) ** 2) + q * (two[2] + (two[1] - mean) ** 2)
    return top + math.log(total), mean, spread


@njit(cache=True, fastmath=True)
def fields(matrix: Any, m: Any, v: Any) -> Any:
    """(Σ_j A_ij m_j, Σ_j A_ij² v_j) for all rows in one pass."""
    rows, cols = matrix.shape
    h, s = np.zeros(rows), np.zeros(rows)
    for i in range(rows):
        a, b = 0.0, 0.0
        for j in range(cols):
            x = matrix[i, j]
            a += x * m[j]
            b += x * x * v[j]
        h[i], s[i] = a, b
    return h, s


@njit(cache=True, fastmath=True)
def fields_transposed(matrix: Any, m: Any, v: Any) -> Any:
    """(Σ_i A_ij m_i, Σ_i A_ij² v_i) for all columns in one pass."""
    rows, cols = matrix.shape
    h, s = np.zeros(cols), np.zeros(cols)
    for i in range(rows):
        mi, vi = m[i], v[i]
        for j in range(cols):
            x = matrix[i, j]
            h[j] += x * mi
            s[j] += x * x * vi
    return h, s
