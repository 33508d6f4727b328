"""Problems of units without fluctuations: each unit follows a path that its labels fix."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Symbol

from quenched.theory.problem import Clock, Label


@dataclass(frozen=True)
class PointUnit:
    """The units of one population.

    Attributes
    ----------
    population : its name
    states : symbols of the states
    rhs : right-hand side of every state, in states, numbers, labels, parameters and time
    start : start value of every state, in labels and parameters
    labels : quenched numbers of a unit, and start values that are drawn
    """

    population: str
    states: tuple[Symbol, ...]
    rhs: tuple[Expr, ...]
    start: tuple[Expr, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class PointProblem:
    """Paths of all units, coupled by averages.

    Attributes
    ----------
    clock, advance : flow or map, and what a step adds to t
    parameters : symbols that need values
    units : one a population
    numbers : (symbol, ((coefficient, population number, average), …)): what units feel, Σ coefficient·⟨average⟩
    """

    clock: Clock
    advance: Expr
    parameters: tuple[Symbol, ...]
    units: tuple[PointUnit, ...]
    numbers: tuple[tuple[Symbol, tuple[tuple[Expr, int, Expr], ...]], ...]
