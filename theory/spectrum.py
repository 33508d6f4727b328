"""The head `Spectrum`: a square matrix expression whose eigenvalues are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sympy import Basic, Expr, I, S, Symbol, default_sort_key, sympify

from quenched.theory.algebra import Diag, Inverse, Matrix, Transpose, combine
from quenched.theory.checks import check_domain, check_laws, check_names
from quenched.theory.couplings import Gaussian, RandomMatrix
from quenched.theory.eigenvalue_observables import NAMES, Count, Edge, Moment, OfEigenvalues
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import Field, Quenched, UnitSymbol
from quenched.theory.indices import entry_law, entry_law_latex
from quenched.theory.keywords import named_arguments
from quenched.theory.observables import Functional, Mean
from quenched.theory.record import Form, Line
from quenched.theory.render import latex, text
from quenched.theory.spaces import Population, as_expr
from quenched.theory.substitute import (
    canonical,
    content_key,
    imaginary,
    matrices_of,
    parameters_of,
    substitute,
    unit_symbols_of,
    walk,
)

#: A block row: a population, or one of several fields of its units.
Row = Population | Field
Blocks = dict[tuple[Row, Row], Matrix]


def population_of(row: Row) -> Population:
    """The population whose units make a block row."""
    return row if isinstance(row, Population) else row.population


class Spectrum:
    """Eigenvalues of a matrix expression as N → ∞.

    Parameters
    ----------
    matrix : matrix expression, or dict of (rows, columns) to matrix expression
        Sums, products, transposes and inverses of `Gaussian`, `Iid` and `Circulant` matrices, ``diag`` of `Quenched`
        quantities, ``outer``, ``eye`` and scalars; a dict gives the blocks of a matrix over several populations (those
        left out are zero). Fields as keys stand for several block rows of one population: quenched numbers over it are
        the same in all of them.
    name : str, optional
    defaults : dict of symbol or name to number, optional

    Attributes
    ----------
    blocks : dict of (row, column) to Matrix
    heads : block rows, populations or fields, in order
    populations : the population of every block row
    hermitian : bool
        Whether the matrix equals its transpose by construction.
    matrices, quenched : random matrices and quenched quantities in it
    parameters : tuple of Symbol, sorted by name
    observables : dict of str to Expr

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

    @named_arguments
    def __init__(self, matrix: Any, name: str | None = None, defaults: Mapping[Any, Any] | None = None) -> None:
        self.blocks: Blocks = _as_blocks(matrix)
        self.heads: tuple[Row, ...] = tuple(dict.fromkeys(p for pair in self.blocks for p in pair))
        self.populations: tuple[Population, ...] = tuple(population_of(r) for r in self.heads)
        self.name = name
        nodes = self._nodes
        self.matrices: tuple[RandomMatrix, ...] = tuple(matrices_of(*nodes))
        self.quenched: tuple[Quenched, ...] = tuple(unit_symbols_of(Quenched, *nodes))
        self.observables: dict[str, Expr] = {}
        self._collect()
        self._check()
        self.defaults: dict[Symbol, Any] = {}
        self.defaults = self._assignment(defaults or {}, "default")

    @property
    def _nodes(self) -> tuple[Basic, ...]:
        return tuple(self.blocks.values())

    def _collect(self) -> None:
        found = parameters_of(*self._nodes, *self.observables.values())
        self.parameters: tuple[Symbol, ...] = tuple(sorted(found, key=lambda s: s.name))

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
        if any(imaginary(block) for block in self.blocks.values()):
            return False
        return all(
            (q, p) in self.blocks and _symmetric_form(block.T) == _symmetric_form(self.blocks[q, p])
            for (p, q), block in self.blocks.items()
        )

    @property
    def standard(self) -> dict[str, Expr]:
        """What is observed where nothing is declared."""
        return {"edge_left": Edge("left"), "edge_right": Edge("right"), "moment_2": Moment(2)}

    def key(self) -> str:
        """Content key: 64 hexadecimal digits, equal in every process for equal declarations."""
        blocks = [f"{_tag(p)},{_tag(q)}:{canonical(b)}" for (p, q), b in self.blocks.items()]
        observed = [f"{name}:{canonical(expr)}" for name, expr in sorted(self.observables.items())]
        return content_key("spectrum", *blocks, *(["observables", *observed] if observed else []))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spectrum) and self.key() == other.key()

    def __hash__(self) -> int:
        return int(self.key()[:15], 16)

    # -- observables -----------------------------------------------------------------------------------------------
    def observe(self, **named: Any) -> Spectrum:
        """Declare observables by name; returns the spectrum itself.

        Parameters
        ----------
        **named : expressions in `Density`, `Count`, `Edge`, `Radius`, `Outlier`, `Moment` and parameters

        Raises
        ------
        QuenchedError
            For something that is not read off eigenvalues, or a name that is declared twice.
        """
        for name, given in named.items():
            expr = check_of_eigenvalues(name, given, self.hermitian)
            if self.observables.get(name, expr) != expr:
                raise QuenchedError(f"observable {name!r} is already declared as {self.observables[name]}")
            self.observables[name] = expr
        self._collect()
        check_names((*self._nodes, *self.observables.values()))
        return self

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
            (substitute(p, chosen), substitute(q, chosen)): multiplied_out(substitute(block, chosen))
            for (p, q), block in self.blocks.items()
        }
        fixed = Spectrum(blocks, self.name)
        fixed.observe(**{name: substitute(expr, chosen) for name, expr in self.observables.items()})
        fixed.defaults = {s: v for s, v in self.defaults.items() if s in fixed.parameters}
        return fixed

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
    def indexed(self) -> list[str]:
        """The matrix and the laws of what is in it, as lines of text."""
        return [line.text for line in SpectrumDeclaration(self).lines()]

    def indexed_latex(self) -> str:
        """The same as one LaTeX ``aligned`` block."""
        rows = [line.latex.replace(r" \sim ", r" &\sim ", 1) for line in SpectrumDeclaration(self).lines()]
        rows = [row if "&" in row else row.replace(" = ", " &= ", 1) for row in rows]
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def _repr_latex_(self) -> str:
        return self.indexed_latex()

    def __str__(self) -> str:
        return "\n".join(self.indexed())

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
            tag = "" if len(blocks) == 1 else f"_{_tag(p)},{_tag(q)}"
            out.append(Line(f"M{tag} = {text(block)}", f"M{f'_{{{tag[1:]}}}' if tag else ''} = {latex(block)}"))
        out += [Line(entry_law(m), entry_law_latex(m)) for m in self.spectrum.matrices]
        for q in self.spectrum.quenched:
            out.append(Line(f"{text(q)}_i ~ {text(q.law)}", rf"{latex(q)}_i \sim {latex(q.law)}"))
        for p in dict.fromkeys(self.spectrum.populations):
            if p.name != "units" or p.fraction != 1:
                out.append(Line(f"{p.name}: {text(p.fraction)}·N units", rf"\mathrm{{{p.name}}}: {latex(p.count)}"))
        return out


