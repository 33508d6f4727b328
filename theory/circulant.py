"""Translation-invariant matrices: `Circulant`, given by its entries by shift or by its eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sympy import (
    Basic,
    Expr,
    Float,
    I,
    S,
    Symbol,
    Tuple,
    cos,
    exp,
    expand,
    expand_mul,
    expand_trig,
    im,
    re,
    sin,
    sympify,
)
from sympy.core.symbol import Str

from quenched.theory.algebra import Matrix, Transpose
from quenched.theory.couplings import RandomMatrix, spaces_of
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.spaces import ANGLE, NOTHING, as_name, as_scalar, units

__all__ = ["Circulant"]


class Circulant(RandomMatrix):
    """Translation-invariant matrix between units on a cycle: the entry at (μ+r, μ) depends on the shift r alone.

    The matrix is not random and its entries carry no power of N. Its eigenvectors are the Fourier modes e^{iμθ}, with
    eigenvalues λ(θ) = Σ_r X_{μ+r,μ} e^{−irθ}; as the number of units grows, θ is uniform on [0, 2π).

    Parameters
    ----------
    name : str
    symbol : dict of shift to entry, or expression in one angle
        ``{0: c, 1: gamma, -1: gamma}`` gives X_{μμ} = c, X_{μ+1,μ} = X_{μ−1,μ} = gamma, one-sided windows leave out the
        negative shifts; an expression is λ(θ), such as ``c + 2*gamma*cos(theta)`` or ``gamma*exp(-I*theta)``.
    over : pair of equal populations, default ``(units, units)``
    angle : Symbol, optional
        The angle in an expression, where it is not the only symbol inside cos, sin and exp(I …).

    Attributes
    ----------
    eigenvalue : Expr
        λ in the language's own angle `ANGLE`.
    symmetric : bool

    Raises
    ------
    QuenchedError
        For different populations, shifts that are no whole numbers, an angle that cannot be told, or complex entries.
    """

    eigenvalue: Expr

    def __new__(cls, name: Any, symbol: Any, over: Any = (units, units), angle: Any = None) -> Circulant:
        text = as_name(name, "Circulant")
        spaces = spaces_of(over, text)
        if spaces[0] != spaces[1]:
            raise QuenchedError(
                f"Circulant {text} needs equal row and column populations, got {spaces[0].name!r}, {spaces[1].name!r}"
            )
        if spaces[0].labels is not None:
            raise NotCovered(f"Circulant {text} over {spaces[0].name!r}, whose units carry labels: leave out labels=")
        eigenvalue = _by_shift(symbol, text) if isinstance(symbol, Mapping) else _by_angle(symbol, angle, text)
        obj = Basic.__new__(cls, Str(text), eigenvalue, Tuple(*spaces), ANGLE)
        obj.eigenvalue = eigenvalue
        obj._place(text, spaces, Str(""))
        return obj

    @property
    def symmetric(self) -> bool:
        """Whether the matrix equals its transpose, λ(θ) = λ(−θ)."""
        return _vanishes(self.eigenvalue - _mirrored(self.eigenvalue))

    def transposed(self) -> Matrix:
        return self if self.symmetric else Transpose(self)

    def mode(self, angle: Expr) -> Expr:
        """Eigenvalue of the Fourier mode of an angle."""
        return self.eigenvalue.xreplace({ANGLE: angle})


def _by_shift(entries: Mapping[Any, Any], name: str) -> Expr:
    """λ(θ) of entries by shift, real where shifts come in pairs."""
    table: dict[int, Expr] = {}
    for key, value in entries.items():
        shift = sympify(key)
        if not shift.is_Integer:
            raise QuenchedError(f"a key of Circulant {name} is a whole number of shifts, got {key!r}")
        table[int(shift)] = as_scalar(value, f"entry of {name} at shift {key}")
    if not table:
        raise QuenchedError(f"Circulant {name} has no entries")
    total = S.Zero
    for shift, value in sorted(table.items()):
        if shift and table.get(-shift) == value:
            total += value * cos(shift * ANGLE)
        else:
            total += value * exp(-I * shift * ANGLE)
    return total


def _by_angle(given: Any, angle: Any, name: str) -> Expr:
    """Check an eigenvalue as a function of an angle, and write it in the language's own angle."""
    symbol = _whole(sympify(given))
    if not isinstance(symbol, Expr) or any(hasattr(s, "population") for s in symbol.free_symbols):
        raise QuenchedError(f"the symbol of Circulant {name} is a function of one angle or a dict of shifts: {given!r}")
    if ANGLE in symbol.free_symbols:  # a matrix that is rebuilt
        angle = ANGLE
    elif angle is None or angle == NOTHING:
        angle = _angle_in(symbol, name)
    elif not isinstance(angle, Symbol):
        raise QuenchedError(f"angle of Circulant {name} should be a symbol, got {angle!r}")
    out = expand_mul(symbol.xreplace({angle: ANGLE}))
    if not _vanishes(out.xreplace({I: -I}) - _mirrored(out)):
        raise QuenchedError(
            f"the entries of Circulant {name} are not real: its symbol {given} needs λ(−{angle}) = conj λ({angle})"
        )
    return out


def _angle_in(symbol: Expr, name: str) -> Symbol:
    """The symbol inside cos, sin and exp(I …)."""
    inside = [node.args[0] for node in symbol.atoms(cos, sin)]
    inside += [node.args[0] for node in symbol.atoms(exp) if node.args[0].has(I)]
    found = sorted({s for e in inside for s in e.free_symbols}, key=str)
    if len(found) > 1:
        raise QuenchedError(
            f"the symbol of Circulant {name} has {', '.join(map(str, found))} in its waves: give angle="
        )
    return found[0] if found else ANGLE


def _mirrored(symbol: Expr) -> Expr:
    return symbol.xreplace({ANGLE: -ANGLE})


def _vanishes(difference: Expr) -> bool:
    """Whether an expression in waves is zero: by expansion, then in cos and sin of the angle."""
    if expand(difference) == 0:
        return True
    waves = expand(expand_trig(expand(difference).rewrite(cos)))
    return bool(waves == 0 or (expand(re(waves)) == 0 and expand(im(waves)) == 0))


def _whole(expr: Any) -> Any:
    """Floats that are whole numbers, as from ``1j*theta``, made exact."""
    return expr.xreplace({f: sympify(int(f)) for f in expr.atoms(Float) if float(f).is_integer()})
