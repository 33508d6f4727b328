"""Step 7a: close the equations of Gaussian units on their means and two-time covariances.

The filters of the units act on either time of a covariance; what they act on are Gaussian averages of the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Add, DiracDelta, Expr, Rational, S, Symbol, cancel, together

from quenched.theory.closure_print import closing_line, has_mean, mean_line, two_time_line
from quenched.theory.delays import delay_operator, longer, undelayed
from quenched.theory.distributions import Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Field, Quenched
from quenched.theory.linear import LinearUnit, LinearUnits, NeedsTrajectories
from quenched.theory.lower import CopiedAction
from quenched.theory.naming import unit_name
from quenched.theory.problem import (
    DS,
    DT,
    Argument,
    Carried,
    Label,
    OnePoint,
    SiteFunction,
    StationaryGaussian,
    TwoPoint,
    U,
)
from quenched.theory.problem_delays import Delay
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import text
from quenched.theory.spaces import N


@dataclass(frozen=True)
class GaussianClosure(Form):
    """Means and two-time covariances of Gaussian units, closed on averages of their outputs."""

    name: ClassVar[str] = "two-time equations"
    problem: StationaryGaussian
    units: LinearUnits

    def lines(self) -> list[Line]:
        p = self.problem
        out = [mean_line(p, a) for a in range(len(p.arguments)) if has_mean(p, a)]
        out += [two_time_line(p, k) for k in range(len(p.pairs))]
        return out + [closing_line(p, k) for k in range(len(p.closing))]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for label, problem in problem_mutants(self.problem):
            yield label, replace(self, problem=problem)


def problem_mutants(p: StationaryGaussian) -> Iterator[tuple[str, StationaryGaussian]]:
    """The problem with one coefficient dropped or changed."""
    for kind in ("gain", "mean_gain"):
        rows = getattr(p, kind)
        for i, row in enumerate(rows):
            for label, changed in _entries(row):
                yield f"{kind}[{i}]{label}", _with(p, kind, (*rows[:i], changed, *rows[i + 1 :]))
    for kind in ("noise", "static", "characteristic"):
        for label, changed in _entries(getattr(p, kind)):
            yield f"{kind}{label}", _with(p, kind, changed)
    for label, changed in _entries(tuple(a.constant for a in p.arguments)):
        arguments = tuple(replace(a, constant=c) for a, c in zip(p.arguments, changed, strict=True))
        yield f"constant{label}", replace(p, arguments=arguments)
    for k, (symbol, terms) in enumerate(p.closing):
        for label, row in _entries(tuple(c for c, _ in terms)):
            new = (symbol, tuple((c, one) for c, (_, one) in zip(row, terms, strict=True)))
            yield f"closing {symbol}{label}", replace(p, closing=(*p.closing[:k], new, *p.closing[k + 1 :]))
    for k, number in enumerate(p.carried):
        for label, row in _entries(number.covariances):
            carried = (*p.carried[:k], replace(number, covariances=row), *p.carried[k + 1 :])
            yield f"carried {number.name}{label}", replace(p, carried=carried)
    for name, value in p.responses.items():
        yield f"{name} × 1.1", replace(p, responses=p.responses | {name: value * Rational(11, 10)})


def _with(p: StationaryGaussian, kind: str, value: object) -> StationaryGaussian:
    changes: dict[str, Any] = {kind: value}
    return replace(p, **changes)


def _entries(row: tuple[Expr, ...]) -> Iterator[tuple[str, tuple[Expr, ...]]]:
    """A row with one of its non-zero entries dropped or changed."""
    for j, value in enumerate(row):
        if value != 0:
            changes = [("dropped", S.Zero), ("× 1.1", value * Rational(11, 10))]
            for label, new in changes + ([("later", longer(value))] if value.has(Delay) else []):
                yield f"[{j}] {label}", (*row[:j], new, *row[j + 1 :])


@dataclass(frozen=True)
class Close(Rule):
    """Write the covariances of linear Gaussian units through averages of their outputs."""

    title: ClassVar[str] = "Two-time equations"
    assumption: ClassVar[str] = "units are Gaussian, so means and covariances are the whole law"

    def __call__(self, before: Form) -> GaussianClosure:
        assert isinstance(before, LinearUnits)
        return GaussianClosure(_Closure(before).run(), before)


@dataclass(frozen=True)
class _Argument:
    """A linear combination of a unit's fields on which an output depends."""

    population: str
    weights: tuple[tuple[str, Expr], ...]


