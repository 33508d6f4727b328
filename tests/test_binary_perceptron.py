"""The binary perceptron: references of the literature, message passing, exact counts, verdicts, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sympy import Abs, Heaviside, Symbol, sign, symbols

from quenched import (
    Critical,
    Empirical,
    Entropy,
    Field,
    FreeEntropy,
    Gibbs,
    Growth,
    Iid,
    Ising,
    Normal,
    Population,
    Quenched,
    QuenchedError,
    Uniform,
    catalogue,
    derive,
    simulate,
    units,
    validate,
)
from quenched.design import StaticDesign, design_of
from quenched.replica_mutants import REPLICA_MUTANTS
from quenched.validate import gibbs_routes, simulate_gibbs
from quenched.validate.exact_counts import ln_count
from quenched.validate.gibbs_system import Chain
from quenched.validate.message_threshold import change_of, is_threshold
from quenched.validate.statistics import half_point, pseudo_values

ALPHA, KAPPA = Symbol("alpha", positive=True), Symbol("kappa", real=True)
PATTERNS = Population("pattern", fraction=ALPHA)


def constraints() -> Gibbs:
    """The declaration of the system without its observables."""
    w, xi = Field("w"), Iid("xi", Ising(), over=(PATTERNS, units))
    return Gibbs({w: Ising()}, weight=Heaviside(xi @ w - KAPPA))


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
        ({"alpha": 9 / 23}, {"S": 0.403407}),
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
    assert np.allclose(one.parts[:, 0, 0], plain.values[:, 0], rtol=0, atol=1e-12)  # type: ignore[index]
    assert float(one.error[0]) < 0.75 * float(plain.error[0])
    several = simulate(system(), N=9, draws=3, only=("S",), **(how | {"trials": 4})).observables["S"]
    assert several.parts[0, 0, 0] == pytest.approx(plain.values[:3, 0].mean())  # type: ignore[index]
    with pytest.raises(QuenchedError, match="'enumerate'"):
        simulate(system(), N=32, draws=2, **(how | {"route": "monte carlo"}))


@pytest.mark.slow
def test_messages_cease_to_converge_at_the_instability() -> None:
    """Half-points of the largest ratio at which messages converge, against the law of N^(−1/3), and a mistake."""
    model = constraints().observe(alpha_BP=Critical(ALPHA, Growth() - 1))
    how = {"seed": 0, "alpha": 0.9, "kappa": 0, "workers": 1, "store": False}
    runs = [simulate(model, N=N, trials=60, only=("alpha_BP",), **how) for N in (100, 200, 400)]
    for run in runs:
        assert 0.95 < float(run["alpha_BP"].mean[0]) < 1.05
        assert np.quantile(run["alpha_BP"].parts, 0.05) > 0.8  # type: ignore[arg-type]
    right = validate(model, data=runs, quick=True, alpha=0.9, kappa=0)
    assert right.verdict != "disagree", right
    assert right["alpha_BP"].worst.theory == pytest.approx(1.01465, abs=6e-6)
    wrong = derive(model).mutate("annealed")
    assert validate(model, theory=wrong, data=runs, quick=True, alpha=0.9, kappa=0).verdict == "disagree"


def test_thresholds_are_searched_for_by_themselves() -> None:
    with pytest.raises(QuenchedError, match="by itself"):
        simulate(system(), N=100, trials=2, only=("alpha_BP", "q"), route="messages", store=False)
    run = simulate(system(), N=20, trials=2, store=False, route="messages", workers=1)
    assert "only=('alpha_BP',)" in run.unmeasured["alpha_BP"]
    assert is_threshold(Critical(ALPHA, 1 - Growth()))
    assert not is_threshold(Critical(ALPHA, Growth()))


@pytest.mark.parametrize(("edge", "start"), [(30, 3), (30, 50), (3, 50), (57, 0)])
def test_search_finds_where_a_behaviour_changes(edge: int, start: int) -> None:
    assert change_of(lambda k: k < edge, start, 60) == (edge - 1, edge)
    assert change_of(lambda k: k >= edge, start, 60) == (edge - 1, edge)
    assert change_of(lambda k: True, start, 60) is None


def test_half_points_have_the_error_of_a_robust_mean() -> None:
    """Against the median and its error on skewed numbers."""
    rng = np.random.default_rng(0)
    rows = np.where(rng.random(600) < 0.9, rng.normal(1, 0.05, 600), rng.uniform(0, 1, 600))
    found = pseudo_values(half_point, rows[:, None])
    error = float(found.std() / np.sqrt(len(found)))
    assert float(half_point(rows[:, None])[0]) == pytest.approx(np.median(rows), abs=0.008)
    resampled = [half_point(rng.choice(rows, 600)[:, None])[0] for _ in range(100)]
    assert error == pytest.approx(np.std(resampled), rel=0.3)


# -- counts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("law", [Ising(), Normal(0, 1)])
def test_counts_equal_sums_over_states(law: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves against each other, and a Gray code; with a margin, and with weights of three values."""
    w, z = Field("w"), Quenched("z", Uniform(-1, 1), over=PATTERNS)
    xi = Iid("xi", law, over=(PATTERNS, units))
    for prior in (Ising(), Empirical(-1, 0, 1)):
        model = Gibbs({w: prior}, weight=Heaviside(sign(z) * (xi @ w) - KAPPA - z / 5))
        model.observe(S=Entropy(), phi=FreeEntropy())
        how = {"N": 9, "trials": 3, "alpha": 1 / 3, "kappa": -0.2, "route": "enumerate", "workers": 1, "store": False}
        fast = simulate(model, **how)
        with monkeypatch.context() as patch:
            patch.setattr(gibbs_routes, "ln_count", lambda *_: None)
            slow = simulate(model, **how)
        for name in ("S", "phi"):
            assert np.allclose(fast[name].values, slow[name].values, atol=1e-12)


