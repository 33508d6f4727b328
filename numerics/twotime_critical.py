"""Where the growth rate of a driven state crosses zero as a parameter changes."""

from __future__ import annotations

from collections.abc import Callable

from scipy.optimize import brentq
from sympy import Symbol

from quenched.theory.errors import ConvergenceError
from quenched.theory.problem_causal import TwoTimeProblem

from .twotime import Schedule
from .twotime_solve import Window, period_of, solve_settled
from .types import Number

#: Relative accuracy of the crossing; factor between trial values; most of them on either side.
_ACCURACY, _FACTOR, _TRIALS = 2e-3, 1.5, 10
#: How far a state on the way to the crossing may be from a settled one.
_ROUGH = 5e-3


def growth_of(window: Window) -> tuple[float, float]:
    """Half the growth rate of the squared difference of two copies, per unit time: over the window, and its error.

    The error is what the last third differs by: the window's thirds are whole periods of the input.
    """
    log, dt = window.state.growth, window.state.marcher.schedule.dt
    third = max(1, (window.last - window.first) // 3)

    def rate(a: int, b: int) -> float:
        return float((log[b - 1] - log[a - 1]) / (2 * dt * (b - a)))

    whole = rate(window.first, window.last)
    return whole, abs(rate(window.last - third, window.last) - whole)


def critical_in_time(
    problem: TwoTimeProblem, parameter: Symbol, values: dict[Symbol, float], schedule: Schedule
) -> Number:
    """The value of a parameter, near its present one, at which the growth rate vanishes, with steps as in `schedule`.

    A map (or the Euler map at dt) is taken as it stands; of a flow the crossing found with one step is moved to step
    zero, by the rate with half the step there.

    Raises
    ------
    ConvergenceError
        No change of sign within a factor of about 60 of the present value.
    """
    known: dict[float, tuple[float, float]] = {}

    def settled(x: float, rough: bool) -> Window:
        at = {s: (x if s.name == parameter.name else v) for s, v in values.items()}
        same = period_of(problem, at) == period_of(problem, values)
        dt = schedule.dt if same or schedule.rule == "euler" else None  # other periods have steps of their own
        return solve_settled(problem, at, dt=dt, rule=schedule.rule, nodes=schedule.nodes, rough=rough, tol=_ROUGH)

    def rate(x: float) -> float:
        if x not in known:
            known[x] = growth_of(settled(x, True))
        return known[x][0]

    here = next(v for s, v in values.items() if s.name == parameter.name)
    low, high = bracket(rate, here or 1.0, parameter.name)
    found = float(brentq(rate, low, high, xtol=_ACCURACY * high, rtol=_ACCURACY))
    left, right = _neighbours(sorted(known), found)
    slope = (rate(right) - rate(left)) / (right - left)
    value, error = found - rate(found) / slope, _ACCURACY * high + known[found][1] / abs(slope)
    if schedule.rule != "trapezoid":
        return Number(value, error)
    moved = (growth_of(settled(found, False))[0] - rate(found)) / 3 / slope
    return Number(value - 4 * moved, error + abs(moved))


def _neighbours(tried: list[float], x: float) -> tuple[float, float]:
    """The nearest two tried values on either side of x, or x itself at an end."""
    k = tried.index(x)
    return tried[max(k - 1, 0)], tried[min(k + 1, len(tried) - 1)]


def bracket(rate: Callable[[float], float], here: float, name: str) -> tuple[float, float]:
    """Two values between which the rate changes sign, searched upwards and downwards in turn."""
    sign = rate(here) > 0
    up = down = here
    for _ in range(_TRIALS):
        for upwards in (True, False):
            edge = up if upwards else down
            trial = edge * _FACTOR if upwards else edge / _FACTOR
            if (rate(trial) > 0) != sign:
                return (edge, trial) if upwards else (trial, edge)
            up, down = (trial, down) if upwards else (up, trial)
    raise ConvergenceError(f"the growth rate does not change sign for {name} between {down:.3g} and {up:.3g}", [])
