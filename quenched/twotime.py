"""Solutions in time: observables of a marched state, averaged over whole periods or given as functions of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Add, Dummy, Expr, Mul, Symbol, lambdify

from quenched.readout import GROWTH, Quantity, rms_by
from quenched.sampled import terms_of
from quenched.solution import Branch, Solution
from quenched.theory.causal import site_output
from quenched.theory.errors import NotCovered, QuenchedError, nearest
from quenched.theory.fields import Field
from quenched.theory.naming import Output, standard_names
from quenched.theory.observables import Critical, Lyapunov, Mean
from quenched.theory.spaces import Population, t, tau

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from quenched.numerics.twotime import Expansion
    from quenched.numerics.twotime_solve import Window
    from quenched.theory.problem_causal import TwoTimeProblem
    from quenched.theory_object import Theory

Array = Any
#: Lags of curves, in slowest relaxation times of a unit, where none are asked for.
_SPAN, _LAGS = 8.0, 33
_ROUNDING = 1e-12


@dataclass(frozen=True)
class InTime:
    """What to march: given times, or until the state has settled.

    Attributes
    ----------
    times : equally spaced from 0, or None: whole periods of the settled state
    lags : lags of curves, or None: up to a few relaxation times
    dt : time step, or None: chosen
    scheme : "trapezoid" (the flow, extrapolated in the step) or "euler" (the Euler map at dt, exactly)
    nodes : nodes of a phase
    window : (start, stop): observables are averages over the given times between; None: functions of t
    tol : relative change of a settled state that may be left
    """

    times: Array | None = None
    lags: Array | None = None
    dt: float | None = None
    scheme: str = "trapezoid"
    nodes: int = 24
    tol: float | None = None
    window: tuple[float, float] | None = None


class TwoTimeSolution(Solution):
    """A state that depends on time.

    ``sol["C_x"]`` and other observables are averages over whole periods of the settled state, or functions of ``t``
    where times were given; `means` and `two_time` give the means and covariances themselves.

    Attributes
    ----------
    period : float or None
        Of the input, in the declaration's unit of time.
    """

    period: float | None = None
    reader: Reader

    @property
    def means(self) -> xr.Dataset:
        """Mean of every field and of every output of a coupling, over ``t``."""
        return self.reader.means()

    def two_time(self, name: str) -> xr.DataArray:
        """Cov(x(t), x(s)) over units for a field's printed name, dimensions ``t`` and ``s``; nan beyond the band."""
        return self.reader.two_time(name)


def solve_in_time(theory: Theory, values: Mapping[Any, float], how: InTime, size: float | None = None) -> Solution:
    """March a theory that depends on time, or any theory of linear units through given times.

    Raises
    ------
    NotCovered
        An input that does not repeat, without times; powers of N that do not balance, without N.
    ConvergenceError
        The state does not settle, or diverges.
    QuenchedError
        A step that is too long for the scheme.
    """
    problem, given = problem_at(theory, values, size)
    solved = _Solved(problem, given, how, theory)
    reader = Reader(theory, solved.window, how.lags, averaged=how.window is not None)
    growth = reader.growth_or_nan()
    branch = Branch("in time", "dynamic", True, growth, reader.names(), reader.quantity, _shared(theory), reader.rms)
    shown = {str(k): float(v) for k, v in given.items()}
    solution = TwoTimeSolution([branch], 0, shown, Solution.provenance_of(theory) | {"method": "marched in time"})
    solution.reader, solution.period = reader, solved.period
    return solution


def problem_at(
    theory: Theory, values: Mapping[Any, float], size: float | None
) -> tuple[TwoTimeProblem, dict[Symbol, float]]:
    """The two-time problem with N kept where it is given, else balanced, and the values of its parameters."""
    from quenched.theory.spaces import N

    d = theory.derivation if theory.derivation.march is not None else theory.derivation.two_time()
    march = theory.marched(d.march)
    given = {k: float(v) for k, v in values.items()}
    if N not in march.parameters:
        if size is not None:
            raise QuenchedError("this theory does not contain N (it is the limit N → ∞): leave N out")
        return march, given
    if size is not None:
        return march, given | {N: float(size)}
    if d.balance is None:
        reasons = [reason for title, reason in d.refusals if "Balance" in title]
        raise QuenchedError(
            f"this theory keeps powers of N ({'; '.join(reasons)}): give its value, as in solve(N=1000)"
        )
    return theory.marched(d.balance), given


