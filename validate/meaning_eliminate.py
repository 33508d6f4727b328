"""Meanings of Fourier modes of a dynamics, and of what linear populations return to the others.

Modes: the declared rates at a few explicit sites, once with the entries of the translation-invariant matrices and once
with a discrete Fourier transform of everything that lives in their space. Elimination: the linear equations of a unit
solved as numbers, for every value of its labels on a grid, at values of the operators in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from sympy import Basic, Expr, I, Rational, Symbol

from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Apply, Row, Transpose
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched, UnitSymbol, unbind
from quenched.theory.lower import CopiedAction
from quenched.theory.model import Model
from quenched.theory.naming import unit_name
from quenched.theory.observables import Mean
from quenched.theory.problem import DS, DT
from quenched.theory.problem_points import PointProblem
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.spaces import ANGLE, N, Population, t
from quenched.validate.meaning import SIZE, Array, Values, evaluate, number, relative
from quenched.validate.meaning_units import numeric_unit

#: Values of a label on a circle; the average of a smooth function converges exponentially.
NODES = 64


# --------------------------------------------------------------------------------------------------------------- modes
def modes_deviation(before: Model, after: Model, values: Values, rng: np.random.Generator) -> float:
    """Declared rates of the units outside the modes' space, entry by entry and in Fourier modes."""
    sites = {p: 5 + k for k, p in enumerate(sorted(before.populations, key=lambda p: p.name))}
    matrices = {m: rng.normal(size=(sites[m.rows], sites[m.cols])) for m in before.matrices}
    moved = {m.rows for m in before.matrices if isinstance(m, Circulant)}
    for m in list(matrices):
        if isinstance(m, Circulant):
            matrices[m] = _entries(m, sites[m.rows], values)
    numbers: dict[Basic, Any] = {
        q: rng.normal(size=sites[q.population])
        for rhs in before.eqs.values()
        for q in sorted((a.free() for a in rhs.atoms(UnitSymbol)), key=str)
    }
    waves = {p: np.fft.fft(np.eye(sites[p]), norm="ortho") for p in moved}
    turned = {m: waves[m.rows] @ a if m.rows in moved else a for m, a in matrices.items()}
    turned = {m: a @ waves[m.cols].conj().T if m.cols in moved else a for m, a in turned.items()}
    angles = {
        q: 2 * np.pi * np.arange(sites[q.population]) / sites[q.population]
        for q in after.quenched
        if q not in before.quenched
    }
    worst = [0.0]
    for x in before.eqs:
        one = _rate(before.eqs[x], x.population, matrices, {**values, **numbers})
        two = _rate(after.eqs[x], x.population, turned, {**values, **numbers, **angles})
        worst.append(relative(two, one))
    return max(worst)


def real_twins(model: Model, action: CopiedAction) -> tuple[Model, CopiedAction]:
    """Declaration and action with a real number in place of i: no step of algebra may know that i² = −1."""
    if not any(rhs.has(I) for rhs in model.eqs.values()):
        return model, action
    swap = {I: Rational(7, 10)}
    twin = copy(model)
    twin.eqs = {x: rhs.xreplace(swap) for x, rhs in model.eqs.items()}
    twin._collect()
    fields = {
        n: replace(f, definition=f.definition.xreplace(swap)) if f.definition is not None else f
        for n, f in action.fields.items()
    }
    equations = tuple((n, rhs.xreplace(swap)) for n, rhs in action.equations)
    return twin, replace(action, fields=fields, equations=equations)


