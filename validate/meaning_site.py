"""Meanings of the single-site problem: from the saddle to the effective process.

A site is a set of numbers, one for every field at every copy. An order parameter is an array over copies, with the
symmetry of its fields; on a causal grid of times it vanishes unless some field without a hat is later than every hat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations, product

import numpy as np

from quenched.theory.average import Functional
from quenched.theory.lower import CopiedAction
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.saddle import OrderParameter, SiteProblem, SiteTerm
from quenched.theory.spaces import N
from quenched.theory.terms import PAST
from quenched.validate.meaning import SIZE, Array, Values, number, relative
from quenched.validate.meaning_action import fractions_of, random_instances
from quenched.validate.meaning_products import Instances, contract, copies_in, functional_value, memory_of, tensor

#: Order parameter → array over its slots.
Parameters = Mapping[OrderParameter, Array]


def site_exponent(
    terms: tuple[SiteTerm, ...], population: str, site: Mapping[str, Array], parameters: Parameters, values: Values
) -> complex:
    """The exponent of one site: its fields at every copy (axis 0) against the order parameters."""
    total = 0j
    copies = max((len(v) for v in site.values()), default=1)
    one = {a: v[None, :] for a, v in site.items()}
    for term in terms:
        if term.population != population:
            continue
        own = copies_in(term.atoms)
        pieces = [(tensor(term.atoms, own, one, np.ones(1)), own)]
        pieces += [(_at_copies(parameters[ref.op], ref.at)) for ref in term.refs]
        total += number(term.coef * N**term.power, values) * contract(pieces, term.kernels, copies)
    return total


def _at_copies(array: Array, at: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """An order parameter taken at copies; equal copies take the diagonal."""
    distinct = tuple(dict.fromkeys(at))
    if len(distinct) == len(at):
        return array, at
    letters = [chr(ord("a") + distinct.index(c)) for c in at]
    return np.einsum("".join(letters) + "->" + "".join(dict.fromkeys(letters)), array), distinct


# -------------------------------------------------------------------------------------------------------------- saddle
def saddle_deviation(functional: Functional, problem: SiteProblem, values: Values, rng: np.random.Generator) -> float:
    """∂P/∂ρ at a random law ρ of site configurations against the site exponent times the population's fraction."""
    sites, copies = 4, 2
    values = {**values, N: SIZE}
    action = problem.action
    fields = random_instances(action, sites, copies, rng)
    weights = {p.name: rng.uniform(0.1, 0.4, size=sites) for p in action.populations}
    parameters = _empirical(problem, fields, weights)
    worst = 0.0
    for population, fraction in fractions_of(action.populations, values).items():
        slope, scale = _slope(functional, fields, weights, population, values, copies)
        site = {a: v[0] for a, v in fields.items()}
        here = site_exponent(problem.terms, population, site, parameters, values)
        worst = max(worst, relative(fraction * here, slope, max(scale, abs(slope))))
    return worst


def _empirical(problem: SiteProblem, fields: Instances, weights: Mapping[str, Array]) -> dict[OrderParameter, Array]:
    """The order parameters of a weighted set of configurations."""
    ops = {ref.op for term in problem.terms for ref in term.refs}
    return {op: tensor(op.atoms, copies_in(op.atoms), fields, weights[op.population]) for op in ops}


def _slope(
    functional: Functional,
    fields: Instances,
    weights: Mapping[str, Array],
    population: str,
    values: Values,
    copies: int,
) -> tuple[complex, float]:
    """d/dε P[ρ + ε δ_σ] at 0 with σ the first configuration: a polynomial in ε, so a few roots of unity suffice."""
    count = 2 + max((len(t.factors) for t in functional.terms), default=1)
    theory = replace(functional, lower_order=())
    total, scale = 0j, 0.0
    for k in range(count):
        root = np.exp(2j * np.pi * k / count)
        changed = {p: w.astype(complex) for p, w in weights.items()}
        changed[population][0] += root
        found, size = functional_value(theory, fields, changed, values, copies)
        total += found / root / count
        scale = max(scale, size)
    return total, scale


# --------------------------------------------------------------------------------------------------- largest-time rule
def causal_parameters(
    ops: set[OrderParameter], action: CopiedAction, times: int, rng: np.random.Generator
) -> dict[OrderParameter, Array]:
    """Random order parameters on a grid of times that a causal, normalised dynamics could have."""
    out = {}
    for op in sorted(ops, key=repr):
        array = symmetric_array(op, times, rng)
        hats = [s for a, s in op.atoms if action.fields[a].role == "hat"]
        plain = [s for a, s in op.atoms if action.fields[a].role != "hat"]
        for at in product(range(times), repeat=op.slots):
            last = max((at[s] for s in hats), default=-1)
            if hats and not any(at[s] > last for s in plain):
                array[at] = 0
        out[op] = array
    return out


