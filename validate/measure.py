"""Running averages of products of recorded quantities at several lags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quenched.validate.dimension import CrossMoments, independent_blocks, moments_of_blocks
from quenched.validate.program import Crossing, Moment

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
    def of(
        cls,
        steps: tuple[int, ...],
        offsets: tuple[int, ...],
        stride: int,
        moments: tuple[Moment, ...],
        crossings: Iterable[Crossing] = (),
    ) -> Lags:
        """The lags with the reach of what is measured."""
        factors = [f for m in moments for f in m.factors] + [x.second for x in crossings]
        times = [f.sign * lag + offsets[f.offset] for f in factors for lag in (steps if f.sign else (0,))]
        return cls(steps, offsets, stride, max([0, *times]), max([0, *(-s for s in times)]))

    @property
    def spacing(self) -> int:
        """Recording interval: divides everything."""
        return reduce(gcd, (*self.steps, *self.offsets, self.stride, self.behind, self.ahead)) or 1

    @property
    def kept(self) -> int:
        """Interval at which what covariances between units need is kept: divides all lags."""
        return reduce(gcd, (*self.steps, *self.offsets)) or self.stride


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
        self.paths = Paths(lags, net.task.crossings.values(), net.dtype)

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
        channels = self._channels(self._net, now, y)
        self.paths.record(step, channels)
        for past, values in zip(self._past, channels, strict=True):
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


class Paths:
    """Keeps the values of some channels in single or double precision, for covariances between units.

    Memory: trajectories × kept times × units for every channel.
    """

    def __init__(self, lags: Lags, crossings: Iterable[Crossing], dtype: Any) -> None:
        crossings = list(crossings)
        self._lags, self._dtype = lags, dtype
        self._values: dict[int, list[NDArray[Any]]] = {c: [] for x in crossings for c in (x.first, x.second.channel)}
        self._steps: dict[tuple[int, int], set[int]] = {}
        self._known: dict[tuple[int, int], CrossMoments] = {}
        for x in crossings:
            self._steps.setdefault((x.first, x.second.channel), set()).update(self._lags_of(x))

    def record(self, step: int, channels: Sequence[Array]) -> None:
        """Note the channels at a step that is due."""
        if step % self._lags.kept == 0:
            for c, values in self._values.items():
                values.append(np.array(channels[c], self._dtype))

    def moments(self, crossing: Crossing) -> CrossMoments:
        """Moments of the covariances between units, at every lag (or the one of a fixed offset)."""
        pair = crossing.first, crossing.second.channel
        steps = sorted(self._steps[pair])
        if pair not in self._known:
            first = self._blocks(pair[0])
            second = first if pair[0] == pair[1] else self._blocks(pair[1])
            self._known[pair] = moments_of_blocks(first, second, np.array(steps) // self._lags.kept)
        return self._known[pair].at([steps.index(lag) for lag in self._lags_of(crossing)])

    def _lags_of(self, crossing: Crossing) -> list[int]:
        lags, offset = self._lags, self._lags.offsets[crossing.second.offset]
        return [lag + offset for lag in (lags.steps if crossing.second.sign else (0,))]

    def _blocks(self, channel: int) -> NDArray[Any]:
        return independent_blocks(np.stack(self._values[channel], axis=1))
