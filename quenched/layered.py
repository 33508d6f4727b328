"""Solutions over layers: kernels, fluctuations and mean shifts of a network of finitely many steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sympy import Dummy, Expr, Symbol, lambdify

from quenched.readout import Quantity
from quenched.solution import Branch, Solution
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import Quenched
from quenched.theory.layered import combination
from quenched.theory.naming import field_names
from quenched.theory.observables import Fluctuation, Functional, Mean, Posterior, Shift
from quenched.theory.placed import Factor, is_curve, observables_of, products

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from quenched.numerics.expansion import Expanded, Monomial
    from quenched.numerics.layers import March
    from quenched.theory.layers import Layers
    from quenched.theory.problem import SiteFunction
    from quenched.theory.problem_layers import LayeredGaussian
    from quenched.theory_object import Theory

Array = NDArray[np.float64]


class LayeredSolution(Solution):
    """Kernels of a network of finitely many layers.

    Attributes
    ----------
    march : quenched.numerics.layers.March
        What computes covariances on demand.
    """

    march: March

    def kernel(self, layer: int, other: int | None = None, output: str | None = None) -> Array:
        """⟨ψ(layer) ψ(other)⟩ over pairs of samples, (M, M), of an output that couplings read (the first by default).

        With equal layers (the default) this is the kernel of the neural-network Gaussian process.
        """
        p = self.march.problem
        names = [o.name for o in p.outputs if o.given is None]
        name = output or names[0]
        if name not in names:
            raise QuenchedError(f"no output {name!r}: {nearest(name, names)}")
        places = [_layer(p, a) for a in (layer, layer if other is None else other)]
        self.march.fill(*places)
        return self.march.overlap(name, name, *places)

    def covariance(self, layer: int, other: int | None = None, field: str | None = None) -> Array:
        """Cov(x(layer), x(other)) over pairs of samples, (M, M), of a field (the first by default)."""
        p = self.march.problem
        name = field or p.states[0]
        if name not in p.states:
            raise QuenchedError(f"no field {name!r}: {nearest(name, list(p.states))}")
        places = [_layer(p, a) for a in (layer, layer if other is None else other)]
        self.march.fill(*places)
        return self.march.covariance(name, name, *places)

    def plot(self, names: list[str] | None = None) -> Figure:
        """Kernels of equal layers against the layer, one line for each pair of the first samples."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axis = figure.subplots()
        layers = range(self.march.problem.steps + 1)
        for j in range(min(self.march.samples, 4)):
            axis.plot(layers, [self.kernel(a)[0, j] for a in layers], "o-", label=f"samples 1 and {j + 1}")
        axis.set(xlabel="layer", ylabel="kernel")
        axis.legend()
        return figure


def _layer(p: LayeredGaussian, layer: int) -> int:
    if not 0 <= layer <= p.steps:
        raise QuenchedError(f"layer {layer}: expected a number from 0 to {p.steps}")
    return layer


class LayeredBranch(Branch):
    """The one state of a network of finitely many layers, which its declared start fixes."""

    reader: Reader

    def limit(self, name: str) -> Quantity:
        """What the observable ``Shift(expr)`` is the shift of: expr as N → ∞."""
        expr = self.reader.observables[name]
        return self.reader.plain(expr.args[0])

    def __repr__(self) -> str:
        return f"{self.label}: {', '.join(self.names)}"


def solve_layers(theory: Theory, values: Mapping[Any, float]) -> LayeredSolution:
    """March over the layers at given parameters."""
    from quenched.numerics.layers import March
    from quenched.theory.layers import Layers

    assert isinstance(theory.model, Layers)
    march = March(theory.layered, values)
    reader = Reader(theory.model, march, theory)
    none = Quantity(0.0, 0.0)
    branch = LayeredBranch("layers", "march", True, none, reader.names, reader.quantity, rms=reader.scale)
    branch.reader = reader
    given = {str(k): float(v) for k, v in values.items()}
    solution = LayeredSolution([branch], 0, given, Solution.provenance_of(theory) | {"method": "march over layers"})
    solution.march = march
    return solution


