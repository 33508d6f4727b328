"""Reference values of the balanced network with periodic input, in theory and in simulation at the same Euler step."""

import numpy as np
import pytest

from quenched import catalogue, derive, simulate
from quenched.numerics.twotime_critical import growth_of

COMMON = {"scheme": "euler", "lags": [0.0, 1.0]}
#: Input, g, I_1, N, dt: λ, m, var h, ν, s.d. of ν(t) as published with three digits; tolerances of the last digit.
ROWS = [
    ("common", 3, 1e-6, 500, 0.05, 0.2275, -8.35, 117.4, 1.3731, 0.0),
    ("common", 3, 60, 500, 0.05, -0.0913, -13.98, 128.0, 1.625, 1.616),
    ("common", 3, 1e-6, 2000, 0.05, 0.2275, -7.03, 83.4, 1.157, 0.0),
    ("independent", 3, 0.5, 400, 0.1, 0.225, -8.72, 128.4, 1.432, 0.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "g", "I1", "N", "dt", "lam", "m", "variance", "nu", "spread"), ROWS)
def test_rows(
    kind: str, g: float, I1: float, N: int, dt: float, lam: float, m: float, variance: float, nu: float, spread: float
) -> None:
    theory = derive(catalogue["balanced-chaos-suppression"](input=kind))
    s = theory.solve(N=N, g=g, I_1=I1, f=0.2, dt=dt, nodes=12, **COMMON)
    assert float(s["lyapunov"]) == pytest.approx(lam, abs=2e-3)
    assert float(s["m"]) == pytest.approx(m, rel=1e-3)
    assert float(s["variance"]) == pytest.approx(variance, rel=1e-3)
    assert float(s["nu"]) == pytest.approx(nu, rel=3e-3)
    assert np.sqrt(max(float(s["nu_squared"]) - float(s["nu"]) ** 2, 0.0)) == pytest.approx(spread, abs=2e-3)


def test_autocovariance_keeps_a_static_part() -> None:
    theory = derive(catalogue["balanced-chaos-suppression"]())
    curve = theory.solve(N=500, g=3, I_1=1e-6, dt=0.1, scheme="euler", lags=[0, 1, 2, 5, 10, 15, 19])["c"].values
    assert curve == pytest.approx([117.4, 111.2, 96.8, 58.0, 42.5, 41.2, 41.1], rel=0.02)  # at a step of .05


def test_half_of_the_units_are_active_at_the_transition_without_input() -> None:
    """Chaos needs g² P(h > 0) > 1, and g = √2 makes the mean of h vanish."""
    theory = derive(catalogue["balanced-chaos-suppression"]())
    for g, sign in ((1.3, 1.0), (np.sqrt(2), 0.0), (1.55, -1.0)):
        m = float(theory.solve(g=g, I_1=1e-6, dt=0.2, **COMMON)["m"])
        assert m == pytest.approx(0, abs=2e-2) if sign == 0 else m * sign > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("N", "value", "steps"), [(200, 34.5, 64), (500, 39.8, 64), (2000, 65.6, 64), (8000, 124.5, 128)]
)
def test_a_common_input_needs_more_in_larger_networks(N: int, value: float, steps: int) -> None:
    """The published amplitudes are those of the Euler map with 64 steps a period, too long a step in the largest."""
    theory = derive(catalogue["balanced-chaos-suppression"]())
    found = theory.solve(N=N, g=3, I_1=0.85 * value, dt=5 / steps, **COMMON).quantity("I_critical")
    assert float(found.value) == pytest.approx(value, rel=0.01, abs=2 * float(found.error) if N == 8000 else 0)


@pytest.mark.slow
@pytest.mark.parametrize(("N", "value"), [(400, 17.8), (1600, 13.9)])
def test_an_independent_input_needs_less_in_larger_networks(N: int, value: float) -> None:
    """The published amplitudes come from rates whose perturbation was young, which lie 0.004 below those that last."""
    theory = derive(catalogue["balanced-chaos-suppression"](input="independent"))
    found = theory.solve(N=N, g=3, I_1=value, dt=0.1, nodes=8, **COMMON)["I_critical"]
    assert float(found) == pytest.approx(value, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("I1", "rate", "m", "variance"), [(10, 0.107, -8.52, 124.0), (40, -0.123, -20.89, 498)])
def test_rows_of_independent_inputs(I1: float, rate: float, m: float, variance: float) -> None:
    theory = derive(catalogue["balanced-chaos-suppression"](input="independent"))
    s = theory.solve(N=400, g=3, I_1=I1, f=0.2, dt=0.1, nodes=12, **COMMON)
    assert float(s["lyapunov"]) == pytest.approx(rate, abs=4e-3)
    assert float(s["m"]) == pytest.approx(m, rel=1e-3)
    assert float(s["variance"]) == pytest.approx(variance, rel=2e-3)
    assert float(s["nu"]) == pytest.approx(1 - m / 20, rel=1e-3)  # the published rates miss one of 340 time points


def test_the_exponent_of_a_flow_is_extrapolated_beyond_the_finer_step() -> None:
    theory = derive(catalogue["balanced-chaos-suppression"]())
    solution = theory.solve(N=200, g=3, I_1=37, lags=[0.0])
    window, found = solution.reader.window, solution.quantity("lyapunov")  # type: ignore[attr-defined]
    fine, coarse = growth_of(window)[0], growth_of(window.coarse)[0]
    assert found.value == pytest.approx(fine + (fine - coarse) / 3, abs=1e-12)
    assert found.error >= abs(fine - coarse) / 3
    assert 0 < found.error < 3e-3


#: Input and parameters, N, with an Euler step of 0.1: rates of several networks against the theory.
SIMULATED = [
    ("common", {"g": 3, "I_1": 20}, 300),
    ("independent", {"g": 3, "I_1": 40}, 300),
    ("both", {"g": 2, "I_1": 15, "I_c": 30}, 300),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "values", "N"), SIMULATED)
def test_networks_at_the_same_step(kind: str, values: dict[str, float], N: int) -> None:
    net = catalogue["balanced-chaos-suppression"](input=kind, step=0.1)
    theory = derive(net).solve(N=N, f=0.2, nodes=8, lags=[0, 10], **values)
    how = {"burn": 250, "duration": 200, "lags": [0, 10], "workers": 1, "store": False, "dtype": "float32"}
    run = simulate(net, N, trials=12, seed=5, f=0.2, **how, **values)
    for name in ("nu", "nu_squared", "m", "variance", "c"):
        sample = run[name]
        expected = np.atleast_1d(np.asarray(theory[name].values))
        assert np.all(np.abs(sample.mean - expected) < 3.5 * sample.error + 0.01 * np.abs(expected)), name
    # the exponent of networks this small lies below its limit, by up to 0.1 a unit of time, 0.01 a step
    assert abs(float(run["lyapunov"].mean[0]) - float(theory["lyapunov"])) < 0.01 + 3 * float(run["lyapunov"].error[0])
