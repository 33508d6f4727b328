"""Two copies in time: growth of a small difference about a state that need not be stationary.

The copies share couplings and noise. Around identical copies C^{12} = C + ε k, and Price's theorem gives
δ⟨a b⟩ = ⟨a' b'⟩ k, so that k obeys the equations of C with these sources, and λ = ½ d ln k(t,t)/dt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, Rational, S, Symbol

from quenched.theory.causal import TwoTimeEquations
from quenched.theory.doubled import derivative_pair
from quenched.theory.problem import SiteFunction, TwoPoint
from quenched.theory.problem_causal import TwoTimeProblem
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text


@dataclass(frozen=True)
class Slope:
    """Cov(δh_u(t), δh_v(s)) contains coefficient·⟨f(t) g(s)⟩·k_ab(t, s), k_ab the covariance of what a and b read."""

    first: str
    second: str
    coefficient: Expr
    f: SiteFunction
    g: SiteFunction
    a: int
    b: int


@dataclass(frozen=True)
class CopiesInTime(Form):
    """The covariance k(t, s) between small differences of two copies."""

    name: ClassVar[str] = "two copies in time"
    problem: TwoTimeProblem
    slopes: tuple[Slope, ...]

    def lines(self) -> list[Line]:
        drift = "same equations as C and R" if self.problem.clock == "flow" else "same maps as C and R"
        out = [
            Line("(∂_t − A) k(t,s) = B r(t,s), (∂_s − A) r(t,s) = κ(t,s) Bᵀ",
                 r"(\partial_t - A)\, k(t,s) = B\, r(t,s),\quad (\partial_s - A)\, r(t,s) = \kappa(t,s)\, B^T", drift)
        ]  # fmt: skip
        for s in self.slopes:
            plain, tex = signed_sum([(s.coefficient, *self._average(s))])
            pair = f"{text(Symbol(s.first))},{text(Symbol(s.second))}"
            out.append(Line(f"κ_{pair}(t,s) ∋ {plain}", rf"\kappa_{{{pair}}}(t,s) \ni {tex}"))
        out.append(Line("λ = ½ d ln k(t,t)/dt", r"\lambda = \tfrac12\, d \ln k(t,t)/dt", "averaged over whole periods"))
        return out

    def _average(self, s: Slope) -> tuple[str, str]:
        a, b = (self.problem.outputs[i].name for i in (s.a, s.b))
        plain = f"⟨{text(Symbol(a))}'(t) {text(Symbol(b))}'(s)⟩ k_{text(Symbol(a))},{text(Symbol(b))}(t,s)"
        one, two = latex(Symbol(a)), latex(Symbol(b))
        return plain, rf"\langle {one}'(t)\, {two}'(s) \rangle\, k_{{{one},{two}}}(t,s)"

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, s in enumerate(self.slopes):
            for label, value in (("dropped", S.Zero), ("× 1.1", s.coefficient * Rational(11, 10))):
                changed = replace(s, coefficient=value)
                yield f"slope {k + 1} {label}", replace(self, slopes=(*self.slopes[:k], changed, *self.slopes[k + 1 :]))


@dataclass(frozen=True)
class DoubleInTime(Rule):
    """Two copies with the same disorder and noise, linearised around being identical, at any time."""

    title: ClassVar[str] = "Two copies in time: growth of a small difference"
    assumption: ClassVar[str] = "same couplings and same noise in both copies; infinitesimal difference"
    source: ClassVar[str] = "schuecker2018,engelken2022"

    def __call__(self, before: Form) -> CopiesInTime:
        assert isinstance(before, TwoTimeEquations)
        return CopiesInTime(before.problem, tuple(slopes_of(before.problem)))


def slopes_of(p: TwoTimeProblem) -> Iterator[Slope]:
    """The derivative of every source of the fields' covariances with the covariance that it reads."""
    for s in p.pairs:
        a, b = p.outputs[s.a], p.outputs[s.b]
        f, g = derivative_pair(TwoPoint(a.function, 0, b.function, 1))
        yield Slope(s.first, s.second, s.coefficient, f, g, s.a, s.b)
