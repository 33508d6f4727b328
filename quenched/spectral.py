"""`derive(Spectrum(M))`: the derivation of a spectrum, and the numbers that its equations give."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quenched.eigenvalue_readout import Reader
from quenched.readout import Quantity
from quenched.rendering import Lines
from quenched.routes import Route
from quenched.solution import Branch, Solution
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory_object import Theory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from quenched.numerics.process_state import Sampling
    from quenched.numerics.spectra import SpectralSolver
    from quenched.numerics.types import Number
    from quenched.theory.problem_dyson import SpectralProblem
    from quenched.theory.spectral import SpectralDerivation
    from quenched.theory.spectrum import Spectrum

Params = Mapping[Any, float] | None
#: Points of the density curve of real eigenvalues.
CURVE = 201


class SpectralTheory(Theory):
    """The N → ∞ spectrum of one declared matrix.

    Attributes
    ----------
    derivation : SpectralDerivation
        The steps: pencil, self-energy, scalar equations, boundary.
    mutant, fixed : as in `Theory`
    """

    derivation: SpectralDerivation

    def __init__(self, derivation: SpectralDerivation, mutant: str | None = None, fixed: Collection[str] = ()) -> None:
        super().__init__(derivation, mutant, fixed)

    @property
    def model(self) -> Spectrum:  # type: ignore[override]
        """The declaration that the theory is of."""
        return self.derivation.model

    @property
    def problem(self) -> SpectralProblem:  # type: ignore[override]
        """The Dyson equations that the solvers get."""
        return self.derivation.problem

    @property
    def solvable(self) -> bool:
        return True

    @property
    def takes_lags(self) -> bool:
        return False

    @property
    def keeps_size(self) -> bool:
        return False

    @property
    def in_time(self) -> bool:
        return False

    @property
    def equations(self) -> Lines:
        """Scalar equations, resolvent and boundary."""
        return Lines(self.derivation.equations)

    @property
    def order_parameters(self) -> Lines:
        """The scalars of the matrix Dyson equation."""
        return Lines(self.derivation.scalars)

    def solve(  # type: ignore[override]
        self, params: Params = None, *, z: ArrayLike | None = None, **keywords: float
    ) -> SpectralSolution:
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

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the values that the derivation has; a mistake may have lost a parameter."""
        kept = super().own(values)
        names = {s.name for s in self.model.parameters}
        return {k: v for k, v in kept.items() if k in names} if self.mutant else kept

    def mutate(self, name: str) -> Theory:
        """The same theory with a deliberate mistake (see `quenched.spectral_mutants.SPECTRAL_MUTANTS`)."""
        from quenched.spectral_mutants import mutate

        return mutate(self, name)

    def _rates(self, params: Params, **keywords: float) -> dict[str, tuple[float, float]]:
        """Largest real part of the spectrum, the growth rate of dx/dt = M x."""
        branch = self.solve(params, **keywords).main
        return {branch.label: (branch.growth.value, branch.growth.error)}

    def free_probability(self) -> Route:
        """The same resolvent from R- and S-transforms, for sums and products of free symmetric parts.

        Raises
        ------
        NotCovered
            Where the matrix is none.
        """
        from quenched.theory.free import free_route

        return Route(self, free_route(self.model))

    def replicas(self) -> Route:
        """The same resolvent from n → 0 replicas of a Gaussian vector with the energy ½ φᵀ(z − M)φ.

        Raises
        ------
        NotCovered
            For matrices that are not symmetric, inverses, finite-rank parts, or words of many factors.
        """
        from quenched.theory.edwards_jones import replica_route

        return Route(self, replica_route(self.model))

    def jacobian_spectrum(self, params: Params = None, **keywords: Any) -> SpectralSolution:
        """A matrix has no Jacobian; its spectrum is `solve`."""
        raise NotCovered("a Spectrum is a matrix, not a dynamics: solve(...) gives its spectrum")

    def fluctuations(self) -> Any:
        """Fluctuations of linear statistics are not built."""
        raise NotCovered("fluctuations() of the eigenvalues of a matrix is not built; solve(...) gives their limits")

    def export(self, path: str | Path) -> Path:
        """Standalone solvers of Dyson equations are not built."""
        raise NotCovered("export of a spectrum's solver is not built yet; solve(...).save(FILE.nc) keeps its numbers")

    def __repr__(self) -> str:
        return f"Spectrum of {self.model.name or 'a matrix'}\n{self.derivation.text()}"


