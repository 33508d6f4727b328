"""Gaussian averages of one problem at given parameters, with a-posteriori errors.

⟨f(u) g(v)⟩ is tabulated against θ with cov(u, v) = sin θ · √(var u · var v): the pair (z, y) of independent normals is
rotated by θ, u = m₁ + s₁ z, v = m₂ + s₂ (z sin θ + y cos θ). As a function of θ the average is smooth for smooth and
for kinked functions alike (sign: 2θ/π), so that a short Chebyshev series holds it. Its derivative with respect to the
covariance is ⟨f' g'⟩ (Price's theorem): tabulated directly where f' is a function, else from the series.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial.chebyshev import chebder, chebint, chebval
from scipy.optimize import brentq
from sympy import Symbol

from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem import PotentialProblem, StationaryGaussian

from .codegen import generate
from .labels import label_nodes
from .quadrature import (
    ORDER,
    REACH,
    Panels,
    chebyshev,
    density,
    graded_edges,
    legendre,
    panels,
    panels_from_edges,
    smooth_panels,
    trapezoid,
)
from .types import Array, Number

Function = Callable[[Array], Array]
_EPS = float(np.finfo(float).eps)
_WIDTHS = tuple(2.0**-k for k in range(8))
_POINTS = (101, 201, 401, 801, 1601, 3201)


@dataclass(frozen=True)
class Site:
    """A site function at fixed parameters and labels: value, unchecked value, derivative (None: a distribution), kinks."""

    name: str
    value: Function
    raw: Function
    slope: Function | None
    kinks: Array


@dataclass(frozen=True)
class Table:
    """⟨fg⟩ and its derivative with respect to the covariance on low ≤ θ ≤ high, for fixed means and variances.

    Attributes
    ----------
    low, high : float
        Range of θ.
    scale : float
        √(var u · var v), so that cov = scale · sin θ.
    coefficients, slopes : arrays
        Chebyshev coefficients of ⟨fg⟩ and of d⟨fg⟩/dcov in θ; `slopes` is None where the derivative diverges at θ = π/2.
    error, slope_error : float
        Estimated absolute errors.
    """

    low: float
    high: float
    scale: float
    coefficients: Array
    slopes: Array | None
    error: float
    slope_error: float

    def _x(self, theta: Array) -> Array:
        return (2 * theta - self.low - self.high) / (self.high - self.low)

    def at(self, theta: Array) -> Array:
        """⟨fg⟩ at θ."""
        return chebval(self._x(theta), self.coefficients)

    def slope(self, theta: Array) -> Array:
        """⟨f'g'⟩ at θ."""
        if self.slopes is None:
            return self.rotation(theta) / (self.scale * np.cos(theta))
        return chebval(self._x(theta), self.slopes)

    def rotation(self, theta: Array) -> Array:
        """d⟨fg⟩/dθ, finite for every site function."""
        if self.slopes is not None:
            return self.slope(theta) * self.scale * np.cos(theta)
        return chebval(self._x(theta), chebder(self.coefficients)) * 2 / (self.high - self.low)

    def theta(self, cov: Array) -> Array:
        """θ of a covariance; values beyond the variances by rounding are taken at the end."""
        return np.arcsin(np.clip(cov / self.scale, -1.0, 1.0))

    def integral(self, low: float, high: float) -> float:
        """∫⟨fg⟩ dcov between two values of θ."""
        x, matrix = chebyshev(len(self.coefficients) + 24)
        theta = (self.low + self.high) / 2 + (self.high - self.low) / 2 * x
        anti = chebint(matrix @ (self.at(theta) * self.scale * np.cos(theta))) * ((self.high - self.low) / 2)
        ends = chebval(self._x(np.array([low, high])), anti)
        return float(ends[1] - ends[0])


class Averages:
    """All averages of a problem at given parameter values.

    Parameters
    ----------
    problem, potential : the problem, and its reduction if there is one
    values : dict Symbol → float
        Every parameter of the problem.
    """

    def __init__(
        self, problem: StationaryGaussian, potential: PotentialProblem | None, values: dict[Symbol, float]
    ) -> None:
        self.problem, self.potential = problem, potential
        self.generated = generate(problem, potential)
        self.code = self.generated.module
        bound = self.generated.bind(values)
        number = dict(zip(self.generated.parameters, bound, strict=True))
        if problem.labels:
            nodes, self.weights = label_nodes(problem.labels, number)
        else:
            nodes, self.weights = [()], np.ones(1)
        self.p = [(*bound, *node) for node in nodes]
        self._sites: dict[tuple[int, int], Site] = {}
        self._tables: dict[tuple, Table] = {}

    # -- pieces of the linear equations

    def constants(self) -> Array:
        """Constant parts of the means, (labels, arguments)."""
        return np.array([self.code.mean_constants(None, p) for p in self.p], dtype=float)

    def offsets(self) -> Array:
        """Label dependence of the means: constant minus its average over labels, (labels, arguments)."""
        constants = self.constants()
        return constants - self.weights @ constants

    def mean_constant(self) -> Array:
        """Label average of the constant parts, (arguments,)."""
        return self.weights @ self.constants()

    def mean_gain(self) -> Array:
        """(arguments, one_points)."""
        shape = (len(self.problem.arguments), len(self.problem.one_points))
        return np.array(self.code.mean_gain(None, self.p[0]), dtype=float).reshape(shape)

    def gain(self, first: complex, second: complex) -> np.ndarray:
        """Gain at D_t = first, D_s = second, (pairs, two_points)."""
        shape = (len(self.problem.pairs), len(self.problem.two_points))
        return np.array(self.code.gain(first, second, self.p[0])).reshape(shape)

    def gains(self, first: np.ndarray, second: np.ndarray | complex) -> np.ndarray:
        """Gains at arrays of operator values (n,), (n, pairs, two_points)."""
        rows = self.code.gain(first, second, self.p[0])
        shape = (len(first), len(self.problem.pairs), len(self.problem.two_points))
        out = np.empty(shape, dtype=complex)
        for p, row in enumerate(rows):
            for s, entry in enumerate(row):
                out[:, p, s] = entry
        return out

    def peak_gain(self) -> Array:
        """Largest modulus of every gain over frequency, (pairs, two_points)."""
        if self.problem.clock == "flow":
            first = 1j * np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 400) * abs(self.edge())])
            return np.max(np.abs(self.gains(first, -first)), axis=0)
        first = np.exp(1j * np.linspace(0, np.pi, 400))
        return np.max(np.abs(self.gains(first, np.conj(first))), axis=0)

    def noisy(self) -> bool:
        """Whether any white noise drives the closure."""
        points = (
            np.exp(1j * np.array([0.3, 1.1, 2.0])) if self.problem.clock == "map" else 1j * np.array([0.1, 1.3, 7.0])
        )
        values = [self.code.noise(z, np.conj(z) if self.problem.clock == "map" else -z, self.p[0]) for z in points]
        return bool(np.any(np.abs(np.array(values, dtype=complex)) > 0))

    def edge(self) -> float:
        """Slowest intrinsic rate: largest Re(pole) (flow) or log|pole| (map) of the gains in D_t.

        Raises QuenchedError where the linear part alone is unstable.
        """
        poles = [np.roots(np.array(c, dtype=complex)) for c in self.code.gain_poles(0.371 + 0.913j, self.p[0])]
        flat = np.concatenate([np.zeros(0), *poles])
        with np.errstate(divide="ignore"):
            rates = np.real(flat) if self.problem.clock == "flow" else np.log(np.abs(flat))
        rate = float(np.max(rates, initial=-12.0))
        if rate >= 0:
            raise QuenchedError(
                f"the linear part of the dynamics is unstable or marginal (rate {rate:.4g}, expected < 0)"
            )
        return max(rate, -12.0)

    def pair_average(self, s: int, m1: float, m2: float, v1: float, v2: float, c: float) -> float:
        """⟨f g⟩ of two-point source s at one covariance."""
        ratio = c / np.sqrt(v1 * v2)
        source = self.problem.two_points[s]
        if source.a == source.b and ratio > 1 - 1e-15 and m1 == m2:
            sites = self.generated.site(source.f), self.generated.site(source.g)
            return self.equal_time(*sites, source.a, m1, v1).value
        return float(self._sampler(s, m1, m2, v1, v2)(np.array([np.arcsin(np.clip(ratio, -1, 1))]))[0][0])

    def diverging_slope(self, s: int) -> bool:
        """Whether ⟨f'g'⟩ diverges at equal times: both functions jump at one place, perturbations grow at any rate."""
        t = self.problem.two_points[s]
        f, g = (self.site(self.generated.site(x)) for x in (t.f, t.g))
        if t.a != t.b:
            return False
        return any(abs(_jump(f.value, k)) > 1e-6 and abs(_jump(g.value, k)) > 1e-6 for k in f.kinks)

    def curvature(self, s: int, m: float, v: float, second: bool = False) -> tuple[float, float] | None:
        """⟨f'g⟩ and ⟨f''g⟩ (second: of g) at equal times of one argument, by Stein's identity; None for distributions."""
        t = self.problem.two_points[s]
        k, j = self.generated.site(t.f), self.generated.site(t.g)
        k, j = (j, k) if second else (k, j)
        offset = self.offsets()[:, t.a]
        first, curved = 0.0, 0.0
        for l, weight in enumerate(self.weights):
            f, g = self.site(k, l), self.site(j, l)
            if f.slope is None or g.slope is None:
                return None
            kinks = np.concatenate([f.kinks, g.kinks])
            base = line_average(lambda u, z, f=f, g=g: f.slope(u) * g.raw(u), m + offset[l], v, kinks).value
            lean = line_average(lambda u, z, f=f, g=g: z * f.slope(u) * g.raw(u), m + offset[l], v, kinks).value
            cross = line_average(lambda u, z, f=f, g=g: f.slope(u) * g.slope(u), m + offset[l], v, kinks).value
            first, curved = first + weight * base, curved + weight * (lean / np.sqrt(v) - cross)
        return first, curved

    def static_gain(self) -> Array:
        """Gain at zero frequency."""
        dc = 0.0 if self.problem.clock == "flow" else 1.0
        return np.real(self.gain(dc, dc)).astype(float)

    def static(self) -> Array:
        """Constant covariance of each pair, the label variance excluded."""
        return np.array(self.code.static(None, self.p[0]), dtype=float)

    # -- site functions

    def site(self, k: int, label: int = 0) -> Site:
        """Site function k at one node of the labels."""
        if (k, label) not in self._sites:
            self._sites[k, label] = self._make_site(k, self.p[label])
        return self._sites[k, label]

    def _make_site(self, k: int, p: tuple[float, ...]) -> Site:
        name = self.generated.sites[k].name
        raw, slope = getattr(self.code, f"site_{k}"), getattr(self.code, f"slope_{k}")

        def value(u: Array) -> Array:
            with np.errstate(all="ignore"):
                out = raw(u, p)
            if not np.all(np.isfinite(out)):
                bad = float(np.asarray(u)[~np.isfinite(out)].flat[0])
                raise QuenchedError(f"{name}(u) is not a finite real number at u={bad:.6g}")
            return out

        def derivative(u: Array) -> Array:
            with np.errstate(all="ignore"):
                return slope(u, p)

        kinks = _kinks(lambda u: getattr(self.code, f"switches_{k}")(u, p))
        probe = np.concatenate([np.linspace(-30, 30, 121) + 1e-3, kinks + 1e-9, kinks - 1e-9])
        jumps = bool(len(kinks)) and bool(np.any(np.abs(value(kinks + 1e-9) - value(kinks - 1e-9)) > 1e-6))
        usable = slope(np.zeros(1), p) is not None and not jumps and bool(np.all(np.isfinite(derivative(probe))))
        return Site(name, value, lambda u: raw(u, p), derivative if usable else None, kinks)

    # -- one argument

    def one(self, k: int, m: float, v: float, power: int = 1) -> Number:
        """⟨f^power⟩ at mean m (label average) and variance v of the argument of one-point source k."""
        source = self.problem.one_points[k]
        return self.site_mean(self.generated.site(source.f), source.a, m, v)

    def site_mean(self, k: int, a: int, m: float, v: float, derivative: bool = False) -> Number:
        """⟨f⟩ or ⟨f'⟩ of site function k of argument a. ⟨f'⟩ = ⟨z f⟩/s (Stein) where f' is a distribution."""
        offset = self.offsets()[:, a]
        total, error = 0.0, 0.0
        for l, weight in enumerate(self.weights):
            site = self.site(k, l)

            def integrand(u: Array, z: Array, site: Site = site) -> Array:
                if not derivative:
                    return site.value(u)
                return site.slope(u) if site.slope is not None else z * site.value(u) / np.sqrt(v)

            part = line_average(integrand, m + offset[l], v, site.kinks)
            total, error = total + weight * part.value, error + weight * part.error
        return Number(total, error)

    def equal_time(self, k: int, j: int, a: int, m: float, v: float, derivative: bool = False) -> Number:
        """⟨f g⟩ or ⟨f' g'⟩ of site functions k and j of the same argument at equal times (inf for jumps)."""
        offset = self.offsets()[:, a]
        total, error = 0.0, 0.0
        for l, weight in enumerate(self.weights):
            f, g = self.site(k, l), self.site(j, l)
            if derivative and (f.slope is None or g.slope is None):
                return Number(np.inf, 0.0)
            first, second = (f.slope, g.slope) if derivative else (f.value, g.value)
            assert first is not None and second is not None

            def integrand(u: Array, z: Array, first: Function = first, second: Function = second) -> Array:
                return first(u) * second(u)

            part = line_average(integrand, m + offset[l], v, np.concatenate([f.kinks, g.kinks]))
            total, error = total + weight * part.value, error + weight * part.error
        return Number(total, error)

    def antiderivative_covariance(self, k: int, j: int, a: int, m: float, v: Array, width: float) -> Array:
        """cov(F, G) = ⟨FG⟩ − ⟨F⟩⟨G⟩ at equal times, F' = f, G' = g, for an array of variances; label-averaged.

        F and G are integrated on the quadrature nodes from u = m, which loses no digits however small v is.
        """
        offset = self.offsets()[:, a]
        total = np.zeros(np.shape(v))
        for l, weight in enumerate(self.weights):
            f, g = self.site(k, l), self.site(j, l)
            kinks = np.unique(np.concatenate([f.kinks, g.kinks]))
            if len(kinks):
                total += weight * np.array([_covariance(f, g, m + offset[l], x, width, kinks) for x in v.flat]).reshape(
                    v.shape
                )
            else:
                total += weight * _covariances(f, g, m + offset[l], v, smooth_panels(width))
        return total

    # -- two arguments

    def table(
        self, s: int, m: Array, v: Array, low: float = -np.pi / 2, high: float = np.pi / 2, tol: float = 1e-13
    ) -> Table:
        """`Table` of two-point source s at means m and variances v of the arguments."""
        source = self.problem.two_points[s]
        key = (s, float(m[source.a]), float(m[source.b]), float(v[source.a]), float(v[source.b]), low, high, tol)
        if key not in self._tables:
            self._tables[key] = self._make_table(s, m, v, low, high, tol)
        return self._tables[key]

    def _make_table(self, s: int, m: Array, v: Array, low: float, high: float, tol: float) -> Table:
        source = self.problem.two_points[s]
        m1, m2, v1, v2 = float(m[source.a]), float(m[source.b]), float(v[source.a]), float(v[source.b])
        sample = self._sampler(s, m1, m2, v1, v2, max(tol / 10, 1e-14))
        n, previous = 20, None
        while True:
            x, matrix = chebyshev(n)
            theta = (low + high) / 2 + (high - low) / 2 * x
            t, p, error = sample(theta)
            coefficients = matrix @ t
            tail = np.max(np.abs(coefficients[-3:]))
            size = max(np.max(np.abs(t)), 1e-300)
            slopes, slope_tail, slope_size = None, 0.0, 1.0
            if p is not None:
                slopes = matrix @ p
                slope_tail, slope_size = np.max(np.abs(slopes[-3:])), max(np.max(np.abs(p)), 1e-300)
            ripe = tail < tol * size and slope_tail < 30 * tol * slope_size
            if ripe or n >= 160 or (previous is not None and tail > 0.5 * previous and tail < 1e-10 * size):
                break
            previous, n = tail, 2 * n
        if slopes is None:
            slope_error = tail * n**2 + 1e-14 * size * n
        else:
            slope_error = 2 * slope_tail + (error / size + 4 * _EPS) * slope_size
        return Table(
            low, high, float(np.sqrt(v1 * v2)), coefficients, slopes, 2 * tail + error + 4 * _EPS * size, slope_error
        )

    def _sampler(
        self, s: int, m1: float, m2: float, v1: float, v2: float, tol: float = 1e-14
    ) -> Callable[[Array], tuple[Array, Array | None, float]]:
        source = self.problem.two_points[s]
        offsets = self.offsets()
        closed, closed_slope = getattr(self.code, f"two_{s}", None), getattr(self.code, f"two_slope_{s}", None)
        kf, kg = self.generated.site(source.f), self.generated.site(source.g)
        scale = np.sqrt(v1 * v2)

        def closed_form(theta: Array) -> tuple[Array, Array | None, float]:
            t, p = np.zeros(len(theta)), np.zeros(len(theta))
            for l, weight in enumerate(self.weights):
                slots = (m1 + offsets[l, source.a], m2 + offsets[l, source.b], v1, v2, scale * np.sin(theta))
                with np.errstate(all="ignore"):
                    t += weight * closed(*slots, self.p[l])
                    p += weight * (closed_slope(*slots, self.p[l]) if closed_slope else np.nan)
            usable = bool(np.all(np.isfinite(p))) and not _diverges(p, theta)
            return t, p if usable else None, 0.0

        def quadrature(theta: Array) -> tuple[Array, Array | None, float]:
            t, p, error = np.zeros(len(theta)), np.zeros(len(theta)), 0.0
            for l, weight in enumerate(self.weights):
                f, g = self.site(kf, l), self.site(kg, l)
                slots = (m1 + offsets[l, source.a], np.sqrt(v1), m2 + offsets[l, source.b], np.sqrt(v2))
                dt, dp, de = plane_average(f, g, *slots, theta, tol)
                t += weight * dt
                p = p + weight * dp if dp is not None else np.full(len(theta), np.nan)
                error += weight * de
            return t, p if np.all(np.isfinite(p)) else None, error

        if closed is None:
            return quadrature
        probe = closed_form(np.array([-0.7, 0.3, 1.1]))[0]
        return closed_form if np.all(np.isfinite(probe)) else quadrature


