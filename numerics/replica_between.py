"""Overlap of two states of one disorder that are near different stored patterns.

Each state has its own fields; those of one site are correlated through the labels that both see and through the
couplings. Their overlaps are the only new order parameters (see `quenched.theory.replica_pair`), and they react on
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.fft import rfft
from scipy.special import erfc
from sympy import S, Symbol

from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.problem_replicas import PairProblem, PairSite, ReplicaProblem

from .replica_cold import best, changes
from .replica_compile import compiled
from .replica_evaluator import Evaluator
from .replica_labels import label_nodes
from .replica_signs import Density, FreeLabel, affine, every
from .replica_sites import Site
from .types import Array

#: Sweeps of the equations.
SWEEPS = 400


def overlaps_between(
    problem: ReplicaProblem, pairs: PairProblem, values: dict[Symbol, float], x: Array
) -> dict[Symbol, float]:
    """All overlaps of two states at a saddle of one of them.

    Parameters
    ----------
    problem, values, x : the problem of one state, its parameters, and a saddle
    pairs : fields and equations of both

    Raises
    ------
    NotCovered
        Weights of local fields that are not Gaussian, several labels that both states do not share.
    """
    ev = Evaluator(problem, values)
    at = ev.point(x)
    sites = {s.site: PairOfFields(ev, problem, s, at, pairs) for s in pairs.sites}
    here = {e.unknown: 0.5 * sites[e.site].same() for e in pairs.equations}
    for _ in range(SWEEPS):
        change = 0.0
        for e in pairs.equations:
            new = ev.number(e.scale, at) * sites[e.site].overlap(here)
            change += abs(new - here[e.unknown]) / (1 + abs(new))
            here[e.unknown] = new
        if change < 1e-11:
            return here
    raise ConvergenceError("the overlap of two states did not converge")


class PairOfFields:
    """The fields of one site in two states."""

    def __init__(
        self, ev: Evaluator, problem: ReplicaProblem, fields: PairSite, at: dict[Symbol, float], pairs: PairProblem
    ) -> None:
        self.ev, self.site, self.at = ev, ev.sites[fields.site], at
        seen = sorted((fields.b.free_symbols | fields.other.free_symbols) - set(ev.names), key=str)
        self.labels = _labels(problem, self.site, ev.base) if seen else []
        (constant, first), (_, second) = (affine(b, tuple(seen)) if seen else (b, []) for b in (fields.b, fields.other))
        numbers = compiled(tuple(ev.names), (constant, fields.k, fields.v, *first, *second), "math")(
            *(at[s] for s in ev.names)
        )
        self.b, self.k, self.v = numbers[:3]
        slopes = np.array(numbers[3:]).reshape(2, -1)
        own = {q.symbol for q in self.labels}
        self.first, self.second = ({q: a for q, a in zip(seen, row, strict=True) if a or q in own} for row in slopes)
        self.first = {q.symbol: self.first[q.symbol] for q in self.labels}
        self.unknowns = [e.unknown for e in pairs.equations]
        self.covariance = compiled((*ev.names, *self.unknowns), fields.cross, "math")
        self.density: Density | None = None

    def overlap(self, here: Mapping[Symbol, float]) -> float:
        """E[L₁ L₁′] at overlaps of the two states."""
        numbers = (*(self.at[s] for s in self.ev.names), *(here[s] for s in self.unknowns))
        covariance = float(self.covariance(*numbers))
        return self.of_units(covariance) if self.site.kind == "state" else self.gaussian(covariance)

    def same(self) -> float:
        """E[L₁²] of one state."""
        return self.same_units() if self.site.kind == "state" else self.gaussian(self.k)

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

    def same_units(self) -> float:
        """E[L₁²] of a state."""
        if self.k < 1e-13:
            return self._all(self.second if not self.first else self.first)
        density = self._density()
        square = self.response(density.nodes) ** 2
        return density.average((0,) * len(self.labels), "square", square)

    def of_units(self, covariance: float) -> float:
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
