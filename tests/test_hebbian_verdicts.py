"""Verdicts on states that overlap with many stored patterns, next to samples."""

from __future__ import annotations

import pytest

from quenched import Gibbs, catalogue, derive, simulate, validate
from quenched.validate.estimators import Run


def memory(**options: int) -> Gibbs:
    return catalogue["hebbian-length-correlations"](distances=3, **options)


def samples(model: Gibbs, sizes: tuple[int, ...], trials: int, seed: int, **how: float) -> list[Run]:
    """Runs of a fixed number of realisations."""
    settings = {"trials": trials, "seed": seed, "workers": 1, "store": False}
    return [simulate(model, N, **settings, **how) for N in sizes]


@pytest.mark.slow
def test_a_cycle_at_zero_temperature_agrees_with_samples() -> None:
    """Fifteen patterns, overlaps 77, 51, 13, 3 in units of 1/128; weaker neighbours would leave one pattern alone."""
    model = memory(size=15, cold=True)
    runs = samples(model, (20000, 40000, 80000), 36, 3, gamma=0.6, sweeps=4, burn=10)
    right = validate(model, data=runs, quick=True, gamma=0.6)
    assert right.verdict == "agree", right
    assert validate(model, data=runs, quick=True, gamma=0.4).verdict == "disagree"


def test_a_cold_cycle_as_an_option() -> None:
    solution = derive(memory(size=15, cold=True)).solve(gamma=0.6)
    found = [float(solution[f"m_{k}"]) for k in range(4)]
    assert found == pytest.approx([k / 128 for k in (77, 51, 13, 3)], abs=1e-9)
