"""State evolution and stability of message passing, from the cavity argument.

Without site i its neighbours do not know its couplings, so that Σ_k A_ik m_{k→i} over a random instance is a Gaussian
number: mean and variance follow from the first two cumulants of the entries, the widths V_i do not fluctuate. The same
independence gives the mean square of a small perturbation of all messages after one more update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Expr, Matrix, Mul, Rational, S, Symbol, eye, sqrt

from quenched.theory.distributions import Normal
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Quenched
from quenched.theory.instance_graph import End, GraphSite, HalfEdge, PairGraph
from quenched.theory.instance_messages import MJ, OLD, VJ, A, BetheForm, NodeEquations
from quenched.theory.laws import Law, strong_mean
from quenched.theory.problem_replicas import L, Piece, ReplicaSite, X, site_average
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, text
from quenched.theory.replica_ansatz import label_moment, unused
from quenched.theory.spaces import N, Population

#: A second moment over the sites of a population: its name, and the multiple of x² (or of x) that is averaged.
Key = tuple[str, Expr]


@dataclass(frozen=True)
class FieldLaw:
    """The law of b_i over the sites of a population: B + mean + √k z, z standard normal; V does not fluctuate.

    Attributes
    ----------
    site : the sites
    mean, k, v : mean (without the field B of the declaration), variance, and V, in unknowns, labels and parameters
    inside : V as the log-partition function sees it: 0 where x² is fixed, −λ on a sphere
    given : of a field v of the disorder, its standard normal number ζ, its size √Var(v), and the shift d of b by ζ
    """

    site: GraphSite
    mean: Expr
    k: Expr
    v: Expr
    inside: Expr
    given: tuple[Quenched, Expr, Expr] | None = None

    @property
    def labels(self) -> tuple[Quenched, ...]:
        """Quenched numbers that averages run over."""
        return (*self.site.labels, *([self.given[0]] if self.given else []))

    @property
    def measure(self) -> ReplicaSite:
        """The base measure with v written by its standard normal number."""
        seen, base = self.site.seen, self.site.measure
        if seen is None or self.given is None:
            return base
        zeta, size, _ = self.given
        swap = {seen.symbol: seen.mean + size * zeta}
        pieces = tuple(Piece(p.value, p.weight.xreplace(swap)) for p in base.pieces)
        return replace(base, pieces=pieces, labels=(*base.labels, (zeta, (), zeta.law.density(X))))

    def average(self, poly: Expr) -> Expr:
        """E[poly] over the sites."""
        return site_average(self.site.name, poly, self.site.bias + self.mean, self.k, self.inside, self.labels)

    def response(self) -> Expr:
        """E[∂L₁/∂v]: by parts, (E[ζ L₁] − d E[L₂])/√Var(v)."""
        assert self.given is not None
        zeta, size, shift = self.given
        return self.average((zeta * L[1] - shift * L[2]) / size)


@dataclass(frozen=True)
class EvolutionForm(Form):
    """State evolution: how the law of the fields b_i reproduces itself from one update to the next.

    Attributes
    ----------
    graph, nodes : the measure and its iteration
    bethe : coefficients of the Bethe free entropy
    laws : of the fields of every population
    means, overlaps, widths : E[c L₁], E[c L₁²], E[c L₂] by (population, c): their symbols
    responses : E[∂L₁/∂v] by population, v the field of the disorder that it sees
    equations : symbol → its average over the next fields
    constraints : multiplier → (average, value), on spheres
    free_entropy : Bethe free entropy per unit of N on a typical instance
    """

    name: ClassVar[str] = "state evolution"
    graph: PairGraph
    nodes: NodeEquations
    bethe: tuple[Expr, Expr]
    laws: tuple[FieldLaw, ...]
    means: dict[Key, Symbol]
    overlaps: dict[Key, Symbol]
    widths: dict[Key, Symbol]
    responses: dict[str, Symbol]
    equations: dict[Symbol, Expr]
    constraints: dict[Symbol, tuple[Expr, Expr]]
    free_entropy: Expr

    def __hash__(self) -> int:
        return hash((self.laws, tuple(self.equations.items()), self.free_entropy))

    def law(self, name: str) -> FieldLaw:
        """The law of the fields of a population."""
        return next(f for f in self.laws if f.site.name == name)

    def lines(self) -> list[Line]:
        out = []
        for f in self.laws:
            centre, name = f.site.bias + f.mean, f.site.name
            plain = f"b ({name}) = {text(centre)} + √({text(f.k)})·z,  V = {text(f.v)}"
            tex = rf"b_{{\mathrm{{{name}}}}} = {latex(centre)} + \sqrt{{{latex(f.k)}}}\, z,\quad V = {latex(f.v)}"
            out.append(Line(plain, tex, _inside(f)))
        out += [equation_line(s, rhs) for s, rhs in self.equations.items()]
        out += [equation_line(value, avg, f"fixes {text(lam)}") for lam, (avg, value) in self.constraints.items()]
        return [*out, equation_line(Symbol("Phi"), self.free_entropy, "Bethe free entropy per unit of N")]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for j, f in enumerate(self.laws):
            for what in ("mean", "k", "v"):
                for n, piece in enumerate(Add.make_args(getattr(f, what))):
                    if piece != 0:
                        bad = replace(f, **{what: getattr(f, what) + piece / 10})
                        new = (*self.laws[:j], bad, *self.laws[j + 1 :])
                        yield f"term {n + 1} of {what} of {f.site.name} × 1.1", replace(self, laws=new)
        for s, rhs in self.equations.items():
            yield f"equation of {s} × 1.1", replace(self, equations=self.equations | {s: rhs * Rational(11, 10)})


def _inside(f: FieldLaw) -> str:
    if f.site.sphere:
        return "on a sphere, λ takes the place of V"
    return "x² is fixed: V adds a constant to L" if f.site.norm is not None else ""


@dataclass(frozen=True)
class StateEvolution(Rule):
    """Average over instances: the cavity fields of a site are Gaussian numbers."""

    title: ClassVar[str] = "State evolution: the law of the fields over a random instance"
    assumption: ClassVar[str] = "N → ∞; couplings of a site are independent of the messages sent to it"
    source: ClassVar[str] = "bayati2011,mezard1987"

    def __call__(self, before: Form) -> EvolutionForm:
        assert isinstance(before, BetheForm)
        return _Evolution(before).run()


class _Evolution:
    """Names the moments, then writes the laws of the fields and the equations of the moments."""

    def __init__(self, bethe: BetheForm) -> None:
        self.bethe, self.graph, self.nodes = bethe, bethe.nodes.graph, bethe.nodes
        self.means: dict[Key, Symbol] = {}
        self.overlaps: dict[Key, Symbol] = {}
        self.widths: dict[Key, Symbol] = {}
        self.responses: dict[str, Symbol] = {}
        self.multipliers: dict[str, Symbol] = {}

    def run(self) -> EvolutionForm:
        check_echo(self.nodes)
        laws = tuple(self._law(s) for s in self.graph.sites)
        by_name = {f.site.name: f for f in laws}
        equations = {s: by_name[n].average(c * L[1]) for (n, c), s in self.means.items()}
        equations |= {s: by_name[n].average(c * L[1] ** 2) for (n, c), s in self.overlaps.items()}
        equations |= {s: by_name[n].average(c * L[2]) for (n, c), s in self.widths.items()}
        equations |= {s: by_name[n].response() for n, s in self.responses.items()}
        constraints = {
            lam: (by_name[n].average(L[2] + L[1] ** 2), self.graph.site(n).norm) for n, lam in self.multipliers.items()
        }
        free = Add(*(self._entropy(f) for f in laws)).expand()
        return EvolutionForm(
            self.graph,
            self.nodes,
            self.bethe.sites,
            laws,
            self.means,
            self.overlaps,
            self.widths,
            self.responses,
            equations,
            constraints,
            free,
        )

    def _law(self, site: GraphSite) -> FieldLaw:
        edges = self.graph.half_edges(site.name)
        mean = (Add(*(self._mean(h) for h in edges)) + self._taught(site, edges)).expand()
        direct = (self.nodes.field - self.nodes.reaction).coeff(A, 1).coeff(MJ, 1)
        spread = self.nodes.width.coeff(A, 2).coeff(VJ, 1)
        k, v = S.Zero, site.quadratic
        for here in edges:
            for there in edges:
                size = pair_strength(self.graph, here, there)
                if size != 0:
                    key = (here.other.site, (here.other.factor * there.other.factor).expand())
                    k += direct**2 * size * self._named(self.overlaps, "q", key)
                    v += spread * size * self._named(self.widths, "chi", key)
        law = FieldLaw(site, mean, k.expand(), v.expand(), self._inside(site, v))
        return self._conditioned(law, edges) if site.seen else law

    def _taught(self, site: GraphSite, edges: list[HalfEdge]) -> Expr:
        """What b owes to labels: entries of the same couplings are in the field v that a label was made from."""
        total = S.Zero
        for other in self.graph.sites:
            for far in seen_edges(other):
                for here in edges:
                    if here.other.site != other.name or far.other.site != site.name:
                        continue
                    there = HalfEdge(far.matrix, not far.at_row, far.coef, far.other.factor, End(other.name, S.One))
                    size = pair_strength(self.graph, here, there)
                    if size != 0:
                        taken = {p.name for p in self.graph.parameters}
                        name = f"s_{other.name}" + ("_" if f"s_{other.name}" in taken else "")
                        self.responses[other.name] = Symbol(name, real=True)
                        total += size * self.responses[other.name]
        return total

    def _conditioned(self, law: FieldLaw, edges: list[HalfEdge]) -> FieldLaw:
        """The law of b given v: both are sums over the same couplings, jointly Gaussian."""
        site, seen = law.site, law.site.seen
        assert seen is not None
        square, cross = seen.variance, S.Zero
        teacher = seen_edges(site)
        for one in teacher:
            for two in teacher:
                size = pair_strength(self.graph, one, two)
                square += size * label_moment(one.other.factor * two.other.factor) if size != 0 else 0
            for here in edges:
                size = pair_strength(self.graph, one, here)
                if size != 0:
                    key = (one.other.site, (one.other.factor * here.other.factor).expand())
                    cross += size * self._named(self.means, "m", key)
        name = unused("zeta", (*self.graph.parameters, *site.labels))
        zeta = Quenched(name, Normal(0, 1), over=self._population(site.name))
        root = sqrt(square.expand())
        shift = cross / root
        mean, k = law.mean + shift * zeta, (law.k - shift**2).expand()
        return replace(law, mean=mean, k=k, given=(zeta, root, shift))

    def _population(self, name: str) -> Population:
        return next(p for law in self.graph.laws for p in (law.rows, law.cols) if p.name == name)

    def _mean(self, h: HalfEdge) -> Expr:
        """N·E[A_ij] times the mean of the far ends."""
        total = S.Zero
        strong = strong_mean(self.graph.laws)
        if strong:
            raise NotCovered(strong)
        for weight, power in means_of(self.graph.laws, h):
            if power + 1 != 0 or weight.has(N):
                raise NotCovered(f"the mean of {h.matrix} gives fields of order N^{power + 1}: expected means of 1/N")
            fraction = self.graph.site(h.other.site).fraction
            total += h.own * h.coef * weight * fraction * self._named(self.means, "m", (h.other.site, h.other.factor))
        return total

    def _inside(self, site: GraphSite, v: Expr) -> Expr:
        if site.norm is None:
            return v.expand()
        if v.has(*site.labels):
            raise NotCovered(f"the width of the fields of {site.name} depends on the labels of a site")
        if not site.sphere:
            return S.Zero
        taken = {p.name for p in self.graph.parameters}
        name = "lambda" if "lambda" not in taken else f"lambda_{site.name}"
        self.multipliers[site.name] = Symbol(name, real=True)
        return -self.multipliers[site.name]

    def _entropy(self, f: FieldLaw) -> Expr:
        """The share of a population in the Bethe free entropy; E[(b − B) L₁] = mean E[L₁] + k E[L₂] by parts."""
        overlap, width = self.bethe.sites
        total = f.average(L[0]) + overlap * f.average(f.mean * L[1] + f.k * L[2])
        total += width * f.average((f.v - f.site.quadratic) * L[2])
        if f.site.norm is not None:
            total += (f.v - f.inside) * f.site.norm / 2
        return f.site.fraction * total

    def _named(self, table: dict[Key, Symbol], letter: str, key: Key) -> Symbol:
        if key not in table:
            site, factor = key
            tag = site + ("" if factor == 1 else f"_{1 + sum(s == site for s, _ in table)}")
            taken = {p.name for p in self.graph.parameters}
            name = f"{letter}_{tag}"
            table[key] = Symbol(name if name not in taken else name + "_", real=True)
        return table[key]


def seen_edges(site: GraphSite) -> list[HalfEdge]:
    """The couplings that make the field v of a site, from its side."""
    uses = site.seen.uses if site.seen else ()
    return [HalfEdge(matrix, at_row, coef, S.One, end) for matrix, at_row, coef, end in uses]


def check_echo(nodes: NodeEquations) -> None:
    """What a site hears back of itself, A²·v_j·m_i, has to be taken away by the Onsager term.

    Raises
    ------
    QuenchedError
        It is not: then the fields are not Gaussian numbers independent of the site.
    """
    direct = (nodes.field - nodes.reaction).coeff(A, 1).coeff(MJ, 1)
    echo = direct**2 * A**2 * VJ * OLD
    if (echo + nodes.reaction).expand() != 0:
        raise QuenchedError(
            f"the fields keep an echo of their own site, {text((echo + nodes.reaction).expand())} an edge: "
            "no state evolution without its Onsager term"
        )


def means_of(laws: tuple[Law, ...], h: HalfEdge) -> list[tuple[Expr, Expr]]:
    """(weight, power of N) of the mean of the entries of a matrix."""
    return [(d.weight, d.power) for w in laws if w.name == h.matrix for d in w.diagrams if len(d.edges) == 1]


def pair_strength(graph: PairGraph, here: HalfEdge, there: HalfEdge) -> Expr:
    """Σ_j Cov of what two couplings give to one site: own factors · N·Cov(entries) · fraction of the far population."""
    if here.other.site != there.other.site:
        return S.Zero
    total = S.Zero
    for law in graph.laws:
        for diagram in law.diagrams:
            if len(diagram.edges) == 2 and _matches(diagram.edges, here, there):
                if diagram.power + 1 != 0:
                    raise NotCovered(f"entries of {law.name} of variance N^{diagram.power}: expected 1/N")
                total += diagram.weight
    fraction = graph.site(here.other.site).fraction
    return here.own * there.own * here.coef * there.coef * total * fraction


def _matches(edges: tuple[tuple[str, int, int], ...], here: HalfEdge, there: HalfEdge) -> bool:
    """Whether two entries with this site at their near ends and one site at their far ends are so correlated."""
    (a, *first), (b, *second) = edges
    for one, two in ((here, there), (there, here)):
        if (a, b) == (one.matrix, two.matrix):
            ends = [list(e) if h.at_row else list(reversed(e)) for e, h in ((first, one), (second, two))]
            if ends[0] == ends[1]:
                return True
    return False


# -- stability -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class GrowthForm(Form):
    """Linearised message passing: the mean square of a perturbation of all messages, from one update to the next.

    Attributes
    ----------
    evolution : the fixed point
    keys : the second moments E[c δ²] that the perturbation is described by
    matrix : mean squares after an update in terms of those before; messages converge while its eigenvalues are below 1
    """

    name: ClassVar[str] = "growth of perturbed messages"
    evolution: EvolutionForm
    keys: tuple[Key, ...]
    matrix: tuple[tuple[Expr, ...], ...]

    @property
    def eigenvalue(self) -> Expr:
        """1 − det(1 − G): the factor a sweep, 1 where messages stop to converge."""
        size = len(self.keys)
        return (1 - (eye(size) - Matrix(size, size, lambda i, j: self.matrix[i][j])).det()).expand()

    def lines(self) -> list[Line]:
        out = [
            Line(
                "δm_i→j = L₂(b_i→j; V_i) Σ_(k≠j) A_ik δm_k→i",
                r"\delta m_{i\to j} = L_2(b_{i\to j}; V_i) \sum_{k\ne j} A_{ik}\, \delta m_{k\to i}",
                "the widths V average over N perturbations of random sign: they do not change",
            )
        ]
        for i, (site, factor) in enumerate(self.keys):
            pieces = [(e, self.keys[j]) for j, e in enumerate(self.matrix[i]) if e != 0]
            plain = " + ".join(f"{text(e)}·{_square(k, text)}" for e, k in pieces)
            tex = " + ".join(rf"{latex(e)} {_square(k, latex)}" for e, k in pieces)
            key = (site, factor)
            out.append(
                Line(f"{_square(key, text)} ← {plain or '0'}", rf"{_square(key, latex)} \leftarrow {tex or '0'}")
            )
        lam = self.eigenvalue
        head = r"\lambda_{\mathrm{growth}} = 1 - \det(1 - G)"
        return [*out, Line(f"growth = 1 − det(1 − G) = {text(lam)}", f"{head} = {latex(lam)}", "below 1: converges")]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for i, row in enumerate(self.matrix):
            for j, entry in enumerate(row):
                if entry != 0:
                    for label, bad in (("× 1.1", entry * Rational(11, 10)), ("inverted", -entry)):
                        new = (*row[:j], bad, *row[j + 1 :])
                        rows = (*self.matrix[:i], new, *self.matrix[i + 1 :])
                        yield f"entry {i}{j} {label}", replace(self, matrix=rows)


def _square(key: Key, show: object) -> str:
    site, factor = key
    shown = "" if factor == 1 else str(show(factor))  # type: ignore[operator]
    if show is text:
        return f"⟨{shown + '·' if shown else ''}δm²⟩_{site}"
    return rf"\langle {shown} \delta m^2 \rangle_{{\mathrm{{{site}}}}}"


@dataclass(frozen=True)
class LineariseMessages(Rule):
    """Perturb all messages: random signs leave no mean, mean squares multiply."""

    title: ClassVar[str] = "Linear stability of the messages"
    assumption: ClassVar[str] = "perturbations are independent of the couplings that they meet next"
    source: ClassVar[str] = "kabashima2003,zhao2022"

    def __call__(self, before: Form) -> GrowthForm:
        assert isinstance(before, EvolutionForm)
        graph = before.graph
        keys = tuple(before.overlaps)
        direct = (before.nodes.field - before.nodes.reaction).coeff(A, 1).coeff(MJ, 1)
        rows = []
        for site, factor in keys:
            row = dict.fromkeys(keys, S.Zero)
            edges = graph.half_edges(site)
            for here in edges:
                for there in edges:
                    size = pair_strength(graph, here, there)
                    if size != 0:
                        key = (here.other.site, (here.other.factor * there.other.factor).expand())
                        row[key] += direct**2 * before.law(site).average(Mul(factor, size) * L[2] ** 2)
            rows.append(tuple(e.expand() for e in row.values()))
        return GrowthForm(before, keys, tuple(rows))
