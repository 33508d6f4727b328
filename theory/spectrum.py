"""The head `Spectrum`: a square matrix expression whose eigenvalues are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sympy import Basic, Expr, I, S, Symbol, default_sort_key, sympify

from quenched.theory.algebra import Diag, Matrix, Outer, Transpose, combine
from quenched.theory.checks import check_domain, check_laws, check_names
from quenched.theory.couplings import Gaussian, RandomMatrix
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import Quenched, UnitSymbol
from quenched.theory.indices import entry_law, entry_law_latex
from quenched.theory.record import Form, Line
from quenched.theory.render import latex, text
from quenched.theory.spaces import Population
from quenched.theory.substitute import (
    canonical,
    content_key,
    matrices_of,
    parameters_of,
    substitute,
    unit_symbols_of,
    walk,
)

Blocks = dict[tuple[Population, Population], Matrix]


class Spectrum:
    """Eigenvalues of a matrix expression as N → ∞.

    Parameters
    ----------
    matrix : matrix expression, or dict of (rows, columns) to matrix expression
        Sums, products and transposes of `Gaussian` and `Iid` matrices, ``diag`` of `Quenched` quantities, ``outer``,
        ``eye`` and scalars; a dict gives the blocks of a matrix over several populations (those left out are zero).
    name : str, optional
    defaults : dict of symbol or name to number, optional

    Attributes
    ----------
    blocks : dict of (rows, columns) to Matrix
    populations : tuple of Population, in order of their blocks
    hermitian : bool
        Whether the matrix equals its transpose by construction.
    matrices, quenched : random matrices and quenched quantities in it
    parameters : tuple of Symbol, sorted by name

    Raises
    ------
    QuenchedError
        For something that is no square matrix.
    NotCovered
        For parts whose spectrum is not built.

    Examples
    --------
    >>> from sympy import symbols
    >>> from quenched.theory import Gaussian, Quenched, Spectrum, Uniform, diag, eye
    >>> g = symbols("g", positive=True)
    >>> Spectrum(g * Gaussian("J") @ diag(Quenched("d", Uniform(0, 1))) - eye).hermitian
    False
    """

    def __init__(self, matrix: Any, name: str | None = None, defaults: Mapping[Any, Any] | None = None) -> None:
        self.blocks: Blocks = _as_blocks(matrix)
        self.populations: tuple[Population, ...] = tuple(dict.fromkeys(p for pair in self.blocks for p in pair))
        self.name = name
        nodes = self._nodes
        self.matrices: tuple[RandomMatrix, ...] = tuple(matrices_of(*nodes))
        self.quenched: tuple[Quenched, ...] = tuple(unit_symbols_of(Quenched, *nodes))
        self.parameters: tuple[Symbol, ...] = tuple(sorted(parameters_of(*nodes), key=lambda s: s.name))
        self._check()
        self.defaults: dict[Symbol, Any] = {}
        self.defaults = self._assignment(defaults or {}, "default")

    @property
    def _nodes(self) -> tuple[Basic, ...]:
        return tuple(self.blocks.values())

    def _check(self) -> None:
        nodes = self._nodes
        check_names(nodes)
        check_laws(nodes, {})
        for part in (p for node in nodes for p in walk(node)):
            if isinstance(part, UnitSymbol) and not isinstance(part, Quenched):
                raise NotCovered(
                    f"{part} in a Spectrum is no Quenched quantity: give its law, Quenched({part.name!r}, …)"
                )
            if isinstance(part, (Quenched, RandomMatrix)) and part.redraw is not None:
                raise QuenchedError(f"{part.name} in a Spectrum is drawn once: leave out redraw={part.redraw!r}")
            if isinstance(part, Population) and not part.extensive:
                raise NotCovered(f"population {part.name!r} in a Spectrum has a fixed size: give a fraction of N")

    @property
    def hermitian(self) -> bool:
        """Whether the matrix equals its conjugate transpose by construction."""
        if any(block.has(I) for block in self.blocks.values()):
            return False
        return all(
            (q, p) in self.blocks and _symmetric_form(block.T) == _symmetric_form(self.blocks[q, p])
            for (p, q), block in self.blocks.items()
        )

    def key(self) -> str:
        """Content key: 64 hexadecimal digits, equal in every process for equal declarations."""
        return content_key("spectrum", *(f"{p.name},{q.name}:{canonical(b)}" for (p, q), b in self.blocks.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spectrum) and self.key() == other.key()

    def __hash__(self) -> int:
        return int(self.key()[:15], 16)

    # -- parameters ------------------------------------------------------------------------------------------------
    def _assignment(self, given: Mapping[Any, Any], what: str) -> dict[Symbol, Any]:
        out: dict[Symbol, Any] = {}
        for key, value in given.items():
            symbol = next((s for s in self.parameters if key == s or key == s.name), None)
            if symbol is None:
                where = f" of {self.name}" if self.name else ""
                names = [s.name for s in self.parameters]
                raise QuenchedError(f"unknown {what} {str(key)!r}{where}: {nearest(str(key), names)}")
            if symbol in out:
                raise QuenchedError(f"{what} {symbol.name!r} is given twice")
            out[symbol] = check_domain(symbol, value)
        return out

    def fix(self, values: Mapping[Any, Any] | None = None, **named: Any) -> Spectrum:
        """A spectrum with some parameters replaced everywhere by numbers or expressions."""
        return self.rewritten(dict(self._assignment({**(values or {}), **named}, "parameter")))

    def rewritten(self, chosen: Mapping[Basic, Any]) -> Spectrum:
        """The spectrum with parts (parameters, matrices, …) replaced everywhere by others."""
        blocks = {
            (substitute(p, chosen), substitute(q, chosen)): substitute(block, chosen)
            for (p, q), block in self.blocks.items()
        }
        return Spectrum(blocks, self.name, {s: v for s, v in self.defaults.items() if s not in chosen})

    def values(self, params: Mapping[Any, Any] | None = None, **named: Any) -> dict[Symbol, float]:
        """Complete numeric values of all parameters: the given ones, then the defaults.

        Raises
        ------
        QuenchedError
            For an unknown name, a missing value, or a value outside its domain.
        """
        chosen = {**self.defaults, **self._assignment({**(params or {}), **named}, "parameter")}
        missing = [s.name for s in self.parameters if s not in chosen]
        if missing:
            raise QuenchedError(f"no value for {', '.join(missing)}: give {missing[0]}=…")
        numbers: dict[Symbol, float] = {}
        for symbol in self.parameters:
            value = sympify(chosen[symbol])
            if value.free_symbols:
                raise QuenchedError(f"parameter {symbol.name!r} needs a number, got {value}")
            numbers[symbol] = float(value)
        check_laws(self._nodes, numbers)
        return numbers

    # -- printing --------------------------------------------------------------------------------------------------
    def __str__(self) -> str:
        return "\n".join(line.text for line in SpectrumDeclaration(self).lines())

    __repr__ = __str__


@dataclass(frozen=True)
class SpectrumDeclaration(Form):
    """The declared matrix and the laws of what is in it."""

    name: ClassVar[str] = "declared matrix"
    spectrum: Spectrum

    def lines(self) -> list[Line]:
        blocks = self.spectrum.blocks
        out = []
        for (p, q), block in blocks.items():
            tag = "" if len(blocks) == 1 else f"_{p.name},{q.name}"
            out.append(Line(f"M{tag} = {text(block)}", f"M{f'_{{{tag[1:]}}}' if tag else ''} = {latex(block)}"))
        out += [Line(entry_law(m), entry_law_latex(m)) for m in self.spectrum.matrices]
        for q in self.spectrum.quenched:
            out.append(Line(f"{text(q)}_i ~ {text(q.law)}", rf"{latex(q)}_i \sim {latex(q.law)}"))
        for p in self.spectrum.populations:
            if p.name != "units" or p.fraction != 1:
                out.append(Line(f"{p.name}: {text(p.fraction)}·N units", rf"\mathrm{{{p.name}}}: {latex(p.count)}"))
        return out


def _as_blocks(given: Any) -> Blocks:
    if isinstance(given, Matrix):
        if given.rows != given.cols:
            raise QuenchedError(
                f"Spectrum takes a square matrix, got {given} ({given.rows.name} × {given.cols.name}): "
                "singular values are the spectrum of M @ M.T"
            )
        return {(given.rows, given.cols): given}
    if not isinstance(given, Mapping) or not given:
        raise QuenchedError(f"Spectrum takes a matrix expression or a dict of its blocks, got {given!r}")
    blocks: Blocks = {}
    for pair, block in given.items():
        if not isinstance(block, Matrix) or (block.rows, block.cols) != tuple(pair):
            raise QuenchedError(f"the block {pair!r} of a Spectrum should be a matrix over these populations: {block}")
        blocks[pair] = block
    return blocks


def _symmetric_form(matrix: Matrix) -> Matrix:
    """The matrix with the transposes of symmetric atoms (``symmetry=1``) replaced by the atoms, words sorted."""
    terms: list[tuple[Expr, tuple[Matrix, ...]]] = []
    for coefficient, word in matrix.terms:
        terms.append((coefficient, merge_diagonals(tuple(_untransposed(f) for f in word))))
    terms.sort(key=lambda term: [default_sort_key(f) for f in term[1]])
    return combine(terms, matrix.rows, matrix.cols)


def _untransposed(factor: Matrix) -> Matrix:
    if isinstance(factor, Transpose):
        atom = factor.matrix
        if isinstance(atom, Gaussian) and atom.symmetry == 1:
            return atom
    return factor


def merge_diagonals(word: tuple[Matrix, ...]) -> tuple[Matrix, ...]:
    """Neighbouring diagonal factors multiplied into one."""
    out: list[Matrix] = []
    for factor in word:
        if isinstance(factor, Diag) and out and isinstance(out[-1], Diag):
            out[-1] = Diag(out[-1].vector * factor.vector, factor.rows)
        else:
            out.append(factor)
    return tuple(out)


def is_link(factor: Matrix) -> bool:
    """Whether a factor joins units of two index sets (a random matrix or a column times a row)."""
    return isinstance(factor, (RandomMatrix, Transpose, Outer))


def diagonal_of(factors: list[Matrix]) -> Expr:
    """Product of diagonal factors, 1 if there are none."""
    out: Expr = S.One
    for factor in factors:
        if not isinstance(factor, Diag):
            raise NotCovered(f"{factor} in a Spectrum is neither a random matrix, nor diagonal, nor of rank one")
        out = out * factor.vector
    return out