def members_deviation(before: Model, after: Model, values: Values, rng: np.random.Generator) -> float:
    """Declared rates at a few explicit units, with matrices and with the quenched numbers that their rows become."""
    count = 12
    sites = {p: round(number(p.count, {**values, N: count}).real) for p in before.populations}
    if any(abs(number(p.count, {**values, N: count}) - k) > 1e-9 for p, k in sites.items()):
        sites = {p: k for p, k in sites.items() if not p.extensive or p.fraction == 1}
    if len(sites) < len(before.populations):
        raise NotCovered("populations of a fraction that is no number: not compared")
    scale = count**0.5
    matrices = {m: rng.normal(size=(sites[m.rows], sites[m.cols])) for m in before.matrices}
    matrices |= {m: _entries(m, sites[m.rows], values) for m in matrices if isinstance(m, Circulant)}
    found = {f"{m.name}_{k}": row * scale for m, a in matrices.items() for k, row in enumerate(a)}
    found |= {f"{m.name}.{k}": col for m, a in matrices.items() for k, col in enumerate(a.T)}
    numbers: dict[Basic, Any] = {**values, N: float(count), t: 0.7}
    units = {q.free() for x, rhs in before.eqs.items() for e in (x, rhs) for q in e.atoms(UnitSymbol)}
    numbers |= {
        q: found[q.name] if isinstance(q, Row) else rng.normal(size=sites[q.population]) for q in sorted(units, key=str)
    }
    twins = dict(zip(after.eqs, before.eqs, strict=True))
    numbers |= {x: numbers[y] for x, y in twins.items()}
    numbers |= {q: found[q.name] for q in after.quenched if q not in before.quenched}
    worst = [0.0]
    for x, rhs in after.eqs.items():
        one = _rate(before.eqs[twins[x]], x.population, matrices, numbers)
        worst.append(relative(_rate(rhs, x.population, matrices, numbers), one))
        start = (twins[x].initial, x.initial)
        if isinstance(start[0], Row):
            worst.append(relative(numbers[start[1]], found[start[0].name]))
    return max(worst)


def paths_deviation(
    process: EffectiveProcess, model: Model, problem: PointProblem, values: Values, rng: np.random.Generator
) -> float:
    """Averages and right-hand sides at random states and labels of a few units, and their starts."""
    action, size = process.action, 6
    exprs = [rhs for _, rhs in action.equations] + [f.definition for f in action.of_role("output") if f.definition]
    exprs += [s.symbol.initial for s in action.of_role("state") if isinstance(s.symbol.initial, Expr)]
    quenched = {q for e in exprs for q in e.atoms(Quenched)}
    before: dict[Basic, Any] = {**values, t: 0.7, **{q: rng.normal(size=size) for q in sorted(quenched, key=str)}}
    before |= {f.symbol: rng.normal(size=size) for f in action.of_role("state")}
    after: dict[Basic, Any] = {**values, t: 0.7, **{Symbol(unit_name(q), real=True): before[q] for q in quenched}}
    after |= {Symbol(f.name, real=True): before[f.symbol] for f in action.of_role("state")}
    worst, numbers = [0.0], dict(problem.numbers)
    for h in action.of_role("local"):
        exact = 0.0
        for c in process.mean.get(h.name, ()):
            assert c.op is not None
            out = action.fields[c.op.atoms[0][0]].definition
            exact += number(c.coef, values).real * float(np.mean(evaluate(out, before)))
        terms = numbers.get(h.symbol, ())
        found = sum(number(c, values).real * float(np.mean(evaluate(e, after))) for c, _, e in terms)
        worst.append(relative(found, exact, 1.0))
        before[h.symbol] = after[h.symbol] = exact
    rhs = dict(action.equations)
    for unit in problem.units:
        for x, mine, start in zip(unit.states, unit.rhs, unit.start, strict=True):
            worst.append(relative(evaluate(mine, after), evaluate(rhs[x.name], before)))
            initial = action.fields[x.name].symbol.initial
            if isinstance(initial, Expr):
                worst.append(relative(evaluate(start, after), evaluate(initial.subs(t, 0), before), 1.0))
            elif start != Symbol(f"{x.name}_start", real=True):
                return float("inf")
    clocks = (problem.clock == "map") == (action.clock == "map")
    return max(worst) if clocks and len(problem.units) == len(action.populations) else float("inf")


def _entries(m: Circulant, size: int, values: Values) -> Array:
    """Entries of the cycle of `size` units whose modes have the declared eigenvalues."""
    angles = 2 * np.pi * np.arange(size) / size
    by_shift = np.fft.ifft([number(m.eigenvalue, {**values, ANGLE: a}) for a in angles])
    rows = np.subtract.outer(np.arange(size), np.arange(size)) % size
    return np.asarray(by_shift[rows])


def _rate(expr: Expr, population: Population, matrices: Mapping[Any, Array], values: Mapping[Basic, Any]) -> Array:
    """A right-hand side at explicit sites, sums over couplings as matrix products."""
    leaves = {leaf: _sum(leaf, matrices, values) for leaf in _outermost(expr)}
    marks = {leaf: UnitSymbol._make(f"sum_{k}", population, None, False, ()) for k, leaf in enumerate(leaves)}
    given = {**values, **{marks[leaf]: value for leaf, value in leaves.items()}}
    shown = expr.xreplace(marks)
    terms = shown.as_ordered_terms() if shown.is_Add else [shown]
    return np.asarray(sum((_complex(term, given) for term in terms), 0.0))


