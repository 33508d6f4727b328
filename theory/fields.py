"""Quantities of one unit: fields, quenched disorder and white noise, and their values at other times.

All are sympy symbols with one open unit index. Inside `Apply` and `Mean` the index is summed over; the symbols there
are *bound* copies, so that ``subs`` and ``diff`` on the open index never reach them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sympy import Basic, Expr, S, Symbol, Tuple, sympify
from sympy.core.relational import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan
from sympy.core.symbol import Str

from quenched.theory.distributions import Law, as_law
from quenched.theory.errors import AmbiguousExpression, NotCovered, QuenchedError
from quenched.theory.keywords import named_arguments
from quenched.theory.spaces import NOTHING, RESERVED, Population, as_expr, as_name, as_population, t, units

#: When a random quantity is drawn afresh.
REDRAW = (None, "step", "layer", "sample")


class NoTruthValue(AmbiguousExpression, TypeError):
    """A comparison between fluctuating quantities was used as a condition of Python."""


class _Undecided:
    """A relation between model quantities: fine inside Piecewise, refused as a Python condition."""

    __slots__ = ()

    @property
    def func(self) -> Any:
        return type(self).__mro__[2]

    def __bool__(self) -> bool:
        raise NoTruthValue(
            f"{self} has no truth value: write Heaviside, Piecewise or Max in place of a Python condition"
        )


class _Gt(_Undecided, StrictGreaterThan):
    __slots__ = ()


class _Ge(_Undecided, GreaterThan):
    __slots__ = ()


class _Lt(_Undecided, StrictLessThan):
    __slots__ = ()


class _Le(_Undecided, LessThan):
    __slots__ = ()


def _relation(kind: type, plain: type, left: Expr, right: Any) -> Any:
    try:
        right = sympify(right)
    except Exception:
        return NotImplemented
    relation = plain(left, right)
    return kind(left, right, evaluate=False) if isinstance(relation, plain) else relation


class Compared:
    """Mixin: comparisons of model quantities explain themselves when used as Python conditions."""

    __slots__ = ()

    def __gt__(self, other: Any) -> Any:
        return _relation(_Gt, StrictGreaterThan, self, other)

    def __ge__(self, other: Any) -> Any:
        return _relation(_Ge, GreaterThan, self, other)

    def __lt__(self, other: Any) -> Any:
        return _relation(_Lt, StrictLessThan, self, other)

    def __le__(self, other: Any) -> Any:
        return _relation(_Le, LessThan, self, other)


class UnitSymbol(Compared, Symbol):
    """A real number per unit of a population.

    Attributes
    ----------
    name : str
    population : Population
    copy : int or None
        Which copy of the whole system with the same disorder, ``None`` for the system itself.
    bound : bool
        Whether the unit index is summed over (inside `Apply`, `Mean`).
    """

    population: Population
    copy: int | None
    bound: bool
    _details: tuple[Basic, ...]
    _content: tuple[Any, ...]

    # Symbol.__new__ caches by name alone and would return the symbol of another population.
    def __new__(cls, *args: Any, **kwargs: Any) -> UnitSymbol:
        raise NotImplementedError

    @classmethod
    def _make(
        cls, name: str, population: Population, copy: int | None, bound: bool, details: tuple[Basic, ...]
    ) -> UnitSymbol:
        obj = Symbol.__xnew__(cls, name, real=True)
        obj.population, obj.copy, obj.bound, obj._details = population, copy, bound, details
        obj._content = (name, population, -1 if copy is None else copy, int(bound), Tuple(*details))
        return obj

    def _hashable_content(self) -> tuple[Any, ...]:
        return self._content

    def sort_key(self, order: Any = None) -> Any:
        key = (self.name, self.population.name, str(self.copy), str(self.bound))
        return self.class_key(), (len(key), key), S.One.sort_key(), S.One

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (type(self), self.name, self.population, self.copy, self.bound, self._details)

    def _with(self, **changes: Any) -> Any:
        state: dict[str, Any] = {
            "copy": self.copy,
            "bound": self.bound,
            "population": self.population,
            "details": self._details,
        }
        state.update(changes)
        return self._make(self.name, state["population"], state["copy"], state["bound"], state["details"])

    def bind(self) -> Any:
        """The same quantity with its unit index summed over."""
        return self if self.bound else self._with(bound=True)

    def free(self) -> Any:
        """The same quantity with an open unit index."""
        return self._with(bound=False) if self.bound else self

    # Indexing picks a copy; sympy must not take the symbol for a sequence because of it.
    __iter__ = None
    _iterable = False

    def __getitem__(self, copy: Any) -> Any:
        if isinstance(copy, bool) or not isinstance(copy, int) or copy < 0:
            raise QuenchedError(f"{self.name}[...] picks a copy of the system by a whole number, got {copy!r}")
        return self._with(copy=copy)

    def __rmatmul__(self, other: Any) -> Any:
        raise AmbiguousExpression(
            f"({other}) @ {self}: expected a coupling matrix before @, got {type(other).__name__}"
        )

    def _sympystr(self, printer: Any) -> str:
        return self.name if self.copy is None else f"{self.name}[{self.copy}]"

    def _latex(self, printer: Any) -> str:
        text = printer._deal_with_super_sub(self.name) if "{" not in self.name else self.name
        return text if self.copy is None else f"{{{text}}}^{{[{self.copy}]}}"

    def _sympyrepr(self, printer: Any) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.population!r}, copy={self.copy}, bound={self.bound})"


def _rebuild(cls: Any, name: str, population: Population, copy: Any, bound: bool, details: Any) -> UnitSymbol:
    """Unpickle a unit symbol."""
    return cls._make(name, population, copy, bound, details)


class Field(UnitSymbol):
    """A dynamic variable of every unit of a population.

    Parameters
    ----------
    name : str
    population : Population, default `units`
    initial : law, number or expression in quenched quantities, optional
        State at the start of a simulation; of a matrix a sum of ``outer(u, v)`` of the units at the start.
    each : Population, optional
        Extra copy index (samples, vector components) that couplings do not contract.
    over : Population, or pair of them, optional
        The same as `population`; a pair (rows, columns) makes a matrix of dynamic couplings.

    Notes
    -----
    ``x(t - d)`` is the field at another time, ``x[1]`` the field in a copy of the whole system with the same disorder.
    """

    @named_arguments
    def __new__(
        cls, name: Any, population: Any = units, initial: Any = None, each: Any = None, over: Any = None
    ) -> Field:
        text = as_name(name, "Field")
        population = population if over is None else over
        if isinstance(population, (tuple, list, Tuple)):
            return _bond(text, population, initial, each)
        population = as_population(population, f"population of field {text!r}")
        if initial is not None and not isinstance(initial, Law):
            initial = as_expr(initial, f"initial of field {text!r}")
        if each is not None:
            each = as_population(each, f"each of field {text!r}")
        details = tuple(NOTHING if part is None else part for part in (initial, each))
        return cls._make(text, population, None, False, details)

    @property
    def initial(self) -> Law | Expr | None:
        """Law or value of the initial state, ``None`` for the simulator's default."""
        return None if self._details[0] == NOTHING else self._details[0]

    @property
    def each(self) -> Population | None:
        """Extra copy index, or ``None``."""
        return None if self._details[1] == NOTHING else self._details[1]

    def __call__(self, time: Any) -> Expr:
        return At(self, time)


