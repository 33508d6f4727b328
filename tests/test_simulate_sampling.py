"""Moments of drawn couplings and unit disorder; streams of random numbers."""

import numpy as np
import pytest

from quenched.theory.couplings import Gaussian, Iid
from quenched.theory.distributions import (
    Bernoulli,
    Exponential,
    HalfNormal,
    Ising,
    Laplace,
    Normal,
    SpikeSlab,
    Uniform,
)
from quenched.theory.errors import QuenchedError
from quenched.theory.spaces import Population, units
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.sampling import MatrixSpec, correlated_groups, sample_law, sample_matrices, stream


def draw(*specs, seed=0, N=1):
    return sample_matrices(specs, lambda name: stream(seed, N, 0, name))


def near(value, expected, error):
    """Within five standard errors."""
    assert abs(value - expected) < 5 * error, (value, expected, error)


@pytest.mark.parametrize("symmetry", [-1.0, -0.3, 0.0, 0.6, 1.0])
def test_symmetry_gives_transposed_covariance_and_diagonal(symmetry):
    n, v, m = 400, 0.5, 0.3
    J = draw(MatrixSpec("J", n, n, variance=v, mean=m, symmetry=symmetry))["J"] - m
    upper = np.triu_indices(n, 1)
    pairs = len(upper[0])
    near(np.mean(J[upper]), 0, np.sqrt(v / pairs))
    near(np.mean(J[upper] ** 2), v, np.sqrt(2 * v**2 / pairs))
    near(np.mean(J[upper] * J.T[upper]), symmetry * v, v * np.sqrt((1 + symmetry**2) / pairs) + 1e-12)
    near(np.mean(np.diag(J) ** 2), (1 + symmetry) * v, (1 + symmetry) * v * np.sqrt(2 / n) + 1e-12)


def test_correlated_matrices():
    n = 500
    A = MatrixSpec("A", n, n, variance=2.0, symmetry=0.5)
    B = MatrixSpec("B", n, n, variance=0.5, correlation=(("A", -0.6),))
    C = MatrixSpec("C", n, n, variance=1.0)
    out = draw(A, C, B)
    near(np.mean(out["A"] * out["B"]), -0.6, 1.5 / n)
    near(np.mean(out["A"] * out["B"].T), 0, 1.5 / n)
    near(np.mean(out["A"] * out["A"].T), 1.0, 3 / n)
    near(np.mean(out["A"] * out["C"]), 0, 2 / n)
    assert [[m.name for m in g] for g in correlated_groups([A, C, B])] == [["C"], ["A", "B"]]


def test_contradicting_correlations_are_refused():
    A = MatrixSpec("A", 4, 4, variance=1.0, symmetry=1.0)
    with pytest.raises(QuenchedError, match="contradict"):
        draw(A, MatrixSpec("B", 4, 4, variance=1.0, correlation=(("A", 0.5),)))


def test_removed_diagonal():
    J = draw(MatrixSpec("J", 5, 5, variance=1.0, mean=2.0, diagonal=0.0))["J"]
    assert not np.diag(J).any()
    assert np.count_nonzero(J) == 20


def test_scaling_of_declared_matrices():
    half, three = Population("half", fraction=0.5), Population("three", size=3)
    numbers = Numbers({}, 100)
    J = matrix_spec(Gaussian("J", variance=4, mean=2, over=(half, units)), numbers)
    assert (J.rows, J.cols, J.variance, J.mean) == (50, 100, 0.04, 0.02)
    W = matrix_spec(Gaussian("W", variance=4, mean=2, over=(units, three)), numbers)
    assert (W.rows, W.cols, W.variance, W.mean) == (100, 3, 4.0, 2.0)
    H = matrix_spec(Gaussian("H", variance=4, over=(units, half)), numbers)
    assert H.variance == 0.04  # scales with N, not with the number of columns
    A = matrix_spec(Iid("A", Ising()), numbers)
    assert set(np.unique(draw(A)["A"])) == {-0.1, 0.1}
    B = matrix_spec(Iid("B", Ising(), over=(units, three)), numbers)
    assert set(np.unique(draw(B)[B.name])) == {-1.0, 1.0}


@pytest.mark.parametrize(
    "law",
    [
        Normal(0.3, 2),
        Uniform(-1, 3),
        Ising(),
        Bernoulli(0.3),
        Laplace(0.7),
        HalfNormal(1.5),
        Exponential(2),
        SpikeSlab(0.2, Normal(1, 0.5)),
    ],
    ids=lambda law: type(law).__name__,
)
def test_laws_have_their_declared_moments(law):
    sample = sample_law(stream(1, 1, 0, "law"), (40000,), Numbers({}, 1).law(law))
    near(sample.mean(), float(law.mean_()), np.sqrt(float(law.variance_()) / sample.size))
    spread = (sample - sample.mean()) ** 2
    near(spread.mean(), float(law.variance_()), spread.std() / np.sqrt(sample.size) + 1e-12)


def test_streams_depend_on_all_of_their_names():
    first = stream(0, 100, 0, "matrix:J").standard_normal(3)
    assert np.array_equal(first, stream(0, 100, 0, "matrix:J").standard_normal(3))
    for other in ((1, 100, 0, "matrix:J"), (0, 101, 0, "matrix:J"), (0, 100, 1, "matrix:J"), (0, 100, 0, "matrix:K")):
        assert not np.array_equal(first, stream(*other).standard_normal(3))
