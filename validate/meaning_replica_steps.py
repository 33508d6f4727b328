"""Witnesses of the replicas reading: sums over states, explicit replicas, and limits, against the forms.

Order parameters of n explicit replicas are arrays whose entries the ansatz names; sites are summed by brute force
(`meaning_replica_sites`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Float, Mul, Symbol, exp

from quenched.numerics.replica_evaluator import Evaluator
from quenched.theory.couplings import Apply
from quenched.theory.fields import Field, unbind
from quenched.theory.gibbs import Gibbs
from quenched.theory.lower import CopiedAction
from quenched.theory.observables import Mean
from quenched.theory.priors import fixed_norm
from quenched.theory.problem_replicas import ReplicaProblem, X
from quenched.theory.replica_ansatz import orbit_of
from quenched.theory.replica_forms import NREP, Orbit, RSAction, SiteInField, Variable, replica_site
from quenched.theory.replica_limit import FreeEntropyForm, SaddleEquations
from quenched.theory.replica_lower import COLD, ReplicatedAction, SiteWeight
from quenched.theory.saddle import OrderParameter, SiteProblem
from quenched.validate.generate import label
from quenched.validate.meaning import draw_parameters, number, relative
from quenched.validate.meaning_action import laws_deviation
from quenched.validate.meaning_modes import in_waves
from quenched.validate.meaning_products import contract
from quenched.validate.meaning_replica_place import place
from quenched.validate.meaning_replica_sites import (
    PANELS,
    Direct,
    every_label,
    grid,
    numbers_at,
    site_mean,
    some_labels,
)
from quenched.validate.meaning_replicas import copies_free_entropy
from quenched.validate.meaning_site import site_exponent
from quenched.validate.spins import Counted, Instance

Array = NDArray[Any]
Rng = np.random.Generator
Values = Mapping[Symbol, float]

#: What an order parameter is compared relative to where it vanishes.
SMALL = 1e-4


# -- Zⁿ --------------------------------------------------------------------------------------------------------------
def replicate_deviation(model: Gibbs, action: ReplicatedAction, values: Values, rng: Rng) -> float:
    """The declared exponent on random states against uses and site weights, and the laws of all entries."""
    own = {p: v for p, v in values.items() if p in model.parameters}
    drawn = Counted(model, 6, int(rng.integers(1 << 30)), 0, own)
    _calm(drawn, action)
    worst = laws_deviation(model, action, values)  # type: ignore[arg-type]
    compared, nodes, seen = 0, _nodes(model), in_waves(drawn, action)
    for _ in range(60):
        states = {f: rng.standard_normal(n) for f, n in drawn.sizes.items()}
        declared = float(drawn.log_weight(states))
        through, locals_ = _through_uses(seen, action, states)
        worst = max(worst, _fields_deviation(seen, action, states, locals_, nodes))
        if np.isfinite(declared) or np.isfinite(through):
            worst = max(worst, relative(np.array(through), np.array(declared), 1 + abs(declared)))
            compared += 1
    return worst if compared else float("inf")


def _nodes(model: Gibbs) -> list[Apply]:
    """The outermost couplings of a declaration."""
    found: dict[Apply, None] = {}
    pending: list[Any] = [model.energy, *model.weights]
    while pending:
        expr = pending.pop()
        if isinstance(expr, Apply):
            found[expr] = None
        elif isinstance(expr, Mean):
            pending.append(unbind(expr.body))
        else:
            pending += [a for a in expr.args if isinstance(a, Expr)]
    return list(found)


def _fields_deviation(
    drawn: Instance,
    action: ReplicatedAction,
    states: dict[Field, Array],
    locals_: Mapping[str, Array],
    nodes: list[Apply],
) -> float:
    """Local fields of a single use and no label of their own against the declared coupling that they stand for."""
    worst = 0.0
    shifted = {name for site in action.sites for name, mean, variance in site.given if mean != 0 or variance != 0}
    for name, value in locals_.items():
        uses = [u for u in action.uses if f"hat_{name}" in {a for a, _ in (*u.row, *u.col)}]
        if len(uses) != 1 or name in shifted:
            continue
        known = [drawn._node(n, states) for n in nodes if n.rows == action.fields[name].population]
        known += [-k for k in known]
        worst = max(worst, min((relative(value, k) for k in known if k.shape == value.shape), default=0.0))
    return worst


def _calm(drawn: Instance, action: ReplicatedAction) -> None:
    """Labels that the action absorbs into local fields of a teacher take their means there."""
    kept = {q for site in action.sites for q in site.labels}
    for q in list(drawn.labels):
        if any(site.given for site in action.sites if site.population == q.population) and q not in kept:
            drawn.labels[q] = np.full_like(drawn.labels[q], drawn.numbers(q.law.mean_()))


def _through_uses(
    drawn: Instance, action: ReplicatedAction, states: Mapping[Field, Array]
) -> tuple[float, dict[str, Array]]:
    """The exponent through uses and site weights, and the local fields on the way."""
    numbers: dict[Any, Any] = {COLD: 1.0, **drawn.values, **drawn.labels}
    numbers |= {action.fields[f.name].symbol: x for f, x in states.items()}
    for f in action.of_role("output"):
        numbers[f.symbol] = np.broadcast_to(numbers_at(f.definition, numbers), (_size(drawn, f.population),))
    shifts = {name: mean for site in action.sites for name, mean, _ in site.given}
    total = 0.0
    for f in action.of_role("local"):
        numbers[f.symbol] = numbers_at(shifts.get(f.name, 0), numbers) + np.zeros(_size(drawn, f.population))
    functions = {v.name: drawn.functions[v] for v in drawn.model.landscapes}
    for use in action.uses:
        if use.coupling in functions:
            state = numbers[action.fields[use.row[0][0]].symbol]
            total += number(use.coef, {COLD: 1.0, **drawn.values}).real * float(functions[use.coupling](state)[0])
            continue
        matrix = _matrix(drawn, action, use.coupling)
        (row, _), (col, _) = use.row[0], use.col[0]
        roles = [action.fields[a].role for a in (row, col)]
        size = complex(number(use.coef, {COLD: 1.0, **drawn.values}))
        if "hat" not in roles:
            total += size.real * float(numbers[action.fields[row].symbol] @ matrix @ numbers[action.fields[col].symbol])
            continue
        hat, other = (row, col) if roles[0] == "hat" else (col, row)
        map_ = matrix if roles[0] == "hat" else matrix.T
        local = action.fields[hat.removeprefix("hat_")].symbol
        numbers[local] = numbers[local] + (1j * size).real * (map_ @ numbers[action.fields[other].symbol])
    for site in action.sites:
        with np.errstate(divide="ignore"):
            weight = numbers_at(site.exponent, numbers) + np.log(numbers_at(site.factor, numbers))
        total += float(np.sum(np.broadcast_to(weight, (_size(drawn, site.population),))))
    return total, {f.name: numbers[f.symbol] for f in action.of_role("local")}


def _size(drawn: Instance, population: Any) -> int:
    return int(drawn.numbers.size(population)[1])


def _matrix(drawn: Instance, action: CopiedAction, name: str) -> Array:
    known = {m.name: drawn.matrices[label(m)] for m in drawn.model.matrices}
    if name in known:
        return known[name]
    law = next(law for law in action.laws if law.name == name)
    declared = drawn.numbers.size(law.cols)[0]
    return np.full((_size(drawn, law.rows), _size(drawn, law.cols)), 1 / declared)


def evaluator(action: RSAction, at: Values) -> Evaluator:
    """Numbers of expressions in site averages at any point."""
    sites = tuple(replica_site(s.variable) for s in action.sites)
    problem = ReplicaProblem(tuple(at), sites, (), (), Mul(0), ())
    ev = Evaluator(problem, dict(at))
    ev.cache = {}
    return ev


def parameter_array(action: RSAction, op: OrderParameter, copies: int, at: Values) -> Array:
    """An order parameter of explicit replicas under the ansatz, disorder having one copy."""
    fields = action.problem.action.fields
    single = {s for a, s in op.atoms if fields[a].single}
    shape = [1 if s in single else copies for s in range(op.slots)]
    out = np.zeros(shape, complex)
    hats = sum(fields[a].role == "hat" for a, _ in op.atoms)
    for where in product(*map(range, shape)):
        names = {s: -1 if s in single else where[s] for s in range(op.slots)}
        orbit = orbit_of(op.population, tuple((a, names[s]) for a, s in op.atoms))
        out[where] = 1j**hats * complex(number(action.values[orbit], at))
    return out


# -- ansatz ----------------------------------------------------------------------------------------------------------
def ansatz_deviation(model: Gibbs, problem: SiteProblem, action: RSAction, values: Values, rng: Rng) -> float:
    """Three explicit replicas in the functional, two at every site by sums over their states.

    Where two replicas are not normalisable (at low temperatures E Z² may diverge), at larger parameters.
    """
    found = _ansatz_deviation(problem, action, values, np.random.default_rng(rng.integers(1 << 30)))
    for span in ((1.5, 3.0), (3.0, 6.0)):
        if np.isfinite(found):
            break
        values = {**draw_parameters(model, rng, span), COLD: 0.5 / span[0]}  # type: ignore[arg-type]
        found = _ansatz_deviation(problem, action, values, rng)
    return found


def _ansatz_deviation(problem: SiteProblem, action: RSAction, values: Values, rng: Rng) -> float:
    at = place(action, values, rng)
    worst = relative(np.array(_explicit_terms(problem, action, 3, at)), np.array(_named_terms(action, 3, at)))
    for site in action.sites:
        worst = max(worst, _site_deviation(problem, action, site, at))
    return worst


def _named_terms(action: RSAction, n: int, at: Values) -> float:
    """The terms at n replicas, without what fixed norms add per copy (part of the sites)."""
    return number(action.terms.xreplace({NREP: Mul(n)}), at).real - n * sum(
        _norm_part(action, s, at) for s in action.sites
    )


def _norm_part(action: RSAction, site: SiteInField, at: Values) -> float:
    """f (K_aa − K_ab − V)·norm/2 of a site of fixed norm: what the explicit replicas' fields have beyond its own."""
    prior = site.variable.weight.prior
    norm = fixed_norm(prior[1]) if prior else None
    if norm is None:
        return 0.0
    whole = 0.0
    for labels, probability in every_label(site, dict(at)):
        _, diagonal, off = _explicit_field(action.problem, action, site, at, labels)
        whole += probability * (diagonal - off - number(site.v, {**at, **labels}).real)
    return number(site.variable.fraction, at).real * whole * float(norm) / 2


