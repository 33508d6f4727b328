"""The replica route to a real spectrum: a Gaussian vector with n copies, on the same steps as any other measure.

det(z − M)^{-1/2} is the partition sum of a real vector φ with the energy ½ φᵀ(z − M)φ; its second moment is the
resolvent. Products of matrices get local fields u = Aχ with conjugates û, the couplings are averaged by their diagrams,
and at the saddle every site is Gaussian. (Edwards and Jones, J. Phys. A 9, 1595, 1976.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, I, S, Symbol
from sympy import Matrix as Table

from quenched.theory.algebra import Diag, Matrix, Outer, Transpose
from quenched.theory.average import Average
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import RandomMatrix
from quenched.theory.errors import NotCovered
from quenched.theory.free import ScalarSystem, W
from quenched.theory.laws import law_of
from quenched.theory.lower import CopiedAction, SiteField, Use
from quenched.theory.problem_dyson import Z
from quenched.theory.problem_scalars import LabelMean
from quenched.theory.record import Form, Line, Rule, Step
from quenched.theory.render import equation_line, latex, text
from quenched.theory.saddle import NameOrderParameters, OrderParameter, Saddle, SiteProblem, op_name
from quenched.theory.spaces import Population
from quenched.theory.spectrum import Spectrum, SpectrumDeclaration

#: Largest Gaussian weight of a site that is inverted in symbols.
COUPLED = 5
PHI = Symbol("varphi", real=True)


@dataclass(frozen=True)
class GaussianAction(CopiedAction):
    """A replicated Gaussian vector: uses of the couplings, and a quadratic exponent per site."""

    name: ClassVar[str] = "replicated Gaussian vector"
    sites: tuple[tuple[Population, Expr], ...] = ()

    def __hash__(self) -> int:
        return hash((self.sites, self.uses))

    def lines(self) -> list[Line]:
        out = [
            Line(f"exponent of a site ({p.name}): {text(q)}", rf"\text{{exponent ({p.name})}} = {latex(q)}")
            for p, q in self.sites
        ]
        return out + self.site_lines() + [self._use_line(use) for use in self.uses]


@dataclass(frozen=True)
class ReplicateVector(Rule):
    """Write det(z − M)^{-n/2} as an integral over n real vectors."""

    title: ClassVar[str] = "Replicas of a Gaussian vector: det(z − M)^{−n/2}"
    assumption: ClassVar[str] = "z to the right of the spectrum, continued analytically; w = ⟨φ²⟩ as n → 0"
    source: ClassVar[str] = "edwards1976"

    def __call__(self, before: Form) -> GaussianAction:
        assert isinstance(before, SpectrumDeclaration)
        return _Builder(before.spectrum).run()


class _Builder:
    """Collects local fields, uses and site exponents of ½ φᵀ(M − z)φ."""

    def __init__(self, spectrum: Spectrum) -> None:
        if not spectrum.hermitian or len(spectrum.blocks) != 1:
            raise NotCovered("the replica route needs one symmetric matrix: its eigenvalues are real")
        self.spectrum = spectrum
        (self.home,) = spectrum.populations
        self.fields = {"phi": SiteField("phi", "state", self.home, PHI)}
        self.sites: dict[Population, Expr] = {self.home: -Z * PHI**2 / 2}
        self.uses: list[Use] = []
        self.locals: dict[tuple[Matrix, str, Expr], str] = {}

    def run(self) -> GaussianAction:
        (matrix,) = self.spectrum.blocks.values()
        for coefficient, word in matrix.terms:
            self._form(coefficient / 2, list(word))
        laws = tuple(law_of(m) for m in self.spectrum.matrices)
        sites = tuple(self.sites.items())
        return GaussianAction("none", self.fields, (), tuple(self.uses), laws, self.spectrum.parameters, sites)

    def _form(self, coefficient: Expr, word: list[Matrix]) -> None:
        """coefficient · φᵀ word φ, read from both ends towards the middle."""
        left, right = ("phi", S.One), ("phi", S.One)
        while word:
            if isinstance(word[0], Diag):
                left = left[0], left[1] * word.pop(0).vector
            elif isinstance(word[-1], Diag):
                right = right[0], right[1] * word.pop().vector
            elif len(word) == 1 and (word[0].transposed(), *left) not in self.locals:
                self._use(word[0], coefficient, self._end(*left), self._end(*right))
                return
            else:
                if len(word) > 1:
                    right = self._local(word.pop(), *right), S.One
                if (word[0].transposed(), *left) in self.locals or len(word) > 1:
                    left = self._local(word.pop(0).transposed(), *left), S.One
        (a, f), (b, g) = left, right
        population = self.fields[a].population
        term = coefficient * f * g * self.fields[a].symbol * self.fields[b].symbol
        self.sites[population] = self.sites.get(population, S.Zero) + term

    def _local(self, factor: Matrix, name: str, scale: Expr) -> str:
        """The local field factor @ (scale · name), made once."""
        key = factor, name, scale
        if key not in self.locals:
            label = f"u_{len(self.locals) + 1}"
            self.locals[key] = label
            field = SiteField(label, "local", factor.rows, Symbol(label))
            hat = SiteField(f"hat_{label}", "hat", factor.rows, Symbol(rf"\hat{{u}}_{len(self.locals)}"))
            self.fields |= {label: field, hat.name: hat}
            self.sites[factor.rows] = self.sites.get(factor.rows, S.Zero) + I * hat.symbol * field.symbol
            self._use(factor, -I, hat.name, self._end(name, scale))
        return self.locals[key]

    def _end(self, name: str, scale: Expr) -> str:
        """The name of scale · field: the field itself, or an output."""
        if scale == 1:
            return name
        value = scale * self.fields[name].symbol
        known = next((f.name for f in self.fields.values() if f.definition == value), None)
        if known is None:
            known = f"psi_{1 + sum(f.role == 'output' for f in self.fields.values())}"
            population = self.fields[name].population
            self.fields[known] = SiteField(known, "output", population, Symbol(known), value)
        return known

    def _use(self, factor: Matrix, coefficient: Expr, row: str, col: str) -> None:
        atom = factor.matrix if isinstance(factor, Transpose) else factor
        if isinstance(factor, Outer) or not isinstance(atom, RandomMatrix) or isinstance(atom, Circulant):
            raise NotCovered(f"{factor} has no place in the replica route of a spectrum")
        ends = (((row, 0),), ((col, 0),))
        self.uses.append(Use(atom.name, coefficient, *(ends[::-1] if isinstance(factor, Transpose) else ends)))


# -- ansatz --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RotateReplicas(Rule):
    """Q_ab = q δ_ab, and Gaussian sites: every order parameter is an entry of an inverse matrix."""

    title: ClassVar[str] = "Replica-symmetric, rotation-invariant saddle; n → 0"
    assumption: ClassVar[str] = "⟨a_a b_b⟩ = δ_ab ⟨a b⟩; single averages vanish; the sites' norms cancel as n → 0"
    source: ClassVar[str] = "edwards1976"

    def __call__(self, before: Form) -> ScalarSystem:
        assert isinstance(before, SiteProblem)
        return rotate(before)


def rotate(problem: SiteProblem) -> ScalarSystem:
    """The closed equations of the order parameters that are diagonal in replicas."""
    action = problem.action
    assert isinstance(action, GaussianAction)
    names = _names(problem)
    fields = {
        p: [f for f in action.fields.values() if f.population == p and f.role != "output"] for p, _ in action.sites
    }
    symbols = {f.name: f.symbol if f.definition is None else f.definition for f in action.fields.values()}
    covariance = {}
    for p, own in action.sites:
        exponent = own
        for term in problem.terms:
            if term.population == p.name and len(term.atoms) == 2 and all(r.op in names for r in term.refs):
                value: Expr = term.coef
                for r in term.refs:
                    value = value * names[r.op]
                exponent += value * symbols[term.atoms[0][0]] * symbols[term.atoms[1][0]]
        covariance[p.name] = _covariance(exponent, [f.symbol for f in fields[p]])
    return _system(names, covariance, symbols, action)


def _names(problem: SiteProblem) -> dict[OrderParameter, Symbol]:
    """A scalar for every two-copy order parameter; ⟨φφ⟩ is the resolvent."""
    found = dict.fromkeys(r.op for t in problem.terms for r in t.refs if len(r.op.atoms) == 2 and r.op.slots == 2)
    out: dict[OrderParameter, Symbol] = {}
    for op in found:
        own = [a for a, _ in op.atoms] == ["phi", "phi"]
        out[op] = W if own else Symbol(f"q_{1 + sum(s != W for s in out.values())}")
    return out


def _covariance(exponent: Expr, fields: list[Symbol]) -> dict[frozenset[Symbol], Expr]:
    """⟨ab⟩ of the Gaussian weight exp(exponent), one group of coupled fields at a time."""
    precision = {(a, b): -exponent.diff(a).diff(b) for a in fields for b in fields}
    out = {frozenset((a, b)): S.Zero for a in fields for b in fields}
    for group in _coupled(fields, precision):
        if len(group) > COUPLED:
            shown = ", ".join(map(text, group))
            raise NotCovered(f"the Gaussian weight of {shown} is not written out (at most {COUPLED} coupled fields)")
        table = Table(len(group), len(group), lambda i, j, g=group: precision[g[i], g[j]])
        det = table.det(method="berkowitz")
        for i, a in enumerate(group):
            for j, b in enumerate(group):
                minor = table.cofactor(j, i, method="berkowitz") if len(group) > 1 else S.One
                out[frozenset((a, b))] = minor / det
    return out


def _coupled(fields: list[Symbol], precision: dict[tuple[Symbol, Symbol], Expr]) -> list[list[Symbol]]:
    """Groups of fields that the exponent couples."""
    groups: list[list[Symbol]] = []
    for a in fields:
        joined = [g for g in groups if any(precision[a, b] != 0 for b in g)]
        groups = [g for g in groups if g not in joined] + [[b for g in joined for b in g] + [a]]
    return groups


def _system(
    names: dict[OrderParameter, Symbol],
    covariance: dict[str, dict[frozenset[Symbol], Expr]],
    symbols: dict[str, Expr],
    action: GaussianAction,
) -> ScalarSystem:
    home = action.fields["phi"].population.name
    values: dict[Symbol, Expr] = {W: LabelMean(covariance[home][frozenset((PHI,))])}
    lines = [equation_line(W, values[W], "the resolvent")]
    for op, symbol in names.items():
        if symbol == W:
            continue
        first, second = (symbols[a] for a, _ in op.atoms)
        table = covariance[op.population]
        (a,), (b,) = ([s for s in e.free_symbols if frozenset((s,)) in table] for e in (first, second))
        values[symbol] = LabelMean(first.coeff(a) * second.coeff(b) * table[frozenset((a, b))])
        lines.append(equation_line(symbol, values[symbol], op_name(op, action.fields)[0]))
    residuals = tuple(value - symbol for symbol, value in values.items())
    return ScalarSystem(tuple(values), residuals, tuple(lines))


# -- elimination ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class EliminateConjugates(Rule):
    """Insert the scalars that are functions of others, until w(z) has as few equations as possible."""

    title: ClassVar[str] = "Eliminate conjugate scalars"
    assumption: ClassVar[str] = ""

    def __call__(self, before: Form) -> ScalarSystem:
        assert isinstance(before, ScalarSystem)
        return eliminated(before)


def eliminated(system: ScalarSystem) -> ScalarSystem:
    """The same equations with explicit scalars inserted; z = 1/w + R(w) where sites of the matrix carry no labels."""
    right = (r + u for u, r in zip(system.unknowns, system.residuals, strict=True))
    values = dict(zip(system.unknowns, right, strict=True))
    for symbol in list(values):
        value = values[symbol]
        means = [m for v in values.values() for m in v.atoms(LabelMean)]
        nested = value.has(LabelMean) and any(symbol in m.free_symbols for m in means)
        if symbol == W or symbol in value.free_symbols or nested:
            continue
        del values[symbol]
        values = {s: v.xreplace({symbol: value}) for s, v in values.items()}
    lines = [equation_line(s, v) for s, v in values.items()]
    rest = 1 / values[W] - Z
    if Z not in rest.free_symbols:
        lines[0] = Line(f"z = {text(1 / W - rest)}", f"z = {latex(1 / W - rest)}")
    return replace(
        system,
        unknowns=tuple(values),
        residuals=tuple(v - s for s, v in values.items()),
        shown=tuple(lines),
    )


def replica_route(spectrum: Spectrum) -> tuple[Step, ...]:
    """The steps of the replica route of a symmetric matrix.

    Raises
    ------
    NotCovered
        For inverses, finite-rank parts, or a matrix with complex eigenvalues.
    """
    from quenched.theory.modes import Diagonalise

    form: Form = SpectrumDeclaration(spectrum)
    steps = []
    rules: list[Rule] = [Diagonalise()] if any(isinstance(m, Circulant) for m in spectrum.matrices) else []
    rules += [ReplicateVector(), Average(), NameOrderParameters(), Saddle(), RotateReplicas(), EliminateConjugates()]
    for rule in rules:
        step = Step(rule, form)
        form = step.after
        steps.append(step)
    return tuple(steps)
