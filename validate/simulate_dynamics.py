"""From a declared dynamics to a generated program with all its numbers: ready to be simulated."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quenched.theory.counted import counted
from quenched.theory.eigenvalue_observables import OfEigenvalues, with_numbers
from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.model import Model
from quenched.theory.naming import standard_names
from quenched.theory.transient import transient
from quenched.validate import (
    dimension,
    exponents,
    integrators,
    linearised,
    measure,
    products,
    realise,
    sampling,
    silence,
)
from quenched.validate import simulate_spectrum as spectral
from quenched.validate.estimators import Run, Sample
from quenched.validate.experiment import Prepared, check_counts
from quenched.validate.exponents import check_exponents, spectrum_estimators
from quenched.validate.generate import Tables, generate, label
from quenched.validate.integrators import SCHEMES
from quenched.validate.linearised import Observed
from quenched.validate.measure import Lags
from quenched.validate.measured import Plan
from quenched.validate.program import FIXED, Program
from quenched.validate.quantities import Clock, Numbers, Values, initial_law, matrix_spec
from quenched.validate.realise import Task
from quenched.validate.sampling import VectorSpec
from quenched.validate.silence import SILENT, growth_rates, silence_estimator

FloatArray = NDArray[np.float64]


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
            name: Sample.of(np.array([r[name] for r in results]), lags if curve else None, plan.estimators[name](order))
            for name, curve in plan.curves.items()
        }
        if plan.silent:
            rates, law = growth_rates(np.array([r[SILENT] for r in results]))
            observables |= {name: Sample.of(rates, None, silence_estimator(name, law)) for name in plan.silent}
        if task.exponents:
            exponents = spectrum_estimators()
            observables |= {n: Sample.of(np.array([r[n] for r in results]), None, e) for n, e in exponents.items()}
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
    substeps: int = 1,
    lyapunov_spectrum: int = 0,
    standard: bool = True,
) -> Problem | Prepared:
    """Put numbers into the generated program.

    Parameters
    ----------
    model, N, seed, params
        As for `quenched.simulate`.
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
    substeps : int
        Noise of a step is the sum of this many draws, so runs at dt with 2 and at dt/2 with 1 share their noise.
    lyapunov_spectrum : int
        Number of Lyapunov exponents to measure, the largest ones, by QR decompositions: observables
        ``lyapunov_spectrum`` (k,) and ``kaplan_yorke``, the dimension that they give (nan if k is too small for it).
    standard : bool
        Whether to measure the standard observables beside declared ones; couplings in a row cost some channels.

    Raises
    ------
    QuenchedError
        For bad settings, unknown or missing parameters.
    """
    check_counts(trajectories=trajectories, substeps=substeps)
    if not isinstance(lyapunov_spectrum, int) or lyapunov_spectrum < 0:
        raise QuenchedError(f"lyapunov_spectrum should be a number of exponents, got {lyapunov_spectrum!r}")
    if counted(model):
        from quenched.validate.simulate_counts import prepare_counts

        return prepare_counts(model, N, seed, params)
    if transient(model):
        from quenched.validate.simulate_transient import prepare_transient

        return prepare_transient(model, N, seed, params, dt=dt, dtype=dtype, scheme=scheme, trajectories=trajectories)
    if dtype not in ("float32", "float64"):
        raise QuenchedError(f"dtype should be 'float64' or 'float32', got {dtype!r}")
    check_supported(model)
    values, declared = model.values(params), model
    model = without_silent_noise(declared, values)
    program, tables, plan = generate(model, lyapunov, standard)
    missing = [name for name in declared.observables if name not in {*plan.curves, *plan.silent}]
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
    fixed = [offsets[f.offset] for m in moments for f in m.factors if f.sign == FIXED]
    if max(fixed, default=0) > clock.burn:
        raise QuenchedError(
            f"an observable reads the fixed time {max(fixed) * clock.unit:g}: measure after it (burn= at least that)"
        )
    # Inputs that depend on time leave sharp features at fixed phases, which sparse samples would alias.
    stride = clock.stride if program.autonomous else max(1, clock.stride // 10)
    steps = clock.lag_steps(lags)
    sizes = {p.name: numbers.size(p) for p in tables.populations}
    if lyapunov_spectrum:
        dimensions = sum(sizes[f.population.name][1] for f in tables.fields)
        why = plan.unmeasured.get("lyapunov", "")
        check_exponents(lyapunov_spectrum, dimensions, trajectories, program.tangent, why)
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
        lags=Lags.of(steps, offsets, stride, moments, plan.crossings.values()),
        delays=tuple(clock.delay_steps(numbers(d), d) for d in tables.delays),
        trajectories=lyapunov_spectrum or trajectories,
        dtype=dtype,
        seed=seed,
        N=N,
        substeps=substeps,
        crossings=plan.crossings,
        exponents=lyapunov_spectrum,
        observed=_observed(plan, values),
    )
    parameters = {p.name: v for p, v in values.items()}
    identity = {"model": declared.key(), "version": package_version(), "task": replace(task, realisation=0)}
    return Problem(task, plan, identity, parameters, sizes, clock.unit)


def _observed(plan: Plan, values: Values) -> Observed:
    """What is read off the eigenvalues of the Jacobian, with numbers."""
    parts = sorted({f for expr in plan.spectral.values() for f in expr.atoms(OfEigenvalues)}, key=str)
    measures = tuple(spectral.measure(with_numbers(f, values), False) for f in parts)
    return Observed(measures, tuple((name, spectral.formula(e, parts, values)) for name, e in plan.spectral.items()))


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
    for module in (sampling, integrators, measure, products, realise, dimension, exponents, linearised, silence):
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
        smooth = free_step and not tables.noises and not tables.delays and not tables.bonds
        return "euler" if multiplicative else "rk4" if smooth else "heun"
    if wanted not in SCHEMES or wanted == "map":
        raise QuenchedError(f"unknown scheme {wanted!r}; {nearest(str(wanted), [s for s in SCHEMES if s != 'map'])}")
    if multiplicative and wanted != "euler":
        raise QuenchedError(f"noise multiplies the state: scheme 'euler' (Itô) is right, {wanted!r} is not")
    if not SCHEMES[wanted].noise and (tables.noises or tables.delays or tables.bonds):
        raise QuenchedError(f"scheme {wanted!r} is for flows without noise, delays and dynamic couplings: use 'heun'")
    return wanted
