"""Declared matrices that nobody prepared: theory against eigenvalues of samples, and every step checked."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from random_spectra import KINDS, draw
from sympy import Rational, cosh, tanh

from quenched import (
    Circulant,
    Dynamics,
    Field,
    Gaussian,
    Iid,
    Normal,
    Population,
    Quenched,
    Spectrum,
    Uniform,
    derive,
    jacobian,
)
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
seq = Population("P", Rational(3, 2))
xi = Iid("xi", Ising(), over=(seq, units))
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
    "negative window": Spectrum(
        xi.T
        @ Circulant(
            "X",
            {0: 1, 1: -Rational(1, 2), -1: -Rational(1, 2), 2: -Rational(1, 4), -2: -Rational(1, 4)},
            over=(seq, seq),
        )
        @ xi
    ),
    "negative one-sided window": Spectrum(
        xi.T @ Circulant("X", {0: -1, 1: Rational(1, 2), 2: -Rational(1, 2)}, over=(seq, seq)) @ xi
    ),
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_random_declarations(kind, seed) -> None:
    """Fractions in discs (windows) about the middle of samples, and every step checked."""
    net = draw(Random(f"{kind} {seed}"), kind)
    theory = derive(net)
    assert all(tick.passed is not False for tick in verify(theory.derivation)), str(net)
    found, sampled = theory.solve(), eigenvalues(net, N=160, trials=8, seed=2, quantiles=True)
    centre, spread = complex(np.median(sampled.values.real)), float(np.std(sampled.values))
    for share in (0.5, 1.1):
        radius = share * spread
        if net.hermitian:
            window = centre.real - radius, centre.real + radius
            value, estimate = found.count(window=window), sampled.window(*window)
        else:
            value, estimate = found.count(disc=(radius, centre)), sampled.disc(radius, centre)
        assert abs(value.value - estimate.value) < 5 * estimate.error + 0.012, str(net)
