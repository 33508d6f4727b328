"""Diagonalise translation-invariant matrices in a declared matrix.

In the basis of Fourier modes a `Circulant` is diagonal, and all circulants over one population are. The random atoms
change with the basis, but second cumulants of iid and of partly symmetric entries enter the self-energy as traces
alone, which no unitary change of basis alters. A diagonal matrix in the original basis would be diagonal no more: it is
refused.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sympy import Dummy, Expr, S, pi

from quenched.theory.algebra import Diag, Inverse, Matrix, Outer, Transpose, combine
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Apply, Gaussian, Iid
from quenched.theory.distributions import Uniform
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched, open_leaves, unbind
from quenched.theory.lower import Declaration
from quenched.theory.record import Form, Rule
from quenched.theory.spaces import Population
from quenched.theory.spectrum import Spectrum, SpectrumDeclaration
from quenched.theory.substitute import walk

if TYPE_CHECKING:
    from quenched.theory.model import Model


@dataclass(frozen=True)
class Diagonalise(Rule):
    """Write translation-invariant matrices in their Fourier modes."""

    title: ClassVar[str] = "Fourier modes of the translation-invariant matrices"
    assumption: ClassVar[str] = "the laws of the other atoms enter by traces, which the change of basis leaves alone"

    def __call__(self, before: Form) -> SpectrumDeclaration:
        assert isinstance(before, SpectrumDeclaration)
        return SpectrumDeclaration(diagonalised(before.spectrum))


def diagonalised(spectrum: Spectrum) -> Spectrum:
    """The matrix with every `Circulant` replaced by the diagonal matrix of its eigenvalues.

    Raises
    ------
    NotCovered
        For a diagonal matrix, a column times a row, or a mean of entries in the space of a `Circulant`.
    """
    angles = _angles(spectrum)
    blocks = {pair: _modes(block, angles) for pair, block in spectrum.blocks.items()}
    return Spectrum(blocks, spectrum.name, {s: v for s, v in spectrum.defaults.items()})


def _angles(model: Spectrum | Model) -> dict[Population, Quenched]:
    """The angle of the Fourier modes of every population with a `Circulant`."""
    taken = {s.name for s in (*model.quenched, *model.parameters, *model.matrices)}
    angles: dict[Population, Quenched] = {}
    for atom in model.matrices:
        if isinstance(atom, Circulant) and atom.rows not in angles:
            name = _unused("theta" if not angles else f"theta_{len(angles) + 1}", taken)
            angles[atom.rows] = Quenched(name, Uniform(0, 2 * pi), over=atom.rows)
    for atom in model.matrices:
        _demand_no_mean(atom, angles)
    return angles


def _modes(matrix: Matrix, angles: dict[Population, Quenched]) -> Matrix:
    terms = [(c, tuple(_factor(f, angles) for f in word)) for c, word in matrix.terms]
    return combine(terms, matrix.rows, matrix.cols)


def _factor(factor: Matrix, angles: dict[Population, Quenched]) -> Matrix:
    atom = factor.matrix if isinstance(factor, Transpose) else factor
    if isinstance(atom, Circulant):
        angle: Expr = angles[atom.rows]
        return Diag(atom.mode(-angle if isinstance(factor, Transpose) else angle), atom.rows)
    if isinstance(factor, Inverse):
        return Inverse(_modes(factor.matrix, angles))
    if isinstance(factor, Diag) and factor.rows in angles and any(True for _ in open_leaves(factor.vector)):
        raise NotCovered(
            f"{factor} and a translation-invariant matrix over {factor.rows.name!r} have different eigenvectors: "
            "their common spectrum is not built"
        )
    if isinstance(factor, Outer) and (factor.rows in angles or factor.cols in angles):
        raise NotCovered(f"{factor} over the population of a translation-invariant matrix is not built")
    return factor


def _demand_no_mean(atom: Matrix, angles: dict[Population, Quenched]) -> None:
    if atom.rows not in angles and atom.cols not in angles:
        return
    mean = atom.mean if isinstance(atom, Gaussian) else atom.law.mean_() if isinstance(atom, Iid) else S.Zero
    if mean != 0:
        raise NotCovered(f"the mean {mean} of {atom.name} over the population of a translation-invariant matrix")


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "'"
    taken.add(name)
    return name


# -- dynamics ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FourierModes(Rule):
    """Write translation-invariant matrices of a dynamics in their Fourier modes."""

    title: ClassVar[str] = "Fourier modes of the translation-invariant matrices"
    assumption: ClassVar[str] = "their units are linear; the laws of the other couplings enter by traces"

    def __call__(self, before: Form) -> Declaration:
        assert isinstance(before, Declaration)
        return Declaration(in_modes(before.model))


def in_modes(model: Model) -> Model:
    """The model with every `Circulant` replaced by the eigenvalues of its modes, complex labels of linear units.

    Raises
    ------
    NotCovered
        For units that are not linear, or carry quantities of their own, in the space of a `Circulant`.
    """
    angles = _angles(model)
    for x, rhs in model.eqs.items():
        for part in walk(rhs):
            own = getattr(part, "population", None)
            if own in angles and not isinstance(part, Apply):
                raise NotCovered(
                    f"{part} in the equation of {x}: over {own.name!r} sums over couplings alone are built"
                )
            if isinstance(part, Apply) and part.cols in angles:
                _demand_linear(unbind(part.body), part)
    out = copy(model)
    out.eqs = {x: _in_modes(rhs, angles) for x, rhs in model.eqs.items()}
    out._collect()
    return out


def _in_modes(expr: Expr, angles: dict[Population, Quenched]) -> Expr:
    if isinstance(expr, Apply):
        body, matrix = _in_modes(unbind(expr.body), angles), expr.matrix
        if isinstance(matrix, Circulant) or (isinstance(matrix, Transpose) and isinstance(matrix.matrix, Circulant)):
            diagonal = _factor(matrix, angles)
            assert isinstance(diagonal, Diag)
            return diagonal.vector * body
        return Apply(matrix, body)
    return expr.func(*(_in_modes(a, angles) for a in expr.args)) if expr.args and expr.has(Apply) else expr


def _demand_linear(body: Expr, node: Apply) -> None:
    names = {leaf: Dummy() for leaf in body.atoms(Apply)}
    shown = body.xreplace(names)
    if any(shown.diff(a).diff(b) != 0 for a in names.values() for b in names.values()):
        raise NotCovered(f"{node} reads a nonlinear function of units with a translation-invariant coupling")
