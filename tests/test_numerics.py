"""One-argument problems: reference values, exact limits, errors, generated modules."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from problems import ERF, ERF_CLOSED, J0, TANH, adapting, b, g, h, one_argument, particle, s2, scs, tau_a
from sympy import Abs, Heaviside, Max, Piecewise, Symbol, cos, exp, log, sign, sqrt

from quenched.numerics import average1, average2, critical, export, solve, sweep
from quenched.numerics.assemble import residual, source_tables
from quenched.numerics.averages import Averages
from quenched.numerics.codegen import Generated
from quenched.numerics.orbit import orbit
from quenched.numerics.potential import Particle, states
from quenched.numerics.solver import potential_wave
from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem import SiteFunction, U

AUTONOMOUS = [
    ("tanh", 1.2, 0.2426288960, 0.01191956, 15.0, 0.2495130402),
    ("tanh", 1.5, 0.7476863806, 0.04674622, 7.85, 0.7933540426),
    ("tanh", 2.0, 1.9248054137, 0.11245811, 5.37, 2.1214735682),
    ("tanh", 3.0, 5.4463260831, 0.23546097, 4.09, 6.3053914788),
    ("erf", 1.2, 0.2877402522, 0.01291518, 14.4, 0.2962671116),
    ("erf", 1.5, 0.8387525278, 0.05139992, 7.45, 0.8929340650),
    ("erf", 2.0, 2.0640800188, 0.12309418, 5.11, 2.2876068702),
    ("erf", 3.0, 5.6374319609, 0.25448100, 3.95, 6.5743441658),
]
PROBLEMS = {"tanh": scs(), "erf": scs(ERF, ERF_CLOSED)}


def solved(name: str, gain: float, noise: float = 0.0, **kw):
    return solve(*PROBLEMS[name], {g: gain, s2: noise}, **kw)


@pytest.mark.parametrize(("name", "gain", "variance", "rate", "half", "static"), AUTONOMOUS)
def test_autonomous_rows(name, gain, variance, rate, half, static):
    lags = np.linspace(0, 40, 801)
    solution = solved(name, gain, lags=lags)
    state = solution.state
    assert state.kind == "dynamic"
    assert abs(state.variance[0] - variance) < 6e-11
    assert state.variance_error[0] < 1e-12
    assert abs(state.growth.value - rate) < 2e-8
    assert state.growth.error < 1e-10
    assert abs(np.interp(-0.5, -state.covariance[0, 0] / variance, lags) - half) < 0.06
    assert state.residual < 1e-11
    others = {x.kind: x for x in solution.branches}
    assert abs(others["static"].variance[0] - static) < 6e-11
    assert not others["static"].stable
    assert not others["trivial"].stable
    assert others["trivial"].growth.value == pytest.approx(gain - 1, abs=1e-12)


@pytest.mark.parametrize(
    ("gain", "variance", "rate"),
    # The last exponent is the bound state in an open window: a box of length 40 gives -0.30658, of 160 -0.305794.
    [(2.0, 1.936331, 0.08092), (1.2, 0.360563, -0.06435), (0.8, 0.174041, -0.305778318)],
)
def test_noise_rows(gain, variance, rate):
    state = solved("tanh", gain, 0.125).state
    assert state.kind == "noisy"
    assert abs(state.variance[0] - variance) < 6e-7
    assert abs(state.growth.value - rate) < 6e-6
    assert state.residual < 1e-11


@pytest.mark.parametrize(
    ("name", "noise", "expected"),
    [
        ("tanh", 0.05, 1.29980585),
        ("tanh", 0.125, 1.47556803),
        ("tanh", 0.5, 1.95566555),
        ("tanh", 1.0, 2.35498449),
        ("erf", 0.125, 1.43433207),
        ("erf", 0.5, 1.89460698),
    ],
)
def test_noise_transition(name, noise, expected):
    found = critical(*PROBLEMS[name], g, {s2: noise}, bracket=(1.2, 2.5))
    assert abs(found.value - expected) < 6e-9
    assert found.error < 1e-10
    averages = Averages(*PROBLEMS[name], {g: found.value, s2: noise})
    state = states(Particle(averages))[0]
    # The exact criterion of the noise transition, Δ0 = g²⟨φ²⟩, which the growth rate knows nothing of.
    second_moment = averages.equal_time(0, 0, 0, 0.0, state.variance).value
    assert found.value**2 * second_moment == pytest.approx(state.variance, rel=1e-10)


def test_autonomous_transition():
    assert critical(*PROBLEMS["tanh"], g, {s2: 0}).value == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(QuenchedError, match="does not change sign"):
        critical(*PROBLEMS["tanh"], g, {s2: 0}, bracket=(0.2, 0.4))
    with pytest.raises(QuenchedError, match="did you mean"):
        critical(*PROBLEMS["tanh"], Symbol("s3"), {g: 1})


def test_thirty_digits():
    """The energy condition and the static root by mpmath."""
    mp.mp.dps = 30

    def mean(f, v):
        return mp.quad(lambda z: mp.npdf(z) * f(mp.sqrt(v) * z), [-12, -4, -1, 0, 1, 4, 12])

    def energy(v):
        potential = lambda u: mp.log(mp.cosh(u))  # noqa: E731
        return v**2 / 2 - mp.mpf(9) / 4 * (mean(lambda u: potential(u) ** 2, v) - mean(potential, v) ** 2)

    solution = solved("tanh", 1.5)
    reference = mp.findroot(energy, mp.mpf("0.7476863805"), tol=1e-25)
    assert abs(solution.state.variance[0] - float(reference)) < 1e-14
    static = mp.findroot(lambda v: v - mp.mpf(9) / 4 * mean(lambda u: mp.tanh(u) ** 2, v), mp.mpf("0.7933540426"))
    found = next(x for x in solution.branches if x.kind == "static")
    assert abs(found.variance[0] - float(static)) < 1e-14


def test_curve_of_covariance():
    lags = np.array([0.0, 1, 2, 4, 8])
    tanh_2, erf_3 = solved("tanh", 2.0, lags=lags).state, solved("erf", 3.0, lags=lags).state
    ratios = tanh_2.covariance[0, 0][1:] / tanh_2.variance[0], erf_3.covariance[0, 0][1:] / erf_3.variance[0]
    np.testing.assert_allclose(ratios[0], [0.9679, 0.8830, 0.6501, 0.2849], atol=6e-5)
    np.testing.assert_allclose(ratios[1], [0.9380, 0.7955, 0.4925, 0.1583], atol=6e-5)
    # Equal-time output: C_φ(0) = ⟨φ²⟩ at this variance.
    moment, _ = average2(
        SiteFunction("f", TANH), SiteFunction("f", TANH), 0, 0, *tanh_2.variance, *tanh_2.variance, tanh_2.variance, {}
    )
    assert tanh_2.two_point[0, 0] == pytest.approx(moment[0], abs=1e-13)


def test_spectrum_is_the_transform():
    state = solved("tanh", 2.0, 0.125, lags=np.linspace(0, 200, 40001)).state
    omega, spectra = state.spectrum
    curve = state.covariance[0, 0]
    for i in (0, 5, 20):
        direct = 2 * np.trapezoid(curve * np.cos(omega[i] * state.tau), state.tau)
        assert spectra[0, 0][i].real == pytest.approx(direct, abs=2e-5)


@pytest.mark.parametrize(("gain", "noise"), [(0.3, 0.2), (0.9, 1.7)])
def test_linear(gain, noise):
    state = solve(*scs(U), {g: gain, s2: noise}).state
    assert state.variance[0] == pytest.approx(noise / np.sqrt(1 - gain**2), rel=1e-13)
    assert state.growth.value == pytest.approx(gain - 1, abs=1e-11)
    rate = np.sqrt(1 - gain**2)
    np.testing.assert_allclose(state.covariance[0, 0], state.variance[0] * np.exp(-rate * state.tau), atol=1e-10)


def test_sign_limit():
    state = solve(*scs(sign(U)), {g: 1.7, s2: 0.0}).state
    assert state.variance[0] == pytest.approx(2 * (1 - 2 / np.pi) * 1.7**2, rel=1e-12)
    assert state.growth.value == np.inf
    variance = states(Particle(Averages(*PROBLEMS["tanh"], {g: 200.0, s2: 0.0})))[0].variance
    assert variance == pytest.approx(2 * (1 - 2 / np.pi) * 200**2, rel=0.01)


def test_below_the_transition():
    solution = solved("tanh", 0.8)
    assert [x.label for x in solution.branches] == ["trivial"]
    assert solution.state.stable
    assert solution.state.variance[0] == 0
    assert solution.state.growth.value == pytest.approx(-0.2, abs=1e-12)
    assert solved("tanh", 1.0).state.kind == "trivial"


@pytest.mark.parametrize("excess", [1e-9, 1e-7, 1e-5, 1e-3])
def test_next_to_the_transition(excess):
    """Right to the stated error, or refused: Δ0 = ε + (7/6) ε² + … above g = 1."""
    try:
        state = solved("tanh", 1 + excess).state
    except ConvergenceError:
        assert excess < 1e-4
        return
    tolerance = state.variance_error[0] + 5 * excess**3
    assert abs(state.variance[0] - excess - 7 / 6 * excess**2) < tolerance
    assert state.variance_error[0] < 0.01 * excess


@pytest.mark.parametrize("gain", [1.4142135623730951, 1.6])
def test_divergence(gain):
    with pytest.raises(QuenchedError, match="diverges"):
        solve(*scs(Max(U, 0)), {g: gain, s2: 0.0})
    with pytest.raises(QuenchedError, match="diverges"):
        solve(*scs(U), {g: gain, s2: 0.1})


def test_rectifier_below_divergence():
    solution = solve(*scs(Max(U, 0)), {g: 1.2, s2: 0.0})
    assert solution.state.kind == "trivial"
    assert solution.state.growth.value == pytest.approx(1.2 / np.sqrt(2) - 1, abs=1e-12)


def test_ferromagnet():
    """Every branch of tanh with a mean coupling: two stable fixed points, and two states at zero mean."""
    full = one_argument(TANH, mean_gain=J0)
    solution = solve(full, particle(full), {g: 1.5, s2: 0.0, J0: 3.0})
    kinds = sorted(x.kind for x in solution.branches)
    assert kinds == ["dynamic", "static", "static", "static", "trivial"]
    assert solution.state.kind == "static"
    assert solution.state.stable
    assert solution.state.mean[0] == pytest.approx(2.67676472, abs=1e-8)
    trivial = next(x for x in solution.branches if x.kind == "trivial")
    assert trivial.growth.value == pytest.approx(2.0, abs=1e-9)
    chaotic = next(x for x in solution.branches if x.kind == "dynamic")
    assert chaotic.variance[0] == pytest.approx(0.7476863805534, abs=1e-11)
    assert not chaotic.stable


def test_bistable_with_noise():
    full = one_argument(1 / (1 + exp(-U)), constant=-h, mean_gain=J0)
    solution = solve(full, particle(full), {g: 2.0, s2: 0.1, J0: 12.0, h: 6.0})
    assert [round(float(x.mean[0]), 4) for x in solution.branches] == [5.7995, 0.0, -5.9678]
    assert [x.stable for x in solution.branches] == [True, False, True]


def test_residual_sees_wrong_states():
    """A state that is off by 1 % in variance, shape or gain leaves a residual of that order."""
    averages = Averages(*PROBLEMS["tanh"], {g: 2.0, s2: 0.0})
    q = Particle(averages)
    state = states(q)[0]
    wave = potential_wave(averages, state, orbit(q, state)[0])
    assert residual(averages, wave, source_tables(averages, wave)) < 1e-11
    grown = replace(wave, decaying=[(1.01 * wave.decaying[0][0],) * 2], origin=1.01 * wave.origin)
    assert residual(averages, grown, source_tables(averages, grown)) > 1e-3
    bent = [(wave.decaying[0][0] * (1 + 0.01 * np.sin(wave.grid.tau)),) * 2]
    assert residual(averages, replace(wave, decaying=bent), source_tables(averages, wave)) > 1e-3
    other = Averages(*PROBLEMS["tanh"], {g: 2.02, s2: 0.0})
    assert residual(other, wave, source_tables(other, wave)) > 1e-3


def test_sweep():
    seen = []
    points = [{g: x, s2: 0.0} for x in (0.5, 1.5, 2.0)]
    found = sweep(*PROBLEMS["tanh"], points, progress=lambda done, total: seen.append((done, total)))
    assert [x.state.kind for x in found] == ["trivial", "dynamic", "dynamic"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    kept = sweep(*scs(Max(U, 0)), [{g: 2.0, s2: 0.0}], keep_errors=True)
    assert isinstance(kept[0], QuenchedError)


# -- averages

FUNCTIONS = [
    (U**3 - U, 2),
    (TANH, 0),
    (Max(U - 0.3, 0), 2),
    (Abs(TANH), 1),
    (Heaviside(U - 0.5), 1),
    (Piecewise((exp(U), U < 0), (1 + U, True)), 2),
    (log(1 + exp(U)), 1),
    (cos(3 * U), 0),
    (U / sqrt(1 + U**2), 0),
]


@pytest.mark.parametrize("expr", [e for e, _ in FUNCTIONS])
def test_one_point_averages(expr):
    f = SiteFunction("f", expr)
    number = average1(f, 0.4, 2.3, {})
    grid = np.linspace(-14, 14, 2_000_001)
    values = Generated(one_argument(expr)).module.site_0(0.4 + np.sqrt(2.3) * grid, (0, 0))
    brute = np.trapezoid(values * np.exp(-(grid**2) / 2), grid) / np.sqrt(2 * np.pi)
    assert abs(number.value - brute) < 1e-5
    assert number.error < 1e-11


@pytest.mark.parametrize("expr", [e for e, _ in FUNCTIONS])
def test_two_point_averages(expr):
    """Against a plain double sum; the ends c = ±√(v1 v2) and the slope against Stein's identity."""
    f = SiteFunction("f", expr)
    v, m, c = 1.3, 0.2, np.array([-0.6, 0.0, 0.7, 1.3])
    value, error = average2(f, f, m, m, v, v, c, {})
    z = np.linspace(-9, 9, 3001)
    w = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    site = Generated(one_argument(expr)).module.site_0
    for k in range(3):
        rho = c[k] / v
        u = m + np.sqrt(v) * z[:, None]
        other = m + np.sqrt(v) * (rho * z[:, None] + np.sqrt(1 - rho**2) * z)
        brute = w @ (site(u, (0, 0)) * (site(other, (0, 0)) @ w)[:, None])[:, 0]
        assert abs(value[k] - brute) < (3e-3 if expr.has(Heaviside) else 3e-5)
    assert value[1] == pytest.approx(average1(f, m, v, {}).value ** 2, abs=1e-10)
    squared = average1(SiteFunction("f2", expr**2), m, v, {}).value
    assert value[3] == pytest.approx(squared, abs=1e-9)
    assert np.all(error < 1e-8)


