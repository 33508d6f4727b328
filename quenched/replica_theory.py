"""The theory of a Gibbs measure: its derivation, its saddles, and where they lose their stability or their volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quenched.readout import Quantity
from quenched.solution import Branch, Solution
from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError, nearest
from quenched.theory.observables import Critical, functional
from quenched.theory_object import Theory

if TYPE_CHECKING:
    from sympy import Expr, Symbol
    from xarray import DataArray

    from quenched.block_theory import BlockTheory
    from quenched.instance_theory import InstanceTheory
    from quenched.numerics.replica import ReplicaBranch
    from quenched.numerics.types import Number
    from quenched.theory.problem_replicas import ReplicaProblem
    from quenched.theory.replicas import ReplicaDerivation

Params = Mapping[Any, float] | None
#: Functionals that are searched for by varying a parameter, the same for all branches.
SEARCHED = (functional("Capacity"), functional("Margin"))


class Saddle(Branch):
    """One replica-symmetric saddle, always shown with its replicon eigenvalue."""

    kind_of_state = "replica symmetric"
    doubtful = "replicas break their symmetry (replicon eigenvalue {:.4g} > 1)"

    @classmethod
    def of(cls, theory: ReplicaTheory, values: dict[Symbol, float], raw: ReplicaBranch) -> Saddle:
        """A saddle as the solver returns it, with the declared observables."""
        from quenched.replica_readout import Readout

        replicon = raw.values["replicon"]
        growth = Quantity(replicon.value - 1, replicon.error)
        observables = theory.model.observables
        names = [n for n in raw.values if not n.startswith("_")]
        shared = frozenset(n for n, e in observables.items() if e.atoms(Critical, *SEARCHED))
        readout = Readout(theory, values, raw)
        return cls(
            *(raw.label, cls.kind_of_state, raw.stable, growth),
            list(dict.fromkeys([*names, *observables])),
            readout,
            shared,
            rms=readout.rms,
            doubt="" if raw.stable else cls.doubtful.format(replicon.value),
        )

    def __repr__(self) -> str:
        state = "stable" if self.stable else "UNSTABLE against replica symmetry breaking: not the true state"
        return f"{self.label} ({self.kind}, {state}, replicon eigenvalue {self.growth.value + 1:.6g})"


class ReplicaTheory(Theory):
    """The N → ∞ theory of one Gibbs measure, replicas being equivalent."""

    derivation: ReplicaDerivation
    branch: type[Saddle] = Saddle

    @property
    def problem(self) -> ReplicaProblem:  # type: ignore[override]
        """What the solvers get."""
        found = self.derivation.replica_problem
        if found is None:
            raise NotCovered(str(self.derivation.refusal))
        return found

    @property
    def solvable(self) -> bool:
        return self.derivation.replica_problem is not None

    @property
    def takes_lags(self) -> bool:
        return False

    @property
    def keeps_size(self) -> bool:
        return False

    @property
    def in_time(self) -> bool:
        return False

    def solve(self, params: Params = None, *, start: Mapping[str, float] | None = None, **keywords: Any) -> Solution:
        """All saddles: order parameters, free entropy (relative to the prior), entropy, energy, replicon eigenvalue.

        Parameters
        ----------
        params, **keywords
            Values by symbol or by name; what is left out takes the declaration's default.
        start : dict of names of order parameters to numbers, optional
            Follow the saddle that Newton's method reaches from these means (others start from 0), and no other.

        Returns
        -------
        Solution
            The main branch is the attracting saddle of largest free entropy, stable ones first; of measures with a
            declared initial state the one of largest means, where the state stays. A branch whose replicon eigenvalue
            exceeds 1 is marked unstable.

        Raises
        ------
        ConvergenceError
            Nothing converged; carries the history of residuals.
        """
        from quenched.numerics.replica import from_means, solve_replica

        values = self.values(params, **keywords)
        guess = None if start is None else from_means(self.problem, values, start)
        try:
            raw = solve_replica(self.problem, values, guess)
        except ConvergenceError as stop:
            told = self.full_knowledge(values)
            raise ConvergenceError(f"{stop}; {told}" if told else str(stop), stop.residuals) from None
        given = {str(k): float(v) for k, v in values.items()}
        return Solution(
            [self.branch.of(self, values, b) for b in raw.branches],
            _started(self, raw),
            given,
            Solution.provenance_of(self),
        )

    def full_knowledge(self, values: Mapping[Any, float]) -> str:
        """In words, where state evolution leaves no state of partial knowledge; else empty."""
        from quenched.attainment import full_knowledge

        try:
            return full_knowledge(self.instance(), values)
        except NotCovered:
            return ""

    def _rates(self, params: Params, **keywords: float) -> dict[str, tuple[float, float]]:
        """The replicon eigenvalue of every branch; replicas break their symmetry above 1."""
        values: dict[str, Any] = dict(keywords)
        solution = self.solve(params, **values)
        return {b.label: (b.growth.value + 1, b.growth.error) for b in solution.branches}

    def critical(
        self,
        parameter: Any,
        observable: str = "replicon",
        target: float = 1.0,
        *,
        bracket: tuple[float, float],
        start: Mapping[str, float] | None = None,
        **at: Any,
    ) -> Number:
        """Where an observable of the main branch takes a value: the AT line with the default, capacity with entropy 0.

        Parameters
        ----------
        parameter : symbol or name that is varied inside `bracket`
        observable, target : which observable, and its value
        start : means, or overlaps, from which another branch is followed (see `solve`)
        **at : values of the other parameters

        Raises
        ------
        QuenchedError
            The observable does not cross the value inside the bracket.
        """
        from quenched.numerics.replica import crossing

        symbol = self._symbol(parameter)
        values = self.values({**at, symbol.name: bracket[0]})
        return crossing(self.problem, symbol, observable, float(target), values, bracket, start)

    def at_line(
        self,
        parameter: Any,
        along: Any,
        points: Sequence[float],
        *,
        bracket: tuple[float, float],
        start: Mapping[str, float] | None = None,
        **at: Any,
    ) -> DataArray:
        """The line on which replicas break their symmetry (replicon eigenvalue 1), in the plane of two parameters.

        The condition is that of [de Almeida, Thouless, J. Phys. A 11, 983 (1978)], for any measure with a replicon.

        Parameters
        ----------
        parameter : symbol or name that is solved for, inside `bracket`
        along, points : the other parameter, symbol or name, and its values
        start : means, or overlaps, from which another branch than the main one is followed (see `solve`)
        **at : values of all other parameters

        Returns
        -------
        xarray.DataArray
            `parameter` on the line, with `along` as its coordinate and the largest numerical error as attribute.

        Raises
        ------
        QuenchedError
            The line does not cross the bracket at one of the points, or both parameters are the same.
        """
        from xarray import DataArray

        solved, given = self._symbol(parameter), self._symbol(along)
        if solved == given:
            raise QuenchedError(f"at_line needs two different parameters, got {solved} twice")
        found = [self._on_line(solved, {**at, given.name: float(p)}, bracket, start) for p in points]
        return DataArray(
            [f.value for f in found],
            {given.name: [float(p) for p in points]},
            name=solved.name,
            attrs={"condition": "replicon eigenvalue 1", "error": max((f.error for f in found), default=0.0)},
        )

    def _on_line(
        self, solved: Symbol, at: dict[str, Any], bracket: tuple[float, float], start: Mapping[str, float] | None
    ) -> Number:
        try:
            return self.critical(solved, bracket=bracket, start=start, **at)
        except QuenchedError as stop:
            where = ", ".join(f"{k} = {v:g}" for k, v in at.items())
            raise QuenchedError(f"no point of the line at {where}: {stop}") from stop

    def capacity(self, parameter: Any, overlap: str = "q", *, bracket: tuple[float, float], **at: Any) -> Number:
        """Where the overlap of two solutions reaches 1: their volume shrinks to a point.

        At zero temperature the point itself is solved for, else it is approached.

        Raises
        ------
        QuenchedError
            The overlap does not reach 1 inside the bracket.
        """
        from quenched.numerics.replica_curves import shrinking

        symbol = self._symbol(parameter)
        unknowns = {s.name: s for s, _ in self.problem.equations}
        if self.problem.cold and overlap.split("_")[0] == "q":
            overlap = "chi" + overlap[1:]
        if overlap not in unknowns:
            raise QuenchedError(f"no order parameter {overlap!r}: {nearest(overlap, unknowns)}")
        values = self.values({**at, symbol.name: bracket[0]})
        return shrinking(self.problem, symbol, unknowns[overlap], values, bracket)

    def between(
        self, distance: int, params: Params = None, *, start: Mapping[str, float] | None = None, **at: Any
    ) -> Number:
        """Overlap of two states of the same disorder that start from stored patterns at some distance.

        Parameters
        ----------
        distance : number of rows between the two patterns
        params, **at : values of the parameters
        start : means from which the saddle of one state is found (see `solve`)

        Raises
        ------
        NotCovered
            A measure whose states do not start from a row of a matrix.
        """
        import numpy as np

        from quenched.numerics.replica import from_means, solve_replica
        from quenched.numerics.types import Number
        from quenched.replica_readout import overlap_of_states

        values = self.values(params, **at)
        guess = None if start is None else from_means(self.problem, values, start)
        state = solve_replica(self.problem, values, guess).state
        return Number(overlap_of_states(self, distance, values, np.array(state.x)), 1e-9)

    def broken(self, steps: int = 1) -> BlockTheory:
        """The theory with replica symmetry broken in steps: blocks of replicas within blocks.

        Raises
        ------
        NotCovered
            Terms with more than two replicas, or more labels of a site than can be written out.
        """
        from quenched.block_theory import BlockTheory
        from quenched.theory.replicas import start

        derivation = start(self.model).average().order_parameters().saddle().blocks(steps)  # type: ignore[arg-type]
        return BlockTheory(derivation, fixed=self.fixed)

    def fold(
        self,
        parameter: Any,
        branch: str = "ordered",
        *,
        bracket: tuple[float, float],
        start: Mapping[str, float] | None = None,
        **at: Any,
    ) -> Number:
        """Where a branch is lost, as one parameter varies from the first end of a bracket towards the other.

        Parameters
        ----------
        parameter : symbol or name
        branch : label of the branch at the first end, or how it begins
        start : means from which the branch is found instead (see `solve`)
        **at : values of the other parameters

        Raises
        ------
        QuenchedError
            No such branch at the first end, or it reaches the other one.
        """
        import numpy as np

        from quenched.numerics.replica import from_means
        from quenched.numerics.replica_curves import fold

        symbol = self._symbol(parameter)
        values = self.values({**at, symbol.name: bracket[0]})
        if start is not None:
            return fold(self.problem, symbol, values, from_means(self.problem, values, start), bracket)[0]
        found = self.solved(values).branches
        first = next((b for b in found if b.label.startswith(branch)), None)
        if first is None:
            raise QuenchedError(
                f"no branch {branch!r} at {symbol} = {bracket[0]:g}: choose from {', '.join(b.label for b in found)}"
            )
        return fold(self.problem, symbol, values, np.array(first.x), bracket)[0]

    def mutate(self, name: str) -> Theory:
        """The same theory with a deliberate mistake: in the declaration, or in the replicas (`REPLICA_MUTANTS`)."""
        from quenched.replica_mutants import REPLICA_MUTANTS, mutate_replicas

        return mutate_replicas(self, name) if name in REPLICA_MUTANTS else super().mutate(name)

    @property
    def companions(self) -> tuple[InstanceTheory, ...]:
        try:
            return (self.instance(),)
        except NotCovered:
            return ()

    def instance(self) -> InstanceTheory:
        """The instance reading of the same measure: message passing on one draw of the couplings, and state evolution.

        Raises
        ------
        NotCovered
            The measure has no form of sites coupled in pairs.
        """
        from quenched.instance_theory import InstanceTheory
        from quenched.theory.instance import derive

        return InstanceTheory(derive(self.model), fixed=self.fixed)  # type: ignore[arg-type]

    def _symbol(self, key: Any) -> Symbol:
        for symbol in self.model.parameters:
            if key == symbol or key == symbol.name:
                return symbol
        raise QuenchedError(
            f"unknown parameter {str(key)!r}: {nearest(str(key), (s.name for s in self.model.parameters))}"
        )

    def solved(self, values: dict[Any, float], **options: Any) -> Any:
        """All saddles as the solver returns them."""
        from quenched.numerics.replica import solve_replica

        return solve_replica(self.problem, values, **options)

    def growth_expression(self) -> Expr:
        """Growth of perturbed messages a sweep, as derived for instances, in the order parameters of this theory.

        Raises
        ------
        NotCovered
            The measure has no messages.
        """
        from quenched.replica_readout import growth_at_saddle

        return growth_at_saddle(self)

    def fluctuations(self) -> Any:
        """Fluctuations of order 1/N about a saddle of replicas: only their stability is built."""
        raise NotCovered(
            "fluctuations() of a Gibbs measure is not built yet; stability() gives the replicon eigenvalue"
        )

    def export(self, path: str | Path) -> Path:
        """Standalone solvers of replica problems are not built yet."""
        raise NotCovered("export of a Gibbs measure's solver is not built yet; solve(...) is")


def _started(theory: ReplicaTheory, raw: Any) -> int:
    """Index of the main branch: among equals, and from a declared initial state, the one of largest means."""
    names = [s.name for (s, _), k in zip(theory.problem.equations, theory.problem.kinds, strict=True) if k == "mean"]

    def means(k: int) -> float:
        return float(sum(raw.branches[k].values[n].value for n in names))

    def rank(k: int) -> tuple[Any, ...]:
        b = raw.branches[k]
        return b.attracting, b.stable, round(b.values["free_entropy"].value, 9), means(k)

    attracting = [k for k, b in enumerate(raw.branches) if b.attracting and b.stable]
    if attracting and any(f.initial is not None for f in theory.model.fields):
        return max(attracting, key=means)
    return max(range(len(raw.branches)), key=rank)
