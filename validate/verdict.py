"""The rule that turns runs and a theory into a verdict.

1. Runs at three or more sizes with equal numbers R of realisations become R vectors a_k = Σ_N w_N O_{N,k} with fixed
   weights: the extrapolation to N → ∞ under the declared law a + b/N^p.
2. If that law does not fit, or the smallest size moves the intercept, the verdict is *inconclusive (not asymptotic)*.
3. Hotelling's T² on a_k − theory, in fixed blocks of at most R/4 components, rejects or does not.
4. A theory that is not rejected *agrees* only if an error of 5 % (quick) or 2 % (full) in any observable would have
   been rejected with probability 99 %, and if some estimator does not itself use the theory.
5. Each observable also gets the verdict that it would have alone (`outcomes`); the joint one needs all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import ArrayLike

from quenched.theory.errors import QuenchedError
from quenched.validate import statistics as st
from quenched.validate.agreement import (
    Agreement,
    Array,
    Component,
    Curve,
    Independence,
    Point,
    Row,
    Verdict,
    with_error,
)
from quenched.validate.cases import RESOLUTION, Case, Data, Observable, Options, prepare, sampled
from quenched.validate.outcomes import Whole, percent, those_that_agree, with_outcomes


def judge(
    samples: Mapping[int, Mapping[str, ArrayLike]],
    theory: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    quick: bool = False,
    ci: bool = False,
    look: int = 1,
    looks: int = 1,
    resolution: float = RESOLUTION,
    **case: Any,
) -> Agreement:
    """Compare runs with a theory at one parameter point.

    Parameters
    ----------
    samples, theory
        See `Case`.
    quick, ci : bool
        Target 5 % instead of 2 %; level 10⁻⁶ instead of 10⁻³.
    look, looks : int
        This is look `look` of `looks` planned ones (at most 5), which share the level.
    resolution : float
        Relative error of the simulation that no realisations remove.
    **case
        ``parameters, powers, estimators, scales, lags, select, time_step, uncovered, doubts, unreliable`` of `Case`.

    Raises
    ------
    QuenchedError
        Fewer than three sizes, unequal numbers of realisations, shapes that do not match, values that are not finite.
    """
    return judge_points([Case(samples, theory, **case)], Options(quick, ci, look, looks, resolution))


def judge_points(cases: Sequence[Case], options: Options | None = None) -> Agreement:
    """One joint verdict over several parameter points; the level is shared by all their tests (Bonferroni)."""
    options = options or Options()
    if not cases:
        raise QuenchedError("judge_points: at least one parameter point is needed")
    data = [prepare(case, options) for case in cases]
    level = options.level / sum(len(d.blocks) for d in data)
    points = tuple(_point(case, d, level) for case, d in zip(cases, data, strict=True))
    p_value = float(st.joint_p([p for point in points for p in point.block_p]))
    verdict, reason = _decide(cases, points, p_value, options)
    whole = Whole(verdict, p_value, _unreliable(cases) or "; ".join(_doubts(cases)), _outside(cases, points))
    points = with_outcomes(points, whole, options)
    if verdict == "inconclusive" and (alone := those_that_agree(points)):
        reason += f"; alone agree: {', '.join(alone)}"
    reason = "; ".join([reason, *sorted({told for case in cases for told in case.conditions})])
    return Agreement(verdict, reason, points, p_value, options.level, options.target, options.look, options.looks)


# -- the rule ----------------------------------------------------------------------------------------------------------
def _decide(cases: Sequence[Case], points: Sequence[Point], p: float, options: Options) -> tuple[Verdict, str]:
    for outcome in (_unreliable(cases), _out_of_range(cases, points), _not_asymptotic(points)):
        if outcome:
            return "inconclusive", outcome
    if p < options.level:
        return "disagree", f"rejected (p = {p:.2g} < {options.level:.2g}): {_culprit(points, options.level)}"
    kept = f"not rejected (p = {p:.2g})"
    for outcome in (
        _not_covered(cases),
        _doubtful(cases),
        _too_coarse(points, options.target),
        _only_consistent(points),
    ):
        if outcome:
            return "inconclusive", outcome.replace("{kept}", kept)
    row = max((r for point in points for r in point.rows), key=lambda r: r.detectable)
    caught = f"an error of {percent(row.detectable)} in {row.name} would have been caught with 99 % probability"
    return "agree", f"{kept}; {caught}"


def _out_of_range(cases: Sequence[Case], points: Sequence[Point]) -> str | None:
    for case, point in zip(cases, points, strict=True):
        for row in point.rows:
            low, high = _range(case, row)
            if not _in_range(case, row):
                return (
                    f"outside the range of an estimator: {row.name} holds for {low} ≤ N ≤ {high:g}, sizes {row.sizes}"
                )
    return None


def _outside(cases: Sequence[Case], points: Sequence[Point]) -> frozenset[str]:
    """Observables whose estimators are used outside their range at some point."""
    return frozenset(
        row.name for case, point in zip(cases, points, strict=True) for row in point.rows if not _in_range(case, row)
    )


def _in_range(case: Case, row: Row) -> bool:
    low, high = _range(case, row)
    return low <= row.sizes[0] and row.sizes[-1] <= high


def _range(case: Case, row: Row) -> tuple[float, float]:
    estimator = case.estimators.get(row.name)
    return getattr(estimator, "min_N", 1), getattr(estimator, "max_N", np.inf)


def _not_asymptotic(points: Sequence[Point]) -> str | None:
    rows = [(point, row) for point in points for row in point.rows]
    tested = sum(len(row.components) for _, row in rows)
    for point, row in rows:
        c = min(row.components, key=lambda c: c.shift_p)
        if c.shift_p * tested < st.THREE_SIGMA:
            sizes = ", ".join(map(str, row.sizes))
            return (
                f"not asymptotic: {_place(point, row, c)} does not follow {row.law} at N = {sizes}"
                f" (the smallest N moves the intercept by {c.shift:+.1f} s.e.); use larger N"
            )
    return None


def _culprit(points: Sequence[Point], level: float) -> str:
    """Max-t: the number that deviates most, and whether it alone would have been rejected."""
    parts = [(point, row, c) for point in points for row in point.rows for c in row.components]
    point, row, c = min(parts, key=lambda part: part[2].p_value)
    alone = float(st.max_t_p_value(c.p_value, len(parts)))
    told = "" if alone < level else f"no number alone (max-t p = {alone:.2g}) but their combination; most "
    simulation = with_error(c.simulation, c.standard_error)
    told += f"{_place(point, row, c)}: theory {c.theory:.6g}, simulation {simulation} ({c.t:+.1f} s.e.)"
    correction = abs(c.slope) / row.sizes[-1] ** row.power
    if correction > abs(c.simulation - c.theory):
        told += f"; its finite-size term is still {correction:.2g} at N = {row.sizes[-1]}: larger N would tell more"
    return told


def _unreliable(cases: Sequence[Case]) -> str | None:
    return "; ".join(sorted({doubt for case in cases for doubt in case.unreliable})) or None


def _doubtful(cases: Sequence[Case]) -> str | None:
    doubts = _doubts(cases)
    return f"{'; '.join(doubts)}; the numbers are {{kept}}" if doubts else None


def _doubts(cases: Sequence[Case]) -> list[str]:
    return sorted({doubt for case in cases for doubt in case.doubts})


def _not_covered(cases: Sequence[Case]) -> str | None:
    missing = sorted({name for case in cases for name in case.uncovered})
    return f"not covered by the theory: {', '.join(missing)}; the rest is {{kept}}" if missing else None


def _too_coarse(points: Sequence[Point], target: float) -> str | None:
    row = max((r for point in points for r in point.rows), key=lambda r: r.detectable)
    if row.detectable <= target:
        return None
    if not np.isfinite(row.detectable):
        return (
            f"{{kept}}, but the theory of {row.name} is zero and has no declared scale: relative errors are undefined"
        )
    resolved = f"only errors above {percent(row.detectable)} in {row.name} would have been caught"
    return f"{{kept}}, but {resolved} (target {percent(target)})"


def _only_consistent(points: Sequence[Point]) -> str | None:
    if all(row.independence == "theory" for point in points for row in point.rows):
        return "consistent: {kept}, but every estimator uses the theory that it tests"
    return None


def _place(point: Point, row: Row, c: Component) -> str:
    lag = f"({c.lag:g})" if c.lag is not None else ""
    return f"{row.name}{lag}" + (f" at {point.label}" if point.parameters else "")


# -- from tests to the record ------------------------------------------------------------------------------------------
def _point(case: Case, data: Data, level: float) -> Point:
    R, d = data.a.shape
    shifts = np.empty(d)
    for s in data.blocks:
        shifts[s] = st.detectable_shift(level, R, s.stop - s.start)
    rows, start = [], 0
    for o in data.observables:
        stop = start + len(o.select)
        rows.append(_row(case, o, data.a[:, start:stop], shifts[start:stop]))
        start = stop
    names = [o.name for o in data.observables]
    unjudged = sorted({*case.theory, *sampled(case)} - set(names))
    guarded, plain = (st.block_p_values(data.a, data.theory, data.extra, guarded=g) for g in (True, False))
    return Point(
        parameters=dict(case.parameters),
        sizes=data.sizes,
        realisations=R,
        rows=tuple(rows),
        block_p=tuple(map(float, guarded)),
        block_p_gaussian=tuple(map(float, plain)),
        unjudged=tuple(unjudged),
    )


def _row(case: Case, o: Observable, a: Array, shifts: Array) -> Row:
    estimator = case.estimators.get(o.name)
    pick = list(o.select)
    theory, extra = o.theory[pick], o.extra[pick]
    return Row(
        name=o.name,
        components=_components(o, a, shifts),
        curve=_curve(o),
        p_value=float(st.joint_p(st.block_p_values(a, theory, extra))),
        power=o.law.power,
        power_reason=o.reason,
        second_power=o.law.second,
        independence=_independence(o.name, estimator),
        bias=str(getattr(estimator, "bias", "")),
        scale=o.scale,
        scale_reason=o.scale_reason,
        time_step=o.time_step,
    )


def _components(o: Observable, a: Array, shifts: Array) -> tuple[Component, ...]:
    R, pick = a.shape[0], list(o.select)
    theory, extra = o.theory[pick], o.extra[pick]
    spread = a.std(axis=0, ddof=1)
    t = st.standardised(a, theory, extra)
    slope = st.slopes(o.runs[..., pick], o.law)
    shift, shift_p = st.asymptotics(o.runs[..., pick], o.law, np.full(len(pick), o.resolution))
    columns = {
        "theory": theory,
        "theory_error": o.error[pick],
        "simulation": a.mean(axis=0),
        "standard_error": spread / np.sqrt(R),
        "spread": spread,
        "extra": extra,
        "slope": slope.mean(axis=0),
        "slope_error": slope.std(axis=0, ddof=1) / np.sqrt(R),
        "t": t,
        "p_value": st.t2_p_values(t**2, R, 1),
        "shift": shift,
        "shift_p": shift_p,
        "detectable": shifts * np.sqrt(spread**2 / R + extra**2),
    }
    lags = [None] * len(pick) if o.theory.size == 1 else [float(i if o.lags is None else o.lags[i]) for i in pick]
    return tuple(
        Component(lag=lags[i], **{name: float(values[i]) for name, values in columns.items()}) for i in range(len(pick))
    )


def _curve(o: Observable) -> Curve:
    R = o.runs.shape[0]
    a = st.extrapolated(o.runs, o.law)
    lags = None if o.theory.size == 1 else (np.arange(o.theory.size, dtype=float) if o.lags is None else o.lags)
    return Curve(
        lags=lags,
        theory=o.theory,
        theory_error=o.error,
        sizes=tuple(int(n) for n in o.law.sizes),
        means=o.runs.mean(axis=0),
        errors=o.runs.std(axis=0, ddof=1) / np.sqrt(R),
        intercept=a.mean(axis=0),
        intercept_error=a.std(axis=0, ddof=1) / np.sqrt(R),
    )


def _independence(name: str, estimator: Any) -> Independence:
    value = getattr(estimator, "assumes", None) or getattr(estimator, "independence", None) or "declaration"
    if value not in get_args(Independence):
        raise QuenchedError(f"{name}: an estimator assumes one of {get_args(Independence)}, got {value!r}")
    return cast(Independence, value)
