"""The energy condition: all states of a one-argument problem that is a conservative particle.

Unknowns are the variance Δ0, the limit Δ∞ of the covariance and the mean m. For odd site functions without input
Δ∞ = m = 0 and one function of Δ0 remains,

    e(Δ0) = ½ kick²/inertia + V(Δ0) − V(0),   V(Δ0) − V(0) = −½ stiffness Δ0² + Σ_k w_k cov(F_k, G_k),

whose terms are of order Δ0²: e/Δ0² keeps full precision however small Δ0 is, and a root counts only where e changes
sign by more than its rounding error.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq, root

from quenched.theory.errors import ConvergenceError, QuenchedError

from .averages import Averages
from .means import mean_roots
from .quadrature import smooth_panels
from .tables import Table
from .types import Array

_EPS = float(np.finfo(float).eps)
_SCAN = np.geomspace(1e-16, 1e9, 301)
_HERMITE = 48


@dataclass(frozen=True)
class State:
    """A solution of the energy condition: variance, its limit at long lags and mean, with absolute errors.

    `stable` tells whether a small change of the mean returns: the sign of 1 − d(mean map)/dm along the other equations.
    """

    variance: float
    limit: float
    mean: float
    variance_error: float
    limit_error: float
    mean_error: float
    iterations: int
    stable: bool = True


class Particle:
    """The numbers of a `PotentialProblem` at given parameters."""

    def __init__(self, averages: Averages) -> None:
        problem = averages.potential
        assert problem is not None
        self.averages = averages
        inertia, stiffness, kick, static, weights = averages.code.particle(None, averages.p[0])
        self.inertia, self.stiffness, self.kick, self.static = (float(x) for x in (inertia, stiffness, kick, static))
        self.weights = np.array(weights, dtype=float)
        self.growth = np.array(averages.code.growth_stiffness(None, averages.p[0]), dtype=float)
        generated = averages.generated
        self.sites = [(generated.site(s.f), generated.site(s.g)) for s in problem.sources]
        two_points = averages.problem.two_points
        self.indices = [_matching(two_points, s) for s in problem.sources]
        self.mean_constant = float(averages.mean_constant()[0])
        self.mean_gain = averages.mean_gain()[0]
        if not (self.inertia > 0 and self.stiffness > 0):
            raise QuenchedError(f"inertia {self.inertia:g} and stiffness {self.stiffness:g} should be positive")

    @property
    def free_mean(self) -> bool:
        """Whether the mean depends on the state."""
        return bool(np.any(self.mean_gain != 0))

    @property
    def kinked(self) -> bool:
        """Whether a source has kinks or jumps."""
        return any(len(self.averages.site(k).kinks) > 0 for pair in self.sites for k in pair)

    def mean_of(self, m: float, v: float) -> float:
        """Right-hand side of the mean equation."""
        gains = enumerate(self.mean_gain)
        return self.mean_constant + sum(w * self.averages.one(k, m, v).value for k, w in gains if w != 0)

    def tables(self, m: float, v: float, low: float, tol: float = 1e-13, slopes: bool = True) -> list[Table]:
        """Tables of the sources on θ from `low` to π/2."""
        ones = np.ones(len(self.averages.problem.arguments))
        ends = {"low": max(low, -np.pi / 2), "high": np.pi / 2}
        return [self.averages.table(s, m * ones, v * ones, **ends, tol=tol, slopes=slopes) for s in self.indices]

    def force_limit(self, m: float, v: float) -> tuple[float, float]:
        """V'(0) = static + Σ w⟨f⟩⟨g⟩ and the size of its terms."""
        total, size = self.static, abs(self.static)
        offsets = self.averages.offsets()[:, 0]
        for w, (k, j) in zip(self.weights, self.sites, strict=True):
            nodes = self.averages.nodes((k, j), (0,))
            many = self.averages.stacked((k, j), nodes)
            if many is not None:
                at, shares = [l for l, _ in nodes], np.array([x for _, x in nodes])
                rule = smooth_panels(0.5)
                u = (m + offsets[at])[:, None, None] + np.sqrt(v) * rule.z
                one, two = (np.broadcast_to(site.value(u), u.shape) for site in many)
                total += w * float(shares @ (rule.mean(one) * rule.mean(two)))
                size += abs(w) * float(np.abs(shares) @ (rule.mean(np.abs(one)) * rule.mean(np.abs(two))))
                continue
            for l, share in nodes:
                f = self._label_mean(k, l, m + offsets[l], v)
                g = f if j == k else self._label_mean(j, l, m + offsets[l], v)
                total += w * share * f[0] * g[0]
                size += abs(w) * share * f[1] * g[1]
        return total, size

    def _label_mean(self, k: int, l: int, m: float, v: float) -> tuple[float, float]:
        site = self.averages.site(k, l)
        rule = smooth_panels(0.5)
        values = site.value(m + np.sqrt(v) * rule.z)
        return float(rule.mean(values)), float(rule.mean(np.abs(values)))

    def energy(self, m: float, v: Array, width: float = 0.5) -> tuple[Array, Array]:
        """e/Δ0² for Δ∞ = 0 at an array of variances, and the size of its largest term."""
        total = 0.5 * self.kick**2 / self.inertia / v**2 - 0.5 * self.stiffness + self.static / v
        size = np.abs(total) + self.stiffness
        for w, (k, j) in zip(self.weights, self.sites, strict=True):
            part = w * self.averages.antiderivative_covariance(k, j, 0, m, v, width) / v**2
            total, size = total + part, np.maximum(size, np.abs(part))
        return total, size


