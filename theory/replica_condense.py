"""Condensed patterns: a finite window of the rows of a matrix of patterns gets overlaps of order one.

The rows ξ^μ of a matrix of patterns enter through u_μ = Σ_j ξ^μ_j χ_j. For patterns that the state is near, u_μ is
√N times an overlap ⟨ξ^μ χ⟩; for all others it is a Gaussian number. A quadratic energy Σ u_μ X_μν u_ν splits into the
window's part, a function of overlaps, and the rest: X between the two is of order N^{-1/2} relative to both. All
members of a finite population of patterns are in the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sympy import Add, Basic, Expr, I, Mul, Pow, S, Symbol, cos, exp, integrate, pi

from quenched.theory.circulant import ANGLE, Circulant
from quenched.theory.couplings import Apply, RandomMatrix, Row, Transpose
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Field, Quenched, unbind
from quenched.theory.gibbs import Gibbs
from quenched.theory.observables import Mean, mean
from quenched.theory.record import Form, Line, Rule
from quenched.theory.replica_lower import GibbsDeclaration, symmetric
from quenched.theory.spaces import N
from quenched.theory.substitute import substitute, walk

#: Patterns on either side of those that are named, for matrices that couple neighbours.
WIDTH = 8


@dataclass(frozen=True)
class Condensed(GibbsDeclaration):
    """A measure with its condensed patterns written out."""

    name: ClassVar[str] = "condensed patterns"

    def lines(self) -> list[Line]:
        return super().lines()[:1]


@dataclass(frozen=True)
class Condense(Rule):
    """Give the patterns that the state may be near overlaps of their own."""

    title: ClassVar[str] = "Condensed patterns"
    assumption: ClassVar[str] = "patterns outside the window have overlaps of order N^{-1/2}"
    source: ClassVar[str] = "amit1985"

    #: Patterns on either side of the named ones.
    width: int = WIDTH

    def __call__(self, before: Form) -> Condensed:
        assert isinstance(before, GibbsDeclaration)
        return Condensed(condensed(before.model, self.width))


def pattern_matrices(model: Gibbs) -> list[RandomMatrix]:
    """Matrices whose rows condense: those with named rows, and those with finitely many."""
    named = [r.matrix for r in model.rows]
    finite = [m for m in model.matrices if not isinstance(m, Circulant) and not m.rows.extensive and m.cols.extensive]
    return list(dict.fromkeys([*named, *finite]))


def condensed(model: Gibbs, width: int = WIDTH) -> Gibbs:
    """The measure with condensed patterns as labels of the units."""
    model = seen_from_first(model)
    labels: dict[tuple[str, int], Quenched] = {}
    terms: list[Expr] = []
    matrices = pattern_matrices(model)
    for term in Add.make_args(model.energy):
        matrix = next((m for m in matrices if any(a.matrix in (m, Transpose(m)) for a in term.atoms(Apply))), None)
        if matrix is None:
            terms.append(term)
            continue
        pair = of_two(term, matrices)
        if pair is not None:
            scale, sides = pair
            for k in window_of(model, matrix, None, width):
                terms.append(scale * N * Mul(*(part(m) * mean(label_of(labels, m, k) * x) for m, x in sides)))
            continue
        scale, between, body = quadratic(term, matrix)
        window = window_of(model, matrix, between, width)
        overlaps = {k: mean(label_of(labels, matrix, k) * body) for k in window}
        for a in window:
            for b in window:
                entry = entry_of(between, a - b, matrix)
                if entry != 0:
                    terms.append(scale * N * part(matrix) ** 2 * entry * overlaps[a] * overlaps[b])
        if matrix.rows.extensive:
            terms.append(term)
    swap: dict[Basic, Any] = {}
    for row in model.rows:
        label = label_of(labels, row.matrix, _wrapped(row.index, row.matrix))
        swap |= {row: label, row.bind(): label.bind()}
    swap |= _restarted(model, swap)

    def put(node: Any) -> Any:
        return substitute(node, swap)

    new = Gibbs(
        {put(x): law for x, law in model.priors.items()},
        put(Add(*terms)),
        tuple(put(w) for w in model.weights),
        model.beta,
        model.name,
        model.defaults,
        model.cold,
    )
    return new.observe(**{name: put(expr) for name, expr in model.observables.items()})


def apart(model: Gibbs, expr: Expr) -> bool:
    """Whether an observable compares copies that start from different states."""
    if not model.starts:
        return False
    return any(len({f.copy for f in node.body.atoms(Field)}) > 1 for node in expr.atoms(Mean))


def distances(model: Gibbs) -> list[int]:
    """How many rows apart the copies are that observables compare."""
    nodes = [n for e in model.observables.values() for n in e.atoms(Mean) if apart(model, n)]
    pairs = [sorted({f.copy or 1 for f in n.body.atoms(Field)}) for n in nodes]
    rows = [[model.starts[k - 1] for k in pair] for pair in pairs if len(pair) == 2]
    return list(dict.fromkeys(b.index - a.index for a, b in rows if type(a) is type(b) is Row))


def seen_from_first(model: Gibbs) -> Gibbs:
    """Observables of single copies that start from other rows, as the first copy sees them: patterns are exchangeable.

    What compares copies is left out: it takes the overlaps of both.
    """
    if not model.starts:
        return model
    rows = [row for row in model.starts if type(row) is Row]
    if len(rows) != len(model.starts) or any(row.matrix != rows[0].matrix for row in rows):
        raise NotCovered("copies of a measure that start from rows of one matrix are covered")
    out = type(model)(
        model.priors, model.energy, model.weights, model.beta, model.name, model.defaults, model.cold, model.starts
    )
    kept = {name: expr for name, expr in model.observables.items() if not apart(model, expr)}
    swap = {node: _exchanged(node, rows) for expr in kept.values() for node in expr.atoms(Mean)}
    return out.observe(**{name: expr.xreplace(swap) for name, expr in kept.items()})


def _exchanged(node: Mean, rows: list[Row]) -> Expr:
    body = unbind(node.body)
    fields = list(body.atoms(Field))
    back = rows[0].index - rows[(fields[0].copy or 1) - 1].index if fields else 0
    named = {f: f._with(copy=None) for f in fields}
    named |= {r: r.matrix[r.index + back] for r in body.atoms(Row) if r.matrix == rows[0].matrix}
    return mean(body.xreplace(named), node.population)


def _restarted(model: Gibbs, swap: dict[Basic, Any]) -> dict[Basic, Any]:
    """Fields that start from rows, in all their copies, as fields that start from labels."""
    nodes = [model.energy, *model.weights, *model.observables.values(), *model.priors]
    out: dict[Basic, Any] = {}
    for part in (p for node in nodes for p in walk(node) if isinstance(p, Field)):
        if isinstance(part.initial, Expr):
            new = Field(part.name, part.population, part.initial.xreplace(swap), part.each)
            new = new if part.copy is None else new[part.copy]
            out[part] = new.bind() if part.bound else new
    return out


def shifted(model: Gibbs, distance: int) -> dict[Symbol, Symbol]:
    """Labels of the condensed patterns → those at some distance, which may be outside the window."""
    labels: dict[tuple[str, int], Quenched] = {}
    matrices = pattern_matrices(model)
    if not matrices or not any(isinstance(f.initial, Expr) for f in model.fields):
        raise NotCovered("two states near different patterns: a field that starts from a row, as in initial=xi[0]")
    out: dict[Symbol, Symbol] = {}
    for matrix in matrices:
        window = window_of(model, matrix, next((m for m in model.matrices if isinstance(m, Circulant)), None), WIDTH)
        for k in window:
            there = label_of(labels, matrix, _wrapped(k + distance, matrix))
            out[label_of(labels, matrix, k)] = there
    return out


def label_of(labels: dict[tuple[str, int], Quenched], matrix: RandomMatrix, index: int) -> Quenched:
    """The row of a matrix as an independent number per unit."""
    key = (matrix.name, index)
    if key not in labels:
        row = Row(matrix, index)
        labels[key] = Quenched(row.name, row.law, over=matrix.cols)
    return labels[key]


def _wrapped(index: int, matrix: RandomMatrix) -> int:
    size = matrix.rows.size
    return index if size is None else index % int(size)


def window_of(model: Gibbs, matrix: RandomMatrix, between: Circulant | None, width: int) -> list[int]:
    """Indices of the patterns that condense."""
    if matrix.rows.size is not None:
        if not matrix.rows.size.is_Integer:
            raise NotCovered(
                f"population {matrix.rows.name!r} of {matrix.rows.size} patterns: fix its size to a number"
            )
        return list(range(int(matrix.rows.size)))
    named = [r.index for r in model.rows if r.matrix == matrix]
    if between is None:
        return sorted(set(named))
    return list(range(min(named) - width, max(named) + width + 1))


def part(matrix: RandomMatrix) -> Expr:
    """Units that a row sums over, as a fraction of N."""
    return matrix.cols.count / N


def of_two(term: Expr, matrices: list[RandomMatrix]) -> tuple[Expr, list[tuple[RandomMatrix, Expr]]] | None:
    """κ and the two (ξ, χ) of an energy κ Σ_μ (ξ @ χ)_μ (ξ′ @ χ′)_μ over finitely many patterns, None for others."""
    means = list(term.atoms(Mean))
    if len(means) != 1 or (term / means[0]).has(Mean):
        return None
    body = unbind(means[0].body)
    sides = [(a.matrix, unbind(a.body)) for a in Mul.make_args(body) if isinstance(a, Apply)]
    rows = [m.rows for m, _ in sides if m in matrices]
    if (
        len(rows) != 2
        or sides[0][0] == sides[1][0]
        or len(body.args) != 2
        or not getattr(rows[0].size, "is_Integer", False)
    ):
        return None
    if any(x.has(Apply) for _, x in sides):
        return None
    return term / means[0] / means[0].population.count, sides


def quadratic(term: Expr, matrix: RandomMatrix) -> tuple[Expr, Circulant | None, Expr]:
    """(κ, X, χ) of an energy κ Σ_μν u_μ X_μν u_ν with u = ξ @ χ.

    Raises
    ------
    NotCovered
        Another function of the patterns.
    """
    means = list(term.atoms(Mean))
    if len(means) == 1 and not (term / means[0]).has(Mean):
        scale = term / means[0] / means[0].population.count
        found = quadratic_form(unbind(means[0].body), matrix)
        if found is not None:
            return scale, *found
    raise NotCovered(f"{term}: condensed patterns of {matrix} enter energies through (ξ @ χ)·X @ (ξ @ χ) only")


def quadratic_form(body: Expr, matrix: RandomMatrix) -> tuple[Circulant | None, Expr] | None:
    """X and χ of (ξ @ χ)·X @ (ξ @ χ), also written as χ·ξᵀ @ X @ ξ @ χ."""
    factors = [
        b for f in Mul.make_args(body) for b, e in [f.as_base_exp()] for _ in range(int(e) if e.is_Integer else 1)
    ]
    for factor in factors:
        if isinstance(factor, Apply) and factor.matrix == Transpose(matrix):
            rest = Mul(*factors) / factor
            inner = unbind(factor.body)
            between, chi = _inner(inner, matrix)
            return (between, chi) if chi is not None and chi == rest else None
    if len(factors) == 2:
        for a, b in (factors, factors[::-1]):
            between, chi = _inner(a, matrix)
            if chi is not None and b == Apply(matrix, chi):
                return between, chi
    return None


def _inner(expr: Expr, matrix: RandomMatrix) -> tuple[Circulant | None, Expr | None]:
    """X and χ of X @ (ξ @ χ) or ξ @ χ."""
    between = None
    if isinstance(expr, Apply) and isinstance(expr.matrix, Circulant):
        between, expr = symmetric(expr.matrix), unbind(expr.body)
    if isinstance(expr, Apply) and expr.matrix == matrix and not unbind(expr.body).has(Apply):
        return between, unbind(expr.body)
    return None, None


def entry_of(between: Circulant | None, shift: int, matrix: RandomMatrix) -> Expr:
    """X_{μ+shift,μ}: a Fourier coefficient of λ(θ), summed over the turns of a finite cycle."""
    if between is None:
        return S.One if shift == 0 else S.Zero
    if matrix.rows.size is None:
        return coefficient(between.eigenvalue, shift)
    size = int(matrix.rows.size)
    return Add(*(c for r, c in coefficients(between.eigenvalue).items() if (r - shift) % size == 0))


def coefficients(symbol: Expr) -> dict[int, Expr]:
    """Fourier coefficients of a trigonometric polynomial, by shift.

    Raises
    ------
    NotCovered
        λ(θ) is no finite sum of exponentials.
    """
    out: dict[int, Expr] = {}
    for term in Add.make_args(symbol.rewrite(exp).expand(power_exp=True)):
        rest, wave = term.as_independent(ANGLE)
        shift = 0
        for factor in Mul.make_args(wave):
            exponent = factor.exp if isinstance(factor, exp) else factor.exp * 1 if isinstance(factor, Pow) else None
            rate = (exponent / (-I * ANGLE)).expand() if exponent is not None else S.Zero if factor == 1 else None
            if rate is None or not rate.is_Integer:
                raise NotCovered(f"the eigenvalues {symbol} of patterns: finite sums of cos and sin are covered")
            shift += int(rate)
        out[shift] = out.get(shift, S.Zero) + rest
    return {r: c.expand() for r, c in out.items() if c.expand() != 0}


def coefficient(symbol: Expr, shift: int) -> Expr:
    """One Fourier coefficient of λ(θ)."""
    try:
        return coefficients(symbol).get(shift, S.Zero)
    except NotCovered:
        found = integrate(symbol * cos(shift * ANGLE), (ANGLE, 0, 2 * pi)) / (2 * pi)
        if found.has(ANGLE) or not found.is_finite:
            raise QuenchedError(f"no Fourier coefficient of {symbol} at shift {shift}") from None
        return found
