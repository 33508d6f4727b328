"""Step 1 of the replicas reading: a Gibbs measure becomes a copied action whose copies are replicas.

E[Zⁿ] is the same object as the generating functional of a dynamics: uses of the couplings, one for every copy, and a
weight per site. An energy that is linear in the couplings, Σ ψ (J @ χ), is a use as it stands; everything else gives
`J @ χ` a local field u and its conjugate û.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sympy import Add, Dummy, Expr, I, Mul, Poly, S, Symbol, cancel, pi, re
from sympy.logic.boolalg import Boolean

from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Apply, Transpose
from quenched.theory.distributions import Law, Normal, Uniform
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, Quenched, UnitSymbol, population_of, unbind
from quenched.theory.landscape import Height
from quenched.theory.laws import FunctionLaw, averaging_law, covariance, law_of
from quenched.theory.lower import CopiedAction, SiteField, Use
from quenched.theory.observables import Mean
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.spaces import N, Population

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs


#: The inverse temperature of a measure at zero temperature, before its limit is taken.
COLD = Symbol("beta", positive=True)


@dataclass(frozen=True)
class SiteWeight:
    """Weight of one site and one copy: prior of its state, exp(exponent), and factors.

    Attributes
    ----------
    population : where
    prior : (state, law), None for sites without a state of their own
    exponent, factor : in the state, the local fields and the labels of the site
    labels : quenched numbers of the site
    given : local fields that are disorder, each (field, mean and variance of the noise that is added to it)
    """

    population: Population
    prior: tuple[Symbol, Law] | None
    exponent: Expr
    factor: Expr
    labels: tuple[Quenched, ...]
    given: tuple[tuple[str, Expr, Expr], ...] = ()

    def line(self) -> Line:
        """The weight as printed."""
        plain, tex = [], []
        if self.prior:
            plain.append(f"prior({text(self.prior[0])})")
            tex.append(rf"\mathrm{{prior}}({latex(self.prior[0])})")
        if self.exponent != 0:
            plain.append(f"exp({text(self.exponent)})")
            tex.append(rf"\exp\left({latex(self.exponent)}\right)")
        if self.factor != 1:
            plain.append(f"[{text(self.factor)}]")
            tex.append(rf"\left[{latex(self.factor)}\right]")
        name = self.population.name
        return Line(f"weight of a site ({name}) = {' '.join(plain)}", rf"w_{{\mathrm{{{name}}}}} = {' '.join(tex)}")


@dataclass(frozen=True)
class ReplicatedAction(CopiedAction):
    """E[Zⁿ] before the average: uses of the couplings at every replica, and the weight of a site."""

    name: ClassVar[str] = "replicated measure"
    sites: tuple[SiteWeight, ...] = ()

    def __hash__(self) -> int:
        return hash((self.sites, self.uses))

    def lines(self) -> list[Line]:
        out = [site.line() for site in self.sites]
        for f in self.of_role("output"):
            assert f.definition is not None
            out.append(Line(f"{text(f.symbol)} = {text(f.definition)}", f"{latex(f.symbol)} = {latex(f.definition)}"))
        return out + [self._use_line(use) for use in self.uses]

    def site(self, population: str) -> SiteWeight:
        """The weight of the sites of a population."""
        return next(s for s in self.sites if s.population.name == population)


@dataclass(frozen=True)
class GibbsDeclaration(Form):
    """Step 0: the measure itself, printed back with explicit indices."""

    name: ClassVar[str] = "declaration"
    model: Gibbs

    def lines(self) -> list[Line]:
        rows = [row.removesuffix(r" \\") for row in self.model.indexed_latex().splitlines()[1:-1]]
        return [Line(plain, tex) for plain, tex in zip(self.model.indexed(), rows, strict=True)]


@dataclass(frozen=True)
class Replicate(Rule):
    """Write Zⁿ for integer n: n copies of the units with the same disorder."""

    title: ClassVar[str] = "Replicas: Zⁿ for integer n"
    assumption: ClassVar[str] = "E ln Z = lim_{n→0} (E Zⁿ − 1)/n"
    source: ClassVar[str] = "edwards1975"

    def __call__(self, before: Form) -> ReplicatedAction:
        assert isinstance(before, GibbsDeclaration)
        return _Lowering(before.model).run()


class _Lowering:
    """Collects fields, uses and site weights while it reads the exponent of a measure."""

    def __init__(self, model: Gibbs) -> None:
        self.model = model
        self.fields: dict[str, SiteField] = {}
        self.uses: list[Use] = []
        self.laws = {m.name: law_of(m) for m in model.matrices if not isinstance(m, Circulant)}
        self.exponent: dict[Population, Expr] = {}
        self.factor: dict[Population, Expr] = {}
        self.outputs: dict[tuple[Expr, Population], str] = {}
        self.modes: dict[Population, Quenched] = {}

    def run(self) -> ReplicatedAction:
        used = {a.rows for e in (self.model.energy, *self.model.weights) for a in e.atoms(Apply)}
        for population in self.model.populations:
            if population.size is not None and (population in used or population in map(_home, self.model.fields)):
                raise NotCovered(f"population {population.name!r} has a finite size: give it a fraction=")
        for fld in self.model.fields:
            if fld.name in self.fields:
                raise NotCovered(f"two fields are called {fld.name!r}: give them different names")
            self.fields[fld.name] = SiteField(fld.name, "state", fld.population, fld)
            self.outputs[fld, fld.population] = fld.name
        self._check_names()
        beta = COLD if self.model.cold else self.model.beta
        for term in Add.make_args((-beta * self.model.energy).expand()):
            self._energy(term)
        for weight in self.model.weights:
            over = population_of(weight, "weight")
            assert over is not None
            self.factor[over] = self.factor.get(over, S.One) * self._local(weight, over)
        sites = self._sites()
        return ReplicatedAction(
            "none",
            self.fields,
            (),
            tuple(self.uses),
            tuple(self.laws.values()),
            self.model.parameters,
            sites=sites,
        )

    def _check_names(self) -> None:
        """Names that the derivation itself gives to numbers are no declaration's."""
        cold = self.model.cold
        for own in (*self.model.parameters, *self.model.quenched):
            if own.name.startswith("L_") and own.name[2:].isdigit():
                raise NotCovered(f"{own.name!r} is what the derivation calls a derivative of L: give it another name")
            if own == Symbol("n", real=True):
                raise NotCovered("a real parameter 'n', as the number of replicas is called: give it another name")
            if cold and own.name in (COLD.name, "chi"):
                kind = "number" if isinstance(own, Quenched) else "parameter"
                raise NotCovered(f"a {kind} called {own.name!r} at zero temperature: give it another name")

    def _sites(self) -> tuple[SiteWeight, ...]:
        priors = {f.population: (f, law) for f, law in self.model.priors.items()}
        if len(priors) < len(self.model.priors):
            raise NotCovered("several fields share a population: one state per unit is covered")
        where = dict.fromkeys((*priors, *self.exponent, *self.factor))
        return tuple(self._site(p, priors.get(p)) for p in where)

    def _site(self, population: Population, prior: tuple[Symbol, Law] | None) -> SiteWeight:
        """The weight of a site, every sum of `J @ χ` that it depends on replaced by one local field."""
        weight = [self.exponent.get(population, S.Zero), self.factor.get(population, S.One)]
        nodes = sorted({n for w in weight for n in _outermost(w)}, key=str)
        labels = [q for q in self.model.quenched if q.population == population]
        self._check_modes(population, weight, nodes, labels)
        labels += [self.modes[population]] if population in self.modes else []
        given = [n for n in nodes if not n.has(Field)]
        for group, sizes in combined(weight, [n for n in nodes if n not in given]):
            weight = substituted(weight, group, sizes, self._field("u", group, sizes, population))
        extra = []
        for group, sizes in combined(weight, [*given, *(q for q in labels if given and isinstance(q.law, Normal))]):
            seen = [(n, c) for n, c in zip(group, sizes, strict=True) if isinstance(n, Apply)]
            if not seen:
                continue
            symbol = self._field("v", [n for n, _ in seen], [c for _, c in seen], population)
            weight = substituted(weight, group, sizes, symbol)
            noise = [(q.law, c) for q, c in zip(group, sizes, strict=True) if isinstance(q, Quenched)]
            mean = Add(*(c * law.mean_() for law, c in noise))
            extra.append((symbol.name, mean, Add(*(c**2 * law.variance_() for law, c in noise))))
        own = tuple(q for q in labels if any(w.has(q) for w in weight) or prior)
        return SiteWeight(population, prior, weight[0].expand(), weight[1], own, tuple(extra))

    # -- energies --------------------------------------------------------------------------------------------------
    def _energy(self, term: Expr) -> None:
        """One product of means: a weight per site, a bilinear use, or a product of two means."""
        if term == 0:
            return
        means = [(b, e) for b, e in (f.as_base_exp() for f in Mul.make_args(term)) if isinstance(b, Mean)]
        factors = [b for b, e in means for _ in range(int(e))]
        if term.atoms(Height):
            self._height(term)
            return
        if not factors and not term.atoms(Mean):  # a shift of the energy
            home = self.model.fields[0].population
            self.exponent[home] = self.exponent.get(home, S.Zero) + term / home.count
            return
        scalar = term / Mul(*factors)
        if scalar.atoms(Mean) or len(factors) > 2:
            raise NotCovered(f"the term {term} of the exponent: products of at most two means are covered")
        if len(factors) == 2:
            self._product(scalar, factors[0], factors[1])
            return
        (mean,) = factors
        self._sum(scalar / mean.population.count, unbind(mean.body), mean.population)

    def _height(self, term: Expr) -> None:
        """c·V(s) of a random function: a use with the state alone."""
        (node, *more) = term.atoms(Height)
        coef = term / node
        if more or coef.atoms(Mean, Height) or coef.has(N):
            raise NotCovered(f"the term {term} of the exponent: a multiple of one random function is covered")
        name = node.landscape.name
        self.laws[name] = FunctionLaw(name, node.population, node.population, (), covariance(node.landscape))
        self.uses.append(Use(name, coef, ((self._output(node.field, node.population), 0),), ()))

    def _product(self, scalar: Expr, left: Mean, right: Mean) -> None:
        """c·⟨a⟩⟨b⟩ is a deterministic coupling of a to b."""
        if left.atoms(Apply) or right.atoms(Apply):
            raise NotCovered(f"{left}·{right}: products of means of coupled quantities are not covered")
        name = f"mean_{len(self.laws)}"
        self.laws[name] = averaging_law(name, left.population, right.population)
        coef = scalar / left.population.count
        row, col = (self._output(unbind(m.body), m.population) for m in (left, right))
        self._use(name, coef, row, col)

    def _sum(self, coef: Expr, body: Expr, population: Population) -> None:
        """coef · Σ_i body_i."""
        body = self._diagonal(body, population)
        if coef.has(N):
            raise NotCovered(f"the exponent contains {coef} per unit: an energy is extensive, as from total(...)")
        nodes = [a for a in body.atoms(Apply) if a in Mul.make_args(body)]
        if len(nodes) == 1 and not (body / nodes[0]).has(Apply) and (body / nodes[0]).has(Field):
            (node,) = nodes
            self._bilinear(coef, body / node, node)
            return
        site = coef * self._local(body, population)
        self.exponent[population] = self.exponent.get(population, S.Zero) + site

    def _diagonal(self, body: Expr, population: Population) -> Expr:
        """Σ u·(X @ u) of a translation-invariant X in its Fourier modes: Σ λ(θ) u², where θ is uniform."""
        turned = [f for f in Mul.make_args(body) if isinstance(f, Apply) and isinstance(f.matrix, Circulant)]
        if len(turned) != 1:
            return body
        (node,) = turned
        symmetric(node.matrix)
        if body / node != unbind(node.body) or not isinstance(unbind(node.body), Apply):
            raise NotCovered(f"{body}: a translation-invariant matrix in a measure stands between equal patterns")
        if population not in self.modes:
            name = self._unused("theta")
            self.modes[population] = Quenched(name, Uniform(0, 2 * pi), over=population)
        return re(node.matrix.mode(self.modes[population])).expand(complex=True) * unbind(node.body) ** 2

    def _check_modes(
        self, population: Population, weight: list[Expr], nodes: list[Apply], labels: list[Quenched]
    ) -> None:
        """Fourier modes of patterns are patterns of the same law under a quadratic weight that is alike for all."""
        if population not in self.modes:
            return
        plain = weight[0].is_polynomial(*nodes) and Poly(weight[0], *nodes).total_degree() == 2
        if len(nodes) != 1 or not plain or weight[1] != 1 or any(w.has(q) for w in weight for q in labels):
            raise NotCovered(
                f"{population.name!r} has a translation-invariant matrix: only a quadratic energy beside it"
            )

    def _bilinear(self, coef: Expr, left: Expr, node: Apply) -> None:
        """Σ_i left_i (M @ χ)_i: a use, or Σ (Mᵀ @ left)·χ where χ contains couplings itself."""
        chi = unbind(node.body)
        if chi.has(Apply):
            flipped = Apply(node.matrix.T, left)
            self._sum(coef, flipped * chi, node.cols)
            return
        row, col = self._output(left, node.rows), self._output(chi, node.cols)
        if isinstance(node.matrix, Transpose):
            self._use(node.matrix.matrix.name, coef, col, row)
        else:
            self._use(node.matrix.name, coef, row, col)

    def _use(self, matrix: str, coef: Expr, row: str, col: str) -> None:
        self.uses.append(Use(matrix, coef, ((row, 0),), ((col, 0),)))

    # -- local fields ----------------------------------------------------------------------------------------------
    def _local(self, expr: Expr, population: Population) -> Expr:
        """A per-unit expression that may read couplings."""
        bare = expr.xreplace({node: S.Zero for node in _outermost(expr)})
        if bare.atoms(Mean):
            raise NotCovered(f"a mean inside {expr}: write it as a term of the energy")
        return expr

    def _field(self, stem: str, nodes: Sequence[Expr], sizes: Sequence[Expr], population: Population) -> Symbol:
        """The local field Σ c (J @ χ), its conjugate, and their uses of the couplings.

        Where χ is disorder (weights of a teacher), so is the field: both exist once, not in every replica.
        """
        count = sum(f.role == "local" and f.name.split("_")[0] == stem for f in self.fields.values())
        name = self._unused(stem if not count else f"{stem}_{count + 1}")
        hat, single = f"hat_{name}", stem == "v"
        self.fields[name] = SiteField(name, "local", population, Symbol(name, real=True), None, single)
        tex = Symbol(rf"\hat{{{name[0]}}}" + name[1:], real=True)
        self.fields[hat] = SiteField(hat, "hat", population, tex, None, single)
        for node, size in zip(nodes, sizes, strict=True):
            body = unbind(node.body)
            if body.has(Apply):
                raise NotCovered(f"{node}: couplings inside couplings have no place in a measure yet")
            ends = (hat, self._output(body, node.cols, single))
            flipped = isinstance(node.matrix, Transpose)
            matrix = node.matrix.matrix if flipped else node.matrix
            self._use(matrix.name, -I * size, *(ends[::-1] if flipped else ends))
        return self.fields[name].symbol

    def _output(self, body: Expr, population: Population, single: bool = False) -> str:
        """The name of what a coupling reads: the state itself, or an output of its own."""
        key = (body, population)
        if key not in self.outputs:
            name = self._unused(f"psi_{len(self.outputs)}")
            self.outputs[key] = name
            self.fields[name] = SiteField(name, "output", population, Symbol(name, real=True), body, single)
        return self.outputs[key]

    def _unused(self, name: str) -> str:
        taken = {u.name for u in (*self.model.fields, *self.model.quenched, *self.model.parameters)} | set(self.fields)
        while name in taken:
            name += "_"
        return name


