"""Largest margins and numbers of constraints that can be met, by exact convex programmes.

The constraints of a realisation are sign_μ u_μ ≥ offset_μ with local fields u linear in the state. Their largest common
margin on a sphere follows from the least distance of a polyhedron from the origin, solved as non-negative least squares
(Lawson and Hanson 1974, ch. 23); whether units within bounds can meet them is a linear programme (HiGHS).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.validate.gibbs_program import Block
from quenched.validate.gibbs_system import System

if TYPE_CHECKING:
    from quenched.validate.simulate_gibbs import GibbsExperiment

Array = NDArray[np.float64]

#: Steps of the search for a margin whose constraints have offsets.
BISECTIONS = 40


def solved_programmes(system: System, experiment: GibbsExperiment) -> Array:
    """Values of the nodes: margins and capacities of one realisation."""
    out = np.full(len(experiment.nodes), np.nan)
    for k, node in enumerate(experiment.nodes):
        if node.functional == "Margin":
            out[k] = largest_margin(system, node.parameter)
        elif node.functional == "Capacity":
            out[k] = most_constraints(experiment, node.parameter)
    return out


def signs(system: System) -> Array:
    """G of what a sign-constrained prior demands of every unit, G w ≥ 0; no rows without one."""
    (field,) = system.program.fields
    size = system.sizes[field.population]
    rows = np.zeros((0, size))
    for name, sign in zip(field.ends, (1.0, -1.0), strict=True):
        if name and system.per_unit(name, size).any():
            raise NotCovered(f"margins of {field.name} on a sphere within bounds: a bound at zero is covered")
        if name:
            rows = np.vstack([rows, sign * np.eye(size)])
    return rows


# -- the polyhedron --------------------------------------------------------------------------------------------------
def constraints(system: System, parameter: str = "") -> tuple[Array, Array, Array]:
    """(G, h, d) of the constraints G w ≥ h; d is the slope of h in a parameter (zero without one)."""
    _single_sphere(system)
    G, h = halfspaces(system)
    if not parameter:
        return G, h, np.zeros_like(h)
    return G, h, np.concatenate([_slope(system, block, parameter) for block in system.program.blocks])


def halfspaces(system: System) -> tuple[Array, Array]:
    """(G, h) of the constraints G w > h, one row each."""
    rows, offsets = [], []
    for block in system.program.blocks:
        if block.step is None:
            raise NotCovered(f"constraints of {block.population}: a step of one local field is covered")
        cols = system.columns(block.recipes[0])
        sign, h = (system.per_unit(name, cols.shape[1]) for name in block.step)
        rows.append((cols * sign).T)
        offsets.append(h)
    if not rows:
        raise NotCovered("this measure has no constraints")
    return np.concatenate(rows), np.concatenate(offsets)


def _single_sphere(system: System) -> None:
    kinds = {f.kind for f in system.program.fields}
    if kinds != {"sphere"} or len(system.program.fields) != 1:
        raise NotCovered("margins and capacities are solved for one field on a sphere")


def _slope(system: System, block: Block, parameter: str) -> Array:
    """Derivative of the offsets in a parameter, which they must be linear in."""
    k = system.program.parameters.index(parameter)
    assert block.step is not None
    here, size = system.p[k], system.sizes[block.population]
    found = []
    for step in (0.0, 1.0, 2.0):
        system.p[k] = here + step
        found.append(system.per_unit(block.step[1], size))
    system.p[k] = here
    if not np.allclose(found[2] - found[0], 2 * (found[1] - found[0])):
        raise NotCovered(f"the constraints of {block.population} are not linear in {parameter}")
    return found[1] - found[0]


def least_norm(G: Array, h: Array) -> tuple[float, Array]:
    """(|w|, w) of the shortest w with G w ≥ h; infinite where there is none."""
    from scipy.optimize import nnls

    if np.all(h <= 0):
        return 0.0, np.zeros(G.shape[1])
    E = np.vstack([G.T, h])
    target = np.zeros(len(E))
    target[-1] = 1.0
    u, _ = nnls(E, target, maxiter=30 * G.shape[0] + 1000)
    r = E @ u - target
    if -r[-1] < 1e-10:
        return np.inf, np.zeros(G.shape[1])
    w = r[:-1] / -r[-1]
    return float(np.linalg.norm(w)), w


# -- margins ---------------------------------------------------------------------------------------------------------
def largest_margin(system: System, parameter: str) -> float:
    """The largest value of a parameter of the offsets at which a state of norm √(units) meets all constraints.

    Raises
    ------
    QuenchedError
        There is none with a positive margin (beyond a capacity the problem is not convex).
    """
    G, h, d = constraints(system, parameter)
    fixed = signs(system)
    k = system.program.parameters.index(parameter)
    radius, base = np.sqrt(G.shape[1]), h - d * system.p[k]
    if np.any(d <= 0):
        raise NotCovered(f"{parameter} does not tighten all constraints")
    rows, zero = np.vstack([G, fixed]), np.zeros(len(fixed))
    if not base.any() and np.allclose(d, d[0]):  # a cone: the margin scales with the norm
        norm, _ = least_norm(rows, np.append(np.ones(len(G)), zero))
        if not np.isfinite(norm):
            raise QuenchedError(f"no state meets all constraints with a margin at N = {system.place[1]}")
        return float(radius / norm / d[0])
    return _search(lambda x: least_norm(rows, np.append(base + d * x, zero))[0] - radius)


def _search(excess: Callable[[float], float]) -> float:
    """Where the least norm reaches the radius."""
    lo, hi = 0.0, 1.0
    if excess(lo) > 0:
        raise QuenchedError("no state meets all constraints with a margin")
    while excess(hi) < 0:
        lo, hi = hi, 2 * hi
    for _ in range(BISECTIONS):
        middle = (lo + hi) / 2
        lo, hi = (lo, middle) if excess(middle) > 0 else (middle, hi)
    return (lo + hi) / 2


# -- capacities ------------------------------------------------------------------------------------------------------
def most_constraints(experiment: GibbsExperiment, parameter: str) -> float:
    """Number of constraints that can still be met, drawn one after the other, over N.

    The constraints of a realisation are those of the same realisation at a larger value of the parameter, taken from
    the first on.
    """
    here = experiment.parameters[experiment.program.parameters.index(parameter)]
    value = max(here, 1e-3)
    for _ in range(12):
        value *= 2
        G, h, fixed = _enlarged(experiment, parameter, value / here)
        if not feasible(G, h, fixed):
            break
    else:
        raise QuenchedError(f"all constraints can be met up to {parameter} = {value:g}: there is no capacity")
    lo, hi = 0, len(G)
    while hi - lo > 1:
        middle = (lo + hi) // 2
        lo, hi = (middle, hi) if feasible(G[:middle], h[:middle], fixed) else (lo, middle)
    return lo / experiment.N


def _enlarged(experiment: GibbsExperiment, parameter: str, factor: float) -> tuple[Array, Array, Array]:
    """The constraints of a realisation with their populations enlarged by a factor, and those of the prior."""
    grown = {b.population for b in experiment.program.blocks}
    sizes = {name: round(n * factor) if name in grown else n for name, n in experiment.sizes.items()}
    matrices = tuple(replace(m, rows=sizes[_rows(experiment, k)]) for k, m in enumerate(experiment.matrices))
    spaces = experiment.label_spaces
    vectors = tuple(replace(v, size=sizes[space]) for v, space in zip(experiment.vectors, spaces, strict=True))
    place = (experiment.seed, experiment.N, experiment.realisation)
    system = System(experiment.program, experiment.parameters, sizes, matrices, vectors, place)
    G, h, _ = constraints(system)
    return G, h, signs(system)


def _rows(experiment: GibbsExperiment, matrix: int) -> str:
    return experiment.row_spaces[matrix]


def feasible(G: Array, h: Array, signs: Array) -> bool:
    """Whether a state on the sphere of radius √(units) with certain signs meets all constraints."""
    if not len(G):
        return True
    rows, zero = np.vstack([G, signs]), np.zeros(len(signs))
    if h.any():
        return least_norm(rows, np.append(h, zero))[0] <= np.sqrt(G.shape[1])
    return np.isfinite(least_norm(rows, np.append(np.ones(len(G)), zero))[0])


__all__: list[Any] = [
    "constraints",
    "feasible",
    "largest_margin",
    "least_norm",
    "most_constraints",
    "solved_programmes",
]