def _complex(term: Expr, values: Mapping[Basic, Any]) -> Array:
    from sympy import lambdify

    symbols = sorted(term.free_symbols, key=str)
    return np.asarray(lambdify(symbols, term, ["scipy", "numpy"])(*(values[s] for s in symbols)))


def _outermost(expr: Basic) -> list[Any]:
    if isinstance(expr, (Apply, Mean)):
        return [expr]
    found: dict[Any, None] = {}
    for a in expr.args:
        found |= dict.fromkeys(_outermost(a))
    return list(found)


def _sum(leaf: Any, matrices: Mapping[Any, Array], values: Mapping[Basic, Any]) -> Any:
    if isinstance(leaf, Mean):
        return np.mean(_rate(unbind(leaf.body), leaf.population, matrices, values))
    body = np.broadcast_to(_rate(unbind(leaf.body), leaf.cols, matrices, values), (_columns(leaf, matrices),))
    return _matrix(leaf.matrix, matrices) @ body


def _columns(leaf: Any, matrices: Mapping[Any, Array]) -> int:
    return int(_matrix(leaf.matrix, matrices).shape[1])


def _matrix(matrix: Any, matrices: Mapping[Any, Array]) -> Array:
    """In a basis that is turned by a unitary matrix, a real transpose is an adjoint."""
    return matrices[matrix.matrix].conj().T if isinstance(matrix, Transpose) else matrices[matrix]


# --------------------------------------------------------------------------------------------------------- elimination
Table = dict[tuple[Any, ...], complex]


def elimination_deviation(
    before: EffectiveProcess, after: EffectiveProcess, values: Values, rng: np.random.Generator
) -> float:
    """Memory and noise that the others feel, at random values of the operators at both times."""
    values = {**values, N: SIZE}
    gone = {p.name for p in before.action.populations} - {p.name for p in after.action.populations}
    if len(gone) != 1:
        raise NotCovered(f"{len(gone)} populations are eliminated in one step: not compared")
    (population,) = gone
    operators: dict[Basic, float] = {DT: rng.uniform(0.5, 1.0), DS: rng.uniform(0.5, 1.0)}
    for o in after.operators:
        operators |= {o.symbol: rng.uniform(0.05, 0.2), o.adjoint: rng.uniform(0.05, 0.2)}
    exact = _before(before, after, population, values, operators)
    found = _after(after, {**values, **operators})
    keys = set(exact) | set(found)
    size = max((abs(v) for v in exact.values()), default=1.0)
    same = {f for f in before.action.fields.values() if f.population.name != population} == set(
        after.action.fields.values()
    )
    return max((relative(found.get(k, 0.0), exact.get(k, 0.0), size) for k in keys), default=0.0) if same else np.inf


def _after(process: EffectiveProcess, values: Values) -> Table:
    out: Table = {}
    for pair, parts in process.covariance.items():
        for c in parts:
            _add(out, _key(pair, c), number(c.coef, values))
    for u, parts in process.memory.items():
        for c in parts:
            _add(out, (u, c.op, c.output), number(c.coef, values))
    return out


def _key(pair: tuple[str, str], c: Contribution) -> tuple[Any, ...]:
    assert c.op is not None
    return (*pair, tuple(a for a, s in sorted(c.op.atoms, key=lambda atom: c.at[atom[1]])))


def _add(table: Table, key: tuple[Any, ...], value: complex) -> None:
    table[key] = table.get(key, 0.0) + value


def _before(
    process: EffectiveProcess, after: EffectiveProcess, population: str, values: Values, operators: Values
) -> Table:
    """The same from the linear equations of the eliminated units, averaged over a grid of their labels."""
    mine = {n for n, f in process.action.fields.items() if f.population.name == population}
    labels = sorted(
        {q for n in mine for q in _definition(process, n).atoms(Quenched) if q.population.name == population}, key=str
    )
    out: Table = {}
    for node, weight in _grid(labels, values):
        now = _transfer(process, after, population, {**values, **node}, operators, first=True)
        then = _transfer(process, after, population, {**values, **node}, operators, first=False)
        _collect(process, mine, values, weight, now, then, out)
    return out


