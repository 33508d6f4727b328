"""Message passing on sampled instances of a measure: one realisation, and its estimators.

The iteration is the derived one, so that what is estimated here uses the declaration *and* the form of the messages,
but not the law of their fields: state evolution, replicas and their stability can fail on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quenched.numerics.message_code import MessageProgram
from quenched.theory.errors import ConvergenceError
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.sampling import Law, MatrixSpec, sample_law, sample_matrices, stream

if TYPE_CHECKING:
    from quenched.numerics.messages import Instance, MessageRun
    from quenched.theory.gibbs import Gibbs
    from quenched.theory.problem_messages import MessageProblem

Array = NDArray[np.float64]

#: Sweeps before growth is measured, and the most sweeps towards a fixed point.
WARM_UP, SWEEPS = 80, 500


@dataclass(frozen=True)
class MessageExperiment:
    """One instance as plain data.

    Attributes
    ----------
    program : generated iteration
    parameters : (name, value)
    sizes : (population, units)
    matrices : (name in the program, law with numbers)
    labels : (name, units, law with numbers)
    sweeps, damping : of the run
    """

    program: MessageProgram
    parameters: tuple[tuple[str, float], ...]
    sizes: tuple[tuple[str, int], ...]
    matrices: tuple[tuple[str, MatrixSpec], ...]
    labels: tuple[tuple[str, int, Law], ...]
    sweeps: int
    damping: float
    seed: int
    N: int
    realisation: int = 0

    def number(self, realisation: int) -> MessageExperiment:
        """The same for another realisation."""
        return replace(self, realisation=realisation)

    def stream(self, name: str) -> np.random.Generator:
        """The random numbers of a named object."""
        return stream(self.seed, self.N, self.realisation, name)

    def instance(self) -> Instance:
        """The drawn instance."""
        from quenched.numerics.messages import Instance

        specs = [spec for _, spec in self.matrices]
        drawn = sample_matrices(specs, lambda name: self.stream(f"matrix:{name}"))
        matrices = {name: drawn[spec.name] for name, spec in self.matrices}
        labels = {name: sample_law(self.stream(f"quenched:{name}"), (n,), law) for name, n, law in self.labels}
        for population, name, _ in self.program.taught:
            labels[name] = self.stream(f"noise:{name}").standard_normal(dict(self.sizes)[population])
        return Instance(self.program, dict(self.parameters), dict(self.sizes), matrices, labels)

    def run(self, instance: Instance | None = None) -> MessageRun:
        """Message passing from a weak random start."""
        found = instance or self.instance()
        return found.solve(self.stream("messages"), sweeps=self.sweeps, damping=self.damping)

    def settles(self) -> bool:
        """Whether messages converge from a weak random start; given up where they do not get closer to it."""
        return self.instance().settles(self.stream("messages"), self.sweeps, self.damping)

    def realise(self) -> dict[str, Array]:
        """What the fixed point says; NaN where there is none."""
        instance = self.instance()
        run = self.run(instance)
        state = run.state
        out: dict[str, Any] = {}
        states = [s for s in self.program.sites if s.kind == "state"]
        out |= reading(self, run)
        out["free_entropy"] = instance.free_entropy(state, self.N)
        if all(s.weight is not None for s in states):
            out["entropy"] = instance.entropy(state, self.N)
        out["growth"] = self.growth(instance, run)
        if not run.converged:
            out = {name: value if name == "growth" else np.nan for name, value in out.items()}
        return {k: np.array([v]) for k, v in {**out, "converged": float(run.converged), "sweeps": run.sweeps}.items()}

    def growth(self, instance: Instance, run: MessageRun) -> float:
        """Growth of the difference of two copies, after a warm-up; NaN where it leaves the linear regime.

        Over its first sweeps: later ones see the modes of a finite matrix that grow fastest, an effect of relative
        order sweeps²/N.
        """
        if run.behaviour == "diverged":
            return float("nan")
        warm = run.state
        for _ in range(0 if run.converged else max(0, WARM_UP - run.sweeps)):
            warm = instance.sweep(warm, self.damping)
        try:
            return instance.growth(warm, self.stream("growth"), damping=self.damping)
        except ConvergenceError:
            return float("nan")

    def memory(self) -> float:
        """Bytes of the couplings, as declared and as the iteration uses them."""
        return 24.0 * sum(spec.rows * spec.cols for _, spec in self.matrices)

    def work(self) -> float:
        """Multiplications of all sweeps."""
        return 4.0 * self.sweeps * sum(spec.rows * spec.cols for _, spec in self.matrices)


def reading(task: MessageExperiment, run: MessageRun) -> dict[str, float]:
    """Mean, overlap and second moment of every state after the last sweep."""
    states = [s for s in task.program.sites if s.kind == "state"]
    out: dict[str, float] = {}
    for site in states:
        tag = f"_{site.symbol}" if len(states) > 1 else ""
        m, v = run.state.m[site.name], run.state.v[site.name]
        out |= {f"m{tag}": float(m.mean()), f"q{tag}": float(np.mean(m**2)), f"Q{tag}": float(np.mean(m**2 + v))}
    return out


def experiment(
    model: Gibbs,
    problem: MessageProblem,
    N: int,
    seed: int = 0,
    values: Mapping[Any, Any] | None = None,
    *,
    sweeps: int = SWEEPS,
    damping: float = 0.0,
) -> MessageExperiment:
    """Message passing on instances of a measure, as plain data.

    Parameters
    ----------
    model, problem : the declaration, and the iteration that was derived from it
    N, seed : reference size, and seed of the disorder and of the starts
    values : numbers of all parameters
    sweeps : at most
    damping : share of the old means in the new ones, 0 to 1
    """
    from quenched.numerics.message_code import message_program

    numbers = Numbers(model.values(values), N)
    return MessageExperiment(
        message_program(problem),
        tuple((s.name, v) for s, v in numbers.values.items()),
        tuple((p.name, numbers.size(p)[1]) for p in model.populations),
        tuple((m.name, matrix_spec(m, numbers)) for m in model.matrices),
        tuple((q.name, numbers.size(q.population)[1], numbers.law(q.law)) for q in model.quenched),
        sweeps,
        damping,
        seed,
        N,
    )
