"""Witnesses of the replicas reading, one per rule."""

from __future__ import annotations

from typing import Any

from quenched.theory.gibbs import Gibbs
from quenched.theory.record import Rule
from quenched.theory.replica_ansatz import ReplicaSymmetry
from quenched.theory.replica_blocks import BlockEquations, Blocks
from quenched.theory.replica_cold import ObserveCold, ZeroTemperature
from quenched.theory.replica_condense import Condense, condensed, pattern_matrices
from quenched.theory.replica_limit import Extremise, FewReplicas, Replicon
from quenched.theory.replica_lower import Replicate
from quenched.theory.replica_modes import CountModes, in_modes, turned_populations
from quenched.theory.replica_pair import TwoStates
from quenched.theory.replica_state import Observe
from quenched.validate.meaning_condense import condense_deviation
from quenched.validate.meaning_modes import modes_deviation
from quenched.validate.meaning_replica_blocks import block_equations_deviation, blocks_deviation
from quenched.validate.meaning_replica_cold import cooling_deviation, observed_cold_deviation
from quenched.validate.meaning_replica_pair import pair_deviation
from quenched.validate.meaning_replica_state import observables_deviation, replicon_deviation
from quenched.validate.meaning_replica_steps import (
    ansatz_deviation,
    limit_deviation,
    replicate_deviation,
    stationarity_deviation,
)
from quenched.validate.witness_types import DIFFERENCES, Witness

#: Comparisons of quadratures of different kinds.
QUADRATURES = 1e-7

#: Limits β → ∞, extrapolated.
LIMITS = 2e-3


def declared(scene: Any) -> Any:
    """The measure that the steps start from: condensed patterns written out, or units counted in modes."""
    model = scene.model
    if isinstance(model, Gibbs) and turned_populations(model):
        return in_modes(model).model
    if getattr(model, "rows", None) is None or not pattern_matrices(model):
        return model
    return condensed(model)


WITNESSES: dict[type[Rule], Witness] = {
    Condense: Witness(
        "energies of random states from the matrices, and from overlaps with their rows, in and beyond the window",
        1e-9,
        lambda b, a, s: condense_deviation(b.model, a.model, s.values, s.rng()),
    ),
    CountModes: Witness(
        "exponents of random states of 8 units from the matrices, and in waves with eigenvalues",
        1e-9,
        lambda b, a, s: modes_deviation(b.model, a, s.values, s.rng()),
    ),
    Replicate: Witness(
        "declared exponent on random states, 6 sites, against uses and site weights",
        1e-9,
        lambda b, a, s: replicate_deviation(declared(s), a, s.values, s.rng()),
    ),
    ReplicaSymmetry: Witness(
        "3 explicit replicas in the functional, 2 at every site by sums over their states",
        QUADRATURES,
        lambda b, a, s: ansatz_deviation(declared(s), b, a, s.values, s.rng()),
    ),
    Blocks: Witness(
        "4 and 6 explicit replicas in blocks of two, extrapolated to none; unit vectors at every site",
        1e-9,
        lambda b, a, s: blocks_deviation(b, a, s.values, s.rng()),
    ),
    BlockEquations: Witness(
        "∂Φ by differences in overlaps, sizes of blocks and multipliers",
        DIFFERENCES,
        lambda b, a, s: block_equations_deviation(b, a, s.values, s.rng()),
    ),
    FewReplicas: Witness(
        "Φ_n/n at n = .004, .002, .001, extrapolated to 0",
        DIFFERENCES,
        lambda b, a, s: declared(s) and limit_deviation(b, a, s.values, s.rng()),
    ),
    Extremise: Witness(
        "∂Φ by differences; order parameters by sums over states",
        DIFFERENCES,
        lambda b, a, s: declared(s) and stationarity_deviation(b, a, s.values, s.rng()),
    ),
    Replicon: Witness(
        "P″ by differences of 4 explicit replicas, covariance of a site by sums over states",
        DIFFERENCES,
        lambda b, a, s: declared(s) and replicon_deviation(b, a, s.values, s.rng()),
    ),
    TwoStates: Witness(
        "fields from one explicit replica in each state, overlaps by sums over both",
        QUADRATURES,
        lambda b, a, s: pair_deviation(declared(s), b, a, s.values, s.rng()),
    ),
    ZeroTemperature: Witness(
        "energy, equations, norms, fields and replicon at β = 4 … 128, extrapolated",
        LIMITS,
        lambda b, a, s: declared(s) and cooling_deviation(b, a, s.values, s.rng()),
    ),
    ObserveCold: Witness(
        "moments by sums over states at large β, extrapolated",
        LIMITS,
        lambda b, a, s: observed_cold_deviation(b, a, declared(s), s.values, s.rng()),
    ),
    Observe: Witness(
        "moments by sums over states, energy by differences of Φ",
        DIFFERENCES,
        lambda b, a, s: observables_deviation(b, a, declared(s), s.values, s.rng()),
    ),
}
