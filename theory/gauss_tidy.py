"""Presentation of closed averages: collects terms of one transcendental factor, and changes nothing else."""

from __future__ import annotations

from itertools import product as cartesian
from math import prod

from sympy import Add, Expr, Mul, Pow, cancel


def tidy(expr: Expr) -> Expr:
    """Collects the algebraic coefficients of every transcendental factor, where that makes the expression shorter."""
    if _width(expr) > 40:
        return expr
    found: dict[Expr, list[Expr]] = {}
    for term in _terms(expr):
        factors = Mul.make_args(term)
        core = [f for f in factors if _transcendental(f)]
        found.setdefault(Mul(*core), []).append(Mul(*(f for f in factors if not _transcendental(f))))
    collected = Add(*(core * _rational(Add(*coefficients)) for core, coefficients in found.items()))
    return min(collected, expr, key=lambda e: int(e.count_ops()))


def _rational(coefficient: Expr) -> Expr:
    """A sum of fractions over one denominator, if that makes it shorter."""
    fractions = [p for p in coefficient.atoms(Pow) if p.exp == -1 and isinstance(p.base, Add)]
    if not fractions or len(Add.make_args(coefficient)) > 12:
        return coefficient
    return min(cancel(coefficient), coefficient, key=lambda e: int(e.count_ops()))


def _width(expr: Expr) -> int:
    """Number of terms when products are multiplied out."""
    if isinstance(expr, Add):
        return sum(_width(a) for a in expr.args)
    return prod(_width(a) for a in expr.args) if isinstance(expr, Mul) else 1


def _terms(expr: Expr) -> list[Expr]:
    """The terms of a sum, products multiplied out, functions left alone."""
    if isinstance(expr, Add):
        return [t for a in expr.args for t in _terms(a)]
    if isinstance(expr, Mul):
        return [Mul(*choice) for choice in cartesian(*(_terms(a) for a in expr.args))]
    return [expr]


def _transcendental(factor: Expr) -> bool:
    return not (factor.is_number or factor.is_Symbol or factor.is_rational_function())
