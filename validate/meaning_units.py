"""Meanings of the units as linear filters and of the equations that close on them.

The unit of a population is its declared equation as a numeric function. Its response to anything is found by solving
linear equations at a complex frequency; covariances are products of responses. No symbolic filter is reused unless it
is the very thing that a step starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sympy import Basic, Expr, S, Symbol

from quenched.theory.fields import At, Quenched, WhiteNoise
from quenched.theory.linear import LinearUnit, LinearUnits
from quenched.theory.lower import CopiedAction
from quenched.theory.naming import unit_name
from quenched.theory.problem import DS, DT, SiteFunction, StationaryGaussian, U
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.spaces import N, t
from quenched.validate.meaning import SIZE, Array, Values, evaluate, number, relative, slope
from quenched.validate.meaning_closing import GaussianLaws, arguments_of, closing_deviation, filtered


@dataclass(frozen=True)
class NumericUnit:
    """One population's equation as numbers: rate(x, h, ξ, past) = A x + B h + G ξ + L past + c if it is affine.

    `earlier` are fields at earlier times: (state, by how much earlier).
    """

    states: list[str]
    locals: list[str]
    noises: list[WhiteNoise]
    earlier: list[tuple[str, float]]
    rate: Callable[[Array], Array]

    @property
    def width(self) -> int:
        return len(self.states) + len(self.locals) + len(self.noises) + len(self.earlier)

    def matrices(self) -> tuple[Array, Array, Array, Array]:
        """(A, [B G], c, L) by differences from the origin."""
        rest, cut = self.rate(np.zeros(self.width)), self.width - len(self.earlier)
        columns = np.array([self.rate(e) - rest for e in np.eye(self.width)]).T.reshape(len(self.states), self.width)
        return columns[:, : len(self.states)], columns[:, len(self.states) : cut], rest, columns[:, cut:]

    def inner(self, clock: str, frequency: complex) -> Array:
        """A and what L adds to it at a complex frequency."""
        present, _, _, late = self.matrices()
        total = present.astype(complex)
        for (state, delay), column in zip(self.earlier, late.T, strict=True):
            total[:, self.states.index(state)] += column * lagging(clock, delay, frequency)
        return total

    def curvature(self, rng: np.random.Generator) -> float:
        """How far the equation is from affine at random points."""
        inner, fed, rest, late = self.matrices()
        points = rng.normal(size=(3, self.width))
        return max(relative(self.rate(z), np.hstack([inner, fed, late]) @ z + rest) for z in points)


def lagging(clock: str, delay: float, frequency: complex) -> complex:
    """By what a delay multiplies a signal e^{zt} (flow) or z^t (map)."""
    return complex(np.exp(-frequency * delay) if clock == "flow" else frequency**-delay)


def delay_in_steps(part: At, action: CopiedAction, values: Values) -> float:
    """By how much earlier a field is taken: in time units of a flow, in steps of a map."""
    return float((number(t - part.time, {**values, t: 0.0}) / number(action.advance, values)).real)


def numeric_unit(action: CopiedAction, population: str, values: Values, given: Collection[str] = ()) -> NumericUnit:
    """The unit of a population at given parameters, quenched numbers and (by name) local fields."""
    states = [f for f in action.of_role("state") if f.population.name == population]
    locals_ = [f for f in action.of_role("local") if f.population.name == population and f.name not in given]
    rhs = dict(action.equations)
    noises = sorted({n for f in states for n in rhs[f.name].atoms(WhiteNoise)}, key=unit_name)
    earlier = sorted({a for f in states for a in rhs[f.name].atoms(At)}, key=str)
    symbols = [f.symbol for f in states] + [f.symbol for f in locals_] + noises + earlier
    named = {f.symbol: f.name for f in states}
    past = [(named[a.field], delay_in_steps(a, action, values)) for a in earlier]

    def rate(z: Array) -> Array:
        numbers = {**values, **dict(zip(symbols, z, strict=True))}
        return np.array([complex(evaluate(rhs[f.name], numbers)) for f in states])

    return NumericUnit([f.name for f in states], [f.name for f in locals_], noises, past, rate)


def quenched_of(action: CopiedAction) -> list[Quenched]:
    """Quenched numbers of the site equations and outputs, by name."""
    exprs = [e for _, e in action.equations] + [
        f.definition for f in action.of_role("output") if f.definition is not None
    ]
    return sorted({q for e in exprs for q in e.atoms(Quenched)}, key=unit_name)


# ------------------------------------------------------------------------------------------------------ linear filters
def units_deviation(process: EffectiveProcess, units: LinearUnits, values: Values, rng: np.random.Generator) -> float:
    """Transfer functions, drive, modes and own responses against linear algebra at a random complex frequency."""
    action = process.action
    values = {**values, N: SIZE, **{q: rng.normal() for q in quenched_of(action)}}
    worst = 0.0
    for unit in units.units:
        given = _certain(process, unit.population)
        values = {**values, **{action.fields[h].symbol: rng.normal() for h in given}}
        numeric = numeric_unit(action, unit.population, values, given)
        worst = max(worst, *(abs(number(unit.transfer[s, h], values)) for s in numeric.states for h in given), 0.0)
        worst = max(worst, numeric.curvature(rng), _unit_deviation(unit, numeric, action.clock, values, rng))
    return worst


def _certain(process: EffectiveProcess, population: str) -> list[str]:
    """Local fields that do not fluctuate and that quenched numbers of the unit multiply."""
    fluctuating = {h for pair, parts in process.covariance.items() for h in pair if parts}
    own = {f.name: f for f in process.action.of_role("local") if f.population.name == population}
    still = [h for h in own if h not in fluctuating and not process.memory.get(h)]
    products = [
        term
        for name, rhs in process.action.equations
        if process.action.fields[name].population.name == population
        for term in rhs.expand().as_ordered_terms()
    ]
    return [h for h in still if any(t.has(own[h].symbol) and t.atoms(Quenched) for t in products)]


def _unit_deviation(
    unit: LinearUnit, numeric: NumericUnit, clock: str, values: Values, rng: np.random.Generator
) -> float:
    _, fed, rest, _ = numeric.matrices()
    size, count = len(numeric.states), len(numeric.locals)
    frequency = complex(rng.normal(), rng.normal())
    at = {**values, DT: frequency}
    green = np.linalg.inv(frequency * np.eye(size) - numeric.inner(clock, frequency))
    gains = green @ fed
    still = 1.0 if clock == "map" else 0.0
    driven = np.linalg.solve(still * np.eye(size) - numeric.inner(clock, still), rest)
    worst = [relative(number(unit.characteristic, at), np.linalg.det(np.linalg.inv(green)))]
    for i, s in enumerate(numeric.states):
        worst += [relative(number(unit.transfer[s, h], at), gains[i, j]) for j, h in enumerate(numeric.locals)]
        for j, xi in enumerate(numeric.noises):
            worst.append(relative(number(unit.noise[s, unit_name(xi)], at), gains[i, count + j]))
        worst.append(relative(number(unit.drive[s], at), driven[i]))
        worst.append(relative(number(unit.own_response[s], at), green[i, i]))
    for h in numeric.locals:
        worst += [relative(number(unit.transfer[h, k], at), float(h == k)) for k in numeric.locals]
    return max(worst)


# ------------------------------------------------------------------------------------------------------------- closure
@dataclass(frozen=True)
class Reader:
    """How outputs read their unit: the weights of the linear combination u_a of each argument."""

    weights: list[dict[str, complex]]
    deviation: float


def closure_deviation(units: LinearUnits, p: StationaryGaussian, values: Values, rng: np.random.Generator) -> float:
    """Means and covariances of the arguments at random frequencies, for random averages of the outputs."""
    action = units.process.action
    labels = {label.symbol.name: rng.normal() for label in p.labels}
    values = {**values, N: SIZE, **{label.symbol: labels[label.symbol.name] for label in p.labels}}
    values |= {symbol: rng.uniform(0.2, 0.7) for symbol, _ in p.closing}
    frozen = {q: labels.get(unit_name(q), rng.normal()) for q in quenched_of(action)}
    reader = read_arguments(p, action, {**values, **frozen}, rng)
    filters = {u.population: u for u in units.units}
    ones = {f.name: rng.normal() for f in action.of_role("output")}
    twos = {(f.name, g.name): rng.normal() for f in action.of_role("output") for g in action.of_role("output")}
    late = output_delays(action, values)
    worst = [reader.deviation, _bookkeeping(p, action)]
    drives = [
        _drives(filters[a.population], w, action, labels, values)
        for a, w in zip(p.arguments, reader.weights, strict=True)
    ]
    laws = _laws(units, p, reader, drives, {**frozen, **values}, rng) if p.closing or p.carried else None
    averaged: dict[str, float] = {}
    if laws is not None:
        values |= {symbol: laws.values[symbol] for symbol, _ in p.closing}
        ones = {name: laws.output(name) for name in ones}
        averaged = {o.f.name: laws.site(o.f.expr, o.a) for o in p.one_points}
        worst.append(closing_deviation(units, p, laws))
    for a, argument in enumerate(p.arguments):
        unit, weights = filters[argument.population], reader.weights[a]
        exact = _mean(units.process, unit, weights, ones, values) + drives[a][0]
        found = number(argument.constant, values)
        found += sum(
            number(g, values) * {**ones, **averaged}[o.f.name]
            for g, o in zip(p.mean_gain[a], p.one_points, strict=True)
            if g != 0
        )
        worst.append(relative(found, exact))
    dt, ds = (complex(*rng.normal(size=2)) for _ in range(2))
    for k, (i, j) in enumerate(p.pairs):
        unit = filters[p.arguments[i].population]
        left, right = ({**values, DT: d} for d in (dt, ds))
        both = {**values, DT: dt, DS: ds}
        if laws is not None:
            left |= filtered(units, laws, left, right)
        seen = {
            (f, g): level * lagging(action.clock, late[f], dt) * lagging(action.clock, late[g], ds)
            for (f, g), level in twos.items()
        }
        exact, noise = _covariance(units.process, unit, reader.weights[i], reader.weights[j], seen, left, right)
        found = sum(
            number(g, both) * twos[s.f.name, s.g.name] for g, s in zip(p.gain[k], p.two_points, strict=True) if g != 0
        )
        worst += [relative(found, exact), relative(number(p.noise[k], both), noise)]
        shared = set(drives[i][1]) & set(drives[j][1])
        worst.append(relative(number(p.static[k], values), sum(drives[i][1][q] * drives[j][1][q] for q in shared)))
    for unit, polynomial in zip(units.units, p.characteristic, strict=True):
        worst.append(relative(number(polynomial, left), number(unit.characteristic, left)))
        for s, own in unit.own_response.items():
            worst.append(relative(number(p.responses[f"R_{s}"], left), number(own, left)))
    return max(worst)


def _laws(
    units: LinearUnits,
    p: StationaryGaussian,
    reader: Reader,
    drives: list[tuple[complex, dict[Symbol, complex]]],
    values: dict[Basic, Any],
    rng: np.random.Generator,
) -> GaussianLaws:
    """Random laws of the arguments; slopes of responses take the values that these laws give them."""
    carried = {(c.name, c.population) for c in p.carried}
    loose = [q for q in quenched_of(units.process.action) if (unit_name(q), q.population.name) in carried]
    covariance = {
        q: np.array([spread.get(q, 0j).real * number(q.law.variance_(), values).real ** 0.5 for _, spread in drives])
        for q in loose
    }
    size = rng.uniform(0.8, 1.5, size=len(p.arguments)) + sum(
        (np.abs(c) ** 2 / number(q.law.variance_(), values).real for q, c in covariance.items()), np.zeros(1)
    )
    mean = rng.uniform(-0.8, 0.8, size=len(p.arguments))
    laws = GaussianLaws(units.process, reader.weights, mean, size, covariance, dict(values))
    laws.argument = arguments_of(units.process, p, reader.weights)
    for o in units.process.operators:
        laws.values |= {s: laws.slope(o.output) for s, _ in p.closing if s.name == f"a_{o.output}"}
    return laws


def _bookkeeping(p: StationaryGaussian, action: CopiedAction) -> float:
    """Zero if all pairs that the sources read are among the closing ones, and all pairs of a population are listed."""
    read = {tuple(sorted((s.a, s.b))) for s in p.two_points} | {(s.a, s.a) for s in p.two_points}
    read |= {(s.b, s.b) for s in p.two_points} | {(o.a, o.a) for o in p.one_points}
    every = {
        (i, j)
        for i, a in enumerate(p.arguments)
        for j, b in enumerate(p.arguments)
        if i <= j and a.population == b.population
    }
    states = {f.name for f in action.of_role("state")} <= {a.name for a in p.arguments}
    right = read <= set(p.pairs[: p.closure]) and set(p.pairs) == every and len(p.pairs) == len(every) and states
    return 0.0 if right and (p.clock == "map") == (action.clock == "map") else float("inf")


def read_arguments(p: StationaryGaussian, action: CopiedAction, values: Values, rng: np.random.Generator) -> Reader:
    """Find each argument's linear combination by differentiating the outputs that read it, and check f(u) = ψ."""
    weights: list[dict[str, complex]] = []
    readings = (
        {(o.f, o.a) for o in p.one_points} | {(s.f, s.a) for s in p.two_points} | {(s.g, s.b) for s in p.two_points}
    )
    worst = 0.0
    # Slopes, and outputs less a Gaussian factor, are compared with the numbers that the state determines.
    carried = {c.name for c in p.carried}
    apart = {
        f.name
        for f in action.of_role("output")
        if f.definition is not None and any(unit_name(q) in carried for q in f.definition.atoms(Quenched))
    }
    for a, argument in enumerate(p.arguments):
        functions = sorted(
            (f for f, b in readings if b == a and f.name in action.fields and f.name not in apart), key=lambda f: f.name
        )
        if argument.name in action.fields:
            choices = [{argument.name: 1.0 + 0j}]
        else:
            read = {f.name.rstrip("'") for f, b in readings if b == a}
            factored = sorted(o for o in apart if any(r == o or r.startswith(f"{o}_") for r in read))
            choices = _gradient(action, functions[0].name if functions else factored[0], values, rng)
        found = [(max((_misread(f, w, action, values, rng) for f in functions), default=0.0), w) for w in choices]
        deviation, best = min(found, key=lambda item: item[0])
        worst = max(worst, deviation)
        weights.append(best)
    return Reader(weights, worst)


