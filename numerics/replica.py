"""Replica-symmetric saddles: damped iteration, Newton steps, all branches, and where a condition is met.

Averages over the Gaussian field of a site use the trapezoidal rule (spectrally accurate for smooth sites), or panels
refined towards the kinks of a weight where its width is small. Errors are the change under coarser quadrature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import brentq, root
from sympy import Expr, Symbol

from quenched.theory.errors import ConvergenceError, QuenchedError, nearest
from quenched.theory.problem_replicas import ReplicaProblem

from .replica_evaluator import Evaluator, quick_evaluator
from .replica_iterate import NEAR, iterate, relative
from .replica_slopes import jacobian
from .types import Array, Number

#: Starting values of overlaps; those of means are their roots, of either sign.
STARTS = (0.02, 0.5, 0.95)
#: Starts for measures that only exist near full overlap (low temperatures), tried where the others fail.
FROZEN = (0.999, 0.99999)
#: Responses of local fields that confine states, of other starts.
CONFINED = (0.3, 1.0)
#: Residual of a solution, and change between grids below which no finer one is needed.
TOL, SAME = 1e-11, 1e-7
#: Numbers of nodes with which a costly saddle is refined until nothing changes.
LEVELS = (0.35, 0.5, 0.7, 1.0)


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
    fine : number of nodes, relative to what cheap measures take
    """

    label: str
    values: dict[str, Number]
    stable: bool
    attracting: bool
    residual: float
    iterations: int
    x: tuple[float, ...] = field(repr=False, default=())
    fine: float = 1.0


@dataclass(frozen=True)
class ReplicaSolution:
    """All saddles that were found; `main` is the index of the one that dominates."""

    branches: tuple[ReplicaBranch, ...]
    main: int

    @property
    def state(self) -> ReplicaBranch:
        """The main branch."""
        return self.branches[self.main]


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


def polished(ev: Evaluator, x: Array, slope: Array) -> tuple[Array, float, int]:
    """Steps from a solution of nearby equations with the Jacobian of those: (x, residual, steps)."""
    with suppress(ConvergenceError, ValueError):
        return _chords(ev, x, slope)
    return newton(ev, x)[:3]


def _chords(ev: Evaluator, x: Array, slope: Array, steps: int = 12) -> tuple[Array, float, int]:
    size, unit = np.inf, 1 + np.abs(x)
    scaled = (slope - np.eye(len(x))) * unit / unit[:, None]
    for k in range(steps):
        value = ev.update(x)
        last, size = size, relative(value - x, x)
        if size < TOL or (size < 1e-9 and size > last / 2):
            return x, size, k
        x = x + unit * np.linalg.lstsq(scaled, (x - value) / unit, rcond=None)[0]
    raise ConvergenceError("the Jacobian of nearby equations does not lead to a solution")


def starts(problem: ReplicaProblem, levels: tuple[float, ...] = STARTS) -> Iterator[Array]:
    """Starting points: weak to strong overlaps, means of either sign."""
    for level in levels:
        for sign in (1.0, -1.0) if "mean" in problem.kinds else (1.0,):
            yield np.array([_start(kind, level, sign) for kind in problem.kinds])
    if "mean" in problem.kinds:
        for level in levels[1:]:
            yield np.array([_start(kind, level, 0.0) for kind in problem.kinds])


def _confined(problem: ReplicaProblem) -> list[Array]:
    """Starts for ground states whose own energy does not hold them against a field, which only responses confine."""
    where = np.array([kind == "response" for kind in problem.kinds])
    return [np.where(where, -size, x) for size in CONFINED for x in starts(problem)] if where.any() else []


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
    quick = quick_evaluator(problem, values)
    if quick.fine == 1:
        return _searched(quick, (1.0, 0.7), guess)
    with suppress(ConvergenceError):
        return _searched(quick, LEVELS, guess)
    return _searched(Evaluator(problem, values), (1.0, 0.7), guess)


def _searched(search: Evaluator, levels: tuple[float, ...], guess: Array | None) -> ReplicaSolution:
    """The saddles that a search finds, on grids of these numbers of nodes."""
    problem, values = search.problem, search.base
    grids = [search if level == search.fine else Evaluator(problem, values, level) for level in levels]
    found: list[tuple[Array, float, int, Array]] = []
    failures: list[ConvergenceError] = []
    first = _first(problem) if guess is None else [guess]
    last = [*starts(problem, FROZEN), *_confined(problem)] if guess is None else []
    for k, start in enumerate([*first, *last]):
        if found and k >= len(first):
            break
        if k == 1 and problem.start and not any(_ordered(problem, x) for x, *_ in found):
            found = [*_settled(search, first[0]), *found]
        try:
            reached = (start, 0) if guess is not None else iterate(search, start, known=[x for x, *_ in found])
            if reached is None:
                continue
            near, sweeps = reached
            x, residual, steps, slope = newton(search, near) if guess is None else reach(search, near)
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
    branches = [_branch(problem, grids, x, count, slope) for x, _, count, slope in found]
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


def _branch(problem: ReplicaProblem, grids: list[Evaluator], x: Array, count: int, slope: Array) -> ReplicaBranch:
    """A saddle on one grid after the other, until its numbers no longer change; errors are the last change."""
    seen: list[tuple[float, dict[str, float], Array, float]] = []
    for ev in grids:
        x, residual, more = polished(ev, x, slope)
        seen, count = [*seen[-1:], (ev.fine, ev.observe(x), x, residual)], count + more
        if len(seen) == 2 and _same(seen[1][1], seen[0][1]):
            break
    (_, there, _, _), (fine, here, x, residual) = sorted(seen, key=lambda item: item[0])
    values = {
        k: Number(v, abs(v - there[k]) + residual * (1 + abs(v)) if np.isfinite(v) else 0.0) for k, v in here.items()
    }
    overlaps = [abs(v) for v, kind in zip(x, problem.kinds, strict=True) if kind == "overlap"]
    label = "ordered" if _ordered(problem, x) else "overlap" if max(overlaps, default=0.0) > 1e-6 else "zero"
    radius = max(np.abs(np.linalg.eigvals((slope + np.eye(len(x))) / 2)), default=0.0)
    stable, at = values["replicon"].value < 1, tuple(map(float, x))
    return ReplicaBranch(label, values, stable, bool(radius < 1), residual, count, at, fine)


def _same(here: dict[str, float], there: dict[str, float]) -> bool:
    return all(abs(v - there[k]) < SAME * (1 + abs(v)) for k, v in here.items() if np.isfinite(v))


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
