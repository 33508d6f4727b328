"""The problem of a map that runs finitely many steps: Gaussian units over (step, sample).

Copies are I = (a, α), layer a = 0 … `steps` and sample α. Couplings and unit disorder act at *events*: the start, and
the reading of layer a on the way to layer a + 1. What is drawn afresh is independent between different events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sympy import Expr, Symbol

from quenched.theory.problem import SiteFunction
from quenched.theory.spaces import t

#: Number of the layer that is read, in coefficients that depend on depth.
TIME = t
#: Numbers of two layers; symbols in printed equations.
LAYER_A, LAYER_B = Symbol("a", integer=True, nonnegative=True), Symbol("b", integer=True, nonnegative=True)


@dataclass(frozen=True)
class Source:
    """A Gaussian input of a unit that is not a local field: a bias, a noise, a random start.

    Attributes
    ----------
    population : its population
    mean, variance : expressions in the parameters
    fresh : independent between events
    each : independent between samples
    """

    name: str
    population: str
    mean: Expr
    variance: Expr
    fresh: bool
    each: bool


@dataclass(frozen=True)
class LayerOutput:
    """What couplings read at an event: f(u), or v·f(u), of Gaussian arguments u, v.

    Attributes
    ----------
    f : the function of the first argument
    argument, factor : linear combinations (quantity, weight) of states, local fields and sources of one unit
    given : the overlaps of vectors that are known by them only (then f and argument do not matter)
    slopes : first and second derivative of f, of an output with a factor
    """

    name: str
    population: str
    f: SiteFunction
    argument: tuple[tuple[str, Expr], ...]
    factor: tuple[tuple[str, Expr], ...] = ()
    given: tuple[tuple[Any, ...], ...] | None = None
    slopes: tuple[SiteFunction, ...] = ()


@dataclass(frozen=True)
class Coupled:
    """Cov(u, v) of two local fields contains coef·⟨first second⟩ of outputs, at equal events only if `same`."""

    u: str
    v: str
    coef: Expr
    first: str
    second: str
    same: bool


@dataclass(frozen=True)
class LayeredGaussian:
    """Gaussian units over finitely many steps and several samples.

    With inputs ι = (local fields, sources) and all coefficients at t = a,

        x_i(a+1) = Σ_j memory[i][j] x_j(a) + Σ_p feed[i][p] ι_p(a) + constant[i],   x_i(0) = Σ_p start[i][p] ι_p + …

    Attributes
    ----------
    parameters : symbols that need values
    steps, samples : numbers of steps and of samples
    states, locals : names; `population` of each
    sources : the other Gaussian inputs
    memory, feed, constant : as above, expressions in `t` and the parameters
    start, start_constant : the same for layer 0
    outputs : what couplings read
    covariance, mean : of the local fields; `mean` entries are (local field, coefficient, output)
    closed : (output, output) → ⟨first second⟩ in the slots of `theory.problem`, where a rule gives it
    fractions : population → its share
    """

    parameters: tuple[Symbol, ...]
    steps: int
    samples: int
    states: tuple[str, ...]
    locals: tuple[str, ...]
    sources: tuple[Source, ...]
    population: dict[str, str] = field(hash=False)
    memory: tuple[tuple[Expr, ...], ...]
    feed: tuple[tuple[Expr, ...], ...]
    constant: tuple[Expr, ...]
    start: tuple[tuple[Expr, ...], ...]
    start_constant: tuple[Expr, ...]
    outputs: tuple[LayerOutput, ...]
    covariance: tuple[Coupled, ...]
    mean: tuple[tuple[str, Expr, str], ...]
    closed: dict[tuple[str, str], Expr] = field(default_factory=dict, hash=False)
    fractions: dict[str, Expr] = field(default_factory=dict, hash=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the columns of `feed`."""
        return (*self.locals, *(s.name for s in self.sources))

    def output(self, name: str) -> LayerOutput:
        """The output of this name."""
        return next(o for o in self.outputs if o.name == name)

    def source(self, name: str) -> Source | None:
        """The source of this name, if it is one."""
        return next((s for s in self.sources if s.name == name), None)

    @property
    def remembers(self) -> bool:
        """Whether a unit carries its own state from layer to layer."""
        return any(e != 0 for row in self.memory for e in row)

    @property
    def centred(self) -> bool:
        """Whether every argument has zero mean."""
        drives = (*self.constant, *self.start_constant, *(c for _, c, _ in self.mean), *(s.mean for s in self.sources))
        return all(e == 0 for e in drives)


@dataclass(frozen=True)
class FirstOrder:
    """The order 1/N of a layered problem: weights of the terms of its formulas.

    A = pair·∂F/∂O, G = (1 − A)⁻¹, V = GΣGᵀ, and the mean shift G·m with
    m_j = curvature·Σ_kl ∂²F_j/∂O_k∂O_l V_kl + pull·Σ_kl ∂Σ_jk/∂O_l G_lk, sums over pairs of copies counted once.
    """

    layered: LayeredGaussian = field(hash=False)
    curvature: Expr
    pull: Expr
    pair: Expr
