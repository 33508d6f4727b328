"""Meaning of units in time: rates at random states and times, statistics of fields, slopes by finite differences."""

from __future__ import annotations

from functools import partial

import numpy as np
from sympy import Expr, sympify

from quenched.theory.balance import BalancedEquations
from quenched.theory.causal import TwoTimeEquations
from quenched.theory.causal_copies import CopiesInTime
from quenched.theory.fields import Quenched, WhiteNoise
from quenched.theory.naming import unit_name
from quenched.theory.problem import TwoPoint, U
from quenched.theory.problem_causal import TwoTimeProblem
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.spaces import N, t
from quenched.validate.meaning import SIZE, Array, Values, evaluate, number, relative, slope
from quenched.validate.meaning_gauss import two_point_value
from quenched.validate.meaning_sampled import Statistics, _add, _of_process, _scale

#: Sizes at which the order of a mean's rate in N is told, and a time.
_HUGE = (1e12, 1e14)
_TIMES = 3


def causal_deviation(
    process: EffectiveProcess, model: object, after: TwoTimeEquations, values: Values, rng: np.random.Generator
) -> float:
    """Rates, outputs, statistics of fields and initial values against process and declaration, at random numbers."""
    values = {**values, N: SIZE}
    p, action = after.problem, process.action
    draw = _draw(process, p, rng)
    before = {f.symbol: draw[f.name] for f in action.fields.values()}
    exprs = [e for _, e in action.equations] + [f.definition for f in action.of_role("output") if f.definition]
    before |= {s: draw[unit_name(s)] for e in exprs for s in e.atoms(WhiteNoise, Quenched)}
    clock = {**values, t: draw["t"]}
    rhs, worst, seen = dict(action.equations), 0.0, set()
    for unit in p.units:
        labels = {q.symbol: draw[q.symbol.name] for q in unit.labels if q.symbol.name in draw}
        for i, state in enumerate(unit.states):
            seen.add(state)
            rate = evaluate(unit.drive[i], {**clock, **labels}) + np.zeros(_TIMES)
            for names, block in ((unit.states, unit.drift), (unit.fields, unit.feed), (unit.noises, unit.noise)):
                for name, e in zip(names, block[i], strict=True):
                    rate = rate + evaluate(e, {**clock, **labels}) * draw[name]
            worst = max(worst, relative(rate, evaluate(rhs[state], {**clock, **before})))
    for out in p.outputs:
        seen.add(out.name)
        unit = p.units[out.unit]
        labels = {q.symbol: draw[q.symbol.name] for q in unit.labels if q.symbol.name in draw}
        argument = sum(number(w, values).real * draw[s] for w, s in zip(out.weights, unit.states, strict=True))
        found = evaluate(out.function.expr, {**values, **labels, U: argument})
        worst = max(worst, relative(found, evaluate(action.fields[out.name].definition, {**values, **before})))
    every = {f.name for f in action.fields.values() if f.role in ("state", "output")}
    same = seen == every and (p.clock == "map") == (action.clock == "map")
    return max(worst, _statistics(process, p, values, rng), _starts(model, p, values)) if same else float("inf")


def _draw(process: EffectiveProcess, p: TwoTimeProblem, rng: np.random.Generator) -> dict[str, Array]:
    action = process.action
    names = {f.name for f in action.fields.values()} | {q.symbol.name for u in p.units for q in u.labels}
    names |= {x for u in p.units for x in u.noises}
    exprs = [e for _, e in action.equations] + [f.definition for f in action.of_role("output") if f.definition]
    names |= {unit_name(s) for e in exprs for s in e.atoms(WhiteNoise, Quenched)}
    return {name: rng.normal(size=_TIMES) for name in sorted(names)} | {"t": rng.uniform(0.3, 1.7, size=_TIMES)}


def _statistics(process: EffectiveProcess, p: TwoTimeProblem, values: Values, rng: np.random.Generator) -> float:
    """Means and covariances of the local fields at three times, for random averages of the outputs."""
    outputs = [o.name for o in p.outputs]
    means = {a: rng.normal(size=_TIMES) for a in outputs}
    averages = {(a, b): rng.normal(size=(_TIMES, _TIMES)) for a in outputs for b in outputs if a <= b}
    averages |= {(b, a): m.T for (a, b), m in averages.items() if a != b}
    averages |= {(a, a): averages[a, a] + averages[a, a].T for a in outputs}
    exact = _of_process(process, means, averages, {}, values)
    found: Statistics = {}
    for s in p.pairs:
        value = number(s.coefficient, values).real * averages[outputs[s.a], outputs[s.b]]
        _add(found, ("covariance", s.first, s.second), value)
        if s.first != s.second:
            _add(found, ("covariance", s.second, s.first), value.T)
    for m in p.means:
        _add(found, ("mean", m.field), np.diag(number(m.coefficient, values).real * means[outputs[m.output]]))
    zero = np.zeros((_TIMES, _TIMES))
    keys = sorted(set(found) | set(exact))
    return max((relative(found.get(k, zero), exact.get(k, zero), _scale(exact)) for k in keys), default=0.0)


