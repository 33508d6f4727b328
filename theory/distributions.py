"""Laws of one number: entries of couplings, disorder per unit and initial states share them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sympy import (
    Abs,
    Add,
    Basic,
    DiracDelta,
    Expr,
    FiniteSet,
    Integer,
    Interval,
    Piecewise,
    Rational,
    S,
    Set,
    Symbol,
    Union,
    exp,
    oo,
    pi,
    sqrt,
)

from quenched.theory.errors import QuenchedError
from quenched.theory.spaces import as_scalar


class Law(Basic):
    """A law of one real number. Its parameters are sympy arguments, so that `free_symbols` sees them."""

    def __new__(cls, *args: Any) -> Law:
        names = cls.parameter_names
        if len(args) != len(names):
            raise QuenchedError(f"{cls.__name__} takes {len(names)} parameters ({', '.join(names)}), got {len(args)}")
        scalars = [as_scalar(a, f"{n} of {cls.__name__}") for n, a in zip(names, args, strict=True)]
        obj = Basic.__new__(cls, *scalars)
        obj._check()
        return obj

    parameter_names: tuple[str, ...] = ()
    #: False for vectors of which only overlaps are known.
    has_moments: bool = True

    def _check(self) -> None:
        """Refuse parameters that are decidedly outside their domain."""

    def _demand(self, index: int, condition: bool | None, expected: str) -> None:
        if condition is False:
            name = self.parameter_names[index]
            raise QuenchedError(f"{name} of {type(self).__name__} should be {expected}, got {self.args[index]}")

    def _sympystr(self, printer: Any) -> str:
        return f"{type(self).__name__}({', '.join(printer._print(a) for a in self.args)})"

    def _latex(self, printer: Any) -> str:
        inside = ", ".join(printer._print(a) for a in self.args)
        return rf"\mathrm{{{type(self).__name__}}}\left({inside}\right)"

    def mean_(self) -> Expr:
        """Expectation, an expression in the law's parameters."""
        raise NotImplementedError

    def variance_(self) -> Expr:
        """Variance, an expression in the law's parameters."""
        raise NotImplementedError

    def support(self) -> Set:
        """Values that the law can take: an interval, or the set of its atoms."""
        return S.Reals

    def weights(self) -> tuple[tuple[Expr, Expr], ...]:
        """Atoms as (value, probability); empty for a law with a density."""
        return ()

    def density(self, u: Expr) -> Expr:
        """Probability density at `u`; atoms appear as Dirac deltas."""
        return sum((p * DiracDelta(u - a) for a, p in self.weights()), S.Zero)


class Normal(Law):
    """Gaussian law with this mean and this *variance* (not standard deviation)."""

    parameter_names = ("mean", "variance")

    def __new__(cls, mean: Any = 0, variance: Any = 1) -> Normal:
        return super().__new__(cls, mean, variance)

    def _check(self) -> None:
        self._demand(1, self.args[1].is_extended_nonnegative, "a non-negative variance")

    def mean_(self) -> Expr:
        return self.args[0]

    def variance_(self) -> Expr:
        return self.args[1]

    def density(self, u: Expr) -> Expr:
        mean, variance = self.args
        return exp(-((u - mean) ** 2) / (2 * variance)) / sqrt(2 * pi * variance)


class Uniform(Law):
    """Uniform law on [low, high]."""

    parameter_names = ("low", "high")

    def __new__(cls, low: Any = 0, high: Any = 1) -> Uniform:
        return super().__new__(cls, low, high)

    def _check(self) -> None:
        self._demand(1, (self.args[1] - self.args[0]).is_positive, f"larger than low={self.args[0]}")

    def mean_(self) -> Expr:
        return (self.args[0] + self.args[1]) / 2

    def variance_(self) -> Expr:
        return (self.args[1] - self.args[0]) ** 2 / 12

    def support(self) -> Set:
        return Interval(*self.args)

    def density(self, u: Expr) -> Expr:
        low, high = self.args
        return Piecewise((1 / (high - low), (u >= low) & (u <= high)), (0, True))


