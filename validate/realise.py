"""One realisation of a finite network: draw the disorder, integrate, measure. Runs in worker processes; no sympy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.bonds import Bond, BondSpec
from quenched.validate.exponents import DIMENSION, SPECTRUM, Spectrum, kaplan_yorke
from quenched.validate.integrators import SCHEMES, Scratch
from quenched.validate.linearised import Observed, jacobian
from quenched.validate.measure import Lags, Recorder
from quenched.validate.products import Word, dimensions, entries, largest_intermediate, segments
from quenched.validate.program import Crossing, Moment, Program, load
from quenched.validate.sampling import Law, MatrixSpec, VectorSpec, sample_law, sample_matrices, stream
from quenched.validate.silence import SILENT, silent_growth

Array = NDArray[Any]

#: A state beyond this is taken for diverged.
HUGE = 1e8
#: Up to this many columns a matrix–vector product each is faster than a matrix product (which packs the matrix first).
FEW_COLUMNS = 4


@dataclass(frozen=True)
class Task:
    """Everything that one realisation depends on, as plain data."""

    program: Program
    moments: tuple[Moment, ...]
    curves: dict[str, bool]
    sizes: tuple[int, ...]
    parameters: tuple[float, ...]
    matrices: tuple[MatrixSpec, ...]
    vectors: tuple[VectorSpec, ...]
    initial: tuple[Law | None, ...]
    clock: str
    scheme: str
    dt: float
    advance: float
    burn: int
    window: int
    lags: Lags
    delays: tuple[int, ...]
    trajectories: int
    dtype: str
    seed: int
    N: int
    realisation: int = 0
    substeps: int = 1
    crossings: dict[str, Crossing] = field(default_factory=dict)
    exponents: int = 0
    observed: Observed = field(default_factory=Observed)

    def number(self, realisation: int) -> Task:
        """The same task for another realisation."""
        return replace(self, realisation=realisation)

    def realise(self) -> dict[str, NDArray[np.float64]]:
        """Simulate this realisation (see `realise`)."""
        return realise(self)

    def memory(self) -> float:
        """Bytes that the couplings of one realisation take while they are drawn, and the paths that are kept."""
        drawn = sum(m.rows * m.cols * (24.0 if m.symmetry or m.correlation else 16.0) for m in self.matrices)
        times, units = self.kept_paths()
        plastic = 8.0 * self.trajectories * (2 if self.program.tangent else 1) * self._bond_entries()
        return drawn + plastic + self._composed_bytes() + 16.0 * times * units + 40.0 * self._linearised() ** 2

    def _composed_bytes(self) -> float:
        """Bytes of products that are made once, and of what is made on the way to them."""
        words, times = self._products(), self.applications()
        between = max((largest_intermediate(d, times) for d in words), default=0.0)
        return 8.0 * (sum(entries(d, times)[1] for d in words) + between)

    def _products(self) -> list[tuple[int, ...]]:
        shapes = [(m.rows, m.cols) for m in self.matrices]
        return [dimensions(word, shapes) for word in self.program.products]

    def applications(self) -> float:
        """Number of vectors that every coupling of the right-hand side is applied to."""
        columns = self.trajectories * (2 if self.program.tangent else 1)
        return float((self.burn + self.window) * SCHEMES[self.scheme].evaluations * columns)

    def _bond_entries(self) -> int:
        return sum(self.sizes[p] * self.sizes[q] for _, p, q, _ in self.program.bonds)

    def _linearised(self) -> int:
        """Side of the matrix whose eigenvalues are observed, 0 for none."""
        if not self.observed.formulas:
            return 0
        return sum(self.sizes[p] for _, p in self.program.fields) + sum(
            self.sizes[p] for _, p, _, _ in self.program.bonds
        )

    def kept_paths(self) -> tuple[int, int]:
        """Times, over all trajectories, at which covariances between units keep the state; units of their channels."""
        channels = {c for x in self.crossings.values() for c in (x.first, x.second.channel)}
        units = sum(self.sizes[self.program.channels[c]] for c in channels)
        return self.trajectories * (self.window // self.lags.kept + 1), units

    def work(self) -> float:
        """Rough number of elementary operations of one realisation."""
        inside = {k for word in self.program.products for k, _ in word}
        alone = sum(m.rows * m.cols for k, m in enumerate(self.matrices) if k not in inside)
        read = alone + 3 * self._bond_entries() + sum(entries(d, self.applications())[0] for d in self._products())
        units = sum(self.sizes[p] for _, p in self.program.fields)
        columns = self.trajectories * (2 if self.program.tangent else 1)
        steps = (self.burn + self.window) * SCHEMES[self.scheme].evaluations
        times, kept = self.kept_paths()
        eigenvalues = 30 * self.trajectories * self._linearised() ** 3
        return (steps + 20) * columns * (read + 30 * units + 20000) + times**2 * kept / 2 + eigenvalues


class Network:
    """A drawn network: what generated functions see as ``env``.

    Attributes
    ----------
    trajectories : rows of the state that are trajectories (tangent vectors follow)
    last : time and state at which the integration ended
    parameters, quenched, buffers, slices : tables of the program
    """

    def __init__(self, task: Task) -> None:
        program = task.program
        self.task, self.trajectories, self.parameters = task, task.trajectories, task.parameters
        self._names = dict(zip(program.parameters, task.parameters, strict=True))
        edges = np.cumsum([0] + [task.sizes[p] for _, p in program.fields])
        self.slices = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        self.rows = task.trajectories * (2 if program.tangent else 1)
        self.shape = (self.rows, int(edges[-1]))
        self.dtype = np.dtype(task.dtype)
        self.buffers = [
            np.zeros((self.rows if moving else task.trajectories, task.sizes[p]), self.dtype)
            for p, moving in program.buffers
        ]
        self._streams: dict[str, np.random.Generator] = {}
        self._fixed: dict[Any, Array] = {}
        self._composed: dict[Word, list[Array]] = {}
        self.bonds = [
            Bond(BondSpec(name, task.sizes[p], task.sizes[q], drives), task.trajectories, program.tangent, self.dtype)
            for name, p, q, drives in program.bonds
        ]
        self.matrices = self._draw_matrices([m for m in task.matrices])
        self.quenched = [sample_law(self.stream(f"quenched:{v.name}"), (v.size,), v.law) for v in task.vectors]
        self._history = np.zeros((max(task.delays) + 1, *self.shape)) if task.delays else None
        self._step = 0
        self.last: tuple[float, Array] | None = None

    def stream(self, name: str) -> np.random.Generator:
        """The generator of a named random object, made once."""
        if name not in self._streams:
            self._streams[name] = stream(self.task.seed, self.task.N, self.task.realisation, name)
        return self._streams[name]

    def _draw_matrices(self, specs: list[MatrixSpec]) -> list[Array]:
        drawn = sample_matrices(specs, lambda name: self.stream(f"matrix:{name}"))
        return [np.ascontiguousarray(drawn[s.name], self.dtype) for s in specs]

    def refresh(self) -> None:
        """Draw afresh what is declared with ``redraw``."""
        fresh = [(k, s) for k, s in enumerate(self.task.matrices) if s.fresh]
        if fresh:
            for (k, _), matrix in zip(fresh, self._draw_matrices([s for _, s in fresh]), strict=True):
                self.matrices[k] = matrix
        for k, spec in enumerate(self.task.vectors):
            if spec.fresh:
                self.quenched[k] = sample_law(self.stream(f"quenched:{spec.name}"), (spec.size,), spec.law)

    # -- called by generated code

    def parameter(self, name: str) -> float:
        """Value of a parameter by name."""
        return self._names[name]

    def multiply(self, matrix: int, transposed: bool, vectors: Array) -> Array:
        """Σ_j J_ij ψ_j for every row ψ of `vectors`; the same rounding whatever the platform's thread count."""
        return self._through(self._oriented(matrix, transposed), vectors)

    def product(self, word: Word, vectors: Array, scales: Mapping[int, Any] = MappingProxyType({})) -> Array:
        """Static couplings in a row applied to every row of `vectors`, those composed that are cheaper so.

        `scales` are what multiplies the vectors between factor k and the next one.
        """
        if word not in self._composed:
            self._composed[word] = self._compose(word, scales)
        for matrix in reversed(self._composed[word]):
            vectors = self._through(matrix, vectors)
        return vectors

    def _compose(self, word: Word, scales: Mapping[int, Any]) -> list[Array]:
        factors = [self._oriented(*factor) for factor in word]
        for k, scale in scales.items():
            factors[k] = factors[k] * np.asarray(scale, self.dtype)
        dims = (*(f.shape[0] for f in factors), factors[-1].shape[1])
        parts = segments(dims, self.task.applications())
        made = [factors[i] if j == i + 1 else np.linalg.multi_dot(factors[i:j]) for i, j in parts]
        return [m if m.flags.c_contiguous or m.flags.f_contiguous else np.ascontiguousarray(m) for m in made]

    def _oriented(self, matrix: int, transposed: bool) -> Array:
        return self.matrices[matrix].T if transposed else self.matrices[matrix]

    def _through(self, J: Array, vectors: Array) -> Array:
        if len(vectors) <= FEW_COLUMNS:
            out = np.empty((len(vectors), J.shape[0]), self.dtype)
            for row, vector in zip(out, vectors, strict=True):
                if vector.any():
                    np.dot(J, vector, out=row)
                else:
                    row[:] = 0
            return out
        if self.dtype == np.float32:
            return np.ascontiguousarray((J @ vectors.T).T)
        return np.matmul(vectors, J.T)

    def row(self, matrix: int, index: int) -> Array:
        """A row of a matrix over extensive columns, without its factor 1/√N."""
        rows = self.matrices[matrix]
        return rows[index % len(rows)] * np.sqrt(self.task.N)

    def fixed(self, matrix: int, transposed: bool, vector: Any) -> Array:
        """A coupling applied to disorder that never changes: computed once."""
        key = (matrix, transposed, np.asarray(vector).tobytes())
        if key not in self._fixed:
            J = self._oriented(matrix, transposed)
            self._fixed[key] = J @ np.broadcast_to(np.asarray(vector, self.dtype), J.shape[1:])
        return self._fixed[key]

    def through(self, bond: int, transposed: bool, stage: int, vectors: Array) -> Array:
        """A dynamic coupling applied to every row of `vectors`."""
        return self.bonds[bond].multiply(transposed, stage, self.task.dt, vectors)

    def move_bonds(self) -> None:
        """One step of all dynamic couplings."""
        for bond in self.bonds:
            bond.advance(self.task.scheme, self.task.dt)

    def mean(self, values: Any, population: int) -> Any:
        """Average over units for every row (numbers without units stay)."""
        if np.ndim(values) == 0 or np.shape(values)[-1] != self.task.sizes[population]:
            return values
        return np.mean(values, axis=-1, keepdims=True)

    def past(self, delay: int, stage: int) -> Array:
        """The state `delays[delay]` steps before the present stage."""
        assert self._history is not None
        index = self._step + stage - self.task.delays[delay]
        return self._history[index % len(self._history)]

    # -- history of delayed fields

    def remember(self, step: int, y: Array) -> None:
        """Note the state at the beginning of a step; before the start it was the initial state."""
        self._step = step
        if self._history is not None:
            if step == 0:
                self._history[:] = y
            self._history[step % len(self._history)] = y

    def rescale_past(self, factors: Array) -> None:
        """Rescale remembered tangent vectors, and those of dynamic couplings, with the present ones."""
        for bond in self.bonds:
            bond.rescale(factors)
        if self._history is not None:
            self._history[:, self.trajectories :] *= factors

    def mix_past(self, mixing: Array) -> None:
        """Replace remembered tangent vectors, and those of bonds, by the same combinations as the present ones."""
        for bond in self.bonds:
            bond.mix(mixing)
        if self._history is not None:
            self._history[:, self.trajectories :] = mixing @ self._history[:, self.trajectories :]


