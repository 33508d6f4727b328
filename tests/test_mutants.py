"""Every mechanical mutant of a step's result must fail at its own step."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
from witness_models import MODELS

from quenched.theory.balance import Balance
from quenched.theory.causal import MarchUnits
from quenched.theory.causal_copies import DoubleInTime
from quenched.theory.derivation import derive
from quenched.theory.members import WriteMembers
from quenched.theory.modes import FourierModes
from quenched.validate.witness import Mutant, mutants_of, survey_mutants, survey_table
from quenched.validate.witnesses_paths import WITNESSES

#: A mutant that survives must be smaller than this to be of no concern.
ORDER_ONE = 1e-4


@lru_cache
def survey_of(name: str) -> tuple[Mutant, ...]:
    return tuple(survey_mutants(derive(MODELS[name]())))


@pytest.mark.parametrize("name", MODELS)
def test_no_mutant_survives(name: str) -> None:
    survey = survey_of(name)
    assert len(survey) > 20
    assert [f"{m.step}: {m.label}" for m in survey if not m.caught] == []


def test_mutants_stand_out_by_orders_of_magnitude() -> None:
    """Tolerances are rounding errors, so a mutant that is caught is caught by far."""
    survey = survey_of("balanced_laws")
    assert min(m.deviation / max(m.tolerance, 1e-300) for m in survey if m.deviation < float("inf")) > 1e2
    assert min(m.deviation for m in survey) > ORDER_ONE


def test_the_models_together_mutate_every_rule() -> None:
    seen = {type(s.rule) for name in MODELS for s in derive(MODELS[name]()).steps if mutants_of(s)}
    in_time = {MarchUnits, Balance, DoubleInTime}  # theories at explicit times have a survey of their own
    declarations = {FourierModes, WriteMembers}  # give a declaration, which has no coefficients of its own to change
    assert seen == set(WITNESSES) - in_time - declarations


def test_the_table_lists_steps_and_survivors() -> None:
    survey = survey_of("leaky_map")
    table = survey_table([replace(survey[0], caught=False, deviation=1e-12), *survey[1:]])
    assert f"survivor: {survey[0].label}" in table
    assert "Average over the couplings" in table
