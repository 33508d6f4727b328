"""What condensed patterns mean in numbers: the energy of a state from its overlaps, at any size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sympy import Symbol

from quenched.theory.circulant import Circulant
from quenched.theory.couplings import RandomMatrix, Row
from quenched.theory.fields import Quenched
from quenched.theory.gibbs import Gibbs
from quenched.theory.replica_condense import pattern_matrices
from quenched.theory.spaces import N
from quenched.validate.generate import label
from quenched.validate.quantities import Numbers, first_column
from quenched.validate.spins import Counted, Instance

#: Units of finitely many patterns, and rows beside those that condense where there are many.
UNITS, BESIDE = 7, 6


def condense_deviation(before: Gibbs, after: Gibbs, values: Mapping[Symbol, float], rng: np.random.Generator) -> float:
    """Energies of random states by the drawn matrices, and by the overlaps with their rows.

    Of many patterns either those in the window or all others are set to zero, so that nothing is left of what couples
    them, which is of order N^{-1/2} and dropped.
    """
    matrices = pattern_matrices(before)
    own = {p: v for p, v in values.items() if p in before.parameters}
    many = [m for m in matrices if m.rows.extensive]
    size = max([UNITS, *(_units(m, before, after, own) for m in many)])
    seed = int(rng.integers(1 << 30))
    return max(
        _apart(before, after, Counted(before, size, seed, 0, own), Counted(after, size, seed, 0, own), inside, rng)
        for inside in ((True, False) if many else (True,))
    )


def _units(matrix: RandomMatrix, before: Gibbs, after: Gibbs, own: Mapping[Symbol, float]) -> int:
    """A size at which patterns beyond the window are on all sides of it."""
    rows = _window(matrix, after)
    reach = [_reach(m, own) for m in before.matrices if isinstance(m, Circulant)]
    fraction = float((matrix.rows.count / N).subs(own))
    return int(np.ceil((max(rows) - min(rows) + 1 + 2 * max(reach, default=0) + BESIDE) / fraction))


def _reach(between: Circulant, own: Mapping[Symbol, float], size: int = 64) -> int:
    """The largest shift at which a translation-invariant matrix has an entry."""
    entries = first_column(between, size, Numbers(dict(own), size))
    return max((min(k, size - k) for k, x in enumerate(entries) if abs(x) > 1e-12), default=0)


def _window(matrix: RandomMatrix, after: Gibbs) -> dict[int, Quenched]:
    """Rows that condense, with their labels."""
    head = Row(matrix, 0).name.removesuffix("0")
    found = {q.name: q for q in after.quenched if q.name.startswith(head)}
    rows = range(-len(after.quenched) - 100, len(after.quenched) + 100)
    return {k: found[name] for k in rows if (name := Row(matrix, k).name) in found}


def _apart(
    before: Gibbs, after: Gibbs, drawn: Instance, seen: Instance, inside: bool, rng: np.random.Generator
) -> float:
    for m in pattern_matrices(before):
        array, rows = drawn.matrices[label(m)], _window(m, after)
        if m.rows.extensive:
            kept = np.isin(np.arange(len(array)), [k % len(array) for k in rows]) == inside
            array = np.where(kept[:, None], array, 0.0)
            drawn.matrices[label(m)] = array
            seen.matrices[label(m)] = np.zeros_like(array) if inside else array
        for k, q in rows.items():
            seen.labels[q] = array[k % len(array)] * np.sqrt(float(drawn.N))
        drawn.labels |= {r: array[r.index % len(array)] * np.sqrt(float(drawn.N)) for r in before.rows if r.matrix == m}
    states = {f.name: rng.standard_normal((20, n)) for f, n in drawn.sizes.items()}
    a, b = (i.energy({f: states[f.name] for f in i.sizes}) for i in (drawn, seen))
    return float(np.max(np.abs(a - b) / (1 + np.abs(a))))
