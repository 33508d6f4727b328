"""How thermal averages of one realisation are obtained: all states, Gaussian algebra, or Monte Carlo.

Every route returns the values of the nodes (see `gibbs_observables.Node`) that it can give; what it cannot give is NaN
and named by the caller before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.exact_counts import ln_count
from quenched.validate.gibbs_observables import Node
from quenched.validate.gibbs_program import GibbsProgram
from quenched.validate.gibbs_starts import start
from quenched.validate.gibbs_symmetry import mirrored
from quenched.validate.gibbs_system import Chain, State, System, every_state, quadratic_part

Array = NDArray[np.float64]

#: States of all units that enumeration takes.
MOST_STATES = 2**24
#: Sweeps between two measurements.
STRIDE = 4


@dataclass(frozen=True)
class Schedule:
    """Length of a Monte Carlo run.

    Attributes
    ----------
    sweeps, burn : measured and left out, per replica
    temperatures : number of tempered chains (1: none)
    scale : factor of the exponent, infinite at zero temperature
    """

    sweeps: int
    burn: int
    temperatures: int = 1
    scale: float = 1.0


def factors_of(nodes: Sequence[Node]) -> list[str]:
    """The array functions whose thermal averages the nodes need."""
    return list(dict.fromkeys(f for node in nodes for product in node.products for f in product.factors))


def assemble(system: System, nodes: Sequence[Node], averages: Sequence[dict[str, Array]]) -> Array:
    """Values of the nodes from thermal averages of the factors, one table a replica (the same for exact averages)."""
    out = np.full(len(nodes), np.nan)
    for k, node in enumerate(nodes):
        if node.products:
            out[k] = sum(_product(system, p, averages) for p in node.products)
    return out


def _product(system: System, product: Any, averages: Sequence[dict[str, Array]]) -> float:
    size = system.sizes[product.population]
    choices = len(averages)
    if product.copies and choices > 1:  # copies with starts of their own: the k-th is every n-th replica
        return _of_copies(product, averages, max(len(f.starts) for f in system.program.fields))
    if len(product.factors) == 1 or choices == 1:  # one copy: average over all replicas
        tables = [averages[r] for r in range(choices)]
        total = 0.0
        for table in tables:
            value = np.ones(size)
            for name in product.factors:
                value = value * table[name]
            total += float(np.mean(value)) / choices
        return total
    value = np.ones(size)
    for r, name in enumerate(product.factors):
        value = value * averages[r % choices][name]
    return float(np.mean(value))


def _of_copies(product: Any, averages: Sequence[dict[str, Array]], n: int) -> float:
    """Mean over units of a product of averages of different copies, over all sets of replicas that stand for them."""
    means = [
        np.mean([averages[r][name] for r in range(copy, len(averages), n)], axis=0)
        for name, copy in zip(product.factors, product.copies, strict=True)
    ]
    return float(np.mean(np.prod(means, axis=0)))


def glassy(system: System, nodes: Sequence[Node]) -> dict[int, slice]:
    """Nodes that are spin-glass susceptibilities, with the units that they are of."""
    of = {f.name: cut for f, cut in zip(system.program.fields, system.slices, strict=True)}
    return {k: of[n.parameter] for k, n in enumerate(nodes) if n.functional == "SpinGlassSusceptibility"}


class NoState(Exception):
    """No state of a realisation has positive weight."""


# -- all states ----------------------------------------------------------------------------------------------------
def enumerated(system: System, nodes: Sequence[Node]) -> Array:
    """Exact averages over all states of units with finitely many values.

    Raises
    ------
    QuenchedError
        Too many states.
    NoState
        None has positive weight.
    """
    chain = Chain(system)
    wanted = [node.functional for node in nodes if node.functional or node.products]
    counted = ln_count(chain, MOST_STATES) if set(wanted) <= {"Entropy", "FreeEntropy"} else None
    if counted is not None:
        return _of_count(system, nodes, *counted)
    sums = _Sums(system, factors_of(nodes), glassy(system, nodes))
    every_state(chain, sums.visit, MOST_STATES)
    if sums.top == -np.inf:
        raise NoState
    averages = {name: total / sums.z for name, total in sums.totals.items()}
    out = assemble(system, nodes, [averages])
    for k, cut in sums.pairs.items():
        c = sums.squares[k] / sums.z - np.outer(sums.states / sums.z, sums.states / sums.z)[cut, cut]
        out[k] = np.sum(c**2) / len(c)
    log_z = sums.top + np.log(sums.z)
    named = {
        "FreeEntropy": log_z,
        # −Σ P ln P with P = prior·weight/Z, for a uniform prior
        "Entropy": log_z - sums.exponent / sums.z,
    }
    for k, node in enumerate(nodes):
        if node.functional in named:
            out[k] = named[node.functional] / system.place[1]
    return out


def _of_count(system: System, nodes: Sequence[Node], ln: float, prior: float) -> Array:
    """The same of states that meet constraints, from their number."""
    if ln == -np.inf:
        raise NoState
    named = {"Entropy": ln, "FreeEntropy": ln + prior}
    return np.array([named[n.functional] / system.place[1] if n.functional in named else np.nan for n in nodes])


class _Sums:
    """Weighted sums over states, rescaled when a larger weight appears."""

    def __init__(self, system: System, names: list[str], pairs: dict[int, slice]) -> None:
        self.system, self.names, self.pairs = system, names, pairs
        self.states: Any = 0.0
        self.squares: dict[int, Any] = dict.fromkeys(pairs, 0.0)
        self.top, self.z, self.exponent = -np.inf, 0.0, 0.0
        self.totals: dict[str, Any] = dict.fromkeys(names, 0.0)

    def visit(self, exponents: Array, states: Array) -> None:
        keep = exponents > max(self.top, float(exponents.max())) - 60.0
        if not np.any(keep):
            return
        exponents, states = exponents[keep], states[keep]
        top = max(self.top, float(exponents.max()))
        shrink = np.exp(self.top - top) if self.top > -np.inf else 0.0
        w = np.exp(exponents - top)
        self.z = self.z * shrink + w.sum()
        self.exponent = self.exponent * shrink + float(w @ exponents)
        if self.pairs:
            self.states = self.states * shrink + w @ states
        for k, cut in self.pairs.items():
            self.squares[k] = self.squares[k] * shrink + (states[:, cut].T * w) @ states[:, cut]
        for name in self.names:
            values = self.system.call(name, states)
            new = w @ values if values.ndim > 1 else w.sum() * values
            self.totals[name] = self.totals[name] * shrink + new
        self.top = top


# -- Gaussian states -----------------------------------------------------------------------------------------------
def gaussian(system: System, nodes: Sequence[Node], cold: bool) -> Array:
    """Exact averages of a measure whose exponent is quadratic: linear algebra (`cold`: of its maximum alone).

    Functions of one state are averaged to second order in its deviations, which is exact up to squares.

    Raises
    ------
    QuenchedError
        The measure is not normalisable.
    """
    precision, slope, log_norm = quadratic_form(system)
    try:
        factor = np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        raise QuenchedError("the Gaussian measure is not normalisable: its quadratic form is not positive") from None
    mean = np.linalg.solve(precision, slope)
    root: Array = np.zeros_like(factor) if cold else np.linalg.inv(factor).T  # covariance = root rootᵀ
    averages = {name: _second_order(system, name, mean, root) for name in factors_of(nodes)}
    out = assemble(system, nodes, [averages])
    log_z = log_norm + 0.5 * slope @ mean - np.log(np.diag(factor)).sum() + 0.5 * len(mean) * np.log(2 * np.pi)
    for k, cut in glassy(system, nodes).items():
        out[k] = np.sum((root[cut] @ root[cut].T) ** 2) / (cut.stop - cut.start)
    for k, node in enumerate(nodes):
        if node.functional == "FreeEntropy":
            out[k] = log_z / system.place[1]
    return out


def quadratic_form(system: System) -> tuple[Array, Array, float]:
    """(Λ, b, c) with exponent = c + b·x − ½ x·Λx, normalised priors included."""
    part = quadratic_part(system, system.units)
    precision = np.diag(-part.diagonal) - (part.pairs if part.pairs.size else 0.0)
    slope, constant = part.linear, part.constant
    for f, cut in zip(system.program.fields, system.slices, strict=True):
        if f.normal and f.normal[0]:
            size, index = cut.stop - cut.start, np.arange(cut.start, cut.stop)
            mean, variance = map(system.number, f.normal)
            slope[cut] += mean / variance
            precision[index, index] += 1 / variance
            constant -= 0.5 * size * (mean**2 / variance + np.log(2 * np.pi * variance))
    return precision, slope, constant


def _second_order(system: System, name: str, mean: Any, root: Any) -> Array:
    """E f(x) = f(mean) + ½ Σ_k f″ along the columns of the root of the covariance."""
    at = system.call(name, mean)
    if not root.any():
        return at
    up, down = system.call(name, mean + root.T), system.call(name, mean - root.T)
    if up.ndim <= 1:
        return at
    return at + 0.5 * np.sum(up + down - 2 * at, axis=0)


# -- Monte Carlo ---------------------------------------------------------------------------------------------------
@dataclass
class Sampled:
    """Node values, and how far two replicas with different starts are apart.

    Attributes
    ----------
    values : array (nodes,)
    gap : what vanishes in equilibrium: the overlap of early and late states within a replica minus that between
        replicas; then of even replicas minus odd ones, and of early times minus late ones, the exponent per unit, what
        is observed of one state, and the first two moments of each field
    departure : how far the most changed of its states moved (see `departures`)
    side : overlap of early and late states within a replica, where the measure does not change with the state's sign
    """

    values: Array
    gap: Array
    departure: float
    side: float = 0.0


def sampled(system: System, nodes: Sequence[Node], laws: tuple[Any, ...], schedule: Schedule, copies: int) -> Sampled:
    """Monte Carlo averages over replicas with one disorder.

    Where no initial state is declared, the even replicas start from the prior and the odd ones from a descent to a
    nearby maximum of the weight, so that their difference shows whether the run was long enough.
    """
    chain = Chain(system)
    names, pairs = factors_of(nodes), glassy(system, nodes)
    runs = []
    groups = max(len(f.starts) for f in system.program.fields) or 1
    for replica in range(copies * groups):
        rng = system.stream(f"replica {replica}")
        runs.append(_run(system, start(chain, rng, laws, replica), rng, laws, schedule, names, bool(pairs)))
    even = mirrored(chain, runs[0].last)
    gap = np.mean([_gap(system, runs[k::groups], even) for k in range(groups)], axis=0)
    values = assemble(system, nodes, [r.averages for r in runs])
    for k, cut in pairs.items():
        values[k] = np.mean([_glass(a, b, cut) for a, b in combinations(runs[::groups], 2)])
    side = float(np.mean([r.states[0] @ r.states[1] for r in runs])) / system.units if even else 0.0
    return Sampled(values, gap, max(_departure(runs[k::groups]) for k in range(groups)), side)


@dataclass
class ReplicaRun:
    """Thermal averages of one replica; what should not change, and mean states, of early and of late times; states
    where asked for; the last one."""

    averages: dict[str, Array]
    steady: Array
    states: Array
    samples: NDArray[np.float32]
    last: Array


def _glass(a: ReplicaRun, b: ReplicaRun, cut: slice) -> float:
    """(1/N) Σ_ij c_ij c′_ij with the connected correlations of two independent runs."""
    x, y = (r.samples[:, cut] - r.samples[:, cut].mean(0) for r in (a, b))
    return float(np.sum((x @ y.T).astype(float) ** 2) / ((len(x) - 1) * (len(y) - 1) * x.shape[1]))


def _gap(system: System, runs: list[ReplicaRun], even: bool) -> Array:
    """See `Sampled`; overlaps are squared where their sign has no meaning."""
    steady = np.array([r.steady for r in runs])
    early, late = (np.array([r.states[k] for r in runs]) for k in (0, 1))
    overlaps = early @ late.T / system.units
    overlaps = overlaps**2 if even else overlaps
    apart = ~np.eye(len(runs), dtype=bool)
    starts, times = steady[::2].mean((0, 1)) - steady[1::2].mean((0, 1)), (steady[:, 0] - steady[:, 1]).mean(0)
    gap = [np.diag(overlaps).mean() - overlaps[apart].mean(), *np.stack([starts, times], axis=1).ravel()]
    return np.round(gap, 12)  # what a prior fixes differs by rounding


def _departure(runs: list[ReplicaRun]) -> float:
    """Largest minus smallest overlap of different mean states, early or late, of replicas with one start."""
    states = np.concatenate([r.states for r in runs])
    overlaps = states @ states.T
    apart = overlaps[~np.eye(len(states), dtype=bool)]
    square = float(np.diag(overlaps).mean())
    return float(np.ptp(apart)) / square if square else 0.0


def gaps(program: GibbsProgram, factors: Sequence[str]) -> int:
    """How many numbers tell whether replicas are in equilibrium."""
    return 1 + 2 * (1 + len(factors) + 2 * len(program.fields))


def _steady(system: System, state: State, values: Sequence[Array]) -> Array:
    """The exponent per unit, observed functions of a state, and the first two moments of each field."""
    fields = [state.x[cut] for cut in system.slices]
    moments = [m for x in fields for m in (x.mean(), (x**2).mean())]
    return np.array([state.exponent / system.place[1], *(float(np.mean(v)) for v in values), *moments])


def _run(
    system: System,
    state: State,
    rng: np.random.Generator,
    laws: tuple[Any, ...],
    schedule: Schedule,
    names: list[str],
    keep: bool = False,
) -> ReplicaRun:
    """One replica; early and late times are the first and the last two fifths."""
    ladder = _Ladder(state, schedule)
    for k in range(10):
        ladder.advance(max(1, schedule.burn // 10), rng, laws)
        if k < 8:
            ladder.adapt()
    count = max(5, schedule.sweeps // STRIDE)
    totals: dict[str, Any] = dict.fromkeys(names, 0.0)
    steady, states, part = np.zeros((2, gaps(system.program, names) // 2)), np.zeros((2, system.units)), 2 * count // 5
    samples = np.zeros((count if keep else 0, system.units), np.float32)
    for k in range(count):
        ladder.advance(STRIDE, rng, laws)
        if keep:
            samples[k] = ladder.cold.x
        values = [system.call(name, ladder.cold.x) for name in names]
        for name, value in zip(names, values, strict=True):
            totals[name] = totals[name] + value
        when = 0 if k < part else 1 if k >= count - part else None
        if when is not None:
            steady[when] += _steady(system, ladder.cold, values) / part
            states[when] += ladder.cold.x / part
    averages = {name: np.asarray(total) / count for name, total in totals.items()}
    return ReplicaRun(averages, steady, states, samples, ladder.cold.x)


class _Ladder:
    """Chains at decreasing multiples of the exponent that exchange their states; the first is the measured one."""

    def __init__(self, state: State, schedule: Schedule) -> None:
        steps = schedule.temperatures
        self.scales = [schedule.scale * 0.25 ** (k / max(steps - 1, 1)) for k in range(steps)]
        self.states = [state, *(State(state.chain, state.x) for _ in range(steps - 1))]

    @property
    def cold(self) -> State:
        return self.states[0]

    def advance(self, count: int, rng: np.random.Generator, laws: tuple[Any, ...]) -> None:
        for state, scale in zip(self.states, self.scales, strict=True):
            state.sweep(count, rng, scale, laws)
        for k in range(len(self.states) - 1):
            a, b = self.states[k], self.states[k + 1]
            ratio = (self.scales[k] - self.scales[k + 1]) * (b.exponent - a.exponent)
            if np.log(rng.random()) < ratio:
                self.states[k], self.states[k + 1] = b, a
                a.width, b.width = b.width, a.width
                a.reach, b.reach = b.reach, a.reach

    def adapt(self) -> None:
        for state in self.states:
            state.adapt()