class Ising(Law):
    """±1 with equal probability."""

    def mean_(self) -> Expr:
        return S.Zero

    def variance_(self) -> Expr:
        return S.One

    def weights(self) -> tuple[tuple[Expr, Expr], ...]:
        return ((Integer(-1), Rational(1, 2)), (Integer(1), Rational(1, 2)))

    def support(self) -> Set:
        return FiniteSet(-1, 1)


class Empirical(Law):
    """Equal weights on the given numbers: the law of a sample."""

    def __new__(cls, *values: Any) -> Empirical:
        if not values:
            raise QuenchedError("Empirical takes the numbers of a sample, got none")
        obj = Basic.__new__(cls, *(as_scalar(v, "a number of Empirical") for v in values))
        return obj

    def _sympystr(self, printer: Any) -> str:
        return f"Empirical({len(self.args)} numbers, mean {self.mean_().n(4)}, variance {self.variance_().n(4)})"

    def _latex(self, printer: Any) -> str:
        return rf"\mathrm{{Empirical}}\left({len(self.args)}\text{{ numbers}}\right)"

    def mean_(self) -> Expr:
        return Add(*self.args) / len(self.args)

    def variance_(self) -> Expr:
        return Add(*((a - self.mean_()) ** 2 for a in self.args)) / len(self.args)

    def weights(self) -> tuple[tuple[Expr, Expr], ...]:
        return tuple((a, Rational(self.args.count(a), len(self.args))) for a in dict.fromkeys(self.args))

    def support(self) -> Set:
        return FiniteSet(*self.args)


class Discrete(Law):
    """Finitely many values with given probabilities: ``Discrete({-1: p, 0: 1 - 2*p, 1: p})``, or a list of equal ones.

    Raises
    ------
    QuenchedError
        No values, one of them twice, or probabilities that are negative or do not sum to 1.
    """

    def __new__(cls, values: Any, *more: Any) -> Discrete:
        if isinstance(values, Mapping):
            pairs = list(values.items())
        elif isinstance(values, Iterable) and not isinstance(values, Basic | str):
            given = list(values)
            pairs = [(v, Rational(1, len(given))) for v in given]
        else:  # rebuilding from arguments: value, probability, value, …
            flat = (values, *more)
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
        scalars = [as_scalar(a, "a value or probability of Discrete") for pair in pairs for a in pair]
        obj = Basic.__new__(cls, *scalars)
        obj._check()
        return obj

    def _check(self) -> None:
        values, chances = self.args[::2], self.args[1::2]
        if not values or len(set(values)) < len(values):
            raise QuenchedError(f"Discrete takes different values, got {', '.join(map(str, values)) or 'none'}")
        rest = (Add(*chances) - 1).expand()
        if any(p.is_extended_nonnegative is False for p in chances) or (rest.is_number and abs(rest) > 1e-12):
            raise QuenchedError(
                f"probabilities of Discrete should be non-negative and sum to 1, got {', '.join(map(str, chances))}"
            )

    def _sympystr(self, printer: Any) -> str:
        return f"Discrete({', '.join(f'{printer._print(a)}: {printer._print(p)}' for a, p in self.weights())})"

    def _latex(self, printer: Any) -> str:
        inside = r",\ ".join(f"{printer._print(a)}: {printer._print(p)}" for a, p in self.weights())
        return rf"\mathrm{{Discrete}}\left({inside}\right)"

    def mean_(self) -> Expr:
        return Add(*(a * p for a, p in self.weights()))

    def variance_(self) -> Expr:
        return Add(*(a**2 * p for a, p in self.weights())) - self.mean_() ** 2

    def weights(self) -> tuple[tuple[Expr, Expr], ...]:
        return tuple(zip(self.args[::2], self.args[1::2], strict=True))

    def support(self) -> Set:
        return FiniteSet(*self.args[::2])


