"""Declarations that nothing knows beforehand: profiles of inputs, noisy labels, against sums over all states."""

from __future__ import annotations

from math import gamma

import numpy as np
import pytest
from sympy import Heaviside, Rational, Symbol, exp, expand_log, lambdify, log, sign, symbols

from quenched import (
    Bernoulli,
    Entropy,
    Field,
    Flat,
    FreeEntropy,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    Normal,
    NotCovered,
    Population,
    Quenched,
    QuenchedError,
    Spherical,
    Uniform,
    catalogue,
    derive,
    mean,
    simulate,
    total,
    units,
    zero_temperature,
)
from quenched.numerics.replica_parts import parts_of
from quenched.numerics.replica_sites import state
from quenched.theory.distributions import Law
from quenched.theory.errors import ConvergenceError
from quenched.theory.problem_replicas import X
from quenched.validate.witness import verify

alpha, kappa = symbols("alpha", positive=True), symbols("kappa", real=True)
s, patterns = Field("s"), Population("pattern", fraction=alpha)
xi, x = Iid("xi", Ising(), over=(patterns, units)), Iid("x", Normal(0, 1), over=(patterns, units))
y, kept = Quenched("y", Ising(), over=patterns), Quenched("f", Bernoulli(Rational(9, 10)), over=patterns)
teacher, profile = Quenched("w_0", Ising()), Quenched("g", Uniform(Rational(1, 2), Rational(3, 2)))

PROFILE = Gibbs({s: Ising()}, weight=Heaviside(y * (xi @ (profile * s)) - kappa)).observe(q=mean(s[1] * s[2]))
NOISY = Gibbs({s: Ising()}, weight=Heaviside((x @ s) * sign(x @ teacher) * (2 * kept - 1) - kappa)).observe(
    q=mean(s[1] * s[2]), m=mean(s * teacher)
)


@pytest.mark.parametrize(
    ("model", "point"), [(PROFILE, {"alpha": 0.4, "kappa": 0}), (NOISY, {"alpha": 0.3, "kappa": 0})]
)
def test_variants_agree_with_samples(model: Gibbs, point: dict[str, float]) -> None:
    """Exact sums over the states of 14 units, within four standard errors and the finite-size term."""
    run = simulate(model, 14, params=point, trials=80, seed=3, store=False, workers=1)
    solution = derive(model).solve(point)
    assert solution.main.stable
    for name in model.observables:
        allowed = 4 * float(run[name].error[0]) + 0.3 / 14
        assert float(run[name].mean[0]) == pytest.approx(float(solution[name]), abs=allowed), name


@pytest.mark.parametrize("prior", [Ising(), Spherical()])
def test_a_profile_of_inputs_is_verified(prior: Law) -> None:
    """Sites with different squares of their inputs, each square fixed or all of them together."""
    model = Gibbs({s: prior}, weight=Heaviside(y * (xi @ (profile * s)) - kappa)).observe(q=mean(s[1] * s[2]))
    derivation = derive(model).derivation
    named = {step.title for step in derivation.steps}
    assert [t.detail for t in verify(derivation) if t.title in named and t.passed is not True] == []


# -- entropies -----------------------------------------------------------------------------------------------------
def test_entropies_of_soft_weights() -> None:
    """A weight of 2 instead of 1 changes nothing; sums over the states of 14 units; a reason where it is refused."""
    hard, twice = (
        derive(Gibbs({s: Ising()}, weight=c * Heaviside(xi @ s - kappa)).observe(S=Entropy(), f=FreeEntropy()))
        for c in (1, 2)
    )
    at = {"alpha": 0.4, "kappa": 0.1}
    entropies = [theory.solve(at).main.quantity("S") for theory in (hard, twice)]
    assert entropies[0].value == pytest.approx(entropies[1].value, abs=2e-9)
    assert float(twice.solve(at)["f"] - hard.solve(at)["f"]) == pytest.approx(0.4 * np.log(2), abs=1e-9)
    logistic = Gibbs({s: Ising()}, weight=1 / (1 + exp(-2 * (xi @ s)))).observe(S=Entropy())
    run = simulate(logistic, 14, trials=60, seed=1, alpha=0.5, store=False, workers=1)
    exact = float(derive(logistic).solve(alpha=0.5)["S"])
    assert float(run["S"].mean[0]) == pytest.approx(exact, abs=4 * float(run["S"].error[0]))
    assert float(run["S"].error[0]) < 0.005
    box = derive(Gibbs({s: Uniform(-1, 1)}, weight=exp(-((xi @ s) ** 4))).observe(S=Entropy()))
    with pytest.raises(NotCovered, match="finitely many values of equal weight"):
        box.solve(alpha=0.5)["S"]


