"""Sherrington, Kirkpatrick, PRL 35, 1792 (1975); stability: de Almeida, Thouless, J. Phys. A 11, 983 (1978)."""

from sympy import symbols

from quenched import Critical, Field, Gaussian, Gibbs, Growth, Ising, Replicon, mean, total


def sk() -> Gibbs:
    """±1 spins with Gaussian couplings of variance 1/N and mean J0/N in a field h at temperature T."""
    T, h, J0 = symbols("T", positive=True), symbols("h", real=True), symbols("J0", real=True)
    s, J = Field("s"), Gaussian("J", variance=1, mean=J0, symmetry=1)
    energy = -total(s * (J @ s)) / 2 - h * total(s)
    model = Gibbs({s: Ising()}, energy=energy, beta=1 / T, name="sk", defaults={T: 1.2, h: 0.5, J0: 0})
    return model.observe(
        u=-mean(s * (J @ s)) / 2 - h * mean(s),
        m=mean(s),
        q=mean(s[1] * s[2]),
        replicon=Replicon(),
        growth=Growth(),
        T_AT=Critical(T, Replicon() - 1),
    )
