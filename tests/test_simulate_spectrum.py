"""Sampled spectra: the matrices, their eigenvalues, what is measured, and the verdict on theories."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sympy import I, Rational, exp, sqrt, symbols, tanh

from quenched import (
    Bernoulli,
    Circulant,
    Count,
    Dynamics,
    Edge,
    Field,
    Gaussian,
    Iid,
    Ising,
    Moment,
    N,
    Normal,
    NotCovered,
    Outlier,
    Population,
    Quenched,
    QuenchedError,
    Radius,
    Spectrum,
    Uniform,
    catalogue,
    derive,
    diag,
    eye,
    jacobian,
    outer,
    simulate,
    validate,
)
from quenched.theory.spaces import units
from quenched.validate.eigenvalue_experiment import EigenvalueExperiment, Measure
from quenched.validate.quantiles import quantile_points
from quenched.validate.simulate_spectrum import prepare, tier
from quenched.validate.spectra import sample

g = symbols("g", positive=True)
u, s = Quenched("u", Uniform(1, 2)), Quenched("s", Ising())
A, B, S = Gaussian("A", g**2, symmetry=Rational(1, 3)), Gaussian("B"), Gaussian("S", symmetry=1)
P = Population("P", Rational(1, 2))
h = Quenched("h", Normal(1, Rational(1, 4)), over=P)
K = Iid("K", Bernoulli(Rational(1, 3)), over=(P, units))

MATRICES: dict[str, Any] = {
    "sum": A + g * B.T - 2 * eye,
    "labels": diag(s) + diag(u) @ A @ diag(u + s) @ B,
    "rank": A @ (eye - outer(1, 1) / N) + g * outer(u, s) / sqrt(N),
    "covariance": K.T @ diag(h) @ K,
    "inverse": diag(u) @ (3 * eye + A).inv() @ B,
    "shift": B @ Circulant("C", {0: 1, 1: g}),
    "complex": diag(exp(I * u)) @ B,
    "diagonal": diag(u * s) + 0 * eye,
}


def experiment(matrix: Any, size: int = 12, labels: str = "random") -> EigenvalueExperiment:
    task = prepare(Spectrum(matrix), size, 5, {"g": 0.7} if Spectrum(matrix).parameters else {}, labels=labels).task
    assert isinstance(task, EigenvalueExperiment)
    return task


@pytest.mark.parametrize("name", MATRICES)
def test_sampled_matrices_are_the_declared_ones(name: str) -> None:
    """Against an evaluation of the declaration factor by factor, from the same random numbers."""
    net = Spectrum(MATRICES[name])
    if name == "complex":
        task = experiment(MATRICES[name])
        assert np.iscomplexobj(task.matrix())
        assert len(task.eigenvalues()) == 12
        return
    expected = sample(net, 12, 5, 3, net.values({p: 0.7 for p in net.parameters}))
    np.testing.assert_allclose(experiment(MATRICES[name]).number(3).matrix(), expected, atol=1e-12)


def test_experiments_travel_and_repeat() -> None:
    task = experiment(MATRICES["labels"], labels="quantiles").number(2)
    again = pickle.loads(pickle.dumps(task))
    np.testing.assert_array_equal(task.matrix(), again.matrix())
    assert not np.allclose(task.matrix(), task.number(3).matrix())
    assert task.work() > 0
    assert task.memory() > 0


def test_numbers_at_quantiles() -> None:
    assert sorted(quantile_points(("Bernoulli", 0.2), 10)) == [0] * 8 + [1] * 2
    points = quantile_points(("Normal", 1.0, 4.0), 1000)
    assert (points.mean(), points.var()) == pytest.approx((1, 4), abs=0.02)
    assert np.sum(quantile_points(("SpikeSlab", 0.3, ("Uniform", 1.0, 2.0)), 100) != 0) == 30
    for law, mean in ((("Laplace", 1.0), 0), (("HalfNormal", 1.0), np.sqrt(2 / np.pi)), (("Exponential", 2.0), 2)):
        assert quantile_points(law, 4000).mean() == pytest.approx(mean, abs=0.01)
    with pytest.raises(QuenchedError, match="cannot be placed at quantiles"):
        quantile_points(("Cauchy", 1.0), 10)
    with pytest.raises(QuenchedError, match="labels should be"):
        simulate(Spectrum(B @ diag(u)), 20, labels="sorted")


def test_observables_of_known_eigenvalues() -> None:
    values = np.array([-2.0, -1.0, 0.5, 3.0])

    def found(*measures: Measure) -> list[float]:
        from quenched.validate.eigenvalue_experiment import MEASURE

        return [MEASURE[m.kind](values, *m.numbers) for m in measures]

    inf = float("inf")
    assert found(
        Measure("window", (-1.5, 1)),
        Measure("disc", (1.2, -1)),
        Measure("edge", (1, -inf, inf, 1, 0)),
        Measure("edge", (-1, 0, inf, 1, 0)),
        Measure("edge", (1, -inf, 0, 1, 0)),
        Measure("edge", (1, -inf, inf, 1, 0.25)),
        Measure("outlier", (1, 2)),
        Measure("moment", (2,)),
        Measure("density", (0, 1.5, 3)),
        Measure("radius", (0, 0, 1, 0)),
        Measure("radius", (0, 1, 1, 0)),
        Measure("radius", (0, 0, 1, 0.5)),
    ) == pytest.approx([0.5, 0.5, 3, 0.5, -1, 3 - 2.5 * (2**0.5 - 1), 0.5, 14.25 / 4, 0.5 / 3, 3, 0.5, 2])
    with pytest.raises(QuenchedError, match="no eigenvalue between"):
        found(Measure("edge", (1, 5, 6, 1, 0)))


def test_extreme_real_eigenvalues_are_the_same_from_both_routines() -> None:
    net = Spectrum(S + 2 * outer(1, 1) / N).observe(out=Outlier(), left=Edge("left"))
    task = prepare(net, 520, 1, {}).task
    assert isinstance(task, EigenvalueExperiment)
    few, every = task.eigenvalues(), np.linalg.eigvalsh(task.matrix())
    assert len(few) < 10
    assert (few[0], few[-1]) == pytest.approx((every[0], every[-1]), abs=1e-8)


def test_estimators_say_what_they_assume() -> None:
    net = Spectrum(B).observe(c=Count(disc=0.5), e=Edge(), r=Radius(), v=Moment(2) - Moment(1) ** 2, m=2 * Moment(1))
    run = simulate(net, 40, trials=4, store=False)
    assert {n: run[n].estimator.power for n in "cervm"} == {"c": 1, "e": 0.5, "r": 0.5, "v": 1, "m": 1}
    assert {n: run[n].estimator.assumes for n in "ce"} == {"c": "nothing", "e": "declaration"}
    assert run["v"].estimator.statistic == "function of means"
    assert run["m"].estimator.statistic == "mean"
    real = simulate(Spectrum(S).observe(e=Edge(), h=Edge("left", power=2)), 40, trials=4, store=False)
    assert [real[n].estimator.power for n in "eh"] == [pytest.approx(2 / 3), 2]
    assert "quantiles" in simulate(Spectrum(B @ diag(u)), 20, trials=2, store=False)["edge_right"].estimator.bias


def test_sizes_follow_the_side_of_the_matrix() -> None:
    small = tier(catalogue["sample-covariance"](), {symbols("y", positive=True): 0.2}, True)
    assert small["sizes"] == (500, 1000, 2000)
    assert tier(Spectrum(B), {}, True)["sizes"] == (100, 200, 400)


# -- verdicts --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all verdicts: every spectrum is sampled once."""
    return tmp_path_factory.mktemp("runs")


