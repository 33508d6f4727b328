"""The front of the simulator: from a declaration to samples of its observables."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.model import Model
from quenched.theory.naming import standard_names
from quenched.validate import integrators, measure, realise, sampling
from quenched.validate.estimators import Run, Sample
from quenched.validate.generate import Tables, generate, label
from quenched.validate.integrators import SCHEMES
from quenched.validate.measure import Lags
from quenched.validate.measured import Plan
from quenched.validate.program import Program
from quenched.validate.quantities import (
    Clock,
    Numbers,
    Values,
    initial_law,
    matrix_spec,
    round_down,
    time_scales,
)
from quenched.validate.realisations import Progress, dask_executor, memory, physical_memory, progress_bar, run
from quenched.validate.realise import Task
from quenched.validate.sampling import VectorSpec
from quenched.validate.store import Store, as_store, key_of

__all__ = ["Numbers", "matrix_spec", "prepare", "round_down", "simulate", "step_bias", "time_scales"]

FloatArray = NDArray[np.float64]


def simulate(
    model: Model,
    N: int,
    trials: int = 8,
    seed: int = 0,
    params: Mapping[Any, Any] | None = None,
    *,
    dt: float | None = None,
    duration: float | None = None,
    burn: float | None = None,
    lags: ArrayLike | None = None,
    dtype: str = "float64",
    trajectories: int = 1,
    scheme: str | None = None,
    lyapunov: bool = True,
    first: int = 0,
    substeps: int = 1,
    executor: Executor | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool | Progress = False,
    store: Store | str | os.PathLike[str] | bool | None = None,
    fresh: bool = False,
    **named: Any,
) -> Run:
    """Simulate finite networks of a declared model.

    Parameters
    ----------
    model : Model
    N : int
        Reference size; a population has its fraction of N units, rounded (see `Run.sizes`).
    trials : int
        Number R of realisations, each with its own disorder, initial states and noise.
    seed : int
        Realisation k depends only on (seed, N, k) and the settings of the simulation.
    params, **named : values of parameters by symbol or name
    dt : float, optional
        Time step of a flow; default: the scheme's fraction of the fastest declared relaxation time (Heun 0.1, RK4
        0.25, Euler–Maruyama 0.02), shortened so that given lags and delays are multiples of it.
    duration, burn : float, optional
        Measurement window and transient, in units of time (steps of a map, also of a discretised flow).
    lags : array, optional
        Lags τ of curves, multiples of dt (steps of a map).
    dtype : "float64" or "float32"
        Precision of couplings and of what they read; state and averages are double. Single precision is faster.
    trajectories : int
        Trajectories (initial states and noises) a network, averaged into one value.
    scheme : "heun", "euler" or "rk4", optional
        Default: Heun; RK4 where neither noise and delays forbid it nor `dt` is given; Euler–Maruyama (Itô) when noise
        multiplies the state.
    lyapunov : bool
        Whether to carry tangent vectors.
    first : int
        Index k of the first realisation.
    substeps : int
        Noise of a step is the sum of this many draws, so runs at dt with 2 and at dt/2 with 1 share their noise.
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
    check_counts(N=N, trials=trials, trajectories=trajectories, substeps=substeps)
    problem = prepare(
        model, N, seed, params, named, dt, duration, burn, lags, dtype, trajectories, scheme, lyapunov, substeps
    )
    check_memory(problem.task)
    indices = range(first, first + trials)
    keys = [key_of(problem.identity | {"realisation": k}) for k in indices]
    with ExitStack() as stack:
        if scheduler is not None:
            executor = stack.enter_context(dask_executor(scheduler))
        bar = progress if callable(progress) else stack.enter_context(progress_bar(f"N = {N}", bool(progress)))
        results = run(problem.task, indices, keys, as_store(store), executor, bar, fresh, workers)
    return problem.collect(results, tuple(indices))


