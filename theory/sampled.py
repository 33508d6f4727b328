"""Step 6, other branch: units that are not Gaussian, as processes whose trajectories are to be sampled.

Memory, gates and nonlinear units end here: the effective process is complete, but its averages have no closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Expr, Rational, S, Symbol, sympify

from quenched.theory.couplings import reads_only
from quenched.theory.delays import stand_ins, steps_of
from quenched.theory.distributions import Law, Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Quenched, WhiteNoise
from quenched.theory.lower import SiteField
from quenched.theory.naming import unit_name
from quenched.theory.problem import CORRELATED, Label, OperatorSymbol, SampledUnit, SiteProcess
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.spaces import t
from quenched.theory.terms import PAST


@dataclass(frozen=True)
class SampledUnits(Form):
    """The effective process as a sampling problem, with the reason why nothing simpler does."""

    name: ClassVar[str] = "sampled units"
    problem: SiteProcess
    reason: str

    def lines(self) -> list[Line]:
        return [
            Line(
                f"site averages ⟨…⟩ run over trajectories: {self.reason}",
                r"\langle \ldots \rangle = \text{average over trajectories}",
            )
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for kind in ("covariance", "means", "memory", "bonds", "filters"):
            rows = getattr(p, kind)
            for k, row in enumerate(rows):
                place = 2 if kind == "covariance" else 1
                scaled = (*row[:place], row[place] * Rational(11, 10), *row[place + 1 :])
                for label, changed in (("dropped", rows[k + 1 :]), ("× 1.1", (scaled, *rows[k + 1 :]))):
                    change: dict[str, Any] = {kind: (*rows[:k], *changed)}
                    problem = replace(p, **change)
                    yield f"{kind} {k + 1} {label}", replace(self, problem=problem)
        for k, unit in enumerate(p.units):
            for j, (s, x, delay) in enumerate(unit.earlier):
                late = (*unit.earlier[:j], (s, x, delay * Rational(11, 10)), *unit.earlier[j + 1 :])
                units = (*p.units[:k], replace(unit, earlier=late), *p.units[k + 1 :])
                yield f"delay {j + 1} of {x} × 1.1", replace(self, problem=replace(p, units=units))
            for j, law in enumerate(unit.starts):
                starts = (
                    *unit.starts[:j],
                    Normal(0, 2) if law == Normal(0, 1) else Normal(0, 1),
                    *unit.starts[j + 1 :],
                )
                units = (*p.units[:k], replace(unit, starts=starts), *p.units[k + 1 :])
                yield f"another start of {unit.states[j]}", replace(self, problem=replace(p, units=units))
            for j, rhs in enumerate(unit.rhs):
                for i, piece in enumerate(rhs.as_ordered_terms()):
                    for label, new in (("dropped", rhs - piece), ("× 1.1", rhs + piece / 10)):
                        changed_unit = replace(unit, rhs=(*unit.rhs[:j], new, *unit.rhs[j + 1 :]))
                        units = (*p.units[:k], changed_unit, *p.units[k + 1 :])
                        name = f"term {i + 1} of {unit.states[j]} {label}"
                        yield name, replace(self, problem=replace(p, units=units))


@dataclass(frozen=True)
class SampleUnits(Rule):
    """Hand the effective process to a sampler of trajectories."""

    title: ClassVar[str] = "Units as sampled trajectories"
    assumption: ClassVar[str] = "Gaussian local fields with the self-consistent covariance"
    source: ClassVar[str] = "eissfeller1992"
    reason: str

    def __call__(self, before: Form) -> SampledUnits:
        assert isinstance(before, EffectiveProcess)
        return SampledUnits(sampled_process(before), self.reason)


def sampled_process(process: EffectiveProcess) -> SiteProcess:
    """The sampling problem of an effective process.

    Raises
    ------
    NotCovered
        For noise inside products, or outputs that read local fields.
    """
    act = process.action
    symbols: dict[Expr, Symbol] = {
        f.symbol: Symbol(f.name, real=True) for f in act.fields.values() if f.role == "state"
    }
    units = tuple(_unit(process, pop.name, symbols) for pop in act.populations)
    return SiteProcess(
        "map" if act.clock == "map" else "flow",
        act.parameters,
        units,
        tuple(_covariances(process)),
        tuple((_field(process, u), c.coef, _output(c, 0)) for u, cs in process.mean.items() for c in cs),
        tuple(_memories(process)),
        tuple(_bonds(process)),
        tuple(_filters(process)),
        tuple(OperatorSymbol(o.symbol, o.adjoint, o.output, o.field) for o in process.operators),
        S.One if act.clock == "flow" else act.advance,
    )


def _unit(process: EffectiveProcess, population: str, symbols: dict[Expr, Symbol]) -> SampledUnit:
    act = process.action
    mine = [f for f in act.fields.values() if f.population.name == population]
    states = [f for f in mine if f.role == "state"]
    rhs = dict(act.equations)
    outputs = [f for f in mine if f.role == "output"]
    bodies = [rhs[s.name] for s in states] + [o.definition for o in outputs if o.definition is not None]
    noises = sorted({n for b in bodies for n in b.atoms(WhiteNoise)}, key=unit_name)
    quenched = sorted({q for b in bodies for q in b.atoms(Quenched)}, key=unit_name)
    past = stand_ins({a for b in bodies for a in b.atoms(At)})
    swap = symbols | {q: Symbol(unit_name(q), real=True) for q in (*noises, *quenched)} | past
    fields = [f.symbol for f in mine if f.role == "local"]
    for o in outputs:
        read = [h for h in fields if o.definition is not None and o.definition.has(h)]
        if read:
            raise NotCovered(f"the output {o.name} reads the local field {read[0]} directly: no stationary solver yet")
    for name in (s.name for s in states):
        for n in noises:
            if rhs[name].diff(n).free_symbols & (set(symbols) | set(fields)) or rhs[name].diff(n).atoms(At):
                raise NotCovered(f"the noise {n.name} in the equation of {name} depends on the state: no sampler yet")
    return SampledUnit(
        population,
        tuple(symbols[s.symbol] for s in states),
        tuple(fields),
        tuple(swap[n] for n in noises),
        tuple(rhs[s.name].xreplace(swap) for s in states),
        tuple((o.symbol, o.definition.xreplace(swap)) for o in outputs if o.definition is not None),
        tuple(Label(swap[q], q.law) for q in quenched),
        tuple((s, symbols[a.field], steps_of(a, act.clock, act.advance)) for a, s in past.items()),
        tuple(_start(s, swap) for s in states),
    )


def _start(state: SiteField, swap: dict[Expr, Symbol]) -> Any:
    """The declared law or value of a state at the start (default: standard normal)."""
    initial = state.symbol.initial
    if initial is None:
        return Normal(0, 1)
    if isinstance(initial, Law):
        return initial
    value = sympify(initial).subs(t, 0)
    return value.xreplace(swap) if reads_only(value, swap) else CORRELATED


def _field(process: EffectiveProcess, name: str) -> Symbol:
    return process.action.fields[name].symbol


def _output(c: Contribution, slot: int) -> Symbol:
    """The output of an order parameter at one of its slots."""
    assert c.op is not None
    return Symbol(next(a for a, s in c.op.atoms if s == slot and not a.startswith("hat_")), real=True)


def _covariances(process: EffectiveProcess):  # type: ignore[no-untyped-def]
    for (u, v), parts in process.covariance.items():
        for c in parts:
            assert c.op is not None
            if c.kernels:
                raise NotCovered("couplings that are redrawn between steps: no stationary solver yet")
            names = [a for a, _ in c.op.atoms]
            slots = [c.at[s] for _, s in c.op.atoms]
            first, second = (names[slots.index(0)], names[slots.index(1)])
            yield _field(process, u), _field(process, v), c.coef, Symbol(first, real=True), Symbol(second, real=True)


def _memories(process: EffectiveProcess):  # type: ignore[no-untyped-def]
    for u, parts in process.memory.items():
        for c in parts:
            if c.kernels or c.op is None:
                continue
            hat = next(a for a, _ in c.op.atoms if a.startswith("hat_"))
            out = next(a for a, _ in c.op.atoms if not a.startswith("hat_"))
            kicked = _field(process, hat.removeprefix("hat_"))
            yield _field(process, u), c.coef, Symbol(out, real=True), kicked, Symbol(c.output, real=True)


def _filters(process: EffectiveProcess) -> Iterator[tuple[Symbol, Expr, Symbol]]:
    """Memory through eliminated populations: operators in time."""
    for u, parts in process.memory.items():
        for c in parts:
            if c.op is None:
                yield _field(process, u), c.coef, Symbol(c.output, real=True)


def _bonds(process: EffectiveProcess):  # type: ignore[no-untyped-def]
    """Memory of dynamic couplings: the order parameter's field at t first, the one at the earlier time second."""
    memories = {PAST + m.name: m for m in getattr(process.action, "memories", ())}
    for u, parts in process.memory.items():
        for c in parts:
            for kind, _ in c.kernels:
                assert c.op is not None
                (now,) = (Symbol(a, real=True) for a, slot in c.op.atoms if c.at[slot] == 0)
                (then,) = (Symbol(a, real=True) for a, slot in c.op.atoms if c.at[slot] == 1)
                m = memories[kind]
                yield _field(process, u), c.coef * m.factor, m.rate, now, then, Symbol(c.output, real=True)
