"""Edges where naive readings fail: atoms, unbounded labels, gaps that are none, and starts from neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Rational, cosh

from quenched import (
    Circulant,
    Count,
    Edge,
    Gaussian,
    Iid,
    Ising,
    Moment,
    Normal,
    NotCovered,
    Population,
    Quenched,
    Spectrum,
    catalogue,
    derive,
    diag,
    eye,
)
from quenched.numerics.dyson import Dyson
from quenched.theory.spaces import units

W, B = Gaussian("W", symmetry=1), Gaussian("B", symmetry=Rational(1, 2))
x, s = Quenched("x", Normal(0, 1)), Quenched("s", Ising())
half = Population("P", Rational(1, 2))
xi = Iid("xi", Ising(), over=(half, units))
one_sided = xi.T @ Circulant("X", {0: -1, 1: Rational(1, 2), 2: -Rational(1, 2)}, over=(half, half)) @ xi


@pytest.mark.parametrize(
    ("net", "values", "side", "mass", "place"),
    [
        (catalogue["hebbian-length-spectrum"](), {"alpha": 0.1, "c": 1, "gamma": 0.3}, "left", 0.9, -0.1),
        pytest.param(Spectrum(one_sided), {}, "right", 0.5, 0.0, marks=pytest.mark.slow),
        (Spectrum((eye + diag(s)) @ B @ W + 4 * diag(s)), {}, "left", 0.5, -4.0),
    ],
    ids=["window", "one-sided window", "silent rows"],
)
def test_atoms_beyond_an_edge_are_said(net: Spectrum, values: Any, side: str, mass: float, place: float) -> None:
    found = derive(net).solve(**values)
    with pytest.raises(NotCovered, match="beyond the edge") as stop:
        found.reader.number(Edge(side))
    edge = found.edges()[0 if side == "left" else -1].value
    bound = {"above" if side == "left" else "below": (edge + place) / 2}
    assert found.reader.number(Edge(side, **bound)).value == pytest.approx(edge, abs=1e-5)
    beyond = found.reader.extents.atoms_beyond(1.0 if side == "right" else -1.0, edge, np.inf)
    assert beyond == pytest.approx((mass, place), abs=1e-3)
    assert f"{mass:g}" in str(stop.value)


def test_unbounded_labels_have_no_edges() -> None:
    net = Spectrum(W + diag(x)).observe(right=Edge(), m=Moment(2), middle=Count(-1, 1))
    found = derive(net).solve()
    assert "x ~ Normal(0, 1) enters it without bound" in found.main.missing()["right"]
    assert found.quantity("m").value == pytest.approx(2, abs=1e-6)
    with pytest.raises(NotCovered, match="no edges"):
        found.edges()
    with pytest.raises(NotCovered, match="no edges"):
        derive(Spectrum(Gaussian("J") + diag(x))).solve().reader.number(Edge())
    bounded = derive(Spectrum(Gaussian("J") @ diag(x) - eye)).solve()  # ⟨x²⟩ is all that matters
    assert bounded.edges()[-1].value == pytest.approx(0, abs=1e-6)


def test_real_eigenvalues_of_a_matrix_without_symmetry() -> None:
    """X @ K @ K.T with a positive X has the eigenvalues of a symmetric matrix; written so its edges are given."""
    wide = Population("S", 2)
    K = Gaussian("K", over=(units, wide))
    window = {0: 1, 1: Rational(1, 4), -1: Rational(1, 4)}
    X = Circulant("X", window)
    with pytest.raises(NotCovered, match="declare a symmetric matrix"):
        derive(Spectrum(X @ K @ K.T)).solve().edges()
    right = derive(Spectrum(K.T @ X @ K)).solve().edges()[-1].value
    n, rng = 400, np.random.default_rng(1)
    first = np.zeros(n)
    first[[0, 1, -1]] = 1, 0.25, 0.25
    explicit = np.array([np.roll(first, i) for i in range(n)])
    sample = rng.standard_normal((n, 2 * n)) / np.sqrt(n)
    assert np.linalg.eigvals(explicit @ sample @ sample.T).real.max() == pytest.approx(right, rel=0.05)


def test_gaps_near_atoms_are_confirmed() -> None:
    """Weights that cross zero leave eigenvalues next to the atom at zero: one interval, no gap about it."""
    found = derive(catalogue["hebbian-length-spectrum"](d=2)).solve(alpha=0.25, c=0, gamma=-0.5)
    assert [e.value for e in found.edges()] == pytest.approx([-2.66078, 1.66857], abs=6e-6)
    split = derive(catalogue["random-matrix-core"]()).solve(sigma=0.6)
    assert len(split.edges()) == 4


@pytest.mark.parametrize("name", ["anticommutator", "sample-covariance", "hebbian-length-spectrum"])
def test_neighbours_lead_to_the_solution_from_infinity(name: str) -> None:
    net = catalogue[name]()
    problem = derive(net).problem.analytic
    line = np.linspace(-3.1, 11, 160)
    for z in (line + 0j, line + 0.05j, line - 0.4j):
        dyson = Dyson(problem, net.values())
        near, error = dyson.follow_above(z)
        far, _ = dyson.follow_from_infinity(z)
        assert error.max() < 1e-9
        np.testing.assert_allclose(near, far, atol=1e-8 * (1 + np.abs(far).max()))


def test_labels_through_a_bounded_function_keep_their_edges() -> None:
    found = derive(Spectrum(diag(1 / cosh(x) ** 2) @ W @ diag(1 / cosh(x) ** 2))).solve()
    assert len(found.edges()) == 2
