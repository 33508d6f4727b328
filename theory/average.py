"""Step 2: average the disorder.

ln E exp(Σ uses) is the sum over the diagrams of the laws: every edge of a diagram is assigned one use of its matrix,
every vertex becomes one sum over sites. Ordered assignments are enumerated and merged by canonical form, with 1/k!
for a k-edge diagram, so no symmetry factor is written by hand. Nothing here knows what a copy is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

from sympy import Expr, Mul, Rational, S, factorial

from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.laws import Diagram, FunctionLaw
from quenched.theory.lower import CopiedAction, SiteField, Use
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.spaces import Population
from quenched.theory.terms import PAST, Atom, Factor, Kernel, Term, collect

COPY_TEXT = ("c", "c′", "c″", "c‴", "c⁗")


@dataclass(frozen=True)
class Functional(Form):
    """The averaged exponent N·P: terms by power of N, all sites of a population alike.

    Attributes
    ----------
    action : where the fields and site equations are
    terms : extensive terms and constraints (power ≥ 0)
    lower_order : terms that vanish as N → ∞, kept for expansions
    """

    name: ClassVar[str] = "averaged exponent"
    action: CopiedAction
    terms: tuple[Term, ...]
    lower_order: tuple[Term, ...] = ()

    def lines(self) -> list[Line]:
        return [
            Line("P = " + "".join(a for a, _ in rows), "P = " + "".join(b for _, b in rows)) for rows in [self._rows()]
        ]

    def _rows(self) -> list[tuple[str, str]]:
        pieces = [(t.coef, *term_print(t, self.action.fields)) for t in self.terms]
        return [signed_sum(pieces)]

    def dropped(self) -> list[Line]:
        return [
            Line(*_joined(t, self.action.fields), comment=f"of relative order N^{t.power}") for t in self.lower_order
        ]

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, term in enumerate(self.terms):
            rest = self.terms[:k] + self.terms[k + 1 :]
            yield f"term {k + 1} dropped", replace(self, terms=rest)
            scaled = replace(term, coef=term.coef * Rational(11, 10))
            yield f"term {k + 1} × 1.1", replace(self, terms=(*rest, scaled))
        for k in range(len(self.lower_order)):
            rest = self.lower_order[:k] + self.lower_order[k + 1 :]
            yield f"small term {k + 1} not listed", replace(self, lower_order=rest)


def _joined(term: Term, fields: dict[str, SiteField]) -> tuple[str, str]:
    plain, tex = term_print(term, fields)
    return f"{text(term.coef)}·{plain}", f"{latex(term.coef)} {tex}"


def term_print(term: Term, fields: dict[str, SiteField]) -> tuple[str, str]:
    """⟨…⟩⟨…⟩ of a term in both notations, without its coefficient."""
    power = "" if term.power == 0 else f"N^({term.power}) "
    power_tex = "" if term.power == 0 else f"N^{{{latex(term.power)}}} "
    plain = "".join(_factor_print(f, fields)[0] for f in term.factors)
    tex = " ".join(_factor_print(f, fields)[1] for f in term.factors)
    marks, marks_tex = kernel_print(term.kernels)
    return power + plain + marks, power_tex + tex + marks_tex


def kernel_print(kernels: tuple[Kernel, ...]) -> tuple[str, str]:
    """What relates the copies of a term: equality, or the memory of a dynamic coupling."""
    plain, tex = "", ""
    for kind, copies in kernels:
        names = [COPY_TEXT[c] for c in copies]
        if kind.startswith(PAST):
            name, where = kind.removeprefix(PAST), ",".join(names)
            plain += f" K_{name}({where})"
            tex += rf"\, K_{{{name}}}({where})".replace("′", "'")
        else:
            plain += f"[{'='.join(names)}]"
            tex += f"[{'='.join(names)}]".replace("′", "'")
    return plain, tex


def _factor_print(factor: Factor, fields: dict[str, SiteField]) -> tuple[str, str]:
    plain = " ".join(f"{text(fields[a].symbol)}({COPY_TEXT[c]})" for a, c in factor.atoms)
    primes = ("c", "c'", "c''", "c'''", "c''''")
    tex = r"\, ".join(f"{latex(fields[a].symbol)}({primes[c]})" for a, c in factor.atoms)
    several = len({f.population for f in fields.values()}) > 1
    tag = factor.population if several else ""
    return f"⟨{plain}⟩{('_' + tag) if tag else ''}", rf"\langle {tex} \rangle" + (f"_{{{tag}}}" if tag else "")


@dataclass(frozen=True)
class Average(Rule):
    """Average over the couplings, by the diagrams of their laws."""

    title: ClassVar[str] = "Average over the couplings"
    assumption: ClassVar[str] = "couplings are independent of everything else; cumulants as declared, N → ∞"
    source: ClassVar[str] = "sompolinsky1982"

    def __call__(self, before: Form) -> Functional:
        assert isinstance(before, CopiedAction)
        return average(before)


def average(action: CopiedAction) -> Functional:
    """The averaged exponent of a copied action.

    Raises
    ------
    QuenchedError
        If a term grows faster than any balance can compensate (power of N above ½).
    """
    populations = {p.name: p for p in action.populations}
    raw = [
        _term(action, populations, diagram, uses)
        for law in action.laws
        for diagram in law.diagrams
        for uses in _assignments(diagram, action.uses)
    ]
    raw += [term for law in action.laws if isinstance(law, FunctionLaw) for term in _function_terms(action, law)]
    terms = collect([*raw, *action.terms])
    for term in terms:
        if term.power.is_number and term.power > Rational(1, 2):
            raise QuenchedError(
                f"the term {' '.join(_joined(term, action.fields)[:1])} grows as N^{1 + term.power}: "
                "a local field diverges; expected entries of order N^(-1/2) and means of order N^(-1/2) or less"
            )
    kept = tuple(t for t in terms if not (t.power.is_number and t.power < 0))
    return Functional(action, kept, tuple(t for t in terms if t not in kept))


def _function_terms(action: CopiedAction, law: FunctionLaw) -> Iterator[Term]:
    """½ E[(Σ uses)²] of a random function: powers of the overlap of two copies."""
    uses = [u for u in action.uses if u.coupling == law.name]
    for (one, two), (power, weight) in product(product(uses, uses), law.powers):
        atoms = ((one.row[0][0], 0), (two.row[0][0], 1))
        factors = tuple(Factor(law.rows.name, atoms) for _ in range(power))
        yield Term(one.coef * two.coef * weight / 2, S.Zero, factors)


def _assignments(diagram: Diagram, uses: tuple[Use, ...]) -> Iterator[tuple[Use, ...]]:
    """All ordered choices of one use for each edge."""
    return product(*([u for u in uses if u.coupling == name] for name, _, _ in diagram.edges))


def orderings(diagram: Diagram) -> Expr:
    """In how many orders the matrices of a diagram's edges occur in the k-th cumulant (k! for all different)."""
    names = [name for name, _, _ in diagram.edges]
    return factorial(len(names)) / Mul(*(factorial(names.count(n)) for n in set(names)))


