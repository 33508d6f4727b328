"""`derive(Spectrum(M))`: the derivation of a spectrum, and the numbers that its equations give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quenched.rendering import Lines, derivation_html, derivation_rich
from quenched.theory.errors import QuenchedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from quenched.numerics.spectra import SpectralSolver
    from quenched.numerics.types import Number
    from quenched.theory.problem_dyson import SpectralProblem
    from quenched.theory.spectral import SpectralDerivation
    from quenched.theory.spectrum import Spectrum
    from quenched.theory_object import Theory

Params = Mapping[Any, float] | None


class SpectralTheory:
    """The N → ∞ spectrum of one declared matrix.

    Attributes
    ----------
    derivation : SpectralDerivation
        The steps: pencil, self-energy, scalar equations, boundary.
    """

    def __init__(self, derivation: SpectralDerivation) -> None:
        self.derivation = derivation

    @property
    def model(self) -> Spectrum:
        """The declaration that the theory is of."""
        return self.derivation.model

    @property
    def problem(self) -> SpectralProblem:
        """The Dyson equations that the solvers get."""
        return self.derivation.problem

    @property
    def equations(self) -> Lines:
        """Scalar equations, resolvent and boundary."""
        return Lines(self.derivation.equations)

    def values(self, params: Params = None, **keywords: float) -> dict[Any, float]:
        """The complete assignment of parameters; an unknown or missing one is an error."""
        return dict(self.model.values(params, **keywords))

    def solve(self, params: Params = None, *, z: ArrayLike | None = None, **keywords: float) -> SpectralSolution:
        """The spectrum at values of the parameters.

        Parameters
        ----------
        params, **keywords
            Values by symbol or by name; what is left out takes the declaration's default.
        z : array of complex, optional
            Where `SpectralSolution.g` is wanted.

        Raises
        ------
        ConvergenceError
            An equation was not solved.
        """
        from quenched.numerics.spectra import SpectralSolver

        values = self.values(params, **keywords)
        solution = SpectralSolution(self, values, SpectralSolver(self.problem, values), z)
        if z is not None:
            _ = solution.g
        return solution

    def density(self, z: ArrayLike, params: Params = None, **keywords: float) -> NDArray[np.float64]:
        """Density of eigenvalues at z: per unit length if they are real, else per unit area."""
        return self.solve(params, **keywords).density(z)

    def edges(self, params: Params = None, **keywords: float) -> list[Number]:
        """Points of the real axis at which the support begins and ends, in order."""
        return self.solve(params, **keywords).edges()

    def _repr_latex_(self) -> str:
        return str(self.derivation.latex())

    def _repr_html_(self) -> str:
        return derivation_html(self.derivation)

    def __repr__(self) -> str:
        return f"Spectrum of {self.model.name or 'a matrix'}\n{self.derivation.text()}"

    def __rich__(self) -> Any:
        return derivation_rich(self.derivation)


@dataclass
class SpectralSolution:
    """Resolvent, density, counts, support and outliers of a matrix at given parameters.

    Attributes
    ----------
    theory : SpectralTheory
    values : dict of Symbol to float
    solver : SpectralSolver
    z : points at which g was asked for, or None
    """

    theory: SpectralTheory
    values: dict[Any, float]
    solver: SpectralSolver
    z: ArrayLike | None = None

    @cached_property
    def g(self) -> NDArray[np.complex128]:
        """lim (1/n) tr (z − M)⁻¹ at the points that `solve` was given."""
        if self.z is None:
            raise QuenchedError("no points were given: solve(z=…), or resolvent(z)")
        return self.resolvent(self.z)

    def resolvent(self, z: ArrayLike) -> NDArray[np.complex128]:
        """lim (1/n) tr (z − M)⁻¹, shaped like z; on the real axis of a Hermitian matrix its value at z + i0."""
        return self.solver.resolvent(z)[0]

    def density(self, z: ArrayLike) -> NDArray[np.float64]:
        """Density of eigenvalues, shaped like z: per unit length if they are real, else per unit area."""
        return self.solver.density(z)[0]

    def inside(self, z: ArrayLike) -> NDArray[np.bool_]:
        """Whether points lie in the support, shaped like z."""
        return self.solver.inside(z)

    def count(
        self,
        *,
        window: tuple[float, float] | None = None,
        box: tuple[tuple[float, float], tuple[float, float]] | None = None,
        disc: float | tuple[float, complex] | None = None,
    ) -> Number:
        """Fraction of eigenvalues in one region, with its error.

        Parameters
        ----------
        window : (low, high), for real eigenvalues
        box : ((low, high) of the real part, (low, high) of the imaginary part)
        disc : radius, or (radius, centre)
        """
        given = [name for name, region in (("window", window), ("box", box), ("disc", disc)) if region is not None]
        if len(given) != 1:
            raise QuenchedError(f"count takes one of window=, box=, disc=, got {', '.join(given) or 'none'}")
        if window is not None:
            if not self.theory.model.hermitian:
                raise QuenchedError(
                    "the eigenvalues of this matrix are complex: give box= or disc= in place of window="
                )
            return self.solver.window(*window)
        if box is not None:
            return self.solver.box(*box)
        radius, centre = disc if isinstance(disc, tuple) else (disc, 0.0)
        assert radius is not None
        return self.solver.disc(radius, centre)

    def edges(self) -> list[Number]:
        """Points of the real axis at which the support begins and ends, in order."""
        return self.solver.edges()

    def boundary(self, angles: int = 64, centre: complex | None = None) -> list[NDArray[np.complex128]]:
        """Boundary points on rays from a centre (default: the centre of mass), one array a ray."""
        return self.solver.boundary(angles, centre)

    def outliers(self) -> list[Number]:
        """Real eigenvalues outside the support that finite-rank parts make."""
        return self.solver.outliers()


def jacobian_spectrum(theory: Theory, params: Params = None, **keywords: float) -> SpectralSolution:
    """Spectrum of the Jacobian at a typical state of a solved dynamics.

    The Jacobian comes from the declaration, the law of the states in it from the main branch of the solution. States
    count as independent of the couplings, as they are for couplings without symmetry.

    Raises
    ------
    NotCovered
        For states that are not Gaussian given nothing, or a declaration whose Jacobian is not built.
    """
    from quenched.theory.distributions import Normal
    from quenched.theory.errors import NotCovered
    from quenched.theory.jacobian import jacobian
    from quenched.theory.spectral import derive_spectrum

    problem, values = theory.problem, theory.values(params, **keywords)
    if problem.labels:
        names = ", ".join(str(label.symbol) for label in problem.labels)
        raise NotCovered(f"the Jacobian at states that depend on quenched numbers ({names}) is not built")
    symmetric = [m.name for m in theory.model.matrices if getattr(m, "symmetry", 0) != 0]
    if symmetric:
        raise NotCovered(
            f"the states depend on the partly symmetric couplings ({', '.join(symmetric)}): give laws to jacobian()"
        )
    state = theory.solved(values).state
    laws = {}
    for x in theory.model.fields:
        for k, argument in enumerate(problem.arguments):
            if (argument.name, argument.population) == (x.name, x.population.name):
                laws[x] = Normal(float(state.mean[k]), float(state.variance[k]))
    spectrum = jacobian(theory.model, laws)
    chosen = {s.name: v for s, v in values.items() if s in spectrum.parameters}
    return SpectralTheory(derive_spectrum(spectrum)).solve(chosen)
