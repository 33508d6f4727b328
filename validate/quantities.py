"""Numbers for declared expressions, and the steps in which time is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sympy import Dummy, Expr, Symbol, lambdify

from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Gaussian
from quenched.theory.distributions import Law as DeclaredLaw
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import Field
from quenched.theory.model import Model
from quenched.theory.priors import Restricted
from quenched.theory.spaces import ANGLE, Population
from quenched.theory.spaces import N as SIZE
from quenched.validate.generate import Tables, label, leaves
from quenched.validate.sampling import SAMPLERS, Law, MatrixSpec

Values = dict[Symbol, float]


@dataclass(frozen=True)
class Numbers:
    """Turns declared expressions into numbers."""

    values: Values
    N: int

    def __call__(self, expr: Expr) -> float:
        """Value of an expression in parameters and N."""
        out = expr.subs({**self.values, SIZE: self.N})
        if not out.is_number or out.is_extended_real is False:
            raise QuenchedError(f"{expr} has no real value here (got {out})")
        return float(out)

    def size(self, population: Population) -> tuple[float, int]:
        """Declared size of a population and the number of units used."""
        wanted = self(population.count)
        used = round(wanted)
        if used < 1:
            raise QuenchedError(
                f"population {population.name} would have {wanted:g} units at N = {self.N}: use a larger N"
            )
        return wanted, used

    def law(self, law: DeclaredLaw) -> Law:
        """A law with numbers for its parameters."""
        law = law.plain() if isinstance(law, Restricted) else law
        name = type(law).__name__
        if name not in SAMPLERS and law.weights():
            return ("Discrete", *(self(e) for pair in law.weights() for e in pair))
        parts = [self.law(a) if isinstance(a, DeclaredLaw) else self(a) for a in law.args]
        return (name, *parts)


def matrix_spec(atom: Any, numbers: Numbers) -> MatrixSpec:
    """A coupling matrix with numbers: entries of an extensive row sum scale with N, finite ones stay as declared."""
    rows, cols = numbers.size(atom.rows)[1], numbers.size(atom.cols)[1]
    scale = 1.0 if atom.cols.size is not None else float(numbers.N)
    fresh = atom.redraw is not None
    if isinstance(atom, Circulant):
        return MatrixSpec(label(atom), rows, cols, column=first_column(atom, rows, numbers))
    if not isinstance(atom, Gaussian):
        return MatrixSpec(label(atom), rows, cols, law=numbers.law(atom.law), scale=1 / math.sqrt(scale), fresh=fresh)
    variance = numbers(atom.variance)
    if variance < 0:
        raise QuenchedError(f"variance of {atom.name} is negative: {variance:g}")
    return MatrixSpec(
        label(atom),
        rows,
        cols,
        variance=variance / scale,
        mean=numbers(atom.mean) / scale,
        symmetry=numbers(atom.symmetry),
        diagonal=None if atom.diagonal is None else 0.0,
        fresh=fresh,
        correlation=tuple((label(other), numbers(rho)) for other, rho in atom.correlation.items()),
    )


def first_column(atom: Circulant, size: int, numbers: Numbers) -> tuple[float, ...]:
    """Entries of a translation-invariant matrix at shifts 0, 1, …: the Fourier sum of its eigenvalues."""
    angles = 2 * np.pi * np.arange(size) / size
    eigenvalue = atom.eigenvalue.xreplace({**numbers.values, SIZE: numbers.N})
    table = lambdify([ANGLE], eigenvalue, "numpy")(angles)
    entries = np.fft.ifft(np.broadcast_to(np.asarray(table, complex), size))
    if not np.abs(entries.imag).max() < 1e-9 * (1 + np.abs(entries).max()):
        raise QuenchedError(f"the entries of {atom.name} are not real at these values of the parameters")
    return tuple(entries.real.tolist())


def initial_law(fld: Field, numbers: Numbers) -> Law | None:
    """Law of the initial state; None when it is an expression that the program evaluates."""
    if fld.initial is None:
        return ("Normal", 0.0, 1.0)
    return numbers.law(fld.initial) if isinstance(fld.initial, DeclaredLaw) else None


# ---------------------------------------------------------------- time


@dataclass(frozen=True)
class Clock:
    """Step and durations in steps.

    Attributes
    ----------
    unit : step in the unit in which durations, lags and rates are counted: dt of a flow, 1 of every map
    advance : what one step adds to `t` in the equations: dt of a flow, the declared dt of a discretised flow, or 1
    burn, window, stride : steps
    span : longest default lag, in the same unit as durations
    """

    unit: float
    advance: float
    burn: int
    window: int
    stride: int
    span: float

    @classmethod
    def of(
        cls,
        model: Model,
        tables: Tables,
        numbers: Numbers,
        dt: float | None,
        duration: float | None,
        burn: float | None,
        fraction: float,
        multiples: Sequence[float],
    ) -> Clock:
        """Numbers of steps; the default step divides `multiples` where they have a common measure."""
        fast, slow = time_scales(model, tables, numbers)
        declared = None if model.dt is None else numbers(model.dt)
        if model.clock == "map":
            if dt is not None and (declared is None or not math.isclose(dt, declared)):
                raise QuenchedError(
                    f"dt = {dt:g} does not apply: the model is a map" + (f" with dt = {declared:g}" if declared else "")
                )
            step = 1.0
            fast = fast if declared else 1.0
        else:
            step = default_step(fast * fraction, multiples) if dt is None else check_positive("dt", dt)
        window = max(300 * fast, 20 * slow) if duration is None else check_positive("duration", duration)
        before = max(100 * fast, 5 * slow) if burn is None else check_positive("burn", burn, zero=True)
        stride = max(1, round(fast / 2 / step))
        span = 20 * fast
        if window < step:
            raise QuenchedError(f"duration = {window:g} is shorter than one step of {step:g}")
        advance = step if model.clock == "flow" else declared or 1.0
        return cls(step, advance, round(before / step), round(window / step), stride, span)

    def steps(self, time: float, what: str) -> int:
        """A time of the equations as a number of steps."""
        return _multiple(time, self.advance, what)

    def delay_steps(self, delay: float, expr: Expr) -> int:
        """A delay as a number of steps, at least one."""
        count = self.steps(delay, f"delay {expr}")
        if count < 1:
            raise QuenchedError(f"delay {expr} = {delay:g} should be positive, at least one step of {self.advance:g}")
        return count

    def lag_steps(self, lags: ArrayLike | None) -> tuple[int, ...]:
        """Lags as numbers of steps."""
        if lags is None:
            return tuple(range(0, round(self.span / self.unit) + 1, self.stride))
        array = np.atleast_1d(np.asarray(lags, float))
        if array.ndim != 1 or not array.size or np.any(array < 0) or not np.all(np.isfinite(array)):
            raise QuenchedError("lags should be a list of non-negative numbers")
        return tuple(_multiple(float(lag), self.unit, "lag") for lag in array)


def _multiple(time: float, step: float, what: str) -> int:
    count = round(time / step)
    if abs(count * step - time) > 1e-6 * max(step, abs(time)):
        raise QuenchedError(f"{what} = {time:g} should be a multiple of the step {step:g}")
    return count


def check_positive(name: str, value: float, zero: bool = False) -> float:
    """A finite positive number (or zero where allowed)."""
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise QuenchedError(f"{name} should be a positive number, got {value!r}")
    return number


def default_step(target: float, multiples: Sequence[float]) -> float:
    """A step of at most `target` (and not far below it) of which all `multiples` are multiples, if there is one."""
    parts = [Fraction(abs(float(m))).limit_denominator(10**6) for m in multiples if math.isfinite(m)]
    common = reduce(_common_measure, parts, Fraction(0))
    if common < target / 20:
        return round_down(target)
    return float(common) / math.ceil(float(common) / target - 1e-9)


def _common_measure(a: Fraction, b: Fraction) -> Fraction:
    return Fraction(math.gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)


def round_down(value: float) -> float:
    """The next smaller of 1, 2, 2.5, 5 × powers of ten."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return float(f"{next(f for f in (5, 2.5, 2, 1) if f * power <= value * (1 + 1e-9)) * power:.3g}")


def time_scales(model: Model, tables: Tables, numbers: Numbers) -> tuple[float, float]:
    """Fastest and slowest declared relaxation time of single units (in steps for a map), 1 where none is declared.

    Taken from ∂(right-hand side)/∂(own field) at zero fields and mean disorder: enough to choose default steps.
    """
    times = []
    for f, rhs in model.eqs.items():
        stand_in = {leaf: Dummy(real=True) for leaf in leaves(rhs)}
        slope = rhs.xreplace(stand_in).diff(stand_in[f]) if f in stand_in else None
        if slope is None:
            continue
        disorder = {stand_in[q]: q.law.mean_() for q in tables.quenched if q in stand_in}
        point = slope.subs(disorder).subs({d: 0 for d in stand_in.values()}).subs({**numbers.values, SIZE: numbers.N})
        value = point.subs({s: 0 for s in point.free_symbols})
        if not (value.is_number and value.is_finite):
            continue
        real = complex(value.evalf()).real
        rate = abs(real) if model.clock == "flow" else abs(1 - real)
        if math.isfinite(rate) and rate > 1e-9:
            times.append(1 / rate)
    return (min(times), max(times)) if times else (1.0, 1.0)
