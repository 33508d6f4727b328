"""Pastur, Theor. Math. Phys. 10, 67 (1972): a diagonal matrix of two values and a semicircle, freely added."""

from sympy import symbols

from quenched import Count, Density, Edge, Gaussian, Ising, Quenched, Spectrum, diag


def random_matrix_core() -> Spectrum:
    """±1 on the diagonal plus a symmetric random matrix of spread σ: two bulks with a gap that closes at σ = 1."""
    sigma = symbols("sigma", positive=True)
    matrix = diag(Quenched("d", Ising())) + sigma * Gaussian("W", symmetry=1)
    return Spectrum(matrix, name="random-matrix-core", defaults={sigma: 0.6}).observe(
        right=Edge("right"),
        gap=Edge("left", above=0),
        rho_1=Density(1, width=0.3),
        inner=Count(0.5, 1),
    )
