"""Gaussian random functions of a state, drawn as polynomials of the units.

V(s) = Σ_p σ_p Σ_{i₁…i_p} g_{i₁…i_p} s_{i₁} ⋯ s_{i_p} with independent standard normal g for *all* index tuples, equal
indices included, has exactly the covariance Σ_p σ_p² (s·s′)^p. Only the symmetric part of a tensor g matters.

Sweeps keep, for every tensor G of degree p ≥ 3, its contractions with the state over all but k indices, k = 0 … p − 1:
a change of one unit then changes the value by O(p) numbers, and the contractions by O(N^{p−1}).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.theory.landscape import Landscape
from quenched.theory.spaces import Population
from quenched.validate.quantities import Numbers

Array = NDArray[np.float64]

#: Entries of the largest tensor that is drawn.
MOST_ENTRIES = 2**25


@dataclass(frozen=True)
class FunctionSpec:
    """A random function with numbers: σ_p of every degree p."""

    name: str
    units: int
    degrees: tuple[tuple[int, float], ...]

    @property
    def entries(self) -> int:
        """Entries of all tensors."""
        return sum(self.units**p for p, _ in self.degrees)


def function_spec(landscape: Landscape, population: Population, numbers: Numbers) -> FunctionSpec:
    """E V(s) V(s′) = N Σ c_p (s·s′/n)^p of n units: σ_p² = N c_p n^{−p}.

    Raises
    ------
    QuenchedError
        A tensor has too many entries, or a coefficient of the covariance is negative.
    """
    units = numbers.size(population)[1]
    degrees = []
    for p, c in landscape.powers:
        size = numbers(c)
        if size < 0:
            raise QuenchedError(f"the coefficient of q^{p} in the covariance of {landscape.name} is negative: {size:g}")
        if units ** int(p) > MOST_ENTRIES:
            raise QuenchedError(
                f"the random function {landscape.name} has {units}^{p} couplings at N = {numbers.N}: use a smaller N"
            )
        degrees.append((int(p), float(np.sqrt(numbers.N * size / units ** int(p)))))
    return FunctionSpec(landscape.name, units, tuple(degrees))


@dataclass(frozen=True)
class RandomFunction:
    """A drawn function: the symmetric tensor of every degree."""

    tensors: tuple[Array, ...]

    def __call__(self, states: Array) -> Array:
        """Values at states (…, units), shape (…, 1)."""
        states = np.asarray(states, float)
        flat = states.reshape(-1, states.shape[-1])
        total = np.zeros(len(flat))
        for tensor in self.tensors:
            rows = max(1, 2**22 // max(tensor.size // len(tensor), 1))
            for start in range(0, len(flat), rows):
                total[start : start + rows] += _value(tensor, flat[start : start + rows])
        return total.reshape(*states.shape[:-1], 1)

    def degree(self, p: int) -> Array | None:
        """The tensor of one degree."""
        return next((t for t in self.tensors if t.ndim == p), None)


def _value(tensor: Array, states: Array) -> Array:
    """Σ G s…s for every row of the states."""
    left = states @ tensor.reshape(len(tensor), -1)
    for _ in range(tensor.ndim - 1):
        left = np.einsum("ki,kij->kj", states, left.reshape(len(states), states.shape[1], -1))
    return left[:, 0]


def draw(spec: FunctionSpec, rng: np.random.Generator) -> RandomFunction:
    """A realisation."""
    tensors = []
    for p, sigma in spec.degrees:
        tensor = rng.standard_normal((spec.units,) * p)
        tensor *= sigma
        tensors.append(symmetric(tensor))
    return RandomFunction(tuple(tensors))


def draw_functions(specs: Sequence[FunctionSpec], rng_of: Callable[[str], np.random.Generator]) -> list[RandomFunction]:
    """All functions, each from a stream of its own."""
    return [draw(spec, rng_of(f"function:{spec.name}")) for spec in specs]


def symmetric(tensor: Array) -> Array:
    """The mean over all orders of the indices, one index after the other."""
    for q in range(2, tensor.ndim + 1):
        tensor = sum((np.swapaxes(tensor, k, q - 1) for k in range(q - 1)), tensor) / q
    return np.ascontiguousarray(tensor)


@dataclass(frozen=True)
class Towers:
    """Tensors of degree 3 and more as the sweeps take them.

    Attributes
    ----------
    top : all tensors, flat, one after the other
    table : int array (tensors, 5): degree, first unit, units, where the tensor begins in `top`, where its contractions
        begin in a state's array
    size : length of a state's array: contractions of every tensor with k = 0 … p − 1 open indices
    """

    top: Array
    table: NDArray[np.int64]
    size: int

    @classmethod
    def of(cls, tensors: Sequence[tuple[int, Array]]) -> Towers:
        """From (first unit, tensor) each."""
        rows, begin, place = [], 0, 0
        for first, tensor in tensors:
            p, n = tensor.ndim, len(tensor)
            rows.append((p, first, n, begin, place))
            begin, place = begin + tensor.size, place + sum(n**k for k in range(p))
        top = np.concatenate([t.ravel() for _, t in tensors]) if tensors else np.zeros(0)
        return cls(top, np.array(rows, np.int64).reshape(-1, 5), place)

    def contracted(self, x: Array, out: Array) -> float:
        """Contractions with a state, from the tensor down; returns the sum of their values."""
        total = 0.0
        for p, first, n, begin, place in self.table:
            level, end = self.top[begin : begin + n**p], place + sum(int(n) ** k for k in range(p))
            for k in range(p - 1, -1, -1):
                level = level.reshape(-1, n) @ x[first : first + n]
                out[end - n**k : end] = level
                end -= n**k
            total += float(level[0])
        return total
