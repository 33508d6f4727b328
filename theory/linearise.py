"""Linearise a matrix expression: a larger matrix, affine in the atoms, whose corner inverse is the resolvent.

A word A₁A₂…A_m gets m − 1 auxiliary blocks, [[z, −A₁], [−A₂, 1]] for two factors, so the size stays linear in the
number of products (Helton, Mai and Speicher, J. Funct. Anal. 274, 2018). The pencil is checked by its own Schur
complement in non-commuting symbols.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, I, ImmutableDenseMatrix, S, Symbol, expand, eye, zeros

from quenched.theory.algebra import Diag, Matrix, Outer, Transpose
from quenched.theory.couplings import RandomMatrix
from quenched.theory.errors import QuenchedError
from quenched.theory.problem_dyson import ZBAR, RankOne, Z
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.spaces import Population
from quenched.theory.spectrum import SpectrumDeclaration, diagonal_of, is_link


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


@dataclass(frozen=True)
class Linearise(Rule):
    """Auxiliary blocks make products linear."""

    title: ClassVar[str] = "Linearise the matrix expression"
    assumption: ClassVar[str] = "an auxiliary block for every further factor of a product"
    source: ClassVar[str] = "helton2018"

    def __call__(self, before: Form) -> Pencil:
        assert isinstance(before, SpectrumDeclaration)
        pencil = linearise(before)
        check_schur(before, pencil)
        return pencil


def linearise(declared: SpectrumDeclaration) -> Pencil:
    """The pencil of a declared matrix."""
    spectrum = declared.spectrum
    blocks = list(spectrum.populations)
    heads = tuple(range(len(blocks)))
    bare: dict[tuple[int, int], Expr] = {(h, h): Z for h in heads}
    occurrences: list[Occurrence] = []
    ranks: list[RankOne] = []
    for (p, q), matrix in spectrum.blocks.items():
        for coefficient, word in matrix.terms:
            start, end = blocks.index(p), blocks.index(q)
            first, links = chain(word)
            if not links:
                bare[start, end] = bare.get((start, end), S.Zero) - coefficient * first
                continue
            at, left = start, -coefficient
            for step, (link, after) in enumerate(links):
                last = step == len(links) - 1
                to = end if last else len(blocks)
                if not last:
                    blocks.append(link.cols)
                    bare[to, to] = S.One
                before_it = first if step == 0 else S.One
                _place(occurrences, ranks, at, to, left, before_it, link, after)
                at, left = to, S.NegativeOne
    entries = tuple((i, j, value) for (i, j), value in sorted(bare.items()) if value != 0)
    return Pencil(tuple(blocks), heads, entries, tuple(occurrences), tuple(ranks), spectrum.parameters)


def chain(word: tuple[Matrix, ...]) -> tuple[Expr, list[tuple[Matrix, Expr]]]:
    """A word as diag · link · diag · link · … : the first diagonal and (link, diagonal after it)."""
    diagonals: list[list[Matrix]] = [[]]
    links: list[Matrix] = []
    for factor in word:
        if is_link(factor):
            links.append(factor)
            diagonals.append([])
        else:
            diagonals[-1].append(factor)
    products = [diagonal_of(d) for d in diagonals]
    return products[0], list(zip(links, products[1:], strict=True))


def _place(
    occurrences: list[Occurrence],
    ranks: list[RankOne],
    row: int,
    col: int,
    coefficient: Expr,
    left: Expr,
    link: Matrix,
    right: Expr,
) -> None:
    if isinstance(link, Outer):
        ranks.append(RankOne(row, col, coefficient, left * link.left, link.right * right))
        return
    transposed = isinstance(link, Transpose)
    atom = link.matrix if isinstance(link, Transpose) else link
    assert isinstance(atom, RandomMatrix)
    occurrences.append(Occurrence(row, col, coefficient, left, atom, transposed, right))


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
    """L_hh − L_ha L_aa⁻¹ L_ah with L_aa = 1 + nilpotent, every matrix a non-commuting symbol."""
    n, h = len(pencil.blocks), len(pencil.heads)
    L = zeros(n, n)
    for i, j, value in pencil.bare:
        L[i, j] += _operator(value)
    for o in pencil.occurrences:
        L[o.row, o.col] += o.coefficient * _operator(o.left) * _atom(o.factor()) * _operator(o.right)
    for r in pencil.ranks:
        L[r.row, r.col] += r.coefficient * _operator(r.left) * _ONES * _operator(r.right)
    rest = eye(n - h) - L[h:, h:]
    inverse, power = eye(n - h), eye(n - h)
    for _ in range(n - h):
        power = (power * rest).applyfunc(expand)
        inverse += power
    return ImmutableDenseMatrix((L[:h, :h] - L[:h, h:] * inverse * L[h:, :h]).applyfunc(expand))


def _noncommuting(declared: SpectrumDeclaration) -> ImmutableDenseMatrix:
    """z − M, read off the declared words one factor at a time."""
    populations = declared.spectrum.populations
    out = Z * eye(len(populations))
    for (p, q), matrix in declared.spectrum.blocks.items():
        for coefficient, word in matrix.terms:
            product: Expr = coefficient
            pending: Expr = S.One  # neighbouring diagonal matrices commute
            for factor in word:
                if isinstance(factor, Diag):
                    pending = pending * factor.vector
                elif isinstance(factor, Outer):
                    product, pending = product * _operator(pending * factor.left) * _ONES, factor.right
                else:
                    product, pending = product * _operator(pending) * _atom(factor), S.One
            out[populations.index(p), populations.index(q)] -= product * _operator(pending)
    return ImmutableDenseMatrix(out.applyfunc(expand))


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
