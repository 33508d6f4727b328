"""Fields at earlier times: derivation, witnesses, exact limits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import lambertw
from sympy import Rational, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Lyapunov, Map, QuenchedError, WhiteNoise, derive, discretise, mean, t
from quenched.numerics import delays as filters
from quenched.numerics.process_state import dividing_step, whole_steps
from quenched.numerics.timegrid import flow_grid
from quenched.theory.model import Model
from quenched.theory.problem import DT
from quenched.theory.problem_delays import Delay
from quenched.validate.witness import survey_mutants, verify

g, d, b = symbols("g d b", positive=True)
eta = symbols("eta", real=True)
x, y = Field("x"), Field("y")
J, K = Gaussian("J", variance=g**2), Gaussian("K", variance=g**2)
S = Gaussian("J", variance=g**2, symmetry=eta)
noise = WhiteNoise("xi") / 2

MODELS: dict[str, Model] = {
    "coupling": Dynamics({x: -x + J @ tanh(x(t - d)) + noise}),
    "unit and coupling": Dynamics({x: -x + b * x(t - d) + J @ tanh(x(t - 2 * d)) + noise}),
    "two delays of one matrix": Dynamics({x: -x + J @ tanh(x) + J @ tanh(x(t - d))}),
    "partial symmetry": Dynamics({x: -x + S @ tanh(x(t - d)) + noise}),
    "nonlinear feedback": Dynamics({x: -x + b * tanh(x(t - d)) + J @ tanh(x)}),
    "several times in one output": Dynamics({x: -x + J @ tanh(x + x(t - d)) + noise}),
    "two fields": Dynamics({x: -x - y(t - d) + J @ tanh(x), y: (x - y) / 3}),
    "map": Map({x: x / 3 + x(t - 3) / 4 + S @ tanh(x(t - 2)) + noise}),
    "map without symmetry": Map({x: x / 3 + x(t - 3) / 4 + J @ tanh(x(t - 2)) + mean(x(t - 1)) / 2 + noise}),
    "Euler map": discretise(Dynamics({x: -x + J @ tanh(x(t - 1)) + x(t - 2) / 4 + noise}), Rational(1, 2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_step_keeps_its_meaning(name: str) -> None:
    theory = derive(MODELS[name])
    assert theory.solvable, theory.coverage
    ticks = verify(theory.derivation, simulate=name in ("unit and coupling", "partial symmetry", "map"))
    assert [f"{tick.title}: {tick.detail}" for tick in ticks if tick.passed is False] == []
    if ticks[-1].title.startswith("All steps"):
        assert ticks[-1].passed


@pytest.mark.parametrize("name", ["unit and coupling", "partial symmetry"])
def test_witnesses_catch_wrong_delays(name: str) -> None:
    mutants = survey_mutants(derive(MODELS[name]).derivation)
    late = [m for m in mutants if "later" in m.label or "delay" in m.label]
    assert late
    assert all(m.caught for m in late)
    assert [f"{m.step}: {m.label}" for m in mutants if not m.caught] == []


def test_the_operator_stays_one_factor() -> None:
    z = symbols("z")
    assert Delay(d, 0) == 1
    assert Delay(d, z) * Delay(d, -z) == 1
    assert Delay(d, z + DT) == Delay(d, z) * Delay(d, DT)
    assert complex(Delay(2, 1j).evalf()) == pytest.approx(np.exp(-2j))


# -- exact limits -----------------------------------------------------------------------------------------------------
def test_independent_couplings_forget_a_delay_that_all_of_them_share() -> None:
    delayed = Dynamics({x: -x + J @ tanh(x(t - d)) + noise}).observe(v=mean(x**2), lag=mean(x * x(t - 1)))
    prompt = Dynamics({x: -x + J @ tanh(x) + noise}).observe(v=mean(x**2), lag=mean(x * x(t - 1)))
    one, other = derive(delayed).solve(g=1.5, d=0.7), derive(prompt).solve(g=1.5)
    for name in ("v", "lag", "C_phi0"):
        assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-8)


@pytest.mark.parametrize(("gain", "delay"), [(2.0, 1.0), (0.7, 3.0)])
def test_modes_of_the_silent_state_obey_the_characteristic_equation(gain: float, delay: float) -> None:
    """|1 + z| e^{d Re z} = g on the edge of the spectrum, at real z first."""
    net = Dynamics({x: -x + J @ tanh(x(t - d))}).observe(lam=Lyapunov(x))
    branches = derive(net).solve(g=gain, d=delay).branches
    trivial = next(branch for branch in branches if branch.label == "trivial")
    exact = np.real(lambertw(gain * delay * np.exp(delay))) / delay - 1
    assert float(trivial["lam"]) == pytest.approx(exact, abs=1e-9)


def test_linear_units_with_delayed_feedback_have_the_exact_spectrum() -> None:
    gain, delay, back = 0.4, 1.3, 0.6
    net = Dynamics({x: -x - b * x(t - d) + J @ x(t - 2 * d) + noise}).observe(v=mean(x**2), lag=mean(x * x(t - 1)))

    def rest(omega: float) -> float:
        """The spectrum without 1/(1 + ω²), which it approaches."""
        filtered = abs(1j * omega + 1 + back * np.exp(-1j * omega * delay)) ** 2 - gain**2
        return 0.25 / filtered - 0.25 / (1 + omega**2)

    found = derive(net).solve(g=gain, d=delay, b=back)
    for name, lag in (("v", 0.0), ("lag", 1.0)):
        more = quad(lambda w, lag=lag: rest(w) * np.cos(w * lag) / np.pi, 0, 300, limit=3000)[0]
        assert float(found[name]) == pytest.approx(0.125 * np.exp(-lag) + more, rel=1e-5)


def test_a_linear_map_with_memory_has_the_exact_spectrum() -> None:
    net = Map({x: x / 3 - x(t - 2) / 4 + J @ x(t - 1) + noise}).observe(v=mean(x**2))
    theta = 2 * np.pi * np.arange(4096) / 4096
    z = np.exp(1j * theta)
    exact = np.mean(0.25 / (abs(z - 1 / 3 + z**-2 / 4) ** 2 - 0.5**2))
    assert float(derive(net).solve(g=0.5)["v"]) == pytest.approx(exact, rel=1e-9)


def test_modes_are_the_roots_of_the_quasipolynomial() -> None:
    roots = filters.modes([(0.0, (1.0, 1.0)), (2.0, (0.8,))])
    top = max(roots, key=np.real)
    assert abs(top + 1 + 0.8 * np.exp(-2 * top)) < 1e-10
    exact = lambertw(-0.8 * 2 * np.exp(2), 0) / 2 - 1
    assert np.real(top) == pytest.approx(np.real(exact), abs=1e-10)


def test_delayed_filters_invert_each_other_on_the_grid() -> None:
    """x = (D + 1 − e^{−dD}/2)^{-1} s answers the equation that it came from."""
    grid = filters.with_kinks(flow_grid(0.5, 1.0, 20.0), np.array([1.5]))
    tau = np.concatenate([-grid.tau[::-1], grid.tau])
    source = np.exp(-(tau**2))
    answer = filters.filter_matrix(grid, ([(0.0, (1.0,))], [(0.0, (1.0, 1.0)), (1.5, (-0.5,))])) @ source
    late = filters.shift_matrix(grid, 1.5) @ answer
    again = grid.kernel(([1.0], [1.0, 1.0]), False, False) @ (source + late / 2)
    assert np.max(np.abs(again - answer)) < 1e-10


# -- steps ------------------------------------------------------------------------------------------------------------
def test_sampled_steps_divide_the_delays() -> None:
    assert dividing_step(0.1, []) == 0.1
    assert dividing_step(0.1, [0.25, 1.0]) == pytest.approx(0.25 / 3) or dividing_step(0.1, [0.25, 1.0]) < 0.1
    assert whole_steps([1.0, 0.5], 0.25).tolist() == [4, 2]
    with pytest.raises(QuenchedError, match="no common step"):
        dividing_step(0.1, [1.0, 2**0.5])
    with pytest.raises(QuenchedError, match="not a whole number"):
        whole_steps([1.5], 1.0)


# -- refusals ---------------------------------------------------------------------------------------------------------
def test_what_is_not_covered_says_so() -> None:
    k = symbols("k", positive=True, integer=True)
    assert "derive(net, d=2)" in str(derive(Map({x: J @ tanh(x(t - k)) + noise})).coverage)
    assert derive(Map({x: J @ tanh(x(t - k)) + noise}), k=2).solvable
    with pytest.raises(QuenchedError, match="export of units with delayed feedback"):
        derive(MODELS["unit and coupling"]).export("never_written.py")
    with pytest.raises(QuenchedError, match="linear part of the dynamics is unstable"):
        derive(Dynamics({x: -x - b * x(t - d) + J @ tanh(x)})).solve(g=1, b=3, d=2)


@pytest.mark.slow
def test_a_longer_delay_is_told_apart() -> None:
    """The variance of units that remember themselves depends on when; the mutant with a step more is rejected."""
    from quenched import validate

    net = Map({x: -x(t - 1) / 2 + J @ tanh(x(t - 2)) + noise}).observe(v=mean(x**2), lag=mean(x * x(t - 2)))
    how = {"sizes": (100, 200, 400), "trials": 16, "quick": True, "ci": True, "store": False, "workers": 1}
    assert validate(net, {"g": 0.5}, **how).verdict != "disagree"
    assert validate(net, {"g": 0.5}, theory=derive(net).mutate("delay-tenth"), **how).verdict == "disagree"
