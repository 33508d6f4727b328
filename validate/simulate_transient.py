"""Simulation of the way from the declared start: courses of averages over units, read at given times and at peaks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from sympy import Expr

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.model import Model
from quenched.theory.spaces import t
from quenched.theory.transient import Transients, is_transient, transients_of
from quenched.validate.emit import array_code
from quenched.validate.estimators import Estimator
from quenched.validate.experiment import Arrays, OfTask, Prepared
from quenched.validate.generate import Tables, recorded
from quenched.validate.integrators import SCHEMES, Scratch
from quenched.validate.program import load
from quenched.validate.quantities import Numbers
from quenched.validate.realise import Network, Noise, Task, check_finite, initial_state

Array = NDArray[Any]


@dataclass(frozen=True)
class TransientExperiment(OfTask):
    """One way from the start.

    Attributes
    ----------
    task : the network and its time step
    source : functions ``courses``, ``curves`` and ``numbers`` of the observables
    slots : (kind, time) of what is read off the curves
    steps : number of time steps
    """

    source: str
    slots: tuple[tuple[str, float], ...]
    steps: int

    def realise(self) -> Arrays:
        began = time.perf_counter()
        with np.errstate(all="ignore"):
            net = Network(self.task)
            functions = load(self.task.program.source + "\n\n\n" + self.source)
            times, courses = self._follow(net, functions)
            curves = functions["curves"](net, courses, times)
            found = [_read(kind, times, c, end) for (kind, end), c in zip(self.slots, curves, strict=True)]
            out = {name: np.array([float(v)]) for name, v in functions["numbers"](net, found).items()}
        out["elapsed"] = np.array([time.perf_counter() - began])
        return out

    def _follow(self, net: Network, functions: dict[str, Any]) -> tuple[Array, list[Array]]:
        """Averages over units (and trajectories) at every step."""
        task = self.task
        step, scratch, noise = SCHEMES[task.scheme].step, Scratch(net.shape), Noise(net)

        def rhs(now: float, y: Array, xi: list[Array], stage: int, out: Array) -> None:
            functions["rhs"](net, now, y, xi, stage, out)

        y, rows = initial_state(net, functions), []
        fresh = any(m.fresh for m in task.matrices) or any(v.fresh for v in task.vectors)
        for n in range(self.steps + 1):
            if fresh and n:
                net.refresh()
            check_finite(y, n * task.advance, task)
            net.remember(n, y)
            rows.append([float(np.mean(c)) for c in functions["courses"](net, n * task.advance, y)])
            y = step(rhs, n * task.advance, task.dt, y, noise.draw(), scratch)
            net.move_bonds()
        return np.arange(self.steps + 1) * task.advance, list(np.array(rows).T)


def _read(kind: str, times: Array, curve: Array, end: float) -> float:
    """A value at a time, the largest value up to it, or when that is reached, by a cubic spline."""
    curve = np.broadcast_to(curve, times.shape)
    spline = CubicSpline(times, curve)
    if kind == "at":
        return float(spline(end))
    places = np.append(spline.derivative().roots(extrapolate=False), [0.0, end])
    places = places[(places >= 0) & (places <= end)]
    best = places[int(np.argmax(spline(places)))]
    return float(spline(best) if kind == "peak" else best)


def prepare_transient(
    model: Model, N: int, seed: int, params: Mapping[Any, Any] | None = None, **settings: Any
) -> Prepared:
    """A simulation of the way from the start.

    Raises
    ------
    QuenchedError
        Observables of both kinds in one model, or bad settings.
    """
    from quenched.validate.simulate_dynamics import prepare

    others = [name for name, expr in model.observables.items() if not is_transient(expr)]
    if others:
        raise NotCovered(f"{others[0]} is an average over time, beside observables at given times: declare it apart")
    bare = model.unobserved()
    values = {s: v for s, v in model.values(params).items() if s in bare.parameters}
    parts = transients_of(model.observables)
    numbers = Numbers(model.values(params), N)
    end = max(numbers(s.time) for s in parts.slots)
    ready = prepare(bare, N, seed, values, lyapunov=False, burn=0, duration=end, lags=[0.0], **settings)
    assert isinstance(ready.task, Task)
    task = _with_parameters(ready.task, model, numbers)
    steps = int(np.ceil(end / task.advance - 1e-9))
    slots = tuple((s.kind, numbers(s.time)) for s in parts.slots)
    experiment = TransientExperiment(task, _source(model, bare, parts), slots, steps)
    order = SCHEMES[task.scheme].order
    observables = {name: (_estimator(name, expr, order), None) for name, expr in model.observables.items()}
    identity = {"model": model.key(), "version": ready.identity["version"], "task": repr(experiment)}
    how = {"scheme": task.scheme, "time step": task.dt, "until": end}
    shown = {p.name: float(v) for p, v in model.values(params).items()}
    return Prepared(experiment, identity, observables, shown, ready.sizes, how)


def _with_parameters(task: Task, model: Model, numbers: Numbers) -> Task:
    """The task with parameters that only observables have."""
    missing = [p for p in model.parameters if p.name not in task.program.parameters]
    program = replace(task.program, parameters=(*task.program.parameters, *(p.name for p in missing)))
    return replace(task, program=program, parameters=(*task.parameters, *(numbers(p) for p in missing)))


def _source(model: Model, bare: Model, parts: Transients) -> str:
    tables = Tables.of(bare)
    tables.parameters += [p for p in model.parameters if p not in tables.parameters]
    courses = recorded({c.body: c.population for c in parts.courses}, tables).replace("def channels(", "def courses(")
    if len({(c.body, c.population) for c in parts.courses}) != len({c.body for c in parts.courses}):
        raise QuenchedError("the same expression averaged over two populations: name one of them as a field")
    curves = [f"course_{k}" for k in range(len(parts.courses))]
    lines = ["def curves(env, courses, t):", f"    {', '.join(curves)}, = courses"]
    lines += _parameters(s.formula for s in parts.slots)
    lines.append(f"    return [{', '.join(array_code(s.formula) for s in parts.slots)}]")
    slots = [f"slot_{k}" for k in range(len(parts.slots))]
    lines += ["", "", "def numbers(env, slots):", f"    {', '.join(slots)}, = slots"]
    lines += _parameters(parts.formulas.values())
    rows = [f"{name!r}: {array_code(formula)}" for name, formula in parts.formulas.items()]
    lines.append("    return {" + ", ".join(rows) + "}")
    return courses + "\n\n\n" + "\n".join(lines) + "\n"


def _parameters(exprs: Any) -> list[str]:
    symbols = {s for e in exprs for s in e.free_symbols if not s.name.startswith(("course_", "slot_")) and s != t}
    return [f"    {s.name} = env.parameter({s.name!r})" for s in sorted(symbols, key=str)]


def _estimator(name: str, expr: Expr, order: int | None) -> Estimator:
    bias = "none" if order is None else f"time step O(dt^{order})"
    return Estimator(name, str(expr), bias=bias, reason="fluctuations of averages over units: order 1/N")