def _explicit_terms(problem: SiteProblem, action: RSAction, n: int, at: Values) -> float:
    total = 0j
    for term in problem.functional.terms:
        pieces = []
        for f in term.factors:
            slots = sorted({c for _, c in f.atoms})
            op = OrderParameter(f.population, tuple((a, slots.index(c)) for a, c in f.atoms))
            pieces.append((parameter_array(action, op, n, at), tuple(slots)))
        total += (1 - len(term.factors)) * number(term.coef, at) * contract(pieces, term.kernels, n)
    return float(total.real)


def _explicit_field(
    problem: SiteProblem, action: RSAction, site: SiteInField, at: Values, labels: Values
) -> tuple[float, float, float]:
    """(b, K_aa, K_ab) of two explicit replicas, from the exponent at chosen values of their variables."""
    own, numbers = site.variable, {**at, **labels}

    def exponent(x: tuple[float, float]) -> float:
        return _exponent(problem, action, site, numbers, x, {})

    zero, one, both = exponent((0, 0)), exponent((1, 0)), exponent((1, 1))
    minus = exponent((-1, 0))
    b, diagonal = (one - minus) / 2, one + minus - 2 * zero
    off = both - 2 * one + zero
    if own.weight.prior:
        part = own.weight.exponent
        coefficient = [number(part.coeff(own.weight.prior[0], k), numbers).real for k in (1, 2)]
        b, diagonal = b + coefficient[0], diagonal + 2 * coefficient[1]
    return b, diagonal, off


