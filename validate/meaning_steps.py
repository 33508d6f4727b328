"""The few-step meaning: finite networks of a declaration against the effective process, from a random start.

A flow takes Euler steps of length one, so that nothing depends on stationarity or on a small step. Networks are built
entry by entry from the declaration; the unit of the effective process draws its local fields one after the other, each
given those before it. Responses are measured on paths whose fields were moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from sympy import Basic, Expr

from quenched.theory.algebra import Outer
from quenched.theory.bonds import site_bodies
from quenched.theory.couplings import Gaussian, Iid
from quenched.theory.fields import At, Quenched, WhiteNoise
from quenched.theory.lower import SiteField
from quenched.theory.model import Model
from quenched.theory.naming import coupling_outputs, field_names, unbind
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.spaces import N, Population, t
from quenched.theory.terms import PAST
from quenched.validate.meaning import Array, Values, World, evaluate, number
from quenched.validate.sampling import sample_law

#: Kick that measures responses: large enough for jumps, small enough for curvature.
KICK = 0.03

#: Name of a moment → its value; moments are ⟨a(n)⟩ and ⟨a(n) b(m)⟩ of states and outputs of one population.
Moments = dict[str, float]


def moments(paths: Mapping[str, list[Array]], populations: Mapping[str, str]) -> dict[str, Array]:
    """First and second moments of series of one population, as products that are still to be averaged over units."""
    out = {f"<{a}({n})>": v for a, series in paths.items() for n, v in enumerate(series)}
    for a, b in product(paths, repeat=2):
        if a <= b and populations[a] == populations[b]:
            for n, m in product(range(len(paths[a])), range(len(paths[b]))):
                if a < b or n <= m:
                    out[f"<{a}({n}) {b}({m})>"] = paths[a][n] * paths[b][m]
    return out


def start_of(name: str, size: int, rng: np.random.Generator) -> Array:
    """A start without symmetry: its mean depends on the field's name."""
    return 0.3 + 0.1 * (len(name) % 3) + 0.7 * rng.standard_normal(size)


def quenched_numbers(q: Quenched, size: int, values: Values, rng: np.random.Generator) -> Array:
    """One number per unit."""
    return sample_law(rng, (size,), _plain(q.law, values))


def _plain(law: Basic, values: Values) -> tuple[Any, ...]:
    from quenched.theory.distributions import Law

    return (
        type(law).__name__,
        *(_plain(a, values) if isinstance(a, Law) else number(a, values).real for a in law.args),
    )


