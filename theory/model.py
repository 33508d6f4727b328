"""Declared models: a flow (`Dynamics`) or a map (`Map`) of the fields of one or several populations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from sympy import Basic, Expr, Symbol, sympify

from quenched.theory.algebra import Matrix
from quenched.theory.bonds import BondField
from quenched.theory.checks import check_domain, check_laws, check_model, check_observable, declared_rhs
from quenched.theory.couplings import RandomMatrix
from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.fields import Field, Quenched, WhiteNoise
from quenched.theory.keywords import named_arguments
from quenched.theory.observables import Critical
from quenched.theory.spaces import N, Population
from quenched.theory.substitute import (
    canonical,
    content_key,
    matrices_of,
    parameters_of,
    populations_of,
    substitute,
    unit_symbols_of,
    walk,
)

Clock = Literal["flow", "map"]


class Model:
    """Equations of motion with their couplings, disorder and observables. Use `Dynamics` or `Map`.

    Parameters
    ----------
    eqs : dict of Field to expression
        Right-hand sides; that of a field over pairs of units is a matrix.
    name : str, optional
        How the model is printed.
    defaults : dict of symbol or name to number, optional
        Values of parameters that callers may leave out.

    Attributes
    ----------
    eqs : dict of Field to Expr
    bonds : dict of BondField to Matrix
        Equations of dynamic couplings, ``Field("A", over=(rows, cols))``.
    clock : "flow" or "map"
    dt : Expr or None
        Time per step of a discretised flow; times in expressions are then physical times.
    fields, matrices, noises, quenched, populations : tuples, in order of appearance
    parameters : tuple of Symbol, sorted by name
    observables : dict of str to Expr
    defaults : dict of Symbol to number

    Raises
    ------
    QuenchedError
        Whenever the declaration is not a model: one line naming the thing and what was expected.
    """

    clock: ClassVar[Clock]
    #: Number of steps of a map that runs from a declared start (see `Layers`), None where time has no end.
    steps: int | None = None

    @named_arguments
    def __init__(
        self,
        eqs: Mapping[Field, Any],
        name: str | None = None,
        defaults: Mapping[Any, Any] | None = None,
    ) -> None:
        units, self.bonds = split_bonds(eqs)
        self.eqs: dict[Field, Expr] = declared_rhs(type(self).__name__, units)
        self.name = name
        self.dt: Expr | None = None
        self.observables: dict[str, Expr] = {}
        check_model(self.clock, self.eqs, self.bonds, self.steps is not None)
        self._collect()
        self.defaults: dict[Symbol, Any] = {}
        self.defaults = self._assignment(defaults or {}, "default")

    # -- contents --------------------------------------------------------------------------------------------------
    def _collect(self) -> None:
        nodes = self.nodes
        observed = tuple(self.observables.values())
        step = () if self.dt is None else (self.dt,)
        self.fields: tuple[Field, ...] = tuple(self.eqs)
        self.matrices: tuple[RandomMatrix, ...] = tuple(m for m in matrices_of(*nodes) if m not in self.bonds)
        self.noises: tuple[WhiteNoise, ...] = tuple(unit_symbols_of(WhiteNoise, *nodes))
        self.quenched: tuple[Quenched, ...] = tuple(unit_symbols_of(Quenched, *nodes, *observed))
        self.populations: tuple[Population, ...] = tuple(populations_of(*nodes))
        found = parameters_of(*nodes, *observed, *step)
        self.parameters: tuple[Symbol, ...] = tuple(sorted(found, key=lambda s: s.name))
        self.uses_N: bool = any(part == N for node in nodes for part in walk(node))

    @property
    def equations(self) -> dict[Any, Basic]:
        """The equations of units and bonds."""
        return {**self.eqs, **self.bonds}

    @property
    def nodes(self) -> tuple[Basic, ...]:
        """Everything that the equations are made of: fields, bonds and right-hand sides."""
        return (*self.equations, *self.equations.values())

    def key(self) -> str:
        """Content key: 64 hexadecimal digits, equal in every process for equal declarations."""
        equations = [f"{canonical(x)}:{canonical(rhs)}" for x, rhs in self.equations.items()]
        observed = [f"{name}:{canonical(expr)}" for name, expr in sorted(self.observables.items())]
        step = "" if self.dt is None else canonical(self.dt)
        length = [] if self.steps is None else [f"steps:{self.steps}"]
        return content_key(self.clock, step, *length, *equations, "observables", *observed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.key() == other.key()

    def __hash__(self) -> int:
        return int(self.key()[:15], 16)

    @property
    def starts(self) -> dict[Field, Expr]:
        """Start values that are declared as expressions, of a map with a declared number of steps."""
        if self.steps is None:
            return {}
        return {x: x.initial for x in self.eqs if isinstance(x.initial, Expr)}

    # -- observables -----------------------------------------------------------------------------------------------
    def observe(self, **named: Any) -> Model:
        """Declare observables by name; returns the model itself.

        Parameters
        ----------
        **named : expressions in `mean`, `total`, `cov` and named functionals, with no open unit index

        Raises
        ------
        QuenchedError
            For an open unit index, a field that is not in the model, or a name that is declared twice.
        """
        checked = {}
        for name, given in named.items():
            expr = check_observable(name, given, self.eqs, self.parameters)
            if self.observables.get(name, expr) != expr:
                raise QuenchedError(f"observable {name!r} is already declared as {self.observables[name]}")
            checked[name] = expr
        self.observables.update(checked)
        self._collect()
        return self

    # -- parameters ------------------------------------------------------------------------------------------------
    def _symbol(self, key: Any) -> Symbol:
        """The parameter that a symbol or a name stands for."""
        for symbol in self.parameters:
            if key == symbol or key == symbol.name:
                return symbol
        if isinstance(key, Symbol) and any(s.name == key.name for s in self.parameters):
            raise QuenchedError(
                f"parameter {key.name!r} was declared with other assumptions: use the model's own symbol"
            )
        where = f" of {self.name}" if self.name else ""
        raise QuenchedError(
            f"unknown parameter {str(key)!r}{where}: {nearest(str(key), (s.name for s in self.parameters))}"
        )

    def _assignment(self, given: Mapping[Any, Any], what: str) -> dict[Symbol, Any]:
        out: dict[Symbol, Any] = {}
        for key, value in given.items():
            symbol = self._symbol(key)
            if symbol in out:
                raise QuenchedError(f"{what} {symbol.name!r} is given twice")
            out[symbol] = check_domain(symbol, value)
        return out

    def fix(self, values: Mapping[Any, Any] | None = None, **named: Any) -> Model:
        """A model with some parameters replaced everywhere by numbers or expressions.

        Parameters
        ----------
        values : dict of symbol or name to number or expression, optional
        **named : the same by name

        Returns
        -------
        Model
            Observables `Critical(p, …)` of a fixed parameter p are left out: there is nothing to vary.
        """
        return self.rewritten(dict(self._assignment({**(values or {}), **named}, "parameter")))

    def unobserved(self) -> Model:
        """The same equations without observables."""
        bare = self.rewritten({})
        bare.observables = {}
        bare._collect()
        return bare

    def rewritten(self, chosen: Mapping[Basic, Any]) -> Model:
        """The model with parts (parameters, matrices, …) replaced everywhere by others."""
        memo: dict[Basic, Basic] = {}

        def put(node: Any) -> Any:
            return substitute(node, chosen, memo)

        kept = {k: e for k, e in self.observables.items() if not any(c.parameter in chosen for c in e.atoms(Critical))}
        eqs = {put(x): put(rhs) for x, rhs in self.equations.items()}
        check_model(self.clock, *split_bonds(eqs), self.steps is not None)
        return rebuild(
            type(self),
            eqs,
            self.name,
            {s: v for s, v in self.defaults.items() if s not in chosen},
            {k: put(e) for k, e in kept.items()},
            put(self.dt),
            self.steps,
        )

    def values(self, params: Mapping[Any, Any] | None = None, **named: Any) -> dict[Symbol, float]:
        """Complete numeric values of all parameters: the given ones, then the defaults.

        Raises
        ------
        QuenchedError
            For an unknown name, a missing value, a value outside the symbol's assumptions, or values that make a
            variance negative.
        """
        chosen = {**self.defaults, **self._assignment({**(params or {}), **named}, "parameter")}
        missing = [s.name for s in self.parameters if s not in chosen]
        if missing:
            raise QuenchedError(f"no value for {', '.join(missing)}: give {missing[0]}=…")
        numbers = {}
        for symbol in self.parameters:
            value = sympify(chosen[symbol])
            if value.free_symbols:
                raise QuenchedError(f"parameter {symbol.name!r} needs a number, got {value}")
            numbers[symbol] = float(value)
        check_laws(self.nodes, numbers)
        return numbers

    # -- printing --------------------------------------------------------------------------------------------------
    def __str__(self) -> str:
        from quenched.theory.indices import indexed

        return "\n".join(indexed(self))

    def __repr__(self) -> str:
        return str(self)

    def _repr_latex_(self) -> str:
        from quenched.theory.indices import indexed_latex

        return indexed_latex(self)

    def __reduce__(self) -> Any:
        return rebuild, (type(self), self.equations, self.name, self.defaults, self.observables, self.dt, self.steps)


class Dynamics(Model):
    """A flow: ``Dynamics({x: rhs})`` reads dx/dt = rhs. Noise is Itô."""

    clock = "flow"


class Map(Model):
    """A map: ``Map({x: rhs})`` reads x(t+1) = rhs, all fields updated together.

    ``Map({x: rhs}, steps=4)`` runs four steps from the declared start: it is the head `Layers` with ``depth=4``.
    """

    clock = "map"

    def __new__(cls, *args: Any, steps: int | None = None, **keywords: Any) -> Map:
        if cls is Map and steps is not None:
            from quenched.theory.layers import Layers

            return object.__new__(Layers)
        return object.__new__(cls)


def split_bonds(eqs: Any) -> tuple[Any, dict[BondField, Matrix]]:
    """The equations of units, and those of dynamic couplings."""
    if not isinstance(eqs, Mapping):
        return eqs, {}
    bonds = {key: rhs for key, rhs in eqs.items() if isinstance(key, BondField)}
    return ({key: rhs for key, rhs in eqs.items() if key not in bonds} if bonds else eqs), bonds


def rebuild(
    head: type[Model],
    eqs: Mapping[Any, Basic],
    name: str | None = None,
    defaults: Mapping[Symbol, Any] | None = None,
    observables: Mapping[str, Expr] | None = None,
    dt: Expr | None = None,
    steps: int | None = None,
) -> Model:
    """A model from equations that a transformation or a pickle has made."""
    model = object.__new__(head)
    units, model.bonds = split_bonds(eqs)
    model.eqs, model.name, model.dt, model.steps = dict(units), name, dt, steps
    model.observables = dict(observables or {})
    model.defaults = dict(defaults or {})
    model._collect()
    check_laws(model.nodes, {})
    model.defaults = {s: v for s, v in model.defaults.items() if s in model.parameters}
    return model
