"""The outermost boundary of a spectrum in one direction, by the analytic branch alone.

From far away the resolvent is followed inwards along parallel lines; the first point at which its linear stability is
lost is the boundary. No solution inside the support is needed, so atoms and voids in there do not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from .dyson import Complex
from .types import Array, Number

if TYPE_CHECKING:
    from .spectra import SpectralSolver

#: Lines on each side of the middle one, and steps along them.
LINES = 12
STEPS = 100


def outermost(solver: SpectralSolver, unit: complex = 1.0) -> tuple[Number, float] | None:
    """Largest Re(z·conj(unit)) on the outer boundary, and the other coordinate of that point in the frame of `unit`.

    None where no analytic branch from far out reaches it.
    """
    centre = solver.centre()
    reach = _reach(solver, centre)
    if reach is None:
        return None
    origin = centre / unit  # in the frame in which `unit` points to the right
    lines = origin.imag + reach * np.arange(-LINES, LINES + 1) / LINES
    far = origin.real + reach
    tips, margin = _first_loss(solver, far, lines, unit)
    if not np.isfinite(tips).any():
        return None
    ties = np.flatnonzero(tips >= np.nanmax(tips) - 1.5 * margin)  # tips are known to a step
    best = int(ties[np.argmin(np.abs(ties - LINES))])
    start, width = float(tips[best]) + 2 * margin, reach / LINES

    def tip(height: float) -> float:
        return _Line(solver, unit, start, height).tip(origin.real - reach)

    if np.isnan(tip(lines[best])):
        return None
    if best == LINES and tip(lines[best]) > max(tip(lines[best] + d * width) for d in (-1, -0.1, -0.01, 0.01, 0.1, 1)):
        return Number(tip(lines[best]), 1e-11), float(lines[best])
    bounds = (lines[ties[0]] - width, lines[ties[-1]] + width)
    found = minimize_scalar(lambda y: -tip(y), bounds=bounds, method="bounded", options={"xatol": 1e-6 * width})
    return (Number(-float(found.fun), 1e-10 * reach), float(found.x)) if np.isfinite(found.fun) else None


def _reach(solver: SpectralSolver, centre: complex) -> float | None:
    """A distance from the centre at which the gain is still small in four directions, of the size of the support."""
    units = np.array([1, 1j, -1, -1j], np.complex128)
    radius = 20 * solver.doubled.scale
    for _ in range(10):
        t, fine = _far_out(solver, np.asarray(centre + radius * units, np.complex128))
        if fine.all():
            break
        radius *= 2
    else:
        return None
    while radius > 1e-6 * solver.doubled.scale:
        z = np.asarray(centre + radius / 1.3 * units, np.complex128)
        t, error = solver.analytic.newton(t, z, 0.0)
        if not (np.all(error < 1e-8) and np.all(_gain(solver, t, z) < 0.25)):
            return float(radius)
        radius /= 1.3
    return None


def _far_out(solver: SpectralSolver, z: Complex) -> tuple[Complex, np.ndarray]:
    """The analytic scalars at points far out, by iteration, and whether they are stable there."""
    t = np.zeros((len(z), solver.analytic.count), complex)
    for _ in range(60):
        t = solver.analytic.averages(t, z, 0.0).image
    t, error = solver.analytic.newton(t, z, 0.0)
    return t, (error < 1e-9) & (_gain(solver, t, z) < 1)


def _gain(solver: SpectralSolver, t: Complex, z: Complex) -> Array:
    doubled = np.zeros((len(z), solver.doubled.count), complex)
    for k, (low, up) in enumerate(solver._lift):
        doubled[:, low], doubled[:, up] = t[:, k], t[:, k].conj()
    return solver.doubled.gain(doubled, z)


def _first_loss(solver: SpectralSolver, far: float, lines: Array, unit: complex) -> tuple[Array, float]:
    """Per line the last point before stability is lost (NaN if it never is), and the step."""
    step = (lines[-1] - lines[0]) / STEPS
    t, fine = _far_out(solver, np.asarray((far + 1j * lines) * unit, np.complex128))
    tips, active = np.full(len(lines), np.nan), np.flatnonzero(fine)
    t = t[active]
    for x in far - step * np.arange(1, STEPS + 1):
        z = (x + 1j * lines[active]) * unit
        t, error = solver.analytic.newton(t, z, 0.0)
        lost = ~(error < 1e-6)
        lost[~lost] = ~(_gain(solver, t[~lost], z[~lost]) < 1)
        tips[active[lost]] = x + step
        t, active = t[~lost], active[~lost]
        # Lines that are still outside far behind the others cannot hold the outermost point.
        if not len(active) or (np.isfinite(tips).any() and x < np.nanmax(tips) - 4 * step):
            break
    return tips, step


class _Line:
    """One line, on which the branch is followed from a start outside."""

    def __init__(self, solver: SpectralSolver, unit: complex, start: float, height: float) -> None:
        self.solver, self.unit, self.height, self.start = solver, unit, height, start
        full, _, _ = solver.doubled.follow(np.array([(start + 1j * height) * unit]))
        self.t = np.array([[full[0, low] for low, _ in solver._lift]]).reshape(1, -1)

    def excess(self, x: float) -> float:
        """Gain − 1 at a point of the line, followed from the last point outside; ∞ where the branch has ended."""
        z = np.array([(x + 1j * self.height) * self.unit])
        t, error = self.solver.analytic.newton(self.t, z, 0.0, steps=40)
        if not error[0] < 1e-6:
            return np.inf
        excess = float(_gain(self.solver, t, z)[0]) - 1
        if excess < 0:
            self.t = t
        return excess

    def tip(self, end: float) -> float:
        """Where the gain first reaches 1; `end` if not before, NaN if the branch ends otherwise (at an atom)."""
        outside, step = self.start, abs(self.start - end) / STEPS
        inside = outside
        while not self.excess(inside) > 0:
            outside, inside = inside, inside - step
            if inside < end:
                return end
        for _ in range(60):
            if np.isfinite(self.excess(inside)):
                if not (self.excess(inside) > 0 > self.excess(outside)):
                    return np.nan
                root = float(brentq(self.excess, inside, outside, xtol=1e-13))
                return root if abs(self.excess(root)) < 1e-6 else np.nan
            middle = (outside + inside) / 2  # the branch has ended: come closer to the boundary from outside
            outside, inside = (middle, inside) if self.excess(middle) < 0 else (outside, middle)
        return np.nan