class Bernoulli(Law):
    """1 with probability p, else 0."""

    parameter_names = ("p",)

    def _check(self) -> None:
        p = self.args[0]
        inside = False if p.is_extended_nonnegative is False or (1 - p).is_extended_nonnegative is False else None
        self._demand(0, inside, "between 0 and 1")

    def mean_(self) -> Expr:
        return self.args[0]

    def variance_(self) -> Expr:
        return self.args[0] * (1 - self.args[0])

    def weights(self) -> tuple[tuple[Expr, Expr], ...]:
        return ((Integer(0), 1 - self.args[0]), (Integer(1), self.args[0]))

    def support(self) -> Set:
        return FiniteSet(0, 1)


class Laplace(Law):
    """Two-sided exponential law, density exp(−|u|/scale)/(2 scale)."""

    parameter_names = ("scale",)

    def __new__(cls, scale: Any = 1) -> Laplace:
        return super().__new__(cls, scale)

    def _check(self) -> None:
        self._demand(0, self.args[0].is_positive, "positive")

    def mean_(self) -> Expr:
        return S.Zero

    def variance_(self) -> Expr:
        return 2 * self.args[0] ** 2

    def density(self, u: Expr) -> Expr:
        return exp(-Abs(u) / self.args[0]) / (2 * self.args[0])


class HalfNormal(Law):
    """Absolute value of a Gaussian number of mean 0 and standard deviation `scale`."""

    parameter_names = ("scale",)

    def __new__(cls, scale: Any = 1) -> HalfNormal:
        return super().__new__(cls, scale)

    def _check(self) -> None:
        self._demand(0, self.args[0].is_positive, "positive")

    def mean_(self) -> Expr:
        return self.args[0] * sqrt(2 / pi)

    def variance_(self) -> Expr:
        return self.args[0] ** 2 * (1 - 2 / pi)

    def support(self) -> Set:
        return Interval(0, oo)

    def density(self, u: Expr) -> Expr:
        scale = self.args[0]
        return Piecewise((sqrt(2 / pi) / scale * exp(-(u**2) / (2 * scale**2)), u >= 0), (0, True))


class Exponential(Law):
    """Exponential law with this mean."""

    parameter_names = ("mean",)

    def __new__(cls, mean: Any = 1) -> Exponential:
        return super().__new__(cls, mean)

    def _check(self) -> None:
        self._demand(0, self.args[0].is_positive, "positive")

    def mean_(self) -> Expr:
        return self.args[0]

    def variance_(self) -> Expr:
        return self.args[0] ** 2

    def support(self) -> Set:
        return Interval(0, oo)

    def density(self, u: Expr) -> Expr:
        return Piecewise((exp(-u / self.args[0]) / self.args[0], u >= 0), (0, True))


class SpikeSlab(Law):
    """A number from `law` with probability p, else 0."""

    def __new__(cls, p: Any, law: Any) -> SpikeSlab:
        p = as_scalar(p, "p of SpikeSlab")
        if p.is_extended_nonnegative is False or (1 - p).is_extended_nonnegative is False:
            raise QuenchedError(f"p of SpikeSlab should be between 0 and 1, got {p}")
        return Basic.__new__(cls, p, as_law(law, "slab of SpikeSlab"))

    def mean_(self) -> Expr:
        p, law = self.args
        return p * law.mean_()

    def variance_(self) -> Expr:
        p, law = self.args
        return p * law.variance_() + p * (1 - p) * law.mean_() ** 2

    def weights(self) -> tuple[tuple[Expr, Expr], ...]:
        p, law = self.args
        slab = dict(law.weights())
        if not slab:
            return ()
        spike = {S.Zero: 1 - p + p * slab.pop(S.Zero, S.Zero)}
        return tuple(spike.items()) + tuple((a, p * q) for a, q in slab.items())

    def support(self) -> Set:
        return Union(FiniteSet(0), self.args[1].support())

    def density(self, u: Expr) -> Expr:
        p, law = self.args
        return (1 - p) * DiracDelta(u) + p * law.density(u)


def as_law(value: Any, what: str) -> Law:
    """Check that `value` is a law of one number."""
    if not isinstance(value, Law):
        raise QuenchedError(f"{what} should be a law such as Normal(0, 1) or Ising(), got {value!r}")
    return value


#: Slot in which densities are shown.
VALUE: Symbol = Symbol("u", real=True)
