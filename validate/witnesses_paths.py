"""Witnesses of the reading *paths*: one comparison of numeric meanings for each of its steps."""

from __future__ import annotations

from typing import Any

from quenched.theory.average import Average, Functional
from quenched.theory.balance import Balance
from quenched.theory.causal import MarchUnits
from quenched.theory.causal_copies import DoubleInTime
from quenched.theory.closure import Close
from quenched.theory.doubled import AsSchroedinger, DoubleCopies, FindFixedPoints, Schroedinger
from quenched.theory.eliminate import EliminateLinear
from quenched.theory.linear import SolveUnits
from quenched.theory.lower import Lower
from quenched.theory.members import WriteMembers
from quenched.theory.modes import FourierModes
from quenched.theory.plastic import IntegrateBonds
from quenched.theory.points import FollowPaths
from quenched.theory.potential import ConservativeForm, IntegrateOnce
from quenched.theory.problem import StationaryGaussian
from quenched.theory.readoff import ReadOff
from quenched.theory.record import Rule
from quenched.theory.saddle import NameOrderParameters, Saddle
from quenched.theory.sampled import SampleUnits
from quenched.theory.stationary import CloseAverages, Stationary
from quenched.theory.vanish import LargestTime
from quenched.validate.meaning_action import (
    average_deviation,
    integration_deviation,
    lowering_deviation,
    naming_deviation,
)
from quenched.validate.meaning_causal import balance_deviation, causal_deviation, copies_in_time_deviation
from quenched.validate.meaning_eliminate import (
    elimination_deviation,
    members_deviation,
    modes_deviation,
    paths_deviation,
    real_twins,
)
from quenched.validate.meaning_sampled import sampled_deviation
from quenched.validate.meaning_site import causality_deviation, readoff_deviation, saddle_deviation
from quenched.validate.meaning_state import (
    averages_deviation,
    copies_deviation,
    fixed_point_deviation,
    potential_deviation,
    schroedinger_deviation,
    stationary_deviation,
)
from quenched.validate.meaning_units import closure_deviation, units_deviation
from quenched.validate.witness_types import DIFFERENCES, EXACT, Witness


def problem_of(form: Any) -> StationaryGaussian:
    """The stationary problem that a form is about."""
    if isinstance(form, ConservativeForm | Schroedinger):
        return form.potential.full
    found: StationaryGaussian = form.problem
    return found


def _functional(form: Any) -> Functional:
    found: Functional = form.functional
    return found


#: One witness per rule.
WITNESSES: dict[type[Rule], Witness] = {
    Lower: Witness(
        "declared rates by explicit loops over 3–5 sites against local fields from the uses",
        EXACT,
        lambda b, a, s: lowering_deviation(*real_twins(b.model, a), s.values, s.rng()),
    ),
    IntegrateBonds: Witness(
        "explicit matrices of dynamic couplings at 3 copies against site sums with kernels",
        EXACT,
        lambda b, a, s: integration_deviation(b, a, s.values, s.rng()),
    ),
    Average: Witness(
        "exact average over all matrix entries, 3 sites, 2 copies, random fields",
        EXACT,
        lambda b, a, s: average_deviation(s.model, b, a, s.values, s.rng()),
    ),
    NameOrderParameters: Witness(
        "every factor against the order parameters, 3 sites, 2 copies",
        EXACT,
        lambda b, a, s: naming_deviation(b, a.parameters, s.values, s.rng()),
    ),
    Saddle: Witness(
        "functional derivative of the averaged exponent at a random law of sites",
        EXACT,
        lambda b, a, s: saddle_deviation(_functional(b), a, s.values, s.rng()),
    ),
    LargestTime: Witness(
        "site exponent with all causal order parameters at 4 times, by enumeration",
        EXACT,
        lambda b, a, s: causality_deviation(b, a, s.values, s.rng()),
    ),
    ReadOff: Witness(
        "site exponent against Gaussian local fields at 3 times",
        EXACT,
        lambda b, a, s: readoff_deviation(b, a, s.values, s.rng()),
    ),
    FourierModes: Witness(
        "declared rates entry by entry at 5–7 sites against a discrete Fourier transform",
        EXACT,
        lambda b, a, s: modes_deviation(b.model, a.model, s.values, s.rng()),
    ),
    WriteMembers: Witness(
        "declared rates at 12 explicit units, with matrices and with the numbers that their rows become",
        EXACT,
        lambda b, a, s: members_deviation(b.model, a.model, s.values, s.rng()),
    ),
    FollowPaths: Witness(
        "averages, rates and starts at random states and labels of 6 units",
        EXACT,
        lambda b, a, s: paths_deviation(b, s.model, a.problem, s.values, s.rng()),
    ),
    EliminateLinear: Witness(
        "linear equations of the eliminated units on a grid of labels, at random operators",
        EXACT,
        lambda b, a, s: elimination_deviation(b, a, s.values, s.rng()),
    ),
    SampleUnits: Witness(
        "statistics of the local fields and site equations at random numbers",
        EXACT,
        lambda b, a, s: sampled_deviation(b, a.problem, s.values, s.rng()),
    ),
    MarchUnits: Witness(
        "rates, outputs, statistics of fields and initial values at random states and times",
        EXACT,
        lambda b, a, s: causal_deviation(b, s.model, a, s.values, s.rng()),
    ),
    Balance: Witness(
        "rates of the means at huge N, at random averages of the outputs",
        1e-6,
        lambda b, a, s: balance_deviation(b, a, s.values, s.rng()),
    ),
    DoubleInTime: Witness(
        "finite differences of the fields' covariances in the covariance of their arguments",
        DIFFERENCES,
        lambda b, a, s: copies_in_time_deviation(b, a, s.values, s.rng()),
    ),
    SolveUnits: Witness(
        "linear solve of the numeric site equations at a random complex frequency",
        EXACT,
        lambda b, a, s: units_deviation(b, a, s.values, s.rng()),
    ),
    Close: Witness(
        "means and covariances of the filtered local fields at random frequencies",
        EXACT,
        lambda b, a, s: closure_deviation(b, a.problem, s.values, s.rng()),
    ),
    CloseAverages: Witness(
        "closed forms against two-dimensional quadrature",
        EXACT,
        lambda b, a, s: averages_deviation(b.problem, a.problem, s.values, s.rng()),
    ),
    Stationary: Witness(
        "two-time filters on plane waves of t − s",
        EXACT,
        lambda b, a, s: stationary_deviation(b.problem, a, s.values, s.rng()),
    ),
    IntegrateOnce: Witness(
        "dV/dΔ by finite differences of quadratures, jump of the slope at 0",
        DIFFERENCES,
        lambda b, a, s: potential_deviation(b.problem, a.potential, s.values, s.rng()),
    ),
    DoubleCopies: Witness(
        "finite differences of the doubled closure, filters at random λ ± D",
        DIFFERENCES,
        lambda b, a, s: copies_deviation(problem_of(b), a, s.values, s.rng()),
    ),
    AsSchroedinger: Witness(
        "E(λ) against the two-copy filter, λ(E) as its inverse",
        EXACT,
        lambda b, a, s: schroedinger_deviation(b, a, s.values, s.rng()),
    ),
    FindFixedPoints: Witness(
        "finite differences of the static closure, filtered at z and z̄",
        DIFFERENCES,
        lambda b, a, s: fixed_point_deviation(problem_of(b), a, s.values, s.rng()),
    ),
}
