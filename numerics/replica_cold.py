"""Sites at zero temperature: maxima over the state or the local field, and averages over fields where they jump.

L(b; V) is a maximum of pieces; its first derivative is the maximiser (of a state) or how far the local field moves,
divided by V. Where the maximiser changes its piece or meets the end of one, derivatives jump: such fields are
located by bisection and averages are taken between them. A second derivative is integrated by parts, so that jumps
of the first count with their full weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from sympy import Add, Expr, Mul, Poly, S, Symbol, lambdify, sqrt

from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.problem_replicas import L, X

from .quadrature import REACH, legendre
from .replica_parts import Part
from .types import Array

#: Standard normal part of the field, and its variance, in averages that were integrated by parts.
Z, VARIANCE = Symbol("z_", real=True), Symbol("k_", positive=True)
#: Panels between two jumps, and points at which jumps are looked for.
PANELS, SCAN = 6, 801


@dataclass(frozen=True)
class Best:
    """Maximum, first and second derivative (between jumps), and which piece is attained in which way."""

    value: Array
    first: Array
    second: Array
    code: Array


def best(kind: str, parts: tuple[Part, ...], h: Array, v: Any, name: str) -> Best:
    """The maximum over all pieces at fields h."""
    found = [(_channel if kind == "channel" else _state)(p, h, v, name) for p in parts]
    values = np.stack([f.value for f in found])
    k = np.argmax(values, axis=0)[None]
    if len(found) == 2:  # at a tie the mean of both
        tied = np.abs(values[0] - values[1]) <= 1e-12 * (1 + np.abs(values[0]))
        found[1].first[tied] = found[0].first[tied] = (found[0].first[tied] + found[1].first[tied]) / 2

    def pick(arrays: list[Array]) -> Array:
        return np.take_along_axis(np.stack(arrays), k, axis=0)[0]

    code = pick([f.code for f in found]) + 4 * k[0]
    return Best(pick([f.value for f in found]), pick([f.first for f in found]), pick([f.second for f in found]), code)


def _channel(part: Part, h: Array, v: Any, name: str) -> Best:
    """max_u [c0 + c1 u + c2 u²/2 − (u − h)²/2V] on an interval."""
    if np.any(v <= 0):
        raise ConvergenceError(f"the local field of {name} has no width left (χ = {np.min(v):.3g})")
    if part.c is None:
        return _smooth(part, h, -1 / v + 0 * h, h / v, -(h**2) / (2 * v), lambda u: (u - h) / v, 1 / v, name)
    c0, c1, c2 = part.c
    a = 1 / v - c2
    u, code = _clipped(part, (c1 + h / v) / a, a + 0 * h, c1 + h / v, name)
    value = c0 + c1 * u + c2 * u**2 / 2 - (u - h) ** 2 / (2 * v)
    inside = c2 / (v * a)
    return Best(value, (u - h) / v, np.where(code == 0, inside, -1 / v), code)


def _state(part: Part, h: Array, v: Any, name: str) -> Best:
    """max_x [c0 + c1 x + c2 x²/2 + h x + v x²/2] on an interval."""
    zero: Any = np.zeros_like(h)
    if part.c is None:
        return _smooth(part, h, v + zero, h, zero, lambda x: x, 0.0, name)
    c0, c1, c2 = part.c
    if part.lo is part.hi or (np.isscalar(part.lo) and part.lo == part.hi):
        x: Any = part.lo + zero
        return Best(c0 + (c1 + h) * x + (c2 + v) * x**2 / 2, x, zero, zero)
    a = -(c2 + v)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, code = _clipped(part, (c1 + h) / a, a + zero, c1 + h, name)
        second = np.where(code == 0, 1 / (a + zero), 0.0)
    return Best(c0 + (c1 + h) * x + (c2 + v) * x**2 / 2, x, second, code)


def _clipped(part: Part, top: Array, a: Array, slope: Array, name: str) -> tuple[Array, Array]:
    """Where −a u²/2 + slope u is largest on an interval, and how: 0 inside, 1 at its lower, 2 at its upper end."""
    lo, hi = part.lo + np.zeros_like(top), part.hi + np.zeros_like(top)
    flat = a <= 0
    if np.any(flat & ~(np.isfinite(lo) & np.isfinite(hi))):
        raise ConvergenceError(f"the energy of {name} is not bounded from below in its field")
    with np.errstate(invalid="ignore"):
        middle = np.where(np.isfinite(lo) & np.isfinite(hi), (lo + hi) / 2, 0.0)
    upper = slope - a * middle > 0
    u = np.where(flat, np.where(upper, hi, lo), np.clip(top, lo, hi))
    code = np.where(flat, np.where(upper, 2.0, 1.0), np.where(top < lo, 1.0, np.where(top > hi, 2.0, 0.0)))
    return u, code


def _smooth(part: Part, h: Array, curve: Array, slope: Array, offset: Any, first: Any, shift: Any, name: str) -> Best:
    """The same for an energy known as a function: Newton's method for g(u) = f(u) + curve u²/2 + slope u."""
    f, df, ddf = part.slopes
    u = np.clip(np.where(curve < 0, -slope / np.where(curve < 0, curve, -1.0), 0.0), part.lo, part.hi)
    for _ in range(200):
        g, gg = df(u) + curve * u + slope, ddf(u) + curve
        step = np.where(gg < 0, -g / np.where(gg < 0, gg, -1.0), np.sign(g))
        new = np.clip(u + np.clip(step, -2.0, 2.0), part.lo, part.hi)
        if np.max(np.abs(new - u)) < 1e-13:
            break
        u = new
    else:
        raise ConvergenceError(f"the maximiser of {name} was not found")
    curvature = ddf(u) + curve
    code = np.where(u <= part.lo, 1.0, np.where(u >= part.hi, 2.0, 0.0))
    # d u/dh = −(d slope/dh)/curvature; of a channel slope = h/V, and the first derivative is (u − h)/V
    rate = np.where(code == 0, -1 / curvature, 0.0)
    second = rate if np.all(shift == 0) else (rate * shift - 1) * shift
    return Best(f(u) + curve * u**2 / 2 + slope * u + offset, first(u), second, code)


