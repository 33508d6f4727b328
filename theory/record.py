"""The record of a derivation: forms, rules and steps.

A *form* is one state of the theory (an action, a list of terms, an effective process…). A *rule* is a frozen object
that computes the next form from the one before; a *step* is a rule applied to a form. The text of a step is printed
from the forms themselves, so that text and result cannot disagree.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar


@dataclass(frozen=True)
class Line:
    """One printed line in both notations. `comment` follows the formula in words."""

    text: str
    latex: str
    comment: str = ""


class Form:
    """One state of a derivation. Subclasses are frozen dataclasses."""

    #: Short name of the form, for headings.
    name: ClassVar[str] = "form"

    def lines(self) -> list[Line]:
        """What a reader sees."""
        raise NotImplementedError

    def dropped(self) -> list[Line]:
        """What the step that made this form left out, each with its reason as the comment."""
        return []

    def mutants(self) -> Iterator[tuple[str, Form]]:
        """The form with one term dropped or one coefficient changed, each with a label: all must be caught."""
        return iter(())


@dataclass(frozen=True)
class Rule:
    """A step's law: what is done, under which assumption, and after whom."""

    title: ClassVar[str] = ""
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def __call__(self, before: Form) -> Form:
        raise NotImplementedError


@dataclass(frozen=True)
class Step:
    """A rule applied to a form. `after` is computed by the rule, never given."""

    rule: Rule
    before: Form

    @cached_property
    def after(self) -> Form:
        return self.rule(self.before)

    @property
    def title(self) -> str:
        return self.rule.title

    @property
    def assumption(self) -> str:
        return self.rule.assumption

    @property
    def source(self) -> str:
        return self.rule.source

    @property
    def dropped(self) -> list[Line]:
        return self.after.dropped()

    def text(self) -> str:
        """The step in plain text."""
        body = [f"  {line.text}" + (f"    ({line.comment})" if line.comment else "") for line in self.after.lines()]
        gone = [f"  dropped: {line.text}" + (f"    ({line.comment})" if line.comment else "") for line in self.dropped]
        head = [self.title] + ([f"  assuming: {self.assumption}"] if self.assumption else [])
        return "\n".join(head + body + gone)

    def latex(self) -> str:
        """The step in LaTeX: a sentence and an aligned display."""
        rows = [row(line) for line in self.after.lines()]
        display = "\\begin{align}\n" + " \\\\\n".join(rows) + "\n\\end{align}" if rows else ""
        gone = [f"Dropped: ${line.latex}$ ({prose(line.comment)})." for line in self.dropped]
        assumption = f" Assuming {prose(self.assumption)}." if self.assumption else ""
        head = f"\\paragraph{{{prose(self.title)}.}}" + assumption
        return "\n".join([head, display, *gone])


def row(line: Line) -> str:
    """A line of an aligned display: one alignment mark, and the comment at the end."""
    body = line.latex if "&" in line.latex else line.latex.replace("=", "&=", 1)
    return body + (f" && \\text{{{prose(line.comment)}}}" if line.comment else "")


_SIGNS = {
    "_": r"\_", "⟨": r"$\langle$", "⟩": r"$\rangle$", "′": "$'$", "→": r"$\to$", "∞": r"$\infty$", "−": "$-$",
    "·": r"$\cdot$", "²": "$^2$", "∂": r"$\partial$", "₀": "$_0$", "≤": r"$\le$", "≥": r"$\ge$",
    "†": r"$^{\dagger}$", "\u0125": r"$\hat{h}$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def prose(words: str) -> str:
    """Words of a comment as LaTeX text: Greek letters, hats, bars and signs become formulas."""
    words = re.sub("(.)\u0302", lambda m: rf"$\hat{{{m[1]}}}$", words)
    words = re.sub("(.)\u0304", lambda m: rf"$\bar{{{m[1]}}}$", words)
    return "".join(_SIGNS.get(letter) or _greek(letter) for letter in words)


def _greek(letter: str) -> str:
    name = unicodedata.name(letter, "").split()
    if name[:1] != ["GREEK"] or "LETTER" not in name:
        return letter
    return f"$\\{name[-1].lower() if name[1] == 'SMALL' else name[-1].capitalize()}$".replace("lamda", "lambda")
