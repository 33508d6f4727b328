"""Largest Lyapunov exponents of units that are not Gaussian: against the Gaussian theory, networks, and mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import symbols, tanh

from quenched import Dynamics, Field, Gaussian, Lyapunov, catalogue, derive, simulate, validate
from quenched.numerics import Sampling, path_growth

g = symbols("g", positive=True)
x, J = Field("x"), Gaussian("J", variance=g**2)
SHORT = Sampling(dt=0.2, steps=512, paths=120, reach=16, settle=20, average=8)


def plastic() -> Dynamics:
    net = Dynamics(dict(catalogue["neuronal-synaptic"]().equations), defaults={"g": 2.5, "p": 2.5, "k": -1})
    return net.observe(lyapunov=Lyapunov(net.fields[0]))


def test_a_rotation_keeps_scalar_products() -> None:
    turn = path_growth._Rotation(np.random.default_rng(0), 60)
    a, b = np.random.default_rng(1).standard_normal((2, 3, 20))
    assert np.sum(turn(a) * turn(b)) == pytest.approx(np.sum(a * b))
    assert abs(np.sum(turn(a) * a)) < 0.5 * np.sum(a * a)


def test_without_plasticity_it_is_that_of_gaussian_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_growth, "_DRAWS", 2)
    sampled = derive(plastic()).solve(k=0, sampling=SHORT).main.growth
    exact = derive(Dynamics({x: -x + J @ tanh(x)})).solve(g=2.5).main.growth.value
    assert sampled.value == pytest.approx(exact, abs=4 * sampled.error)
    assert sampled.error < 0.04 * exact


@pytest.mark.slow
def test_it_rises_with_the_plasticity(monkeypatch: pytest.MonkeyPatch) -> None:
    """arXiv:2302.08985: anti-Hebbian synapses make the chaos weaker."""
    theory = derive(plastic())
    monkeypatch.setattr(path_growth, "_PRECISE", 0.02)
    low, top = (theory.solve(k=k, sampling=SHORT).main.growth for k in (-3, 0.75))
    assert top.value - low.value > 2.5 * np.hypot(top.error, low.error)


@pytest.mark.slow
def test_networks_of_three_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """At k = 3/2, where halted synapses would leave no chaos: differences that do not move them are a mistake."""
    net, values = plastic(), dict(k=1.5)
    how: Any = dict(
        trials=12, seed=11, duration=120, burn=40, dt=0.2, lags=[0], dtype="float32", store=False, workers=1
    )
    runs = [simulate(net, n, params=values, **how) for n in (250, 400, 640)]
    report = validate(net, data=runs, params=values)
    assert report.reason.startswith("not rejected"), report
    assert derive(net).solve(values, sampling=SHORT).main.growth.error < 0.02 * 0.163
    monkeypatch.setattr(path_growth._Tangent, "_remember", lambda *_: None)
    assert validate(net, data=runs, params=values).verdict == "disagree"
