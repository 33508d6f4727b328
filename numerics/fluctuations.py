"""1/N covariances of a solved state: variance of cross-covariances ψ(τ, τ′) and participation ratios.

Everything is a double integral over frequencies of a smooth function that peaks along ω₁ = −ω₂. A flow is integrated
by the trapezoidal rule in the variable θ with ω = s·sinh θ (exponentially convergent, algebraic tails included), a map
by the trapezoidal rule on the circle. Every second node gives the coarser value that the error is judged by.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sympy import Expr, Symbol, lambdify

from quenched.theory.errors import ConvergenceError, NotCovered, QuenchedError
from quenched.theory.problem import DT, PotentialProblem, U
from quenched.theory.problem_fluctuations import FluctuationProblem, UnitField

from .assemble import _filon
from .averages import Averages
from .public import average1, average2, bare_problem
from .solver import solve
from .timegrid import flow_grid
from .types import Array, Branch, Number

Complex = NDArray[np.complex128]
Values = dict[Symbol, float]

_REACH = 1e3
_SIZES = (128, 256, 512, 1024, 2048)
_ROWS = 64
_NOTHING = 1e-9


@dataclass(frozen=True)
class Fluctuation:
    """Cross-covariances of one field between units.

    Attributes
    ----------
    name : of the field
    variance : ⟨a²⟩, the diagonal of the covariance matrix
    participation : (Tr C)²/Tr C² divided by the number of units, N → ∞
    tau : array (k,), lags
    psi, psi_error : arrays (k,), ψ(τ, τ) = N·mean over i≠j of C_ij(τ)², N the size of the field's population
    nodes : frequencies used (each of two)
    """

    name: str
    variance: Number
    participation: Number
    tau: Array
    psi: Array
    psi_error: Array
    nodes: int


def fluctuations(
    problem: FluctuationProblem,
    potential: PotentialProblem | None,
    values: Values,
    fields: tuple[UnitField, ...],
    *,
    lags: Array | None = None,
    tol: float = 1e-6,
) -> dict[str, Fluctuation]:
    """ψ(τ, τ) and participation ratios of fields in the state that the dynamics reaches.

    Parameters
    ----------
    problem, potential : the fluctuation problem, and the conservative form of its stationary problem if there is one
    values : a value for every parameter
    fields : what to observe
    lags : array (k,), optional
        τ of ψ(τ, τ), in units of time (steps of a map); 0 by default.
    tol : float
        Accuracy of ψ(0, 0) aimed at, relative.

    Raises
    ------
    QuenchedError
        If nothing fluctuates.
    NotCovered
        If means or a frozen part correlate the two copies.
    ConvergenceError
        If the double integral does not converge at the finest grid.
    """
    state = _State(problem, potential, values, fields)
    tau = np.zeros(1) if lags is None else np.asarray(lags, dtype=float)
    return {f.name: _converged(state, f, tau, tol) for f in fields}


class _State:
    """The solved state on a grid of lags, and its transforms."""

    def __init__(
        self,
        problem: FluctuationProblem,
        potential: PotentialProblem | None,
        values: Values,
        fields: tuple[UnitField, ...],
    ) -> None:
        self.problem, self.values = problem, values
        self.fields = {f.name: f for f in (*problem.fields, *fields)}
        self.flow = problem.full.clock == "flow"
        first = solve(problem.full, potential, values).state
        _refuse(first)
        self.rate = abs(Averages(problem.full, potential, values).edge())
        window = 2.6 * float(first.tau[-1])
        self.grid = flow_grid(4.0 / float(first.tau[-1]), self.rate, window) if self.flow else None
        half = self.grid.tau if self.grid else np.arange(np.ceil(window) + 1)
        self.half = len(half)
        lags = np.concatenate([half, -half, [0.0]])
        self.branch = solve(problem.full, potential, values, lags=lags).state
        for f in self.fields.values():
            mean = average1(f.f, float(first.mean[f.a]), float(first.variance[f.a]), values)
            if abs(mean.value) > 1e-6 * np.sqrt(self.variance(f).value):
                raise NotCovered(f"⟨{f.name}⟩ = {mean.value:.3g} is not zero: fluctuations about it are not built yet")
        self.slow = min(self.rate, 10.0 / float(first.tau[-1]))
        self._slopes: dict[str, Number] = {}
        self._transfers = {
            (f.name, h): lambdify([DT], e.xreplace(_floats(values)), "numpy")
            for f in self.fields.values()
            for h, e in f.transfer.items()
        }

    @cached_property
    def hessian(self) -> Array:
        rows = [[float(e.xreplace(_floats(self.values))) for e in row] for row in self.problem.hessian]
        return np.array(rows).reshape(len(rows), len(rows))

    def fraction(self, population: str) -> float:
        return float(self.problem.fractions[population].xreplace(_floats(self.values)))

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

    def spectrum(self, f: UnitField, g: UnitField, omega: Array) -> Complex:
        """∫ dτ e^{−iωτ} ⟨f(t+τ) g(t)⟩, (n,)."""
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
            first: Complex = _filon(self.grid, plus, omega)
            out: Complex = first + np.conj(_filon(self.grid, minus, omega))
            return out
        phases = np.exp(-1j * np.outer(omega, np.arange(self.half)))
        steps: Complex = phases @ plus + np.conj(phases[:, 1:] @ minus[1:])
        return steps

    def response(self, f: UnitField, h: str, omega: Array) -> Complex:
        """R_f(ω) = ⟨f'⟩·T(ω)."""
        if (f.name, h) not in self._transfers:
            return np.zeros(len(omega), complex)
        operator = 1j * omega if self.flow else np.exp(1j * omega)
        return self.slope(f).value * self._transfers[f.name, h](operator) + np.zeros(len(omega), complex)

    def nodes(self, size: int) -> tuple[Array, Array]:
        """Frequencies and weights dω/2π, (n,) each; every second is the coarser rule."""
        if not self.flow:
            omega = -np.pi + 2 * np.pi * np.arange(2 * size) / (2 * size)
            return omega, np.full(2 * size, 0.5 / size)
        theta = np.linspace(-1, 1, 2 * size + 1) * np.arcsinh(_REACH * self.rate / self.slow)
        step = theta[1] - theta[0]
        return self.slow * np.sinh(theta), step * self.slow * np.cosh(theta) / (2 * np.pi)


