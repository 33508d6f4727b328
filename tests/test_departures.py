"""States of a declared start that some realisations leave: counted, told, and no part of the comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quenched import Gibbs, catalogue, simulate, validate
from quenched.runs import given_samples
from quenched.validate.departures import DEPARTURE, departed, told, too_many
from quenched.validate.estimators import Run


def test_what_stands_out_has_left() -> None:
    quiet = np.array([0.001, 0.002, 0.0015, 0.0012, 0.0011, 0.0018])
    assert not departed(quiet).any()
    assert departed(np.append(quiet, 0.1)).tolist() == [False] * 6 + [True]
    assert not departed(np.append(quiet, 0.015)).any()  # stands out, but moves by less than two per cent
    wide = np.linspace(0.02, 0.08, 7)
    assert not departed(np.append(wide, 0.1)).any()  # many move: slow units, not a state that is left
    assert not departed(np.array([0.0, 0.0, 1.0])).any()  # too few to tell


def test_departures_in_words() -> None:
    assert told({100: (0, 5)}) == () == too_many({100: (1, 5)})
    assert told({200: (1, 48), 100: (2, 48)})[0].endswith("not compared: 2 of 48 at N = 100, 1 of 48 at N = 200")
    assert "2 of 5 realisations at N = 100 left" in too_many({100: (2, 5)})[0]


@pytest.fixture(scope="module")
def retrieval() -> Gibbs:
    return catalogue["hebbian-length-correlations"](size=3)


@pytest.fixture(scope="module")
def runs(retrieval: Gibbs) -> list[Run]:
    how = {"trials": 24, "seed": 1, "sweeps": 20, "burn": 10, "workers": 1, "store": False, "T": 0.3, "gamma": 0.1}
    return [simulate(retrieval, N, **how) for N in (800, 1600, 3200)]


def spoiled(run: Run, rows: int) -> Run:
    """The same run, in which some realisations went to another state."""
    changed = {}
    for name, sample in run.observables.items():
        values = sample.values.copy()
        values[:rows] = {"m_0": 0.1, DEPARTURE: 0.5}.get(name, values[:rows])
        changed[name] = replace(sample, values=values)
    return replace(run, observables=changed)


def test_verdicts_on_condition_of_staying(retrieval: Gibbs, runs: list[Run]) -> None:
    how = {"quick": True, "T": 0.3, "gamma": 0.1}
    plain = validate(retrieval, data=runs, **how)
    few = validate(retrieval, data=[spoiled(runs[0], 2), *runs[1:]], **how)
    assert "not compared" not in plain.reason
    assert "not compared: 2 of 24 at N = 800" in few.reason
    assert (plain.points[0].realisations, few.points[0].realisations) == (24, 22)
    assert few["m_0"].worst.simulation == pytest.approx(plain["m_0"].worst.simulation, abs=0.01)
    many = validate(retrieval, data=[spoiled(runs[0], 6), *runs[1:]], **how)
    assert many.verdict == "inconclusive"
    assert "6 of 24 realisations at N = 800 left" in many.reason


def test_a_run_tells_what_left(runs: list[Run]) -> None:
    assert "left the state" not in repr(runs[0])
    assert "3 of 24 realisations left the state that they start from" in repr(spoiled(runs[0], 3))
    assert DEPARTURE not in given_samples(runs).names


def test_small_systems_leave_correlated_states() -> None:
    """Of a soft state between patterns; a measure without a start has no state to leave."""
    made = catalogue["hebbian-length-correlations"]
    how = {"trials": 12, "sweeps": 16, "burn": 24, "workers": 1, "store": False}
    run = simulate(made(size=9), 2000, T=0.05, gamma=0.6, **how)
    assert 0 < departed(run[DEPARTURE].values).sum() < 6
    assert DEPARTURE not in simulate(made(start=False), 100, **how).observables
