"""Derrida, PRL 45, 79 (1980); Crisanti, Sommers, Z. Phys. B 87, 341 (1992): the spherical model of p-body couplings."""

from sympy import Integer, Symbol

from quenched import Field, Gibbs, Landscape, N, Replicon, Spherical, mean
from quenched.theory.distributions import Law


def p_spin(p: int = 3, prior: Law | None = None) -> Gibbs:
    """Spins with p-body couplings, E V(s) V(s′) = (N/2) (s·s′/N)^p, at temperature T; on the sphere if nothing else."""
    T = Symbol("T", positive=True)
    s, V = Field("s"), Landscape("V", lambda q: q ** Integer(p) / 2)
    model = Gibbs({s: prior or Spherical()}, energy=V(s), beta=1 / T, name="p-spin", defaults={T: 1})
    return model.observe(u=V(s) / N, q=mean(s[1] * s[2]), replicon=Replicon())
