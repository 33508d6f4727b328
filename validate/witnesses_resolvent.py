"""Witnesses of the resolvent reading: one comparison of numeric meanings for each of its steps."""

from __future__ import annotations

from quenched.theory.linearise import Hermitise, Linearise
from quenched.theory.modes import Diagonalise
from quenched.theory.record import Rule
from quenched.theory.resolvent import Eliminate, FindBoundary, PairAtoms, RemoveZeros
from quenched.validate.meaning_resolvent import (
    boundary_deviation,
    eliminate_deviation,
    hermitise_deviation,
    linearise_deviation,
    modes_deviation,
    pair_deviation,
    zeros_deviation,
)
from quenched.validate.witness_types import DIFFERENCES, EXACT, Witness

#: One witness per rule.
WITNESSES: dict[type[Rule], Witness] = {
    Diagonalise: Witness(
        "eigenvalues of explicit matrices of 7 sites",
        1e-7,
        lambda b, a, s: modes_deviation(b.spectrum, a.spectrum, s.values),
    ),
    Linearise: Witness(
        "(z − M)⁻¹ of 3 to 5 explicit units a population against the pencil's inverse",
        EXACT,
        lambda b, a, s: linearise_deviation(b.spectrum, a, s.values, s.rng()),
    ),
    Hermitise: Witness(
        "[[0, L], [L†, 0]] of explicit blocks",
        EXACT,
        lambda b, a, s: hermitise_deviation(b, a, s.values, s.rng()),
    ),
    PairAtoms: Witness(
        "exact E[W 𝒢 W] and E[W] over explicit units from the declared laws, random 𝒢",
        EXACT,
        lambda b, a, s: pair_deviation(b, a.problem, s.values, s.rng()),
    ),
    RemoveZeros: Witness(
        "𝒢 iterated with all scalars and with those that are left, random labels",
        EXACT,
        lambda b, a, s: zeros_deviation(b.problem, a.problem, s.values, s.rng()),
    ),
    Eliminate: Witness(
        "scalars, 𝒢 and g(z) at an iterated solution of the Dyson equation, random labels",
        EXACT,
        lambda b, a, s: eliminate_deviation(b.problem, a, s.values, s.rng()),
    ),
    FindBoundary: Witness(
        "finite differences of the doubled equation at η = 0",
        DIFFERENCES,
        lambda b, a, s: boundary_deviation(b.problem, a, s.values, s.rng()),
    ),
}
