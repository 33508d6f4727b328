"""What a theory says about the state in which all fields vanish: its growth rate, and where it loses its stability."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from quenched.readout import Quantity
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.observables import Critical, Growth

if TYPE_CHECKING:
    from sympy import Expr

    from quenched.solution import Solution
    from quenched.theory_object import Theory

#: Factor between the values of a parameter at which stability is looked at, and how far from the given one.
_STEP, _FURTHEST = 1.25, 30


def is_silent(expr: Expr) -> bool:
    """Whether an observable is of the silent state alone."""
    return isinstance(expr, Growth) or (isinstance(expr, Critical) and isinstance(expr.condition, Growth))


def only_silent(model: Any) -> bool:
    """Whether all declared observables of a dynamics are of the silent state."""
    return hasattr(model, "eqs") and bool(model.observables) and all(map(is_silent, model.observables.values()))


class SilentReader:
    """Observables of the silent state at values of the parameters."""

    def __init__(self, theory: Theory, values: Mapping[Any, float]) -> None:
        self._theory, self._values = theory, {str(k): float(v) for k, v in values.items()}

    def quantity(self, expr: Expr) -> Quantity:
        """A growth rate, or the value of a parameter nearest to the given one at which it vanishes."""
        stability = self._theory.silence
        if isinstance(expr, Growth):
            found = stability.growth(self._values)
            return Quantity(found.value, found.error)
        assert isinstance(expr, Critical)
        name = str(expr.parameter)
        lost = "the silent state does not change its stability"
        low, high = bracket(self._growth_at(name), self._values[name], expr, lost)
        found = stability.critical(name, low, high, self._values)
        return Quantity(found.value, found.error)

    def scale(self, expr: Expr) -> tuple[float, str] | None:
        """What errors of a growth rate, which crosses zero, are relative to: the size of the Jacobian's spectrum."""
        if not isinstance(expr, Growth):
            return None
        if self._theory.model.clock == "map":
            return 1.0, "relative error of a multiplier"
        return self._theory.silence.solve(self._values).reader.half_width, "half the width of the Jacobian's spectrum"

    def _growth_at(self, name: str) -> Callable[[float], float]:
        return lambda value: self._theory.silence.growth({**self._values, name: value}).value


def with_silence(theory: Theory, solution: Solution, values: Mapping[Any, float]) -> Solution:
    """The solution with the observables of the silent state, which do not depend on the branch."""
    observed = {name: expr for name, expr in theory.model.observables.items() if is_silent(expr)}
    reader = SilentReader(theory, values)
    for branch in solution.branches if observed else ():
        branch.reading(observed, reader)
    return solution


def silent_solution(theory: Theory, values: Mapping[Any, float]) -> Solution:
    """The solution where nothing else is observed: no other state is looked for."""
    from quenched.solution import Branch, Solution

    reader, observed = SilentReader(theory, values), dict(theory.model.observables)
    growth = reader.quantity(Growth())
    branch = Branch("silent", "trivial", growth.value < 0, growth, list(observed), lambda name: growth)
    given = {str(k): float(v) for k, v in values.items()}
    return Solution([branch.reading(observed, reader)], 0, given, Solution.provenance_of(theory))


def bracket(
    growth: Callable[[float], float], start: float, expr: Expr, lost: str = "its condition does not change sign"
) -> tuple[float, float]:
    """Two neighbouring values of a parameter between which the growth rate changes its sign."""
    if start == 0:
        raise NotCovered(f"{expr}: give a value of the parameter that is not zero, to search from")
    lower = upper = start
    low = high = growth(start)
    for _ in range(_FURTHEST):
        below, above = lower / _STEP, upper * _STEP
        down, up = _try(growth, below), _try(growth, above)
        if down is not None and down * low < 0:
            return min(below, lower), max(below, lower)
        if up is not None and up * high < 0:
            return min(above, upper), max(above, upper)
        lower, low = (below, down) if down is not None else (lower, low)
        upper, high = (above, up) if up is not None else (upper, high)
    raise NotCovered(f"{expr}: {lost} within a factor of 800 of {start:g}")


def _try(growth: Callable[[float], float], value: float) -> float | None:
    try:
        return float(growth(value))
    except QuenchedError:
        return None


__all__ = ["SilentReader", "bracket", "is_silent", "only_silent", "silent_solution", "with_silence"]
