"""Declarations that nothing knows beforehand: profiles of inputs, noisy labels, against sums over all states."""

from __future__ import annotations

import pytest
from sympy import Heaviside, Rational, sign, symbols

from quenched import (
    Bernoulli,
    Field,
    Gibbs,
    Iid,
    Ising,
    Normal,
    Population,
    Quenched,
    Spherical,
    Uniform,
    derive,
    mean,
    simulate,
    units,
)
from quenched.theory.distributions import Law
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
