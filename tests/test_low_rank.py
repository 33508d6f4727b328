"""Couplings of low rank beside random ones: overlaps are followed, and so is whether they return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from sympy import Expr, symbols, tanh

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
)
from quenched.numerics.quadrature import trapezoid

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
