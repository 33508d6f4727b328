"""Where sampled units start: whether their law depends on it, and the order parameters of a declared start."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sympy import Symbol

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.problem import SampledUnit, SiteProcess

from .process_state import Orders, ProcessState, state_orders
from .trajectories import ProcessSampler
from .types import Array

#: Distance of the starts, and differences of means that count, in standard deviations of a unit and standard errors.
_FAR, _SEEN, _SURE = 2.0, 0.05, 5.0
#: Part of the sampled units that may end elsewhere by chance.
_FEW = 0.02
#: Correlation time of a first guess in which units stay where they start, in memory times of the bonds.
_LONG = 8.0


def start_dependence(process: SiteProcess, values: dict[Symbol, float], state: ProcessState) -> str:
    """How units still differ in the solved state if they start from either side, in words; empty if they do not.

    Both sides share fields and noise, and are compared on average over the lap after the first.
    """
    sampler = ProcessSampler(process, values, state.sampling)
    now = state_orders(state)
    if process.clock == "map" and _alternates(sampler, now, state):
        return (
            "the state whose correlations alternate in sign from step to step is stationary as well: how far units are "
            "in either depends on where they started"
        )
    return remembered_starts(sampler, now)


def have_a_choice(sampler: ProcessSampler, now: Orders) -> bool:
    """Whether more than a few of the sampled units end elsewhere, in the same field, where they start elsewhere."""
    for unit, size, sides in _from_either_side(sampler, now):
        if isinstance(sides, str):
            return True
        gap = np.abs((sides[0] - sides[1]).mean(axis=1)).max(axis=-1)
        if unit.states and np.mean(gap > _SEEN * size) > _FEW:
            return True
    return False


def remembered_starts(sampler: ProcessSampler, now: Orders) -> str:
    """How units differ in given fields after they start from either side, in words; empty if they do not."""
    for unit, size, sides in _from_either_side(sampler, now):
        if isinstance(sides, str):
            return sides
        gap = (sides[0] - sides[1]).mean(axis=1)  # of every path, averaged over the lap
        spread = (sides[0] ** 2 - sides[1] ** 2).mean(axis=1)
        for i, s in enumerate(unit.states):
            for what, moved, scale in ((s.name, gap[:, i], size), (f"{s.name}²", spread[:, i], size**2)):
                far, error = abs(float(moved.mean())), float(moved.std() / np.sqrt(len(moved)))
                if far > _SEEN * scale and far > _SURE * error:
                    return (
                        f"units remember where they started: ⟨{what}⟩ from far above and from far below differ by "
                        f"{far:.2g} after {sampler.how.steps * sampler.dt:.4g} units of time, so there are several "
                        "stationary states, or a memory longer than this"
                    )
    return ""


def _from_either_side(sampler: ProcessSampler, now: Orders) -> Iterator[tuple[SampledUnit, float, list[Array] | str]]:
    """Units, the size of their states, and their paths from far above and far below, or in words that they diverge."""
    for unit, module in zip(sampler.process.units, sampler.modules, strict=True):
        if not unit.states:
            continue
        size = max(float(np.sqrt(np.abs(now.covariance[s.name, s.name][0]))) for s in unit.states)
        sides: list[Array] | str = []
        for off in (_FAR * size, -_FAR * size):
            try:
                found = sampler.integrate(unit, module, now, np.random.default_rng((sampler.how.seed, 3)), [], off)
            except QuenchedError:
                sides = f"units that start {off:+.2g} away from the middle diverge: the state is reached from near only"
                break
            sides = [*sides, found[0]]
        yield unit, size, sides


def declared_moments(
    process: SiteProcess, values: dict[Symbol, float], seed: int = 0
) -> tuple[dict[tuple[str, str], float], float] | None:
    """Second moments of outputs and states at the declared start, and a time in which dynamic couplings forget it.

    What sweeps should begin with where the couplings start with a memory of the units' own start. None where the start
    is not a law of single units, or there are no dynamic couplings that forget.
    """
    from .path_march import Grid, March, _Batch

    try:
        batch = _Batch(process, values, Grid(0.1, 1, (0,)), March(), np.random.default_rng((seed, 2)))
    except NotCovered:
        return None
    rates = [abs(float(batch.numbers.put(rate))) for _, _, rate, *_ in process.bonds]
    if not rates or min(rates) == 0:
        return None
    moments: dict[tuple[str, str], float] = {}
    for unit in batch.units:
        series = dict(zip([s.name for s in unit.unit.states], unit.x, strict=True))
        series |= dict(zip(unit.names, unit.output(0), strict=True))
        moments |= {(a, b): float(np.mean(series[a] * series[b])) for a in series for b in series}
    return moments, _LONG / min(rates)


def _alternates(sampler: ProcessSampler, now: Orders, state: ProcessState) -> bool:
    """Whether (−1)^τ times all correlations and responses is another state of a map: a sweep leaves it as it is."""
    noise = 1 / np.sqrt(sampler.how.paths)
    read = {a for _, _, _, *pair in sampler.covariance for a in pair}
    rows = {k: c for k, c in now.covariance.items() if read.issuperset(k)}
    if any(abs(state.mean[a].value) > noise * np.sqrt(abs(now.covariance[a, a][0])) for a in read) or not rows:
        return False
    bound = 4 * noise * max(float(np.abs(c[0])) for c in rows.values())
    other = now.alternating()
    apart = lambda orders: max(float(np.abs(orders.covariance[k] - other.covariance[k]).max()) for k in rows)  # noqa: E731
    return apart(now) > bound and apart(sampler.sweep(other, np.random.default_rng((sampler.how.seed, 4)))) < bound
