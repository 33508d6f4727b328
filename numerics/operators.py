"""Coefficients that contain responses as operators in time, as filters over frequency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from sympy import Dummy, Expr, Symbol, lambdify, sympify

from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.problem import DS, DT, Label, OperatorSymbol
from quenched.theory.problem_labels import LabelMean

from .labels import label_nodes
from .types import Array

#: Nodes of an angle on the circle: averages of smooth functions converge exponentially.
_ANGLES = 128
#: Response of an output to a field, at the frequencies of a grid.
Responses = Mapping[tuple[str, str], np.ndarray]


class OperatorFilter:
    """A coefficient as a function of frequency, given the responses there."""

    def __init__(self, expr: Expr, operators: tuple[OperatorSymbol, ...], values: Mapping[str, float]) -> None:
        self.operators = operators
        symbols = [s for o in operators for s in (o.symbol, o.adjoint)]
        self.code = _compiled(sympify(expr), [*symbols, DT, DS], values)

    def __call__(self, responses: Responses, shift: np.ndarray) -> np.ndarray:
        """At D_t = shift, D_s = its partner of a stationary state (adjoints act with the conjugate)."""
        given: list[Any] = []
        for o in self.operators:
            g = responses[o.output, o.field]
            given += [g, np.conj(g)]
        found = self.code(*given, shift, np.conj(shift))
        return np.broadcast_to(np.asarray(found, dtype=complex), np.shape(shift))


def _compiled(expr: Expr, symbols: list[Symbol], values: Mapping[str, float]) -> Callable[..., Any]:
    """A function of the symbols; averages over labels are sums over nodes."""
    means = sorted(expr.atoms(LabelMean), key=str)
    marks = [Dummy(f"mean_{k}") for k in range(len(means))]
    flat = expr.xreplace(dict(zip(means, marks, strict=True)))
    missing = [s for s in flat.free_symbols - set(symbols) - set(marks) if s.name not in values]
    if missing:
        raise QuenchedError(f"parameter {missing[0]} has no value: {nearest(str(missing[0]), values)}")
    known = {s: values[s.name] for s in flat.free_symbols if s.name in values and s not in symbols}
    outer = lambdify([*symbols, *marks], flat.xreplace(known), "numpy")
    inner = [_mean(m, symbols, values) for m in means]
    return lambda *given: outer(*given, *(f(*given) for f in inner))


def _mean(node: LabelMean, symbols: list[Symbol], values: Mapping[str, float]) -> Callable[..., Any]:
    body = _compiled_with(node.body, [*symbols, *node.labels], values)
    rules = [_nodes(q, values) for q in node.labels]
    grid = [([u for u, _ in chosen], float(np.prod([w for _, w in chosen]))) for chosen in product(*rules)]
    return lambda *given: sum(w * body(*given, *point) for point, w in grid)


def _compiled_with(expr: Expr, symbols: list[Any], values: Mapping[str, float]) -> Callable[..., Any]:
    known = {s: values[s.name] for s in expr.free_symbols if s.name in values and s not in symbols}
    made: Callable[..., Any] = lambdify(symbols, expr.xreplace(known), "numpy")
    return made


def _nodes(label: Any, values: Mapping[str, float]) -> list[tuple[float, float]]:
    law = label.law
    if type(law).__name__ == "Uniform":
        low, high = (float(sympify(a).subs({s: values[s.name] for s in sympify(a).free_symbols})) for a in law.args)
        if abs(high - low - 2 * np.pi) < 1e-12:
            return [(low + (high - low) * (k + 0.5) / _ANGLES, 1 / _ANGLES) for k in range(_ANGLES)]
    symbols = {s: values[s.name] for s in getattr(law, "free_symbols", set())}
    points, weights = label_nodes((Label(Symbol(label.name), law),), symbols)
    return [(p[0], float(w)) for p, w in zip(points, weights, strict=True)]


def spectrum_of(response: Array, step: float, flow: bool, length: int) -> np.ndarray:
    """A response at lags 0, step, … as an operator at the frequencies of a grid of `length` times.

    In a flow the first and last lag count half, as in every memory integral.
    """
    weights = np.full(len(response), step if flow else 1.0)
    if flow:
        weights[[0, -1]] /= 2
    row = np.zeros(length)
    row[: len(response)] = weights * response
    return np.fft.rfft(row)


def kernel_of(spectrum: np.ndarray, length: int, reach: int) -> Array:
    """A causal operator as weights of lags 0 … reach, the share of an instant included."""
    return np.fft.irfft(spectrum, n=length)[: reach + 1]