def _floats(values: Values) -> dict[Expr, Expr]:
    from sympy import Float

    return {k: Float(v) for k, v in values.items()}


def _refuse(state: Branch) -> None:
    if state.kind in ("trivial", "static"):
        raise QuenchedError(
            f"the state that the dynamics reaches is {state.kind}: no fluctuations, no participation ratio"
        )
    for pair, static in state.static.items():
        if abs(static) > _NOTHING * float(np.max(np.abs(state.variance))):
            raise NotCovered(f"the covariance of {pair} does not decay (frozen part {static:.3g}): not built yet")
    if np.any(np.abs(state.mean) > 1e-6 * np.sqrt(state.variance)):
        raise NotCovered("the means of the fields are not zero: fluctuations about such a state are not built yet")


def _converged(state: _State, f: UnitField, tau: Array, tol: float) -> Fluctuation:
    lags = np.concatenate([[0.0], tau])
    history = []
    for size in _SIZES:
        omega, weight = state.nodes(size)
        sector = _Sector(state, f, omega)
        fine, coarse = sector.integrate(weight, lags)
        error = np.abs(fine - coarse)
        history.append(float(error[0] / abs(fine[0])))
        if history[-1] < tol:
            break
    else:
        raise ConvergenceError(
            f"ψ of {f.name} is known to {history[-1]:.1g} only at {2 * _SIZES[-1]} frequencies: the state is "
            "close to a transition"
        )
    error = error + sector.sensitivity(weight, lags, fine)
    c = state.variance(f)
    total = c.value**2 + float(fine[0])
    ratio = c.value**2 / total
    spread = ratio * (float(error[0]) + 2 * c.value * c.error * (1 - ratio)) / total
    return Fluctuation(f.name, c, Number(ratio, spread), tau, fine[1:], error[1:], len(omega))


