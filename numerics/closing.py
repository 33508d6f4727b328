"""States whose gains or inputs contain numbers that the state itself determines.

Such a number (an overlap with a stored direction, the slope that a response is proportional to) is x = F(x), F being an
average in the state that the problem has at x: an outer root around the solver of all other problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from scipy.optimize import root
from sympy import Symbol, lambdify

from quenched.theory.errors import ConvergenceError, QuenchedError
from quenched.theory.problem import DS, DT, PotentialProblem, StationaryGaussian, U

from .averages import Averages
from .closing_joint import follow, joint, ones, vector_of
from .closing_rates import coupled_rate
from .growth_means import Numbers
from .types import Array, Branch, RawSolution

#: A state at given parameters, without outer numbers: (problem, potential, values) → all its branches.
Inner = Callable[[StationaryGaussian, PotentialProblem | None, dict[Symbol, float]], RawSolution]
#: The same with the lags of the result, and with growth rates where these numbers are given.
Final = Callable[[StationaryGaussian, PotentialProblem | None, dict[Symbol, float], Numbers | None], RawSolution]
#: Variances of the trial states that the search starts from.
_TRIALS = (0.0, 1.0, 0.3, 3.0, 10.0)
_STEP, _CLOSE, _SOLVED = 1e-5, 1e-6, 1e-9
#: Rates that are zero within rounding: along a line of states nothing grows.
_MARGINAL = 1e-7
#: Stands for the distance from a solution where there is no state.
_NOWHERE = 1e3


def is_open(problem: StationaryGaussian, values: dict[Symbol, float]) -> bool:
    """Whether numbers that the state determines are still to be found."""
    names = {s.name for s in values}
    return any(symbol.name not in names for symbol, _ in problem.closing)


@lru_cache(maxsize=64)
def at_numbers(
    problem: StationaryGaussian, potential: PotentialProblem | None
) -> tuple[StationaryGaussian, PotentialProblem | None]:
    """The problem with those numbers as parameters."""
    inner = replace(problem, closing=())
    return inner, None if potential is None else replace(potential, full=inner)


def solve_closing(
    problem: StationaryGaussian,
    potential: PotentialProblem | None,
    values: dict[Symbol, float],
    inner: Inner,
    final: Final,
) -> RawSolution:
    """Every state that is consistent with its own numbers; `inner` searches, `final` evaluates what was found.

    Raises
    ------
    ConvergenceError
        No state is.
    """
    outer = _Outer(problem, potential, values, inner)
    found: list[tuple[Array, str]] = []
    tried: list[Array] = []
    queue = list(outer.starts())
    while queue:  # where one kind of state is found, others may be near
        start = queue.pop(0)
        if any(_same(start, other) for other in tried):
            continue
        tried.append(start)
        for kind in outer.kinds(start):
            x = outer.root(start, kind, [y for y, k in found if k == kind])
            if x is not None:
                found.append((x, kind))
                queue.append(x)
                other = outer.mirrored(x, kind)
                found += [] if other is None else [(other, kind)]
    branches = [b for x, kind in found if (b := outer.branch(x, kind, final)) is not None]
    if not branches:
        raise ConvergenceError(f"no state is consistent with its own {', '.join(s.name for s in outer.symbols)}", ())
    ordered = sorted(branches, key=lambda b: (-float(b.variance[0]), [-v for v, _ in b.numbers.values()]))
    return RawSolution(tuple(_labelled(ordered)), _main(ordered))


class _Outer:
    """The outer equation of one problem at given parameters."""

    def __init__(
        self,
        problem: StationaryGaussian,
        potential: PotentialProblem | None,
        values: dict[Symbol, float],
        inner: Inner,
    ) -> None:
        self.problem, self.values, self.solve = problem, dict(values), inner
        self.inner, self.potential = at_numbers(problem, potential)
        self.symbols = [symbol for symbol, _ in problem.closing]
        self.known: dict[tuple[float, ...], RawSolution | None] = {}
        self.evaluated: dict[tuple[float, ...], RawSolution] = {}

    def at(self, x: Array) -> dict[Symbol, float]:
        return self.values | {s: float(v) for s, v in zip(self.symbols, x, strict=True)}

    def image(self, x: Array, one_points: Array) -> Array:
        """F(x), from the one-point averages of the state at x."""
        return np.asarray(self.coefficients(x) @ one_points)

    def coefficients(self, x: Array) -> Array:
        """Matrix (numbers, one-point averages) of F at given numbers."""
        by_name = {s.name: v for s, v in self.at(x).items()}
        out = np.zeros((len(self.symbols), len(self.problem.one_points)))
        for k, (_, terms) in enumerate(self.problem.closing):
            for coefficient, i in terms:
                out[k, i] += float(coefficient.subs({s: by_name[s.name] for s in coefficient.free_symbols}))
        return out

    def averages(self, x: Array) -> Averages:
        """Averages of the inner problem at given numbers."""
        return Averages(self.inner, self.potential, self.at(x))

    def starts(self) -> Iterator[Array]:
        """Numbers in Gaussian trial states without input, and single numbers of either sign and order one."""
        zero = np.zeros(len(self.symbols))
        averages = Averages(self.inner, None, self.at(zero))
        mean = averages.mean_constant()
        for v in _TRIALS[:2] if self.directions else _TRIALS:
            points = [averages.one(k, float(mean[o.a]), v or 1e-24).value for k, o in enumerate(self.inner.one_points)]
            yield self.image(zero, np.array(points))
        if self.directions:
            for on, sign in product(product((1.0, 0.0), repeat=min(len(self.directions), 2)), (1.0, -1.0)):
                x = zero.copy()
                x[self.directions[:2]] = sign * np.array(on)
                yield x

    @property
    def directions(self) -> list[int]:
        """Numbers that enter inputs: a small change of them moves the units."""
        inputs = [*(a.constant for a in self.inner.arguments), *self.inner.static]
        return [k for k, s in enumerate(self.symbols) if any(e.has(s) for e in inputs)]

    def raw(self, x: Array) -> RawSolution | None:
        """All states at x, None where there is none (the linear part alone is unstable)."""
        key = self.seen(x)
        if key not in self.known:
            try:
                self.known[key] = self.solve(self.inner, self.potential, self.at(x)) if self.positive(x) else None
            except (QuenchedError, ZeroDivisionError):
                self.known[key] = None
        return self.known[key]

    def seen(self, x: Array) -> tuple[float, ...]:
        """What the inner problem has of the numbers: those of opposite sign are often the same to it."""
        if self.inner.labels:
            return tuple(float(v) for v in x)
        return tuple(float(v) for v in np.ravel(self.parts(*(float(v) for v in x))))

    @cached_property
    def parts(self) -> Callable[..., list[float]]:
        """Those coefficients of the inner problem that depend on the numbers."""
        p = self.inner
        sites = [t.f for t in p.one_points] + [f for t in p.two_points for f in (t.f, t.g)]
        rows = [[a.constant for a in p.arguments], p.noise, p.static, *p.gain, *p.mean_gain, [f.expr for f in sites]]
        exprs = [e for row in rows for e in row]
        fixed = self.values | {DT: 0.371, DS: 0.823, U: 0.619}
        return lambdify(self.symbols, [e.subs(fixed) for e in exprs if e.has(*self.symbols)])

    def positive(self, x: Array) -> bool:
        """Whether all gains of power spectra are positive: eliminated units that do not decay make others."""
        averages = Averages(self.inner, None, self.at(x))
        wave = 1j * np.concatenate([[0.0], np.geomspace(1e-2, 1e2, 30)])
        if self.inner.clock == "map":
            wave = np.exp(1j * np.linspace(0, np.pi, 31))
        with np.errstate(all="ignore"):
            gains = averages.gains(wave, np.conj(wave))
        for p, (a, b) in enumerate(self.inner.pairs[: self.inner.closure]):
            for s, two in enumerate(self.inner.two_points):
                if a == b and two.f.expr == two.g.expr and np.any(np.real(gains[:, p, s]) < 0):
                    return False
        return bool(np.all(np.isfinite(gains)))

    def pick(self, x: Array, kind: str) -> Branch | None:
        """The state of a kind at x, the main one first."""
        raw = self.raw(x)
        if raw is None:
            return None
        ordered = [raw.state, *raw.branches]
        return next((b for b in ordered if b.kind == kind), None)

    def kinds(self, x: Array) -> list[str]:
        """Kinds of the states at x."""
        raw = self.raw(x)
        return list(dict.fromkeys(b.kind for b in raw.branches)) if raw else []

    def excess(self, x: Array, kind: str) -> Array:
        state = self.pick(x, kind)
        return np.full(len(x), _NOWHERE) if state is None else self.image(x, np.asarray(state.one_point)) - x

    def root(self, x: Array, kind: str, known: list[Array]) -> Array | None:
        """x = F(x) by a few iterations, then Newton's method; None if there is none, or one that is known."""
        state = self.pick(x, kind)
        if state is None:
            return None
        vector = vector_of(self.averages(x), state)
        if vector is None:
            return self.nested(x, kind, known)
        y, points = vector.start(state), np.asarray(state.one_point)
        for _ in range(3):
            new = x + 0.7 * (self.image(x, points) - x)
            if any(_approaches(z, x, new) for z in known):
                return None
            moved = follow(vector, self.averages(new), y)
            if moved is None:
                state = self.pick(new, kind)
                if state is None:
                    return None
                vector = vector_of(self.averages(new), state) or vector
                moved = vector.start(state)
            x, y = new, moved
            points = ones(vector, self.averages(x), y)
        answer = joint(vector, self.averages, self.coefficients, y, x)
        if answer is None or not answer[2] < _SOLVED * (1 + float(np.max(np.abs(answer[1])))):
            return None
        x = answer[1]
        return None if any(_same(x, z) for z in known) or not self.positive(x) else x

    def nested(self, x: Array, kind: str, known: list[Array]) -> Array | None:
        """The same where states are functions of the lag: with all of them at every step."""
        for _ in range(3):
            change = self.excess(x, kind)
            if np.max(np.abs(change)) >= _NOWHERE:
                return None
            new = x + 0.7 * change
            if any(_approaches(y, x, new) for y in known):
                return None
            x = new
        if np.max(np.abs(self.excess(x, kind))) > 1e-13:
            x, rest = self.polish(x, kind)
            if not rest < _SOLVED * (1 + float(np.max(np.abs(x)))):
                return None
        return None if any(_same(x, y) for y in known) else x

    def mirrored(self, x: Array, kind: str) -> Array | None:
        """The numbers of the opposite sign, where they are consistent as well."""
        y = x.copy()
        y[self.directions] *= -1
        return y if not _same(x, y) and np.max(np.abs(self.excess(y, kind))) < _SOLVED else None

    def polish(self, x: Array, kind: str) -> tuple[Array, float]:
        """Newton's method, for one number by secants, and what is left of the equation."""
        if len(x) > 1:
            answer = root(
                lambda y: self.excess(y, kind),
                x,
                method="hybr",
                options={"xtol": 1e-12, "eps": 1e-7, "maxfev": 40 * len(x)},
            )
            return np.asarray(answer.x), float(np.max(np.abs(answer.fun)))
        before, after = x, x + self.excess(x, kind)
        for _ in range(20):
            f, g = self.excess(before, kind), self.excess(after, kind)
            if abs(g[0]) < 1e-13 or f[0] == g[0] or not abs(g[0]) < _NOWHERE:
                break
            before, after = after, after - g * (after - before) / (g - f)
        return after, float(abs(self.excess(after, kind)[0]))

    def moved(self, x: Array, step: Array, kind: str, state: Branch) -> tuple[Array, Array, Array] | None:
        """Means, variances and one-point averages of a state where the numbers are changed a little."""
        vector = vector_of(self.averages(x), state)
        averages = self.averages(x + step)
        y = None if vector is None else follow(vector, averages, vector.start(state))
        if vector is not None and y is not None:
            return *vector.moments(y), ones(vector, averages, y)
        other = self.pick(x + step, kind)
        return None if other is None else (other.mean, other.variance, np.asarray(other.one_point))

    def slope(self, x: Array, kind: str, state: Branch) -> Array:
        """dF/dx by differences."""
        rows = []
        for h in _STEP * np.eye(len(x)):
            ends = [self.moved(x, step, kind, state) for step in (h, -h)]
            if ends[0] is None or ends[1] is None:
                rows.append(np.zeros(len(x)))
                continue
            rows.append((self.image(x + h, ends[0][2]) - self.image(x - h, ends[1][2])) / (2 * _STEP))
        return np.array(rows).T

    def branch(self, x: Array, kind: str, final: Final) -> Branch | None:
        """The state at consistent numbers, with what their uncertainty adds to its errors."""
        raw = self.final(x, kind, final)
        misses = [(self.miss(x, b), k) for k, b in enumerate((raw.state, *raw.branches)) if b.kind == kind]
        least, chosen = min(misses, default=(np.inf, 0))
        if not least < 1e-6 * (1 + np.max(np.abs(x))):
            return None
        state = (raw.state, *raw.branches)[chosen]
        slope = self.slope(x, kind, state)
        free = self.directions
        held = bool(free) and float(np.max(np.real(np.linalg.eigvals(slope[np.ix_(free, free)])))) >= 1
        miss = np.abs(self.image(x, np.asarray(state.one_point)) - x) + np.abs(
            self.image(x, np.asarray(state.one_point_error))
        )
        doubt = np.abs(np.linalg.pinv(np.eye(len(x)) - slope)) @ np.abs(miss)
        numbers = {s.name: (float(v), float(e)) for s, v, e in zip(self.symbols, x, doubt, strict=True)}
        state = replace(state, numbers=numbers, stable=state.stable and not held)
        return _with_doubt(self, self.with_rate(state, x), x, doubt, kind)

    def final(self, x: Array, kind: str, final: Final) -> RawSolution:
        """All states at consistent numbers, with rates where they are not those of a fixed point."""
        key = (*self.seen(x), kind in ("trivial", "static"))
        if key not in self.evaluated:
            numbers = None if key[-1] else Numbers(self.averages, self.coefficients, x, self.directions)
            self.evaluated[key] = final(self.inner, self.potential, self.at(x), numbers)
        return self.evaluated[key]

    def miss(self, x: Array, state: Branch) -> float:
        """How far the numbers are from those that a state gives."""
        return float(np.max(np.abs(self.image(x, np.asarray(state.one_point)) - x)))

    def with_rate(self, state: Branch, x: Array) -> Branch:
        """The state with the growth rate of the modes that carry the numbers, where they decay slowest."""
        rate = coupled_rate(self.averages, self.coefficients, x, self.directions, state)
        if rate is None or not rate.value > state.growth.value:
            return state
        # A real zero is polished to rounding.
        turning = rate.error > 1e-9 * (1 + abs(rate.value))
        return replace(state, growth=rate, stable=state.stable and rate.value < _MARGINAL, turning=turning)


