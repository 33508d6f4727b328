"""Averages of rational functions over the labels of units: closed where the law allows, else named.

A sum over the Fourier modes of a translation-invariant matrix is an integral over the unit circle z = e^{−iθ}: the
residues inside it, of poles that are there when the operators G of a response are small (a series in responses is
what the dynamics sums, in time order).
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from sympy import (
    Dummy,
    Expr,
    I,
    Poly,
    S,
    Symbol,
    cancel,
    default_sort_key,
    exp,
    factor_list,
    fraction,
    log,
    together,
)
from sympy.polys.matrices import DomainMatrix

from quenched.theory.distributions import Uniform
from quenched.theory.fields import Quenched
from quenched.theory.problem_labels import LabelMean

#: Size of an operator when poles are told to lie inside or outside the circle, and random parameters tried.
_SMALL, _DRAWS = 1e-9, 12


def label_mean(expr: Expr, operators: Iterable[Symbol]) -> Expr:
    """The average of an expression over its labels; `operators` are small for telling poles apart."""
    small = set(operators)
    for label in sorted(expr.atoms(Quenched), key=default_sort_key):
        closed = _atoms(expr, label) if _discrete(label) else _circle(expr, label, small)
        if closed is None:
            return LabelMean(expr, sorted(expr.atoms(Quenched), key=default_sort_key))
        expr = closed
    return expr


def _discrete(label: Quenched) -> bool:
    weights = label.law.weights()
    return bool(weights) and sum(p for _, p in weights) == 1


def _atoms(expr: Expr, label: Quenched) -> Expr:
    return cancel(sum((p * expr.xreplace({label: a}) for a, p in label.law.weights()), S.Zero))


def _circle(expr: Expr, label: Quenched, small: set[Symbol]) -> Expr | None:
    """∮ f(z) dz/(2πi z) for a rational f of z = e^{−iθ}, None where f is no such function or poles stay unresolved."""
    law = label.law
    if not isinstance(law, Uniform) or (law.args[1] - law.args[0]) != 2 * S.Pi:
        return None
    z = Dummy("z")
    shown = expr.rewrite(exp).subs(label, I * log(z))
    top, bottom = fraction(cancel(together(shown / z)))
    if not (top.is_polynomial(z) and bottom.is_polynomial(z)):
        return None
    constant, factors = factor_list(bottom, z)
    sides: dict[bool, Expr] = {True: S.One, False: constant}
    for factor, power in factors:
        where = _inside(Poly(factor, z), small)
        if where is None:
            return None
        sides[where] = sides[where] * factor**power
    return _residues(top, sides[True], sides[False], z)


def _inside(factor: Poly, small: set[Symbol]) -> bool | None:
    """Whether all roots lie inside the circle (True), outside (False), or some on either side (None)."""
    free = sorted(factor.as_expr().free_symbols - {factor.gen}, key=default_sort_key)
    sides = set()
    draw = Random(1)
    for _ in range(_DRAWS):  # of either sign and any size: where that decides, there is no answer for all parameters
        sizes = [draw.choice((-1, 1)) * 10 ** draw.uniform(-1.5, 1.5) for _ in free]
        values = {s: x * (_SMALL if s in small else 1.0) for s, x in zip(free, sizes, strict=True)}
        numbers = Poly([c.subs(values) for c in factor.all_coeffs()], factor.gen)
        sides |= {bool(abs(r) < 1) for r in numbers.nroots(maxsteps=200)}
    return sides.pop() if len(sides) == 1 else None


def _residues(top: Expr, inner: Expr, outer: Expr, z: Dummy) -> Expr:
    """Σ over the roots of `inner` of the residues of top/(inner·outer).

    With top = U·outer + V·inner, deg U < deg inner = m, it is what U/inner is at infinity: the ratio of their
    coefficients of z^(m−1) and z^m. U solves a linear system of size m, multiplication by outer modulo inner.
    """
    P, Q, A = (Poly(e, z, field=True) for e in (inner, outer, top))
    P, Q = P.unify(Q)
    P, A = P.unify(A)
    P, Q = P.unify(Q)
    m = P.degree()
    if m == 0:
        return S.Zero
    field, Z = P.domain, Poly(z, z, domain=P.domain)
    columns = [_coefficients((Q * Z**k).rem(P), m) for k in range(m)]
    U = (
        DomainMatrix(columns, (m, m), field)
        .transpose()
        .lu_solve(DomainMatrix([_coefficients(A.rem(P), m)], (1, m), field).transpose())
    )
    return field.to_sympy(U.to_list()[m - 1][0] / P.rep.LC())


def _coefficients(p: Poly, m: int) -> list[Any]:
    """Coefficients of 1, z, …, z^(m−1), in the domain."""
    found = p.rep.to_list()[::-1]
    return [*found, *[p.domain.zero] * (m - len(found))]
