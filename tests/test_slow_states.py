"""States that move slowly are not taken for states that stand still."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sympy import Rational

from quenched import catalogue, derive, discretise
from quenched.numerics import March, Sampling
from quenched.numerics.settling import chain_mean, remembering, slowest, stands_still, unfinished
from quenched.numerics.trajectories import FORGOTTEN, ProcessSampler, forgetting_time
from quenched.theory.errors import QuenchedError

THEORY = derive(catalogue["neuronal-synaptic"]())
WINDOW = Sampling(dt=0.25, steps=1024, paths=80, reach=16, settle=40, average=3)


@pytest.mark.parametrize(("time", "left"), [(0.01, 0.0), (1 / 16, 0.018), (1 / 4, 0.269)])
def test_what_is_left_at_a_quarter_of_the_window(time: float, left: float) -> None:
    """e^{−τ/T} on a constant part, in a window of length 1: (e^{−1/4T} − e^{−1/2T})/(1 − e^{−1/2T})."""
    process = THEORY.derivation.process
    assert process is not None
    sampler = ProcessSampler(process, THEORY.values({}, g=1, k=1, p=0.01), replace(WINDOW, dt=1 / 1024, reach=0.1))
    now = sampler.guess(1.0, 1.0)
    lags = np.minimum(np.arange(1024), 1024 - np.arange(1024)) / 1024
    curve = 2 + np.exp(-lags / time)
    now.covariance["phi", "phi"] = curve
    assert unfinished(sampler, now) == pytest.approx(left, abs=0.004)
    assert slowest(sampler, now) == pytest.approx(time * np.log(2), rel=0.25)
    assert not stands_still(sampler, now)
    now.covariance["phi", "phi"] = np.full(1024, 2.0)
    assert stands_still(sampler, now)
    assert unfinished(sampler, now) == slowest(sampler, now) == 0


def test_a_window_that_correlations_outlast_is_in_doubt() -> None:
    short = THEORY.solve(g=1.05, k=1.75, p=2.5, sampling=WINDOW).main
    assert "still fall at the end of a window of 256" in short.doubt
    fast = THEORY.solve(g=2.5, k=-1, p=2.5, sampling=replace(WINDOW, steps=512)).main
    assert not fast.doubt
    assert not fast.undetermined


@pytest.mark.slow
def test_chaos_beside_fixed_points_is_found() -> None:
    """Where units have a choice, sweeps in a short window end at rest; networks, and paths marched in time, do not."""
    values = dict(g=1.05, k=1.75, p=2.5)
    stuck = THEORY.solve(values, sampling=Sampling(steps=512, average=3))
    found = THEORY.solve(values)
    course = THEORY.solve(values, times=np.arange(0, 241, 10.0), sampling=March(dt=0.25, paths=1500, batches=2))
    marched = float(course["C_phi0"].values[12:].mean())
    assert not found.main.doubt
    assert float(found["C_phi0"]) == pytest.approx(marched, abs=0.03)
    assert float(stuck["C_phi0"]) > marched + 0.07
    assert "remember where they started" in stuck.main.undetermined


@pytest.mark.parametrize(("rho", "within"), [(0.0, 0.98), (0.8, 0.9)])
def test_errors_of_correlated_iterates(rho: float, within: float) -> None:
    """Twenty iterates of an autoregressive chain: the mean scatters as its stated error says."""
    rng = np.random.default_rng(0)
    chain = [rng.standard_normal(2000)]
    for _ in range(19):
        chain.append(rho * chain[-1] + np.sqrt(1 - rho**2) * rng.standard_normal(2000))
    mean, error = chain_mean(np.array(chain))
    assert np.sqrt(np.mean(error**2)) == pytest.approx(mean.std(), rel=0.25)
    assert np.mean(np.abs(mean) < 3 * error) > within


def test_memory_is_as_long_as_that_of_the_couplings() -> None:
    """Synapses that are slower than the default reach of the memory need no settings."""
    process = THEORY.derivation.process
    assert process is not None
    values = THEORY.values({}, g=1, k=1, p=10)
    time = forgetting_time(process, values)
    assert np.exp(-time / 10) == pytest.approx(FORGOTTEN)
    with pytest.raises(QuenchedError, match="remember more than 20"):
        ProcessSampler(process, values, Sampling())
    longer = remembering(Sampling(), time, "flow")
    sampler = ProcessSampler(process, values, longer)
    assert sampler.reach * sampler.dt > time
    assert longer.steps * longer.dt > 4 * time
    assert remembering(Sampling(), 10.0, "flow") == Sampling()
    quick = derive(discretise(catalogue["neuronal-synaptic"](), Rational(1, 2)))
    steps = quick.derivation.process
    assert steps is not None
    count = forgetting_time(steps, quick.values({}, g=1, k=1, p=10))
    assert 0.95**count / 0.05 == pytest.approx(FORGOTTEN * 0.95, rel=0.06)
