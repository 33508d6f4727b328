"""The simulator of `Layers`: from a declaration to ensembles of finite networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Expr, Symbol

from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Quenched, WhiteNoise
from quenched.theory.layers import Layers, Overlap, sample_count
from quenched.theory.observables import Fluctuation, Functional, Mean, Posterior, Shift
from quenched.theory.placed import is_curve, observables_of, products
from quenched.theory.spaces import Population, t
from quenched.validate.emit import Names, array_code
from quenched.validate.ensemble import Average, Ensemble, Overlapped, Reduction, UnitNumbers
from quenched.validate.estimators import Estimator
from quenched.validate.experiment import Prepared, check_counts
from quenched.validate.generate import Tables, initial_state, label, recorded, right_hand_side
from quenched.validate.measured import moment_symbol
from quenched.validate.program import Program
from quenched.validate.quantities import Numbers, initial_law, matrix_spec

if TYPE_CHECKING:
    from quenched.runs import Samples

#: Sizes, ensembles and networks of an ensemble, for each tier: corrections beyond 1/N are larger where layers share
#: their couplings, drawing couplings afresh for every layer costs more.
QUICK: dict[str, Any] = {"sizes": (40, 80, 160), "trials": 64, "networks": 2000}
FULL: dict[str, Any] = {"sizes": (60, 120, 240), "trials": 64, "networks": 12000}
FRESH_SIZES = {True: (20, 40, 80), False: (30, 60, 120)}
#: Where mean shifts are asked for: their standard error grows as √N.
SHIFT_QUICK: dict[str, Any] = {"sizes": (6, 12, 24, 48), "trials": 64, "networks": 29000}
SHIFT_FULL: dict[str, Any] = {"sizes": (8, 16, 32, 64), "trials": 64, "networks": 240000}
#: How the average of an observable ``Shift`` is called in runs.
MEAN_OF = "{} (mean)"

_REASON = "corrections to averages over units start at order 1/N"


def tier(model: Layers, values: Mapping[Symbol, float], quick: bool) -> dict[str, Any]:
    """Sizes and numbers of networks: more of them where variances and mean shifts are asked for."""
    kinds = {type(e) for e in model.observables.values()}
    if Shift in kinds:
        return dict(SHIFT_QUICK if quick else SHIFT_FULL)
    settings = dict(QUICK if quick else FULL)
    if all(m.redraw for m in model.matrices if m.cols.extensive):
        settings["sizes"] = FRESH_SIZES[quick]
    if Fluctuation not in kinds:
        settings["networks"] //= 20
    return settings


def prepare(
    model: Layers, N: int, seed: int, params: Mapping[Any, Any] | None = None, *, networks: int = 500
) -> Prepared:
    """Ensembles of `networks` networks of N units.

    Parameters
    ----------
    networks : int
        Networks of one realisation: an ensemble gives one value of every mean, N·variance or weighted mean.

    Raises
    ------
    QuenchedError
        Bad parameters, or fewer input units than independent inputs.
    """
    check_counts(networks=networks)
    if networks < 2:
        raise QuenchedError(f"networks should be at least 2 (a variance over them is taken), got {networks}")
    values = model.values(params)
    numbers = Numbers(values, N)
    plan = Plan(model)
    tables = Tables.of(model)
    program = _program(model, tables, plan)
    sizes = {p.name: numbers.size(p) for p in tables.populations}
    task = Ensemble(
        program=program,
        averages=tuple(plan.averages),
        reductions=plan.reductions,
        sizes=tuple(n for _, n in sizes.values()),
        parameters=tuple(numbers(p) for p in tables.parameters),
        matrices=tuple(matrix_spec(m, numbers) for m in tables.matrices),
        vectors=tuple(_disorder(q, numbers) for q in tables.quenched),
        noises=tuple(_noise(x, numbers) for x in tables.noises),
        initial=tuple(initial_law(f, numbers) for f in tables.fields),
        steps=model.steps or 0,
        samples=sample_count(model),
        networks=networks,
        seed=seed,
        N=N,
    )
    identity = {"model": model.key(), "task": repr(task)}
    observables = {name: (estimator, plan.curves.get(name)) for name, estimator in plan.estimators.items()}
    parameters = {p.name: v for p, v in values.items()}
    return Prepared(task, identity, observables, parameters, sizes, {"networks": networks}, plan.unmeasured)


# --- disorder ------------------------------------------------------------------------------------------------------
def _disorder(q: Quenched, numbers: Numbers) -> UnitNumbers:
    size = numbers.size(q.population)[1]
    each = q.each is not None
    if isinstance(q.law, Overlap):
        return UnitNumbers(label(q), size, None, False, True, _vectors(q.law, size, numbers))
    return UnitNumbers(label(q), size, numbers.law(q.law), q.redraw is not None, each)


def _noise(x: WhiteNoise, numbers: Numbers) -> UnitNumbers:
    return UnitNumbers(label(x), numbers.size(x.population)[1], ("Normal", 0.0, 1.0), True, x.each is not None)


def _vectors(overlap: Overlap, size: int, numbers: Numbers) -> Overlapped:
    """Vectors with exactly the declared overlaps, in the first coordinates of their space."""
    matrix = np.array([[e if isinstance(e, float) else numbers(e) for e in row] for row in overlap.rows])
    spread, basis = np.linalg.eigh(matrix)
    keep = spread > 1e-12 * max(1.0, float(spread[-1]))
    if int(keep.sum()) > size:
        raise QuenchedError(f"{len(matrix)} inputs with these overlaps need {int(keep.sum())} units, there are {size}")
    vectors = np.zeros((len(matrix), size))
    vectors[:, : int(keep.sum())] = basis[:, keep] * np.sqrt(size * spread[keep])
    return Overlapped(tuple(tuple(float(x) for x in row) for row in vectors))


# --- what is measured ----------------------------------------------------------------------------------------------
@dataclass
class Plan:
    """Channels, averages of them, and observables as formulas in averages."""

    model: Layers
    channels: dict[Expr, Population | None] = field(default_factory=dict)
    averages: list[Average] = field(default_factory=list)
    formulas: dict[str, Expr] = field(default_factory=dict)
    reductions: dict[str, Reduction] = field(default_factory=dict)
    estimators: dict[str, Estimator] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, expr in observables_of(self.model).items():
            try:
                self._observable(name, expr)
            except QuenchedError as error:
                self.unmeasured[name] = str(error)

    def _observable(self, name: str, expr: Expr) -> None:
        if isinstance(expr, Shift):
            called = MEAN_OF.format(name)
            self._add(called, expr.args[0], "mean", layer_estimator(called, str(expr.args[0])))
            self.unmeasured[name] = f"it is read off {called!r} at several N, by validate"
        elif isinstance(expr, Fluctuation):
            self._add(name, expr.args[0], "variance", variance_estimator(name, str(expr.args[0])))
        elif isinstance(expr, Posterior):
            self._add(name, expr.args[0], "weighted", posterior_estimator(name, str(expr)))
            self.formulas[f"{name} weight"] = self._formula(expr.args[1])
        else:
            self._add(name, expr, "mean", layer_estimator(name, str(expr)))

    def _add(self, name: str, expr: Expr, how: Reduction, estimator: Estimator) -> None:
        if wrong := sorted(expr.atoms(Functional), key=str):
            raise QuenchedError(f"{type(wrong[0]).__name__} is not read off an ensemble of networks")
        if is_curve(expr):
            raise QuenchedError("curves over layers are not simulated as one observable: name the layers, as in h(3)")
        self.formulas[name] = self._formula(expr)
        self.reductions[name], self.estimators[name] = how, estimator

    def _formula(self, expr: Expr) -> Expr:
        table = {node: self._mean(node) for node in sorted(expr.atoms(Mean), key=str)}
        return expr.xreplace(table)

    def _mean(self, node: Mean) -> Expr:
        total: Expr = Symbol("zero") * 0
        for product in products(node, self.model):
            factors = tuple((self._channel(f.body, node.population), f.layer, f.sample) for f in product.factors)
            total += product.coefficient * (self._average(Average(factors)) if factors else 1)
        return total

    def _average(self, average: Average) -> Symbol:
        if average not in self.averages:
            self.averages.append(average)
        return moment_symbol(self.averages.index(average))

    def _channel(self, body: Expr, population: Population) -> int:
        self.channels.setdefault(body, population)
        return list(self.channels).index(body)

    def source(self, tables: Tables) -> str:
        """The function ``observables``: every observable of every network from the averages m."""
        lines = ["def observables(env, m):", '    """Observables of every network from averages over its units."""']
        used, fresh = set().union(*(f.free_symbols for f in self.formulas.values()), set()), Names()
        names = {p: Symbol(fresh.new(p.name), **p.assumptions0) for p in tables.parameters if p in used}
        lines += [f"    {symbol} = env.parameter({p.name!r})" for p, symbol in names.items()]
        lines.append("    return {")
        lines += [f"        {name!r}: {array_code(f.xreplace(names))}," for name, f in self.formulas.items()]
        return "\n".join([*lines, "    }"])


def layer_estimator(name: str, expression: str) -> Estimator:
    """Mean over the networks of an ensemble."""
    return Estimator(name, expression, bias="none (every layer is computed exactly)", min_N=4, reason=_REASON)


def variance_estimator(name: str, expression: str) -> Estimator:
    """N times the unbiased sample variance over the networks of an ensemble."""
    return Estimator(
        name, f"N · sample variance over networks of {expression}", "function of means", "none", min_N=4, reason=_REASON
    )


def shift_estimator(name: str, expression: str) -> Estimator:
    """Difference of the means at two neighbouring sizes N < N', times NN'/(N' − N): no limit is needed.

    A mean Q + s/N + c/N² gives s + c(1/N + 1/N'). Its scatter falls as 1/√N only, so that of the shift grows as √N.
    """
    return Estimator(
        name,
        f"NN'/(N' − N) · (mean at N − mean at N' > N) of {expression}",
        "slope",
        "none",
        min_N=4,
        reason="the mean has an expansion in 1/N, so differences of neighbouring N have one too",
        noise=1.0,
    )


def shifts(samples: Samples, name: str, expression: str) -> Samples:
    """Samples with the shift `name` at every size but the largest, instead of the mean that it is read off."""
    called = MEAN_OF.format(name)
    values = {N: dict(row) for N, row in samples.values.items()}
    means = {N: row.pop(called) for N, row in sorted(values.items()) if called in row}
    for (N, one), (M, two) in pairwise(means.items()):
        values[N][name] = N * M / (M - N) * (one - two)
    estimators = {k: e for k, e in samples.estimators.items() if k != called}
    return replace(samples, values=values, estimators=estimators | {name: shift_estimator(name, expression)})


def posterior_estimator(name: str, expression: str) -> Estimator:
    """Ratio of means over the networks of an ensemble, weighted by the evidence of each."""
    bias = "a ratio of means: O(1/networks of an ensemble)"
    return Estimator(name, expression, "function of means", bias, min_N=4, reason=_REASON)


# --- generated code ------------------------------------------------------------------------------------------------
def _program(model: Layers, tables: Tables, plan: Plan) -> Program:
    dynamics = right_hand_side(model, tables, tangent=False)
    head = '"""Simulation generated from a declaration."""\n\nimport numpy as np\nfrom scipy import special'
    start = initial_state(model, tables)
    parts = [head, dynamics.source, recorded(plan.channels, tables), start, plan.source(tables)]
    return Program(
        source="\n\n\n".join(parts) + "\n",
        tangent=False,
        populations=tuple(p.name for p in tables.populations),
        fields=tuple((label(f), tables.space(f.population)) for f in tables.fields),
        noises=tuple((label(x), tables.space(x.population)) for x in tables.noises),
        quenched=tuple((label(q), tables.space(q.population)) for q in tables.quenched),
        parameters=tuple(p.name for p in tables.parameters),
        matrices=tuple(label(m) for m in tables.matrices),
        buffers=tuple(tables.buffers),
        bonds=(),
        channels=tuple(-1 if p is None else tables.space(p) for p in plan.channels.values()),
        autonomous=not any(rhs.has(t) for rhs in model.eqs.values()),
        noise_kind=dynamics.noise_kind,
    )
