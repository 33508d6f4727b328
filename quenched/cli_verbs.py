"""The verbs of the command line, one function each; each returns its exit code."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from quenched import cli_output as out
from quenched.cli_output import DISAGREE, INCONCLUSIVE, SUCCESS
from quenched.deriving import derive as derived
from quenched.deriving import derive_at
from quenched.files import check_target, write_atomically, write_text
from quenched.systems import catalogue
from quenched.theory.errors import QuenchedError, nearest

if TYPE_CHECKING:
    from quenched.solution import Solution
    from quenched.theory_object import Theory


def list_systems(options: argparse.Namespace) -> int:
    """The systems of the catalogue."""
    rows = [{"name": name, "summary": catalogue.summary(name)} for name in catalogue]
    if options.json:
        out.document({"systems": rows})
    else:
        width = max(len(row["name"]) for row in rows)
        print("\n".join(f"{row['name']:<{width}}  {row['summary']}" for row in rows))
    return SUCCESS


def derive(options: argparse.Namespace) -> int:
    """Print a derivation, or check it step by step."""
    from quenched.parameters import only_numbers, open_model

    check_target(options.output)
    model, values = open_model(options.name, options.params)
    theory = derived(model, only_numbers(values, "derive"))
    if options.verify:
        return _verify(theory)
    if options.output:
        print(write_text(options.output, _formatted(theory, options.form)))
    elif options.form == "text":
        out.show(theory)
        for other in theory.companions:
            out.show("", other, "", *(f"{line.text}    ({line.comment})" for line in other.agreement))
    else:
        print(_formatted(theory, options.form), end="")
    return SUCCESS


def _formatted(theory: Theory, form: str) -> str:
    from quenched import rendering

    derivations = [theory.derivation, *(other.derivation for other in theory.companions)]
    match form:
        case "latex":
            return "\n\n".join(d.latex() for d in derivations) + "\n"
        case "markdown":
            return "\n".join(rendering.derivation_markdown(d) for d in derivations)
        case "html":
            title = f"The theory of {theory.model.name or 'the model'}"
            return rendering.page(title, "".join(rendering.derivation_html(d) for d in derivations))
    return "\n\n".join(d.text() for d in derivations) + "\n"


def _verify(theory: Theory) -> int:
    """A tick for every step whose meaning is the same before and after."""
    from quenched.validate.witness import verify

    failed = 0
    for check in verify(theory.derivation, stability=True):
        failed += check.passed is False
        mark = {True: "✓", False: "✗", None: "·"}[check.passed]
        out.show(f"{mark} {check.title}   {check.detail}")
    return DISAGREE if failed else SUCCESS


def solve(options: argparse.Namespace) -> int:
    """Solve at one point."""
    from quenched.parameters import only_numbers, open_model

    check_target(options.output)
    model, values = open_model(options.name, options.params)
    solution = _solved(model, only_numbers(values, "solve"))
    if options.output:
        solution.save(options.output)
    if options.json:
        out.document(out.solution_json(solution))
    else:
        _print_solution(solution)
    return SUCCESS


def _solved(model: Any, values: dict[str, Any]) -> Solution:
    """The solution at one point; values of parameters that the derivation fixed are in its model already."""
    theory = derive_at(model, values)
    return theory.solve(theory.own(values))


def _print_solution(solution: Solution) -> None:
    found = solution.main.quantities()
    numbers = [[n, out.with_error(q.value, q.error)] for n, q in found.items() if q.axis is None]
    given = ", ".join(f"{k} = {v:g}" for k, v in solution.parameters.items())
    out.show(out.table(f"{solution.provenance['model']} at {given}", ["observable", "theory"], numbers))
    curves = [n for n, q in found.items() if q.axis is not None]
    out.show(f"\ncurves: {', '.join(curves)} (--json or -o FILE.nc gives them)", "\nbranches:")
    for branch in solution.branches:
        mark = "→" if branch is solution.main else " "
        out.show(f"  {mark} {branch!r}")
    for name, reason in solution.main.missing().items():
        out.show(f"no theory for {name}: {reason}")


def sweep(options: argparse.Namespace) -> int:
    """Solve along lists of values."""
    from quenched.parameters import open_model

    check_target(options.output)
    model, values = open_model(options.name, options.params)
    lists: dict[str, Any] = dict(values)
    theory = derive_at(model, values)
    curve = theory.sweep(theory.own(lists))
    if options.output:
        write_atomically(options.output, lambda draft: curve.dataset.to_netcdf(draft, engine="h5netcdf"))
    if options.json:
        out.document(out.sweep_json(curve))
        return SUCCESS
    columns = {name: curve.numbers(name) for name in curve.names}
    rows = [
        [*(f"{p[axis]:.6g}" for axis in curve.axes), *(out.with_error(v[k], e[k]) for v, e in columns.values())]
        for k, p in enumerate(curve.points)
    ]
    out.show(out.table(curve.solutions[0].provenance["model"], [*curve.axes, *columns], rows))
    return SUCCESS


def simulate(options: argparse.Namespace) -> int:
    """Simulate finite systems."""
    from quenched.parameters import only_numbers, open_model
    from quenched.validate.simulate import simulate as run

    check_target(options.output)
    model, values = open_model(options.name, options.params)
    settings = {"duration": options.duration, "dt": options.dt, **_settings(model, options)}
    result = run(
        model,
        N=options.size,
        trials=options.trials,
        seed=options.seed,
        params=only_numbers(values, "simulate"),
        scheduler=options.scheduler,
        fresh=options.fresh,
        progress=not options.json,
        **{k: v for k, v in settings.items() if v is not None},
    )
    if options.output:
        data = result.dataset()
        write_atomically(options.output, lambda draft: data.to_netcdf(draft, engine="h5netcdf"))
    _print_run(result, model, values, options)
    return SUCCESS


def _settings(model: Any, options: argparse.Namespace, *others: str) -> dict[str, Any]:
    """The settings of the simulation, with those (`others`) of the verb itself; unknown ones are refused."""
    from quenched.parameters import settings
    from quenched.validate.heads import setting_names, simulator_of

    given = settings(options.settings)
    known = [*setting_names(simulator_of(model)), *others]
    for name in given:
        if name not in known:
            raise QuenchedError(f"--set {name}= is no setting of this simulation: {nearest(name, known)}")
    several = {"only", "sizes"}  # one value is a list of one
    return {n: (v,) if n in several and not isinstance(v, tuple) else v for n, v in given.items()}


def _print_run(result: Any, model: Any, values: dict[str, Any], options: argparse.Namespace) -> None:
    from quenched.readout import Quantity

    found = {}
    for name, sample in result.observables.items():
        mean, error = sample.mean, sample.error
        scalar = sample.lags is None
        found[name] = Quantity(
            float(mean[0]) if scalar else mean,
            float(error[0]) if scalar else error,
            None if scalar else "tau",
            sample.lags,
        )
    given = {str(k): float(v) for k, v in model.values(values).items()}
    if options.json:
        content = {"system": model.name or "model", "parameters": given, "N": result.N, "dt": result.dt}
        seeds = {"seed": options.seed, "trials": options.trials}
        told = {"doubts": list(result.doubts()), "unmeasured": dict(result.unmeasured)}
        out.document({**content, **seeds, "observables": {n: out.quantity_json(q) for n, q in found.items()}, **told})
        return
    step = "" if math.isnan(result.dt) else f", dt = {result.dt:g}"
    title = f"{model.name or 'model'}, N = {result.N}, {options.trials} realisations{step}"
    rows = [[n, out.with_error(q.value, q.error)] for n, q in found.items() if q.axis is None]
    out.show(out.table(title, ["observable", "mean ± s.e."], rows))
    for text in result.doubts():
        out.show(f"in doubt: {text}")
    for name, reason in result.unmeasured.items():
        out.show(f"not measured: {name}: {reason}")


def validate(options: argparse.Namespace) -> int:
    """Verdicts, one a system; the worst decides the exit code."""
    from quenched.parameters import open_model
    from quenched.validation import validate as run

    names = [*options.names, *(catalogue if options.all else [])]
    if not names:
        raise QuenchedError("validate needs at least one NAME, or --all")
    if options.report and len(names) > 1:
        raise QuenchedError(f"--report takes one system, got {len(names)}")
    check_target(options.report, ".html", ".json")
    models = {name: open_model(name, options.params) for name in dict.fromkeys(names)}
    verdicts, documents = [], []
    for model, values in models.values():
        theory = derive_at(model, values)
        theory = theory.mutate(options.mutant) if options.mutant else theory
        agreement = run(
            model,
            values,
            theory=theory,
            quick=options.quick,
            seed=options.seed,
            scheduler=options.scheduler,
            fresh=options.fresh,
            progress=not options.json,
            **_settings(model, options, "sizes", "trials"),
        )
        verdicts.append(agreement.verdict)
        if options.report:
            agreement.save(options.report)
        if options.json:
            documents.append({"system": model.name or "model", **agreement.to_dict()})
        else:
            out.show(agreement)
    if options.json:
        out.document(documents[0] if len(documents) == 1 else {"systems": documents})
    elif options.report:
        print(f"report: {options.report}", file=sys.stderr)
    return _code(verdicts)


def _code(verdicts: Any) -> int:
    if any(v == "disagree" for v in verdicts):
        return DISAGREE
    return SUCCESS if all(v == "agree" for v in verdicts) else INCONCLUSIVE


def export(options: argparse.Namespace) -> int:
    """Write a standalone solver."""
    from quenched.parameters import only_numbers, open_model

    check_target(options.output)
    model, values = open_model(options.name, options.params)
    only_numbers(values, "export")
    print(derive_at(model, values).export(options.output))
    return SUCCESS


VERBS = {
    "list": list_systems,
    "derive": derive,
    "solve": solve,
    "sweep": sweep,
    "simulate": simulate,
    "validate": validate,
    "export": export,
}
