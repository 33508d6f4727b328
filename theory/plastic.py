"""Dynamic couplings integrated out: what a bond has seen of its two units, as a kernel over the past.

A linear bond that starts long ago is A_ij(t) = Σ coef ∫ds K(t − s) u_i(s) v_j(s), with K(τ) = e^{rate·τ} for a flow and
K(n) = rate^{n−1} for a map. Its use in the exponent then is a product of two site sums that needs no average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from sympy import S

from quenched.theory.errors import NotCovered
from quenched.theory.lower import Bond, CopiedAction, Use
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.spaces import t
from quenched.theory.terms import PAST, Factor, Term


@dataclass(frozen=True)
class IntegrateBonds(Rule):
    """Solve the linear equations of dynamic couplings and put the solutions into their uses."""

    title: ClassVar[str] = "Dynamic couplings integrated out"
    assumption: ClassVar[str] = "bonds are linear in themselves and forget their start"
    source: ClassVar[str] = "clark2024"

    def __call__(self, before: Form) -> CopiedAction:
        assert isinstance(before, CopiedAction)
        return integrate_bonds(before)


@dataclass(frozen=True)
class IntegratedAction(CopiedAction):
    """The copied action after its dynamic couplings are integrated out."""

    name: ClassVar[str] = "copied action without dynamic couplings"

    def lines(self) -> list[Line]:
        return [*self.kernel_lines(), *(self._term_line(t) for t in self.terms)]

    def kernel_lines(self) -> list[Line]:
        """What every bond remembers."""
        out = []
        for bond in self.bonds:
            if self.clock == "flow":
                plain, tex = f"exp({text(bond.rate)}·(t − s))", rf"e^{{{latex(bond.rate)}\, (t - s)}}"
            else:
                plain, tex = f"({text(bond.rate)})^(n − m − 1)", rf"\left({latex(bond.rate)}\right)^{{n - m - 1}}"
            at, when = ("t,s", "s < t") if self.clock == "flow" else ("n,m", "m < n")
            out.append(Line(f"K_{bond.name}({at}) = {plain}", f"K_{{{bond.name}}}({at}) = {tex}", when))
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


def integrate_bonds(action: CopiedAction) -> IntegratedAction:
    """The action without uses of dynamic couplings; they become terms with kernels."""
    bonds = {bond.name: bond for bond in action.bonds}
    for bond in action.bonds:
        if any(e.has(t) for e in (bond.rate, *(coef for coef, _, _ in bond.drives))):
            raise NotCovered(
                f"the equation of the dynamic coupling {bond.name} depends on time: simulate(...) takes it"
            )
    dynamic = [use for use in action.uses if use.coupling in bonds]
    terms = [term for use in dynamic for term in _terms(use, bonds[use.coupling])]
    kept = tuple(use for use in action.uses if use not in dynamic)
    parts = {f.name: getattr(action, f.name) for f in fields(action)}
    return IntegratedAction(**{**parts, "uses": kept, "terms": (*action.terms, *terms)})


def _terms(use: Use, bond: Bond) -> list[Term]:
    """coef Σ_c Σ_ij row_i(c) A_ij(c) col_j(c) with the history of A put in: one term a drive."""
    out = []
    for coef, left, right in bond.drives:
        row = Factor(bond.rows.name, (*use.row, (left, 1)))
        col = Factor(bond.cols.name, (*use.col, (right, 1)))
        size = (bond.rows.fraction or S.Zero) * (bond.cols.fraction or S.Zero)
        out.append(Term(use.coef * coef * size, S.One, (row, col), ((PAST + bond.name, (0, 1)),)))
    return out
