"""Ansatz on replicas: a group acts on the copies, and order parameters are constant on its orbits.

Under replica symmetry a sum over copies splits by which copies coincide: n terms with all equal, n(n−1) with two
different ones, and so on. One Gaussian field per level of the ansatz then decouples the copies of a site,

    exp ½ Σ_ab K_ab x_a x_b = E_z Π_a exp(√k z x_a + ½ (K_d − k) x_a²),

for states and for conjugate fields (x = −iû) alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import ClassVar, Literal

from sympy import Add, Expr, I, Mul, Rational, S, Symbol, exp, pi, sqrt

from quenched.theory.distributions import Law, SpikeSlab
from quenched.theory.errors import NotCovered
from quenched.theory.lower import SiteField
from quenched.theory.priors import Spherical, fixed_norm
from quenched.theory.problem_replicas import L, Piece, ReplicaSite, X, site_average, slope
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.replica_lower import ReplicatedAction, SiteWeight
from quenched.theory.saddle import SiteProblem, SiteTerm
from quenched.theory.spaces import Population
from quenched.theory.terms import Atom, Term

#: Number of replicas.
NREP = Symbol("n", real=True)


@dataclass(frozen=True)
class Variable:
    """The one variable x of a site: its state, or −i times the conjugate of its local field."""

    population: str
    fraction: Expr
    name: str
    kind: Literal["state", "channel"]
    weight: SiteWeight
    local: Symbol

    @property
    def measure(self) -> ReplicaSite:
        """The measure of the variable as data."""
        return replica_site(self)


@dataclass(frozen=True)
class Orbit:
    """An order parameter on one orbit of copies: ⟨Π atoms⟩ with copies numbered by which of them coincide."""

    population: str
    atoms: tuple[Atom, ...]

    @property
    def copies(self) -> int:
        """Number of different copies."""
        return 1 + max(c for _, c in self.atoms)


@dataclass(frozen=True)
class SiteInField:
    """Field of one site under the ansatz: mean b, variance k, and the coefficient V of x²/2 (all in `x`)."""

    variable: Variable
    b: Expr
    k: Expr
    v: Expr


@dataclass(frozen=True)
class RSAction(Form):
    """The free entropy of n replicas on the orbits of the ansatz.

    Attributes
    ----------
    problem : the single-site problem of n copies
    values : orbit → its value, a symbol, or a number where the prior fixes it
    terms : Σ (1 − #factors)·Term for n copies, in n and the values
    sites : field of every site
    multipliers : population → symbol λ that keeps the norm of a sphere
    """

    name: ClassVar[str] = "replica-symmetric action"
    problem: SiteProblem
    values: dict[Orbit, Expr]
    terms: Expr
    sites: tuple[SiteInField, ...]
    multipliers: dict[str, Symbol]

    def __hash__(self) -> int:
        return hash((self.terms, self.sites))

    def lines(self) -> list[Line]:
        fields = self.problem.action.fields
        out = []
        for orbit, value in self.values.items():
            marks = "abcdef"
            body = " ".join(f"{_x(fields[a].name, fields, text)}_{marks[c]}" for a, c in orbit.atoms)
            tex = r"\, ".join(f"{_x(fields[a].name, fields, latex)}_{marks[c]}" for a, c in orbit.atoms)
            out.append(Line(f"⟨{body}⟩ = {text(value)}", rf"\langle {tex} \rangle = {latex(value)}"))
        whole, tex = f"Φ_n = {text(self.terms)}", rf"\Phi_n = {latex(self.terms)}"
        for s in self.sites:
            f, name = s.variable.fraction, s.variable.population
            whole += f" + {text(f)}·ln E exp[n L_{name}]"
            tex += rf" + {latex(f)} \ln \mathbb{{E}} e^{{n L_{{\mathrm{{{name}}}}}}}"
        out.append(Line(whole, tex))
        return out + [site_line(s) for s in self.sites]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, piece in enumerate(Add.make_args(self.terms)):
            yield f"term {k + 1} × 1.1", replace(self, terms=self.terms + piece / 10)
        for k, s in enumerate(self.sites):
            for what in ("b", "k", "v"):
                if getattr(s, what) != 0:
                    bad = replace(s, **{what: getattr(s, what) * Rational(11, 10)})
                    new = (*self.sites[:k], bad, *self.sites[k + 1 :])
                    yield f"{what} of {s.variable.population} × 1.1", replace(self, sites=new)


def _x(name: str, fields: dict[str, SiteField], show: Callable[[object], str]) -> str:
    shown = str(show(fields[name].symbol))
    return f"({'−' if show is text else '-'}i{shown})" if fields[name].role == "hat" else shown


def site_line(s: SiteInField) -> Line:
    """L of one site, written out."""
    b, k, v = (text(e) for e in (s.b, s.k, s.v))
    name = s.variable.population
    head = f"L_{name}: b = {b} + √({k}) z, V = {v}"
    tex = rf"L_{{\mathrm{{{name}}}}}:\ b = {latex(s.b)} + \sqrt{{{latex(s.k)}}}\, z,\ V = {latex(s.v)}"
    state = s.variable.kind == "state"
    comment = "L = ln ∫dμ(x) exp(b x + V x²/2) over the state" if state else "L = ln ∫Dz f(b + √V z)"
    return Line(head, tex, comment)


@dataclass(frozen=True)
class ReplicaSymmetry(Rule):
    """Let all replicas be equivalent, and decouple them by one Gaussian field per site."""

    title: ClassVar[str] = "Replica symmetry"
    assumption: ClassVar[str] = "order parameters are invariant under all permutations of the replicas"
    source: ClassVar[str] = "sherrington1975"

    def __call__(self, before: Form) -> RSAction:
        assert isinstance(before, SiteProblem)
        return _Ansatz(before).run()


class _Ansatz:
    """Orbits, contraction and decoupling for one site problem."""

    def __init__(self, problem: SiteProblem) -> None:
        action = problem.action
        assert isinstance(action, ReplicatedAction)
        self.problem, self.action = problem, action
        self.variables = {v.population: v for v in map(self._variable, action.populations)}
        self.values: dict[Orbit, Expr] = {}
        self.multipliers: dict[str, Symbol] = {}

    def run(self) -> RSAction:
        self._name_orbits()
        terms = Add(*((1 - len(t.factors)) * self._contract(t) for t in self.problem.functional.terms))
        sites, norms = [], []
        for variable in self.variables.values():
            site, extra = self._site(variable)
            sites.append(site)
            norms.append(NREP * variable.fraction * extra)
        return RSAction(self.problem, self.values, (terms + Add(*norms)).expand(), tuple(sites), self.multipliers)

    # -- sites -----------------------------------------------------------------------------------------------------
    def _variable(self, population: Population) -> Variable:
        name = population.name
        own = [f for f in self.action.fields.values() if f.population == population and f.role in ("state", "hat")]
        if len(own) != 1:
            raise NotCovered(
                f"sites of {name!r} have {len(own)} variables ({', '.join(f.name for f in own)}): one is covered, "
                "a state or a local field"
            )
        kind: Literal["state", "channel"] = "state" if own[0].role == "state" else "channel"
        local = self.action.fields[own[0].name.removeprefix("hat_")].symbol
        return Variable(name, population.fraction, own[0].name, kind, self.action.site(name), local)

    def _coefficient(self, atom: str) -> Expr:
        """What an atom is as a multiple of the site variable: û = i x, an output c·s."""
        fld = self.action.fields[atom]
        if fld.role == "hat":
            return I
        if fld.role == "state":
            return S.One
        state = self.action.fields[self.variables[fld.population.name].name].symbol
        ratio = (fld.definition / state).expand()
        if ratio.has(state):
            raise NotCovered(f"the couplings read {fld.definition}: only multiples of the state {state} are covered")
        return ratio

    def _site(self, variable: Variable) -> tuple[SiteInField, Expr]:
        """Field of a site, and what it adds to the free entropy of one copy where the norm is fixed."""
        weight = variable.weight
        b, diagonal, off = S.Zero, S.Zero, S.Zero
        if weight.prior:
            b, diagonal, _ = polynomial(weight.exponent, weight.prior[0])
        for term in self.problem.terms:
            if term.population != variable.population:
                continue
            single, same, other = self._site_term(term)
            b, diagonal, off = b + single, diagonal + same, off + other
        v = (diagonal - off).expand()
        norm = fixed_norm(weight.prior[1]) if weight.prior else None
        if norm is None:
            return SiteInField(variable, b, off, v), S.Zero
        extra = v * norm / 2
        if v.has(*(q for q in weight.labels)):
            raise NotCovered(f"the quadratic field of {variable.name} depends on the labels of its site")
        if isinstance(weight.prior[1], Spherical):  # type: ignore[index]
            lam = self._fresh("lambda", variable.name)
            self.multipliers[variable.population] = lam
            return SiteInField(variable, b, off, -lam), extra + lam * norm / 2
        return SiteInField(variable, b, off, S.Zero), extra

    def _site_term(self, term: SiteTerm) -> tuple[Expr, Expr, Expr]:
        """Contributions of a site term to b, to K_aa and to K_ab."""
        own = sorted({c for _, c in term.atoms})
        beyond = {c for ref in term.refs for c in ref.at} - set(own)
        if beyond or term.kernels or term.power != 0:
            raise NotCovered(f"a site term in {[a for a, _ in term.atoms]}: sums over further replicas are not covered")
        scale = term.coef * Mul(*(self._coefficient(a) for a, _ in term.atoms))
        equal = scale * Mul(
            *(self._value(ref.op.population, _at(ref.op.atoms, ref.at, dict.fromkeys(own, 0))) for ref in term.refs)
        )
        if len(term.atoms) == 1:
            return equal, S.Zero, S.Zero
        if len(term.atoms) == 2 and len(own) == 1:
            return S.Zero, 2 * equal, S.Zero
        if len(term.atoms) == 2:
            names = {c: c for c in own}
            apart = scale * Mul(*(self._value(r.op.population, _at(r.op.atoms, r.at, names)) for r in term.refs))
            return S.Zero, 2 * equal, 2 * apart
        raise NotCovered(f"a site term of degree {len(term.atoms)}: sites see linear and quadratic fields")

    # -- orbits ----------------------------------------------------------------------------------------------------
    def _value(self, population: str, atoms: tuple[Atom, ...]) -> Expr:
        """i^hats times the value of the orbit in terms of x."""
        hats = sum(self.action.fields[a].role == "hat" for a, _ in atoms)
        return I**hats * self.values[orbit_of(population, atoms)]

    def _name_orbits(self) -> None:
        found = []
        for term in self.problem.functional.terms:
            for names, _ in coincidences(term.copies):
                found += [orbit_of(f.population, _at(f.atoms, None, names)) for f in term.factors]
        orbits = sorted(dict.fromkeys(found), key=lambda o: (o.population, o.copies, o.atoms))
        letters = [self._letter(o) for o in orbits]
        for orbit, letter in zip(orbits, letters, strict=True):
            fixed = self._fixed(orbit)
            tag = "" if letters.count(letter) == 1 else "_".join(dict.fromkeys(a for a, _ in orbit.atoms))
            self.values[orbit] = self._fresh(letter, tag) if fixed is None else fixed

    def _letter(self, orbit: Orbit) -> str:
        """m, q, Q for states, a, r, R for conjugate fields: one copy, two copies, twice the same copy."""
        hat = self.action.fields[orbit.atoms[0][0]].role == "hat"
        if len(orbit.atoms) > 2:
            return "w"
        return _LETTERS[hat][len(orbit.atoms), orbit.copies]

    def _fixed(self, orbit: Orbit) -> Expr | None:
        """⟨x²⟩ where the prior fixes it and the coefficients do not depend on labels."""
        weight = self.variables[orbit.population].weight
        norm = fixed_norm(weight.prior[1]) if weight.prior else None
        if norm is None or orbit.copies != 1 or len(orbit.atoms) != 2:
            return None
        coefficient = Mul(*(self._coefficient(a) for a, _ in orbit.atoms))
        return None if coefficient.has(*weight.labels) else coefficient * norm

    def _fresh(self, letter: str, tag: str) -> Symbol:
        taken = {s.name for s in self.action.parameters} | {str(v) for v in self.values.values()}
        taken |= set(self.action.fields)
        name = letter if not tag or letter == "lambda" else f"{letter}_{tag}"
        while name in taken:
            name += f"_{tag}" if tag else "_0"
        return Symbol(name, real=True)

    def _contract(self, term: Term) -> Expr:
        """Σ over n copies of a term: one value and one multiplicity for every way in which copies coincide."""
        if term.kernels or term.power != 0:
            raise NotCovered(f"a term of order N^{1 + term.power} in a measure")
        total = S.Zero
        for names, blocks in coincidences(term.copies):
            count = Mul(*(NREP - j for j in range(blocks)))
            total += count * Mul(*(self._value(f.population, _at(f.atoms, None, names)) for f in term.factors))
        return term.coef * total


_LETTERS = {False: {(1, 1): "m", (2, 2): "q", (2, 1): "Q"}, True: {(1, 1): "a", (2, 2): "r", (2, 1): "R"}}


def coincidences(copies: tuple[int, ...]) -> Iterator[tuple[dict[int, int], int]]:
    """All set partitions of the copies: (copy → block, number of blocks)."""
    if not copies:
        yield {}, 0
        return
    *rest, last = copies
    for names, blocks in coincidences(tuple(rest)):
        for block in range(blocks + 1):
            yield names | {last: block}, max(blocks, block + 1)


def _at(atoms: tuple[Atom, ...], at: tuple[int, ...] | None, names: dict[int, int]) -> tuple[Atom, ...]:
    """Atoms with their slots put at copies (`at`), and copies put into blocks."""
    return tuple((a, names[c if at is None else at[c]]) for a, c in atoms)


def orbit_of(population: str, atoms: tuple[Atom, ...]) -> Orbit:
    """The canonical orbit: blocks renumbered so that the atoms come out smallest."""
    blocks = sorted({c for _, c in atoms})
    trials = []
    for order in permutations(range(len(blocks))):
        names = dict(zip(blocks, order, strict=True))
        trials.append(tuple(sorted((a, names[c]) for a, c in atoms)))
    return Orbit(population, min(trials))


def polynomial(expr: Expr, x: Symbol) -> tuple[Expr, Expr, Expr]:
    """(linear coefficient, twice the quadratic one, rest) of an exponent in x."""
    linear, quadratic, rest = S.Zero, S.Zero, S.Zero
    for term in Add.make_args(expr.expand()):
        ratio = term / x
        if not ratio.has(x):
            linear += ratio
        elif not (ratio / x).has(x):
            quadratic += 2 * ratio / x
        else:
            rest += term
    return linear, quadratic, rest


# -- base measures -------------------------------------------------------------------------------------------------
def replica_site(variable: Variable) -> ReplicaSite:
    """Base measure of a site as data."""
    weight = variable.weight
    labels = tuple((q, q.law.weights(), S.Zero if q.law.weights() else q.law.density(X)) for q in weight.labels)
    if weight.prior is None:
        f = (exp(weight.exponent) * weight.factor).xreplace({variable.local: X})
        return ReplicaSite(variable.population, "channel", (Piece(None, f),), labels)
    state, law = weight.prior
    _, _, rest = polynomial(weight.exponent, state)
    f = (exp(rest) * weight.factor).xreplace({state: X})
    pieces = tuple(
        Piece(p.value, (p.weight * f).xreplace({X: p.value} if p.value is not None else {})) for p in prior_pieces(law)
    )
    return ReplicaSite(variable.population, "state", pieces, labels)


def prior_pieces(law: Law) -> tuple[Piece, ...]:
    """A law of one number as atoms and densities; of a sphere the flat measure, its volume divided out."""
    if isinstance(law, Spherical):
        return (Piece(None, exp(-S.Half) / sqrt(2 * pi)),)
    if law.weights():
        return tuple(Piece(value, p) for value, p in law.weights())
    if isinstance(law, SpikeSlab):
        p, slab = law.args
        return (Piece(S.Zero, 1 - p), *(Piece(q.value, p * q.weight) for q in prior_pieces(slab)))
    return (Piece(None, law.density(X)),)


# -- averages ------------------------------------------------------------------------------------------------------
def moment(power: int) -> Expr:
    """⟨x^power⟩ of one copy in L₁, L₂, …: m_{p+1} = ∂_b m_p + L₁ m_p."""
    out: Expr = S.One
    for _ in range(power):
        out = (slope(out) + L[1] * out).expand()
    return out


def orbit_average(site: SiteInField, orbit: Orbit, coefficient: Expr) -> Expr:
    """⟨Π atoms⟩ of an orbit over one site: copies are independent given the Gaussian field and the labels."""
    powers = [sum(c == block for _, c in orbit.atoms) for block in range(orbit.copies)]
    poly = coefficient * Mul(*(moment(p) for p in powers))
    return site_average(site.variable.population, poly, site.b, site.k, site.v, site.variable.weight.labels)
