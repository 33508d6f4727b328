"""Meanings of the stability of two copies: the averaged exponent of explicit copies, and responses of explicit sites.

P'' is a second difference of the averaged exponent of two copies in what connects them. Σ is built of what each reading
can compute without it: derivatives of the site equations, sums over states, the doubled equation of a resolvent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from sympy import Basic, Expr, Symbol

from quenched.theory.average import Functional
from quenched.theory.copy_stability import CopyStability, SharedQuadraticAction, SharedSite
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched, WhiteNoise
from quenched.theory.fluctuations import SAME, Mode
from quenched.theory.linearise import Pencil
from quenched.theory.lower import CopiedAction, SiteField
from quenched.theory.naming import unit_name
from quenched.theory.problem import DS, DT
from quenched.theory.problem_dyson import ZBAR, DysonProblem, Z
from quenched.theory.replica_limit import RepliconForm
from quenched.theory.shared_sites import GaussianSite, ReplicaSite, ResolventSite, SampledSite
from quenched.theory.spaces import N, t
from quenched.theory.terms import Factor
from quenched.validate.meaning import SIZE, Array, Values, evaluate, number, relative
from quenched.validate.meaning_products import contract
from quenched.validate.meaning_replica_place import place
from quenched.validate.meaning_replica_state import replicon_deviation
from quenched.validate.meaning_resolvent import Labelled, scalars_at, upper_slopes
from quenched.validate.meaning_units import numeric_unit, quenched_of
from quenched.validate.witness_types import Scene
from quenched.validate.witnesses_routes import Instance, laws_deviation

_STEP = 1e-3


# ---------------------------------------------------------------------------------------------------------- the pencil
def pencil_deviation(before: Pencil, after: CopiedAction, scene: Scene) -> float:
    """i ŷᵀ L y of explicit atoms at 3 sites, block by block, against the sum of the uses."""
    rng, sites = scene.rng(), 3
    values: Values = {**scene.values, N: SIZE, Z: 1.3 + 0.4j, ZBAR: 1.3 - 0.4j}
    atoms = {o.atom.name: rng.normal(size=(sites, sites)) for o in before.occurrences}
    inside = {
        q for o in before.occurrences for e in (o.left, o.right) for q in e.free_symbols if isinstance(q, Quenched)
    }
    labels = {q: rng.normal(size=sites) for q in sorted(inside, key=str)}
    base: dict[Any, Array] = {}
    for b in range(len(before.blocks)):
        for letter in ("y", r"\hat{y}"):
            base[Symbol(f"{letter}_{b}")] = rng.normal(size=sites)

    def vector(expr: Any) -> Array:
        at = [{**values, **{k: v[i] for k, v in (base | labels).items()}} for i in range(sites)]
        return np.array([number(expr, numbers) for numbers in at])

    def end(name: str) -> Array:
        f = after.fields[name]
        return vector(f.symbol if f.definition is None else f.definition)

    exact, found = [], []
    for name, atom in atoms.items():
        exact.append(
            sum(
                1j
                * number(o.coefficient, values)
                * (base[Symbol(rf"\hat{{y}}_{o.row}")] * vector(o.left))
                @ (atom.T if o.transposed else atom)
                @ (vector(o.right) * base[Symbol(f"y_{o.col}")])
                for o in before.occurrences
                if o.atom.name == name
            )
        )
        uses = [u for u in after.uses if u.coupling == name]
        found.append(sum(number(u.coef, values) * end(u.row[0][0]) @ atom @ end(u.col[0][0]) for u in uses))
    return max(relative(found, exact), laws_deviation(after, Instance.draw(scene.model, scene, 8)))


# ------------------------------------------------------------------------------------------------- the quadratic action
def expansion_deviation(before: Functional, after: SharedQuadraticAction, scene: Scene) -> float:
    """Second differences of the averaged exponent of two copies, whose averages are explicit matrices."""
    site, rng = after.site, scene.rng()
    values: Values = {**scene.values, N: SIZE, SAME: 1.0}
    if isinstance(site, ReplicaSite):
        values = {**place(site.action, values, rng), **values}
    known: dict[Any, complex] = {}

    def exponent(moves: Mapping[Mode, float]) -> complex:
        total = 0j
        for term in before.terms:
            pieces = [_average(f, before.action.fields, site, values, known, moves, rng) for f in term.factors]
            total += number(term.coef * N**term.power, values) * contract(pieces, (), 2)
        return total

    def slope(a: Mode, b: Mode) -> complex:
        def at(i: float, j: float) -> complex:
            moves = {a: i * _STEP}
            moves[b] = moves.get(b, 0.0) + j * _STEP
            return exponent(moves)

        return (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / (4 * _STEP**2)

    expected = {m for term in before.terms for f in term.factors for m in _modes(f, before.action.fields)}
    if not set(after.modes) <= expected:
        return float("inf")
    exponent({})  # draws what every average is, in a fixed order
    modes = sorted(expected, key=lambda m: (m.population, m.first, m.second))
    found = np.zeros((len(modes), len(modes)), complex)
    for i, a in enumerate(after.modes):
        for j, b in enumerate(after.modes):
            found[modes.index(a), modes.index(b)] = number(after.hessian[i, j], values)
    return relative(found, [[slope(a, b) for b in modes] for a in modes])


def _modes(factor: Factor, fields: Mapping[str, SiteField]) -> list[Mode]:
    """The averages between copies that a factor contains."""
    if (
        len(factor.atoms) != 2
        or len({c for _, c in factor.atoms}) != 2
        or any(fields[a].single for a, _ in factor.atoms)
    ):
        return []
    (a, _), (b, _) = factor.atoms
    return [Mode(factor.population, a, b), Mode(factor.population, b, a)]


def _average(
    factor: Factor,
    fields: Mapping[str, SiteField],
    site: SharedSite,
    values: Values,
    known: dict[Any, complex],
    moves: Mapping[Mode, float],
    rng: np.random.Generator,
) -> tuple[Array, tuple[int, ...]]:
    """⟨Π fields⟩ of every pair of copies: any number within a copy, the overlap (moved) between them."""
    copies = tuple(sorted({c for _, c in factor.atoms}))
    held = {c for a, c in factor.atoms if fields[a].single}
    shape = tuple(1 if c in held else 2 for c in copies)
    between = _modes(factor, fields)
    names = (factor.population, tuple(sorted(a for a, _ in factor.atoms)))
    if names not in known:
        known[names] = complex(*rng.normal(size=2))
    out = np.full(shape, known[names])
    if between:
        first = {c: a for a, c in factor.atoms}
        for at in ((0, 1), (1, 0)):
            here = dict(zip(at, (first[c] for c in copies), strict=True))
            mode = Mode(factor.population, here[0], here[1])
            if mode not in known:
                known[mode] = _overlap(factor, site, values, rng)
            out[at] = known[mode] + moves.get(mode, 0.0)
    return out, copies


def _overlap(factor: Factor, site: SharedSite, values: Values, rng: np.random.Generator) -> complex:
    try:
        return number(site.overlap(factor), values)
    except NotCovered:
        return complex(*rng.normal(size=2))


# ----------------------------------------------------------------------------------------------------------------- P''Σ
def stability_deviation(
    before: SharedQuadraticAction, after: CopyStability, scene: Scene, doubled: DysonProblem | None
) -> float | None:
    """P''Σ against the numbers of its reading; of a spectrum, against its doubled equation."""
    match after.site:
        case ReplicaSite():
            return _replicas(after, scene)
        case ResolventSite():
            return _spectrum(after, scene, doubled)
    return _units(before, after, scene.values, scene.rng())


def _units(q: SharedQuadraticAction, after: CopyStability, values: Values, rng: np.random.Generator) -> float:
    """Derivatives of site equations and outputs, at one random point of each copy, and random complex rates."""
    given = {x: rng.normal() for x in (*quenched_of(q.action), *_noises(q.action))}
    numbers = {**values, N: SIZE, SAME: 1.0, t: 1.0, **given}
    layers = isinstance(after.site, GaussianSite) and after.site.step
    rates = (1.0, 1.0) if layers else (complex(*rng.normal(size=2)), complex(*rng.normal(size=2)))
    numbers |= dict(zip((DT, DS), rates, strict=True))
    copies = [_Copy(q.action, numbers, rate, rng) for rate in rates]
    fields = q.action.fields
    kept = [m for m in q.modes if fields[m.first].role != "hat" and fields[m.second].role != "hat"]
    kept = [m for m in kept if fields[m.first].population.fraction is not None]
    if list(after.modes) != kept:
        return float("inf")
    hessian = np.array([[number(e, numbers) for e in q.hessian.row(i)] for i in range(len(q.modes))])
    sigma = np.zeros((len(q.modes), len(kept)), complex)
    for i, m in enumerate(q.modes):
        for j, target in enumerate(kept):
            sigma[i, j] = -_response(copies, target, m, numbers)
    rows = [q.modes.index(m) for m in kept]
    table = _symbols(after, copies, numbers)
    found = [[number(e, {**numbers, **table}) for e in after.matrix.row(i)] for i in range(len(kept))]
    return relative(found, (hessian @ sigma)[rows])


def _noises(action: CopiedAction) -> list[WhiteNoise]:
    return sorted({x for _, rhs in action.equations for x in rhs.atoms(WhiteNoise)}, key=unit_name)


def _response(copies: list[_Copy], target: Mode, source: Mode, values: Values) -> complex:
    """Answers of both outputs to the local fields of a pair of conjugate fields, over the population's share."""
    fields = copies[0].action.fields
    if {fields[source.first].role, fields[source.second].role} != {"hat"} or source.population != target.population:
        return 0j
    share = number(fields[target.first].population.fraction, values)
    answers = [
        copies[k].answer(out, hat.removeprefix("hat_"))
        for k, (out, hat) in enumerate(((target.first, source.first), (target.second, source.second)))
    ]
    return complex(np.prod(answers) / share)


