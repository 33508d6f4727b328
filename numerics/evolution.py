"""State evolution as it is iterated: the overlaps of message passing on a typical instance, sweep by sweep."""

from __future__ import annotations

import numpy as np
from sympy import Symbol

from quenched.theory.errors import ConvergenceError
from quenched.theory.problem_replicas import ReplicaProblem, SiteAverage

from .replica_evaluator import quick_evaluator
from .types import Array

#: Start of overlaps and of means: nothing is known.
_START = {"mean": 0.0, "overlap": 1e-6, "norm": 1.0, "response": 0.0}


#: Work of a site above which sweeps are taken on fewer nodes, and on how many.
VERY_COSTLY = (5000, 0.5)
#: Share of a state's second moment that is unknown where everything is known.
NOTHING_LEFT = 1e-6


def known(seen: dict[str, float]) -> bool:
    """Whether the overlap of every state has reached its second moment."""
    pairs = [(seen[q], seen["Q" + q[1:]]) for q in seen if q[0] == "q" and "Q" + q[1:] in seen]
    return bool(pairs) and all(size - q < NOTHING_LEFT * size for q, size in pairs)


def trajectory(
    problem: ReplicaProblem, values: dict[Symbol, float], sweeps: int, names: tuple[str, ...], tol: float = 1e-9
) -> dict[str, Array]:
    """Observables after every sweep from no knowledge: constraints first, then units.

    Ends early where nothing changes any more, or where the fields lose their width (everything is known).

    Parameters
    ----------
    problem : fixed-point problem of state evolution
    values : numbers of all parameters
    sweeps : at most
    names : observables to follow

    Returns
    -------
    dict name → array (sweeps + 1,)
    """
    ev = quick_evaluator(problem, values, *VERY_COSTLY)
    channels = {s.name for s in problem.sites if s.kind == "channel"}
    first = np.array([{a.site for a in rhs.atoms(SiteAverage)} <= channels for _, rhs in problem.equations])
    x = np.array([_START[kind] for kind in problem.kinds])
    rows: list[list[float]] = []
    for _ in range(sweeps + 1):
        try:
            x = np.where(first, ev.update(x), x)
            seen = ev.observe(x)
            new = np.where(first, x, ev.update(x))
        except (ConvergenceError, ValueError):
            break  # the fields have no width left
        rows.append([seen[name] for name in names])
        if known(seen):
            break
        if np.max(np.abs(new - x), initial=0.0) < tol:
            break
        x = new
    table = np.array(rows).reshape(len(rows), len(names))
    return {name: table[:, k] for k, name in enumerate(names)}
