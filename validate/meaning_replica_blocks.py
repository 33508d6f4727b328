"""Witnesses of blocks of replicas: explicit replicas in blocks, and differences of the nested free entropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Add, Expr, Mul, S, Symbol

from quenched.numerics.replica_evaluator import Evaluator
from quenched.theory.errors import NotCovered
from quenched.theory.priors import fixed_norm
from quenched.theory.problem_replicas import L, ReplicaProblem
from quenched.theory.replica_ansatz import orbit_of
from quenched.theory.replica_blocks import BlockAction, BlockSite
from quenched.theory.replica_forms import replica_site
from quenched.theory.replica_limit import label_part
from quenched.theory.replica_lower import COLD, ReplicatedAction
from quenched.theory.replica_state import ReplicaState
from quenched.theory.saddle import OrderParameter, SiteProblem
from quenched.validate.meaning import number, relative
from quenched.validate.meaning_products import contract
from quenched.validate.meaning_replica_sites import every_label
from quenched.validate.meaning_site import site_exponent

Array = NDArray[Any]
#: Of so many values of labels one is compared.
LABELS = 12
Rng = np.random.Generator
Values = Mapping[Symbol, float]
#: Ranges of outermost overlaps, of their growth per level, and of what replicas share with themselves only.
OUTER, GROWTH, OWN = (0.1, 0.25), (0.1, 0.25), (0.3, 0.5)


def place(action: BlockAction, values: Values, rng: Rng) -> dict[Symbol, float]:
    """Parameters, overlaps that grow inwards, and sizes of blocks that fall between 1 and 0."""
    at = {COLD: 0.8, **values}
    for levels in action.values.values():
        inner = rng.uniform(*OUTER)
        for symbol in levels:
            if isinstance(symbol, Symbol):
                at[symbol] = float(inner)
            inner += rng.uniform(*GROWTH)
    for orbit, levels in action.values.items():
        if orbit.copies == 1 and len(orbit.atoms) == 2 and isinstance(levels[0], Symbol):
            at[levels[0]] = 0.25 + len(action.sizes) * GROWTH[1] + float(rng.uniform(*OWN))
    for lam in action.multipliers.values():
        at[lam] = float(rng.uniform(1.2, 1.9))
    sizes = np.sort(rng.uniform(0.2, 0.8, len(action.sizes)))
    return at | {x: float(size) for x, size in zip(action.sizes, sizes, strict=True)}


# -- explicit replicas -----------------------------------------------------------------------------------------------
def blocks_deviation(problem: SiteProblem, action: BlockAction, values: Values, rng: Rng) -> float:
    """2x₁ and 3x₁ explicit replicas in blocks of whole sizes, per replica, extrapolated to none; fields of sites."""
    explicit = [2**k for k in range(len(action.sizes), 0, -1)]
    at = place(action, values, rng) | dict(zip(action.sizes, map(float, explicit), strict=True))
    counts = [2 * explicit[0], 3 * explicit[0]]
    two, three = (_terms(problem, action, n, explicit, at) / n for n in counts)
    norms = sum(_norm(problem, action, s, explicit, at) for s in action.sites)
    worst = relative(np.array(number(action.terms, at).real - norms), np.array(3 * two - 2 * three))
    for site in action.sites:
        for labels, _ in list(every_label(site, dict(at)))[:: max(1, LABELS)]:  # type: ignore[arg-type]
            worst = max(worst, _site_deviation(problem, action, site, explicit, {**at, **labels}))
    return worst


def _site_deviation(
    problem: SiteProblem, action: BlockAction, site: BlockSite, explicit: list[int], at: Values
) -> float:
    """Fields of a site at values of its labels; local fields that are disorder shift b and take from k."""
    b, diagonal, off = _field(problem, action, site, explicit, at)
    lam = action.multipliers.get(site.variable.population)
    own = diagonal - off[-1] if _fixed(site) is None or site.v.has(*site.variable.weight.labels) else 0.0
    own -= at[lam] if lam is not None else 0.0
    shift, spread = _taught(problem, action, site, explicit, at)
    direct = [b + shift, off[0] - spread, *np.diff(off), own, *explicit]
    named = [site.b, site.k, *(w for w, _ in site.levels), site.v, *(x for _, x in site.levels)]
    found = np.array([number(e, at).real for e in named])
    return relative(found, np.array(direct), 1e-3 + float(np.max(np.abs(direct))))


def _taught(
    problem: SiteProblem, action: BlockAction, site: BlockSite, sizes: list[int], at: Values
) -> tuple[float, float]:
    """(shift of b at the label's value, what k loses) by one local field v that is disorder: regression of u on v."""
    if len(site.given) != 1:
        return 0.0, 0.0
    (name, parts), replicated = site.given[0], action.problem.action
    assert isinstance(replicated, ReplicatedAction)
    (_, _, noise), *_ = replicated.site(site.variable.population).given

    def exponent(x0: float, x: float) -> float:
        return _exponent(problem, action, site, sizes, at, {0: x}, {name: x0})

    zero = exponent(0, 0)
    variance = exponent(1, 0) + exponent(-1, 0) - 2 * zero + number(noise, at).real
    cross = (exponent(1, 1) - exponent(1, -1) - exponent(-1, 1) + exponent(-1, -1)) / 4
    ((_, zeta, _),) = parts
    return cross / np.sqrt(variance) * at[zeta], cross**2 / variance


def _array(action: BlockAction, op: OrderParameter, copies: int, sizes: list[int], at: Values) -> Array:
    """An order parameter of explicit replicas: two have the overlap of the smallest block that they share."""
    fields = action.problem.action.fields
    single = {s for a, s in op.atoms if fields[a].single}
    shape = [1 if s in single else copies for s in range(op.slots)]
    hats = sum(fields[a].role == "hat" for a, _ in op.atoms)
    out = np.zeros(shape, complex)
    for where in product(*map(range, shape)):
        names = {s: -1 if s in single else where[s] for s in range(op.slots)}
        levels = action.values[orbit_of(op.population, tuple((a, names[s]) for a, s in op.atoms))]
        shared = sum(len({c // size for c in names.values()}) == 1 for size in sizes)
        out[where] = 1j**hats * complex(number(levels[min(shared, len(levels) - 1)], at))
    return out


def _terms(problem: SiteProblem, action: BlockAction, n: int, sizes: list[int], at: Values) -> float:
    total = 0j
    for term in problem.functional.terms:
        pieces = []
        for f in term.factors:
            slots = sorted({c for _, c in f.atoms})
            op = OrderParameter(f.population, tuple((a, slots.index(c)) for a, c in f.atoms))
            pieces.append((_array(action, op, n, sizes, at), tuple(slots)))
        total += (1 - len(term.factors)) * number(term.coef, at) * contract(pieces, term.kernels, n)
    return float(total.real)


def _field(
    problem: SiteProblem, action: BlockAction, site: BlockSite, sizes: list[int], at: Values
) -> tuple[float, float, list[float]]:
    """(b, K_aa, K_ab at every level) from the exponent of a site at unit vectors of its replicas."""

    def exponent(*where: int, sign: float = 1.0) -> float:
        return _exponent(problem, action, site, sizes, at, dict.fromkeys(where, sign), {})

    zero, one, minus = exponent(), exponent(0), exponent(0, sign=-1.0)
    off = [exponent(0, c) - exponent(0) - exponent(c) + zero for c in (*sizes, 1)]
    b, diagonal = (one - minus) / 2, one + minus - 2 * zero
    if site.variable.weight.prior:
        state, part = site.variable.weight.prior[0], site.variable.weight.exponent
        b += number(part.coeff(state, 1), at).real
        diagonal += 2 * number(part.coeff(state, 2), at).real
    return b, diagonal, off


def _exponent(
    problem: SiteProblem,
    action: BlockAction,
    site: BlockSite,
    sizes: list[int],
    at: Values,
    where: Mapping[int, float],
    given: Mapping[str, float],
) -> float:
    """The exponent of a site at values of its variable in some replicas, and of conjugates of disorder (times i)."""
    copies = 2 * sizes[0]
    arrays = {
        ref.op: _array(action, ref.op, copies, sizes, at)
        for term in problem.terms
        if term.population == site.variable.population
        for ref in term.refs
    }
    x = np.zeros(copies)
    x[list(where)] = list(where.values())
    chosen = _variables(action, site, x, at, given)
    return float(site_exponent(problem.terms, site.variable.population, chosen, arrays, at).real)


def _variables(
    action: BlockAction, site: BlockSite, x: Array, at: Values, given: Mapping[str, float]
) -> dict[str, Array]:
    """Values of everything at a site where its variable has the values x in the replicas."""
    fields = action.problem.action.fields
    state = fields[site.variable.name].symbol
    values: dict[str, Array] = {}
    for f in fields.values():
        if f.population.name != site.variable.population:
            continue
        if f.single and f.role == "hat":
            values[f.name] = np.array([1j * given.get(f.name, 0.0)])
        elif f.single:
            values[f.name] = np.array([complex(number(f.definition, at)) if f.definition is not None else 0j])
        elif f.role == "hat":
            values[f.name] = 1j * x
        elif f.role == "state":
            values[f.name] = x.astype(complex)
        elif f.role == "output":
            values[f.name] = np.array([number(f.definition, {**at, state: v}) for v in x])
    return values


def _fixed(site: BlockSite) -> Expr | None:
    prior = site.variable.weight.prior
    return fixed_norm(prior[1]) if prior else None


def _norm(problem: SiteProblem, action: BlockAction, site: BlockSite, sizes: list[int], at: Values) -> float:
    """What a fixed norm adds to the terms: f (K_aa − K_ab − V)·norm/2, of replicas that share all blocks."""
    norm, whole = _fixed(site), 0.0
    if norm is None:
        return 0.0
    for labels, probability in every_label(site, dict(at)):  # type: ignore[arg-type]
        here = {**at, **labels}
        _, diagonal, off = _field(problem, action, site, sizes, here)
        whole += probability * (diagonal - off[-1] - number(site.v, here).real)
    return number(site.variable.fraction, at).real * whole * float(norm) / 2


# -- stationarity ----------------------------------------------------------------------------------------------------
def functional(action: BlockAction, at: Values) -> float:
    """P per replica as n → 0: a sum over pairs by the levels that two replicas share."""
    sizes, total = [0.0, *(float(at[x]) for x in action.sizes), 1.0], 0j
    for term in action.problem.functional.terms:
        fields = action.problem.action.fields
        fixed = dict.fromkeys((c for f in term.factors for a, c in f.atoms if fields[a].single), -1)
        copies = sorted({c for f in term.factors for _, c in f.atoms} - set(fixed))
        if not copies:
            continue
        if len(copies) == 1:
            total += number(term.coef, at) * _product(action, term, dict.fromkeys(copies, 0) | fixed, 0, at)
            continue
        pairs = _product(action, term, dict.fromkeys(copies, 0) | fixed, 0, at)
        for level in range(len(action.sizes) + 1):
            apart = _product(action, term, dict(zip(copies, (0, 1), strict=True)) | fixed, level, at)
            pairs += (sizes[level] - sizes[level + 1]) * apart
        total += number(term.coef, at) * pairs
    return float(total.real)


def _product(action: BlockAction, term: Any, names: dict[int, int], level: int, at: Values) -> complex:
    """A term at two replicas that share a level, or at one."""
    fields, value = action.problem.action.fields, 1 + 0j
    for f in term.factors:
        levels = action.values[orbit_of(f.population, tuple((a, names[c]) for a, c in f.atoms))]
        hats = sum(fields[a].role == "hat" for a, _ in f.atoms)
        value *= 1j**hats * complex(number(levels[min(level, len(levels) - 1)], at))
    return value


def _second_slope(action: BlockAction, j: Symbol, k: Symbol, at: dict[Symbol, float]) -> float:
    """∂²P by differences at two steps."""

    def mixed(step: float) -> float:
        total = 0.0
        for a, b in product((1, -1), repeat=2):
            moved = dict(at)
            moved[j] += a * step
            moved[k] += b * step
            total += a * b * functional(action, moved)
        return total / (4 * step**2)

    return (4 * mixed(0.03) - mixed(0.06)) / 3


def block_equations_deviation(action: BlockAction, after: ReplicaState, values: Values, rng: Rng) -> float:
    """∂Φ by differences against what the equations leave, the slope in the sizes of blocks, and the norms.

    ∂Φ/∂q_j is ∂²P/∂q_j∂q_k times how far the right-hand side of q_k is from q_k. Where a multiplier fixes a norm, how
    far it is from its value counts, too.

    Raises
    ------
    NotCovered
        At zero temperature, where order parameters are scaled by powers of β.
    """
    if after.problem.cold:
        raise NotCovered("blocks are compared at finite temperature")
    at = place(action, values, rng)
    problem = ReplicaProblem(tuple(at), tuple(replica_site(s.variable) for s in action.sites), (), (), Mul(0), ())

    def value(expr: Expr, where: dict[Symbol, float]) -> float:
        ev = Evaluator(problem, dict(where), 1.0 if len(action.sizes) == 1 else 0.4)  # a grid of an axis a level
        ev.cache = {}
        return ev.number(expr, where)

    def slope(s: Symbol) -> float:
        step = 2e-3
        phi = [value(action.value, at | {s: at[s] + k * step}) for k in (-2, -1, 1, 2)]
        return (8 * (phi[2] - phi[1]) - (phi[3] - phi[0])) / (12 * step)

    left = {s: value(rhs, at) - at[s] for s, rhs in after.problem.equations}
    expected = {j: sum(_second_slope(action, j, k, at) * left[k] for k in left) for j in left}
    for lam, average, norm in after.problem.constraints:
        (population,) = (p for p, s in action.multipliers.items() if s == lam)
        site = next(s for s in action.sites if s.variable.population == population)
        excess = number(site.variable.fraction, at).real * (value(average, at) - float(norm)) / 2
        # where squares differ by label, fields keep what replicas have with themselves: only the multiplier is left
        kept = site.v.has(*site.variable.weight.labels)
        innermost = S.Zero if kept else site.k + Add(*(w for w, _ in site.levels))
        expected = {j: e + excess * number(innermost.diff(j), at).real for j, e in expected.items()} | {lam: -excess}
    seen = dict(after.problem.observables)
    pairs = [(value(seen["free_entropy"], at), value(action.value, at)), *_replicons(action, seen, at, value)]
    worst = max(relative(np.array(a), np.array(b), 1e-2 + abs(b)) for a, b in pairs)
    expected |= {x: value(seen[f"slope_{x}"], at) for x in action.sizes}
    found, direct = np.array([slope(s) for s in expected]), np.array(list(expected.values()))
    return max(worst, relative(found, direct, 1e-2 + float(np.max(np.abs(direct)))))


def _replicons(
    action: BlockAction,
    seen: dict[str, Expr],
    at: dict[Symbol, float],
    value: Callable[[Expr, dict[Symbol, float]], float],
) -> list[tuple[float, float]]:
    """1 − det(1 − 2 f″ E[L₂²]) in the innermost blocks, where P = Σ_ab f(Q_ab) of all kinds of pairs."""
    fields = action.problem.action.fields
    moving = [o for o in action.values if o.copies == 2 and not any(fields[a].single for a, _ in o.atoms)]
    inner = {orbit: action.values[orbit][-1] for orbit in moving}
    sites = {s.variable.population: s for s in action.sites}
    if len({o.population for o in inner}) < len(inner):
        return []  # several kinds of pairs at one site
    scale = {o: Mul(*(label_part(action, a) for a, _ in o.atoms)) for o in inner}  # type: ignore[arg-type]
    response = [value(sites[o.population].average("plain", 0, L[2] ** 2, scale[o] ** 2), at) for o in inner]
    share = [number(sites[o.population].variable.fraction, at).real for o in inner]
    within = float(at[action.sizes[-1]]) - 1
    second = np.array([[_second_slope(action, j, k, at) for k in inner.values()] for j in inner.values()]) / within
    matrix = 2 * second * np.array(response) / np.array(share)
    return [(value(seen["replicon"], at), 1 - float(np.linalg.det(np.eye(len(inner)) - matrix)))]
