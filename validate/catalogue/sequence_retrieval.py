"""Jiang, Chen, Hou, Huang, arXiv:2208.11411 (2022): complex spectrum of couplings that store a sequence."""

from sympy import symbols, tanh

from quenched import Circulant, Count, Edge, Iid, Ising, Normal, Population, Quenched, Spectrum, diag, units


def sequence_retrieval(d: int = 1, gains: bool = False) -> Spectrum:
    """J = ξᵀXξ: pattern μ is coupled to itself by c, drives μ+1 … μ+d by gamma; gains: J diag(φ′(x)), Var x = Delta."""
    alpha, Delta = symbols("alpha Delta", positive=True)
    c, gamma = symbols("c gamma", real=True)
    patterns = Population("P", fraction=alpha)
    xi = Iid("xi", Ising(), over=(patterns, units))
    window = {0: c} | dict.fromkeys(range(1, d + 1), gamma)
    J = xi.T @ Circulant("X", window, over=(patterns, patterns)) @ xi
    defaults = {alpha: 0.5, c: 1, gamma: 1}
    if gains:
        x = Quenched("x", Normal(0, Delta))
        J, defaults = J @ diag(tanh(x).diff(x)), {**defaults, Delta: 1}
    net = Spectrum(J, name="sequence-retrieval", defaults=defaults)
    return net.observe(
        body=Count(box=((0.6, 2.6), (-1.2, 1.2))),
        disc=Count(disc=(1.2, 1.5)),
        right=Edge("right"),
    )
