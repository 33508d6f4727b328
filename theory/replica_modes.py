"""Correlations of disorder in their own modes: translation-invariant matrices between units whose law has no direction.

A translation-invariant symmetric matrix C is diagonal in Fourier modes, C = F diag λ(θ) Fᵀ with F orthogonal. Where
everything else that the units of a population carry keeps its law under rotations (states on a sphere or Gaussian,
weights of a teacher, patterns with independent entries of mean zero, of which only two cumulants matter), the units may
be counted in these modes: C becomes a label λ of a unit, an eigenvalue λ(θ) at a uniform angle. Inputs X @ (C @ w) are
correlated between units by C², samples C @ (X @ w) between each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from sympy import Add, Basic, Expr, Float, I, Mul, Poly, Rational, S, Symbol, exp, log

from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Apply, Gaussian, RandomMatrix, Transpose
from quenched.theory.distributions import Law, Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Quenched, UnitSymbol, unbind
from quenched.theory.gibbs import Gibbs
from quenched.theory.observables import Mean, mean
from quenched.theory.priors import Flat, Restricted, on_sphere
from quenched.theory.record import Form, Rule
from quenched.theory.replica_condense import quadratic_form
from quenched.theory.replica_lower import GibbsDeclaration
from quenched.theory.spaces import ANGLE, Population
from quenched.theory.substitute import walk

#: Angles in (0, π) at which averages over eigenvalues are taken: midpoints, exact for waves up to twice as many shifts.
ANGLES = 24


class Eigenvalues(Law):
    """The law of λ(θ), real and even in θ, at an angle uniform on [0, 2π)."""

    parameter_names = ("symbol",)

    def mean_(self) -> Expr:
        return _over_angles(self.args[0])

    def variance_(self) -> Expr:
        return (_over_angles(self.args[0] ** 2) - self.mean_() ** 2).expand()

    def weights(self) -> tuple[tuple[Expr, Expr], ...]:
        """The rule that averages are taken with: it converges exponentially for smooth functions of the angle."""
        angles = [Float(float(k + S.Half) * 3.141592653589793 / ANGLES) for k in range(ANGLES)]
        return tuple((self.args[0].xreplace({ANGLE: a}), Rational(1, ANGLES)) for a in angles)


def _over_angles(symbol: Expr) -> Expr:
    """(1/2π) ∫dθ: the constant of a polynomial in waves, else the rule."""
    z = Symbol("z", positive=True)
    waves = symbol.rewrite(exp).subs(ANGLE, -I * log(z)).expand()
    powers = [term.as_coeff_exponent(z) for term in Add.make_args(waves)]
    if not any(c.has(z) or not p.is_number for c, p in powers):
        return Add(*(c for c, p in powers if p == 0))
    return Add(*(p * a for a, p in Eigenvalues(symbol).weights()))


@dataclass(frozen=True)
class InModes(GibbsDeclaration):
    """A measure whose translation-invariant matrices are labels.

    Attributes
    ----------
    labels : matrix → eigenvalue of a mode
    """

    name: ClassVar[str] = "correlations in their modes"
    labels: tuple[tuple[Circulant, Quenched], ...] = ()

    def __hash__(self) -> int:
        return hash(self.model)

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for matrix, label in self.labels:
            wrong = {q: q * Rational(11, 10) for q in (label, label.bind())}
            yield f"eigenvalue of {matrix.name} × 1.1", InModes(self.model.rewritten(wrong), self.labels)


@dataclass(frozen=True)
class CountModes(Rule):
    """Count the units of a population in the modes of the translation-invariant matrices between them."""

    title: ClassVar[str] = "Correlations in their modes"
    assumption: ClassVar[str] = "the laws of states, labels and other matrices have no direction"
    source: ClassVar[str] = "kabashima2008"

    def __call__(self, before: Form) -> InModes:
        assert isinstance(before, GibbsDeclaration)
        return in_modes(before.model)


def turned_populations(model: Gibbs) -> tuple[Population, ...]:
    """Populations that have to be counted in modes: those with a translation-invariant matrix that no other step reads.

    A quadratic energy u·(C @ u) of local fields u alone is read as it stands.
    """
    hosts = {f.population for f in model.fields}
    found: dict[Population, None] = {}
    for node in _nodes(model):
        if (
            isinstance(node, Apply)
            and isinstance(_atom(node), Circulant)
            and (node.rows in hosts or _alone(model, node))
        ):
            found[node.rows] = None
    return tuple(found)


def _alone(model: Gibbs, node: Apply) -> bool:
    """Whether C @ u is read otherwise than in the one product u·(C @ u), also of u = ξ χ as χ·ξᵀ C ξ χ, of a term."""
    pairs = [t for m in model.energy.atoms(Mean) for t in Add.make_args(unbind(m.body).expand()) if t.has(node)]
    quadratic = pairs and all(_bare(t) == unbind(node.body) * node or _of_patterns(_bare(t), node) for t in pairs)
    return any(w.has(node) for w in model.weights) or not quadratic


def _of_patterns(term: Expr, node: Apply) -> bool:
    """Whether a term is χ·ξᵀ C ξ χ."""
    inner = unbind(node.body)
    found = quadratic_form(term, inner.matrix) if isinstance(inner, Apply) else None
    return found is not None and found[0] == node.matrix


def _bare(term: Expr) -> Expr:
    """A term without its numbers and parameters."""
    return Mul(*(f for f in Mul.make_args(term) if f.has(Apply, UnitSymbol)))


def _nodes(model: Gibbs) -> Iterator[Basic]:
    for expr in (model.energy, *model.weights):
        yield from walk(expr)


def _atom(node: Apply) -> RandomMatrix:
    return node.matrix.matrix if isinstance(node.matrix, Transpose) else node.matrix


def in_modes(model: Gibbs) -> InModes:
    """The measure with the units of some populations counted in modes.

    Raises
    ------
    NotCovered
        Something of these units has a direction: a prior, a label, a weight or an observable.
    """
    populations = turned_populations(model)
    labels: dict[Circulant, Quenched] = {}
    taken = {u.name for u in (*model.fields, *model.quenched, *model.parameters)}
    for population in populations:
        own = [m for m in model.matrices if isinstance(m, Circulant) and m.rows == population]
        if len(own) > 1:
            raise NotCovered(
                f"{', '.join(m.name for m in own)} between the units of {population.name!r}: one is covered"
            )
        _check(model, population)
        name = f"lambda_{own[0].name}"
        while name in taken:
            name += "_"
        labels[own[0]] = Quenched(name, Eigenvalues(own[0].eigenvalue), over=population)
    new = Gibbs(
        model.priors,
        _turned(model.energy, labels),
        tuple(_turned(w, labels) for w in model.weights),
        model.beta,
        model.name,
        model.defaults,
        model.cold,
        model.starts,
    )
    seen = {name: _turned(expr, labels) for name, expr in model.observables.items()}
    return InModes(new.observe(**seen), tuple(labels.items()))


def _turned(expr: Any, labels: dict[Circulant, Quenched]) -> Any:
    """An expression with C @ ψ as λψ."""
    if isinstance(expr, Apply):
        body, atom = _turned(unbind(expr.body), labels), _atom(expr)
        return labels[atom] * body if isinstance(atom, Circulant) and atom in labels else Apply(expr.matrix, body)
    if isinstance(expr, Mean):
        return mean(_turned(unbind(expr.body), labels), over=expr.population)
    if not expr.args or isinstance(expr, UnitSymbol):
        return expr
    args = tuple(_turned(a, labels) if isinstance(a, Basic) else a for a in expr.args)
    return expr if args == expr.args else expr.func(*args)


# -- what has no direction -----------------------------------------------------------------------------------------
def _check(model: Gibbs, population: Population) -> None:
    """Refuse what rotations of the units of a population change."""
    where = f"the units of {population.name!r} have translation-invariant correlations, and"
    for f, law in model.priors.items():
        if f.population == population and not isotropic(law):
            raise NotCovered(
                f"{where} the prior {law} of {f} has a direction: Spherical, Normal(0, …) and Flat have none"
            )
        if f.population == population and isinstance(f.initial, Expr) and not _linear(f.initial, population):
            raise NotCovered(f"{where} {f} starts from {f.initial}, which is no label of them")
    for q in model.quenched:
        if q.population == population and not isotropic(q.law):
            raise NotCovered(f"{where} the law {q.law} of {q} has a direction: Spherical and Normal(0, …) have none")
    for m in model.matrices:
        _check_matrix(m, population, where)
    for weight in model.weights:
        if any(n.population == population for n in _open(weight)) or _rows(weight, population):
            raise NotCovered(f"{where} the weight {weight} has a direction among them")
    for expr in (model.energy, *model.observables.values()):
        for node in (n for n in walk(expr) if isinstance(n, Mean) and n.population == population):
            if not _quadratic(unbind(node.body), population):
                raise NotCovered(f"{where} {node} has a direction: means of products of two states or labels have none")
    for expr in (model.energy, *model.weights, *model.observables.values()):
        for node in (n for n in walk(expr) if isinstance(n, Apply) and n.cols == population):
            if not _linear(unbind(node.body), population):
                raise NotCovered(f"{where} {node} reads more than a linear function of states and labels")


def isotropic(law: Law) -> bool:
    """Whether many independent numbers of a law, or numbers on a sphere, have a law without direction."""
    if isinstance(law, Restricted):
        return False
    return on_sphere(law) or isinstance(law, Flat) or (isinstance(law, Normal) and law.mean_() == 0)


def _check_matrix(m: RandomMatrix, population: Population, where: str) -> None:
    if population not in (m.rows, m.cols):
        return
    if isinstance(m, Circulant):
        if m.rows == population and not m.symmetric:
            raise NotCovered(f"{where} {m} is not symmetric: its modes are complex")
        return
    average = m.mean if isinstance(m, Gaussian) else m.law.mean_()
    if average != 0:
        raise NotCovered(f"{where} the entries of {m.name} have the mean {average}, which has a direction")


def _open(expr: Expr) -> Iterator[UnitSymbol]:
    """Unit quantities outside all sums."""
    if isinstance(expr, UnitSymbol):
        yield expr
    elif not isinstance(expr, (Apply, Mean)):
        for a in expr.args:
            if isinstance(a, Expr):
                yield from _open(a)


def _rows(expr: Expr, population: Population) -> bool:
    """Whether an expression is per unit of a population through a sum over others."""
    if isinstance(expr, Apply):
        return expr.rows == population
    return any(_rows(a, population) for a in expr.args if isinstance(a, Expr))


def _vectors(expr: Expr, population: Population) -> list[Expr]:
    """States, labels and sums that carry the unit index of a population."""
    if isinstance(expr, UnitSymbol) or (isinstance(expr, Apply) and expr.rows == population):
        return [expr]
    return list(dict.fromkeys(v for a in expr.args if isinstance(a, Expr) for v in _vectors(a, population)))


def _degrees(expr: Expr, population: Population) -> set[int] | None:
    """Degrees of the terms of an expression in its vectors, None where it is no polynomial in them."""
    vectors = _vectors(expr, population)
    if not vectors:
        return {0}
    expr = expr.expand()
    if not expr.is_polynomial(*vectors):
        return None
    return {sum(powers) for powers in Poly(expr, *vectors).monoms()}


def _quadratic(expr: Expr, population: Population) -> bool:
    return _degrees(expr, population) in ({2}, {0}, {0, 2})


def _linear(expr: Expr, population: Population) -> bool:
    return _degrees(expr, population) == {1}


__all__ = ["CountModes", "InModes", "in_modes", "isotropic", "turned_populations"]
