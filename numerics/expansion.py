"""The order 1/N about the saddle of a layered problem: covariances and mean shifts of finitely many order parameters.

An order parameter is an average over the units of a product of functions at *places* (a Gaussian argument, a layer, a
sample). With F(O) their averages in the Gaussian law that the order parameters O fix, and Σ their covariances there,

    A = ∂F/∂O,   G = (1 − A)⁻¹,   N·Cov = G Σ Gᵀ,   N·(mean − O*) = G·(½ F'':Cov + Σ_kl ∂Σ_jk/∂O_l G_lk).

Derivatives of Gaussian averages with respect to means and covariances are averages against Hermite polynomials, so that
functions need not be differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from quenched.theory.errors import NotCovered
from quenched.theory.problem import SiteFunction
from quenched.theory.problem_layers import TIME, FirstOrder

from .averages import Averages
from .layers import START, March, Weights
from .public import bare_problem
from .types import Array

#: Where a site function is taken: linear combination of a unit's quantities, layer (or event), sample.
Place = tuple[Weights, int, int]
#: Product of site functions at different places of the units of one population.
Monomial = tuple[tuple[SiteFunction, Place], ...]
#: Linear form in order parameters: monomial → coefficient.
Linear = dict[Monomial, float]
#: Nodes of Gauss–Hermite rules by dimension, and the share of them in the coarser rule that errors come from.
NODES = {0: 1, 1: 320, 2: 90, 3: 36, 4: 17}
_COARSER = 0.75
#: Smallest eigenvalue of a covariance of places, relative to its largest, that derivatives are trusted with.
_SINGULAR = 1e-9


def monomial(factors: Sequence[tuple[SiteFunction, Place]]) -> Monomial:
    """The canonical form of a product: functions at one place are multiplied, places are in order."""
    places: dict[Place, SiteFunction] = {}
    for f, place in factors:
        old = places.get(place)
        places[place] = f if old is None else SiteFunction(f"{old.name}·{f.name}", old.expr * f.expr)
    return tuple((places[p], p) for p in sorted(places, key=repr))


@dataclass(frozen=True)
class Expanded:
    """Covariances and shifts of the observed order parameters.

    Attributes
    ----------
    value : array (k,)
        Their values as N → ∞.
    covariance : array (k, k)
        N·Cov.
    shift : array (k,)
        N·(mean − value).
    covariance_error, shift_error : differences to a coarser quadrature
    """

    value: Array
    covariance: Array
    shift: Array
    covariance_error: Array
    shift_error: Array


def expand(first: FirstOrder, march: March, observed: Sequence[Monomial]) -> Expanded:
    """The order 1/N of some order parameters.

    Raises
    ------
    NotCovered
        Products of more than two functions, vector inputs whose overlaps fluctuate, degenerate covariances.
    """
    fine = Expansion(first, march, observed, 1.0)
    coarse = Expansion(first, march, observed, _COARSER)
    k = len(observed)
    return Expanded(
        fine.values[:k],
        fine.covariance[:k, :k],
        fine.shift[:k],
        np.abs(fine.covariance - coarse.covariance)[:k, :k],
        np.abs(fine.shift - coarse.shift)[:k],
    )


class Expansion:
    """All order parameters that the observed ones depend on, and the expansion in them.

    Attributes
    ----------
    nodes : the order parameters: the observed ones, those that they depend on (`inner` in number with the observed),
        and further ones that only the mean shift needs
    values, gain, sigma, response : O*, A, Σ, G
    covariance, shift : N·Cov, N·(mean − O*) of the first `inner` nodes
    """

    def __init__(self, first: FirstOrder, march: March, observed: Sequence[Monomial], share: float = 1.0) -> None:
        self.weights = {name: march.number(getattr(first, name), START) for name in ("curvature", "pull", "pair")}
        self.march, self.share = march, share
        self._forms: dict[Any, Linear] = {}
        self._functions: dict[Any, Callable[[Array], Array]] = {}
        inner = self._closure(list(observed))
        self.inner = len(inner)
        self.nodes = self._closure([*inner, *self._correlated(inner)])
        self.index = {m: k for k, m in enumerate(self.nodes)}
        self.pieces = [self._derivatives([m], 4) for m in self.nodes]
        self.values = np.array([p.value for p in self.pieces])
        self.gain = self._gain()
        size = len(self.nodes)
        self.response = np.linalg.inv(np.eye(size) - self.gain)
        pull = self.weights["pull"] * self._sigma()
        own = self.response[: self.inner, : self.inner]
        self.covariance = own @ self.sigma @ own.T
        curved = np.array([self._curvature(j) for j in range(self.inner)])
        self.shift = own @ (curved + pull)

    # -- which order parameters there are
    def _closure(self, observed: list[Monomial]) -> list[Monomial]:
        found = dict.fromkeys(observed)
        waiting = list(found)
        while waiting:
            for entry in self._entries([p for _, p in waiting.pop()]):
                for new in self._form(*entry):
                    if new not in found:
                        found[new] = None
                        waiting.append(new)
        return list(found)

    def _correlated(self, inner: list[Monomial]) -> list[Monomial]:
        """Order parameters k with ∂Σ_jk/∂O_l G_lk ≠ 0 for some inner j: l depends on k, and joins j with k."""
        places = list(dict.fromkeys(p for m in inner for _, p in m))
        above: dict[Monomial, set[Monomial]] = {}
        found: dict[Monomial, None] = {}
        for k in self._candidates(places):
            mine = [p for _, p in k]
            for theirs in places:
                for joint in self._entries([theirs, *mine])[1 + len(mine) :]:
                    for l in self._form(*joint):
                        if l not in above:
                            above[l] = set(self._closure([l]))
                        if k in above[l]:
                            found |= {k: None, l: None}
        return list(found)

    def _candidates(self, places: list[Place]) -> list[Monomial]:
        """All overlaps and means of outputs, at the layers and samples that occur, that local fields read."""
        p = self.march.problem
        pairs = dict.fromkeys((c.first, c.second) for c in p.covariance if p.output(c.first).given is None)
        copies = list(dict.fromkeys((at, s) for _, at, s in places if at != START))
        out = [
            monomial([self._output(one, *i), self._output(two, *j)])
            for one, two in pairs
            for i in copies
            for j in copies
        ]
        out += [monomial([self._output(o, *i)]) for o in dict.fromkeys(o for _, _, o in p.mean) for i in copies]
        return list(dict.fromkeys(out))

    @staticmethod
    def _entries(places: Sequence[Place]) -> list[tuple[Place, ...]]:
        """Means (one place) and covariances (two places) that a product depends on."""
        pairs = [(p, q) for i, p in enumerate(places) for q in places[i:]]
        return [*((p,) for p in places), *pairs]

    # -- means and covariances as linear forms in the order parameters
    def _form(self, one: Place, two: Place | None = None) -> Linear:
        key = (one, two)
        if key not in self._forms:
            self._forms[key] = self._mean_form(one) if two is None else self._covariance_form(one, two)
        return self._forms[key]

    def _mean_form(self, place: Place) -> Linear:
        weights, at, sample = place
        return _sum((self.march.number(w, at), self._mean_of(n, at, sample)) for n, w in weights)

    def _mean_of(self, name: str, at: int, sample: int) -> Linear:
        key = ("mean", name, at, sample)
        if key not in self._forms:
            p, march = self.march.problem, self.march
            if name in p.states:
                parts = march._parts(name, at)
                self._forms[key] = _sum((gain, self._mean_of(u, at - 1, sample)) for u, gain in parts.items())
            else:
                rows = [(march.number(c, at), self._output(o, at, sample)) for u, c, o in p.mean if u == name]
                self._forms[key] = _sum((c, {monomial([factor]): 1.0}) for c, factor in rows)
        return self._forms[key]

    def _output(self, name: str, at: int, sample: int) -> tuple[SiteFunction, Place]:
        out = self.march.problem.output(name)
        if out.factor:
            raise NotCovered(f"fluctuations with the product {name} of two Gaussian quantities are not built yet")
        f = out.f if not out.f.expr.has(TIME) else SiteFunction(f"{out.f.name}[{at}]", out.f.expr.subs(TIME, at))
        return f, (out.argument, at, sample)

    def _covariance_form(self, one: Place, two: Place) -> Linear:
        (left, a, i), (right, b, j) = one, two
        number = self.march.number
        return _sum(
            (number(w, a) * number(z, b), self._covariance_of(x, y, a, b, i, j)) for x, w in left for y, z in right
        )

    def _covariance_of(self, x: str, y: str, a: int, b: int, i: int, j: int) -> Linear:
        key = ("cov", x, y, a, b, i, j)
        if key not in self._forms:
            self._forms[key] = self._made(x, y, a, b, i, j)
        return self._forms[key]

    def _made(self, x: str, y: str, a: int, b: int, i: int, j: int) -> Linear:
        p, march = self.march.problem, self.march
        if p.population[x] != p.population[y]:
            return {}
        if x in p.states:
            down = 1 if y in p.states else 0
            others = march._parts(y, b) if down else {y: 1.0}
            return _sum(
                (gain * other, self._covariance_of(u, v, a - 1, b - down, i, j))
                for u, gain in march._parts(x, a).items()
                for v, other in others.items()
            )
        if y in p.states:
            return self._covariance_of(y, x, b, a, j, i)
        total: list[tuple[float, Linear]] = []
        for c in p.covariance:
            if (c.same and a != b) or {c.u, c.v} != {x, y} or p.output(c.first).given is not None:
                continue
            first, second = (c.first, c.second) if (c.u, c.v) == (x, y) else (c.second, c.first)
            node = monomial([self._output(first, a, i), self._output(second, b, j)])
            total.append((march.number(c.coef, a), {node: 1.0}))
        return _sum(total)

    # -- averages and their derivatives
    def _derivatives(self, monomials: Sequence[Monomial], order: int) -> Derivatives:
        joint = monomial([factor for m in monomials for factor in m])
        places = [p for _, p in joint]
        if order == 4 and len(places) > 2:
            raise NotCovered("fluctuations of averages of more than two quantities are not built yet")
        mean = np.array([self.march.combined_mean(w, at)[s] for w, at, s in places])
        cov = np.array([[self.march.combined(p[0], q[0], p[1], q[1])[p[2], q[2]] for q in places] for p in places])
        functions = [self._function(f) for f, _ in joint]
        count = max(3, round(NODES[len(places)] * self.share))
        return derivatives(functions, places, mean, cov, order, count)

    def _function(self, f: SiteFunction) -> Callable[[Array], Array]:
        if f not in self._functions:
            averages = Averages(bare_problem(f, f, None), None, self.march.values)
            self._functions[f] = averages.site(averages.generated.site(f)).value
        return self._functions[f]

    # -- the expansion
    def _gain(self) -> Array:
        out = np.zeros((len(self.nodes), len(self.nodes)))
        for j, (node, piece) in enumerate(zip(self.nodes, self.pieces, strict=True)):
            for entry in self._entries([p for _, p in node]):
                slope = piece.slope(entry)
                for other, coef in self._form(*entry).items():
                    out[j, self.index[other]] += slope * coef * (self.weights["pair"] if len(other) == 2 else 1.0)
        return out

    def _sigma(self) -> Array:
        """Fills Σ; returns Σ_kl ∂Σ_jk/∂O_l G_lk for every j."""
        inner, size = self.inner, len(self.nodes)
        self.sigma, pull = np.zeros((inner, inner)), np.zeros(inner)
        shares = [self._share(node) for node in self.nodes]
        for j in range(inner):
            for k in range(j, size):
                if shares[j][0] != shares[k][0]:
                    continue
                share = shares[j][1]
                product_ = self._derivatives([self.nodes[j], self.nodes[k]], 2)
                if k < inner:
                    self.sigma[j, k] = self.sigma[k, j] = (product_.value - self.values[j] * self.values[k]) / share
                slopes = self._connected(product_, j, k)
                for first, second in {(j, k), (k, j)}:
                    if first >= inner:
                        continue
                    pull[first] += (
                        sum(
                            slope * coef * self.response[self.index[node], second]
                            for slope, form in slopes
                            for node, coef in form.items()
                            if node in self.index  # the others do not depend on any k
                        )
                        / share
                    )
        return pull

    def _connected(self, joint: Derivatives, j: int, k: int) -> list[tuple[float, Linear]]:
        """∂Σ_jk by every mean and covariance that it depends on, with the linear form of each."""
        rows = []
        for entry in self._entries(joint.places):
            form = self._form(*entry)
            if form:
                own = self.pieces[j].slope(entry) * self.values[k] + self.values[j] * self.pieces[k].slope(entry)
                rows.append((joint.slope(entry) - own, form))
        return rows

    def _share(self, node: Monomial) -> tuple[str, float]:
        p = self.march.problem
        names = {p.population[n] for _, (weights, _, _) in node for n, _ in weights}
        name = names.pop()
        return name, self.march.number(p.fractions[name], START)

    def _curvature(self, j: int) -> float:
        """curvature · Σ_kl ∂²F_j/∂O_k∂O_l V_kl."""
        piece, total = self.pieces[j], 0.0
        entries = [(e, self._vector(self._form(*e))) for e in self._entries([p for _, p in self.nodes[j]])]
        for (one, left), (two, right) in product(entries, repeat=2):
            total += self.weights["curvature"] * piece.curvature(one, two) * float(left @ self.covariance @ right)
        return total

    def _vector(self, form: Linear) -> Array:
        out = np.zeros(self.inner)
        for node, coef in form.items():
            out[self.index[node]] += coef
        return out


def _sum(parts: Any) -> Linear:
    """Σ coefficient · linear form."""
    out: Linear = {}
    for scale, form in parts:
        for node, coef in form.items():
            out[node] = out.get(node, 0.0) + scale * coef
    return {node: coef for node, coef in out.items() if coef != 0}


# --- derivatives of Gaussian averages ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Derivatives:
    """⟨F⟩ of a product of functions at places, and ⟨∂_p ∂_q … F⟩ as tensors by number of derivatives."""

    places: list[Place]
    value: float
    tensors: list[Array]

    def _positions(self, entry: tuple[Place, ...]) -> tuple[tuple[int, ...], float] | None:
        if any(p not in self.places for p in entry):
            return None
        at = tuple(self.places.index(p) for p in entry)
        return at, 0.5 if len(at) == 2 and at[0] == at[1] else 1.0

    def slope(self, entry: tuple[Place, ...]) -> float:
        """Derivative by a mean (one place) or a covariance (two places)."""
        found = self._positions(entry)
        return 0.0 if found is None else found[1] * float(self.tensors[len(found[0])][found[0]])

    def curvature(self, one: tuple[Place, ...], two: tuple[Place, ...]) -> float:
        """Second derivative by two of them."""
        first, second = self._positions(one), self._positions(two)
        if first is None or second is None:
            return 0.0
        at = (*first[0], *second[0])
        return first[1] * second[1] * float(self.tensors[len(at)][at])


def derivatives(
    functions: Sequence[Callable[[Array], Array]],
    places: list[Place],
    mean: Array,
    cov: Array,
    order: int,
    count: int,
) -> Derivatives:
    """⟨F⟩ and its derivatives up to `order` by Gauss–Hermite quadrature in whitened coordinates.

    Raises
    ------
    NotCovered
        A covariance that is singular: some quantities of different copies are the same number.
    """
    size = len(places)
    if size == 0:
        value = float(np.prod([f(np.zeros(1))[0] for f in functions]))
        return Derivatives(places, value, [np.array(value)])
    spread, basis = np.linalg.eigh(cov)
    if spread[0] < _SINGULAR * spread[-1]:
        raise NotCovered("two order parameters of different copies are the same: their expansion is degenerate")
    root = basis * np.sqrt(spread)
    back = basis / np.sqrt(spread)  # the transposed inverse of root
    hermite, weight, nodes = _rule(_counts(spread, count), order)
    u = mean[:, None] + root @ nodes
    values = weight.copy()
    for f, row in zip(functions, u, strict=True):
        values = values * f(row)
    tensors: list[Array] = [np.array(values.sum())]
    for k in range(1, order + 1):
        raw = np.empty((size,) * k)
        for at in product(range(size), repeat=k):
            powers = [at.count(i) for i in range(size)]
            raw[at] = values @ np.prod([hermite[n, i] for i, n in enumerate(powers)], axis=0)
        for _ in range(k):  # each contraction moves the next axis to the back
            raw = np.tensordot(raw, back, axes=([0], [1]))
        tensors.append(raw)
    return Derivatives(places, float(tensors[0]), tensors)


def _counts(spread: Array, count: int) -> tuple[int, ...]:
    """Nodes along every principal axis: more where functions vary more, count^size together."""
    share = np.sqrt(spread) + 0.15 * np.sqrt(spread[-1])
    share = share / np.exp(np.mean(np.log(share)))
    return tuple(int(n) for n in np.maximum(5, np.round(count * share)))


@lru_cache(maxsize=48)
def _rule(counts: tuple[int, ...], order: int) -> tuple[Array, Array, Array]:
    """Hermite polynomials (order + 1, size, points), weights (points,) and nodes (size, points)."""
    rules = [np.polynomial.hermite_e.hermegauss(n) for n in counts]
    nodes = np.array([g.ravel() for g in np.meshgrid(*(x for x, _ in rules), indexing="ij")])
    weight = np.prod([g.ravel() for g in np.meshgrid(*(w / w.sum() for _, w in rules), indexing="ij")], axis=0)
    keep = weight > 1e-22
    nodes, weight = nodes[:, keep], weight[keep]
    hermite = [np.ones_like(nodes), nodes]
    for n in range(1, order):
        hermite.append(nodes * hermite[n] - n * hermite[n - 1])
    return np.array(hermite[: order + 1]), weight, nodes
