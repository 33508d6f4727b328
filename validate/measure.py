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
        self._lags, self._moments, self._net, self._functions = lags, moments, net, functions
        self._length = (lags.ahead + lags.behind) // lags.spacing + 1
        widths = [1 if p < 0 else net.task.sizes[p] for p in net.task.program.channels]
        self._past = [np.zeros((self._length, net.trajectories, width)) for width in widths]
        self._series: list[list[Array]] = [[] for _ in moments]

    def record(self, step: int, now: float, y: Array) -> None:
        """Record the state at `step` (counted from the end of the transient) and measure what has become possible."""
        spacing, stride = self._lags.spacing, self._lags.stride
        if step % spacing:
            return
        slot = (step // spacing) % self._length
        for past, values in zip(self._past, self._functions["channels"](self._net, now, y), strict=True):
            past[slot] = values
        base = step - self._lags.ahead
        if base >= self._lags.behind and (base - self._lags.behind) % stride == 0:
            for moment, series in zip(self._moments, self._series, strict=True):
                series.append(self._measure(moment, base))

    def _measure(self, moment: Moment, base: int) -> Array:
        lags = self._lags.steps if moment.lagged else (0,)
        return np.array([self._average(moment, base, lag) for lag in lags])

    def _average(self, moment: Moment, base: int, lag: int) -> float:
        offsets = self._lags.offsets
        parts = [self._at(f.channel, base + f.sign * lag + offsets[f.offset]) for f in moment.factors]
        if moment.combine is not None:
            return float(np.mean(self._functions[moment.combine](self._net, *parts)))
        if len(parts) == 2 and parts[0].shape == parts[1].shape:
            return float(np.vdot(parts[0], parts[1])) / parts[0].size
        return float(np.mean(reduce(np.multiply, parts)))

    def _at(self, channel: int, step: int) -> Array:
        return self._past[channel][(step // self._lags.spacing) % self._length]

    def averages(self) -> list[Array]:
        """Time averages of the moments, each of shape (lags,) or (1,)."""
        return [np.mean(series, axis=0) for series in self._series]

    def series(self) -> list[Array]:
        """The moments at every measured time, each of shape (times, lags) or (times, 1)."""
        return [np.array(series) for series in self._series]
