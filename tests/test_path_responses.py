"""Responses of marched paths: linear networks in closed form, step-by-step processes, and networks on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import erf
from sympy import Heaviside, Max, Rational, exp, sign, sin, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Map,
    N,
    Normal,
    NotCovered,
    Population,
    Quenched,
    Uniform,
    WhiteNoise,
    derive,
    freeze,
    mean,
    outer,
    simulate,
    t,
)
from quenched.numerics import March, Sampling
from quenched.numerics.path_responses import jumps
from quenched.theory.model import Model
from quenched.theory.readoff import EffectiveProcess
from quenched.validate.meaning_steps import Ensemble

g, q = symbols("g q", positive=True)
eta, s2 = symbols("eta s2", real=True)
x = Field("x")
BRIEF = Sampling(steps=256, paths=200, settle=12, average=6)


def test_a_symmetric_linear_network_relaxes_as_its_modes() -> None:
    """⟨x(t)x(s)⟩ over the semicircle of rates, from a standard normal start; the error is that of the step, ∝ dt²."""
    S = Gaussian("J", variance=g**2, symmetry=eta)
    theory = derive(Dynamics({x: -x + S @ x + sqrt(2 * s2) * WhiteNoise("xi")}))
    assert theory.derivation.process.memory
    at = np.arange(0, 7, 1.0)
    mu = np.linspace(-0.8, 0.8, 4001)[1:-1]
    weight = np.sqrt(0.64 - mu**2) / np.sqrt(0.64 - mu**2).sum()
    late, early = np.maximum.outer(at, at), np.minimum.outer(at, at)
    rate = mu - 1
    exact = np.zeros_like(late)
    for w, r in zip(weight, rate, strict=True):
        exact += w * (np.exp(r * (late + early)) + np.exp(r * (late - early)) * (1 - np.exp(2 * r * early)) / -r)
    worst = []
    for dt in (0.2, 0.1):
        found: Any = theory.solve(g=0.4, eta=1, s2=1, times=at, sampling=March(dt=dt, paths=400, batches=1))
        worst.append(np.abs(found.two_time("x").values - exact).max())
    assert worst[1] < 0.008
    assert 3 < worst[0] / worst[1] < 5


def start_like_the_loops(name: str) -> Normal:
    return Normal(0.3 + Rational(len(name) % 3, 10), Rational(49, 100))


def everything(phi: Callable[..., Any]) -> Model:
    """Responses of one population in the fields of another, a gate, bonds that are halted, labels and a drive."""
    E, I = Population("E", Rational(3, 5)), Population("I", Rational(2, 5))
    u, v = (Field(n, P, initial=start_like_the_loops(n)) for n, P in (("u", E), ("v", I)))
    B, gain = Field("B", over=(E, I)), Quenched("a", Uniform(Rational(1, 2), 1), over=E)
    across, inside = (
        Gaussian("K", variance=g**2, over=(E, I)),
        Gaussian("J", variance=g**2, symmetry=eta, over=(E, E)),
    )
    net = Map(
        {
            u: gain * (across @ v) / (1 + exp(-(inside @ phi(u)))) + inside @ phi(u) / 2 + B @ tanh(v) + sin(t) / 3,
            v: v / 3 + across.T @ phi(u) / 2 + WhiteNoise("xi", over=I) / 4,
            B: B / 2 + q / N * outer(u, tanh(v)),
        }
    )
    return freeze(net, B, at=2)


@pytest.mark.parametrize("phi", [tanh, sign])
def test_a_map_against_loops(phi: Callable[..., Any]) -> None:
    """Means and covariances over four steps against the step-by-step process, whose responses are regressions."""
    values = dict(g=0.9, q=1.2, eta=0.7)
    theory = derive(everything(phi))
    solution: Any = theory.solve(values, times=np.arange(5.0), sampling=March(paths=4000, batches=4))
    without: Any = theory.solve({**values, "eta": 0}, times=np.arange(5.0), sampling=March(paths=4000, batches=1))
    process = theory.derivation.find(EffectiveProcess)
    loops = Ensemble(process, {**theory.model.values(values), N: 400}, 80_000, 4, np.random.default_rng(0)).run()
    for name in ("u", "v"):
        paths = np.array(loops[name])
        spread = paths.std(axis=1) / np.sqrt(80_000)
        assert np.all(np.abs(solution.means[name].values - paths.mean(axis=1)) < 5 * spread + 2e-3), name
        size = np.var(paths, axis=1).max()
        assert np.abs(solution.two_time(name).values - np.cov(paths, bias=True)).max() < 0.03 * size, name
    moved = np.abs(solution.means["u"].values - without.means["u"].values).max()
    assert moved > 0.025  # responses matter here


def test_jumps_are_seen() -> None:
    smooth, rough = (
        derive(Map({x: Gaussian("J", variance=g**2, symmetry=eta) @ f})) for f in (Max(tanh(x), 0), sign(x))
    )
    assert [jumps(th.derivation.process.units[0]) for th in (smooth, rough)] == [False, True]


def quench() -> Model:
    """Partly symmetric couplings that are switched on while the units relax from a shifted start, then a drive."""
    u = Field("x", initial=Normal(Rational(1, 2), 1))
    S = Gaussian("J", variance=g**2, symmetry=eta)
    return Dynamics({u: -u + Heaviside(t - 1) * (S @ tanh(u)) + Heaviside(t - 3) / 2 + WhiteNoise("xi") / 2}).observe(
        m=mean(u), v=mean(u**2)
    )


@pytest.mark.parametrize("symmetry", [0.8, -0.8])
def test_a_quench_against_networks(symmetry: float) -> None:
    net, values = quench(), dict(g=1.2, eta=symmetry)
    found = derive(net).solve(values, times=np.arange(0, 6.5, 0.5), sampling=March(dt=0.1, paths=500, batches=6))
    how: Any = dict(dt=0.1, duration=0.1, store=False, workers=1, trajectories=1)
    for at in (2.5, 6.0):
        run = simulate(net, 400, trials=24, seed=1, burn=at, **values, **how)
        for name in ("m", "v"):
            mine, error = found[name].values[int(2 * at)], found.quantity(name).error[int(2 * at)]
            theirs = run[name].values
            spread = np.hypot(theirs.std() / np.sqrt(len(theirs)), error)
            assert abs(mine - theirs.mean()) < 4 * spread + 0.01, (name, at)


# -- units that jump, with partial symmetry ---------------------------------------------------------------------------
def symmetric(strength: float) -> Gaussian:
    return Gaussian("J", variance=1, symmetry=strength)


def test_maps_that_jump_in_their_fields_have_responses_to_finite_kicks() -> None:
    """x' = sign(Jx + 0.7): without symmetry ⟨x⟩ = 2Φ(0.7) − 1; with it memory is measured, and nothing is silent."""
    b = symbols("b")
    for strength in (0.0, 0.3):
        solution = derive(Map({x: sign(symmetric(strength) @ x + b)})).solve(b=0.7, sampling=BRIEF)
        assert [branch.kind for branch in solution.branches] == ["dynamic"]
        assert solution.main.growth.value == np.inf
        assert "growth inf" in str(solution)
        if strength == 0:
            assert float(solution["mean_x"]) == pytest.approx(erf(0.7 / np.sqrt(2)), abs=0.03)


def test_jumping_outputs_of_a_flow_have_no_silent_state_and_no_finite_growth() -> None:
    solution = derive(Dynamics({x: -x + symmetric(0.5) @ sign(x)})).solve()
    assert len(solution.branches) == 1
    assert solution.main.growth.value == np.inf
    with pytest.raises(NotCovered, match="jumps in the field"):
        derive(Dynamics({x: -x + sign(symmetric(0.5) @ tanh(x))})).solve(sampling=BRIEF)


@pytest.mark.slow
def test_memory_of_a_map_that_jumps_agrees_with_networks() -> None:
    """C(2) is 0.58 without symmetry, 0.80 at 0.3 (units with their own thresholds)."""
    m = Quenched("m", Normal(0, 1))
    net = Map({x: sign(symmetric(0.3) @ x + m)})
    solution = derive(net).solve()
    run = simulate(net, N=800, trials=6, seed=4, store=False, workers=1, lyapunov=False)
    for lag in (1, 2, 4):
        found = run["C_x"].values[:, lag]
        assert float(solution["C_x"].sel(tau=lag)) == pytest.approx(found.mean(), abs=0.02)
    assert float(solution["C_x"].sel(tau=2)) > 0.75
