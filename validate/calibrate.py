"""Calibration of the verdict: how often a correct theory is rejected, and how surely a wrong one is.

Nulls are synthetic experiments where the theory is exact by construction: runs (n, R, m, d) of n experiments with R
realisations at m sizes of d components, all with zero mean. They are Gaussian, skewed (lognormal, gamma), or resampled
from real simulator output. Mutants are theories with a known error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quenched.theory.errors import QuenchedError
from quenched.validate import statistics as st
from quenched.validate.agreement import Agreement, Array, Verdict
from quenched.validate.cases import LEVEL, Case, Options
from quenched.validate.verdict import judge_points

Shape = tuple[int, int, int, int]
Theory = Mapping[str, tuple[ArrayLike, ArrayLike]]


# -- nulls -------------------------------------------------------------------------------------------------------------
def gaussian_nulls(shape: Shape, rng: np.random.Generator) -> Array:
    """Independent standard normal runs (T² does not care about the covariance)."""
    return rng.standard_normal(shape)


def lognormal_nulls(shape: Shape, rng: np.random.Generator, width: float = 0.4, correlation: float = 0.5) -> Array:
    """Exponentials of correlated Gaussians, centred: the family that `statistics.guard_exponent` is fitted to."""
    shared = rng.standard_normal((*shape[:-1], 1))
    z = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.standard_normal(shape)
    return np.exp(width * z) - np.exp(width**2 / 2)


def gamma_nulls(shape: Shape, rng: np.random.Generator, skewness: float = 1.0) -> Array:
    """Independent gamma runs of the given skewness (2: exponential), centred, with unit variance."""
    k = 4 / skewness**2
    return np.asarray((rng.gamma(k, size=shape) - k) / np.sqrt(k))


def bootstrap_nulls(pool: Mapping[int, ArrayLike], n: int, R: int, rng: np.random.Generator) -> Array:
    """Experiments drawn with replacement from real realisations, each size centred on its own mean.

    Parameters
    ----------
    pool : {N: array (M, d)}
        Finished realisations; M should be several times R.
    n, R : int
        Number of experiments and of realisations in each.

    Returns
    -------
    array (n, R, m, d)
        Zero mean exactly, with the skewness and the dependence between components of the real runs.
    """
    parts = []
    for N in sorted(pool):
        x = np.asarray(pool[N], dtype=float)
        if x.ndim != 2 or x.shape[0] < 2 * R:
            raise QuenchedError(f"pool at N = {N}: expected (M, d) with M ≥ 2R = {2 * R} realisations, got {x.shape}")
        centred = x - x.mean(axis=0)
        parts.append(centred[rng.integers(x.shape[0], size=(n, R))])
    return np.stack(parts, axis=2)


def pool_of(samples: Mapping[int, Mapping[str, ArrayLike]], select: Mapping[str, Sequence[int]]) -> dict[int, Array]:
    """Realisations (M, d) per size of chosen positions of observables, for `bootstrap_nulls`."""

    def column(sample: Mapping[str, ArrayLike], name: str) -> Array:
        values = np.asarray(sample[name], dtype=float)
        return values.reshape(values.shape[0], -1)[:, list(select[name])]

    return {N: np.concatenate([column(sample, name) for name in select], axis=1) for N, sample in samples.items()}


# -- false alarms ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Calibration:
    """Outcome of n nulls.

    Attributes
    ----------
    n, alarms : int
        Experiments, and how many of them the verdict's p-value rejected at `level`.
    band : (int, int)
        Central 99 % of the binomial law of the alarms if the level holds exactly.
    plain_alarms : int
        The same with the plain F distribution.
    uniformity : float
        Kolmogorov–Smirnov p-value of the plain p-values of the first block (uniform for Gaussian runs).
    not_asymptotic : int
        Experiments stopped by the test of the finite-size law.
    """

    n: int
    level: float
    alarms: int
    band: tuple[int, int]
    plain_alarms: int
    uniformity: float
    not_asymptotic: int

    @property
    def holds(self) -> bool:
        """No more alarms than the band allows (fewer is the price of the guard)."""
        return self.alarms <= self.band[1]


def binomial_band(n: int, level: float, coverage: float = 0.99) -> tuple[int, int]:
    """Central interval of the number of alarms in n experiments at a level."""
    from scipy.stats import binom

    tail = (1 - coverage) / 2
    return int(binom.ppf(tail, n, level)), int(binom.ppf(1 - tail, n, level))


def false_alarms(runs: Array, sizes: Sequence[int], power: float = 1.0, level: float = LEVEL) -> Calibration:
    """Judge nulls (n, R, m, d) by the verdict's own statistics.

    Parameters
    ----------
    runs : array (n, R, m, d)
        From one of the null families.
    sizes : sequence of int
        The m network sizes.
    """
    from scipy.stats import kstest

    law = st.extrapolation(sizes, power)
    a = st.extrapolated(runs, law)
    guarded, plain = (st.block_p_values(a, guarded=g) for g in (True, False))
    stopped = st.asymptotics(runs, law)[1].min(axis=-1) * runs.shape[-1] < st.THREE_SIGMA
    n = runs.shape[0]
    return Calibration(
        n=n,
        level=level,
        alarms=int(np.sum(st.joint_p(guarded) < level)),
        band=binomial_band(n, level),
        plain_alarms=int(np.sum(st.joint_p(plain) < level)),
        uniformity=float(kstest(plain[:, 0], "uniform").pvalue),
        not_asymptotic=int(np.sum(stopped)),
    )


def detection_rate(
    runs: Array, sizes: Sequence[int], power: float = 1.0, level: float = LEVEL, component: int = 0, sign: int = 1
) -> float:
    """Share of experiments that reject a theory whose error is just the minimal detectable one printed for them.

    The error vector is the least favourable one: `component` is off by the printed amount and the others follow along
    the covariance, as for an error that looks like an ordinary fluctuation.
    """
    a = st.extrapolated(runs, st.extrapolation(sizes, power))
    R, d = a.shape[-2:]
    blocks = st.component_blocks(d, R)
    block = next(b for b in blocks if b.start <= component < b.stop)
    shift = st.detectable_shift(level / len(blocks), R, block.stop - block.start)
    width = a[..., component].std(axis=-1, ddof=1) / np.sqrt(R)
    _, covariance = st.moments(a.reshape(-1, d))
    direction = covariance[component] / covariance[component, component]
    theory = sign * shift * width[:, None] * direction
    return float(np.mean(st.joint_p(st.block_p_values(a, theory)) < level))


FAMILIES: Mapping[str, Callable[[Shape, np.random.Generator], Array]] = {
    "Gaussian": gaussian_nulls,
    "lognormal, skewness 1.3": lognormal_nulls,
    "gamma, skewness 1": gamma_nulls,
    "exponential, skewness 2": lambda shape, rng: gamma_nulls(shape, rng, skewness=2.0),
}


def calibration_table(
    pool: Mapping[int, ArrayLike] | None = None,
    sizes: Sequence[int] = (250, 500, 1000),
    realisations: Sequence[int] = (8, 16, 24, 40),
    n: int = 20_000,
    seed: int = 0,
) -> str:
    """False alarms and power for every family of nulls, as text: per 2000 experiments at level 10⁻³.

    Parameters
    ----------
    pool : {N: array (M, d)}, optional
        Real realisations; adds the family "simulated" (at its own sizes).
    """
    lines = [
        f"{'nulls':26s} {'R':>4s} {'d':>3s} {'alarms':>7s} {'plain F':>8s} {'band':>6s} {'power at printed error':>23s}"
    ]
    for R in realisations:
        for name, runs, at in _families(pool, tuple(sizes), R, n, seed):
            outcome, d = false_alarms(runs, at), runs.shape[-1]
            power = min(detection_rate(runs, at, component=k, sign=s) for k in {0, d - 1} for s in (1, -1))
            alarms, plain = (2000 * k / n for k in (outcome.alarms, outcome.plain_alarms))
            band = f"0–{binomial_band(2000, LEVEL)[1]}"
            lines.append(f"{name:26s} {R:4d} {d:3d} {alarms:7.1f} {plain:8.1f} {band:>6s} {power:23.4f}")
    return "\n".join(lines)


def _families(
    pool: Mapping[int, ArrayLike] | None, sizes: tuple[int, ...], R: int, n: int, seed: int
) -> Iterator[tuple[str, Array, tuple[int, ...]]]:
    rng, d = np.random.default_rng(seed), max(1, R // 4)
    width = np.array(sizes, dtype=float)[:, None] ** -0.5  # scatter of a self-averaging observable
    for name, draw in FAMILIES.items():
        yield name, draw((n, R, len(sizes), d), rng) * width, sizes
    if pool is not None:
        part = {N: np.asarray(x, dtype=float)[:, :d] for N, x in pool.items()}
        yield "simulated", bootstrap_nulls(part, n, R, rng), tuple(sorted(pool))


# -- mutants -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MutantResult:
    """One deliberately wrong theory.

    Attributes
    ----------
    name : str
    effect : float
        Largest error over the tested numbers in units of the printed minimal detectable error.
    observable : str
        Where that is.
    verdict : "agree", "disagree" or "inconclusive"
    p_value : float
    """

    name: str
    effect: float
    observable: str
    verdict: Verdict
    p_value: float

    @property
    def detected(self) -> bool:
        return self.verdict == "disagree"

    @property
    def as_promised(self) -> bool:
        """An effect above the printed detectable error must be detected; smaller ones may be."""
        return self.detected or self.effect <= 1


def compare_mutants(
    cases: Case | Sequence[Case],
    mutants: Mapping[str, Theory | Sequence[Theory] | Callable[[Theory], Theory]],
    options: Options | None = None,
) -> tuple[MutantResult, ...]:
    """Judge wrong theories on the same runs.

    Parameters
    ----------
    cases : Case or sequence of Case
        With the right theory: its verdict gives the detectable errors.
    mutants : {name: theory}
        A theory (one point), one theory per point, or a function from the right theory to the wrong one.

    Returns
    -------
    tuple of MutantResult
        In the given order; survivors are those not ``detected``.
    """
    points = [cases] if isinstance(cases, Case) else list(cases)
    reference = judge_points(points, options)
    return tuple(_mutant(points, reference, name, wrong, options) for name, wrong in mutants.items())


def _mutant(
    points: Sequence[Case], reference: Agreement, name: str, wrong: Any, options: Options | None
) -> MutantResult:
    if callable(wrong):
        theories = [wrong(case.theory) for case in points]
    else:
        theories = [wrong] if isinstance(wrong, Mapping) else list(wrong)
    if len(theories) != len(points):
        raise QuenchedError(f"mutant {name!r}: {len(theories)} theories for {len(points)} points")
    changed = [
        Case(**{**vars(case), "theory": {**case.theory, **theory}})
        for case, theory in zip(points, theories, strict=True)
    ]
    outcome = judge_points(changed, options)
    effect, observable = max(_effects(reference, outcome), default=(0.0, ""))
    return MutantResult(name, effect, observable, outcome.verdict, outcome.p_value)


def _effects(reference: Agreement, outcome: Agreement) -> Iterator[tuple[float, str]]:
    for right, wrong in zip(reference.rows, outcome.rows, strict=True):
        for c, w in zip(right.components, wrong.components, strict=True):
            yield abs(w.theory - c.theory) / max(c.detectable, 1e-300), right.name


def mutant_table(results: Sequence[MutantResult]) -> str:
    """Plain text table, survivors marked."""
    head = f"{'mutant':40s} {'effect/detectable':>18s}  {'in':12s} {'p':>9s}  verdict"
    lines = [
        f"{r.name:40s} {r.effect:18.2f}  {r.observable:12s} {r.p_value:9.1e}  {r.verdict}"
        + ("" if r.detected else "   SURVIVES" + ("" if r.as_promised else " against the promise"))
        for r in results
    ]
    return "\n".join([head, *lines])
