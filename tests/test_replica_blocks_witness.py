"""Steps of replicas in blocks are checked against explicit replicas and differences, and no wrong form passes."""

from __future__ import annotations

import pytest
from sympy import Heaviside, Rational, symbols

from quenched import (
    Field,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    Normal,
    NotCovered,
    Population,
    Spherical,
    SpikeSlab,
    derive,
    total,
    units,
)
from quenched.theory.instance import derive as instance_reading
from quenched.theory.instance_identities import identities
from quenched.validate.witness import survey_mutants, verify

alpha, beta, h = symbols("alpha beta h", positive=True)
kappa = symbols("kappa", real=True)
s = Field("s")
E, I = Population("E", Rational(2, 5)), Population("I", Rational(3, 5))
a, b = Field("a", E), Field("b", I)
x = Iid("x", Normal(0, 1), over=(Population("pattern", fraction=alpha), units))
J = Gaussian("J", variance=1, mean=h, symmetry=1)
MODELS = {
    "pairs": Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2 - h * total(s), beta=beta),
    "populations": Gibbs(
        {a: Ising(), b: Ising()},
        energy=-total(a * (Gaussian("A", over=(E, E), symmetry=1) @ a)) / 2
        - total(a * (Gaussian("B", over=(E, I)) @ b))
        - total(b * (Gaussian("C", over=(I, I), symmetry=1) @ b)) / 3
        - h * total(b),
        beta=beta,
    ),
    "zeros": Gibbs(
        {s: SpikeSlab(Rational(1, 2), Normal(0, 1))}, energy=-total(s * (J @ s)) / 8 - h * total(s), beta=beta
    ),
    "sphere": Gibbs({s: Spherical()}, weight=Heaviside(x @ s - kappa)),
}


def test_messages_are_not_compared_with_blocks() -> None:
    derivation = derive(MODELS["pairs"]).broken(1).derivation  # type: ignore[attr-defined]
    with pytest.raises(NotCovered, match="not with blocks"):
        identities(derivation, instance_reading(MODELS["pairs"]))


@pytest.mark.parametrize("name", MODELS)
def test_every_step_in_blocks_ticks_and_every_mutant_is_caught(name: str) -> None:
    derivation = derive(MODELS[name]).broken(1).derivation  # type: ignore[attr-defined]
    ticks = {t.title: t for t in verify(derivation)}
    assert [name for name, t in ticks.items() if t.passed is False or "no witness" in t.method] == []
    assert all(ticks[step.title].passed for step in derivation.steps)
    mutants = survey_mutants(derivation)
    assert [(m.step, m.label) for m in mutants if not m.caught] == []


def test_two_levels() -> None:
    derivation = derive(MODELS["pairs"]).broken(2).derivation  # type: ignore[attr-defined]
    assert all(t.passed for t in verify(derivation)[: len(derivation.steps)])
