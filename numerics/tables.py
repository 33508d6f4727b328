"""Two-point averages as Chebyshev series in the angle θ between the arguments, cov = scale · sin θ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.chebyshev import chebder, chebint, chebval

from .quadrature import chebyshev
from .types import Array


@dataclass(frozen=True)
class Table:
    """⟨fg⟩ and its derivative with respect to the covariance on low ≤ θ ≤ high, for fixed means and variances.

    Attributes
    ----------
    low, high : float
        Range of θ.
    scale : float
        √(var u · var v), so that cov = scale · sin θ.
    coefficients, slopes : arrays
        Chebyshev coefficients of ⟨fg⟩ and d⟨fg⟩/dcov in θ; `slopes` is None where the derivative diverges at θ = π/2.
    error, slope_error : float
        Estimated absolute errors.
    """

    low: float
    high: float
    scale: float
    coefficients: Array
    slopes: Array | None
    error: float
    slope_error: float

    def _x(self, theta: Array) -> Array:
        return (2 * theta - self.low - self.high) / (self.high - self.low)

    def at(self, theta: Array) -> Array:
        """⟨fg⟩ at θ."""
        return np.asarray(chebval(self._x(theta), self.coefficients), dtype=float)

    def slope(self, theta: Array) -> Array:
        """⟨f'g'⟩ at θ."""
        if self.slopes is None:
            return self.rotation(theta) / (self.scale * np.cos(theta))
        return np.asarray(chebval(self._x(theta), self.slopes), dtype=float)

    def rotation(self, theta: Array) -> Array:
        """d⟨fg⟩/dθ, finite for every site function."""
        if self.slopes is not None:
            return self.slope(theta) * self.scale * np.cos(theta)
        slope = chebval(self._x(theta), chebder(self.coefficients))
        return np.asarray(slope * 2 / (self.high - self.low), dtype=float)

    def theta(self, cov: Array) -> Array:
        """θ of a covariance; values beyond the variances by rounding are taken at the end."""
        return np.arcsin(np.clip(cov / self.scale, -1.0, 1.0))

    def integral(self, low: float, high: float) -> float:
        """∫⟨fg⟩ dcov between two values of θ."""
        x, matrix = chebyshev(len(self.coefficients) + 24)
        theta = (self.low + self.high) / 2 + (self.high - self.low) / 2 * x
        anti = chebint(matrix @ (self.at(theta) * self.scale * np.cos(theta))) * ((self.high - self.low) / 2)
        ends = chebval(self._x(np.array([low, high])), anti)
        return float(ends[1] - ends[0])


def diverges(p: Array, theta: Array) -> bool:
    """Whether ⟨f'g'⟩ grows like 1/cos θ towards θ = π/2 (both functions jump at one place)."""
    if len(p) < 4:
        return False
    order = np.argsort(theta)
    p, theta = p[order], theta[order]
    return bool(abs(p[-1]) > 3 * abs(p[-2]) and abs(p[-2]) > 1.5 * abs(p[-3])) and bool(np.pi / 2 - theta[-1] < 0.1)
