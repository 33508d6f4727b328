"""1/N covariances of a solved state: variance of cross-covariances ψ(τ, τ′) and participation ratios.

Everything is a double integral over frequencies of a smooth function that peaks along ω₁ = −ω₂. A flow is integrated
by the trapezoidal rule in the variable θ with ω = s·sinh θ (exponentially convergent, algebraic tails included), a map
by the trapezoidal rule on the circle. Every second node gives the coarser value that the error is judged by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quenched.theory.errors import ConvergenceError

from .propagators import Complex, Propagators
from .types import Array, Number

_SIZES = (128, 256, 512, 1024, 2048)
_ROWS = 64


@dataclass(frozen=True)
class Fluctuation:
    """Cross-covariances of one field between units.

    Attributes
    ----------
    name : of the field
    variance : ⟨a²⟩, the diagonal of the covariance matrix
    participation : (Tr C)²/Tr C² divided by the number of units, N → ∞
    tau : array (k,), lags
    psi, psi_error : arrays (k,), ψ(τ, τ) = N·mean over i≠j of C_ij(τ)², N the size of the field's population
    nodes : frequencies used (each of two)
    """

    name: str
    variance: Number
    participation: Number
    tau: Array
    psi: Array
    psi_error: Array
    nodes: int


def fluctuation(state: Propagators, name: str, lags: Array | None = None, *, tol: float = 1e-6) -> Fluctuation:
    """ψ(τ, τ) and the participation ratio of a field.

    Parameters
    ----------
    state : spectra and responses of one unit
    name : of the field
    lags : array (k,), optional
        τ of ψ(τ, τ), in units of time (steps of a map); 0 by default.
    tol : float
        Accuracy of ψ(0, 0) aimed at, relative.

    Raises
    ------
    ConvergenceError
        If the double integral does not converge at the finest grid.
    """
    tau = np.zeros(1) if lags is None else np.asarray(lags, dtype=float)
    psi, error, nodes = cross_variance(state, name, name, np.concatenate([[0.0], tau]), tol=tol)
    c = state.covariance(name, name)
    total = state.squared(name).value + float(psi[0])
    ratio = c.value**2 / total
    spread = ratio * (float(error[0]) + 2 * c.value * c.error * (1 - ratio)) / total
    return Fluctuation(name, c, Number(ratio, spread), tau, psi[1:], error[1:], nodes)


def cross_variance(
    state: Propagators, first: str, second: str, lags: Array, *, tol: float = 1e-6
) -> tuple[Array, Array, int]:
    """ψ(τ, τ) = N·mean over i≠j of C_ij(τ)², C_ij(τ) = ⟨a_i(t) b_j(t+τ)⟩ of two fields of one population.

    Returns
    -------
    values and errors (k,), number of frequencies
    """
    history = []
    for size in _SIZES:
        omega, weight = state.nodes(size)
        sector = _Sector(state, second, first, omega)
        fine, coarse = sector.integrate(weight, lags)
        error = np.abs(fine - coarse)
        history.append(float(error[0] / abs(fine[0])))
        if history[-1] < tol:
            break
    else:
        raise ConvergenceError(
            f"ψ of {first} is known to {history[-1]:.1g} only at {2 * _SIZES[-1]} frequencies: the state is "
            "close to a transition"
        )
    return fine, error + sector.sensitivity(weight, lags, fine), len(omega)


class _Sector:
    """N·Cov − Σ of the modes ⟨a¹ a²⟩ and ⟨b¹ b²⟩ on pairs of frequencies."""

    def __init__(self, state: Propagators, a: str, b: str, omega: Array, moved: bool = False) -> None:
        self.state, self.a, self.b, self.omega = state, a, b, omega
        self.population = state.population(a)
        self.fraction = state.fraction(self.population)
        self.moved = moved
        self._known: dict[tuple[str, str], Complex] = {}

    def propagator(self, a: str, c: str) -> Complex:
        """K_ac(ω) for every case of what copies share, (k, n)."""
        if (a, c) not in self._known:
            self._known[a, c] = self.state.each(a, c, self.omega, self.moved)
        return self._known[a, c]

    def sigma(self, m: tuple[str, str, str], n: tuple[str, str, str], rows: slice, cols: slice) -> Complex | float:
        """Σ_mn, (rows, cols), or 0."""
        if m[0] != n[0]:
            return 0.0
        first, second = self.propagator(m[1], n[1])[:, rows], self.propagator(m[2], n[2])[:, cols]
        if not np.any(first) or not np.any(second):
            return 0.0
        shared = self.state.weights(m[0])[: len(first), None] * first
        return np.asarray(shared.T @ second / self.state.fraction(m[0]), dtype=complex)

    def excess(self, rows: slice, cols: slice) -> Complex:
        """f·(Σ_Ao P''(1 − Σ_oo P'')^{-1} Σ_oA) for a block of frequency pairs."""
        modes, hessian = self.state.problem.modes, self.state.hessian
        own, other = (self.population, self.a, self.a), (self.population, self.b, self.b)
        size = len(modes)
        shape = (len(self.omega[rows]), len(self.omega[cols]))
        among = [[self.sigma(modes[i], modes[j], rows, cols) for j in range(size)] for i in range(size)]
        matrix = [
            [
                float(i == j) - sum(among[i][k] * hessian[k, j] for k in range(size) if hessian[k, j])
                for j in range(size)
            ]
            for i in range(size)
        ]
        solved = _eliminate(matrix, [self.sigma(m, other, rows, cols) for m in modes])
        total = np.zeros(shape, complex)
        for i in range(size):
            left = self.sigma(own, modes[i], rows, cols)
            if isinstance(left, float):
                continue
            for j in range(size):
                if hessian[i, j]:
                    total = total + left * hessian[i, j] * solved[j]
        return np.asarray(self.fraction * total, dtype=complex)

    def integrate(self, weight: Array, lags: Array) -> tuple[Array, Array]:
        """ψ(τ, τ) at lags (k,), by all nodes and by every second one."""
        waves = weight * np.exp(1j * np.outer(lags, self.omega))
        fine, coarse = np.zeros(len(lags)), np.zeros(len(lags))
        parity = _coarse(len(self.omega))
        # M(−ω₁, −ω₂) is the conjugate of M(ω₁, ω₂): half of the plane is enough.
        middle, flow = len(self.omega) // 2, self.state.flow
        everything = slice(None)
        for start in range(0, len(self.omega) if not flow else middle + 1, _ROWS):
            stop = min(start + _ROWS, len(self.omega) if not flow else middle + 1)
            rows = slice(start, stop)
            block = self.excess(rows, everything)
            twice = np.where(np.arange(start, stop) == middle, 1.0, 2.0) if flow else np.ones(stop - start)
            left = waves[:, rows] * twice
            fine += np.real(np.einsum("tr,rc,tc->t", left, block, waves, optimize=True))
            even = np.arange(start, stop) % 2 == parity
            left = 2 * left[:, even]
            thin = 2 * waves[:, parity::2]
            coarse += np.real(np.einsum("tr,rc,tc->t", left, block[even][:, parity::2], thin, optimize=True))
        return fine, coarse

    def sensitivity(self, weight: Array, lags: Array, value: Array) -> Array:
        """How far ψ moves when spectra and slopes move by their errors, (k,), on the coarser nodes."""
        thin = slice(_coarse(len(self.omega)), None, 2)
        parts = []
        for moved in (False, True):
            sector = _Sector(self.state, self.a, self.b, self.omega[thin], moved)
            parts.append(sector.integrate(2 * weight[thin], lags)[0])
        return np.abs(parts[1] - parts[0]) + 1e-13 * np.abs(value)


def _coarse(size: int) -> int:
    """Parity of the nodes that are kept in the coarser rule: the middle one of a symmetric grid stays."""
    return (size // 2) % 2 if size % 2 else 0


def _eliminate(matrix: list[list], right: list) -> list:
    """Solve a small system for many frequency pairs at once; entries are arrays or 0. No pivots: near the identity."""
    size = len(right)
    matrix, right = [list(row) for row in matrix], list(right)
    for k in range(size):
        for i in range(k + 1, size):
            if _nothing(matrix[i][k]):
                continue
            ratio = matrix[i][k] / matrix[k][k]
            for j in range(k + 1, size):
                if not _nothing(matrix[k][j]):
                    matrix[i][j] = matrix[i][j] - ratio * matrix[k][j]
            if not _nothing(right[k]):
                right[i] = right[i] - ratio * right[k]
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            if not _nothing(matrix[k][j]) and not _nothing(right[j]):
                right[k] = right[k] - matrix[k][j] * right[j]
        right[k] = right[k] / matrix[k][k]
    return right


def _nothing(entry: object) -> bool:
    return isinstance(entry, (int, float)) and entry == 0
