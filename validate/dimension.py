"""Estimators of covariances between units: participation ratio and ψ from trajectories. No sympy.

Estimation noise of a covariance matrix adds about N·(correlation time)/(duration) to Tr Ĉ², as large as the signal. It
averages to zero in products of estimates from disjoint blocks of data, so only pairs of different blocks are used; the
means that are subtracted come from further blocks, a different group for each factor, so that they leave no bias. The
participation ratio is a ratio of averages over networks: the mean of ratios is biased, as Tr C² has a heavy tail.

Tr C_a(τ)C_b(τ)ᵀ is a sum over pairs of times of (x(t+τ)·x(s+τ))(x(t)·x(s)): one matrix of scalar products, times ×
times, serves all lags, and no matrix over pairs of units is ever held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quenched.theory.errors import QuenchedError

Array = NDArray[np.float64]

Pair = tuple[NDArray[Any], NDArray[Any]]

#: Least number of blocks, and the share of a block of time that is left out at its beginning.
BLOCKS, GUARD = 8, 0.25


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

    def at(self, positions: Sequence[int]) -> CrossMoments:
        """The same at some of the lags."""
        return CrossMoments(
            self.size, self.trace_squared, self.squared_trace[list(positions)], self.diagonal[list(positions)]
        )

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
    return moments_of_blocks(parts, parts, np.asarray(lags, dtype=int), centred=True)


def independent_blocks(paths: NDArray[Any]) -> NDArray[Any]:
    """Independent stretches of the paths of one network, (blocks, times, units).

    Parameters
    ----------
    paths : array (trajectories, times, units)
        Eight trajectories or more are the blocks; fewer are cut into blocks of time that do not touch.
    """
    parts = -(-BLOCKS // len(paths))
    if parts == 1:
        return paths
    length = paths.shape[1] // parts
    cut = paths[:, : parts * length].reshape(len(paths) * parts, length, paths.shape[2])
    return cut[:, round(GUARD * length) :]


def moments_of_blocks(
    first: NDArray[Any], second: NDArray[Any], lags: NDArray[Any], centred: bool = False
) -> CrossMoments:
    """Moments of C_ij(τ) = ⟨a_i(t) b_j(t+τ)⟩ − ⟨a_i⟩⟨b_j⟩ from products of different blocks.

    Parameters
    ----------
    first, second : arrays (blocks, times, units)
        a and b; the same array for autocovariances.
    lags : integers ≥ 0 (k,), in samples
    centred : bool
        Whether means are known to be zero; else they are estimated from four further disjoint groups of blocks.

    Raises
    ------
    QuenchedError
        If the blocks are too few, or not longer than the largest lag.
    """
    count, length, size = first.shape
    if length <= int(np.max(lags)) + 1:
        raise QuenchedError(f"blocks of {length} samples are too short for a lag of {int(np.max(lags))} samples")
    if count < (2 if centred else 6):
        raise QuenchedError(f"{count} blocks: products of different blocks need at least {2 if centred else 6}")
    means = [x.mean(axis=1) for x in (first, second)]
    total = np.zeros((3, len(lags)))
    for a, b in combinations(range(count), 2):
        f, s = (first[a], first[b]), (second[a], second[b])
        if not centred:
            rest = [k for k in range(count) if k not in (a, b)]
            c, d, e, g = (rest[k::4] for k in range(4))
            f = (f[0] - means[0][c].mean(axis=0), f[1] - means[0][d].mean(axis=0))
            s = (s[0] - means[1][e].mean(axis=0), s[1] - means[1][g].mean(axis=0))
        total += _pair(f, s, lags, same=centred and second is first)
    traces, squared, diagonal = total / (count * (count - 1) / 2)
    return CrossMoments(size, float(traces[0]), squared, diagonal)


def _pair(f: Pair, s: Pair, lags: NDArray[Any], same: bool) -> Array:
    """(Tr C)², Tr CCᵀ and Σ_i C_ii² at every lag from one pair of blocks, (3, k)."""
    left = f[0] @ f[1].T
    right = left if same else s[0] @ s[1].T
    out = np.zeros((3, len(lags)))
    for k, lag in enumerate(lags):
        shared = len(left) - lag
        own = [np.einsum("tn,tn->n", f[k][:shared], s[k][lag:]) / shared for k in (0, 1)]
        squared = np.vdot(left[:shared, :shared], right[lag:, lag:]) / shared**2
        out[:, k] = float(own[0].sum()) * float(own[1].sum()), squared, np.dot(*own)
    return out


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