class Reader:
    """Observables of a marched network, by name."""

    def __init__(self, model: Layers, march: March, theory: Theory) -> None:
        self.model, self.march, self.theory = model, march, theory
        self._orders: dict[Any, Expanded] = {}

    @cached_property
    def names(self) -> list[str]:
        """The declared observables, or the standard ones where none is declared."""
        return list(self.observables)

    @cached_property
    def observables(self) -> dict[str, Expr]:
        """Names and expressions."""
        return observables_of(self.model)

    def quantity(self, name: str) -> Quantity:
        """A declared observable.

        Raises
        ------
        NotCovered
            A functional that layers do not have, or an average of more than two quantities.
        """
        expr = self.observables[name]
        if isinstance(expr, Fluctuation):
            return self.fluctuation(expr.args[0])
        if isinstance(expr, Shift):
            return self.shift(expr.args[0])
        if isinstance(expr, Posterior):
            return self.plain(expr.args[0])
        return self.plain(expr)

    def scale(self, name: str) -> tuple[float, str] | None:
        """What errors of an observable are relative to where it is small."""
        expr = self.observables[name]
        if isinstance(expr, Shift):
            spread = self.fluctuation(expr.args[0])
            return float(np.max(np.sqrt(np.abs(spread.value)))), "standard deviation √(N·Var) of what is shifted"
        if isinstance(expr, (Fluctuation, Posterior)) or not isinstance(expr, Mean):
            return None
        try:
            size = self._size(expr)
        except NotCovered:
            return None
        return size, "geometric mean of the squares of its factors"

    def _size(self, node: Mean) -> float:
        """√(⟨f²⟩⟨g²⟩) of an overlap ⟨f g⟩, the largest over its terms."""
        sizes = []
        for product in products(node, self.model, 0):
            squares = [self._average([Factor(f.body**2, f.layer, f.sample)]) for f in product.factors]
            power = 0.5 if len(squares) < 3 else 1.0 / len(squares)
            sizes.append(abs(self.number(product.coefficient)) * float(np.prod([s**power for s in squares])))
        return max(sizes, default=0.0)

    # -- expressions in averages
    def plain(self, expr: Expr) -> Quantity:
        """An expression in averages as N → ∞; a curve over layers where it names none."""
        if wrong := sorted(expr.atoms(Functional), key=str):
            raise NotCovered(f"{type(wrong[0]).__name__} inside an expression is not built yet: observe it by itself")
        layers = range(self.problem.steps + 1) if is_curve(expr) else [None]
        values = np.array([self._value(expr, at) for at in layers])
        error = np.full(len(values), 20 * self.march.error + 1e-15 * np.max(np.abs(values), initial=0))
        if layers == [None]:
            return Quantity(float(values[0]), float(error[0]))
        return Quantity(values, error, "layer", np.arange(len(values), dtype=float))

    @property
    def problem(self) -> LayeredGaussian:
        return self.march.problem

    def number(self, expr: Expr) -> float:
        """A constant factor."""
        return float(expr.subs(self.march.values))

    def _value(self, expr: Expr, at: int | None) -> float:
        found: float = self._function(expr, at)[0](*[self._mean(node, at) for node in _means(expr)])
        return float(found)

    def _function(self, expr: Expr, at: int | None) -> tuple[Any, list[Symbol], Expr]:
        from quenched.theory.spaces import t

        nodes = _means(expr)
        slots = [Dummy() for _ in nodes]
        flat = expr.xreplace(dict(zip(nodes, slots, strict=True))).subs({**self.march.values, t: at or 0})
        return lambdify(slots, flat, "numpy"), slots, flat

    def _mean(self, node: Mean, at: int | None) -> float:
        total = 0.0
        for product in products(node, self.model, at):
            total += self.number(product.coefficient) * self._average(list(product.factors))
        return total

    def _average(self, factors: list[Factor]) -> float:
        """⟨Π factors⟩ of at most two places."""
        sites = [(*self.site(f), f.layer, f.sample) for f in factors]
        march = self.march
        for _, _, layer, _ in sites:
            march.fill(layer, layer)
        match sites:
            case []:
                return 1.0
            case [(f, u, a, i)]:
                m = march.combined_mean(u, a)[i]
                v = march.combined(u, u, a, a)[i, i]
                return float(march.average(f, np.array([m]), np.array([v]), a)[0])
            case [(f, u, a, i), (g, w, b, j)]:
                march.fill(a, b)
                slots = (
                    march.combined_mean(u, a)[i],
                    march.combined_mean(w, b)[j],
                    march.combined(u, u, a, a)[i, i],
                    march.combined(w, w, b, b)[j, j],
                    march.combined(u, w, a, b)[i, j],
                )
                value, error = march.pair(f, g, a, b)(*(np.array([x]) for x in slots))
                march.error = max(march.error, float(error[0]))
                return float(value[0])
            case _:
                raise NotCovered(f"an average of {len(sites)} quantities at different places: at most two are covered")

    def site(self, factor: Factor) -> tuple[SiteFunction, tuple[tuple[str, Expr], ...]]:
        """A factor as a function of one Gaussian argument."""
        names = {f: n for f, n in field_names(self.model).items() if factor.body.has(f)}
        if stray := sorted(factor.body.atoms(Quenched), key=str):
            raise NotCovered(f"{factor.body} contains the disorder {stray[0]}: not built yet in observables of layers")
        like = next((o for o in self.problem.outputs if o.given is None and not o.factor), None)
        found, weights = combination("f", factor.body, dict(names))
        if like is not None and (found.expr, weights) == (like.f.expr, like.argument):
            return like.f, weights
        same = next((o for o in self.problem.outputs if (o.f.expr, o.argument) == (found.expr, weights)), None)
        return (same.f if same is not None else found), weights

    # -- the order 1/N
    def fluctuation(self, expr: Expr) -> Quantity:
        """N·Var of an expression in averages."""
        return self._first_order(expr, "fluctuation")

    def shift(self, expr: Expr) -> Quantity:
        """N·(mean − limit) of an expression in averages."""
        return self._first_order(expr, "shift")

    def _first_order(self, expr: Expr, kind: str) -> Quantity:
        layers = range(self.problem.steps + 1) if is_curve(expr) else [None]
        pairs = [getattr(self, f"_{kind}")(expr, at) for at in layers]
        if layers == [None]:
            return Quantity(*pairs[0])
        values, errors = np.array(pairs).T
        return Quantity(values, errors, "layer", np.arange(len(values), dtype=float))

    def _fluctuation(self, expr: Expr, at: int | None) -> tuple[float, float]:
        order, slope, _ = self._linearised(expr, at)
        error = np.abs(slope) @ order.covariance_error @ np.abs(slope)
        value = float(slope @ order.covariance @ slope)
        return value, float(error) + 1e-9 * abs(value)

    def _shift(self, expr: Expr, at: int | None) -> tuple[float, float]:
        order, slope, bend = self._linearised(expr, at)
        value = slope @ order.shift + 0.5 * np.sum(bend * order.covariance)
        error = np.abs(slope) @ order.shift_error + 0.5 * np.sum(np.abs(bend) * order.covariance_error)
        return float(value), float(error) + 1e-9 * float(np.sqrt(np.abs(slope @ order.covariance @ slope)))

    def _linearised(self, expr: Expr, at: int | None) -> tuple[Expanded, Array, Array]:
        """The order 1/N of all products in an expression, its gradient and its second derivatives in them."""
        from quenched.numerics.expansion import expand

        nodes = _means(expr)
        _, slots, flat = self._function(expr, at)
        rows = [self._monomials(node, at) for node in nodes]
        known = list(dict.fromkeys(m for row in rows for m in row))
        key = tuple(known)
        if key not in self._orders:
            for m in known:
                for _, (_, a, _) in m:
                    for _, (_, b, _) in m:
                        self.march.fill(a, b)
            self._orders[key] = expand(self.theory.order_one_over_n, self.march, known)
        order = self._orders[key]
        weights = np.array([[row.get(m, 0.0) for m in known] for row in rows])
        here = dict(zip(slots, [self._mean(node, at) for node in nodes], strict=True))
        first = np.array([float(flat.diff(s).subs(here)) for s in slots])
        second = np.array([[float(flat.diff(s, r).subs(here)) for s in slots] for r in slots])
        return order, first @ weights, weights.T @ second @ weights

    def _monomials(self, node: Mean, at: int | None) -> dict[Monomial, float]:
        from quenched.numerics.expansion import monomial

        out: dict[Monomial, float] = {}
        for product in products(node, self.model, at):
            sites = [(self.site(f), f) for f in product.factors]
            key = monomial([(function, (weights, f.layer, f.sample)) for (function, weights), f in sites])
            out[key] = out.get(key, 0.0) + self.number(product.coefficient)
        return out


def _means(expr: Expr) -> list[Mean]:
    return sorted(expr.atoms(Mean), key=str)