def initial_state(net: Network, functions: dict[str, Any]) -> Array:
    """Start values: declared laws and expressions, standard normal by default, and a random tangent vector."""
    task, B = net.task, net.trajectories
    y = np.zeros(net.shape)
    for (name, _), law, where in zip(task.program.fields, task.initial, net.slices, strict=True):
        if law is not None:
            y[:B, where] = sample_law(net.stream(f"initial:{name}"), (B, where.stop - where.start), law)
    functions["start"](net, 0.0, y)
    if task.exponents:
        y[:B] = y[0]
    if "start_bonds" in functions:
        functions["start_bonds"](net, 0.0, y)
    if task.program.tangent:
        y[B:] = net.stream("tangent").standard_normal((B, net.shape[1]))
        y[B:] /= np.linalg.norm(y[B:], axis=1, keepdims=True)
    return y


class Noise:
    """White noise of the declared names, one draw a step (or the sum of several finer steps, for common noise)."""

    def __init__(self, net: Network) -> None:
        task = net.task
        self._rng = net.stream("noise")
        sizes = [task.sizes[p] for _, p in task.program.noises]
        self._block = np.zeros((net.trajectories, sum(sizes)))
        self._spare = np.zeros_like(self._block)
        edges = np.cumsum([0, *sizes])
        self.parts = [self._block[:, a:b] for a, b in pairwise(edges)]
        self._substeps, self._common = task.substeps, task.exponents > 0
        scale = 1.0 if task.clock == "map" else 1 / np.sqrt(task.dt)
        self._scale = scale / np.sqrt(task.substeps)

    def draw(self) -> list[Array]:
        """The noise of the next step, one array (trajectories, units) a name."""
        if self.parts:
            self._rng.standard_normal(out=self._block)
            for _ in range(self._substeps - 1):
                self._rng.standard_normal(out=self._spare)
                self._block += self._spare
            self._block *= self._scale
            if self._common:
                self._block[:] = self._block[0]
        return self.parts


