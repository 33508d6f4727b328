"""Covariances between units: how observables of the matrix C_ij(τ) = ⟨a_i(t) b_j(t+τ)⟩ − ⟨a_i⟩⟨b_j⟩ are written down.

Inside ``Participation`` and ``Fluctuation``, ``cov(a, b)`` stands for this matrix over pairs of units of one
realisation (averages over time and trajectories), not for its average over units:

- ``Participation(cov(f(x)))`` is (Tr C)²/Tr C² divided by the number of units;
- ``Fluctuation(cov(a(t), b(t + tau)))`` is ψ = N·mean over i ≠ j of C_ij(τ)², N the size of the population.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

from sympy import Expr, Mul, S, cancel, expand

from quenched.theory.errors import QuenchedError
from quenched.theory.fields import At, UnitSymbol, unbind
from quenched.theory.observables import Functional, Mean, cov, functional
from quenched.theory.spaces import Population, t, tau

PARTICIPATION, FLUCTUATION = functional("Participation"), functional("Fluctuation")


@dataclass(frozen=True)
class CrossCovariance:
    """A number or curve formed of the covariances between the units of a population.

    Attributes
    ----------
    statistic : ratio (Tr C)²/(n Tr C²), or the mean over i ≠ j of n C_ij², for n units
    population : Population
    first, second : unit quantities a at time t, b at time t + `lag`, as expressions in fields at one time
    lag : expression: 0, a number, or tau
    scale : factor of the whole (ψ of a scaled quantity)
    """

    statistic: Literal["participation", "variance"]
    population: Population
    first: Expr
    second: Expr
    lag: Expr
    scale: Expr = S.One


def between_units(expr: Expr) -> CrossCovariance | None:
    """What an observable says about covariances between units; None where it is about something else.

    Raises
    ------
    QuenchedError
        ``Participation`` of something that is no covariance at equal times.
    """
    if isinstance(expr, PARTICIPATION):
        found = _pair(expr.args[0])
        if found is None or found.first != found.second or found.lag != 0:
            raise QuenchedError(f"{_shown(expr)}: expected Participation(cov(f)) of one quantity f at one time")
        return CrossCovariance("participation", found.population, found.first, found.second, S.Zero)
    if isinstance(expr, FLUCTUATION):
        return _pair(expr.args[0])
    return None


def observed_between_units(observables: dict[str, Expr]) -> dict[str, CrossCovariance]:
    """Those of the observables that are about covariances between units; malformed ones are left out."""
    found = {}
    for name, expr in observables.items():
        try:
            what = between_units(expr)
        except QuenchedError:
            continue
        if what is not None:
            found[name] = what
    return found


def _shown(expr: Functional) -> str:
    return f"{type(expr).__name__}({', '.join(map(str, expr.args))})"


@lru_cache(maxsize=256)
def _pair(inner: Expr) -> CrossCovariance | None:
    """The pair of unit quantities whose ``cov`` an expression is, up to a factor."""
    means = sorted(inner.atoms(Mean), key=str)
    parts = list(dict.fromkeys(p for node in means for p in _parts(unbind(node.body))))
    for a, b in product(parts, repeat=2):
        whole = cov(a, b)
        if not whole.atoms(Mean) or {m.population for m in whole.atoms(Mean)} != {m.population for m in means}:
            continue
        scale = cancel(inner / whole)
        if not scale.atoms(Mean) and scale.is_nonzero is not False:
            (first, now), (second, then) = _timed(a), _timed(b)
            lag = expand(then - now)
            if lag.has(t) or (lag.has(tau) and lag not in (tau, -tau)):
                continue
            if lag == -tau or lag.is_negative:
                first, second, lag = second, first, -lag
            return CrossCovariance("variance", means[0].population, first, second, lag, scale**2)
    return None


def _parts(body: Expr) -> list[Expr]:
    """Candidates for a and b: the body, its square root, its factors at each time."""
    out = [body]
    if body.is_Pow and body.exp == 2:
        out.append(body.base)
    groups: dict[Expr, Expr] = {}
    for factor in Mul.make_args(body):
        times = _times(factor)
        if len(times) == 1:
            groups[times[0]] = groups.get(times[0], S.One) * factor
    return out + (list(groups.values()) if len(groups) > 1 else [])


def _times(expr: Expr) -> list[Expr]:
    bare = expr.xreplace({a: S.One for a in expr.atoms(At)})
    return sorted({a.time for a in expr.atoms(At)} | ({t} if bare.atoms(UnitSymbol) else set()), key=str)


def _timed(expr: Expr) -> tuple[Expr, Expr]:
    """A unit quantity with its fields at their own time, and that time (t for one without)."""
    times = _times(expr)
    return expr.xreplace({a: a.field for a in expr.atoms(At)}), times[0] if len(times) == 1 else t
