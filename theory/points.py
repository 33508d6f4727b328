"""Step 6, without fluctuations: units that labels and overlaps alone move.

Where no random coupling is left in the local fields, they are averages over units, the same for all of them: every unit
follows its own path, fixed by its quenched numbers and its start, and the averages close on these paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Expr, Rational, S, Symbol, sympify

from quenched.theory.couplings import reads_only
from quenched.theory.distributions import Law, Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Quenched, WhiteNoise
from quenched.theory.lower import SiteField
from quenched.theory.naming import unit_name
from quenched.theory.problem import INDEPENDENT, Label
from quenched.theory.problem_points import PointProblem, PointUnit
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.spaces import N, Population, t


@dataclass(frozen=True)
class PointEquations(Form):
    """Paths of units given their labels, and the averages that they feel."""

    name: ClassVar[str] = "paths of units given their labels"
    problem: PointProblem

    def lines(self) -> list[Line]:
        out = []
        for unit in self.problem.units:
            for x, rhs, start in zip(unit.states, unit.rhs, unit.start, strict=True):
                left = f"d{text(x)}/dt" if self.problem.clock == "flow" else f"{text(x)}(n+1)"
                tex = rf"\frac{{d {latex(x)}}}{{dt}}" if self.problem.clock == "flow" else f"{latex(x)}(n+1)"
                out.append(Line(f"{left} = {text(rhs)}", f"{tex} = {latex(rhs)}", f"start {text(start)}"))
        for symbol, terms in self.problem.numbers:
            plain, tex = signed_sum([(c, f"⟨{text(e)}⟩", rf"\langle {latex(e)} \rangle") for c, _, e in terms])
            out.append(Line(f"{text(symbol)} = {plain}", f"{latex(symbol)} = {tex}", "over units and their labels"))
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for k, unit in enumerate(p.units):
            for kind in ("rhs", "start"):
                row = getattr(unit, kind)
                for i, e in enumerate(row):
                    for label, new in _changes(e):
                        change: dict[str, Any] = {kind: (*row[:i], new, *row[i + 1 :])}
                        changed = replace(unit, **change)
                        units = (*p.units[:k], changed, *p.units[k + 1 :])
                        yield f"{kind} of {unit.states[i]}: {label}", replace(self, problem=replace(p, units=units))
        for k, (symbol, terms) in enumerate(p.numbers):
            for i, (c, u, e) in enumerate(terms):
                for label, new in (("dropped", S.Zero), ("× 1.1", c * Rational(11, 10))):
                    row = (*terms[:i], (new, u, e), *terms[i + 1 :])
                    numbers = (*p.numbers[:k], (symbol, row), *p.numbers[k + 1 :])
                    yield f"{symbol} term {i + 1} {label}", replace(self, problem=replace(p, numbers=numbers))


def _changes(e: Expr) -> Iterator[tuple[str, Expr]]:
    for j, piece in enumerate(e.as_ordered_terms() if e != 0 else ()):
        yield f"term {j + 1} dropped", e - piece
        yield f"term {j + 1} × 1.1", e + piece / 10


@dataclass(frozen=True)
class FollowPaths(Rule):
    """Every unit on its path, given its labels."""

    title: ClassVar[str] = "Paths of units given their labels"
    assumption: ClassVar[str] = "local fields are averages over units: they do not fluctuate as N → ∞"
    model: Any

    def __call__(self, before: Form) -> PointEquations:
        assert isinstance(before, EffectiveProcess)
        return PointEquations(point_problem(before, self.model))


def follows_paths(process: EffectiveProcess) -> bool:
    """Whether nothing fluctuates: no covariance, no memory, no noise, no delay."""
    exprs = [rhs for _, rhs in process.action.equations]
    parts = [c for table in (process.covariance, process.memory) for cs in table.values() for c in cs]
    moving = any(e.atoms(WhiteNoise) or e.atoms(At) for e in exprs) or any(
        f.definition.atoms(At) for f in process.action.of_role("output") if f.definition is not None
    )
    return not parts and not moving and bool(process.mean) and process.action.clock in ("flow", "map")


def point_problem(process: EffectiveProcess, model: Any) -> PointProblem:
    """The problem of an effective process without fluctuations.

    Raises
    ------
    NotCovered
        Powers of N that stay, or a start that reads couplings.
    """
    action = process.action
    grown = next((name for name, rhs in action.equations if rhs.has(N)), None)
    if grown is not None:
        raise NotCovered(f"the equation of {grown} keeps a power of N: sums over members of order one are √N·overlap")
    units = tuple(_unit(process, p, model) for p in action.populations)
    index = {p.name: k for k, p in enumerate(action.populations)}
    symbols = _symbols(process)
    numbers = []
    for h in action.of_role("local"):
        terms = []
        for c in process.mean.get(h.name, ()):
            assert c.op is not None
            out = action.fields[c.op.atoms[0][0]]
            assert out.definition is not None
            if sympify(c.coef).has(N):
                raise NotCovered(f"the local field {h.name} keeps a power of N, {c.coef}")
            terms.append((sympify(c.coef), index[out.population.name], out.definition.xreplace(symbols)))
        numbers.append((h.symbol, tuple(terms)))
    advance = S.One if model.dt is None else model.dt
    return PointProblem("map" if action.clock == "map" else "flow", advance, action.parameters, units, tuple(numbers))


def _symbols(process: EffectiveProcess) -> dict[Expr, Symbol]:
    action = process.action
    exprs = [rhs for _, rhs in action.equations]
    exprs += [f.definition for f in action.of_role("output") if f.definition is not None]
    exprs += [s.symbol.initial for s in action.of_role("state") if isinstance(s.symbol.initial, Expr)]
    quenched = {q for e in exprs for q in e.atoms(Quenched)}
    states = {f.symbol: Symbol(f.name, real=True) for f in action.of_role("state")}
    return {**states, **{q: Symbol(unit_name(q), real=True) for q in quenched}}


def _unit(process: EffectiveProcess, population: Population, model: Any) -> PointUnit:
    action, symbols = process.action, _symbols(process)
    states = [f for f in action.of_role("state") if f.population == population]
    rhs = dict(action.equations)
    labels = [Label(s, q.law) for q, s in symbols.items() if isinstance(q, Quenched) and q.population == population]
    labels.sort(key=lambda label: label.symbol.name)
    start = [_start(f, symbols, labels) for f in states]
    return PointUnit(
        population.name,
        tuple(symbols[f.symbol] for f in states),
        tuple(rhs[f.name].xreplace(symbols) for f in states),
        tuple(start),
        tuple(labels),
    )


def _start(state: SiteField, symbols: dict[Expr, Symbol], labels: list[Label]) -> Expr:
    initial = state.symbol.initial
    if initial is None or isinstance(initial, Law):
        label = Symbol(f"{state.name}_start", real=True)
        labels.append(Label(label, Normal(0, 1) if initial is None else initial))
        return label
    value = sympify(initial).subs(t, 0)
    if not reads_only(value, symbols):
        raise NotCovered(f"the initial value {initial} of {state.name} is correlated with the couplings: {INDEPENDENT}")
    return value.xreplace(symbols)
