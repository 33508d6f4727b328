"""Gaussian averages of site functions, for whoever needs one number."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from sympy import Expr, Integer, Symbol

from quenched.theory.problem import (
    Argument,
    OnePoint,
    SiteFunction,
    StationaryGaussian,
    TwoPoint,
)

from .averages import Averages
from .types import Array, Number

Values = dict[Symbol, float]


@lru_cache(maxsize=256)
def bare_problem(f: SiteFunction, g: SiteFunction, closed: Expr | None) -> StationaryGaussian:
    """A problem that holds the two functions and no dynamics."""
    zero = Integer(0)
    return StationaryGaussian(
        clock="map",
        parameters=(),
        labels=(),
        arguments=(Argument("u", "units", zero), Argument("v", "units", zero)),
        pairs=((0, 1),),
        one_points=(OnePoint(f, 0),),
        two_points=(TwoPoint(f, 0, g, 1, closed),),
        mean_gain=((zero,), (zero,)),
        gain=((zero,),),
        noise=(zero,),
        static=(zero,),
        closure=1,
    )


def average1(f: SiteFunction, m: float, v: float, values: Values) -> Number:
    """⟨f(u)⟩ for u Gaussian with mean m and variance v, and its estimated absolute error."""
    return Averages(bare_problem(f, f, None), None, values).one(0, float(m), max(float(v), 1e-300))


def average2(
    f: SiteFunction,
    g: SiteFunction,
    m1: float,
    m2: float,
    v1: float,
    v2: float,
    c: Array | float,
    values: Values,
    closed: Expr | None = None,
) -> tuple[Array, Array]:
    """⟨f(u) g(v)⟩ for Gaussian u, v and an array of covariances c; values and estimated absolute errors, shaped as c.

    Parameters
    ----------
    closed : Expr, optional
        The average in the slots of `theory.problem`, if it is known.
    """
    averages = Averages(bare_problem(f, g, closed), None, values)
    table = averages.table(0, np.array([m1, m2], dtype=float), np.array([v1, v2], dtype=float))
    c = np.asarray(c, dtype=float)
    out = np.asarray(table.at(table.theta(c)))
    return out, np.full(c.shape, table.error)
