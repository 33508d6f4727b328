"""Site averages over many independent labels that the field is a sum of, and their derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sympy import Expr, Symbol, sqrt

from quenched.theory.errors import NotCovered
from quenched.theory.problem_replicas import L, SiteAverage

from .replica_cold import VARIANCE, Z, best, by_parts, changes
from .replica_compile import compiled, slopes_of
from .replica_signs import Density, affine, every, label_product, split
from .replica_sites import Site
from .types import Array

if TYPE_CHECKING:
    from .replica_evaluator import Evaluator

#: Relative step of derivatives in V, of whole sites.
STEP_V = 1e-6


class FreeAverage:
    """A site average over many independent labels that the field is a sum of."""

    def __init__(self, ev: Evaluator, node: SiteAverage, site: Site) -> None:
        self.ev, self.site = ev, site
        self.free = tuple(q.symbol for q in site.free)
        if len(site.cases) != 1 or set(node.labels) - set(self.free):
            raise NotCovered(f"site {site.name} has many labels next to others: only sums of independent ones")
        b, k, v = node.field
        constant, slopes = affine(b, self.free)
        if k.has(*self.free) or v.has(*self.free):
            raise NotCovered(f"the variance of the field of {site.name} depends on many labels")
        self.entries = (constant, k, v, *slopes)
        self.fields = compiled(tuple(ev.names), self.entries, "math")
        self.curved = site.cold and node.poly.has(L[2] ** 2)
        self.terms = [(powers, self._functions(c)) for powers, c in split(node.poly, self.free)]

    def _functions(self, poly: Expr) -> tuple[Any, Any, Any]:
        """Functions of L₀, L₁, L₂ that stand under the density, under minus its slope, and without integration."""
        plain = compiled(L[:3], poly, "numpy")
        if not self.site.cold:
            return plain, None, plain
        moved = by_parts(poly)
        under = moved.coeff(Z, 1) * sqrt(VARIANCE)
        return compiled(L[:3], moved.coeff(Z, 0), "numpy"), compiled(L[:3], under, "numpy"), plain

    _nowhere = np.empty(0)

    def __call__(self, at: dict[Symbol, float]) -> float:
        b, k, v, *slopes = self.fields(*(at[s] for s in self.ev.names))
        return self._value(self._prepared(b, k, v, np.array(slopes)))

    def _value(self, prepared: Any) -> float:
        kind, density, arrays, jumps = prepared
        if self.curved and jumps:
            return np.inf
        if kind == "all":
            values, p = density
            return float(sum(np.sum(p * label_product(w, values) * f[2](*arrays)) for w, f in self.terms))
        total = 0.0
        for powers, (under, slope, _) in self.terms:
            total += density.average(powers, under, under(*arrays) + 0 * arrays[0])
            if slope is not None:
                total -= density.average(powers, slope, slope(*arrays) + 0 * arrays[0], True)
        return total

    # -- derivatives -------------------------------------------------------------------------------------------
    def gradient(self, at: dict[Symbol, float], unknowns: tuple[Symbol, ...]) -> Array:
        """Derivatives in some symbols: of the density exactly, of the site in V by a difference."""
        numbers = [at[s] for s in self.ev.names]
        b, k, v, *slopes = self.fields(*numbers)
        a = np.array(slopes)
        rates = np.zeros((len(self.entries), len(unknowns)))
        places, parts = slopes_of(self.entries, unknowns)
        for (i, j), rate in zip(places, compiled(tuple(self.ev.names), parts, "math")(*numbers), strict=True):
            rates[i, j] = rate
        inside = np.zeros(len(self.entries))
        prepared = self._prepared(b, k, v, a)
        inside[[0, 1]], inside[3:] = self._in_density(prepared, b, v, a)
        if rates[2].any():
            inside[2] = self._in_v(prepared, b, k, v, a)
        return np.asarray(inside @ rates)

    def _in_density(self, prepared: Any, b: float, v: float, a: Array) -> tuple[Array, Array]:
        """Derivatives in (b, k), and in the slopes."""
        kind, density, arrays, _ = prepared
        if kind == "all":
            return self._in_fields(density, b, v, a)
        first, second = np.zeros(2), np.zeros(len(a))
        for powers, (under, slope, _) in self.terms:
            for sign, f, once in ((1, under, False), (-1, slope, True)):
                if f is not None:
                    more = density.gradient(powers, f, f(*arrays) + 0 * arrays[0], once)
                    first, second = first + sign * more[0], second + sign * more[1]
        return first, second

    def _in_fields(self, density: Any, b: float, v: float, a: Array) -> tuple[Array, Array]:
        """The same without a Gaussian part: by differences in the field."""
        values, p = density
        h, step = b + values @ a, 1e-5
        up, down = (self._arrays(h + d, v)[0] for d in (step, -step))
        first, second = np.zeros(2), np.zeros(len(a))
        for powers, f in self.terms:
            rate = p * label_product(powers, values) * (f[2](*up) - f[2](*down)) / (2 * step)
            first[0] += rate.sum()
            second += rate @ values
        return first, second

    def _in_v(self, prepared: Any, b: float, k: float, v: float, a: Array) -> float:
        """Derivative in V, nothing for sites whose ⟨x⟩ does not depend on it."""
        step = STEP_V * (abs(v) + 1e-3)
        kind, density, (_, first, second), _ = prepared
        key = (self.site.name, "moved", b, k, v, a.tobytes())
        if key not in self.ev.cache:
            moved = self._arrays(b + density[0] @ a if kind == "all" else density.nodes, v + step, self._nowhere)[0]
            still = np.array_equal(moved[1], first) and np.array_equal(moved[2], second)
            self.ev.cache[key] = cast(Any, still)
        if self.ev.cache[key] and not self._reads_value():
            return 0.0
        return (self._value(self._prepared(b, k, v + step, a)) - self._value(prepared)) / step

    def _reads_value(self) -> bool:
        """Whether the average is over L₀ itself."""
        x = np.ones(1)
        return any(np.any(f[2](x, x, x) != f[2](2 * x, x, x)) for _, f in self.terms)

    # -- the site at the nodes -----------------------------------------------------------------------------------
    def _prepared(self, b: float, k: float, v: float, a: Array) -> Any:
        self.ev._check(self.site, b, k, v)
        key = (self.site.name, b, k, v, a.tobytes())
        if key not in self.ev.cache:
            self.ev.cache[key] = cast(Any, self._prepare(b, k, v, a))
        return self.ev.cache[key]

    def _prepare(self, b: float, k: float, v: float, a: Array) -> Any:
        site, parts = self.site, self.site.cases[0].parts
        labels = list(site.free)
        if k < 1e-13:
            values, p = every(labels, site.name)
            return "all", (values, p), *self._arrays(b + values @ a, v)
        jumps = None
        if site.cold:
            reach = float(np.sum(np.abs(a) * [np.max(np.abs(q.values)) for q in labels])) + 12 * np.sqrt(k)
            jumps = changes(site.kind, parts, b - reach, b + reach, v, site.name)
        density = Density(labels, a, k, b, jumps, self.ev.fine)
        return "density", density, *self._arrays(density.nodes, v, jumps)

    def _arrays(self, h: Array, v: float, jumps: Array | None = None) -> tuple[tuple[Array, ...], bool]:
        site, parts = self.site, self.site.cases[0].parts
        if not site.cold:
            return site.logs(0, h, v), False
        found = best(site.kind, parts, h, v, site.name)
        if jumps is None:
            jumps = changes(site.kind, parts, float(np.min(h)), float(np.max(h)), v, site.name)
        return (found.value, found.first, found.second), bool(len(jumps))
