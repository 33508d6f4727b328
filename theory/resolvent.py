"""The resolvent reading: from a linear pencil to its matrix Dyson equation, its scalars and its boundary.

The self-energy pairs occurrences of atoms through the edge diagrams of their laws: with 𝒢 diagonal in units,
E[W𝒢W] keeps those pairs whose entries J_ab (at block (i, j)) and J_ba or J_ab (at block (k, l)) have a joint cumulant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Abs, Add, Expr, I, Matrix, Rational, S, Symbol, simplify, zeros

from quenched.theory.errors import NotCovered
from quenched.theory.fields import open_leaves
from quenched.theory.laws import Diagram, law_of
from quenched.theory.linearise import Occurrence, Pencil
from quenched.theory.problem import Label
from quenched.theory.problem_dyson import ZBAR, DysonProblem, Feedback, RankOne, Sector, Space, Unknown, Z
from quenched.theory.problem_scalars import LabelMean
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, text
from quenched.theory.spaces import N, Population

#: Largest block matrix whose inverse is written out.
EXPLICIT = 4


# -- forms ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class DysonEquation(Form):
    """𝒢 = (Y₀ − iη − 𝒮)⁻¹ with its scalars; `left_out` is what the last step dropped."""

    name: ClassVar[str] = "matrix Dyson equation"
    problem: DysonProblem
    left_out: tuple[Line, ...] = ()

    def lines(self) -> list[Line]:
        p = self.problem
        eta, tex = (" − iη", r" - i\eta") if p.half is not None else ("", "")
        out = [Line(f"𝒢 = (Y₀{eta} − 𝒮)⁻¹", rf"\mathcal{{G}} = (Y_0{tex} - \mathcal{{S}})^{{-1}}")]
        entries: dict[tuple[int, int], Expr] = {}
        for f in p.feedback:
            at = f.row, f.col
            entries[at] = entries.get(at, S.Zero) + f.coefficient * p.unknowns[f.unknown].symbol
        for (i, j), value in sorted(entries.items()):
            out.append(equation_line(Symbol(f"S_{i}{j}"), value))
        return [*out, *self.definitions()]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p, tenth = self.problem, Rational(11, 10)
        for k, f in enumerate(p.feedback):
            rest, after = p.feedback[:k], p.feedback[k + 1 :]
            yield f"self-energy term {k} dropped", replace(self, problem=replace(p, feedback=(*rest, *after)))
            larger = (*rest, replace(f, coefficient=f.coefficient * tenth), *after)
            yield f"self-energy term {k} × 1.1", replace(self, problem=replace(p, feedback=larger))
        for k, (i, j, value) in enumerate(p.bare):
            other = (*p.bare[:k], (i, j, value * tenth), *p.bare[k + 1 :])
            yield f"deterministic part {k} × 1.1", replace(self, problem=replace(p, bare=other))
        for k, space in enumerate(p.spaces):
            sizes = (*p.spaces[:k], replace(space, fraction=space.fraction * tenth), *p.spaces[k + 1 :])
            yield f"size of {space.name} × 1.1", replace(self, problem=replace(p, spaces=sizes))
        for k, r in enumerate(p.ranks):
            ranks = (*p.ranks[:k], replace(r, coefficient=r.coefficient * tenth), *p.ranks[k + 1 :])
            yield f"finite-rank part {k} × 1.1", replace(self, problem=replace(p, ranks=ranks))

    def definitions(self) -> list[Line]:
        """What the scalars are."""
        p, out = self.problem, []
        for u in p.unknowns:
            entry = Symbol(f"G_{u.j}{u.k}")
            factor = p.spaces[u.space].fraction
            value = u.weight * entry
            out.append(
                Line(
                    f"{text(u.symbol)} = {_times(text, factor)}⟨{text(value)}⟩",
                    rf"{latex(u.symbol)} = {_times(latex, factor)}\left\langle {latex(value)} \right\rangle",
                )
            )
        return out

    def dropped(self) -> list[Line]:
        return list(self.left_out)


@dataclass(frozen=True)
class ScalarEquations(Form):
    """The resolvent outside the support: closed equations of the scalars that remain, and g(z).

    Attributes
    ----------
    equations : (symbol, right-hand side), coupled
    solved : (symbol, value) of scalars that were eliminated
    resolvent : g(z) = lim (1/n) tr (z − M)⁻¹
    entries : 𝒢_jk in labels, z and the scalars, all of them
    """

    name: ClassVar[str] = "scalar equations"
    equations: tuple[tuple[Symbol, Expr], ...]
    solved: tuple[tuple[Symbol, Expr], ...]
    resolvent: Expr
    entries: dict[tuple[int, int], Expr]

    def __hash__(self) -> int:
        return hash((self.equations, self.solved, self.resolvent))

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for field in ("equations", "solved"):
            pairs = getattr(self, field)
            for k, (symbol, value) in enumerate(pairs):
                other: dict[str, Any] = {field: (*pairs[:k], (symbol, value * Rational(11, 10)), *pairs[k + 1 :])}
                yield f"{symbol} × 1.1", replace(self, **other)
        yield "resolvent × 1.1", replace(self, resolvent=self.resolvent * Rational(11, 10))

    def lines(self) -> list[Line]:
        out = [equation_line(symbol, value) for symbol, value in self.equations]
        return [*out, Line(f"g(z) = {text(self.resolvent)}", f"g(z) = {latex(self.resolvent)}")]


@dataclass(frozen=True)
class Boundary(Form):
    """Loss of stability of the analytic resolvent: the largest eigenvalue of `table` is 1.

    Attributes
    ----------
    table : matrix of the linear map of the scalars that vanish outside the support
    scalars : equations of the scalars in it
    """

    name: ClassVar[str] = "boundary of the support"
    table: tuple[tuple[Expr, ...], ...]
    scalars: ScalarEquations

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for i, row in enumerate(self.table):
            for j, value in enumerate(row):
                for label, factor in (("dropped", S.Zero), ("× 1.1", Rational(11, 10))):
                    if value != 0:
                        other = (*row[:j], value * factor, *row[j + 1 :])
                        yield f"Λ_{i}{j} {label}", replace(self, table=(*self.table[:i], other, *self.table[i + 1 :]))

    @property
    def condition(self) -> Expr:
        """An expression that vanishes on the boundary (det(1 − Λ))."""
        return (Matrix.eye(len(self.table)) - Matrix(self.table)).det()

    def lines(self) -> list[Line]:
        if len(self.table) == 1:
            value = self.table[0][0]
            return [Line(f"{text(value)} = 1", f"{latex(value)} = 1", "on the boundary, smaller outside")]
        rows = []
        for i, row in enumerate(self.table):
            for j, value in enumerate(row):
                if value != 0:
                    rows.append(Line(f"Λ_{i}{j} = {text(value)}", rf"\Lambda_{{{i}{j}}} = {latex(value)}"))
        return [
            *rows,
            Line("largest eigenvalue of Λ = 1", r"\lambda_{\max}(\Lambda) = 1", "on the boundary, smaller outside"),
        ]


# -- pairing -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PairAtoms(Rule):
    """𝒮[𝒢] = E[W𝒢W] from the second cumulants of the atoms."""

    title: ClassVar[str] = "Self-energy: pair the occurrences of the atoms"
    assumption: ClassVar[str] = "N → ∞; 𝒢 is diagonal in units"
    source: ClassVar[str] = "ajanki2019"

    def __call__(self, before: Form) -> DysonEquation:
        assert isinstance(before, Pencil)
        problem = pair(before)
        return DysonEquation(problem, () if before.half else tuple(_rank_line(r) for r in problem.ranks))


def pair(pencil: Pencil) -> DysonProblem:
    """The Dyson equation of a pencil; its finite-rank parts include the means of the atoms."""
    populations = list(dict.fromkeys(pencil.blocks))
    spaces = tuple(_space(p, pencil) for p in populations)
    blocks = tuple(populations.index(p) for p in pencil.blocks)
    keys: dict[tuple[int, int, int, Expr], int] = {}
    feedback: dict[tuple[int, int, Expr, int], Expr] = {}
    for a in pencil.occurrences:
        for b in pencil.occurrences:
            if blocks[a.col] != blocks[b.row] or blocks[a.row] != blocks[b.col]:
                continue
            weight = second_cumulant(a, b)
            if weight == 0:
                continue
            number, inside = _split(a.right * b.left)
            unknown = keys.setdefault((blocks[a.col], a.col, b.row, inside), len(keys))
            outer_number, outside = _split(a.left * b.right)
            at = (a.row, b.col, outside, unknown)
            feedback[at] = feedback.get(at, S.Zero) + number * outer_number * a.coefficient * b.coefficient * weight
    unknowns = _named([Unknown(Symbol("t"), s, j, k, w, _sector(pencil, j, k)) for s, j, k, w in keys])
    means = [r for o in pencil.occurrences for r in _mean(o)]
    return DysonProblem(
        parameters=pencil.parameters,
        spaces=spaces,
        blocks=blocks,
        heads=pencil.heads,
        bare=pencil.bare,
        unknowns=unknowns,
        feedback=tuple(Feedback(i, l, k * o, u) for (i, l, o, u), c in feedback.items() if (k := in_the_limit(c)) != 0),
        half=pencil.half,
        ranks=(*pencil.ranks, *means),
    )


def in_the_limit(coefficient: Expr) -> Expr:
    """A coefficient of the self-energy as N → ∞: negative powers of N (from finite-rank parts in products) vanish.

    Raises
    ------
    NotCovered
        For a positive power: the spectrum does not stay finite.
    """
    if N not in coefficient.free_symbols:
        return coefficient
    kept = S.Zero
    for term in Add.make_args(coefficient.expand()):
        rest, power = term.as_independent(N, as_Add=False)
        exponent = power.as_base_exp()[1]
        if power == 1:
            kept += rest
        elif power.as_base_exp()[0] != N or not exponent.is_negative:
            raise NotCovered(f"the self-energy contains {term}, which does not stay finite as N → ∞")
    return kept


def second_cumulant(a: Occurrence, b: Occurrence) -> Expr:
    """N·Cov of the entries of two occurrences that stand for sites (x, y) and (y, x), from the laws' diagrams."""
    first = (a.atom.name, 1, 0) if a.transposed else (a.atom.name, 0, 1)
    second = (b.atom.name, 0, 1) if b.transposed else (b.atom.name, 1, 0)
    if (a.atom.rows, a.atom.cols) != (b.atom.rows, b.atom.cols):
        return S.Zero
    diagrams = {d for atom in (a.atom, b.atom) for d in law_of(atom).diagrams if len(d.edges) == 2}
    total = S.Zero
    for diagram in sorted(diagrams, key=lambda d: (d.kind, d.edges)):
        if _matches(diagram, first, second) or _matches(diagram, second, first):
            total += _over_n(diagram.weight * N**diagram.power, a.atom.name)
    return total


