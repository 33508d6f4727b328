"""Index spaces of a declaration: populations of units, the reference size and time.

Every quantity of the language is an array with named indices. The *unit index* runs over a `Population`; it is what
``J @ x`` contracts and what `mean` averages over.
"""

from __future__ import annotations

from typing import Any

import sympy
from sympy import Basic, Expr, Integer, Symbol, Tuple, sympify
from sympy.core.symbol import Str

from quenched.theory.errors import QuenchedError
from quenched.theory.keywords import named_arguments

#: Reference size: couplings over an extensive population scale with it, and populations have fraction·N units.
N: Symbol = Symbol("N", positive=True, integer=True)
#: Time (of a map: the time step, or steps times `dt` when the map is a discretised flow).
t: Symbol = Symbol("t", real=True)
#: Time lag of correlation and response functions.
tau: Symbol = Symbol("tau", real=True)
#: Angle of the Fourier modes of a translation-invariant matrix.
ANGLE: Symbol = Symbol("θ", real=True)

#: Names that the language keeps for itself, with the symbol that owns each.
RESERVED: dict[str, Symbol] = {"N": N, "t": t, "tau": tau, "θ": ANGLE}

#: Stands for "not given" inside sympy arguments.
NOTHING = Tuple()


def as_name(name: Any, what: str) -> str:
    """Check that `name` is a usable name and return it as a plain string."""
    text = name.name if isinstance(name, Str) else name
    if not isinstance(text, str) or not text.strip():
        raise QuenchedError(f"{what} needs a name (a non-empty string), got {name!r}")
    return text


def as_expr(value: Any, what: str) -> Expr:
    """Check that `value` is a scalar expression and return it as a sympy object."""
    try:
        out = sympify(value, strict=True)  # no strings: they would make symbols of their own
    except Exception as error:
        raise QuenchedError(_no_expression(value, what)) from error
    if not isinstance(out, Expr) or not getattr(out, "is_commutative", False):
        raise QuenchedError(_no_expression(value, what))
    return out


def _no_expression(value: Any, what: str) -> str:
    """What is wrong with a value that is no expression; names that sympy takes for itself get a hint."""
    name = getattr(value, "__name__", None)
    reserved = (name or str(value)) if getattr(sympy, name or str(value), None) is value and value is not None else None
    hint = ""
    if name in ("N", "t", "tau"):
        hint = f" (a function of another library: import {name} from quenched)"
    elif reserved:
        hint = f" (sympy's own {reserved}: for a parameter of this name write {reserved} = symbols({reserved!r}))"
    kind = "" if name else f" ({type(value).__name__})"
    return f"{what} should be a number or an expression, got {name or repr(value)}{kind}{hint}"


def as_scalar(value: Any, what: str) -> Expr:
    """Check that `value` is a real expression in parameters and `N` only: no units, no time."""
    out = as_expr(value, what)
    for symbol in sorted(out.free_symbols, key=str):
        if hasattr(symbol, "population"):
            raise QuenchedError(f"{what} should contain parameters only, but contains the unit quantity {symbol}")
        if symbol in (t, tau):
            raise QuenchedError(f"{what} should contain parameters only, but contains the time {symbol}")
    if out.is_extended_real is False or out.is_finite is False:
        raise QuenchedError(f"{what} should be a finite real number, got {out}")
    return out


class Population(Basic):
    """A set of units.

    Parameters
    ----------
    name : str
        How the population is printed; two populations are the same when name and size are.
    fraction : expression, default 1
        Extensive population of fraction·N units (rounded in simulations).
    size : expression, optional
        Finite population of exactly `size` members that stay explicit; excludes `fraction`.
    labels : law, optional
        Every unit carries a label drawn from this law.

    Raises
    ------
    QuenchedError
        For a name that is no string, both a fraction and a size, or a size that is decidedly not positive.
    """

    is_Atom = True  # expand() and its kin must not rewrite the fraction

    name: str
    fraction: Expr | None
    size: Expr | None
    labels: Basic | None

    @named_arguments
    def __new__(cls, name: Any, fraction: Any = None, size: Any = None, labels: Any = None) -> Population:
        text = as_name(name, "Population")
        fraction, size, labels = (None if part == NOTHING else part for part in (fraction, size, labels))
        if fraction is not None and size is not None:
            raise QuenchedError(f"Population {text!r} has both fraction={fraction} and size={size}: give one of them")
        if size is None:
            fraction = as_scalar(1 if fraction is None else fraction, f"fraction of population {text!r}")
            if fraction.is_positive is False:
                raise QuenchedError(f"fraction of population {text!r} should be positive, got {fraction}")
        else:
            size = as_scalar(size, f"size of population {text!r}")
            if size.is_positive is False or size.is_integer is False:
                raise QuenchedError(f"size of population {text!r} should be a positive whole number, got {size}")
        if labels is not None and not isinstance(labels, Basic):
            raise QuenchedError(f"labels of population {text!r} should be a law such as Uniform(0, 1), got {labels!r}")
        parts = [NOTHING if part is None else part for part in (fraction, size, labels)]
        obj = Basic.__new__(cls, Str(text), *parts)
        obj.name, obj.fraction, obj.size, obj.labels = text, fraction, size, labels
        return obj

    @property
    def extensive(self) -> bool:
        """Whether the number of units grows with `N`."""
        return self.size is None

    @property
    def count(self) -> Expr:
        """Number of units: fraction·N, or the declared size."""
        return self.fraction * N if self.size is None else self.size

    def _eval_simplify(self, **kwargs: Any) -> Population:
        return self

    def _sympystr(self, printer: Any) -> str:
        return self.name

    def _latex(self, printer: Any) -> str:
        return rf"\mathrm{{{self.name}}}"

    def __repr__(self) -> str:
        if self.size is not None:
            return f"Population({self.name!r}, size={self.size})"
        return f"Population({self.name!r}, fraction={self.fraction})"


def as_population(value: Any, what: str) -> Population:
    """Check that `value` is a population (and not, say, sympy's E)."""
    if not isinstance(value, Population):
        raise QuenchedError(f'{what} should be a Population, got {value!r}: write Population("E", fraction=0.8)')
    return value


#: The population of everything that does not name one.
units: Population = Population("units", Integer(1))
