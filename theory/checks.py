"""Rules that a declaration must obey, each with one clear error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sympy import Basic, Derivative, Expr, Symbol, SympifyError, eye, nan, oo, re, sympify, zoo
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean

from quenched.theory.algebra import Matrix
from quenched.theory.bonds import BondField, bond_equations, endpoints, starts_of
from quenched.theory.couplings import Apply, Gaussian, RandomMatrix
from quenched.theory.distributions import Law
from quenched.theory.eigenvalue_observables import OfEigenvalues
from quenched.theory.errors import AmbiguousExpression, NotCovered, QuenchedError, nearest
from quenched.theory.fields import At, Field, Quenched, UnitSymbol, WhiteNoise, open_leaves, plain
from quenched.theory.landscape import Landscape
from quenched.theory.observables import Critical, Functional, Mean
from quenched.theory.spaces import RESERVED, Population, as_expr, t, tau
from quenched.theory.substitute import imaginary, matrices_of, walk


def declared_rhs(head: str, eqs: Any) -> dict[Field, Expr]:
    """Check the shape of a declaration: a non-empty dict of fields to scalar expressions."""
    if not isinstance(eqs, Mapping) or not eqs:
        raise QuenchedError(f"{head} takes a dict of fields to right-hand sides, as in {head}({{x: -x}}), got {eqs!r}")
    out: dict[Field, Expr] = {}
    for key, given in eqs.items():
        check_key(head, key)
        out[key] = check_rhs(key, given)
    return out


def check_key(head: str, key: Any) -> None:
    """A key is a field itself, not its derivative, a name, or one copy of it."""
    if key == 0 or isinstance(key, Derivative):
        raise QuenchedError(f"a key of {head} is a field, got {key}: write {head}({{x: ...}}) in place of x.diff(t)")
    if isinstance(key, At):
        raise QuenchedError(f"a key of {head} is a field, got {key}: write {head}({{{key.field}: ...}})")
    if not isinstance(key, Field):
        raise QuenchedError(f"a key of {head} is a Field, got {key!r} ({type(key).__name__})")
    if key.copy is not None or key.bound:
        raise QuenchedError(f"a key of {head} is the field itself, got {key}: use copies(model, n) for several copies")


def check_rhs(field: Field, given: Any) -> Expr:
    """A right-hand side is a real scalar expression per unit."""
    where = f"equation of {field}"
    if isinstance(given, Matrix):
        raise QuenchedError(f"{where} is a matrix, {given}: apply it to units, as in {given} @ {field}")
    if isinstance(given, (Boolean, bool)) and not isinstance(given, Symbol):
        raise QuenchedError(f"{where} is a condition, {given}: write Heaviside or Piecewise")
    rhs = plain(as_expr(given, where))
    if imaginary(rhs) or rhs.is_extended_real is False:
        raise QuenchedError(f"{where} is not real: {rhs}")
    if rhs.has(nan, zoo, oo, -oo):
        raise QuenchedError(f"{where} contains an infinite or undefined number: {rhs}")
    return rhs


def check_model(
    clock: str, eqs: Mapping[Field, Expr], bonds: Mapping[BondField, Matrix] | None = None, layered: bool = False
) -> None:
    """All checks of a complete declaration; `layered` for a map of finitely many steps from a declared start."""
    bonds = bonds or {}
    nodes: list[Basic] = [*eqs, *eqs.values(), *bonds, *bonds.values()]
    check_names(nodes)
    check_redraw(clock, nodes, layered)
    for field in eqs:
        if field.each is not None and not layered:
            raise NotCovered(
                f"each={field.each} of the field {field} is not built yet outside of Layers (or a Map with steps=): "
                "use copies(model, n)"
            )
    for field, rhs in eqs.items():
        check_scope(field, rhs, eqs)
        check_times(field, rhs)
        check_noise(field, rhs)
    check_bonds(eqs, bonds)
    check_laws(nodes, {})


# -- names ---------------------------------------------------------------------------------------------------------
def check_names(nodes: Iterable[Basic]) -> None:
    """One name, one thing: parameters, unit quantities, matrices and populations."""
    seen: dict[Any, Basic] = {}
    owner: dict[str, str] = {}
    for node in nodes:
        for part in walk(node):
            if isinstance(part, UnitSymbol):
                plain = part.free()._with(copy=None)
                _same(seen, ("unit", plain.name, plain.population.name), plain, _kind(plain))
                _kinds(owner, plain.name, _kind(plain))
            elif isinstance(part, RandomMatrix):
                _same(seen, ("matrix", part.name, part.rows.name, part.cols.name), part, "matrix")
                _kinds(owner, part.name, "matrix")
            elif isinstance(part, Landscape):
                _same(seen, ("function", part.name), part, "random function")
                _kinds(owner, part.name, "random function")
            elif isinstance(part, Population):
                _same(seen, ("population", part.name), part, "population")
            elif isinstance(part, Symbol):
                check_symbol(part)
                _same(seen, ("parameter", part.name), part, "parameter")
                _kinds(owner, part.name, "parameter")


def check_symbol(symbol: Symbol) -> None:
    """`N`, `t` and `tau` are the language's own."""
    own = RESERVED.get(symbol.name)
    if own is not None and own != symbol:
        raise QuenchedError(f"{symbol.name!r} is a name of the language: from quenched import {symbol.name}")
    if symbol.is_commutative is False or symbol.is_extended_real is False:
        raise QuenchedError(
            f"parameter {symbol.name!r} should be a real number: declare symbols({symbol.name!r}, real=True)"
        )


