"""Fluctuations of a theory at finite N: their derivation, and cross-covariances and participation ratios in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from quenched.readout import Quantity
from quenched.rendering import Lines
from quenched.theory.cross import CrossCovariance
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fluctuations import (
    CrossCovariances,
    PropagateUnits,
    QuadraticAction,
    SitePropagators,
    quadratic_problem,
)
from quenched.theory.spaces import tau

if TYPE_CHECKING:
    from quenched.numerics.fluctuations import Fluctuation
    from quenched.numerics.propagators import GaussianPropagators, Propagators
    from quenched.theory.derivation import Derivation
    from quenched.theory.problem import SiteFunction
    from quenched.theory.problem_fluctuations import FluctuationProblem, QuadraticProblem
    from quenched.theory.record import Step
    from quenched.theory_object import Theory


class Fluctuations:
    """The order 1/N of a theory: covariances between units, derived from its quadratic action.

    Attributes
    ----------
    derivation : Derivation
        The theory's own steps and those that follow.
    """

    def __init__(self, theory: Theory) -> None:
        self.theory = theory
        own = theory.derivation
        self.derivation: Derivation = own if own.find(CrossCovariances) else own.fluctuations()
        self._known: dict[tuple[tuple[str, float], ...], GaussianPropagators] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps from the quadratic action on."""
        steps = self.derivation.steps
        first = next(k for k, step in enumerate(steps) if isinstance(step.after, QuadraticAction))
        return steps[first:]

    @property
    def result(self) -> CrossCovariances:
        """The last form: the variance of cross-covariances of every output and state."""
        found = self.derivation.find(CrossCovariances)
        assert found is not None  # every path through `__init__` ends in it
        return found

    @property
    def lines(self) -> Lines:
        """The lines of all steps."""
        return Lines(line for step in self.steps for line in step.after.lines())

    @property
    def quadratic(self) -> QuadraticProblem:
        """The quadratic action as solvers take it, whatever the law of the units."""
        return quadratic_problem(self.result.quadratic)

    @cached_property
    def problem(self) -> FluctuationProblem:
        """What the solver gets where units are Gaussian.

        Raises
        ------
        NotCovered
            If units are not Gaussian.
        """
        found = self.derivation.find(SitePropagators)
        if found is None:
            raise NotCovered(f"no numbers for these fluctuations: {self._uncovered}")
        return self.theory.fluctuation_problem(replace(found.problem, full=self.theory.problem))

    @property
    def _uncovered(self) -> str:
        reasons = [reason for title, reason in self.derivation.refusals if title == PropagateUnits.title]
        return reasons[-1] if reasons else self.derivation.refusal or "units are not Gaussian"

    def propagators(self, values: dict[Any, float]) -> GaussianPropagators:
        """Spectra and responses of one unit in the state that the dynamics reaches.

        Raises
        ------
        QuenchedError
            Nothing fluctuates at these parameters.
        NotCovered
            Units have more than two frozen inputs.
        """
        from quenched.numerics.conditioned import gaussian_propagators

        key = tuple(sorted((str(k), float(v)) for k, v in values.items()))
        if key not in self._known:
            solved = gaussian_propagators(self.problem, self.theory.potential, values)
            self._known = {key: self.theory.fluctuation_propagators(solved)}
        return self._known[key]

    def solve(
        self, params: Any = None, *, lags: Any = None, tol: float = 1e-6, **keywords: float
    ) -> FluctuationSolution:
        """Participation ratios and ψ(τ, τ) of every output and state, in the state that the dynamics reaches.

        Parameters
        ----------
        params, **keywords
            Values by symbol or by name; what is left out takes the declaration's default.
        lags : array of shape (k,), optional
            Lags τ of ψ(τ, τ), in the declaration's unit of time; τ = 0 by default.
        tol : float
            Relative accuracy of ψ(0, 0) aimed at.

        Raises
        ------
        QuenchedError
            Nothing fluctuates at these parameters.
        NotCovered
            Units have more than two frozen inputs.
        ConvergenceError
            The integrals do not converge (too close to a transition).
        """
        from quenched.numerics.fluctuations import fluctuation

        values = self.theory.values(params, **keywords)
        state = self.propagators(values)
        names = self.result.observed
        found = {name: fluctuation(state, name, lags, tol=tol) for name in names}
        return FluctuationSolution(found, {str(k): float(v) for k, v in values.items()})

    def participation(self, name: str, params: Any = None, *, tol: float = 1e-6, **keywords: float) -> Quantity:
        """(Tr C)²/Tr C² per unit of one output or state; arguments as in `solve`."""
        from quenched.numerics.fluctuations import fluctuation

        if name not in self.result.observed:
            raise QuenchedError(f"no output or state {name!r}: {nearest(name, self.result.observed)}")
        found = fluctuation(self.propagators(self.theory.values(params, **keywords)), name, tol=tol).participation
        return Quantity(float(found.value), float(found.error))

    def observed(
        self, what: CrossCovariance, sites: Sequence[tuple[SiteFunction, int]], values: dict[Any, float], lags: Any
    ) -> Quantity:
        """An observable of covariances between units, of two functions of one Gaussian argument each.

        Parameters
        ----------
        what : which number or curve
        sites : the two functions with their arguments
        values : of all parameters
        lags : array (k,), of a curve
        """
        state = self.propagators(values)
        names = []
        for f, a in sites:
            like = next(unit for unit in self.problem.fields if unit.a == a)
            observed = replace(like, name=f"observed {f.expr} of {a}", f=f)
            if observed.name not in state.fields:
                state.add(observed)
            names.append(observed.name)
        return between(state, what, names, lags)

    def __repr__(self) -> str:
        return "\n".join(step.text() for step in self.steps)

    def _repr_html_(self) -> str:
        return self.lines._repr_html_()


