"""The `Theory` that `derive` returns: the derivation, and the verbs that use its result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from quenched.rendering import Lines, derivation_html, derivation_rich
from quenched.theory.errors import NotCovered, QuenchedError, check_keywords

if TYPE_CHECKING:
    from quenched.complexity import StableFixedPoints
    from quenched.depth import DepthScales
    from quenched.fixed_points import FixedPointStability
    from quenched.fluctuations import Fluctuations
    from quenched.numerics import RawSolution, Sampling
    from quenched.numerics.propagators import GaussianPropagators
    from quenched.onset import Onset
    from quenched.solution import Solution
    from quenched.spectral import SpectralSolution
    from quenched.stability import Stability
    from quenched.sweeping import Sweep
    from quenched.theory.model import Model
    from quenched.theory.problem import PotentialProblem, SiteProcess, StationaryGaussian
    from quenched.theory.problem_fluctuations import FluctuationProblem
    from quenched.theory.problem_layers import FirstOrder, LayeredGaussian
    from quenched.theory.spectrum import Spectrum
    from quenched.theory.steps import Steps

Params = Mapping[Any, float] | None


@dataclass(frozen=True)
class Coverage:
    """What of a model the theory covers, each gap with its reason."""

    solver: str
    observables: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.solver == "covered" and all(v == "covered" for v in self.observables.values())

    def __str__(self) -> str:
        rows = [("solver", self.solver), *self.observables.items()]
        return "\n".join(f"{name}: {what}" for name, what in rows)


class Theory:
    """The N → ∞ theory of one declaration.

    Attributes
    ----------
    derivation : Derivation, or that of the reading
        The steps, each with title, rule, assumption, before, after and dropped terms.
    mutant : str or None
        Name of the deliberate error that this theory carries, None for the derived one.
    fixed : frozenset of str
        Names of the parameters that were fixed before deriving.
    """

    def __init__(self, derivation: Steps, mutant: str | None = None, fixed: Collection[str] = ()) -> None:
        self.derivation: Any = derivation  # other readings have derivations of their own
        self.mutant = mutant
        self.fixed = frozenset(fixed)
        self._right: Theory | None = None
        self._fluctuations: Fluctuations | None = None

    @property
    def model(self) -> Model:
        """The declaration that the theory is of."""
        model: Model = self.derivation.model
        return model

    @property
    def written(self) -> Model:
        """The declaration in the form that the derivation goes on from (members of finite populations written out)."""
        model: Model = getattr(self.derivation, "written", self.model)
        return model

    @property
    def right(self) -> Theory:
        """The theory without its deliberate mistake: itself, unless it is a mutant."""
        return self._right or self

    def mistaken(self, mutant: str, right: Theory) -> Self:
        """This theory, marked as a wrong one of the declaration that `right` is of."""
        self.mutant, self._right, self.fixed = mutant, right, right.fixed
        return self

    @property
    def companions(self) -> tuple[Any, ...]:
        """Theories of the same declaration that are derived apart from this one: other readings, observed counts."""
        from quenched.complexity import observed_counts

        return observed_counts(self.model)

    @property
    def agreement(self) -> Lines:
        """What this reading and the others of its declaration have to agree in, with the difference of both sides."""
        return Lines(())

    @property
    def equations(self) -> Lines:
        """The self-consistency equations, in the last form that the derivation reached."""
        return Lines(self.derivation.equations)

    @property
    def order_parameters(self) -> Lines:
        """The order parameters that the average over the disorder left, by name."""
        named = self.derivation.named_parameters
        return Lines(named.lines() if named else ())

    @property
    def problem(self) -> StationaryGaussian:
        """What the solvers get.

        Raises
        ------
        NotCovered
            The derivation ends before a problem that a solver takes.
        """
        if self.derivation.problem is None:
            raise NotCovered(str(self.derivation.refusal or "the derivation ends in no problem that a solver takes"))
        problem: StationaryGaussian = self.derivation.problem
        return problem

    @property
    def solvable(self) -> bool:
        """Whether the derivation ends in a problem that a solver takes."""
        d = self.derivation
        return any(found is not None for found in (d.problem, d.process, d.layered, d.march, d.points))

    @property
    def layered(self) -> LayeredGaussian:
        """The recursion over layers, of a network of finitely many steps.

        Raises
        ------
        NotCovered
            The declaration has no number of steps, or the derivation ends before.
        """
        if self.derivation.layered is None:
            raise NotCovered(str(self.derivation.refusal or "the declaration has no number of steps"))
        return self.derivation.layered

    @property
    def samples(self) -> bool:
        """Whether units are not Gaussian, so that `solve` samples their paths."""
        return self.derivation.problem is None and self.derivation.process is not None

    @property
    def takes_lags(self) -> bool:
        """Whether `solve` gives curves at any lags asked for (sampled ones keep the lags of their grid)."""
        return self.derivation.problem is not None or self.in_time

    @property
    def keeps_size(self) -> bool:
        """Whether powers of N stay in the saddle, so that the theory can be solved at every N."""
        from quenched.theory.spaces import N

        problem = self.derivation.problem or self.derivation.march
        return problem is not None and N in problem.parameters

    @property
    def in_time(self) -> bool:
        """Whether the state depends on time, so that it is marched."""
        d = self.derivation
        return d.march is not None and d.problem is None and d.process is None

    @property
    def transient(self) -> bool:
        """Whether units are not Gaussian and depend on time, so that a state is one of given times only."""
        process = self.derivation.process if hasattr(self.derivation, "process") else None
        return process is not None and self.derivation.problem is None and process.timed

    def marched(self, problem: Any) -> Any:
        """A two-time problem as this theory has it (a mutant changes it)."""
        return problem

    def sampled(self, process: SiteProcess) -> SiteProcess:
        """A single-site process as this theory has it (a mutant changes it)."""
        return process

    @property
    def potential(self) -> PotentialProblem | None:
        """The conservative particle that the problem reduces to, where it does."""
        return self.derivation.potential

    @property
    def coverage(self) -> Coverage:
        """What the theory covers; a refusal names its step, its term and the nearest declaration that is covered."""
        solver = "covered" if self.solvable else str(self.derivation.refusal)
        return Coverage(solver, dict.fromkeys(self.model.observables, solver))

    @property
    def order_one_over_n(self) -> FirstOrder:
        """Fluctuations and mean shifts of a network of finitely many steps.

        Raises
        ------
        NotCovered
            The derivation does not reach them.
        """
        found = self.derivation.order_one_over_n
        if found is None:
            refusals = self.derivation.refusals
            raise NotCovered(refusals[-1][1] if refusals else "the declaration has no number of steps")
        return found

    def values(self, params: Params = None, **keywords: float) -> dict[Any, float]:
        """The complete assignment of parameters; an unknown or missing one is an error."""
        settings = (p.name for p in signature(self.solve).parameters.values() if p.kind is p.KEYWORD_ONLY)
        check_keywords([*(params or {}), *keywords], self.model.parameters, settings)
        return dict(self.model.values(params, **keywords))

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the values that are not fixed in the derivation."""
        fixed = {*values} & {*self.fixed}
        return {name: value for name, value in values.items() if name not in fixed}

    def solve(
        self,
        params: Params = None,
        *,
        lags: Any = None,
        tol: float | None = None,
        sampling: Sampling | None = None,
        times: Any = None,
        dt: float | None = None,
        scheme: str = "trapezoid",
        nodes: int = 24,
        window: tuple[float, float] | None = None,
        **keywords: Any,
    ) -> Solution:
        """Solve the self-consistency.

        Parameters
        ----------
        params, **keywords
            Values by symbol or by name; what is left out takes the declaration's default.
        lags : array of shape (k,), optional
            Lags τ ≥ 0 of all curves, in the declaration's unit of time (steps of a map).
        tol : float, optional
            Accuracy asked for, relative; of sampled paths that of variances, for up to ten times as many sweeps.
        sampling : quenched.numerics.Sampling or quenched.numerics.March, optional
            How trajectories are sampled, for units that are not Gaussian (with `times` a `March`: paths a batch,
            batches, time step).
        times : array, optional
            Equally spaced times from 0 on (steps of a map): march means and two-time covariances from the declared
            initial values. Without it an input that depends on time is followed until its state repeats.
        dt, scheme, nodes : optional
            Of states in time: the step; "trapezoid" (the flow, extrapolated in the step) or "euler" (the Euler map at
            dt, exactly); nodes of a phase.

        Returns
        -------
        Solution
            Every observable with an error estimate; all branches.

        Raises
        ------
        ConvergenceError
            Nothing converged; carries the history of residuals.
        """
        from quenched.counted_solution import counted_solution
        from quenched.silence import only_silent, silent_solution, with_silence
        from quenched.theory.counted import counted

        size = keywords.pop("N", None)
        values = self.values(params, **keywords)
        if only_silent(self.model):
            return silent_solution(self, values)
        if counted(self.model):
            return counted_solution(self, values)
        how = {"lags": lags, "tol": tol, "sampling": sampling, "times": times, "size": size, "window": window}
        return with_silence(self, self._solve(values, dt=dt, scheme=scheme, nodes=nodes, **how), values)

    def _solve(
        self,
        values: dict[Any, float],
        *,
        lags: Any,
        tol: float | None,
        sampling: Any,
        times: Any,
        dt: float | None,
        scheme: str,
        nodes: int,
        window: tuple[float, float] | None,
        size: float | None,
    ) -> Solution:
        """The state and all other branches, by the solver that the derivation ends in."""
        from quenched.solution import Solution

        if self.derivation.layered is not None:
            return self.solve_layers(values)
        if self.derivation.points is not None:
            from quenched.courses import solve_courses

            return solve_courses(self, values, times)
        started = [bond.name for bond in getattr(self.model, "bonds", ()) if bond.initial is not None]
        if started and (times is not None or self.in_time):
            raise NotCovered(f"{started[0]} starts from an initial value: a state in time is derived for bonds from 0")
        if times is not None:
            from quenched.paths_in_time import Moments, as_march, process_in_time, solve_paths

            process = process_in_time(self)
            if process is not None:
                march = as_march(sampling, dt, scheme)
                return solve_paths(self, process, values, Moments(times, window, lags), march)
        if times is not None or self.in_time:
            from quenched.twotime import InTime, solve_in_time

            return solve_in_time(self, values, InTime(times, lags, dt, scheme, nodes, tol, window), size)
        self._keep_size(values, size)
        if self.samples:
            from quenched.sampled import solve_sampled

            return solve_sampled(self, values, sampling=sampling, tol=tol)
        options = {} if tol is None else {"tol": tol}
        return Solution.of(self, values, self.solved(values, lags=lags, **options))

    def solve_layers(self, values: dict[Any, float]) -> Solution:
        """March over the layers of a network of finitely many steps."""
        from quenched.layered import solve_layers

        return solve_layers(self, values)

    def depth_scales(self, params: Params = None, **keywords: float) -> DepthScales:
        """How many layers a signal travels: fixed points of the kernels, χ = g²⟨φ'φ'⟩ and its depth −1/ln χ.

        Raises
        ------
        NotCovered
            Networks with several fields, memory of single units, or gains that depend on the layer.
        """
        from quenched.depth import depth_scales

        return depth_scales(self, self.values(params, **keywords))

    def _keep_size(self, values: dict[Any, float], size: float | None) -> None:
        """Give N its value where powers of N stayed in the saddle; refuse it elsewhere."""
        from quenched.theory.spaces import N

        keeps = self.derivation.problem is not None and N in self.derivation.problem.parameters
        if keeps and size is None:
            raise QuenchedError("the saddle of this theory keeps powers of N: give its value, as in solve(N=1000)")
        if size is not None and not keeps:
            raise QuenchedError("the saddle of this theory does not contain N (it is the limit N → ∞): leave N out")
        if size is not None:
            values[N] = float(size)

    def solved(self, values: dict[Any, float], **options: Any) -> RawSolution:
        """All branches as the solver returns them."""
        from quenched import numerics

        raw: RawSolution = numerics.solve(self.problem, self.potential, values, **options)
        return raw

    def mutate(self, name: str) -> Theory:
        """The same theory with a deliberate mistake (see `quenched.mutants.MUTANTS`)."""
        from quenched.mutants import mutate

        return mutate(self, name)

    def sweep(self, params: Params = None, **keywords: Any) -> Sweep:
        """Solve at all combinations of the values given as lists, in order, each started from its neighbour."""
        from quenched.sweeping import sweep

        return sweep(self, {**{str(k): v for k, v in (params or {}).items()}, **keywords})

    def stability(self, params: Params = None, **keywords: float) -> Stability:
        """Growth of a small difference between two copies: rates of every branch, and the Hessian that they come from.

        The rates, label → (rate, error) per unit time (over layers: label → depth scale χ), are solved for when they
        are asked for; ``.steps``, ``.hessian`` and ``.agreement`` need no parameters.
        """
        from quenched.stability import Stability

        return Stability(self.derivation, lambda: self._rates(params, **keywords))

    def _rates(self, params: Params, **keywords: float) -> dict[str, tuple[float, float]]:
        if self.derivation.layered is not None:
            scales = self.depth_scales(params, **keywords)
            return {"equal inputs": (scales.chi_equal, 0.0), "different inputs": (scales.chi, 0.0)}
        values: dict[str, Any] = dict(keywords)
        solution = self.solve(params, **values)
        return {b.label: (b.growth.value, b.growth.error) for b in solution.branches}

    def jacobian(self, params: Params = None, **keywords: Any) -> Spectrum:
        """The Jacobian at a typical state as a declared matrix, to observe, simulate and validate.

        Takes ``sampling=`` as `solve` does.
        """
        from quenched.spectral import jacobian_at

        return jacobian_at(self, params, **keywords)

    def jacobian_spectrum(self, params: Params = None, **keywords: Any) -> SpectralSolution:
        """Spectrum of the Jacobian at a typical state: density, counts, boundary (see `quenched.spectral`)."""
        from quenched.spectral import jacobian_spectrum

        return jacobian_spectrum(self, params, **keywords)

    def fixed_point_stability(self, at: Mapping[Any, float] | None = None) -> FixedPointStability:
        """Stability of a homogeneous fixed point (default: zero) from the Jacobian's spectrum; critical parameters."""
        from quenched.fixed_points import fixed_point_stability

        return fixed_point_stability(self.model, at)

    def stable_fixed_points(self) -> StableFixedPoints:
        """(1/N) ln of the mean number of stable fixed points of a flow, and where the first ones appear.

        Raises
        ------
        NotCovered
            A declaration whose count is not derived.
        """
        from quenched.complexity import complexity

        return complexity(self.model)

    def onset(self) -> Onset:
        """Whether activity sets in continuously or with a jump where silence loses its stability.

        Raises
        ------
        NotCovered
            Silence is no state, or the declaration's units at rest are not derived.
        """
        from quenched.onset import onset

        return onset(self.model)

    @cached_property
    def silence(self) -> FixedPointStability:
        """Stability of the state in which all fields vanish."""
        return self.fixed_point_stability()

    def fluctuations(self) -> Fluctuations:
        """Fluctuations of order 1/N about the saddle: cross-covariances between units and participation ratios.

        Raises
        ------
        NotCovered
            For couplings whose quadratic action is not built (redrawn couplings).
        """
        from quenched.fluctuations import Fluctuations

        if self.derivation.layered is not None:
            raise NotCovered(
                "over layers the order 1/N is part of the theory itself: observe Fluctuation(...) or Shift(...)"
            )
        if self._fluctuations is None:
            self._fluctuations = Fluctuations(self)
        return self._fluctuations

    def fluctuation_problem(self, derived: FluctuationProblem) -> FluctuationProblem:
        """What the solver of fluctuations gets: as derived, unless this theory carries a mistake in it."""
        return derived

    def fluctuation_propagators(self, solved: GaussianPropagators) -> GaussianPropagators:
        """What fluctuations are built of: as solved, unless this theory carries a mistake in it."""
        return solved

    def export(self, path: str | Path) -> Path:
        """Write a standalone solver (numpy and scipy) that a person can read and run."""
        from quenched import numerics
        from quenched.files import write_text

        if self.derivation.layered is not None:
            raise NotCovered("a standalone solver of a recursion over layers is not built yet")
        return write_text(path, numerics.export(self.problem, self.potential))

    def _repr_latex_(self) -> str:
        return str(self.derivation.latex())

    def _repr_html_(self) -> str:
        return derivation_html(self.derivation)

    def __repr__(self) -> str:
        name = self.model.name or "model"
        return f"Theory of {name}\n{self.derivation.text()}"

    def __rich__(self) -> Any:
        return derivation_rich(self.derivation)
