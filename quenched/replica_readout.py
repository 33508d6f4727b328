"""Observables of one saddle of a measure, also those that no site average gives.

A mean of one copy is the slope of the free entropy in its source; where a condition is met, and where the volume of
solutions shrinks to a point, is searched from the present value of the parameter outwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sympy import Add, Expr, Mul, S, Symbol, log

from quenched.readout import Quantity
from quenched.theory.couplings import Row
from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError
from quenched.theory.fields import Field, Quenched, unbind
from quenched.theory.landscape import Height
from quenched.theory.observables import Critical, Functional, Mean
from quenched.theory.priors import on_sphere
from quenched.theory.problem_replicas import ReplicaProblem
from quenched.theory.replica_condense import apart
from quenched.theory.replica_observe import AT_THE_SADDLE, SOURCE, declared_name, part_name, with_source
from quenched.theory.spaces import N

if TYPE_CHECKING:
    from quenched.numerics.replica import ReplicaBranch
    from quenched.numerics.types import Number
    from quenched.replica_theory import ReplicaTheory
    from quenched.theory.gibbs import Gibbs

#: Step of the sources.
STEP = 1e-3
#: How far a parameter is followed from its present value, as a factor and in steps.
REACH, FACTOR = 40, 1.12


class Readout:
    """Values of the declared observables at one saddle."""

    def __init__(self, theory: ReplicaTheory, values: dict[Symbol, float], branch: ReplicaBranch) -> None:
        self.theory, self.values, self.branch = theory, values, branch
        self.model: Gibbs = theory.model  # type: ignore[assignment]

    def __call__(self, name: str) -> Quantity:
        """An observable with its error."""
        declared = self.model.observables
        given = declared_name(name) if name in declared else name
        if given in self.branch.values:
            return self._number(self.branch.values[given])
        return self.value(declared[name])

    def rms(self, name: str) -> tuple[float, str] | None:
        """√⟨f²⟩ for an overlap ⟨f⟩ of a state with labels that (nearly) vanishes: what its errors are relative to."""
        standard = self._standard() if not self.model.observables else {}
        expr = self.model.observables.get(name, standard.get(name, (None, ""))[0])
        nodes = list(expr.atoms(Mean)) if isinstance(expr, Expr) else []
        if len(nodes) != 1 or (expr / nodes[0]).atoms(Mean):
            return None
        body = (unbind(nodes[0].body) * expr / nodes[0]).expand()
        squares = [self._square(term) for term in Add.make_args(body)]
        if any(q is None for q in squares):
            return None
        size = float(Add(*(q for q in squares if q is not None)).subs(self.values)) ** 0.5
        if abs(self(standard[name][1] if name in standard else name).value) >= size / 10:
            return None
        return size, f"root mean square of {body}"

    def _standard(self) -> dict[str, tuple[Expr, str]]:
        """Mean and overlap of the only field of a measure without observables, and what the saddle calls them."""
        if len(self.model.fields) != 1:
            return {}
        (f,) = self.model.fields
        found = {"m": Mean(f, f.population), "q": Mean(f[1] * f[2], f.population)}
        full = {name: f"{name}_{f.name}" for name in found}
        return {n: (e, full[n] if full[n] in self.branch.values else n) for n, e in found.items()}

    def _square(self, term: Expr) -> Expr | None:
        """⟨term²⟩ of a product of a state, or of copies of it that are far apart, and independent labels."""
        square: Expr = S.One
        for factor in Mul.make_args(term):
            if isinstance(factor, Field):
                square *= self.branch.values["Q"].value if "Q" in self.branch.values else S.One
            elif isinstance(factor, (Quenched, Row)):
                square *= factor.law.variance_() + factor.law.mean_() ** 2
            elif factor.has(Field, Quenched, Row):
                return None
            else:
                square *= factor**2
        return square

    def value(self, expr: Expr) -> Quantity:
        """An expression in means and functionals, errors propagated."""
        leaves = [*sorted(expr.atoms(Mean, Height), key=str), *sorted(_outermost(expr), key=str)]
        known = [self._leaf(leaf) for leaf in leaves]
        slots = [Symbol(f"v{k}", real=True) for k in range(len(leaves))]
        sizes = [N if isinstance(leaf, Height) else S.One for leaf in leaves]  # random functions are extensive
        formula = expr.xreplace({leaf: c * s for leaf, c, s in zip(leaves, sizes, slots, strict=True)})
        formula = formula.expand() if formula.has(N) else formula
        if formula.has(N):
            raise NotCovered(f"{expr} grows with N: divide by N what is extensive")
        at = {**self.values, **{s: q.value for s, q in zip(slots, known, strict=True)}}
        slopes = [abs(float(formula.diff(s).subs(at))) for s in slots]
        error = sum(k * float(q.error) for k, q in zip(slopes, known, strict=True))
        return Quantity(float(formula.subs(at)), error)

    def _leaf(self, leaf: Any) -> Quantity:
        if isinstance(leaf, Mean) and apart(self.model, leaf):
            return self.between_states(leaf)
        if isinstance(leaf, Mean):
            part = self.branch.values.get(part_name(leaf))
            return self._number(part) if part else self.by_source(leaf)
        if isinstance(leaf, Height):
            return self.by_source(leaf)
        name = type(leaf).__name__
        if name in AT_THE_SADDLE and AT_THE_SADDLE[name] in self.branch.values:
            return self._number(self.branch.values[AT_THE_SADDLE[name]])
        if name == "Growth":
            return self.growth()
        if name == "Entropy":
            return self.entropy()
        if isinstance(leaf, Critical):
            return self._number(self.critical(leaf.parameter, leaf.condition))
        if name in ("Capacity", "Margin"):
            return self._number(self.capacity(leaf))
        raise NotCovered(f"{leaf} is not given by the saddle of this measure")

    @staticmethod
    def _number(found: Number) -> Quantity:
        return Quantity(found.value, found.error)

    # -- two states --------------------------------------------------------------------------------------------------
    def between_states(self, leaf: Mean) -> Quantity:
        """Overlap of two copies that start from different rows of a matrix: the same saddle, its labels exchanged."""
        import numpy as np

        states = [f for f in unbind(leaf.body).atoms(Field) if f.copy is not None]
        if len(states) != 2 or unbind(leaf.body) != Mul(*states):
            raise NotCovered(f"{leaf}: of copies that start from different states, products of two states are covered")
        rows = [self.model.starts[f.copy - 1] for f in states]
        if any(type(row) is not Row or row.matrix != rows[0].matrix for row in rows):
            raise NotCovered(f"{leaf}: copies that start from rows of one matrix are covered")
        x = np.array([self.branch.values[s.name].value for s, _ in self.theory.problem.equations])
        distance = rows[1].index - rows[0].index
        return Quantity(overlap_of_states(self.theory, distance, self.values, x), 1e-9)

    # -- messages ----------------------------------------------------------------------------------------------------
    def growth(self) -> Quantity:
        """Growth of perturbed messages a sweep: the expression of the instance reading, at this saddle."""
        import numpy as np

        from quenched.numerics.replica_evaluator import Evaluator

        expr = self.theory.growth_expression()
        numbers = []
        for fine in (self.branch.fine, 0.7 * self.branch.fine):
            ev = Evaluator(self.theory.problem, self.values, fine)
            at = ev.point(np.array([self.branch.values[s.name].value for s in ev.unknowns]))
            numbers.append(ev.number(expr, at))
        return Quantity(numbers[0], abs(numbers[0] - numbers[1]) + 1e-10)

    # -- sources -----------------------------------------------------------------------------------------------------
    def entropy(self) -> Quantity:
        """−⟨ln P⟩/N of states, relative to the volume of a sphere: ln Z and their number, less the mean exponent."""
        if self.model.cold:
            raise NotCovered("Entropy() of a measure at zero temperature: declare it at a finite one")
        counts = 0.0
        for f, law in self.model.priors.items():
            chances = {p for _, p in law.weights()}
            if not on_sphere(law) and len(chances) != 1:
                raise NotCovered(
                    f"Entropy() counts states: it is given for spheres and for finitely many values of equal weight "
                    f"a priori, not for {f.name} ~ {law}; FreeEntropy() is given for all"
                )
            counts += float((f.population.count / N * log(len(law.weights()) or 1)).subs(self.values))
        exponent, free = self.by_source(None), self._number(self.branch.values["free_entropy"])
        return Quantity(free.value + counts - exponent.value, free.error + exponent.error)

    def by_source(self, node: Mean | Height | None) -> Quantity:
        """⟨body⟩ (None: of the exponent over N) as the slope of the free entropy in its source, at the saddle."""
        problem = sourced_problem(self.model, node)
        fraction = float((node.population.count / N).subs(self.values)) if isinstance(node, Mean) else 1.0

        def slope(step: float) -> float:
            return (self._tilted(problem, step) - self._tilted(problem, -step)) / (2 * step * fraction)

        coarse, fine = slope(2 * STEP), slope(STEP)
        value = (4 * fine - coarse) / 3
        return Quantity(value, abs(value - fine) / 10 + 1e-10 * (1 + abs(value)))

    def _tilted(self, problem: ReplicaProblem, step: float) -> float:
        import numpy as np

        from quenched.numerics.replica_evaluator import Evaluator

        ev = Evaluator(problem, self.values | {SOURCE: step}, self.branch.fine)
        here = {name: q.value for name, q in self.branch.values.items()}
        unknown = [s.name for s in ev.unknowns if s.name not in here]
        if unknown and f"{unknown[0]}_0" in here:
            raise NotCovered(
                "in blocks of replicas the free entropy and the order parameters are given, and no other mean"
            )
        if unknown:
            raise NotCovered(f"a source of this observable brings the order parameter {unknown[0]} along")
        at = ev.point(np.array([here[s.name] for s in ev.unknowns]))
        return ev.number(problem.free_entropy, at)

    # -- where a condition is met ------------------------------------------------------------------------------------
    def critical(self, parameter: Symbol, condition: Expr) -> Number:
        """The value of a parameter, nearest to the present one, at which a condition of the main branch vanishes."""
        from scipy.optimize import brentq

        from quenched.numerics.types import Number

        def gap(p: float) -> float:
            return float(self._at(parameter, p).value(condition).value)

        lo, hi = self._bracket(parameter, gap, str(condition))
        root = float(brentq(gap, lo, hi, xtol=1e-10, rtol=1e-12))
        return Number(root, 1e-9 * (1 + abs(root)))

    def capacity(self, leaf: Functional) -> Number:
        """Where a state with a declared start is lost, the solutions of all constraints shrink to a point, or run out.

        The first of measures with an initial state, the last of constraints on units with finitely many values.
        """
        from quenched.numerics.replica_curves import shrinking

        parameter = leaf.args[0]
        if not isinstance(parameter, Symbol) or parameter not in self.model.parameters:
            raise QuenchedError(f"{leaf}: expected a parameter of the measure")
        if self.theory.problem.start:
            return self._lost(parameter)
        if "entropy" in self.branch.values and all(law.weights() for law in self.model.priors.values()):
            from quenched.theory.observables import functional

            return self.critical(parameter, functional("Entropy")())
        problem = self.theory.problem
        if "norm" in problem.kinds:  # solutions coincide where the overlap reaches a norm that is itself unknown
            problem = cold_problem(self.model)
        kinds = ("susceptibility",) if problem.cold else ("overlap",)
        overlaps = [s for (s, _), kind in zip(problem.equations, problem.kinds, strict=True) if kind in kinds]
        states = [s for s in overlaps if s.name[0] == "q" or problem.cold]
        if len(states) != 1:
            raise NotCovered(f"{leaf}: the capacity of a measure with one overlap is covered")
        here = self.values[parameter]
        for lo, hi in _outwards(here):
            try:
                return shrinking(problem, parameter, states[0], self.values, (lo, hi))
            except (QuenchedError, ConvergenceError, ValueError):
                continue
        raise QuenchedError(f"{leaf}: the overlap of solutions does not reach 1 for {parameter} around {here:g}")

    def _lost(self, parameter: Symbol) -> Number:
        """Where this branch turns back as a parameter grows."""
        import numpy as np

        from quenched.numerics.replica_curves import fold

        here, x = self.values[parameter], np.array(self.branch.x)
        for far in (3.0, 30.0):
            try:
                return fold(self.theory.problem, parameter, self.values, x, (here, here + far * abs(here)))[0]
            except QuenchedError as stop:
                failure = stop
        raise failure

    def _at(self, parameter: Symbol, value: float) -> Readout:
        from quenched.numerics.replica import solve_replica

        values = self.values | {parameter: value}
        return Readout(self.theory, values, solve_replica(self.theory.problem, values).state)

    def _bracket(self, parameter: Symbol, gap: Callable[[float], float], what: str) -> tuple[float, float]:
        here = self.values[parameter]
        start = gap(here)
        for direction in (1, -1):
            steps = [here, *(p for p in _steps(here, direction) if _allowed(parameter, p))]
            previous = start
            for lo, hi in pairwise(steps):
                try:
                    value = gap(hi)
                except ConvergenceError:
                    break
                if value * previous <= 0:
                    return min(lo, hi), max(lo, hi)
                previous = value
        raise NotCovered(f"{what} does not vanish for {parameter} around {here:g}")


def overlap_of_states(theory: ReplicaTheory, distance: int, values: dict[Symbol, float], x: Any) -> float:
    """Overlap of two states at a distance, from the derived fields of both, at a saddle of one."""
    from quenched.numerics.replica_between import overlaps_between
    from quenched.theory.replica_pair import TwoStatesForm

    form = theory.derivation.two_states(distance).find(TwoStatesForm)
    assert form is not None
    found = overlaps_between(theory.problem, form.problem, values, x)
    states = {s.variable.population for s in form.action.sites if s.variable.kind == "state"}
    overlaps = [found[e.unknown] for e in form.problem.equations if e.site in states]
    if len(overlaps) != 1:
        raise NotCovered("the overlap of two states: measures of one field are covered")
    return overlaps[0]


def _outermost(expr: Expr) -> list[Functional]:
    """Functionals that are not inside another one."""
    if isinstance(expr, Functional):
        return [expr]
    return list(dict.fromkeys(f for arg in expr.args if isinstance(arg, Expr) for f in _outermost(arg)))


def _steps(here: float, direction: int) -> Iterator[float]:
    for k in range(1, REACH):
        yield here * FACTOR ** (direction * k) if here > 0 else here + direction * 0.1 * k


def _outwards(here: float) -> Iterator[tuple[float, float]]:
    """Growing brackets around a value."""
    for k in range(1, 12):
        yield (here / (1 + 0.5 * k), here * (1 + 0.5 * k)) if here > 0 else (here - 0.5 * k, here + 0.5 * k)


def _allowed(parameter: Symbol, value: float) -> bool:
    return not ((parameter.is_positive and value <= 0) or (parameter.is_nonnegative and value < 0))


@lru_cache(maxsize=16)
def cold_problem(model: Gibbs) -> ReplicaProblem:
    """The problem of the measure at zero temperature.

    Raises
    ------
    NotCovered
        It has no derivation.
    """
    from quenched.theory.replicas import derive
    from quenched.theory.transforms import zero_temperature

    derivation = derive(zero_temperature(model))
    if derivation.replica_problem is None:
        raise NotCovered(str(derivation.refusal))
    return derivation.replica_problem


@lru_cache(maxsize=128)
def sourced_problem(model: Gibbs, node: Mean | Height | None) -> ReplicaProblem:
    """The problem of the measure with a source for one mean; at finite temperature its free entropy alone."""
    from quenched.theory.replica_forms import replica_site
    from quenched.theory.replica_limit import FreeEntropyForm
    from quenched.theory.replicas import derive, start

    tilted = with_source(model, node)
    if not model.cold:
        steps = start(tilted).average().order_parameters().saddle().ansatz().few_replicas()
        free = steps.find(FreeEntropyForm)
        if free is not None and not free.action.multipliers:
            parameters = free.action.problem.action.parameters
            sites = tuple(replica_site(s.variable) for s in free.action.sites)
            return ReplicaProblem(parameters, sites, tuple((u, u) for u in free.unknowns), (), free.value, ())
    found = derive(tilted).replica_problem
    if found is None:
        raise NotCovered(f"a measure with a source for {node} has no solvable theory")
    return found


def growth_at_saddle(theory: ReplicaTheory) -> Expr:
    """Growth of perturbed messages, as derived for instances, in the order parameters of replicas."""
    from quenched.theory.instance import derive
    from quenched.theory.instance_evolution import GrowthForm
    from quenched.theory.instance_identities import common_symbols
    from quenched.theory.replica_forms import RSAction

    growth, action = derive(theory.model).find(GrowthForm), theory.derivation.find(RSAction)  # type: ignore[arg-type]
    if growth is None or action is None:
        raise NotCovered("Growth() is of messages on an instance, and this measure has none")
    return growth.eigenvalue.xreplace(common_symbols(action, growth.evolution))
