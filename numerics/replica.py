"""Replica-symmetric saddles: damped iteration, Newton steps, all branches, and where a condition is met.

Averages over the Gaussian field of a site use the trapezoidal rule (spectrally accurate for smooth sites), or panels
refined towards the kinks of a weight where its width is small. Errors are the change under coarser quadrature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, isfinite, log2, sqrt
from typing import Any, cast

import numpy as np
from scipy.optimize import brentq, root
from sympy import Expr, Symbol, sympify

from quenched.theory.errors import ConvergenceError, QuenchedError, nearest
from quenched.theory.problem_replicas import L, ReplicaProblem, SiteAverage, TreeAverage

from .quadrature import REACH, graded_row, hermite, trapezoid_row
from .replica_cold import VARIANCE, Z, by_parts, cold_nodes
from .replica_compile import apart, compiled
from .replica_free import FreeAverage
from .replica_iterate import NEAR, iterate, relative
from .replica_labels import make_site
from .replica_sites import Site
from .replica_slopes import jacobian
from .replica_tree import Tree, label_sites
from .types import Array, Number

#: Starting values of overlaps; those of means are their roots, of either sign.
STARTS = (0.02, 0.5, 0.95)
#: Starts for measures that only exist near full overlap (low temperatures), tried where the others fail.
FROZEN = (0.999, 0.99999)
#: Residual of a solution.
TOL = 1e-11


@dataclass(frozen=True)
class ReplicaBranch:
    """One saddle.

    Attributes
    ----------
    label : "zero" (all means and overlaps vanish), "overlap" (no means) or "ordered", numbered when there are several
    values : observable or order parameter → value with numerical error
    stable : the replicon eigenvalue is below 1
    attracting : damped iteration of the saddle-point equations returns to it
    residual, iterations : of the final Newton steps, and of both stages
    """

    label: str
    values: dict[str, Number]
    stable: bool
    attracting: bool
    residual: float
    iterations: int
    x: tuple[float, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class ReplicaSolution:
    """All saddles that were found; `main` is the index of the one that dominates."""

    branches: tuple[ReplicaBranch, ...]
    main: int

    @property
    def state(self) -> ReplicaBranch:
        """The main branch."""
        return self.branches[self.main]


class Evaluator:
    """Numbers of a problem at given parameters: site averages, residuals, observables."""

    def __init__(self, problem: ReplicaProblem, values: dict[Symbol, float], fine: float = 1.0) -> None:
        self.problem, self.fine = problem, fine
        self.base = {s: float(v) for s, v in values.items()}
        self.sites = {s.name: make_site(s, self.base) for s in problem.sites}
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
            count = self.fine * min(max(300.0, 2 * REACH * root / 0.2), 20000)
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
            with np.errstate(divide="ignore"):
                return float(np.log(found) - np.log(value))

        def scaled(y: float) -> float:
            return excess(float(np.exp(y)))

        lo, hi = (-20.0, 40.0)
        near = self.guess.get(lam)
        if near is not None and scaled(near - 0.5) > 0 > scaled(near + 0.5):
            lo, hi = near - 0.5, near + 0.5
        elif scaled(lo) < 0:
            return self._negative(lam, excess, float(np.exp(lo)))
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


def _scalar(value: Any) -> Any:
    """A number, or an array over labels where the numbers differ."""
    if not isinstance(value, np.ndarray):
        return float(value)
    return float(value.flat[0]) if value.size == 1 or np.ptp(value) == 0 else value


# -- one branch ----------------------------------------------------------------------------------------------------
def newton(ev: Evaluator, x: Array, steps: int = 30) -> tuple[Array, float, int, Array]:
    """Newton steps with step halving: (x, residual, steps, Jacobian of the map)."""
    value = ev.update(x)
    history = []
    for k in range(steps):
        size = relative(value - x, x)
        history.append(size)
        slope = jacobian(ev, x, value)
        if size < TOL or (k > 3 and size < 1e-9 and size > history[-2] / 2):
            return x, size, k, slope
        unit = 1 + np.abs(x)
        scaled = (slope - np.eye(len(x))) * unit / unit[:, None]
        move = unit * np.linalg.lstsq(scaled, (x - value) / unit, rcond=None)[0]
        for half in range(12):
            trial = x + move / 2**half
            try:
                there = ev.update(trial)
            except (ConvergenceError, ValueError):
                continue
            if np.all(np.isfinite(there)) and relative(there - trial, trial) < size:
                break
        else:
            break
        x, value = trial, there
    if history and history[-1] < 1e-8:
        return x, history[-1], steps, jacobian(ev, x, value)
    raise ConvergenceError("the saddle-point equations did not converge", history)


def reach(ev: Evaluator, x: Array) -> tuple[Array, float, int, Array]:
    """Newton steps from a guess, where they stall after Powell's hybrid method."""
    try:
        return newton(ev, x)
    except ConvergenceError:
        unit = 1 + np.abs(x)

        def residual(u: Array) -> Array:
            try:
                return (ev.update(u * unit) - u * unit) / unit
            except (ConvergenceError, ValueError):
                return np.full(len(u), 1e3)

        def slope(u: Array) -> Array:
            return (jacobian(ev, u * unit, ev.update(u * unit)) - np.eye(len(u))) * unit / unit[:, None]

        return newton(ev, root(residual, x / unit, jac=slope, method="hybr").x * unit)