def _term(action: CopiedAction, populations: dict[str, Population], diagram: Diagram, uses: tuple[Use, ...]) -> Term:
    vertices: dict[int, list[Atom]] = {}
    kernels: list[Kernel] = []
    firsts: list[int] = []
    fresh = 0
    for use, (_, row, col) in zip(uses, diagram.edges, strict=True):
        width = 1 + max(d for _, d in use.row + use.col)
        vertices.setdefault(row, []).extend((a, d + fresh) for a, d in use.row)
        vertices.setdefault(col, []).extend((a, d + fresh) for a, d in use.col)
        firsts.append(fresh)
        fresh += width
    if diagram.same_copy and len(firsts) > 1:
        kernels.append(("same", tuple(firsts)))
    factors = tuple(Factor(_population(action, atoms), tuple(atoms)) for atoms in vertices.values())
    owners = [populations[f.population] for f in factors]
    # A site sum is fraction·N averages over an extensive population, `size` averages over a finite one.
    sizes = Mul(*(p.fraction if p.extensive else p.size for p in owners))
    coef = Mul(*(u.coef for u in uses)) * diagram.weight * sizes * orderings(diagram) / factorial(len(uses))
    return Term(coef, diagram.power + sum(p.extensive for p in owners) - S.One, factors, tuple(kernels))


def _population(action: CopiedAction, atoms: list[Atom]) -> str:
    owners = {action.fields[a].population.name for a, _ in atoms}
    if len(owners) != 1:
        raise NotCovered(f"the fields {sorted({a for a, _ in atoms})} meet at one site but live in {sorted(owners)}")
    return owners.pop()
