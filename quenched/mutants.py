"""Deliberately wrong theories: a verdict is worth what it rejects.

Each mutant is a mistake that people make, applied to the derived problem or to its solution; no mutant knows the model
that it is applied to. One that changes nothing at a parameter point (dropping a noise that is zero) is not detected,
and should not be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quenched.layer_mutants import LAYER_MUTANTS, LayerMutantTheory
from quenched.mutants_fluctuations import FLUCTUATION_MUTANTS
from quenched.process_mutants import PROCESS_MUTANTS, ProcessMutantTheory
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Gaussian, RandomMatrix
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.landscape import Landscape
from quenched.theory_object import Theory
from quenched.time_mutants import TIME_MUTANTS, TimeMutantTheory

if TYPE_CHECKING:
    from sympy import Expr

    from quenched.numerics import Branch, RawSolution
    from quenched.numerics.propagators import GaussianPropagators
    from quenched.theory.problem import PotentialProblem, StationaryGaussian
    from quenched.theory.problem_fluctuations import FluctuationProblem

ProblemChange = Callable[["StationaryGaussian"], "StationaryGaussian"]
SolutionChange = Callable[["Context", "RawSolution"], "RawSolution"]


@dataclass(frozen=True)
class Context:
    """What a change of a solution may look at."""

    problem: StationaryGaussian
    potential: PotentialProblem | None
    values: Mapping[Any, float]


@dataclass(frozen=True)
class Mutant:
    """One mistake: in words, and as a change of the problem or of its solution."""

    what: str
    problem: ProblemChange | None = None
    solution: SolutionChange | None = None


class MutantTheory(Theory):
    """A theory with a deliberate mistake."""

    def __init__(self, right: Theory, name: str, mutant: Mutant) -> None:
        super().__init__(right.derivation, fixed=right.fixed)
        self._mutant = mutant
        self.mistaken(f"{name}: {mutant.what}", right)

    @property
    def problem(self) -> StationaryGaussian:
        right = super().problem
        return self._mutant.problem(right) if self._mutant.problem else right

    @property
    def potential(self) -> PotentialProblem | None:
        if self._mutant.problem is None or super().potential is None:
            return super().potential
        from quenched.theory.potential import potential_problem

        return potential_problem(self.problem)

    def solved(self, values: dict[Any, float], **options: Any) -> RawSolution:
        raw = super().solved(values, **options)
        if self._mutant.solution is None:
            return raw
        return self._mutant.solution(Context(self.problem, self.potential, values), raw)


class MutantFluctuations(Theory):
    """A theory with a deliberate mistake in what lies beyond the saddle."""

    def __init__(self, right: Theory, name: str) -> None:
        super().__init__(right.derivation, fixed=right.fixed)
        what, self._problem, self._propagators = FLUCTUATION_MUTANTS[name]
        self.mistaken(f"{name}: {what}", right)

    def fluctuation_problem(self, derived: FluctuationProblem) -> FluctuationProblem:
        return self._problem(derived) if self._problem else derived

    def fluctuation_propagators(self, solved: GaussianPropagators) -> GaussianPropagators:
        return self._propagators(solved) if self._propagators else solved


def mutate(theory: Theory, name: str) -> Theory:
    """The theory with the mistake called `name`.

    Raises
    ------
    QuenchedError
        No such mutant.
    """
    if name in DECLARATION_MUTANTS:
        return mistaken_declaration(theory, name)
    if name in FLUCTUATION_MUTANTS:
        return MutantFluctuations(theory, name)
    if theory.in_time and name in TIME_MUTANTS:
        return TimeMutantTheory(theory, name)
    if name in PROCESS_MUTANTS and getattr(theory.derivation, "process", None) is not None:
        return ProcessMutantTheory(theory, name)
    if name in LAYER_MUTANTS:
        return LayerMutantTheory(theory, name, LAYER_MUTANTS[name])
    if name not in MUTANTS:
        known = [*MUTANTS, *DECLARATION_MUTANTS, *LAYER_MUTANTS, *TIME_MUTANTS, *FLUCTUATION_MUTANTS, *PROCESS_MUTANTS]
        raise QuenchedError(f"no mutant {name!r}: {nearest(name, known)}")
    return MutantTheory(theory, name, MUTANTS[name])


# --- mistakes in the declaration, for every head -------------------------------------------------------------------


@dataclass(frozen=True)
class DeclarationMutant:
    """The right theory of a wrong declaration: in words, and as what replaces a random matrix (itself: no mistake).

    `parts` gives other replacements in the equations of a model, `function` what replaces a Gaussian random function.
    """

    what: str
    change: Callable[[RandomMatrix], Any] = lambda matrix: matrix
    function: Callable[[Landscape], Landscape] = lambda landscape: landscape
    parts: Callable[[Any], dict[Any, Any]] = lambda model: {}


def mistaken_declaration(theory: Any, name: str) -> Any:
    """The theory of a declaration with one mistake, to be judged on the right one.

    Raises
    ------
    NotCovered
        The mistake changes nothing in this declaration.
    """
    from quenched.deriving import derive

    mutant = DECLARATION_MUTANTS[name]
    changed = {m: other for m in theory.model.matrices if (other := mutant.change(m)) != m}
    functions = getattr(theory.model, "landscapes", {})
    changed |= {v: other for v in functions if (other := mutant.function(v)) != v}
    changed |= mutant.parts(theory.model)
    if not changed:
        raise NotCovered(f"the mutant {name!r} changes nothing in {theory.model.name or 'this declaration'}")
    chosen = {**changed, **_rows(theory.model)}
    wrong = theory.model.rewritten(chosen)
    if mutant.parts(theory.model):  # of the equations; what is observed stays as it is
        wrong.observables = dict(theory.model.observables)
    return derive(wrong).mistaken(f"{name}: {mutant.what}", theory)


def _rows(model: Any) -> dict[Any, Any]:
    """Rows of matrices as they are: states start from patterns, and are compared with them, that are no mistake."""
    from quenched.theory.couplings import Row
    from quenched.theory.substitute import walk

    parts = (*model.priors, model.energy, *model.weights) if hasattr(model, "rows") else getattr(model, "nodes", ())
    nodes = (*parts, *model.observables.values())
    return {part: part for node in nodes for part in walk(node) if type(part) is Row}


def _wider(matrix: RandomMatrix) -> Any:
    """Var × 1.1, the mean as it is where the law has one of its own."""
    from sympy import Rational, sqrt

    tenth = Rational(11, 10)
    if isinstance(matrix, Circulant):  # not random
        return matrix
    if not isinstance(matrix, Gaussian):
        return sqrt(tenth) * matrix
    return _gaussian(matrix, variance=matrix.variance * tenth)


def _rougher(landscape: Landscape) -> Landscape:
    """Covariance × 1.1."""
    from sympy import Rational

    return Landscape(landscape.name, landscape.f * Rational(11, 10))


def _later(model: Any) -> dict[Any, Any]:
    """Fields at earlier times, 10 % earlier in a flow and a step earlier in a map."""
    from sympy import Rational, S

    from quenched.theory.delays import delay_of
    from quenched.theory.fields import At
    from quenched.theory.spaces import t
    from quenched.theory.substitute import walk

    if not hasattr(model, "eqs"):
        return {}
    step = S.One if model.dt is None else model.dt
    found = {part for rhs in model.eqs.values() for part in walk(rhs) if isinstance(part, At)}
    late = {a: delay_of(a) * Rational(11, 10) if model.clock == "flow" else delay_of(a) + step for a in found}
    return {a: At(a.field, t - delay) for a, delay in late.items()}


def _gaussian(matrix: RandomMatrix, **change: Any) -> Any:
    """A Gaussian matrix with other cumulants; other laws as they are."""
    if not isinstance(matrix, Gaussian):
        return matrix
    kept = {"variance": matrix.variance, "mean": matrix.mean, "symmetry": matrix.symmetry, "redraw": matrix.redraw}
    kept |= {"diagonal": matrix.diagonal, "over": (matrix.rows, matrix.cols), "correlation": dict(matrix.correlation)}
    return Gaussian(matrix.name, **{k: v for k, v in {**kept, **change}.items() if v is not None})


DECLARATION_MUTANTS: dict[str, DeclarationMutant] = {
    "variance-tenth": DeclarationMutant(
        "the variance of all random matrices and functions 10 % too large", _wider, _rougher
    ),
    "symmetry-dropped": DeclarationMutant("no correlation of J_ij and J_ji", lambda m: _gaussian(m, symmetry=0)),
    "delay-tenth": DeclarationMutant("delays 10 % (in a map: one step) too long", parts=_later),
    "mean-dropped": DeclarationMutant("no mean of random matrices", lambda m: _gaussian(m, mean=0)),
}


# --- mistakes in the problem ---------------------------------------------------------------------------------------


def _gains(change: Callable[[Expr], Expr]) -> ProblemChange:
    """Change the coefficient of every source, leaving its filters."""
    from quenched.theory.problem import DS, DT

    def one(gain: Expr) -> Expr:
        coefficient, filters = gain.as_independent(DT, DS, as_Add=False)
        result: Expr = change(coefficient) * filters
        return result

    def apply(p: StationaryGaussian) -> StationaryGaussian:
        return replace(p, gain=tuple(tuple(one(g.factor()) if g != 0 else g for g in row) for row in p.gain))

    return apply


def _noise(factor: float) -> ProblemChange:
    from sympy import nsimplify

    exact = nsimplify(factor)
    return lambda p: replace(p, noise=tuple(n * exact for n in p.noise))


# --- mistakes in the solution --------------------------------------------------------------------------------------


def _static_branch(context: Context, raw: RawSolution) -> RawSolution:
    """Take the static state for the one that the dynamics reaches."""
    static = [k for k, b in enumerate(raw.branches) if b.kind == "static"]
    if not static:
        raise NotCovered("this mutant needs a static branch, and there is none at these parameters")
    return replace(raw, main=static[0])


def _growth(rate: Callable[[Context, Branch], float]) -> SolutionChange:
    """Another growth rate of the main branch."""

    def apply(context: Context, raw: RawSolution) -> RawSolution:
        main = raw.branches[raw.main]
        wrong = replace(main, growth=main.growth._replace(value=rate(context, main)))
        return replace(raw, branches=tuple(wrong if b is main else b for b in raw.branches))

    return apply


def _particle(context: Context) -> PotentialProblem:
    if context.potential is None:
        raise NotCovered("this mutant needs a theory with a potential, and this one has none")
    return context.potential


def _rate_of(context: Context, energy: float) -> float:
    """The λ at which the two-copy operator has this ground-state energy: stiffness(λ) = stiffness(0) − E."""
    from sympy import N as evaluate
    from sympy import Poly

    from quenched.theory.problem import LAMBDA

    stiffness = _particle(context).growth_stiffness.xreplace(dict(context.values))
    target = Poly((stiffness - stiffness.subs(LAMBDA, 0)).expand() + energy, LAMBDA)
    return max(float(evaluate(r)) for r in target.nroots() if abs(complex(r).imag) < 1e-9)


def _well(context: Context, branch: Branch, order: int, at: Any) -> Any:
    """Σ_k w_k ⟨f_k^(order) g_k^(order)⟩ on the orbit."""
    import numpy as np

    from quenched import numerics

    particle, total = _particle(context), np.zeros(np.shape(at))
    m, v = branch.mean[0], branch.variance[0]
    for weight, s in zip(particle.weights, particle.sources, strict=True):
        average, _ = numerics.average2(s.f.diff(order), s.g.diff(order), m, m, v, v, at, dict(context.values))
        total = total + float(weight.xreplace(dict(context.values))) * average
    return total


def _bottom_of_the_well(context: Context, branch: Branch) -> float:
    """Local instability taken for chaos: the ground state lies at the bottom of the well."""
    from quenched.theory.problem import LAMBDA

    rest = _particle(context).growth_stiffness.subs(LAMBDA, 0).xreplace(dict(context.values))
    return _rate_of(context, float(rest) - float(_well(context, branch, 1, branch.variance[0])))


def _undifferentiated(context: Context, branch: Branch) -> float:
    """φ for φ′ in the two-copy operator."""
    import numpy as np
    from scipy.linalg import eigh_tridiagonal

    from quenched.theory.problem import LAMBDA

    particle = _particle(context)
    inertia = float(particle.inertia.xreplace(dict(context.values)))
    rest = float(particle.growth_stiffness.subs(LAMBDA, 0).xreplace(dict(context.values)))
    count = 2000
    grid = np.linspace(0, branch.tau[-1], count)
    step = grid[1]
    well = rest - np.interp(grid, branch.tau, _well(context, branch, 0, np.asarray(branch.covariance[0, 0])))
    off = np.full(count - 1, -inertia / step**2)
    off[0] *= np.sqrt(2)  # even states
    diagonal = 2 * inertia / step**2 + well
    return _rate_of(context, float(eigh_tridiagonal(diagonal, off, select="i", select_range=(0, 0))[0][0]))


def _one_copy_shifted(context: Context, branch: Branch) -> float:
    """1 + λ for (1 + λ)²: only one of the two copies grows."""
    return float(branch.growth.value) * (2 + float(branch.growth.value))


MUTANTS: dict[str, Mutant] = {
    "gain-root": Mutant("g for g² (the scale of the couplings for their variance)", _gains(lambda c: c**0.5)),
    "gain-tenth": Mutant("the variance of the couplings 10 % too large", _gains(lambda c: c * 11 / 10)),
    "noise-dropped": Mutant("no noise term", _noise(0)),
    "noise-half": Mutant("D for 2D in the strength of the noise", _noise(0.5)),
    "noise-double": Mutant("4D for 2D in the strength of the noise", _noise(2)),
    "wrong-branch": Mutant("the static state Δ0 = g²⟨φ²⟩ for the fluctuating one", solution=_static_branch),
    "local-instability": Mutant("local instability for chaos, λ from g²⟨φ′²⟩", solution=_growth(_bottom_of_the_well)),
    "phi-for-derivative": Mutant("φ for φ′ in the two-copy operator", solution=_growth(_undifferentiated)),
    "one-copy-grows": Mutant("1 + λ for (1 + λ)² in the two-copy operator", solution=_growth(_one_copy_shifted)),
    "squared-distance": Mutant(
        "the growth rate of the squared distance, 2λ for λ", solution=_growth(lambda _, b: 2 * float(b.growth.value))
    ),
}
