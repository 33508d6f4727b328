"""Derivation of a spectrum: the default path through the steps of the resolvent reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from quenched.theory.circulant import Circulant
from quenched.theory.errors import NotCovered
from quenched.theory.linearise import Hermitise, Linearise, Pencil
from quenched.theory.modes import Diagonalise
from quenched.theory.problem_dyson import SpectralProblem
from quenched.theory.record import Form, Line, Rule, Step, row
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

F = TypeVar("F", bound=Form)


@dataclass(frozen=True)
class SpectralDerivation:
    """A declared matrix and the steps taken from it.

    Attributes
    ----------
    model : the declaration
    steps : the record, in order
    refusals : steps that do not apply, each (title, reason)
    """

    model: Spectrum
    steps: tuple[Step, ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()

    @property
    def declaration(self) -> SpectrumDeclaration:
        """The form that everything starts from."""
        return SpectrumDeclaration(self.model)

    def find(self, kind: type[F]) -> F | None:
        """The latest form of a kind, or None."""
        return next((s.after for s in reversed(self.steps) if isinstance(s.after, kind)), None)

    def apply(self, rule: Rule, before: Form | None = None) -> SpectralDerivation:
        """Take one step with any rule, from the present form unless another is given."""
        start = before if before is not None else (self.steps[-1].after if self.steps else self.declaration)
        step = Step(rule, start)
        _ = step.after  # compute now, so that a refusal is raised here
        return replace(self, steps=(*self.steps, step))

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
    def refusal(self) -> str | None:
        """Why there are no equations for the solvers: there always are, once the pencil is there."""
        return None

    def titles(self) -> list[str]:
        return [s.title for s in self.steps]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def text(self) -> str:
        """All steps in plain text, numbered from 0 (the declaration)."""
        blocks = ["0. Declaration\n" + "\n".join(f"  {line.text}" for line in self.declaration.lines())]
        blocks += [f"{k}. {step.text()}" for k, step in enumerate(self.steps, start=1)]
        blocks += [f"not applicable: {title}: {reason}" for title, reason in self.refusals]
        return "\n".join(blocks)

    def latex(self) -> str:
        """All steps in LaTeX, ready for a paper."""
        head = "\\paragraph{Declaration.}\n\\begin{align}\n"
        head += " \\\\\n".join(row(line) for line in self.declaration.lines()) + "\n\\end{align}"
        return "\n\n".join([head, *(step.latex() for step in self.steps)])

    def bibtex(self) -> str:
        """The sources of the steps taken, as BibTeX entries."""
        from quenched.theory.sources import bibtex

        return bibtex(key for step in self.steps for key in step.source.split(",") if key)

    def __repr__(self) -> str:
        return self.text()


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
        d = replace(d, refusals=(*d.refusals, (Eliminate.title, str(stop))))
    if model.hermitian:
        return d
    d = d.apply(Hermitise(), pencil).apply(PairAtoms()).apply(RemoveZeros())
    scalars = d.find(ScalarEquations)
    return d if scalars is None else d.apply(FindBoundary(scalars))
