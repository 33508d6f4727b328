"""Witnesses of fluctuations about the saddle: one comparison of numeric meanings for each of the steps."""

from __future__ import annotations

from quenched.theory.fluctuations import ExpandBetweenCopies, InvertQuadraticAction, PropagateUnits
from quenched.theory.record import Rule
from quenched.validate.meaning_fluctuations import inversion_deviation, propagators_deviation, quadratic_deviation
from quenched.validate.witness_types import EXACT, Witness

#: One witness per rule.
WITNESSES: dict[type[Rule], Witness] = {
    ExpandBetweenCopies: Witness(
        "averaged exponent of two copies less that of each alone, random fields at 3 sites",
        EXACT,
        lambda b, a, s: quadratic_deviation(b, a, s.values, s.rng()),
    ),
    PropagateUnits: Witness(
        "linear solve of the numeric site equations at a random complex frequency",
        EXACT,
        lambda b, a, s: propagators_deviation(b, a, s.values, s.rng()),
    ),
    InvertQuadraticAction: Witness(
        "closed formulas, a matrix inverse and the planar series at random propagators",
        EXACT,
        lambda b, a, s: inversion_deviation(b, a, s.values, s.rng()),
    ),
}
