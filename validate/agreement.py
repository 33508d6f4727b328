"""The outcome of a comparison: what was compared, how well it could be, and the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

Array = NDArray[np.float64]
Verdict = Literal["agree", "disagree", "inconclusive"]
Independence = Literal["nothing", "declaration", "theory"]
#: What is printed of every tested number; the verdict is that of its observable alone.
COLUMNS = ("observable", "theory", "simulation N→∞", "t", "detectable", "b", "p", "assumes", "verdict")
EXIT_CODES: dict[str, int] = {"agree": 0, "disagree": 1, "inconclusive": 3}


@dataclass(frozen=True)
class Component:
    """One tested number: an observable, or a curve at one declared lag.

    Attributes
    ----------
    lag : float or None
        Position on the curve (time constants of the declaration); None for a number.
    theory, theory_error : float
        The prediction for N → ∞ and its numerical error.
    simulation, standard_error : float
        Intercept of the extrapolation and its statistical standard error.
    spread : float
        Standard deviation of one extrapolated realisation.
    extra : float
        Error that no realisations remove (theory, time step, resolution), added in quadrature.
    slope, slope_error : float
        Finite-size coefficient b of b/N^p.
    t, p_value : float
        Deviation in errors and the p-value of it alone (guarded against skewness).
    shift, shift_p : float
        Intercept with minus without the smallest N in its s.e.; p-value of the finite-size law.
    detectable : float
        Minimal detectable error (99 % power) in the observable's unit.
    """

    lag: float | None
    theory: float
    theory_error: float
    simulation: float
    standard_error: float
    spread: float
    extra: float
    slope: float
    slope_error: float
    t: float
    p_value: float
    shift: float
    shift_p: float
    detectable: float


@dataclass(frozen=True)
class Curve:
    """An observable at every size, for plots: k lags (k = 1 for a number), m sizes."""

    lags: Array | None
    theory: Array
    theory_error: Array
    sizes: tuple[int, ...]
    means: Array
    errors: Array
    intercept: Array
    intercept_error: Array


@dataclass(frozen=True)
class Row:
    """One observable at one parameter point.

    Attributes
    ----------
    name : str
    components : tuple of Component
    curve : Curve
    p_value : float
        Of this observable alone; the verdict rests on the joint one.
    power, second_power, power_reason : float, float, str
        Declared finite-size exponent p, a second one that is fitted too (0: none), and why.
    independence : "nothing", "declaration" or "theory"
        What the estimator assumes.
    bias : str
        Known bias of the estimator.
    scale, scale_reason : float, str
        What relative errors are relative to.
    time_step : (float, float) or None
        Bias by the time step, from halving it, and its error; None when not measured or shared with the theory.
    outcome, outcome_reason : Verdict, str
        What this observable alone says, and why (the verdict of the whole needs all of them).
    """

    name: str
    components: tuple[Component, ...]
    curve: Curve
    p_value: float
    power: float
    power_reason: str
    independence: Independence
    bias: str
    scale: float
    scale_reason: str
    time_step: tuple[float, float] | None = None
    outcome: Verdict = "inconclusive"
    outcome_reason: str = ""
    second_power: float = 0.0

    @property
    def law(self) -> str:
        """The finite-size law that is fitted."""
        return f"a + b/N^{self.power:g}" + (f" + c/N^{self.second_power:g}" if self.second_power else "")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that it was measured at."""
        return self.curve.sizes

    @property
    def worst(self) -> Component:
        """The component that deviates most."""
        return max(self.components, key=lambda c: abs(c.t))

    @property
    def detectable(self) -> float:
        """Minimal detectable relative error (99 % power): the worst over the components."""
        largest = max(c.detectable for c in self.components)
        return largest / self.scale if self.scale > 0 else math.inf

    @property
    def asymptotic_p(self) -> float:
        """p-value of the finite-size law (Bonferroni over the components)."""
        return min(1.0, len(self.components) * min(c.shift_p for c in self.components))


@dataclass(frozen=True)
class Point:
    """All observables at one parameter point.

    `block_p` are the p-values of the T² tests (guarded), `block_p_gaussian` those of the plain F distribution,
    `unjudged` the observables that only one side knows.
    """

    parameters: Mapping[str, float]
    sizes: tuple[int, ...]
    realisations: int
    rows: tuple[Row, ...]
    block_p: tuple[float, ...]
    block_p_gaussian: tuple[float, ...]
    unjudged: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return ", ".join(f"{k} = {v:g}" for k, v in self.parameters.items())

    @property
    def p_value(self) -> float:
        """Joint p-value of this point."""
        return min(1.0, len(self.block_p) * min(self.block_p))