def _gradient(action: CopiedAction, output: str, values: Values, rng: np.random.Generator) -> list[dict[str, complex]]:
    """Directions in which an output changes, normalised to one of the fields that it reads (each in turn)."""
    definition = action.fields[output].definition
    assert definition is not None
    definition = at_present(definition)
    used = [f for f in action.fields.values() if f.role in ("state", "local") and definition.has(f.symbol)]
    out = []
    for point in rng.normal(size=(2, len(used))):  # twice: one of the points may lie at a kink
        at = dict(zip((f.symbol for f in used), point, strict=True))
        slopes = {
            f.name: slope(partial(_along, definition, {**values, **at}, f.symbol), at[f.symbol], 0.01) for f in used
        }
        out += [{name: s / first for name, s in slopes.items()} for first in slopes.values() if first != 0]
    return out


def _along(expr: Expr, values: Values, symbol: Symbol, x: float) -> complex:
    return complex(evaluate(expr, {**values, symbol: x}))


def _misread(
    f: SiteFunction, weights: Mapping[str, complex], action: CopiedAction, values: Values, rng: np.random.Generator
) -> float:
    """|f(Σ w field) − ψ(fields)| at random fields."""
    definition = action.fields[f.name].definition
    assert definition is not None
    fields = {f.symbol: rng.normal(size=4) for f in action.fields.values() if f.role in ("state", "local")}
    u = sum(w.real * fields[action.fields[name].symbol] for name, w in weights.items())
    exact = evaluate(at_present(definition), {**values, **fields})
    found = evaluate(f.expr, {**values, U: u})
    return relative(found, exact)


