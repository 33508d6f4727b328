"""Message passing on one instance: what a derivation hands to the generated iteration. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Symbol

from quenched.theory.problem_replicas import ReplicaSite


@dataclass(frozen=True)
class MessageLabel:
    """A label that is a sum over the couplings of an instance: noise + Σ M c, what a teacher of weights c gives.

    Attributes
    ----------
    symbol : of the label
    mean, variance : of Gaussian noise in it
    uses : (matrix, whether the label is at its rows, c with its coefficient, population of c)
    """

    symbol: Symbol
    mean: Expr
    variance: Expr
    uses: tuple[tuple[str, bool, Expr, str], ...]


@dataclass(frozen=True)
class MessageSite:
    """The sites of one population.

    Attributes
    ----------
    symbol : name of the state or local field
    measure : base measure, with kind "state" or "channel"
    bias, quadratic : field and twice the quadratic coefficient that the declaration gives a site
    norm : what the sum of x² per site is held at, on a sphere; else None
    weight : share of one site in entropies that count states (ln of the number of values), None where it counts none
    taught : a label of the site that a teacher gives, the last of those of the measure
    """

    symbol: str
    measure: ReplicaSite
    bias: Expr
    quadratic: Expr
    norm: Expr | None
    weight: Expr | None
    taught: MessageLabel | None = None

    @property
    def name(self) -> str:
        """Name of the population."""
        return self.measure.name


@dataclass(frozen=True)
class MessageBlock:
    """A_ij += coef · row_i M_ij col_j for i in `rows` and j in `cols`, and the transpose for the other end.

    `matrix` is None for the matrix of ones over the number of columns (times `coef`).
    """

    matrix: str | None
    coef: Expr
    rows: str
    row: Expr
    cols: str
    col: Expr


@dataclass(frozen=True)
class MessageProblem:
    """The iteration b = B + direct·A m + reaction·(A∘A v) m′, V = quadratic + spread·A∘A v, m = L₁, v = L₂.

    Attributes
    ----------
    parameters : symbols that need values
    sites : in the order in which a sweep updates them
    blocks : couplings
    direct, reaction, spread : coefficients of the field, of its Onsager term, and of the width of an edge
    entropy : coefficients of m (b − B) and of (V − quadratic) v of a site in the Bethe free entropy
    """

    parameters: tuple[Symbol, ...]
    sites: tuple[MessageSite, ...]
    blocks: tuple[MessageBlock, ...]
    direct: float
    reaction: float
    spread: float
    entropy: tuple[float, float]

    def site(self, name: str) -> MessageSite:
        """The sites of a population."""
        return next(s for s in self.sites if s.name == name)
