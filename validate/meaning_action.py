"""Meanings of the forms before the saddle: declaration, copied action, averaged exponent, order parameters.

The average over the couplings is done entry by entry: the covariance matrix of all entries is built from the declared
matrices, and ln E e^X of the Gaussian X is its mean plus half its variance. Diagrams do not occur.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, permutations, product
from typing import Any

import numpy as np
from sympy import Basic, Expr, Heaviside

from quenched.theory.algebra import Outer
from quenched.theory.average import Functional
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Gaussian, Iid
from quenched.theory.landscape import Landscape
from quenched.theory.laws import FunctionLaw
from quenched.theory.lower import Bond, CopiedAction, Use
from quenched.theory.model import Model
from quenched.theory.plastic import IntegratedAction
from quenched.theory.saddle import OrderParameter
from quenched.theory.spaces import N, Population, t
from quenched.theory.terms import PAST, Atom, Factor
from quenched.validate.meaning import SIZE, Array, Values, World, evaluate, number, relative
from quenched.validate.meaning_products import Instances, copies_in, functional_value, site_weights, tensor, term_value


# ------------------------------------------------------------------------------------------------------- copied action
def action_rates(action: CopiedAction, world: World) -> dict[str, Array]:
    """Right-hand sides through the action: local fields from the uses, then the site equations.

    The exponent is i ĥ_i h_i + Σ uses; it is stationary in ĥ_i where h_i = i Σ coef Σ_j J_ij ψ_j.
    """
    numbers: dict[Basic, Array] = dict(world.numbers)
    pending = {f.name: f for f in action.fields.values() if f.role in ("output", "local")}
    while pending:
        ready = [name for name, f in pending.items() if _known(action, f.name, numbers)]
        if not ready:
            raise ValueError(f"the fields {sorted(pending)} depend on each other at one time")
        for name in ready:
            field = pending.pop(name)
            numbers[field.symbol] = _site_values(action, name, numbers, world)
    rhs = {}
    starts = [(f"{name}(0)", name, start) for name, start in action.starts]
    for key, name, expr in [*((name, name, rhs) for name, rhs in action.equations), *starts]:
        sites = world.sites[action.fields[name].population]
        rhs[key] = np.broadcast_to(np.asarray(evaluate(expr, {**world.values, **numbers}), dtype=float), (sites,))
    return rhs


def _known(action: CopiedAction, name: str, numbers: Mapping[Basic, Array]) -> bool:
    field = action.fields[name]
    if field.definition is not None:
        locals_ = {f.symbol for f in action.of_role("local")}
        return all(s in numbers for s in field.definition.free_symbols & locals_)
    ends = [atom for use in _uses_of(action, name) for atom in (*use.row, *use.col) if atom[0] != "hat_" + name]
    return all(action.fields[a].symbol in numbers for a, _ in ends)


def _uses_of(action: CopiedAction, local: str) -> list[Use]:
    hat = "hat_" + local
    return [u for u in action.uses if hat in {a for a, _ in (*u.row, *u.col)}]


def _site_values(action: CopiedAction, name: str, numbers: Mapping[Basic, Array], world: World) -> Array:
    field = action.fields[name]
    sites = world.sites[field.population]
    if field.definition is not None:
        found = evaluate(field.definition, {**world.values, **numbers})
        return np.broadcast_to(np.asarray(found, dtype=float), (sites,))
    total = np.zeros(sites, dtype=complex)
    for use in _uses_of(action, name):
        hat_in_row = "hat_" + name in {a for a, _ in use.row}
        own, other = (use.row, use.col) if hat_in_row else (use.col, use.row)
        matrix = _matrix(action, use.coupling, world)
        matrix = matrix if hat_in_row else matrix.T
        psi = np.prod([numbers[action.fields[a].symbol] for a, _ in other], axis=0)
        mine = np.prod(
            [np.ones(sites)] + [numbers[action.fields[a].symbol] for a, _ in own if a != "hat_" + name], axis=0
        )
        total += 1j * number(use.coef, world.values) * mine * np.array([sum(row * psi) for row in matrix])
    return total.real if np.abs(total.imag).max(initial=0) < 1e-12 else total


def _matrix(action: CopiedAction, name: str, world: World) -> Array:
    """Entries of a coupling; a population mean is the matrix whose entries are one over the population's size."""
    if name in world.couplings:
        return world.couplings[name]
    law = next(law for law in action.laws if law.name == name)
    return np.full((world.sites[law.rows], world.sites[law.cols]), 1 / world.sites[law.cols])


