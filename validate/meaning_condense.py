"""What condensed patterns mean in numbers: the energy of a state from its overlaps, at any size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sympy import Symbol

from quenched.theory.couplings import Row
from quenched.theory.errors import NotCovered
from quenched.theory.gibbs import Gibbs
from quenched.theory.replica_condense import pattern_matrices
from quenched.validate.generate import label
from quenched.validate.spins import Instance


def condense_deviation(before: Gibbs, after: Gibbs, values: Mapping[Symbol, float], rng: np.random.Generator) -> float:
    """Energies of random states of 7 units by the drawn matrices, and by the overlaps with their rows.

    Raises
    ------
    NotCovered
        Patterns that do not condense: the two differ by them.
    """
    matrices = pattern_matrices(before)
    if any(m.rows.extensive for m in matrices):
        raise NotCovered("not compared at a finite size: patterns beyond the window")
    own = {p: v for p, v in values.items() if p in before.parameters}
    seed = int(rng.integers(1 << 30))
    drawn, seen = Instance(before, 7, seed, 0, own), Instance(after, 7, seed, 0, own)
    for m in matrices:
        array = drawn.matrices[label(m)]
        for q in after.quenched:
            for k in range(len(array)):
                if q.name == Row(m, k).name:
                    seen.labels[q] = array[k] * np.sqrt(7.0)
    (one,), (two,) = before.fields, after.fields
    states = rng.standard_normal((20, 7))
    a, b = drawn.energy({one: states}), seen.energy({two: states})
    return float(np.max(np.abs(a - b) / (1 + np.abs(a))))