def _matching(two_points: tuple, source: object) -> int:
    for i, s in enumerate(two_points):
        if (s.f.expr, s.g.expr, s.a, s.b) == (source.f.expr, source.g.expr, source.a, source.b):  # type: ignore[attr-defined]
            return i
    raise QuenchedError(f"the source {source} of the potential is not a two-point source of the full problem")


def states(particle: Particle, hints: list[float] | None = None) -> list[State]:
    """All fluctuating states, largest variance first (empty: only fixed points).

    Parameters
    ----------
    hints : variances of static states, to search around

    Raises
    ------
    QuenchedError
        The variance grows without bound.
    """
    found = _symmetric_states(particle) if _is_symmetric(particle) else _general_states(particle, hints or [])
    if not found:
        _refuse_divergence(particle)
    return sorted(found, key=lambda s: (-s.variance, -s.mean))


def _is_symmetric(particle: Particle) -> bool:
    """Whether Δ∞ = 0 and m = 0 for every Δ0 and nothing else is possible (odd site functions, no mean, no input)."""
    if particle.free_mean or particle.static != 0 or np.any(particle.averages.constants() != 0):
        return False
    for v in (0.01, 1.0, 7.3):
        total, size = particle.force_limit(0.0, v)
        if abs(total) > 1e-13 * max(size, 1e-300):
            return False
    return True


def _symmetric_states(particle: Particle) -> list[State]:
    values, sizes = particle.energy(0.0, _SCAN)
    signs = np.where(np.abs(values) > 8 * _EPS * sizes, np.sign(values), 0.0)
    known = np.flatnonzero(signs)
    found = []
    for i, j in itertools.pairwise(known):
        if signs[i] > 0 > signs[j]:
            found.append(_polish_symmetric(particle, _SCAN[i], _SCAN[j]))
    return found


def _polish_symmetric(particle: Particle, low: float, high: float) -> State:
    evaluations = 0

    def energy(v: float, width: float = 0.5) -> float:
        nonlocal evaluations
        evaluations += 1
        return float(particle.energy(0.0, np.array([v]), width)[0][0])

    width = 0.5
    for _ in range(5):
        v = brentq(lambda x, w=width: energy(x, w), low, high, xtol=1e-300, rtol=4 * _EPS)
        value, size = particle.energy(0.0, np.array([v]), width)
        refined = energy(v, width / 2)
        if abs(refined - value[0]) < 1e-14 * size[0]:
            break
        width /= 2
    step = 1e-4 * v
    slope = (energy(v + step, width) - energy(v - step, width)) / (2 * step)
    error = (abs(refined - value[0]) + 4 * _EPS * size[0]) / abs(slope)
    if not error < 0.1 * v:
        raise ConvergenceError(f"the variance {v:.6g} is not resolved at double precision (error {error:.1e})")
    return State(v, 0.0, 0.0, error + 4 * _EPS * v, 0.0, 0.0, evaluations)


# -- non-odd site functions, input, means -------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _hermite_basis() -> tuple[Array, Array]:
    """Nodes, and normalised Hermite polynomials times the normal density on them, (orders, nodes)."""
    z = np.linspace(-9.5, 9.5, 401)
    basis = np.empty((_HERMITE, len(z)))
    basis[0], basis[1] = 1.0, z
    for n in range(1, _HERMITE - 1):
        basis[n + 1] = (z * basis[n] - np.sqrt(n) * basis[n - 1]) / np.sqrt(n + 1)
    return z, basis * np.exp(-0.5 * z * z) * ((z[1] - z[0]) / np.sqrt(2 * np.pi))


