"""Running message passing on an instance: fixed points and the way there, free entropy, growth of differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from quenched.theory.errors import ConvergenceError, QuenchedError

from .message_code import MessageProgram, SiteProgram, identifier
from .site_kernels import fields, fields_transposed
from .types import Array

#: Root mean square change of the means at which a run has converged.
TOL = 1e-7
#: Root mean square change at which a run that only has to settle does so, and sweeps before it may be given up.
AT_REST, LOOK = 1e-4, 160
#: Sweeps whose changes decide how a run that has not converged behaves.
WINDOW = 40


@dataclass(frozen=True)
class MessageState:
    """Means and variances of all populations, and what the last sweep computed them from.

    Attributes
    ----------
    m, v : population → array (units,)
    old : the means one sweep earlier
    logs, fields, widths : population → L, b and V of the last sweep
    """

    m: dict[str, Array]
    v: dict[str, Array]
    old: dict[str, Array]
    logs: dict[str, Array] = field(default_factory=dict)
    fields: dict[str, Array] = field(default_factory=dict)
    widths: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class MessageRun:
    """The end of a run.

    Attributes
    ----------
    state : MessageState
    converged : whether changes fell below the tolerance
    behaviour : "converged", "still contracting" (changes fall by `rate` a sweep), "does not settle", or "diverged"
    sweeps : number of sweeps
    changes : array (sweeps,), root mean square change of the means of the states
    rate : factor a sweep of the changes over the last sweeps
    """

    state: MessageState
    converged: bool
    behaviour: str
    sweeps: int
    changes: Array
    rate: float


class Coupling:
    """A matrix of couplings as a sweep uses it.

    Attributes
    ----------
    matrix : array (rows, columns)
    square : what the square of every entry is, None where they differ
    """

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix
        size = np.abs(matrix)
        even = matrix.size > 0 and np.ptp(size) <= 1e-12 * np.max(size)
        self.square = float(np.mean(size)) ** 2 if even else None

    def rows(self, m: Array, v: Array) -> tuple[Array, Array]:
        """(Σ_j A_ij m_j, Σ_j A_ij² v_j)."""
        if self.square is None:
            return fields(self.matrix, m, v)
        return self.matrix @ m, np.full(len(self.matrix), self.square * np.sum(v))

    def columns(self, m: Array, v: Array) -> tuple[Array, Array]:
        """(Σ_i A_ij m_i, Σ_i A_ij² v_i)."""
        if self.square is None:
            return fields_transposed(self.matrix, m, v)
        return m @ self.matrix, np.full(self.matrix.shape[1], self.square * np.sum(v))


class Instance:
    """Message passing on one draw of the disorder.

    Parameters
    ----------
    program : MessageProgram
    values : parameter name → number
    sizes : population → number of units
    matrices : name → array (rows, columns)
    labels : name → array (units,); of a label that a teacher gives, the standard normal numbers of its noise
    """

    def __init__(
        self,
        program: MessageProgram,
        values: Mapping[str, float],
        sizes: Mapping[str, int],
        matrices: Mapping[str, Array],
        labels: Mapping[str, Array],
    ) -> None:
        self.program, self.sizes, self.module = program, dict(sizes), program.module
        self.p = tuple(float(values[name]) for name in program.parameters) or (0.0,)
        self.states = [s.name for s in program.sites if s.kind == "state"]
        self.labels = dict(labels)
        for population, label, uses in program.taught:
            self.labels[label] = self._taught(population, label, uses, matrices)
        self.q = {s.name: self._labels(s) for s in program.sites}
        self.bias = {name: self._given("bias", name) for name in self.q}
        self.quadratic = {name: self._given("quadratic", name) for name in self.q}
        self.matrices = {pair: self._coupling(pair, matrices) for pair in program.pairs()}
        self.couplings = {pair: Coupling(matrix) for pair, matrix in self.matrices.items()}

    # -- numbers -------------------------------------------------------------------------------------------------
    def _labels(self, site: SiteProgram) -> Array:
        if not site.labels:
            return np.zeros((self.sizes[site.name], 1))
        return np.ascontiguousarray(np.stack([self.labels[name] for name in site.labels], axis=1))

    def _taught(
        self, population: str, label: str, uses: tuple[tuple[str, bool, str], ...], matrices: Mapping[str, Array]
    ) -> Array:
        """A label that a teacher gives: its noise is drawn already, its weights are summed over the couplings."""
        name, sites = identifier(population), {s.name: s for s in self.program.sites}
        mean, variance = getattr(self.module, f"noise_{name}")(self.p)
        total = mean + np.sqrt(variance) * self.labels.get(label, np.zeros(self.sizes[population]))
        for k, (matrix, at_row, far) in enumerate(uses):
            weights = getattr(self.module, f"teacher_{name}_{k}")(self._labels(sites[far]), self.p)
            total = total + (matrices[matrix] if at_row else matrices[matrix].T) @ weights
        return np.asarray(total, float)

    def _given(self, what: str, name: str) -> Array:
        found: Array = getattr(self.module, f"{what}_{identifier(name)}")(self.q[name], self.p)
        return found

    def _coupling(self, pair: tuple[str, str], matrices: Mapping[str, Array]) -> Array:
        """A between two populations; without the diagonal, which is no edge."""
        total = np.zeros((self.sizes[pair[0]], self.sizes[pair[1]]))
        for k, (matrix, rows, cols) in enumerate(self.program.blocks):
            if {rows, cols} != set(pair):
                continue
            shape = (self.sizes[rows], self.sizes[cols])
            entries = np.full(shape, 1.0 / shape[1]) if matrix is None else matrices[matrix]
            block = getattr(self.module, f"block_{k}")(entries, self.q[rows], self.q[cols], self.p)
            if rows == cols:
                total += block + block.T
            else:
                total += block if (rows, cols) == pair else block.T
        if pair[0] == pair[1]:
            np.fill_diagonal(total, 0.0)
        return total

    # -- sweeps --------------------------------------------------------------------------------------------------
    def start(
        self, rng: np.random.Generator, spread: float = 0.1, toward: tuple[str, str] | None = None
    ) -> MessageState:
        """Units in the field of the declaration and a small random one; nothing known about the constraints.

        Parameters
        ----------
        rng, spread : source and size of the random fields
        toward : (population, label), optional
            Strong fields along a label in place of the random ones.
        """
        m, v = {}, {}
        for site in self.program.sites:
            n, q = self.sizes[site.name], self.q[site.name]
            m[site.name], v[site.name] = np.zeros(n), np.zeros(n)
            if site.kind == "state":
                kick = spread * rng.standard_normal(n)
                if toward and toward[0] == site.name:
                    kick = 4.0 * q[:, site.labels.index(toward[1])]
                b, V = self.bias[site.name] + kick, self.quadratic[site.name].copy()
                function = self._function(site.name)
                if site.norm is not None:
                    V = self.multiplier(function, b, q, self.p, site.norm)
                function(b, V, q, self.p, np.empty(n), m[site.name], v[site.name])
        return MessageState(m, v, {name: array.copy() for name, array in m.items()})

    def solve(self, rng: np.random.Generator, **options: Any) -> MessageRun:
        """Run from a weak random start; where the measure has no fields there, from stronger ones.

        The stronger starts are along labels that couplings read (condensed patterns), then along random directions.
        """
        run = self.run(self.start(rng), **options)
        for toward in (*self.program.reading, None):
            if run.behaviour != "diverged":
                break
            run = self.run(self.start(rng, 4.0, toward), **options)
        return run

    def _function(self, name: str) -> Callable[..., None]:
        function: Callable[..., None] = getattr(self.module, f"site_{identifier(name)}")
        return function

    def multiplier(self, function: Callable[..., None], b: Array, q: Array, p: tuple[float, ...], norm: float) -> Array:
        """V = −λ with λ such that the mean of x² is the norm."""
        from scipy.optimize import brentq

        out = tuple(np.empty_like(b) for _ in range(3))

        def excess(y: float) -> float:
            function(b, np.full_like(b, -np.exp(y)), q, p, *out)
            return float(np.log(np.mean(out[1] ** 2 + out[2])) - np.log(norm))

        return np.full_like(b, -np.exp(float(brentq(excess, -20.0, 40.0, xtol=1e-13))))

    def sweep(self, state: MessageState, damping: float = 0.0) -> MessageState:
        """One update of all populations."""
        m, v, logs, fields, widths = self.module.sweep(
            state.m, state.v, state.old, self.couplings, self.bias, self.quadratic, self.q, self.p, self.multiplier
        )
        if damping:
            m = {k: (1 - damping) * m[k] + damping * state.m[k] for k in m}
            v = {k: (1 - damping) * v[k] + damping * state.v[k] for k in v}
        return MessageState(m, v, state.m, logs, fields, widths)

    def change(self, new: MessageState, old: MessageState) -> float:
        """Root mean square difference of the means of the units."""
        apart = [new.m[k] - old.m[k] for k in self.states]
        return float(np.sqrt(sum(d @ d for d in apart) / sum(len(d) for d in apart)))

    def run(self, state: MessageState, sweeps: int = 500, damping: float = 0.0, tol: float = TOL) -> MessageRun:
        """Sweep until the means stay where they are.

        Returns
        -------
        MessageRun
            Also where nothing converged: `behaviour` says how the changes went on.
        """
        changes: list[float] = []
        for _ in range(sweeps):
            new = self.sweep(state, damping)
            changes.append(self.change(new, state))
            state = new
            if not np.isfinite(changes[-1]):
                return MessageRun(state, False, "diverged", len(changes), np.array(changes), np.inf)
            if changes[-1] < tol:
                break
        rate = contraction(np.array(changes))
        converged = changes[-1] < tol
        behaviour = "converged" if converged else "still contracting" if rate < 1 - 2 / WINDOW else "does not settle"
        return MessageRun(state, converged, behaviour, len(changes), np.array(changes), rate)

    def settles(self, rng: np.random.Generator, sweeps: int, damping: float = 0.0) -> bool:
        """Whether a run from a weak random start comes to rest.

        It is given up where the changes of the last quarter of its sweeps are no smaller than those of the quarter
        before (looked at when the number of sweeps has doubled).
        """
        state, logs, look = self.start(rng), np.empty(sweeps), LOOK
        for k in range(sweeps):
            new = self.sweep(state, damping)
            change, state = self.change(new, state), new
            if not (np.isfinite(change) and change > AT_REST):
                return bool(change <= AT_REST)
            logs[k] = np.log(change)
            if k + 1 == look:
                before, last = logs[look // 2 : look].reshape(2, -1).mean(axis=1)
                if last > before - 0.1:
                    return False
                look *= 2
        return False

    # -- what a fixed point says -----------------------------------------------------------------------------------
    def free_entropy(self, state: MessageState, N: int) -> float:
        """Bethe free entropy per unit of N, relative to the a priori measure; right at fixed points only."""
        overlap, width = self.program.entropy
        total = 0.0
        for site in self.program.sites:
            k = site.name
            m, v, b, V = state.m[k], state.v[k], state.fields[k], state.widths[k]
            edge = V - self.quadratic[k]
            if site.norm is not None:
                edge = self._edge_widths(state, k)
                total += float(np.sum(0.5 * (edge + self.quadratic[k] - V))) * site.norm
            total += float(np.sum(state.logs[k] + overlap * m * (b - self.bias[k]) + width * edge * v))
        return total / N

    def _edge_widths(self, state: MessageState, name: str) -> Array:
        """What the couplings add to V of a population (on a sphere the multiplier stands in its place)."""
        total = np.zeros(self.sizes[name])
        for (rows, cols), a in self.couplings.items():
            if name == rows:
                total += self.program.spread * a.rows(state.m[cols], state.v[cols])[1]
            elif name == cols:
                total += self.program.spread * a.columns(state.m[rows], state.v[rows])[1]
        return total

    def entropy(self, state: MessageState, N: int) -> float:
        """Free entropy plus ln of the number of states per unit of N, for measures that count states.

        Raises
        ------
        QuenchedError
            The measure does not count states.
        """
        states = [s for s in self.program.sites if s.kind == "state"]
        if any(s.weight is None for s in states):
            raise QuenchedError("this measure does not count states: its free entropy is relative to the prior")
        share = sum(s.weight * self.sizes[s.name] for s in states if s.weight is not None)
        return self.free_entropy(state, N) + share / N

    def growth(
        self,
        state: MessageState,
        rng: np.random.Generator,
        size: float = 1e-6,
        drop: int = 1,
        count: int = 4,
        damping: float = 0.0,
    ) -> float:
        """Geometric mean growth a sweep of the mean square difference of two copies that differ by small noise.

        The first `drop` sweeps are left out.

        Raises
        ------
        ConvergenceError
            The copies met within rounding, or left the linear regime.
        """
        other = replace(state, m={k: m + size * rng.standard_normal(m.shape) for k, m in state.m.items()})
        gaps = []
        for _ in range(drop + count + 1):
            state, other = self.sweep(state, damping), self.sweep(other, damping)
            gaps.append(self.change(state, other))
        if not 0 < gaps[-1] < 1e-2:
            raise ConvergenceError(f"the difference of two copies is {gaps[-1]:.1e} after {len(gaps)} sweeps", gaps)
        if gaps[-1] < 1e-13:
            short = [g for g in gaps[drop:] if g > 1e-12]
            return float((short[-1] / short[0]) ** (2 / (len(short) - 1)))
        return float((gaps[-1] / gaps[drop]) ** (2 / (len(gaps) - 1 - drop)))


def contraction(changes: Array) -> float:
    """Factor a sweep of the changes over the last sweeps: slope of their logarithm."""
    last = changes[-WINDOW:]
    last = last[last > 0]
    if len(last) < 4:
        return 0.0
    return float(np.exp(np.polyfit(np.arange(len(last)), np.log(last), 1)[0]))
