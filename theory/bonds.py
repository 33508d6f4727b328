"""Dynamic couplings: a matrix whose entries have equations of motion of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sympy import Basic, Expr, S, Tuple
from sympy.core.symbol import Str

from quenched.theory.algebra import Matrix, Outer
from quenched.theory.couplings import Apply, RandomMatrix, spaces_of
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import At
from quenched.theory.observables import Mean
from quenched.theory.spaces import Population, as_name

#: What to do with a sum over units where only what a unit knows of itself is read.
FOLLOWED = "let a field m of each unit follow it, m' = ({} − m)/T with a short time T, and read that"


class BondField(RandomMatrix):
    """A coupling matrix that moves: ``Field("A", over=(rows, cols))``, with an equation of its own.

    Attributes
    ----------
    initial : Matrix or None
        Where it starts: a sum of ``outer(u, v)`` of what its units are then; None for 0.
    """

    initial: Matrix | None

    def __new__(cls, name: Any, over: Any, initial: Any = None) -> BondField:
        text = as_name(name, "Field")
        spaces = spaces_of(over, text)
        obj = Basic.__new__(cls, Str(text), Tuple(*spaces))
        obj._place(text, spaces, Str(""))
        obj.initial = None if initial in (None, 0) else _start(initial, obj)
        return obj

    def _hashable_content(self) -> tuple[Any, ...]:
        return self.args if self.initial is None else (*self.args, self.initial)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self.args, self.initial)

    def __repr__(self) -> str:
        return self.name


def _start(initial: Any, bond: BondField) -> Matrix:
    """Check where a bond starts."""
    spaces = (bond.rows, bond.cols)
    if not isinstance(initial, Matrix) or (initial.rows, initial.cols) != spaces:
        raise QuenchedError(
            f"initial of {bond.name} should be a matrix ({bond.rows.name} × {bond.cols.name}), as in outer(u, v)/N, or "
            f"left out: it starts at 0; got {initial}"
        )
    for drive in _drives(initial, bond, f"initial of {bond.name}")[1]:
        if drive.left.has(At) or drive.right.has(At):
            raise QuenchedError(f"initial of {bond.name} reads {drive.left}, {drive.right}: give what units are then")
    return initial


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
    return BondEquation(bond, *_drives(rhs, bond, where))


def _hint(word: tuple[Matrix, ...]) -> str:
    """What of a word comes close to an equation of a bond."""
    if len(word) == 1 and isinstance(word[0], BondField):
        return (
            f"; a bond that follows another one, {word[0].name}, is not covered: decaying at rates a and b, and driven "
            "by c times the other, it is c/(b − a) times the other plus a bond that decays at a and is driven by "
            "−c/(b − a) times what drives the other"
        )
    if any(isinstance(f, BondField) for f in word):
        return "; their decay has one rate for all pairs of units"
    return ""


def starts_of(bond: BondField) -> tuple[Drive, ...]:
    """Where a bond starts, as products of what its two units are then."""
    return () if bond.initial is None else _drives(bond.initial, bond, f"initial of {bond.name}")[1]


def _drives(rhs: Matrix, bond: BondField, where: str) -> tuple[Expr, tuple[Drive, ...]]:
    """Coefficient of the bond itself, and the products of unit quantities."""
    rate: Expr = S.Zero
    drives = []
    for coefficient, word in rhs.terms:
        if word == (bond,):
            rate += coefficient
        elif len(word) == 1 and isinstance(word[0], Outer):
            drives.append(Drive(coefficient, _site(word[0].left, where), _site(word[0].right, where)))
        else:
            text = " @ ".join(map(str, word)) or "eye"
            raise NotCovered(
                f"{where} contains {text}: bonds are linear in themselves, driven by outer(u, v){_hint(word)}"
            )
    return rate, tuple(drives)


def _site(vector: Expr, where: str) -> Expr:
    sums = sorted({*vector.atoms(Apply), *vector.atoms(Mean)}, key=str)
    if sums:
        raise NotCovered(f"{where} reads {vector}, with a sum over units: {FOLLOWED.format(sums[0])}")
    return vector


def bond_equations(bonds: Mapping[BondField, Matrix]) -> tuple[BondEquation, ...]:
    """The equations of all bonds."""
    return tuple(bond_equation(bond, rhs) for bond, rhs in bonds.items())


def site_bodies(model: Any) -> list[Expr]:
    """Everything that the equations of a model say of its units: right-hand sides, and what bonds read."""
    ends = (end for e in bond_equations(model.bonds) for end, _ in endpoints(e.bond, e.drives))
    return [*model.eqs.values(), *ends]


def endpoints(bond: BondField, drives: Iterable[Drive]) -> list[tuple[Expr, Population]]:
    """What a bond reads from its units, each with the population."""
    return [end for d in drives for end in ((d.left, bond.rows), (d.right, bond.cols))]
