"""Witnesses of the replicas reading: sums over states, explicit replicas, and limits, against the forms.

A site is summed by brute force: states on nodes of their prior, local fields on a grid that is split at the kinks of
their weight. Order parameters of n explicit replicas are arrays whose entries the ansatz names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, I, Mul, Symbol, lambdify

from quenched.numerics.quadrature import legendre, trapezoid
from quenched.numerics.replica import Evaluator
from quenched.numerics.replica_labels import make_site
from quenched.numerics.replica_parts import kinks
from quenched.theory.couplings import Apply, Transpose
from quenched.theory.fields import Field, unbind
from quenched.theory.gibbs import Gibbs
from quenched.theory.lower import CopiedAction
from quenched.theory.observables import Mean
from quenched.theory.problem_replicas import ReplicaProblem, X
from quenched.theory.replica_ansatz import NREP, Orbit, RSAction, SiteInField, orbit_of, replica_site
from quenched.theory.replica_limit import FreeEntropyForm, ReplicaState, RepliconForm, SaddleEquations
from quenched.theory.replica_lower import ReplicatedAction
from quenched.theory.saddle import OrderParameter, SiteProblem
from quenched.validate.generate import label
from quenched.validate.meaning import draw_parameters, number, relative
from quenched.validate.meaning_action import contract, laws_deviation
from quenched.validate.meaning_replicas import copies_free_entropy
from quenched.validate.meaning_site import site_exponent
from quenched.validate.spins import Instance

Array = NDArray[Any]
Rng = np.random.Generator
Values = Mapping[Symbol, float]

#: Panels of the grids of states and local fields, and their reach in standard deviations.
PANELS, REACH = 24, 9.0


# -- Zⁿ --------------------------------------------------------------------------------------------------------------
def replicate_deviation(model: Gibbs, action: ReplicatedAction, values: Values, rng: Rng) -> float:
    """The declared exponent on random states against uses and site weights, and the laws of all entries."""
    drawn = Instance(model, 6, int(rng.integers(1 << 30)), 0, values)
    _calm(drawn, action)
    worst = laws_deviation(model, action, values)  # type: ignore[arg-type]
    compared = 0
    for _ in range(60):
        states = {f: rng.standard_normal(n) for f, n in drawn.sizes.items()}
        declared = float(drawn.log_weight(states))
        through = _through_uses(drawn, action, states)
        if np.isfinite(declared) or np.isfinite(through):
            worst = max(worst, relative(np.array(through), np.array(declared), 1 + abs(declared)))
            compared += 1
    return worst if compared else float("inf")


def _calm(drawn: Instance, action: ReplicatedAction) -> None:
    """Labels that the action absorbs into local fields of a teacher take their means there."""
    kept = {q for site in action.sites for q in site.labels}
    for q in list(drawn.labels):
        if any(site.given for site in action.sites if site.population == q.population) and q not in kept:
            drawn.labels[q] = np.full_like(drawn.labels[q], drawn.numbers(q.law.mean_()))


def _through_uses(drawn: Instance, action: ReplicatedAction, states: Mapping[Field, Array]) -> float:
    numbers: dict[Any, Any] = {**drawn.values, **drawn.labels}
    numbers |= {action.fields[f.name].symbol: x for f, x in states.items()}
    for f in action.of_role("output"):
        numbers[f.symbol] = np.broadcast_to(_at(f.definition, numbers), (_size(drawn, f.population),))
    shifts = {name: mean for site in action.sites for name, mean, _ in site.given}
    total = 0.0
    for f in action.of_role("local"):
        numbers[f.symbol] = _at(shifts.get(f.name, 0), numbers) + np.zeros(_size(drawn, f.population))
    for use in action.uses:
        matrix = _matrix(drawn, action, use.coupling)
        (row, _), (col, _) = use.row[0], use.col[0]
        roles = [action.fields[a].role for a in (row, col)]
        size = complex(number(use.coef, drawn.values))
        if "hat" not in roles:
            total += size.real * float(numbers[action.fields[row].symbol] @ matrix @ numbers[action.fields[col].symbol])
            continue
        hat, other = (row, col) if roles[0] == "hat" else (col, row)
        map_ = matrix if roles[0] == "hat" else matrix.T
        local = action.fields[hat.removeprefix("hat_")].symbol
        numbers[local] = numbers[local] + (1j * size).real * (map_ @ numbers[action.fields[other].symbol])
    for site in action.sites:
        with np.errstate(divide="ignore"):
            weight = _at(site.exponent, numbers) + np.log(_at(site.factor, numbers))
        total += float(np.sum(np.broadcast_to(weight, (_size(drawn, site.population),))))
    return total


def _size(drawn: Instance, population: Any) -> int:
    return int(drawn.numbers.size(population)[1])


def _matrix(drawn: Instance, action: CopiedAction, name: str) -> Array:
    known = {m.name: drawn.matrices[label(m)] for m in drawn.model.matrices}
    if name in known:
        return known[name]
    law = next(law for law in action.laws if law.name == name)
    return np.full((_size(drawn, law.rows), _size(drawn, law.cols)), 1 / _size(drawn, law.cols))


def _at(expr: Any, numbers: Mapping[Any, Any]) -> Any:
    """An expression at numbers or arrays."""
    expr = Mul(expr)
    names = sorted((s for s in expr.free_symbols if s in numbers), key=str)
    return lambdify(names, expr, [{"Heaviside": lambda x, h=0.5: np.heaviside(x, h)}, "scipy", "numpy"])(
        *(numbers[s] for s in names)
    )


# -- random order parameters -------------------------------------------------------------------------------------------
def place(action: RSAction, values: Values, rng: Rng) -> dict[Symbol, float]:
    """Parameters, and order parameters at which every Gaussian field has a positive variance."""
    at = dict(values)
    spans = {(False, 1, 1): (0.2, 0.6), (False, 2, 2): (0.2, 0.5), (False, 2, 1): (0.9, 1.3)}
    spans |= {(True, 1, 1): (0.1, 0.3), (True, 2, 2): (0.5, 0.9), (True, 2, 1): (0.1, 0.3)}
    fields = action.problem.action.fields
    for orbit, value in action.values.items():
        if isinstance(value, Symbol):
            moving = [c for a, c in orbit.atoms if not fields[a].single]
            hat = any(fields[a].role == "hat" for a, _ in orbit.atoms if not fields[a].single)
            at[value] = float(rng.uniform(*spans.get((hat, len(moving), len(set(moving))), (0.2, 0.4))))
    for lam in action.multipliers.values():
        at[lam] = float(rng.uniform(1.2, 1.9))
    return at


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


# -- ansatz --------------------------------------------------------------------------------------------------------------
def ansatz_deviation(model: Gibbs, problem: SiteProblem, action: RSAction, values: Values, rng: Rng) -> float:
    """Three explicit replicas in the functional, two at every site by sums over their states.

    Where two replicas are not normalisable (at low temperatures E Z² may diverge), at larger parameters.
    """
    found = _ansatz_deviation(problem, action, values, np.random.default_rng(rng.integers(1 << 30)))
    for span in ((1.5, 3.0), (3.0, 6.0)):
        if np.isfinite(found):
            break
        values = draw_parameters(model, rng, span)  # type: ignore[arg-type]
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
    """f (V + λ)·norm/2 of a site of fixed norm, from the explicit replicas' fields."""
    from quenched.theory.priors import fixed_norm

    prior = site.variable.weight.prior
    norm = fixed_norm(prior[1]) if prior else None
    if norm is None:
        return 0.0
    _, diagonal, off = _explicit_field(action.problem, action, site, at, next(some_labels(site, at)))
    lam = action.multipliers.get(site.variable.population)
    fraction = number(site.variable.fraction, at).real
    return fraction * (diagonal - off + (at[lam] if lam is not None else 0.0)) * float(norm) / 2


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
    fields, own = action.problem.action.fields, site.variable
    numbers = {**at, **labels}
    ops = {ref.op for term in problem.terms for ref in term.refs}
    parameters = {op: parameter_array(action, op, 2, at) for op in ops}
    state = fields[own.name].symbol if own.kind == "state" else None

    def exponent(x: tuple[float, float]) -> float:
        values = {}
        for f in fields.values():
            if f.population.name != own.population:
                continue
            if f.single:
                inside = 0j if f.role == "hat" else complex(number(f.definition or 0, numbers)) if f.definition else 0j
                values[f.name] = np.array([inside])
            elif f.role == "hat":
                values[f.name] = 1j * np.array(x)
            elif f.role == "state":
                values[f.name] = np.array(x, complex)
            elif f.role == "output":
                values[f.name] = np.array([number(f.definition, {**numbers, state: v}) for v in x])
        return float(site_exponent(problem.terms, own.population, values, parameters, numbers).real)

    zero, one, both = exponent((0, 0)), exponent((1, 0)), exponent((1, 1))
    minus = exponent((-1, 0))
    b, diagonal = (one - minus) / 2, one + minus - 2 * zero
    off = both - 2 * one + zero
    if own.weight.prior:
        part = own.weight.exponent
        coefficient = [number(part.coeff(own.weight.prior[0], k), numbers).real for k in (1, 2)]
        b, diagonal = b + coefficient[0], diagonal + 2 * coefficient[1]
    return b, diagonal, off


