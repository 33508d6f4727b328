"""Saddles in blocks of replicas: overlaps at given sizes of blocks, and the sizes at which Φ is stationary."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import brentq
from sympy import Symbol

from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem_replicas import ReplicaProblem

from .replica import ReplicaSolution, from_means, iterate, newton, solve_replica
from .replica_evaluator import Evaluator
from .types import Array

#: Means and overlaps by name, or the outer and the inner overlaps.
Start = Mapping[str, float] | tuple[float, float]
#: Starting values of the outer and of the inner overlaps.
PAIRS = ((0.3, 0.9), (0.0, 0.8), (0.0, 0.5))


def solve_blocks(
    problem: ReplicaProblem,
    values: dict[Symbol, float],
    sizes: tuple[Symbol, ...],
    bracket: tuple[float, float],
    start: Mapping[str, float] | None = None,
) -> tuple[ReplicaSolution, dict[Symbol, float]]:
    """The saddle at the given sizes, or, where one is left out, at the size at which Φ is stationary.

    Raises
    ------
    ConvergenceError
        No start leads to different overlaps at different levels.
    QuenchedError
        Φ is not stationary in the size inside the bracket, or several sizes are left out.
    """
    open_ = [x for x in sizes if x not in values]
    if len(open_) > 1:
        raise QuenchedError(f"give all sizes of blocks but one, got none for {', '.join(map(str, open_))}")
    if not open_:
        near = _settled(problem, values, start)
        return solve_replica(problem, values, near), dict(values)
    families: tuple[Start, ...] = (start,) if start is not None else PAIRS
    found: list[tuple[float, ReplicaSolution, dict[Symbol, float]]] = []
    for family in families:
        here = _stationary(problem, values, open_[0], bracket, family)
        if here is not None:
            solution = solve_replica(problem, *here)
            found.append((solution.state.values["free_entropy"].value, solution, here[0]))
    if not found:
        raise QuenchedError(f"Φ is not stationary for any {open_[0]} between {bracket[0]:g} and {bracket[1]:g}")
    # with n → 0 the extremum in overlaps of pairs is a minimum of Φ
    _, solution, at = min(found, key=lambda item: round(item[0], 9))
    return solution, at


def _stationary(
    problem: ReplicaProblem, values: dict[Symbol, float], x: Symbol, bracket: tuple[float, float], start: Start
) -> tuple[dict[Symbol, float], Array] | None:
    """(values with the size, saddle) at which the slope of Φ in the size vanishes, from one family of starts."""
    last: list[Array] = []

    def slope(size: float) -> float:
        here = values | {x: size}
        try:
            near = newton(Evaluator(problem, here), last[-1])[0] if last else _settled(problem, here, start)
        except ConvergenceError:
            near = _settled(problem, here, start)
        last.append(near)
        return Evaluator(problem, here).observe(near)[f"slope_{x}"]

    ends: list[tuple[float, float]] = []
    for size in (np.geomspace(*bracket, 13) if problem.cold else np.linspace(*bracket, 9))[::-1]:
        try:
            ends.append((float(size), slope(float(size))))
        except (ConvergenceError, ValueError):
            last.clear()
            continue
        if len(ends) > 1 and ends[-1][1] * ends[-2][1] < 0:
            root = float(brentq(slope, ends[-1][0], ends[-2][0], xtol=1e-10))
            here = values | {x: root}
            return here, newton(Evaluator(problem, here), last[-1])[0]
    return None


def _settled(problem: ReplicaProblem, values: dict[Symbol, float], start: Start | None) -> Array:
    """A saddle with different overlaps at different levels."""
    if isinstance(start, Mapping):
        return newton(Evaluator(problem, values), from_means(problem, values, start))[0]
    names = [s.name for s, _ in problem.equations]
    overlaps = [n for n, k in zip(names, problem.kinds, strict=True) if k == "overlap"]
    failure, alike = ConvergenceError("no overlaps to solve for"), None
    for low, high in PAIRS if start is None else (start,):
        hints = {n: high if n.rsplit("_", 1)[1] != "0" else low for n in overlaps}
        at = {"overlap": 0.0, "mean": 0.0, "norm": 1.0, "response": 0.0, "susceptibility": 0.2}
        x0 = np.array([hints.get(n, at[k]) for n, k in zip(names, problem.kinds, strict=True)])
        ev = Evaluator(problem, values)
        try:
            near = iterate(ev, x0)
            assert near is not None
            x, *_ = newton(ev, near[0])
        except (ConvergenceError, ValueError) as stop:
            failure = stop if isinstance(stop, ConvergenceError) else ConvergenceError(str(stop))
            continue
        own = [v for v, k in zip(x, problem.kinds, strict=True) if k in ("overlap", "susceptibility")]
        if problem.cold or not own or (max(own) > 1e-4 and (len(own) == 1 or np.ptp(own) > 1e-4)):
            return x
        alike = failure = ConvergenceError(
            "replicas of different blocks have the same overlap: their symmetry is not broken"
        )
    failure = alike or failure
    raise ConvergenceError(
        "no saddle with different overlaps between and within blocks was found (where .solve() of the symmetric theory "
        f"is stable there may be none): {failure}",
        failure.residuals,
    )