# ------------------------------------------------------------------------------------------------------------ networks
class Network(World):
    """One finite network: sums by matrix products instead of explicit loops."""

    def __init__(self, model: Model, values: Values, size: int, rng: np.random.Generator) -> None:
        self.model, self.rng = model, rng
        self.values = {**values, N: size, t: 0.0}
        self.sites = {p: round(number(p.fraction, values).real * size) for p in model.populations}
        self.couplings = self._draw(model.matrices)
        self.numbers = {q: quenched_numbers(q, self.sites[q.population], values, rng) for q in model.quenched}
        self.numbers |= {x: start_of(name, self.sites[x.population], rng) for x, name in field_names(model).items()}
        self.couplings |= {b.name: np.zeros((self.sites[b.rows], self.sites[b.cols])) for b in model.bonds}

    def _draw(self, matrices: tuple[Gaussian | Iid, ...]) -> dict[str, Array]:
        out = {m.name: self._iid(m) for m in matrices if isinstance(m, Iid)}
        for group in _groups([m for m in matrices if isinstance(m, Gaussian)]):
            out |= self._gaussian(group)
        return out

    def _iid(self, m: Iid) -> Array:
        shape = (self.sites[m.rows], self.sites[m.cols])
        return sample_law(self.rng, shape, _plain(m.law, self.values)) / float(self.values[N]) ** 0.5

    def _gaussian(self, group: list[Gaussian]) -> dict[str, Array]:
        """Correlated matrices together: entries (i, j) and (j, i) of all of them from one covariance."""
        rows, cols = self.sites[group[0].rows], self.sites[group[0].cols]
        same = np.eye(len(group))
        for (a, one), (b, other) in product(enumerate(group), repeat=2):
            if other in one.correlation:
                same[a, b] = same[b, a] = number(one.correlation[other], self.values).real
        eta = np.diag([number(m.symmetry, self.values).real for m in group])
        if group[0].rows == group[0].cols:
            draws = self._square(same, eta, rows)
        else:
            draws = np.tensordot(np.linalg.cholesky(same), self.rng.standard_normal((len(group), rows, cols)), axes=1)
        scale = 1 / float(self.values[N])
        out = {}
        for m, z in zip(group, draws, strict=True):
            out[m.name] = (
                number(m.mean, self.values).real * scale + (number(m.variance, self.values).real * scale) ** 0.5 * z
            )
            if m.diagonal == 0:
                np.fill_diagonal(out[m.name], 0.0)
        return out

    def _square(self, same: Array, eta: Array, size: int) -> Array:
        """M = A·G + B·Gᵀ with (A ± B)(A ± B)ᵀ = same ± eta, so that the diagonal has variance same + eta."""
        plus, minus = np.linalg.cholesky(same + eta), np.linalg.cholesky(same - eta + 1e-12 * np.eye(len(same)))
        free = self.rng.standard_normal((len(same), size, size))
        if not eta.any():
            return np.tensordot(plus, free, axes=1) if len(same) > 1 else free
        return np.tensordot((plus + minus) / 2, free, axes=1) + np.tensordot(
            (plus - minus) / 2, free.swapaxes(1, 2), axes=1
        )

    def _sum(self, node: Expr) -> Any:
        from quenched.theory.couplings import Apply, Transpose

        if not isinstance(node, Apply):
            return float(np.mean(self.evaluate(node.body, node.population)))
        body = self.evaluate(node.body, node.cols)
        if isinstance(node.matrix, Transpose):
            return self.couplings[node.matrix.matrix.name].T @ body
        return self.couplings[node.matrix.name] @ body

    def run(self, steps: int) -> dict[str, list[Array]]:
        """States at times 0…steps, outputs at times 0…steps−1."""
        names, flow = field_names(self.model), self.model.clock == "flow"
        outputs = coupling_outputs(self.model)
        paths: dict[str, list[Array]] = {name: [self.numbers[x]] for x, name in names.items()}
        paths |= {out.name: [] for out in outputs}
        redrawn = tuple(m for m in self.model.matrices if m.redraw)
        late = earlier_parts(self.model, self.values)
        for n in range(steps):
            self.values = {**self.values, t: float(n)}
            self.numbers |= {part: paths[names[part.field]][max(n - k, 0)] for part, k in late.items()}
            self.couplings |= self._draw(redrawn) if redrawn else {}
            self.numbers |= {xi: self.rng.standard_normal(self.sites[xi.population]) for xi in self.model.noises}
            for out in outputs:
                paths[out.name].append(self.evaluate(out.body, out.population))
            rates = {x: self.evaluate(rhs, x.population) for x, rhs in self.model.eqs.items()}
            moved = {bond.name: self._bond(rhs) for bond, rhs in self.model.bonds.items()}
            self.numbers |= {x: self.numbers[x] + rate if flow else rate for x, rate in rates.items()}
            self.couplings |= {b: self.couplings[b] + rate if flow else rate for b, rate in moved.items()}
            for x, name in names.items():
                paths[name].append(self.numbers[x])
        return paths

    def _bond(self, rhs: Any) -> Array:
        """The declared rate of change of a dynamic coupling, word by word."""
        total: Any = 0.0
        for coefficient, (factor,) in rhs.terms:
            if isinstance(factor, Outer):
                ends = ((factor.left, factor.rows), (factor.right, factor.cols))
                entry = np.outer(*(self.evaluate(body, population) for body, population in ends))
            else:
                entry = self.couplings[factor.name]
            total = total + number(coefficient, self.values).real * entry
        return np.asarray(total)


