"""One pass over points and label nodes: averages of the propagator and of its first derivatives, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def invert(matrix: Array, out: Array) -> bool:
    """Gauss–Jordan elimination with row pivoting; False for a singular matrix. `matrix` is overwritten."""
    size = matrix.shape[0]
    if size == 1:
        square = matrix[0, 0].real ** 2 + matrix[0, 0].imag ** 2
        out[0, 0] = matrix[0, 0].conjugate() * (1.0 / square) if square > 0.0 else np.nan
        return square > 0.0
    if size == 2:
        det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
        if not abs(det) > 0.0:
            return False
        scale = 1.0 / det
        out[0, 0], out[0, 1] = matrix[1, 1] * scale, -matrix[0, 1] * scale
        out[1, 0], out[1, 1] = -matrix[1, 0] * scale, matrix[0, 0] * scale
        return True
    out[:] = 0.0
    for i in range(size):
        out[i, i] = 1.0
    for c in range(size):
        pivot = c
        for r in range(c + 1, size):
            if abs(matrix[r, c]) > abs(matrix[pivot, c]):
                pivot = r
        if not abs(matrix[pivot, c]) > 0.0:
            return False
        if pivot != c:
            for k in range(size):
                matrix[c, k], matrix[pivot, k] = matrix[pivot, k], matrix[c, k]
                out[c, k], out[pivot, k] = out[pivot, k], out[c, k]
        scale = 1.0 / matrix[c, c]
        for k in range(size):
            matrix[c, k] *= scale
            out[c, k] *= scale
        for r in range(size):
            if r != c and matrix[r, c] != 0.0:
                factor = matrix[r, c]
                for k in range(size):
                    matrix[r, k] -= factor * matrix[c, k]
                    out[r, k] -= factor * out[c, k]
    return True


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"})
def accumulate(
    t: Array,
    z: Array,
    eta: float,
    constant: Array,
    sources: Array,
    values: Array,
    rows: Array,
    weights: Array,
    upper: Array,
    share: Array,
    image: Array,
    response: Array,
    traces: Array,
    trace_slopes: Array,
    slopes: bool,
) -> None:
    """Add the averages over one space to `image`, `response`, `traces` and `trace_slopes`.

    Parameters
    ----------
    t : (points, unknowns)
    z : (points,)
    constant : (nodes, b, b)
        The part of the block matrix without scalars and z.
    sources : (entries, 3) of int
        (m, i, l): minus the derivative of the matrix with respect to quantity m has an entry (i, l); the quantities
        are the scalars, then z and z̄.
    values : (nodes, entries)
        That entry.
    rows : (averages, 3) of int
        (r, j, k): average r is over 𝒢_jk.
    weights : (nodes, averages)
    upper : (b,) of bool
        Blocks of the first half of a doubled problem.
    share : (nodes,)
        Weight of a node in traces.
    image : (points, averages), response : (points, averages, quantities)
    traces : (points, 2) or empty, trace_slopes : (points, 2, quantities)
    """
    nodes, size = constant.shape[0], constant.shape[1]
    unknowns, traced = t.shape[1], traces.shape[0] > 0
    matrix = np.empty((size, size), np.complex128)
    G = np.empty((size, size), np.complex128)
    factors = np.empty(sources.shape[0], np.complex128)
    for p in range(len(z)):
        for e in range(sources.shape[0]):
            m = sources[e, 0]
            factors[e] = t[p, m] if m < unknowns else z[p] if m == unknowns else z[p].conjugate()
        for x in range(nodes):
            for i in range(size):
                for k in range(size):
                    matrix[i, k] = constant[x, i, k]
            for e in range(sources.shape[0]):
                matrix[sources[e, 1], sources[e, 2]] -= values[x, e] * factors[e]
            if eta != 0.0:
                for i in range(size):
                    matrix[i, i] -= 1j * eta
            if not invert(matrix, G):
                G[:] = np.nan
            for r in range(rows.shape[0]):
                image[p, rows[r, 0]] += weights[x, r] * G[rows[r, 1], rows[r, 2]]
            if traced:
                for i in range(size):
                    traces[p, 0 if upper[i] else 1] += share[x] * G[i, i]
            if not slopes:
                continue
            for e in range(sources.shape[0]):
                m, i, l, value = sources[e, 0], sources[e, 1], sources[e, 2], values[x, e]
                if value == 0.0:
                    continue
                for r in range(rows.shape[0]):
                    product = G[rows[r, 1], i] * G[l, rows[r, 2]]
                    response[p, rows[r, 0], m] += weights[x, r] * value * product
                for k in range(size if traced else 0):
                    trace_slopes[p, 0 if upper[k] else 1, m] += share[x] * value * G[k, i] * G[l, k]
