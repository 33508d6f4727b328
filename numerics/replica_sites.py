"""Log-partition functions of one site, with two derivatives, on arrays of fields.

Priors and weights are sums of atoms and of pieces exp(c0 + c1 u + c2 u²/2) on intervals, found from their
expressions at given parameter values. Against such a piece a Gaussian is a truncated Gaussian, in logarithms
throughout, so that steps far in the tail and small widths keep their relative accuracy. Other smooth weights of a local
field are integrated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from scipy.special import log_ndtr, logsumexp
from sympy import Abs, Expr, Heaviside, Max, Min, Piecewise, Poly, S, Symbol, expand_log, lambdify, log, sign

from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.problem_replicas import ReplicaSite, X

from .quadrature import legendre
from .types import Array

LOG2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Part:
    """A piece of a base measure: an atom (lo = hi), exp(c0 + c1 u + c2 u²/2), or a smooth log density."""

    lo: float
    hi: float
    c: tuple[float, float, float] | None
    smooth: Callable[[Array], Array] | None = None


@dataclass(frozen=True)
class LabelledParts:
    """The parts at one value of the labels, with its probability."""

    labels: dict[Symbol, float]
    probability: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Site:
    """A site at given parameter values."""

    kind: str
    cases: tuple[LabelledParts, ...]
    name: str

    def edges(self, case: int) -> tuple[float, ...]:
        """Finite ends of the pieces of a weight."""
        parts = self.cases[case].parts
        return tuple(sorted({e for p in parts for e in (p.lo, p.hi) if np.isfinite(e)}))

    def gaussian(self, case: int) -> bool:
        """Whether the site is Gaussian, so that L is quadratic in its field."""
        parts = self.cases[case].parts
        return len(parts) == 1 and parts[0].c is not None and not np.isfinite([parts[0].lo, parts[0].hi]).any()

    def logs(self, case: int, b: Array, v: float) -> tuple[Array, Array, Array]:
        """(L, ∂_b L, ∂_b² L) at fields b and coefficient V."""
        return (channel if self.kind == "channel" else state)(self.cases[case].parts, b, v, self.name)


def make_site(site: ReplicaSite, values: dict[Symbol, float]) -> Site:
    """Find the parts of a site at the given values."""
    cases = []
    for labels, probability in label_values(site, values):
        parts: list[Part] = []
        for piece in site.pieces:
            weight = piece.weight.xreplace(labels | values)
            if piece.value is not None:
                at = float(piece.value.xreplace(values))
                size = float(weight)
                if size > 0:
                    parts.append(Part(at, at, (float(np.log(size)), 0.0, 0.0)))
            else:
                parts += parts_of(weight)
        if not parts:
            raise ConvergenceError(f"the weight of site {site.name} vanishes everywhere at these parameters")
        cases.append(LabelledParts(labels, probability, tuple(parts)))
    return Site(site.kind, tuple(cases), site.name)


def label_values(site: ReplicaSite, values: dict[Symbol, float]) -> list[tuple[dict[Symbol, float], float]]:
    """Values of the labels with their probabilities: atoms, or quadrature nodes of a density."""
    axes = []
    for symbol, atoms, density in site.labels:
        if atoms:
            axes.append([(symbol, float(a.xreplace(values)), float(p.xreplace(values))) for a, p in atoms])
            continue
        shape = parts_of(density.xreplace(values))
        nodes: list[tuple[Symbol, float, float]] = []
        for part in shape:
            assert part.c is not None
            lo, hi = _reach(part)
            x, w = legendre(120)
            u = lo + (hi - lo) * (x + 1) / 2
            weight = np.exp(part.c[0] + part.c[1] * u + part.c[2] * u**2 / 2) * w * (hi - lo) / 2
            nodes += [(symbol, float(a), float(p)) for a, p in zip(u, weight, strict=True)]
        axes.append(nodes)
    combined = []
    for choice in product(*axes):
        combined.append(({s: a for s, a, _ in choice}, float(np.prod([p for _, _, p in choice]))))
    return combined


def _reach(part: Part) -> tuple[float, float]:
    """Where a piece of a law has its mass."""
    assert part.c is not None
    _, c1, c2 = part.c
    if c2 < 0:
        centre, width = c1 / -c2, 9.5 / np.sqrt(-c2)
    elif c1 != 0:
        centre, width = (part.lo if c1 < 0 else part.hi), 40 / abs(c1)
    else:
        return part.lo, part.hi
    return max(part.lo, centre - width), min(part.hi, centre + width)


# -- pieces of an expression ---------------------------------------------------------------------------------------
def parts_of(weight: Expr) -> list[Part]:
    """Intervals of a weight in `X` between its kinks."""
    edges = [-np.inf, *kinks(weight), np.inf]
    out = []
    for lo, hi in pairwise(edges):
        middle = _middle(lo, hi)
        inside = resolve(weight, middle)
        if inside == 0:
            continue
        exponent = expand_log(log(inside), force=True).expand()
        if exponent.is_polynomial(X) and Poly(exponent, X).degree() <= 2:
            c = [float(exponent.coeff(X, k)) for k in range(3)] if exponent.has(X) else [float(exponent), 0.0, 0.0]
            out.append(Part(lo, hi, (c[0], c[1], 2 * c[2])))
        else:
            out.append(Part(lo, hi, None, lambdify(X, exponent, "scipy")))
    return out


def kinks(weight: Expr) -> list[float]:
    """Where steps, absolute values and pieces of an expression change."""
    arguments: set[Expr] = set()
    for node in weight.atoms(Heaviside, Abs, sign):
        arguments.add(node.args[0])
    for node in weight.atoms(Max, Min):
        arguments |= {a - node.args[0] for a in node.args[1:]}
    for node in weight.atoms(Piecewise):
        for _, condition in node.args:
            arguments |= {r.lhs - r.rhs for r in condition.atoms() if hasattr(r, "lhs")}
            arguments |= {r.lhs - r.rhs for r in condition.find(lambda e: hasattr(e, "lhs"))}
    found: set[float] = set()
    for argument in arguments:
        if argument.has(X):
            found |= roots(argument)
    return sorted(found)


def roots(argument: Expr) -> set[float]:
    """Kinks and zeros of the argument of a step, on each interval between its own kinks."""
    inner = kinks(argument)
    found = set(inner)
    for lo, hi in pairwise([-np.inf, *inner, np.inf]):
        local = resolve(argument, _middle(lo, hi))
        if not local.is_polynomial(X):
            raise NotCovered(f"the kink of {argument} in a weight: write it as a polynomial in the local field")
        if local.has(X):
            zeros = np.roots([float(c) for c in Poly(local, X).all_coeffs()])
            found |= {float(r.real) for r in zeros if abs(r.imag) < 1e-12 and lo < r.real < hi}
    return found


def _middle(lo: float, hi: float) -> float:
    if np.isfinite(lo) and np.isfinite(hi):
        return (lo + hi) / 2
    return hi - 1.0 if np.isfinite(hi) else lo + 1.0 if np.isfinite(lo) else 0.0


def resolve(expr: Expr, at: float) -> Expr:
    """The expression as it is on the interval that contains `at`."""

    def branch(node: Any) -> Expr:
        return next((e for e, c in node.args if c == True or bool(c.subs(X, at))), S.Zero)  # noqa: E712

    out = expr.replace(lambda e: isinstance(e, Piecewise), branch)
    out = out.replace(lambda e: isinstance(e, Heaviside), lambda e: S.One if e.args[0].subs(X, at) > 0 else S.Zero)
    out = out.replace(lambda e: isinstance(e, sign), lambda e: sign(e.args[0].subs(X, at)))
    out = out.replace(lambda e: isinstance(e, Abs), lambda e: e.args[0] * sign(e.args[0].subs(X, at)))
    out = out.replace(lambda e: isinstance(e, Max), lambda e: max(e.args, key=lambda a: float(a.subs(X, at))))
    return out.replace(lambda e: isinstance(e, Min), lambda e: min(e.args, key=lambda a: float(a.subs(X, at))))


# -- truncated Gaussians -------------------------------------------------------------------------------------------
def log_mass(a: Array, b: Array) -> Array:
    """ln P(a < z < b) of a standard normal number, accurate in both tails."""
    flip = a > 0
    lo, hi = np.where(flip, -b, a), np.where(flip, -a, b)
    top, bottom = log_ndtr(hi), log_ndtr(lo)
    with np.errstate(divide="ignore"):
        return top + np.log1p(-np.exp(np.minimum(bottom - top, 0.0)))


def truncated(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """(log mass, mean, variance − 1) of a standard normal number between a and b."""
    mass = log_mass(a, b)
    with np.errstate(over="ignore", invalid="ignore"):
        low = np.exp(-0.5 * a * a - 0.5 * LOG2PI - mass)
        high = np.exp(-0.5 * b * b - 0.5 * LOG2PI - mass)
        edge = np.where(np.isfinite(a), a, 0.0) * low - np.where(np.isfinite(b), b, 0.0) * high
    mean = low - high
    return mass, mean, edge - mean**2


def mixture(logs: list[Array], means: list[Array], excess: list[Array]) -> tuple[Array, Array, Array]:
    """(log of the sum, mean, variance − 1) of a mixture of parts."""
    if len(logs) == 1:
        return logs[0], means[0], excess[0]
    stack = np.stack(logs)
    total = logsumexp(stack, axis=0)
    p = np.exp(stack - total)
    mean = np.sum(p * np.stack(means), axis=0)
    spread = np.sum(p * (np.stack(excess) + (np.stack(means) - mean) ** 2), axis=0)
    return total, mean, spread


def channel(parts: tuple[Part, ...], b: Array, v: float, name: str) -> tuple[Array, Array, Array]:
    """L = ln ∫Dy f(b + √V y) with derivatives in b."""
    if v <= 0:
        raise ConvergenceError(f"the local field of {name} has no width left (V = {v:.3g})")
    root = np.sqrt(v)
    logs: list[Array] = []
    means: list[Array] = []
    excess: list[Array] = []
    for part in parts:
        lo, hi = (part.lo - b) / root, (part.hi - b) / root
        if part.c is None:
            assert part.smooth is not None
            found = _integrated(part.smooth, b, root, lo, hi)
        else:
            c0, c1, c2 = part.c
            a = 1 - c2 * v
            if a <= 0:
                raise ConvergenceError(f"the weight of {name} outgrows its local field (V = {v:.3g})")
            shift, width = root * (c1 + c2 * b) / a, 1 / np.sqrt(a)
            mass, mean, more = truncated((lo - shift) / width, (hi - shift) / width)
            value = c0 + c1 * b + c2 * b * b / 2 + a * shift**2 / 2 - 0.5 * np.log(a) + mass
            found = value, shift + width * mean, width**2 * more + (width**2 - 1)
        for target, array in zip((logs, means, excess), found, strict=True):
            target.append(array)
    total, mean, more = mixture(logs, means, excess)
    return total, mean / root, more / v


def _integrated(
    smooth: Callable[[Array], Array], b: Array, root: float, lo: Array, hi: Array
) -> tuple[Array, Array, Array]:
    """The same for a weight that is only known as a function."""
    x, w = legendre(160)
    lo, hi = np.clip(lo, -9.5, 9.5), np.clip(hi, -9.5, 9.5)
    half = (hi - lo) / 2
    y = (lo + half)[:, None] + half[:, None] * x
    exponent = smooth(b[:, None] + root * y) + np.zeros_like(y) - 0.5 * y * y - 0.5 * LOG2PI
    with np.errstate(divide="ignore"):
        exponent = exponent + np.log(w * half[:, None])
    total = logsumexp(exponent, axis=1)
    p = np.exp(exponent - total[:, None])
    mean = np.sum(p * y, axis=1)
    return total, mean, np.sum(p * (y - mean[:, None]) ** 2, axis=1) - 1


def state(parts: tuple[Part, ...], b: Array, v: float, name: str) -> tuple[Array, Array, Array]:
    """L = ln ∫dμ(s) exp(b s + V s²/2) with derivatives in b."""
    if all(p.lo == p.hi for p in parts):
        return atoms(parts, b, v)
    logs: list[Array] = []
    means: list[Array] = []
    excess: list[Array] = []
    for part in parts:
        if part.lo == part.hi:
            assert part.c is not None
            s = part.lo
            found = (part.c[0] + b * s + v * s * s / 2, np.full_like(b, s), np.full_like(b, -1.0))
        elif part.c is not None and part.c[2] + v < 0:
            c0, c1, c2 = part.c
            a = -(c2 + v)
            centre, width = (c1 + b) / a, 1 / np.sqrt(a)
            mass, mean, more = truncated((part.lo - centre) / width, (part.hi - centre) / width)
            value = c0 + a * centre**2 / 2 + 0.5 * (LOG2PI - np.log(a)) + mass
            found = value, centre + width * mean, width**2 * (1 + more) - 1
        else:
            found = _over_interval(part, b, v, name)
        for target, array in zip((logs, means, excess), found, strict=True):
            target.append(array)
    total, mean, more = mixture(logs, means, excess)
    return total, mean, more + 1


def atoms(parts: tuple[Part, ...], b: Array, v: float) -> tuple[Array, Array, Array]:
    """The same for a finite set of values."""
    s = np.array([p.lo for p in parts])
    c = np.array([p.c[0] for p in parts if p.c is not None])
    exponent = (c + v * s * s / 2)[:, None] + s[:, None] * b
    total = logsumexp(exponent, axis=0)
    p = np.exp(exponent - total)
    mean = s @ p
    return total, mean, np.sum(p * (s[:, None] - mean) ** 2, axis=0)


def _over_interval(part: Part, b: Array, v: float, name: str) -> tuple[Array, Array, Array]:
    if not (np.isfinite(part.lo) and np.isfinite(part.hi)):
        raise ConvergenceError(f"the measure of {name} is not normalisable in its field (V = {v:.3g})")
    x, w = legendre(160)
    half = (part.hi - part.lo) / 2
    s = part.lo + half * (1 + x)
    c0, c1, c2 = part.c if part.c is not None else (0.0, 0.0, 0.0)
    base = c0 + c1 * s + c2 * s * s / 2 if part.smooth is None else part.smooth(s)
    exponent = base + v * s * s / 2 + np.log(w * half) + b[:, None] * s
    total = logsumexp(exponent, axis=1)
    p = np.exp(exponent - total[:, None])
    mean = p @ s
    return total, mean, np.sum(p * (s - mean[:, None]) ** 2, axis=1) - 1