def _diverges(p: Array, theta: Array) -> bool:
    """Whether ⟨f'g'⟩ grows like 1/cos θ towards θ = π/2 (both functions jump at one place)."""
    if len(p) < 4:
        return False
    order = np.argsort(theta)
    p, theta = p[order], theta[order]
    return bool(abs(p[-1]) > 3 * abs(p[-2]) and abs(p[-2]) > 1.5 * abs(p[-3])) and bool(np.pi / 2 - theta[-1] < 0.1)


def _jump(f: Function, kink: float) -> float:
    ends = f(np.array([kink - 1e-9, kink + 1e-9]))
    return float(ends[1] - ends[0])


def _kinks(switches: Callable[[Array], list[Array]]) -> Array:
    """Zeros of the switching expressions of a site function, found on a scan and polished."""
    scan = np.concatenate([-np.geomspace(1e3, 12, 60), np.linspace(-12, 12, 1201) + 1e-7, np.geomspace(12, 1e3, 60)])
    found: list[float] = []
    with np.errstate(all="ignore"):
        for j, values in enumerate(switches(scan)):
            values = np.broadcast_to(values, scan.shape)
            for i in np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0):
                found.append(
                    brentq(
                        lambda u, j=j: float(np.ravel(switches(np.array([u]))[j])[0]),
                        scan[i],
                        scan[i + 1],
                        xtol=1e-15,
                        rtol=1e-15,
                    )
                )
            found += [float(u) for u in scan[values == 0][:1] if np.count_nonzero(values == 0) < 10]
    kinks = np.array(sorted(found))
    kinks[np.abs(kinks) < 1e-14] = 0.0
    return kinks[np.concatenate([[True], np.diff(kinks) > 1e-12])] if len(kinks) else kinks


