"""What the command line returns and prints: exit codes, tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quenched import __version__

if TYPE_CHECKING:
    from rich.table import Table

    from quenched.readout import Quantity
    from quenched.solution import Solution
    from quenched.sweeping import Sweep

#: Exit codes.
SUCCESS, DISAGREE, BAD_INPUT, INCONCLUSIVE = 0, 1, 2, 3
INTERRUPTED, INTERNAL = 130, 70

#: Columns of what is not printed to a terminal.
_WIDTH = 160


def document(content: Mapping[str, Any]) -> None:
    """Print one JSON document; numbers that JSON does not know become null."""
    text = json.dumps(_plain({**content, "version": __version__}), allow_nan=False, ensure_ascii=False)
    sys.stdout.write(text + "\n")


def _plain(value: Any) -> Any:
    """Python numbers, lists and strings all the way down."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def quantity_json(quantity: Quantity) -> dict[str, Any]:
    """``value``, ``error`` and, for a curve, its argument ``tau`` or ``omega``."""
    entry = {"value": quantity.value, "error": quantity.error}
    return entry if quantity.axis is None else {**entry, quantity.axis: quantity.at}


def solution_json(solution: Solution) -> dict[str, Any]:
    """A solution as the JSON document's content."""
    from quenched.solution import summary

    main = solution.main
    return {
        "system": solution.provenance["model"],
        "key": solution.provenance["key"],
        "parameters": solution.parameters,
        "branch": main.label,
        "observables": {name: quantity_json(q) for name, q in main.quantities().items()},
        "missing": main.missing(),
        "branches": [summary(b) for b in solution.branches if b is not main],
    }


def sweep_json(sweep: Sweep) -> dict[str, Any]:
    """A sweep: one value and error a point, for every scalar observable."""
    observables = {}
    for name in sweep.names:
        values, errors = sweep.numbers(name)
        observables[name] = {"value": values, "error": errors}
    first = sweep.solutions[0]
    fixed = {k: v for k, v in first.parameters.items() if k not in sweep.axes}
    return {
        "system": first.provenance["model"],
        "parameters": {**fixed, **{axis: [p[axis] for p in sweep.points] for axis in sweep.axes}},
        "observables": observables,
        "branches": [[b.label for b in s.branches] for s in sweep.solutions],
    }


def show(*things: Any) -> None:
    """Print for a person."""
    from rich.console import Console

    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _WIDTH)
    for thing in things:
        console.print(thing, highlight=False, markup=False)


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """A table whose first column is left-aligned."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for k, column in enumerate(columns):
        made.add_column(column, justify="left" if k == 0 else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def with_error(value: float, error: float) -> str:
    """``0.7476863806 ± 2e-12``: as many digits as the error supports."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.12g} ± {error:.1g}"
    digits = max(0, min(14, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} ± {error:.1g}"
