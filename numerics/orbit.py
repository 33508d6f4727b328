"""The covariance Δ(τ) of a conservative particle, and its two-copy Schrödinger problem.

Both live on a coordinate p in which everything is smooth,

    Δ − Δ∞ = A cosh²(p₀)/cosh²(p + p₀),   dτ = −dΔ √(inertia/2E(Δ)),

with p₀ chosen so that p = −p₀ is the (virtual) turning point: p₀ = 0 without noise. The energy E(Δ) = V(Δ∞) − V(Δ) is
computed from the end that is nearer, so that it never cancels; elements in p carry Gauss–Lobatto nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import eig_banded
from scipy.optimize import brentq

from quenched.theory.errors import ConvergenceError

from .potential import Particle, State
from .quadrature import legendre
from .tables import Table
from .types import Array, Number

_DEGREE = 14
_COARSE = 11
_INNER = 32
_EPS = float(np.finfo(float).eps)


@lru_cache(maxsize=8)
def lobatto(degree: int) -> tuple[Array, Array, Array, Array]:
    """Nodes, weights, derivative matrix and cumulative-integral matrix of Gauss–Lobatto nodes on [−1, 1]."""
    basis = np.polynomial.legendre.Legendre.basis(degree)
    x = np.concatenate([[-1.0], np.sort(np.real(basis.deriv().roots())), [1.0]])
    w = 2 / (degree * (degree + 1) * basis(x) ** 2)
    vandermonde = np.polynomial.legendre.legvander(x, degree + 1)
    inverse = np.linalg.inv(vandermonde[:, : degree + 1])
    slopes = np.stack([np.polynomial.legendre.Legendre.basis(k).deriv()(x) for k in range(degree + 1)], axis=1)
    k = np.arange(1, degree + 1)
    anti = np.empty((degree + 1, degree + 1))
    anti[:, 0] = x + 1
    anti[:, 1:] = (vandermonde[:, 2 : degree + 2] - vandermonde[:, :degree]) / (2 * k + 1)
    return x, w, slopes @ inverse, anti @ inverse


class TurnsBackError(ConvergenceError):
    """An energy root whose particle is stopped on the way: not a state."""


@dataclass(frozen=True)
class Orbit:
    """Δ(τ) on elements of p.

    Attributes
    ----------
    p, tau, speed, excess : arrays (elements, degree + 1)
        Coordinate, lag, dτ/dp, Δ − Δ∞.
    theta : array, same shape
        asin(Δ/Δ0).
    state : State
    rate : float
        Decay rate of Δ − Δ∞ at long lags.
    error : float
        Estimated relative error of dτ/dp.
    """

    p: Array
    tau: Array
    speed: Array
    excess: Array
    theta: Array
    state: State
    rate: float
    error: float

    def __call__(self, tau: Array) -> Array:
        """Δ at lags τ ≥ 0."""
        tau = np.abs(np.asarray(tau, dtype=float))
        return self.state.limit + self._excess(tau)

    def _excess(self, tau: Array) -> Array:
        ends = self.tau[:, -1]
        element = np.minimum(np.searchsorted(ends, tau), len(ends) - 1)
        x = _invert(self.tau[element], tau)
        log = np.log(self.excess)
        inside = np.exp(_barycentric(log[element], x))
        tail = self.excess[-1, -1] * np.exp(-self.rate * np.maximum(tau - ends[-1], 0.0))
        return np.where(tau <= ends[-1], inside, tail)


def _barycentric(values: Array, x: Array) -> Array:
    """Interpolate rows of nodal values (points, degree + 1) at reference coordinates x (points,)."""
    nodes, _, _, _ = lobatto(values.shape[1] - 1)
    weights = 1 / np.prod(nodes[:, None] - nodes + np.eye(len(nodes)), axis=1)
    gap = x[:, None] - nodes
    exact = np.abs(gap) < 1e-15
    share = weights / np.where(exact, 1.0, gap)
    share = np.where(np.any(exact, axis=1, keepdims=True), np.where(exact, 1.0, 0.0), share)
    return (share * values).sum(axis=1) / share.sum(axis=1)


def _invert(rows: Array, targets: Array) -> Array:
    """Reference coordinates where monotone nodal rows take the target values (bracketed secant steps)."""
    low, high = np.full(len(targets), -1.0), np.ones(len(targets))
    x = -1 + 2 * (targets - rows[:, 0]) / (rows[:, -1] - rows[:, 0])
    derivative = rows @ lobatto(rows.shape[1] - 1)[2].T
    for _ in range(30):
        x = np.clip(x, -1.0, 1.0)
        gap = _barycentric(rows, x) - targets
        low, high = np.where(gap < 0, x, low), np.where(gap < 0, high, x)
        step = gap / _barycentric(derivative, x)
        new = x - step
        new = np.where((new < low) | (new > high), (low + high) / 2, new)
        if np.max(np.abs(new - x)) < 1e-14:
            return np.clip(new, -1.0, 1.0)
        x = new
    return np.clip(x, -1.0, 1.0)


class _Energy:
    """E(Δ) and W'(Δ) along the orbit from tables of the sources."""

    def __init__(self, particle: Particle, state: State, tables: list[Table]) -> None:
        self.q, self.s, self.tables = particle, state, tables
        self.low = float(np.arcsin(np.clip(state.limit / state.variance, -1.0, 1.0)))

    def source(self, theta: Array) -> Array:
        return sum((w * t.at(theta) for w, t in zip(self.q.weights, self.tables, strict=True)), np.zeros_like(theta))

    def rotation(self, theta: Array) -> Array:
        return sum(
            (w * t.rotation(theta) for w, t in zip(self.q.weights, self.tables, strict=True)), np.zeros_like(theta)
        )

    def curvature(self, theta: Array) -> Array:
        """Σ w⟨f'g'⟩."""
        return sum((w * t.slope(theta) for w, t in zip(self.q.weights, self.tables, strict=True)), np.zeros_like(theta))

    def angle(self, ratio: Array, below: Array) -> Array:
        """θ − θ∞ for Δ − Δ∞ = ratio·Δ0 and Δ0 − Δ = below·Δ0, relatively accurate at both ends."""
        sin0 = self.s.limit / self.s.variance
        cos0 = np.sqrt((1 - sin0) * (1 + sin0))
        sin = sin0 + ratio
        cos = np.sqrt(below * (1 + sin))
        sine = ratio * cos0 + sin0 * ratio * (2 * sin0 + ratio) / (cos + cos0)
        return np.arctan2(sine, cos * cos0 + sin * sin0)

    def near_limit(self, excess: Array, angle: Array) -> Array:
        """E/(Δ − Δ∞)² = ½ stiffness − ∫ (Δ − c) W'(c) dc/(Δ − Δ∞)²."""
        x, w = legendre(_INNER)
        x, w = (x + 1) / 2, w / 2
        inner = self.low + angle[..., None] * x
        gap = 2 * np.cos(self.low + angle[..., None] * (1 + x) / 2) * np.sin(angle[..., None] * (1 - x) / 2)
        lever = gap * self.s.variance / excess[..., None]
        integral = (self.rotation(inner) * lever) @ w * angle / excess
        return 0.5 * self.q.stiffness - integral

    def near_start(self, below: Array, top: Array) -> Array:
        """E for Δ = Δ0 − below, with top = π/2 − θ: ½ kick²/inertia − ∫_Δ^Δ0 (stiffness c − static − W) dc."""
        x, w = legendre(_INNER)
        x, w = (x + 1) / 2, w / 2
        inner = np.pi / 2 - top[..., None] * x
        c = self.s.variance * np.sin(inner)
        force = self.q.stiffness * c - self.q.static - self.source(inner)
        work = (force * np.sin(top[..., None] * x)) @ w * top * self.s.variance
        return 0.5 * self.q.kick**2 / self.q.inertia - work


