"""`validate`: solve a theory, simulate the declaration at several sizes, and judge whether they agree."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from quenched.design import Design, plan
from quenched.parameters import points
from quenched.runs import given_samples, simulated_samples
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory_object import Theory, derive

if TYPE_CHECKING:
    from quenched.solution import Solution
    from quenched.theory.model import Model
    from quenched.validate.agreement import Agreement
    from quenched.validate.cases import Case

#: Looks at growing data: the quick tier has one, the full tier extends its runs towards its target.
FULL_LOOKS = 3


def validate(
    model: Model,
    params: Mapping[Any, Any] | None = None,
    *,
    theory: Theory | None = None,
    data: Any = None,
    quick: bool = False,
    ci: bool = False,
    seed: int = 0,
    sizes: tuple[int, ...] | None = None,
    trials: int | None = None,
    trajectories: int | None = None,
    duration: float | None = None,
    burn: float | None = None,
    dt: float | None = None,
    executor: Executor | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    store: Any = None,
    fresh: bool = False,
    progress: bool = False,
    **keywords: Any,
) -> Agreement:
    """Compare the theory of a declaration with simulations of it.

    Parameters
    ----------
    model : Model
        The declaration.
    params, **keywords
        Values by symbol or by name; a list gives several points and one joint verdict.
    theory : Theory, optional
        What to judge instead of ``derive(model)``, for instance a deliberately wrong theory.
    data : optional
        The user's own runs instead of simulations: a `Run`, several of them, or ``{N: {name: values}}`` with one row
        per realisation. For several points a list, in their order.
    quick : bool
        About one minute on two cores, detectable errors of 5 % instead of 2 %.
    ci : bool
        Level 10⁻⁶ instead of 10⁻³, for tests with a fixed seed.
    seed : int
        Realisation k depends only on (seed, N, k).
    sizes, trials, trajectories, duration, burn, dt : optional
        Network sizes (at least three), realisations of each, trajectories a network, measured time, transient, step;
        chosen by the tier unless given.
    executor, scheduler, workers, store, fresh, progress
        As in `simulate`.

    Returns
    -------
    Agreement
        ``.verdict`` is *agree*, *disagree* or *inconclusive*, never *agree* where the theory covers only a part.

    Raises
    ------
    QuenchedError
        Bad parameters or settings.
    ConvergenceError
        The theory could not be solved.
    """
    at = _points(model, params, keywords)
    theory = _theory(model, theory)
    if theory.derivation.problem is None:
        return _refused(theory, at, seed)
    solutions = [theory.solve(point) for point in at]
    chosen: dict[str, Any] = {
        "sizes": sizes,
        "trials": trials,
        "trajectories": trajectories,
        "duration": duration,
        "burn": burn,
    }
    designs = [plan(model, s, quick=quick, dt=dt, **chosen) for s in solutions]
    settings: dict[str, Any] = {
        "seed": seed,
        "executor": executor,
        "scheduler": scheduler,
        "workers": workers,
        "store": store,
    }
    settings |= {"fresh": fresh, "progress": progress}
    if data is not None:
        sources = data if len(at) > 1 else [data]
        if len(sources) != len(at):
            raise QuenchedError(f"data: expected one set of runs for each of {len(at)} points, got {len(sources)}")
        samples = [given_samples(source) for source in sources]
        cases = [_case(theory, p, s, d) for p, s, d in zip(at, samples, designs, strict=True)]
        agreement = _judged(cases, quick, ci)
    else:
        agreement, designs, samples = _looked(model, theory, at, designs, settings, quick, ci, trials is not None)
    return agreement.with_context(**_context(theory, designs, samples, seed, data is not None))


def _points(model: Model, params: Mapping[Any, Any] | None, keywords: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameter points, each complete and checked before anything runs."""
    given = {str(k): v for k, v in (params or {}).items()}
    twice = sorted(set(given) & set(keywords))
    if twice:
        raise QuenchedError(f"parameter {twice[0]!r} is given twice")
    listed = {
        k: [float(x) for x in v] if hasattr(v, "__len__") and not isinstance(v, str) else v
        for k, v in {**given, **keywords}.items()
    }
    at = points(listed)
    if not at:
        raise QuenchedError("validate got an empty list of values")
    for point in at:
        model.values(point)
    return at


def _theory(model: Model, theory: Theory | None) -> Theory:
    if theory is None:
        return derive(model)
    if not isinstance(theory, Theory):
        raise QuenchedError(f"theory: expected a Theory (see derive), got {type(theory).__name__}")
    return theory


