"""Deliberate mistakes in theories of states that depend on time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quenched.theory_object import Theory

if TYPE_CHECKING:
    from quenched.theory.problem_causal import CausalUnit, TwoTimeProblem


@dataclass(frozen=True)
class TimeMutant:
    """One mistake: in words, and as a change of the two-time problem."""

    what: str
    change: Callable[[TwoTimeProblem], TwoTimeProblem]


class TimeMutantTheory(Theory):
    """A theory in time with a deliberate mistake."""

    def __init__(self, right: Theory, name: str) -> None:
        super().__init__(right.derivation, fixed=right.fixed)
        self._change = TIME_MUTANTS[name].change
        self.mistaken(f"{name}: {TIME_MUTANTS[name].what}", right)

    def marched(self, problem: Any) -> Any:
        return self._change(problem)


def _wider(p: TwoTimeProblem) -> TwoTimeProblem:
    from sympy import Rational

    return replace(p, pairs=tuple(replace(s, coefficient=s.coefficient * Rational(11, 10)) for s in p.pairs))


def _infinite(p: TwoTimeProblem) -> TwoTimeProblem:
    """N → ∞ where N is kept; N stays a parameter that nothing depends on."""
    from quenched.theory.balance import balanced, has_powers

    return replace(balanced(p), parameters=p.parameters) if has_powers(p) else p


def _equal_labels(p: TwoTimeProblem) -> TwoTimeProblem:
    return replace(p, units=tuple(_typical(unit) for unit in p.units))


def _typical(unit: CausalUnit) -> CausalUnit:
    """Every unit with the labels of an average one."""
    swap = {q.symbol: q.law.mean_() for q in unit.labels}  # type: ignore[attr-defined]

    def put(block: Any) -> Any:
        return tuple(tuple(e.xreplace(swap) for e in row) for row in block)

    return replace(
        unit,
        drift=put(unit.drift),
        feed=put(unit.feed),
        noise=put(unit.noise),
        drive=tuple(e.xreplace(swap) for e in unit.drive),
        start=put(unit.start),
        labels=(),
    )


TIME_MUTANTS: dict[str, TimeMutant] = {
    "gain-tenth": TimeMutant("the variance of the couplings 10 % too large", _wider),
    "finite-size-dropped": TimeMutant("strong inputs balance exactly: corrections of order 1/√N left out", _infinite),
    "labels-equal": TimeMutant("all units have one label: inputs count in the mean only", _equal_labels),
}
