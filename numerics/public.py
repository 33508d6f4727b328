"""Gaussian averages of site functions, for whoever needs one number."""

from __future__ import annotations

from dataclasses import replace
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


# -- units with labels ------------------------------------------------------------------------------------------------
@lru_cache(maxsize=256)
def labelled_problem(
    problem: StationaryGaussian, f: SiteFunction, a: int, g: SiteFunction | None, b: int
) -> StationaryGaussian:
    """A problem with the arguments and labels of another, that holds one function or two and no dynamics."""
    zero = Integer(0)
    twos = () if g is None else (TwoPoint(f, a, g, b),)
    return replace(
        problem,
        pairs=((a, b),),
        one_points=(OnePoint(f, a),),
        two_points=twos,
        mean_gain=((zero,),) * len(problem.arguments),
        gain=((zero,) * len(twos),),
        noise=(zero,),
        static=(zero,),
        closure=1,
        closing=(),
        responses={},
    )


def labelled1(problem: StationaryGaussian, f: SiteFunction, a: int, m: float, v: float, values: Values) -> Number:
    """⟨f(u_a)⟩ over units and their labels; m is the mean of u_a over labels too."""
    averages = Averages(labelled_problem(problem, f, a, None, a), None, values)
    return averages.one(0, float(m), max(float(v), 1e-24))


def labelled2(
    problem: StationaryGaussian,
    a: int,
    b: int,
    f: SiteFunction,
    g: SiteFunction,
    m1: float,
    m2: float,
    v1: float,
    v2: float,
    c: Array | float,
    values: Values,
) -> tuple[Array, Array]:
    """⟨f(u_a) g(u_b)⟩ over units and their labels at covariances c given the labels."""
    averages = Averages(labelled_problem(problem, f, a, g, b), None, values)
    means, sizes = np.zeros(len(problem.arguments)), np.ones(len(problem.arguments))
    means[[a, b]], sizes[[a, b]] = (m1, m2), (max(v1, 1e-24), max(v2, 1e-24))
    table = averages.table(0, means, sizes)
    c = np.asarray(c, dtype=float)
    return np.asarray(table.at(table.theta(c))), np.full(c.shape, table.error)


def label_variance(problem: StationaryGaussian, values: Values, a: int) -> float:
    """Variance over labels of the mean of an argument."""
    averages = Averages(replace(problem, closing=()), None, values)
    return float(averages.weights @ averages.offsets()[: len(averages.weights), a] ** 2)