def _definition(process: EffectiveProcess, name: str) -> Expr:
    from sympy import S

    found = process.action.fields[name].definition
    return S.Zero if found is None else found


def _grid(labels: list[Quenched], values: Values) -> Iterator[tuple[dict[Basic, float], float]]:
    rules = []
    for q in labels:
        atoms = [(number(a, values).real, number(p, values).real) for a, p in q.law.weights()]
        if not atoms:
            low, high = (number(e, values).real for e in q.law.support().args[:2])
            atoms = [(low + (high - low) * (k + 0.5) / NODES, 1 / NODES) for k in range(NODES)]
        rules.append(atoms)
    for chosen in product(*rules):
        yield dict(zip(labels, (a for a, _ in chosen), strict=True)), float(np.prod([p for _, p in chosen]))


def _transfer(
    process: EffectiveProcess,
    after: EffectiveProcess,
    population: str,
    values: Values,
    operators: Values,
    first: bool,
) -> dict[tuple[str, str], complex]:
    """ψ = T ζ of one unit, by solving its linear equations with its memory; on the second time its conjugate."""
    action = process.action
    responses = {(o.output, o.field): operators[o.symbol if first else o.adjoint] for o in after.operators}
    rate = operators[DT if first else DS]
    outputs = [f for f in action.of_role("output") if f.population.name == population]
    unit = numeric_unit(action, population, values)
    names = [*unit.states, *unit.locals, *(o.name for o in outputs)]
    matrix = np.eye(len(names), dtype=complex)
    if unit.states:
        inner, fed, *_ = unit.matrices()
        matrix[: len(inner), : len(inner)] = rate * np.eye(len(inner)) - inner
        matrix[: len(inner), len(inner) : len(inner) + len(unit.locals)] -= fed[:, : len(unit.locals)]
    for h in unit.locals:
        for c in process.memory.get(h, ()):
            assert c.op is not None
            (psi,) = (a for a, _ in c.op.atoms if action.fields[a].role != "hat")
            (hat,) = (a for a, _ in c.op.atoms if action.fields[a].role == "hat")
            strength = number(c.coef, values) * responses[psi, hat.removeprefix("hat_")]
            matrix[names.index(h), names.index(c.output)] -= strength
    symbols = {action.fields[n].symbol: n for n in (*unit.states, *unit.locals)}
    for o in outputs:
        for s, n in symbols.items():
            at = {**values, **{r: float(r == s) for r in symbols}}
            matrix[names.index(o.name), names.index(n)] -= number(o.definition, at)
    solved = np.linalg.inv(matrix)
    found = {(o.name, h): solved[names.index(o.name), names.index(h)] for o in outputs for h in unit.locals}
    return found if first else {k: np.conj(v) for k, v in found.items()}


def _collect(
    process: EffectiveProcess,
    mine: set[str],
    values: Values,
    weight: float,
    now: Mapping[tuple[str, str], complex],
    then: Mapping[tuple[str, str], complex],
    out: Table,
) -> None:
    for u, parts in process.memory.items():
        for c in parts if u not in mine else ():
            assert c.op is not None
            names = [a for a, _ in c.op.atoms]
            psi = next((a for a in names if (a in mine and not a.startswith("hat_"))), None)
            if psi is None:
                _add(out, (u, c.op, c.output), weight * number(c.coef, values))
            else:
                (hat,) = (a.removeprefix("hat_") for a in names if a != psi)
                _add(out, (u, None, c.output), weight * number(c.coef, values) * now[psi, hat])
    for pair, parts in process.covariance.items():
        for c in parts if not set(pair) & mine else ():
            assert c.op is not None
            b, d = (a for a, s in sorted(c.op.atoms, key=lambda atom: c.at[atom[1]]))
            if b not in mine:
                _add(out, _key(pair, c), weight * number(c.coef, values))
                continue
            for (h, k), own in process.covariance.items():
                for e in own if h in mine else ():
                    ways = [(h, k, _key(pair, e))]
                    ways += [] if h == k else [(k, h, (*pair, _key(pair, e)[-1][::-1]))]
                    for x, y, key in ways:
                        strength = number(c.coef, values) * number(e.coef, values)
                        _add(out, key, weight * strength * now[b, x] * then[d, y])


__all__ = ["elimination_deviation", "members_deviation", "modes_deviation", "paths_deviation", "real_twins"]
