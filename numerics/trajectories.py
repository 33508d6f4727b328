"""Self-consistent processes by sampled trajectories (dynamical mean-field theory by Monte Carlo).

A sweep draws Gaussian paths of the local fields with the present covariance (circulant, by FFT, so that paths are
periodic and stationary), integrates the units with their memory for one lap to forget the start and one to measure,
and re-estimates covariances, means and responses. Sweeps first share their random numbers, until the covariance moves
less than its own sampling error; then fresh numbers are drawn and the iterates are averaged, and the error of the
average comes from their scatter and autocorrelation.

Sources: Eissfeller & Opper, PRL 68, 2094 (1992); Roy, Biroli, Bunin & Cammarota, J. Phys. A 52, 484001 (2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from sympy import Expr, Symbol, sympify

from quenched.theory.errors import ConvergenceError, QuenchedError, nearest
from quenched.theory.problem import SampledUnit, SiteProcess

from .labels import label_nodes
from .operators import OperatorFilter, kernel_of, spectrum_of
from .process_code import unit_module
from .types import Array, Number

K = TypeVar("K")
#: What a dynamic coupling may still remember at the end of the memory that is kept.
FORGOTTEN = 3e-3
#: Part of the memory that may be cut, and doublings of its reach.
_CUT, _EXTENSIONS = 0.01, 3
#: Amplitude and correlation time of the first guess.
_START = (0.5, 3.0)
#: Part of its largest size below which a state that shrinks from sweep to sweep is silence.
SILENT = 1e-3
#: Length of a window in units of the slowest correlation time (measured: shorter ones make slow states too weak), and
#: moving part of a covariance that counts.
_LAPS, _STILL = 8.0, 1e-3
#: Length of a window in correlation times of a first guess from declared starts.
_WINDOW = 40.0


@dataclass(frozen=True)
class Sampling:
    """How a process is sampled.

    Attributes
    ----------
    dt : time step of a flow (a map steps by one)
    steps : time points of a path, a power of two; the window is steps·dt
    paths : paths a sweep and population
    reach : length of the memory, in time units
    settle, average : most sweeps with shared numbers, and averaged sweeps with fresh ones
    start : amplitude and correlation time of the first guess of the outputs' covariance, by default (0.5, 3). Where
        there are several states, sweeps from small and from large order parameters end in different ones.
    seed : of all random numbers
    """

    dt: float = 0.1
    steps: int = 1024
    paths: int = 200
    reach: float = 20.0
    settle: int = 60
    average: int = 20
    seed: int = 0
    start: tuple[float, float] | None = None


@dataclass(frozen=True)
class ProcessState:
    """A self-consistent process.

    Attributes
    ----------
    tau : array (n_tau,), lags in units of the declared time
    mean : name → Number, of states and outputs
    correlation : (a, b) → (array (n_tau,), errors): ⟨a(t+τ) b(t)⟩ of states and of outputs of one population
    response : (output, field) → (array (n_lag,), errors), ⟨δa(t+τ)/δh(t)⟩ at lags τ = 0, dt, …
    orders : the correlations on the whole periodic grid of a path (T,)
    sweeps : number of sweeps
    residual : last change of the outputs' covariance with shared random numbers, relative to its scale
    cut : part of the memory beyond the reach, estimated from its decay within it
    """

    tau: Array
    mean: dict[str, Number]
    correlation: dict[tuple[str, str], tuple[Array, Array]]
    response: dict[tuple[str, str], tuple[Array, Array]]
    orders: dict[tuple[str, str], Array]
    sweeps: int
    residual: float
    sampling: Sampling
    cut: float = 0.0


@dataclass(frozen=True)
class Paths:
    """Sampled trajectories of one population in the self-consistent state, periodic in time.

    Attributes
    ----------
    states, outputs : arrays (P, T, n), (P, T, nb)
    fields : array (P, T, m), local fields with their memory
    labels : array (P, l)
    kernel : array (m, nb, reach + 1), memory kernels with quadrature weights
    """

    states: Array
    outputs: Array
    fields: Array
    labels: Array
    kernel: Array


@dataclass
class Orders:
    """The order parameters that a sweep updates, on the grid of a path."""

    covariance: dict[tuple[str, str], Array]
    mean: dict[str, Array]
    response: dict[tuple[str, str], Array]

    def mixed(self, new: Orders, weight: float) -> Orders:
        """(1 − weight)·self + weight·new."""
        return Orders(
            _mix(self.covariance, new.covariance, weight),
            _mix(self.mean, new.mean, weight),
            _mix(self.response, new.response, weight),
        )

    def alternating(self) -> Orders:
        """Those of a map's paths times (−1)^t, driven by fields times (−1)^{t+1}."""
        flip = lambda row, sign: {k: sign * v * _signs(len(v)) for k, v in row.items()}  # noqa: E731
        return Orders(flip(self.covariance, 1), dict(self.mean), flip(self.response, -1))