def as_site_function(
    name: str, body: Expr, names: dict[Symbol, str], labels: dict[Quenched, Symbol]
) -> tuple[SiteFunction, tuple[tuple[str, Expr], ...]]:
    """Write an output as a function of one linear combination of its unit's fields: the function and the weights.

    Raises
    ------
    NeedsTrajectories
        If it depends on several fields of a unit separately.
    """
    if body.atoms(At):
        raise NeedsTrajectories(f"the output {name} = {body} reads fields at several times")
    used = sorted((s for s in names if body.has(s)), key=lambda s: list(names).index(s))
    labelled = body.xreplace(labels)
    if not used:
        return SiteFunction(name, labelled), ()
    first, rest = used[0], used[1:]
    slope = labelled.diff(first)
    weights = [(names[first], S.One)]
    shifted = labelled
    for other in rest:
        ratio = cancel(together(labelled.diff(other) / slope)).simplify()
        if ratio.atoms(Field) or any(ratio.has(s) for s in names):
            raise NeedsTrajectories(f"the output {name} = {body} depends on several fields of a unit separately")
        weights.append((names[other], ratio))
        shifted = shifted.xreplace({first: first - ratio * other})
    function = shifted.xreplace({first: U})
    return SiteFunction(name, function.simplify() if rest else function), tuple(weights)