def at_present(expr: Expr) -> Expr:
    """An expression with the present fields in place of those at earlier times."""
    return expr.xreplace({a: a.field for a in expr.atoms(At)})


def output_delays(action: CopiedAction, values: Values) -> dict[str, float]:
    """By how much earlier every output reads its unit; not a number where it reads several times."""
    out = {}
    for f in action.of_role("output"):
        assert f.definition is not None
        moving = {g.symbol for g in action.fields.values() if g.role in ("state", "local")}
        present = {s for s in f.definition.xreplace({a: S.Zero for a in f.definition.atoms(At)}).free_symbols}
        times = {delay_in_steps(a, action, values) for a in f.definition.atoms(At)}
        times |= {0.0} if present & moving or not times else set()
        out[f.name] = times.pop() if len(times) == 1 else float("nan")
    return out


def _mean(
    process: EffectiveProcess,
    unit: LinearUnit,
    weights: Mapping[str, complex],
    ones: Mapping[str, float],
    values: Values,
) -> complex:
    still = {**values, DT: 1.0 if process.action.clock == "map" else 0.0}
    total = 0j
    for f, w in weights.items():
        for h, parts in process.mean.items():
            if (f, h) in unit.transfer:
                level = sum(number(c.coef, values) * ones[_outputs(c)[0]] for c in parts)
                total += w * number(unit.transfer[f, h], still) * level
    return total


