"""What the stability and the observables of a replica-symmetric state mean, as numbers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from sympy import Expr, Mul, Symbol

from quenched.numerics.replica_evaluator import Evaluator
from quenched.theory.couplings import Apply, Transpose
from quenched.theory.fields import Field, unbind
from quenched.theory.gibbs import Gibbs
from quenched.theory.observables import Mean
from quenched.theory.priors import on_sphere
from quenched.theory.replica_forms import Orbit, RSAction, SiteInField
from quenched.theory.replica_limit import RepliconForm, SaddleEquations
from quenched.theory.replica_observe import AT_THE_SADDLE, declared_name, part_name
from quenched.theory.replica_state import ReplicaState
from quenched.theory.saddle import OrderParameter
from quenched.validate.meaning import number, relative
from quenched.validate.meaning_products import contract
from quenched.validate.meaning_replica_place import place
from quenched.validate.meaning_replica_sites import (
    PANELS,
    site_mean,
)
from quenched.validate.meaning_replica_steps import Array, Rng, Values, evaluator, parameter_array


def replicon_deviation(state: SaddleEquations, after: RepliconForm, values: Values, rng: Rng) -> float:
    """P″ by differences along a pattern of four replicas, times the projected covariance of a site."""
    action = state.free.action
    at = place(action, values, rng)
    ev = evaluator(action, at)
    if len(after.pairs) != len(
        {o for o in action.values if o.copies == 2 and len(o.atoms) == 2 and _moving(action, o)}
    ):
        return float("inf")
    found = np.array([[ev.number(e, at) for e in row] for row in after.matrix], float)
    direct = _explicit_replicon(action, after.pairs, tuple(at.items()))
    return relative(found, direct, 1e-3 + float(np.max(np.abs(direct), initial=0)))


@lru_cache(maxsize=8)
def _explicit_replicon(action: RSAction, pairs: tuple[Orbit, ...], place_: tuple[tuple[Symbol, float], ...]) -> Array:
    """P″ times the projected covariance: kept, since forms and their mutants are compared at the same place."""
    at, size = dict(place_), range(len(pairs))
    sigma = [[_projected(action, pairs[k], pairs[j], at) for j in size] for k in size]
    second = [[_second_slope(action, pairs[i], pairs[k], at) for k in size] for i in size]
    return np.array(second) @ np.array(sigma)


def _moving(action: RSAction, orbit: Orbit) -> bool:
    return not any(action.problem.action.fields[a].single for a, _ in orbit.atoms)


def _projected(action: RSAction, left: Orbit, right: Orbit, at: dict[Symbol, float]) -> float:
    """E[(⟨x²⟩ − ⟨x⟩²)²] with the coefficients of both pairs, over the fraction of the population."""
    if left.population != right.population:
        return 0.0
    site = next(s for s in action.sites if s.variable.population == left.population)
    fields = action.problem.action.fields
    state = fields[site.variable.name].symbol
    scale: Expr = Mul(1)
    for a, _ in (*left.atoms, *right.atoms):
        if fields[a].role == "output":
            scale = scale * (fields[a].definition / state).expand()
    whole = [site_mean(site, at, scale, p) for p in ([2, 2], [2, 1, 1], [1, 1, 1, 1])]
    return (whole[0] - 2 * whole[1] + whole[2]) / number(site.variable.fraction, at).real


#: Changes of the six pairs of four replicas whose sums over one replica vanish.
PATTERN = np.array([[0, 1, -1, 0], [1, 0, 0, -1], [-1, 0, 0, 1], [0, -1, 1, 0]], float)


def _second_slope(action: RSAction, left: Orbit, right: Orbit, at: dict[Symbol, float]) -> float:
    """∂²P/∂q_ab∂q′_ab along the pattern, a pair counted once."""

    def functional(i: float, j: float) -> float:
        total = 0j
        for term in action.problem.functional.terms:
            pieces = []
            for f in term.factors:
                slots = sorted({c for _, c in f.atoms})
                op = OrderParameter(f.population, tuple((a, slots.index(c)) for a, c in f.atoms))
                pieces.append((_moved(action, op, at, ((left, i), (right, j))), tuple(slots)))
            total += number(term.coef, at) * contract(pieces, term.kernels, 4)
        return float(total.real)

    def mixed(step: float) -> float:
        corners = [a * b * functional(a * step, b * step) for a in (1, -1) for b in (1, -1)]
        return float(sum(corners)) / (4 * step**2)

    return (4 * mixed(0.03) - mixed(0.06)) / 3 / float(np.sum(PATTERN**2) / 2)


def _moved(action: RSAction, op: OrderParameter, at: Values, moves: tuple[tuple[Orbit, float], ...]) -> Array:
    """An order parameter of four replicas, moved along the pattern where it is one of the given pairs."""
    out = parameter_array(action, op, 4, at)
    if out.shape != (4, 4):
        return out
    hats = sum(action.problem.action.fields[a].role == "hat" for a, _ in op.atoms)
    for orbit in dict.fromkeys(o for o, _ in moves):
        size = sum(step for o, step in moves if o == orbit)
        if orbit.population == op.population and sorted(a for a, _ in orbit.atoms) == sorted(a for a, _ in op.atoms):
            out = out + 1j**hats * size * PATTERN
    return out


# -- observables -----------------------------------------------------------------------------------------------------
def observables_deviation(before: RepliconForm, after: ReplicaState, model: Gibbs, values: Values, rng: Rng) -> float:
    """Moments by sums over states, the energy by differences of Φ, and the entropy from both."""
    action, free = before.state.free.action, before.state.free
    at = place(action, values, rng)
    ev, worst = evaluator(action, at), 0.0
    known = dict(before.state.equations)
    for unknown, rhs in after.problem.equations:
        worst = max(worst, relative(np.array(ev.number(rhs, at)), np.array(ev.number(known[unknown], at))))
    seen = {name: ev.number(expr, at) for name, expr in after.problem.observables}
    for name, value in expected(model, action, free.value, ev, at, before).items():
        if name in seen:
            worst = max(worst, relative(np.array(seen[name]), np.array(value), 1 + abs(value)))
    return worst


def expected(
    model: Gibbs, action: RSAction, free: Expr, ev: Evaluator, at: dict[Symbol, float], before: RepliconForm
) -> dict[str, float]:
    """Observables of the saddle that sums over states and differences give."""
    out = {"free_entropy": ev.number(free, at), "replicon": ev.number(before.eigenvalue, at)}
    states = [s for s in action.sites if s.variable.kind == "state"]
    taken = {str(v) for v in action.values.values()}
    for s in states:
        tag = "" if len(states) == 1 else f"_{s.variable.name}"
        for name, powers in (("m", [1]), ("q", [1, 1]), ("Q", [2])):
            own = f"{name}_{s.variable.name}" if name + tag in taken else name + tag
            out[own] = site_mean(s, at, Mul(1), powers)
    if model.energy == 0:
        out |= _entropy(model, states, at, out["free_entropy"])
    beta = sorted(model.beta.free_symbols, key=str)
    if len(beta) == 1 and beta[0] in at:
        out |= _thermodynamics(model, free, ev, at, beta[0], states)
    for name, expr in asked(model).items():
        found = declared_value(expr, action, at)
        if found is not None:
            out[name] = found
    return out | dict.fromkeys(named_replicon(model), out["replicon"])


def asked(model: Gibbs) -> dict[str, Expr]:
    """Declared observables and the means in them, under the names of the hand-over."""
    parts = {part_name(node): node for expr in model.observables.values() for node in expr.atoms(Mean)}
    return {**parts, **{declared_name(name): expr for name, expr in model.observables.items()}}


def named_replicon(model: Gibbs) -> list[str]:
    """Names under which the replicon eigenvalue is handed over."""
    own = [n for n, e in model.observables.items() if AT_THE_SADDLE.get(type(e).__name__) == "replicon"]
    return ["replicon", *map(declared_name, own)]


def _thermodynamics(
    model: Gibbs, free: Expr, ev: Evaluator, at: dict[Symbol, float], scale: Symbol, states: list[SiteInField]
) -> dict[str, float]:
    """−∂Φ/∂β, and Φ + ln(number of states) + βe."""
    step = 1e-3 * abs(at[scale])

    def phi(k: int) -> float:
        return evaluator_at(ev, at | {scale: at[scale] + k * step}, free)

    slope = (8 * (phi(1) - phi(-1)) - (phi(2) - phi(-2))) / (12 * step)
    energy = -slope / number(model.beta.diff(scale), at).real
    out = {"energy": energy}
    if not model.weights:
        out |= _entropy(model, states, at, phi(0) + number(model.beta, at).real * energy)
    return out


def _entropy(model: Gibbs, states: list[SiteInField], at: Values, relative_to_prior: float) -> dict[str, float]:
    """The entropy from that relative to the prior: a uniform law of finitely many values, or of a sphere."""
    counts = [1 if on_sphere(model.priors[f]) else len(model.priors[f].weights()) for f in model.fields]
    weights = [p for f in model.fields for _, p in model.priors[f].weights()]
    if not all(counts) or len(set(weights)) > 1:
        return {}
    fractions = [number(s.variable.fraction, at).real for s in states]
    return {"entropy": relative_to_prior + sum(f * np.log(c) for f, c in zip(fractions, counts, strict=True))}


def evaluator_at(ev: Evaluator, at: dict[Symbol, float], expr: Expr) -> float:
    """An expression where parameters of the sites differ, too."""
    fresh = Evaluator(ev.problem, at)
    fresh.cache = {}
    return fresh.number(expr, at)


def declared_value(expr: Expr, action: RSAction, at: dict[Symbol, float], panels: int = PANELS) -> float | None:
    """An observable of products of moments by sums over states; None for others."""
    means = sorted(expr.atoms(Mean), key=str)
    found = [_mean(node, action, at, panels) for node in means]
    if any(f is None for f in found) or not means or expr.xreplace(dict.fromkeys(means, Mul(0))).free_symbols - set(at):
        return None
    swapped = expr.xreplace({n: Mul(f) for n, f in zip(means, found, strict=True)})
    return number(swapped, at).real if swapped.is_number or swapped.free_symbols <= set(at) else None


def _mean(node: Mean, action: RSAction, at: dict[Symbol, float], panels: int) -> float | None:
    body = unbind(node.body).expand()
    site = next((s for s in action.sites if s.variable.population == node.population.name), None)
    if site is None or body.has(Apply, Transpose) or site.variable.kind != "state":
        return None
    total = 0.0
    for term in body.as_ordered_terms():
        scale, powers = Mul(1), dict[int, int]()
        for factor in Mul.make_args(term):
            base, power = factor.as_base_exp()
            if isinstance(base, Field):
                if not power.is_Integer or power < 0:
                    return None
                powers[base.copy or 0] = powers.get(base.copy or 0, 0) + int(power)
            elif factor.atoms(Field):
                return None
            else:
                scale = scale * factor
        if any(p > 2 for p in powers.values()) or any(
            getattr(s, "population", None) and s not in site.variable.weight.labels for s in scale.free_symbols
        ):
            return None
        total += site_mean(site, at, scale, list(powers.values()), panels)
    return total