def _matches(diagram: Diagram, first: tuple[str, int, int], second: tuple[str, int, int]) -> bool:
    """Whether vertices can be mapped to different sites so that the edges are these two entries in order."""
    sites: dict[int, int] = {}
    for (name, row, col), (own, x, y) in zip(diagram.edges, (first, second), strict=True):
        if name != own or sites.setdefault(row, x) != x or sites.setdefault(col, y) != y:
            return False
    return len(set(sites.values())) == len(sites)


def _over_n(cumulant: Expr, name: str) -> Expr:
    scaled = simplify(cumulant * N)
    if N in scaled.free_symbols:
        raise NotCovered(f"the variance of {name} scales as {cumulant}: a spectrum as N → ∞ needs variance/N")
    return scaled


def _mean(o: Occurrence) -> Iterator[RankOne]:
    for diagram in law_of(o.atom).diagrams:
        if len(diagram.edges) == 1:
            yield RankOne(o.row, o.col, o.coefficient * diagram.weight * N**diagram.power, o.left, o.right)


def _split(product: Expr) -> tuple[Expr, Expr]:
    """Factors without and with unit quantities."""
    units = {leaf for leaf, _ in open_leaves(product)}
    if not units:
        return product, S.One
    number, rest = product.as_independent(*units, as_Add=False)
    return number, rest


