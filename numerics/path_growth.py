"""Largest Lyapunov exponent of a sampled process: growth of a small difference between two copies.

To first order the difference δζ of the local fields of two copies is Gaussian, independent of the fields themselves,
with the covariance of the outputs' difference: κ_uv⟨δa_u δa_v⟩ where ζ has κ_uv⟨a_u a_v⟩. It is realised by fixed
random rotations over the sampled paths, δζ_u(i) = Σ_j G_ij δa_u(j), while memory and means act as in the process
itself. Rotations keep all scalar products, so the covariance over paths is exact at all times; where they differ from
independent entries (averages of more than two of them) it is multiplied by correlations of conjugate fields alone,
which vanish by causality. Each path carries several differences, which are mixed together.

Source: the two-copy argument of Sompolinsky, Crisanti & Sommers, PRL 61, 259 (1988), for units that are not Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import dct
from sympy import Basic, Derivative, DiracDelta, Expr, Symbol, lambdify

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.problem import SampledUnit, SiteProcess

from .process_state import Paths, ProcessState, whole_steps
from .trajectories import sample_paths
from .types import Array, Number

#: Differences that a path carries, time that rates are averaged over, and blocks in which a difference finds its way.
_COPIES = 2
_BLOCK, _ALIGN = 10.0, 2
#: Relative error of the rate at which no more paths are drawn, and most draws.
_PRECISE, _DRAWS = 0.015, 8
#: Part of a memory that is left out.
_FORGOTTEN = 1e-4


class _Rotation:
    """A random rotation of P numbers by cosine transforms, which costs P ln P."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.order = rng.permutation(size)
        self.signs = rng.choice((-1.0, 1.0), (2, size))

    def __call__(self, value: Array) -> Array:
        turned = dct(self.signs[0] * value.ravel(), norm="ortho")
        return np.asarray(dct(self.signs[1] * turned[self.order], norm="ortho")).reshape(value.shape)


@dataclass
class _Unit:
    """One population's paths and the derivatives of its equations along them."""

    unit: SampledUnit
    paths: Paths
    state_slope: Callable[..., list[Array]]
    field_slope: Callable[..., list[Array]]
    output_slope: Callable[..., list[Array]]


def process_growth(
    process: SiteProcess, values: dict[Symbol, float], state: ProcessState, *, paths: int = 1024, blocks: int = 12
) -> Number:
    """Largest Lyapunov exponent, per unit time (per step of a map), with its sampling error.

    Infinite where what couplings read jumps, or what reads them: a small difference becomes its square root at once.

    Parameters
    ----------
    process, values, state : the process, its parameters and its solution
    paths : sampled paths a population; more are drawn, a few times at most, where the rate is not known well enough
    blocks : blocks of the average of each draw; the first ones only align the perturbation

    Raises
    ------
    NotCovered
        If an equation jumps, so that a small difference has no finite rate.
    """
    if process.operators:
        raise NotCovered("the growth of differences through eliminated populations, for units that are not Gaussian")
    if _read_jumps(process):
        return Number(np.inf, 0.0)
    rng = np.random.default_rng((state.sampling.seed, 2))
    rates: list[float] = []
    for _ in range(_DRAWS):
        sampled = sample_paths(process, values, state, paths, rng)
        units = [_tangent(process, u, p, values) for u, p in zip(process.units, sampled, strict=True)]
        rates += _Tangent(process, values, state, units, rng).rates(blocks)
        found = Number(float(np.mean(rates)), float(np.std(rates, ddof=1) / np.sqrt(len(rates))))
        if found.error < _PRECISE * abs(found.value):
            break
    return found


def _read_jumps(process: SiteProcess) -> bool:
    """Whether what couplings read, or what reads couplings, jumps: an output in its unit, an equation in a field."""
    read = {a for _, _, _, *pair in process.covariance for a in pair}
    for u in process.units:
        moving = {*u.states, *(s for s, _, _ in u.earlier)}
        if any(name in read and moving & _jumping(body) for name, body in u.outputs):
            return True
        if any(set(u.fields) & _jumping(body) for body in u.rhs):
            return True
    return False


