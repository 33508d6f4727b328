"""Walking through declarations: parameters, substitution and content keys.

sympy's own `free_symbols`, `xreplace` and `srepr` stop at symbols, but the symbols of this language have insides:
populations with parameters, laws, initial states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from sympy import Add, Basic, Expr, I, Mul, Symbol

from quenched.theory.couplings import RandomMatrix
from quenched.theory.fields import At, UnitSymbol
from quenched.theory.spaces import NOTHING, RESERVED, Population


def parts(node: Basic) -> tuple[Basic, ...]:
    """Everything directly inside a node, the insides of unit symbols included."""
    if isinstance(node, UnitSymbol):
        return (node.population, *node._details)
    start = getattr(node, "initial", None)  # of a dynamic coupling
    return node.args if start is None else (*node.args, start)


def walk(node: Basic) -> Iterator[Basic]:
    """The node and everything inside it, depth first in a reproducible order."""
    yield node
    for part in parts(node):
        yield from walk(part)


def parameters_of(*nodes: Basic) -> set[Symbol]:
    """Free parameters of expressions, laws and populations (not `N`, times and unit quantities)."""
    found: set[Symbol] = set()
    for node in nodes:
        for part in walk(node):
            if isinstance(part, Symbol) and not isinstance(part, UnitSymbol) and part not in RESERVED.values():
                found.add(part)
    return found


def imaginary(node: Basic) -> bool:
    """Whether i occurs in an expression; matrices have real entries, whatever their eigenvalues are."""
    return node is I or (not isinstance(node, RandomMatrix) and any(imaginary(arg) for arg in node.args))


def substitute(node: Any, values: Mapping[Basic, Any], memo: dict[Basic, Basic] | None = None) -> Any:
    """Replace parameters everywhere, also inside populations, laws and initial states."""
    memo = {} if memo is None else memo
    if not isinstance(node, Basic):
        return node
    if node in values:
        return values[node]
    if node in memo:
        return memo[node]
    inside = tuple(substitute(part, values, memo) for part in parts(node))
    if inside == parts(node):
        out: Basic = node
    elif isinstance(node, UnitSymbol):
        out = node._with(population=inside[0], details=inside[1:])
    else:
        out = node.func(*inside)
    memo[node] = out
    return out


def canonical(node: Basic) -> str:
    """A text that is equal for equal nodes, in every process (no hash order, no memory addresses)."""
    if isinstance(node, UnitSymbol):
        flags = f"{node.name!r},{node.copy},{int(node.bound)}"
        inside = ",".join(canonical(part) for part in parts(node))
        return f"{type(node).__name__}({flags};{inside})"
    if isinstance(node, Symbol):
        known = ",".join(f"{k}={int(v)}" for k, v in sorted(node.assumptions0.items()) if v is not None)
        return f"Symbol({node.name!r};{known})"
    if not node.args:
        return f"{node.func.__name__}({node})" if node != NOTHING else "()"
    inside_texts = [canonical(arg) for arg in parts(node)]
    if isinstance(node, (Add, Mul)):
        inside_texts.sort()
    return f"{node.func.__name__}({','.join(inside_texts)})"


def content_key(*texts: str) -> str:
    """sha256 of texts, as 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def matrices_of(*nodes: Basic) -> list[RandomMatrix]:
    """Random matrices in order of first appearance, correlated partners included."""
    return _unique(part for node in nodes for part in walk(node) if isinstance(part, RandomMatrix))


def populations_of(*nodes: Basic) -> list[Population]:
    """Populations in order of first appearance."""
    return _unique(part for node in nodes for part in walk(node) if isinstance(part, Population))


def unit_symbols_of(kind: type[UnitSymbol], *nodes: Basic) -> list[Any]:
    """Fields, quenched quantities or noises in order of first appearance, as free (unbound) symbols."""
    return _unique(part.free() for node in nodes for part in walk(node) if isinstance(part, kind))


def delayed(*nodes: Expr) -> list[At]:
    """Fields at other times, in order of first appearance."""
    return _unique(part for node in nodes for part in walk(node) if isinstance(part, At))


def _unique(items: Iterator[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
