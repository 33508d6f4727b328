"""Nodes of the labels of one unit, few where the dependence is periodic."""

from __future__ import annotations

from itertools import product

import numpy as np
from sympy import Symbol, sympify

from quenched.theory.problem import Label
from quenched.theory.problem_causal import CausalUnit

from .labels import label_nodes
from .types import Array


def label_grid(unit: CausalUnit, values: dict[Symbol, float], nodes: int) -> tuple[list[tuple[float, ...]], Array]:
    """Label values and their probabilities: the trapezoidal rule for phases, panels or atoms for the others."""
    if not unit.labels:
        return [()], np.ones(1)
    rules = [_rule(unit, label, values, nodes) for label in unit.labels]
    chosen = [tuple(float(u) for u, _ in combination) for combination in product(*rules)]
    return chosen, np.array([np.prod([w for _, w in combination]) for combination in product(*rules)])


def _rule(unit: CausalUnit, label: Label, values: dict[Symbol, float], nodes: int) -> list[tuple[float, float]]:
    if type(label.law).__name__ == "Uniform" and _periodic(unit, label):
        low, high = (float(sympify(a).xreplace(values)) for a in label.law.args)  # type: ignore[attr-defined]
        # Half a step aside, so that no node lies at a symmetric point.
        return [(low + (high - low) * (k + 0.25) / nodes, 1 / nodes) for k in range(nodes)]
    points, weights = label_nodes((label,), values)
    return [(p[0], float(w)) for p, w in zip(points, weights, strict=True)]


def _periodic(unit: CausalUnit, label: Label) -> bool:
    """Whether the equations of a unit do not notice when the label moves by the length of its support."""
    low, high = label.law.args  # type: ignore[attr-defined]
    blocks = (unit.drift, unit.feed, unit.noise, (unit.drive,), unit.start)
    exprs = [sympify(e) for block in blocks for row in block for e in row]
    if any(e.has(label.symbol) for block in (unit.start,) for row in block for e in row):
        return False
    moved = {label.symbol: label.symbol + high - low}
    return all((e.xreplace(moved) - e).expand() == 0 for e in exprs if e.has(label.symbol))
