"""Replica symmetry broken in k steps: blocks within blocks.

Replicas form blocks of x₁ members, these blocks of x₂ members, and so on; two replicas have the overlap of the smallest
block that they share. With x₀ = n and x_{k+1} = 1 a replica has x_l − x_{l+1} partners at level l, so that a sum over
pairs is

    Σ_ab f(Q_ab) = n [f(Q) + Σ_l (x_l − x_{l+1}) f(q_l)].

A site gets one Gaussian field a level, and its log-partition function is nested: M_{k+1} = L and
M_l(b) = (1/x_l) ln E exp(x_l M_{l+1}(b + √k_l z)). Replica symmetry is k = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Expr, Matrix, Mul, Rational, S, Symbol, eye

from quenched.theory.errors import NotCovered
from quenched.theory.laws import strong_mean
from quenched.theory.priors import fixed_norm, on_sphere
from quenched.theory.problem_replicas import L, ReplicaProblem, TreeAverage
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, text
from quenched.theory.replica_ansatz import Ansatz, Given, _at, averaged, orbit_of
from quenched.theory.replica_cold import cold_site, leading
from quenched.theory.replica_forms import Orbit, Variable, polynomial, replica_site
from quenched.theory.replica_limit import label_part
from quenched.theory.replica_lower import COLD, ReplicatedAction
from quenched.theory.replica_state import ReplicaState, closure
from quenched.theory.saddle import SiteProblem
from quenched.theory.terms import Term


@dataclass(frozen=True)
class BlockSite:
    """Field of one site: mean b, variance k of the outermost field, (variance, size) of the inner ones, V of x²/2.

    `given` lists local fields that are disorder, as under replica symmetry.
    """

    variable: Variable
    b: Expr
    k: Expr
    levels: tuple[tuple[Expr, Expr], ...]
    v: Expr
    given: tuple[tuple[str, tuple[tuple[Expr, Symbol, Expr], ...]], ...] = ()

    def average(self, what: str, level: int, poly: Expr, scale: Expr = S.One) -> Expr:
        """A nested average of this site, with a factor in its labels."""
        own, labels = self.variable.population, self.variable.weight.labels
        return TreeAverage(own, what, level, poly, self.b, self.k, self.v, self.levels, labels, scale)


@dataclass(frozen=True)
class BlockAction(Form):
    """The free entropy per replica as n → 0, in blocks.

    Attributes
    ----------
    problem : the single-site problem of n copies
    values : orbit → its value at every level (one entry for orbits of a single replica)
    sizes : x₁, …, x_k
    terms : algebraic part of the free entropy
    sites, multipliers : as under replica symmetry
    """

    name: ClassVar[str] = "blocks of replicas"
    problem: SiteProblem
    values: dict[Orbit, tuple[Expr, ...]]
    sizes: tuple[Symbol, ...]
    terms: Expr
    sites: tuple[BlockSite, ...]
    multipliers: dict[str, Symbol]

    def __hash__(self) -> int:
        return hash((self.terms, self.sites))

    @property
    def value(self) -> Expr:
        """The free entropy."""
        return self.terms + Add(*(s.variable.fraction * s.average("log", 1, L[0]) for s in self.sites))

    def lines(self) -> list[Line]:
        out = [equation_line(Symbol("Phi"), self.value)]
        for s in self.sites:
            fields = ", ".join(f"k_{j + 1} = {text(k)}, x_{j + 1} = {text(x)}" for j, (k, x) in enumerate(s.levels))
            head = f"M_{s.variable.population}: b = {text(s.b)} + √({text(s.k)}) z, {fields}, V = {text(s.v)}"
            out.append(Line(head, rf"b = {latex(s.b)} + \sqrt{{{latex(s.k)}}} z,\ V = {latex(s.v)}"))
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, piece in enumerate(Add.make_args(self.terms)):
            yield f"term {k + 1} × 1.1", replace(self, terms=self.terms + piece / 10)
        for k, s in enumerate(self.sites):
            for what in ("b", "k", "v"):
                if getattr(s, what) != 0:
                    bad = replace(s, **{what: getattr(s, what) * Rational(11, 10)})
                    yield (
                        f"{what} of {s.variable.population} × 1.1",
                        replace(self, sites=(*self.sites[:k], bad, *self.sites[k + 1 :])),
                    )


@dataclass(frozen=True)
class Blocks(Rule):
    """Let replicas form blocks within blocks, decouple them by one Gaussian field a level, keep what is linear in n."""

    title: ClassVar[str] = "Blocks of replicas, n → 0"
    assumption: ClassVar[str] = "overlaps depend only on the smallest block that two replicas share; n → 0"
    source: ClassVar[str] = "parisi1980"

    steps: int = 1

    def __call__(self, before: Form) -> BlockAction:
        assert isinstance(before, SiteProblem)
        return _Nested(before, self.steps).nested()


class _Nested(Ansatz):
    """Orbits, contraction and decoupling in blocks; everything about one pair of replicas is as under symmetry."""

    def __init__(self, problem: SiteProblem, steps: int) -> None:
        super().__init__(problem)
        taken = {s.name for s in self.action.parameters}
        stem = "x" if "x" not in taken else "block"
        self.sizes = tuple(Symbol(stem if steps == 1 else f"{stem}_{j + 1}", positive=True) for j in range(steps))
        self.level = 0
        self.tables: list[dict[Orbit, Expr]] = []

    def nested(self) -> BlockAction:
        self._name_orbits()
        for level in range(len(self.sizes) + 1):
            self.tables.append({o: self._at_level(o, v, level) for o, v in self.values.items()})
        terms = Add(*((1 - len(t.factors)) * self._contract(t) for t in self.problem.functional.terms))
        sites, norms = [], []
        for variable in self.variables.values():
            site, extra = self._block_site(variable)
            sites.append(site)
            norms.append(variable.fraction * extra)
        values = {o: self._levels(o) for o in self.values}
        terms = (terms + Add(*norms)).expand()
        return BlockAction(self.problem, values, self.sizes, terms, tuple(sites), self.multipliers)

    def _at_level(self, orbit: Orbit, value: Expr, level: int) -> Expr:
        pair = orbit.copies == 2 and not any(self.single(a) for a, _ in orbit.atoms)
        return Symbol(f"{value}_{level}", real=True) if pair and isinstance(value, Symbol) else value

    def _levels(self, orbit: Orbit) -> tuple[Expr, ...]:
        found = tuple(table[orbit] for table in self.tables)
        return found if len(set(found)) > 1 else found[:1]

    def _value(self, population: str, atoms: tuple[tuple[str, int], ...]) -> Expr:
        saved, self.values = self.values, self.tables[self.level]
        try:
            return super()._value(population, atoms)
        finally:
            self.values = saved

    def _contract(self, term: Term) -> Expr:
        """Σ over replicas of a term, per replica, as n → 0."""
        if term.kernels or term.power != 0:
            raise NotCovered(strong_mean(self.action.laws) or f"a term of order N^{1 + term.power} in a measure")
        sizes, total = (S.Zero, *self.sizes, S.One), S.Zero
        for names, blocks in self._coincidences(term):
            if blocks > 2:
                raise NotCovered("terms with more than two replicas are covered under replica symmetry only")
            for level in range(len(self.sizes) + 1) if blocks == 2 else (0,):
                self.level = level
                count = S.One if blocks == 1 else sizes[level] - sizes[level + 1]
                value = Mul(*(self._value(f.population, _at(f.atoms, None, names)) for f in term.factors))
                total += count * value if blocks else S.Zero
        self.level = 0
        return term.coef * total

    def _block_site(self, variable: Variable) -> tuple[BlockSite, Expr]:
        weight = variable.weight
        b, diagonal = S.Zero, S.Zero
        if weight.prior:
            b, diagonal, _ = polynomial(weight.exponent, weight.prior[0])
        off, given = [S.Zero] * (len(self.sizes) + 1), Given(self, variable)
        for term in self.problem.terms:
            if term.population != variable.population or given.takes(term):
                continue
            for level in range(len(off)):
                self.level = level
                single, same, other = self._site_term(term)
                off[level] += other
            self.level = 0
            b, diagonal = b + single, diagonal + same
        v = (diagonal - off[-1]).expand()
        levels = tuple(((off[j] - off[j - 1]).expand(), x) for j, x in enumerate(self.sizes, start=1))
        variable, shift, spread, parts = given.condition()
        b, outer = (b + shift).expand(), (off[0] - spread).expand()
        norm = fixed_norm(weight.prior[1]) if weight.prior else None
        if norm is None:
            return BlockSite(variable, b, outer, levels, v, parts), S.Zero
        if on_sphere(weight.prior[1]):  # type: ignore[index]
            lam = self._fresh("lambda", variable.name)
            self.multipliers[variable.population] = lam
            kept = v if v.has(*weight.labels) else S.Zero
            return BlockSite(variable, b, outer, levels, kept - lam), (v - kept + lam) * norm / 2
        return BlockSite(variable, b, outer, levels, S.Zero), averaged(v, weight.labels) * norm / 2


@dataclass(frozen=True)
class BlockEquations(Rule):
    """Every overlap is its nested site average; the sizes of blocks are left, with the slope of Φ in each."""

    title: ClassVar[str] = "Stationarity in the overlaps of every level"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = "parisi1980"

    cold: bool = False
    bare: bool = False

    def __call__(self, before: Form) -> ReplicaState:
        assert isinstance(before, BlockAction)
        return _Equations(before, self.cold).state()


class _Equations:
    """Equations of the overlaps, at finite or zero temperature (x = y/β there)."""

    def __init__(self, action: BlockAction, cold: bool) -> None:
        self.action, self.cold = action, cold
        self.swap: dict[Expr, Expr] = {}
        self.kinds: dict[Symbol, str] = {}
        self.fields = action.problem.action.fields

    def state(self) -> ReplicaState:
        found: list[tuple[Symbol, Expr, int]] = []
        for orbit in self.action.values:
            found += self._equations(orbit)
        ys = {x: Symbol("y" + x.name[1:], positive=True) for x in self.action.sizes} if self.cold else {}
        self.swap |= {x: y / COLD for x, y in ys.items()}
        self.swap |= {lam: COLD * lam for lam in self.action.multipliers.values()} if self.cold else {}
        equations = {s: self._limit(rhs, power, f"the equation of {s}") for s, rhs, power in found}
        value = self._limit(self.action.value, 1, "the free entropy")
        slopes = [(f"slope_{ys.get(x, x)}", self._slope(j, x)) for j, x in enumerate(self.action.sizes, start=1)]
        constraints = {
            lam: (self._limit(self._site(p).average("plain", 0, L[2] + L[1] ** 2), 0, "the norm"), self._norm(p))
            for p, lam in self.action.multipliers.items()
        }
        named = [("free_entropy", value), ("replicon", self._replicon())]
        if self.cold:
            named.append(("energy", -value))
        if self.cold and len(ys) == 1:  # y weighs states by their energy
            (y,) = ys.values()
            named += [("energy_of_states", -value - y * slopes[0][1]), ("complexity", -(y**2) * slopes[0][1])]
        pairs = closure(equations, constraints, [e for _, e in (*named, *slopes)])
        replicated = self.action.problem.action
        assert isinstance(replicated, ReplicatedAction)
        sites = [cold_site(s.variable) if self.cold else replica_site(s.variable) for s in self.action.sites]
        return ReplicaState(
            ReplicaProblem(
                (*replicated.parameters, *(ys.get(x, x) for x in self.action.sizes)),
                tuple(sites),
                pairs,
                tuple((lam, average, norm) for lam, (average, norm) in constraints.items()),
                value,
                (),
                (*named, *slopes),
                tuple(self.kinds[s] for s, _ in pairs),
                cold=self.cold,
            )
        )

    # -- equations -------------------------------------------------------------------------------------------------
    def _site(self, population: str) -> BlockSite:
        return next(s for s in self.action.sites if s.variable.population == population)

    def _norm(self, population: str) -> Expr:
        norm = fixed_norm(self._site(population).variable.weight.prior[1])  # type: ignore[index]
        assert norm is not None
        return norm

    def _equations(self, orbit: Orbit) -> list[tuple[Symbol, Expr, int]]:
        """(unknown, nested average, its power of β at zero temperature) of one order parameter."""
        values, moving = self.action.values[orbit], [(a, c) for a, c in orbit.atoms if not self.fields[a].single]
        if not moving or not isinstance(values[0], Symbol):
            return []
        site, scale = self._site(orbit.population), self._scale(orbit)
        hats = sum(self.fields[a].role == "hat" for a, _ in moving)
        if len(moving) == 1:
            symbol = values[0]
            self._name(symbol, COLD**hats * symbol, "mean")
            held = [a for a, _ in orbit.atoms if self.fields[a].single and self.fields[a].role == "hat"]
            if held:
                return [(symbol, with_disorder(site, dict(site.given)[held[0]]), hats)]
            return [(symbol, site.average("plain", 0, L[1], scale), hats)]
        if orbit.copies == 1:
            symbol = values[0]
            if self.cold:
                return []  # at zero temperature: the innermost overlap and a difference
            self._name(symbol, symbol, "norm" if not hats else "response")
            return [(symbol, site.average("plain", 0, L[2] + L[1] ** 2, scale), hats)]
        out = []
        for level, symbol in enumerate(values):
            assert isinstance(symbol, Symbol)
            self._name(symbol, COLD**hats * symbol, "overlap")
            out.append((symbol, site.average("square", level, L[1], scale), hats))
        return out if not self.cold else self._cold_pair(orbit, site, values[-1], hats, out)

    def _scale(self, orbit: Orbit) -> Expr:
        """Labels that an order parameter is weighed with."""
        atoms = [a for a, _ in orbit.atoms if not (self.fields[a].single and self.fields[a].role == "hat")]
        return Mul(*(label_part(self.action, a) for a in atoms))  # type: ignore[arg-type]

    def _cold_pair(
        self, orbit: Orbit, site: BlockSite, inner: Expr, hats: int, out: list[tuple[Symbol, Expr, int]]
    ) -> list[tuple[Symbol, Expr, int]]:
        """Within a block replicas differ by χ/β."""
        same = orbit_of(orbit.population, tuple((a, 0) for a, _ in orbit.atoms))
        diagonal = self.action.values.get(same, (None,))[0]
        assert isinstance(inner, Symbol)
        stem = inner.name.rsplit("_", 1)[0]
        chi = Symbol(f"chi{stem[1:]}" if stem[0] == "q" else f"chi_{stem}", real=True)
        self.kinds[chi] = "response" if hats else "susceptibility"
        more = [(chi, site.average("plain", 0, L[2], self._scale(orbit)), hats - 1)]
        if diagonal is not None and not isinstance(diagonal, Symbol):
            self.swap[inner] = diagonal - chi / COLD
            return [*out[:-1], *more]
        if isinstance(diagonal, Symbol):
            self.swap[diagonal] = COLD**hats * inner + COLD ** (hats - 1) * chi
        return [*out, *more]

    def _name(self, symbol: Symbol, scaled: Expr, kind: str) -> None:
        self.kinds[symbol] = kind
        if self.cold:
            self.swap[symbol] = scaled

    def _slope(self, level: int, x: Symbol) -> Expr:
        """∂Φ/∂x of the size of a block (times β⁻² at zero temperature, the slope of the energy in y)."""
        inside = Add(*(s.variable.fraction * s.average("break", level, L[0]) for s in self.action.sites))
        return self._limit(self.action.terms.diff(x) + inside, 2, f"the slope in {x}")

    def _replicon(self) -> Expr:
        """1 − det(1 − P″Σ) for pairs of replicas of one innermost block."""
        pairs = [o for o in self.action.values if o.copies == 2 and not any(self.fields[a].single for a, _ in o.atoms)]
        names = {o: Symbol(f"_pair_{k}") for k, o in enumerate(pairs)}
        total = S.Zero
        for term in self.action.problem.functional.terms:
            orbits = [orbit_of(f.population, f.atoms) for f in term.factors]
            if sum(o in names for o in orbits) >= 2 and len(term.copies) == 2:
                hats = sum(self.fields[a].role == "hat" for f in term.factors for a, _ in f.atoms)
                sign = (-1) ** (hats // 2)
                total += (
                    2 * term.coef * sign * Mul(*(names.get(o, self.action.values.get(o, (S.One,))[-1]) for o in orbits))
                )
        at = {names[o]: self.action.values[o][-1] for o in pairs}
        size = len(pairs)
        second = Matrix(size, size, lambda i, j: total.diff(names[pairs[i]], names[pairs[j]]).xreplace(at))
        sigma = Matrix(size, size, lambda i, j: self._between(pairs[i], pairs[j]))
        return self._limit((1 - (eye(size) - second * sigma).det()).expand(), 0, "the replicon")

    def _between(self, left: Orbit, right: Orbit) -> Expr:
        """Σ of two kinds of pairs."""
        if left.population != right.population:
            return S.Zero
        site = self._site(left.population)
        return site.average("plain", 0, L[2] ** 2, self._scale(left) * self._scale(right)) / site.variable.fraction

    # -- zero temperature ------------------------------------------------------------------------------------------
    def _limit(self, expr: Expr, power: int, what: str) -> Expr:
        """The expression itself, or its leading power of β."""
        if not self.cold:
            return expr.expand() if power != 1 else expr
        nodes = {n: self._cooled(n) for n in expr.atoms(TreeAverage)}
        slots = {n: Symbol(f"_{k}") for k, n in enumerate(nodes)}
        inside = expr.xreplace(slots).xreplace(self.swap)
        return leading(inside.xreplace({slots[n]: new for n, new in nodes.items()}), power, what)

    def _cooled(self, node: TreeAverage) -> Expr:
        state = self._site(node.site).variable.kind == "state"
        power = 2 if node.what == "break" else 0
        for factor in Mul.make_args(node.poly) if node.what != "break" else ():
            base, exponent = factor.as_base_exp()
            if base in L:
                size = int(exponent) * (2 if node.what == "square" else 1)
                power += size * (1 - L.index(base) if state else 1)
        powers = (1, 2, 1) if state else (0, 0, -1)
        b, k, v = (leading(e.xreplace(self.swap), p, "a field") for e, p in zip(node.field, powers, strict=True))
        levels = tuple(
            (leading(w.xreplace(self.swap), powers[1], "a field"), COLD * x.xreplace(self.swap)) for w, x in node.levels
        )
        more = (node.labels, node.scale)
        return COLD**power * TreeAverage(node.site, node.what, node.level, node.poly, b, k, v, levels, *more)


def with_disorder(site: BlockSite, parts: tuple[tuple[Expr, Symbol, Expr], ...]) -> Expr:
    """⟨x x₀⟩ with the conjugate of a local field that is disorder, Σ c (E[ζ M₁′] − d E[M₁″]).

    M₁″ = ⟨L₂⟩ + Σ_l x_l (s_l − s_{l−1}) with s_l the overlap of two replicas that share the level l.
    """
    total = S.Zero
    for c, zeta, d in parts:
        squares = [site.average("square", level, L[1]) for level in range(len(site.levels) + 1)]
        bend = Add(*(x * (b - a) for (_, x), a, b in zip(site.levels, squares, squares[1:], strict=False)))
        total += c * (site.average("plain", 0, L[1], zeta) - d * (site.average("plain", 0, L[2]) + bend))
    return total
