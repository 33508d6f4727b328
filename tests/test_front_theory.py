"""Theories, solutions, sweeps and verdicts through the public names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sympy import Rational, Symbol, erf, exp, pi, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Lyapunov,
    Map,
    NotCovered,
    Population,
    QuenchedError,
    WhiteNoise,
    catalogue,
    cov,
    derive,
    load,
    mean,
    simulate,
    start,
    t,
    tau,
    validate,
)

g, s2 = symbols("g s2", nonnegative=True)
x = Field("x")
J = Gaussian("J", variance=g**2)


@pytest.fixture(scope="module")
def scs() -> Any:
    return derive(catalogue["scs"]())


# --- theory --------------------------------------------------------------------------------------------------------


def test_a_theory_shows_its_equations_and_order_parameters(scs: Any) -> None:
    assert "C_x" in repr(scs.equations)
    assert "<math" in scs.equations._repr_html_()
    assert "aligned" in scs.equations._repr_latex_()
    assert len(scs.order_parameters) >= 1
    assert "Declaration" in scs._repr_html_()
    assert scs.coverage.complete


def test_derive_takes_declarations_only() -> None:
    with pytest.raises(QuenchedError, match="takes a declaration"):
        derive(3)  # type: ignore[arg-type]


def test_a_size_where_the_saddle_has_none_is_refused(scs: Any) -> None:
    with pytest.raises(QuenchedError, match="N"):
        scs.solve(g=2, N=500)


def test_the_verbs_reach_the_same_action(scs: Any) -> None:
    steps = start(catalogue["scs"]()).average().order_parameters().saddle().steps
    assert [s.title for s in steps] == [s.title for s in scs.derivation.steps][: len(steps)]


def test_stability_names_every_branch(scs: Any) -> None:
    rates = scs.stability(g=1.5)
    assert rates["dynamic"][0] == pytest.approx(0.04674622, abs=2e-7)
    assert rates["trivial"][0] == pytest.approx(0.5, abs=1e-9)


# --- solutions -----------------------------------------------------------------------------------------------------


def test_below_the_transition_the_network_is_silent(scs: Any) -> None:
    solution = scs.solve(g=0.8)
    assert solution.main.kind == "trivial"
    assert float(solution["C_x0"]) == 0
    assert float(solution["lyapunov"]) == pytest.approx(-0.2, abs=1e-9)


def test_noise_rows(scs: Any) -> None:
    solution = scs.solve(g=2, s2=0.125)
    assert float(solution["C_x0"]) == pytest.approx(1.936331, abs=1e-6)
    assert float(solution["lyapunov"]) == pytest.approx(0.08092, abs=1e-5)


def test_arrays_carry_axes_units_and_errors(scs: Any) -> None:
    solution = scs.solve(g=2)
    curve = solution["C_x"]
    assert curve.dims == ("tau",)
    assert curve.attrs["error"] < 1e-6
    assert float(curve.interp(tau=4) / curve[0]) == pytest.approx(0.6501, abs=2e-4)
    assert float(solution.error("C_x0")) < 1e-8
    assert "tau" in solution.dataset.coords
    assert solution.dataset.attrs["key"] == scs.model.key()
    with pytest.raises(QuenchedError, match="did you mean 'C_x0'"):
        solution["C_x00"]


def test_declared_expressions_are_evaluated_on_the_law() -> None:
    net = Dynamics({x: -x + J @ tanh(x)})
    net.observe(
        fourth=mean(x**4) / mean(x**2) ** 2,
        gain=mean(1 - tanh(x) ** 2),
        lagged=mean(x(t) * x(t + 4)) / mean(x**2),
        variance=cov(x),
        mixed=mean(tanh(x(t)) * x(t + tau)),
    )
    theory = derive(net)
    solution = theory.solve(g=2)
    assert float(solution["fourth"]) == pytest.approx(3, abs=1e-8)
    assert float(solution["lagged"]) == pytest.approx(0.6501, abs=2e-4)
    assert float(solution["variance"]) == pytest.approx(1.9248054137, abs=1e-8)
    # Bussgang: ⟨φ(x) x(τ)⟩ = ⟨φ′⟩ C(τ)
    expected = float(solution["gain"]) * solution["C_x"].values
    assert np.allclose(solution["mixed"].values, expected, atol=1e-7)


def test_an_observable_without_a_formula_is_listed_with_its_reason() -> None:
    net = Dynamics({x: -x + J @ tanh(x)}).observe(three=mean(x(t) * x(t + 1) * x(t + 2) * x(t + 3)))
    solution = derive(net).solve(g=2)
    assert "joint law of 4" in solution.main.missing()["three"]
    with pytest.raises(NotCovered):
        solution["three"]


def test_a_solution_survives_the_disk(scs: Any, tmp_path: Path) -> None:
    solution = scs.solve(g=1.5)
    again = load(solution.save(tmp_path / "scs.nc"))
    assert float(again["lyapunov"]) == float(solution["lyapunov"])
    assert np.array_equal(again["C_x"].values, solution["C_x"].values)
    assert [b.label for b in again.branches] == [b.label for b in solution.branches]
    with pytest.raises(QuenchedError, match="no file"):
        load(tmp_path / "other.nc")
    (tmp_path / "text.nc").write_text("no", encoding="utf-8")
    with pytest.raises(QuenchedError, match="not a saved solution"):
        load(tmp_path / "text.nc")


def test_a_sweep_keeps_order_and_axes(scs: Any) -> None:
    curve = scs.sweep(g=[1.2, 2], s2=0)
    assert curve["C_x0"].values == pytest.approx([0.2426288960, 1.9248054137], abs=1e-9)
    assert list(curve.dataset["g"].values) == [1.2, 2]
    assert curve.plot() is not None
    with pytest.raises(QuenchedError, match="list of values"):
        scs.sweep(g=2)


def test_figures_are_made(scs: Any, tmp_path: Path) -> None:
    figure = scs.solve(g=2).plot(["C_x"])
    figure.savefig(tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


# --- variants through the same names -------------------------------------------------------------------------------


def _solved(net: Any, **values: float) -> Any:
    return derive(net).solve(**values)


def test_an_algebraic_nonlinearity() -> None:
    solution = _solved(Dynamics({x: -x + J @ (x / sqrt(1 + x**2))}), g=2)
    assert solution.main.kind == "dynamic"
    assert float(solution["lyapunov"]) > 0


def test_a_nonlinearity_that_is_not_odd_has_a_mean_and_a_static_part() -> None:
    net = Dynamics({x: -x + Gaussian("J", variance=g**2, mean=-1) @ (1 / (1 + exp(-4 * x)))})
    solution = _solved(net, g=3)
    curve = solution["C_x"]
    assert float(solution["mean_x"]) < -0.1
    assert float(curve[-1]) > float(solution["mean_x"]) ** 2


def test_a_constant_input() -> None:
    drive = Symbol("b", real=True)
    solution = _solved(Dynamics({x: -x + J @ erf(sqrt(pi) * x / 2) + drive}), g=2, b=0.3)
    assert float(solution["mean_x"]) == pytest.approx(0.3, abs=1e-9)


def test_two_populations() -> None:
    E, I = Population("E", fraction=Rational(1, 2)), Population("I", fraction=Rational(1, 2))
    a, b = Field("a", population=E), Field("b", population=I)
    gains = {
        (r, c): Gaussian(f"J_{r}{c}", variance=v, over=(r, c))
        for r, c, v in ((E, E, 4), (E, I, 2), (I, E, 6), (I, I, 4))
    }
    net = Dynamics({
        a: -a + gains[E, E] @ tanh(a) + gains[E, I] @ tanh(b),
        b: -b + gains[I, E] @ tanh(a) + gains[I, I] @ tanh(b),
    })  # fmt: skip
    solution = _solved(net)
    assert float(solution["C_b0"]) > float(solution["C_a0"]) > 0


@pytest.mark.slow
def test_one_population_split_in_two_is_the_same_network(scs: Any) -> None:
    E, I = Population("E", fraction=Rational(1, 4)), Population("I", fraction=Rational(3, 4))
    a, b = Field("x", population=E), Field("x", population=I)
    gains = {(r, c): Gaussian(f"J_{r}{c}", variance=4, over=(r, c)) for r in (E, I) for c in (E, I)}
    net = Dynamics({
        a: -a + gains[E, E] @ tanh(a) + gains[E, I] @ tanh(b),
        b: -b + gains[I, E] @ tanh(a) + gains[I, I] @ tanh(b),
    })  # fmt: skip
    solution = _solved(net)
    assert float(solution["C_x_E0"]) == pytest.approx(float(solution["C_x_I0"]), abs=1e-6)
    assert float(solution["C_x_E0"]) == pytest.approx(1.9248054137, abs=1e-5)


def test_a_map_with_a_leak_approaches_the_flow(scs: Any) -> None:
    delta = Symbol("delta", positive=True)
    solution = _solved(Map({x: (1 - delta) * x + delta * (J @ tanh(x))}), g=2, delta=0.1)
    assert float(solution["C_x0"]) == pytest.approx(1.9248, rel=0.05)
    white = _solved(Map({x: J @ tanh(x)}), g=2)
    assert float(white["C_x"][1]) == pytest.approx(0, abs=1e-9)


def test_a_slow_adaptation_current() -> None:
    a = Field("a")
    net = Dynamics({x: -x - a + J @ tanh(x), a: (x / 2 - a) / 10}).observe(v=mean(x**2), lam=Lyapunov(x))
    theory = derive(net)
    assert theory.potential is None
    assert any("order" in reason for _, reason in theory.derivation.refusals)
    assert float(theory.solve(g=3)["v"]) > 0


# --- verdicts ------------------------------------------------------------------------------------------------------

QUICKLY = {"sizes": (100, 150, 250), "trials": 24, "trajectories": 4, "duration": 40.0, "burn": 15.0, "workers": 1}


@pytest.fixture(scope="module")
def linear() -> Any:
    """A linear network with noise: ⟨x²⟩ = s2/√(1 − g²) exactly, and small networks know it already."""
    return Dynamics({x: -x + J @ x + sqrt(2 * s2) * WhiteNoise("xi")}).observe(v=mean(x**2))


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Realisations of this module are shared by its tests and by nobody else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUENCHED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_a_right_theory_agrees(linear: Any, tmp_path: Path) -> None:
    report = validate(linear, g=0.5, s2=1, quick=True, **QUICKLY)
    assert report.verdict == "agree", report.reason
    assert report["v"].components[0].theory == pytest.approx(1 / np.sqrt(0.75), abs=1e-9)
    page = report.save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "agree" in page
    assert "Average over the couplings" in page
    assert 'src="http' not in page


@pytest.mark.parametrize("name", ["noise-half", "noise-double"])
def test_a_wrong_theory_is_rejected_on_the_same_runs(linear: Any, name: str) -> None:
    report = validate(linear, g=0.5, s2=1, quick=True, theory=derive(linear).mutate(name), **QUICKLY)
    assert report.verdict == "disagree", report.reason
    assert name in report.context["notes"][0]


def test_several_points_have_one_verdict_and_one_figure(linear: Any) -> None:
    report = validate(linear, g=[0.3, 0.5], s2=1, quick=True, **QUICKLY)
    assert len(report.points) == 2
    assert report.verdict == "agree", report.reason
    assert report.plot() is not None


def test_own_runs_are_judged(linear: Any) -> None:
    rng = np.random.default_rng(1)
    right = 1 / np.sqrt(0.75)
    runs = {N: {"v": right + 0.3 / N + 0.5 / np.sqrt(N) * rng.standard_normal(48)} for N in (400, 800, 1600)}
    assert validate(linear, data=runs, g=0.5, s2=1, quick=True).verdict == "agree"
    wrong = {N: {"v": 1.2 * row["v"]} for N, row in runs.items()}
    assert validate(linear, data=wrong, g=0.5, s2=1, quick=True).verdict == "disagree"
    with pytest.raises(QuenchedError, match="expected runs"):
        validate(linear, data=3, g=0.5, s2=1)


def test_runs_made_at_other_parameters_are_told(linear: Any) -> None:
    how: Any = dict(trials=4, duration=5, burn=5, dt=0.1, lags=[0], lyapunov=False, store=False, workers=1, s2=1)
    runs = [simulate(linear, N, g=0.5, **how) for N in (20, 40, 80)]
    told = "the runs were made at g = 0.5, not 0.3"
    assert told in validate(linear, data=runs, g=0.3, s2=1, quick=True).reason
    assert told in validate(linear, data=[runs, runs], g=[0.5, 0.3], s2=1, quick=True).reason
    assert "made at" not in validate(linear, data=runs, g=0.5, s2=1, quick=True).reason


def test_parts_that_the_theory_does_not_cover_forbid_agreement() -> None:
    net = Dynamics({x: -x + J @ x + sqrt(2 * s2) * WhiteNoise("xi")})
    net.observe(v=mean(x**2), three=mean(x(t) * x(t + 1) * x(t + 2) * x(t + 3)))
    report = validate(net, g=0.5, s2=1, quick=True, **QUICKLY)
    assert report.verdict == "inconclusive"
    assert "three" in report.reason


@pytest.mark.parametrize(
    ("given", "hint"),
    [({"gain": 2}, "unknown parameter"), ({"g": []}, "empty list"), ({"g": -1}, "g"), ({"s2": 1}, "no value for g")],
)
def test_bad_parameters_are_refused_before_anything_runs(linear: Any, given: dict[str, Any], hint: str) -> None:
    with pytest.raises(QuenchedError, match=hint):
        validate(linear, given)


@pytest.mark.slow
def test_every_mutant_changes_the_theory_where_it_matters(scs: Any) -> None:
    from quenched.mutants import MUTANTS

    assert len(MUTANTS) >= 8
    for name in MUTANTS:
        s = 0.125 if name.startswith("noise") else 0
        right, wrong = scs.solve(g=2, s2=s), scs.mutate(name).solve(g=2, s2=s)
        moved = [abs(float(wrong[n]) - float(right[n])) / abs(float(right[n])) for n in ("C_x0", "C_phi0", "lyapunov")]
        assert max(moved) > 0.02, name
    with pytest.raises(QuenchedError, match="did you mean 'gain-root'"):
        scs.mutate("gain-roots")