def lowering_deviation(model: Model, action: CopiedAction, values: Values, rng: np.random.Generator) -> float:
    """Declared right-hand sides by explicit loops against the same through the action."""
    sites = {p: 3 + k for k, p in enumerate(model.populations)}
    world = World(model, values, sites, rng)
    if set(world.couplings) - {law.name for law in action.laws} - {bond.name for bond in action.bonds}:
        return float("inf")
    through = action_rates(action, world)
    declared = [world.evaluate(e, f.population) for part in (model.eqs, model.starts) for f, e in part.items()]
    if len(declared) != len(through):
        return float("inf")
    rates = max(relative(a, b) for a, b in zip(declared, through.values(), strict=True))
    return max(rates, laws_deviation(model, action, values), bonds_deviation(action, world))


def bonds_deviation(action: CopiedAction, world: World) -> float:
    """Declared rates of all dynamic couplings, word by word at every entry, against rate·A_ij + Σ coef·u_i v_j."""
    if {bond.name for bond in world.model.bonds} != {bond.name for bond in action.bonds}:
        return float("inf")
    worst = 0.0
    outputs = {f.name: f for f in action.of_role("output")}
    for bond, (declared, rhs) in zip(action.bonds, world.model.bonds.items(), strict=True):
        first = np.zeros_like(world.couplings[declared.name])
        for coefficient, word in rhs.terms:
            first = first + number(coefficient, world.values).real * _word(word, world)
        second = number(bond.rate, world.values).real * world.couplings[bond.name]
        for coef, u, v in bond.drives:
            left, right = (_at_sites(outputs[a].definition, outputs[a].population, world) for a in (u, v))
            second = second + number(coef, world.values).real * np.outer(left, right)
        worst = max(worst, relative(first, second))
    return worst


def _word(word: tuple[Any, ...], world: World) -> Array:
    (factor,) = word
    if isinstance(factor, Outer):
        return np.outer(world.evaluate(factor.left, factor.rows), world.evaluate(factor.right, factor.cols))
    return world.couplings[factor.name]


def _at_sites(body: Expr | None, population: Population, world: World) -> Array:
    assert body is not None
    return world.evaluate(body, population)


def integration_deviation(
    before: CopiedAction, after: IntegratedAction, values: Values, rng: np.random.Generator
) -> float:
    """The exponent with explicit matrices at every copy against the same with dynamic couplings integrated out.

    Copies are times at which bonds are driven; in between the equation of a bond is followed as it stands.
    """
    sites, copies = 3, 3
    values = {**values, N: SIZE}
    fields = random_instances(before, sites, copies, rng)
    names = {law.name for law in before.laws}
    static = {name: rng.normal(size=(sites, sites)) for name in sorted(names)}
    times = witness_times(before, values, copies)
    bonds = {bond.name: _history(bond, fields, values, before.clock, times) for bond in before.bonds}
    whole = lambda form, known: sum(  # noqa: E731
        (_exponent(use, fields, known, values, copies) for use in form.uses if use.coupling in known), 0j
    )
    first = whole(before, static) + whole(before, bonds)
    weights = site_weights(before, values, sites)
    kernels = {PAST + m.name: kernel_table(m.rate, m.factor, values, before.clock, times) for m in after.memories}
    terms = sum((term_value(term, fields, weights, values, copies, kernels) for term in after.terms), 0j)
    left = [use for use in after.uses if use.coupling not in names]
    return float("inf") if left else relative(first, whole(after, static) + SIZE * terms, abs(first) + SIZE)


def witness_times(action: CopiedAction, values: Values, copies: int) -> Array:
    """Times at which bonds are looked at: on both sides of a switch if their equations have one."""
    exprs = [e for bond in action.bonds for e in (bond.rate, *(coef for coef, _, _ in bond.drives))]
    switches = [h.args[0] for e in exprs for h in e.atoms(Heaviside) if h.has(t)]
    if not switches:
        return np.arange(float(copies))
    at = min(abs(number(argument.subs(t, 0) / -argument.diff(t), values).real) for argument in switches)
    if action.clock == "map":
        return np.arange(float(copies)) + max(np.ceil(at) - 1, 0)
    return np.asarray(at * (0.4 + 0.9 * np.arange(copies)))


