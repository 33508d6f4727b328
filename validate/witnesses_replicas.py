"""Witnesses of the replicas reading, one per rule."""

from __future__ import annotations

from quenched.theory.record import Rule
from quenched.theory.replica_ansatz import ReplicaSymmetry
from quenched.theory.replica_limit import Extremise, FewReplicas, Observe, Replicon
from quenched.theory.replica_lower import Replicate
from quenched.validate.meaning_replica_steps import (
    ansatz_deviation,
    limit_deviation,
    observables_deviation,
    replicate_deviation,
    replicon_deviation,
    stationarity_deviation,
)
from quenched.validate.witness_types import DIFFERENCES, Witness

#: Comparisons of quadratures of different kinds.
QUADRATURES = 1e-7

WITNESSES: dict[type[Rule], Witness] = {
    Replicate: Witness(
        "declared exponent on random states, 6 sites, against uses and site weights",
        1e-9,
        lambda b, a, s: replicate_deviation(s.model, a, s.values, s.rng()),
    ),
    ReplicaSymmetry: Witness(
        "3 explicit replicas in the functional, 2 at every site by sums over their states",
        QUADRATURES,
        lambda b, a, s: ansatz_deviation(s.model, b, a, s.values, s.rng()),
    ),
    FewReplicas: Witness(
        "Φ_n/n at n = .004, .002, .001, extrapolated to 0",
        DIFFERENCES,
        lambda b, a, s: limit_deviation(b, a, s.values, s.rng()),
    ),
    Extremise: Witness(
        "∂Φ by differences; order parameters by sums over states",
        DIFFERENCES,
        lambda b, a, s: stationarity_deviation(b, a, s.values, s.rng()),
    ),
    Replicon: Witness(
        "P″ by differences of 4 explicit replicas, covariance of a site by sums over states",
        DIFFERENCES,
        lambda b, a, s: replicon_deviation(b, a, s.values, s.rng()),
    ),
    Observe: Witness(
        "moments by sums over states, energy by differences of Φ",
        DIFFERENCES,
        lambda b, a, s: observables_deviation(b, a, s.model, s.values, s.rng()),
    ),
}