def _looked(
    model: Model,
    theory: Theory,
    at: list[dict[str, Any]],
    designs: list[Design],
    settings: dict[str, Any],
    quick: bool,
    ci: bool,
    fixed: bool,
) -> tuple[Agreement, list[Design], list[Any]]:
    """Simulate and judge, with more realisations at the next planned look where they can settle the verdict."""
    from quenched.validate.looks import Looks

    looks = Looks(1 if quick or fixed else FULL_LOOKS, quick=quick, ci=ci)
    for look in range(1, looks.planned + 1):
        samples = [simulated_samples(model, p, d, **settings) for p, d in zip(at, designs, strict=True)]
        cases = [_case(theory, p, s, d) for p, s, d in zip(at, samples, designs, strict=True)]
        agreement = _judged(cases, quick, ci, look, looks.planned)
        step = looks.plan(agreement)
        if not step.more:
            break
        designs = [d.with_trials(step.realisations) for d in designs]
        settings = {**settings, "fresh": False}  # the realisations of this look are kept
    return agreement, designs, samples


def _judged(cases: list[Case], quick: bool, ci: bool, look: int = 1, looks: int = 1) -> Agreement:
    from quenched.validate.cases import Options
    from quenched.validate.verdict import judge_points

    return judge_points(cases, Options(quick=quick, ci=ci, look=look, looks=looks))


def _case(theory: Theory, point: dict[str, Any], samples: Any, design: Design) -> Case:
    """Theory and runs side by side, at the lags of the runs."""
    from quenched.validate.cases import Case

    solution = theory.solve(point, lags=samples.lags)
    names = compared(theory.model, samples.names)
    predicted, uncovered = {}, []
    for name in names:
        try:
            q = solution.quantity(name)
        except NotCovered:
            uncovered.append(name)
            continue
        predicted[name] = (q.value, q.error)
    curves = [n for n in predicted if samples.lags is not None and n in samples.curves]
    return Case(
        samples.values,
        predicted,
        parameters=solution.parameters,
        estimators=samples.estimators,
        scales=_scales(theory, solution, predicted, design),
        lags={n: samples.lags for n in curves},
        select={n: design.positions(samples.lags) for n in curves},
        uncovered=tuple(uncovered),
    )


def compared(model: Model, measured: list[str]) -> list[str]:
    """The observables to judge: the declared ones, or the standard numbers where none is declared."""
    declared = [n for n in model.observables if n in measured]
    if declared:
        return declared
    standard = [n for n in measured if n.endswith("0") or n.startswith("mean_") or n == "lyapunov"]
    if not standard:
        raise QuenchedError(f"nothing to compare: the runs have {', '.join(measured)} ({nearest('', measured)})")
    return standard


def _scales(
    theory: Theory, solution: Solution, predicted: Mapping[str, Any], design: Design
) -> dict[str, tuple[float, str]]:
    """What errors are relative to, for observables that may vanish."""
    from quenched.theory.observables import Lyapunov

    scales = {}
    for name in predicted:
        expr = theory.model.observables.get(name)
        if name == "lyapunov" or isinstance(expr, Lyapunov):
            scales[name] = (1 / design.relaxation, "relaxation rate of a unit (the exponent crosses zero)")
        else:
            found = solution.main.rms(name)
            if found is not None:
                scales[name] = found
    return scales


def _refused(theory: Theory, at: list[dict[str, Any]], seed: int) -> Agreement:
    """No theory, no agreement: the verdict says where the derivation stopped."""
    from quenched.validate.agreement import Agreement
    from quenched.validate.cases import LEVEL, TARGET

    reason = f"not covered by the theory: {theory.derivation.refusal}"
    agreement = Agreement("inconclusive", reason, (), 1.0, LEVEL, TARGET)
    return agreement.with_context(**_context(theory, [], [], seed, True))


def _context(theory: Theory, designs: list[Design], samples: list[Any], seed: int, own: bool) -> dict[str, Any]:
    """What the report tells besides the numbers."""
    from quenched import __version__
    from quenched.theory.indices import indexed

    model = theory.model
    settings: dict[str, Any] = {"seed": "the user's own runs"} if own else {"seed": seed}
    if designs and not own:
        settings |= designs[0].settings()
        settings["time step"] = samples[0].dt
        settings["computing time / s"] = round(sum(s.elapsed for s in samples), 1)
    notes = [f"This theory is deliberately wrong: {theory.mutant}."] if theory.mutant else []
    return {
        "title": f"{model.name or 'model'}: theory against simulation",
        "declaration": indexed(model),
        "derivation": theory.derivation,
        "settings": settings,
        "versions": {"quenched": __version__},
        "notes": notes,
        "references": theory.derivation.bibtex().split("\n\n"),
    }
