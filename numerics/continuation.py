"""Solutions along a parameter: sweeps with warm starts, and the point where the growth rate changes sign."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from sympy import Symbol

from quenched.theory.errors import ConvergenceError, QuenchedError, nearest
from quenched.theory.problem import PotentialProblem, StationaryGaussian

from .averages import Averages
from .fixedpoints import FixedPoint, fixed_points
from .orbit import TurnsBackError, growth, orbit
from .potential import Particle, states
from .solver import solve_from
from .spectral import Guess
from .types import Array, Number, RawSolution

Values = dict[Symbol, float]


def sweep(
    problem: StationaryGaussian,
    potential: PotentialProblem | None,
    points: Sequence[Values],
    *,
    lags: Array | None = None,
    tol: float = 1e-10,
    progress: Callable[[int, int], None] | None = None,
    keep_errors: bool = False,
) -> list[RawSolution | QuenchedError]:
    """Solve at every point, each started from the one before where that helps.

    Parameters
    ----------
    points : sequence of dict Symbol → float
        Complete parameter values, in the order to follow.
    progress : callable (done, total), optional
        Called after every point.
    keep_errors : bool
        Put the error in the list instead of raising it.
    """
    found: list[RawSolution | QuenchedError] = []
    guess: Guess | None = None
    for i, values in enumerate(points):
        try:
            solution, guess = solve_from(problem, potential, values, lags=lags, tol=tol, warm=guess)
            found.append(solution)
        except QuenchedError as error:
            if not keep_errors:
                raise
            found.append(error)
            guess = None
        if progress is not None:
            progress(i + 1, len(points))
    return found


def critical(
    problem: StationaryGaussian,
    potential: PotentialProblem | None,
    parameter: Symbol,
    values: Values,
    bracket: tuple[float, float] | None = None,
) -> Number:
    """Value of a parameter at which the growth rate of the state is zero.

    With noise the state is the fluctuating one (its largest Lyapunov exponent changes sign); without noise it is the
    fixed point that is stable on one side, followed to the other.

    Parameters
    ----------
    parameter : Symbol
        One of the problem's parameters.
    values : dict Symbol → float
        Values of the others; a value of `parameter` is where the search for a bracket starts (1 by default).
    bracket : (low, high), optional
        Two values with growth rates of opposite sign.
    """
    names = [s.name for s in problem.parameters]
    if parameter.name not in names:
        raise QuenchedError(f"{parameter.name!r} is no parameter of the problem: {nearest(parameter.name, names)}")
    others = {s: v for s, v in values.items() if s.name != parameter.name}
    start = next((float(v) for s, v in values.items() if s.name == parameter.name), 1.0)
    rate = _Rate(problem, potential, parameter, others)
    low, high = bracket if bracket is not None else _bracket(rate, start or 1.0)
    ends = rate(low), rate(high)
    if not ends[0].value * ends[1].value < 0:
        raise QuenchedError(
            f"the growth rate does not change sign between {parameter.name}={low:g} ({ends[0].value:+.4g})"
            f" and {parameter.name}={high:g} ({ends[1].value:+.4g})"
        )
    rate.follow(low if ends[0].value < 0 else high)
    root = float(brentq(lambda x: rate(x).value, low, high, xtol=1e-13 * max(abs(low), abs(high)), rtol=1e-14))
    step = 1e-4 * abs(high - low)
    slope = (rate(root + step).value - rate(root - step).value) / (2 * step)
    return Number(root, (abs(rate(root).value) + rate(root).error) / abs(slope) + 1e-13 * abs(root))


class _Rate:
    """Growth rate of the state that is followed, as a function of the parameter."""

    def __init__(
        self, problem: StationaryGaussian, potential: PotentialProblem | None, parameter: Symbol, others: Values
    ) -> None:
        self.problem, self.potential, self.parameter, self.others = problem, potential, parameter, others
        self.guess: Guess | None = None
        self.reference: FixedPoint | None = None

    def follow(self, x: float) -> None:
        """Follow the fixed point that is stable at x."""
        points = fixed_points(self._averages(x))
        self.reference = min(points, key=lambda p: p.growth.value) if points else None

    def _averages(self, x: float) -> Averages:
        return Averages(self.problem, self.potential, {**self.others, self.parameter: x})

    def __call__(self, x: float) -> Number:
        averages = self._averages(x)
        averages.edge()
        if averages.noisy():
            return self._noisy(averages, x)
        points = fixed_points(averages)
        if not points:
            raise ConvergenceError(f"no fixed point was found at {self.parameter.name}={x:g}")
        if self.reference is None:
            return min((p.growth for p in points), key=lambda n: n.value)
        return min(points, key=self._distance).growth

    def _distance(self, point: FixedPoint) -> float:
        old = self.reference
        assert old is not None
        gap = np.max(np.abs(point.mean - old.mean)) + np.max(np.abs(point.covariance - old.covariance))
        return float(gap) + 1e9 * (point.trivial != old.trivial)

    def _noisy(self, averages: Averages, x: float) -> Number:
        if self.potential is None:
            values = {**self.others, self.parameter: x}
            solution, self.guess = solve_from(self.problem, None, values, warm=self.guess, lags=np.zeros(1))
            return solution.state.growth
        particle = Particle(averages)
        for state in states(particle):
            if state.stable:
                try:
                    return growth(particle, *orbit(particle, state))
                except TurnsBackError:
                    continue
        raise ConvergenceError(f"no fluctuating state was found at {self.parameter.name}={x:g}")


def _bracket(rate: _Rate, start: float) -> tuple[float, float]:
    """Two values around `start` with rates of opposite sign, the interval growing by half."""
    # Not from the start itself: at a round number the rate may vanish to rounding.
    low = high = 1.0371 * start
    signs = {low: np.sign(rate(low).value)}
    for _ in range(14):
        for x in (high * 1.5, low / 1.5):
            try:
                signs[x] = np.sign(rate(x).value)
            except QuenchedError:
                continue
            ordered = sorted(signs)
            for a, b in itertools.pairwise(ordered):
                if signs[a] * signs[b] < 0:
                    return a, b
        low, high = low / 1.5, high * 1.5
    raise QuenchedError(
        f"the growth rate keeps its sign for {rate.parameter.name} between {low:.3g} and {high:.3g}: give a bracket"
    )