def orbit(particle: Particle, state: State) -> tuple[Orbit, _Energy]:
    """Δ(τ) of a state to about 1e-11, or ConvergenceError where its correlation time is beyond double precision."""
    s = state
    low = float(np.arcsin(np.clip(s.limit / s.variance, -1.0, 1.0)))
    energy = _Energy(particle, s, particle.tables(s.mean, s.variance, low))
    amplitude = s.variance - s.limit
    rest = 0.5 * particle.kick**2 / particle.inertia
    top = np.array(np.pi / 2)
    slope = float(energy.source(top) + particle.static - particle.stiffness * s.variance)  # −E'(Δ0) = V'(Δ0)
    start = 20.0 if slope <= 0 else min(np.arcsinh(np.sqrt(rest / (slope * amplitude))), 20.0)
    x, _, _, _ = lobatto(_DEGREE)
    edges = _elements(start > 0, particle.kinked)
    half = np.diff(edges) / 2
    p = (edges[:-1] + half)[:, None] + half[:, None] * x
    # At a turning point dτ/dp is 0/0: take its limit from very near, the rest exactly there.
    turning = start == 0
    p[0, 0] = 1e-8 if turning else 0.0
    shrink = (np.cosh(start) / np.cosh(p + start)) ** 2
    excess = amplitude * shrink
    below = amplitude * np.sinh(p) * np.sinh(p + 2 * start) / np.cosh(p + start) ** 2
    angle = energy.angle(excess / s.variance, below / s.variance)
    theta = low + angle
    speed, error = _speed(particle, energy, excess, below, angle, np.tanh(p + start), amplitude)
    if turning:
        p[0, 0], excess[0, 0], theta[0, 0] = 0.0, amplitude, np.pi / 2
    cumulative = lobatto(_DEGREE)[3]
    part = speed @ cumulative.T * half[:, None]
    tau = part + np.concatenate([[0.0], np.cumsum(part[:-1, -1])])[:, None]
    rate = 2 / float(speed[-1, -1])
    return Orbit(p, tau, speed, excess, theta, s, rate, error), energy