def earlier_parts(model: Model, values: Values) -> dict[At, int]:
    """Fields at earlier times, each with the number of steps; before the start every field is what it starts from.

    Raises
    ------
    ValueError
        If a delay is not a whole number of steps.
    """
    advance = 1.0 if model.dt is None else number(model.dt, values).real
    out = {}
    for part in (a for body in site_bodies(model) for a in body.atoms(At)):
        count = number(t - part.time, {**values, t: 0.0}).real / advance
        if abs(count - round(count)) > 1e-9:
            raise ValueError(f"the delay of {part} is {count:g} steps, not a whole number")
        out[unbind(part)] = round(count)
    return out


def _groups(matrices: list[Gaussian]) -> list[list[Gaussian]]:
    groups: list[list[Gaussian]] = []
    for m in matrices:
        linked = [g for g in groups if any(o in m.correlation or m in o.correlation for o in g)]
        groups = [g for g in groups if g not in linked] + [[*(o for g in linked for o in g), m]]
    return groups


# --------------------------------------------------------------------------------------------------- effective process
@dataclass
class Ensemble:
    """Paths of the effective unit of every population. Axis 0: the path and its kicked versions; axis 1: samples."""

    process: EffectiveProcess
    values: Values
    samples: int
    steps: int
    rng: np.random.Generator
    series: dict[str, list[Array]] = field(default_factory=dict)
    drawn: dict[str, list[tuple[str, int, Array]]] = field(default_factory=dict)
    kicks: list[tuple[str, int, float]] = field(default_factory=list)
    earlier: Mapping[At, int] = field(default_factory=dict)

    def run(self) -> dict[str, list[Array]]:
        """Unkicked series by name, each a list over times."""
        action = self.process.action
        locals_ = [f.name for f in action.of_role("local")]
        if any(not c.kernels for parts in self.process.memory.values() for c in parts):
            signs = (1.0, -1.0)
            self.kicks = [(h, n, s * KICK) for h in locals_ for n in range(self.steps) for s in signs]
        copies = 1 + len(self.kicks)
        noises = {x for _, rhs in action.equations for x in rhs.atoms(WhiteNoise)}
        quenched = {q for e in self._expressions() for q in e.atoms(Quenched)}
        fixed: dict[Basic, Array] = {
            q: quenched_numbers(q, self.samples, self.values, self.rng) for q in sorted(quenched, key=str)
        }
        for f in action.of_role("state"):
            self.series[f.name] = [np.tile(start_of(f.name, self.samples, self.rng), (copies, 1))]
        for f in (*action.of_role("local"), *action.of_role("output")):
            self.series[f.name] = []
        named = {f.symbol: f.name for f in action.of_role("state")}
        for n in range(self.steps):
            now: dict[Basic, Any] = {**self.values, **fixed, t: float(n)}
            now |= {xi: self.rng.standard_normal(self.samples) for xi in sorted(noises, key=str)}
            now |= {f.symbol: self.series[f.name][n] for f in action.of_role("state")}
            now |= {part: self.series[named[part.field]][max(n - k, 0)] for part, k in self.earlier.items()}
            self._fields(n, now)
            for name, rhs in action.equations:
                rate = np.broadcast_to(evaluate(rhs, now), (copies, self.samples))
                old = self.series[name][n]
                self.series[name].append(old + rate if action.clock == "flow" else rate)
        return {name: [v[0] for v in s] for name, s in self.series.items()}

    def _expressions(self) -> list[Expr]:
        action = self.process.action
        outputs = [f.definition for f in action.of_role("output") if f.definition is not None]
        return [*(rhs for _, rhs in action.equations), *outputs]

    def _fields(self, n: int, now: dict[Basic, Any]) -> None:
        """Local fields and outputs at time n, as soon as what they need is there."""
        action = self.process.action
        pending: list[SiteField] = [*action.of_role("output"), *action.of_role("local")]
        known = lambda name: len(self.series[name]) > n  # noqa: E731
        while pending:
            ready = [f for f in pending if all(known(name) for name in self._needs(f))]
            if not ready:
                raise ValueError(f"the fields {[f.name for f in pending]} depend on each other at one time")
            for f in ready:
                found = self._output(f, now) if f.role == "output" else self._local(f, n)
                self.series[f.name].append(found)
                now[f.symbol] = found
                pending.remove(f)

    def _needs(self, f: SiteField) -> list[str]:
        action = self.process.action
        if f.role == "output":
            assert f.definition is not None
            return [h.name for h in action.of_role("local") if f.definition.has(h.symbol)]
        own = [c for pair, parts in self.process.covariance.items() if pair == (f.name, f.name) for c in parts]
        own += [*self.process.mean.get(f.name, ())]
        remembered = [c for c in self.process.memory.get(f.name, ()) if c.kernels]
        now = [a for c in remembered for a, slot in _atoms(c) if c.at[slot] == 0]
        return [a for c in own for a, _ in _atoms(c)] + now

    def _output(self, f: SiteField, now: Mapping[Basic, Any]) -> Array:
        shape = (1 + len(self.kicks), self.samples)
        return np.broadcast_to(np.asarray(evaluate(f.definition, now), dtype=float), shape)

    # -- local fields -----------------------------------------------------------------------------------------------
    def _local(self, f: SiteField, n: int) -> Array:
        level = sum(
            number(c.coef, self.values).real * self._mean(_atoms(c)[0][0], n) for c in self.process.mean.get(f.name, ())
        )
        field_now = np.tile(self._noise(f, n) + level, (1 + len(self.kicks), 1))
        for c in self.process.memory.get(f.name, ()):
            for m in range(n + 1):
                kernel = self._bond(c, n, m) if c.kernels else self._response(c, n, m)
                strength = number(c.coef, self.values).real * kernel
                if strength != 0:
                    field_now = field_now + strength * self.series[c.output][m]
        for k, (h, m, size) in enumerate(self.kicks, start=1):
            if (h, m) == (f.name, n):
                field_now[k] += size
        return field_now

    def _mean(self, output: str, n: int) -> float:
        return float(self.series[output][n][0].mean())

    def _noise(self, f: SiteField, n: int) -> Array:
        """ζ(n) given all Gaussian parts that the unit has drawn before."""
        before = self.drawn.setdefault(f.population.name, [])
        variance = self._covariance((f.name, n), (f.name, n))
        fresh: Array = self.rng.standard_normal(self.samples)
        if before:
            labels = [(h, m) for h, m, _ in before]
            among = np.array([[self._covariance(a, b) for b in labels] for a in labels])
            across = np.array([self._covariance((f.name, n), b) for b in labels])
            weights = np.linalg.pinv(among, rcond=1e-10, hermitian=True) @ across
            rest = max(variance - float(weights @ across), 0.0)
            out = np.sqrt(rest) * fresh + sum(w * z for w, (_, _, z) in zip(weights, before, strict=True))
        else:
            out = np.sqrt(max(variance, 0.0)) * fresh
        before.append((f.name, n, out))
        return out

    def _covariance(self, a: tuple[str, int], b: tuple[str, int]) -> float:
        """Cov(h_u(n), h_v(m)) from averages over the paths."""
        table = self.process.covariance
        (u, n), (v, m) = (a, b) if (a[0], b[0]) in table else (b, a)
        total = 0.0
        for c in table.get((u, v), ()):
            (first, s1), (second, s2) = _atoms(c)
            if c.kernels and n != m:
                continue
            times = (n, m)
            product_ = self.series[first][times[c.at[s1]]][0] * self.series[second][times[c.at[s2]]][0]
            total += number(c.coef, self.values).real * float(product_.mean())
        return total

    def _bond(self, c: Contribution, n: int, m: int) -> float:
        """K(n, m)·⟨a(n) b(m)⟩ for m < n: what a dynamic coupling that is moved step by step remembers."""
        if m >= n:
            return 0.0
        (kind, _), *_ = c.kernels
        memory = next(b for b in self.process.action.memories if kind == PAST + b.name)  # type: ignore[attr-defined]
        at = lambda e, k: number(e, {**self.values, t: float(k)}).real  # noqa: E731
        kept = [at(memory.rate, k) + (self.process.action.clock == "flow") for k in range(m + 1, n)]
        first, second = sorted(_atoms(c), key=lambda atom: c.at[atom[1]])
        weight = at(memory.factor, m) * float(np.prod(kept))
        return weight * float((self.series[first[0]][n][0] * self.series[second[0]][m][0]).mean())

    def _response(self, c: Contribution, n: int, m: int) -> float:
        """R(n, m) = ∂⟨ψ(n)⟩/∂h(m), from paths whose field h was moved at time m."""
        fields = self.process.action.fields
        (psi,) = (a for a, _ in _atoms(c) if fields[a].role != "hat")
        (hat,) = (a for a, _ in _atoms(c) if fields[a].role == "hat")
        if len(self.series[psi]) <= n:
            return 0.0  # not computed before the field it feeds: it cannot respond at equal time
        total = 0.0
        for k, (h, at, size) in enumerate(self.kicks, start=1):
            if (h, at) == (hat.removeprefix("hat_"), m):
                total += float((self.series[psi][n][k] - self.series[psi][n][0]).mean()) / size / 2
        return total