class _Closure:
    """Builds the problem from linear units and the read-off of their local fields."""

    def __init__(self, units: LinearUnits) -> None:
        self.process: EffectiveProcess = units.process
        self.action: CopiedAction = units.process.action
        self.units: dict[str, LinearUnit] = {u.population: u for u in units.units}
        self.arguments: list[_Argument] = []
        self.parts: dict[str, list[tuple[Quenched | None, SiteFunction, int]]] = {}
        self.delays: dict[str, Expr] = {}
        self.labels: dict[Quenched, Symbol] = {}
        self.ones: list[OnePoint] = []
        self.twos: list[TwoPoint] = []
        self.closing: dict[Symbol, tuple[tuple[Expr, int], ...]] = {}

    def run(self) -> StationaryGaussian:
        self._find_labels()
        self._find_functions()
        self._resolve_operators()
        self._find_overlaps()
        for parts in [*self.process.mean.values()]:
            for c in parts:
                self._ones(c)
        for parts in self.process.covariance.values():
            for c in parts:
                self._two(c), self._two(c, flip=True)
        pairs, closure = self._pairs()
        return with_n(self._problem(pairs, closure))

    def _problem(self, pairs: tuple[tuple[int, int], ...], closure: int) -> StationaryGaussian:
        return StationaryGaussian(
            clock="map" if self.action.clock == "map" else "flow",
            parameters=self.action.parameters,
            labels=tuple(Label(s, q.law) for q, s in self.labels.items()),
            arguments=tuple(Argument(self._name(a), a.population, self._constant(a)) for a in self.arguments),
            pairs=pairs,
            one_points=tuple(self.ones),
            two_points=tuple(self.twos),
            mean_gain=tuple(self._mean_row(a) for a in self.arguments),
            gain=tuple(self._gain_row(a, b) for a, b in pairs),
            noise=tuple(self._noise(a, b) for a, b in pairs),
            static=tuple(self._static(a, b) for a, b in pairs),
            closure=closure,
            responses=self._responses(),
            characteristic=tuple(u.characteristic for u in self.units.values()),
            closing=tuple(self.closing.items()),
            carried=tuple(self._carried(q) for q in sorted(self._additive(), key=unit_name)),
        )

    # -- numbers that the state determines --------------------------------------------------------------------
    def _resolve_operators(self) -> None:
        """Responses of Gaussian units as filters: G = ⟨ψ'⟩·(transfer of the argument of ψ)."""
        swap: dict[Symbol, Expr] = {}
        for o in self.process.operators:
            f, a = self._function(o.output)
            slope = Symbol(f"a_{o.output}", real=True)
            self.closing[slope] = ((S.One, _index(self.ones, OnePoint(f.diff(), a))),)
            transfer = self._transfer(self.arguments[a], o.field) * self.delays[o.output]
            swap |= {o.symbol: slope * transfer, o.adjoint: slope * transfer.subs(DT, DS)}
        if swap:
            covariance = {
                pair: tuple(replace(c, coef=cancel(c.coef.xreplace(swap))) for c in parts)
                for pair, parts in self.process.covariance.items()
            }
            self.process = replace(self.process, covariance=covariance)

    def _find_overlaps(self) -> None:
        """Deterministic local fields that labels multiply: the mean input of a unit is linear in them."""
        drives = [e for u in self.units.values() for e in u.drive.values()]
        for h in self.action.of_role("local"):
            if any(e.has(h.symbol) for e in drives):
                parts = self.process.mean.get(h.name, ())
                self.closing[h.symbol] = tuple((c.coef * w, k) for c in parts for w, k in self._ones(c))

    # -- labels ---------------------------------------------------------------------------------------------
    def _find_labels(self) -> None:
        """Quenched numbers stay labels unless they are Gaussian and enter units only additively, outputs linearly."""
        bodies = {o.name: o.definition for o in self.action.of_role("output") if o.definition is not None}
        drives = [e for u in self.units.values() for e in u.drive.values()]
        read = {a for cs in self.process.covariance.values() for c in cs if c.op for a, _ in c.op.atoms}
        read |= {o.output for o in self.process.operators}
        found = {q for e in (*bodies.values(), *drives) for q in e.atoms(Quenched)}
        held = set().union(*(bodies[name].atoms(Quenched) for name in read & set(bodies)))
        free = {
            q for q in found - held if isinstance(q.law, Normal) and all(not e.diff(q).atoms(Quenched) for e in drives)
        }
        # Where an output jumps, Stein's lemma has no slope.
        moving = [f.symbol for f in self.action.fields.values() if f.role in ("state", "local")]
        free -= {q for q in free for e in bodies.values() if any(e.diff(q).diff(s).has(DiracDelta) for s in moving)}
        while bent := {q for q in free for e in bodies.values() if e.diff(q).atoms(Quenched) & free}:
            free -= bent
        self.labels = {q: Symbol(unit_name(q), real=True) for q in sorted(found - free, key=unit_name)}

    def _additive(self) -> set[Quenched]:
        """Gaussian quenched numbers that are no labels."""
        inside = {q for o in self.action.of_role("output") if o.definition for q in o.definition.atoms(Quenched)}
        added = {q for u in self.units.values() for e in u.drive.values() for q in e.atoms(Quenched)}
        return (inside | added) - set(self.labels)

    def _carried(self, q: Quenched) -> Carried:
        rows = tuple(
            self._drive(a).diff(q) * q.law.variance_() if a.population == q.population.name else S.Zero
            for a in self.arguments
        )
        return Carried(unit_name(q), q.population.name, q.law.mean_(), rows)

    # -- outputs and their arguments ------------------------------------------------------------------------
    def _find_functions(self) -> None:
        moving = [f.symbol for f in self.action.fields.values() if f.role in ("state", "local")]
        for out in self.action.of_role("output"):
            assert out.definition is not None
            body, delay = undelayed(out.definition, moving)
            self.delays[out.name] = delay_operator(delay, self.action.clock, self.action.advance)
            self.parts[out.name] = self._in_parts(out.name, body, out.population.name)
        for state in self.action.of_role("state"):
            self._argument(_Argument(state.population.name, ((state.name, S.One),)))

    def _in_parts(self, name: str, body: Expr, population: str) -> list[tuple[Quenched | None, SiteFunction, int]]:
        """The site functions of an output, and the Gaussian number that multiplies each."""
        factors = list(self._in_factors(body))
        named = [name if q is None or len(factors) == 1 else f"{name}_{unit_name(q)}" for q, _ in factors]
        reduced = [self._reduce(n, f, population) for n, (_, f) in zip(named, factors, strict=True)]
        if len({argument for _, argument in reduced}) > 1:
            raise NeedsTrajectories(f"the output {name} = {body} depends on several fields of a unit separately")
        return [(q, f, self._argument(a)) for (q, _), (f, a) in zip(factors, reduced, strict=True)]

    def _in_factors(self, body: Expr) -> Iterator[tuple[Quenched | None, Expr]]:
        """f₀ and the f_q of a body f₀ + Σ_q q·f_q, q the Gaussian numbers that are no labels."""
        carried = sorted(body.atoms(Quenched) - set(self.labels), key=unit_name)
        rest = body.xreplace(dict.fromkeys(carried, S.Zero)) if carried else body
        if rest != 0 or not carried:
            yield None, rest
        yield from ((q, body.diff(q)) for q in carried)

    def _argument(self, argument: _Argument) -> int:
        if argument not in self.arguments:
            self.arguments.append(argument)
        return self.arguments.index(argument)

    def _reduce(self, name: str, body: Expr, population: str) -> tuple[SiteFunction, _Argument]:
        """Write an output as a function of one linear combination of its unit's fields."""
        names = {f.symbol: f.name for f in self.action.fields.values() if f.role in ("state", "local")}
        function, weights = as_site_function(name, body, names, self.labels)
        return function, _Argument(population, weights) if weights else self._any(population)

    def _any(self, population: str) -> _Argument:
        state = next(f for f in self.action.of_role("state") if f.population.name == population)
        return _Argument(population, ((state.name, S.One),))

    def _name(self, arg: _Argument) -> str:
        combo = Add(*(w * self.action.fields[f].symbol for f, w in arg.weights))
        return text(combo) if len(arg.weights) > 1 else arg.weights[0][0]

    # -- averages -------------------------------------------------------------------------------------------
    def _ones(self, c: Contribution) -> list[tuple[Expr, int]]:
        """⟨ψ⟩ as a combination of averages of site functions; a Gaussian factor q by Stein's lemma."""
        assert c.op is not None
        ((psi, _),) = c.op.atoms
        found: dict[int, Expr] = {}
        for q, f, a in self.parts[psi]:
            slope = S.Zero if q is None else self._drive(self.arguments[a]).diff(q) * q.law.variance_()
            for w, one in ((S.One if q is None else q.law.mean_(), f), (slope, f.diff() if slope != 0 else f)):
                if w != 0:
                    k = _index(self.ones, OnePoint(one, a))
                    found[k] = found.get(k, S.Zero) + w
        return [(w, k) for k, w in found.items()]

    def _function(self, psi: str) -> tuple[SiteFunction, int]:
        """The site function and argument of an output that no Gaussian number multiplies."""
        ((_, f, a),) = self.parts[psi]
        return f, a

    def _two(self, c: Contribution, flip: bool = False) -> int:
        """Index of ⟨ψ(t) ψ'(s)⟩ for a contribution to Cov(h_u(t), h_v(s)); `flip` swaps the times."""
        assert c.op is not None
        if c.kernels:
            raise NotCovered("couplings that are redrawn between steps: their closure is not built yet")
        (f, a), (g, b) = (self._function(psi) for psi in _read(c, flip))
        return _index(self.twos, TwoPoint(f, a, g, b))

    def _delay(self, c: Contribution, flip: bool) -> Expr:
        """What delays the two outputs of a contribution; an average of one time does not know of it."""
        first, second = (self.delays[psi] for psi in _read(c, flip))
        return first * second.subs(DT, DS)

    # -- rows -----------------------------------------------------------------------------------------------
    def _pairs(self) -> tuple[tuple[tuple[int, int], ...], int]:
        need = {(min(s.a, s.b), max(s.a, s.b)) for s in self.twos}
        need |= {(i, i) for s in self.twos for i in (s.a, s.b)} | {(s.a, s.a) for s in self.ones}
        count = len(self.arguments)
        same = [
            (i, j)
            for i in range(count)
            for j in range(i, count)
            if self.arguments[i].population == self.arguments[j].population
        ]
        first = sorted(need)
        return (*first, *(p for p in same if p not in need)), len(first)

    def _transfer(self, a: _Argument, h: str) -> Expr:
        return Add(*(w * self.units[a.population].transfer.get((f, h), S.Zero) for f, w in a.weights))

    def _mean_row(self, a: _Argument) -> tuple[Expr, ...]:
        row = [S.Zero] * len(self.ones)
        still = S.Zero if self.action.clock == "flow" else S.One
        for h, parts in self.process.mean.items():
            gain = self._transfer(a, h).subs(DT, still)
            for c in parts:
                for w, k in self._ones(c):
                    row[k] += gain * c.coef * w
        return tuple(row)

    def _gain_row(self, i: int, j: int) -> tuple[Expr, ...]:
        a, b = self.arguments[i], self.arguments[j]
        row = [S.Zero] * len(self.twos)
        for (u, v), parts in self.process.covariance.items():
            ways = [(u, v, False)] if u == v else [(u, v, False), (v, u, True)]
            for left, right, flip in ways:
                gain = self._transfer(a, left) * self._transfer(b, right).subs(DT, DS)
                if gain != 0:
                    for c in parts:
                        coef = cancel(gain * c.coef) if c.coef.has(DT, DS) else gain * c.coef
                        row[self._two(c, flip)] += coef * self._delay(c, flip)
        return tuple(row)

    def _noise(self, i: int, j: int) -> Expr:
        a, b = self.arguments[i], self.arguments[j]
        unit = self.units[a.population]
        names = sorted({x for _, x in unit.noise})
        total = S.Zero
        for x in names:
            ta = Add(*(w * unit.noise.get((f, x), S.Zero) for f, w in a.weights))
            tb = Add(*(w * unit.noise.get((f, x), S.Zero) for f, w in b.weights)).subs(DT, DS)
            total += ta * tb
        return total

    def _drive(self, a: _Argument) -> Expr:
        return Add(*(w * self.units[a.population].drive.get(f, S.Zero) for f, w in a.weights))

    def _constant(self, a: _Argument) -> Expr:
        drive = self._drive(a).xreplace(self.labels)
        return drive.xreplace({q: q.law.mean_() for q in drive.atoms(Quenched)})

    def _static(self, i: int, j: int) -> Expr:
        da, db = self._drive(self.arguments[i]), self._drive(self.arguments[j])
        normal = sorted((da.atoms(Quenched) | db.atoms(Quenched)) - set(self.labels), key=unit_name)
        return Add(*(da.diff(q) * db.diff(q) * q.law.variance_() for q in normal))

    def _responses(self) -> dict[str, Expr]:
        """Response of each state to a kick in its own equation, read off through the unit's own modes."""
        out: dict[str, Expr] = {}
        for unit in self.units.values():
            for state in (f for f in unit.fields if self.action.fields[f].role == "state"):
                out[f"R_{state}"] = unit.own_response[state]
        return out


def with_n(p: StationaryGaussian) -> StationaryGaussian:
    """The problem with N among its parameters, where a power of N stayed in it."""
    rows = [*p.gain, *p.mean_gain, p.noise, p.static, tuple(a.constant for a in p.arguments)]
    kept = any(e.has(N) for row in rows for e in row)
    return replace(p, parameters=(*p.parameters, N)) if kept else p


def _read(c: Contribution, flip: bool) -> tuple[str, str]:
    """The outputs of a contribution to Cov(h_u(t), h_v(s)), the one at t first; `flip` swaps the times."""
    assert c.op is not None
    (first, s1), (second, _) = c.op.atoms
    ordered = (first, second) if c.at[s1] == 0 else (second, first)
    return ordered[::-1] if flip else ordered


def _index(items: list, item: object) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)


def argument_transfers(units: LinearUnits) -> list[dict[str, Expr]]:
    """For every argument of the problem: local field → transfer function from it to the argument."""
    closure = _Closure(units)
    closure.run()
    inputs = [h.name for h in closure.action.of_role("local")]
    return [{h: closure._transfer(a, h) for h in inputs} for a in closure.arguments]
