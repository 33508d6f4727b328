"""Named mistakes in the theory of the random rate network, judged on simulations of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quenched import catalogue, derive, validate
from quenched.mutants import MUTANTS

#: Where each mistake matters: noise mutants need noise, the others are judged without.
NOISY = {"noise-dropped", "noise-half", "noise-double"}
POINTS: dict[bool, dict[str, float]] = {False: {"g": 2, "s2": 0}, True: {"g": 2, "s2": 0.125}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store of realisations for all verdicts, so that every point is simulated once."""
    return tmp_path_factory.mktemp("runs")


def judged(runs: Path, noisy: bool, theory: Any = None) -> Any:
    return validate(catalogue["scs"](), POINTS[noisy], theory=theory, quick=True, store=runs, workers=1)


def effects(right: Any, wrong: Any) -> list[tuple[float, float, str]]:
    """Per component: how far the mistake moves the theory, the printed detectable error, and the name."""
    found = []
    for before, after in zip(right.rows, wrong.rows, strict=True):
        for a, b in zip(before.components, after.components, strict=True):
            found.append((abs(b.theory - a.theory), a.detectable, before.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [False, True])
def test_the_theory_agrees_and_mistakes_are_caught(runs: Path, noisy: bool) -> None:
    right = judged(runs, noisy)
    assert right.verdict == "agree", right
    theory = derive(catalogue["scs"]())
    for name in sorted(NOISY if noisy else set(MUTANTS) - NOISY):
        wrong = judged(runs, noisy, theory.mutate(name))
        seen = [n for effect, detectable, n in effects(right, wrong) if effect > detectable]
        assert seen, f"{name} moves nothing by more than the detectable error at this point"
        assert wrong.verdict == "disagree", (name, seen, wrong)
