"""Solutions along the way from the start: observables at given times, their peaks, and courses of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.interpolate import CubicSpline
from sympy import Expr, Symbol, lambdify

from quenched.readout import Quantity
from quenched.solution import Branch, Solution
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import At, Field, Quenched
from quenched.theory.naming import field_names, unbind, unit_name
from quenched.theory.observables import Functional, Mean
from quenched.theory.spaces import Population, t
from quenched.theory.transient import Course, is_transient, transients_of

if TYPE_CHECKING:
    from quenched.numerics.points import PointPaths
    from quenched.theory_object import Theory

Array = Any
#: Points of time between the start and the end where none are asked for.
POINTS = 401


def solve_courses(theory: Theory, values: Mapping[Any, float], times: Array | None) -> Solution:
    """Follow units without fluctuations from their declared start.

    Parameters
    ----------
    times : where courses of time are wanted, from 0 on; without them up to the latest time that is observed

    Raises
    ------
    QuenchedError
        No times, and no observable that has one.
    """
    from quenched.numerics.points import solve_points

    problem = theory.derivation.points
    assert problem is not None
    end = last_time(theory, values)
    if times is None and end == 0:
        raise QuenchedError("units follow their paths from the start: give times=, or observe values at given times")
    grid = np.asarray(times, dtype=float) if times is not None else np.linspace(0, end, POINTS)
    if problem.clock == "map":
        grid = np.arange(round(float(grid[-1])) + 1.0)
    paths = solve_points(problem, dict(values), grid)
    reader = _Reader(theory, paths, dict(values))
    nothing = Quantity(float("nan"), float("inf"))
    branch = Branch("in time", "dynamic", True, nothing, reader.names(), reader.quantity)
    shown = {str(k): float(v) for k, v in values.items()}
    return Solution([branch], 0, shown, Solution.provenance_of(theory) | {"method": "paths given the labels"})


def last_time(theory: Theory, values: Mapping[Any, float]) -> float:
    """The latest time that an observable reads."""
    found = {k: e for k, e in theory.model.observables.items() if is_transient(e)}
    return max((float(s.time.xreplace(dict(values))) for s in transients_of(found).slots), default=0.0)


class _Reader:
    """Observables of solved paths, by name."""

    def __init__(self, theory: Theory, paths: PointPaths, values: dict[Any, float]) -> None:
        self.model, self.paths, self.values = theory.written, paths, values
        self.populations = [u.population for u in paths.problem.units]

    def names(self) -> list[str]:
        fields = [f"mean_{name}" for name in field_names(self.model).values()]
        return list(dict.fromkeys([*fields, *self.model.observables]))

    def quantity(self, name: str) -> Quantity:
        if name in self.model.observables:
            expr = self.model.observables[name]
            return self._numbers(name, expr) if is_transient(expr) else self._curve(expr)
        (fld,) = (f for f, label in field_names(self.model).items() if f"mean_{label}" == name)
        return self._curve(Mean(fld, fld.population))

    def course(self, course: Course) -> Array:
        """⟨body⟩ at the times of the paths."""
        if course.population.name not in self.populations:
            raise NotCovered(f"{course.body}: the derivation has no units of {course.population.name!r}")
        k = self.populations.index(course.population.name)
        return self.paths.course(self._symbols(course.body, course.population), k)

    def _symbols(self, body: Expr, population: Population) -> Expr:
        names = field_names(self.model)
        swap = {f: Symbol(names[f], real=True) for f in body.atoms(Field)}
        return body.xreplace({**swap, **{q: Symbol(unit_name(q), real=True) for q in body.atoms(Quenched)}})

    def _curve(self, expr: Expr) -> Quantity:
        if expr.atoms(Functional) or expr.atoms(At):
            raise NotCovered(f"no theory formula for {expr} on the way from the start")
        nodes = sorted(expr.atoms(Mean), key=str)
        courses = [self.course(Course(unbind(m.body), m.population)) for m in nodes]
        marks = [Symbol(f"course_{k}", real=True) for k in range(len(nodes))]
        value = self._evaluate(expr.xreplace(dict(zip(nodes, marks, strict=True))), marks, courses)
        return Quantity(value, self._error(value), "t", self.paths.times)

    def _evaluate(self, formula: Expr, marks: list[Symbol], courses: list[Array]) -> Array:
        function = lambdify([*marks, t], formula.xreplace(self.values), "numpy")
        value = np.asarray(function(*courses, self.paths.times), dtype=float)
        return np.broadcast_to(value, self.paths.times.shape)

    def _error(self, value: Array) -> Array:
        return 100 * self.paths.tolerance * (np.abs(value) + 1e-3)

    def _numbers(self, name: str, expr: Expr) -> Quantity:
        parts = transients_of({name: expr})
        courses = [self.course(c) for c in parts.courses]
        marks = [Symbol(f"course_{k}", real=True) for k in range(len(courses))]
        found = {}
        for k, slot in enumerate(parts.slots):
            curve = self._evaluate(slot.formula, marks, courses)
            end = float(slot.time.xreplace(self.values))
            found[Symbol(f"slot_{k}", real=True)] = read_slot(slot.kind, self.paths.times, curve, end)
        function = lambdify(list(found), parts.formulas[name].xreplace(self.values), "numpy")
        value = float(function(*(v for v, _ in found.values())))
        error = 0.0
        for k, (_, e) in enumerate(found.values()):
            moved = [v + (e if j == k else 0.0) for j, (v, _) in enumerate(found.values())]
            error += abs(float(function(*moved)) - value)
        return Quantity(value, error + float(self._error(value)))


def read_slot(kind: str, times: Array, curve: Array, end: float) -> tuple[float, float]:
    """A value at a time, the largest value up to it, or when that is reached, by cubic splines; with its error."""
    spline, coarse = CubicSpline(times, curve), CubicSpline(times[::2], curve[::2])
    if kind == "at":
        return float(spline(end)), abs(float(spline(end) - coarse(end))) / 15
    places = [np.append(s.derivative().roots(extrapolate=False), [0.0, end]) for s in (spline, coarse)]
    best = []
    for s, at in zip((spline, coarse), places, strict=True):
        inside = at[(at >= 0) & (at <= end)]
        values = s(inside)
        k = int(np.argmax(values))
        best.append((float(values[k]), float(inside[k])))
    place = 0 if kind == "peak" else 1
    return best[0][place], abs(best[0][place] - best[1][place]) / 15
