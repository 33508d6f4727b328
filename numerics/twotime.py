"""Marching a two-time problem: numbers for its coefficients, the compiled march, and averages in the marched state.

A problem is marched as the map that it declares, as the Euler map of a flow at dt (the map that `discretise` makes), or
as the flow itself by the trapezoidal rule, whose error falls as dt².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Symbol, lambdify, sympify

from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem_causal import TIME, CausalUnit, Output, TwoTimeProblem

from .march import expand_all, lagged_pairs, march
from .march_code import site_functions, site_kinks
from .twotime_labels import label_grid

Array = NDArray[Any]

Rule = Literal["map", "euler", "trapezoid"]
#: Hermite functions tried, and the part of ⟨f²⟩ that they may miss.
_ORDERS, _MISSED = (16, 32, 64, 128, 256), 1e-7
#: Steps after which the order needed is known roughly.
_PILOT = 30
_REACH, _SPACING = 11.0, 0.08
_SWEEPS = 2
#: Weight of what lay before the repeating past.
_FORGOTTEN = 1e-5


@dataclass(frozen=True)
class Schedule:
    """How a problem is marched.

    Attributes
    ----------
    dt : time step (1 for a map)
    steps : number of steps
    band : lags kept, in steps; None: all of them
    rule : "map", "euler" (the Euler map of a flow, exactly) or "trapezoid" (the flow, error of order dt²)
    grow_from : step at which a perturbation starts, or None
    nodes : nodes of every label with a periodic dependence
    turn : period of the input in steps, 0 without one: what lies beyond the band repeats itself as the input does
    """

    dt: float
    steps: int
    band: int | None = None
    rule: Rule = "trapezoid"
    grow_from: int | None = None
    nodes: int = 24
    turn: int = 0

    @property
    def lags(self) -> int:
        """Number of lags kept, lag 0 included."""
        return self.steps + 1 if self.band is None else min(self.band, self.steps) + 1


class Marcher:
    """A problem at given parameter values, ready to be marched on a schedule."""

    def __init__(self, problem: TwoTimeProblem, values: dict[Symbol, float], schedule: Schedule) -> None:
        if (problem.clock == "map") != (schedule.rule == "map"):
            raise QuenchedError(f"a {problem.clock} is not marched by the rule {schedule.rule!r}")
        self.problem, self.schedule = problem, schedule
        self.values = {s: float(v) for s, v in values.items()}
        self.states = [(u, i) for u, unit in enumerate(problem.units) for i in range(len(unit.states))]
        self.fields = [h for unit in problem.units for h in unit.fields]
        self.labels = [label_grid(unit, self.values, schedule.nodes) for unit in problem.units]
        self.count = np.array([len(w) for _, w in self.labels])
        advance = float(sympify(problem.advance).xreplace(self.values)) if problem.clock == "map" else schedule.dt
        self.times = np.arange(schedule.steps + 1) * advance

    # -- shapes -----------------------------------------------------------------------------------------------------
    @property
    def width(self) -> int:
        return int(self.count.max())

    def turning(self, P: Array) -> NDArray[np.int64]:
        """Steps of a turn that fits into the band, and passes after which the past beyond it is forgotten."""
        turn = self.schedule.turn
        if not 0 < turn < self.schedule.lags // 2:
            return np.zeros(2, dtype=np.int64)
        slowest = min(max(float(np.max(np.abs(np.linalg.eigvals(P)))), 0.1), 1 - 1e-6)
        return np.array([turn, math.ceil(math.log(_FORGOTTEN) / math.log(slowest) / turn)], dtype=np.int64)

    @cached_property
    def label_values(self) -> Array:
        """(units, L, q)."""
        most = max(len(unit.labels) for unit in self.problem.units)
        out = np.zeros((len(self.count), self.width, max(most, 1)))
        for u, (nodes, _) in enumerate(self.labels):
            for l, node in enumerate(nodes):
                out[u, l, : len(node)] = node
        return out

    @cached_property
    def share(self) -> Array:
        out = np.zeros((len(self.count), self.width))
        for u, (_, weights) in enumerate(self.labels):
            out[u, : len(weights)] = weights
        return out

    @cached_property
    def offset(self) -> list[int]:
        """Position of each unit's first state."""
        return [self.states.index((u, 0)) for u in range(len(self.problem.units))]

    # -- coefficients -----------------------------------------------------------------------------------------------
    def _number(self, expr: Expr, unit: CausalUnit, node: tuple[float, ...], times: Array) -> Any:
        """An expression at label values, over times where it depends on them."""
        given = dict(self.values) | dict(zip((q.symbol for q in unit.labels), node, strict=False))
        by_name = {s.name: v for s, v in given.items()}
        bound = sympify(expr)
        bound = bound.xreplace({s: sympify(by_name[s.name]) for s in bound.free_symbols if s.name in by_name})
        loose = bound.free_symbols - {TIME}
        if loose:
            raise QuenchedError(f"parameter {min(loose, key=str)} has no value")
        if not bound.has(TIME):
            return float(bound)
        return np.broadcast_to(np.asarray(lambdify(TIME, bound, ["numpy", "scipy"])(times), float), times.shape)

    def _table(self, kind: str, columns: int, times: Array) -> Array:
        """A block of the units over (times or 1, labels or 1, n, columns), as it depends on them."""
        blocks = [getattr(unit, kind) for unit in self.problem.units]
        exprs = [e for block in blocks for row in block for e in row]
        symbols = {q.symbol for unit in self.problem.units for q in unit.labels}
        timed = any(sympify(e).has(TIME) for e in exprs)
        labelled = any(sympify(e).free_symbols & symbols for e in exprs)
        shape = (len(times) if timed else 1, self.width if labelled else 1, len(self.states), columns)
        out = np.zeros(shape)
        at = times if timed else times[:1]
        across = 0
        for u, unit in enumerate(self.problem.units):
            for l in range(shape[1]):
                node = self.labels[u][0][min(l, int(self.count[u]) - 1)]
                for i, row in enumerate(blocks[u]):
                    for j, e in enumerate(row):
                        out[:, l, self.offset[u] + i, across + j] = self._number(e, unit, node, at)
            across += len(blocks[u][0]) if blocks[u] else 0
        return out

    def _drive(self) -> Array:
        """d(t) over (times, L, n)."""
        out = np.zeros((len(self.times), self.width, len(self.states)))
        for u, unit in enumerate(self.problem.units):
            for l, node in enumerate(self.labels[u][0]):
                for i, e in enumerate(unit.drive):
                    out[:, l, self.offset[u] + i] = self._number(e, unit, node, self.times)
        return out

    def _start(self, labels: int) -> tuple[Array, Array]:
        mean = np.zeros((self.width, len(self.states)))
        cov = np.zeros((labels, len(self.states), len(self.states)))
        for u, unit in enumerate(self.problem.units):
            for l, node in enumerate(self.labels[u][0]):
                for i, (m, v) in enumerate(unit.start):
                    x = self.offset[u] + i
                    mean[l, x] = self._number(m, unit, node, self.times[:1])
                    cov[min(l, labels - 1), x, x] = self._number(v, unit, node, self.times[:1])
        return mean, cov

    def step(self) -> dict[str, Array]:
        """P, Q0, Q1, noise, drive and edge of one step, each over times and labels as far as it depends on them."""
        n, m = len(self.states), len(self.fields)
        k = sum(len(unit.noises) for unit in self.problem.units)
        A, B, G = (self._table(kind, c, self.times) for kind, c in (("drift", n), ("feed", m), ("noise", k)))
        A, B, G = _aligned(A, B, G)
        d = self._drive()
        one, dt = np.eye(n), self.schedule.dt
        if self.schedule.rule == "trapezoid":
            now, then = (slice(None), slice(None)) if len(A) == 1 else (slice(0, -1), slice(1, None))
            inverse = np.linalg.inv(one - dt / 2 * A[then])
            P = inverse @ (one + dt / 2 * A[now])
            Q0, Q1 = dt / 2 * inverse @ B[now], dt / 2 * inverse @ B[then]
            noise = dt * inverse @ _square(G[now]) @ np.swapaxes(inverse, -1, -2)
            pushed = (d[:-1] + d[1:]) / 2 * dt
            drive = np.einsum("tlij,tlj->tli", np.broadcast_to(inverse, (len(pushed), self.width, n, n)), pushed)
        elif self.schedule.rule == "euler":
            P, Q0, Q1, noise, drive = one + dt * A, dt * B, 0 * B, dt * _square(G), dt * d[:-1]
        else:
            P, Q0, Q1, noise, drive = A, B, 0 * B, _square(G), d[:-1]
        first = P[0]
        with np.errstate(all="ignore"):
            still = np.linalg.inv(one - np.swapaxes(first, -1, -2) + 1e-12 * one)
        edge = np.swapaxes(Q0[0] + Q1[0], -1, -2) @ still
        found = {"P": P, "Q0": Q0, "Q1": Q1, "noise": noise, "drive": drive, "edge": edge}
        return {name: np.ascontiguousarray(value) for name, value in found.items()}

    # -- couplings --------------------------------------------------------------------------------------------------
    def _constant(self, e: Expr) -> float:
        return float(self._number(e, self.problem.units[0], (), self.times[:1]))

    def gains(self) -> Array:
        out = np.zeros((len(self.fields), len(self.problem.outputs)))
        for s in self.problem.means:
            out[self.fields.index(s.field), s.output] += self._constant(s.coefficient)
        return out

    def sources(self) -> tuple[Array, Array, Array, Array]:
        """(fields u, v and pair), coefficients, whether at equal times only, and the pairs of outputs."""
        pairs: dict[tuple[int, int], int] = {}
        rows, coefficients, instant = [], [], []
        for s in self.problem.pairs:
            u, v = self.fields.index(s.first), self.fields.index(s.second)
            ways = [(u, v, s.a, s.b)] if u == v else [(u, v, s.a, s.b), (v, u, s.b, s.a)]
            for x, y, a, b in ways:
                rows.append((x, y, pairs.setdefault((a, b), len(pairs))))
                coefficients.append(self._constant(s.coefficient))
                instant.append(s.instant)
        listed = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        return np.array(rows, dtype=np.int64).reshape(-1, 3), np.array(coefficients), np.array(instant, bool), listed

    def constraints(self) -> tuple[Array, Array, Array, Array]:
        """States whose mean is adjusted, their units, the inflow over times, and what balances it."""
        held = [self.offset[c.unit] + c.state for c in self.problem.constraints]
        inflow = np.zeros((len(self.times), len(held)))
        terms = np.zeros((len(held), len(self.problem.outputs)))
        for k, c in enumerate(self.problem.constraints):
            inflow[:, k] = self._number(c.inflow, self.problem.units[c.unit], (), self.times)
            for coefficient, output in c.terms:
                terms[k, output] += self._constant(coefficient)
        owner = np.array([c.unit for c in self.problem.constraints], dtype=np.int64)
        return np.array(held, dtype=np.int64), owner, inflow, terms

    # -- outputs ----------------------------------------------------------------------------------------------------
    def weights(self, outputs: Sequence[Output]) -> Array:
        out = np.zeros((len(outputs), len(self.states)))
        for k, o in enumerate(outputs):
            for i, w in enumerate(o.weights):
                out[k, self.offset[o.unit] + i] = self._constant(w)
        return out

    def run(self) -> MarchedState:
        """March, with as many Hermite functions as the outputs need.

        Raises
        ------
        ConvergenceError
            A mean is not found, or the state is not finite.
        """
        for order in _ORDERS[self._pilot() :]:
            state = self._run(order)
            if state.missed <= _MISSED:
                break
        return state

    def _pilot(self) -> int:
        """Position of the order that the first steps need."""
        if self.schedule.steps <= 4 * _PILOT:
            return 0
        first = Marcher(self.problem, self.values, replace(self.schedule, steps=_PILOT, grow_from=None))
        enough = (k for k, order in enumerate(_ORDERS) if first._run(order).missed <= _MISSED)
        return next(enough, len(_ORDERS) - 1)

    def _run(self, order: int) -> MarchedState:
        p, schedule = self.problem, self.schedule
        step = self.step()
        site = site_functions(p, p.outputs)
        kinks = site_kinks(p, p.outputs, self.values, self.label_values, self.count)
        unit, weights = np.array([o.unit for o in p.outputs], dtype=np.int64), self.weights(p.outputs)
        mean0, cov0 = self._start(step["P"].shape[1])
        C = np.zeros((schedule.steps + 1, step["P"].shape[1], schedule.lags, len(self.states), len(self.states)))
        growth = np.full(schedule.steps + 1, np.nan)
        rule, parameters = hermite_rule(order), np.array([self.values[s] for s in self.ordered], dtype=float)
        sources, coefficient, instant, pairs = self.sources()
        *found, status = march(  # type: ignore[call-arg]
            *(site, parameters, self.label_values, self.share, self.count, unit, weights, kinks, rule),
            *(step[k] for k in ("P", "Q0", "Q1", "noise", "drive", "edge")),
            *(mean0, cov0, self.gains(), sources, coefficient, instant, pairs, *self.constraints()),
            *(schedule.lags, self.turning(step["P"]), _SWEEPS if schedule.rule == "trapezoid" else 1),
            -1 if schedule.grow_from is None else schedule.grow_from,
            *(C, growth),
        )
        self._check(int(status))
        return MarchedState(self, order, C, growth, *found, step["P"])  # type: ignore[call-arg]

    @property
    def ordered(self) -> tuple[Symbol, ...]:
        """Parameters in the order of compiled functions."""
        return tuple(sorted(self.values, key=lambda s: s.name))

    def _check(self, status: int) -> None:
        if status > 0:
            raise ConvergenceError(f"no mean solves the equations at time {self.times[status - 1]:g}", [])
        if status < 0:
            raise ConvergenceError(
                f"the state is not finite at time {self.times[-status - 1]:g}: it diverges, or the step is too long", []
            )


