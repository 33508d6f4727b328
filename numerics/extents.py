"""How far a spectrum reaches: edges in a direction, radii, moments, windowed densities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from quenched.theory.errors import ConvergenceError, NotCovered

from .outermost import outermost
from .quadrature import legendre
from .spectra import SpectralSolver
from .types import Array, Number

#: Lines on which a support in the plane is looked at first.
LINES = 81
#: Fraction of eigenvalues beyond an edge from which they count as an atom.
ATOM = 1e-3
#: Nodes of averages over windows.
NODES = 24


@dataclass(frozen=True)
class Extents:
    """Extreme points of the support of one spectrum.

    Parameters
    ----------
    solver : SpectralSolver
    """

    solver: SpectralSolver

    # -- edges -----------------------------------------------------------------------------------------------------
    def edge(self, unit: complex, above: float = -np.inf, below: float = np.inf) -> Number:
        """Largest Re(z·conj(unit)) in the support, of points whose real part (imaginary for ±i) is within bounds.

        Raises
        ------
        NotCovered
            No support there, or an edge that is cut by a bound.
        """
        if self.solver.problem.hermitian:
            return self._hermitian(unit, above, below)
        if not unit.imag and not np.isfinite([above, below]).any():
            self.solver.demand_ends()
        sign = 1 if unit in (1, 1j) else -1
        low, high = (above, below) if sign == 1 else (-below, -above)
        if not np.isfinite([above, below]).any() and self.solver.problem.expandable:
            outer = outermost(self.solver, unit)
            if outer is not None:
                return Number(sign * outer[0].value, outer[0].error)
        reach = self.solver._reach()
        start = self._direct(unit, reach) if not np.isfinite([above, below]).any() else None
        found = start or self._planar(unit, max(low, -reach), min(high, reach), reach)
        return Number(sign * found.value, found.error)

    def tip(self) -> complex:
        """The point of the boundary with the largest real part, in the upper half plane.

        Raises
        ------
        NotCovered
            The outer boundary is not reached along the analytic resolvent.
        """
        self.solver.demand_ends()
        if self.solver.problem.hermitian:
            return complex(self.edge(1.0).value)
        found = outermost(self.solver, 1.0) if self.solver.problem.expandable else None
        if found is None:
            raise NotCovered("the outer boundary of this spectrum is not reached from far out: ask for Edge()")
        return complex(found[0].value, abs(found[1]))

    def _hermitian(self, unit: complex, above: float, below: float) -> Number:
        if unit.imag:
            raise NotCovered("the eigenvalues of this matrix are real: its edges are 'left' and 'right'")
        ends = self.solver.edges()
        pick = ends[1::2] if unit.real > 0 else ends[::2]
        bound = below if unit.real > 0 else above
        if np.isfinite(bound) and self.solver.inside(np.array([bound]))[0]:
            raise NotCovered(f"the bound {bound:g} of an edge lies inside the support: put it into a gap")
        inside = [e for e in pick if above < e.value < below]
        if not inside:
            raise NotCovered(f"no edge of the support between {above:g} and {below:g}")
        return max(inside, key=lambda e: e.value * unit.real)

    def _direct(self, unit: complex, reach: float) -> Number | None:
        """The edge on the axis itself, if the support reaches nowhere farther in this direction."""
        along = self.solver._crossings(-reach * unit, reach * unit)
        if not along:
            return None
        tip = along[-1].value - reach
        across = np.linspace(-reach, reach, 4 * LINES)
        beyond = self._inside(unit, np.full(len(across), tip + 1e-4 * reach), across)
        return None if beyond.any() else Number(tip, along[-1].error)

    def _inside(self, unit: complex, u: Array, v: Array) -> Array:
        return np.asarray(self.solver.inside((u + 1j * v) * unit))

    def _planar(self, unit: complex, low: float, high: float, reach: float) -> Number:
        """Search on a grid, then along the boundary."""
        u, v = np.linspace(low, high, LINES), np.linspace(-reach, reach, LINES)
        flags = self._inside(unit, *(a.ravel() for a in np.meshgrid(u, v, indexing="ij"))).reshape(LINES, LINES)
        hit = np.flatnonzero(flags.any(axis=1))
        if not len(hit):
            raise NotCovered("no support between the bounds of an edge")
        if hit[-1] == LINES - 1:
            raise NotCovered(f"the bound {high:g} of an edge lies inside the support: put it into a gap")
        top, step = int(hit[-1]), float(v[1] - v[0])
        best = v[np.flatnonzero(flags[top])]

        def minus_tip(at: float) -> float:
            ends = self.solver._crossings(complex(u[top - 1], at) * unit, complex(u[top + 1], at) * unit)
            return -(u[top - 1] + ends[-1].value) if ends else -u[top - 1] + abs(at - best.mean())

        around = (float(best.min() - 2 * step), float(best.max() + 2 * step))
        found = minimize_scalar(minus_tip, bounds=around, method="bounded", options={"xatol": 1e-4 * step})
        return Number(-float(found.fun), 1e-7 * reach)

    def atoms_beyond(self, unit: complex, edge: float, bound: float) -> tuple[float, float]:
        """Fraction of eigenvalues, and where, between an edge on the real axis and a bound: atoms without a density.

        By the resolvent on a circle that leaves out a little next to the edge.
        """
        reach = self.solver._reach()
        start = edge + 0.005 * reach * unit.real
        end = bound if np.isfinite(bound) else start + 4 * reach * unit.real
        if (end - start) * unit.real <= 0:
            return 0.0, edge
        centre, radius = (start + end) / 2, abs(end - start) / 2
        mass = self.solver.disc(radius, centre, ATOM / 10).value
        if mass < ATOM:
            return 0.0, edge
        return mass, self.solver.disc(radius, centre, ATOM / 10, moment=1).value / mass

    # -- radii -----------------------------------------------------------------------------------------------------
    def radius(self, centre: complex = 0.0, inner: bool = False, rays: int = 8, round_only: bool = False) -> Number:
        """Largest distance of the support from a point, or the smallest one (0 if the point is inside).

        Raises
        ------
        NotCovered
            Nothing to find: an empty support; with `round_only`, one that is no disc or annulus about the point.
        """
        if self.solver.problem.hermitian:
            ends = [Number(abs(e.value - centre), e.error) for e in self.solver.edges()]
            if inner and self.solver.inside(np.array([centre.real]))[0]:
                return Number(0.0, 0.0)
            return (min if inner else max)(ends, key=lambda e: e.value)
        sign = 1.0 if inner else -1.0
        reach = 2 * self.solver._reach() + abs(centre)
        if inner and self.solver.inside(np.array([centre + 1e-4 * reach]))[0]:
            return Number(0.0, 0.0)

        def along(angle: float) -> Number | None:
            unit = np.exp(1j * angle)
            begin = 1e-3 * reach
            ends = self.solver._crossings(complex(centre + begin * unit), complex(centre + reach * unit))
            return Number(begin + ends[0 if inner else -1].value, ends[0].error) if ends else None

        angles = 2 * np.pi * np.arange(rays) / rays
        found = {float(a): n for a in angles if (n := along(float(a))) is not None}
        if not found:
            raise NotCovered("the support does not surround the centre of a radius")
        best = min(found, key=lambda a: sign * found[a].value)
        if round_only and (np.ptp([n.value for n in found.values()]) > 1e-6 * reach or len(found) < rays):
            raise NotCovered("the support is no disc or annulus about the centre of a Radius: ask for an Edge")
        if np.ptp([n.value for n in found.values()]) < 1e-8 * reach and len(found) == rays:
            return found[best]  # a disc or annulus
        return self._refined(along, best, 2 * np.pi / rays, sign, found[best])

    @staticmethod
    def _refined(
        along: Callable[[float], Number | None], best: float, step: float, sign: float, known: Number
    ) -> Number:
        def objective(angle: float) -> float:
            found = along(angle)
            return sign * known.value + 1.0 if found is None else sign * found.value

        near = [objective(best + d) for d in (-1e-3 * step, 1e-3 * step)]
        if min(near) >= sign * known.value:
            return known
        found = minimize_scalar(objective, bounds=(best - step, best + step), method="bounded")
        return Number(sign * float(found.fun), 1e-7 * abs(found.fun))

    # -- moments and windows ---------------------------------------------------------------------------------------
    def moment(self, order: int) -> Number:
        """(1/2πi) ∮ z^k g dz outside the support, on circles with two numbers of points."""
        radius = 2 * self.solver._reach()

        def rule(points: int) -> complex:
            z = radius * np.exp(2j * np.pi * (np.arange(points) + 0.5) / points)
            return complex(np.mean(z ** (order + 1) * self.solver.resolvent(z)[0]))

        coarse, fine = rule(32 + 4 * order), rule(64 + 8 * order)
        error = abs(fine - coarse) + 1e-12 * radius**order
        if not np.isfinite(error):
            raise ConvergenceError(f"the moment of order {order} is not finite")
        return Number(fine.real, error)

    def density(self, at: complex, width: float) -> Number:
        """Density averaged over a window (real eigenvalues) or a disc of this half width.

        By quadrature of ρ; where it has an edge in the window, by the fraction of eigenvalues there.
        """
        coarse, fine = (self._window(at, width, n) for n in (NODES, 2 * NODES))
        if abs(fine - coarse) < 1e-7 * (1 + abs(fine)):
            return Number(fine, abs(fine - coarse) + 1e-12)
        if self.solver.problem.hermitian:
            inside, size = self.solver.window(at.real - width, at.real + width), 2 * width
        else:
            inside, size = self.solver.disc(width, at), np.pi * width**2
        return Number(inside.value / size, inside.error / size)

    def _window(self, at: complex, width: float, nodes: int) -> float:
        x, w = legendre(nodes)
        if self.solver.problem.hermitian:
            rho, _ = self.solver.density(at.real + width * x)
            return float(rho @ w / 2)
        r, angles = (1 + x) / 2, 2 * np.pi * (np.arange(2 * nodes) + 0.5) / (2 * nodes)
        rho, _ = self.solver.density(at + width * r[:, None] * np.exp(1j * angles))
        return float(rho.mean(axis=1) @ (w * r))
