"""Solving a self-consistent process: sweeps until its order parameters agree with themselves.

Sweeps first share their random numbers, until the covariance moves less than its own sampling error; then fresh numbers
are drawn and the iterates are averaged, and the error of the average comes from their scatter and autocorrelation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from sympy import Symbol

from quenched.theory.errors import ConvergenceError
from quenched.theory.problem import SiteProcess

from .process_state import Orders, ProcessState, Sampling, memory_cut
from .starts import have_a_choice
from .trajectories import ProcessSampler, forgetting_time
from .types import Array, Number

#: Part of the memory that may be cut, and doublings of its reach.
_CUT, _EXTENSIONS = 0.01, 3
#: Amplitude and correlation time of the first guess.
_START = (0.5, 3.0)
#: Part of its largest size below which a state that shrinks from sweep to sweep is silence.
SILENT = 1e-3
#: Length of a window in units of the slowest correlation time (measured: shorter ones make slow states too weak), and
#: moving part of a covariance that counts.
_LAPS, _STILL = 8.0, 1e-3
#: Part of the moving covariance that may still be lost between a quarter and half of the window.
UNFINISHED = 0.15
#: Length of a window in those of the memory of dynamic couplings.
_REACHES = 4
#: How many times as long as it has to averaging may take.
_LONGER = 10
#: Length of a window in correlation times of a first guess from declared starts.
_WINDOW = 40.0


def solve_process(
    process: SiteProcess,
    values: dict[Symbol, float],
    *,
    sampling: Sampling | None = None,
    first: tuple[Mapping[tuple[str, str], float], float] | None = None,
    extend: bool = False,
    tol: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> ProcessState:
    """Solve a self-consistent process by sampled trajectories.

    Parameters
    ----------
    process : SiteProcess
    values : parameter values
    sampling : grid, number of paths and sweeps, seed
    first : second moments of the outputs and correlation time to begin with, where `sampling` gives no start
    extend : whether the reach of the memory grows until the memory has decayed, and the window until it is many
        correlation times long
    tol : relative error of the variances of states above which averaging goes on, up to ten times as long
    progress : called with (sweeps done, sweeps at most)

    Raises
    ------
    ConvergenceError
        If the covariance still drifts after `settle` sweeps.
    QuenchedError
        If trajectories diverge.
    """
    how = sampling or Sampling()
    if extend and how.start is None and first is not None and process.clock == "flow":
        how = _wide(how, first[1])
    if extend:
        how = remembering(how, forgetting_time(process, values), process.clock)
    sweeps = _Sweeps(process, values, how, how.start or first or _START, progress)
    if extend:
        sweeps = _looked_longer(sweeps)
        _reach_further(sweeps)
        _outlast(sweeps)
    sampler, now, history, how = sweeps.sampler, sweeps.now, sweeps.history, sweeps.sampler.how
    iterates: list[Orders] = []
    while len(iterates) < how.average or (
        tol and len(iterates) < _LONGER * how.average and _scatter(sampler, iterates) > tol
    ):
        now = sampler.sweep(now, np.random.default_rng((how.seed, 1, len(iterates))))
        iterates.append(now)
        if progress:
            progress(len(history) + len(iterates), how.settle + max(how.average, len(iterates)))
    return _summary(sampler, iterates, history)


class _Sweeps:
    """Sweeps from a first guess, and on from where they are on other grids."""

    def __init__(self, process, values, how, start, progress) -> None:  # type: ignore[no-untyped-def]
        self.process, self.values, self.start, self.progress = process, values, start, progress
        self.history: list[float] = []
        self.sampler = ProcessSampler(process, values, how)
        guess = self.sampler.guess(*start)
        self.guessed = _size(guess)
        self._settle(guess)

    def _settle(self, now: Orders) -> None:
        self.now, more = _settle(self.sampler, now, self.progress)
        self.history += more

    def go_on(self, how: Sampling) -> None:
        """Settle on another grid."""
        self.sampler = ProcessSampler(self.process, self.values, how)
        self._settle(_on_grid(self.now, how.steps, self.sampler.reach))

    def again(self, how: Sampling) -> _Sweeps:
        """Settle on another grid from the first guess.

        Raises
        ------
        ConvergenceError
        """
        return _Sweeps(self.process, self.values, how, self.start, self.progress)


def _looked_longer(sweeps: _Sweeps) -> _Sweeps:
    """What sweeps end in that stand still in their window, where units could as well be in other states.

    A state that moves and takes long to, is lost in a window of less than several of its correlation times; where that
    window leaves units a choice they stand still. In a longer one it is found.
    """
    how, found = sweeps.sampler.how, sweeps
    for k in range(_EXTENSIONS if _may_be_slow(sweeps) else 0):
        how = replace(how, dt=2 * how.dt) if k == 0 else replace(how, steps=2 * how.steps)
        try:
            other = sweeps.again(how)
        except ConvergenceError:
            continue
        if not stands_still(other.sampler, other.now):
            found = other
            break
    return found


def _may_be_slow(sweeps: _Sweeps) -> bool:
    """Whether units stand still, in one of several ways, with a memory that hangs on how they move."""
    sampler, now = sweeps.sampler, sweeps.now
    silent = _size(now) < 2 * SILENT * sweeps.guessed
    if silent or not sampler.flow or not sampler.bonds or not stands_still(sampler, now):
        return False
    return have_a_choice(sampler, now)


def _reach_further(sweeps: _Sweeps) -> None:
    """Lengthen the memory until what lies beyond it is small."""
    for _ in range(_EXTENSIONS):
        if memory_cut(sweeps.now) < _CUT:
            break
        longer = replace(sweeps.sampler.how, reach=2 * sweeps.sampler.how.reach)
        sweeps.go_on(
            replace(longer, steps=2 * longer.steps if 5 * sweeps.sampler.reach > longer.steps else longer.steps)
        )


def _outlast(sweeps: _Sweeps) -> None:
    """Lengthen the window until it is many correlation times long."""
    for _ in range(_EXTENSIONS):
        sampler, now = sweeps.sampler, sweeps.now
        silent = _size(now) < 2 * SILENT * sweeps.guessed
        long = _LAPS * slowest(sampler, now) < sampler.how.steps * sampler.dt
        if silent or (long and unfinished(sampler, now) < UNFINISHED):
            break
        sweeps.go_on(replace(sampler.how, steps=2 * sampler.how.steps))


def _scatter(sampler: ProcessSampler, iterates: list[Orders]) -> float:
    """The largest error of a state's variance, relative to it or to the largest where it is small."""
    names = [state.name for unit in sampler.process.units for state in unit.states]
    values, errors = chain_mean(np.array([[o.covariance[n, n][0] for n in names] for o in iterates]))
    return float(np.max(errors / np.maximum(values, max(float(values.max()) / 10, 1e-300))))