def symmetric_array(op: OrderParameter, times: int, rng: np.random.Generator) -> Array:
    """A random array over the slots of an order parameter, symmetric where its fields are."""
    base = rng.normal(size=(times,) * op.slots) + 1j * rng.normal(size=(times,) * op.slots)
    same = [
        order
        for order in permutations(range(op.slots))
        if sorted((a, order[s]) for a, s in op.atoms) == sorted(op.atoms)
    ]
    return sum((np.transpose(base, order) for order in same), np.zeros_like(base)) / len(same)


def causality_deviation(before: SiteProblem, after: SiteProblem, values: Values, rng: np.random.Generator) -> float:
    """The site exponent before and after on causal order parameters at four times; with the dropped terms, on any."""
    values = {**values, N: SIZE}
    gone = tuple(term for term, _ in after.gone)
    ops = {ref.op for term in (*before.terms, *after.terms, *gone) for ref in term.refs}
    causal = causal_parameters(ops, before.action, 4, rng)
    free = {op: symmetric_array(op, 2, rng) for op in sorted(ops, key=repr)}
    worst = 0.0
    for times, parameters, kept in ((4, causal, after.terms), (2, free, (*after.terms, *gone))):
        site = {a: v[0] for a, v in random_instances(before.action, 1, times, rng).items()}
        for population in (p.name for p in before.action.populations):
            first = site_exponent(before.terms, population, site, parameters, values)
            worst = max(worst, relative(first, site_exponent(kept, population, site, parameters, values)))
    return worst


# ------------------------------------------------------------------------------------------------------------ read-off
def process_exponent(
    process: EffectiveProcess, population: str, site: Mapping[str, Array], parameters: Parameters, values: Values
) -> complex:
    """−½ ĥĥ' Cov − i ĥ (mean + memory) of Gaussian local fields with these statistics."""
    action = process.action
    hats = {f.name.removeprefix("hat_"): site[f.name] for f in action.of_role("hat") if f.population.name == population}
    total = 0j
    for (u, v), parts in process.covariance.items():
        if u in hats:
            cov = covariance_matrix(parts, parameters, values, len(hats[u]))
            total -= (0.5 if u == v else 1.0) * complex(hats[u] @ cov @ hats[v])
    for u, parts in process.mean.items():
        if u in hats:
            level = sum((number(c.coef, values) * parameters[_op(c)] for c in parts), np.zeros(len(hats[u])))
            total -= 1j * complex(hats[u] @ level)
    for u, parts in process.memory.items():
        for c in parts if u in hats else ():
            kernel = number(c.coef, values) * memory_kernel(c, action, parameters, len(hats[u]))
            total -= 1j * complex(hats[u] @ kernel @ site[c.output])
    return total


def _op(c: Contribution) -> OrderParameter:
    assert c.op is not None
    return c.op


def covariance_matrix(parts: tuple[Contribution, ...], parameters: Parameters, values: Values, times: int) -> Array:
    """Cov(h_u(t), h_v(s)) as an array (t, s)."""
    out = np.zeros((times, times), dtype=complex)
    for c in parts:
        array = parameters[_op(c)]
        for now, then in product(range(times), repeat=2):
            at = tuple((now, then)[k] for k in c.at)
            if not c.kernels or now == then:
                out[now, then] += number(c.coef, values) * array[at]
    return out


def response(op: OrderParameter, action: CopiedAction, parameters: Parameters) -> Array:
    """R(t, s) = ⟨ψ(t) ĥ(s)⟩/i as an array (t, s): rows are the time of the field without a hat."""
    (hat,) = (s for a, s in op.atoms if action.fields[a].role == "hat")
    (psi,) = (s for a, s in op.atoms if action.fields[a].role != "hat")
    return np.transpose(parameters[op], (psi, hat)) / 1j


def memory_kernel(c: Contribution, action: CopiedAction, parameters: Parameters, times: int) -> Array:
    """What multiplies the output of a memory term, as an array (t, s): a response, or K·C of a dynamic coupling."""
    if not c.kernels:
        return response(_op(c), action, parameters)
    average = parameters[_op(c)] if c.at == (0, 1) else parameters[_op(c)].T
    for kind, _ in c.kernels:
        average = average * memory_of(kind.removeprefix(PAST), times)
    return average


def readoff_deviation(
    problem: SiteProblem, process: EffectiveProcess, values: Values, rng: np.random.Generator
) -> float:
    """The site exponent against that of the effective process, for random fields on three times."""
    times = 3
    values = {**values, N: SIZE}
    ops = {ref.op for term in problem.terms for ref in term.refs}
    ops |= {
        _op(c)
        for table in (process.covariance, process.mean, process.memory)
        for parts in table.values()
        for c in parts
    }
    parameters = {op: symmetric_array(op, times, rng) for op in sorted(ops, key=repr)}
    site = {a: v[0] for a, v in random_instances(problem.action, 1, times, rng).items()}
    worst = 0.0
    for population in (p.name for p in problem.action.populations):
        first = site_exponent(problem.terms, population, site, parameters, values)
        second = process_exponent(process, population, site, parameters, values)
        worst = max(worst, relative(first, second))
    return worst


__all__ = [
    "causality_deviation",
    "covariance_matrix",
    "process_exponent",
    "readoff_deviation",
    "response",
    "saddle_deviation",
    "site_exponent",
]
