"""How many stable fixed points a drawn network has, the silent one apart: enumeration, and what it missed.

The generated right-hand side is evaluated with all dynamic couplings at rest, where they are what their drives and
rates make of them. Its tangents, and those of the sums that units read, give the matrix that Newton steps solve with
and whose eigenvalues tell stability. Rounds of independent starts are compared like captures of animals: points that
two sets of rounds share say how many neither has found. Runs in worker processes; no sympy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.experiment import Arrays, OfTask
from quenched.validate.linearised import Sum, Tangents
from quenched.validate.program import load
from quenched.validate.realise import Network

Array = NDArray[np.float64]
#: Up to this many units every pattern of signs is a start of a round.
_PATTERNS = 12
#: So many fields of a unit besides its first are started with either sign.
_TURNED = 2
#: Rounds: the fewest, the most; the share of points that may be missed (the count is corrected by it).
_FEWEST, _MOST, MISSED = 2, 12, 0.02
#: Rounds at most in networks of fewer units, where they cost less.
_PATIENCE = 120
#: Rounds after which points are known if every one was found by two of them.
_SEVERAL = 8
#: Steps of relaxation before Newton steps, and their length in units of the fastest rate; Newton steps.
_RELAX, _LENGTH, _NEWTON = 40, 0.7, 14
#: Residual of a fixed point, relative; distance of two points that are one; rows that are evaluated together.
_AT_REST, _SAME, _ROWS = 1e-9, 1e-5, 40_000
#: A state that is as small everywhere is the silent one, which is not counted.
_SILENT = 1e-6
#: Distance of relaxed states that are on their way to the same point.
_NEAR = 1e-2
#: Amplitudes of starts, in those of states that have gone downstream, lie between these, evenly in their logarithm.
_AMPLITUDES = 0.4, 1.6


@dataclass
class AtRest(Tangents):
    """A network at many states at once, one a row, as the generated tangents see it with its bonds at rest.

    Attributes
    ----------
    drives : (rate, left (drives, rows, units), right) of each bond, as noted by an evaluation at the same states
    """

    drives: list[tuple[float, Array, Array]] = field(default_factory=list)

    def through(self, bond: int, transposed: bool, stage: int, vectors: Array) -> Array:
        """A ψ, and A δψ + δA ψ for the tangent rows, with A = Σ l rᵀ / −rate."""
        B, sizes, ends = self.trajectories, self.net.task.sizes, self.net.task.program.bonds[bond]
        units = sizes[ends[2] if transposed else ends[1]]
        self.sums.append(Sum(bond, transposed, vectors[:B].copy(), units))
        out = np.zeros((2 * B, units))
        if not self.drives:
            return out
        rate, left, right = self.drives[bond]
        for u, v in zip(*((right, left) if transposed else (left, right)), strict=True):
            out[:B] += _rows(v, vectors[:B]) * u / -rate
            out[B:] += _rows(v, vectors[B:]) * u / -rate
        if self.added:
            out[B:] += self.added[len(self.sums) - 1]
        return out

    def drive(self, one: Sum) -> Array:
        """Σ_d ((r·ψ) δl + (δr·ψ) l) for every row."""
        B, bond = self.trajectories, self.bonds[one.bond]
        left, right = (bond.right, bond.left) if one.transposed else (bond.left, bond.right)
        parts = [
            _rows(v[:B], one.psi) * u[B:] + _rows(v[B:], one.psi) * u[:B]
            for u, v in zip(left[0], right[0], strict=True)
        ]
        return np.asarray(sum(parts, np.zeros((B, one.units))))

    def noted(self) -> list[tuple[float, Array, Array]]:
        """Rates and drives of the bonds at these states.

        Raises
        ------
        QuenchedError
            A bond that does not decay: it comes to no rest.
        """
        found = [
            (float(b.rates[0]), b.left[0, :, : self.trajectories], b.right[0, :, : self.trajectories])
            for b in self.bonds
        ]
        if any(rate >= 0 for rate, _, _ in found):
            raise QuenchedError(
                "a dynamic coupling that does not decay comes to no rest: its fixed points are not counted"
            )
        return found


def _rows(a: Array, b: Array) -> Array:
    """Row-wise scalar products, (rows, 1)."""
    return np.einsum("ri,ri->r", a, b)[:, None]


@dataclass
class Rest:
    """Fixed points of one drawn network."""

    net: Network
    rhs: Callable[..., None]

    @property
    def units(self) -> int:
        """Number of variables that are not bonds."""
        return int(self.net.shape[1])

    def _evaluate(self, states: Array, tangents: Array, drives: Any, added: list[Array]) -> tuple[AtRest, Array]:
        env = AtRest(self.net, 0, len(states), added, drives=drives)
        out = np.zeros((2 * len(states), self.units))
        self.rhs(env, 0.0, np.concatenate([states, tangents]), [], 0, out)
        return env, out

    def drives(self, states: Array) -> list[tuple[float, Array, Array]]:
        """Rates and drives of all bonds at states."""
        return self._evaluate(states, np.zeros_like(states), [], [])[0].noted()

    def force(self, states: Array) -> Array:
        """The right-hand side with bonds at rest, (rows, units)."""
        return self._evaluate(states, np.zeros_like(states), self.drives(states), [])[1][: len(states)]

    def matrix(self, states: Array) -> tuple[Array, Array]:
        """The right-hand side (rows, units) and the matrix of units and sums over bonds (rows, n, n)."""
        env, _ = self._evaluate(states[:1], np.zeros_like(states[:1]), [], [])
        edges = np.cumsum([self.units, *(s.units for s in env.sums)])
        side = int(edges[-1])
        chunk = max(1, _ROWS // side)
        parts = [self._matrix(states[k : k + chunk], edges, side) for k in range(0, len(states), chunk)]
        forces, matrices = zip(*parts, strict=True)
        return np.concatenate(forces), np.concatenate(matrices)

    def _matrix(self, states: Array, edges: Array, side: int) -> tuple[Array, Array]:
        drives = [(rate, np.repeat(u, side, 1), np.repeat(v, side, 1)) for rate, u, v in self.drives(states)]
        many = np.repeat(states, side, axis=0)
        parts = np.split(np.tile(np.eye(side), (len(states), 1)), edges[:-1], axis=1)
        env, out = self._evaluate(many, parts[0], drives, parts[1:])
        columns = [out[len(many) :]]
        for one, part in zip(env.sums, parts[1:], strict=True):
            columns.append(env.bonds[one.bond].rates[0] * part + env.drive(one))
        rows = np.concatenate(columns, axis=1).reshape(len(states), side, side)
        return out[: len(many) : side].copy(), rows.transpose(0, 2, 1)

    def found(self, starts: Array, downstream: bool) -> Array:
        """Stable fixed points that these starts lead to, each once, by Newton steps alone or after a way downstream."""
        with np.errstate(all="ignore"):
            x = _distinct(self._newton(_distinct(self._relaxed(starts), _NEAR) if downstream else starts), _SAME)
            x = x[np.abs(x).max(axis=1) > _SILENT]
            if not len(x):
                return x
            _, matrices = self.matrix(x)
            return x[np.linalg.eigvals(matrices).real.max(axis=1) < 0]

    def scale(self, rng: np.random.Generator) -> float:
        """Root mean square of states that have gone downstream from large starts; 1 where they vanish."""
        with np.errstate(all="ignore"):
            size = float(np.sqrt(np.mean(self._relaxed(4 * rng.standard_normal((64, self.units))) ** 2)))
        return size if 1e-3 < size < 1e3 else 1.0

    def starts(self, rng: np.random.Generator) -> Array:
        """Starts of a round: patterns of signs of the units; in further fields of a unit the same ones and opposite."""
        task = self.net.task
        edges = np.cumsum([0, *task.sizes])
        held = [p for _, p in task.program.fields]
        further = [k for k, p in enumerate(held) if p in held[:k]]
        parts = []
        for turns in product((1.0, -1.0), repeat=min(len(further), _TURNED)):
            signs, sign = starts(int(edges[-1]), rng), dict(zip(further, turns, strict=False))
            parts.append(
                np.concatenate([sign.get(k, 1.0) * signs[:, edges[p] : edges[p + 1]] for k, p in enumerate(held)], 1)
            )
        return np.concatenate(parts)

    def _relaxed(self, x: Array) -> Array:
        """States after some steps downstream, with bonds that follow at once."""
        _, some = self.matrix(x[:16])
        step = _LENGTH / np.abs(np.linalg.eigvals(some)).max()
        for _ in range(_RELAX):
            x = x + step * self.force(x)
        return x[np.isfinite(x).all(axis=1)]

    def _newton(self, x: Array) -> Array:
        done = []
        for _ in range(_NEWTON):
            if not len(x):
                break
            force, matrices = self.matrix(x)
            size = 1 + np.abs(x).max(axis=1)
            rest = np.abs(force).max(axis=1) < _AT_REST * size * np.abs(matrices).max(axis=(1, 2))
            done.append(x[rest])
            x, force, matrices, size = x[~rest], force[~rest], matrices[~rest], size[~rest]
            target = np.zeros((*matrices.shape[:2], 1))
            target[:, : self.units, 0] = -force
            nudge = 1e-13 * np.abs(matrices).max(initial=1.0) * np.eye(matrices.shape[1])
            step = np.linalg.solve(matrices + nudge, target)[:, : self.units, 0]
            step *= np.minimum(1, size / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
            x = x + step
            x = x[np.isfinite(x).all(axis=1)]
        return np.concatenate(done) if done else np.zeros((0, self.units))


def _distinct(x: Array, distance: float) -> Array:
    """One of all rows that lie within a distance (on a grid of it)."""
    _, first = np.unique(np.round(x / distance).astype(np.int64), axis=0, return_index=True)
    return x[np.sort(first)]


def number_of_points(rest: Rest, rng: np.random.Generator) -> float:
    """The number of stable fixed points, those that were missed included by comparing rounds of starts.

    Raises
    ------
    QuenchedError
        Too many are missed after the last round.
    """
    known, times = np.zeros((0, rest.units)), np.zeros((0, 2), dtype=int)
    scale = rest.scale(rng)
    most = min(_MOST * 2 ** max(_PATTERNS - rest.units, 0), _PATIENCE)
    for k in range(most):
        points = rest.found(scale * rest.starts(rng), downstream=k % 2 == 0)
        known, times = _noted(known, times, points, k % 2)
        if k + 1 < _FEWEST or k % 2 == 0:
            continue
        union, (first, second) = len(known), (times > 0).sum(axis=0)
        estimate = (first + 1) * (second + 1) / (np.all(times > 0, axis=1).sum() + 1) - 1
        if estimate - union <= MISSED * max(union, 1):
            return float(max(estimate, union))
        if k + 1 >= _SEVERAL and np.all(times.sum(axis=1) > 1):  # one kind of round may find what the other never does
            return float(union)
    raise QuenchedError(
        f"{union} stable fixed points of {rest.units} units were found by {most} rounds of starts, about "
        f"{estimate - union:.0f} are missed: count smaller networks"
    )


def _noted(known: Array, times: Array, points: Array, kind: int) -> tuple[Array, Array]:
    """Known points and how often rounds of either kind found them, after a round; a grid cell's two sides are one."""
    if not len(points):
        return known, times
    from scipy.spatial import cKDTree

    distance, which = cKDTree(known).query(points, distance_upper_bound=100 * _SAME)
    new = np.isinf(distance)
    times = np.concatenate([times, np.zeros((int(new.sum()), 2), dtype=int)])
    times[np.unique(which[~new]), kind] += 1
    times[len(known) :, kind] = 1
    return np.concatenate([known, points[new]]), times


