"""Step 5b: eliminate populations whose units are linear in what couplings give them.

Such a unit (a stored pattern, a mode, a filter) has h = ζ + M ψ and ψ = L h, with M made of the responses G of other
units: so ψ = T ζ with T = L (1 − M L)⁻¹, an operator in time for every value of the unit's labels. What the others feel
of it is the average of T over the labels, a memory, and that of T C T†, a noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Dummy, Expr, I, Matrix, S, Symbol, cancel, eye, zeros

from quenched.theory.errors import NotCovered
from quenched.theory.label_means import label_mean
from quenched.theory.linear import NeedsTrajectories, solve_unit
from quenched.theory.lower import CopiedAction, SiteField
from quenched.theory.problem import DS, DT
from quenched.theory.readoff import Contribution, EffectiveProcess, Operator
from quenched.theory.record import Form, Rule


@dataclass(frozen=True)
class EliminateLinear(Rule):
    """Solve linear populations for what they return to the others."""

    title: ClassVar[str] = "Linear populations eliminated"
    assumption: ClassVar[str] = (
        "their units are linear, without noise and means; operators in time as series in the responses G"
    )
    source: ClassVar[str] = "jiang2022"

    def __call__(self, before: Form) -> EffectiveProcess:
        assert isinstance(before, EffectiveProcess)
        for population in linear_populations(before):
            before = eliminate(before, population)
        return before


def linear_populations(process: EffectiveProcess) -> list[str]:
    """Populations that can be eliminated: other units remain, and feel theirs through couplings alone."""
    found = [p.name for p in process.action.populations if _fits(process, p.name)]
    return found if len(found) < len(process.action.populations) else []


def _fits(process: EffectiveProcess, population: str) -> bool:
    """Whether units are linear, memory apart, and remember through the responses of other units."""
    mine = _of(process.action, population)
    remembered = [c for h, parts in process.memory.items() if h in mine for c in parts]
    if not remembered or any(c.kernels or c.op is None or c.op.population == population for c in remembered):
        return False
    if any(process.mean.get(h) for h in mine):
        return False
    try:
        return bool(_gains(process, population)[2])
    except NotCovered:
        return False


def _of(action: CopiedAction, population: str) -> dict[str, SiteField]:
    return {name: f for name, f in action.fields.items() if f.population.name == population}


def _gains(process: EffectiveProcess, population: str) -> tuple[list[str], list[str], Matrix]:
    """Names of local fields and outputs of a linear unit, and L with ψ = L h, memory left aside."""
    mine = _of(process.action, population)
    bare = replace(process, memory={h: parts for h, parts in process.memory.items() if h not in mine})
    unit = solve_unit(bare, population)
    locals_ = [f.name for f in mine.values() if f.role == "local"]
    outputs = [f for f in mine.values() if f.role == "output"]
    variables = {f.symbol: f.name for f in mine.values() if f.role in ("state", "local")}
    rows = []
    for out in outputs:
        assert out.definition is not None
        slopes = {name: out.definition.diff(s) for s, name in variables.items()}
        rest = out.definition - sum((slopes[name] * s for s, name in variables.items()), S.Zero)
        if rest.expand() != 0 or any(e.has(*variables) for e in slopes.values()):
            raise NeedsTrajectories(f"the output {out.name} is not linear")
        rows.append([sum((w * unit.transfer[f, h] for f, w in slopes.items()), S.Zero) for h in locals_])
    if any(e != 0 for e in (*unit.noise.values(), *unit.drive.values())):
        raise NotCovered(f"the units of {population!r} have noise or input of their own")
    return locals_, [o.name for o in outputs], Matrix(rows)


def eliminate(process: EffectiveProcess, population: str) -> EffectiveProcess:
    """The effective process of the other populations.

    Raises
    ------
    NotCovered
        A local field of the others that reads the population's mean, or covariances of it with others.
    """
    locals_, outputs, L = _gains(process, population)
    operators = list(process.operators)
    M = zeros(len(locals_), len(outputs))
    for i, h in enumerate(locals_):
        for c in process.memory.get(h, ()):
            M[i, outputs.index(c.output)] += c.coef * _operator(c, operators, process.action)
    T = (L * (eye(len(locals_)) - M * L).inv()).applyfunc(cancel)
    small = [s for o in operators for s in (o.symbol, o.adjoint)]
    dagger = adjoint_rule(operators)
    memory = {
        h: tuple(_returned(c, outputs, locals_, T, small) for c in parts)
        for h, parts in process.memory.items()
        if h not in locals_
    }
    covariance = {
        pair: tuple(made for c in parts for made in _noise(c, process, outputs, locals_, T, T.applyfunc(dagger), small))
        for pair, parts in process.covariance.items()
        if not set(pair) & set(locals_)
    }
    kept = {name: f for name, f in process.action.fields.items() if f.population.name != population}
    uses = tuple(u for u in process.action.uses if all(a in kept for a, _ in (*u.row, *u.col)))
    return EffectiveProcess(
        replace(process.action, fields=kept, uses=uses),
        covariance,
        {h: parts for h, parts in process.mean.items() if h not in locals_},
        {h: tuple(c for c in parts if c.coef != 0) for h, parts in memory.items()},
        tuple(operators),
    )


def adjoint_rule(operators: list[Operator]) -> Callable[[Expr], Expr]:
    """T ↦ T†: operators act on the other time, modes are conjugated."""
    swap: dict[Expr, Expr] = {o.symbol: o.adjoint for o in operators}
    swap |= {o.adjoint: o.symbol for o in operators}
    hold = Dummy()

    def turned(e: Expr) -> Expr:
        return e.xreplace({**swap, DT: hold, DS: DT, I: -I}).xreplace({hold: DS})

    return turned


def _operator(c: Contribution, operators: list[Operator], action: CopiedAction) -> Symbol:
    """The symbol of a response as an operator in time, noted if it is new."""
    assert c.op is not None
    (psi,) = (a for a, _ in c.op.atoms if action.fields[a].role != "hat")
    (hat,) = (a for a, _ in c.op.atoms if action.fields[a].role == "hat")
    known = next((o for o in operators if (o.output, o.field) == (psi, hat.removeprefix("hat_"))), None)
    if known is None:
        mark = f"_{len(operators) + 1}" if operators else ""
        known = Operator(Symbol(f"G{mark}"), Symbol(f"G{mark}†"), psi, hat.removeprefix("hat_"), c.op.population)
        operators.append(known)
    return known.symbol


def _returned(c: Contribution, outputs: list[str], locals_: list[str], T: Matrix, small: list[Symbol]) -> Contribution:
    """A memory term through the population: coefficient·⟨T⟩ as an operator on the output."""
    if c.op is None or not any(a in outputs for a, _ in c.op.atoms):
        return c
    (psi,) = (a for a, _ in c.op.atoms if a in outputs)
    (hat,) = (a.removeprefix("hat_") for a, _ in c.op.atoms if a.removeprefix("hat_") in locals_)
    entry = T[outputs.index(psi), locals_.index(hat)]
    return Contribution(c.coef * label_mean(entry, small), None, (0, 1), output=c.output)


def _noise(
    c: Contribution,
    process: EffectiveProcess,
    outputs: list[str],
    locals_: list[str],
    T: Matrix,
    dagger: Matrix,
    small: list[Symbol],
) -> Iterator[Contribution]:
    """A covariance through the population: coefficient·⟨T (noise of its fields) T†⟩."""
    assert c.op is not None
    if not any(a in outputs for a, _ in c.op.atoms):
        yield c
        return
    if c.kernels:
        raise NotCovered("couplings that are redrawn between steps, through an eliminated population")
    (first, s1), (second, _) = c.op.atoms
    b, d = (first, second) if c.at[s1] == 0 else (second, first)
    for (u, v), parts in process.covariance.items():
        if u not in locals_:
            continue
        for h, k, flip in [(u, v, False)] + ([(v, u, True)] if u != v else []):
            gain = T[outputs.index(b), locals_.index(h)] * dagger[outputs.index(d), locals_.index(k)]
            factor = label_mean(cancel(gain), small)
            for own in parts:
                at = tuple(1 - s for s in own.at) if flip else own.at
                if factor != 0:
                    yield replace(own, coef=c.coef * factor * own.coef, at=at)


__all__ = ["EliminateLinear", "eliminate", "linear_populations"]
