"""Clark, Abbott, Litwin-Kumar, PRL 131, 118401 (2023), arXiv:2207.12373."""

from collections.abc import Callable

from sympy import Expr, erf, pi, sqrt, symbols

from quenched import Dynamics, Field, Fluctuation, Gaussian, Participation, WhiteNoise, cov, t, tau


def curve(u: Expr) -> Expr:
    """erf(√π u/2), of slope one at zero."""
    return erf(sqrt(pi) * u / 2)


def two_site_cavity(phi: Callable[[Expr], Expr] = curve, symmetry: float = 0) -> Dynamics:
    """Dimension of activity of a random rate network, and how strongly its units are correlated with each other."""
    g, s2 = symbols("g s2", nonnegative=True)
    x, J = Field("x"), Gaussian("J", variance=g**2, symmetry=symmetry)
    equations = {x: -x + J @ phi(x) + sqrt(2 * s2) * WhiteNoise("xi")}
    net = Dynamics(equations, name="two-site-cavity", defaults={g: 1.25, s2: 1})
    return net.observe(
        PR_phi=Participation(cov(phi(x))),
        PR_x=Participation(cov(x)),
        psi_phi=Fluctuation(cov(phi(x(t)), phi(x(t + tau)))),
    )
