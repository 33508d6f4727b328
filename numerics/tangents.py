"""Overlaps of outputs v·f(u) of two Gaussian quantities, by Gaussian integration by parts.

⟨v F⟩ = m_v ⟨F⟩ + Σ_u C_vu ⟨∂_u F⟩ (Stein), applied to every factor: an output that is linear in one quantity of its
unit, such as φ'(h)·δh, needs averages of derivatives of f only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quenched.theory.problem import SiteFunction
from quenched.theory.problem_layers import LayerOutput

from .types import Array

if TYPE_CHECKING:
    from .layers import March


def product_overlap(march: March, first: LayerOutput, second: LayerOutput, a: int, b: int) -> Array:
    """⟨first(a) second(b)⟩ over pairs of samples, (M, M)."""
    base = _Base(march, first, second, a, b)
    if first.factor and second.factor:
        m, n = base.factor_mean(0), base.factor_mean(1)
        c = march.combined(first.factor, second.factor, a, b)
        out = (c + m[:, None] * n[None, :]) * base.average(0, 0)
        out = out + m[:, None] * base.drift(1) + n[None, :] * base.drift(0)
        return out + base.both()
    which = 0 if first.factor else 1
    mean = base.factor_mean(which)
    return (mean[:, None] if which == 0 else mean[None, :]) * base.average(0, 0) + base.drift(which)


class _Base:
    """Averages ⟨∂^i f(u(a)) ∂^j g(u'(b))⟩ and the covariances of the factors with u and u'."""

    def __init__(self, march: March, first: LayerOutput, second: LayerOutput, a: int, b: int) -> None:
        self.march, self.outputs, self.events = march, (first, second), (a, b)

    def average(self, i: int, j: int) -> Array:
        """⟨f^(i) g^(j)⟩."""
        first, second = self.outputs
        f, g = _derivative(first, i), _derivative(second, j)
        return self.march.two_point(f, first.argument, g, second.argument, *self.events)

    def factor_mean(self, which: int) -> Array:
        """Mean of a factor, (M,)."""
        return self.march.combined_mean(self.outputs[which].factor, self.events[which])

    def covariances(self, which: int) -> tuple[Array, Array]:
        """Cov of a factor with u and with u', each over pairs (sample of the first, sample of the second)."""
        own, event = self.outputs[which].factor, self.events[which]
        found = [self.march.combined(own, o.argument, event, e) for o, e in zip(self.outputs, self.events, strict=True)]
        shape = (self.march.samples, self.march.samples)
        if which == 0:
            return np.broadcast_to(np.diag(found[0])[:, None], shape), found[1]
        return found[0].T, np.broadcast_to(np.diag(found[1])[None, :], shape)

    def drift(self, which: int) -> Array:
        """C_vu ⟨f' g⟩ + C_vu' ⟨f g'⟩."""
        one, two = self.covariances(which)
        out = np.zeros((self.march.samples, self.march.samples))
        if np.any(one):
            out = out + one * self.average(1, 0)
        return out + two * self.average(0, 1) if np.any(two) else out

    def both(self) -> Array:
        """Both factors contracted with the functions."""
        out = np.zeros((self.march.samples, self.march.samples))
        left, right = self.covariances(0), self.covariances(1)
        for i, first in enumerate(left):
            for j, second in enumerate(right):
                weight = first * second
                if np.any(weight):
                    out = out + weight * self.average(2 - i - j, i + j)
        return out


def _derivative(output: LayerOutput, order: int) -> SiteFunction:
    """A derivative of an output's function; plain outputs have only what sympy gives."""
    if order == 0:
        return output.f
    return output.slopes[order - 1] if output.slopes else output.f.diff(order)