class Growth:
    """Accumulates the growth of the tangent vectors from one step to another, and renormalises them."""

    def __init__(self, net: Network, start: int, stop: int) -> None:
        self._net, self._start, self._stop = net, start, stop
        self._last: int | None = None
        self._sum = np.zeros(net.trajectories)
        self._steps = 0

    def renormalise(self, step: int, y: Array) -> None:
        """Bring the tangent vectors of `y` back to norm one; count their growth in the window."""
        tangent = y[self._net.trajectories :]
        norm = np.linalg.norm(tangent, axis=1, keepdims=True)
        factors = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        tangent *= factors
        self._net.rescale_past(factors)
        if self._last is not None and self._last >= self._start and step <= self._stop:
            with np.errstate(divide="ignore"):
                self._sum += np.log(norm[:, 0])
            self._steps += step - self._last
        self._last = step

    def rate(self) -> float:
        """Growth rate a step, averaged over trajectories."""
        return float(np.mean(self._sum) / self._steps) if self._steps else float("nan")


_stop: Callable[[], bool] = bool


class Stopped(Exception):
    """The run was given up."""


def stop_when(event: Any) -> None:
    """Give up realisations of this process once the event is set."""
    global _stop
    _stop = event.is_set


def realise(task: Task) -> dict[str, NDArray[np.float64]]:
    """Simulate one realisation.

    Returns
    -------
    dict name → array (k,)
        Observables (k lags or 1), and ``elapsed`` in seconds.

    Raises
    ------
    QuenchedError
        When the state diverges.
    """
    began = time.perf_counter()
    functions = load(task.program.source)
    with np.errstate(all="ignore"):
        net = Network(task)
        recorder, growth = integrate(net, functions)
        out = observables(net, functions, recorder, growth)
    out["elapsed"] = np.array([time.perf_counter() - began])
    return out


