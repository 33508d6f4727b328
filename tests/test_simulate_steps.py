"""Measured orders of the time steps, delays, tangents and exact limits."""

import numpy as np
import pytest
from sympy import cos, exp, sin, sqrt, symbols, tanh

from quenched.theory.couplings import Gaussian
from quenched.theory.distributions import Normal, Uniform
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Field, Quenched, WhiteNoise
from quenched.theory.model import Dynamics, Map
from quenched.theory.observables import Critical, Lyapunov, cov, mean
from quenched.theory.spaces import t, tau
from quenched.theory.transforms import copies, discretise
from quenched.validate.generate import generate
from quenched.validate.integrators import SCHEMES, Scratch
from quenched.validate.quantities import Numbers, time_scales
from quenched.validate.simulate import simulate, step_bias

x = Field("x")
HERE = dict(store=False, workers=1)


def orders(scheme, rhs, exact, steps, y0):
    """log2 of the error ratios when the number of steps doubles."""
    errors = []
    for n in steps:
        y, scratch = np.array(y0, float), Scratch(np.shape(y0))
        for k in range(n):
            y = SCHEMES[scheme].step(rhs, k / n, 1 / n, y, [], scratch)
        errors.append(np.abs(y - exact).max())
    return np.log2(np.array(errors[:-1]) / errors[1:])


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
def test_order_of_the_deterministic_part(scheme):
    def rhs(now, y, noise, stage, out):
        out[:] = -y + np.cos(3 * now) * y

    exact = 2.0 * np.exp(-1 + np.sin(3) / 3)
    measured = orders(scheme, rhs, exact, (40, 80, 160), [[2.0]])
    assert np.all(np.abs(measured - SCHEMES[scheme].order) < 0.15), measured


