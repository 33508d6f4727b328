"""Sampled processes: exact limits, agreement with the Gaussian closure, and the published case of partial symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import exp, sign, sqrt, symbols, tanh

from quenched import derive, mean
from quenched.numerics.process_state import ProcessState, Sampling
from quenched.numerics.settling import solve_process
from quenched.numerics.starts import start_dependence
from quenched.theory.couplings import Gaussian
from quenched.theory.derivation import start
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Field, WhiteNoise
from quenched.theory.model import Dynamics, Map
from quenched.theory.problem import SiteProcess
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.sampled import sampled_process

g, s2, eta, a = symbols("g s2 eta a", nonnegative=True)
x = Field("x")
SHORT = Sampling(dt=0.2, steps=256, paths=400, reach=10.0, settle=20, average=10)


def process(model: Dynamics | Map) -> SiteProcess:
    d = start(model).average().order_parameters().saddle().largest_time().read_off()
    found = d.find(EffectiveProcess)
    assert found is not None
    return sampled_process(found)


def solved(model: Dynamics | Map, how: Sampling = SHORT, **values: float) -> ProcessState:
    by_name = {s.name: s for s in model.parameters}
    return solve_process(process(model), {by_name[k]: v for k, v in values.items()}, sampling=how)


def deviation(state: ProcessState, name: str, exact: float, bias: float) -> float:
    """Distance of ⟨name²⟩ from its exact value in units of the sampling error and a stated bias of the time step."""
    value, error = (float(v[0]) for v in state.correlation[name, name])
    return abs(value - exact) / np.hypot(error, bias * exact)


def linear(symmetry: object) -> Dynamics:
    return Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=symmetry) @ x + sqrt(2 * s2) * WhiteNoise("xi")})


def test_linear_network_without_symmetry() -> None:
    """⟨x²⟩ = s2/√(1 − g²)."""
    state = solved(linear(0), g=0.6, s2=1.0)
    assert deviation(state, "x", 1 / 0.8, 0.01) < 4


def test_linear_network_with_symmetric_couplings() -> None:
    """η = 1: x' = (J − 1)x + noise is at equilibrium, C = s2⟨1/(1 − μ)⟩ over the semicircle = 2s2/(1 + √(1 − 4g²))."""
    state = solved(linear(eta), g=0.35, s2=1.0, eta=1.0)
    exact = 2 / (1 + np.sqrt(1 - 4 * 0.35**2))
    assert deviation(state, "x", exact, 0.01) < 4


def test_response_of_a_linear_unit_decays_exponentially() -> None:
    state = solved(linear(eta), g=0.2, s2=1.0, eta=0.0)
    value, _ = state.response["phi", "h"]
    lags = np.arange(len(value)) * SHORT.dt
    assert np.allclose(value, np.exp(-lags), atol=0.02)


def test_responses_are_of_second_order_in_the_step() -> None:
    """η < 0: the response of a linear network solves (iω + 1 − ηg² S) S = 1, whatever the noise."""
    omega = np.linspace(-400, 400, 400001)
    w = -1.8  # ηg²
    exact_spectrum = (1 + 1j * omega - np.sqrt((1 + 1j * omega) ** 2 - 4 * w)) / (2 * w)
    apart = []
    for dt, steps in ((0.2, 256), (0.1, 512)):
        state = solved(linear(eta), Sampling(dt, steps, 20, 10.0, settle=40, average=3), g=1.5, s2=1e-4, eta=-0.8)
        value = state.response["phi", "h"][0]
        lags = np.array([1.0, 2.0])
        exact = [(exact_spectrum * np.exp(1j * omega * u)).real.mean() * 800 / (2 * np.pi) for u in lags]
        apart.append(np.abs(value[np.round(lags / dt).astype(int)] - exact).max())
    assert apart[0] < 0.01
    assert apart[1] < apart[0] / 3


def test_a_noisy_state_far_below_its_first_sweeps_is_not_silence() -> None:
    """Sweeps without memory yet start ten thousand times too large."""
    net = Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ (100 * tanh(x / 100)) + WhiteNoise("xi")})
    state = solved(net, Sampling(0.2, 256, 100, 10.0, settle=60, average=10), g=1.5, eta=-0.8)
    assert float(state.correlation["x", "x"][0][0]) < 1


