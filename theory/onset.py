"""How activity sets in where silence loses its stability: the average over units to second order in itself.

Next to the loss activity is weak and slow, so units are at rest in the field of the others. Their state is a power
series in that Gaussian field, and its moments turn the definition of the average C into C = L C + Q C² + …: silence is
stable for L < 1, activity sets in continuously where Q < 0, and jumps, with a range of both, where Q > 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, Rational, S, Symbol, cancel, factor_terms

from quenched.theory.counting import ORDER, UnitsAtRest
from quenched.theory.errors import NotCovered
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text


@dataclass(frozen=True)
class WeakActivity(Form):
    """C = linear·C + cubic·C² + O(C³), with C the average over units of `units`.

    Attributes
    ----------
    units : what is expanded
    linear, cubic : in the parameters
    """

    name: ClassVar[str] = "weak activity"
    units: UnitsAtRest
    linear: Expr
    cubic: Expr

    @property
    def parameters(self) -> tuple[Symbol, ...]:
        return self.units.parameters

    def lines(self) -> list[Line]:
        return [
            Line("C = L C + Q C² + O(C³)", r"C = L\, C + Q\, C^2 + O(C^3)", f"C = ⟨{text(self.units.average)}⟩"),
            Line(f"L = {text(self.linear)}", f"L = {latex(self.linear)}", "silence is stable where L < 1"),
            Line(
                f"Q = {text(self.cubic)}",
                f"Q = {latex(self.cubic)}",
                "continuous onset C ≈ (L − 1)/(−Q) where Q < 0, coexistence below the onset where Q > 0",
            ),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        yield "L × 1.1", replace(self, linear=self.linear * Rational(11, 10))
        for k, piece in enumerate(self.cubic.expand().as_ordered_terms()):
            yield f"term {k + 1} of Q dropped", replace(self, cubic=self.cubic - piece)
            yield f"term {k + 1} of Q × 1.1", replace(self, cubic=self.cubic + piece / 10)


@dataclass(frozen=True)
class ExpandActivity(Rule):
    """Solve a unit at rest in powers of its field, and average over the Gaussian field."""

    title: ClassVar[str] = "Weak activity next to silence"
    assumption: ClassVar[str] = "activity becomes slow where it becomes weak; silence loses its stability at zero rate"
    source: ClassVar[str] = "clark2024"

    def __call__(self, before: Form) -> WeakActivity:
        assert isinstance(before, UnitsAtRest)
        return weak_activity(before)


def weak_activity(units: UnitsAtRest) -> WeakActivity:
    """The average over units to second order in itself.

    Raises
    ------
    NotCovered
        Where silence is no state, or outputs are not smooth there.
    """
    x, b = units.state, -units.drift
    f = _powers(units.average, x, 4)
    if any(p.xreplace({x: S.Zero}) != 0 for p in (b, *(units.average.diff(x, n) for n in (0, 1)))):
        raise NotCovered("activity is expanded about silence, which is no state of these units")
    if units.variance.xreplace({ORDER: S.Zero}) != 0:
        raise NotCovered("activity is expanded about silence: here the field of a unit has a variance without activity")
    one, two, three = (_powers(b, x, 3)[n].xreplace({ORDER: S.Zero}) for n in (1, 2, 3))
    stiffer = b.diff(x).diff(ORDER).xreplace({x: S.Zero, ORDER: S.Zero})
    v1, v2 = (units.variance.diff(ORDER, n).xreplace({ORDER: S.Zero}) / n for n in (1, 2))
    if one == 0:
        raise NotCovered("activity is expanded about silence: a unit without input does not return to it at a rate")
    # x = ζ/b₁ − b₂ζ²/b₁³ + (2b₂² − b₁b₃)ζ³/b₁⁵ + …, and ⟨ζ⁴⟩ = 3⟨ζ²⟩²
    fourth = f[2] * (5 * two**2 - 2 * one * three) / one**6 - 3 * f[3] * two / one**5 + f[4] / one**4
    cubic = f[2] * v2 / one**2 - 2 * f[2] * v1 * stiffer / one**3 + 3 * v1**2 * fourth
    return WeakActivity(units, cancel(f[2] * v1 / one**2), factor_terms(cancel(cubic)))


def _powers(expr: Expr, x: Symbol, highest: int) -> list[Expr]:
    """Coefficients of the Taylor series at zero.

    Raises
    ------
    NotCovered
        If there is none.
    """
    out, derivative, factorial = [], expr, 1
    for n in range(highest + 1):
        out.append(derivative.xreplace({x: S.Zero}).doit() / factorial)
        derivative, factorial = derivative.diff(x), factorial * (n + 1)
    if any((not c.is_finite and c.is_finite is not None) or c.has(S.NaN, S.ComplexInfinity) for c in out):
        raise NotCovered(f"activity is expanded about silence, where {expr} is not smooth")
    return out


__all__ = ["ExpandActivity", "WeakActivity", "weak_activity"]