class SpectralBranch(Branch):
    """The spectrum as a branch of a solution: its observables by name; nothing is computed before it is asked for."""

    def __init__(self, reader: Reader, model: Spectrum) -> None:
        self.reader = reader
        self.observed = model.observables or model.standard
        names = [*self.observed, *(["density"] if model.hermitian else [])]
        kind = "real" if model.hermitian else "complex"
        super().__init__("spectrum", kind, self._decays, self._edge, names, self._read, rms=self._rms)

    def _edge(self) -> Quantity:
        """Largest real part of the support: the growth rate of dx/dt = M x."""
        edge = self.reader.extents.edge(1.0)
        return Quantity(edge.value, edge.error)

    def _decays(self) -> bool:
        """Whether dx/dt = M x decays (outliers apart)."""
        return bool(self.growth.value < 0)

    def _read(self, name: str) -> Quantity:
        return self.reader.quantity(self.observed[name]) if name in self.observed else self._curve()

    def _rms(self, name: str) -> tuple[float, str] | None:
        return self.reader.scale(self.observed[name]) if name in self.observed else None

    def _curve(self) -> Quantity:
        """The density between the outermost edges, or where most of it is."""
        import numpy as np

        reach = self.reader.reach
        ends = [e.value for e in self.reader.solver.edges()] if self.reader.bounded else [-2 * reach, 2 * reach]
        if not ends:
            raise NotCovered("the density curve needs a support with a density")
        x = np.linspace(ends[0], ends[-1], CURVE)
        value, error = self.reader.solver.density(x)
        return Quantity(value, error, "x", x)

    def __repr__(self) -> str:
        return f"{self.label} ({self.kind} eigenvalues, largest real part of the bulk {self.growth.value:.6g})"


class SpectralSolution(Solution):
    """Resolvent, density, counts, support and outliers of a matrix at given parameters; declared observables by name.

    Attributes
    ----------
    theory : SpectralTheory
    values : dict of Symbol to float
    solver : SpectralSolver
    z : points at which g was asked for, or None
    """

    def __init__(
        self, theory: SpectralTheory, values: dict[Any, float], solver: SpectralSolver, z: ArrayLike | None = None
    ) -> None:
        self.theory, self.values, self.solver, self.z = theory, values, solver, z
        self.reader = Reader(solver, values)
        branch = SpectralBranch(self.reader, theory.right.model)  # type: ignore[arg-type]
        given = {str(k): float(v) for k, v in values.items()}
        super().__init__([branch], 0, given, self.provenance_of(theory))

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

    def rightmost(self) -> complex:
        """The point of the boundary with the largest real part, in the upper half plane.

        Of a Jacobian: the growth rate of the fastest perturbations, and their frequency (0 if they do not oscillate).
        """
        return self.reader.extents.tip()

    def outliers(self) -> list[Number]:
        """Real eigenvalues outside the support that finite-rank parts make."""
        return self.solver.outliers()

    def plot(self, names: list[str] | None = None) -> Any:
        """Plot the density: a curve if the eigenvalues are real, else a map; returns the matplotlib figure."""
        from quenched.plots import plot_plane, plot_solution

        return plot_solution(self, names or ["density"]) if self.theory.model.hermitian else plot_plane(self)


def jacobian_spectrum(
    theory: Theory, params: Params = None, sampling: Sampling | None = None, **keywords: float
) -> SpectralSolution:
    """Spectrum of the Jacobian at a typical state of a solved dynamics: the solution of `jacobian_at`."""
    from quenched.theory.spectral import derive_spectrum

    return SpectralTheory(derive_spectrum(jacobian_at(theory, params, sampling, **keywords))).solve()


def jacobian_at(theory: Theory, params: Params = None, sampling: Sampling | None = None, **keywords: float) -> Spectrum:
    """The Jacobian at a typical state of a solved dynamics, as a declared matrix.

    The Jacobian comes from the declaration, the law of the states in it from the main branch of the solution. States
    count as independent of the couplings, as they are for couplings without symmetry. Dynamic couplings are eliminated:
    what is left is the bulk of the joint Jacobian apart from the eigenvalues at the bonds' own rates.

    Parameters
    ----------
    sampling : how units that are not Gaussian are sampled, as in `Theory.solve`

    Returns
    -------
    Spectrum
        With numbers for all parameters; observables can be declared, and `simulate` and `validate` take it.

    Raises
    ------
    NotCovered
        For a declaration whose Jacobian is not built, or one that needs the joint law of several fields of a unit.
    """
    from quenched.state_laws import state_laws

    values = theory.values(params, **keywords)
    return jacobian_of(theory, values, lambda: state_laws(theory, values, sampling))


def jacobian_of(theory: Theory, values: Mapping[Any, float], laws: Any) -> Spectrum:
    """The Jacobian of a theory's declaration at states of given laws (or a function that gives them), with numbers.

    Raises
    ------
    NotCovered
        As in `jacobian_at`.
    """
    from quenched.theory.jacobian import jacobian

    symmetric = [m.name for m in theory.model.matrices if getattr(m, "symmetry", 0) != 0]
    if symmetric:
        raise NotCovered(
            f"the states depend on the partly symmetric couplings ({', '.join(symmetric)}): give laws to jacobian()"
        )
    spectrum = jacobian(theory.model, laws() if callable(laws) else laws)
    shared = [q for q in spectrum.quenched if sum(p.population == q.population for p in spectrum.quenched) > 1]
    if shared:
        names = ", ".join(sorted(q.name for q in shared))
        raise NotCovered(f"the Jacobian needs the joint law of {names} of a unit; give laws to jacobian()")
    return spectrum.fix({s: v for s, v in values.items() if s in spectrum.parameters})
