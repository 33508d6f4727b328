"""Readings of a solved Dyson equation: resolvent, density, counts in regions, support, outliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from sympy import I, Symbol

from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError
from quenched.theory.problem_dyson import SIZE, SpectralProblem

from .dyson import Complex, Dyson
from .quadrature import legendre
from .types import Array, Number

#: Im g above this means that a real point is inside the support of a Hermitian matrix.
INSIDE = 3e-5
#: Scalars above this put a point well inside a support in the plane, whatever their last digits.
DEEP = 0.1
#: Points solved at once.
BATCH = 4096

Path = Callable[[Array], tuple[Complex, Complex]]


@dataclass
class SpectralSolver:
    """The spectrum of one declared matrix at given values of its parameters.

    Parameters
    ----------
    problem : SpectralProblem
    values : dict of Symbol to float
    coarse : bool
        Average over labels with other, fewer nodes.
    """

    problem: SpectralProblem
    values: dict[Symbol, float]
    coarse: bool = False

    @cached_property
    def analytic(self) -> Dyson:
        """The equation of the resolvent where it is analytic."""
        return Dyson(self.problem.analytic, self.values, self.coarse)

    @cached_property
    def doubled(self) -> Dyson:
        """The doubled equation of a non-Hermitian matrix."""
        assert self.problem.doubled is not None
        return Dyson(self.problem.doubled, self.values, self.coarse)

    # -- points ----------------------------------------------------------------------------------------------------
    def resolvent(self, z: ArrayLike) -> tuple[Complex, Array]:
        """g(z) = lim (1/n) tr (z − M)⁻¹ and its error, shaped like z. Hermitian: real z means z + i0."""
        return self._batched(z, self._resolvent)

    def _resolvent(self, z: Complex) -> tuple[Complex, Array]:
        solver = self.analytic if self.problem.hermitian else self.doubled
        t, error = solver.follow_above(z) if self.problem.hermitian else solver.follow(z)[:2]
        solver.demand(error, "resolvent")
        g = solver.averages(t, solver.lifted(z) if self.problem.hermitian else z, 0.0).resolvent
        return g, np.maximum(error, 1e-15) * np.abs(g)

    def density(self, z: ArrayLike) -> tuple[Array, Array]:
        """Eigenvalue density and its error, shaped like z: per unit length (Hermitian, z real) or per unit area.

        The density in the plane is (1/π) ∂g/∂z̄, from the linearised equation, not from finite differences.
        """
        if self.problem.hermitian:
            if np.any(np.imag(z) != 0):
                raise QuenchedError("the eigenvalues of this matrix are real: density takes real numbers")
            g, error = self.resolvent(z)
            return np.maximum(-g.imag / np.pi, 0.0), error / np.pi
        rho, error = self._batched(z, self._planar_density)
        return rho.real, error

    def _planar_density(self, z: Complex) -> tuple[Complex, Array]:
        t, error, inside = self.doubled.follow(z)
        self.doubled.demand(error, "density")
        rho = np.zeros(len(z), complex)
        if inside.any():
            rho[inside] = self.doubled.resolvent_slope(t[inside], z[inside], 1) / np.pi
        return rho, np.maximum(error, 1e-13) * np.abs(rho) + np.abs(rho.imag)

    def inside(self, z: ArrayLike, level: float = INSIDE) -> NDArray[np.bool_]:
        """Whether points lie inside the support, shaped like z; real eigenvalues: Im g/(1 + |g|) past a level."""
        if self.problem.hermitian:
            g = self.resolvent(z)[0]
            return np.asarray(-g.imag > level * (1 + np.abs(g)))
        return np.asarray(self._batched(z, self._inside)[1] > 0.5)

    def _inside(self, z: Complex) -> tuple[Complex, Array]:
        _, error, inside = self.doubled.follow(z)
        lost = ~(error < 1e-6)
        if lost.any():  # the centre of a product, where the density diverges: look beside it
            beside = z[lost] + 1e-3 * (1 + np.abs(z[lost])) * np.exp(0.7j)
            t, error, inside[lost] = self.doubled.follow(beside)
            deep = np.abs(t[:, self.doubled.vanishing]).max(axis=1, initial=0.0) > DEEP
            self.doubled.demand(error[~deep], "support")
        return z, inside.astype(float)

    @staticmethod
    def _batched(z: ArrayLike, function: Callable[[Complex], tuple[Complex, Array]]) -> tuple[Complex, Array]:
        points = np.asarray(z, complex)
        flat = points.reshape(-1)
        parts = [function(flat[k : k + BATCH]) for k in range(0, len(flat), BATCH)]
        return tuple(np.concatenate(p).reshape(points.shape) for p in zip(*parts, strict=True))  # type: ignore[return-value]

    # -- counts ----------------------------------------------------------------------------------------------------
    def window(self, low: float, high: float, tol: float = 1e-8) -> Number:
        """Fraction of the (real) eigenvalues between two numbers: −(1/π) Im ∫ g over a half circle above."""
        centre, radius = (low + high) / 2, (high - low) / 2

        def half_circle(s: Array) -> tuple[Complex, Complex]:
            unit = -np.exp(-1j * np.pi * s)
            return centre + radius * unit, -1j * np.pi * radius * unit

        value, error = self._integral(half_circle, tol)
        return Number(-value.imag / np.pi, error / np.pi)

    def box(self, real: tuple[float, float], imaginary: tuple[float, float], tol: float = 1e-7) -> Number:
        """Fraction of eigenvalues in a rectangle: (1/2πi) ∮ g dz."""
        (a, b), (c, d) = real, imaginary
        corners = [a + 1j * c, b + 1j * c, b + 1j * d, a + 1j * d, a + 1j * c]
        return self._closed([self._segment(p, q) for p, q in pairwise(corners)], tol)

    def disc(self, radius: float, centre: complex = 0.0, tol: float = 1e-7, moment: int = 0) -> Number:
        """Fraction of eigenvalues within a distance of a point, or their mean power times it: (1/2πi) ∮ z^k g dz."""

        def circle(s: Array) -> tuple[Complex, Complex]:
            unit = np.exp(2j * np.pi * s)
            return centre + radius * unit, 2j * np.pi * radius * unit

        return self._closed([circle], tol, moment)

    @staticmethod
    def _segment(start: complex, end: complex) -> Path:
        def straight(s: Array) -> tuple[Complex, Complex]:
            return np.asarray(start + (end - start) * s, complex), np.full(s.shape, end - start, complex)

        return straight

    def _closed(self, paths: list[Path], tol: float, moment: int = 0) -> Number:
        parts = [self._integral(path, tol, moment) for path in paths]
        return Number(sum(v for v, _ in parts).imag / (2 * np.pi), sum(e for _, e in parts) / (2 * np.pi))

    def _integral(self, path: Path, tol: float, moment: int = 0, levels: int = 16) -> tuple[complex, float]:
        """∫ z^k g dz along a path over [0, 1]: panels are halved until whole and halves agree (g has kinks)."""
        x, w = legendre(8)
        panels = np.linspace(0, 1, 5)
        low, high = panels[:-1], panels[1:]

        def rule(a: Array, b: Array) -> Complex:
            z, dz = path(a[:, None] + (b - a)[:, None] * (1 + x) / 2)
            return np.asarray((self.resolvent(z)[0] * z**moment * dz) @ w * (b - a) / 2)

        whole = rule(low, high)
        total, error = 0j, 0.0
        for level in range(levels):
            middle = (low + high) / 2
            left, right = rule(low, middle), rule(middle, high)
            miss = np.abs(left + right - whole)
            last = level == levels - 1
            done = (miss < tol / 4) | last
            total += complex((left + right)[done].sum())
            error += float(miss[done].sum())
            if done.all():
                break
            keep = ~done
            low, high = np.concatenate([low[keep], middle[keep]]), np.concatenate([middle[keep], high[keep]])
            whole = np.concatenate([left[keep], right[keep]])
        return total, error

    # -- support ---------------------------------------------------------------------------------------------------
    def edges(self, start: complex | None = None, end: complex | None = None) -> list[Number]:
        """Where a straight line enters and leaves the support: the real axis, unless another segment is given.

        Returns
        -------
        list of Number
            Distances from `start` along the segment (coordinates, for the real axis), in order.

        Raises
        ------
        NotCovered
            The support on the real axis has no end, because a quenched number is unbounded.
        """
        if start is None or end is None:
            self.demand_ends()
            return list(self._confirmed)
        return self._crossings(complex(start), complex(end))

    def demand_ends(self) -> None:
        """Raise where the support on the real axis has no end, or is a part of it although no symmetry shows that."""
        if not self.problem.hermitian and self._flat:
            raise NotCovered(
                "the eigenvalues of this matrix lie on the real axis, but its form does not say so: declare a symmetric"
                " matrix with the same eigenvalues, as B.T @ X @ B in place of X @ B @ B.T"
            )
        for nodes in self.analytic.nodes:
            if (grows := nodes.unbounded) is not None:
                raise NotCovered(
                    f"the support has no edges: the quenched number {grows.symbol} ~ {grows.law} enters it without"
                    " bound (expected a law with bounded support, or a bounded function of it)"
                )

    @cached_property
    def _flat(self) -> bool:
        """Whether a support in the plane meets the real axis, but nothing close to it."""
        try:
            ends = [e.value for e in self._real_edges]
        except ConvergenceError:  # next to an atom
            return False
        if not ends:
            return False
        beyond = np.array([1.37 * ends[0] - 0.37 * ends[-1], 1.37 * ends[-1] - 0.37 * ends[0]], complex)
        if self.inside(beyond + 1e-6j * self._reach()).any():
            return False  # a support without an end: between its edges is a hole
        pairs = zip(ends[::2], ends[1::2], strict=False)
        within = np.array([a + (b - a) * share for a, b in pairs for share in (0.21, 0.43, 0.57, 0.79)], complex)
        return bool(len(within)) and not self.inside(within + 1e-6j * self._reach()).any()

    @cached_property
    def _confirmed(self) -> list[Number]:
        """Edges that do not hang on the nodes of label averages: close to atoms these make gaps that are none."""
        edges = self._real_edges
        if not self.problem.hermitian or len(edges) < 4 or not any(n.continuous for n in self.analytic.nodes):
            return edges
        others = np.array([e.value for e in SpectralSolver(self.problem, self.values, coarse=True)._real_edges])
        kept = [edges[0]]
        for left, right in zip(edges[1:-1:2], edges[2:-1:2], strict=True):
            miss = [np.abs(others - e.value).min(initial=np.inf) for e in (left, right)]
            if max(miss) < 0.02 * (right.value - left.value):
                kept += [left, right]
        return [*kept, edges[-1]]

    @cached_property
    def _real_edges(self) -> list[Number]:
        reach, ends = self._extent
        cuts = [reach] if ends else [reach / 4.0**k for k in range(5)]  # no end: look on all scales
        cuts = [*(-r for r in cuts), *reversed(cuts)]
        return [
            Number(e.value + a, e.error) for a, b in pairwise(cuts) for e in self._crossings(complex(a), complex(b))
        ]

    def _reach(self) -> float:
        return self._extent[0]

    @cached_property
    def _extent(self) -> tuple[float, bool]:
        """A real number so large that it and its negative are outside the support, and whether there is one.

        Inverses can have supports without an end: the number is large then.
        """
        scale = (self.analytic if self.problem.hermitian else self.doubled).scale
        for power in range(12):
            reach = scale * 2.0**power
            if not self.inside(np.array([-reach, reach])).any():
                return 1.5 * self._tightened(reach), True
        return float(32 * scale), False

    def _tightened(self, reach: float) -> float:
        """Halve a radius as long as all eigenvalues stay within it: g integrated over the circle is their fraction."""
        unit = np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)
        for _ in range(16):
            z = reach / 2 * unit
            try:
                inside = np.mean(z * self.resolvent(z)[0])
            except ConvergenceError:
                break
            if not abs(inside - 1) < 1e-4:
                break
            reach /= 2
        return float(reach)

    def _crossings(self, start: complex, end: complex) -> list[Number]:
        length = abs(end - start)
        unit = (end - start) / length
        # Two passes: the second grid covers what the first found. The irrational offset avoids atoms at round numbers.
        low, high = 0.0, length
        grid, flags = np.zeros(0), np.zeros(0, bool)
        for points in (64, 128):
            grid = np.linspace(low, high, points) + 1e-6 * np.sqrt(2) * (high - low)
            flags = self.inside(start + grid * unit)
            if not flags.any():
                return []
            step = grid[1] - grid[0]
            low = max(0.0, grid[flags.argmax()] - step)
            high = min(length, grid[len(flags) - 1 - flags[::-1].argmax()] + step)
        found = []
        for k in np.flatnonzero(flags[1:] != flags[:-1]):
            a, b = (grid[k], grid[k + 1]) if not flags[k] else (grid[k + 1], grid[k])
            found.append(self._refine(start, unit, float(a), float(b)))
        return found

    def _refine(self, start: complex, unit: complex, outside: float, inside: float) -> Number:
        """The edge between a point outside and one inside."""
        if self.problem.hermitian:
            return self._fold(start, unit, outside, inside)
        for _ in range(3):
            try:
                return self._boundary_root(start, unit, outside, inside)
            except ConvergenceError:  # the analytic branch does not reach that far inside
                outside, inside = self._bisect(start, unit, outside, inside, 2)
        return Number((outside + inside) / 2, abs(inside - outside))

    def _fold(self, start: complex, unit: complex, outside: float, inside: float) -> Number:
        """An edge of real eigenvalues: where the branch from outside turns back, dz/dt = 0, if it does."""
        outside, inside = self._bisect(start, unit, outside, inside, 5)
        margin = abs(inside - outside)
        z = np.array([start + (outside + (outside - inside)) * unit])
        t, error = self.analytic.follow_from_infinity(z)
        if error[0] < 1e-6 and self.analytic.count:
            found = self.analytic.fold(t.real.astype(complex), z)
            if found is not None:
                place = ((found[1] - start) / unit).real
                if abs(place - outside) < 10 * margin:
                    return Number(float(place), found[2])
        # No fold, as where the resolvent diverges: read the edge off at two levels of Im g.
        far = inside + 10 * (inside - outside)
        ends = [np.mean(self._bisect(start, unit, outside, far, 8, level)) for level in (INSIDE, 10 * INSIDE)]
        return Number(float(ends[0]), float(abs(ends[1] - ends[0])) + 1e-9)

    def _bisect(
        self, start: complex, unit: complex, outside: float, inside: float, passes: int, level: float = INSIDE
    ) -> tuple[float, float]:
        """Narrow the bracket of an edge eightfold a pass."""
        for _ in range(passes):
            between = outside + (inside - outside) * np.arange(1, 8) / 8
            flags = self.inside(start + between * unit, level)
            first = int(flags.argmax()) if flags.any() else 7
            ends = np.concatenate([[outside], between, [inside]])
            outside, inside = float(ends[first]), float(ends[first + 1])
        return outside, inside

    def _boundary_root(self, start: complex, unit: complex, outside: float, inside: float) -> Number:
        """Largest eigenvalue of the linear map of the vanishing scalars = 1, on the analytic branch from outside."""
        state = [self._analytic_part(start + outside * unit)]

        def excess(r: float) -> float:
            z = np.array([start + r * unit])
            t, error = self.analytic.newton(state[0], z, 0.0, steps=30)
            self.analytic.demand(error, "boundary")
            return self.stability(t, z) - 1.0

        margin = abs(outside - inside)
        far = outside + 2 * (outside - inside)
        low, high = excess(outside), excess(inside)
        if low > 0:
            outside, low = far, excess(far)
        if not low * high < 0:
            return Number((outside + inside) / 2, margin)
        root = brentq(excess, outside, inside, xtol=1e-12)
        return Number(float(root), 1e-11)

    def _analytic_part(self, z: complex) -> Complex:
        """Scalars of the analytic problem from a doubled solution at a point outside the support."""
        t, error, _ = self.doubled.follow(np.array([z]))
        self.doubled.demand(error, "boundary")
        return np.array([[t[0, low] for low, _ in self._lift]]).reshape(1, len(self._lift))

    @cached_property
    def _lift(self) -> list[tuple[int, int]]:
        """For every analytic scalar its places in the doubled problem: lower left, and (conjugate) upper right."""
        p, q = self.problem.analytic, self.problem.doubled
        assert q is not None
        assert q.half is not None
        where = {(u.space, u.j, u.k, u.weight): k for k, u in enumerate(q.unknowns)}
        n = q.half
        return [
            (where[u.space, n + u.j, u.k, u.weight], where[u.space, u.k, n + u.j, u.weight.xreplace({I: -I})])
            for u in p.unknowns
        ]

    def stability(self, t: Complex, z: Complex) -> float:
        """Largest eigenvalue of the linear map of the scalars that vanish outside, at one analytic solution."""
        doubled = np.zeros((1, self.doubled.count), complex)
        for k, (low, up) in enumerate(self._lift):
            doubled[0, low], doubled[0, up] = t[0, k], t[0, k].conjugate()
        return float(self.doubled.gain(doubled, z)[0])

    def boundary(self, angles: int = 64, centre: complex | None = None) -> list[Complex]:
        """Points of the boundary on rays from a centre, one array a ray (empty where a ray meets no support)."""
        if self.problem.hermitian:
            raise QuenchedError("the eigenvalues of this matrix are real: ask for edges()")
        reach = self._reach()
        middle = self.centre() if centre is None else centre
        out = []
        for angle in 2 * np.pi * np.arange(angles) / angles:
            unit = np.exp(1j * angle)
            begin = middle + 1e-3 * reach * unit  # densities of products diverge at 0
            found = self._crossings(complex(begin), complex(middle + 2 * reach * unit))
            out.append(np.array([begin + e.value * unit for e in found]))
        return out

    def centre(self) -> complex:
        """Centre of mass of the eigenvalues: z − 1/g at large z."""
        z = np.array([1e4j * self.analytic.scale])
        g, _ = self.resolvent(z)
        return complex(np.round((z - 1 / g)[0].real, 6))

    # -- outliers --------------------------------------------------------------------------------------------------
    def outliers(self) -> list[Number]:
        """Real eigenvalues outside the support that finite-rank parts (means of entries, ``outer``) make.

        Roots of det(1 + Rᵀ 𝒢 L) with the pencil's finite-rank parts L Rᵀ.
        """
        ranks = self.problem.analytic.ranks
        if not ranks:
            return []
        overlap = _Overlaps(self.analytic, self.values)
        reach = 4 * self._reach()
        edges = [e.value for e in self.edges()]
        cuts = [-reach, *edges, reach]
        found = []
        for a, b in zip(cuts[:-1:2], cuts[1::2], strict=True):
            pad = 1e-6 * (b - a)
            grid = np.linspace(a + pad, b - pad, 200)
            value = overlap(grid.astype(complex), self._outside(grid))
            for k in np.flatnonzero(np.sign(value[1:]) != np.sign(value[:-1])):
                root = brentq(
                    lambda x: overlap(np.array([x + 0j]), self._outside(np.array([x])))[0], grid[k], grid[k + 1]
                )
                found.append(Number(float(root), 1e-9))
        return found

    def _outside(self, x: Array) -> Complex:
        """Analytic scalars at real points outside the support."""
        z = x.astype(complex)
        if self.problem.hermitian:
            t, error = self.analytic.follow_from_infinity(z)
            t = t.real.astype(complex)
        else:
            full, error, _ = self.doubled.follow(z)
            t = full[:, [low for low, _ in self._lift]]
        self.analytic.demand(error, "outliers")
        return t


class _Overlaps:
    """det(1 + Rᵀ 𝒢 L) of the finite-rank parts."""

    def __init__(self, solver: Dyson, values: dict[Symbol, float]) -> None:
        self.solver = solver
        p = solver.problem
        self.entries: list[tuple[int, int, int, int, int, Complex]] = []
        for a, r in enumerate(p.ranks):
            for b, s in enumerate(p.ranks):
                space = p.blocks[r.col]
                if p.blocks[s.row] != space:
                    continue
                size = (s.coefficient * SIZE).simplify()
                if SIZE in size.free_symbols:
                    raise NotCovered(
                        f"the entries of a finite-rank part, {s.coefficient} times the outer product, would have to "
                        "fall as 1/N: it has eigenvalues of order N and does not stay finite as N → ∞; divide it by N"
                    )
                weight = solver.at_nodes(space, r.right * s.left * size)
                place = solver.spaces[space].blocks
                full = solver.spaces[space].fraction * solver.spaces[space].weights * weight
                self.entries.append((a, b, space, place.index(r.col), place.index(s.row), full))

    def __call__(self, z: Complex, t: Complex) -> Array:
        G = self.solver.propagators(t, z, 0.0)
        n = len(self.solver.problem.ranks)
        table = np.broadcast_to(np.eye(n), (len(z), n, n)).astype(complex)
        for a, b, space, j, k, weight in self.entries:
            table[:, a, b] += G[space][:, :, j, k] @ weight
        return np.linalg.det(table).real
