"""Witnesses of the steps around a spectrum's equations: Fourier modes, free parts, replicas of a Gaussian vector.

Explicit matrices of a few units stand for the exact steps. Where a step takes the limit N → ∞, sampled matrices of
declared size stand for its result; their resolvents are within O(1/N) of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import lambdify

from quenched.theory.algebra import Diag, Matrix, Transpose, combine
from quenched.theory.circulant import Circulant
from quenched.theory.edwards_jones import EliminateConjugates, GaussianAction, ReplicateVector, RotateReplicas
from quenched.theory.errors import QuenchedError
from quenched.theory.free import AddRTransforms, FreeParts, ScalarSystem, SplitFree
from quenched.theory.lower import CopiedAction
from quenched.theory.modes import Diagonalise
from quenched.theory.problem_dyson import Z
from quenched.theory.record import Rule
from quenched.theory.spaces import N as SIZE
from quenched.theory.spaces import Population
from quenched.theory.spectrum import Spectrum, SpectrumDeclaration, population_of
from quenched.validate.generate import label
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.sampling import sample_law, sample_matrices
from quenched.validate.witness_types import EXACT, Scene, Witness

Complex = NDArray[np.complex128]

#: Reference size of exact comparisons, of sampled ones, and how many samples.
FEW, MANY, SAMPLES = 8, 360, 8
#: Relative deviation of a sampled resolvent that counts as agreement.
SAMPLED = 0.012


@dataclass
class Instance:
    """Explicit matrices and labels of a declared spectrum."""

    spectrum: Spectrum
    numbers: Numbers
    atoms: dict[Any, Complex]
    labels: dict[Any, NDArray[np.float64]]

    @classmethod
    def draw(cls, spectrum: Spectrum, scene: Scene, size: int, seed: int = 0) -> Instance:
        numbers = Numbers(scene.values, size)

        def rng(name: str) -> np.random.Generator:
            return np.random.default_rng([scene.seed, seed, sum(name.encode())])

        drawn = sample_matrices([matrix_spec(a, numbers) for a in spectrum.matrices], rng)
        atoms = {a: drawn[label(a)].astype(complex) for a in spectrum.matrices}
        labels = {
            q: sample_law(rng(q.name), (numbers.size(q.population)[1],), numbers.law(q.law)) for q in spectrum.quenched
        }
        return cls(spectrum, numbers, atoms, labels)

    def size(self, population: Population) -> int:
        return self.numbers.size(population)[1]

    def vector(self, expr: Any, population: Population) -> Complex:
        symbols = list(self.labels)
        function = lambdify(symbols, expr.xreplace(self.numbers.values), "numpy")
        values = [self.labels[s] if s.population == population else 0.0 for s in symbols]
        return np.broadcast_to(np.asarray(function(*values), complex), (self.size(population),))

    def factor(self, factor: Matrix) -> Complex:
        if isinstance(factor, Transpose):
            return self.atoms[factor.matrix].conj().T
        if isinstance(factor, Diag):
            return np.diag(self.vector(factor.vector, factor.rows))
        return self.atoms[factor]

    def matrix(self, expr: Matrix) -> Complex:
        total = np.zeros((self.size(expr.rows), self.size(expr.cols)), complex)
        for coefficient, word in expr.terms:
            product = np.eye(self.size(expr.rows), dtype=complex)
            for f in word:
                product = product @ self.factor(f)
            total += self.numbers(coefficient) * product
        return total


# -- exact steps ---------------------------------------------------------------------------------------------------
def _modes(before: SpectrumDeclaration, after: SpectrumDeclaration, scene: Scene) -> float:
    """The declared matrix in the Fourier basis against the diagonal one with transformed atoms."""
    first = Instance.draw(before.spectrum, scene, FEW)
    turned = {a.rows for a in before.spectrum.matrices if isinstance(a, Circulant)}

    def basis(population: Population) -> Complex:
        n = first.size(population)
        grid = np.arange(n)
        wave = np.exp(2j * np.pi * np.outer(grid, grid) / n) / np.sqrt(n)
        return wave if population in turned else np.eye(n, dtype=complex)

    atoms = {
        a: basis(a.rows).conj().T @ m @ basis(a.cols) for a, m in first.atoms.items() if not isinstance(a, Circulant)
    }
    labels = dict(first.labels)
    for q in after.spectrum.quenched:
        if q not in labels:
            labels[q] = 2 * np.pi * np.arange(first.size(q.population)) / first.size(q.population)
    second = Instance(after.spectrum, first.numbers, atoms, labels)
    worst = 0.0
    for (p, q), block in before.spectrum.blocks.items():
        left, right = basis(population_of(p)), basis(population_of(q))
        expected = left.conj().T @ first.matrix(block) @ right
        found = second.matrix(after.spectrum.blocks[p, q]) if (p, q) in after.spectrum.blocks else 0 * expected
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def _split(before: SpectrumDeclaration, after: FreeParts, scene: Scene) -> float:
    """The parts add up to the matrix."""
    instance = Instance.draw(before.spectrum, scene, FEW)
    (matrix,) = before.spectrum.blocks.values()
    parts = combine([(p.coefficient, p.word) for p in after.parts], matrix.rows, matrix.cols)
    expected = instance.matrix(matrix)
    return float(np.abs(instance.matrix(parts) - expected).max() / np.abs(expected).max())


def _vector(before: SpectrumDeclaration, after: GaussianAction, scene: Scene) -> float:
    """The exponent with its local fields integrated out is −½ φᵀ(z − M)φ, for explicit matrices."""
    instance = Instance.draw(before.spectrum, scene, FEW)
    z = 3.7
    fields = [f for f in after.fields.values() if f.definition is None]
    start, total = {}, 0
    for f in fields:
        start[f.name] = total
        total += instance.size(f.population)
    precision = np.zeros((total, total), complex)

    def add(a: str, b: str, block: Complex) -> None:
        rows, cols = (slice(start[n], start[n] + instance.size(after.fields[n].population)) for n in (a, b))
        precision[rows, cols] -= block
        precision[cols, rows] -= block.T

    for population, exponent in after.sites:
        own = [f for f in fields if f.population == population]
        for i, a in enumerate(own):
            for b in own[i:]:
                slope = exponent.diff(a.symbol).diff(b.symbol).xreplace({Z: z})
                block = np.diag(instance.vector(slope, population))
                add(a.name, b.name, block / 2 if a is b else block)
    for use in after.uses:
        (row, left), (col, right) = (_end(after, ends[0][0], instance) for ends in (use.row, use.col))
        atom = next(a for a in instance.atoms if a.name == use.coupling)
        coefficient = complex(use.coef.xreplace(instance.numbers.values))
        add(row, col, coefficient * left[:, None] * instance.atoms[atom] * right)
    n = instance.size(after.fields["phi"].population)
    rest = precision[:n, :n]
    if total > n:
        rest = rest - precision[:n, n:] @ np.linalg.solve(precision[n:, n:], precision[n:, :n])
    (matrix,) = before.spectrum.blocks.values()
    expected = z * np.eye(n) - instance.matrix(matrix)
    return max(float(np.abs(rest - expected).max() / np.abs(expected).max()), laws_deviation(after, instance))


def laws_deviation(action: CopiedAction, instance: Instance) -> float:
    """Second cumulants of the diagrams against those of the sampler."""
    worst = 0.0
    for atom in instance.atoms:
        if isinstance(atom, Circulant):
            continue  # not random
        spec = matrix_spec(atom, instance.numbers)
        own = [d for law in action.laws if law.name == atom.name for d in law.diagrams if len(d.edges) == 2]
        plain = sum(instance.numbers(d.weight * SIZE**d.power) for d in own if d.edges[0] == d.edges[1])
        turned = sum(instance.numbers(d.weight * SIZE**d.power) for d in own if d.edges[0] != d.edges[1])
        variance = spec.variance if spec.law is None else spec.scale**2 * instance.numbers(atom.law.variance_())
        for found, expected in ((plain, variance), (turned, spec.symmetry * variance)):
            worst = max(worst, abs(found - expected) / variance)
    return worst


def _end(action: GaussianAction, name: str, instance: Instance) -> tuple[str, Complex]:
    """The field that an end reads, and the diagonal that multiplies it."""
    f = action.fields[name]
    if f.definition is None:
        return name, np.ones(instance.size(f.population), complex)
    plain = [g for g in action.fields.values() if g.definition is None and g.population == f.population]
    own = next((g for g in plain if g.symbol in f.definition.free_symbols), plain[0])
    return own.name, instance.vector(f.definition.diff(own.symbol), f.population)


# -- limits --------------------------------------------------------------------------------------------------------
def _limit(before: Any, after: ScalarSystem, scene: Scene) -> float:
    """w(z) of the equations against the mean resolvent of sampled matrices."""
    eigen = _sampled(scene)
    spread = float(np.std(eigen))
    points = np.asarray(np.mean(eigen) + spread * np.array([0.3 + 0.6j, -1.2 + 0.4j, 2.2 + 0.3j]), np.complex128)
    expected = np.array([np.mean([np.mean(1 / (z - e)) for e in eigen]) for z in points])
    return float(np.max(np.abs(_solved(after, scene, points) - expected) / np.abs(expected)))


@lru_cache(maxsize=2)
def _sampled(scene: Scene) -> list[NDArray[Any]]:
    """Eigenvalues of sampled matrices, the same for a step and all its mutants."""
    spectrum: Spectrum = scene.model
    (matrix,) = spectrum.blocks.values()
    return [np.linalg.eigvalsh(Instance.draw(spectrum, scene, MANY, k).matrix(matrix)) for k in range(SAMPLES)]


def _solved(system: ScalarSystem, scene: Scene, points: Complex) -> Complex:
    from quenched.numerics.dyson import Dyson
    from quenched.numerics.scalar_system import ScalarSolver
    from quenched.theory.spectral import derive_spectrum

    dyson = Dyson(derive_spectrum(scene.model).problem.analytic, scene.values)  # its nodes over labels, nothing else
    try:
        return ScalarSolver(system.problem, dyson).solve(points)[..., 0]
    except (QuenchedError, ArithmeticError, ValueError):
        return np.full(len(points), np.inf + 0j)


def _same(before: ScalarSystem, after: ScalarSystem, scene: Scene) -> float:
    points = np.array([0.4 + 0.7j, -1.3 + 0.4j])
    expected = _solved(before, scene, points)
    return float(np.max(np.abs(_solved(after, scene, points) - expected) / np.abs(expected)))


WITNESSES: dict[type[Rule], Witness] = {
    Diagonalise: Witness("explicit matrices in the Fourier basis", EXACT, _modes),
    SplitFree: Witness("explicit matrices", EXACT, _split),
    AddRTransforms: Witness(f"resolvents of {SAMPLES} sampled matrices, N = {MANY}", SAMPLED, _limit),
    ReplicateVector: Witness("explicit Gaussian weight, local fields integrated out", EXACT, _vector),
    RotateReplicas: Witness(f"resolvents of {SAMPLES} sampled matrices, N = {MANY}", SAMPLED, _limit),
    EliminateConjugates: Witness("w(z) before and after", 1e-8, _same),
}
