"""Fields at earlier times: the delay operator, and what a delay does to outputs and to the clock.

x(t − d) = e^{−d·D_t} x in a flow and D_t^{−d} x in a map, whose D_t is the shift by one step. A function of fields that
are all taken at one earlier time is the delayed function of the fields, so its delay can be passed through it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sympy import Expr, Rational, S, Symbol

from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, UnitSymbol
from quenched.theory.problem import DT
from quenched.theory.problem_delays import Delay
from quenched.theory.spaces import t


def delay_of(part: At) -> Expr:
    """d of x(t − d)."""
    return (t - part.time).expand()


def delay_operator(delay: Expr, clock: str, advance: Expr | None = None) -> Expr:
    """The delay as a function of `DT`.

    Raises
    ------
    NotCovered
        For a map, if the delay is not a known whole number of steps.
    """
    if clock == "flow":
        return Delay(delay, DT)
    steps = (delay / (S.One if advance is None else advance)).simplify()
    if not steps.is_Integer:
        raise NotCovered(f"a delay of {steps} steps: fix it to a whole number before deriving, derive(net, d=2)")
    return DT ** (-steps)


def steps_of(part: At, clock: str, advance: Expr) -> Expr:
    """The delay of a field: a time of a flow, a number of steps of a map."""
    delay = delay_of(part)
    return delay if clock == "flow" else (delay / advance).simplify()


def undelayed(body: Expr, present: Iterable[Symbol]) -> tuple[Expr, Expr]:
    """A function of fields at one earlier time, as the same function of the present fields and the delay.

    Where it reads anything else that moves (one of `present`, or time itself), it stays as it is, with the delay 0.
    """
    parts = body.atoms(At)
    times = {delay_of(part) for part in parts}
    bare = body.xreplace({part: S.Zero for part in parts})
    if len(times) != 1 or any(bare.has(s) for s in present) or bare.has(t):
        return body, S.Zero
    return body.xreplace({part: part.field for part in parts}), times.pop()


def explicit_time(expr: Expr) -> bool:
    """Whether an expression depends on time other than through fields at earlier times."""
    return bool(expr.xreplace({part: S.Zero for part in expr.atoms(At)}).has(t))


def longer(expr: Expr) -> Expr:
    """The same with every delay 10 % longer: a mistake that witnesses have to see."""
    late = {a: At(a.field, t - delay_of(a) * Rational(11, 10)) for a in expr.atoms(At)}
    return expr.xreplace(late).replace(Delay, lambda delay, z: Delay(delay * Rational(11, 10), z))


def stand_ins(parts: set[At]) -> dict[At, Symbol]:
    """One real symbol for every field at an earlier time, in a reproducible order."""
    ordered = sorted(parts, key=str)
    return {part: Symbol(f"{_name(part.field)}_past_{k + 1}", real=True) for k, part in enumerate(ordered)}


def _name(field: UnitSymbol) -> str:
    from quenched.theory.naming import unit_name

    return unit_name(field)
