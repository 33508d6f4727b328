"""One realisation of a measure as arrays: its disorder, the linear maps of the state, and its compiled sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.gibbs_program import Block, GibbsProgram, Pair, Recipe, Smooth, StateField
from quenched.validate.gibbs_stretch import stretch
from quenched.validate.program import load
from quenched.validate.random_functions import FunctionSpec, Towers, draw_functions
from quenched.validate.sampling import MatrixSpec, VectorSpec, sample_law, sample_matrices, stream

Array = NDArray[np.float64]

#: Units up to which all pairs are stored.
MOST_PAIRS = 4000
KINDS = {"atoms": 0, "continuous": 1, "sphere": 2}
_HEAD = '"""Sweeps of one declared measure."""\n\nimport math\n\nimport numpy as np\nfrom numba import njit\n\n'


@lru_cache(maxsize=32)
def kernel(scalar: str) -> Any:
    """The compiled sweeps of a measure (compiled once for a machine)."""
    from quenched.numerics import cache

    template = files("quenched.validate").joinpath("templates/gibbs_kernel.py.txt").read_text()
    first = template.index("@njit(cache=True, fastmath=True)\ndef force(")
    functions = scalar.replace("def ", "@njit(cache=True)\ndef ")
    source = _HEAD + template[:first] + functions + "\n\n\n" + template[first:]
    return cache.load(cache.digest("gibbs" + source), lambda: source)


class System:
    """A drawn instance; what the array functions of a program see as ``env``.

    Attributes
    ----------
    p : parameters and N
    sizes : population → number of units
    labels, matrices : drawn disorder
    x : fields' slices of the state
    """

    def __init__(
        self,
        program: GibbsProgram,
        parameters: tuple[float, ...],
        sizes: Mapping[str, int],
        matrices: tuple[MatrixSpec, ...],
        vectors: tuple[VectorSpec, ...],
        place: tuple[int, int, int],
        functions: tuple[FunctionSpec, ...] = (),
    ) -> None:
        self.program, self.p, self.sizes, self.place = program, np.array(parameters), dict(sizes), place
        self.functions = load("import numpy as np\nfrom scipy import special\n\n\n" + program.arrays)
        drawn = sample_matrices(matrices, lambda name: self.stream(f"matrix:{name}"))
        self.matrices = [drawn[m.name] for m in matrices]
        self.labels = [self._label(v, drawn) for v in vectors]
        self.random_functions = draw_functions(functions, self.stream)
        edges = np.cumsum([0] + [self.sizes[f.population] for f in program.fields])
        self.slices = [slice(int(a), int(b)) for a, b in pairwise(edges)]
        self.bounds, self.units = edges.astype(np.int64), int(edges[-1])

    def _label(self, v: VectorSpec, drawn: Mapping[str, Any]) -> Array:
        """One number a unit: drawn from a law, or a row of a matrix."""
        if v.row is None:
            return np.asarray(sample_law(self.stream(f"quenched:{v.name}"), (v.size,), v.law))
        name, index, factor = v.row
        return np.asarray(drawn[name][index % len(drawn[name])] * factor)

    def alignment(self, matrices: Sequence[int]) -> float:
        """Σ over pairs of rows of their products, over all N: how far constraints (say) point one way; mean zero."""
        total = sum(float(np.sum(self.matrices[k].sum(axis=0) ** 2) - np.sum(self.matrices[k] ** 2)) for k in matrices)
        return 0.5 * total / self.place[1]

    def stream(self, name: str) -> np.random.Generator:
        """The generator of a named random object."""
        return stream(*self.place, name)

    # -- called by array functions -----------------------------------------------------------------------------------
    def apply(self, matrix: int, transposed: bool, vector: Any) -> Array:
        """Σ_j M_ij ψ_j for (…, columns)."""
        m = self.matrices[matrix]
        vector = np.asarray(vector, float)
        if vector.ndim == 0:
            vector = np.full(m.shape[0 if transposed else 1], float(vector))
        out: Array = vector @ (m if transposed else m.T)
        return out

    def height(self, function: int, state: Any) -> Array:
        """A random function at states (…, units), kept as an axis of length 1."""
        return self.random_functions[function](state)

    def average(self, body: Any, size: int) -> Array:
        """Mean over units, kept as an axis of length 1."""
        array = np.asarray(body, float)
        return array if array.ndim == 0 else array.mean(-1, keepdims=True)

    def call(self, name: str, state: Array | None = None) -> Array:
        """An array function at states (…, units), or of the labels alone; the empty name is 1."""
        if not name:
            return np.ones(())
        x = None if state is None else [state[..., cut] for cut in self.slices]
        return np.asarray(self.functions[name](self, x), float)

    def number(self, name: str) -> float:
        """A function of parameters alone."""
        return float(self.call(name))

    def per_unit(self, name: str, size: int) -> Array:
        """A function of the labels, one number a unit."""
        return np.ascontiguousarray(np.broadcast_to(self.call(name), (size,)))

    # -- linear maps -------------------------------------------------------------------------------------------------
    def columns(self, recipe: Recipe) -> Array:
        """What a linear map does to every unit of the state, shape (units, rows)."""
        m = self.matrices[recipe.matrix]
        matrix = m.T if recipe.transposed else m
        total = np.zeros((self.units, matrix.shape[0]))
        for coefficient, part in recipe.parts:
            c = np.broadcast_to(self.call(coefficient), (matrix.shape[1],))
            if isinstance(part, int):
                total[self.slices[part]] += (matrix * c).T
            else:
                total += (self.columns(part) * c) @ matrix.T
        return total

    def pair_matrix(self) -> Array:
        """The symmetric matrix A of ½ s·A s, diagonal included; empty where there are no pairs."""
        seconds = [(h, self.random_functions[h.function].degree(2)) for h in self.program.heights]
        if not self.program.pairs and all(t is None for _, t in seconds):
            return np.zeros((0, 0))
        total = np.zeros((self.units, self.units))
        for pair in self.program.pairs:
            self._add_pair(total, pair)
        for h, tensor in seconds:
            if tensor is not None:
                cut = self.slices[h.field]
                total[cut, cut] += self.number(h.coefficient) * tensor
        return total + total.T

    def _add_pair(self, total: Array, pair: Pair) -> None:
        m = self.matrices[pair.matrix]
        matrix = m.T if pair.transposed else m
        left, right = self.slices[pair.left[1]], self.slices[pair.right[1]]
        rows = np.broadcast_to(self.call(pair.left[0]), (matrix.shape[0],))
        cols = np.broadcast_to(self.call(pair.right[0]), (matrix.shape[1],))
        total[left, right] += self.number(pair.coefficient) * rows[:, None] * matrix * cols

    def tensors(self) -> list[tuple[int, Array]]:
        """(first unit, symmetric tensor) of every random function in the exponent, of degree 3 and more."""
        out = []
        for h in self.program.heights:
            c, first = self.number(h.coefficient), int(self.bounds[h.field])
            out += [(first, c * t) for t in self.random_functions[h.function].tensors if t.ndim > 2]
        return out

    def block_columns(self, block: Block) -> Array:
        """Local fields of a block, shape (units, rows, local fields)."""
        return np.stack([self.columns(r) for r in block.recipes], axis=-1)

    def site_labels(self) -> Array:
        """Labels of every unit, shape (units, labels)."""
        width = max((len(f.labels) for f in self.program.fields), default=0)
        out = np.zeros((self.units, max(width, 1)))
        for f, cut in zip(self.program.fields, self.slices, strict=True):
            for k, name in enumerate(f.labels):
                out[cut, k] = self.per_unit(name, cut.stop - cut.start)
        return out

    def _allowed(self, field: StateField, x: Array) -> Array:
        """A state without its rounding, where the units have finitely many values."""
        if not field.atoms:
            return x
        atoms = np.array([self.number(a) for a in field.atoms])
        found = np.asarray(atoms[np.argmin(np.abs(x[:, None] - atoms), axis=1)])
        if np.max(np.abs(found - x), initial=0.0) > 1e-6:
            raise QuenchedError(f"the initial state of {field.name} has values that its prior does not allow")
        return found

    def starting_state(self, rng: np.random.Generator, laws: tuple[Any, ...], replica: int = 0) -> Array:
        """The declared initial state (of one of the copies in turn), else a draw from the prior."""
        x = np.empty(self.units)
        for f, cut, law in zip(self.program.fields, self.slices, laws, strict=True):
            size = cut.stop - cut.start
            own = f.starts[replica % len(f.starts)] if f.starts else ""
            x[cut] = self._allowed(f, self.per_unit(own, size)) if own else draw_prior(rng, size, law)
        return x


def draw_prior(rng: np.random.Generator, size: int, law: Any) -> Array:
    """Independent draws from a prior; a flat one is not normalised, and starts as a standard normal number.

    Of a sphere that is restricted, a state of units ±1, from which rotations reach all others.
    """
    if law[0] == "Flat":
        return rng.standard_normal(size)
    if law[0] not in ("Positive", "Box"):
        return sample_law(rng, (size,), law)
    inner, low, high = law[1:]
    return draw_restricted(rng, size, inner, float(low), float(high))


def draw_restricted(rng: np.random.Generator, size: int, law: Any, low: float, high: float) -> Array:
    """Draws of a law on an interval only."""
    if law[0] == "Spherical":
        signs = [s for s in (-1.0, 1.0) if low <= s <= high]
        if not signs:
            raise QuenchedError(f"no state of units ±1 lies between {low:g} and {high:g}: declare an initial state")
        return rng.choice(np.array(signs), size=size)
    if np.isfinite(high):
        return rng.uniform(low, high, size)
    return np.abs(draw_prior(rng, size, law))


@dataclass
class QuadraticPart:
    """constant + linear·x + ½ x·(pairs + low·dualᵀ + diag(diagonal)) x; `pairs` is empty where there are none."""

    constant: float
    linear: Array
    diagonal: Array
    pairs: Array
    low: Array
    dual: Array


class _Collector:
    """Collects the quadratic part of an exponent."""

    def __init__(self, system: System, most_pairs: int) -> None:
        n = system.units
        self.system, self.dense = system, n <= most_pairs
        self.out = QuadraticPart(0.0, np.zeros(n), np.zeros(n), system.pair_matrix(), *(np.zeros((n, 0)) for _ in "ab"))
        self._sites()
        for block in system.program.blocks:
            if block.smooth:
                cols = system.block_columns(block)
                self._form(cols, block.smooth)
        self._means()
        for h in system.program.heights:
            slope = system.random_functions[h.function].degree(1)
            if slope is not None:
                self.out.linear[system.slices[h.field]] += system.number(h.coefficient) * slope
        for name, population in system.program.levels:
            self.out.constant += float(system.per_unit(name, system.sizes[population]).sum())

    def _sites(self) -> None:
        for f, cut in zip(self.system.program.fields, self.system.slices, strict=True):
            if f.smooth:
                size = cut.stop - cut.start
                level, slope, curvature = self._numbers(f.smooth, size, 1)
                self.out.constant += float(level.sum())
                self.out.linear[cut] += slope[:, 0]
                self.out.diagonal[cut] += curvature[:, 0, 0]

    def _means(self) -> None:
        form = self.system.program.quadratic_means
        if form is None:
            return
        cols = np.zeros((self.system.units, 1, len(form.means)))
        for k, (coefficient, f) in enumerate(form.means):
            cut = self.system.slices[f]
            cols[cut, 0, k] = self.system.per_unit(coefficient, cut.stop - cut.start) / (cut.stop - cut.start)
        self._form(cols, form.smooth)

    def _numbers(self, smooth: Smooth, rows: int, depth: int) -> tuple[Array, Array, Array]:
        level = self.system.per_unit(smooth.level, rows)
        slope = np.stack([self.system.per_unit(n, rows) for n in smooth.slopes], axis=1)
        second = np.stack([self.system.per_unit(n, rows) for n in smooth.curvatures], axis=1)
        return level, slope, second.reshape(rows, depth, depth)

    def _form(self, cols: Array, smooth: Smooth) -> None:
        """Σ_r (level + slope·u + ½ u·curvature u) with u = cols·x."""
        out, n = self.out, self.system.units
        level, slope, second = self._numbers(smooth, *cols.shape[1:])
        out.constant += float(level.sum())
        out.linear += np.einsum("irk,rk->i", cols, slope)
        if self.dense:
            flat, dual = cols.reshape(n, -1), np.einsum("irk,rkl->irl", cols, second).reshape(n, -1)
            out.pairs = (out.pairs if out.pairs.size else np.zeros((n, n))) + flat @ dual.T
            return
        flat, dual = _low_rank(cols, second)
        out.low, out.dual = ((np.hstack([a, b]) if a.size else b) for a, b in ((out.low, flat), (out.dual, dual)))


def _low_rank(cols: Array, second: Array) -> tuple[Array, Array]:
    """Σ_r u_r·curvature_r u_r as low·dualᵀ; products of two fields, equal when exchanged, take half the columns."""
    n = len(cols)
    if cols.shape[2] == 2 and not np.any(second[:, [0, 1], [0, 1]]):
        low, dual = cols[..., 0], cols[..., 1] * second[:, 0, 1]
        z = np.cos(np.arange(n) ** 2)  # any direction
        one, other = low @ (z @ dual), dual @ (z @ low)
        if np.max(np.abs(one - other)) < 1e-10 * np.max(np.abs(one)):
            return np.ascontiguousarray(low), 2 * dual
    return cols.reshape(n, -1), np.einsum("irk,rkl->irl", cols, second).reshape(n, -1)


def quadratic_part(system: System, most_pairs: int | None = None) -> QuadraticPart:
    """The quadratic part of the exponent, as pairs up to this many units (default `MOST_PAIRS`)."""
    return _Collector(system, MOST_PAIRS if most_pairs is None else most_pairs).out


class Chain:
    """One system as the arrays that sweeps take.

    Units that weigh the state by a quadratic function of their local fields become pairs: a matrix of all pairs up to
    `MOST_PAIRS` units, beyond it a product low·dualᵀ of low rank.
    """

    def __init__(self, system: System) -> None:
        program = system.program
        self.system, self.kernel = system, kernel(program.scalar)
        part = quadratic_part(system)
        self.linear, self.constant = part.linear, part.constant
        self.pair, self.low, self.dual = part.pairs, np.ascontiguousarray(part.low), np.ascontiguousarray(part.dual)
        diagonal = part.diagonal + (np.diag(part.pairs) if part.pairs.size else 0.0)
        self.diagonal = np.stack([diagonal, np.einsum("ik,ik->i", self.low, self.dual)], axis=1)
        np.fill_diagonal(self.pair, 0.0)
        self.towers = Towers.of(system.tensors())
        self._rows()
        self.owner = np.repeat(np.arange(len(program.fields)), np.diff(system.bounds))
        self.l = system.site_labels()
        self.field_sizes = np.diff(system.bounds).astype(float)
        self._priors()

    def _rows(self) -> None:
        """Local fields of the units that weigh the state otherwise, all blocks one below the other."""
        system = self.system
        blocks = [(k, b) for k, b in enumerate(system.program.blocks) if not b.smooth]
        arrays = [system.block_columns(b) for _, b in blocks]
        rows, depth = sum(a.shape[1] for a in arrays), max((a.shape[2] for a in arrays), default=1)
        labels = max((len(b.labels) for _, b in blocks), default=0)
        self.cols, self.rb, self.rl = (
            np.zeros((system.units, rows, depth)),
            np.zeros(rows, np.int64),
            np.zeros((rows, labels + 1)),
        )
        start = 0
        for (k, block), array in zip(blocks, arrays, strict=True):
            cut = slice(start, start + array.shape[1])
            self.cols[:, cut, : array.shape[2]] = array
            self.rb[cut] = k
            for j, name in enumerate(block.labels):
                self.rl[cut, j] = system.per_unit(name, array.shape[1])
            start = cut.stop

    def _priors(self) -> None:
        system, fields = self.system, self.system.program.fields
        self.kinds = np.array([KINDS[f.kind] for f in fields])
        most = max((len(f.atoms) for f in fields), default=0)
        self.atoms = np.full((len(fields), max(most, 1)), np.nan)
        self.chances = np.zeros_like(self.atoms)
        for k, f in enumerate(fields):
            for a, (value, chance) in enumerate(zip(f.atoms, f.chances, strict=True)):
                self.atoms[k, a] = system.number(value)
                with np.errstate(divide="ignore"):
                    self.chances[k, a] = np.log(system.number(chance))
        self.mixed = np.array([system.number(f.mixed) if f.mixed else -1.0 for f in fields])

    def quadratic_value(self, state: State) -> float:
        """The linear and quadratic part of the exponent."""
        x = state.x
        value = self.constant + self.linear @ x + 0.5 * x**2 @ self.diagonal[:, 0] + 0.5 * (x @ self.low) @ state.w
        return float(value + (0.5 * x @ (state.field - self.linear)))

    def state(self, x: Array) -> State:
        """A state of the chain, ready to move."""
        return State(self, x)


class State:
    """One state with its local fields."""

    def __init__(self, chain: Chain, x: Array) -> None:
        self.chain, self.x = chain, np.array(x, float)
        rows, depth = chain.cols.shape[1:]
        self.s, self.scratch, self.logs = np.zeros((rows, depth)), np.zeros((rows, depth)), np.zeros(rows)
        self.field, self.w = chain.linear.copy(), np.zeros(chain.low.shape[1])
        self.tower = np.zeros(chain.towers.size)
        self.m = np.zeros(chain.system.program.moments)
        self.width = np.array([np.pi if k == KINDS["sphere"] else 1.0 for k in chain.kinds])
        self.accepted, self.stretched = (np.zeros((len(chain.kinds), 2), np.int64) for _ in "ab")
        self.reach = 1 / np.sqrt(chain.field_sizes)
        self.exponent = 0.0
        self.refresh()

    def refresh(self) -> None:
        """Recompute what is kept (rounding accumulates), and the exponent without the prior."""
        c = self.chain
        if c.pair.size:
            self.field[:] = c.linear + c.pair @ self.x
        self.w[:] = self.x @ c.dual
        rest = c.kernel.prepare(
            self.x, c.owner, c.l, c.system.p, c.field_sizes, c.pair, c.low, c.dual, c.cols, c.rb, c.rl,
            self.s, self.logs, self.field, self.w, self.m,
        )  # fmt: skip
        self.exponent = float(rest) + c.quadratic_value(self) + c.towers.contracted(self.x, self.tower)

    def sweep(self, count: int, rng: np.random.Generator, scale: float, laws: tuple[Any, ...]) -> None:
        """`count` sweeps at exponent × scale; an infinite scale makes only changes that raise the exponent."""
        c, free = self.chain, [int(f) for f in np.flatnonzero(self.chain.kinds == KINDS["continuous"])]
        fresh = np.zeros(1)
        if np.any(c.mixed >= 0):
            slab = next(law[2] for law in laws if law[0] == "SpikeSlab")
            fresh = draw_prior(rng, 4096, slab)
        each = 1 if free and scale < np.inf else count
        for _ in range(0, count, max(each, 1)):
            self.exponent += c.kernel.sweep(
                each, scale, rng, self.x, c.owner, c.system.bounds, c.kinds, c.atoms, c.chances, c.mixed, self.width,
                fresh, c.l, c.system.p, c.field_sizes, c.pair, c.diagonal, c.low, c.dual,
                c.towers.top, self.tower, c.towers.table, c.cols, c.rb, c.rl,
                self.scratch, self.s, self.logs, self.field, self.w, self.m, self.accepted,
            )  # fmt: skip
            if each < count:
                stretch(self, free, rng, scale)
        self.refresh()

    def ln_prior(self, f: int) -> float:
        """ln of the prior density of a field, without its atoms."""
        c = self.chain
        return float(c.kernel.ln_prior(f, c.system.bounds[f], c.system.bounds[f + 1], self.x, c.system.p))

    def kept(self) -> list[Array]:
        """Copies of what is kept of the state."""
        return [a.copy() for a in (self.x, self.s, self.logs, self.field, self.w, self.m, self.tower)]

    def restore(self, kept: list[Array]) -> None:
        """The state as it was."""
        for a, old in zip((self.x, self.s, self.logs, self.field, self.w, self.m, self.tower), kept, strict=True):
            a[:] = old

    def search(self, rng: np.random.Generator, stages: int = 80) -> bool:
        """Simulated annealing in what rows miss; whether a state of positive weight was found."""
        c = self.chain
        for cold in np.geomspace(0.3, 0.002, stages):
            self.refresh()
            left = c.kernel.search(
                8, cold, rng, self.x, c.owner, c.system.bounds, c.kinds, c.atoms, self.width, c.system.p,
                c.cols, c.rb, c.rl, self.s,
            )  # fmt: skip
            if not left:
                break
        self.refresh()
        return bool(np.isfinite(self.exponent))

    def adapt(self) -> None:
        """Step widths towards an acceptance of 0.4, during the burn-in only."""
        self.width = np.minimum(self.width * _towards(self.accepted, 20), np.pi * 4)
        self.reach = np.minimum(self.reach * _towards(self.stretched, 2), 1.0)
        self.accepted[:] = self.stretched[:] = 0


def _towards(moves: NDArray[np.int64], fewest: int) -> Array:
    """Factors of step widths for (accepted, tried) moves, where enough were tried."""
    rate = np.where(moves[:, 1] > fewest, moves[:, 0] / np.maximum(moves[:, 1], 1), 0.4)
    return np.asarray(np.exp(np.clip(rate - 0.4, -0.3, 0.3) * 2))


def every_state(chain: Chain, visit: Callable[[Array, Array], None], most: int, chunk: int = 2**15) -> None:
    """All states in the order of a Gray code: visit(exponents with the prior, states) chunk by chunk.

    Raises
    ------
    QuenchedError
        More states than `most`, or a prior that is not a finite set.
    """
    base = np.array([len(chain.system.program.fields[f].atoms) for f in chain.owner], np.int64)
    count = float(np.prod(base.astype(float)))
    if not 0 < count <= most:
        raise QuenchedError(f"enumeration of {count:.3g} states (at most {most:.3g}): use a smaller N")
    first = np.array([chain.atoms[f, 0] for f in chain.owner])
    state, c = chain.state(first), chain
    sites = [c.kernel.site(f, first[i], c.l[i], c.system.p) for i, f in enumerate(c.owner)]
    high = c.towers.contracted(state.x, state.tower)
    parts = np.array([sum(c.chances[f, 0] for f in c.owner) + c.quadratic_value(state) + sum(sites) + high])
    digits, direction = np.zeros(len(first), np.int64), np.ones(len(first), np.int64)
    done = 0
    while done < count:
        out = np.empty(min(chunk, int(count) - done))
        visited = np.empty((len(out), len(first)))
        c.kernel.gray(
            done == 0, out, visited, digits, direction, parts, state.x, c.owner, c.atoms, base, c.chances,
            c.l, c.system.p, c.field_sizes, c.pair, c.diagonal, c.low, c.dual,
            c.towers.top, state.tower, c.towers.table, c.cols, c.rb, c.rl,
            state.s, state.logs, state.field, state.w, state.m,
        )  # fmt: skip
        visit(out, visited)
        done += len(out)
