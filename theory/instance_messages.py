"""Messages on one instance: belief propagation, its Gaussian limit, and the iteration for sites.

Everything is about one edge of strength A = O(N^-1/2): how the site j at its far end looks from i, up to the order in A
at which a sum over N edges still counts. The expansions below are computed, term by term, from the weight of an edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Expr, Rational, S, Symbol, exp, factorial, series, symbols

from quenched.theory.instance_graph import PairGraph
from quenched.theory.problem_replicas import L
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text

#: Strength of an edge, and the variables at its near and far end.
A = Symbol("A_ij", real=True)
XI, XJ = symbols("x_i x_j", real=True)
#: Mean and variance of the message from j to i; of the sites i and j themselves; the mean of i one update earlier.
M, V = symbols("m_j→i v_j→i", real=True)
MI, MJ, VI, VJ = symbols("m_i m_j v_i v_j", real=True)
OLD = Symbol("m_i'", real=True)


def order(expr: Expr, power: int) -> Expr:
    """The terms of a polynomial in A up to a power."""
    poly = expr.expand()
    return Add(*(poly.coeff(A, k) * A**k for k in range(power + 1)))


@dataclass(frozen=True)
class Messages(Form):
    """Belief propagation: ν_{i→j}(x) is the law of x_i where its edge to j is missing.

    Attributes
    ----------
    graph : the measure
    edge : weight of an edge, in `A`, `XI`, `XJ`
    """

    name: ClassVar[str] = "messages"
    graph: PairGraph
    edge: Expr

    def lines(self) -> list[Line]:
        return [
            Line(
                f"ν_i→j(x_i) ∝ μ_i(x_i) Π_(k≠j) ∫ν_k→i(x_k) {self._far(text)}",
                r"\nu_{i\to j}(x_i) \propto \mu_i(x_i) \prod_{k\ne j} \int d\nu_{k\to i}(x_k)\, " + self._far(latex),
                "exact on a tree",
            ),
            Line(
                f"P(x_i) ∝ μ_i(x_i) Π_k ∫ν_k→i(x_k) {self._far(text)}",
                rf"P(x_i) \propto \mu_i(x_i) \prod_k \int d\nu_{{k\to i}}(x_k)\, {self._far(latex)}",
            ),
        ]

    def _far(self, show: Callable[[object], object]) -> str:
        """The weight of an edge to k."""
        return str(show(self.edge.xreplace({A: Symbol("A_ik"), XJ: Symbol("x_k")})))

    def mutants(self) -> Iterator[tuple[str, Form]]:
        yield "edge × 1.1", replace(self, edge=self.edge.xreplace({A: A * Rational(11, 10)}))
        yield "edge inverted", replace(self, edge=1 / self.edge)


@dataclass(frozen=True)
class BeliefPropagation(Rule):
    """Leave one edge out: the neighbours of a site are then independent, given the site."""

    title: ClassVar[str] = "Belief propagation"
    assumption: ClassVar[str] = "without a site, its neighbours are independent (N → ∞: weak edges, no short loops)"
    source: ClassVar[str] = "yedidia2005"

    def __call__(self, before: Form) -> Messages:
        assert isinstance(before, PairGraph)
        return Messages(before, exp(A * XI * XJ))


@dataclass(frozen=True)
class GaussianMessages(Form):
    """Relaxed belief propagation: of a message, its mean and variance are left.

    Attributes
    ----------
    graph : the measure
    field, width : what an edge adds to b_i and V_i in μ_i(x) exp(b_i x + V_i x²/2), in `A`, `M`, `V`
    small : what is left out, a term of the exponent
    """

    name: ClassVar[str] = "Gaussian messages"
    graph: PairGraph
    field: Expr
    width: Expr
    small: Expr

    def lines(self) -> list[Line]:
        return [
            Line(
                f"b_i→j = B_i + Σ_(k≠j) {_other(text, self.field)}",
                rf"b_{{i\to j}} = B_i + \sum_{{k\ne j}} {_other(latex, self.field)}",
                "B_i: the field that the declaration gives a site",
            ),
            Line(
                f"V_i→j = Σ_(k≠j) {_other(text, self.width)}",
                rf"V_{{i\to j}} = \sum_{{k\ne j}} {_other(latex, self.width)}",
            ),
            Line(
                "m_i→j = L₁(b_i→j; V_i→j),  v_i→j = L₂(b_i→j; V_i→j)",
                r"m_{i\to j} = \partial_b L,\quad v_{i\to j} = \partial_b^2 L \quad (b_{i\to j}; V_{i\to j})",
                "L(b; V) = ln ∫dμ(x) exp(b x + V x²/2)",
            ),
        ]

    def dropped(self) -> list[Line]:
        return [Line(text(self.small), latex(self.small), "an edge of order A³; a sum over N of them is O(N^-1/2)")]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        yield "field × 1.1", replace(self, field=self.field * Rational(11, 10))
        yield "width × 1.1", replace(self, width=self.width * Rational(11, 10))
        yield "width dropped", replace(self, width=S.Zero)


@dataclass(frozen=True)
class CentralLimit(Rule):
    """Expand the logarithm of an incoming message in the strength of its edge: its cumulants."""

    title: ClassVar[str] = "Relaxed belief propagation: Gaussian messages"
    assumption: ClassVar[str] = "every site has O(N) edges of strength O(N^-1/2)"
    source: ClassVar[str] = "rangan2010"

    def __call__(self, before: Form) -> GaussianMessages:
        assert isinstance(before, Messages)
        exponent = log_moment(before.edge, 3).expand()
        return GaussianMessages(
            before.graph,
            exponent.coeff(XI, 1),
            (2 * exponent.coeff(XI, 2)).expand(),
            exponent.coeff(XI, 3) * XI**3,
        )


def log_moment(edge: Expr, power: int) -> Expr:
    """ln ∫ν(x_j) edge(A x_i x_j) up to A^power, in the cumulants of the message: mean, variance, third cumulant."""
    third = Symbol("c_ji", real=True)
    moments = (S.One, M, V + M**2, third + 3 * V * M + M**3)
    inside = series(edge, A, 0, power + 1).removeO().expand()
    averaged = Add(*(inside.coeff(XJ, k) * moments[k] for k in range(power + 1)))
    return order(series(_log(averaged), A, 0, power + 1).removeO(), power)


def _log(one_plus: Expr) -> Expr:
    """ln(1 + x) as a polynomial in x, far enough for third order."""
    x = (one_plus - 1).expand()
    return Add(*((-1) ** (k + 1) * x**k / k for k in range(1, 4)))


@dataclass(frozen=True)
class NodeEquations(Form):
    """Approximate message passing (of pair energies: the Thouless–Anderson–Palmer equations).

    Attributes
    ----------
    graph : the measure
    field : what an edge adds to b_i, in `A`, `MJ` and the mean `OLD` that i had when m_j was computed
    reaction : its Onsager term alone
    width : what an edge adds to V_i, in `A` and `VJ`
    """

    name: ClassVar[str] = "approximate message passing"
    graph: PairGraph
    field: Expr
    reaction: Expr
    width: Expr

    def lines(self) -> list[Line]:
        field, width = self.field, self.width
        return [
            Line(
                f"b_i = B_i + Σ_j {_sum(field)}",
                rf"b_i = B_i + \sum_j \left[{latex(field)}\right]",
                "m_i′: the mean of i when its neighbours were computed",
            ),
            Line(f"V_i = Σ_j {_sum(width)}", rf"V_i = \sum_j {latex(width)}"),
            Line("m_i = L₁(b_i; V_i),  v_i = L₂(b_i; V_i)", r"m_i = L_1(b_i; V_i),\quad v_i = L_2(b_i; V_i)"),
            Line(
                f"Onsager term: Σ_j {_sum(self.reaction)}",
                rf"\text{{Onsager term: }} \sum_j {latex(self.reaction)}",
                "what i hears back of itself; it is taken away",
            ),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        direct = self.field - self.reaction
        for label, factor in (("dropped", 0), ("× 1.1", Rational(11, 10)), ("with the wrong sign", -1)):
            wrong = self.reaction * factor
            yield f"Onsager term {label}", replace(self, field=direct + wrong, reaction=wrong)
        yield "field × 1.1", replace(self, field=self.field + direct / 10)
        yield "width × 1.1", replace(self, width=self.width * Rational(11, 10))


def _other(show: Callable[[object], object], expr: Expr) -> str:
    """What an edge to k adds."""
    return str(show(expr.xreplace({A: Symbol("A_ik"), M: Symbol("m_k→i"), V: Symbol("v_k→i")}))).replace(
        "→i}", r"\to i}"
    )


def _sum(expr: Expr) -> str:
    return f"[{text(expr)}]" if expr.is_Add else text(expr)


@dataclass(frozen=True)
class Onsager(Rule):
    """Write messages by the sites' own means: m_{j→i} = m_j − A_ij L₂(b_j) m_{i→j}, and keep what sums to order one."""

    title: ClassVar[str] = "Approximate message passing: sites instead of messages"
    assumption: ClassVar[str] = "N → ∞; the reaction is taken at the time at which the neighbour heard of the site"
    source: ClassVar[str] = "donoho2009,thouless1977"

    def __call__(self, before: Form) -> NodeEquations:
        assert isinstance(before, GaussianMessages)
        message = far_mean(before.field, OLD)
        field = order(before.field.xreplace({M: message}), 2)
        width = order(before.width.xreplace({M: MJ, V: VJ}), 2)
        return NodeEquations(before.graph, field, (field - before.field.xreplace({M: MJ})).expand(), width)


