"""Declarations that break every symmetry: what a wrong rule would need in order to hide is absent here."""

from __future__ import annotations

from collections.abc import Callable

from sympy import Symbol, cos, erf, exp, sqrt, symbols, tanh

from quenched.theory import (
    Bernoulli,
    Circulant,
    Dynamics,
    Field,
    Gaussian,
    Iid,
    Map,
    N,
    Normal,
    Population,
    Quenched,
    Uniform,
    WhiteNoise,
    mean,
    outer,
    t,
    units,
)
from quenched.theory.model import Model

g, s2, a, b, c, tau_a = symbols("g s2 a b c tau_a", positive=True)
eta, rho, m, delta = symbols("eta rho m delta", positive=True)
f_E, f_I = symbols("f_E f_I", positive=True)
theta = Symbol("theta", real=True)


def noisy_erf() -> Model:
    """One population, erf, white noise and a constant input."""
    x, J = Field("x"), Gaussian("J", variance=g**2)
    return Dynamics({x: -x + J @ erf(x) + theta + sqrt(2 * s2) * WhiteNoise("xi")})


def mean_and_symmetry() -> Model:
    """Partly symmetric couplings with a mean, and a non-odd nonlinearity."""
    x, J = Field("x"), Gaussian("J", variance=g**2, mean=m, symmetry=eta)
    return Dynamics({x: -a * x + J @ (tanh(x + theta) + exp(-(x**2))) + sqrt(2 * s2) * WhiteNoise("xi")})


def same_matrix_twice() -> Model:
    """One matrix used twice and transposed, a correlated partner, and a population mean."""
    x, y = Field("x"), Field("y")
    J = Gaussian("J", variance=g**2, mean=m, symmetry=eta)
    A = Gaussian("A", variance=a**2, correlation={J: rho})
    return Dynamics(
        {
            x: -x + J @ tanh(x + theta) + b * (J.T @ erf(y)) + mean(x**2),
            y: -b * y + J @ x + A @ tanh(x) + sqrt(2 * s2) * WhiteNoise("xi"),
        }
    )


def two_populations() -> Model:
    """Excitation and inhibition with different fractions, gains, means and nonlinearities."""
    E, I = Population("E", fraction=f_E), Population("I", fraction=f_I)
    x, y = Field("x", E), Field("x", I)
    J = {
        (p.name + q.name): Gaussian(f"J_{p.name}{q.name}", variance=(k + 1) * g**2 / 3, mean=(-1) ** k * m, over=(p, q))
        for k, (p, q) in enumerate([(E, E), (E, I), (I, E), (I, I)])
    }
    return Dynamics(
        {
            x: -x + J["EE"] @ tanh(x + theta) - J["EI"] @ erf(y) + sqrt(2 * s2) * WhiteNoise("xi", over=E),
            y: -b * y + J["IE"] @ tanh(x + theta) - J["II"] @ erf(y + a),
        }
    )


def adapting() -> Model:
    """A second-order unit: activity and a slow adaptation variable."""
    x, w = Field("x"), Field("w")
    J = Gaussian("J", variance=g**2)
    return Dynamics({x: -x - c * w + J @ tanh(x) + sqrt(2 * s2) * WhiteNoise("xi"), w: (a * x - w) / tau_a})


def two_laws() -> Model:
    """Two laws, two nonlinearities (one through an input), and a Gaussian quenched input."""
    x = Field("x")
    J, K = Gaussian("J", variance=g**2), Iid("K", Uniform(0, 1))
    h0 = Quenched("h0", Normal(theta, b))
    return Dynamics({x: -a * x + J @ tanh(x) + c * (K @ erf(x)) - mean(erf(x)) + h0 + sqrt(2 * s2) * WhiteNoise("xi")})


def balanced_laws() -> Model:
    """Two centred laws and two nonlinearities: one covariance, so there is a potential."""
    x = Field("x")
    J, K = Gaussian("J", variance=g**2), Gaussian("K", variance=c**2, mean=m)
    h0 = Quenched("h0", Normal(theta, b))
    return Dynamics({x: -a * x + J @ tanh(x) + K @ erf(x) + h0 + sqrt(2 * s2) * WhiteNoise("xi")})


def leaky_map() -> Model:
    """A map with leak, mean and noise."""
    x, J = Field("x"), Gaussian("J", variance=g**2, mean=m)
    return Map({x: (1 - delta) * x + J @ tanh(x + theta) + sqrt(s2) * WhiteNoise("xi")})


def gate() -> Model:
    """One matrix feeds a field and its gate: the unit is nonlinear in its local fields."""
    x, J = Field("x"), Gaussian("J", variance=g**2, symmetry=eta)
    return Dynamics({x: -x + (J @ tanh(x)) / (1 + exp(-(J @ x) - theta))})


def plastic() -> Model:
    """Dynamic couplings whose two ends read different functions, beside random ones."""
    x, A = Field("x"), Field("A", over=(units, units))
    J = Gaussian("J", variance=g**2, mean=m)
    return Dynamics({x: -x + (J + A.T) @ tanh(x + theta), A: -a * A + b / N * outer(erf(x), tanh(x + theta))})


