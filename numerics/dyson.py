"""The matrix Dyson equation with numbers: batched Newton solutions, their derivatives and errors.

Every routine works on many spectral parameters at once; arrays are (points, …). Doubled problems are followed from
large η, where the damped fixed point contracts, to η = 0. There the equation has a flat direction (upper blocks × s,
lower blocks ÷ s), which the exact identity Tr 𝒢_upper = Tr 𝒢_lower removes; it enters Newton's equations as one row.
"""

from __future__ import annotations

from dataclasses import dataclass
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
#: Newton steps below this (relative) end the iteration.
TOLERANCE = 1e-11
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
        #: Size of the matrix: sets the scale of z and η.
        self.scale = self._size()

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
        found: tuple[Array, Array, Array] | None = None
        limit = np.array([1e-8] + [1e-5] * 5)
        for refinement in range(REFINEMENTS if len(labels) == 1 else 1):
            cuts = breaks if refinement == 0 else _cuts(labels[0], self.values, breaks, 8 * 2**refinement)
            nodes, weights = label_nodes(labels, self.values, cuts)
            self.nodes[index] = np.array(nodes, float).reshape(len(weights), -1)
            moments = np.array([_probe(weights, self.at_nodes(index, e)) for e in exprs])
            if found is not None and np.all(np.abs(moments - found[2]) < limit * (1 + np.abs(moments))):
                break
            found = self.nodes[index], weights, moments
        assert found is not None
        self.nodes[index] = found[0]
        return found[1]

    def _breaks(self, index: int) -> dict[Symbol, list[float]]:
        """Label values at which an expression of this space jumps or has a kink."""
        exprs = [e.xreplace(_numbers(self.values)) for e in self._label_functions(index)]
        return breaks_of(exprs, [x.symbol for x in self.problem.spaces[index].labels])

    def _label_functions(self, index: int) -> list[Expr]:
        """Expressions in the labels of a space that enter the equation."""
        p = self.problem
        found = [v.xreplace({Z: S.One, ZBAR: S.One}) for i, _, v in p.bare if p.blocks[i] == index]
        found += [u.weight for u in p.unknowns if u.space == index]
        return found + [f.coefficient for f in p.feedback if p.blocks[f.row] == index]

    def _size(self) -> float:
        bare = max(float(np.abs(s.constant).max(initial=0.0)) for s in self.spaces)
        noise = max(float(np.abs(s.feedback).max(initial=0.0)) for s in self.spaces)
        return 1.0 + bare + self.count * noise + noise**0.5

    # -- the equation ----------------------------------------------------------------------------------------------
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

    def _response(self, G: list[Complex], sources: list[Complex]) -> Complex:
        """d(image) for d(matrix) = −source: rows u, columns m of ⟨w (𝒢 source_m 𝒢)_jk⟩; sources (m, nodes, b, b)."""
        out = np.zeros((len(G[0]), self.count, len(sources[0])), complex)
        for s, g, source in zip(self.spaces, G, sources, strict=True):
            for u, j, k, w in s.rows:
                pair = np.einsum("pni,pnl,n->pnil", g[:, :, j, :], g[:, :, :, k], w, optimize=False)
                out[:, u, :] += np.einsum("pnil,mnil->pm", pair, source, optimize=True)
        return out

    def jacobian(self, G: list[Complex]) -> Complex:
        """∂ image / ∂ scalars, (points, unknowns, unknowns)."""
        return self._response(G, [s.feedback for s in self.spaces])

    def by_parameter(self, G: list[Complex]) -> Complex:
        """∂ image / ∂ (z, z̄), (points, unknowns, 2)."""
        return self._response(G, [-np.stack([s.by_z, s.by_zbar]) for s in self.spaces])

    def trace_difference(self, G: list[Complex]) -> tuple[Complex, Complex, Complex]:
        """Tr 𝒢_upper − Tr 𝒢_lower with derivatives by the scalars and by (z, z̄)."""
        half = self.problem.half
        assert half is not None
        points = len(G[0])
        value, slope = np.zeros(points, complex), np.zeros((points, self.count), complex)
        drift = np.zeros((points, 2), complex)
        for s, g in zip(self.spaces, G, strict=True):
            signs = np.array([1.0 if b < half else -1.0 for b in s.blocks])
            w = s.fraction * s.weights
            value += np.einsum("pnii,i,n->p", g, signs, w)
            product = np.einsum("pnli,i,pnij,n->pnlj", g, signs, g, w, optimize=True)
            slope += np.einsum("pnlj,unjl->pu", product, s.feedback, optimize=True)
            drift -= np.einsum("pnlj,mnjl->pm", product, np.stack([s.by_z, s.by_zbar]), optimize=True)
        return value, slope, drift

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

    def resolvent_slope(self, G: list[Complex], dt: Complex, parameter: int) -> Complex:
        """dg along a change dt (points, unknowns) of the scalars with z (0) or z̄ (1)."""
        shift = self.problem.half or 0
        out = np.zeros(len(G[0]), complex)
        for h, weight in zip(self.problem.heads, self.head_weight, strict=True):
            index = self.problem.blocks[h]
            s, g = self.spaces[index], G[index]
            a, b = s.blocks.index(h + shift), s.blocks.index(h)
            change = np.einsum("ukij,pu->pkij", s.feedback, dt) - (s.by_z, s.by_zbar)[parameter]
            out += weight * np.einsum("pni,pnij,pnj,n->p", g[:, :, a, :], change, g[:, :, :, b], s.weights)
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
            G = self.propagators(t[active], z[active], eta)
            step = self._newton_step(t[active], G)
            good = np.all(np.isfinite(step), axis=1)
            size = np.abs(step).max(axis=1) / (1e-3 + np.abs(t[active]).max(axis=1))
            t[active[good]] += step[good]
            error[active] = np.where(good, size, np.inf)
            active = active[good & (size > tol)]
            if not len(active):
                break
        return t, error

    def _newton_step(self, t: Complex, G: list[Complex]) -> Complex:
        matrix = np.eye(self.count) - self.jacobian(G)
        rest = self.image(G) - t
        if self.problem.half is not None:
            value, slope, _ = self.trace_difference(G)
            matrix = np.concatenate([matrix, slope[:, None, :]], axis=1)
            rest = np.concatenate([rest, -value[:, None]], axis=1)
        return _solve(matrix, rest)

    def slope(self, t: Complex, z: Complex, parameter: int) -> tuple[list[Complex], Complex]:
        """Propagators, and dt/dz (parameter 0) or dt/dz̄ (1) at a solution with η = 0."""
        G = self.propagators(t, z, 0.0)
        matrix = np.eye(self.count) - self.jacobian(G)
        rest = self.by_parameter(G)[:, :, parameter]
        if self.problem.half is not None:
            _, slope, drift = self.trace_difference(G)
            matrix = np.concatenate([matrix, slope[:, None, :]], axis=1)
            rest = np.concatenate([rest, -drift[:, parameter, None]], axis=1)
        return G, _solve(matrix, rest) if self.count else np.zeros((len(z), 0), complex)

    def iterate(self, t: Complex, z: Complex, eta: float, steps: int) -> Complex:
        """Damped fixed point, with the traces of upper and lower blocks made equal after each step."""
        for _ in range(steps):
            t = (t + self.image(self.propagators(t, z, eta))) / 2
            if self.problem.half is not None and self.upper and self.lower:
                t = self.balance(t, z, eta)
        return t

    def balance(self, t: Complex, z: Complex, eta: float) -> Complex:
        """Scale upper scalars by s and lower ones by 1/s so that both traces agree."""
        half = self.problem.half
        assert half is not None
        G = self.propagators(t, z, eta)
        up, low = np.zeros(len(t)), np.zeros(len(t))
        for s, g in zip(self.spaces, G, strict=True):
            for k, b in enumerate(s.blocks):
                part = s.fraction * (g[:, :, k, k].imag @ s.weights)
                up, low = (up + part, low) if b < half else (up, low + part)
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

    def follow_eta(self, z: Complex, ratio: float = 0.2) -> tuple[Complex, Array, NDArray[np.bool_]]:
        """The positive solution of a doubled problem at η = 0.

        Returns
        -------
        t : (points, unknowns); scalars that vanish outside the support are exactly 0 there
        error : (points,), relative size of the last Newton step
        inside : (points,)
        """
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
            t = self.image(self.propagators(t, z + side * y, 0.0))
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

    def demand(self, error: Array, what: str) -> None:
        """Raise unless every point converged."""
        worst = float(np.max(error, initial=0.0))
        if not worst < 1e-6:
            raise ConvergenceError(f"{what}: Newton's iteration ended with a relative step of {worst:.1e}", error)


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