def _site_deviation(problem: SiteProblem, action: RSAction, site: SiteInField, at: dict[Symbol, float]) -> float:
    if site.given:
        return 0.0
    worst = 0.0
    for labels in some_labels(site, at):
        b, diagonal, off = _explicit_field(problem, action, site, at, labels)
        direct = Direct(site, {**at, **labels})
        lam = action.multipliers.get(site.variable.population)
        fixed = site.variable.weight.prior is not None and not direct.free
        inside = -at[lam] + off if lam is not None else off if fixed else diagonal
        left = direct.two_replicas(b, inside, off)
        numbers = {**at, **labels}
        right = direct.decoupled(*(number(e, numbers).real for e in (site.b, site.k, site.v)))
        worst = max(worst, relative(np.array(right), np.array(left)))
    return worst


def some_labels(site: SiteInField, at: Values, most: int = 3) -> Iterator[dict[Symbol, float]]:
    """A few values of the labels of a site."""
    found = []
    for case in make_site(site.variable.measure, dict(at)).cases:
        count = max((np.size(a) for a in case.labels.values()), default=1)
        found += [{q: float(np.ravel(a)[k % np.size(a)]) for q, a in case.labels.items()} for k in range(count)]
    yield from found[:: max(1, len(found) // most)][:most]


@dataclass(frozen=True)
class Moments:
    """Z, and ⟨x⟩, ⟨x²⟩ of one replica at fields b (arrays)."""

    z: Array
    first: Array
    second: Array

    def power(self, p: int) -> Array:
        """⟨x^p⟩ for p up to 2."""
        return (np.ones_like(self.z), self.first, self.second)[p]


class Direct:
    """One site at given labels, summed by brute force."""

    def __init__(self, site: SiteInField, numbers: Mapping[Symbol, float]) -> None:
        from quenched.theory.priors import fixed_norm

        measure = replica_site(site.variable)
        prior = site.variable.weight.prior
        self.free = prior is None or fixed_norm(prior[1]) is None
        self.kind = measure.kind
        weights = [(p.value, p.weight.xreplace(dict(numbers))) for p in measure.pieces]
        edges = sorted({e for value, w in weights if value is None for e in kinks(w)})
        self.u, step = grid(edges)
        total = np.zeros_like(self.u)
        atoms, masses = [], []
        for value, weight in weights:
            if value is None:
                total = total + _at(weight, {X: self.u})
            else:
                atoms.append(float(value.xreplace(dict(numbers))))
                masses.append(float(weight))
        self.f = total
        self.x = np.concatenate([self.u if total.any() else [], atoms])
        self.mu = np.concatenate([total * step if total.any() else [], masses])
        self.step = step

    def _normal(self, b: Array, v: float) -> Array:
        return np.exp(-((self.u - b[..., None]) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v) * self.step

    def moments(self, b: Array, v: float) -> Moments:
        """Of one replica in fields b with V = v."""
        if self.kind == "state":
            w = self.mu * np.exp(b[..., None] * self.x + v * self.x**2 / 2)
            z = w.sum(-1)
            return Moments(z, w @ self.x / z, w @ self.x**2 / z)
        w, y = self._normal(b, v) * self.f, (self.u - b[..., None]) / v
        z = w.sum(-1)
        return Moments(z, (w * y).sum(-1) / z, (w * (y**2 - 1 / v)).sum(-1) / z)

    def decoupled(self, b: float, k: float, v: float) -> float:
        """E_z Z(b + √k z; v)²."""
        z, w = trapezoid(241)
        fields = b + np.sqrt(k) * z
        return float(w @ self.moments(fields, v).z ** 2 / w.sum())

    def two_replicas(self, b: float, diagonal: float, off: float) -> float:
        """Σ over both replicas of exp(b(x₁ + x₂) + ½K_aa(x₁² + x₂²) + K_ab x₁x₂); for local fields as Gaussians."""
        if self.kind == "state":
            w = self.mu * np.exp(b * self.x + diagonal * self.x**2 / 2)
            return float(w @ np.exp(off * np.outer(self.x, self.x)) @ w)
        rho = off / diagonal
        u = self.u - b
        form = (u[:, None] ** 2 + u[None, :] ** 2 - 2 * rho * np.outer(u, u)) / (2 * diagonal * (1 - rho**2))
        density = np.exp(-form) / (2 * np.pi * diagonal * np.sqrt(1 - rho**2))
        w = self.f * self.step
        inside = w[:, None] * density * w
        edge = np.abs(inside[[0, -1]]).max() + np.abs(inside[:, [0, -1]]).max()
        return float(inside.sum()) if edge < 1e-13 * inside.max() else float("nan")


def grid(edges: list[float]) -> tuple[Array, Array]:
    """Nodes and weights of a grid that is split at the given places."""
    corners = sorted({*np.linspace(-2 * REACH, 2 * REACH, 2 * PANELS + 1), *(e for e in edges if abs(e) < 2 * REACH)})
    x, w = legendre(10)
    nodes = [(a + b) / 2 + (b - a) / 2 * x for a, b in pairwise(corners)]
    return np.concatenate(nodes), np.concatenate([(b - a) / 2 * w for a, b in pairwise(corners)])


# -- n → 0 ---------------------------------------------------------------------------------------------------------------
def limit_deviation(action: RSAction, free: FreeEntropyForm, values: Values, rng: Rng) -> float:
    """Φ_n/n at three small n, extrapolated to n = 0."""
    at = place(action, values, rng)
    a, b, c = (copies_free_entropy(action, n, at) / n for n in (4e-3, 2e-3, 1e-3))
    limit = (a - 6 * b + 8 * c) / 3
    return relative(np.array(evaluator(action, at).number(free.value, at)), np.array(limit), 1 + abs(limit))


# -- stationarity ----------------------------------------------------------------------------------------------------------
def stationarity_deviation(free: FreeEntropyForm, after: SaddleEquations, values: Values, rng: Rng) -> float:
    """∂Φ by differences, and every order parameter by sums over states of replicas that are independent in a field."""
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
            worst = max(worst, relative(np.array(ev.number(rhs, at)), np.array(direct)))
    return worst


def orbit_average(action: RSAction, orbit: Orbit, at: dict[Symbol, float]) -> float | None:
    """An order parameter as n → 0: replicas are independent given the field of their site."""
    fields = action.problem.action.fields
    site = next((s for s in action.sites if s.variable.population == orbit.population), None)
    if site is None or any(fields[a].single and fields[a].role == "hat" for a, _ in orbit.atoms):
        return None
    powers = [sum(c == k and not fields[a].single for a, c in orbit.atoms) for k in range(orbit.copies)]
    state = fields[site.variable.name].symbol
    scale: Expr = Mul(1)
    for a, _ in orbit.atoms:
        f = fields[a]
        if f.single or f.role == "output":
            scale = scale * (f.definition if f.single else (f.definition / state).expand())
    return site_mean(site, at, scale, powers)


def site_mean(site: SiteInField, at: dict[Symbol, float], scale: Expr, powers: list[int]) -> float:
    """E over labels and the Gaussian field of scale · Π ⟨x^p⟩."""
    total = 0.0
    z, w = trapezoid(241)
    for labels, probability in every_label(site, at):
        numbers = {**at, **labels}
        direct = Direct(site, numbers)
        b, k, v = (number(e, numbers).real for e in (site.b, site.k, site.v))
        found = direct.moments(b + np.sqrt(k) * z, v)
        product_ = np.prod([found.power(p) for p in powers], axis=0)
        total += probability * number(scale, numbers).real * float(w @ product_ / w.sum())
    return total


def every_label(site: SiteInField, at: dict[Symbol, float]) -> Iterator[tuple[dict[Symbol, float], float]]:
    """Values of the labels with their probabilities."""
    for case in make_site(site.variable.measure, dict(at)).cases:
        count = max((np.size(a) for a in case.labels.values()), default=1)
        probability = np.broadcast_to(np.ravel(case.probability), (count,))
        for k in range(count):
            yield {q: float(np.ravel(a)[k % np.size(a)]) for q, a in case.labels.items()}, float(probability[k])


# -- stability -------------------------------------------------------------------------------------------------------------
def replicon_deviation(state: SaddleEquations, after: RepliconForm, values: Values, rng: Rng) -> float:
    """P″ by differences along a pattern of four replicas without row sums, times the projected covariance of a site."""
    action = state.free.action
    at = place(action, values, rng)
    ev = evaluator(action, at)
    size = range(len(after.pairs))
    if len(after.pairs) != len(
        {o for o in action.values if o.copies == 2 and len(o.atoms) == 2 and _moving(action, o)}
    ):
        return float("inf")
    sigma = [[_projected(action, after.pairs[k], after.pairs[j], at) for j in size] for k in size]
    second = [[_second_slope(action, after.pairs[i], after.pairs[k], at) for k in size] for i in size]
    found = np.array([[ev.number(e, at) for e in row] for row in after.matrix], float)
    direct = np.array(second) @ np.array(sigma)
    return relative(found, direct, 1e-3 + float(np.max(np.abs(direct), initial=0)))


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
    steps = 0.1

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

    mixed = (
        functional(steps, steps) - functional(steps, -steps) - functional(-steps, steps) + functional(-steps, -steps)
    )
    return mixed / (4 * steps**2) / float(np.sum(PATTERN**2) / 2)


def _moved(action: RSAction, op: OrderParameter, at: Values, moves: tuple[tuple[Orbit, float], ...]) -> Array:
    """An order parameter of four replicas, moved along the pattern where it is one of the given pairs."""
    out = parameter_array(action, op, 4, at)
    if out.shape != (4, 4):
        return out
    hats = sum(action.problem.action.fields[a].role == "hat" for a, _ in op.atoms)
    for orbit, size in (
        dict(moves).items() if len({o for o, _ in moves}) > 1 else [(moves[0][0], sum(s for _, s in moves))]
    ):
        if orbit.population == op.population and sorted(a for a, _ in orbit.atoms) == sorted(a for a, _ in op.atoms):
            out = out + 1j**hats * size * PATTERN
    return out


# -- observables -----------------------------------------------------------------------------------------------------------
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
            if name + tag not in taken:
                out[name + tag] = site_mean(s, at, Mul(1), powers)
    beta = sorted(model.beta.free_symbols, key=str)
    if len(beta) == 1 and beta[0] in at:
        out |= _thermodynamics(model, free, ev, at, beta[0], states)
    for name, expr in model.observables.items():
        found = _declared(expr, action, at)
        if found is not None:
            out[f"_declared {name}"] = found
    return out


def _thermodynamics(
    model: Gibbs, free: Expr, ev: Evaluator, at: dict[Symbol, float], scale: Symbol, states: list[SiteInField]
) -> dict[str, float]:
    """−∂Φ/∂β, and Φ + ln(number of states) + βe."""
    step = 1e-3 * abs(at[scale])

    def phi(k: int) -> float:
        return evaluator_at(ev, at | {scale: at[scale] + k * step}, free)

    slope = (8 * (phi(1) - phi(-1)) - (phi(2) - phi(-2))) / (12 * step)
    energy = -slope / number(model.beta.diff(scale), at).real
    counts = [len(model.priors[f].weights()) for f in model.fields]
    out = {"energy": energy}
    if all(counts) and not model.weights:
        fractions = [number(s.variable.fraction, at).real for s in states]
        count = sum(f * np.log(c) for f, c in zip(fractions, counts, strict=True))
        out["entropy"] = phi(0) + count + number(model.beta, at).real * energy
    return out


def evaluator_at(ev: Evaluator, at: dict[Symbol, float], expr: Expr) -> float:
    """An expression where parameters of the sites differ, too."""
    fresh = Evaluator(ev.problem, at)
    fresh.cache = {}
    return fresh.number(expr, at)


def _declared(expr: Expr, action: RSAction, at: dict[Symbol, float]) -> float | None:
    """An observable of products of moments by sums over states; None for others."""
    means = sorted(expr.atoms(Mean), key=str)
    found = [_mean(node, action, at) for node in means]
    if any(f is None for f in found) or not means or expr.xreplace(dict.fromkeys(means, Mul(0))).free_symbols - set(at):
        return None
    swapped = expr.xreplace({n: Mul(f) for n, f in zip(means, found, strict=True)})
    return number(swapped, at).real if swapped.is_number or swapped.free_symbols <= set(at) else None


def _mean(node: Mean, action: RSAction, at: dict[Symbol, float]) -> float | None:
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
        total += site_mean(site, at, scale, list(powers.values()))
    return total


__all__ = [
    "I",
    "ansatz_deviation",
    "limit_deviation",
    "observables_deviation",
    "replicate_deviation",
    "replicon_deviation",
    "stationarity_deviation",
]
