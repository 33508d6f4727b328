"""Two-time problems: what a derivation hands to the solver that marches C(t, s) and R(t, s) forward in time.

Every unit is linear in its states given its labels, so its law is Gaussian; coefficients and inputs may depend on time
and labels. In a flow X' = A X + B h + G ξ + d(t), in a map X(n+1) is the right-hand side, and the local fields h are
Gaussian with

    ⟨h_u(t)⟩ = Σ coefficient·⟨a(t)⟩,      Cov(h_u(t), h_v(s)) = Σ coefficient·⟨a(t) b(s)⟩

where a, b are outputs: named functions of one linear combination of the states, averaged over units with their labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sympy import Expr, S, Symbol

from quenched.theory.problem import Clock, Label, SiteFunction
from quenched.theory.spaces import t

#: The symbol of time in every expression of a problem.
TIME: Symbol = t

Row = tuple[Expr, ...]


@dataclass(frozen=True)
class CausalUnit:
    """The unit of one population.

    Attributes
    ----------
    population : its name
    states, fields, noises : names, in the order of the matrices below
    drift, feed, noise : A (n × n), B (n × m), G (n × k), entries in parameters, labels and time
    drive : d(t), n expressions
    start : (mean, variance) of every state at t = 0, independent of one another given the labels
    labels : quenched numbers of the unit, and initial values whose law is not Gaussian
    """

    population: str
    states: tuple[str, ...]
    fields: tuple[str, ...]
    noises: tuple[str, ...]
    drift: tuple[Row, ...]
    feed: tuple[Row, ...]
    noise: tuple[Row, ...]
    drive: Row
    start: tuple[tuple[Expr, Expr], ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Output:
    """ψ = function(Σ weights·states) of the units of population number `unit`."""

    name: str
    unit: int
    function: SiteFunction
    weights: Row


@dataclass(frozen=True)
class MeanSource:
    """⟨h_field⟩ contains coefficient·⟨output⟩."""

    field: str
    coefficient: Expr
    output: int


@dataclass(frozen=True)
class PairSource:
    """Cov(h_first(t), h_second(s)) contains coefficient·⟨a(t) b(s)⟩; at equal times only if `instant`."""

    first: str
    second: str
    coefficient: Expr
    a: int
    b: int
    instant: bool = False


@dataclass(frozen=True)
class Constraint:
    """inflow(t) + Σ coefficient·⟨output⟩(t) = 0, what the mean of one state is adjusted to at every time."""

    unit: int
    state: int
    inflow: Expr
    terms: tuple[tuple[Expr, int], ...]


@dataclass(frozen=True)
class TwoTimeProblem:
    """Means and two-time covariances of Gaussian units, to be marched from given initial values.

    Attributes
    ----------
    clock : "flow" or "map"
    advance : what one step of a map adds to t (of a flow: 1)
    parameters : symbols that need values, N among them where its powers stayed
    units, outputs, means, pairs : see the classes
    constraints : equations of leading order in N that fix means (empty where N is kept or does not occur)
    """

    clock: Clock
    advance: Expr
    parameters: tuple[Symbol, ...]
    units: tuple[CausalUnit, ...]
    outputs: tuple[Output, ...]
    means: tuple[MeanSource, ...]
    pairs: tuple[PairSource, ...]
    constraints: tuple[Constraint, ...] = field(default=())

    def rows(self) -> list[Expr]:
        """Every coefficient of the units, for a look at what occurs in them."""
        found: list[Expr] = [self.advance]
        for unit in self.units:
            for block in (unit.drift, unit.feed, unit.noise, (unit.drive,), unit.start):
                found += [e for row in block for e in row]
        found += [m.coefficient for m in self.means] + [p.coefficient for p in self.pairs]
        found += [w for o in self.outputs for w in o.weights] + [o.function.expr for o in self.outputs]
        for c in self.constraints:
            found += [c.inflow, *(k for k, _ in c.terms)]
        return [S(e) for e in found]
