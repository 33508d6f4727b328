"""Jacobian of a random rate network at states of given spread: Ahmadian, Fumarola, Miller, arXiv:1311.4672."""

from collections.abc import Callable

from sympy import Expr, symbols, tanh

from quenched import Count, Dynamics, Edge, Field, Gaussian, Normal, Spectrum, jacobian


def rate_jacobian(phi: Callable[[Expr], Expr] = tanh) -> Spectrum:
    """−1 + J diag(φ′(x)) with x ~ N(0, v) and partly symmetric couplings of spread g."""
    g, v = symbols("g v", positive=True)
    eta = symbols("eta", real=True)
    x, J = Field("x"), Gaussian("J", variance=g**2, symmetry=eta)
    net = jacobian(Dynamics({x: -x + J @ phi(x)}, name="rate-jacobian"), {x: Normal(0, v)})
    net = Spectrum(net.blocks, name="rate-jacobian", defaults={g: 1.5, v: 1, eta: 0.4})
    return net.observe(box=Count(box=((-1.4, -0.7), (-0.3, 0.3))), right=Edge("right"))