def test_two_different_functions():
    f, k = SiteFunction("f", TANH), SiteFunction("k", sign(U - 0.2))
    value, _ = average2(f, k, 0.1, -0.3, 2.0, 0.7, np.array([0.5]), {})
    rng = np.linspace(-10, 10, 400_001)
    rho = 0.5 / np.sqrt(1.4)
    # Average of the sign over its conditional law is an error function.
    from scipy.special import erf as special_erf

    inner = special_erf((-0.5 + np.sqrt(0.7) * rho * rng) / np.sqrt(2 * 0.7 * (1 - rho**2)))
    brute = np.trapezoid(np.tanh(0.1 + np.sqrt(2) * rng) * inner * np.exp(-(rng**2) / 2), rng) / np.sqrt(2 * np.pi)
    assert value[0] == pytest.approx(brute, abs=1e-10)


def test_large_gain_accuracy():
    """⟨tanh²⟩ at variance 100 to 1e-12 against mpmath."""
    mp.mp.dps = 25
    reference = mp.quad(lambda z: mp.npdf(z) * mp.tanh(10 * z) ** 2, [-12, -3, -1, -0.3, 0, 0.3, 1, 3, 12])
    number = average1(SiteFunction("f", TANH**2), 0.0, 100.0, {})
    assert abs(number.value - float(reference)) < 1e-13


