"""Layered networks that break every symmetry, for the tests of their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sympy import Expr, Max, Rational, erf, pi, sqrt, symbols, tanh

from quenched.theory import (
    Field,
    Gaussian,
    Layers,
    Normal,
    Overlap,
    Population,
    Quenched,
    WhiteNoise,
    mean,
    t,
    units,
)

g, g0, sb, c = symbols("g g_0 sigma_b c", positive=True)
#: Parameters of the reference values.
VALUES = {g: 1.6**0.5, g0: 1.0, sb: 0.2**0.5, c: 0.3}


def phi(u: Expr) -> Expr:
    """erf with slope one at zero."""
    return erf(sqrt(pi) * u / 2)


def network(
    redraw: str | None = "layer",
    samples: int = 1,
    depth: int = 4,
    phi: Callable[[Expr], Expr] = phi,
    drive: bool = False,
    overlaps: Any = None,
    bias: Expr | int = sb,
) -> tuple[Layers, Field]:
    """The wide network of the reference values, with its field."""
    sample = Population("sample", size=samples) if samples > 1 else None
    inputs = Population("input", size=samples)
    given = overlaps if overlaps is not None else [[1, c], [c, 1]] if samples > 1 else 1
    x = Quenched("x", Overlap(given), over=inputs, each=sample)
    W_in, W = (
        Gaussian("W_in", variance=g0**2 / samples, over=(units, inputs)),
        Gaussian("W", variance=g**2, redraw=redraw),
    )
    b = Quenched("b", Normal(0, bias**2), redraw=redraw) if bias != 0 else 0
    h = Field("h", each=sample, initial=W_in @ x + b)
    return Layers({h: W @ phi(h) + b + (W_in @ x if drive else 0)}, depth), h


def leaky() -> Layers:
    """Memory of single units, gains that grow with depth, a mean coupling, noise, a bias with a mean."""
    sample, inputs = Population("sample", size=2), Population("input", size=2)
    x = Quenched("x", Overlap([[1, c], [c, 1]]), over=inputs, each=sample)
    W, b = Gaussian("W", variance=g**2, mean=Rational(1, 3)), Quenched("b", Normal(Rational(1, 5), sb**2))
    h = Field("h", each=sample, initial=Gaussian("W_in", variance=g0**2 / 2, over=(units, inputs)) @ x + b)
    noise = WhiteNoise("xi", each=sample) / 3
    return Layers({h: h / 2 + (1 + t / 4) * (W @ phi(h)) + b + noise + Rational(1, 7)}, depth=3)


def two_populations() -> Layers:
    """Rows that are redrawn, rows that are shared; a function with a kink."""
    E, I = Population("E", fraction=Rational(3, 5)), Population("I", fraction=Rational(2, 5))
    sample, inputs = Population("sample", size=2), Population("input", size=2)
    x = Quenched("x", Overlap([[1, c], [c, 1]]), over=inputs, each=sample)

    def into(name: str, population: Population) -> Expr:
        return Gaussian(name, variance=g0**2 / 2, over=(population, inputs)) @ x

    def coupling(name: str, rows: Population, cols: Population, share: int) -> Gaussian:
        redraw = "layer" if rows == E else None
        return Gaussian(name, variance=g**2 * share / 2, over=(rows, cols), redraw=redraw)

    h, k = Field("h", E, each=sample, initial=into("U_E", E)), Field("k", I, each=sample, initial=into("U_I", I))
    to_e = coupling("J_EE", E, E, 1) @ tanh(h) + coupling("J_EI", E, I, 2) @ Max(k, 0)
    to_i = coupling("J_IE", I, E, 3) @ tanh(h) - coupling("J_II", I, I, 4) @ Max(k, 0)
    return Layers({h: to_e, k: to_i}, depth=3)


def residual() -> Layers:
    """Two matrices a layer and a skip connection."""
    W, V = (Gaussian(name, variance=g**2, redraw="layer") for name in "WV")
    h = Field("h", initial=Normal(0, 1))
    return Layers({h: h + V @ tanh(W @ tanh(h))}, depth=3)


def random_start() -> Layers:
    """A random start, shared couplings, noise that all samples share."""
    h = Field("h", initial=Normal(0, 1))
    return Layers({h: Gaussian("W", variance=g**2) @ tanh(h) + WhiteNoise("xi")}, depth=3)


def driven() -> Layers:
    """The same input at every step."""
    return network(None, 2, drive=True)[0]


MODELS: dict[str, Callable[[], Layers]] = {
    "leaky": leaky,
    "two_populations": two_populations,
    "residual": residual,
    "random_start": random_start,
    "driven": driven,
    "deep": lambda: network("layer", 2)[0],
}


def overlap(h: Field, a: int, b: int, i: int | None = None, j: int | None = None, phi: Any = phi) -> Expr:
    """⟨φ(h(a)) φ(h(b))⟩ of samples i and j."""
    left, right = (h if k is None else h[k] for k in (i, j))
    return mean(phi(left(a)) * phi(right(b)))
