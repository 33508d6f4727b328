"""Silence beside activity: branches, starts of the sweeps, and networks whose couplings start aligned."""

from __future__ import annotations

from typing import Any

import pytest
from sympy import symbols, tanh

from quenched import Dynamics, Field, Gaussian, N, Normal, derive, mean, outer, simulate, units
from quenched.numerics import Sampling
from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.model import Model

g, p = symbols("g p", positive=True)
k = symbols("k", real=True)
J = Gaussian("J", variance=g**2)
SHORT: dict[str, Any] = dict(dt=0.25, steps=1024, paths=60, reach=16, settle=60, average=8)


def plastic(aligned: bool = False, drive: Any = tanh) -> Model:
    x = Field("x", initial=Normal(0, 16))
    product = k / N * outer(drive(x), tanh(x))
    A = Field("A", over=(units, units), initial=product if aligned else None)
    net = Dynamics({x: -x + (J + A) @ tanh(x), A: (-A + product) / p}, defaults={g: 0.9, p: 2.5})
    return net.observe(C_x0=mean(x**2), C_phi0=mean(tanh(x) ** 2), kurtosis=mean(x**4) / mean(x**2) ** 2)


def test_sweeps_that_die_out_are_silence() -> None:
    solution = derive(plastic()).solve(g=0.6, k=0.5, sampling=Sampling(**SHORT | {"steps": 256, "average": 3}))
    assert (solution.main.label, solution.main.kind, solution.main.stable) == ("trivial", "trivial", True)
    assert solution.main.growth.value == pytest.approx(-0.4, abs=1e-9)
    assert float(solution["C_x0"]) == 0
    assert solution["C_phi"].values.tolist() == [0, 0]
    with pytest.raises(NotCovered, match="no value where all units are silent"):
        solution.quantity("kurtosis")


def test_activity_and_silence_from_two_starts() -> None:
    """arXiv:2302.08985: chaos at g < 1, reached from large order parameters only; p does not matter for silence."""
    theory = derive(plastic())
    active = theory.solve(k=1.65, sampling=Sampling(**SHORT, start=(0.85, 20.0)))
    assert [b.label for b in active.branches] == ["sampled", "trivial"]
    assert active.branches[1].stable
    assert float(active["C_phi0"]) == pytest.approx(0.73, abs=0.1)
    assert float(theory.solve(k=1.65, sampling=Sampling(**SHORT, start=(0.02, 3.0)))["C_phi0"]) == 0
    above = theory.solve(g=1.5, k=0.5, sampling=Sampling(**SHORT | {"steps": 256, "average": 3}))
    assert [(b.label, b.stable) for b in above.branches] == [("sampled", True), ("trivial", False)]


def test_slow_sweeps_are_not_taken_for_settled() -> None:
    """At g = 0.99 silence is reached so slowly that twenty sweeps are far from it."""
    how = Sampling(**SHORT | {"steps": 128, "settle": 20, "average": 3})
    with pytest.raises(ConvergenceError, match="still moves"):
        derive(plastic()).solve(g=0.99, k=0.5, sampling=how)


def test_units_without_silence_have_no_silent_branch() -> None:
    x, A = Field("x"), Field("A", over=(units, units))
    noisy = Dynamics({x: 1 - x + (J + A) @ tanh(x), A: (-A + k / N * outer(tanh(x), tanh(x))) / p})
    solution = derive(noisy).solve(
        g=0.5, k=0.3, p=1, sampling=Sampling(**SHORT | {"steps": 128, "reach": 8, "average": 3})
    )
    assert [b.label for b in solution.branches] == ["sampled"]


@pytest.mark.slow
def test_aligned_networks_stay_active() -> None:
    """Activity that random starts do not find: g = 0.9, k = 1.75, p = 2.5."""
    how: Any = dict(trials=2, seed=0, dt=0.2, burn=100, duration=100, lags=[0], lyapunov=False, store=False, workers=1)
    values = dict(g=0.9, k=1.75, p=2.5)
    started = simulate(plastic(aligned=True), 600, params=values, **how)
    random = simulate(plastic(), 300, params=values, **how)
    long = Sampling(**SHORT | {"steps": 2048, "paths": 300}, start=(0.85, 20.0))
    theory = derive(plastic()).solve(values, sampling=long)
    assert started["C_phi0"].values.mean() == pytest.approx(float(theory["C_phi0"]), abs=0.04)
    assert random["C_phi0"].values.max() < 0.05
