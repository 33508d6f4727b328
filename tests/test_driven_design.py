"""Networks whose state depends on time: steps of every size, and networks of their own for the exponent."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sympy import sin, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Lyapunov, catalogue, derive, driven_design, mean, t, tau, validate
from quenched.design import design_of
from quenched.runs import Samples
from quenched.validate import statistics as st
from quenched.validation import _from_own_size

g = symbols("g", positive=True)


def driven() -> Any:
    x = Field("x")
    net = Dynamics({x: -x + Gaussian("J", variance=g**2) @ tanh(x) + sin(2 * t)}, defaults={g: 0.8})
    return net.observe(q=mean(x**2), c=mean(x(t) * x(t + tau)), lyapunov=Lyapunov(x))


def test_steps_follow_the_feedback_and_divide_lags_and_periods() -> None:
    net = catalogue["balanced-chaos-suppression"]()
    theory = derive(net)
    quick = {"dt": 0.05, "scheme": "euler", "tol": 1e-2, "lags": [0.0]}
    largest, smallest = (theory.solve(N=N, **quick) for N in (640, 100))
    made = design_of(net, net.values({}), largest, True, {}, smallest)
    assert made.scheme == "rk4"
    assert made.steps[100] > 1.5 * made.steps[640]
    for part in (made, made.growth):
        for step in part.steps.values():
            for time in (*part.lags, part.burn, part.duration, 5.0):
                assert time / step == pytest.approx(round(time / step), abs=1e-6)
    assert made.lyapunov is False
    assert made.growth.lyapunov is True
    given = design_of(net, net.values({}), largest, True, {"sizes": (100, 200, 640)}, smallest)
    assert given.growth is None
    assert given.lyapunov is True


def test_the_exponent_is_judged_in_its_own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driven_design, "QUICK", {"sizes": (40, 60, 90), "trials": 24, "trajectories": 1})
    monkeypatch.setattr(driven_design, "GROWTH_QUICK", {"sizes": (250, 260, 280), "trials": 16})
    report = validate(driven(), quick=True, workers=1, store=False)
    assert [row.name for row in report.rows] == ["q", "c", "lyapunov"]
    assert report["q"].sizes == (40, 60, 90)
    assert report["lyapunov"].sizes == (250, 260, 280)
    assert [point.realisations for point in report.points] == [24, 16]
    assert not report.several
    assert set(report.to_dict()["observables"]) == {"q", "c", "lyapunov"}
    assert "lyapunov at N = 250, 260, 280, R = 16" in repr(report)
    assert report.verdict != "disagree"
    assert np.isfinite(report["lyapunov"].detectable)


def test_errors_of_a_mean_that_vanishes_are_relative_to_its_root_mean_square() -> None:
    solution = derive(catalogue["scs"](drive=True)).solve(g=0.8, s2=0, dt=0.2, scheme="euler", tol=1e-2, nodes=8)
    scale, what = solution.main.rms("mean_x") or (0.0, "")
    assert scale == pytest.approx(float(solution["C_x0"]) ** 0.5)
    assert what == "root mean square of x"
    assert solution.main.rms("C_x0") is None


class Known:
    """A solution with one number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def quantity(self, name: str) -> Any:
        return SimpleNamespace(value=self.value, error=1e-3, axis=None, at=None)


def moved(runs: dict[int, Any], own: dict[int, float], limit: float, scaled: tuple[str, ...] = ()) -> dict[int, Any]:
    sized: Any = {N: (Known(limit), Known(x)) for N, x in own.items()}
    samples = Samples({N: {"q": x} for N, x in runs.items()}, None, frozenset())
    return {N: row["q"] for N, row in _from_own_size(sized, {"q": None}, samples, scaled).values.items()}


def test_runs_are_moved_by_the_ratio_where_that_shrinks_them() -> None:
    runs = {100: np.array([3.0, 5.0])}
    assert moved(runs, {100: 4.0}, 2.0)[100] == pytest.approx([1.5, 2.5])
    assert moved(runs, {100: 4.0}, 6.0)[100] == pytest.approx([5, 7])  # it would grow
    assert moved(runs, {100: 4.0}, -2.0)[100] == pytest.approx([-3, -1])  # it changes sign
    assert moved(runs, {100: 4.0}, 0.01)[100] == pytest.approx([-0.99, 1.01])  # as good as zero
    assert moved(runs, {100: 4.0}, 2.0, ("q",))[100] == pytest.approx([1, 3])  # errors relative to something else


def test_moving_by_the_ratio_rejects_no_more_often_and_scatters_less() -> None:
    """Level and width for skewed runs with the means and the scatter measured in a balanced network at g = 2."""
    rng, sizes, R, many = np.random.default_rng(1), (100, 140, 640), 64, 1500
    own, law = {N: 1.96 + 427 / np.sqrt(N) for N in sizes}, st.extrapolation(sizes)
    rejected, width = {}, {}
    for name, scaled in (("ratio", ()), ("difference", ("q",))):
        runs = {N: own[N] * (1 + 2 / N) * skewed(rng, np.sqrt(7 / N + 450 / N**2), (many, R)) for N in sizes}
        a = st.extrapolated(np.stack(list(moved(runs, own, own[640], scaled).values()), axis=-1)[..., None], law)
        p = st.block_p_values(a, np.array([own[640]]), np.array([0.0]))
        rejected[name], width[name] = np.mean(p < 0.01), a.std(axis=1).mean()
    assert rejected["ratio"] < 0.018  # three standard errors above the level
    assert width["ratio"] < 0.85 * width["difference"]


def skewed(rng: Any, spread: float, shape: tuple[int, ...]) -> Any:
    """Lognormal numbers of mean one."""
    s = np.sqrt(np.log1p(spread**2))
    return rng.lognormal(-(s**2) / 2, s, shape)
