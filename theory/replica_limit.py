"""n → 0, stationarity and stability of the replica-symmetric free entropy.

Derivatives of site averages follow from two rules, Price's for the variance of the field and the heat rule for V, so
that every equation below is computed from the free entropy, and then compared with the saddle's own site averages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Add, Dummy, Expr, I, Matrix, Mul, Rational, S, Symbol, eye

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.priors import fixed_norm, on_sphere
from quenched.theory.problem_replicas import L, SiteAverage, site_average
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, text
from quenched.theory.replica_ansatz import averaged, orbit_of
from quenched.theory.replica_forms import (
    NREP,
    Orbit,
    RSAction,
    SiteInField,
    orbit_average,
    site_line,
)
from quenched.theory.replica_observe import glass_name


@dataclass(frozen=True)
class FreeEntropyForm(Form):
    """lim E ln Z / N per replica, a function of the order parameters."""

    name: ClassVar[str] = "free entropy"
    action: RSAction
    value: Expr

    def lines(self) -> list[Line]:
        return [equation_line(Symbol("Phi"), self.value), *(site_line(s) for s in self.action.sites)]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, piece in enumerate(Add.make_args(self.value)):
            yield f"term {k + 1} × 1.1", replace(self, value=self.value + piece / 10)

    @property
    def unknowns(self) -> tuple[Symbol, ...]:
        """Order parameters and multipliers that are left."""
        found = set(self.value.free_symbols)
        given = [*self.action.values.values(), *self.action.multipliers.values()]
        return tuple(dict.fromkeys(v for v in given if isinstance(v, Symbol) and v in found))


@dataclass(frozen=True)
class FewReplicas(Rule):
    """Keep what is linear in n."""

    title: ClassVar[str] = "n → 0"
    assumption: ClassVar[str] = "the free entropy of n replicas continues to n → 0, in this ansatz"
    source: ClassVar[str] = "edwards1975"

    def __call__(self, before: Form) -> FreeEntropyForm:
        assert isinstance(before, RSAction)
        value = before.terms.diff(NREP).subs(NREP, 0).expand()
        for s in before.sites:
            # ln E ζⁿ = n E ln ζ + O(n²)
            v = s.variable
            value += v.fraction * site_average(v.population, L[0], s.b, s.k, s.v, v.weight.labels)
        return FreeEntropyForm(before, value)


@dataclass(frozen=True)
class SaddleEquations(Form):
    """The saddle-point equations.

    Attributes
    ----------
    free : the free entropy
    gradient : unknown → ∂Φ/∂unknown by the derivative rules
    equations : order parameter → its site average
    constraints : multiplier → (average, value)
    """

    name: ClassVar[str] = "stationarity"
    free: FreeEntropyForm
    gradient: dict[Symbol, Expr]
    equations: dict[Symbol, Expr]
    constraints: dict[Symbol, tuple[Expr, Expr]]

    def __hash__(self) -> int:
        return hash((self.free, tuple(self.equations.items())))

    def lines(self) -> list[Line]:
        out = [
            Line(f"0 = ∂Φ/∂{text(s)} = {text(g)}", rf"0 = \partial_{{{latex(s)}}} \Phi = {latex(g)}")
            for s, g in self.gradient.items()
        ]
        out += [equation_line(s, rhs, "solved") for s, rhs in self.equations.items()]
        return out + [
            equation_line(value, average, f"fixes {text(lam)}") for lam, (average, value) in self.constraints.items()
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for s, rhs in self.equations.items():
            yield f"equation of {s} × 1.1", replace(self, equations=self.equations | {s: rhs * Rational(11, 10)})


@dataclass(frozen=True)
class Extremise(Rule):
    """Differentiate the free entropy: ∂_k ⟨F⟩ = ½⟨F″⟩ (Price) and ∂_V L = ½(L₂ + L₁²) (heat rule)."""

    title: ClassVar[str] = "Stationarity, integrated by parts"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = "price1958"

    def __call__(self, before: Form) -> SaddleEquations:
        assert isinstance(before, FreeEntropyForm)
        action = before.action
        gradient = {s: before.value.diff(s).expand() for s in before.unknowns}
        equations, constraints = {}, {}
        for orbit, value in action.values.items():
            if isinstance(value, Symbol) and value in before.unknowns:
                equations[value] = average_of(action, orbit)
        for population, lam in action.multipliers.items():
            site = site_of(action, population)
            norm = fixed_norm(site.variable.weight.prior[1])  # type: ignore[index]
            poly = L[2] + L[1] ** 2
            average = site_average(population, poly, site.b, site.k, site.v, site.variable.weight.labels)
            constraints[lam] = (average, norm)
        out = SaddleEquations(before, gradient, equations, constraints)
        for unknown, slope in gradient.items():
            left = remainder(out, slope)
            if left != 0 and left.simplify() != 0:
                raise QuenchedError(
                    f"∂Φ/∂{unknown} = {text(slope)} does not vanish where every order parameter is its site average"
                )
        return out


def remainder(state: SaddleEquations, slope: Expr) -> Expr:
    """A component of the gradient where every order parameter equals its site average."""
    known = second_moments(state.free.action)
    solved: dict[Expr, Expr] = {}
    for unknown, rhs in sorted(state.equations.items(), key=lambda item: len(item[1].atoms(SiteAverage))):
        inside = with_norms(state.free.action, rhs.expand().xreplace(known)).expand().xreplace(solved).expand()
        left = sorted(inside.atoms(SiteAverage), key=str)
        if left:  # each equation gives one average in terms of the others
            rest, rate = inside.coeff(left[0], 0), inside.coeff(left[0], 1)
            step = {left[0]: ((unknown - rest) / rate).expand()}
            solved = {a: e.xreplace(step).expand() for a, e in solved.items()} | step
    return with_norms(state.free.action, slope.expand().xreplace(known)).expand().xreplace(solved).expand()


def with_norms(action: RSAction, expr: Expr) -> Expr:
    """E[c L₂] of labels c in terms of E[c L₁²], on sites each of whose squares is fixed."""
    swap = {}
    for node in expr.atoms(SiteAverage):
        site, c = site_of(action, node.site), node.poly / L[2]
        prior = site.variable.weight.prior
        norm = fixed_norm(prior[1]) if prior and not on_sphere(prior[1]) else None
        if norm is not None and node.labels and not c.has(*L):
            b, k, v = node.field
            square = site_average(node.site, c * L[1] ** 2, b, k, v, node.labels)
            swap[node] = averaged(c, site.variable.weight.labels) * norm - square
    return expr.xreplace(swap)


def second_moments(action: RSAction) -> dict[Expr, Expr]:
    """E[L₂] in terms of E[L₁²] on sites whose norm is fixed."""
    out: dict[Expr, Expr] = {}
    for s in action.sites:
        prior = s.variable.weight.prior
        norm = fixed_norm(prior[1]) if prior else None
        if norm is not None:
            labels = s.variable.weight.labels
            average = [site_average(s.variable.population, p, s.b, s.k, s.v, labels) for p in (L[2], L[1] ** 2)]
            out[average[0]] = norm - average[1]
    return out


def site_of(action: RSAction, population: str) -> SiteInField:
    """The field of the sites of a population."""
    return next(s for s in action.sites if s.variable.population == population)


def average_of(action: RSAction, orbit: Orbit) -> Expr:
    """The site average that an order parameter equals at the saddle (in terms of x: û = i x)."""
    site = site_of(action, orbit.population)
    fields = action.problem.action.fields
    held = [a for a, _ in orbit.atoms if fields[a].single]
    if held and fields[held[0]].role == "hat":
        return _with_disorder(site, dict(site.given)[held[0]])
    coefficient = Mul(*(label_part(action, a) for a, _ in orbit.atoms))
    moving = tuple((a, c) for a, c in orbit.atoms if a not in held)
    return orbit_average(site, replace(orbit, atoms=moving), coefficient)


def _with_disorder(site: SiteInField, parts: tuple[tuple[Expr, Symbol, Expr], ...]) -> Expr:
    """⟨x x₀⟩ with the conjugate of a local field that is disorder: a derivative in its covariance with x's field."""
    labels = site.variable.weight.labels
    poly = Add(*(c * (zeta * L[1] - d * L[2]) for c, zeta, d in parts))
    return site_average(site.variable.population, poly, site.b, site.k, site.v, labels)


