"""Self-consistent processes by sampled trajectories (dynamical mean-field theory by Monte Carlo).

A sweep draws Gaussian paths of the local fields with the present covariance (circulant, by FFT, so that paths are
periodic and stationary), integrates the units with their memory for one lap to forget the start and one to measure,
and re-estimates covariances, means and responses.

Sources: Eissfeller & Opper, PRL 68, 2094 (1992); Roy, Biroli, Bunin & Cammarota, J. Phys. A 52, 484001 (2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from sympy import Expr, Symbol, sympify

from quenched.theory.errors import QuenchedError, nearest
from quenched.theory.problem import SampledUnit, SiteProcess

from .labels import label_nodes
from .operators import OperatorFilter, kernel_of, spectrum_of
from .process_code import unit_module
from .process_state import Orders, Paths, ProcessState, Sampling, dividing_step, state_orders, whole_steps
from .types import Array

#: What a dynamic coupling may still remember at the end of the memory that is kept.
FORGOTTEN = 3e-3


def forgetting_time(process: SiteProcess, values: dict[Symbol, float]) -> float:
    """Time (steps of a map) after which dynamic couplings have forgotten; 0 where none are, or where they never do."""
    known = {s.name: v for s, v in values.items()}
    rates = [float(sympify(b[2]).subs({s: known[s.name] for s in sympify(b[2]).free_symbols})) for b in process.bonds]
    if process.clock == "flow":
        return max((np.log(FORGOTTEN) / rate for rate in rates if rate < 0), default=0.0)
    slow = [abs(rate) for rate in rates if 0 < abs(rate) < 1]
    return max((1 + np.log(FORGOTTEN * (1 - r)) / np.log(r) for r in slow), default=0.0)


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