def _exponent(
    problem: SiteProblem,
    action: RSAction,
    site: SiteInField,
    numbers: Values,
    x: tuple[float, float],
    given: Mapping[str, float],
) -> float:
    """The exponent of a site at the variables x of two replicas and at conjugates of disorder (times i), default 0."""
    fields, own = action.problem.action.fields, site.variable
    ops = {ref.op for term in problem.terms for ref in term.refs}
    parameters = {op: parameter_array(action, op, 2, numbers) for op in ops}
    state = fields[own.name].symbol
    values = {}
    for f in fields.values():
        if f.population.name != own.population:
            continue
        if f.single and f.role == "hat":
            values[f.name] = np.array([1j * given.get(f.name, 0.0)])
        elif f.single:
            values[f.name] = np.array([complex(number(f.definition, numbers)) if f.definition is not None else 0j])
        elif f.role == "hat":
            values[f.name] = 1j * np.array(x)
        elif f.role == "state":
            values[f.name] = np.array(x, complex)
        elif f.role == "output":
            values[f.name] = np.array([number(f.definition, {**numbers, state: v}) for v in x])
    return float(site_exponent(problem.terms, own.population, values, parameters, numbers).real)


def _site_deviation(problem: SiteProblem, action: RSAction, site: SiteInField, at: dict[Symbol, float]) -> float:
    if site.given:
        return _taught_deviation(problem, action, site, at)
    worst = 0.0
    for labels in some_labels(site, at):
        b, diagonal, off = _explicit_field(problem, action, site, at, labels)
        direct = Direct(site, {**at, **labels})
        lam = action.multipliers.get(site.variable.population)
        fixed = site.variable.weight.prior is not None and not direct.free
        sphere = 0.0 if lam is None else -at[lam] + (diagonal - off if site.v.has(*labels) else 0.0)
        inside = sphere + off if fixed else diagonal
        left = direct.two_replicas(b, inside, off)
        numbers = {**at, **labels}
        right = direct.decoupled(*(number(e, numbers).real for e in (site.b, site.k, site.v)))
        worst = max(worst, relative(np.array(right), np.array(left)))
    return worst


