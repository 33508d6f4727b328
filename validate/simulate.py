"""The front of the simulator: from a declaration to samples of its observables."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError, check_keywords
from quenched.validate.estimators import Run
from quenched.validate.experiment import Experiment, check_counts
from quenched.validate.heads import setting_names, settings_of, simulator_of
from quenched.validate.integrators import SCHEMES
from quenched.validate.realisations import Progress, dask_executor, physical_memory, progress_bar, run
from quenched.validate.store import Store, as_store, key_of

__all__ = ["simulate", "step_bias"]

FloatArray = NDArray[np.float64]


def simulate(
    model: Any,
    N: int,
    trials: int = 8,
    seed: int = 0,
    params: Mapping[Any, Any] | None = None,
    *,
    first: int = 0,
    executor: Executor | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool | Progress = False,
    store: Store | str | os.PathLike[str] | bool | None = None,
    fresh: bool = False,
    **named: Any,
) -> Run:
    """Simulate finite systems of a declaration.

    Parameters
    ----------
    model : Dynamics, Map, Spectrum or Gibbs
    N : int
        Reference size; a population has its fraction of N units, rounded (see `Run.sizes`).
    trials : int
        Number R of realisations, each with its own disorder, initial states and noise.
    seed : int
        Realisation k depends only on (seed, N, k) and the settings of the simulation.
    params : values of parameters by symbol or name
    first : int
        Index k of the first realisation.
    executor : concurrent.futures.Executor, optional
    scheduler : str, optional
        Address of a running Dask scheduler.
    workers : int, optional
        Processes of the default pool (1: this process).
    progress : bool or function (finished, total)
    store : folder, Store, or False
        Where finished realisations are kept; the user's cache directory unless given.
    fresh : bool
        Compute again what the store has.
    **named
        Settings of the head's simulator (for a Dynamics or Map ``dt, duration, burn, lags, dtype, trajectories, scheme,
        lyapunov, substeps, lyapunov_spectrum``: see `quenched.validate.simulate_dynamics.prepare`), and values of
        parameters by name.

    Returns
    -------
    Run

    Raises
    ------
    QuenchedError
        For bad settings, unknown or missing parameters, or a diverging state.
    KeyboardInterrupt
        On Ctrl-C; finished realisations are in the store and a second start goes on from them.
    """
    check_counts(N=N, trials=trials)
    prepare = simulator_of(model)
    settings = settings_of(prepare, named)
    values = {**(params or {}), **{k: v for k, v in named.items() if k not in settings}}
    check_keywords(values, model.parameters, [*setting_names(prepare), *signature(simulate).parameters])
    prepared = prepare(model, N, seed, values, **settings)
    check_memory(prepared.task)
    indices = range(first, first + trials)
    keys = [key_of(prepared.identity | {"realisation": k}) for k in indices]
    with ExitStack() as stack:
        if scheduler is not None:
            executor = stack.enter_context(dask_executor(scheduler))
        bar = progress if callable(progress) else stack.enter_context(progress_bar(f"N = {N}", bool(progress)))
        results = run(prepared.task, indices, keys, as_store(store), executor, bar, fresh, workers)
    return prepared.collect(results, tuple(indices))


def check_memory(task: Experiment) -> None:
    """Refuse couplings that do not fit into the machine."""
    needed = task.memory()
    there = physical_memory()
    if needed > there:
        raise QuenchedError(
            f"N = {task.N} needs about {needed / 1e9:.3g} GB for its couplings, the machine has {there / 1e9:.3g} GB"
        )


# ---------------------------------------------------------------- bias of the time step


@dataclass(frozen=True)
class StepBias:
    """Change of an observable between dt and dt/2, with common disorder and noise.

    Attributes
    ----------
    difference, error : arrays (k,)
        Mean of (value at dt) − (value at dt/2) over realisations and its standard error.
    bias : array (k,)
        Estimated bias at dt, difference / (1 − 2^−order).
    """

    difference: FloatArray
    error: FloatArray
    bias: FloatArray


def step_bias(model: Any, N: int, dt: float, **settings: Any) -> tuple[dict[str, StepBias], Run, Run]:
    """Separate the bias of the time step by halving it.

    Parameters
    ----------
    model, N, **settings : as for `simulate`
    dt : float
        The coarse step; the fine one is half of it, and both see the same noise.

    Returns
    -------
    dict name → StepBias, coarse run, fine run
    """
    coarse = simulate(model, N, dt=dt, substeps=2, **settings)
    fine = simulate(model, N, dt=dt / 2, **{"lags": _lags_of(coarse), **settings})
    order = SCHEMES[coarse.settings["scheme"]].order or 1
    out = {}
    for name, sample in coarse.observables.items():
        rows = sample.values - fine.observables[name].values
        count = len(rows)
        error = rows.std(axis=0, ddof=1) / math.sqrt(count) if count > 1 else np.full(rows.shape[1], np.inf)
        difference = rows.mean(axis=0)
        out[name] = StepBias(difference, error, difference / (1 - 2.0**-order))
    return out, coarse, fine


def _lags_of(run: Run) -> FloatArray | None:
    lags: Iterable[FloatArray] = (s.lags for s in run.observables.values() if s.lags is not None)
    return next(iter(lags), None)