def _space(population: Population, pencil: Pencil) -> Space:
    exprs = [o.left for o in pencil.occurrences] + [o.right for o in pencil.occurrences]
    exprs += [v for _, _, v in pencil.bare] + [e for r in pencil.ranks for e in (r.left, r.right)]
    found = {leaf for e in exprs for leaf, p in open_leaves(e) if p == population}
    labels = tuple(Label(q, q.law) for q in sorted(found, key=lambda q: q.name))
    assert population.fraction is not None
    return Space(population.name, population.fraction, labels)


def _sector(pencil: Pencil, j: int, k: int) -> Sector:
    if pencil.half is None or (j < pencil.half) != (k < pencil.half):
        return "analytic"
    return "upper" if j < pencil.half else "lower"


_LETTER = {"analytic": "t", "upper": "a", "lower": "b"}


def _named(unknowns: Iterable[Unknown]) -> tuple[Unknown, ...]:
    count: dict[str, int] = {}
    out = []
    for u in unknowns:
        letter = _LETTER[u.sector]
        count[letter] = count.get(letter, 0) + 1
        out.append(replace(u, symbol=Symbol(f"{letter}_{count[letter]}")))
    return tuple(out)


# -- zeros ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RemoveZeros(Rule):
    """Scalars that no word of the expansion in 1/z (in 1/η) produces are zero."""

    title: ClassVar[str] = "Scalars that vanish"
    assumption: ClassVar[str] = "the solution that is connected with z → ∞ (doubled: with η → ∞)"

    def __call__(self, before: Form) -> DysonEquation:
        assert isinstance(before, DysonEquation)
        return remove_zeros(before.problem)