def ring_of_patterns() -> Model:
    """Stored patterns that drive their successors: units of patterns are linear, and eliminated."""
    x, patterns = Field("x"), Population("P", fraction=f_E)
    xi = Iid("xi", Uniform(-1, 1), over=(patterns, units))
    X = Circulant("X", {0: c, 1: a}, over=(patterns, patterns))
    return Dynamics({x: -b * x + g * (xi.T @ X @ xi @ tanh(x + theta)) + sqrt(2 * s2) * WhiteNoise("noise")})


def overlaps() -> Model:
    """Two stored directions, Gaussian and not, besides partly stored random couplings."""
    x, p, q = Field("x"), Quenched("p", Normal(a, b**2)), Quenched("q", Uniform(0, 1))
    J, stored = Gaussian("J", variance=g**2, mean=m), (outer(p, p) + outer(q, p + q)) / N
    return Dynamics({x: -x + (J + c * stored) @ tanh(x + theta) + delta * p + sqrt(2 * s2) * WhiteNoise("xi")})


def sums_of_gaussians() -> Model:
    """Outputs that several Gaussian numbers multiply, each its own function, read beside another field."""
    x, y = Field("x"), Field("y")
    p, q, r = Quenched("p", Normal(a, b**2)), Quenched("q", Normal(0, c)), Quenched("r", Uniform(0, 1))
    J, seen = Gaussian("J", variance=g**2), x - c * y
    stored = outer(p, p) @ tanh(seen) + outer(q, b * p - q + r) @ (tanh(seen) + erf(seen))
    return Dynamics({x: -x + J @ tanh(x) + stored / N + delta * q, y: -b * y + x})


def few_patterns() -> Model:
    """Three stored patterns on a cycle and nothing random besides: overlaps move the units, started at a pattern."""
    few = Population("P", size=3)
    xi, U = Iid("xi", Uniform(-1, 2), over=(few, units)), Gaussian("U", variance=b**2, mean=m, over=(units, few))
    X = Circulant("X", {0: c, 1: a, -1: g}, over=(few, few))
    x = Field("x", initial=delta * xi[1])
    return Dynamics({x: -b * x + (xi.T @ X + U / sqrt(N)) @ (xi @ tanh(x + theta)) + rho * mean(x**2)})


MODELS: dict[str, Callable[[], Model]] = {
    f.__name__: f
    for f in (
        noisy_erf,
        mean_and_symmetry,
        same_matrix_twice,
        two_populations,
        adapting,
        two_laws,
        balanced_laws,
        leaky_map,
        gate,
        plastic,
        ring_of_patterns,
        overlaps,
        sums_of_gaussians,
        few_patterns,
    )
}


def labelled() -> Model:
    """Quenched numbers of other laws, inside an output and in the equation, and an output of two fields."""
    x, w = Field("x"), Field("w")
    J, K = Gaussian("J", variance=g**2), Gaussian("K", variance=c**2, mean=m)
    gain, bias = Quenched("gain", Uniform(0.5, 1)), Quenched("bias", Bernoulli(0.3))
    return Dynamics({x: -x + J @ tanh(gain * x) + K @ erf(x - a * w + theta) + bias, w: (x - w) / tau_a})


def nested() -> Model:
    """A product of matrices: an intermediate field answers at the same step."""
    x = Field("x")
    J, K = Gaussian("J", variance=g**2, symmetry=eta), Gaussian("K", variance=c**2, mean=m)
    return Map({x: delta * x + J @ tanh(J @ x + theta) + K @ erf(x)})


def redrawn() -> Model:
    """Couplings drawn afresh at every step, with a mean that stays."""
    x = Field("x")
    J = Gaussian("J", variance=g**2, mean=m, redraw="step")
    return Map({x: delta * x + J @ tanh(x + theta) + sqrt(s2) * WhiteNoise("xi")})


def driven() -> Model:
    """An input that depends on time, and noise shared by two fields."""
    x, y = Field("x"), Field("y")
    J = Gaussian("J", variance=g**2, mean=m)
    xi = WhiteNoise("xi")
    return Dynamics({x: -x + J @ tanh(y) + a * cos(t) + xi, y: -b * y + x - 0.5 * xi})


def without_diagonal() -> Model:
    """No self-coupling: the diagonal does not matter as N → ∞."""
    x = Field("x")
    J = Gaussian("J", variance=g**2, symmetry=eta, diagonal=0)
    return Dynamics({x: -x + J @ tanh(x + theta)})


def powers_of_n() -> Model:
    """A balanced mean of order √N, and a variance with a part that vanishes as N → ∞."""
    x = Field("x")
    J = Gaussian("J", variance=g**2 + a / N, mean=-m * sqrt(N), symmetry=eta)
    return Dynamics({x: -x + J @ tanh(x + theta) + theta * sqrt(N) / 10})


EXTRAS: dict[str, Callable[[], Model]] = {
    f.__name__: f for f in (labelled, nested, redrawn, driven, without_diagonal, powers_of_n)
}
