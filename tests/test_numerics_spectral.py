"""The general route: agreement with the energy condition, exact linear results, equivalences between problems."""

from __future__ import annotations

import numpy as np
import pytest
from problems import (
    ERF,
    MATRIX,
    adapting,
    b,
    delta,
    g,
    h,
    leaky_map,
    one_argument,
    particle,
    s2,
    scs,
    tau_a,
    two_fields,
    two_populations,
)
from scipy.integrate import quad
from sympy import Integer, Symbol

from quenched.numerics import solve, sweep
from quenched.numerics.timegrid import flow_grid, impulse
from quenched.theory.distributions import Ising
from quenched.theory.errors import QuenchedError
from quenched.theory.problem import Label, U

SCS = scs()


@pytest.mark.parametrize(("gain", "noise"), [(1.5, 0.0), (2.0, 0.125), (0.8, 0.125)])
def test_routes_agree(gain, noise):
    values = {g: gain, s2: noise}
    lags = np.linspace(0, 30, 61)
    one, two = (solve(SCS[0], p, values, lags=lags).state for p in (SCS[1], None))
    assert (one.method, two.method) == ("potential", "spectral")
    assert two.variance[0] == pytest.approx(one.variance[0], abs=1e-11)
    assert two.growth.value == pytest.approx(one.growth.value, abs=1e-9)
    np.testing.assert_allclose(two.covariance[0, 0], one.covariance[0, 0], atol=1e-9)
    assert abs(two.growth.value - one.growth.value) < 10 * (one.growth.error + two.growth.error)


def test_routes_agree_with_input():
    full = one_argument(ERF, constant=h)
    values = {g: 3.0, s2: 0.0, h: 0.5}
    one, two = (solve(full, p, values).state for p in (particle(full), None))
    assert one.kind == two.kind == "dynamic"
    assert one.static[0, 0] == pytest.approx(1.51838540568, abs=1e-10)
    assert two.static[0, 0] == pytest.approx(one.static[0, 0], abs=1e-10)
    assert two.variance[0] == pytest.approx(one.variance[0], abs=1e-10)
    assert two.growth.value == pytest.approx(one.growth.value, abs=1e-9)


def test_trivial_is_not_mistaken_for_a_state():
    solution = solve(SCS[0], None, {g: 0.9, s2: 0.0})
    assert [x.kind for x in solution.branches] == ["trivial"]
    kinds = sorted(x.kind for x in solve(SCS[0], None, {g: 1.2, s2: 0.0}).branches)
    assert kinds == ["dynamic", "static", "trivial"]


def test_linear_map():
    gain, noise, leak = 0.7, 0.3, 0.4
    state = solve(leaky_map(U), None, {g: gain, s2: noise, delta: leak}).state

    def density(theta):
        return 2 * noise * leak / (abs(np.exp(1j * theta) - 1 + leak) ** 2 - (leak * gain) ** 2) / np.pi

    assert state.variance[0] == pytest.approx(quad(density, 0, np.pi)[0], rel=1e-10)
    assert state.growth.value == pytest.approx(np.log(1 - leak + leak * gain), abs=state.growth.error + 1e-9)


def test_map_without_leak():
    """x(n+1) = J φ(x(n)): white activity, so that the dynamic and the static variance coincide."""
    solution = solve(leaky_map(), None, {g: 2.0, s2: 0.0, delta: 1.0})
    state = solution.state
    assert state.kind == "dynamic"
    assert state.variance[0] == pytest.approx(2.1214735682, abs=1e-9)
    np.testing.assert_allclose(state.covariance[0, 0][1:], 0, atol=1e-10)
    static = next(x for x in solution.branches if x.kind == "static")
    assert state.growth.value == pytest.approx(static.growth.value, abs=1e-9)


def test_map_tends_to_the_flow():
    """Δ0 of the leaky map approaches the flow's linearly in δ."""
    flow = solve(*SCS, {g: 2.0, s2: 0.0}).state
    gaps = [
        solve(leaky_map(), None, {g: 2.0, s2: 0.0, delta: d}).state.variance[0] - flow.variance[0] for d in (0.4, 0.2)
    ]
    assert abs(gaps[1]) < 0.7 * abs(gaps[0]) < 1e-3


def test_linear_second_order_unit():
    values = {g: 0.8, s2: 0.2, b: 1.5, tau_a: 4.0}
    state = solve(adapting(U), None, values, lags=np.array([0.0, 1.0, 3.0])).state

    def response(w):
        return (1 + 4j * w) / ((1 + 1j * w) * (1 + 4j * w) + 1.5)

    def covariance(tau):
        def density(w):
            size = abs(response(w)) ** 2
            return (0.4 * size / (1 - 0.64 * size) - 0.4 / (1 + w * w)) / np.pi * np.cos(w * tau)

        # The transform of 0.4/(1 + ω²) is 0.2 e^{−|τ|}; what is left falls off like ω⁻⁴.
        return 0.2 * np.exp(-tau) + quad(density, 0, 60, limit=400)[0]

    assert state.variance[0] == pytest.approx(covariance(0.0), abs=1e-6)
    np.testing.assert_allclose(state.covariance[0, 0], [covariance(t) for t in (0.0, 1.0, 3.0)], atol=1e-6)
    # Leading rate: |H(z)| g = 1 to the right of the poles.
    w = np.linspace(0, 2, 4001)
    z = state.growth.value + 1j * w
    size = np.abs((1 + 4 * z) / ((1 + z) * (1 + 4 * z) + 1.5)) * 0.8
    assert size.max() == pytest.approx(1.0, abs=1e-6)


