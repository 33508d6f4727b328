"""Lyapunov spectra: many tangent vectors of one trajectory, kept orthogonal by QR decompositions.

Every row of the state carries one tangent vector, so k exponents take k rows that hold the same trajectory: the same
start and noise, and copied from the first row at every decomposition, before rounding tells them apart.

Perturbations of dynamic couplings belong to the tangent vectors and are combined with them, but the vectors are
orthogonal in their components at the units alone: volumes of projections grow like the volumes themselves. So the
largest exponents of units and couplings together are measured, up to as many as the units have fields.

Source: Benettin, Galgani, Giorgilli & Strelcyn, Meccanica 15, 9 (1980); Kaplan & Yorke, LNM 730, 204 (1979).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.estimators import Estimator

if TYPE_CHECKING:
    from quenched.validate.realise import Network

Array = NDArray[Any]
SPECTRUM, DIMENSION = "lyapunov_spectrum", "kaplan_yorke"


def kaplan_yorke(exponents: ArrayLike) -> float:
    """Kaplan–Yorke dimension j + (λ₁ + … + λ_j)/|λ_{j+1}|, j the largest number of exponents whose sum is not negative.

    Parameters
    ----------
    exponents : array (k,), the largest k exponents

    Returns
    -------
    float
        nan if the sum of all given exponents is not negative: more of them are needed.
    """
    falling = np.sort(np.atleast_1d(np.asarray(exponents, float)))[::-1]
    sums = np.cumsum(falling)
    below = np.flatnonzero(sums < 0)
    if not len(below):
        return float("nan")
    j = int(below[0])
    return j + float(sums[j - 1]) / abs(float(falling[j])) if j else 0.0


class Spectrum:
    """Accumulates the growth of volumes spanned by the tangent vectors of one trajectory."""

    def __init__(self, net: Network, start: int) -> None:
        self._net, self._start = net, start
        self._last: int | None = None
        self._sum = np.zeros(net.trajectories)
        self._steps = 0

    def renormalise(self, step: int, y: Array) -> None:
        """Replace the tangent vectors by an orthonormal basis of what they span; count after the transient."""
        count = self._net.trajectories
        _, upper = np.linalg.qr(y[count:].T)
        size = np.abs(np.diag(upper))
        if not np.all(size > 0):
            raise QuenchedError("tangent vectors became parallel: a shorter stride, or fewer exponents")
        mixing = np.linalg.inv(upper).T
        y[count:] = mixing @ y[count:]
        y[:count] = y[0]
        self._net.mix_past(mixing)
        if self._last is not None and self._last >= self._start:
            self._sum += np.log(size)
            self._steps += step - self._last
        self._last = step

    def rate(self) -> float:
        """The largest exponent a step."""
        return float(np.max(self.rates()))

    def rates(self) -> Array:
        """All exponents a step, the largest first."""
        found = self._sum / self._steps if self._steps else np.full(len(self._sum), np.nan)
        return np.sort(found)[::-1]


def check_exponents(count: int, units: int, trajectories: int, tangent: bool, why: str) -> None:
    """Refuse what has no spectrum.

    Raises
    ------
    QuenchedError
        More exponents than units have fields, several trajectories, or no tangent vectors.
    """
    if not tangent:
        raise QuenchedError(f"lyapunov_spectrum needs tangent vectors: {why}")
    if trajectories != 1:
        raise QuenchedError(f"lyapunov_spectrum is that of one trajectory: trajectories=1, got {trajectories}")
    if count > units:
        raise QuenchedError(f"lyapunov_spectrum = {count}: there are {units} exponents of the units at this N")


def spectrum_estimators() -> dict[str, Estimator]:
    """The spectrum and its dimension, as what they are measured by."""
    bias = "time step as for the trajectory; finite T: O(1/T) for every exponent"
    return {
        SPECTRUM: Estimator(SPECTRUM, "lim (1/T) ln |R_ii(T)| of a QR decomposition", "slope", bias, "declaration"),
        DIMENSION: Estimator(
            DIMENSION,
            "j + Σ_{i≤j} λ_i/|λ_{j+1}|",
            "function of means",
            bias + "; nonlinear in exponents",
            "declaration",
        ),
    }
