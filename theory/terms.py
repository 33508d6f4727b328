"""Terms: products of site averages, with contracted copy indices, in a canonical form.

A *copy index* is a plain integer; steps that handle terms never know whether a copy is a time, a replica or a layer.
An *atom* ``(name, copy)`` is a field of one site at one copy; a *factor* is the average over one population of a
product of atoms; a *term* is ``N^{1+power} · coef · Π factors`` summed over every copy index that occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product

from sympy import Dummy, Expr, Pow, S

from quenched.theory.errors import QuenchedError
from quenched.theory.spaces import N

Atom = tuple[str, int]
#: A relation between copies that a term carries besides its fields: ("same", (0, 1)) for equal copies, or
#: ("past:A", (0, 1)) for the weight K_A(t₀ − t₁) of what a dynamic coupling A remembers at t₀ of an earlier t₁.
Kernel = tuple[str, tuple[int, ...]]
PAST = "past:"


@dataclass(frozen=True)
class Factor:
    """⟨Π atoms⟩ over the sites of a population."""

    population: str
    atoms: tuple[Atom, ...]


@dataclass(frozen=True)
class Term:
    """N^{1+power} · coef · Σ_copies kernels · Π factors."""

    coef: Expr
    power: Expr
    factors: tuple[Factor, ...]
    kernels: tuple[Kernel, ...] = ()

    @property
    def copies(self) -> tuple[int, ...]:
        return copies_of(self.factors, self.kernels)

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two terms the same up to their coefficient (after `canonical`)."""
        return (str(self.power), self.factors, self.kernels)


def copies_of(factors: Iterable[Factor], kernels: Iterable[Kernel] = ()) -> tuple[int, ...]:
    """The copy indices that occur, in increasing order."""
    found = {copy for factor in factors for _, copy in factor.atoms}
    found |= {copy for _, copies in kernels for copy in copies}
    return tuple(sorted(found))


def relabel(
    factors: Iterable[Factor], kernels: Iterable[Kernel], names: dict[int, int]
) -> tuple[tuple[Factor, ...], tuple[Kernel, ...]]:
    """Rename copies and sort atoms, factors and kernels."""
    renamed = sorted(
        (Factor(f.population, tuple(sorted((a, names[c]) for a, c in f.atoms))) for f in factors),
        key=lambda f: (f.population, f.atoms),
    )
    moved = sorted(_moved(kind, tuple(names[c] for c in copies)) for kind, copies in kernels)
    return tuple(renamed), tuple(moved)


def _moved(kind: str, copies: tuple[int, ...]) -> Kernel:
    """A kernel at renamed copies; only equality is symmetric in them."""
    return kind, copies if kind.startswith(PAST) else tuple(sorted(copies))


def canonical_labels(factors: Sequence[Factor], kernels: Sequence[Kernel], fixed: Sequence[int] = ()) -> dict[int, int]:
    """The renaming of copies that gives the smallest key; copies in `fixed` keep their place at the front.

    Copies are coloured by the factors they sit in, and only copies of one colour are permuted, so that the cost
    stays far below the k! of a blind search.
    """
    free = [c for c in copies_of(factors, kernels) if c not in fixed]
    base = {c: i for i, c in enumerate(fixed)}
    classes = colour_classes(factors, kernels, free)
    best: tuple[object, dict[int, int]] | None = None
    for orders in product(*(permutations(c) for c in classes)):
        names = dict(base)
        for copy in (c for order in orders for c in order):
            names[copy] = len(names)
        key = relabel(factors, kernels, names)
        shape = (tuple((f.population, f.atoms) for f in key[0]), key[1])
        if best is None or shape < best[0]:  # type: ignore[operator]
            best = (shape, names)
    return best[1] if best else base


def colour_classes(factors: Sequence[Factor], kernels: Sequence[Kernel], copies: Sequence[int]) -> list[list[int]]:
    """Group copies by what they touch, refined until stable (colour refinement)."""
    colour: dict[int, int] = dict.fromkeys(copies, 0)
    while True:
        signature = {c: repr(_touches(c, factors, kernels, colour)) for c in copies}
        ranks = {s: i for i, s in enumerate(sorted(set(signature.values())))}
        refined = {c: ranks[signature[c]] for c in copies}
        if len(set(refined.values())) == len(set(colour.values())):
            break
        colour = refined
    groups: dict[int, list[int]] = {}
    for c in copies:
        groups.setdefault(refined[c], []).append(c)
    return [groups[k] for k in sorted(groups)]


def _touches(
    copy: int, factors: Sequence[Factor], kernels: Sequence[Kernel], colour: dict[int, int]
) -> list[tuple[object, ...]]:
    seen: list[tuple[object, ...]] = []
    for f in factors:
        own = sorted(a for a, c in f.atoms if c == copy)
        if own:
            rest = sorted((a, colour.get(c, -1)) for a, c in f.atoms if c != copy)
            seen.append((f.population, own, rest))
    for kind, cs in kernels:
        if copy in cs:
            others = [colour.get(c, -1) for c in cs]
            seen.append((kind, cs.index(copy), others) if kind.startswith(PAST) else (kind, sorted(others)))
    return sorted(seen, key=repr)


def canonical(term: Term) -> Term:
    """The same term with its copies renamed canonically."""
    names = canonical_labels(term.factors, term.kernels)
    factors, kernels = relabel(term.factors, term.kernels, names)
    return Term(term.coef, term.power, factors, kernels)


def collect(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Merge equal terms, split coefficients by powers of N, drop zeros; order is by key, so reproducible."""
    sums: dict[tuple[object, ...], Term] = {}
    for raw in terms:
        for coef, power in powers_of_n(raw.coef):
            term = canonical(Term(coef, raw.power + power, raw.factors, raw.kernels))
            old = sums.get(term.key)
            sums[term.key] = Term((old.coef if old else S.Zero) + term.coef, term.power, term.factors, term.kernels)
    kept = [t for t in sums.values() if t.coef != 0]
    return tuple(sorted(kept, key=lambda t: repr(t.key)))


def powers_of_n(coef: Expr) -> list[tuple[Expr, Expr]]:
    """Split an expression into ``[(coefficient, power of N), …]``.

    Raises
    ------
    QuenchedError
        If N occurs in anything but powers.
    """
    if not coef.has(N):
        return [(coef, S.Zero)]
    parts: dict[Expr, Expr] = {}
    # Expanding multiplies denominators out, N with sums that do not hold it.
    apart = {p: Dummy() for p in coef.atoms(Pow) if not p.has(N) and p.base.is_Add}
    back = {dummy: p for p, dummy in apart.items()}
    for piece in coef.xreplace(apart).expand().as_ordered_terms():
        rest, powers = (part.xreplace(back) for part in piece.as_independent(N))
        base, exponent = powers.as_base_exp() if powers != 1 else (N, S.Zero)
        if base != N or exponent.has(N):
            raise QuenchedError(f"N must occur in powers only, found {powers} in {coef}")
        parts[exponent] = parts.get(exponent, S.Zero) + rest
    return [(c, p) for p, c in sorted(parts.items(), key=lambda item: str(item[0]))]
