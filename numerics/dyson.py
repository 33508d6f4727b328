"""The matrix Dyson equation with numbers: batched Newton solutions, their derivatives and errors.

Every routine works on many spectral parameters at once; arrays are (points, …). Doubled problems are followed from
large η, where the damped fixed point contracts, to η = 0. There the equation has a flat direction (upper blocks × s,
lower blocks ÷ s), which the exact identity Tr 𝒢_upper = Tr 𝒢_lower removes; it enters Newton's equations as one row.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Abs, Expr, Float, Heaviside, Max, Min, Poly, S, Symbol, default_sort_key, im, lambdify, sign
from sympy.core.relational import Relational

from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError
from quenched.theory.problem import Label
from quenched.theory.problem_dyson import ZBAR, DysonProblem, Z

from .labels import label_nodes
from .types import Array

Complex = NDArray[np.complex128]

#: How often the label quadrature is refined at most.
REFINEMENTS = 5
#: Nodes over one period of a periodic label, where equal weights converge exponentially.
PERIODIC = 1024
#: Newton steps below this (relative) end the iteration.
TOLERANCE = 1e-11
#: A batch of points is solved in this order: every 64th along a curve that fills the plane, then those in between.
STRIDES = (64, 8, 1)
#: Solved points that are remembered as starts.
MEMORY = 20000
#: Matrices to be inverted in one pass from which threads pay.
THREADED = 200_000
#: A diagonal scalar above this means that a point is inside the support.
INSIDE = 1e-7


@dataclass
class _Space:
    """Tables of one population: its blocks, label weights (nodes,), and the affine parts (nodes, b, b)."""

    fraction: float
    blocks: list[int]
    weights: Array
    constant: Complex
    by_z: Complex
    by_zbar: Complex
    feedback: Complex  # (unknowns, nodes, b, b)
    rows: list[tuple[int, int, int, Complex]]  # (unknown, j, k, weight at nodes)

    def sparse(self, heads: list[tuple[int, int, int, Complex]], half: int | None) -> tuple[Any, ...]:
        """The tables as `dyson_kernels.accumulate` takes them; `heads` are further averages like `rows`."""
        by_quantity = [*self.feedback, -self.by_z, -self.by_zbar]
        places = [(m, *map(int, at)) for m, f in enumerate(by_quantity) for at in np.argwhere(np.any(f != 0, axis=0))]
        values = np.array([by_quantity[m][:, i, k] for m, i, k in places], complex).reshape(-1, len(self.weights))
        rows = [*self.rows, *heads]
        return (
            np.ascontiguousarray(self.constant),
            np.array(places, np.int64).reshape(-1, 3),
            np.ascontiguousarray(values),
            np.array([(u, j, k) for u, j, k, _ in rows], np.int64).reshape(-1, 3),
            np.array([w for *_, w in rows], complex).reshape(-1, len(self.weights)),
            np.array([half is None or b < half for b in self.blocks], np.bool_),
            self.fraction * self.weights,
        )


@dataclass(frozen=True)
class Pass:
    """Averages at many points, and their derivatives with respect to the scalars, z and z̄ (if asked for).

    Attributes
    ----------
    image : (points, unknowns)
    resolvent : (points,)
    jacobian : (points, unknowns, unknowns + 2)
    resolvent_slope : (points, unknowns + 2)
    traces : (points, 2) of the upper and lower blocks, with slopes (points, 2, unknowns + 2)
    """

    image: Complex
    resolvent: Complex
    jacobian: Complex
    resolvent_slope: Complex
    traces: Complex
    trace_slopes: Complex


class Dyson:
    """A Dyson equation with values of its parameters.

    Parameters
    ----------
    problem : DysonProblem
    values : dict of Symbol to float
    """

    def __init__(self, problem: DysonProblem, values: dict[Symbol, float]) -> None:
        self.problem = problem
        self.values = {s: values[s] for s in problem.parameters}
        self.count = len(problem.unknowns)
        self.nodes: dict[int, Array] = {}
        self.spaces = [self._space(index) for index in range(len(problem.spaces))]
        total = sum(self.spaces[problem.blocks[h]].fraction for h in problem.heads)
        self.head_weight = [self.spaces[problem.blocks[h]].fraction / total for h in problem.heads]
        self.upper = [k for k, u in enumerate(problem.unknowns) if u.sector == "upper"]
        self.lower = [k for k, u in enumerate(problem.unknowns) if u.sector == "lower"]
        self.vanishing = np.array([u.sector != "analytic" for u in problem.unknowns], dtype=bool)
        self._sparse = [space.sparse(self._head_rows(k), problem.half) for k, space in enumerate(self.spaces)]
        #: Size of the matrix: sets the scale of z and η.
        self.scale = self._size()
        self._solved: tuple[Complex, Complex] = np.zeros(0, complex), np.zeros((0, self.count), complex)

    def _head_rows(self, index: int) -> list[tuple[int, int, int, Complex]]:
        """The average that is g(z), as a further row of the tables of a space."""
        shift, space = self.problem.half or 0, self.spaces[index]
        found = []
        for h, weight in zip(self.problem.heads, self.head_weight, strict=True):
            if self.problem.blocks[h] == index:
                at = space.blocks.index(h + shift), space.blocks.index(h)
                found.append((self.count, *at, (weight * space.weights).astype(complex)))
        return found

    # -- tables ----------------------------------------------------------------------------------------------------
    def _space(self, index: int) -> _Space:
        p = self.problem
        weights = self._quadrature(index)

        def at_nodes(expr: Expr) -> Complex:
            return self.at_nodes(index, expr)

        blocks = [b for b, s in enumerate(p.blocks) if s == index]
        place = {b: k for k, b in enumerate(blocks)}
        shape = (len(weights), len(blocks), len(blocks))
        constant, by_z, by_zbar = (np.zeros(shape, complex) for _ in range(3))
        for i, j, value in p.bare:
            if i in place:
                z, zbar = value.diff(Z), value.diff(ZBAR)
                by_z[:, place[i], place[j]] += at_nodes(z)
                by_zbar[:, place[i], place[j]] += at_nodes(zbar)
                constant[:, place[i], place[j]] += at_nodes((value - z * Z - zbar * ZBAR).expand())
        feedback = np.zeros((self.count, *shape), complex)
        for f in p.feedback:
            if f.row in place:
                feedback[f.unknown, :, place[f.row], place[f.col]] += at_nodes(f.coefficient)
        fraction = float(p.spaces[index].fraction.subs(self.values))
        rows = [
            (k, place[u.j], place[u.k], fraction * weights * at_nodes(u.weight))
            for k, u in enumerate(p.unknowns)
            if u.space == index
        ]
        return _Space(fraction, blocks, weights, constant, by_z, by_zbar, feedback, rows)

    def at_nodes(self, index: int, expr: Expr) -> Complex:
        """Values of a label function at the nodes of a space, (nodes,)."""
        space = self.problem.spaces[index]
        function = lambdify([x.symbol for x in space.labels], expr.xreplace(_numbers(self.values)), "numpy")
        found = np.broadcast_to(function(*self.nodes[index].T), len(self.nodes[index])).astype(complex)
        if not np.all(np.isfinite(found)):
            raise QuenchedError(f"{expr} is not finite for all labels of {space.name!r}")
        return found

    def _quadrature(self, index: int) -> Array:
        """Choose the label nodes of a space: finer ones where second moments of the label functions ask for them."""
        labels = self.problem.spaces[index].labels
        breaks = self._breaks(index)
        exprs = self._label_functions(index)
        if len(labels) == 1 and not breaks and self._periodic(index):
            law: Any = labels[0].law
            low, high = (float(e.subs(self.values)) for e in (law.support().inf, law.support().sup))
            self.nodes[index] = (low + (high - low) * (np.arange(PERIODIC) + 0.5) / PERIODIC)[:, None]
            return self._merge(index, exprs, np.full(PERIODIC, 1 / PERIODIC))
        found: tuple[Array, Array, Array] | None = None
        limit = np.array([1e-8] + [1e-5] * 5)
        for refinement in range(REFINEMENTS if len(labels) == 1 else 1):
            cuts = breaks if refinement == 0 else _cuts(labels[0], self.values, breaks, 8 * 2**refinement)
            nodes, weights = label_nodes(labels, self.values, cuts)
            self.nodes[index] = np.array(nodes, float).reshape(len(weights), -1)
            moments = np.array([_probe(weights, self.at_nodes(index, e)) for e in exprs])
            if found is not None and np.all(np.abs(moments - found[2]) < limit * (1 + np.abs(moments))):
                break  # the coarser nodes are fine enough
            found = self.nodes[index], weights, moments
        assert found is not None
        self.nodes[index] = found[0]
        return self._merge(index, exprs, found[1])

    def _merge(self, index: int, exprs: list[Expr], weights: Array) -> Array:
        """Merge nodes at which all label functions are equal."""
        table = np.array([self.at_nodes(index, e) for e in exprs]).reshape(len(exprs), -1)
        first, weights = merged(table, weights)
        self.nodes[index] = self.nodes[index][first]
        return weights

    def _periodic(self, index: int) -> bool:
        """Whether the label is uniform over one period of all label functions."""
        law: Any = self.problem.spaces[index].labels[0].law
        if type(law).__name__ != "Uniform":
            return False
        support = law.support()
        length = float((support.sup - support.inf).subs(self.values))
        points = np.array([[0.123], [1.87], [4.2]])
        self.nodes[index] = np.concatenate([points, points + length])
        try:
            values = [self.at_nodes(index, e) for e in self._label_functions(index)]
        except QuenchedError:  # not finite outside the support
            return False
        return all(np.allclose(v[:3], v[3:], rtol=0, atol=1e-10 * (1 + np.abs(v).max())) for v in values)

    def _breaks(self, index: int) -> dict[Symbol, list[float]]:
        """Label values at which an expression of this space jumps or has a kink."""
        exprs = [e.xreplace(_numbers(self.values)) for e in self._label_functions(index)]
        return breaks_of(exprs, [x.symbol for x in self.problem.spaces[index].labels])

    def _label_functions(self, index: int) -> list[Expr]:
        """Expressions in the labels of a space that enter the equation."""
        p = self.problem
        found = [v.xreplace({Z: S.One, ZBAR: S.One}) for i, _, v in p.bare if p.blocks[i] == index]
        found += [u.weight for u in p.unknowns if u.space == index]
        found += [f.coefficient for f in p.feedback if p.blocks[f.row] == index]
        found += [r.left for r in p.ranks if p.blocks[r.row] == index]
        return found + [r.right for r in p.ranks if p.blocks[r.col] == index]

    def _size(self) -> float:
        bare = max(float(np.abs(s.constant).max(initial=0.0)) for s in self.spaces)
        noise = max(float(np.abs(s.feedback).max(initial=0.0)) for s in self.spaces)
        return 1.0 + bare + self.count * noise + noise**0.5

    # -- the equation ----------------------------------------------------------------------------------------------
    def averages(self, t: Complex, z: Complex, eta: float, slopes: bool = False) -> Pass:
        """All averages at once, with their derivatives if `slopes`."""
        from .dyson_kernels import accumulate

        kernel: Callable[..., None] = accumulate

        points, averages, quantities = len(z), self.count + 1, self.count + 2
        image, traces = np.zeros((points, averages), complex), np.zeros((points, 2), complex)
        shape = (points, averages, quantities) if slopes else (0, averages, quantities)
        response = np.zeros(shape, complex)
        trace_slopes = np.zeros((shape[0], 2, quantities), complex)
        t, z = np.ascontiguousarray(t, complex), np.ascontiguousarray(z, complex)

        def part(own: slice) -> None:
            out: tuple[Any, ...] = (image[own], response[own], traces[own], trace_slopes[own])
            for table in self._sparse:
                kernel(t[own], z[own], float(eta), *table, *out, slopes)

        work = points * sum(len(s.weights) for s in self.spaces)
        in_threads(part, points, 1 if work < THREADED else processors())
        return Pass(image[:, :-1], image[:, -1], response[:, :-1], response[:, -1], traces, trace_slopes)

    def propagators(self, t: Complex, z: Complex, eta: float) -> list[Complex]:
        """𝒢 of every space, (points, nodes, b, b)."""
        out = []
        for s in self.spaces:
            matrix = s.constant - np.einsum("ukij,pu->pkij", s.feedback, t)
            matrix = matrix + z[:, None, None, None] * s.by_z + z.conj()[:, None, None, None] * s.by_zbar
            if eta:
                matrix = matrix - 1j * eta * np.eye(len(s.blocks))
            out.append(_inverse(matrix))
        return out

    def image(self, G: list[Complex]) -> Complex:
        """The scalars that propagators give, (points, unknowns)."""
        out = np.zeros((len(G[0]), self.count), complex)
        for s, g in zip(self.spaces, G, strict=True):
            for u, j, k, w in s.rows:
                out[:, u] = g[:, :, j, k] @ w
        return out

    # -- readings --------------------------------------------------------------------------------------------------
    def resolvent(self, G: list[Complex]) -> Complex:
        """g(z) = lim (1/n) tr (z − M)⁻¹, (points,)."""
        shift = self.problem.half or 0
        out = np.zeros(len(G[0]), complex)
        for h, weight in zip(self.problem.heads, self.head_weight, strict=True):
            s = self.spaces[self.problem.blocks[h]]
            a, b = s.blocks.index(h + shift), s.blocks.index(h)
            out += weight * (G[self.problem.blocks[h]][:, :, a, b] @ s.weights)
        return out

    # -- Newton ----------------------------------------------------------------------------------------------------
    def newton(
        self, t: Complex, z: Complex, eta: float, steps: int = 12, tol: float = TOLERANCE
    ) -> tuple[Complex, Array]:
        """Newton's iteration from t; returns t and the relative size of the last step, (points,)."""
        t = t.copy()
        error = np.full(len(t), np.inf)
        if self.count == 0:
            return t, np.zeros(len(t))
        active = np.arange(len(t))
        for _ in range(steps):
            step = self._newton_step(t[active], self.averages(t[active], z[active], eta, slopes=True))
            good = np.all(np.isfinite(step), axis=1)
            size = np.abs(step).max(axis=1) / (1e-3 + np.abs(t[active]).max(axis=1))
            t[active[good]] += step[good]
            error[active] = np.where(good, size, np.inf)
            active = active[good & (size > tol)]
            if not len(active):
                break
        return t, error

    def _newton_step(self, t: Complex, found: Pass) -> Complex:
        matrix = np.eye(self.count) - found.jacobian[:, :, : self.count]
        rest = found.image - t
        if self.problem.half is not None:
            slope = found.trace_slopes[:, 0] - found.trace_slopes[:, 1]
            matrix = np.concatenate([matrix, slope[:, None, : self.count]], axis=1)
            rest = np.concatenate([rest, (found.traces[:, 1] - found.traces[:, 0])[:, None]], axis=1)
        return _solve(matrix, rest)

    def resolvent_slope(self, t: Complex, z: Complex, parameter: int) -> Complex:
        """dg/dz (parameter 0) or dg/dz̄ (1) at a solution with η = 0, the scalars moving along."""
        found = self.averages(t, z, 0.0, slopes=True)
        own = found.resolvent_slope[:, self.count + parameter]
        if not self.count:
            return own
        matrix = np.eye(self.count) - found.jacobian[:, :, : self.count]
        rest = found.jacobian[:, :, self.count + parameter]
        if self.problem.half is not None:
            slope = found.trace_slopes[:, 0] - found.trace_slopes[:, 1]
            matrix = np.concatenate([matrix, slope[:, None, : self.count]], axis=1)
            rest = np.concatenate([rest, -slope[:, None, self.count + parameter]], axis=1)
        dt = _solve(matrix, rest)
        return np.asarray(own + np.einsum("pu,pu->p", found.resolvent_slope[:, : self.count], dt))

    def iterate(self, t: Complex, z: Complex, eta: float, steps: int) -> Complex:
        """Damped fixed point, with the traces of upper and lower blocks made equal after each step."""
        for _ in range(steps):
            t = (t + self.averages(t, z, eta).image) / 2
            if self.problem.half is not None and self.upper and self.lower:
                t = self.balance(t, z, eta)
        return t

    def balance(self, t: Complex, z: Complex, eta: float) -> Complex:
        """Scale upper scalars by s and lower ones by 1/s so that both traces agree."""
        up, low = self.averages(t, z, eta).traces.imag.T
        ratio = np.sqrt(np.maximum(low, 1e-300) / np.maximum(up, 1e-300))
        out = t.copy()
        out[:, self.upper] *= ratio[:, None]
        out[:, self.lower] /= ratio[:, None]
        return out

    # -- continuation ----------------------------------------------------------------------------------------------
    def start(self, points: int) -> Complex:
        """𝒢 = i: positive, as the solution must be."""
        t = np.zeros((points, self.count), complex)
        for s in self.spaces:
            for u, j, k, w in s.rows:
                t[:, u] = 1j * w.sum() if j == k else 0.0
        return t

    def follow(self, z: Complex) -> tuple[Complex, Array, NDArray[np.bool_]]:
        """The positive solution of a doubled problem at η = 0, from solved neighbours where there are some.

        Returns
        -------
        t : (points, unknowns); scalars that vanish outside the support are exactly 0 there
        error : (points,), relative size of the last Newton step
        inside : (points,)
        """
        z = np.asarray(z, complex)
        t, error = np.zeros((len(z), self.count), complex), np.full(len(z), np.inf)
        order = np.argsort(_along_a_curve(z), kind="stable")
        done = np.zeros(len(z), bool)
        for stride in STRIDES:
            chosen = order[::stride]
            chosen = chosen[~done[chosen]]
            t[chosen], error[chosen] = self._from_neighbours(z[chosen])
            done[chosen] = True
        return t, error, np.abs(t[:, self.vanishing]).max(axis=1, initial=0.0) > INSIDE

    def _from_neighbours(self, z: Complex) -> tuple[Complex, Array]:
        """Solve points, starting each from the nearest solved one, and remember them."""
        t, error = np.zeros((len(z), self.count), complex), np.full(len(z), np.inf)
        if len(self._solved[0]):
            t, error = self._warm(z)
        rest = ~(error < 1e-7)
        if rest.any():
            t[rest], error[rest], _ = self.follow_eta(z[rest])
        good = error < 1e-7
        points, scalars = (np.concatenate([a[-MEMORY:], b[good]]) for a, b in zip(self._solved, (z, t), strict=True))
        self._solved = points, scalars
        return t, error

    def _warm(self, z: Complex) -> tuple[Complex, Array]:
        """Newton's iteration from the nearest solved points; error ∞ where that is not the positive solution."""
        from scipy.spatial import cKDTree

        tree = cKDTree(np.column_stack([self._solved[0].real, self._solved[0].imag]))
        _, nearest = tree.query(np.column_stack([z.real, z.imag]))
        start = self._solved[1][nearest]
        t, error = self.newton(start, z, 0.0, steps=15)
        far = np.abs(t - start).max(axis=1, initial=0.0) > 0.5 * (0.1 + np.abs(start).max(axis=1, initial=0.0))
        inside = np.abs(t[:, self.vanishing]).max(axis=1, initial=0.0) > INSIDE
        t[np.ix_(~inside, self.vanishing)] = 0.0
        wrong = far | ~np.isfinite(error) | (inside & ~self._positive(t))
        outside = np.flatnonzero(~inside & ~wrong)
        if len(outside):
            wrong[outside] |= ~(self.gain(t[outside], z[outside]) < 1)
        error[wrong] = np.inf
        return t, error

    def gain(self, t: Complex, z: Complex) -> Array:
        """Largest eigenvalue of the linear map of the scalars that vanish outside, at analytic solutions, (points,)."""
        if not self.upper:
            return np.zeros(len(z))
        table = self.averages(t, z, 0.0, slopes=True).jacobian[:, self.upper][:, :, self.upper]
        bad = ~np.all(np.isfinite(table), axis=(1, 2))
        table[bad] = np.eye(len(self.upper)) * 1e9
        return np.asarray(np.abs(np.linalg.eigvals(table)).max(axis=1))

    def follow_eta(self, z: Complex, ratio: float = 0.2) -> tuple[Complex, Array, NDArray[np.bool_]]:
        """The same as `follow`, each point from large η, where the damped fixed point contracts."""
        z = np.asarray(z, complex)
        eta = self.scale
        t = self.iterate(self.start(len(z)), z, eta, 12)
        while eta > 1e-4 * self.scale:
            new, error = self.newton(t, z, eta, tol=1e-4)
            wrong = ~(error < 1e-3) | ~self._positive(new)
            if wrong.any():
                new[wrong] = self.iterate(t[wrong], z[wrong], eta, 200)
            t = new
            eta *= ratio
        t, error = self.newton(t, z, 0.0, steps=40)
        size = np.abs(t[:, self.vanishing]).max(axis=1, initial=0.0)
        inside = size > INSIDE
        t[np.ix_(~inside, self.vanishing)] = 0.0
        wrong = ~(error < 1e-7) | (inside & ~self._positive(t))
        if wrong.any() and ratio < 0.8:
            t[wrong], error[wrong], inside[wrong] = self.follow_eta(z[wrong], ratio**0.4)
        return t, error, inside

    def _positive(self, t: Complex) -> NDArray[np.bool_]:
        """Whether the diagonal scalars have the sign that a positive 𝒢 gives them."""
        keep = [k for k, u in enumerate(self.problem.unknowns) if u.sector != "analytic" and u.j == u.k]
        signs = [np.sign(w.sum().real) for k in keep for s in self.spaces for u, _, _, w in s.rows if u == k]
        return np.all(t[:, keep].imag * np.array(signs) > 0, axis=1) if keep else np.ones(len(t), bool)

    def follow_from_infinity(self, z: Complex, ratio: float = 0.4, floor: float = 1e-12) -> tuple[Complex, Array]:
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
        drift = _solve(np.eye(self.count) - found.jacobian[:, :, : self.count], found.jacobian[:, :, self.count])
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

    def demand(self, error: Array, what: str) -> None:
        """Raise unless every point converged."""
        worst = float(np.max(error, initial=0.0))
        if not worst < 1e-6:
            raise ConvergenceError(f"{what}: Newton's iteration ended with a relative step of {worst:.1e}", error)


