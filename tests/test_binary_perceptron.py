"""The binary perceptron: references of the literature, message passing, exact counts, verdicts, mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sympy import Abs, Heaviside, symbols

from quenched import Field, Gibbs, Iid, Ising, Population, QuenchedError, catalogue, derive, simulate, units, validate
from quenched.replica_mutants import REPLICA_MUTANTS


def system() -> Gibbs:
    model: Gibbs = catalogue["binary-perceptron"]()
    return model


# -- theory --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("at", "reference"),
    [
        ({"alpha": 0.3}, {"q": 0.190838, "r": 0.285979 / 0.3, "S": 0.474829, "lam": 0.127505}),
        ({"alpha": 0.5}, {"q": 0.322385, "r": 0.668035 / 0.5, "S": 0.314390, "lam": 0.233552}),
        ({"alpha": 0.7}, {"q": 0.462571, "S": 0.135400, "lam": 0.385059}),
        ({"alpha": 0.6}, {"lam": 0.300861}),
        ({"alpha": 0.9}, {"lam": 0.662184}),
        ({"alpha": 6 / 15}, {"S": 0.396455}),
        ({"alpha": 8 / 19}, {"S": 0.379509}),
    ],
)
def test_both_readings_give_the_references(at: dict[str, float], reference: dict[str, float]) -> None:
    """Replicas and state evolution, to all digits of the references."""
    theory = derive(system())
    replicas, messages = theory.solve(at), theory.instance().solve(at)
    for name, value in reference.items():
        assert float(replicas[name]) == pytest.approx(value, abs=2e-6)
        assert float(messages["q_pattern" if name == "r" else name]) == pytest.approx(value, abs=2e-6)
    assert float(replicas["growth"]) == pytest.approx(float(messages["replicon"]), abs=1e-10)


@pytest.mark.slow
def test_declared_capacity_and_instability() -> None:
    """Where the entropy vanishes, and where replicas become unstable, as observables of the declaration."""
    solution = derive(system()).solve(alpha=0.8, kappa=0)
    assert float(solution["alpha_s"]) == pytest.approx(0.833079, abs=1e-6)
    assert float(solution["alpha_AT"]) == pytest.approx(1.01465, abs=6e-6)


@pytest.mark.parametrize(
    ("margin", "capacity", "instability"),
    [
        (0, 0.833079, 1.01465),
        pytest.param(0.5, 0.455665, 0.534501, marks=pytest.mark.slow),
        pytest.param(1, 0.270700, 0.306646, marks=pytest.mark.slow),
    ],
)
def test_messages_become_unstable_above_capacity(margin: float, capacity: float, instability: float) -> None:
    """Bethe entropy zero, and growth of perturbed messages one, from state evolution alone."""
    theory = derive(system()).instance()
    zero = theory.critical("alpha", "entropy", 0, bracket=(0.97 * capacity, 1.03 * capacity), kappa=margin)
    one = theory.critical("alpha", bracket=(0.98 * instability, 1.02 * instability), kappa=margin)
    assert zero.value == pytest.approx(capacity, abs=1e-6)
    assert one.value == pytest.approx(instability, abs=6e-6)
    assert zero.value < one.value


def test_state_at_capacity() -> None:
    found = derive(system()).instance().solve(alpha=0.833079, kappa=0)
    assert float(found["q"]) == pytest.approx(0.563949, abs=2e-6)
    assert float(found["replicon"]) == pytest.approx(0.544, abs=5e-4)


# -- instances -----------------------------------------------------------------------------------------------------
def test_fixed_points_at_the_references() -> None:
    """q, entropy and growth of N = 1000 weights within four standard errors of the theory."""
    run = simulate(system(), N=1000, trials=12, seed=3, alpha=0.5, kappa=0, workers=1, store=False)
    solution = derive(system()).solve(alpha=0.5, kappa=0)
    for name in ("q", "S", "growth"):
        sample = run.observables[name]
        assert float(sample.mean[0]) == pytest.approx(float(solution[name]), abs=4 * float(sample.error[0]) + 0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("patterns", "weights"), [(6, 15), (8, 19)])
def test_exact_counts(patterns: int, weights: int) -> None:
    """Quenched mean of ln(number of solutions) by a Gray code, at the ratio that is simulated."""
    alpha = patterns / weights
    settings = {"route": "enumerate", "workers": 1, "store": False}
    run = simulate(system(), N=weights, trials=200, seed=1, alpha=alpha, kappa=0, **settings)
    sample = run.observables["S"]
    theory = float(derive(system()).solve(alpha=alpha, kappa=0)["S"])
    assert float(sample.mean[0]) == pytest.approx(theory, abs=3 * float(sample.error[0]) + 0.01)


def test_realisations_average_draws_and_know_their_alignment() -> None:
    how = {"route": "enumerate", "trials": 40, "seed": 2, "alpha": 1 / 3, "workers": 1, "store": False}
    one = simulate(system(), N=9, draws=1, only=("S",), **how).observables["S"]
    plain = simulate(system(), N=9, **how).observables["S"]
    assert np.array_equal(one.parts[:, 0, 0], plain.values[:, 0])  # type: ignore[index]
    assert float(one.error[0]) < 0.75 * float(plain.error[0])
    several = simulate(system(), N=9, draws=3, only=("S",), **(how | {"trials": 4})).observables["S"]
    assert several.parts[0, 0, 0] == pytest.approx(plain.values[:3, 0].mean())  # type: ignore[index]
    with pytest.raises(QuenchedError, match="'enumerate'"):
        simulate(system(), N=32, draws=2, **(how | {"route": "monte carlo"}))


@pytest.mark.slow
def test_messages_cease_to_converge_at_the_instability() -> None:
    """Most instances converge below the instability, few above; N = 600, 10 instances."""
    theory = derive(system()).instance()
    share = {
        alpha: np.mean([theory.run(600, 5, k, alpha=alpha, kappa=0).run.converged for k in range(10)])
        for alpha in (0.9, 1.1)
    }
    assert share[0.9] > 0.7
    assert share[1.1] < 0.3


# -- verdicts ------------------------------------------------------------------------------------------------------
def test_quick_verdict() -> None:
    agreement = validate(system(), quick=True, ci=True, workers=1, store=False)
    assert agreement.verdict == "agree"
    assert {row.name for row in agreement.points[0].rows} == {"q", "S", "growth"}


@pytest.mark.slow
def test_small_systems_are_counted_beside_large_ones(tmp_path: Path) -> None:
    """Message passing on hundreds of weights and exact counts of 9 to 15, at their own ratios, in one verdict."""
    how = {"alpha": 0.3, "quick": True, "workers": 1, "store": tmp_path}
    right = validate(system(), **how)
    assert right.verdict == "agree", right
    row = right["S (counted)"]
    assert (row.sizes, row.independence) == ((9, 11, 15), "nothing")
    assert right["S"].sizes[0] > 200
    wrong = validate(system(), theory=derive(system()).mutate("overlap-terms-dropped"), **how)
    assert wrong.verdict == "disagree", wrong
    assert wrong["S (counted)"].p_value < 1e-6


@pytest.mark.parametrize("name", REPLICA_MUTANTS)
def test_mistakes_are_rejected(name: str) -> None:
    wrong = derive(system()).mutate(name)
    agreement = validate(system(), theory=wrong, quick=True, ci=True, workers=1)
    assert agreement.verdict == "disagree", agreement.reason


def test_a_wrong_scale_is_rejected_at_a_margin() -> None:
    """Without a margin the constraints do not know the scale of their patterns."""
    wrong = derive(system()).mutate("variance-tenth")
    agreement = validate(system(), theory=wrong, quick=True, ci=True, workers=1, alpha=0.3, kappa=0.5)
    assert agreement.verdict == "disagree"


def test_mistakes_that_change_nothing_say_so() -> None:
    K, alpha = symbols("K alpha", positive=True)
    w, xi = Field("w"), Iid("xi", Ising(), over=(Population("pattern", fraction=alpha), units))
    band = derive(Gibbs({w: Ising()}, weight=Heaviside(K - Abs(xi @ w))))
    assert band.mutate("annealed").solve(alpha=0.5, K=1)["q"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(QuenchedError, match="no mutant"):
        band.mutate("annaeled")
