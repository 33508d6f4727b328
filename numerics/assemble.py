"""From the numbers of a state to a `Branch`: lags, two-point functions, read-off pairs, spectrum, responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import spherical_jn

from .averages import Averages
from .delays import causal_impulse, decays, empty
from .fixedpoints import FixedPoint
from .stability import TINY
from .tables import Table
from .timegrid import NODES, FlowGrid, MapGrid, to_legendre
from .types import Array, Branch, Kind, Number

_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Wave:
    """A time-dependent state on a grid.

    Attributes
    ----------
    grid : FlowGrid or MapGrid
    mean, mean_error : arrays (arguments,)
    static, static_error : arrays (closure,), limits τ → ∞ of the covariances
    decaying : list over the closure's pairs of (values at τ, values at −τ) on the grid's nodes
    origin : array (closure,), decaying part at τ = 0
    error : array (closure,), absolute error of the decaying parts
    variance_error : array (closure,)
    at : callable (pair index, lags ≥ 0) → decaying part at +τ, or None: interpolate the grid
    """

    grid: FlowGrid | MapGrid
    mean: Array
    mean_error: Array
    static: Array
    static_error: Array
    decaying: list[tuple[Array, Array]]
    origin: Array
    error: Array
    variance_error: Array
    at: Callable[[int, Array], Array] | None = None

    def values(self, p: int, tau: Array) -> Array:
        """Decaying part of a closure pair at lags τ ≥ 0."""
        return self.grid.interpolate(self.decaying[p][0], tau) if self.at is None else self.at(p, tau)


def variance_of(averages: Averages, total: Array) -> Array:
    """Variance of each argument from the covariances of the closure's pairs at equal times."""
    out = np.zeros(len(averages.problem.arguments))
    for p, (a, b) in enumerate(averages.problem.pairs[: len(total)]):
        if a == b:
            out[a] = total[p]
    return out


def source_tables(averages: Averages, wave: Wave) -> list[Table]:
    """Tables of all two-point sources over the covariances that occur in a state."""
    v = np.maximum(variance_of(averages, wave.origin + wave.static), TINY)
    out = []
    for s, t in enumerate(averages.problem.two_points):
        p, _ = pair_index(averages, t.a, t.b)
        scale = float(np.sqrt(v[t.a] * v[t.b]))
        least = min(float(np.min(wave.decaying[p])), 0.0)
        least = 0.0 if least > -1e-9 * scale else least
        low = float(np.arcsin(np.clip((wave.static[p] + least) / scale, -1.0, 1.0)))
        out.append(averages.table(s, wave.mean, v, low=min(low, 1.4), high=np.pi / 2))
    return out


def pair_index(averages: Averages, a: int, b: int) -> tuple[int, bool]:
    """Closure pair of the arguments (a, b), and whether it is transposed."""
    pairs = list(averages.problem.pairs[: averages.problem.closure])
    return (pairs.index((a, b)), False) if (a, b) in pairs else (pairs.index((b, a)), True)


def sources_on_grid(averages: Averages, wave: Wave, tables: list[Table]) -> tuple[list[tuple[Array, Array]], Array]:
    """Decaying parts of ⟨fg⟩ at ±τ on the grid, and their limits (two_points,)."""
    out, limits = [], []
    for s, t in enumerate(averages.problem.two_points):
        p, flipped = pair_index(averages, t.a, t.b)
        table, q = tables[s], wave.static[p]
        limit = float(table.at(table.theta(np.array(q))))
        plus, minus = wave.decaying[p]
        first = table.at(table.theta(plus + q)) - limit
        halves = [first, first if minus is plus else table.at(table.theta(minus + q)) - limit]
        out.append((halves[1], halves[0]) if flipped else (halves[0], halves[1]))
        limits.append(limit)
    return out, np.array(limits)


def convolve(
    averages: Averages, grid: FlowGrid | MapGrid, p: int, sources: list[tuple[Array, Array]]
) -> tuple[Array, Array]:
    """Σ_s gain[p][s] * source_s + noise_p at ±τ."""
    if isinstance(grid, FlowGrid):
        total = np.zeros(2 * grid.size)
        for ratio, source in zip(averages.code.gain_rational(0.0, averages.p[0])[p], sources, strict=True):
            if not empty(ratio):
                total += np.real(grid.apply(ratio, grid.full(*source)))
        noise = grid.impulse(averages.code.noise_rational(0.0, averages.p[0])[p])
        plus, minus = grid.split(total)
        return plus + noise[0], minus + noise[1]
    total = map_noise(averages, grid, p)
    for s, source in enumerate(sources):
        kernel = grid.response(averages.transfer(p, s))
        # The kernel is known on the window only; beyond it both factors have decayed.
        total = total + np.convolve(kernel, grid.full(*source), mode="same")
    return grid.split(total)