def cold_parts(weight: Expr, energy: Expr) -> list[Part]:
    """Intervals of an energy in `X` where the weight does not vanish: exponents −energy."""
    from itertools import pairwise

    from .replica_parts import arguments, middle_of, resolve, roots

    where = {a for e in (weight, energy) for a in arguments(e) if a.has(X)}
    edges = [-np.inf, *sorted({r for a in where for r in roots(a)}), np.inf]
    out = []
    for lo, hi in pairwise(edges):
        at = {X: middle_of(lo, hi)}
        if resolve(weight, at) == 0:
            continue
        exponent = -resolve(energy, at).expand()
        if exponent.is_polynomial(X) and (not exponent.has(X) or Poly(exponent, X).degree() <= 2):
            c = [float(exponent.coeff(X, k)) for k in range(3)] if exponent.has(X) else [float(exponent), 0.0, 0.0]
            out.append(Part(lo, hi, (c[0], c[1], 2 * c[2])))
        else:
            f, df, ddf = (lambdify(X, exponent.diff(X, k) if k else exponent, "scipy") for k in range(3))
            out.append(Part(lo, hi, None, f, (f, df, ddf)))
    return out


# -- averages ------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=512)
def by_parts(poly: Expr) -> Expr:
    """A polynomial in L₀, L₁, L₂ with L₁^p L₂ replaced by z L₁^{p+1}/((p + 1) √k)."""
    out = S.Zero
    for term in Add.make_args(poly.expand()):
        p2 = _power(term, L[2])
        if p2 == 1 and _power(term, L[0]) == 0:
            p1 = _power(term, L[1])
            term = term / (L[1] ** p1 * L[2]) * Z * L[1] ** (p1 + 1) / ((p1 + 1) * sqrt(VARIANCE))
        elif p2 > 2 or (p2 and _power(term, L[0])):
            raise NotCovered(f"the average of {term} at zero temperature")
        out += term
    return out


def _power(term: Expr, base: Symbol) -> int:
    return sum(int(f.as_base_exp()[1]) for f in Mul.make_args(term) if f.as_base_exp()[0] == base)


