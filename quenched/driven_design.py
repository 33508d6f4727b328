"""How networks whose state depends on time are simulated: steps by the feedback on the mean, windows by the period."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from quenched.design import (
    BONDS,
    BURN,
    FEWEST,
    FULL_LAGS,
    FULL_STEPS,
    LAGS,
    QUICK_LAGS,
    QUICK_STEPS,
    Design,
    correlation_time,
    grows,
    lag_grid,
    passes,
    relaxation,
    resolution,
    rounded,
)

if TYPE_CHECKING:
    from sympy import Symbol

    from quenched.theory.model import Model

#: What the realised couplings scatter is nearly all of the error, so many networks pay, small ones beside larger ones,
#: for a few periods.
QUICK: dict[str, Any] = {"sizes": (100, 140, 640), "trials": 450, "trajectories": 1}
FULL: dict[str, Any] = {"sizes": (500, 1000, 2000), "trials": 40, "trajectories": 1}
#: The exponent scatters less, but follows 1/N only in larger networks whose tangent vectors have found their direction.
GROWTH_QUICK: dict[str, Any] = {"sizes": (250, 400, 640), "trials": 80}
#: Longest step in the time of the fastest feedback: of Heun, and of Runge–Kutta steps.
_HEUN, _RUNGE_KUTTA = 0.4, 0.9
#: Relative error that Runge–Kutta steps of one feedback time leave in rates (measured: 0.0004 to 0.001), order 4.
_FEEDBACK_ERROR = 1e-3
#: Measured time, in relaxation times of a unit: without and with the exponent.
_WINDOW, _GROWTH_WINDOW = 8.0, 37.5
_TRANSIENT = 25.0
#: Measured time at least, in correlation times: one network's noise lies far below what networks scatter.
_CORRELATIONS = 4.0
#: Spacing of the lags that networks with steps of their own share, in relaxation times.
_SPACING = 0.5
#: Lags of curves in the quick tier.
_QUICK_CURVE = 4


@dataclass(frozen=True)
class Driven:
    """A point of a state in time, with its solutions at the largest and at the smallest size."""

    model: Model
    values: dict[Symbol, float]
    largest: Any
    smallest: Any
    quick: bool
    dt: float | None

    def design(
        self,
        sizes: tuple[int, ...] | None,
        trials: int | None,
        trajectories: int | None,
        duration: float | None,
        burn: float | None,
    ) -> Design:
        """The networks; in the quick tier others for the exponent, unless sizes or trials are given."""
        tier = (QUICK if self.quick else FULL) | (BONDS if self.model.bonds else {})
        exponent = grows(self.model)
        apart = self.quick and exponent and not (sizes or trials or self.model.bonds)
        shared = exponent and not apart
        cost = passes(self.model, self.values)
        length = _GROWTH_WINDOW if shared else _WINDOW
        made = self._networks(tuple(sizes or tier["sizes"]), length, duration, burn)
        made = replace(
            made,
            trials=trials or max(FEWEST, round(tier["trials"] / cost)),
            trajectories=trajectories or tier["trajectories"],
            lyapunov=shared,
        )
        if not apart:
            return made
        others = self._networks(GROWTH_QUICK["sizes"], _GROWTH_WINDOW, duration, burn)
        return replace(made, growth=replace(others, trials=max(FEWEST, round(GROWTH_QUICK["trials"] / cost))))

    def _networks(self, sizes: tuple[int, ...], length: float, duration: float | None, burn: float | None) -> Design:
        """Networks of some sizes, measured for `length` shortest times of a unit unless `duration` is given."""
        fast, slow = relaxation(self.model, self.values)
        correlation = correlation_time(self.largest)
        steps = {N: self._step(N, sizes) for N in sizes}
        tested = QUICK_LAGS if self.quick else FULL_LAGS
        flow = self.model.clock == "flow"
        grid = self._grid if len(set(steps.values())) > 1 else max(steps.values())
        longest = max(step / self._feedback(N, sizes) for N, step in steps.items())
        error = resolution(self.model, max(steps.values()) / fast, self._noisy)
        window = max(length * self._shortest, _WINDOW * slow, _CORRELATIONS * correlation)
        return Design(
            sizes=sizes,
            trials=FEWEST,
            trajectories=1,
            burn=burn or rounded(max(_TRANSIENT * self._shortest, BURN * slow, BURN * correlation), grid),
            duration=duration or rounded(self._whole(window), grid),
            dt=min(steps.values()) if flow else None,
            lags=lag_grid(correlation, [k * fast for k in tested], grid, _QUICK_CURVE if self.quick else LAGS),
            relaxation=fast,
            tested=tested,
            resolution=max(error, _FEEDBACK_ERROR * longest**4 if self._smooth else 0.0),
            steps=steps if flow else {},
            scheme="rk4" if self._smooth else None,
        )

    # -- time -----------------------------------------------------------------------------------------------------
    @property
    def _shortest(self) -> float:
        """Unit of all durations: a relaxation time; a map's step is cheap, so it can afford more of them."""
        fast = relaxation(self.model, self.values)[0]
        return fast if self.model.clock == "flow" else max(fast, 4.0)

    @property
    def _period(self) -> float | None:
        period = getattr(self.largest, "period", None)
        return float(period) if period else None

    def _whole(self, window: float) -> float:
        """A duration as whole periods."""
        return float(np.ceil(window / self._period - 1e-9) * self._period) if self._period else window

    @property
    def _noisy(self) -> bool:
        return bool(self.model.fix(self.values).noises)

    @property
    def _smooth(self) -> bool:
        """Whether steps of fourth order can be used: a flow without noise, delays and dynamic couplings."""
        from quenched.validate.generate import generate

        tables = generate(self.model, False)[1]
        return self.model.clock == "flow" and not (self._noisy or tables.delays or tables.bonds)

    @property
    def _grid(self) -> float:
        """Spacing of all lags: divides the period."""
        spacing = _SPACING * self._shortest
        return self._period / np.ceil(self._period / spacing - 1e-9) if self._period else spacing

    def _step(self, N: int, sizes: tuple[int, ...]) -> float:
        """Step of a flow: divides the spacing of the lags."""
        if self.dt is not None or self.model.clock == "map":
            return self.dt or 1.0
        part = (QUICK_STEPS if self.quick else FULL_STEPS)[self._noisy]
        stable = (_RUNGE_KUTTA if self._smooth else _HEUN) * self._feedback(N, sizes)
        return float(self._grid / np.ceil(self._grid / min(self._shortest / part, stable) - 1e-9))

    def _feedback(self, N: int, sizes: tuple[int, ...]) -> float:
        """Time in which strong feedback acts on the mean: a power of N between the two solved sizes."""
        ends = [(s.parameters.get("N", N), s.reader.feedback_time()) for s in (self.smallest, self.largest)]
        (low, first), (high, last) = ends
        if low == high:
            return float(last)
        power = np.log(last / first) / np.log(high / low)
        return float(last * (N / high) ** power)
