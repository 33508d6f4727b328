"""Inverses in a declared matrix: the pencil, exact laws, supports without an end, and samples."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Rational, symbols

from quenched import Gaussian, Normal, Population, Quenched, QuenchedError, Spectrum, derive
from quenched.theory import diag, eye, units
from quenched.theory.algebra import Inverse
from quenched.theory.linearise import Pencil, linearise, schur_complement
from quenched.theory.spectrum import SpectrumDeclaration
from quenched.validate.spectra import eigenvalues, sample

A, B = Gaussian("A"), Gaussian("B")
W = Gaussian("W", symmetry=1)
d = Quenched("d", Normal(2, Rational(1, 4)))
theta = symbols("theta", real=True)


def test_inverses_are_written_out() -> None:
    assert (2 * A).inv() == A.inv() / 2
    assert (A @ B).inv() == B.inv() @ A.inv()
    assert A.inv().inv() == A
    assert A.T.inv() == A.inv().T
    assert (diag(d) @ A).inv() == A.inv() @ diag(1 / d)
    assert eye.inv() == eye
    assert isinstance((A + B).inv(), Inverse)
    P = Population("P", 2)
    K = Gaussian("K", over=(units, P))
    assert isinstance((K @ K.T).inv(), Inverse)
    with pytest.raises(QuenchedError, match="only square"):
        K.inv()


def test_hermitian_inverses_are_recognised() -> None:
    assert Spectrum((W - 3 * eye).inv()).hermitian
    assert Spectrum(A @ (A.T @ A + eye).inv() @ A.T).hermitian
    assert not Spectrum(A.inv() @ W).hermitian


@pytest.mark.parametrize(
    "matrix",
    [
        A.inv() @ B,
        A @ (W @ W + A @ diag(d) @ A.T).inv() @ B.T + B.inv(),
        (eye - A @ (B - 2 * eye).inv() @ W).inv() @ diag(d),
        diag(d) @ (A + (B + eye * theta).inv()).inv() @ diag(d) - 2 * eye,
    ],
)
def test_schur_complements_in_numbers(matrix) -> None:
    """(L⁻¹) on the first block is (z − M)⁻¹ for explicit matrices."""
    net = Spectrum(matrix)
    values = {s: 0.3 for s in net.parameters}
    pencil, size, z = linearise(SpectrumDeclaration(net)), 5, 0.3 + 0.7j
    M = sample(net, size, 4, 0, values)
    expected = np.linalg.inv(z * np.eye(size) - M)
    np.testing.assert_allclose(explicit(pencil, net, size, z, values)[:size, :size], expected, rtol=1e-8, atol=1e-9)


def explicit(pencil: Pencil, net: Spectrum, size: int, z: complex, values) -> np.ndarray:
    """L⁻¹ for the sampled atoms of `sample(net, size, 4, 0, …)`."""
    atoms = {a: sample(Spectrum(a + 0 * net_sum(net)), size, 4, 0, values) for a in net.matrices}
    labels = np.diag(sample(Spectrum(diag(d)), size, 4, 0, values))
    n = len(pencil.blocks)
    L = np.zeros((n * size, n * size), complex)

    def put(i: int, j: int, matrix: np.ndarray) -> None:
        L[i * size : (i + 1) * size, j * size : (j + 1) * size] += matrix

    def vector(expr) -> np.ndarray:
        from sympy import lambdify

        from quenched.theory.problem_dyson import Z

        function = lambdify([d, Z, theta], expr)
        return np.broadcast_to(function(labels, z, 0.3), size).astype(complex)

    for i, j, value in pencil.bare:
        put(i, j, np.diag(vector(value)))
    for o in pencil.occurrences:
        matrix = atoms[o.atom].T if o.transposed else atoms[o.atom]
        put(o.row, o.col, vector(o.coefficient)[0] * vector(o.left)[:, None] * matrix * vector(o.right))
    return np.linalg.inv(L)


def net_sum(net: Spectrum):
    return sum(net.matrices[1:], net.matrices[0])


def test_a_wrong_pencil_is_noticed() -> None:
    from dataclasses import replace

    from quenched.theory.linearise import check_schur

    declared = SpectrumDeclaration(Spectrum(A @ (B - 2 * eye).inv() @ W))
    pencil = linearise(declared)
    for k, o in enumerate(pencil.occurrences):
        wrong = replace(o, coefficient=o.coefficient * Rational(11, 10))
        mutant = replace(pencil, occurrences=(*pencil.occurrences[:k], wrong, *pencil.occurrences[k + 1 :]))
        with pytest.raises(QuenchedError, match="Schur complement"):
            check_schur(declared, mutant)
    assert schur_complement(pencil).shape == (1, 1)


# -- numbers -------------------------------------------------------------------------------------------------------
def test_spherical_ensemble() -> None:
    """X₁⁻¹X₂ is the stereographic image of uniform points on a sphere: |z| < r holds r²/(1+r²) of them."""
    theory = derive(Spectrum(A.inv() @ B))
    found = theory.solve()
    assert found.count(disc=0.8).value == pytest.approx(0.64 / 1.64, abs=1e-9)
    z = np.array([0, 0.5, 1 + 1j])
    np.testing.assert_allclose(found.density(z), 1 / np.pi / (1 + np.abs(z) ** 2) ** 2, rtol=1e-9)
    assert found.edges() == []
    assert "no branch" in theory.derivation.refusals[0][1]


def test_a_support_without_an_end() -> None:
    found = derive(Spectrum((A + B).inv())).solve()
    assert [e.value for e in found.edges()] == pytest.approx([-(0.5**0.5), 0.5**0.5], abs=1e-9)
    assert found.count(disc=1).value == pytest.approx(0.5, abs=1e-9)
    assert found.resolvent(0.2) == pytest.approx(0, abs=1e-12)


def test_inverse_covariance() -> None:
    K = Gaussian("K", over=(units, Population("P", 2)))
    edges = [e.value for e in derive(Spectrum((K @ K.T).inv())).edges()]
    assert edges == pytest.approx([(2**0.5 + 1) ** -2, (2**0.5 - 1) ** -2], rel=1e-7)


def test_shifted_inverses() -> None:
    """1/(w − 2) maps the disc |w| < 1 to one between −1 and −1/3; times a Gaussian its radius is ⟨|w − 2|⁻²⟩^½."""
    found = derive(Spectrum((A - 2 * eye).inv())).solve()
    assert [e.value for e in found.edges()] == pytest.approx([-1, -1 / 3], abs=1e-8)
    found = derive(Spectrum((A - 2 * eye).inv() @ B)).solve()
    assert found.edges()[-1].value == pytest.approx(3**-0.5, abs=1e-8)
    estimate = eigenvalues(Spectrum((A - 2 * eye).inv() @ B), N=200, trials=6, seed=2).disc(0.5)
    assert abs(found.count(disc=0.5).value - estimate.value) < 5 * estimate.error + 0.005


def test_a_rational_function_of_one_matrix() -> None:
    """w + 1/(w − 3) on the semicircle: moments by quadrature over its angle."""
    found = derive(Spectrum((W - 3 * eye).inv() + W)).solve()
    angle = np.pi * (np.arange(2000) + 0.5) / 2000
    w, weight = 2 * np.cos(angle), np.sin(angle) ** 2 / 1000
    value = w + 1 / (w - 3)
    z = 0.4 + 0.5j
    assert found.resolvent(z) == pytest.approx((weight / (z - value)).sum(), abs=1e-8)
    low, high = -1.0, 0.5
    assert found.count(window=(low, high)).value == pytest.approx(
        weight[(value > low) & (value < high)].sum(), abs=1e-3
    )
