"""Compiled averages ⟨f(u) g(v)⟩ of two Gaussian arguments, millions a second.

A smooth function is its Hermite series about the present mean and variance, f(m + s z) = Σ_k F_k He_k(z)/√k!, so that
⟨f g⟩ = Σ_k F_k G_k ρ^k for correlation ρ (Mehler). A kink or a jump makes that series slow; kinks (u − k)₊ and steps
θ(u − k) are therefore split off, and their averages taken exactly from the bivariate normal distribution.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, check-untyped-defs=False
# mypy: disallow-untyped-calls=False
# Numba compiles these functions; their arguments are described in words.

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: Legendre rules on (0, 1), one after the other. The shorter ones leave errors below 1e-12 for correlations up to 1/2
#: and below 1e-13 up to 3/4; the last one serves up to 0.94.
_RULES = [np.polynomial.legendre.leggauss(order) for order in (6, 10, 20)]
_NODES, _WEIGHTS = (np.concatenate(part) for part in ([(x + 1) / 2 for x, _ in _RULES], [w / 2 for _, w in _RULES]))
_SOME, _MANY, _END = 6, 16, 36
_FAR = 38.0
_NORM = 1 / math.sqrt(2 * math.pi)


@njit(cache=True, fastmath=True)
def bounded(x):
    """Standardised distances, cut where the normal distribution has no weight."""
    return min(max(x, -_FAR), _FAR)


@njit(cache=True, fastmath=True)
def normal_cdf(x):
    """P(z < x)."""
    return 0.5 * math.erfc(-x * 0.7071067811865476)


@njit(cache=True, fastmath=True)
def normal_pdf(x):
    return _NORM * math.exp(-0.5 * x * x)


@njit(cache=True, fastmath=True)
def _arc(a, b, top, first, last):
    """(1/2π) ∫_0^top exp(−(a² + b² − 2ab sin θ)/(2 cos² θ)) dθ."""
    total, half = 0.0, 0.5 * (a * a + b * b)
    for i in range(first, last):
        s = math.sin(top * _NODES[i])
        total += _WEIGHTS[i] * math.exp((s * a * b - half) / (1.0 - s * s))
    return total * top / (2 * math.pi)


@njit(cache=True, fastmath=True)
def _rest(a, b, top):
    """The same from arcsin ρ to π/2, top = arccos ρ small: the singular factor is integrated in closed form."""
    d = abs(a - b)
    flat = math.exp(-0.5 * a * b)
    # e^{−ab/(1+cos φ)} ≈ e^{−ab/2}(1 − ab φ²/8), and (d²/2)(1/sin² − 1/φ²) ≈ d²/6
    lead = flat * math.exp(-d * d / 6)
    second = -a * b / 8 - d * d / 30
    edge = math.exp(-0.5 * (d / top) ** 2)
    zeroth = top * edge - d * math.sqrt(math.pi / 2) * math.erfc(d / (top * 1.4142135623730951))
    moment = (top**3 * edge - d * d * zeroth) / 3
    total = 0.0
    for i in range(_MANY, _END):
        phi = top * _NODES[i]
        s, c = math.sin(phi), math.cos(phi)
        sharp = -0.5 * (d / phi) ** 2
        if sharp > -60.0:
            exact = math.exp(-0.5 * (d / s) ** 2 - a * b / (1 + c))
            total += _WEIGHTS[i] * (exact - math.exp(sharp) * lead * (1 + second * phi * phi))
    return (total * top + lead * (zeroth + second * moment)) / (2 * math.pi)


@njit(cache=True, fastmath=True)
def both_positive(a, b, rho):
    """P(z + a > 0, y + b > 0) for standard normal z, y with correlation rho."""
    if rho > 0.94:
        low = min(a, b)
        if rho > 1 - 1e-15:
            return normal_cdf(low)
        return max(normal_cdf(low) - _rest(a, b, math.acos(rho)), 0.0)
    if rho < -0.94:
        if rho < -1 + 1e-15:
            return max(normal_cdf(a) - normal_cdf(-b), 0.0)
        return max(normal_cdf(a) - normal_cdf(min(a, -b)) + _rest(a, -b, math.acos(-rho)), 0.0)
    apart, top = normal_cdf(a) * normal_cdf(b), math.asin(rho)
    if abs(rho) < 0.5:
        return apart + _arc(a, b, top, 0, _SOME)
    if abs(rho) < 0.75:
        return apart + _arc(a, b, top, _SOME, _MANY)
    return apart + _arc(a, b, top, _MANY, _END)


@njit(cache=True, fastmath=True)
def kink_pair(a, b, s, q, rho, kinks, jumps, kinks2, jumps2):
    """⟨(κ(u)₊ + j θ(u)) (κ'(v)₊ + j' θ(v))⟩ for u = s(z + a), v = q(y + b), and its derivative in the covariance.

    Distances a, b of any size: states with hardly any variance lie many deviations from their kinks.

    `kinks`, `jumps` are the slope and the height that the first function gains at its zero, `kinks2`, `jumps2` those
    of the second. The derivative leaves jumps out, which have none.
    """
    r2 = max(1.0 - rho * rho, 0.0)
    r = math.sqrt(r2)
    far, away = a, b
    a, b = bounded(a), bounded(b)
    both = both_positive(a, b, rho)
    pa, pb = normal_pdf(a), normal_pdf(b)
    if r > 1e-9:
        ca, cb = normal_cdf((a - rho * b) / r), normal_cdf((b - rho * a) / r)
        joint = r / (2 * math.pi) * math.exp(-0.5 * (a * a - 2 * rho * a * b + b * b) / r2)
    else:
        ca = 1.0 if a > rho * b else (0.5 if a == rho * b else 0.0)
        cb = 1.0 if b > rho * a else (0.5 if b == rho * a else 0.0)
        joint = 0.0
    value = kinks * kinks2 * s * q * ((far * away + rho) * both + far * pb * ca + away * pa * cb + joint)
    value += kinks * jumps2 * s * (far * both + pa * cb + rho * pb * ca)
    value += jumps * kinks2 * q * (away * both + pb * ca + rho * pa * cb)
    value += jumps * jumps2 * both
    return value, kinks * kinks2 * both


@njit(cache=True, fastmath=True)
def kink_series(a, s, kink, jump, out):
    """Add the Hermite coefficients of κ(u)₊ + j θ(u) at u = s(z + a) to `out` (K,)."""
    far, a = a, bounded(a)
    p, cdf = normal_pdf(a), normal_cdf(a)
    out[0] += kink * s * (far * cdf + p) + jump * cdf
    before, now = 0.0, 1.0  # He_{n−1}(−a)/√((n−1)!) and its predecessor
    if out.size > 1:
        out[1] += kink * s * cdf + jump * p
    for n in range(2, out.size):
        # ⟨f He_n⟩/√n! of the kink: s φ(a) He_{n−2}(−a)/√n!, of the step: φ(a) He_{n−1}(−a)/√n!
        out[n] += kink * s * p * now / math.sqrt(n * (n - 1.0))
        after = (-a * now - math.sqrt(n - 2.0) * before) / math.sqrt(n - 1.0)
        out[n] += jump * p * after / math.sqrt(float(n))
        before, now = now, after
