"""Observables of the way from the declared start: values at given times, and peaks.

``mean(m*tanh(x(3)))`` is an average at time 3; ``Peak(expr, until=T)`` and ``PeakTime(expr, until=T)`` are the largest
value of an expression in averages over 0 ≤ t ≤ T, and when it is reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sympy import Basic, Expr, S, Symbol

from quenched.theory.errors import QuenchedError
from quenched.theory.fields import At, Field, unbind
from quenched.theory.observables import Functional, Mean, Peak, PeakTime
from quenched.theory.spaces import Population, t, tau


@dataclass(frozen=True)
class Course:
    """⟨body⟩ over a population as a function of time."""

    body: Expr
    population: Population


@dataclass(frozen=True)
class Slot:
    """One number read off the course of time.

    Attributes
    ----------
    kind : "at" (value at `time`), "peak" or "peak time" (over 0 ≤ t ≤ time)
    formula : expression in the symbols of courses, ``course_k``
    time : expression in the parameters
    """

    kind: str
    formula: Expr
    time: Expr


@dataclass(frozen=True)
class Transients:
    """All observables of a model as formulas in slots, ``slot_k``, over common courses."""

    courses: tuple[Course, ...]
    slots: tuple[Slot, ...]
    formulas: dict[str, Expr]


def is_transient(expr: Basic) -> bool:
    """Whether an observable is about the way from the start alone (one that compares it with the present is not)."""
    if expr.atoms(Peak, PeakTime):
        return True
    fixed = any(not a.time.has(t, tau) for a in _times(expr))
    return fixed and not any(_present(m) or any(a.time.has(t) for a in _times(m)) for m in expr.atoms(Mean))


def transient(model: Any) -> bool:
    """Whether a model observes the way from its start."""
    return any(is_transient(e) for e in model.observables.values())


def transients_of(observables: dict[str, Expr]) -> Transients:
    """Take observables apart.

    Raises
    ------
    QuenchedError
        Averages that mix times, or averages without a time beside others that have one.
    """
    reader = _Reader()
    return reader.read(observables)


class _Reader:
    def __init__(self) -> None:
        self.courses: list[Course] = []
        self.slots: list[Slot] = []

    def read(self, observables: dict[str, Expr]) -> Transients:
        formulas = {name: self._formula(expr) for name, expr in observables.items()}
        return Transients(tuple(self.courses), tuple(self.slots), formulas)

    def _formula(self, expr: Expr) -> Expr:
        nodes = _outer(expr)
        return expr.xreplace({node: self._slot(node) for node in sorted(nodes, key=str)})

    def _slot(self, node: Expr) -> Symbol:
        if isinstance(node, (Peak, PeakTime)):
            inside = _outer(node.expression)
            formula = node.expression.xreplace({m: self._course(m, t) for m in sorted(inside, key=str)})
            slot = Slot("peak" if isinstance(node, Peak) else "peak time", formula, node.until)
        elif isinstance(node, Mean):
            times = {a.time for a in _times(node)}
            if len(times) != 1 or next(iter(times)).has(t, tau) or _present(node):
                raise QuenchedError(f"{node}: beside values at given times, averages are taken at one given time each")
            (time,) = times
            slot = Slot("at", self._course(node, time), time)
        else:
            raise QuenchedError(f"{type(node).__name__} is not read off the course of time")
        if slot not in self.slots:
            self.slots.append(slot)
        return Symbol(f"slot_{self.slots.index(slot)}", real=True)

    def _course(self, node: Any, time: Expr) -> Symbol:
        body = unbind(node.body)
        bare = body.xreplace({a: a.field for a in body.atoms(At) if a.time == time})
        if bare.atoms(At):
            raise QuenchedError(f"{node} mixes several times")
        course = Course(bare, node.population)
        if course not in self.courses:
            self.courses.append(course)
        return Symbol(f"course_{self.courses.index(course)}", real=True)


def _outer(expr: Basic) -> set[Any]:
    if isinstance(expr, (Mean, Functional)):
        return {expr}
    return set().union(*(_outer(a) for a in expr.args))


def _times(expr: Basic) -> Iterable[At]:
    return expr.atoms(At)


def _present(node: Mean) -> bool:
    """Whether a field is taken at the present time."""
    return bool(unbind(node.body).xreplace({a: S.One for a in unbind(node.body).atoms(At)}).atoms(Field))


def horizon(transients: Transients, numbers: Any) -> float:
    """The latest time that is read."""
    return max((float(numbers(s.time)) for s in transients.slots), default=0.0)
