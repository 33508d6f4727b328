"""Translation-invariant matrices: how they are written, sampled, and what their spectra are."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sympy import I, cos, exp, sin, symbols

from quenched import Circulant, Gaussian, Iid, Ising, Normal, Population, Quenched, QuenchedError, Spectrum, derive
from quenched.theory import NotCovered, Uniform, diag, eye, outer, units
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.sampling import circulant
from quenched.validate.spectra import eigenvalues, sample

alpha = symbols("alpha", positive=True)
c, gamma, theta = symbols("c gamma theta", real=True)
seq = Population("P", fraction=alpha)
xi = Iid("xi", Ising(), over=(seq, units))
two_sided = {0: c, 1: gamma, -1: gamma}


def matrix_of(atom: Circulant, size: int, **values: float) -> np.ndarray:
    spec = matrix_spec(atom, Numbers({symbols(k, real=True): v for k, v in values.items()}, size))
    assert spec.column is not None
    return circulant(np.array(spec.column))


def test_entries_by_shift_stand_where_they_are_written() -> None:
    X = Circulant("X", {0: 3, 1: 2, -2: 5})
    expected = np.zeros((7, 7))
    for k in range(7):
        expected[k, k], expected[(k + 1) % 7, k], expected[(k - 2) % 7, k] = 3, 2, 5
    np.testing.assert_allclose(matrix_of(X, 7), expected, atol=1e-12)
    np.testing.assert_allclose(matrix_of(Circulant("X", {0: c, 1: gamma}), 5, c=0.5, gamma=-2).sum(), 5 * (0.5 - 2))


def test_eigenvalues_give_the_same_matrix_as_entries() -> None:
    X = Circulant("X", two_sided)
    assert Circulant("X", c + 2 * gamma * cos(theta)) == X
    assert X.symmetric
    assert X.T == X
    Y = Circulant("Y", {0: c, 1: gamma, 2: gamma})
    assert Circulant("Y", c + gamma * sum(exp(-1j * r * theta) for r in (1, 2))) == Y
    assert not Y.symmetric
    modes = np.exp(2j * np.pi * np.outer(np.arange(9), np.arange(9)) / 9)
    eigenvalue = [0.3 + 0.7 * sum(np.exp(-2j * np.pi * r * k / 9) for r in (1, 2)) for k in range(9)]
    np.testing.assert_allclose(matrix_of(Y, 9, c=0.3, gamma=0.7) @ modes, modes * eigenvalue, atol=1e-12)


def test_it_prints_and_pickles() -> None:
    X = Circulant("X", two_sided, over=(seq, seq))
    assert "eigenvalues c + 2 γ cos(θ)" in repr(X).replace("gamma", "γ").replace("2 γ cos(θ) + c", "c + 2 γ cos(θ)")
    assert pickle.loads(pickle.dumps(X)) == X
    assert X.eigenvalue.free_symbols == {c, gamma, *(X.eigenvalue.free_symbols - {c, gamma})}
    assert Spectrum(xi.T @ X @ xi).parameters == (alpha, c, gamma)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Circulant("X", {0.5: 1}), "whole number"),
        (lambda: Circulant("X", {}), "no entries"),
        (lambda: Circulant("X", cos(theta) * cos(c)), "give angle="),
        (lambda: Circulant("X", I * cos(theta)), "not real"),
        (lambda: Circulant("X", {0: 1}, over=(seq, units)), "equal row and column"),
        (lambda: Circulant("X", cos(theta), angle=2), "should be a symbol"),
        (lambda: Circulant("X", cos(theta), over=(Population("ring", labels=Uniform(0, 1)),) * 2), "labels"),
    ],
)
def test_slips_are_refused(make, words) -> None:
    with pytest.raises(QuenchedError, match=words):
        make()


def test_the_angle_may_be_named() -> None:
    X = Circulant("X", c * cos(theta) + sin(c) * cos(theta) ** 2, angle=theta)
    assert X.mode(theta) == c * cos(theta) + sin(c) * cos(theta) ** 2


# -- spectra -------------------------------------------------------------------------------------------------------
def test_symmetric_window() -> None:
    X = Circulant("X", {0: c, 1: gamma, -1: gamma, 2: gamma, -2: gamma}, over=(seq, seq))
    net = Spectrum(xi.T @ X @ xi - alpha * c * eye)
    assert net.hermitian
    found = derive(net).solve(alpha=0.5, c=1, gamma=0.3)
    assert [e.value for e in found.edges()] == pytest.approx([-0.447101, 3.518138], abs=2e-6)
    assert found.density(3.518138 / 2) == pytest.approx(0.06156, abs=6e-6)


def test_one_sided_window_with_a_void() -> None:
    net = Spectrum(xi.T @ Circulant("X", {0: c, 1: gamma}, over=(seq, seq)) @ xi)
    assert not net.hermitian
    ring = derive(net).solve(alpha=0.5, c=0, gamma=1)
    assert [e.value for e in ring.edges()] == pytest.approx([-(1.5**0.5), -(0.5**1.5), 0.5**1.5, 1.5**0.5], abs=5e-6)


def test_a_sampled_window_has_the_derived_moments() -> None:
    """Negative coefficients; the explicit matrix is drawn from the declaration."""
    X = Circulant("X", {0: 0, 1: -0.5, -1: -0.5, 2: -0.5, -2: -0.5}, over=(seq, seq))
    found = eigenvalues(Spectrum(xi.T @ X @ xi), N=400, trials=6, seed=1, alpha=0.25)
    second = np.mean(found.values**2, axis=1)
    third = np.mean(found.values**3, axis=1)
    assert abs(second.mean() - 0.25) < 5 * second.std() / 6**0.5 + 0.01
    assert abs(third.mean() + 0.1875) < 5 * third.std() / 6**0.5 + 0.01


def test_beside_other_matrices() -> None:
    """A cyclic shift and a random matrix: |λ| from √max(0, 1−g²) to √(1+g²), as unitaries and Gaussians are free."""
    net = Spectrum(Circulant("X", {1: 1}) + gamma * Gaussian("J"))
    found = [e.value for e in derive(net).solve(gamma=0.6).edges()]
    assert found == pytest.approx([-(1.36**0.5), -0.8, 0.8, 1.36**0.5], abs=1e-6)
    radii = np.abs(np.linalg.eigvals(sample(net, 300, 0, 0, net.values(gamma=0.6))))
    assert radii.min() > 0.75
    assert radii.max() < 1.22


def test_what_has_other_eigenvectors_is_refused() -> None:
    X = Circulant("X", {1: 1})
    with pytest.raises(NotCovered, match="different eigenvectors"):
        derive(Spectrum(X + diag(Quenched("d", Normal(0, 1)))))
    with pytest.raises(NotCovered, match="over the population"):
        derive(Spectrum(X + outer(Quenched("d", Normal(0, 1)), 1)))
    with pytest.raises(NotCovered, match="mean"):
        derive(Spectrum(X + Gaussian("J", mean=1)))