def _bond(name: str, over: Any, initial: Any, each: Any) -> Any:
    """A field over pairs of units is a matrix."""
    from quenched.theory.bonds import BondField

    if each is not None:
        raise NotCovered(f"field {name!r} over pairs of units has no further index: leave out each=")
    return BondField(name, over, initial)


class Quenched(UnitSymbol):
    """Disorder per unit, drawn once: inputs, phases, gains, thresholds.

    Parameters
    ----------
    name : str
    law : law of one number
    over : Population, default `units`
    redraw : "step" or "layer", optional
        Drawn afresh at every step or layer.
    each : Population, optional
        Extra copy index (samples): one number per unit and sample, as inputs have. Without it all samples share it.
    """

    @named_arguments
    def __new__(cls, name: Any, law: Any, over: Any = units, redraw: str | None = None, each: Any = None) -> Quenched:
        text = as_name(name, "Quenched")
        law = as_law(law, f"law of {text!r}")
        population = as_population(over, f"over of {text!r}")
        space = NOTHING if each is None else as_population(each, f"each of {text!r}")
        return cls._make(text, population, None, False, (law, as_redraw(redraw, text), space))

    @property
    def law(self) -> Law:
        """Law of one unit's number."""
        return self._details[0]

    @property
    def redraw(self) -> str | None:
        """When it is drawn afresh, ``None`` for once and for all."""
        return self._details[1].name or None

    @property
    def each(self) -> Population | None:
        """Extra copy index, or ``None``."""
        return None if self._details[2] == NOTHING else self._details[2]


class WhiteNoise(UnitSymbol):
    """Gaussian white noise, independent between units; the same name is the same noise.

    Of unit intensity in a flow, ⟨ξ(t)ξ(t')⟩ = δ(t−t'), and of unit variance at every step of a map. With ``each=`` it
    is independent for every sample, without it all samples share it.
    """

    @named_arguments
    def __new__(cls, name: Any, over: Any = units, each: Any = None) -> WhiteNoise:
        if not isinstance(name, (str, Str)):
            raise QuenchedError(f'WhiteNoise is named, equal names are the same noise: WhiteNoise("xi"), got {name!r}')
        text = as_name(name, "WhiteNoise")
        details = () if each is None else (as_population(each, f"each of noise {text!r}"),)
        return cls._make(text, as_population(over, f"over of noise {text!r}"), None, False, details)

    @property
    def each(self) -> Population | None:
        """Extra copy index, or ``None``."""
        return self._details[0] if self._details else None