def line_average(f: Callable[[Array, Array], Array], m: float, v: float, kinks: Array, tol: float = 1e-14) -> Number:
    """⟨f(u, z)⟩ for u = m + √v z, with the difference of two refinements as its error."""
    s = np.sqrt(v)
    previous = None
    where = (kinks - m) / s if s > 0 else np.empty(0)
    for width in _WIDTHS:
        rule = panels(where, width) if len(where) else smooth_panels(width)
        values = f(m + s * rule.z, rule.z)
        value, size = float(np.sum(values * rule.w)), float(np.sum(np.abs(values) * rule.w))
        if previous is not None and abs(value - previous) <= tol * max(size, 1e-300):
            break
        previous, last = value, previous
    error = abs(value - (previous if previous is not None else value)) + 2 * _EPS * size
    if not np.isfinite(value):
        raise QuenchedError(f"a Gaussian average does not exist at mean {m:.6g} and variance {v:.6g}")
    return Number(value, error)


def _covariance(f: Site, g: Site, m: float, v: float, width: float, kinks: Array) -> float:
    s = np.sqrt(v)
    return float(_weighted_covariance(f, g, np.array(m), np.array(s), panels((kinks - m) / s, width)))


def _covariances(f: Site, g: Site, m: float, v: Array, rule: Panels) -> Array:
    s = np.sqrt(v)[..., None, None]
    return _weighted_covariance(f, g, np.array(m), s, rule)


