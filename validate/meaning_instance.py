"""What the forms of the instance reading mean in numbers, for witnesses of their steps.

Sites here have a few values with given weights, graphs a few sites, and sums run over all states; laws of fields are
compared with matrices drawn from the declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Float, Symbol, lambdify

from quenched.numerics.replica_evaluator import Evaluator
from quenched.numerics.replica_labels import make_site
from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.gibbs import Gibbs
from quenched.theory.instance import InstanceState, known_widths
from quenched.theory.instance_evolution import EvolutionForm, FieldLaw, GrowthForm
from quenched.theory.instance_graph import PairGraph
from quenched.theory.instance_messages import (
    MI,
    MJ,
    OLD,
    VI,
    VJ,
    XI,
    XJ,
    A,
    BetheForm,
    GaussianMessages,
    M,
    Messages,
    NodeEquations,
    V,
)
from quenched.theory.problem_replicas import X
from quenched.validate.meaning_replicas import at_labels
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.sampling import sample_law, sample_matrices

Array = NDArray[np.float64]
Rng = np.random.Generator
Values = Mapping[Symbol, float]

#: Strength of an edge at which terms of different order in it lie far apart.
WEAK = 1e-4


# -- messages ------------------------------------------------------------------------------------------------------
class FewValues:
    """A site with three values: L(b; V) and its derivatives by explicit sums."""

    def __init__(self, rng: Rng) -> None:
        self.x, self.p = rng.uniform(-1.5, 1.5, 3), rng.dirichlet(np.ones(3))

    def moments(self, b: float, v: float) -> tuple[float, float, float]:
        """(L, mean, variance)."""
        weight = self.p * np.exp(b * self.x + 0.5 * v * self.x**2)
        total = weight.sum()
        mean = float(weight @ self.x / total)
        return float(np.log(total)), mean, float(weight @ (self.x - mean) ** 2 / total)


def tree_deviation(form: Messages, rng: Rng) -> float:
    """Marginals of a random tree of six sites: messages against all states."""
    size = 6
    parent = [int(rng.integers(k)) for k in range(1, size)]
    strength = {(k + 1, parent[k]): float(rng.uniform(-1.2, 1.2)) for k in range(size - 1)}
    sites = [FewValues(rng) for _ in range(size)]
    edge = lambdify([A, XI, XJ], form.edge, "numpy")

    def neighbours(i: int) -> list[tuple[int, float]]:
        return [(b if a == i else a, s) for (a, b), s in strength.items() if i in (a, b)]

    def message(i: int, j: int | None) -> Array:
        law = sites[i].p.copy()
        for k, s in neighbours(i):
            if k != j:
                law = law * (edge(s, sites[i].x[:, None], sites[k].x[None, :]) @ message(k, i))
        return law / law.sum()

    exact = [np.zeros(3) for _ in range(size)]
    for state in product(range(3), repeat=size):
        weight = float(np.prod([sites[i].p[a] for i, a in enumerate(state)]))
        weight *= float(np.exp(sum(s * sites[i].x[state[i]] * sites[j].x[state[j]] for (i, j), s in strength.items())))
        for i, a in enumerate(state):
            exact[i][a] += weight
    return max(float(np.abs(message(i, None) - law / law.sum()).max()) for i, law in enumerate(exact))


def cumulants_deviation(before: Messages, after: GaussianMessages, rng: Rng) -> float:
    """ln of an incoming message at ±x: its odd part against the field, its even part against the width."""
    worst, strength = 0.0, 1e-3
    edge = lambdify([A, XI, XJ], before.edge, "numpy")
    for _ in range(4):
        site, x = FewValues(rng), float(rng.uniform(0.5, 1.5))
        _, m, v = site.moments(0.0, 0.0)
        up, down = (float(np.log(site.p @ edge(strength, side * x, site.x))) for side in (1, -1))
        at = {A: strength, M: m, V: v}
        pairs = (((up - down) / (2 * x), after.field), ((up + down) / x**2, after.width))
        worst = max(worst, *(abs(float(e.subs(at)) - seen) / abs(seen) for seen, e in pairs))
    return worst


class WeakGraph:
    """All pairs of a few sites coupled weakly: relaxed messages and the iteration for sites, step by step."""

    def __init__(self, rng: Rng, strength: float, size: int = 6) -> None:
        couplings = rng.standard_normal((size, size))
        self.a = strength * (couplings + couplings.T)
        np.fill_diagonal(self.a, 0.0)
        self.sites = [FewValues(rng) for _ in range(size)]
        self.bias = rng.uniform(-0.5, 0.5, size)
        self.size = size

    def site_moments(self, b: Array, v: Array) -> tuple[Array, Array, Array]:
        """(L, m, v) of every site."""
        rows = [site.moments(x, y) for site, x, y in zip(self.sites, b, v, strict=True)]
        logs, m, spread = np.array(rows).T
        return logs, m, spread

    def relaxed(self, form: GaussianMessages, sweeps: int) -> tuple[Array, Array]:
        """Fields and widths of the sites after some sweeps of Gaussian messages."""
        field, width = (lambdify([A, M, V], e, "numpy") for e in (form.field, form.width))
        _, m, v = self.site_moments(self.bias, np.zeros(self.size))
        means, spreads = np.tile(m[:, None], self.size), np.tile(v[:, None], self.size)  # [j, i]: from j to i
        for _ in range(sweeps):
            into = field(self.a, means, spreads) + np.zeros_like(self.a)
            wide = width(self.a, means, spreads) + np.zeros_like(self.a)
            b = self.bias + into.sum(0)
            w = wide.sum(0)
            for i in range(self.size):
                for j in range(self.size):
                    _, means[i, j], spreads[i, j] = self.sites[i].moments(b[i] - into[j, i], w[i] - wide[j, i])
        return np.asarray(b, float), np.asarray(w, float)

    def iterated(self, form: NodeEquations, sweeps: int) -> dict[str, Array]:
        """Fields and moments of the sites after some sweeps of the iteration for sites."""
        field, width = lambdify([A, MJ, OLD, VJ], form.field, "numpy"), lambdify([A, VJ], form.width, "numpy")
        _, m, v = self.site_moments(self.bias, np.zeros(self.size))
        old = np.zeros(self.size)
        for _ in range(sweeps):
            b = self.bias + (field(self.a, m[None, :], old[:, None], v[None, :]) + np.zeros_like(self.a)).sum(1)
            w = (width(self.a, v[None, :]) + np.zeros_like(self.a)).sum(1)
            old = m
            logs, m, v = self.site_moments(b, w)
        return {"b": b, "V": w, "m": m, "v": v, "L": logs}


def onsager_deviation(before: GaussianMessages, after: NodeEquations, rng: Rng) -> float:
    """Fields and widths after three sweeps on weakly coupled sites, relative to the Onsager terms and the widths."""
    graph = WeakGraph(rng, WEAK)
    (fields, widths), sites = graph.relaxed(before, 3), graph.iterated(after, 3)
    echo = (graph.a**2 @ sites["v"]) * sites["m"]
    gap = float(np.max(np.abs(fields - sites["b"])) / np.max(np.abs(echo)))
    return max(gap, float(np.max(np.abs(widths - sites["V"])) / np.max(widths)))


def bethe_deviation(before: NodeEquations, after: BetheForm, rng: Rng) -> float:
    """An edge against the sum over its states, and the sum over sites against the sum over edges."""
    edge = lambdify([A, MI, MJ, VI, VJ], after.edge, "numpy")
    near, far = FewValues(rng), FewValues(rng)
    (_, mi, vi), (_, mj, vj) = near.moments(0, 0), far.moments(0, 0)
    exact = float(np.log(near.p @ np.exp(WEAK * near.x[:, None] * far.x) @ far.p))
    direct = WEAK * mi * mj
    found = float(edge(WEAK, mi + WEAK * vi * mj, mj + WEAK * vj * mi, vi, vj))
    worst = abs(found - exact) / abs(exact - direct)
    graph = WeakGraph(rng, 0.05)
    end = graph.iterated(before, 200)
    m, v = end["m"], end["v"]
    edges = edge(graph.a, m[:, None], m[None, :], v[:, None], v[None, :]) * (graph.a != 0)
    overlap, width = (float(c) for c in after.sites)
    sites = overlap * m @ (end["b"] - graph.bias) + width * end["V"] @ v
    return max(worst, abs(float(sites) + 0.5 * float(edges.sum())) / abs(float(sites)) * 1e6)


# -- laws of fields ------------------------------------------------------------------------------------------------
class Drawn:
    """Matrices of a declaration drawn at a size at which their second moments are known within a per cent."""

    def __init__(self, model: Gibbs, graph: PairGraph, values: Values, rng: Rng, units: int = 500) -> None:
        self.graph, self.values = graph, dict(values)
        fractions = [float(s.fraction.subs(self.values)) for s in graph.sites]
        self.numbers = Numbers(self.values, round(units / min(1.0, *fractions)))
        self.sizes = {p.name: self.numbers.size(p)[1] for p in model.populations}
        specs = {a.name: matrix_spec(a, self.numbers) for a in model.matrices}
        seed = int(rng.integers(1 << 30))
        drawn = sample_matrices(list(specs.values()), lambda name: np.random.default_rng([seed, len(name)]))
        self.matrices = {name: drawn[spec.name] for name, spec in specs.items()}
        self.means = {name: spec.mean if spec.law is None else _mean(spec) for name, spec in specs.items()}
        self.labels: dict[Symbol, Array] = {
            q: sample_law(rng, (self.sizes[q.population.name],), self.numbers.law(q.law)) for q in model.quenched
        }

    def number(self, expr: Expr, size: int) -> Array:
        """An expression in labels and parameters, per unit."""
        symbols = sorted(expr.free_symbols, key=str)
        numbers = [self.labels[s] if s in self.labels else self.values[s] for s in symbols]
        return np.broadcast_to(np.asarray(lambdify(symbols, expr, "numpy")(*numbers), float), (size,))

    def coupling(self, name: str, far: str) -> tuple[Array, Array]:
        """(A, its mean) between a population and another, by explicit sums."""
        shape = (self.sizes[name], self.sizes[far])
        total, mean = np.zeros(shape), np.zeros(shape)
        for c in self.graph.couplings:
            for end, other, turn in ((c.row, c.col, False), (c.col, c.row, True)):
                if (end.site, other.site) != (name, far):
                    continue
                outer = self.number(end.factor, shape[0])[:, None] * self.number(other.factor, shape[1])
                scale = float(c.coef.subs(self.values)) * outer
                if c.matrix not in self.matrices:
                    ones = 1.0 / self.sizes[c.col.site]
                    total, mean = total + scale * ones, mean + scale * ones
                    continue
                matrix = self.matrices[c.matrix]
                total = total + scale * (matrix.T if turn else matrix)
                mean = mean + scale * self.means[c.matrix]
        return total, mean


def _mean(spec: Any) -> float:
    """Mean of the entries of a matrix of independent entries."""
    numbers = sample_law(np.random.default_rng(0), (200_000,), spec.law)
    average, error = float(numbers.mean()), float(numbers.std()) / np.sqrt(numbers.size)
    return spec.scale * average if abs(average) > 5 * error else 0.0


def evolution_deviation(model: Gibbs, form: EvolutionForm, values: Values, rng: Rng) -> float:
    """Fields in drawn matrices at random messages, and moments of their laws by quadrature, in units of 3 per cent."""
    point = unknowns(form, values, rng)
    drawn = Drawn(model, form.graph, values, rng)
    worst = max(_law_deviation(drawn, f, form, point) for f in form.laws) / 0.03
    return max(worst, _moments_deviation(form, values, point) / 1e-5)


def unknowns(form: EvolutionForm, values: Values, rng: Rng) -> dict[Symbol, float]:
    """Random values of all unknowns; multipliers are large, so that every measure is normalisable."""
    point = {s: float(rng.uniform(0.1, 0.4)) for s in (*form.means.values(), *form.responses.values())}
    point |= {s: float(rng.uniform(0.3, 0.6)) for s in form.overlaps.values()}
    point |= {s: float(rng.uniform(0.2, 0.5)) for s in form.widths.values()}
    point |= {lam: float(rng.uniform(2, 3)) for lam in form.constraints}
    try:
        for f in form.laws:
            average(f, values, point, X / X, _POWERS[3])
    except ConvergenceError:  # slowly falling priors, that only local fields confine
        return _confined(form, point)
    return point


def _confined(form: EvolutionForm, point: Mapping[Symbol, float]) -> dict[Symbol, float]:
    """The same with widths of local fields that confine the units."""
    local = {f.site.name for f in form.laws if f.measure.kind == "channel"}
    return {**point, **{s: -point[s] for (site, _), s in form.widths.items() if site in local}}


def _law_deviation(drawn: Drawn, f: FieldLaw, form: EvolutionForm, point: Mapping[Symbol, float]) -> float:
    """Mean, variance and width over the rows of drawn matrices, where far moments are as the point says."""
    size = drawn.sizes[f.site.name]
    mean, k, v = np.zeros(size), np.zeros(size), drawn.number(f.site.quadratic, size).copy()
    for other in form.graph.sites:
        a, average = drawn.coupling(f.site.name, other.name)
        if not np.any(a):
            continue
        tables = (form.means, form.overlaps, form.widths)
        m1, m2, spread = (_profile(drawn, other.name, table, point) for table in tables)
        mean, k, v = mean + average @ m1, k + (a - average) ** 2 @ m2, v + (a - average) ** 2 @ spread
    numbers: dict[Any, float] = dict(point)
    pairs = [(mean, f.mean), (k, f.k), (v, f.v)]
    gaps = []
    for seen, expr in pairs[2:] if form.responses else pairs:  # next to a teacher, mean and variance are conditional
        claim = drawn.number(expr.subs(numbers), size)
        weight = claim if np.any(claim) else np.ones(size)
        gaps.append(abs(float(weight @ (seen - claim))) / (1e-9 + float(weight @ np.abs(claim))))
    return max(gaps)


def _profile(drawn: Drawn, name: str, table: Mapping[Any, Symbol], point: Mapping[Symbol, float]) -> Array:
    """Numbers u_j with E[c u] = the point's value for the factors c of a table: a multiple of c, or a constant."""
    size = drawn.sizes[name]
    entries = [(factor, point[s]) for (site, factor), s in table.items() if site == name]
    if not entries:
        return np.zeros(size)
    (factor, value), *more = entries
    if more:
        raise NotCovered(f"several moments of {name}: their witness takes one")
    c = drawn.number(factor, size)
    return value * c / float(np.mean(c**2))


