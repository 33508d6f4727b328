"""Algebra of coupling matrices, kept apart from sympy's scalars.

A matrix expression is always in canonical form: a sum of terms *scalar × word*, a word being a product of factors
(a random matrix, its transpose, ``diag(v)``, ``outer(u, v)`` or nothing). So ``k*J == J*k`` and
``(g*J) @ x == g*(J @ x)`` hold by construction.
"""

from __future__ import annotations

from typing import Any, NoReturn

from sympy import Basic, Expr, S, Tuple, default_sort_key

from quenched.theory.errors import AmbiguousExpression, QuenchedError
from quenched.theory.fields import open_leaves, population_of
from quenched.theory.spaces import Population, as_expr, as_population, units

#: Attributes that sympy's scalar functions ask of their argument; a matrix has none of them.
_SCALAR_PROBES = """
    is_zero is_extended_real is_real is_positive is_negative is_nonnegative is_nonpositive is_finite is_infinite
    is_extended_positive is_extended_negative is_extended_nonnegative is_extended_nonpositive is_imaginary is_integer
    is_comparable is_polar _eval_power as_base_exp as_coeff_Mul as_coeff_Add as_coefficient
    as_real_imag as_independent as_numer_denom could_extract_minus_sign is_constant as_coeff_mul
    extract_multiplicatively
"""


