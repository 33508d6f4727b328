"""Observables of a layered network: which functions of units at which layers and samples their averages multiply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sympy import Add, Expr, Mul, expand

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import At, Field, UnitSymbol, unbind
from quenched.theory.layers import Layers, sample_count
from quenched.theory.naming import field_names
from quenched.theory.observables import Functional, Mean, mean
from quenched.theory.spaces import t, tau


@dataclass(frozen=True)
class Factor:
    """A function of one unit's quantities (free, without time and sample) at one layer and sample (from 0)."""

    body: Expr
    layer: int
    sample: int


@dataclass(frozen=True)
class Product:
    """coefficient · average over units of Π factors."""

    coefficient: Expr
    factors: tuple[Factor, ...]


def observables_of(model: Layers) -> dict[str, Expr]:
    """The declared observables, or the second moment of every field in the last layer where none is declared."""
    if model.observables:
        return dict(model.observables)
    found = {}
    for x, name in field_names(model).items():
        last = (x if x.each is None else x[1])(model.steps)
        found[f"C_{name}0"] = mean(last**2)
    return found


def products(node: Mean, model: Layers, at: int | None = None) -> list[Product]:
    """The terms of an average over units, at layer `at` where it does not name one.

    Raises
    ------
    QuenchedError
        A layer or a sample that the network does not have, or none where there are several.
    """
    return [_product(term, node, model, at) for term in Add.make_args(expand(unbind(node.body)))]


def is_curve(expr: Expr) -> bool:
    """Whether an observable runs over layers: some field in it stands without a layer, or `t` occurs."""
    return any(_open(m.body) for m in expr.atoms(Mean))


def _open(body: Expr) -> bool:
    if isinstance(body, At):
        return body.time.has(t)
    if isinstance(body, Field) or body == t:
        return True
    return any(_open(a) for a in body.args)


def _product(term: Expr, node: Mean, model: Layers, at: int | None) -> Product:
    constant: list[Expr] = []
    groups: dict[tuple[int, int], list[Expr]] = {}
    for factor in Mul.make_args(term):
        places = {_place(unit, node, model, at) for unit in _units(factor)}
        if not places:
            constant.append(factor)
        elif len(places) == 1:
            groups.setdefault(places.pop(), []).append(_bare(factor))
        else:
            raise NotCovered(f"{factor} in {node} mixes several layers or samples in one function")
    return Product(Mul(*constant), tuple(Factor(Mul(*groups[p]), *p) for p in sorted(groups)))


def _units(expr: Any) -> list[Any]:
    if isinstance(expr, At | UnitSymbol):
        return [expr]
    if isinstance(expr, Functional | Mean):
        raise NotCovered(f"{expr} inside an average over units")
    return [unit for a in expr.args for unit in _units(a)]


def _place(unit: Any, node: Mean, model: Layers, at: int | None) -> tuple[int, int]:
    field = unit.field if isinstance(unit, At) else unit
    steps = model.steps or 0
    time = unit.time if isinstance(unit, At) else t
    if tau in time.free_symbols:
        raise NotCovered(f"{node}: over layers there is no lag tau, name the layers: {field}(3)*{field}(4)")
    time = time if at is None else time.subs(t, at)
    if not time.is_Integer or not 0 <= int(time) <= steps:
        raise QuenchedError(f"{node}: {field}({time}) is no layer, expected a number from 0 to {steps}")
    count = sample_count(model)
    if field.copy is None and count > 1 and getattr(field, "each", None) is not None:
        raise QuenchedError(f"{node}: {field} has {count} samples, name one as in {field}[1]({time})")
    sample = 1 if field.copy is None else field.copy
    if not 1 <= sample <= count:
        raise QuenchedError(f"{node}: sample {sample} of {field}, expected a number from 1 to {count}")
    return int(time), sample - 1


def _bare(factor: Expr) -> Expr:
    """The factor with its quantities at their own layer and sample."""
    flat = factor.replace(lambda e: isinstance(e, At), lambda e: e.field)
    return flat.xreplace({u: u._with(copy=None) for u in flat.atoms(UnitSymbol) if u.copy is not None})