def starts(problem: ReplicaProblem, levels: tuple[float, ...] = STARTS) -> Iterator[Array]:
    """Starting points: weak to strong overlaps, means of either sign."""
    for level in levels:
        for sign in (1.0, -1.0) if "mean" in problem.kinds else (1.0,):
            yield np.array([_start(kind, level, sign) for kind in problem.kinds])
    if "mean" in problem.kinds:
        for level in levels[1:]:
            yield np.array([_start(kind, level, 0.0) for kind in problem.kinds])


def _first(problem: ReplicaProblem) -> list[Array]:
    """Starting points; with a declared initial state that state, and states without means."""
    if not problem.start:
        return list(starts(problem))
    hints = dict(problem.start)

    def near(level: float) -> Array:
        at = [(hints.get(s, 0.0) if k == "mean" else _start(k, level, 0.0)) for (s, _), k in _unknowns(problem)]
        return np.array(at)

    return [near(0.95), *map(near, FROZEN), np.array([_start(k, 0.5, 0.0) for k in problem.kinds])]


def from_means(problem: ReplicaProblem, values: dict[Symbol, float], hints: Mapping[str, float]) -> Array:
    """A starting point with given means, those left out being 0, and all else iterated at these means."""
    names = [s.name for s, _ in problem.equations]
    unknown = [name for name in hints if name not in names]
    if unknown:
        raise QuenchedError(f"no order parameter {unknown[0]!r}: {nearest(unknown[0], names)}")
    held = np.array([k == "mean" or s.name in hints for (s, _), k in _unknowns(problem)])
    ev = Evaluator(problem, values)
    for level in (0.9, 0.98, 0.995, 0.9995):
        x = np.array([hints.get(s.name, _start(k, level, 0.0)) for (s, _), k in _unknowns(problem)])
        try:
            for _ in range(60):
                x = np.where(held, x, 0.5 * x + 0.5 * ev.update(x))
        except ConvergenceError as stop:
            failure = stop
            continue
        return x
    raise failure


def _unknowns(problem: ReplicaProblem) -> Iterator[tuple[tuple[Symbol, Expr], str]]:
    return zip(problem.equations, problem.kinds, strict=True)


def _start(kind: str, level: float, sign: float) -> float:
    at = {"mean": sign * np.sqrt(level), "overlap": level, "norm": 1.0, "response": 0.0, "susceptibility": 1 - level}
    return float(at[kind])


def solve_replica(problem: ReplicaProblem, values: dict[Symbol, float], guess: Array | None = None) -> ReplicaSolution:
    """All saddles that the starting points reach.

    Parameters
    ----------
    problem : ReplicaProblem
    values : numbers of all parameters
    guess : array (unknowns,), optional
        Follow this solution only.

    Raises
    ------
    ConvergenceError
        No start converged.
    """
    if problem.bare:
        raise QuenchedError(
            "at zero temperature without an energy solutions have no theory but where their volume shrinks to a point: "
            "use capacity(parameter, bracket=…)"
        )
    ev, coarse = Evaluator(problem, values), Evaluator(problem, values, 0.7)
    found: list[tuple[Array, float, int, Array]] = []
    failures: list[ConvergenceError] = []
    first = _first(problem) if guess is None else [guess]
    last = list(starts(problem, FROZEN)) if guess is None else []
    for k, start in enumerate([*first, *last]):
        if found and k >= len(first):
            break
        if k == 1 and problem.start and not any(_ordered(problem, x) for x, *_ in found):
            found = [*_settled(ev, first[0]), *found]
        try:
            reached = (start, 0) if guess is not None else iterate(ev, start, known=[x for x, *_ in found])
            if reached is None:
                continue
            near, sweeps = reached
            x, residual, steps, slope = newton(ev, near) if guess is None else reach(ev, near)
        except (ConvergenceError, ValueError) as stop:
            failures.append(stop if isinstance(stop, ConvergenceError) else ConvergenceError(str(stop)))
            continue
        if not any(relative(x - other, x) < 1e-6 for other, _, _, _ in found):
            found.append((x, residual, sweeps + steps, slope))
    if not found:
        at = ", ".join(f"{s} = {v:g}" for s, v in values.items())
        raise ConvergenceError(
            f"no replica-symmetric saddle found at {at} (beyond a capacity there is none): {failures[0]}",
            failures[0].residuals,
        )
    branches = [_branch(problem, ev, coarse, *item) for item in found]
    if guess is None and problem.start:
        return ReplicaSolution(tuple(_numbered(branches)), 0)
    rank = [(b.attracting, b.stable, b.values["free_entropy"].value) for b in branches]
    return ReplicaSolution(tuple(_numbered(branches)), max(range(len(rank)), key=rank.__getitem__))


