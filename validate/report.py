"""The report of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from quenched.theory.errors import QuenchedError
from quenched.validate.agreement import Agreement, Row, cells
from quenched.validate.mathml import mathml

_PACKAGES = ("quenched", "numpy", "scipy", "sympy", "numba", "xarray")
_HEADERS = (
    "observable",
    "theory",
    "simulation, N → ∞",
    "t",
    "detectable error",
    "b",
    "p",
    "estimator assumes",
    "verdict",
)


def render(agreement: Agreement) -> str:
    """The whole report.

    Reads from ``agreement.context``, all optional:

    - ``title`` : str
    - ``declaration`` : lines of text
    - ``derivation`` : object with ``steps`` (each ``title, assumption, source, dropped, after.lines()``, lines with
      ``latex, text, comment``) and ``refusals`` ((title, reason) pairs)
    - ``settings`` : {name: value} (time step, duration, seeds, …)
    - ``versions`` : {package: version}, added to those found here
    - ``notes``, ``references`` : lists of text
    """
    from quenched.validate.plots import svg

    context = agreement.context
    derivation = context.get("derivation")
    return _template("report.html").render(
        title=context.get("title", "Theory against simulation"),
        agreement=agreement,
        declaration=_lines(context.get("declaration")),
        steps=[_step(step) for step in getattr(derivation, "steps", ())],
        refusals=list(getattr(derivation, "refusals", ())),
        headers=_HEADERS,
        table=table_rows(agreement),
        figure=svg(agreement.plot()) if agreement.points else "",
        conditions=_conditions(agreement),
        settings={k: _shown(v) for k, v in dict(context.get("settings", {})).items()},
        versions={**versions(), **dict(context.get("versions", {}))},
        notes=_lines(context.get("notes")),
        references=_lines(context.get("references")),
        data=json.dumps(agreement.to_dict(), allow_nan=False).replace("<", "\\u003c"),
    )


def fragment(agreement: Agreement) -> str:
    """Verdict and table for a notebook cell."""
    rows = table_rows(agreement)
    return _template("fragment.html").render(agreement=agreement, headers=_HEADERS, table=rows)


def table_rows(agreement: Agreement) -> list[dict[str, Any]]:
    """Printed cells of every tested number, with a flag for those that deviate by more than three errors."""
    several = agreement.several
    return [
        {
            "cells": cells(point, row, c, several),
            "deviates": abs(c.t) > 3,
            "bad_law": abs(c.shift) > 3,
            "why": row.outcome_reason,
        }
        for point in agreement.points
        for row in point.rows
        for c in row.components
    ]


def _conditions(agreement: Agreement) -> list[dict[str, str]]:
    """Per observable, what the numbers rest on."""
    seen: dict[str, dict[str, str]] = {}
    for row in agreement.rows:
        step = "" if row.time_step is None else f"{row.time_step[0]:.2g} ± {row.time_step[1]:.2g}"
        seen.setdefault(
            row.name,
            {
                "name": row.name,
                "power": f"{row.power:g}: {row.power_reason}"
                if not row.second_power
                else f"{row.law}: {row.power_reason}",
                "assumes": row.independence,
                "bias": row.bias or "none stated",
                "relative to": f"{row.scale_reason} = {row.scale:.4g}",
                "time step": step or "shared with the theory, or not measured",
                "alone": _alone([r for r in agreement.rows if r.name == row.name]),
            },
        )
    return list(seen.values())


def _alone(rows: Sequence[Row]) -> str:
    """The worst outcome of an observable over the points, and why."""
    worst = min(rows, key=lambda r: ("disagree", "inconclusive", "agree").index(r.outcome))
    return f"{worst.outcome}: {worst.outcome_reason}"


def _step(step: Any) -> dict[str, Any]:
    return {
        "title": step.title,
        "assumption": step.assumption,
        "source": step.source,
        "lines": [_formula(line) for line in step.after.lines()],
        "dropped": [_formula(line) for line in step.dropped],
    }


def _formula(line: Any) -> dict[str, str]:
    return {"math": mathml(line.latex), "text": line.text, "comment": line.comment}


def _lines(value: str | Iterable[str] | None) -> list[str]:
    if value is None:
        return []
    return value.splitlines() if isinstance(value, str) else [str(line) for line in value]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {_shown(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        shown = [_shown(v) for v in value]
        return ", ".join(shown if len(shown) <= 12 else [*shown[:6], "…", *shown[-2:]])
    return str(value)


def versions() -> dict[str, str]:
    """Python, platform and the packages that a result depends on."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader

    folder = Path(__file__).parent / "templates"
    return Environment(
        loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def write_text(path: Path, text: str) -> Path:
    """Write a file that appears complete or not at all."""
    if not path.parent.is_dir():
        raise QuenchedError(f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
