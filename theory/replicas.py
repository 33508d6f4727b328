"""The replicas reading: its verbs, and the default path from a Gibbs measure to a solvable problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quenched.theory.average import Average, Functional
from quenched.theory.errors import NotCovered
from quenched.theory.gibbs import Gibbs
from quenched.theory.problem_replicas import ReplicaProblem
from quenched.theory.record import Line
from quenched.theory.replica_ansatz import ReplicaSymmetry
from quenched.theory.replica_blocks import BlockEquations, Blocks
from quenched.theory.replica_cold import ColdForm, ObserveCold, ZeroTemperature
from quenched.theory.replica_condense import Condense, Condensed, distances, pattern_matrices, shifted
from quenched.theory.replica_forms import RSAction
from quenched.theory.replica_limit import (
    Extremise,
    FewReplicas,
    FreeEntropyForm,
    Replicon,
    RepliconForm,
    SaddleEquations,
)
from quenched.theory.replica_lower import GibbsDeclaration, Replicate, ReplicatedAction
from quenched.theory.replica_modes import CountModes, InModes, turned_populations
from quenched.theory.replica_pair import TwoStates
from quenched.theory.replica_state import Observe, ReplicaState
from quenched.theory.saddle import NameOrderParameters, OrderParameters, Saddle, SiteProblem
from quenched.theory.steps import Steps


@dataclass(frozen=True)
class ReplicaDerivation(Steps):
    """A Gibbs measure and the steps taken from it."""

    model: Gibbs

    @property
    def declaration(self) -> GibbsDeclaration:
        """The form that everything starts from."""
        return GibbsDeclaration(self.model)

    @property
    def replica_problem(self) -> ReplicaProblem | None:
        """The self-consistency problem, if the derivation reached one."""
        found = self.find(ReplicaState)
        return found.problem if found else None

    @property
    def solvable(self) -> bool:
        """Whether the steps reached a problem that a solver takes."""
        return self.replica_problem is not None

    @property
    def equations(self) -> list[Line]:
        """The self-consistency equations, in the last form reached."""
        for kind in (ReplicaState, SaddleEquations, FreeEntropyForm, RSAction, SiteProblem, ReplicatedAction):
            found = self.find(kind)
            if found is not None:
                return found.lines()
        return []

    # -- verbs ----------------------------------------------------------------------------------------------
    def average(self) -> ReplicaDerivation:
        return self._take(Average(), ReplicatedAction, "average")

    def order_parameters(self) -> ReplicaDerivation:
        return self.apply(NameOrderParameters())

    def saddle(self) -> ReplicaDerivation:
        return self._take(Saddle(), OrderParameters, "saddle")

    def ansatz(self, rule: Any = None) -> ReplicaDerivation:
        """Impose an ansatz on the replicas (default: replica symmetry)."""
        return self._take(rule or ReplicaSymmetry(), SiteProblem, "ansatz")

    def blocks(self, steps: int = 1) -> ReplicaDerivation:
        """Break the symmetry of replicas in steps, down to the equations of all overlaps."""
        d = self._take(Blocks(steps), SiteProblem, "blocks")
        return d.apply(BlockEquations(cold=self.declaration.model.cold))

    def few_replicas(self) -> ReplicaDerivation:
        """n → 0."""
        return self._take(FewReplicas(), RSAction, "few_replicas")

    def stationarity(self) -> ReplicaDerivation:
        return self._take(Extremise(), FreeEntropyForm, "stationarity")

    def replicon(self) -> ReplicaDerivation:
        return self._take(Replicon(), SaddleEquations, "replicon")

    def stability(self) -> ReplicaDerivation:
        """The replicon once more, from the quadratic action between two replicas in the same field."""
        from quenched.theory.copy_stability import ExpandSharedCopies, MultiplyPropagators
        from quenched.theory.shared_sites import replica_site

        site = replica_site(self)
        expanded = self._take(ExpandSharedCopies(site), Functional, "stability")
        return expanded.apply(MultiplyPropagators())

    def zero_temperature(self) -> ReplicaDerivation:
        """β → ∞ (of a measure declared at zero temperature)."""
        return self._take(ZeroTemperature(), RepliconForm, "zero_temperature")

    def two_states(self, distance: int) -> ReplicaDerivation:
        """Two states of one disorder, whose stored patterns are so many rows apart."""
        exchanged = tuple(sorted(shifted(self.declaration.model, distance).items(), key=str))
        return self._take(TwoStates(exchanged), ColdForm if self.declaration.model.cold else RepliconForm, "two_states")

    def observables(self) -> ReplicaDerivation:
        model = (self.find(Condensed) or self.find(InModes) or self.declaration).model
        if model.cold:
            return self._take(ObserveCold(tuple(model.observables.items())), ColdForm, "observables")
        return self._take(Observe(model.beta, tuple(model.observables.items())), RepliconForm, "observables")


def start(model: Gibbs, values: Mapping[object, object] | None = None, **fixed: object) -> ReplicaDerivation:
    """Zⁿ of a measure, with parameters fixed first if any are given."""
    if values or fixed:
        model = model.fix(values, **fixed)
    d = ReplicaDerivation(model)
    if turned_populations(model):
        d = d.apply(CountModes())
    elif pattern_matrices(model):
        d = d.apply(Condense())
    return d.apply(Replicate())


def derive(model: Gibbs, values: Mapping[object, object] | None = None, **fixed: object) -> ReplicaDerivation:
    """Derive the N → ∞ theory of a Gibbs measure with quenched disorder, replicas being equivalent.

    Raises
    ------
    NotCovered
        If the measure has no place in the replicated action at all.
    """
    d = start(model, values, **fixed).average().order_parameters().saddle()
    try:
        d = d.ansatz().few_replicas().stationarity().replicon()
        if model.cold:
            d = d.zero_temperature()
    except NotCovered as stop:
        return d.refuse(ReplicaSymmetry.title, str(stop))
    d = d.observables()
    for distance in distances(model):
        d = d.two_states(distance)
    return d