def integrate(net: Network, functions: dict[str, Any]) -> tuple[Recorder, Growth | Spectrum]:
    """Run the transient and the measurement window."""
    task = net.task
    step, scratch, noise = SCHEMES[task.scheme].step, Scratch(net.shape), Noise(net)
    rhs: Callable[..., None] = _bind(functions["rhs"], net)
    recorder = Recorder(task.lags, task.moments, net, functions)
    end = task.burn + task.window + task.lags.ahead + task.lags.behind
    # Growth under a periodic input is counted over the window alone, whole periods where it is made of them.
    stop = end if task.program.autonomous else task.burn + task.window
    growth = Spectrum(net, task.burn) if task.exponents else Growth(net, task.burn, stop)
    fresh = any(s.fresh for s in task.matrices) or any(s.fresh for s in task.vectors)
    y = initial_state(net, functions)
    for n in range(end + 1):
        if fresh and n:
            net.refresh()
        if n % task.lags.stride == 0:
            check_finite(y, n * task.advance, task)
            if _stop():
                raise Stopped
        if task.program.tangent and (n % task.lags.stride == 0 or n in (task.burn, stop, end)):
            growth.renormalise(n, y)
        net.remember(n, y)
        recorder.snapshot(n, n * task.advance, y)
        if task.burn <= n < end:
            recorder.record(n - task.burn, n * task.advance, y)
        y = step(rhs, n * task.advance, task.dt, y, noise.draw(), scratch)
        net.move_bonds()
    net.last = (end + 1) * task.advance, y
    return recorder, growth


