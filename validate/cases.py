"""One comparison as arrays: validated, with the declared choices (exponents, scales, lags) made explicit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quenched.theory.errors import QuenchedError, nearest
from quenched.validate import statistics as st
from quenched.validate.agreement import Array

#: Probability that a correct theory is rejected: of a report, and of a continuous-integration run with fixed seeds.
LEVEL, CI_LEVEL = 1e-3, 1e-6
#: Largest minimal detectable relative error of an agreement.
TARGET, QUICK_TARGET = 0.02, 0.05
#: Fewest sizes that an observable is extrapolated from.
FEWEST_SIZES = 3
#: Most looks at growing data.
MOST_LOOKS = 5
#: A curve enters at no more declared lags than this.
MOST_LAGS = 4
#: Relative size of errors that a simulation is never asked to resolve (time step, window, rounding).
RESOLUTION = 1e-4
_POWER_REASON = "declared default: corrections to self-averaging means start at order 1/N"

Power = float | tuple[float, str] | tuple[float, float] | tuple[float, float, str]
Scale = float | tuple[float, str]


@dataclass(frozen=True)
class Case:
    """Runs and theory at one parameter point.

    Attributes
    ----------
    samples : {N: {observable: array (R,) or (R, k)}}
        Realisations; k lags for a curve. An observable is judged at the sizes that have it, three or more.
    theory : {observable: (values, errors)}
        Predictions, scalars or arrays (k,); their order is the order of the tests.
    parameters : {name: value}
        For display.
    powers : {observable: p, (p, reason), (p, p₂) or (p, p₂, reason)}
        Declared finite-size exponents, with a second one where b/N^p + c/N^p₂ is fitted; else the estimator's, else 1.
    estimators : {observable: object}
        With ``assumes``, ``bias``, ``power``, ``reason``, ``min_N``, ``max_N`` where known.
    scales : {observable: scale or (scale, what it is)}
        What relative errors are relative to, when larger than the theory's own value (curve: its largest value).
    lags : {observable: array (k,)}
        Positions on a curve.
    select : {observable: positions}
        The declared lags (at most 4) at which a curve enters; default 1/8, 1/4, 1/2 and the whole of its length.
    time_step : {observable: (bias, error)}
        Bias by the time step from halving it; widens the comparison.
    uncovered : tuple of str
        Parts of the declaration that the theory does not cover: the verdict cannot be *agree*.
    doubts : tuple of str
        Why the theory's state may not be the true one: the verdict cannot be *agree*.
    unreliable : tuple of str
        Why the runs may not be what they should: the verdict is *inconclusive*.
    conditions : tuple of str
        On what condition the runs were chosen: the verdict tells.
    """

    samples: Mapping[int, Mapping[str, ArrayLike]]
    theory: Mapping[str, tuple[ArrayLike, ArrayLike]]
    parameters: Mapping[str, float] = field(default_factory=dict)
    powers: Mapping[str, Power] = field(default_factory=dict)
    estimators: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)
    lags: Mapping[str, ArrayLike] = field(default_factory=dict)
    select: Mapping[str, Sequence[int]] = field(default_factory=dict)
    time_step: Mapping[str, tuple[ArrayLike, ArrayLike]] = field(default_factory=dict)
    uncovered: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    unreliable: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """How strict: `quick` target, `ci` level, this `look` of the planned `looks`, the simulation's `resolution`."""

    quick: bool = False
    ci: bool = False
    look: int = 1
    looks: int = 1
    resolution: float = RESOLUTION

    def __post_init__(self) -> None:
        if not 1 <= self.look <= self.looks <= MOST_LOOKS:
            raise QuenchedError(f"look {self.look} of {self.looks}: expected 1 ≤ look ≤ looks ≤ {MOST_LOOKS}")

    @property
    def level(self) -> float:
        """The share of the error that this look may spend."""
        return (CI_LEVEL if self.ci else LEVEL) / self.looks

    @property
    def target(self) -> float:
        return QUICK_TARGET if self.quick else TARGET


@dataclass(frozen=True)
class Observable:
    """Arrays of one observable: runs (R, m, k), theory and its errors (k,), the tested positions."""

    name: str
    law: st.Extrapolation
    reason: str
    runs: Array
    theory: Array
    error: Array
    lags: Array | None
    select: tuple[int, ...]
    scale: float
    scale_reason: str
    extra: Array
    resolution: float
    time_step: tuple[float, float] | None


@dataclass(frozen=True)
class Data:
    """One case ready for the tests: all selected components side by side."""

    sizes: tuple[int, ...]
    observables: tuple[Observable, ...]
    a: Array
    theory: Array
    extra: Array
    blocks: tuple[slice, ...]


def prepare(case: Case, options: Options) -> Data:
    sizes = tuple(sorted(case.samples))
    own = {name: tuple(N for N in sizes if name in case.samples[N]) for name in case.theory}
    shared = [name for name in case.theory if len(own[name]) >= min(FEWEST_SIZES, len(sizes)) > 0]
    if not shared:
        raise QuenchedError(f"nothing to compare: theory has {sorted(case.theory)}, the runs have {sampled(case)}")
    _known("powers", case.powers, case)
    _known("scales", case.scales, case)
    _known("select", case.select, case)
    observables = tuple(_observable(case, name, own[name], options) for name in shared)
    counts = {o.runs.shape[0] for o in observables}
    if len(counts) > 1:
        raise QuenchedError(f"realisations: every observable needs the same number of them, got {sorted(counts)}")
    a = np.concatenate([st.extrapolated(o.runs[..., o.select], o.law) for o in observables], axis=-1)
    theory = np.concatenate([o.theory[list(o.select)] for o in observables])
    extra = np.concatenate([o.extra[list(o.select)] for o in observables])
    return Data(sizes, observables, a, theory, extra, st.component_blocks(a.shape[1], a.shape[0]))


