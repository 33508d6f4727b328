"""Steps 6 and 7: Gaussian averages in closed form, and the stationary state.

In a stationary state a covariance depends on the time difference τ only: ∂_t acts as ∂_τ, ∂_s as −∂_τ (for a map the
shift of s is the inverse shift).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Expr, Rational, S, Symbol, cancel

from quenched.theory.closure import GaussianClosure, problem_mutants
from quenched.theory.closure_print import average_print, common_filter, pair_name
from quenched.theory.gauss import one_point, two_point
from quenched.theory.problem import DS, DT, M1, M2, StationaryGaussian, TwoPoint
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text

D = Symbol("D")


@dataclass(frozen=True)
class ClosedAverages(Form):
    """The closure with every Gaussian average that a rule covers in closed form; the others stay named integrals."""

    name: ClassVar[str] = "Gaussian averages"
    problem: StationaryGaussian
    closure: GaussianClosure

    def lines(self) -> list[Line]:
        p = self.problem
        out = []
        for one in p.one_points:
            out.append(_average_line(average_print(one.f, p.arguments[one.a].name), one.closed, p, one.a))
        for two in p.two_points:
            shown = average_print(two.f, p.arguments[two.a].name, two.g, p.arguments[two.b].name + "′")
            out.append(_average_line(shown, two.closed, p, two.a, two.b))
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for kind in ("one_points", "two_points"):
            points = getattr(p, kind)
            for k, point in enumerate(points):
                if point.closed is None:
                    continue
                for j, piece in enumerate(point.closed.as_ordered_terms()):
                    for label, new in (
                        ("dropped", point.closed - piece),
                        ("× 1.1", point.closed + piece * Rational(1, 10)),
                    ):
                        change: dict[str, Any] = {kind: (*points[:k], replace(point, closed=new), *points[k + 1 :])}
                        yield f"{kind}[{k}] term {j + 1} {label}", replace(self, problem=replace(p, **change))


def _average_line(
    shown: tuple[str, str], closed: Expr | None, p: StationaryGaussian, a: int, b: int | None = None
) -> Line:
    plain, tex = shown
    if closed is None:
        return Line(
            f"{plain} = named Gaussian integral",
            rf"{tex} = \text{{named Gaussian integral}}",
            "no closed form: quadrature",
        )
    return Line(f"{plain} = {text(closed)}", f"{tex} = {latex(closed)}", _slots(p, a, b))


def _slots(p: StationaryGaussian, a: int, b: int | None) -> str:
    x = p.arguments[a].name
    if b is None:
        return f"m_1, v_1: mean and variance of {x}"
    y = p.arguments[b].name
    return f"m_1, v_1 of {x}; m_2, v_2 of {y}; c_12 their covariance at the two times"


@dataclass(frozen=True)
class CloseAverages(Rule):
    """Evaluate Gaussian averages by the rule table."""

    title: ClassVar[str] = "Gaussian averages"
    assumption: ClassVar[str] = "rule table (Price's theorem); what no rule covers stays a named integral"
    source: ClassVar[str] = "price1958"

    def __call__(self, before: Form) -> ClosedAverages:
        assert isinstance(before, GaussianClosure)
        p = before.problem
        centred = {a for a in range(len(p.arguments)) if p.arguments[a].constant == 0 and not any(p.mean_gain[a])}
        ones = tuple(replace(o, closed=one_point(o.f, S.Zero if o.a in centred else M1)) for o in p.one_points)
        twos = tuple(replace(s, closed=close_two(s, centred)) for s in p.two_points)
        return ClosedAverages(replace(p, one_points=ones, two_points=twos), before)


def close_two(point: TwoPoint, centred: set[int]) -> Expr | None:
    """The closed form of ⟨f g⟩; an argument whose mean vanishes by symmetry lets more rules apply."""
    means = (S.Zero if point.a in centred else M1, S.Zero if point.b in centred else M2)
    return two_point(point.f, point.g, means)


@dataclass(frozen=True)
class StationaryState(Form):
    """Equations for functions of the time difference."""

    name: ClassVar[str] = "stationary state"
    problem: StationaryGaussian

    def lines(self) -> list[Line]:
        p = self.problem
        return [stationary_line(p, k) for k in range(len(p.pairs))]

    def equations(self) -> list[tuple[Expr, tuple[Expr, ...], Expr]]:
        """Per pair: the operator L(D) and the coefficients of sources and noise, in the one-time operator D."""
        return [one_time(self.problem, k) for k in range(len(self.problem.pairs))]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for label, problem in problem_mutants(self.problem):
            yield label, StationaryState(problem)


def one_time_rule(clock: str) -> dict[Symbol, Expr]:
    """How the two-time operators act on a function of τ = t − s."""
    return {DT: D, DS: -D} if clock == "flow" else {DT: D, DS: 1 / D}


def one_time(p: StationaryGaussian, k: int) -> tuple[Expr, tuple[Expr, ...], Expr]:
    """(L(D), source coefficients, noise coefficient) of pair k after stationarity."""
    rule = one_time_rule(p.clock)
    common = common_filter(p, k)
    operator = common.xreplace(rule)
    sources = tuple(cancel((g * common).xreplace(rule)) if g != 0 else S.Zero for g in p.gain[k])
    noise = cancel((p.noise[k] * common).xreplace(rule)) if p.noise[k] != 0 else S.Zero
    return operator.expand(), sources, noise


def stationary_line(p: StationaryGaussian, k: int) -> Line:
    operator, sources, noise = one_time(p, k)
    pieces = []
    for coef, two in zip(sources, p.two_points, strict=True):
        if coef != 0:
            x, y = p.arguments[two.a].name, p.arguments[two.b].name + "′"
            pieces.append((coef, *average_print(two.f, x, two.g, y)))
    if noise != 0:
        pieces.append((noise, "δ(τ)", r"\delta(\tau)") if p.clock == "flow" else (noise, "δ_{τ,0}", r"\delta_{\tau 0}"))
    if p.static[k] != 0:
        still = operator.subs(D, 0 if p.clock == "flow" else 1)
        pieces.append((S.One, text(p.static[k] * still), latex(p.static[k] * still)))
    plain, tex = signed_sum(pieces)
    name, name_tex = pair_name(p, k)
    left, left_tex = ("", "") if operator == 1 else (f"[{text(operator)}] ", rf"\left[{latex(operator)}\right] ")
    comment = "D = d/dτ" if p.clock == "flow" else "D shifts τ by one step"
    return Line(f"{left}{name}(τ) = {plain}", rf"{left_tex}{name_tex}(\tau) = {tex}", comment)


@dataclass(frozen=True)
class Stationary(Rule):
    """Look for a state that depends on time differences only."""

    title: ClassVar[str] = "Stationary state"
    assumption: ClassVar[str] = "statistical stationarity: C(t, s) = C(t − s), constant means"

    def __call__(self, before: Form) -> StationaryState:
        assert isinstance(before, ClosedAverages)
        return StationaryState(before.problem)