class _Sector:
    """N·Cov − Σ of one mode ⟨f¹ f²⟩ on pairs of frequencies."""

    def __init__(self, state: _State, f: UnitField, omega: Array, moved: bool = False) -> None:
        self.state, self.f, self.omega = state, f, omega
        self.population = f.population
        self.fraction = state.fraction(f.population)
        self.moved = moved
        self._known: dict[tuple[str, str], Complex] = {}

    def propagator(self, a: str, c: str) -> Complex:
        """K_ac(ω), (n,)."""
        if (a, c) not in self._known:
            self._known[a, c] = self._propagator(a, c)
        return self._known[a, c]

    def _propagator(self, a: str, c: str) -> Complex:
        state, hats = self.state, self.state.problem.conjugates
        if a in hats and c in hats:
            return np.zeros(len(self.omega), complex)
        if c in hats:
            f = state.fields[a]
            scale = 1.0 + (state.slope(f).error / abs(state.slope(f).value) if self.moved else 0.0)
            return 1j * scale * state.response(f, hats[c], self.omega)
        if a in hats:
            # ⟨ĥ(t+τ) c(t)⟩ responds at negative τ
            return -np.conj(self.propagator(c, a))
        f, g = state.fields[a], state.fields[c]
        relative = float(np.max(state.branch.covariance_error[min(f.a, g.a), max(f.a, g.a)]))
        scale = 1.0 + (relative / float(np.min(state.branch.variance[[f.a, g.a]])) if self.moved else 0.0)
        return scale * state.spectrum(f, g, self.omega)

    def sigma(self, m: tuple[str, str, str], n: tuple[str, str, str], rows: slice, cols: slice) -> Complex | float:
        """Σ_mn, (rows, cols), or 0."""
        if m[0] != n[0]:
            return 0.0
        first, second = self.propagator(m[1], n[1])[rows], self.propagator(m[2], n[2])[cols]
        if not np.any(first) or not np.any(second):
            return 0.0
        return first[:, None] * second / self.state.fraction(m[0])

    def excess(self, rows: slice, cols: slice) -> Complex:
        """f·(Σ_Ao P''(1 − Σ_oo P'')^{-1} Σ_oA) for a block of frequency pairs."""
        modes, hessian = self.state.problem.modes, self.state.hessian
        own = (self.population, self.f.name, self.f.name)
        size = len(modes)
        shape = (len(self.omega[rows]), len(self.omega[cols]))
        among = [[self.sigma(modes[i], modes[j], rows, cols) for j in range(size)] for i in range(size)]
        matrix = [
            [
                float(i == j) - sum(among[i][k] * hessian[k, j] for k in range(size) if hessian[k, j])
                for j in range(size)
            ]
            for i in range(size)
        ]
        solved = _eliminate(matrix, [self.sigma(m, own, rows, cols) for m in modes])
        total = np.zeros(shape, complex)
        for i in range(size):
            left = self.sigma(own, modes[i], rows, cols)
            if isinstance(left, float):
                continue
            for j in range(size):
                if hessian[i, j]:
                    total = total + left * hessian[i, j] * solved[j]
        return np.asarray(self.fraction * total, dtype=complex)

    def integrate(self, weight: Array, lags: Array) -> tuple[Array, Array]:
        """ψ(τ, τ) at lags (k,), by all nodes and by every second one."""
        waves = weight * np.exp(1j * np.outer(lags, self.omega))
        fine, coarse = np.zeros(len(lags)), np.zeros(len(lags))
        parity = _coarse(len(self.omega))
        # M(−ω₁, −ω₂) is the conjugate of M(ω₁, ω₂): half of the plane is enough.
        middle, flow = len(self.omega) // 2, self.state.flow
        everything = slice(None)
        for start in range(0, len(self.omega) if not flow else middle + 1, _ROWS):
            stop = min(start + _ROWS, len(self.omega) if not flow else middle + 1)
            rows = slice(start, stop)
            block = self.excess(rows, everything)
            twice = np.where(np.arange(start, stop) == middle, 1.0, 2.0) if flow else np.ones(stop - start)
            left = waves[:, rows] * twice
            fine += np.real(np.einsum("tr,rc,tc->t", left, block, waves, optimize=True))
            even = np.arange(start, stop) % 2 == parity
            left = 2 * left[:, even]
            thin = 2 * waves[:, parity::2]
            coarse += np.real(np.einsum("tr,rc,tc->t", left, block[even][:, parity::2], thin, optimize=True))
        return fine, coarse

    def sensitivity(self, weight: Array, lags: Array, value: Array) -> Array:
        """How far ψ moves when spectra and slopes move by their errors, (k,), on the coarser nodes."""
        thin = slice(_coarse(len(self.omega)), None, 2)
        parts = []
        for moved in (False, True):
            sector = _Sector(self.state, self.f, self.omega[thin], moved)
            parts.append(sector.integrate(2 * weight[thin], lags)[0])
        return np.abs(parts[1] - parts[0]) + 1e-13 * np.abs(value)


def _coarse(size: int) -> int:
    """Parity of the nodes that are kept in the coarser rule: the middle one of a symmetric grid stays."""
    return (size // 2) % 2 if size % 2 else 0


def _eliminate(matrix: list[list], right: list) -> list:
    """Solve a small system for many frequency pairs at once; entries are arrays or 0. No pivots: near the identity."""
    size = len(right)
    matrix, right = [list(row) for row in matrix], list(right)
    for k in range(size):
        for i in range(k + 1, size):
            if _nothing(matrix[i][k]):
                continue
            ratio = matrix[i][k] / matrix[k][k]
            for j in range(k + 1, size):
                if not _nothing(matrix[k][j]):
                    matrix[i][j] = matrix[i][j] - ratio * matrix[k][j]
            if not _nothing(right[k]):
                right[i] = right[i] - ratio * right[k]
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            if not _nothing(matrix[k][j]) and not _nothing(right[j]):
                right[k] = right[k] - matrix[k][j] * right[j]
        right[k] = right[k] / matrix[k][k]
    return right


def _nothing(entry: object) -> bool:
    return isinstance(entry, (int, float)) and entry == 0