def test_states_on_a_step_are_left_to_the_general_sum() -> None:
    """Sums of an even number of signs vanish: such states count half."""
    how = {"seed": 0, "N": 8, "alpha": 0.25, "kappa": 0, "route": "enumerate", "workers": 1, "store": False}
    task = simulate_gibbs.prepare(system(), 8, 0, {"alpha": 0.25, "kappa": 0}, route="enumerate").task
    assert ln_count(Chain(task.system()), 2**12) is None  # type: ignore[attr-defined]
    assert np.isfinite(simulate(system(), trials=2, **how)["S"].values).all()


@pytest.mark.slow
def test_counts_at_their_own_ratios_agree() -> None:
    """6/15, 8/19 and 9/23 constraints a weight; a draw without any solution is told."""
    how = {"seed": 0, "draws": 4, "only": ("S",), "route": "enumerate", "alpha": 0.4, "workers": 1, "store": False}
    runs = [simulate(system(), N=N, trials=160, **how) for N in (15, 19, 23)]
    for run, entropy in zip(runs, (0.396455, 0.379509, 0.403407), strict=True):
        assert float(run["S"].mean[0]) == pytest.approx(entropy, abs=3 * float(run["S"].error[0]))
        assert "ln 0" in run["empty"].estimator.bias
    right = validate(system(), data=runs, quick=True, alpha=0.4)
    assert right.verdict == "agree", right
    wrong = derive(system()).mutate("overlap-terms-dropped")
    assert validate(system(), theory=wrong, data=runs, quick=True, alpha=0.4).verdict == "disagree"


# -- verdicts ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def runs() -> list[Any]:
    """Fixed points of messages at the declared point, for all verdicts on them."""
    how = {"trials": 240, "seed": 0, "route": "messages", "workers": 1, "store": False}
    return [simulate(system(), N=N, **how) for N in (250, 500, 1000)]


def test_quick_verdict(runs: list[Any]) -> None:
    agreement = validate(system(), data=runs, quick=True, ci=True)
    assert agreement.verdict == "agree", agreement
    assert {row.name for row in agreement.points[0].rows} == {"q", "S", "growth"}


@pytest.mark.slow
def test_small_systems_are_counted_beside_large_ones(tmp_path: Path) -> None:
    """Message passing on hundreds of weights and exact counts of 9 to 15, at their own ratios, in one verdict."""
    how = {"alpha": 0.3, "quick": True, "workers": 1, "store": tmp_path, "only": ("q", "S", "growth"), "trials": 200}
    right = validate(system(), **how)
    assert right.verdict == "agree", right
    row = right["S (counted)"]
    assert (row.sizes, row.independence) == ((9, 11, 15), "nothing")
    assert right["S"].sizes[0] > 200
    wrong = validate(system(), theory=derive(system()).mutate("overlap-terms-dropped"), **how)
    assert wrong.verdict == "disagree", wrong
    assert wrong["S (counted)"].p_value < 1e-6


def test_searches_have_as_many_realisations_as_fixed_points() -> None:
    """The verdict judges them together, one by one; at later looks, and with what a user asks for, too."""
    model = system()
    values, solution = model.values({}), derive(model).solve()
    design = design_of(model, values, solution, True, {})
    assert isinstance(design, StaticDesign)
    (search,) = design.also
    assert search.how["only"] == ("alpha_BP",)
    assert search.trials == design.trials
    assert design.with_trials(2 * design.trials).also[0].trials == 2 * search.trials
    asked = design_of(model, values, solution, True, {"trials": 7})
    assert {asked.trials, *(d.trials for d in asked.also)} == {7}  # type: ignore[union-attr]
    alone = design_of(model, values, solution, True, {"only": ("alpha_BP",)})
    assert (alone.trials, alone.sizes) == (search.trials, search.sizes)


@pytest.mark.parametrize("name", REPLICA_MUTANTS)
def test_mistakes_are_rejected(name: str, runs: list[Any]) -> None:
    wrong = derive(system()).mutate(name)
    agreement = validate(system(), theory=wrong, data=runs, quick=True, ci=True)
    assert agreement.verdict == "disagree", agreement.reason


def test_a_wrong_scale_is_rejected_at_a_margin() -> None:
    """Without a margin the constraints do not know the scale of their patterns."""
    wrong = derive(system()).mutate("variance-tenth")
    how = {"only": ("q", "S", "growth"), "trials": 320, "alpha": 0.3, "kappa": 0.5}
    agreement = validate(system(), theory=wrong, quick=True, ci=True, workers=1, **how)
    assert agreement.verdict == "disagree"


def test_mistakes_that_change_nothing_say_so() -> None:
    K, alpha = symbols("K alpha", positive=True)
    w, xi = Field("w"), Iid("xi", Ising(), over=(Population("pattern", fraction=alpha), units))
    band = derive(Gibbs({w: Ising()}, weight=Heaviside(K - Abs(xi @ w))))
    assert band.mutate("annealed").solve(alpha=0.5, K=1)["q"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(QuenchedError, match="no mutant"):
        band.mutate("annaeled")