def merged(table: Complex, weights: Array) -> tuple[NDArray[Any], Array]:
    """One node for all at which every function has the same value, (functions, nodes): which, and their weights."""
    if not len(table):
        return np.zeros(1, np.int64), weights.sum(keepdims=True)
    scale = np.abs(table).max(axis=1, keepdims=True) + 1e-300
    rounded = np.round(table / scale, 13) + 0.0
    _, first, which = np.unique(rounded, axis=1, return_index=True, return_inverse=True)
    return first, np.asarray(np.bincount(which.ravel(), weights, len(first)), float)


def processors() -> int:
    """Processors for large batches: those of this process, fewer where ``OMP_NUM_THREADS`` says so."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(limit)) if limit.isdecimal() and int(limit) > 0 else there


def in_threads(part: Callable[[slice], None], points: int, threads: int) -> None:
    """Call `part` on slices that cover all points."""
    if threads == 1:
        part(slice(0, points))
        return
    edges = np.linspace(0, points, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, [slice(int(a), int(b)) for a, b in pairwise(edges)]))


def _along_a_curve(z: Complex) -> NDArray[np.int64]:
    """Place of every point on a curve that fills the plane (bits of both coordinates interleaved)."""
    place = np.zeros(len(z), np.int64)
    for shift, part in enumerate((z.real, z.imag)):
        low, high = part.min(initial=np.inf), part.max(initial=-np.inf)
        cells = ((part - low) / (high - low or 1.0) * 1023).astype(np.int64)
        for bit in range(10):
            place |= ((cells >> bit) & 1) << (2 * bit + shift)
    return place


def breaks_of(exprs: list[Expr], labels: list[Symbol]) -> dict[Symbol, list[float]]:
    """Where arguments of steps, signs, moduli, maxima and conditions change sign, for each label.

    Raises
    ------
    NotCovered
        For an argument that mixes labels or is no polynomial.
    """
    arguments: set[Expr] = set()
    for expr in exprs:
        for node in expr.atoms(Heaviside, sign, Abs):
            arguments.add(node.args[0])
        for node in expr.atoms(Max, Min):
            arguments |= {a - b for a in node.args for b in node.args if a != b}
        for node in expr.atoms(Relational):
            arguments.add(node.lhs - node.rhs)
    found: dict[Symbol, list[float]] = {}
    for argument in sorted(arguments, key=default_sort_key):
        inside = argument.free_symbols & set(labels)
        if not inside:
            continue
        if len(inside) > 1 or not argument.is_polynomial(*inside):
            raise NotCovered(
                f"a label function with a jump at {argument} = 0: give the jump as a polynomial of one label"
            )
        label = inside.pop()
        found.setdefault(label, []).extend(float(r) for r in Poly(argument, label).nroots() if abs(im(r)) < 1e-12)
    return found


def _cuts(
    label: Label, values: dict[Symbol, float], breaks: dict[Symbol, list[float]], panels: int
) -> dict[Symbol, list[float]]:
    """Panel ends over the bulk of a label's law, with the given breaks."""
    law: Any = label.law
    mean, variance = (float(e.subs(values)) for e in (law.mean_(), law.variance_()))
    if law.weights() or not variance > 0:
        return breaks
    support = law.support()
    ends = [float(e.subs(values)) if e.is_finite else np.nan for e in (support.inf, support.sup)]
    low, high = (e if np.isfinite(e) else mean + s * 8 * np.sqrt(variance) for e, s in zip(ends, (-1, 1), strict=True))
    return {label.symbol: [*breaks.get(label.symbol, []), *np.linspace(low, high, panels + 1).tolist()]}


