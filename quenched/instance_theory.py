"""The instance reading of a Gibbs measure: message passing on sampled instances, and on typical ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quenched.rendering import Lines
from quenched.replica_theory import ReplicaTheory, Saddle
from quenched.theory.errors import NotCovered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sympy import Expr

    from quenched.attainment import Attainment
    from quenched.numerics.message_code import MessageProgram
    from quenched.numerics.messages import MessageRun
    from quenched.theory.instance import InstanceDerivation
    from quenched.theory.instance_identities import Identity
    from quenched.theory.problem_messages import MessageProblem
    from quenched.theory.problem_replicas import ReplicaProblem

Params = Mapping[Any, float] | None


class FixedPoint(Saddle):
    """One fixed point of state evolution, always shown with the growth of perturbed messages."""

    kind_of_state = "state evolution"
    doubtful = "messages do not converge on instances (growth {:.4g} > 1)"

    def __repr__(self) -> str:
        state = "messages converge" if self.stable else "UNSTABLE: messages do not converge on instances"
        return f"{self.label} ({self.kind}, {state}, growth {self.growth.value + 1:.6g} a sweep)"


class InstanceTheory(ReplicaTheory):
    """Message passing on instances of one Gibbs measure, and state evolution on typical ones."""

    derivation: InstanceDerivation  # type: ignore[assignment]

    @property
    def problem(self) -> ReplicaProblem:  # type: ignore[override]
        """The fixed point of state evolution, as the solvers take it."""
        found = self.derivation.instance_problem
        if found is None:
            raise NotCovered(str(self.derivation.refusal))
        return found

    @property
    def solvable(self) -> bool:
        return self.derivation.instance_problem is not None

    @property
    def messages(self) -> MessageProblem:
        """The iteration on one instance, as data."""
        from quenched.theory.instance import InstanceState

        found = self.derivation.find(InstanceState)
        if found is None:
            raise NotCovered(str(self.derivation.refusal))
        return found.messages

    @property
    def program(self) -> MessageProgram:
        """The generated iteration; ``.source`` is its text."""
        from quenched.numerics.message_code import message_program

        return message_program(self.messages)

    branch = FixedPoint

    def growth_expression(self) -> Expr:
        return dict(self.problem.observables)["replicon"]

    def run(
        self,
        N: int,
        seed: int = 0,
        realisation: int = 0,
        params: Params = None,
        *,
        sweeps: int = 500,
        damping: float = 0.0,
        **keywords: Any,
    ) -> Passing:
        """Message passing on one sampled instance.

        Parameters
        ----------
        N : reference size
        seed, realisation : of the disorder and of the start
        sweeps : at most
        damping : share of the old means in the new ones, 0 to 1
        params, **keywords : values of the parameters

        Returns
        -------
        Passing
            The fixed point, or how the messages behave where they do not settle.
        """
        from quenched.validate.message_passing import experiment

        values = self.model.values(params, **keywords)
        task = experiment(self.model, self.messages, N, seed, values, sweeps=sweeps, damping=damping)  # type: ignore[arg-type]
        task = task.number(realisation)
        instance = task.instance()
        return Passing(task.run(instance), {k: float(v[0]) for k, v in task.realise().items()}, N)

    def instance(self) -> InstanceTheory:
        """This reading."""
        return self

    def trajectory(
        self, params: Params = None, *, sweeps: int = 200, names: tuple[str, ...] = ("q",), **keywords: Any
    ) -> dict[str, NDArray[np.float64]]:
        """State evolution sweep by sweep, from no knowledge of the instance.

        Parameters
        ----------
        params, **keywords : values of the parameters
        sweeps : at most; it ends where nothing changes, or where everything is known
        names : observables to follow

        Returns
        -------
        dict name → array (sweeps + 1,)
        """
        from quenched.numerics.evolution import trajectory

        return trajectory(self.problem, self.values(params, **keywords), sweeps, names)

    def attainment(
        self,
        N: int,
        trials: int = 8,
        seed: int = 0,
        params: Params = None,
        *,
        name: str = "q",
        sweeps: int = 500,
        **keywords: Any,
    ) -> Attainment:
        """Whether message passing on finite instances gets where state evolution goes; the answer prints itself.

        Parameters
        ----------
        N, trials, seed : reference size, number of instances, seed
        name : an overlap of a state, by its name in solutions
        params, **keywords : values of the parameters
        """
        import numpy as np

        from quenched.attainment import Attainment
        from quenched.validate.message_passing import experiment, reading

        values = self.values(params, **keywords)
        promised = self.trajectory(values, sweeps=sweeps, names=(name,))[name]
        task = experiment(self.model, self.messages, N, seed, values, sweeps=sweeps)  # type: ignore[arg-type]
        runs = [task.number(k).run() for k in range(trials)]
        found = np.array([reading(task, run)[name] for run in runs])
        behaviours = tuple(run.behaviour for run in runs)
        return Attainment(name, float(promised[-1]), len(promised) - 1, found, behaviours, N)

    @property
    def companions(self) -> tuple[InstanceTheory, ...]:
        return ()

    @property
    def agreement(self) -> Lines:
        try:
            return Lines(i.line() for i in self.identities())
        except NotCovered:
            return Lines(())

    def identities(self) -> list[Identity]:
        """What this reading and the others have to agree in, each as a difference of two derived expressions.

        Raises
        ------
        NotCovered
            The replica reading stopped before its saddle.
        """
        from quenched.theory.instance_identities import identities
        from quenched.theory.replicas import derive

        return identities(derive(self.model), self.derivation)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Passing:
    """Message passing on one instance.

    Attributes
    ----------
    run : MessageRun, with the means and variances of all sites
    observables : name → what the fixed point says
    N : reference size
    """

    run: MessageRun
    observables: dict[str, float]
    N: int

    @property
    def behaviour(self) -> str:
        """How the run ended: "converged", "still contracting", "does not settle" or "diverged"."""
        return self.run.behaviour

    @property
    def m(self) -> dict[str, NDArray[np.float64]]:
        """Mean of every site, by population."""
        return self.run.state.m

    def __repr__(self) -> str:
        numbers = ", ".join(f"{k} = {v:.4g}" for k, v in self.observables.items() if k not in ("converged", "sweeps"))
        return f"{self.behaviour} after {self.run.sweeps} sweeps at N = {self.N}: {numbers}"
