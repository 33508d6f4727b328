"""Where saddles end: folds of branches, and points where the volume of solutions shrinks to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq, root
from sympy import Symbol

from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem_replicas import ReplicaProblem

from .replica import newton, starts
from .replica_evaluator import Evaluator
from .replica_slopes import jacobian
from .types import Array, Number

#: First, smallest and largest step along a branch, unknowns and parameter in units of their size.
FIRST, SMALLEST, LARGEST = 0.05, 1e-6, 0.4
#: Points of a branch that are followed at most.
MOST = 400
#: Residual of a point of a branch.
TOL = 1e-10


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

    near: list[Array] = []
    multipliers: dict[Symbol, float] = {}  # those of the last parameter are close

    def gap(p: float) -> float:
        ev = Evaluator(problem, values | {parameter: p})
        ev.guess = multipliers
        x = near[-1].copy() if near else next(starts(problem))
        for k in range(400):
            x[index] = fixed
            new = ev.update(x)
            done = np.delete(np.abs(new - x) / (1 + np.abs(x)), index)
            x = new
            if np.max(done, initial=0.0) < 1e-13:
                near.append(x)
                break
            if k == 20:
                x = _others(ev, x, index, fixed)
        return float(new[index] - fixed)

    return gap


def _others(ev: Evaluator, x: Array, index: int, fixed: float) -> Array:
    """All other unknowns at the fixed one, by Powell's hybrid method; unchanged where that does not get there."""
    rest = np.arange(len(x)) != index

    def whole(y: Array) -> Array:
        out = x.copy()
        out[index], out[rest] = fixed, y
        return out

    def residual(y: Array) -> Array:
        try:
            return ev.update(whole(y))[rest] - y
        except (ConvergenceError, ValueError):
            return np.full(len(y), 1e3)

    found = root(residual, x[rest], method="hybr", tol=1e-13)
    return whole(found.x) if np.max(np.abs(found.fun)) < 1e-9 else x


def _root(gap: Callable[[float], float], bracket: tuple[float, float], what: str, parameter: Symbol) -> float:
    if not gap(bracket[0]) * gap(bracket[1]) < 0:
        raise QuenchedError(f"{what} does not end for {parameter} in {bracket}: give a wider bracket")
    return float(brentq(gap, *bracket, xtol=1e-12))


def fold(
    problem: ReplicaProblem, parameter: Symbol, values: dict[Symbol, float], start: Array, bracket: tuple[float, float]
) -> tuple[Number, Array]:
    """The parameter at which a branch turns back and is lost, from its first value in the bracket towards the second.

    The branch is followed by arc length, in which it is smooth where it turns; there its direction has no component
    along the parameter.

    Returns
    -------
    parameter with its error, unknowns at the fold

    Raises
    ------
    QuenchedError
        The branch reaches the other end of the bracket.
    """
    x, *_ = newton(Evaluator(problem, values | {parameter: bracket[0]}), start)
    span = bracket[1] - bracket[0]
    curve = _Curve(problem, parameter, values, np.append(0.05 + np.abs(x), abs(span)))
    here = curve.at(np.append(x, bracket[0]), np.append(np.zeros(len(x)), np.sign(span)))
    ahead, step = np.sign(span), FIRST
    for _ in range(MOST):
        there = curve.ahead(here, step)
        if there is None:
            step /= 2
            if step < SMALLEST:
                raise ConvergenceError(f"the branch is lost near {parameter} = {here.y[-1]:g} without turning back")
            continue
        if ahead * there.along <= 0:
            return _turning(curve, here, step)
        if ahead * (there.y[-1] - bracket[1]) > 0:
            raise QuenchedError(f"the branch does not end for {parameter} in {bracket}: give a wider bracket")
        here, step = there, min(step * (1.6 if there.count < 4 else 1.0), LARGEST)
    raise ConvergenceError(f"the branch was followed to {parameter} = {here.y[-1]:g} and did not turn back")


@dataclass(frozen=True)
class _Point:
    """A point of a branch: (unknowns, parameter), unit tangent in units of their size, and corrections that it took."""

    y: Array
    tangent: Array
    count: int

    @property
    def along(self) -> float:
        """Change of the parameter along the branch."""
        return float(self.tangent[-1])


@dataclass(frozen=True)
class _Curve:
    """Solutions of the saddle-point equations as one parameter varies."""

    problem: ReplicaProblem
    parameter: Symbol
    values: dict[Symbol, float]
    scale: Array

    def _residual(self, y: Array) -> tuple[Array, Array]:
        """Relative residuals and their derivatives (equations, unknowns and parameter) in units of their size."""
        x, p = y[:-1], float(y[-1])
        ev = Evaluator(self.problem, self.values | {self.parameter: p})
        there = ev.update(x)
        h = 1e-6 * max(abs(p), 1e-3 * float(self.scale[-1]))
        moved = Evaluator(self.problem, self.values | {self.parameter: p + h}).update(x)
        slope = np.column_stack([jacobian(ev, x, there) - np.eye(len(x)), (moved - there) / h])
        if not np.isfinite(slope).all() or not np.isfinite(there).all():
            raise ConvergenceError("the branch left the region where its equations are finite")
        rows = 1 + np.abs(x)
        return (there - x) / rows, slope * self.scale / rows[:, None]

    def at(self, y: Array, direction: Array, slope: Array | None = None, count: int = 0) -> _Point:
        """A point with its tangent, which continues a direction."""
        slope = self._residual(y)[1] if slope is None else slope
        tangent = np.linalg.svd(slope)[2][-1]
        return _Point(y, tangent * (1 if tangent @ direction >= 0 else -1), count)

    def ahead(self, here: _Point, step: float) -> _Point | None:
        """The point of the branch at a distance along its tangent; None where that is too far."""
        y = guess = here.y + step * here.tangent * self.scale
        for count in range(8):
            try:
                residual, slope = self._residual(y)
            except (ConvergenceError, ValueError, OverflowError, ZeroDivisionError):
                return None
            if np.max(np.abs(residual)) < TOL:
                found = self.at(y, here.tangent, slope, count)
                return found if found.tangent @ here.tangent > 0.9 else None
            off = here.tangent @ ((y - guess) / self.scale)
            matrix = np.vstack([slope, here.tangent])
            y = y - self.scale * np.linalg.lstsq(matrix, np.append(residual, off), rcond=None)[0]
        return None


def _turning(curve: _Curve, here: _Point, step: float) -> tuple[Number, Array]:
    """Where the parameter is extremal, within one step of a point."""
    found = [here]

    def along(s: float) -> float:
        there = curve.ahead(here, s) if s > 0 else here
        if there is None:
            raise ConvergenceError("the branch near its fold did not converge")
        found.append(there)
        return there.along

    brentq(along, 0.0, step, xtol=1e-7, rtol=1e-10)
    best = min(found, key=lambda q: abs(q.along))
    at = float(best.y[-1])
    return Number(at, 1e-8 * (1 + abs(at)) + abs(best.along) * step), best.y[:-1]
