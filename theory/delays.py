"""Fields at earlier times: the delay operator, and what a delay does to outputs and to the clock.

x(t − d) = e^{−d·D_t} x in a flow and D_t^{−d} x in a map, whose D_t is the shift by one step. A function of fields that
are all taken at one earlier time is the delayed function of the fields, so its delay can be passed through it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sympy import Add, Expr, Function, Rational, S, Symbol, exp

from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, UnitSymbol
from quenched.theory.problem import DT
from quenched.theory.spaces import t


class Delay(Function):
    """e^{−d·z}, the delay by d as a function of the time derivative z; nothing expands it but a sum in z.

    sympy takes e^{−z} for a denominator e^{z} and mixes it up with polynomials in z: this atom stays one generator.
    """

    nargs = 2

    @classmethod
    def eval(cls, delay: Any, z: Any) -> Expr | None:
        if z == 0 or delay == 0:
            return S.One
        if delay.is_number and z.is_number:
            return exp(-delay * z)
        if isinstance(z, Add) and not z.is_number:
            out: Expr = S.One
            for part in z.args:
                out *= cls(delay, part)
            return out
        return 1 / cls(delay, -z) if z.could_extract_minus_sign() else None

    def fdiff(self, argindex: int = 1) -> Expr:
        delay, z = self.args
        return -(z if argindex == 1 else delay) * self

    def _eval_rewrite_as_exp(self, delay: Expr, z: Expr, **_: Any) -> Expr:
        return exp(-delay * z)

    def _sympystr(self, printer: Any) -> str:
        return str(printer._print(exp(-self.args[0] * self.args[1])))

    def _latex(self, printer: Any, exp: Any = None) -> str:
        power = -self.args[0] * self.args[1] * (1 if exp is None else S(exp))
        return f"e^{{{printer._print(power)}}}"


def as_exponentials(expr: Expr) -> Expr:
    """The same expression with the exponential function in place of `Delay`."""
    return expr.replace(Delay, lambda delay, z: exp(-delay * z))


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
