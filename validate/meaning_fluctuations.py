"""Meanings of fluctuations: the averaged exponent of two copies, responses of one unit, covariances by matrices.

The last comparison needs no derivation at all: linear networks with the declared couplings, drawn at a finite size,
whose responses and covariances are matrix inverses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sympy import Basic, Matrix, Symbol, lambdify

from quenched.theory.average import Functional
from quenched.theory.errors import NotCovered
from quenched.theory.fluctuations import (
    CrossCovariances,
    Mode,
    QuadraticAction,
    SitePropagators,
    response,
    spectrum,
)
from quenched.theory.ladder import ladder
from quenched.theory.lower import CopiedAction
from quenched.theory.model import Model
from quenched.theory.problem import DT
from quenched.theory.spaces import N, Population
from quenched.validate.meaning import SIZE, Array, Values, number, relative
from quenched.validate.meaning_action import random_instances
from quenched.validate.meaning_products import term_value
from quenched.validate.meaning_units import numeric_unit, quenched_of, read_arguments
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.sampling import sample_matrices


# ------------------------------------------------------------------------------------------------- the quadratic action
def quadratic_deviation(before: Functional, after: QuadraticAction, values: Values, rng: np.random.Generator) -> float:
    """P of two copies less P of each alone, at random fields of 3 sites, against ½ Σ P'' O O of the same fields."""
    fields = random_instances(before.action, 3, 2, rng)
    weights = {p.name: np.full(3, 1 / 3) for p in before.action.populations}
    values = {**values, N: SIZE}

    def exponent(copies: list[int]) -> tuple[complex, float]:
        here = {name: array[:, copies] for name, array in fields.items()}
        parts = [term_value(term, here, weights, values, len(copies)) for term in before.terms]
        return complex(sum(parts)), max((abs(p) for p in parts), default=1.0)

    (both, scale), (first, _), (second, _) = (exponent(c) for c in ([0, 1], [0], [1]))
    modes = np.array([np.mean(fields[m.first][:, 0] * fields[m.second][:, 1]) for m in after.modes])
    hessian = np.array([[number(e, values) for e in after.hessian.row(i)] for i in range(len(modes))])
    found = modes @ hessian.reshape(len(modes), len(modes)) @ modes / 2 if len(modes) else 0.0
    return relative(found, both - first - second, scale)


# ------------------------------------------------------------------------------------------------------ one unit alone
def propagators_deviation(
    before: QuadraticAction, after: SitePropagators, values: Values, rng: np.random.Generator
) -> float:
    """Transfer functions of outputs and states, by linear equations at a random complex frequency."""
    action, problem = before.action, after.problem
    values = {**values, N: SIZE, **{q: rng.normal() for q in quenched_of(action)}}
    reader = read_arguments(problem.full, action, values, rng)
    frequency = complex(rng.normal(), rng.normal())
    worst = [reader.deviation]
    for field in problem.fields:
        numeric = numeric_unit(action, field.population, values)
        inner, fed = numeric.inner(action.clock, frequency), numeric.matrices()[1]
        gains = np.linalg.inv(frequency * np.eye(len(inner)) - inner) @ fed
        weights = reader.weights[field.a]
        for h in (f.name for f in action.of_role("local")):
            exact = 0j
            if h in numeric.locals:
                exact += weights.get(h, 0)
                exact += sum(
                    weights.get(s, 0) * gains[i, numeric.locals.index(h)] for i, s in enumerate(numeric.states)
                )
            found = number(field.transfer.get(h, 0), {**values, DT: frequency})
            worst.append(relative(found, exact, max(1.0, float(np.abs(gains).max(initial=0)))))
    names = {f.name for role in ("output", "state") for f in action.of_role(role)}
    return max(worst) if names == {f.name for f in problem.fields} else float("inf")


# ---------------------------------------------------------------------------------------------------------- covariances
@dataclass(frozen=True)
class Site:
    """Random or measured propagators of every unit: spectra C and responses R at two frequencies.

    Attributes
    ----------
    spectra : (copy, a, b) → ∫ dτ e^{−iωτ} ⟨a(t+τ) b(t)⟩
    responses : (copy, a, h) → R
    """

    spectra: Mapping[tuple[int, str, str], complex]
    responses: Mapping[tuple[int, str, str], complex]

    def between(self, a: str, b: str, copy: int) -> complex:
        """K_ab of fields and conjugate fields ``hat_h``."""
        hats = [n.startswith("hat_") for n in (a, b)]
        if all(hats):
            return 0j
        if hats[1]:
            return 1j * self.responses.get((copy, a, b[4:]), 0j)
        if hats[0]:
            return 1j * np.conj(self.responses.get((copy, b, a[4:]), 0j))
        return self.spectra[copy, a, b]

    def symbols(self) -> dict[Basic, complex]:
        """The same as values of the symbols that closed formulas are written in."""
        out: dict[Basic, complex] = {spectrum(a, b, c): v for (c, a, b), v in self.spectra.items()}
        for (copy, a, h), v in self.responses.items():
            out[response(a, f"hat_{h}", copy)] = v
            out[response(a, f"hat_{h}", copy, bar=True)] = np.conj(v)
        return out


def random_site(action: CopiedAction, rng: np.random.Generator) -> Site:
    """Spectra that are Hermitian and positive, and responses of order one half."""
    spectra: dict[tuple[int, str, str], complex] = {}
    responses: dict[tuple[int, str, str], complex] = {}
    for copy in (1, 2):
        for p in action.populations:
            fields = [f.name for role in ("output", "state") for f in action.of_role(role, p)]
            root = rng.normal(size=(2, len(fields), len(fields))) * 0.5
            matrix = root[0] + 1j * root[1]
            matrix = matrix @ matrix.conj().T
            spectra |= {(copy, a, b): matrix[i, j] for i, a in enumerate(fields) for j, b in enumerate(fields)}
            for a in fields:
                for h in action.of_role("local", p):
                    responses[copy, a, h.name] = complex(*rng.uniform(-0.5, 0.5, size=2))
    return Site(spectra, responses)


def inverted(q: QuadraticAction, site: Site, observed: Mode, values: Values) -> complex:
    """Σ(1 − P''Σ)^{-1} of one mode, by one matrix inverse over it and the modes of the action."""
    modes = list(dict.fromkeys([observed, *q.modes]))
    fractions = {p.name: number(p.fraction, values).real for p in q.action.populations}
    sigma = np.zeros((len(modes), len(modes)), complex)
    for i, m in enumerate(modes):
        for j, n in enumerate(modes):
            if m.population == n.population:
                pair = site.between(m.first, n.first, 1) * site.between(m.second, n.second, 2)
                sigma[i, j] = pair / fractions[m.population]
    second = np.zeros(sigma.shape, complex)
    where = [modes.index(m) for m in q.modes]
    second[np.ix_(where, where)] = [[number(e, values) for e in q.hessian.row(i)] for i in range(len(q.modes))]
    return complex((sigma @ np.linalg.inv(np.eye(len(modes)) - second @ sigma))[0, 0])


def inversion_deviation(
    before: SitePropagators | QuadraticAction, after: CrossCovariances, values: Values, rng: np.random.Generator
) -> float:
    """Closed formulas against a matrix inverse and, where it applies, the planar series, at random propagators."""
    q, values = after.quadratic, {**values, N: SIZE}
    site, worst = random_site(q.action, rng), [0.0]
    planar = _planar(before, site, values)
    for name in after.observed:
        population = q.action.fields[name].population
        fraction = number(population.fraction, values).real
        exact = fraction * inverted(q, site, Mode(population.name, name, name), values)
        if name in after.closed:
            worst.append(relative(number(after.closed[name], {**values, **site.symbols()}), exact))
        if planar:
            worst.append(relative(fraction * planar[name], exact))
    return max(worst)


def _planar(before: SitePropagators | QuadraticAction, site: Site, values: Values) -> dict[str, complex]:
    """Both corner series meeting at the centre, of every field; empty where the planar series does not apply."""
    if not isinstance(before, SitePropagators):
        return {}
    action = before.quadratic.action
    try:
        series = ladder(before.problem, action)
    except NotCovered:
        return {}
    unread = {(c, a, h): 0j for c, a, h in site.responses if before.problem.field(a).transfer.get(h, 0) == 0}
    if any(site.responses[key] != 0 for key in unread):
        site = Site(site.spectra, {**site.responses, **unread})
    numbers = {**values, **site.symbols()}
    size = len(series.pairs)
    rung, centre = _array(series.rung, numbers), _array(series.centre, numbers)
    corner = np.linalg.inv(np.eye(size) - rung)
    total = corner @ centre @ corner.conj().T
    return {a: complex(total[k, k]) for k, (_, a, b) in enumerate(series.pairs) if a == b}


def _array(matrix: Matrix, numbers: Mapping[Basic, complex]) -> Array:
    symbols = sorted(matrix.free_symbols, key=str)
    made = lambdify(symbols, matrix, "numpy")(*(numbers[s] for s in symbols))
    return np.asarray(made, complex).reshape(matrix.shape)


# -------------------------------------------------------------------------------------------- linear networks, exactly
def linear_networks(
    model: Model, after: CrossCovariances, values: Values, rng: np.random.Generator, size: int = 100, networks: int = 20
) -> dict[str, float]:
    """Second moments of covariances in sampled linear networks against the formula, in standard errors, by field.

    Every field of a unit answers linearly, and differently at two frequencies, to the local fields of the unit, and
    has noise of its own. Spectra, responses and second moments are all taken from the same matrix inverses; an
    allowance of 1/size covers what the formula leaves out.
    """
    network = LinearNetworks.draw(model, after.quadratic.action, values, size, rng)
    draws = [network.realise(rng) for _ in range(networks)]
    site = Site(
        {k: complex(np.mean([d.spectra[k] for d, _ in draws])) for k in draws[0][0].spectra},
        {k: complex(np.mean([d.responses[k] for d, _ in draws])) for k in draws[0][0].responses},
    )
    found = {}
    for name in after.observed:
        population = after.quadratic.action.fields[name].population
        mode = Mode(population.name, name, name)
        predicted = inverted(after.quadratic, site, mode, {**values, N: size})
        each = np.array([moments[name] for _, moments in draws])
        error = np.hypot(np.std(each.real), np.std(each.imag)) / np.sqrt(networks - 1)
        found[name] = max(0.0, abs(each.mean() - predicted) - abs(predicted) / size) / max(error, 1e-12)
    return found


@dataclass(frozen=True)
class LinearNetworks:
    """Networks of units a = Σ_h R_ah h + n_a with the declared couplings, R and the law of n fixed.

    Attributes
    ----------
    model, action, numbers : the declaration, its uses of couplings, and its parameters at a size
    sizes : population → units
    responses : for each frequency, (population → (fields, local fields))
    noises : for each frequency, (population → (fields, fields)), Hermitian
    """

    model: Model
    action: CopiedAction
    numbers: Numbers
    sizes: Mapping[str, int]
    responses: tuple[Mapping[str, Array], Mapping[str, Array]]
    noises: tuple[Mapping[str, Array], Mapping[str, Array]]

    @classmethod
    def draw(
        cls, model: Model, action: CopiedAction, values: Values, size: int, rng: np.random.Generator
    ) -> LinearNetworks:
        """Random responses, small enough for the network to be stable, and random noise."""
        numbers = Numbers({k: v for k, v in values.items() if isinstance(k, Symbol)}, size)
        sizes = {p.name: numbers.size(p)[1] for p in action.populations}
        gains = sum(abs(number(u.coef, {**values, N: size})) for u in action.uses) or 1.0
        width = {p.name: (len(_fields(action, p)), len(action.of_role("local", p))) for p in action.populations}
        responses, noises = [], []
        for _ in range(2):
            roots = {p: rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)) for p, (n, _) in width.items()}
            noises.append({p: r @ r.conj().T for p, r in roots.items()})
            phases = {p: np.exp(1j * rng.uniform(-0.6, 0.6, size=w)) for p, w in width.items()}
            responses.append({p: rng.uniform(0.7, 0.9, size=w) / gains * phases[p] for p, w in width.items()})
        return cls(model, action, numbers, sizes, (responses[0], responses[1]), (noises[0], noises[1]))

    def realise(self, rng: np.random.Generator) -> tuple[Site, dict[str, complex]]:
        """Propagators of one unit (averages over units), and N·mean over pairs of C_ij(ω₁)C_ij(ω₂) of every field."""
        specs = [matrix_spec(m, self.numbers) for m in self.model.matrices]
        drawn = sample_matrices(specs, lambda name: rng)
        couplings = {m.name: drawn[s.name] for m, s in zip(self.model.matrices, specs, strict=True)}
        site, both = Site({}, {}), []
        for copy in (0, 1):
            covariance, answer = self._solve(couplings, copy)
            both.append(covariance)
            site = Site(
                {**site.spectra, **self._diagonals(covariance, copy, "fields")},
                {**site.responses, **self._diagonals(answer, copy, "local")},
            )
        product_ = both[0] * both[1]
        moments = {a: complex(self.numbers.N * np.mean(product_[s, s])) for a, s in self._slices("fields").items()}
        return site, moments

    def _diagonals(self, matrix: Array, copy: int, kind: str) -> dict[tuple[int, str, str], complex]:
        """Averages over units of what one unit has with itself."""
        rows, cols = self._slices("fields"), self._slices(kind)
        return {
            (copy + 1, a, b): complex(np.mean(np.diag(matrix[rows[a], cols[b]])))
            for p in self.action.populations
            for a in _fields(self.action, p)
            for b in _names(self.action, p, kind)
        }

    def _solve(self, couplings: Mapping[str, Array], copy: int) -> tuple[Array, Array]:
        """Covariances of all fields, and their response to all local fields: a = R (M a + kick) + n."""
        fields, local = self._slices("fields"), self._slices("local")
        response = self._spread("fields", "local", self.responses[copy])
        reads = np.zeros(response.T.shape, complex)
        for use in self.action.uses:
            (row, _), (col, _) = (*use.row, *use.col)
            coef = 1j * number(use.coef, {**self.numbers.values, N: self.numbers.N})
            if row.startswith("hat_"):
                reads[local[row[4:]], fields[col]] += coef * couplings[use.coupling]
            else:
                reads[local[col[4:]], fields[row]] += coef * couplings[use.coupling].T
        inverse = np.linalg.inv(np.eye(len(response)) - response @ reads)
        noise = self._spread("fields", "fields", self.noises[copy])
        return inverse @ noise @ inverse.conj().T, inverse @ response

    def _slices(self, kind: str) -> dict[str, slice]:
        """Where the units of every field are."""
        out, start = {}, 0
        for p in self.action.populations:
            for name in _names(self.action, p, kind):
                out[name] = slice(start, start + self.sizes[p.name])
                start += self.sizes[p.name]
        return out

    def _spread(self, rows: str, cols: str, tables: Mapping[str, Array]) -> Array:
        """The same small matrix for every unit of a population."""
        here, there = self._slices(rows), self._slices(cols)
        out = np.zeros((max(s.stop for s in here.values()), max(s.stop for s in there.values())), complex)
        for p in self.action.populations:
            for i, a in enumerate(_names(self.action, p, rows)):
                for j, b in enumerate(_names(self.action, p, cols)):
                    out[here[a], there[b]] = tables[p.name][i, j] * np.eye(self.sizes[p.name])
        return out


def _fields(action: CopiedAction, population: Population) -> list[str]:
    return [f.name for role in ("output", "state") for f in action.of_role(role, population)]


def _names(action: CopiedAction, population: Population, kind: str) -> list[str]:
    if kind == "local":
        return [f.name for f in action.of_role("local", population)]
    return _fields(action, population)
