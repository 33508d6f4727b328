"""Random numbers of a realisation: couplings, unit disorder, initial states.

Everything here is numbers and plain tuples (a law is ``(name, parameters…)``), so worker processes need no sympy.
Each random object has its own stream, derived from (seed, N, realisation, its name): adding an object to a declaration
leaves the others as they were.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError, nearest

Array = NDArray[np.float64]
Rng = np.random.Generator
#: A law of one number: its name and its parameters, as numbers or nested laws.
Law = tuple[Any, ...]


def stream(seed: int, N: int, realisation: int, name: str) -> Rng:
    """The generator of one named random object of realisation (seed, N, realisation)."""
    tag = zlib.crc32(name.encode())
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(N, realisation, tag))))


# ---------------------------------------------------------------- laws of one number


def _normal(rng: Rng, shape: tuple[int, ...], mean: float, variance: float) -> Array:
    out: Array = rng.standard_normal(shape)
    out *= np.sqrt(variance)
    out += mean
    return out


def _uniform(rng: Rng, shape: tuple[int, ...], low: float, high: float) -> Array:
    return rng.uniform(low, high, shape)


def _ising(rng: Rng, shape: tuple[int, ...]) -> Array:
    return (2 * rng.integers(0, 2, shape) - 1).astype(float)


def _bernoulli(rng: Rng, shape: tuple[int, ...], p: float) -> Array:
    return (rng.random(shape) < p).astype(float)


def _laplace(rng: Rng, shape: tuple[int, ...], scale: float) -> Array:
    return rng.laplace(0.0, scale, shape)


def _half_normal(rng: Rng, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    return scale * np.abs(rng.standard_normal(shape))


def _exponential(rng: Rng, shape: tuple[int, ...], mean: float) -> Array:
    return rng.exponential(mean, shape)


def _spike_slab(rng: Rng, shape: tuple[int, ...], p: float, law: Law) -> Array:
    """A number from `law` with probability p, else zero."""
    slab = rng.random(shape) < p
    return np.where(slab, sample_law(rng, shape, law), 0.0)


def _spherical(rng: Rng, shape: tuple[int, ...]) -> Array:
    """Uniform on the sphere of squared norm (number of units)."""
    out = rng.standard_normal(shape)
    out *= np.sqrt(out.size) / np.linalg.norm(out)
    return out


def _empirical(rng: Rng, shape: tuple[int, ...], *values: float) -> Array:
    return rng.choice(np.array(values), size=shape)


def _discrete(rng: Rng, shape: tuple[int, ...], *pairs: float) -> Array:
    """Values and their probabilities in turn."""
    chances = np.array(pairs[1::2])
    if np.any(chances < 0) or abs(chances.sum() - 1) > 1e-9:
        raise QuenchedError(f"probabilities of Discrete should be non-negative and sum to 1, got {list(pairs[1::2])}")
    return rng.choice(np.array(pairs[::2]), size=shape, p=chances / chances.sum())


SAMPLERS: dict[str, Callable[..., Array]] = {
    "Normal": _normal,
    "Uniform": _uniform,
    "Ising": _ising,
    "Bernoulli": _bernoulli,
    "Laplace": _laplace,
    "HalfNormal": _half_normal,
    "Exponential": _exponential,
    "SpikeSlab": _spike_slab,
    "Empirical": _empirical,
    "Discrete": _discrete,
    "Spherical": _spherical,
}


def sample_law(rng: Rng, shape: tuple[int, ...], law: Law) -> Array:
    """Independent numbers from a law, as an array of the given shape."""
    name, *parameters = law
    if name not in SAMPLERS:
        raise QuenchedError(f"no sampler for the law {name}; {nearest(name, SAMPLERS)}")
    return SAMPLERS[name](rng, shape, *parameters)


# ---------------------------------------------------------------- couplings


@dataclass(frozen=True)
class MatrixSpec:
    """One matrix with numbers for its law.

    Entries are ``mean + sqrt(variance)·z`` (Gaussian) or ``scale·law`` (independent entries); powers of N are already
    in the numbers. `diagonal` is the variance of the diagonal entries where it is declared, None for the default
    (1 + symmetry)·variance. `correlation` lists (name of another matrix, correlation of equal entries). `column` is the
    first column of a translation-invariant matrix, which is not random.
    """

    name: str
    rows: int
    cols: int
    variance: float = 0.0
    mean: float = 0.0
    symmetry: float = 0.0
    diagonal: float | None = None
    law: Law | None = None
    scale: float = 1.0
    fresh: bool = False
    correlation: tuple[tuple[str, float], ...] = ()
    column: tuple[float, ...] | None = None


def sample_matrices(specs: Sequence[MatrixSpec], rng_of: Callable[[str], Rng]) -> dict[str, Array]:
    """All matrices, correlated ones together. `rng_of(name)` gives the stream of a matrix."""
    out: dict[str, Array] = {}
    for group in correlated_groups(specs):
        if group[0].column is not None:
            out[group[0].name] = circulant(np.array(group[0].column))
        elif group[0].law is not None:
            out[group[0].name] = _independent(group[0], rng_of(group[0].name))
        else:
            out |= _gaussian(group, [rng_of(s.name) for s in group])
    return out


def correlated_groups(specs: Sequence[MatrixSpec]) -> list[list[MatrixSpec]]:
    """Connected components of the correlation graph, in order of declaration."""
    groups: list[list[MatrixSpec]] = []
    for spec in specs:
        linked = {other for other, _ in spec.correlation}
        joined = [g for g in groups if any(m.name in linked or spec.name in dict(m.correlation) for m in g)]
        groups = [g for g in groups if g not in joined] + [[m for g in joined for m in g] + [spec]]
    return groups


def circulant(column: Array) -> Array:
    """The matrix whose entry at (i, j) is column[(i − j) mod n]."""
    index = np.arange(len(column))
    return np.asarray(column[(index[:, None] - index[None, :]) % len(column)])


def _independent(spec: MatrixSpec, rng: Rng) -> Array:
    assert spec.law is not None
    matrix = sample_law(rng, (spec.rows, spec.cols), spec.law)
    matrix *= spec.scale
    return matrix


def _gaussian(group: Sequence[MatrixSpec], rngs: Sequence[Rng]) -> dict[str, Array]:
    """Gaussian matrices with given correlations of equal and of transposed entries.

    With K± = (covariance of equal entries) ± (covariance of transposed entries) and Cholesky factors L± of K±,
    J_a = Σ_b [(L+ + L−)/2]_ab A_b + [(L+ − L−)/2]_ab A_bᵀ of independent standard matrices A_b has exactly these
    covariances, and its diagonal has covariance K+.
    """
    plus, minus = _mixing(group)
    raw = [rng.standard_normal((s.rows, s.cols)) for s, rng in zip(group, rngs, strict=True)]
    if len(group) == 1 and not group[0].symmetry:
        return {group[0].name: _finish(group[0], raw[0], plus[0])}
    out = {}
    for a, spec in enumerate(group):
        matrix = np.zeros((spec.rows, spec.cols))
        for b, base in enumerate(raw):
            straight, turned = (plus[a, b] + minus[a, b]) / 2, (plus[a, b] - minus[a, b]) / 2
            if straight:
                matrix += straight * base
            if turned:
                matrix += turned * base.T
        out[spec.name] = _finish(spec, matrix, plus[a])
    return out


def _mixing(group: Sequence[MatrixSpec]) -> tuple[Array, Array]:
    """Cholesky factors of K+ and K− of unit-variance entries."""
    names = [s.name for s in group]
    same = np.eye(len(group))
    for a, spec in enumerate(group):
        for other, rho in spec.correlation:
            b = names.index(other)
            same[a, b] = same[b, a] = rho
    turned = np.diag([s.symmetry for s in group])
    return _cholesky(same + turned, names), _cholesky(same - turned, names)


def _cholesky(matrix: Array, names: Sequence[str]) -> Array:
    """Lower factor of a positive semidefinite matrix (singular allowed: symmetry = ±1)."""
    n = len(matrix)
    factor = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i, j] - factor[i, :j] @ factor[j, :j]
            if i == j:
                if rest < -1e-12:
                    raise QuenchedError(f"correlation and symmetry of {', '.join(names)} contradict each other")
                factor[i, i] = np.sqrt(max(rest, 0.0))
            elif factor[j, j] > 1e-8:
                factor[i, j] = rest / factor[j, j]
            elif abs(rest) > 1e-8:
                raise QuenchedError(f"correlation and symmetry of {', '.join(names)} contradict each other")
    return factor


def _finish(spec: MatrixSpec, matrix: Array, diagonal_factor: Array) -> Array:
    """Scale and shift; a declared variance of the diagonal replaces the default one."""
    if spec.diagonal is not None and spec.rows == spec.cols:
        spread = np.sqrt(np.sum(diagonal_factor**2)) or 1.0
        sd = np.sqrt(spec.variance)
        index = np.arange(spec.rows)
        matrix[index, index] *= np.sqrt(spec.diagonal) / (spread * sd) if sd else 0.0
    matrix *= np.sqrt(spec.variance)
    if spec.mean:
        matrix += spec.mean
        if spec.diagonal == 0.0:
            np.fill_diagonal(matrix, 0.0)
    return matrix


@dataclass(frozen=True)
class VectorSpec:
    """Unit disorder: one number a unit from a law, or a row of a drawn matrix (its name, which, a factor)."""

    name: str
    size: int
    law: Law
    fresh: bool = False
    row: tuple[str, int, float] | None = None
