"""Estimators of cross-covariances between units: participation ratio and ψ from trajectories.

Estimation noise of a covariance matrix adds about N·(correlation time)/(duration) to Tr Ĉ², as large as the signal. It
averages to zero in products of estimates from disjoint blocks of time, so only pairs of different blocks are used. The
participation ratio is a ratio of averages over networks: the mean of ratios is biased, as Tr C² has a heavy tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quenched.theory.errors import QuenchedError

Array = NDArray[np.float64]


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
    steps = np.asarray(lags, dtype=int)
    length = len(values) // max(blocks, 1)
    if blocks < 2 or length <= int(np.max(steps)) + 1:
        raise QuenchedError(f"{len(values)} samples do not make {blocks} blocks longer than a lag of {np.max(steps)}")
    parts = values[: blocks * length].reshape(blocks, length, -1)
    traces = np.mean(np.sum(parts**2, axis=2), axis=1)
    squared, diagonal = np.zeros(len(steps)), np.zeros(len(steps))
    for k, lag in enumerate(steps):
        total, own = np.zeros((parts.shape[2],) * 2), 0.0
        single, own_single = np.zeros(parts.shape[2]), 0.0
        for part in parts:
            c = part[lag:].T @ part[: length - lag] / (length - lag)
            total += c
            single += np.diag(c)
            own, own_single = own + float(np.sum(c * c)), own_single + float(np.sum(np.diag(c) ** 2))
        pairs = blocks * (blocks - 1)
        squared[k] = (np.sum(total * total) - own) / pairs
        diagonal[k] = (np.sum(single**2) - own_single) / pairs
    both = (np.sum(traces) ** 2 - np.sum(traces**2)) / (blocks * (blocks - 1))
    return CrossMoments(parts.shape[2], float(both), squared, diagonal)


def participation(networks: list[CrossMoments]) -> tuple[float, float]:
    """(Tr C)²/Tr C² per unit as a ratio of averages over networks, and its standard error (jackknife)."""
    top = np.array([n.trace_squared for n in networks])
    bottom = np.array([n.squared_trace[0] * n.size for n in networks])
    return _ratio(top, bottom)


def cross_covariance(networks: list[CrossMoments]) -> tuple[Array, Array]:
    """ψ(τ, τ) = N·mean over i≠j of C_ij(τ)² and its standard error, arrays (k,)."""
    each = np.array([(n.squared_trace - n.diagonal) / (n.size - 1) for n in networks])
    return each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(len(each))


def _ratio(top: Array, bottom: Array) -> tuple[float, float]:
    count = len(top)
    if count < 2:
        raise QuenchedError("a standard error needs at least two networks")
    without = (top.sum() - top) / (bottom.sum() - bottom)
    error = np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2))
    return float(top.sum() / bottom.sum()), float(error)
