"""Many finite networks of finitely many layers at once: one realisation is an ensemble of them. No sympy here.

A variance over networks needs many small ones. They are drawn together in blocks that fit the cache, run side by side
as rows (network, sample) of the generated code, and reduced to one number an observable: the mean over the ensemble,
N times its sample variance, or a mean weighted by a likelihood.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.experiment import Arrays
from quenched.validate.products import Word
from quenched.validate.program import Program, load
from quenched.validate.sampling import Law, MatrixSpec, VectorSpec, sample_law, sample_matrices, stream

Array = NDArray[Any]
Reduction = Literal["mean", "variance", "weighted"]
#: Entries of all matrices of a block of networks: about what fits a processor's cache.
BLOCK = 300_000
#: A state beyond this is taken for diverged.
HUGE = 1e8


@dataclass(frozen=True)
class Overlapped:
    """Vectors, one for each sample, as they are (samples, size)."""

    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class UnitNumbers:
    """Disorder or noise of the units of a population, for every network, for every sample if `each`."""

    name: str
    size: int
    law: Law | None
    fresh: bool
    each: bool
    given: Overlapped | None = None


@dataclass(frozen=True)
class Average:
    """Mean over units of a product of recorded channels at (layer, sample)."""

    factors: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Ensemble:
    """Everything that one realisation depends on, as plain data.

    Attributes
    ----------
    program : generated array code
    networks : how many networks an ensemble has
    steps, samples : layers after the first, and samples
    averages : moments over units that the observables are made of
    reductions : observable → how its values over the ensemble become one number
    """

    program: Program
    averages: tuple[Average, ...]
    reductions: dict[str, Reduction]
    sizes: tuple[int, ...]
    parameters: tuple[float, ...]
    matrices: tuple[MatrixSpec, ...]
    vectors: tuple[UnitNumbers, ...]
    noises: tuple[UnitNumbers, ...]
    initial: tuple[Law | None, ...]
    steps: int
    samples: int
    networks: int
    seed: int
    N: int
    realisation: int = 0

    def number(self, realisation: int) -> Ensemble:
        """The same for another realisation."""
        return replace(self, realisation=realisation)

    def memory(self) -> float:
        """Bytes of one block."""
        return 24.0 * self.block() * self.entries()

    def entries(self) -> int:
        """Entries of the matrices of one network."""
        return sum(m.rows * m.cols for m in self.matrices)

    def block(self) -> int:
        """Networks that run side by side."""
        return int(min(self.networks, max(1, BLOCK // max(1, self.entries()))))

    def work(self) -> float:
        """Rough number of elementary operations of one realisation."""
        fresh = sum(m.rows * m.cols * (self.steps if m.fresh else 1) for m in self.matrices)
        return 8.0 * self.networks * (fresh + self.steps * self.samples * 40 * max(self.sizes))

    def realise(self) -> Arrays:
        """Simulate one ensemble.

        Raises
        ------
        QuenchedError
            When a state diverges.
        """
        began = time.perf_counter()
        functions = load(self.program.source)
        streams: dict[str, np.random.Generator] = {}
        values: dict[str, list[Array]] = {}
        with np.errstate(all="ignore"):
            for first in range(0, self.networks, self.block()):
                count = min(self.block(), self.networks - first)
                for name, found in Networks(self, count, streams).run(functions).items():
                    values.setdefault(name, []).append(np.broadcast_to(np.asarray(found, float), (count,)))
        joined = {name: np.concatenate(parts) for name, parts in values.items()}
        out = {name: np.array([self.reduce(how, joined, name)]) for name, how in self.reductions.items()}
        return out | {"elapsed": np.array([time.perf_counter() - began])}

    def reduce(self, how: Reduction, values: dict[str, Array], name: str) -> float:
        """One number from the values of all networks."""
        x = values[name]
        if how == "variance":
            return self.N * float(np.var(x, ddof=1))
        if how == "weighted":
            weight = values[f"{name} weight"]
            return float(np.sum(weight * x) / np.sum(weight))
        return float(np.mean(x))


class Networks:
    """A block of drawn networks: what generated functions see as ``env``; rows of states are (network, sample)."""

    def __init__(self, task: Ensemble, count: int, streams: dict[str, np.random.Generator]) -> None:
        self.task, self.count, self._streams = task, count, streams
        self.trajectories = count * task.samples
        self.parameters = task.parameters
        self._names = dict(zip(task.program.parameters, task.parameters, strict=True))
        edges = np.cumsum([0] + [task.sizes[p] for _, p in task.program.fields])
        self.slices = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        self.shape = (self.trajectories, int(edges[-1]))
        self.buffers = [np.zeros((self.trajectories, task.sizes[p]), np.float32) for p, _ in task.program.buffers]
        self.matrices = self._draw(list(task.matrices))
        self.quenched = [self._unit_numbers(v, "quenched") for v in task.vectors]

    def stream(self, name: str) -> np.random.Generator:
        """The generator of a named random object, one for all blocks of a realisation."""
        if name not in self._streams:
            self._streams[name] = stream(self.task.seed, self.task.N, self.task.realisation, name)
        return self._streams[name]

    # -- drawing
    def _draw(self, specs: list[MatrixSpec]) -> list[Array]:
        return [self._plain(s) if _is_plain(s) else self._other(s, specs) for s in specs]

    def _plain(self, spec: MatrixSpec) -> Array:
        """Independent Gaussian entries of all networks, (networks, rows, columns)."""
        shape = (self.count, spec.rows, spec.cols)
        out = self.stream(f"matrix:{spec.name}").standard_normal(shape, dtype=np.float32)
        out *= np.float32(np.sqrt(spec.variance))
        if spec.mean:
            out += np.float32(spec.mean)
        return out

    def _other(self, spec: MatrixSpec, specs: list[MatrixSpec]) -> Array:
        """Matrices of other laws, one network after the other; those correlated with others together."""
        if spec.law is not None:
            rng = self.stream(f"matrix:{spec.name}")
            return (sample_law(rng, (self.count, spec.rows, spec.cols), spec.law) * spec.scale).astype(np.float32)
        linked = [s for s in specs if s.law is None and not _is_plain(s)]
        drawn = getattr(self, "_linked", {})
        if spec.name not in drawn:
            rows = [sample_matrices(linked, lambda name: self.stream(f"matrix:{name}")) for _ in range(self.count)]
            drawn = {s.name: np.array([row[s.name] for row in rows], np.float32) for s in linked}
        self._linked = {k: v for k, v in drawn.items() if k != spec.name}
        found: Array = drawn[spec.name]
        return found

    def _unit_numbers(self, spec: UnitNumbers, kind: str) -> Array:
        """Numbers of the units, one row for each (network, sample)."""
        if spec.given is not None:
            return np.tile(np.array(spec.given.values, np.float32), (self.count, 1))
        assert spec.law is not None
        rows = self.trajectories if spec.each else self.count
        drawn = sample_law(self.stream(f"{kind}:{spec.name}"), (rows, spec.size), spec.law).astype(np.float32)
        return drawn if spec.each else np.repeat(drawn, self.task.samples, axis=0)

    def refresh(self) -> None:
        """Draw afresh what is declared with ``redraw``."""
        fresh = [k for k, s in enumerate(self.task.matrices) if s.fresh]
        for k, matrix in zip(fresh, self._draw([self.task.matrices[k] for k in fresh]), strict=True):
            self.matrices[k] = matrix
        for k, spec in enumerate(self.task.vectors):
            if spec.fresh:
                self.quenched[k] = self._unit_numbers(spec, "quenched")

    # -- called by generated code
    def parameter(self, name: str) -> float:
        """Value of a parameter by name."""
        return self._names[name]

    def multiply(self, matrix: int, transposed: bool, vectors: Array) -> Array:
        """Σ_j J_ij ψ_j for every row, each with the matrix of its network."""
        J = self.matrices[matrix]
        J = J if transposed else J.transpose(0, 2, 1)
        rows = np.asarray(vectors, np.float32).reshape(self.count, self.task.samples, J.shape[1])
        return np.matmul(rows, J).reshape(self.trajectories, J.shape[2])

    def product(self, word: Word, vectors: Array, scales: Mapping[int, Any] = MappingProxyType({})) -> Array:
        """Couplings in a row, one after the other; `scales` are what multiplies between factor k and the next one."""
        for k, (matrix, transposed) in reversed(list(enumerate(word))):
            vectors = self.multiply(matrix, transposed, scales[k] * vectors if k in scales else vectors)
        return vectors

    def fixed(self, matrix: int, transposed: bool, vector: Any) -> Array:
        """A coupling applied to disorder that never changes."""
        size = self.matrices[matrix].shape[1 if transposed else 2]
        return self.multiply(matrix, transposed, np.broadcast_to(vector, (self.trajectories, size)))

    def mean(self, values: Any, population: int) -> Any:
        """Average over units for every row (numbers without units stay)."""
        if np.ndim(values) == 0 or np.shape(values)[-1] != self.task.sizes[population]:
            return values
        return np.mean(values, axis=-1, keepdims=True)

    # -- running
    def run(self, functions: dict[str, Any]) -> dict[str, Array]:
        """Observables of every network, from the averages over its units."""
        task = self.task
        y, out = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        for (name, _), law, where in zip(task.program.fields, task.initial, self.slices, strict=True):
            if law is not None:
                shape = (self.trajectories, where.stop - where.start)
                y[:, where] = sample_law(self.stream(f"initial:{name}"), shape, law)
        functions["start"](self, 0.0, y)
        wanted = {layer for a in task.averages for _, layer, _ in a.factors}
        recorded = {}
        for layer in range(task.steps + 1):
            if layer in wanted:
                recorded[layer] = [self._channel(c) for c in functions["channels"](self, float(layer), y)]
            if layer == task.steps:
                break
            self.refresh()
            noise = [self._unit_numbers(x, "noise") for x in task.noises]
            functions["rhs"](self, float(layer), y, noise, 0, out)
            y, out = out, y
            if not float(np.max(np.abs(y), initial=0)) < HUGE:
                raise QuenchedError(f"the simulation diverged at layer {layer + 1} (|state| > {HUGE:g})")
        moments = [self._average(a, recorded) for a in task.averages]
        found: dict[str, Array] = functions["observables"](self, moments)
        return found

    def _channel(self, values: Any) -> Array:
        size = np.shape(values)[-1] if np.ndim(values) else 1
        wide = np.broadcast_to(np.asarray(values, float), (self.trajectories, size))
        return wide.reshape(self.count, self.task.samples, size)

    def _average(self, average: Average, recorded: dict[int, list[Array]]) -> Array:
        parts = [recorded[layer][channel][:, sample] for channel, layer, sample in average.factors]
        product = parts[0]
        for part in parts[1:]:
            product = product * part
        return np.asarray(product.mean(axis=-1))


def _is_plain(spec: MatrixSpec) -> bool:
    """Independent Gaussian entries, the diagonal like the others."""
    return spec.law is None and not spec.symmetry and not spec.correlation and spec.diagonal is None


__all__ = ["Average", "Ensemble", "Overlapped", "UnitNumbers", "VectorSpec"]
