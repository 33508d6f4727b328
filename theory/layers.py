"""The head `Layers`: a map that runs finitely many steps from a declared start, for one or several samples at once."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from sympy import Basic, Expr, ImmutableDenseMatrix, Tuple
from sympy.core.symbol import Str

from quenched.theory.distributions import Law
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Field, Quenched
from quenched.theory.keywords import named_arguments
from quenched.theory.model import Map
from quenched.theory.spaces import Population, as_scalar
from quenched.theory.substitute import content_key


class Layers(Map):
    """A network of `depth` layers: ``Layers({h: W @ phi(h) + b}, depth=4)`` reads h(a+1) = W φ(h(a)) + b.

    Parameters
    ----------
    eqs : dict of Field to expression
        Right-hand sides; ``t`` in them is the number a of the layer that is read, so that gains may depend on depth.
    depth : int
        Number of steps: layers are numbered 0 (the declared start) to `depth`. ``steps`` says the same.
    name, defaults : as for `Map`

    Notes
    -----
    Matrices and unit disorder with ``redraw="layer"`` are drawn afresh for the start and for every layer (a deep
    network); without it all layers share them (a recurrent network). Every field has its start,
    ``Field("h", each=samples, initial=W_in @ x + b)``, which may use couplings; with ``each=`` it has one copy for each
    sample, all with the same disorder. In observables ``h(4)`` is layer 4 and ``h[2](4)`` that of sample 2.

    Raises
    ------
    QuenchedError
        For a depth that is no positive whole number, a field without start, or fields with different samples.
    """

    @named_arguments
    def __init__(
        self,
        eqs: Mapping[Field, Any],
        depth: int | None = None,
        name: str | None = None,
        defaults: Mapping[Any, Any] | None = None,
        steps: int | None = None,
    ) -> None:
        length = steps if depth is None else depth
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise QuenchedError(f"depth of Layers should be a positive whole number, got {length!r}")
        self.steps = int(length)
        super().__init__(eqs, name, defaults)
        for field in self.eqs:
            if field.initial is None:
                raise QuenchedError(f"the field {field} has no start: give Field({field.name!r}, initial=...)")
        sample_count(self)
        for q, overlap in overlaps_of(self).items():
            if (overlap.size > 1) != (q.each is not None) or overlap.size != sample_count(self):
                raise QuenchedError(
                    f"{q} has the overlaps of {overlap.size} samples, its field has {sample_count(self)}: give both "
                    "each=Population(..., size=M) and an M × M matrix"
                )

    @property
    def samples(self) -> Population | None:
        """The population of samples, None where there is one."""
        found = {x.each for x in self.eqs}
        if len(found) > 1:
            raise NotCovered(f"the fields {', '.join(map(str, self.eqs))} have different samples: give all one each=")
        return next(iter(found))


Rows = tuple[tuple[Any, ...], ...]


class Table(Basic):
    """A square array of numbers as a sympy object, known by its content.

    Attributes
    ----------
    rows : tuple of tuples of float
    """

    rows: Rows

    def __new__(cls, rows: Any) -> Table:
        listed = rows.tolist() if hasattr(rows, "tolist") else rows
        numbers = tuple(tuple(float(x) for x in row) for row in listed)
        content = array("d", (x for row in numbers for x in row)).tobytes().hex()
        obj: Table = Basic.__new__(cls, Str(content_key(content, str(len(numbers)))[:16]))
        obj.rows = numbers
        return obj

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Table, (self.rows,)

    def _sympystr(self, printer: Any) -> str:
        return f"table of {len(self.rows)} × {len(self.rows)} numbers"

    def _latex(self, printer: Any) -> str:
        return rf"\mathrm{{table}}_{{{len(self.rows)} \times {len(self.rows)}}}"


class Overlap(Law):
    """Vectors, one for each sample, of which only the overlaps Σ_i x_i^α x_i^β / (number of units) matter.

    Parameters
    ----------
    matrix : number, nested sequence, sympy matrix or array (M, M)
        Symmetric and positive semidefinite; entries may contain parameters (not those of an array).
    """

    parameter_names = ("matrix",)
    has_moments = False

    def __new__(cls, matrix: Any) -> Overlap:
        obj: Overlap = Basic.__new__(cls, _as_matrix(matrix))
        return obj

    @property
    def rows(self) -> Rows:
        """The overlaps, as numbers or expressions."""
        table = self.args[0]
        return table.rows if isinstance(table, Table) else tuple(map(tuple, table.tolist()))

    @property
    def size(self) -> int:
        """Number of samples M."""
        return len(self.rows)

    def mean_(self) -> Expr:
        raise NotCovered("inputs are known by their overlaps only: they have no mean")

    def variance_(self) -> Expr:
        raise NotCovered("inputs are known by their overlaps only: they have no variance")

    def _sympystr(self, printer: Any) -> str:
        table = self.args[0]
        shown = table if isinstance(table, Table) else [list(row) for row in self.rows]
        return f"Overlap({printer._print(shown)})"


def _as_matrix(given: Any) -> Basic:
    if isinstance(given, (Table, ImmutableDenseMatrix)):
        return given
    listed = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(listed, (list, tuple, Tuple)):
        listed = [[listed]]
    rows = [list(row) if isinstance(row, (list, tuple, Tuple)) else [row] for row in listed]
    if any(len(row) != len(rows) for row in rows):
        raise QuenchedError("the overlaps of inputs should be a symmetric square matrix, one row a sample")
    matrix: Basic = (
        Table(rows)
        if hasattr(given, "dtype")
        else ImmutableDenseMatrix([[as_scalar(e, "overlap of inputs") for e in row] for row in rows])
    )
    if any(
        abs(rows[i][j] - rows[j][i]) > 1e-12 if isinstance(matrix, Table) else rows[i][j] != rows[j][i]
        for i in range(len(rows))
        for j in range(i)
    ):
        raise QuenchedError("the overlaps of inputs should be a symmetric square matrix")
    return matrix


def sample_count(model: Layers) -> int:
    """Number of samples of a declaration.

    Raises
    ------
    NotCovered
        A number of samples that is not fixed.
    """
    if model.samples is None:
        return 1
    size = model.samples.size
    if size is None or not size.is_Integer:
        raise NotCovered(f"the samples {model.samples} need a whole number of members: Population(..., size=2)")
    return int(size)


def overlaps_of(model: Layers) -> dict[Quenched, Overlap]:
    """The inputs that are known by their overlaps."""
    return {q: q.law for q in model.quenched if isinstance(q.law, Overlap)}


__all__ = ["Layers", "Overlap", "Table", "overlaps_of", "sample_count"]