def symmetric(between: Circulant) -> Circulant:
    """The matrix between patterns of an energy.

    Raises
    ------
    NotCovered
        One that is not symmetric: only its symmetric part would count.
    """
    if not between.symmetric:
        raise NotCovered(
            f"{between.name} is not symmetric, and an energy sees the mean of it and its transpose alone: declare that "
            "one, with equal entries at shifts r and −r, or a Dynamics or Map for couplings that are not symmetric"
        )
    return between


def _outermost(expr: Expr) -> list[Apply]:
    """The `Apply` nodes of an expression that are not inside another one."""
    if isinstance(expr, Apply):
        return [expr]
    return list(dict.fromkeys(node for arg in expr.args if isinstance(arg, Expr) for node in _outermost(arg)))


def _home(fld: Field) -> Population:
    return fld.population


def combined(weight: Sequence[Expr], nodes: Sequence[Expr]) -> list[tuple[list[Expr], list[Expr]]]:
    """Groups of quantities that a weight depends on only through one sum Σ c·node each: (nodes, coefficients)."""
    groups: list[tuple[list[Expr], list[Expr]]] = []
    for node in nodes:
        for group, sizes in groups:
            ratio = _ratio(weight, node, group[0])
            if ratio is not None:
                group.append(node)
                sizes.append(ratio)
                break
        else:
            groups.append(([node], [S.One]))
    return groups


