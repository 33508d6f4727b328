"""Closed scalar equations of a resolvent as data, and the average over labels that stands in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sympy import Expr, Symbol

from quenched.theory.fields import open_leaves


class LabelMean(Expr):
    """⟨·⟩ over the labels of one space; factors without labels come out, and so does an average of nothing."""

    closes_index = True
    is_commutative = True

    def __new__(cls, body: Expr) -> Expr:
        labels = {leaf for leaf, _ in open_leaves(body)}
        if not labels:
            return body
        outside, inside = body.as_independent(*labels, as_Add=False)
        node = Expr.__new__(cls, inside)
        return outside * node

    @property
    def body(self) -> Expr:
        """What is averaged."""
        return self.args[0]

    def _eval_derivative(self, s: Any) -> Expr:
        return LabelMean(self.body.diff(s))

    def _sympystr(self, printer: Any) -> str:
        return f"⟨{printer._print(self.body)}⟩"

    def _latex(self, printer: Any, exp: Any = None) -> str:
        return rf"\left\langle {printer._print(self.body)} \right\rangle" + (f"^{{{exp}}}" if exp else "")


@dataclass(frozen=True)
class ScalarProblem:
    """Equations residual = 0 of the resolvent and of auxiliary scalars.

    Attributes
    ----------
    unknowns : the resolvent first
    residuals : as many, in the unknowns, `Z`, parameters and `LabelMean`
    large : unknowns that grow as z; the others fall off or stay finite
    """

    unknowns: tuple[Symbol, ...]
    residuals: tuple[Expr, ...]
    large: tuple[Symbol, ...] = ()
