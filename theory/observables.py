"""What is observed: averages over units, and named functionals of a model."""

from __future__ import annotations

from typing import Any

from sympy import Add, Basic, Expr, Mul, S, Symbol, sympify

from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.fields import Compared, Field, UnitSymbol, bind, open_leaves, population_of
from quenched.theory.spaces import Population, as_expr, as_population


class Mean(Compared, Expr):
    """Average of a unit quantity over its population (which divides by its own size).

    Attributes
    ----------
    body : Expr
        What is averaged, in bound copies of the unit symbols.
    population : Population
    """

    is_commutative = True
    is_real = True
    closes_index = True
    precedence = 1000

    def __new__(cls, body: Any, population: Population) -> Expr:
        body = sympify(body)
        parts = [cls._term(term, population) for term in Add.make_args(body)]
        return Add(*parts)

    @classmethod
    def _term(cls, term: Expr, population: Population) -> Expr:
        scalar, unit = split_scalar(term)
        if unit == 1:
            return scalar
        if unit.is_Add:
            return scalar * cls(unit, population)
        return scalar * Expr.__new__(cls, bind(unit), population)

    @property
    def body(self) -> Expr:
        """What is averaged, in bound copies."""
        return self.args[0]

    @property
    def population(self) -> Population:
        """The population that is averaged over."""
        return self.args[1]

    def _eval_derivative(self, s: Any) -> Expr:
        if isinstance(s, UnitSymbol):
            return S.Zero
        return Mean(self.body.diff(s), self.population)

    def _sympystr(self, printer: Any) -> str:
        return f"mean({printer._print(self.body)})"

    def _latex(self, printer: Any) -> str:
        return rf"\left\langle {printer._print(self.body)} \right\rangle"


def split_scalar(term: Expr) -> tuple[Expr, Expr]:
    """Split a product into its factors without and with a unit index."""
    scalars: list[Expr] = []
    unit: list[Expr] = []
    for factor in Mul.make_args(term):
        (scalars if next(open_leaves(factor), None) is None else unit).append(factor)
    return Mul(*scalars), Mul(*unit)


def mean(expr: Any, over: Any = None) -> Expr:
    """Average over the units of a population (default: the population of `expr`)."""
    _refuse_matrix(expr, "mean")
    body = as_expr(expr, "mean")
    found = population_of(body, f"mean({body})")
    if over is not None:
        space = as_population(over, f"over of mean({body})")
        if found is not None and found != space:
            raise QuenchedError(f"mean({body}, over={space.name!r}): its units are in {found.name!r}")
        found = space
    return body if found is None else Mean(body, found)


def total(expr: Any, over: Any = None) -> Expr:
    """Sum over the units of a population: its size times the average."""
    _refuse_matrix(expr, "total")
    body = as_expr(expr, "total")
    space = population_of(body, f"total({body})") if over is None else as_population(over, f"over of total({body})")
    if space is None:
        raise QuenchedError(f"total({body}) sums over units, but {body} has none: give over=")
    return space.count * mean(body, space)


def cov(a: Any, b: Any = None) -> Expr:
    """Covariance over units, mean(ab) − mean(a)·mean(b); the variance when `b` is left out."""
    b = a if b is None else b
    _refuse_matrix(a, "cov")
    _refuse_matrix(b, "cov")
    first, second = as_expr(a, "cov"), as_expr(b, "cov")
    return mean(first * second) - mean(first) * mean(second)


def _refuse_matrix(value: Any, what: str) -> None:
    if isinstance(value, Basic) and not isinstance(value, Expr):
        raise QuenchedError(f"{what}({value}) takes a quantity of the units, got a {type(value).__name__}")


class Functional(Expr):
    """A named functional of a model, usable in expressions and in ``observe``. Its arguments are bound."""

    is_commutative = True
    is_real = True
    closes_index = True

    def __new__(cls, *args: Any) -> Functional:
        return Expr.__new__(cls, *(cls._argument(a) for a in args))

    @classmethod
    def _argument(cls, value: Any) -> Basic:
        if isinstance(value, Basic) and not isinstance(value, Expr):
            return value
        return bind(as_expr(value, f"argument of {cls.__name__}"))

    def _eval_derivative(self, s: Any) -> Expr:
        return S.Zero


class Lyapunov(Functional):
    """Largest Lyapunov exponent of the whole declared system, per unit time (per step for a map).

    Parameters
    ----------
    field : Field
        The field whose growth is observed; any field gives the same exponent.
    """

    def __new__(cls, field: Any) -> Lyapunov:
        if not isinstance(field, Field):
            raise QuenchedError(f"Lyapunov takes a field of the model, as in Lyapunov(x), got {field!r}")
        return Expr.__new__(cls, field.bind())

    @property
    def field(self) -> Field:
        """The field."""
        return self.args[0].free()


