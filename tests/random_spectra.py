"""Random declared matrices: sums and products of atoms, gains, gaps, populations, windows, inverses and means."""

from __future__ import annotations

from random import Random
from typing import Any

from sympy import Rational, cosh

from quenched import Circulant, Gaussian, Iid, Ising, Normal, Population, Quenched, Spectrum, Uniform, diag, eye
from quenched.theory.algebra import Matrix
from quenched.theory.spaces import units

KINDS = ("product", "gains", "covariance", "window", "populations", "inverse", "polynomial")


def draw(rng: Random, kind: str) -> Spectrum:
    """One declaration of a kind; the scale of its eigenvalues is of order one."""

    def number(low: int = 2, high: int = 9) -> Any:
        return Rational(rng.randint(low, high), 6)

    def square(name: str, over: Any = units) -> Matrix:
        return Gaussian(name, number(), symmetry=rng.choice([0, 0, Rational(1, 2), -Rational(1, 2)]), over=(over, over))

    sign = Quenched("s", Ising())
    gains: list[Any] = [
        1 + Quenched("h", Uniform(0, 1)),
        1 / cosh(Quenched("x", Normal(0, number()))) ** 2,
        1 + sign / 2,
    ]
    gain = diag(rng.choice(gains))
    if kind == "product":
        inner = Population("P", rng.choice([Rational(1, 2), 1, 2]))
        A, B = Gaussian("A", number(), over=(units, inner)), Gaussian("B", number(), over=(inner, units))
        return Spectrum(A @ square("M", inner) @ B / 2 + number() * diag(sign))
    if kind == "gains":
        return Spectrum(
            rng.choice([gain @ square("J"), square("J") @ gain, gain @ square("J") @ gain]) - number() * eye
        )
    if kind == "covariance":
        wide = Population("S", rng.choice([Rational(1, 2), 2]))
        K = Gaussian("K", number(), over=(units, wide))
        return Spectrum(gain @ K @ K.T @ gain / 2 + number() * Gaussian("W", symmetry=1) / 4)
    if kind == "window":
        seq = Population("P", rng.choice([Rational(1, 2), 2]))
        xi = Iid("xi", Ising(), over=(seq, units))
        c, d = number() * rng.choice([-1, 1]), number() * rng.choice([-1, 1]) / 2
        entries = {0: c, 1: d} if rng.random() < 0.5 else {0: c, 1: d, -1: d}
        return Spectrum(xi.T @ Circulant("X", entries, over=(seq, seq)) @ xi)
    if kind == "populations":
        E, I = Population("E", Rational(3, 5)), Population("I", Rational(2, 5))
        pairs = [(a, b) for a in (E, I) for b in (E, I)]
        return Spectrum({(a, b): number() * Gaussian(f"{a}{b}", number(), over=(a, b)) for a, b in pairs})
    if kind == "inverse":
        return Spectrum((2 * eye + square("A") / 4).inv() @ gain @ square("B"))
    A, B = square("A"), square("B")
    return Spectrum(rng.choice([A @ B + B @ A, A @ A + B, A @ B - A.T, A @ A.T + B]) / 2)
