"""Derivatives of saddle-point equations in their unknowns.

Averages over many labels know their own derivatives; those of other sites are differences, taken only in the unknowns
that the field of the site depends on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Symbol

from .replica_compile import apart, compiled, slopes_of
from .replica_free import FreeAverage
from .types import Array

if TYPE_CHECKING:
    from .replica_evaluator import Evaluator


def jacobian(ev: Evaluator, x: Array, value: Array) -> Array:
    """Derivatives of the right-hand sides."""
    if ev.problem.constraints or not any(site.free for site in ev.sites.values()):
        return _by_differences(ev, x, value)
    at = ev.point(x)
    unknowns = tuple(ev.unknowns)
    out = np.zeros((len(x), len(x)))
    for i, (_, rhs) in enumerate(ev.problem.equations):
        nodes, slots, plain = apart(rhs)
        averages = [ev.average(node) for node in nodes]
        numbers = [*(at[s] for s in ev.names), *(a(at) for a in averages)]
        places, parts = slopes_of((plain,), (*unknowns, *slots))
        for (_, j), rate in zip(places, compiled((*ev.names, *slots), parts, "math")(*numbers), strict=True):
            if j < len(x):
                out[i, j] += rate
            else:
                out[i] += rate * _gradient(nodes[j - len(x)], averages[j - len(x)], at, unknowns)
    return out


def _gradient(node: Any, average: Any, at: dict[Symbol, float], unknowns: tuple[Symbol, ...]) -> Array:
    """Derivatives of one site average."""
    if isinstance(average, FreeAverage):
        return average.gradient(at, unknowns)
    out = np.zeros(len(unknowns))
    here = average(at)
    for j, u in enumerate(unknowns):
        if u in node.free_symbols:
            h = _step(at[u])
            out[j] = (average(at | {u: at[u] + h}) - here) / h
    return out


def _by_differences(ev: Evaluator, x: Array, value: Array) -> Array:
    out = np.empty((len(x), len(x)))
    for j in range(len(x)):
        moved = x.copy()
        h = _step(x[j])
        moved[j] += h
        out[:, j] = (ev.update(moved) - value) / h
    return out


def _step(value: float) -> float:
    return 1e-7 * max(abs(value), 1e-3)