def between(state: Propagators, what: CrossCovariance, names: Sequence[str], lags: Any, tol: float = 1e-6) -> Quantity:
    """The number or curve that is observed, of two fields that the state knows."""
    from quenched.numerics.fluctuations import cross_variance, fluctuation

    if what.statistic == "participation":
        ratio = fluctuation(state, names[0], tol=tol).participation
        return Quantity(float(ratio.value), float(ratio.error))
    curve = what.lag == tau
    at = np.asarray(lags, float) if curve else np.array([float(what.lag.xreplace(dict(state.values)))])
    value, error, _ = cross_variance(state, names[0], names[1], np.concatenate([[0.0], at]), tol=tol)
    scale = float(what.scale.xreplace(dict(state.values)))
    value, error = scale * value[1:], abs(scale) * error[1:]
    return Quantity(value, error, "tau", at) if curve else Quantity(float(value[0]), float(error[0]))


@dataclass(frozen=True)
class FluctuationSolution:
    """Numbers of the order 1/N.

    Attributes
    ----------
    fields : dict name of an output or state → `quenched.numerics.fluctuations.Fluctuation`
    parameters : dict name → value
    """

    fields: dict[str, Fluctuation]
    parameters: dict[str, float]

    @property
    def participation(self) -> dict[str, Quantity]:
        """(Tr C)²/Tr C² per unit, of every field."""
        return {n: Quantity(f.participation.value, f.participation.error) for n, f in self.fields.items()}

    @property
    def psi(self) -> dict[str, Quantity]:
        """ψ(τ, τ) = N·mean over i≠j of C_ij(τ)² at the lags asked for, of every field."""
        return {n: Quantity(f.psi, f.psi_error, "tau", f.tau) for n, f in self.fields.items()}

    def quantity(self, name: str) -> Quantity:
        """``PR_NAME`` or ``psi_NAME`` of an output or state."""
        known = {f"PR_{n}": q for n, q in self.participation.items()} | {f"psi_{n}": q for n, q in self.psi.items()}
        if name not in known:
            raise QuenchedError(f"no observable {name!r}: {nearest(name, list(known))}")
        return known[name]

    def __repr__(self) -> str:
        rows = [f"  PR_{n}/N = {q.value:.8g} ± {q.error:.1g}" for n, q in self.participation.items()]
        given = ", ".join(f"{k} = {v:g}" for k, v in self.parameters.items())
        return "\n".join([f"fluctuations at {given}", *rows])
