"""What is observed of a spectrum: densities, counts in regions, edges, radii, outliers, moments.

Each is a named functional of the whole matrix and stands in expressions such as ``Moment(2) - Moment(1)**2``. Their
numbers may contain parameters. A region is open; a boundary has no eigenvalues in the limit.
"""

from __future__ import annotations

from typing import Any

from sympy import Basic, Expr, I, Rational, S, Tuple, sympify
from sympy.core.symbol import Str

from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.observables import Functional

#: Directions in which an edge or an outlier is looked for, as points of the unit circle.
SIDES: dict[str, Expr] = {"right": S.One, "left": S.NegativeOne, "top": I, "bottom": -I}

#: Half length of the window of a `Density`, unless it is given.
WIDTH = Rational(1, 10)


class OfEigenvalues(Functional):
    """A functional of the eigenvalues of a declared matrix; of a dynamics, of its Jacobian at a state of the network.

    Dynamic couplings are variables of that Jacobian, too; the eigenvalues at their own rates, of perturbations that no
    unit reads, do not count.
    """

    is_commutative = True

    def _sympystr(self, printer: Any) -> str:
        return f"{type(self).__name__}({self.shown(printer._print)})"

    def _latex(self, printer: Any, exp: Any = None) -> str:
        name = rf"\mathrm{{{type(self).__name__}}}\left(\mathtt{{{self.shown(str)}}}\right)"
        return name if exp is None else rf"{name}^{{{exp}}}"

    def shown(self, write: Any) -> str:
        """The arguments as one would write them."""
        return ", ".join(write(a) for a in self.args)


class Density(OfEigenvalues):
    """Density of eigenvalues about a point: their fraction in a window, over its length or area.

    Parameters
    ----------
    at : number
        Real for a matrix with real eigenvalues (density per unit length), else complex (per unit area).
    width : number, default 1/10
        Half length of the window, radius of the disc. Theory and simulation average over the same window.
    """

    def __new__(cls, at: Any, width: Any = WIDTH) -> Density:
        return Expr.__new__(cls, _number(at, "at of Density"), _positive(width, "width of Density"))

    def shown(self, write: Any) -> str:
        return f"{write(self.args[0])}, width={write(self.args[1])}"


class Count(OfEigenvalues):
    """Fraction of the eigenvalues in a region.

    Parameters
    ----------
    low, high : numbers, optional
        Short for ``window=(low, high)``.
    window : (low, high)
        An interval of real parts.
    box : ((low, high), (low, high))
        Intervals of real and imaginary parts.
    disc : radius, or (radius, centre)
    """

    def __new__(cls, *ends: Any, window: Any = None, box: Any = None, disc: Any = None) -> Count:
        if len(ends) == 2 and isinstance(ends[0], Str):
            return Expr.__new__(cls, *ends)  # rebuilt by sympy
        if len(ends) not in (0, 2):
            raise QuenchedError(f"Count takes the two ends of a window, as in Count(0, 1), got {len(ends)} numbers")
        given = {"window": window if window is not None else (ends or None), "box": box, "disc": disc}
        regions = {kind: region for kind, region in given.items() if region is not None}
        if len(regions) != 1 or (ends and window is not None):
            raise QuenchedError(f"Count takes one of window=, box=, disc=, got {', '.join(regions) or 'none'}")
        kind, region = regions.popitem()
        return Expr.__new__(cls, Str(kind), _REGIONS[kind](region))

    @property
    def kind(self) -> str:
        """``window``, ``box`` or ``disc``."""
        return str(self.args[0].name)

    @property
    def region(self) -> Tuple:
        """Its numbers: (low, high); (low, high, low, high); (radius, centre)."""
        return self.args[1]

    def shown(self, write: Any) -> str:
        numbers = [write(a) for a in self.region]
        if self.kind == "box":
            return f"box=(({numbers[0]}, {numbers[1]}), ({numbers[2]}, {numbers[3]}))"
        if self.kind == "disc" and self.region[1] == 0:
            return f"disc={numbers[0]}"
        return f"{self.kind}=({', '.join(numbers)})"


class Edge(OfEigenvalues):
    """Where the support of the density ends in one direction; single eigenvalues outside it do not count.

    Parameters
    ----------
    side : "right", "left", "top" or "bottom"
        The largest or smallest real or imaginary part.
    above, below : number, optional
        Only the part of the support on one side of this number (of its real or imaginary parts): the edges of a gap are
        ``Edge("right", below=x)`` and ``Edge("left", above=x)`` for an x inside it.
    power : number, optional
        Exponent p of the correction N^(−p) of a sample's extreme eigenvalue, where the edge is not an ordinary one (2
        for the hard edge at 0 of squared square matrices).
    """

    def __new__(cls, side: Any = "right", above: Any = None, below: Any = None, power: Any = None) -> Edge:
        name = _side(side, "Edge")
        parts = [S.false if p is None or p == S.false else _number(p, "a bound of Edge") for p in (above, below)]
        law = S.false if power is None or power == S.false else _positive(power, "power of Edge")
        return Expr.__new__(cls, Str(name), *parts, law)

    @property
    def side(self) -> str:
        """Direction."""
        return str(self.args[0].name)

    @property
    def above(self) -> Expr | None:
        """Lower bound of what is looked at."""
        return None if self.args[1] == S.false else self.args[1]

    @property
    def below(self) -> Expr | None:
        """Upper bound of what is looked at."""
        return None if self.args[2] == S.false else self.args[2]

    @property
    def power(self) -> Expr | None:
        """Declared exponent of the finite-size correction."""
        return None if self.args[3] == S.false else self.args[3]

    def shown(self, write: Any) -> str:
        named = {"above": self.above, "below": self.below, "power": self.power}
        return ", ".join([repr(self.side), *(f"{k}={write(v)}" for k, v in named.items() if v is not None)])


