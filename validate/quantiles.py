"""Numbers placed at the quantiles of a law: the disorder of a typical sample, without the scatter of drawing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from quenched.theory.errors import QuenchedError, nearest
from quenched.validate.sampling import Law

Array = NDArray[np.float64]


def _normal(p: Array, mean: float, variance: float) -> Array:
    return np.asarray(mean + np.sqrt(variance) * special.ndtri(p))


def _laplace(p: Array, scale: float) -> Array:
    return np.asarray(np.where(p < 0.5, scale * np.log(2 * p), -scale * np.log(2 * (1 - p))))


def _spike_slab(p: Array, share: float, law: Law) -> Array:
    """The slab's own quantiles for a share of the numbers, zeros for the rest."""
    slab = round(share * len(p))
    return np.concatenate([np.zeros(len(p) - slab), quantile_points(law, slab)])


def _discrete(p: Array, *pairs: float) -> Array:
    """Values and their probabilities in turn."""
    order = np.argsort(pairs[::2])
    edges = np.cumsum(np.array(pairs[1::2])[order])[:-1]
    return np.array(pairs[::2])[order][np.searchsorted(edges, p, side="right")]


#: Law → its quantile function at ascending probabilities.
QUANTILES: dict[str, Callable[..., Any]] = {
    "Normal": _normal,
    "Uniform": lambda p, low, high: low + (high - low) * p,
    "Ising": lambda p: np.where(p < 0.5, -1.0, 1.0),
    "Bernoulli": lambda p, share: np.where(p < 1 - share, 0.0, 1.0),
    "Laplace": _laplace,
    "HalfNormal": lambda p, scale=1.0: scale * special.ndtri((1 + p) / 2),
    "Exponential": lambda p, mean: -mean * np.log1p(-p),
    "SpikeSlab": _spike_slab,
    "Discrete": _discrete,
    "Empirical": lambda p, *values: np.sort(values)[np.minimum((p * len(values)).astype(int), len(values) - 1)],
}


def quantile_points(law: Law, size: int) -> Array:
    """The quantiles of a law at (k + ½)/size, k = 0 … size − 1.

    Parameters
    ----------
    law : (name, parameters…)
    size : int

    Raises
    ------
    QuenchedError
        For a law without quantile function.
    """
    name, *parameters = law
    if name not in QUANTILES:
        raise QuenchedError(
            f"numbers from {name} cannot be placed at quantiles ({nearest(name, QUANTILES)}): labels='random'"
        )
    p = (np.arange(size) + 0.5) / max(size, 1)
    return np.array(QUANTILES[name](p, *parameters), float) if size else np.zeros(0)