def _kind(symbol: UnitSymbol) -> str:
    kinds = {"Field": "field", "Quenched": "quenched quantity", "WhiteNoise": "noise", "Row": "row of a matrix"}
    return kinds[type(symbol).__name__]


def _same(seen: dict[Any, Basic], key: Any, thing: Basic, kind: str) -> None:
    first = seen.setdefault(key, thing)
    if first == thing:
        return
    if kind == "parameter":
        raise QuenchedError(f"two parameters are called {key[1]!r} with different assumptions: make the symbol once")
    if kind == "matrix":
        raise QuenchedError(
            f"two matrices are called {key[1]!r} with different laws ({first!r}; {thing!r}): rename one"
        )
    raise QuenchedError(f"two different declarations of the {kind} {key[1]!r}: make it once, or rename one")


def _kinds(owner: dict[str, str], name: str, kind: str) -> None:
    first = owner.setdefault(name, kind)
    if first != kind:
        raise QuenchedError(f"{name!r} is both a {first} and a {kind}: rename one")


# -- indices -------------------------------------------------------------------------------------------------------
def check_scope(field: Field, rhs: Expr, eqs: Mapping[Field, Expr]) -> None:
    """Every field has an equation, and every open index is the field's own."""
    where = f"equation of {field}"
    for part in walk(rhs):
        if isinstance(part, Matrix) and not isinstance(part, RandomMatrix):
            continue
        if isinstance(part, Field) and part.free() not in eqs:
            known, space = ", ".join(str(x) for x in eqs), part.population.name
            raise QuenchedError(
                f"{where} contains the field {part} of {space!r}, which has no equation (fields are {known})"
            )
        if isinstance(part, AppliedUndef):
            raise QuenchedError(f"{where} contains the undefined function {part}: give an expression in t")
        if isinstance(part, Functional):
            raise QuenchedError(f"{where} contains {type(part).__name__}, which is an observable of the whole model")
    _check_matrices(rhs, where)
    for leaf, population in open_leaves(rhs):
        if isinstance(leaf, UnitSymbol) and leaf.bound:
            raise QuenchedError(f"{where} contains {leaf} out of the sum it was taken from")
        if population != field.population:
            raise QuenchedError(
                f"{where} is over {field.population.name!r}, but {leaf} is over {population.name!r}: "
                "couple populations by J @ ... or mean(...)"
            )


def _check_matrices(expr: Basic, where: str) -> None:
    """Matrices occur only as the first argument of `Apply`."""
    if isinstance(expr, Apply):
        _check_matrices(expr.body, where)
        return
    for arg in expr.args:
        if isinstance(arg, Matrix):
            name = type(expr).__name__
            raise AmbiguousExpression(
                f"{where} contains {name}({arg}), a function of a matrix: "
                f"write {arg} @ x; functions of entries are not built yet"
            )
        _check_matrices(arg, where)