def check_counts(**counts: int) -> None:
    """Refuse numbers that are not positive whole numbers."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise QuenchedError(f"{name} should be a positive whole number, got {value!r}")


def check_memory(task: Task) -> None:
    """Refuse couplings that do not fit into the machine."""
    needed = memory(task)
    there = physical_memory()
    if needed > there:
        raise QuenchedError(
            f"N = {task.N} needs about {needed / 1e9:.3g} GB for its couplings, the machine has {there / 1e9:.3g} GB"
        )


@dataclass(frozen=True)
class Problem:
    """A model with all its numbers: ready to run."""

    task: Task
    plan: Plan
    identity: dict[str, Any]
    parameters: dict[str, float]
    sizes: dict[str, tuple[float, int]]
    unit: float

    def collect(self, results: list[dict[str, FloatArray]], indices: tuple[int, ...]) -> Run:
        """The run of finished realisations."""
        task, plan = self.task, self.plan
        order = SCHEMES[task.scheme].order
        lags = np.array(task.lags.steps) * self.unit
        observables = {
            name: Sample(np.array([r[name] for r in results]), lags if curve else None, plan.estimators[name](order))
            for name, (_, curve) in plan.observables.items()
        }
        names = ("scheme", "dtype", "trajectories", "substeps", "clock")
        settings = {n: getattr(task, n) for n in names} | {"stride": task.lags.stride * self.unit}
        return Run(
            observables,
            task.N,
            self.unit,
            task.window * self.unit,
            task.burn * self.unit,
            task.seed,
            indices,
            self.parameters,
            self.sizes,
            settings,
            dict(plan.unmeasured),
            float(sum(r["elapsed"][0] for r in results)),
        )


def prepare(
    model: Model,
    N: int,
    seed: int,
    params: Mapping[Any, Any] | None,
    named: Mapping[str, Any],
    dt: float | None,
    duration: float | None,
    burn: float | None,
    lags: ArrayLike | None,
    dtype: str,
    trajectories: int,
    scheme: str | None,
    lyapunov: bool,
    substeps: int,
) -> Problem:
    """Put numbers into the generated program."""
    if dtype not in ("float32", "float64"):
        raise QuenchedError(f"dtype should be 'float64' or 'float32', got {dtype!r}")
    check_supported(model)
    values, declared = model.values(params, **named), model
    model = without_silent_noise(declared, values)
    program, tables, plan = generate(model, lyapunov)
    missing = [name for name in declared.observables if name not in plan.observables]
    plan.unmeasured = {name: "it is not read off one simulation" for name in missing} | plan.unmeasured
    numbers = Numbers(values, N)
    scheme = choose_scheme(model, program, tables, scheme, free_step=dt is None)
    multiples = [
        *np.ravel(np.asarray([] if lags is None else lags, float)),
        *map(numbers, (*tables.delays, *plan.offsets)),
    ]
    clock = Clock.of(model, tables, numbers, dt, duration, burn, SCHEMES[scheme].fraction, multiples)
    offsets = tuple(clock.steps(numbers(o), f"time {o} of an observable") for o in plan.offsets)
    moments = tuple(plan.moments)
    steps = clock.lag_steps(lags)
    sizes = {p.name: numbers.size(p) for p in tables.populations}
    task = Task(
        program=program,
        moments=moments,
        curves={name: curve for name, (_, curve) in plan.observables.items()},
        sizes=tuple(n for _, n in sizes.values()),
        parameters=tuple(numbers(p) for p in tables.parameters),
        matrices=tuple(matrix_spec(m, numbers) for m in tables.matrices),
        vectors=tuple(
            VectorSpec(label(q), numbers.size(q.population)[1], numbers.law(q.law), q.redraw is not None)
            for q in tables.quenched
        ),
        initial=tuple(initial_law(f, numbers) for f in tables.fields),
        clock=model.clock,
        scheme=scheme,
        dt=clock.unit,
        advance=clock.advance,
        burn=clock.burn,
        window=clock.window,
        lags=Lags.of(steps, offsets, clock.stride, moments),
        delays=tuple(clock.delay_steps(numbers(d), d) for d in tables.delays),
        trajectories=trajectories,
        dtype=dtype,
        seed=seed,
        N=N,
        substeps=substeps,
    )
    parameters = {p.name: v for p, v in values.items()}
    identity = {"model": declared.key(), "version": package_version(), "task": replace(task, realisation=0)}
    return Problem(task, plan, identity, parameters, sizes, clock.unit)


def without_silent_noise(model: Model, values: Values) -> Model:
    """The model without noises whose amplitude is zero at these values: no random numbers, and a better scheme."""
    zeros = {p: 0 for p, value in values.items() if value == 0}
    if not model.noises or not zeros:
        return model
    try:
        reduced = model.fix(zeros)
    except QuenchedError:
        return model
    same_names = list(standard_names(reduced)) == list(standard_names(model))
    return reduced if len(reduced.noises) < len(model.noises) and same_names else model


@lru_cache(maxsize=1)
def package_version() -> str:
    """Version of the installed package and digest of the code that realisations run: part of every stored key."""
    code = hashlib.sha256()
    for module in (sampling, integrators, measure, realise):
        code.update(inspect.getsource(module).encode())
    try:
        return f"{version('quenched')}+{code.hexdigest()[:16]}"
    except PackageNotFoundError:
        return code.hexdigest()[:16]


def check_supported(model: Model) -> None:
    """Parts of the language that the simulator does not cover."""
    for f in model.fields:
        if f.each is not None:
            raise QuenchedError(f"field {f} has an extra copy index (each=): the simulator does not cover it")
    random: tuple[Any, ...] = (*model.matrices, *model.quenched)
    for thing in random:
        if thing.redraw is not None and model.clock == "flow":
            raise QuenchedError(f"{thing.name} is drawn afresh at every {thing.redraw}: that needs a Map, not a flow")
        if thing.redraw == "sample":
            raise QuenchedError(f"{thing.name} is drawn afresh for every sample: the simulator knows steps and layers")


def choose_scheme(model: Model, program: Program, tables: Tables, wanted: str | None, free_step: bool) -> str:
    """The time step that suits the model, or the wanted one if it can be used."""
    if model.clock == "map":
        if wanted not in (None, "map"):
            raise QuenchedError(f"a map is iterated as it stands: scheme={wanted!r} is for flows")
        return "map"
    multiplicative = program.noise_kind == "multiplicative"
    if wanted is None:
        smooth = free_step and not tables.noises and not tables.delays
        return "euler" if multiplicative else "rk4" if smooth else "heun"
    if wanted not in SCHEMES or wanted == "map":
        raise QuenchedError(f"unknown scheme {wanted!r}; {nearest(str(wanted), [s for s in SCHEMES if s != 'map'])}")
    if multiplicative and wanted != "euler":
        raise QuenchedError(f"noise multiplies the state: scheme 'euler' (Itô) is right, {wanted!r} is not")
    if not SCHEMES[wanted].noise and (tables.noises or tables.delays):
        raise QuenchedError(f"scheme {wanted!r} is for flows without noise and delays: use 'heun'")
    return wanted


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


def step_bias(model: Model, N: int, dt: float, **settings: Any) -> tuple[dict[str, StepBias], Run, Run]:
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
