"""Self-consistency problems → solutions with errors. Imports of the theory layer: its problem types and errors only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .path_growth import process_growth
    from .path_march import March, march_paths
    from .process_state import Sampling
    from .public import average1, average2, label_variance, labelled1, labelled2
    from .settling import solve_process
    from .solver import solve
    from .starts import declared_moments, start_dependence
    from .types import Branch, Number, RawSolution

_HOME = {
    "solve": "solver",
    "average1": "public",
    "average2": "public",
    "label_variance": "public",
    "labelled1": "public",
    "labelled2": "public",
    "critical": "continuation",
    "sweep": "continuation",
    "export": "standalone",
    "March": "path_march",
    "Sampling": "process_state",
    "march_paths": "path_march",
    "process_growth": "path_growth",
    "solve_process": "settling",
    "declared_moments": "starts",
    "start_dependence": "starts",
    "Branch": "types",
    "Number": "types",
    "RawSolution": "types",
}

__all__ = [
    "Branch",
    "March",
    "Number",
    "RawSolution",
    "Sampling",
    "average1",
    "average2",
    "critical",
    "declared_moments",
    "export",
    "label_variance",
    "labelled1",
    "labelled2",
    "march_paths",
    "process_growth",
    "solve",
    "solve_process",
    "start_dependence",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Names load with their module at first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
