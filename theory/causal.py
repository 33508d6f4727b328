"""Step 6, in time: Gaussian units whose means and covariances are marched forward from their initial values.

The equations of one time each, with the response of the covariance to the field in between,

    (∂_t − A) C(t, s) = B R(t, s),    (∂_s − A) R(t, s) = K(t, s) Bᵀ,    R = Cov(h, X),  K = Cov(h, h),

need no stationarity: inputs may depend on time, and initial values are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Expr, Rational, S, Symbol, sympify

from quenched.theory.closure import as_site_function
from quenched.theory.couplings import reads_only
from quenched.theory.distributions import Law, Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Field, Quenched, WhiteNoise
from quenched.theory.linear import NeedsTrajectories
from quenched.theory.lower import SiteField
from quenched.theory.naming import field_names, unit_name
from quenched.theory.problem import INDEPENDENT, Label
from quenched.theory.problem_causal import CausalUnit, MeanSource, Output, PairSource, Row, TwoTimeProblem
from quenched.theory.readoff import Contribution, EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.spaces import N, Population, t


@dataclass(frozen=True)
class TwoTimeEquations(Form):
    """Means and covariances of Gaussian units as equations in one time each."""

    name: ClassVar[str] = "two-time equations in time"
    problem: TwoTimeProblem

    def lines(self) -> list[Line]:
        p = self.problem
        out = [_mean_line(p, u, i) for u, unit in enumerate(p.units) for i in range(len(unit.states))]
        out += [_start_line(unit, i) for unit in p.units for i in range(len(unit.states))]
        for u, unit in enumerate(p.units):
            out += [_covariance_line(p, unit, i) for i in range(len(unit.states))]
            out += [_response_line(p, u, h) for h in unit.fields if any(h in (s.first, s.second) for s in p.pairs)]
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for label, problem in two_time_mutants(self.problem):
            yield label, TwoTimeEquations(problem)


@dataclass(frozen=True)
class MarchUnits(Rule):
    """Keep the units' linear equations in time, with everything that depends on it."""

    title: ClassVar[str] = "Two-time equations, one time at a time"
    assumption: ClassVar[str] = "site equations affine in states, local fields and noise; no memory"
    source: ClassVar[str] = "sompolinsky1988,engelken2022"
    model: Any

    def __call__(self, before: Form) -> TwoTimeEquations:
        assert isinstance(before, EffectiveProcess)
        return TwoTimeEquations(_Marching(before, self.model).run())


