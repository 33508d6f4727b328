"""One sampled matrix as plain data: draw it, take its eigenvalues, measure. Runs in worker processes; no sympy.

A matrix expression is a sum of coefficient × word; a word is a product of factors. A new kind of factor is one entry of
`MULTIPLY`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from types import CodeType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from quenched.theory.errors import QuenchedError
from quenched.validate.quantiles import quantile_points
from quenched.validate.sampling import Law, MatrixSpec, sample_law, sample_matrices, stream

Array = NDArray[Any]

#: Matrices of at least this size, of which only extreme real eigenvalues are asked for, go to ARPACK.
ITERATIVE = 500


@dataclass(frozen=True)
class Factor:
    """One factor of a word: its kind, a matrix's name, sources of unit vectors, or what is inverted."""

    kind: str
    name: str = ""
    vectors: tuple[str, ...] = ()
    inner: Expression | None = None


@dataclass(frozen=True)
class Expression:
    """A sum of words, rows × cols."""

    rows: int
    cols: int
    terms: tuple[tuple[complex, tuple[Factor, ...]], ...]


@dataclass(frozen=True)
class Labels:
    """Quenched numbers of a population, drawn or placed at the quantiles of their law."""

    identifier: str
    name: str
    size: int
    law: Law
    placed: bool


@dataclass(frozen=True)
class Measure:
    """A functional of eigenvalues with numbers: ``disc 0.5 0``, ``moment 3``, …"""

    kind: str
    numbers: tuple[complex, ...]


@dataclass(frozen=True)
class EigenvalueExperiment:
    """Everything that one sampled matrix depends on.

    Attributes
    ----------
    sizes : rows of every block row
    blocks : (row, column, expression)
    matrices, labels : what is drawn
    hermitian : whether the eigenvalues are real
    measures : functionals
    formulas : (name, source in o[0], o[1], … the measures)
    """

    seed: int
    N: int
    sizes: tuple[int, ...]
    blocks: tuple[tuple[int, int, Expression], ...]
    matrices: tuple[MatrixSpec, ...]
    labels: tuple[Labels, ...]
    hermitian: bool
    measures: tuple[Measure, ...]
    formulas: tuple[tuple[str, str], ...]
    realisation: int = 0

    def number(self, realisation: int) -> Self:
        """The same experiment for another realisation."""
        return replace(self, realisation=realisation)

    def memory(self) -> float:
        """Bytes of the drawn matrices and of the eigenvalue routine."""
        return 24.0 * sum(m.rows * m.cols for m in self.matrices) + 40.0 * sum(self.sizes) ** 2

    def work(self) -> float:
        """Rough number of elementary operations."""
        side = sum(self.sizes)
        return (4 if self.hermitian else 25) * side**3 + 10 * sum(m.rows * m.cols for m in self.matrices)

    def realise(self) -> dict[str, NDArray[np.float64]]:
        """Observables of this realisation, each (1,), and ``elapsed`` in seconds."""
        begin = time.perf_counter()
        values = self.eigenvalues()
        o = [MEASURE[m.kind](values, *m.numbers) for m in self.measures]
        found = {name: np.array([float(evaluate(code, {"o": o}))]) for name, code in self.formulas}
        return {**found, "elapsed": np.array([time.perf_counter() - begin])}

    def eigenvalues(self) -> Array:
        """Eigenvalues of the drawn matrix, all of them or as many extreme ones as are asked for."""
        matrix = self.matrix()
        if not self.hermitian:
            return np.linalg.eigvals(matrix).astype(complex)
        if len(matrix) >= ITERATIVE and all(m.kind in ("edge", "outlier") for m in self.measures):
            return _extreme(matrix, max(self._depth(), 2))
        return np.linalg.eigvalsh(matrix)

    def _depth(self) -> int:
        """Number of extreme eigenvalues that are asked for at either end; all where a bound picks inner ones."""
        if any(m.kind == "edge" and np.isfinite(m.numbers[1:3]).any() for m in self.measures):
            return sum(self.sizes)
        return max(int(m.numbers[1].real) if m.kind == "outlier" else 1 for m in self.measures)

    def matrix(self) -> Array:
        """The drawn matrix, (n, n)."""
        drawn = sample_matrices(self.matrices, lambda name: self._stream(f"matrix:{name}"))
        labels = {x.identifier: self._labels(x) for x in self.labels}
        made = Made(drawn, labels)
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        kinds = [made.matrix(block) for _, _, block in self.blocks]
        out = np.zeros((edges[-1], edges[-1]), np.result_type(float, *kinds))
        for (i, j, _), part in zip(self.blocks, kinds, strict=True):
            out[edges[i] : edges[i + 1], edges[j] : edges[j + 1]] = part
        return out

    def _stream(self, name: str) -> np.random.Generator:
        return stream(self.seed, self.N, self.realisation, name)

    def _labels(self, x: Labels) -> Array:
        rng = self._stream(f"quenched:{x.name}")
        if not x.placed:
            return sample_law(rng, (x.size,), x.law)
        points = quantile_points(x.law, x.size)
        rng.shuffle(points)
        return points