def _signs(length: int) -> Array:
    return np.where(np.arange(length) % 2 == 0, 1.0, -1.0)


def _mix(old: dict[K, Array], new: dict[K, Array], weight: float) -> dict[K, Array]:
    return {key: (1 - weight) * value + weight * new[key] for key, value in old.items()}


class ProcessSampler:
    """One process at given parameters: turns order parameters into new ones."""

    def __init__(self, process: SiteProcess, values: dict[Symbol, float], how: Sampling) -> None:
        self.process, self.how = process, how
        self.values = {s.name: float(v) for s, v in values.items()}
        missing = [s.name for s in process.parameters if s.name not in self.values]
        if missing:
            raise QuenchedError(f"parameter {missing[0]!r} has no value: {nearest(missing[0], self.values)}")
        self.p = np.array([self.values[s.name] for s in process.parameters])
        self.flow = process.clock == "flow"
        delays = [self._number(d) for u in process.units for *_, d in u.earlier]
        self.how = how = replace(how, dt=dividing_step(how.dt, delays)) if self.flow else how
        self.dt = how.dt if self.flow else 1.0
        self.late = [whole_steps([self._number(d) for *_, d in u.earlier], self.dt) for u in process.units]
        memory = bool(process.memory or process.bonds or process.operators)
        self.reach = max(1, min(round(how.reach / self.dt), how.steps - 1)) if memory else 1
        self.modules = [unit_module(u, process.parameters, process.clock) for u in process.units]
        self.covariance = [(u.name, v.name, self._gain(c), a.name, b.name) for u, v, c, a, b in process.covariance]
        self.filters = [(u.name, self._gain(c), b.name) for u, c, b in process.filters]
        turns = 2j * np.pi * np.fft.rfftfreq(how.steps, self.dt)
        self.shift = turns if self.flow else np.exp(turns)
        self.means = [(u.name, self._number(c), a.name) for u, c, a in process.means]
        self.memory = [(u.name, self._number(c), a.name, v.name, b.name) for u, c, a, v, b in process.memory]
        self.bonds = [
            (u.name, self._number(k), self._decay(rate), a.name, b.name, c.name)
            for u, k, rate, a, b, c in process.bonds
        ]

    def _number(self, e: Expr) -> float:
        e = sympify(e)
        missing = [s for s in e.free_symbols if s.name not in self.values]
        if missing:
            raise QuenchedError(f"parameter {missing[0]} has no value: {nearest(str(missing[0]), self.values)}")
        return float(e.subs({s: self.values[s.name] for s in e.free_symbols}))

    def _gain(self, e: Expr) -> OperatorFilter:
        """A coefficient as a function of frequency, constant unless it contains operators in time."""
        return OperatorFilter(e, self.process.operators, self.values)

    def _responses(self, now: Orders) -> dict[tuple[str, str], np.ndarray]:
        """Responses that act as operators, at the frequencies of a path."""
        return {
            (o.output, o.field): spectrum_of(now.response[o.output, o.field], self.dt, self.flow, self.how.steps)
            for o in self.process.operators
        }

    def _decay(self, rate: Expr) -> Array:
        """What a dynamic coupling remembers at lags 0, dt, …: e^{rate·τ} of a flow, rate^{n−1} of a map."""
        value, lags = self._number(rate), np.arange(self.reach + 1)
        if (value >= 0) if self.flow else (abs(value) >= 1):
            raise QuenchedError(
                f"dynamic couplings do not forget: their own rate is {value:g}, so nothing is stationary"
            )
        weights = (
            np.exp(value * lags * self.dt) if self.flow else np.where(lags > 0, value ** np.maximum(lags - 1, 0), 0)
        )
        rest = abs(weights[-1]) / (1 if self.flow else max(1 - abs(value), 1e-300))
        if rest > FORGOTTEN:
            raise QuenchedError(
                f"dynamic couplings remember more than {self.how.reach:g} units of time: give Sampling(reach=…), "
                "and steps·dt several times as long"
            )
        return np.asarray(weights, float)

    # -- one sweep ----------------------------------------------------------------------------------------------
    def sweep(self, now: Orders, rng: np.random.Generator) -> Orders:
        new = Orders({}, {}, {})
        for unit, module in zip(self.process.units, self.modules, strict=True):
            self._sweep_unit(unit, module, now, new, rng)
        return new

    def _sweep_unit(self, unit: SampledUnit, module, now: Orders, new: Orders, rng) -> None:  # type: ignore[no-untyped-def]
        kicked = self._kicked(unit)
        states, outs, answer, *_ = self.integrate(unit, module, now, rng, kicked)
        self._measure(unit, states, outs, answer, kicked, new)

    def integrate(self, unit, module, now, rng, kicked, off=0.0):  # type: ignore[no-untyped-def]
        """Trajectories of one unit: states, outputs, responses, the fields without memory, labels and kernel.

        `off` is added to all starts.
        """
        how = self.how
        h = self._fields(unit, now, rng)
        noise = rng.standard_normal((how.paths, how.steps, max(1, len(unit.noises))))
        labels = self._labels(unit, rng)
        start = off + 0.5 * rng.standard_normal((how.paths, len(unit.states)))
        index = np.array([[f.name for f in unit.fields].index(k) for k in kicked], dtype=np.int64)
        kernel = self._kernel(unit, now)
        late = self.late[self.process.units.index(unit)]
        source = np.array([unit.states.index(x) for _, x, _ in unit.earlier], dtype=np.int64)
        states, outs, answer = module.run(
            h, noise, labels, start, kernel, self.p, self.dt, how.steps, index, self.reach, late, source
        )
        if not (np.isfinite(states).all() and np.abs(states).max() < 1e12):
            raise QuenchedError(
                f"trajectories of population {unit.population!r} diverge: "
                "no stationary state at these parameters (or dt too large)"
            )
        return states, outs, answer, h, labels, kernel

    def _fields(self, unit: SampledUnit, now: Orders, rng: np.random.Generator) -> Array:
        """Gaussian paths (P, T, m) with the present cross-covariance, plus the means."""
        names = [f.name for f in unit.fields]
        m, steps, paths = len(names), self.how.steps, self.how.paths
        if m == 0:
            return np.zeros((paths, steps, 1))
        spectra = np.zeros((steps // 2 + 1, m, m), dtype=complex)
        responses = self._responses(now)
        for u, v, coef, a, b in self.covariance:
            if u in names:
                row = coef(responses, self.shift) * np.fft.rfft(self._two(now, a, b))
                i, j = names.index(u), names.index(v)
                spectra[:, i, j] += row
                if i != j:
                    spectra[:, j, i] += row.conj()
        size, basis = np.linalg.eigh((spectra + spectra.conj().swapaxes(1, 2)) / 2)
        root = basis * np.sqrt(np.clip(size, 0.0, None) * steps)[:, None, :]
        z = rng.standard_normal((2, paths, steps // 2 + 1, m))
        draw = (z[0] + 1j * z[1]) / np.sqrt(2)
        draw[:, [0, -1]] = z[0][:, [0, -1]]
        draw = _balanced(draw)
        h = np.fft.irfft(np.einsum("wij,pwj->pwi", root, draw, optimize=True), n=steps, axis=1)
        for u, strength, a in self.means:
            if u in names:
                h[:, :, names.index(u)] += strength * float(now.mean[a][0])
        return np.ascontiguousarray(h)

    def _two(self, now: Orders, a: str, b: str) -> Array:
        """⟨a(t+τ) b(t)⟩ on the periodic grid."""
        if (a, b) in now.covariance:
            return now.covariance[a, b]
        return np.roll(now.covariance[b, a][::-1], 1)

    def _labels(self, unit: SampledUnit, rng: np.random.Generator) -> Array:
        """Quenched numbers of every path (P, l), drawn from the nodes of their law."""
        out = np.zeros((self.how.paths, max(1, len(unit.labels))))
        known = {s: self.values[s.name] for s in self.process.parameters}
        for k, label in enumerate(unit.labels):
            nodes, weights = label_nodes((label,), known)
            points = np.array([n[0] for n in nodes])
            order = np.argsort(points)
            levels = (np.arange(self.how.paths) + rng.random()) / self.how.paths
            mass = np.cumsum(weights[order])
            pick = np.searchsorted(mass / mass[-1], levels)
            out[:, k] = rng.permutation(points[order][np.minimum(pick, len(points) - 1)])
        return out

    def _kicked(self, unit: SampledUnit) -> list[str]:
        names = {f.name for f in unit.fields}
        kicked = [v for _, _, _, v, _ in self.memory] + [o.field for o in self.process.operators]
        return list(dict.fromkeys(v for v in kicked if v in names))

    def _kernel(self, unit: SampledUnit, now: Orders) -> Array:
        """Memory kernels (m, nb, reach + 1) with the weights of the quadrature over the past."""
        fields, outs = [f.name for f in unit.fields], [o.name for o, _ in unit.outputs]
        kernel = np.zeros((max(1, len(fields)), max(1, len(outs)), self.reach + 1))
        for u, coef, a, v, b in self.memory:
            if u in fields:
                kernel[fields.index(u), outs.index(b)] += coef * now.response[a, v]
        for u, coef, decay, a, b, c in self.bonds:
            if u in fields:
                kernel[fields.index(u), outs.index(c)] += coef * decay * self._two(now, a, b)[: self.reach + 1]
        if self.flow:
            kernel *= self.dt
            kernel[:, :, [0, -1]] /= 2
        else:
            kernel[:, :, 0] = 0.0
        responses = self._responses(now)
        for u, operator, b in self.filters:
            if u in fields:
                row = kernel_of(operator(responses, self.shift), self.how.steps, self.reach)
                kernel[fields.index(u), outs.index(b)] += row
        return kernel

    def _measure(self, unit, states, outs, answer, kicked, new) -> None:  # type: ignore[no-untyped-def]
        series = {s.name: states[:, :, i] for i, s in enumerate(unit.states)}
        series |= {o.name: outs[:, :, i] for i, (o, _) in enumerate(unit.outputs)}
        waves = {k: np.fft.rfft(v, axis=1) for k, v in series.items()}
        names = list(series)
        for i, a in enumerate(names):
            new.mean[a] = np.array([series[a].mean()])
            for b in names[i:]:
                power = (waves[a] * waves[b].conj()).mean(axis=0)
                new.covariance[a, b] = np.fft.irfft(power, n=self.how.steps) / self.how.steps
        for k, v in enumerate(kicked):
            for i, (o, _) in enumerate(unit.outputs):
                new.response[o.name, v] = answer[:, k, i].mean(axis=0)

    # -- start ---------------------------------------------------------------------------------------------------
    def guess(self, amplitude: float | Mapping[tuple[str, str], float], time: float) -> Orders:
        """Decaying covariances of all outputs, of the given size or sizes and time."""
        lags = np.minimum(np.arange(self.how.steps), self.how.steps - np.arange(self.how.steps)) * self.dt
        shape = np.exp(-((lags / time) ** 2) / 2)
        start = Orders({}, {}, {})
        for unit in self.process.units:
            names = [s.name for s in unit.states] + [o.name for o, _ in unit.outputs]
            for i, a in enumerate(names):
                start.mean[a] = np.zeros(1)
                for b in names[i:]:
                    size = amplitude.get((a, b), 0.0) if isinstance(amplitude, Mapping) else amplitude
                    start.covariance[a, b] = size * shape
            for v in self._kicked(unit):
                for o, _ in unit.outputs:
                    start.response[o.name, v] = np.zeros(self.reach + 1)
        return start


def dividing_step(dt: float, delays: list[float]) -> float:
    """The largest step up to `dt` of which all delays are multiples.

    Raises
    ------
    QuenchedError
        If there is none above dt/50.
    """
    if not delays:
        return dt
    first = int(np.ceil(min(delays) / dt - 1e-9))
    for count in range(max(first, 1), 50 * max(first, 1)):
        step = min(delays) / count
        if all(abs(d / step - round(d / step)) < 1e-6 for d in delays):
            return step
    raise QuenchedError(f"the delays {', '.join(f'{d:g}' for d in delays)} have no common step: round them")


def whole_steps(delays: list[float], dt: float) -> Array:
    """Delays as numbers of steps, at least one."""
    steps = np.array([d / dt for d in delays])
    bad = next((d for d, s in zip(delays, steps, strict=True) if abs(s - round(s)) > 1e-6 or s < 0.5), None)
    if bad is not None:
        raise QuenchedError(f"a delay of {bad:g} is not a whole number (at least one) of steps of {dt:g}")
    return np.round(steps).astype(np.int64)


def solve_process(
    process: SiteProcess,
    values: dict[Symbol, float],
    *,
    sampling: Sampling | None = None,
    first: tuple[Mapping[tuple[str, str], float], float] | None = None,
    extend: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ProcessState:
    """Solve a self-consistent process by sampled trajectories.

    Parameters
    ----------
    process : SiteProcess
    values : parameter values
    sampling : grid, number of paths and sweeps, seed
    first : second moments of the outputs and correlation time to begin with, where `sampling` gives no start
    extend : whether the reach of the memory grows until the memory has decayed, and the window until it is many
        correlation times long
    progress : called with (sweeps done, sweeps at most)

    Raises
    ------
    ConvergenceError
        If the covariance still drifts after `settle` sweeps.
    QuenchedError
        If trajectories diverge.
    """
    how = sampling or Sampling()
    if extend and how.start is None and first is not None and process.clock == "flow":
        how = _wide(how, first[1])
    sampler = ProcessSampler(process, values, how)
    guess = sampler.guess(*(how.start or first or _START))
    now, history = _settle(sampler, guess, progress)
    for _ in range(_EXTENSIONS if extend else 0):
        if memory_cut(now) < _CUT:
            break
        longer = replace(sampler.how, reach=2 * sampler.how.reach)
        longer = replace(longer, steps=2 * longer.steps if 5 * sampler.reach > longer.steps else longer.steps)
        sampler = ProcessSampler(process, values, longer)
        now, more = _settle(sampler, _on_grid(now, longer.steps, sampler.reach), progress)
        history, how = history + more, longer
    for _ in range(_EXTENSIONS if extend else 0):
        silent = _size(now) < 2 * SILENT * _size(guess)
        if silent or _LAPS * slowest(sampler, now) < sampler.how.steps * sampler.dt:
            break
        sampler = ProcessSampler(process, values, replace(sampler.how, steps=2 * sampler.how.steps))
        now, more = _settle(sampler, _on_grid(now, sampler.how.steps, sampler.reach), progress)
        history, how = history + more, sampler.how
    iterates = []
    for k in range(how.average):
        now = sampler.sweep(now, np.random.default_rng((how.seed, 1, k)))
        iterates.append(now)
        if progress:
            progress(len(history) + k + 1, how.settle + how.average)
    return _summary(sampler, iterates, history)


def _wide(how: Sampling, time: float) -> Sampling:
    """A window that is many times as long as the correlation time of the first guess, in steps twice as long; sweeps.

    In a window that is not, a slow state cannot be told from one that stands still.
    """
    steps = 2 ** int(np.ceil(np.log2(_WINDOW * time / (2 * how.dt))))
    return replace(how, dt=2 * how.dt, steps=max(how.steps, steps), settle=2 * how.settle)


def sample_paths(
    process: SiteProcess, values: dict[Symbol, float], state: ProcessState, paths: int, rng: np.random.Generator
) -> list[Paths]:
    """Draw trajectories of every unit in a solved state."""
    sampler = ProcessSampler(process, values, replace(state.sampling, paths=paths))
    now, found = state_orders(state), []
    for unit, module in zip(process.units, sampler.modules, strict=True):
        states, outs, _, h, labels, kernel = sampler.integrate(unit, module, now, rng, [])
        found.append(Paths(states, outs, h + _memory(kernel, outs), labels, kernel))
    return found


def state_orders(state: ProcessState) -> Orders:
    """The order parameters of a solved state."""
    return Orders(
        dict(state.orders),
        {k: np.array([v.value]) for k, v in state.mean.items()},
        {k: v for k, (v, _) in state.response.items()},
    )


def _balanced(draw: Array) -> Array:
    """White draws (P, ω, m) turned so that their covariance over the paths is exactly that of the law.

    Units are close to linear in their fields, so most of the scatter between sweeps goes, at the price of a bias of
    relative order 1/P.
    """
    paths, _, m = draw.shape
    if paths < 8 * m:
        return draw
    found = np.einsum("pwi,pwj->wij", draw.conj(), draw, optimize=True) / paths
    size, basis = np.linalg.eigh(found)
    root = (basis / np.sqrt(size)[:, None, :]) @ basis.conj().swapaxes(1, 2)
    return np.einsum("pwi,wij->pwj", draw, root, optimize=True)


def _memory(kernel: Array, outs: Array) -> Array:
    """Memory part of the fields (P, T, m), from periodic outputs by FFT."""
    padded = np.zeros((*kernel.shape[:2], outs.shape[1]))
    padded[:, :, : kernel.shape[2]] = kernel
    waves = np.einsum("ubw,pwb->pwu", np.fft.rfft(padded, axis=2), np.fft.rfft(outs, axis=1), optimize=True)
    return np.asarray(np.fft.irfft(waves, n=outs.shape[1], axis=1))


def memory_cut(now: Orders) -> float:
    """Part of the memory beyond its reach, from how much smaller responses are in the second half of it."""
    worst = 0.0
    for row in now.response.values():
        half = len(row) // 2
        early, late = (float(np.abs(part).mean()) for part in (row[:half], row[half:]))
        worst = max(worst, (late / early) ** 2 if early > 0 and half else 0.0)
    return worst


def _size(now: Orders) -> float:
    """The largest variance."""
    return max(float(np.abs(c[0])) for c in now.covariance.values())


def slowest(sampler: ProcessSampler, now: Orders) -> float:
    """The longest time in which the autocorrelation of an output falls half of the way to its value at long lags."""
    times = [0.0]
    for unit in sampler.process.units:
        for o, _ in unit.outputs:
            curve = now.covariance[o.name, o.name][: sampler.how.steps // 2]
            moving = np.abs(curve - curve[-1])
            if moving[0] > _STILL * abs(curve[0]):
                times.append(float(np.argmax(moving < moving[0] / 2)) * sampler.dt)
    return max(times)


def _on_grid(now: Orders, steps: int, reach: int) -> Orders:
    """Order parameters on a longer grid: covariances stay at their last value, responses at zero."""

    def stretched(row: Array) -> Array:
        half = len(row) // 2
        out = np.full(steps, row[half])
        out[:half], out[steps - half :] = row[:half], row[half:]
        return out

    covariance = {k: stretched(v) if len(v) != steps else v for k, v in now.covariance.items()}
    response = {k: np.concatenate([v, np.zeros(reach + 1 - len(v))]) for k, v in now.response.items()}
    return Orders(covariance, now.mean, response)


def _settle(sampler: ProcessSampler, now: Orders, progress) -> tuple[Orders, list[float]]:  # type: ignore[no-untyped-def]
    """Sweeps with shared random numbers until the outputs' covariance moves less than its sampling error."""
    how = sampler.how
    history: list[float] = []
    largest = 0.0
    bound = 1.0 / np.sqrt(how.paths)
    for k in range(how.settle):
        new = sampler.sweep(now, np.random.default_rng((how.seed, 0)))
        size = _size(new)
        largest, scale = max(largest, size), size or 1.0
        moved = max(float(np.abs(c - now.covariance[key]).max()) for key, c in new.covariance.items()) / scale
        history.append(moved)
        mix = 1.0 if k < 2 else 0.8
        now = now.mixed(new, mix)
        if progress:
            progress(k + 1, how.settle + how.average)
        settled = moved < 0.3 * bound and _remaining(history) < bound
        if k > 4 and (settled or size < SILENT * largest):
            return now, history
    if history[-1] > 5 * bound or _remaining(history) > 10 * bound:
        raise ConvergenceError(
            f"the sampled process still moves by {history[-1]:.2g} of its size after {how.settle} sweeps; "
            "give more sweeps, a longer window or another start, as in Sampling(settle=200, start=(0.5, 10))",
            history,
        )
    return now, history


def _remaining(history: list[float]) -> float:
    """How far sweeps that contract as the last ones did still have to go."""
    if len(history) < 6:
        return float("inf")
    rate = min((history[-1] / max(history[-6], 1e-300)) ** (1 / 5), 0.99)
    return history[-1] / (1 - rate)


def _summary(sampler: ProcessSampler, iterates: list[Orders], history: list[float]) -> ProcessState:
    half = sampler.how.steps // 2
    first = iterates[0]

    def average(part: str, key: object) -> tuple[Array, Array]:
        return _chain_mean(np.array([getattr(o, part)[key] for o in iterates]))

    correlation, orders = {}, {}
    for key in first.covariance:
        value, error = average("covariance", key)
        orders[key] = value
        correlation[key] = (value[:half], error[:half])
    means = {a: Number(*(float(v[0]) for v in average("mean", a))) for a in first.mean}
    return ProcessState(
        np.arange(half, dtype=float) * sampler.dt,
        means,
        correlation,
        {k: average("response", k) for k in first.response},
        orders,
        len(history) + len(iterates),
        history[-1],
        sampler.how,
        memory_cut(iterates[-1]) if sampler.process.memory else 0.0,
    )


def _chain_mean(rows: Array) -> tuple[Array, Array]:
    """Mean of correlated iterates, and its error from their scatter and lag-one correlation."""
    n = len(rows)
    mean = rows.mean(axis=0)
    if n < 3:
        return mean, np.full(mean.shape, np.inf)
    off = rows - mean
    variance = (off**2).sum(axis=0) / (n - 1)
    lagged = (off[1:] * off[:-1]).sum(axis=0) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.clip(np.where(variance > 0, lagged / variance, 0.0), 0.0, 0.95)
    return mean, np.sqrt(variance / n * (1 + rho) / (1 - rho))
