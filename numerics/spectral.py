"""Time-dependent states of any Gaussian closure: Newton's method on a time grid, reached through noise.

Additional white noise on the site functions, strong enough, leaves one solution: it is followed down to none. A state
that vanishes with the noise is no state of its own (the trivial or a static one takes over); a Newton step that loses
the state is refused and the noise lowered more slowly, so that nothing falls silently to a fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from quenched.theory.errors import ConvergenceError, QuenchedError

from .assemble import Wave, source_tables, wave_branch
from .averages import Averages
from .delays import lags_of, modes, with_kinks
from .fixedpoints import static_roots
from .growth import growth_rate
from .growth_means import Numbers, rate_of_means
from .means import followed_mean
from .stability import TINY, oscillating_mean, variances
from .system import System
from .timegrid import FlowGrid, MapGrid, flow_grid
from .types import Array, Branch

_LONGEST_MAP = 1500
#: Elements beyond which a state is accepted as it is, with the error that this leaves.
_MANY = 60


@dataclass
class Guess:
    """A state on some grid, to start from."""

    grid: FlowGrid | MapGrid
    decaying: list[tuple[Array, Array]]
    static: Array
    mean: Array

    def on(self, system: System) -> Array:
        """The stacked vector on the grid of a system."""
        tau = system.grid.tau
        parts = []
        for p, (plus, minus) in enumerate(self.decaying):
            a, b = self.grid.interpolate(plus, tau), self.grid.interpolate(minus, tau)
            parts.append(a if system.kernels.even[p] else system.grid.full(a, b))
        return system.pack(parts, self.static, self.mean)


def spectral_branches(
    averages: Averages,
    lags: Array | None,
    tol: float,
    fixed: list[Branch],
    warm: Guess | None = None,
    numbers: Numbers | None = None,
) -> tuple[list[Branch], Guess | None]:
    """Time-dependent branches, each with its growth rate, and the first of them as a guess for near parameters."""
    noisy = averages.noisy()
    if not noisy and fixed and all(b.stable for b in fixed):
        return [], None
    branches: list[Branch] = []
    kept = None
    for solver, guess in _starts(averages, fixed, warm):
        answer = solver.finish(guess, tol)
        if answer is None:
            continue
        wave, iterations = answer
        kept = kept or Guess(wave.grid, wave.decaying, wave.static, wave.mean)
        if any(_same(wave, b) for b in branches):
            continue
        growth = growth_rate(averages, wave, source_tables(averages, wave))
        growth = (rate_of_means(averages, wave, numbers, growth) if noisy else None) or growth
        branches.append(
            wave_branch(
                averages,
                wave,
                label="",
                kind="noisy" if noisy else "dynamic",
                stable=solver.stable,
                growth=growth,
                lags=lags,
                iterations=iterations,
                method="spectral",
            )
        )
    if not branches and not any(b.stable for b in fixed) and not any(abs(b.growth.value) < 1e-6 for b in fixed):
        raise ConvergenceError("the time-dependent state was lost on the way from strong noise", ())
    return branches, kept


def _same(wave: Wave, branch: Branch) -> bool:
    scale = np.sqrt(np.max(branch.variance)) + 1e-300
    return bool(np.max(np.abs(wave.mean - branch.mean)) < 1e-5 * scale)


def _starts(averages: Averages, fixed: list[Branch], warm: Guess | None) -> list[tuple[Solver, Guess]]:
    """The state followed from strong noise (or the given one), and one for every other unstable fixed point's mean."""
    solver = Solver(averages)
    starts = []
    guess = solver.from_near(warm) if warm is not None else None
    if guess is None:
        guess = solver.from_noise()
    if guess is not None:
        starts.append((solver, guess))
    if averages.noisy():
        rest = static_roots(averages) if np.any(averages.mean_gain()) else []
    else:
        rest = [
            (b.mean, np.array(list(b.static.values())), 0.0, 0) for b in fixed if not b.stable and b.kind == "static"
        ]
    for mean, covariance, _, _ in rest:
        known = [g.mean for _, g in starts]
        spread = np.sqrt(np.max(covariance)) + 1e-9
        if all(np.max(np.abs(mean - m)) > 0.05 * spread for m in known):
            other = solver.from_fixed(mean, covariance[: averages.problem.closure])
            if other is not None and all(np.max(np.abs(other.mean - m)) > 1e-5 * spread for m in known):
                starts.append((solver, other))
    return starts


