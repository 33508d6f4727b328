"""Transformations of declarations, so that theory and simulation both get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sympy import Basic, Heaviside, sqrt

from quenched.theory.bonds import BondField
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Gaussian, Iid, RandomMatrix
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Field, UnitSymbol
from quenched.theory.keywords import named_arguments
from quenched.theory.model import Map, Model, rebuild
from quenched.theory.spaces import as_expr, as_scalar, t
from quenched.theory.substitute import parameters_of, substitute

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs


def discretise(model: Model, dt: Any) -> Model:
    """The Euler–Maruyama map of a flow, x ← x + dt·drift + √dt·noise.

    Parameters
    ----------
    model : Dynamics
    dt : positive number or parameter
        Time step, in the flow's unit of time.

    Returns
    -------
    Map
        With `dt` set; ``t`` and delays in its expressions remain times of the flow, one step advances ``t`` by `dt`.

    Raises
    ------
    QuenchedError
        For a model that is a map already, or a step that is not positive.
    """
    if model.clock != "flow":
        raise QuenchedError("discretise takes a flow (Dynamics), got a map")
    step = as_scalar(dt, "dt")
    if step.is_positive is not True:
        raise QuenchedError(f"dt should be positive, got {step}: declare a symbol with positive=True")
    scaled: dict[Basic, Any] = {}
    for noise in model.noises:
        scaled[noise], scaled[noise.bind()] = noise / sqrt(step), noise.bind() / sqrt(step)
    eqs: dict[Any, Any] = {x: x + (step * substitute(rhs, scaled)).expand(deep=False) for x, rhs in model.eqs.items()}
    eqs |= {bond: bond + step * rhs for bond, rhs in model.bonds.items()}
    return rebuild(Map, eqs, model.name, model.defaults, model.observables, step)


def freeze(model: Model, field: Any, at: Any = 0) -> Model:
    """The system in which a field, or a matrix of dynamic couplings, stands still from a time on.

    Parameters
    ----------
    model : Model
    field : Field or dynamic coupling of the model
    at : number or parameter
        Time of the halt, in the declaration's unit (`t` is 0 at the start of a simulation).

    Raises
    ------
    QuenchedError
        For something that has no equation in the model.
    """
    if field not in model.equations:
        known = ", ".join(str(x) for x in model.equations)
        raise QuenchedError(f"freeze: {field} has no equation in this model (fields are {known})")
    moving = Heaviside(as_scalar(at, "at") - t, 0)
    rhs: Any = model.equations[field]
    halted = moving * rhs if model.clock == "flow" else field + moving * (rhs - field)
    eqs = {**model.equations, field: halted}
    return rebuild(type(model), eqs, model.name, model.defaults, model.observables, model.dt)


@named_arguments
def copies(model: Any, n: int, share: Iterable[Any] | None = None, initial: Sequence[Any] | None = None) -> Any:
    """n copies of the whole system, x[1] … x[n].

    Parameters
    ----------
    model : Model or Gibbs
        Copies of a measure share all disorder and are independent given it: they differ by where they start.
    n : int
        Number of copies, at least 2.
    share : iterable of matrices, quenched quantities and noises, optional
        What is the same in all copies; everything else is drawn afresh for each. Default: all matrices and quenched
        quantities, no noise.
    initial : sequence of n initial states, optional
        Of a measure: where each copy starts, such as rows of a matrix of stored patterns.

    Raises
    ------
    QuenchedError
        For n < 2, a model that consists of copies already, or something to share that is not in the model.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise QuenchedError(f"copies needs a whole number of copies, at least 2, got {n!r}")
    if any(x.copy is not None for x in model.fields) or getattr(model, "starts", None):
        raise QuenchedError("the model consists of copies already")
    random: tuple[Basic, ...] = (*model.matrices, *model.quenched, *model.noises)
    shared = [*model.matrices, *model.quenched] if share is None else list(share)
    for thing in shared:
        if thing not in random:
            raise QuenchedError(
                f"cannot share {thing}: the model's disorder is {', '.join(map(str, random)) or 'empty'}"
            )
    if model.clock == "none":
        return _measure_copies(model, n, shared, initial)
    if initial is not None:
        raise QuenchedError("initial= of copies is for measures: fields of a dynamics have their own initial=")
    eqs: dict[Any, Any] = {}
    for k in range(1, n + 1):
        renamed = _copy_names(model, k, shared)
        eqs.update({x[k]: substitute(rhs, renamed) for x, rhs in model.eqs.items()})
        eqs.update({renamed[bond]: substitute(rhs, renamed) for bond, rhs in model.bonds.items()})
    return rebuild(type(model), eqs, model.name, model.defaults, None, model.dt, model.steps)