def _moments_deviation(form: EvolutionForm, values: Values, point: Mapping[Symbol, float]) -> float:
    """Every equation against averages over the field laws, with L differentiated by differences."""
    worst = 0.0
    ev = _evaluator(form, values, point)
    for table, power in ((form.means, 1), (form.overlaps, 2), (form.widths, 3)):
        for (name, factor), symbol in table.items():
            rhs = form.equations[symbol]
            exact = average(form.law(name), values, point, factor, _POWERS[power])
            worst = max(worst, abs(ev(rhs) - exact) / (1e-3 + abs(exact)))
    for name, symbol in form.responses.items():
        exact = _response(form.law(name), values, point)
        worst = max(worst, abs(ev(form.equations[symbol]) - exact) / (1e-3 + abs(exact)) / 100)
    for lam, (rhs, _) in form.constraints.items():
        name = next(f.site.name for f in form.laws if f.inside.has(lam))
        exact = average(form.law(name), values, point, X / X, lambda m, v: m**2 + v)
        worst = max(worst, abs(ev(rhs) - exact) / abs(exact))
    return worst


def _response(f: FieldLaw, values: Values, point: Mapping[Symbol, float]) -> float:
    """E[∂L₁/∂v] by moving all labels a little, the fields as they are."""
    seen = f.site.seen
    assert seen is not None
    steps = (Float(0.01), Float(-0.01))
    moved = [replace(f, site=replace(f.site, seen=replace(seen, mean=seen.mean + step))) for step in steps]
    up, down = (average(g, values, point, X / X, _POWERS[1]) for g in moved)
    return (up - down) / 0.02