class Solver:
    """Newton's method with homotopy in noise for one problem at given parameters."""

    def __init__(self, averages: Averages) -> None:
        self.averages = averages
        self.iterations = 0
        self.history: list[float] = []
        self.stable = True
        self.grid = self._first_grid()

    def _first_grid(self) -> FlowGrid | MapGrid:
        slow = abs(self.averages.edge())
        if self.averages.problem.clock == "map":
            return MapGrid(int(np.clip(30 / min(slow, 1.0), 24, _LONGEST_MAP)))
        code, p = self.averages.code, self.averages.p[0]
        poles = [modes(c) for c in code.gain_poles(0.371 + 0.913j, p)]
        fast = float(np.max(np.abs(np.concatenate(poles))))
        lags = lags_of([r for row in code.gain_rational(0.0, p) for r in row])
        fast = min(fast, 4 * slow + 4 / float(lags[0])) if len(lags) else fast
        return with_kinks(flow_grid(slow, fast), lags)

    # -- Newton

    def newton(self, system: System, x: Array, tol: float = 1e-11, steps: int = 25) -> Array | None:
        """Damped Newton; None where it stalls or the state collapses."""
        scale = self._scale(system, x)
        start = self._size(system, x)
        for _ in range(steps):
            try:
                here, jacobian = system.newton(x)
            except (QuenchedError, FloatingPointError):
                return None
            norm = float(np.max(np.abs(here / scale)))
            self.iterations += 1
            self.history.append(norm)
            if norm < tol:
                return x
            step = lu_solve(lu_factor(jacobian), here)
            damping, moved = 1.0, False
            while damping > 1e-3:
                new = x - damping * step
                if self._admissible(system, new) and self._size(system, new) > 0.3 * self._size(system, x):
                    after = float(np.max(np.abs(system.residual(new) / scale)))
                    if after < (1 - 0.1 * damping) * norm or after < tol:
                        moved = True
                        break
                damping /= 2
            if not moved:
                return x if norm < 30 * tol else None
            x = new
            if self._size(system, x) < 1e-3 * start:
                return None
        return None

    def _scale(self, system: System, x: Array) -> Array:
        v = float(np.max(system.variance(system.unpack(x))))
        scale = np.full(system.size, v)
        scale[system.blocks[-1]] = np.sqrt(v)
        return scale

    def _admissible(self, system: System, x: Array) -> bool:
        u = system.unpack(x)
        v = system.variance(u)
        used = [a for a, b in system.pairs if a == b]
        return bool(np.all(np.isfinite(x))) and all(
            v[a] > 0 and v[a] >= u.static[system.pairs.index((a, a))] for a in used
        )

    def _size(self, system: System, x: Array) -> float:
        """Largest equal-time value of the decaying parts."""
        u = system.unpack(x)
        return max(float(system.origin(p) @ u.decaying[p]) for p in range(len(system.pairs)))

    # -- starts

    def from_noise(self) -> Guess | None:
        """Follow the state from strong additional noise to none; None if it vanishes with the noise."""
        system = System(self.averages, self.grid)
        unit = max(float(system.origin(p) @ system.shake[p]) for p in range(len(system.pairs)))
        if unit <= 0:
            raise ConvergenceError("no site function feeds back: there is nothing to iterate")
        scale = self._variance_scale(system)
        real = max(float(system.origin(p) @ system.noise[p]) for p in range(len(system.pairs)))
        extra = 3 * scale / unit
        system.extra, system.tol = extra, 1e-8
        x = self._certain(system, self._picard(system), 1e-7, steps=40)
        factor = 0.3
        while True:
            if extra * unit < 1e-3 * max(real, 1e-5 * scale):
                break
            attempt = extra * factor
            system.extra = attempt
            new = self.newton(system, x, tol=1e-7)
            if new is None:
                factor = np.sqrt(factor)
                if factor > 0.98:
                    raise ConvergenceError("the state was lost while the additional noise was lowered", self.history)
                continue
            x, extra = new, attempt
            factor = max(factor**1.5, 0.15)
            if real == 0 and self._size(system, x) < 30 * extra * unit and extra * unit < 1e-4 * scale:
                return None
            system, x = self._keep_window(system, x)
            jump = self._without_extra(system, x) if extra * unit < 0.01 * self._size(system, x) else None
            if jump is not None:
                return self._guess(system, jump)
        system.extra = 0.0
        final = self.newton(system, x, tol=1e-8)
        if final is None:
            if real == 0 and self._size(system, x) < 1e-3 * scale:
                return None
            raise ConvergenceError("the state was lost when the additional noise was switched off", self.history)
        return self._guess(system, final)

    def _without_extra(self, system: System, x: Array) -> Array | None:
        """The state without additional noise, if it is close to the one with a little of it."""
        extra, system.extra = system.extra, 0.0
        new = self.newton(system, x, tol=1e-8, steps=8)
        system.extra = extra
        near = new is not None and abs(self._size(system, new) / self._size(system, x) - 1) < 0.1
        return new if near else None

    def _certain(self, system: System, x: Array, tol: float, steps: int = 25) -> Array:
        """`newton`, or ConvergenceError."""
        answer = self.newton(system, x, tol=tol, steps=steps)
        if answer is None:
            raise ConvergenceError("Newton's method did not converge to a time-dependent state", self.history)
        return answer

    def _variance_scale(self, system: System) -> float:
        """Largest variance that the couplings can feed back; QuenchedError where it grows without bound."""
        averages = self.averages
        problem = averages.problem
        n = len(problem.arguments)
        refuse_divergence(averages)
        v, peak = np.ones(n), averages.peak_gain()
        noise = variance_of_noise(system)
        mean = averages.mean_constant()
        for _ in range(200):
            mean = followed_mean(averages, v, mean)
            two = np.array(
                [
                    averages.pair_average(s, mean[t.a], mean[t.b], v[t.a], v[t.b], np.sqrt(v[t.a] * v[t.b]))
                    for s, t in enumerate(problem.two_points)
                ]
            )
            q = (peak @ two + averages.static())[: problem.closure]
            new = np.maximum(variances(averages, q) + noise, TINY)
            if np.max(new) > 1e8:
                raise QuenchedError(
                    "the state diverges: the couplings return more variance than they get, however large it is"
                )
            if np.max(np.abs(new - v)) < 1e-3 * np.max(new):
                break
            v = new
        return float(np.max(v)) + 1e-3 * float(np.max(np.abs(noise)))

    def _picard(self, system: System) -> Array:
        """A few plain iterations from the response to noise alone."""
        decaying = [system.noise[p] + system.extra * system.shake[p] for p in range(len(system.pairs))]
        x = system.pack(decaying, system.averages.static()[: len(system.pairs)], system.averages.mean_constant())
        for _ in range(12):
            x = x - 0.7 * system.residual(x)
        return x

    def from_near(self, guess: Guess) -> Guess | None:
        """Newton from the state at neighbouring parameters; None if that does not work at once."""
        system = System(self.averages, _coarser(guess.grid))
        system.tol = 1e-8
        x = self.newton(system, guess.on(system), tol=1e-8, steps=12)
        return None if x is None else self._guess(system, x)

    def from_fixed(self, mean: Array, rest: Array) -> Guess | None:
        """Newton from a decaying version of a static state; None if it finds nothing that moves."""
        system = System(self.averages, self.grid)
        system.tol = 1e-8
        slow = abs(self.averages.edge())
        shape = np.exp(-0.3 * slow * system.grid.tau)
        noisy = self.averages.noisy()
        for share in (0.0, 0.3, 0.6, 0.9) if noisy else (0.3, 0.6, 0.9):
            parts = []
            for p, noise in enumerate(system.noise):
                half = share * rest[p] * shape
                parts.append((half if system.kernels.even[p] else system.grid.full(half, half)) + noise)
            x = self.newton(system, system.pack(parts, (1 - share) * rest, mean.copy()), tol=1e-8)
            if x is not None and (noisy or self._size(system, x) > 1e-4 * np.max(np.abs(rest))):
                return self._guess(system, x)
        return None

    def _guess(self, system: System, x: Array) -> Guess:
        u = system.unpack(x)
        halves = [system.halves(p, c.copy()) for p, c in enumerate(u.decaying)]
        return Guess(system.grid, halves, u.static.copy(), u.mean.copy())

    # -- grids

    def _keep_window(self, system: System, x: Array) -> tuple[System, Array]:
        """A longer window while the covariance has not decayed at its end."""
        u = system.unpack(x)
        tail = max(float(np.max(np.abs(np.stack(system.halves(p, c))[:, -6:]))) for p, c in enumerate(u.decaying))
        if tail < 1e-5 * self._size(system, x):
            return system, x
        extra = system.extra
        guess = self._guess(system, x)
        self.grid = _longer(system.grid, 1.5)
        longer = System(self.averages, self.grid)
        longer.extra, longer.tol = extra, system.tol
        return longer, guess.on(longer)

    def finish(self, guess: Guess, tol: float) -> tuple[Wave, int] | None:
        """Adapt the grid to a state, then solve on two grids: their difference is the error."""
        grid = guess.grid
        for _ in range(12):
            system = System(self.averages, grid)
            x = self._certain(system, guess.on(system), 1e-11)
            guess = self._guess(system, x)
            better = _adapted(guess, self._size(system, x), max(tol, 1e-11))
            if better is None:
                break
            grid = better
        if self._size(system, x) < 1e-9 * float(np.max(system.variance(system.unpack(x)))):
            return None
        fine = System(self.averages, _finer(guess, self._size(system, x)))
        y = self._certain(fine, guess.on(fine), 1e-12)
        u = system.unpack(x)
        v = np.maximum(system.variance(u), TINY)
        self.stable = self._mean_stable(system, x) and oscillating_mean(self.averages, u.mean, v) is None
        return self._wave(system, x, fine, y), self.iterations

    def _mean_stable(self, system: System, x: Array) -> bool:
        """Whether a small change of the means returns: det of the mean equations with all others kept is positive."""
        free = [a for a, f in enumerate(system.free) if f]
        if not free:
            return True
        _, jacobian = system.newton(x)
        means = system.blocks[-1].start + np.array(free)
        rest = np.setdiff1d(np.arange(system.size), means)
        inner = np.linalg.solve(jacobian[np.ix_(rest, rest)], jacobian[np.ix_(rest, means)])
        return bool(np.linalg.det(jacobian[np.ix_(means, means)] - jacobian[np.ix_(means, rest)] @ inner) > 0)

    def _wave(self, coarse: System, x: Array, fine: System, y: Array) -> Wave:
        u, w = coarse.unpack(x), fine.unpack(y)
        guess = self._guess(fine, y)
        error, origin, variance_error = [], [], []
        rest = 1e-12 * float(np.max(fine.variance(w)))
        for p in range(len(fine.pairs)):
            halves = zip(coarse.halves(p, u.decaying[p]), guess.decaying[p], strict=True)
            gaps = [np.max(np.abs(a - fine.grid.interpolate(b, coarse.grid.tau))) for a, b in halves]
            error.append(float(max(gaps)) + rest)
            origin.append(float(fine.origin(p) @ w.decaying[p]))
            before = float(coarse.origin(p) @ u.decaying[p]) + u.static[p]
            variance_error.append(abs(origin[-1] + w.static[p] - before) + rest)
        return Wave(
            grid=fine.grid,
            mean=w.mean.copy(),
            mean_error=np.abs(w.mean - u.mean) + np.where(fine.free, 1e-12 * (1 + np.abs(w.mean)), 0.0),
            static=w.static.copy(),
            static_error=np.abs(w.static - u.static) + rest * (w.static != 0),
            decaying=guess.decaying,
            origin=np.array(origin),
            error=np.array(error),
            variance_error=np.array(variance_error),
        )


