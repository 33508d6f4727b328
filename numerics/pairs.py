"""Averages ⟨f(u) g(v)⟩ over many pairs of Gaussian arguments at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Symbol, lambdify

from quenched.theory.problem import C12, M1, M2, V1, V2, SiteFunction

from .averages import Averages
from .public import bare_problem
from .quadrature import trapezoid
from .types import Array

#: Up to so many different (mean, variance) of both arguments each combination gets its own table over the covariance.
_TABLES = 60
#: Hermite polynomials in the series over many arguments, and the tail at which it is good enough.
_ORDERS, _TAIL = 240, 1e-10
_NODES = 1601
#: Rows of a block of a large table.
_ROWS = 64


class PairAverages:
    """⟨f g⟩ of one pair of site functions at given parameters.

    Parameters
    ----------
    f, g : SiteFunction
    closed : the average in the slots of `theory.problem`, where it is known
    values : dict Symbol → float
    """

    def __init__(self, f: SiteFunction, g: SiteFunction, closed: Expr | None, values: Mapping[Symbol, Any]) -> None:
        self.same = f == g
        self._averages = Averages(bare_problem(f, g, None), None, dict(values))
        self._closed = None if closed is None else _compiled(closed.subs(dict(values)))
        self._sites = [self._averages.site(self._averages.generated.site(s)) for s in (f, g)]

    @property
    def in_closed_form(self) -> bool:
        """Whether an array costs no more than a few elementary functions."""
        return self._closed is not None

    def __call__(self, m1: Array, m2: Array, v1: Array, v2: Array, c: Array) -> tuple[Array, Array]:
        """Averages and their estimated absolute errors; all arguments broadcast."""
        if self._closed is not None:
            out = self._closed(m1, m2, v1, v2, c)
            largest = max(float(out.max(initial=0.0)), -float(out.min(initial=0.0)))
            if np.isfinite(largest):
                shape = np.broadcast_shapes(*(np.shape(x) for x in (m1, m2, v1, v2, c)))
                return np.broadcast_to(out, shape), np.broadcast_to(1e-15 * largest, shape)
        slots = np.broadcast_arrays(*(np.asarray(x, float) for x in (m1, m2, v1, v2, c)))
        flat = [x.ravel() for x in slots]
        out, error = self._many(*flat)
        return out.reshape(slots[0].shape), error.reshape(slots[0].shape)

    def _many(self, m1: Array, m2: Array, v1: Array, v2: Array, c: Array) -> tuple[Array, Array]:
        places, where = np.unique(np.round(np.stack([m1, m2, v1, v2]), 14), axis=1, return_inverse=True)
        where = where.ravel()
        if places.shape[1] > _TABLES and not any(len(s.kinks) for s in self._sites):
            series = self._series(m1, m2, v1, v2, c)
            if series is not None:
                return series
        out, error = np.empty(len(c)), np.empty(len(c))
        for k in range(places.shape[1]):
            rows = np.flatnonzero(where == k)
            out[rows], error[rows] = self._one(tuple(float(x) for x in places[:, k]), c[rows])
        return out, error

    def _one(self, place: tuple[float, ...], c: Array) -> tuple[Array, Array]:
        """All covariances at one pair of means and variances."""
        m1, m2, v1, v2 = place
        if v1 <= 0 or v2 <= 0:
            return self._certain(m1, m2, v1, v2, c)
        if len(c) == 1 and self.same and m1 == m2 and c[0] >= max(v1, v2) * (1 - 1e-14):
            number = self._averages.equal_time(0, 0, 0, m1, v1)
            return np.array([number.value]), np.array([number.error])
        table = self._averages.table(0, np.array([m1, m2]), np.array([v1, v2]), slopes=False)
        return np.asarray(table.at(table.theta(c))), np.full(len(c), table.error)

    def _certain(self, m1: float, m2: float, v1: float, v2: float, c: Array) -> tuple[Array, Array]:
        """An argument without variance is a number."""
        parts = []
        for site, m, v in zip(self._sites, (m1, m2), (v1, v2), strict=True):
            if v <= 0:
                parts.append((float(site.value(np.array([m]))[0]), 0.0))
            else:
                z, w = trapezoid(_NODES)
                values = site.value(m + np.sqrt(v) * z)
                parts.append((float(values @ w), abs(float(values @ w - 2 * (values[::2] @ w[::2])))))
        value = parts[0][0] * parts[1][0]
        error = abs(parts[0][0]) * parts[1][1] + abs(parts[1][0]) * parts[0][1]
        return np.full(len(c), value), np.full(len(c), error)

    def _series(self, m1: Array, m2: Array, v1: Array, v2: Array, c: Array) -> tuple[Array, Array] | None:
        """Mehler's series Σ_k ρ^k f_k g_k in the Hermite coefficients of either function, or None if it is too long."""
        first, i = self._coefficients(0, m1, v1)
        second, j = self._coefficients(1, m2, v2)
        rho = np.clip(c / np.sqrt(np.maximum(v1 * v2, 1e-300)), -1, 1)
        equal = self.same & (rho > 1 - 1e-12) & (m1 == m2)  # the slowest of all, and an average over one number
        out, power = np.zeros(len(c)), np.where(equal, 0.0, 1.0)
        for k in range(first.shape[1]):
            out += power * first[i, k] * second[j, k]
            power *= rho
            if k % 8 == 7 and np.abs(power).max() * _largest(first, k) * _largest(second, k) < _TAIL**1.3:
                break
        if np.any(equal):
            places, where = np.unique(np.stack([m1, v1])[:, equal], axis=1, return_inverse=True)
            z, w = trapezoid(_NODES)
            values = self._sites[0].value((places[0][:, None] + np.sqrt(places[1])[:, None] * z).ravel())
            out[equal] = (values.reshape(-1, len(z)) ** 2 @ w)[np.asarray(where).ravel()]
        size = np.abs(out) + 1e-300
        decay = np.abs(first[i, -8:] * second[j, -8:]).max(axis=1) * np.abs(power)
        tail = decay / np.maximum(1 - np.abs(rho), 1 / _ORDERS)
        return (out, tail) if np.all(tail < _TAIL * size.max()) else None

    def _coefficients(self, which: int, m: Array, v: Array) -> tuple[Array, NDArray[np.int64]]:
        places, where = np.unique(np.stack([m, v]), axis=1, return_inverse=True)
        z, w = trapezoid(_NODES)
        basis = _hermite(_ORDERS, _NODES)
        values = self._sites[which].value((places[0][:, None] + np.sqrt(places[1])[:, None] * z).ravel())
        return values.reshape(-1, len(z)) @ (basis * w).T, np.asarray(where).ravel()


