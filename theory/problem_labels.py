"""Averages over the labels of units that no rule closes, in coefficients of self-consistency problems."""

from __future__ import annotations

from typing import Any

from sympy import Expr, Tuple


class LabelMean(Expr):
    """⟨body⟩ over the laws of independent labels."""

    is_commutative = True

    def __new__(cls, body: Expr, labels: Any) -> LabelMean:
        return Expr.__new__(cls, body, Tuple(*labels))

    @property
    def body(self) -> Expr:
        """What is averaged."""
        return self.args[0]

    @property
    def labels(self) -> tuple[Any, ...]:
        """The labels that the average runs over."""
        return tuple(self.args[1])

    def _eval_derivative(self, s: Any) -> Expr:
        return LabelMean(self.body.diff(s), self.labels)

    def _sympystr(self, printer: Any) -> str:
        return f"⟨{printer._print(self.body)}⟩_{','.join(q.name for q in self.labels)}"

    def _latex(self, printer: Any) -> str:
        under = ",".join(printer._print(q) for q in self.labels)
        return rf"\left\langle {printer._print(self.body)} \right\rangle_{{{under}}}"
