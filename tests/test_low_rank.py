"""Couplings of low rank beside random ones: overlaps are followed, and so is whether they return."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from sympy import Expr, Rational, pi, sign, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Ising,
    Map,
    N,
    Normal,
    Quenched,
    Uniform,
    WhiteNoise,
    derive,
    mean,
    outer,
    simulate,
)
from quenched.design import design_of
from quenched.numerics.planes import plane_average
from quenched.numerics.quadrature import trapezoid
from quenched.numerics.sites import Site
from quenched.numerics.steps import Steps, steps_of

g, c = symbols("g c", positive=True)
x = Field("x")
J = Gaussian("J", variance=g**2)
m = Quenched("m", Normal(0, 1))


def rank_one(*more: Expr, **how: Any) -> Dynamics:
    net = Dynamics({x: sum(more, -x + J @ tanh(x) + c * outer(m, m) @ tanh(x) / N)}, **how)
    return net.observe(overlap_squared=mean(m * tanh(x)) ** 2, variance=mean(x**2))


# -- rates of overlaps ------------------------------------------------------------------------------------------------
def rightmost(gain: float, strength: float, size: int, seed: int) -> float:
    """The rightmost eigenvalue of a network at the fixed point that it reaches from its direction."""
    rng = np.random.default_rng(seed)
    direction = rng.permutation(norm.ppf((np.arange(size) + 0.5) / size))
    direction /= direction.std()
    random = rng.normal(size=(size, size)) * gain / np.sqrt(size)
    coupling = random + strength * np.outer(direction, direction) / size
    state = direction.copy()
    for _ in range(900):
        state += 0.1 * (coupling @ np.tanh(state) - state)
    return float(np.max(np.linalg.eigvals(coupling / np.cosh(state) ** 2).real)) - 1


def test_an_overlap_returns_more_slowly_than_random_modes_do() -> None:
    """g = 0.5, c = 1.1: random modes decay at −0.54, the overlap at −0.17; against networks of 200 units."""
    solution = derive(rank_one()).solve(g=0.5, c=1.1)
    rates = [rightmost(0.5, 1.1, 200, seed) for seed in range(10)]
    assert solution.main.growth.value == pytest.approx(np.mean(rates), abs=0.05)
    assert np.std(rates) / np.sqrt(10) < 0.02
    trivial = next(b for b in solution.branches if b.kind == "trivial")
    assert trivial.growth.value == pytest.approx(0.1, abs=1e-9)  # c − 1 > g − 1
    assert not trivial.stable


@pytest.mark.parametrize(
    ("law", "nodes"), [(Ising(), "signs"), (Uniform(-1.5, 1.5), "interval"), (Normal(0, 1), "line")]
)
@pytest.mark.parametrize("step", ["flow", "map"])
def test_rates_without_random_couplings(law: Any, nodes: str, step: str) -> None:
    """x = cκm, κ = ⟨m φ(cκm)⟩; the overlap returns at c⟨m² φ'⟩ − 1 (the logarithm of c⟨m² φ'⟩ for a map)."""
    k = Quenched("k", law)
    body = c * outer(k, k) @ tanh(x) / N
    solution = derive(Dynamics({x: -x + body}) if step == "flow" else Map({x: body})).solve(c=2)
    z, weight = {
        "signs": (np.array([-1.0, 1.0]), np.full(2, 0.5)),
        "interval": (lambda a: (1.5 * a[0], a[1] / 2))(np.polynomial.legendre.leggauss(60)),
        "line": trapezoid(401),
    }[nodes]
    kappa = brentq(lambda a: weight @ (z * np.tanh(2 * a * z)) - a, 0.05, 2)
    factor = 2 * float(weight @ (z**2 / np.cosh(2 * kappa * z) ** 2))
    exact = factor - 1 if step == "flow" else np.log(factor)
    assert solution.main.growth.value == pytest.approx(exact, abs=1e-6)


def test_noise_does_not_hide_the_rate_of_an_overlap() -> None:
    """Below the threshold of the overlap, tangents decay at c⟨φ'⟩ − 1, more slowly than random modes."""
    solution = derive(rank_one(WhiteNoise("xi") / 2)).solve(g=0.2, c=0.9)
    main = solution.main
    slope = 1 - float(solution["C_phi0"]) if "C_phi0" in main.names else None
    assert main.kind == "noisy"
    assert slope is not None
    assert main.growth.value == pytest.approx(0.9 * slope - 1, abs=1e-8)


