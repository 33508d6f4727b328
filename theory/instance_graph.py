"""Step 1 of the instance reading: a measure as sites coupled in pairs, on one draw of the couplings.

A local field u = Σ_j ξ_j x_j enters as exp(y u) with y = −iû, so that a constraint on u is one more site: its base
measure is the Fourier transform of the weight, and everything that follows holds for units and constraints alike. With
A_ij the total coupling of two sites, the measure is Π_i μ_i(x_i) Π_(ij) exp(A_ij x_i x_j).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from sympy import Expr, I, Mul, Rational, S, Symbol

from quenched.theory.circulant import Circulant
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched
from quenched.theory.laws import Law
from quenched.theory.priors import fixed_norm, on_sphere
from quenched.theory.problem_replicas import ReplicaSite
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.replica_forms import Variable, polynomial, replica_site
from quenched.theory.replica_lower import GibbsDeclaration, Replicate, ReplicatedAction, SiteWeight
from quenched.theory.spaces import Population
from quenched.theory.terms import Atom

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs


@dataclass(frozen=True)
class End:
    """One end of a coupling: a site, and what the coupling reads as a multiple of the site's variable."""

    site: str
    factor: Expr


@dataclass(frozen=True)
class Coupling:
    """coef · Σ_ij (factor x)_i M_ij (factor x)_j, with the declared matrix M."""

    matrix: str
    coef: Expr
    row: End
    col: End


@dataclass(frozen=True)
class Seen:
    """A local field of the disorder alone, v = noise + Σ coef · M c: what the weights c of a teacher give.

    Attributes
    ----------
    symbol : v
    mean, variance : of Gaussian noise in it
    uses : (matrix, whether v is at its rows, coef, far end: a site and the factor c in its labels)
    """

    symbol: Symbol
    mean: Expr
    variance: Expr
    uses: tuple[tuple[str, bool, Expr, End], ...]


@dataclass(frozen=True)
class GraphSite:
    """The sites of one population.

    Attributes
    ----------
    name, fraction : of the population
    kind : "state", or "channel" for the conjugate of a local field
    symbol : the state or the local field, as printed
    measure : base measure μ as data
    bias, quadratic : the linear coefficient of the exponent, and twice the quadratic one (in labels and parameters)
    labels : quenched numbers of a site
    norm : x² where the prior fixes it (on a sphere: its average), else None
    sphere : whether only the sum of x² is fixed
    seen : a local field of the disorder that the weight reads, on an instance one more label
    """

    name: str
    fraction: Expr
    kind: Literal["state", "channel"]
    symbol: Symbol
    measure: ReplicaSite
    bias: Expr
    quadratic: Expr
    labels: tuple[Quenched, ...]
    norm: Expr | None
    sphere: bool
    seen: Seen | None = None


@dataclass(frozen=True)
class HalfEdge:
    """A coupling as one of its ends sees it: `own` is at the row of the matrix, or at its column."""

    matrix: str
    at_row: bool
    coef: Expr
    own: Expr
    other: End


