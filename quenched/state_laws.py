"""Laws of the units' states that a solved theory exports: what matrices take as laws of their diagonals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import sympify

from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field

if TYPE_CHECKING:
    from quenched.numerics.process_state import ProcessState, Sampling
    from quenched.theory.problem import SiteProcess
    from quenched.theory_object import Theory

Laws = dict[Field, Any]
#: Variances below this are those of a state that does not fluctuate.
_NOTHING = 1e-12
#: Quantiles that stand for the law of a sampled state, trajectories that they are read from, and such samples.
POINTS, PATHS, SAMPLES = 192, 400, 3


def state_laws(theory: Theory, values: Mapping[Any, float], sampling: Sampling | None = None) -> Laws:
    """The law of every field at one time, in the main branch of the solution.

    Gaussian units have normal laws; of sampled units the quantiles of trajectories have equal weights.

    Raises
    ------
    NotCovered
        For states that hang on quenched numbers.
    """
    if theory.derivation.process is None:
        raw = theory.solved(dict(values))
        return gaussian_laws(theory, raw.branches[raw.main])[0][0]
    from quenched import numerics

    process = theory.sampled(theory.derivation.process)
    state = numerics.solve_process(process, dict(values), sampling=sampling)
    return _sample(theory, process, values, state, 0)


def gaussian_laws(theory: Theory, state: Any) -> tuple[list[Laws], list[Laws]]:
    """The laws of the fields in one branch, and these laws moved by their errors."""
    problem = theory.problem
    _without_labels(problem.labels)
    laws: Laws = {}
    moved: Laws = {}
    for x in theory.model.fields:
        for k, argument in enumerate(problem.arguments):
            if (argument.name, argument.population) == (x.name, x.population.name):
                mean, variance = float(state.mean[k]), float(state.variance[k])
                laws[x] = _normal(mean, variance)
                moved[x] = _normal(mean + float(state.mean_error[k]), variance + float(state.variance_error[k]))
    return [laws], [moved]


def _normal(mean: float, variance: float) -> Any:
    from quenched.theory.distributions import Normal

    return Normal(mean, variance) if variance > _NOTHING else sympify(mean)


def sampled_laws(
    theory: Theory, process: SiteProcess, values: Mapping[Any, float], state: ProcessState
) -> tuple[list[Laws], list[Laws]]:
    """Laws from samples of paths that share nothing, and one of them scaled by the error of its variance."""
    good = [_sample(theory, process, values, state, number) for number in range(SAMPLES)]
    return good, [{x: _scaled(law, _relative_error(state, x)) for x, law in good[0].items()}]


def _relative_error(state: ProcessState, x: Field) -> float:
    """Relative error of the root mean square of a field."""
    name = next(n for n in (x.name, f"{x.name}_{x.population.name}") if (n, n) in state.correlation)
    value, error = state.correlation[name, name]
    return float(np.asarray(error)[0]) / (2 * float(np.asarray(value)[0]))


def _scaled(law: Any, by: float) -> Any:
    from quenched.theory.distributions import Empirical

    return Empirical(*((1 + by) * float(a) for a in law.args))


def _sample(theory: Theory, process: SiteProcess, values: Mapping[Any, float], state: ProcessState, seed: int) -> Laws:
    from quenched.numerics.trajectories import sample_paths
    from quenched.theory.distributions import Empirical

    _without_labels(label for unit in process.units for label in unit.labels)
    paths = sample_paths(process, dict(values), state, PATHS, np.random.default_rng(seed))
    laws: Laws = {}
    shares = (np.arange(POINTS) + 0.5) / POINTS
    for unit, found in zip(process.units, paths, strict=True):
        for x in (x for x in theory.model.fields if x.population.name == unit.population):
            names = [s.name for s in unit.states]
            name = next((n for n in (x.name, f"{x.name}_{x.population.name}") if n in names), None)
            if name is not None:
                column = found.states[:, :, names.index(name)]
                laws[x] = Empirical(*np.round(np.quantile(column, shares), 9).tolist())
    return laws


def _without_labels(labels: Iterable[Any]) -> None:
    names = ", ".join(str(label.symbol) for label in labels)
    if names:
        raise NotCovered(f"the Jacobian at states that depend on quenched numbers ({names}) is not built")
