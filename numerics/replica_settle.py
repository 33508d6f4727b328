"""The state that a declared start leads to, where the equations cannot be iterated together.

Stored patterns that the state is not near disturb it more the more it responds to them, and a state that starts near
one pattern may respond so strongly at first that no stationary noise exists. So the noise starts weak: the states
settle in it, it grows towards what they make of it, they settle again, as the state of few patterns is followed to
many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sympy import Expr

from quenched.theory.errors import ConvergenceError
from quenched.theory.problem_replicas import ReplicaProblem, SiteAverage, TreeAverage

from .replica import reach
from .replica_evaluator import Evaluator
from .types import Array

Mask = NDArray[np.bool_]

#: Strength of the noise at first.
WEAK = 1.0
#: Rounds of noise and states, and sweeps of the states in one round.
ROUNDS, SWEEPS = 30, 60
#: Change of the noise, relative to its size, from which on Newton's method is tried; change of settled states.
CLOSE, SETTLED = 0.3, 1e-4
#: How far Newton's method may move a state.
NEAR = 0.1


def settled(ev: Evaluator, x: Array) -> tuple[Array, float, int, Array] | None:
    """The saddle that a start leads to as the noise of the channels grows; None where there is none nearby.

    Parameters
    ----------
    ev : of the problem at its parameters
    x : array (unknowns,), the start

    Returns
    -------
    As `quenched.numerics.replica.newton`: unknowns, residual, number of rounds and steps, Jacobian of the map.
    """
    noise = noisy(ev.problem)
    if not noise.any() or noise.all():
        return None
    x = np.where(noise, WEAK, x)
    for count in range(ROUNDS):
        try:
            x = _in_noise(ev, x, ~noise)
            wanted = _some(ev, x, noise)
            off = np.max(np.abs(wanted - x[noise]) / np.abs(x[noise]))
            found = _newton(ev, x, ~noise) if off < CLOSE else None
        except (ConvergenceError, ValueError):
            return None
        if found is not None:
            there, residual, steps, slope = found
            return there, residual, count + steps, slope
        # at most a factor of two: states are to follow the noise
        x[noise] = np.clip((x[noise] + wanted) / 2, x[noise] / 2, 2 * x[noise])
    return None


def noisy(problem: ReplicaProblem) -> Mask:
    """Which unknowns are overlaps of channels: the noise that sites get from them."""
    channels = {s.name for s in problem.sites if s.kind == "channel"}
    rows = zip(problem.equations, problem.kinds, strict=True)
    return np.array([kind == "overlap" and _sites(rhs) <= channels for (_, rhs), kind in rows])


def _sites(expr: Expr) -> set[str]:
    return {node.site for node in expr.atoms(SiteAverage, TreeAverage)}


def _some(ev: Evaluator, x: Array, which: Mask) -> Array:
    """The right-hand sides of some equations."""
    at = ev.point(x)
    return np.array([ev.number(ev.problem.equations[k][1], at) for k in np.flatnonzero(which)])


def _in_noise(ev: Evaluator, x: Array, states: Mask) -> Array:
    """States settled in a given noise."""
    x = x.copy()
    for _ in range(SWEEPS):
        move = _some(ev, x, states) - x[states]
        x[states] += 0.6 * move
        if np.max(np.abs(move), initial=0.0) < SETTLED:
            break
    return x


def _newton(ev: Evaluator, x: Array, states: Mask) -> tuple[Array, float, int, Array] | None:
    """The saddle next to states that have settled."""
    try:
        found = reach(ev, x)
    except (ConvergenceError, ValueError):
        return None
    return found if np.max(np.abs(found[0] - x)[states]) < NEAR else None
