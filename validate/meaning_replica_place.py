"""Random order parameters at which every Gaussian field of a replica-symmetric action has a variance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sympy import Symbol

from quenched.numerics.replica_labels import make_site
from quenched.theory.errors import ConvergenceError
from quenched.theory.replica_ansatz import orbit_of
from quenched.theory.replica_forms import RSAction, SiteInField
from quenched.theory.replica_lower import COLD
from quenched.validate.meaning import number
from quenched.validate.meaning_replica_sites import Direct, every_label, some_labels
from quenched.validate.meaning_replicas import at_labels

Rng = np.random.Generator
Values = Mapping[Symbol, float]


def place(action: RSAction, values: Values, rng: Rng) -> dict[Symbol, float]:
    """Parameters, and order parameters at which every Gaussian field has a positive variance."""
    at = {COLD: 0.8, **values}
    spans = {(False, 1, 1): (0.2, 0.6), (False, 2, 2): (0.2, 0.5), (False, 2, 1): (0.9, 1.3)}
    spans |= {(True, 1, 1): (0.1, 0.3), (True, 2, 2): (0.5, 0.9), (True, 2, 1): (0.1, 0.3)}
    fields = action.problem.action.fields
    for orbit, value in action.values.items():
        if isinstance(value, Symbol):
            moving = [c for a, c in orbit.atoms if not fields[a].single]
            hat = any(fields[a].role == "hat" for a, _ in orbit.atoms if not fields[a].single)
            at[value] = float(rng.uniform(*spans.get((hat, len(moving), len(set(moving))), (0.2, 0.4))))
    _narrower(action, at)
    _closer(action, at)
    _confining(action, at)
    for lam in action.multipliers.values():
        at[lam] = float(rng.uniform(1.2, 1.9))
    for s in action.sites:
        if s.variable.population in action.multipliers:
            top = s.v + 2 * s.k  # two replicas are normalisable below 0
            most = max(number(top, {**at, **labels}).real for labels, _ in every_label(s, at))
            at[action.multipliers[s.variable.population]] += max(0.0, most + 0.5)
    return at


def _narrower(action: RSAction, at: dict[Symbol, float]) -> None:
    """Shrink means, overlaps with a teacher among them, until fields have a variance beside what they explain."""
    fields = action.problem.action.fields
    single = [
        v
        for o, v in action.values.items()
        if isinstance(v, Symbol) and sum(not fields[a].single for a, _ in o.atoms) == 1
    ]
    for _ in range(8):
        left = [s.k.subs(at) for s in action.sites]
        if all(float(k) > 0.03 for k in left if k.is_number):
            return
        for v in single:
            at[v] *= 0.8


def _closer(action: RSAction, at: dict[Symbol, float]) -> None:
    """Move overlaps of replicas towards their norms until no Gaussian weight comes close to outgrowing its field."""
    free = [s for s in action.sites if s.variable.kind == "channel" and s.variable.weight.factor == 1]
    pairs = {v: o for o, v in action.values.items() if isinstance(v, Symbol) and o.copies == len(o.atoms) == 2}
    fields = action.problem.action.fields
    for _ in range(8):
        try:
            for s in free:
                site = make_site(s.variable.measure, at)
                for k, case in enumerate(site.cases):
                    v = at_labels(s.v.subs(at), case.labels)
                    site.logs(k, np.zeros_like(case.probability), 1.5 * v)
            return
        except ConvergenceError:
            for symbol, orbit in pairs.items():
                if not any(fields[a].role == "hat" or fields[a].single for a, _ in orbit.atoms):
                    same = action.values.get(orbit_of(orbit.population, tuple((a, 0) for a, _ in orbit.atoms)))
                    at[symbol] += 0.5 * (number(same, at).real - at[symbol]) if same is not None else 0.0


def _confining(action: RSAction, at: dict[Symbol, float]) -> None:
    """Lower what confines each replica alone until states of slowly falling priors keep two replicas within a grid."""
    own = [v for o, v in action.values.items() if isinstance(v, Symbol) and _alone(action, o)]
    free = [s for s in action.sites if s.variable.kind == "state" and s.variable.population not in action.multipliers]
    for s in free:
        lowered = [v for v in own if v in s.v.free_symbols]
        for _ in range(8 if lowered else 0):
            if all(_within(s, {**at, **labels}) for labels in some_labels(s, at)):
                break
            for v in lowered:
                at[v] -= 0.3


def _alone(action: RSAction, orbit: Any) -> bool:
    """Whether an order parameter is the square of a conjugate in one replica."""
    fields = action.problem.action.fields
    copies = [c for a, c in orbit.atoms if fields[a].role == "hat" and not fields[a].single]
    return len(copies) == len(orbit.atoms) == 2 and len(set(copies)) == 1


def _within(site: SiteInField, numbers: Mapping[Symbol, float]) -> bool:
    b, k, v = (number(e, numbers).real for e in (site.b, site.k, site.v))
    return Direct(site, numbers).bounded(abs(b), v + 2 * k)
