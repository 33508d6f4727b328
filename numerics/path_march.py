"""Self-consistent processes in one pass: paths of the single site that are marched together in time.

The site problem is causal. What a unit's local fields need at a time, their covariances with all earlier ones and the
weights of their memory, are averages over outputs that are known by then. So all paths advance together: the new row of
the covariance is an average over the paths, the next row of its Cholesky factor follows by forward substitution, and
the new field of every path is that row times the path's white numbers. Nothing is iterated, nothing need be stationary,
and the start is the declared one. Responses, where units remember through them, come from perturbed twins of the paths.

A flow takes Heun steps with fields extrapolated from the last two (second order: a field is computed once a step), a
map its own. Rates and drives that switch at a time of the grid keep the order: every step sees its own side of them.

Source: Eissfeller & Opper, PRL 68, 2094 (1992), for maps and responses; the recursion on the covariance is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from scipy.linalg import solve_triangular
from sympy import Expr, Symbol, lambdify, sympify

from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError, nearest
from quenched.theory.problem import CORRELATED, Label, SampledUnit, SiteProcess
from quenched.theory.problem_causal import TIME

from .labels import label_nodes
from .path_responses import Twins
from .process_state import whole_steps
from .types import Array

#: Relative variance of independent noise that keeps Cholesky factors of smooth fields apart from rounding.
NUGGET = 1e-9
_DIVERGED = 1e12


@dataclass(frozen=True)
class March:
    """How paths are marched.

    Attributes
    ----------
    dt : longest time step of a flow (a map steps by one)
    paths : paths a batch; finite numbers shift averages by a relative order 1/paths
    batches : independent batches, whose scatter gives the errors
    seed : of all random numbers
    twins : perturbed twins of every path, that responses are measured with (where there is memory made of them)
    scheme : "heun", or "euler" (the Euler map at dt, exactly)
    """

    dt: float = 0.1
    paths: int = 1000
    batches: int = 4
    seed: int = 0
    twins: int = 3
    scheme: str = "heun"


@dataclass(frozen=True)
class Grid:
    """Times of a march: `steps` steps of `dt` from 0, and the steps whose state is kept."""

    dt: float
    steps: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Series:
    """Kept paths of one batch: name of a state or output → array (kept times, paths)."""

    values: dict[str, Array]


def march_paths(process: SiteProcess, values: Mapping[Symbol, float], grid: Grid, how: March, batch: int = 0) -> Series:
    """March one batch of paths.

    Raises
    ------
    NotCovered
        Memory through eliminated populations, or a start that is correlated with the couplings.
    ConvergenceError
        Paths diverge.
    QuenchedError
        A parameter without a value.
    """
    return _Batch(process, values, grid, how, np.random.default_rng((how.seed, 7, batch))).run()


class _Numbers:
    """Expressions as numbers, or as functions of time or of one unit."""

    def __init__(self, process: SiteProcess, values: Mapping[Any, float]) -> None:
        self.values = {str(s): float(v) for s, v in values.items()}
        self.symbols = process.parameters
        for s in process.parameters:
            if s.name not in self.values:
                raise QuenchedError(f"parameter {s.name!r} has no value: {nearest(s.name, self.values)}")

    def put(self, e: Any) -> Expr:
        """The expression with the parameters' values."""
        e = sympify(e)
        return e.xreplace({s: sympify(self.values[s.name]) for s in e.free_symbols if s.name in self.values})

    def of_time(self, e: Any) -> Callable[[float], float]:
        put = self.put(e)
        if not put.has(TIME):
            number = float(put)
            return lambda now: number
        compiled = lambdify([TIME], put, ["scipy", "numpy"])
        return lambda now: float(compiled(now))

    def of_unit(self, exprs: Sequence[Expr], arguments: Sequence[Symbol]) -> Callable[..., list[Array]]:
        """Function of the time and of arrays, one an argument."""
        try:
            return lambdify([TIME, *arguments], [self.put(e) for e in exprs], ["scipy", "numpy"])
        except Exception as error:
            raise NotCovered(f"no compiled code for {exprs}: {error}") from error


