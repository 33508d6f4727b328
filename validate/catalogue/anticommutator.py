"""Nica, Speicher, Duke Math. J. 92, 553 (1998)."""

from sympy import symbols

from quenched import Count, Density, Edge, Gaussian, Moment, Spectrum


def anticommutator() -> Spectrum:
    """XY + YX of two independent symmetric matrices: edges ±σ²√((11 + 5√5)/2)."""
    sigma = symbols("sigma", positive=True)
    X, Y = (Gaussian(name, variance=sigma**2, symmetry=1) for name in "XY")
    return Spectrum(X @ Y + Y @ X, name="anticommutator", defaults={sigma: 1}).observe(
        right=Edge("right"), window=Count(0.5, 2), rho_1=Density(1, width=0.5), second=Moment(2)
    )
