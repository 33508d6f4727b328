"""Jiang, Zhou, Hou, Wong, Huang, arXiv 2103.14317: associative memory with an arbitrary Hebbian length."""

from sympy import cos, symbols

from quenched import Circulant, Field, Gibbs, Iid, Ising, N, Population, Replicon, mean, total, units


def hebbian_length_correlations(d: int = 1, size: int | None = None, distances: int = 1) -> Gibbs:
    """±1 units whose Hebbian couplings tie each of αN patterns (or of `size`) to its d neighbours in a cycle.

    Observed are the overlaps with the pattern of the start and, averaged over both sides, up to some distance from it.
    """
    alpha, T = symbols("alpha T", positive=True)
    c, gamma, theta = symbols("c gamma theta", real=True)
    stored = Population("pattern", fraction=alpha) if size is None else Population("pattern", size=size)
    xi = Iid("xi", Ising(), over=(stored, units))
    s = Field("s", initial=xi[0])
    window = c + 2 * gamma * sum(cos(r * theta) for r in range(1, int(d) + 1))
    J = xi.T @ Circulant("X", window, over=(stored, stored), angle=theta) @ xi
    energy = -total(s * (J @ s)) / 2 + (alpha * c * N / 2 if size is None else 0)
    defaults = {alpha: 0.02, T: 0.55, c: 1, gamma: 0.05} if size is None else {T: 0.05, c: 1, gamma: 0.6}
    model = Gibbs({s: Ising()}, energy=energy, beta=1 / T, name="hebbian-length-correlations", defaults=defaults)
    sides = {f"m_{k}": mean((xi[k] + xi[-k]) * s) / 2 for k in range(1, int(distances) + 1)}
    return model.observe(m_0=mean(xi[0] * s), **sides, q=mean(s[1] * s[2]), replicon=Replicon())
