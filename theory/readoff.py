"""Step 5: read off the effective process of one site.

With the convention exp(iĥ(h − Jψ)), site terms of degree two in the conjugates are the covariance of the local
fields, terms of degree one their mean and their memory: −½ĥĥC and −iĥM mean h = ζ + M with ⟨ζζ'⟩ = C.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from sympy import Expr, I, Rational, S, Symbol, sympify

from quenched.theory.errors import NotCovered
from quenched.theory.lower import CopiedAction, SiteField
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.saddle import OrderParameter, SiteProblem, SiteTerm, op_name
from quenched.theory.spaces import N
from quenched.theory.terms import PAST, Kernel


@dataclass(frozen=True)
class Contribution:
    """coef · order parameter, with the order parameter's two slots at (first, second) time as `at` says.

    `output` is the field that a memory term carries; `kernels` marks contributions at equal copies only, or names the
    dynamic coupling whose memory multiplies the order parameter.
    """

    coef: Expr
    op: OrderParameter | None
    at: tuple[int, ...]
    output: str = ""
    kernels: tuple[Kernel, ...] = ()


@dataclass(frozen=True)
class Operator:
    """A response as an operator in time: (G f)(t) = ∫ ⟨δψ(t)/δh(s)⟩ f(s) ds; `adjoint` acts on a second time."""

    symbol: Symbol
    adjoint: Symbol
    output: str
    field: str
    population: str


@dataclass(frozen=True)
class EffectiveProcess(Form):
    """One unit per population, driven by Gaussian local fields.

    Attributes
    ----------
    action : the site equations
    covariance : (h_u, h_v) → contributions to Cov(h_u(t), h_v(s)), u ≤ v in order of declaration
    mean : h_u → contributions to its mean
    memory : h_u → contributions coef·R(t, s)·ψ(s) or coef·K(t, s)·C(t, s)·ψ(s), integrated over earlier s
    operators : responses that occur in coefficients as operators in time, where populations were eliminated; such a
        memory has no order parameter, its coefficient acts on ψ
    """

    name: ClassVar[str] = "effective process"
    action: CopiedAction
    covariance: dict[tuple[str, str], tuple[Contribution, ...]] = field(hash=False)
    mean: dict[str, tuple[Contribution, ...]] = field(hash=False)
    memory: dict[str, tuple[Contribution, ...]] = field(hash=False)
    operators: tuple[Operator, ...] = ()

    @property
    def has_memory(self) -> bool:
        return any(self.memory.values())

    def lines(self) -> list[Line]:
        act = self.action
        out = act.site_lines()
        for h in act.of_role("local"):
            out.append(self._field_line(h.name))
        for (u, v), parts in self.covariance.items():
            out.append(self._cov_line(u, v, parts))
        return out + [self._operator_line(o) for o in self.operators]

    def _operator_line(self, o: Operator) -> Line:
        fields = self.action.fields
        psi, h = (fields[x].symbol for x in (o.output, o.field))
        G = latex(o.symbol)
        return Line(
            f"{text(o.symbol)}(t,s) = ⟨δ{text(psi)}(t)/δ{text(h)}(s)⟩",
            rf"{G}(t,s) = \left\langle \frac{{\delta {latex(psi)}(t)}}{{\delta {latex(h)}(s)}} \right\rangle",
            f"operators in time; {text(o.adjoint)} acts on s",
        )

    def _field_line(self, h: str) -> Line:
        fields = self.action.fields
        sym = fields[h].symbol
        random = any(h in pair for pair in self.covariance)
        zeta, zeta_tex = f"ζ_{text(sym)}(t)", rf"\zeta_{{{latex(sym)}}}(t)"
        pieces = [(S.One, zeta, zeta_tex)] if random else []
        pieces += [(c.coef, *op_name(c.op, fields)) for c in self.mean.get(h, ()) if c.op]
        for c in self.memory.get(h, ()):
            if c.op is None:
                psi = fields[c.output].symbol
                pieces.append((S.One, f"[{text(c.coef)}]·{text(psi)}", rf"\left[{latex(c.coef)}\right] {latex(psi)}"))
                continue
            name, tex = (s.removeprefix("i") for s in op_name(c.op, fields))
            psi, order = fields[c.output].symbol, "(s,t)" if c.at == (1, 0) else "(t,s)"
            kernel = "".join(f"K_{k.removeprefix(PAST)}(t,s) " for k, _ in c.kernels)
            kernel_tex = "".join(rf"K_{{{k.removeprefix(PAST)}}}(t,s)\, " for k, _ in c.kernels)
            plain_integral = f"∫ds {kernel}{name}{order}·{text(psi)}(s)"
            pieces.append((c.coef, plain_integral, rf"\int^t ds\, {kernel_tex}{tex}{order}\, {latex(psi)}(s)"))
        plain, tex = signed_sum(pieces)
        return Line(f"{text(sym)}(t) = {plain}", f"{latex(sym)}(t) = {tex}")

    def _cov_line(self, u: str, v: str, parts: tuple[Contribution, ...]) -> Line:
        fields = self.action.fields
        pieces = []
        for c in parts:
            assert c.op is not None
            name, tex = op_name(c.op, fields)
            order = "(t,s)" if c.at == (0, 1) else "(s,t)" if c.at == (1, 0) else "(t)"
            delta = "·δ(t,s)" if c.kernels else ""
            pieces.append((c.coef, name + order + delta, tex + order + (r"\,\delta_{ts}" if c.kernels else "")))
        plain, tex = signed_sum(pieces)
        a, b = fields[u].symbol, fields[v].symbol
        return Line(
            f"⟨ζ_{text(a)}(t) ζ_{text(b)}(s)⟩ = {plain}",
            rf"\langle \zeta_{{{latex(a)}}}(t)\, \zeta_{{{latex(b)}}}(s) \rangle = {tex}",
        )

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for kind in ("covariance", "mean", "memory"):
            table = getattr(self, kind)
            for key, parts in table.items():
                for k, part in enumerate(parts):
                    rest = parts[:k] + parts[k + 1 :]
                    yield f"{kind} of {key}: term {k + 1} dropped", replace(self, **{kind: table | {key: rest}})
                    scaled = (*rest, replace(part, coef=part.coef * Rational(11, 10)))
                    yield f"{kind} of {key}: term {k + 1} × 1.1", replace(self, **{kind: table | {key: scaled}})


@dataclass(frozen=True)
class ReadOff(Rule):
    """Read means, covariances and memory of the local fields off the site exponent."""

    title: ClassVar[str] = "Effective process of one unit"
    assumption: ClassVar[str] = "local fields are Gaussian given the order parameters"
    source: ClassVar[str] = "sompolinsky1988"

    def __call__(self, before: Form) -> EffectiveProcess:
        assert isinstance(before, SiteProblem)
        return read_off(before)


def read_off(problem: SiteProblem) -> EffectiveProcess:
    """The effective process of a causal single-site problem.

    Raises
    ------
    NotCovered
        For site terms beyond Gaussian local fields (degree above two, or state-dependent noise).
    """
    order = {f.name: k for k, f in enumerate(problem.action.of_role("hat"))}
    cov: dict[tuple[str, str], list[Contribution]] = {}
    mean: dict[str, list[Contribution]] = {}
    memory: dict[str, list[Contribution]] = {}
    for term in problem.terms:
        hats = sorted(((a, c) for a, c in term.atoms if a in order), key=lambda ac: order[ac[0]])
        rest = [(a, c) for a, c in term.atoms if a not in order]
        if len(hats) == 2 and not rest:
            _covariance(term, hats, cov)
        elif len(hats) == 1 and len(rest) <= 1:
            _mean_or_memory(term, hats[0], rest, mean, memory, problem.action.fields)
        else:
            raise NotCovered(
                f"site term {text(term.coef)}·{[a for a, _ in term.atoms]}: "
                "local fields are not Gaussian with additive memory"
            )
    return EffectiveProcess(
        problem.action,
        {k: tuple(v) for k, v in cov.items()},
        {k: tuple(v) for k, v in mean.items()},
        {k: tuple(v) for k, v in memory.items()},
    )


def _local(hat: str) -> str:
    return hat.removeprefix("hat_")


def _scale(term: SiteTerm) -> Expr:
    return sympify(term.coef) * N**term.power


def _covariance(term: SiteTerm, hats: list[tuple[str, int]], cov: dict[tuple[str, str], list[Contribution]]) -> None:
    """C_uv(t, s) = −∂²(exponent)/∂ĥ_u(t)∂ĥ_v(s); equal fields pick up both time orders."""
    (u, cu), (v, cv) = hats
    (ref,) = term.refs
    ways = [(cu, cv)] if u != v else [(cu, cv), (cv, cu)]
    parts = cov.setdefault((_local(u), _local(v)), [])
    for first, _second in ways:
        at = tuple(0 if c == first else 1 for c in ref.at)
        if ref.op.slots == 2 and _symmetric(ref.op):
            at = (0, 1)
        new = Contribution(-_scale(term), ref.op, at, kernels=term.kernels)
        same = next((k for k, p in enumerate(parts) if (p.op, p.at, p.kernels) == (new.op, new.at, new.kernels)), None)
        if same is None:
            parts.append(new)
        else:
            parts[same] = replace(new, coef=parts[same].coef + new.coef)


def _symmetric(op: OrderParameter) -> bool:
    swapped = tuple(sorted((a, 1 - s) for a, s in op.atoms))
    return swapped == op.atoms


def _mean_or_memory(
    term: SiteTerm,
    hat: tuple[str, int],
    rest: list[tuple[str, int]],
    mean: dict[str, list[Contribution]],
    memory: dict[str, list[Contribution]],
    fields: dict[str, SiteField],
) -> None:
    """−iĥM: a mean w⟨ψ⟩, a memory coef·R·ψ with ⟨ψ ĥ⟩ = iR, or the memory coef·K·C·ψ of a dynamic coupling."""
    (ref,) = term.refs
    if not rest:
        mean.setdefault(_local(hat[0]), []).append(Contribution(I * _scale(term), ref.op, (0,)))
        return
    (psi, then) = rest[0]
    if any(kind.startswith(PAST) for kind, _ in term.kernels):
        at = tuple(0 if c == hat[1] else 1 for c in ref.at)
        if ref.op.hats(fields) or {then, hat[1]} != set(ref.at) or len(term.kernels) > 1:
            raise NotCovered(f"the memory of {term.kernels[0][0].removeprefix(PAST)} multiplies more than one average")
        new = Contribution(I * _scale(term), ref.op, at, output=psi, kernels=term.kernels)
        memory.setdefault(_local(hat[0]), []).append(new)
        return
    coef = I * I * _scale(term)
    memory.setdefault(_local(hat[0]), []).append(Contribution(coef, ref.op, (0, 1), output=psi))
