"""Derivation of a spectrum: the default path through the steps of the resolvent reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from quenched.theory.average import Average
from quenched.theory.circulant import Circulant
from quenched.theory.errors import NotCovered
from quenched.theory.linearise import Hermitise, Linearise, Pencil
from quenched.theory.modes import Diagonalise
from quenched.theory.problem_dyson import SpectralProblem
from quenched.theory.record import Form, Line
from quenched.theory.resolvent import (
    Boundary,
    DysonEquation,
    Eliminate,
    FindBoundary,
    PairAtoms,
    RemoveZeros,
    ScalarEquations,
    regular,
)
from quenched.theory.spectrum import Spectrum, SpectrumDeclaration
from quenched.theory.steps import Steps

F = TypeVar("F", bound=Form)


@dataclass(frozen=True)
class SpectralDerivation(Steps):
    """A declared matrix and the steps taken from it."""

    model: Spectrum

    @property
    def declaration(self) -> SpectrumDeclaration:
        """The form that everything starts from."""
        return SpectrumDeclaration(self.model)

    def stability(self) -> SpectralDerivation:
        """The boundary once more, from the quadratic action between the resolvents at z and at its conjugate."""
        from quenched.theory.copy_stability import ExpandSharedCopies, MultiplyPropagators
        from quenched.theory.shared_sites import LowerPencil, resolvent_site

        pencil, site = resolvent_site(self)
        averaged = self.apply(LowerPencil(), pencil).apply(Average())
        return averaged.apply(ExpandSharedCopies(site)).apply(MultiplyPropagators())

    @property
    def problem(self) -> SpectralProblem:
        """What the solvers get: the reduced Dyson equations."""
        reduced = [s.after for s in self.steps if isinstance(s.rule, RemoveZeros)]
        problems = [form.problem for form in reduced if isinstance(form, DysonEquation)]
        doubled = next((p for p in problems if p.half is not None), None)
        return SpectralProblem(self.model.hermitian, problems[0], doubled, regular(problems[0]))

    @property
    def equations(self) -> list[Line]:
        """The closed equations: scalars, resolvent and boundary."""
        kinds: tuple[type[Form], ...] = (ScalarEquations, Boundary)
        found = [form for kind in kinds if (form := self.find(kind)) is not None]
        return [line for form in found for line in form.lines()]

    @property
    def scalars(self) -> list[Line]:
        """The scalars that the reduced Dyson equations hang on, as definitions."""
        reduced = [s.after for s in self.steps if isinstance(s.rule, RemoveZeros)]
        return [line for form in reduced if isinstance(form, DysonEquation) for line in form.definitions()]

    @property
    def solvable(self) -> bool:
        """Whether the steps reached equations for the solvers: they do once the pencil is there."""
        return True


def derive_spectrum(model: Spectrum) -> SpectralDerivation:
    """Derive resolvent, support and density of a declared matrix.

    Raises
    ------
    NotCovered
        For atoms without second cumulants of order 1/N.
    """
    d = SpectralDerivation(model)
    if any(isinstance(m, Circulant) for m in model.matrices):
        d = d.apply(Diagonalise())
    d = d.apply(Linearise())
    pencil = d.find(Pencil)
    assert pencil is not None
    d = d.apply(PairAtoms()).apply(RemoveZeros())
    try:
        d = d.apply(Eliminate())
    except NotCovered as stop:
        d = d.refuse(Eliminate.title, str(stop))
    if model.hermitian:
        return d
    d = d.apply(Hermitise(), pencil).apply(PairAtoms()).apply(RemoveZeros())
    scalars = d.find(ScalarEquations)
    return d if scalars is None else d.apply(FindBoundary(scalars))