# -- several directions -----------------------------------------------------------------------------------------------
def test_overlaps_that_turn_have_no_stationary_state() -> None:
    """A skew pair beside random couplings: overlaps grow at c⟨φ'⟩ − 1 while they turn, nothing else is consistent."""
    n = Quenched("n", Normal(0, 1))
    pair = outer(m, m) + outer(n, n) + outer(m, n) - outer(n, m)
    solution = derive(Dynamics({x: -x + J @ tanh(x) + c * pair @ tanh(x) / N})).solve(g=1.5, c=2)
    assert [b.kind for b in solution.branches] == ["static", "dynamic", "trivial"]
    assert not any(b.stable for b in solution.branches)
    slope = 1 - float(solution["C_phi0"])
    assert solution.main.growth.value == pytest.approx(2 * slope - 1, abs=1e-4)
    assert "h_m1, h_m2 grows while it turns" in solution.main.undetermined
    assert solution.main.undetermined in str(solution)


def test_states_of_opposite_sign_coexist() -> None:
    solution = derive(rank_one()).solve(g=0.5, c=1.5)
    first, second = (b for b in solution.branches if b.stable)
    assert (first.mirror, second.mirror) == (second.label, first.label)
    assert f"{first.label} and {second.label} coexist" in solution.multistability
    biased = derive(Dynamics({x: -x + J @ tanh(x) + c * outer(m, m) @ tanh(x) / N + m / 10})).solve(g=0.5, c=1.5)
    assert biased.main.mirror == ""
    assert biased.multistability == ""


# -- outputs that jump ------------------------------------------------------------------------------------------------
def signs(u: Any) -> Any:
    return np.sign(u)


def stairs(u: Any) -> Any:
    return 2 * np.heaviside(u - 0.5, 0.5) + np.heaviside(u + 1, 0.5)


def stepped(f: Any, kinks: list[float]) -> Site:
    places = np.array(kinks)
    return Site("f", f, f, None, places, steps_of(f, places))


@pytest.mark.parametrize(("f", "g"), [("sign", "sign"), ("sign", "stairs"), ("stairs", "stairs")])
@pytest.mark.parametrize(("m1", "m2"), [(0.0, 0.0), (0.3, 0.3), (2.0, -0.4)])
def test_averages_of_steps_are_sums_over_jumps(f: str, g: str, m1: float, m2: float) -> None:
    """Against the quadrature of their values at moderate correlations, and the limits of full correlation."""
    sites = {"sign": stepped(signs, [0.0]), "stairs": stepped(stairs, [-1.0, 0.5])}
    one, two = sites[f], sites[g]
    assert one.steps is not None
    assert two.steps is not None
    theta = np.linspace(-1.1, 1.1, 9)
    values, _, error = plane_average(one, two, m1, 1.3, m2, 0.8, theta)
    slow, _, doubt = plane_average(replace(one, steps=None), two, m1, 1.3, m2, 0.8, theta)
    assert np.max(np.abs(values - slow)) < 1e-10 + 3 * doubt
    assert error < 1e-10
    ends = plane_average(one, two, m1, 1.3, m2, 0.8, np.array([-np.pi / 2, 0.0, np.pi / 2]))[0]
    z = (np.arange(200000) + 0.5) / 200000
    normal = norm.ppf(z)
    for value, turn in ((ends[0], -1), (ends[2], 1)):
        exact = np.mean(one.value(m1 + 1.3 * normal) * two.value(m2 + 0.8 * turn * normal))
        assert value == pytest.approx(exact, abs=4e-5)
    assert ends[1] == pytest.approx(one.steps.mean(m1, 1.69) * two.steps.mean(m2, 0.64), abs=1e-15)


def test_only_functions_that_are_constant_but_for_jumps_are_steps() -> None:
    assert steps_of(lambda u: np.sign(u) * (1 + 1e-9 * u), np.array([0.0])) is None
    assert steps_of(lambda u: np.where(u > 700, 2.0, np.sign(u)), np.array([0.0])) is None
    square = Steps(-1.0, np.array([0.0]), np.array([2.0]))
    assert square.times(square).mean(0.4, 2.0) == 1.0
    assert square.slope(0.0, 2.0) == pytest.approx(1 / np.sqrt(np.pi))


