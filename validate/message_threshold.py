"""Where message passing ceases to converge: one instance after the other, its patterns added to the same ones.

Near the threshold the Hessian of the Bethe free entropy of an instance closes its gap as the square of the distance,
and its edge fluctuates by N^(−2/3): finite systems lose their fixed point a distance of order N^(−1/3) away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Symbol

from quenched.theory.errors import QuenchedError
from quenched.theory.observables import Critical, functional
from quenched.validate.estimators import Estimator
from quenched.validate.message_passing import MessageExperiment, experiment

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs
    from quenched.theory.problem_messages import MessageProblem

#: Values of the parameter that are tried: steps of this factor, or of this size where it is not positive, and how many
#: of them to either side of the declared value.
FACTOR, STEP, REACH = 1.025, 0.025, 56
#: How many of them are passed over at a time. No more: far beyond the threshold some small instances settle again.
STRIDE = 8
#: Sweeps in units of N^(1/3). What has not settled by then is off by a distance of the same order as finite size.
PATIENCE = 200
#: Sizes of `validate`; smaller systems are not on the way to the limit (half-points .999, .989, .987, 1.001 at N = 50,
#: 100, 200, 400 of the binary perceptron, ± .006 to .002).
FEWEST = 100
SIZES = (100, 200, 800)


def is_threshold(expr: Any) -> bool:
    """Whether an observable is where the growth of perturbed messages is one."""
    if not isinstance(expr, Critical):
        return False
    excess = functional("Growth")() - 1
    return expr.condition in (excess, -excess)


def thresholds(model: Gibbs) -> tuple[str, ...]:
    """The declared observables that are thresholds of messages."""
    return tuple(name for name, expr in model.observables.items() if is_threshold(expr))


@dataclass(frozen=True)
class Search:
    """The values of a parameter that are tried on an instance.

    Attributes
    ----------
    name, parameter : of the observable, and of what is varied
    values : of the parameter, growing
    tasks : the instance at each
    start : position of the declared value
    """

    name: str
    parameter: str
    values: tuple[float, ...]
    tasks: tuple[MessageExperiment, ...]
    start: int

    def value(self, realisation: int) -> float:
        """A random number between neighbours of which messages settle at one and not at the other.

        Random, so that averages over realisations do not feel the grid.

        Raises
        ------
        QuenchedError
            They do the same at all values.
        """

        def settle(k: int) -> bool:
            return self.tasks[k].number(realisation).settles()

        pair = change_of(settle, self.start, len(self.values))
        if pair is None:
            ends = f"{self.parameter} = {self.values[0]:.3g} to {self.values[-1]:.3g}"
            raise QuenchedError(
                f"{self.name}: messages do not change their behaviour from {ends}: declare a value of "
                f"{self.parameter} that is nearer to where they do"
            )
        low, high = (self.values[k] for k in pair)
        rng = self.tasks[self.start].number(realisation).stream(f"between:{self.parameter}")
        return float(rng.uniform(low, high))


def change_of(holds: Callable[[int], bool], start: int, count: int) -> tuple[int, int] | None:
    """Neighbours k, k + 1 of which one holds and the other does not; above a start that holds, if there are any."""
    here = holds(start)
    for direction in (1, -1) if here else (-1, 1):
        near = start
        while 0 <= near + direction < count:
            far = min(max(near + direction * STRIDE, 0), count - 1)
            if holds(far) != here:
                return _between(holds, here, near, far)
            near = far
    return None


def _between(holds: Callable[[int], bool], here: bool, near: int, far: int) -> tuple[int, int]:
    while abs(far - near) > 1:
        middle = (near + far) // 2
        if holds(middle) == here:
            near = middle
        else:
            far = middle
    return min(near, far), max(near, far)


@dataclass(frozen=True)
class ThresholdExperiment:
    """One instance, and the thresholds of its messages."""

    searches: tuple[Search, ...]
    realisation: int = 0

    @property
    def seed(self) -> int:
        """Of the disorder and of the starts."""
        return self.searches[0].tasks[0].seed

    @property
    def N(self) -> int:
        """Reference size."""
        return self.searches[0].tasks[0].N

    def number(self, realisation: int) -> ThresholdExperiment:
        """The same for another realisation."""
        return replace(self, realisation=realisation)

    def realise(self) -> dict[str, NDArray[np.float64]]:
        """Thresholds of this realisation."""
        begin = time.perf_counter()
        out = {s.name: np.array([s.value(self.realisation)]) for s in self.searches}
        return out | {"elapsed": np.array([time.perf_counter() - begin])}

    def memory(self) -> float:
        """Bytes of the largest instance."""
        return max(task.memory() for s in self.searches for task in s.tasks)

    def work(self) -> float:
        """Multiplications of a search: a few runs that settle, a few that are given up."""
        return sum(2.0 * s.tasks[s.start].work() for s in self.searches)


def threshold_experiment(
    model: Gibbs, problem: MessageProblem, N: int, seed: int, values: Mapping[Any, Any], names: tuple[str, ...]
) -> ThresholdExperiment:
    """The searches for the named thresholds around a point, as plain data."""
    at = model.values(values)
    return ThresholdExperiment(tuple(_search(model, problem, N, seed, at, name) for name in names))


def _search(model: Gibbs, problem: MessageProblem, N: int, seed: int, at: Mapping[Symbol, float], name: str) -> Search:
    expr: Expr = model.observables[name]
    assert isinstance(expr, Critical)
    parameter, sweeps = expr.parameter, round(PATIENCE * N ** (1 / 3))
    tried = _tried(parameter, float(at[parameter]))
    tasks = tuple(experiment(model, problem, N, seed, {**at, parameter: p}, sweeps=sweeps) for p in tried)
    return Search(name, parameter.name, tried, tasks, tried.index(float(at[parameter])))


def _tried(parameter: Symbol, here: float) -> tuple[float, ...]:
    """Values around the present one that the parameter may have."""
    steps = [k for k in range(-REACH, REACH + 1) if k]
    around = [here * FACTOR**k if here > 0 else here + STEP * k for k in steps]
    allowed = [p for p in around if not (parameter.is_positive and p <= 0) and not (parameter.is_nonnegative and p < 0)]
    return tuple(sorted([*allowed, here]))


def estimator(name: str, parameter: str) -> Estimator:
    """The estimator of a threshold."""
    return Estimator(
        name,
        f"{parameter} up to which messages converge on half of the instances",
        "half-point",
        bias="runs that take more than a number of sweeps of order N^(1/3) count as not converging",
        assumes="declaration",
        min_N=FEWEST,
        power=1 / 3,
        reason="the gap of an instance's Hessian closes as the square of the distance, its edge moves by N^(-2/3)",
    )