def judged(runs: Path, net: Any, theory: Any = None, **settings: Any) -> Any:
    return validate(net, theory=theory, quick=True, store=runs, workers=1, **settings)


def test_a_spectrum_agrees_and_a_mistake_is_rejected(runs: Path) -> None:
    net = catalogue["random-matrix-core"]()
    report = judged(runs, net)
    assert report.verdict == "agree", report
    for name in ("variance-tenth", "labels-averaged"):
        assert judged(runs, net, derive(net).mutate(name)).verdict == "disagree", name


MUTANTS = {
    "wigner": ("variance-tenth",),
    "circular": ("variance-tenth",),
    "elliptic": ("variance-tenth", "symmetry-dropped"),
    "block-profile": ("variance-tenth", "aspect-dropped"),
    "ei-columns": ("variance-tenth", "labels-averaged"),
    "non-normal": ("variance-tenth", "labels-averaged", "labels-independent"),
    "rate-jacobian": ("variance-tenth", "symmetry-dropped", "labels-averaged"),
    "sample-covariance": ("variance-tenth", "aspect-dropped", "labels-averaged"),
    "ginibre-product": ("variance-tenth",),
    "anticommutator": ("variance-tenth",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_catalogue_agrees_and_its_mutants_do_not(runs: Path, name: str) -> None:
    net = catalogue[name]()
    report = judged(runs, net)
    assert report.verdict == "agree", report
    assert report.detectable < 0.05
    for mutant in MUTANTS[name]:
        wrong = judged(runs, net, derive(net).mutate(mutant))
        assert wrong.verdict == "disagree", (mutant, wrong)


def test_mistakes_that_change_nothing_are_refused() -> None:
    theory = derive(catalogue["wigner"]())
    for name in ("aspect-dropped", "labels-averaged", "labels-independent", "symmetry-dropped"):
        with pytest.raises(NotCovered):
            theory.mutate(name)
    with pytest.raises(QuenchedError, match="no mutant 'aspect': did you mean 'aspect-dropped'"):
        theory.mutate("aspect")


# -- variants --------------------------------------------------------------------------------------------------------
d = Quenched("d", Uniform(Rational(1, 2), Rational(3, 2)))
E, F = Population("E", Rational(2, 3)), Population("F", Rational(1, 3))
X, L = Gaussian("X", over=(P, units)), Circulant("L", {0: 1, 1: Rational(2, 5), -1: Rational(2, 5)}, over=(P, P))


def two_populations() -> Spectrum:
    e, i = Field("e", E), Field("i", F)
    J = {
        (a, b): Gaussian(f"J{a}{b}", variance, over=(a.population, b.population))
        for a, b, variance in ((e, e, 2), (e, i, 1), (i, e, 3), (i, i, Rational(1, 2)))
    }
    net = Dynamics({a: -a + J[a, e] @ tanh(e) + J[a, i] @ tanh(i) for a in (e, i)})
    return jacobian(net, {e: Normal(0, 1), i: Normal(0, 2)})


VARIANTS: dict[str, Any] = {
    "three factors and a gap": lambda: Spectrum(
        Gaussian("A1", over=(units, E)) @ Gaussian("A2", over=(E, P)) @ diag(h) @ Gaussian("A3", over=(P, units))
        + 2 * diag(s)
    ).observe(left=Count(box=((-4, -1.8), (-2, 2))), core=Count(disc=(0.4, 2)), gap=Edge("left", above=0)),
    "gains on elliptic couplings": lambda: Spectrum(Gaussian("G", symmetry=-Rational(1, 2)) @ diag(d)).observe(
        core=Count(disc=0.7), right=Edge(), top=Edge("top")
    ),
    "covariance of a correlated population": lambda: Spectrum(L @ X @ X.T @ L).observe(
        high=Edge(), low=Edge("left"), upper=Count(1, 4), spread=Moment(2) / Moment(1) ** 2
    ),
    "Jacobian of two populations": lambda: two_populations().observe(
        core=Count(disc=(0.8, -1)), radius=Radius(-1), edge=Edge()
    ),
    "other columns": lambda: catalogue["ei-columns"]().fix(f=0.5, sigma_E=0.3, sigma_I=1.1, mu=2),
    "an inverse": lambda: Spectrum((2 * eye + Gaussian("A") / 2).inv() @ Gaussian("B")).observe(
        core=Count(disc=0.3), radius=Radius()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_agree(name: str) -> None:
    """Smaller than a tier: what matters is that nothing is rejected although errors of a few percent would be."""
    net = VARIANTS[name]()
    report = validate(net, quick=True, sizes=(60, 120, 240), trials=80, store=False, workers=1)
    assert report.verdict in ("agree", "inconclusive"), report
    assert report.reason.startswith("not rejected"), report
    assert report.detectable < 0.15, report
    wrong = validate(net, theory=derive(net).mutate("variance-tenth"), quick=True, sizes=(60, 120, 240), trials=80)
    assert wrong.verdict == "disagree", wrong
