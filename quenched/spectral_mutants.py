"""Deliberately wrong theories of spectra, besides the mistakes that every head knows (`quenched.mutants`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sympy import S

from quenched import mutants
from quenched.spectral import SpectralTheory
from quenched.theory.algebra import Diag, Matrix, combine
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import Quenched
from quenched.theory.spectral import derive_spectrum

if TYPE_CHECKING:
    from quenched.theory.problem_dyson import DysonProblem, SpectralProblem
    from quenched.theory.spectrum import Spectrum
    from quenched.theory_object import Theory


class _WrongProblem(SpectralTheory):
    """A theory whose Dyson equations were changed."""

    changed: SpectralProblem

    @property
    def problem(self) -> SpectralProblem:  # type: ignore[override]
        return self.changed


def mutate(theory: SpectralTheory, name: str) -> Theory:
    """The theory with the mistake called `name`.

    Raises
    ------
    QuenchedError
        No such mutant.
    NotCovered
        The mistake changes nothing in this declaration, or makes its eigenvalues complex.
    """
    if name in SPECTRAL_MUTANTS:
        what, make = SPECTRAL_MUTANTS[name]
        return make(theory).mistaken(f"{name}: {what}", theory)
    if name not in mutants.DECLARATION_MUTANTS:
        raise QuenchedError(f"no mutant {name!r}: {nearest(name, [*SPECTRAL_MUTANTS, *mutants.DECLARATION_MUTANTS])}")
    try:
        return mutants.mutate(theory, name)
    except NotCovered:
        raise
    except QuenchedError as error:
        raise NotCovered(f"the mutant {name!r} has no spectrum of the same kind: {error}") from None


def _aspect_dropped(theory: SpectralTheory) -> SpectralTheory:
    right = theory.problem
    if all(space.fraction == 1 for space in right.analytic.spaces):
        raise NotCovered("the mutant 'aspect-dropped' changes nothing: all populations have N units")

    def whole(problem: DysonProblem) -> DysonProblem:
        return replace(problem, spaces=tuple(replace(space, fraction=S.One) for space in problem.spaces))

    wrong = _WrongProblem(theory.derivation)
    wrong.changed = replace(right, analytic=whole(right.analytic), doubled=right.doubled and whole(right.doubled))
    return wrong


def _labels_averaged(theory: SpectralTheory) -> SpectralTheory:
    means = {q: q.law.mean_() for q in theory.model.quenched}
    if not means:
        raise NotCovered("the mutant 'labels-averaged' changes nothing: no quenched numbers")
    return _derived(theory, theory.model.rewritten(means))


def _labels_independent(theory: SpectralTheory) -> SpectralTheory:
    """Every diagonal matrix with labels of its own, as if ⟨l² r²/|z − a|²⟩ were ⟨l²⟩⟨r²⟩⟨1/|z − a|²⟩."""
    from quenched.theory.spectrum import Spectrum

    count = 0

    def fresh(factor: Matrix) -> Matrix:
        nonlocal count
        if not isinstance(factor, Diag):
            return factor
        count += 1
        own = {
            q: Quenched(f"{q.name}_{count}", q.law, over=q.population)
            for q in factor.vector.free_symbols
            if isinstance(q, Quenched)
        }
        return Diag(factor.vector.xreplace(own), factor.rows)

    blocks = {
        pair: combine([(c, tuple(fresh(f) for f in word)) for c, word in block.terms], block.rows, block.cols)
        for pair, block in theory.model.blocks.items()
    }
    if count < 2:
        raise NotCovered("the mutant 'labels-independent' changes nothing: fewer than two diagonal matrices")
    wrong = Spectrum(blocks, theory.model.name)
    if wrong.hermitian != theory.model.hermitian:
        raise NotCovered("the mutant 'labels-independent' would make the eigenvalues of this matrix complex")
    wrong.observe(**theory.model.observables)
    wrong.defaults = {s: v for s, v in theory.model.defaults.items() if s in wrong.parameters}
    return _derived(theory, wrong)


def _derived(theory: SpectralTheory, model: Spectrum) -> SpectralTheory:
    return SpectralTheory(derive_spectrum(model), fixed=theory.fixed)


#: Name → what is wrong, and how it is made.
SPECTRAL_MUTANTS: dict[str, tuple[str, Callable[[SpectralTheory], SpectralTheory]]] = {
    "aspect-dropped": ("all populations as large as N in the self-energy", _aspect_dropped),
    "labels-averaged": ("the mean of the quenched numbers in place of their law", _labels_averaged),
    "labels-independent": ("labels of different diagonal matrices taken as independent", _labels_independent),
}
