"""Every step to zero temperature has a witness, which catches every mutant that differs from the right result."""

from __future__ import annotations

import pytest

from quenched import catalogue, derive, zero_temperature
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
