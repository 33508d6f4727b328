"""One site of the replicas reading summed by brute force, for witnesses.

States lie on nodes of their prior, local fields on a grid that is split at the kinks of their weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Mul, Symbol, lambdify, powsimp

from quenched.numerics.quadrature import legendre, trapezoid
from quenched.numerics.replica_labels import make_site
from quenched.numerics.replica_parts import arguments, kinks
from quenched.theory.priors import fixed_norm
from quenched.theory.problem_replicas import X
from quenched.theory.replica_forms import SiteInField, Variable, replica_site

Array = NDArray[Any]
Values = Mapping[Symbol, float]

#: Panels of the grids of states and local fields, and their reach in standard deviations.
PANELS, REACH = 24, 9.0
#: Labels of a smaller probability are left out of averages.
RARE = 1e-13


def numbers_at(expr: Any, numbers: Mapping[Any, Any]) -> Any:
    """An expression at numbers or arrays."""
    expr = Mul(expr)
    names = sorted((s for s in expr.free_symbols if s in numbers), key=str)
    return _function(expr, tuple(names))(*(numbers[s] for s in names))


@lru_cache(maxsize=256)
def _function(expr: Expr, names: tuple[Any, ...]) -> Any:
    return lambdify(names, expr, [{"Heaviside": lambda x, h=0.5: np.heaviside(x, h)}, "scipy", "numpy"])


def some_labels(site: SiteInField, at: Values, most: int = 3) -> Iterator[dict[Symbol, float]]:
    """A few values of the labels of a site."""
    found = []
    for case in make_site(site.variable.measure, dict(at)).cases:
        count = max((np.size(a) for a in case.labels.values()), default=1)
        found += [{q: float(np.ravel(a)[k % np.size(a)]) for q, a in case.labels.items()} for k in range(count)]
    yield from found[:: max(1, len(found) // most)][:most]


@lru_cache(maxsize=64)
def _weights(variable: Variable) -> tuple[tuple[Expr | None, Expr, tuple[Expr, ...]], ...]:
    """Value and weight of every piece, and what the steps in it change their form at."""
    # one exponent: factors that overflow and vanish have no product
    found = [(p.value, powsimp(p.weight, combine="exp")) for p in replica_site(variable).pieces]
    return tuple((value, w, tuple(a for a in arguments(w) if a.has(X))) for value, w in found)


def _edges(weight: Expr, corners: tuple[Expr, ...], numbers: Mapping[Symbol, float]) -> set[float]:
    """The kinks of a weight at given labels and parameters."""
    found: set[float] = set()
    for argument in corners:
        line = _line(argument)
        if line is None:
            return set(kinks(weight.xreplace(dict(numbers))))
        slope, constant = (float(numbers_at(c, numbers)) for c in line)
        found |= {-constant / slope} if slope else set()
    return found


@lru_cache(maxsize=256)
def _line(argument: Expr) -> tuple[Expr, Expr] | None:
    """(a, b) of a X + b."""
    slope, constant = argument.coeff(X, 1), argument.coeff(X, 0)
    return (slope, constant) if (argument - slope * X - constant).expand() == 0 and not slope.has(X) else None


@dataclass(frozen=True)
class Moments:
    """Z, and ⟨x⟩, ⟨x²⟩ of one replica at fields b (arrays)."""

    z: Array
    first: Array
    second: Array

    def power(self, p: int) -> Array:
        """⟨x^p⟩ for p up to 2."""
        return (np.ones_like(self.z), self.first, self.second)[p]


class Direct:
    """One site at given labels, summed by brute force."""

    def __init__(self, site: SiteInField, numbers: Mapping[Symbol, float], panels: int = PANELS) -> None:
        prior = site.variable.weight.prior
        self.free = prior is None or fixed_norm(prior[1]) is None
        self.kind = site.variable.kind
        weights = _weights(site.variable)
        edges = sorted({e for value, w, corners in weights if value is None for e in _edges(w, corners, numbers)})
        self.u, step = grid(edges, panels)
        total = np.zeros_like(self.u)
        atoms, masses = [], []
        for value, weight, _ in weights:
            if value is None:
                total = total + numbers_at(weight, {**numbers, X: self.u})
            else:
                atoms.append(float(numbers_at(value, numbers)))
                masses.append(float(numbers_at(weight, numbers)))
        self.f = total
        self.x = np.concatenate([self.u if total.any() else [], atoms])
        self.mu = np.concatenate([total * step if total.any() else [], masses])
        self.step = step

    def _normal(self, b: Array, v: float) -> Array:
        return np.exp(-((self.u - b[..., None]) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v) * self.step

    def moments(self, b: Array, v: float) -> Moments:
        """Of one replica in fields b with V = v."""
        if self.kind == "state":
            exponent = b[..., None] * self.x + v * self.x**2 / 2
            top = exponent.max(-1)
            w = self.mu * np.exp(exponent - top[..., None])
            z = w.sum(-1)
            return Moments(z * np.exp(top), w @ self.x / z, w @ self.x**2 / z)
        powers = np.stack([self.f, self.f * self.u, self.f * self.u**2], axis=-1)
        z, one, two = np.moveaxis(self._normal(b, v) @ powers, -1, 0)
        first, second = (one - b * z) / v, (two - 2 * b * one + b**2 * z) / v**2 - z / v
        return Moments(z, first / z, second / z)

    def bounded(self, b: float, v: float) -> bool:
        """Whether a state in fields ±b with V = v has no weight to speak of where the grid ends."""
        if not self.f.any():
            return True
        with np.errstate(divide="ignore"):
            logs = np.log(np.abs(self.f)) + b * np.abs(self.u) + v * self.u**2 / 2
        return bool(max(logs[0], logs[-1]) < logs.max() - 30)

    def decoupled(self, b: float, k: float, v: float) -> float:
        """E_z Z(b + √k z; v)²."""
        z, w = trapezoid(601, 25.0)  # two replicas widen the field
        fields = b + np.sqrt(k) * z
        return float(w @ self.moments(fields, v).z ** 2 / w.sum())

    def two_replicas(self, b: float, diagonal: float, off: float) -> float:
        """Σ over both replicas of exp(b(x₁ + x₂) + ½K_aa(x₁² + x₂²) + K_ab x₁x₂); for local fields as Gaussians."""
        if self.kind == "state":
            w = self.mu * np.exp(b * self.x + diagonal * self.x**2 / 2)
            if not self.bounded(abs(b), diagonal + off):
                return float("nan")
            return float(w @ np.exp(off * np.outer(self.x, self.x)) @ w)
        rho = off / diagonal
        u = self.u - b
        form = (u[:, None] ** 2 + u[None, :] ** 2 - 2 * rho * np.outer(u, u)) / (2 * diagonal * (1 - rho**2))
        density = np.exp(-form) / (2 * np.pi * diagonal * np.sqrt(1 - rho**2))
        w = self.f * self.step
        inside = w[:, None] * density * w
        edge = np.abs(inside[[0, -1]]).max() + np.abs(inside[:, [0, -1]]).max()
        return float(inside.sum()) if edge < 1e-13 * inside.max() else float("nan")


def grid(edges: list[float], panels: int = PANELS) -> tuple[Array, Array]:
    """Nodes and weights of a grid that is split at the given places."""
    corners = sorted({*np.linspace(-2 * REACH, 2 * REACH, 2 * panels + 1), *(e for e in edges if abs(e) < 2 * REACH)})
    x, w = legendre(10)
    nodes = [(a + b) / 2 + (b - a) / 2 * x for a, b in pairwise(corners)]
    return np.concatenate(nodes), np.concatenate([(b - a) / 2 * w for a, b in pairwise(corners)])


def site_mean(
    site: SiteInField, at: dict[Symbol, float], scale: Expr, powers: list[int], panels: int = PANELS
) -> float:
    """E over labels and the Gaussian field of scale · Π ⟨x^p⟩."""
    _, w = trapezoid(10 * panels + 1)
    total = 0.0
    for labels, probability, found in _every_moment(site, tuple(at.items()), panels):
        product_ = np.prod([np.ones_like(w), *(found.power(p) for p in powers)], axis=0)
        size = float(numbers_at(scale, {**at, **labels}))
        total += probability * size * float(w @ product_ / w.sum())
    return total


@lru_cache(maxsize=8)
def _every_moment(
    site: SiteInField, place_: tuple[tuple[Symbol, float], ...], panels: int
) -> list[tuple[dict[Symbol, float], float, Moments]]:
    """Moments of a site in every field at every label: kept for other powers of them."""
    at, (z, _) = dict(place_), trapezoid(10 * panels + 1)
    out = []
    for labels, probability in every_label(site, at):
        if abs(probability) < RARE:
            continue
        numbers = {**at, **labels}
        b, k, v = (float(numbers_at(e, numbers)) for e in (site.b, site.k, site.v))
        out.append((labels, probability, Direct(site, numbers, panels).moments(b + np.sqrt(k) * z, v)))
    return out


def every_label(site: SiteInField, at: dict[Symbol, float]) -> Iterator[tuple[dict[Symbol, float], float]]:
    """Values of the labels with their probabilities."""
    for case in make_site(site.variable.measure, dict(at)).cases:
        count = max((np.size(a) for a in case.labels.values()), default=1)
        probability = np.broadcast_to(np.ravel(case.probability), (count,))
        for k in range(count):
            yield {q: float(np.ravel(a)[k % np.size(a)]) for q, a in case.labels.items()}, float(probability[k])