def check_of_eigenvalues(name: str, given: Any, hermitian: bool, of: str = "a Spectrum") -> Expr:
    """Check that an observable is an expression in functionals of eigenvalues, parameters and numbers."""
    expr = as_expr(given, f"observable {name}")
    found = expr.atoms(OfEigenvalues)
    others = expr.atoms(Functional, Mean) - found
    if others:
        thing = min(others, key=str)
        raise QuenchedError(
            f"observable {name!r} of {of} contains {thing}: {', '.join(NAMES)} are read off eigenvalues"
        )
    if not found or any(hasattr(s, "population") for s in expr.xreplace(dict.fromkeys(found, S.One)).free_symbols):
        raise QuenchedError(f"observable {name!r} of {of} should be made of {', '.join(NAMES)}, got {given}")
    for part in found:
        if not hermitian and isinstance(part, Count) and part.kind == "window":
            raise QuenchedError(
                f"observable {name!r}: the eigenvalues of this matrix are complex, {part} needs box= or disc="
            )
        if hermitian and part.has(I):
            raise QuenchedError(f"observable {name!r}: the eigenvalues of this matrix are real, {part} is not")
        if hermitian and isinstance(part, Count) and part.kind == "box":
            raise QuenchedError(f"observable {name!r}: the eigenvalues of this matrix are real, {part} needs window=")
    return expr


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
        if not isinstance(block, Matrix) or (block.rows, block.cols) != tuple(map(population_of, pair)):
            raise QuenchedError(f"the block {pair!r} of a Spectrum should be a matrix over these populations: {block}")
        blocks[pair] = block
    return blocks


def _tag(row: Row) -> str:
    """What a block row is called: its population, or its field and population."""
    if isinstance(row, Population):
        return row.name
    return row.name if row.population.name == "units" else f"{row.name}_{row.population.name}"


def multiplied_out(matrix: Matrix) -> Matrix:
    """The canonical form of an expression in which factors were replaced by sums."""
    total = combine([], matrix.rows, matrix.cols)
    for coefficient, word in matrix.terms:
        product = combine([(S.One, ())], matrix.rows, matrix.rows)
        for factor in word:
            product = product @ factor
        total = total + product * coefficient
    return total


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
    return Inverse(_symmetric_form(factor.matrix)) if isinstance(factor, Inverse) else factor


def merge_diagonals(word: tuple[Matrix, ...]) -> tuple[Matrix, ...]:
    """Neighbouring diagonal factors multiplied into one."""
    out: list[Matrix] = []
    for factor in word:
        if isinstance(factor, Diag) and out and isinstance(out[-1], Diag):
            out[-1] = Diag(out[-1].vector * factor.vector, factor.rows)
        else:
            out.append(factor)
    return tuple(out)
