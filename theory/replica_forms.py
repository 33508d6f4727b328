"""The action under an ansatz: sites in Gaussian fields, orbits of copies, and averages over single sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from sympy import Add, Expr, Mul, Rational, S, Symbol, exp, pi, sqrt

from quenched.theory.distributions import Law, SpikeSlab
from quenched.theory.lower import SiteField
from quenched.theory.priors import Restricted, Spherical
from quenched.theory.problem_replicas import L, Piece, ReplicaSite, X, site_average, slope
from quenched.theory.record import Form, Line
from quenched.theory.render import latex, text
from quenched.theory.replica_lower import SiteWeight
from quenched.theory.saddle import SiteProblem
from quenched.theory.terms import Atom

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
    """Field of one site under the ansatz: mean b, variance k, and the coefficient V of x²/2 (all in `x`).

    `given` lists the local fields of the site that are disorder: (name of the conjugate x₀, parts), where each part
    (c, ζ, d) belongs to a standard normal label ζ that shifts b by d ζ, and ⟨x x₀⟩ = Σ c (E[ζ L₁] − d E[L₂]).
    """

    variable: Variable
    b: Expr
    k: Expr
    v: Expr
    given: tuple[tuple[str, tuple[tuple[Expr, Symbol, Expr], ...]], ...] = ()


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
            marks = {(a, c): "" if fields[a].single else "_" + "abcdef"[c] for a, c in orbit.atoms}
            body = " ".join(f"{_x(fields[a].name, fields, text)}{marks[a, c]}" for a, c in orbit.atoms)
            tex = r"\, ".join(f"{_x(fields[a].name, fields, latex)}{marks[a, c]}" for a, c in orbit.atoms)
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
    if isinstance(law, Restricted):
        inside = law.indicator(X) * law.scale
        return tuple(Piece(p.value, p.weight * inside) for p in prior_pieces(law.law))
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
