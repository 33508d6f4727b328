"""Overlap of two states of one disorder that are near different stored patterns.

Each state has its own fields; those of one site are correlated through the labels that both see and through the
couplings. The overlap q₁₂ and its conjugate are the only new order parameters, and they react on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.fft import rfft
from scipy.special import erfc
from sympy import S, Symbol

from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.problem_replicas import ReplicaProblem, SiteAverage

from .replica import Evaluator
from .replica_cold import best, changes
from .replica_compile import compiled
from .replica_labels import label_nodes
from .replica_signs import Density, FreeLabel, affine, every
from .replica_sites import Site
from .types import Array

#: Sweeps of the two equations.
SWEEPS = 400


def overlap_between(
    problem: ReplicaProblem, values: dict[Symbol, float], x: Array, shift: Mapping[Symbol, Symbol]
) -> tuple[float, int]:
    """q₁₂ of two saddles that differ by an exchange of labels.

    Parameters
    ----------
    problem, values, x : a saddle with one overlap of the states and at most one of their conjugates
    shift : label → the label in its place for the other state; others of its values are labels that only it sees

    Raises
    ------
    NotCovered
        Other order parameters.
    """
    overlaps = [s for (s, _), k in zip(problem.equations, problem.kinds, strict=True) if k == "overlap"]
    states = [s for s in problem.sites if s.kind == "state"]
    channels = [s for s in problem.sites if s.kind == "channel"]
    if len(states) != 1 or len(channels) > 1 or len(overlaps) > 2:
        raise NotCovered("the overlap of two states: one field of states, and of patterns at most one matrix")
    ev = Evaluator(problem, values)
    at = ev.point(x)
    units = _Pair(ev, problem, states[0].name, at, shift)
    if not channels:
        return units.overlap(0.0), 0
    rows = _Pair(ev, problem, channels[0].name, at, {})
    of = {s: _site_of(problem, s) for s in overlaps}
    r = next(s for s in overlaps if of[s] == channels[0].name)
    q = next((s for s in overlaps if of[s] == states[0].name), None)
    same = units.same()
    q12, r12 = 0.5 * same, 0.5 * at[r]
    for sweep in range(SWEEPS):
        new_r = rows.gaussian(rows.k * q12 / same if q is None else rows.variance(at | {q: q12}))
        new_q = units.overlap(units.variance(at | {r: new_r}))
        change = abs(new_q - q12) + abs(new_r - r12) / (1 + abs(r12))
        q12, r12 = new_q, new_r
        if change < 1e-11:
            return q12, sweep
    raise ConvergenceError("the overlap of two states did not converge")


def _site_of(problem: ReplicaProblem, unknown: Symbol) -> str:
    (node,) = dict(problem.equations)[unknown].atoms(SiteAverage)
    return str(node.site)


class _Pair:
    """The fields of one site in two states."""

    def __init__(
        self, ev: Evaluator, problem: ReplicaProblem, name: str, at: dict[Symbol, float], shift: Mapping[Symbol, Symbol]
    ) -> None:
        self.ev, self.site = ev, ev.sites[name]
        self.labels = _labels(problem, self.site, ev.base) if shift else []
        symbols = tuple(q.symbol for q in self.labels)
        b, k, v = next(n for _, rhs in problem.equations for n in rhs.atoms(SiteAverage) if n.site == name).field
        constant, slopes = affine(b, symbols) if symbols else (b, [])
        self.of_variance = compiled(tuple(ev.names), k, "math")
        numbers = compiled(tuple(ev.names), (constant, k, v, *slopes), "math")(*(at[s] for s in ev.names))
        self.b, self.k, self.v = numbers[:3]
        self.first = dict(zip(symbols, numbers[3:], strict=True))
        self.second = {shift.get(q, q): a for q, a in self.first.items()}
        self.density: Density | None = None

    def variance(self, at: dict[Symbol, float]) -> float:
        """The variance of the field as a function of the order parameters: the covariance for two states."""
        return float(self.of_variance(*(at[s] for s in self.ev.names)))

    def response(self, h: Array, case: int = 0) -> Array:
        """L₁ at fields h."""
        site = self.site
        if site.cold:
            return np.asarray(best(site.kind, site.cases[case].parts, h, self.v, site.name).first)
        return np.asarray(site.logs(case, h, self.v)[1])

    def gaussian(self, covariance: float) -> float:
        """E[L₁ L₁′] of a site whose L₁ is linear in its field."""
        if not all(self.site.gaussian(c) for c in range(len(self.site.cases))):
            raise NotCovered(f"the overlap of two states with weights of {self.site.name} that are not Gaussian")
        total = 0.0
        for k, case in enumerate(self.site.cases):
            one = self.response(self.b + np.array([[-1.0, 1.0]]) + 0 * case.probability, k)
            slope, middle = (one[:, 1] - one[:, 0]) / 2, one.mean(axis=1)
            total += float(np.sum(case.probability[:, 0] * (middle**2 + slope**2 * covariance)))
        return total

    def same(self) -> float:
        """E[L₁²] of one state."""
        if self.k < 1e-13:
            return self._all(self.second if not self.first else self.first)
        density = self._density()
        square = self.response(density.nodes) ** 2
        return density.average((0,) * len(self.labels), "square", square)

    def overlap(self, covariance: float) -> float:
        """E[L₁ L₁′] over labels that both states see, by the characteristic function of both fields."""
        if self.k < 1e-13:
            return self._all(self.second)
        density = self._density()
        if not hasattr(self, "char"):
            self._transform(density)
        cross = np.exp(-covariance * np.outer(self.one, self.two))
        return float(np.real(self.left @ (self.char * cross) @ self.right))

    def _density(self) -> Density:
        if self.density is None:
            a, site, jumps = np.array(list(self.first.values())), self.site, None
            if site.cold:
                reach = float(sum(abs(p) * np.max(np.abs(q.values)) for p, q in zip(a, self.labels, strict=True)))
                reach += 12 * np.sqrt(self.k)
                jumps = changes(site.kind, site.cases[0].parts, self.b - reach, self.b + reach, self.v, site.name)
            self.density = Density(self.labels, a, self.k, self.b, jumps, 1.0)
        return self.density

    def _transform(self, density: Density) -> None:
        """Fourier transforms of L₁ in both fields, and the characteristic function without what couples them."""
        half = self._image(density) / 2
        half[0] *= 2  # the density counts frequencies of either sign once
        self.one = density.omega
        self.two = np.concatenate([-density.omega[:0:-1], density.omega])
        self.left = 2 * half
        self.left[0] = half[0]
        self.right = np.concatenate([np.conj(half[:0:-1]), half])
        one, two = self.one[:, None], self.two[None, :]
        char = np.exp(-0.5 * self.k * (one**2 + two**2)).astype(complex)
        laws = {q.symbol: q for q in self.labels}
        for name in dict.fromkeys([*self.first, *self.second]):
            p, r = self.first.get(name, 0.0), self.second.get(name, 0.0)
            if p or r:
                char = char * laws.get(name, self.labels[0]).factor(one * p + two * r, 0)
        self.char = char

    def _image(self, density: Density) -> Array:
        """The Fourier transform of L₁; a smooth one ends smoothly where no field is, for strongly correlated states."""
        if not density.even:
            return density.image("response", self.response(density.nodes))
        step, count = density.weights[0], density.padded
        u = step * (np.arange(count) - count // 2)
        half = step * count / 2
        window = erfc(10 * (np.abs(u) - (half + density.reach) / 2) / (half - density.reach)) / 2
        image = rfft(self.response(self.b + u) * window) * step
        return np.asarray(density.measure * (image[: len(density.omega)] * np.exp(-1j * density.omega * u[0])))

    def _all(self, second: Mapping[Symbol, float]) -> float:
        """The same without a Gaussian field: all sets of values."""
        names = list(dict.fromkeys([*self.first, *second]))
        laws = {q.symbol: q for q in self.labels}
        values, p = every([laws.get(n, self.labels[0]) for n in names], self.site.name)
        fields = (values @ np.array([side.get(n, 0.0) for n in names]) for side in (self.first, second))
        one, two = (self.response(self.b + h) for h in fields)
        return float(np.sum(p * one * two))


def _labels(problem: ReplicaProblem, site: Site, values: dict[Symbol, float]) -> list[FreeLabel]:
    """The labels of a site that its measure does not depend on."""
    if site.free:
        return list(site.free)
    declared = next(s for s in problem.sites if s.name == site.name).labels
    if len(site.cases) != 1 or not all(atoms for _, atoms, _ in declared):
        raise NotCovered(f"the overlap of two states: labels of {site.name} with finitely many values in its field")
    return [FreeLabel(q, *label_nodes(q, atoms, S.Zero, values, [])) for q, atoms, _ in declared]
