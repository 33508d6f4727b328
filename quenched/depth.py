"""How far signals travel: fixed points of the recursion over layers, and the growth of what differs from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quenched.theory.errors import ConvergenceError, NotCovered

if TYPE_CHECKING:
    from quenched.theory.problem_layers import LayeredGaussian
    from quenched.theory_object import Theory

_ROUNDS, _TOLERANCE = 4000, 1e-13


@dataclass(frozen=True)
class DepthScales:
    """Fixed point of the kernel of two inputs, and the factors by which small deviations grow in one layer.

    Attributes
    ----------
    variance, covariance : float
        Of the field at the fixed point that two different inputs end at.
    chi : float
        ∂C'/∂C = g²⟨φ'φ'⟩ at that covariance: growth of a deviation of the covariance.
    chi_equal : float
        The same at equal inputs, g²⟨φ'²⟩: above 1 equal inputs are unstable (chaos), below it all inputs become alike.
    chi_variance : float
        Growth of a deviation of the variance.
    """

    variance: float
    covariance: float
    chi: float
    chi_equal: float
    chi_variance: float

    @property
    def depth(self) -> float:
        """Layers over which the covariance of two inputs is remembered, −1/ln χ (inf at the edge of chaos)."""
        return _depth(self.chi)

    @property
    def depth_variance(self) -> float:
        """Layers over which the variance is remembered."""
        return _depth(self.chi_variance)


def _depth(chi: float) -> float:
    if abs(chi) >= 1:
        return float("inf")
    return 0.0 if chi == 0 else -1 / float(np.log(abs(chi)))


def depth_scales(theory: Theory, values: Mapping[Any, float]) -> DepthScales:
    """Fixed points of the equal-layer recursion of a network with one field.

    Raises
    ------
    NotCovered
        Several fields, memory of single units, means, or coefficients that depend on the layer.
    ConvergenceError
        The variance grows without bound.
    """
    recursion = _Recursion(theory.layered, values)
    q = recursion.fixed(lambda q: recursion.map(q, q), 1.0)
    chi_equal = recursion.slope(q, q)
    c = recursion.fixed(lambda c: recursion.map(q, c), 0.5 * q) if chi_equal > 1 + 1e-9 else q
    step = 1e-5 * q
    chi_variance = (recursion.map(q + step, q + step) - recursion.map(q - step, q - step)) / (2 * step) if q else 0.0
    return DepthScales(q, c, recursion.slope(q, c), chi_equal, chi_variance)


class _Recursion:
    """C' = Σ weight ⟨f f⟩(q, C) + rest for one field."""

    def __init__(self, problem: LayeredGaussian, values: Mapping[Any, float]) -> None:
        from quenched.numerics.pairs import PairAverages
        from quenched.theory.problem_layers import TIME

        p = problem
        rows = [*p.memory, *p.feed]
        plain = len(p.states) == 1 and not p.remembers and p.centred
        if not plain or any(e.has(TIME) for row in rows for e in row) or any(o.factor for o in p.outputs):
            raise NotCovered("depth scales need one field without memory and mean, and gains that do not change")
        numbers = {s: values[s] for s in p.parameters}
        gain = {name: float(e.subs(numbers)) for name, e in zip(p.inputs, p.feed[0], strict=True)}
        self.rest = sum(gain[s.name] ** 2 * float(s.variance.subs(numbers)) for s in p.sources)
        self.parts = []
        for c in p.covariance:
            weight = gain[c.u] * gain[c.v] * float(c.coef.subs(numbers))
            if weight == 0:
                continue
            if p.output(c.first).given is not None:
                raise NotCovered("depth scales of a network with input in every layer are not built yet")
            f, g = p.output(c.first).f, p.output(c.second).f
            average = PairAverages(f, g, p.closed.get((c.first, c.second)), numbers)
            self.parts.append((weight, average, PairAverages(f.diff(1), g.diff(1), None, numbers)))

    def map(self, q: float, c: float) -> float:
        """The covariance of the next layer."""
        return self.rest + sum(w * self._at(average, q, c) for w, average, _ in self.parts)

    def slope(self, q: float, c: float) -> float:
        """∂C'/∂C by Price's theorem."""
        return sum(w * self._at(slope, q, c) for w, _, slope in self.parts)

    @staticmethod
    def _at(average: Any, q: float, c: float) -> float:
        zero = np.zeros(1)
        return float(average(zero, zero, zero + q, zero + q, zero + c)[0][0])

    def fixed(self, f: Any, start: float) -> float:
        """A stable fixed point of f."""
        x = start
        for _ in range(_ROUNDS):
            new = f(x)
            if not np.isfinite(new) or abs(new) > 1e8:
                raise ConvergenceError("the variance of the layers grows without bound")
            if abs(new - x) <= _TOLERANCE * max(1.0, abs(x)):
                return float(new)
            x = new
        return float(x)  # at the edge of chaos the approach is algebraic
