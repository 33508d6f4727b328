"""The matrix Dyson equation with numbers: averages over the propagator, their derivatives, and Newton's iteration.

Every routine works on many spectral parameters at once; arrays are (points, …). At η = 0 the equation of a doubled
problem has a flat direction (upper blocks × s, lower blocks ÷ s), which the exact identity Tr 𝒢_upper = Tr 𝒢_lower
removes; it enters Newton's equations as one row.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from sympy import Expr, Symbol

from quenched.theory.errors import ConvergenceError
from quenched.theory.problem_dyson import ZBAR, DysonProblem, Z

from .dyson_nodes import Complex, SpaceNodes
from .types import Array

#: Newton steps below this (relative) end the iteration.
TOLERANCE = 1e-11
#: Matrices to be inverted in one pass from which threads pay.
THREADED = 200_000


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
            np.ascontiguousarray(values.T),
            np.array([(u, j, k) for u, j, k, _ in rows], np.int64).reshape(-1, 3),
            np.ascontiguousarray(np.array([w for *_, w in rows], complex).reshape(-1, len(self.weights)).T),
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
    traces : (points, 2) of the upper and lower blocks, with slopes (points, 2, unknowns + 2); for doubled problems
    """

    image: Complex
    resolvent: Complex
    jacobian: Complex
    resolvent_slope: Complex
    traces: Complex
    trace_slopes: Complex


class DysonEquation:
    """A Dyson equation with values of its parameters.

    Parameters
    ----------
    problem : DysonProblem
    values : dict of Symbol to float
    coarse : bool
        Average over labels with other, fewer nodes.
    """

    def __init__(self, problem: DysonProblem, values: dict[Symbol, float], coarse: bool = False) -> None:
        self.problem = problem
        self.values = {s: values[s] for s in problem.parameters}
        self.count = len(problem.unknowns)
        self.nodes = [SpaceNodes(problem, k, self.values, coarse) for k in range(len(problem.spaces))]
        self.spaces = [self._space(index) for index in range(len(problem.spaces))]
        total = sum(self.spaces[problem.blocks[h]].fraction for h in problem.heads)
        self.head_weight = [self.spaces[problem.blocks[h]].fraction / total for h in problem.heads]
        self.upper = [k for k, u in enumerate(problem.unknowns) if u.sector == "upper"]
        self.lower = [k for k, u in enumerate(problem.unknowns) if u.sector == "lower"]
        self.vanishing = np.array([u.sector != "analytic" for u in problem.unknowns], dtype=bool)
        self._sparse = [space.sparse(self._head_rows(k), problem.half) for k, space in enumerate(self.spaces)]
        #: Size of the matrix: sets the scale of z and η.
        self.scale = self._size()

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
        weights = self.nodes[index].weights

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
        return self.nodes[index].at(expr)

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
        image = np.zeros((points, averages), complex)
        traces = np.zeros((points if self.problem.half is not None else 0, 2), complex)
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
        return solved(matrix, rest)

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
        dt = solved(matrix, rest)
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

    # -- signs -----------------------------------------------------------------------------------------------------
    def start(self, points: int) -> Complex:
        """𝒢 = i: positive, as the solution must be."""
        t = np.zeros((points, self.count), complex)
        for s in self.spaces:
            for u, j, k, w in s.rows:
                t[:, u] = 1j * w.sum() if j == k else 0.0
        return t

    @cached_property
    def _signed(self) -> tuple[list[int], Array]:
        """Diagonal scalars whose weight has one sign, and that sign: Im of a positive 𝒢 has it, too."""
        keep, signs = [], []
        for k, u in enumerate(self.problem.unknowns):
            weights = [w for s in self.spaces for index, _, _, w in s.rows if index == k]
            whole = np.concatenate(weights) if weights else np.zeros(0)
            even = np.all(whole.imag == 0) and (np.all(whole.real >= 0) or np.all(whole.real <= 0))
            if even and u.j == u.k and u.sector != "analytic":
                keep.append(k)
                signs.append(float(np.sign(whole.real.sum())))
        return keep, np.array(signs)

    def signed(self, t: Complex) -> Array:
        """The imaginary parts that are positive for a positive 𝒢, (points, some)."""
        keep, signs = self._signed
        return np.asarray(t[:, keep].imag * signs)

    def gain(self, t: Complex, z: Complex) -> Array:
        """Largest eigenvalue of the linear map of the scalars that vanish outside, at analytic solutions, (points,)."""
        if not self.upper:
            return np.zeros(len(z))
        table = self.averages(t, z, 0.0, slopes=True).jacobian[:, self.upper][:, :, self.upper]
        return largest_modulus(table)

    def demand(self, error: Array, what: str) -> None:
        """Raise unless every point converged."""
        worst = float(np.max(error, initial=0.0))
        if not worst < 1e-6:
            raise ConvergenceError(f"{what}: Newton's iteration ended with a relative step of {worst:.1e}", error)


def largest_modulus(table: Complex) -> Array:
    """Spectral radii, (points,); large where a table is not finite."""
    bad = ~np.all(np.isfinite(table), axis=(1, 2))
    table = np.where(bad[:, None, None], np.eye(table.shape[1]) * 1e9, table)
    return np.asarray(np.abs(np.linalg.eigvals(table)).max(axis=1))


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


def solved(matrix: Complex, rest: Complex) -> Complex:
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
