"""The saddle-point equations of a replica problem at given parameters, as numbers."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isfinite, log2, sqrt
from typing import Any, cast

import numpy as np
from scipy.optimize import brentq
from sympy import Expr, Symbol, sympify

from quenched.theory.errors import ConvergenceError
from quenched.theory.problem_replicas import L, ReplicaProblem, SiteAverage, TreeAverage

from .quadrature import REACH, graded_row, hermite, trapezoid_row
from .replica_cold import VARIANCE, Z, by_parts, cold_nodes
from .replica_compile import apart, compiled
from .replica_free import FreeAverage
from .replica_labels import make_site
from .replica_sites import Site
from .replica_tree import Tree, label_sites
from .types import Array

#: Work of a site above which searches take few nodes, and how few.
COSTLY, ROUGH = 200, 0.25


class Evaluator:
    """Numbers of a problem at given parameters: site averages, residuals, observables."""

    def __init__(self, problem: ReplicaProblem, values: dict[Symbol, float], fine: float = 1.0) -> None:
        self.problem, self.fine = problem, fine
        self.base = {s: float(v) for s, v in values.items()}
        self.sites = {s.name: make_site(s, self.base, fine) for s in problem.sites}
        self.unknowns = [s for s, _ in problem.equations]
        self.multipliers = [lam for lam, _, _ in problem.constraints]
        self.names = [*self.unknowns, *self.multipliers, *self.base]
        self.compiled: dict[Expr, Callable[[dict[Symbol, float]], float]] = {}
        self.averages: dict[Expr, Callable[[dict[Symbol, float]], float]] = {}
        self.guess: dict[Symbol, float] = {}
        self.rows: dict[str, list[tuple[dict[Symbol, float], float, Site]]] = {}
        self.cache: dict[Any, tuple[tuple[Array, ...], Array]] = {}
        self.before: dict[Any, tuple[tuple[Array, ...], Array]] = {}
        self.below: dict[Symbol, float] = {}

    @property
    def work(self) -> int:
        """Functions of one field to evaluate a node of the fields, of the costliest site."""
        return max((site.work for site in self.sites.values()), default=0)

    # -- averages --------------------------------------------------------------------------------------------
    def number(self, expr: Expr, at: dict[Symbol, float]) -> float:
        """An expression in unknowns, parameters and site averages."""
        if expr not in self.compiled:
            nodes, slots, plain = apart(expr)
            function = compiled((*self.names, *slots), plain, "math")
            self.compiled[expr] = self._caller(function, nodes)
        return self.compiled[expr](at)

    def _caller(self, function: Any, nodes: list[Any]) -> Callable[[dict[Symbol, float]], float]:
        averages = [self.average(node) for node in nodes]

        def call(at: dict[Symbol, float]) -> float:
            return float(function(*(at[s] for s in self.names), *(a(at) for a in averages)))

        return call

    def average(self, node: SiteAverage | TreeAverage) -> Callable[[dict[Symbol, float]], float]:
        """A function that evaluates one site average."""
        if node not in self.averages:
            self.averages[node] = self._average(node)
        return self.averages[node]

    def _average(self, node: SiteAverage | TreeAverage) -> Callable[[dict[Symbol, float]], float]:
        site = self.sites[node.site]
        if isinstance(node, TreeAverage):
            return self._nested(node, site)
        labels = list(node.labels)
        if site.free:
            return FreeAverage(self, node, site)
        if site.cold:
            return self._cold_average(node, site)
        fields = compiled((*self.names, *labels), node.field, "math" if not labels else "numpy")
        poly = compiled((*L[:3], *labels), node.poly, "numpy")

        def call(at: dict[Symbol, float]) -> float:
            numbers = [at[s] for s in self.names]
            total = 0.0
            for k, case in enumerate(site.cases):
                own = [case.labels[q] for q in labels]
                b, variance, v = fields(*numbers, *own)
                arrays, w = self._logs(site, k, b, variance, v)
                inside = poly(*arrays, *own)
                if not own and np.shape(inside) == w.shape:
                    total += float(case.probability[0, 0] * np.vdot(w, inside))
                else:
                    total += float(np.sum(case.probability * w * inside))
            return total

        return call

    def _nested(self, node: TreeAverage, site: Site) -> Callable[[dict[Symbol, float]], float]:
        """A function that evaluates one average over nested fields."""
        flat = (*node.field, *(e for pair in node.levels for e in pair), node.scale)
        slots = {q: Symbol(f"label_{k}_") for k, q in enumerate(node.labels)}  # a size of blocks may have the same name
        fields = compiled((*self.names, *slots.values()), tuple(sympify(e).xreplace(slots) for e in flat), "math")
        poly = compiled(L[:3], node.poly, "numpy")
        jumping = site.cold and node.poly.has(L[2]) and node.what == "plain"
        if node.site not in self.rows:
            self.rows[node.site] = label_sites(site)

        def one(here: Site, numbers: list[float]) -> float:
            b, k, v, *rest, scale = fields(*numbers)
            if scale == 0:
                return 0.0
            key = (site.name, id(here), b, k, v, *rest)
            if key not in self.cache:
                levels = list(zip(rest[::2], rest[1::2], strict=True))
                self.cache[key] = cast(Any, Tree(here, b, k, levels, v, self.fine))
            tree = cast(Tree, self.cache[key])
            if jumping and not here.gaussian(0):
                return np.nan if node.poly == L[2] else np.inf
            return float(scale) * tree.average(node.what, node.level, poly)

        def call(at: dict[Symbol, float]) -> float:
            numbers = [at[s] for s in self.names]
            found = (p * one(here, [*numbers, *(own[q] for q in node.labels)]) for own, p, here in self.rows[node.site])
            return float(sum(found))

        return call

    def _cold_average(self, node: SiteAverage, site: Site) -> Callable[[dict[Symbol, float]], float]:
        """A function that evaluates one site average at zero temperature."""
        labels = list(node.labels)
        fields = compiled((*self.names, *labels), node.field, "math" if not labels else "numpy")
        plain = compiled((*L[:3], *labels), node.poly, "numpy")
        parts = compiled((*L[:3], Z, VARIANCE, *labels), by_parts(node.poly), "numpy")
        curved = node.poly.has(L[2] ** 2)

        def call(at: dict[Symbol, float]) -> float:
            total = 0.0
            for k, case in enumerate(site.cases):
                own = [case.labels[q] for q in labels]
                b, variance, v = (_scalar(a) for a in fields(*(at[s] for s in self.names), *own))
                self._check(site, b, variance, v)
                key = (site.name, k, *(a.tobytes() if isinstance(a, np.ndarray) else a for a in (b, variance, v)))
                if key not in self.cache:
                    self.cache[key] = cold_nodes(site.kind, case.parts, b, variance, v, site.name, self.fine)
                z, w, found, jumps = cast(Any, self.cache[key])
                if curved and jumps:
                    return np.inf
                arrays = (found.value, found.first, found.second)
                flat = np.all(np.asarray(variance) <= 0)
                inside = plain(*arrays, *own) if flat else parts(*arrays, z, variance, *own)
                total += float(np.sum(case.probability * w * inside))
            return total

        return call

    @staticmethod
    def _check(site: Site, b: Any, k: Any, v: Any) -> None:
        if isinstance(b, float) and isinstance(k, float) and isinstance(v, float) and k >= 0 and isfinite(b + k + v):
            return
        if not np.isfinite(b + k + v).all():
            raise ConvergenceError(f"the field of site {site.name} is not finite")
        if np.any(k < -1e-12):
            raise ConvergenceError(f"the field of site {site.name} has a negative variance {np.min(k):.3g}")

    def _logs(self, site: Site, case: int, b: Any, k: Any, v: Any) -> tuple[tuple[Array, ...], Array]:
        b, k, v = _scalar(b), _scalar(k), _scalar(v)
        self._check(site, b, k, v)
        key = (site.name, case, *(a.tobytes() if isinstance(a, np.ndarray) else a for a in (b, k, v)))
        if key not in self.cache:
            if key in self.before:
                self.cache[key] = self.before[key]
            else:
                k = max(k, 0.0) if isinstance(k, float) else np.maximum(k, 0.0)
                z, w = self._nodes(site, case, b, k, v)
                self.cache[key] = site.logs(case, b + np.sqrt(k) * z, v), w
        return self.cache[key]

    def _nodes(self, site: Site, case: int, b: Any, k: Any, v: Any) -> tuple[Array, Array]:
        """Nodes (1, z) for a Gaussian field of mean b and variance k."""
        most, width = (k if isinstance(k, float) else np.max(k)), (v if isinstance(v, float) else np.min(v))
        if most <= 0:
            return np.zeros((1, 1)), np.ones((1, 1))
        root = sqrt(most)
        if site.kind == "channel" and site.edges(case) and width < 0.3 * root**2:
            if isinstance(b, float) and isinstance(k, float):
                at = tuple((e - b) / root for e in site.edges(case))
                return graded_row(at, 0.5 / self.fine, 26 if v < 1e-4 * k else 14)
            count = self.fine * min(max(140.0, 6 * REACH * root / sqrt(max(width, 1e-9))), 20000)
        elif site.gaussian(case):
            x, w = hermite(12)
            return x[None, :], w[None, :]
        else:
            most = max(300.0, 2 * REACH * root / 0.2)
            if site.kind == "channel" and width > 0:  # what the field's width smooths
                most = min(most, max(100.0, 12 * REACH * root / sqrt(width)))
            count = self.fine * min(most, 20000)
        return trapezoid_row(int(2 ** (ceil(8 * log2(count)) / 8)) | 1)  # few different grids, which are remembered

    # -- the saddle ------------------------------------------------------------------------------------------
    def point(self, x: Array) -> dict[Symbol, float]:
        """All symbols at the unknowns x, multipliers solved for."""
        self.before, self.cache = self.cache, {}  # of the last point too: differences move one field at a time
        at = self.base | dict(zip(self.unknowns, map(float, x), strict=True)) | dict.fromkeys(self.multipliers, 1.0)
        for lam, average, value in self.problem.constraints:
            at[lam] = self._multiplier(lam, average, self.number(value, at), at)
        return at

    def _multiplier(self, lam: Symbol, average: Expr, value: float, at: dict[Symbol, float]) -> float:
        def excess(size: float) -> float:
            try:
                found = self.number(average, at | {lam: size})
            except ConvergenceError:  # the measure is not normalisable: its norm is infinite
                return 50.0
            if found <= 0:  # by rounding, where the measure shrinks to a point
                return -50.0
            if not np.isfinite(found):  # overflows, where almost nothing confines it
                return 50.0
            return float(np.log(found) - np.log(value))

        def scaled(y: float) -> float:
            return excess(float(np.exp(y)))

        lo, hi = (-20.0, 40.0)
        near = self.guess.get(lam)
        if near is not None and scaled(near - 0.5) > 0 > scaled(near + 0.5):
            lo, hi = near - 0.5, near + 0.5
        elif scaled(lo) < 0:
            return self._negative(lam, excess, float(np.exp(lo)))
        elif not scaled(lo) > 0 > scaled(hi):
            raise ConvergenceError(f"no multiplier {lam} gives the norm that is asked for")
        found = float(brentq(scaled, lo, hi, xtol=1e-14, rtol=1e-14))
        self.guess[lam] = found
        return float(np.exp(found))

    def _negative(self, lam: Symbol, excess: Callable[[float], float], top: float) -> float:
        """The multiplier where units of different squares hold each other."""
        near = self.below.get(lam, 0.0)
        if near and excess(1.1 * near) > 0 > excess(0.9 * near):
            ends = (1.1 * near, 0.9 * near)
        else:
            ends = (next((s for s in -np.geomspace(1e-6, 1e12, 37) if excess(s) > 0), 0.0), top)
        if not ends[0]:
            raise ConvergenceError(f"no multiplier {lam} gives the norm that is asked for")
        self.below[lam] = found = float(brentq(excess, *ends, xtol=1e-15, rtol=1e-14))
        return found

    def update(self, x: Array) -> Array:
        """The right-hand sides of the saddle-point equations."""
        at = self.point(x)
        return np.array([self.number(rhs, at) for _, rhs in self.problem.equations])

    def observe(self, x: Array) -> dict[str, float]:
        """Order parameters, multipliers and observables."""
        at = self.point(x)
        out = {s.name: at[s] for s in [*self.unknowns, *self.multipliers]}
        return out | {name: self.number(expr, at) for name, expr in self.problem.observables}


def quick_evaluator(
    problem: ReplicaProblem, values: dict[Symbol, float], costly: int = COSTLY, few: float = ROUGH
) -> Evaluator:
    """With few nodes where a site is costly: for searches, whose results are refined, and for courses."""
    full = Evaluator(problem, values)
    return full if full.work <= costly else Evaluator(problem, values, few)


def _scalar(value: Any) -> Any:
    """A number, or an array over labels where the numbers differ."""
    if not isinstance(value, np.ndarray):
        return float(value)
    return float(value.flat[0]) if value.size == 1 or np.ptp(value) == 0 else value