class Critical(Functional):
    """Value of a parameter at which a condition crosses zero: ``Critical(g, Lyapunov(x))``."""

    def __new__(cls, parameter: Any, condition: Any) -> Critical:
        if not isinstance(parameter, Symbol) or isinstance(parameter, UnitSymbol):
            raise QuenchedError(f"Critical takes a parameter first, as in Critical(g, Lyapunov(x)), got {parameter!r}")
        return Expr.__new__(cls, parameter, cls._argument(condition))

    @property
    def parameter(self) -> Symbol:
        """The parameter that is varied."""
        return self.args[0]

    @property
    def condition(self) -> Expr:
        """The quantity that vanishes."""
        return self.args[1]


class Growth(Functional):
    """Growth rate of the fastest small perturbation: of a dynamics, of the state in which all fields vanish.

    Per unit time (a step of a map: the logarithm of the largest multiplier). Not to be confused with `Lyapunov`, the
    exponent of the state that the dynamics is in. Of a measure: growth of perturbed messages a sweep.
    """


class Complexity(Functional):
    """(1/N) ln of the mean number of stable fixed points of a flow, its dynamic couplings at rest too.

    The point in which all fields vanish is not counted.
    N is the number of units; declared in a model of its own, beside ``Critical(parameter, Complexity())`` at most.
    """

    def __new__(cls) -> Complexity:
        return Expr.__new__(cls)


class SpinGlassSusceptibility(Functional):
    """(1/N) Σ_ij (⟨s_i s_j⟩ − ⟨s_i⟩⟨s_j⟩)² of the units of a field of a measure, N being their own number.

    Parameters
    ----------
    field : Field
        The field whose units respond to each other.
    """

    def __new__(cls, field: Any) -> SpinGlassSusceptibility:
        if not isinstance(field, Field) or field.copy is not None:
            raise QuenchedError(
                f"SpinGlassSusceptibility takes a field, as in SpinGlassSusceptibility(s), got {field!r}"
            )
        return Expr.__new__(cls, field.bind())

    @property
    def field(self) -> Field:
        """The field."""
        return self.args[0].free()


class _OverTime(Functional):
    """A functional of an expression in averages over units, over 0 ≤ t ≤ until from the declared start."""

    def __new__(cls, expression: Any, until: Any) -> _OverTime:
        return Expr.__new__(cls, cls._argument(expression), as_expr(until, f"until of {cls.__name__}"))

    @property
    def expression(self) -> Expr:
        """What is followed in time."""
        return self.args[0]

    @property
    def until(self) -> Expr:
        """The last time, in the declaration's unit (steps of a map)."""
        return self.args[1]


class Peak(_OverTime):
    """The largest value of an expression in averages over units: ``Peak(mean(xi[1]*tanh(x)), until=4)``."""


class PeakTime(_OverTime):
    """When an expression in averages over units is largest, over 0 ≤ t ≤ until."""


class Fluctuation(Functional):
    """N times the variance, over realisations of the network, of an expression in averages over units.

    Of ``cov(a, b)`` in a dynamics: N times the mean of C_ij² over pairs of units i ≠ j (see `theory.cross`), the
    variance of an average over units of two copies with the same couplings.
    """

    def __new__(cls, expression: Any) -> Fluctuation:
        return Expr.__new__(cls, cls._argument(expression))


class Shift(Functional):
    """N times the difference of the mean of an expression in averages over units to its limit N → ∞."""

    def __new__(cls, expression: Any) -> Shift:
        return Expr.__new__(cls, cls._argument(expression))


class Posterior(Functional):
    """The mean of an expression over realisations that are weighted by a likelihood (both of averages over units).

    A prediction by networks conditioned on data: ``Posterior(prediction, evidence)``.
    """

    def __new__(cls, expression: Any, evidence: Any) -> Posterior:
        return Expr.__new__(cls, cls._argument(expression), cls._argument(evidence))


_NAMES = """
    Participation Replicon Entropy FreeEntropy Capacity Margin Probability IPR Kernel
    Fisher Evidence RateFunction Law_of
"""
#: Functionals that can be written down.
NAMED = (
    *_NAMES.split(),
    "Complexity",
    "Fluctuation",
    "Growth",
    "Peak",
    "PeakTime",
    "Posterior",
    "Shift",
    "SpinGlassSusceptibility",
)


def functional(name: str) -> type[Functional]:
    """The functional class of this name."""
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, Functional):
        return found
    raise QuenchedError(f"unknown functional {name!r}: {nearest(name, ['Lyapunov', 'Critical', *NAMED])}")


for _name in _NAMES.split():
    globals()[_name] = type(_name, (Functional,), {"__doc__": f"Named functional {_name}.", "__module__": __name__})
