"""Other derivations of a real spectrum from its declaration: free probability, and replicas of a Gaussian vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quenched.rendering import Lines
from quenched.theory.errors import QuenchedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from quenched.spectral import SpectralTheory
    from quenched.theory.free import ScalarSystem
    from quenched.theory.record import Step

Params = Mapping[Any, Any] | None


@dataclass(frozen=True)
class Route:
    """A derivation of the resolvent that shares nothing with the matrix Dyson equation but the declaration.

    Attributes
    ----------
    theory : SpectralTheory
        What it must agree with.
    steps : tuple of Step
        The record, in order.
    """

    theory: SpectralTheory
    steps: tuple[Step, ...]

    @property
    def system(self) -> ScalarSystem:
        """The closed equations of the resolvent w(z)."""
        from quenched.theory.free import ScalarSystem

        form = self.steps[-1].after
        assert isinstance(form, ScalarSystem)
        return form

    @property
    def equations(self) -> Lines:
        """The closed equations, as they are read."""
        return Lines(self.system.lines())

    def resolvent(self, z: ArrayLike, params: Params = None, **keywords: float) -> NDArray[np.complex128]:
        """g(z) = w from these equations alone, shaped like z.

        Raises
        ------
        ConvergenceError
            An equation was not solved.
        """
        from quenched.numerics.scalar_system import ScalarSolver

        solver = self.theory.solve(params, **keywords).solver
        return ScalarSolver(self.system.problem, solver.analytic).solve(z)[..., 0]

    def disagreement(self, z: ArrayLike, params: Params = None, **keywords: float) -> float:
        """Largest difference to the resolvent of the Dyson equation at points z."""
        import numpy as np

        expected = self.theory.solve(params, **keywords).resolvent(z)
        return float(np.max(np.abs(self.resolvent(z, params, **keywords) - expected)))

    def turning(self, low: float, high: float, params: Params = None, **keywords: float) -> tuple[float, float]:
        """Where z(w) turns between two values of w, dz/dw = 0: (w, z), z an edge of the support.

        Raises
        ------
        QuenchedError
            If the equations are not one equation z(w), or z(w) does not turn between these values.
        """
        from scipy.optimize import brentq

        from quenched.numerics.scalar_system import ScalarSolver
        from quenched.theory.free import W, turning

        solver = self.theory.solve(params, **keywords).solver
        z, slope = (ScalarSolver(form.problem, solver.analytic) for form in turning(self.system))

        def rate(w: float) -> float:
            return float(slope.residual([complex(w)], 0j)[0].real)  # type: ignore[arg-type]

        if not rate(low) * rate(high) < 0:
            raise QuenchedError(f"z({W}) does not turn between {low:g} and {high:g}")
        root = float(brentq(rate, low, high, xtol=1e-15, rtol=1e-14))
        return root, float(z.residual([complex(root)], 0j)[0].real)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __repr__(self) -> str:
        return "\n".join(f"{k}. {step.text()}" for k, step in enumerate(self.steps, start=1))