_POWERS: dict[int, Callable[[Array, Array], Array]] = {
    1: lambda m, v: m,
    2: lambda m, v: m**2,
    3: lambda m, v: v,
}


def _evaluator(form: EvolutionForm, values: Values, point: Mapping[Symbol, float]) -> Callable[[Expr], float]:
    from quenched.theory.problem_replicas import ReplicaProblem

    sites = tuple(f.measure for f in form.laws)
    problem = ReplicaProblem(form.graph.parameters, sites, (), (), form.free_entropy, ())
    ev = Evaluator(problem, dict(values))
    at: dict[Symbol, float] = {**values, **point}
    ev.names, ev.cache = list(at), {}
    return lambda expr: ev.number(expr, at)


def average(
    f: FieldLaw, values: Values, point: Mapping[Symbol, float], factor: Expr, what: Callable[[Array, Array], Array]
) -> float:
    """E[factor · what(L₁, L₂)] over a field law: uniform grid, L by values, its derivatives by differences."""
    z, numbers = _grid(), {**values, **point}
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    total = 0.0
    for probability, labels, first, second in _slopes(f, tuple(values.items()), tuple(point.items())):
        c = at_labels(factor.subs(numbers), labels)
        total += float(np.sum(probability * c * weight * what(first, second)))
    return total


