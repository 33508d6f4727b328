"""A derivation in HTML (MathML, no network), Markdown and in a rich terminal."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quenched.theory.derivation import Derivation
    from quenched.theory.record import Line, Step

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
.step { margin: 1.2rem 0; } .step h3 { margin: 0 0 .2rem; font-size: 1.05rem; }
.assuming, .source, .comment { color: #666; font-size: .9em; } .dropped { color: #a33; }
.line { margin: .3rem 0 .3rem 1.5rem; overflow-x: auto; }
"""


def derivation_html(derivation: Derivation) -> str:
    """The steps as an HTML fragment."""
    steps = [_step_html(k, step) for k, step in enumerate(derivation.steps)]
    return f'<div class="derivation">{"".join(steps)}</div>'


def page(title: str, body: str) -> str:
    """A self-contained HTML page."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'


def derivation_markdown(derivation: Derivation) -> str:
    """The steps in Markdown with LaTeX displays."""
    return "\n\n".join(_step_markdown(k, step) for k, step in enumerate(derivation.steps)) + "\n"


def derivation_rich(derivation: Derivation) -> Any:
    """The steps for a terminal."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[Any] = []
    for k, step in enumerate(derivation.steps):
        parts.append(Text(f"{k}. {step.title}", style="bold"))
        if step.assumption:
            parts.append(Padding(Text(f"assuming {step.assumption}", style="italic dim"), (0, 0, 0, 3)))
        rows = [_line_rich(line, "") for line in step.after.lines()]
        rows += [_line_rich(line, "dropped: ") for line in step.dropped]
        parts.extend(Padding(row, (0, 0, 0, 3)) for row in rows)
    return Group(*parts)


def _line_rich(line: Line, prefix: str) -> Any:
    from rich.text import Text

    text = Text(prefix, style="red")
    text.append(line.text, style="not bold default")
    if line.comment:
        text.append(f"   {line.comment}", style="dim")
    return text


def _step_html(k: int, step: Step) -> str:
    head = f"<h3>{k}. {escape(step.title)}</h3>"
    if step.assumption:
        head += f'<div class="assuming">Assuming {escape(step.assumption)}.</div>'
    rows = "".join(_line_html(line, "line") for line in step.after.lines())
    gone = "".join(_line_html(line, "line dropped") for line in step.dropped)
    return f'<section class="step">{head}{rows}{gone}</section>'


def _line_html(line: Line, kind: str) -> str:
    comment = f' <span class="comment">{escape(line.comment)}</span>' if line.comment else ""
    prefix = "dropped: " if "dropped" in kind else ""
    return f'<div class="{kind}">{prefix}{mathml(line)}{comment}</div>'


def mathml(line: Line) -> str:
    """The formula of a line as MathML, its plain text where it has no LaTeX."""
    if not line.latex:
        return escape(line.text)
    from latex2mathml.converter import convert

    return str(convert(line.latex.replace("&", "")))


def _step_markdown(k: int, step: Step) -> str:
    rows = [f"### {k}. {step.title}"]
    if step.assumption:
        rows.append(f"*Assuming {step.assumption}.*")
    rows += [_line_markdown(line, "") for line in step.after.lines()]
    rows += [_line_markdown(line, "Dropped: ") for line in step.dropped]
    return "\n\n".join(rows)


def _line_markdown(line: Line, prefix: str) -> str:
    comment = f" ({line.comment})" if line.comment else ""
    if not line.latex:
        return f"{prefix}{line.text}{comment}"
    body = line.latex.replace("&", "")
    return f"{prefix}${body}${comment}" if prefix else f"$$\n{body}\n$$\n{comment}".rstrip()