def remove_zeros(problem: DysonProblem) -> DysonEquation:
    """Grow the set of scalars that can be non-zero from none; those that are never reached are dropped."""
    alive: set[int] = set()
    while True:
        pattern = _pattern(problem, alive)
        reached = {u for u, x in enumerate(problem.unknowns) if (x.j, x.k) in pattern}
        if reached == alive:
            break
        alive = reached
    keep = sorted(alive)
    gone = [u for k, u in enumerate(problem.unknowns) if k not in alive]
    lines = tuple(
        Line(f"{text(u.symbol)} = 0", f"{latex(u.symbol)} = 0", f"no word of the expansion reaches 𝒢_{u.j}{u.k}")
        for u in gone
    )
    feedback = tuple(replace(f, unknown=keep.index(f.unknown)) for f in problem.feedback if f.unknown in alive)
    unknowns = tuple(problem.unknowns[k] for k in keep)
    return DysonEquation(replace(problem, unknowns=unknowns, feedback=feedback), lines)


def _pattern(problem: DysonProblem, alive: set[int]) -> set[tuple[int, int]]:
    """Entries of 𝒢 that can be non-zero: those joined by a path through non-zero entries."""
    links = {(i, j) for i, j, _ in problem.bare} | {(f.row, f.col) for f in problem.feedback if f.unknown in alive}
    n = len(problem.blocks)
    reach = {(i, i) for i in range(n)} | links
    for m in range(n):
        reach |= {(i, j) for i in range(n) for j in range(n) if (i, m) in reach and (m, j) in reach}
    return reach


# -- scalars -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Eliminate(Rule):
    """Write 𝒢 out and eliminate the scalars that have a closed expression."""

    title: ClassVar[str] = "Scalar equations of the resolvent"
    assumption: ClassVar[str] = "z outside the support"

    def __call__(self, before: Form) -> ScalarEquations:
        assert isinstance(before, DysonEquation)
        return eliminate(before.problem)


def eliminate(problem: DysonProblem) -> ScalarEquations:
    """Scalar equations of a problem that is not doubled."""
    if not regular(problem):
        raise NotCovered("no branch of the resolvent is analytic at z → ∞: the deterministic part has no inverse")
    entries = explicit_inverse(problem)
    equations: dict[Symbol, Expr] = {}
    for u in problem.unknowns:
        body = u.weight * entries.get((u.j, u.k), S.Zero)
        equations[u.symbol] = problem.spaces[u.space].fraction * LabelMean(body)
    size = sum((problem.spaces[problem.blocks[h]].fraction for h in problem.heads), S.Zero)
    g = (
        sum(
            (
                problem.spaces[problem.blocks[h]].fraction * LabelMean(entries.get((h, h), S.Zero))
                for h in problem.heads
            ),
            S.Zero,
        )
        / size
    )
    solved: list[tuple[Symbol, Expr]] = []
    for symbol in list(equations):
        value = equations[symbol]
        if symbol in value.free_symbols or value.has(LabelMean) or len(equations) == 1:
            continue
        solved = [(s, v.xreplace({symbol: value})) for s, v in solved] + [(symbol, value)]
        del equations[symbol]
        equations = {s: v.xreplace({symbol: value}) for s, v in equations.items()}
        g = g.xreplace({symbol: value})
        entries = {at: e.xreplace({symbol: value}) for at, e in entries.items()}
    return ScalarEquations(tuple(equations.items()), tuple(solved), g, entries)


