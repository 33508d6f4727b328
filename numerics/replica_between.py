"""Overlap of two states of one disorder that are near different stored patterns.

Each state has its own fields; those of one site are correlated through the labels that both see and through the
couplings. The overlap q₁₂ and its conjugate are the only new order parameters, and they react on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sympy import Symbol

from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.problem_replicas import ReplicaProblem, SiteAverage

from .replica import Evaluator, compiled, hermite
from .replica_signs import CUT, STEP, affine
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
    problem, values, x : a saddle at finite temperature with one overlap of the states and one of their conjugates
    shift : label → the label in its place for the other state; others of its values are labels that only it sees

    Raises
    ------
    NotCovered
        Other order parameters, or zero temperature.
    """
    overlaps = [s for (s, _), k in zip(problem.equations, problem.kinds, strict=True) if k == "overlap"]
    if problem.cold or len(problem.sites) != 2 or len(overlaps) > 2:
        raise NotCovered("the overlap of two states: one field of states and one of patterns at finite temperature")
    ev = Evaluator(problem, values)
    at = ev.point(x)
    rhs = dict(problem.equations)
    (state,) = [s for s in problem.sites if s.kind == "state"]
    (channel,) = [s for s in problem.sites if s.kind == "channel"]
    q = next(s for s in overlaps if any(n.site == state.name for n in rhs[s].atoms(SiteAverage)))
    r = next(s for s in overlaps if s != q)
    units, rows = _Pair(ev, problem, state.name, at, shift), _Pair(ev, problem, channel.name, at, {})
    q12, r12 = 0.5 * at[q], 0.5 * at[r]
    for sweep in range(SWEEPS):
        new_r = rows.gaussian(_variance(ev, problem, channel.name, at | {q: q12}))
        new_q = units.signs(_variance(ev, problem, state.name, at | {r: new_r}))
        change = abs(new_q - q12) + abs(new_r - r12) / (1 + abs(r12))
        q12, r12 = new_q, new_r
        if change < 1e-11:
            return q12, sweep
    raise ConvergenceError("the overlap of two states did not converge")


def _node(problem: ReplicaProblem, site: str) -> SiteAverage:
    found = [n for _, rhs in problem.equations for n in rhs.atoms(SiteAverage) if n.site == site]
    return found[0]


def _variance(ev: Evaluator, problem: ReplicaProblem, site: str, at: dict[Symbol, float]) -> float:
    """The variance of the field of a site as a function of the order parameters: their covariance for two states."""
    return float(compiled(tuple(ev.names), _node(problem, site).field[1], "math")(*(at[s] for s in ev.names)))


class _Pair:
    """The fields of one site in two states."""

    def __init__(
        self, ev: Evaluator, problem: ReplicaProblem, name: str, at: dict[Symbol, float], shift: Mapping[Symbol, Symbol]
    ) -> None:
        self.site: Site = ev.sites[name]
        labels = tuple(q.symbol for q in self.site.free)
        b, k, v = _node(problem, name).field
        constant, slopes = affine(b, labels) if labels else (b, [])
        numbers = compiled(tuple(ev.names), (constant, k, v, *slopes), "math")(*(at[s] for s in ev.names))
        self.b, self.k, self.v = numbers[:3]
        self.first = dict(zip(labels, numbers[3:], strict=True))
        self.second = {shift.get(q, q): a for q, a in self.first.items()}
        self.law = self.site.free[0] if labels else None

    def gaussian(self, covariance: float) -> float:
        """E[L₁ L₁′] of a site whose L₁ is linear in its field."""
        if not all(self.site.gaussian(c) for c in range(len(self.site.cases))):
            raise NotCovered(f"the overlap of two states with weights of {self.site.name} that are not Gaussian")
        x, w = hermite(6)
        root = np.sqrt(self.k)
        c = covariance / self.k
        total = 0.0
        for k, case in enumerate(self.site.cases):
            one = self.site.logs(k, self.b + root * x[None, :] + 0 * case.probability, self.v)[1]
            slope = (one[:, 1] - one[:, 0]) / (root * (x[1] - x[0]))
            middle = one @ w
            total += float(np.sum(case.probability[:, 0] * (middle**2 + slope**2 * self.k * c)))
        return total

    def signs(self, covariance: float) -> float:
        """E[L₁ L₁′] over labels that both states see, by the characteristic function of both fields."""
        if self.law is None:
            raise NotCovered("the overlap of two states takes labels that they start from: more than a few of them")
        names = list(dict.fromkeys([*self.first, *self.second]))
        a = np.array([self.first.get(q, 0.0) for q in names])
        c = np.array([self.second.get(q, 0.0) for q in names])
        top = float(np.max(np.abs(self.law.values)))
        reach = top * float(max(np.abs(a).sum(), np.abs(c).sum())) + 9.5 * np.sqrt(self.k)
        step = np.pi / (1.1 * reach + 9.5 * np.sqrt(self.k))
        half = int(CUT / np.sqrt(self.k) / step) + 1
        omega = step * np.arange(-half, half + 1)
        count = 2 * int(np.ceil(reach / min(np.sqrt(self.k) / 2.6, STEP))) + 1
        h = np.linspace(-reach, reach, count)
        value = self.site.logs(0, self.b + h, self.v)[1].ravel()
        image = np.exp(-1j * np.outer(omega, h)) @ value * (h[1] - h[0]) * step / (2 * np.pi)
        one, two = omega[:, None], omega[None, :]
        char = np.exp(-0.5 * (self.k * (one**2 + two**2) + 2 * covariance * one * two)).astype(complex)
        for p, q in zip(a, c, strict=True):
            if p or q:
                char = char * self.law.factor(one * p + two * q, 0)
        return float(np.real(image @ char @ image))
