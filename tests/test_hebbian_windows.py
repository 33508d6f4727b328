"""Spectra of couplings between patterns in a window: symmetric and one-sided, with gains, and what they decide."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Rational, Symbol, symbols, tanh

from quenched import (
    Circulant,
    Dynamics,
    Field,
    Gaussian,
    Iid,
    Ising,
    Map,
    Population,
    Spectrum,
    catalogue,
    derive,
    validate,
)
from quenched.spectral import SpectralSolution
from quenched.theory import NotCovered, QuenchedError, Uniform, WhiteNoise, units
from quenched.validate.spectra import eigenvalues

alpha = symbols("alpha", positive=True)
c, gamma = symbols("c gamma", real=True)
seq = Population("P", fraction=alpha)
xi = Iid("xi", Ising(), over=(seq, units))
x = Field("x")


def symmetric(d: int, **values: float) -> SpectralSolution:
    return derive(catalogue["hebbian-length-spectrum"](d=d)).solve(**values)


def one_sided(d: int, gains: bool = False, **values: float) -> SpectralSolution:
    return derive(catalogue["sequence-retrieval"](d=d, gains=gains)).solve(**values)


# -- symmetric windows: arXiv:2103.14324 ---------------------------------------------------------------------------
ROWS = [
    (1, 0.1, 1, 0.3, 2.130634, 0.05024, 0.03379, (0.118, 0.154, 0.24071)),
    (2, 0.5, 1, 0.3, 3.518138, 0.06156, 0.05831, (0.68, 1.121, 2.9746)),
    (3, 1.5, 0.2, 0.4, 4.61350, 0.05518, 0.06854, (1.5, 2.604, 10.9152)),
    (2, 0.25, 0, -0.5, 1.66857, 0.09641, 0.04668, (0.25, -0.1875, 0.6875)),
]


@pytest.mark.parametrize(("d", "a", "c", "g", "edge", "rho", "window", "moments"), ROWS)
def test_symmetric_windows(d, a, c, g, edge, rho, window, moments) -> None:
    found = symmetric(d, alpha=a, c=c, gamma=g)
    top = found.edges()[-1].value
    assert top == pytest.approx(edge, abs=6e-6)
    assert found.density(top / 2) == pytest.approx(rho, abs=6e-6)
    assert found.count(window=(top / 2, 0.9 * top)).value == pytest.approx(window, abs=6e-6)
    branch = found.main
    for name, value in zip(("m2", "m3", "m4"), moments, strict=True):
        assert float(branch.quantity(name).value) == pytest.approx(value, abs=6e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "low"), [(0, 0.166260), (1, -0.447101), (2, -2.06359), (3, -2.66078)])
def test_lower_edges(row, low) -> None:
    d, a, c, g, *_ = ROWS[row]
    assert symmetric(d, alpha=a, c=c, gamma=g).edges()[0].value == pytest.approx(low, abs=6e-6)


@pytest.mark.slow
def test_limits_of_symmetric_windows() -> None:
    """γ = 0: Marchenko–Pastur, shifted; γ → −γ is a gauge change for d = 1; c = 0, d = 1 has no odd moments."""
    ends = [e.value for e in symmetric(1, alpha=0.4, c=1, gamma=0).edges()]
    assert ends == pytest.approx([(1 - 0.4**0.5) ** 2 - 0.4, (1 + 0.4**0.5) ** 2 - 0.4], abs=1e-9)
    first, second = (symmetric(1, alpha=0.4, c=1, gamma=g).edges()[-1].value for g in (0.3, -0.3))
    assert first == pytest.approx(second, abs=1e-10)
    assert float(symmetric(1, alpha=0.4, c=0, gamma=0.7).main.quantity("m3").value) == pytest.approx(0, abs=1e-8)


def test_an_atom() -> None:
    """For α < 1 and a positive window 1 − α of the eigenvalues are at −αc."""
    assert symmetric(1, alpha=0.1, c=1, gamma=0.3).count(window=(-0.2, 0)).value == pytest.approx(0.9, abs=1e-9)


# -- one-sided windows: arXiv:2208.11411 ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("a", "c", "edges", "box", "fraction"),
    [
        (0.5, 0, (1.22474, 0.35355), ((0.4, 1), (-0.4, 0.4)), 0.06340),
        (0.5, 1, (3.42705, 0.50000), ((0.6, 2), (-0.6, 0.6)), 0.11850),
        (1.5, 1, (5.45416, 0.04584), ((2, 4), (-0.6, 0.6)), 0.10694),
    ],
)
def test_one_sided_windows(a, c, edges, box, fraction) -> None:
    found = one_sided(1, alpha=a, c=c, gamma=1)
    ends = [e.value for e in found.edges()]
    assert ends[-1] == pytest.approx(edges[0], abs=6e-6)
    assert min(ends, key=lambda e: abs(e - edges[1])) == pytest.approx(edges[1], abs=6e-6)
    assert found.count(box=box).value == pytest.approx(fraction, abs=6e-6)


@pytest.mark.parametrize(
    ("d", "a", "c", "Delta", "right", "box", "fraction"),
    [
        (1, 0.5, 0, 1, 0.77400, ((0.2, 0.8), (-0.4, 0.4)), 0.11586),
        (2, 0.3, 1, 0.5, 2.83510, ((0.4, 1.5), (-0.5, 0.5)), 0.04221),
    ],
)
def test_gains_on_one_sided_windows(d, a, c, Delta, right, box, fraction) -> None:
    found = one_sided(d, gains=True, alpha=a, c=c, gamma=1, Delta=Delta)
    assert float(found.main.quantity("right").value) == pytest.approx(right, abs=6e-6)
    assert found.count(box=box).value == pytest.approx(fraction, abs=6e-6)


@pytest.mark.slow
def test_two_voids() -> None:
    """d = 2 at α = 0.5, c = γ = 1: two voids, with filaments towards the zero modes between them."""
    net = catalogue["sequence-retrieval"](d=2)
    found, sampled = derive(net).solve(), eigenvalues(net, N=250, trials=6, seed=5)
    for centre, full in (
        (0.02 + 0.05j, True),
        (0.3 + 0.1j, True),
        (-0.1 + 0.1j, True),
        (-0.2 + 0.05j, False),
        (0.2 + 0.6j, False),
    ):
        value, estimate = found.count(disc=(0.08, centre)).value, sampled.disc(0.08, centre)
        assert (value > 3e-3) == full
        assert abs(value - estimate.value) < 5 * estimate.error + 0.002
    assert found.count(disc=0.3).value == pytest.approx(sampled.disc(0.3).value, abs=0.01)


@pytest.mark.slow
def test_the_mirror_of_a_window() -> None:
    """c = 0: γ → −γ mirrors the spectrum."""
    first, second = (one_sided(2, alpha=0.5, c=0, gamma=g) for g in (0.7, -0.7))
    box = (0.1, 0.9), (-0.5, 0.2)
    mirrored = (-0.9, -0.1), (-0.2, 0.5)
    assert first.count(box=box).value == pytest.approx(second.count(box=mirrored).value, abs=1e-7)


# -- stability of the silent state ---------------------------------------------------------------------------------
def network(d: int) -> Dynamics:
    window = {0: c} | dict.fromkeys(range(1, d + 1), gamma)
    return Dynamics({x: -x + xi.T @ Circulant("X", window, over=(seq, seq)) @ xi @ tanh(x)})


@pytest.mark.parametrize(
    ("a", "own", "d", "threshold"),
    [(0.1, 0, 1, 1.1**-0.5)],
)
def test_where_a_sequence_network_becomes_chaotic(a, own, d, threshold) -> None:
    found = derive(network(d)).fixed_point_stability().critical("gamma", 0.2, 1.2, alpha=a, c=own)
    assert found.value == pytest.approx(threshold, abs=6e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("a", "own", "d", "threshold"), [(0.1, 0.3, 1, 0.594942), (0.5, 0, 2, 0.434259), (0.5, 0, 3, 0.298935)]
)
def test_where_other_sequence_networks_become_chaotic(a, own, d, threshold) -> None:
    found = derive(network(d)).fixed_point_stability().critical("gamma", 0.2, 1.2, alpha=a, c=own)
    assert found.value == pytest.approx(threshold, abs=6e-7)


@pytest.mark.slow
def test_no_threshold_beyond_the_hopfield_limit() -> None:
    stability = derive(network(1)).fixed_point_stability()
    with pytest.raises(QuenchedError, match="unstable at gamma = 0"):
        stability.critical("gamma", 0.01, 1, alpha=0.5, c=0.4)
    with pytest.raises(QuenchedError, match="no parameter 'gama'"):
        stability.critical("gama", 0.01, 1, alpha=0.5, c=0.4)


def test_fixed_points_of_other_networks() -> None:
    g = Symbol("g", positive=True)
    E, I = Population("E", Rational(1, 2)), Population("I", Rational(1, 2))
    e, i = Field("x", population=E), Field("x", population=I)
    to = {(p, q): Gaussian(f"J{p}{q}", g**2, over=(p, q)) for p, q in ((E, E), (E, I), (I, E))}
    net = Dynamics({e: -e + to[E, E] @ tanh(e) - to[E, I] @ tanh(i), i: -i + to[I, E] @ tanh(e)})
    # The largest eigenvalue of the table of variances, (g²/2)[[1, 1], [1, 0]], is 1.
    expected = (2 / ((1 + 5**0.5) / 2)) ** 0.5
    assert derive(net).fixed_point_stability().critical(g, 0.2, 3).value == pytest.approx(expected, abs=1e-7)
    step = derive(Map({x: tanh(Gaussian("J", g**2, mean=Rational(1, 2)) @ x)})).fixed_point_stability()
    assert step.growth(g=0.3).value == pytest.approx(np.log(0.5), abs=1e-8)
    assert step.growth(g=0.8).value == pytest.approx(np.log(0.8), abs=1e-6)
    assert step.stable(g=0.8)


def test_states_that_are_no_fixed_points() -> None:
    J = Gaussian("J")
    with pytest.raises(NotCovered, match="is no fixed point"):
        derive(Dynamics({x: -x + J @ tanh(x) + 1})).fixed_point_stability()
    with pytest.raises(NotCovered, match="is no fixed point"):
        derive(Dynamics({x: -x + J @ tanh(x) + WhiteNoise("xi")})).fixed_point_stability()
    bistable = derive(Dynamics({x: x - x**3 + J @ (x - x**3)})).fixed_point_stability({x: 1})
    assert bistable.growth().value == pytest.approx(0, abs=1e-6)
    with pytest.raises(QuenchedError, match="no field"):
        derive(Dynamics({x: -x + J @ tanh(x)})).fixed_point_stability({Field("y"): 1})


@pytest.mark.slow
def test_other_covariances() -> None:
    """Uniform patterns of unit variance have the spectrum of ±1 patterns."""
    wide = Iid("xi", Uniform(-(3**0.5), 3**0.5), over=(seq, units))
    X = Circulant("X", {0: 1, 1: 0.3, -1: 0.3}, over=(seq, seq))
    first, second = (derive(Spectrum(p.T @ X @ p)).solve(alpha=0.3).edges()[-1].value for p in (xi, wide))
    assert first == pytest.approx(second, abs=1e-9)


# -- verdicts ------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", ["hebbian-length-spectrum", "sequence-retrieval"])
def test_simulations_agree_and_reject_a_wrong_theory(name) -> None:
    net = catalogue[name]()
    assert validate(net, quick=True).verdict == "agree"
    assert validate(net, theory=derive(net).mutate("variance-tenth"), quick=True).verdict == "disagree"
