"""Ansatz on replicas: a group acts on the copies, and order parameters are constant on its orbits.

Under replica symmetry a sum over copies splits by which copies coincide: n terms with all equal, n(n−1) with two
different ones, and so on. One Gaussian field per level of the ansatz then decouples the copies of a site,

    exp ½ Σ_ab K_ab x_a x_b = E_z Π_a exp(√k z x_a + ½ (K_d − k) x_a²),

for states and for conjugate fields (x = −iû) alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, ClassVar, Literal

from sympy import Add, Expr, I, Matrix, Mul, Poly, S, Symbol, sqrt, zeros

from quenched.theory.distributions import Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched
from quenched.theory.laws import strong_mean
from quenched.theory.priors import fixed_norm, on_sphere
from quenched.theory.record import Form, Rule
from quenched.theory.replica_forms import NREP, Orbit, RSAction, SiteInField, Variable, polynomial
from quenched.theory.replica_lower import ReplicatedAction
from quenched.theory.saddle import SiteProblem, SiteTerm
from quenched.theory.spaces import Population
from quenched.theory.terms import Atom, Term


def averaged(expr: Expr, labels: tuple[Quenched, ...]) -> Expr:
    """The average over independent labels of a polynomial of degree two at most in each.

    Raises
    ------
    NotCovered
        Any other dependence on a label.
    """
    for q in labels:
        if not expr.has(q):
            continue
        if not expr.is_polynomial(q) or Poly(expr, q).degree() > 2:
            raise NotCovered(f"{expr} is no polynomial of degree two in {q}: its average is not covered")
        moments = (S.One, q.law.mean_(), q.law.variance_() + q.law.mean_() ** 2)
        expr = Add(*(expr.expand().coeff(q, k) * moments[k] for k in range(3)))
    return expr


@dataclass(frozen=True)
class ReplicaSymmetry(Rule):
    """Let all replicas be equivalent, and decouple them by one Gaussian field per site."""

    title: ClassVar[str] = "Replica symmetry"
    assumption: ClassVar[str] = "order parameters are invariant under all permutations of the replicas"
    source: ClassVar[str] = "sherrington1975"

    def __call__(self, before: Form) -> RSAction:
        assert isinstance(before, SiteProblem)
        return Ansatz(before).run()


class Ansatz:
    """Orbits, contraction and decoupling for one site problem."""

    def __init__(self, problem: SiteProblem) -> None:
        action = problem.action
        assert isinstance(action, ReplicatedAction)
        self.problem, self.action = problem, action
        self.variables = {v.population: v for v in map(self._variable, action.populations)}
        self.values: dict[Orbit, Expr] = {}
        self.multipliers: dict[str, Symbol] = {}

    def run(self) -> RSAction:
        self._name_orbits()
        terms = Add(*((1 - len(t.factors)) * self._contract(t) for t in self.problem.functional.terms))
        sites, norms = [], []
        for variable in self.variables.values():
            site, extra = self._site(variable)
            sites.append(site)
            norms.append(NREP * variable.fraction * extra)
        return RSAction(self.problem, self.values, (terms + Add(*norms)).expand(), tuple(sites), self.multipliers)

    # -- sites -----------------------------------------------------------------------------------------------------
    def _variable(self, population: Population) -> Variable:
        name = population.name
        own = [f for f in self.action.fields.values() if f.population == population and f.role in ("state", "hat")]
        own = [f for f in own if not f.single]
        if len(own) != 1:
            raise NotCovered(
                f"sites of {name!r} have {len(own)} variables ({', '.join(f.name for f in own)}): one is covered, "
                "a state or a local field"
            )
        kind: Literal["state", "channel"] = "state" if own[0].role == "state" else "channel"
        local = self.action.fields[own[0].name.removeprefix("hat_")].symbol
        return Variable(name, population.fraction, own[0].name, kind, self.action.site(name), local)

    def _coefficient(self, atom: str) -> Expr:
        """What an atom is as a multiple of the site variable: û = i x, an output c·s."""
        fld = self.action.fields[atom]
        if fld.role == "hat":
            return I
        if fld.single:
            assert fld.definition is not None
            return fld.definition
        if fld.role == "state":
            return S.One
        state = self.action.fields[self.variables[fld.population.name].name].symbol
        ratio = (fld.definition / state).expand()
        if ratio.has(state):
            raise NotCovered(f"the couplings read {fld.definition}: only multiples of the state {state} are covered")
        return ratio

    def _site(self, variable: Variable) -> tuple[SiteInField, Expr]:
        """Field of a site, and what it adds to the free entropy of one copy where the norm is fixed."""
        weight = variable.weight
        b, diagonal, off = S.Zero, S.Zero, S.Zero
        if weight.prior:
            b, diagonal, _ = polynomial(weight.exponent, weight.prior[0])
        given = Given(self, variable)
        for term in self.problem.terms:
            if term.population != variable.population or given.takes(term):
                continue
            single, same, other = self._site_term(term)
            b, diagonal, off = b + single, diagonal + same, off + other
        v = (diagonal - off).expand()
        variable, shift, spread, parts = given.condition()
        b, off = (b + shift).expand(), (off - spread).expand()
        norm = fixed_norm(weight.prior[1]) if weight.prior else None
        if norm is None:
            return SiteInField(variable, b, off, v, parts), S.Zero
        if on_sphere(weight.prior[1]):  # type: ignore[index]
            lam = self._fresh("lambda", variable.name)
            self.multipliers[variable.population] = lam
            kept = v if v.has(*weight.labels) else S.Zero  # squares of sites with different labels differ
            return SiteInField(variable, b, off, kept - lam), (v - kept + lam) * norm / 2
        return SiteInField(variable, b, off, S.Zero), averaged(v, weight.labels) * norm / 2

    def _site_term(self, term: SiteTerm) -> tuple[Expr, Expr, Expr]:
        """Contributions of a site term to b, to K_aa and to K_ab; fields that are disorder act as labels."""
        own = sorted({c for a, c in term.atoms if not self.single(a)})
        moving = [a for a, _ in term.atoms if not self.single(a)]
        if len(moving) == 1:
            return self.site_coefficient(term), S.Zero, S.Zero
        if len(moving) == 2 and len(own) == 1:
            return S.Zero, 2 * self.site_coefficient(term), S.Zero
        if len(moving) == 2:
            return S.Zero, 2 * self.site_coefficient(term, equal=True), 2 * self.site_coefficient(term)
        if not moving and self.site_coefficient(term) == 0:
            return S.Zero, S.Zero, S.Zero
        raise NotCovered(f"a site term of degree {len(moving)}: sites see linear and quadratic fields")

    def site_coefficient(self, term: SiteTerm, equal: bool = False) -> Expr:
        """coef · Π order parameters of a site term, with its replicas all equal or all different."""
        beyond = {c for ref in term.refs for c in ref.at} - {c for _, c in term.atoms}
        if beyond or term.kernels or term.power != 0:
            raise NotCovered(f"a site term in {[a for a, _ in term.atoms]}: sums over further replicas are not covered")
        names = {c: -1 if self.single(a) else 0 if equal else c for a, c in term.atoms}
        scale = term.coef * Mul(*(self._coefficient(a) for a, _ in term.atoms))
        return scale * Mul(*(self._value(r.op.population, _at(r.op.atoms, r.at, names)) for r in term.refs))

    def covariance(self, population: str) -> Expr:
        """Covariance of the fields of two replicas at a site, in the values of their order parameters."""
        given, total = Given(self, self.variables[population]), S.Zero
        for term in self.problem.terms:
            if term.population == population and not given.takes(term):
                total += self._site_term(term)[2]
        return (total - given.condition()[2]).expand()

    def single(self, atom: str) -> bool:
        """Whether a field is disorder: the same in all replicas."""
        return self.action.fields[atom].single

    # -- orbits ----------------------------------------------------------------------------------------------------
    def _value(self, population: str, atoms: tuple[Atom, ...]) -> Expr:
        """i^hats times the value of the orbit in terms of x."""
        hats = sum(self.action.fields[a].role == "hat" for a, _ in atoms)
        return I**hats * self.values[orbit_of(population, atoms)]

    def _name_orbits(self) -> None:
        found = []
        for term in self.problem.functional.terms:
            for names, _ in self._coincidences(term):
                found += [orbit_of(f.population, _at(f.atoms, None, names)) for f in term.factors]
        orbits = sorted(dict.fromkeys(found), key=lambda o: (o.population, o.copies, o.atoms))
        letters = [self._letter(o) for o in orbits]
        for orbit, letter in zip(orbits, letters, strict=True):
            fixed = self._fixed(orbit)
            tag = "" if letters.count(letter) == 1 else "_".join(dict.fromkeys(self._tag(a) for a, _ in orbit.atoms))
            self.values[orbit] = self._fresh(letter, tag) if fixed is None else fixed

    def _tag(self, atom: str) -> str:
        """Name of a field in the names of order parameters; an output that is a label times the state, the label."""
        fld = self.action.fields[atom]
        if fld.role == "output" and not fld.single:
            ratio = self._coefficient(atom)
            if isinstance(ratio, Quenched):
                return ratio.name
        return atom

    def _coincidences(self, term: Term) -> Iterator[tuple[dict[int, int], int]]:
        """How the replicas of a term coincide; copies of fields that are disorder are one and the same."""
        fixed = {c for f in term.factors for a, c in f.atoms if self.single(a)}
        for names, blocks in coincidences(tuple(c for c in term.copies if c not in fixed)):
            yield names | dict.fromkeys(fixed, blocks), blocks

    def _letter(self, orbit: Orbit) -> str:
        """m, q, Q for states, a, r, R for conjugate fields: one copy, two copies, twice the same copy."""
        hat = self.action.fields[orbit.atoms[0][0]].role == "hat"
        moving = [c for a, c in orbit.atoms if not self.single(a)]
        if not 0 < len(moving) <= 2:
            return "w"
        return _LETTERS[hat][len(moving), len(set(moving))]

    def _fixed(self, orbit: Orbit) -> Expr | None:
        """⟨x²⟩ where the prior fixes it and the coefficients do not depend on labels; moments of the disorder."""
        if all(self.single(a) for a, _ in orbit.atoms):
            return self._moment(orbit)
        weight = self.variables[orbit.population].weight
        norm = fixed_norm(weight.prior[1]) if weight.prior else None
        if norm is None or orbit.copies != 1 or len(orbit.atoms) != 2:
            return None
        coefficient = Mul(*(self._coefficient(a) for a, _ in orbit.atoms))
        if coefficient.has(*weight.labels) and on_sphere(weight.prior[1]):  # type: ignore[index]
            return None
        return averaged(coefficient, weight.labels) * norm

    def _moment(self, orbit: Orbit) -> Expr:
        """A moment of the disorder alone. Those of conjugates vanish as n → 0: its law is normalised."""
        fields = self.action.fields
        if any(fields[a].role == "hat" for a, _ in orbit.atoms):
            return S.Zero
        return label_moment(Mul(*(self._coefficient(a) for a, _ in orbit.atoms)))

    def _fresh(self, letter: str, tag: str) -> Symbol:
        taken = {s.name for s in self.action.parameters} | {str(v) for v in self.values.values()}
        taken |= set(self.action.fields) | {q.name for site in self.action.sites for q in site.labels}
        name = letter if not tag or letter == "lambda" else f"{letter}_{tag}"
        while name in taken:
            name += f"_{tag}" if tag else "_0"
        return Symbol(name, real=True)

    def _contract(self, term: Term) -> Expr:
        """Σ over n copies of a term: one value and one multiplicity for every way in which copies coincide."""
        if term.kernels or term.power != 0:
            raise NotCovered(strong_mean(self.action.laws) or f"a term of order N^{1 + term.power} in a measure")
        total = S.Zero
        for names, blocks in self._coincidences(term):
            count = Mul(*(NREP - j for j in range(blocks)))
            total += count * Mul(*(self._value(f.population, _at(f.atoms, None, names)) for f in term.factors))
        return term.coef * total


class Given:
    """Local fields of a site that are disorder: Gaussian labels that the field of every replica is correlated with.

    With covariance R between them and covariance c with the field of a replica, the labels are Lζ for independent
    standard normal ζ and R = L Lᵀ. A replica's field then has the mean d·ζ, d = L⁻¹c, and k is smaller by d².
    """

    def __init__(self, ansatz: Ansatz, variable: Variable) -> None:
        self.ansatz, self.variable = ansatz, variable
        noise = {f"hat_{name}": (mean, var) for name, mean, var in variable.weight.given}
        self.names = list(noise)
        self.mean = [mean for mean, _ in noise.values()]
        self.square = Matrix.diag(*(var for _, var in noise.values())) if noise else Matrix(0, 0, [])
        self.cross = [S.Zero] * len(noise)

    def takes(self, term: SiteTerm) -> bool:
        """Whether a site term concerns these fields; it is added to their moments."""
        held = [a for a, _ in term.atoms if a in self.names]
        if not held:
            return False
        value = self.ansatz.site_coefficient(term)
        i = self.names.index(held[0])
        if len(term.atoms) == 1:
            self.mean[i] += value
        elif len(held) == 1:
            self.cross[i] += value
        else:
            j = self.names.index(held[1])
            self.square[i, j] += value
            self.square[j, i] += value
        return True

    def condition(self) -> tuple[Variable, Expr, Expr, tuple[Any, ...]]:
        """(variable with its labels, shift of b, what k loses, parts of ⟨x x₀⟩)."""
        if not self.names:
            return self.variable, S.Zero, S.Zero, ()
        size, weight = range(len(self.names)), self.variable.weight
        root = lower_root(self.square)
        back = root.inv()
        name = unused("zeta", (*self.ansatz.action.parameters, *weight.labels))
        zeta = [Quenched(_tagged(name, len(self.names), k), Normal(0, 1), over=weight.population) for k in size]
        d = [Add(*(back[k, j] * self.cross[j] for j in size)) for k in size]
        swap = {
            self.ansatz.action.fields[name.removeprefix("hat_")].symbol: self.mean[j]
            + Add(*(root[j, k] * zeta[k] for k in size))
            for j, name in enumerate(self.names)
        }
        seen = replace(
            weight,
            exponent=weight.exponent.xreplace(swap).expand(),
            factor=weight.factor.xreplace(swap),
            labels=(*weight.labels, *zeta),
        )
        parts = tuple((n, tuple((back[k, j], zeta[k], d[k]) for k in size)) for j, n in enumerate(self.names))
        shift = Add(*(d[k] * zeta[k] for k in size))
        return replace(self.variable, weight=seen), shift, Add(*(e**2 for e in d)), parts


def unused(name: str, taken: Iterable[Any]) -> str:
    """The name, or one like it where some symbol has it already."""
    while name in {symbol.name for symbol in taken}:
        name += "_0"
    return name


def _tagged(name: str, count: int, k: int) -> str:
    return name if count == 1 else f"{name}_{k + 1}"


def lower_root(square: Matrix) -> Matrix:
    """The lower triangular L with L Lᵀ = square (Cholesky)."""
    size = square.shape[0]
    root = zeros(size, size)
    for i in range(size):
        for j in range(i):
            root[i, j] = (square[i, j] - Add(*(root[i, k] * root[j, k] for k in range(j)))) / root[j, j]
        root[i, i] = sqrt((square[i, i] - Add(*(root[i, k] ** 2 for k in range(i)))).expand())
    return root


def label_moment(expr: Expr) -> Expr:
    """E of a polynomial of the labels of a site, of degree two at most in each."""
    out = expr.expand()
    for label in sorted((s for s in out.free_symbols if isinstance(s, Quenched)), key=str):
        poly = Poly(out, label) if out.is_polynomial(label) else None
        if poly is None or poly.degree() > 2:
            raise NotCovered(f"the moment of {expr}: linear functions of labels are covered")
        law = label.law
        moments = (S.One, law.mean_(), law.variance_() + law.mean_() ** 2)
        out = Add(*(c * moments[p] for (p,), c in poly.terms()))
    return out.expand()


_LETTERS = {False: {(1, 1): "m", (2, 2): "q", (2, 1): "Q"}, True: {(1, 1): "a", (2, 2): "r", (2, 1): "R"}}


def coincidences(copies: tuple[int, ...]) -> Iterator[tuple[dict[int, int], int]]:
    """All set partitions of the copies: (copy → block, number of blocks)."""
    if not copies:
        yield {}, 0
        return
    *rest, last = copies
    for names, blocks in coincidences(tuple(rest)):
        for block in range(blocks + 1):
            yield names | {last: block}, max(blocks, block + 1)


def _at(atoms: tuple[Atom, ...], at: tuple[int, ...] | None, names: dict[int, int]) -> tuple[Atom, ...]:
    """Atoms with their slots put at copies (`at`), and copies put into blocks."""
    return tuple((a, names[c if at is None else at[c]]) for a, c in atoms)


def orbit_of(population: str, atoms: tuple[Atom, ...]) -> Orbit:
    """The canonical orbit: blocks renumbered so that the atoms come out smallest."""
    blocks = sorted({c for _, c in atoms})
    trials = []
    for order in permutations(range(len(blocks))):
        names = dict(zip(blocks, order, strict=True))
        trials.append(tuple(sorted((a, names[c]) for a, c in atoms)))
    return Orbit(population, min(trials))
