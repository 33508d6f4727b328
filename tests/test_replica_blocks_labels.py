"""Blocks of replicas beside labels and teachers: random labels, label noise, profiles, errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from sympy import Heaviside, Rational, sign, symbols

from quenched import (
    Bernoulli,
    Discrete,
    Field,
    Gibbs,
    Iid,
    Ising,
    Normal,
    Population,
    Quenched,
    Spherical,
    derive,
    total,
    units,
    zero_temperature,
)
from quenched.numerics.replica_evaluator import Evaluator
from quenched.theory.errors import ConvergenceError
from quenched.theory.replica_blocks import Blocks
from quenched.validate.witness import check, scene_of

alpha, kappa = symbols("alpha", positive=True), symbols("kappa", real=True)
w, patterns = Field("w"), Population("pattern", fraction=alpha)
x, y = Iid("x", Normal(0, 1), over=(patterns, units)), Quenched("y", Ising(), over=patterns)
kept, teacher = Quenched("f", Bernoulli(Rational(9, 10)), over=patterns), Quenched("w_0", Ising())
profile = Quenched("g", Discrete([Rational(1, 2), 1, Rational(3, 2)]))
PLAIN = Gibbs({w: Spherical()}, weight=Heaviside(x @ w - kappa))
LABELLED = Gibbs({w: Spherical()}, weight=Heaviside(y * (x @ w) - kappa))
PROFILE = Gibbs({w: Spherical()}, weight=Heaviside(y * (x @ (profile * w)) - kappa))
NOISY = Gibbs({w: Ising()}, weight=Heaviside((x @ w) * sign(x @ teacher) * (2 * kept - 1) - kappa))
AT = {"alpha": 1.5, "kappa": -0.5}
VALUES = {"r": 0.5, "q": 0.4, "m": 0.25, "a": 0.3, "R": 0.1, "Q": 1.1}


def evaluated(model: Gibbs, apart: float) -> tuple[dict[str, float], dict[str, float]]:
    """(right-hand sides, observables) in blocks of size ½ whose overlaps differ from those between blocks."""
    theory = derive(model).broken()
    ev = Evaluator(theory.problem, theory.values(AT, x=0.5))
    at = np.array([VALUES[u.name[0]] + apart * u.name.endswith("_1") for u in ev.unknowns])
    return dict(zip((u.name for u in ev.unknowns), ev.update(at), strict=True)), ev.observe(at)


def test_random_labels_of_even_patterns_change_nothing() -> None:
    """y x has the law of x, in every block."""
    for plain, labelled in zip(evaluated(PLAIN, 0.2), evaluated(LABELLED, 0.2), strict=True):
        assert labelled == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("model", [LABELLED, PROFILE], ids=["labels", "profile"])
def test_blocks_that_are_alike_are_symmetric_replicas(model: Gibbs) -> None:
    """Equal overlaps within and between blocks: free entropy and equations of replica symmetry, for any size."""
    found, seen = evaluated(model, 0.0)
    problem = derive(model).problem
    ev = Evaluator(problem, {s: v for s, v in zip(problem.parameters, (1.5, -0.5), strict=True)})
    at = np.array([VALUES[u.name[0]] for u in ev.unknowns])
    assert seen["free_entropy"] == pytest.approx(ev.observe(at)["free_entropy"], rel=1e-7)
    for u, rhs in zip(ev.unknowns, ev.update(at), strict=True):
        own = [v for name, v in found.items() if name in (u.name, f"{u.name}_0", f"{u.name}_1")]
        assert own == pytest.approx([rhs] * len(own), rel=1e-6)


@pytest.mark.parametrize("model", [LABELLED, PROFILE, NOISY], ids=["labels", "profile", "noisy teacher"])
def test_blocks_with_labels_are_explicit_replicas(model: Gibbs) -> None:
    """Fields of every label and terms; each mistake in them is seen."""
    derivation = derive(model).broken().derivation
    step = derivation.steps[-2]
    assert step.title == Blocks.title
    assert check(step, scene_of(derivation, 1)).passed is True
    for name, wrong in step.after.mutants():
        assert check(step, scene_of(derivation, 1), wrong).passed is False, name
    if model is not NOISY:  # a quadrature in the teacher's field for every difference: minutes
        last = derivation.steps[-1]
        assert check(last, scene_of(derivation, 1)).passed is True


def test_a_label_may_be_called_like_the_size_of_blocks() -> None:
    """At zero temperature blocks have the size y, and so may labels be called."""
    model = zero_temperature(Gibbs({w: Spherical()}, energy=total(Heaviside(-y * (x @ w)))))
    theory = derive(model).broken()
    ev = Evaluator(theory.problem, theory.values({"alpha": 3}, y=1.0))
    named = {"r_0": 0.5, "r_1": 1.0, "q_0": 0.6, "chi": 0.4, "chi_r": -0.5}
    found = ev.update(np.array([named[u.name] for u in ev.unknowns]))
    assert np.isfinite(found[[u.name != "chi_r" for u in ev.unknowns]]).all()


def bound(load: float, q0: float, chi: float, y: float) -> float:
    """−(energy) of weights on a sphere that miss patterns, blocks of replicas at zero temperature: written by hand."""
    z, p = np.polynomial.hermite_e.hermegauss(80)
    d, edge, h = 1 - q0, np.sqrt(2 * chi), np.sqrt(q0) * z
    v = 1 / (1 / d + y / chi)
    mu, s = v * h / d, np.sqrt(v)
    met = norm.cdf(h / np.sqrt(d)) + np.exp(-y) * norm.cdf((-edge - h) / np.sqrt(d))
    lifted = (
        s / np.sqrt(d) * np.exp(mu**2 / (2 * v) - h**2 / (2 * d)) * (norm.cdf(-mu / s) - norm.cdf((-edge - mu) / s))
    )
    norms = np.log1p(y * d / chi) / (2 * y) + q0 / (2 * (chi + y * d))
    return float(norms + load * p @ np.log(met + lifted) / y / np.sqrt(2 * np.pi))


@pytest.mark.slow
def test_fewest_errors_above_capacity() -> None:
    """Gardner and Derrida (1988) for symmetric replicas, in closed form; blocks raise the bound to a stationary one."""
    theory, load = derive(zero_temperature(Gibbs({w: Spherical()}, energy=total(Heaviside(-x @ w))))), 3.0

    def excess(width: float) -> float:
        return load * float(norm.cdf(0) - norm.cdf(-width) - width * norm.pdf(width)) - 1

    errors = float(norm.cdf(-brentq(excess, 0.1, 6.0)))
    symmetric = theory.solve(alpha=load)
    assert float(symmetric["energy"]) / load == pytest.approx(errors, abs=1e-7)
    assert not symmetric.main.stable
    broken = theory.broken().solve(alpha=load, y=5.7083)
    at = [float(broken[name]) for name in ("q_0", "chi", "y")]
    assert float(broken["energy"]) == pytest.approx(-bound(load, *at), abs=3e-6)
    assert float(broken["energy"]) / load == pytest.approx(0.039098, abs=2e-6)
    assert float(broken["slope_y"]) == pytest.approx(0, abs=1e-6)


def test_constraints_that_symmetric_replicas_meet() -> None:
    """Where nothing breaks the symmetry the reason is told, in words of the theory."""
    with pytest.raises(ConvergenceError, match="no saddle with different overlaps"):
        derive(LABELLED).broken().solve(alpha=1.5, kappa=-0.5, x=0.4)
    evaluator = Evaluator(derive(LABELLED).broken().problem, derive(LABELLED).broken().values(AT, x=0.5))
    with pytest.raises(ConvergenceError, match="no multiplier lambda"):
        evaluator.update(np.array([-5.0 if u.name.startswith("r") else 0.4 for u in evaluator.unknowns]))
