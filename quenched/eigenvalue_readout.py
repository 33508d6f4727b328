"""What a solved spectrum says about an observable: `Density`, `Count`, `Edge`, `Radius`, `Outlier`, `Moment`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sympy import Dummy, Expr

from quenched.readout import Quantity
from quenched.theory.eigenvalue_observables import (
    SIDES,
    Count,
    Density,
    Edge,
    Moment,
    OfEigenvalues,
    Outlier,
    Radius,
    with_numbers,
)
from quenched.theory.errors import NotCovered

if TYPE_CHECKING:
    from quenched.numerics.extents import Extents
    from quenched.numerics.spectra import SpectralSolver
    from quenched.numerics.types import Number


@dataclass
class Reader:
    """Observables of one solved spectrum.

    Parameters
    ----------
    solver : SpectralSolver
    values : dict of Symbol to float
    """

    solver: SpectralSolver
    values: dict[Any, float]

    @cached_property
    def extents(self) -> Extents:
        """Edges, radii and moments of the same spectrum."""
        from quenched.numerics.extents import Extents

        return Extents(self.solver)

    def quantity(self, expr: Expr) -> Quantity:
        """An expression in functionals and parameters, errors added up to first order."""
        parts = sorted(expr.atoms(OfEigenvalues), key=str)
        known = [self.number(with_numbers(part, self.values)) for part in parts]
        names = [Dummy(f"o{k}", real=True) for k in range(len(parts))]
        formula = expr.xreplace(dict(zip(parts, names, strict=True)))
        numbers: dict[Any, Any] = {n: k.value for n, k in zip(names, known, strict=True)} | self.values
        error = sum(abs(float(formula.diff(n).subs(numbers))) * k.error for n, k in zip(names, known, strict=True))
        return Quantity(float(formula.subs(numbers)), float(error))

    def number(self, functional: OfEigenvalues) -> Number:
        """One functional with numbers as its arguments.

        Raises
        ------
        NotCovered
            The spectrum has nothing of the kind.
        """
        return _READ[type(functional)](self, functional)

    # -- kinds -----------------------------------------------------------------------------------------------------
    def _density(self, it: Density) -> Number:
        return self.extents.density(complex(it.args[0]), float(it.args[1]))

    def _count(self, it: Count) -> Number:
        if it.kind == "box":
            a, b, c, d = (float(x) for x in it.region)
            return self.solver.box((a, b), (c, d))
        if it.kind == "window":
            return self.solver.window(*(float(x) for x in it.region))
        radius, centre = float(it.region[0]), complex(it.region[1])
        if self.solver.problem.hermitian:
            return self.solver.window(centre.real - radius, centre.real + radius)
        return self.solver.disc(radius, centre)

    def _edge(self, it: Edge) -> Number:
        unit = complex(SIDES[it.side])
        above = -float("inf") if it.above is None else float(it.above)
        below = float("inf") if it.below is None else float(it.below)
        edge = self.extents.edge(unit, above, below)
        sign = 1 if it.side in ("right", "top") else -1
        if it.side in ("right", "left"):
            self._demand_no_atoms(it, edge.value, below if sign > 0 else above)
            beyond = [o for o in self._outliers() if above < o.value < below and sign * (o.value - edge.value) > 1e-9]
            if beyond:
                bound = "below" if sign > 0 else "above"
                raise NotCovered(
                    f"{it}: an outlier at {beyond[0].value:.6g} lies beyond the edge {edge.value:.6g}; give {bound}="
                )
        return edge

    def _demand_no_atoms(self, it: Edge, edge: float, bound: float) -> None:
        from quenched.numerics.extents import ATOM

        if not self.solver.problem.hermitian and abs(bound) != float("inf"):
            return  # the support may go on above and below a gap of the real axis
        side = "below" if it.side == "right" else "above"
        mass, place = self.extents.atoms_beyond(complex(SIDES[it.side]), edge, bound)
        if mass > ATOM:
            raise NotCovered(
                f"{it}: a fraction {mass:.2g} of the eigenvalues lies at about {place:.3g}, beyond the edge {edge:.6g}"
                f" of the density; give {side}={(edge + place) / 2:.3g}"
            )

    def _radius(self, it: Radius) -> Number:
        centre = complex(it.centre)
        found = self.extents.radius(centre, it.inner, round_only=True)
        beyond = [o for o in self._outliers() if (abs(o.value - centre) > found.value + 1e-9) is not it.inner]
        if beyond:
            raise NotCovered(f"{it}: an outlier at {beyond[0].value:.6g} lies beyond the radius {found.value:.6g}")
        return found

    def _outliers(self) -> list[Number]:
        """Known outliers; none where finite-rank parts grow with N (their eigenvalues do, too)."""
        try:
            return self.solver.outliers()
        except NotCovered:
            return []

    def _outlier(self, it: Outlier) -> Number:
        sign = 1 if it.side == "right" else -1
        ends = [sign * e.value for e in self.solver.edges()]
        all_of_them = sorted(self.solver.outliers(), key=lambda o: -sign * o.value)
        found = [o for o in all_of_them if not ends or sign * o.value > max(ends)]
        if len(found) < it.rank:
            raise NotCovered(f"{it}: the finite-rank parts make {len(found)} eigenvalues outside the support there")
        return found[it.rank - 1]

    def _moment(self, it: Moment) -> Number:
        return self.extents.moment(it.order)

    # -- what errors are relative to -------------------------------------------------------------------------------
    def scale(self, expr: Expr) -> tuple[float, str] | None:
        """For a single functional that may vanish: the size of what it is a mean of, or that of the spectrum."""
        if not isinstance(expr, OfEigenvalues):
            return None
        it = with_numbers(expr, self.values)
        if isinstance(it, (Edge, Radius, Outlier)):
            return self.half_width, "half the width of the spectrum"
        value = abs(self.number(it).value)
        if isinstance(it, Count):
            rms, what = value**0.5, "root mean square of the indicator of the region"
        elif isinstance(it, Density):
            size = 2 * float(it.args[1]) if self.solver.problem.hermitian else 3.14159 * float(it.args[1]) ** 2
            rms, what = (value / size) ** 0.5, "root mean square of the window over its size"
        else:
            rms, what = self.reach ** int(it.args[0]), "power of the spectral radius"
        return (rms, what) if value < rms / 10 else None

    @cached_property
    def half_width(self) -> float:
        """Half the distance between the outermost real edges (a radius where the real axis has no support)."""
        ends = [e.value for e in self.solver.edges()] if self.bounded else []
        return (max(ends) - min(ends)) / 2 if len(ends) > 1 else self.reach

    @cached_property
    def reach(self) -> float:
        """Largest modulus of the support; where that has no end, twice the root of the second moment."""
        if self.bounded:
            return self.extents.radius().value
        return 2 * abs(self.extents.moment(2).value) ** 0.5

    @property
    def bounded(self) -> bool:
        """Whether the support on the real axis has ends."""
        return all(nodes.unbounded is None for nodes in self.solver.analytic.nodes)


_READ: dict[type[OfEigenvalues], Callable[[Reader, Any], Number]] = {
    Density: Reader._density,
    Count: Reader._count,
    Edge: Reader._edge,
    Radius: Reader._radius,
    Outlier: Reader._outlier,
    Moment: Reader._moment,
}
