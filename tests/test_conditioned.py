"""Fluctuations of units that copies know more of: labels, constant inputs, outputs with a mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov
from sympy import Expr, Max, Rational, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Fluctuation,
    Gaussian,
    Normal,
    NotCovered,
    Participation,
    Quenched,
    Uniform,
    WhiteNoise,
    cov,
    derive,
    simulate,
)
from quenched.numerics import Sampling
from quenched.theory.fluctuations import is_odd
from quenched.theory.problem import SiteFunction, U

g, s2 = symbols("g s2", nonnegative=True)
x, J = Field("x"), Gaussian("J", variance=g**2)
noise = sqrt(2 * s2) * WhiteNoise("xi")
gain = Quenched("a", Uniform(Rational(1, 2), Rational(3, 2)))


def network(output: Expr, rest: Expr = 0, couplings: Gaussian = J) -> Dynamics:
    net = Dynamics({x: -x + couplings @ output + rest + noise})
    return net.observe(
        PR_f=Participation(cov(output)), PR_x=Participation(cov(x)), psi=Fluctuation(cov(output, output))
    )


def numbers(net: Dynamics, names: tuple[str, ...] = ("PR_f", "PR_x", "psi"), **at: float) -> dict[str, float]:
    solution = derive(net).solve(**at)
    return {name: float(np.ravel(solution[name])[0]) for name in names}


def test_linear_units_with_gains_of_their_own_against_a_lyapunov_equation() -> None:
    """x' = −x + J a x + ξ: covariances at equal times by linear algebra, N = 300."""
    found, rng, size = numbers(network(gain * x), ("PR_f", "PR_x"), g=0.5, s2=1), np.random.default_rng(4), 300
    moments = []
    for _ in range(12):
        a = rng.uniform(0.5, 1.5, size)
        couplings = 0.5 * rng.normal(size=(size, size)) / np.sqrt(size)
        c = solve_continuous_lyapunov(-np.eye(size) + couplings * a, -2 * np.eye(size))
        f = a[:, None] * c * a
        moments.append(
            [np.trace(f) ** 2 / size**2, np.trace(c) ** 2 / size**2, np.sum(f * f) / size, np.sum(c * c) / size]
        )
    exact = np.mean(moments, axis=0)
    assert found["PR_f"] == pytest.approx(exact[0] / exact[2], rel=0.01)
    assert found["PR_x"] == pytest.approx(exact[1] / exact[3], rel=0.01)
    plain = numbers(network(x), ("PR_f",), g=0.5 * np.sqrt(13 / 12), s2=1)["PR_f"]
    assert abs(found["PR_f"] / plain - 1) > 0.05  # one gain for all is something else


def test_constant_inputs_do_not_matter_to_linear_units() -> None:
    plain = numbers(network(x), ("PR_x",), g=0.6, s2=1)
    moved = numbers(network(x, Quenched("b", Normal(1, 2))), ("PR_x",), g=0.6, s2=1)
    assert moved == pytest.approx(plain, rel=1e-5)


def test_constant_inputs_matter_to_others() -> None:
    plain = numbers(network(tanh(x)), ("psi",), g=1.5, s2=1)
    moved = numbers(network(tanh(x), Quenched("b", Normal(Rational(1, 2), 1))), ("psi",), g=1.5, s2=1)
    assert moved["psi"] < 0.8 * plain["psi"]
    shown = repr(derive(network(tanh(x), Rational(1, 2))).fluctuations())
    assert "⟨K_ac(ω1)·K_bd(ω2)⟩" in shown


@pytest.mark.parametrize(("f", "odd"), [(tanh(U), True), (U, True), (U / (1 + U**2), True), (Max(U, 0), False)])
def test_which_outputs_have_a_mean(f: Expr, odd: bool) -> None:
    assert is_odd(SiteFunction("f", f)) is odd


def test_mistakes_about_units_that_are_alike_do_not_apply() -> None:
    with pytest.raises(NotCovered, match="alike"):
        derive(network(tanh(gain * x))).mutate("one-corner").solve(g=1.2, s2=1).quantity("PR_f")


def test_sampled_units_with_a_mean_are_refused() -> None:
    partly = network(Max(x, 0), 0, Gaussian("J", variance=g**2, symmetry=Rational(3, 10)))
    solution = derive(partly).solve(g=0.4, s2=1, sampling=Sampling(paths=60, average=2))
    with pytest.raises(NotCovered, match="sampled units with a mean"):
        solution.quantity("PR_x")


CASES: dict[str, Any] = {
    "threshold-linear": (network(Max(x, 0)), {"g": 0.8, "s2": 1}),
    "gains": (network(tanh(gain * x)), {"g": 1.4, "s2": 1}),
    "inhibition and drive": (network(tanh(x), 1, Gaussian("J", variance=g**2, mean=-2)), {"g": 1.5, "s2": 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_small_networks_agree(name: str) -> None:
    net, at = CASES[name]
    how = {"lags": [0], "burn": 10, "duration": 30, "dt": 0.1, "trajectories": 16, "lyapunov": False}
    run = simulate(net, N=300, trials=16, seed=1, params=at, dtype="float32", store=False, workers=1, **how)
    for key, value in numbers(net, **at).items():
        mean, error = (float(np.ravel(v)[0]) for v in (run[key].mean, run[key].error))
        print(name, key, value, mean, error)
        assert abs(mean - value) < 4 * error + 2 * abs(value) / 300
