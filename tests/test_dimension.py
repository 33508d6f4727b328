"""Estimators of participation ratios and cross-covariances on trajectories whose covariance is known."""

from __future__ import annotations

import numpy as np
import pytest

from quenched.theory.errors import QuenchedError
from quenched.validate.dimension import CrossMoments, cross_covariance, cross_moments, participation

SIZE, STEPS = 30, 400


def networks(count: int, blocks: int = 8) -> tuple[list[CrossMoments], np.ndarray]:
    """Independent samples a = A z of one fixed covariance AAᵀ, moved on by a known rotation for the lagged product."""
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE) + 0.5 * np.eye(SIZE)
    found = []
    for _ in range(count):
        z = rng.normal(size=(STEPS + 1, SIZE))
        # a(t+1) shares z(t) with a(t): C(0) = 2AAᵀ, C(1) = AAᵀ
        found.append(cross_moments((z[1:] + z[:-1]) @ mixing.T, (0, 1), blocks))
    return found, mixing @ mixing.T


def test_moments_are_unbiased() -> None:
    found, base = networks(60)
    truth = {
        "trace_squared": 4 * np.trace(base) ** 2,
        "squared_trace": np.array([4.0, 1.0]) * np.sum(base * base),
        "diagonal": np.array([4.0, 1.0]) * np.sum(np.diag(base) ** 2),
    }
    for name, expected in truth.items():
        each = np.array([getattr(n, name) for n in found])
        error = each.std(axis=0, ddof=1) / np.sqrt(len(each))
        assert np.all(np.abs(each.mean(axis=0) - expected) < 4 * error), name
        assert np.all(error < 0.03 * np.abs(expected)), name


def test_the_plain_estimate_would_be_wrong() -> None:
    rng = np.random.default_rng(6)
    samples = rng.normal(size=(STEPS, SIZE))
    plain = np.sum((samples.T @ samples / STEPS) ** 2) - SIZE
    assert plain > 1.5
    each = [cross_moments(rng.normal(size=(STEPS, SIZE))) for _ in range(40)]
    assert abs(np.mean([n.squared_trace[0] for n in each]) - SIZE) < 0.6


def test_ratios_and_cross_covariances() -> None:
    found, base = networks(40)
    ratio, error = participation(found)
    exact = np.trace(base) ** 2 / np.sum(base * base) / SIZE
    assert abs(ratio - exact) < 4 * error < 0.1 * exact
    psi, spread = cross_covariance(found)
    off = np.sum(base * base) - np.sum(np.diag(base) ** 2)
    assert np.all(np.abs(psi - np.array([4.0, 1.0]) * off / (SIZE - 1)) < 4 * spread)


def test_too_short_runs_are_refused() -> None:
    with pytest.raises(QuenchedError, match="blocks"):
        cross_moments(np.zeros((20, 3)), (0, 4))
    with pytest.raises(QuenchedError, match="two networks"):
        participation([cross_moments(np.ones((20, 3)))])
