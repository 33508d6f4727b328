"""`validate`: solve a theory, simulate the declaration at several sizes, and judge whether they agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from quenched.deriving import derive_at
from quenched.design import Design, StaticDesign, at_size, design_of, tier_sizes
from quenched.parameters import points
from quenched.paths_in_time import march_of_tier, time_axis
from quenched.runs import Samples, given_samples, made_elsewhere, simulated_samples
from quenched.theory.counted import counted
from quenched.theory.errors import ConvergenceError, NoneFound, NotCovered, QuenchedError, check_keywords, nearest
from quenched.theory_object import Theory

if TYPE_CHECKING:
    from quenched.readout import Quantity
    from quenched.solution import Solution
    from quenched.validate.agreement import Agreement
    from quenched.validate.cases import Case

#: Looks at growing data: the quick tier has one, the full tier extends its runs towards its target.
FULL_LOOKS = 3
#: Accuracy of sampled theories in the quick tier and in the full one: less than half of what is to be resolved.
SAMPLED = {True: 0.0025, False: 0.0015}
#: A value this many errors from zero has a sign.
_CLEAR = 20.0


def validate(
    model: Any,
    params: Mapping[Any, Any] | None = None,
    *,
    theory: Theory | None = None,
    data: Any = None,
    quick: bool = False,
    ci: bool = False,
    seed: int = 0,
    sizes: tuple[int, ...] | None = None,
    trials: int | None = None,
    powers: Mapping[str, Any] | None = None,
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
    model : Dynamics, Map, Spectrum or Gibbs
        The declaration.
    params, **keywords
        Values by symbol or by name; a list gives several points and one joint verdict. Settings of the head's simulator
        may be among the keywords (``trajectories, duration, burn, dt`` of a dynamics).
    theory : Theory, optional
        What to judge instead of ``derive(model)``, for instance a deliberately wrong theory.
    data : optional
        The user's own runs instead of simulations: a `Run`, several of them, or ``{N: {name: values}}`` with one row
        per realisation. For several points a list, in their order.
    quick : bool
        About a minute on two cores, more where networks scatter; detectable errors of 5 % instead of 2 %.
    ci : bool
        Level 10⁻⁶ instead of 10⁻³, for tests with a fixed seed.
    seed : int
        Realisation k depends only on (seed, N, k).
    sizes, trials : optional
        Sizes N (at least three) and realisations of each; chosen by the tier unless given.
    powers : mapping, optional
        Finite-size law of an observable instead of its estimator's: ``{"u": 2}`` for a + b/N², ``{"u": (1, 2)}`` for
        a + b/N + c/N², which costs precision, either with a reason as in ``{"u": (2, "no field")}``.
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
    from quenched.validate.heads import setting_names, settings_of, simulator_of

    prepare = simulator_of(model)
    chosen: dict[str, Any] = {"sizes": sizes, "trials": trials, **settings_of(prepare, keywords)}
    named = {k: v for k, v in keywords.items() if k not in chosen}
    check_keywords(named, model.parameters, [*setting_names(prepare), *signature(validate).parameters])
    at = _points(model, params, named)
    theory = _theory(model, theory, at)
    if not theory.solvable:
        return _refused(theory)
    try:
        targets = [_target(model, theory, point, quick, chosen) for point in at]
    except ConvergenceError:
        told = _known_in_full(theory, at, seed)
        if not told:
            raise
        return _inconclusive(theory, told)
    none = counted(model) and any(t.solution.main.doubt for t in targets)
    once = quick or none or trials is not None or data is not None
    rule = Rule(quick, ci, 1 if once else FULL_LOOKS, powers or {})
    if data is not None:
        sources = _sources(data, len(at))
        targets = [t.with_samples(given_samples(d)) for t, d in zip(targets, sources, strict=True)]
        judged = _judged(theory, targets, rule).with_context(**_context(theory), settings={"runs": "the user's own"})
        reasons = dict.fromkeys([judged.reason, *map(made_elsewhere, sources, at)])
        return replace(judged, reason="; ".join(filter(None, reasons)))
    targets = [part for target in targets for part in target.parts()]
    settings: dict[str, Any] = {"seed": seed, "store": store, "fresh": fresh, "progress": progress}
    settings |= {"executor": executor, "scheduler": scheduler, "workers": workers}
    try:
        agreement, targets = _looked(model, theory, targets, settings, rule)
    except NoneFound as stop:
        return _inconclusive(theory, "; ".join(filter(None, [str(stop), *(t.solution.main.doubt for t in targets)])))
    return agreement.with_context(**_context(theory), settings={"seed": seed, **targets[0].settings()})


@dataclass(frozen=True)
class Rule:
    """How strict the verdict is, how many looks at growing data are planned, and finite-size laws that are given."""

    quick: bool
    ci: bool
    looks: int
    powers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """One parameter point on its way to the verdict."""

    point: dict[str, Any]
    solution: Solution
    design: Design | StaticDesign
    samples: Samples | None = None
    #: Of a theory that keeps N, and of small systems with rounded ratios: the solution that runs are compared with, and
    #: that at the size of the runs.
    sized: Mapping[int, tuple[Solution, Solution]] = field(default_factory=dict)
    #: Whether only the exponent is compared, in networks of its own.
    exponent: bool = False

    def parts(self) -> list[Target]:
        """The comparison, and that of the exponent where it has networks of its own."""
        growth = getattr(self.design, "growth", None)
        return [self] if growth is None else [self, replace(self, design=growth, exponent=True)]

    def with_samples(self, samples: Samples) -> Target:
        """The same with its runs."""
        return replace(self, samples=samples)

    def with_trials(self, trials: int) -> Target:
        """The same with another number of realisations."""
        return replace(self, design=self.design.with_trials(trials))

    def settings(self) -> dict[str, Any]:
        """For the report."""
        assert self.samples is not None
        step = {} if np.isnan(self.samples.dt) else {"time step": self.samples.dt}
        return {**self.design.settings(), **step}


def _points(model: Any, params: Mapping[Any, Any] | None, keywords: Mapping[str, Any]) -> list[dict[str, Any]]:
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


def _sources(data: Any, count: int) -> list[Any]:
    """The user's runs, one set a point."""
    sources = [data] if count == 1 else list(data)
    if len(sources) != count:
        raise QuenchedError(f"data: expected one set of runs for each of {count} points, got {len(sources)}")
    return sources


