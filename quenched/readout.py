"""What a solved state says about an observable: standard names, declared expressions, named functionals.

A declared mean is evaluated on the Gaussian law of the solved arguments: each term of its body must be a product of
functions of at most two arguments at two times, ⟨f(u_a(t₁)) g(u_b(t₂))⟩; others are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Add, Dummy, Expr, Float, Mul, S, Symbol, expand, lambdify

from quenched.theory.cross import CrossCovariance, between_units
from quenched.theory.delays import undelayed
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import At, Field, Quenched, UnitSymbol
from quenched.theory.naming import Output, field_names, standard_names, unbind, unit_name
from quenched.theory.observables import Critical, Functional, Lyapunov, Mean
from quenched.theory.problem import PotentialProblem, SiteFunction, StationaryGaussian, U
from quenched.theory.spaces import t, tau

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quenched.numerics import Branch
    from quenched.theory.model import Model

#: Names of scalar observables that every solved state has besides its standard curves.
GROWTH = "lyapunov"
_ROUNDING = 1e-12
#: At most so many lags of a curve are computed where no lags were asked for and each is expensive.
_FEW_LAGS = 64
#: Solvers keep variances positive; below this there is none.
_NOTHING = 1e-200


@dataclass(frozen=True)
class Quantity:
    """A number or a curve with its error estimate.

    Attributes
    ----------
    value, error : float or array of shape (k,)
    axis : name of the curve's argument: ``tau`` (lag, in the declaration's unit of time) or ``omega`` (angular
        frequency); None for a number
    at : array of shape (k,), or None for a number
    """

    value: Any
    error: Any
    axis: str | None = None
    at: Any = None


@dataclass(frozen=True)
class State:
    """One branch together with what is needed to evaluate observables on it; `at_lags` is the branch at other lags.

    `between` gives observables of covariances between units, in the state that the dynamics reaches, from two functions
    of one argument each and lags.
    """

    model: Model
    problem: StationaryGaussian
    potential: PotentialProblem | None
    values: Mapping[Symbol, float]
    branch: Branch
    at_lags: Callable[[NDArray[np.float64]], Branch]
    between: Callable[[CrossCovariance, list[tuple[SiteFunction, int]], Any], Quantity] | None = None

    def argument(self, name: str) -> int:
        """Index of the Gaussian argument that is the field printed as `name`."""
        names = [a.name for a in self.problem.arguments]
        if name not in names:
            raise NotCovered(f"the derivation has no Gaussian law for {name!r} (it has {', '.join(names)})")
        return names.index(name)

    def spread(self, a: int) -> float:
        """Variance over labels of the mean of an argument."""
        from quenched.numerics import label_variance

        return float(label_variance(self.problem, dict(self.values), a)) if self.problem.labels else 0.0


def tidied(branch: Branch) -> Branch:
    """The branch with variances of exactly 0 where the solver only kept them positive."""
    variance = np.where(branch.variance > _NOTHING, branch.variance, 0.0)
    covariance = {(a, b): c * bool(variance[a] > 0 and variance[b] > 0) for (a, b), c in branch.covariance.items()}
    return replace(branch, variance=variance, covariance=covariance)


def names_of(state: State) -> list[str]:
    """Every observable of the state: standard names, then the declared ones."""
    standard = [n for n, (_, what) in standard_names(state.model).items() if _has(state, what)]
    return list(dict.fromkeys([*standard, GROWTH, *state.model.observables]))


def _has(state: State, what: Field | Output) -> bool:
    if isinstance(what, Output):
        return _site_function(state, _present(what.body)) is not None
    return field_names(state.model)[what] in [a.name for a in state.problem.arguments]


def evaluate(state: State, name: str) -> Quantity:
    """The observable called `name`.

    Raises
    ------
    QuenchedError
        Unknown name.
    NotCovered
        The law of the state does not give this observable.
    """
    if name in state.model.observables:
        return _declared(state, state.model.observables[name])
    standard = standard_names(state.model)
    if name in standard:
        kind, what = standard[name]
        return _STANDARD[kind](state, what)
    if name == GROWTH:
        return _number(state.branch.growth)
    raise QuenchedError(f"no observable {name!r}: {nearest(name, names_of(state))}")


def _number(number: Any) -> Quantity:
    return Quantity(float(number.value), float(number.error))


def rms_of_mean(state: State, name: str) -> tuple[float, str] | None:
    """√⟨f²⟩ for an observable ⟨f⟩ that (nearly) vanishes: what its errors are relative to."""
    return rms_by(state.model, name, lambda node: _mean_node(state, node))


def rms_by(model: Model, name: str, read: Callable[[Mean], Quantity]) -> tuple[float, str] | None:
    """The same for any state, by the function that reads a mean."""
    expr = model.observables.get(name)
    standard = standard_names(model)
    if name in standard and standard[name][0] == "mean":
        expr = Mean(standard[name][1], standard[name][1].population)
    if not isinstance(expr, Mean) or expr.body.atoms(At):
        return None
    body = unbind(expr.body)
    try:
        square, itself = (read(Mean(term, expr.population)) for term in (expand(body**2), expr.body))
    except NotCovered:
        return None
    size = float(square.value) ** 0.5
    return (size, f"root mean square of {body}") if abs(float(itself.value)) < size / 10 else None


# --- standard observables ------------------------------------------------------------------------------------------


def _autocorrelation(state: State, fld: Field) -> Quantity:
    """⟨x(t)x(t+τ)⟩ = C(τ) + m², and the variance of m over labels."""
    a, b = state.argument(field_names(state.model)[fld]), state.branch
    mean, spread = float(b.mean[a]), float(b.mean_error[a])
    error = np.asarray(b.covariance_error[a, a]) + 2 * abs(mean) * spread
    level = mean**2 + state.spread(a)
    return Quantity(np.asarray(b.covariance[a, a]) + level, error, "tau", np.asarray(b.tau))


def _second_moment(state: State, fld: Field) -> Quantity:
    """⟨x²⟩."""
    a, b = state.argument(field_names(state.model)[fld]), state.branch
    mean, spread = float(b.mean[a]), float(b.mean_error[a])
    level = mean**2 + state.spread(a)
    return Quantity(float(b.variance[a]) + level, float(b.variance_error[a]) + 2 * abs(mean) * spread)


def _mean(state: State, fld: Field) -> Quantity:
    a = state.argument(field_names(state.model)[fld])
    return Quantity(float(state.branch.mean[a]), float(state.branch.mean_error[a]))


def _response(state: State, fld: Field) -> Quantity:
    name = f"R_{field_names(state.model)[fld]}"
    if name not in state.branch.response:
        raise NotCovered(f"the derivation has no response function {name}")
    at, value = state.branch.response[name]
    # The transfer function is rational and inverted by its poles: rounding is all that is lost.
    return Quantity(np.asarray(value), np.full(len(at), _ROUNDING), "tau", np.asarray(at))


def _spectrum(state: State, fld: Field) -> Quantity:
    a = state.argument(field_names(state.model)[fld])
    omega, spectra = state.branch.spectrum
    if (a, a) not in spectra:
        raise NotCovered(f"the solver gives no spectrum of {state.problem.arguments[a].name!r}")
    value = np.real(np.asarray(spectra[a, a]))
    # The transform adds up the errors of the covariance, at most over the range where it has not decayed.
    decaying = np.abs(state.branch.covariance[a, a] - state.branch.static.get((a, a), 0.0))
    weight = float(np.trapezoid(decaying, state.branch.tau)) / max(float(decaying[0]), 1e-300)
    spread = 2 * weight * float(np.max(state.branch.covariance_error[a, a]))
    return Quantity(value, np.full(len(value), spread), "omega", np.asarray(omega))


def _output(state: State, out: Output) -> Quantity:
    """⟨ψ(t)ψ(t+τ)⟩ of what a coupling reads."""
    found = _site_function(state, _present(out.body))
    assert found is not None  # names_of offers only those
    f, a = found
    return _two_times(state, (f, a), (f, a), None)


def _present(body: Expr) -> Expr:
    """What a coupling reads of its units at one earlier time, at the present: in a lasting state it is the same."""
    return undelayed(body, body.xreplace({a: S.Zero for a in body.atoms(At)}).atoms(Field))[0]


def _output_now(state: State, out: Output) -> Quantity:
    curve = _output(state, out)
    return Quantity(float(curve.value[0]), float(curve.error[0]))


_STANDARD: dict[str, Callable[[State, Any], Quantity]] = {
    "C": _autocorrelation,
    "C0": _second_moment,
    "mean": _mean,
    "R": _response,
    "S": _spectrum,
    "C_out": _output,
    "C_out0": _output_now,
}


# --- averages over the law of the state ----------------------------------------------------------------------------


def _site_function(state: State, body: Expr) -> tuple[SiteFunction, int] | None:
    """`body` as a function of one argument of the problem and of labels, or None."""
    labels = {str(label.symbol): label.symbol for label in state.problem.labels}
    swap: dict[Expr, Expr] = {q: labels[unit_name(q)] for q in body.atoms(Quenched) if unit_name(q) in labels}
    fields = [x for x in body.atoms(UnitSymbol) if x not in swap]
    names = [a.name for a in state.problem.arguments]
    if len(fields) != 1 or body.atoms(At) or field_names(state.model).get(fields[0]) not in names:
        return None
    index = names.index(field_names(state.model)[fields[0]])
    return SiteFunction("f", body.xreplace({fields[0]: U, **swap})), index


def _one_time(state: State, site: tuple[SiteFunction, int]) -> Quantity:
    from quenched import numerics

    f, a = site
    b = state.branch
    law = (b.mean[a], b.variance[a]), (b.mean[a] + b.mean_error[a], b.variance[a] + b.variance_error[a])
    if state.problem.labels:
        values = dict(state.values)
        (value, error), (moved, _) = (numerics.labelled1(state.problem, f, a, *moments, values) for moments in law)
    else:
        (value, error), (moved, _) = (numerics.average1(f, *moments, dict(state.values)) for moments in law)
        if b.variance[a] == 0:
            value = float(f.expr.xreplace({U: Float(b.mean[a]), **_floats(state)}))
    return Quantity(float(value), float(error) + abs(float(moved) - float(value)))


def _two_times(state: State, first: tuple[SiteFunction, int], second: tuple[SiteFunction, int], lag: Any) -> Quantity:
    """⟨f(u_a(t)) g(u_b(t+τ))⟩, at one lag or (None) at all lags of the state."""
    if lag is not None:
        state = replace(state, branch=state.at_lags(np.array([0.0, lag])))
    (_, a), (_, b) = first, second
    at = np.asarray(state.branch.tau)
    if not state.problem.labels and 0.0 in (state.branch.variance[a], state.branch.variance[b]):
        still, other = _one_time(state, first), _one_time(state, second)
        value = np.full(len(at), still.value * other.value)
        error = np.full(len(at), abs(still.value) * other.error + abs(other.value) * still.error)
    else:
        value, error = _correlated(state, first, second)
    return Quantity(value, error, "tau", at) if lag is None else Quantity(float(value[-1]), float(error[-1]))


def _correlated(state: State, first: tuple[SiteFunction, int], second: tuple[SiteFunction, int]) -> tuple[Any, Any]:
    """⟨f(u_a(t)) g(u_b(t+τ))⟩ of fluctuating arguments; errors by moving the law by its own errors."""
    from quenched import numerics

    (f, a), (g, b) = first, second
    br, values = state.branch, dict(state.values)
    c, spread = _covariance(state, a, b)
    law = (br.mean[a], br.mean[b], br.variance[a], br.variance[b])
    moved_law = (
        *(br.mean[a] + br.mean_error[a], br.mean[b] + br.mean_error[b]),
        *(br.variance[a] + br.variance_error[a], br.variance[b] + br.variance_error[b]),
    )
    average = partial(numerics.labelled2, state.problem, a, b) if state.problem.labels else numerics.average2
    value, error = average(f, g, *law, c, values)
    other, _ = average(f, g, *moved_law, c, values)
    nearer, _ = average(f, g, *law, c - np.sign(c) * spread, values)
    total = np.asarray(error) + np.abs(np.asarray(other) - value) + np.abs(np.asarray(nearer) - value)
    return np.asarray(value), total


def _covariance(state: State, a: int, b: int) -> tuple[Any, Any]:
    """C_ab(τ) on the lags of the state, with its error."""
    pair = (a, b) if (a, b) in state.branch.covariance else (b, a)
    if pair not in state.branch.covariance:
        names = [state.problem.arguments[k].name for k in (a, b)]
        raise NotCovered(f"the derivation has no covariance of {names[0]} and {names[1]}")
    return np.asarray(state.branch.covariance[pair]), np.asarray(state.branch.covariance_error[pair])


# --- declared expressions ------------------------------------------------------------------------------------------


def _declared(state: State, expr: Expr) -> Quantity:
    """An expression of means, or a named functional."""
    if isinstance(expr, Lyapunov):
        return _number(state.branch.growth)
    if isinstance(expr, Critical):
        return _critical(state, expr)
    crossed = _between_units(expr)
    if crossed is not None:
        return _crossed(state, crossed, expr)
    means = sorted(expr.atoms(Mean), key=str)
    if expr.atoms(Functional) or not means:
        raise NotCovered(f"no theory formula for the observable {expr}")
    return combine(state.values, expr, {node: _mean_node(state, node) for node in means})


def _between_units(expr: Expr) -> CrossCovariance | None:
    try:
        return between_units(expr)
    except NotCovered:
        raise
    except QuenchedError as malformed:
        raise NotCovered(f"no theory formula: {malformed}") from None


def _crossed(state: State, what: CrossCovariance, expr: Expr) -> Quantity:
    """A number or curve formed of the covariances between units."""
    if state.between is None:
        raise NotCovered(f"{expr}: fluctuations are built for the state that the dynamics reaches only")
    sites = [_site_or_refuse(state, _with_labels(state, body), expr) for body in (what.first, what.second)]
    lags = np.asarray(state.branch.tau)
    return state.between(what, sites, lags[:: -(-len(lags) // _FEW_LAGS)])


def _with_labels(state: State, body: Expr) -> Expr:
    """A unit quantity with its labels as the symbols that averages over labels know."""
    known = {label.symbol for label in state.problem.labels}
    return body.xreplace({q: s for q in body.atoms(Quenched) if (s := Symbol(unit_name(q), real=True)) in known})


def _critical(state: State, expr: Critical) -> Quantity:
    from quenched import numerics

    parameter, condition = expr.parameter, expr.condition
    if not isinstance(condition, Lyapunov):
        raise NotCovered(f"no theory formula for {expr}: only Critical(parameter, Lyapunov(field)) is built")
    return _number(numerics.critical(state.problem, state.potential, parameter, dict(state.values)))


def combine(values: Mapping[Symbol, float], expr: Expr, parts: Mapping[Expr, Quantity]) -> Quantity:
    """`expr` with its means replaced by their values; errors to first order, added up."""
    slots = {node: Dummy() for node in parts}
    function = lambdify(list(slots.values()), expr.xreplace({**slots, **dict(values)}), "numpy")
    found = [parts[node].value for node in slots]
    value = function(*found)
    error: Any = 0.0
    for k, node in enumerate(slots):
        moved = [v + parts[node].error if j == k else v for j, v in enumerate(found)]
        error = error + np.abs(function(*moved) - value)
    curve = next((q for q in parts.values() if q.axis is not None), None)
    if curve is None:
        return Quantity(float(value), float(error))
    return Quantity(np.asarray(value), np.asarray(error), curve.axis, curve.at)


def _floats(state: State) -> dict[Symbol, Any]:
    return dict(state.values)


def _mean_node(state: State, node: Mean) -> Quantity:
    """⟨body⟩ as a sum over its terms."""
    terms = [_term(state, term, node) for term in Add.make_args(expand(unbind(node.body)))]
    return reduce(_add, terms)


def _add(left: Quantity, right: Quantity) -> Quantity:
    curve = left if left.axis else right
    return Quantity(left.value + right.value, left.error + right.error, curve.axis, curve.at)


def _term(state: State, term: Expr, whole: Expr) -> Quantity:
    """One product: its constant factors times the average of functions of at most two arguments."""
    constant, groups = _grouped(term, whole)
    carried = _carried_in(state, constant, groups)
    if carried is not None:
        return carried
    scale = float(constant.xreplace(_floats(state)))
    sites = [(time, _site_or_refuse(state, body, whole)) for time, body in groups]
    match sites:
        case []:
            found = Quantity(1.0, 0.0)
        case [(_, site)]:
            found = _one_time(state, site)
        case [(first, site), (second, other)]:
            lag = expand(second - first)
            if lag in (tau, -tau):
                found = _two_times(state, site, other, None)
            elif not lag.free_symbols:
                found = _two_times(state, site, other, abs(float(lag)))
            else:
                raise NotCovered(f"the times in {whole} differ by {lag}, expected tau or a number")
        case _:
            raise NotCovered(f"{whole} needs the joint law of {len(sites)} quantities: at most two are covered")
    return Quantity(scale * found.value, abs(scale) * found.error, found.axis, found.at)


def _carried_in(state: State, constant: Expr, groups: list[tuple[Expr, Expr]]) -> Quantity | None:
    """⟨q f(u)⟩ of a Gaussian quenched number that the state carries: E q·⟨f⟩ + Cov(q, u)·⟨f'⟩; None without one."""
    known = {(c.name, c.population): c for c in state.problem.carried}
    bodies = [body for _, body in groups]
    found = {q for e in (constant, *bodies) for q in e.atoms(Quenched) if (unit_name(q), q.population.name) in known}
    if len(found) != 1 or len(groups) != 1:
        return None
    (q,) = found
    whole = constant * bodies[0]
    factor = whole.diff(q)
    if factor.atoms(Quenched) & found or (whole - q * factor).expand() != 0:
        return None
    scale, body = factor.as_independent(*(a for a in factor.atoms(Field)), as_Add=False)
    site = _site_function(state, body)
    if site is None:
        return None
    own, values = known[unit_name(q), q.population.name], _floats(state)
    weights = float(own.mean.xreplace(values)), float(own.covariances[site[1]].xreplace(values))
    flat, slope = _one_time(state, site), _one_time(state, (site[0].diff(), site[1]))
    strength = float(scale.xreplace(values))
    value = strength * (weights[0] * flat.value + weights[1] * slope.value)
    return Quantity(value, abs(strength) * (abs(weights[0]) * flat.error + abs(weights[1]) * slope.error))


