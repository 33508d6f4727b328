"""Witnesses of zero temperature: what the equations at β = 4 … 128 extrapolate to, at scaled order parameters.

The equations at finite temperature have witnesses of their own. What a step leaves at β → ∞ is compared with their
numbers at six temperatures, extrapolated with terms 1, ln β/β, 1/β, 1/β², β^(−½), β^(−3/2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Mul, S, Symbol

from quenched.numerics.replica_evaluator import Evaluator
from quenched.theory.errors import NotCovered
from quenched.theory.gibbs import Gibbs
from quenched.theory.problem_replicas import L, ReplicaProblem, SiteAverage
from quenched.theory.replica_ansatz import orbit_of
from quenched.theory.replica_cold import ColdForm, cold_site
from quenched.theory.replica_forms import Orbit, RSAction, SiteInField, replica_site
from quenched.theory.replica_limit import RepliconForm
from quenched.theory.replica_lower import COLD
from quenched.theory.replica_state import ReplicaState
from quenched.validate.meaning import number, relative
from quenched.validate.meaning_replica_sites import PANELS, every_label, site_mean
from quenched.validate.meaning_replica_state import asked, declared_value, named_replicon

Array = NDArray[Any]
Rng = np.random.Generator
Values = Mapping[Symbol, float]
#: Inverse temperatures.
BETAS = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
#: Deviation from which on limits are taken at inverse temperatures that are larger by a factor.
MET, COLDER = 1e-3, 32.0
#: Inverse temperatures and panels of sums over finitely many states of a site.
FEW_BETAS, FINE = (10.0, 20.0, 40.0, 80.0), 240
#: Inverse temperatures of sums over other states, or where there are more labels than this.
LOW_BETAS, MANY = (5.0, 10.0, 20.0, 40.0), 8
#: By how much inverse temperatures are larger where no field is Gaussian, and what is left falls as e^{−β|b|}.
SHARP = 512.0
#: Ranges of random order parameters by kind, states first, conjugates last.
RANGES = {
    "mean": ((0.2, 0.4), (0.1, 0.3)),
    "overlap": ((0.35, 0.6), (0.5, 0.9)),
    "norm": ((1.0, 1.3), (0.1, 0.3)),
    "susceptibility": ((0.4, 0.8), (0.4, 0.8)),
    "response": ((-0.7, -0.4), (-0.7, -0.4)),
}


def extrapolated(f: Callable[[float], float], betas: tuple[float, ...] = BETAS) -> float:
    """The limit β → ∞ of a function; infinite where it grows at least like a root of β."""
    values = np.array([f(b) for b in betas])
    if not np.isfinite(values).all():
        return float("nan")
    if np.all(np.abs(values[1:]) > 1.3 * np.abs(values[:-1])) and abs(values[-1]) > 1e-6:
        return float("inf")
    b = np.array(betas)
    # Edges of constraints are smeared over a width that falls as β^(−½).
    terms = np.stack([np.ones_like(b), np.log(b) / b, 1 / b, b**-2, b**-0.5, b**-1.5][: len(b)], axis=1)
    return float(np.linalg.solve(terms, values)[0])


def _betas(cold: ColdForm, betas: tuple[float, ...]) -> tuple[float, ...]:
    """Inverse temperatures from which limits are extrapolated."""
    return betas if any(s.k != 0 for s in cold.sites) else tuple(SHARP * b for b in betas)


def cold_place(cold: ColdForm, values: Values, rng: Rng) -> dict[Symbol, float]:
    """Parameters, and order parameters of the ground state at which every field has a positive variance."""
    at = dict(values)
    hats = {s for s, _ in cold.meaning if number_of_hats(cold, s)}
    for s, kind in cold.kinds.items():
        at[s] = float(rng.uniform(*RANGES[kind][s in hats]))
    for lam in cold.constraints:
        at[lam] = float(rng.uniform(1.2, 1.9))
    return at


def number_of_hats(cold: ColdForm, symbol: Symbol) -> int:
    """Conjugate fields of replicas in an order parameter."""
    action = cold.warm.state.free.action
    hats = {f.name for f in action.problem.action.fields.values() if f.role == "hat" and not f.single}
    return sum(a in hats for o, v in action.values.items() if v == symbol for a, _ in o.atoms)


def cold_evaluator(cold: ColdForm, at: Values) -> Evaluator:
    """Numbers of expressions in averages over the ground state."""
    sites = tuple(cold_site(s.variable) for s in cold.sites)
    return _evaluator(at, sites, True)


def _evaluator(at: Values, sites: tuple[Any, ...], cold: bool) -> Evaluator:
    ev = Evaluator(ReplicaProblem(tuple(at), sites, (), (), Mul(0), (), cold=cold), dict(at))
    ev.cache = {}
    return ev


def warmed(cold: ColdForm, at: Values, beta: float) -> dict[Symbol, float]:
    """Order parameters of the equations at finite temperature, scaled as the step says."""
    here = {**at, COLD: beta}
    return here | {old: number(new, here).real for old, new in cold.meaning}


class Warm:
    """The equations at finite temperature at one scaled point."""

    def __init__(self, cold: ColdForm, at: Values) -> None:
        self.cold, self.at, self.known = cold, at, dict[float, tuple[Evaluator, dict[Symbol, float]]]()
        self.action: RSAction = cold.warm.state.free.action
        self.fields = self.action.problem.action.fields

    def value(self, expr: Expr, beta: float) -> float:
        """An expression in site averages."""
        if beta not in self.known:
            at = warmed(self.cold, self.at, beta)
            sites = tuple(replica_site(s.variable) for s in self.action.sites)
            self.known[beta] = _evaluator(at, sites, False), at
        ev, at = self.known[beta]
        return ev.number(expr, at)

    def limit(self, f: Callable[[float], float], betas: tuple[float, ...] = BETAS) -> float:
        """The limit β → ∞ of a function of this point."""
        return extrapolated(f, _betas(self.cold, betas))

    def rhs(self, symbol: Symbol) -> Callable[[float], float]:
        """The right-hand side of one order parameter of the ground state, from averages at finite temperature."""
        power = number_of_hats(self.cold, symbol)
        known = self.cold.warm.state.equations.get(symbol)
        if known is not None:
            return lambda beta: self.value(known, beta) / beta**power
        same, pair = self._difference(symbol)
        power = self._hats(pair)
        return lambda beta: (self.value(same[0], beta) - self.value(same[1], beta)) * beta ** (1 - power)

    def _hats(self, orbit: Orbit) -> int:
        return sum(self.fields[a].role == "hat" for a, _ in orbit.atoms)

    def _difference(self, chi: Symbol) -> tuple[tuple[Expr, Expr], Orbit]:
        """⟨x²⟩ and ⟨x_a x_b⟩ of the pair whose difference is χ/β, and the pair."""
        swap = dict(self.cold.meaning)
        for orbit, value in self.action.values.items():
            if orbit.copies != 2 or len(orbit.atoms) != 2:
                continue
            same = next((v for o, v in self.action.values.items() if _merged(orbit) == o), None)
            if any(chi in swap[v].free_symbols for v in (value, same) if v in swap):
                site = next(s for s in self.action.sites if s.variable.population == orbit.population)
                scale = Mul(*(self._coefficient(a, site) for a, _ in orbit.atoms))
                labels = site.variable.weight.labels
                outside, inside = scale.as_independent(*labels) if labels else (scale, S.One)
                curved, square = (
                    outside * SiteAverage(orbit.population, inside * p, site.b, site.k, site.v, labels)
                    for p in (L[2], L[1] ** 2)
                )
                return (curved + square, square), orbit
        raise NotCovered(f"no pair of replicas has the difference {chi}")

    def _coefficient(self, atom: str, site: SiteInField) -> Expr:
        f = self.fields[atom]
        return (f.definition / self.fields[site.variable.name].symbol).expand() if f.role == "output" else Mul(1)


def _merged(orbit: Orbit) -> Orbit:
    """The same fields, of one replica."""
    return orbit_of(orbit.population, tuple((a, 0) for a, _ in orbit.atoms))


def cooling_deviation(warm: RepliconForm, cold: ColdForm, values: Values, rng: Rng) -> float:
    """Energy, right-hand sides, norms, fields of sites and replicon at zero temperature, against their limits."""
    at = cold_place(cold, {p: v for p, v in values.items() if p != COLD}, rng)
    ev, state, direct = cold_evaluator(cold, at), warm.state, Warm(cold, at)
    pairs: list[tuple[Expr, Callable[[float], float]]] = [
        (cold.value, lambda b: direct.value(state.free.value, b) / b),
        (cold.eigenvalue, lambda b: direct.value(warm.eigenvalue, b)),
    ]
    pairs += [(rhs, direct.rhs(s)) for s, rhs in cold.equations.items()]
    for lam, (average, _) in cold.constraints.items():
        at_beta = state.constraints[lam][0]
        pairs.append((average, lambda b, e=at_beta: direct.value(e, b)))  # type: ignore[misc]
    worst = _fields_deviation(direct, cold, at)
    for left, right in pairs:
        worst = max(worst, _off_limit(ev.number(left, at), direct, right))
    return worst


def _off_limit(found: float, direct: Warm, f: Callable[[float], float]) -> float:
    """How far a number is off a limit, seen from colder where it is not met: kinks of an energy are met slowly."""
    off = _apart(found, direct.limit(f))
    if off < MET:
        return off
    colder = _apart(found, direct.limit(f, tuple(COLDER * b for b in BETAS)))
    return colder if np.isfinite(colder) else off


def _apart(found: float, limit: float) -> float:
    if np.isinf(found) or np.isinf(limit):
        return 0.0 if np.isinf(found) and np.isinf(limit) else float("inf")
    return relative(np.array(found), np.array(limit), 0.1 + abs(limit))


def _fields_deviation(direct: Warm, cold: ColdForm, at: Values) -> float:
    """Fields of sites: those of states grow as β, their variances as β²; widths of local fields fall as 1/β."""
    worst = 0.0
    for old, new in zip(direct.action.sites, cold.sites, strict=True):
        powers = (1, 2, 1) if new.variable.kind == "state" else (0, 0, -1)
        for before, after, power in zip((old.b, old.k, old.v), (new.b, new.k, new.v), powers, strict=True):
            if before.has(*new.variable.weight.labels):
                continue

            def scaled(b: float, e: Expr = before, p: int = power) -> float:
                return number(e, warmed(cold, at, b)).real / b**p

            worst = max(worst, _apart(number(after, at).real, direct.limit(scaled)))
    return worst


def observed_cold_deviation(before: ColdForm, after: ReplicaState, model: Gibbs, values: Values, rng: Rng) -> float:
    """Equations as they were, and moments of the ground state by sums over states at large β."""
    at = cold_place(before, {p: v for p, v in values.items() if p != COLD}, rng)
    ev, worst = cold_evaluator(before, at), 0.0
    for unknown, rhs in after.problem.equations:
        worst = max(worst, _apart(ev.number(rhs, at), ev.number(before.equations[unknown], at)))
    expected = {s.name: ev.number(rhs, at) for s, rhs in before.equations.items()}
    expected |= {"energy": -ev.number(before.value, at), "free_entropy": ev.number(before.value, at)}
    expected |= dict.fromkeys(named_replicon(model), ev.number(before.eigenvalue, at))
    expected |= _moments(before, model, at)
    for name, expr in after.problem.observables:
        if name in expected:
            worst = max(worst, _apart(ev.number(expr, at), expected[name]))
    return worst


def _moments(cold: ColdForm, model: Gibbs, at: Values) -> dict[str, float]:
    """⟨x⟩, ⟨x_a x_b⟩, ⟨x²⟩ of states, and declared means of them."""
    action = cold.warm.state.free.action
    states = [s for s in action.sites if s.variable.kind == "state"]
    taken = {s.name for s in cold.equations}
    out = {}

    labels = max(len(list(every_label(s, warmed(cold, at, 1.0)))) for s in states)
    sharp = all(s.variable.weight.prior[1].weights() for s in states if s.variable.weight.prior)
    chosen, panels = (FEW_BETAS, FINE) if labels <= MANY and sharp else (LOW_BETAS, PANELS)
    betas = _betas(cold, chosen)

    def limit(site: SiteInField, powers: list[int]) -> float:
        return extrapolated(lambda b: site_mean(site, warmed(cold, at, b), Mul(1), powers, panels), betas)

    for s in states:
        tag = "" if len(states) == 1 else f"_{s.variable.name}"
        for name, powers in (("m", [1]), ("q", [1, 1]), ("Q", [2])):
            own = f"{name}_{s.variable.name}" if name + tag in taken else name + tag
            out[own] = limit(s, powers)
    for name, expr in asked(model).items():
        found = [declared_value(expr, action, warmed(cold, at, b), panels) for b in betas]
        if None not in found:
            table = dict(zip(betas, found, strict=True))
            out[name] = extrapolated(lambda b, t=table: t[b], betas)  # type: ignore[misc]
    return out


__all__ = ["cooling_deviation", "extrapolated", "observed_cold_deviation"]
