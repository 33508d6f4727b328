"""Meanings of the stationary equations, the potential, the two-copy problem and the fixed points.

Filters are evaluated at random complex frequencies; derivatives of Gaussian averages and of the potential are finite
differences of quadratures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from sympy import Expr, sympify

from quenched.theory.doubled import FixedPointForm, Schroedinger, TwoCopies
from quenched.theory.errors import NotCovered
from quenched.theory.problem import (
    C12,
    DS,
    DT,
    LAMBDA,
    M1,
    M2,
    V1,
    V2,
    OnePoint,
    PotentialProblem,
    StationaryGaussian,
    TwoPoint,
)
from quenched.theory.spaces import N
from quenched.theory.stationary import D, StationaryState
from quenched.validate.meaning import SIZE, Values, number, relative, slope
from quenched.validate.meaning_gauss import average_one, numeric, two_point_value

#: Covariances of the two arguments as (v1, v2, c/√(v1 v2)), up to the ends and with both signs.
POINTS = ((0.7, 0.5, 0.4), (1.3, 0.6, -0.7), (0.4, 0.9, 0.99), (0.8, 0.8, -0.2))


def with_labels(p: StationaryGaussian, values: Values, rng: np.random.Generator) -> Values:
    """Parameters, the reference size and a number for each quenched label."""
    return {**values, N: SIZE, **{label.symbol: rng.normal() for label in p.labels}}


def mean_of(p: StationaryGaussian, a: int, values: Values, rng: np.random.Generator) -> float:
    """A random mean of an argument, zero where its equation says that it vanishes."""
    sources = [p.arguments[a].constant, *p.mean_gain[a]]
    return 0.0 if all(number(e, values) == 0 for e in sources) else float(rng.uniform(-0.8, 0.8))


# ----------------------------------------------------------------------------------------------------- closed averages
def averages_deviation(
    before: StationaryGaussian, after: StationaryGaussian, values: Values, rng: np.random.Generator
) -> float | None:
    """Closed forms against quadrature; None if there is no closed form to check."""
    values = with_labels(before, values, rng)
    named = [(o.f, o.a) for o in before.one_points] + [(s.f, s.a, s.g, s.b) for s in before.two_points]
    found = [(o.f, o.a) for o in after.one_points] + [(s.f, s.a, s.g, s.b) for s in after.two_points]
    if named != found:
        return float("inf")
    worst = [one_deviation(o, before, values, rng) for o in after.one_points if o.closed is not None]
    worst += [two_deviation(s, before, values, rng) for s in after.two_points if s.closed is not None]
    return max(worst) if worst else None


def one_deviation(o: OnePoint, p: StationaryGaussian, values: Values, rng: np.random.Generator) -> float:
    """A closed ⟨f(u)⟩ at several means and variances."""
    f, worst = numeric(o.f, values), 0.0
    for v, _, _ in POINTS:
        m = mean_of(p, o.a, values, rng)
        worst = max(worst, relative(number(o.closed, {**values, M1: m, V1: v}), average_one(f, m, v), 1.0))
    return worst


def two_deviation(s: TwoPoint, p: StationaryGaussian, values: Values, rng: np.random.Generator) -> float:
    """A closed ⟨f(u) g(v)⟩ at several means and covariances."""
    worst = 0.0
    for v1, v2, angle in POINTS:
        means = mean_of(p, s.a, values, rng), mean_of(p, s.b, values, rng)
        cov = (v1, v2, angle * (v1 * v2) ** 0.5)
        slots = {M1: means[0], M2: means[1], V1: cov[0], V2: cov[1], C12: cov[2]}
        worst = max(worst, relative(number(s.closed, {**values, **slots}), two_point_value(s, means, cov, values), 1.0))
    return worst


# ---------------------------------------------------------------------------------------------------- stationary state
def shifts(clock: str, growth: complex, wave: complex) -> tuple[complex, complex, complex]:
    """(D_t, D_s, D) on e^{growth·(t+s)} e^{wave·(t−s)}: derivatives of a flow, shifts of a map."""
    if clock == "flow":
        return growth + wave, growth - wave, wave
    return np.exp(growth + wave), np.exp(growth - wave), np.exp(wave)


def stationary_deviation(
    p: StationaryGaussian, after: StationaryState, values: Values, rng: np.random.Generator
) -> float:
    """Two-time filters acting on a plane wave of t − s against the one-time equations; constants as before."""
    values = with_labels(p, values, rng)
    dt, ds, d = shifts(p.clock, 0.0, complex(*rng.normal(size=2)))
    both, one = {**values, DT: dt, DS: ds}, {**values, D: d}
    worst = []
    for k, (operator, sources, noise) in enumerate(after.equations()):
        filtered = number(operator, one)
        exact = [number(g, both) for g in (*p.gain[k], p.noise[k])]
        worst.append(relative([number(c, one) / filtered for c in (*sources, noise)], exact))
        worst.append(relative(number(after.problem.static[k], values), number(p.static[k], values)))
    levels = [_constants(q, {**values, DT: dt}) for q in (p, after.problem)]
    if len(levels[0]) != len(levels[1]):
        return float("inf")
    worst += [relative(x, y) for x, y in zip(*levels, strict=True)]
    return max(worst)


def _constants(p: StationaryGaussian, at: Values) -> list[complex]:
    """Everything that stationarity leaves as it is: means, modes, responses at one frequency, and closing numbers."""
    exprs = [e for row in p.mean_gain for e in row] + [a.constant for a in p.arguments]
    exprs += [c for _, terms in p.closing for c, _ in terms] + [e for c in p.carried for e in (c.mean, *c.covariances)]
    return [number(e, at) for e in (*exprs, *p.characteristic, *p.responses.values())]


# ----------------------------------------------------------------------------------------------------------- potential
def potential_deviation(p: StationaryGaussian, q: PotentialProblem, values: Values, rng: np.random.Generator) -> float:
    """Filter, kick and force of the particle against the stationary equation."""
    values = with_labels(p, values, rng)
    parts = [_filter_deviation(p, q, values, rng), _kick_deviation(p, q, values), _force_deviation(p, q, values, rng)]
    parts += [two_deviation(s, p, values, rng) for s in q.potentials if s.closed is not None]
    return max(parts)


def _gains(p: StationaryGaussian, k: int, values: Values) -> dict[TwoPoint, complex]:
    return {s: number(g, values) for s, g in zip(p.two_points, p.gain[k], strict=True) if g != 0}


def _filter_deviation(p: StationaryGaussian, q: PotentialProblem, values: Values, rng: np.random.Generator) -> float:
    """weights/(stiffness − inertia D²), without and with growth, against the two-sided filter."""
    worst = [0.0 if len(q.sources) == len(q.weights) == len(q.potentials) else float("inf")]
    for growth in (0.0, float(rng.uniform(0.1, 0.5))):
        dt, ds, d = shifts("flow", growth, complex(*rng.normal(size=2)))
        exact = _gains(p, 0, {**values, DT: dt, DS: ds})
        stiffness = q.growth_stiffness if growth else q.stiffness
        operator = number(stiffness, {**values, LAMBDA: growth}) - number(q.inertia, values) * d**2
        found = {s: number(w, values) / operator for s, w in zip(q.sources, q.weights, strict=True)}
        worst.append(relative([found.get(s, 0) for s in exact], list(exact.values())))
        worst.append(0.0 if set(found) <= set(exact) else float("inf"))
    worst.append(
        relative(number(q.static, values) / _nonzero(number(q.stiffness, values)), number(p.static[0], values))
    )
    return max(worst)


def _nonzero(value: complex) -> complex:
    return value if value != 0 else complex("nan")


def _kick_deviation(p: StationaryGaussian, q: PotentialProblem, values: Values) -> float:
    """White noise makes the slope jump at τ = 0 by −lim ω² S(ω); the kick is half of it."""
    omega = 1e6
    jump = omega**2 * number(p.noise[0], {**values, DT: 1j * omega, DS: -1j * omega})
    return relative(number(q.kick, values) / _nonzero(number(q.inertia, values)), jump / 2)


def _force_deviation(p: StationaryGaussian, q: PotentialProblem, values: Values, rng: np.random.Generator) -> float:
    """dV/dΔ by finite differences of quadratures against force − stiffness·Δ, in units of the stiffness."""
    mean, top = mean_of(p, 0, values, rng), float(rng.uniform(0.6, 1.0))
    stiffness = _nonzero(number(q.stiffness, values))
    gains = _gains(p, 0, {**values, DT: 0.0, DS: 0.0})
    static = number(p.static[0], values)

    def potential(x: float) -> complex:
        lifted = sum(
            number(w, values) * two_point_value(s, (mean, mean), (top, top, x), values)
            for w, s in zip(q.weights, q.potentials, strict=True)
        )
        return (-number(q.stiffness, values) * x**2 / 2 + number(q.static, values) * x + lifted) / stiffness

    worst = 0.0
    for x in (-0.4 * top, 0.5 * top):
        force = sum((g * two_point_value(s, (mean, mean), (top, top, x), values) for s, g in gains.items()), static)
        worst = max(worst, relative(slope(potential, x, 0.01 * top), force - x, 1.0))
    return worst


# ---------------------------------------------------------------------------------------------------------- two copies
def _pair_index(p: StationaryGaussian, s: TwoPoint) -> int:
    return next(k for k, pair in enumerate(p.pairs) if sorted(pair) == sorted((s.a, s.b)))


def _growth_rows(
    p: StationaryGaussian, k: int, at: Values, values: Values, rng: np.random.Generator
) -> tuple[dict[int, complex], Callable[[TwoPoint], complex]]:
    """Per pair l: ∂/∂C^{12}_l of Σ gain ⟨f(u^1) g(u^2)⟩, by finite differences; and the averages at the same place."""
    means = {a: mean_of(p, a, values, rng) for a in range(len(p.arguments))}
    sizes = {a: float(rng.uniform(0.6, 1.0)) for a in means}

    def level(s: TwoPoint, c: float = 0.3) -> float:
        return two_point_value(s, (means[s.a], means[s.b]), (sizes[s.a], sizes[s.b], c), values)

    rows: dict[int, complex] = {}
    for s, g in zip(p.two_points, p.gain[k], strict=True):
        if g != 0:
            change = slope(partial(level, s), 0.3, 0.01)
            pair = _pair_index(p, s)
            rows[pair] = rows.get(pair, 0j) + number(g, at) * change
    return rows, level


def copies_deviation(p: StationaryGaussian, after: TwoCopies, values: Values, rng: np.random.Generator) -> float:
    """The linearised two-copy equations against finite differences of the doubled closure."""
    values = with_labels(p, values, rng)
    worst = [0.0 if len(after.filters) == len(after.kernels) == p.closure else float("inf")]
    for k in range(p.closure):
        growth = float(rng.uniform(0.1, 0.6))
        dt, ds, d = shifts(p.clock, growth, complex(*rng.normal(size=2)) / 2)
        exact, average = _growth_rows(p, k, {**values, DT: dt, DS: ds}, values, rng)
        operator = _nonzero(number(after.filters[k], {**values, LAMBDA: growth, D: d}))
        at = {**values, LAMBDA: growth, D: d}
        row = [(c / sympify(operator), s, pair) for c, s, pair in after.kernels[k]]
        found = _summed(row, at, average)
        worst.append(_rows_deviation(found, exact))
    return max(worst)


def _summed(
    row: Sequence[tuple[Expr, TwoPoint, int]],
    at: Values,
    average: Callable[[TwoPoint], complex],
) -> dict[int, complex]:
    out: dict[int, complex] = {}
    for coef, s, pair in row:
        out[pair] = out.get(pair, 0j) + number(coef, at) * average(s)
    return out


def _rows_deviation(found: dict[int, complex], exact: dict[int, complex]) -> float:
    keys = sorted(set(found) | set(exact))
    return relative([found.get(k, 0) for k in keys], [exact.get(k, 0) for k in keys])


def schroedinger_deviation(before: TwoCopies, after: Schroedinger, values: Values, rng: np.random.Generator) -> float:
    """E(λ) against the two-copy filter at random λ and D, and λ(E) as its inverse near zero."""
    q = after.potential
    values = with_labels(q.full, values, rng)
    worst = []
    for growth in rng.uniform(-0.1, 0.6, size=3):
        d = complex(*rng.normal(size=2))
        at = {**values, LAMBDA: growth, D: d}
        energy = number(after.energy, at)
        still = number(q.growth_stiffness, {**values, LAMBDA: 0.0}) - number(q.inertia, values) * d**2
        exact = number(before.filters[0], at)
        gains = [number(c, at) / exact for c, _, _ in before.kernels[0]]
        worst.append(relative([number(w, values) / (still - energy) for w in q.weights], gains))
        (slot,) = (s for s in after.rate.free_symbols if s not in values)
        worst.append(relative(number(after.rate, {**values, slot: energy.real}), growth, 1.0))
    return max(worst)


def fixed_point_deviation(
    p: StationaryGaussian, after: FixedPointForm, values: Values, rng: np.random.Generator
) -> float:
    """The response matrix at a random rate z against finite differences of the static closure, filtered at z and z̄."""
    values = with_labels(p, values, rng)
    z = complex(*rng.normal(size=2))
    at = {**values, DT: z, DS: z.conjugate()}
    worst = [0.0 if len(after.response) == p.closure and after.problem == p else float("inf")]
    for k in range(p.closure):
        exact, average = _growth_rows(p, k, at, values, rng)
        worst.append(_rows_deviation(_summed(after.response[k], at, average), exact))
    return max(worst)


def computable(p: StationaryGaussian, values: Values) -> str:
    """Why the derivatives of the site functions have no numbers, or an empty string."""
    try:
        for s in p.two_points:
            for f in (s.f, s.g):
                numeric(f.diff(1), values)
    except NotCovered as stop:
        return str(stop)
    return ""