def _weighted_covariance(f: Site, g: Site, m: Array, s: Array, rule: Panels) -> Array:
    u = m + s * rule.z
    scale = s[..., 0, 0] if np.ndim(s) else s
    first = rule.cumulative(f.value(u))
    second = first if g is f else rule.cumulative(g.value(u))
    first = first - rule.mean(first)[..., None, None]
    second = second - rule.mean(second)[..., None, None]
    return rule.mean(first * second) * scale**2


def plane_average(
    f: Site, g: Site, m1: float, s1: float, m2: float, s2: float, theta: Array, tol: float = 1e-14
) -> tuple[Array, Array | None, float]:
    """⟨f g⟩ and ⟨f' g'⟩ (None: distributions) at angles θ, and the estimated error of the former."""
    smooth = not len(f.kinks) and not len(g.kinks)
    slopes = f.slope is not None and g.slope is not None
    if smooth and slopes:
        series = _mehler(f, g, m1, s1, m2, s2, theta, tol)
        if series is not None:
            return series
    average = _smooth_plane if smooth else _kinked_plane
    probe = theta[[0, len(theta) // 3, -1]]
    kinks = (f.kinks, g.kinks)
    slots = (m1, s1, m2, s2)
    with np.errstate(all="ignore"):
        level = 0
        reference = average(f.raw, g.raw, *kinks, *slots, probe, level)
        while True:
            refined = average(f.raw, g.raw, *kinks, *slots, probe, level + 1)
            error, size = float(np.max(np.abs(refined - reference))), float(np.max(np.abs(refined))) + 1e-300
            if error < 3 * tol * size or level >= (4 if smooth else 2):
                break
            level, reference = level + 1, refined
        use = level if error < 3 * tol * size else level + 1
        values = average(f.raw, g.raw, *kinks, *slots, theta, use)
    check_finite(values, f"<{f.name} {g.name}>")
    derivative = None
    if slopes:
        assert f.slope is not None and g.slope is not None
        derivative = average(f.slope, g.slope, *kinks, *slots, theta, use)
    return values, derivative, error + 2 * _EPS * size


@lru_cache(maxsize=8)
def hermite_rule(orders: int) -> tuple[Array, Array]:
    """Nodes z and matrix (orders, nodes) from f(z) to its coefficients in normalised Hermite polynomials."""
    reach = 13.5
    z = np.linspace(-reach, reach, 401 if orders <= 256 else 801 if orders <= 512 else 1201)
    root = np.exp(-0.25 * z * z)
    basis = np.empty((orders, len(z)))
    basis[0], basis[1] = root, z * root
    for n in range(1, orders - 1):
        basis[n + 1] = (z * basis[n] - np.sqrt(n) * basis[n - 1]) / np.sqrt(n + 1)
    return z, basis * (root * (z[1] - z[0]) / np.sqrt(2 * np.pi))


def _mehler(
    f: Site, g: Site, m1: float, s1: float, m2: float, s2: float, theta: Array, tol: float
) -> tuple[Array, Array, float] | None:
    """⟨fg⟩ = Σ a_n b_n ρⁿ and the same for the slopes, if the squares of the coefficients exhaust ⟨f²⟩ and ⟨f'²⟩."""
    assert f.slope is not None and g.slope is not None
    if s1 * s2 > 40:
        return None
    for orders in (64, 128, 256, 512, 1024):
        z, matrix = hermite_rule(orders)
        with np.errstate(all="ignore"):
            u, v = m1 + s1 * z, m2 + s2 * z
            first, second = (f.raw(u), f.slope(u)), (g.raw(v), g.slope(v))
        if not all(np.all(np.isfinite(x)) for x in (*first, *second)):
            return None
        norm = matrix[0]
        pairs, ripe, error = [], True, 0.0
        for a, b in zip(first, second, strict=True):
            ca, cb = matrix @ a, matrix @ b
            tails = [abs(float(norm @ (x * x) - c @ c)) for x, c in ((a, ca), (b, cb))]
            size = float(np.sqrt((norm @ (a * a)) * (norm @ (b * b))))
            last = float(np.sqrt(np.sum(ca[-8:] ** 2) * np.sum(cb[-8:] ** 2)))
            lost = float(np.sqrt(tails[0] * tails[1]))
            # Rounding of the recurrence alone leaves a few 1e-14.
            ripe = ripe and lost < max(2 * tol, 1e-13) * size and last < tol * size
            pairs.append(ca * cb)
            error = error or lost
        if ripe:
            powers = np.sin(theta)[:, None] ** np.arange(orders)
            return powers @ pairs[0], powers @ pairs[1], error
    return None


def _smooth_plane(
    f: Function, g: Function, _f: Array, _g: Array, m1: float, s1: float, m2: float, s2: float, theta: Array, level: int
) -> Array:
    z, w = trapezoid(_POINTS[level])
    first = f(m1 + s1 * z) * w
    grid = np.empty((len(z), len(z)))
    out = np.empty(len(theta))
    for i, t in enumerate(theta):
        np.add.outer(m2 + (s2 * np.sin(t)) * z, (s2 * np.cos(t)) * z, out=grid)
        out[i] = first @ (g(grid) @ w)
    return out


def _kinked_plane(
    f: Function, g: Function, kf: Array, kg: Array, m1: float, s1: float, m2: float, s2: float, theta: Array, level: int
) -> Array:
    width = 1.0 * 0.5**level
    # For θ → ±π/2 the inner average has a layer of width cos θ where v crosses a kink.
    places = (kg - m2) / s2
    where = np.concatenate([(kf - m1) / s1, places, -places])
    outer = panels_from_edges(graded_edges(where, 2 * width))
    z, w = outer.z.ravel(), outer.w.ravel()
    first = f(m1 + s1 * z) * w
    count = int(np.ceil(REACH / width))
    x, weights = legendre(ORDER)
    unit = ((np.arange(count)[:, None] + 0.5 + 0.5 * x) / count).ravel()
    share = np.tile(weights / (2 * count), count)
    out = np.empty(len(theta))
    for i, t in enumerate(theta):
        sin, cos = np.sin(t), max(np.cos(t), 1e-300)
        cuts = np.sort(np.clip((kg - m2 - s2 * sin * z[:, None]) / (s2 * cos), -REACH, REACH), axis=1)
        edges = np.concatenate([np.full((len(z), 1), -REACH), cuts, np.full((len(z), 1), REACH)], axis=1)
        inner = np.zeros(len(z))
        for a, b in zip(edges[:, :-1].T, edges[:, 1:].T, strict=True):
            y = a[:, None] + (b - a)[:, None] * unit
            inner += ((g(m2 + s2 * (sin * z[:, None] + cos * y)) * density(y)) @ share) * (b - a)
        out[i] = first @ inner
    return out


def check_finite(values: Array, what: str) -> None:
    """Raise a ConvergenceError naming `what` if an array holds anything that is not finite."""
    if not np.all(np.isfinite(values)):
        raise ConvergenceError(f"{what} is not finite")
