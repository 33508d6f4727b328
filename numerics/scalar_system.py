"""Solve closed equations of a resolvent and its auxiliary scalars, from z far out inwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sympy import Expr, Float, Symbol, lambdify

from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.problem_dyson import Z
from quenched.theory.problem_scalars import LabelMean, ScalarProblem

from .dyson import Complex, Dyson

#: Factor between heights of the continuation, and the relative Newton step at which it ends.
RATIO = 0.6
TOLERANCE = 1e-13


class ScalarSolver:
    """Equations residual(unknowns, z) = 0 with values of their parameters.

    Parameters
    ----------
    form : ScalarProblem
    dyson : Dyson
        Gives labels, their nodes and weights, and the values of parameters.
    """

    def __init__(self, form: ScalarProblem, dyson: Dyson) -> None:
        unknowns, residuals, z = form.unknowns, form.residuals, Z
        self.count = len(unknowns)
        self.large = [unknowns.index(s) for s in form.large]
        self.scale = dyson.scale
        numbers = {s: Float(v) for s, v in dyson.values.items()}
        self.functions = [self._compiled(r.xreplace(numbers), [*unknowns, z], dyson) for r in residuals]

    def _compiled(self, residual: Expr, arguments: list[Symbol], dyson: Dyson) -> Callable[..., Any]:
        means = sorted(residual.atoms(LabelMean), key=str)
        names = [Symbol(f"mean_{k}") for k in range(len(means))]
        outer = lambdify([*arguments, *names], residual.xreplace(dict(zip(means, names, strict=True))), "numpy")
        inner = [self._average(m.body, arguments, dyson) for m in means]
        return lambda *values: outer(*values, *(f(*values) for f in inner))

    @staticmethod
    def _average(body: Expr, arguments: list[Symbol], dyson: Dyson) -> Callable[..., Any]:
        for index, space in enumerate(dyson.problem.spaces):
            labels = [x.symbol for x in space.labels]
            if set(labels) & body.free_symbols:
                function = lambdify([*arguments, *labels], body, "numpy")
                nodes, weights = dyson.nodes[index].nodes.T, dyson.nodes[index].weights
                return lambda *values: np.sum(weights * function(*values, *nodes))
        raise NotCovered(f"no population of the Dyson equation carries the labels of {body}")

    def residual(self, x: Complex, z: complex) -> Complex:
        """All residuals at one point."""
        return np.array([f(*x, z) for f in self.functions], complex)

    def newton(self, x: Complex, z: complex, steps: int = 60) -> tuple[Complex, float]:
        """Newton's iteration with derivatives from differences; the relative size of the last step."""
        error = np.inf
        for _ in range(steps):
            here = self.residual(x, z)
            slope = np.empty((self.count, self.count), complex)
            for k in range(self.count):
                step = 1e-6 * (1e-9 + abs(x[k]))
                up, down = x.copy(), x.copy()
                up[k] += step
                down[k] -= step
                slope[:, k] = (self.residual(up, z) - self.residual(down, z)) / (2 * step)
            if not (np.all(np.isfinite(slope)) and np.all(np.isfinite(here))):
                return x, np.inf
            move = np.linalg.lstsq(slope, -here, rcond=None)[0]
            x = x + move
            error = float(np.max(np.abs(move) / (1e-12 + np.abs(x))))
            if error < TOLERANCE:
                break
        return x, error

    def solve(self, z: ArrayLike) -> Complex:
        """The unknowns at points off the real axis (real ones count as above it), (…, unknowns).

        Raises
        ------
        ConvergenceError
            An equation was not solved.
        """
        points = np.asarray(z, complex)
        found = np.array([self._inwards(complex(p)) for p in points.reshape(-1)])
        return found.reshape(*points.shape, self.count)

    def _inwards(self, z: complex) -> Complex:
        side, height = (1j if z.imag >= 0 else -1j), 1e3 * self.scale
        start = z + side * height
        x = np.full(self.count, 1 / start)
        x[self.large] = start
        x, error = self.newton(x, start)
        while height > 1e-9 * self.scale:
            height *= RATIO
            x, error = self.newton(x, z + side * height)
            if not error < 1e-6:
                raise ConvergenceError(f"the scalar equations lose their solution at z = {z + side * height:.4g}", [])
        x, error = self.newton(x, z if z.imag else z + 1e-12j * self.scale)
        if not error < 1e-8:
            raise ConvergenceError(f"the scalar equations at z = {z:.4g}: last step {error:.1e}", [])
        return x
