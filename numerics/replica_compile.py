"""Functions of the symbols of a replica problem, compiled once a process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sympy import Expr, Symbol, lambdify

from quenched.theory.problem_replicas import SiteAverage, TreeAverage


@lru_cache(maxsize=4096)
def compiled(names: tuple[Symbol, ...], expr: Any, module: str) -> Any:
    """A function of the named symbols, compiled once a process."""
    return lambdify(names, expr, module)


@lru_cache(maxsize=4096)
def apart(expr: Expr) -> tuple[list[Any], list[Symbol], Expr]:
    """Site averages of an expression, symbols in their place, and the expression in these."""
    nodes = sorted(expr.atoms(SiteAverage, TreeAverage), key=lambda n: (str(n), n.sort_key()))
    slots = [Symbol(f"_a{k}") for k in range(len(nodes))]
    return nodes, slots, expr.xreplace(dict(zip(nodes, slots, strict=True)))


@lru_cache(maxsize=512)
def slopes_of(entries: tuple[Expr, ...], unknowns: tuple[Symbol, ...]) -> tuple[list[tuple[int, int]], Any]:
    """Places and expressions of the derivatives of some expressions that are not zero."""
    found = [(k, j, e.diff(u)) for k, e in enumerate(entries) for j, u in enumerate(unknowns) if e.has(u)]
    kept = [(k, j, d) for k, j, d in found if d != 0]
    return [(k, j) for k, j, _ in kept], tuple(d for _, _, d in kept)
