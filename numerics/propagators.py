"""Spectra and responses of one unit in a solved state: the propagators that fluctuations are built of."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Float, Symbol, lambdify

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.problem import DT, PotentialProblem, SiteProcess, U
from quenched.theory.problem_fluctuations import FluctuationProblem, QuadraticProblem, UnitField

from .assemble import filon
from .averages import Averages
from .process_state import ProcessState
from .public import average2, bare_problem
from .solver import solve
from .timegrid import flow_grid
from .types import Array, Branch, Number

Complex = NDArray[np.complex128]
Values = dict[Symbol, float]

_REACH = 1e3


class Propagators:
    """What fluctuations need to know of one unit, whatever solved it.

    Attributes
    ----------
    problem : the quadratic action between two copies
    values : of the parameters
    flow : whether time is continuous
    """

    problem: QuadraticProblem
    values: Values
    flow: bool

    def population(self, a: str) -> str:
        """Population of a field."""
        raise NotImplementedError

    def covariance(self, a: str, b: str) -> Number:
        """⟨a b⟩ at equal times."""
        raise NotImplementedError

    def spectrum(self, a: str, b: str, omega: Array) -> Complex:
        """∫ dτ e^{−iωτ} ⟨a(t+τ) b(t)⟩, (n,)."""
        raise NotImplementedError

    def response(self, a: str, h: str, omega: Array) -> Complex:
        """R_a(ω), response of field a to local field h, (n,)."""
        raise NotImplementedError

    def uncertainty(self, a: str, b: str | None = None) -> float:
        """Relative error of a spectrum, or of the responses of a field."""
        raise NotImplementedError

    def nodes(self, size: int) -> tuple[Array, Array]:
        """Frequencies and weights dω/2π, (n,) each; every second is the coarser rule."""
        raise NotImplementedError

    @cached_property
    def hessian(self) -> Array:
        """P'' between the modes."""
        rows = [[float(e.xreplace(floats(self.values))) for e in row] for row in self.problem.hessian]
        return np.array(rows).reshape(len(rows), len(rows))

    def fraction(self, population: str) -> float:
        """Share of a population."""
        return float(self.problem.fractions[population].xreplace(floats(self.values)))

    def weights(self, population: str) -> Array:
        """Probabilities of what copies of a unit share (labels, frozen inputs), (k,)."""
        return np.ones(1)

    def each(self, a: str, c: str, omega: Array, moved: bool = False) -> Complex:
        """K_ac(ω) for every case of what copies share, (k, n)."""
        return self.between(a, c, omega, moved)[None]

    def squared(self, a: str) -> Number:
        """Mean over units of the squared variance."""
        c = self.covariance(a, a)
        return Number(c.value**2, 2 * abs(c.value) * c.error)

    def between(self, a: str, c: str, omega: Array, moved: bool = False) -> Complex:
        """K_ac(ω) of fields and conjugate fields, (n,); with `moved` displaced by its error."""
        hats = self.problem.conjugates
        if a in hats and c in hats:
            return np.zeros(len(omega), complex)
        if c in hats:
            scale = 1.0 + (self.uncertainty(a) if moved else 0.0)
            return 1j * scale * self.response(a, hats[c], omega)
        if a in hats:
            # ⟨ĥ(t+τ) c(t)⟩ responds at negative τ
            return -np.conj(self.between(c, a, omega, moved))
        scale = 1.0 + (self.uncertainty(a, c) if moved else 0.0)
        return scale * self.spectrum(a, c, omega)


class GaussianPropagators(Propagators):
    """Those of Gaussian units, from a solved stationary state on its own grid of lags."""

    problem: FluctuationProblem

    def __init__(
        self,
        problem: FluctuationProblem,
        potential: PotentialProblem | None,
        values: Values,
    ) -> None:
        self.problem, self.values = problem, values
        self.fields: dict[str, UnitField] = {}
        self.flow = problem.full.clock == "flow"
        first = solve(problem.full, potential, values, rates=False).state
        _refuse(first)
        self.rate = abs(Averages(problem.full, potential, values).edge())
        window = 2.6 * float(first.tau[-1])
        self.grid = flow_grid(4.0 / float(first.tau[-1]), self.rate, window) if self.flow else None
        half = self.grid.tau if self.grid else np.arange(np.ceil(window) + 1)
        self.half = len(half)
        lags = np.concatenate([half, -half, [0.0]])
        self.branch = solve(problem.full, potential, values, lags=lags, rates=False).state
        self.slow = min(self.rate, 10.0 / float(first.tau[-1]))
        self._slopes: dict[str, Number] = {}
        self._transfers: dict[tuple[str, str], Any] = {}
        for f in problem.fields:
            self.add(f)

    def add(self, f: UnitField) -> None:
        """Know one more field."""
        self.fields[f.name] = f
        for h, e in f.transfer.items():
            self._transfers[f.name, h] = lambdify([DT], e.xreplace(floats(self.values)), "numpy")

    def population(self, a: str) -> str:
        return self.fields[a].population

    def covariance(self, a: str, b: str) -> Number:
        f, g = self.fields[a], self.fields[b]
        if a == b:
            return self.variance(f)
        pair = (min(f.a, g.a), max(f.a, g.a))
        at = np.array([self.branch.covariance[pair][-1]])
        value, error = self._curve(f, g, at)
        moved, _ = self._curve(f, g, at, shift=float(self.branch.variance_error[f.a]))
        return Number(float(value[0]), float(error[0] + abs(moved[0] - value[0])))

    def uncertainty(self, a: str, b: str | None = None) -> float:
        f = self.fields[a]
        if b is None:
            return self.slope(f).error / abs(self.slope(f).value)
        g = self.fields[b]
        pair = (min(f.a, g.a), max(f.a, g.a))
        return float(np.max(self.branch.covariance_error[pair])) / float(np.min(self.branch.variance[[f.a, g.a]]))

    def _source(self, f: UnitField, g: UnitField) -> int | None:
        """Index of ⟨f g⟩ among the sources that the solver tabulated, for functions of one argument."""
        points = self.problem.full.two_points
        found = (k for k, s in enumerate(points) if (s.f, s.a, s.g, s.b) == (f.f, f.a, g.f, g.a))
        return next(found, None) if f.a == g.a else None

    def variance(self, f: UnitField) -> Number:
        """⟨f²⟩ (means vanish)."""
        source = self._source(f, f)
        if source is not None:
            return Number(float(self.branch.two_point[source, -1]), float(self.branch.two_point_error[source, -1]))
        value, error = self._curve(f, f, np.array([self.branch.variance[f.a]]))
        moved, _ = self._curve(
            f, f, np.array([self.branch.variance[f.a]]), shift=float(self.branch.variance_error[f.a])
        )
        return Number(float(value[0]), float(error[0] + abs(moved[0] - value[0])))

    def slope(self, f: UnitField) -> Number:
        """⟨f'⟩."""
        if f.name not in self._slopes:
            if f.f.expr == U:
                self._slopes[f.name] = Number(1.0, 0.0)
            else:
                averages = Averages(bare_problem(f.f, f.f, None), None, self.values)
                k = averages.generated.site(f.f)
                m, v = float(self.branch.mean[f.a]), float(self.branch.variance[f.a])
                number = averages.site_mean(k, 0, m, v, derivative=True)
                moved = averages.site_mean(k, 0, m, v + float(self.branch.variance_error[f.a]), derivative=True)
                self._slopes[f.name] = Number(number.value, number.error + abs(moved.value - number.value))
        return self._slopes[f.name]

    def _curve(self, f: UnitField, g: UnitField, c: Array, shift: float = 0.0) -> tuple[Array, Array]:
        m, v = self.branch.mean, self.branch.variance + shift
        if f.f.expr == U and g.f.expr == U:
            return c + shift, np.zeros(len(c))
        if g.f.expr == U:  # Price's theorem
            return self.slope(f).value * c, self.slope(f).error * np.abs(c)
        if f.f.expr == U:
            return self.slope(g).value * c, self.slope(g).error * np.abs(c)
        return average2(f.f, g.f, float(m[f.a]), float(m[g.a]), float(v[f.a]), float(v[g.a]), c + shift, self.values)

    def spectrum(self, a: str, b: str, omega: Array) -> Complex:
        f, g = self.fields[a], self.fields[b]
        pair = (min(f.a, g.a), max(f.a, g.a))
        both = self.branch.covariance[pair]
        halves = [both[: self.half], both[self.half : -1]]
        if f.a > g.a:
            halves = halves[::-1]
        source = self._source(f, g)
        if source is None:
            plus, minus = (self._curve(f, g, c)[0] for c in halves)
        else:
            plus, minus = self.branch.two_point[source, : self.half], self.branch.two_point[source, self.half : -1]
        if self.grid is not None:
            first: Complex = filon(self.grid, plus, omega)
            out: Complex = first + np.conj(filon(self.grid, minus, omega))
            return out
        phases = np.exp(-1j * np.outer(omega, np.arange(self.half)))
        steps: Complex = phases @ plus + np.conj(phases[:, 1:] @ minus[1:])
        return steps

    def response(self, a: str, h: str, omega: Array) -> Complex:
        """R_f(ω) = ⟨f'⟩·T(ω), by Price's theorem."""
        if (a, h) not in self._transfers:
            return np.zeros(len(omega), complex)
        operator = 1j * omega if self.flow else np.exp(1j * omega)
        found: Complex = self.slope(self.fields[a]).value * self._transfers[a, h](operator)
        return found + np.zeros(len(omega), complex)

    def nodes(self, size: int) -> tuple[Array, Array]:
        if not self.flow:
            omega = -np.pi + 2 * np.pi * np.arange(2 * size) / (2 * size)
            return omega, np.full(2 * size, 0.5 / size)
        theta = np.linspace(-1, 1, 2 * size + 1) * np.arcsinh(_REACH * self.rate / self.slow)
        step = theta[1] - theta[0]
        return self.slow * np.sinh(theta), step * self.slow * np.cosh(theta) / (2 * np.pi)


