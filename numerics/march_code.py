"""Compiled site functions for the march, and where they have kinks and jumps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sympy import DiracDelta, Expr, Symbol, lambdify, sympify

from quenched.theory.errors import NotCovered
from quenched.theory.problem import U
from quenched.theory.problem_causal import Output, TwoTimeProblem

from .cache import digest, load
from .codegen import switching
from .process_code import _Scalar
from .sites import find_kinks
from .types import Array

VERSION = "march 2"
_SIDE = 1e-7

_HEAD = '''"""Generated from a two-time problem: the functions that couplings read. Edits are lost."""

import math

import numpy
from numba import cfunc, njit


@njit
def sgn(a):
    return 1.0 if a > 0 else (-1.0 if a < 0 else 0.0)


@cfunc("f8(i8, f8, f8[::1], f8[::1])")
def site(o, u, q, p):
'''


def site_functions(problem: TwoTimeProblem, outputs: Sequence[Output]) -> Any:
    """One compiled function (output, u, label values, parameters in the order of their names) → value."""
    source = _source(problem, outputs)
    return load(digest(VERSION + source), lambda: source).site


def _source(problem: TwoTimeProblem, outputs: Sequence[Output]) -> str:
    parameters = {s.name: f"p[{k}]" for k, s in enumerate(sorted(problem.parameters, key=lambda s: s.name))}
    lines = []
    for k, out in enumerate(outputs):
        labels = {q.symbol.name: f"q[{j}]" for j, q in enumerate(problem.units[out.unit].labels)}
        names = parameters | labels | {U.name: "u"}
        e = sympify(out.function.expr)
        try:
            code = _Scalar({"fully_qualified_modules": True}).doprint(
                e.xreplace({s: Symbol(names[s.name]) for s in e.free_symbols if s.name in names})
            )
        except Exception as error:
            raise NotCovered(f"no compiled code for {e}: {error}") from error
        if "Not supported" in code:
            raise NotCovered(f"no compiled code for {e}")
        lines += [f"    if o == {k}:", f"        return float({code})"]
    return _HEAD + "\n".join([*lines, "    return 0.0"]) + "\n"


def site_kinks(
    problem: TwoTimeProblem, outputs: Sequence[Output], values: dict[Symbol, float], labels: Array, count: Any
) -> Array:
    """Places, gains of slope and jumps of every output at every label node, (outputs, L, 3, most)."""
    found: dict[tuple[int, int], Array] = {}
    for k, out in enumerate(outputs):
        own = [q.symbol for q in problem.units[out.unit].labels]
        labelled = bool(sympify(out.function.expr).free_symbols & set(own))
        for l in range(int(count[out.unit])):
            if l and not labelled:
                found[k, l] = found[k, 0]
            else:
                given = dict(zip(own, labels[out.unit, l], strict=False))
                found[k, l] = _kinks(_bound(out.function.expr, {**values, **given}))
    most = max((f.shape[1] for f in found.values()), default=0)
    table = np.zeros((len(outputs), labels.shape[1], 3, most))
    for (k, l), f in found.items():
        table[k, l, :, : f.shape[1]] = f
    return table


def _bound(expr: Expr, values: dict[Symbol, float]) -> Expr:
    by_name = {s.name: v for s, v in values.items()}
    e = sympify(expr)
    return e.xreplace({s: sympify(by_name[s.name]) for s in e.free_symbols - {U} if s.name in by_name})


def _kinks(e: Expr) -> Array:
    """(places, gains of slope, jumps) of one function."""
    switches = switching(e)
    if not switches:
        return np.zeros((3, 0))
    conditions = lambdify(U, list(switches), ["numpy", "scipy"])
    places = find_kinks(lambda u: [np.broadcast_to(c, u.shape) for c in conditions(u)])
    slope = e.diff(U)
    slope = slope.replace(lambda x: isinstance(x, DiracDelta), lambda x: sympify(0))
    f, df = (lambdify(U, x, ["numpy", "scipy"]) for x in (e, slope))
    rows = []
    for k in places:
        left, right = k - _SIDE, k + _SIDE
        rise = float(df(right)) - float(df(left))
        jump = float(f(right)) - float(f(left)) - _SIDE * (float(df(left)) + float(df(right)))
        rows.append((k, rise if abs(rise) > 1e-5 else 0.0, jump if abs(jump) > 1e-9 else 0.0))
    kept = [r for r in rows if r[1] or r[2]]
    return np.array(kept, dtype=float).reshape(-1, 3).T.copy()