def memory_map() -> Map:
    return Map({x: Gaussian("J", variance=g**2, symmetry=eta) @ x + sqrt(s2) * WhiteNoise("xi")})


def test_map_with_memory_against_linear_algebra() -> None:
    """x(n+1) = Jx/… with symmetric J: C = s2⟨1/(1 − μ²)⟩ over the semicircle of radius 2g."""
    state = solved(
        memory_map(), Sampling(steps=256, paths=1000, reach=30, settle=20, average=10), g=0.35, s2=1.0, eta=1.0
    )
    mu = np.linspace(-0.7, 0.7, 20001)
    weight = np.sqrt(np.maximum(0.49 - mu**2, 0))
    exact = float((weight / (1 - mu**2)).sum() / weight.sum())
    assert deviation(state, "x", exact, 0.003) < 4


def test_responses_of_what_jumps() -> None:
    """⟨δ sign x(τ)/δh(0)⟩ = 2p(0) e^{−τ} of a Gaussian unit."""
    state = solved(
        Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ sign(x) + WhiteNoise("xi")}), g=0.7, eta=0
    )
    variance = float(state.correlation["x", "x"][0][0])
    value, _ = state.response["phi", "h"]
    expected = np.sqrt(2 / np.pi / variance) * np.exp(-np.arange(len(value)) * SHORT.dt)
    assert np.abs(value - expected)[1:].max() < 0.1 * expected[0]
    assert value[1:4].mean() == pytest.approx(expected[1:4].mean(), rel=0.05)


def test_a_state_with_alternating_signs_is_told() -> None:
    """x(n+1) = tanh(Jx) is as well in the state (−1)^n x(n), of −J: how far in either is decided by the start."""
    unsure, sure = (
        start_dependence(p, values, solve_process(p, values, sampling=SHORT))
        for p, values in (
            (process(Map({x: tanh(Gaussian("J", variance=g**2, symmetry=eta) @ x)})), {g: 1.0, eta: 0.8}),
            (process(memory_map()), {g: 0.35, s2: 1.0, eta: 1.0}),
        )
    )
    assert "alternate" in unsure
    assert "alternate" not in sure


def test_gate_runs_and_depends_on_its_gate() -> None:
    """x' = −x + h₁σ(h₂) with independent fields: units are not Gaussian, and a closed gate silences them."""
    j, k = Gaussian("J", variance=g**2), Gaussian("K", variance=1)
    model = Dynamics({x: -x + (j @ tanh(x)) / (1 + exp(-(k @ x) + a)) + sqrt(2 * s2) * WhiteNoise("xi")})
    open_, shut = solved(model, g=2.0, s2=0.2, a=-30.0), solved(model, g=2.0, s2=0.2, a=30.0)
    assert deviation(shut, "x", 0.2, 0.02) < 4
    assert open_.correlation["x", "x"][0][0] > 5 * shut.correlation["x", "x"][0][0]


def test_divergence_is_said() -> None:
    with pytest.raises(QuenchedError, match="diverge"):
        solved(linear(eta), g=3.0, s2=1.0, eta=0.5)


def test_missing_parameter_is_named() -> None:
    with pytest.raises(QuenchedError, match="s2"):
        solve_process(process(linear(0)), {g: 0.5})


def test_ratios_are_better_known_than_their_parts() -> None:
    """Fourth moment and variance err together from sweep to sweep; so does what is made of them."""
    net = Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)}, defaults={g: 2, eta: 0.3})
    net.observe(two=mean(x**2), four=mean(x**4), kurtosis=mean(x**4) / mean(x**2) ** 2)
    state = derive(net).solve(sampling=SHORT, tol=0.02)
    relative = {name: state.error(name) / float(state[name]) for name in net.observables}
    assert relative["kurtosis"] < 0.8 * (relative["four"] + 2 * relative["two"])
    assert relative["two"] < 0.02