def _hermite_coefficients(particle: Particle, m: Array, v: Array) -> Array:
    """Σ_k w_k a_n b_n of the sources' normalised Hermite coefficients, (states, orders): ⟨fg⟩ = Σ a_n b_n ρⁿ."""
    z, basis = _hermite_basis()
    offsets = particle.averages.offsets()[:, 0]
    total = np.zeros((len(m), _HERMITE))
    for w, (k, j) in zip(particle.weights, particle.sites, strict=True):
        nodes = particle.averages.nodes((k, j), (0,))
        many = particle.averages.stacked((k, j), nodes)
        if many is not None:
            at, shares = [l for l, _ in nodes], np.array([x for _, x in nodes])
            u = offsets[at][:, None, None] + m[:, None] + np.sqrt(v)[:, None] * z
            a, b = (np.broadcast_to(site.value(u), u.shape) @ basis.T for site in many)
            total += w * np.einsum("l,lmn,lmn->mn", shares, a, b)
            continue
        for l, share in nodes:
            u = (m + offsets[l])[:, None] + np.sqrt(v)[:, None] * z
            a = particle.averages.site(k, l).value(u) @ basis.T
            b = a if j == k else particle.averages.site(j, l).value(u) @ basis.T
            total += w * share * a * b
    return total


_RHO = np.concatenate([-np.sin(np.linspace(0, np.pi / 2, 60))[::-1], np.sin(np.linspace(0, np.pi / 2, 200))[1:]])
_POWERS = _RHO[:, None] ** np.arange(_HERMITE)


def _coarse_energies(particle: Particle, m: float, v: float) -> list[tuple[float, float]]:
    """(ρ∞, e/Δ0²) at every extremum Δ∞ = ρ∞ Δ0 of V, from a truncated Hermite series."""
    h = _hermite_coefficients(particle, np.array([m]), np.array([v]))[0]
    force = -particle.stiffness * v * _RHO + particle.static + _POWERS @ h  # V'(ρ Δ0)
    force[np.abs(force) < 1e-13 * (particle.stiffness * v + np.sum(np.abs(h)))] = 0.0
    places = [float(_RHO[i]) for i in np.flatnonzero(force == 0)]
    for i in np.flatnonzero(force[:-1] * force[1:] < 0):
        share = force[i] / (force[i] - force[i + 1])
        places.append(float(_RHO[i] + share * (_RHO[i + 1] - _RHO[i])))
    n = np.arange(_HERMITE) + 1
    found = []
    for rho in places:
        if rho > 1 - 1e-9:
            continue
        energy = 0.5 * particle.kick**2 / particle.inertia - 0.5 * particle.stiffness * v**2 * (1 - rho**2)
        energy += particle.static * v * (1 - rho) + np.sum(h / n * (1 - rho**n)) * v
        found.append((rho, float(energy / v**2)))
    return found


def _general_states(particle: Particle, hints: list[float]) -> list[State]:
    """Scan Δ0; where the energy changes sign on a curve of (mean, limit), or such a curve begins, polish by Newton.

    `hints` are variances of fixed points: time-dependent states with a static part often lie just below them.
    """
    near = [v * x for v in hints for x in np.linspace(0.4, 1.05, 40)]
    scan = np.unique(np.concatenate([np.geomspace(1e-8, 1e5, 157), near]))
    rows = []
    for v in scan:
        means = mean_roots(particle.averages, float(v))
        rows.append([(m, rho, e) for m in means for rho, e in _coarse_energies(particle, m, float(v))])
    starts: list[tuple[float, float, float]] = []
    for v, w, first, second in zip(scan[:-1], scan[1:], rows[:-1], rows[1:], strict=True):
        spread = np.sqrt(v)
        for m, rho, e in second:
            old = min(first, key=lambda r: abs(r[0] - m) / spread + abs(r[1] - rho), default=None)
            if old is None or abs(old[0] - m) / spread + abs(old[1] - rho) > 0.5:
                starts.append((w, rho, m))
            elif old[2] * e < 0:
                share = old[2] / (old[2] - e)
                v0, rho0, m0 = float(v), old[1], old[0]
                starts.append((v0 + share * (w - v0), rho0 + share * (rho - rho0), m0 + share * (m - m0)))
    found: list[State] = []
    for start in starts:
        if any(_close(start, other) for other in found):
            continue
        state = _polish_general(particle, *start, known=found)
        if state is not None and all(_differ(state, other) for other in found):
            found.append(state)
    return found


def _close(start: tuple[float, float, float], state: State) -> bool:
    """Whether a start lies so near a state that Newton's method would find it again."""
    v, rho, m = start
    gap = abs(v / state.variance - 1) + abs(rho - state.limit / state.variance) + abs(m - state.mean) / np.sqrt(v)
    return bool(gap < 0.05)


def _differ(a: State, b: State) -> bool:
    return abs(a.variance - b.variance) > 1e-7 * a.variance or abs(a.mean - b.mean) > 1e-6 * np.sqrt(a.variance)


def _schur(jacobian: Array) -> float:
    """Derivative of the mean equation with respect to the mean when the other two equations are kept."""
    return float(jacobian[2, 2] - jacobian[2, :2] @ np.linalg.solve(jacobian[:2, :2], jacobian[:2, 2]))