def _jumping(body: Expr) -> set[Basic]:
    """Symbols in which an expression jumps."""
    return {s for s in body.free_symbols if body.diff(s).has(DiracDelta, Derivative)}


def _tangent(process: SiteProcess, unit: SampledUnit, paths: Paths, values: dict[Symbol, float]) -> _Unit:
    late = [s for s, _, _ in unit.earlier]
    symbols = [*unit.states, *late, *unit.fields, *(label.symbol for label in unit.labels)]
    known = {s: v for s, v in values.items()}

    def code(rows: list[Expr]) -> Callable[..., list[Array]]:
        fixed = [r.subs(known) for r in rows]
        if any(r.has(DiracDelta) for r in fixed):
            raise NotCovered("an equation or output jumps: a small difference between copies has no finite growth rate")
        return lambdify(symbols, fixed, ["scipy", "numpy"])

    return _Unit(
        unit,
        replace(paths, kernel=_trimmed(paths.kernel)),
        code([f.diff(x) for f in unit.rhs for x in (*unit.states, *late)]),
        code([f.diff(h) for f in unit.rhs for h in unit.fields]),
        code([o.diff(x) for _, o in unit.outputs for x in (*unit.states, *late)]),
    )


def _trimmed(kernel: Array) -> Array:
    """Memory (m, nb, reach + 1) without the lags at which next to nothing of it is left."""
    left = np.cumsum(np.abs(kernel).sum(axis=(0, 1))[::-1])[::-1]
    return kernel[:, :, : 1 + int(np.count_nonzero(left > _FORGOTTEN * left[0]))]


class _Past:
    """The last outputs' differences, (reach, copies, P, nb), newest at lag one; a ring, so that nothing moves."""

    def __init__(self, reach: int, *shape: int) -> None:
        self.ring = np.zeros((reach, *shape), np.float32)
        self.head = 0

    def append(self, out: Array) -> None:
        self.head = (self.head - 1) % len(self.ring)
        self.ring[self.head] = out

    def convolve(self, kernel: Array, b: int) -> Array:
        """Σ_lag kernel[lag − 1]·out(−lag), (copies, P)."""
        weights = np.roll(kernel, self.head).astype(np.float32)
        shape = self.ring.shape[1:3]
        return np.asarray((weights @ self.ring[:, :, :, b].reshape(len(weights), -1)).reshape(shape))

    def rescale(self, size: float) -> None:
        self.ring /= size


class _Earlier:
    """The last differences of one unit's states, (steps, copies, P, n), for fields at earlier times."""

    def __init__(self, unit: SampledUnit, late: Array, shape: tuple[int, ...]) -> None:
        self.late, self.source = late, [unit.states.index(x) for _, x, _ in unit.earlier]
        self.ring = np.zeros((int(np.max(late, initial=0)) + 1, *shape))

    def put(self, step: int, delta: Array) -> None:
        self.ring[step % len(self.ring)] = delta

    def with_past(self, step: int, delta: Array) -> Array:
        """States and, behind them, the earlier ones that the unit reads at this step."""
        past = [self.ring[(step - k) % len(self.ring), :, :, i] for k, i in zip(self.late, self.source, strict=True)]
        return np.concatenate([delta, np.stack(past, axis=2)], axis=2) if past else delta

    def rescale(self, size: float) -> None:
        self.ring /= size


