"""What one writes by hand for the random rate network: the code that the generated solvers are measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, roots_hermitenorm

Array = NDArray[np.float64]


def log_cosh(u: Array) -> Array:
    """∫ tanh, without overflow."""
    return np.logaddexp(u, -u) - np.log(2)


def hermite(order: int) -> tuple[Array, Array]:
    """Nodes and normalised weights of the standard normal law."""
    z, w = roots_hermitenorm(order)
    return z, w / w.sum()


def variance(g: float, order: int = 200) -> float:
    """Δ0 from the energy condition: Gauss–Hermite and Brent."""
    z, w = hermite(order)

    def energy(v: float) -> float:
        potential = log_cosh(np.sqrt(v) * z)
        return v**2 / 2 - g**2 * float(w @ potential**2 - (w @ potential) ** 2)

    return float(brentq(energy, 1e-3, 2 * g**2, xtol=1e-13, rtol=1e-14))


def two_point(c: float, v: float, nodes: tuple[Array, Array], derivative: bool = False) -> float:
    """⟨φ(u)φ(v)⟩ or ⟨φ'(u)φ'(v)⟩ by nested Gauss–Hermite."""
    z, w = nodes
    inner = np.sqrt(max(v - abs(c), 0.0)) * z
    outer = np.sqrt(abs(c)) * z
    f = (lambda u: 1 - np.tanh(u) ** 2) if derivative else np.tanh
    left = f(outer[:, None] + inner) @ w
    right = left if c >= 0 else f(-outer[:, None] + inner) @ w
    return float(w @ (left * right))


def autocorrelation(g: float, horizon: float = 30.0, order: int = 32) -> tuple[Array, Array]:
    """Δ(τ) by shooting Δ'' = Δ − g²f(Δ) from the top."""
    nodes = hermite(order)
    top = variance(g)

    def newton(_: float, y: Array) -> list[float]:
        c = min(max(y[0], -top), top)
        return [y[1], y[0] - g**2 * two_point(c, top, nodes)]

    found = solve_ivp(newton, (0, horizon), [top, 0.0], rtol=1e-8, atol=1e-10, dense_output=True)
    tau = np.linspace(0, horizon, 301)
    return tau, found.sol(tau)[0]


def lyapunov(g: float, size: int = 2000) -> float:
    """λ from finite differences of the Schrödinger problem on the shot orbit."""
    nodes = hermite(32)
    tau, delta = autocorrelation(g)
    top = delta[0]
    coarse = np.array([two_point(min(max(c, 0.0), top), top, nodes, derivative=True) for c in delta])
    step = tau[-1] / size
    grid = np.arange(size) * step
    well = 1 - g**2 * CubicSpline(tau, coarse)(grid)
    off = np.full(size - 1, -1 / step**2)
    off[0] *= np.sqrt(2)
    lowest = eigh_tridiagonal(2 / step**2 + well, off, select="i", select_range=(0, 0))[0][0]
    return float(-1 + np.sqrt(1 - lowest))


def fourier_iteration(g: float, size: int = 1024, horizon: float = 60.0, tol: float = 1e-8) -> tuple[float, int]:
    """Δ0 and the number of sweeps of the damped Fourier fixed point, kernel by 24 × 24 Gauss–Hermite."""
    z, w = hermite(24)
    step = 2 * horizon / size
    omega = 2 * np.pi * np.fft.rfftfreq(size, step)
    tau = np.minimum(np.arange(size), size - np.arange(size)) * step
    c = g**2 * np.exp(-tau / 3)
    for sweep in range(1, 1001):
        v = c[0]
        outer = np.sqrt(np.clip(np.abs(c), 0, v))
        inner = np.sqrt(np.clip(v - np.abs(c), 0, None))
        mean = np.tanh(outer[:, None, None] * z[:, None] + inner[:, None, None] * z) @ w
        source = g**2 * np.sign(c) * ((mean**2) @ w)
        new = np.fft.irfft(np.fft.rfft(source) / (1 + omega**2), size)
        if np.max(np.abs(new - c)) < tol:
            return float(new[0]), sweep
        c = 0.5 * (c + new)
    return float(c[0]), 1000


def dimension(g: float, horizon: float = 60.0, step: float = 0.1) -> float:
    """Participation ratio of tanh(x) per unit, from the closed formula on a plain grid of frequencies."""
    tau, delta = autocorrelation(g, horizon, 120)
    delta[int(np.argmin(np.abs(delta))) :] = 0.0  # shooting leaves the solution in the end
    u, w = hermite(120)
    v = float(delta[0])
    curve = CubicSpline(tau, delta)(np.arange(0, 2 * horizon, step).clip(max=horizon))
    c = np.array([two_point(float(x), v, (u, w)) for x in curve])
    slope = float(np.sum(w * (1 - np.tanh(np.sqrt(v) * u) ** 2)) / np.sum(w))
    line = np.concatenate([c, c[-2:0:-1]])
    spectrum, omega = np.real(np.fft.fft(line)) * step, 2 * np.pi * np.fft.fftfreq(len(line), step)
    near = np.abs(omega) < 14
    spectrum, r = spectrum[near], slope / (1 + 1j * omega[near])
    weight = 1 / np.abs(1 - g**2 * np.outer(r, r)) ** 2 - 1
    psi = float(np.real(spectrum @ weight @ spectrum)) / (len(line) * step) ** 2
    return float(c[0] ** 2 / (c[0] ** 2 + psi))


def simulate(g: float, size: int, trajectories: int, dtype: type, duration: float, dt: float) -> float:
    """Heun steps of x' = −x + J tanh(x) in numpy; returns ⟨x²⟩ at the end."""
    rng = np.random.default_rng(0)
    J = (g / np.sqrt(size) * rng.standard_normal((size, size))).astype(dtype)
    x = rng.standard_normal((size, trajectories)).astype(dtype)
    h = dtype(dt)
    for _ in range(round(duration / dt)):
        slope = J @ np.tanh(x) - x
        there = x + h * slope
        x = x + h / 2 * (slope + J @ np.tanh(there) - there)
    return float(np.mean(np.square(x)))


