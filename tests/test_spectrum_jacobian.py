"""Jacobians of declared dynamics: the matrix, and its spectrum at a typical state."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from sympy import Rational, cos, symbols, tanh

from quenched import Count, Dynamics, Edge, Field, Map, Spectrum, derive, jacobian, mean, validate
from quenched.theory import Gaussian, Normal, NotCovered, Population, Quenched, WhiteNoise, diag, eye, outer, t, units
from quenched.theory.spaces import N

g = symbols("g", positive=True)
x = Field("x")
J, K = Gaussian("J", g**2), Gaussian("K")
q = Quenched("x", Normal(0, 1))
laws = {x: Normal(0, 1)}


def fourth(variance: float) -> float:
    """⟨sech⁴(u)⟩ over a Gaussian of this variance."""
    root = np.sqrt(variance)
    return quad(lambda u: np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi) * np.cosh(root * u) ** -4, -12, 12, limit=200)[0]


def of(rhs: object) -> Spectrum:
    return jacobian(Dynamics({x: rhs}), laws)


def test_jacobians_follow_the_chain_rule() -> None:
    slope = 1 - tanh(q) ** 2
    assert of(-x + J @ tanh(x)) == Spectrum(J @ diag(slope) - eye)
    assert of(-x + J @ (x**2) + J.T @ x) == Spectrum(J @ diag(2 * q) + J.T - eye)
    assert of(-(x**3) + x * 2) == Spectrum(diag(2 - 3 * q**2))
    assert of(-x + K @ (J @ tanh(x))) == Spectrum(K @ J @ diag(slope) - eye)
    assert of(-x + mean(x**2)) == Spectrum(outer(1, 2 * q, over=(units, units)) / N - eye)
    assert jacobian(Map({x: J @ x})) == Spectrum(J)
    assert of(-x + J @ x + WhiteNoise("xi")) == Spectrum(J - eye)


def test_what_has_no_jacobian_matrix_says_so() -> None:
    with pytest.raises(NotCovered, match="delayed"):
        of(-x(t - 1))
    with pytest.raises(NotCovered, match="without t"):
        of(-x * cos(t))
    with pytest.raises(NotCovered, match="multiplies the state"):
        of(-x + x * WhiteNoise("xi"))
    with pytest.raises(NotCovered, match="whose law is not a field's"):
        of(-x + tanh(J @ x))
    with pytest.raises(NotCovered, match="give its law"):
        jacobian(Dynamics({x: -x + J @ tanh(x)}))
    with pytest.raises(NotCovered, match="give its law"):
        jacobian(Dynamics({x: -x + J @ tanh(x), Field("y"): x * Field("y")}))
    net = Dynamics({x: -x + Gaussian("S", Rational(1, 9), symmetry=Rational(1, 2)) @ x})
    with pytest.raises(NotCovered):
        derive(net).jacobian_spectrum()


def test_the_jacobian_of_a_chaotic_network() -> None:
    """Edge −1 + g√⟨φ′²⟩, and the count of eigenvalues in an integrated network of 300 units."""
    theory = derive(Dynamics({x: -x + J @ tanh(x)}))
    gain = 3.0
    spectrum = theory.jacobian_spectrum(g=gain)
    variance = float(theory.solved(theory.values(g=gain)).state.variance[0])
    slope = fourth(variance)
    assert spectrum.edges()[-1].value == pytest.approx(-1 + gain * np.sqrt(slope), abs=1e-6)

    rng = np.random.default_rng(2)
    found = []
    for _ in range(4):
        couplings = rng.standard_normal((300, 300)) * gain / np.sqrt(300)
        state = rng.standard_normal(300)
        for _ in range(400):
            state = state + 0.1 * (-state + couplings @ np.tanh(state))
        values = np.linalg.eigvals(couplings * np.cosh(state) ** -2.0 - np.eye(300))
        found.append(np.mean(np.abs(values + 1) < 0.5))
    assert spectrum.count(disc=(0.5, -1)).value == pytest.approx(np.mean(found), abs=0.03)


def test_two_populations() -> None:
    E, I = Population("E", Rational(4, 5)), Population("I", Rational(1, 5))
    e, i = Field("e", E), Field("i", I)
    a, b, c, d = (
        Gaussian(name, v, over=over)
        for name, v, over in (("A", g**2, (E, E)), ("B", 2, (E, I)), ("C", 3, (I, E)), ("D", 1, (I, I)))
    )
    net = Dynamics({e: -e + a @ tanh(e) + b @ tanh(i), i: -i + c @ tanh(e) + d @ tanh(i)})
    edge = derive(jacobian(net, {e: Normal(0, 1), i: Normal(0, 2)})).edges(g=1.5)[-1].value
    table = np.array([[2.25, 2], [3, 1]]) * np.array([0.8, 0.2]) * np.array([fourth(1), fourth(2)])
    assert edge == pytest.approx(-1 + np.sqrt(np.linalg.eigvals(table).max()), abs=1e-6)


@pytest.mark.slow
def test_the_jacobian_of_a_solved_network_is_a_matrix_to_validate() -> None:
    """Two populations, chaotic: the laws of their states come from the solved theory, the matrices are sampled."""
    E, I = Population("E", Rational(4, 5)), Population("I", Rational(1, 5))
    e, i = Field("e", E), Field("i", I)
    a, b, c, d = (
        Gaussian(name, v, over=over)
        for name, v, over in (("A", g**2, (E, E)), ("B", 2, (E, I)), ("C", 3, (I, E)), ("D", 1, (I, I)))
    )
    net = Dynamics({e: -e + a @ tanh(e) + b @ tanh(i), i: -i + c @ tanh(e) + d @ tanh(i)})
    theory = derive(net)
    matrix = theory.jacobian(g=2.5)
    assert matrix.parameters == ()
    edge = theory.jacobian_spectrum(g=2.5).edges()[-1].value
    matrix.observe(core=Count(disc=(0.5, -1)), right=Edge())
    report = validate(matrix, quick=True, sizes=(80, 160, 320), trials=64, store=False, workers=1)
    assert report["right"].components[0].theory == pytest.approx(edge, abs=1e-6)
    assert report.reason.startswith("not rejected"), report
    assert report.detectable < 0.1
