"""Whether a drawn measure stays the same where its state changes sign, so that odd averages vanish at every size."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from quenched.validate.gibbs_system import KINDS, Chain

Array = NDArray[np.float64]

#: Rounding of an exponent, relative to its size.
ROUNDING = 1e-9
#: Further states at which weights are compared.
OTHERS = 3


def mirrored(chain: Chain, x: Array) -> bool:
    """Whether a change of sign of all fields, or of some of them, leaves the weight of a state as it is."""
    if any(f.starts for f in chain.system.program.fields):
        return False
    fields = range(len(chain.kinds))
    even = [f for f in fields if _even(chain, f, x)]
    free, rng = np.isin(chain.owner, even), np.random.default_rng(0)
    others = [np.where(free & (rng.random(len(x)) < 0.5), -x, x) for _ in range(OTHERS)]  # no accident of one state
    groups = [np.isin(chain.owner, group) for k in range(1, len(even) + 1) for group in combinations(even, k)]
    return any(all(_same(chain, at, group) for at in (x, *others)) for group in groups)


def _same(chain: Chain, x: Array, flipped: NDArray[np.bool_]) -> bool:
    here, there = chain.state(x).exponent, chain.state(np.where(flipped, -x, x)).exponent
    return bool(here == there or abs(here - there) < ROUNDING * (1 + abs(here) + np.sqrt(len(x))))


def _even(chain: Chain, f: int, x: Array) -> bool:
    """Whether the prior of a field is (atoms with their chances, densities at a state)."""
    if chain.kinds[f] == KINDS["atoms"]:
        known = ~np.isnan(chain.atoms[f])
        table = dict(zip(chain.atoms[f][known], chain.chances[f][known], strict=True))
        return all(np.isclose(table.get(-a, np.nan), c) for a, c in table.items())
    here, there = chain.state(x).ln_prior(f), chain.state(-x).ln_prior(f)
    return bool(np.isclose(here, there, rtol=ROUNDING))