def _theory(model: Any, theory: Theory | None, at: list[dict[str, Any]]) -> Theory:
    if theory is None:
        return derive_at(model, {name: at[0][name] if _same(at, name) else None for name in at[0]})
    if not isinstance(theory, Theory):
        raise QuenchedError(f"theory: expected a Theory (see derive), got {type(theory).__name__}")
    return theory


def _same(at: list[dict[str, Any]], name: str) -> bool:
    """Whether all points have one value of a parameter."""
    return all(point[name] == at[0][name] for point in at)


def _target(model: Any, theory: Theory, point: dict[str, Any], quick: bool, chosen: dict[str, Any]) -> Target:
    """Solve a point and plan its simulations, those of a mutant as for the right theory (their runs are shared)."""
    own = theory.own(point)
    if _of_given_times(theory.right, own):
        return _in_window(model, theory, point, quick, chosen)
    sizes = tier_sizes(quick, chosen, theory.in_time) if theory.right.keeps_size else ()
    size: dict[str, Any] = {"N": max(sizes)} if sizes else {}
    exact: dict[str, Any] = {"tol": SAMPLED[quick]} if getattr(theory, "samples", False) else {}
    solution = theory.right.solve(own, **size, **exact)
    smallest = theory.right.solve(own, N=min(sizes)) if sizes and theory.in_time else None
    design = design_of(model, model.values(point), solution, quick, chosen, smallest)
    lags: dict[str, Any] = {"lags": design.lags} if theory.takes_lags and isinstance(design, Design) else {}
    if theory is not theory.right or theory.takes_lags:
        solution = theory.solve(own, **lags, **size, **exact)
    others = {N: (solution, theory.solve(own, **lags, N=N)) for N in _sizes(design) if size and size != {"N": N}}
    return Target(point, solution, design, sized=others | _rounded(model, theory, own, design))


