"""Where saddles end: folds of branches, and points where the volume of solutions shrinks to nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from sympy import Symbol

from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem_replicas import ReplicaProblem

from .replica import Evaluator, newton, starts
from .types import Array, Number

#: Smallest relative step of a continuation.
SMALLEST = 1e-4


def shrinking(
    problem: ReplicaProblem,
    parameter: Symbol,
    overlap: Symbol,
    values: dict[Symbol, float],
    bracket: tuple[float, float],
) -> Number:
    """The parameter at which an overlap reaches 1, where the volume of solutions shrinks to a point.

    The saddle is solved for the parameter at overlaps 1 − ε, and extrapolated to ε → 0. At zero temperature the scale
    of the susceptibility is arbitrary there, and the saddle is solved for the parameter at one value of it.
    """
    index = [s for s, _ in problem.equations].index(overlap)
    if problem.cold:
        gap = _gap(problem, parameter, index, values, 1.0)
        return Number(_root(gap, bracket, str(overlap), parameter), 1e-10)
    found = []
    for eps in (4e-4, 2e-4, 1e-4):
        inner = _gap(problem, parameter, index, values, 1 - eps)
        found.append(_root(lambda p, f=inner, e=eps: f(p) / e, bracket, str(overlap), parameter))  # type: ignore[misc]
    first = [2 * b - a for a, b in pairwise(found)]
    return Number(first[-1], abs(first[-1] - first[0]))


def _gap(
    problem: ReplicaProblem, parameter: Symbol, index: int, values: dict[Symbol, float], fixed: float
) -> Callable[[float], float]:
    """How far the equation of one unknown is from its fixed value, all others solved."""

    def gap(p: float) -> float:
        ev = Evaluator(problem, values | {parameter: p})
        x = next(starts(problem))
        for _ in range(400):
            x[index] = fixed
            new = ev.update(x)
            done = np.delete(np.abs(new - x) / (1 + np.abs(x)), index)
            x = new
            if np.max(done, initial=0.0) < 1e-13:
                break
        return float(new[index] - fixed)

    return gap


def _root(gap: Callable[[float], float], bracket: tuple[float, float], what: str, parameter: Symbol) -> float:
    if not gap(bracket[0]) * gap(bracket[1]) < 0:
        raise QuenchedError(f"{what} does not end for {parameter} in {bracket}: give a wider bracket")
    return float(brentq(gap, *bracket, xtol=1e-12))


def fold(
    problem: ReplicaProblem, parameter: Symbol, values: dict[Symbol, float], start: Array, bracket: tuple[float, float]
) -> tuple[Number, Array]:
    """The parameter at which a branch turns back and is lost, from its first value in the bracket towards the second.

    The branch is followed with shrinking steps; then the unknown that changes fastest takes the place of the parameter,
    which is smooth and extremal there.

    Returns
    -------
    parameter with its error, unknowns at the fold

    Raises
    ------
    QuenchedError
        The branch reaches the other end of the bracket.
    """
    path = _follow(problem, parameter, values, start, bracket)
    (p0, x0), (p1, x1) = path[-2:]
    fast = int(np.argmax(np.abs(x1 - x0) / (0.05 + np.abs(x1))))
    slope = (x1[fast] - x0[fast]) / (p1 - p0)
    ahead = np.sign(p1 - p0)
    last = [(p1, x1)]

    def turned(value: float) -> float:
        last.append(_solved(problem, parameter, values, fast, value, last[-1][1], last[-1][0]))
        return float(-ahead * last[-1][0])

    step = slope * (p1 - p0)
    before, here = x1[fast], x1[fast] + step
    level, new = -ahead * p1, turned(here)
    for _ in range(60):
        if new > level:
            break
        before, here, level = here, here + step, new
        new = turned(here)
        step *= 1.3
    else:
        raise ConvergenceError(f"the fold in {parameter} near {p1:g} was not bracketed")
    lo, hi = sorted((2 * before - here, here))
    best = minimize_scalar(turned, bounds=(lo, hi), method="bounded", options={"xatol": 1e-7 * (1 + abs(here))})
    at = float(-ahead * best.fun)
    return Number(at, 1e-8 * (1 + abs(at)) + 1e-10), last[-1][1]


def _follow(
    problem: ReplicaProblem, parameter: Symbol, values: dict[Symbol, float], start: Array, bracket: tuple[float, float]
) -> list[tuple[float, Array]]:
    """Points of a branch up to where it is lost."""
    p, end = bracket
    x, *_ = newton(Evaluator(problem, values | {parameter: p}), start)
    path = [(p, x)]
    step = (end - p) / 20
    while abs(step) > SMALLEST * abs(end - bracket[0]):
        trial = p + step
        guess = x if len(path) < 2 else x + (x - path[-2][1]) * (step / (p - path[-2][0]))
        try:
            new, *_ = newton(Evaluator(problem, values | {parameter: trial}), guess)
            if np.max(np.abs(new - x) / (0.1 + np.abs(x))) > 0.5:
                raise ConvergenceError("the solution jumps")
        except (ConvergenceError, ValueError):
            step /= 2
            continue
        p, x = trial, new
        path.append((p, x))
        if abs(p - end) < 1e-12 * (1 + abs(end)):
            raise QuenchedError(f"the branch does not end for {parameter} in {bracket}: give a wider bracket")
        step = np.sign(step) * min(abs(step), abs(end - p))
    if len(path) < 2:
        raise ConvergenceError(f"the branch is lost at once at {parameter} = {bracket[0]:g}")
    return path


def _solved(
    problem: ReplicaProblem,
    parameter: Symbol,
    values: dict[Symbol, float],
    fixed: int,
    value: float,
    x: Array,
    p: float,
) -> tuple[float, Array]:
    """(parameter, unknowns) with one unknown given: Newton's method with the parameter in its place."""
    y = x.copy()
    y[fixed] = value

    def residual(y: Array, p: float) -> Array:
        return Evaluator(problem, values | {parameter: p}).update(y) - y

    for _ in range(30):
        r = residual(y, p)
        if np.max(np.abs(r) / (1 + np.abs(y))) < 1e-11:
            return p, y
        slope = np.empty((len(y), len(y)))
        for j in range(len(y)):
            h = 1e-7 * max(abs(y[j]) if j != fixed else abs(p), 1e-3)
            moved = y.copy()
            moved[j] += 0.0 if j == fixed else h
            slope[:, j] = (residual(moved, p + (h if j == fixed else 0.0)) - r) / h
        move = np.linalg.lstsq(slope, -r, rcond=None)[0]
        scale = min(1.0, *(0.3 * (0.1 + abs(a)) / max(abs(m), 1e-300) for a, m in zip(y, move, strict=True)))
        p += float(move[fixed]) * scale
        move[fixed] = 0.0
        y = y + move * scale
    if np.max(np.abs(r) / (1 + np.abs(y))) < 1e-8:
        return p, y
    raise ConvergenceError("the branch near its fold did not converge")
