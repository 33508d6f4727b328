"""A priori weights of the units of a Gibbs measure that are not laws of independent numbers."""

from __future__ import annotations

from sympy import Expr, S, Set

from quenched.theory.distributions import Law, Normal


class Spherical(Law):
    """Uniform on the sphere Σ_i s_i² = (number of units); one unit is a standard normal number in the limit."""

    def mean_(self) -> Expr:
        return S.Zero

    def variance_(self) -> Expr:
        return S.One

    def support(self) -> Set:
        return S.Reals

    def density(self, u: Expr) -> Expr:
        return Normal(0, 1).density(u)


def fixed_norm(law: Law) -> Expr | None:
    """The value of s² (on the sphere: of its average) where the law fixes it, else None."""
    if isinstance(law, Spherical):
        return S.One
    squares = {(a**2).expand() for a, _ in law.weights()}
    return squares.pop() if len(squares) == 1 else None
