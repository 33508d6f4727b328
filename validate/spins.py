"""Gibbs measures at finite N, from the declaration alone: exact enumeration of states, and heat-bath sampling.

`Instance` draws the disorder and evaluates the declared energy and weights on given states. It shares nothing with the
derivation, so that theory and samples meet only in their results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Dummy, Expr, lambdify

from quenched.theory.couplings import Apply, Transpose
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Field, UnitSymbol
from quenched.theory.gibbs import Gibbs
from quenched.theory.landscape import Height
from quenched.theory.observables import Mean
from quenched.theory.spaces import N as SIZE
from quenched.validate.generate import label
from quenched.validate.quantities import Numbers, matrix_spec
from quenched.validate.random_functions import draw, function_spec
from quenched.validate.sampling import sample_law, sample_matrices, stream

Array = NDArray[np.float64]

#: States of all units beyond which enumeration is refused.
MOST_STATES = 2**16


class Instance:
    """One draw of the disorder of a measure.

    Parameters
    ----------
    model : Gibbs
    N : reference size
    seed, realisation : of the disorder
    params, **values : parameter values

    Attributes
    ----------
    sizes : field → number of its units
    matrices : name → array (rows, cols)
    functions : landscape → drawn random function
    """

    def __init__(
        self,
        model: Gibbs,
        N: int,
        seed: int = 0,
        realisation: int = 0,
        params: Mapping[Any, float] | None = None,
        **values: float,
    ) -> None:
        self.model, self.N = model, N
        self.seed = (seed, realisation)
        self.values = model.values(params, **values)
        numbers = Numbers(self.values, N)
        self.numbers = numbers
        self.sizes = {f: numbers.size(f.population)[1] for f in model.fields}
        self.matrices = sample_matrices(
            [matrix_spec(m, numbers) for m in model.matrices], lambda name: stream(seed, N, realisation, name)
        )
        self.labels = {
            q: sample_law(stream(seed, N, realisation, q.name), (numbers.size(q.population)[1],), numbers.law(q.law))
            for q in model.quenched
        }
        specs = {v: function_spec(v, population, numbers) for v, population in model.landscapes.items()}
        self.functions = {
            v: draw(spec, stream(seed, N, realisation, f"function:{v.name}")) for v, spec in specs.items()
        }
        self.beta = numbers(model.beta)
        self._compiled: dict[Expr, tuple[list[Any], Any]] = {}

    # -- the declared exponent -------------------------------------------------------------------------------
    def energy(self, states: dict[Field, Array]) -> Array:
        """Energy of states (…, units), shape (…)."""
        batch = next(iter(states.values())).shape[:-1]
        return np.broadcast_to(self._value(self.model.energy, states), (*batch, 1))[..., 0]

    def log_weight(self, states: dict[Field, Array]) -> Array:
        """−beta·energy + Σ ln weight, shape (…); −∞ where a weight vanishes."""
        total = -self.beta * self.energy(states)
        for weight in self.model.weights:
            with np.errstate(divide="ignore"):
                total = total + np.log(self._value(weight, states)).sum(-1)
        return total

    def _value(self, expr: Expr, states: dict[Field, Array]) -> Array:
        """An expression on states; the last axis is the unit index (length 1 where there is none)."""
        if expr not in self._compiled:
            swap = {node: Dummy() for node in _outer(expr)}
            plain = expr.xreplace(swap).subs({**self.values, SIZE: self.N})
            self._compiled[expr] = list(swap), lambdify(list(swap.values()), plain, _MODULES)
        nodes, function = self._compiled[expr]
        return np.asarray(function(*(self._node(node, states) for node in nodes)), float)

    def _node(self, node: Any, states: dict[Field, Array]) -> Array:
        if isinstance(node, UnitSymbol):
            bare = node.free()
            return states[bare] if bare in states else self.labels[bare]
        if isinstance(node, Height):
            return self.functions[node.landscape](states[node.field])
        body = self._value(node.args[1] if isinstance(node, Apply) else node.body, states)
        if isinstance(node, Mean):
            return body.mean(-1, keepdims=True)
        atom = node.matrix.matrix if isinstance(node.matrix, Transpose) else node.matrix
        matrix = self.matrices[label(atom)]
        return body @ (matrix if isinstance(node.matrix, Transpose) else matrix.T)

    # -- all states ------------------------------------------------------------------------------------------
    def enumerate(self) -> Exact:
        """Sums over all states of a measure with finitely many values per unit.

        Raises
        ------
        QuenchedError
            Too many states, or a prior that is not a finite set.
        """
        (field,) = self._single()
        atoms = self.model.priors[field].weights()
        count = len(atoms) ** self.sizes[field] if atoms else 0
        if not 0 < count <= MOST_STATES:
            raise QuenchedError(f"enumeration of {field}: {count or 'infinitely many'} states, at most {MOST_STATES}")
        values = [self.numbers(a) for a, _ in atoms]
        prior = np.log([self.numbers(p) for _, p in atoms])
        index = np.array(list(product(range(len(atoms)), repeat=self.sizes[field])))
        states = {field: np.array(values)[index]}
        exponent = self.log_weight(states) + prior[index].sum(1)
        top = exponent.max()
        if top == -np.inf:
            return Exact(-np.inf, np.nan, np.full(self.sizes[field], np.nan), exponent)
        p = np.exp(exponent - top)
        z = p.sum()
        p /= z
        return Exact(float(top + np.log(z)), float(p @ self.energy(states)), p @ states[field], exponent)

    def _single(self) -> tuple[Field]:
        if len(self.model.fields) != 1:
            raise NotCovered("enumeration and sampling take measures of one field")
        return (self.model.fields[0],)

    # -- pair energies ---------------------------------------------------------------------------------------
    def pair_form(self) -> tuple[Array, Array]:
        """(A, h) with energy = const − ½ s·As − h·s on ±1 states (A without diagonal), found by differences.

        Raises
        ------
        NotCovered
            If the energy is not of that form, or there are weights besides it.
        """
        (field,) = self._single()
        size = self.sizes[field]
        if self.model.weights or str(self.model.priors[field]) != "Ising()":
            raise NotCovered("heat-bath sampling takes ±1 states with a quadratic energy and no weight")
        eye = np.eye(size)
        zero = self.energy({field: np.zeros((1, size))})[0]
        single = self.energy({field: eye}) - zero
        pairs = np.stack([self.energy({field: eye + eye[j]}) for j in range(size)]) - zero
        pairs -= single[:, None] + single[None, :]
        twice = np.diag(pairs).copy()
        np.fill_diagonal(pairs, 0.0)
        linear = single - twice / 2
        s = np.sign(stream(*self.seed[:1], self.N, self.seed[1], "probe").standard_normal((3, size)))
        quadratic = 0.5 * np.einsum("ki,ij,kj->k", s, pairs, s) + s @ linear + twice.sum() / 2 + zero
        if not np.allclose(quadratic, self.energy({field: s}), rtol=1e-8, atol=1e-8 * size):
            raise NotCovered("the energy is not quadratic in the states")
        return -pairs, -linear


class Counted(Instance):
    """An instance whose means divide by the declared number of units, whole or not: sums are then sums in both."""

    def _node(self, node: Any, states: dict[Field, Array]) -> Array:
        found = super()._node(node, states)
        if not isinstance(node, Mean):
            return found
        declared, used = self.numbers.size(node.population)
        return np.asarray(found * used / declared)


_MODULES = [{"Heaviside": lambda x, half=0.5: np.heaviside(x, half)}, "scipy", "numpy"]


@dataclass(frozen=True)
class Exact:
    """Exact sums over states: ln Z relative to the prior, mean energy, mean state of every unit, ln p of all states."""

    log_z: float
    energy: float
    mean: Array
    exponents: Array


def _outer(expr: Expr) -> list[Any]:
    """Outermost sums and unit quantities of an expression."""
    if isinstance(expr, (Apply, Mean, Height, UnitSymbol)):
        return [expr]
    return list(dict.fromkeys(n for arg in expr.args if isinstance(arg, Expr) for n in _outer(arg)))


@dataclass(frozen=True)
class Sampled:
    """Heat-bath averages of realisations.

    Attributes
    ----------
    energy, m, q : arrays (trials,)
        Energy per unit, mean state, overlap of two independent runs with the same disorder.
    drift : array (trials,)
        Energy of the second half minus that of the first half, over their mean: 0 within errors once equilibrated.
    """

    energy: Array
    m: Array
    q: Array
    drift: Array


def heat_bath(
    model: Gibbs,
    N: int,
    trials: int,
    sweeps: int,
    seed: int = 0,
    params: Mapping[Any, float] | None = None,
    **values: float,
) -> Sampled:
    """Two heat-bath runs for every draw of the disorder; the first fifth of the sweeps is left out.

    Raises
    ------
    NotCovered
        For anything but ±1 states with a quadratic energy.
    """
    run = _kernel()
    rows = []
    for k in range(trials):
        instance = Instance(model, N, seed, k, params, **values)
        a, h = instance.pair_form()
        constant = _constant(instance, a, h)
        rows.append(run(a, h, instance.beta, sweeps, sweeps // 5, stream(seed, N, k, "heat bath"), constant))
    energy, m, q, drift = np.array(rows).T
    return Sampled(energy, m, q, drift)


def _constant(instance: Instance, a: Array, h: Array) -> float:
    ones = np.ones((1, len(h)))
    (field,) = instance._single()
    return float(instance.energy({field: ones})[0] + 0.5 * a.sum() + h.sum())


def _kernel() -> Any:
    """The compiled sampler (compiled once a process)."""
    if "run" not in _COMPILED:
        import numba

        _COMPILED["run"] = numba.njit(cache=True)(_run)
    return _COMPILED["run"]


_COMPILED: dict[str, Any] = {}


def _run(
    a: Array, h: Array, beta: float, sweeps: int, burn: int, rng: np.random.Generator, constant: float
) -> tuple[float, float, float, float]:
    """(energy per unit, mean, overlap, drift) of two replicas; local fields are kept up to date."""
    n = len(h)
    s = np.empty((2, n))
    local = np.empty((2, n))
    for r in range(2):
        for i in range(n):
            s[r, i] = 1.0 if rng.random() < 0.5 else -1.0
        local[r] = h + a @ s[r]
    totals = np.zeros(3)
    halves = np.zeros(2)
    kept = sweeps - burn
    for sweep in range(sweeps):
        for r in range(2):
            for i in range(n):
                up = 1.0 / (1.0 + np.exp(-2.0 * beta * local[r, i]))
                new = 1.0 if rng.random() < up else -1.0
                if new != s[r, i]:
                    s[r, i] = new
                    for j in range(n):
                        local[r, j] += 2.0 * new * a[j, i]
        if sweep >= burn:
            e = 0.0
            for r in range(2):
                for i in range(n):
                    e -= 0.25 * s[r, i] * (local[r, i] + h[i])
                    totals[1] += 0.5 * s[r, i] / n
            for i in range(n):
                totals[2] += s[0, i] * s[1, i] / n
            e = (e + constant) / n
            totals[0] += e
            halves[0 if sweep - burn < kept // 2 else 1] += e
    first, second = halves[0] / (kept // 2), halves[1] / (kept - kept // 2)
    mean = totals[0] / kept
    return mean, totals[1] / kept, totals[2] / kept, (second - first) / mean
