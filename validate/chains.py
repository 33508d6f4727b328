"""Couplings that follow each other, with nothing but static factors between them, become one product."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sympy import Expr, Symbol

if TYPE_CHECKING:
    from quenched.validate.generate import Node


def fused(nodes: list[Node], others: Iterable[Expr], still: Callable[[Expr], bool], redrawn: set[int]) -> list[Node]:
    """The nodes with every chain of static couplings in the place of its outermost one.

    Parameters
    ----------
    nodes : intermediates in the order in which they can be computed
    others : what else reads them
    still : whether an expression never changes
    redrawn : positions of matrices that are drawn afresh
    """
    kept = {n.symbol: n for n in nodes}
    outside: set[Symbol] = set().union(*(e.free_symbols for e in others)) if others else set()
    for node in nodes:
        if not _static(node, redrawn):
            continue
        inner = next((kept[s] for s in kept if s in node.body.free_symbols and _static(kept[s], redrawn)), None)
        if inner is None or inner.symbol in outside or _readers(kept.values(), inner.symbol) != 1:
            continue
        scale, rest = node.body.as_independent(inner.symbol, as_Add=False)
        if rest == inner.symbol and still(scale):
            del kept[inner.symbol]
            scales = {len(node.word) - 1: scale} if scale != 1 else {}
            scales |= {len(node.word) + at: value for at, value in inner.scales.items()}
            kept[node.symbol] = replace(
                node, body=inner.body, population=inner.population, word=node.word + inner.word, scales=scales
            )
    return [kept[n.symbol] for n in nodes if n.symbol in kept]


def _static(node: Any, redrawn: set[int]) -> bool:
    """Whether a node is a coupling through matrices that stay, of something that moves."""
    return bool(node.word) and not node.fixed and node.bond is None and not any(k in redrawn for k, _ in node.word)


def _readers(nodes: Iterable[Node], symbol: Symbol) -> int:
    return sum(symbol in n.body.free_symbols for n in nodes)