def _sizes(design: Design | StaticDesign) -> list[int]:
    """All sizes, those of the exponent's own networks too."""
    growth = getattr(design, "growth", None)
    return sorted({*design.sizes, *(growth.sizes if growth else ())})


def _rounded(model: Any, theory: Theory, own: Mapping[Any, float], design: Any) -> dict[int, tuple[Solution, Solution]]:
    """Solutions at the ratios that small systems have, where fractions of their N units are no whole numbers.

    Of the right theory for a mutant too: what runs are moved by does not depend on what they are compared with.
    """
    found = {}
    for N in (N for further in getattr(design, "also", ()) for N in further.sizes):
        changed = at_size(model, model.values(own), N)
        if changed:
            there = {**{str(k): v for k, v in own.items()}, **changed}
            found[N] = theory.right.solve(own), theory.right.solve(there)
    return found


def _of_given_times(theory: Theory, own: Mapping[Any, float]) -> bool:
    """Whether a state depends on when it is looked at, and not as a periodic one does."""
    if getattr(theory, "transient", False):
        return True
    march = theory.derivation.march if getattr(theory, "in_time", False) else None
    if march is None or theory.keeps_size:
        return False
    from quenched.numerics.twotime_solve import period_of

    return period_of(march, theory.values(own)) == float("inf")


def _in_window(model: Any, theory: Theory, point: dict[str, Any], quick: bool, chosen: dict[str, Any]) -> Target:
    """A point of a state that depends on when it is looked at: the theory averages over the window of the runs."""
    burn, duration = chosen.get("burn"), chosen.get("duration")
    if burn is None or duration is None:
        raise QuenchedError(
            "the state depends on when it is looked at: give burn= (the time at which the measurement begins) and "
            "duration="
        )
    how: dict[str, Any] = {"times": time_axis(burn, duration), "window": (burn, burn + duration)}
    how["sampling"] = march_of_tier(quick)
    solution = theory.solve(theory.own(point), **how)
    return Target(point, solution, design_of(model, model.values(point), solution, quick, chosen))


def _looked(
    model: Any, theory: Theory, targets: list[Target], settings: dict[str, Any], rule: Rule
) -> tuple[Agreement, list[Target]]:
    """Simulate and judge, with more realisations at the next planned look where they can settle the verdict."""
    from quenched.validate.looks import Looks

    looks = Looks(rule.looks, quick=rule.quick, ci=rule.ci)
    for look in range(1, rule.looks + 1):
        targets = [t.with_samples(simulated_samples(model, t.point, t.design, **settings)) for t in targets]
        agreement = _judged(theory, targets, rule, look)
        step = looks.plan(agreement)
        if not step.more:
            break
        most = max(t.design.trials for t in targets)
        targets = [t.with_trials(round(step.realisations * t.design.trials / most)) for t in targets]
        settings = {**settings, "fresh": False}  # the realisations of this look are kept
    return agreement, targets


def _judged(theory: Theory, targets: list[Target], rule: Rule, look: int = 1) -> Agreement:
    from quenched.validate.cases import Options
    from quenched.validate.verdict import judge_points

    resolution = max(t.design.resolution for t in targets)
    options = Options(quick=rule.quick, ci=rule.ci, look=look, looks=rule.looks, resolution=resolution)
    cases = [_case(theory, t) for t in targets]
    names = {name for case in cases for name in case.theory}
    for name in rule.powers:
        if name not in names:
            raise QuenchedError(f"powers: no observable {name!r} is compared; {nearest(name, sorted(names))}")
    own = [{n: p for n, p in rule.powers.items() if n in case.theory} for case in cases]
    return judge_points([replace(case, powers=p) for case, p in zip(cases, own, strict=True)], options)


