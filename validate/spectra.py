"""Eigenvalues of sampled matrices of a declared `Spectrum`, and their fractions in regions.

Diagonal disorder can be placed at the quantiles of its law: drawn at random it adds a scatter of N^{-1/2} that hides
the much smaller scatter of eigenvalues. Standard errors are over independent samples; within one sample the
eigenvalues repel each other and a count fluctuates far less than a binomial one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Symbol, lambdify

from quenched.theory.algebra import Diag, Inverse, Matrix, Outer, Transpose
from quenched.theory.couplings import RandomMatrix
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Quenched
from quenched.theory.spaces import N as SIZE
from quenched.theory.spaces import Population
from quenched.theory.spectrum import Spectrum, population_of
from quenched.validate.generate import label
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.sampling import Law, sample_law, sample_matrices, stream

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

#: Draws from which the quantiles of a law are read.
_TABLE = 400_001


@dataclass(frozen=True)
class Estimate:
    """A mean over samples and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Eigenvalues:
    """Eigenvalues of independent samples.

    Attributes
    ----------
    values : (samples, n), real for a Hermitian matrix
    N : reference size
    """

    values: Array | Complex
    N: int

    def fraction(self, region: Callable[[Any], Any]) -> Estimate:
        """Fraction in a region, a function of an array of eigenvalues that gives a mask."""
        return _estimate(np.mean(region(self.values), axis=1))

    def window(self, low: float, high: float) -> Estimate:
        """Fraction of real parts between two numbers."""
        return self.fraction(lambda v: (v.real > low) & (v.real < high))

    def box(self, real: tuple[float, float], imaginary: tuple[float, float]) -> Estimate:
        """Fraction in a rectangle."""
        return self.fraction(
            lambda v: (v.real > real[0]) & (v.real < real[1]) & (v.imag > imaginary[0]) & (v.imag < imaginary[1])
        )

    def disc(self, radius: float, centre: complex = 0.0) -> Estimate:
        """Fraction within a distance of a point."""
        return self.fraction(lambda v: np.abs(v - centre) < radius)

    def rightmost(self) -> Estimate:
        """Largest real part."""
        return _estimate(self.values.real.max(axis=1))

    def leftmost(self) -> Estimate:
        """Smallest real part."""
        return _estimate(self.values.real.min(axis=1))

    def radius(self) -> Estimate:
        """Largest modulus."""
        return _estimate(np.abs(self.values).max(axis=1))


def _estimate(samples: Array) -> Estimate:
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples))))


def eigenvalues(
    spectrum: Spectrum,
    N: int,
    trials: int = 8,
    seed: int = 0,
    params: Mapping[Any, float] | None = None,
    quantiles: bool = False,
    **named: float,
) -> Eigenvalues:
    """Eigenvalues of sampled matrices.

    Parameters
    ----------
    spectrum : Spectrum
    N : int
        Reference size; a population has its fraction of N units, rounded.
    trials : int
        Number of samples, at least 2.
    seed : int
        Sample k depends only on (seed, N, k).
    params, **named : values of parameters
    quantiles : bool
        Place `Quenched` numbers at the quantiles of their laws, shuffled, in place of drawing them.

    Raises
    ------
    QuenchedError
        For fewer than two trials, or bad parameters.
    """
    if trials < 2:
        raise QuenchedError(f"trials = {trials}: standard errors need at least 2 samples")
    values = spectrum.values(params, **named)
    found = []
    for k in range(trials):
        matrix = sample(spectrum, N, seed, k, values, quantiles)
        found.append(np.linalg.eigvalsh(matrix) if spectrum.hermitian else np.linalg.eigvals(matrix).astype(complex))
    return Eigenvalues(np.array(found), N)


def sample(
    spectrum: Spectrum, N: int, seed: int, realisation: int, values: dict[Symbol, float], quantiles: bool = False
) -> Array:
    """One sampled matrix, (n, n), its blocks in the order of the spectrum's populations."""
    numbers = Numbers(values, N)

    def rng(name: str) -> np.random.Generator:
        return stream(seed, N, realisation, name)

    specs = [matrix_spec(atom, numbers) for atom in spectrum.matrices]
    drawn = sample_matrices(specs, lambda name: rng(f"matrix:{name}"))
    labels = {q: _labels(q, numbers, rng(f"quenched:{label(q)}"), quantiles) for q in spectrum.quenched}
    evaluate = _Evaluator(numbers, {atom: drawn[label(atom)] for atom in spectrum.matrices}, labels)
    rows = []
    for p in spectrum.heads:
        row = []
        for q in spectrum.heads:
            block = spectrum.blocks.get((p, q))
            size = numbers.size(population_of(p))[1], numbers.size(population_of(q))[1]
            row.append(np.zeros(size) if block is None else evaluate.matrix(block))
        rows.append(row)
    return np.asarray(np.block(rows))


def _labels(q: Quenched, numbers: Numbers, rng: np.random.Generator, quantiles: bool) -> Array:
    size, law = numbers.size(q.population)[1], numbers.law(q.law)
    if not quantiles:
        return sample_law(rng, (size,), law)
    placed = quantile_points(law, size)
    rng.shuffle(placed)
    return placed


def quantile_points(law: Law, size: int) -> Array:
    """The law's quantiles at (k + ½)/size: read from a large sorted sample with a fixed seed, atoms included."""
    table = np.sort(sample_law(np.random.default_rng(0), (_TABLE,), law))
    return np.quantile(table, (np.arange(size) + 0.5) / size, method="nearest")


@dataclass(frozen=True)
class _Evaluator:
    """Matrix expressions as arrays."""

    numbers: Numbers
    matrices: dict[RandomMatrix, Array]
    labels: dict[Quenched, Array]

    def matrix(self, expr: Matrix) -> Array:
        """A sum of words."""
        total = np.zeros((self.numbers.size(expr.rows)[1], self.numbers.size(expr.cols)[1]))
        for coefficient, word in expr.terms:
            product: Array = np.array(1.0)
            for factor in word:
                product = self._factor(factor) if product.ndim == 0 else product @ self._factor(factor)
            if not word:
                product = np.eye(len(total))
            total += self.numbers(coefficient) * product
        return total

    def _factor(self, factor: Matrix) -> Array:
        if isinstance(factor, Transpose):
            return self.matrices[factor.matrix].T
        if isinstance(factor, RandomMatrix):
            return self.matrices[factor]
        if isinstance(factor, Inverse):
            return np.asarray(np.linalg.inv(self.matrix(factor.matrix)), float)
        if isinstance(factor, Diag):
            return np.diag(self.vector(factor.vector, factor.rows))
        assert isinstance(factor, Outer)
        return np.outer(self.vector(factor.left, factor.rows), self.vector(factor.right, factor.cols))

    def vector(self, expr: Expr, population: Population) -> Array:
        """A unit quantity, (units,)."""
        fixed = expr.xreplace({**self.numbers.values, SIZE: self.numbers.N})
        symbols = [q for q in self.labels if q in fixed.free_symbols]
        out = lambdify(symbols, fixed, "numpy")(*(self.labels[q] for q in symbols))
        return np.broadcast_to(np.asarray(out, float), (self.numbers.size(population)[1],))
