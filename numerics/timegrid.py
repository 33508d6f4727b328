"""Two-sided time grids and exact convolutions with rational filters on them.

A flow lives on Gauss–Legendre elements that grow geometrically away from τ = 0, where noise makes covariances kink: no
element contains the kink, so that the white-noise cusp costs no accuracy, and long windows cost little. A filter is a
cascade of first-order filters, each applied exactly to the polynomial on every element (no partial fractions: repeated
poles are no special case). A map lives on all lags up to T and convolves with the exact kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from quenched.theory.errors import NotCovered, QuenchedError

from .quadrature import legendre
from .types import Array

#: Nodes an element.
NODES = 12
_INNER = 40
Rational = tuple[Sequence[float], Sequence[float]]


@lru_cache(maxsize=4)
def to_legendre(n: int) -> Array:
    """Values at Gauss–Legendre nodes → Legendre coefficients."""
    x, w = legendre(n)
    return (np.arange(n)[:, None] + 0.5) * np.polynomial.legendre.legvander(x, n - 1).T * w


def interpolation(x: Array, n: int) -> Array:
    """Matrix from nodal values to values at reference coordinates x (..., n)."""
    return np.polynomial.legendre.legvander(x, n - 1) @ to_legendre(n)


@lru_cache(maxsize=512)
def _local(pole: complex, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, complex]:
    """First-order filter y' = pole·y + S on one element.

    Returns the decay of the entering value at the nodes, the matrix from S to y at the nodes, the row from S to y at
    the end, and the decay over the element.
    """
    x, _ = legendre(NODES)
    ends = np.append(x, 1.0)
    xi, weight = legendre(_INNER)
    span = (ends + 1) / 2 * width
    reach = np.minimum(span, 45.0 / abs(np.real(pole)))
    lag = reach[:, None] * (xi + 1) / 2
    points = ends[:, None] - 2 * lag / width
    kernel = np.exp(pole * lag) * weight * reach[:, None] / 2
    rows = np.einsum("iq,iqj->ij", kernel, interpolation(points, NODES))
    decay = np.exp(pole * span)
    return decay[:-1], rows[:-1], rows[-1], complex(decay[-1])


class Grid:
    """Common interface of both clocks. `tau` are the non-negative nodes; `size` their number."""

    @property
    def tau(self) -> Array:
        """Non-negative nodes."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Nodes of the half line."""
        return len(self.tau)

    @property
    def lines(self) -> int:
        """Nodes of the full line."""
        raise NotImplementedError

    @property
    def window(self) -> float:
        """Largest lag."""
        raise NotImplementedError

    @property
    def origin(self) -> Array:
        """Row (size,) from values on the half line to the value at τ = 0⁺."""
        raise NotImplementedError

    def unfold(self, even: bool) -> Array:
        """Matrix from half-line values to the full line (even functions), or the identity."""
        raise NotImplementedError

    def fold(self, even: bool) -> slice:
        """Rows of the full line that hold the half line, or all."""
        raise NotImplementedError

    def interpolate(self, values: Array, tau: Array) -> Array:
        """Half-line values (size,) at lags 0 ≤ τ ≤ window, and 0 beyond."""
        raise NotImplementedError