def is_maximum(particle: Particle, v: float, limit: float, m: float) -> bool:
    """Whether V is largest at the limit, so that the particle can come to rest there."""
    low = float(np.arcsin(limit / v))
    slope = sum(
        w * float(t.slope(np.array(low)))
        for w, t in zip(particle.weights, particle.tables(m, v, low - 0.05), strict=True)
    )
    return slope < particle.stiffness


def equations(particle: Particle, v: float, limit: float, m: float, tol: float = 1e-13) -> tuple[Array, Array]:
    """Energy, force at the limit and mean equation (dimensionless), and estimates of their numerical errors."""
    low = float(np.arcsin(np.clip(limit / v, -1.0, 1.0)))
    tables = particle.tables(m, v, min(low, 0.0) - 0.05, tol, slopes=False)
    work = sum(w * t.integral(low, np.pi / 2) for w, t in zip(particle.weights, tables, strict=True))
    source = sum(w * float(t.at(np.array(low))) for w, t in zip(particle.weights, tables, strict=True))
    energy = 0.5 * particle.kick**2 / particle.inertia - 0.5 * particle.stiffness * (v - limit) * (v + limit)
    energy += particle.static * (v - limit) + work
    force = particle.static + source - particle.stiffness * limit
    mean = particle.mean_of(m, v) - m
    error = sum(abs(w) * t.error for w, t in zip(particle.weights, tables, strict=True))
    noise = np.array([error / v, error / v, 4 * _EPS * (abs(m) / np.sqrt(v) + 1)]) + 4 * _EPS * particle.stiffness
    return np.array([energy / v**2, force / v, mean / np.sqrt(v)]), noise


def _polish_general(particle: Particle, v: float, rho: float, m: float, known: list[State]) -> State | None:
    """Newton's method on (log Δ0, ρ∞, m/√Δ0); None if it leaves for a static state."""
    unit = np.sqrt(v)

    def residual(x: Array, tol: float = 1e-10) -> Array:
        return equations(particle, float(np.exp(x[0])), float(x[1] * np.exp(x[0])), float(x[2] * unit), tol)[0]

    start = np.array([np.log(v), rho, m / unit])
    answer = root(residual, start, method="hybr", options={"xtol": 1e-9, "eps": 1e-6, "maxfev": 40})
    x = answer.x
    v, limit, m = float(np.exp(x[0])), float(x[1] * np.exp(x[0])), float(x[2] * unit)
    if not np.all(np.isfinite(x)) or x[1] > 1 - 1e-6 or x[1] < -1 or np.max(np.abs(answer.fun)) > 1e-6:
        return None
    here = State(v, limit, m, 0.0, 0.0, 0.0, int(answer.nfev))
    if any(not _differ(here, other) for other in known):
        return None
    if not is_maximum(particle, v, limit, m):
        return None
    steps = 1e-4 * np.eye(3)
    jacobian = np.array([(residual(x + h) - residual(x - h)) / 2e-4 for h in steps]).T
    for _ in range(3):
        x = x - np.linalg.solve(jacobian, residual(x, 1e-13))
    v, limit, m = float(np.exp(x[0])), float(x[1] * np.exp(x[0])), float(x[2] * unit)
    value, noise = equations(particle, v, limit, m)
    if not np.all(np.abs(value) < 1e-9):
        return None
    error = np.abs(np.linalg.inv(jacobian)) @ (np.abs(value) + noise)
    v = float(np.exp(x[0]))
    return State(
        v,
        float(x[1] * v),
        float(x[2] * unit),
        float(error[0] * v),
        float((error[1] + abs(x[1]) * error[0]) * v),
        float(error[2] * unit),
        int(answer.nfev),
        not particle.free_mean or _schur(jacobian) < 0,
    )


def _refuse_divergence(particle: Particle) -> None:
    """Raise where the variance feeds itself: Σ w⟨fg⟩ + static ≥ stiffness·V however large V is."""
    ratios = []
    for v in (1e6, 1e8, 1e10):
        m = mean_roots(particle.averages, v)
        mean = m[len(m) // 2] if m else particle.mean_constant
        total = particle.static
        for w, (k, j) in zip(particle.weights, particle.sites, strict=True):
            total += w * particle.averages.equal_time(k, j, 0, mean, v).value
        ratios.append(total / (particle.stiffness * v))
    if ratios[-1] >= 1 - 1e-9 and ratios[-1] >= 0.9 * ratios[0]:
        raise QuenchedError(
            f"the state diverges: at large variance the couplings return {ratios[-1]:.4g} times the variance they get"
            " (expected less than 1: a smaller gain or a saturating nonlinearity)"
        )