@dataclass(frozen=True)
class Agreement:
    """The verdict on a theory, with everything that it rests on.

    Attributes
    ----------
    verdict : "agree", "disagree" or "inconclusive"
    reason : str
        One line.
    points : tuple of Point
        One per parameter point; none where the theory does not cover the declaration at all.
    p_value : float
        Joint over everything tested (guarded against skewness, Bonferroni).
    level : float
        The verdict disagrees below it: the family's 10⁻³ (CI 10⁻⁶) shared by the planned looks.
    target : float
        Largest relative minimal detectable error with which a verdict may agree.
    look, looks : int
        This look at the data and the planned number of them.
    context : dict
        For the report: ``title, declaration, steps, settings, versions, ...`` (see `report.Context`).
    """

    verdict: Verdict
    reason: str
    points: tuple[Point, ...]
    p_value: float
    level: float
    target: float
    look: int = 1
    looks: int = 1
    context: Mapping[str, Any] = field(default_factory=dict)

    # -- reading it ---------------------------------------------------------------------------------------------------
    @property
    def exit_code(self) -> int:
        """0 agree, 1 disagree, 3 inconclusive."""
        return EXIT_CODES[self.verdict]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every observable of every point."""
        return tuple(row for point in self.points for row in point.rows)

    @property
    def several(self) -> bool:
        """Whether parameters differ: some observables of one point may have networks of their own."""
        return len({tuple(point.parameters.items()) for point in self.points}) > 1

    @property
    def detectable(self) -> float:
        """Minimal detectable relative error (99 % power) of the worst-resolved observable."""
        return max((row.detectable for row in self.rows), default=math.inf)

    def __getitem__(self, name: str) -> Row:
        """The row of an observable (of the first point where it occurs)."""
        for row in self.rows:
            if row.name == name:
                return row
        raise QuenchedError(f"{name!r} was not compared: {nearest(name, {r.name for r in self.rows})}")

    def table(self) -> list[dict[str, Any]]:
        """One record per tested number."""
        return [
            {
                "point": point.label,
                "observable": row.name,
                "lag": c.lag,
                "theory": c.theory,
                "theory_error": c.theory_error,
                "simulation": c.simulation,
                "standard_error": c.standard_error,
                "t": c.t,
                "p_value": c.p_value,
                "minimal_detectable_error": c.detectable / row.scale if row.scale > 0 else math.inf,
                "relative_to": row.scale_reason,
                "b": c.slope,
                "b_error": c.slope_error,
                "power": row.power,
                "shift": c.shift,
                "independence": row.independence,
                "time_step_bias": row.time_step[0] if row.time_step else None,
                "verdict": row.outcome,
            }
            for point, row, c in self._components()
        ]

    def _components(self) -> Iterator[tuple[Point, Row, Component]]:
        for point in self.points:
            for row in point.rows:
                for c in row.components:
                    yield point, row, c

    def with_context(self, **context: Any) -> Agreement:
        """The same verdict with more for the report (title, declaration, steps, settings, seeds, versions)."""
        return replace(self, context={**self.context, **context})

    # -- machine readable ---------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data. ``observables`` is that of the first point; ``points`` holds all."""
        points = [_point_dict(p) for p in self.points]
        document = {
            "verdict": self.verdict,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "p_value": self.p_value,
            "level": self.level,
            "minimal_detectable_error": self.detectable,
            "target": self.target,
            "look": self.look,
            "looks": self.looks,
            "observables": self._first(points),
            "points": points,
        }
        clean: dict[str, Any] = _plain(document)
        return clean

    def _first(self, points: list[dict[str, Any]]) -> dict[str, Any]:
        """Observables of the first point, all that were measured there."""
        here = [p["observables"] for p in points if p["parameters"] == points[0]["parameters"]]
        return {name: row for observables in reversed(here) for name, row in observables.items()}

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as text; numbers that are not finite become null."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    # -- showing it ---------------------------------------------------------------------------------------------------
    def plot(self) -> Figure:
        """Theory against simulation: curves with their dots, numbers against N^-p, or against a swept parameter."""
        from quenched.validate.plots import figure

        return figure(self)

    def save(self, path: str | Path) -> Path:
        """Write the report: ``.html`` (self-contained) or ``.json``. The file appears complete or not at all."""
        from quenched.validate.report import render, write_text

        target = Path(path)
        if target.suffix == ".json":
            return write_text(target, self.to_json())
        if target.suffix not in {".html", ".htm"}:
            raise QuenchedError(f"save({str(path)!r}): expected a file name ending in .html or .json")
        return write_text(target, render(self))

    def __repr__(self) -> str:
        return "\n".join(self._text())

    def _text(self) -> Iterator[str]:
        yield f"{self.verdict}: {self.reason}"
        if not self.points:
            return
        head = COLUMNS
        lines = [head, *(cells(point, row, c, self.several) for point, row, c in self._components())]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        for line in lines:
            yield "  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        yield f"  {'; '.join(self._networks())}; joint p = {self.p_value:.2g} (level {self.level:.2g})"

    def _networks(self) -> Iterator[str]:
        """Sizes and realisations, with the observables that they are for where these differ."""
        first = [p for p in self.points if p.parameters == self.points[0].parameters]
        groups: dict[tuple[tuple[int, ...], int], list[str]] = {}
        for point in first:
            for row in point.rows:
                groups.setdefault((row.sizes, point.realisations), []).append(row.name)
        for (sizes, count), names in groups.items():
            of = f"{', '.join(names)} at " if len(groups) > 1 else ""
            yield f"{of}N = {', '.join(map(str, sizes))}, R = {count}"

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        colour = {"agree": "green", "disagree": "red", "inconclusive": "yellow"}[self.verdict]
        table = Table(box=None, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, no_wrap=name != "assumes")
        for point, row, c in self._components():
            table.add_row(*(Text(cell) for cell in cells(point, row, c, self.several)))
        return Group(Text(f"{self.verdict}: {self.reason}", style=f"bold {colour}"), table)

    def _repr_html_(self) -> str:
        from quenched.validate.report import fragment

        return fragment(self)


