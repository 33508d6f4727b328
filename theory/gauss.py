"""Gaussian averages: one node, one derivative rule, and closed forms by rules.

`GaussAvg` stands for ⟨Π_k f_k^(n_k)(u_{s_k})⟩ over jointly Gaussian u. Its derivatives with respect to a covariance or
a mean raise derivative orders of the functions,

    ∂/∂C_ij ⟨F⟩ = ⟨∂_i ∂_j F⟩ (½ of it for i = j),    ∂/∂m_i ⟨F⟩ = ⟨∂_i F⟩,

which is Price's theorem, Bonnet's theorem and Stein's lemma (Gaussian integration by parts) in one. Closed forms come
from the rules of `theory.gauss_rules`; an average that no rule closes stays a named node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sympy import (
    Add,
    Basic,
    DiracDelta,
    Dummy,
    Expr,
    Ge,
    Gt,
    Integer,
    Le,
    Lt,
    Max,
    Min,
    Piecewise,
    S,
    Symbol,
    Tuple,
    default_sort_key,
    latex,
    sympify,
)
from sympy.core.relational import Relational
from sympy.core.symbol import Str
from sympy.printing.pretty.pretty_symbology import greek_unicode
from sympy.printing.pretty.stringpict import prettyForm

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.gauss_forms import Form, NoForm, constant, differentiate, expression, multiply, scale
from quenched.theory.gauss_forms import add as add_forms
from quenched.theory.gauss_parse import affine, form_of, generic
from quenched.theory.gauss_primitives import antiderivative
from quenched.theory.gauss_rules import RULES, NoRule, Row, Rule, expectation
from quenched.theory.problem import C12, M1, M2, V1, V2, SiteFunction, U

__all__ = ["RULES", "Closed", "GaussAvg", "Rule", "antiderivative", "close", "derivative", "one_point", "two_point"]


@dataclass(frozen=True)
class Closed:
    """The closed form of an average and the rules that gave it, in the order of their first use."""

    value: Expr
    rules: tuple[Rule, ...]


# ------------------------------------------------------------------------------------------------------- closed forms
def one_point(f: SiteFunction, mean: Expr = M1) -> Expr | None:
    """⟨f(u)⟩ for u ~ N(mean, `V1`) in closed form, None where no rule gives one.

    Parameters
    ----------
    f : SiteFunction
        Function of `U`; its other symbols are parameters at generic real values (not zero where that matters).
    mean : Expr
        Mean of u; pass 0 where it vanishes by symmetry: more averages close.
    """
    closed = close([f], (mean,), ((V1,),))
    return None if closed is None else closed.value


def two_point(f: SiteFunction, g: SiteFunction, means: tuple[Expr, Expr] = (M1, M2)) -> Expr | None:
    """⟨f(u) g(v)⟩ in closed form, None where no rule gives one.

    u and v are jointly Gaussian with the given means, variances `V1`, `V2` and covariance `C12`. The result is valid
    for |C12| ≤ √(V1 V2), the ends included. Two erf, sign, step or ReLU close at zero means only: pass means=(0, 0)
    where they vanish by symmetry.
    """
    closed = close([f, g], means, ((V1, C12), (C12, V2)))
    return None if closed is None else closed.value


def close(functions: Sequence[SiteFunction], means: Row, cov: tuple[Row, ...]) -> Closed | None:
    """⟨Π_s f_s(u_s)⟩ over Gaussian u_s with these means and covariances, None where no rule gives it."""
    factors = tuple((f.expr, 0) for f in functions)
    return _close(factors, tuple((s,) for s in range(len(functions))), tuple(sympify(m) for m in means), cov)


def _close(
    factors: tuple[tuple[Expr, int], ...], slots: tuple[tuple[int, ...], ...], means: Row, cov: tuple[Row, ...]
) -> Closed | None:
    template = _template(factors, slots, means, tuple(tuple(sympify(c) == 0 for c in row) for row in cov))
    if template is None:
        return None
    closed, holders = template
    pairs = {d: c for ds, cs in zip(holders, cov, strict=True) for d, c in zip(ds, cs, strict=True) if d != 0}
    return Closed(closed.value.xreplace(pairs), closed.rules)


@lru_cache(maxsize=1024)
def _template(
    factors: tuple[tuple[Expr, int], ...],
    slots: tuple[tuple[int, ...], ...],
    means: Row,
    apart: tuple[tuple[bool, ...], ...],
) -> tuple[Closed, tuple[Row, ...]] | None:
    """The closed form over placeholder covariances, and those (variances positive, so that roots combine)."""
    size = range(len(slots))
    entries: dict[tuple[int, int], Expr] = {(i, i): Dummy(f"v_{i}", positive=True) for i in size}
    for i in size:
        for j in range(i):
            entries[j, i] = entries[i, j] = S.Zero if apart[i][j] else Dummy(f"c_{i}{j}", real=True)
    cov = tuple(tuple(entries[i, j] for j in size) for i in size)
    there, back = generic(*(expr for expr, _ in factors), *means)
    try:
        forms = tuple(_merge([(factors[k][0].xreplace(there), factors[k][1]) for k in group]) for group in slots)
        value, rules = expectation(forms, tuple(m.xreplace(there) for m in means), cov)
    except (NoForm, NoRule):
        return None
    return Closed(value.xreplace(back), rules), cov


def _merge(factors: list[tuple[Expr, int]]) -> Form:
    """The form of a product of derivatives of functions of one variable."""
    total = constant(S.One)
    for expr, order in factors:
        total = multiply(total, _derived(expr, order))
    return total


def _derived(expr: Expr, order: int) -> Form:
    try:
        form = form_of(expr)
    except NoForm:
        if not order or expr.has(Piecewise):  # sympy's derivative of a Piecewise forgets its jumps
            raise
        return form_of(expr.diff(U, order))
    for _ in range(order):
        form = add_forms(*(scale(differentiate(m), c) for m, c in form.items()))
    return form


def derivative(f: SiteFunction, order: int = 1) -> SiteFunction:
    """The derivative of a site function as a distribution: jumps of a `Piecewise` or a nested Max/Min give deltas."""
    if order == 0 or not f.expr.has(Piecewise, Max, Min):
        return f.diff(order)
    there, back = generic(f.expr)
    try:
        return SiteFunction(f.name + "'" * order, expression(_derived(f.expr.xreplace(there), order)).xreplace(back))
    except NoForm:
        return SiteFunction(f.name + "'" * order, _branchwise(f.expr, order))


def _branchwise(expr: Expr, order: int) -> Expr:
    """Derivative branch by branch, with a delta at every border of a `Piecewise` where the branches do not meet."""
    smooth, deltas = expr, S.Zero
    for _ in range(order):
        deltas = deltas.diff(U) + _jumps(smooth)
        smooth = smooth.diff(U)
    return smooth + deltas


def _jumps(expr: Expr) -> Expr:
    borders = {r: _border(r) for p in expr.atoms(Piecewise) for r in p.atoms(Relational) if r.has(U)}
    total = S.Zero
    for place in sorted({root for root, _ in borders.values()}, key=default_sort_key):
        right, left = (
            expr.xreplace({r: S.true if up == side else S.false for r, (root, up) in borders.items() if root == place})
            for side in (True, False)
        )
        total += (right - left).subs(U, place).expand() * DiracDelta(U - place)
    return total


def _border(relation: Relational) -> tuple[Expr, bool]:
    """Where a condition on the argument switches, and whether it holds above that place."""
    try:
        slope, offset = affine(relation.lhs - relation.rhs)
    except NoForm as stop:
        raise NotCovered(f"the condition {relation} does not split the line into two parts") from stop
    if not isinstance(relation, Gt | Ge | Lt | Le) or slope.is_positive is None or slope == 0:
        raise NotCovered(f"the condition {relation} does not say on which side of its border it holds")
    return -offset / slope, slope.is_positive == isinstance(relation, Gt | Ge)


# ---------------------------------------------------------------------------------------------------------- the node
class SiteFactor(Basic):
    """f^(order)(u_slot): one factor of an average."""

    def __new__(cls, name: str | Str, expr: Expr, order: Any, slot: Any) -> SiteFactor:
        obj: SiteFactor = super().__new__(cls, Str(str(name)), sympify(expr), Integer(order), Integer(slot))
        return obj

    @property
    def base(self) -> SiteFunction:
        return SiteFunction(str(self.args[0]), self.args[1])

    @property
    def order(self) -> int:
        return int(self.args[2])

    @property
    def slot(self) -> int:
        return int(self.args[3])

    @property
    def function(self) -> SiteFunction:
        """The derivative of the named function, written out."""
        return derivative(self.base, self.order)

    def raised(self) -> SiteFactor:
        return SiteFactor(self.args[0], self.args[1], self.order + 1, self.slot)

    @property
    def free_symbols(self) -> set[Basic]:
        found: set[Basic] = self.args[1].free_symbols - {U}
        return found


class GaussAvg(Expr):
    """⟨Π f^(n)(u_s)⟩ over jointly Gaussian arguments.

    Parameters
    ----------
    factors : sequence of (SiteFunction, derivative order, slot)
    means : sequence of Expr, one a slot
    cov : square nested sequence of Expr, covariance of the slots

    Raises
    ------
    QuenchedError
        If the sizes do not fit or the covariance is not symmetric.

    Examples
    --------
    >>> from sympy import tanh, symbols
    >>> c, c0 = symbols("c c_0")
    >>> phi = SiteFunction("phi", tanh(U))
    >>> average = GaussAvg([(phi, 0, 0), (phi, 0, 1)], (0, 0), ((c0, c), (c, c0)))
    >>> average, average.diff(c)
    (⟨φ(u)φ(v)⟩, ⟨φ'(u)φ'(v)⟩)
    """

    is_commutative = True
    is_real = True

    def __new__(cls, factors: Any, means: Any, cov: Any) -> GaussAvg:
        items = [f if isinstance(f, SiteFactor) else SiteFactor(f[0].name, f[0].expr, f[1], f[2]) for f in factors]
        rows = Tuple(*(Tuple(*row) for row in cov))
        size = len(means)
        if len(rows) != size or any(len(row) != size for row in rows):
            raise QuenchedError(f"Gaussian average: {size} means need a {size}×{size} covariance")
        if any(rows[i][j] != rows[j][i] for i in range(size) for j in range(i)):
            raise QuenchedError("Gaussian average: the covariance must be symmetric")
        if any(not 0 <= f.slot < size for f in items):
            raise QuenchedError(f"Gaussian average: slots run from 0 to {size - 1}")
        ordered = sorted(items, key=lambda f: (f.slot, str(f.args[0]), f.order, str(f.args[1])))
        obj: GaussAvg = super().__new__(cls, Tuple(*ordered), Tuple(*means), rows)
        return obj

    @property
    def factors(self) -> tuple[SiteFactor, ...]:
        return tuple(self.args[0])

    @property
    def means(self) -> Row:
        return tuple(self.args[1])

    @property
    def cov(self) -> tuple[Row, ...]:
        return tuple(tuple(row) for row in self.args[2])

    @property
    def free_symbols(self) -> set[Basic]:
        """Parameters and the symbols of means and covariances; the arguments are bound."""
        found: set[Basic] = set()
        return found.union(
            *(f.free_symbols for f in self.factors), self.args[1].free_symbols, self.args[2].free_symbols
        )

    def _eval_subs(self, old: Basic, new: Basic) -> GaussAvg | None:
        return self if old == U else None

    # ------------------------------------------------------------------------------------------------ derivative rule
    def bonnet(self, slot: int) -> Expr:
        """∂/∂m_slot: the sum over factors of this slot with one derivative more."""
        terms = []
        for i, factor in enumerate(self.factors):
            if factor.slot == slot:
                terms.append(self._with([*self.factors[:i], factor.raised(), *self.factors[i + 1 :]]))
        return Add(*terms)

    def price(self, i: int, j: int) -> Expr:
        """∂/∂C_ij, the symmetric entry C_ji moving along; half the second derivative for i = j."""
        first = self.bonnet(i)
        terms = [c * node.bonnet(j) for node, c in first.as_coefficients_dict().items() if isinstance(node, GaussAvg)]
        return Add(*terms) / (2 if i == j else 1)

    def _with(self, factors: Any) -> GaussAvg:
        return GaussAvg(factors, self.means, self.cov)

    def _eval_derivative(self, s: Basic) -> Expr:
        size = range(len(self.means))
        terms = [_rate(m, s, lambda i=i: self.bonnet(i)) for i, m in enumerate(self.means)]
        terms += [_rate(self.cov[i][j], s, lambda i=i, j=j: self.price(i, j)) for i in size for j in range(i + 1)]
        for k, factor in enumerate(self.factors):
            if s in factor.free_symbols:
                name = f"∂_{s} {factor.args[0]}"
                moved = SiteFactor(name, factor.args[1].diff(s), factor.order, factor.slot)
                terms.append(self._with([*self.factors[:k], moved, *self.factors[k + 1 :]]))
        return Add(*terms)

    # -------------------------------------------------------------------------------------------------- closed forms
    def closed(self) -> Closed | None:
        """The closed form and its rules, None where no rule gives one."""
        used = sorted({f.slot for f in self.factors})
        groups = tuple(tuple(k for k, f in enumerate(self.factors) if f.slot == s) for s in used)
        means = tuple(self.means[s] for s in used)
        cov = tuple(tuple(self.cov[i][j] for j in used) for i in used)
        factors = tuple((f.args[1], f.order) for f in self.factors)
        return _close(factors, groups, means, cov)

    def close(self) -> Expr:
        """The closed form, or the node itself."""
        closed = self.closed()
        return self if closed is None else closed.value

    def reduce(self) -> Expr:
        """Polynomial factors removed by Stein's lemma: ⟨u φ(v)⟩ = m_u ⟨φ(v)⟩ + C_uv ⟨φ'(v)⟩; other nodes stay named."""
        for k, factor in enumerate(self.factors):
            expr = factor.function.expr
            if not expr.is_polynomial(U):
                continue
            rest = self._with([*self.factors[:k], *self.factors[k + 1 :]])
            coefficients = expr.as_poly(U).all_coeffs()[::-1] if expr.has(U) else [expr]
            return Add(*(c * _moment_times(rest, factor.slot, n) for n, c in enumerate(coefficients)))
        return self if self.factors else S.One

    @property
    def functions(self) -> tuple[tuple[SiteFunction, int], ...]:
        """(function with its derivatives taken, slot) of every factor."""
        return tuple((f.function, f.slot) for f in self.factors)

    # ------------------------------------------------------------------------------------------------------- printing
    def _text(self) -> str:
        return "⟨" + "".join(_factor_text(f) for f in self.factors) + "⟩"

    def _sympystr(self, printer: Any) -> str:
        return self._text()

    def _pretty(self, printer: Any) -> prettyForm:
        return prettyForm(self._text())

    def _latex(self, printer: Any) -> str:
        return r"\left\langle " + " ".join(_factor_latex(f) for f in self.factors) + r" \right\rangle"


def _rate(entry: Expr, s: Basic, slope: Any) -> Expr:
    rate = entry.diff(s)
    return rate * slope() if rate != 0 else S.Zero


def _moment_times(rest: Expr, slot: int, n: int) -> Expr:
    """⟨u^n F⟩ with ⟨F⟩ = rest, by n uses of Stein's lemma."""
    if n == 0:
        return Add(*(c * (m.reduce() if isinstance(m, GaussAvg) else m) for m, c in _linear(rest)))
    # ⟨u^n F⟩ = m ⟨u^(n−1) F⟩ + C (n−1) ⟨u^(n−2) F⟩ + Σ_j C_j ⟨u^(n−1) ∂_j F⟩
    terms = []
    for node, weight in _linear(rest):
        if not isinstance(node, GaussAvg):
            raise QuenchedError(f"Gaussian average: {node} is not an average")
        terms.append(weight * node.means[slot] * _moment_times(node, slot, n - 1))
        if n > 1:
            terms.append(weight * (n - 1) * node.cov[slot][slot] * _moment_times(node, slot, n - 2))
        for j, entry in enumerate(node.cov[slot]):
            moved = node.bonnet(j) if entry != 0 else S.Zero
            if moved != 0:
                terms.append(weight * entry * _moment_times(moved, slot, n - 1))
    return Add(*terms)


