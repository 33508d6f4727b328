"""Sompolinsky, Crisanti, Sommers, PRL 61, 259 (1988); with noise: Schuecker, Goedeke, Helias, arXiv:1603.01880."""

from collections.abc import Callable

from sympy import Expr, cos, pi, sqrt, symbols, tanh

from quenched import Critical, Dynamics, Field, Gaussian, Lyapunov, Quenched, Uniform, WhiteNoise, mean, t, tau


def scs(phi: Callable[[Expr], Expr] = tanh, drive: bool = False, symmetry: float = 0) -> Dynamics:
    """Random rate network x' = -x + J φ(x) + noise of strength s2.

    drive: a sinusoid with a random phase a unit. symmetry: E J_ij J_ji / E J_ij².
    """
    g, s2 = symbols("g s2", nonnegative=True)
    x, J = Field("x"), Gaussian("J", variance=g**2, symmetry=symmetry)
    equations = {x: -x + J @ phi(x) + sqrt(2 * s2) * WhiteNoise("xi")}
    defaults = {g: 2, s2: 0}
    if drive:
        amplitude, omega = symbols("I omega", positive=True)
        equations[x] += amplitude * cos(omega * t + Quenched("theta", Uniform(0, 2 * pi)))
        defaults |= {amplitude: 0.5, omega: 1}
    net = Dynamics(equations, name="scs", defaults=defaults).observe(
        C_x=mean(x(t) * x(t + tau)),
        C_phi=mean(phi(x(t)) * phi(x(t + tau))),
        C_x0=mean(x**2),
        mean_x=mean(x),
        lyapunov=Lyapunov(x),
        g_c=Critical(g, Lyapunov(x)),
    )
    shape = {"kurtosis": mean(x**4) / mean(x**2) ** 2, "gain": mean(phi(x).diff(x))}
    return net.observe(**shape) if symmetry else net
