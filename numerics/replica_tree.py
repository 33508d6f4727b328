"""Averages over nested Gaussian fields, for replicas in blocks within blocks.

Fields are nodes on a tensor grid, one axis a level. Gaussian sites keep quadratic log-partition functions at every
level, whose nodes are centred exactly; at zero temperature the innermost axis is split where the maximiser jumps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from quenched.theory.errors import ConvergenceError, NotCovered

from .quadrature import trapezoid
from .replica_cold import best, changes
from .replica_parts import Part
from .replica_sites import Case, Site
from .replica_smooth import LabelledDensity
from .types import Array

#: Nodes of an axis whose integrand is smooth.
NODES = 121


class Tree:
    """Log-partition functions and weights of one site on the grid of its fields."""

    def __init__(
        self, site: Site, b: float, k: float, levels: list[tuple[float, float]], v: float, fine: float
    ) -> None:
        assert len(site.cases) == 1
        if min(k, *(w for w, _ in levels), 0.0) < -1e-12:
            raise ConvergenceError(f"the field of site {site.name} has a negative variance")
        self.site, self.v, self.levels = site, v, levels
        self.sizes = [x for _, x in levels]
        fields, weights = self._grid(b, max(k, 0.0), fine)
        self.arrays = self._logs(fields)
        depth = len(levels)
        self.m: list[Array] = [np.empty(0)] * (depth + 2)
        self.m[depth + 1] = self.arrays[0]
        self.tilt: list[Array] = [np.empty(0)] * (depth + 1)
        for level in range(depth, 0, -1):
            x, log_w = self.sizes[level - 1], weights[level]
            exponent = log_w + x * self.m[level + 1]
            total = logsumexp(exponent, axis=-1, keepdims=True)
            self.tilt[level] = np.exp(exponent - total)
            self.m[level] = total[..., 0] / x
        self.outer = np.exp(weights[0])

    # -- nodes -----------------------------------------------------------------------------------------------------
    def _grid(self, b: float, k: float, fine: float) -> tuple[Array, list[Array]]:
        """Fields (z₀, …, z_k), and log weights of every axis given the outer ones."""
        depth = len(self.levels)
        gaussian = self.site.gaussian(0)
        z, w = (
            (_hermite(24) if gaussian else trapezoid(int(NODES * fine) | 1, 8.5))
            if k > 0
            else (np.zeros(1), np.ones(1))
        )
        fields, logs = b + np.sqrt(k) * z, [np.log(w)]
        curves = self._curvatures(b) if gaussian else []
        for level, (width, x) in enumerate(self.levels, start=1):
            root = np.sqrt(max(width, 0.0))
            if root == 0:
                fields, shape = fields[..., None], np.zeros(1)
                logs.append(shape)
            elif gaussian:
                slope, curve = curves[level](fields), curves[level].rate
                spread = 1 / (1 - x * width * curve)
                if spread <= 0:
                    raise ConvergenceError(f"the nested field of {self.site.name} has no finite weight")
                t, wt = _hermite(24)
                u = (x * root * slope * spread)[..., None] + np.sqrt(spread) * t
                logs.append(np.log(wt) + t**2 / 2 - u**2 / 2 + 0.5 * np.log(spread))
                fields = fields[..., None] + root * u
            elif self.site.cold and level == depth:
                u, log_w = self._split(fields, root, x, fine)
                logs.append(log_w)
                fields = fields[..., None] + root * u
            else:
                reach = 8.5 + x * root * self._steepest(b, k)
                t, wt = trapezoid(int(NODES * fine * reach / 8.5) | 1, float(reach))
                with np.errstate(divide="ignore"):
                    logs.append(np.log(wt))
                fields = fields[..., None] + root * t
        return fields, logs

    def _steepest(self, b: float, k: float) -> float:
        """How fast L may grow with its field."""
        ends = np.array([b - 30 * np.sqrt(k + 1), b + 30 * np.sqrt(k + 1)])
        return float(np.max(np.abs(self._logs(ends)[1])))

    def _split(self, fields: Array, root: float, x: float, fine: float) -> tuple[Array, Array]:
        """Nodes of the innermost axis between the places where the maximiser changes."""
        part, v, name = self.site.cases[0].parts, self.v, self.site.name
        reach = 8.5 + x * root * self._steepest(float(fields.flat[0]), float(np.ptp(fields)) ** 2)
        at = changes(
            self.site.kind, part, float(fields.min()) - reach * root, float(fields.max()) + reach * root, v, name
        )
        edges = np.stack(
            [np.full_like(fields, -reach), *((j - fields) / root for j in at), np.full_like(fields, reach)], -1
        )
        edges = np.clip(edges, -reach, reach)
        s = np.linspace(0, 1, max(2, round(5 * fine)) + 1)
        panels = (edges[..., :-1, None] + np.diff(edges, axis=-1)[..., None] * s).reshape(*fields.shape, -1)
        t, w = np.polynomial.legendre.leggauss(16)
        half = np.maximum(np.diff(panels, axis=-1) / 2, 0.0)
        u = ((panels[..., :-1] + half)[..., None] + half[..., None] * t).reshape(*fields.shape, -1)
        with np.errstate(divide="ignore"):
            log_w = np.log((half[..., None] * w).reshape(*fields.shape, -1)) - u**2 / 2 - 0.5 * np.log(2 * np.pi)
        return u, log_w

    def _curvatures(self, b: float) -> list[Any]:
        """Slopes of M_{l+1} as linear functions of the field, for a Gaussian site."""
        h = np.array([b, b + 1.0])
        slope = self._logs(h)[1]
        rate, level = float(slope[1] - slope[0]), float(slope[0])
        lines = [_Line(b, level, rate)]
        for width, x in reversed(self.levels):
            scale = 1 - x * width * lines[0].rate
            lines.insert(0, _Line(b, lines[0].level / scale, lines[0].rate / scale))
        return lines

    def _logs(self, fields: Array) -> tuple[Array, Array, Array]:
        if not self.site.cold:
            flat = self.site.logs(0, fields.reshape(1, -1), self.v)
            return tuple(a.reshape(fields.shape) for a in flat)  # type: ignore[return-value]
        found = best(self.site.kind, self.site.cases[0].parts, fields.ravel(), self.v, self.site.name)
        return tuple(a.reshape(fields.shape) for a in (found.value, found.first, found.second))  # type: ignore[return-value]

    # -- averages --------------------------------------------------------------------------------------------------
    def inward(self, values: Array, down_to: int) -> Array:
        """⟨…⟩ over the levels from the innermost to `down_to`."""
        for level in range(len(self.levels), down_to - 1, -1):
            values = np.sum(self.tilt[level] * values, axis=-1)
        return values

    def rest(self, values: Array, level: int) -> float:
        """What is left of the average of a function of the fields up to a level."""
        for inner in range(level, 0, -1):
            values = np.sum(self.tilt[inner] * values, axis=-1)
        return float(np.sum(self.outer * values))

    def average(self, what: str, level: int, poly: Any) -> float:
        """One nested average (see `TreeAverage`)."""
        if what == "log":
            return self.rest(self.m[level], level - 1)
        if what == "break":
            x = self.sizes[level - 1]
            here = np.sum(self.tilt[level] * self.m[level + 1], axis=-1)
            return self.rest((here - self.m[level]) / x, level - 1)
        values = poly(*self.arrays) + 0 * self.arrays[0]
        if what == "square":
            return self.rest(self.inward(values, level + 1) ** 2, level)
        return self.rest(self.inward(values, 1), 0)


def label_sites(site: Site) -> list[tuple[dict[Any, float], float, Site]]:
    """A site at all values of its labels: (values, probability, site without labels); equal measures are one object.

    Raises
    ------
    NotCovered
        Too many labels to write their values out.
    """
    if site.free:
        raise NotCovered(f"site {site.name} sees too many labels for blocks of replicas")
    out: list[tuple[dict[Any, float], float, Site]] = []
    for case in site.cases:
        varying = any(
            isinstance(e, np.ndarray | LabelledDensity)
            for p in case.parts
            for e in (p.lo, p.hi, p.smooth, *(p.c or ()))
        )
        plain = Site(site.kind, (Case({}, np.ones((1, 1)), case.parts),), site.name, site.cold)
        for r, chance in enumerate(np.ravel(case.probability)):
            own = {q: float(np.ravel(a)[r % np.size(a)]) for q, a in case.labels.items()}
            here = plain if not varying else replace(plain, cases=(Case({}, np.ones((1, 1)), at_row(case.parts, r)),))
            out.append((own, float(chance), here))
    return out


def at_row(parts: tuple[Part, ...], row: int) -> tuple[Part, ...]:
    """Pieces of a measure at one set of values of its labels."""

    def take(a: Any) -> Any:
        return float(np.ravel(a)[row % np.size(a)]) if isinstance(a, np.ndarray) else a

    def at(p: Part) -> Part:
        smooth = p.smooth.at_row(row) if isinstance(p.smooth, LabelledDensity) else p.smooth
        c: Any = None if p.c is None else tuple(map(take, p.c))
        return replace(p, lo=take(p.lo), hi=take(p.hi), c=c, smooth=smooth)

    return tuple(map(at, parts))


class _Line:
    """A linear function of the field."""

    def __init__(self, at: float, level: float, rate: float) -> None:
        self.at, self.level, self.rate = at, level, rate

    def __call__(self, h: Array) -> Array:
        return self.level + self.rate * (h - self.at)


def _hermite(n: int) -> tuple[Array, Array]:
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return x, w / np.sqrt(2 * np.pi)