def check_bonds(eqs: Mapping[Field, Expr], bonds: Mapping[BondField, Matrix]) -> None:
    """Every dynamic coupling has an equation, which reads fields at the present or earlier, without noise."""
    for node in (*eqs.values(), *bonds.values()):
        for part in walk(node):
            if isinstance(part, BondField) and part not in bonds:
                raise QuenchedError(f"the dynamic coupling {part.name} has no equation: give {part.name}: … as well")
    read = [(e.bond, f"equation of {e.bond.name}", endpoints(e.bond, e.drives)) for e in bond_equations(bonds)]
    read += [(bond, f"initial of {bond.name}", endpoints(bond, starts_of(bond))) for bond in bonds]
    for bond, where, ends in read:
        for end, population in ends:
            check_times(bond, end)
            for part in walk(end):
                if isinstance(part, WhiteNoise):
                    raise NotCovered(f"{where} contains {part}: bonds read fields, without noise")
                if isinstance(part, Field) and part.free() not in eqs:
                    raise QuenchedError(f"{where} contains the field {part}, which has no equation")
            for leaf, owner in open_leaves(end):
                if owner != population:
                    raise QuenchedError(f"{where} contains {leaf} of {owner.name!r}, expected {population.name!r}")


# -- times ---------------------------------------------------------------------------------------------------------
def check_times(field: Field | BondField, rhs: Expr) -> None:
    """Equations read the present and the past."""
    where = f"equation of {field}"
    if tau in rhs.free_symbols:
        raise QuenchedError(f"{where} contains the lag tau, which belongs to observables: write a delay as x(t - d)")
    for part in walk(rhs):
        if isinstance(part, At):
            delay = (t - part.time).expand()
            if delay.has(t):
                raise QuenchedError(f"{where} contains {part}: the time of a field is t - d with a constant delay d")
            if delay.is_positive is False:
                raise QuenchedError(f"{where} contains {part}, which lies in the future: the model is not causal")
            if delay.is_positive is None:
                raise QuenchedError(
                    f"{where} contains {part}: declare the delay {delay} positive, symbols(..., positive=True)"
                )


# -- noise ---------------------------------------------------------------------------------------------------------
def check_noise(field: Field, rhs: Expr) -> None:
    """Noise enters linearly: a function of white noise has no meaning."""
    where = f"equation of {field}"
    for level in _levels(rhs):
        for noise in sorted(_open_noises(level), key=lambda s: s.sort_key()):
            conditions = [r for r in level.atoms(Relational) if noise in _open_noises(r)]
            if conditions or _open_noises(level.diff(noise)):
                raise QuenchedError(
                    f"{where} contains the noise {noise} inside a nonlinearity: white noise enters linearly"
                )
    for average in rhs.atoms(Mean):
        if any(isinstance(part, WhiteNoise) for part in walk(average.body)):
            raise QuenchedError(f"{where} contains {average}: the average of independent noises vanishes")


def check_redraw(clock: str, nodes: Iterable[Basic], layered: bool = False) -> None:
    """Only the steps of a map can draw disorder afresh; the layers of `Layers` are its steps."""
    for node in nodes:
        for part in walk(node):
            if not isinstance(part, (RandomMatrix, Quenched)) or not part.redraw:
                continue
            if part.redraw != "step" and not (layered and part.redraw == "layer"):
                raise NotCovered(f'redraw="{part.redraw}" of {part.name} is not built yet: use a Map and redraw="step"')
            if clock == "flow":
                raise QuenchedError(f'redraw="step" of {part.name} needs a Map: a flow has no steps')


def _levels(expr: Expr) -> list[Expr]:
    """The expression and the bodies of the sums in it."""
    return [expr, *(node.body for node in expr.atoms(Apply))]


def _open_noises(expr: Expr) -> set[WhiteNoise]:
    return {leaf for leaf, _ in open_leaves(expr) if isinstance(leaf, WhiteNoise)}


# -- numbers -------------------------------------------------------------------------------------------------------
def check_domain(symbol: Symbol, given: Any) -> Expr:
    """Check a value of a parameter against the assumptions of its symbol."""
    try:
        value = as_expr(sympify(given), f"parameter {symbol.name!r}")
    except (SympifyError, TypeError) as error:
        raise QuenchedError(f"parameter {symbol.name!r} should be a number, got {given!r}") from error
    if value in (nan, zoo, oo, -oo) or value.is_finite is False:
        raise QuenchedError(f"parameter {symbol.name!r} should be finite, got {value}")
    for fact in ("real", "positive", "nonnegative", "negative", "nonpositive", "nonzero", "integer", "even", "odd"):
        if symbol.assumptions0.get(fact) and _whole(value, fact) is False:
            raise QuenchedError(f"parameter {symbol.name!r} should be {fact}, got {given}")
    if value.is_extended_real is False:
        raise QuenchedError(f"parameter {symbol.name!r} should be real, got {given}")
    return value


