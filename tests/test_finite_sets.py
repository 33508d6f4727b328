"""Priors on finite sets, intervals and parts of spheres, in couplings and constraints, against samples and counts."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Heaviside, Rational, symbols

from quenched import (
    Box,
    Discrete,
    Empirical,
    Entropy,
    Field,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    Normal,
    Population,
    Positive,
    Quenched,
    QuenchedError,
    Spherical,
    derive,
    mean,
    simulate,
    total,
    units,
)
from quenched.theory.distributions import Law
from quenched.validate.quantiles import quantile_points
from quenched.validate.sampling import sample_law

T, h, alpha = symbols("T h alpha", positive=True)
s, J = Field("s"), Gaussian("J", variance=1, symmetry=1)
patterns = Population("pattern", fraction=alpha)
x, y = Iid("x", Normal(0, 1), over=(patterns, units)), Quenched("y", Ising(), over=patterns)
SET = Discrete({-1: Rational(1, 4), 0: Rational(1, 2), 2: Rational(1, 4)})


def pairs(law: Law) -> Gibbs:
    """Symmetric couplings and a field."""
    energy = -total(s * (J @ s)) / 2 - h * total(s)
    model = Gibbs({s: law}, energy=energy, beta=1 / T, defaults={T: 2.5, h: 0.4})
    return model.observe(u=-mean(s * (J @ s)) / 2 - h * mean(s), m=mean(s), q=mean(s[1] * s[2]), Q=mean(s**2))


def constraints(law: Law) -> Gibbs:
    """Random constraints without margin."""
    return Gibbs({s: law}, weight=Heaviside(y * (x @ s)), defaults={alpha: 0.4}).observe(
        q=mean(s[1] * s[2]), Q=mean(s**2)
    )


@pytest.mark.parametrize(
    "model",
    [
        pairs(SET),
        pytest.param(pairs(Box(-1, 2)), marks=pytest.mark.slow),
        constraints(Discrete([-2, -1, 1, 2])),
        constraints(Positive(Spherical())),
    ],
    ids=("three values", "box", "four values in constraints", "part of a sphere in constraints"),
)
def test_samples_agree(model: Gibbs) -> None:
    """Heat bath, Metropolis moves and rotations, within four standard errors and the finite-size term."""
    run = simulate(model, 48, trials=16, seed=2, store=False, workers=1, sweeps=200, burn=60)
    solution = derive(model).solve()
    assert solution.main.stable
    for name in model.observables:
        allowed = 4 * float(run[name].error[0]) + 1.0 / 48
        assert float(run[name].mean[0]) == pytest.approx(float(solution[name]), abs=allowed), name


def test_entropies_are_counted() -> None:
    """All states of 8 units with three values: entropies per unit of equal and of given probabilities."""
    for law in (Discrete([-1, 0, 1]), SET):
        model = Gibbs({s: law}, weight=Heaviside(y * (x @ s) + 1), defaults={alpha: 0.25}).observe(S=Entropy())
        run = simulate(model, 8, trials=60, seed=5, store=False, workers=1)
        allowed = 4 * float(run["S"].error[0]) + 0.3 / 8
        assert float(run["S"].mean[0]) == pytest.approx(float(derive(model).solve()["S"]), abs=allowed)


def test_laws_of_finite_sets() -> None:
    """Moments, draws, quantiles and refusals."""
    assert (SET.mean_(), SET.variance_()) == (Rational(1, 4), Rational(19, 16))
    assert SET.func(*SET.args) == SET
    law = ("Discrete", -1.0, 0.25, 0.0, 0.5, 2.0, 0.25)
    drawn = sample_law(np.random.default_rng(0), (8000,), law)
    assert [float(np.mean(drawn == v)) for v in (-1, 0, 2)] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    assert quantile_points(law, 4).tolist() == [-1, 0, 0, 2]
    assert dict(Empirical(1, 1, 3).weights()) == {1: Rational(2, 3), 3: Rational(1, 3)}
    for wrong in ({1: Rational(1, 2)}, {}, {0: 2, 1: -1}):
        with pytest.raises(QuenchedError):
            Discrete(wrong)
    with pytest.raises(QuenchedError, match="different values"):
        Discrete([1, 1])


def test_constraints_that_no_state_meets_are_named() -> None:
    """Far beyond capacity the search for a start says so."""
    many = Gibbs({s: SET}, weight=Heaviside(y * (x @ s) - 1), defaults={alpha: 6}).observe(m=mean(s))
    with pytest.raises(QuenchedError, match="no state of positive weight"):
        simulate(many, 24, trials=1, seed=0, store=False, workers=1)
