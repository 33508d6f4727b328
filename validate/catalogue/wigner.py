"""Wigner, Ann. Math. 67, 325 (1958)."""

from sympy import symbols

from quenched import Count, Density, Edge, Gaussian, Moment, Spectrum


def wigner() -> Spectrum:
    """Symmetric matrix of independent entries: the semicircle of radius 2σ."""
    sigma = symbols("sigma", positive=True)
    W = Gaussian("W", variance=sigma**2, symmetry=1)
    return Spectrum(W, name="wigner", defaults={sigma: 1}).observe(
        right=Edge("right"),
        left=Edge("left"),
        rho_0=Density(0, width=sigma / 2),
        outer=Count(sigma, 3 * sigma),
        fourth=Moment(4),
    )
