"""Stability of a saddle: the quadratic action between two copies that share everything but a small difference.

The expansion is that of `theory.fluctuations`, about another point: the copies overlap fully instead of not at all. A
difference between them neither grows nor decays where the largest eigenvalue of P''Σ is 1. Σ has one propagator for
each copy again, and is averaged over what both share. Only this average knows what copies are: times (growth of a
difference, Lyapunov exponent), layers (depth scale χ), replicas (replicon), or the resolvent at z and at its complex
conjugate (boundary of the support).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from sympy import Expr, ImmutableMatrix, Rational, S, Symbol, cancel, eye

from quenched.theory.average import Functional
from quenched.theory.errors import NotCovered
from quenched.theory.fluctuations import (
    Mode,
    QuadraticAction,
    expand_between_copies,
    fractions_of,
    site_covariance,
)
from quenched.theory.problem import DS, DT
from quenched.theory.problem_replicas import L
from quenched.theory.problem_scalars import LabelMean
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.terms import Factor


class SharedSite(Protocol):
    """What two copies of one site have in common: the law that Σ is averaged over."""

    @property
    def assumption(self) -> str:
        """What the copies share, in words."""

    @property
    def condition(self) -> str:
        """What an eigenvalue of P''Σ equal to 1 means."""

    def overlap(self, factor: Factor) -> Expr:
        """Value of an average that joins both copies."""

    def apart(self, mode: Mode) -> str:
        """Why a difference of this kind does not feed itself, or an empty string."""

    def propagator(self, a: str, c: str, copy: int) -> Expr:
        """K_ac of one copy, given what both share."""

    def shared(self, product: Expr) -> Expr:
        """Average of a product of two propagators over what the copies share."""

    def definitions(self, used: set[Symbol]) -> list[Line]:
        """What the symbols in P''Σ are."""


@dataclass(frozen=True)
class SharedQuadraticAction(QuadraticAction):
    """The averaged exponent to second order in what connects two copies, where they overlap fully.

    Attributes
    ----------
    site : the law that both copies share
    """

    site: SharedSite = field(kw_only=True, hash=False)


@dataclass(frozen=True)
class CopyStability(Form):
    """P''Σ between two copies; its largest eigenvalue is 1 where a difference between them neither grows nor decays.

    Attributes
    ----------
    quadratic : the quadratic action
    site : the law that both copies share
    modes : the differences that feed each other
    matrix : P''Σ, (modes × modes)
    """

    name: ClassVar[str] = "stability of two copies"
    quadratic: QuadraticAction
    site: SharedSite = field(hash=False)
    modes: tuple[Mode, ...]
    matrix: ImmutableMatrix

    @property
    def eigenvalue(self) -> Expr:
        """1 − det(1 − P''Σ): the eigenvalue itself where there is one mode."""
        return 1 - (eye(len(self.modes)) - self.matrix).det(method="berkowitz")

    def lines(self) -> list[Line]:
        size = len(self.modes)
        out = [
            Line(f"(P''Σ)_{i}{j} = {text(e)}", rf"(P''\Sigma)_{{{i}{j}}} = {latex(e)}", self._labels(i, j))
            for i in range(size)
            for j in range(size)
            if (e := self.matrix[i, j]) != 0
        ]
        last = Line("largest eigenvalue of P''Σ = 1", r"\lambda_{\max}(P''\Sigma) = 1", self.site.condition)
        return [*out, *self.site.definitions(self.matrix.free_symbols), last]

    def _labels(self, i: int, j: int) -> str:
        fields = self.quadratic.action.fields
        ends = [
            f"{text(fields[m.first].symbol)}, {text(fields[m.second].symbol)}" for m in (self.modes[j], self.modes[i])
        ]
        return f"from ({ends[0]}) to ({ends[1]})"

    def dropped(self) -> list[Line]:
        out = []
        for mode in self.quadratic.modes:
            reason = "given vectors" if mode not in self.modes and not self.site.apart(mode) else self.site.apart(mode)
            if reason:
                out.append(Line(*mode.shown(self.quadratic.action.fields), reason))
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for i in range(len(self.modes)):
            for j in range(len(self.modes)):
                for label, scale in (("dropped", S.Zero), ("× 1.1", Rational(11, 10))):
                    if self.matrix[i, j] != 0:
                        changed = self.matrix.as_mutable()
                        changed[i, j] = scale * self.matrix[i, j]
                        yield f"(P''Σ)[{i},{j}] {label}", replace(self, matrix=ImmutableMatrix(changed))


@dataclass(frozen=True)
class ExpandSharedCopies(Rule):
    """Expand in what connects two copies, about copies that overlap fully."""

    title: ClassVar[str] = "Quadratic action between two copies that share their disorder"
    source: ClassVar[str] = "dealmeida1978,sompolinsky1988"
    site: SharedSite = field(hash=False)

    @property
    def assumption(self) -> str:  # type: ignore[override]
        return self.site.assumption

    def __call__(self, before: Form) -> SharedQuadraticAction:
        assert isinstance(before, Functional)
        q = expand_between_copies(before, self.site.overlap)
        return SharedQuadraticAction(q.action, q.modes, q.hessian, q.apart, site=self.site)


@dataclass(frozen=True)
class MultiplyPropagators(Rule):
    """Σ is the average, over what both copies share, of one propagator for each."""

    title: ClassVar[str] = "Stability of two copies: P''Σ"
    assumption: ClassVar[str] = "Gaussian fluctuations; copies differ infinitesimally"
    source: ClassVar[str] = "dealmeida1978,sompolinsky1988"

    def __call__(self, before: Form) -> CopyStability:
        assert isinstance(before, SharedQuadraticAction)
        return copy_stability(before, before.site)


def copy_stability(q: QuadraticAction, site: SharedSite) -> CopyStability:
    """P''Σ between the differences that feed each other.

    Vectors that are given (populations of finite size) do not differ between copies.

    Raises
    ------
    NotCovered
        If what is left apart feeds back.
    """
    fractions = fractions_of(q.action)
    given = {name for name, fraction in fractions.items() if fraction is None}

    def covariance(i: int, j: int) -> Expr:
        if q.modes[i].population in given:
            return S.Zero
        return site.shared(site_covariance(q.modes[i], q.modes[j], site.propagator, fractions))

    size = len(q.modes)
    whole = (q.hessian * ImmutableMatrix(size, size, covariance)).applyfunc(_tidy)
    keep = [i for i, m in enumerate(q.modes) if not site.apart(m) and m.population not in given]
    rest = [i for i in range(len(q.modes)) if i not in keep]
    if any(whole[i, j] != 0 for i in keep for j in rest):
        raise NotCovered("differences with a conjugate field feed those without: this stability is not built")
    return CopyStability(q, site, tuple(q.modes[i] for i in keep), ImmutableMatrix(whole.extract(keep, keep)))


def _tidy(entry: Expr) -> Expr:
    """Rational entries over one denominator; averages keep their form."""
    return entry if entry == 0 or entry.atoms(LabelMean) else entry.expand() if entry.has(*L) else _factored(entry)


def _factored(entry: Expr) -> Expr:
    outside, inside = entry.as_independent(DT, DS, as_Add=False)
    return outside * (cancel(inside).factor() if inside != 1 else S.One)