def test_refusals():
    with pytest.raises(QuenchedError, match="'s2' has no value"):
        solve(*PROBLEMS["tanh"], {g: 1.5})
    with pytest.raises(QuenchedError, match="not a finite real number"):
        solve(*scs(log(U)), {g: 1.5, s2: 0.1})


def test_wrong_closed_form_is_refused():
    full, potential = scs(ERF, 1.01 * ERF_CLOSED)
    with pytest.raises(QuenchedError, match="closed form"):
        solve(full, potential, {g: 2.0, s2: 0.0})


# -- generated code


def test_module_needs_no_sympy(tmp_path, monkeypatch):
    monkeypatch.setenv("QUENCHED_CACHE", str(tmp_path))
    generated = Generated(adapting(TANH + U / 7))
    module = generated.module
    files = list(tmp_path.rglob("*.py"))
    assert len(files) == 1
    assert not list(tmp_path.rglob("*.tmp"))
    assert generated.key in files[0].name
    assert generated.bind({b: 1, g: 2, s2: 0, tau_a: 3}) == (1, 2, 0, 3)
    heavy = "'sympy' in sys.modules or 'numba' in sys.modules"
    code = f"import runpy, sys; runpy.run_path({str(files[0])!r}); sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert module.site_0(np.array([0.5]), (1, 2, 0, 3))[0] == pytest.approx(np.tanh(0.5) + 0.5 / 7)


