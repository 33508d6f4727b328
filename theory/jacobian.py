"""The Jacobian of a declared dynamics, as a declared matrix.

For a flow dx/dt = F(x) it is ∂F/∂x, for a map the derivative of one step. Every ``J @ ψ`` of a right-hand side gives
diag(∂F/∂h) @ J @ diag(∂ψ/∂x); what stays in the diagonals is a function of the units' states, whose law is given.
Several fields of a unit make several block rows; dynamic couplings are eliminated (see `quenched.theory.joint`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sympy import Add, Dummy, Expr, S, sympify

from quenched.theory.algebra import Diag, Matrix, Outer, combine, diag, eye, outer
from quenched.theory.couplings import Apply
from quenched.theory.distributions import Law
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import At, Field, Quenched, WhiteNoise, open_leaves, unbind
from quenched.theory.joint import bond_of, bond_sums
from quenched.theory.observables import Mean
from quenched.theory.spaces import Population, t
from quenched.theory.spectrum import Blocks, Spectrum

if TYPE_CHECKING:
    from quenched.theory.model import Model


def jacobian(model: Model, laws: Mapping[Field, Any] | None = None) -> Spectrum:
    """The Jacobian of a declared dynamics at a state whose units are drawn from given laws, or all have one value.

    Parameters
    ----------
    model : Dynamics or Map
    laws : dict of Field to law or number, optional
        Law (or common value) of every field that stays in the Jacobian. The states count as independent of the
        couplings, and fields of one unit as independent of each other.

    Returns
    -------
    Spectrum
        Of a model with dynamic couplings, the part that is not at their rates; its bulk, no single eigenvalues.

    Raises
    ------
    NotCovered
        For delays, explicit time, multiplicative noise, or a field without a law.
    """
    given = dict(laws or {})
    sums = bond_sums(model, given)
    plain = len({x.population for x in model.fields}) == len(model.fields) and not sums
    blocks: Blocks = {}

    def put(x: Field, y: Field, matrix: Matrix) -> None:
        part = _frozen(matrix, given)
        if part.terms:
            blocks[(x.population, y.population) if plain else (x, y)] = part

    for x, rhs in model.eqs.items():
        for y in model.fields:
            put(x, y, derivative(rhs, x.population, y))
        for s in sums:
            put(x, s.row, _slope_of(rhs, s.node, x.population))
    for s in sums:
        rows = s.row.population
        for y in (y for y in model.fields if y.population == rows):
            put(s.row, y, _scaled(Add(*(c * u.diff(y) for c, u in s.drives)), rows, eye(rows)))
        put(s.row, s.row, s.rate * eye(rows))
    return Spectrum(blocks, name=f"Jacobian of {model.name}" if model.name else None, defaults=_defaults(model, blocks))


def _slope_of(expr: Expr, node: Apply, rows: Population) -> Matrix:
    """diag(∂expr/∂node)."""
    name = Dummy(real=True)
    slope = expr.xreplace({node: name}).diff(name).xreplace({name: node})
    return _scaled(slope, rows, eye(rows)) if slope != 0 else combine([], rows, rows)


def stationary_point(model: Model, at: dict[Any, Any]) -> dict[Field, Expr]:
    """Check that one value a field, zero unless given, is a fixed point of a dynamics without its disorder.

    Raises
    ------
    QuenchedError
        For a field that the model does not have.
    NotCovered
        For values that are no fixed point, whatever the couplings are.
    """
    for x in at:
        if x not in model.fields:
            raise QuenchedError(f"{x} is no field of the model: {nearest(str(x), [f.name for f in model.fields])}")
    state = {x: sympify(at.get(x, 0)) for x in model.fields}
    for x, rhs in model.eqs.items():
        rest = _at_state(rhs, state)
        target = state[x] if model.clock == "map" else S.Zero
        if any(isinstance(s, WhiteNoise) for s in rest.free_symbols) or (rest - target).simplify() != 0:
            shown = ", ".join(f"{y} = {v}" for y, v in state.items())
            raise NotCovered(f"{shown} is no fixed point: the right-hand side of {x} is {rest} there")
    return state


def _at_state(expr: Expr, state: dict[Field, Expr]) -> Expr:
    """An expression where every unit has the same state: sums over couplings vanish only where their body does."""
    if isinstance(expr, (Apply, Mean)):
        body = _at_state(unbind(expr.body), state)
        if isinstance(expr, Mean):
            return body
        return S.Zero if body.simplify() == 0 else Apply(expr.matrix, body)
    if isinstance(expr, At):
        return state[expr.field]
    if isinstance(expr, Field):
        return state[expr]
    return expr.func(*(_at_state(a, state) for a in expr.args)) if expr.args else expr


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
            if bond_of(leaf) is not None:
                continue  # of finite rank; see `quenched.theory.joint`
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


def _frozen(matrix: Matrix, laws: dict[Field, Any]) -> Matrix:
    """The matrix with fields in its diagonals replaced by quenched quantities of their laws."""

    def value(expr: Expr) -> Expr:
        if laws and not any(isinstance(law, Law) for law in laws.values()):
            expr = _at_state(expr, laws)
        if expr.atoms(Apply, Mean, At):
            leaf = sorted(expr.atoms(Apply, Mean, At), key=str)[0]
            raise NotCovered(f"the Jacobian contains {leaf}, whose law is not a field's: name it as a field of its own")
        put = {}
        for x in (s for s in expr.free_symbols if isinstance(s, Field)):
            if x not in laws:
                raise NotCovered(
                    f"the Jacobian contains {x}: give its law, as in jacobian(model, {{{x}: Normal(0, 1)}})"
                )
            law = laws[x]
            put[x] = Quenched(x.name, law, over=x.population) if isinstance(law, Law) else sympify(law)
        return expr.xreplace(put)

    def factor(f: Matrix) -> Matrix:
        if isinstance(f, Diag):
            return Diag(value(f.vector), f.rows)
        if isinstance(f, Outer):
            return Outer(value(f.left), value(f.right), f.rows, f.cols)
        return f

    terms = [_merged(c, tuple(factor(f) for f in word)) for c, word in matrix.terms]
    return combine(terms, matrix.rows, matrix.cols) if terms else combine([(S.Zero, ())], matrix.rows, matrix.cols)


def _merged(coefficient: Expr, word: tuple[Matrix, ...]) -> tuple[Expr, tuple[Matrix, ...]]:
    """Diagonal factors that are numbers, taken into the coefficient."""
    kept = []
    for f in word:
        if isinstance(f, Diag) and not any(True for _ in open_leaves(f.vector)):
            coefficient = coefficient * f.vector
        else:
            kept.append(f)
    return coefficient, tuple(kept)


def _defaults(model: Model, blocks: Blocks) -> dict[object, object]:
    known = Spectrum(blocks).parameters if blocks else ()
    return {s: v for s, v in model.defaults.items() if s in known}
