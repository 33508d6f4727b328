"""Witnesses draw numbers where a declaration has a meaning: slowly falling priors, narrow windows, noisy students."""

from __future__ import annotations

import pytest
from sympy import Abs, Heaviside, Rational, exp, symbols

from quenched import (
    Exponential,
    Field,
    Gibbs,
    Iid,
    Ising,
    Laplace,
    Normal,
    Population,
    Positive,
    Quenched,
    Spherical,
    derive,
    mean,
    units,
)
from quenched.theory.instance import derive as instance_reading
from quenched.theory.instance_evolution import EvolutionForm
from quenched.validate.witness import check, scene_of, verify

alpha, kappa = symbols("alpha", positive=True), symbols("kappa", real=True)
s, patterns = Field("s"), Population("pattern", fraction=alpha)
x = Iid("x", Normal(0, 1), over=(patterns, units))
y, z = Quenched("y", Ising(), over=patterns), Quenched("z", Normal(0, 1), over=patterns)
target = x @ Quenched("w_0", Ising())
MARGINS = {law: Gibbs({s: law}, weight=Heaviside(y * (x @ s) - kappa)) for law in (Laplace(1), Exponential(1))}
WINDOW = Gibbs({s: Ising()}, weight=Heaviside(kappa - Abs(x @ s)))  # nothing is left where κ < 0
STUDENT = Gibbs({s: Ising()}, weight=exp(-2 * (x @ s - target - Rational(1, 2) * z) ** 2))


@pytest.mark.parametrize(
    "model", [*MARGINS.values(), WINDOW, STUDENT], ids=["Laplace", "exponential", "window", "noise"]
)
def test_steps_are_checked_where_they_have_a_meaning(model: Gibbs) -> None:
    derivation = derive(model.observe(q=mean(s[1] * s[2]))).derivation
    noisy = "One instance: sites coupled in pairs" if model is STUDENT else ""  # its witness takes labels without noise
    assert [(t.title, t.detail) for t in verify(derivation) if t.passed is not True and t.title != noisy] == []


def test_mutants_with_slowly_falling_priors_are_caught() -> None:
    derivation = derive(MARGINS[Laplace(1)]).derivation
    step = next(step for step in derivation.steps if step.title == "Replica symmetry")
    for name, wrong in step.after.mutants():
        assert check(step, scene_of(derivation), wrong).passed is False, name


def test_messages_on_part_of_a_sphere() -> None:
    """The norm of weights of one sign on a sphere is fixed, in replicas and in messages alike."""
    model = Gibbs({s: Positive(Spherical())}, weight=Heaviside(y * (x @ s) - kappa))
    evolution = instance_reading(model).find(EvolutionForm)
    assert evolution is not None
    assert len(evolution.constraints) == 1
    assert [(t.title, t.detail) for t in verify(derive(model).derivation) if t.passed is not True] == []