@dataclass(frozen=True)
class MarchedState:
    """A marched state.

    Attributes
    ----------
    marcher : the problem with its numbers
    order : Hermite functions used
    covariance : (T + 1, labels or 1, lags, n, n), Cov(X(t), X(t−w)) given the labels
    growth : (T + 1,) log of the size of a perturbation, nan before it starts
    mean : (L, T + 1, n); fields (T + 1, m): means of the local fields
    series, split, centre, sd : Hermite coefficients of the outputs and the law of their arguments
    rises : (T + 1, o, n) derivative of each output's mean with the mean of each state
    lost : (o, L) part of ⟨f²⟩ that the series miss
    propagators : (T or 1, labels or 1, n, n)
    """

    marcher: Marcher
    order: int
    covariance: Array
    growth: Array
    mean: Array
    fields: Array
    series: Array
    split: Array
    centre: Array
    sd: Array
    rises: Array
    lost: Array
    propagators: Array

    @property
    def times(self) -> Array:
        return self.marcher.times

    @property
    def missed(self) -> float:
        """Largest relative part of an output's square that its series misses."""
        square = np.sum(self.series[:, -1] ** 2, axis=1)
        return float(np.max(np.abs(self.lost) / np.maximum(square, 1e-300), initial=0.0))

    def jumps(self) -> Array:
        """Heights of the jumps of the outputs."""
        m = self.marcher
        return site_kinks(m.problem, m.problem.outputs, m.values, m.label_values, m.count)[:, :, 2]

    def expand(self, outputs: Sequence[Output], window: slice) -> Expansion:
        """Series of further functions of the units at the times of a window."""
        m = self.marcher
        kinks = site_kinks(m.problem, outputs, m.values, m.label_values, m.count)
        parameters = np.array([m.values[s] for s in m.ordered], dtype=float)
        unit = np.array([o.unit for o in outputs], dtype=np.int64)
        weights = m.weights(outputs)
        rows = np.arange(len(self.times))[window]
        found = expand_all(
            *(site_functions(m.problem, outputs), parameters, m.label_values, m.share, m.count, unit, weights, kinks),
            *(hermite_rule(self.order), self.mean, self.covariance, rows),
        )
        return Expansion(self, rows, unit, weights, kinks, *found)

    def mean_mode(self) -> Array:
        """One-step matrices of the units' common mean, (T, n, n): P + Q0·(field per output)·(output per mean)."""
        step = self.marcher.step()
        P, Q = step["P"].mean(axis=1), (step["Q0"] + step["Q1"]).mean(axis=1)
        return P + Q @ self.marcher.gains() @ self.rises[:-1]


