"""Weights and priors as pieces: their kinks, and what they are between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import log_ndtr
from sympy import (
    Abs,
    Expr,
    Function,
    Heaviside,
    Max,
    Min,
    Piecewise,
    Poly,
    S,
    Symbol,
    Wild,
    erf,
    expand_log,
    lambdify,
    log,
    sign,
    sqrt,
)

from quenched.theory.errors import NotCovered
from quenched.theory.problem_replicas import X

from .replica_smooth import LabelledDensity
from .types import Array


@dataclass(frozen=True)
class Part:
    """A piece of a base measure: an atom (lo = hi), exp(c0 + c1 u + c2 u²/2), or a smooth log density
    (with two derivatives in `slopes`, at zero temperature).

    Numbers are arrays (labels, 1) where they differ between the labels of a case.
    """

    lo: Any
    hi: Any
    c: tuple[Any, Any, Any] | None
    smooth: Callable[[Array], Array] | None = None
    slopes: tuple[Callable[[Array], Array], ...] = ()

    def taken(self, take: Callable[[Any], Any]) -> Part:
        """The same for other labels, such as a part of these."""
        smooth = self.smooth.taken(take) if isinstance(self.smooth, LabelledDensity) else self.smooth
        c = None if self.c is None else (take(self.c[0]), take(self.c[1]), take(self.c[2]))
        return Part(take(self.lo), take(self.hi), c, smooth, self.slopes)


def parts_of(weight: Expr) -> list[Part]:
    """Intervals of a weight in `X` between its kinks."""
    return list(_parts_of(weight))


@lru_cache(maxsize=512)
def _parts_of(weight: Expr) -> tuple[Part, ...]:
    edges = [-np.inf, *kinks(weight), np.inf]
    out = []
    for lo, hi in pairwise(edges):
        inside = resolve(weight, {X: middle_of(lo, hi)})
        if inside == 0:
            continue
        exponent = expand_log(log(inside), force=True).expand()
        if exponent.is_polynomial(X) and Poly(exponent, X).degree() <= 2:
            c = [float(exponent.coeff(X, k)) for k in range(3)] if exponent.has(X) else [float(exponent), 0.0, 0.0]
            out.append(Part(lo, hi, (c[0], c[1], 2 * c[2])))
        else:
            out.append(Part(lo, hi, None, log_density([X], exponent)))
    return tuple(out)


def log_density(variables: list[Symbol], exponent: Expr) -> Callable[..., Array]:
    """A log density as a function of arrays; logarithms of normal probabilities are accurate far in their tails."""
    normal = Function("log_normal_probability")
    z, c, d = Wild("z"), Wild("c", exclude=[erf]), Wild("d", exclude=[erf])

    def tail(node: Expr) -> Expr:
        found = node.args[0].expand().match(c + d * erf(z))
        if not found or found[c] == 0 or abs(found[d] / found[c]) != 1:
            return node
        return log(2 * found[c]) + normal(sqrt(2) * found[z] * found[d] / found[c])

    written = exponent.replace(lambda e: isinstance(e, log) and e.has(erf), tail)
    return lambdify(variables, written, [{"log_normal_probability": log_ndtr}, "scipy"], cse=True)


def arguments(weight: Expr) -> set[Expr]:
    """What steps, absolute values and pieces of an expression change their form at: zeros of these."""
    found: set[Expr] = set()
    for node in weight.atoms(Heaviside, Abs, sign):
        found.add(node.args[0])
    for node in weight.atoms(Max, Min):
        found |= {a - node.args[0] for a in node.args[1:]}
    for node in weight.atoms(Piecewise):
        for _, condition in node.args:
            found |= {r.lhs - r.rhs for r in condition.find(lambda e: hasattr(e, "lhs"))}
    return found


def kinks(weight: Expr) -> list[float]:
    """Where steps, absolute values and pieces of an expression change."""
    found: set[float] = set()
    for argument in arguments(weight):
        if argument.has(X):
            found |= roots(argument)
    return sorted(found)


def roots(argument: Expr) -> set[float]:
    """Kinks and zeros of the argument of a step, on each interval between its own kinks."""
    inner = kinks(argument)
    found = set(inner)
    for lo, hi in pairwise([-np.inf, *inner, np.inf]):
        local = resolve(argument, {X: middle_of(lo, hi)})
        if not local.is_polynomial(X):
            raise NotCovered(f"the kink of {argument} in a weight: write it as a polynomial in the local field")
        if local.has(X):
            zeros = np.roots([float(c) for c in Poly(local, X).all_coeffs()])
            found |= {float(r.real) for r in zeros if abs(r.imag) < 1e-12 and lo < r.real < hi}
    return found


def middle_of(lo: float, hi: float) -> float:
    if np.isfinite(lo) and np.isfinite(hi):
        return (lo + hi) / 2
    return hi - 1.0 if np.isfinite(hi) else lo + 1.0 if np.isfinite(lo) else 0.0


def resolve(expr: Expr, at: dict[Symbol, float], only: Symbol | None = None) -> Expr:
    """The expression as it is on the interval that contains `at`: steps and pieces replaced by what they are there.

    With `only`, just those whose arguments hold no other symbol than that one.
    """

    def here(e: Any) -> bool:
        return only is None or (e.has(only) and not e.has(X))

    def branch(node: Any) -> Expr:
        return next((e for e, c in node.args if c == True or bool(c.subs(at))), S.Zero)  # noqa: E712

    def positive(e: Expr) -> bool:
        return bool(e.subs(at) > 0)

    out = expr.replace(lambda e: isinstance(e, Piecewise) and (only is None or not e.has(X)), branch)
    out = out.replace(
        lambda e: isinstance(e, Heaviside) and here(e.args[0]), lambda e: S.One if positive(e.args[0]) else S.Zero
    )
    out = out.replace(lambda e: isinstance(e, sign) and here(e.args[0]), lambda e: sign(e.args[0].subs(at)))
    out = out.replace(lambda e: isinstance(e, Abs) and here(e.args[0]), lambda e: e.args[0] * sign(e.args[0].subs(at)))
    out = out.replace(lambda e: isinstance(e, Max) and here(e), lambda e: max(e.args, key=lambda a: float(a.subs(at))))
    return out.replace(lambda e: isinstance(e, Min) and here(e), lambda e: min(e.args, key=lambda a: float(a.subs(at))))
