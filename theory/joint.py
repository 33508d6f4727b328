"""Dynamic couplings in a Jacobian, eliminated: what they add to the Jacobian of the units.

A small change of the units moves a linear bond, λ δA_ij = rate·δA_ij + Σ_d c_d (δu_i v_j + u_i δv_j). Of its effect on
a sum, y_i = Σ_j δA_ij ψ_j, the part Σ_d c_d (Σ_j v_j ψ_j) δu_i is of order 1 and diagonal in units: one more variable
per unit, with dy/dt = rate·y + …. The matrix A itself and the rest of y are of finite rank: they move single
eigenvalues, not the bulk. All other eigenvalues of the joint Jacobian (N² − N, for one bond) are at the bond's rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sympy import Add, Expr, Integral, Mul, S, Symbol

from quenched.theory.algebra import Transpose
from quenched.theory.bonds import BondEquation, BondField, bond_equations
from quenched.theory.couplings import Apply
from quenched.theory.distributions import Law
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, Quenched, unbind
from quenched.theory.spaces import N, Population

if TYPE_CHECKING:
    from quenched.theory.model import Model


def bond_of(node: Apply) -> BondField | None:
    """The dynamic coupling of a sum over units, if it has one."""
    atom = node.matrix.matrix if isinstance(node.matrix, Transpose) else node.matrix
    return atom if isinstance(atom, BondField) else None


@dataclass(frozen=True)
class BondSum:
    """A sum Σ_j A_ij ψ_j over a dynamic coupling, as a variable of the unit at its row.

    Attributes
    ----------
    node : the sum
    row : field that stands for its change
    rate : of the bond
    drives : (coefficient·⟨v ψ⟩, u) of each drive, u in the states of the unit at the row
    """

    node: Apply
    row: Field
    rate: Expr
    drives: tuple[tuple[Expr, Expr], ...]


def bond_sums(model: Model, laws: Mapping[Field, Any]) -> list[BondSum]:
    """Every sum over a dynamic coupling in the equations of a model.

    Raises
    ------
    NotCovered
        For a sum within a sum, or correlations over the bond that the laws do not give.
    """
    equations = {e.bond: e for e in bond_equations(model.bonds)}
    found: dict[Apply, BondSum] = {}
    for rhs in model.eqs.values():
        for node in sorted(rhs.atoms(Apply), key=str):
            inner = [n for n in unbind(node.body).atoms(Apply) if bond_of(n) is not None]
            if inner:
                raise NotCovered(f"{inner[0]}, a sum over a dynamic coupling, within {node}: name it as a field")
            bond = bond_of(node)
            if bond is not None and node not in found:
                found[node] = _bond_sum(node, equations[bond], len(found) + 1, laws)
    return list(found.values())


def _bond_sum(node: Apply, equation: BondEquation, number: int, laws: Mapping[Field, Any]) -> BondSum:
    turned = isinstance(node.matrix, Transpose)
    rows, cols = node.matrix.rows, node.matrix.cols
    drives = []
    for d in equation.drives:
        u, v = (d.right, d.left) if turned else (d.left, d.right)
        strength = d.coefficient * cols.count
        if N in strength.free_symbols:
            raise NotCovered(f"the drive of {equation.bond.name} scales as {d.coefficient}: a spectrum needs 1/N")
        drives.append((strength * average(v * unbind(node.body), cols, laws), u))
    return BondSum(node, Field(f"{equation.bond.name}_{number}", rows), equation.rate, tuple(drives))


def average(expr: Expr, population: Population, laws: Mapping[Field, Any]) -> Expr:
    """⟨expr⟩ over one unit whose field has the given law: a sum over its atoms, or an integral over its density.

    Raises
    ------
    NotCovered
        For a field without a law, or several fields, whose joint law is not known.
    """
    total = S.Zero
    for term in Add.make_args(expr.expand()):
        units = {s for s in term.free_symbols if isinstance(s, (Field, Quenched))}
        number, rest = term.as_independent(*units, as_Add=False) if units else (term, S.One)
        total += number * _moment(rest, population, laws)
    return total


def _moment(expr: Expr, population: Population, laws: Mapping[Field, Any]) -> Expr:
    fields = sorted((s for s in expr.free_symbols if isinstance(s, (Field, Quenched))), key=str)
    if not fields:
        return expr
    if len(fields) > 1:
        names = ", ".join(map(str, fields))
        raise NotCovered(f"⟨{expr}⟩ over {population.name!r} needs the joint law of {names}")
    (x,) = fields
    law = laws.get(x) if isinstance(x, Field) else x.law
    if law is None:
        raise NotCovered(
            f"the Jacobian contains ⟨{expr}⟩: give the law of {x}, as in jacobian(model, {{{x}: Normal(0, 1)}})"
        )
    if not isinstance(law, Law):
        return expr.xreplace({x: law})
    if law.weights():
        return Add(*(Mul(p, expr.xreplace({x: a})) for a, p in law.weights()))
    u = Symbol("u", real=True)
    support = law.support()
    return Integral(expr.xreplace({x: u}) * law.density(u), (u, support.inf, support.sup))
