"""Jiang, Chen, Hou, Huang, arXiv:2208.11411 (2022): a network started at one stored pattern replays the sequence."""

from sympy import symbols, tanh

from quenched import Circulant, Dynamics, Field, Iid, Ising, Peak, PeakTime, Population, mean, units


def sequence_replay(patterns: int = 9, d: int = 1) -> Dynamics:
    """A few patterns on a cycle: each is coupled to itself by c and drives the d next ones by gamma."""
    c, gamma = symbols("c gamma", real=True)
    few = Population("P", size=patterns)
    xi = Iid("xi", Ising(), over=(few, units))
    X = Circulant("X", {0: c} | dict.fromkeys(range(1, d + 1), gamma), over=(few, few))
    x = Field("x", initial=xi[0])
    net = Dynamics({x: -x + xi.T @ X @ xi @ tanh(x)}, name="sequence-replay", defaults={c: 0, gamma: 1.5})
    overlaps = [mean(xi[k] * tanh(x)) for k in range(3)]
    return net.observe(
        start=mean(xi[0] * tanh(x(1))),
        second=mean(xi[2] * tanh(x(3))),
        peak_1=Peak(overlaps[1], until=4),
        peak_2=Peak(overlaps[2], until=4),
        time_1=PeakTime(overlaps[1], until=4),
        time_2=PeakTime(overlaps[2], until=4),
    )
