"""Products of averages over sites, as numbers: what terms of an action stand for."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from itertools import product

import numpy as np

from quenched.theory.average import Functional
from quenched.theory.lower import CopiedAction
from quenched.theory.spaces import N
from quenched.theory.terms import PAST, Atom, Kernel, Term
from quenched.validate.meaning import SIZE, Array, Values, number

#: Field name → array (sites, copies).
Instances = dict[str, Array]


def tensor(atoms: tuple[Atom, ...], order: tuple[int, ...], fields: Instances, weight: Array) -> Array:
    """Σ_sites weight Π atoms, as an array with one axis for each copy in `order`."""
    out: Array = weight.astype(complex).reshape((-1,) + (1,) * len(order))
    for name, copy in atoms:
        shape = [len(weight)] + [1] * len(order)
        shape[1 + order.index(copy)] = fields[name].shape[1]
        out = out * fields[name].reshape(shape)
    return out.sum(axis=0)


def contract(
    pieces: list[tuple[Array, tuple[int, ...]]],
    kernels: tuple[Kernel, ...],
    copies: int,
    known: Mapping[str, Array] | None = None,
) -> complex:
    """Σ over all copies of Π pieces, each with its copies, restricted by the kernels (`known`: given numbers)."""
    labels = sorted({c for _, order in pieces for c in order} | {c for _, cs in kernels for c in cs})
    total = 0j
    sizes = {c: size for array, order in pieces for c, size in zip(order, array.shape, strict=True)}
    for at in product(*(range(sizes.get(c, copies)) for c in labels)):
        here = dict(zip(labels, at, strict=True))
        weight = np.prod([_relation(kind, tuple(here[c] for c in cs), copies, known) for kind, cs in kernels])
        if weight != 0:
            total += weight * np.prod([array[tuple(here[c] for c in order)] for array, order in pieces])
    return complex(total)


def _relation(kind: str, at: tuple[int, ...], copies: int, known: Mapping[str, Array] | None = None) -> float:
    """The weight of copies that a term relates: equality, or what a dynamic coupling remembers of an earlier copy."""
    if known and kind in known:
        return float(known[kind][at])
    if kind.startswith(PAST):
        return float(memory_of(kind.removeprefix(PAST), copies)[at])
    if kind != "same":
        raise ValueError(f"unknown relation between copies: {kind}")
    return float(len(set(at)) == 1)


@lru_cache(maxsize=64)
def memory_of(bond: str, copies: int) -> Array:
    """Some retarded kernel K(c, c′), zero unless c′ < c: the same whenever it is asked for."""
    rng = np.random.default_rng([zlib.crc32(bond.encode()), copies])
    return np.tril(rng.uniform(0.5, 1.5, size=(copies, copies)), -1)


def copies_in(atoms: tuple[Atom, ...]) -> tuple[int, ...]:
    """The distinct copies of a monomial, in increasing order."""
    return tuple(sorted({c for _, c in atoms}))


def term_value(
    term: Term,
    fields: Instances,
    weights: Mapping[str, Array],
    values: Values,
    copies: int,
    kernels: Mapping[str, Array] | None = None,
) -> complex:
    """N^power · coef · Σ_copies Π ⟨…⟩, averages with the given site weights per population."""
    pieces = []
    for f in term.factors:
        order = copies_in(f.atoms)
        pieces.append((tensor(f.atoms, order, fields, weights[f.population]), order))
    return number(term.coef * N**term.power, values) * contract(pieces, term.kernels, copies, kernels)


def site_weights(action: CopiedAction, values: Values, sites: int) -> dict[str, Array]:
    """Weights that turn a sum over sites into an average over a population of f·N of them."""
    return {p.name: np.full(sites, 1 / number(p.count, {**values, N: SIZE}).real) for p in action.populations}


def functional_value(
    functional: Functional, fields: Instances, weights: Mapping[str, Array], values: Values, copies: int
) -> tuple[complex, float]:
    """The averaged exponent per N (terms of all kept powers of N), and the size of its largest term."""
    every = (*functional.terms, *functional.lower_order)
    parts = [term_value(term, fields, weights, values, copies) for term in every]
    return complex(sum(parts)), max((abs(p) for p in parts), default=1.0)
