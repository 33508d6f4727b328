"""Declared observables of a measure as site averages at the saddle.

A mean over units of products of moments, one factor for every copy of the system, is an average of polynomials in the
derivatives of the site's log-partition function: copies are independent given the field of the site. Every other mean
of one copy is the slope of the free entropy in a source that is conjugate to it (`with_source`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sympy import Add, Expr, Heaviside, Mul, Poly, S, Symbol, exp

from quenched.theory.couplings import Apply
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, unbind
from quenched.theory.landscape import Height
from quenched.theory.observables import Functional, Mean, SpinGlassSusceptibility, total
from quenched.theory.problem_replicas import site_average
from quenched.theory.replica_forms import RSAction, moment

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs

#: Conjugate of a declared mean.
SOURCE = Symbol("epsilon_source", real=True)
#: Functionals of a measure that are observables of its saddle, by the names that solvers use.
AT_THE_SADDLE = {"Entropy": "entropy", "FreeEntropy": "free_entropy", "Replicon": "replicon"}


def declared(expr: Expr, action: RSAction, known: Mapping[str, Expr]) -> Expr:
    """A declared observable as an expression in site averages.

    Raises
    ------
    NotCovered
        A part of it is no polynomial in moments, or a functional that is no site average.
    """
    if expr.atoms(Height):
        raise NotCovered(f"{min(map(str, expr.atoms(Height)))} is no mean of moments of a state")
    swap: dict[Expr, Expr] = {node: of_mean(node, action) for node in expr.atoms(Mean)}
    for node in expr.atoms(Functional):
        name = AT_THE_SADDLE.get(type(node).__name__, "")
        if isinstance(node, SpinGlassSusceptibility):
            name = glass_name(node.field.name)
        if name not in known:
            raise NotCovered(f"{node} is not given by the saddle of this measure")
        swap[node] = known[name]
    return expr.xreplace(swap)


def of_mean(node: Mean, action: RSAction) -> Expr:
    """The mean over units of a polynomial in the copies of a state, times labels."""
    body = unbind(node.body).expand()
    site = next((s for s in action.sites if s.variable.population == node.population.name), None)
    states = {f for f in body.atoms(Field)}
    if site is None or site.variable.kind != "state" or body.has(Apply):
        raise NotCovered(f"{node} is no mean of moments of a state")
    if any(f.name != site.variable.name for f in states):
        raise NotCovered(f"{node} reads {min(map(str, states))}, which is no state of these units")
    poly = Add(*(_term(node, term, states) for term in Add.make_args(body)))
    labels = site.variable.weight.labels
    beyond = {q for q in poly.free_symbols if getattr(q, "population", None) is not None} - set(labels)
    if beyond:
        raise NotCovered(f"{node} reads {min(map(str, beyond))}, which the weight of a site does not see")
    return site_average(site.variable.population, poly, site.b, site.k, site.v, labels)


def _term(node: Mean, term: Expr, states: set[Field]) -> Expr:
    """A product of powers of copies and of labels, as a product of moments."""
    powers = []
    for copy in {f.copy or 0 for f in states}:
        own = [f for f in states if (f.copy or 0) == copy]
        power = 0
        for f in own:
            if not term.is_polynomial(f):
                raise NotCovered(f"means of powers of a state are covered, got {node}")
            degree = Poly(term, f).degree()
            power, term = power + degree, term / f**degree
        if power > 2:
            raise NotCovered(f"means of a state and of its square are covered, got {node}")
        powers.append(power)
    return term * Mul(*(moment(p) for p in powers), S.One)


def declared_name(name: str) -> str:
    """Name of a declared observable among those of the solvers, apart from their own."""
    return f"_declared {name}"


def glass_name(field: str) -> str:
    """Name of the spin-glass susceptibility of a field."""
    return f"_spin glass {field}"


def part_name(node: Mean) -> str:
    """Name of a mean that is part of an observable, not an observable itself."""
    return f"_{node}"


def with_source(model: Gibbs, node: Mean | Height | None) -> Gibbs:
    """The measure times exp(ε Σ body): its free entropy has the slope fraction·⟨body⟩ in ε; for a random function V,
    times exp(ε V), with the slope ⟨V⟩/N.

    At zero temperature the source is part of the energy, and minus the energy of the ground state has that slope.
    Without a mean the whole exponent is multiplied by 1 + ε, and the slope is its own average over N.

    Raises
    ------
    NotCovered
        A mean of several copies of the system, or the measure with its source has no place in the language.
    """
    if node is None:
        more = 1 + SOURCE
        weights = [_power(weight, more) for weight in model.weights]
        return type(model)(model.priors, more * model.beta * model.energy, weights, 1, cold=model.cold)
    if isinstance(node, Height):
        return type(model)(model.priors, model.beta * model.energy - SOURCE * node, model.weights, 1, cold=model.cold)
    body = unbind(node.body)
    if any(f.copy is not None for f in body.atoms(Field)):
        raise NotCovered(f"{node} mixes copies of the system beyond products of a state and of its square")
    tilt = model.beta * model.energy - SOURCE * total(body, node.population)
    return type(model)(model.priors, tilt, model.weights, 1, cold=model.cold)


def _power(weight: Expr, power: Expr) -> Expr:
    """A power of a weight: of the exponents of its exponentials; steps are their own."""
    factors = []
    for factor in Mul.make_args(weight):
        step = isinstance(factor, Heaviside)
        factors.append(
            factor if step else exp((factor.args[0] * power).expand()) if isinstance(factor, exp) else factor**power
        )
    return Mul(*factors)


__all__ = ["AT_THE_SADDLE", "SOURCE", "declared", "declared_name", "glass_name", "of_mean", "part_name", "with_source"]
