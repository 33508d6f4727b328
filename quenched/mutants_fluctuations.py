"""Deliberately wrong theories of fluctuations: mistakes in the quadratic action or in what one unit passes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sympy import S, lambdify

from quenched.numerics.conditioned import ConditionedPropagators
from quenched.numerics.propagators import Complex, GaussianPropagators, floats
from quenched.theory.errors import NotCovered
from quenched.theory.problem import DS, DT
from quenched.theory.problem_fluctuations import FluctuationProblem

if TYPE_CHECKING:
    from quenched.numerics.types import Array


class _Changed(GaussianPropagators):
    """The propagators of a solved state, one of them wrong."""

    def __init__(self, right: GaussianPropagators) -> None:
        if isinstance(right, ConditionedPropagators):
            raise NotCovered("this mutant needs units that are alike and have no frozen inputs")
        self.__dict__.update(right.__dict__)


class OneCorner(_Changed):
    """Nothing passes back from a field to a conjugate field: of the two geometric series one is left."""

    def between(self, a: str, c: str, omega: Array, moved: bool = False) -> Complex:
        if a in self.problem.conjugates and c not in self.problem.conjugates:
            return np.zeros(len(omega), complex)
        return super().between(a, c, omega, moved)


class NoisePassedOn(_Changed):
    """Outputs as strong as if all of a state's spectrum came through the couplings: right without external noise."""

    def spectrum(self, a: str, b: str, omega: Array) -> Complex:
        right = super().spectrum(a, b, omega)
        reads = {name for _, *ends in self.problem.modes for name in ends}
        if not {a, b} <= reads:
            return right
        state = next(f.name for f in self.problem.fields if f.name not in reads and f.a == self.fields[a].a)
        whole = np.real(super().spectrum(state, state, omega))
        return right * whole / (whole - self._noise(self.fields[state].a, omega))

    def _noise(self, argument: int, omega: Array) -> Array:
        full = self.problem.full
        filtered = full.noise[full.pairs.index((argument, argument))].xreplace(floats(self.values))
        d = 1j * omega if self.flow else np.exp(1j * omega)
        noise: Array = np.real(lambdify([DT, DS], filtered, "numpy")(d, np.conj(d)))
        return noise


def without_gains(problem: FluctuationProblem) -> FluctuationProblem:
    """P'' without the parameters in its entries: a = R₁R₂ for g²R₁R₂."""
    rows = tuple(tuple(S(e.as_coeff_Mul()[0]) for e in row) for row in problem.hessian)
    if rows == problem.hessian:
        raise NotCovered("this mutant needs gains in the quadratic action, and there are only numbers")
    return replace(problem, hessian=rows)


#: name → (the mistake in words, change of the problem or None, change of the propagators or None)
FLUCTUATION_MUTANTS: dict[
    str,
    tuple[
        str,
        Callable[[FluctuationProblem], FluctuationProblem] | None,
        Callable[[GaussianPropagators], GaussianPropagators] | None,
    ],
] = {
    "series-without-gain": (
        "the ratio of the planar series without the variance of the couplings",
        without_gains,
        None,
    ),
    "one-corner": ("one of the two planar series left out", None, OneCorner),
    "noise-passed-on": ("the formula without external noise for the covariances of states", None, NoisePassedOn),
}
