"""Girko, Theory Probab. Appl. 29, 694 (1985)."""

from sympy import symbols

from quenched import Count, Edge, Gaussian, Radius, Spectrum


def circular() -> Spectrum:
    """Matrix of independent entries: the uniform disc of radius σ."""
    sigma = symbols("sigma", positive=True)
    return Spectrum(Gaussian("J", variance=sigma**2), name="circular", defaults={sigma: 1}).observe(
        half=Count(disc=sigma / 2),
        box=Count(box=((0, sigma), (-sigma / 2, sigma / 2))),
        right=Edge("right"),
        radius=Radius(),
    )
