"""Rajan, Abbott, PRL 97, 188104 (2006)."""

from sympy import sqrt, symbols

from quenched import Bernoulli, Count, Gaussian, N, Quenched, Radius, Spectrum, diag, eye, outer


def ei_columns(balanced_rows: bool = True) -> Spectrum:
    """Excitatory and inhibitory columns of different mean and spread, balanced; random row sums removed or kept."""
    f, sE, sI, mu = symbols("f sigma_E sigma_I mu", positive=True)
    kind = Quenched("k", Bernoulli(1 - f))  # 0: excitatory, 1: inhibitory
    spread, means = sE + (sI - sE) * kind, mu * (1 - kind / (1 - f))
    noise = Gaussian("J") @ diag(spread)
    rows = noise @ (eye - outer(1, 1) / N) if balanced_rows else noise
    net = Spectrum(rows + outer(1, means) / sqrt(N), name="ei-columns", defaults={f: 0.8, sE: 0.6, sI: 1.4, mu: 1})
    return net.observe(half=Count(disc=0.5), **({"radius": Radius()} if balanced_rows else {}))