@pytest.mark.parametrize(("scheme", "order"), [("heun", 1.0), ("euler", 1.0)])
def test_strong_order_with_additive_noise(scheme, order):
    """dx = −sin(x) dt + dW on one Brownian path at several steps, against a much finer step."""

    def rhs(now, y, noise, stage, out):
        out[:] = -np.sin(y) + noise[0]

    fine = 2048
    dw = np.random.default_rng(1).normal(size=(fine, 1, 2000)) / np.sqrt(fine)

    def end(n, name):
        y, scratch = np.full((1, 2000), 1.0), Scratch((1, 2000))
        for k, step in enumerate(dw.reshape(n, fine // n, 1, 2000).sum(axis=1)):
            y = SCHEMES[name].step(rhs, k / n, 1 / n, y, [step * n], scratch)
        return y

    reference = end(fine, "heun")
    errors = [np.sqrt(np.mean((end(n, scheme) - reference) ** 2)) for n in (16, 32, 64)]
    measured = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(measured - order) < 0.2), measured


def test_multiplicative_noise_is_ito():
    """dx = −x dt + s x dW has ⟨x²⟩ = exp((s² − 2) t) in the sense of Itô, exp((2s² − 2) t) in Stratonovich's."""
    y = Field("y", initial=1)
    model = Dynamics({y: -y + y * WhiteNoise("xi") / 2})
    run = simulate(model, 20000, trials=2, dt=0.01, duration=0.01, burn=1, lags=[0], lyapunov=False, **HERE)
    assert run.settings["scheme"] == "euler"
    assert run["C_y0"].mean[0] == pytest.approx(np.exp(-1.75), rel=0.03)
    with pytest.raises(QuenchedError, match="multiplies the state"):
        simulate(model, 10, scheme="heun", **HERE)


def test_linear_network_has_its_exact_variance_and_exponent():
    """Linear units with noise: Δ0 = s2/√(1 − g²), exponent g − 1 (N → ∞)."""
    g, s2 = symbols("g s2", nonnegative=True)
    model = Dynamics({x: -x + Gaussian("J", variance=g**2) @ x + sqrt(2 * s2) * WhiteNoise("xi")})
    run = simulate(model, 300, trials=4, dt=0.05, duration=100, burn=20, g=0.5, s2=0.3, **HERE)
    expected = 0.3 / np.sqrt(1 - 0.25)
    assert abs(run["C_x0"].mean[0] / expected - 1) < 0.02
    assert abs(run["lyapunov"].mean[0] + 0.5) < 0.04


def test_uncoupled_noise_has_unit_intensity_convention():
    s2 = symbols("s2", positive=True)
    model = Dynamics({x: -x + sqrt(2 * s2) * WhiteNoise("xi")})
    model.observe(power=mean(x(t) * x(t - tau)), jump=mean((x(t + tau) - x(t)) ** 2))
    run = simulate(model, 400, trials=2, dt=0.02, duration=100, burn=10, lags=[0, 0.5, 1], s2=0.7, **HERE)
    exact = 0.7 * np.exp(-np.array([0, 0.5, 1]))
    np.testing.assert_allclose(run["C_x"].mean, exact, rtol=0.03)
    np.testing.assert_allclose(run["power"].mean, exact, rtol=0.03)
    np.testing.assert_allclose(run["jump"].mean, 2 * (0.7 - exact), rtol=0.03, atol=1e-12)
    assert run["lyapunov"].mean[0] == pytest.approx(-1, abs=2e-3)


def test_discretised_flow_is_simulated_as_that_map():
    """OU at dt: variance of the Euler map is s2/(1 − dt/2), not that of the flow."""
    dt = symbols("dt", positive=True)
    flow = Dynamics({x: -x + sqrt(2) * WhiteNoise("xi")})
    run = simulate(discretise(flow, dt), 500, trials=2, duration=200, burn=10, lags=[0, 1, 2], params={dt: 0.5}, **HERE)
    assert run["C_x0"].mean[0] == pytest.approx(1 / 0.75, rel=0.03)
    assert run["C_x"].mean[2] == pytest.approx(0.25 / 0.75, rel=0.06)
    assert run["lyapunov"].mean[0] == pytest.approx(np.log(0.5), abs=1e-6)  # per step


def test_discretised_flow_keeps_the_time_of_the_flow():
    """Steps count durations; times and delays in the equations stay those of the flow."""
    dt, d, om = symbols("dt d omega", positive=True)
    y = Field("y", initial=0)
    driven = discretise(Dynamics({y: -y + y(t - d) / 2 + cos(om * t)}), dt)
    driven.observe(wave=mean(y) * cos(om * t))
    past = [0.0]
    for n in range(9):  # t = n/2, y(t − d) two steps back
        past.append(past[n] + 0.5 * (-past[n] + past[max(n - 2, 0)] / 2 + np.cos(2 * 0.5 * n)))
    settings = dict(trials=1, duration=1, burn=9, lags=[0], params={dt: 0.5, d: 1, om: 2}, **HERE)
    run = simulate(driven, 3, **settings)
    assert run["mean_y"].values[0, 0] == pytest.approx(past[9])
    assert run["wave"].values[0, 0] == pytest.approx(past[9] * np.cos(2 * 0.5 * 9))


def test_delayed_field():
    """x' = −x(t − d): compared with the method of steps; its growth is the rightmost root of λ = −exp(−λ d)."""
    d = symbols("d", positive=True)
    y = Field("y", initial=1)
    model = Dynamics({y: -y(t - d)})
    model.observe(now=mean(y))
    settings = dict(dt=0.01, duration=0.01, burn=1.5, lags=[0], d=1)
    run = simulate(model, 2, trials=1, **settings, **HERE)
    exact = 1 - 1.5 + 0.5**2 / 2  # 1 − t on [0, 1], then its integral
    assert run["now"].values[0, 0] == pytest.approx(exact, abs=0.01)
    assert np.isfinite(run["lyapunov"].values).all()  # even over a single step
    grown = simulate(model, 2, trials=1, dt=0.01, duration=200, burn=50, lags=[0], d=1, **HERE)
    assert grown["lyapunov"].values[0, 0] == pytest.approx(-0.318131505, abs=0.02)  # finite time, oscillating
    with pytest.raises(QuenchedError, match="multiple of the step"):
        simulate(model, 2, dt=0.03, d=1, **HERE)


def test_two_copies_have_the_exponent_of_one():
    """Copies that share disorder and noise are two trajectories of one network."""
    J, xi = Gaussian("J", variance=9), WhiteNoise("xi")
    model = Map({x: 0.3 * x + 0.7 * (J @ tanh(x)) + 0.2 * xi})
    settings = dict(trials=1, duration=1500, burn=200, seed=5, **HERE)
    exponent = simulate(model, 150, **settings)["lyapunov"].values[0, 0]
    two = copies(model, 2, share=[J, xi])
    assert exponent == pytest.approx(simulate(two, 150, **settings)["lyapunov"].values[0, 0], abs=0.005)
    assert exponent > 0.08


def test_quenched_time_dependent_input():
    """x' = −x + a cos(ωt + θ): ⟨x²⟩ = a²/2/(1 + ω²); an observable nonlinear in means is combined at each time."""
    a, om = symbols("a omega", positive=True)
    theta = Quenched("theta", Uniform(0, 2 * np.pi))
    model = Dynamics({x: -x + a * cos(om * t + theta) + sin(om * t)})
    model.observe(spread=cov(x), wave=mean(x * cos(om * t)))
    run = simulate(model, 2000, trials=2, dt=0.05, duration=20 * np.pi, burn=20, lags=[0], a=2, omega=1, **HERE)
    assert run["spread"].mean[0] == pytest.approx(1.0, rel=0.02)
    assert run["C_x0"].mean[0] == pytest.approx(1.0 + 0.25, rel=0.03)
    assert run["wave"].mean[0] == pytest.approx(-0.25, abs=0.03)
    assert run["spread"].estimator.statistic == "function of means"


def test_declared_observables_share_moments_and_name_what_is_missing():
    g = symbols("g", positive=True)
    J = Gaussian("J", variance=g**2)
    model = Dynamics({x: -x + J @ tanh(x)})
    model.observe(c=mean(x(t) * x(t + tau)), field=mean((J @ tanh(x)) ** 2), mixed=mean(exp(x(t) * x(t + tau) / 9)))
    model.observe(twice=2 * Lyapunov(x) + mean(x) ** 2)
    run = simulate(model, 100, trials=2, duration=20, burn=20, g=2, **HERE)
    assert np.array_equal(run["c"].values, run["C_x"].values)
    assert np.allclose(run["twice"].values, 2 * run["lyapunov"].values + run["mean_x"].values ** 2)
    assert run["mixed"].values.shape == run["c"].values.shape
    assert run["field"].mean[0] == pytest.approx(4 * run["C_phi0"].mean[0], rel=0.25)
    assert "R_x" in run.unmeasured
    with pytest.raises(QuenchedError, match="not measured"):
        run["R_x"]
    with pytest.raises(QuenchedError, match="C_phi"):
        run["C_phy"]


def test_fresh_couplings_and_disorder_every_step():
    """Fresh Gaussian couplings: x(t+1) is independent of x(t), variance g²⟨x²⟩ + 1."""
    model = Map({x: Gaussian("J", variance=0.25, redraw="step") @ x + Quenched("b", Normal(0, 1), redraw="step")})
    run = simulate(model, 100, trials=2, duration=300, burn=20, lags=[0, 1], **HERE)
    assert run["C_x"].mean[0] == pytest.approx(1 / 0.75, rel=0.05)
    assert abs(run["C_x"].mean[1]) < 0.05
    with pytest.raises(QuenchedError, match="needs a Map"):
        simulate(Dynamics({x: -x + Gaussian("J", redraw="step") @ x}), 10, **HERE)


def test_halving_the_step_with_common_noise():
    """Heun's variance of an Ornstein–Uhlenbeck process is known in closed form."""
    model = Dynamics({x: -x + sqrt(2) * WhiteNoise("xi")})

    def heun_variance(h):
        return 2 * h * (1 - h / 2) ** 2 / (1 - (1 - h + h**2 / 2) ** 2)

    bias, coarse, fine = step_bias(model, 500, 0.4, trials=4, duration=200, burn=10, lags=[0], lyapunov=False, **HERE)
    expected = heun_variance(0.4) - heun_variance(0.2)
    got = bias["C_x0"]
    assert abs(got.difference[0] - expected) < 4 * got.error[0]
    assert got.error[0] < 0.2 * abs(expected)  # common noise: far below the scatter of either run
    assert (coarse.dt, fine.dt) == (0.4, 0.2)


def test_schemes_agree_on_a_fixed_point():
    J = Gaussian("J", variance=0.25)
    model = Dynamics({x: -x + J @ tanh(x) + Quenched("b", Normal(0, 1))})
    settings = dict(trials=1, dt=0.1, duration=1, burn=60, lags=[0], **HERE)
    values = [simulate(model, 50, scheme=s, **settings)["C_x0"].values for s in ("euler", "heun", "rk4")]
    np.testing.assert_allclose(np.ptp(values), 0, atol=1e-9)
    single = simulate(model, 50, dtype="float32", **settings)["C_x0"].values
    np.testing.assert_allclose(single, values[0], rtol=1e-5)
    many = simulate(model, 50, trajectories=5, **settings)["C_x0"].values
    np.testing.assert_allclose(many, values[0], rtol=1e-9)


def test_default_scheme_and_step():
    J, d = Gaussian("J"), symbols("d", positive=True)
    noiseless, noisy = Dynamics({x: -x + J @ tanh(x)}), Dynamics({x: -4 * x + WhiteNoise("xi")})
    delayed, ito = Dynamics({x: -x + x(t - d) / 2}), Dynamics({x: -x + x * WhiteNoise("xi")})
    how = dict(trials=1, duration=1, burn=1, **HERE)

    def chosen(model, **more):
        run = simulate(model, 5, **how, **more)
        return run.settings["scheme"], run.dt

    assert chosen(noiseless) == ("rk4", 0.25)
    assert chosen(noiseless, dt=0.2) == ("heun", 0.2)
    assert chosen(noisy) == ("heun", 0.025)
    assert chosen(ito) == ("euler", 0.02)
    assert chosen(delayed, d=0.35) == ("heun", pytest.approx(0.0875))
    assert chosen(noiseless, lags=[0, 1.7]) == ("rk4", pytest.approx(1.7 / 7))
    assert simulate(noiseless, 5, **how)["C_x"].estimator.bias.startswith("time step O(dt^4)")


def test_noise_of_zero_amplitude_is_left_out():
    g, s2 = symbols("g s2", nonnegative=True)
    J = Gaussian("J", variance=g**2)
    noisy = Dynamics({x: -x + J @ tanh(x) + sqrt(2 * s2) * WhiteNoise("xi")})
    noisy.observe(edge=Critical(s2, Lyapunov(x)))
    bare = Dynamics({x: -x + J @ tanh(x)})
    how = dict(trials=1, duration=5, burn=5, g=2, **HERE)
    quiet = simulate(noisy, 20, s2=0, **how)
    assert quiet.settings["scheme"] == "rk4"
    assert quiet.parameters == {"g": 2.0, "s2": 0.0}
    assert "edge" in quiet.unmeasured
    assert np.array_equal(quiet["C_x"].values, simulate(bare, 20, **how)["C_x"].values)
    assert simulate(noisy, 20, s2=1, **how).settings["scheme"] == "heun"


def test_published_numbers_of_a_chaotic_network():
    """x' = −x + J tanh(x), g = 3: exponent .212(4) at N = 500 (its limit is .235), variance 5.446 (N → ∞)."""
    model = Dynamics({x: -x + Gaussian("J", variance=9) @ tanh(x)})
    settings = dict(duration=80, burn=40, lags=[0, 2], dtype="float32", trajectories=4)
    run = simulate(model, 500, trials=6, **settings, **HERE)
    exponent, variance = run["lyapunov"], run["C_x0"]
    assert abs(exponent.mean[0] - 0.212) < 4 * exponent.error[0] + 0.004
    assert abs(variance.mean[0] - 5.446) < 5 * variance.error[0]
    assert exponent.error[0] < 0.015
    assert variance.error[0] < 0.3


def test_time_scales_of_slow_variables():
    a, p = Field("a"), symbols("p", positive=True)
    model = Dynamics({x: -x - a + Gaussian("J") @ tanh(x), a: (x - a) / p})
    _, tables, _ = generate(model)
    fast, slow = time_scales(model, tables, Numbers({p: 20.0}, 100))
    assert (fast, slow) == (1.0, pytest.approx(20))
    run = simulate(model, 10, trials=1, p=20, **HERE)
    assert (run.duration, run.burn) == (400, 100)
