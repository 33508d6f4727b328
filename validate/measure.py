"""Running averages of products of recorded quantities at several lags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quenched.validate.program import Moment

if TYPE_CHECKING:
    from quenched.validate.realise import Network

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lags:
    """Times at which channels are needed, in steps.

    Attributes
    ----------
    steps : lags τ
    offsets : constant offsets
    stride : steps between measurements
    ahead, behind : how far products reach after and before their base time t
    """

    steps: tuple[int, ...]
    offsets: tuple[int, ...]
    stride: int
    ahead: int
    behind: int

    @classmethod
    def of(cls, steps: tuple[int, ...], offsets: tuple[int, ...], stride: int, moments: tuple[Moment, ...]) -> Lags:
        """The lags with the reach of the given moments."""
        times = [
            f.sign * lag + offsets[f.offset] for m in moments for f in m.factors for lag in (steps if f.sign else (0,))
        ]
        return cls(steps, offsets, stride, max([0, *times]), max([0, *(-s for s in times)]))

    @property
    def spacing(self) -> int:
        """Recording interval: divides everything."""
        return reduce(gcd, (*self.steps, *self.offsets, self.stride, self.behind, self.ahead)) or 1


class Recorder:
    """Keeps the recent past of every channel and averages the declared moments.

    All moments refer to one base time t; what lies before and after it is read from the recorded past.
    """

    def __init__(self, lags: Lags, moments: tuple[Moment, ...], net: Network, functions: dict[str, Any]) -> None:
        self._net, self._lags, self._spacing = net, lags, lags.spacing
        self._channels, self._functions = functions["channels"], functions
        self._length = (lags.ahead + lags.behind) // self._spacing + 1
        widths = [1 if p < 0 else net.task.sizes[p] for p in net.task.program.channels]
        self._past = [np.zeros((self._length, net.trajectories, width)) for width in widths]
        self._moments = [(m.combine, self._places(m)) for m in moments]
        self._series: list[list[Array]] = [[] for _ in moments]
        self._times: list[float] = []

    def _places(self, moment: Moment) -> list[list[tuple[int, int]]]:
        """For every lag, the factors of a product as (channel, slots after the base time)."""
        lags = self._lags
        taken = lags.steps if moment.lagged else (0,)
        return [
            [(f.channel, (f.sign * lag + lags.offsets[f.offset]) // self._spacing) for f in moment.factors]
            for lag in taken
        ]

    def record(self, step: int, now: float, y: Array) -> None:
        """Record the state at `step` (counted from the end of the transient) and measure what has become possible."""
        if step % self._spacing:
            return
        slot = (step // self._spacing) % self._length
        for past, values in zip(self._past, self._channels(self._net, now, y), strict=True):
            past[slot] = values
        base, lead = step - self._lags.ahead, self._lags.ahead * self._net.task.advance
        if base >= self._lags.behind and (base - self._lags.behind) % self._lags.stride == 0:
            self._times.append(now - lead)
            self._measure(base // self._spacing)

    def _measure(self, base: int) -> None:
        for (combine, places), series in zip(self._moments, self._series, strict=True):
            function = self._functions[combine] if combine else None
            series.append(np.array([self._average(function, factors, base) for factors in places]))

    def _average(self, combine: Any, factors: list[tuple[int, int]], base: int) -> float:
        parts = [self._past[channel][(base + ahead) % self._length] for channel, ahead in factors]
        if combine is not None:
            return float(np.mean(combine(self._net, *parts)))
        if len(parts) == 2 and parts[0].size == parts[1].size:
            return float(np.vdot(parts[0], parts[1])) / parts[0].size
        return float(np.mean(reduce(np.multiply, parts)))

    def averages(self) -> list[Array]:
        """Time averages of the moments, each of shape (lags,) or (1,)."""
        return [np.mean(series, axis=0) for series in self._series]

    def base_times(self) -> Array:
        """The measured times, shape (times, 1)."""
        return np.array(self._times)[:, None]

    def series(self) -> list[Array]:
        """The moments at every measured time, each of shape (times, lags) or (times, 1)."""
        return [np.array(series) for series in self._series]