def _same(x: Array, y: Array) -> bool:
    return bool(np.max(np.abs(x - y)) < _CLOSE * (1 + np.max(np.abs(y))))


def _approaches(goal: Array, x: Array, new: Array) -> bool:
    """Whether an iteration is about to find a number that is known."""
    left, before = np.max(np.abs(new - goal)), np.max(np.abs(x - goal))
    return bool(left < 0.2 * (0.3 + np.max(np.abs(goal))) and left <= 0.6 * before)


def _with_doubt(outer: _Outer, state: Branch, x: Array, doubt: Array, kind: str) -> Branch:
    """Errors of means and variances that the uncertainty of the numbers makes, and of covariances in proportion."""
    mean, variance = np.array(state.mean_error), np.array(state.variance_error)
    one, two = np.array(state.one_point_error), np.array(state.two_point_error)
    for k, e in enumerate(doubt):
        moved = outer.moved(x, _STEP * np.eye(len(x))[k], kind, state)
        if moved is None:
            continue
        mean = mean + np.abs(moved[0] - state.mean) / _STEP * e
        variance = variance + np.abs(moved[1] - state.variance) / _STEP * e
        one = one + np.abs(moved[2] - state.one_point) / _STEP * e
    relative = np.max(variance / np.maximum(np.abs(state.variance), 1e-300), initial=0.0)
    covariance = {p: state.covariance_error[p] + relative * np.abs(c) for p, c in state.covariance.items()}
    return replace(
        state,
        mean_error=mean,
        variance_error=variance,
        one_point_error=one,
        two_point_error=two + relative * np.abs(state.two_point),
        covariance_error=covariance,
    )


def _labelled(branches: list[Branch]) -> list[Branch]:
    kinds = [b.kind for b in branches]
    seen: dict[str, int] = {}
    out = []
    for b in branches:
        seen[b.kind] = seen.get(b.kind, 0) + 1
        out.append(replace(b, label=b.kind if kinds.count(b.kind) == 1 else f"{b.kind} {seen[b.kind]}"))
    return out


def _main(branches: list[Branch]) -> int:
    """A stable fixed point if there is one, else a stable moving state; of equals the first in the order given."""
    order = list(range(len(branches)))
    fixed = [k for k in order if branches[k].kind in ("trivial", "static") and branches[k].stable]
    moving = [k for k in order if branches[k].kind not in ("trivial", "static")]
    chosen = fixed or [k for k in moving if branches[k].stable] or moving or order
    return chosen[0]
