"""Laws of the units' states that a solved theory exports: what matrices take as laws of their diagonals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field

if TYPE_CHECKING:
    from quenched.numerics.trajectories import Sampling
    from quenched.theory.distributions import Law
    from quenched.theory_object import Theory

#: Quantiles that stand for the law of a sampled state, and trajectories that they are read from.
POINTS, PATHS = 192, 400


def state_laws(theory: Theory, values: Mapping[Any, float], sampling: Sampling | None = None) -> dict[Field, Law]:
    """The law of every field at one time, in the main branch of the solution.

    Gaussian units have normal laws; of sampled units the quantiles of trajectories have equal weights.

    Raises
    ------
    NotCovered
        For states that hang on quenched numbers.
    """
    return _gaussian(theory, values) if theory.derivation.process is None else _sampled(theory, values, sampling)


def _gaussian(theory: Theory, values: Mapping[Any, float]) -> dict[Field, Law]:
    from quenched.theory.distributions import Normal

    problem = theory.problem
    if problem.labels:
        names = ", ".join(str(label.symbol) for label in problem.labels)
        raise NotCovered(f"the Jacobian at states that depend on quenched numbers ({names}) is not built")
    state = theory.solved(dict(values)).state
    laws: dict[Field, Law] = {}
    for x in theory.model.fields:
        for k, argument in enumerate(problem.arguments):
            if (argument.name, argument.population) == (x.name, x.population.name):
                laws[x] = Normal(float(state.mean[k]), float(state.variance[k]))
    return laws


def _sampled(theory: Theory, values: Mapping[Any, float], sampling: Sampling | None) -> dict[Field, Law]:
    from quenched import numerics
    from quenched.numerics.trajectories import sample_paths
    from quenched.theory.distributions import Empirical

    process = theory.derivation.process
    assert process is not None
    labels = [str(label.symbol) for unit in process.units for label in unit.labels]
    if labels:
        raise NotCovered(f"the Jacobian at states that depend on quenched numbers ({', '.join(labels)}) is not built")
    state = numerics.solve_process(process, dict(values), sampling=sampling)
    paths = sample_paths(process, dict(values), state, PATHS, np.random.default_rng(0))
    laws: dict[Field, Law] = {}
    shares = (np.arange(POINTS) + 0.5) / POINTS
    for unit, found in zip(process.units, paths, strict=True):
        for x in (x for x in theory.model.fields if x.population.name == unit.population):
            names = [s.name for s in unit.states]
            name = next((n for n in (x.name, f"{x.name}_{x.population.name}") if n in names), None)
            if name is not None:
                column = found.states[:, :, names.index(name)]
                laws[x] = Empirical(*np.round(np.quantile(column, shares), 9).tolist())
    return laws
