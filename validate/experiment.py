"""What a head's simulator is made of: one realisation as plain data, and how finished ones become a run.

An *experiment* travels to worker processes, so it is picklable and its `realise` needs no sympy. A *prepared*
simulation stays in the parent and knows names, estimators and the content that the store's keys are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.estimators import Estimator, Run, Sample

if TYPE_CHECKING:
    from quenched.validate.realise import Task

Arrays = dict[str, NDArray[np.float64]]


class Experiment(Protocol):
    """One realisation; its random numbers depend on (seed, N, realisation) and names of random objects only."""

    @property
    def seed(self) -> int: ...
    @property
    def N(self) -> int: ...

    def number(self, realisation: int) -> Self:
        """The same experiment for another realisation."""

    def realise(self) -> Arrays:
        """Observables of this realisation, each (k,), and ``elapsed`` (1,) in seconds."""

    def memory(self) -> float:
        """Bytes that one realisation takes."""

    def work(self) -> float:
        """Rough number of elementary operations of one realisation."""


@dataclass(frozen=True)
class OfTask:
    """An experiment of its own on the network of a task."""

    task: Task

    @property
    def seed(self) -> int:
        return self.task.seed

    @property
    def N(self) -> int:
        return self.task.N

    def number(self, realisation: int) -> Self:
        """The same for another realisation."""
        return replace(self, task=self.task.number(realisation))

    def memory(self) -> float:
        """Bytes that one realisation takes."""
        return self.task.memory()

    def work(self) -> float:
        """Rough number of elementary operations."""
        return self.task.work()


class Simulation(Protocol):
    """Realisations ready to run, and what they are collected into."""

    @property
    def task(self) -> Experiment: ...
    @property
    def identity(self) -> dict[str, Any]: ...

    def collect(self, results: list[Arrays], indices: tuple[int, ...]) -> Run:
        """The run of finished realisations."""


@dataclass(frozen=True)
class Prepared:
    """A simulation of a head without time.

    Attributes
    ----------
    task : Experiment
    identity : dict
        Everything that a realisation depends on, as JSON-like content.
    observables : dict name → (Estimator, positions on the curve or None)
    parameters : dict name → value
    sizes : dict population → (declared size f·N, units used)
    settings : dict, for reports
    unmeasured : dict name → reason
    """

    task: Experiment
    identity: dict[str, Any]
    observables: Mapping[str, tuple[Estimator, NDArray[np.float64] | None]]
    parameters: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def collect(self, results: list[Arrays], indices: tuple[int, ...]) -> Run:
        """The run of finished realisations."""
        return Run(
            {
                name: Sample.of(np.array([np.atleast_1d(r[name]) for r in results]), at, estimator)
                for name, (estimator, at) in self.observables.items()
            },
            self.task.N,
            float("nan"),
            0.0,
            0.0,
            self.task.seed,
            indices,
            dict(self.parameters),
            dict(self.sizes),
            dict(self.settings),
            dict(self.unmeasured),
            float(sum(r["elapsed"][0] for r in results if "elapsed" in r)),
        )


def check_counts(**counts: int) -> None:
    """Refuse numbers that are not positive whole numbers."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise QuenchedError(f"{name} should be a positive whole number, got {value!r}")