def _taught_deviation(problem: SiteProblem, action: RSAction, site: SiteInField, at: dict[Symbol, float]) -> float:
    """Two replicas and one local field v that is disorder, jointly Gaussian, against the labels of the ansatz."""
    if len(site.given) != 1:
        return 0.0
    (name, _), weight = site.given[0], action.problem.action.site(site.variable.population)  # type: ignore[attr-defined]
    if weight.labels:
        site, weight, at = _at_labels(site, weight, at)
    local = action.problem.action.fields[name.removeprefix("hat_")].symbol
    mean, diagonal, cross, (b, kd, ko) = _joint_field(problem, action, site, at, name)
    (_, extra, noise), *_ = weight.given
    mean, spread = mean + number(extra, at).real, diagonal + number(noise, at).real
    f = (weight.factor * exp(weight.exponent)).xreplace({site.variable.local: X})
    left = 0.0
    for v, w in zip(*_normal_nodes(mean, spread), strict=True):
        direct = Direct(replace(site, variable=_weighing(site, f.xreplace({local: Float(v)}))), at, PANELS // 2)
        shift = cross / spread * (v - mean)
        left += w * direct.two_replicas(b + shift, kd - cross**2 / spread, ko - cross**2 / spread)
    right = 0.0
    for labels, probability in every_label(site, at):
        numbers = {**at, **labels}
        found = Direct(site, numbers).decoupled(*(number(e, numbers).real for e in (site.b, site.k, site.v)))
        right += probability * found
    return relative(np.array(right), np.array(left))


def _at_labels(
    site: SiteInField, weight: SiteWeight, at: dict[Symbol, float]
) -> tuple[SiteInField, SiteWeight, dict[Symbol, float]]:
    """A site with a local field of disorder at one set of values of its other labels."""
    chosen = list(some_labels(site, at, 3))[-1]
    own = {q: chosen[q] for q in weight.labels if q in chosen}
    swap = {q: Float(v) for q, v in own.items()}
    seen = site.variable.weight
    kept = tuple(q for q in seen.labels if q not in own)
    moved = replace(seen, exponent=seen.exponent.xreplace(swap), factor=seen.factor.xreplace(swap), labels=kept)
    fields = {n: getattr(site, n).xreplace(swap) for n in ("b", "k", "v")}
    plain = replace(weight, exponent=weight.exponent.xreplace(swap), factor=weight.factor.xreplace(swap))
    return replace(site, variable=replace(site.variable, weight=moved), **fields), plain, {**at, **own}


def _weighing(site: SiteInField, f: Expr) -> Variable:
    """The variable of a site with this weight of its local field and no labels."""
    weight = replace(site.variable.weight, exponent=Mul(0), factor=f.xreplace({X: site.variable.local}), labels=())
    return replace(site.variable, weight=weight)


def _normal_nodes(mean: float, variance: float) -> tuple[Array, Array]:
    """Nodes and weights of a Gaussian number, split at zero."""
    u, w = grid([0.0], PANELS // 2)
    density = np.exp(-((u - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance) * w
    keep = density > 1e-14
    return u[keep], density[keep]


def _joint_field(
    problem: SiteProblem, action: RSAction, site: SiteInField, at: Values, hat: str
) -> tuple[float, float, float, tuple[float, float, float]]:
    """(mean of v, its variance, its covariance with u, (b, K_aa, K_ab)), from the exponent at chosen conjugates."""

    def exponent(x0: float, x: float) -> float:
        return _exponent(problem, action, site, at, (x, 0.0), {hat: x0})

    zero = exponent(0, 0)
    mean = (exponent(1, 0) - exponent(-1, 0)) / 2
    variance = exponent(1, 0) + exponent(-1, 0) - 2 * zero
    cross = (exponent(1, 1) - exponent(1, -1) - exponent(-1, 1) + exponent(-1, -1)) / 4
    return mean, variance, cross, _explicit_field(problem, action, site, at, {})


# -- n → 0 -----------------------------------------------------------------------------------------------------------
def limit_deviation(action: RSAction, free: FreeEntropyForm, values: Values, rng: Rng) -> float:
    """Φ_n/n at three small n, extrapolated to n = 0."""
    at = place(action, values, rng)
    a, b, c = (copies_free_entropy(action, n, at) / n for n in (4e-3, 2e-3, 1e-3))
    limit = (a - 6 * b + 8 * c) / 3
    return relative(np.array(evaluator(action, at).number(free.value, at)), np.array(limit), 1 + abs(limit))


# -- stationarity ----------------------------------------------------------------------------------------------------
def stationarity_deviation(free: FreeEntropyForm, after: SaddleEquations, values: Values, rng: Rng) -> float:
    """∂Φ by differences, and every order parameter by sums over states of replicas in one field."""
    action = free.action
    at = place(action, values, rng)
    ev, step, worst = evaluator(action, at), 1e-3, 0.0
    for unknown, gradient in after.gradient.items():
        up, down, up2, down2 = (ev.number(free.value, at | {unknown: at[unknown] + k * step}) for k in (1, -1, 2, -2))
        slope = (8 * (up - down) - (up2 - down2)) / (12 * step)
        worst = max(worst, relative(np.array(ev.number(gradient, at)), np.array(slope), 1 + abs(slope)))
    named = {value: orbit for orbit, value in action.values.items() if isinstance(value, Symbol)}
    for unknown, rhs in after.equations.items():
        direct = orbit_average(action, named[unknown], at)
        if direct is not None:
            scale = SMALL + abs(direct)  # symmetries make some of them vanish
            worst = max(worst, relative(np.array(ev.number(rhs, at)), np.array(direct), scale))
    return worst


def orbit_average(action: RSAction, orbit: Orbit, at: dict[Symbol, float]) -> float | None:
    """An order parameter as n → 0: replicas are independent given the field of their site."""
    fields = action.problem.action.fields
    site = next((s for s in action.sites if s.variable.population == orbit.population), None)
    if site is None:
        return None
    held = [a for a, _ in orbit.atoms if fields[a].single and fields[a].role == "hat"]
    if held:
        return _with_disorder(site, held, len(orbit.atoms), at)
    powers = [sum(c == k and not fields[a].single for a, c in orbit.atoms) for k in range(orbit.copies)]
    state = fields[site.variable.name].symbol
    scale: Expr = Mul(1)
    for a, _ in orbit.atoms:
        f = fields[a]
        if f.single or f.role == "output":
            scale = scale * (f.definition if f.single else (f.definition / state).expand())
    return site_mean(site, at, scale, powers)


def _with_disorder(site: SiteInField, held: list[str], size: int, at: dict[Symbol, float]) -> float | None:
    """⟨x x₀⟩ with the conjugate x₀ of a local field that is disorder: the slope of E⟨x⟩ in the mean of that field."""
    parts = dict(site.given).get(held[0])
    if parts is None or size != 2 or len(held) != 1:
        return None

    def shifted(step: float) -> float:
        swap = {zeta: zeta + number(c, at).real * step for c, zeta, _ in parts}
        weight = site.variable.weight
        moved = replace(weight, exponent=weight.exponent.xreplace(swap), factor=weight.factor.xreplace(swap))
        return site_mean(replace(site, variable=replace(site.variable, weight=moved)), at, Mul(1), [1])

    step = 2e-2
    return (8 * (shifted(step) - shifted(-step)) - (shifted(2 * step) - shifted(-2 * step))) / (12 * step)


__all__ = [
    "ansatz_deviation",
    "limit_deviation",
    "replicate_deviation",
    "stationarity_deviation",
]
