"""Where a weight has kinks and jumps, as expressions in its parameters and labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from sympy import Abs, Expr, Heaviside, Max, Min, Piecewise, Poly, S, Symbol, sign, sqrt, sympify
from sympy.core.relational import Relational

from quenched.theory.errors import NotCovered
from quenched.theory.problem_replicas import X

_SWITCHES = (Abs, sign, Heaviside, Max, Min, Piecewise)


def kink_expressions(weight: Expr, x: Symbol = X) -> tuple[Expr, ...]:
    """Every place where a weight may have a kink; some may be none (or not real) at given numbers.

    Raises
    ------
    NotCovered
        A step whose argument is not a polynomial of degree two at most in the local field, piece by piece.
    """
    found: list[Expr] = []
    for argument in _arguments(weight):
        if argument.has(x):
            found += kink_expressions(argument, x)
            for branch in branches(argument, x):
                found += roots(branch, x)
    return tuple(dict.fromkeys(found))


def _arguments(expr: Expr) -> list[Expr]:
    out: list[Expr] = []
    for node in sorted(expr.atoms(*_SWITCHES), key=str):
        if isinstance(node, (Max, Min)):
            out += [a - node.args[0] for a in node.args[1:]]
        elif isinstance(node, Piecewise):
            out += [r.lhs - r.rhs for _, c in node.args for r in sympify(c).atoms(Relational)]
        else:
            out.append(node.args[0])
    return out


def branches(expr: Expr, x: Symbol) -> Iterator[Expr]:
    """The expression with every switch that depends on x resolved, in all ways."""
    nodes = [n for n in sorted(expr.atoms(*_SWITCHES), key=str) if n.has(x)]
    inner = [n for n in nodes if not any(other != n and other.has(n) for other in nodes)]
    if not inner:
        yield expr
        return
    for choice in product(*(_ways(n) for n in inner)):
        yield from branches(expr.xreplace(dict(zip(inner, choice, strict=True))), x)


def _ways(node: Expr) -> tuple[Expr, ...]:
    if isinstance(node, Abs):
        return (node.args[0], -node.args[0])
    if isinstance(node, sign):
        return (S.One, S.NegativeOne)
    if isinstance(node, Heaviside):
        return (S.Zero, S.One)
    if isinstance(node, Piecewise):
        return tuple(e for e, _ in node.args)
    return tuple(node.args)


def roots(branch: Expr, x: Symbol) -> list[Expr]:
    """Zeros of a polynomial of degree two at most."""
    if not branch.has(x):
        return []
    if not branch.is_polynomial(x) or Poly(branch, x).degree() > 2:
        raise NotCovered(f"the kink of {branch} in a weight: write it as a polynomial of degree two at most")
    c = Poly(branch, x).all_coeffs()
    if len(c) == 2:
        return [-c[1] / c[0]]
    root = sqrt(c[1] ** 2 - 4 * c[0] * c[2])
    return [(-c[1] - root) / (2 * c[0]), (-c[1] + root) / (2 * c[0])]