@dataclass(frozen=True)
class PairGraph(Form):
    """A measure on one instance: sites, and their couplings in pairs.

    Attributes
    ----------
    sites, couplings : of the graph
    laws : laws of the matrices
    parameters : free symbols
    """

    name: ClassVar[str] = "sites coupled in pairs"
    sites: tuple[GraphSite, ...]
    couplings: tuple[Coupling, ...]
    laws: tuple[Law, ...]
    parameters: tuple[Symbol, ...]

    def site(self, name: str) -> GraphSite:
        """The sites of a population."""
        return next(s for s in self.sites if s.name == name)

    def half_edges(self, name: str) -> list[HalfEdge]:
        """What couples to the sites of a population, from their side."""
        out = []
        for c in self.couplings:
            if c.row.site == name:
                out.append(HalfEdge(c.matrix, True, c.coef, c.row.factor, c.col))
            if c.col.site == name:
                out.append(HalfEdge(c.matrix, False, c.coef, c.col.factor, c.row))
        return out

    def lines(self) -> list[Line]:
        out = [Line("P(x) ∝ Π_i μ_i(x_i) Π_(ij) exp(A_ij x_i x_j)", _JOINT)]
        out += [self._site_line(s) for s in self.sites]
        out += [self._seen_line(s) for s in self.sites if s.seen]
        return out + [self._coupling_line(c) for c in self.couplings]

    @staticmethod
    def _seen_line(s: GraphSite) -> Line:
        assert s.seen is not None
        parts = [f"{text(c * e.factor)}·{m}" for m, _, c, e in s.seen.uses]
        noise = f" + noise of variance {text(s.seen.variance)}" if s.seen.variance != 0 else ""
        v = latex(s.seen.symbol)
        tex = " + ".join(rf"\sum_j {latex(c * e.factor)}\, {m}" for m, _, c, e in s.seen.uses)
        return Line(f"{text(s.seen.symbol)} ({s.name}) = Σ_j {' + '.join(parts)}{noise}", f"{v} = {tex}", "a label")

    @staticmethod
    def _site_line(s: GraphSite) -> Line:
        x = text(s.symbol)
        name = rf"\mathrm{{{s.name}}}"
        if s.kind == "channel":
            weight = s.measure.pieces[0].weight
            plain = f"{s.name}: x = −i·{x}̂, μ = Fourier transform of f(X) = {text(weight)}"
            return Line(plain, rf"{name}: x = -i\hat{{{latex(s.symbol)}}},\ f(x) = {latex(weight)}", "local field")
        plain = f"{s.name}: x = {x}, μ = prior"
        tex = rf"{name}: x = {latex(s.symbol)},\ \mu = \mathrm{{prior}}"
        field = s.bias * s.symbol + s.quadratic * s.symbol**2 / 2
        if field != 0:
            plain, tex = f"{plain} · exp({text(field)})", rf"{tex} \cdot \exp\left({latex(field)}\right)"
        return Line(plain, tex)

    def _coupling_line(self, c: Coupling) -> Line:
        same = c.row.site == c.col.site
        scale = c.coef * c.row.factor * c.col.factor
        body = f"({c.matrix}_ij + {c.matrix}_ji)" if same else f"{c.matrix}_ij"
        tex = rf"({c.matrix}_{{ij}} + {c.matrix}_{{ji}})" if same else rf"{c.matrix}_{{ij}}"
        head = f"A_ij ({c.row.site}, {c.col.site})"
        shown = "" if scale == 1 else f"{text(scale)}·"
        shown_tex = "" if scale == 1 else latex(scale) + r"\,"
        return Line(f"{head} = {shown}{body}", rf"A_{{ij}}^{{\mathrm{{{c.row.site},{c.col.site}}}}} = {shown_tex}{tex}")

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, c in enumerate(self.couplings):
            rest = (self.couplings[:k], self.couplings[k + 1 :])
            yield f"coupling {k + 1} dropped", replace(self, couplings=(*rest[0], *rest[1]))
            bad = replace(c, coef=c.coef * Rational(11, 10))
            yield f"coupling {k + 1} × 1.1", replace(self, couplings=(*rest[0], bad, *rest[1]))
        for k, s in enumerate(self.sites):
            for what in ("bias", "quadratic"):
                if getattr(s, what) != 0:
                    wrong = replace(s, **{what: getattr(s, what) * Rational(11, 10)})
                    yield (
                        f"{what} of {s.name} × 1.1",
                        replace(self, sites=(*self.sites[:k], wrong, *self.sites[k + 1 :])),
                    )


_JOINT = r"P(x) \propto \prod_i \mu_i(x_i) \prod_{(ij)} e^{A_{ij} x_i x_j}"


@dataclass(frozen=True)
class OneInstance(Rule):
    """Write the measure as sites coupled in pairs; the couplings keep their values."""

    title: ClassVar[str] = "One instance: sites coupled in pairs"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = "mezard1987"

    def __call__(self, before: Form) -> PairGraph:
        assert isinstance(before, GibbsDeclaration)
        check_messages(before.model)
        action = Replicate()(before)  # the exponent of one copy, linear in the couplings
        sites = tuple(graph_site(action, population) for population in action.populations)
        fields = action.fields
        between = [u for u in action.uses if not any(fields[a].single for a, _ in (*u.row, *u.col))]
        couplings = tuple(_coupling(action, use.coupling, use.coef, use.row, use.col) for use in between)
        return PairGraph(sites, couplings, action.laws, action.parameters)


