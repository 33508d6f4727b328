"""Observables of the number of stable fixed points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quenched.theory.observables import Complexity, Critical

if TYPE_CHECKING:
    from sympy import Expr


def counts(expr: Any) -> bool:
    """Whether an observable is the exponent of the number of stable fixed points."""
    return isinstance(expr, Complexity)


def is_counted(expr: Expr) -> bool:
    """The same, or where it vanishes."""
    return counts(expr) or (isinstance(expr, Critical) and counts(expr.condition))


def counted(model: Any) -> bool:
    """Whether a dynamics declares observables of the number of its stable fixed points."""
    return hasattr(model, "eqs") and any(map(is_counted, model.observables.values()))


__all__ = ["counted", "counts", "is_counted"]