def _linear(expr: Expr) -> list[tuple[Expr, Expr]]:
    return list(expr.as_coefficients_dict().items())


def _mark(order: int) -> str:
    return "'" * order if order <= 3 else f"^({order})"


def _slot_name(slot: int) -> str:
    return "uv"[slot] if slot < 2 else f"u_{slot + 1}"


def _factor_text(factor: SiteFactor) -> str:
    name, order = _bare(factor)
    *prefix, base = name.split()
    head, line, tail = base.partition("_")
    printed = "".join([*prefix, greek_unicode.get(head, head), line, tail])
    return f"{printed}{_mark(order)}({_slot_name(factor.slot)})"


def _factor_latex(factor: SiteFactor) -> str:
    name, order = _bare(factor)
    *prefix, base = name.split()
    mark = _mark(order) if order <= 3 else f"^{{({order})}}"
    slopes = "".join(rf"\partial_{{{latex(Symbol(p.removeprefix('∂_')))}}} " for p in prefix)
    return f"{slopes}{latex(Symbol(base))}{mark}({latex(Symbol(_slot_name(factor.slot)))})"


def _bare(factor: SiteFactor) -> tuple[str, int]:
    """Name without primes, and the order of the derivative with those of the name."""
    name = str(factor.args[0])
    bare = name.rstrip("'")
    return bare, factor.order + len(name) - len(bare)