def refuse_divergence(averages: Averages) -> None:
    """Raise where couplings return at least the variance they get, however large it is."""
    problem = averages.problem
    mean = averages.mean_constant()
    v = np.full(len(problem.arguments), 1e10)
    for _ in range(30):
        mean = followed_mean(averages, v, mean)
        two = [
            averages.pair_average(s, mean[t.a], mean[t.b], v[t.a], v[t.b], np.sqrt(v[t.a] * v[t.b]))
            for s, t in enumerate(problem.two_points)
        ]
        new = variances(averages, (averages.static_gain() @ np.array(two) + averages.static())[: problem.closure])
        ratio = float(np.max(new) / np.max(v))
        if ratio < 1e-3:
            return
        v = np.maximum(new, TINY * np.max(new)) * 1e10 / np.max(new)
    if ratio >= 1 - 1e-9:
        raise QuenchedError(
            f"the state diverges: at large variance the couplings return {ratio:.4g} times the variance they get"
            " (expected less than 1: a smaller gain or a saturating nonlinearity)"
        )


def variance_of_noise(system: System) -> Array:
    """Variances of the arguments from noise alone."""
    total = np.array([system.origin(p) @ system.noise[p] for p in range(len(system.pairs))])
    out = np.zeros(len(system.averages.problem.arguments))
    for p, (a, b) in enumerate(system.pairs):
        if a == b:
            out[a] = total[p]
    return out


