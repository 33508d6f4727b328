"""Nodes over the quenched numbers in a Dyson equation: fine enough for averages as sharp as those of resolvents."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import (
    Abs,
    DiracDelta,
    Expr,
    Float,
    Heaviside,
    Max,
    Min,
    Poly,
    S,
    Symbol,
    default_sort_key,
    im,
    lambdify,
    sign,
)
from sympy.core.relational import Relational

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.problem import Label
from quenched.theory.problem_dyson import ZBAR, DysonProblem, Z

from .labels import label_nodes
from .types import Array

Complex = NDArray[np.complex128]

#: How often the label quadrature is refined at most.
REFINEMENTS = 5
#: Nodes over one period of a periodic label, where equal weights converge exponentially.
PERIODIC = 1024


class SpaceNodes:
    """Nodes over the labels of one population.

    Parameters
    ----------
    problem : DysonProblem
    index : int
        The population among those of the problem.
    values : dict of Symbol to float
    coarse : bool
        Take other, fewer nodes: what hangs on the nodes themselves comes out differently.

    Attributes
    ----------
    nodes : (nodes, labels)
    weights : (nodes,)
    """

    def __init__(self, problem: DysonProblem, index: int, values: dict[Symbol, float], coarse: bool = False) -> None:
        self.problem, self.index, self.coarse = problem, index, coarse
        self.space = problem.spaces[index]
        self.values = values
        self.nodes: Array = np.zeros((0, len(self.space.labels)))
        self.weights: Array = self._quadrature()

    def at(self, expr: Expr) -> Complex:
        """Values of a label function at the nodes, (nodes,)."""
        found = self._at(expr, self.nodes)
        if not np.all(np.isfinite(found)):
            raise QuenchedError(f"{expr} is not finite for all labels of {self.space.name!r}")
        return found

    def _at(self, expr: Expr, nodes: Array) -> Complex:
        if expr.has(DiracDelta):
            raise NotCovered(f"the slope {expr} of what jumps has no spectrum: expected a function without jumps there")
        function = lambdify([x.symbol for x in self.space.labels], expr.xreplace(_numbers(self.values)), "numpy")
        return np.broadcast_to(function(*nodes.T), len(nodes)).astype(complex)

    def _quadrature(self) -> Array:
        """Choose the nodes: finer ones where second moments of the label functions ask for them."""
        labels, breaks = self.space.labels, self._breaks()
        if len(labels) == 1 and not breaks and self._periodic():
            law: Any = labels[0].law
            low, high = (float(e.subs(self.values)) for e in (law.support().inf, law.support().sup))
            count = PERIODIC * 3 // 4 if self.coarse else PERIODIC
            self.nodes = (low + (high - low) * (np.arange(count) + 0.5) / count)[:, None]
            return self._merge(np.full(count, 1 / count))
        found: tuple[Array, Array, Array] | None = None
        limit = np.array([1e-8] + [1e-5] * 5)
        first = 7 if self.coarse else 8  # panels
        for refinement in range(REFINEMENTS if len(labels) == 1 else 1):
            cuts = breaks
            if refinement or (self.coarse and len(labels) == 1):
                cuts = _cuts(labels[0], self.values, breaks, first * 2**refinement)
            nodes, weights = label_nodes(labels, self.values, cuts)
            self.nodes = np.array(nodes, float).reshape(len(weights), -1)
            moments = np.array([_probe(weights, self.at(e)) for e in self._functions])
            if found is not None and np.all(np.abs(moments - found[2]) < limit * (1 + np.abs(moments))):
                break  # the coarser nodes are fine enough
            found = self.nodes, weights, moments
        assert found is not None
        self.nodes = found[0]
        return self._merge(found[1])

    def _merge(self, weights: Array) -> Array:
        """Merge nodes at which all label functions are equal."""
        table = np.array([self.at(e) for e in self._functions]).reshape(len(self._functions), -1)
        first, weights = merged(table, weights)
        self.nodes = self.nodes[first]
        return weights

    def _periodic(self) -> bool:
        """Whether the label is uniform over one period of all label functions."""
        law: Any = self.space.labels[0].law
        if type(law).__name__ != "Uniform":
            return False
        support = law.support()
        length = float((support.sup - support.inf).subs(self.values))
        points = np.array([[0.123], [1.87], [4.2]])
        self.nodes = np.concatenate([points, points + length])
        try:
            values = [self.at(e) for e in self._functions]
        except QuenchedError:  # not finite outside the support
            return False
        return all(np.allclose(v[:3], v[3:], rtol=0, atol=1e-10 * (1 + np.abs(v).max())) for v in values)

    def _breaks(self) -> dict[Symbol, list[float]]:
        """Label values at which a label function jumps or has a kink."""
        exprs = [e.xreplace(_numbers(self.values)) for e in self._functions]
        return breaks_of(exprs, [x.symbol for x in self.space.labels])

    @cached_property
    def _equation(self) -> list[Expr]:
        """Expressions in the labels that enter the equation."""
        p, index = self.problem, self.index
        found = [v.xreplace({Z: S.One, ZBAR: S.One}) for i, _, v in p.bare if p.blocks[i] == index]
        found += [u.weight for u in p.unknowns if u.space == index]
        return found + [f.coefficient for f in p.feedback if p.blocks[f.row] == index]

    @cached_property
    def _functions(self) -> list[Expr]:
        """The same, and those of the finite-rank parts."""
        p, index = self.problem, self.index
        found = self._equation + [r.left for r in p.ranks if p.blocks[r.row] == index]
        return found + [r.right for r in p.ranks if p.blocks[r.col] == index]

    @property
    def continuous(self) -> bool:
        """Whether some label takes values in an interval."""
        laws: list[Any] = [x.law for x in self.space.labels]
        masses = [sum(float(w.subs(self.values)) for _, w in law.weights()) for law in laws]
        return bool(np.any(np.array(masses) < 1 - 1e-12))

    @property
    def unbounded(self) -> Label | None:
        """A label that enters the equation without bound, or None."""
        for k, x in enumerate(self.space.labels):
            law: Any = x.law
            mean, spread = float(law.mean_().subs(self.values)), float(law.variance_().subs(self.values)) ** 0.5
            far = [s for s, end in ((-1, law.support().inf), (1, law.support().sup)) if not end.is_finite]
            for expr in self._equation if far and np.isfinite(spread) else []:
                points = np.repeat(self.nodes[:1], 2 * len(far), axis=0)
                points[:, k] = mean + spread * np.outer(far, [9.0, 36.0]).ravel()
                near, beyond = np.abs(self._at(expr, points)).reshape(-1, 2).T
                if np.any(beyond > 1.5 * near + 1e-6):
                    return x
        return None


def merged(table: Complex, weights: Array) -> tuple[NDArray[Any], Array]:
    """One node for all at which every function has the same value, (functions, nodes): which, and their weights."""
    if not len(table):
        return np.zeros(1, np.int64), weights.sum(keepdims=True)
    scale = np.abs(table).max(axis=1, keepdims=True) + 1e-300
    rounded = np.round(table / scale, 13) + 0.0
    _, first, which = np.unique(rounded, axis=1, return_index=True, return_inverse=True)
    return first, np.asarray(np.bincount(which.ravel(), weights, len(first)), float)


def breaks_of(exprs: list[Expr], labels: list[Symbol]) -> dict[Symbol, list[float]]:
    """Where arguments of steps, signs, moduli, maxima and conditions change sign, for each label.

    Raises
    ------
    NotCovered
        For an argument that mixes labels or is no polynomial.
    """
    arguments: set[Expr] = set()
    for expr in exprs:
        for node in expr.atoms(Heaviside, sign, Abs):
            arguments.add(node.args[0])
        for node in expr.atoms(Max, Min):
            arguments |= {a - b for a in node.args for b in node.args if a != b}
        for node in expr.atoms(Relational):
            arguments.add(node.lhs - node.rhs)
    found: dict[Symbol, list[float]] = {}
    for argument in sorted(arguments, key=default_sort_key):
        inside = argument.free_symbols & set(labels)
        if not inside:
            continue
        if len(inside) > 1 or not argument.is_polynomial(*inside):
            raise NotCovered(
                f"a label function with a jump at {argument} = 0: give the jump as a polynomial of one label"
            )
        label = inside.pop()
        found.setdefault(label, []).extend(float(r) for r in Poly(argument, label).nroots() if abs(im(r)) < 1e-12)
    return found


def _cuts(
    label: Label, values: dict[Symbol, float], breaks: dict[Symbol, list[float]], panels: int
) -> dict[Symbol, list[float]]:
    """Panel ends over the bulk of a label's law, with the given breaks."""
    law: Any = label.law
    mean, variance = (float(e.subs(values)) for e in (law.mean_(), law.variance_()))
    if law.weights() or not variance > 0:
        return breaks
    support = law.support()
    ends = [float(e.subs(values)) if e.is_finite else np.nan for e in (support.inf, support.sup)]
    low, high = (e if np.isfinite(e) else mean + s * 8 * np.sqrt(variance) for e, s in zip(ends, (-1, 1), strict=True))
    return {label.symbol: [*breaks.get(label.symbol, []), *np.linspace(low, high, panels + 1).tolist()]}


def _probe(weights: Array, f: Complex) -> list[float]:
    """⟨|f|²⟩, and averages as sharp as those of resolvents, in four directions."""
    mean = float(weights @ np.abs(f) ** 2)
    if not mean > 0:
        return [0.0] * 6
    points = [0.0, *(1.2 * np.sqrt(mean) * np.array([1, 1j, -1, -1j]))]
    return [mean, *(float(weights @ (mean / (np.abs(f - p) ** 2 + 0.1 * mean))) for p in points)]


def _numbers(values: dict[Symbol, float]) -> dict[Any, Any]:
    return {s: Float(v) for s, v in values.items()}
