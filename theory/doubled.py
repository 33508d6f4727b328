"""Steps 8 and 9: two copies of the network with the same couplings and noise, and fixed points.

The copies are (time, 1) and (time, 2): steps 2–5 do not notice, so the covariance between copies obeys the equations of
one copy, with ⟨f(u^1) g(u^2)⟩ instead of ⟨f(u) g(u)⟩. Around identical copies, C^{12} = C + ε k, Price's theorem gives
δ⟨f g⟩ = ⟨f' g'⟩ k, and k(t, s) = e^{λ(t+s)} ψ(t−s) turns the filters into L(λ + D, λ − D).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, Rational, S, Symbol, cancel, exp

from quenched.theory.closure_print import average_print, common_filter, pair_name
from quenched.theory.gauss import GaussAvg
from quenched.theory.potential import ConservativeForm
from quenched.theory.problem import (
    C12,
    DS,
    DT,
    LAMBDA,
    M1,
    M2,
    V1,
    V2,
    PotentialProblem,
    SiteFunction,
    StationaryGaussian,
    TwoPoint,
)
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, signed_sum, text
from quenched.theory.stationary import D, StationaryState


@dataclass(frozen=True)
class TwoCopies(Form):
    """The linearised two-copy problem: one operator equation per pair.

    Attributes
    ----------
    problem : the stationary problem of one copy
    filters : per pair, L(λ + D, λ − D)
    kernels : per pair, the sources (coefficient, ⟨f' g'⟩, pair that it multiplies)
    """

    name: ClassVar[str] = "two copies"
    problem: StationaryGaussian
    filters: tuple[Expr, ...]
    kernels: tuple[tuple[tuple[Expr, TwoPoint, int], ...], ...]

    def lines(self) -> list[Line]:
        p = self.problem
        out = []
        for k in range(p.closure):
            pieces = []
            for coef, s, pair in self.kernels[k]:
                plain, tex = average_print(s.f, p.arguments[s.a].name, s.g, p.arguments[s.b].name + "′")
                psi = self._psi(pair)
                pieces.append((coef, f"{plain} {psi[0]}", f"{tex} {psi[1]}"))
            plain, tex = signed_sum(pieces)
            psi = self._psi(k)
            out.append(
                Line(
                    f"[{text(self.filters[k])}] {psi[0]} = {plain}",
                    rf"\left[{latex(self.filters[k])}\right] {psi[1]} = {tex}",
                )
            )
        return out

    def _psi(self, pair: int) -> tuple[str, str]:
        if self.problem.closure == 1:
            return "ψ(τ)", r"\psi(\tau)"
        name, tex = pair_name(self.problem, pair)
        return f"ψ_{name[2:]}(τ)", rf"\psi_{tex[2:]}(\tau)"

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, factor in enumerate(self.filters):
            for j, piece in enumerate(factor.expand().as_ordered_terms()):
                for label, new in (("dropped", factor - piece), ("× 1.1", factor + piece / 10)):
                    filters = (*self.filters[:k], new, *self.filters[k + 1 :])
                    yield f"filter {k + 1} term {j + 1} {label}", replace(self, filters=filters)
        for k, row in enumerate(self.kernels):
            for j, (coef, s, pair) in enumerate(row):
                for label, new in (("dropped", S.Zero), ("× 1.1", coef * Rational(11, 10))):
                    changed = (*row[:j], (new, s, pair), *row[j + 1 :])
                    yield (
                        f"kernel {k + 1}.{j + 1} {label}",
                        replace(self, kernels=(*self.kernels[:k], changed, *self.kernels[k + 1 :])),
                    )


@dataclass(frozen=True)
class DoubleCopies(Rule):
    """Two copies with the same disorder and noise, linearised around being identical."""

    title: ClassVar[str] = "Two copies: growth of a small difference"
    assumption: ClassVar[str] = "same couplings and same noise in both copies; infinitesimal difference"
    source: ClassVar[str] = "sompolinsky1988,schuecker2018"

    def __call__(self, before: Form) -> TwoCopies:
        assert isinstance(before, StationaryState | ConservativeForm)
        p = before.problem if isinstance(before, StationaryState) else before.potential.full
        return two_copies(p)


def two_copies(p: StationaryGaussian) -> TwoCopies:
    """Linearise the covariance between two copies (derivatives by the rule of the Gaussian average)."""
    rule = shifted(p)
    pairs = {pair: k for k, pair in enumerate(p.pairs)}
    filters, kernels = [], []
    for k in range(p.closure):
        common = common_filter(p, k)
        row = []
        for gain, s in zip(p.gain[k], p.two_points, strict=True):
            if gain != 0:
                f, g = derivative_pair(s)
                pair = pairs.get((s.a, s.b), pairs.get((s.b, s.a)))
                assert pair is not None
                row.append((cancel((gain * common).xreplace(rule)), replace(s, f=f, g=g, closed=None), pair))
        filters.append(common.xreplace(rule).factor())
        kernels.append(tuple(row))
    return TwoCopies(p, tuple(filters), tuple(kernels))


def derivative_pair(s: TwoPoint) -> tuple[SiteFunction, SiteFunction]:
    """∂⟨f g⟩/∂c = ⟨f' g'⟩, taken from the derivative rule of the Gaussian average."""
    node = GaussAvg([(s.f, 0, 0), (s.g, 0, 1)], (M1, M2), ((V1, C12), (C12, V2))).diff(C12)
    assert isinstance(node, GaussAvg)
    (f, _), (g, _) = node.functions
    return f, g


def shifted(p: StationaryGaussian) -> dict[Symbol, Expr]:
    """How D_t and D_s act on e^{λ(t+s)} ψ(t−s)."""
    if p.clock == "flow":
        return {DT: LAMBDA + D, DS: LAMBDA - D}
    return {DT: exp(LAMBDA) * D, DS: exp(LAMBDA) / D}


@dataclass(frozen=True)
class Schroedinger(Form):
    """The two-copy problem of a conservative state as a Schrödinger equation, and where its ground state vanishes."""

    name: ClassVar[str] = "Schrödinger problem"
    potential: PotentialProblem
    energy: Expr
    rate: Expr

    def lines(self) -> list[Line]:
        q = self.potential
        x = q.full.arguments[0].name
        rest = q.growth_stiffness.subs(LAMBDA, 0)
        pieces = [(-q.inertia, "∂²", r"\partial_\tau^2"), (S.One, text(rest), latex(rest))]
        for w, s in zip(q.weights, q.sources, strict=True):
            f, g = derivative_pair(s)
            pieces.append((-w, *average_print(f, x, g, x + "′")))
        plain, tex = signed_sum(pieces)
        force = [(w, *average_print(s.f, x, s.g, x)) for w, s in zip(q.weights, q.sources, strict=True)]
        if q.static != 0:
            force.append((S.One, text(q.static), latex(q.static)))
        right, right_tex = signed_sum(force)
        head, head_tex = ("", "") if q.stiffness == 1 else (text(q.stiffness) + "·", latex(q.stiffness) + r"\,")
        return [
            Line(f"[{plain}] ψ = E ψ", rf"\left[{tex}\right] \psi = E\, \psi", "chaos if the ground state has E₀ < 0"),
            equation_line(Symbol("E"), self.energy),
            equation_line(LAMBDA, self.rate, "largest Lyapunov exponent"),
            Line(
                f"{head}Δ0 = {right}",
                rf"{head_tex}\Delta_0 = {right_tex}",
                "transition: the zero-energy solution |Δ'| is smooth at τ = 0",
            ),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, piece in enumerate(self.energy.as_ordered_terms()):
            yield f"energy term {k + 1} dropped", replace(self, energy=self.energy - piece)
            yield f"energy term {k + 1} × 1.1", replace(self, energy=self.energy + piece / 10)
        yield "rate × 1.1", replace(self, rate=self.rate * Rational(11, 10))


@dataclass(frozen=True)
class AsSchroedinger(Rule):
    """Read the two-copy operator as a Schrödinger operator."""

    title: ClassVar[str] = "Schrödinger problem and transition to chaos"
    assumption: ClassVar[str] = "filter of second order; the even ground state grows fastest"
    source: ClassVar[str] = "sompolinsky1988,schuecker2018"
    potential: PotentialProblem

    def __call__(self, before: Form) -> Schroedinger:
        assert isinstance(before, TwoCopies)
        return schroedinger(self.potential)


def schroedinger(q: PotentialProblem) -> Schroedinger:
    """Energy E(λ) of the growth rate and its inverse λ(E)."""
    from sympy import solve

    energy_symbol = Symbol("E_0", real=True)
    energy = (q.growth_stiffness.subs(LAMBDA, 0) - q.growth_stiffness).expand()
    roots = solve(energy - energy_symbol, LAMBDA)
    rate = next((r for r in roots if r.subs(energy_symbol, 0) == 0), roots[-1])
    return Schroedinger(q, energy, rate)


@dataclass(frozen=True)
class FixedPointForm(Form):
    """Time-independent states: their self-consistency and the edge of their Jacobian's spectrum.

    `response` is the matrix over closing pairs whose leading eigenvalue equals 1 at the edge, as a function of the
    complex rate z (entries: coefficient in D_t = z, D_s = z̄, and the average that multiplies it).
    """

    name: ClassVar[str] = "fixed points"
    problem: StationaryGaussian
    response: tuple[tuple[tuple[Expr, TwoPoint, int], ...], ...]

    def lines(self) -> list[Line]:
        p = self.problem
        z, zbar = Symbol("z"), Symbol(r"\bar{z}")
        still = {DT: S.Zero, DS: S.Zero} if p.clock == "flow" else {DT: S.One, DS: S.One}
        out = []
        for k in range(p.closure):
            pieces = []
            for gain, s in zip(p.gain[k], p.two_points, strict=True):
                if gain != 0:
                    shown = average_print(s.f, p.arguments[s.a].name, s.g, p.arguments[s.b].name)
                    pieces.append((cancel(gain.xreplace(still)), *shown))
            if p.static[k] != 0:
                pieces.append((S.One, text(p.static[k]), latex(p.static[k])))
            plain, tex = signed_sum(pieces)
            name, name_tex = pair_name(p, k)
            out.append(Line(f"{name} = {plain}", f"{name_tex} = {tex}", "static state"))
        for k, row in enumerate(self.response):
            pieces = []
            for coef, s, pair in row:
                plain, tex = average_print(s.f, p.arguments[s.a].name, s.g, p.arguments[s.b].name)
                name, name_tex = pair_name(p, pair)
                mark, mark_tex = ("", "") if p.closure == 1 else (f" δ{name}", rf"\, \delta {name_tex}")
                show = coef.xreplace({DT: z, DS: Symbol("z̄")})
                out_tex = latex(coef.xreplace({DT: z, DS: zbar}))
                pieces.append((S.One, f"[{text(show)}]·{plain}{mark}", rf"\left[{out_tex}\right] {tex}{mark_tex}"))
            plain, tex = signed_sum(pieces)
            name, name_tex = pair_name(p, k)
            left, left_tex = ("1", "1") if p.closure == 1 else (f"δ{name}", rf"\delta {name_tex}")
            out.append(
                Line(
                    f"{left} = {plain}",
                    f"{left_tex} = {tex}",
                    "edge of the Jacobian's spectrum; stable if Re z < 0 there"
                    if p.clock == "flow"
                    else "edge; stable if |z| < 1",
                )
            )
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, row in enumerate(self.response):
            for j, (coef, s, pair) in enumerate(row):
                for label, new in (("dropped", S.Zero), ("× 1.1", coef * Rational(11, 10))):
                    changed = (*row[:j], (new, s, pair), *row[j + 1 :])
                    yield (
                        f"response {k + 1}.{j + 1} {label}",
                        replace(self, response=(*self.response[:k], changed, *self.response[k + 1 :])),
                    )


@dataclass(frozen=True)
class FindFixedPoints(Rule):
    """Static solutions and the edge of the spectrum of perturbations around them."""

    title: ClassVar[str] = "Fixed points and their stability"
    assumption: ClassVar[str] = "no noise; perturbations k(t, s) = exp(zt + z̄s)"
    source: ClassVar[str] = "girko1985,sompolinsky1988"

    def __call__(self, before: Form) -> FixedPointForm:
        assert isinstance(before, StationaryState | TwoCopies | Schroedinger)
        p = before.potential.full if isinstance(before, Schroedinger) else before.problem
        pairs = {pair: k for k, pair in enumerate(p.pairs)}
        rows = []
        for k in range(p.closure):
            row = []
            for gain, s in zip(p.gain[k], p.two_points, strict=True):
                if gain != 0:
                    f, g = derivative_pair(s)
                    pair = pairs.get((s.a, s.b), pairs.get((s.b, s.a), 0))
                    row.append((cancel(gain), replace(s, f=f, g=g, closed=None), pair))
            rows.append(tuple(row))
        return FixedPointForm(p, tuple(rows))
