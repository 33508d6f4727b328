"""What a simulation measures: channels, moments of channels, and observables as functions of moments.

A *channel* is a unit quantity at one time; a *moment* is the average over units, trajectories and time of a product of
channels at times t, t+τ, t+const; an observable is an expression in moments. Averages are taken while the simulation
runs, so no trajectory is kept beyond the longest lag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sympy import Add, Expr, Mul, S, Symbol, expand

from quenched.theory.cross import CrossCovariance, between_units
from quenched.theory.eigenvalue_observables import OfEigenvalues
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import At, Field, UnitSymbol, unbind
from quenched.theory.naming import Output, standard_names
from quenched.theory.observables import Functional, Growth, Lyapunov, Mean
from quenched.theory.spaces import Population, t, tau
from quenched.validate.emit import Line, Names, array_code, write
from quenched.validate.estimators import (
    Estimator,
    function_estimator,
    lyapunov_estimator,
    mean_estimator,
    participation_estimator,
    variance_estimator,
)
from quenched.validate.program import FIXED, Crossing, Factor, Moment

if TYPE_CHECKING:
    from quenched.theory.model import Model
    from quenched.validate.generate import Dynamics, Tables

#: Makes an estimator once the order of the time step is known (None: a map).
ForOrder = Callable[[int | None], Estimator]
#: A time t + sign·τ + offset, or (FIXED, time).
TimeKey = tuple[int, Expr]


@dataclass
class Plan:
    """Everything that is measured.

    Attributes
    ----------
    channels : expression → population (None for one number)
    moments : list; `Factor.offset` of each is a position in `offsets`
    offsets : constant time offsets, expressions in the parameters
    observables : name → (source of its formula, curve or number)
    crossings : name → what is formed of covariances between units
    silent : names of growth rates of the state in which all fields vanish
    estimators : name → function (order of the time step) → Estimator
    spectral : name → expression in the eigenvalues of the Jacobian
    unmeasured : name → reason
    functions : sources of the inseparable moments and of ``observables``
    autonomous : False when a channel or a formula depends on time explicitly
    """

    channels: dict[Expr, Population | None] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    offsets: list[Expr] = field(default_factory=lambda: [S.Zero])
    observables: dict[str, tuple[Expr, bool]] = field(default_factory=dict)
    crossings: dict[str, Crossing] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    estimators: dict[str, ForOrder] = field(default_factory=dict)
    spectral: dict[str, Expr] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    autonomous: bool = True

    @property
    def curves(self) -> dict[str, bool]:
        """Everything measured → curve or number."""
        plain = {name: curve for name, (_, curve) in self.observables.items()}
        crossed = {name: bool(x.second.sign) for name, x in self.crossings.items()}
        return plain | crossed | dict.fromkeys(self.spectral, False)

    def channel(self, expr: Expr, population: Population | None) -> int:
        """Position of a channel."""
        self.channels.setdefault(expr, population)
        return list(self.channels).index(expr)

    def factor(self, expr: Expr, population: Population | None, key: TimeKey) -> Factor:
        """A channel at a time."""
        if key[1] not in self.offsets:
            self.offsets.append(key[1])
        return Factor(self.channel(expr, population), key[0], self.offsets.index(key[1]))

    def moment(self, moment: Moment) -> Symbol:
        """The symbol of a moment."""
        if moment not in self.moments:
            self.moments.append(moment)
        return moment_symbol(self.moments.index(moment))


def moment_symbol(k: int) -> Symbol:
    """Stands for moment k in the formula of an observable."""
    return Symbol(f"m[{k}]", real=True)


LYAPUNOV = Symbol("lyapunov", real=True)


def plan_measurements(model: Model, tables: Tables, tangent: bool, dynamics: Dynamics, standard: bool = True) -> Plan:
    """The declared observables, the standard ones of every field and coupling output, and the exponent.

    Without `standard`, the standard ones are measured only where no declared one is: they cost channels of their own.
    """
    plan = Plan()
    no_tangent = "the right-hand side jumps" if dynamics.jump else "not asked for"
    for name, (kind, thing) in standard_names(model).items() if standard else ():
        _standard(plan, name, kind, thing)
    if tangent:
        plan.observables["lyapunov"] = LYAPUNOV, False
        plan.estimators["lyapunov"] = partial(lyapunov_estimator, "lyapunov")
    else:
        plan.unmeasured["lyapunov"] = f"no tangent vector: {no_tangent}"
    for name, expr in model.observables.items():
        try:
            _declared(plan, name, expr, tables, tangent, dynamics)
        except QuenchedError as error:
            plan.unmeasured[name] = str(error)
    if not standard and not model.observables.keys() & {*plan.curves, *plan.silent}:
        return plan_measurements(model, tables, tangent, dynamics)
    plan.autonomous = not any(e.has(t) for e in (*plan.channels, *(f for f, _ in plan.observables.values())))
    plan.functions.append(_formulas(plan, tables))
    return plan


def _standard(plan: Plan, name: str, kind: str, thing: Field | Output) -> None:
    expr, population = (thing, thing.population) if isinstance(thing, Field) else (thing.body, thing.population)
    now, lagged = (0, S.Zero), (1, S.Zero)
    times = {"C": [now, lagged], "C_out": [now, lagged], "C0": [now, now], "C_out0": [now, now], "mean": [now]}
    if kind not in times:
        plan.unmeasured[name] = "a simulation yields averages of fields and coupling outputs, and the exponent"
        return
    moment = Moment(tuple(plan.factor(expr, population, key) for key in times[kind]))
    plan.observables[name] = plan.moment(moment), moment.lagged
    shown = {"C": f"{expr}(t)·{expr}(t+tau)", "C0": f"{expr}²", "mean": f"{expr}"}
    shown |= {"C_out": f"ψ(t)ψ(t+tau), ψ = {expr}", "C_out0": f"ψ², ψ = {expr}"}
    plan.estimators[name] = partial(mean_estimator, name, f"mean over units and time of {shown[kind]}")


def _declared(plan: Plan, name: str, expr: Expr, tables: Tables, tangent: bool, dynamics: Dynamics) -> None:
    """One declared observable; a reason as `QuenchedError` where it cannot be measured."""
    if isinstance(expr, Growth):
        _silent(plan, name, tables, dynamics)
        return
    crossed = between_units(expr)
    if crossed is not None:
        _crossed(plan, name, crossed)
        return
    if expr.atoms(OfEigenvalues):
        _of_jacobian(plan, name, expr, tables, dynamics)
        return
    functionals = sorted(expr.atoms(Functional), key=str)
    for functional in functionals:
        if not isinstance(functional, Lyapunov):
            raise QuenchedError(f"{type(functional).__name__} is not read off one simulation")
        if not tangent:
            raise QuenchedError(f"it needs the exponent, and {plan.unmeasured.get('lyapunov', 'there is none')}")
    trial = Plan(dict(plan.channels), list(plan.moments), list(plan.offsets), functions=list(plan.functions))
    table: dict[Any, Expr] = {f: LYAPUNOV for f in functionals}
    table |= {m: _mean(trial, m) for m in sorted(_outer_means(expr), key=str)}
    formula = expr.xreplace(table)
    known = {*tables.parameters, t, LYAPUNOV, *(moment_symbol(k) for k in range(len(trial.moments)))}
    if stray := sorted(formula.free_symbols - known, key=str):
        raise QuenchedError(f"{stray[0]} stands outside every average")
    plan.channels, plan.moments, plan.offsets = trial.channels, trial.moments, trial.offsets
    plan.functions = trial.functions
    used = [k for k in range(len(plan.moments)) if moment_symbol(k) in formula.free_symbols]
    plan.observables[name] = formula, any(plan.moments[k].lagged for k in used)
    plan.estimators[name] = _estimator(name, expr, formula, used, not dynamics.autonomous)


def _of_jacobian(plan: Plan, name: str, expr: Expr, tables: Tables, dynamics: Dynamics) -> None:
    """Eigenvalues of the Jacobian at the state in which the measurement ends."""
    noisy = dynamics.noise_kind in ("multiplicative", "nonlinear")
    reasons = {
        "the right-hand side jumps": dynamics.jump,
        "a system with delays has no Jacobian matrix": bool(tables.delays),
        "noise multiplies the state, so the Jacobian is random at every instant": noisy,
    }
    for reason, applies in reasons.items():
        if applies:
            raise QuenchedError(f"no eigenvalues of a Jacobian: {reason}")
    plan.spectral[name] = expr
    plan.estimators[name] = partial(_eigenvalue_estimator, name, expr)


def _eigenvalue_estimator(name: str, expr: Expr, order: int | None) -> Estimator:
    from quenched.validate.simulate_spectrum import estimator

    state = "Jacobian at the last state of the run; "
    return estimator(
        name, expr, False, state + ("finite burn-in" if order is None else f"time step O(dt^{order}); finite burn-in")
    )


def _silent(plan: Plan, name: str, tables: Tables, dynamics: Dynamics) -> None:
    """Growth from the state in which all fields vanish; how it is estimated depends on where eigenvalues are found."""
    reasons = {
        "the right-hand side jumps": dynamics.jump,
        "it depends on time": not dynamics.autonomous,
        "a system with delays has no Jacobian matrix": bool(tables.delays),
        "noise drives it": bool(tables.noises),
        "couplings are dynamic": bool(tables.bonds),
    }
    for reason, applies in reasons.items():
        if applies:
            raise QuenchedError(f"no growth from a silent state: {reason}")
    plan.silent += (name,)


def _crossed(plan: Plan, name: str, what: CrossCovariance) -> None:
    """Covariances between units of two channels at two times."""
    if what.scale != 1:
        raise QuenchedError(f"write the factor {what.scale} outside: Fluctuation(cov(…)) of unscaled quantities")
    later = plan.factor(what.second, what.population, _key(t + what.lag))
    plan.crossings[name] = Crossing(what.statistic, plan.channel(what.first, what.population), later)
    make = participation_estimator if what.statistic == "participation" else variance_estimator
    plan.estimators[name] = partial(make, name, f"{what.first}(t), {what.second}(t + {what.lag})")


def _estimator(name: str, expr: Expr, formula: Expr, used: list[int], each_time: bool) -> ForOrder:
    moments = {moment_symbol(k) for k in used}
    if LYAPUNOV in formula.free_symbols:
        return partial(lyapunov_estimator, name)
    linear = all(not formula.diff(m).free_symbols & moments for m in moments)
    return (
        partial(mean_estimator, name, str(expr)) if linear else partial(function_estimator, name, str(expr), each_time)
    )


def _outer_means(expr: Any) -> set[Mean]:
    if isinstance(expr, Mean):
        return {expr}
    return set().union(*(_outer_means(a) for a in expr.args))


# ---------------------------------------------------------------- averages of unit quantities at several times


def _mean(plan: Plan, node: Mean) -> Expr:
    """An average as a combination of moments."""
    body, population = unbind(node.body), node.population
    if len(_times(body)) < 2:
        return _product(plan, body, population)
    terms = Add.make_args(expand(body))
    if all(len(_times(f)) < 2 for term in terms for f in Mul.make_args(term)):
        return Add(*(_product(plan, term, population) for term in terms))
    return _inseparable(plan, body, population)


def _product(plan: Plan, term: Expr, population: Population) -> Expr:
    """coefficient · moment of one factor a time."""
    groups: dict[TimeKey, Expr] = {}
    coefficient: Expr = S.One
    for fac in Mul.make_args(term):
        keys = _times(fac)
        if len(keys) > 1:
            return _inseparable(plan, term, population)
        if not keys and not fac.has(UnitSymbol, t, Mean):
            coefficient = coefficient * fac
            continue
        key = next(iter(keys), (0, S.Zero))
        groups[key] = groups.get(key, S.One) * _at_own_time(fac)
    if not groups:
        return coefficient
    ordered = sorted(groups, key=lambda k: (k[0], str(k[1])))
    first = (0, S.Zero) if len(ordered) == 1 and not term.has(t) and ordered[0][0] != FIXED else None
    if len(ordered) == 1 and groups[ordered[0]].is_Pow and groups[ordered[0]].exp == 2:
        half = plan.factor(groups[ordered[0]].base, population, first or ordered[0])
        return coefficient * plan.moment(Moment((half, half)))
    factors = tuple(plan.factor(groups[k], population, first or k) for k in ordered)
    return coefficient * plan.moment(Moment(factors))


def _inseparable(plan: Plan, body: Expr, population: Population) -> Expr:
    """An average of a function that mixes times: its fields are recorded, the function is evaluated for every lag."""
    if body.has(t) and any(k != (0, S.Zero) for k in _times(body)) and _explicit_time(body):
        raise QuenchedError(f"explicit time and fields at other times cannot be separated in {body}")
    if any(isinstance(node, (Mean, Functional)) for node in body.atoms(Mean, Functional)):
        raise QuenchedError(f"an average inside a function of several times is not measured: {body}")
    atoms = sorted(_leaves(body), key=str)
    symbols = [Symbol(f"a{k}", real=True) for k in range(len(atoms))]
    factors = tuple(
        plan.factor(a.field if isinstance(a, At) else a, population, _key(a.time) if isinstance(a, At) else (0, S.Zero))
        for a in atoms
    )
    name = f"combine_{sum(m.combine is not None for m in plan.moments)}"
    expr = body.xreplace(dict(zip(atoms, symbols, strict=True)))
    parameters = sorted((s for s in expr.free_symbols if s not in symbols), key=str)
    plan.functions.append(_combine(name, expr, symbols, parameters))
    return plan.moment(Moment(factors, name))


def _combine(name: str, expr: Expr, symbols: list[Symbol], parameters: list[Symbol]) -> str:
    names = Names()
    table = {p: Symbol(names.new(p.name), **p.assumptions0) for p in parameters}
    lines = write([Line("return {}", expr.xreplace(table))], names)
    unpack = [f"{symbol} = env.parameter({p.name!r})" for p, symbol in table.items()]
    text = [f"def {name}(env, {', '.join(map(str, symbols))}):", *(f"    {line}" for line in [*unpack, *lines])]
    return "\n".join(text)


def _leaves(expr: Any) -> set[Any]:
    if isinstance(expr, (At, UnitSymbol)):
        return {expr}
    return set().union(*(_leaves(a) for a in expr.args))


def _explicit_time(expr: Any) -> bool:
    if isinstance(expr, At):
        return False
    return expr == t or any(_explicit_time(a) for a in expr.args)


def _key(time: Expr) -> TimeKey:
    """(sign, offset) of t + sign·τ + offset, (FIXED, time) of a time that does not move."""
    if not time.has(t, tau):
        return FIXED, time
    rest = expand(time - t)
    sign = rest.coeff(tau)
    offset = expand(rest - sign * tau)
    if sign not in (-1, 0, 1) or offset.has(t, tau):
        raise QuenchedError(f"times of an observable are t, t + tau, t - tau, t + constant and constants, got {time}")
    return int(sign), offset


def _times(expr: Any) -> set[TimeKey]:
    """Times at which an expression takes fields (explicit t counts as time t)."""
    if isinstance(expr, At):
        return {_key(expr.time)}
    if isinstance(expr, Field) or expr == t:
        return {(0, S.Zero)}
    if expr == tau:
        raise QuenchedError("tau stands outside a field: write x(t + tau)")
    return set().union(*(_times(a) for a in expr.args))


def _at_own_time(expr: Expr) -> Expr:
    """The expression with its fields taken at the present time of the channel."""
    return expr.xreplace({a: a.field for a in expr.atoms(At)})


def _formulas(plan: Plan, tables: Tables) -> str:
    """The function ``observables``: every observable from the moments."""
    lines = [
        "def observables(env, m, lyapunov, t):",
        '    """Observables from the moments m (averaged over time, or at the times t)."""',
    ]
    used, fresh = set().union(*(formula.free_symbols for formula, _ in plan.observables.values())), Names()
    names = {p: Symbol(fresh.new(p.name), **p.assumptions0) for p in tables.parameters if p in used}
    lines += [f"    {symbol} = env.parameter({p.name!r})" for p, symbol in names.items()]
    lines.append("    return {")
    for name, (formula, _) in plan.observables.items():
        lines.append(f"        {name!r}: {array_code(formula.xreplace(names))},")
    return "\n".join([*lines, "    }"])