def _largest(coefficients: Array, k: int) -> float:
    """Size of the coefficients beyond the k-th."""
    return float(np.abs(coefficients[:, k:]).max())


@lru_cache(maxsize=4)
def _hermite(orders: int, nodes: int) -> Array:
    """Normalised Hermite polynomials He_k(z)/√k! at the trapezoid's nodes, (orders, nodes)."""
    z, _ = trapezoid(nodes)
    rows = [np.ones_like(z), z]
    for k in range(1, orders - 1):
        rows.append((z * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    return np.array(rows)


def _compiled(closed: Expr) -> Callable[..., Array]:
    """The closed form as an array function of the five slots; rounding beyond |c| = √(v1 v2) does not matter."""
    function = lambdify((M1, M2, V1, V2, C12), closed, modules=["scipy", "numpy"])

    def value(m1: Array, m2: Array, v1: Array, v2: Array, c: Array) -> Array:
        with np.errstate(all="ignore"):
            out = _by_rows(function, m1, m2, v1, v2, c)
            if np.isfinite(out.sum()):
                return out
            edge = np.sqrt(v1) * np.sqrt(v2)
            return np.asarray(function(m1, m2, v1, v2, np.minimum(np.maximum(c, -edge), edge)), dtype=float)

    return value


def _by_rows(function: Callable[..., Any], *slots: Array) -> Array:
    """A function of arrays, of large tables in blocks of rows: its intermediate results then stay in the cache."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in slots))
    if len(shape) != 2 or shape[0] < 2 * _ROWS:
        return np.asarray(function(*slots), dtype=float)
    out = np.empty(shape)
    for first in range(0, shape[0], _ROWS):
        rows = slice(first, first + _ROWS)
        out[rows] = function(*(x[rows] if np.shape(x)[:-1] == shape[:1] else x for x in slots))
    return out
