"""Marching over layers: means and covariances of Gaussian units for all pairs of copies (layer, sample).

Everything is computed on demand and remembered, so that equal-layer kernels never touch blocks of different layers
where the equations do not. Arrays run over samples, (M,) or (M, M).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from sympy import Expr, Symbol, sympify

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.problem import SiteFunction
from quenched.theory.problem_layers import TIME, LayeredGaussian, LayerOutput

from .pairs import PairAverages
from .public import average1
from .types import Array

#: The event before layer 0: inputs and the start's unit disorder.
START = -1
Value = TypeVar("Value")
Weights = tuple[tuple[str, Expr], ...]


class March:
    """A layered problem at given parameters.

    Parameters
    ----------
    problem : LayeredGaussian
    values : dict Symbol → float
        Every parameter.

    Raises
    ------
    QuenchedError
        Inputs whose overlaps are none at these values.
    """

    def __init__(self, problem: LayeredGaussian, values: Mapping[Symbol, float]) -> None:
        self.problem, self.values = problem, dict(values)
        self.samples = problem.samples
        self._known: dict[Any, Any] = {}
        self._pairs: dict[Any, PairAverages] = {}
        self.error = 0.0
        for output in problem.outputs:
            if output.given is not None:
                self.overlap(output.name, output.name, START, START)

    # -- numbers of the declaration
    def number(self, expr: Expr, at: int) -> float:
        """An expression in the parameters and `t` at an event."""
        if expr.is_Number:  # most coefficients: substitution costs more than a layer of many inputs
            return self._once(("number", expr), lambda: self._number(expr, at))
        return self._once(("number", expr, at), lambda: self._number(expr, at))

    def _number(self, expr: Expr, at: int) -> float:
        found = sympify(expr).subs({**self.values, TIME: at})
        if not found.is_number or not found.is_finite:
            raise QuenchedError(f"{expr} has no finite value at layer {at}: got {found}")
        return float(found)

    def _once(self, key: Any, make: Callable[[], Value]) -> Value:
        if key not in self._known:
            self._known[key] = make()
        found: Value = self._known[key]
        return found

    def row(self, state: str, event: int) -> dict[str, float]:
        """Coefficients of a state's inputs at an event, those that do not vanish."""
        p = self.problem
        i = p.states.index(state)
        coefficients = p.start[i] if event == START else p.feed[i]
        pairs = ((name, self.number(e, event)) for name, e in zip(p.inputs, coefficients, strict=True) if e != 0)
        return {name: value for name, value in pairs if value != 0}

    def carried(self, state: str, event: int) -> dict[str, float]:
        """Coefficients of the states that a state is made of at the next layer."""
        p = self.problem
        rows = p.memory[p.states.index(state)]
        return {x: self.number(e, event) for x, e in zip(p.states, rows, strict=True) if e != 0}

    # -- means
    def mean(self, name: str, at: int) -> Array:
        """Mean of a state (at a layer) or of an input (at an event), (M,)."""
        return self._once(("mean", name, at), lambda: self._mean(name, at))

    def _mean(self, name: str, at: int) -> Array:
        p, out = self.problem, np.zeros(self.samples)
        if name in p.states:
            event = at - 1
            constants = p.start_constant if event == START else p.constant
            out = out + self.number(constants[p.states.index(name)], event)
            for x, gain in self.carried(name, event).items() if event != START else ():
                out = out + gain * self.mean(x, event)
            for u, gain in self.row(name, event).items():
                out = out + gain * self.mean(u, event)
            return out
        source = p.source(name)
        if source is not None:
            return out + self.number(source.mean, at)
        for u, coef, output in p.mean:
            if u == name:
                out = out + self.number(coef, at) * self.one_point(p.output(output), at)
        return out

    def one_point(self, output: LayerOutput, event: int) -> Array:
        """⟨ψ(event)⟩ of an output, (M,)."""
        return self._once(("one", output.name, event), lambda: self._one_point(output, event))

    def _one_point(self, output: LayerOutput, event: int) -> Array:
        if output.given is not None:
            raise NotCovered(f"the mean of {output.name} is needed, of which only overlaps are known")
        if output.factor:
            raise NotCovered(f"the mean of the product {output.name} is not built yet")
        m = self.combined_mean(output.argument, event)
        v = np.diag(self.combined(output.argument, output.argument, event, event))
        return self.average(output.f, m, v, event)

    def average(self, f: SiteFunction, m: Array, v: Array, event: int) -> Array:
        """⟨f(u)⟩ for arrays of means and variances."""
        out = np.empty(len(m))
        for k, place in enumerate(zip(m, v, strict=True)):
            key = ("average", f, event, place)
            if key not in self._known:
                self._known[key] = self._average(f, float(place[0]), float(place[1]), event)
            out[k] = self._known[key]
        return out

    def _average(self, f: SiteFunction, m: float, v: float, event: int) -> float:
        number = average1(f, m, v, {**self.values, TIME: event})
        self.error += number.error
        return number.value

    def combined_mean(self, weights: Weights, at: int) -> Array:
        """Mean of a linear combination at an event (states at the layer of the same number)."""
        return sum((self.number(w, at) * self.mean(n, at) for n, w in weights), np.zeros(self.samples))

    # -- covariances
    def combined(self, one: Weights, two: Weights, a: int, b: int) -> Array:
        """Covariance of two linear combinations, (M, M)."""
        parts = [(x, self.number(w, a), y, self.number(z, b)) for x, w in one for y, z in two]
        if len(parts) == 1 and parts[0][1] * parts[0][3] == 1:
            return self.covariance(parts[0][0], parts[0][2], a, b)
        out = np.zeros((self.samples, self.samples))
        for x, w, y, z in parts:
            out += w * z * self.covariance(x, y, a, b)
        return out

    def covariance(self, x: str, y: str, a: int, b: int) -> Array:
        """Cov(x(a), y(b)) of states or inputs, (M, M)."""
        key = ("cov", x, y, a, b)
        if key not in self._known:
            turned = ("cov", y, x, b, a)
            if turned in self._known:
                return np.asarray(self._known[turned]).T
            self._known[key] = self._covariance(x, y, a, b)
        return np.asarray(self._known[key])

    def _covariance(self, x: str, y: str, a: int, b: int) -> Array:
        p = self.problem
        if p.population[x] != p.population[y]:
            return np.zeros((self.samples, self.samples))
        if x in p.states and y in p.states:
            return self._states(x, y, a, b)
        if x in p.states:
            return self._mixed(x, y, a, b)
        if y in p.states:
            return self._mixed(y, x, b, a).T
        return self._inputs(x, y, a, b)

    def _states(self, x: str, y: str, a: int, b: int) -> Array:
        """Both states through what they are made of one step before."""
        parts_x, parts_y = self._parts(x, a), self._parts(y, b)
        terms = [
            (gain * other, self.covariance(u, v, a - 1, b - 1))
            for u, gain in parts_x.items()
            for v, other in parts_y.items()
            if u == v or not self._apart(u, v)
        ]
        return self._sum(terms)

    def _sum(self, terms: list[tuple[float, Array]]) -> Array:
        """Σ weight·matrix, (M, M)."""
        out = np.zeros((self.samples, self.samples)) if len(terms) != 1 else np.multiply(*terms[0])
        for weight, part in terms if len(terms) != 1 else ():
            out += part if weight == 1 else weight * part
        return np.asarray(out)

    def _apart(self, u: str, v: str) -> bool:
        """Whether two inputs are independent whatever the order parameters."""
        p = self.problem
        if u in p.states or v in p.states:
            return False
        return not any({c.u, c.v} == {u, v} for c in p.covariance)

    def _mixed(self, x: str, y: str, a: int, event: int) -> Array:
        """A state with an input."""
        out = np.zeros((self.samples, self.samples))
        for u, gain in self._parts(x, a).items():
            out = out + gain * self.covariance(u, y, a - 1, event)
        return out

    def _parts(self, x: str, layer: int) -> dict[str, float]:
        event = layer - 1
        return self.row(x, event) | ({} if event == START else self.carried(x, event))

    def _inputs(self, x: str, y: str, a: int, b: int) -> Array:
        p = self.problem
        source = p.source(x)
        if source is not None or p.source(y) is not None:
            if source is None or x != y or (source.fresh and a != b):
                return np.zeros((self.samples, self.samples))
            variance = self.number(source.variance, a)
            return variance * np.eye(self.samples) if source.each else np.full((self.samples,) * 2, variance)
        terms = []
        for c in p.covariance:
            if c.same and a != b:
                continue
            if (c.u, c.v) == (x, y):
                terms.append((self.number(c.coef, a), self.overlap(c.first, c.second, a, b)))
            elif (c.v, c.u) == (x, y):
                terms.append((self.number(c.coef, a), self.overlap(c.second, c.first, a, b)))
        return self._sum(terms)

    # -- overlaps of outputs
    def overlap(self, first: str, second: str, a: int, b: int) -> Array:
        """⟨first(a) second(b)⟩ of outputs at two events, (M, M)."""
        key = ("overlap", first, second, a, b)
        if key not in self._known:
            turned = ("overlap", second, first, b, a)
            if turned in self._known:
                return np.asarray(self._known[turned]).T
            self._known[key] = self._overlap(self.problem.output(first), self.problem.output(second), a, b)
        return np.asarray(self._known[key])

    def _overlap(self, first: LayerOutput, second: LayerOutput, a: int, b: int) -> Array:
        if first.given is not None:
            if first != second:
                raise NotCovered(f"the overlap of {first.name} and {second.name} is not declared")
            return overlap_numbers(first.given, self.values)
        if first.factor or second.factor:
            from .tangents import product_overlap

            return product_overlap(self, first, second, a, b)
        return self.two_point(first.f, first.argument, second.f, second.argument, a, b)

    def two_point(self, f: SiteFunction, one: Weights, g: SiteFunction, two: Weights, a: int, b: int) -> Array:
        """⟨f(u(a)) g(v(b))⟩ of linear combinations u, v, (M, M)."""
        m1, m2 = self.combined_mean(one, a), self.combined_mean(two, b)
        v1 = np.diag(self.combined(one, one, a, a))
        v2 = np.diag(self.combined(two, two, b, b))
        c = self.combined(one, two, a, b)
        pair = self.pair(f, g, a, b)
        if (f, one, a) == (g, two, b) and not pair.in_closed_form:  # symmetric: half of it is enough
            i, j = np.triu_indices(self.samples)
            values, errors = pair(m1[i], m2[j], v1[i], v2[j], c[i, j])
            out = np.empty_like(c)
            out[i, j] = out[j, i] = values
        else:
            out, errors = pair(m1[:, None], m2[None, :], v1[:, None], v2[None, :], c)
        self.error += float(np.max(errors, initial=0.0))
        return out

    def pair(self, f: SiteFunction, g: SiteFunction, a: int, b: int) -> PairAverages:
        """The averages of two site functions at two events."""
        timed = [
            x if not x.expr.has(TIME) else SiteFunction(x.name, x.expr.subs(TIME, at)) for x, at in ((f, a), (g, b))
        ]
        key = tuple(timed)
        if key not in self._pairs:
            closed = next((e for pair, e in self.problem.closed.items() if self._named(pair) == (f, g)), None)
            self._pairs[key] = PairAverages(timed[0], timed[1], closed if tuple(timed) == (f, g) else None, self.values)
        return self._pairs[key]

    def _named(self, pair: tuple[str, str]) -> tuple[SiteFunction, SiteFunction]:
        first, second = (self.problem.output(n) for n in pair)
        return first.f, second.f

    # -- filling up without deep recursion
    def fill(self, a: int, b: int) -> None:
        """Compute the covariances of all states up to layers (a, b), in an order in which nothing has to wait."""
        p = self.problem
        pairs = [(x, y) for x in p.states for y in p.states if p.population[x] == p.population[y]]
        if p.remembers:
            layers = [(i, j) for i in range(max(a, b) + 1) for j in range(i + 1)]
        else:
            low = min(a, b)
            layers = [(a - low + k, b - low + k) for k in range(low + 1)]
            layers += [(k, k) for k in range(max(a, b) + 1)]
        for i, j in layers:
            for x, y in pairs:
                self.covariance(x, y, i, j)


def overlap_numbers(rows: tuple[tuple[Any, ...], ...], values: Mapping[Any, float]) -> Array:
    """Overlaps of inputs as numbers, (M, M).

    Raises
    ------
    QuenchedError
        Values at which they are none: not positive semidefinite.
    """
    try:
        found = np.array(rows, dtype=float)
    except TypeError:
        found = np.array([[float(sympify(e).subs(values)) for e in row] for row in rows])
    size = max(1.0, float(np.abs(found).max()))
    try:
        np.linalg.cholesky(found + 1e-9 * size * np.eye(len(found)))
    except np.linalg.LinAlgError:
        raise QuenchedError("the overlaps of inputs should have no negative eigenvalue") from None
    return found