def _symbols(after: CopyStability, copies: list[_Copy], values: Values) -> dict[Basic, complex]:
    """What the averages of slopes (of whole responses) are at the one point of each copy."""
    action, site = copies[0].action, after.site
    outputs = [f.name for f in action.of_role("output")]
    if isinstance(site, SampledSite):
        locals_ = [h.name for h in action.of_role("local")]
        return {site.response(f, h, k): copies[k - 1].answer(f, h) for f in outputs for h in locals_ for k in (1, 2)}
    assert isinstance(site, GaussianSite)
    read = [f for f in outputs if f in site.outputs]
    return {site.average(f, g): copies[0].slope(f) * copies[1].slope(g) for f in read for g in read}


class _Copy:
    """One copy of every unit, at a random point: slopes of its outputs, and how its fields answer at one rate."""

    def __init__(self, action: CopiedAction, values: Values, rate: complex, rng: np.random.Generator) -> None:
        self.action, self.values, self.rate = action, values, rate
        moving = [f for role in ("state", "local") for f in action.of_role(role)]
        self.point: dict[Basic, float] = {f.symbol: float(rng.uniform(0.2, 0.7)) for f in moving}
        self.moving = {f.name: f for f in moving}

    def slope(self, out: str) -> complex:
        """Of an output in the first of the fields that it reads."""
        body = self.action.fields[out].definition
        assert body is not None
        first = next(f for f in self.moving.values() if body.has(f.symbol))
        return self._partial(body, first.symbol)

    def answer(self, out: str, h: str) -> complex:
        """Of an output to a shift of a local field."""
        field, local = self.action.fields[out], self.action.fields[h]
        if field.population != local.population or field.definition is None:
            return 0j
        gains = self._gains(field.population.name)
        own = (f for f in self.moving.values() if f.population == field.population and field.definition.has(f.symbol))
        return sum((self._partial(field.definition, f.symbol) * gains.get((f.name, h), 0j) for f in own), 0j)

    def _partial(self, body: Expr, symbol: Symbol) -> complex:
        def at(shift: float) -> complex:
            return complex(evaluate(body, {**self.values, **self.point, symbol: self.point[symbol] + shift}))

        step = 1e-4
        return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)

    def _gains(self, population: str) -> dict[tuple[str, str], complex]:
        """(field, local field) → answer of a field at the rate, about the point."""
        unit = numeric_unit(self.action, population, self.values)
        states = [self.moving[s].symbol for s in unit.states]
        rhs = dict(self.action.equations)
        inner = np.array([[self._partial(rhs[s], x) for x in states] for s in unit.states], complex)
        fed = np.array(
            [[self._partial(rhs[s], self.moving[h].symbol) for h in unit.locals] for s in unit.states], complex
        )
        gains: dict[tuple[str, str], complex] = {(h, h): 1.0 + 0j for h in unit.locals}
        if states:
            solved = np.linalg.solve(self.rate * np.eye(len(states)) - inner, fed)
            gains |= {(s, h): solved[i, j] for i, s in enumerate(unit.states) for j, h in enumerate(unit.locals)}
        return gains


