"""Girko, Theory Probab. Appl. 30, 677 (1986); Sommers, Crisanti, Sompolinsky, Stein, PRL 60, 1895 (1988)."""

from sympy import symbols

from quenched import Count, Edge, Gaussian, N, Outlier, Spectrum, outer


def elliptic() -> Spectrum:
    """Entries with Cov(J_ij, J_ji) = τσ²/N and a rank-one part of strength θ: an ellipse and an outlier."""
    sigma, theta = symbols("sigma theta", positive=True)
    tau = symbols("tau_", real=True)
    J = Gaussian("J", variance=sigma**2, symmetry=tau)
    net = Spectrum(J + theta * outer(1, 1) / N, name="elliptic", defaults={sigma: 1, tau: 0.5, theta: 1.5})
    return net.observe(
        box=Count(box=((-sigma / 2, sigma / 2), (-sigma / 4, sigma / 4))),
        top=Edge("top"),
        left=Edge("left"),
        outlier=Outlier("right"),
    )