@dataclass(frozen=True)
class Made:
    """Drawn matrices and labels by name; expressions as arrays."""

    matrices: dict[str, Array]
    labels: dict[str, Array]

    def matrix(self, expr: Expression) -> Array:
        """A sum of words."""
        parts = [c * self.word(word, expr.rows) for c, word in expr.terms]
        total = sum(parts[1:], parts[0]) if parts else np.zeros((expr.rows, expr.cols))
        return np.asarray(total.real if not np.iscomplexobj(total) or not total.imag.any() else total)

    def word(self, word: tuple[Factor, ...], size: int) -> Array:
        """A product of factors, from the left; diagonal factors scale rows or columns."""
        left: Array | None = None
        scale: Array | float = 1.0  # of the next factor's rows
        for factor in word:
            if factor.kind == "diag":
                vector = self.vector(factor.vectors[0])
                left, scale = (left * vector, scale) if left is not None else (None, scale * vector)
            else:
                left = MULTIPLY[factor.kind](self, left, factor)
                if isinstance(scale, np.ndarray) or scale != 1.0:
                    left, scale = np.reshape(scale, (-1, 1)) * left, 1.0
        if left is None:
            return np.diag(np.broadcast_to(np.asarray(scale), (size,)))
        return left

    def vector(self, code: str) -> Array:
        """A unit quantity."""
        return np.asarray(evaluate(code, self.labels))


def _times(left: Array | None, right: Array) -> Array:
    return right if left is None else left @ right


def _outer(made: Made, left: Array | None, factor: Factor) -> Array:
    rows, cols = (made.vector(code) for code in factor.vectors[:2])
    size, width = (int(code) for code in factor.vectors[2:])
    rows, cols = np.broadcast_to(rows, (size,)), np.broadcast_to(cols, (width,))
    return np.outer(rows if left is None else left @ rows, cols)


def _inverse(made: Made, left: Array | None, factor: Factor) -> Array:
    assert factor.inner is not None
    matrix = made.matrix(factor.inner)
    return np.linalg.inv(matrix) if left is None else np.linalg.solve(matrix.T, left.T).T


#: Kind of a factor → its product with what stands to its left (None: nothing).
MULTIPLY: dict[str, Callable[[Made, Array | None, Factor], Array]] = {
    "matrix": lambda made, left, f: _times(left, made.matrices[f.name]),
    "transpose": lambda made, left, f: _times(left, made.matrices[f.name].T),
    "outer": _outer,
    "inverse": _inverse,
}


@lru_cache(maxsize=512)
def _compiled(code: str) -> CodeType:
    return compile(code, "<observable>", "eval")


def evaluate(code: str, names: dict[str, Any]) -> Any:
    """The value of a formula."""
    return eval(_compiled(code), {"np": np, "special": special, "__builtins__": {}}, names)


def _extreme(matrix: Array, count: int) -> Array:
    """The `count` smallest and largest eigenvalues of a symmetric matrix, ascending."""
    from scipy.sparse.linalg import eigsh

    if 2 * count > len(matrix) // 8:
        return np.linalg.eigvalsh(matrix)
    start = np.ones(len(matrix))
    ends = [eigsh(matrix, count, which=w, v0=start, return_eigenvectors=False) for w in ("SA", "LA")]
    return np.sort(np.concatenate(ends))


# ---------------------------------------------------------------- functionals


def _disc(values: Array, radius: complex, centre: complex) -> float:
    return float(np.mean(np.abs(values - centre) < radius.real))


def _window(values: Array, low: complex, high: complex) -> float:
    return float(np.mean((values.real > low.real) & (values.real < high.real)))


def _box(values: Array, a: complex, b: complex, c: complex, d: complex) -> float:
    x, y = values.real, values.imag
    return float(np.mean((x > a.real) & (x < b.real) & (y > c.real) & (y < d.real)))


def _density(values: Array, at: complex, width: complex, size: complex) -> float:
    return _disc(values, width, at) / size.real


def _edge(values: Array, unit: complex, above: complex, below: complex, share: complex, power: complex) -> float:
    """Coordinate in one direction of the eigenvalue of rank share·n^power from there, of those between two bounds."""
    u = values.real if not unit.imag else values.imag
    sign = unit.real + unit.imag
    chosen = u[(u > above.real) & (u < below.real)]
    if not len(chosen):
        raise QuenchedError(f"a sample has no eigenvalue between {above.real:g} and {below.real:g}")
    return float(sign * _ranked(sign * chosen, share.real * len(values) ** power.real))


def _radius(values: Array, centre: complex, inner: complex, share: complex, power: complex) -> float:
    """Distance from a centre of the eigenvalue of rank share·n^power from the rim."""
    sign = -1.0 if inner else 1.0
    return sign * _ranked(sign * np.abs(values - centre), share.real * len(values) ** power.real)


def _ranked(values: Array, rank: float) -> float:
    """The value of a rank counted from the largest (1), interpolated between ranks."""
    rank = min(max(rank, 1.0), float(len(values)))
    descending = np.sort(values)[::-1]
    return float(np.interp(rank - 1, np.arange(len(values)), descending))


def _outlier(values: Array, sign: complex, rank: complex) -> float:
    return float(sign.real * np.sort(sign.real * values.real)[-int(rank.real)])


def _moment(values: Array, order: complex) -> float:
    return float(np.mean(values ** int(order.real)).real)


MEASURE: dict[str, Callable[..., float]] = {
    "disc": _disc,
    "window": _window,
    "box": _box,
    "density": _density,
    "edge": _edge,
    "radius": _radius,
    "outlier": _outlier,
    "moment": _moment,
}