def _settled(ev: Evaluator, start: Array) -> list[tuple[Array, float, int, Array]]:
    """The state of a declared start that iteration loses, if it is still there."""
    from .replica_settle import settled

    found = settled(ev, start)
    return [found] if found is not None and _ordered(ev.problem, found[0]) else []


def _ordered(problem: ReplicaProblem, x: Array) -> bool:
    """Whether some mean does not vanish."""
    return any(abs(v) > 1e-6 for v, kind in zip(x, problem.kinds, strict=True) if kind == "mean")


def _branch(
    problem: ReplicaProblem, ev: Evaluator, coarse: Evaluator, x: Array, residual: float, count: int, slope: Array
) -> ReplicaBranch:
    here = ev.observe(x)
    there = coarse.observe(newton(coarse, x, 6)[0])
    values = {
        k: Number(v, abs(v - there[k]) + residual * (1 + abs(v)) if np.isfinite(v) else 0.0) for k, v in here.items()
    }
    overlaps = [abs(v) for v, kind in zip(x, problem.kinds, strict=True) if kind == "overlap"]
    label = "ordered" if _ordered(problem, x) else "overlap" if max(overlaps, default=0.0) > 1e-6 else "zero"
    radius = max(np.abs(np.linalg.eigvals((slope + np.eye(len(x))) / 2)), default=0.0)
    return ReplicaBranch(
        label, values, values["replicon"].value < 1, bool(radius < 1), residual, count, tuple(map(float, x))
    )


def _numbered(branches: list[ReplicaBranch]) -> list[ReplicaBranch]:
    labels = [b.label for b in branches]
    return [
        replace(b, label=b.label if labels.count(b.label) == 1 else f"{b.label} {labels[: k + 1].count(b.label)}")
        for k, b in enumerate(branches)
    ]


# -- conditions ----------------------------------------------------------------------------------------------------
def crossing(
    problem: ReplicaProblem,
    parameter: Symbol,
    observable: str,
    target: float,
    values: dict[Symbol, float],
    bracket: tuple[float, float],
    start: Mapping[str, float] | None = None,
) -> Number:
    """Where an observable of the main branch, or of the one reached from `start`, takes a value inside a bracket.

    Raises
    ------
    QuenchedError
        Unknown observable, or the observable does not cross the value inside the bracket.
    """

    def gap(p: float) -> float:
        if p not in seen:
            nearest_first = [seen[q] for q in sorted(seen, key=lambda q: abs(q - p))]
            seen[p] = _follow(problem, values | {parameter: p}, nearest_first, start)
        state = seen[p]
        if observable not in state.values:
            raise QuenchedError(f"no observable {observable!r}: choose from {', '.join(state.values)}")
        return state.values[observable].value - target

    seen: dict[float, ReplicaBranch] = {}
    ends = [gap(p) for p in bracket]
    if not ends[0] * ends[1] < 0:
        raise QuenchedError(
            f"{observable} − {target:g} is {ends[0]:.4g} at {parameter}={bracket[0]:g} and {ends[1]:.4g} at "
            f"{parameter}={bracket[1]:g}: give a bracket in which it changes sign"
        )
    found, report = brentq(gap, *bracket, xtol=1e-9, rtol=1e-12, full_output=True)
    if not abs(gap(float(found))) < 1e-4 * (1 + max(map(abs, ends))):
        raise QuenchedError(f"{observable} jumps at {parameter} = {found:g}: the branch is lost there, give start=")
    return Number(float(found), 1e-9 + 1e-8 * abs(float(found)) + (0.0 if report.converged else np.inf))


def _follow(
    problem: ReplicaProblem,
    values: dict[Symbol, float],
    seen: list[ReplicaBranch],
    start: Mapping[str, float] | None = None,
) -> ReplicaBranch:
    """The main branch: all starts for both ends of a bracket, then whichever solution is nearest."""
    if len(seen) >= 2:
        try:
            near = np.array(seen[0].x)
            state = solve_replica(problem, values, near).state
            if state.label == seen[0].label and relative(np.array(state.x) - near, near) < NEAR:
                return state
        except ConvergenceError:
            pass
    guess = None if start is None else from_means(problem, values, start)
    return solve_replica(problem, values, guess).state
