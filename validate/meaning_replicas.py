"""What the forms of the replicas reading mean in numbers, for witnesses of their steps.

The free entropy of n replicas can be evaluated at any n: against the exact moment E[Z²] of a finite system at n = 2,
and against its own limit n → 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lgamma, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Symbol, lambdify

from quenched.numerics.quadrature import panels_from_edges
from quenched.numerics.replica_labels import make_site
from quenched.theory.replica_forms import NREP, RSAction

Array = NDArray[np.float64]


def copies_free_entropy(action: RSAction, n: float, values: Mapping[Symbol, float]) -> float:
    """Φ_n = terms + Σ f ln E_z exp(n L) at the given parameters, order parameters and multipliers."""
    numbers = dict(values)
    total = float(action.terms.xreplace({NREP: n}).subs(numbers))
    rule = panels_from_edges(np.linspace(-12.0, 12.0, 97))
    z, w = rule.z.reshape(1, -1), rule.w.reshape(1, -1)
    for s in action.sites:
        site = make_site(s.variable.measure, numbers)
        average = 0.0
        for k, case in enumerate(site.cases):
            b, variance, v = (at_labels(e.subs(numbers), case.labels) for e in (s.b, s.k, s.v))
            logs = site.logs(k, b + np.sqrt(variance) * z, v)[0]
            average += float(np.sum(case.probability * w * np.exp(n * logs)))
        total += float(s.variable.fraction.subs(numbers)) * log(average)
    return total


def at_labels(expr: Expr, labels: Mapping[Symbol, Array]) -> Any:
    """A number, or an array over the labels that an expression contains."""
    names = sorted(expr.free_symbols, key=str)
    return lambdify(names, expr, "numpy")(*(labels[q] for q in names))


def log_second_moment_of_pairs(N: int, beta: float, h: float) -> float:
    """ln E[Z²]/N of ±1 spins with exponent β(½ s·Js + h Σs), J symmetric Gaussian, by counting pairs of states.

    With entries of variance 1/N (2/N on the diagonal) the average over J is exact: exp(β²N/4 Σ_ab q_ab²).
    """
    pp, pm, mp = np.meshgrid(*(np.arange(N + 1),) * 3, indexing="ij")
    mm = N - pp - pm - mp
    keep = mm >= 0
    pp, pm, mp, mm = (a[keep] for a in (pp, pm, mp, mm))
    table = np.array([lgamma(k + 1) for k in range(N + 1)])
    ways = table[N] - table[pp] - table[pm] - table[mp] - table[mm] - 2 * N * log(2)
    q = (pp + mm - pm - mp) / N
    field = beta * h * (2 * pp - 2 * mm)
    return _log_sum(ways + beta**2 * N / 4 * (2 + 2 * q**2) + field) / N


def log_second_moment_of_margins(N: int, patterns: int, kappa: float) -> float:
    """ln E[Z²]/N of ±1 weights under `patterns` constraints u ≥ κ with Gaussian patterns, by counting overlaps."""
    k = np.arange(N + 1)
    table = np.array([lgamma(i + 1) for i in range(N + 1)])
    ways = table[N] - table[k] - table[N - k] - N * log(2)
    both = np.array([orthant(2 * i / N - 1, kappa) for i in k])
    with np.errstate(divide="ignore"):
        return _log_sum(ways + patterns * np.log(both)) / N


def orthant(c: float, kappa: float) -> float:
    """P(u ≥ κ, v ≥ κ) of two standard normal numbers with correlation c: integral of the density over c (Plackett)."""
    from scipy.special import ndtr

    if c >= 1:
        return float(ndtr(-kappa))
    if c <= -1:
        return max(0.0, 1 - 2 * float(ndtr(kappa)))
    x, w = np.polynomial.legendre.leggauss(80)
    angle = np.arcsin(c) * (x + 1) / 2  # c = sin angle removes the singularity of the density at |c| = 1
    density = np.exp(-(kappa**2) / (1 + np.sin(angle))) / (2 * np.pi)
    return float(ndtr(-kappa) ** 2 + np.arcsin(c) / 2 * (w @ density))


def _log_sum(exponents: Array) -> float:
    top = float(exponents.max())
    return top + log(float(np.exp(exponents - top).sum()))
