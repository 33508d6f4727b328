"""Witnesses of the reading *instance*: one comparison of numeric meanings for each of its steps."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from quenched.theory.errors import NotCovered
from quenched.theory.instance import InstanceDerivation, ObserveInstance
from quenched.theory.instance_evolution import LineariseMessages, StateEvolution
from quenched.theory.instance_graph import OneInstance
from quenched.theory.instance_messages import BeliefPropagation, Bethe, CentralLimit, Onsager
from quenched.theory.record import Rule
from quenched.theory.replicas import ReplicaDerivation
from quenched.validate.meaning_graph import graph_deviation
from quenched.validate.meaning_instance import (
    bethe_deviation,
    cumulants_deviation,
    evolution_deviation,
    growth_deviation,
    observed_deviation,
    onsager_deviation,
    tree_deviation,
)
from quenched.validate.witness_types import DIFFERENCES, EXACT, Tick, Witness

#: One witness per rule.
WITNESSES: dict[type[Rule], Witness] = {
    OneInstance: Witness(
        "declared weight of 800 random states, 6 units, against sites and pairs",
        EXACT,
        lambda b, a, s: graph_deviation(s.model, a, s.values, s.rng()),
    ),
    BeliefPropagation: Witness(
        "marginals of a random tree of 6 sites with 3 values against all states",
        EXACT,
        lambda b, a, s: tree_deviation(a, s.rng()),
    ),
    CentralLimit: Witness(
        "logarithm of an incoming message at ±x on a weak edge",
        DIFFERENCES,
        lambda b, a, s: cumulants_deviation(b, a, s.rng()),
    ),
    Onsager: Witness(
        "fields and widths over 3 sweeps of 6 weakly coupled sites against messages, relative to the Onsager terms",
        1e-2,
        lambda b, a, s: onsager_deviation(b, a, s.rng()),
    ),
    Bethe: Witness(
        "an edge against its states, and sites against edges at a fixed point",
        1e-2,
        lambda b, a, s: bethe_deviation(b, a, s.rng()),
    ),
    StateEvolution: Witness(
        "moments of drawn couplings (3 %), averages over field laws by differences (1e-5), relative to those",
        1.0,
        lambda b, a, s: evolution_deviation(s.model, a, s.values, s.rng()),
    ),
    LineariseMessages: Witness(
        "mean squares through drawn couplings and E[L₂²] by differences, relative to 3 %",
        1.0,
        lambda b, a, s: growth_deviation(s.model, a, s.values, s.rng()),
    ),
    ObserveInstance: Witness(
        "equations and growth before and after widths are eliminated, at random consistent moments",
        EXACT,
        lambda b, a, s: observed_deviation(b, a, s.values, s.rng()),
    ),
}


def companions(derivation: Any) -> list[InstanceDerivation]:
    """The instance reading of a measure that was read by replicas, where it is covered."""
    from quenched.theory.instance import derive

    if not isinstance(derivation, ReplicaDerivation):
        return []
    try:
        return [derive(derivation.model)]
    except NotCovered:
        return []


def identity_ticks(derivation: Any) -> list[Tick]:
    """What the readings of a measure have to agree in: every difference of derived expressions is 0."""
    from quenched.theory.instance_identities import identities

    ticks = []
    for other in companions(derivation):
        begin = perf_counter()
        try:
            found = identities(derivation, other)
        except NotCovered as stop:
            return [Tick("Messages = replicas", None, 0.0, 0.0, str(stop), perf_counter() - begin)]
        each = (perf_counter() - begin) / max(len(found), 1)
        for i in found:
            gap = 0.0 if i.holds else float("inf")
            ticks.append(Tick(i.title, i.holds, gap, 0.0, "difference of the derived expressions (sympy)", each))
    return ticks
