"""Two states of one disorder with one explicit replica each, for the witness of their overlaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Mul, Symbol

from quenched.numerics.quadrature import trapezoid
from quenched.numerics.replica_between import PairOfFields
from quenched.numerics.replica_evaluator import Evaluator
from quenched.numerics.replica_signs import FreeLabel
from quenched.theory.gibbs import Gibbs
from quenched.theory.problem_replicas import PairSite, ReplicaProblem
from quenched.theory.record import Form
from quenched.theory.replica_ansatz import orbit_of
from quenched.theory.replica_cold import ColdForm
from quenched.theory.replica_forms import Orbit, SiteInField, replica_site
from quenched.theory.replica_limit import label_part, site_of
from quenched.theory.replica_lower import COLD
from quenched.theory.replica_pair import TwoStatesForm
from quenched.theory.saddle import OrderParameter
from quenched.validate.meaning import draw_parameters, number, relative
from quenched.validate.meaning_replica_place import place
from quenched.validate.meaning_replica_sites import Direct, every_label
from quenched.validate.meaning_site import site_exponent

Array = NDArray[Any]
Values = Mapping[Symbol, float]
#: Nodes of each of two Gaussian numbers, and where what replicas are is linear in them.
NODES, FEW_NODES = 81, 31
#: Labels whose values are summed over; any law of the others does, and they are held at one value each.
LOOSE = 3


def pair_deviation(model: Gibbs, before: Form, form: TwoStatesForm, values: Values, rng: np.random.Generator) -> float:
    """Fields of every site in both states from explicit replicas, and the equations by sums over their states.

    At large parameters (temperatures): the Gaussian weights of patterns outgrow their fields at low ones.
    """
    if isinstance(before, ColdForm):
        return _cooled_deviation(form, values, rng)
    values = {**draw_parameters(model, rng, (2.0, 4.0)), COLD: 0.25}  # type: ignore[arg-type]
    return _warm_deviation(form, values, rng)


def _warm_deviation(form: TwoStatesForm, values: Values, rng: np.random.Generator) -> float:
    at = place(form.action, values, rng)
    for symbol, orbit in form.orbits:
        own = form.action.values.get(orbit)
        at[symbol] = float(rng.uniform(0.3, 0.8)) * (at[own] if isinstance(own, Symbol) else 1.0)
    worst = 0.0
    problem = ReplicaProblem(tuple(at), tuple(replica_site(s.variable) for s in form.action.sites), (), (), Mul(0), ())
    own = {s: at[s] for s in at if s not in dict(form.orbits)}
    ev = Evaluator(problem, own)
    ev.cache = {}
    for pair in form.problem.sites:
        site = site_of(form.action, pair.site)
        if site.given:
            continue
        worst = max(worst, _fields_deviation(form, site, pair, at))
        solver = PairOfFields(ev, problem, pair, ev.point(np.zeros(0)), form.problem)
        solver.labels = _held(solver.labels, rng)
        for e in form.problem.equations:
            if e.site == pair.site:
                found = number(e.scale, at).real * solver.overlap({s: at[s] for s, _ in form.orbits})
                direct = _direct(form, site, dict(form.orbits)[e.unknown], at, solver.labels)
                worst = max(worst, relative(np.array(found), np.array(direct)))
    return worst


def _held(labels: list[FreeLabel], rng: np.random.Generator) -> list[FreeLabel]:
    """The labels, all but a few with one value only."""
    picked = [int(rng.choice(len(q.values), p=q.weights)) for q in labels]
    rest = [replace(q, values=q.values[[k]], weights=np.ones(1)) for q, k in zip(labels, picked, strict=True)]
    return labels[:LOOSE] + rest[LOOSE:]


def _fields_deviation(form: TwoStatesForm, site: SiteInField, pair: PairSite, at: dict[Symbol, float]) -> float:
    """Fields of explicit replicas; the second field also as the first one, which sees other patterns.

    A second state near the edge of the window has overlaps beyond it, which explicit replicas do not: there they are 0.
    """
    worst, new = 0.0, dict(form.labels)
    inside = at | dict.fromkeys(_at_edges(form, site), 0.0)
    for labels, _ in _seen(form, site, at):
        b, _, cross = explicit_fields(form, site, {**at, **labels})
        other = explicit_fields(form, site, {**inside, **labels})[1]
        moved = {**labels, **{new[q]: x for q, x in labels.items() if q in new}}
        numbers = ({**at, **labels}, {**inside, **labels}, {**at, **labels}, {**at, **moved})
        named = [number(e, x).real for e, x in zip((pair.b, pair.other, pair.cross, pair.other), numbers, strict=True)]
        worst = max(worst, relative(np.array(named), np.array([b, other, cross, b])))
    return worst


def _at_edges(form: TwoStatesForm, site: SiteInField) -> set[Symbol]:
    """Overlaps next to labels that one of the states sees outside the window."""
    old, new = {q for q, _ in form.labels}, {q for _, q in form.labels}
    edges = [q for q, other in form.labels if other not in old or q not in new]
    terms = [site.b.expand().coeff(q) for q in edges]
    return {s for e in terms for s in e.free_symbols if s in set(form.action.values.values())}


def _seen(form: TwoStatesForm, site: SiteInField, at: dict[Symbol, float]) -> list[tuple[dict[Symbol, float], float]]:
    """Labels of a site; those beyond the condensed ones, of which one state knows nothing, are 0."""
    beyond = dict.fromkeys((q for _, q in form.labels), 0.0)
    return [({**beyond, **labels}, p) for labels, p in every_label(site, at)]


def explicit_fields(form: TwoStatesForm, site: SiteInField, numbers: Values) -> tuple[float, float, float]:
    """(b, b′, K) of one replica in each state, from the exponent of the site at chosen values of its variables."""

    def exponent(x: tuple[float, float]) -> float:
        return _exponent(form, site, numbers, x)

    b, other = ((exponent(x) - exponent((-x[0], -x[1]))) / 2 for x in ((1.0, 0.0), (0.0, 1.0)))
    cross = (exponent((1, 1)) - exponent((1, -1)) - exponent((-1, 1)) + exponent((-1, -1))) / 4
    weight = site.variable.weight
    if weight.prior:
        linear = number(weight.exponent.coeff(weight.prior[0], 1), numbers).real
        b, other = b + linear, other + linear
    return b, other, cross


def _exponent(form: TwoStatesForm, site: SiteInField, numbers: Values, x: tuple[float, float]) -> float:
    action = form.action
    fields, own = action.problem.action.fields, site.variable
    ops = {ref.op for term in action.problem.terms for ref in term.refs}
    parameters = {op: _array(form, op, numbers) for op in ops}
    state = fields[own.name].symbol
    values = {}
    for f in fields.values():
        if f.population.name != own.population or f.single:
            continue
        if f.role == "hat":
            values[f.name] = 1j * np.array(x)
        elif f.role == "state":
            values[f.name] = np.array(x, complex)
        elif f.role == "output":
            values[f.name] = np.array([number(f.definition, {**numbers, state: v}) for v in x])
    return float(site_exponent(action.problem.terms, own.population, values, parameters, numbers).real)


def _array(form: TwoStatesForm, op: OrderParameter, at: Values) -> Array:
    """An order parameter of two replicas, the second in the other state."""
    fields = form.action.problem.action.fields
    cross = {orbit: symbol for symbol, orbit in form.orbits}
    hats = sum(fields[a].role == "hat" for a, _ in op.atoms)
    out = np.zeros((2,) * op.slots, complex)
    for where in product(range(2), repeat=op.slots):
        orbit = orbit_of(op.population, tuple((a, where[s]) for a, s in op.atoms))
        copies = {where[s] for _, s in op.atoms}
        value = at[cross[orbit]] if orbit in cross else _own(form, orbit, copies == {1}, at)
        out[where] = 1j**hats * complex(value)
    return out


def _own(form: TwoStatesForm, orbit: Orbit, second: bool, at: Values) -> float:
    """The value of an order parameter of one state; the second sees every pattern where the first sees another."""
    action = form.action
    if not second or len(orbit.atoms) != 1:
        return float(number(action.values[orbit], at).real)
    wanted, back = label_part(action, orbit.atoms[0][0]), {new: old for old, new in form.labels}
    if wanted in dict(form.labels) and wanted not in back:
        return 0.0
    wanted = back.get(wanted, wanted)
    for other, value in action.values.items():
        if len(other.atoms) == 1 and label_part(action, other.atoms[0][0]) == wanted:
            return float(number(value, at).real)
    return 0.0


def _direct(
    form: TwoStatesForm, site: SiteInField, orbit: Orbit, at: dict[Symbol, float], laws: list[FreeLabel]
) -> float:
    """E over labels and both fields of what the replicas of both states are in them."""
    scale = Mul(*(label_part(form.action, a) for a, _ in orbit.atoms))
    z, w = trapezoid(NODES if site.variable.kind == "state" else FEW_NODES)
    w = w / w.sum()
    total = 0.0
    for labels, probability in _every(form, site, at, laws):
        numbers = {**at, **labels}
        b, _, cross = explicit_fields(form, site, numbers)
        other = number(next(p for p in form.problem.sites if p.site == site.variable.population).other, numbers).real
        k, v = (number(e, numbers).real for e in (site.k, site.v))
        direct = Direct(site, numbers)
        first = direct.moments(b + np.sqrt(k) * z, v).first
        rest = np.sqrt(max(k - cross**2 / k, 0.0)) if k > 0 else 0.0
        slope = cross / np.sqrt(k) if k > 0 else 0.0
        second = np.array([w @ direct.moments(other + slope * u + rest * z, v).first for u in z])
        total += probability * number(scale, numbers).real * float((w * first) @ second)
    return total


def _every(
    form: TwoStatesForm, site: SiteInField, at: dict[Symbol, float], laws: list[FreeLabel]
) -> list[tuple[dict[Symbol, float], float]]:
    """All labels of a site, also of those beyond the condensed ones."""
    inside = {old for old, _ in form.labels}
    beyond = [new for _, new in form.labels if new not in inside and new in _other(form, site)]
    found = [] if laws else list(every_label(site, at))
    for values in product(*(zip(q.values, q.weights, strict=True) for q in laws)) if laws else ():
        own = {q.symbol: float(v) for q, (v, _) in zip(laws, values, strict=True)}
        found.append((own, float(np.prod([p for _, p in values]))))
    for q in beyond:
        found = [
            ({**labels, q: float(value)}, p * float(chance)) for labels, p in found for value, chance in q.law.weights()
        ]
    return found


def _other(form: TwoStatesForm, site: SiteInField) -> set[Any]:
    return next(p for p in form.problem.sites if p.site == site.variable.population).other.free_symbols


def _cooled_deviation(form: TwoStatesForm, values: Values, rng: np.random.Generator) -> float:
    """Covariances of explicit replicas at a large β, in units of its power, against those at zero temperature."""
    beta, worst = 1e6, 0.0
    base = place(form.action, values, rng)
    fields = form.action.problem.action.fields
    for pair in form.problem.sites:
        site = site_of(form.action, pair.site)
        at, scaled = {**base, COLD: beta}, {**base, COLD: beta}
        for symbol, orbit in form.orbits:
            at[symbol] = float(rng.uniform(0.2, 0.6))
            scaled[symbol] = at[symbol] * beta ** sum(fields[a].role == "hat" for a, _ in orbit.atoms)
        for labels, _ in _seen(form, site, at):
            cross = explicit_fields(form, site, {**scaled, **labels})[2]
            found = cross / beta ** (2 if site.variable.kind == "state" else 0)
            worst = max(worst, relative(np.array(number(pair.cross, {**at, **labels}).real), np.array(found)))
    return worst