def regular(problem: DysonProblem) -> bool:
    """Whether Y₀ has an inverse, around which the resolvent can be expanded (an inverted matrix may have none)."""
    n = len(problem.blocks)
    table = zeros(n, n)
    for i, j, value in problem.bare:
        table[i, j] += value
    return bool(table.det(method="berkowitz").expand() != 0)


def explicit_inverse(problem: DysonProblem) -> dict[tuple[int, int], Expr]:
    """Entries of 𝒢 that can be non-zero, in labels, z and the scalars.

    Raises
    ------
    NotCovered
        For a group of connected blocks that is larger than `EXPLICIT`.
    """
    n = len(problem.blocks)
    table = zeros(n, n)
    for i, j, value in problem.bare:
        table[i, j] += value
    for f in problem.feedback:
        table[f.row, f.col] -= f.coefficient * problem.unknowns[f.unknown].symbol
    out: dict[tuple[int, int], Expr] = {}
    for group in _components(problem):
        if len(group) > EXPLICIT:
            raise NotCovered(f"the inverse of {len(group)} connected blocks is not written out (at most {EXPLICIT})")
        part = Matrix(len(group), len(group), lambda i, j, g=group: table[g[i], g[j]])
        det = part.det(method="berkowitz")
        for i, row in enumerate(group):
            for j, col in enumerate(group):
                minor = part.cofactor(j, i, method="berkowitz") if len(group) > 1 else S.One
                if minor != 0:
                    out[row, col] = minor / det
    return out


def _components(problem: DysonProblem) -> list[list[int]]:
    pattern = _pattern(problem, set(range(len(problem.unknowns))))
    groups: list[list[int]] = []
    for b in range(len(problem.blocks)):
        home = [g for g in groups if any((b, m) in pattern or (m, b) in pattern for m in g)]
        groups = [g for g in groups if g not in home] + [sorted([m for g in home for m in g] + [b])]
    return groups


# -- boundary ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FindBoundary(Rule):
    """Linearise the doubled equation in the scalars that vanish outside."""

    title: ClassVar[str] = "Boundary of the support"
    assumption: ClassVar[str] = "η → 0; at the boundary the solution with vanishing diagonal blocks loses stability"
    source: ClassVar[str] = "ahmadian2015"
    scalars: ScalarEquations

    def __call__(self, before: Form) -> Boundary:
        assert isinstance(before, DysonEquation)
        return Boundary(boundary_table(before.problem, self.scalars), self.scalars)


def boundary_table(doubled: DysonProblem, scalars: ScalarEquations) -> tuple[tuple[Expr, ...], ...]:
    """δa_u = f ⟨weight (𝒢† δ𝒮 𝒢)_{jk}⟩ over the scalars of the upper sector."""
    assert doubled.half is not None
    n = doubled.half
    conj = {Z: ZBAR, I: -I} | {s: Symbol(rf"\bar{{{s.name[0]}}}{s.name[1:]}") for s, _ in scalars.equations}
    upper = [k for k, u in enumerate(doubled.unknowns) if u.sector == "upper"]
    rows = []
    for u in (doubled.unknowns[k] for k in upper):
        row = []
        for v in upper:
            body = S.Zero
            for f in doubled.feedback:
                if f.unknown == v and f.row >= n and f.col >= n:
                    left, right = (f.row - n, u.j), (f.col - n, u.k)
                    body += f.coefficient * _modulus(scalars.entries, left, right, conj)
            row.append(doubled.spaces[u.space].fraction * LabelMean(u.weight * body) if body != 0 else S.Zero)
        rows.append(tuple(row))
    return tuple(rows)


def _modulus(entries: dict[tuple[int, int], Expr], left: tuple[int, int], right: tuple[int, int], conj: Any) -> Expr:
    """conj(𝒢_left) 𝒢_right."""
    a, b = entries.get(left, S.Zero), entries.get(right, S.Zero)
    return Abs(b) ** 2 if left == right and b.free_symbols & set(conj) else a.xreplace(conj) * b


def _rank_line(r: RankOne) -> Line:
    shown = f"({text(r.coefficient)})·({text(r.left)})_i ({text(r.right)})_j at block ({r.row}, {r.col})"
    tex = rf"\left({latex(r.coefficient)}\right) \left({latex(r.left)}\right)_i \left({latex(r.right)}\right)_j"
    return Line(shown, tex, "finite rank: moves single eigenvalues, not the bulk")


def _times(show: Any, factor: Expr) -> str:
    return "" if factor == 1 else f"{show(factor)} "