@dataclass(frozen=True)
class FlowGrid(Grid):
    """Elements between `edges` (0 first)."""

    edges: tuple[float, ...]

    @cached_property
    def tau(self) -> Array:
        e = np.array(self.edges)
        x, _ = legendre(NODES)
        return ((e[:-1] + e[1:])[:, None] / 2 + np.diff(e)[:, None] / 2 * x).ravel()

    @property
    def lines(self) -> int:
        return 2 * self.size

    @property
    def window(self) -> float:
        return self.edges[-1]

    @cached_property
    def widths(self) -> Array:
        """Element widths of the full line."""
        w = np.diff(np.array(self.edges))
        return np.concatenate([w[::-1], w])

    @cached_property
    def origin(self) -> Array:
        row = np.zeros(self.size)
        row[:NODES] = interpolation(np.array([-1.0]), NODES)[0]
        return row

    @cached_property
    def last(self) -> Array:
        """Row (size,) from values on the half line to the value at the end of the window."""
        row = np.zeros(self.size)
        row[-NODES:] = interpolation(np.array([1.0]), NODES)[0]
        return row

    @cached_property
    def weights(self) -> Array:
        """Quadrature weights on the half line."""
        _, w = legendre(NODES)
        return (np.diff(np.array(self.edges))[:, None] / 2 * w).ravel()

    def unfold(self, even: bool) -> Array:
        eye = np.eye(self.size)
        return np.concatenate([eye[::-1], eye]) if even else np.eye(2 * self.size)

    def fold(self, even: bool) -> slice:
        return slice(self.size, None) if even else slice(None)

    def full(self, positive: Array, negative: Array) -> Array:
        """Full-line vector from values at τ > 0 and at −τ < 0."""
        return np.concatenate([negative[::-1], positive])

    def split(self, full: Array) -> tuple[Array, Array]:
        """Values at τ and at −τ from a full-line vector."""
        return full[self.size :], full[: self.size][::-1]

    def interpolate(self, values: Array, tau: Array) -> Array:
        edges = np.array(self.edges)
        element = np.clip(np.searchsorted(edges, tau, side="right") - 1, 0, len(edges) - 2)
        x = 2 * (tau - edges[element]) / np.diff(edges)[element] - 1
        rows = interpolation(x, NODES)
        inside = np.einsum("ij,ij->i", rows, values.reshape(-1, NODES)[element])
        return np.where(tau <= edges[-1], inside, 0.0)

    def roughness(self, values: Array) -> Array:
        """Size of the last three Legendre coefficients on each element (elements,)."""
        coefficients = values.reshape(-1, NODES) @ to_legendre(NODES).T
        return np.max(np.abs(coefficients[:, -3:]), axis=1)

    def kernel(self, ratio: Rational, even_in: bool, even_out: bool) -> Array:
        """Matrix of the convolution with num(D)/den(D), from folded to folded values."""
        from .delays import filter_matrix, is_delayed

        if is_delayed(ratio):
            return filter_matrix(self, ratio, even_in)[self.fold(even_out)]
        parts = partial_fractions(ratio)
        if parts is None:
            return np.real(self.apply(ratio, self.unfold(even_in)))[self.fold(even_out)]
        direct, poles, residues = parts
        rows = self.fold(even_out)
        total = np.zeros((self.lines, self.lines))[rows]
        for pole, residue in zip(poles, residues, strict=True):
            # Of a conjugate pair take twice the real part of one member.
            if np.imag(pole) >= 0:
                share = residue if np.imag(pole) == 0 else 2 * residue
                total += np.real(share * self._matrix(complex(pole), rows))
        if direct:
            total += direct * np.eye(self.lines)[rows]
        return total[:, self.size :] + total[:, : self.size][:, ::-1] if even_in else total

    def _matrix(self, pole: complex, rows: slice) -> np.ndarray:
        """Rows of the matrix of 1/(D − pole) on the full line."""
        if pole.real > 0:
            mirrored = slice(0, self.lines - (rows.start or 0))
            return -self._matrix(-pole, mirrored)[::-1, ::-1]
        edges = np.array(self.edges)
        ends = np.concatenate([-edges[:-1][::-1], edges[1:]])
        tau = np.concatenate([-self.tau[::-1], self.tau])
        value = pole if pole.imag else pole.real
        out = np.zeros((self.lines, self.lines), dtype=complex if pole.imag else float)
        locals_ = [_local(pole, float(width)) for width in self.widths]
        through = np.stack([end if pole.imag else np.real(end) for _, _, end, _ in locals_])
        lag = tau[:, None] - ends[None, :]
        decay = np.where(lag > 0, np.exp(value * np.maximum(lag, 0.0)), 0.0)
        out = (decay[:, :, None] * through[None, :, :]).reshape(self.lines, self.lines)
        for k, (_, local, _, _) in enumerate(locals_):
            block = slice(k * NODES, (k + 1) * NODES)
            out[block, block] = local if pole.imag else np.real(local)
        return out[rows]

    def apply(self, ratio: Rational, x: np.ndarray) -> np.ndarray:
        """num(D)/den(D) on full-line columns x: causal for poles with Re < 0, anticausal for Re > 0."""
        from .delays import filter_matrix, is_delayed

        if is_delayed(ratio):
            return filter_matrix(self, ratio) @ x
        num, den = (np.trim_zeros(np.array(c, dtype=float), "f") for c in ratio)
        if len(num) == 0:
            return np.zeros_like(x)
        if len(num) > len(den):
            raise NotCovered("a gain grows with frequency: the couplings feed back a derivative")
        poles, zeros = list(np.roots(den)), list(np.roots(num))
        out = x * (num[0] / den[0])
        for pole in poles:
            filtered = self._filter(pole, out)
            out = out + (pole - zeros.pop()) * filtered if zeros else filtered
        return out

    def _filter(self, pole: complex, x: np.ndarray) -> np.ndarray:
        if abs(np.real(pole)) < 1e-13:
            raise QuenchedError("a filter has a pole on the imaginary axis: the linear dynamics does not decay")
        if np.real(pole) > 0:
            return -self._causal(-pole, x[::-1])[::-1]
        return self._causal(pole, x)

    def _causal(self, pole: complex, x: np.ndarray) -> np.ndarray:
        real = abs(np.imag(pole)) == 0
        out = np.empty(x.shape, dtype=x.dtype if real else complex)
        entering = np.zeros(x.shape[1:], dtype=out.dtype)
        for k, width in enumerate(self.widths):
            decay, local, end, over = _local(complex(pole), float(width))
            if real:
                decay, local, end, over = np.real(decay), np.real(local), np.real(end), float(np.real(over))
            block = slice(k * NODES, (k + 1) * NODES)
            out[block] = np.multiply.outer(decay, entering) + np.tensordot(local, x[block], axes=1)
            entering = over * entering + np.tensordot(end, x[block], axes=1)
        return out

    def impulse(self, ratio: Rational) -> tuple[Array, Array]:
        """num(D)/den(D) of δ(τ), at τ and at −τ."""
        from .delays import filtered_impulse, is_delayed

        if is_delayed(ratio):
            return self.split(filtered_impulse(self, ratio))
        return impulse(ratio, self.tau), impulse(ratio, self.tau, causal=False)

    def refine(self, rough: np.ndarray, stretch: float = 1.0) -> FlowGrid:
        """Halve the elements marked in `rough`; lengthen the window by a factor."""
        edges = [0.0]
        for k, (a, b) in enumerate(zip(self.edges[:-1], self.edges[1:], strict=True)):
            edges += [(a + b) / 2, b] if rough[k] else [b]
        return FlowGrid(tuple(edges)).stretched(stretch)

    def stretched(self, factor: float, growth: float = 1.0) -> FlowGrid:
        """The same elements, and more of them up to factor times the window."""
        edges = list(self.edges)
        width = edges[-1] - edges[-2]
        while edges[-1] < factor * self.window * (1 - 1e-9):
            width *= growth
            edges.append(edges[-1] + width)
        return FlowGrid(tuple(edges))


