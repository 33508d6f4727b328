"""Derivations: the verbs that apply rules to a declaration, and their default path.

``start(net)`` gives the copied action; every verb returns a new `Derivation` with one more step.
``derive(net)`` walks the default path as far as the declaration allows and says where it stopped and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quenched.theory.average import Average, Functional
from quenched.theory.balance import Balance, BalancedEquations, has_powers
from quenched.theory.causal import MarchUnits, TwoTimeEquations
from quenched.theory.causal_copies import DoubleInTime
from quenched.theory.circulant import Circulant
from quenched.theory.closure import Close, GaussianClosure
from quenched.theory.couplings import Gaussian
from quenched.theory.cross import observed_between_units
from quenched.theory.delays import explicit_time
from quenched.theory.doubled import AsSchroedinger, DoubleCopies, FindFixedPoints, TwoCopies
from quenched.theory.eliminate import EliminateLinear, linear_populations
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.expansion import EliminateConjugates, ExpandTerms, LayerFluctuations
from quenched.theory.fluctuations import ExpandBetweenCopies, InvertQuadraticAction, PropagateUnits
from quenched.theory.layered import CloseLayers, LayerEquations
from quenched.theory.layered_blocks import CloseLayerAverages, LayerBlocks, SeparateLayers
from quenched.theory.linear import LinearUnits, NeedsTrajectories, SolveUnits, why_not_gaussian
from quenched.theory.lower import CopiedAction, Declaration, Lower
from quenched.theory.members import WriteMembers, members_of
from quenched.theory.modes import FourierModes
from quenched.theory.plastic import IntegrateBonds, IntegratedAction
from quenched.theory.points import FollowPaths, PointEquations, follows_paths
from quenched.theory.potential import ConservativeForm, IntegrateOnce
from quenched.theory.problem import PotentialProblem, SiteProcess, StationaryGaussian
from quenched.theory.problem_causal import TwoTimeProblem
from quenched.theory.problem_layers import FirstOrder, LayeredGaussian
from quenched.theory.problem_points import PointProblem
from quenched.theory.readoff import EffectiveProcess, ReadOff
from quenched.theory.record import Line, Rule
from quenched.theory.saddle import NameOrderParameters, OrderParameters, Saddle
from quenched.theory.sampled import SampledUnits, SampleUnits
from quenched.theory.stationary import CloseAverages, ClosedAverages, Stationary, StationaryState
from quenched.theory.steps import Steps
from quenched.theory.transient import transient
from quenched.theory.vanish import LargestTime

if TYPE_CHECKING:
    from quenched.theory.model import Model


@dataclass(frozen=True)
class Derivation(Steps):
    """A dynamics and the steps taken from it: the paths reading."""

    model: Model

    @property
    def declaration(self) -> Declaration:
        """The form that everything starts from."""
        return Declaration(self.model)

    # -- what has been reached ------------------------------------------------------------------------------
    @property
    def written(self) -> Model:
        """The declaration in the form that the later steps start from."""
        found = self.find(Declaration)
        return found.model if found is not None else self.model

    @property
    def problem(self) -> StationaryGaussian | None:
        """The stationary self-consistency problem, if the derivation reached one."""
        state = self.find(StationaryState)
        return state.problem if state else None

    @property
    def process(self) -> SiteProcess | None:
        """The sampling problem, if units are not Gaussian."""
        found = self.find(SampledUnits)
        return found.problem if found else None

    @property
    def layered(self) -> LayeredGaussian | None:
        """The recursion over layers, of a map with a declared number of steps."""
        found = self.find(LayerBlocks)
        return found.problem if found else None

    @property
    def order_one_over_n(self) -> FirstOrder | None:
        """Fluctuations and mean shifts over layers, if the derivation reached them."""
        found = self.find(LayerFluctuations)
        return found.problem if found else None

    @property
    def march(self) -> TwoTimeProblem | None:
        """The two-time problem, if the derivation reached one."""
        found = self.find(TwoTimeEquations)
        return found.problem if found else None

    @property
    def points(self) -> PointProblem | None:
        """The paths of units that do not fluctuate, if the derivation reached them."""
        found = self.find(PointEquations)
        return found.problem if found else None

    @property
    def balance(self) -> TwoTimeProblem | None:
        """The two-time problem at N → ∞ where strong inputs balance, if there are any."""
        found = self.find(BalancedEquations)
        return found.problem if found else None

    @property
    def potential(self) -> PotentialProblem | None:
        """The conservative form, if there is one."""
        found = self.find(ConservativeForm)
        return found.potential if found else None

    @property
    def solvable(self) -> bool:
        """Whether the steps reached a problem that a solver takes."""
        reached = (self.problem, self.process, self.layered, self.march, self.points)
        return any(found is not None for found in reached)

    @property
    def named_parameters(self) -> OrderParameters | None:
        """The order parameters with their names."""
        return self.find(OrderParameters)

    @property
    def equations(self) -> list[Line]:
        """The self-consistency equations, in the last form reached."""
        kinds = (
            *(StationaryState, GaussianClosure, LayerEquations, TwoTimeEquations, PointEquations),
            *(EffectiveProcess, CopiedAction),
        )
        for kind in kinds:
            found = self.find(kind)
            if found is not None:
                extra = self.find(ConservativeForm)
                return found.lines() + (extra.lines() if extra and kind is StationaryState else [])
        return []

    # -- verbs ----------------------------------------------------------------------------------------------
    def integrate_bonds(self) -> Derivation:
        """Integrate dynamic couplings out."""
        return self.apply(IntegrateBonds(), self._need(CopiedAction, "integrate_bonds"))

    def average(self) -> Derivation:
        action = self._need(CopiedAction, "average")
        if action.bonds and not isinstance(action, IntegratedAction):
            return self.integrate_bonds().average()
        return self.apply(Average(), action)

    def order_parameters(self) -> Derivation:
        return self.apply(NameOrderParameters())

    def saddle(self) -> Derivation:
        return self.apply(Saddle(), self._need(OrderParameters, "saddle"))

    def largest_time(self) -> Derivation:
        return self.apply(LargestTime())

    def read_off(self) -> Derivation:
        return self.apply(ReadOff())

    def eliminate(self) -> Derivation:
        """Solve populations of linear units for what they return to the others."""
        return self.apply(EliminateLinear(), self._need(EffectiveProcess, "eliminate"))

    def units(self) -> Derivation:
        """Solve affine units for their transfer functions."""
        return self.apply(SolveUnits(), self._need(EffectiveProcess, "units"))

    def layers(self) -> Derivation:
        """Follow Gaussian units from their declared start over all layers and samples."""
        from quenched.theory.layers import Layers, sample_count

        if not isinstance(self.model, Layers):
            raise QuenchedError("layers needs a map with a declared number of steps: Layers or Map(..., steps=)")
        before = self._need(EffectiveProcess, "layers")
        closed = self.apply(CloseLayers(self.model.steps or 0, sample_count(self.model)), before)
        return closed.apply(CloseLayerAverages()).apply(SeparateLayers())

    def first_order(self) -> Derivation:
        """Expand a recursion over layers to the order 1/N."""
        blocks = self._need(LayerBlocks, "first_order")
        expanded = self.apply(ExpandTerms(), self._need(Functional, "first_order"))
        return expanded.apply(EliminateConjugates(blocks.problem))

    def close(self) -> Derivation:
        """Close on means and covariances, and evaluate Gaussian averages by the rule table."""
        ready = self if self.find(GaussianClosure) else (self if self._has_units() else self.units()).apply(Close())
        return ready.apply(CloseAverages(), ready._need(GaussianClosure, "close"))

    def _has_units(self) -> bool:
        return isinstance(self.form, LinearUnits)

    def ansatz(self, rule: Rule | None = None) -> Derivation:
        """Impose an ansatz on the copies (default: stationarity)."""
        return self.apply(rule or Stationary(), self._need(ClosedAverages, "ansatz"))

    def potential_form(self) -> Derivation:
        """Find the conserved energy of the stationary equation."""
        return self.apply(IntegrateOnce(), self._need(StationaryState, "potential_form"))

    def copies(self) -> Derivation:
        """Double the system and linearise the difference between the copies."""
        return self.apply(DoubleCopies(), self._need(StationaryState, "copies"))

    def schroedinger(self) -> Derivation:
        potential = self._need(ConservativeForm, "schroedinger").potential
        return self.apply(AsSchroedinger(potential), self._need(TwoCopies, "schroedinger"))

    def fixed_points(self) -> Derivation:
        return self.apply(FindFixedPoints(), self._need(StationaryState, "fixed_points"))

    def fluctuations(self) -> Derivation:
        """Expand about the saddle in what connects two copies with the same couplings.

        Raises
        ------
        NotCovered
            For couplings whose quadratic action is not built.
        """
        d = self.apply(ExpandBetweenCopies(), self._need(Functional, "fluctuations"))
        units = d.find(LinearUnits)
        if units is not None and d.problem is not None:
            try:
                d = d.apply(PropagateUnits(units, d.problem))
            except NotCovered as stop:
                d = d.refuse(PropagateUnits.title, str(stop))
        return d.apply(InvertQuadraticAction())

    def stability(self) -> Derivation:
        """Expand about the saddle in a small difference between two copies that share everything else.

        Raises
        ------
        NotCovered
            For states whose two-copy Hessian is not built.
        """
        from quenched.theory.copy_stability import ExpandSharedCopies, MultiplyPropagators
        from quenched.theory.shared_sites import path_site

        site = path_site(self)
        expanded = self.apply(ExpandSharedCopies(site), self._need(Functional, "stability"))
        return expanded.apply(MultiplyPropagators())

    def follow(self) -> Derivation:
        """Follow units without fluctuations on their paths."""
        return self.apply(FollowPaths(self.written), self._need(EffectiveProcess, "follow"))

    def sample(self, reason: str) -> Derivation:
        """Leave the units to a sampler of trajectories, for the reason given."""
        return self.apply(SampleUnits(reason), self._need(EffectiveProcess, "sample"))

    def two_time(self) -> Derivation:
        """Keep the units in time, for means and covariances that are marched from initial values."""
        d = self.apply(MarchUnits(self.written), self._need(EffectiveProcess, "two_time"))
        form = d.find(TwoTimeEquations)
        assert form is not None
        if has_powers(form.problem):
            try:
                d = d.apply(Balance(), form)
            except NotCovered as stop:
                d = d.refuse(Balance.title, str(stop))
        return d.apply(DoubleInTime(), form)


def start(model: Model, values: Mapping[object, object] | None = None, **fixed: object) -> Derivation:
    """The copied action of a declaration, with parameters fixed first if any are given."""
    if values or fixed:
        model = model.fix(values, **fixed)
    d = Derivation(model)
    if members_of(model):
        d = d.apply(WriteMembers())
    if any(isinstance(m, Circulant) for m in d.written.matrices):
        d = d.apply(FourierModes())
    return d.apply(Lower())


def derive(model: Model, values: Mapping[object, object] | None = None, **fixed: object) -> Derivation:
    """Derive the N → ∞ theory of a declared dynamics.

    Parameters
    ----------
    model : Dynamics or Map
    values, fixed : parameters to fix before deriving (a symbol that is zero may simplify the site problem)

    Returns
    -------
    Derivation
        As far as the declaration allows; `refusals` says which steps do not apply and why.

    Raises
    ------
    NotCovered
        If the declaration has no place in the copied action at all.
    """
    d = _to_the_state(model, values, **fixed)
    if not observed_between_units(d.model.observables):
        return d
    try:
        return d.fluctuations()
    except NotCovered as stop:
        return d.refuse(ExpandBetweenCopies.title, str(stop))


def _to_the_state(model: Model, values: Mapping[object, object] | None = None, **fixed: object) -> Derivation:
    """The path to the state that the dynamics reaches, and its stability."""
    d = start(model, values, **fixed).average().order_parameters().saddle().largest_time().read_off()
    process = d.find(EffectiveProcess)
    assert process is not None
    if model.steps is not None:
        return _layered(d)
    if follows_paths(process) and (members_of(model) or transient(model)):
        return _along_paths(d)
    if linear_populations(process):
        d = d.eliminate()
        process = d._need(EffectiveProcess, "eliminate")
    if any(explicit_time(rhs) for _, rhs in process.action.equations):
        return _in_time(d)
    try:
        reason = why_not_gaussian(process)
    except NotCovered as stop:
        return d.refuse(SolveUnits.title, str(stop))
    if reason:
        return _sampled(d, reason)
    if process.operators:  # filters that mix both times have a solver where they make a particle, else a sampler
        try:
            d.units().close().ansatz().potential_form()
        except NotCovered as stop:
            return _sampled(d, str(stop))
    try:
        d = d.units().close().ansatz()
    except NeedsTrajectories as stop:
        return _sampled(d, str(stop))
    except NotCovered as stop:
        return d.refuse("Two-time equations", str(stop))
    try:
        d = d.potential_form()
    except NotCovered as stop:
        d = d.refuse(IntegrateOnce.title, str(stop))
    try:
        d = d.copies()
        if d.potential is not None:
            d = d.schroedinger()
        return d.fixed_points()
    except NotCovered as stop:
        return d.refuse(DoubleCopies.title, str(stop))


def _layered(d: Derivation) -> Derivation:
    """The path of a map of finitely many steps: kernels over layers and samples, and their order 1/N."""
    try:
        d = d.layers()
    except NotCovered as stop:
        return d.refuse(CloseLayers.title, str(stop))
    reason = _no_first_order(d.model)
    try:
        return d.refuse(ExpandTerms.title, reason) if reason else d.first_order()
    except NotCovered as stop:
        return d.refuse(ExpandTerms.title, str(stop))


def _no_first_order(model: Model) -> str:
    """Why the laws of the couplings contribute more at order 1/N than their covariances, or an empty string."""
    for matrix in model.matrices:
        if not isinstance(matrix, Gaussian):
            return f"entries of {matrix.name} are not Gaussian: their fourth cumulants shift averages at order 1/N"
        if matrix.diagonal is not None and matrix.redraw is None:
            return f"{matrix.name} has no diagonal, which shifts averages at order 1/N: not built yet"
    return ""


def _along_paths(d: Derivation) -> Derivation:
    """The path of units that do not fluctuate."""
    try:
        return d.follow()
    except NotCovered as stop:
        return d.refuse(FollowPaths.title, str(stop))


def _in_time(d: Derivation) -> Derivation:
    """The path of units with inputs that depend on time."""
    try:
        return d.two_time()
    except NeedsTrajectories as stop:
        return _sampled(d, str(stop))
    except NotCovered as stop:
        return d.refuse(MarchUnits.title, str(stop))


def _sampled(d: Derivation, reason: str) -> Derivation:
    """The path of units that are not Gaussian: sampled trajectories, or a refusal."""
    d = d.refuse("Gaussian units as linear filters", reason)
    try:
        return d.sample(reason)
    except NotCovered as stop:
        return d.refuse(SampleUnits.title, str(stop))
