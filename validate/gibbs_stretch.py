"""Moves of the scale of a whole state: all units of a field times one positive number.

One unit at a time the length of a state of N units takes many sweeps to change where constraints leave each unit little
room, although nothing but the prior and the weight may hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from quenched.validate.gibbs_system import State


def stretch(state: State, fields: list[int], rng: np.random.Generator, scale: float) -> None:
    """One Metropolis move of the scale of each of these fields, whose units have densities.

    The volume element changes by factor^n of the n units that are not at an atom at zero.
    """
    chain = state.chain
    for f in fields:
        cut = slice(int(chain.system.bounds[f]), int(chain.system.bounds[f + 1]))
        step = state.reach[f] * rng.standard_normal()
        kept, exponent, prior = state.kept(), state.exponent, state.ln_prior(f)
        state.x[cut] *= np.exp(step)
        state.refresh()
        gain = state.exponent - exponent if np.isfinite(state.exponent) else -np.inf
        ratio = np.count_nonzero(state.x[cut]) * step + state.ln_prior(f) - prior + scale * gain
        state.stretched[f, 1] += 1
        if np.log(rng.random()) < ratio:
            state.stretched[f, 0] += 1
        else:
            state.restore(kept)
            state.exponent = exponent