def two_time(g: float, points: int, dt: float, order: int = 32) -> Array:
    """C(t, s) of the noiseless network from unit variance by the Euler map: plain loops over both times."""
    nodes = hermite(order)
    z, w = nodes
    C, R = np.zeros((points, points)), np.zeros((points, points + 1))
    C[0, 0] = 1.0
    for n in range(points - 1):
        for s in range(n + 1):
            c, v = C[n, s], np.sqrt(C[n, n] * C[s, s])
            shared, own = np.sqrt(abs(c) / v), np.sqrt(max(1 - abs(c) / v, 0.0))
            first = np.tanh(np.sqrt(C[n, n]) * (shared * z[:, None] + own * z)) @ w
            second = np.tanh(np.sqrt(C[s, s]) * (np.sign(c) * shared * z[:, None] + own * z)) @ w
            R[n, s + 1] = (1 - dt) * R[n, s] + dt * g**2 * float(w @ (first * second))
            C[n + 1, s] = C[s, n + 1] = (1 - dt) * C[n, s] + dt * R[n, s]
        here = g**2 * float(w @ np.tanh(np.sqrt(C[n, n]) * z) ** 2)
        C[n + 1, n + 1] = (1 - dt) ** 2 * C[n, n] + 2 * dt * (1 - dt) * R[n, n] + dt**2 * here
    return C


def rectified(m: Array, v: Array, c: Array, nodes: tuple[Array, Array]) -> tuple[Array, Array]:
    """⟨[x]₊[y]₊⟩ and P(x > 0, y > 0) for x at the last of the times and y at each: the inner integral is known."""
    top, edge = np.sqrt(v[-1]), -m[-1] / np.sqrt(v[-1])
    upper = max(8.0, edge + 8.0)
    z = edge + (upper - edge) / 2 * (1 + nodes[0])
    w = (upper - edge) / 2 * nodes[1] * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    given = m[:, None] + c[:, None] / top * z
    own = np.sqrt(np.maximum(v - c**2 / v[-1], 1e-12))[:, None]
    inside = ndtr(given / own)
    positive = given * inside + own * np.exp(-((given / own) ** 2) / 2) / np.sqrt(2 * np.pi)
    return positive @ (w * (m[-1] + top * z)), inside @ w


