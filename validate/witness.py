"""Witnesses: every step of a derivation against numbers, and mechanical mutants that the witnesses must catch.

A witness compares the numeric meanings of a form before and after a step, at random parameters that break every
symmetry. Its tolerance is the rounding or quadrature error of the comparison, not a physical scale: a dropped term or a
coefficient that is ten percent off stands out by orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from quenched.numerics.replica_labels import sets_of_labels
from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.fluctuations import CrossCovariances
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Form, Rule, Step
from quenched.validate import (
    witnesses_counting,
    witnesses_fluctuations,
    witnesses_instance,
    witnesses_layers,
    witnesses_paths,
    witnesses_replicas,
    witnesses_resolvent,
    witnesses_routes,
    witnesses_stability,
)
from quenched.validate.meaning import draw_parameters
from quenched.validate.meaning_fluctuations import linear_networks
from quenched.validate.meaning_steps import few_steps, suitable_values
from quenched.validate.realisations import one_blas_thread
from quenched.validate.witness_types import Scene, Tick, Witness

if TYPE_CHECKING:
    from quenched.theory.model import Model

#: Sets of values of labels that are too many to sum over.
SETS = 8
#: Largest deviation of a moment after few steps, in standard errors.
STANDARD_ERRORS = 5.0


#: The witnesses of all readings, one per rule.
WITNESSES: dict[type[Rule], Witness] = {
    **witnesses_paths.WITNESSES,
    **witnesses_layers.WITNESSES,
    **witnesses_fluctuations.WITNESSES,
    **witnesses_replicas.WITNESSES,
    **witnesses_instance.WITNESSES,
    **witnesses_resolvent.WITNESSES,
    **witnesses_routes.WITNESSES,
    **witnesses_stability.WITNESSES,
    **witnesses_counting.WITNESSES,
}


def check(step: Step, scene: Scene, after: Form | None = None) -> Tick:
    """Compare the meanings before and after one step.

    Parameters
    ----------
    step : Step
    scene : Scene
    after : Form, optional
        Stands for the step's own result (a mutant of it).
    """
    witness = next((w for rule, w in WITNESSES.items() if isinstance(step.rule, rule)), None)
    if witness is None:
        return Tick(step.title, None, 0.0, 0.0, f"no witness for the rule {type(step.rule).__name__}", 0.0)
    begin = perf_counter()
    try:
        # what is not finite counts as infinitely far
        with np.errstate(all="ignore"), sets_of_labels(SETS):
            found = witness.run(step.before, step.after if after is None else after, scene)
    except QuenchedError as stop:
        elsewhere = float("inf") if isinstance(stop, ConvergenceError) else 0.0  # other parameters may have a meaning
        return Tick(step.title, None, elsewhere, witness.tolerance, str(stop), perf_counter() - begin)
    seconds = perf_counter() - begin
    if found is None:
        return Tick(step.title, None, 0.0, witness.tolerance, "no closed form to check: named integrals", seconds)
    deviation = float(found) if np.isfinite(found) else float("inf")
    return Tick(step.title, deviation <= witness.tolerance, deviation, witness.tolerance, witness.method, seconds)


def scene_of(derivation: Any, seed: int = 0) -> Scene:
    """Random values of the parameters of a derivation's declaration."""
    values = draw_parameters(derivation.model, np.random.default_rng(seed))
    if getattr(derivation.model, "cold", False):  # until its last step, zero temperature is any temperature
        from quenched.theory.replica_lower import COLD

        values[COLD] = 0.8
    rng = np.random.default_rng([seed, 3])  # until a state is solved, what it determines is any number
    values |= {symbol: rng.uniform(0.2, 0.6) for symbol, _ in getattr(_problem_of(derivation), "closing", ())}
    return Scene(_written(derivation), values, seed)


def _written(derivation: Any) -> Any:
    """The declaration in the form that the steps go on from."""
    return getattr(derivation, "written", derivation.model)


def _problem_of(derivation: Any) -> Any:
    return getattr(derivation, "problem", None)


def strong_scene(derivation: Any, seed: int = 0) -> Scene:
    """Values of order one, where few steps of a network show small coefficients best, if the laws allow them."""
    try:
        values = draw_parameters(derivation.model, np.random.default_rng(seed), (0.6, 1.0))
    except QuenchedError:
        return scene_of(derivation, seed)
    return Scene(_written(derivation), values, seed)


def verify(derivation: Any, seed: int = 0, simulate: bool = True, stability: bool = False) -> list[Tick]:
    """Check every step of a derivation against numbers.

    Parameters
    ----------
    derivation : of any reading
    seed : int
        Of the random parameters and fields; equal seeds give equal ticks.
    simulate : bool
        Also compare small networks with the effective process over a few steps (about a second).
    stability : bool
        Also check the steps of ``derivation.stability()``, P''Σ against every other route to the same condition, and
        the steps to the number of stable fixed points, where these are derived.

    Returns
    -------
    list of Tick
        One per step, in order, then those of other readings of the declaration and of what they have to agree in; the
        few-step comparison comes last.

    Raises
    ------
    QuenchedError
        If the parameters' assumptions leave no values to draw.
    """
    ticks = [_somewhere(step, derivation, seed) for step in derivation.steps]
    ticks += [tick for other in witnesses_instance.companions(derivation) for tick in verify(other, seed)]
    ticks += witnesses_instance.identity_ticks(derivation)
    if stability:
        ticks += [_somewhere(step, derivation, seed) for step in witnesses_stability.stability_steps(derivation)]
        ticks += witnesses_stability.identity_ticks(derivation)
        ticks += [_somewhere(step, derivation, seed) for step in witnesses_counting.count_steps(derivation)]
        ticks += witnesses_counting.missing_ticks(derivation)
    process = derivation.find(EffectiveProcess)
    if simulate and getattr(derivation, "layered", None) is not None:
        ticks.append(
            witnesses_layers.check_kernels(derivation.model, derivation.layered, strong_scene(derivation, seed))
        )
    elif simulate and process is not None and process.operators:
        why = "few steps not compared: eliminated populations answer with all their past"
        ticks.append(Tick("All steps up to the effective process", None, 0.0, STANDARD_ERRORS, why, 0.0))
    elif simulate and process is not None:
        ticks.append(check_chain(_written(derivation), process, strong_scene(derivation, seed)))
    covariances = derivation.find(CrossCovariances)
    if simulate and covariances is not None:
        ticks.append(check_linear_networks(derivation.model, covariances, scene_of(derivation, seed)))
    return ticks


