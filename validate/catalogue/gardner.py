"""Gardner, J. Phys. A 21, 257 (1988); at vanishing margin Cover, IEEE Trans. Electron. Comput. 14, 326 (1965)."""

from sympy import Heaviside, symbols

from quenched import Capacity, Field, Gibbs, Iid, Ising, Margin, Normal, Population, Quenched, Spherical, units


def gardner() -> Gibbs:
    """Weights on a sphere that classify αN random patterns with a margin κ."""
    alpha, kappa = symbols("alpha", positive=True), symbols("kappa", real=True)
    w, patterns = Field("w"), Population("pattern", fraction=alpha)
    x, y = Iid("x", Normal(0, 1), over=(patterns, units)), Quenched("y", Ising(), over=patterns)
    defaults = {alpha: 1, kappa: 0}
    model = Gibbs({w: Spherical()}, weight=Heaviside(y * (x @ w) - kappa), name="gardner", defaults=defaults)
    return model.observe(margin=Margin(kappa), alpha_c=Capacity(alpha))
