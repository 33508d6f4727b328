"""Fields at earlier times in states that change: against chains of states, Euler maps, and networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Heaviside, Rational, cos, sin, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Map,
    N,
    Normal,
    Population,
    QuenchedError,
    WhiteNoise,
    derive,
    discretise,
    freeze,
    mean,
    outer,
    simulate,
    t,
    units,
)
from quenched.numerics import March
from quenched.theory.model import Model
from quenched.validate.witness import survey_mutants, verify

g = symbols("g", positive=True)
eta = symbols("eta", real=True)
half = Rational(1, 2)
law = Normal(half, 1)
x, A = Field("x", initial=law), Field("A", over=(units, units))
J, S = Gaussian("J", variance=g**2), Gaussian("J", variance=g**2, symmetry=eta)
xi = WhiteNoise("xi") / 2


def test_a_delay_against_a_chain_of_states() -> None:
    """Paths of a map that reads two steps back, against the marched covariances of states that are handed on."""
    y, z = Field("y", initial=0), Field("z", initial=0)
    x = Field("x", initial=0)
    late = Map({x: x / 3 - x(t - 2) / 4 + J @ tanh(x(t - 1)) + mean(x(t - 1)) / 2 + xi + cos(t) / 3})
    chain = Map({x: x / 3 - z / 4 + J @ tanh(y) + mean(y) / 2 + xi + cos(t) / 3, y: x, z: y})
    at = np.arange(7.0)
    found: Any = derive(late).solve(g=1.2, times=at, sampling=March(paths=1000, batches=4))
    exact: Any = derive(chain).solve(g=1.2, times=at)
    assert np.abs(found.means["x"].values - exact.means["x"].values).max() < 0.01
    assert np.abs(found.two_time("x").values - exact.two_time("x").values).max() < 0.03


def test_the_euler_map_of_a_delayed_flow() -> None:
    """The flow by Euler steps and its discretised declaration are one map, whose t and delays are those of the flow."""
    flow = Dynamics({x: -x + S @ tanh(x(t - 1)) + x(t - half) / 4 + xi + sin(t) * Heaviside(t - Rational(5, 4))})
    how: Any = dict(g=1, eta=0.5, sampling=March(paths=200, batches=1))
    steps: Any = derive(discretise(flow, half)).solve(times=np.arange(9.0), **how)
    euler: Any = derive(flow).solve(times=np.arange(9) / 2, dt=0.5, scheme="euler", **how)
    assert steps.two_time("x").coords["t"].values == pytest.approx(euler.two_time("x").coords["t"].values)
    assert steps.means["x"].values == pytest.approx(euler.means["x"].values, abs=1e-4)
    assert steps.two_time("x").values == pytest.approx(euler.two_time("x").values, abs=1e-4)


def test_a_population_that_a_stationary_theory_eliminates() -> None:
    """Linear units that others remember through: kept in time, where they are units as others are."""
    E, I = Population("E", Rational(3, 5)), Population("I", Rational(2, 5))
    u, v = Field("u", E, initial=law), Field("v", I, initial=0)
    K = Gaussian("K", variance=g**2, over=(E, I))
    net = Dynamics({u: -u + K @ v + WhiteNoise("xi", over=E) / 2, v: -v + K.T @ tanh(u)})
    net.observe(v=mean(u**2), w=mean(v**2))
    found = derive(net).solve(g=1.1, times=np.arange(0, 4.5, 0.5), sampling=March(paths=500, batches=4))
    run = simulate(net, 400, trials=16, seed=2, g=1.1, burn=4, duration=0.1, dt=0.1, store=False, workers=1)
    for name in ("v", "w"):
        theirs = run[name].values
        assert abs(found[name].values[-1] - theirs.mean()) < 4 * theirs.std() / 4 + 0.01, name


# -- couplings that read the past --------------------------------------------------------------------------------------
def late_bonds() -> Model:
    """Bonds driven by what one of their units did before, halted, beside partly symmetric couplings that are late."""
    return freeze(
        Dynamics({x: -x + (S + A) @ tanh(x(t - 1)) + xi, A: -A + 2 * outer(tanh(x(t - half)), tanh(x)) / N}), A, at=2
    ).observe(m=mean(x), v=mean(x**2))


def test_bonds_that_read_the_past_keep_their_meaning() -> None:
    net = Map({x: x / 3 + (S + A) @ tanh(x) + xi, A: A / 2 + outer(tanh(x(t - 2)), tanh(x)) / N})
    derivation = derive(net).derivation
    assert [f"{tick.title}: {tick.detail}" for tick in verify(derivation) if tick.passed is not True] == []
    assert [f"{s.step}: {s.label}" for s in survey_mutants(derivation) if not s.caught] == []
    with pytest.raises(QuenchedError, match="lies in the future"):
        Map({x: A @ x, A: outer(x(t + 1), x) / N})


def test_bonds_that_read_the_past_against_networks() -> None:
    values = dict(g=1.0, eta=0.4)
    net = late_bonds()
    found = derive(net).solve(values, times=np.arange(0, 4.5, 0.5), sampling=March(paths=500, batches=4))
    how: Any = dict(dt=0.1, duration=0.1, store=False, workers=1, trajectories=1)
    run = simulate(net, 300, trials=16, seed=3, burn=4, **values, **how)
    for name in ("m", "v"):
        theirs = run[name].values
        spread = np.hypot(theirs.std() / np.sqrt(len(theirs)), found.quantity(name).error[-1])
        assert abs(found[name].values[-1] - theirs.mean()) < 4 * spread + 0.005, name
