"""Steps 3 and 4: order parameters and the saddle point.

An order parameter is a site average that occurs in the averaged exponent. At the saddle, a site feels each product
of averages with one factor replaced by its own fields and the others by their order parameters (the product rule, exact
for any number of factors).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, Rational

from quenched.theory.average import COPY_TEXT, Functional, kernel_print
from quenched.theory.lower import CopiedAction, SiteField
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.terms import Atom, Factor, Kernel, canonical_labels, relabel


@dataclass(frozen=True)
class OrderParameter:
    """⟨Π fields⟩ of one population, with slots 0, 1, … for its copies, in canonical order."""

    population: str
    atoms: tuple[Atom, ...]

    @property
    def slots(self) -> int:
        return 1 + max(s for _, s in self.atoms)

    def hats(self, fields: dict[str, SiteField]) -> int:
        """How many conjugate fields it contains."""
        return sum(fields[a].role == "hat" for a, _ in self.atoms)


@dataclass(frozen=True)
class OPRef:
    """An order parameter at given copies (one a slot)."""

    op: OrderParameter
    at: tuple[int, ...]


def order_parameter(factor: Factor) -> OPRef:
    """The canonical order parameter of a factor and the copies it is taken at."""
    names = canonical_labels((factor,), ())
    (renamed,), _ = relabel((factor,), (), names)
    inverse = {v: k for k, v in names.items()}
    return OPRef(OrderParameter(factor.population, renamed.atoms), tuple(inverse[i] for i in range(len(names))))


def op_name(op: OrderParameter, fields: dict[str, SiteField]) -> tuple[str, str]:
    """A physicist's name by roles: C without hats, R with one hat (⟨ψ ĥ⟩ = iR), otherwise the average itself."""
    hats = op.hats(fields)
    own = [fields[a] for a, _ in op.atoms if fields[a].role != "hat"]
    label = ",".join(dict.fromkeys(text(f.symbol) for f in own))
    tex = ",".join(dict.fromkeys(latex(f.symbol) for f in own))
    if hats == 0 and op.slots == 1 and len(op.atoms) == 1:
        return f"⟨{label}⟩", rf"\langle {tex} \rangle"
    if hats == 0 and len(op.atoms) == 2:
        return f"C_{label}", f"C_{{{tex}}}"
    if hats == 1 and len(op.atoms) == 2:
        conj = next(fields[a] for a, _ in op.atoms if fields[a].role == "hat")
        return f"iR_{label},{text(conj.symbol)}", f"iR_{{{tex},{latex(conj.symbol)}}}"
    body = " ".join(text(fields[a].symbol) + "′" * s for a, s in op.atoms)
    btex = r"\, ".join(latex(fields[a].symbol) + "'" * s for a, s in op.atoms)
    return f"⟨{body}⟩", rf"\langle {btex} \rangle"


@dataclass(frozen=True)
class OrderParameters(Form):
    """The order parameters of an averaged exponent, named."""

    name: ClassVar[str] = "order parameters"
    functional: Functional
    parameters: tuple[OrderParameter, ...]

    def lines(self) -> list[Line]:
        fields = self.functional.action.fields
        out = []
        for op in self.parameters:
            name, tex = op_name(op, fields)
            slots, primes = COPY_TEXT[: op.slots], ("c", "c'", "c''", "c'''")[: op.slots]
            body = " ".join(f"{text(fields[a].symbol)}({COPY_TEXT[s]})" for a, s in op.atoms)
            btex = r"\, ".join(f"{latex(fields[a].symbol)}({primes[s]})" for a, s in op.atoms)
            out.append(
                Line(f"{name}({','.join(slots)}) = ⟨{body}⟩", rf"{tex}({','.join(primes)}) = \langle {btex} \rangle")
            )
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, op in enumerate(self.parameters):
            name, _ = op_name(op, self.functional.action.fields)
            yield f"{name} forgotten", replace(self, parameters=self.parameters[:k] + self.parameters[k + 1 :])


@dataclass(frozen=True)
class NameOrderParameters(Rule):
    """List the site averages that occur."""

    title: ClassVar[str] = "Order parameters"
    assumption: ClassVar[str] = ""

    def __call__(self, before: Form) -> OrderParameters:
        assert isinstance(before, Functional)
        found = dict.fromkeys(order_parameter(f).op for t in before.terms for f in t.factors)
        return OrderParameters(before, tuple(sorted(found, key=lambda op: (op.population, op.atoms))))


@dataclass(frozen=True)
class SiteTerm:
    """A term of one site's exponent: coef · Π order parameters · Π own fields, summed over copies.

    Copies are labelled so that those of the own fields come first.
    """

    population: str
    coef: Expr
    power: Expr
    refs: tuple[OPRef, ...]
    atoms: tuple[Atom, ...]
    kernels: tuple[Kernel, ...] = ()


