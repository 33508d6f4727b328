"""Quadrature over labels of low-rank couplings: labels that only multiply outputs cost no product of fine rules."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Symbol, exp, symbols, tanh

from quenched import Normal
from quenched.numerics.labels import label_nodes, polynomial_degrees
from quenched.theory.problem import Label

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
