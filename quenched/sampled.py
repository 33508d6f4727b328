"""Solutions of units that are not Gaussian: observables from sampled trajectories of the single-site process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Add, Dummy, Expr, Mul, S, Symbol, expand, lambdify

from quenched.readout import GROWTH, Quantity
from quenched.theory.cross import CrossCovariance, observed_between_units
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import At, Field, Quenched
from quenched.theory.naming import Output, field_names, standard_names, unbind
from quenched.theory.observables import Functional, Lyapunov, Mean
from quenched.theory.problem import SiteProcess
from quenched.theory.spaces import t, tau

if TYPE_CHECKING:
    from quenched.fluctuations import Fluctuations
    from quenched.numerics.process_state import ProcessState, Sampling
    from quenched.paths_in_time import PathReader
    from quenched.solution import Solution
    from quenched.theory.model import Model
    from quenched.theory_object import Theory


_CUT = "memory is cut at {:g}, where {:.0%} of it remains: give Sampling(reach=…)"
Array = Any
_SLOW = (
    "correlations still fall at the end of a window of {:g}, {:.0%} of what moves is left at a quarter of it: "
    "give Sampling(steps=…, dt=…) for a window of {:.2g}"
)
#: Length of a window, in half-times of the slowest correlation, that is long (and shorter windows underrate these).
_LONG = 16
#: Relative error of a number above which paths are marched in time for a better one.
FINE = 0.004


@dataclass(frozen=True)
class Probe:
    """A function of one unit at one time whose averages are wanted: its name among the outputs, and its population."""

    name: str
    population: str
    body: Expr


def solve_sampled(
    theory: Theory,
    values: Mapping[Any, float],
    *,
    sampling: Sampling | None = None,
    tol: float | None = None,
    seed: int = 0,
) -> Solution:
    """Solve a theory whose units are not Gaussian.

    Parameters
    ----------
    sampling : time step, window, number of paths and sweeps (a default that takes about half a minute)
    tol : relative error of variances above which sweeps are averaged for longer, up to ten times as long

    Raises
    ------
    ConvergenceError, QuenchedError
        No stationary state was reached, or trajectories diverge.
    """
    from quenched import numerics
    from quenched.jacobian_readout import JacobianReader, with_jacobian
    from quenched.silent_branch import silent_branch
    from quenched.solution import Branch, Solution
    from quenched.state_laws import sampled_laws

    process = theory.derivation.process
    assert process is not None
    process = theory.sampled(process)
    if process.timed:
        raise NotCovered(
            "units that are sampled and depend on time have no stationary state: give times=, as in "
            "solve(times=linspace(0, 50, 101))"
        )
    probes = probes_of(theory.written)
    crossed = observed_between_units(theory.model.observables)
    seen = watched(process, probes)
    seen = _kicked(seen) if crossed else seen
    how = sampling or numerics.Sampling(seed=seed)
    started = any(bond.initial is not None for bond in theory.model.bonds)
    first = numerics.declared_moments(seen, dict(values)) if started else None
    state = numerics.solve_process(seen, dict(values), sampling=how, first=first, extend=sampling is None, tol=tol or 0)
    reader = _Reader(theory.written, seen, dict(values), state, probes)
    reader.fluctuations = theory.fluctuations if crossed else None
    noisy = any(u.noises for u in process.units)
    branch = Branch(
        "sampled",
        "noisy" if noisy else "dynamic",
        True,
        lambda: reader.growth,
        reader.names(),
        reader.quantity,
        rms=reader.rms,
        doubt=_doubt(state),
        undetermined=numerics.start_dependence(seen, dict(values), state),
    )
    with_jacobian(theory, branch, JacobianReader(theory, values, lambda: sampled_laws(theory, seen, values, state)))
    provenance = Solution.provenance_of(theory) | {"method": "sampled trajectories", "seed": str(how.seed)}
    silent = silent_branch(theory.model, values)
    branches: list[Branch] = [branch] if silent is None else [silent] if _fallen_silent(state) else [branch, silent]
    return Solution(branches, 0, {str(k): float(v) for k, v in values.items()}, provenance)


def _doubt(state: ProcessState) -> str:
    """Why the grid of a state does not do: a memory that is cut, a window that correlations outlast."""
    from quenched.numerics.settling import UNFINISHED

    if state.cut > 0.03:
        return _CUT.format(state.sampling.reach, state.cut)
    if state.unfinished < UNFINISHED or _fallen_silent(state):
        return ""
    window = 2 * len(state.tau) * float(state.tau[1] - state.tau[0])
    return _SLOW.format(window, state.unfinished, max(2 * window, _LONG * state.slowest))


def _fallen_silent(state: ProcessState) -> bool:
    """Whether sweeps have ended in a state without fluctuations, of which their noise leaves a rest."""
    from quenched.numerics.settling import SILENT

    sizes = [abs(float(value[0])) for (a, b), (value, _) in state.correlation.items() if a == b]
    return max(sizes, default=1.0) < 2 * SILENT


# --- what the declared observables need ----------------------------------------------------------------------------
def probes_of(model: Model) -> dict[tuple[Expr, str], Probe]:
    """Every function of a unit at one time that occurs in the declared means."""
    found: dict[tuple[Expr, str], Probe] = {}
    for expr in model.observables.values():
        for node in sorted(expr.atoms(Mean), key=str):
            for _, factors in terms_of(node):
                for _, body in factors:
                    key = (body, node.population.name)
                    found.setdefault(key, Probe(f"probe_{len(found)}", node.population.name, body))
    return found


def terms_of(node: Mean) -> list[tuple[Expr, list[tuple[Expr, Expr]]]]:
    """The terms of a mean: constant factor and the product of unit quantities at each time."""
    rows = []
    for term in Add.make_args(expand(unbind(node.body))):
        constant: list[Expr] = []
        groups: dict[Expr, list[Expr]] = {}
        for factor in Mul.make_args(term):
            times = {a.time for a in factor.atoms(At)} | ({t} if _open(factor) else set())
            if not times:
                constant.append(factor)
            elif len(times) == 1:
                bare = factor.replace(lambda e: isinstance(e, At), lambda e: e.field)
                groups.setdefault(times.pop(), []).append(bare)
            else:
                raise NotCovered(f"{factor} in {node} mixes several times in one function")
        rows.append((Mul(*constant), [(time, Mul(*factors)) for time, factors in groups.items()]))
    return rows


def _open(expr: Expr) -> bool:
    """Whether unit quantities occur at the present time, outside any x(t + …)."""
    return bool(expr.replace(lambda e: isinstance(e, At), lambda e: Symbol("at")).atoms(Field, Quenched))


def watched(process: SiteProcess, probes: dict[tuple[Expr, str], Probe]) -> SiteProcess:
    """The process with the probes as further outputs, which no coupling reads."""
    units = []
    for unit in process.units:
        own = {s.name: s for s in (*unit.states, *(label.symbol for label in unit.labels))}
        extra = []
        for probe in (p for p in probes.values() if p.population == unit.population):
            swap = {f: _state_symbol(f, own) for f in probe.body.atoms(Field, Quenched)}
            extra.append((Symbol(probe.name, real=True), probe.body.xreplace(swap)))
        units.append(replace(unit, outputs=(*unit.outputs, *extra)))
    return replace(process, units=tuple(units))


def _kicked(process: SiteProcess) -> SiteProcess:
    """The process with the responses of all outputs to all local fields measured, as memory of strength zero."""
    extra = tuple(
        (field, S.Zero, output, field, output)
        for unit in process.units
        for field in unit.fields
        for output in [unit.outputs[0][0]]
    )
    return replace(process, memory=(*process.memory, *extra))


def _state_symbol(fld: Field | Quenched, own: dict[str, Symbol]) -> Symbol:
    name = fld.name if fld.name in own else f"{fld.name}_{fld.population.name}"
    if name not in own:
        raise NotCovered(f"{fld} is no quantity of the units of {fld.population.name!r} in the derivation")
    return own[name]


# --- reading it off ------------------------------------------------------------------------------------------------
class _Reader:
    """Observables of a sampled state, by name."""

    def __init__(
        self,
        model: Model,
        process: SiteProcess,
        values: dict[Any, float],
        state: ProcessState,
        probes: dict[tuple[Expr, str], Probe],
    ) -> None:
        self.model, self.process, self.values, self.state, self.probes = model, process, values, state, probes

    fluctuations: Callable[[], Fluctuations] | None = None

    def names(self) -> list[str]:
        standard = [n for n, (kind, _) in standard_names(self.model).items() if kind != "R"]
        return list(dict.fromkeys([*standard, GROWTH, *self.model.observables]))

    @cached_property
    def growth(self) -> Quantity:
        """Largest Lyapunov exponent, from two copies of the process."""
        from quenched import numerics

        number = numerics.process_growth(self.process, self.values, self.state)
        return Quantity(number.value, number.error)

    def quantity(self, name: str) -> Quantity:
        if name in self.model.observables:
            return self._declared(self.model.observables[name])
        standard = standard_names(self.model)
        if name == GROWTH:
            return self.growth
        if name not in standard:
            raise QuenchedError(f"no observable {name!r}: {nearest(name, self.names())}")
        kind, what = standard[name]
        label = what.name if isinstance(what, Output) else field_names(self.model)[what]
        readers: dict[str, Callable[[str], Quantity]] = {
            "C": self._curve,
            "C_out": self._curve,
            "C0": self._now,
            "C_out0": self._now,
            "mean": self._mean,
            "S": self._spectrum,
        }
        if kind not in readers:
            raise NotCovered(f"no theory formula for {name!r} from sampled trajectories")
        return readers[kind](label)

    def rms(self, name: str) -> tuple[float, str] | None:
        """√⟨f²⟩ for an observable ⟨f⟩ that (nearly) vanishes: what its errors are relative to."""
        kind, what = standard_names(self.model).get(name, ("", None))
        expr = self.model.observables.get(name)
        if kind == "mean" and isinstance(what, Field):
            label, body = field_names(self.model)[what], str(what)
        elif isinstance(expr, Mean) and (unbind(expr.body), expr.population.name) in self.probes:
            label, body = self.probes[unbind(expr.body), expr.population.name].name, str(unbind(expr.body))
        else:
            return None
        size = max(float(self._pair(label, label)[0][0]), 0.0) ** 0.5
        return (size, f"root mean square of {body}") if abs(self.state.mean[label].value) < size / 10 else None

    def _curve(self, label: str, other: str | None = None) -> Quantity:
        value, error = self._pair(label, other or label)
        return Quantity(value, error, "tau", self.state.tau)

    def _pair(self, a: str, b: str) -> tuple[Any, Any]:
        found = self.state.correlation
        return found[a, b] if (a, b) in found else found[b, a]

    def _now(self, label: str) -> Quantity:
        value, error = self._pair(label, label)
        return Quantity(float(value[0]), float(error[0]))

    def _mean(self, label: str) -> Quantity:
        number = self.state.mean[label]
        return Quantity(number.value, number.error)

    def _spectrum(self, label: str) -> Quantity:
        """S(ω) = ∫ C(τ) cos ωτ dτ of the part that is not constant."""
        grid = self.state.orders[label, label] - self.state.mean[label].value ** 2
        step = float(self.state.tau[1] - self.state.tau[0])
        value = np.real(np.fft.rfft(grid)) * step
        spread = np.asarray(self.state.correlation[label, label][1]) * step
        error = np.full(len(value), 2 * float(np.sqrt((spread**2).sum())))
        return Quantity(value, error, "omega", 2 * np.pi * np.fft.rfftfreq(len(grid), step))

    def _declared(self, expr: Expr) -> Quantity:
        if isinstance(expr, Lyapunov):
            return self.growth
        crossed = observed_between_units({"": expr}).get("")
        if crossed is not None:
            return self._crossed(crossed)
        means = sorted(expr.atoms(Mean), key=str)
        if not means or expr.atoms(Functional):
            raise NotCovered(f"no theory formula for the observable {expr} from sampled trajectories")
        return self._sharper(expr, self._combined(expr, means))

    def _combined(self, expr: Expr, means: list[Mean]) -> Quantity:
        """An expression in means. Its error is that of its change from sweep to sweep, to first order in the means."""
        from quenched.numerics.settling import chain_mean

        slots = {node: Dummy() for node in means}
        function = lambdify(list(slots.values()), expr.xreplace({**slots, **self.values}), "numpy")
        rows = [self._node(node) for node in means]
        centre = [row.mean(axis=0) for row in rows]
        value, change = function(*centre), np.zeros((len(rows[0]), 1))
        for k, row in enumerate(rows):
            size = row.std(axis=0)
            moved = function(*(c + size if j == k else c for j, c in enumerate(centre))) - value
            change = change + np.divide(moved, size, out=np.zeros_like(size), where=size > 0) * (row - centre[k])
        error = chain_mean(change)[1]
        if change.shape[1] == 1:
            return Quantity(float(value[0]), float(error[0]))
        return Quantity(value, error, "tau", self.state.tau)

    def _sharper(self, expr: Expr, found: Quantity) -> Quantity:
        """A number that is not known well enough, from paths that are marched in time until they have settled.

        Batches start from the declared start and share nothing with the sweeps. Where the two disagree, their distance
        is the error.
        """
        if found.axis is not None or not np.isfinite(found.error) or found.error <= FINE * abs(found.value):
            return found
        if self.marched is None:
            return found
        other = self.marched.declared(expr)
        apart = abs(other.value - found.value)
        if apart > 4 * float(np.hypot(other.error, found.error)):
            return Quantity(found.value, max(found.error, apart))
        return min(found, other, key=lambda q: float(q.error))

    @cached_property
    def marched(self) -> PathReader | None:
        """Paths over a window in which they have settled, where that takes a moderate number of steps."""
        from quenched.paths_in_time import settled_paths

        decay = max(self._decay(s.name) for u in self.process.units for s in u.states)
        return settled_paths(self.model, self.process, self.values, self.probes, decay, self.state.sampling)

    def _decay(self, label: str) -> float:
        """Lag at which the part of a correlation that decays has fallen to 1/e."""
        curve = self._pair(label, label)[0]
        moving = np.abs(curve - curve[-1])
        fallen = np.flatnonzero(moving < moving[0] / np.e)
        return float(self.state.tau[fallen[0] if fallen.size else -1])

    def _crossed(self, what: CrossCovariance) -> Quantity:
        """A number or curve formed of the covariances between units."""
        from quenched.fluctuations import between
        from quenched.numerics.propagators import SampledPropagators

        assert self.fluctuations is not None
        problem = self.fluctuations().quadratic
        state = SampledPropagators(problem, self.process, self.state, self.values)
        names = [self.probes[body, what.population.name].name for body in (what.first, what.second)]
        lags = self.state.tau[:: max(1, len(self.state.tau) // 64)]
        return between(state, what, names, lags, tol=1.0)

    def _node(self, node: Mean) -> Array:
        """⟨body⟩ of every averaged sweep, (sweeps, 1) or as a curve over lags (sweeps, k)."""
        total = np.zeros((len(self.state.iterates), 1))
        for constant, factors in terms_of(node):
            names = [(time, self.probes[body, node.population.name].name) for time, body in factors]
            total = total + float(constant.xreplace(self.values)) * self._product(names, node)
        return total

    def _product(self, factors: list[tuple[Expr, str]], node: Mean) -> Array:
        if not factors:
            return np.ones(1)
        if len(factors) == 1:
            return np.array([orders.mean[factors[0][1]] for orders in self.state.iterates])
        if len(factors) > 2:
            raise NotCovered(f"{node} needs the joint law at {len(factors)} times: at most two are covered")
        (first, a), (second, b) = factors
        lag = expand(second - first)
        curves = np.array([o.covariance.get((a, b), o.covariance.get((b, a))) for o in self.state.iterates])
        curves = curves[:, : len(self.state.tau)]
        if lag in (tau, -tau):
            return curves
        if lag.free_symbols:
            raise NotCovered(f"the times in {node} differ by {lag}, expected tau or a number")
        at = abs(float(lag))
        return np.array([[np.interp(at, self.state.tau, curve)] for curve in curves])
