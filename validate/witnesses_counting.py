"""Witnesses of the steps that count stable fixed points: small networks at rest, determinants of large matrices.

A network with all bonds at rest is affine in its couplings, so its generated right-hand side gives, without sampling,
what is not random and the weight of every coupling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, lambdify

from quenched.theory.counted import counted
from quenched.theory.counting import ORDER, CountStable, RestUnits, StableCount, UnitsAtRest, derive_count
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.record import Rule, Step
from quenched.validate.fixed_point_count import Rest
from quenched.validate.program import load
from quenched.validate.realise import Network, Task
from quenched.validate.witness_types import EXACT, Scene, Tick, Witness

Array = NDArray[np.float64]
#: Units of a network at rest; of a matrix; how many matrices.
_FEW, _MANY, _DRAWS = 5, 300, 6
#: Deviation of sampled determinants and inverses that counts as agreement.
_SAMPLED = 0.025


def at_rest(before: Any, after: UnitsAtRest, scene: Scene) -> float:
    """Mean and variance over couplings of the right-hand side of a small network; what its other fields rest at."""
    from quenched.validate.simulate_dynamics import prepare

    bare = scene.model.unobserved()
    task = prepare(bare, _FEW, scene.seed, {s: v for s, v in scene.values.items() if s in bare.parameters}).task
    assert isinstance(task, Task)
    net = Network(task)
    rest = Rest(net, load(task.program.source)["rhs"])
    x = scene.rng().normal(size=(1, rest.units))
    spread = [_deviation(task, k) for k in range(len(net.matrices))]
    for matrix, spec in zip(net.matrices, task.matrices, strict=True):
        matrix[:] = spec.mean
    driven, read = (net.slices[k] for k in after.ends)
    x = _followed(rest, x, np.r_[driven], np.r_[read])
    mean = rest.force(x)[0, driven]
    variance = np.zeros_like(mean)
    for matrix, size in zip(net.matrices, spread, strict=True):
        for entry in np.ndindex(matrix.shape):
            plain = matrix[entry]
            matrix[entry] = plain + size
            variance += (rest.force(x)[0, driven] - mean) ** 2
            matrix[entry] = plain
    state = x[0, read]
    order = float(np.mean(_function(after, after.average, scene)(state, 0.0)))
    drift, told = (_function(after, e, scene)(state, order) for e in (after.drift, after.variance))
    found = [x[0, where] for k, where in enumerate(net.slices) if k != after.ends[1]]
    values = [_function(after, value, scene)(state, order) for _, value in after.followers]
    pairs = [(drift, mean), (told, variance), *zip(values, found, strict=True)]
    return float(max(_relative(a, b) for a, b in pairs))


def _followed(rest: Rest, x: Array, driven: NDArray[np.intp], read: NDArray[np.intp]) -> Array:
    """The state with all other fields where the equations that couplings do not enter vanish; these are linear."""
    others = np.setdiff1d(np.arange(rest.units), read)
    if not len(others):
        return x
    kept = np.setdiff1d(np.arange(rest.units), driven)
    x = x.copy()
    x[0, others] = 0.0
    start = rest.force(x)[0, kept]
    moved = np.repeat(x, len(others), axis=0)
    moved[np.arange(len(others)), others] = 1.0
    x[0, others] = np.linalg.solve((rest.force(moved)[:, kept] - start).T, -start)
    return x


def _deviation(task: Task, which: int) -> float:
    """Standard deviation of the entries of a matrix, as the sampler is told."""
    spec = task.matrices[which]
    if spec.law is not None:
        raise NotCovered(f"the entries of {spec.name} have a law of their own: their variance is not told")
    return float(np.sqrt(spec.variance))


def determinants(before: UnitsAtRest, after: StableCount, scene: Scene) -> float | None:
    """Determinants of sampled matrices by the product of weights, and the size of their inverses by the edge."""
    rng = scene.rng()
    grid = np.linspace(-6, 6, 601)
    order = float(np.mean(_function(before, before.average, scene)(grid, 0.0)))
    slope, spread, weight, edge = (
        _function(before, e, scene)(grid, order) for e in (before.slope, before.spread, after.weight, after.edge)
    )
    ratio = spread / slope**2
    spread_out = ratio > 0
    if not spread_out.any():
        return None
    good = (ratio <= np.quantile(ratio[spread_out], 0.9)) & (slope < 0)
    if good.sum() < 10:
        return None
    k = rng.choice(np.flatnonzero(good), _MANY)
    if not np.any(ratio[k]):
        return None
    shrink = min(1.0, 0.5 / float(np.mean(ratio[k])))  # the same slopes among weaker couplings leave zero out
    logs, sizes = [], []
    for _ in range(_DRAWS):
        scale = np.sqrt(shrink * spread[k] / _MANY)
        inverse = np.linalg.inv(np.diag(-slope[k]) - rng.standard_normal((_MANY, _MANY)) * scale)
        logs.append(-np.linalg.slogdet(inverse)[1] / _MANY)
        sizes.append(float(np.sum(shrink * spread[k][:, None] * inverse**2) / _MANY))
    size = float(np.mean(sizes))
    product = abs(float(np.mean(logs)) - float(np.mean(np.log(np.abs(weight[k])))))
    told = shrink * float(np.mean(edge[k]))
    return max(product, abs(size / (1 + size) / told - 1))


def _function(units: UnitsAtRest, expr: Expr, scene: Scene) -> Callable[[Array, float], Array]:
    raw = lambdify([units.state, ORDER], expr.xreplace(dict(scene.values)), modules=["scipy", "numpy"])
    return lambda x, c: np.broadcast_to(np.asarray(raw(x, c), float), np.shape(x))


def _relative(a: Array, b: Array) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def count_steps(derivation: Any) -> tuple[Step, ...]:
    """The steps that count stable fixed points, from the average over couplings on; none where they are not derived."""
    if not hasattr(derivation.model, "eqs") or derivation.find(StableCount) is not None:
        return ()
    try:
        steps = derive_count(derivation.model).steps
    except QuenchedError:
        return ()
    return tuple(s for s in steps if isinstance(s.rule, RestUnits | CountStable))


def missing_ticks(derivation: Any) -> list[Tick]:
    """Why an observed number of stable fixed points has no steps."""
    if not counted(derivation.model) or derivation.find(StableCount) is not None:
        return []
    try:
        derive_count(derivation.model)
    except QuenchedError as stop:
        return [Tick(CountStable.title, None, 0.0, 0.0, f"not derived: {stop}", 0.0)]
    return []


WITNESSES: dict[type[Rule], Witness] = {
    RestUnits: Witness(f"right-hand side of {_FEW} units at rest, coupling by coupling", EXACT, at_rest),
    CountStable: Witness(f"determinants and inverses of {_DRAWS} matrices of {_MANY} units", _SAMPLED, determinants),
}