def _ratio(weight: Sequence[Expr], node: Expr, first: Expr) -> Expr | None:
    """c where the weight depends on `node` only through first + c·node, else None."""
    a, b = Dummy(real=True), Dummy(real=True)
    found: set[Expr] = set()
    for part in (w.xreplace({node: b, first: a}) for w in weight):
        if part.has(a, b):
            found.add(cancel(part.diff(b) / part.diff(a)) if part.has(a) else S.NaN)
    if len(found) != 1:
        return None
    (ratio,) = found
    if ratio.has(a, b, S.NaN) or ratio.is_finite is False or any(hasattr(s, "population") for s in ratio.free_symbols):
        return None
    rest = [w.xreplace({first: a - ratio * b, node: b}) for w in weight]
    return ratio if not any(_expanded(w).has(b) for w in rest) else None


def _expanded(expr: Expr) -> Expr:
    """An expression with the arguments of its functions multiplied out, too; quantities of units are left whole."""
    if not expr.args or not isinstance(expr, Expr | Boolean) or isinstance(expr, Apply | UnitSymbol):
        return expr
    return expr.func(*(_expanded(a) for a in expr.args)).expand() if not expr.is_Boolean else expr


def substituted(weight: Sequence[Expr], nodes: Sequence[Expr], sizes: Sequence[Expr], symbol: Symbol) -> list[Expr]:
    """The weight in terms of a symbol for Σ c·node."""
    rest = symbol - Add(*(c * n for n, c in zip(nodes[1:], sizes[1:], strict=True)))
    if len(nodes) == 1:
        return [w.xreplace({nodes[0]: symbol}) for w in weight]
    return [_expanded(w.xreplace({nodes[0]: rest})) for w in weight]
