"""Jiang, Chen, Hou, Huang, arXiv:2208.11411 (2022): dynamics of a network that stores a long sequence of patterns."""

from collections.abc import Callable

from sympy import Expr, symbols, tanh

from quenched import Circulant, Dynamics, Field, Growth, Iid, Ising, Population, mean, t, tau, units


def sequence_dynamics(d: int = 1, phi: Callable[[Expr], Expr] = tanh) -> Dynamics:
    """J = ξᵀXξ with αN patterns: pattern μ is coupled to itself by c and drives μ+1 … μ+d by gamma."""
    alpha = symbols("alpha", positive=True)
    c, gamma = symbols("c gamma", real=True)
    patterns = Population("P", fraction=alpha)
    xi = Iid("xi", Ising(), over=(patterns, units))
    X = Circulant("X", {0: c} | dict.fromkeys(range(1, d + 1), gamma), over=(patterns, patterns))
    x = Field("x")
    net = Dynamics(
        {x: -x + xi.T @ X @ xi @ phi(x)},
        name="sequence-dynamics",
        defaults={alpha: 1, c: 0, gamma: 1.5},
    )
    net.observe(C_x=mean(x(t) * x(t + tau)), variance=mean(x**2), output=mean(phi(x) ** 2))
    return net.observe(growth=Growth())  # of the silent state