def starts(units: int, rng: np.random.Generator) -> Array:
    """Signs at random amplitudes: every pattern, or as many random ones as there are patterns of 12 units."""
    if units <= _PATTERNS:
        signs = 1.0 - 2 * ((np.arange(2**units)[:, None] >> np.arange(units)) & 1)
    else:
        signs = rng.choice([-1.0, 1.0], (2**_PATTERNS, units))
    low, high = np.log(_AMPLITUDES)
    return np.asarray(signs * np.exp(rng.uniform(low, high, (len(signs), 1))))


@dataclass(frozen=True)
class CountExperiment(OfTask):
    """The number of stable fixed points of one drawn network, under these names of observables."""

    names: tuple[str, ...] = ()

    def memory(self) -> float:
        return self.task.memory() + 100.0 * _ROWS * sum(self.task.sizes)

    def work(self) -> float:
        units = min(sum(self.task.sizes), _PATTERNS)
        return 1e4 * 2.0**units * units**2

    def realise(self) -> Arrays:
        began = time.perf_counter()
        net = Network(self.task)
        rest = Rest(net, load(self.task.program.source)["rhs"])
        found = number_of_points(rest, net.stream("starts of an enumeration"))
        number = np.array([found, float(self.task.N)])
        return {**dict.fromkeys(self.names, number), "elapsed": np.array([time.perf_counter() - began])}


__all__ = ["AtRest", "CountExperiment", "Rest", "number_of_points", "starts"]