def far_mean(field: Expr, near: Expr) -> Expr:
    """m_{j→i} = L₁(b_j − what i adds to it), to first order in A."""
    own = field.xreplace({M: near})
    taylor = Add(*((-own) ** k / factorial(k) * L[1 + k] for k in range(2)))
    return order(taylor.xreplace({L[1]: MJ, L[2]: VJ}), 1)


@dataclass(frozen=True)
class BetheForm(Form):
    """The free entropy of an instance at a fixed point, relative to the a priori measure.

    Attributes
    ----------
    nodes : the iteration
    edge : ln of the partition function of an edge, in `A` and the means and variances of its ends
    sites : the same as a sum over sites: coefficients of m_i (b_i − B_i) and of V_i v_i
    """

    name: ClassVar[str] = "Bethe free entropy"
    nodes: NodeEquations
    edge: Expr
    sites: tuple[Expr, Expr]

    def lines(self) -> list[Line]:
        overlap, width = self.sites
        return [
            Line(
                f"Φ = Σ_i L(b_i; V_i) − Σ_(ij) {_sum(self.edge)}",
                rf"\Phi = \sum_i L(b_i; V_i) - \sum_{{(ij)}} \left[{latex(self.edge)}\right]",
            ),
            Line(
                f"Φ = Σ_i [L(b_i; V_i) + ({text(overlap)})·m_i·(b_i − B_i) + ({text(width)})·V_i·v_i]",
                rf"\Phi = \sum_i \left[L + ({latex(overlap)}) m_i (b_i - B_i) + ({latex(width)}) V_i v_i\right]",
                "at a fixed point",
            ),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, piece in enumerate(Add.make_args(self.edge)):
            yield f"term {k + 1} of an edge dropped", replace(self, edge=self.edge - piece)
        a, b = self.sites
        yield "m b × 1.1", replace(self, sites=(a * Rational(11, 10), b))
        yield "V v × 1.1", replace(self, sites=(a, b * Rational(11, 10)))


@dataclass(frozen=True)
class Bethe(Rule):
    """ln Z = Σ_sites ln Z_i − Σ_edges ln Z_ij, each edge to second order in its strength."""

    title: ClassVar[str] = "Bethe free entropy"
    assumption: ClassVar[str] = "as for the messages; at a fixed point"
    source: ClassVar[str] = "yedidia2005"

    def __call__(self, before: Form) -> BetheForm:
        assert isinstance(before, NodeEquations)
        edge = edge_entropy(before)
        return BetheForm(before, edge, site_sums(before, edge))


def edge_entropy(nodes: NodeEquations) -> Expr:
    """ln ⟨exp(A x_i x_j)⟩ over both messages of an edge, to order A²."""
    mij, mji = symbols("m_ij m_ji", real=True)
    mean = mij * mji
    square = (VI + mij**2) * (VJ + mji**2)
    inside = A * mean + A**2 * (square - mean**2) / 2
    direct = nodes.field - nodes.reaction
    rate = (nodes.reaction / (direct * OLD)).xreplace({MJ: S.One}).expand()  # −A v_j: what a message lacks
    near = MI + rate.xreplace({VJ: VI}) * MJ
    far = MJ + rate * MI
    return order(inside.xreplace({mij: near, mji: far}), 2)


def site_sums(nodes: NodeEquations, edge: Expr) -> tuple[Expr, Expr]:
    """−Σ_edges as Σ_i [a m_i (b_i − B_i) + c V_i v_i], with the sums over edges that b_i and V_i are."""
    linear = edge.coeff(A, 1).coeff(MI * MJ, 1)
    quadratic = edge.coeff(A, 2).expand()
    squares = quadratic.coeff(VI, 1).coeff(MJ, 2)
    both = quadratic.coeff(VI * VJ, 1)
    react = nodes.reaction.coeff(A, 2).coeff(VJ, 1).coeff(OLD, 1)
    # Σ_(ij) A m m = ½ Σ m (b − B − react V m);  Σ_(ij) A² (v_i m_j² + m_i² v_j) = Σ V m²;  Σ_(ij) A² v v = ½ Σ V v
    leftover = (-linear / 2 * react + squares).expand()
    if leftover != 0:
        raise AssertionError(f"terms {leftover}·V m² are left over in the Bethe free entropy")
    return -linear / 2, -both / 2
