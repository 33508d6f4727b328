"""Sites at given parameter values: the cases of their labels, and the parts of their measure in each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil
from typing import Any

import numpy as np
from sympy import Add, DiracDelta, Expr, Float, Mul, Poly, S, Symbol, expand_log, expand_mul, lambdify, log

from quenched.theory.errors import ConvergenceError, NotCovered
from quenched.theory.problem_replicas import Piece, ReplicaSite, X

from .quadrature import legendre
from .replica_cold import cold_parts
from .replica_parts import Part, arguments, log_density, middle_of, parts_of, resolve, roots
from .replica_signs import FEW, FreeLabel
from .replica_sites import Case, Site
from .replica_smooth import LabelledDensity, products
from .types import Array

#: Sets of values of labels that are written out.
MOST = 2**21
#: Sets of values of labels at which one smooth weight is taken at once.
MOST_TOGETHER = 2**14
#: Of these, how many at a time where weights are integrated over.
FEW_SMOOTH = 64
_Label = tuple[Symbol, tuple[tuple[Expr, Expr], ...], Expr]
_SETS: ContextVar[int] = ContextVar("sets", default=0)


@contextmanager
def sets_of_labels(count: int) -> Iterator[None]:
    """Take so many random sets of values, equally likely, for the law of labels that are too many to write out.

    Equations of a site hold for any joint law of its labels; with few sets both sides of one can be summed over them.
    """
    token = _SETS.set(count)
    try:
        yield
    finally:
        _SETS.reset(token)


def make_site(site: ReplicaSite, values: dict[Symbol, float], fine: float = 1.0) -> Site:
    """Find the parts of a site at the given values; `fine` scales the nodes of labels and of smooth weights.

    Labels that the measure does not depend on only enlarge its cases; of the others, those with atoms give one case a
    value, and continuous ones are split where the measure changes its form.
    """
    pieces = [Piece(p.value, p.weight.xreplace(values), p.energy.xreplace(values)) for p in site.pieces]
    inside = [q for q, _, _ in site.labels if any(p.weight.has(q) or p.energy.has(q) for p in pieces)]
    axes = {q: (atoms, density.xreplace(values)) for q, atoms, density in site.labels}
    channel = site.kind == "channel"
    cases = _Cases(values, site.name, site.cold, channel, fine).of(pieces, [(q, *axes[q]) for q in inside])
    outside = [(q, atoms) for q, atoms, _ in site.labels if q not in inside and atoms]
    free = [q for q, _ in outside] if np.prod([float(len(a)) for _, a in outside]) > FEW else []
    for q, atoms, density in site.labels:
        if q not in inside and q not in free:
            nodes, p = label_nodes(q, atoms, density.xreplace(values), values, [], fine)
            if len(nodes) * sum(len(case.probability) for case in cases) > MOST:
                raise NotCovered(
                    f"site {site.name} sees {len(site.labels)} labels, too many with continuous laws (such as {q}): "
                    "any number of labels with finitely many values is covered"
                )
            cases = [_enlarged(case, q, nodes, p) for case in cases]
    signs = tuple(FreeLabel(q, *label_nodes(q, atoms, S.Zero, values, [])) for q, atoms in outside if q in free)
    if signs and _SETS.get():
        cases, signs = [_drawn(case, signs, _SETS.get()) for case in cases], ()
    return Site(site.kind, tuple(_merged(cases)), site.name, site.cold, signs, fine)


def _merged(cases: list[Case]) -> list[Case]:
    """Cases of equal parts as one."""
    groups: dict[Any, list[Case]] = {}
    for k, case in enumerate(cases):
        plain = all(np.isscalar(a.lo) and a.smooth is None for a in case.parts) and case.labels
        key = tuple((a.lo, a.hi, *map(float, a.c or ())) for a in case.parts) if plain and _flat(case) else k
        groups.setdefault(key, []).append(case)
    return [g[0] if len(g) == 1 else _joined(g) for g in groups.values()]


def _flat(case: Case) -> bool:
    return all(np.isscalar(c) for a in case.parts for c in a.c or ())


def _joined(cases: list[Case]) -> Case:
    labels = {q: np.concatenate([c.labels[q] for c in cases]) for q in cases[0].labels}
    return Case(labels, np.concatenate([c.probability for c in cases]), cases[0].parts)


@dataclass(frozen=True)
class _Cases:
    """Cases of the labels that a measure depends on, at given parameter values."""

    values: dict[Symbol, float]
    name: str
    cold: bool
    channel: bool
    fine: float

    def of(self, pieces: list[Piece], labels: list[_Label]) -> list[Case]:
        if not labels:
            parts = [part for piece in pieces for part in self.parts(piece)]
            if not parts:
                raise ConvergenceError(f"the weight of site {self.name} vanishes everywhere at these parameters")
            return [Case({}, np.ones((1, 1)), tuple(parts))]
        if len(labels) > 1 and (case := self._quadratic(pieces, labels)) is not None:
            return [case]
        if (whole := self._smooth(pieces, labels)) is not None:
            return [whole]
        if not any(atoms for _, atoms, _ in labels) and (cases := self._together(pieces, labels)) is not None:
            return cases
        (q, atoms, density), rest = labels[0], labels[1:]
        corners = [] if atoms else label_kinks([e for p in pieces for e in (p.weight, p.energy)], q)
        nodes, p = label_nodes(q, atoms, density, self.values, corners, self.fine)
        if atoms or rest:
            return self._one_by_one(pieces, q, nodes, p, rest)
        out: list[Case] = []
        on = np.isin(nodes, corners)
        if on.any():
            out += self._one_by_one(pieces, q, nodes[on], p[on], rest)
        for lo, hi in pairwise([-np.inf, *corners, np.inf]):
            here = (nodes > lo) & (nodes < hi)
            if here.any():
                found = self._interval(pieces, {q: nodes[here]}, p[here])
                out += self._one_by_one(pieces, q, nodes[here], p[here], []) if found is None else found
        return out

    def _quadratic(self, pieces: list[Piece], labels: list[_Label]) -> Case | None:
        """One case of all labels of an exponent that is quadratic in the variable and in Gaussian labels together.

        Then L is quadratic in these labels, and a few nodes of each are exact.
        """
        if len(pieces) != 1 or pieces[0].value is not None or arguments(pieces[0].weight) | arguments(pieces[0].energy):
            return None
        weight, energy = pieces[0].weight, pieces[0].energy
        exponent = (-energy if self.cold else expand_log(log(weight), force=True)).expand()
        smooth = [X, *(q for q, atoms, _ in labels if not atoms)]
        if not exponent.is_polynomial(*smooth) or Poly(exponent, *smooth).total_degree() > 2:
            return None
        grids = []
        for q, atoms, density in labels:
            found = label_nodes(q, atoms, density, self.values, []) if atoms else normal_nodes(density)
            if found is None:
                return None
            grids.append(found)
        nodes = np.meshgrid(*(u for u, _ in grids), indexing="ij")
        chance = np.prod(np.meshgrid(*(p for _, p in grids), indexing="ij"), axis=0).reshape(-1, 1)
        own = {q: u.reshape(-1, 1) for (q, _, _), u in zip(labels, nodes, strict=True)}
        c = [
            lambdify(list(own), exponent.coeff(X, k), "numpy")(*own.values()) + np.zeros_like(chance) for k in range(3)
        ]
        return Case(own, chance, (Part(-np.inf, np.inf, (c[0], c[1], 2 * c[2])),))

    def _smooth(self, pieces: list[Piece], labels: list[_Label]) -> Case | None:
        """One case of all labels of a weight of a local field that is one smooth function of them and of the field."""
        if self.cold or not self.channel or len(pieces) != 1 or pieces[0].value is not None:
            return None
        weight = pieces[0].weight
        exponent = expand_log(log(weight), force=True)
        if arguments(weight) or not weight.has(X):
            return None
        if exponent.expand().is_polynomial(X) and Poly(exponent.expand(), X).degree() <= 2:
            return None
        grids = [label_nodes(q, atoms, density, self.values, [], self.fine) for q, atoms, density in labels]
        if np.prod([float(len(u)) for u, _ in grids]) > MOST_TOGETHER:
            return None
        nodes, chance = products(grids)
        names = [q for q, _, _ in labels]
        density = LabelledDensity(log_density([X, *names], exponent), tuple(nodes))
        own = {q: u[:, None] for q, u in zip(names, nodes, strict=True)}
        return Case(own, chance[:, None], (Part(-np.inf, np.inf, None, density),))

    def _one_by_one(self, pieces: list[Piece], q: Symbol, nodes: Array, p: Array, rest: list[_Label]) -> list[Case]:
        out = []
        for value, probability in zip(nodes, p, strict=True):
            for case in self.of([_put(a, {q: Float(value)}) for a in pieces], rest):
                own = np.full_like(case.probability, value)
                out.append(Case(case.labels | {q: own}, case.probability * probability, case.parts))
        return out

    def _together(self, pieces: list[Piece], labels: list[_Label]) -> list[Case] | None:
        """Cases of several continuous labels, between their kinks; None where kinks depend on more than one of them."""
        expressions = [e for p in pieces for e in (p.weight, p.energy)]
        names = {q for q, _, _ in labels}
        if len(labels) < 2 or any(len(a.free_symbols & names) > 1 for e in expressions for a in arguments(e)):
            return None
        axes = []
        for q, _, density in labels:
            corners = label_kinks(expressions, q)
            nodes, p = label_nodes(q, None, density, self.values, corners, self.fine)
            if np.isin(nodes, corners).any():
                return None
            axes.append(np.split(np.array([nodes, p]), np.searchsorted(nodes, corners), axis=1))
        if np.prod([float(sum(a.shape[1] for a in axis)) for axis in axes]) > MOST:
            return None
        out: list[Case] = []
        for cell in product(*([a for a in axis if a.shape[1]] for axis in axes)):
            grids = np.meshgrid(*(a[0] for a in cell), indexing="ij")
            chance = np.prod(np.meshgrid(*(a[1] for a in cell), indexing="ij"), axis=0).ravel()
            found = self._interval(pieces, {q: u.ravel() for (q, _, _), u in zip(labels, grids, strict=True)}, chance)
            if found is None:
                return None
            out += found
        return out

    def _interval(self, pieces: list[Piece], at: dict[Symbol, Array], p: Array) -> list[Case] | None:
        """Cases of continuous labels between their kinks: None unless the parts vary smoothly with them."""
        middle = {q: float(nodes[_middle(nodes)]) for q, nodes in at.items()}
        fixed = pieces
        for q in at:
            fixed = [Piece(a.value, resolve(a.weight, middle, q), resolve(a.energy, middle, q)) for a in fixed]
        own = {q: nodes[:, None] for q, nodes in at.items()}
        if not any(a.weight.has(*at) or a.energy.has(*at) for a in fixed):
            return [Case(own, p[:, None], self.of(fixed, [])[0].parts)]
        varying: list[Part] = []
        for a in fixed:
            found = smooth_parts(a, at, self.values, self.cold, self.channel)
            if found is None:
                return None
            varying += found
        return list(_chunks(Case(own, p[:, None], tuple(varying))))

    def parts(self, piece: Piece) -> list[Part]:
        """The parts of one piece of a base measure."""
        if piece.value is None:
            return cold_parts(piece.weight, piece.energy) if self.cold else parts_of(piece.weight)
        size, at = float(piece.weight), float(piece.value.xreplace(self.values))
        exponent = -float(piece.energy) if self.cold else np.log(size) if size > 0 else 0.0
        return [Part(at, at, (float(exponent), 0.0, 0.0))] if size > 0 else []


def _put(piece: Piece, at: dict[Symbol, Float]) -> Piece:
    return Piece(piece.value, piece.weight.xreplace(at), piece.energy.xreplace(at))


def _middle(nodes: Array) -> int:
    """Index of the value in the middle."""
    return int(np.argsort(nodes, kind="stable")[len(nodes) // 2])


def _chunks(case: Case) -> Iterator[Case]:
    """The case in pieces that fit into memory, where its weights are integrated."""
    count = len(case.probability)
    most = FEW_SMOOTH if any(part.c is None for part in case.parts) else max(count, 1)
    for first in range(0, count, most):
        row = slice(first, first + most)

        def take(a: Any, row: slice = row) -> Any:
            return a[row] if isinstance(a, np.ndarray) and a.shape[0] > 1 else a

        labels = {q: take(nodes) for q, nodes in case.labels.items()}
        yield Case(labels, case.probability[row], tuple(part.taken(take) for part in case.parts))


def smooth_parts(
    piece: Piece, at: dict[Symbol, Array], values: dict[Symbol, float], cold: bool = False, channel: bool = False
) -> list[Part] | None:
    """Parts of a weight that depends smoothly on labels: arrays over their values, None where that does not suffice."""
    nodes, columns = list(at.values()), [u[:, None] for u in at.values()]
    ones = np.ones_like(columns[0])
    if piece.value is not None:
        exponent = -piece.energy if cold else log(piece.weight)
        with np.errstate(divide="ignore"):
            size = lambdify(list(at), exponent.xreplace(values), "numpy")(*columns) * ones
        where = float(piece.value.xreplace(values))
        return [Part(where, where, (size, 0.0, 0.0))]
    roots_of: list[Expr] = []
    for argument in arguments(piece.weight) | arguments(piece.energy):
        if not argument.has(X):
            return None
        poly = Poly(argument, X) if argument.is_polynomial(X) else None
        if poly is None or poly.degree() != 1:
            return None
        roots_of.append(-poly.coeff_monomial(1) / poly.coeff_monomial(X))
    ends = [lambdify(list(at), e, "numpy")(*nodes) + np.zeros(len(ones)) for e in dict.fromkeys(roots_of)]
    middle = _middle(np.asarray(nodes[0]))
    ends = sorted(ends, key=lambda e: float(e[middle]))
    if len(ends) > 1 and (np.diff(np.stack(ends), axis=0) < 0).any():
        return None
    edges = [np.full(len(ones), -np.inf), *ends, np.full(len(ones), np.inf)]
    out: list[Part] = []
    for lo, hi in pairwise(edges):
        here = {q: float(u[middle]) for q, u in at.items()} | {X: middle_of(lo[middle], hi[middle])}
        inside = resolve(piece.weight, here)
        if inside == 0:
            continue
        exponent = -resolve(piece.energy, here) if cold else expand_log(log(inside), force=True)
        part = _part(exponent.expand(), at, lo, hi, channel and not cold)
        if part is None:
            return None
        out.append(part)
    return out


def _part(exponent: Expr, at: dict[Symbol, Array], lo: Array, hi: Array, integrated: bool) -> Part | None:
    """One part of a log density in `X` and in labels, on an interval for each of their values."""
    columns = [u[:, None] for u in at.values()]
    none = np.zeros_like(columns[0])
    if exponent.is_polynomial(X) and Poly(exponent, X).degree() <= 2:
        c = [lambdify(list(at), exponent.coeff(X, k), "numpy")(*columns) + none for k in range(3)]
        return Part(lo[:, None], hi[:, None], (c[0], c[1], 2 * c[2]))
    if not integrated:
        return None
    ends = [float(e[0]) if np.all(e == e[0]) else e[:, None] for e in (lo, hi)]
    return Part(ends[0], ends[1], None, LabelledDensity(log_density([X, *at], exponent), tuple(at.values())))


def _drawn(case: Case, labels: tuple[FreeLabel, ...], count: int) -> Case:
    """A case for each of some random sets of values of labels, on which its parts do not depend."""
    rng = np.random.default_rng(len(labels))
    values = {q.symbol: q.values[rng.choice(len(q.values), count, p=q.weights)] for q in labels}
    first, chance = labels[0].symbol, np.full(count, 1 / count)
    out = _enlarged(case, first, values[first], chance)
    rest = {q: np.tile(nodes, len(case.probability))[:, None] for q, nodes in values.items()}
    return Case(out.labels | rest, out.probability, out.parts)


def _enlarged(case: Case, q: Symbol, nodes: Array, p: Array) -> Case:
    """A case for every value of one more label, on which its parts do not depend."""
    n, more = len(case.probability), len(nodes)

    def spread(value: Any) -> Any:
        return np.repeat(value, more, axis=0) if isinstance(value, np.ndarray) else value

    labels = {s: spread(a) for s, a in case.labels.items()} | {q: np.tile(nodes, n)[:, None]}
    probability = spread(case.probability) * np.tile(p, n)[:, None]
    if n == 1:
        return Case(labels, probability, case.parts)
    return Case(labels, probability, tuple(part.taken(spread) for part in case.parts))


def label_nodes(
    q: Symbol, atoms: Any, density: Expr, values: dict[Symbol, float], corners: list[float], fine: float = 1.0
) -> tuple[Array, Array]:
    """Values of a label with their probabilities: atoms, or nodes of a quadrature split at the corners."""
    if atoms:
        pairs = [(float(a.xreplace(values)), float(p.xreplace(values))) for a, p in atoms]
        return np.array([a for a, _ in pairs]), np.array([p for _, p in pairs])
    points, densities = split_density(density)
    nodes, weights = [np.array([a for a, _ in points])], [np.array([p for _, p in points])]
    for part in (part for smooth in densities for part in parts_of(smooth)):
        lo, hi = _reach(part)
        cut = [c for c in corners if lo < c < hi]
        if not cut and part.c is not None and not np.isfinite([part.lo, part.hi]).any():
            u = np.linspace(lo, hi, int(60 * fine) | 1)
            w = np.full(len(u), u[1] - u[0])
        else:
            edges = _graded([lo, *cut, hi], cut)
            x, weight = legendre(ceil(fine * (10 if cut else 80)))
            half = np.diff(edges) / 2
            u = ((edges[:-1] + half)[:, None] + half[:, None] * x).ravel()
            w = (half[:, None] * weight).ravel()
        nodes.append(u)
        weights.append(w * np.exp(_log_density(part, u)))
    return np.concatenate(nodes), np.concatenate(weights)


def split_density(density: Expr) -> tuple[list[tuple[float, float]], list[Expr]]:
    """Atoms (value, probability) of a density in `X`, and its other terms: each of a mixture by itself."""
    points, smooth = [], []
    for term in Add.make_args(expand_mul(density)):
        deltas = [d for d in Mul.make_args(term) if isinstance(d, DiracDelta)]
        if deltas:
            points += [(at, float((term / deltas[0]).xreplace({X: Float(at)}))) for at in roots(deltas[0].args[0])]
        elif term != 0:
            smooth.append(term)
    return points, smooth


def _log_density(part: Part, u: Array) -> Array:
    if part.c is None:
        assert part.smooth is not None
        return np.asarray(part.smooth(u))
    return np.asarray(part.c[0] + part.c[1] * u + part.c[2] * u**2 / 2)


def normal_nodes(density: Expr, count: int = 5) -> tuple[Array, Array] | None:
    """Gauss–Hermite nodes of a Gaussian density, None for others."""
    if density.has(DiracDelta):
        return None
    parts = parts_of(density)
    if len(parts) != 1 or parts[0].c is None or np.isfinite([parts[0].lo, parts[0].hi]).any() or parts[0].c[2] >= 0:
        return None
    _, c1, c2 = parts[0].c
    x, w = np.polynomial.hermite_e.hermegauss(count)
    return (c1 / -c2) + x / np.sqrt(-c2), w / np.sqrt(2 * np.pi)


def _graded(ends: list[float], cut: list[float]) -> Array:
    """Edges of panels, finer towards the cuts."""
    edges = set(ends)
    for lo, hi in pairwise(ends):
        width = hi - lo
        for f in (0.03, 0.1, 0.25, 0.5):
            if lo in cut:
                edges.add(lo + f * width)
            if hi in cut:
                edges.add(hi - f * width)
        edges.add((lo + hi) / 2)
    return np.array(sorted(edges))


def label_kinks(weights: list[Expr], q: Symbol) -> list[float]:
    """Where a weight changes its form as a label varies: steps in the label, and in coefficients of `X` inside them."""
    found: set[float] = set()
    for weight in weights:
        for argument in arguments(weight):
            if not argument.has(q):
                continue
            if not argument.has(X):
                found |= roots(argument.xreplace({q: X}))
            elif argument.is_polynomial(X):
                lead = Poly(argument, X).LC()
                if lead.has(q) and lead.is_polynomial(q):
                    found |= roots(lead.xreplace({q: X}))
    return sorted(found)


def _reach(part: Part) -> tuple[float, float]:
    """Where a piece of a law has its mass."""
    if part.c is None:
        raise NotCovered("a label whose density is neither Gaussian nor exponential between its kinks")
    _, c1, c2 = part.c
    if c2 < 0:
        centre, width = c1 / -c2, 9.5 / np.sqrt(-c2)
    elif c1 != 0:
        centre, width = (part.lo if c1 < 0 else part.hi), 40 / abs(c1)
    else:
        return part.lo, part.hi
    return max(part.lo, centre - width), min(part.hi, centre + width)