def _longer(grid: FlowGrid | MapGrid, factor: float) -> FlowGrid | MapGrid:
    if isinstance(grid, MapGrid):
        if grid.length >= _LONGEST_MAP:
            raise ConvergenceError(
                f"the covariance does not decay within {_LONGEST_MAP} steps: too close to a transition"
            )
        return MapGrid(min(int(grid.length * factor) + 1, _LONGEST_MAP))
    return grid.stretched(factor, growth=1.15)


def _coarser(grid: FlowGrid | MapGrid) -> FlowGrid | MapGrid:
    """The grid before the halving and lengthening of the error estimate, about."""
    if isinstance(grid, MapGrid):
        return MapGrid(int(grid.length * 0.8) + 1)
    edges = [e for e in grid.edges if e <= 0.85 * grid.window]
    return FlowGrid((*edges[:-1:2], edges[-1]))


def _finer(guess: Guess, size: float) -> FlowGrid | MapGrid:
    """A grid for the error estimate: elements that are not resolved to rounding halved, and a longer window."""
    grid = guess.grid
    if isinstance(grid, MapGrid):
        return MapGrid(int(grid.length * 1.25))
    rough = np.max([grid.roughness(half) for c in guess.decaying for half in c], axis=0)
    return grid.refine(rough > 1e-14 * size, 1.2) if len(grid.edges) < 60 else grid.refine(rough > 1e-12 * size, 1.2)


def _adapted(guess: Guess, size: float, tol: float) -> FlowGrid | MapGrid | None:
    """A grid that resolves the state better, or None if this one does (or as well as is affordable)."""
    tail = max(float(np.max(np.abs(np.stack(c)[:, -6:]))) for c in guess.decaying)
    grid = guess.grid
    if isinstance(grid, MapGrid):
        return _longer(grid, 1.5) if tail > 3 * tol * size else None
    if len(grid.edges) > _MANY:
        if tail > 1e-4 * size:
            raise ConvergenceError(f"the covariance has not decayed after {grid.window:.4g}: too close to a transition")
        return None
    short = tail > 3 * tol * size
    rough = np.max([grid.roughness(half) for c in guess.decaying for half in c], axis=0) > tol * size
    if not short and not np.any(rough):
        return None
    refined = grid.refine(rough)
    return _longer(refined, 1.4) if short else refined