class _Unit:
    """The paths of one population: states now, and everything that its fields have been made of."""

    def __init__(self, unit: SampledUnit, owner: _Batch) -> None:
        self.unit, self.owner = unit, owner
        numbers, rng, paths = owner.numbers, owner.rng, owner.how.paths
        labels = [label.symbol for label in unit.labels]
        self.names = [o.name for o, _ in unit.outputs]
        past = [s for s, _, _ in unit.earlier]
        self.rhs = numbers.of_unit(unit.rhs, [*unit.states, *unit.fields, *unit.noises, *past, *labels])
        self.outputs = numbers.of_unit([body for _, body in unit.outputs], [*unit.states, *past, *labels])
        delays = whole_steps([float(numbers.put(d)) for *_, d in unit.earlier], owner.grid.dt)
        self.back = [(unit.states.index(x), int(d)) for (_, x, _), d in zip(unit.earlier, delays, strict=True)]
        self.trail: list[Array] = []
        self.labels = [draw(label.law, numbers.values, paths, rng) for label in unit.labels]
        self.x = owner.twins.spread(self._start(labels))
        self.labels = [owner.twins.spread(q) for q in self.labels]
        self.fields = [f.name for f in unit.fields]
        self.random = [f for f in self.fields if any(f == r[0] for r in owner.covariance)]
        total = owner.grid.steps * len(self.random)
        self.white, self.xi = self._draws(owner.grid.steps, paths, rng)
        self.factor = np.zeros((total, total))
        self.before: Array | None = None

    def _draws(self, steps: int, paths: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """White numbers of the fields (steps · random fields, paths), and noises (steps, noises, paths)."""
        m, k = len(self.random), len(self.unit.noises)
        varied = self.x[:, :paths]
        drawn = balanced(rng.standard_normal((steps * (m + k), paths)), varied).reshape(steps, m + k, paths)
        return np.ascontiguousarray(drawn[:, :m].reshape(steps * m, paths)), drawn[:, m:]

    def _start(self, labels: list[Symbol]) -> Array:
        numbers, paths = self.owner.numbers, self.owner.how.paths
        rows = []
        for state, start in zip(self.unit.states, self.unit.starts, strict=True):
            if start == CORRELATED:
                raise NotCovered(f"the start of {state} is correlated with the couplings: no single unit knows its law")
            if isinstance(start, Expr) and not hasattr(start, "weights"):
                rows.append(np.broadcast_to(numbers.of_unit([start], labels)(0.0, *self.labels)[0], (paths,)))
            else:
                rows.append(draw(start, numbers.values, paths, self.owner.rng))
        return np.array(rows, dtype=float)

    def earlier(self, step: int) -> list[Array]:
        """Delayed states; before the start a state was what it is there."""
        return [self.trail[max(step - d, 0)][i] for i, d in self.back]

    def output(self, step: int) -> Array:
        if self.back:
            self.trail.append(self.x)
        found = self.outputs(self.owner.time(step), *self.x, *self.earlier(step), *self.labels)
        return np.array([np.broadcast_to(np.asarray(v, float), self.x.shape[1:]) for v in found])

    def rate(self, step: int, now: float, x: Array, h: Array, xi: Array) -> Array:
        found = self.rhs(now, *x, *h, *xi, *self.earlier(step), *self.labels)
        return np.array([np.broadcast_to(np.asarray(v, float), x.shape[1:]) for v in found])

    def noise(self, step: int) -> Array:
        """Gaussian fields (random fields, paths) of this step, given those before."""
        m = len(self.random)
        out = np.zeros((m, self.owner.how.paths))
        for k, name in enumerate(self.random):
            count = step * m + k
            extend(self.factor, self.owner.covariance_row(self, name, step, k), count, NUGGET)
            out[k] = self.factor[count, : count + 1] @ self.white[: count + 1]
        return out

    def advance(self, step: int, h: Array) -> None:
        """One step: the map, Euler's, or Heun's with the next fields extrapolated."""
        owner, dt = self.owner, self.owner.grid.dt
        xi = owner.twins.spread(self.xi[step])
        now = owner.time(step)
        if not owner.flow:
            self.x = self.rate(step, now, self.x, h, xi)
            return
        xi = xi / np.sqrt(dt)
        first = self.rate(step, owner.after(now), self.x, h, xi)
        guess = self.x + dt * first
        if owner.how.scheme == "heun":
            ahead = h if self.before is None else 2 * h - self.before
            guess = self.x + dt / 2 * (first + self.rate(step + 1, owner.ahead_of(now + dt), guess, ahead, xi))
        self.x, self.before = guess, h


class _Batch:
    """All populations, marched together."""

    def __init__(
        self, process: SiteProcess, values: Mapping[Any, float], grid: Grid, how: March, rng: np.random.Generator
    ) -> None:
        if process.filters or process.operators:
            raise NotCovered("populations that were eliminated remember through operators: no solver in time yet")
        self.process, self.grid, self.how, self.rng = process, grid, how, rng
        self.numbers = _Numbers(process, values)
        self.flow = process.clock == "flow"
        self.lapse = float(self.numbers.put(process.advance))
        number = lambda e: float(self.numbers.put(e))  # noqa: E731
        self.covariance = [(u.name, v.name, number(c), a.name, b.name) for u, v, c, a, b in process.covariance]
        self.means = [(u.name, self.numbers.of_time(c), a.name) for u, c, a in process.means]
        self.bonds = [
            (u.name, _Past(self, coef, rate), a.name, b.name, c.name) for u, coef, rate, a, b, c in process.bonds
        ]
        memory = [(u.name, number(c), a.name, v.name, b.name) for u, c, a, v, b in process.memory]
        white = lambda steps, columns: balanced(self.rng.standard_normal((steps, columns)))  # noqa: E731
        self.twins = Twins(process, memory, (how.paths, how.twins, grid.steps), grid.dt, white)
        self.units = [_Unit(u, self) for u in process.units]
        self.read = _read_outputs(process)
        self.past = {name: np.zeros((grid.steps + 1, self.twins.columns)) for name in self.read}
        self._moments: dict[tuple[str, str], Array] = {}

    def time(self, step: int) -> float:
        """t at a step."""
        return step * self.grid.dt * self.lapse

    # a step sees the limits of its own side where something switches at one of its ends
    def after(self, now: float) -> float:
        return now + 1e-7 * self.grid.dt

    def ahead_of(self, now: float) -> float:
        return now - 1e-7 * self.grid.dt

    def run(self) -> Series:
        kept, wanted = dict[str, list[Array]](), set(self.grid.kept)
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(self.grid.steps + 1):
                outs = {n: v for u in self.units for n, v in zip(u.names, self._outputs(u, step), strict=True)}
                if step in wanted:
                    self._keep(kept, outs)
                if step < self.grid.steps:
                    self._advance(step, outs)
        return Series({name: np.array(rows) for name, rows in kept.items()})

    def _outputs(self, unit: _Unit, step: int) -> Array:
        if not np.abs(unit.x).max() < _DIVERGED:
            at = step * self.grid.dt
            raise ConvergenceError(f"paths of population {unit.unit.population!r} diverge at t = {at:g}", [])
        return unit.output(step)

    def _keep(self, kept: dict[str, list[Array]], outs: dict[str, Array]) -> None:
        paths = self.how.paths
        for unit in self.units:
            for state, row in zip(unit.unit.states, unit.x, strict=True):
                kept.setdefault(state.name, []).append(row[:paths].copy())
        for name, row in outs.items():
            kept.setdefault(name, []).append(row[:paths].copy())

    def _advance(self, step: int, outs: dict[str, Array]) -> None:
        for name in self.read:
            self.past[name][step] = outs[name]
        self._moments.clear()
        self.twins.begin()
        weights = [past.weights(step) for _, past, *_ in self.bonds]
        fields = [self._fields(unit, step, weights) for unit in self.units]
        for unit, h in zip(self.units, fields, strict=True):
            unit.advance(step, h)

    def _fields(self, unit: _Unit, step: int, weights: list[Array]) -> Array:
        """All local fields (fields, columns) at this step."""
        h = np.zeros((len(unit.fields), self.twins.columns))
        for name, row in zip(unit.random, unit.noise(step), strict=True):
            h[unit.fields.index(name)] += self.twins.spread(row)
        for u, coef, a in self.means:
            if u in unit.fields:
                h[unit.fields.index(u)] += coef(self.time(step)) * self.past[a][step, : self.how.paths].mean()
        for u, strength, a, v, b in self.twins.memory:
            if u in unit.fields:
                h[unit.fields.index(u)] += strength * self.twins.response(a, v, self.past, step) @ self.past[b][:step]
        for (u, _, a, b, c), weight in zip(self.bonds, weights, strict=True):
            if u in unit.fields:
                h[unit.fields.index(u)] += (weight * self.moment(a, b, step)) @ self.past[c][: step + 1]
        self.twins.shift(unit.unit, step, h)
        return h

    def moment(self, a: str, b: str, step: int) -> Array:
        """⟨a(now) b(s)⟩ at all steps s up to this one."""
        if (a, b) not in self._moments:
            paths = self.how.paths
            self._moments[a, b] = self.past[b][: step + 1, :paths] @ self.past[a][step, :paths] / paths
        return self._moments[a, b]

    def covariance_row(self, unit: _Unit, name: str, step: int, k: int) -> Array:
        """Cov of a field now with the random fields of its unit, at earlier steps and before it at this one."""
        m = len(unit.random)
        out = np.zeros((step + 1, m))
        for u, v, coef, a, b in self.covariance:
            if u == name and v in unit.random:
                out[:, unit.random.index(v)] += coef * self.moment(a, b, step)
            if v == name and u != v and u in unit.random:
                out[:, unit.random.index(u)] += coef * self.moment(b, a, step)
        return np.ascontiguousarray(out.reshape(-1)[: step * m + k + 1])


class _Past:
    """What dynamic couplings remember now of every earlier step, with the weights of the quadrature."""

    def __init__(self, owner: _Batch, coef: Expr, rate: Expr) -> None:
        self.owner, self.coef, self.rate = owner, owner.numbers.of_time(coef), owner.numbers.of_time(rate)
        self.made = np.zeros(owner.grid.steps + 1)
        self.grown = np.zeros(owner.grid.steps + 1)
        self.product = np.zeros(owner.grid.steps + 1)

    def weights(self, step: int) -> Array:
        """Weight of every step s ≤ now."""
        if self.owner.flow and self.owner.how.scheme == "heun":
            return self._flow(step)
        dt, before = self.owner.grid.dt, self.owner.time(step - 1)
        if step:
            kept = self.rate(before) if not self.owner.flow else 1 + dt * self.rate(before)
            self.product[: step - 1] *= kept
            self.product[step - 1] = self.coef(before) * (dt if self.owner.flow else 1.0)
        return self.product[: step + 1]

    def _flow(self, step: int) -> Array:
        """Trapezoid in s, each panel with its own side of a switch; ∫ rate likewise."""
        owner, dt = self.owner, self.owner.grid.dt
        if step:
            left, right = owner.after((step - 1) * dt), owner.ahead_of(step * dt)
            self.grown[step] = self.grown[step - 1] + dt / 2 * (self.rate(left) + self.rate(right))
            self.made[step - 1] += dt / 2 * self.coef(left)
            self.made[step] = dt / 2 * self.coef(right)
        return np.exp(self.grown[step] - self.grown[: step + 1]) * self.made[: step + 1]


def _read_outputs(process: SiteProcess) -> list[str]:
    """Outputs that the couplings read."""
    found = [s.name for _, _, _, a, b in process.covariance for s in (a, b)]
    found += [a.name for _, _, a in process.means]
    found += [s.name for _, _, _, *three in process.bonds for s in three]
    found += [s.name for _, _, a, _, b in process.memory for s in (a, b)]
    return list(dict.fromkeys(found))


@njit(cache=True, fastmath=True)
def extend(factor: Array, row: Array, count: int, nugget: float) -> None:  # pragma: no cover
    """Add a row to a Cholesky factor: covariances with `count` earlier variables, then the variance."""
    left = row[count] * (1.0 + nugget)
    new = factor[count]
    for i in range(count):
        total = row[i]
        for j in range(i):
            total -= factor[i, j] * new[j]
        new[i] = total / factor[i, i]
        left -= new[i] * new[i]
    new[count] = np.sqrt(max(left, nugget * row[count], 1e-300))


def balanced(white: Array, beside: Array | None = None) -> Array:
    """White numbers (variables, paths) turned so that their covariance over the paths is exact, block by block.

    Each block is orthogonal to the one before and to the rows of `beside`, starts of the paths, as well, so that
    what the paths remember is drawn without scatter.
    """
    paths = white.shape[1]
    block = paths // 4
    if block < 8:
        return white
    out = np.empty_like(white)
    known = _independent(white[:0] if beside is None else beside, paths)
    for first in range(0, len(white), block):
        fixed = np.concatenate([known, out[max(0, first - block) : first] / np.sqrt(paths)])
        new = white[first : first + block]
        new = new - (new @ fixed.T) @ fixed
        out[first : first + block] = np.sqrt(paths) * solve_triangular(np.linalg.cholesky(new @ new.T), new, lower=True)
    return out


def _independent(rows: Array, paths: int) -> Array:
    """Orthonormal rows (k, paths): the constant first, then what is left of the others beside it."""
    off = rows - rows.mean(axis=1, keepdims=True)
    basis, size, _ = np.linalg.svd(off.T, full_matrices=False)
    kept = basis[:, size > 1e-9 * max(1.0, size.max(initial=0.0))].T
    return np.concatenate([np.full((1, paths), 1 / np.sqrt(paths)), kept])


def draw(law: Any, values: Mapping[str, float], paths: int, rng: np.random.Generator) -> Array:
    """Stratified draws of a law of one number (paths,)."""
    levels = (np.arange(paths) + rng.random()) / paths
    if type(law).__name__ == "Normal":
        from scipy.special import ndtri

        number = lambda e: float(sympify(e).subs({s: values[s.name] for s in sympify(e).free_symbols}))  # noqa: E731
        points = number(law.mean_()) + np.sqrt(number(law.variance_())) * ndtri(np.clip(levels, 1e-12, 1 - 1e-12))
        return np.asarray(rng.permutation(points))
    known = {s: values[s.name] for s in law.free_symbols if s.name in values}
    nodes, weights = label_nodes((Label(Symbol("start"), law),), known)
    points = np.array([n[0] for n in nodes])
    order = np.argsort(points)
    mass = np.cumsum(weights[order])
    pick = np.searchsorted(mass / mass[-1], levels)
    return np.asarray(rng.permutation(points[order][np.minimum(pick, len(points) - 1)]))


__all__ = ["Grid", "March", "Series", "march_paths"]
