"""Printed formulas: in HTML (MathML, no network), Markdown, LaTeX and in a rich terminal."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quenched.theory.record import Line
    from quenched.theory.steps import Steps

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
.step { margin: 1.2rem 0; } .step h3 { margin: 0 0 .2rem; font-size: 1.05rem; }
.assuming, .source, .comment { color: #666; font-size: .9em; } .dropped { color: #a33; }
.line { margin: .3rem 0 .3rem 1.5rem; overflow-x: auto; }
"""


class Lines(tuple["Line", ...]):
    """Printed equations: a tuple of lines that renders in a terminal and in a notebook."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(line.text + (f"    ({line.comment})" if line.comment else "") for line in self)

    def _repr_html_(self) -> str:
        return "".join(_line_html(line, "line") for line in self)

    def _repr_latex_(self) -> str:
        rows = " \\\\\n".join(line.latex.replace("&", "").replace("=", "&=", 1) for line in self)
        return f"$$\\begin{{aligned}}\n{rows}\n\\end{{aligned}}$$"


@dataclass(frozen=True)
class _Block:
    """What is printed of one step."""

    title: str
    assumption: str
    lines: tuple[Line, ...]
    dropped: tuple[Line, ...] = ()


def _blocks(derivation: Steps) -> list[_Block]:
    """The declaration, the steps, and the steps that do not apply."""
    from quenched.theory.record import Line

    declared = derivation.declaration
    blocks = [_Block("Declaration", "", tuple(declared.lines()))]
    for step in derivation.steps:
        blocks.append(_Block(step.title, step.assumption, tuple(step.after.lines()), tuple(step.dropped)))
    for title, reason in derivation.refusals:
        blocks.append(_Block(f"Does not apply: {title}", "", (Line(reason, ""),)))
    return blocks


def derivation_html(derivation: Steps) -> str:
    """The steps as an HTML fragment."""
    return f'<div class="derivation">{"".join(_block_html(k, b) for k, b in enumerate(_blocks(derivation)))}</div>'


def page(title: str, body: str) -> str:
    """A self-contained HTML page."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'


def derivation_markdown(derivation: Steps) -> str:
    """The steps in Markdown with LaTeX displays."""
    return "\n\n".join(_block_markdown(k, b) for k, b in enumerate(_blocks(derivation))) + "\n"


def derivation_rich(derivation: Steps) -> Any:
    """The steps for a terminal."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for k, block in enumerate(_blocks(derivation)):
        parts.append(Text(f"{k}. {block.title}", style="bold"))
        if block.assumption:
            parts.append(Text(f"   assuming {block.assumption}", style="italic dim"))
        parts += [_line_rich(line, "   ") for line in block.lines]
        parts += [_line_rich(line, "   dropped: ") for line in block.dropped]
    return Group(*parts)


def _line_rich(line: Line, prefix: str) -> Any:
    from rich.text import Text

    text = Text(prefix, style="red")
    text.append(line.text, style="not bold default")
    if line.comment:
        text.append(f"   {line.comment}", style="dim")
    return text


def _block_html(k: int, block: _Block) -> str:
    head = f"<h3>{k}. {escape(block.title)}</h3>"
    if block.assumption:
        head += f'<div class="assuming">Assuming {escape(block.assumption)}.</div>'
    rows = "".join(_line_html(line, "line") for line in block.lines)
    gone = "".join(_line_html(line, "line dropped") for line in block.dropped)
    return f'<section class="step">{head}{rows}{gone}</section>'


def _line_html(line: Line, kind: str) -> str:
    comment = f' <span class="comment">{escape(line.comment)}</span>' if line.comment else ""
    prefix = "dropped: " if "dropped" in kind else ""
    return f'<div class="{kind}">{prefix}{mathml(line)}{comment}</div>'


def mathml(line: Line) -> str:
    """The formula of a line as MathML, its plain text where it has no LaTeX."""
    if not line.latex:
        return escape(line.text)
    from quenched.validate.mathml import mathml as convert

    return convert(line.latex.replace("&", ""), block=False)


def _block_markdown(k: int, block: _Block) -> str:
    rows = [f"### {k}. {block.title}"]
    if block.assumption:
        rows.append(f"*Assuming {block.assumption}.*")
    rows += [_line_markdown(line, "") for line in block.lines]
    rows += [_line_markdown(line, "Dropped: ") for line in block.dropped]
    return "\n\n".join(rows)


def _line_markdown(line: Line, prefix: str) -> str:
    comment = f" ({line.comment})" if line.comment else ""
    if not line.latex:
        return f"{prefix}{line.text}{comment}"
    body = line.latex.replace("&", "")
    return f"{prefix}${body}${comment}" if prefix else f"$$\n{body}\n$$\n{comment}".rstrip()