class _Tangent:
    """Integrates perturbations of all units, several of each path at once."""

    def __init__(
        self,
        process: SiteProcess,
        values: dict[Symbol, float],
        state: ProcessState,
        units: list[_Unit],
        rng: np.random.Generator,
    ) -> None:
        self.process, self.state, self.units, self.rng = process, state, units, rng
        self.flow = process.clock == "flow"
        self.dt = state.sampling.dt if self.flow else 1.0
        by_name = {s.name: float(v) for s, v in values.items()}
        self.number = lambda e: float(e.subs({s: by_name[s.name] for s in e.free_symbols}))
        self.owner = {o.name: k for k, u in enumerate(units) for o, _ in u.unit.outputs}
        self.reads = {u.name: a.name for u, v, _, a, _ in process.covariance if u == v}
        steps = [[self.number(d) for *_, d in u.unit.earlier] for u in units]
        self.earlier = [
            _Earlier(u.unit, whole_steps(d, self.dt), (_COPIES, *u.paths.states[:, 0].shape))
            for u, d in zip(units, steps, strict=True)
        ]
        self.mixing = [self._mixing(u) for u in units]
        self.rotations = self._rotations()

    def _mixing(self, u: _Unit) -> Array:
        """Root of κ_uv over the fields of one unit: δζ_u = Σ_k L_uk (G^k δa_u)."""
        names = [f.name for f in u.unit.fields]
        kappa = np.zeros((len(names), len(names)))
        for a, b, coef, *_ in self.process.covariance:
            if a.name in names:
                i, j = names.index(a.name), names.index(b.name)
                kappa[i, j] = kappa[j, i] = kappa[i, j] + self.number(coef)
        size, basis = np.linalg.eigh(kappa)
        if size.size and size.min() < -1e-9 * max(1.0, size.max()):
            raise QuenchedError(
                "the covariance of the local fields is not positive: inconsistent coupling correlations"
            )
        return np.asarray(basis * np.sqrt(np.clip(size, 0, None)))

    def _rotations(self) -> dict[tuple[int, int, int], _Rotation]:
        """G^k from every population that is read to every unit."""
        found = {}
        for k, u in enumerate(self.units):
            sources = {self.owner[self.reads[f.name]] for f in u.unit.fields if f.name in self.reads}
            for source in sorted(sources):
                for j in range(self.mixing[k].shape[1]):
                    found[k, j, source] = _Rotation(self.rng, _COPIES * len(u.paths.states))
        return found

    # -- fields -----------------------------------------------------------------------------------------------------
    def fields(self, outs: list[Array], past: list[_Past]) -> list[Array]:
        """δh of every unit, (copies, P, m), from present output differences and their past."""
        result = []
        for k, u in enumerate(self.units):
            names = [f.name for f in u.unit.fields]
            delta = np.zeros((_COPIES, len(u.paths.states), len(names)))
            for i, name in enumerate(names):
                if name in self.reads:
                    delta[:, :, i] += self._random(k, i, self.reads[name], outs)
            for field, coef, a in self.process.means:
                if field.name in names:
                    average = self._output(outs, a.name).mean()
                    delta[:, :, names.index(field.name)] += self.number(coef) * average
            self._remember(u, outs[k], past[k], delta)
            result.append(delta)
        return result

    def _random(self, k: int, i: int, read: str, outs: list[Array]) -> Array:
        source = self.owner[read]
        value = self._output(outs, read)
        total = np.zeros(value.shape)
        for j in range(self.mixing[k].shape[1]):
            if self.mixing[k][i, j] != 0:
                total += self.mixing[k][i, j] * self.rotations[k, j, source](value)
        return total

    def _output(self, outs: list[Array], name: str) -> Array:
        k = self.owner[name]
        index = [o.name for o, _ in self.units[k].unit.outputs].index(name)
        return outs[k][:, :, index]

    def _remember(self, u: _Unit, out: Array, past: _Past, delta: Array) -> None:
        kernel = u.paths.kernel
        for i, b in np.argwhere(kernel.any(axis=2)):
            delta[:, :, i] += kernel[i, b, 0] * out[:, :, b] + past.convolve(kernel[i, b, 1:], b)

    # -- steps ------------------------------------------------------------------------------------------------------
    def slopes(self, k: int, step: int) -> tuple[Array, Array, Array]:
        """∂F/∂x (P, n, n + z), ∂F/∂h (P, n, m), ∂ψ/∂x (P, nb, n + z) along the paths at one step, z earlier states."""
        u, past = self.units[k], self.earlier[k]
        p, length = u.paths, u.paths.states.shape[1]
        at = step % length
        late = [p.states[:, (step - d) % length, i] for d, i in zip(past.late, past.source, strict=True)]
        fields, labels = p.fields[:, at].T[: len(u.unit.fields)], p.labels.T[: len(u.unit.labels)]
        args = [*p.states[:, at].T, *late, *fields, *labels]
        size, n, m, nb = len(p.states), len(u.unit.states), len(u.unit.fields), len(u.unit.outputs)

        def table(code: Callable[..., list[Array]], rows: int, cols: int) -> Array:
            flat = [np.broadcast_to(np.asarray(e, float), (size,)) for e in code(*args)]
            return np.array(flat).T.reshape(size, rows, cols) if flat else np.zeros((size, rows, cols))

        z = n + len(late)
        return table(u.state_slope, n, z), table(u.field_slope, n, m), table(u.output_slope, nb, z)

    def rates(self, blocks: int) -> list[float]:
        """Growth rates of the mean square, block by block."""
        length = max(1, round(_BLOCK / self.dt))
        deltas = [self.rng.standard_normal((_COPIES, *u.paths.states[:, 0].shape)) for u in self.units]
        past = [_Past(self.reach, _COPIES, len(u.paths.states), len(u.unit.outputs)) for u in self.units]
        rates = []
        slopes = [self.slopes(k, 0) for k in range(len(self.units))]
        for block in range(blocks):
            before = _square(deltas)
            for step in range(block * length, (block + 1) * length):
                after = [self.slopes(k, step + 1) for k in range(len(self.units))]
                deltas = self._step(step, deltas, past, slopes, after)
                slopes = after
            now = _square(deltas)
            rates.append(float(np.log(now / before)) / (2 * length * self.dt))
            deltas = [d / np.sqrt(now) for d in deltas]
            for row in past:
                row.rescale(np.sqrt(now))
            for late in self.earlier:
                late.rescale(np.sqrt(now))
        return rates[_ALIGN:]

    def _step(self, step, deltas, past, slopes, after):  # type: ignore[no-untyped-def]
        for row, d in zip(self.earlier, deltas, strict=True):
            row.put(step, d)
        full = [row.with_past(step, d) for row, d in zip(self.earlier, deltas, strict=True)]
        outs = [np.einsum("pbn,rpn->rpb", s[2], d) for s, d in zip(slopes, full, strict=True)]
        fields = self.fields(outs, past)
        first = [_rhs(s, d, f) for s, d, f in zip(slopes, full, fields, strict=True)]
        for row, out in zip(past, outs, strict=True):
            row.append(out)
        if not self.flow:
            return first
        guess = [d + self.dt * k for d, k in zip(deltas, first, strict=True)]
        full = [row.with_past(step + 1, d) for row, d in zip(self.earlier, guess, strict=True)]
        outs = [np.einsum("pbn,rpn->rpb", s[2], d) for s, d in zip(after, full, strict=True)]
        fields = self.fields(outs, past)
        second = [_rhs(s, d, f) for s, d, f in zip(after, full, fields, strict=True)]
        return [d + self.dt / 2 * (a + b) for d, a, b in zip(deltas, first, second, strict=True)]

    @property
    def reach(self) -> int:
        """Steps of the past that memory needs."""
        return max(1, max(u.paths.kernel.shape[2] for u in self.units) - 1)


def _rhs(slopes: tuple[Array, Array, Array], delta: Array, field: Array) -> Array:
    return np.asarray(np.einsum("pnk,rpk->rpn", slopes[0], delta) + np.einsum("pnm,rpm->rpn", slopes[1], field))


def _square(deltas: list[Array]) -> float:
    """|δ|², each population with equal weight per path."""
    return float(sum((d**2).mean(axis=(0, 1)).sum() for d in deltas))
