"""Step 10 for finitely many copies: the averaged exponent to second order, and the order 1/N from it.

With order parameters O, conjugates Ô and W(Ô) the logarithm of one site's generating function, the weight is
exp N[P(O) − Ô·O + W(Ô)]. Σ and κ are second and third cumulants of the site's monomials, P'' is read off the averaged
exponent; to one loop

    N·Cov(O) = Σ(1 − P''Σ)⁻¹,    N·(⟨O⟩ − O*) = (1 − ΣP'')⁻¹ · ½ κ:[(1 − P''Σ)⁻¹P''].

The first of these is the formula of `theory.fluctuations`. Here the conjugate fields are eliminated from both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, Matrix, Rational, S, Symbol, cancel, eye

from quenched.theory.average import Functional, term_print
from quenched.theory.errors import NotCovered
from quenched.theory.problem_layers import FirstOrder, LayeredGaussian
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.terms import Term


@dataclass(frozen=True)
class QuadraticTerms(Form):
    """The averaged exponent as a quadratic form in the order parameters of one network.

    Attributes
    ----------
    functional : the averaged exponent
    terms : its terms, each a product of two order parameters
    """

    name: ClassVar[str] = "quadratic form in the order parameters"
    functional: Functional
    terms: tuple[Term, ...]

    def lines(self) -> list[Line]:
        pieces = []
        for term in self.terms:
            plain, tex = term_print(term, self.functional.action.fields)
            plain, tex = plain.replace("⟨", "δ⟨"), tex.replace(r"\langle", r"\delta\langle")
            pieces.append((term.coef, plain, tex))
        plain, tex = signed_sum(pieces)
        return [Line(f"P₂ = {plain}", f"P_2 = {tex}", "summed over copies")]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, term in enumerate(self.terms):
            rest = self.terms[:k] + self.terms[k + 1 :]
            yield f"term {k + 1} dropped", replace(self, terms=rest)
            scaled = replace(term, coef=term.coef * Rational(11, 10))
            yield f"term {k + 1} × 1.1", replace(self, terms=(*rest, scaled))


@dataclass(frozen=True)
class ExpandTerms(Rule):
    """Expand the averaged exponent about the saddle."""

    title: ClassVar[str] = "Fluctuations: quadratic form in the order parameters"
    assumption: ClassVar[str] = "products of two averages; couplings Gaussian, so that there is no further term at 1/N"
    source: ClassVar[str] = "segadlo2022"

    def __call__(self, before: Form) -> QuadraticTerms:
        assert isinstance(before, Functional)
        for term in (*before.terms, *before.lower_order):
            if len(term.factors) != 2 or term.power != 0:
                raise NotCovered(
                    f"the term {term_print(term, before.action.fields)[0]}: its fluctuations are not built yet "
                    "(expected a product of two averages of order N)"
                )
        return QuadraticTerms(before, before.terms)


@dataclass(frozen=True)
class LayerFluctuations(Form):
    """Covariances and mean shifts of order 1/N, with the conjugate fields eliminated.

    Attributes
    ----------
    problem : the weights of the terms, and the recursion that they belong to
    """

    name: ClassVar[str] = "order 1/N over layers"
    problem: FirstOrder

    def lines(self) -> list[Line]:
        p = self.problem
        drift = [
            (p.curvature, "Σ_kl ∂²F_j/∂O_k∂O_l·V_kl", r"\sum_{kl} \partial_k \partial_l F_j\, V_{kl}"),
            (p.pull, "Σ_kl ∂Σ_jk/∂O_l·G_lk", r"\sum_{kl} \partial_l \Sigma_{jk}\, G_{lk}"),
        ]
        plain, tex = signed_sum([piece for piece in drift if piece[0] != 0])
        gain = "" if p.pair == 1 else f"{text(p.pair)}·"
        return [
            Line(
                f"A_jk = {gain}∂F_j/∂O_k", rf"A_{{jk}} = {latex(p.pair)}\,\partial F_j/\partial O_k", "Price's theorem"
            ),
            Line("G = (1 − A)⁻¹", r"G = (1 - A)^{-1}", "every pair of copies once"),
            Line("N·Cov(O) = V = G Σ Gᵀ", r"N\,\mathrm{Cov}(O) = V = G\, \Sigma\, G^{\mathsf T}"),
            Line("N·(⟨O⟩ − O*) = G·m", r"N (\langle O \rangle - O^*) = G\, m"),
            Line(f"m_j = {plain}", f"m_j = {tex}", "tadpole"),
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for label, problem in (
            ("curvature dropped", replace(p, curvature=S.Zero)),
            ("curvature × 1.1", replace(p, curvature=p.curvature * Rational(11, 10))),
            ("second tadpole dropped", replace(p, pull=S.Zero)),
            ("second tadpole × 1.1", replace(p, pull=p.pull * Rational(11, 10))),
            ("pairs counted twice", replace(p, pair=2 * p.pair)),
        ):
            yield label, replace(self, problem=problem)


@dataclass(frozen=True)
class EliminateConjugates(Rule):
    """Eliminate the conjugate fields from the one-loop formulas."""

    title: ClassVar[str] = "Covariances and mean shifts of order 1/N"
    assumption: ClassVar[str] = "⟨ψψ; ĥĥ⟩ = −2 ∂⟨ψψ⟩/∂C (Price), ⟨ĥĥ; ĥĥ⟩ = 0 (largest time)"
    source: ClassVar[str] = "segadlo2022,price1958"
    layered: LayeredGaussian

    def __hash__(self) -> int:
        return hash((self.title, self.layered.steps, self.layered.samples))

    def __call__(self, before: Form) -> LayerFluctuations:
        assert isinstance(before, QuadraticTerms)
        curvature, pull, pair = eliminated()
        return LayerFluctuations(FirstOrder(self.layered, curvature, pull, pair))


def one_loop(hessian: Matrix, sigma: Matrix, kappa: list[Matrix]) -> tuple[Matrix, Matrix]:
    """N·Cov and N·shift of order parameters from P'', Σ and third cumulants κ[i][j, k]."""
    one = eye(hessian.rows)
    covariance = sigma * (one - hessian * sigma).inv()
    loop = (one - hessian * sigma).inv() * hessian
    force = Matrix([Rational(1, 2) * sum(k.multiply_elementwise(loop), S.Zero) for k in kappa])
    return covariance, (one - sigma * hessian).inv() * force


def eliminated() -> tuple[Expr, Expr, Expr]:
    """Weights of ½F''V and of Σ'G, and of ∂F/∂O in the gain, from the one-loop formulas of ⟨ψψ⟩ and ⟨ĥĥ⟩.

    One pair of order parameters Q = ⟨ψψ⟩ and K = ⟨ĥĥ⟩ with P = p·QK is enough: C = c·Q with −½C the coefficient of
    ĥĥ, so p = −c/2, and every derivative by K is −2 ∂/∂C.

    Raises
    ------
    NotCovered
        If more than averages of outputs is left.
    """
    c, s, ds, f1, f2 = (Symbol(x) for x in ("c", "s", "s_C", "F_C", "F_CC"))
    p, by = -c / 2, Rational(-2)
    hessian = Matrix([[0, p], [p, 0]])
    sigma = Matrix([[s, by * f1], [by * f1, 0]])
    # A force on ⟨ĥĥ⟩ would be a closed loop of responses: it vanishes at causal copies.
    kappa = [Matrix([[Symbol("k"), by * ds], [by * ds, by**2 * f2]]), Matrix.zeros(2, 2)]
    covariance, shift = one_loop(hessian, sigma, kappa)
    variance, mean = cancel(covariance[0, 0]), cancel(shift[0]).expand()
    response = _response(variance, s)
    pair = cancel((1 - 1 / response) / (c * f1))
    curvature = cancel(mean.diff(f2) / (response * c**2 * variance))
    pull = cancel(mean.diff(ds) / (response * c * response))
    if any(e.free_symbols for e in (pair, curvature, pull)):
        raise NotCovered("the one-loop formulas do not reduce to averages of outputs")
    return curvature, pull, pair


def _response(variance: Expr, s: Symbol) -> Expr:
    """G of V = G²·s, which is one without coupling."""
    base, exponent = cancel(s / variance).factor().as_base_exp()
    if exponent != 2:
        raise NotCovered("the covariance of the outputs' averages is no square of a response")
    response: Expr = 1 / base if base.subs(Symbol("c"), 0) == 1 else -1 / base
    return response


__all__ = [
    "EliminateConjugates",
    "ExpandTerms",
    "LayerFluctuations",
    "QuadraticTerms",
    "eliminated",
    "one_loop",
]
