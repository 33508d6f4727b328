"""Every step of the instance reading against numbers, and every mechanical mutant of its forms."""

from __future__ import annotations

import pytest
from test_instance import MODELS, theory

from quenched import derive
from quenched.validate.witness import survey_mutants, verify
from quenched.validate.witnesses_instance import companions, identity_ticks


@pytest.mark.parametrize("name", MODELS)
def test_every_step_has_its_meaning(name: str) -> None:
    ticks = verify(theory(name).derivation)
    assert len(ticks) == 8
    assert [t.title for t in ticks if t.passed is not True] == []


@pytest.mark.parametrize(
    "name", ["margin", "spin glass", "stored patterns", pytest.param("two populations", marks=pytest.mark.slow)]
)
def test_every_mutant_is_caught_at_its_step(name: str) -> None:
    mutants = survey_mutants(theory(name).derivation)
    assert len(mutants) > 20
    assert [(m.step, m.label, m.deviation) for m in mutants if not m.caught] == []


def test_replicas_are_verified_together_with_messages() -> None:
    derivation = derive(MODELS["margin"][0]).derivation
    ticks = [t for d in companions(derivation) for t in verify(d)] + identity_ticks(derivation)
    titles = [t.title for t in ticks if t.passed]
    for words in (
        "Linear stability of the messages",
        "Growth of perturbed messages = replicon eigenvalue",
        "State evolution = stationarity of replicas: q_units",
        "Bethe free entropy of a typical instance = replica free entropy",
        "Onsager term = −memory of the plain iteration: units through pattern",
    ):
        assert words in titles