def _shared(theory: Theory) -> frozenset[str]:
    return frozenset(n for n, e in theory.model.observables.items() if e.atoms(Critical))


class _Solved:
    """The window of a solution."""

    def __init__(self, problem: TwoTimeProblem, values: dict[Symbol, float], how: InTime, theory: Theory) -> None:
        from quenched.numerics.twotime_solve import period_of, solve_settled, solve_times

        rule: Any = "map" if problem.clock == "map" else how.scheme
        if rule not in ("map", "euler", "trapezoid"):
            raise QuenchedError(f"unknown scheme {how.scheme!r}: {nearest(how.scheme, ['trapezoid', 'euler'])}")
        if how.times is not None:
            self.period: float | None = None
            self.window: Window = solve_times(problem, values, np.asarray(how.times), how.dt, rule, how.nodes)
            if how.window is not None:
                self.window = self.window.between(*how.window)
            return
        longest = float(np.max(how.lags)) if how.lags is not None else None
        offsets = _offsets(theory, values)
        if longest is None:
            from quenched.numerics.twotime_solve import relaxation

            longest = _SPAN * relaxation(problem, values)[1]
        self.period = period_of(problem, values)
        options: dict[str, Any] = {} if how.tol is None else {"tol": how.tol}
        options |= {"dt": how.dt, "rule": rule, "nodes": how.nodes}
        self.window = solve_settled(problem, values, longest=max(longest, offsets), **options)


def _offsets(theory: Theory, values: Mapping[Any, float]) -> float:
    """The longest constant offset in time of a declared observable."""
    longest = 0.0
    for expr in theory.model.observables.values():
        for node in expr.atoms(Mean):
            for _, groups in _factors(node):
                for time, _ in groups:
                    offset = (time - t).coeff(tau, 0).xreplace(dict(values))
                    longest = max(longest, abs(float(offset)) if not offset.free_symbols else 0.0)
    return longest


def _factors(node: Mean) -> list[tuple[Expr, list[tuple[Expr, Expr]]]]:
    """The terms of a mean as constant and factors (time, function of one unit), one a field and time."""
    rows = []
    for constant, groups in terms_of(node):
        split = []
        for time, body in groups:
            fields: dict[Any, list[Expr]] = {}
            for factor in Mul.make_args(body):
                found = frozenset(factor.atoms(Field))
                fields.setdefault(found, []).append(factor)
            loose = fields.pop(frozenset(), [])
            parts = [Mul(*f) for f in fields.values()] or [Mul(*loose)]
            if loose and fields:
                parts[0] = Mul(parts[0], *loose)
            split += [(time, p) for p in parts]
        rows.append((constant, split))
    return rows


@dataclass(frozen=True)
class _Sheet:
    """One marched state with the expansions of the functions that observables read."""

    window: Window
    expansion: Expansion
    rows: NDArray[np.int64]
    times: Array
    step: float