@pytest.mark.parametrize("other", [pytest.param(tanh(x), marks=pytest.mark.slow), sign(x)])
def test_a_direction_read_by_signs_beside_random_couplings(other: Expr) -> None:
    """κ = ⟨m sign⟩ = cκ·√(2/πV): V = 2c²/π whatever random couplings do, as long as κ does not vanish."""
    net = Dynamics({x: -x + J @ other + c * outer(m, m) @ sign(x) / N}).observe(V=mean(x**2))
    solution = derive(net).solve(g=1.2, c=2)
    assert float(solution["V"]) == pytest.approx(float(8 / pi), abs=1e-8)
    assert solution.main.mirror
    assert "coexist" in str(solution)


# -- rates of driven states -------------------------------------------------------------------------------------------
def uniform(kind: type, strength: float) -> Any:
    """Units that excite each other in the mean, beside hardly any random couplings."""
    K = Gaussian("J", variance=Rational(1, 10**4), mean=strength)
    rest = -x if kind is Dynamics else 0
    return kind({x: rest + K @ tanh(x) + WhiteNoise("xi") / 4})


@pytest.mark.parametrize("kind", [Dynamics, Map])
def test_tangents_carry_the_mean_of_driven_units(kind: type) -> None:
    """Without random couplings δm grows as c⟨φ'⟩ − 1 (flow) or ln c⟨φ'⟩ (map), ⟨φ'⟩ at the mean and variance there."""
    solution = derive(uniform(kind, 1.3)).solve()
    v = 1 / 32 if kind is Dynamics else 1 / 16
    z, weight = trapezoid(401)
    mean_x = abs(float(solution["mean_x"]))
    factor = 1.3 * float(weight @ (1 / np.cosh(mean_x + np.sqrt(v) * z) ** 2))
    assert mean_x > 0.3
    exact = factor - 1 if kind is Dynamics else np.log(factor)
    assert solution.main.growth.value == pytest.approx(exact, abs=3e-4)


def test_tangents_of_a_driven_state_without_a_mean() -> None:
    """At mean zero χ and δm part: the mean grows as c⟨φ'⟩ − 1, whatever random couplings do."""
    K = Gaussian("J", variance=g**2, mean=c)
    theory = derive(Dynamics({x: -x + K @ tanh(x) + WhiteNoise("xi") / 4}))
    for strength, stable in ((0.8, True), (1.3, False)):
        solution = theory.solve(g=0.3, c=strength)
        state = solution.main if stable else solution.branches[-1]
        slope = 1 - float(state.quantity("C_phi0").value)
        assert state.stable is stable
        assert state.growth.value == pytest.approx(strength * slope - 1, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("directed", [False, True])
def test_tangents_of_driven_networks(directed: bool) -> None:
    """A mean and an overlap that noise and random couplings surround, against tangents of networks of 400 units."""
    K = Gaussian("J", variance=g**2, mean=0 if directed else c)
    stored = c * outer(m, m) @ tanh(x) / N if directed else 0
    net = Dynamics({x: -x + K @ tanh(x) + stored + WhiteNoise("xi") / 4})
    rate = derive(net).solve(g=0.3, c=1.3).main.growth.value
    found = simulate(net, N=400, trials=6, seed=1, store=False, workers=1, g=0.3, c=1.3)["lyapunov"].values.ravel()
    error = float(np.std(found, ddof=1) / np.sqrt(len(found)))
    assert abs(rate - float(np.mean(found))) < 3 * error + 0.01
    assert error < 0.08
    assert rate > -0.45  # random modes alone decay at about −0.8


def test_networks_in_opposite_states_are_not_averaged_before_a_function_of_their_means() -> None:
    """Trajectories of one network end at +κ or −κ: the square of their average is not κ²."""
    values = {"g": 0.5, "c": 1.5}
    for model, expected in ((rank_one(), True), (rank_one(m / 10), False)):
        design = design_of(model, model.values(values), derive(model).solve(values), True, {})
        assert (design.trajectories == 1) is expected
