"""Leading powers of N in the means: strong inputs that have to cancel.

Where inputs of order √N drive a mean, it can only stay finite if they balance. To leading order that is an equation
between averages of the outputs, and the mean of the state becomes whatever satisfies it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Expr, Rational, S, sqrt

from quenched.theory.causal import TwoTimeEquations, two_time_mutants
from quenched.theory.errors import NotCovered
from quenched.theory.problem_causal import CausalUnit, Constraint, TwoTimeProblem
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.spaces import N


@dataclass(frozen=True)
class BalancedEquations(Form):
    """Two-time equations at N → ∞, with the equations of leading order that fix means."""

    name: ClassVar[str] = "balanced two-time equations"
    problem: TwoTimeProblem

    def lines(self) -> list[Line]:
        return [_constraint_line(self.problem, c) for c in self.problem.constraints]

    def dropped(self) -> list[Line]:
        rows = []
        for c in self.problem.constraints:
            x = self.problem.units[c.unit].states[c.state]
            rows.append(Line(f"∂_t ⟨{x}⟩ / √N", rf"\partial_t \langle {x} \rangle / \sqrt{{N}}", "O(1/√N) beside it"))
        return rows

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for label, problem in two_time_mutants(p):
            yield label, BalancedEquations(problem)
        for k, c in enumerate(p.constraints):
            for label, changed in _constraint_mutants(c):
                rows = (*p.constraints[:k], changed, *p.constraints[k + 1 :])
                yield f"balance {k + 1}: {label}", BalancedEquations(replace(p, constraints=rows))


def _constraint_mutants(c: Constraint) -> Iterator[tuple[str, Constraint]]:
    if c.inflow != 0:
        yield "inflow dropped", replace(c, inflow=S.Zero)
        yield "inflow × 1.1", replace(c, inflow=c.inflow * Rational(11, 10))
    for j, (k, output) in enumerate(c.terms):
        yield f"term {j + 1} dropped", replace(c, terms=(*c.terms[:j], *c.terms[j + 1 :]))
        scaled = (k * Rational(11, 10), output)
        yield f"term {j + 1} × 1.1", replace(c, terms=(*c.terms[:j], scaled, *c.terms[j + 1 :]))


def _constraint_line(p: TwoTimeProblem, c: Constraint) -> Line:
    pieces = [] if c.inflow == 0 else [(S.One, text(c.inflow), latex(c.inflow))]
    for k, output in c.terms:
        name = p.outputs[output].name
        pieces.append((k, f"⟨{text(_symbol(name))}⟩", rf"\langle {latex(_symbol(name))} \rangle"))
    plain, tex = signed_sum(pieces)
    x = p.units[c.unit].states[c.state]
    return Line(f"{plain} = 0", f"{tex} = 0", f"order √N; at every time it fixes the mean of {x}")


def _symbol(name: str) -> Expr:
    from sympy import Symbol

    return Symbol(name)


@dataclass(frozen=True)
class Balance(Rule):
    """Let N → ∞ where inputs of order √N cancel."""

    title: ClassVar[str] = "Balance of strong inputs, N → ∞"
    assumption: ClassVar[str] = "the state stays finite, so that inputs of order √N cancel at every time"
    source: ClassVar[str] = "vanvreeswijk1996"

    def __call__(self, before: Form) -> BalancedEquations:
        assert isinstance(before, TwoTimeEquations)
        return BalancedEquations(balanced(before.problem))


def has_powers(p: TwoTimeProblem) -> bool:
    """Whether powers of N stay in the problem."""
    return N in p.parameters


def balanced(p: TwoTimeProblem) -> TwoTimeProblem:
    """The problem at N → ∞: terms of order √N of each mean become a constraint, smaller ones vanish.

    Raises
    ------
    NotCovered
        For other growing powers of N, or powers of N in covariances or in the units themselves.
    """
    for what, entries in (("a covariance of local fields", [s.coefficient for s in p.pairs]), *_inside(p)):
        for e in entries:
            if e.has(N) and (grown := _grows(e)):
                raise NotCovered(f"{what} grows with N ({grown}): only means of order √N are balanced")
    constraints, units = [], []
    for u, unit in enumerate(p.units):
        drives = []
        for i, drive in enumerate(unit.drive):
            lead, rest = _split(drive)
            strong = _strong_terms(p, unit, i)
            drives.append(rest)
            if lead != 0 or strong:
                if lead.free_symbols & {q.symbol for q in unit.labels}:
                    raise NotCovered(f"the input √N·({lead}) of {unit.states[i]} differs from unit to unit")
                constraints.append(Constraint(u, i, lead, strong))
        units.append(replace(unit, drive=tuple(drives)))
    means = tuple(replace(s, coefficient=_split(s.coefficient)[1]) for s in p.means)
    pairs = tuple(replace(s, coefficient=_split(s.coefficient)[1]) for s in p.pairs)
    return replace(
        p,
        parameters=tuple(s for s in p.parameters if s != N),
        units=tuple(units),
        means=tuple(s for s in means if s.coefficient != 0),
        pairs=pairs,
        constraints=tuple(constraints),
    )


def _inside(p: TwoTimeProblem) -> Iterator[tuple[str, list[Expr]]]:
    for unit in p.units:
        entries = [e for block in (unit.drift, unit.feed, unit.noise) for row in block for e in row]
        yield f"the unit of {unit.population}", entries


def _strong_terms(p: TwoTimeProblem, unit: CausalUnit, i: int) -> tuple[tuple[Expr, int], ...]:
    out = []
    for h, gain in zip(unit.fields, unit.feed[i], strict=True):
        for s in p.means:
            if s.field == h:
                lead, _ = _split(gain * s.coefficient)
                if lead != 0:
                    out.append((lead, s.output))
    return tuple(out)


def _split(expr: Expr) -> tuple[Expr, Expr]:
    """(coefficient of √N, what stays at N → ∞)."""
    lead, stay = S.Zero, S.Zero
    for term in Add.make_args(expr.expand()):
        power = term.as_powers_dict().get(N, S.Zero)
        rest = term / N**power
        if rest.has(N) or power > Rational(1, 2):
            raise NotCovered(f"the term {term} grows faster than √N: the state cannot stay finite")
        if power == Rational(1, 2):
            lead += (term / sqrt(N)).expand()
        elif power == 0:
            stay += term
        elif power > 0:
            raise NotCovered(f"the term {term} grows as N^({power}): only inputs of order √N are balanced")
    return lead, stay


def _grows(expr: Expr) -> Expr | None:
    for term in Add.make_args(expr.expand()):
        if term.as_powers_dict().get(N, S.Zero) > 0:
            return term
    return None
