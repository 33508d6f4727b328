"""The order 1/N with all conjugate fields kept: quadrature, finite differences and one matrix formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np
from sympy import Basic, S

from quenched.numerics.expansion import Expansion, monomial
from quenched.numerics.layers import March
from quenched.theory.expansion import QuadraticTerms
from quenched.theory.problem import U
from quenched.theory.problem_layers import FirstOrder, LayeredGaussian, LayerOutput
from quenched.theory.terms import Factor, Term
from quenched.validate.meaning import Array, Values, evaluate, number, relative

#: Layers after the first that the comparison takes, nodes a dimension and their reach, step of differences.
STEPS, NODES, REACH, STEP = 2, 37, 6.5, 0.03
_STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


def terms_deviation(
    terms: tuple[Term, ...], before: tuple[Term, ...], values: Values, rng: np.random.Generator
) -> float:
    """The second differential of the averaged exponent at random numbers against the quadratic form."""
    factors = sorted({f for t in (*before, *terms) for f in t.factors}, key=repr)
    if any(len(t.factors) != 2 for t in terms):
        return float("inf")
    point, slope = ({f: complex(*rng.normal(size=2)) for f in factors} for _ in range(2))

    def value(of: tuple[Term, ...], at: dict[Factor, complex]) -> complex:
        return complex(sum(number(t.coef, values) * complex(np.prod([at[f] for f in t.factors])) for t in of))

    def exponent(step: float) -> complex:
        return value(before, {f: point[f] + step * slope[f] for f in factors})

    second, found = (exponent(1.0) + exponent(-1.0) - 2 * exponent(0.0)) / 2, value(terms, slope)
    return relative(second, found)


def first_order_deviation(terms: QuadraticTerms, first: FirstOrder, values: Values) -> float | None:
    """V and the mean shifts of all overlaps of a three-layer network against the formulas with conjugate fields.

    None for networks with several outputs, memory of single units, or functions with kinks.
    """
    problem = _shared(replace(first.layered, steps=STEPS, samples=1, outputs=_one_sample(first.layered)))
    if not _simple(problem):
        return None
    march = March(problem, {s: values[s] for s in problem.parameters})
    (output,) = (o for o in problem.outputs if o.given is None)
    places = [((problem.states[0], S.One),)]
    observed = [
        monomial([(output.f, (places[0], a, 0)), (output.f, (places[0], b, 0))])
        for a in range(STEPS + 1)
        for b in range(a, STEPS + 1)
    ]
    expansion = Expansion(replace(first, layered=problem), march, observed)
    full = _full(terms, problem, tuple(values.items()))
    k = len(observed)
    scale = float(np.abs(full.covariance).max())
    return max(
        relative(expansion.covariance[:k, :k], full.covariance, scale), relative(expansion.shift[:k], full.shift, scale)
    )


@lru_cache(maxsize=4)  # the mutants of a step are compared with the same numbers
def _full(terms: QuadraticTerms, problem: LayeredGaussian, values: tuple[tuple[Basic, float], ...]) -> Full:
    numbers = dict(values)
    return Full(terms, problem, March(problem, {s: numbers[s] for s in problem.parameters}), numbers)


def _shared(p: LayeredGaussian) -> LayeredGaussian:
    """The same with disorder that all layers share: only there no term of the formulas vanishes."""
    covariance = tuple(replace(c, same=False) for c in p.covariance)
    return replace(p, covariance=covariance, sources=tuple(replace(s, fresh=False) for s in p.sources))


def _one_sample(problem: LayeredGaussian) -> tuple[LayerOutput, ...]:
    """Outputs with the overlap of the first sample only."""
    return tuple(o if o.given is None else replace(o, given=((o.given[0][0],),)) for o in problem.outputs)


def _simple(p: LayeredGaussian) -> bool:
    from sympy import Abs, Heaviside, Max, Min, Piecewise, sign

    hidden = [o for o in p.outputs if o.given is None]
    plain = len(p.states) == 1 and len(hidden) == 1 and not p.remembers and not p.mean and not hidden[0].factor
    return (
        plain
        and hidden[0].argument == ((p.states[0], S.One),)
        and not hidden[0].f.expr.has(Abs, Heaviside, Max, Min, Piecewise, sign)
        and not any(s.mean != 0 for s in p.sources)
    )


class Full:
    """Order parameters Q_ab = ⟨ψ(a)ψ(b)⟩ and K_ab = ⟨ĥ(a)ĥ(b)⟩ of a network with one state and one output.

    Attributes
    ----------
    covariance, shift : N·Cov and N·(mean − limit) of the Q_ab
    """

    def __init__(self, terms: QuadraticTerms, problem: LayeredGaussian, march: March, values: Values) -> None:
        layers = range(STEPS + 1)
        self.pairs = [(a, b) for a in layers for b in layers if a <= b]
        self.events = [(a, b) for a, b in self.pairs if b < STEPS]
        state = problem.states[0]
        self.base = np.array([[march.covariance(state, state, a, b)[0, 0] for b in layers] for a in layers])
        (output,) = (o for o in problem.outputs if o.given is None)
        self.psi = lambda u: np.asarray(evaluate(output.f.expr, {**values, U: u}), dtype=float)
        self.gain = {e: march.row(state, e).get(self._local(problem, output.name), 0.0) for e in range(STEPS)}
        self.weight = self._coupling(terms, output.name, values)
        self.step = min(STEP, float(np.linalg.eigvalsh(self.base)[0]) / 12)
        self._solve()

    @staticmethod
    def _local(problem: LayeredGaussian, output: str) -> str:
        return next(c.u for c in problem.covariance if c.first == output)

    @staticmethod
    def _coupling(terms: QuadraticTerms, output: str, values: Values) -> float:
        """Coefficient of ⟨ĥĥ'⟩⟨ψψ'⟩, for ordered pairs of copies."""
        for term in terms.terms:
            names = {a for f in term.factors for a, _ in f.atoms}
            if output in names:
                return number(term.coef, values).real
        return 0.0

    # -- averages at a covariance of (h(0), h(1), h(2))
    def averages(self, cov: Array) -> tuple[Array, Array]:
        """⟨ψ(a)ψ(b)⟩ and the covariances of these products, by a three-dimensional rule."""
        x = np.linspace(-REACH, REACH, NODES)  # the trapezoidal rule, exponentially accurate for smooth functions
        w = np.exp(-(x**2) / 2)
        w = w / w.sum()
        grid = np.array([g.ravel() for g in np.meshgrid(x, x, x, indexing="ij")])
        weight = np.prod([g.ravel() for g in np.meshgrid(w, w, w, indexing="ij")], axis=0)
        keep = weight > 1e-14
        values = self.psi(np.linalg.cholesky(cov) @ grid[:, keep])
        products = np.array([values[a] * values[b] for a, b in self.pairs])
        means = products @ weight[keep]
        return means, (products * weight[keep]) @ products.T - np.outer(means, means)

    def _moved(self, steps: dict[tuple[int, int], float]) -> Array:
        """The covariance of the units when covariances of local fields at two events move."""
        cov = self.base.copy()
        for (a, b), step in steps.items():
            change = step * self.gain[a] * self.gain[b]
            cov[a + 1, b + 1] += change
            if a != b:
                cov[b + 1, a + 1] += change
        return cov

    def _slope(self, event: tuple[int, int], f: Callable[[Array], Array]) -> Array:
        """−⟨…; ĥ(a)ĥ(b)⟩: the derivative by Cov(h(a), h(b)), twice it at equal events."""
        total = sum(w * f(self._moved({event: k * self.step})) for k, w in _STENCIL) / self.step
        return np.asarray(total) * (2 if event[0] == event[1] else 1)

    def _second(self, one: tuple[int, int], two: tuple[int, int], f: Callable[[Array], Array]) -> Array:
        total: Array | float = 0.0
        for (k, w), (l, v) in product(_STENCIL, repeat=2):
            moves = {one: k * self.step}
            moves[two] = moves.get(two, 0.0) + l * self.step
            total = total + w * v * f(self._moved(moves))
        factor = (2 if one[0] == one[1] else 1) * (2 if two[0] == two[1] else 1)
        return np.asarray(total) * factor / self.step**2

    def _solve(self) -> None:
        n, m = len(self.pairs), len(self.events)
        size = n + m
        hessian, sigma = np.zeros((size, size)), np.zeros((size, size))
        kappa = np.zeros((size, size, size))
        for k, (a, b) in enumerate(self.events):
            j = self.pairs.index((a, b))
            hessian[j, n + k] = hessian[n + k, j] = self.weight * (1 if a == b else 2)
        sigma[:n, :n] = self.averages(self.base)[1]
        for k, one in enumerate(self.events):
            slopes = -self._slope(one, lambda c: self.averages(c)[0])
            sigma[:n, n + k] = sigma[n + k, :n] = slopes
            pull = -self._slope(one, lambda c: self.averages(c)[1])
            kappa[:n, :n, n + k] = kappa[:n, n + k, :n] = kappa[n + k, :n, :n] = pull
            for l, two in enumerate(self.events):
                bend = self._second(one, two, lambda c: self.averages(c)[0])
                kappa[:n, n + k, n + l] = kappa[n + k, :n, n + l] = kappa[n + k, n + l, :n] = bend
        inner = np.linalg.inv(np.eye(size) - hessian @ sigma)
        self.covariance = (sigma @ inner)[:n, :n]
        force = 0.5 * np.einsum("ijk,jk->i", kappa, inner @ hessian)
        self.shift = (inner.T @ force)[:n]


__all__ = ["first_order_deviation", "terms_deviation"]