def _grid() -> Array:
    """Standard normal numbers on which L is far smoother than the spacing."""
    return np.linspace(-9, 9, 1001)


@lru_cache(maxsize=2)
def _slopes(f: FieldLaw, values: tuple[Any, ...], point: tuple[Any, ...]) -> list[tuple[Array, Any, Array, Array]]:
    """(probability, labels, L₁, L₂) on the grid, for every case of the labels: kept for several moments of them."""
    site, z, out = make_site(f.measure, dict(values)), _grid(), []
    for k, case in enumerate(site.cases):
        numbers = dict([*values, *point])
        centre, spread, v = (at_labels(e.subs(numbers), case.labels) for e in (f.site.bias + f.mean, f.k, f.inside))
        b = centre + np.sqrt(spread) * z[None, :]
        h = 1e-3
        up, here, down = (site.logs(k, b + s * h, v)[0] for s in (1, 0, -1))
        out.append((case.probability, case.labels, (up - down) / (2 * h), (up - 2 * here + down) / h**2))
    return out


def growth_deviation(model: Gibbs, form: GrowthForm, values: Values, rng: Rng) -> float:
    """Mean squares of a perturbation after one update: drawn couplings times E[L₂²] by differences, in units of 3 %."""
    evolution = form.evolution
    point = unknowns(evolution, values, rng)
    drawn = Drawn(model, evolution.graph, values, rng)
    ev = _evaluator(evolution, values, point)
    worst = 0.0
    for i, (name, factor) in enumerate(form.keys):
        law = evolution.law(name)
        edges = [h for h in evolution.graph.half_edges(name) if h.matrix in drawn.matrices]
        if any(h.own != 1 for h in edges) or factor != 1:
            continue
        square = average(law, values, point, X / X, lambda m, v: v**2)
        for j, (far, c) in enumerate(form.keys):
            a, mean = drawn.coupling(name, far)
            gain = float(np.sum((a - mean) ** 2)) / drawn.sizes[name]
            size = float(np.mean(drawn.number(c, drawn.sizes[far])))
            exact = gain * square / size if gain else 0.0
            worst = max(worst, abs(ev(form.matrix[i][j]) - exact) / (1e-12 + max(exact, 1e-3)))
    return worst / 0.03


def observed_deviation(before: GrowthForm, after: InstanceState, values: Values, rng: Rng) -> float:
    """Equations and stability that the solvers get, against those of the steps before, at a consistent point."""
    form = before.evolution
    point = unknowns(form, values, rng)
    for width, known in known_widths(form).items():
        point[width] = float(known.subs(point))
    ev = _evaluator(form, values, point)
    pairs = [(rhs, form.equations[s]) for s, rhs in after.problem.equations]
    pairs += [(dict(after.problem.observables)["replicon"], before.eigenvalue)]
    return max(abs(ev(a) - ev(b)) / (1e-6 + abs(ev(b))) for a, b in pairs)