def sampled(case: Case) -> list[str]:
    return sorted({name for sample in case.samples.values() for name in sample})


def _known(what: str, given: Mapping[str, Any], case: Case) -> None:
    names = {*case.theory, *sampled(case)}
    for name in given:
        if name not in names:
            raise QuenchedError(f"{what}: no observable {name!r}; {nearest(name, names)}")


def _observable(case: Case, name: str, sizes: tuple[int, ...], options: Options) -> Observable:
    theory, error = (np.atleast_1d(np.asarray(x, dtype=float)) for x in case.theory[name])
    error = np.broadcast_to(np.abs(error), theory.shape)
    runs = _stack(case, name, sizes, theory.size)
    for what, values in (("theory", theory), ("error of the theory", error), ("runs", runs)):
        if not np.all(np.isfinite(values)):
            raise QuenchedError(f"{name}: the {what} must be finite, got {values[~np.isfinite(values)].flat[0]}")
    power, second, reason = _power(case, name)
    scale, scale_reason = _scale(case, name, theory)
    step = case.time_step.get(name)
    bias = np.zeros_like(theory) if step is None else np.hypot(*(np.asarray(x, dtype=float) for x in step)) + 0 * theory
    shown = None if step is None else tuple(float(np.abs(np.asarray(x)).max()) for x in step)
    return Observable(
        name=name,
        law=st.extrapolation(sizes, power, float(getattr(case.estimators.get(name), "noise", -1.0)), second),
        reason=reason,
        runs=runs,
        theory=theory,
        error=error,
        lags=np.asarray(case.lags[name], dtype=float) if name in case.lags else None,
        select=_selected(case, name, theory.size),
        scale=scale,
        scale_reason=scale_reason,
        extra=np.sqrt(error**2 + bias**2 + (options.resolution * scale) ** 2),
        resolution=options.resolution * scale,
        time_step=(shown[0], shown[1]) if shown else None,
    )


def _stack(case: Case, name: str, sizes: tuple[int, ...], k: int) -> Array:
    arrays = [np.asarray(case.samples[N][name], dtype=float) for N in sizes]
    counts = {N: x.shape[0] if x.ndim else 0 for N, x in zip(sizes, arrays, strict=True)}
    if len(set(counts.values())) > 1:
        raise QuenchedError(f"{name}: every N needs the same number of realisations, got {counts} (see `balanced`)")
    if counts[sizes[0]] < 4:
        raise QuenchedError(f"{name}: at least 4 realisations per N are needed, got {counts[sizes[0]]}")
    arrays = [x.reshape(x.shape[0], -1) for x in arrays]
    for N, x in zip(sizes, arrays, strict=True):
        if x.shape[1] != k:
            raise QuenchedError(f"{name}: the theory has {k} values, the runs at N = {N} have {x.shape[1]}")
    return np.stack(arrays, axis=1)


def _power(case: Case, name: str) -> tuple[float, float, str]:
    """(p, second exponent or 0, why)."""
    if name in case.powers:
        given = case.powers[name]
        parts = given if isinstance(given, tuple) else (given,)
        told = [p for p in parts if isinstance(p, str)] or ["declared by the caller"]
        exponents = [float(p) for p in parts if not isinstance(p, str)]
        return exponents[0], exponents[1] if len(exponents) > 1 else 0.0, told[0]
    estimator = case.estimators.get(name)
    power, second = (float(getattr(estimator, what, default)) for what, default in (("power", 1.0), ("second", 0.0)))
    return power, second, getattr(estimator, "reason", "") or _POWER_REASON


def _scale(case: Case, name: str, theory: Array) -> tuple[float, str]:
    own = float(np.abs(theory).max())
    given = case.scales.get(name)
    value, what = given if isinstance(given, tuple) else (given, "declared scale")
    if value is not None and float(value) > own:
        return float(value), what
    return own, "largest |theory| over the lags" if theory.size > 1 else "|theory|"


def _selected(case: Case, name: str, k: int) -> tuple[int, ...]:
    if name in case.select:
        chosen = tuple(int(i) for i in case.select[name])
        if not 1 <= len(set(chosen)) == len(chosen) <= MOST_LAGS or not all(-k <= i < k for i in chosen):
            raise QuenchedError(f"select[{name!r}] = {chosen}: expected 1 to {MOST_LAGS} different positions below {k}")
        return tuple(i % k for i in chosen)
    if k <= MOST_LAGS:
        return tuple(range(k))
    return tuple(sorted({round((k - 1) * part) for part in (0.125, 0.25, 0.5, 1.0)}))


def balanced(samples: Mapping[int, Mapping[str, ArrayLike]]) -> dict[int, dict[str, Array]]:
    """The first R realisations of every N, with R the smallest number present: equal numbers, never chosen by value."""
    arrays = {N: {name: np.asarray(x, dtype=float) for name, x in sample.items()} for N, sample in samples.items()}
    R = min((len(x) for sample in arrays.values() for x in sample.values()), default=0)
    return {N: {name: x[:R] for name, x in sample.items()} for N, sample in arrays.items()}
