"""Two-time theories: marched means and covariances against loops, exact results and published numbers."""

from typing import Any

import numpy as np
import pytest
from sympy import Heaviside, Max, Symbol, cos, erf, exp, pi, sign, sin, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Map,
    Normal,
    Quenched,
    QuenchedError,
    Uniform,
    WhiteNoise,
    catalogue,
    derive,
    discretise,
    mean,
    simulate,
    t,
    validate,
)
from quenched.numerics import average2
from quenched.numerics.pair_averages import both_positive, kink_pair
from quenched.numerics.twotime import Marcher, Schedule
from quenched.numerics.twotime_solve import period_of
from quenched.theory.causal import TwoTimeEquations
from quenched.theory.errors import ConvergenceError
from quenched.theory.problem import SiteFunction, U
from quenched.validate.witness import survey_mutants, verify

g, I, omega = symbols("g I omega", positive=True)
x = Field("x")
J = Gaussian("J", variance=g**2)


# --- averages --------------------------------------------------------------------------------------------------------
def test_orthant_probability() -> None:
    from scipy.stats import multivariate_normal

    for a, b, rho in ((0.3, -0.7, 0.5), (1.2, 1.201, 0.9999), (-0.4, 0.9, -0.97), (0.0, 0.0, 0.95), (2.0, -1.0, 1.0)):
        cov_ = [[1, rho], [rho, 1]]
        exact = multivariate_normal.cdf([a, b], mean=[0, 0], cov=cov_, allow_singular=True, abseps=1e-13)
        assert both_positive(a, b, rho) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("rho", [-0.99, 0.6])
def test_kinks_against_quadrature(rho: float) -> None:
    f, h = SiteFunction("f", Max(U, 0)), SiteFunction("h", Max(U, 0) + 2 * Heaviside(U))
    value, slope = kink_pair(0.3 / 1.2, -0.4 / 0.7, 1.2, 0.7, rho, 1.0, 0.0, 1.0, 2.0)
    c = rho * 1.2 * 0.7
    exact, _ = average2(f, h, 0.3, -0.4, 1.2**2, 0.7**2, np.array([c]), {})
    assert value == pytest.approx(float(exact[0]), abs=1e-9)
    assert slope == pytest.approx(both_positive(0.25, -0.4 / 0.7, rho), abs=1e-12)


@pytest.mark.parametrize("rho", [-0.5, 0.4, 0.99, 1.0])
def test_kinks_many_deviations_away(rho: float) -> None:
    """Far above their kinks both functions are linear, far below one of them it vanishes."""
    from scipy.stats import norm

    s, q, high, low = 1e-9, 2e-9, 0.3, 0.7
    value, slope = kink_pair(high / s, low / q, s, q, rho, 1.0, 0.0, 1.0, 0.0)
    assert value == pytest.approx(high * low, rel=1e-12)
    assert slope == pytest.approx(1.0)
    assert kink_pair(high / s, -low / q, s, q, rho, 1.0, 0.0, 1.0, 0.0) == pytest.approx((0.0, 0.0), abs=1e-30)
    mixed, _ = kink_pair(high / s, -0.4, s, q, rho, 1.0, 0.0, 1.0, 0.0)
    positive = q * (norm.pdf(0.4) - 0.4 * norm.cdf(-0.4))
    assert mixed == pytest.approx(high * positive + rho * s * q * norm.cdf(-0.4), rel=1e-8)