class _Marching:
    """Builds the problem from an effective process and the declaration (initial values, step of a map)."""

    def __init__(self, process: EffectiveProcess, model: Any) -> None:
        self.process, self.action, self.model = process, process.action, model
        self.rhs = dict(self.action.equations)
        self.populations = self.action.populations

    def run(self) -> TwoTimeProblem:
        for h, parts in self.process.memory.items():
            if parts:
                raise NeedsTrajectories(f"the local field {h} remembers its own past (memory term)")
        if self.process.operators:
            shown = ", ".join(str(o.symbol) for o in self.process.operators)
            raise NotCovered(
                f"units beside an eliminated population in given times: its responses {shown} are operators in time, "
                "which marching does not have; expected the stationary state (leave times= out)"
            )
        units = tuple(self._unit(pop) for pop in self.populations)
        outputs = tuple(self._output(f, units) for f in self.action.of_role("output"))
        index = {o.name: k for k, o in enumerate(outputs)}
        problem = TwoTimeProblem(
            "map" if self.action.clock == "map" else "flow",
            S.One if self.model.dt is None else self.model.dt,
            self.action.parameters,
            units,
            outputs,
            tuple(MeanSource(u, c.coef, index[_atom(c, 0)]) for u, cs in self.process.mean.items() for c in cs),
            tuple(self._pair(u, v, c, index) for (u, v), cs in self.process.covariance.items() for c in cs),
        )
        kept = any(e.has(N) for e in problem.rows()) and N not in problem.parameters
        return replace(problem, parameters=(*problem.parameters, N)) if kept else problem

    # -- units ------------------------------------------------------------------------------------------------------
    def _unit(self, pop: Population) -> CausalUnit:
        states = [f for f in self.action.of_role("state") if f.population == pop]
        fields = [f for f in self.action.of_role("local") if f.population == pop]
        noises = sorted({n for s in states for n in self.rhs[s.name].atoms(WhiteNoise)}, key=unit_name)
        labels = self._labels(pop, states)
        variables = [f.symbol for f in (*states, *fields)] + noises
        rows = [affine_row(self.rhs[s.name], s.name, variables, set(labels)) for s in states]
        n, m = len(states), len(fields)
        swap = {q: s for q, s in labels.items()}
        table = [[e.xreplace(swap) for e in (*row, rest)] for row, rest in rows]
        start, extra = self._start(states, labels)
        laws = [Label(s, q.law) for q, s in labels.items() if isinstance(q, Quenched)]
        return CausalUnit(
            pop.name,
            tuple(s.name for s in states),
            tuple(h.name for h in fields),
            tuple(unit_name(x) for x in noises),
            tuple(tuple(r[:n]) for r in table),
            tuple(tuple(r[n : n + m]) for r in table),
            tuple(tuple(r[n + m : -1]) for r in table),
            tuple(r[-1] for r in table),
            tuple(start),
            (*laws, *extra),
        )

    def _labels(self, pop: Population, states: list[SiteField]) -> dict[Quenched, Symbol]:
        bodies = [self.rhs[s.name] for s in states]
        bodies += [o.definition for o in self.action.of_role("output") if o.population == pop and o.definition]
        bodies += [s.symbol.initial for s in states if isinstance(s.symbol.initial, Expr)]
        found = sorted({q for b in bodies for q in b.atoms(Quenched)}, key=unit_name)
        redrawn = next((q for q in found if q.redraw is not None), None)
        if redrawn is not None:
            raise NotCovered(f"{redrawn} is drawn afresh at every {redrawn.redraw}: write it as WhiteNoise in a Map")
        return {q: Symbol(unit_name(q), real=True) for q in found}

    def _start(
        self, states: list[SiteField], labels: dict[Quenched, Symbol]
    ) -> tuple[list[tuple[Expr, Expr]], list[Label]]:
        start: list[tuple[Expr, Expr]] = []
        extra: list[Label] = []
        for s in states:
            initial = s.symbol.initial
            if initial is None:
                start.append((S.Zero, S.One))
            elif isinstance(initial, Normal):
                start.append((initial.mean_(), initial.variance_()))
            elif isinstance(initial, Law):
                label = Symbol(f"{s.name}_start", real=True)
                extra.append(Label(label, initial))
                start.append((label, S.Zero))
            elif reads_only(sympify(initial), labels):
                start.append((sympify(initial).xreplace(labels).subs(t, 0), S.Zero))
            else:
                raise NotCovered(
                    f"the initial value {initial} of {s.name} is correlated with the couplings: {INDEPENDENT}"
                )
        return start, extra

    # -- outputs and fields -----------------------------------------------------------------------------------------
    def _output(self, out: SiteField, units: tuple[CausalUnit, ...]) -> Output:
        assert out.definition is not None
        k = next(k for k, u in enumerate(units) if u.population == out.population.name)
        if out.definition.atoms(At):
            raise NeedsTrajectories(f"the output {out.name} = {out.definition} reads the past of its units")
        if out.definition.has(t):
            raise NeedsTrajectories(f"the output {out.name} = {out.definition} depends on t explicitly")
        labels = self._labels(out.population, [])
        names = {f.symbol: f.name for f in self.action.fields.values() if f.role in ("state", "local")}
        function, weights = as_site_function(out.name, out.definition, names, labels)
        read = next((f for f, _ in weights if f not in units[k].states), None)
        if read is not None:
            raise NotCovered(f"the output {out.name} = {out.definition} reads the local field {read} directly")
        given = dict(weights)
        return Output(out.name, k, function, tuple(given.get(s, S.Zero) for s in units[k].states))

    def _pair(self, u: str, v: str, c: Contribution, index: dict[str, int]) -> PairSource:
        assert c.op is not None
        (first, s1), (second, _) = c.op.atoms
        a, b = (first, second) if c.at[s1] == 0 else (second, first)
        return PairSource(u, v, c.coef, index[a], index[b], bool(c.kernels))


def site_output(problem: TwoTimeProblem, model: Any, body: Expr, population: Population) -> Output:
    """A function of the units of a population, as an output that no coupling reads.

    Raises
    ------
    NotCovered
        If it depends on more than one linear combination of the unit's states, or on disorder that the unit has not.
    """
    k = next((k for k, u in enumerate(problem.units) if u.population == population.name), None)
    if k is None:
        raise NotCovered(f"{body}: the derivation has no units of {population.name!r}")
    unit = problem.units[k]
    names = {f: n for f, n in field_names(model).items() if f.population == population and n in unit.states}
    symbols = {q.symbol.name: q.symbol for q in unit.labels}
    labels = {q: symbols[unit_name(q)] for q in body.atoms(Quenched) if unit_name(q) in symbols}
    strange = (body.atoms(Field) - set(names)) | (body.atoms(Quenched) - set(labels))
    if strange:
        raise NotCovered(f"{body} contains {min(strange, key=str)}, whose law the derivation does not give")
    function, weights = as_site_function(str(body), body, names, labels)
    given = dict(weights)
    return Output(str(body), k, function, tuple(given.get(s, S.Zero) for s in unit.states))


