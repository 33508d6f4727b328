"""A priori weights of the units of a Gibbs measure that are not laws of independent numbers, and restricted ones."""

from __future__ import annotations

from typing import Any

from sympy import Basic, Expr, Heaviside, Interval, Piecewise, S, Set, oo, sqrt, sympify

from quenched.theory.distributions import Exponential, HalfNormal, Laplace, Law, Normal, Uniform, as_law
from quenched.theory.errors import QuenchedError
from quenched.theory.spaces import as_scalar


class Spherical(Law):
    """Uniform on the sphere Σ_i s_i² = (number of units); one unit is a standard normal number in the limit."""

    def mean_(self) -> Expr:
        return S.Zero

    def variance_(self) -> Expr:
        return S.One

    def support(self) -> Set:
        return S.Reals

    def density(self, u: Expr) -> Expr:
        return Normal(0, 1).density(u)


class Flat(Law):
    """Every real number alike (density 1): no measure of its own, an energy has to make it one."""

    def mean_(self) -> Expr:
        raise QuenchedError("Flat() has no mean: it is a prior only, give another law for disorder")

    def variance_(self) -> Expr:
        raise QuenchedError("Flat() has no variance: it is a prior only, give another law for disorder")

    def density(self, u: Expr) -> Expr:
        return S.One


class Restricted(Law):
    """A law on an interval only: `Positive` and `Box`.

    Attributes
    ----------
    law, low, high
    """

    def __new__(cls, *args: Any) -> Restricted:
        raise NotImplementedError

    @classmethod
    def _make(cls, law: Any, low: Any, high: Any) -> Any:
        return Basic.__new__(cls, as_law(law, f"law of {cls.__name__}"), sympify(low), sympify(high))

    @property
    def law(self) -> Law:
        """The law that is restricted."""
        return self.args[0]

    @property
    def low(self) -> Expr:
        """Lower end."""
        return self.args[1]

    @property
    def high(self) -> Expr:
        """Upper end, which may be infinite."""
        return self.args[2]

    @property
    def scale(self) -> Expr:
        """What the density is multiplied by."""
        return S.One

    def plain(self) -> Law:
        """The law of independent numbers that it is, itself where it is none."""
        if isinstance(self.law, Normal) and self.high == oo:
            return HalfNormal(sqrt(self.law.variance_()))
        if isinstance(self.law, Laplace) and self.high == oo:
            return Exponential(self.law.args[0])
        return Uniform(self.low, self.high) if isinstance(self.law, Flat) and self.high != oo else self

    def mean_(self) -> Expr:
        return self._independent().mean_()

    def variance_(self) -> Expr:
        return self._independent().variance_()

    def _independent(self) -> Law:
        found = self.plain()
        if found is self:
            raise QuenchedError(f"{self} has no law of one unit: it is a prior only, give another law for disorder")
        return found

    def support(self) -> Set:
        return Interval(self.low, self.high).intersect(self.law.support())

    def density(self, u: Expr) -> Expr:
        inside = u >= self.low if self.high == oo else (u >= self.low) & (u <= self.high)
        return Piecewise((self.scale * self.law.density(u), inside), (0, True))

    def indicator(self, u: Expr) -> Expr:
        """1 inside, 0 outside."""
        above = Heaviside(u - self.low)
        return above if self.high == oo else above * Heaviside(self.high - u)


class Positive(Restricted):
    """Numbers of one sign, u ≥ 0, of a law that is even (normalised again), or with equal weight."""

    def __new__(cls, law: Any = None, low: Any = 0, high: Any = oo) -> Positive:
        law = Flat() if law is None else as_law(law, "law of Positive")
        even = isinstance(law, Spherical | Laplace) or (isinstance(law, Normal) and law.args[0] == 0)
        if not even and not isinstance(law, Flat):
            raise QuenchedError(f"Positive takes an even law, such as Normal(0, 1) or Spherical(), or none, got {law}")
        return cls._make(law, 0, oo)

    @property
    def scale(self) -> Expr:
        return S.One if isinstance(self.law, Flat) else S(2)


class Box(Restricted):
    """Numbers in [low, high]: with equal weight, or on a sphere."""

    def __new__(cls, low: Any = -1, high: Any = 1, law: Any = None) -> Box:
        if isinstance(low, Law):  # rebuilding from arguments
            low, high, law = high, law, low
        low, high = as_scalar(low, "low of Box"), as_scalar(high, "high of Box")
        if (high - low).is_positive is False:
            raise QuenchedError(f"high of Box should be above low={low}, got {high}")
        law = Flat() if law is None else as_law(law, "law of Box")
        if not isinstance(law, Flat | Spherical):
            raise QuenchedError(f"Box takes Spherical() or no law, got {law}")
        return cls._make(law, low, high)

    @property
    def scale(self) -> Expr:
        return 1 / (self.high - self.low) if isinstance(self.law, Flat) else S.One


def on_sphere(law: Law) -> bool:
    """Whether the sum of squares over all units is fixed, but not the square of each."""
    return isinstance(law.law if isinstance(law, Restricted) else law, Spherical)


def fixed_norm(law: Law) -> Expr | None:
    """The value of s² (on the sphere: of its average) where the law fixes it, else None."""
    if on_sphere(law):
        return S.One
    squares = {(a**2).expand() for a, _ in law.weights()}
    return squares.pop() if len(squares) == 1 else None
