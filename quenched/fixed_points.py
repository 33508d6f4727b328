"""`Theory.fixed_point_stability`: whether a homogeneous fixed point of a declared dynamics is stable, and where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quenched.theory.errors import ConvergenceError, QuenchedError, nearest

if TYPE_CHECKING:
    from quenched.numerics.types import Number
    from quenched.spectral import SpectralSolution, SpectralTheory
    from quenched.theory.model import Model

Params = Mapping[Any, Any] | None


@dataclass
class FixedPointStability:
    """The Jacobian of a dynamics at a fixed point, and what its spectrum says.

    Attributes
    ----------
    model : Dynamics or Map
    spectrum : SpectralTheory
        Theory of the Jacobian, with all its steps.
    """

    model: Model
    spectrum: SpectralTheory
    _solved: dict[tuple[tuple[str, float], ...], SpectralSolution] = field(default_factory=dict, repr=False)

    def solve(self, params: Params = None, **keywords: float) -> SpectralSolution:
        """The spectrum of the Jacobian at values of the parameters."""
        known = {s.name for s in self.spectrum.model.parameters}
        values = {s.name: v for s, v in self.model.values(params, **keywords).items() if s.name in known}
        key = tuple(sorted(values.items()))
        if key not in self._solved:
            self._solved[key] = self.spectrum.solve(values)
        return self._solved[key]

    def growth(self, params: Params = None, **keywords: float) -> Number:
        """Growth rate of the fastest small perturbation: largest real part (flow), log of the largest modulus (map)."""
        import numpy as np

        from quenched.numerics.extents import Extents
        from quenched.numerics.types import Number

        solution = self.solve(params, **keywords)
        found = Extents(solution.solver)
        outliers = solution.outliers()
        if self.model.clock == "flow":
            return max([found.edge(1.0 + 0j), *outliers], key=lambda e: e.value)
        largest = max([found.radius(), *(Number(abs(o.value), o.error) for o in outliers)], key=lambda e: e.value)
        return Number(float(np.log(largest.value)), largest.error / largest.value)

    def stable(self, params: Params = None, **keywords: float) -> bool:
        """Whether every small perturbation decays."""
        return bool(self.growth(params, **keywords).value < 0)

    def critical(self, parameter: Any, low: float, high: float, params: Params = None, **keywords: float) -> Number:
        """The value of one parameter between two others at which stability is lost.

        Raises
        ------
        QuenchedError
            For an unknown parameter, or where the fixed point is stable (or unstable) at both ends.
        """
        from scipy.optimize import brentq

        from quenched.numerics.types import Number

        names = [s.name for s in self.model.parameters]
        name = str(parameter)
        if name not in names:
            raise QuenchedError(f"no parameter {name!r}: {nearest(name, names)}")
        given = {**{str(k): v for k, v in (params or {}).items()}, **keywords}

        def growth(value: float) -> float:
            return self.growth({**given, name: value}).value

        ends = growth(low), growth(high)
        if not ends[0] * ends[1] < 0:
            state = "stable" if ends[0] < 0 else "unstable"
            raise QuenchedError(f"the fixed point is {state} at {name} = {low:g} and at {high:g}: no value between")
        root, report = brentq(growth, low, high, xtol=1e-11, full_output=True)
        if not report.converged:
            raise ConvergenceError(f"the critical {name} was not found: {report.flag}", [])
        at = self.growth({**given, name: root})
        slope = (ends[1] - ends[0]) / (high - low)
        return Number(float(root), abs(at.value / slope) + abs(at.error / slope))


def fixed_point_stability(model: Model, at: Mapping[Any, float] | None = None) -> FixedPointStability:
    """The stability of a homogeneous fixed point: every field has one value in all units.

    Parameters
    ----------
    model : Dynamics or Map
    at : dict of Field to number, optional
        The state, default zero for every field.

    Raises
    ------
    NotCovered
        For a state that is no fixed point, or a declaration whose Jacobian is not built.
    """
    from quenched.spectral import SpectralTheory
    from quenched.theory.jacobian import jacobian, stationary_point
    from quenched.theory.spectral import derive_spectrum

    state = stationary_point(model, dict(at or {}))
    return FixedPointStability(model, SpectralTheory(derive_spectrum(jacobian(model, state))))
