"""Covariances between units: how they are written, measured and judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Rational, Symbol, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Fluctuation,
    Gaussian,
    Map,
    Participation,
    Population,
    QuenchedError,
    WhiteNoise,
    catalogue,
    cov,
    derive,
    mean,
    simulate,
    t,
    tau,
    validate,
)
from quenched.numerics import Sampling
from quenched.theory.cross import between_units
from quenched.validate import calibrate
from quenched.validate.catalogue.two_site_cavity import curve
from quenched.validate.dimension import independent_blocks, moments_of_blocks
from quenched.validate.estimators import Estimator, Sample
from quenched.validate.statistics import pseudo_values, ratio_of_means
from quenched.validate.witness import survey_mutants, verify

g, s2, k = symbols("g s2 k", nonnegative=True)
x = Field("x")


# --- how they are written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expr", "first", "second", "lag"),
    [
        (Participation(cov(tanh(x))), tanh(x), tanh(x), 0),
        (Participation(cov(x - tanh(x))), x - tanh(x), x - tanh(x), 0),
        (Fluctuation(cov(x)), x, x, 0),
        (Fluctuation(cov(tanh(x(t)), tanh(x(t + tau)))), tanh(x), tanh(x), tau),
        (Fluctuation(cov(tanh(x(t)), x(t + tau))), tanh(x), x, tau),
        (Fluctuation(cov(tanh(x(t)), x(t - tau))), x, tanh(x), tau),
        (Fluctuation(cov(x(t), x(t + 3))), x, x, 3),
    ],
)
def test_covariances_between_units_are_recognised(expr: Any, first: Any, second: Any, lag: Any) -> None:
    found = between_units(expr)
    assert found is not None
    assert (found.first, found.second, found.lag, found.scale) == (first, second, lag, 1)


def test_other_observables_are_left_alone() -> None:
    assert between_units(Fluctuation(mean(x(t) * x(t + tau)))) is None
    assert between_units(mean(x**2)) is None
    assert between_units(Fluctuation(cov(k * x))).scale == k**4
    with pytest.raises(QuenchedError, match="one quantity f"):
        between_units(Participation(mean(x)))
    with pytest.raises(QuenchedError, match="one quantity f"):
        between_units(Participation(cov(x, tanh(x))))


# --- how they are measured -----------------------------------------------------------------------------------------


def test_moments_do_not_depend_on_unknown_means() -> None:
    """Unit means of order one, the covariance of one time, of a lag, and of two quantities."""
    rng = np.random.default_rng(3)
    size, times = 20, 60
    mixing = rng.normal(size=(size, size)) / np.sqrt(size) + 0.5 * np.eye(size)
    means, base = 3 * rng.normal(size=size), mixing @ mixing.T
    rows = []
    for _ in range(150):
        z = rng.normal(size=(8, times + 1, size))
        paths = (z[:, 1:] + z[:, :-1]) @ mixing.T + means
        same = moments_of_blocks(paths, paths, np.array([0, 1]))
        other = moments_of_blocks(paths, 2 * paths - 1, np.array([0, 1]))
        rows.append([same.trace_squared, *same.squared_trace, *same.diagonal, *(other.squared_trace / 4)])
    trace, square, own = np.trace(base), np.sum(base**2), np.sum(np.diag(base) ** 2)
    truth = np.array([4 * trace**2, 4 * square, square, 4 * own, own, 4 * square, square])
    found, error = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / np.sqrt(len(rows))
    assert np.all(np.abs(found - truth) < 4 * error)
    assert np.all(error < 0.03 * truth)


def test_few_trajectories_are_cut_into_blocks_of_time() -> None:
    paths = np.arange(2 * 80 * 3, dtype=float).reshape(2, 80, 3)
    blocks = independent_blocks(paths)
    assert blocks.shape == (8, 15, 3)  # a quarter of each block of 20 keeps it apart from the one before
    assert np.array_equal(blocks[1], paths[0, 25:40])
    assert independent_blocks(np.zeros((9, 5, 2))).shape == (9, 5, 2)
    with pytest.raises(QuenchedError, match="too short"):
        moments_of_blocks(blocks, blocks, np.array([15]))


def test_a_ratio_of_means_keeps_numerators_and_denominators() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(2, 0.1, 40), rng.lognormal(0, 0.5, 40)], axis=1)
    sample = Sample.of(rows, None, Estimator("PR", "", "ratio of means"))
    assert sample.parts is not None
    assert np.array_equal(sample.parts[:, 0], rows)
    plain = rows[:, 0].mean() / rows[:, 1].mean()
    without = np.array([np.delete(rows, i, 0)[:, 0].mean() / np.delete(rows, i, 0)[:, 1].mean() for i in range(40)])
    assert sample.mean[0] == pytest.approx(40 * plain - 39 * without.mean())
    assert sample.error[0] == pytest.approx(np.sqrt(39 / 40 * np.sum((without - without.mean()) ** 2)))
    assert Sample.of(rows[:1], None, sample.estimator).values.shape == (1, 1)


@pytest.mark.parametrize("trials", [24, 128])
def test_verdicts_on_ratios_with_heavy_tails_keep_their_level(trials: int) -> None:
    """Nulls whose denominators are lognormal (skewness 2.3, as Tr C² of networks of 200 units) at three sizes."""
    rng, sizes, count = np.random.default_rng(7), (100, 200, 400), 1500
    runs = np.empty((count, trials, len(sizes), 1))
    for m in range(len(sizes)):
        bottom = np.exp(0.6 * rng.standard_normal((count, trials)) - 0.18)
        parts = np.stack([1 + 0.1 * rng.standard_normal((count, trials)), bottom], axis=-1)
        for n in range(count):
            total, one = parts[n].sum(axis=0), parts[n]
            without = (total - one)[:, 0] / (total - one)[:, 1]
            runs[n, :, m, 0] = trials * total[0] / total[1] - (trials - 1) * without
    first = pseudo_values(ratio_of_means, parts[-1][:, None])  # the last experiment again, by the function itself
    assert np.allclose(first[:, 0], runs[-1, :, -1, 0])
    assert calibrate.false_alarms(runs - 1, sizes, level=1e-2).holds


def network(phi: Any = curve) -> Dynamics:
    J = Gaussian("J", variance=g**2)
    net = Dynamics({x: -x + J @ phi(x) + sqrt(2 * s2) * WhiteNoise("xi")}, defaults={g: 2, s2: 4})
    return net.observe(
        PR=Participation(cov(phi(x))),
        psi=Fluctuation(cov(phi(x(t)), phi(x(t + tau)))),
        later=Fluctuation(cov(phi(x(t)), phi(x(t + 1)))),
        mixed=Fluctuation(cov(phi(x), x)),
        half=Fluctuation(cov(phi(x) / 2)),
    )


def test_the_simulator_measures_what_is_declared() -> None:
    run = simulate(
        network(), 60, 6, lags=[0, 1, 2], burn=5, duration=20, dt=0.1, trajectories=8, store=False, workers=1
    )
    assert run["PR"].estimator.statistic == "ratio of means"
    assert run["PR"].lags is None
    assert run["psi"].values.shape == (6, 3)
    assert np.allclose(run["later"].values[:, 0], run["psi"].values[:, 1], rtol=1e-9)
    assert "outside" in run.unmeasured["half"]
    again = simulate(
        network(), 60, 2, lags=[0, 1, 2], burn=5, duration=20, dt=0.1, trajectories=8, store=False, workers=1
    )
    assert run["PR"].parts is not None
    assert again["PR"].parts is not None
    assert np.array_equal(run["PR"].parts[:2], again["PR"].parts)


def test_theory_of_two_quantities_and_of_lags() -> None:
    """In x(n+1) = Jφ(x(n)), φ = ⟨φ'⟩x + n with n unrelated to x at equal times: ψ^φx = ⟨φ'⟩² ψ^x."""
    sol = derive(network()).solve(g=1.5, s2=4, lags=np.array([0.0, 1.0, 2.0]))
    psi, later = sol["psi"].values, float(sol["later"])
    assert later == pytest.approx(psi[1], rel=1e-6)
    assert psi[0] > psi[1] > psi[2] > 0
    assert float(sol["half"]) == pytest.approx(psi[0] / 16, rel=1e-6)
    step = Map({x: Gaussian("J", variance=g**2) @ curve(x)})
    found = derive(step.observe(mixed=Fluctuation(cov(curve(x), x)), own=Fluctuation(cov(x)))).solve(g=2)
    u = np.linspace(-12, 12, 20001) * np.sqrt(float(found["C_x0"]))
    gauss = np.exp(-u * u / 2 / float(found["C_x0"])) / np.sqrt(2 * np.pi * float(found["C_x0"]))
    slope = np.trapezoid(gauss * np.exp(-np.pi * u**2 / 4), u)
    assert float(found["mixed"]) == pytest.approx(slope**2 * float(found["own"]), rel=1e-6)


# --- the system ----------------------------------------------------------------------------------------------------

REFERENCE = {
    "tanh": {1.5: (0.0062394, 0.0056112), 2: (0.0197407, 0.0159148), 3: (0.0446509, 0.0313720), 5: (0.07407, 0.04563)},
    "erf": {1.5: (0.0074038, 0.0065839), 2: (0.0230137, 0.0181994), 3: (0.0497422, 0.0341995), 5: (0.07880, 0.04768)},
}


@pytest.mark.parametrize("gain", [3])
def test_published_dimensions(gain: float) -> None:
    sol = derive(catalogue["two-site-cavity"]()).solve(g=gain, s2=0)
    for name, expected in zip(("PR_phi", "PR_x"), REFERENCE["erf"][gain], strict=True):
        assert float(sol[name]) == pytest.approx(expected, abs=6e-6 if gain == 5 else 6e-8)


@pytest.mark.slow
def test_all_published_dimensions() -> None:
    for name, rows in REFERENCE.items():
        net = catalogue["two-site-cavity"](**({"phi": tanh} if name == "tanh" else {}))
        for gain, expected in rows.items():
            sol = derive(net).solve(g=gain, s2=0)
            assert [float(sol["PR_phi"]), float(sol["PR_x"])] == pytest.approx(
                expected, abs=6e-6 if gain == 5 else 6e-8
            )
        if name == "tanh":
            sol = derive(net).solve(g=4, s2=0, lags=np.array([0.0, 2.0, 4.0]))
            assert sol["psi_phi"].values == pytest.approx([8.783, 8.093, 6.743], abs=6e-4)
            assert [float(sol["PR_phi"]), float(sol["PR_x"])] == pytest.approx([0.06207, 0.04027], abs=6e-6)


def two_populations() -> Dynamics:
    E, I = Population("E", fraction=Rational(4, 5)), Population("I", fraction=Rational(1, 5))
    e, i = Field("x", E), Field("x", I)
    rows = {
        e: -e
        + Gaussian("A", variance=g**2, over=(E, E)) @ tanh(e)
        + Gaussian("B", variance=g**2 / 2, over=(E, I)) @ tanh(i),
        i: -i + Gaussian("C", variance=2 * g**2, over=(I, E)) @ tanh(e),
    }
    noisy = {f: rhs + sqrt(2 * s2) * WhiteNoise("xi", over=f.population) for f, rhs in rows.items()}
    return Dynamics(noisy).observe(P=Participation(cov(tanh(e))))


@pytest.mark.parametrize(
    "model",
    [
        catalogue["two-site-cavity"](),
        catalogue["two-site-cavity"](symmetry=Symbol("eta", real=True)),
        two_populations(),
        Map({x: x / 3 + Gaussian("J", variance=g**2) @ tanh(x)}).observe(P=Participation(cov(x))),
    ],
    ids=["plain", "partly symmetric", "two populations", "map"],
)
def test_every_step_is_checked_and_every_mutant_caught(model: Any) -> None:
    derivation = derive(model).derivation
    assert "Variance of cross-covariances" in derivation.titles()
    assert not any(tick.passed is False for tick in verify(derivation))
    survivors = [m for m in survey_mutants(derivation) if not m.caught]
    assert survivors == []


# --- mistakes, and units that are not Gaussian ---------------------------------------------------------------------


def test_named_mistakes_move_what_they_are_about() -> None:
    theory, at = derive(catalogue["two-site-cavity"]()), {"g": 1.5, "s2": 1}
    right = {name: float(theory.solve(at)[name]) for name in ("PR_phi", "PR_x")}
    for mutant, name in (("series-without-gain", "PR_phi"), ("one-corner", "PR_x")):
        wrong = theory.mutate(mutant)
        assert mutant in str(wrong.mutant)
        assert abs(float(wrong.solve(at)[name]) / right[name] - 1) > 0.05
    with pytest.raises(QuenchedError, match="one-corner"):
        theory.mutate("one-corners")


@pytest.mark.slow
def test_simulations_agree_with_the_theory_and_reject_mistakes() -> None:
    net, at = catalogue["two-site-cavity"](), {"g": 1.5, "s2": 1}
    how = {"lags": [0, 2, 4], "burn": 12, "duration": 30, "dt": 0.1, "trajectories": 8, "lyapunov": False}
    runs = [simulate(net, N, 48, params=at, dtype="float32", store=False, workers=1, **how) for N in (80, 160, 320)]
    theory = derive(net)
    assert validate(net, at, data=runs, quick=True).verdict != "disagree"
    for mutant in ("series-without-gain", "one-corner", "noise-passed-on", "variance-tenth"):
        assert validate(net, at, data=runs, quick=True, theory=theory.mutate(mutant)).verdict == "disagree", mutant


@pytest.mark.slow
def test_sampled_units_give_the_same_where_they_are_gaussian() -> None:
    """With η free, units are sampled; at η = 0 they are Gaussian. Symmetry lowers the dimension."""
    eta = Symbol("eta", real=True)
    theory = derive(catalogue["two-site-cavity"](symmetry=eta))
    exact = derive(catalogue["two-site-cavity"]()).solve(g=1.5, s2=1)
    how = Sampling(paths=400, average=8)
    sampled = theory.solve(g=1.5, s2=1, eta=0, sampling=how)
    for name in ("PR_phi", "PR_x"):
        assert float(sampled[name]) == pytest.approx(float(exact[name]), rel=0.03)
    assert float(theory.solve(g=1.5, s2=1, eta=0.3, sampling=how)["PR_phi"]) < 0.9 * float(exact["PR_phi"])