def _bind(rhs: Callable[..., None], net: Network) -> Callable[..., None]:
    def bound(t: float, y: Array, noise: list[Array], stage: int, out: Array) -> None:
        rhs(net, t, y, noise, stage, out)

    return bound


def check_finite(y: Array, now: float, task: Task) -> None:
    """Refuse to go on with a state that has diverged."""
    rows = y[: task.trajectories]
    size = float(np.max(np.abs(rows))) if rows.size else 0.0
    if not size < HUGE:
        hint = (
            "the map has no bounded state here"
            if task.clock == "map"
            else f"smaller dt than {task.dt:g}, or no bounded state"
        )
        raise QuenchedError(f"the simulation diverged at t = {now:g} (|state| > {HUGE:g}): {hint}")


def observables(
    net: Network, functions: dict[str, Any], recorder: Recorder, growth: Growth | Spectrum
) -> dict[str, NDArray[np.float64]]:
    """Observables of one realisation from its averaged moments (or, with explicit time, from each time's)."""
    task = net.task
    rate = growth.rate() / (1.0 if task.clock == "map" else task.dt)
    each_time = not task.program.autonomous
    moments = recorder.series() if each_time else recorder.averages()
    out = {}
    for name, value in functions["observables"](net, moments, rate, recorder.base_times()).items():
        array = np.asarray(value, float)
        if each_time and array.ndim == 2:
            array = array.mean(axis=0)
        width = len(task.lags.steps) if task.curves[name] else 1
        out[name] = np.array(np.broadcast_to(np.atleast_1d(array), (width,)))
    if task.program.silent:
        out[SILENT] = silent_growth(net, functions)
    if isinstance(growth, Spectrum):
        out[SPECTRUM] = growth.rates() / (1.0 if task.clock == "map" else task.dt)
        out[DIMENSION] = np.array([kaplan_yorke(out[SPECTRUM])])
    for name, crossing in task.crossings.items():
        found = recorder.paths.moments(crossing)
        out[name] = found.ratio if crossing.statistic == "participation" else found.variance
    if task.observed.formulas:
        assert net.last is not None
        matrices = (jacobian(net, functions["linearised"], *net.last, which) for which in range(net.trajectories))
        out |= task.observed.of(matrices)
    return out


def all_realisations(task: Task, indices: range) -> Iterator[tuple[int, dict[str, NDArray[np.float64]]]]:
    """Realisations one after the other in this process."""
    for k in indices:
        yield k, realise(task.number(k))