def _measure_copies(model: Gibbs, n: int, shared: list[Any], initial: Sequence[Any] | None) -> Gibbs:
    """The same measure, whose copies s[1] … s[n] start from states of their own."""
    if len(shared) < len({*model.matrices, *model.quenched}):
        raise NotCovered("copies of a measure that do not share all of its disorder: leave share= out")
    if initial is None or len(list(initial)) != n:
        raise QuenchedError(f"copies of a measure differ by where they start: give initial= with {n} states")
    if len(model.fields) != 1:
        raise NotCovered("copies of a measure of one field, that start from states of their own")
    (field,) = model.fields
    starts = tuple(as_expr(x, "initial= of copies") for x in initial)
    first = Field(field.name, field.population, starts[0], field.each)
    swap = {field: first, field.bind(): first.bind()}
    found = model.rewritten(swap)
    return type(model)(
        found.priors, found.energy, found.weights, found.beta, found.name, found.defaults, found.cold, starts
    )


def _copy_names(model: Model, k: int, shared: list[Any]) -> Mapping[Basic, Any]:
    """What stands for each field and each unshared random quantity in copy k."""
    names: dict[Basic, Any] = {}
    own: list[UnitSymbol] = [*model.fields, *(s for s in (*model.quenched, *model.noises) if s not in shared)]
    for symbol in own:
        names[symbol], names[symbol.bind()] = symbol[k], symbol.bind()[k]
    for matrix in model.matrices:
        if matrix not in shared:
            names[matrix] = _renamed(matrix, k)
    for bond in model.bonds:
        start = None if bond.initial is None else substitute(bond.initial, names)
        names[bond] = BondField(f"{bond.name}[{k}]", (bond.rows, bond.cols), start)
    return names


def _renamed(matrix: RandomMatrix, k: int) -> RandomMatrix:
    name = f"{matrix.name}[{k}]"
    if isinstance(matrix, Gaussian):
        pairs = [(_renamed(other, k), rho) for other, rho in matrix.correlation.items()]
        return Gaussian(
            name,
            matrix.variance,
            matrix.mean,
            matrix.symmetry,
            (matrix.rows, matrix.cols),
            matrix.diagonal,
            matrix.redraw,
            pairs,
        )
    if isinstance(matrix, Iid):
        return Iid(name, matrix.law, (matrix.rows, matrix.cols), matrix.redraw)
    if isinstance(matrix, Circulant):
        return matrix  # not random: every copy has the same
    raise QuenchedError(f"cannot draw {matrix} afresh for each copy")


__all__ = ["copies", "discretise", "freeze"]


def zero_temperature(model: Gibbs) -> Gibbs:
    """The measure on the states of lowest energy: β → ∞ (after N → ∞ in the theory).

    Without an energy, a measure under constraints is taken to where the volume of its solutions shrinks to a point.

    Parameters
    ----------
    model : Gibbs
        Its inverse temperature is dropped, and with it a parameter that occurs nowhere else, and observables of it.

    Raises
    ------
    QuenchedError
        For a model that is no Gibbs measure.
    """
    from quenched.theory.gibbs import Gibbs

    if not isinstance(model, Gibbs):
        raise QuenchedError(f"zero_temperature takes a Gibbs measure, got {type(model).__name__}")
    cold = Gibbs(model.priors, model.energy, model.weights, 1, model.name, None, True, model.starts)
    cold.defaults = {s: v for s, v in model.defaults.items() if s in cold.parameters}
    lost = set(model.parameters) - set(cold.parameters)
    return cold.observe(**{name: e for name, e in model.observables.items() if not parameters_of(e) & lost})
