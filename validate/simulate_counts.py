"""Simulation of the number of stable fixed points: every one of small drawn networks, by an experiment of its own."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from quenched.theory.counted import counts, is_counted
from quenched.theory.errors import NotCovered
from quenched.theory.model import Model
from quenched.validate import fixed_point_count
from quenched.validate.estimators import Estimator
from quenched.validate.experiment import Prepared
from quenched.validate.fixed_point_count import CountExperiment
from quenched.validate.quantities import Numbers
from quenched.validate.realise import Task

_THRESHOLD = (
    "where the number begins to grow is not read off networks of one value; observe Complexity() on either side"
)


def prepare_counts(model: Model, N: int, seed: int, params: Mapping[Any, Any] | None = None) -> Prepared:
    """An enumeration of the stable fixed points of drawn networks.

    Raises
    ------
    NotCovered
        Other observables in the same declaration; networks whose right-hand side jumps, depends on time, is noisy or
        delayed; maps.
    """
    from quenched.validate.simulate_dynamics import prepare

    others = [name for name, expr in model.observables.items() if not is_counted(expr)]
    if others:
        raise NotCovered(f"{others[0]} is an average over time, beside a number of fixed points: declare it apart")
    bare = model.unobserved()
    values = {s: v for s, v in model.values(params).items() if s in bare.parameters}
    ready = prepare(bare, N, seed, values)
    task = ready.task
    assert isinstance(task, Task)
    _check(model, task)
    counted = {name: (_estimator(name), None) for name, expr in model.observables.items() if counts(expr)}
    experiment = CountExperiment(task, tuple(counted))
    code = hashlib.sha256(inspect.getsource(fixed_point_count).encode()).hexdigest()[:16]
    identity = {"model": model.key(), "version": f"{ready.identity['version']}+{code}", "task": repr(experiment)}
    shown = {p.name: float(v) for p, v in model.values(params).items()}
    missing = {name: _THRESHOLD for name in model.observables if name not in counted}
    sizes = {p.name: Numbers(model.values(params), N).size(p) for p in bare.populations}
    return Prepared(experiment, identity, counted, shown, sizes, {"fixed points": "all stable ones"}, missing)


def _check(model: Model, task: Task) -> None:
    reasons = {
        "a map": model.clock == "map",
        "noise": bool(task.program.noises),
        "delays": bool(task.delays),
        "a right-hand side that depends on time": not task.program.autonomous,
        "a right-hand side that jumps": not task.program.tangent,
    }
    for reason, applies in reasons.items():
        if applies:
            raise NotCovered(f"stable fixed points are enumerated in smooth autonomous flows, not with {reason}")


def _estimator(name: str) -> Estimator:
    return Estimator(
        name,
        "(1/N) ln of the mean number of stable fixed points, the silent one apart",
        "log of mean",
        "points that starts miss, for which the number is corrected by comparing rounds of starts",
        "declaration",
        min_N=4,
        max_N=16,
        reason="a number is exp(ΣN) times a constant, corrections to which fall faster",
        noise=-2.0,
    )


__all__ = ["prepare_counts"]
