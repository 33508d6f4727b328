"""The tangent of a declared system: forward differentiation of its right-hand sides, through couplings and averages.

A right-hand side is a sequence of intermediates (what couplings read, what they return, averages) followed by one
expression a field. Each gets a companion d(e) = Σ_s (∂e/∂s) ds, the sum running over the fields and the earlier
intermediates that it contains; couplings and averages are linear, so d(J@ψ) = J@dψ. Noise and disorder are shared by
trajectory and tangent, which is what a Lyapunov exponent needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sympy import DiracDelta, Expr, S, Symbol


def directional(expr: Expr, tangents: Mapping[Symbol, Symbol]) -> Expr:
    """Σ_s (∂expr/∂s)·tangents[s] over the symbols that move."""
    moving = sorted((s for s in expr.free_symbols if s in tangents), key=str)
    return sum((expr.diff(s) * tangents[s] for s in moving), S.Zero)


def has_jump(exprs: Iterable[Expr]) -> bool:
    """Whether a derivative contains Dirac deltas: the right-hand side jumps and its tangent misses the jumps."""
    return any(e.has(DiracDelta) for e in exprs)


def noise_kind(bodies: Iterable[tuple[Symbol | None, Expr]], noises: set[Symbol], moving: set[Symbol]) -> str:
    """How noise enters a sequence of (intermediate, expression): none, additive, multiplicative or nonlinear.

    `moving` are the symbols that change in time by themselves (fields, delayed fields). An intermediate inherits
    noise and motion from its expression; an expression without a symbol is the right-hand side of a field.
    """
    noisy, moves, kind = set(noises), set(moving), "none"
    ranks = ["none", "additive", "multiplicative", "nonlinear"]
    for symbol, expr in bodies:
        free = expr.free_symbols
        for source in sorted(free & noisy, key=str):
            slope = expr.diff(source).free_symbols
            here = "nonlinear" if slope & noisy else "multiplicative" if slope & moves else "additive"
            kind = max(kind, here, key=ranks.index)
        if symbol is not None and free & noisy:
            noisy.add(symbol)
        if symbol is not None and free & moves:
            moves.add(symbol)
    return kind
