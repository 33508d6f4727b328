"""Krauth, Mézard, J. Phys. 50, 3057 (1989); Zhao, Qiu, Xie, Huang, arXiv:2111.13302 (instability of messages)."""

from sympy import Heaviside, symbols

from quenched import Critical, Entropy, Field, Gibbs, Growth, Iid, Ising, Population, Replicon, mean, units


def binary_perceptron() -> Gibbs:
    """±1 weights that meet αN random constraints Σ ξ w/√N ≥ κ."""
    alpha, kappa = symbols("alpha", positive=True), symbols("kappa", real=True)
    w, patterns = Field("w"), Population("pattern", fraction=alpha)
    xi = Iid("xi", Ising(), over=(patterns, units))
    defaults = {alpha: 0.5, kappa: 0}
    model = Gibbs({w: Ising()}, weight=Heaviside(xi @ w - kappa), name="binary-perceptron", defaults=defaults)
    return model.observe(
        q=mean(w[1] * w[2]),
        S=Entropy(),
        lam=Replicon(),
        growth=Growth(),
        alpha_s=Critical(alpha, Entropy()),
        alpha_AT=Critical(alpha, Replicon() - 1),
        alpha_BP=Critical(alpha, Growth() - 1),
    )