def _atom(c: Contribution, slot: int) -> str:
    assert c.op is not None
    return next(a for a, s in c.op.atoms if s == slot)


def affine_row(rhs: Expr, owner: str, variables: list[Any], free: set[Any]) -> tuple[list[Expr], Expr]:
    """Coefficients of an affine right-hand side and the rest; both may contain time and the labels in `free`."""
    delayed = next(iter(rhs.atoms(At)), None)
    if delayed is not None:
        raise NeedsTrajectories(f"the equation of {owner} contains {delayed}, the past of its unit")
    coefs = [rhs.diff(v) for v in variables]
    moving = (set(variables) | rhs.atoms(Field, WhiteNoise, Quenched)) - free
    for v, c in zip(variables, coefs, strict=True):
        bad = next((s for s in sorted(moving, key=str) if c.has(s)), None)
        if bad is not None:
            raise NeedsTrajectories(f"the equation of {owner} is not affine: the coefficient of {v} depends on {bad}")
    rest = (rhs - sum((c * v for c, v in zip(coefs, variables, strict=True)), S.Zero)).expand()
    return coefs, rest


# -- mutants ----------------------------------------------------------------------------------------------------------
def two_time_mutants(p: TwoTimeProblem) -> Iterator[tuple[str, TwoTimeProblem]]:
    """The problem with one coefficient dropped or changed."""
    for k, unit in enumerate(p.units):
        for label, changed in _unit_mutants(unit):
            yield label, replace(p, units=(*p.units[:k], changed, *p.units[k + 1 :]))
    for kind in ("means", "pairs"):
        rows = getattr(p, kind)
        for k, source in enumerate(rows):
            for label, value in _changes(source.coefficient):
                new = (*rows[:k], replace(source, coefficient=value), *rows[k + 1 :])
                change: dict[str, Any] = {kind: new}
                yield f"{kind}[{k}] {label}", replace(p, **change)
    for k, out in enumerate(p.outputs):
        for j, w in enumerate(out.weights):
            for label, value in _changes(w):
                weights = (*out.weights[:j], value, *out.weights[j + 1 :])
                yield f"weight of {out.name} {label}", _with_output(p, k, replace(out, weights=weights))


def _with_output(p: TwoTimeProblem, k: int, out: Output) -> TwoTimeProblem:
    return replace(p, outputs=(*p.outputs[:k], out, *p.outputs[k + 1 :]))


def _unit_mutants(unit: CausalUnit) -> Iterator[tuple[str, CausalUnit]]:
    for kind in ("drift", "feed", "noise"):
        block = getattr(unit, kind)
        for i, row in enumerate(block):
            for j, entry in enumerate(row):
                for label, value in _changes(entry):
                    new = (*block[:i], (*row[:j], value, *row[j + 1 :]), *block[i + 1 :])
                    change: dict[str, Any] = {kind: new}
                    yield f"{kind} of {unit.states[i]} [{j}] {label}", replace(unit, **change)
    for i, drive in enumerate(unit.drive):
        for j, piece in enumerate(drive.as_ordered_terms() if drive != 0 else ()):
            for label, value in (("dropped", drive - piece), ("× 1.1", drive + piece / 10)):
                new = (*unit.drive[:i], value, *unit.drive[i + 1 :])
                yield f"input {j + 1} of {unit.states[i]} {label}", replace(unit, drive=new)
    for i, (m, v) in enumerate(unit.start):
        for j, entry in enumerate((m, v)):
            for label, value in _changes(entry):
                pair = (value, v) if j == 0 else (m, value)
                yield (
                    f"start of {unit.states[i]} {label}",
                    replace(unit, start=(*unit.start[:i], pair, *unit.start[i + 1 :])),
                )


def _changes(entry: Expr) -> Iterator[tuple[str, Expr]]:
    if entry != 0:
        yield "dropped", S.Zero
        yield "× 1.1", entry * Rational(11, 10)


# -- printing ---------------------------------------------------------------------------------------------------------
def _name(x: str) -> tuple[str, str]:
    return text(Symbol(x)), latex(Symbol(x))


def _row(unit: CausalUnit, i: int, over: tuple[str, ...], block: tuple[Row, ...], form: Any) -> list[Any]:
    """(coefficient, text, LaTeX) of the non-zero entries of a row, with names printed by `form`."""
    return [(e, *form(x)) for x, e in zip(over, block[i], strict=True) if e != 0]