def _wide(how: Sampling, time: float) -> Sampling:
    """A window that is many times as long as the correlation time of the first guess, in steps twice as long; sweeps.

    In a window that is not, a slow state cannot be told from one that stands still.
    """
    steps = 2 ** int(np.ceil(np.log2(_WINDOW * time / (2 * how.dt))))
    return replace(how, dt=2 * how.dt, steps=max(how.steps, steps), settle=2 * how.settle)


def remembering(how: Sampling, time: float, clock: str) -> Sampling:
    """A memory as long as that of the dynamic couplings, in a window several times as long."""
    if time <= how.reach:
        return how
    dt, reach = how.dt if clock == "flow" else 1.0, 1.01 * time
    steps = 2 ** int(np.ceil(np.log2(_REACHES * reach / dt)))
    return replace(how, reach=reach, steps=max(how.steps, steps))


def _size(now: Orders) -> float:
    """The largest variance."""
    return max(float(np.abs(c[0])) for c in now.covariance.values())


def slowest(sampler: ProcessSampler, now: Orders) -> float:
    """The longest time in which the autocorrelation of an output falls half of the way to its value at long lags."""
    return max((float(np.argmax(row < row[0] / 2)) * sampler.dt for row in _moving(sampler, now)), default=0.0)


def unfinished(sampler: ProcessSampler, now: Orders) -> float:
    """The largest part of what moves in an output that is lost between a quarter and half of the window.

    Of a correlation that has fallen to a constant part by then, nothing is; of one that still falls, much.
    """
    return max((float(row[len(row) // 2]) / float(row[0]) for row in _moving(sampler, now)), default=0.0)


def stands_still(sampler: ProcessSampler, now: Orders) -> bool:
    """Whether no output moves in the window."""
    return not _moving(sampler, now)


def _moving(sampler: ProcessSampler, now: Orders) -> list[Array]:
    """Autocorrelations of the outputs that move, without their value half a window away, up to there."""
    rows = []
    for unit in sampler.process.units:
        for o, _ in unit.outputs:
            curve = now.covariance[o.name, o.name][: sampler.how.steps // 2]
            row = np.abs(curve - curve[-1])
            if row[0] > _STILL * abs(curve[0]):
                rows.append(row)
    return rows


def _on_grid(now: Orders, steps: int, reach: int) -> Orders:
    """Order parameters on a longer grid: covariances stay at their last value, responses at zero."""

    def stretched(row: Array) -> Array:
        half = len(row) // 2
        out = np.full(steps, row[half])
        out[:half], out[steps - half :] = row[:half], row[half:]
        return out

    covariance = {k: stretched(v) if len(v) != steps else v for k, v in now.covariance.items()}
    response = {k: np.concatenate([v, np.zeros(reach + 1 - len(v))]) for k, v in now.response.items()}
    return Orders(covariance, now.mean, response)


def _settle(sampler: ProcessSampler, now: Orders, progress) -> tuple[Orders, list[float]]:  # type: ignore[no-untyped-def]
    """Sweeps with shared random numbers until the outputs' covariance moves less than its sampling error."""
    how = sampler.how
    history: list[float] = []
    largest, smallest = 0.0, SILENT * _size(now)
    bound = 1.0 / np.sqrt(how.paths)
    for k in range(how.settle):
        new = sampler.sweep(now, np.random.default_rng((how.seed, 0)))
        size = _size(new)
        largest, scale = max(largest, size), size or 1.0
        moved = max(float(np.abs(c - now.covariance[key]).max()) for key, c in new.covariance.items()) / scale
        history.append(moved)
        mix = 1.0 if k < 2 else 0.8
        now = now.mixed(new, mix)
        if progress:
            progress(k + 1, how.settle + how.average)
        settled = moved < 0.3 * bound and _remaining(history) < bound
        if k > 4 and (settled or size < min(SILENT * largest, smallest)):
            return now, history
    if history[-1] > 5 * bound or _remaining(history) > 10 * bound:
        raise ConvergenceError(
            f"the sampled process still moves by {history[-1]:.2g} of its size after {how.settle} sweeps; "
            "give more sweeps, a longer window or another start, as in Sampling(settle=200, start=(0.5, 10))",
            history,
        )
    return now, history


def _remaining(history: list[float]) -> float:
    """How far sweeps that contract as the last ones did still have to go."""
    if len(history) < 6:
        return float("inf")
    rate = min((history[-1] / max(history[-6], 1e-300)) ** (1 / 5), 0.99)
    return history[-1] / (1 - rate)


def _summary(sampler: ProcessSampler, iterates: list[Orders], history: list[float]) -> ProcessState:
    half = sampler.how.steps // 2
    first = iterates[0]

    def average(part: str, key: object) -> tuple[Array, Array]:
        return chain_mean(np.array([getattr(o, part)[key] for o in iterates]))

    correlation, orders = {}, {}
    for key in first.covariance:
        value, error = average("covariance", key)
        orders[key] = value
        correlation[key] = (value[:half], error[:half])
    means = {a: Number(*(float(v[0]) for v in average("mean", a))) for a in first.mean}
    found = Orders(orders, first.mean, {})
    return ProcessState(
        np.arange(half, dtype=float) * sampler.dt,
        means,
        correlation,
        {k: average("response", k) for k in first.response},
        orders,
        len(history) + len(iterates),
        history[-1],
        sampler.how,
        memory_cut(iterates[-1]) if sampler.process.memory else 0.0,
        slowest(sampler, found),
        unfinished(sampler, found),
        tuple(iterates),
    )


def chain_mean(rows: Array) -> tuple[Array, Array]:
    """Mean of correlated iterates, and its error from their scatter and lag-one correlation.

    Few iterates underrate both where they are much correlated: the correlation is corrected for its bias (−(1 + 3ρ)/n
    to first order, Marriott & Pope 1954; Kendall 1954), the scatter for what the mean itself moves.
    """
    n = len(rows)
    mean = rows.mean(axis=0)
    if n < 3:
        return mean, np.full(mean.shape, np.inf)
    off = rows - mean
    variance = (off**2).sum(axis=0) / (n - 1)
    lagged = (off[1:] * off[:-1]).sum(axis=0) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.where(variance > 0, lagged / variance, 0.0)
    rho = np.clip((n * rho + 1) / (n - 3), 0.0, 0.95) if n > 3 else np.clip(rho, 0.0, 0.95)
    times = np.minimum((1 + rho) / (1 - rho), n / 2)  # iterates that count as one
    return mean, np.sqrt(variance * (n - 1) / (n - times) * times / n)
