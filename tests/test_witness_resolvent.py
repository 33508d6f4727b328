"""Every step of the resolvent reading against numbers, and mechanical mutants of every form."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from sympy import I, Rational, cosh, exp, sqrt, symbols

from quenched import (
    Circulant,
    Gaussian,
    Iid,
    Laplace,
    N,
    Normal,
    Population,
    Quenched,
    Spectrum,
    Uniform,
    catalogue,
    derive,
    diag,
    eye,
    outer,
    units,
)
from quenched.validate.witness import survey_mutants, verify

g, f = symbols("g f", positive=True)
eta = symbols("eta", real=True)
a, x = Quenched("a", Uniform(1, 2)), Quenched("x", Normal(0, 1))
P, Q = Population("P", f), Population("Q", Rational(1, 3))
h = Quenched("h", Uniform(), over=P)
J, W, B = Gaussian("J", g**2, symmetry=eta), Gaussian("W", symmetry=1), Gaussian("B", mean=g)
K, L = Iid("K", Laplace(g), over=(P, units)), Gaussian("L", g, over=(Q, P))
twin = Gaussian("T", g, correlation={B: Rational(1, 3)})

MATRICES: dict[str, Any] = {
    "gains": diag(a) @ J @ diag(1 / cosh(x) ** 2) - g * eye,
    "products": diag(a) + diag(x) @ J @ diag(a) @ B @ diag(x + a) + J.T,
    "covariance": diag(sqrt(1 + h)) @ K @ diag(a) @ K.T @ diag(sqrt(1 + h)),
    "rectangles": K.T @ L.T @ L @ K + g * W,
    "correlated": twin @ B.T + B @ diag(a),
    "rank": B @ (eye - outer(1, a) / N) + g * outer(a, x) / sqrt(N),
    "anticommutator": W @ B @ W + B.T @ diag(x),
    "inverse": diag(a) @ (3 * eye + J).inv() @ B,
    "ratio": W.inv() @ B,
    "complex": K.T @ diag(g * exp(-I * h)) @ K,
    "shift": K.T @ Circulant("C", {0: 1, 1: g}, over=(P, P)) @ K,
    "blocks": {(P, P): Gaussian("PP", g, symmetry=eta, over=(P, P)), (P, Q): L.T, (Q, P): 2 * L},
}


@cache
def derivation(name: str) -> Any:
    return derive(Spectrum(MATRICES[name])).derivation


@pytest.mark.parametrize("name", MATRICES)
def test_every_step_keeps_its_meaning(name: str) -> None:
    ticks = verify(derivation(name))
    assert [t.title for t in ticks] == derivation(name).titles()
    assert [f"{t.title}: {t.detail}" for t in ticks if t.passed is False] == []
    silent = [t.title for t in ticks if t.passed is None]
    assert len(silent) <= (1 if name == "ratio" else 0), [t.detail for t in ticks if t.passed is None]


@pytest.mark.parametrize("name", ["gains", "covariance", "rank", "correlated", "blocks", "inverse"])
def test_no_mutant_survives(name: str) -> None:
    survey = survey_mutants(derivation(name))
    assert len(survey) > 20
    assert [f"{m.step}: {m.label} ({m.deviation:.1e})" for m in survey if not m.caught] == []


ENTRIES = [
    "wigner", "circular", "elliptic", "block-profile", "ei-columns", "non-normal", "rate-jacobian",
    "sample-covariance", "ginibre-product", "anticommutator", "random-matrix-core",
]  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_the_catalogue_is_ticked(name: str) -> None:
    ticks = verify(derive(catalogue[name]()).derivation)
    assert [t.passed for t in ticks] == [True] * len(ticks), [t.detail for t in ticks if not t.passed]
