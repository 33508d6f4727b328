"""How a self-consistent process is sampled, and what is found: order parameters, states, trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from quenched.theory.errors import QuenchedError

from .types import Array, Number

K = TypeVar("K")


@dataclass(frozen=True)
class Sampling:
    """How a process is sampled.

    Attributes
    ----------
    dt : time step of a flow (a map steps by one)
    steps : time points of a path, a power of two; the window is steps·dt
    paths : paths a sweep and population
    reach : length of the memory, in time units
    settle, average : most sweeps with shared numbers, and averaged sweeps with fresh ones
    start : amplitude and correlation time of the first guess of the outputs' covariance, by default (0.5, 3). Where
        there are several states, sweeps from small and from large order parameters end in different ones.
    seed : of all random numbers
    """

    dt: float = 0.1
    steps: int = 1024
    paths: int = 200
    reach: float = 20.0
    settle: int = 60
    average: int = 20
    seed: int = 0
    start: tuple[float, float] | None = None


@dataclass(frozen=True)
class ProcessState:
    """A self-consistent process.

    Attributes
    ----------
    tau : array (n_tau,), lags in units of the declared time
    mean : name → Number, of states and outputs
    correlation : (a, b) → (array (n_tau,), errors): ⟨a(t+τ) b(t)⟩ of states and of outputs of one population
    response : (output, field) → (array (n_lag,), errors), ⟨δa(t+τ)/δh(t)⟩ at lags τ = 0, dt, …
    orders : the correlations on the whole periodic grid of a path (T,)
    sweeps : number of sweeps
    residual : last change of the outputs' covariance with shared random numbers, relative to its scale
    cut : part of the memory beyond the reach, estimated from its decay within it
    slowest : longest time in which an output's autocorrelation falls half of the way to its value half a window away
    unfinished : largest part of that way that is left at a quarter of the window
    iterates : the order parameters of every averaged sweep
    """

    tau: Array
    mean: dict[str, Number]
    correlation: dict[tuple[str, str], tuple[Array, Array]]
    response: dict[tuple[str, str], tuple[Array, Array]]
    orders: dict[tuple[str, str], Array]
    sweeps: int
    residual: float
    sampling: Sampling
    cut: float = 0.0
    slowest: float = 0.0
    unfinished: float = 0.0
    iterates: tuple[Orders, ...] = ()


@dataclass(frozen=True)
class Paths:
    """Sampled trajectories of one population in the self-consistent state, periodic in time.

    Attributes
    ----------
    states, outputs : arrays (P, T, n), (P, T, nb)
    fields : array (P, T, m), local fields with their memory
    labels : array (P, l)
    kernel : array (m, nb, reach + 1), memory kernels with quadrature weights
    """

    states: Array
    outputs: Array
    fields: Array
    labels: Array
    kernel: Array


@dataclass
class Orders:
    """The order parameters that a sweep updates, on the grid of a path."""

    covariance: dict[tuple[str, str], Array]
    mean: dict[str, Array]
    response: dict[tuple[str, str], Array]

    def mixed(self, new: Orders, weight: float) -> Orders:
        """(1 − weight)·self + weight·new."""
        return Orders(
            _mix(self.covariance, new.covariance, weight),
            _mix(self.mean, new.mean, weight),
            _mix(self.response, new.response, weight),
        )

    def alternating(self) -> Orders:
        """Those of a map's paths times (−1)^t, driven by fields times (−1)^{t+1}."""
        flip = lambda row, sign: {k: sign * v * _signs(len(v)) for k, v in row.items()}  # noqa: E731
        return Orders(flip(self.covariance, 1), dict(self.mean), flip(self.response, -1))


def _signs(length: int) -> Array:
    return np.where(np.arange(length) % 2 == 0, 1.0, -1.0)


def _mix(old: dict[K, Array], new: dict[K, Array], weight: float) -> dict[K, Array]:
    return {key: (1 - weight) * value + weight * new[key] for key, value in old.items()}


def state_orders(state: ProcessState) -> Orders:
    """The order parameters of a solved state."""
    return Orders(
        dict(state.orders),
        {k: np.array([v.value]) for k, v in state.mean.items()},
        {k: v for k, (v, _) in state.response.items()},
    )


def memory_cut(now: Orders) -> float:
    """Part of the memory beyond its reach, from how much smaller responses are in the second half of it."""
    worst = 0.0
    for row in now.response.values():
        half = len(row) // 2
        early, late = (float(np.abs(part).mean()) for part in (row[:half], row[half:]))
        worst = max(worst, (late / early) ** 2 if early > 0 and half else 0.0)
    return worst


def dividing_step(dt: float, delays: list[float]) -> float:
    """The largest step up to `dt` of which all delays are multiples.

    Raises
    ------
    QuenchedError
        If there is none above dt/50.
    """
    if not delays:
        return dt
    first = int(np.ceil(min(delays) / dt - 1e-9))
    for count in range(max(first, 1), 50 * max(first, 1)):
        step = min(delays) / count
        if all(abs(d / step - round(d / step)) < 1e-6 for d in delays):
            return step
    raise QuenchedError(f"the delays {', '.join(f'{d:g}' for d in delays)} have no common step: round them")


def whole_steps(delays: list[float], dt: float) -> Array:
    """Delays as numbers of steps, at least one."""
    steps = np.array([d / dt for d in delays])
    bad = next((d for d, s in zip(delays, steps, strict=True) if abs(s - round(s)) > 1e-6 or s < 0.5), None)
    if bad is not None:
        raise QuenchedError(f"a delay of {bad:g} is not a whole number (at least one) of steps of {dt:g}")
    return np.round(steps).astype(np.int64)