def test_content_decides_the_module():
    same, other = Generated(one_argument(TANH)), Generated(one_argument(TANH, constant=h))
    assert Generated(one_argument(TANH)).key == same.key
    assert other.key != same.key


def test_awkward_parameter_names():
    u, lam = Symbol("u", positive=True), Symbol("lambda", positive=True)
    full = one_argument(
        TANH, gain=u**2 / (g + 1) ** 0 * one_argument(TANH).gain[0][0] / g**2, noise=lam * one_argument(TANH).noise[0]
    )
    state = solve(full, particle(full, kick=lam * s2, weight=u**2), {u: 2.0, lam: 1.0, g: 1.0, s2: 0.125}).state
    assert state.variance[0] == pytest.approx(1.936331, abs=1e-6)


@pytest.mark.parametrize("name", ["particle", pytest.param("spectral", marks=pytest.mark.slow)])
def test_exported_solver(tmp_path, name):
    """The standalone file, run as a script, against the solver (its general form shares no method with it)."""
    tolerance = {"particle": 1e-9, "spectral": 1e-5}[name]
    path = tmp_path / f"{name}.py"
    path.write_text(export(PROBLEMS["tanh"][0], PROBLEMS["tanh"][1] if name == "particle" else None))
    command = [sys.executable, "-W", "error", str(path), "--g", "2", "--s2", "0.125", "--csv", str(tmp_path / "c.csv")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {line.split()[0]: line.replace("[", "").replace("]", "").split()[1] for line in answer.splitlines()[:4]}
    state = solved("tanh", 2.0, 0.125).state
    assert float(numbers["variance"]) == pytest.approx(state.variance[0], abs=tolerance)
    assert float(numbers["lyapunov"]) == pytest.approx(state.growth.value, abs=max(tolerance, 2e-8))
    assert "quenched" not in path.read_text()
    assert (tmp_path / "c.csv").exists()