def _somewhere(step: Step, derivation: Any, seed: int) -> Tick:
    """A step at the first of a few random places where both sides are finite numbers."""
    ticks = (check(step, scene_of(derivation, seed + 101 * k)) for k in range(6))
    tick = next(ticks)
    return tick if np.isfinite(tick.deviation) else next((t for t in ticks if np.isfinite(t.deviation)), tick)


def check_linear_networks(model: Model, covariances: CrossCovariances, scene: Scene) -> Tick:
    """All steps of the fluctuations at once: matrix inverses of drawn linear networks against the formula."""
    begin = perf_counter()
    with one_blas_thread():
        found = linear_networks(model, covariances, suitable_values(model, scene.values), scene.rng())
    worst = max(found.values(), default=0.0)
    deviation = float(worst) if np.isfinite(worst) else float("inf")
    method = f"largest z of {len(found)} fields, matrix inverses of 20 linear networks of 100 units"
    title, passed = "All steps of the fluctuations", deviation <= STANDARD_ERRORS
    return Tick(title, passed, deviation, STANDARD_ERRORS, method, perf_counter() - begin)


def check_chain(model: Model, process: EffectiveProcess, scene: Scene) -> Tick:
    """Steps 1 to 6 at once: 80 networks of 400 units over three steps against the effective process.

    Where they disagree, 20 networks of 1600 units decide: an effect of the finite size is four times smaller there, a
    wrong theory just as visible.
    """
    title = "All steps up to the effective process"
    values = suitable_values(model, scene.values)
    begin = perf_counter()
    # Without matrices large networks cost nothing, and overlaps of random starts fade as 1/N only.
    sizes = ((400, 80), (1600, 20), *([] if model.matrices else [(40_000, 6)]))
    for size, networks in sizes:
        try:
            with np.errstate(all="ignore"):
                found = few_steps(model, process, values, scene.rng(), size, networks)
        except (ValueError, np.linalg.LinAlgError) as stop:
            return Tick(title, None, 0.0, STANDARD_ERRORS, f"few steps not compared: {stop}", perf_counter() - begin)
        worst = max(found.values(), default=0.0)
        deviation = float(worst) if np.isfinite(worst) else float("inf")
        if deviation <= STANDARD_ERRORS:
            break
    method = f"largest z of {len(found)} moments, {networks} networks of {size} units, 3 steps of length 1"
    return Tick(title, deviation <= STANDARD_ERRORS, deviation, STANDARD_ERRORS, method, perf_counter() - begin)


# ------------------------------------------------------------------------------------------------------------- mutants
@dataclass(frozen=True)
class Mutant:
    """A wrong result of a step, and what its witness said.

    Attributes
    ----------
    step, label : the step and what was changed in its result
    deviation, tolerance : as in `Tick`
    caught : whether the witness failed, as it should
    """

    step: str
    label: str
    deviation: float
    tolerance: float
    caught: bool


def mutants_of(step: Step) -> list[tuple[str, Form]]:
    """The mechanical mutants of a step's result: each term dropped, each coefficient × 1.1."""
    return list(step.after.mutants())


def survey_mutants(derivation: Any, seed: int = 0) -> list[Mutant]:
    """Check every mutant of every step at its own step.

    Returns
    -------
    list of Mutant
        Those with ``caught=False`` have survived.
    """
    scene = scene_of(derivation, seed)
    return [_trial(step, label, form, scene) for step in derivation.steps for label, form in mutants_of(step)]


def _trial(step: Step, label: str, form: Form, scene: Scene) -> Mutant:
    try:
        tick = check(step, scene, form)
    except (ArithmeticError, KeyError, np.linalg.LinAlgError):
        return Mutant(step.title, label, float("inf"), 0.0, True)  # it has no numeric meaning at all
    return Mutant(step.title, label, tick.deviation, tick.tolerance, tick.passed is False)


def survey_table(mutants: Iterable[Mutant]) -> str:
    """One line per step: how many mutants, how many caught, the smallest deviation; survivors by name."""
    steps: dict[str, list[Mutant]] = {}
    for m in mutants:
        steps.setdefault(m.step, []).append(m)
    lines = [f"{'step':<62} mutants caught  smallest deviation"]
    for title, group in steps.items():
        caught = sum(m.caught for m in group)
        lines.append(f"{title:<62} {len(group):>7} {caught:>6}  {min(m.deviation for m in group):.1e}")
        lines += [f"    survivor: {m.label} ({m.deviation:.1e})" for m in group if not m.caught]
    return "\n".join(lines)
