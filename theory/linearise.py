"""Linearise a matrix expression: a larger matrix, affine in the atoms, whose corner inverse is the resolvent.

A word A₁A₂…A_m gets m − 1 auxiliary blocks, [[z, −A₁], [−A₂, 1]] for two factors, so the size stays linear in the
number of products (Helton, Mai and Speicher, J. Funct. Anal. 274, 2018). An inverse in a word is a block whose own
entry is what is inverted: [[z, −A], [−B, M]] for A M⁻¹ B. The pencil is checked by its own Schur complement in
non-commuting symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Expr, I, ImmutableDenseMatrix, Rational, S, Symbol, expand, eye, zeros

from quenched.theory.algebra import Diag, Inverse, Matrix, Outer, Transpose
from quenched.theory.couplings import RandomMatrix
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.problem_dyson import ZBAR, RankOne, Z
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.spaces import Population
from quenched.theory.spectrum import SpectrumDeclaration


@dataclass(frozen=True)
class Occurrence:
    """One place of an atom: the pencil contains coefficient · diag(left) · A · diag(right) at (row, col)."""

    row: int
    col: int
    coefficient: Expr
    left: Expr
    atom: RandomMatrix
    transposed: bool
    right: Expr

    def factor(self) -> Matrix:
        """The atom as it stands there."""
        return Transpose(self.atom) if self.transposed else self.atom


@dataclass(frozen=True)
class Pencil(Form):
    """A block matrix that is affine in the atoms.

    Attributes
    ----------
    blocks : population of every block
    heads : the blocks of the declared matrix
    bare : (row, col, value) of the deterministic part, values in unit quantities and z
    occurrences : places of the atoms
    ranks : finite-rank parts
    half : number of blocks of L if this is the doubled pencil [[0, L], [L†, 0]], else None
    """

    name: ClassVar[str] = "linear pencil"
    blocks: tuple[Population, ...]
    heads: tuple[int, ...]
    bare: tuple[tuple[int, int, Expr], ...]
    occurrences: tuple[Occurrence, ...]
    ranks: tuple[RankOne, ...]
    parameters: tuple[Symbol, ...]
    half: int | None = None

    def lines(self) -> list[Line]:
        if self.half is not None:
            size = self.half
            return [
                Line("Y = [[0, L], [L†, 0]]", r"Y = \begin{pmatrix} 0 & L \\ L^\dagger & 0 \end{pmatrix}"),
                Line(
                    "𝒢 = (Y − iη)⁻¹,   η → 0⁺",
                    r"\mathcal{G} = (Y - i\eta)^{-1}",
                    f"{2 * size} blocks; its lower left part is L⁻¹",
                ),
            ]
        table = self.table()
        rows = ["[" + ", ".join(cell[0] for cell in row) + "]" for row in table]
        tex = r" \\ ".join(" & ".join(cell[1] for cell in row) for row in table)
        return [
            Line(f"L = [{', '.join(rows)}]", rf"L = \begin{{pmatrix}} {tex} \end{{pmatrix}}"),
            Line("(L⁻¹) on the first blocks = (z − M)⁻¹", r"(L^{-1})_{\text{first blocks}} = (z - M)^{-1}"),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for field in ("bare", "occurrences", "ranks"):
            parts = getattr(self, field)
            for k, part in enumerate(parts):
                dropped: dict[str, Any] = {field: (*parts[:k], *parts[k + 1 :])}
                larger: dict[str, Any] = {field: (*parts[:k], _larger(part), *parts[k + 1 :])}
                yield f"{field} {k} dropped", replace(self, **dropped)
                yield f"{field} {k} × 1.1", replace(self, **larger)

    def table(self) -> list[list[tuple[str, str]]]:
        """Entries in text and LaTeX."""
        parts: dict[tuple[int, int], list[tuple[str, str]]] = {}
        for i, j, value in self.bare:
            parts.setdefault((i, j), []).append((text(value), latex(value)))
        for o in self.occurrences:
            parts.setdefault((o.row, o.col), []).append(_shown(o.coefficient, o.left, o.factor(), o.right))
        for r in self.ranks:
            outer = Outer(r.left, r.right, self.blocks[r.row], self.blocks[r.col])
            parts.setdefault((r.row, r.col), []).append(_shown(r.coefficient, S.One, outer, S.One))
        n = len(self.blocks)
        cells = [[parts.get((i, j), [("0", "0")]) for j in range(n)] for i in range(n)]
        return [
            [
                (" + ".join(p for p, _ in c).replace("+ -", "− "), " + ".join(q for _, q in c).replace("+ -", "- "))
                for c in r
            ]
            for r in cells
        ]


def _larger(part: Any) -> Any:
    """An entry of a pencil × 1.1."""
    tenth = Rational(11, 10)
    if isinstance(part, tuple):
        return (*part[:2], part[2] * tenth)
    return replace(part, coefficient=part.coefficient * tenth)


@dataclass(frozen=True)
class Linearise(Rule):
    """Auxiliary blocks make products linear."""

    title: ClassVar[str] = "Linearise the matrix expression"
    assumption: ClassVar[str] = "an auxiliary block for every further factor of a product, and for every inverse"
    source: ClassVar[str] = "helton2018"

    def __call__(self, before: Form) -> Pencil:
        assert isinstance(before, SpectrumDeclaration)
        pencil = linearise(before)
        check_schur(before, pencil)
        return pencil


def linearise(declared: SpectrumDeclaration) -> Pencil:
    """The pencil of a declared matrix."""
    spectrum = declared.spectrum
    build = _Builder(list(spectrum.populations))
    heads = tuple(range(len(spectrum.populations)))
    for h in heads:
        build.add(h, h, Z)
    for (p, q), matrix in spectrum.blocks.items():
        start, end = spectrum.heads.index(p), spectrum.heads.index(q)
        for coefficient, word in matrix.terms:
            build.place(start, end, -coefficient, word)
    entries = tuple((i, j, value) for (i, j), value in sorted(build.bare.items()) if value != 0)
    return Pencil(
        tuple(build.blocks), heads, entries, tuple(build.occurrences), tuple(build.ranks), spectrum.parameters
    )


class _Builder:
    """Collects the entries of a pencil. Auxiliary blocks are made in the order in which they are met."""

    def __init__(self, blocks: list[Population]) -> None:
        self.blocks = blocks
        self.bare: dict[tuple[int, int], Expr] = {}
        self.occurrences: list[Occurrence] = []
        self.ranks: list[RankOne] = []

    def add(self, row: int, col: int, value: Expr) -> None:
        self.bare[row, col] = self.bare.get((row, col), S.Zero) + value

    def place(self, row: int, col: int, coefficient: Expr, word: tuple[Matrix, ...]) -> None:
        """Make the Schur complement at (row, col) contain coefficient · word.

        A first factor A leads to a new block x with A x in this row, and x = (rest of the word) y in the new one; a
        first factor M⁻¹ to M x = (rest) y.
        """
        first, word = _diagonals(word)
        if not word:
            self.add(row, col, coefficient * first)
        elif isinstance(word[0], Inverse):
            block = self._block(word[0].rows)
            self.add(row, block, coefficient * first)
            self._solve(block, col, word[0], word[1:])
        else:
            link, (after, rest) = word[0], _diagonals(word[1:])
            to = self._block(link.cols) if rest else col
            self._atom(row, to, coefficient, first, link, after)
            if rest and isinstance(rest[0], Inverse):
                self._solve(to, col, rest[0], rest[1:])
            elif rest:
                self.add(to, to, S.One)
                self.place(to, col, S.NegativeOne, rest)

    def _solve(self, block: int, col: int, inverse: Inverse, rest: tuple[Matrix, ...]) -> None:
        """The row of a block: M x − (rest) y."""
        for coefficient, word in inverse.matrix.terms:
            self.place(block, block, coefficient, word)
        self.place(block, col, S.NegativeOne, rest)

    def _block(self, population: Population) -> int:
        self.blocks.append(population)
        return len(self.blocks) - 1

    def _atom(self, row: int, col: int, coefficient: Expr, left: Expr, link: Matrix, right: Expr) -> None:
        if isinstance(link, Outer):
            self.ranks.append(RankOne(row, col, coefficient, left * link.left, link.right * right))
            return
        transposed = isinstance(link, Transpose)
        atom = link.matrix if isinstance(link, Transpose) else link
        if not isinstance(atom, RandomMatrix):
            raise NotCovered(f"{link} in a Spectrum is neither a random matrix, nor diagonal, nor of rank one")
        self.occurrences.append(Occurrence(row, col, coefficient, left, atom, transposed, right))


def _diagonals(word: tuple[Matrix, ...]) -> tuple[Expr, tuple[Matrix, ...]]:
    """Product of the leading diagonal factors, and the rest of the word."""
    product: Expr = S.One
    for k, factor in enumerate(word):
        if not isinstance(factor, Diag):
            return product, word[k:]
        product = product * factor.vector
    return product, ()


# -- check ---------------------------------------------------------------------------------------------------------
def check_schur(declared: SpectrumDeclaration, pencil: Pencil) -> None:
    """The Schur complement on the heads must return z − M, in non-commuting symbols.

    Raises
    ------
    QuenchedError
        If it does not.
    """
    difference = schur_complement(pencil) - _noncommuting(declared)
    if any(expand(entry) != 0 for entry in difference):
        raise QuenchedError(f"the Schur complement of the pencil is not z − M: it differs by {difference}")


def schur_complement(pencil: Pencil) -> ImmutableDenseMatrix:
    """L with its auxiliary blocks eliminated, the last one first; every matrix is a non-commuting symbol."""
    n, h = len(pencil.blocks), len(pencil.heads)
    L = zeros(n, n)
    for i, j, value in pencil.bare:
        L[i, j] += _operator(value)
    for o in pencil.occurrences:
        L[o.row, o.col] += o.coefficient * _operator(o.left) * _atom(o.factor()) * _operator(o.right)
    for r in pencil.ranks:
        L[r.row, r.col] += r.coefficient * _operator(r.left) * _ONES * _operator(r.right)
    for k in reversed(range(h, n)):
        pivot = _inverse(L[k, k])
        for i in range(k):
            for j in range(k):
                if L[i, k] != 0 and L[k, j] != 0:
                    L[i, j] = expand(L[i, j] - L[i, k] * pivot * L[k, j])
    return ImmutableDenseMatrix(L[:h, :h].applyfunc(expand))


def _noncommuting(declared: SpectrumDeclaration) -> ImmutableDenseMatrix:
    """z − M, read off the declared words one factor at a time."""
    rows = declared.spectrum.heads
    out = Z * eye(len(rows))
    for (p, q), matrix in declared.spectrum.blocks.items():
        out[rows.index(p), rows.index(q)] -= _expression(matrix)
    return ImmutableDenseMatrix(out.applyfunc(expand))


def _expression(matrix: Matrix) -> Expr:
    """A matrix expression in non-commuting symbols."""
    total: Expr = S.Zero
    for coefficient, word in matrix.terms:
        product: Expr = coefficient
        pending: Expr = S.One  # neighbouring diagonal matrices commute
        for factor in word:
            if isinstance(factor, Diag):
                pending = pending * factor.vector
            elif isinstance(factor, Outer):
                product, pending = product * _operator(pending * factor.left) * _ONES, factor.right
            elif isinstance(factor, Inverse):
                product, pending = product * _operator(pending) * _inverse(_expression(factor.matrix)), S.One
            else:
                product, pending = product * _operator(pending) * _atom(factor), S.One
        total += product * _operator(pending)
    return expand(total)


def _inverse(value: Expr) -> Expr:
    """Inverse of an expression in non-commuting symbols: a symbol of its own, unless it is a number."""
    return 1 / value if value.is_commutative else Symbol(f"[{expand(value)}]⁻¹", commutative=False)


#: A column of ones times a row of ones.
_ONES = Symbol("|1⟩⟨1|", commutative=False)


def _operator(value: Expr) -> Expr:
    """A diagonal matrix as a combination of non-commuting symbols; numbers, parameters and z stay scalars."""
    terms = []
    for term in expand(value).as_ordered_terms():
        units = [s for s in term.free_symbols if hasattr(s, "population")]
        scalar, rest = term.as_independent(*units, as_Add=False) if units else (term, S.One)
        terms.append(scalar if rest == 1 else scalar * Symbol(f"<{rest}>", commutative=False))
    return sum(terms, S.Zero)


def _atom(factor: Matrix) -> Expr:
    return Symbol(f"{{{factor}}}", commutative=False)


# -- doubling ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Hermitise(Rule):
    """A Hermitian matrix of twice the size whose resolvent contains L⁻¹ wherever z is."""

    title: ClassVar[str] = "Hermitise"
    assumption: ClassVar[str] = "regularised by η in all blocks, η → 0 afterwards"
    source: ClassVar[str] = "feinberg1997"

    def __call__(self, before: Form) -> Pencil:
        assert isinstance(before, Pencil)
        return hermitise(before)


def hermitise(pencil: Pencil) -> Pencil:
    """Y = [[0, L], [L†, 0]]; atoms, labels and parameters are real, z and functions of labels need not be."""
    n = len(pencil.blocks)
    bare = [(i, n + j, v) for i, j, v in pencil.bare] + [(n + j, i, conjugated(v)) for i, j, v in pencil.bare]
    upper = [replace(o, col=n + o.col) for o in pencil.occurrences]
    lower = [
        replace(
            o,
            row=n + o.col,
            col=o.row,
            coefficient=conjugated(o.coefficient),
            left=conjugated(o.right),
            right=conjugated(o.left),
            transposed=not o.transposed,
        )
        for o in pencil.occurrences
    ]
    return replace(
        pencil,
        blocks=pencil.blocks * 2,
        bare=tuple(bare),
        occurrences=(*upper, *lower),
        half=n,
    )


def conjugated(value: Expr) -> Expr:
    """Complex conjugate: all symbols but z are real."""
    return value.xreplace({Z: ZBAR, ZBAR: Z, I: -I})


def _shown(coefficient: Expr, left: Expr, link: Matrix, right: Expr) -> tuple[str, str]:
    matrix = link
    if left != 1:
        matrix = Diag(left, link.rows) @ matrix
    if right != 1:
        matrix = matrix @ Diag(right, link.cols)
    matrix = coefficient * matrix
    return text(matrix), latex(matrix)
