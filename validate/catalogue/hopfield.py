"""Hopfield, PNAS 79, 2554 (1982); Amit, Gutfreund, Sompolinsky, PRL 55, 1530 (1985)."""

from sympy import symbols

from quenched import Field, Gibbs, Iid, Ising, N, Population, Quenched, Replicon, mean, total, units


def hopfield() -> Gibbs:
    """±1 units with Hebbian couplings of αN patterns at temperature T, started on one more pattern."""
    alpha, T = symbols("alpha T", positive=True)
    stored, patterns = Quenched("xi_1", Ising()), Population("pattern", fraction=alpha)
    s, xi = Field("s", initial=stored), Iid("xi", Ising(), over=(patterns, units))
    energy = -N * mean(stored * s) ** 2 / 2 - total(s * (xi.T @ (xi @ s))) / 2
    model = Gibbs({s: Ising()}, energy=energy, beta=1 / T, name="hopfield", defaults={alpha: 0.05, T: 0.4})
    return model.observe(m=mean(stored * s), q=mean(s[1] * s[2]), replicon=Replicon())