class Radius(OfEigenvalues):
    """Radius of a support that is a disc or an annulus about a point; with ``inner=True`` that of its hole.

    Parameters
    ----------
    centre : number, default 0
    inner : bool
        The radius of the hole about the centre.
    """

    def __new__(cls, centre: Any = 0, inner: Any = False) -> Radius:
        return Expr.__new__(cls, _number(centre, "centre of Radius"), sympify(bool(inner)))

    @property
    def centre(self) -> Expr:
        """From where distances are taken."""
        return self.args[0]

    @property
    def inner(self) -> bool:
        """Whether the smallest distance is meant."""
        return bool(self.args[1])

    def shown(self, write: Any) -> str:
        centre = [] if self.centre == 0 else [write(self.centre)]
        return ", ".join([*centre, *(["inner=True"] if self.inner else [])])


class Outlier(OfEigenvalues):
    """A single real eigenvalue outside the support that a finite-rank part (or the mean of the entries) makes.

    Parameters
    ----------
    side : "right" or "left"
        From where outliers are counted.
    rank : int
        1 for the outermost, 2 for the next, …
    """

    def __new__(cls, side: Any = "right", rank: Any = 1) -> Outlier:
        name = _side(side, "Outlier")
        if name not in ("right", "left"):
            raise QuenchedError(f"Outlier takes the side 'right' or 'left', got {name!r}")
        count = sympify(rank)
        if not (count.is_Integer and count > 0):
            raise QuenchedError(f"rank of Outlier should be 1, 2, …, got {rank!r}")
        return Expr.__new__(cls, Str(name), count)

    @property
    def side(self) -> str:
        """From where outliers are counted."""
        return str(self.args[0].name)

    @property
    def rank(self) -> int:
        """Its place from there, 1 for the outermost."""
        return int(self.args[1])

    def shown(self, write: Any) -> str:
        return repr(self.side) + ("" if self.rank == 1 else f", rank={self.rank}")


class Moment(OfEigenvalues):
    """Mean of the k-th power of the eigenvalues, (1/n) tr M^k.

    Parameters
    ----------
    order : int
        k ≥ 1.
    """

    def __new__(cls, order: Any) -> Moment:
        k = sympify(order)
        if not (k.is_Integer and k > 0):
            raise QuenchedError(f"Moment takes a whole number k ≥ 1, as in Moment(3), got {order!r}")
        return Expr.__new__(cls, k)

    @property
    def order(self) -> int:
        """The power k."""
        return int(self.args[0])


NAMES = ("Density", "Count", "Edge", "Radius", "Outlier", "Moment")


# -- arguments -----------------------------------------------------------------------------------------------------
def _number(value: Any, what: str) -> Expr:
    """A number, possibly complex, possibly with parameters in it."""
    found = sympify(value)
    if not isinstance(found, Expr) or any(hasattr(s, "population") for s in found.free_symbols):
        raise QuenchedError(f"{what} should be a number, got {value!r}")
    return found


def _positive(value: Any, what: str) -> Expr:
    found = _number(value, what)
    if found.is_positive is False or found.has(I):
        raise QuenchedError(f"{what} should be positive, got {value}")
    return found


def _interval(given: Any, what: str) -> tuple[Expr, Expr]:
    if not isinstance(given, (tuple, list, Tuple)) or len(given) != 2:
        raise QuenchedError(f"{what} takes (low, high), got {given!r}")
    low, high = (_number(end, what) for end in given)
    if (high - low).is_positive is False:
        raise QuenchedError(f"{what} takes (low, high) with low < high, got ({low}, {high})")
    return low, high


def _window(given: Any) -> Tuple:
    return Tuple(*_interval(given, "window of Count"))


def _box(given: Any) -> Tuple:
    if not isinstance(given, (tuple, list, Tuple)) or len(given) != 2:
        raise QuenchedError(f"box of Count takes ((low, high), (low, high)), got {given!r}")
    return Tuple(*_interval(given[0], "real part of a box"), *_interval(given[1], "imaginary part of a box"))


def _disc(given: Any) -> Tuple:
    radius, centre = given if isinstance(given, (tuple, list, Tuple)) and len(given) == 2 else (given, 0)
    return Tuple(_positive(radius, "radius of a disc"), _number(centre, "centre of a disc"))


_REGIONS = {"window": _window, "box": _box, "disc": _disc}


def _side(given: Any, what: str) -> str:
    name = given.name if isinstance(given, Str) else given
    if name not in SIDES:
        raise QuenchedError(f"{what} takes a side, {nearest(str(name), SIDES)}; got {given!r}")
    return str(name)


# -- values --------------------------------------------------------------------------------------------------------
def with_numbers(functional: OfEigenvalues, values: dict[Any, float]) -> OfEigenvalues:
    """The functional with its parameters replaced by numbers.

    Raises
    ------
    QuenchedError
        For a window without length, a radius or width that is not positive.
    """
    table = {s: sympify(v) for s, v in values.items()}
    if not functional.free_symbols & set(table):
        return functional
    args: list[Basic] = [a.xreplace(table) for a in functional.args]
    if isinstance(functional, Count):
        numbers = tuple(args[1])
        region = (numbers[:2], numbers[2:]) if functional.kind == "box" else numbers
        return Count(**{functional.kind: region})
    return type(functional)(*args)
