"""Statistics of a comparison: extrapolation in N, Hotelling's T², its calibrated p-value and its power.

Every function is vectorised over leading axes, so that one call judges one experiment or thousands of synthetic ones.
Arrays of runs are ordered (..., realisation R, size m, component d); extrapolated vectors (..., R, d).

The reference distribution
--------------------------
Runs of disordered systems are skewed, and at R = 8…40 realisations the F distribution of T² then understates how often
a correct theory is rejected (2 to 7 times at the nominal 10⁻³). A skewness-corrected statistic does not help there:
third moments are too noisy at such R. So the p-value is read from a heavier reference, p = p_F^κ, with an exponent
κ(R, d) fitted to a declared family of skewed nulls (`guard_exponent`), which brings it to or below its level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quenched.theory.errors import NoneFound, QuenchedError

Array = NDArray[np.float64]

#: Width of the smoothing of a half-point, in mean absolute deviations.
SMOOTHING = 0.5
#: Two-sided probability of three standard errors: the level of the test of the finite-size law.
THREE_SIGMA = 0.0026997960632601866
#: Smallest relative eigenvalue of a correlation matrix that counts as a direction of its own.
COLLINEAR = 1e-12


@dataclass(frozen=True)
class Extrapolation:
    """Fixed linear forms of runs at several sizes under O_N = a + b/N^p.

    Attributes
    ----------
    sizes : array (m,)
        Network sizes, ascending.
    power : float
        The declared exponent p.
    second : float
        Exponent of a further correction that is fitted too (0: none).
    intercept, slope : array (m,)
        Weights of a and of b: least squares with variances proportional to 1/N (or another declared power), so they
        depend on the sizes alone.
    without_smallest : array (m,)
        Weights of the difference between a and the same estimate without the smallest size; zero mean under the law
        (all zero where the sizes only just determine it).
    contrasts : array (m - 2, or m - 3, m)
        All independent forms with zero mean under the law.
    """

    sizes: Array
    power: float
    intercept: Array
    slope: Array
    without_smallest: Array
    contrasts: Array
    second: float = 0.0


def extrapolation(sizes: Sequence[int], power: float = 1.0, noise: float = -1.0, second: float = 0.0) -> Extrapolation:
    """Weights that extrapolate runs at `sizes` to N → ∞.

    The variance of a self-averaging observable falls as 1/N; the weights assume this (or N^noise) and are fixed by the
    sizes. A wrong assumption costs precision, never validity: the error of a is measured from the R extrapolated runs.

    Parameters
    ----------
    sizes : sequence of int
        At least three different sizes, ascending.
    power : float
        Exponent p > 0 of the leading correction b/N^p.
    noise : float
        Exponent of the variance of a run, N^noise.
    second : float
        Exponent, above p, of a further correction c/N^second (0: none). The error of a then grows several times: it is
        the price of not knowing c.

    Raises
    ------
    QuenchedError
        Fewer than three sizes, or an exponent that is not positive, or a second one that is not above it.
    """
    N = np.asarray(sizes, dtype=float)
    if N.size < 3 or np.any(np.diff(N) <= 0) or N[0] <= 0:
        raise QuenchedError(
            f"sizes: at least three different network sizes N are needed, in ascending order; got {list(sizes)}"
        )
    if not (np.isfinite(power) and power > 0):
        raise QuenchedError(f"finite-size power p = {power}: expected a positive number such as 1 or 1/2")
    if second and not (np.isfinite(second) and second > power):
        raise QuenchedError(f"second finite-size power {second}: expected a number above p = {power}")
    exponents = np.array([0.0, power, second][: 3 if second else 2])
    full = _least_squares(N, exponents, noise)
    late = np.zeros((len(exponents), N.size))
    if N.size > len(exponents):
        late[:, 1:] = _least_squares(N[1:], exponents, noise)
    else:
        late[:] = full
    precision = N ** (-noise / 2)
    design = _design(N, exponents) * precision[:, None]
    null = np.linalg.svd(design.T)[2][len(exponents) :]  # orthogonal to the law once each size has unit variance
    return Extrapolation(N, float(power), full[0], full[1], full[0] - late[0], null * precision, float(second))


def _design(N: Array, exponents: Array) -> Array:
    return np.asarray(N[:, None] ** -exponents)


def _least_squares(N: Array, exponents: Array, noise: float) -> Array:
    X = _design(N, exponents)
    scale = N[0] ** -exponents  # keeps the system well conditioned
    normal = (X / scale).T * N**-noise
    return np.asarray(np.linalg.solve(normal @ (X / scale), normal) / scale[:, None])


def moments(a: Array) -> tuple[Array, Array]:
    """Mean (..., d) and unbiased covariance (..., d, d) of runs (..., R, d)."""
    mean = a.mean(axis=-2)
    centred = a - mean[..., None, :]
    return mean, np.swapaxes(centred, -1, -2) @ centred / (a.shape[-2] - 1)


def hotelling(a: Array, theory: ArrayLike = 0.0, extra: ArrayLike = 0.0) -> Array:
    """Hotelling's T² of runs against a theory.

    Parameters
    ----------
    a : array (..., R, d)
        Independent realisations.
    theory : array (..., d)
        Values under the hypothesis.
    extra : array (..., d)
        Errors that do not shrink with R (the theory's own numerical error, the simulation's resolution), added in
        quadrature to the standard errors.

    Returns
    -------
    array (...)
        T², invariant under affine changes of the components when `extra` is zero.
    """
    mean, S = moments(a)
    return quadratic(mean - np.asarray(theory, dtype=float), S / a.shape[-2], extra)


def quadratic(shift: Array, covariance: Array, extra: ArrayLike = 0.0) -> Array:
    """shiftᵀ (covariance + diag extra²)⁻¹ shift, safe for collinear components (they count once)."""
    d = shift.shape[-1]
    M = covariance + np.eye(d) * np.square(np.broadcast_to(extra, shift.shape))[..., None, :]
    width = np.sqrt(np.einsum("...ii->...i", M))
    safe = np.where(width > 0, width, 1.0)
    values, vectors = np.linalg.eigh(M / (safe[..., :, None] * safe[..., None, :]))
    z = np.einsum("...ij,...i->...j", vectors, shift / safe)
    return np.sum(z**2 / np.maximum(values, COLLINEAR), axis=-1)


def guard_exponent(R: int, d: int = 1) -> float:
    """Exponent κ of the calibrated p-value p = p_F^κ of T² with d components from R realisations.

    Fitted from below to correlated lognormal components (log-width 0.4: skewness 1.3, kurtosis 6, as the most skewed
    observables of finite rate networks have at one size; correlation ½), with 10⁵ to 2·10⁶ nulls for each R = 4…256 and
    d = 1…16 ≤ R/4 at levels 10⁻² to 10⁻⁵, where p_F rejects 2 to 20 times too often.
    `calibrate.false_alarms(calibrate.lognormal_nulls(...), ...)` repeats it.
    """
    return float(1.0 - min(0.26 * d**0.04, 2.0 * d**0.12 / np.sqrt(R)))


def t2_p_values(t2: ArrayLike, R: int, d: int, *, guarded: bool = True) -> Array:
    """p-values of T²: exact for Gaussian runs, or (default) guarded against skewness."""
    from scipy.stats import f

    p = np.asarray(f.sf(np.asarray(t2) * (R - d) / (d * (R - 1)), d, R - d))
    return p ** guard_exponent(R, d) if guarded else p


def critical_t2(level: float, R: int, d: int, *, guarded: bool = True) -> float:
    """The T² whose (guarded) p-value is `level`."""
    from scipy.stats import f

    nominal = level ** (1 / guard_exponent(R, d)) if guarded else level
    return float(f.isf(nominal, d, R - d)) * d * (R - 1) / (R - d)


def power_of_t2(noncentrality: ArrayLike, critical: float, R: int, d: int) -> Array:
    """P(T² > critical) for noncentrality δᵀ(Σ/R)⁻¹δ: the noncentral F, by quadrature over its denominator.

    (scipy's own noncentral F returns NaN at the far tails used here.)
    """
    from scipy.stats import chi2, ncx2

    nodes, weights = _unit_quadrature()
    y = chi2.ppf(nodes, R - d)
    # T² = (R−1) χ'²_d(λ) / χ²_{R−d}
    detected = ncx2.sf(critical * y / (R - 1), d, np.asarray(noncentrality, dtype=float)[..., None])
    return np.asarray(detected @ weights)


@lru_cache(maxsize=1)
def _unit_quadrature() -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(300)
    s = (x + 1) / 2
    # u = s²(3−2s) crowds the nodes at both ends, where the integrand is steep.
    return s * s * (3 - 2 * s), w / 2 * 6 * s * (1 - s)


@lru_cache(maxsize=4096)
def detectable_shift(level: float, R: int, d: int, power: float = 0.99, *, guarded: bool = True) -> float:
    """Error of one component, in standard errors of its mean, that T² rejects with probability `power`.

    It holds whatever the errors of the other components: over all error vectors with a given component i, the
    noncentrality is smallest, δ_i²/(Σ_ii/R), for the one along the covariance's column i.
    """
    from scipy.optimize import brentq

    critical = critical_t2(level, R, d, guarded=guarded)
    if not np.isfinite(critical):
        return np.inf

    def excess(log_shift: float) -> float:
        return float(power_of_t2(np.exp(2 * log_shift), critical, R, d)) - power

    low, high = np.log(1e-2), 0.5 * np.log(critical) + 1.0
    while excess(high) < 0:
        high += 1.0
        if high > 100:
            return np.inf
    return float(np.exp(brentq(excess, low, high, xtol=1e-6)))


def component_blocks(d: int, R: int) -> tuple[slice, ...]:
    """Consecutive blocks of at most R/4 of d components, as equal as possible: fixed by d and R, never by the data.

    Each block has its own T² at an equal share of the level, so every component is always tested.
    """
    largest = max(1, R // 4)
    count = -(-d // largest)
    edges = [round(i * d / count) for i in range(count + 1)]
    return tuple(slice(a, b) for a, b in pairwise(edges))


def block_p_values(a: Array, theory: ArrayLike = 0.0, extra: ArrayLike = 0.0, *, guarded: bool = True) -> Array:
    """p-values (..., blocks) of the T² of every block of components of runs (..., R, d)."""
    R, d = a.shape[-2:]
    values = np.broadcast_to(np.asarray(theory, dtype=float), (*a.shape[:-2], d))
    errors = np.broadcast_to(np.asarray(extra, dtype=float), (*a.shape[:-2], d))
    parts = [
        t2_p_values(hotelling(a[..., s], values[..., s], errors[..., s]), R, s.stop - s.start, guarded=guarded)
        for s in component_blocks(d, R)
    ]
    return np.stack(parts, axis=-1)


def joint_p(p: ArrayLike, axis: int = -1) -> Array:
    """One p-value for several tests (Bonferroni: valid for any dependence between them)."""
    p = np.asarray(p, dtype=float)
    return np.minimum(1.0, p.shape[axis] * p.min(axis=axis))


def standardised(a: Array, theory: ArrayLike = 0.0, extra: ArrayLike = 0.0) -> Array:
    """t = (mean − theory)/error per component (..., d)."""
    mean, S = moments(a)
    shift = mean - np.asarray(theory, dtype=float)
    error = np.sqrt(np.einsum("...ii->...i", S) / a.shape[-2] + np.square(np.asarray(extra, dtype=float)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, shift / error, np.where(shift == 0, 0.0, np.copysign(np.inf, shift)))


def max_t_p_value(p: ArrayLike, count: int) -> Array:
    """p-value of the largest of `count` deviations whose own p-value is p (Šidák)."""
    return np.asarray(-np.expm1(count * np.log1p(-np.minimum(np.asarray(p, dtype=float), 1 - 1e-16))))


def asymptotics(runs: Array, law: Extrapolation, resolution: ArrayLike = 0.0) -> tuple[Array, Array]:
    """Test O_N = a + b/N^p (with a second power + c/N^p₂) component by component.

    Parameters
    ----------
    runs : array (..., R, m, d)
    law : Extrapolation
        The declared law, with m sizes.
    resolution : array (d,)
        Error of every run that no number of realisations removes.

    Returns
    -------
    shift : array (..., d)
        Intercept with minus intercept without the smallest size, in standard errors of that difference.
    p : array (..., d)
        p-value of the law: of the shift, and (four sizes or more) of Hotelling's T² on all contrasts.
    """
    R, count = runs.shape[-3], len(law.contrasts)
    if not count:  # the sizes only just determine the law
        still = np.zeros((*runs.shape[:-3], runs.shape[-1]))
        return still, still + 1.0
    shift = standardised(_combine(runs, law.without_smallest), 0.0, _spread(resolution, law.without_smallest))
    p = t2_p_values(np.square(shift), R, 1, guarded=False)
    if 1 < count <= R // 4:
        forms = np.moveaxis(np.einsum("cm,...rmd->...rdc", law.contrasts, runs), -2, -3)  # (..., d, R, count)
        extra = np.sqrt(np.sum(law.contrasts**2, axis=1)) * np.asarray(resolution)[..., None]
        fit = t2_p_values(hotelling(forms, 0.0, extra), R, count, guarded=False)
        p = np.minimum(1.0, 2 * np.minimum(p, fit))
    return shift, p


def _combine(runs: Array, weights: Array) -> Array:
    return np.einsum("m,...rmd->...rd", weights, runs)


def _spread(resolution: ArrayLike, weights: Array) -> Array:
    return np.asarray(resolution) * np.sqrt(np.sum(weights**2))


def extrapolated(runs: Array, law: Extrapolation) -> Array:
    """The R vectors a_k = Σ_N w_N O_{N,k} (..., R, d) of runs (..., R, m, d)."""
    return _combine(runs, law.intercept)


def slopes(runs: Array, law: Extrapolation) -> Array:
    """The R estimates (..., R, d) of the coefficient b of 1/N^p."""
    return _combine(runs, law.slope)


def ratio_of_means(parts: Array) -> Array:
    """Mean numerator over mean denominator of realisations (R, ..., 2), shape (...)."""
    mean = parts.mean(axis=0)
    return np.asarray(mean[..., 0] / mean[..., 1])


def log_of_mean(parts: Array) -> Array:
    """(1/N) ln of the mean of numbers: realisations (R, ..., 2) of a number and N, shape (...)."""
    mean = parts.mean(axis=0)
    if not np.all(mean[..., 0] > 0):
        raise NoneFound(
            f"at most one of the drawn networks of N = {mean.flat[1]:.0f} has any of what is counted: the logarithm of "
            "its mean number is not defined"
        )
    return np.asarray(np.log(mean[..., 0]) / mean[..., 1])


def controlled_mean(parts: Array) -> Array:
    """Mean of values less what they vary with a control of known mean zero: realisations (R, ..., 2), shape (...)."""
    mean = parts.mean(axis=0)
    centred = parts - mean
    spread = np.sum(centred[..., 1] ** 2, axis=0)
    slope = np.sum(centred[..., 0] * centred[..., 1], axis=0) / np.where(spread > 0, spread, 1.0)
    return np.asarray(mean[..., 0] - slope * mean[..., 1])


def half_point(values: Array) -> Array:
    """Where half of the realisations (R, ...) lie on either side, smoothed over half of their mean deviation.

    Unlike a median it is a smooth function of the realisations, so that a jackknife gives its error; unlike a mean it
    does not follow a few that are far off.
    """
    from scipy.special import ndtr

    rows = np.asarray(values, dtype=float).reshape(len(values), -1)
    at, spread = np.median(rows, axis=0), np.mean(np.abs(rows - rows.mean(axis=0)), axis=0)
    width = np.maximum(SMOOTHING * spread, 1e-9 * (1 + np.abs(at)))
    step = 2 * (spread + width)
    for _ in range(48):  # the smoothed share falls: bisection
        step = step / 2
        at = at + np.where(np.mean(ndtr((rows - at) / width), axis=0) > 0.5, step, -step)
    return at.reshape(np.shape(values)[1:])


def pseudo_values(statistic: Callable[..., Any], *arrays: ArrayLike) -> Array:
    """Jackknife pseudo-values (R, ...) of a statistic of R realisations, such as a ratio of means.

    They enter a verdict as runs: their mean is the bias-corrected statistic and their scatter its error.

    Parameters
    ----------
    statistic : callable
        Function of arrays (R, ...) that returns a number or an array.
    *arrays : array (R, ...)
        Realisations on the first axis.
    """
    data = [np.asarray(x, dtype=float) for x in arrays]
    R = data[0].shape[0]
    if R < 2:
        raise QuenchedError(f"pseudo_values: at least two realisations are needed, got {R}")
    whole = np.asarray(statistic(*data), dtype=float)
    rest = np.stack([np.asarray(statistic(*(np.delete(x, k, axis=0) for x in data)), dtype=float) for k in range(R)])
    return np.asarray(R * whole - (R - 1) * rest)