class At(Compared, Expr):
    """A field at another time: ``x(t - d)``. At time ``t`` it is the field itself.

    Attributes
    ----------
    field : Field
    time : Expr
    """

    is_commutative = True
    is_real = True
    _diff_wrt = True

    def __new__(cls, field: Any, time: Any) -> Expr:
        field = sympify(field)
        time = as_expr(time, f"time of {field}")
        for symbol in time.free_symbols:
            owner = RESERVED.get(getattr(symbol, "name", ""))
            if owner is not None and symbol != owner:
                raise QuenchedError(
                    f"{symbol} in {field}({time}) is not the time of the language: from quenched import {symbol}"
                )
            if isinstance(symbol, UnitSymbol):
                raise QuenchedError(
                    f"{field}({time}) needs a time, such as t - d, but {symbol} is a quantity of the units"
                )
        if time == t:
            return field
        if isinstance(field, UnitSymbol):
            return Expr.__new__(cls, field, time)
        return _shifted(field, time)

    @property
    def field(self) -> Field:
        """The field."""
        return self.args[0]

    @property
    def time(self) -> Expr:
        """The time at which it is taken."""
        return self.args[1]

    @property
    def population(self) -> Population:
        """Population of the field."""
        return self.field.population

    def _eval_derivative(self, s: Any) -> Expr:
        return S.Zero

    def _sympystr(self, printer: Any) -> str:
        return f"{printer._print(self.field)}({printer._print(self.time)})"

    def _latex(self, printer: Any) -> str:
        return rf"{printer._print(self.field)}\left({printer._print(self.time)}\right)"


def _shifted(expr: Expr, time: Expr) -> Expr:
    """An expression that was substituted for a field, taken at another time."""
    if isinstance(expr, UnitSymbol):
        return At(expr, time)
    if expr == t:
        return time
    if isinstance(expr, At):
        return At(expr.field, expr.time.xreplace({t: time}))
    return expr.func(*(_shifted(arg, time) for arg in expr.args)) if expr.args else expr


def as_redraw(value: Any, owner: str) -> Str:
    """Check `redraw=` and return it as a sympy argument (empty for "never")."""
    text = value.name if isinstance(value, Str) else value
    if text in ("", None):
        return Str("")
    if text not in REDRAW:
        raise QuenchedError(f'redraw of {owner} should be "step", "layer" or "sample", got {value!r}')
    return Str(text)


def plain(expr: Expr) -> Expr:
    """The expression with sympy's own relations in place of those that explain themselves."""
    return expr.xreplace({r: r.func(*r.args) for r in expr.atoms(_Gt, _Ge, _Lt, _Le)})


def bind(expr: Expr) -> Expr:
    """Close the unit index of an expression: its unit symbols become bound copies."""
    return expr.xreplace({s: s.bind() for s in expr.atoms(UnitSymbol) if not s.bound})


def unbind(expr: Expr) -> Expr:
    """Open the unit index of the body of an `Apply` or a `Mean`; sums nested inside it stay closed."""
    if isinstance(expr, UnitSymbol):
        return expr.free()
    if not expr.args or getattr(expr, "closes_index", False):
        return expr
    args = tuple(unbind(arg) for arg in expr.args)
    return expr if args == expr.args else expr.func(*args)


def open_leaves(expr: Basic) -> Iterator[tuple[Basic, Population]]:
    """Everything in an expression that carries its unit index, with its population.

    Sums (`Apply`) carry the index of their rows; averages carry none.
    """
    if isinstance(expr, UnitSymbol):
        yield expr, expr.population
    elif getattr(expr, "closes_index", False):
        rows = getattr(expr, "rows", None)
        if rows is not None:
            yield expr, rows
    else:
        for arg in expr.args:
            yield from open_leaves(arg)


def population_of(expr: Basic, what: str) -> Population | None:
    """The population that the unit index of `expr` runs over, ``None`` for a quantity without units.

    Raises
    ------
    QuenchedError
        When the expression mixes populations.
    """
    first: tuple[Basic, Population] | None = None
    for leaf, population in open_leaves(expr):
        if first is None:
            first = leaf, population
        elif population != first[1]:
            raise QuenchedError(
                f"{what} mixes populations: {first[0]} is in {first[1].name!r}, {leaf} is in {population.name!r}"
            )
    return None if first is None else first[1]
