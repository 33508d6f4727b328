"""Gaussian random functions of the whole state: energies of p-body interactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sympy import Add, Basic, Expr, Poly, S, Symbol, Tuple, sympify
from sympy.core.symbol import Str

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Compared, Field
from quenched.theory.spaces import Population, as_name

#: Overlap s·s′/N of two states in a covariance.
OVERLAP = Symbol("q", real=True)


class Landscape(Basic):
    """Centred Gaussian function V of the states of one field, E V(s) V(s′) = N f(q) with q = s·s′/(number of units).

    Parameters
    ----------
    name : str
    f : function of the overlap, or expression in one symbol
        A polynomial with coefficients that are not negative and no constant: ``lambda q: q**3/2`` is the energy of
        three-body interactions with couplings of variance 3!/(2 N²) between different units.

    Raises
    ------
    QuenchedError
        For an f that is no covariance of this kind.
    """

    name: str
    f: Expr

    def __new__(cls, name: Any, f: Callable[[Any], Any] | Any) -> Landscape:
        text = as_name(name, "Landscape")
        if isinstance(f, Tuple):  # rebuilding from arguments
            f = Add(*(c * OVERLAP**p for p, c in f))
        expr = sympify(f(OVERLAP) if callable(f) and not isinstance(f, Expr) else f)
        free = sorted(expr.free_symbols, key=str)
        if OVERLAP not in free and len(free) == 1:
            expr = expr.xreplace({free[0]: OVERLAP})
        if not expr.is_polynomial(OVERLAP):
            raise NotCovered(f"the covariance {expr} of Landscape {text}: polynomials of the overlap are covered")
        for (power,), c in Poly(expr, OVERLAP).terms():
            if power == 0 or c.is_negative:
                raise QuenchedError(f"covariance of Landscape {text}: expected terms c·q^p, p ≥ 1, c ≥ 0, got {expr}")
        powers = sorted((p, c) for (p,), c in Poly(expr, OVERLAP).terms())
        obj = Basic.__new__(cls, Str(text), Tuple(*(Tuple(p, c) for p, c in powers)))  # the overlap is no parameter
        obj.name, obj.f = text, expr
        return obj

    @property
    def powers(self) -> tuple[tuple[int, Expr], ...]:
        """(p, coefficient of q^p in the covariance)."""
        return tuple((int(p), c) for p, c in self.args[1])

    def law_text(self, show: Callable[[Any], str] = str) -> str:
        """The law in one line."""
        return f"E {self.name}(s) {self.name}(s′) = N·({show(self.f)}), q = s·s′/N"

    def law_latex(self, show: Callable[[Any], str]) -> str:
        """The law as a row of an ``aligned`` block."""
        two = rf"{self.name}(s)\, {self.name}(s')"
        return rf"\mathbb{{E}}\, {two} &= N \left({show(self.f)}\right),\quad q = \frac{{1}}{{N}} \sum_i s_i s'_i"

    def __call__(self, state: Any) -> Expr:
        return Height(self, state)

    def _sympystr(self, printer: Any) -> str:
        return self.name

    def _latex(self, printer: Any) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Landscape {self.name}: {self.law_text()}"


class Height(Compared, Expr):
    """The value of a random function at a state: extensive, without open unit index.

    Attributes
    ----------
    landscape, field, population
    """

    is_commutative = True
    is_real = True
    closes_index = True

    def __new__(cls, landscape: Any, state: Any) -> Height:
        if not isinstance(state, Field):
            raise QuenchedError(f"{landscape}({state}) takes a field, as in {landscape}(s)")
        return Expr.__new__(cls, landscape, state.bind())

    @property
    def landscape(self) -> Landscape:
        """The random function."""
        return self.args[0]

    @property
    def field(self) -> Field:
        """The state."""
        return self.args[1].free()

    @property
    def population(self) -> Population:
        """Units of the state."""
        return self.args[1].population

    def _eval_derivative(self, s: Any) -> Expr:
        return S.Zero

    def _sympystr(self, printer: Any) -> str:
        return f"{self.landscape.name}({self.field.name})"

    def _latex(self, printer: Any) -> str:
        return rf"{self.landscape.name}\left({printer._print(Symbol(self.field.name))}\right)"