def _probe(weights: Array, f: Complex) -> list[float]:
    """⟨|f|²⟩, and averages as sharp as those of resolvents, in four directions."""
    mean = float(weights @ np.abs(f) ** 2)
    if not mean > 0:
        return [0.0] * 6
    points = [0.0, *(1.2 * np.sqrt(mean) * np.array([1, 1j, -1, -1j]))]
    return [mean, *(float(weights @ (mean / (np.abs(f - p) ** 2 + 0.1 * mean))) for p in points)]


def _numbers(values: dict[Symbol, float]) -> dict[Any, Any]:
    return {s: Float(v) for s, v in values.items()}


def _inverse(matrix: Complex) -> Complex:
    """Batched inverse; singular matrices give NaN, which Newton's iteration notices."""
    size = matrix.shape[-1]
    with np.errstate(all="ignore"):
        if size == 1:
            return 1 / matrix
        if size == 2:
            a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
            out = np.empty_like(matrix)
            out[..., 0, 0], out[..., 0, 1], out[..., 1, 0], out[..., 1, 1] = d, -b, -c, a
            return out / (a * d - b * c)[..., None, None]
        try:
            return np.asarray(np.linalg.inv(matrix))
        except np.linalg.LinAlgError:
            return np.asarray(np.linalg.inv(matrix + 1e-14 * np.eye(size)))


def _solve(matrix: Complex, rest: Complex) -> Complex:
    """Least-squares solutions, (points, unknowns); NaN where the matrix is not finite."""
    out = np.full((len(matrix), matrix.shape[2]), np.nan, complex)
    good = np.all(np.isfinite(matrix), axis=(1, 2)) & np.all(np.isfinite(rest), axis=1)
    if matrix.shape[1] == matrix.shape[2]:
        try:
            out[good] = np.linalg.solve(matrix[good], rest[good][..., None])[..., 0]
            return out
        except np.linalg.LinAlgError:
            pass
    inverse = np.linalg.pinv(matrix[good], rcond=1e-14)
    out[good] = np.einsum("pij,pj->pi", inverse, rest[good])
    return out
