"""Dynamic couplings of a finite network: one matrix a trajectory, moved by the same time step as the units.

dA/dt = r·A + Σ l rᵀ is linear in A, so Heun's predictor never has to be formed: what it does to a vector is known from
A itself and the vectors l, r of the first stage, and a whole step is one scaling and a few rank-one updates. Tangent
matrices δA follow the linearised equation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class BondSpec:
    """A dynamic coupling: units of its rows and columns, number of drives."""

    name: str
    rows: int
    cols: int
    drives: int


class Bond:
    """The matrices of one dynamic coupling.

    Attributes
    ----------
    matrices : arrays (trajectories, rows, columns)
    tangents : the same for perturbations, or None
    rates : rate r at the two stages of a step
    left, right : arrays (stage, drive, rows of the state, units): l (with the coefficient) and r of every drive
    """

    def __init__(self, spec: BondSpec, trajectories: int, tangent: bool, dtype: Any) -> None:
        shape, rows = (trajectories, spec.rows, spec.cols), trajectories * (2 if tangent else 1)
        self.spec, self.trajectories = spec, trajectories
        self.matrices = np.zeros(shape, dtype)
        self.tangents = np.zeros(shape, dtype) if tangent else None
        self.rates = [0.0, 0.0]
        self.left = np.zeros((2, spec.drives, rows, spec.rows), dtype)
        self.right = np.zeros((2, spec.drives, rows, spec.cols), dtype)

    def start(self, left: Array, right: Array) -> None:
        """Add l rᵀ to the matrix of every trajectory, l and r one row (or number) a trajectory."""
        u = np.broadcast_to(left, (self.trajectories, self.spec.rows))
        v = np.broadcast_to(right, (self.trajectories, self.spec.cols))
        self.matrices += u[:, :, None] * v[:, None, :]

    def multiply(self, transposed: bool, stage: int, dt: float, psi: Array) -> Array:
        """A ψ for every trajectory; δ(A ψ) for the tangent rows of ψ. Stage 1 is Heun's predictor."""
        B = self.trajectories
        ends = (self.right, self.left) if transposed else (self.left, self.right)
        out = np.empty((len(psi), self.spec.cols if transposed else self.spec.rows), psi.dtype)
        for b in range(B):
            out[b] = self._one(b, transposed, stage, dt, psi[b], ends)
        for b in range(B, len(psi)):
            out[b] = self._one(b - B, transposed, stage, dt, psi[b], ends)
            out[b] += self._tangent(b - B, transposed, stage, dt, psi[b - B], ends)
        return out

    def _one(self, b: int, transposed: bool, stage: int, dt: float, psi: Array, ends: Any) -> Array:
        A = self.matrices[b].T if transposed else self.matrices[b]
        if not stage:
            return np.asarray(A @ psi)
        left, right = ends
        return np.asarray((1 + dt * self.rates[0]) * (A @ psi) + dt * (right[0, :, b] @ psi) @ left[0, :, b])

    def _tangent(self, b: int, transposed: bool, stage: int, dt: float, psi: Array, ends: Any) -> Array:
        assert self.tangents is not None
        A = self.tangents[b].T if transposed else self.tangents[b]
        if not stage:
            return np.asarray(A @ psi)
        (left, right), B = ends, self.trajectories
        out = (1 + dt * self.rates[0]) * (A @ psi)
        out += dt * (right[0, :, b] @ psi) @ left[0, :, B + b]
        return np.asarray(out + dt * (right[0, :, B + b] @ psi) @ left[0, :, b])

    def advance(self, scheme: str, dt: float) -> None:
        """One step of all matrices, from the rates and drives that its stages have noted."""
        scale, weights = _step(scheme, dt, self.rates)
        B = self.trajectories
        left, right = self.left[: len(weights)], self.right[: len(weights)]
        w = np.asarray(weights, self.left.dtype)[:, None, None]
        for b in range(B):
            plain = _flat(w * left[:, :, b]), _flat(right[:, :, b])
            _update(self.matrices[b], scale, [plain])
            if self.tangents is not None:
                turned = _flat(w * left[:, :, B + b]), plain[1]
                _update(self.tangents[b], scale, [turned, (plain[0], _flat(right[:, :, B + b]))])

    def rescale(self, factors: Array) -> None:
        """Rescale the tangent matrices with the tangent vectors."""
        if self.tangents is not None:
            self.tangents *= np.reshape(factors, (-1, 1, 1)).astype(self.tangents.dtype)

    def mix(self, mixing: Array) -> None:
        """Replace tangent matrices by combinations of them; all trajectories are the first one."""
        self.matrices[:] = self.matrices[0]
        if self.tangents is not None:
            self.tangents[:] = np.tensordot(mixing.astype(self.tangents.dtype), self.tangents, axes=1)


def _step(scheme: str, dt: float, rates: Sequence[float]) -> tuple[float, list[float]]:
    """A' = scale·A + Σ_stages weight·drives."""
    first, second = rates
    if scheme == "map":
        return first, [1.0]
    if scheme == "euler":
        return 1 + dt * first, [dt]
    return 1 + dt / 2 * (first + second * (1 + dt * first)), [dt / 2 * (1 + dt * second), dt / 2]


def _flat(vectors: Array) -> Array:
    return vectors.reshape(-1, vectors.shape[-1])


def _update(matrix: Array, scale: float, pairs: Sequence[tuple[Array, Array]]) -> None:
    """matrix ← scale·matrix + Σ leftᵀ right, in place by one pass of BLAS a pair."""
    from scipy.linalg.blas import dgemm, sgemm

    gemm = sgemm if matrix.dtype == np.float32 else dgemm
    for k, (left, right) in enumerate(pairs):
        if not len(left):
            matrix *= scale if k == 0 else 1.0
            continue
        gemm(1.0, right.T, left.T, beta=scale if k == 0 else 1.0, c=matrix.T, trans_b=True, overwrite_c=True)


__all__ = ["Bond", "BondSpec"]