@dataclass(frozen=True)
class MapGrid(Grid):
    """All lags 0..length."""

    length: int

    @cached_property
    def tau(self) -> Array:
        return np.arange(self.length + 1, dtype=float)

    @property
    def lines(self) -> int:
        return 2 * self.length + 1

    @property
    def window(self) -> float:
        return float(self.length)

    @cached_property
    def origin(self) -> Array:
        row = np.zeros(self.size)
        row[0] = 1.0
        return row

    @cached_property
    def weights(self) -> Array:
        """Counting weights; lag 0 belongs half to either side."""
        w = np.ones(self.size)
        w[0] = 0.5
        return w

    def unfold(self, even: bool) -> Array:
        eye = np.eye(self.size)
        return np.concatenate([eye[:0:-1], eye]) if even else np.eye(2 * self.length + 1)

    def fold(self, even: bool) -> slice:
        return slice(self.length, None) if even else slice(None)

    def full(self, positive: Array, negative: Array) -> Array:
        """Full-line vector from values at n ≥ 0 and at −n ≤ 0."""
        return np.concatenate([negative[:0:-1], positive])

    def split(self, full: Array) -> tuple[Array, Array]:
        """Values at n and at −n from a full-line vector."""
        return full[self.length :], full[: self.length + 1][::-1]

    def interpolate(self, values: Array, tau: Array) -> Array:
        return np.interp(tau, self.tau, values, right=0.0)

    def response(self, filter_: Callable[[np.ndarray], np.ndarray]) -> Array:
        """Impulse response at lags −length..length of a function of θ."""
        points = 1 << int(np.ceil(np.log2(8 * self.length + 64)))
        theta = 2 * np.pi * np.arange(points) / points
        values = np.real(np.fft.ifft(np.broadcast_to(filter_(theta), theta.shape)))
        return np.concatenate([values[-self.length :], values[: self.length + 1]])

    def kernel(self, filter_: Callable[[np.ndarray], np.ndarray], even_in: bool, even_out: bool) -> Array:
        """Matrix of the convolution with a function of θ, from folded to folded values."""
        n = 2 * self.length
        points = 1 << int(np.ceil(np.log2(4 * n + 64)))
        theta = 2 * np.pi * np.arange(points) / points
        values = np.real(np.fft.ifft(np.broadcast_to(filter_(theta), theta.shape)))
        lags = np.arange(n + 1)
        matrix = values[(lags[:, None] - lags) % points]
        return (matrix @ self.unfold(even_in))[self.fold(even_out)]

    def stretched(self, factor: float, growth: float = 1.0) -> MapGrid:
        """A longer window."""
        return MapGrid(int(np.ceil(self.length * factor)))