@dataclass(frozen=True)
class SiteProblem(Form):
    """One site per population in the field of the order parameters.

    Attributes
    ----------
    action : site equations and fields
    functional : the averaged exponent it came from
    terms : the exponent of a site beyond its own equation
    gone : terms that a later rule dropped, with the reason
    """

    name: ClassVar[str] = "single-site problem"
    action: CopiedAction
    functional: Functional
    terms: tuple[SiteTerm, ...]
    gone: tuple[tuple[SiteTerm, str], ...] = ()

    def lines(self) -> list[Line]:
        out = []
        for pop in dict.fromkeys(t.population for t in self.terms):
            pieces = [(t.coef, *site_term_print(t, self.action.fields)) for t in self.terms if t.population == pop]
            plain, tex = signed_sum(pieces)
            tag = f" ({pop})" if len(self.action.populations) > 1 else ""
            out.append(Line(f"site exponent{tag}: {plain}", rf"\text{{site exponent{tag}}} = {tex}"))
        return out

    def dropped(self) -> list[Line]:
        shown = []
        for term, reason in self.gone:
            plain, tex = site_term_print(term, self.action.fields)
            shown.append(Line(f"{text(term.coef)}·{plain}", f"{latex(term.coef)} {tex}", reason))
        return shown

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, term in enumerate(self.terms):
            rest = self.terms[:k] + self.terms[k + 1 :]
            yield f"site term {k + 1} dropped", replace(self, terms=rest)
            yield (
                f"site term {k + 1} × 1.1",
                replace(self, terms=(*rest, replace(term, coef=term.coef * Rational(11, 10)))),
            )
        for k in range(len(self.gone)):
            yield f"dropped term {k + 1} not listed", replace(self, gone=self.gone[:k] + self.gone[k + 1 :])


def site_term_print(term: SiteTerm, fields: dict[str, SiteField]) -> tuple[str, str]:
    """A site term without its coefficient, in both notations."""
    primes = ("c", "c'", "c''", "c'''", "c''''")
    plain, tex = [], []
    for ref in term.refs:
        name, name_tex = op_name(ref.op, fields)
        plain.append(f"{name}({','.join(COPY_TEXT[c] for c in ref.at)})")
        tex.append(f"{name_tex}({','.join(primes[c] for c in ref.at)})")
    plain += [f"{text(fields[a].symbol)}({COPY_TEXT[c]})" for a, c in term.atoms]
    tex += [f"{latex(fields[a].symbol)}({primes[c]})" for a, c in term.atoms]
    power = "" if term.power == 0 else f"N^({term.power}) "
    power_tex = "" if term.power == 0 else f"N^{{{latex(term.power)}}} "
    marks, marks_tex = kernel_print(term.kernels)
    return power + " ".join(plain) + marks, power_tex + r"\, ".join(tex) + marks_tex


@dataclass(frozen=True)
class Saddle(Rule):
    """Replace each product of averages by its mean-field parts."""

    title: ClassVar[str] = "Saddle point: one site in the field of the order parameters"
    assumption: ClassVar[str] = "N → ∞; order parameters do not fluctuate"
    source: ClassVar[str] = "sompolinsky1988"

    def __call__(self, before: Form) -> SiteProblem:
        assert isinstance(before, OrderParameters)
        return saddle(before.functional)


def saddle(functional: Functional) -> SiteProblem:
    """The single-site problem of an averaged exponent (product rule over its terms)."""
    fractions = {p.name: p.fraction for p in functional.action.populations}
    sums: dict[tuple[object, ...], SiteTerm] = {}
    for term in functional.terms:
        for k, own in enumerate(term.factors):
            if fractions[own.population] is None:
                continue  # a finite population holds given vectors: it has no site that feels the others
            others = term.factors[:k] + term.factors[k + 1 :]
            new = _site_term(own, others, term.kernels, term.coef / fractions[own.population], term.power)
            key = (new.population, str(new.power), new.refs, new.atoms, new.kernels)
            old = sums.get(key)
            sums[key] = replace(new, coef=new.coef + old.coef) if old else new
    kept = sorted((t for t in sums.values() if t.coef != 0), key=lambda t: (t.population, repr(t.atoms), repr(t.refs)))
    return SiteProblem(functional.action, functional, tuple(kept))


def _site_term(
    own: Factor, others: tuple[Factor, ...], kernels: tuple[Kernel, ...], coef: Expr, power: Expr
) -> SiteTerm:
    """Canonical form: copies of the own fields first, then the rest."""
    mine = canonical_labels((own,), ())
    names = dict(mine)
    rest = canonical_labels((own, *others), kernels, fixed=sorted(mine, key=mine.__getitem__))
    names |= {c: i for c, i in rest.items() if c not in names}
    best = None
    for flip in _symmetries(own, mine):
        trial = {c: flip.get(i, i) for c, i in names.items()}
        (mono,), _ = relabel((own,), (), trial)
        moved, marks = relabel(others, kernels, trial)
        refs = tuple(sorted((order_parameter(f) for f in moved), key=repr))
        key = (repr(mono.atoms), repr(refs), repr(marks))
        if best is None or key < best[0]:
            best = (key, SiteTerm(own.population, coef, power, refs, mono.atoms, marks))
    assert best is not None
    return best[1]


def _symmetries(own: Factor, mine: dict[int, int]) -> list[dict[int, int]]:
    """Renamings of the own copies that leave the own monomial as it is."""
    from itertools import permutations

    (base,), _ = relabel((own,), (), mine)
    size = len(mine)
    out = []
    for order in permutations(range(size)):
        moved = tuple(sorted((a, order[c]) for a, c in base.atoms))
        if moved == base.atoms:
            out.append(dict(enumerate(order)))
    return out