def map_noise(averages: Averages, grid: MapGrid, p: int) -> Array:
    """Full-line covariance that white noise alone gives to a pair of a map."""
    code, values = averages.code, averages.p[0]
    return grid.response(lambda th: np.asarray(code.noise(np.exp(1j * th), np.exp(-1j * th), values)[p]) + 0 * th)


def residual(averages: Averages, wave: Wave, tables: list[Table]) -> float:
    """Largest violation of the covariance equations on the grid, relative to the variance."""
    sources, limits = sources_on_grid(averages, wave, tables)
    worst = 0.0
    scale = float(np.max(np.abs(wave.origin + wave.static)))
    for p in range(averages.problem.closure):
        plus, minus = convolve(averages, wave.grid, p, sources)
        worst = max(
            worst, *(float(np.max(np.abs(x - y))) for x, y in zip((plus, minus), wave.decaying[p], strict=True))
        )
    static = averages.static_gain() @ limits + averages.static()
    worst = max(worst, float(np.max(np.abs(static[: averages.problem.closure] - wave.static))))
    return worst / scale


def default_lags(averages: Averages, wave: Wave) -> Array:
    """Lags at which a state is reported: until its covariances have decayed to 1e-6."""
    tau = wave.grid.tau
    size = [np.max(np.abs(np.stack(c)), axis=0) / (np.max(np.abs(c)) + 1e-300) for c in wave.decaying]
    alive = np.flatnonzero(np.max(size, axis=0) > 1e-6)
    end = float(tau[min(alive[-1] + 1, len(tau) - 1)]) if len(alive) else float(tau[-1])
    return np.linspace(0.0, end, 401) if averages.problem.clock == "flow" else np.arange(0.0, max(end, 16.0) + 1)


def wave_branch(
    averages: Averages,
    wave: Wave,
    *,
    label: str,
    kind: Kind,
    stable: bool,
    growth: Number,
    lags: Array | None,
    iterations: int,
    method: str,
    notes: tuple[str, ...] = (),
) -> Branch:
    """The branch of a time-dependent state."""
    problem = averages.problem
    tables = source_tables(averages, wave)
    rest = residual(averages, wave, tables)
    tau = default_lags(averages, wave) if lags is None else np.asarray(lags, dtype=float)
    lag = np.abs(tau)
    sources, limits = sources_on_grid(averages, wave, tables)
    covariance, errors, static = {}, {}, {}
    negative = tau < 0
    for p, pair in enumerate(problem.pairs[: problem.closure]):
        plus = wave.values(p, lag)
        minus = plus if pair[0] == pair[1] else wave.grid.interpolate(wave.decaying[p][1], lag)
        covariance[pair] = np.where(negative, minus, plus) + wave.static[p]
        errors[pair] = np.full(len(tau), wave.error[p] + wave.static_error[p])
        errors[pair][lag == 0] = wave.variance_error[p]
        static[pair] = float(wave.static[p])
    total = wave.origin + wave.static
    variance = variance_of(averages, total)
    variance_error = variance_of(averages, wave.variance_error)
    for p in range(problem.closure, len(problem.pairs)):
        pair = problem.pairs[p]
        halves = convolve(averages, wave.grid, p, sources)
        limit = float(averages.static_gain()[p] @ limits + averages.static()[p])
        parts = [wave.grid.interpolate(h, lag) for h in halves]
        covariance[pair] = np.where(negative, parts[1], parts[0]) + limit
        relative = float(np.max(wave.error / np.maximum(np.abs(wave.origin), 1e-300)))
        errors[pair] = np.full(len(tau), (relative + 1e-12) * (float(np.max(np.abs(halves))) + abs(limit)))
        static[pair] = limit
        if pair[0] == pair[1]:
            variance[pair[0]] = float(wave.grid.origin @ halves[0]) + limit
            variance_error[pair[0]] = errors[pair][0]
    two, two_error = _two_points(averages, tables, covariance, errors, tau)
    one, one_error = _one_points(averages, wave.mean, variance, wave.mean_error, variance_error)
    return Branch(
        label=label,
        kind=kind,
        stable=stable,
        growth=growth,
        tau=tau,
        mean=wave.mean,
        mean_error=wave.mean_error,
        variance=variance,
        variance_error=variance_error,
        covariance=covariance,
        covariance_error=errors,
        static=static,
        two_point=two,
        two_point_error=two_error,
        one_point=one,
        one_point_error=one_error,
        spectrum=spectrum(averages, wave),
        response=responses(averages, tau),
        residual=rest,
        iterations=iterations,
        method=method,
        notes=notes,
    )


