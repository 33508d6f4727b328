"""Figures of a comparison: curves, finite-size extrapolations, sweeps."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from quenched.validate.agreement import Agreement, Point, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_THEORY: dict[str, Any] = {"color": "#b3261e", "lw": 1.6}
_DOTS: dict[str, Any] = {"fmt": "o", "ms": 3.5, "capsize": 2, "lw": 1}
_COLUMNS = 3


def figure(agreement: Agreement) -> Figure:
    """All panels of a comparison.

    One point: curves over τ and numbers over N^-p. Several points that differ in one parameter: numbers over it, curves
    together. Other sets of points: the panels of each.
    """
    swept = swept_parameter(agreement)
    panels: list[tuple[str, Any]] = []
    for name in dict.fromkeys(row.name for row in agreement.rows):
        chosen = [(p, r) for p in agreement.points for r in p.rows if r.name == name]
        if chosen[0][1].curve.lags is not None:
            panels.append(("curve", chosen))
        elif swept is not None:
            panels.append(("sweep", (swept, chosen, agreement.context.get("sweep", {}).get(name))))
        else:
            panels += [("sizes", pair) for pair in chosen]
    return _draw(panels)


def swept_parameter(agreement: Agreement) -> str | None:
    """The one parameter in which several points differ, or None."""
    if len(agreement.points) < 2:
        return None
    first = agreement.points[0].parameters
    varying = [k for k in first if len({p.parameters.get(k) for p in agreement.points}) > 1]
    return varying[0] if len(varying) == 1 else None


def svg(fig: Figure) -> str:
    """A figure as an ``<svg>`` element for embedding: text stays text, no date, no random ids."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "quenched"}):
        fig.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw(panels: list[tuple[str, Any]]) -> Figure:
    from matplotlib.figure import Figure

    columns = max(1, min(_COLUMNS, len(panels)))
    rows = math.ceil(len(panels) / columns)
    fig = Figure(figsize=(4.0 * columns, 3.0 * max(rows, 0.2)), layout="constrained")
    for i, (kind, content) in enumerate(panels):
        axes = fig.add_subplot(rows, columns, i + 1)
        if kind == "curve":
            _curve_panel(axes, content)
        elif kind == "sweep":
            _sweep_panel(axes, *content)
        else:
            _size_panel(axes, *content)
        axes.spines[["top", "right"]].set_visible(False)
    return fig


def _curve_panel(axes: Axes, chosen: list[tuple[Point, Row]]) -> None:
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(chosen)))
    for (point, row), colour in zip(chosen, colours, strict=True):
        curve = row.curve
        assert curve.lags is not None
        if len(chosen) == 1:
            greys = np.linspace(0.75, 0.4, len(curve.sizes))
            for N, mean, grey in zip(curve.sizes, curve.means, greys, strict=True):
                axes.plot(curve.lags, mean, lw=0.7, color=f"{grey:.2f}", label=f"N = {N}")
        line = _THEORY if len(chosen) == 1 else {**_THEORY, "color": colour}
        axes.plot(curve.lags, curve.theory, **line, label="theory" if len(chosen) == 1 else point.label)
        step = max(1, curve.lags.size // 24)
        axes.errorbar(
            curve.lags[::step],
            curve.intercept[::step],
            2 * curve.intercept_error[::step],
            color="k" if len(chosen) == 1 else colour,
            **_DOTS,
            label="N → ∞ (± 2 s.e.)" if len(chosen) == 1 else None,
        )
    tested = [c.lag for c in chosen[0][1].components if c.lag is not None]
    for lag in tested if len(chosen) == 1 else ():
        axes.axvline(lag, color="0.85", lw=0.8, zorder=0)
    axes.set(xlabel="τ", ylabel=chosen[0][1].name)
    axes.legend(fontsize=7, frameon=False)


def _size_panel(axes: Axes, point: Point, row: Row) -> None:
    curve, c = row.curve, row.components[0]
    x = np.asarray(curve.sizes, dtype=float) ** -row.power
    axes.axhline(c.theory, **_THEORY, label="theory")
    grid = np.linspace(0, x.max() * 1.05, 50)
    if not row.second_power:  # a straight line
        axes.plot(grid, c.simulation + c.slope * grid, color="0.6", lw=1, label="fit")
    axes.errorbar(x, curve.means[:, 0], 2 * curve.errors[:, 0], color="0.3", **_DOTS, label="mean at N (± 2 s.e.)")
    axes.errorbar([0.0], [c.simulation], [2 * c.standard_error], color="k", **_DOTS, label="N → ∞ (± 2 s.e.)")
    axes.set(
        xlabel="1/N" if row.power == 1 else f"1/N^{row.power:g}",
        ylabel=row.name + (f" ({point.label})" if point.parameters else ""),
    )
    axes.legend(fontsize=7, frameon=False)


def _sweep_panel(axes: Axes, parameter: str, chosen: list[tuple[Point, Row]], dense: Any) -> None:
    x = np.array([point.parameters[parameter] for point, _ in chosen])
    parts = [row.components[0] for _, row in chosen]
    order = np.argsort(x)
    if dense is not None:
        axes.plot(np.asarray(dense[0]), np.asarray(dense[1]), **_THEORY, label="theory")
    else:
        axes.plot(x[order], np.array([c.theory for c in parts])[order], **_THEORY, marker="_", label="theory")
    values, errors = ([getattr(c, name) for c in parts] for name in ("simulation", "standard_error"))
    axes.errorbar(x, values, 2 * np.array(errors), color="k", **_DOTS, label="simulation, N → ∞ (± 2 s.e.)")
    axes.set(xlabel=parameter, ylabel=chosen[0][1].name)
    axes.legend(fontsize=7, frameon=False)