def _replicas(after: CopyStability, scene: Scene) -> float:
    """P″ by differences of four replicas, covariance of a site by sums over its states."""
    site = after.site
    assert isinstance(site, ReplicaSite)
    fields = site.action.problem.action.fields
    moving = [o for o in site.action.values if not any(fields[a].single for a, _ in o.atoms)]
    pairs = tuple(o for o in moving if o.copies == 2 and len(o.atoms) == 2)
    matrix = tuple(tuple(row) for row in site.on_orbits(after, pairs))
    state: Any = SimpleNamespace(free=SimpleNamespace(action=site.action))
    return replicon_deviation(state, RepliconForm(state, pairs, matrix), scene.values, scene.rng())


def _spectrum(after: CopyStability, scene: Scene, doubled: DysonProblem | None) -> float | None:
    """Traces of powers of P''Σ against finite differences of the doubled equation in what vanishes outside."""
    site = after.site
    assert isinstance(site, ResolventSite)
    if doubled is None:
        return None
    at = Labelled.of(doubled, scene.values, scene.rng())
    slopes = upper_slopes(doubled, at)
    if slopes is None:
        return None
    known = scalars_at(site.scalars, doubled, at)
    size = len(after.modes)
    found = np.array([[at.mean(after.matrix[i, j], doubled, known) for j in range(size)] for i in range(size)], complex)
    return relative(_traces(found), _traces(slopes))


def _traces(matrix: Array, powers: int = 4) -> list[complex]:
    out, power = [], np.eye(len(matrix), dtype=complex)
    for _ in range(powers):
        power = power @ matrix
        out.append(complex(np.trace(power)))
    return out
