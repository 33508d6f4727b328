"""Balanced networks that are in no catalogue, with periodic inputs: theory and simulation of the same Euler map."""

from typing import Any

import numpy as np
import pytest
from sympy import Max, Min, pi, sign, sin, sqrt

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Lyapunov,
    N,
    Normal,
    Quenched,
    WhiteNoise,
    cov,
    derive,
    discretise,
    mean,
    simulate,
    t,
)
from quenched.validate.witness import verify

h = Field("h")
J = Gaussian("J", variance=4, mean=-sqrt(N))
STEP = 0.1


def observed(net: Dynamics, rate: Any) -> Dynamics:
    return net.observe(nu=mean(rate), nu_squared=mean(rate) ** 2, m=mean(h), v=cov(h), lyapunov=Lyapunov(h))


def adapting() -> Dynamics:
    """Slow adaptation of every unit; two frequencies."""
    a, rate = Field("a"), Max(h, 0)
    drive = 6 * sin(0.4 * pi * t) + 4 * sin(1.2 * pi * t)
    return observed(Dynamics({h: -h + J @ rate - a + sqrt(N) + drive, a: (h / 2 - a) / 5}), rate)


def saturating() -> Dynamics:
    """Units with a threshold and a largest rate; a square wave."""
    rate = Min(Max(h - 0.5, 0), 3)
    return observed(Dynamics({h: -h + J @ rate + sqrt(N) + 5 * sign(sin(0.4 * pi * t))}), rate)


def gains() -> Dynamics:
    """A gain of the input of every unit, of either sign."""
    rate, gain = Max(h, 0), Quenched("b", Normal(0.5, 1))
    return observed(Dynamics({h: -h + J @ rate + sqrt(N) + 4 * gain * sin(0.4 * pi * t)}), rate)


SLOW = [pytest.param(build, marks=pytest.mark.slow) for build in (saturating, gains)]


@pytest.mark.parametrize("build", [adapting, *SLOW])
def test_theory_keeps_the_size_of_the_network(build: Any) -> None:
    net, size = discretise(build(), STEP), 300
    theory = derive(net)
    assert all(tick.passed for tick in verify(theory.derivation, simulate=False))
    state = theory.solve(N=size, lags=[0], nodes=6, tol=1e-2)
    how = {"burn": 400, "duration": 300, "workers": 1, "store": False, "dtype": "float32"}
    run = simulate(net, size, trials=10, seed=2, **how)
    for name in ("nu", "nu_squared", "m", "v"):
        value, sample = float(state[name]), run[name]
        assert abs(sample.mean[0] - value) < 4 * sample.error[0] + 0.01 * abs(value), (name, sample.mean, value)
    # exponents of networks this small lie below their limit, by up to 0.1 a unit of time
    rate = run["lyapunov"]
    assert abs(rate.mean[0] - float(state["lyapunov"])) < 0.1 * STEP + 4 * rate.error[0]
    assert np.isfinite(rate.error[0])


def test_inhibition_that_grows_with_the_variance_holds_it() -> None:
    """Without their mean the couplings would return twice the variance they get; two routes find the same state."""
    rate = Max(h, 0)
    net = observed(Dynamics({h: -h + J @ rate + sqrt(N) + 2 * WhiteNoise("xi")}), rate)
    theory = derive(net)
    still, moving = theory.solve(N=300), theory.solve(N=300, times=np.linspace(0, 30, 121))
    for name in ("nu", "m", "v"):
        assert float(still[name]) == pytest.approx(float(moving[name][-1]), rel=1e-3)
