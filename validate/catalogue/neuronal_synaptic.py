"""Clark & Abbott, Theory of coupled neuronal-synaptic dynamics, PRX 14, 021001 (2024), arXiv:2302.08985."""

from collections.abc import Callable

from sympy import Expr, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Lyapunov, N, mean, outer, t, tau, units


def neuronal_synaptic(phi: Callable[[Expr], Expr] = tanh) -> Dynamics:
    """Random rate network with plastic synapses A_ij driven by φ(x_i)φ(x_j): Hebbian k > 0, anti-Hebbian k < 0."""
    g, p = symbols("g p", positive=True)
    k = symbols("k", real=True)
    x, A, J = Field("x"), Field("A", over=(units, units)), Gaussian("J", variance=g**2)
    equations = {x: -x + (J + A) @ phi(x), A: (-A + k / N * outer(phi(x), phi(x))) / p}
    net = Dynamics(equations, name="neuronal-synaptic", defaults={g: 2.5, k: -1, p: 2.5})
    return net.observe(
        C_x=mean(x(t) * x(t + tau)),
        C_x0=mean(x**2),
        C_phi0=mean(phi(x) ** 2),
        kurtosis=mean(x**4) / mean(x**2) ** 2,
        gain=mean(phi(x).diff(x)),
        lyapunov=Lyapunov(x),
    )