def balanced_exponent(g: float, I1: float, f: float, N: int, dt: float) -> float:
    """λ of the balanced network with a common sinusoid: rows of c(t, s), R(t, s) and k(t, s) one after the other."""
    nodes, burn, band = np.polynomial.legendre.leggauss(64), 60.0, 30.0
    window = np.ceil(20 * f / 3) * 3 / f
    points, lags, start = round((burn + window) / dt), round(band / dt), round((burn - 25) / dt)
    m, v, log, scale = np.zeros(points), np.ones(points), np.zeros(points), 0.0
    c, k, R, K = np.zeros(points), np.zeros(points), np.zeros(points + 1), np.zeros(points + 1)
    c[0] = 1.0
    for n in range(points - 1):
        first = max(0, n - lags)
        row = slice(first, n + 1)
        average, slope = (g**2 * x for x in rectified(m[row], v[row], c[row], nodes))
        if n == start:
            k[n] = 1.0
        R[first] = K[first] = 0.0
        for s in range(first, n):
            R[s + 1] = (1 - dt) * R[s] + dt * average[s - first]
            K[s + 1] = (1 - dt) * K[s] + dt * slope[s - first] * k[s]
        v[n + 1] = (1 - dt) ** 2 * c[n] + 2 * dt * (1 - dt) * R[n] + dt**2 * average[-1]
        kn = (1 - dt) ** 2 * k[n] + 2 * dt * (1 - dt) * K[n] + dt**2 * slope[-1] * k[n]
        c[row] = (1 - dt) * c[row] + dt * R[row]
        k[row] = (1 - dt) * k[row] + dt * K[row]
        c[n + 1], k[n + 1] = v[n + 1], kn
        x = m[n] / np.sqrt(v[n])
        rate = m[n] * ndtr(x) + np.sqrt(v[n]) * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
        m[n + 1] = (1 - dt) * m[n] + dt * (np.sqrt(N) * (1 - rate) + I1 * np.sin(2 * np.pi * f * n * dt))
        if n >= start:
            log[n + 1] = scale + np.log(kn)
            scale, k = log[n + 1], k / kn
    first = points - 1 - round(window / dt)
    return float((log[-1] - log[first]) / (2 * dt * (points - 1 - first)))


def plastic_sweep(g: float, k: float, p: float, paths: int, steps: int, dt: float) -> Array:
    """C^φ after one sweep from a Gaussian guess, two laps of Euler: x' = −x + ζ + ∫K φ(x), K = (k/p) e^{−τ/p} C^φ."""
    rng = np.random.default_rng(0)
    tau = np.minimum(np.arange(steps), steps - np.arange(steps)) * dt
    c = 0.5 * np.exp(-((tau / 3) ** 2) / 2)
    power = np.sqrt(np.maximum(np.fft.rfft(c).real, 0.0))
    zeta = g * np.fft.irfft(np.fft.rfft(rng.standard_normal((paths, steps)), axis=1) * power, n=steps, axis=1)
    reach = round(6 * p / dt)
    kernel = (k / p * np.exp(-tau[:reach] / p) * c[:reach] * dt)[::-1]
    x, phi = rng.standard_normal(paths) / 2, np.zeros((paths, 2 * steps + reach))
    for n in range(2 * steps):
        phi[:, n + reach] = np.tanh(x)
        memory = phi[:, n + 1 : n + reach + 1] @ kernel
        x = x + dt * (-x + zeta[:, n % steps] + memory)
    waves = np.fft.rfft(phi[:, -steps:], axis=1)
    return np.asarray(np.fft.irfft(np.mean(np.abs(waves) ** 2, axis=0), n=steps) / steps)


def erf_kernel(C: Array, depth: int, gain: float, bias: float) -> Array:
    """Kernel ⟨φφ'⟩ of erf(√π h/2) after `depth` layers, from the covariance of layer 0."""

    def average(C: Array) -> Array:
        v = np.sqrt(1 + np.pi / 2 * np.diag(C))
        return 2 / np.pi * np.arcsin(np.clip(np.pi / 2 * C / np.outer(v, v), -1, 1))

    for _ in range(depth):
        C = gain * average(C) + bias
    return average(C)


def perceptron_evolution(alpha: float, points: int = 1001) -> tuple[float, float]:
    """(q, growth) of the binary perceptron: the usual damped loop on a uniform grid."""
    z = np.linspace(-9, 9, points)
    w = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    q = 0.5
    for _ in range(2000):
        a = -np.sqrt(q) * z / np.sqrt(1 - q)
        g = np.exp(-(a**2) / 2 - 0.5 * np.log(2 * np.pi) - log_ndtr(-a))
        hat = alpha / (1 - q) * (w @ g**2)
        m = np.tanh(np.sqrt(hat) * z)
        if abs(w @ m**2 - q) < 1e-12:
            break
        q = 0.5 * q + 0.5 * float(w @ m**2)
    slope = g * (g - a) / (1 - q)
    return q, alpha * float(w @ slope**2) * float(w @ (1 - m**2) ** 2)


def perceptron_messages(x: Array, sweeps: int) -> tuple[Array, float]:
    """Message passing of the binary perceptron, written with matrix products: (means, last change)."""
    patterns, units = x.shape
    m, g, change = np.zeros(units), np.zeros(patterns), np.inf
    for _ in range(sweeps):
        v = np.mean(1 - m**2)
        omega = x @ m - v * g
        a = -omega / np.sqrt(v)
        ratio = np.exp(-(a**2) / 2 - 0.5 * np.log(2 * np.pi) - log_ndtr(-a))
        g, slope = ratio / np.sqrt(v), -ratio * (ratio - a) / v
        new = np.tanh(x.T @ g - np.sum(slope) / units * m)
        change, m = float(np.sqrt(np.mean((new - m) ** 2))), new
    return m, change
