"""A model printed back with explicit indices."""

from __future__ import annotations

from typing import Any


def entry_law(matrix: Any) -> str:
    """The law of the entries, as text."""
    return f"{type(matrix).__name__}({matrix.name})"


def entry_law_latex(matrix: Any) -> str:
    """The law of the entries, as LaTeX."""
    return matrix.name


def indexed(model: Any) -> list[str]:
    """Lines of text."""
    return [f"{x}: {rhs}" for x, rhs in model.eqs.items()]


def indexed_latex(model: Any) -> str:
    """LaTeX."""
    return ""
