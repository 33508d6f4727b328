"""Numeric meanings: the parts that all forms share.

A *meaning* says what a form of a derivation claims, as numbers: sites, copies and times are explicit array axes,
couplings are explicit matrices. Nothing here calls a rule of `theory`; only the classes that hold the forms are used,
so that a mistake in a rule cannot hide in its own check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Basic, Dummy, Expr, Symbol, lambdify, sympify

from quenched.theory.bonds import site_bodies
from quenched.theory.couplings import Apply, Transpose
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import At, UnitSymbol
from quenched.theory.model import Model
from quenched.theory.observables import Mean
from quenched.theory.spaces import N, Population, t

Array = NDArray[Any]
Values = Mapping[Basic, Any]

#: Reference size at which powers of N are told apart.
SIZE = 7.0


def draw_parameters(
    model: Model, rng: np.random.Generator, span: tuple[float, float] = (0.3, 0.9)
) -> dict[Symbol, float]:
    """Random values of all parameters that their assumptions and the laws allow; sizes lie in `span`.

    Raises
    ------
    QuenchedError
        If none of many draws is allowed.
    """
    last: Exception | None = None
    for _ in range(50):
        chosen = {s: _draw(s, rng, span) for s in model.parameters}
        try:
            model.values(chosen)
        except QuenchedError as error:
            last = error
            continue
        return chosen
    raise QuenchedError(
        f"no random values of the parameters {', '.join(s.name for s in model.parameters)} are allowed: {last}"
    )


def _draw(symbol: Symbol, rng: np.random.Generator, span: tuple[float, float]) -> float:
    """A number of order one, away from zero, with the sign that the symbol's assumptions ask for."""
    size = float(rng.integers(1, 4)) if symbol.is_integer else float(rng.uniform(*span))
    if symbol.is_nonnegative:
        return size
    return -size if symbol.is_nonpositive else size * float(rng.choice([-1, 1]))


def number(expr: Any, values: Values) -> complex:
    """The numeric value of an expression whose symbols all have values."""
    expr = sympify(expr)
    return _number(expr, tuple((e, values[e]) for e in _ordered_leaves(expr) if e in values))


@lru_cache(maxsize=65536)
def _number(expr: Expr, values: tuple[tuple[Basic, Any], ...]) -> complex:
    return complex(sympify(expr.xreplace(dict(values))))


@lru_cache(maxsize=4096)
def _compiled(expr: Expr, leaves: tuple[Basic, ...]) -> Callable[..., Any]:
    """A numpy function of the leaves. Dummies keep apart symbols that share a name."""
    dummies = [Dummy(f"a{k}") for k in range(len(leaves))]
    flat = expr.xreplace(dict(zip(leaves, dummies, strict=True)))
    try:
        made: Callable[..., Any] = lambdify(dummies, flat, modules="scipy")
    except NotImplementedError as error:
        raise NotCovered(f"{expr} has no numpy function: not compared") from error
    return made


def evaluate(expr: Any, values: Values) -> Any:
    """A real expression at numbers or arrays, one for each of its symbols (and fields at other times).

    Raises
    ------
    NotCovered
        For a function that numpy and scipy do not have.
    KeyError
        For a field at an earlier time that has no value.
    """
    expr = sympify(expr)
    every = _ordered_leaves(expr)
    unknown = next((e for e in every if isinstance(e, At) and e not in values), None)
    if unknown is not None:
        raise KeyError(f"no value for {unknown}")
    leaves = tuple(e for e in every if e in values)
    found = _compiled(expr, leaves)(*(values[e] for e in leaves))
    if np.iscomplexobj(found):  # some special functions always return complex numbers
        return np.where(np.abs(np.imag(found)) < 1e-12, np.real(found), np.nan)
    return found


@lru_cache(maxsize=4096)
def _ordered_leaves(expr: Expr) -> tuple[Basic, ...]:
    return tuple(sorted(_leaves(expr), key=str))


def _leaves(expr: Basic) -> set[Basic]:
    """What needs a value: symbols, and fields at other times as wholes."""
    if isinstance(expr, At | Symbol):
        return {expr}
    return set().union(*(_leaves(a) for a in expr.args))


