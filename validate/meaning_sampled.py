"""Meaning of units that are sampled: the statistics of their local fields and their equations, against the process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sympy import Symbol

from quenched.theory.fields import At, Quenched, WhiteNoise
from quenched.theory.naming import unit_name
from quenched.theory.problem import SiteProcess
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.spaces import N
from quenched.validate.meaning import SIZE, Array, Values, evaluate, number, relative
from quenched.validate.meaning_units import delay_in_steps

#: A statistic of the local fields: (kind, names) → array over times.
Statistics = dict[tuple[str, ...], Array]


def sampled_deviation(process: EffectiveProcess, p: SiteProcess, values: Values, rng: np.random.Generator) -> float:
    """Means, covariances and memory of the local fields at three times, and the site equations at random points."""
    values = {**values, N: SIZE}
    values |= {s: rng.uniform(0.1, 0.3) for o in process.operators for s in (o.symbol, o.adjoint)}
    action, times = process.action, 3
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
        kernel = _past(number(rate, values).real, p.clock, len(averages[a.name, b.name]))
        _add(out, ("memory", u.name, c.name), number(coef, values).real * kernel * averages[a.name, b.name])
    return out


def _remembered(
    c: Contribution, process: EffectiveProcess, averages: Mapping[tuple[str, str], Array], values: Values
) -> Array:
    """K(t, s)·⟨a(t) b(s)⟩ of a memory term that a dynamic coupling makes."""
    (kind, _), *_ = c.kernels
    bond = next(b for b in process.action.bonds if kind.endswith(f":{b.name}"))
    first, second = sorted(_atoms(c), key=lambda atom: c.at[atom[1]])
    size = len(averages[first[0], second[0]])
    return _past(number(bond.rate, values).real, process.action.clock, size) * averages[first[0], second[0]]


def _past(rate: float, clock: str, times: int) -> Array:
    """The weight of an earlier step in a bond that forgets at this rate, on steps of length one."""
    lag = np.subtract.outer(np.arange(times), np.arange(times))
    decay = np.exp(rate * lag) if clock == "flow" else np.sign(rate) ** (lag - 1.0) * abs(rate) ** (lag - 1.0)
    return np.where(lag > 0, decay, 0.0)


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
