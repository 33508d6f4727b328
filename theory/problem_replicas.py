"""Replica self-consistency problems: what a derivation hands to the solvers. Data only.

A *site* is one variable x with a base measure. In the field of the order parameters its log-partition function is

    L(b; V) = ln ∫dμ(x) exp(b x + V x²/2),

and every quantity is an average over Gaussian b of mean b and variance k of a polynomial in L₁ = ∂_b L, L₂ = ∂_b² L, …
For a unit, x is its state and μ its prior times its local weight; for a local field u with weight f(u), x = −iû and

    L(b; V) = ln ∫Dz f(b + √V z),

so that both kinds obey the same heat rule ∂_V L = ½(L₂ + L₁²).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sympy import Add, Basic, Expr, Mul, S, Symbol, Tuple, sympify
from sympy.core.symbol import Str

#: Value of the site variable (of a state, or of a local field) in base measures and weights; no declaration has it.
X = Symbol("x'", real=True)
#: L₀ = L and its derivatives with respect to b.
L = tuple(Symbol(f"L_{k}", real=True) for k in range(9))


class SiteAverage(Expr):
    """E[poly(L₀, L₁, …, labels)] at b + √k z, z standard normal, and over the labels of the site.

    Use `site_average` to build sums of them in canonical form.
    """

    is_commutative = True
    is_real = True

    def __new__(cls, site: Any, poly: Any, b: Any, k: Any, v: Any, labels: Any = ()) -> SiteAverage:
        name = site if isinstance(site, Str) else Str(str(site))
        obj: SiteAverage = super().__new__(cls, name, *map(sympify, (poly, b, k, v)), Tuple(*labels))
        return obj

    @property
    def site(self) -> str:
        """Name of the site."""
        return str(self.args[0].name)

    @property
    def poly(self) -> Expr:
        """What is averaged."""
        return self.args[1]

    @property
    def field(self) -> tuple[Expr, Expr, Expr]:
        """(b, k, V)."""
        return tuple(self.args[2:5])

    @property
    def labels(self) -> tuple[Symbol, ...]:
        """Quenched numbers of the site that the average runs over."""
        return tuple(self.args[5])

    @property
    def free_symbols(self) -> set[Basic]:
        inside: set[Basic] = set().union(*(a.free_symbols for a in self.args[1:5]))
        return inside - set(L) - set(self.labels)

    def _eval_derivative(self, s: Basic) -> Expr:
        b, k, v = self.field
        if self.poly.diff(s) != 0:
            raise NotImplementedError("polynomials of a site average hold no parameters")
        first = slope(self.poly)
        inside = b.diff(s) * first + k.diff(s) * slope(first) / 2 + v.diff(s) * heat(self.poly)
        return site_average(self.site, inside, b, k, v, self.labels)

    def _sympystr(self, printer: Any) -> str:
        return f"E[{_bare(printer._print(self.poly))}]_{self.site}"

    def _latex(self, printer: Any) -> str:
        return rf"\mathbb{{E}}_{{\mathrm{{{self.site}}}}}\left[{printer._print(self.poly)}\right]"


def _bare(text: str) -> str:
    for k, sub in enumerate("₀₁₂₃₄₅₆₇₈"):
        text = text.replace(f"L_{k}", "L" + sub)
    return text


class TreeAverage(Expr):
    """An average over the nested fields of a site in blocks of replicas.

    With M_{k+1} = L and M_l(b) = (1/x_l) ln E exp(x_l M_{l+1}(b + √k_l z)), ⟨·⟩_l the average with weight
    exp(x_l M_{l+1}), and E the average over the outermost field,

    - "log": E[M_level];
    - "plain": E⟨…⟨poly⟩_k…⟩₁;
    - "square": E⟨…(⟨…⟨poly⟩_k…⟩_{level+1})²…⟩₁;
    - "break": E⟨…(⟨M_{level+1}⟩_level − M_level)/x_level…⟩₁, the slope of M₁ in x_level.

    E also runs over the labels of the site, with the factor `scale` in them.
    """

    is_commutative = True
    is_real = True

    def __new__(
        cls,
        site: Any,
        what: Any,
        level: Any,
        poly: Any,
        b: Any,
        k: Any,
        v: Any,
        levels: Any,
        labels: Any = (),
        scale: Any = 1,
    ) -> TreeAverage:
        names = (s if isinstance(s, Str) else Str(str(s)) for s in (site, what))
        inner = Tuple(*(Tuple(*pair) for pair in levels))
        if what == "plain" or str(what) == "plain":
            terms = Add.make_args(sympify(poly).expand())
            if len(terms) > 1:
                return Add(*(cls(site, what, level, t, b, k, v, levels, labels, scale) for t in terms))
        parts = (*map(sympify, (poly, b, k, v)), inner, Tuple(*labels), sympify(scale))
        obj: TreeAverage = super().__new__(cls, *names, sympify(level), *parts)
        return obj

    @property
    def site(self) -> str:
        """Name of the site."""
        return str(self.args[0].name)

    @property
    def what(self) -> str:
        """Which kind of average."""
        return str(self.args[1].name)

    @property
    def level(self) -> int:
        """The level that it is about."""
        return int(self.args[2])

    @property
    def poly(self) -> Expr:
        """What is averaged, in L₀, L₁, L₂."""
        return self.args[3]

    @property
    def field(self) -> tuple[Expr, Expr, Expr]:
        """(b, k, V)."""
        return tuple(self.args[4:7])

    @property
    def levels(self) -> tuple[tuple[Expr, Expr], ...]:
        """(k_l, x_l) from the outermost block inwards."""
        return tuple((pair[0], pair[1]) for pair in self.args[7])

    @property
    def labels(self) -> tuple[Symbol, ...]:
        """Quenched numbers of the site that the average runs over."""
        return tuple(self.args[8])

    @property
    def scale(self) -> Expr:
        """The factor in the labels."""
        return self.args[9]

    @property
    def free_symbols(self) -> set[Basic]:
        inside: set[Basic] = set().union(*(a.free_symbols for a in (*self.args[4:8], self.scale)))
        return inside - set(self.labels)

    def _sympystr(self, printer: Any) -> str:
        inside = _bare(printer._print(self.poly))
        if self.scale != 1:
            inside = f"{printer._print(self.scale)}·{inside}"
        shown = {"log": f"M_{self.level}", "plain": inside, "square": f"⟨{inside}⟩²"}
        return f"E[{shown.get(self.what, f'∂M₁/∂x_{self.level}')}]_{self.site}"

    def _latex(self, printer: Any) -> str:
        inside = printer._print(self.poly)
        shown = {
            "log": f"M_{{{self.level}}}",
            "plain": inside,
            "square": rf"\langle {inside} \rangle_{{{self.level}}}^2",
        }
        body = shown.get(self.what, rf"\partial_{{x_{{{self.level}}}}} M_1")
        return rf"\mathbb{{E}}_{{\mathrm{{{self.site}}}}}\left[{body}\right]"


def site_average(site: str, poly: Expr, b: Expr, k: Expr, v: Expr, labels: tuple[Symbol, ...] = ()) -> Expr:
    """E[poly] as a sum of averages of monomials, with everything constant pulled out."""
    terms = []
    for term in Add.make_args(sympify(poly).expand()):
        inside = [f for f in Mul.make_args(term) if f.has(*L, *labels)]
        outside = Mul(*(f for f in Mul.make_args(term) if f not in inside))
        body = Mul(*inside)
        terms.append(outside * (SiteAverage(site, body, b, k, v, labels) if body != 1 else S.One))
    return Add(*terms)


def slope(poly: Expr) -> Expr:
    """∂_b of a polynomial in L₀, L₁, …: every L_m becomes L_{m+1}."""
    return Add(*(poly.diff(L[m]) * L[m + 1] for m in range(len(L) - 1))).expand()


def heat(poly: Expr) -> Expr:
    """∂_V of a polynomial in L₀, L₁, … by the heat rule ∂_V L = ½(L₂ + L₁²)."""
    rate, total = (L[2] + L[1] ** 2) / 2, S.Zero
    for m in range(len(L) - 3):
        total += poly.diff(L[m]) * rate
        rate = slope(rate)
    return total.expand()


@dataclass(frozen=True)
class Piece:
    """A site's base measure is a sum of these: atoms ``(value, weight)`` or a density in `X` on the real line.

    At zero temperature a weight is where the variable may be, and `energy` in `X` what is minimised there.
    """

    value: Expr | None
    weight: Expr
    energy: Expr = S.Zero


@dataclass(frozen=True)
class ReplicaSite:
    """One site.

    Attributes
    ----------
    name : str
        As in the averages (the population's name).
    kind : "state" (x is the state) or "channel" (x = −iû of a local field with weight f)
    pieces : base measure of the state, or the weight f of the local field as a single piece in `X`
    labels : (symbol, atoms of its law, its density in `X` where there are none)
    cold : at zero temperature: L(b; V) = max_x [b x + V x²/2 − energy(x)] of a state, and
        max_u [−energy(u) − (u − b)²/2V] of a local field
    """

    name: str
    kind: Literal["state", "channel"]
    pieces: tuple[Piece, ...]
    labels: tuple[tuple[Symbol, tuple[tuple[Expr, Expr], ...], Expr], ...] = ()
    cold: bool = False


@dataclass(frozen=True)
class PairSite:
    """Fields of one site in two states: means b and b′, both of variance k, covariance `cross`, and V of either."""

    site: str
    b: Expr
    other: Expr
    k: Expr
    cross: Expr
    v: Expr


@dataclass(frozen=True)
class PairEquation:
    """unknown = E[scale · L₁ L₁′] of a site in two states."""

    unknown: Symbol
    site: str
    scale: Expr


@dataclass(frozen=True)
class PairProblem:
    """Overlaps of two states of one disorder, each of which solves the equations of one."""

    sites: tuple[PairSite, ...]
    equations: tuple[PairEquation, ...]


@dataclass(frozen=True)
class ReplicaProblem:
    """Replica-symmetric saddle as n → 0.

    Attributes
    ----------
    parameters : symbols that need values
    sites : the sites
    equations : (unknown, right-hand side in unknowns and `SiteAverage`s): the saddle is unknown = right-hand side
    constraints : (multiplier, average, value): average = value determines the multiplier
    free_entropy : per unit of N, relative to the a priori measure
    replicon : matrix P″Σ of the replicon sector, rows of expressions
    observables : further named expressions
    kinds : of every unknown: "mean" (⟨x⟩, of either sign), "overlap" (of two replicas), "norm" (of one), "response"
        (⟨x²⟩ of a conjugate field), "susceptibility" (β times norm minus overlap, at zero temperature)
    cold : at zero temperature; the free entropy is then minus the energy of the ground state
    start : means that a declared initial state has, those left out being 0; the main branch is reached from there
    bare : at zero temperature without an energy: solutions only have a theory where their volume shrinks to a point
    """

    parameters: tuple[Symbol, ...]
    sites: tuple[ReplicaSite, ...]
    equations: tuple[tuple[Symbol, Expr], ...]
    constraints: tuple[tuple[Symbol, Expr, Expr], ...]
    free_entropy: Expr
    replicon: tuple[tuple[Expr, ...], ...]
    observables: tuple[tuple[str, Expr], ...] = ()
    kinds: tuple[str, ...] = ()
    cold: bool = False
    bare: bool = False
    start: tuple[tuple[Symbol, float], ...] = ()
