"""Krogh, Hertz, J. Phys. A 25, 1135 (1992): generalisation of linear regression with weight decay."""

from sympy import symbols

from quenched import (
    Field,
    Flat,
    Gibbs,
    Iid,
    Normal,
    Population,
    Quenched,
    Spherical,
    mean,
    total,
    units,
    zero_temperature,
)


def ridge() -> Gibbs:
    """Least squares with penalty λ/2 |w|² from αN samples of a linear teacher with noise of variance Δ."""
    alpha, lam, Delta = symbols("alpha lambda Delta", positive=True)
    w, teacher, samples = Field("w"), Quenched("w_0", Spherical()), Population("sample", fraction=alpha)
    x, noise = Iid("x", Normal(0, 1), over=(samples, units)), Quenched("e", Normal(0, Delta), over=samples)
    residual = x @ teacher + noise - x @ w
    energy = total(residual**2) / 2 + lam * total(w**2) / 2
    model = zero_temperature(Gibbs({w: Flat()}, energy=energy, name="ridge", defaults={alpha: 2, lam: 0.5, Delta: 0.1}))
    return model.observe(m=mean(w * teacher), q=mean(w[1] * w[2]), e=mean((w - teacher) ** 2), train=mean(residual**2))
