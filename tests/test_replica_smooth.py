"""Smooth channels: one matrix product for all fields and labels, against the integral of every single one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_ndtr
from sympy import Symbol, erf, exp, log, sqrt, symbols, tanh

from quenched import Field, Gibbs, Iid, Normal, Population, Quenched, derive, mean, units
from quenched.numerics import replica_sites
from quenched.numerics.replica_labels import make_site
from quenched.numerics.replica_parts import log_density
from quenched.theory.problem_replicas import Piece, ReplicaSite, X

e, t = symbols("e t", real=True)
NORMAL = exp(-(X**2) / 2) / sqrt(2 * 3.141592653589793)


@pytest.mark.parametrize("noise", [1e-2, 0.2])
def test_one_product_for_all_labels(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow likelihoods refine the common grid."""
    weight = exp(-((tanh(X) - tanh(t) - sqrt(noise) * e) ** 2) / (2 * noise))
    labels = ((t, (), NORMAL), (e, (), NORMAL))
    site = make_site(ReplicaSite("u", "channel", (Piece(None, weight),), labels), {})
    (case,) = site.cases
    assert case.probability.sum() == pytest.approx(1, abs=1e-12)
    b = 0.4 * case.labels[t] + np.linspace(-3, 3, 7)
    at = case.probability[:, 0] > 1e-3
    fast = [a[at] for a in site.logs(0, b, 0.3)]
    monkeypatch.setattr(replica_sites, "convolved", lambda *_: None)
    monkeypatch.setattr(replica_sites, "legendre", lambda _: np.polynomial.legendre.leggauss(500))
    for left, right in zip(fast, site.logs(0, b, 0.3), strict=True):
        assert left == pytest.approx(right[at], rel=1e-8, abs=1e-8)


def test_normal_probabilities_far_in_the_tail() -> None:
    u = np.linspace(-40, 5, 10)
    for sign in (1, -1):
        found = log_density([X], log((1 + sign * erf(X / sqrt(2))) / 2))(sign * u)
        assert found == pytest.approx(log_ndtr(u), rel=1e-14)


def optimal_overlap(alpha: float, noise: float) -> float:
    """Overlap of the posterior mean for y = tanh(u) + √Δ e and normal weights, iterated on plain grids."""
    z = np.linspace(-7, 7, 81)
    weight = np.exp(-z * z / 2) / np.sum(np.exp(-z * z / 2))
    y = np.linspace(-1 - 8 * np.sqrt(noise), 1 + 8 * np.sqrt(noise), 161)[:, None]
    q = 0.5
    for _ in range(60):
        fields, rest = np.sqrt(q) * z, np.sqrt(1 - q)
        u = fields[:, None, None] + rest * z
        likely = np.exp(-((y - np.tanh(u)) ** 2) / (2 * noise)) / np.sqrt(2 * np.pi * noise)
        total, first = likely @ weight, likely @ (weight * z) / rest
        known = np.sum(weight * np.sum(first**2 / np.maximum(total, 1e-200), axis=1)) * (y[1, 0] - y[0, 0])
        q = alpha * known / (1 + alpha * known)
    return float(q)


@pytest.mark.slow
def test_regression_on_a_saturating_output_is_optimal() -> None:
    """Weights drawn from the posterior are as near to the teacher as to each other."""
    noise, s = Symbol("Delta", positive=True), Field("s")
    patterns = Population("pattern", fraction=Symbol("alpha", positive=True))
    x, w = Iid("x", Normal(0, 1), over=(patterns, units)), Quenched("w_0", Normal(0, 1))
    label = tanh(x @ w) + sqrt(noise) * Quenched("e", Normal(0, 1), over=patterns)
    model = Gibbs({s: Normal(0, 1)}, weight=exp(-((label - tanh(x @ s)) ** 2) / (2 * noise)))
    solution = derive(model.observe(q=mean(s[1] * s[2]), m=mean(s * w))).solve(alpha=1.5, Delta=0.2)
    assert float(solution["q"]) == pytest.approx(float(solution["m"]), abs=1e-7)
    assert float(solution["q"]) == pytest.approx(optimal_overlap(1.5, 0.2), abs=1e-6)
