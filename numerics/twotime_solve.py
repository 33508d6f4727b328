"""Schedules for marching: how long, how fine, and whether a driven state has settled."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from itertools import pairwise

import numpy as np
from sympy import Expr, Symbol, cos, cot, sin, sympify, tan
from sympy.functions.elementary.trigonometric import TrigonometricFunction

from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError
from quenched.theory.problem_causal import TIME, TwoTimeProblem

from .twotime import MarchedState, Marcher, Rule, Schedule
from .types import Array

#: Relaxation times before the window, from the start of the perturbation to it, of lags beyond the longest, measured.
_BURN, _GROW, _BAND, _WINDOW = 60.0, 25.0, 30.0, 20.0
#: Relaxation times over which the end of the band disturbs a covariance, and how a tail that is cut acts on lag 0.
_EDGE, _REFLECTED = 15.0, 0.05
#: Growth with time of what is cut says that the end of the band feeds itself, unless it is this small against tol.
_SLIGHT = 0.1
_FINE, _TURNS = 6, 12
_EXTENSIONS = 7
#: Default accuracy of settling, relative.
SETTLED = 3e-4


@dataclass(frozen=True)
class Window:
    """A marched state and the rows of it that are averaged over.

    Attributes
    ----------
    state : the marched state
    first, last : rows of the first and one past the last time that averages run over
    coarse : the same with twice the step, for extrapolation; None where the step is part of the model
    period : of the input, in rows; None if it has none
    unsettled : relative change of the state that is left (0 for given times)
    stride : rows from one time of interest to the next
    """

    state: MarchedState
    first: int
    last: int
    coarse: Window | None
    period: int | None
    unsettled: float = 0.0
    stride: int = 1

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last, self.stride)

    def between(self, start: float, stop: float) -> Window:
        """The part of given times from start to stop, both included.

        Raises
        ------
        QuenchedError
            No given time lies between.
        """
        inside = [k for k in range(self.first, self.last, self.stride) if start - 1e-9 <= self.state.times[k]]
        inside = [k for k in inside if self.state.times[k] <= stop + 1e-9]
        if not inside:
            raise QuenchedError(f"no time between {start:g} and {stop:g}: times end at {self.state.times[-1]:g}")
        coarse = None if self.coarse is None else self.coarse.between(start, stop)
        return replace(self, first=inside[0], last=inside[-1] + 1, coarse=coarse)


def period_of(problem: TwoTimeProblem, values: dict[Symbol, float]) -> float | None:
    """Period of all explicit time dependence, None without one, infinite where it does not repeat."""
    timed = [e for e in problem.rows() if sympify(e).has(TIME)]
    if not timed:
        return None
    rates: list[Fraction] = []
    scale = 0.0
    for e in timed:
        found = list(_rates(sympify(e), values))
        if any(r is None for r in found):
            return math.inf
        for rate in found:
            assert rate is not None
            if rate:
                scale = scale or rate
                rates.append(Fraction(rate / scale).limit_denominator(1000))
    if not rates:
        return None
    common = reduce(lambda a, b: Fraction(math.gcd(a.numerator * b.denominator, b.numerator * a.denominator),
                                          a.denominator * b.denominator), rates)  # fmt: skip
    return 2 * math.pi / (float(common) * scale)


def _rates(e: Expr, values: dict[Symbol, float]) -> Iterable[float | None]:
    """Angular frequencies of the trigonometric functions of time; None for time outside them."""
    if not e.has(TIME):
        return
    if isinstance(e, TrigonometricFunction) and isinstance(e, (sin, cos, tan, cot)):
        rate = e.args[0].expand().coeff(TIME, 1)
        rest = (e.args[0] - rate * TIME).expand()
        if rest.has(TIME):
            yield None
            return
        number = rate.xreplace({s: sympify(values[s]) for s in rate.free_symbols if s in values})
        yield abs(float(number))
        return
    if e == TIME:
        yield None
        return
    for arg in e.args:
        yield from _rates(arg, values)


def relaxation(problem: TwoTimeProblem, values: dict[Symbol, float]) -> tuple[float, float]:
    """Fastest and slowest relaxation time of single units (in steps for a map).

    Raises
    ------
    QuenchedError
        A unit left alone does not relax.
    """
    rule: Rule = "map" if problem.clock == "map" else "euler"
    marcher = Marcher(problem, values, Schedule(1.0, 1, rule=rule, nodes=1))
    P = marcher.step()["P"].reshape(-1, len(marcher.states), len(marcher.states))
    poles = np.linalg.eigvals(P)
    with np.errstate(divide="ignore"):
        rates = np.real(1 - poles) if problem.clock == "flow" else -np.log(np.abs(poles))
    if np.min(rates) <= 0:
        raise QuenchedError(f"a unit left alone does not relax (rate {np.min(rates):.3g}): there is no lasting state")
    return float(1 / np.max(rates)), float(max(1 / np.min(rates), 1.0 if problem.clock == "map" else 0.0))


def solve_times(
    problem: TwoTimeProblem, values: dict[Symbol, float], times: Array, dt: float | None, rule: Rule, nodes: int
) -> Window:
    """March from the initial values through given times (equally spaced, from 0; steps of a map)."""
    times = np.asarray(times, dtype=float)
    gaps = np.diff(times)
    if times.ndim != 1 or len(times) < 2 or times[0] != 0 or not np.allclose(gaps, gaps[0]) or gaps[0] <= 0:
        raise QuenchedError("times should be equally spaced from 0 on, such as numpy.linspace(0, 50, 501)")
    if rule == "map":
        state = Marcher(problem, values, Schedule(1.0, round(times[-1]), rule=rule, nodes=nodes)).run()
        return Window(state, 0, len(state.times), None, None)
    fast, _ = relaxation(problem, values)
    wanted = fast / _FINE if dt is None else dt
    inside = max(1, math.ceil(gaps[0] / wanted - 1e-9))
    step = float(gaps[0]) / inside
    steps = (len(times) - 1) * inside
    fine = Marcher(problem, values, Schedule(step, steps, rule=rule, nodes=nodes)).run()
    _stable_mean(fine)
    if rule == "euler":
        return Window(fine, 0, steps + 1, None, None, stride=inside)
    half = Marcher(problem, values, Schedule(step / 2, 2 * steps, rule=rule, nodes=nodes)).run()
    coarse = Window(fine, 0, steps + 1, None, None, stride=inside)
    return Window(half, 0, 2 * steps + 1, coarse, None, stride=2 * inside)


def solve_settled(
    problem: TwoTimeProblem,
    values: dict[Symbol, float],
    *,
    longest: float = 0.0,
    dt: float | None = None,
    rule: Rule = "trapezoid",
    grow: bool = True,
    nodes: int = 24,
    rough: bool = False,
    tol: float = SETTLED,
) -> Window:
    """March until a driven state has settled.

    Parameters
    ----------
    longest : longest lag that will be asked for
    dt : longest time step (default: 1/6 of the fastest relaxation time, at least 20 steps a period); that of a flow
        is made to divide the period, that of the Euler map is kept
    rule : "map", "euler" or "trapezoid"
    grow : whether a perturbation is carried along
    rough : one step size only (its error is not estimated)
    tol : relative change of the state that may be left

    Raises
    ------
    ConvergenceError
        The state still changes after several extensions.
    NotCovered
        Inputs that do not repeat: they need times.
    """
    period = period_of(problem, values)
    if period is not None and math.isinf(period):
        raise NotCovered("the input depends on time and does not repeat: give times=, such as linspace(0, 50, 501)")
    fast, slow = relaxation(problem, values)
    burn, band, before, kept = _BURN * slow, _BAND * slow, math.inf, 0.0
    for _ in range(_EXTENSIONS):
        plan = _plan(problem, values, period, fast, slow, burn, longest, band, dt, rule, grow, nodes)
        window = _marched(problem, values, plan)
        _stable_mean(window.state)
        cut = _cut(window, math.ceil(_EDGE * slow / plan.dt), plan.turn)
        moving, grown = window.unsettled, kept == band and cut > max(before, _SLIGHT * tol)
        window = replace(window, unsettled=moving + cut)
        if window.unsettled <= tol and not grown:
            break
        # Longer lags that do not lower it: no tail that decays, but a motion that lasts, whose cut is a stated error.
        lasts = kept < band and cut > 0.6 * before
        if lasts and moving <= tol:
            break
        kept, before = band, cut
        longer = grown or (cut > tol / 2 and not lasts)
        band, burn = (1.6 * band, burn) if longer else (band, 2 * burn)
    else:
        raise ConvergenceError(
            f"the state has not settled by t = {window.state.times[-1]:g}: it will still change by "
            f"{window.unsettled:.2g} of its size{_hint(plan, period)}", [window.unsettled]
        )  # fmt: skip
    if rule != "trapezoid" or rough:
        return window
    fine = replace(
        plan, dt=plan.dt / 2, steps=2 * plan.steps, band=2 * plan.band, first=2 * plan.first, last=2 * plan.last
    )
    fine = replace(
        fine,
        grow=None if plan.grow is None else 2 * plan.grow,
        period=None if plan.period is None else 2 * plan.period,
        turn=plan.turn if period is None else 2 * plan.turn,
    )
    return replace(_marched(problem, values, fine), coarse=window)


@dataclass(frozen=True)
class _Plan:
    dt: float
    steps: int
    band: int
    first: int
    last: int
    grow: int | None
    period: int | None
    rule: Rule
    nodes: int
    turn: int


def _plan(
    problem: TwoTimeProblem,
    values: dict[Symbol, float],
    period: float | None,
    fast: float,
    slow: float,
    burn: float,
    longest: float,
    band: float,
    dt: float | None,
    rule: Rule,
    grow: bool,
    nodes: int,
) -> _Plan:
    advance = float(sympify(problem.advance).xreplace(values)) if rule == "map" else 1.0
    if rule == "map":
        step, turn = 1.0, None if period is None else period / advance
    else:
        turn = period
        wanted = fast / _FINE if dt is None else dt
        if turn is not None and dt is None:
            wanted = min(wanted, turn / 20)
        exact = rule == "euler" and dt is not None
        step = wanted if turn is None or exact else turn / math.ceil(turn / wanted - 1e-9)
    turns = 1 if turn is None else _whole_turns(turn / step)
    rows = 1 if turn is None else max(1, round(turns * turn / step))
    whole = turn is not None and abs(rows * step - turns * turn) < 1e-6 * turn
    repeats = max(3, math.ceil(_WINDOW * slow / (rows * step)))
    span = rows * 3 * math.ceil(repeats / 3)
    first = math.ceil(burn / step)
    first = math.ceil(first / rows) * rows if whole else first
    far = math.ceil(longest / step - 1e-9)
    kept = math.ceil(band / step)
    kept = 2 * rows + 2 if turn is not None and kept <= 2 * rows < 4 * kept else kept  # what repeats is kept, if it can
    return _Plan(
        step, first + span + far, far + kept, first, first + span,
        max(0, first - math.ceil(_GROW * slow / step)) if grow else None, rows if whole else None, rule, nodes, rows,
    )  # fmt: skip


def _hint(plan: _Plan, period: float | None) -> str:
    """A step that divides the period of the input, where the present one does not."""
    if period is None or plan.period is not None or plan.rule == "map":
        return ""
    dt = period / math.ceil(period / plan.dt)
    return f"; averages do not run over whole periods ({period:g}) of the input, as with dt = {dt:.6g} they would"


def _whole_turns(rows: float) -> int:
    """The fewest periods that are a whole number of rows, or those that come closest to one."""
    off = {k: abs(k * rows - round(k * rows)) for k in range(1, _TURNS + 1)}
    return next((k for k, gap in off.items() if gap < 1e-6), min(off, key=lambda k: off[k] / k))


def _marched(problem: TwoTimeProblem, values: dict[Symbol, float], plan: _Plan) -> Window:
    schedule = Schedule(
        plan.dt, plan.steps, plan.band, plan.rule, plan.grow, plan.nodes, plan.turn if plan.turn > 1 else 0
    )
    state = Marcher(problem, values, schedule).run()
    return Window(state, plan.first, plan.last, None, plan.period, _unsettled(state, plan))


def _unsettled(state: MarchedState, plan: _Plan) -> float:
    """Relative change of mean squares of the states that is left, from how it falls over thirds of the window."""
    edges = np.linspace(plan.first, plan.last, 4).round().astype(int)
    if plan.turn > 1:
        third = max(1, (plan.last - plan.first) // (3 * plan.turn)) * plan.turn
        edges = plan.last - third * np.arange(3, -1, -1)
    parts = [slice(a, b) for a, b in pairwise(edges.tolist())]
    rows = []
    for part in parts:
        spread = np.mean(np.diagonal(state.covariance[part, :, 0], axis1=2, axis2=3), axis=0)
        rows.append(np.concatenate([np.mean(state.mean[:, part] ** 2, axis=1).ravel(), spread.ravel()]))
    before, after = np.abs(rows[1] - rows[0]), np.abs(rows[2] - rows[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.clip(np.where(before > 0, after / before, 0.0), 0.0, 0.95)
    left = after * np.maximum(ratio / (1 - ratio), 0.2)
    return float(np.max(left) / max(float(np.max(rows[2])), 1e-9))


def _cut(window: Window, edge: int, turn: int) -> float:
    """Error by the lags that are not kept: the square of what still decays there, as tails reflect at the cut.

    Compared are lags a whole period (`turn` rows) apart, less where the band is shorter, `edge` rows within the band.
    """
    state = window.state
    far = state.covariance.shape[2] - 1 - edge
    near = far - turn * max(1, round(0.3 * far / turn))
    near = far - round(0.3 * far) if near < 1 else near
    if far - near < 1:
        return 0.0
    diagonal = np.diagonal(state.covariance[window.rows], axis1=3, axis2=4)
    size = np.mean(diagonal[:, :, 0], axis=0)
    left = np.mean(diagonal[:, :, near] - diagonal[:, :, far], axis=0)
    relative = left / np.maximum(size, 1e-12 * np.max(size) + 1e-300)
    return float(_REFLECTED * np.max(relative**2))


def _stable_mean(state: MarchedState) -> None:
    """Refuse an explicit step that is too long for the mean, whose feedback may be much faster than a unit."""
    if state.marcher.schedule.rule != "euler" or state.marcher.problem.constraints:
        return
    poles = np.linalg.eigvals(state.mean_mode()[len(state.times) // 2 :])
    lowest = float(np.quantile(np.min(np.real(poles), axis=1), 0.25))  # a spurious cycle is beyond it half the time
    if lowest < -1:
        dt = state.marcher.schedule.dt
        raise QuenchedError(
            f"the Euler step dt = {dt:g} is too long for the mean of the units: one step multiplies a perturbation of "
            f"it by {lowest:.3g}; expected dt < {2 * dt / (1 - lowest):.3g}"
        )


__all__ = ["Window", "period_of", "relaxation", "solve_settled", "solve_times"]
