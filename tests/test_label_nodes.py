"""Quadrature over labels of low-rank couplings: labels that only multiply outputs cost no product of fine rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Max, Symbol, exp, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Laplace, Normal, Quenched, Uniform, derive, mean, outer
from quenched.numerics import averages as averages_module
from quenched.numerics.averages import Averages
from quenched.numerics.labels import condensed, label_nodes, polynomial_degrees
from quenched.theory.problem import Label
from quenched.theory.spaces import N

m, e, u = symbols("m e u", real=True)
s = Symbol("s", positive=True)
LABELS = (Label(m, Normal(0, 1)), Label(e, Normal(1, s**2)))


def test_labels_that_only_multiply() -> None:
    assert polynomial_degrees(LABELS, [(2 * m + e) * tanh(u), tanh(u)], [m / 2]) == {e: 1}
    assert polynomial_degrees(LABELS, [e**2 * tanh(u), m * u], [u]) == {m: 1, e: 2}
    assert polynomial_degrees(LABELS, [tanh(e * u), exp(m)], [u]) == {}


@pytest.mark.parametrize("power", [1, 2, 3])
def test_moments_up_to_products_are_exact(power: int) -> None:
    nodes, weights = label_nodes(LABELS, {s: 0.7}, degrees={e: power})
    fine, fine_weights = label_nodes(LABELS, {s: 0.7})
    assert len(nodes) * 97 == len(fine) * (power + 1)
    for k in range(2 * power + 1):
        value, expected = (
            w @ np.array([b**k * np.tanh(a + 0.3) for a, b in n]) for n, w in ((nodes, weights), (fine, fine_weights))
        )
        assert value == pytest.approx(expected, rel=1e-9)


def test_a_condensed_law_keeps_moments_and_carried_numbers() -> None:
    nodes, weights = label_nodes(LABELS, {s: 0.7})
    labels = np.array(nodes)
    x = 0.8 * labels[:, 0] + 0.5 * labels[:, 1]
    found, share, means = condensed(x, weights, labels, 64)
    assert len(found) <= 64
    assert share.sum() == pytest.approx(1, abs=1e-13)
    for f in (np.sin, lambda y: y**7, lambda y: np.tanh(y / 2)):
        assert share @ f(found) == pytest.approx(weights @ f(x), rel=1e-9)
        for k in range(2):
            assert share @ (means[:, k] * f(found)) == pytest.approx(weights @ (labels[:, k] * f(x)), rel=1e-9)


def mixed(f: Any) -> tuple[Any, dict[Any, float]]:
    """The problem of a network of rank two with an output f, and values."""
    x, J = Field("x"), Gaussian("J", variance=1)
    a, b = Quenched("a", Laplace()), Quenched("b", Uniform(-1, 2))
    low = (outer(a, a + b / 2) + outer(b, b)) / N
    net = Dynamics({x: -x + (J + low) @ f(x) + a / 2}).observe(overlap=mean(a * f(x)))
    problem = derive(net).derivation.problem
    assert problem is not None
    values = {Symbol(name): 0.3 + 0.2 * k for k, name in enumerate(("h_a", "h_b", "h_a1", "h_b1"))}
    return problem, values | {symbol: 0.3 + 0.2 * k for k, (symbol, _) in enumerate(problem.closing)}


def test_condensed_averages_are_those_of_the_product_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, values = mixed(tanh)

    def numbers() -> list[float]:
        found = Averages(problem, None, values)
        ones = [found.one(k, 0.1, 0.7).value for k in range(len(problem.one_points))]
        return [*ones, found.pair_average(0, 0.1, 0.1, 0.7, 0.7, 0.3), float(len(found.p) - len(found.weights))]

    short = numbers()
    monkeypatch.setattr(averages_module, "_CONDENSED", 10**6)
    full = numbers()
    assert short[-1] > 0 == full[-1]
    assert short[:-1] == pytest.approx(full[:-1], rel=1e-9)


@pytest.mark.parametrize("f", [lambda u: tanh(20 * u), lambda u: Max(u, 0)], ids=["steep", "kinked"])
def test_functions_that_a_condensed_law_does_not_resolve_keep_the_grid(f: Any) -> None:
    """With hardly any variance nothing smooths them."""
    problem, values = mixed(f)
    found = Averages(problem, None, values)
    few = len(found.p) - len(found.weights)
    assert few > 0
    for one in problem.one_points:
        assert len(found.nodes((found.generated.site(one.f),), (one.a,))) > few