def floats(values: Values) -> dict[Expr, Expr]:
    """The values as sympy numbers."""
    return {k: Float(v) for k, v in values.items()}


def _refuse(state: Branch) -> None:
    if state.kind in ("trivial", "static"):
        raise QuenchedError(
            f"the state that the dynamics reaches is {state.kind}: no fluctuations, no participation ratio"
        )


class SampledPropagators(Propagators):
    """Those of units of any law, from sampled trajectories of the single-site process.

    Spectra are transforms of correlations on the periodic grid of a path, responses those of kicked paths. The nodes
    are the grid's own frequencies, up to `reach`.
    """

    reach = 14.0

    def __init__(self, problem: QuadraticProblem, process: SiteProcess, state: ProcessState, values: Values) -> None:
        self.problem, self.values, self.state = problem, values, state
        self.flow = process.clock == "flow"
        self._populations = {
            s.name: unit.population for unit in process.units for s in (*unit.states, *(o for o, _ in unit.outputs))
        }
        self.step = float(state.tau[1] - state.tau[0])
        self._size = len(next(iter(state.orders.values())))
        for name, mean in state.mean.items():
            size = self.covariance(name, name).value ** 0.5 if name in self._read else np.inf
            noise = 5 * mean.error if np.isfinite(mean.error) else 0.1 * size  # too few sweeps to know it
            if abs(mean.value) > max(noise, 0.02 * size):
                raise NotCovered(
                    f"⟨{name}⟩ = {mean.value:.3g} is not zero: fluctuations of sampled units with a mean are not built "
                    "(those of Gaussian units are: without symmetry of the couplings)"
                )

    @property
    def _read(self) -> set[str]:
        return {name for _, *ends in self.problem.modes for name in ends}

    def population(self, a: str) -> str:
        return self._populations[a]

    def covariance(self, a: str, b: str) -> Number:
        value, error = self._pair(self.state.correlation, a, b)
        return Number(float(value[0]), float(error[0]))

    def _pair(self, table: Any, a: str, b: str) -> Any:
        return table[a, b] if (a, b) in table else table[b, a]

    def uncertainty(self, a: str, b: str | None = None) -> float:
        number = self.covariance(a, b or a)
        return number.error / abs(number.value)

    def spectrum(self, a: str, b: str, omega: Array) -> Complex:
        grid = self._pair(self.state.orders, a, b)
        waves = np.fft.fftshift(np.fft.fft(grid)) * self.step
        at = np.fft.fftshift(np.fft.fftfreq(self._size, self.step)) * 2 * np.pi
        found: Complex = waves[np.clip(np.searchsorted(at, omega - 1e-9), 0, len(at) - 1)]
        return found if (a, b) in self.state.orders else np.conj(found)

    def response(self, a: str, h: str, omega: Array) -> Complex:
        if (a, h) not in self.state.response:
            return np.zeros(len(omega), complex)
        value = np.array(self.state.response[a, h][0])
        value[0] *= 0.5 if self.flow else 0.0
        waves = np.exp(-1j * np.outer(omega, self.step * np.arange(len(value))))
        return np.asarray(waves @ value * (self.step if self.flow else 1.0), complex)

    def nodes(self, size: int) -> tuple[Array, Array]:
        spacing = 2 * np.pi / (self._size * self.step)
        if not self.flow:
            at = np.arange(self._size) - self._size // 2
            return np.asarray(spacing * at, float), np.full(self._size, 1 / self._size)
        half = min(self._size // 2 - 1, int(self.reach / spacing)) // 2 * 2
        at = np.arange(-half, half + 1)
        return np.asarray(spacing * at, float), np.full(2 * half + 1, spacing / (2 * np.pi))