def flow_grid(slow: float, fast: float, window: float | None = None) -> FlowGrid:
    """Elements from 0.4/fast, growing by a third, at most 2/slow wide, up to `window` (30/slow by default)."""
    window = 30 / slow if window is None else window
    edges, width = [0.0], 0.4 / fast
    while edges[-1] < window:
        edges.append(edges[-1] + width)
        width = min(width * 1.35, 2 / slow)
    return FlowGrid(tuple(edges))


def impulse(ratio: Rational, tau: Array, causal: bool = True) -> Array:
    """Inverse Fourier transform of num/den at τ > 0 (its causal part), or of its anticausal part at −τ.

    Residues come from contour integrals around clusters of poles, so that repeated poles are no special case.
    """
    num, den = (np.trim_zeros(np.array(c, dtype=float), "f") for c in ratio)
    if len(num) == 0:
        return np.zeros(len(tau))
    if len(num) >= len(den):
        raise NotCovered("white noise reaches an argument of a nonlinearity without a filter")
    poles = np.roots(den)
    sign = 1.0 if causal else -1.0
    chosen = poles[np.real(poles) * sign < 0]
    out = np.zeros(len(tau), dtype=complex)
    for cluster in _clusters(chosen, 0.02):
        centre = np.mean(cluster)
        others = np.array([p for p in poles if np.min(np.abs(cluster - p)) > 0])
        inner = float(np.max(np.abs(cluster - centre)))
        outer = min([abs(np.real(centre)), *(abs(others - centre) if len(others) else [])])
        radius = np.sqrt(max(inner, 0.05 * outer) * outer) if inner > 0 else 0.4 * outer
        z = centre + radius * np.exp(2j * np.pi * (np.arange(96) + 0.5) / 96)
        values = np.polyval(num, z) / np.polyval(den, z) * (z - centre) / 96
        out += sign * (np.exp(np.outer(sign * tau, z)) @ values)
    return np.real(out)


def partial_fractions(ratio: Rational) -> tuple[float, np.ndarray, np.ndarray] | None:
    """Direct part, poles and residues of num/den; None where poles are too close for residues to be accurate."""
    num, den = (np.trim_zeros(np.array(c, dtype=float), "f") for c in ratio)
    if len(num) == 0:
        return 0.0, np.zeros(0), np.zeros(0)
    if len(num) > len(den):
        raise NotCovered("a gain grows with frequency: the couplings feed back a derivative")
    poles = np.roots(den)
    if np.any(np.abs(np.real(poles)) < 1e-13):
        raise QuenchedError("a filter has a pole on the imaginary axis: the linear dynamics does not decay")
    gaps = np.abs(poles[:, None] - poles) + np.diag(np.full(len(poles), np.inf))
    if len(poles) > 1 and np.min(gaps / np.abs(poles)) < 0.02:
        return None
    direct = float(num[0] / den[0]) if len(num) == len(den) else 0.0
    return direct, poles, np.polyval(num, poles) / np.polyval(np.polyder(den), poles)


def _clusters(poles: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Groups of poles closer than a fraction of their modulus."""
    left, groups = list(poles), []
    while left:
        group = [left.pop()]
        grown = True
        while grown:
            near = [p for p in left if min(abs(p - q) for q in group) < tolerance * (abs(p) + 1e-300)]
            left = [p for p in left if not any(p is q for q in near)]
            group += near
            grown = bool(near)
        groups.append(np.array(group))
    return groups
