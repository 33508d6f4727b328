"""Step 7b: the conservative form of a one-field stationary problem.

If the stationary equation is (a − b ∂²)Δ = Σ_k w_k ⟨f_k g_k⟩(Δ; Δ0) + …, its right side is a gradient: by Price's
theorem ∂⟨F G⟩/∂Δ = ⟨f g⟩ for antiderivatives F, G. Then Δ(τ) is a particle in a potential, and the energy condition
replaces a search among functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, Integral, Poly, Rational, S, Symbol, cancel

from quenched.theory.closure_print import average_print
from quenched.theory.errors import NotCovered
from quenched.theory.gauss import antiderivative
from quenched.theory.problem import DS, DT, LAMBDA, PotentialProblem, SiteFunction, StationaryGaussian, TwoPoint
from quenched.theory.problem_delays import Delay
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, signed_sum, text
from quenched.theory.stationary import D, StationaryState, close_two, one_time


@dataclass(frozen=True)
class ConservativeForm(Form):
    """The potential, the energy condition and the marginal condition of a one-field problem."""

    name: ClassVar[str] = "potential"
    potential: PotentialProblem

    def lines(self) -> list[Line]:
        q = self.potential
        x = q.full.arguments[0].name
        force = [(w, *average_print(s.f, x, s.g, x + "′")) for w, s in zip(q.weights, q.sources, strict=True)]
        if q.static != 0:
            force.append((S.One, text(q.static), latex(q.static)))
        if q.kick != 0:
            force.append((2 * q.kick, "δ(τ)", r"\delta(\tau)"))
        plain, tex = signed_sum([(q.stiffness, "Δ", r"\Delta")] + [(-c, a, b) for c, a, b in force])
        head = "" if q.inertia == 1 else text(q.inertia) + "·"
        head_tex = "" if q.inertia == 1 else latex(q.inertia) + r"\,"
        energy = [(S.One / 2 * q.kick**2 / q.inertia, "", "")] if q.kick != 0 else []
        left = (text(energy[0][0]) + " + " if energy else "") + "V(Δ0)"
        left_tex = (latex(energy[0][0]) + " + " if energy else "") + r"V(\Delta_0)"
        out = [
            Line(f"{head}Δ''(τ) = {plain}", rf"{head_tex}\Delta''(\tau) = {tex}", "Newton's law"),
            self._potential_line(x),
            Line(
                f"{left} = V(Δ∞),  V'(Δ∞) = 0",
                rf"{left_tex} = V(\Delta_\infty),\quad V'(\Delta_\infty) = 0",
                "energy condition",
            ),
        ]
        if q.kick != 0:
            out.append(
                Line(
                    f"Δ'(0+) = {text(-q.kick / q.inertia)}",
                    rf"\Delta'(0^+) = {latex(-q.kick / q.inertia)}",
                    "kick by the noise",
                )
            )
        for s in q.potentials:
            for f in dict.fromkeys((s.f, s.g)):
                mark = "an integral: no closed antiderivative" if f.expr.has(Integral) else ""
                out.append(equation_line(Symbol(f.name), f.expr, mark))
        return out

    def _potential_line(self, x: str) -> Line:
        q = self.potential
        pieces = [(-q.stiffness / 2, "Δ²", r"\Delta^2")]
        if q.static != 0:
            pieces.append((q.static, "Δ", r"\Delta"))
        pieces += [(w, *average_print(s.f, x, s.g, x + "′")) for w, s in zip(q.weights, q.potentials, strict=True)]
        plain, tex = signed_sum(pieces)
        return Line(f"V(Δ) = {plain}", rf"V(\Delta) = {tex}", "potential")

    def mutants(self) -> Iterator[tuple[str, Form]]:
        q = self.potential
        for name in ("inertia", "stiffness", "kick", "static", "growth_stiffness"):
            value = getattr(q, name)
            if value != 0:
                yield f"{name} dropped", ConservativeForm(replace(q, **{name: S.Zero}))
                yield f"{name} × 1.1", ConservativeForm(replace(q, **{name: value * Rational(11, 10)}))
        for k, w in enumerate(q.weights):
            for label, new in (("dropped", S.Zero), ("× 1.1", w * Rational(11, 10))):
                yield (
                    f"weight {k + 1} {label}",
                    ConservativeForm(replace(q, weights=(*q.weights[:k], new, *q.weights[k + 1 :]))),
                )
        for k, s in enumerate(q.potentials):
            scaled = replace(s, f=SiteFunction(s.f.name, s.f.expr * Rational(11, 10)), closed=None)
            yield (
                f"potential {k + 1} × 1.1",
                ConservativeForm(replace(q, potentials=(*q.potentials[:k], scaled, *q.potentials[k + 1 :]))),
            )


@dataclass(frozen=True)
class IntegrateOnce(Rule):
    """Find the conserved energy of the stationary equation."""

    title: ClassVar[str] = "Potential and energy condition"
    assumption: ClassVar[str] = "one covariance, filter of second order in d/dτ; Δ tends to a constant at large τ"
    source: ClassVar[str] = "sompolinsky1988"

    def __call__(self, before: Form) -> ConservativeForm:
        assert isinstance(before, StationaryState)
        return ConservativeForm(potential_problem(before.problem))


class NoPotential(NotCovered):
    """A stationary problem without a conserved energy, with the reason."""


def potential_problem(p: StationaryGaussian) -> PotentialProblem:
    """The conservative form of a stationary problem.

    Raises
    ------
    NoPotential
        With the reason: a map, several coupled covariances, or a filter that is not a − b·d²/dτ².
    """
    if p.clock == "map":
        raise NoPotential("no potential: a map has a difference equation, not a second-order differential one")
    if p.closure != 1 or p.pairs[0][0] != p.pairs[0][1]:
        raise NoPotential(f"no potential: {p.closure} covariances are coupled, and their force need not be a gradient")
    if p.pairs[0] != (0, 0):
        raise NoPotential("no potential: the covariance that closes is not that of the first argument")
    name = p.arguments[0].name
    if any(e.has(Delay) for e in (*p.gain[0], p.noise[0])):
        raise NoPotential(f"no potential: delays stand between {name} and the growth of its perturbations")
    operator, sources, noise = one_time(p, 0)
    poly = Poly(operator, D)
    if poly.degree() > 2:
        raise NoPotential(
            f"no potential: the filter of {name} has order {poly.degree()} in d/dτ, a particle needs order 2"
        )
    if any(Poly(e, D).degree() > 0 for e in (*sources, noise) if e.has(D)):
        raise NoPotential(f"no potential: the equation of C_{name} has derivatives acting on its sources")
    if poly.degree() != 2 or poly.coeff_monomial(D) != 0:
        raise NoPotential(f"no potential: the filter of {name} is {operator}, a particle needs a − b·D²")
    stiffness, inertia = poly.coeff_monomial(1), -poly.coeff_monomial(D**2)
    weights = tuple(w for w in sources if w != 0)
    used = tuple(s for s, w in zip(p.two_points, sources, strict=True) if w != 0)
    return PotentialProblem(
        full=p,
        inertia=inertia,
        stiffness=stiffness,
        kick=noise / 2,
        static=p.static[0] * stiffness,
        weights=weights,
        sources=used,
        potentials=tuple(_lift(p, s) for s in used),
        growth_stiffness=growth_stiffness(p, inertia),
    )


def _lift(p: StationaryGaussian, s: TwoPoint) -> TwoPoint:
    """⟨F G⟩ for ⟨f g⟩ (inverse Price), closed where a rule knows it."""
    big = TwoPoint(antiderivative(s.f), s.a, antiderivative(s.g), s.b)
    if big.f.expr.has(Integral) or big.g.expr.has(Integral):
        return big
    centred = {a for a in (s.a, s.b) if p.arguments[a].constant == 0 and not any(p.mean_gain[a])}
    return replace(big, closed=close_two(big, centred))


def growth_stiffness(p: StationaryGaussian, inertia: Expr) -> Expr:
    """The constant part of L(λ + D, λ − D), the two-copy operator."""
    from quenched.theory.closure_print import common_filter

    common = common_filter(p, 0).xreplace({DT: LAMBDA + D, DS: LAMBDA - D})
    poly = Poly(common.expand(), D)
    if poly.coeff_monomial(D**2) != -inertia or poly.coeff_monomial(D) != 0:
        raise NoPotential(f"no Schrödinger form: the two-copy filter is {cancel(common)}")
    return poly.coeff_monomial(1).factor()