def _atoms(c: Contribution) -> tuple[tuple[str, int], ...]:
    assert c.op is not None
    return c.op.atoms


# ---------------------------------------------------------------------------------------------------------- comparison
def few_steps(
    model: Model,
    process: EffectiveProcess,
    values: Values,
    rng: np.random.Generator,
    size: int = 400,
    networks: int = 80,
    samples: int = 60_000,
    steps: int = 3,
) -> dict[str, float]:
    """Deviations of all moments, in standard errors (finite-size effects of one part in N allowed for).

    Raises
    ------
    ValueError
        If a delay of the declaration is not a whole number of steps.
    """
    values = {**values, N: size}
    populations = {name: x.population.name for x, name in field_names(model).items()}
    populations |= {out.name: out.population.name for out in coupling_outputs(model)}
    late = earlier_parts(model, values)
    ensemble = Ensemble(process, values, samples, steps, rng, earlier=late).run()
    theory = moments({a: ensemble[a] for a in populations}, populations)
    runs = [moments(Network(model, values, size, rng).run(steps), populations) for _ in range(networks)]
    out = {}
    for name, product_ in theory.items():
        found = np.array([float(np.mean(run[name])) for run in runs])
        exact, own = float(np.mean(product_)), float(np.std(product_)) / samples**0.5
        error = np.hypot(found.std(ddof=1) / networks**0.5, 2 * own)
        slack = 2 * (abs(exact) + float(np.std(product_))) / size
        out[name] = max(0.0, abs(found.mean() - exact) - slack) / max(error, 1e-12)
    return out


def suitable_values(model: Model, values: Values) -> dict[Basic, Any]:
    """The same values with fractions that give whole numbers of units, and delays of a whole step."""
    from sympy import Symbol

    shares = {p.fraction for p in model.populations if isinstance(p.fraction, Symbol)}
    parts = (a for body in site_bodies(model) for a in body.atoms(At))
    delays = {s for a in parts for s in (t - a.time).free_symbols} - {t}
    rounded = {s: round(v * 20) / 20 if s in shares else v for s, v in values.items()}
    return {s: 1.0 if s in delays else v for s, v in rounded.items()}


__all__ = ["Ensemble", "Network", "Population", "few_steps", "suitable_values"]