# --- the march -------------------------------------------------------------------------------------------------------
def loop(gain: float, steps: int, dt: float, drive: list[float], start: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """The Euler map of x' = −x + J tanh x + I(t) by plain loops and quadrature."""
    f = SiteFunction("f", tanh(U))
    C, R = np.zeros((steps + 1, steps + 1)), np.zeros((steps + 1, steps + 2))
    m = np.zeros(steps + 1)
    C[0, 0] = start
    for n in range(steps):
        m[n + 1] = (1 - dt) * m[n] + dt * drive[n]
        for s in range(n + 1):
            k, _ = average2(f, f, m[n], m[s], C[n, n], C[s, s], np.array([C[n, s]]), {})
            R[n, s + 1] = (1 - dt) * R[n, s] + dt * gain**2 * float(k[0])
            C[n + 1, s] = C[s, n + 1] = (1 - dt) * C[n, s] + dt * R[n, s]
        here, _ = average2(f, f, m[n], m[n], C[n, n], C[n, n], np.array([C[n, n]]), {})
        C[n + 1, n + 1] = (1 - dt) ** 2 * C[n, n] + 2 * dt * (1 - dt) * R[n, n] + dt**2 * gain**2 * float(here[0])
    return m, C


def test_euler_map_against_loops() -> None:
    net = Dynamics({x: -x + J @ tanh(x) + I * exp(-t)})
    net.observe(v=mean(x**2))
    steps, dt = 12, 0.25
    m, C = loop(1.7, steps, dt, [0.8 * np.exp(-k * dt) for k in range(steps)])
    solution = derive(net).solve(g=1.7, I=0.8, times=dt * np.arange(steps + 1), dt=dt, scheme="euler")
    assert np.allclose(solution.means["x"], m, atol=1e-12)
    assert np.allclose(solution.two_time("x"), C, atol=1e-7)
    assert np.allclose(solution["v"], m**2 + np.diag(C), atol=1e-7)
    step = discretise(net, Symbol("dt", positive=True))
    map_ = derive(step).solve({"g": 1.7, "I": 0.8, "dt": dt}, times=np.arange(steps + 1.0))
    assert np.allclose(map_.two_time("x"), C, atol=1e-7)


def test_order_of_the_flow() -> None:
    """Second order in the step; exact values of a noisy linear unit with a pulse."""
    s2 = Symbol("s2", positive=True)
    net = Dynamics({x: -x + J @ tanh(x) + sqrt(2 * s2) * WhiteNoise("xi") + I * sin(t)})
    problem = derive(net).derivation.march
    assert problem is not None
    values = {s: {"g": 1.5, "s2": 0.3, "I": 0.7}[s.name] for s in problem.parameters}
    ends = []
    for dt in (0.2, 0.1, 0.05, 0.0125):
        state = Marcher(problem, values, Schedule(dt, round(3 / dt))).run()
        ends.append(
            np.array([state.mean[0, -1, 0], state.covariance[-1, 0, 0, 0, 0], state.covariance[-1, 0, -1, 0, 0]])
        )
    errors = [np.abs(e - ends[-1]) for e in ends[:3]]
    orders = np.log2(errors[0] / errors[1])
    assert np.all((orders > 1.7) & (orders < 2.4)), orders


def test_noise_and_initial_values_of_a_linear_unit() -> None:
    s2 = Symbol("s2", positive=True)
    y = Field("y", initial=Normal(2, 0.5))
    net = Dynamics({y: -y + J @ (y * 0 + tanh(y)) + sqrt(2 * s2) * WhiteNoise("xi")})
    times = np.linspace(0, 2, 21)
    solution = derive(net).solve(g=1e-6, s2=0.3, times=times)
    decay = np.exp(-times)
    assert np.allclose(solution.means["y"], 2 * decay, atol=1e-5)
    assert np.allclose(np.diag(solution.two_time("y")), 0.5 * decay**2 + 0.3 * (1 - decay**2), atol=1e-3)


def test_two_fields_and_a_label() -> None:
    """A second-order unit with a quenched gain and a step input: variance of the labels and of the field."""
    a, v = Field("a", initial=Normal(0, 0)), Field("v", initial=Normal(0, 0))
    gain = Quenched("k", Uniform(0.5, 1.5))
    net = Dynamics({a: v, v: -2 * v - a + 0.5 * J @ erf(gain * a) + I * gain * Heaviside(t - 1)})
    theory = derive(net)
    assert all(tick.passed for tick in verify(theory.derivation, simulate=False))
    solution = theory.solve(g=0.01, I=1, times=np.linspace(0, 10, 51), scheme="euler", dt=0.1)
    # without couplings the unit ends at a = I·k, with the variance of k over units
    assert float(solution.means["a"][-1]) == pytest.approx(1.0, abs=2e-3)
    assert float(solution.two_time("a")[-1, -1]) == pytest.approx(1 / 12, abs=1e-3)


def test_initial_values_that_are_not_gaussian() -> None:
    a = Field("a", initial=Uniform(-1, 1))
    solution = derive(Dynamics({a: -a + J @ tanh(a)})).solve(g=0.01, times=np.linspace(0, 1, 6), scheme="euler", dt=0.2)
    assert np.allclose(np.diag(solution.two_time("a")), 0.8 ** (2 * np.arange(6)) / 3, atol=1e-4)


def test_map_with_a_transient_keeps_its_parity() -> None:
    """x(n+1) = J φ(x(n)): the variance follows the one-dimensional recursion exactly."""
    net = Map({x: J @ erf(sqrt(pi) * x / 2)})
    solution = derive(net).solve(g=1.5, times=np.arange(9.0))
    expected = [1.0]
    for _ in range(8):
        q = expected[-1]
        expected.append(1.5**2 * 2 / np.pi * np.arcsin(np.pi * q / 2 / (1 + np.pi * q / 2)))
    assert np.allclose(np.diag(solution.two_time("x")), expected, atol=1e-6)
    assert np.allclose(solution.two_time("x").values[~np.eye(9, dtype=bool)], 0, atol=1e-12)


# --- derivation ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["common", "independent", "both"])
def test_every_step_is_checked_and_every_mutant_caught(kind: str) -> None:
    derivation = derive(catalogue["balanced-chaos-suppression"](input=kind)).derivation
    ticks = verify(derivation, simulate=False)
    assert all(tick.passed for tick in ticks), [tick.detail for tick in ticks if not tick.passed]
    survivors = [m for m in survey_mutants(derivation) if not m.caught]
    assert not survivors


def test_balance_is_derived() -> None:
    """Two populations: the order-√N equations are linear in both rates; their solution follows the couplings."""
    from quenched import N, Population

    E, B = Population("E", fraction=0.8), Population("I", fraction=0.2)
    e, i = Field("e", population=E), Field("i", population=B)
    w = {"EE": 1.0, "EI": -2.5, "IE": 1.0, "II": -2.0}
    spaces = {"E": E, "I": B}
    M = {k: Gaussian(f"J{k}", variance=g**2, mean=v * sqrt(N), over=(spaces[k[0]], spaces[k[1]])) for k, v in w.items()}
    net = Dynamics(
        {
            e: -e + M["EE"] @ Max(e, 0) + M["EI"] @ Max(i, 0) + sqrt(N) * 1.2 + I * sin(omega * t),
            i: -i + M["IE"] @ Max(e, 0) + M["II"] @ Max(i, 0) + sqrt(N) * 0.9 + I * sin(omega * t),
        }
    )
    net.observe(rate_e=mean(Max(e, 0)), rate_i=mean(Max(i, 0)))
    theory = derive(net)
    assert all(tick.passed for tick in verify(theory.derivation, simulate=False))
    solution = theory.solve(g=0.5, I=0.5, omega=1, dt=0.2, scheme="euler")
    fractions = np.array([0.8, 0.2])
    matrix = np.array([[w["EE"], w["EI"]], [w["IE"], w["II"]]]) * fractions
    rates = np.linalg.solve(matrix, [-1.2, -0.9])
    assert np.all(rates > 0)
    assert float(solution["rate_e"]) == pytest.approx(rates[0], abs=1e-7)
    assert float(solution["rate_i"]) == pytest.approx(rates[1], abs=1e-7)


def test_balance_refuses_what_grows_faster() -> None:
    from quenched import N

    strong = Gaussian("J", variance=g**2, mean=-N)
    net = Dynamics({x: -x + strong @ Max(x, 0) + N + I * sin(t)})
    with pytest.raises(QuenchedError, match="grows as N"):
        derive(net)


@pytest.mark.parametrize(
    ("drive", "expected"),
    [
        (cos(2 * t), np.pi),
        (cos(2 * t) + sin(3 * t), 2 * np.pi),
        (sign(sin(pi * t)), 2.0),
        (exp(cos(t / 2)), 4 * np.pi),
        (Heaviside(t - 3), np.inf),
        (t * sin(t), np.inf),
    ],
)
def test_period(drive: object, expected: float) -> None:
    problem = derive(Dynamics({x: -x + J @ tanh(x) + I * drive})).derivation.march
    assert problem is not None
    values = {s: 1.0 for s in problem.parameters}
    assert period_of(problem, values) == pytest.approx(expected)


def test_inputs_that_do_not_repeat_need_times() -> None:
    theory = derive(Dynamics({x: -x + J @ tanh(x) + I * Heaviside(t - 3)}))
    with pytest.raises(QuenchedError, match="times="):
        theory.solve(g=1, I=1)


def test_an_euler_step_too_long_for_the_mean_is_refused() -> None:
    theory = derive(catalogue["balanced-chaos-suppression"]())
    with pytest.raises(QuenchedError, match="too long for the mean"):
        theory.solve(N=1000, g=2, I_1=1, dt=0.2, scheme="euler")


def test_marching_needs_what_it_says() -> None:
    theory = derive(Dynamics({x: -(x**3) + J @ tanh(x) + I * sin(t)}))
    assert any("not affine" in reason for _, reason in theory.derivation.refusals)
    assert theory.derivation.find(TwoTimeEquations) is None
    with pytest.raises(QuenchedError, match="give times="):
        theory.solve(g=1, I=1)
    assert theory.solve(g=1, I=1, times=[0, 1]).quantity("C_x0").error[1] < 0.1  # its paths are sampled


def test_a_quench_is_judged_in_its_window() -> None:
    """Gaussian units whose couplings are doubled at t = 1: the theory averages over the window of the runs."""
    u = Field("x", initial=Uniform(0, 2))
    net = Dynamics({u: -u + (1 + Heaviside(t - 1)) * (J @ tanh(u)) + WhiteNoise("xi") / 2}).observe(v=mean(u**2))
    how: Any = dict(burn=1.5, duration=1.0)
    found = derive(net).solve(g=0.7, times=np.arange(0, 2.75, 0.25), window=(1.5, 2.5))
    course = derive(net).solve(g=0.7, times=np.arange(0, 2.75, 0.25))["v"].values
    assert float(found["v"]) == pytest.approx(course[6:].mean(), rel=1e-9)
    with pytest.raises(QuenchedError, match="no time between"):
        derive(net).solve(g=0.7, times=[0, 1], window=(2, 3))
    runs = [simulate(net, N, trials=16, seed=1, g=0.7, dt=0.1, store=False, workers=1, **how) for N in (100, 200, 400)]
    assert validate(net, g=0.7, data=runs, quick=True, ci=True, **how).verdict != "disagree"
    assert validate(net, g=1.4, data=runs, quick=True, **how).verdict == "disagree"


# --- numbers ---------------------------------------------------------------------------------------------------------
#: input, g, I_1, N, dt: λ, m, var h, ν, s.d. of ν(t), and the relative precision at which they are known.
BALANCED = [
    ("common", 3, 20, 500, 0.05, 0.1736, -8.14, 110.6, 1.363, 0.673, 2e-3),
    ("common", 2, 40, 1000, 0.1, -0.167, -2.33, 15.6, 1.072, 1.07, 4e-3),
    ("independent", 3, 10, 400, 0.1, 0.107, -8.52, 124.0, 1.422, 0.0, 4e-3),
    ("independent", 3, 40, 400, 0.1, -0.123, -20.89, 498.0, 2.038, 0.0, 5e-3),
]


@pytest.mark.parametrize(("kind", "gain", "I1", "size", "dt", "lam", "m", "var", "nu", "sd", "precision"), BALANCED)
def test_balanced_reference_values(
    kind: str, gain: float, I1: float, size: int, dt: float, lam: float, m: float, var: float, nu: float, sd: float,
    precision: float,
) -> None:  # fmt: skip
    theory = derive(catalogue["balanced-chaos-suppression"](input=kind))
    s = theory.solve(N=size, g=gain, I_1=I1, f=0.2, dt=dt, scheme="euler", lags=[0.0, 1.0])
    assert float(s["lyapunov"]) == pytest.approx(lam, abs=6e-3)
    assert float(s["m"]) == pytest.approx(m, rel=precision)
    assert float(s["variance"]) == pytest.approx(var, rel=precision)
    assert float(s["nu"]) == pytest.approx(nu, rel=precision)
    spread = np.sqrt(max(float(s["nu_squared"]) - float(s["nu"]) ** 2, 0.0))
    assert spread == pytest.approx(sd, abs=3e-3)


#: Input, N, Euler step, bounds on the amplitude at which λ = 0 (it falls by 4 % from a step of .05 to one of .1).
CRITICAL = [("common", 500, 0.1, 38.5, 39.8), ("common", 500, 0.05, 39.8, 41.5), ("independent", 400, 0.1, 17.6, 18.3)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size", "dt", "low", "high"), CRITICAL)
def test_amplitude_that_suppresses_chaos(kind: str, size: int, dt: float, low: float, high: float) -> None:
    theory = derive(catalogue["balanced-chaos-suppression"](input=kind))
    s = theory.solve(N=size, g=3, I_1=30 if kind == "common" else 10, dt=dt, scheme="euler", lags=[0.0, 1.0], nodes=12)
    assert low < float(s["I_critical"]) < high


def test_averages_run_over_whole_periods_of_any_step() -> None:
    theory = derive(catalogue["balanced-chaos-suppression"]())
    values = {"N": 500, "g": 3, "I_1": 20, "f": 0.8, "lags": [0.0], "scheme": "euler", "tol": 1e-3}
    coarse, fine = (float(theory.solve(dt=dt, **values)["nu"]) for dt in (0.1, 0.0625))
    assert coarse == pytest.approx(fine, rel=2e-3)  # 12.5 and 20 steps a period
    with pytest.raises(ConvergenceError, match=r"dt = 0\.065"):
        theory.solve(dt=0.07, **{**values, "f": 1.9, "tol": 1e-5})


def test_motion_that_lasts_is_kept_at_any_step() -> None:
    """What repeats with the input does not decay with the lag: kept lags hold whole periods, of 31.4 or 32 steps."""
    theory = derive(catalogue["scs"](drive=True))
    how: Any = {"g": 2, "I": 1, "omega": 1, "nodes": 8, "lags": [0], "scheme": "euler"}
    odd, even = (theory.solve(dt=dt, **how) for dt in (0.2, 2 * np.pi / 32))
    assert float(odd["C_x0"]) == pytest.approx(float(even["C_x0"]), rel=1e-3)
    assert float(odd["lyapunov"]) == pytest.approx(float(even["lyapunov"]), rel=1e-2)


def test_a_map_moves_continuously_with_the_period_of_its_input() -> None:
    """Periods of 2π, 25/4 and 19/3 steps repeat after 44 steps, nearly, 25 and 19."""
    S, phase = Gaussian("J", variance=4), Quenched("theta", Uniform(0, 2 * pi))
    driven = derive(Map({x: x / 2 + S @ tanh(x) / 2 + cos(omega * t + phase) / 2}).observe(C=mean(x**2)))
    found = [float(driven.solve(omega=2 * np.pi / p, nodes=8, lags=[0])["C"]) for p in (25 / 4, 2 * np.pi, 19 / 3)]
    assert found == pytest.approx([found[1]] * 3, rel=2e-3)


def test_infinite_size_balances_exactly() -> None:
    theory = derive(catalogue["balanced-chaos-suppression"]())
    s = theory.solve(g=3, I_1=20, I_0=1.3, J_0=0.8, dt=0.2, lags=[0.0, 1.0])
    assert float(s["nu"]) == pytest.approx(1.3 / 0.8, rel=1e-8)


#: g, I, ω: total variance and ⟨φ²⟩ of a network driven with random phases.
DRIVEN = [(1.8, 1.5, 2, 1.35910, 0.45179), (2, 0.5, 1, 1.89923, 0.51085)]


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "amplitude", "frequency", "total", "square"), DRIVEN)
def test_random_phases(gain: float, amplitude: float, frequency: float, total: float, square: float) -> None:
    theory = derive(catalogue["scs"](drive=True), s2=0)
    s = theory.solve(g=gain, I=amplitude, omega=frequency, nodes=8, tol=2e-4)
    assert float(s["C_x0"]) == pytest.approx(total, rel=4e-4)
    assert float(s["C_phi0"]) == pytest.approx(square, rel=4e-4)
    assert float(s["C_x"][0]) == pytest.approx(float(s["C_x0"]), rel=1e-5)
    assert float(s["lyapunov"]) > 0
