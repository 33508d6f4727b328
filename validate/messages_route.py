"""The route *messages* of a measure's simulation: declared observables from message passing on sampled instances.

The iteration is derived from the declaration, so its estimators are of the class that uses the theory: they test the
law of the fields, the free entropy and the stability, not the form of the messages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sympy import Add, Expr, Mul, Poly, Symbol

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import Field, unbind
from quenched.theory.observables import Functional, Mean
from quenched.validate.emit import array_code
from quenched.validate.estimators import Estimator
from quenched.validate.experiment import Prepared
from quenched.validate.message_passing import WARM_UP, MessageExperiment, experiment
from quenched.validate.message_threshold import estimator as threshold_estimator
from quenched.validate.message_threshold import is_threshold, threshold_experiment, thresholds
from quenched.validate.program import load
from quenched.validate.quantities import Numbers

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs
    from quenched.theory.problem_messages import MessageProblem

Arrays = dict[str, NDArray[np.float64]]

#: Functionals that a fixed point of the messages gives.
GIVES = frozenset({"Entropy", "FreeEntropy", "Growth"})
#: Name under which a run reports instances whose messages did not converge.
UNSETTLED = "unsettled"


@dataclass(frozen=True)
class MeasuredMessages:
    """One instance, and what is read off its fixed point.

    Attributes
    ----------
    messages : the instance
    source : functions ``o_k(env)`` of the observables
    formulas : (observable, name of its function)
    """

    messages: MessageExperiment
    source: str
    formulas: tuple[tuple[str, str], ...]

    @property
    def seed(self) -> int:
        """Of the disorder and of the starts."""
        return self.messages.seed

    @property
    def N(self) -> int:
        """Reference size."""
        return self.messages.N

    def number(self, realisation: int) -> MeasuredMessages:
        """The same for another realisation."""
        return replace(self, messages=self.messages.number(realisation))

    def realise(self) -> Arrays:
        """Observables at the fixed point, or where the messages are after the last sweep, which is reported."""
        begin = time.perf_counter()
        instance = self.messages.instance()
        run = self.messages.run(instance)
        if run.behaviour == "diverged":
            raise QuenchedError(
                f"messages diverge at N = {self.N}, realisation {self.messages.realisation}: expected a measure of "
                "finite fields, such as fewer constraints"
            )
        env = _Reading(self.messages, instance, run)
        functions = load(self.source)
        out = {name: np.atleast_1d(np.asarray(functions[f](env), float)) for name, f in self.formulas}
        out[UNSETTLED] = np.array([float(not run.converged)])
        out["elapsed"] = np.array([time.perf_counter() - begin])
        return out

    def memory(self) -> float:
        """Bytes of the couplings."""
        return self.messages.memory()

    def work(self) -> float:
        """Multiplications, with the sweeps of the warm-up and of two copies."""
        return self.messages.work() / self.messages.sweeps * (WARM_UP + 40)


class _Reading:
    """What the functions of observables see as ``env``."""

    def __init__(self, task: MessageExperiment, instance: Any, run: Any) -> None:
        self.task, self.instance, self.run = task, instance, run
        self.p = np.array([v for _, v in task.parameters])

    def average(self, name: str, function: Any) -> float:
        """Mean over the units of a population."""
        state = self.run.state
        return float(np.mean(function(state.m[name], state.v[name], self.instance.q[name], self.p)))

    def functional(self, name: str) -> float:
        """A named functional."""
        if name == "Growth":
            return self.task.growth(self.instance, self.run)
        if name == "Entropy":
            return float(self.instance.entropy(self.run.state, self.task.N))
        return float(self.instance.free_entropy(self.run.state, self.task.N))


def prepare_messages(
    model: Gibbs, N: int, seed: int, values: Mapping[Any, Any], settings: Mapping[str, Any]
) -> Prepared:
    """Message passing on instances of a measure.

    Raises
    ------
    NotCovered
        The measure has no message passing, or no declared observable is read off it.
    """
    problem = messages_of(model)
    numbers = Numbers(model.values(values), N)
    only = settings.get("only", ())
    searched = tuple(name for name in thresholds(model) if name in only)
    if searched:
        if set(only) != set(searched):
            raise QuenchedError(f"{searched[0]} is searched for by itself: ask for other observables in another run")
        return _searched(model, problem, N, seed, values, numbers, searched)
    task = experiment(model, problem, N, seed, values)
    source, formulas, missing = _functions(model, problem, only)
    if not formulas:
        raise NotCovered(f"nothing to read off messages: {'; '.join(f'{n}: {r}' for n, r in missing.items())}")
    measured = MeasuredMessages(task, source, tuple(formulas.items()))
    estimators: dict[str, tuple[Estimator, Any]] = {
        name: (_estimator(name, model.observables.get(name, name)), None) for name in formulas
    }
    estimators[UNSETTLED] = (_unsettled(), None)
    return Prepared(
        task=measured,
        identity=_identity(model, measured.number(0)),
        observables=estimators,
        parameters={p.name: numbers(p) for p in model.parameters},
        sizes={p.name: numbers.size(p) for p in model.populations},
        settings={"route": "messages", "sweeps": task.sweeps},
        unmeasured=missing,
    )


def _searched(
    model: Gibbs,
    problem: MessageProblem,
    N: int,
    seed: int,
    values: Mapping[Any, Any],
    numbers: Numbers,
    names: tuple[str, ...],
) -> Prepared:
    """Where messages cease to converge on instances."""
    task = threshold_experiment(model, problem, N, seed, values, names)
    return Prepared(
        task=task,
        identity=_identity(model, task),
        observables={s.name: (threshold_estimator(s.name, s.parameter), None) for s in task.searches},
        parameters={p.name: numbers(p) for p in model.parameters},
        sizes={p.name: numbers.size(p) for p in model.populations},
        settings={"route": "messages", "sweeps": task.searches[0].tasks[0].sweeps},
    )


def _identity(model: Gibbs, task: Any) -> dict[str, Any]:
    return {"model": model.key(), "version": _version(), "route": "messages", "task": task}


@lru_cache(maxsize=64)
def messages_of(model: Gibbs) -> MessageProblem:
    """The iteration of a measure."""
    from quenched.theory.instance import InstanceState, derive

    derivation = derive(model)
    found = derivation.find(InstanceState)
    if found is None:
        raise NotCovered(f"no message passing: {derivation.refusal}")
    return found.messages


# -- observables ---------------------------------------------------------------------------------------------------
def _functions(
    model: Gibbs, problem: MessageProblem, only: tuple[str, ...] = ()
) -> tuple[str, dict[str, str], dict[str, str]]:
    """(source, observable → function, observable → why not)."""
    from quenched.validate.gibbs_observables import standard

    parts = ["import numpy as np\nfrom scipy import special\n"]
    formulas: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, expr in (model.observables or standard(model)).items():
        if only and name not in only:
            continue
        if is_threshold(expr):
            missing[name] = f"it takes a search on every instance: ask for it with only=({name!r},)"
            continue
        try:
            parts += _observable(len(formulas), expr, problem)
        except NotCovered as stop:
            missing[name] = str(stop)
        else:
            formulas[name] = f"o_{len(formulas)}"
    return "\n\n".join(parts) + "\n", formulas, missing


def _observable(k: int, expr: Expr, problem: MessageProblem) -> list[str]:
    leaves = sorted(expr.atoms(Mean) | set(_outer_functionals(expr)), key=str)
    parameters = {s: Symbol(f"env.p[{j}]") for j, s in enumerate(problem.parameters)}
    parts, swap = [], dict(parameters)
    for j, leaf in enumerate(leaves):
        if isinstance(leaf, Functional):
            name = type(leaf).__name__
            counts = all(s.weight is not None for s in problem.sites if s.measure.kind == "state")
            if name not in GIVES or (name == "Entropy" and not counts):
                raise NotCovered(f"{leaf} is not read off messages")
            swap[leaf] = Symbol(f"env.functional({name!r})")
            continue
        site = problem.site(leaf.population.name)
        labels = {q: Symbol(f"q[:, {n}]") for n, (q, _, _) in enumerate(site.measure.labels)}
        inside = moments(unbind(leaf.body), site.symbol).xreplace(
            labels | {s: Symbol(f"p[{n}]") for n, s in enumerate(problem.parameters)}
        )
        parts.append(f"def mean_{k}_{j}(m, v, q, p):\n    return {array_code(inside)}")
        swap[leaf] = Symbol(f"env.average({leaf.population.name!r}, mean_{k}_{j})")
    return [*parts, f"def o_{k}(env):\n    return {array_code(expr.xreplace(swap))}"]


def _outer_functionals(expr: Expr) -> Iterator[Functional]:
    if isinstance(expr, Functional):
        yield expr
        return
    for arg in expr.args:
        if isinstance(arg, Expr):
            yield from _outer_functionals(arg)


def moments(body: Expr, state: str) -> Expr:
    """⟨body⟩ of a unit: every copy of its state, x ↦ m and x² ↦ v + m²; copies are independent on an instance."""
    m, v = Symbol("m", real=True), Symbol("v", real=True)
    total = []
    for term in Add.make_args(body.expand()):
        parts: list[Expr] = []
        for f in sorted(term.atoms(Field), key=lambda f: f.copy or 0):
            if f.name != state or not term.is_polynomial(f) or Poly(term, f).degree() > 2:
                raise NotCovered(f"means of a state and of its square are read off messages, got {body}")
            degree = Poly(term, f).degree()
            term = (term / f**degree).expand()
            parts.append((m, v + m**2)[degree - 1])
        total.append(term * Mul(*parts))
    return Add(*total)


def _estimator(name: str, expression: Any) -> Estimator:
    if isinstance(expression, Functional) and type(expression).__name__ == "Growth":
        return Estimator(
            name,
            "mean growth a sweep of the mean square difference of two copies of the messages",
            bias="two copies over 4 sweeps at the fixed point: sweeps²/N of their growth",
            assumes="declaration",
            min_N=100,
            reason="the early growth of a random difference is corrected at order 1/N",
        )
    return Estimator(
        name,
        str(expression),
        bias="none at a fixed point of the messages",
        assumes="theory",
        min_N=100,
        reason="messages on an instance are its own marginals up to O(1/N)",
    )


def _unsettled() -> Estimator:
    return Estimator(
        UNSETTLED,
        "share of the instances whose messages did not converge",
        bias="none",
        assumes="theory",
        vanishes="messages do not converge on some instances: their numbers are no fixed points",
    )


@lru_cache(maxsize=1)
def _version() -> str:
    """Digest of the code that realisations run."""
    import hashlib
    import inspect

    from quenched.numerics import messages, site_kernels
    from quenched.validate import message_passing, message_threshold, sampling

    code = hashlib.sha256()
    for module in (sampling, message_passing, message_threshold, messages, site_kernels):
        code.update(inspect.getsource(module).encode())
    return code.hexdigest()[:16]
