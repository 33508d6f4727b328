"""Propagators of units that share more than their couplings between copies: frozen inputs, constant means, labels.

Given its label and its frozen input z, a unit is Gaussian about a mean of its own, and two copies of it are
independent. Σ is then the average over labels and z of one propagator for each copy, and a unit's variance of time is
that about its own mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from sympy import Symbol

from quenched.theory.errors import NotCovered
from quenched.theory.problem import PotentialProblem, U
from quenched.theory.problem_fluctuations import FluctuationProblem, UnitField

from .averages import Averages
from .labels import label_nodes
from .propagators import Complex, GaussianPropagators, Values, floats
from .public import average1, bare_problem
from .tables import Table
from .types import Array, Branch, Number

_FROZEN, _ACCURACY = 1e-9, 1e-9
#: Nodes of a frozen direction, by the number of directions.
_NODES = {1: 24, 2: 10}


def gaussian_propagators(
    problem: FluctuationProblem, potential: PotentialProblem | None, values: Values
) -> GaussianPropagators:
    """Propagators of the state that the dynamics reaches; conditioned ones where copies share more than couplings.

    Raises
    ------
    QuenchedError
        Nothing fluctuates at these parameters.
    NotCovered
        Too many frozen directions.
    """
    plain = GaussianPropagators(problem, potential, values)
    state = plain.branch
    size = float(np.max(np.abs(state.variance)))
    frozen = any(abs(q) > _FROZEN * size for q in state.static.values())
    moved = bool(np.any(np.abs(state.mean) > 1e-6 * np.sqrt(state.variance)))
    if not (frozen or moved or problem.full.labels or problem.shared):
        return plain
    return ConditionedPropagators(plain)


@dataclass(frozen=True)
class _Node:
    """One label and frozen input: probability, values of labels, conditional means (arguments,)."""

    weight: float
    labels: Values
    mean: Array


class _AtNode(GaussianPropagators):
    """Units of one population with the label and the frozen input of a node."""

    def __init__(self, plain: GaussianPropagators, node: _Node) -> None:
        self.__dict__.update(plain.__dict__)
        self.fields, self._slopes, self._transfers = {}, {}, {}
        self._tables: dict[tuple[str, str, float], tuple[Table, Number]] = {}
        self.values = {**plain.values, **node.labels}
        self.branch = _moving(plain.branch, node.mean)

    def _source(self, f: UnitField, g: UnitField) -> int | None:
        return None

    def _curve(self, f: UnitField, g: UnitField, c: Array, shift: float = 0.0) -> tuple[Array, Array]:
        if U in (f.f.expr, g.f.expr):
            return super()._curve(f, g, c, shift)  # Price's theorem: no product of means in it
        table, product = self._table(f, g, shift)
        value = np.asarray(table.at(table.theta(c + shift))) - product.value
        return value, np.full(c.shape, table.error + product.error)

    def _table(self, f: UnitField, g: UnitField, shift: float) -> tuple[Table, Number]:
        """⟨f g⟩ as a function of the covariance, made once, and the product of the means."""
        key = (f.name, g.name, shift)
        if key not in self._tables:
            m, v = self.branch.mean[[f.a, g.a]], self.branch.variance[[f.a, g.a]] + shift
            averages = Averages(bare_problem(f.f, g.f, None), None, self.values)
            one, two = (self._mean(h) for h in (f, g))
            error = abs(one.value) * two.error + abs(two.value) * one.error
            table = averages.table(0, m, v, tol=_ACCURACY, slopes=False)
            self._tables[key] = table, Number(one.value * two.value, error)
        return self._tables[key]

    def _mean(self, f: UnitField) -> Number:
        m, v = float(self.branch.mean[f.a]), float(self.branch.variance[f.a])
        return average1(f.f, m, v, self.values)


def _moving(state: Branch, mean: Array) -> Branch:
    """The part of a state that moves in time, about a conditional mean."""
    still = {pair: state.static.get(pair, 0.0) for pair in state.covariance}
    variance = np.array([v - still.get((a, a), 0.0) for a, v in enumerate(state.variance)])
    covariance = {pair: c - still[pair] for pair, c in state.covariance.items()}
    return replace(state, mean=mean, variance=variance, covariance=covariance, static=dict.fromkeys(still, 0.0))


class ConditionedPropagators(GaussianPropagators):
    """Averages over labels and frozen inputs of products of conditional propagators."""

    def __init__(self, plain: GaussianPropagators) -> None:
        self.__dict__.update(plain.__dict__)
        self.fields = {}
        populations = dict.fromkeys(f.population for f in self.problem.fields)
        self.nodes_of = {p: _nodes(self.problem, self.values, self.branch, p) for p in populations}
        self.units = {p: [_AtNode(plain, n) for n in nodes] for p, nodes in self.nodes_of.items()}
        for f in self.problem.fields:
            self.add(f)

    def add(self, f: UnitField) -> None:
        self.fields[f.name] = f
        for unit in self.units[f.population]:
            unit.add(f)

    def weights(self, population: str) -> Array:
        return np.array([n.weight for n in self.nodes_of[population]])

    def each(self, a: str, c: str, omega: Array, moved: bool = False) -> Complex:
        hats = self.problem.conjugates
        owner = self.fields[c if a in hats else a].population if not (a in hats and c in hats) else None
        if owner is None:
            return np.zeros((1, len(omega)), complex)
        return np.array([unit.between(a, c, omega, moved) for unit in self.units[owner]])

    def covariance(self, a: str, b: str) -> Number:
        return self._averaged(a, b, 1)

    def squared(self, a: str) -> Number:
        return self._averaged(a, a, 2)

    def _averaged(self, a: str, b: str, power: int) -> Number:
        population = self.fields[a].population
        found = [unit.covariance(a, b) for unit in self.units[population]]
        w = self.weights(population)
        value = float(w @ np.array([n.value**power for n in found]))
        error = float(w @ np.array([power * abs(n.value) ** (power - 1) * n.error for n in found]))
        return Number(value, error)


def _nodes(problem: FluctuationProblem, values: Values, state: Branch, population: str) -> list[_Node]:
    """Labels and frozen inputs of the units of a population."""
    p = problem.full
    own = [a for a, argument in enumerate(p.arguments) if argument.population == population]
    constants = [p.arguments[a].constant for a in range(len(p.arguments))]
    read: set[Symbol] = set().union(*(f.f.expr.free_symbols for f in problem.fields if f.population == population))
    read |= set().union(*(constants[a].free_symbols for a in own))
    labels = tuple(x for x in p.labels if x.symbol in read)
    numbers, weights = label_nodes(labels, values)
    given = [dict(zip((x.symbol for x in labels), n, strict=True)) for n in numbers]
    offset = np.array(
        [[_number(constants[a], {**values, **n}) if a in own else 0.0 for a in range(len(constants))] for n in given]
    )
    offset = offset - weights @ offset
    inputs, chances = _frozen(state, own, len(constants))
    return [
        _Node(float(w * q), dict(given[k]), state.mean + offset[k] + z)
        for (k, w), (z, q) in product(enumerate(weights), zip(inputs, chances, strict=True))
    ]


def _number(expr: object, values: Values) -> float:
    return float(expr.xreplace(floats(values)))  # type: ignore[attr-defined]


def _frozen(state: Branch, own: list[int], count: int) -> tuple[list[Array], Array]:
    """Frozen inputs of a population's arguments, (arguments,) each, and their probabilities."""
    table = np.array([[state.static.get((min(a, b), max(a, b)), 0.0) for b in own] for a in own])
    size, basis = np.linalg.eigh(table)
    kept = [k for k in range(len(own)) if size[k] > _FROZEN * float(np.max(state.variance[own]))]
    if not kept:
        return [np.zeros(count)], np.ones(1)
    if len(kept) not in _NODES:
        raise NotCovered(f"{len(kept)} frozen inputs of one unit: fluctuations are built for {max(_NODES)} at most")
    z, w = np.polynomial.hermite_e.hermegauss(_NODES[len(kept)])
    inputs, chances = [], []
    for at in product(range(len(z)), repeat=len(kept)):
        vector = np.zeros(count)
        vector[own] = sum(np.sqrt(size[k]) * z[i] * basis[:, k] for k, i in zip(kept, at, strict=True))
        inputs.append(vector)
        chances.append(np.prod(w[list(at)]))
    return inputs, np.array(chances) / np.sum(chances)
