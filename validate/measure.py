"""Running averages of products of recorded quantities at several lags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quenched.validate.dimension import CrossMoments, independent_blocks, moments_of_blocks
from quenched.validate.program import FIXED, Crossing, Moment

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
        moving = [f for f in factors if f.sign != FIXED]
        times = [f.sign * lag + offsets[f.offset] for f in moving for lag in (steps if f.sign else (0,))]
        return cls(steps, offsets, stride, max([0, *times]), max([0, *(-s for s in times)]))

    @property
    def spacing(self) -> int:
        """Recording interval: divides everything."""
        return reduce(gcd, (*self.steps, *self.offsets, self.stride, self.behind, self.ahead)) or 1

    @property
    def kept(self) -> int:
        """Interval at which what covariances between units need is kept: divides all lags."""
        return reduce(gcd, (*self.steps, *self.offsets)) or self.stride


@dataclass(frozen=True)
class _Reading:
    """How one moment is read from the recorded past.

    Attributes
    ----------
    combine : function of the factors, or None for their product
    channels : of the factors
    ahead : of every factor, slots after the base time, at every lag
    lags : number of lags
    fixed : of every factor, the step (from the start) that it is always read at, or None
    """

    combine: Any
    channels: tuple[int, ...]
    ahead: tuple[NDArray[np.int64], ...]
    lags: int
    fixed: tuple[int | None, ...]

    @cached_property
    def still(self) -> tuple[bool, ...]:
        """Whether each factor is taken at one time for all lags."""
        return tuple(bool(np.all(slots == slots[0])) for slots in self.ahead)

    @property
    def alone(self) -> bool:
        """Whether it is the mean of one channel."""
        return self.combine is None and self.fixed == (None,)

    @property
    def paired(self) -> bool:
        """Whether it is the mean of a product of two channels."""
        return self.combine is None and self.fixed == (None, None)


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
        self._moments = [self._reading(m) for m in moments]
        self._means = {c: np.zeros(self._length) for read in self._moments if read.alone for c in read.channels}
        self._series: list[list[Array]] = [[] for _ in moments]
        self._times: list[float] = []
        self.paths = Paths(lags, net.task.crossings.values(), net.dtype)
        fixed = [f for m in moments for f in m.factors if f.sign == FIXED]
        self._fixed: dict[int, set[int]] = {}
        for f in fixed:
            self._fixed.setdefault(lags.offsets[f.offset], set()).add(f.channel)
        self._snapshots: dict[tuple[int, int], Array] = {}

    def _reading(self, moment: Moment) -> _Reading:
        lags = self._lags
        taken = np.array(lags.steps if moment.lagged else (0,))
        fixed = tuple(lags.offsets[f.offset] if f.sign == FIXED else None for f in moment.factors)
        ahead = [(f.sign * taken + lags.offsets[f.offset]) // self._spacing * (f.sign != FIXED) for f in moment.factors]
        combine = self._functions[moment.combine] if moment.combine else None
        return _Reading(combine, tuple(f.channel for f in moment.factors), tuple(ahead), len(taken), fixed)

    def snapshot(self, step: int, now: float, y: Array) -> None:
        """Keep the channels that are read at this fixed step (counted from the start)."""
        if step in self._fixed:
            channels = self._channels(self._net, now, y)
            self._snapshots |= {(c, step): np.array(channels[c]) for c in self._fixed[step]}

    def record(self, step: int, now: float, y: Array) -> None:
        """Record the state at `step` (counted from the end of the transient) and measure what has become possible."""
        if step % self._spacing:
            return
        slot = (step // self._spacing) % self._length
        channels = self._channels(self._net, now, y)
        self.paths.record(step, channels)
        for past, values in zip(self._past, channels, strict=True):
            past[slot] = values
        for c, means in self._means.items():
            means[slot] = channels[c].mean()
        base, lead = step - self._lags.ahead, self._lags.ahead * self._net.task.advance
        if base >= self._lags.behind and (base - self._lags.behind) % self._lags.stride == 0:
            self._times.append(now - lead)
            self._measure(base // self._spacing)

    def _measure(self, base: int) -> None:
        for read, series in zip(self._moments, self._series, strict=True):
            slots = [(base + ahead) % self._length for ahead in read.ahead]
            if read.alone:
                series.append(self._means[read.channels[0]][slots[0]])
            elif read.paired:
                series.append(self._products(read, slots))
            else:
                series.append(np.array([self._average(read, [s[k] for s in slots]) for k in range(read.lags)]))

    def _products(self, read: _Reading, slots: Sequence[NDArray[np.int64]]) -> Array:
        """⟨a b⟩ at every lag; one of both mostly stays at one time."""
        (a, b), (i, j) = (self._past[c] for c in read.channels), slots
        if a.shape[2] != b.shape[2]:
            return np.array([np.mean(a[m] * b[n]) for m, n in zip(i, j, strict=True)])
        if read.still[0]:
            a, b, i, j = b, a, j, i
        left = a[i].reshape(len(i), -1)
        if any(read.still):
            return np.asarray(left @ b[j[0]].ravel()) / left.shape[1]
        return np.einsum("ls,ls->l", left, b[j].reshape(len(j), -1)) / left.shape[1]

    def _average(self, read: _Reading, slots: Sequence[int]) -> float:
        parts = [
            self._past[channel][slot] if at is None else self._snapshots[channel, at]
            for channel, slot, at in zip(read.channels, slots, read.fixed, strict=True)
        ]
        if read.combine is not None:
            return float(np.mean(read.combine(self._net, *parts)))
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
