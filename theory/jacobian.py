"""The Jacobian of a declared dynamics, as a declared matrix.

For a flow dx/dt = F(x) it is ∂F/∂x, for a map the derivative of one step. Every ``J @ ψ`` of a right-hand side gives
diag(∂F/∂h) @ J @ diag(∂ψ/∂x); what stays in the diagonals is a function of the units' states, whose law is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sympy import Dummy, Expr, S

from quenched.theory.algebra import Matrix, combine, diag, eye, outer
from quenched.theory.couplings import Apply
from quenched.theory.distributions import Law
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Field, Quenched, WhiteNoise, unbind
from quenched.theory.observables import Mean
from quenched.theory.spaces import Population, t
from quenched.theory.spectrum import Spectrum

if TYPE_CHECKING:
    from quenched.theory.model import Model


def jacobian(model: Model, laws: Mapping[Field, Law] | None = None) -> Spectrum:
    """The Jacobian of a declared dynamics at a state whose units are drawn from given laws.

    Parameters
    ----------
    model : Dynamics or Map
        One field a population.
    laws : dict of Field to law, optional
        Law of every field that stays in the Jacobian. The states count as independent of the couplings.

    Returns
    -------
    Spectrum

    Raises
    ------
    NotCovered
        For several fields in one population, delays, explicit time, multiplicative noise, or a field without a law.
    """
    fields = {x.population: x for x in model.fields}
    if len(fields) < len(model.fields):
        names = ", ".join(x.name for x in model.fields)
        raise NotCovered(f"the Jacobian of several fields in one population ({names}) is not built: use one field each")
    blocks: dict[tuple[Population, Population], Matrix] = {}
    for x, rhs in model.eqs.items():
        for y in model.fields:
            part = _frozen(derivative(rhs, x.population, y), dict(laws or {}))
            if part.terms:
                blocks[x.population, y.population] = part
    return Spectrum(blocks, name=f"Jacobian of {model.name}" if model.name else None, defaults=_defaults(model, blocks))


def derivative(expr: Expr, rows: Population, y: Field) -> Matrix:
    """∂expr_i/∂y_j for an expression in the units of `rows`."""
    total = combine([], rows, y.population)
    leaves = sorted(_leaves(expr), key=str)
    names = {leaf: Dummy(f"leaf_{k}", real=True) for k, leaf in enumerate(leaves)}
    shown = expr.xreplace(names)
    if t in shown.free_symbols:
        raise NotCovered(f"the Jacobian at a state depends on the time in {expr}: declare it without t")
    back = {name: leaf for leaf, name in names.items()}
    for leaf, name in names.items():
        slope = shown.diff(name).xreplace(back)
        if slope == 0:
            continue
        if isinstance(leaf, At):
            raise NotCovered(f"{leaf} is delayed: a delayed system has no Jacobian matrix")
        if isinstance(leaf, WhiteNoise):
            if any(isinstance(s, Field) for s in slope.free_symbols):
                raise NotCovered(f"the noise {leaf} multiplies the state: the Jacobian is random at every instant")
        elif isinstance(leaf, Field):
            if leaf == y:
                total = total + _scaled(slope, rows, eye(rows))
        elif isinstance(leaf, Apply):
            inner = derivative(unbind(leaf.body), leaf.cols, y)
            total = total + _scaled(slope, rows, leaf.matrix @ inner)
        elif isinstance(leaf, Mean):
            total = total + _mean_part(slope, rows, leaf, y)
    return total


def _mean_part(slope: Expr, rows: Population, leaf: Mean, y: Field) -> Matrix:
    """A population mean reads every unit by 1/size: a matrix of rank one."""
    body = unbind(leaf.body)
    if any(isinstance(part, (Apply, Mean)) for part in _leaves(body)):
        raise NotCovered(f"the Jacobian of {leaf}, a mean of a sum over units, is not built")
    if y not in body.free_symbols:
        return combine([], rows, y.population)
    return outer(slope, body.diff(y), over=(rows, y.population)) / leaf.population.count


def _scaled(slope: Expr, rows: Population, matrix: Matrix) -> Matrix:
    units = [s for s in slope.free_symbols if hasattr(s, "population")] or slope.atoms(Apply)
    return diag(slope, rows) @ matrix if units else matrix * slope


def _leaves(expr: Expr) -> set[Expr]:
    """Quantities of the open unit, and means."""
    if isinstance(expr, (Apply, Mean, At, Field, WhiteNoise)):
        return {expr}
    return set().union(*(_leaves(arg) for arg in expr.args)) if expr.args else set()


def _frozen(matrix: Matrix, laws: dict[Field, Law]) -> Matrix:
    """The matrix with fields in its diagonals replaced by quenched quantities of their laws."""
    from quenched.theory.algebra import Diag, Outer

    def value(expr: Expr) -> Expr:
        if expr.atoms(Apply, Mean, At):
            leaf = sorted(expr.atoms(Apply, Mean, At), key=str)[0]
            raise NotCovered(f"the Jacobian contains {leaf}, whose law is not a field's: name it as a field of its own")
        put = {}
        for x in (s for s in expr.free_symbols if isinstance(s, Field)):
            if x not in laws:
                raise NotCovered(
                    f"the Jacobian contains {x}: give its law, as in jacobian(model, {{{x}: Normal(0, 1)}})"
                )
            put[x] = Quenched(x.name, laws[x], over=x.population)
        return expr.xreplace(put)

    def factor(f: Matrix) -> Matrix:
        if isinstance(f, Diag):
            return Diag(value(f.vector), f.rows)
        if isinstance(f, Outer):
            return Outer(value(f.left), value(f.right), f.rows, f.cols)
        return f

    terms = [(c, tuple(factor(f) for f in word)) for c, word in matrix.terms]
    return combine(terms, matrix.rows, matrix.cols) if terms else combine([(S.Zero, ())], matrix.rows, matrix.cols)


def _defaults(model: Model, blocks: dict[tuple[Population, Population], Matrix]) -> dict[object, object]:
    known = Spectrum(blocks).parameters if blocks else ()
    return {s: v for s, v in model.defaults.items() if s in known}