def _predicted(q: Quantity, lags: Any) -> tuple[Any, Any]:
    """Value and error at the lags of the runs."""
    if q.axis is None or lags is None:
        return q.value, q.error
    known = np.asarray(q.at)
    if known.shape == np.shape(lags) and np.allclose(known, lags):
        return q.value, q.error
    if np.max(lags) > known[-1] * (1 + 1e-9):
        raise QuenchedError(f"the theory's curves end at lag {known[-1]:g}, the runs need {np.max(lags):g}")
    between = np.interp(lags, known, q.value)
    coarse = np.interp(lags, known[::2], np.asarray(q.value)[::2])
    return between, np.interp(lags, known, np.broadcast_to(q.error, known.shape)) + np.abs(between - coarse) / 3


def _case(theory: Theory, target: Target) -> Case:
    """Theory and runs side by side, at the lags of the runs."""
    from quenched.validate.cases import Case
    from quenched.validate.departures import told

    samples, solution = target.samples, target.solution
    assert samples is not None
    samples = _with_shifts(theory.model, samples).staying()
    if target.exponent:
        samples = samples.of(growing(theory.model))
    predicted, uncovered = {}, []
    for name in compared(theory.model, samples.names, samples.meaning):
        try:
            known = _known_as(theory.model, samples.meaning.get(name, name), solution.names)
            predicted[name] = _predicted(solution.quantity(known), samples.lags)
        except NotCovered:
            uncovered.append(name)
    broken = samples.symmetric({name: value for name, (value, _) in predicted.items()})
    scales = _scales(theory, target, predicted)
    samples = _from_own_size(target.sized, predicted, samples, scales)
    case = Case(
        samples.values,
        predicted,
        parameters={**{k: float(v) for k, v in target.point.items()}, **solution.parameters},
        estimators=samples.estimators,
        scales=scales,
        uncovered=tuple(uncovered),
        doubts=(solution.main.doubt,) if solution.main.doubt else (),
        unreliable=(*samples.doubts(), *_undetermined(theory, solution), *broken),
        conditions=told(samples.left),
    )
    if samples.lags is None or not isinstance(target.design, Design):
        return case
    curves = [name for name in predicted if name in samples.curves]
    tested = target.design.positions(samples.lags)
    return replace(case, lags=dict.fromkeys(curves, samples.lags), select=dict.fromkeys(curves, tested))


def _known_as(model: Any, name: str, names: Iterable[str]) -> str:
    """What solutions call a standard number of the only field of a measure, where an order parameter has its name."""
    fields = [] if model.observables else list(getattr(model, "priors", ()))
    full = f"{name}_{fields[0].name}" if len(fields) == 1 else name
    return full if full in names else name


def _undetermined(theory: Theory, solution: Solution) -> list[str]:
    """Why networks may be in another state; no excuse for a deliberate mistake, which may be to choose that state."""
    reason = getattr(solution.main, "undetermined", "")
    return [reason] if reason and theory.mutant is None else []


def _from_own_size(
    sized: Mapping[int, tuple[Solution, Solution]],
    predicted: Mapping[str, Any],
    samples: Samples,
    scaled: Iterable[str],
) -> Samples:
    """Runs moved by what the theory of their own size differs from that of the limit: what is left vanishes.

    Observables that are `scaled`, whose errors are not relative to themselves, are moved by the difference.
    """
    values = {N: dict(row) for N, row in samples.values.items()}
    for N, (limit, own) in sized.items():
        for name in values.get(N, {}).keys() & set(predicted):
            quantity = samples.meaning.get(name, name)
            there, here = (_predicted(s.quantity(quantity), samples.lags) for s in (limit, own))
            by_ratio = name not in scaled and _shrinks(there, here)
            old, new = here[0], there[0]
            values[N][name] = values[N][name] * (new / old) if by_ratio else values[N][name] + (new - old)
    return replace(samples, values=values)


def _shrinks(there: tuple[Any, Any], here: tuple[Any, Any]) -> bool:
    """Whether values keep their sign and lose size on the way to the limit.

    Networks scatter in proportion to what they measure, and where a theory keeps √N that may be several times larger in
    the smallest ones: the difference would carry their whole scatter along, the ratio does not.
    """
    (new, new_error), (old, old_error) = (tuple(np.asarray(x, dtype=float) for x in pair) for pair in (there, here))
    clear = np.all(np.abs(old) > _CLEAR * old_error) and np.all(np.abs(new) > _CLEAR * new_error)
    return bool(clear and np.all(new * old > 0) and np.all(np.abs(new) <= np.abs(old)))


