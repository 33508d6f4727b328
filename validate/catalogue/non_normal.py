"""Ahmadian, Fumarola, Miller, PRE 91, 012820 (2015), arXiv:1311.4672."""

from sympy import symbols

from quenched import Count, Edge, Gaussian, Ising, Quenched, Spectrum, diag


def non_normal() -> Spectrum:
    """A + L X R with diagonal A, L, R: half the units at −1, half at +1, with different spreads."""
    sigma = symbols("sigma", positive=True)
    s = Quenched("s", Ising())
    left, right = (4 + s) / 5, (19 - s) / 20
    matrix = diag(s) + sigma * diag(left) @ Gaussian("X") @ diag(right)
    return Spectrum(matrix, name="non-normal", defaults={sigma: 1}).observe(
        waist=Count(box=((-0.4, 0.4), (-0.3, 0.3))),
        core=Count(disc=(0.6, 1)),
        right=Edge("right"),
        left=Edge("left"),
    )
