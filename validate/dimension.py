"""Estimators of covariances between units: participation ratio and ψ from trajectories. No sympy.

Estimation noise of a covariance matrix adds about N·(correlation time)/(duration) to Tr Ĉ², as large as the signal. It
averages to zero in products of estimates from disjoint blocks of data, so only pairs of different blocks are used; and
half the difference of two blocks has the same covariances with mean zero, so that means need not be known. The
participation ratio is a ratio of averages over networks: the mean of ratios is biased, as Tr C² has a heavy tail.

Tr C_a(τ)C_b(τ)ᵀ is a sum over pairs of times of (x(t+τ)·x(s+τ))(x(t)·x(s)): one matrix of scalar products (times × times)
serves all lags, and no matrix over pairs of units is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quenched.theory.errors import QuenchedError

Array = NDArray[np.float64]

#: Time blocks of one trajectory where there are fewer trajectories than `ENOUGH`, and the share of each that is left
#: out at its beginning, so that neighbouring blocks do not touch.
BLOCKS, GUARD, ENOUGH = 8, 0.25, 4


@dataclass(frozen=True)
class CrossMoments:
    """Moments of one network.

    Attributes
    ----------
    size : number of units
    trace_squared : estimate of (Tr C)²
    squared_trace : array (k,), estimate of Tr C(τ)C(τ)ᵀ at each lag
    diagonal : array (k,), estimate of Σ_i C_ii(τ)²
    """

    size: int
    trace_squared: float
    squared_trace: Array
    diagonal: Array

    @property
    def ratio(self) -> Array:
        """((Tr C)²/n², Tr C²/n), whose averages over networks have the ratio PR/n."""
        return np.array([self.trace_squared / self.size**2, self.squared_trace[0] / self.size])

    @property
    def variance(self) -> Array:
        """n·mean over i ≠ j of C_ij(τ)², (k,)."""
        return (self.squared_trace - self.diagonal) / (self.size - 1)


def cross_moments(samples: ArrayLike, lags: ArrayLike = (0,), blocks: int = 8) -> CrossMoments:
    """Moments of C_ij(τ) = ⟨a_i(t+τ) a_j(t)⟩ of a stationary trajectory with mean zero.

    Parameters
    ----------
    samples : array (times, units)
        Equally spaced; blocks should be many correlation times long.
    lags : integers ≥ 0 of shape (k,)
        Lags in samples.
    blocks : int
        Disjoint blocks of time, at least 2.

    Raises
    ------
    QuenchedError
        If there are too few samples for the blocks and lags.
    """
    values = np.asarray(samples, dtype=float)
    length = len(values) // max(blocks, 1)
    if blocks < 2:
        raise QuenchedError(f"{blocks} blocks: products of different blocks need at least 2")
    parts = values[: blocks * length].reshape(blocks, length, -1)
    return moments_of_blocks(parts, parts, np.asarray(lags, dtype=int))


def independent_blocks(paths: NDArray[Any]) -> NDArray[Any]:
    """Blocks of mean zero with the covariances of the paths, (blocks, times, units).

    Parameters
    ----------
    paths : array (trajectories, times, units)
        Of one network. Four trajectories or more are the blocks; fewer are cut into blocks of time.
    """
    if len(paths) < ENOUGH:
        length = paths.shape[1] // BLOCKS
        cut = paths[:, : BLOCKS * length].reshape(len(paths), BLOCKS, length, paths.shape[2])
        cut = cut[:, :, round(GUARD * length) :]
        return _differences(np.moveaxis(cut, 1, 0)).reshape(-1, *cut.shape[2:])
    return _differences(paths)


def _differences(parts: NDArray[Any]) -> NDArray[Any]:
    half = len(parts) // 2
    return (parts[:half] - parts[half : 2 * half]) * parts.dtype.type(np.sqrt(0.5))


def moments_of_blocks(first: NDArray[Any], second: NDArray[Any], lags: NDArray[Any]) -> CrossMoments:
    """Moments of C_ij(τ) = ⟨a_i(t) b_j(t+τ)⟩ from products of different blocks.

    Parameters
    ----------
    first, second : arrays (blocks, times, units)
        a and b, means zero; the same array for autocovariances.
    lags : integers ≥ 0 (k,), in samples

    Raises
    ------
    QuenchedError
        If the blocks are not longer than the largest lag.
    """
    count, length, size = first.shape
    longest = int(np.max(lags))
    if count < 2 or length <= longest + 1:
        raise QuenchedError(f"{count} blocks of {length} samples are too short for a lag of {longest} samples")
    squared, diagonal = np.zeros(len(lags)), np.zeros(len(lags))
    for a, b in combinations(range(count), 2):
        left = first[a] @ first[b].T
        right = left if second is first else second[a] @ second[b].T
        for k, lag in enumerate(lags):
            shared = length - lag
            squared[k] += np.sum(left[:shared, :shared] * right[lag:, lag:], dtype=float) / shared**2
    for k, lag in enumerate(lags):
        own = np.mean(first[:, : length - lag] * second[:, lag:], axis=1, dtype=float)
        diagonal[k] = float(_pairs(own).sum())
    traces = np.mean(np.sum(first * second, axis=2, dtype=float), axis=1)
    return CrossMoments(size, float(_pairs(traces)), 2 * squared / (count * (count - 1)), diagonal)


def _pairs(values: Array) -> Array:
    """Average over pairs of different blocks of the product, blocks on the first axis."""
    count = len(values)
    products: Array = (values.sum(axis=0) ** 2 - (values**2).sum(axis=0)) / (count * (count - 1))
    return products


def participation(networks: list[CrossMoments]) -> tuple[float, float]:
    """(Tr C)²/Tr C² per unit as a ratio of averages over networks, and its standard error (jackknife)."""
    from quenched.validate.statistics import pseudo_values, ratio_of_means

    if len(networks) < 2:
        raise QuenchedError("a standard error needs at least two networks")
    values = pseudo_values(ratio_of_means, np.array([n.ratio for n in networks]))
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def cross_covariance(networks: list[CrossMoments]) -> tuple[Array, Array]:
    """ψ(τ, τ) = N·mean over i≠j of C_ij(τ)² and its standard error, arrays (k,)."""
    each = np.array([n.variance for n in networks])
    return each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(len(each))