def cold_nodes(kind: str, parts: tuple[Part, ...], b: Any, k: Any, v: Any, name: str, fine: float) -> Any:
    """(z, weights, maxima at them, whether derivatives jump) for fields b + √k z; rows are labels."""
    rows = np.shape(b)[0] if isinstance(b, np.ndarray) else 1
    inside = [a for p in parts for a in (p.lo, p.hi, *(p.c or ()))]  # labels may be in the energy alone
    rows = max(rows, *(np.shape(a)[0] if isinstance(a, np.ndarray) and a.ndim else 1 for a in (k, v, *inside)))
    b, k, v = (np.broadcast_to(np.asarray(a, float).reshape(-1, 1), (rows, 1)) for a in (b, k, v))
    if np.all(k <= 0):
        z, w = np.zeros((rows, 1)), np.ones((rows, 1))
        return z, w, best(kind, parts, b + 0 * z, v, name), False
    root = np.sqrt(np.maximum(k, 0.0))
    if len(parts) == 1 and parts[0].c is not None and not np.isfinite([parts[0].lo, parts[0].hi]).any():
        x, weight = np.polynomial.hermite_e.hermegauss(12)  # L is quadratic in the field
        z, w = np.tile(x, (rows, 1)), np.tile(weight / np.sqrt(2 * np.pi), (rows, 1))
        return z, w, best(kind, parts, b + root * z, v, name), False
    scan = np.linspace(-REACH, REACH, SCAN)
    codes = best(kind, parts, b + root * scan, v, name).code
    row, at = np.nonzero(np.diff(codes, axis=1))
    own = _rows(parts, row)
    lo = _located(
        lambda z: best(kind, own, b[row] + root[row] * z, v[row], name).code, scan[at], scan[at + 1], codes[row, at]
    )
    count = np.bincount(row, minlength=rows)
    cuts = np.full((rows, int(count.max(initial=0)) + 2), REACH)
    cuts[:, 0] = -REACH
    order = np.concatenate([np.arange(c) for c in count]) if len(row) else np.empty(0, int)
    cuts[row, 1 + order.astype(int)] = lo
    x, weight = legendre(16)
    t = np.linspace(0, 1, max(1, round(PANELS * fine * (3 if cuts.shape[1] == 2 else 1))) + 1)
    edges = (cuts[:, :-1, None] + np.diff(cuts, axis=1)[:, :, None] * t).reshape(rows, -1)
    half = np.diff(edges, axis=1) / 2
    z = (edges[:, :-1, None] + half[:, :, None] * (1 + x)).reshape(rows, -1)
    w = (half[:, :, None] * weight).reshape(rows, -1) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    found = best(kind, parts, b + root * z, v, name)
    jumps = _jumps(kind, parts, b, root, v, row, lo, name)
    return z, w, found, jumps


def changes(kind: str, parts: tuple[Part, ...], low: float, high: float, v: Any, name: str) -> Array:
    """Fields at which the maximiser changes its piece."""
    if kind == "state" and all(p.c is not None and np.isscalar(p.lo) and p.lo == p.hi for p in parts):
        return _envelope(parts, low, high, v)
    scan = np.linspace(low, high, SCAN)
    codes = best(kind, parts, scan, v, name).code
    at = np.nonzero(np.diff(codes))[0]
    return _located(
        lambda h: best(kind, parts, h.ravel(), v, name).code.reshape(h.shape), scan[at], scan[at + 1], codes[at]
    )


def _located(code: Callable[[Array], Array], lo: Array, hi: Array, left: Array) -> Array:
    """Where codes (rows, places) cease to be `left` between `lo` and `hi`: 16 parts at a time, as calls cost most."""
    inside, rows = np.arange(1, 16) / 16, np.arange(len(lo))
    for _ in range(13 if len(lo) else 0):
        nodes = np.column_stack([lo, lo[:, None] + (hi - lo)[:, None] * inside, hi])
        same = code(nodes[:, 1:-1]) == left[:, None]
        first = np.where(same.all(axis=1), len(inside), np.argmin(same, axis=1))
        lo, hi = nodes[rows, first], nodes[rows, first + 1]
    return lo


def _envelope(parts: tuple[Part, ...], low: float, high: float, v: Any) -> Array:
    """The same for finitely many values: corners of the upper envelope of lines in the field."""
    lines = sorted((float(p.lo), float(p.c[0] + p.c[1] * p.lo + (p.c[2] + v) * p.lo**2 / 2)) for p in parts if p.c)
    (slope, offset), at, corners = max(lines, key=lambda q: q[0] * low + q[1]), low, []
    while True:
        ahead = [((offset - c) / (s - slope), s, c) for s, c in lines if s > slope]
        if not ahead:
            break
        at, slope, offset = min(ahead, key=lambda q: (q[0], -q[1]))
        if at > high:
            break
        corners.append(at)
    return np.array(corners)


def _rows(parts: tuple[Part, ...], row: Any) -> tuple[Part, ...]:
    def take(a: Any) -> Any:
        return a[row] if isinstance(a, np.ndarray) and a.shape[0] > 1 else a

    return tuple(p.taken(take) for p in parts)


def _jumps(kind: str, parts: tuple[Part, ...], b: Array, root: Array, v: Array, row: Any, at: Array, name: str) -> bool:
    """Whether the first derivative jumps at any of the places where the maximiser changes."""
    if not len(row):
        return False
    sides = [
        best(kind, _rows(parts, row), b[row] + root[row] * (at[:, None] + d), v[row], name).first for d in (-1e-7, 1e-7)
    ]
    return bool(np.max(np.abs(sides[1] - sides[0])) > 1e-4)
