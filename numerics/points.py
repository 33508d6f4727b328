"""Paths of units without fluctuations: one path for every value of the labels, coupled by their averages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from sympy import Expr, Symbol, lambdify, sympify

from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError
from quenched.theory.problem_causal import TIME
from quenched.theory.problem_points import PointProblem, PointUnit

from .labels import label_nodes
from .types import Array

#: Paths of one population at most: the product of the nodes of all labels.
MOST = 50_000
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class PointPaths:
    """Solved paths.

    Attributes
    ----------
    times : array (T,)
    states : one array (T, n, L) a population
    nodes : one array (l, L) a population, label values
    weights : one array (L,) a population
    tolerance : relative accuracy of the integration
    """

    problem: PointProblem
    values: dict[str, float]
    times: Array
    states: list[Array]
    nodes: list[Array]
    weights: list[Array]
    tolerance: float

    def course(self, body: Expr, population: int) -> Array:
        """⟨body⟩ of states and labels at all times, (T,)."""
        unit = self.problem.units[population]
        symbols = [*unit.states, *(label.symbol for label in unit.labels)]
        function = _function([body], symbols, self.values)
        states = np.moveaxis(self.states[population], 1, 0)
        labels = self.nodes[population][:, None, :]
        found = np.broadcast_to(function(*states, *labels)[0], states.shape[1:])
        return np.asarray(found @ self.weights[population])


def solve_points(problem: PointProblem, values: dict[Symbol, float], times: Array) -> PointPaths:
    """Follow all units from their start.

    Parameters
    ----------
    times : increasing, from 0 on; of a map every one is a number of steps

    Raises
    ------
    NotCovered
        Too many labels for a path each.
    ConvergenceError
        A state that diverges.
    """
    known = {s.name: float(v) for s, v in values.items()}
    grids = [_grid(unit, known) for unit in problem.units]
    nodes, weights = [g[0] for g in grids], [g[1] for g in grids]
    rates = _Rates(problem, known, nodes, weights)
    start = np.concatenate([_start(u, known, n).ravel() for u, n in zip(problem.units, nodes, strict=True)])
    rows = _iterate(rates, start, times) if problem.clock == "map" else _integrate(rates, start, times)
    states = [
        rows[:, cut].reshape(len(times), len(u.states), -1) for u, cut in zip(problem.units, rates.cuts, strict=True)
    ]
    return PointPaths(problem, known, times, states, nodes, weights, _TOLERANCE if problem.clock == "flow" else 1e-14)


class _Rates:
    """Right-hand sides of all paths at once."""

    def __init__(
        self, problem: PointProblem, known: dict[str, float], nodes: list[Array], weights: list[Array]
    ) -> None:
        self.problem, self.nodes, self.weights = problem, nodes, weights
        sizes = [len(u.states) * n.shape[1] for u, n in zip(problem.units, nodes, strict=True)]
        edges = np.cumsum([0, *sizes])
        self.cuts = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        fields = [symbol for symbol, _ in problem.numbers]
        self.read = []
        self.move = []
        for k, unit in enumerate(problem.units):
            own = [*unit.states, *(label.symbol for label in unit.labels)]
            terms = [(i, c, e) for i, (_, ts) in enumerate(problem.numbers) for c, u, e in ts if u == k]
            strength = [
                float(sympify(c).subs({s: known[s.name] for s in sympify(c).free_symbols})) for _, c, _ in terms
            ]
            averages = _function([e for *_, e in terms], own, known)
            self.read.append(([i for i, *_ in terms], np.array(strength), averages))
            self.move.append(_function(list(unit.rhs), [*own, *fields, TIME], known))

    def __call__(self, time: float, y: Array) -> Array:
        parts = [y[c].reshape(len(u.states), -1) for u, c in zip(self.problem.units, self.cuts, strict=True)]
        numbers = np.zeros(len(self.problem.numbers))
        for (places, strength, averages), x, labels, w in zip(self.read, parts, self.nodes, self.weights, strict=True):
            for i, c, found in zip(places, strength, averages(*x, *labels), strict=True):
                numbers[i] += c * float(np.broadcast_to(found, w.shape) @ w)
        out = np.empty_like(y)
        for move, x, labels, cut in zip(self.move, parts, self.nodes, self.cuts, strict=True):
            rows = move(*x, *labels, *numbers, time)
            out[cut] = np.concatenate([np.broadcast_to(r, x.shape[1:]) for r in rows])
        return out


def _integrate(rates: _Rates, start: Array, times: Array) -> Array:
    with np.errstate(all="ignore"):
        found = solve_ivp(
            rates, (0.0, float(times[-1]) or 1e-12), start, "DOP853", t_eval=times, rtol=_TOLERANCE, atol=1e-12
        )
    if not found.success or not np.all(np.isfinite(found.y)):
        raise ConvergenceError(f"the state diverges before time {times[-1]:g}", [])
    return np.asarray(found.y.T)


def _iterate(rates: _Rates, start: Array, times: Array) -> Array:
    advance = float(sympify(rates.problem.advance))
    rows, y = [start], start
    for n in range(round(float(times[-1]))):
        y = rates(n * advance, y)
        rows.append(y)
    if not np.all(np.isfinite(y)):
        raise ConvergenceError(f"the state diverges before step {times[-1]:g}", [])
    return np.array(rows)[np.round(times).astype(int)]


def _function(exprs: list[Expr], symbols: list[Symbol], known: dict[str, float]) -> Callable[..., list[Any]]:
    """Array code for expressions, parameters put in."""
    fixed = []
    for e in exprs:
        e = sympify(e)
        loose = [s for s in e.free_symbols if s not in symbols]
        missing = [s.name for s in loose if s.name not in known]
        if missing:
            raise QuenchedError(f"parameter {missing[0]!r} has no value")
        fixed.append(e.xreplace({s: sympify(known[s.name]) for s in loose}))
    made: Callable[..., list[Any]] = lambdify(symbols, fixed, ["scipy", "numpy"], cse=True)
    return made


def _grid(unit: PointUnit, known: dict[str, float]) -> tuple[Array, Array]:
    """Label values (l, L) and probabilities (L,)."""
    if not unit.labels:
        return np.zeros((0, 1)), np.ones(1)
    values = {s: known[s.name] for label in unit.labels for s in getattr(label.law, "free_symbols", set())}
    count = int(np.prod([len(label_nodes((label,), values)[1]) for label in unit.labels]))
    if count > MOST:
        names = ", ".join(label.symbol.name for label in unit.labels)
        raise NotCovered(f"{count} values of the labels {names} are too many for a path each: at most {MOST}")
    points, weights = label_nodes(unit.labels, values)
    return np.array(points, dtype=float).T, weights


def _start(unit: PointUnit, known: dict[str, float], nodes: Array) -> Array:
    function = _function(list(unit.start), [label.symbol for label in unit.labels], known)
    return np.array([np.broadcast_to(row, nodes.shape[1]) for row in function(*nodes)], dtype=float)