class Reader:
    """Observables of a marched state, by name."""

    def __init__(self, theory: Theory, window: Window, lags: Array | None, averaged: bool) -> None:
        self.theory, self.model, self.window = theory, theory.written, window
        self.problem = window.state.marcher.problem
        self.values: dict[Symbol, float] = dict(window.state.marcher.values)
        self.timed = window.state.marcher.schedule.band is None
        self.averaged = averaged or not self.timed
        self._lags = lags
        self.probes: dict[tuple[Expr, str], int] = {}
        self.outputs: list[Any] = []

    # -- names ------------------------------------------------------------------------------------------------------
    def names(self) -> list[str]:
        missing = ("R", "S", "C", "C_out") if self.timed else ("R", "S")
        standard = [n for n, (kind, _) in standard_names(self.model).items() if kind not in missing]
        return list(dict.fromkeys([*standard, *([] if self.timed else [GROWTH]), *self.model.observables]))

    def quantity(self, name: str) -> Quantity:
        if name in self.model.observables:
            return self._declared(self.model.observables[name])
        standard = standard_names(self.model)
        if name == GROWTH:
            return self.growth
        if name not in standard:
            raise QuenchedError(f"no observable {name!r}: {nearest(name, self.names())}")
        kind, what = standard[name]
        body = what.body if isinstance(what, Output) else what
        later = body.xreplace({f: f(t + tau) for f in body.atoms(Field)})
        forms: dict[str, Expr] = {"C": body * later, "C_out": body * later, "C0": body**2, "C_out0": body**2}
        return self._declared(_mean_of(forms.get(kind, body), what.population))

    def rms(self, name: str) -> tuple[float, str] | None:
        """√⟨f²⟩ for an observable ⟨f⟩ that (nearly) vanishes, averaged over time: what its errors are relative to."""
        return rms_by(self.model, name, self._declared) if self.averaged else None

    # -- growth -----------------------------------------------------------------------------------------------------
    @cached_property
    def growth(self) -> Quantity:
        """Largest exponent: growth of a small difference of two copies over the window."""
        if self.window.state.marcher.schedule.grow_from is None:
            raise NotCovered("the Lyapunov exponent needs a lasting state: leave times= out")
        if np.any(self.window.state.jumps()):
            raise NotCovered("an output jumps: two copies separate faster than exponentially")
        from quenched.numerics.twotime_critical import growth_of

        found = [growth_of(w) for w in (self.window.coarse, self.window) if w is not None]
        value, error = _extrapolated([v for v, _ in found])
        return Quantity(float(value), float(error) + found[-1][1])

    def growth_or_nan(self) -> Quantity:
        try:
            return self.growth
        except NotCovered:
            return Quantity(float("nan"), float("inf"))

    def feedback_time(self) -> float:
        """Time in which a perturbation of the units' common mean changes, the shortest but for a few moments."""
        state = self.window.state
        rates = np.abs(np.linalg.eigvals(state.mean_mode()[self.window.first :] - np.eye(len(state.marcher.states))))
        return float(state.marcher.schedule.dt / max(np.quantile(np.max(rates, axis=1), 0.9), 1e-9))

    # -- declared expressions ---------------------------------------------------------------------------------------
    def _declared(self, expr: Expr) -> Quantity:
        if isinstance(expr, Lyapunov):
            return self.growth
        if isinstance(expr, Critical):
            return self._critical(expr)
        means = sorted(expr.atoms(Mean), key=str)
        if expr.atoms(Lyapunov, Critical) or not means:
            raise NotCovered(f"no theory formula for the observable {expr}")
        lagged = any(tau in node.free_symbols or _lagged(node) for node in means)
        if lagged and self.timed:
            raise NotCovered("correlations at a lag in a state that changes: read two_time() instead")
        sheets = self._sheets(means)
        found = [self._value(sheet, expr, means) for sheet in sheets]
        value, error = _extrapolated(found)
        scale = np.max(np.abs(value), initial=0.0)
        error = error + (_ROUNDING + self.window.unsettled + self.window.state.missed) * scale
        if lagged:
            return Quantity(value, error, "tau", self.lags)
        if not self.averaged:
            return Quantity(value, error, "t", sheets[-1].times)
        return Quantity(float(value), float(error))

    def _value(self, sheet: _Sheet, expr: Expr, means: list[Any]) -> Array:
        slots = {node: Dummy() for node in means}
        function = lambdify([*slots.values(), t], expr.xreplace({**slots, **self.values}), "numpy")
        parts = [self._mean(sheet, node) for node in means]
        clock = sheet.times
        if any(p.ndim == 2 for p in parts):
            parts = [p if p.ndim == 2 else p[:, None] for p in parts]
            clock = clock[:, None]
        value = np.asarray(function(*parts, clock), dtype=float)
        value = np.broadcast_to(value, np.broadcast_shapes(value.shape, parts[0].shape))
        return value.mean(axis=0) if self.averaged else value

    def _mean(self, sheet: _Sheet, node: Mean) -> Array:
        """⟨body⟩ at the times of a sheet, (times,) or (times, lags)."""
        total: Array = 0.0
        for constant, factors in _factors(node):
            scale = lambdify(t, constant.xreplace(self.values), "numpy")(sheet.times)
            part = self._product(sheet, factors, node)
            scale = np.asarray(scale, dtype=float)
            if scale.ndim and part.ndim == 2:
                scale = scale[:, None]
            if part.ndim == 2 and np.ndim(total) == 1:
                total = total[:, None]
            if part.ndim == 1 and np.ndim(total) == 2:
                part = part[:, None]
            total = total + scale * part
        return np.asarray(total)

    def _product(self, sheet: _Sheet, factors: list[tuple[Expr, Expr]], node: Mean) -> Array:
        if not factors:
            return np.ones(len(sheet.rows))
        found = [(*self._time(time, node, sheet.step), self._probe(body, node.population)) for time, body in factors]
        if len(found) > 2:
            raise NotCovered(f"{node} needs the joint law of {len(found)} quantities: at most two are covered")
        if len(found) == 1:
            sign, offset, k = found[0]
            curve = sheet.expansion.mean(k)
            if not sign:
                return curve[sheet.rows + offset]
            reach = self._reach(sheet)
            moved = curve[sheet.rows[:, None] + sign * reach + offset]
            return _at_lags(moved, reach * sheet.step, self.lags)
        (s1, o1, k), (s2, o2, j) = found
        if s1 == s2:
            return sheet.expansion.pair(k, j, [o1 - o2], sheet.rows + o2)[:, 0]
        if 0 not in (s1, s2):
            raise NotCovered(f"the times in {node} differ by 2·tau: use t and t + tau")
        if s1 == 0:
            s1, o1, k, s2, o2, j = s2, o2, j, s1, o1, k
        reach = self._reach(sheet)
        return _at_lags(
            sheet.expansion.pair(k, j, s1 * reach + o1 - o2, sheet.rows + o2), reach * sheet.step, self.lags
        )

    def _reach(self, sheet: _Sheet) -> NDArray[np.int64]:
        """Lags in rows, up to the longest that is asked for."""
        return np.arange(int(np.ceil(np.max(self.lags) / sheet.step - 1e-9)) + 1)

    def _time(self, time: Expr, node: Mean, step: float) -> tuple[int, int]:
        """(sign of τ, rows) of t ± τ + constant."""
        rest = (time - t).expand()
        sign = rest.coeff(tau)
        offset = (rest - sign * tau).xreplace(self.values)
        if sign not in (-1, 0, 1) or offset.free_symbols:
            raise NotCovered(f"the times in {node} are t, t ± tau and t + constant, got {time}")
        advance = step if self.problem.clock == "flow" else float(self.window.state.times[1])
        return int(sign), round(float(offset) / advance)

    # -- functions of the units -------------------------------------------------------------------------------------
    def _probe(self, body: Expr, population: Population) -> int:
        key = (body, population.name)
        if key not in self.probes:
            self.probes[key] = len(self.outputs)
            self.outputs.append(site_output(self.problem, self.model, body, population))
        return self.probes[key]

    def _sheets(self, means: list[Any]) -> list[_Sheet]:
        """Expansions of what the means read, of the coarse state first."""
        for node in means:
            for _, factors in _factors(node):
                for _, body in factors:
                    self._probe(body, node.population)
        windows = [w for w in (self.window.coarse, self.window) if w is not None]
        return [self._sheet(w) for w in windows]

    def _sheet(self, window: Window) -> _Sheet:
        first = 0 if self.timed else max(0, window.first - window.state.marcher.schedule.lags // 2)
        expansion = window.state.expand(self.outputs, slice(first, None))
        rows = np.arange(window.first, window.last, window.stride) - first
        step = window.state.marcher.schedule.dt
        return _Sheet(window, expansion, rows, window.state.times[rows + first], step)

    @cached_property
    def lags(self) -> Array:
        if self._lags is not None:
            return np.asarray(self._lags, dtype=float)
        from quenched.numerics.twotime_solve import relaxation

        span = _SPAN * relaxation(self.problem, self.values)[1]
        return np.linspace(0, span, _LAGS) if self.problem.clock == "flow" else np.arange(0.0, np.ceil(span) + 1)

    # -- transitions ------------------------------------------------------------------------------------------------
    def _critical(self, expr: Critical) -> Quantity:
        """Where the exponent crosses zero as a parameter changes, N kept where it is."""
        if not isinstance(expr.condition, Lyapunov):
            raise NotCovered(f"no theory formula for {expr}: only Critical(parameter, Lyapunov(field)) is built")
        from quenched.numerics.twotime_critical import critical_in_time

        schedule = (self.window.coarse or self.window).state.marcher.schedule
        number = critical_in_time(self.problem, expr.parameter, self.values, schedule)
        return Quantity(number.value, number.error)

    # -- arrays -----------------------------------------------------------------------------------------------------
    def _common(self) -> list[tuple[Window, NDArray[np.int64]]]:
        """Both step sizes with the rows at their common times, the coarse one first."""
        fine, coarse = self.window, self.window.coarse
        if coarse is None:
            return [(fine, np.arange(fine.first, fine.last, fine.stride))]
        skip = fine.stride if self.timed else 2
        rows = np.arange(coarse.first, coarse.last, coarse.stride)
        return [(coarse, rows), (fine, np.arange(len(rows)) * skip + fine.first)]

    def means(self) -> xr.Dataset:
        import xarray as xr

        found = [_means(window, rows) for window, rows in self._common()]
        window, rows = self._common()[-1]
        data = {name: ("t", _extrapolated([f[name] for f in found])[0]) for name in found[0]}
        return xr.Dataset(data, coords={"t": window.state.times[rows]})

    def two_time(self, name: str) -> xr.DataArray:
        import xarray as xr

        marcher = self.window.state.marcher
        names = [self.problem.units[u].states[i] for u, i in marcher.states]
        if name not in names:
            raise QuenchedError(f"no field {name!r}: {nearest(name, names)}")
        window, rows = self._common()[-1]
        found = [_covariance(w, r, names.index(name)) for w, r in self._common()]
        at = window.state.times[rows]
        total = _extrapolated(found)[0]
        return xr.DataArray(total, coords={"t": at, "s": at}, dims=("t", "s"), name=f"cov_{name}")


def _means(window: Window, rows: NDArray[np.int64]) -> dict[str, Array]:
    """Mean of every state and output at some rows."""
    state, marcher = window.state, window.state.marcher
    problem, data = marcher.problem, {}
    for x, (u, i) in enumerate(marcher.states):
        data[problem.units[u].states[i]] = np.einsum("l,lt->t", marcher.share[u], state.mean[:, rows, x])
    for k, out in enumerate(problem.outputs):
        data[out.name] = state.series[k, rows, 0] @ marcher.share[out.unit]
    return data


def _covariance(window: Window, rows: NDArray[np.int64], x: int) -> Array:
    """Cov over units of state number x at two times, nan beyond the band."""
    state, marcher = window.state, window.state.marcher
    share = marcher.share[marcher.states[x][0]]
    mean = state.mean[:, rows, x] - share @ state.mean[:, rows, x]
    apart = np.abs(rows[:, None] - rows[None])
    late = np.maximum(rows[:, None], rows[None])
    inside = apart < state.covariance.shape[2]
    lag = np.where(inside, apart, 0)
    each = [state.covariance[late, l, lag, x, x] for l in range(state.covariance.shape[1])]
    own = each[0] if len(each) == 1 else np.einsum("l,lts->ts", share[: len(each)], np.array(each))
    return np.where(inside, own + np.einsum("l,lt,ls->ts", share, mean, mean), np.nan)


def _mean_of(body: Expr, population: Population) -> Expr:
    return Add(*(Mean(term, population) for term in Add.make_args(body)))


def _lagged(node: Mean) -> bool:
    return any((time - t).has(tau) for _, factors in _factors(node) for time, _ in factors)


def _extrapolated(found: list[Array]) -> tuple[Array, Array]:
    """From (coarse, fine) with an error of order dt², the extrapolated value and its error; one value as it is."""
    if len(found) == 1:
        return np.asarray(found[0]), np.zeros(np.shape(found[0]))
    coarse, fine = (np.asarray(f) for f in found[-2:])
    return fine + (fine - coarse) / 3, np.abs(fine - coarse) / 3


def _at_lags(curves: Array, known: Array, lags: Array) -> Array:
    """Curves over integer rows at any lags, by cubic splines."""
    if np.array_equal(known, lags):
        return curves
    from scipy.interpolate import CubicSpline

    return np.asarray(CubicSpline(known, curves, axis=1)(lags)) if len(known) > 3 else curves[:, : len(lags)]


__all__ = ["InTime", "Reader", "TwoTimeSolution", "problem_at", "solve_in_time"]