def _grouped(term: Expr, whole: Expr) -> tuple[Expr, list[tuple[Expr, Expr]]]:
    """Constant factor, and the other factors gathered by field and time (with their fields at that time)."""
    constant: list[Expr] = []
    groups: dict[tuple[Field, Expr], list[Expr]] = {}
    for factor in Mul.make_args(term):
        fields = {(f, t) for f in _bare_fields(factor)} | {(a.field, a.time) for a in factor.atoms(At)}
        if not fields:
            constant.append(factor)
        elif len(fields) == 1:
            groups.setdefault(next(iter(fields)), []).append(factor.replace(lambda e: isinstance(e, At), _field_of))
        else:
            raise NotCovered(f"{factor} in {whole} mixes {len(fields)} quantities in one function")
    ordered = sorted(groups.items(), key=lambda item: (str(item[0][0]), str(item[0][1])))
    if ordered:  # labels are averaged together with the units that carry them
        ordered[0][1].extend(f for f in constant if f.atoms(Quenched))
        constant = [f for f in constant if not f.atoms(Quenched)]
    return Mul(*constant), [(time, Mul(*factors)) for (_, time), factors in ordered]


def _bare_fields(expr: Expr) -> set[Field]:
    return expr.replace(lambda e: isinstance(e, At), lambda e: Dummy()).atoms(Field)


def _field_of(node: At) -> Field:
    return node.field


def _site_or_refuse(state: State, body: Expr, whole: Expr) -> tuple[SiteFunction, int]:
    found = _site_function(state, body)
    if found is None:
        raise NotCovered(f"{body} in {whole} is not a function of one Gaussian argument of the derivation")
    return found
