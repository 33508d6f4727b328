"""Simulation of a declared `Spectrum`: sampled matrices and the eigenvalues of each.

Quenched numbers on diagonals are placed at the quantiles of their laws, in random order: drawn at random they add a
scatter of N^(−1/2) that hides the much smaller scatter of eigenvalues, which repel each other. Standard errors are over
independent matrices, never over the eigenvalues of one.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sympy import Dummy, Expr, Symbol

from quenched.theory.algebra import Diag, Inverse, Matrix, Outer, Transpose
from quenched.theory.couplings import RandomMatrix
from quenched.theory.eigenvalue_observables import (
    SIDES,
    Count,
    Density,
    Edge,
    Moment,
    OfEigenvalues,
    Outlier,
    Radius,
    with_numbers,
)
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.spaces import N as SIZE
from quenched.theory.spectrum import Spectrum
from quenched.validate import eigenvalue_experiment, quantiles, sampling
from quenched.validate.eigenvalue_experiment import EigenvalueExperiment, Expression, Factor, Labels, Measure
from quenched.validate.emit import array_code
from quenched.validate.estimators import Estimator
from quenched.validate.experiment import Prepared
from quenched.validate.generate import label
from quenched.validate.quantities import Numbers, Values, matrix_spec

#: Sides of the sampled matrices and their number, for each tier.
QUICK: dict[str, Any] = {"sides": (100, 200, 400), "trials": 112}
FULL: dict[str, Any] = {"sides": (200, 400, 800), "trials": 96}
#: Sizes N are multiples of this, so that fractions of it are whole numbers.
_MULTIPLE = 20


def tier(model: Spectrum, values: Mapping[Symbol, float], quick: bool) -> dict[str, Any]:
    """Sizes N at which the sampled matrices have the sides of a tier, and the number of samples."""
    chosen = QUICK if quick else FULL
    numbers = Numbers(dict(values), 1)
    share = sum(numbers(p.count) for p in model.populations)
    sizes = tuple(max(1, round(side / share / _MULTIPLE)) * _MULTIPLE for side in chosen["sides"])
    return {"sizes": sizes, "trials": chosen["trials"]}


def prepare(model: Spectrum, N: int, seed: int, params: Mapping[Any, Any], *, labels: str = "quantiles") -> Prepared:
    """Put numbers into a declared matrix.

    Parameters
    ----------
    model : Spectrum
    N : int
        Reference size; a population has its fraction of N units, rounded.
    seed : int
    params : dict of symbol or name to number
    labels : "quantiles" or "random"
        Place quenched numbers at the quantiles of their laws, in random order, or draw them.
    """
    if labels not in ("quantiles", "random"):
        raise QuenchedError(f"labels should be 'quantiles' or 'random', got {labels!r}")
    values = model.values(params)
    writer = Writer(model, Numbers(values, N))
    observables = model.observables or model.standard
    parts = sorted({f for expr in observables.values() for f in expr.atoms(OfEigenvalues)}, key=str)
    task = EigenvalueExperiment(
        seed=seed,
        N=N,
        sizes=tuple(writer.numbers.size(p)[1] for p in model.populations),
        blocks=tuple(
            (model.heads.index(p), model.heads.index(q), writer.expression(block))
            for (p, q), block in model.blocks.items()
        ),
        matrices=tuple(matrix_spec(atom, writer.numbers) for atom in model.matrices),
        labels=writer.labels(labels == "quantiles"),
        hermitian=model.hermitian,
        measures=tuple(measure(with_numbers(f, values), model.hermitian) for f in parts),
        formulas=tuple((name, formula(expr, parts, values)) for name, expr in observables.items()),
    )
    note = _placement(model, labels)
    populations = {p for m in model.matrices for p in (m.rows, m.cols)} | set(model.populations)
    return Prepared(
        task,
        {"model": model.key(), "version": code_version(), "task": repr(replace(task, realisation=0))},
        {name: (estimator(name, expr, model.hermitian, note), None) for name, expr in observables.items()},
        {p.name: v for p, v in values.items()},
        {p.name: writer.numbers.size(p) for p in sorted(populations, key=lambda p: p.name)},
        {"labels": labels},
    )


def _placement(model: Spectrum, labels: str) -> str:
    if not model.quenched:
        return "none from sampling"
    if labels == "random":
        return "none from sampling; quenched numbers drawn at random scatter by N^(-1/2)"
    return "quenched numbers at the quantiles of their laws, in random order: O(1/N)"


# ---------------------------------------------------------------- expressions as plain data


class Writer:
    """Writes the expressions of one declaration as plain data, with numbers for its parameters."""

    def __init__(self, model: Spectrum, numbers: Numbers) -> None:
        self.model, self.numbers = model, numbers
        self.names = {q: Symbol(f"q{k}", real=True) for k, q in enumerate(model.quenched)}

    def expression(self, matrix: Matrix) -> Expression:
        """A matrix expression."""
        terms = tuple((self.coefficient(c), tuple(self.factor(f) for f in word)) for c, word in matrix.terms)
        return Expression(self.numbers.size(matrix.rows)[1], self.numbers.size(matrix.cols)[1], terms)

    def coefficient(self, expr: Expr) -> complex:
        """A scalar in parameters and N, real or complex."""
        value = complex(expr.subs({**self.numbers.values, SIZE: self.numbers.N}))
        return value if value.imag else value.real

    def factor(self, factor: Matrix) -> Factor:
        """One factor of a word; a new class of factors is a line here and an entry of `MULTIPLY`."""
        if isinstance(factor, RandomMatrix):
            return Factor("matrix", label(factor))
        if isinstance(factor, Transpose):
            return Factor("transpose", label(factor.matrix))
        if isinstance(factor, Diag):
            return Factor("diag", vectors=(self.vector(factor.vector),))
        if isinstance(factor, Inverse):
            return Factor("inverse", inner=self.expression(factor.matrix))
        if isinstance(factor, Outer):
            sizes = (str(self.numbers.size(p)[1]) for p in (factor.rows, factor.cols))
            return Factor("outer", vectors=(self.vector(factor.left), self.vector(factor.right), *sizes))
        raise NotCovered(f"{factor} of the class {type(factor).__name__} is not sampled")

    def vector(self, expr: Expr) -> str:
        """Source of a unit quantity in the identifiers of the quenched numbers."""
        return array_code(expr.xreplace({**self.numbers.values, SIZE: self.numbers.N, **self.names}).evalf(17))

    def labels(self, placed: bool) -> tuple[Labels, ...]:
        """The quenched numbers."""
        return tuple(
            Labels(s.name, label(q), self.numbers.size(q.population)[1], self.numbers.law(q.law), placed)
            for q, s in self.names.items()
        )


def formula(expr: Expr, parts: list[Any], values: Values) -> str:
    """An observable in o[0], o[1], …"""
    table = {f: Symbol(f"o[{k}]", real=True) for k, f in enumerate(parts)}
    return array_code(expr.xreplace(table).xreplace(values).evalf(17))


def measure(it: OfEigenvalues, hermitian: bool) -> Measure:
    """A functional with numbers as plain data."""
    if isinstance(it, Count):
        return Measure(it.kind, tuple(complex(x) for x in it.region))
    if isinstance(it, Density):
        at, width = (complex(x) for x in it.args)
        return Measure("density", (at, width, 2 * width if hermitian else 3.141592653589793 * width**2))
    if isinstance(it, Edge):
        bounds = (-float("inf") if it.above is None else it.above, float("inf") if it.below is None else it.below)
        rank = EXTREME if hermitian else TIP
        return Measure("edge", (complex(SIDES[it.side]), *(complex(x) for x in (*bounds, *rank))))
    if isinstance(it, Radius):
        rank = EXTREME if hermitian else RIM
        return Measure("radius", (complex(it.centre), *(complex(x) for x in (it.inner, *rank))))
    if isinstance(it, Outlier):
        return Measure("outlier", (complex(SIDES[it.side]), complex(it.rank)))
    assert isinstance(it, Moment)
    return Measure("moment", (complex(it.order),))


# ---------------------------------------------------------------- estimators

_LINEAR = "corrections to linear statistics of eigenvalues start at order 1/N"
_SOFT = "extreme eigenvalues of a density that ends like a square root lie N^(-2/3) from its edge (Tracy and Widom)"
_RIM = (
    "the eigenvalue of rank sqrt(N) from the rim of a disc lies N^(-1/2) inside (a largest modulus would lie"
    " sqrt(ln N/N) outside, no power); intercept 0.0006(18) on Ginibre matrices, N = 100 to 400"
)
_TIP = (
    "the eigenvalue of rank N^(1/4) from the tip of a smooth boundary lies N^(-1/2) inside, where a cap of that depth"
    " holds as many (the largest real part lies sqrt(ln N/N) outside, no power); measured: this distance times sqrt(N)"
    " varies by 3 % between N = 60 and 800 on partly symmetric matrices with gains"
)
#: Rank c·n^a of the eigenvalue that stands for an end of the support. The rim of a disc holds of the order of √n
#: eigenvalues, the tip in one direction of the order of n^(1/4): those ranks follow a power of n, which the outermost
#: ones do not.
RIM, TIP, EXTREME = (1.0, 0.5), (1.0, 0.25), (1.0, 0.0)


def estimator(name: str, expr: Expr, hermitian: bool, note: str) -> Estimator:
    """How an observable is measured; in an expression the slowest finite-size law of its parts counts."""
    parts = sorted(expr.atoms(OfEigenvalues), key=str)
    power, reason = min((_law(f, hermitian) for f in parts), key=lambda law: law[0])
    names = [Dummy() for _ in parts]
    formula = expr.xreplace(dict(zip(parts, names, strict=True)))
    linear = all(formula.diff(n).free_symbols.isdisjoint(names) for n in names)
    extreme = any(isinstance(f, (Edge, Radius)) for f in parts)
    bias = note + ("; on one side of the edge at every N; an outlier would be taken for the edge" if extreme else "")
    return Estimator(
        name,
        str(expr),
        "mean" if linear else "function of means",
        bias,
        "declaration" if extreme else "nothing",
        min_N=20,
        power=power,
        reason=reason,
    )


def _law(it: OfEigenvalues, hermitian: bool) -> tuple[float, str]:
    """Exponent of the leading finite-size correction, and why."""
    if isinstance(it, Edge) and it.power is not None:
        return float(it.power), "declared with the observable"
    if isinstance(it, (Edge, Radius)):
        return (2 / 3, _SOFT) if hermitian else (0.5, _RIM if isinstance(it, Radius) else _TIP)
    if isinstance(it, Outlier):
        return 1.0, "an outlier scatters by N^(-1/2) about a mean with corrections of order 1/N"
    return 1.0, _LINEAR


@lru_cache(maxsize=1)
def code_version() -> str:
    """Digest of the code that samples run: part of every stored key."""
    code = hashlib.sha256()
    for module in (eigenvalue_experiment, quantiles, sampling):
        code.update(inspect.getsource(module).encode())
    return code.hexdigest()[:16]
