"""States of positive weight from which the replicas of a measure start.

Constraints that are steps of one linear local field bound a polyhedron, whose interior a linear programme finds (HiGHS)
where the annealed search of the sweeps does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.validate.gibbs_programme import halfspaces
from quenched.validate.gibbs_system import KINDS, Chain, State, draw_prior

Array = NDArray[np.float64]

#: Sweeps of a descent.
DESCENT = 10
#: Draws that tell where a prior lies, and factors of that range in which a programme searches.
DRAWS, RANGES = 1000, (1.0, 3.0, 10.0, 30.0)
#: Factors of a start that a descent leaves where it is.
SCALES = (0.5, 2.0)


def start(chain: Chain, rng: np.random.Generator, laws: tuple[Any, ...], replica: int) -> State:
    """A state of positive weight: the declared initial state, or what a search from it finds.

    Where none is declared, the odd replicas descend to a nearby maximum of the weight; where all allowed states weigh
    the same, they start at another scale.
    """
    system = chain.system
    state = chain.state(system.starting_state(rng, laws, replica))
    if not np.isfinite(state.exponent) and not state.search(rng) and not inside(state, rng, laws):
        raise QuenchedError(
            "no state of positive weight was found: use fewer constraints, a larger N, or declare one, as in "
            'Field("w", initial=...)'
        )
    if replica % 2 and not any(f.starts for f in system.program.fields):
        before = state.x.copy()
        state.sweep(DESCENT, rng, np.inf, laws)
        if np.array_equal(before, state.x):
            _rescale(state)
    return state


def _rescale(state: State) -> None:
    """Another scale of the units with densities, at which the weight is positive."""
    before, free = state.x.copy(), (state.chain.kinds == KINDS["continuous"])[state.chain.owner]
    for scale in SCALES:
        state.x[:] = np.where(free, scale * before, before)
        if _allowed(state):
            return
    state.x[:] = before
    state.refresh()


def _allowed(state: State) -> bool:
    """Whether a state that was changed has a positive weight and lies where the priors are."""
    state.refresh()
    priors = sum(state.ln_prior(f) for f in range(len(state.chain.kinds)))
    return bool(np.isfinite(state.exponent) and np.isfinite(priors))


def inside(state: State, rng: np.random.Generator, laws: tuple[Any, ...]) -> bool:
    """Moves a state of densities inside all half spaces, as far from them as can be; whether there is one."""
    chain, before = state.chain, state.x.copy()
    if np.any(chain.kinds == KINDS["atoms"]) or np.any(chain.mixed >= 0):
        return False
    try:
        planes = halfspaces(chain.system)
    except NotCovered:
        return False
    drawn = [np.sort(draw_prior(rng, DRAWS, law))[[0, -1]] for law in laws]
    low, high = (np.array([ends[k] for ends in drawn])[chain.owner] for k in (0, 1))
    for wide in RANGES:
        found = _deepest(*planes, np.where(low < 0, wide * low, low), np.where(high > 0, wide * high, high))
        if found is None:
            continue
        state.x[:] = found
        for f in np.flatnonzero(chain.kinds == KINDS["sphere"]):
            cut = chain.system.slices[f]
            state.x[cut] *= np.sqrt(cut.stop - cut.start) / max(np.linalg.norm(found[cut]), 1e-300)
        if _allowed(state):
            return True
    state.x[:] = before
    state.refresh()
    return False


def _deepest(G: Array, h: Array, low: Array, high: Array) -> Array | None:
    """The centre of the largest ball in G x > h between bounds, if there is any."""
    from scipy.optimize import linprog

    one = np.eye(len(low))
    planes, ends = np.vstack([-G, -one, one]), np.concatenate([-h, -low, high])
    A = np.hstack([planes, np.linalg.norm(planes, axis=1)[:, None]])
    found = linprog(np.append(np.zeros(len(low)), -1.0), A_ub=A, b_ub=ends, bounds=(None, None), method="highs")
    return found.x[:-1] if found.status == 0 and found.x[-1] > 1e-9 else None