def test_adaptation():
    values = {g: 2.5, s2: 0.1, b: 0.5, tau_a: 10.0}
    state = solve(adapting(), None, values).state
    assert state.residual < 1e-10
    assert state.variance_error[0] < 1e-9
    assert state.growth.value == pytest.approx(0.1033584, abs=1e-6)
    without = solve(adapting(), None, {**values, b: 1e-9}).state
    assert without.variance[0] == pytest.approx(solve(*SCS, {g: 2.5, s2: 0.1}).state.variance[0], abs=1e-7)


def test_two_equal_populations_are_one():
    (g_ee, g_ei), (g_ie, g_ii) = MATRIX
    state = solve(two_populations(), None, {g_ee: 1.8, g_ei: 2.2, g_ie: 2.2, g_ii: 1.8, s2: 0.1}).state
    single = solve(*SCS, {g: np.sqrt((1.8**2 + 2.2**2) / 2), s2: 0.1}).state
    np.testing.assert_allclose(state.variance, single.variance[0], atol=1e-10)
    assert state.growth.value == pytest.approx(single.growth.value, abs=1e-8)


def test_two_populations_feed_each_other():
    """Without self-coupling the two variances feed each other: residual, symmetry, transition."""
    (g_ee, g_ei), (g_ie, g_ii) = MATRIX
    values = {g_ee: 0.0, g_ei: 3.0, g_ie: 2.0, g_ii: 0.0, s2: 0.0}
    state = solve(two_populations(), None, values).state
    mirrored = solve(two_populations(), None, {**values, g_ei: 2.0, g_ie: 3.0}).state
    assert state.residual < 1e-10
    np.testing.assert_allclose(state.variance, mirrored.variance[::-1], atol=1e-9)
    assert state.growth.value == pytest.approx(mirrored.growth.value, abs=1e-8)
    weak = solve(two_populations(), None, {**values, g_ei: 1.3, g_ie: 1.5}).state
    assert weak.kind == "trivial"
    # Leading eigenvalue of the two-block matrix: √(g_EI g_IE / 2) − 1.
    assert weak.growth.value == pytest.approx(np.sqrt(1.3 * 1.5 / 2) - 1, abs=1e-9)


def test_two_fields_of_one_population():
    """Two fields with the same drive are one; their covariance is a pair of its own."""
    state = solve(two_fields(Integer(1)), None, {g: 2.0, s2: 0.1}).state
    single = solve(*SCS, {g: 2.0, s2: 0.1}).state
    np.testing.assert_allclose(state.variance, single.variance[0], atol=1e-9)
    assert state.covariance[0, 1][0] == pytest.approx(single.variance[0], abs=1e-9)
    assert state.growth.value == pytest.approx(single.growth.value, abs=1e-7)


def test_labels_average_inside():
    """Inputs ±h with an odd function: as the constant input h, but with mean zero."""
    sign = Symbol("ell", real=True)
    full = one_argument(ERF, constant=h * sign, labels=(Label(sign, Ising()),))
    values = {g: 3.0, s2: 0.0, h: 0.5}
    state = solve(full, particle(full), values).state
    assert state.mean[0] == 0
    assert state.variance[0] == pytest.approx(5.88162147, abs=1e-8)
    assert state.growth.value == pytest.approx(0.241279703, abs=1e-8)


def test_warm_sweep():
    points = [{g: x, s2: 0.0} for x in (1.5, 1.55, 1.6)]
    warm = sweep(SCS[0], None, points)
    for solution, values in zip(warm, points, strict=True):
        assert solution.state.variance[0] == pytest.approx(solve(*SCS, values).state.variance[0], abs=1e-10)


def test_divergence_without_potential():
    with pytest.raises(QuenchedError, match="diverges"):
        solve(scs(U)[0], None, {g: 1.1, s2: 0.2})


def test_filters_are_exact():
    grid = flow_grid(1.0, 1.0)
    smooth = grid.kernel(([1.0], [-1.0, 0.0, 1.0]), True, True) @ np.exp(-2 * grid.tau)
    np.testing.assert_allclose(smooth, (2 * np.exp(-grid.tau) - np.exp(-2 * grid.tau)) / 3, atol=1e-14)
    double = np.polymul(np.polymul([1, 1], [1, 1]), np.polymul([-1, 1], [-1, 1]))
    cascade = grid.apply(([1.0], list(double)), grid.full(np.exp(-2 * grid.tau), np.exp(-2 * grid.tau)))
    t = grid.tau
    head = cascade[grid.size :]
    second = grid.kernel(([1.0], [-1.0, 0.0, 1.0]), True, True) @ smooth
    np.testing.assert_allclose(head, second, atol=1e-12)
    np.testing.assert_allclose(impulse(([4.0], list(double)), t), (1 + t) * np.exp(-t), atol=1e-14)
