"""Networks whose state depends on time: steps of every size, and networks of their own for the exponent."""

from typing import Any

import numpy as np
import pytest
from sympy import sin, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Lyapunov, catalogue, derive, driven_design, mean, t, tau, validate
from quenched.design import design_of

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
