"""Fluctuations of a theory at finite N: their derivation, and cross-covariances and participation ratios in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quenched.readout import Quantity
from quenched.rendering import Lines
from quenched.theory.errors import NotCovered, QuenchedError, nearest

if TYPE_CHECKING:
    from quenched.numerics.fluctuations import Fluctuation
    from quenched.theory.derivation import Derivation
    from quenched.theory.fluctuations import CrossCovariances
    from quenched.theory.problem import SiteFunction
    from quenched.theory.problem_fluctuations import FluctuationProblem, UnitField
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
        from quenched.theory.average import Functional
        from quenched.theory.fluctuations import ExpandBetweenCopies, InvertQuadraticAction, PropagateUnits
        from quenched.theory.linear import LinearUnits

        self.theory = theory
        own = theory.derivation
        functional, units = own.find(Functional), own.find(LinearUnits)
        assert functional is not None  # the average is the second step of every derivation
        derivation = own.apply(ExpandBetweenCopies(), functional)
        self._uncovered = own.refusal or ""
        if units is not None and own.problem is not None:
            try:
                derivation = derivation.apply(PropagateUnits(units, own.problem))
            except NotCovered as stop:
                derivation = derivation.refuse(PropagateUnits.title, str(stop))
                self._uncovered = str(stop)
        elif not self._uncovered:
            self._uncovered = "units are not Gaussian: their spectra and responses have to be sampled, not built yet"
        self.derivation: Derivation = derivation.apply(InvertQuadraticAction())

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps beyond the theory's own."""
        return self.derivation.steps[len(self.theory.derivation.steps) :]

    @property
    def result(self) -> CrossCovariances:
        """The last form: the variance of cross-covariances of every output and state."""
        from quenched.theory.fluctuations import CrossCovariances

        found = self.derivation.find(CrossCovariances)
        assert found is not None
        return found

    @property
    def lines(self) -> Lines:
        """The lines of all steps."""
        return Lines(line for step in self.steps for line in step.after.lines())

    @cached_property
    def problem(self) -> FluctuationProblem:
        """What the solver gets.

        Raises
        ------
        NotCovered
            If units are not Gaussian, differ from each other, or have frozen inputs.
        """
        from quenched.theory.fluctuations import SitePropagators

        found = self.derivation.find(SitePropagators)
        if found is None:
            raise NotCovered(f"no numbers for these fluctuations: {self._uncovered}")
        return found.problem

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
            Means or a frozen part of the covariances do not vanish.
        ConvergenceError
            The integrals do not converge (too close to a transition).
        """
        values = self.theory.values(params, **keywords)
        found = self.of(self.problem.fields, values, lags=lags, tol=tol)
        return FluctuationSolution(found, {str(k): float(v) for k, v in values.items()})

    def of(
        self, fields: Iterable[UnitField], values: dict[Any, float], lags: Any = None, tol: float = 1e-6
    ) -> dict[str, Fluctuation]:
        """The same of any functions of one argument each."""
        from quenched.numerics.fluctuations import fluctuations

        return fluctuations(self.problem, self.theory.potential, values, tuple(fields), lags=lags, tol=tol)

    def of_function(self, f: SiteFunction, a: int, values: dict[Any, float], tol: float = 1e-6) -> Fluctuation:
        """The same of a function of argument `a`."""
        like = next(unit for unit in self.problem.fields if unit.a == a)
        observed = replace(like, name=f"observed {f.expr}", f=f)
        return self.of([observed], values, tol=tol)[observed.name]

    def __repr__(self) -> str:
        return "\n".join(step.text() for step in self.steps)

    def _repr_html_(self) -> str:
        return self.lines._repr_html_()


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