def label_part(action: RSAction, atom: str) -> Expr:
    """What an atom is as a multiple of x, the i of a conjugate field left out."""
    fields = action.problem.action.fields
    fld = fields[atom]
    if fld.single:
        assert fld.definition is not None
        return fld.definition
    if fld.role != "output":
        return S.One
    own = next(s.variable.name for s in action.sites if s.variable.population == fld.population.name)
    return (fld.definition / fields[own].symbol).expand()


# -- stability -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RepliconForm(Form):
    """Fluctuations of pairs of replicas that break their symmetry: eigenvalues of P″Σ in the replicon sector.

    Attributes
    ----------
    state : the saddle
    pairs : the pair order parameters
    matrix : P″Σ; the state is stable while all eigenvalues are below 1
    """

    name: ClassVar[str] = "replicon"
    state: SaddleEquations
    pairs: tuple[Orbit, ...]
    matrix: tuple[tuple[Expr, ...], ...]

    @property
    def eigenvalue(self) -> Expr:
        """1 − det(1 − P″Σ), which reaches 1 where the state becomes unstable."""
        size = len(self.pairs)
        return (1 - (eye(size) - Matrix(size, size, lambda i, j: self.matrix[i][j])).det()).expand()

    def lines(self) -> list[Line]:
        lam = self.eigenvalue
        return [
            Line(
                f"replicon = 1 − det(1 − P″Σ) = {text(lam)}",
                rf"\lambda_{{\mathrm{{rep}}}} = 1 - \det(1 - P''\Sigma) = {latex(lam)}",
                "replicas stay equivalent while it is below 1",
            )
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for i, entries in enumerate(self.matrix):
            for j, entry in enumerate(entries):
                if entry != 0:
                    bad = (*entries[:j], entry * Rational(11, 10), *entries[j + 1 :])
                    yield f"entry {i}{j} × 1.1", replace(self, matrix=(*self.matrix[:i], bad, *self.matrix[i + 1 :]))


@dataclass(frozen=True)
class Replicon(Rule):
    """Hessian P″Σ between pairs of replicas, projected on ⟨ab,ab⟩ − 2⟨ab,ac⟩ + ⟨ab,cd⟩."""

    title: ClassVar[str] = "Stability against breaking the symmetry of replicas"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = "dealmeida1978"

    def __call__(self, before: Form) -> RepliconForm:
        assert isinstance(before, SaddleEquations)
        action = before.free.action
        fields = action.problem.action.fields
        moving = [o for o in action.values if not any(fields[a].single for a, _ in o.atoms)]
        pairs = tuple(o for o in moving if o.copies == 2 and len(o.atoms) == 2)
        coupling, dummies = pair_couplings(action, pairs)
        values = {d: action.values[o] for o, d in dummies.items()}
        size = range(len(pairs))
        second = [[coupling.diff(dummies[pairs[i]], dummies[pairs[j]]).xreplace(values) for j in size] for i in size]
        sigma = [[_connected(action, pairs[i], pairs[j]) for j in size] for i in size]
        matrix = tuple(tuple(Add(*(second[i][k] * sigma[k][j] for k in size)).expand() for j in size) for i in size)
        return RepliconForm(before, pairs, matrix)


def pair_couplings(action: RSAction, pairs: tuple[Orbit, ...]) -> tuple[Expr, dict[Orbit, Symbol]]:
    """P as a function of the order parameters of one pair of replicas, a < b counted once."""
    dummies: dict[Orbit, Symbol] = {o: Dummy() for o in pairs}
    fields = action.problem.action.fields
    total = S.Zero
    for term in action.problem.functional.terms:
        orbits = [orbit_of(f.population, f.atoms) for f in term.factors]
        if sum(o in dummies for o in orbits) < 2:
            continue
        if len(term.copies) != 2:
            raise NotCovered("couplings between more than two replicas: their replicon sector is not covered")
        hats = sum(fields[a].role == "hat" for f in term.factors for a, _ in f.atoms)
        total += 2 * term.coef * I**hats * Mul(*(dummies.get(o, action.values[o]) for o in orbits))
    return total, dummies


def _connected(action: RSAction, left: Orbit, right: Orbit) -> Expr:
    """⟨ab,ab⟩ − 2⟨ab,ac⟩ + ⟨ab,cd⟩ of two pair order parameters at one site, over the fraction of the population."""
    if left.population != right.population:
        return S.Zero
    site = site_of(action, left.population)
    m1, m2 = L[1], L[2] + L[1] ** 2
    poly = (m2**2 - 2 * m2 * m1**2 + m1**4).expand()
    labels = Mul(*(label_part(action, a) for o in (left, right) for a, _ in o.atoms))
    average = site_average(left.population, poly * labels, site.b, site.k, site.v, site.variable.weight.labels)
    return average / site.variable.fraction


def susceptibilities(form: RepliconForm) -> dict[str, Expr]:
    """Σ_qq + Σ_q (1 − P″Σ)^{-1} P″ Σ_q of the overlap q of two replicas of every field: N times how it fluctuates."""
    action, size = form.state.free.action, len(form.pairs)
    coupling, dummies = pair_couplings(action, form.pairs)
    values = {d: action.values[o] for o, d in dummies.items()}
    slots = [dummies[o] for o in form.pairs]
    second = Matrix(size, size, lambda i, j: coupling.diff(slots[i], slots[j]).xreplace(values))
    entries = Matrix(size, size, lambda i, j: Dummy())
    known = {entries[i, j]: form.matrix[i][j] for i in range(size) for j in range(size)}
    gap = eye(size) - entries
    response = (gap.adjugate() / gap.det()).xreplace(known) * second if size else second
    out = {}
    for site in (s.variable for s in action.sites if s.variable.kind == "state"):
        own = Orbit(site.population, ((site.name, 0), (site.name, 1)))
        cross = Matrix(1, size, lambda _, j, own=own: _connected(action, own, form.pairs[j]))
        whole = (
            _connected(action, own, own) + (cross * response * cross.T)[0, 0] if size else _connected(action, own, own)
        )
        out[glass_name(site.name)] = site.fraction * whole
    return out