# -- densities that reach to infinity ------------------------------------------------------------------------------
def test_sites_of_smooth_densities_up_to_infinity() -> None:
    """L and its derivatives against sums on a fine grid: quartic wells in fields of any strength."""
    s = np.linspace(-15, 15, 200001)
    b = np.array([-30.0, -2.0, 0.0, 7.0, 60.0])
    for weight in (exp(-(X**4) / 4), exp(-3 * X**4 + 5 * X**2), exp(-(X**6) / 10 - X)):
        log_weight = lambdify(X, expand_log(log(weight), force=True))(s)
        for v in (-0.5, 0.9):
            found = np.array(state(tuple(parts_of(weight)), b, v, "s"))
            exponent = log_weight + v * s * s / 2 + b[:, None] * s
            top = exponent.max(1)
            p = np.exp(exponent - top[:, None])
            mean = p @ s / p.sum(1)
            spread = p @ s**2 / p.sum(1) - mean**2
            exact = np.array([np.log(p.sum(1) * (s[1] - s[0])) + top, mean, spread])
            assert found == pytest.approx(exact, rel=1e-8, abs=1e-8)
    with pytest.raises(ConvergenceError, match="not normalisable"):
        state(tuple(parts_of(exp(X**4 / 4))), b, 0.0, "s")


def test_soft_spins_are_solved_and_checked() -> None:
    """Flat spins that a fourth power holds: exact without couplings, and every step of the derivation with them."""
    spin, strength = Field("s"), Symbol("beta", positive=True)
    alone = Gibbs({spin: Flat()}, energy=total(spin**4) / 4, beta=strength).observe(Q=mean(spin**2))
    assert float(derive(alone).solve(beta=1)["Q"]) == pytest.approx(2 * gamma(0.75) / gamma(0.25), abs=1e-12)
    pairs = -total(spin * (Gaussian("J", symmetry=1) @ spin)) / 2
    coupled = Gibbs({spin: Flat()}, energy=pairs + total(spin**4) / 4, beta=strength, defaults={strength: 0.6})
    theory = derive(coupled.observe(Q=mean(spin**2)))
    assert float(theory.solve()["replicon"]) < 1
    assert [t.title for t in verify(theory.derivation) if t.passed is False] == []


# -- names -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("assumption", ["real", "positive"])
def test_numbers_may_have_names_of_the_derivation(assumption: str) -> None:
    """Random fields called q, a reference tilted towards by a parameter x, a teacher next to a parameter zeta."""
    x, zeta = symbols("x zeta", **{assumption: True})
    field, reference = Quenched("q", Normal(0, Rational(9, 100))), Quenched("ref", Ising())
    energy = -total(s * (Gaussian("J", variance=Rational(1, 4), symmetry=1) @ s)) / 2 - total(
        (field + x * reference) * s
    )
    tilted = derive(Gibbs({s: Ising()}, energy=energy).observe(p=mean(s * reference), overlap=mean(s[1] * s[2])))
    found = tilted.solve(x=0.3)
    assert [float(found[n]) for n in ("p", "overlap")] == pytest.approx([0.262653, 0.162196], abs=6e-7)
    inputs = Iid("inputs", Normal(0, 1), over=(patterns, units))
    weight = Heaviside((inputs @ s) * sign(inputs @ Quenched("w_0", Normal(0, 1))) + zeta)
    taught = derive(Gibbs({s: Normal(0, 1)}, weight=weight))
    plain = derive(catalogue["bayes-perceptron"]()).solve(alpha=1)
    assert float(taught.solve(alpha=1, zeta=1e-9)["q"]) == pytest.approx(float(plain["q"]), abs=1e-7)
    assert float(taught.instance().solve(alpha=1, zeta=1e-9)["q"]) == pytest.approx(float(plain["q"]), abs=1e-7)


def test_names_that_stay_taken_say_so() -> None:
    energy = -total(s * (Gaussian("J", symmetry=1) @ s)) / 2
    for name in ("n", "L_1"):
        with pytest.raises(QuenchedError, match="another name"):
            derive(Gibbs({s: Ising()}, energy=energy - symbols(name, real=True) * total(s)))
    chi = symbols("chi", positive=True)
    with pytest.raises(QuenchedError, match="another name"):
        derive(zero_temperature(Gibbs({s: Ising()}, energy=energy - chi * total(s))))
