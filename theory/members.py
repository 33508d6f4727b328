"""Write out the members of finite populations: stored patterns, modes, directions.

A matrix between a finite population and units is a handful of quenched numbers of every unit, ξ^μ_i. A sum over units
is then an overlap, m_μ = ⟨ξ^μ ψ⟩, the same for all units; a sum over members is a sum of a few terms. What is left is a
declaration of the units alone, with averages over them in its equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sympy import Add, Basic, Expr, Integer, S, Symbol, exp, expand_mul, sqrt

from quenched.theory.algebra import Transpose
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Apply, Gaussian, Iid, RandomMatrix, Row
from quenched.theory.distributions import Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched, UnitSymbol, unbind
from quenched.theory.layers import Overlap
from quenched.theory.lower import Declaration
from quenched.theory.observables import Mean, mean, total
from quenched.theory.record import Form, Rule
from quenched.theory.spaces import ANGLE, N, Population
from quenched.theory.substitute import substitute, walk

if TYPE_CHECKING:
    from quenched.theory.model import Model

Vector = tuple[Expr, ...]


@dataclass(frozen=True)
class WriteMembers(Rule):
    """Write out the members of finite populations."""

    title: ClassVar[str] = "Members of finite populations written out"
    assumption: ClassVar[str] = "their number stays finite as N → ∞; entries of one unit are independent"

    def __call__(self, before: Form) -> Declaration:
        assert isinstance(before, Declaration)
        return Declaration(written(before.model))


def members_of(model: Model) -> list[Population]:
    """Finite populations that sums run over, without units of their own and not known by overlaps only."""
    own = {x.population for x in model.eqs} | {x.each for x in model.eqs}
    own |= {q.population for q in model.quenched if isinstance(q.law, Overlap)}
    spaces = {p for m in model.matrices for p in (m.rows, m.cols)}
    return [p for p in model.populations if p in spaces and p.size is not None and p not in own]


def written(model: Model) -> Model:
    """The declaration of the units alone.

    Raises
    ------
    NotCovered
        For members with numbers or random couplings of their own, or a size that is no number.
    """
    finite = members_of(model)
    for population in finite:
        if not isinstance(population.size, Integer):
            raise NotCovered(f"population {population.name!r} has the size {population.size}: give a whole number")
    writer = _Writer(model, finite)
    out = copy(model)
    rows = writer.rows()
    fields = {x: substitute(x, rows) for x in model.eqs}
    swap = {**rows, **fields, **{x.bind(): y.bind() for x, y in fields.items()}}
    memo: dict[Basic, Basic] = {}
    out.eqs = {fields[x]: substitute(_powers_cancelled(writer.units(rhs)), swap, memo) for x, rhs in model.eqs.items()}
    out.observables = {k: substitute(writer.units(e), swap, memo) for k, e in model.observables.items()}
    out._collect()
    return out


def _powers_cancelled(rhs: Expr) -> Expr:
    """Terms with powers of N multiplied out."""
    return Add(*(expand_mul(term) if term.has(N) else term for term in Add.make_args(rhs)))


class _Writer:
    """Rewrites sums over members and sums over units that members read."""

    def __init__(self, model: Model, finite: list[Population]) -> None:
        self.model, self.finite = model, finite

    def rows(self) -> dict[Basic, Any]:
        """Rows of matrices, free and bound, as quenched numbers of the units."""
        nodes = [*self.model.eqs, *self.model.eqs.values(), *self.model.observables.values()]
        found = {part.free() for node in nodes for part in walk(node) if isinstance(part, Row)}
        out: dict[Basic, Any] = {}
        for row in found:
            if row.matrix.rows not in self.finite:
                raise NotCovered(f"{row}: a single pattern of extensively many is not built for a dynamics")
            label = self.number(row.matrix, row.index, across=False)
            out |= {row: label, row.bind(): label.bind()}
        return out

    def number(self, matrix: RandomMatrix, member: int, across: bool) -> Quenched:
        """The entries of one row (of one column with `across`), one number a unit, without a factor 1/√N."""
        member %= int((matrix.cols if across else matrix.rows).size)  # type: ignore[arg-type]
        if not isinstance(matrix, (Gaussian, Iid)):
            raise NotCovered(f"{matrix.name} over the finite population {self.finite[0].name!r} is not built")
        law = matrix.law if isinstance(matrix, Iid) else Normal(matrix.mean, matrix.variance)
        name = f"{matrix.name}_{member}" if not across else f"{matrix.name}.{member}"
        return Quenched(name, law, over=matrix.rows if across else matrix.cols)

    # -- a quantity of units ------------------------------------------------------------------------------------------
    def units(self, expr: Expr) -> Expr:
        """An expression of units (or numbers) without sums over members."""
        if isinstance(expr, Apply):
            return self._apply(expr)
        if isinstance(expr, Mean):
            if expr.population in self.finite:
                values = self.members(unbind(expr.body), expr.population)
                return Add(*values) / len(values)
            return mean(self.units(unbind(expr.body)), expr.population) if expr.body.has(Apply) else expr
        if not expr.args or isinstance(expr, UnitSymbol):
            return expr
        return expr.func(*(self.units(a) if isinstance(a, Expr) else a for a in expr.args))

    def _apply(self, node: Apply) -> Expr:
        body = unbind(node.body)
        if node.cols not in self.finite:
            return Apply(node.matrix, self.units(body)) if body.has(Apply) else node
        values = self.members(body, node.cols)
        atom, across = _atom(node.matrix)
        return Add(*(expand_mul(self._entry(atom, k, across) * v) for k, v in enumerate(values)))

    def _entry(self, atom: RandomMatrix, member: int, transposed: bool) -> Expr:
        """The matrix's entry between a unit and a member."""
        label = self.number(atom, member, across=not transposed)
        return label / sqrt(N) if transposed else label

    # -- a quantity of members ----------------------------------------------------------------------------------------
    def members(self, expr: Expr, population: Population) -> Vector:
        """An expression with an open index of a finite population, for every member."""
        leaves = sorted(_outermost(expr), key=str)
        inside = {leaf: self._vector(leaf) for leaf in leaves}
        own = [s for s in expr.xreplace(dict.fromkeys(leaves, S.One)).free_symbols if isinstance(s, UnitSymbol)]
        if own:
            raise NotCovered(
                f"{own[0]} over the finite population {population.name!r}: members have no numbers of theirs"
            )
        size = int(population.size)  # type: ignore[arg-type]
        return tuple(expr.xreplace({leaf: inside[leaf][k] for leaf in leaves}) for k in range(size))

    def _vector(self, leaf: Apply) -> Vector:
        atom, transposed = _atom(leaf.matrix)
        size = int(leaf.rows.size)  # type: ignore[arg-type]
        body = unbind(leaf.body)
        if leaf.cols in self.finite:
            if not isinstance(atom, Circulant):
                raise NotCovered(f"{atom.name} between members of finite populations is not built: use a Circulant")
            values, shifts = self.members(body, leaf.cols), _shifts(atom)
            sign = -1 if transposed else 1
            return tuple(Add(*(c * values[(k - sign * r) % size] for r, c in shifts.items())) for k in range(size))
        inner = self.units(body)
        labels = [self.number(atom, k, across=transposed) for k in range(size)]
        scale = S.One if transposed else 1 / sqrt(N)
        return tuple(scale * total(q * inner, leaf.cols) for q in labels)


def _atom(matrix: Any) -> tuple[RandomMatrix, bool]:
    return (matrix.matrix, True) if isinstance(matrix, Transpose) else (matrix, False)


def _outermost(expr: Basic) -> set[Apply]:
    if isinstance(expr, Apply):
        return {expr}
    return set().union(*(_outermost(a) for a in expr.args)) if not isinstance(expr, Mean) else set()


def _shifts(matrix: Circulant) -> Mapping[int, Expr]:
    """Entries by shift: the coefficients of λ in e^{−iθ}."""
    from sympy import I, log

    z = Symbol("z")
    waves = matrix.eigenvalue.rewrite(exp).subs(ANGLE, I * log(z)).expand()
    terms: dict[int, Expr] = {}
    for term in Add.make_args(waves):
        coefficient, power = term.as_independent(z)
        base, shift = power.as_base_exp() if power != 1 else (z, Integer(0))
        if base != z or not shift.is_Integer:
            raise NotCovered(f"{matrix.name} has no finite window of shifts: its eigenvalue is {matrix.eigenvalue}")
        terms[int(shift)] = terms.get(int(shift), S.Zero) + coefficient
    return terms


__all__ = ["WriteMembers", "members_of", "written"]