def _with_shifts(model: Any, samples: Samples) -> Samples:
    """Runs with the observables N·(mean − limit), from the means at neighbouring sizes."""
    from quenched.theory.observables import Shift
    from quenched.validate.simulate_layers import MEAN_OF, shifts

    for name, expr in model.observables.items():
        if isinstance(expr, Shift) and MEAN_OF.format(name) in samples.names:
            samples = shifts(samples, name, str(expr.args[0]))
    return samples


def growing(model: Any) -> set[str]:
    """The observables that need the Lyapunov exponent."""
    from quenched.theory.observables import Lyapunov

    if not model.observables:
        return {"lyapunov"}
    return {name for name, expr in model.observables.items() if expr.atoms(Lyapunov)}


def compared(model: Any, measured: list[str], meaning: Mapping[str, str] | None = None) -> list[str]:
    """The observables to judge: the declared ones, or the standard numbers where none is declared."""
    known = model.observables or getattr(model, "standard", ())
    declared = [n for n in known if n in measured]
    declared += [n for n in measured if (meaning or {}).get(n) in known]
    if declared:
        return list(dict.fromkeys(declared))
    if not hasattr(model, "eqs"):
        return measured
    standard = [n for n in measured if n.endswith("0") or n.startswith("mean_") or n == "lyapunov"]
    if not standard:
        raise QuenchedError(f"nothing to compare: the runs have {', '.join(measured)} ({nearest('', measured)})")
    return standard


def _scales(theory: Theory, target: Target, predicted: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """What errors are relative to, for observables that may vanish."""
    from quenched.theory.observables import Lyapunov

    scales = {}
    for name in predicted:
        exponent = name == "lyapunov" or isinstance(theory.model.observables.get(name), Lyapunov)
        if exponent and isinstance(target.design, Design):
            rate = 1 / target.design.relaxation
            scales[name] = (rate, "relaxation rate of a unit (the exponent itself crosses zero)")
        else:
            found = target.solution.main.rms(name)
            if found is not None:
                scales[name] = found
    return scales


def _known_in_full(theory: Theory, at: list[dict[str, Any]], seed: int) -> str:
    """At points without a state of partial knowledge: what state evolution promises, and what instances do."""
    from quenched.attainment import LOOKED_AT
    from quenched.replica_theory import ReplicaTheory

    right = theory.right
    if not isinstance(right, ReplicaTheory):
        return ""
    for point in at:
        values = right.values(right.own(point))
        told = right.full_knowledge(values)
        if told:
            where = ", ".join(f"{k} = {v:g}" for k, v in point.items())
            size, trials = LOOKED_AT
            return f"at {where} {told}. {right.instance().attainment(size, trials, seed, values)!r}"
    return ""


def _refused(theory: Theory) -> Agreement:
    """No theory, no agreement: the verdict says where the derivation stopped."""
    return _inconclusive(theory, f"not covered by the theory: {theory.derivation.refusal}")


def _inconclusive(theory: Theory, reason: str) -> Agreement:
    from quenched.validate.agreement import Agreement
    from quenched.validate.cases import LEVEL, TARGET

    return Agreement("inconclusive", reason, (), 1.0, LEVEL, TARGET).with_context(**_context(theory))


def _context(theory: Theory) -> dict[str, Any]:
    """What the report tells besides the numbers."""
    from quenched import __version__

    return {
        "title": f"{theory.model.name or 'model'}: theory against simulation",
        "declaration": str(theory.model).splitlines(),
        "derivation": theory.derivation,
        "versions": {"quenched": __version__},
        "notes": [f"This theory is deliberately wrong: {theory.mutant}."] if theory.mutant else [],
        "references": theory.derivation.bibtex().split("\n\n"),
    }
