"""Marchenko, Pastur (1967); Silverstein, Choi, J. Multivar. Anal. 54, 295 (1995)."""

from sympy import sqrt, symbols

from quenched import Bernoulli, Count, Density, Edge, Gaussian, Population, Quenched, Spectrum, diag, units


def sample_covariance() -> Spectrum:
    """Covariance of N samples of yN variables, a share p of variance v and the rest of variance 1: two bulks, a gap."""
    y, v, p = symbols("y v p", positive=True)
    variables = Population("variables", fraction=y)
    kind = Quenched("k", Bernoulli(p), over=variables)
    X = Gaussian("X", over=(variables, units))
    root = diag(sqrt(1 + (v - 1) * kind))
    return Spectrum(root @ X @ X.T @ root, name="sample-covariance", defaults={y: 0.2, v: 6, p: 0.4}).observe(
        low=Edge("left"),
        gap_begins=Edge("right", below=2.5),
        gap_ends=Edge("left", above=2.5),
        high=Edge("right"),
        tail=Count(6.6271, 20),
        rho_5=Density(5, width=1),
    )
