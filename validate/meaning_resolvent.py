"""Numeric meanings of the forms of the resolvent reading: explicit small matrices, and Dyson equations on few labels.

Nothing here calls a rule: words are multiplied factor by factor, covariances of entries are read off the declared laws,
Dyson equations are iterated at large z (doubled ones at large η), where the iteration contracts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Basic, Dummy, Expr, Symbol, lambdify, sympify

from quenched.theory.algebra import Diag, Inverse, Matrix, Outer, Transpose
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Gaussian, Iid, RandomMatrix
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched
from quenched.theory.linearise import Occurrence, Pencil
from quenched.theory.problem_dyson import ZBAR, DysonProblem, Z
from quenched.theory.resolvent import Boundary, LabelMean, ScalarEquations
from quenched.theory.spaces import ANGLE, N, Population
from quenched.theory.spectrum import Spectrum, population_of
from quenched.validate.meaning import relative

Array = NDArray[Any]
Values = Mapping[Basic, Any]

#: So large that every negative power of N is nothing.
LARGE = 1e24
#: Explicit units of a population, and label nodes of a space.
UNITS, NODES = 3, 3
#: Iterations of a Dyson equation, and how far outside (how regularised) it is looked at, in units of its size.
ITERATIONS, DISTANCE = 100, 1.5


def numeric(expr: Any, values: Values, shape: tuple[int, ...] = ()) -> Array:
    """An expression at numbers or arrays, complex."""
    expr = sympify(expr)
    made, leaves = _compiled(expr)
    found = np.asarray(made(*(values[s] for s in leaves)), complex)
    return np.array(np.broadcast_to(found, shape)) if shape else found


@lru_cache(maxsize=4096)
def _compiled(expr: Expr) -> tuple[Callable[..., Any], tuple[Basic, ...]]:
    """A numpy function of the symbols of an expression, and the symbols."""
    leaves = tuple(sorted(expr.free_symbols, key=str))
    marks = [Dummy(f"a{k}") for k in range(len(leaves))]
    return lambdify(marks, expr.xreplace(dict(zip(leaves, marks, strict=True))), modules="scipy"), leaves


# -- explicit units ------------------------------------------------------------------------------------------------
@dataclass
class Sites:
    """A few explicit units of every population: labels and matrices as arrays."""

    values: dict[Basic, Any]
    sizes: dict[Population, int]
    atoms: dict[str, Array]

    @classmethod
    def of(
        cls, values: Values, populations: Iterable[Population], atoms: Iterable[RandomMatrix], exprs: Iterable[Expr],
        rng: np.random.Generator, size: float,
    ) -> Sites:  # fmt: skip
        """Random numbers for everything; populations of different sizes, so that no transpose goes unnoticed."""
        sizes = {p: UNITS + k for k, p in enumerate(dict.fromkeys(populations))}
        z = complex(rng.normal(), rng.normal()) + 2
        numbers: dict[Basic, Any] = {**values, N: size, Z: z, ZBAR: z.conjugate()}
        labels = {s for e in exprs for s in e.free_symbols if isinstance(s, Quenched)}
        for q in sorted(labels, key=str):
            numbers[q] = rng.uniform(0.2, 0.9, sizes[q.population])
        return cls(numbers, sizes, {a.name: rng.normal(size=(sizes[a.rows], sizes[a.cols])) for a in atoms})

    def vector(self, expr: Expr, population: Population) -> Array:
        """A unit quantity, (units,)."""
        return numeric(expr, self.values, (self.sizes[population],))

    def matrix(self, expr: Matrix) -> Array:
        """A matrix expression, word by word."""
        total = np.zeros((self.sizes[expr.rows], self.sizes[expr.cols]), complex)
        for coefficient, word in expr.terms:
            product = np.eye(self.sizes[expr.rows], dtype=complex)
            for factor in word:
                product = product @ self._factor(factor)
            total += complex(numeric(coefficient, self.values)) * product
        return total

    def _factor(self, factor: Matrix) -> Array:
        if isinstance(factor, Diag):
            return np.diag(self.vector(factor.vector, factor.rows))
        if isinstance(factor, Outer):
            return np.outer(self.vector(factor.left, factor.rows), self.vector(factor.right, factor.cols))
        if isinstance(factor, Inverse):
            return np.linalg.inv(self.matrix(factor.matrix))
        if isinstance(factor, Transpose):
            return self.atoms[factor.matrix.name].T
        if isinstance(factor, RandomMatrix):
            return self.atoms[factor.name]
        raise NotCovered(f"{factor} has no explicit matrix: not compared")

    def pencil(self, pencil: Pencil) -> Array:
        """The block matrix of a pencil."""
        edges = np.concatenate([[0], np.cumsum([self.sizes[p] for p in pencil.blocks])])
        out = np.zeros((edges[-1], edges[-1]), complex)

        def add(i: int, j: int, block: Array) -> None:
            out[edges[i] : edges[i + 1], edges[j] : edges[j + 1]] += block

        for i, j, value in pencil.bare:
            add(i, j, np.diag(self.vector(value, pencil.blocks[i])))
        for o in pencil.occurrences:
            atom = self.atoms[o.atom.name].T if o.transposed else self.atoms[o.atom.name]
            left, right = self.vector(o.left, pencil.blocks[o.row]), self.vector(o.right, pencil.blocks[o.col])
            add(o.row, o.col, complex(numeric(o.coefficient, self.values)) * left[:, None] * atom * right)
        for r in pencil.ranks:
            left, right = self.vector(r.left, pencil.blocks[r.row]), self.vector(r.right, pencil.blocks[r.col])
            add(r.row, r.col, complex(numeric(r.coefficient, self.values)) * np.outer(left, right))
        return out


def sites_of(pencil: Pencil, values: Values, rng: np.random.Generator, size: float = 7.0) -> Sites:
    """Explicit units for everything that a pencil speaks of."""
    exprs = [v for *_, v in pencil.bare] + [e for o in pencil.occurrences for e in (o.left, o.right)]
    exprs += [e for r in pencil.ranks for e in (r.left, r.right)]
    return Sites.of(values, pencil.blocks, [o.atom for o in pencil.occurrences], exprs, rng, size)


def linearise_deviation(declared: Spectrum, pencil: Pencil, values: Values, rng: np.random.Generator) -> float:
    """(z − M)⁻¹ of explicit blocks against the corner of the inverse of the pencil."""
    exprs = [leaf for block in declared.blocks.values() for leaf in block.atoms(Quenched)]
    spaces = [*declared.populations, *(p for m in declared.matrices for p in (m.rows, m.cols))]
    sites = Sites.of(values, spaces, declared.matrices, exprs, rng, 7.0)
    rows = []
    for p in declared.heads:
        row = []
        for q in declared.heads:
            shape = sites.sizes[population_of(p)], sites.sizes[population_of(q)]
            own = sites.values[Z] * np.eye(*shape) if p == q else np.zeros(shape)
            row.append(own - sites.matrix(declared.blocks[p, q]) if (p, q) in declared.blocks else own)
        rows.append(row)
    expected = np.linalg.inv(np.block(rows))
    return relative(np.linalg.inv(sites.pencil(pencil))[: len(expected), : len(expected)], expected)


def hermitise_deviation(before: Pencil, after: Pencil, values: Values, rng: np.random.Generator) -> float:
    """The doubled pencil of explicit blocks against [[0, L], [L†, 0]]."""
    sites = sites_of(before, values, rng)
    L = sites.pencil(before)
    zero = np.zeros_like(L)
    # The doubled pencil keeps the finite-rank parts of L: they move no more than single eigenvalues.
    bare = Pencil(before.blocks, before.heads, before.bare, before.occurrences, (), before.parameters)
    ranks = np.zeros((2 * len(L), 2 * len(L)), complex)
    ranks[: len(L), : len(L)] = L - sites.pencil(bare)
    L = sites.pencil(bare)
    return relative(sites.pencil(after), np.block([[zero, L], [L.conj().T, zero]]) + ranks)


# -- disorder average ----------------------------------------------------------------------------------------------
def pair_deviation(pencil: Pencil, problem: DysonProblem, values: Values, rng: np.random.Generator) -> float:
    """Exact E[W 𝒢 W] over explicit units, 𝒢 random and diagonal in units, against the self-energy; and E[W]."""
    sites = sites_of(pencil, values, rng, LARGE)
    G = {
        (j, k): rng.normal(size=(sites.sizes[p], 2)) @ [1, 1j]
        for j, p in enumerate(pencil.blocks)
        for k, q in enumerate(pencil.blocks)
        if p == q
    }
    worst = _carried(pencil, problem, sites_of(pencil, values, rng))
    for i, p in enumerate(pencil.blocks):
        for l, q in enumerate(pencil.blocks):
            if p == q:
                for x in range(sites.sizes[p]):
                    exact = _averaged(pencil, sites, G, i, l, x)
                    worst = max(worst, relative(_claimed(pencil, problem, sites, G, i, l, x), exact, 1.0))
    return worst


def _carried(pencil: Pencil, problem: DysonProblem, sites: Sites) -> float:
    """What the equation takes over: sizes of populations, the deterministic part, finite-rank parts and means."""
    spaces = list(dict.fromkeys(pencil.blocks))
    sizes = [complex(numeric(p.count / N, sites.values)) for p in spaces]
    claimed = [complex(numeric(s.fraction, sites.values)) for s in problem.spaces]
    n = len(pencil.blocks)
    whole = Pencil(pencil.blocks, pencil.heads, problem.bare, (), (), pencil.parameters)
    declared = Pencil(pencil.blocks, pencil.heads, pencil.bare, (), (), pencil.parameters)
    found = [relative(claimed, sizes), relative(sites.pencil(whole), sites.pencil(declared))]
    exact = {(i, j): _rank(sites, pencil, pencil.ranks, i, j) for i in range(n) for j in range(n)}
    for o in pencil.occurrences:
        left, right = sites.vector(o.left, pencil.blocks[o.row]), sites.vector(o.right, pencil.blocks[o.col])
        mean = complex(numeric(_mean(o.atom), sites.values))
        exact[o.row, o.col] = exact[o.row, o.col] + complex(numeric(o.coefficient, sites.values)) * mean * np.outer(
            left, right
        )
    for (i, j), block in exact.items():
        scale = float(np.abs(block).max()) or 1.0
        found.append(relative(_rank(sites, pencil, problem.ranks, i, j) / scale, block / scale, 1.0))
    return max(found)


def _rank(sites: Sites, pencil: Pencil, ranks: Any, i: int, j: int) -> Array:
    total = np.zeros((sites.sizes[pencil.blocks[i]], sites.sizes[pencil.blocks[j]]), complex)
    for r in ranks:
        if (r.row, r.col) == (i, j):
            left, right = sites.vector(r.left, pencil.blocks[i]), sites.vector(r.right, pencil.blocks[j])
            total = total + complex(numeric(r.coefficient, sites.values)) * np.outer(left, right)
    return total


def _averaged(pencil: Pencil, sites: Sites, G: dict[tuple[int, int], Array], i: int, l: int, x: int) -> complex:
    """N·E[W 𝒢 W] at (i, x), (l, x): sums over pairs of occurrences and over units, own entries left out."""
    total = 0j
    for a in (o for o in pencil.occurrences if o.row == i):
        for b in (o for o in pencil.occurrences if o.col == l):
            if pencil.blocks[a.col] != pencil.blocks[b.row]:
                continue
            space = pencil.blocks[a.col]
            left, right = sites.vector(a.left, pencil.blocks[i]), sites.vector(b.right, pencil.blocks[l])
            inner = sites.vector(a.right, space) * G[a.col, b.row] * sites.vector(b.left, space)
            factor = complex(numeric(a.coefficient * b.coefficient, sites.values))
            for u in range(sites.sizes[space]):
                if space != pencil.blocks[i] or u != x:
                    total += factor * left[x] * inner[u] * right[x] * _covariance(a, b, x, u, sites)
    return total


def _claimed(
    pencil: Pencil, problem: DysonProblem, sites: Sites, G: dict[tuple[int, int], Array], i: int, l: int, x: int
) -> complex:
    """The same from the scalars of the Dyson equation, averages over labels as sums over units."""
    total = 0j
    for f in problem.feedback:
        if (f.row, f.col) != (i, l):
            continue
        unknown = problem.unknowns[f.unknown]
        space = list(dict.fromkeys(pencil.blocks))[unknown.space]
        inner = sites.vector(unknown.weight, space) * G[unknown.j, unknown.k]
        others = [u for u in range(sites.sizes[space]) if space != pencil.blocks[i] or u != x]
        total += sites.vector(f.coefficient, pencil.blocks[i])[x] * inner[others].sum()
    return total


def _covariance(a: Occurrence, b: Occurrence, x: int, u: int, sites: Sites) -> float:
    """N·Cov of the entries of two occurrences at (x, u) and at (u, x), from the declared laws."""
    first = (u, x) if a.transposed else (x, u)
    second = (x, u) if b.transposed else (u, x)
    same, turned = first == second, first == second[::-1]
    if a.atom == b.atom:
        if isinstance(a.atom, Iid):
            return float(same * numeric(a.atom.law.variance_(), sites.values).real)
        assert isinstance(a.atom, Gaussian)
        variance, symmetry = (numeric(e, sites.values).real for e in (a.atom.variance, a.atom.symmetry))
        return float(variance * (same + symmetry * turned * (not same)))
    spaces = (a.atom.rows, a.atom.cols) == (b.atom.rows, b.atom.cols)
    if not (same and spaces and isinstance(a.atom, Gaussian) and isinstance(b.atom, Gaussian)):
        return 0.0
    rho = a.atom.correlation.get(b.atom, b.atom.correlation.get(a.atom, 0))
    size = numeric(a.atom.variance, sites.values).real * numeric(b.atom.variance, sites.values).real
    return float(numeric(rho, sites.values).real * np.sqrt(size))


def _mean(atom: RandomMatrix) -> Expr:
    """Mean of an entry."""
    if isinstance(atom, Gaussian):
        return atom.mean / N
    return atom.law.mean_() / N ** sympify("1/2") if isinstance(atom, Iid) else sympify(0)


# -- Dyson equations on a few labels -------------------------------------------------------------------------------
@dataclass
class Labelled:
    """A Dyson equation on a few label nodes with random weights, at a z (and η) where its iteration contracts."""

    values: dict[Basic, Any]
    weights: list[Array]
    eta: float
    cache: dict[Any, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: DysonProblem, values: Values, rng: np.random.Generator) -> Labelled:
        weights = [w / w.sum() for w in rng.uniform(0.5, 1.5, (len(problem.spaces), NODES))]
        numbers: dict[Basic, Any] = {**values, N: LARGE}
        for space in problem.spaces:
            for label in space.labels:
                numbers[label.symbol] = rng.uniform(0.2, 0.9, NODES)
        angle = complex(np.exp(1j * rng.uniform(0.3, 1.2)))
        numbers[Z], numbers[ZBAR] = angle, angle.conjugate()
        made = cls(numbers, weights, 0.0)
        reach = DISTANCE * made._size(problem)
        numbers[Z], numbers[ZBAR] = reach * angle, reach * angle.conjugate()
        return cls(numbers, weights, reach if problem.half is not None else 0.0)

    def _size(self, problem: DysonProblem) -> float:
        bare = [float(np.abs(numeric(v, self.values)).max()) for *_, v in problem.bare]
        noise = [float(np.abs(numeric(f.coefficient, self.values)).max()) for f in problem.feedback]
        return max(bare, default=1.0) + sum(noise) ** 0.5

    def propagator(self, problem: DysonProblem, t: Array, space: int) -> dict[tuple[int, int], Array]:
        """𝒢 of one space, (nodes,) for every pair of its blocks."""
        blocks = [b for b, s in enumerate(problem.blocks) if s == space]
        place = {b: k for k, b in enumerate(blocks)}
        matrix = np.zeros((NODES, len(blocks), len(blocks)), complex)
        for i, j, value in problem.bare:
            if i in place:
                matrix[:, place[i], place[j]] += self.known(value)
        for f in problem.feedback:
            if f.row in place:
                matrix[:, place[f.row], place[f.col]] -= self.known(f.coefficient) * t[f.unknown]
        inverse = np.linalg.inv(matrix - 1j * self.eta * np.eye(len(blocks)))
        return {(i, j): inverse[:, place[i], place[j]] for i in blocks for j in blocks}

    def image(self, problem: DysonProblem, t: Array) -> Array:
        """The scalars that a set of scalars leads to."""
        G = [self.propagator(problem, t, s) for s in range(len(problem.spaces))]
        return np.array([self.average(problem, u, G) for u in problem.unknowns], complex)

    def average(self, problem: DysonProblem, u: Any, G: list[dict[tuple[int, int], Array]]) -> complex:
        """One scalar."""
        weight = self.known(u.weight) * self.weights[u.space]
        fraction = self.known(problem.spaces[u.space].fraction)[0]
        return complex(fraction * (weight @ G[u.space][u.j, u.k]))

    def known(self, expr: Any) -> Array:
        """An expression at the label nodes, (nodes,), computed once."""
        if expr not in self.cache:
            self.cache[expr] = numeric(expr, self.values, (NODES,))
        return self.cache[expr]

    def solve(self, problem: DysonProblem) -> Array:
        """Iterate from zero."""
        t = np.zeros(len(problem.unknowns), complex)
        for _ in range(ITERATIONS):
            t = (t + self.image(problem, t)) / 2
        if not relative(self.image(problem, t), t, 1.0) < 1e-12:
            raise NotCovered("the Dyson equation does not contract at these numbers: not compared")
        return t

    def mean(self, expr: Expr, problem: DysonProblem, extra: Values) -> complex:
        """An expression with label averages in it."""
        numbers: dict[Basic, Any] = {**self.values, **extra}
        table = {}
        for k, node in enumerate(sorted(expr.atoms(LabelMean), key=str)):
            labels = {s for s in node.body.free_symbols if isinstance(s, Quenched)}
            owner = next(
                k
                for k, s in enumerate(problem.spaces)
                if any(x.symbol.free() in labels or x.symbol in labels for x in s.labels)
            )
            table[node] = Symbol(f"mean_{k}")
            numbers[table[node]] = complex(self.weights[owner] @ numeric(node.body, numbers, (NODES,)))
        return complex(numeric(expr.xreplace(table), numbers))


def _invertible(problem: DysonProblem, place: Labelled) -> bool:
    try:
        place.image(problem, np.zeros(len(problem.unknowns)))
    except np.linalg.LinAlgError:
        return False
    return True


def zeros_deviation(
    before: DysonProblem, after: DysonProblem, values: Values, rng: np.random.Generator
) -> float | None:
    """𝒢 from the equations with all scalars and with those that are left."""
    place = Labelled.of(before, values, rng)
    if not _invertible(before, place):
        return None
    worst = relative(
        [complex(numeric(s.fraction, place.values)) for s in after.spaces],
        [complex(numeric(s.fraction, place.values)) for s in before.spaces],
    )
    full, reduced = place.solve(before), place.solve(after)
    for space in range(len(before.spaces)):
        one, two = place.propagator(before, full, space), place.propagator(after, reduced, space)
        worst = max(worst, *(relative(two[at], one[at], 1e-4) for at in one))
    for r, s in zip(before.ranks, after.ranks, strict=True):
        sizes = [complex(numeric(x.coefficient * N, {**place.values, N: 7.0})) for x in (r, s)]
        worst = max(worst, relative(sizes[1], sizes[0]))
    return worst


def eliminate_deviation(
    problem: DysonProblem, form: ScalarEquations, values: Values, rng: np.random.Generator
) -> float | None:
    """Scalars, their eliminated partners, the entries of 𝒢 and g(z) at a solution of the Dyson equation."""
    place = Labelled.of(problem, values, rng)
    if not _invertible(problem, place):
        return None
    t = place.solve(problem)
    known: dict[Basic, Any] = {u.symbol: t[k] for k, u in enumerate(problem.unknowns)}
    if {s for s, _ in (*form.equations, *form.solved)} != set(known):
        return float("inf")
    worst = 0.0
    for symbol, value in (*form.equations, *form.solved):
        worst = max(worst, relative(place.mean(value, problem, known), known[symbol]))
    G = [place.propagator(problem, t, s) for s in range(len(problem.spaces))]
    for (j, k), entry in form.entries.items():
        claimed = numeric(entry, {**place.values, **known}, (NODES,))
        worst = max(worst, relative(claimed, G[problem.blocks[j]][j, k], 1e-3))
    sizes = [complex(numeric(problem.spaces[problem.blocks[h]].fraction, place.values)) for h in problem.heads]
    parts = [
        f * (place.weights[problem.blocks[h]] @ G[problem.blocks[h]][h, h])
        for f, h in zip(sizes, problem.heads, strict=True)
    ]
    return max(worst, relative(place.mean(form.resolvent, problem, known), sum(parts) / sum(sizes)))


def boundary_deviation(doubled: DysonProblem, form: Boundary, values: Values, rng: np.random.Generator) -> float | None:
    """Finite differences of the doubled equation at η = 0 in the scalars that vanish outside."""
    place = Labelled.of(doubled, values, rng)
    slopes = upper_slopes(doubled, place)
    if slopes is None:
        return None
    known = scalars_at(form.scalars, doubled, place)
    worst = 0.0
    for column, slope in enumerate(slopes.T):
        claimed = [place.mean(form.table[row][column], doubled, known) for row in range(len(slopes))]
        floor = 1e-6 * float(np.abs(slope).max()) or 1.0
        worst = max(worst, *(relative(c, e, max(abs(e), floor)) for c, e in zip(claimed, slope, strict=True)))
    return worst


def upper_slopes(doubled: DysonProblem, place: Labelled) -> Array | None:
    """Derivatives of the scalars that vanish outside in each other, by differences of the doubled equation at η = 0."""
    place.eta = 0.0
    upper = [k for k, u in enumerate(doubled.unknowns) if u.sector == "upper"]
    if not _invertible(doubled, place) or not upper:
        return None
    t, step = place.solve(doubled), 1e-4
    columns = []
    for v in upper:
        moved = [place.image(doubled, t + sign * step * (np.arange(len(t)) == v)) for sign in (1, -1)]
        columns.append((moved[0] - moved[1])[upper] / (2 * step))
    return np.array(columns).T


def scalars_at(form: ScalarEquations, problem: DysonProblem, place: Labelled) -> dict[Basic, Any]:
    """The scalars of the resolvent and their complex conjugates, iterated from zero."""
    known: dict[Basic, Any] = {symbol: 0j for symbol, _ in form.equations}
    for _ in range(ITERATIONS):
        known = {s: (known[s] + place.mean(value, problem, known)) / 2 for s, value in form.equations}
    conjugates = {Symbol(rf"\bar{{{s.name[0]}}}{s.name[1:]}"): np.conj(v) for s, v in known.items()}
    return known | conjugates


# -- Fourier modes -------------------------------------------------------------------------------------------------
def modes_deviation(declared: Spectrum, after: Spectrum, values: Values) -> float:
    """Eigenvalues of explicit translation-invariant matrices of 7 sites against the diagonals that stand for them."""
    angles = 2 * np.pi * np.arange(7) / 7
    shift = np.arange(7)[:, None] - np.arange(7)
    diagonals = [f for block in after.blocks.values() for _, word in block.terms for f in word if isinstance(f, Diag)]
    worst = 0.0
    for atom in (m for m in declared.matrices if isinstance(m, Circulant)):
        table = numeric(atom.eigenvalue, {**values, ANGLE: angles}, (7,))
        entries = (table[:, None, None] * np.exp(1j * angles[:, None, None] * shift)).sum(axis=0) / 7
        exact = np.sort_complex(np.round(np.linalg.eigvals(entries), 9))
        found = []
        for d in diagonals:
            names = [s for s in d.vector.free_symbols if isinstance(s, Quenched) and s.population == atom.rows]
            if len(names) == 1:
                claimed = numeric(d.vector, {**values, names[0]: angles}, (7,))
                found.append(relative(np.sort_complex(np.round(claimed, 9)), exact, 1.0))
        worst = max(worst, min(found, default=float("inf")))
    return worst
