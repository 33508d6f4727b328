"""Solutions of the matrix Dyson equation: followed from afar, and from solved neighbours.

The positive solution is unique, which tells it from others that Newton's iteration may find. Doubled problems are
followed from large η, where the damped fixed point contracts, to η = 0; the resolvent of a Hermitian matrix from
infinity down to the real axis. Both paths are long: along a line or over a plane only every 64th point takes one, the
others start from solved neighbours and prove that they are on the same solution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sympy import Symbol

from quenched.theory.problem_dyson import DysonProblem

from .dyson_equation import DysonEquation, largest_modulus, solved
from .dyson_nodes import Complex
from .types import Array

__all__ = ["Complex", "Dyson"]

#: Of a batch every so many-th point along a curve that fills the plane is solved first, then every eighth of those
#: between, then the rest, in this many passes at most.
SPARSE, PASSES = 64, 5
#: Solved points that are remembered as starts.
MEMORY = 20000
#: A diagonal scalar above this means that a point is inside the support.
INSIDE = 1e-7
#: A relative Newton step below this means that a point is solved.
SOLVED = 1e-7
#: The gain of what vanishes outside is 1 on the boundary, up to the square of `INSIDE`.
MARGIN = 1e-9
#: Height (relative) at which the real axis counts as approached from above.
FLOOR = 1e-12


class Dyson(DysonEquation):
    """A Dyson equation with values of its parameters, and the points at which it was solved.

    Parameters
    ----------
    problem : DysonProblem
    values : dict of Symbol to float
    coarse : bool
        Average over labels with other, fewer nodes.
    """

    def __init__(self, problem: DysonProblem, values: dict[Symbol, float], coarse: bool = False) -> None:
        super().__init__(problem, values, coarse)
        self._solved: tuple[Complex, Complex] = np.zeros(0, complex), np.zeros((0, self.count), complex)

    # -- from solved neighbours ------------------------------------------------------------------------------------
    def follow(self, z: Complex) -> tuple[Complex, Array, NDArray[np.bool_]]:
        """The positive solution of a doubled problem at η = 0.

        Returns
        -------
        t : (points, unknowns); scalars that vanish outside the support are exactly 0 there
        error : (points,), relative size of the last Newton step
        inside : (points,)
        """
        t, error = self._in_order(np.asarray(z, complex), self._accept_doubled, lambda far: self.follow_eta(far)[:2])
        return t, error, np.abs(t[:, self.vanishing]).max(axis=1, initial=0.0) > INSIDE

    def follow_above(self, z: Complex) -> tuple[Complex, Array]:
        """The solution for a Hermitian matrix in the half plane of each point; real points are approached from above.

        Returns
        -------
        t : (points, unknowns)
        error : (points,)
        """
        return self._in_order(self.lifted(np.asarray(z, complex)), self._accept_above, self.follow_from_infinity)

    def lifted(self, z: Complex) -> Complex:
        """Points with the real ones moved up by a little."""
        return np.asarray(np.where(z.imag == 0, z + 1j * FLOOR * self.scale, z))

    def _in_order(
        self,
        z: Complex,
        accept: Callable[[Complex, Complex], NDArray[np.bool_]],
        from_afar: Callable[[Complex], tuple[Complex, Array]],
    ) -> tuple[Complex, Array]:
        """Solve a few points of a batch, then those between them, last those for which that was not enough."""
        t, error = np.zeros((len(z), self.count), complex), np.full(len(z), np.inf)
        order = np.argsort(_along_a_curve(z), kind="stable")

        def attempt(chosen: NDArray[np.int64], solve: Callable[[Complex], tuple[Complex, Array]]) -> NDArray[np.int64]:
            """Solve some points; returns those that are left."""
            if len(chosen):
                t[chosen], error[chosen] = solve(z[chosen])
                self._remember(z[chosen], t[chosen], error[chosen] < SOLVED)
            return chosen[~(error[chosen] < SOLVED)]

        def warm(part: Complex) -> tuple[Complex, Array]:
            return self._warm(part, accept)

        attempt(attempt(order[::SPARSE], warm), from_afar)
        some = order[:: SPARSE // 8]
        attempt(some[~(error[some] < SOLVED)], warm)
        left = order[~(error[order] < SOLVED)]
        for _ in range(PASSES):
            before, left = len(left), attempt(left, warm)
            if len(left) == before:
                break
        attempt(left, from_afar)
        return t, error

    def _remember(self, z: Complex, t: Complex, good: NDArray[np.bool_]) -> None:
        old = self._solved
        self._solved = tuple(np.concatenate([a[-MEMORY:], b[good]]) for a, b in zip(old, (z, t), strict=True))  # type: ignore[assignment]

    def _warm(self, z: Complex, accept: Callable[[Complex, Complex], NDArray[np.bool_]]) -> tuple[Complex, Array]:
        """Newton's iteration from the nearest solved points; error ∞ where that is not known to be the solution."""
        from scipy.spatial import cKDTree

        if not len(self._solved[0]):
            return np.zeros((len(z), self.count), complex), np.full(len(z), np.inf)
        tree = cKDTree(np.column_stack([self._solved[0].real, self._solved[0].imag]))
        _, nearest = tree.query(np.column_stack([z.real, z.imag]))
        start = self._solved[1][nearest]
        t, error = self.newton(start, z, 0.0, steps=15)
        far = np.abs(t - start).max(axis=1, initial=0.0) > 0.5 * (0.1 + np.abs(start).max(axis=1, initial=0.0))
        error[far | ~np.isfinite(error) | ~accept(t, z)] = np.inf
        return t, error

    def _accept_doubled(self, t: Complex, z: Complex) -> NDArray[np.bool_]:
        """Whether 𝒢 is positive, or vanishes stably off the diagonal; clears what vanishes outside the support."""
        size = np.abs(t[:, self.vanishing]).max(axis=1, initial=0.0)
        inside = size > INSIDE
        t[np.ix_(~inside, self.vanishing)] = 0.0
        # A block that no eigenvector reaches has a scalar that vanishes inside, too: 0 up to rounding.
        good = ~inside | np.all(self.signed(t) > -1e-14 * size[:, None], axis=1)
        outside = np.flatnonzero(~inside)
        good[outside] = self.gain(t[outside], z[outside]) < 1 + MARGIN
        return np.asarray(good)

    def _accept_above(self, t: Complex, z: Complex) -> NDArray[np.bool_]:
        """Whether g has the sign of its half plane, or is real, and the map of the scalars does not expand there.

        The derivative of a holomorphic map of a half plane into itself contracts at its fixed point (Earle and
        Hamilton); on the real axis inside the support its spectral radius is 1.
        """
        found = self.averages(t, z, 0.0, slopes=True)
        ratio = -np.where(z.imag >= 0, 1.0, -1.0) * found.resolvent.imag / np.abs(found.resolvent)
        expansion = largest_modulus(found.jacobian[:, :, : self.count]) if self.count else np.zeros(len(z))
        return np.asarray(np.where(ratio > INSIDE, expansion < 1 + 1e-6, (ratio > -INSIDE) & (expansion < 1)))

    # -- from afar -------------------------------------------------------------------------------------------------
    def follow_eta(
        self, z: Complex, ratio: float = 0.2, floor: float = 1e-4
    ) -> tuple[Complex, Array, NDArray[np.bool_]]:
        """The same as `follow`, each point from large η, where the damped fixed point contracts.

        Close to atoms, where the averages follow η down to the distance from them, in finer steps and further down.
        """
        z = np.asarray(z, complex)
        eta = self.scale
        t = self.iterate(self.start(len(z)), z, eta, 12)
        while eta > floor * self.scale:
            new, error = self.newton(t, z, eta, tol=1e-4)
            wrong = ~(error < 1e-3) | ~np.all(self.signed(new) > 0, axis=1)
            if wrong.any():
                new[wrong] = self.iterate(t[wrong], z[wrong], eta, 200)
            t = new
            eta *= ratio
        t, error = self.newton(t, z, 0.0, steps=40)
        wrong = ~(error < SOLVED) | ~self._accept_doubled(t, z)
        inside = np.abs(t[:, self.vanishing]).max(axis=1, initial=0.0) > INSIDE
        if wrong.any() and ratio < 0.8:
            t[wrong], error[wrong], inside[wrong] = self.follow_eta(z[wrong], ratio**0.4, floor / 100)
        else:
            error[wrong] = np.inf
        return t, error, inside

    def follow_from_infinity(self, z: Complex, ratio: float = 0.4, floor: float = FLOOR) -> tuple[Complex, Array]:
        """The analytic solution at z, followed from infinity along z + i·y (Im z ≥ 0) or z − i·y.

        Valid for Hermitian matrices, and for others where this path does not meet the support.
        """
        z = np.asarray(z, complex)
        side = np.where(z.imag >= 0, 1j, -1j)
        y = 20 * self.scale
        t = np.zeros((len(z), self.count), complex)
        for _ in range(25):
            t = self.averages(t, z + side * y, 0.0).image
        bad = np.zeros(len(z), bool)
        error = np.zeros(len(z))
        while y > floor * self.scale:
            new, error = self.newton(t, z + side * y, 0.0, tol=1e-4)
            moved = np.abs(new - t).max(axis=1, initial=0.0)
            bad |= ~(error < 1e-2) | (moved > 0.5 * (0.1 + np.abs(t).max(axis=1, initial=0.0)))
            t, y = new, y * ratio
        # On the real axis the last small height stays: it says which side z is on.
        last = np.where(z.imag == 0, floor * self.scale, 0.0)
        t, error = self.newton(t, z + side * last, 0.0, steps=30)
        bad |= ~(error < 1e-6)
        if bad.any() and ratio < 0.97:
            t[bad], error[bad] = self.follow_from_infinity(z[bad], ratio**0.35, floor)
        return t, error

    def fold(self, t: Complex, z: Complex) -> tuple[Complex, complex, float] | None:
        """Where a branch turns back near a point of it: dz/dτ = 0, with τ the scalar that moves most.

        Along τ the branch is smooth, also where dt/dz diverges.

        Returns
        -------
        t : (1, unknowns), z, error of z; or None where the iteration does not settle
        """
        found = self.averages(t, z, 0.0, slopes=True)
        drift = solved(np.eye(self.count) - found.jacobian[:, :, : self.count], found.jacobian[:, :, self.count])
        moving = int(np.abs(drift[0]).argmax())
        state = np.concatenate([t[0], z])
        rates: list[tuple[complex, complex]] = []
        for _ in range(40):
            state, rate = self._along(state, moving)
            if not np.all(np.isfinite(state)) or abs(rate) > 1e8:
                return None
            rates.append((state[moving], rate))
            if len(rates) == 1:
                step = 1e-3 * (1e-3 + abs(state[moving])) * (-1 if rate.real * z[0].real > 0 else 1)
            else:
                (x0, r0), (x1, r1) = rates[-2:]
                step = -r1 * (x1 - x0) / (r1 - r0) if r1 != r0 else 0.0
                if abs(step * rate) < 1e-13 * (1 + abs(state[-1])):
                    return state[None, :-1], complex(state[-1]), float(abs(step * rate) + 1e-14 * abs(state[-1]))
            state = state.copy()
            state[moving] += step
        return None

    def _along(self, state: Complex, moving: int) -> tuple[Complex, complex]:
        """Newton's iteration for the other scalars and z at a fixed value of one scalar; dz/d(that scalar)."""
        table, rate = np.zeros((self.count + 1,) * 2, complex), complex(np.nan)
        for _ in range(12):
            t, z = state[None, :-1], state[-1:]
            found = self.averages(t, z, 0.0, slopes=True)
            table[:-1] = -found.jacobian[0, :, : self.count + 1]
            table[:-1, :-1] += np.eye(self.count)
            table[-1, moving] = 1.0
            rest = np.append(found.image[0] - t[0], 0.0)
            if not (np.all(np.isfinite(table)) and np.all(np.isfinite(rest))):
                return np.full_like(state, np.nan), rate
            try:
                step, along = np.linalg.solve(table, np.stack([rest, np.eye(self.count + 1)[-1]], axis=1)).T
            except np.linalg.LinAlgError:
                return np.full_like(state, np.nan), rate
            rate = complex(along[-1])
            state = state + step
            if np.abs(step).max() < 1e-14 * (1 + np.abs(state).max()):
                break
        return state, rate


def _along_a_curve(z: Complex) -> NDArray[np.int64]:
    """Place of every point on a curve that fills the plane (bits of both coordinates interleaved)."""
    place = np.zeros(len(z), np.int64)
    for shift, part in enumerate((z.real, z.imag)):
        low, high = part.min(initial=np.inf), part.max(initial=-np.inf)
        cells = ((part - low) / (high - low or 1.0) * 1023).astype(np.int64)
        for bit in range(10):
            place |= ((cells >> bit) & 1) << (2 * bit + shift)
    return place
