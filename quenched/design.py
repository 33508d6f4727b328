"""How large, how long and how often to simulate, for each tier.

Measured on the random rate network (g = 2): the scatter between networks, not within one, limits the variance of a
unit, so many short realisations with a few trajectories each cost least; sizes that differ by a factor of three or four
extrapolate best; the rounding of couplings in single precision is far below the scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from quenched.solution import Solution
    from quenched.theory.model import Model

QUICK = {"sizes": (400, 600, 1400), "trials": 40, "trajectories": 8}
FULL = {"sizes": (500, 1000, 2000), "trials": 64, "trajectories": 8}
#: Lags at which a curve enters the verdict, in correlation times.
QUICK_LAGS, FULL_LAGS = (1.0,), (0.5, 1.0, 2.0)
#: Units of the slowest time: transient and measurement.
_BURN, _WINDOW = 5.0, 8.0
#: Lags that a curve is measured at, up to this many correlation times.
_LAGS, _SPAN = 12, 3.0


@dataclass(frozen=True)
class Design:
    """Settings of the simulations of one parameter point.

    Attributes
    ----------
    sizes, trials, trajectories
        Network sizes, realisations of each, trajectories a network.
    burn, duration : float
        In the declaration's unit of time.
    dt : float or None
        Time step, None for the simulator's choice.
    lags : array (k,) or None
        Lags of curves, None for the simulator's choice.
    correlation, relaxation : float
        Decay time of the theory's autocorrelation (0: none); fastest relaxation time of a unit.
    tested : tuple of float
        Lags at which curves are tested, in correlation times.
    """

    sizes: tuple[int, ...]
    trials: int
    trajectories: int
    burn: float
    duration: float
    dt: float | None
    lags: NDArray[np.float64] | None
    correlation: float
    relaxation: float
    tested: tuple[float, ...]

    def with_trials(self, trials: int) -> Design:
        """The same with another number of realisations."""
        return replace(self, trials=trials)

    def positions(self, lags: Sequence[float] | NDArray[np.float64]) -> tuple[int, ...]:
        """Positions of the tested lags."""
        at = np.asarray(lags, float)
        wanted = [0.0, *(k * self.correlation for k in self.tested)] if self.correlation > 0 else [0.0]
        return tuple(sorted({int(np.argmin(np.abs(at - w))) for w in wanted}))

    def settings(self) -> dict[str, Any]:
        """For the report."""
        return {
            "network sizes": self.sizes,
            "realisations": self.trials,
            "trajectories a network": self.trajectories,
            "transient": self.burn,
            "measured time": self.duration,
        }


def plan(
    model: Model,
    solution: Solution,
    *,
    quick: bool,
    dt: float | None = None,
    sizes: tuple[int, ...] | None = None,
    trials: int | None = None,
    trajectories: int | None = None,
    duration: float | None = None,
    burn: float | None = None,
) -> Design:
    """The design of a tier for one parameter point; what is given overrides the tier."""
    tier: dict[str, Any] = QUICK if quick else FULL
    fast, slow = _relaxation(model, solution)
    step = _step(model, solution, fast) if dt is None else dt
    correlation = _correlation_time(model, solution)
    # A map's step is as cheap as a tenth of a flow's shortest time, so it can afford more of them.
    shortest = 100 * step if model.clock == "map" else 30 * fast
    return Design(
        sizes=tuple(sizes or tier["sizes"]),
        trials=trials or tier["trials"],
        trajectories=trajectories or tier["trajectories"],
        burn=_rounded(max(shortest, _BURN * slow, _BURN * correlation), step) if burn is None else burn,
        duration=_rounded(max(1.5 * shortest, _WINDOW * slow, _WINDOW * correlation), step)
        if duration is None
        else duration,
        dt=dt,
        lags=_lags(correlation, step),
        correlation=correlation,
        relaxation=fast,
        tested=QUICK_LAGS if quick else FULL_LAGS,
    )


def _relaxation(model: Model, solution: Solution) -> tuple[float, float]:
    """Fastest and slowest relaxation time of single units."""
    from quenched.validate.generate import generate
    from quenched.validate.simulate import Numbers, time_scales

    _, tables, _ = generate(model, False)
    values = model.values({k: v for k, v in solution.parameters.items() if k in {s.name for s in model.parameters}})
    fast, slow = time_scales(model, tables, Numbers(values, 1000))
    return (fast, slow) if model.clock == "flow" or model.dt is not None else (1.0, slow)


def _step(model: Model, solution: Solution, fast: float) -> float:
    """The simulator's own time step."""
    if model.clock == "map":
        return 1.0 if model.dt is None else float(model.dt.subs(solution.parameters))
    from quenched.validate.simulate import round_down

    return float(round_down(fast / 10))


def _correlation_time(model: Model, solution: Solution) -> float:
    """Lag at which the slowest field's decaying autocorrelation has fallen to 1/e (0 where nothing decays)."""
    times = [0.0]
    for name in solution.names:
        if name.startswith("C_") and not name.endswith("0"):
            q = solution.quantity(name)
            if q.axis == "tau":
                times.append(_decay(np.asarray(q.at), np.asarray(q.value)))
    return max(times)


def _decay(at: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
    moving = curve - curve[-1]
    if abs(moving[0]) <= 1e-6 * max(abs(curve[0]), 1e-12):
        return 0.0
    fallen = np.flatnonzero(np.abs(moving) < np.abs(moving[0]) / np.e)
    return float(at[fallen[0]] - at[0]) if fallen.size else float(at[-1] - at[0])


def _lags(correlation: float, step: float) -> NDArray[np.float64] | None:
    """Multiples of the time step from 0 to a few correlation times."""
    if correlation <= 0:
        return None
    stride = max(1, round(_SPAN * correlation / (_LAGS - 1) / step))
    return np.arange(_LAGS, dtype=np.float64) * (stride * step)


def _rounded(time: float, step: float) -> float:
    return round(time / step) * step