def cells(point: Point, row: Row, c: Component, several: bool) -> tuple[str, ...]:
    """The printed line of one component, as in `COLUMNS`."""
    name = row.name + (f"({c.lag:g})" if c.lag is not None else "") + (f" [{point.label}]" if several else "")
    relative = c.detectable / row.scale if row.scale > 0 else math.inf
    return (
        name,
        with_error(c.theory, c.theory_error),
        with_error(c.simulation, c.standard_error),
        f"{c.t:+.1f}",
        f"{100 * relative:.2g} %" if math.isfinite(relative) else "undefined",
        with_error(c.slope, c.slope_error),
        f"{row.power:g}" + (f", {row.second_power:g}" if row.second_power else ""),
        row.independence,
        row.outcome,
    )


def with_error(value: float, error: float) -> str:
    """``1.9248(12)``-like notation as ``1.9248 ± 0.0012``, with two digits of the error."""
    if not math.isfinite(value):
        return str(value)
    if not (math.isfinite(error) and error > 0) or error < 1e-9 * max(abs(value), 1e-300):
        return f"{value:.9g}"
    if error < 1e-6:
        return f"{value:.9g} ± {error:.1e}"
    digits = 1 - math.floor(math.log10(error))
    if abs(value) < 1e6 and digits < 10:
        return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f}"
    return f"{value:.6g} ± {error:.2g}"


def _point_dict(point: Point) -> dict[str, Any]:
    return {
        "parameters": dict(point.parameters),
        "sizes": list(point.sizes),
        "realisations": point.realisations,
        "p_value": point.p_value,
        "p_values_gaussian": list(point.block_p_gaussian),
        "unjudged": list(point.unjudged),
        "observables": {row.name: _row_dict(row) for row in point.rows},
    }


def _row_dict(row: Row) -> dict[str, Any]:
    def pick(name: str) -> Any:
        values = [getattr(c, name) for c in row.components]
        return values if row.components[0].lag is not None or len(values) > 1 else values[0]

    out = {
        "verdict": row.outcome,
        "why": row.outcome_reason,
        "value": pick("theory"),
        "error": pick("theory_error"),
        "simulation": {"value": pick("simulation"), "error": pick("standard_error")},
        "sizes": list(row.sizes),
        "finite_size": {"b": pick("slope"), "error": pick("slope_error"), "p": row.power, "reason": row.power_reason}
        | ({"second_p": row.second_power} if row.second_power else {}),
        "t": pick("t"),
        "p_value": row.p_value,
        "minimal_detectable_error": row.detectable,
        "relative_to": {"value": row.scale, "what": row.scale_reason},
        "shift_without_smallest": pick("shift"),
        "assumes": row.independence,
        "bias": row.bias,
    }
    if row.time_step is not None:
        out["time_step_bias"] = {"value": row.time_step[0], "error": row.time_step[1]}
    if row.components[0].lag is not None:
        out["tau"] = pick("lag")
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