def _two_points(
    averages: Averages, tables: list[Table], covariance: dict, errors: dict, tau: Array
) -> tuple[Array, Array]:
    values = np.zeros((len(tables), len(tau)))
    spread = np.zeros_like(values)
    for s, t in enumerate(averages.problem.two_points):
        p, flipped = pair_index(averages, t.a, t.b)
        pair = averages.problem.pairs[p]
        # A transposed pair is reported at the same lags: ⟨f(u_a(t+τ)) g(u_b(t))⟩ needs cov at −τ of the stored pair.
        theta = tables[s].theta(
            covariance[pair]
            if not flipped
            else covariance[pair][::-1]
            if np.allclose(tau, -tau[::-1])
            else covariance[pair]
        )
        values[s] = tables[s].at(theta)
        slope = np.abs(tables[s].rotation(theta)) / np.maximum(tables[s].scale * np.cos(theta), 1e-8 * tables[s].scale)
        spread[s] = tables[s].error + slope * errors[pair]
    return values, spread


def _one_points(
    averages: Averages, mean: Array, variance: Array, mean_error: Array, variance_error: Array
) -> tuple[Array, Array]:
    values, spread = [], []
    for k, o in enumerate(averages.problem.one_points):
        m, v = float(mean[o.a]), max(float(variance[o.a]), TINY)
        number = averages.one(k, m, v)
        step_m, step_v = 1e-4 * np.sqrt(v), 1e-4 * v
        by_m = (averages.one(k, m + step_m, v).value - number.value) / step_m
        by_v = (averages.one(k, m, v + step_v).value - number.value) / step_v
        values.append(number.value)
        spread.append(number.error + abs(by_m) * mean_error[o.a] + abs(by_v) * variance_error[o.a])
    return np.array(values), np.array(spread)


def spectrum(averages: Averages, wave: Wave) -> tuple[Array, dict[tuple[int, int], np.ndarray]]:
    """Two-sided spectra of the decaying parts: exact transforms of the polynomials on the elements."""
    grid = wave.grid
    if isinstance(grid, FlowGrid):
        first = np.array(grid.edges)[1]
        omega = np.linspace(0.0, min(4.0 / first, 40.0 * np.pi / _correlation_time(wave)), 161)

        def transform(values: Array) -> np.ndarray:
            return filon(grid, values, omega)

    else:
        omega = np.linspace(0.0, np.pi, 257)
        phases = np.exp(-1j * np.outer(omega, grid.tau)) * grid.weights

        def transform(values: Array) -> np.ndarray:
            return phases @ values

    pairs = averages.problem.pairs[: averages.problem.closure]
    out = {}
    for pair, (plus, minus) in zip(pairs, wave.decaying, strict=True):
        first = transform(plus)
        out[pair] = first + np.conj(first if minus is plus else transform(minus))
    return omega, out


def _correlation_time(wave: Wave) -> float:
    areas = [float(wave.grid.weights @ np.abs(c[0])) / (np.max(np.abs(c[0])) + 1e-300) for c in wave.decaying]
    return max(min(areas), 1e-12)


def filon(grid: FlowGrid, values: Array, omega: Array) -> np.ndarray:
    """∫_0^T f(τ) e^{−iωτ} dτ, with ∫ P_k(x) e^{−iκx} dx = 2 (−i)^k j_k(κ)."""
    edges = np.array(grid.edges)
    half, middle = np.diff(edges) / 2, (edges[:-1] + edges[1:]) / 2
    coefficients = values.reshape(-1, NODES) @ to_legendre(NODES).T
    orders = np.arange(NODES)
    bessel = spherical_jn(orders[:, None, None], np.outer(omega, half))
    moments = 2 * (-1j) ** orders[:, None, None] * bessel
    return np.einsum("kwe,ek,we->w", moments, coefficients * half[:, None], np.exp(-1j * np.outer(omega, middle)))