@dataclass(frozen=True)
class Expansion:
    """Functions of the units in a marched state at some times."""

    state: MarchedState
    rows: NDArray[np.int64]
    unit: NDArray[np.int64]
    weights: Array
    kinks: Array
    series: Array
    split: Array
    centre: Array
    sd: Array

    def mean(self, k: int) -> Array:
        """⟨f_k⟩ at the times, averaged over labels."""
        share = self.state.marcher.share[self.unit[k]]
        return np.asarray(self.series[k, :, 0] @ share)

    def pair(self, k: int, j: int, lags: Sequence[int] | NDArray[np.int64], times: NDArray[np.int64]) -> Array:
        """⟨f_k(t + w) f_j(t)⟩ for w in `lags` (steps, any sign) and t = rows[times]: (times, lags)."""
        if self.unit[k] != self.unit[j]:
            return np.stack([self.mean(k)[times + w] * self.mean(j)[times] for w in lags], axis=1)
        m = self.state.marcher
        u = int(self.unit[k])
        return np.asarray(
            lagged_pairs(
                *(k, j, np.asarray(times), np.asarray(lags, dtype=np.int64), int(self.rows[0]), self.state.covariance),
                *(self.weights, m.share, u, int(m.count[u]), self.series, self.split, self.kinks, self.centre, self.sd),
            )
        )


def hermite_rule(order: int) -> Array:
    """Nodes, weights and normalised Hermite functions of the standard normal, (2 + order, nodes)."""
    z = np.arange(-_REACH, _REACH + _SPACING / 2, _SPACING)
    w = np.exp(-(z**2) / 2) * _SPACING / np.sqrt(2 * np.pi)
    rows = [np.ones_like(z), z]
    for k in range(2, order):
        rows.append((z * rows[-1] - np.sqrt(k - 1) * rows[-2]) / np.sqrt(k))
    return np.ascontiguousarray(np.array([z, w, *rows[:order]]))


def _square(G: Array) -> Array:
    return G @ np.swapaxes(G, -1, -2)


def _aligned(*blocks: Array) -> tuple[Array, ...]:
    """Blocks with common leading axes (times, labels)."""
    lead = np.broadcast_shapes(*(b.shape[:2] for b in blocks))
    return tuple(np.broadcast_to(b, (*lead, *b.shape[2:])) for b in blocks)


__all__ = ["Expansion", "MarchedState", "Marcher", "Schedule", "hermite_rule"]
