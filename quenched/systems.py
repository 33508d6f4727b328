"""The systems by name: catalogue entries and model files."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from quenched.theory.errors import QuenchedError, nearest

_FOLDER = Path(import_module("quenched.validate").__file__ or "").parent / "catalogue"


class Catalogue(Mapping[str, Callable[..., Any]]):
    """The declarations that come with the project, by name; each is a function of its options.

    Examples
    --------
    >>> from quenched import catalogue
    >>> "scs" in catalogue
    True
    """

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self._names():
            raise QuenchedError(f"no system {name!r} in the catalogue: {nearest(name, self._names())}")
        module = import_module(f"quenched.validate.catalogue.{name.replace('-', '_')}")
        entry: Callable[..., Any] = getattr(module, name.replace("-", "_"))
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __repr__(self) -> str:
        return "catalogue: " + ", ".join(self)

    def _names(self) -> list[str]:
        files = _FOLDER.glob("[!_]*.py")
        return sorted(file.stem.replace("_", "-") for file in files)

    def summary(self, name: str) -> str:
        """First line of the entry's docstring, read without importing anything."""
        tree = ast.parse((_FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        entry = next(node for node in functions if node.name == name.replace("-", "_"))
        return (ast.get_docstring(entry) or "").splitlines()[0]


catalogue = Catalogue()
