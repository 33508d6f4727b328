"""Declared matrices that nobody prepared: theory against eigenvalues of samples, and every step checked."""

from __future__ import annotations

import pytest
from sympy import Rational, cosh, tanh

from quenched import Dynamics, Field, Gaussian, Normal, Population, Quenched, Spectrum, Uniform, derive, jacobian
from quenched.theory import Bernoulli, Ising, diag, eye, units
from quenched.validate.spectra import eigenvalues
from quenched.validate.witness import verify

A, B = Gaussian("A", variance=Rational(1, 4)), Gaussian("B", symmetry=Rational(1, 2))
C = Gaussian("C", variance=2)
s, x = Quenched("s", Ising()), Quenched("x", Normal(0, 1))
column = Quenched("c", Bernoulli(Rational(3, 10)))
E, I = Population("E", Rational(3, 5)), Population("I", Rational(2, 5))
e, i = Field("x", population=E), Field("x", population=I)
wide = Population("S", 2)
h = Quenched("h", Uniform(0, 1))
K = Gaussian("K", over=(units, wide))
network = Dynamics(
    {
        e: -e + Gaussian("EE", over=(E, E)) @ tanh(e) - 2 * Gaussian("EI", over=(E, I)) @ tanh(i),
        i: -i / 2 + Gaussian("IE", variance=Rational(1, 2), over=(I, E)) @ tanh(e),
    }
)

VARIANTS = {
    "three atoms with a gap": Spectrum(diag(2 * s) + A @ B @ C / 2),
    "columns": Spectrum(C @ diag((1 + 3 * column) / 4)),
    "elliptic gains": Spectrum(B @ diag(1 / cosh(x) ** 2) - eye / 2),
    "two populations": jacobian(network, {e: Normal(0, 1), i: Normal(0, 2)}),
    "inverse with gains": Spectrum((A - 2 * eye).inv() @ diag(1 + h) @ B),
    "correlated covariance": Spectrum(diag(1 + h) @ K @ K.T @ diag(1 + h) / 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_counts_of_variants(name) -> None:
    net = VARIANTS[name]
    theory = derive(net)
    found, sampled = theory.solve(), eigenvalues(net, N=200, trials=6, seed=4, quantiles=True)
    centre = float(sampled.values.real.mean()) + (1.7 if name.startswith("three") else 0.0)
    radius = 0.6 * float(abs(sampled.values - sampled.values.mean()).std() + sampled.values.std())
    if net.hermitian:
        window = centre - radius, centre + radius
        value, estimate = found.count(window=window), sampled.window(*window)
    else:
        value, estimate = found.count(disc=(radius, centre)), sampled.disc(radius, centre)
    assert 0.05 < value.value < 0.95
    assert abs(value.value - estimate.value) < 5 * estimate.error + 0.01
    assert all(tick.passed is not False for tick in verify(theory.derivation))
