"""Averages over many independent labels with finitely many values, such as the signs of stored patterns.

A field b + Σ_μ a_μ ξ_μ + √k z is a sum of independent numbers, so that its density is the Fourier integral of a product
of characteristic functions, e^{−kω²/2} Π_μ E[e^{iωa_μξ_μ}]; a factor ξ_μ under the average changes one factor of the
product. The cost grows with the number of labels, not of sets of their values: 2^21 sets of signs are 21 cosines.
Without a Gaussian part the sum over all values is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.fft import next_fast_len, rfft
from sympy import Expr, Poly, Symbol

from quenched.theory.errors import NotCovered

from .quadrature import REACH, legendre
from .types import Array

#: Number of sets of values up to which they are written out.
FEW = 32
#: The same where there is no Gaussian part.
MOST = 2**16
#: ω√k at which a Gaussian characteristic function is cut off.
CUT = 8.2
#: Largest step of a field (in units in which sites vary over numbers of order one).
STEP = 0.3


@dataclass(frozen=True)
class FreeLabel:
    """One label: its symbol, values and probabilities."""

    symbol: Symbol
    values: Array
    weights: Array

    def factor(self, x: Array, power: int) -> Array:
        """E[ξ^power e^{ixξ}]."""
        terms = [w * a**power * np.exp(1j * x * a) for a, w in zip(self.values, self.weights, strict=True)]
        return np.sum(terms, axis=0)


@lru_cache(maxsize=512)
def affine(field: Expr, labels: tuple[Symbol, ...]) -> tuple[Expr, list[Expr]]:
    """(constant, slopes) of a field in its labels."""
    poly = Poly(field, *labels) if field.is_polynomial(*labels) else None
    if poly is None or poly.total_degree() > 1:
        raise NotCovered(f"the field {field}: sums of many labels are covered")
    return poly.coeff_monomial(1), [poly.coeff_monomial(q) for q in labels]


@lru_cache(maxsize=512)
def split(poly: Expr, labels: tuple[Symbol, ...]) -> list[tuple[tuple[int, ...], Expr]]:
    """Monomials of labels with their coefficients."""
    if not poly.has(*labels):
        return [((0,) * len(labels), poly)]
    return [(powers, c) for powers, c in Poly(poly, *labels).terms()]


class Density:
    """The law of Σ a ξ + √k z at nodes of the field, also under factors ξ_μ and differentiated once."""

    def __init__(self, labels: list[FreeLabel], a: Array, k: float, b: float, jumps: Any, fine: float) -> None:
        self.labels, self.a, self.k = labels, a, k
        reach = float(np.sum(np.abs(a) * [np.max(np.abs(q.values)) for q in labels]) + REACH * np.sqrt(k))
        self.nodes, self.weights = self._nodes(b, reach, jumps, fine)
        step = np.pi / (1.1 * reach + REACH * np.sqrt(k))
        self.even, self.reach = jumps is None, reach
        if self.even:  # frequencies of a fast Fourier transform of the padded nodes
            self.padded = next_fast_len(int(np.ceil(2 * np.pi / step / self.weights[0])), real=True)
            step = 2 * np.pi / (self.padded * self.weights[0])
        count = int(CUT / np.sqrt(k) / step) + 2
        self.omega = step * np.arange(min(count, self.padded // 2 + 1) if self.even else count)
        self.measure = np.full(len(self.omega), step / np.pi)
        self.measure[0] /= 2
        gauss = np.exp(-k * self.omega**2 / 2)
        self.factors = np.array([q.factor(a_ * self.omega, 0) for q, a_ in zip(labels, a, strict=True)])
        ones = np.ones((1, len(self.omega)))
        before = np.cumprod(np.concatenate([ones, self.factors]), axis=0)
        after = np.cumprod(np.concatenate([ones, self.factors[::-1]]), axis=0)[::-1]
        self.whole, self.without = gauss * before[-1], gauss * before[:-1] * after[1:]
        self.wave = np.exp(1j * self.omega * reach if self.even else -1j * np.outer(self.nodes - b, self.omega))
        self.seen: dict[Any, Array] = {}
        self.pairs: dict[int, Array] = {}

    def _nodes(self, b: float, reach: float, jumps: Any, fine: float) -> tuple[Array, Array]:
        if jumps is None:
            step = min(np.sqrt(self.k) / 2.6, STEP) / fine
            count = 2 * int(np.ceil(reach / step)) + 1
            nodes = np.linspace(b - reach, b + reach, count)
            return nodes, np.full(count, nodes[1] - nodes[0])
        width = np.sqrt(self.k) / fine
        edges = [np.array([b - reach])]
        for lo, hi in pairwise([b - reach, *(j for j in jumps if abs(j - b) < reach), b + reach]):
            edges.append(np.linspace(lo, hi, int(np.ceil((hi - lo) / width)) + 1)[1:])
        x, w = legendre(12)
        ends = np.concatenate(edges)
        half = np.diff(ends) / 2
        return ((ends[:-1] + half)[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()

    def average(self, powers: tuple[int, ...], what: Any, values: Array, slope: bool = False) -> float:
        """E[Π ξ^power f] of a function by its values at the nodes, or of minus its derivative; `what` names it."""
        image, char = self.image(what, values), self._characteristic(powers)
        return float(np.real(np.dot(char * (-1j * self.omega) if slope else char, image)))

    def gradient(self, powers: tuple[int, ...], what: Any, values: Array, slope: bool = False) -> tuple[Array, Array]:
        """Derivatives of an average in (b, k) and in the factors a of the labels."""
        image = self.image(what, values)
        image = image * (-1j * self.omega) if slope else image
        char, rate = self._characteristic(powers), 1j * self.omega
        own = np.array([char @ (rate * image), char @ (rate**2 * image) / 2])
        return np.real(own), np.real(self._under_one_more(powers) @ (rate * image))

    def _under_one_more(self, powers: tuple[int, ...]) -> Array:
        """Characteristic functions (labels, frequencies) with one more factor ξ_ν each."""
        held = [m for m, p in enumerate(powers) if p]
        if len(held) > 1:
            more = ((*powers[:m], p + 1, *powers[m + 1 :]) for m, p in enumerate(powers))
            return np.array([self._characteristic(p) for p in more])
        rest = self._without_two(held[0]) if held else self.without
        moved = [q.factor(a * self.omega, 1) for q, a in zip(self.labels, self.a, strict=True)]
        if not held:
            return rest * np.array(moved)
        (m,) = held
        here = self.labels[m].factor(self.a[m] * self.omega, powers[m])
        out = rest * np.array(moved) * here
        out[m] = self.without[m] * self.labels[m].factor(self.a[m] * self.omega, powers[m] + 1)
        return np.asarray(out)

    def _without_two(self, m: int) -> Array:
        """Characteristic functions (labels, frequencies) without the label m and another one."""
        if m not in self.pairs:
            ones = np.ones((1, len(self.omega)))
            factors = np.concatenate([self.factors[:m], ones, self.factors[m + 1 :]])
            before = np.cumprod(np.concatenate([ones, factors]), axis=0)
            after = np.cumprod(np.concatenate([ones, factors[::-1]]), axis=0)[::-1]
            self.pairs[m] = np.exp(-self.k * self.omega**2 / 2) * before[:-1] * after[1:]
        return self.pairs[m]

    def image(self, what: Any, values: Array) -> Array:
        """The Fourier transform of a function, with the weights of the frequencies."""
        if what not in self.seen:
            weighted = self.weights * values
            image = rfft(weighted, self.padded)[: len(self.omega)] * self.wave if self.even else weighted @ self.wave
            self.seen[what] = self.measure * image
        return self.seen[what]

    def _characteristic(self, powers: tuple[int, ...]) -> Array:
        held = [m for m, p in enumerate(powers) if p]
        if not held:
            return self.whole
        if len(held) == 1:
            (m,) = held
            return np.asarray(self.without[m] * self.labels[m].factor(self.a[m] * self.omega, powers[m]))
        char = np.exp(-self.k * self.omega**2 / 2).astype(complex)
        for m, q in enumerate(self.labels):
            char = char * q.factor(self.a[m] * self.omega, powers[m])
        return char


def every(labels: list[FreeLabel], name: str) -> tuple[Array, Array]:
    """(values of the labels (sets, labels), probabilities) of all sets of values."""
    count = int(np.prod([len(q.values) for q in labels]))
    if count > MOST:
        raise NotCovered(f"{count} sets of labels of {name} without a Gaussian field: at most {MOST}")
    grid = np.stack(np.meshgrid(*(np.arange(len(q.values)) for q in labels), indexing="ij"), -1).reshape(count, -1)
    values = np.stack([q.values[grid[:, m]] for m, q in enumerate(labels)], axis=1)
    p = np.prod(np.stack([q.weights[grid[:, m]] for m, q in enumerate(labels)], axis=1), axis=1)
    return values, p


def label_product(powers: tuple[int, ...], values: Array) -> Array:
    """Π ξ_μ^power for every set of values."""
    out = np.ones(len(values))
    for m, p in enumerate(powers):
        if p:
            out = out * values[:, m] ** p
    return out