def responses(averages: Averages, tau: Array) -> dict[str, tuple[Array, Array]]:
    """Impulse responses of the fields at the non-negative lags."""
    lag = tau[tau >= 0]
    names = list(averages.problem.responses)
    if averages.problem.clock == "flow":
        ratios = averages.code.response_rational(None, averages.p[0])
        return {n: (lag, causal_impulse(r, lag)) for n, r in zip(names, ratios, strict=True) if decays(r)}
    grid = MapGrid(max(int(np.max(lag, initial=1.0)), 1))
    out = {}
    for k, n in enumerate(names):
        full = grid.response(_map_response(averages, k))
        out[n] = (lag, grid.split(full)[0][lag.astype(int)])
    return out


def _map_response(averages: Averages, k: int) -> Callable[[np.ndarray], np.ndarray]:
    def transfer(theta: np.ndarray) -> np.ndarray:
        return np.asarray(averages.code.responses(np.exp(1j * theta), averages.p[0])[k])

    return transfer


def fixed_branch(averages: Averages, point: FixedPoint, label: str, lags: Array | None) -> Branch:
    """The branch of a fixed point: nothing depends on the lag."""
    problem = averages.problem
    rate = abs(averages.edge())
    default = np.linspace(0.0, 10.0 / rate, 101) if problem.clock == "flow" else np.arange(0.0, 33.0)
    tau = default if lags is None else np.asarray(lags, dtype=float)
    zero = np.zeros(len(tau))
    ends = np.array(_static_sources(averages, point))
    static = averages.static_gain() @ ends + averages.static()
    static[: problem.closure] = point.covariance
    relative = (
        point.covariance_error / np.maximum(np.abs(point.covariance), 1e-300)
        if np.any(point.covariance)
        else np.zeros(1)
    )
    error = np.abs(static) * (float(np.max(relative)) + 8 * _EPS)
    covariance = {pair: zero + static[p] for p, pair in enumerate(problem.pairs)}
    errors = {pair: zero + error[p] for p, pair in enumerate(problem.pairs)}
    variance, variance_error = variance_of(averages, static), variance_of(averages, error)
    two = ends[:, None] + np.zeros((len(ends), len(tau)))
    two_error = np.abs(two) * (float(np.max(relative)) + 8 * _EPS)
    one, one_error = _one_points(averages, point.mean, variance, point.mean_error, variance_error)
    omega = np.linspace(0.0, 10.0 * rate, 33) if problem.clock == "flow" else np.linspace(0.0, np.pi, 33)
    return Branch(
        label=label,
        kind="trivial" if point.trivial else "static",
        stable=point.growth.value < 0,
        growth=point.growth,
        tau=tau,
        mean=point.mean,
        mean_error=point.mean_error,
        variance=variance,
        variance_error=variance_error,
        covariance=covariance,
        covariance_error=errors,
        static={p: float(static[i]) for i, p in enumerate(problem.pairs)},
        two_point=two,
        two_point_error=two_error,
        one_point=one,
        one_point_error=one_error,
        spectrum=(omega, {p: np.zeros(len(omega), dtype=complex) for p in problem.pairs[: problem.closure]}),
        response=responses(averages, tau),
        residual=point.residual,
        iterations=point.iterations,
        method="fixed point",
        notes=point.notes,
    )


def _static_sources(averages: Averages, point: FixedPoint) -> list[float]:
    """⟨f g⟩ of all two-point sources at a fixed point."""
    m, v = point.mean, np.maximum(variance_of(averages, point.covariance), TINY)
    out = []
    for s, t in enumerate(averages.problem.two_points):
        p, _ = pair_index(averages, t.a, t.b)
        c = v[t.a] if t.a == t.b else point.covariance[p]
        out.append(averages.pair_average(s, float(m[t.a]), float(m[t.b]), float(v[t.a]), float(v[t.b]), float(c)))
    return [0.0 if point.trivial and abs(x) < 1e-20 else x for x in out]