class World:
    """Everything that a declaration speaks of, as numbers, at a few explicit sites.

    Parameters
    ----------
    model : Model
    values : numbers of the parameters
    sites : population → number of sites
    rng : source of the random matrices, fields, noises and labels

    Attributes
    ----------
    couplings : name of a matrix → array (rows, columns), entries of order one
    numbers : unit quantity (field, noise, quenched number, field at another time) → array (sites of its population)
    """

    def __init__(self, model: Model, values: Values, sites: Mapping[Population, int], rng: np.random.Generator) -> None:
        self.model, self.values, self.sites = model, {**values, N: SIZE, t: 0.37}, dict(sites)
        matrices = (*model.matrices, *model.bonds)
        self.couplings = {m.name: rng.normal(size=(sites[m.rows], sites[m.cols])) for m in matrices}
        self.numbers: dict[Basic, Array] = {}
        for unit in (*model.fields, *model.noises, *model.quenched):
            self.numbers[unit] = rng.normal(size=sites[unit.population])
        for delayed in _delayed(site_bodies(model)):
            self.numbers[delayed] = rng.normal(size=sites[delayed.population])

    def evaluate(self, expr: Expr, population: Population) -> Array:
        """An expression with one open unit index: explicit loops over the sites of every sum, inner sums first."""
        flat, sums = _opened(expr)
        numbers = {**self.values, **self.numbers, **{mark: self._sum(node) for mark, node in sums}}
        return np.broadcast_to(np.asarray(evaluate(flat, numbers), dtype=float), (self.sites[population],))

    def _sum(self, node: Expr) -> Any:
        if isinstance(node, Mean):
            body = self.evaluate(node.body, node.population)
            return sum(body[j] for j in range(len(body))) / len(body)
        assert isinstance(node, Apply)
        body = self.evaluate(node.body, node.cols)
        entry = self._entry(node.matrix)
        rows = self.sites[node.rows]
        return np.array([sum(entry(i, j) * body[j] for j in range(len(body))) for i in range(rows)])

    def _entry(self, matrix: Any) -> Callable[[int, int], float]:
        if isinstance(matrix, Transpose):
            array = self.couplings[matrix.matrix.name]
            return lambda i, j: float(array[j, i])
        plain = self.couplings[matrix.name]
        return lambda i, j: float(plain[i, j])


@lru_cache(maxsize=1024)
def _opened(expr: Expr) -> tuple[Expr, tuple[tuple[Dummy, Expr], ...]]:
    """An expression whose outermost sums are marks, and what the marks stand for."""
    marks = {node: Dummy(f"s{k}") for k, node in enumerate(_outermost(expr))}
    return _free(expr.xreplace(marks)), tuple((mark, node) for node, mark in marks.items())


def _outermost(expr: Basic) -> list[Expr]:
    """Sums over units that are not inside another sum, in order of appearance."""
    if isinstance(expr, Apply | Mean):
        return [expr]
    found: dict[Expr, None] = {}
    for arg in expr.args if not isinstance(expr, UnitSymbol) else ():
        found |= dict.fromkeys(_outermost(arg))
    return list(found)


def _free(expr: Expr) -> Expr:
    """Bound unit quantities as free ones (what is left of an expression after its sums are numbers)."""
    return expr.xreplace({s: s.free() for s in expr.atoms(UnitSymbol) if s.bound})


def _delayed(exprs: Iterable[Expr]) -> list[At]:
    """Every field at another time, free."""
    found: dict[At, None] = {}
    for expr in exprs:
        for node in sorted(expr.atoms(At), key=str):
            found.setdefault(_free(node))
    return list(found)


def relative(a: Any, b: Any, scale: float | None = None) -> float:
    """Largest difference of two sets of numbers, relative to their size."""
    first, second = np.atleast_1d(np.asarray(a)), np.atleast_1d(np.asarray(b))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("inf")
    size = (
        scale if scale is not None else max(float(np.abs(first).max(initial=0)), float(np.abs(second).max(initial=0)))
    )
    return float(np.abs(first - second).max(initial=0)) / (size if size > 0 else 1.0)


def slope(f: Callable[[float], complex], x: float, step: float) -> complex:
    """Derivative by the seven-point rule."""
    weights = ((1, 45), (2, -9), (3, 1))
    return sum((w * (f(x + k * step) - f(x - k * step)) for k, w in weights), 0j) / (60 * step)
