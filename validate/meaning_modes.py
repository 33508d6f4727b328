"""What units counted in modes mean in numbers: the declared exponent in turned coordinates, at any size."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Basic, Symbol

from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Apply
from quenched.theory.distributions import Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched
from quenched.theory.gibbs import Gibbs
from quenched.theory.replica_lower import ReplicatedAction
from quenched.theory.replica_modes import InModes
from quenched.theory.spaces import Population
from quenched.validate.generate import label
from quenched.validate.quantities import first_column
from quenched.validate.spins import Counted, Instance

Array = NDArray[np.float64]
#: Reference size of the instance.
SIZE = 8


def modes_deviation(before: Gibbs, after: InModes, values: Mapping[Symbol, float], rng: np.random.Generator) -> float:
    """The exponents of random states from the drawn matrices, and of the same states in waves with eigenvalues.

    Raises
    ------
    NotCovered
        Random functions of the state, which are compared by their law alone.
    """
    if before.landscapes:
        raise NotCovered("not compared: random functions are turned by their law alone")
    own: Mapping[Any, float] = {p: v for p, v in values.items() if p in before.parameters}
    seed = int(rng.integers(1 << 30))
    plain: dict[Basic, Any] = {q: _renamed(q) for _, q in after.labels}
    plain |= {q.bind(): _renamed(q).bind() for _, q in after.labels}
    drawn, seen = Counted(before, SIZE, seed, 0, own), Counted(after.model.rewritten(plain), SIZE, seed, 0, own)
    turn: dict[Population, Array] = {}
    for matrix, q in after.labels:
        count = drawn.numbers.size(matrix.rows)[1]
        turn[matrix.rows], angles = waves(count)
        entries = np.array(first_column(matrix, count, drawn.numbers))
        seen.labels[_renamed(q)] = np.array([np.sum(entries * np.cos(np.arange(count) * a)) for a in angles])
    for m in before.matrices:
        if not isinstance(m, Circulant):
            left, right = (turn.get(p, np.eye(drawn.numbers.size(p)[1])) for p in (m.rows, m.cols))
            seen.matrices[label(m)] = left.T @ drawn.matrices[label(m)] @ right
    for q, array in drawn.labels.items():
        seen.labels[q] = array @ turn[q.population] if q.population in turn else array
    states = {f: rng.standard_normal((60, n)) for f, n in drawn.sizes.items()}
    turned = {f: x @ turn[f.population] if f.population in turn else x for f, x in states.items()}
    for weight, same in zip(before.weights, seen.model.weights, strict=True):
        u, v = ([i._node(n, x) for n in outer_sums(w)] for i, w, x in ((drawn, weight, states), (seen, same, turned)))
        if any(min(np.max(np.abs(a - b)) for b in v) > 1e-9 for a in u):
            return float("inf")
    a, b = drawn.log_weight(states), seen.log_weight(turned)
    alive = np.isfinite(a) | np.isfinite(b)
    if not alive.any():
        return float("inf")
    with np.errstate(invalid="ignore"):
        worst = np.max(np.abs(a - b)[alive] / (1 + np.abs(np.where(np.isfinite(a), a, 0.0))[alive]))
    return float(np.nan_to_num(worst, nan=np.inf, posinf=np.inf))


def in_waves(drawn: Instance, action: ReplicatedAction) -> Instance:
    """The same draw in the waves in which an action writes rows between which a translation-invariant matrix sits."""
    seen = copy(drawn)
    seen.matrices, seen.labels = dict(drawn.matrices), dict(drawn.labels)
    for site in action.sites:
        for q in (q for q in site.labels if q not in drawn.labels):
            turn, seen.labels[q] = waves(drawn.numbers.size(site.population)[1])
            for m in drawn.model.matrices:
                if m.rows == site.population and not isinstance(m, Circulant):
                    seen.matrices[label(m)] = turn.T @ seen.matrices[label(m)]
    return seen


def outer_sums(expr: Basic) -> list[Apply]:
    """The outermost sums over units in an expression."""
    return [expr] if isinstance(expr, Apply) else [n for a in expr.args for n in outer_sums(a)]


def _renamed(q: Quenched) -> Quenched:
    """The same label with a law that can be drawn; its numbers are replaced."""
    return Quenched(q.name, Normal(0, 1), over=q.population)


def waves(count: int) -> tuple[Array, Array]:
    """(orthogonal matrix of real waves in its columns, their angles) on a cycle of units."""
    place, columns, angles = np.arange(count), [np.full(count, 1 / np.sqrt(count))], [0.0]
    for k in range(1, count // 2 + 1):
        angle = 2 * np.pi * k / count
        kinds = (np.cos,) if 2 * k == count else (np.cos, np.sin)
        for wave in kinds:
            column = wave(angle * place)
            columns.append(column / np.linalg.norm(column))
            angles.append(angle)
    return np.stack(columns, axis=1), np.array(angles)
