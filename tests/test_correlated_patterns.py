"""Inputs that are correlated between units, samples that are correlated with each other, against exact limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr
from sympy import Heaviside, Rational, cos, sign, symbols

from quenched import (
    Capacity,
    Circulant,
    Field,
    Flat,
    Gibbs,
    Iid,
    Ising,
    Normal,
    NotCovered,
    Population,
    Quenched,
    Spherical,
    Uniform,
    derive,
    mean,
    simulate,
    total,
    units,
    zero_temperature,
)
from quenched.theory.replica_modes import CountModes, Eigenvalues, InModes
from quenched.validate.witness import verify

alpha, lam, Delta = symbols("alpha lambda Delta", positive=True)
kappa, theta = symbols("kappa theta", real=True)
w, samples = Field("w"), Population("sample", fraction=alpha)
x, y = Iid("x", Normal(0, 1), over=(samples, units)), Quenched("y", Ising(), over=samples)
teacher, noise = Quenched("w_0", Spherical()), Quenched("e", Normal(0, Delta), over=samples)
C = Circulant("C", 1 + Rational(4, 5) * cos(theta), angle=theta)
D = Circulant("D", 1 + Rational(3, 5) * cos(theta), over=(samples, samples), angle=theta)
AT = {"alpha": 2, "lambda": 0.5, "Delta": 0.1}


def regression(between_units: bool, between_samples: bool) -> Gibbs:
    """Least squares with a penalty, from correlated inputs or samples."""

    def output(v: object) -> object:
        u = x @ (C @ v if between_units else v)
        return D @ u if between_samples else u

    energy = total((output(teacher) + noise - output(w)) ** 2) / 2 + lam * total(w**2) / 2  # type: ignore[operator]
    return zero_temperature(Gibbs({w: Flat()}, energy=energy)).observe(m=mean(w * teacher), q=mean(w[1] * w[2]))


def equivalent(units_: np.ndarray, samples_: np.ndarray) -> float:
    """E[w·w₀]/N of ridge regression from the deterministic equivalent of its resolvent, for two spectra."""
    a, penalty = AT["alpha"], AT["lambda"]

    def inner(g: float) -> float:  # g: trace of the units' part seen by samples
        return float(a * np.mean(samples_ / (1 + samples_ * g)))

    def gap(g: float) -> float:
        return g - float(np.mean(units_ / (penalty + units_ * inner(g))))

    h = inner(brentq(gap, 0.0, 100.0, xtol=1e-14))
    return float(np.mean(units_ * h / (penalty + units_ * h)))


@pytest.mark.parametrize(("left", "right"), [(True, False), (False, True), (True, True)])
def test_ridge_regression_meets_the_deterministic_equivalent(left: bool, right: bool) -> None:
    """The overlap with the teacher, to the precision of the solver."""
    angle = (np.arange(400) + 0.5) * np.pi / 400
    first = (1 + 0.8 * np.cos(angle)) ** 2 if left else np.ones(1)
    second = (1 + 0.6 * np.cos(angle)) ** 2 if right else np.ones(1)
    model = regression(left, right)
    assert float(derive(model).solve(AT)["m"]) == pytest.approx(equivalent(first, second), abs=1e-8)


def test_ridge_regression_agrees_with_samples() -> None:
    """Correlations on both sides, within four standard errors and the finite-size term."""
    model = regression(True, True)
    run, solution = simulate(model, 60, params=AT, trials=40, seed=3, store=False, workers=1), derive(model).solve(AT)
    for name in model.observables:
        allowed = 4 * float(run[name].error[0]) + 0.5 / 60
        assert float(run[name].mean[0]) == pytest.approx(float(solution[name]), abs=allowed), name


PERCEPTRON = Gibbs({w: Spherical()}, weight=Heaviside(y * (x @ (C @ w)) - kappa))


def test_correlated_inputs_are_verified_and_a_wrong_spectrum_is_seen() -> None:
    """Every step ticks; the step to modes is seen to fail with other eigenvalues."""
    derivation = derive(PERCEPTRON).derivation
    ticks = verify(derivation)
    assert [t.title for t in ticks if t.passed is not True] == []
    assert ticks[0].title == CountModes.title
    step = derivation.steps[0]
    assert isinstance(step.after, InModes)
    from quenched.validate.witness import check, scene_of

    for name, wrong in step.after.mutants():
        assert check(step, scene_of(derivation, 1), wrong).passed is False, name


@pytest.mark.slow
def test_the_capacity_of_separation_does_not_depend_on_correlations() -> None:
    """Cover (1965): patterns in general position separate up to 2 a weight; sites of different squares do, too."""
    assert float(
        derive(zero_temperature(PERCEPTRON)).capacity("alpha", bracket=(1, 3), kappa=0).value
    ) == pytest.approx(2, abs=1e-7)
    profile = Quenched("g", Uniform(Rational(1, 2), Rational(3, 2)))
    scaled = Gibbs({w: Spherical()}, weight=Heaviside(y * (x @ (profile * w)) - kappa), defaults={alpha: 1.5, kappa: 0})
    assert float(derive(scaled.observe(c=Capacity(alpha))).solve()["c"]) == pytest.approx(2, abs=1e-7)


def test_samples_of_correlated_inputs_agree() -> None:
    """Sampled weights of a correlated problem, from states that a search found."""
    model = Gibbs(PERCEPTRON.priors, 0, PERCEPTRON.weights).observe(q=mean(w[1] * w[2]))
    at = {"alpha": 0.4, "kappa": 0.1}
    run = simulate(model, 40, params=at, trials=16, seed=1, store=False, workers=1, sweeps=200, burn=60)
    allowed = 4 * float(run["q"].error[0]) + 0.5 / 40
    assert float(run["q"].mean[0]) == pytest.approx(float(derive(model).solve(at)["q"]), abs=allowed)


def test_signs_of_correlated_inputs_meet_message_passing() -> None:
    """A teacher and a student who both read X C: overlaps, against an iteration on instances written by hand."""
    guide = Quenched("w_1", Normal(0, 1))
    v = Field("v", initial=guide)
    model = Gibbs({v: Normal(0, 1)}, weight=Heaviside((x @ (C @ v)) * sign(x @ (C @ guide))))
    solution = derive(model.observe(q=mean(v[1] * v[2]), m=mean(v * guide))).solve(alpha=1)
    found = np.array([learnt(800, seed) for seed in range(12)])
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    for name, mean_, e in zip("qm", found.mean(0), error, strict=True):
        assert float(solution[name]) == pytest.approx(mean_, abs=4 * e + 0.5 / 800), name


def learnt(size: int, seed: int) -> tuple[float, float]:
    """|⟨w⟩|²/N and w₀·⟨w⟩/N of the posterior of Gaussian weights by approximate message passing, in modes of C."""
    rng = np.random.default_rng(seed)
    scale = 1 + 0.8 * np.cos(2 * np.pi * np.arange(size) / size)
    F, w0 = rng.normal(size=(size, size)) / np.sqrt(size) * scale, rng.normal(size=size)
    y, F2 = np.sign(F @ w0), F**2
    m, v, g = np.zeros(size), np.ones(size), np.zeros(size)
    for _ in range(60):
        V = F2 @ v
        omega = F @ m - V * g
        z = y * omega / np.sqrt(V)
        ratio = np.exp(-z * z / 2 - 0.5 * np.log(2 * np.pi) - log_ndtr(z))
        g, slope = y * ratio / np.sqrt(V), ratio * (ratio + z) / V
        A = F2.T @ slope
        m, v = (A * m + F.T @ g) / (1 + A), 1 / (1 + A)
    return float(np.mean(m**2)), float(np.mean(m * w0))


def test_what_has_a_direction_is_refused() -> None:
    """States of ±1, and means that rotations change."""
    with pytest.raises(NotCovered, match=r"the prior Ising\(\) of w has a direction"):
        derive(Gibbs({w: Ising()}, weight=Heaviside(x @ (C @ w))))
    with pytest.raises(NotCovered, match="has a direction"):
        derive(Gibbs({w: Spherical()}, weight=Heaviside(x @ (C @ w))).observe(m=mean(w)))
    biased = Iid("x", Normal(1, 1), over=(samples, units))
    with pytest.raises(NotCovered, match="mean"):
        derive(Gibbs({w: Spherical()}, weight=Heaviside(biased @ (C @ w))))


def test_moments_of_eigenvalues() -> None:
    """Polynomials in waves exactly, other functions by the rule."""
    law = Eigenvalues(C.eigenvalue)
    assert (law.mean_(), law.variance_()) == (1, Rational(8, 25))
    assert sum(float(a**4 * p) for a, p in law.weights()) == pytest.approx(1 + 6 * 0.32 + 3 * 0.8**4 / 8)
