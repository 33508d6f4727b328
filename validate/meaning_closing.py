"""Meanings of numbers that a state determines itself: overlaps, and the slopes that responses are proportional to.

Arguments get random Gaussian laws; averages of outputs are quadratures over the units' fields and over the Gaussian
quenched numbers that come with them, slopes are differences of such averages in a shift of the argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sympy import Basic

from quenched.theory.fields import Quenched
from quenched.theory.linear import LinearUnits
from quenched.theory.naming import unit_name
from quenched.theory.problem import StationaryGaussian, U
from quenched.theory.readoff import EffectiveProcess
from quenched.validate.meaning import Array, Values, evaluate, number, relative

_Z = np.arange(-10.0, 10.01, 0.04)
_W = np.exp(-(_Z**2) / 2) * 0.04 / np.sqrt(2 * np.pi)
_STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
_SHIFT = 4e-3


@dataclass
class GaussianLaws:
    """Random laws of the arguments of a problem.

    Attributes
    ----------
    weights : argument → field → weight of the linear combination
    mean, variance : arrays (arguments,)
    covariance : Gaussian quenched number → array (arguments,)
    values : parameters, labels and numbers that the state determines
    """

    process: EffectiveProcess
    weights: list[dict[str, complex]]
    mean: Array
    variance: Array
    covariance: dict[Quenched, Array]
    values: dict[Basic, Any]
    argument: dict[str, int] = field(default_factory=dict)

    def output(self, name: str, shift: float = 0.0) -> float:
        """⟨ψ⟩, with the argument moved."""
        fields = self.process.action.fields
        definition, a = fields[name].definition, self.argument[name]
        assert definition is not None
        loose = [q for q in self.covariance if definition.has(q)]
        if not loose:
            return float(self._plain(name, self.mean[a] + shift, self.variance[a], {}))
        size = np.array([number(q.law.variance_(), self.values).real for q in loose])
        slope = np.array([self.covariance[q][a] for q in loose]) / size
        rest = self.variance[a] - slope**2 @ size
        z, w = np.polynomial.hermite_e.hermegauss(40 if len(loose) == 1 else 16)
        away = np.sqrt(size)[:, None] * np.stack(np.meshgrid(*[z] * len(loose), indexing="ij")).reshape(len(loose), -1)
        share = np.prod(np.meshgrid(*[w / w.sum()] * len(loose), indexing="ij"), axis=0).ravel()
        given = {q: number(q.law.mean_(), self.values).real + x[:, None] for q, x in zip(loose, away, strict=True)}
        return float(share @ self._plain(name, self.mean[a] + shift + (slope @ away)[:, None], rest, given))

    def _plain(self, name: str, mean: float | Array, variance: float, given: Mapping[Basic, Any]) -> Any:
        fields = self.process.action.fields
        u = mean + np.sqrt(variance) * _Z
        own = {fields[f].symbol: np.zeros_like(u) for f in fields if fields[f].role in ("state", "local")}
        first, weight = next(iter(self.weights[self.argument[name]].items()))
        own[fields[first].symbol] = u / weight.real
        found = evaluate(fields[name].definition, {**self.values, **own, **given})
        return np.broadcast_to(found, u.shape) @ _W

    def site(self, expr: Basic, a: int) -> float:
        """⟨f(u_a)⟩ of a site function."""
        u = self.mean[a] + np.sqrt(self.variance[a]) * _Z
        return float(np.broadcast_to(evaluate(expr, {**self.values, U: u}), u.shape) @ _W)

    def slope(self, name: str) -> float:
        """d⟨ψ⟩/d(shift of its argument)."""
        return sum(c * self.output(name, k * _SHIFT) for k, c in _STENCIL.items()) / _SHIFT


def arguments_of(process: EffectiveProcess, p: StationaryGaussian, weights: list[dict[str, complex]]) -> dict[str, int]:
    """Which argument every output reads: the one whose fields occur in its definition."""
    found = {}
    for out in process.action.of_role("output"):
        assert out.definition is not None
        read = {f.name for f in process.action.fields.values() if f.symbol in out.definition.free_symbols}
        fits = [a for a, w in enumerate(weights) if set(w) == read and p.arguments[a].population == out.population.name]
        found[out.name] = fits[0] if fits else 0
    return found


def filtered(units: LinearUnits, laws: GaussianLaws, at: Values, other: Values) -> dict[Basic, complex]:
    """Responses as operators at the frequencies of the first and of the second time."""
    filters = {u.population: u for u in units.units}
    out: dict[Basic, complex] = {}
    for o in units.process.operators:
        slope, weights = laws.slope(o.output), laws.weights[laws.argument[o.output]]
        for symbol, where in ((o.symbol, at), (o.adjoint, other)):
            gain = sum(w * number(filters[o.population].transfer[f, o.field], where) for f, w in weights.items())
            out[symbol] = slope * gain
    return out


def closing_deviation(units: LinearUnits, p: StationaryGaussian, laws: GaussianLaws) -> float:
    """Every number that the state determines against its meaning, and the covariances of Gaussian quenched numbers."""
    process, worst, seen = units.process, [0.0], set()
    slopes = {f"a_{o.output}": o.output for o in process.operators}
    for symbol, terms in p.closing:
        found = sum(
            number(c, laws.values).real * laws.site(p.one_points[k].f.expr, p.one_points[k].a) for c, k in terms
        )
        if symbol.name in slopes:
            exact = laws.slope(slopes[symbol.name])
        else:
            parts = process.mean.get(symbol.name, ())
            exact = sum(number(c.coef, laws.values).real * laws.output(c.op.atoms[0][0]) for c in parts if c.op)
        seen.add(symbol.name)
        worst.append(relative(found, exact, max(1.0, abs(exact))))
    for c in p.carried:
        (q,) = (q for q in laws.covariance if (unit_name(q), q.population.name) == (c.name, c.population))
        worst.append(relative([number(e, laws.values) for e in c.covariances], laws.covariance[q], 1.0))
        worst.append(relative(number(c.mean, laws.values), number(q.law.mean_(), laws.values)))
    return max(worst) if set(slopes) <= seen else float("inf")


__all__ = ["GaussianLaws", "arguments_of", "closing_deviation", "filtered"]
