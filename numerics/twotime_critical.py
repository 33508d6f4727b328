"""Where the growth rate of a driven state crosses zero as a parameter changes."""

from __future__ import annotations

from collections.abc import Callable

from scipy.optimize import brentq
from sympy import Symbol

from quenched.theory.errors import ConvergenceError
from quenched.theory.problem_causal import TwoTimeProblem

from .twotime import Schedule
from .twotime_solve import Window, solve_settled
from .types import Number

#: Relative accuracy of the crossing; factor between trial values; most of them on either side.
_ACCURACY, _FACTOR, _TRIALS = 2e-3, 1.5, 10


def growth_of(window: Window) -> float:
    """Half the growth rate of the squared difference of two copies over the window, per unit time."""
    log, dt = window.state.growth, window.state.marcher.schedule.dt
    return float((log[window.last - 1] - log[window.first - 1]) / (2 * dt * (window.last - window.first)))


def critical_in_time(
    problem: TwoTimeProblem, parameter: Symbol, values: dict[Symbol, float], schedule: Schedule
) -> Number:
    """The value of a parameter, near its present one, at which the growth rate vanishes.

    Raises
    ------
    ConvergenceError
        No change of sign within a factor of about 60 of the present value.
    """
    known: dict[float, float] = {}

    def rate(x: float) -> float:
        if x not in known:
            at = {s: (x if s.name == parameter.name else v) for s, v in values.items()}
            dt = schedule.dt if schedule.rule == "euler" else None
            window = solve_settled(problem, at, dt=dt, rule=schedule.rule, nodes=schedule.nodes, rough=True, tol=5e-3)
            known[x] = growth_of(window)
        return known[x]

    here = next(v for s, v in values.items() if s.name == parameter.name)
    low, high = bracket(rate, here or 1.0, parameter.name)
    found = float(brentq(rate, low, high, xtol=_ACCURACY * high, rtol=_ACCURACY))
    return Number(found, _ACCURACY * high)


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