def _left(p: TwoTimeProblem, x: tuple[str, str], rate: str = "t") -> tuple[str, str]:
    if p.clock == "map":
        shift = "(n+1)" if rate == "t" else ""
        return f"{x[0]}{shift}", f"{x[1]}{shift}"
    return f"∂_{rate} {x[0]}", rf"\partial_{rate} {x[1]}"


def _mean_line(p: TwoTimeProblem, u: int, i: int) -> Line:
    unit = p.units[u]
    pieces = _row(unit, i, unit.states, unit.drift, lambda x: _mean_name(_name(x)))
    for h, gain in zip(unit.fields, unit.feed[i], strict=True):
        for s in p.means:
            if s.field == h and gain != 0:
                pieces.append((gain * s.coefficient, *_mean_name(_name(p.outputs[s.output].name))))
    for piece in unit.drive[i].as_ordered_terms() if unit.drive[i] != 0 else ():
        pieces.append((S.One, text(piece), latex(piece)))
    plain, tex = signed_sum(pieces)
    left, left_tex = _left(p, _mean_name(_name(unit.states[i])))
    note = "given the labels " + ", ".join(text(q.symbol) for q in unit.labels) if unit.labels else ""
    return Line(f"{left} = {plain}", f"{left_tex} = {tex}", note)


def _mean_name(x: tuple[str, str]) -> tuple[str, str]:
    return f"⟨{x[0]}⟩", rf"\langle {x[1]} \rangle"


def _start_line(unit: CausalUnit, i: int) -> Line:
    x, (m, v) = _name(unit.states[i]), unit.start[i]
    return Line(
        f"⟨{x[0]}⟩(0) = {text(m)}, C_{x[0]}(0,0) = {text(v)}",
        rf"\langle {x[1]} \rangle(0) = {latex(m)},\quad C_{{{x[1]}}}(0,0) = {latex(v)}",
        "initial values",
    )


def _covariance_line(p: TwoTimeProblem, unit: CausalUnit, i: int) -> Line:
    x = _name(unit.states[i])

    def pair(y: str) -> tuple[str, str]:
        a = _name(y)
        return f"C_{a[0]},Y(t,s)", f"C_{{{a[1]} Y}}(t,s)"

    def mixed(h: str) -> tuple[str, str]:
        a = _name(h)
        return f"R_{a[0]},Y(t,s)", f"R_{{{a[1]} Y}}(t,s)"

    pieces = _row(unit, i, unit.states, unit.drift, pair) + _row(unit, i, unit.fields, unit.feed, mixed)
    pieces += _row(
        unit, i, unit.noises, unit.noise, lambda n: (f"⟨{_name(n)[0]} Y′⟩", rf"\langle {_name(n)[1]} Y' \rangle")
    )
    plain, tex = signed_sum(pieces)
    left, left_tex = _left(p, (f"C_{x[0]},Y(t,s)", f"C_{{{x[1]} Y}}(t,s)"))
    return Line(f"{left} = {plain}", f"{left_tex} = {tex}", f"Y: any of {', '.join(unit.states)}, s ≤ t")


def _response_line(p: TwoTimeProblem, u: int, h: str) -> Line:
    unit = p.units[u]
    pieces = [(S.One, "A_Y·R(t,s)", "A_Y R(t,s)")]
    for other in unit.fields:
        for s in p.pairs:
            if (
                h not in (s.first, s.second)
                or other not in (s.first, s.second)
                or (h == other) != (s.first == s.second)
            ):
                continue
            a, b = (p.outputs[o] for o in ((s.a, s.b) if s.first == h else (s.b, s.a)))
            delta = (" δ(t,s)", r"\,\delta_{ts}") if s.instant else ("", "")
            plain = f"⟨{_name(a.name)[0]}(t) {_name(b.name)[0]}(s)⟩{delta[0]} B_Y,{_name(other)[0]}"
            tex = rf"\langle {_name(a.name)[1]}(t)\, {_name(b.name)[1]}(s) \rangle {delta[1]} B_{{Y {_name(other)[1]}}}"
            pieces.append((s.coefficient, plain, tex))
    plain, tex = signed_sum(pieces)
    name = _name(h)
    left, left_tex = _left(p, (f"R_{name[0]},Y(t,s)", f"R_{{{name[1]} Y}}(t,s)"), "s")
    return Line(f"{left} = {plain}", f"{left_tex} = {tex}", "A_Y, B_Y: drift and feed of Y above")
