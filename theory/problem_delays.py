"""The delay operator in filters of self-consistency problems."""

from __future__ import annotations

from typing import Any

from sympy import Add, Expr, Function, S, exp


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
