"""Dynamic couplings: a matrix whose entries have equations of motion of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sympy import Basic, Expr, S, Tuple
from sympy.core.symbol import Str

from quenched.theory.algebra import Matrix, Outer
from quenched.theory.couplings import Apply, RandomMatrix, spaces_of
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.observables import Mean
from quenched.theory.spaces import Population, as_name


class BondField(RandomMatrix):
    """A coupling matrix that moves: ``Field("A", over=(rows, cols))``, with an equation of its own. It starts at 0."""

    def __new__(cls, name: Any, over: Any) -> BondField:
        text = as_name(name, "Field")
        spaces = spaces_of(over, text)
        obj = Basic.__new__(cls, Str(text), Tuple(*spaces))
        obj._place(text, spaces, Str(""))
        return obj

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Drive:
    """coefficient · u_i(t) v_j(t) in the equation of a bond A_ij."""

    coefficient: Expr
    left: Expr
    right: Expr


@dataclass(frozen=True)
class BondEquation:
    """dA_ij/dt (A_ij one step later, for a map) = rate · A_ij + Σ drives."""

    bond: BondField
    rate: Expr
    drives: tuple[Drive, ...]


def bond_equation(bond: BondField, rhs: Any) -> BondEquation:
    """Read the equation of a bond: linear in the bond itself, driven by products of what its two units do.

    Raises
    ------
    QuenchedError
        Something that is no matrix over the same populations.
    NotCovered
        Anything but the bond itself and ``outer(u, v)``.
    """
    where = f"equation of {bond.name}"
    if rhs == 0 and not isinstance(rhs, Matrix):
        return BondEquation(bond, S.Zero, ())
    if not isinstance(rhs, Matrix) or (rhs.rows, rhs.cols) != (bond.rows, bond.cols):
        space = f"({bond.rows.name} × {bond.cols.name})"
        raise QuenchedError(f"{where} should be a matrix {space}, as in -{bond.name} + outer(u, v)/N, got {rhs}")
    rate: Expr = S.Zero
    drives = []
    for coefficient, word in rhs.terms:
        if word == (bond,):
            rate += coefficient
        elif len(word) == 1 and isinstance(word[0], Outer):
            drives.append(Drive(coefficient, _site(word[0].left, where), _site(word[0].right, where)))
        else:
            text = " @ ".join(map(str, word)) or "eye"
            raise NotCovered(f"{where} contains {text}: bonds are linear in themselves, driven by outer(u, v)")
    return BondEquation(bond, rate, tuple(drives))


def _site(vector: Expr, where: str) -> Expr:
    if vector.atoms(Apply) or vector.atoms(Mean):
        raise NotCovered(f"{where} reads {vector}, a sum over units: write it as a field of its own")
    return vector


def bond_equations(bonds: Mapping[BondField, Matrix]) -> tuple[BondEquation, ...]:
    """The equations of all bonds."""
    return tuple(bond_equation(bond, rhs) for bond, rhs in bonds.items())


def site_bodies(model: Any) -> list[Expr]:
    """Everything that the equations of a model say of its units: right-hand sides, and what bonds read."""
    return [*model.eqs.values(), *(end for e in bond_equations(model.bonds) for end, _ in endpoints(e))]


def endpoints(equation: BondEquation) -> list[tuple[Expr, Population]]:
    """What the bond reads from its units, each with the population."""
    bond = equation.bond
    return [end for d in equation.drives for end in ((d.left, bond.rows), (d.right, bond.cols))]
