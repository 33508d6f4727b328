"""Meanings of the forms over layers: units unrolled over all events, averages by quadrature, blocks by numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from sympy import Basic

from quenched.numerics.layers import START, March
from quenched.theory.fields import Quenched, WhiteNoise
from quenched.theory.layered_blocks import LayerBlocks
from quenched.theory.layers import Layers
from quenched.theory.naming import field_names, unit_name
from quenched.theory.observables import Mean
from quenched.theory.problem import C12, M1, M2, V1, V2, TwoPoint
from quenched.theory.problem_layers import LayeredGaussian
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.spaces import t
from quenched.validate.meaning import Array, Values, evaluate, number, relative
from quenched.validate.meaning_state import POINTS, two_point_value
from quenched.validate.simulate_layers import prepare

#: Layers that are unrolled (fewer than declared, so that depth costs nothing).
LAYERS = 3
#: Sizes of networks that are compared with kernels.
SIZES = (50, 100)


class Prescribed(March):
    """A march in which the overlaps and means of outputs are given numbers, (events, samples) each."""

    def __init__(self, problem: LayeredGaussian, values: Values, overlaps: dict[tuple[str, str], Array]) -> None:
        self.overlaps = overlaps  # read by overlap(), which the march calls at once
        super().__init__(problem, {s: values[s] for s in problem.parameters})

    def overlap(self, first: str, second: str, a: int, b: int) -> Array:
        if (first, second) in self.overlaps:
            return self.overlaps[first, second][a + 1, :, b + 1, :]
        return np.transpose(self.overlaps[second, first], (2, 3, 0, 1))[a + 1, :, b + 1, :]

    def one_point(self, output: object, event: int) -> Array:
        name = output.name  # type: ignore[attr-defined]
        return self.overlaps[name, name][event + 1, :, 0, 0]


def layers_deviation(
    process: EffectiveProcess, problem: LayeredGaussian, values: Values, rng: np.random.Generator
) -> float:
    """Covariances and means of all states: unrolled site equations against the march, at random order parameters."""
    events, samples = LAYERS + 1, problem.samples
    overlaps = random_overlaps([f.name for f in process.action.of_role("output")], samples, rng)
    march = Prescribed(problem, values, overlaps)
    unrolled = Unrolled(process, values, overlaps, events, samples)
    worst = 0.0
    for x, y in product(problem.states, repeat=2):
        if problem.population[x] != problem.population[y]:
            continue
        for a, b in product(range(events), repeat=2):
            worst = max(worst, relative(march.covariance(x, y, a, b), unrolled.covariance(x, y, a, b), unrolled.size))
    for (x, y), (a, b) in product(product(problem.locals, repeat=2), product(range(START, LAYERS), repeat=2)):
        if problem.population[x] == problem.population[y]:
            worst = max(
                worst, relative(march.covariance(x, y, a, b), unrolled.local(x, y, a + 1, b + 1), unrolled.size)
            )
    for x in problem.states:
        for a in range(events):
            worst = max(worst, relative(march.mean(x, a), unrolled.mean(x, a), 1 + unrolled.size))
    return worst


def random_overlaps(names: list[str], samples: int, rng: np.random.Generator) -> dict[tuple[str, str], Array]:
    """Random numbers for every overlap of outputs at all events and samples, with the symmetry of overlaps."""
    overlaps, events = {}, LAYERS + 1
    for i, a in enumerate(names):
        for b in names[i:]:
            raw = rng.normal(size=(events, samples, events, samples))
            overlaps[a, b] = (raw + np.transpose(raw, (2, 3, 0, 1))) / 2 if a == b else raw
    return overlaps


class Unrolled:
    """Every state at every layer as an explicit affine function of all inputs at all events of every sample."""

    def __init__(
        self,
        process: EffectiveProcess,
        values: Values,
        overlaps: dict[tuple[str, str], Array],
        events: int,
        samples: int,
    ) -> None:
        self.process, self.values, self.overlaps = process, values, overlaps
        self.action = process.action
        self.events, self.samples = events, samples
        self.inputs = [f.symbol for f in self.action.of_role("local")] + self._units()
        self.place = {
            (symbol, e, s): k for k, (symbol, e, s) in enumerate(product(self.inputs, range(events), range(samples)))
        }
        self.law = self._law()
        self.maps = self._unroll()
        self.size = max(
            float(np.abs(self.covariance(x, y, a, a)).max())
            for (x, a), (y, b) in product(self.maps, repeat=2)
            if a == b
        )

    def _units(self) -> list[Basic]:
        exprs = [e for _, e in (*self.action.equations, *self.action.starts)]
        found = {u for e in exprs for u in e.atoms(Quenched, WhiteNoise)}
        free = [f.symbol for f in self.action.of_role("state") if f.name not in dict(self.action.starts)]
        return [*sorted(found, key=unit_name), *free]  # a state without expression starts at random numbers of its own

    def _law(self) -> tuple[Array, Array]:
        size = len(self.place)
        mean, cov = np.zeros(size), np.zeros((size, size))
        names = {f.symbol: f.name for f in self.action.of_role("local")}
        for (one, e, i), k in self.place.items():
            mean[k] = self._mean(one, names, e, i)
            for (two, d, j), l in self.place.items():
                if one in names and two in names:
                    cov[k, l] = self._local(names[one], names[two], e, d, i, j)
                elif one == two:
                    cov[k, l] = self._unit(one, e == d, i == j)
        return mean, cov

    def _mean(self, symbol: Basic, names: dict[Basic, str], e: int, i: int) -> float:
        if symbol in names:
            parts = self.process.mean.get(names[symbol], ())
            return sum(number(c.coef, self.values).real * self._one(c)[e, i, 0, 0] for c in parts)
        law = getattr(symbol, "law", None) or getattr(symbol, "initial", None)
        return 0.0 if isinstance(symbol, WhiteNoise) or law is None else number(law.mean_(), self.values).real

    def _one(self, c: Contribution) -> Array:
        assert c.op is not None
        return self.overlaps[c.op.atoms[0][0], c.op.atoms[0][0]]

    def _local(self, u: str, v: str, e: int, d: int, i: int, j: int) -> float:
        if (u, v) not in self.process.covariance:
            return self._local(v, u, d, e, j, i) if (v, u) in self.process.covariance else 0.0
        total = 0.0
        for c in self.process.covariance[u, v]:
            assert c.op is not None
            if c.kernels and e != d:
                continue
            times = {0: (e, i), 1: (d, j)}
            (one, s1), (two, s2) = c.op.atoms
            left, right = times[c.at[s1]], times[c.at[s2]]
            array = self.overlaps.get((one, two))
            value = array[(*left, *right)] if array is not None else self.overlaps[two, one][(*right, *left)]
            total += number(c.coef, self.values).real * float(value)
        return total

    def _unit(self, unit: Basic, same_event: bool, same_sample: bool) -> float:
        if isinstance(unit, WhiteNoise):
            law, fresh, each = None, True, unit.each is not None
        elif isinstance(unit, Quenched):
            law, fresh, each = unit.law, unit.redraw is not None, unit.each is not None
        else:
            law, fresh, each = unit.initial, True, True
        if (fresh and not same_event) or (each and not same_sample):
            return 0.0
        return 1.0 if law is None else number(law.variance_(), self.values).real

    def _unroll(self) -> dict[tuple[str, int], list[tuple[Array, float]]]:
        """(state, layer) → its row over all inputs and its constant, one for each sample."""
        rows: dict[tuple[str, int], list[tuple[Array, float]]] = {}
        starts = dict(self.action.starts)
        states = {f.symbol: f.name for f in self.action.of_role("state")}
        for layer, s in product(range(self.events), range(self.samples)):
            for symbol, name in states.items():
                if layer == 0 and name not in starts:
                    row = np.zeros(len(self.place))
                    row[self.place[symbol, 0, s]] = 1.0
                    rows.setdefault((name, 0), []).append((row, 0.0))
                    continue
                expr = starts[name] if layer == 0 else dict(self.action.equations)[name]
                rows.setdefault((name, layer), []).append(self._row(expr, layer, s, states, rows))
        return rows

    def _row(
        self,
        expr: Basic,
        layer: int,
        s: int,
        states: dict[Basic, str],
        rows: dict[tuple[str, int], list[tuple[Array, float]]],
    ) -> tuple[Array, float]:
        """An affine expression by evaluation at zero and at unit values of each of its quantities."""
        here = {**self.values, t: float(layer - 1)}
        quantities: list[Basic] = [*states, *(x for x in self.inputs if x not in states)]
        zero: dict[Basic, float] = dict.fromkeys(quantities, 0.0)
        constant = float(np.asarray(evaluate(expr, {**here, **zero})))
        row, level = np.zeros(len(self.place)), constant
        for q in quantities:
            slope = float(np.asarray(evaluate(expr, {**here, **zero, q: 1.0}))) - constant
            if slope == 0:
                continue
            if q in states:
                before, shift = rows[states[q], layer - 1][s]
                row = row + slope * before
                level += slope * shift
            else:
                row[self.place[q, layer, s]] += slope
        return row, level

    def covariance(self, x: str, y: str, a: int, b: int) -> Array:
        """Cov(x(a), y(b)) over pairs of samples."""
        left = np.array([row for row, _ in self.maps[x, a]])
        right = np.array([row for row, _ in self.maps[y, b]])
        return left @ self.law[1] @ right.T

    def local(self, u: str, v: str, e: int, d: int) -> Array:
        """Cov(u(e), v(d)) of local fields at two events, over pairs of samples."""
        of = range(self.samples)
        return np.array([[self._local(u, v, e, d, i, j) for j in of] for i in of])

    def mean(self, x: str, a: int) -> Array:
        """Mean over samples."""
        return np.array([row @ self.law[0] + level for row, level in self.maps[x, a]])


def layer_averages_deviation(problem: LayeredGaussian, values: Values, rng: np.random.Generator) -> float | None:
    """Closed forms against quadrature at several means and covariances; None where there is none."""
    worst = None
    for (first, second), closed in problem.closed.items():
        pair = TwoPoint(problem.output(first).f, 0, problem.output(second).f, 1, closed)
        for v1, v2, angle in POINTS:
            means = (0.0, 0.0) if problem.centred else (float(rng.normal()) / 2, float(rng.normal()) / 2)
            cov = (v1, v2, angle * (v1 * v2) ** 0.5)
            slots = {M1: means[0], M2: means[1], V1: cov[0], V2: cov[1], C12: cov[2]}
            found = number(closed, {**values, **slots})
            deviation = relative(found, two_point_value(pair, means, cov, values), 1.0)
            worst = deviation if worst is None else max(worst, deviation)
    return worst


def blocks_deviation(problem: LayeredGaussian, blocks: LayerBlocks, values: Values, rng: np.random.Generator) -> float:
    """Equal layers for shared and for redrawn disorder, and different layers, at random order parameters."""
    overlaps = random_overlaps([o.name for o in problem.outputs], problem.samples, rng)
    deep = replace(problem, steps=LAYERS)
    here, shared, redrawn = (
        Prescribed(p, values, overlaps) for p in (deep, _with_fresh(deep, False), _with_fresh(deep, True))
    )
    pairs = [(x, y) for x, y in product(problem.states, repeat=2) if problem.population[x] == problem.population[y]]
    gap = max(
        relative(shared.covariance(x, y, a, a), redrawn.covariance(x, y, a, a)) for x, y in pairs for a in (1, 2, 3)
    )
    if blocks.alone != (gap < 1e-9):
        return float("inf")
    for x, y in pairs:
        apart = ((0, 1), (1, 2), (2, 3), (1, 3))
        found = max(float(np.abs(here.covariance(x, y, a, b)).max()) for a, b in apart)
        listed = (x, y) in blocks.separate or (y, x) in blocks.separate
        if listed != (found < 1e-12):
            return float("inf")
    return 0.0


def _with_fresh(p: LayeredGaussian, flag: bool) -> LayeredGaussian:
    covariance = tuple(replace(c, same=flag) for c in p.covariance)
    return replace(p, covariance=covariance, sources=tuple(replace(s, fresh=flag) for s in p.sources))


def kernels_deviation(model: Layers, problem: LayeredGaussian, values: Values, seed: int) -> tuple[float, int]:
    """Largest z of all second moments of states, from ensembles of networks of two sizes, and how many there are.

    Twice the mean at the larger size minus that at the half of it is free of the correction 1/N.
    """
    names = field_names(model)
    observed = {}
    places = list(product(range(min(model.steps or 0, LAYERS) + 1), range(problem.samples)))
    for (x, a, i), (y, b, j) in product([(x, *p) for x in model.eqs for p in places], repeat=2):
        if (names[x], a, i) <= (names[y], b, j) and x.population == y.population:
            left, right = (f[s + 1] if f.each else f for f, s in ((x, i), (y, j)))
            observed[names[x], a, i, names[y], b, j] = Mean(left(a) * right(b), x.population)
    watched = Layers(model.eqs, model.steps, model.name)
    watched.observe(**{f"m{k}": e for k, e in enumerate(observed.values())})
    numbers = {s: float(values[s]) for s in watched.parameters}
    runs = [
        [prepare(watched, n, seed, numbers, networks=100).task.number(k).realise() for k in range(12)] for n in SIZES
    ]
    march, worst = March(problem, numbers), 0.0
    for k, (u, a, i, v, b, j) in enumerate(observed):
        theory = march.covariance(u, v, a, b)[i, j] + march.mean(u, a)[i] * march.mean(v, b)[j]
        small, large = (np.array([float(r[f"m{k}"][0]) for r in run]) for run in runs)
        found = 2 * large - small
        spread = max(float(found.std(ddof=1)) / len(found) ** 0.5, 1e-6 * abs(theory))
        worst = max(worst, abs(float(found.mean()) - theory) / spread)
    return worst, len(observed)


__all__ = ["blocks_deviation", "kernels_deviation", "layer_averages_deviation", "layers_deviation"]
