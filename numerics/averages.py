"""Gaussian averages of one problem at given parameters, with a-posteriori errors.

⟨f(u) g(v)⟩ is tabulated against θ with cov(u, v) = sin θ · √(var u · var v): the pair (z, y) of independent normals is
rotated by θ, u = m₁ + s₁ z, v = m₂ + s₂ (z sin θ + y cos θ). As a function of θ the average is smooth for smooth and
for kinked functions alike (sign: 2θ/π), so that a short Chebyshev series holds it. Its derivative with respect to the
covariance is ⟨f' g'⟩ (Price's theorem): tabulated directly where f' is a function, else from the series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sympy import Symbol

from quenched.theory.errors import QuenchedError
from quenched.theory.problem import PotentialProblem, StationaryGaussian

from .codegen import generate, switching
from .delays import modes
from .labels import condensed, grouped, label_nodes, once_linear, polynomial_degrees
from .planes import (
    kinked_covariance,
    line_average,
    mehler,
    plane_average,
    smooth_covariances,
    smooth_line_averages,
)
from .quadrature import chebyshev, smooth_panels
from .sites import Function, Site, find_kinks, jump_at
from .steps import steps_of, steps_plane
from .tables import Table, diverges
from .types import Array, Number

_EPS = float(np.finfo(float).eps)
#: Nodes that stand for the product grid of many labels where only one mixture of them is read.
_CONDENSED = 128
#: Means at which averages over them are compared with those over the grid, and how well they have to agree.
_PROBES, _FAITHFUL = (-1.3, 0.0, 0.7), 1e-9


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
            functions = [site.expr for site in self.generated.sites]
            elsewhere = [a.constant for a in problem.arguments]
            degrees = polynomial_degrees(problem.labels, functions, elsewhere)
            nodes, self.weights = label_nodes(problem.labels, number, degrees=degrees)
        else:
            nodes, self.weights = [()], np.ones(1)
        self.p = [(*bound, *node) for node in nodes]
        self._condensed: dict[int, list[tuple[int, float]]] = {}
        self._offsets = self._label_offsets()
        for a in range(len(problem.arguments) if problem.labels else 0):
            self._condense(a)
        self._sites: dict[tuple[int, int], Site] = {}
        self._tables: dict[tuple, Table] = {}
        self._checked: set[int] = set()
        self._nodes: dict[tuple[int, ...], list[tuple[int, float]]] = {}

    def nodes(self, sites: Sequence[int], arguments: Sequence[int]) -> list[tuple[int, float]]:
        """(node, weight) of the labels, nodes joined that these site functions and arguments do not tell apart."""
        key = (*sites, -1, *arguments)
        if key not in self._nodes:
            self._nodes[key] = self._joined(sites, arguments)
        return self._nodes[key]

    def _joined(self, sites: Sequence[int], arguments: Sequence[int]) -> list[tuple[int, float]]:
        if len(self.weights) == 1:
            return [(0, float(self.weights[0]))]
        symbols = [label.symbol for label in self.problem.labels]
        functions = [self.generated.sites[k].expr for k in sites]
        if len({*arguments}) == 1 and arguments[0] in self._condensed and once_linear(functions, symbols):
            few = self._condensed[arguments[0]]
            if self._faithful(sites, arguments[0], few):
                return few
        read = set().union(*(f.free_symbols for f in functions))
        used = [len(self.p[0]) - len(symbols) + i for i, s in enumerate(symbols) if s in read]
        count = len(self.weights)
        key = np.column_stack([self._offsets[:count, list(arguments)], np.array(self.p[:count])[:, used]])
        return grouped(key, self.weights)

    def _faithful(self, sites: Sequence[int], a: int, few: list[tuple[int, float]]) -> bool:
        """Whether these nodes give the averages of a product of functions even where no variance smooths them."""
        start = len(self.p[0]) - len(self.problem.labels)

        def averages(nodes: list[tuple[int, float]]) -> Array:
            rows, share = np.array([l for l, _ in nodes]), np.array([w for _, w in nodes])
            columns = np.array(self.p)[rows][:, start:].T
            u = self._offsets[rows, a][:, None] + np.array(_PROBES)
            return share @ np.prod([self._stack(k, self.p[0][:start], columns).raw(u) + 0 * u for k in sites], axis=0)

        whole = averages(list(enumerate(map(float, self.weights))))
        return bool(np.all(np.abs(averages(few) - whole) < _FAITHFUL * (1 + np.abs(whole))))

    def _condense(self, a: int) -> None:
        """Append nodes of the offset of one argument that stand for the product grid of many labels."""
        known, count = self._offsets[: len(self.weights)], len(self.p[0]) - len(self.problem.labels)
        if len(np.unique(np.round(known[:, a], 12))) <= 4 * _CONDENSED:
            return
        labels = np.array(self.p[: len(self.weights)])[:, count:]
        x, weights, means = condensed(known[:, a], self.weights, labels, _CONDENSED)
        first, rows = len(self.p), np.zeros((len(x), known.shape[1]))
        rows[:, a] = x
        self.p += [(*self.p[0][:count], *row) for row in means.tolist()]
        self._offsets = np.vstack([self._offsets, rows])
        self._condensed[a] = [(first + i, float(w)) for i, w in enumerate(weights)]

    # -- pieces of the linear equations

    def constants(self) -> Array:
        """Constant parts of the means, (labels, arguments)."""
        count = len(self.weights)
        rows = self.code.mean_constants(None, tuple(np.array(self.p[:count], dtype=float).T))
        return np.stack([np.broadcast_to(np.asarray(row, dtype=float), (count,)) for row in rows], axis=-1)

    def offsets(self) -> Array:
        """Label dependence of the means: constant minus its average over labels, (nodes, arguments)."""
        return self._offsets

    def _label_offsets(self) -> Array:
        constants = self.constants()
        found = constants - self.weights @ constants
        return np.where(np.max(np.abs(found), axis=0) > 1e-14, found, 0.0)

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

    def transfer(self, p: int, s: int, rate: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
        """Gain of pair p from source s of a map as a function of θ, at growth rate λ."""

        def gain(theta: np.ndarray) -> np.ndarray:
            return self.gains(np.exp(rate + 1j * theta), np.exp(rate - 1j * theta))[:, p, s]

        return gain

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
        poles = [modes(c) for c in self.code.gain_poles(0.371 + 0.913j, self.p[0])]
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
        return any(abs(jump_at(f.value, k)) > 1e-6 and abs(jump_at(g.value, k)) > 1e-6 for k in f.kinks)

    def curvature(self, s: int, m: float, v: float, second: bool = False) -> tuple[float, float] | None:
        """⟨f'g⟩ and ⟨f''g⟩ (second: of g) at equal times, by Stein's identity; None for distributions."""
        t = self.problem.two_points[s]
        k, j = self.generated.site(t.f), self.generated.site(t.g)
        k, j = (j, k) if second else (k, j)
        offset = self.offsets()[:, t.a]
        first, curved = 0.0, 0.0
        for l, weight in self.nodes((k, j), (t.a,)):
            f, g = self.site(k, l), self.site(j, l)
            if f.slope is None or g.slope is None:
                return None
            kinks = np.concatenate([f.kinks, g.kinks])
            here = (m + offset[l], v, kinks)
            slope, other, plain = f.slope, g.slope, g.raw
            base = line_average(_product(slope, plain), *here).value
            lean = line_average(_product(slope, plain, lever=True), *here).value
            cross = line_average(_product(slope, other), *here).value
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
            self._sites[k, label] = self.generated.site_at(k, self.p[label], self._make_site)
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

        kinks = find_kinks(lambda u: getattr(self.code, f"switches_{k}")(u, p))
        probe = np.concatenate([np.linspace(-30, 30, 121) + 1e-3, kinks + 1e-9, kinks - 1e-9])
        jumps = bool(len(kinks)) and bool(np.any(np.abs(value(kinks + 1e-9) - value(kinks - 1e-9)) > 1e-6))
        usable = derivative(np.zeros(1)) is not None and not jumps and bool(np.all(np.isfinite(derivative(probe))))
        return Site(name, value, lambda u: raw(u, p), derivative if usable else None, kinks, steps_of(value, kinks))

    def stacked(self, sites: Sequence[int], nodes: Sequence[tuple[int, float]]) -> list[Site] | None:
        """Smooth site functions of arrays (nodes, …) at many nodes at once; None for kinked ones and for one node."""
        if len(nodes) < 2 or any(switching(self.generated.sites[k].expr) for k in sites):
            return None
        count = len(self.p[0]) - len(self.problem.labels)
        columns = np.array([self.p[l][count:] for l, _ in nodes], dtype=float).T
        found = {k: self._stack(k, self.p[0][:count], columns) for k in sites}
        return None if any(site.slope is None for site in found.values()) else [found[k] for k in sites]

    def _stack(self, k: int, fixed: tuple[float, ...], columns: Array) -> Site:
        raw, slope = getattr(self.code, f"site_{k}"), getattr(self.code, f"slope_{k}")

        def over(f: Any) -> Function:
            def call(u: Array) -> Array:
                p = (*fixed, *(c.reshape(-1, *[1] * (u.ndim - 1)) for c in columns))
                return np.asarray(f(u, p))

            return call

        def value(u: Array) -> Array:
            with np.errstate(all="ignore"):
                out = over(raw)(u)
            if not np.all(np.isfinite(out)):
                raise QuenchedError(f"{self.generated.sites[k].name}(u) is not a finite real number at some label")
            return out

        usable = self.site(k).slope is not None
        return Site(self.generated.sites[k].name, value, over(raw), over(slope) if usable else None, np.empty(0))

    # -- one argument

    def one(self, k: int, m: float, v: float, power: int = 1) -> Number:
        """⟨f^power⟩ at mean m (label average) and variance v of the argument of one-point source k."""
        source = self.problem.one_points[k]
        return self.site_mean(self.generated.site(source.f), source.a, m, v)

    def site_mean(self, k: int, a: int, m: float, v: float, derivative: bool = False) -> Number:
        """⟨f⟩ or ⟨f'⟩ of site function k of argument a. ⟨f'⟩ = ⟨z f⟩/s (Stein) where f' is a distribution."""
        offset = self.offsets()[:, a]
        total, error = 0.0, 0.0
        nodes = self.nodes((k,), (a,))
        many = self.stacked((k,), nodes)
        if many is not None:
            at, shares = [l for l, _ in nodes], np.array([w for _, w in nodes])
            function = many[0].slope if derivative else many[0].value
            assert function is not None
            return smooth_line_averages(_product(function), m + offset[at], v, shares)
        for l, weight in nodes:
            site = self.site(k, l)
            if site.steps is not None:
                found = (site.steps.slope if derivative else site.steps.mean)(m + offset[l], v)
                total, error = total + weight * found, error + 4 * _EPS * abs(weight * found)
                continue
            if not derivative:
                integrand = _product(site.value)
            elif site.slope is not None:
                integrand = _product(site.slope)
            else:
                integrand = _product(site.value, scale=1 / np.sqrt(v), lever=True)
            part = line_average(integrand, m + offset[l], v, site.kinks)
            total, error = total + weight * part.value, error + weight * part.error
        return Number(total, error)

    def equal_time(self, k: int, j: int, a: int, m: float, v: float, derivative: bool = False) -> Number:
        """⟨f g⟩ or ⟨f' g'⟩ of site functions k and j of the same argument at equal times (inf for jumps)."""
        offset = self.offsets()[:, a]
        total, error = 0.0, 0.0
        nodes = self.nodes((k, j), (a,))
        many = self.stacked((k, j), nodes)
        if many is not None:
            at, shares = [l for l, _ in nodes], np.array([w for _, w in nodes])
            one, two = (s.slope or s.value if derivative else s.value for s in many)
            return smooth_line_averages(_product(one, two), m + offset[at], v, shares)
        for l, weight in nodes:
            f, g = self.site(k, l), self.site(j, l)
            if derivative and (f.slope is None or g.slope is None):
                return Number(np.inf, 0.0)
            if f.steps is not None and g.steps is not None:
                found = f.steps.times(g.steps).mean(m + offset[l], v)
                total, error = total + weight * found, error + 4 * _EPS * abs(weight * found)
                continue
            first, second = (f.slope or f.value, g.slope or g.value) if derivative else (f.value, g.value)
            part = line_average(_product(first, second), m + offset[l], v, np.concatenate([f.kinks, g.kinks]))
            total, error = total + weight * part.value, error + weight * part.error
        return Number(total, error)

    def antiderivative_covariance(self, k: int, j: int, a: int, m: float, v: Array, width: float) -> Array:
        """cov(F, G) = ⟨FG⟩ − ⟨F⟩⟨G⟩ at equal times, F' = f, G' = g, for an array of variances; label-averaged.

        F and G are integrated on the quadrature nodes from u = m, which loses no digits however small v is.
        """
        offset = self.offsets()[:, a]
        total = np.zeros(np.shape(v))
        for l, weight in self.nodes((k, j), (a,)):
            f, g = self.site(k, l), self.site(j, l)
            kinks = np.unique(np.concatenate([f.kinks, g.kinks]))
            if len(kinks):
                total += weight * np.array(
                    [kinked_covariance(f, g, m + offset[l], x, width, kinks) for x in v.flat]
                ).reshape(v.shape)
            else:
                total += weight * smooth_covariances(f, g, m + offset[l], v, smooth_panels(width))
        return total

    # -- two arguments

    def table(
        self,
        s: int,
        m: Array,
        v: Array,
        low: float = -np.pi / 2,
        high: float = np.pi / 2,
        tol: float = 1e-13,
        slopes: bool = True,
    ) -> Table:
        """`Table` of two-point source s at means m and variances v of the arguments, remembered."""
        t = self.problem.two_points[s]
        slots = (float(m[t.a]), float(m[t.b]), float(v[t.a]), float(v[t.b]))
        key = (s, *slots, low, high, tol, slopes)
        if key not in self._tables:
            self._tables[key] = self._make_table(s, slots, low, high, tol, slopes)
        return self._tables[key]

    def _make_table(
        self, s: int, slots: tuple[float, float, float, float], low: float, high: float, tol: float, want: bool
    ) -> Table:
        v1, v2 = slots[2:]
        sample = self._sampler(s, *slots, max(tol / 10, 1e-14), want)
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
        self, s: int, m1: float, m2: float, v1: float, v2: float, tol: float = 1e-14, want: bool = True
    ) -> Callable[[Array], tuple[Array, Array | None, float]]:
        source = self.problem.two_points[s]
        offsets = self.offsets()
        closed: Any = getattr(self.code, f"two_{s}", None)
        closed_slope: Any = getattr(self.code, f"two_slope_{s}", None)
        kf, kg = self.generated.site(source.f), self.generated.site(source.g)
        scale = np.sqrt(v1 * v2)
        nodes = self.nodes((kf, kg), (source.a, source.b))
        many = self.stacked((kf, kg), nodes)
        at, shares = [l for l, _ in nodes], np.array([w for _, w in nodes])

        def closed_form(theta: Array) -> tuple[Array, Array | None, float]:
            t, p = np.zeros(len(theta)), np.zeros(len(theta))
            for l, weight in nodes:
                slots = (m1 + offsets[l, source.a], m2 + offsets[l, source.b], v1, v2, scale * np.sin(theta))
                with np.errstate(all="ignore"):
                    t += weight * closed(*slots, self.p[l])
                    p += weight * (closed_slope(*slots, self.p[l]) if closed_slope else np.nan)
            usable = bool(np.all(np.isfinite(p))) and not diverges(p, theta)
            return t, p if usable else None, 0.0

        def quadrature(theta: Array) -> tuple[Array, Array | None, float]:
            if many is not None:
                f, g = many
                where = (m1 + offsets[at, source.a], np.sqrt(v1), m2 + offsets[at, source.b], np.sqrt(v2))
                series = mehler(f, g, *where, theta, tol, shares, want)
                if series is not None:
                    return series
            one, two = self.site(kf, at[0]), self.site(kg, at[0])
            if one.steps and two.steps and all(self.site(k, l) is s for k, s in ((kf, one), (kg, two)) for l in at):
                where = (m1 + offsets[at, source.a], np.sqrt(v1), m2 + offsets[at, source.b], np.sqrt(v2))
                return steps_plane(one.steps, two.steps, *where, theta, shares)
            t, p, error = np.zeros(len(theta)), np.zeros(len(theta)), 0.0
            for l, weight in nodes:
                f, g = self.site(kf, l), self.site(kg, l)
                slots = (m1 + offsets[l, source.a], np.sqrt(v1), m2 + offsets[l, source.b], np.sqrt(v2))
                dt, dp, de = plane_average(f, g, *slots, theta, tol, want)
                t += weight * dt
                p = p + weight * dp if dp is not None else np.full(len(theta), np.nan)
                error += weight * de
            return t, p if np.all(np.isfinite(p)) else None, error

        if closed is None or not np.all(np.isfinite(closed_form(np.array([-0.7, 0.3, 1.1]))[0])):
            return quadrature
        if s not in self._checked:
            self._checked.add(s)
            angle = np.array([0.8])
            given, summed = float(closed_form(angle)[0][0]), float(quadrature(angle)[0][0])
            size = np.sqrt(abs(float(closed_form(np.array([np.pi / 2]))[0][0]))) if kf == kg else abs(summed)
            if abs(given - summed) > 1e-6 * max(size, abs(summed)):
                raise QuenchedError(
                    f"the closed form of <{source.f.name} {source.g.name}> gives {given:.9g}, quadrature {summed:.9g}"
                )
        return closed_form


def _product(
    f: Function, g: Function | None = None, *, scale: float = 1.0, lever: bool = False
) -> Callable[[Array, Array], Array]:
    """Integrand scale · f(u) g(u), times z with `lever`."""

    def integrand(u: Array, z: Array) -> Array:
        out = f(u) * scale if g is None else f(u) * g(u) * scale
        return out * z if lever else out

    return integrand
