"""What an instance as a graph of sites and pairs means in numbers: log weights of random states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from sympy import Add, DiracDelta, Expr, S, Symbol, lambdify

from quenched.theory.distributions import Law
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field
from quenched.theory.gibbs import Gibbs
from quenched.theory.instance_graph import GraphSite, PairGraph
from quenched.theory.problem_replicas import X
from quenched.validate.generate import label
from quenched.validate.spins import Counted, Instance

Array = NDArray[np.float64]
Rng = np.random.Generator
Values = Mapping[Symbol, float]


def graph_deviation(model: Gibbs, graph: PairGraph, values: Values, rng: Rng) -> float | None:
    """Log weight of random states: the declaration against the sum over sites and pairs, up to a constant.

    Where base measures are the priors, states may be any numbers, and show more than those that a prior allows.
    """
    drawn = Counted(model, 6, int(rng.integers(1 << 30)), 0, values)
    allowed = {f: _allowed(model.priors[f], (800, n), drawn, rng) for f, n in drawn.sizes.items()}
    gap = _gap_of_states(model, graph, values, drawn, allowed)
    tilts = [_tilt(model, s, allowed, drawn) for s in graph.sites if s.kind == "state"]
    if max(float(np.ptp(t)) for t in tilts) > 1e-9:
        return gap
    anywhere = {f: rng.standard_normal((800, n)) for f, n in drawn.sizes.items()}
    return max(gap, _gap_of_states(model, graph, values, drawn, anywhere, tilted=False))


def _tilt(model: Gibbs, site: GraphSite, states: Mapping[Field, Array], drawn: Instance) -> Array:
    """ln of the base measures of a state's units over their priors."""
    ((f, law),) = ((f, law) for f, law in model.priors.items() if f.population.name == site.name)
    if site.sphere:
        return np.zeros(len(states[f]))
    return np.asarray((_log_measure(site, states[f], drawn) - _log_prior(law, states[f], drawn)).sum(1))


def _gap_of_states(
    model: Gibbs,
    graph: PairGraph,
    values: Values,
    drawn: Counted,
    states: dict[Field, Array],
    tilted: bool = True,
) -> float:
    declared = drawn.log_weight(states)
    found = np.zeros(len(declared))
    x = {f.population.name: a for f, a in states.items()}
    sizes = {p.name: drawn.numbers.size(p)[1] for p in model.populations}
    fields = {s.name: np.zeros((len(found), sizes[s.name])) for s in graph.sites}
    matrices = {a.name: drawn.matrices[label(a)] for a in model.matrices}
    for s in graph.sites:
        if s.seen is not None:
            drawn.labels[s.seen.symbol] = _taught(s, drawn, matrices, sizes)
    for c in graph.couplings:
        shape = (sizes[c.row.site], sizes[c.col.site])
        matrix = matrices.get(c.matrix, np.full(shape, 1.0 / shape[1]))
        ends = [_per_unit(e.factor, drawn, sizes[e.site]) for e in (c.row, c.col)]
        whole = float(c.coef.subs(values)) * ends[0][:, None] * matrix * ends[1]
        if graph.site(c.row.site).kind == "state" and graph.site(c.col.site).kind == "state":
            found += np.einsum("ki,ij,kj->k", x[c.row.site], whole, x[c.col.site])
        elif graph.site(c.row.site).kind == "channel":
            fields[c.row.site] += x[c.col.site] @ whole.T
        else:
            fields[c.col.site] += x[c.row.site] @ whole
    for s in graph.sites:
        if s.kind == "state":
            extra = _per_unit(s.bias, drawn, sizes[s.name]), _per_unit(s.quadratic, drawn, sizes[s.name])
            found += x[s.name] @ extra[0] + 0.5 * x[s.name] ** 2 @ extra[1]
            found += _tilt(model, s, states, drawn) if tilted else 0.0
        else:
            found += _log_channel(s, fields[s.name], drawn).sum(1)
    return _largest_gap(found, declared)


def _taught(site: GraphSite, drawn: Instance, matrices: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    """A teacher's label from the drawn couplings."""
    assert site.seen is not None
    if site.seen.variance != 0:
        raise NotCovered("a teacher's label with noise: its witness takes labels without")
    total = np.zeros(sizes[site.name])
    for matrix, at_row, coef, far in site.seen.uses:
        m = matrices[matrix] if at_row else matrices[matrix].T
        total = total + float(coef.subs(drawn.values)) * m @ _per_unit(far.factor, drawn, sizes[far.site])
    return total


def _largest_gap(found: Array, declared: Array) -> float:
    there = np.isfinite(declared)
    if np.any(np.isfinite(found) != there):
        return float("inf")
    gap = (found - declared)[there]
    return float(np.max(np.abs(gap - gap[0]), initial=0.0) / (1 + np.std(declared[there]))) if len(gap) else 0.0


def _per_unit(expr: Expr, drawn: Instance, size: int) -> Array:
    symbols = sorted(expr.free_symbols, key=str)
    numbers = [drawn.labels[s] if s in drawn.labels else drawn.values[s] for s in symbols]
    return np.broadcast_to(np.asarray(lambdify(symbols, expr, "numpy")(*numbers), float), (size,))


def _allowed(law: Law, shape: tuple[int, int], drawn: Instance, rng: Rng) -> Array:
    """Random states where a prior is: atoms, numbers of its density, or either."""
    atoms = np.array([float(a.subs(drawn.values)) for a, _ in law.weights()])
    x = rng.standard_normal(shape)
    if len(atoms):
        return np.asarray(rng.choice(atoms, shape))
    low, high = (float(e.subs(drawn.values)) for e in (law.support().inf, law.support().sup))
    if np.isfinite(low) and np.isfinite(high):
        return rng.uniform(low, high, shape)
    return np.asarray(low + np.abs(x) if np.isfinite(low) else x)


def _log_prior(law: Law, x: Array, drawn: Instance) -> Array:
    """ln of the prior of each unit, without the atom of a prior that has a density too."""
    return _at_atoms(law.weights(), x, drawn) if law.weights() else _logarithm(law.density(X), x, drawn)


def _log_measure(site: GraphSite, x: Array, drawn: Instance) -> Array:
    """The same of a site's base measure."""
    atoms = [(p.value, p.weight) for p in site.measure.pieces if p.value is not None]
    density = [p.weight for p in site.measure.pieces if p.value is None]
    return _logarithm(Add(*density), x, drawn) if density else _at_atoms(atoms, x, drawn)


def _at_atoms(atoms: Iterable[tuple[Expr, Expr]], x: Array, drawn: Instance) -> Array:
    found = np.full(x.shape, -np.inf)
    for value, weight in atoms:
        here = np.abs(x - float(value.subs(drawn.values))) < 1e-9
        found = np.where(here, _logarithm(weight, x, drawn), found)
    return found


def _log_channel(site: GraphSite, u: Array, drawn: Instance) -> Array:
    return _logarithm(site.measure.pieces[0].weight, u, drawn)


def _logarithm(weight: Expr, u: Array, drawn: Instance) -> Array:
    """ln of an expression in `X`, labels and parameters, unit by unit; Dirac peaks left out."""
    weight = weight.replace(DiracDelta, lambda *_: S.Zero)
    symbols = sorted(weight.free_symbols - {X}, key=str)
    numbers = [drawn.labels[s] if s in drawn.labels else drawn.values[s] for s in symbols]
    modules = [{"Heaviside": lambda y, half=0.5: np.heaviside(y, half)}, "scipy", "numpy"]
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(lambdify([X, *symbols], weight, modules)(u, *numbers), float) + 0 * u)
