"""Quadrature over the quenched numbers that stay inside the averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal
from sympy import DiracDelta, Expr, Interval, Symbol, degree, diff, lambdify, sympify

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.problem import Label

from .quadrature import legendre, trapezoid
from .types import Array

_SPREAD = 9.0
_NODES = 12


def label_nodes(
    labels: tuple[Label, ...],
    values: dict[Symbol, float],
    breaks: Mapping[Symbol, Sequence[float]] | None = None,
    degrees: Mapping[Symbol, int] | None = None,
) -> tuple[list[tuple[float, ...]], Array]:
    """Nodes (one tuple of label values each) and their probabilities (nodes,), the product over independent labels.

    `breaks` gives label values at which an integrand jumps or has a kink: panels end there. `degrees` names labels in
    which functions are polynomials: normal ones get nodes that are exact for products of two.
    """
    known = degrees or {}
    rules = [
        _hermite(label, values, known[label.symbol])
        if label.symbol in known and type(label.law).__name__ == "Normal"
        else _rule(label, values, (breaks or {}).get(label.symbol, ()))
        for label in labels
    ]
    grids = np.meshgrid(*([u for u, _ in rule] for rule in rules), indexing="ij")
    shares = np.meshgrid(*([w for _, w in rule] for rule in rules), indexing="ij")
    nodes: list[tuple[float, ...]] = [()]
    if not rules:
        return nodes, np.ones(1)
    nodes = [tuple(row) for row in np.stack([g.ravel() for g in grids], axis=-1).tolist()]
    weights: Array = np.prod([w.ravel() for w in shares], axis=0)
    return nodes, weights


def polynomial_degrees(
    labels: Sequence[Label], functions: Sequence[Expr], elsewhere: Sequence[Expr]
) -> dict[Symbol, int]:
    """Highest power of labels in functions that are polynomials in them, of those that nothing `elsewhere` reads."""
    read: set[Symbol] = set().union(*(sympify(e).free_symbols for e in elsewhere))
    free = [label.symbol for label in labels if label.symbol not in read]
    return {s: max(int(degree(f, s)) for f in functions) for s in free if all(f.is_polynomial(s) for f in functions)}


def condensed(x: Array, weights: Array, carried: Array, count: int) -> tuple[Array, Array, Array]:
    """Gauss rule of a discrete law: nodes (count,), probabilities (count,), and conditional means of other numbers.

    The orthonormal polynomials of the law (Lanczos, orthogonalised twice) give its Gauss nodes; what is `carried`
    (points, numbers) is projected on them, so that sums of carried numbers times a smooth function of x are kept.
    """
    keep = weights > 0
    x, weights, carried = x[keep], weights[keep], carried[keep]
    basis = np.zeros((count, len(x)))
    basis[0] = np.sqrt(weights / weights.sum())
    diagonal, beside = np.zeros(count), np.zeros(count - 1)
    for k in range(count):
        image = x * basis[k]
        diagonal[k] = image @ basis[k]
        if k + 1 < count:
            for _ in range(2):
                image = image - (basis[: k + 1] @ image) @ basis[: k + 1]
            beside[k] = np.linalg.norm(image)
            basis[k + 1] = image / beside[k]
    nodes, vectors = eigh_tridiagonal(diagonal, beside)
    # The polynomials at a node are its eigenvector over the first component, of whose square the weight is made.
    moments = basis @ (carried * np.sqrt(weights / weights.sum())[:, None])
    share = vectors[0] ** 2
    seen = share > 1e-30
    means = (vectors.T @ moments)[seen] / vectors[0][seen, None]
    return nodes[seen], share[seen] * weights.sum(), means


def _hermite(label: Label, values: dict[Symbol, float], power: int) -> list[tuple[float, float]]:
    """Gauss–Hermite nodes that are exact for polynomials of twice the degree."""
    law: Any = label.law
    mean, variance = (float(sympify(e).subs(values)) for e in (law.mean_(), law.variance_()))
    z, w = np.polynomial.hermite_e.hermegauss(power + 1)
    return [(float(mean + np.sqrt(variance) * x), float(y)) for x, y in zip(z, w / w.sum(), strict=True)]


def _rule(label: Label, values: dict[Symbol, float], breaks: Sequence[float] = ()) -> list[tuple[float, float]]:
    law = label.law
    number = {s: values[s] for s in getattr(law, "free_symbols", set()) if s in values}

    def real(e: object) -> float:
        return float(sympify(e).subs(number))

    atoms = [(real(a), real(p)) for a, p in law.weights()]  # type: ignore[attr-defined]
    mass = sum(p for _, p in atoms)
    if mass > 1 - 1e-12:
        return atoms
    if type(law).__name__ == "Normal" and not breaks:
        z, w = trapezoid(97, 8.4)  # 49 nodes leave 1e-3 where a wide label meets a narrow function
        mean, sd = real(law.mean_()), np.sqrt(real(law.variance_()))  # type: ignore[attr-defined]
        return [(float(mean + sd * x), float(y)) for x, y in zip(z, w / w.sum(), strict=True)]
    u = Symbol("u", real=True)
    smooth = law.density(u).subs(number).replace(lambda e: isinstance(e, DiracDelta), lambda e: sympify(0))  # type: ignore[attr-defined]
    edges = _edges(law, real)
    edges = np.unique([*edges, *(b for b in breaks if edges[0] < b < edges[-1])])
    rule = _panels(lambdify(u, smooth, "numpy"), edges)
    total = sum(w for _, w in rule) + mass
    if not abs(total - 1) < 1e-9:
        raise QuenchedError(f"the law of {label.symbol} has total probability {total:.9g} on its support, expected 1")
    return atoms + rule


def _edges(law: object, real: object) -> Array:
    """Panel edges: the support, cut where a law that falls off like a Gaussian or an exponential has no weight."""
    support = law.support()  # type: ignore[attr-defined]
    if not isinstance(support, Interval):
        intervals = [s for s in getattr(support, "args", ()) if isinstance(s, Interval)]
        if len(intervals) != 1:
            raise NotCovered(f"no quadrature over a label with support {support}; use an interval or atoms")
        support = intervals[0]
    mean, sd = real(law.mean_()), np.sqrt(real(law.variance_()))  # type: ignore[attr-defined, operator]
    low = real(support.start) if support.start.is_finite else mean - 4 * _SPREAD * sd  # type: ignore[operator]
    high = real(support.end) if support.end.is_finite else mean + 4 * _SPREAD * sd  # type: ignore[operator]
    inner = mean + sd * np.array([-18.0, -9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0, 18.0])
    finite = support.start.is_finite and support.end.is_finite
    cuts = [low, high, 0.0] if finite else [low, high, 0.0, *inner]
    return np.unique([c for c in cuts if low <= c <= high])


def _panels(density: object, edges: Array) -> list[tuple[float, float]]:
    x, w = legendre(_NODES)
    found = []
    for a, b in pairwise(edges):
        u = (a + b) / 2 + (b - a) / 2 * x
        mass = np.broadcast_to(density(u), u.shape) * w * (b - a) / 2  # type: ignore[operator]
        found += [(float(p), float(q)) for p, q in zip(u, mass, strict=True) if q > 1e-16]
    return found


def once_linear(functions: Sequence[Expr], labels: Sequence[Symbol]) -> bool:
    """Whether a product of functions is of first degree in all labels together."""
    reading = [f for f in functions if f.free_symbols & {*labels}]
    if len(reading) > 1:
        return False
    slopes = [diff(f, s) for f in reading for s in labels]
    return not any(slope.free_symbols & {*labels} for slope in slopes)


def grouped(key: Array, weights: Array) -> list[tuple[int, float]]:
    """First node and total weight of every group of equal rows."""
    if not key.shape[1]:
        return [(0, float(weights.sum()))]
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    total = np.bincount(group.ravel(), weights=weights)
    return [(int(first[i]), float(total[i])) for i in np.argsort(first)]