def rate_between(rate: Expr, values: Values, start: float, stop: float) -> float:
    """∫ rate from one time to a later one, on panels that a switch may cut."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(start, stop, 33)
    half = np.diff(edges) / 2
    at = edges[:-1, None] + half[:, None] * (1 + nodes)
    found = np.array([number(rate, {**values, t: float(u)}).real for u in at.ravel()]).reshape(at.shape)
    return float((found @ weights) @ half)


def kernel_table(rate: Expr, factor: Expr, values: Values, clock: str, times: Array) -> Array:
    """factor(s)·exp(∫_s^t rate) of a flow, factor(m)·Π_{m<l<n} rate(l) of a map, 0 unless s < t."""
    at = lambda e, n: number(e, {**values, t: float(times[n])}).real  # noqa: E731
    out = np.zeros((len(times), len(times)))
    gaps = [rate_between(rate, values, a, b) for a, b in pairwise(times)] if clock == "flow" else []
    for n in range(len(times)):
        for m in range(n):
            kept = np.exp(sum(gaps[m:n])) if clock == "flow" else np.prod([at(rate, k) for k in range(m + 1, n)])
            out[n, m] = at(factor, m) * kept
    return out


def _history(bond: Bond, fields: Instances, values: Values, clock: str, times: Array) -> list[Array]:
    """A_ij at every copy, one step after the other: what is left of it, plus what its units add."""
    matrix = np.zeros((len(next(iter(fields.values()))),) * 2, dtype=complex)
    out = [matrix]
    for m, (now, then) in enumerate(pairwise(times)):
        here = {**values, t: float(now)}
        kick = sum(number(coef, here) * np.outer(fields[u][:, m], fields[v][:, m]) for coef, u, v in bond.drives)
        if clock == "flow":
            matrix = np.exp(rate_between(bond.rate, values, now, then)) * (matrix + kick)
        else:
            matrix = number(bond.rate, here) * matrix + kick
        out.append(matrix)
    return out


def _exponent(use: Use, fields: Instances, known: Mapping[str, Any], values: Values, copies: int) -> complex:
    """coef Σ_c Σ_ij row_i(c) J_ij(c) col_j(c) with explicit matrices."""
    total, matrix = 0j, known[use.coupling]
    for c in range(copies):
        row = np.prod([fields[a][:, c] for a, _ in use.row], axis=0)
        col = np.prod([fields[a][:, c] for a, _ in use.col], axis=0)
        total += complex(row @ (matrix[c] if isinstance(matrix, list) else matrix) @ col)
    return number(use.coef, values) * total


# ------------------------------------------------------------------------------------------------------- exact average
def random_instances(action: CopiedAction, sites: int, copies: int, rng: np.random.Generator) -> Instances:
    """Independent complex numbers for every conjugate field and output at every site and copy."""
    fields = [f for f in action.fields.values() if f.role in ("hat", "output")]
    fields += [f for f in action.fields.values() if f.role == "state"]  # couplings may read a state as it stands
    shapes = {f.name: (sites, 1 if f.single else copies) for f in fields}  # disorder has one copy for all replicas
    return {a: rng.normal(size=shape) + 1j * rng.normal(size=shape) for a, shape in shapes.items()}


class Entries:
    """The joint Gaussian law of all entries of the declared matrices at a few sites.

    Parameters
    ----------
    model : the declaration
    values : numbers of the parameters (with `N`)
    sites : sites per population
    copies : copies; matrices that are redrawn have their own entries at each
    """

    def __init__(self, model: Model, values: Values, sites: int, copies: int) -> None:
        self.values = values
        random = [m for m in model.matrices if not isinstance(m, Circulant)]
        self.scale = {m.name: SIZE if m.cols.extensive else 1.0 for m in random}
        self.variance = {m.name: self._number(self._declared_variance(m)) / self.scale[m.name] for m in random}
        self.symmetry = {m.name: self._number(getattr(m, "symmetry", 0)) for m in random}
        self.correlation = {
            pair: self._number(rho)
            for m in random
            for other, rho in getattr(m, "correlation", {}).items()
            for pair in ((m.name, other.name), (other.name, m.name))
        }
        self.index = [
            (m, i, j, c)
            for m in random
            for c in (range(copies) if m.redraw else (0,))
            for i, j in product(range(sites), repeat=2)
        ]
        self.place = {(m.name, i, j, c): k for k, (m, i, j, c) in enumerate(self.index)}
        size = len(self.index)
        means = {m.name: self._mean(m) for m in random}
        self.mean = np.array([means[m.name] for m, *_ in self.index])
        self.covariance = np.zeros((size, size))
        for a, b in product(range(size), repeat=2):
            self.covariance[a, b] = self._covariance(self.index[a], self.index[b])

    def _number(self, expr: Any) -> float:
        return number(expr, self.values).real

    def _mean(self, m: Gaussian | Iid) -> float:
        if isinstance(m, Gaussian):
            return self._number(m.mean) / self.scale[m.name]
        return self._number(m.law.mean_()) / self.scale[m.name] ** 0.5

    def _declared_variance(self, m: Gaussian | Iid) -> Expr:
        return m.variance if isinstance(m, Gaussian) else m.law.variance_()

    def _covariance(self, one: tuple[Any, int, int, int], two: tuple[Any, int, int, int]) -> float:
        (a, i, j, c), (b, k, l, d) = one, two
        if c != d:
            return 0.0
        if a == b:
            return self.variance[a.name] * ((i == k and j == l) + self.symmetry[a.name] * (i == l and j == k))
        rho = self.correlation.get((a.name, b.name), 0.0) if (i, j) == (k, l) else 0.0
        return rho * (self.variance[a.name] * self.variance[b.name]) ** 0.5

    def log_average(self, weights: Array) -> complex:
        """ln E exp(Σ weights · entries)."""
        return complex(weights @ self.mean + weights @ self.covariance @ weights / 2)


def exact_exponent(
    model: Model, action: CopiedAction, fields: Instances, values: Values, sites: int, copies: int
) -> complex:
    """ln E exp(Σ_uses coef Σ_c Σ_ij row_i(c) J_ij col_j(c)), entry by entry."""
    entries = Entries(model, values, sites, copies)
    weights = np.zeros(len(entries.index), dtype=complex)
    certain = 0j
    fractions = {law.name: number(law.cols.fraction, values) for law in action.laws if law.cols.extensive}
    redrawn = {m.name: bool(m.redraw) for m in model.matrices}
    landscapes = {v.name: v for v in getattr(model, "landscapes", {})}
    for v in landscapes.values():
        certain += function_exponent(model, action, v, fields, values) / 2
    for use in action.uses:
        if use.coupling in landscapes:
            continue
        coef = number(use.coef, values)
        ends = [fields[a] for a, _ in (*use.row, *use.col)]
        for c in range(max(f.shape[1] for f in ends)):
            row = np.prod([fields[a][:, c % fields[a].shape[1]] for a, _ in use.row], axis=0)
            col = np.prod([fields[a][:, c % fields[a].shape[1]] for a, _ in use.col], axis=0)
            if use.coupling not in redrawn:  # the population mean: a certain matrix
                certain += coef * row.sum() * col.sum() / (SIZE * fractions[use.coupling])
                continue
            for i, j in product(range(sites), repeat=2):
                weights[entries.place[use.coupling, i, j, c if redrawn[use.coupling] else 0]] += coef * row[i] * col[j]
    weights_of = site_weights(action, values, sites)
    for term in action.terms:  # what integrated bonds left is certain as well
        certain += SIZE * term_value(term, fields, weights_of, values, copies)
    return certain + entries.log_average(weights)


def function_exponent(
    model: Model, action: CopiedAction, landscape: Landscape, fields: Instances, values: Values
) -> complex:
    """Variance of Σ_uses coef Σ_c V(s_c), coupling by coupling of the polynomial that is drawn."""
    sizes = _degrees(model, landscape, values)
    uses = [(number(u.coef, values), fields[u.row[0][0]]) for u in action.uses if u.coupling == landscape.name]
    total = 0j
    for p, sigma in sizes:
        for at in product(range(len(uses[0][1])), repeat=p):
            total += sigma**2 * sum(c * np.prod(f[list(at)], axis=0).sum() for c, f in uses) ** 2
    return complex(total)


def _degrees(model: Model, landscape: Landscape, values: Values) -> tuple[tuple[int, float], ...]:
    """Standard deviations of the couplings of every degree, for a population of its declared size."""
    population = model.landscapes[landscape]  # type: ignore[attr-defined]
    size = number(population.count, values).real
    return tuple((p, (SIZE * number(c, values).real / size**p) ** 0.5) for p, c in landscape.powers)


def function_deviation(model: Model, law: FunctionLaw, values: Values) -> float:
    """The covariance of a random function at two states of 3 sites: summed over couplings, and by its powers."""
    landscape = next(v for v in model.landscapes if v.name == law.name)  # type: ignore[attr-defined]
    rng = np.random.default_rng(3)
    one, two = rng.standard_normal((2, 3))
    found = 0.0
    for p, sigma in _degrees(model, landscape, values):
        for at in product(range(3), repeat=p):
            found += sigma**2 * float(np.prod(one[list(at)]) * np.prod(two[list(at)]))
    size = number(law.rows.count, values).real
    stated = sum(SIZE * number(c, values).real * (one @ two / size) ** p for p, c in law.powers)
    return relative(np.array(stated), np.array(found))


def average_deviation(
    model: Model, action: CopiedAction, functional: Functional, values: Values, rng: np.random.Generator
) -> float:
    """Exact average over the entries at 3 sites and 2 copies against products of site sums."""
    sites, copies = 3, 2
    values = {**values, N: SIZE}
    fields = random_instances(action, sites, copies, rng)
    exact = exact_exponent(model, action, fields, values, sites, copies)
    weights = site_weights(action, values, sites)
    found, scale = functional_value(functional, fields, weights, values, copies)
    return relative(SIZE * found, exact, SIZE * scale)


def laws_deviation(model: Model, action: CopiedAction, values: Values) -> float:
    """Means and covariances of all entries at 3 sites: summed over the places of each diagram, against the declared."""
    sites, copies = 3, 2
    values = {**values, N: SIZE}
    entries = Entries(model, values, sites, copies)
    redrawn = {m.name: bool(m.redraw) for m in model.matrices}
    mean, covariance = np.zeros_like(entries.mean), np.zeros_like(entries.covariance)
    worst = 0.0
    for law in action.laws:
        if isinstance(law, FunctionLaw):
            worst = max(worst, function_deviation(model, law, values))
            continue
        if law.name not in redrawn and len(law.diagrams) != 1:
            return float("inf")
        for diagram in law.diagrams:
            size = number(diagram.weight * N**diagram.power, values).real
            if law.name not in redrawn:
                fraction = number(law.cols.fraction, values).real
                worst = max(worst, relative(size * SIZE * fraction, 1.0))
                continue
            if any(name not in redrawn for name, _, _ in diagram.edges) or len(diagram.edges) > 2:
                return float("inf")
            for at in product(range(sites), repeat=1 + max(max(row, col) for _, row, col in diagram.edges)):
                for c in range(copies if redrawn[law.name] else 1):
                    cells = [entries.place[name, at[row], at[col], c] for name, row, col in diagram.edges]
                    if len(cells) == 1:
                        mean[cells[0]] += size
                    elif diagram.edges[0][0] == diagram.edges[1][0]:
                        covariance[cells[0], cells[1]] += size
                    else:
                        covariance[cells[0], cells[1]] += size
                        covariance[cells[1], cells[0]] += size
    return max(worst, relative(mean, entries.mean), relative(covariance, entries.covariance))


# ---------------------------------------------------------------------------------------------------- order parameters
def naming_deviation(
    functional: Functional, parameters: tuple[OrderParameter, ...], values: Values, rng: np.random.Generator
) -> float:
    """Each factor of each term against the best matching order parameter, over all assignments of its slots."""
    sites, copies = 3, 2
    fields = random_instances(functional.action, sites, copies, rng)
    weight = np.full(sites, 1 / sites)
    table = [(op, tensor(op.atoms, copies_in(op.atoms), fields, weight)) for op in parameters]
    factors = {f for term in functional.terms for f in term.factors}
    return max((_distance(f, table, fields, weight) for f in sorted(factors, key=repr)), default=0.0)


def _distance(factor: Factor, table: list[tuple[OrderParameter, Array]], fields: Instances, weight: Array) -> float:
    value = tensor(factor.atoms, copies_in(factor.atoms), fields, weight)
    names = _names(factor.atoms)
    candidates = [
        relative(np.transpose(array, axes), value)
        for op, array in table
        if op.population == factor.population and array.ndim == value.ndim and _names(op.atoms) == names
        for axes in permutations(range(array.ndim))
    ]
    return min(candidates, default=float("inf"))


def _names(atoms: tuple[Atom, ...]) -> list[str]:
    return sorted(name for name, _ in atoms)


def fractions_of(populations: tuple[Population, ...], values: Values) -> dict[str, float]:
    """Fractions of the extensive populations as numbers."""
    return {p.name: number(p.fraction, values).real for p in populations if p.extensive}
