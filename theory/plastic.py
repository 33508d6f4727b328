"""Dynamic couplings integrated out: what a bond has seen of its two units, as a kernel over the past.

A linear bond is A_ij(t) = Σ coef ∫ds K(t, s) u_i(s) v_j(s). With a constant rate K is e^{rate·(t − s)} for a flow and
rate^{n−m−1} for a map; where the rate or the drive depends on time (a bond that is halted), it is
factor(s)·exp(∫_s^t rate), and factor(m)·Π_{m<l<n} rate(l). Its use in the exponent then is a product of two site sums
that needs no average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

from sympy import Expr, Rational, S, factor_terms

from quenched.theory.errors import NotCovered
from quenched.theory.lower import Bond, CopiedAction, Use
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.spaces import N, t
from quenched.theory.terms import PAST, Factor, Term


@dataclass(frozen=True)
class BondMemory:
    """What a bond remembers at t of an earlier s: factor(s)·exp(∫_s^t rate), of a map factor(m)·Π_{m<l<n} rate(l).

    Attributes
    ----------
    name : of the kernel, that of the bond where all its drives depend on time in the same way
    rate, factor : expressions in the parameters and t
    """

    name: str
    rate: Expr
    factor: Expr = S.One

    @property
    def timed(self) -> bool:
        """Whether more than the time between t and s matters."""
        return bool(self.rate.has(t) or self.factor.has(t))


@dataclass(frozen=True)
class IntegrateBonds(Rule):
    """Solve the linear equations of dynamic couplings and put the solutions into their uses."""

    title: ClassVar[str] = "Dynamic couplings integrated out"
    assumption: ClassVar[str] = "bonds are linear in themselves; they start at 0, or so long ago that it is forgotten"
    source: ClassVar[str] = "clark2024"

    def __call__(self, before: Form) -> CopiedAction:
        assert isinstance(before, CopiedAction)
        return integrate_bonds(before)


@dataclass(frozen=True)
class IntegratedAction(CopiedAction):
    """The copied action after its dynamic couplings are integrated out.

    Attributes
    ----------
    memories : kernels that the terms refer to
    """

    name: ClassVar[str] = "copied action without dynamic couplings"
    memories: tuple[BondMemory, ...] = field(default=(), kw_only=True)

    def __hash__(self) -> int:
        return super().__hash__()

    def lines(self) -> list[Line]:
        return [*self.kernel_lines(), *(self._term_line(t) for t in self.terms)]

    def kernel_lines(self) -> list[Line]:
        """What every bond remembers."""
        at, when = ("t,s", "s < t") if self.clock == "flow" else ("n,m", "m < n")
        out = []
        for m in self.memories:
            plain, tex = _timed_kernel(m, self.clock) if m.timed else _plain_kernel(m, self.clock)
            out.append(Line(f"K_{m.name}({at}) = {plain}", f"K_{{{m.name}}}({at}) = {tex}", when))
        return out

    def _term_line(self, term: Term) -> Line:
        from quenched.theory.average import term_print

        plain, tex = term_print(replace(term, power=S.Zero), self.fields)
        coef, size = (text(term.coef), latex(term.coef))
        return Line(f"exponent: N²·({coef})·{plain}", rf"\text{{exponent}} \ni N^2 \left({size}\right) {tex}")

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, term in enumerate(self.terms):
            rest = self.terms[:k] + self.terms[k + 1 :]
            yield f"term {k + 1} dropped", replace(self, terms=rest)
            yield f"term {k + 1} × 1.1", replace(self, terms=(*rest, replace(term, coef=term.coef * 11 / 10)))
        for k in range(len(self.uses)):
            yield f"use {k + 1} dropped", replace(self, uses=self.uses[:k] + self.uses[k + 1 :])
        for k, m in enumerate(self.memories):
            changes = {"rate × 1.1": replace(m, rate=m.rate * Rational(11, 10))}
            if m.timed:
                changes["drive never halted"] = replace(m, factor=S.One)
            for label, changed in changes.items():
                if changed != m:
                    yield f"{label} of K_{m.name}", replace(self, memories=_put(self.memories, k, changed))


def _put(memories: tuple[BondMemory, ...], k: int, changed: BondMemory) -> tuple[BondMemory, ...]:
    return (*memories[:k], changed, *memories[k + 1 :])


def _plain_kernel(m: BondMemory, clock: str) -> tuple[str, str]:
    if clock == "flow":
        return f"exp({text(m.rate)}·(t − s))", rf"e^{{{latex(m.rate)}\, (t - s)}}"
    return f"({text(m.rate)})^(n − m − 1)", rf"\left({latex(m.rate)}\right)^{{n - m - 1}}"


def _timed_kernel(m: BondMemory, clock: str) -> tuple[str, str]:
    """The kernel with its rate r and the factor f of its drive written out."""
    given = [("r", m.rate), *([("f", m.factor)] if m.factor != 1 else [])]
    plain = "".join(f", {name}(t) = {text(e)}" for name, e in given)
    tex = "".join(rf",\; {name}(t) = {latex(e)}" for name, e in given)
    then = ("s", "s") if clock == "flow" else ("m", "m")
    front = [f"f({x})·" if m.factor != 1 else "" for x in then]
    if clock == "flow":
        return f"{front[0]}exp(∫_s^t r(t') dt'){plain}", rf"{front[1].rstrip('·')} e^{{\int_s^t r(t') dt'}}{tex}"
    return f"{front[0]}Π_(m<l<n) r(l){plain}", rf"{front[1].rstrip('·')} \prod_{{m<l<n}} r(l){tex}"


def integrate_bonds(action: CopiedAction) -> IntegratedAction:
    """The action without uses of dynamic couplings; they become terms with kernels."""
    bonds = {bond.name: bond for bond in action.bonds}
    split = {bond.name: _split(bond) for bond in action.bonds}
    dynamic = [use for use in action.uses if use.coupling in bonds]
    terms = [term for use in dynamic for term in _terms(use, bonds[use.coupling], split[use.coupling])]
    kept = tuple(use for use in action.uses if use not in dynamic)
    memories = tuple(dict.fromkeys(m for rows in split.values() for _, m, _, _ in rows))
    parts = {f.name: getattr(action, f.name) for f in fields(action)}
    return IntegratedAction(**{**parts, "uses": kept, "terms": (*action.terms, *terms)}, memories=memories)


def _split(bond: Bond) -> list[tuple[Expr, BondMemory, str, str]]:
    """Every drive of a bond as constant coefficient, memory, and its two ends."""
    known: dict[Expr, BondMemory] = {}
    out = []
    for coef, left, right in bond.drives:
        constant, factor = factor_terms(coef).as_independent(t, as_Add=False) if coef.has(t) else (coef, S.One)
        if factor.has(N):
            raise NotCovered(f"the drive {coef} of the dynamic coupling {bond.name} mixes N with time")
        name = bond.name if not known else f"{bond.name}.{len(known) + 1}"
        memory = known.setdefault(factor, BondMemory(name, bond.rate, factor))
        out.append((constant, memory, left, right))
    return out


def _terms(use: Use, bond: Bond, drives: list[tuple[Expr, BondMemory, str, str]]) -> list[Term]:
    """coef Σ_c Σ_ij row_i(c) A_ij(c) col_j(c) with the history of A put in: one term a drive."""
    out = []
    for coef, memory, left, right in drives:
        row = Factor(bond.rows.name, (*use.row, (left, 1)))
        col = Factor(bond.cols.name, (*use.col, (right, 1)))
        size = (bond.rows.fraction or S.Zero) * (bond.cols.fraction or S.Zero)
        out.append(Term(use.coef * coef * size, S.One, (row, col), ((PAST + memory.name, (0, 1)),)))
    return out
