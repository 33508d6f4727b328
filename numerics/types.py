"""What the solvers return: numbers with errors, branches of solutions, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kind = Literal["trivial", "static", "dynamic", "noisy"]


class Number(NamedTuple):
    """A value and the a-posteriori estimate of its absolute numerical error."""

    value: float
    error: float

    def __float__(self) -> float:
        return float(self.value)


@dataclass(frozen=True)
class Branch:
    """One self-consistent state.

    Times are in the units of the declared flow, or steps of the map. Covariances include their static part.

    Attributes
    ----------
    label : str
        The kind, with its mean or a number when several branches are of one kind.
    kind : "trivial" (no fluctuations between units), "static" (constant in time), "dynamic", "noisy" (driven by noise)
    stable : bool
        Whether the dynamics of a typical network stays near this state.
    growth : Number
        Largest Lyapunov exponent of the state; for a fixed point the rate of its leading eigenvalue.
    tau : array (n_tau,)
    mean, mean_error, variance, variance_error : arrays (arguments,)
    covariance, covariance_error : dict pair (a, b) → array (n_tau,), cov(u_a(t+τ), u_b(t))
    static : dict pair → limit τ → ∞ of the covariance
    two_point, two_point_error : arrays (two_points, n_tau)
    one_point, one_point_error : arrays (one_points,)
    spectrum : (omega (n_omega,), dict pair → complex array) of the decaying part of the covariance, two-sided
    response : dict name → (tau, response)
    residual : float
        Relative residual of the self-consistency equations.
    iterations : int
    method : "potential", "spectral" or "fixed point"
    notes : tuple of str
        Limitations that apply to this branch.
    numbers : name → (value, error) of the numbers in gains and inputs that the state determines
    turning : whether the mode that `growth` belongs to oscillates, as far as it is one of these numbers
    """

    label: str
    kind: Kind
    stable: bool
    growth: Number
    tau: Array
    mean: Array
    mean_error: Array
    variance: Array
    variance_error: Array
    covariance: dict[tuple[int, int], Array]
    covariance_error: dict[tuple[int, int], Array]
    static: dict[tuple[int, int], float]
    two_point: Array
    two_point_error: Array
    one_point: Array
    one_point_error: Array
    spectrum: tuple[Array, dict[tuple[int, int], NDArray[np.complex128]]]
    response: dict[str, tuple[Array, Array]]
    residual: float
    iterations: int
    method: str
    notes: tuple[str, ...] = field(default=())
    numbers: dict[str, tuple[float, float]] = field(default_factory=dict)
    turning: bool = False


@dataclass(frozen=True)
class RawSolution:
    """All branches that were found; `main` is the index of the one that the dynamics reaches."""

    branches: tuple[Branch, ...]
    main: int

    @property
    def state(self) -> Branch:
        """The main branch."""
        return self.branches[self.main]