def check_messages(model: Gibbs) -> None:
    """Refuse measures that are no pairs of sites with one variable each, as they stand.

    Raises
    ------
    NotCovered
        Zero temperature, local fields that are coupled to each other, or rows of a matrix that are named.
    """
    if model.cold:
        raise NotCovered("messages at zero temperature are not covered: take the measure at a low temperature")
    for matrix in model.matrices:
        if isinstance(matrix, Circulant):
            raise NotCovered(
                f"{matrix} couples the local fields of an instance to each other: messages about sites with a measure "
                "of their own are covered"
            )
    for row in model.rows:
        raise NotCovered(f"{row}, a named row of a matrix, condenses: messages next to a Quenched pattern are covered")


def graph_site(action: ReplicatedAction, population: Population) -> GraphSite:
    """The one variable of the sites of a population."""
    own = [f for f in action.fields.values() if f.population == population and f.role in ("state", "hat")]
    own = [f for f in own if not f.single]
    if len(own) != 1:
        names = ", ".join(f.name for f in own)
        raise NotCovered(
            f"sites of {population.name!r} have {len(own)} variables ({names}): messages about one variable a site "
            "are covered, a state or a local field"
        )
    weight = action.site(population.name)
    kind: Literal["state", "channel"] = "state" if own[0].role == "state" else "channel"
    symbol = action.fields[own[0].name.removeprefix("hat_")].symbol
    variable = Variable(population.name, population.fraction, own[0].name, kind, weight, symbol)
    bias, quadratic, norm, sphere = S.Zero, S.Zero, None, False
    if weight.prior:
        bias, quadratic, _ = polynomial(weight.exponent, weight.prior[0])
        norm, sphere = fixed_norm(weight.prior[1]), on_sphere(weight.prior[1])
    return GraphSite(
        population.name,
        population.fraction,
        kind,
        symbol,
        replica_site(variable),
        bias,
        quadratic,
        tuple(weight.labels),
        norm,
        sphere,
        _seen(action, weight),
    )


def _seen(action: ReplicatedAction, weight: SiteWeight) -> Seen | None:
    """The local field of the disorder that a weight reads, with the couplings that it is made of."""
    if not weight.given:
        return None
    if len(weight.given) > 1:
        names = ", ".join(name for name, _, _ in weight.given)
        raise NotCovered(f"sites of {weight.population.name!r} see {names}: messages next to one teacher are covered")
    ((name, mean, variance),) = weight.given
    uses = []
    for use in action.uses:
        ends = [action.fields[atoms[0][0]] for atoms in (use.row, use.col)]
        if ends[0].name == f"hat_{name}" or ends[1].name == f"hat_{name}":
            at_row = ends[0].name == f"hat_{name}"
            far = ends[1] if at_row else ends[0]
            assert far.definition is not None
            uses.append((use.coupling, at_row, (use.coef * I).expand(), End(far.population.name, far.definition)))
    return Seen(action.fields[name].symbol, mean, variance, tuple(uses))


def _coupling(
    action: ReplicatedAction, matrix: str, coef: Expr, row: tuple[Atom, ...], col: tuple[Atom, ...]
) -> Coupling:
    if len(row) != 1 or len(col) != 1:
        raise NotCovered(f"{matrix} couples products of fields: pairs of sites are covered")
    ends = [action.fields[atoms[0][0]] for atoms in (row, col)]
    hats = sum(f.role == "hat" for f in ends)  # û = i x
    factors = [_multiple(action, f.name) for f in ends]
    return Coupling(
        matrix,
        Mul(coef, I**hats).expand(),
        End(ends[0].population.name, factors[0]),
        End(ends[1].population.name, factors[1]),
    )


def _multiple(action: ReplicatedAction, name: str) -> Expr:
    """What a field is as a multiple of the variable of its site (the i of a conjugate field left out)."""
    fld = action.fields[name]
    if fld.role != "output":
        return S.One
    state = next(f for f in action.fields.values() if f.role == "state" and f.population == fld.population)
    ratio = (fld.definition / state.symbol).expand()
    if ratio.has(state.symbol):
        raise NotCovered(
            f"the couplings read {fld.definition}: messages about multiples of the state {state.symbol} are covered"
        )
    return ratio
