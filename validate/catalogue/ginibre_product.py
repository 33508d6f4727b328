"""Burda, Janik, Waclaw, PRE 81, 041132 (2010), arXiv:0912.3422."""

from functools import reduce

from sympy import symbols

from quenched import Count, Gaussian, Radius, Spectrum


def ginibre_product(factors: int = 2) -> Spectrum:
    """Product of independent matrices: a fraction (r/σ^M)^(2/M) of the eigenvalues within r."""
    sigma = symbols("sigma", positive=True)
    matrices = [Gaussian(f"X{k}", variance=sigma**2) for k in range(1, int(factors) + 1)]
    product = reduce(lambda a, b: a @ b, matrices)
    return Spectrum(product, name="ginibre-product", defaults={sigma: 1}).observe(
        inner=Count(disc=0.3), half=Count(disc=0.5), radius=Radius()
    )