def _elements(noisy: bool, kinked: bool) -> Array:
    """Element edges in p, graded towards 0.

    With noise ⟨f'g'⟩ depends on the lag (not its square) and starts like its square root for kinked functions.
    """
    levels = np.arange(6.0 if noisy else 3.0, 0.0, -1.0)
    graded = 0.5 * (4.0 if kinked and noisy else 2.0) ** -levels
    return np.concatenate([[0.0], graded, np.linspace(0.5, 4, 8), np.linspace(4, 16, 13)[1:]])


def _speed(
    particle: Particle, energy: _Energy, excess: Array, below: Array, angle: Array, slope: Array, amplitude: float
) -> tuple[Array, float]:
    lower = energy.near_limit(excess, angle)
    top = np.arcsin(np.sqrt(np.minimum(below / (2 * energy.s.variance), 1.0))) * 2
    upper = energy.near_start(below, top) / excess**2
    scale = particle.stiffness + float(np.max(np.abs(energy.curvature(np.array([energy.low])))))
    table_error = sum(abs(w) * t.slope_error for w, t in zip(particle.weights, energy.tables, strict=True))
    use_upper = below < 0.5 * amplitude
    ratio = np.where(use_upper, upper, lower)
    if np.any(ratio <= 0):
        if np.min(lower[~use_upper]) <= 1e3 * (_EPS * scale + table_error):
            raise ConvergenceError(
                "the correlation time is beyond double precision: the parameters are too close to the transition"
            )
        raise TurnsBackError("the particle turns back before it reaches its limit: this energy root is no state")
    middle = (below > 0.3 * amplitude) & (below < 0.7 * amplitude)
    mismatch = np.max(np.abs(upper / lower - 1)[middle]) if np.any(middle) else 0.0
    error = float(mismatch + (4 * _EPS * scale + table_error) / np.min(lower[~use_upper]))
    if error > 0.02:
        raise ConvergenceError(
            f"the covariance is not resolved at double precision (relative error {error:.1e}):"
            " the parameters are too close to the transition"
        )
    return 2 * slope * np.sqrt(particle.inertia / (2 * ratio)), error


