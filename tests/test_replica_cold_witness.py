"""Every step to zero temperature has a witness, which catches every mutant that differs from the right result."""

from __future__ import annotations

import pytest
from sympy import Max, sign, symbols

from quenched import (
    Field,
    Flat,
    Gibbs,
    Iid,
    Normal,
    Population,
    Quenched,
    catalogue,
    derive,
    total,
    units,
    zero_temperature,
)
from quenched.theory.replica_cold import ZeroTemperature
from quenched.validate.witness import check, mutants_of, scene_of, verify

#: Where the replicon eigenvalue is infinite, its multiples are, too.
INFINITE = {"sk": {"replicon × 1.1", "replicon + 0.1", "_declared replicon + 0.1"}}
INFINITE["hopfield"] = INFINITE["sk"]


@pytest.mark.parametrize("name", ["sk", "hopfield", "p-spin"])
def test_steps_to_zero_temperature(name: str) -> None:
    derivation = derive(zero_temperature(catalogue[name]())).derivation
    assert [t.detail for t in verify(derivation) if t.passed is not True] == []
    scene = scene_of(derivation)
    for step in derivation.steps[-2:]:
        alike = [label for label, form in mutants_of(step) if check(step, scene, form).passed]
        assert set(alike) <= INFINITE.get(name, set()), step.title


@pytest.mark.slow
def test_steps_of_regression() -> None:
    derivation = derive(catalogue["ridge"]()).derivation
    scene = scene_of(derivation)
    assert [check(step, scene).passed for step in derivation.steps] == [True] * len(derivation.steps)
    cooled = derivation.steps[-2]
    assert not any(check(cooled, scene, form).passed for _, form in mutants_of(cooled))


def test_steps_of_a_kink() -> None:
    """A hinge next to a teacher is met slowly as β grows; every mistake in its limit is seen all the same."""
    alpha, T = symbols("alpha T", positive=True)
    w, X = Field("w"), Iid("X", Normal(0, 1), over=(Population("pattern", fraction=alpha), units))
    kink = total(Max(0, 1 - (X @ w) * sign(X @ Quenched("w_0", Normal(0, 1))))) + total(w**2) / 4
    derivation = derive(zero_temperature(Gibbs({w: Flat()}, energy=kink, beta=1 / T))).derivation
    step = next(step for step in derivation.steps if isinstance(step.rule, ZeroTemperature))
    assert check(step, scene_of(derivation)).passed is True
    for name, wrong in step.after.mutants():
        assert check(step, scene_of(derivation), wrong).passed is False, name