def _outputs(c: Contribution) -> tuple[str, ...]:
    """The outputs of a contribution, in order of their times (first the one at t)."""
    assert c.op is not None
    return tuple(a for a, s in sorted(c.op.atoms, key=lambda atom: c.at[atom[1]]))


def _covariance(
    process: EffectiveProcess,
    unit: LinearUnit,
    first: Mapping[str, complex],
    second: Mapping[str, complex],
    twos: Mapping[tuple[str, str], complex],
    left: Values,
    right: Values,
) -> tuple[complex, complex]:
    """(part driven by the couplings, part driven by noise) of cov(u_a(t), u_b(s)) at two frequencies."""
    driven = noise = 0j
    for f, w in first.items():
        for g, z in second.items():
            for (u, v), parts in process.covariance.items():
                for h, k, flip in [(u, v, False)] + ([(v, u, True)] if u != v else []):
                    if (f, h) in unit.transfer and (g, k) in unit.transfer:
                        pass_through = number(unit.transfer[f, h], left) * number(unit.transfer[g, k], right)
                        level = sum(number(c.coef, left) * twos[_ordered(c, flip)] for c in parts)
                        driven += w * z * pass_through * level
            for xi in {x for _, x in unit.noise}:
                if (f, xi) in unit.noise and (g, xi) in unit.noise:
                    noise += w * z * number(unit.noise[f, xi], left) * number(unit.noise[g, xi], right)
    return driven, noise


def _ordered(c: Contribution, flip: bool) -> tuple[str, str]:
    first, second = _outputs(c)
    return (second, first) if flip else (first, second)


def _drives(
    unit: LinearUnit, weights: Mapping[str, complex], action: CopiedAction, labels: Mapping[str, float], values: Values
) -> tuple[complex, dict[Symbol, complex]]:
    """(mean of the constant input, standard deviation that each Gaussian quenched number adds)."""
    loose = [q for q in quenched_of(action) if unit_name(q) not in labels]
    fixed = {q: labels[unit_name(q)] for q in quenched_of(action) if unit_name(q) in labels}

    def level(shift: Mapping[Symbol, complex]) -> complex:
        numbers = {**values, **fixed, **shift}
        return sum((w * number(unit.drive[f], numbers) for f, w in weights.items()), 0j)

    means = {q: number(_moments(q)[0], values) for q in loose}
    spread = {}
    for q in loose:
        step = level({**means, q: means[q] + 1.0}) - level(means)
        spread[q] = step * number(_moments(q)[1], values) ** 0.5
    return level(means), {q: s for q, s in spread.items() if s != 0}


def _moments(q: Quenched) -> tuple[Expr, Expr]:
    return q.law.mean_(), q.law.variance_()