class Matrix(Basic):
    """A matrix of couplings; ``J @ x`` sums over the units of its columns.

    Attributes
    ----------
    rows, cols : Population
        Spaces of the result and of what it is applied to.
    terms : tuple of (Expr, tuple of factors)
        Canonical form.
    """

    # sympy scalars and numpy numbers hand multiplication over to this class.
    _op_priority = 1000.0
    __array_ufunc__ = None
    __iter__ = None
    _iterable = False
    # expand() and its kin must not rewrite the law inside: that would make another matrix of the same name.
    is_Atom = True

    rows: Population
    cols: Population

    @property
    def terms(self) -> tuple[tuple[Expr, tuple[Matrix, ...]], ...]:
        """Terms of the canonical form, each a scalar and the factors of its word."""
        return ((S.One, (self,)),)

    @property
    def T(self) -> Matrix:
        """The transpose."""
        flipped = [(c, tuple(f.transposed() for f in reversed(word))) for c, word in self.terms]
        return combine(flipped, self.cols, self.rows)

    def _eval_simplify(self, **kwargs: Any) -> Matrix:
        return self

    def transposed(self) -> Matrix:
        """Transpose of a single factor."""
        raise NotImplementedError

    def inv(self) -> Matrix:
        """The inverse, for spectra; a product of square factors is inverted factor by factor."""
        if self.rows != self.cols:
            raise QuenchedError(f"({self}).inv(): only square matrices have inverses, this one is {_space(self)}")
        if not self.terms:
            raise QuenchedError("the matrix 0 has no inverse")
        if len(self.terms) > 1 or any(f.rows != self.rows or f.cols != self.rows for f in self.terms[0][1]):
            return Inverse(self)
        ((coefficient, word),) = self.terms
        return combine([(1 / coefficient, tuple(_inverted(f) for f in reversed(word)))], self.rows, self.cols)

    # -- sums and scalar multiples ---------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Matrix:
        if isinstance(other, Matrix):
            if (self.rows, self.cols) != (other.rows, other.cols):
                raise QuenchedError(
                    f"cannot add {self} {_space(self)} and {other} {_space(other)}: different populations"
                )
            return combine([*self.terms, *other.terms], self.rows, self.cols)
        if (isinstance(other, (int, float)) and other == 0) or other is S.Zero:
            return self  # the builtin sum() starts from 0
        raise QuenchedError(f"cannot add the matrix {self} and the number {other}: write eye, as in {self} - 2*eye")

    def __radd__(self, other: Any) -> Matrix:
        return self + other

    def __neg__(self) -> Matrix:
        return self * S.NegativeOne

    def __pos__(self) -> Matrix:
        return self

    def __sub__(self, other: Any) -> Matrix:
        return self + (-other)

    def __rsub__(self, other: Any) -> Matrix:
        return (-self) + other

    def __mul__(self, other: Any) -> Matrix:
        if isinstance(other, Matrix):
            raise QuenchedError(
                f"{self}*{other} (entry by entry) is not built yet; the matrix product is {self} @ {other}"
            )
        scalar = _as_factor(other, self)
        return combine([(scalar * c, word) for c, word in self.terms], self.rows, self.cols)

    def __rmul__(self, other: Any) -> Matrix:
        return self * other

    def __truediv__(self, other: Any) -> Matrix:
        if isinstance(other, Matrix):
            raise QuenchedError(f"{self}/{other} has no meaning: divide by a number")
        return self * (1 / _as_factor(other, self))

    def __rtruediv__(self, other: Any) -> Matrix:
        raise QuenchedError(f"{other}/{self} has no meaning: write {other}*({self}).inv()")

    def __pow__(self, other: Any) -> Matrix:
        raise QuenchedError(f"{self}**{other} is ambiguous: write {self} @ {self} for the matrix product")

    def __rpow__(self, other: Any) -> Matrix:
        raise QuenchedError(f"{other}**{self} has no meaning")

    def __abs__(self) -> Matrix:
        _not_a_number(self)

    def _eval_Abs(self) -> Matrix:
        _not_a_number(self)

    def __getitem__(self, index: Any) -> Matrix:
        raise QuenchedError(f"{self}[{index}]: entries are not addressed one by one; copies of fields are, as in x[1]")

    def __call__(self, *args: Any) -> Any:
        raise QuenchedError(
            f'{self}(...) has no meaning: write {self} @ x, or redraw="step" for a fresh matrix each step'
        )

    def __bool__(self) -> bool:
        return True

    # -- products --------------------------------------------------------------------------------------------------
    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Matrix):
            if self.cols != other.rows:
                raise QuenchedError(
                    f"cannot multiply {self} {_space(self)} @ {other} {_space(other)}: "
                    f"columns are {self.cols.name!r}, rows are {other.rows.name!r}"
                )
            products = [(a * b, v + w) for a, v in self.terms for b, w in other.terms]
            return combine(products, self.rows, other.cols)
        from quenched.theory.couplings import apply_matrix

        return apply_matrix(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        raise AmbiguousExpression(f"({other}) @ {self}: vectors stand on the right, write {self}.T @ ({other})")

    def _sympystr(self, printer: Any) -> str:
        return " + ".join(_term_text(c, word, printer) for c, word in self.terms).replace("+ -", "- ") or "0"

    def _latex(self, printer: Any) -> str:
        parts = []
        for c, word in self.terms:
            factors = r"\,".join(printer._print(f) for f in word) or r"\mathbb{1}"
            parts.append(
                factors if c == 1 else f"-{factors}" if c == -1 else rf"{printer.parenthesize(c, 50)}\,{factors}"
            )
        return " + ".join(parts).replace("+ -", "- ") or "0"


def _not_a_number(self: Matrix) -> NoReturn:
    raise AmbiguousExpression(
        f"{self} is a matrix and was used as a number: write functions of units, as in {self} @ tanh(x); "
        "functions of entries, Entrywise(f, J), are not built yet"
    )


for _probe in _SCALAR_PROBES.split():
    setattr(Matrix, _probe, property(_not_a_number))


class MatrixSum(Matrix):
    """A combination of words that is not a single factor. Built by `combine`."""

    def __new__(cls, rows: Population, cols: Population, *terms: Any) -> Matrix:
        return combine([(c, tuple(word)) for c, word in terms], rows, cols)

    @property
    def terms(self) -> tuple[tuple[Expr, tuple[Matrix, ...]], ...]:
        return tuple((c, tuple(word)) for c, word in self.args[2:])


class Identity(MatrixSum):
    """Identity matrix: ``eye`` over `units`, ``eye(E)`` over another population."""

    def __call__(self, over: Any = units) -> Matrix:
        space = as_population(over, "eye")
        return combine([(S.One, ())], space, space)


class Transpose(Matrix):
    """Transpose of a random matrix.

    Attributes
    ----------
    matrix : the random matrix
    """

    def __new__(cls, matrix: Matrix) -> Matrix:
        if not getattr(matrix, "is_random_matrix", False):
            return matrix.T
        obj = Basic.__new__(cls, matrix)
        obj.rows, obj.cols = matrix.cols, matrix.rows
        return obj

    @property
    def matrix(self) -> Matrix:
        """The matrix that is transposed."""
        return self.args[0]

    def transposed(self) -> Matrix:
        return self.matrix

    def _sympystr(self, printer: Any) -> str:
        return f"{printer._print(self.matrix)}.T"

    def _latex(self, printer: Any) -> str:
        return rf"{{{printer._print(self.matrix)}}}^{{\top}}"


class Diag(Matrix):
    """Diagonal matrix of a unit quantity."""

    def __new__(cls, vector: Any, over: Any = None) -> Diag:
        vector, space = _vector(vector, over, "diag")
        obj = Basic.__new__(cls, vector, space)
        obj.rows = obj.cols = space
        return obj

    @property
    def vector(self) -> Expr:
        """The diagonal."""
        return self.args[0]

    def transposed(self) -> Matrix:
        return self

    def _sympystr(self, printer: Any) -> str:
        return f"diag({printer._print(self.vector)})"

    def _latex(self, printer: Any) -> str:
        return rf"\operatorname{{diag}}\left({printer._print(self.vector)}\right)"


class Inverse(Matrix):
    """Inverse of a square matrix expression. Built by `Matrix.inv`."""

    def __new__(cls, matrix: Matrix) -> Matrix:
        obj = Basic.__new__(cls, matrix)
        obj.rows = obj.cols = matrix.rows
        return obj

    @property
    def matrix(self) -> Matrix:
        """What is inverted."""
        return self.args[0]

    def transposed(self) -> Matrix:
        return Inverse(self.matrix.T)

    def _sympystr(self, printer: Any) -> str:
        return f"({printer._print(self.matrix)}).inv()"

    def _latex(self, printer: Any) -> str:
        return rf"\left({printer._print(self.matrix)}\right)^{{-1}}"


def _inverted(factor: Matrix) -> Matrix:
    """Inverse of a single square factor."""
    if isinstance(factor, Inverse):
        return factor.matrix
    if isinstance(factor, Diag):
        return Diag(1 / factor.vector, factor.rows)
    if isinstance(factor, Outer):
        raise QuenchedError(f"{factor} has rank one and no inverse")
    return Inverse(factor)


class Outer(Matrix):
    """Rank one matrix u_i v_j."""

    def __new__(cls, left: Any, right: Any, rows: Any = None, cols: Any = None) -> Outer:
        left, rows = _vector(left, rows, "outer")
        right, cols = _vector(right, cols, "outer")
        obj = Basic.__new__(cls, left, right, rows, cols)
        obj.rows, obj.cols = rows, cols
        return obj

    @property
    def left(self) -> Expr:
        """Column vector u."""
        return self.args[0]

    @property
    def right(self) -> Expr:
        """Row vector v."""
        return self.args[1]

    def transposed(self) -> Matrix:
        return Outer(self.right, self.left, self.cols, self.rows)

    def _sympystr(self, printer: Any) -> str:
        return f"outer({printer._print(self.left)}, {printer._print(self.right)})"

    def _latex(self, printer: Any) -> str:
        return rf"\left({printer._print(self.left)}\right)\left({printer._print(self.right)}\right)^{{\top}}"


def diag(vector: Any, over: Any = None) -> Matrix:
    """Diagonal matrix of a unit quantity: ``diag(v) @ J`` scales rows, ``J @ diag(v)`` columns."""
    return Diag(vector, over)


def outer(left: Any, right: Any, over: Any = None) -> Matrix:
    """Rank one matrix u_i v_j, without any power of N: ``outer(u, v) @ x`` is ``u*total(v*x)``.

    `over` is the pair (rows, columns), needed only where u or v is a constant outside `units`.
    """
    rows, cols = over if over is not None else (None, None)
    return Outer(left, right, rows, cols)


def combine(terms: list[tuple[Expr, tuple[Matrix, ...]]], rows: Population, cols: Population) -> Matrix:
    """Canonical form of a sum of scalar × word: collected as sympy's sums are, zeros dropped, sorted."""
    collected: dict[tuple[tuple[Matrix, ...], Expr], Expr] = {}
    for coefficient, word in terms:
        number, symbolic = coefficient.as_coeff_Mul()
        collected[word, symbolic] = collected.get((word, symbolic), S.Zero) + number
    kept = [(number * symbolic, word) for (word, symbolic), number in collected.items() if number != 0]
    if len(kept) == 1 and kept[0][0] == 1 and len(kept[0][1]) == 1:
        return kept[0][1][0]
    kept.sort(key=lambda term: ([default_sort_key(f) for f in term[1]], default_sort_key(term[0])))
    kind = Identity if len(kept) == 1 and kept[0] == (S.One, ()) else MatrixSum
    obj = Basic.__new__(kind, rows, cols, *(Tuple(c, Tuple(*word)) for c, word in kept))
    obj.rows, obj.cols = rows, cols
    return obj


#: The identity matrix over `units`; ``eye(E)`` is the one over E.
eye = combine([(S.One, ())], units, units)


def _space(matrix: Matrix) -> str:
    return f"({matrix.rows.name} × {matrix.cols.name})"


def _as_factor(value: Any, matrix: Matrix) -> Expr:
    """Check that a factor of a matrix is a number or parameter, not a vector."""
    scalar = as_expr(value, f"factor of the matrix {matrix}")
    leaf = next(open_leaves(scalar), None)
    if leaf is not None:
        raise AmbiguousExpression(
            f"({scalar})*{matrix} could scale rows or columns: "
            f"write diag({scalar}) @ {matrix} or {matrix} @ diag({scalar})"
        )
    return scalar


def _vector(value: Any, over: Any, what: str) -> tuple[Expr, Population]:
    if isinstance(value, Matrix):
        raise QuenchedError(f"{what}({value}) takes a unit quantity, not a matrix")
    vector = as_expr(value, what)
    found = population_of(vector, what)
    if over is None:
        return vector, units if found is None else found
    space = as_population(over, what)
    if found is not None and found != space:
        raise QuenchedError(f"{what}({vector}) is over {found.name!r}, expected {space.name!r}")
    return vector, space


def _term_text(c: Expr, word: tuple[Matrix, ...], printer: Any) -> str:
    factors = " @ ".join(printer._print(f) for f in word) or "eye"
    if c == 1:
        return factors
    if c == -1:
        return f"-{factors}"
    text = printer._print(c)
    return f"({text})*{factors}" if c.is_Add else f"{text}*{factors}"