def growth(particle: Particle, path: Orbit, energy: _Energy) -> Number:
    """Largest λ with a bound state of [growth_stiffness(λ) − inertia ∂² − Σ w⟨f'g'⟩] ψ = 0, even in τ.

    The bound state decays beyond the last element as its own energy says (Robin condition); without one the edge of
    the continuous spectrum counts.
    """
    if any(particle.averages.diverging_slope(s) for s in particle.indices):
        return Number(np.inf, 0.0)
    fine = _ground_state(particle, path, energy, _DEGREE)
    coarse = _ground_state(particle, path, energy, _COARSE)
    tables = sum(abs(w) * t.slope_error for w, t in zip(particle.weights, energy.tables, strict=True))
    spread = abs(fine - coarse) + tables + 16 * _EPS * abs(fine)
    drift = _variance_sensitivity(particle, energy)
    value = growth_from_stiffness(particle.growth, fine)
    shifted = growth_from_stiffness(
        particle.growth, fine + spread + drift + path.error * abs(fine - particle.stiffness)
    )
    return Number(value, abs(shifted - value) + 1e-15)


def _variance_sensitivity(particle: Particle, energy: _Energy) -> float:
    """Change of the operator by the error of Δ0: |dW'/dΔ0| is at most of order W'/Δ0."""
    size = float(np.max(np.abs(energy.curvature(np.array([energy.low])))))
    return 2 * size * energy.s.variance_error / energy.s.variance


def growth_from_stiffness(coefficients: Array, value: float) -> float:
    """Largest real part of λ with growth_stiffness(λ) = value."""
    shifted = coefficients.copy()
    shifted[-1] -= value
    return float(np.max(np.real(np.roots(shifted))))


def _ground_state(particle: Particle, path: Orbit, energy: _Energy, degree: int) -> float:
    """−(lowest eigenvalue) of −inertia ∂² − W' on even functions, by spectral elements of a degree."""
    _, w, d, _ = lobatto(degree)
    # Resample the well, not θ: with noise θ leaves π/2 like a square root of the lag, the well linearly.
    speed = _resample(path.speed, degree)
    well = _resample(energy.curvature(np.clip(path.theta, energy.low, np.pi / 2)), degree)
    half = (path.p[:, -1] - path.p[:, 0]) / 2
    size = len(half) * degree + 1
    stiff, mass = np.zeros((size, size)), np.zeros(size)
    for e, h in enumerate(half):
        block = slice(e * degree, (e + 1) * degree + 1)
        stiff[block, block] += particle.inertia * (d.T * (w / speed[e])) @ d / h - np.diag(well[e] * speed[e] * w) * h
        mass[block] += speed[e] * w * h
    edge = float(energy.curvature(np.array([energy.low]))[0])
    scale = 1 / np.sqrt(mass)

    def excess(value: float) -> float:
        """−(lowest eigenvalue) with the boundary condition that `value` asks for, minus `value`."""
        matrix = stiff.copy()
        wall = np.sqrt(particle.inertia * max(value - edge, 0.0))
        matrix[-1, -1] += wall
        full = matrix * scale * scale[:, None]
        band = np.stack([np.pad(np.diag(full, -k), (0, k)) for k in range(degree + 1)])
        low, vectors = eig_banded(band, lower=True, select="i", select_range=(0, 0))
        psi = vectors[:, 0] * scale
        best = -float(low[0])
        # Small elements make the matrix large: polish with Rayleigh quotients, whose terms do not cancel.
        for _ in range(3 if particle.kinked else 1):
            rows = np.stack([psi[e * degree : (e + 1) * degree + 1] for e in range(len(half))])
            slopes = rows @ d.T
            kinetic = particle.inertia * np.sum(slopes**2 * w / speed / half[:, None]) + wall * psi[-1] ** 2
            best = float((np.sum(well * speed * w * rows**2 * half[:, None]) - kinetic) / np.sum(mass * psi**2))
            if particle.kinked:
                psi = np.linalg.solve(matrix + np.diag((best + 1e-14) * mass), mass * psi)
                psi = psi / np.max(np.abs(psi))
        return best - value

    # Without a force at the boundary the state is bound more strongly: the root lies between the edge and there.
    top = edge + excess(edge)
    if top <= edge * (1 + 4 * _EPS):
        return edge
    step = excess(top)
    if abs(step) < 1e-15 * abs(top):
        return top + step
    return float(brentq(excess, edge, top, xtol=1e-16, rtol=4 * _EPS))


def _resample(values: Array, degree: int) -> Array:
    """Nodal values on Lobatto nodes of a lower degree."""
    if degree == values.shape[1] - 1:
        return values
    x = lobatto(degree)[0]
    return np.stack([_barycentric(values, np.full(len(values), t)) for t in x], axis=1)
