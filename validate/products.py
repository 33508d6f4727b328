"""Static couplings in a row: which neighbours to multiply with each other once, instead of one after the other at every
step.

A *word* lists the couplings from the left, each as (matrix, transposed). Applied to a vector it costs one pass over
every factor; neighbours that are composed cost one pass over their product, and once the making of it. A product of few
dimensions in the middle is cheaper left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

Word = tuple[tuple[int, bool], ...]


def dimensions(word: Word, shapes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Rows of every factor of a word, and the columns of the last one."""
    turned = [shapes[k][::-1] if transposed else shapes[k] for k, transposed in word]
    return (*(rows for rows, _ in turned), turned[-1][1])


@lru_cache(maxsize=1024)
def segments(dims: tuple[int, ...], vectors: float) -> tuple[tuple[int, int], ...]:
    """Which factors to compose: (first, end) of every part, from the left.

    Parameters
    ----------
    dims : of n factors, n + 1 numbers
    vectors : number of vectors that the word is applied to

    Notes
    -----
    The cheapest path from the first to the last dimension, where a part i…j costs its entries for every vector and,
    of several factors, the multiplications that compose it.
    """
    best: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())]
    for end in range(1, len(dims)):
        paths = [
            (cost + vectors * dims[i] * dims[end] + composing(dims[i : end + 1]), (*path, (i, end)))
            for i, (cost, path) in enumerate(best)
        ]
        best.append(min(paths))
    return best[-1][1]


@lru_cache(maxsize=1024)
def composing(dims: tuple[int, ...]) -> float:
    """Multiplications that the product of matrices of these dimensions takes, in the best order."""
    if len(dims) < 3:
        return 0.0
    inner = range(1, len(dims) - 1)
    return min(float(dims[0] * dims[k] * dims[-1]) + composing(dims[: k + 1]) + composing(dims[k:]) for k in inner)


def entries(dims: tuple[int, ...], vectors: float) -> tuple[float, float]:
    """Numbers that one pass over the parts reads, and those of them that are composed: kept beside the factors."""
    parts = segments(dims, vectors)
    return (
        float(sum(dims[i] * dims[j] for i, j in parts)),
        float(sum(dims[i] * dims[j] for i, j in parts if j > i + 1)),
    )


def largest_intermediate(dims: tuple[int, ...], vectors: float) -> float:
    """Entries of the largest matrix on the way to a composed part of more than two factors, at most."""
    inner = [
        (dims[k], dims[m])
        for i, j in segments(dims, vectors)
        for k in range(i, j - 1)
        for m in range(k + 2, j + 1)
        if (k, m) != (i, j)
    ]
    return float(max((a * b for a, b in inner), default=0))


__all__ = ["Word", "composing", "dimensions", "entries", "largest_intermediate", "segments"]