def _whole(value: Expr, fact: str) -> bool | None:
    """Assumption of a value, where 3.0 counts as a whole number."""
    if value.is_Float and fact in ("integer", "even", "odd"):
        value = sympify(int(value)) if value == int(value) else value
    return getattr(value, f"is_{fact}")


def check_laws(nodes: Iterable[Basic], values: Mapping[Symbol, Any]) -> None:
    """Variances, coefficients, fractions and sizes, where their values are decidable."""
    nodes = list(nodes)
    _demand_joint(nodes, values)
    for node in nodes:
        for part in walk(node):
            if isinstance(part, Gaussian):
                _demand(part.variance, values, 0, None, f"variance of {part.name}")
                _demand(part.symmetry, values, -1, 1, f"symmetry of {part.name}")
                for other, rho in part.correlation.items():
                    _demand(rho, values, -1, 1, f"correlation of {part.name} with {other.name}")
            elif isinstance(part, Law):
                _demand_law(part, values)
            elif isinstance(part, Population):
                _demand(part.count, values, 0, None, f"number of units of {part.name!r}", strict=True)
                if part.size is not None and _whole(_put(part.size, values), "integer") is False:
                    raise QuenchedError(f"size of {part.name!r} should be whole, got {_put(part.size, values)}")


def _demand_joint(nodes: Iterable[Basic], values: Mapping[Symbol, Any]) -> None:
    """Correlated matrices need a joint law: the table (1 ± symmetry, correlations) has no negative eigenvalue."""
    family = [m for m in matrices_of(*nodes) if isinstance(m, Gaussian)]
    if not any(m.correlation for m in family):
        return
    for sign in (1, -1):
        table = eye(len(family))
        for i, first in enumerate(family):
            table[i, i] = 1 + sign * _put(first.symmetry, values)
            for other, rho in first.correlation.items():
                k = family.index(other)
                table[i, k] = table[k, i] = _put(rho, values)
        if not table.free_symbols and min(float(re(v)) for v in table.evalf().eigenvals(multiple=True)) < -1e-9:
            names = ", ".join(m.name for m in family)
            raise QuenchedError(f"no joint law of {names} has these correlations and symmetries: make them smaller")


def _demand_law(law: Law, values: Mapping[Symbol, Any]) -> None:
    inside = {s: v for s, v in values.items() if s in law.free_symbols}
    if inside:
        law.xreplace({s: sympify(v) for s, v in inside.items()})  # rebuilding a law checks its parameters


def _put(expr: Expr, values: Mapping[Symbol, Any]) -> Expr:
    return expr.xreplace({s: sympify(v) for s, v in values.items()})


def _demand(expr: Expr, values: Mapping[Symbol, Any], low: Any, high: Any, what: str, strict: bool = False) -> None:
    value = _put(expr, values)
    below = value.is_extended_nonpositive if strict else (value - low).is_extended_negative
    above = high is not None and (high - value).is_extended_negative
    if below or above:
        expected = "positive" if strict else f"at least {low}" if high is None else f"between {low} and {high}"
        raise QuenchedError(f"{what} should be {expected}, got {value}")


# -- observables ---------------------------------------------------------------------------------------------------
def check_observable(name: str, given: Any, eqs: Mapping[Field, Expr], parameters: Iterable[Symbol]) -> Expr:
    """An observable is a scalar built from averages and functionals of the model's own fields."""
    where = f"observable {name!r}"
    if not name.isidentifier():
        raise QuenchedError(f"{where}: the name should be a plain word")
    if isinstance(given, Matrix):
        raise QuenchedError(f"{where} is a matrix, {given}")
    expr = plain(as_expr(given, where))
    leaf = next(open_leaves(expr), None)
    if leaf is not None:
        raise QuenchedError(f"{where} depends on the unit through {leaf[0]}: average it, mean(...)")
    for part in walk(expr):
        if isinstance(part, Field) and part.free()._with(copy=None) not in eqs and part.free() not in eqs:
            hint = nearest(part.name, (x.name for x in eqs))
            raise QuenchedError(f"{where} contains {part}, which is not a field of the model: {hint}")
    if expr.atoms(OfEigenvalues):
        from quenched.theory.spectrum import check_of_eigenvalues

        check_of_eigenvalues(name, expr, False, "the Jacobian of a dynamics")
    for critical in expr.atoms(Critical):
        if critical.parameter not in set(parameters):
            names = (s.name for s in parameters)
            raise QuenchedError(
                f"{where}: no parameter {critical.parameter}: {nearest(critical.parameter.name, names)}"
            )
    check_names([*eqs, *eqs.values(), expr])
    return expr
