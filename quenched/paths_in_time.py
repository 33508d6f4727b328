"""Solutions in time of units that are not Gaussian: observables of paths that are marched from the declared start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Dummy, Expr, lambdify, sympify

from quenched.readout import Quantity
from quenched.sampled import Probe, probes_of, terms_of, watched
from quenched.solution import Branch, Solution
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.linear import NeedsTrajectories
from quenched.theory.naming import Output, field_names, standard_names
from quenched.theory.observables import Functional, Mean
from quenched.theory.problem import CORRELATED, SiteProcess
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.sampled import sampled_process
from quenched.theory.spaces import t, tau

if TYPE_CHECKING:
    import xarray as xr

    from quenched.numerics.path_march import Grid, March, Series
    from quenched.numerics.process_state import Sampling
    from quenched.theory.model import Model
    from quenched.theory_object import Theory

Array = Any
#: How far a time may lie from a step of the grid, in steps.
_OFF_GRID = 1e-6


@dataclass(frozen=True)
class Moments:
    """What observables are read at: times t, with the declared offsets and fixed times.

    Attributes
    ----------
    times : array (k,), equally spaced from 0
    window : (start, stop): observables are averages over the times between; None: functions of t
    lags : lags of curves, or None
    """

    times: Array
    window: tuple[float, float] | None = None
    lags: Array | None = None


class PathSolution(Solution):
    """A state that depends on time, of units that are not Gaussian.

    ``sol["q"]`` and other observables are functions of ``t``, or averages over the window that was given. `means` and
    `two_time` give means and covariances of every field and coupling output. Errors come from independent batches.
    """

    paths: PathReader

    @property
    def means(self) -> xr.Dataset:
        """Mean of every field and of every output of a coupling, over ``t``."""
        return self.paths.means()

    def two_time(self, name: str) -> xr.DataArray:
        """Cov(a(t), a(s)) over units for the printed name of a field or coupling output, dimensions ``t`` and ``s``."""
        return self.paths.two_time(name)


def process_in_time(theory: Theory) -> SiteProcess | None:
    """The single-site process whose paths are marched through given times; None where the two-time equations are.

    Populations that a stationary theory eliminates are kept: in time they are units as others are.

    Raises
    ------
    NotCovered
        For a mistaken theory whose mistake is not one of the process; for units that are no process in time.
    """
    d = theory.derivation
    whole = next((s.after for s in d.steps if isinstance(s.after, EffectiveProcess)), None)
    if d.process is not None:
        eliminated = d.process.filters or d.process.operators
        return theory.sampled(sampled_process(whole) if eliminated and whole is not None else d.process)
    if d.march is not None or d.problem is None or whole is None:
        return None
    try:
        d.two_time()
    except NeedsTrajectories as stop:
        if theory.mutant is not None:
            raise NotCovered(f"{stop}: in time it is sampled, and {theory.mutant} is no mistake of that") from stop
        return sampled_process(whole)
    return None


def solve_paths(
    theory: Theory, process: SiteProcess, values: Mapping[Any, float], what: Moments, how: March
) -> PathSolution:
    """March the single-site process of a theory through given times.

    Raises
    ------
    QuenchedError
        Times that are not equally spaced from 0, or offsets between the steps.
    NotCovered
        Starts that are correlated with the couplings.
    ConvergenceError
        Paths diverge.
    """
    probes = probes_of(theory.written)
    reader = PathReader(theory.written, watched(process, probes), dict(values), probes, what, how)
    growth = Quantity(float("nan"), float("inf"))
    branch = Branch("in time", "dynamic", True, growth, reader.names(), reader.quantity)
    provenance = Solution.provenance_of(theory) | {"method": "paths marched in time", "seed": str(how.seed)}
    solution = PathSolution([branch], 0, {str(k): float(v) for k, v in values.items()}, provenance)
    solution.paths = reader
    return solution


class PathReader:
    """Observables of marched paths, by name."""

    def __init__(
        self,
        model: Model,
        process: SiteProcess,
        values: dict[Any, float],
        probes: dict[tuple[Expr, str], Probe],
        what: Moments,
        how: March,
    ) -> None:
        self.model, self.process, self.values, self.probes = model, process, values, probes
        self.what, self.how = what, how
        self.times = _checked(what.times, process.clock)
        self.spacing = float(self.times[1] - self.times[0])
        self.dt = self.spacing if process.clock == "map" else self._step_length()
        self.advance = self._number(process.advance)
        self.base = self._base()
        self.batches = self._march()

    # -- marching ---------------------------------------------------------------------------------------------------
    def _number(self, e: Any) -> float:
        e = sympify(e)
        return float(e.xreplace({s: self.values[s] for s in e.free_symbols if s in self.values}))

    def _step_length(self) -> float:
        """The longest step that divides the spacing of the times and all delays."""
        from quenched.numerics.process_state import dividing_step

        delays = [self._number(d) for u in self.process.units for *_, d in u.earlier]
        return dividing_step(self.how.dt, [self.spacing, *delays])

    def _base(self) -> Array:
        """Steps of the times that observables are read at."""
        if self.what.window is None:
            chosen = self.times
        else:
            low, high = self.what.window
            chosen = self.times[(self.times >= low - 1e-9) & (self.times <= high + 1e-9)]
            if not len(chosen):
                raise QuenchedError(f"no time between {low:g} and {high:g}: times end at {self.times[-1]:g}")
        return np.array([self._step(u) for u in chosen])

    def _step(self, time: float) -> int:
        step = round(time / self.dt)
        if abs(step * self.dt - time) > _OFF_GRID * self.dt * max(1, abs(step)):
            raise QuenchedError(f"the time {time:g} lies between steps of {self.dt:g}: choose times= that reach it")
        return step

    def _march(self) -> list[Series]:
        from quenched.numerics.path_march import Grid, march_paths

        kept = {self._step(float(u)) for u in self.times} | {k for rows in self._rows_needed() for k in rows}
        self.grid: Grid = Grid(self.dt, max(kept), tuple(sorted(k for k in kept if k >= 0)))
        self.place = {k: i for i, k in enumerate(self.grid.kept)}
        return [march_paths(self.process, self.values, self.grid, self.how, b) for b in range(self.how.batches)]

    def _rows_needed(self) -> list[Array]:
        rows = []
        for expr in self.model.observables.values():
            for node in expr.atoms(Mean):
                try:
                    rows += [self._rows(time, node) for _, factors in terms_of(node) for time, _ in factors]
                except NotCovered:
                    continue
        return rows

    def _rows(self, time: Expr, node: Mean, lag: float = 0.0) -> Array:
        """Steps of t + constant, or of a fixed time."""
        value = time.xreplace(self.values).xreplace({tau: lag})
        if time.has(tau) and self.what.window is None:
            raise NotCovered(f"{node}: correlations at a lag in a state that changes; read two_time() instead")
        offset = value - t if time.has(t) else value
        if offset.free_symbols:
            raise NotCovered(f"the times in {node} are t, t ± tau, t + constant and constants, got {time}")
        step = self._step(float(offset) / self.advance)
        return self.base + step if time.has(t) else np.full(len(self.base), step)

    # -- names ------------------------------------------------------------------------------------------------------
    def names(self) -> list[str]:
        standard = [n for n, (kind, _) in standard_names(self.model).items() if kind in ("C0", "C_out0", "mean")]
        return list(dict.fromkeys([*standard, *self.model.observables]))

    def quantity(self, name: str) -> Quantity:
        if name in self.model.observables:
            return self.declared(self.model.observables[name])
        standard = standard_names(self.model)
        if name not in self.names():
            raise QuenchedError(f"no observable {name!r}: {nearest(name, self.names())}")
        kind, what = standard[name]
        label = what.name if isinstance(what, Output) else field_names(self.model)[what]
        power = 1 if kind == "mean" else 2
        return self._quantity(
            [(self._series(b, label)[self._at(self.base)] ** power).mean(axis=1) for b in self.batches]
        )

    def _series(self, batch: Series, name: str) -> Array:
        return batch.values[name]

    def _at(self, steps: Array) -> Array:
        inside = [self.place.get(int(k), -1) for k in steps]
        if min(inside) < 0:
            raise NotCovered("an observable reads times before the start: give window= that begins later")
        return np.array(inside)

    # -- declared expressions ---------------------------------------------------------------------------------------
    def declared(self, expr: Expr) -> Quantity:
        """An expression in means, as a function of t or over the window."""
        means = sorted(expr.atoms(Mean), key=str)
        if not means or expr.atoms(Functional):
            raise NotCovered(f"no theory formula for the observable {expr} from paths in time")
        lagged = any(time.has(tau) for node in means for _, factors in terms_of(node) for time, _ in factors)
        if lagged and self.what.lags is None:
            raise NotCovered(f"{expr} is a curve over lags: give window= and lags=, or read two_time()")
        slots = {node: Dummy() for node in means}
        function = lambdify([*slots.values(), t], expr.xreplace({**slots, **self.values}), "numpy")
        lags = np.asarray(self.what.lags, float) if lagged else np.zeros(1)
        each = [[self._mean(batch, node, lags) for node in means] for batch in self.batches]
        if self.what.window is not None:
            each = [[part.mean(axis=0, keepdims=True) for part in parts] for parts in each]
        clock = (self.base * self.dt * self.advance)[:, None] if self.what.window is None else np.array([[np.nan]])
        whole = function(*(np.mean(parts, axis=0) for parts in zip(*each, strict=True)), clock)
        rows = [np.broadcast_to(function(*parts, clock), np.shape(parts[0])) for parts in each]
        return self._joined(np.broadcast_to(whole, rows[0].shape), np.array(rows), lags if lagged else None)

    def _mean(self, batch: Series, node: Mean, lags: Array) -> Array:
        """⟨body⟩ of one batch at the base times and lags."""
        total = np.zeros((len(self.base), len(lags)))
        for constant, factors in terms_of(node):
            scale = lambdify(t, constant.xreplace(self.values), "numpy")(self.base * self.dt * self.advance)
            for k, lag in enumerate(lags):
                product: Array = 1.0
                for time, body in factors:
                    name = self.probes[body, node.population.name].name
                    product = product * self._series(batch, name)[self._at(self._rows(time, node, float(lag)))]
                total[:, k] += scale * (np.mean(product, axis=1) if factors else 1.0)
        return total

    def _quantity(self, rows: list[Array]) -> Quantity:
        each = np.array(rows)[:, :, None]
        if self.what.window is not None:
            each = each.mean(axis=1, keepdims=True)
        return self._joined(each.mean(axis=0), each, None)

    def _joined(self, value: Array, each: Array, lags: Array | None) -> Quantity:
        """Value with the standard error of the batches."""
        count = len(each)
        error = each.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(value.shape, np.inf)
        if self.what.window is None:
            return Quantity(value[:, 0], error[:, 0], "t", self.base * self.dt * self.advance)
        if lags is not None:
            return Quantity(value[0], error[0], "tau", lags)
        return Quantity(float(value[0, 0]), float(error[0, 0]))

    # -- arrays -----------------------------------------------------------------------------------------------------
    @cached_property
    def every(self) -> Array:
        """Places of the times that were asked for."""
        return self._at(np.array([self._step(float(u)) for u in self.times]))

    def labels(self) -> list[str]:
        """Printed names of fields and coupling outputs."""
        inner = {p.name for p in self.probes.values()}
        return [n for n in self.batches[0].values if n not in inner]

    def means(self) -> xr.Dataset:
        import xarray as xr

        data = {
            n: ("t", np.mean([b.values[n][self.every].mean(axis=1) for b in self.batches], axis=0))
            for n in self.labels()
        }
        return xr.Dataset(data, coords={"t": self.times * self.advance})

    def two_time(self, name: str) -> xr.DataArray:
        import xarray as xr

        if name not in self.labels():
            raise QuenchedError(f"no field {name!r}: {nearest(name, self.labels())}")
        total = np.zeros((len(self.times),) * 2)
        for batch in self.batches:
            rows = batch.values[name][self.every]
            rows = rows - rows.mean(axis=1, keepdims=True)
            total += rows @ rows.T / rows.shape[1] / len(self.batches)
        at = self.times * self.advance
        return xr.DataArray(total, coords={"t": at, "s": at}, dims=("t", "s"), name=f"cov_{name}")


def _checked(times: Any, clock: str) -> Array:
    """Equally spaced times from 0."""
    at = np.asarray(times, dtype=float)
    step = np.diff(at)
    if at.ndim != 1 or len(at) < 2 or at[0] != 0 or not np.allclose(step, step[0], rtol=1e-6) or step[0] <= 0:
        raise QuenchedError("times: expected equally spaced times from 0 on, at least two")
    if clock == "map" and abs(step[0] - round(step[0])) > _OFF_GRID:
        raise QuenchedError(f"times: a map takes whole steps, got a spacing of {step[0]:g}")
    return at


def time_axis(burn: float, duration: float) -> Array:
    """Times from the start to the end of a window, spaced so that both its ends are among them."""
    from fractions import Fraction
    from math import gcd

    parts = [Fraction(float(v)).limit_denominator(1000) for v in (burn, duration, 1)]
    common = parts[0]
    for other in parts[1:]:
        a, b = common, other
        common = Fraction(gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)
    return np.arange(round((burn + duration) / float(common)) + 1) * float(common)


def march_of_tier(quick: bool) -> March:
    """How a verdict marches paths."""
    from quenched.numerics.path_march import March

    return March(dt=0.2, paths=600, batches=12) if quick else March(dt=0.1, paths=1000, batches=16)


#: Correlation times after which paths have settled, and over which they are then averaged.
_SETTLED, _AVERAGED = 7.0, 14.0
#: Batches and longest march that a number of a stationary state is worth.
_BATCHES, _LONGEST = 20, 800


def settled_paths(
    model: Model, process: SiteProcess, values: dict[Any, float], probes: Any, decay: float, sampling: Sampling
) -> PathReader | None:
    """Paths of a stationary state over a window after its transient; None where they would be many steps long."""
    flow = process.clock == "flow"
    dt = sampling.dt if flow else 1.0
    start = float(np.ceil(_SETTLED * max(decay, 2.0)))
    stop = start + float(np.ceil(_AVERAGED * max(decay, 2.0)))
    correlated = any(s == CORRELATED for u in process.units for s in u.starts)
    beyond = process.memory or process.filters or process.operators or any(u.earlier for u in process.units)
    started = any(bond.initial is not None for bond in model.bonds)
    if beyond or correlated or started or stop / dt > _LONGEST:
        return None
    from quenched.numerics.path_march import March

    spacing = dt * max(1, round(0.5 / dt)) if flow else 1.0
    times = np.arange(int(np.ceil(stop / spacing)) + 1) * spacing
    how = March(dt=dt, batches=_BATCHES, seed=sampling.seed)
    return PathReader(model, process, values, probes, Moments(times, (start, float(times[-1]))), how)


def as_march(sampling: Any, dt: float | None, scheme: str, seed: int = 0) -> March:
    """How to march, from what `Theory.solve` was given."""
    from quenched.numerics.path_march import March
    from quenched.numerics.process_state import Sampling

    how = March(seed=seed)
    if isinstance(sampling, Sampling):
        how = replace(how, dt=sampling.dt, paths=sampling.paths, seed=sampling.seed)
    elif sampling is not None:
        how = sampling
    if scheme not in ("trapezoid", "heun", "euler"):
        raise QuenchedError(f"unknown scheme {scheme!r}: {nearest(scheme, ['trapezoid', 'euler'])}")
    return replace(how, dt=dt or how.dt, scheme="euler" if scheme == "euler" else how.scheme)


__all__ = ["Moments", "PathReader", "PathSolution", "as_march", "process_in_time", "solve_paths"]
