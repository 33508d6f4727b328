"""Counts of the states that meet all of many constraints: two halves of the units against each other.

The local fields of a constraint are sums of what either half of the units gives. One half is sorted by what it gives to
the first constraint, so that for a state of the other half only a part of its states is looked at, and each of them
only up to the first constraint that it does not meet.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.gibbs_system import Chain

Array = NDArray[np.float64]

#: Local fields closer to a step than this are on it: such a state counts in part, and is left to the general sum.
ON_IT = 1e-9


def ln_count(chain: Chain, most: int) -> tuple[float, float] | None:
    """(ln of the number of states that meet all constraints, ln of the a priori probability of one of them).

    None where the weight is not that of constraints Σ c x > θ on units of equally likely values, or where a state lies
    on a step.

    Raises
    ------
    QuenchedError
        More states than `most`.
    """
    atoms = plain_atoms(chain)
    steps = _steps(chain) if atoms is not None else None
    if atoms is None or steps is None:
        return None
    sizes = [len(a) for a in atoms]
    states = float(np.prod([float(n) for n in sizes]))
    if states > most:
        raise QuenchedError(f"enumeration of {states:.3g} states (at most {most:.3g}): use a smaller N")
    columns, offset = steps
    half = len(atoms) // 2
    low = _fields(atoms[:half], columns[:half])
    high = _fields(atoms[half:], columns[half:]) - offset
    first = np.argsort(-low[:, 0], kind="stable")
    count, on_it = _kernel()(np.ascontiguousarray(low[first]), np.ascontiguousarray(high), ON_IT)
    if on_it:
        return None
    return (float(np.log(count)) if count else -np.inf), -float(np.sum(np.log(sizes)))


def plain_atoms(chain: Chain) -> list[Array] | None:
    """The values of every unit; None where the exponent has more than constraints, or values differ in probability."""
    c, program = chain, chain.system.program
    if program.moments or program.heights or program.levels or any(f.kind != "atoms" for f in program.fields):
        return None
    if np.any(c.linear) or np.any(c.diagonal) or np.any(c.pair) or c.low.size or c.constant:
        return None
    out = []
    for i, f in enumerate(c.owner):
        count = len(program.fields[f].atoms)
        values = c.atoms[f, :count]
        if np.ptp(c.chances[f, :count]) > 1e-12:
            return None
        if any(c.kernel.site(f, x, c.l[i], c.system.p) != 0 for x in values):
            return None
        out.append(values)
    return out


def _steps(chain: Chain) -> tuple[Array, Array] | None:
    """(columns (units, constraints), offsets) with constraints columns·x > offset; None where there are others."""
    system = chain.system
    blocks = system.program.blocks
    if not blocks or any(b.step is None or len(b.recipes) != 1 for b in blocks):
        return None
    columns, offsets = [], []
    for b in blocks:
        assert b.step is not None
        rows = system.block_columns(b)[:, :, 0]
        sign, offset = (system.per_unit(name, rows.shape[1]) for name in b.step)
        columns.append(rows * sign)
        offsets.append(offset)
    joined = np.concatenate(columns, axis=1)
    return (joined, np.concatenate(offsets)) if joined.shape[1] else None


def _fields(atoms: list[Array], columns: Array) -> Array:
    """Σ columns·x for all states of some units, shape (states, constraints)."""
    states = np.array(list(product(*atoms)), float).reshape(-1, len(atoms))
    return states @ columns if len(atoms) else np.zeros((1, columns.shape[1]))


def _kernel() -> Any:
    """The compiled count (compiled once for a machine)."""
    if "count" not in _COMPILED:
        import numba

        _COMPILED["count"] = numba.njit(cache=True)(_count)
    return _COMPILED["count"]


_COMPILED: dict[str, Any] = {}


def _count(low: Array, high: Array, on_it: float) -> tuple[int, int]:
    """Pairs of rows with all sums positive, and pairs with a sum next to 0 and none below."""
    total, marginal = 0, 0
    constraints = low.shape[1]
    for h in range(high.shape[0]):
        for k in range(low.shape[0]):
            if low[k, 0] + high[h, 0] < -on_it:
                break  # sorted: no further one meets the first constraint
            meets, near = True, False
            for r in range(constraints):
                u = low[k, r] + high[h, r]
                if u < -on_it:
                    meets = False
                    break
                if u <= on_it:
                    near = True
            if meets:
                if near:
                    marginal += 1
                else:
                    total += 1
    return total, marginal