def _starts(model: object, p: TwoTimeProblem, values: Values) -> float:
    """Mean and variance of the declared initial law of every state, the labels averaged."""
    from quenched.theory.distributions import Law
    from quenched.theory.naming import field_names

    worst = 0.0
    for fld, name in field_names(model).items():  # type: ignore[arg-type]
        unit = next(u for u in p.units if name in u.states)
        mean, variance = unit.start[unit.states.index(name)]
        laws = {q.symbol: q.law for q in unit.labels}
        initial = fld.initial
        if initial is None:
            exact = (0.0, 1.0)
        elif isinstance(initial, Law):
            exact = (number(initial.mean_(), values).real, number(initial.variance_(), values).real)
        else:
            continue  # an expression: what it is at the labels is the mean itself
        spread = sum((mean.diff(q) ** 2 * laws[q].variance_() for q in mean.free_symbols & set(laws)), sympify(0))  # type: ignore[attr-defined]
        centre = mean.xreplace({q: laws[q].mean_() for q in mean.free_symbols & set(laws)})  # type: ignore[attr-defined]
        found = (number(centre, values).real, number(variance + spread, values).real)
        worst = max(worst, relative(np.array(found), np.array(exact), 1.0))
    return worst


def copies_in_time_deviation(
    before: TwoTimeEquations, after: CopiesInTime, values: Values, rng: np.random.Generator
) -> float:
    """Slopes of the fields' covariances against finite differences of quadratures in the arguments' covariance."""
    p = before.problem
    values = {**values, N: SIZE}
    values = {**values, **{q.symbol: float(rng.uniform(0.5, 0.9)) for u in p.units for q in u.labels}}
    if len(after.slopes) != len(p.pairs):
        return float("inf")
    worst = 0.0
    for source, found in zip(p.pairs, after.slopes, strict=True):
        f, g = p.outputs[source.a].function, p.outputs[source.b].function
        m = (float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.4, 0.4)))
        v = (float(rng.uniform(0.6, 1.0)), float(rng.uniform(0.6, 1.0)))
        exact = slope(partial(_at_covariance, TwoPoint(f, 0, g, 1), m, v, values), 0.3, 0.01).real
        level = two_point_value(TwoPoint(found.f, 0, found.g, 1), m, (*v, 0.3), values)
        k, k0 = number(found.coefficient, values).real, number(source.coefficient, values).real
        worst = max(worst, relative(k * level, k0 * exact))
        same = (found.first, found.second, found.a, found.b) == (source.first, source.second, source.a, source.b)
        worst = worst if same else float("inf")
    return worst


def _at_covariance(
    point: TwoPoint, means: tuple[float, float], variances: tuple[float, float], values: Values, c: float
) -> float:
    return two_point_value(point, means, (*variances, c), values)


def balance_deviation(
    before: TwoTimeEquations, after: BalancedEquations, values: Values, rng: np.random.Generator
) -> float:
    """Rates of the means at huge N, at random averages: the constraint, and what is left beside √N times it."""
    psi = rng.normal(size=len(before.problem.outputs))
    draw = {q.symbol: float(rng.normal()) for u in before.problem.units for q in u.labels}
    at = {**values, **draw, t: float(rng.uniform(0.3, 1.7))}
    worst = 0.0
    constraints = {(c.unit, c.state): c for c in after.problem.constraints}
    for u, unit in enumerate(before.problem.units):
        for i in range(len(unit.states)):
            small, large = (_mean_rate(before.problem, u, i, psi, {**at, N: size}) for size in _HUGE)
            roots = [size**0.5 for size in _HUGE]
            lead = (large - small) / (roots[1] - roots[0])
            c = constraints.get((u, i))
            found = 0.0 if c is None else number(c.inflow, at).real
            found += 0.0 if c is None else sum(number(k, at).real * psi[o] for k, o in c.terms)
            worst = max(worst, relative(found, lead, 1.0))
            rest = _mean_rate(after.problem, u, i, psi, at)
            exact = _mean_rate(before.problem, u, i, psi, {**at, N: 1.0}) - _strong(before.problem, u, i, psi, at)
            worst = max(worst, relative(rest, exact, 1.0))
    return max(worst, _unchanged(before.problem, after.problem, at))


def _mean_rate(p: TwoTimeProblem, u: int, i: int, psi: Array, at: Values) -> float:
    """The part of the rate of a mean that does not come from the states."""
    unit = p.units[u]
    total = number(unit.drive[i], at).real
    for h, gain in zip(unit.fields, unit.feed[i], strict=True):
        total += sum(number(gain * s.coefficient, at).real * psi[s.output] for s in p.means if s.field == h)
    return float(total)


def _strong(p: TwoTimeProblem, u: int, i: int, psi: Array, at: Values) -> float:
    """The coefficient of √N: by how much a rate changes from N = 1 to 4, where no other power occurs."""
    rates = [_mean_rate(p, u, i, psi, {**at, N: size}) for size in (1.0, 4.0)]
    return rates[1] - rates[0]


def _unchanged(before: TwoTimeProblem, after: TwoTimeProblem, at: Values) -> float:
    """Largest difference of everything that N does not enter."""
    at = {**at, N: SIZE}
    worst = 0.0
    for a, b in zip(before.units, after.units, strict=True):
        for kind in ("drift", "feed", "noise", "start"):
            for x, y in zip(_flat(getattr(a, kind)), _flat(getattr(b, kind)), strict=True):
                worst = max(worst, relative(number(y, at).real, number(x, at).real, 1.0))
    for s, r in zip(before.pairs, after.pairs, strict=True):
        worst = max(worst, relative(number(r.coefficient, at).real, number(s.coefficient, at).real, 1.0))
    for o, q in zip(before.outputs, after.outputs, strict=True):
        for x, y in zip(o.weights, q.weights, strict=True):
            worst = max(worst, relative(number(y, at).real, number(x, at).real, 1.0))
    return worst


def _flat(block: tuple[tuple[Expr, ...], ...]) -> list[Expr]:
    return [e for row in block for e in row]


__all__ = ["balance_deviation", "causal_deviation", "copies_in_time_deviation"]
