"""All branches of a stationary problem at given parameters, and which of them the dynamics reaches."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from sympy import Symbol

from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem import PotentialProblem, StationaryGaussian

from .assemble import Wave, fixed_branch, wave_branch
from .averages import Averages
from .closing import at_numbers, is_open, solve_closing
from .fixedpoints import fixed_points
from .growth_means import Numbers, rate_of_means
from .orbit import Orbit, TurnsBackError, growth, orbit
from .potential import Particle, State, states
from .spectral import Guess, spectral_branches
from .timegrid import flow_grid
from .types import Array, Branch, Number, RawSolution

_EPS = float(np.finfo(float).eps)


def solve(
    problem: StationaryGaussian,
    potential: PotentialProblem | None,
    values: dict[Symbol, float],
    *,
    lags: Array | None = None,
    tol: float = 1e-10,
    rates: bool = True,
) -> RawSolution:
    """Every stationary state of a problem, labelled, with the stability of each.

    Parameters
    ----------
    problem : StationaryGaussian
    potential : PotentialProblem or None
        Its reduction to a conservative particle, where there is one: faster and more accurate.
    values : dict Symbol → float
        A value for every parameter.
    lags : array (n_tau,), optional
        Where covariances are reported (time units of the flow, steps of the map).
    tol : float
        Relative accuracy that the spectral route aims at.
    rates : bool
        Whether growth rates of states with a potential are needed; else they are unknown (0 ± ∞), in half the time.

    Returns
    -------
    RawSolution
        `main` is the state that the dynamics reaches: a fixed point only where it is stable in the network.

    Raises
    ------
    QuenchedError
        Missing parameter value, unstable linear part, or a state that diverges.
    ConvergenceError
        A state that cannot be told from its neighbours at double precision, or a solver that did not converge.
    """
    return solve_from(problem, potential, values, lags=lags, tol=tol, rates=rates)[0]


def solve_from(
    problem: StationaryGaussian,
    potential: PotentialProblem | None,
    values: dict[Symbol, float],
    *,
    lags: Array | None = None,
    tol: float = 1e-10,
    warm: Guess | None = None,
    rates: bool = True,
    numbers: Numbers | None = None,
) -> tuple[RawSolution, Guess | None]:
    """`solve` with a guess of the spectral route from neighbouring parameters, and the guess for the next ones.

    `numbers` are those among the values that the state determines.
    """
    if is_open(problem, values):

        def inner(p: StationaryGaussian, q: PotentialProblem | None, at: dict[Symbol, float]) -> RawSolution:
            return solve(p, q, at, tol=tol, rates=False)

        def final(
            p: StationaryGaussian, q: PotentialProblem | None, at: dict[Symbol, float], numbers: Numbers | None
        ) -> RawSolution:
            moving = numbers is not None
            return solve_from(p, q, at, lags=lags, tol=tol, rates=rates and moving, numbers=numbers)[0]

        return solve_closing(problem, potential, values, inner, final), None
    if problem.closing:
        problem, potential = at_numbers(problem, potential)
    averages = Averages(problem, potential, values)
    averages.edge()
    lags = None if lags is None else np.asarray(lags, dtype=float)
    branches = [fixed_branch(averages, point, "", lags) for point in fixed_points(averages)]
    guess = None
    if potential is not None:
        hints = [float(b.variance[0]) for b in branches if b.kind == "static"]
        branches += _potential_branches(averages, lags, hints, rates, numbers)
    else:
        moving, guess = spectral_branches(averages, lags, tol, branches, warm, numbers)
        branches += moving
    if not branches:
        raise ConvergenceError("no stationary state was found")
    branches = _labelled(branches)
    return RawSolution(tuple(branches), _main(branches)), guess


def with_means(averages: Averages, wave: Wave, rate: Number, numbers: Numbers | None) -> Number:
    """The growth rate of random modes, or that of modes of the means and numbers of a driven state if it is larger."""
    other = rate_of_means(averages, wave, numbers, rate) if averages.noisy() else None
    return rate if other is None else other


def _potential_branches(
    averages: Averages, lags: Array | None, hints: list[float], rates: bool, numbers: Numbers | None
) -> list[Branch]:
    particle = Particle(averages)
    found, failure = [], None
    for state in states(particle, hints):
        try:
            path, energy = orbit(particle, state)
        except TurnsBackError:
            continue
        except ConvergenceError as error:
            failure = error
            continue
        wave = potential_wave(averages, state, path)
        rate = growth(particle, path, energy) if rates else Number(0.0, np.inf)
        found.append(
            wave_branch(
                averages,
                wave,
                label="",
                kind="noisy" if particle.kick else "dynamic",
                stable=state.stable,
                growth=with_means(averages, wave, rate, numbers) if rates else rate,
                lags=lags,
                iterations=state.iterations,
                method="potential",
            )
        )
    if failure is not None and not found:
        raise failure
    return found


def potential_wave(averages: Averages, state: State, path: Orbit) -> Wave:
    """The orbit on a time grid."""
    slow = min(path.rate, abs(averages.edge()))
    grid = flow_grid(slow, abs(averages.edge()), 34 / path.rate)
    excess = path(grid.tau) - state.limit
    amplitude = state.variance - state.limit
    error = path.error * amplitude * 4 + state.variance_error + state.limit_error
    return Wave(
        grid=grid,
        mean=np.array([state.mean]),
        mean_error=np.array([state.mean_error]),
        static=np.array([state.limit]),
        static_error=np.array([state.limit_error]),
        decaying=[(excess, excess)],
        origin=np.array([amplitude]),
        error=np.array([error]),
        variance_error=np.array([state.variance_error]),
        at=lambda p, tau: path(tau) - state.limit,
    )


def _labelled(branches: list[Branch]) -> list[Branch]:
    """Labels: the kind, numbered in order of falling variance where there are several."""
    counts, seen = Counter(b.kind for b in branches), Counter[str]()
    ordered = sorted(branches, key=lambda b: (-float(b.variance[0]), -float(b.mean[0])))
    out = []
    for b in ordered:
        seen[b.kind] += 1
        out.append(replace(b, label=b.kind if counts[b.kind] == 1 else f"{b.kind} {seen[b.kind]}"))
    return out


def _main(branches: list[Branch]) -> int:
    """A stable fixed point if there is one, else the fluctuating state; of equals the one with the largest mean."""
    fixed = [i for i, b in enumerate(branches) if b.kind in ("trivial", "static")]
    moving = [i for i in range(len(branches)) if i not in fixed]
    stable = [i for i in fixed if branches[i].stable]
    chosen = stable or [i for i in moving if branches[i].stable] or moving
    if not chosen:
        nearest_zero = min(fixed, key=lambda i: abs(branches[i].growth.value))
        rate = branches[nearest_zero].growth
        if abs(rate.value) <= 10 * rate.error:
            return nearest_zero
        if abs(rate.value) < 1e-4:
            raise ConvergenceError(
                f"too close to the transition (rate {rate.value:.1e}) to resolve the state beyond it"
            )
        raise QuenchedError("every fixed point is unstable and no fluctuating state was found: the state may diverge")
    return max(chosen, key=lambda i: (round(float(branches[i].mean[0]), 9), float(branches[i].variance[0])))
