"""Two states of one disorder, near different stored patterns.

Replicas of both states are averaged together: as n → 0 those of one leave the other as it is, and only their overlaps
are new. The fields of one site in both states are jointly Gaussian. Their means see the same patterns, each state in
its own place; their covariance is what couples two replicas at a site, the overlaps being those of different states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, Mul, Rational, Symbol

from quenched.theory.errors import NotCovered
from quenched.theory.problem_replicas import PairEquation, PairProblem, PairSite
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.replica_ansatz import Ansatz
from quenched.theory.replica_cold import ColdForm, cooled_pairs
from quenched.theory.replica_forms import Orbit, RSAction, SiteInField
from quenched.theory.replica_limit import RepliconForm, label_part, site_of


@dataclass(frozen=True)
class TwoStatesForm(Form):
    """Overlaps of two states.

    Attributes
    ----------
    action : the free entropy of the replicas of one state
    problem : fields of every site in both states, and the equations of their overlaps
    orbits : unknown → the pair of replicas that it is the value of
    labels : pattern → the pattern in its place for the second state
    """

    name: ClassVar[str] = "two states"
    action: RSAction
    problem: PairProblem
    orbits: tuple[tuple[Symbol, Orbit], ...]
    labels: tuple[tuple[Symbol, Symbol], ...]

    def lines(self) -> list[Line]:
        out = []
        for s in self.problem.sites:
            out.append(
                Line(
                    f"{s.site}: b = {text(s.b)}, b′ = {text(s.other)}, E[u u′] = {text(s.cross)}, E[u²] = {text(s.k)}",
                    rf"\mathrm{{{s.site}}}:\ b = {latex(s.b)},\ b' = {latex(s.other)},\ "
                    rf"\mathbb{{E}}[u u'] = {latex(s.cross)},\ \mathbb{{E}}[u^2] = {latex(s.k)}",
                    "fields of one site in both states",
                )
            )
        for e in self.problem.equations:
            scale, tex = ("", "") if e.scale == 1 else (f"{text(e.scale)} ", f"{latex(e.scale)}\\, ")
            out.append(
                Line(
                    f"{text(e.unknown)} = E[{scale}L₁(b + u) L₁(b′ + u′)]_{e.site}",
                    rf"{latex(e.unknown)} = \mathbb{{E}}_{{\mathrm{{{e.site}}}}}"
                    rf"[{tex}L_1(b + u)\, L_1(b' + u')]",
                )
            )
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for k, s in enumerate(p.sites):
            for what in ("other", "cross"):
                if getattr(s, what) != 0:
                    bad = replace(s, **{what: getattr(s, what) * Rational(11, 10)})
                    sites = (*p.sites[:k], bad, *p.sites[k + 1 :])
                    yield f"{what} of {s.site} × 1.1", replace(self, problem=replace(p, sites=sites))
            if s.other != s.b:
                sites = (*p.sites[:k], replace(s, other=s.b), *p.sites[k + 1 :])
                yield f"patterns of {s.site} not exchanged", replace(self, problem=replace(p, sites=sites))
        for k, e in enumerate(p.equations):
            equations = (*p.equations[:k], replace(e, scale=e.scale * Rational(11, 10)), *p.equations[k + 1 :])
            yield f"equation of {e.unknown} × 1.1", replace(self, problem=replace(p, equations=equations))


@dataclass(frozen=True)
class TwoStates(Rule):
    """Let half of the replicas be in another state of the same disorder."""

    title: ClassVar[str] = "Two states of one disorder"
    assumption: ClassVar[str] = "as n → 0 the replicas of one state do not change the other"
    source: ClassVar[str] = "jiang2021"

    #: Pattern → the pattern in its place for the second state.
    labels: tuple[tuple[Symbol, Symbol], ...] = ()

    def __call__(self, before: Form) -> TwoStatesForm:
        assert isinstance(before, (RepliconForm, ColdForm))
        warm = before.warm if isinstance(before, ColdForm) else before
        action = warm.state.free.action
        pairs = _pairs(action)
        cross = {orbit: _unknown(action, orbit) for orbit in pairs}
        sites = tuple(self._site(action, s, cross) for s in action.sites)
        if isinstance(before, ColdForm):
            sites = cooled_pairs(before, sites, cross)
            sites = tuple(replace(s, other=self._exchanged(s.b)) for s in sites)
        equations = tuple(PairEquation(s, o.population, self._scale(action, o)) for o, s in cross.items())
        orbits = tuple((s, o) for o, s in cross.items())
        return TwoStatesForm(action, PairProblem(sites, equations), orbits, self.labels)

    def _exchanged(self, b: Expr) -> Expr:
        return b.xreplace(dict(self.labels))

    def _site(self, action: RSAction, site: SiteInField, cross: dict[Orbit, Symbol]) -> PairSite:
        """Fields of a site in both states."""
        between = Ansatz(action.problem)
        between.values = {**action.values, **cross}
        covariance = between.covariance(site.variable.population)
        return PairSite(site.variable.population, site.b, self._exchanged(site.b), site.k, covariance, site.v)

    def _scale(self, action: RSAction, orbit: Orbit) -> Expr:
        scale = Mul(*(label_part(action, a) for a, _ in orbit.atoms))
        if scale.has(*dict(self.labels)):
            raise NotCovered(f"the overlap of two states weighed by {scale}, a pattern that they exchange")
        return scale


def _pairs(action: RSAction) -> list[Orbit]:
    """Order parameters of two replicas, and the overlap of every state."""
    fields = action.problem.action.fields
    moving = [o for o in action.values if not any(fields[a].single for a, _ in o.atoms)]
    out = [o for o in moving if o.copies == 2 and len(o.atoms) == 2]
    states = [s.variable for s in action.sites if s.variable.kind == "state"]
    return list(dict.fromkeys([*out, *(Orbit(v.population, ((v.name, 0), (v.name, 1))) for v in states)]))


def _unknown(action: RSAction, orbit: Orbit) -> Symbol:
    value = action.values.get(orbit)
    states = [s for s in action.sites if s.variable.kind == "state"]
    own = "q" if len(states) == 1 else f"q_{site_of(action, orbit.population).variable.name}"
    return Symbol(f"{value.name if isinstance(value, Symbol) else own}_12", real=True)
