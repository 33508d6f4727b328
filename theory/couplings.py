"""Random coupling matrices and their application to units, ``J @ f(x)``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sympy import Add, Basic, Expr, Integer, Mul, S, Tuple, sympify
from sympy.core.symbol import Str

from quenched.theory.algebra import Diag, Inverse, Matrix, Outer, Transpose, diag, eye, outer
from quenched.theory.distributions import Law, Normal, as_law
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Compared, UnitSymbol, as_redraw, bind, open_leaves, population_of
from quenched.theory.keywords import named_arguments
from quenched.theory.observables import split_scalar, total
from quenched.theory.spaces import NOTHING, Population, as_name, as_population, as_scalar, units

__all__ = ["Apply", "Gaussian", "Iid", "Matrix", "Transpose", "diag", "eye", "outer"]


class RandomMatrix(Matrix):
    """A coupling matrix with a name, random unless it is a `Circulant`. Same name, spaces and law: the same matrix.

    Attributes
    ----------
    name : str
    rows, cols : Population
    redraw : None, "step" or "layer"
    """

    is_random_matrix = True
    name: str
    redraw: str | None

    def transposed(self) -> Matrix:
        return Transpose(self)

    def _place(self, name: str, over: Any, redraw: Str) -> None:
        self.name, self.redraw = name, redraw.name or None
        self.rows, self.cols = over

    def _sympystr(self, printer: Any) -> str:
        return self.name

    def _latex(self, printer: Any) -> str:
        return printer._deal_with_super_sub(self.name)

    def __getitem__(self, index: Any) -> Row:
        return Row(self, index)

    def __repr__(self) -> str:
        from quenched.theory.indices import entry_law

        return entry_law(self)

    def _repr_latex_(self) -> str:
        from quenched.theory.indices import entry_law_latex

        return f"$\\displaystyle {entry_law_latex(self)}$"


class Row(UnitSymbol):
    """One row of a matrix as a quantity of the units of its columns, its entries without their factor 1/√N.

    ``xi[0]`` is a stored pattern: what a state starts from, and what its overlap ``mean(xi[0]*s)`` is taken with. Rows
    are counted modulo their number.

    Attributes
    ----------
    matrix : the matrix
    index : which row, any whole number
    """

    def __new__(cls, matrix: Any, index: Any) -> Row:
        if isinstance(index, bool) or not isinstance(index, int):
            raise QuenchedError(f"{matrix}[...] picks a row by a whole number, as in {matrix}[0], got {index!r}")
        if not isinstance(matrix, (Gaussian, Iid)):
            raise QuenchedError(f"{matrix}[{index}]: rows of Gaussian and Iid matrices can be picked, not this one")
        name = f"{matrix.name}_{index}" if index >= 0 else f"{matrix.name}_m{-index}"
        return cls._make(name, matrix.cols, None, False, (matrix, Integer(index)))

    @property
    def matrix(self) -> RandomMatrix:
        """The matrix that it is a row of."""
        return self._details[0]

    @property
    def index(self) -> int:
        """Which row."""
        return int(self._details[1])

    @property
    def law(self) -> Law:
        """Law of an entry, without its factor 1/√N."""
        m = self.matrix
        return m.law if isinstance(m, Iid) else Normal(0, m.variance)


class Gaussian(RandomMatrix):
    """Matrix of Gaussian entries.

    Over extensive columns E J_ij = mean/N and Var J_ij = variance/N; over a finite column space mean and variance are
    those of an entry. The diagonal of a square matrix has variance (1+symmetry)·variance/N.

    Parameters
    ----------
    name : str
    variance, mean : expressions in parameters and `N`
    symmetry : expression, default 0
        Cov(J_ij, J_ji)/Var(J_ij), between −1 and 1.
    over : pair of Population
        (rows, columns), default ``(units, units)``.
    diagonal : 0, optional
        Removes the diagonal.
    redraw : "step" or "layer", optional
        Drawn afresh at every step or layer.
    correlation : dict, optional
        Other matrix of the same spaces → correlation coefficient of entries of equal indices.

    Raises
    ------
    QuenchedError
        For a negative variance, a symmetry beyond −1 to 1, or correlations with matrices over other spaces.
    """

    variance: Expr
    mean: Expr
    symmetry: Expr
    diagonal: Expr | None
    correlation: dict[Matrix, Expr]

    @named_arguments
    def __new__(
        cls,
        name: Any,
        variance: Any = 1,
        mean: Any = 0,
        symmetry: Any = 0,
        over: Any = (units, units),
        diagonal: Any = None,
        redraw: Any = None,
        correlation: Any = None,
    ) -> Gaussian:
        text = as_name(name, "Gaussian")
        spaces = spaces_of(over, text)
        variance = as_scalar(variance, f"variance of {text}")
        if variance.is_extended_negative:
            raise QuenchedError(f"variance of {text} should be positive, got {variance}")
        mean = as_scalar(mean, f"mean of {text}")
        # Substituting g = 0 in a model is fine, declaring an empty matrix is a slip (rebuilding passes a Str).
        if isinstance(name, str) and variance == 0 and mean == 0:
            raise QuenchedError(f"variance of {text} should be positive, got 0 (and no mean): leave {text} out")
        symmetry = as_scalar(symmetry, f"symmetry of {text}")
        _check_coefficient(symmetry, f"symmetry of {text}")
        if symmetry != 0 and spaces[0] != spaces[1]:
            raise QuenchedError(f"symmetry of {text} needs equal row and column populations, got {_names(spaces)}")
        diagonal = None if diagonal is None or diagonal == NOTHING else sympify(diagonal)
        if diagonal not in (None, 0):
            raise QuenchedError(f"diagonal of {text} can be left out or be 0 (no self-coupling), got {diagonal}")
        redraw = as_redraw(redraw, text)
        pairs = _correlations(correlation, text, spaces)
        obj = Basic.__new__(
            cls,
            Str(text),
            variance,
            mean,
            symmetry,
            Tuple(*spaces),
            NOTHING if diagonal is None else diagonal,
            redraw,
            Tuple(*(Tuple(*pair) for pair in pairs)),
        )
        obj.variance, obj.mean, obj.symmetry, obj.diagonal = variance, mean, symmetry, diagonal
        obj.correlation = dict(pairs)
        obj._place(text, spaces, redraw)
        return obj


class Iid(RandomMatrix):
    """Matrix of independent entries law/√N (over extensive columns), the law's mean included.

    Parameters
    ----------
    name : str
    law : law of one number with finite variance
    over : pair of Population, default ``(units, units)``
    redraw : "step" or "layer", optional
    """

    law: Law

    @named_arguments
    def __new__(cls, name: Any, law: Any, over: Any = (units, units), redraw: Any = None) -> Iid:
        text = as_name(name, "Iid")
        spaces = spaces_of(over, text)
        law = as_law(law, f"law of {text}")
        redraw = as_redraw(redraw, text)
        obj = Basic.__new__(cls, Str(text), law, Tuple(*spaces), redraw)
        obj.law = law
        obj._place(text, spaces, redraw)
        return obj


class Apply(Compared, Expr):
    """The sum Σ_j J_ij ψ_j, a quantity of the units of the rows.

    Attributes
    ----------
    matrix : a random matrix or its `Transpose`
    body : Expr
        ψ, in bound copies of the unit symbols.
    rows, cols : Population
        Of the result and of the body.

    Notes
    -----
    Building one brings it to canonical form: scalar factors are pulled out, and sums are split into the parts that
    read different unit quantities, so that each body is one function of one set of units.
    """

    is_commutative = True
    is_real = True
    closes_index = True
    precedence = 40  # printed in brackets inside products, bare inside sums

    def __new__(cls, matrix: Matrix, body: Any) -> Expr:
        if not isinstance(matrix, Matrix):
            raise QuenchedError(f"Apply takes a coupling matrix, got {matrix!r}")
        if not isinstance(matrix, (RandomMatrix, Transpose)):
            return apply_matrix(matrix, body)
        return Add(*(_apply_part(matrix, part) for part in _parts(sympify(body))))

    @property
    def matrix(self) -> Matrix:
        """The random matrix, or its transpose."""
        return self.args[0]

    @property
    def body(self) -> Expr:
        """What is summed, in bound copies."""
        return self.args[1]

    @property
    def rows(self) -> Population:
        """Population of the result."""
        return self.matrix.rows

    @property
    def cols(self) -> Population:
        """Population that is summed over."""
        return self.matrix.cols

    def _eval_derivative(self, s: Any) -> Expr:
        # The body is summed over: it does not contain the open unit that `s` belongs to.
        return S.Zero if isinstance(s, UnitSymbol) else Apply(self.matrix, self.body.diff(s))

    def _sympystr(self, printer: Any) -> str:
        return f"{printer._print(self.matrix)} @ {printer.parenthesize(self.body, 60)}"

    def _latex(self, printer: Any) -> str:
        return rf"{printer._print(self.matrix)}\,{printer.parenthesize(self.body, 60)}"


def reads_only(expr: Expr, known: Collection[Expr]) -> bool:
    """Whether an expression of one unit reads no unit quantities but the known ones, and no other units."""
    return not expr.has(Apply) and expr.atoms(UnitSymbol) <= set(known)


def apply_matrix(matrix: Matrix, vector: Any) -> Expr:
    """``M @ ψ`` in canonical form: a combination of `Apply` nodes whose matrices are random matrices or transposes."""
    try:
        body = sympify(vector, strict=True)
    except Exception as error:
        raise QuenchedError(f"{matrix} @ {vector!r}: expected an expression in the units") from error
    if not isinstance(body, Expr):
        raise QuenchedError(
            f"{matrix} @ ({vector}): expected an expression in the units, got a {type(vector).__name__}"
        )
    found = population_of(body, f"{matrix} @ ({body})")
    if found is not None and found != matrix.cols:
        raise QuenchedError(
            f"{matrix} @ ({body}): the columns of {matrix} are {matrix.cols.name!r}, the units are {found.name!r}"
        )
    return Add(*(c * _apply_word(word, body) for c, word in matrix.terms))


def _apply_word(word: tuple[Matrix, ...], body: Expr) -> Expr:
    for factor in reversed(word):
        if isinstance(factor, Diag):
            body = factor.vector * body
        elif isinstance(factor, Inverse):
            raise QuenchedError(f"{factor} @ … in an equation is not built: write the linear system, y = J @ y + x")
        elif isinstance(factor, Outer):
            body = factor.left * total(factor.right * body, factor.cols)
        else:
            body = Apply(factor, body)
    return body


def _parts(body: Expr) -> list[Expr]:
    """Split a sum into parts that read the same unit quantities; a constant joins the only other part."""
    groups: dict[frozenset[Basic], list[Expr]] = {}
    for term in Add.make_args(body):
        groups.setdefault(frozenset(leaf for leaf, _ in open_leaves(term)), []).append(term)
    if len(groups) == 2 and frozenset() in groups:
        return [body]
    return [Add(*terms) for terms in groups.values()]


def _apply_part(matrix: Matrix, part: Expr) -> Expr:
    scalar, unit = split_scalar(part)
    if scalar == 0:
        return S.Zero
    if unit.is_Add and scalar != 1:
        return Mul(scalar, Apply(matrix, unit))
    return Mul(scalar, Expr.__new__(Apply, matrix, bind(unit)))


def spaces_of(over: Any, name: str) -> tuple[Population, Population]:
    """Check that `over` is a pair of populations."""
    if isinstance(over, Population) or not isinstance(over, (tuple, list, Tuple)) or len(over) != 2:
        raise QuenchedError(f"over of {name} should be a pair (rows, columns) of populations, got {over!r}")
    return as_population(over[0], f"rows of {name}"), as_population(over[1], f"columns of {name}")


def _names(spaces: tuple[Population, Population]) -> str:
    return f"{spaces[0].name!r} and {spaces[1].name!r}"


def _check_coefficient(value: Expr, what: str) -> None:
    """Refuse a correlation coefficient that is decidedly outside [−1, 1]."""
    if (1 - value).is_extended_negative or (1 + value).is_extended_negative:
        raise QuenchedError(f"{what} should be between -1 and 1, got {value}")


def _correlations(given: Any, name: str, spaces: tuple[Population, Population]) -> list[tuple[Matrix, Expr]]:
    if given is None:
        return []
    items = list(given.items()) if isinstance(given, Mapping) else [tuple(pair) for pair in given]
    pairs = []
    for other, rho in items:
        if not isinstance(other, Gaussian):
            raise QuenchedError(f"correlation of {name} is with another Gaussian matrix, got {other!r}")
        if (other.rows, other.cols) != spaces:
            raise QuenchedError(f"correlation of {name} with {other.name}: the populations differ")
        rho = as_scalar(rho, f"correlation of {name} with {other.name}")
        _check_coefficient(rho, f"correlation of {name} with {other.name}")
        if rho != 0:
            pairs.append((other, rho))
    return sorted(pairs, key=lambda pair: pair[0].name)
