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
from .trajectories import ProcessSampler
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
#: Length of a window in correlation times of a first guess from declared starts.
_WINDOW = 40.0


def solve_process(
    process: SiteProcess,
    values: dict[Symbol, float],
    *,
    sampling: Sampling | None = None,
    first: tuple[Mapping[tuple[str, str], float], float] | None = None,
    extend: bool = False,
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
    sampler = ProcessSampler(process, values, how)
    guess = sampler.guess(*(how.start or first or _START))
    now, history = _settle(sampler, guess, progress)
    for _ in range(_EXTENSIONS if extend else 0):
        if memory_cut(now) < _CUT:
            break
        longer = replace(sampler.how, reach=2 * sampler.how.reach)
        longer = replace(longer, steps=2 * longer.steps if 5 * sampler.reach > longer.steps else longer.steps)
        sampler = ProcessSampler(process, values, longer)
        now, more = _settle(sampler, _on_grid(now, longer.steps, sampler.reach), progress)
        history, how = history + more, longer
    for _ in range(_EXTENSIONS if extend else 0):
        silent = _size(now) < 2 * SILENT * _size(guess)
        if silent or _LAPS * slowest(sampler, now) < sampler.how.steps * sampler.dt:
            break
        sampler = ProcessSampler(process, values, replace(sampler.how, steps=2 * sampler.how.steps))
        now, more = _settle(sampler, _on_grid(now, sampler.how.steps, sampler.reach), progress)
        history, how = history + more, sampler.how
    iterates = []
    for k in range(how.average):
        now = sampler.sweep(now, np.random.default_rng((how.seed, 1, k)))
        iterates.append(now)
        if progress:
            progress(len(history) + k + 1, how.settle + how.average)
    return _summary(sampler, iterates, history)


def _wide(how: Sampling, time: float) -> Sampling:
    """A window that is many times as long as the correlation time of the first guess, in steps twice as long; sweeps.

    In a window that is not, a slow state cannot be told from one that stands still.
    """
    steps = 2 ** int(np.ceil(np.log2(_WINDOW * time / (2 * how.dt))))
    return replace(how, dt=2 * how.dt, steps=max(how.steps, steps), settle=2 * how.settle)


def _size(now: Orders) -> float:
    """The largest variance."""
    return max(float(np.abs(c[0])) for c in now.covariance.values())


def slowest(sampler: ProcessSampler, now: Orders) -> float:
    """The longest time in which the autocorrelation of an output falls half of the way to its value at long lags."""
    times = [0.0]
    for unit in sampler.process.units:
        for o, _ in unit.outputs:
            curve = now.covariance[o.name, o.name][: sampler.how.steps // 2]
            moving = np.abs(curve - curve[-1])
            if moving[0] > _STILL * abs(curve[0]):
                times.append(float(np.argmax(moving < moving[0] / 2)) * sampler.dt)
    return max(times)


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
    largest = 0.0
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
        if k > 4 and (settled or size < SILENT * largest):
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
        return _chain_mean(np.array([getattr(o, part)[key] for o in iterates]))

    correlation, orders = {}, {}
    for key in first.covariance:
        value, error = average("covariance", key)
        orders[key] = value
        correlation[key] = (value[:half], error[:half])
    means = {a: Number(*(float(v[0]) for v in average("mean", a))) for a in first.mean}
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
    )


def _chain_mean(rows: Array) -> tuple[Array, Array]:
    """Mean of correlated iterates, and its error from their scatter and lag-one correlation."""
    n = len(rows)
    mean = rows.mean(axis=0)
    if n < 3:
        return mean, np.full(mean.shape, np.inf)
    off = rows - mean
    variance = (off**2).sum(axis=0) / (n - 1)
    lagged = (off[1:] * off[:-1]).sum(axis=0) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.clip(np.where(variance > 0, lagged / variance, 0.0), 0.0, 0.95)
    return mean, np.sqrt(variance / n * (1 + rho) / (1 - rho))
