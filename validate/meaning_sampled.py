"""Meaning of units that are sampled: the statistics of their local fields and their equations, against the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sympy import Symbol

from quenched.theory.distributions import Law, Normal
from quenched.theory.fields import At, Quenched, WhiteNoise
from quenched.theory.naming import unit_name
from quenched.theory.problem import CORRELATED, SiteProcess
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.spaces import N, t
from quenched.validate.meaning import SIZE, Array, Values, evaluate, number, relative
from quenched.validate.meaning_action import kernel_table
from quenched.validate.meaning_units import delay_in_steps

#: Times at which the local fields are compared, on both sides of any switch that comes between them.
TIMES = np.array([0.2, 0.6, 1.5])
#: A statistic of the local fields: (kind, names) → array over times.
Statistics = dict[tuple[str, ...], Array]


def sampled_deviation(process: EffectiveProcess, p: SiteProcess, values: Values, rng: np.random.Generator) -> float:
    """Means, covariances and memory of the local fields at three times, and the site equations at random points."""
    values = {**values, N: SIZE}
    values |= {s: rng.uniform(0.1, 0.3) for o in process.operators for s in (o.symbol, o.adjoint)}
    action, times = process.action, len(TIMES)
    outputs = [f.name for f in action.of_role("output")]
    locals_ = [f.name for f in action.of_role("local")]
    means = {a: rng.normal(size=times) for a in outputs}
    averages = {(a, b): rng.normal(size=(times, times)) for a in outputs for b in outputs if a <= b}
    averages |= {(b, a): m.T for (a, b), m in averages.items() if a != b}
    averages |= {(a, a): averages[a, a] + averages[a, a].T for a in outputs}
    responses = {(a, h): rng.normal(size=(times, times)) for a in outputs for h in locals_}
    exact = _of_process(process, means, averages, responses, values)
    found = _of_problem(p, means, averages, responses, values)
    zero = np.zeros((times, times))
    worst = [
        relative(found.get(key, 0 * exact.get(key, zero)), exact.get(key, 0 * found.get(key, zero)), _scale(exact))
        for key in sorted(set(found) | set(exact))
    ]
    same = {(o.symbol, o.adjoint, o.output, o.field) for o in process.operators} == {
        (o.symbol, o.adjoint, o.output, o.field) for o in p.operators
    }
    return max(*worst, _equations_deviation(process, p, values, rng)) if same else float("inf")


def _scale(statistics: Statistics) -> float:
    return max((float(np.abs(v).max()) for v in statistics.values()), default=1.0)


def _add(table: Statistics, key: tuple[str, ...], value: Array) -> None:
    table[key] = table.get(key, np.zeros_like(value)) + value


def _of_process(
    process: EffectiveProcess,
    means: Mapping[str, Array],
    averages: Mapping[tuple[str, str], Array],
    responses: Mapping[tuple[str, str], Array],
    values: Values,
) -> Statistics:
    fields = process.action.fields
    out: Statistics = {}
    for (u, v), parts in process.covariance.items():
        for c in parts:
            (a, s1), (b, _) = _atoms(c)
            order = (a, b) if c.at[s1] == 0 else (b, a)
            value = number(c.coef, values).real * averages[order]
            _add(out, ("covariance", u, v), value)
            if u != v:
                _add(out, ("covariance", v, u), value.T)
    for u, parts in process.mean.items():
        for c in parts:
            _add(out, ("mean", u), np.diag(number(c.coef, values).real * means[_atoms(c)[0][0]]))
    for u, parts in process.memory.items():
        for c in parts:
            if c.op is None:
                _add(out, ("filter", u, c.output), np.full(1, number(c.coef, values).real))
                continue
            if c.kernels:
                value = number(c.coef, values).real * _remembered(c, process, averages, values)
                _add(out, ("memory", u, c.output), value)
                continue
            hat = next(a for a, _ in _atoms(c) if fields[a].role == "hat").removeprefix("hat_")
            psi = next(a for a, _ in _atoms(c) if fields[a].role != "hat")
            _add(out, ("memory", u, c.output), number(c.coef, values).real * responses[psi, hat])
    return out


def _of_problem(
    p: SiteProcess,
    means: Mapping[str, Array],
    averages: Mapping[tuple[str, str], Array],
    responses: Mapping[tuple[str, str], Array],
    values: Values,
) -> Statistics:
    out: Statistics = {}
    for u, v, coef, a, b in p.covariance:
        value = number(coef, values).real * averages[a.name, b.name]
        _add(out, ("covariance", u.name, v.name), value)
        if u != v:
            _add(out, ("covariance", v.name, u.name), value.T)
    for u, coef, a in p.means:
        _add(out, ("mean", u.name), np.diag(number(coef, values).real * means[a.name]))
    for u, coef, a, v, b in p.memory:
        _add(out, ("memory", u.name, b.name), number(coef, values).real * responses[a.name, v.name])
    for u, coef, b in p.filters:
        _add(out, ("filter", u.name, b.name), np.full(1, number(coef, values).real))
    for u, coef, rate, a, b, c in p.bonds:
        kernel = kernel_table(rate, coef, values, p.clock, TIMES)
        _add(out, ("memory", u.name, c.name), kernel * averages[a.name, b.name])
    return out


def _remembered(
    c: Contribution, process: EffectiveProcess, averages: Mapping[tuple[str, str], Array], values: Values
) -> Array:
    """K(t, s)·⟨a(t) b(s)⟩ of a memory term that a dynamic coupling makes."""
    (kind, _), *_ = c.kernels
    memory = next(m for m in process.action.memories if kind.endswith(f":{m.name}"))  # type: ignore[attr-defined]
    first, second = sorted(_atoms(c), key=lambda atom: c.at[atom[1]])
    kernel = kernel_table(memory.rate, memory.factor, values, process.action.clock, TIMES)
    return kernel * averages[first[0], second[0]]


def _atoms(c: Contribution) -> tuple[tuple[str, int], ...]:
    assert c.op is not None
    return c.op.atoms


def _equations_deviation(process: EffectiveProcess, p: SiteProcess, values: Values, rng: np.random.Generator) -> float:
    """Right-hand sides and outputs at random fields, by name."""
    action = process.action
    exprs = [e for _, e in action.equations] + [f.definition for f in action.of_role("output") if f.definition]
    loose = {s for e in exprs for s in e.atoms(WhiteNoise, Quenched)}
    names = {unit_name(s) for s in loose} | {f.name for f in action.fields.values()}
    draw = {name: rng.normal(size=3) for name in sorted(names)}
    before = {f.symbol: draw[f.name] for f in action.fields.values()} | {s: draw[unit_name(s)] for s in loose}
    parts = {a for e in exprs for a in e.atoms(At)}
    past = {(unit_name(a.field), delay_in_steps(a, action, values)): rng.normal(size=3) for a in sorted(parts, key=str)}
    before |= {a: past[unit_name(a.field), delay_in_steps(a, action, values)] for a in parts}
    values = {**values, t: float(TIMES[1])}
    worst, seen = 0.0, set()
    rhs = dict(action.equations)
    for unit in p.units:
        inside = {*unit.states, *unit.fields, *unit.noises, *(label.symbol for label in unit.labels)}
        after: dict[Symbol, Array] = {s: draw[s.name] for s in inside}
        for s, x, delay in unit.earlier:
            known = [
                v for (name, d), v in past.items() if name == x.name and abs(d - number(delay, values).real) < 1e-9
            ]
            after[s] = known[0] if known else np.full(3, np.nan)
        for state, start in zip(unit.states, unit.starts, strict=True):
            worst = max(worst, _start_deviation(action.fields[state.name].symbol.initial, start, draw, values))
        for state, expr in zip(unit.states, unit.rhs, strict=True):
            seen.add(state.name)
            exact = evaluate(rhs[state.name], {**values, **before})
            worst = max(worst, relative(evaluate(expr, {**values, **after}), exact))
        for symbol, expr in unit.outputs:
            seen.add(symbol.name)
            definition = action.fields[symbol.name].definition
            exact = evaluate(definition, {**values, **before})
            worst = max(worst, relative(evaluate(expr, {**values, **after}), exact))
    every = {f.name for f in action.fields.values() if f.role in ("state", "output")}
    clocks = (p.clock == "map") == (action.clock == "map")
    return worst if seen == every and clocks else float("inf")


def _start_deviation(declared: Any, start: Any, draw: Mapping[str, Array], values: Values) -> float:
    """Mean and second moment of a start, given the unit's quenched numbers."""
    if start == CORRELATED:
        return 0.0 if declared is not None and not isinstance(declared, Law) else float("inf")
    exact = _moments(Normal(0, 1) if declared is None else declared, draw, values)
    return max(relative(a, b) for a, b in zip(_moments(start, draw, values), exact, strict=True))


def _moments(start: Any, draw: Mapping[str, Array], values: Values) -> tuple[Any, Any]:
    if isinstance(start, Law):
        mean = number(start.mean_(), values).real
        return mean, number(start.variance_(), values).real + mean**2
    named = {s: draw[unit_name(s) if isinstance(s, Quenched) else s.name] for s in start.free_symbols if s.name in draw}
    value = evaluate(start, {**values, **named})
    return value, np.asarray(value) ** 2
