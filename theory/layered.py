"""Step 6 for a map of finitely many steps: Gaussian units over layers and samples, without an ansatz on the copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sympy import Expr, Rational, S, cancel, together

from quenched.theory.distributions import Law, Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Field, Quenched, UnitSymbol, WhiteNoise
from quenched.theory.gauss import derivative
from quenched.theory.layered_print import alike, covariance_line, mean_line
from quenched.theory.layers import Overlap
from quenched.theory.linear import NeedsTrajectories
from quenched.theory.lower import SiteField
from quenched.theory.naming import unit_name
from quenched.theory.problem import SiteFunction, U
from quenched.theory.problem_layers import Coupled, LayeredGaussian, LayerOutput, Source
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.spaces import N

Weights = tuple[tuple[str, Expr], ...]


@dataclass(frozen=True)
class LayerEquations(Form):
    """Covariances of the units over pairs of copies I = (a, α), J = (b, β)."""

    name: ClassVar[str] = "equations over layers"
    problem: LayeredGaussian

    def lines(self) -> list[Line]:
        p = self.problem
        out = [mean_line(p, i) for i in range(len(p.states)) if not p.centred]
        pairs = [(i, j) for i in range(len(p.states)) for j in range(i, len(p.states)) if alike(p, i, j)]
        for i, j in pairs:
            out.append(covariance_line(p, i, j, "start"))
            out.append(covariance_line(p, i, j, "mixed"))
            out.append(covariance_line(p, i, j, "steps"))
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for label, problem in layer_mutants(self.problem):
            yield label, replace(self, problem=problem)


# --- the rule ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CloseLayers(Rule):
    """Follow Gaussian units from their declared start, for all pairs of copies."""

    title: ClassVar[str] = "Gaussian units over layers and samples"
    assumption: ClassVar[str] = "site equations affine in states, local fields and Gaussian inputs; no memory; causal"
    source: ClassVar[str] = "segadlo2022"
    steps: int
    samples: int

    def __call__(self, before: Form) -> LayerEquations:
        assert isinstance(before, EffectiveProcess)
        return LayerEquations(_Layers(before, self.steps, self.samples).run())


class _Layers:
    """Builds the problem from the effective process."""

    def __init__(self, process: EffectiveProcess, steps: int, samples: int) -> None:
        self.process, self.action = process, process.action
        self.steps, self.samples = steps, samples
        self.states = [f for f in self.action.of_role("state")]
        self.locals = [f for f in self.action.of_role("local")]
        self.sources: dict[str, Source] = {}
        self.symbols: dict[Any, str] = {f.symbol: f.name for f in (*self.states, *self.locals)}

    def run(self) -> LayeredGaussian:
        self._refuse_memory()
        rows = [self._affine(rhs, name) for name, rhs in self.action.equations]
        starts = [self._start(f) for f in self.states]
        outputs = tuple(self._output(f) for f in self.action.of_role("output"))
        inputs = [f.name for f in self.locals] + list(self.sources)
        fractions = {p.name: p.fraction for p in self.action.populations if p.extensive}
        return LayeredGaussian(
            parameters=tuple(s for s in self.action.parameters if s != N),
            steps=self.steps,
            samples=self.samples,
            states=tuple(f.name for f in self.states),
            locals=tuple(f.name for f in self.locals),
            sources=tuple(self.sources.values()),
            population={f.name: f.population.name for f in (*self.states, *self.locals)}
            | {s.name: s.population for s in self.sources.values()},
            memory=tuple(tuple(row.get(f.name, S.Zero) for f in self.states) for row, _ in rows),
            feed=tuple(tuple(row.get(p, S.Zero) for p in inputs) for row, _ in rows),
            constant=tuple(rest for _, rest in rows),
            start=tuple(tuple(row.get(p, S.Zero) for p in inputs) for row, _ in starts),
            start_constant=tuple(rest for _, rest in starts),
            outputs=outputs,
            covariance=self._covariance(),
            mean=tuple(
                (u, _limit(c.coef), c.op.atoms[0][0]) for u, parts in self.process.mean.items() for c in parts if c.op
            ),
            fractions=fractions,
        )

    def _refuse_memory(self) -> None:
        remember = next((h for h, parts in self.process.memory.items() if parts), "")
        if remember:
            raise NeedsTrajectories(
                f"the local field {remember} remembers its own past (memory term), so units are not Gaussian"
            )

    def _covariance(self) -> tuple[Coupled, ...]:
        out = []
        for (u, v), parts in self.process.covariance.items():
            for c in parts:
                assert c.op is not None
                (one, s1), (two, _) = c.op.atoms
                first, second = (one, two) if c.at[s1] == 0 else (two, one)
                out.append(Coupled(u, v, _limit(c.coef), first, second, bool(c.kernels)))
        return tuple(out)

    # -- site equations -----------------------------------------------------------------------------------------
    def _affine(self, rhs: Expr, owner: str) -> tuple[dict[str, Expr], Expr]:
        """Coefficients of states and inputs, and the constant."""
        if delayed := sorted(rhs.atoms(At), key=str):
            raise NotCovered(f"the equation of {owner} contains {delayed[0]} at another layer: not built yet")
        variables = self._variables(rhs, owner)
        row: dict[str, Expr] = {}
        rest = rhs
        for symbol, name in variables.items():
            slope = rhs.diff(symbol)
            if any(slope.has(v) for v in variables):
                raise NeedsTrajectories(f"the equation of {owner} is not affine in {symbol}, so units are not Gaussian")
            row[name] = slope
            rest = rest - slope * symbol
        rest = rest.expand()
        if any(rest.has(v) for v in variables):
            raise NotCovered(f"the equation of {owner} could not be separated into its inputs: {rest}")
        return row, rest

    def _variables(self, expr: Expr, owner: str) -> dict[Any, str]:
        """States, local fields and Gaussian sources of an expression, by their symbols."""
        own = {s: n for s, n in self.symbols.items() if expr.has(s)}
        for unit in sorted(expr.atoms(Quenched, WhiteNoise), key=unit_name):
            own[unit] = self._source(unit, owner).name
        return own

    def _source(self, unit: UnitSymbol, owner: str) -> Source:
        name = unit_name(unit)
        if name not in self.sources:
            each = getattr(unit, "each", None) is not None
            if isinstance(unit, WhiteNoise):
                new = Source(name, unit.population.name, S.Zero, S.One, True, each)
            else:
                assert isinstance(unit, Quenched)
                self._gaussian(unit.law, f"{unit} in the equation of {owner}")
                moments = unit.law.mean_(), unit.law.variance_()
                new = Source(name, unit.population.name, *moments, unit.redraw is not None, each)
            self.sources[name] = new
        return self.sources[name]

    @staticmethod
    def _gaussian(law: Law, what: str) -> None:
        if not isinstance(law, Normal):
            raise NotCovered(f"{what} has the law {law}: over layers only Normal disorder is covered")

    def _start(self, state: SiteField) -> tuple[dict[str, Expr], Expr]:
        declared = dict(self.action.starts).get(state.name)
        if declared is not None:
            row, rest = self._affine(declared, f"{state.name}(0)")
            if stray := sorted(set(row) & {f.name for f in self.states}):
                raise NotCovered(f"the start of {state.name} contains the state {stray[0]}: give it by inputs")
            return row, rest
        field_ = state.symbol
        assert isinstance(field_, Field)
        law = field_.initial
        assert isinstance(law, Law)
        self._gaussian(law, f"the start of {state.name}")
        name = f"{state.name}(0)"
        self.sources[name] = Source(name, state.population.name, law.mean_(), law.variance_(), True, True)
        return {name: S.One}, S.Zero

    # -- outputs ------------------------------------------------------------------------------------------------
    def _output(self, out: SiteField) -> LayerOutput:
        body = out.definition
        assert body is not None
        place = (out.name, out.population.name)
        if isinstance(body, Quenched) and isinstance(body.law, Overlap):
            return LayerOutput(*place, SiteFunction(out.name, U), (), given=body.law.rows)
        unknown = [q for q in body.atoms(Quenched) if not q.law.has_moments]
        if unknown:
            raise NotCovered(f"{body} is a function of {unknown[0]}, of which only overlaps are known")
        if delayed := sorted(body.atoms(At), key=str):
            raise NotCovered(f"the output {out.name} contains {delayed[0]} at another layer: not built yet")
        variables = self._variables(body, out.name)
        factor, body = self._factor(body, variables)
        function, argument = combination(out.name, body, variables)
        slopes = tuple(derivative(function, k) for k in (1, 2)) if factor else ()
        return LayerOutput(*place, function, argument, factor, slopes=slopes)

    @staticmethod
    def _factor(body: Expr, variables: dict[Any, str]) -> tuple[Weights, Expr]:
        """Split v·f(u): a quantity in which the output is linear and that its other factor does not contain."""
        if len(variables) < 2:
            return (), body
        for symbol, name in variables.items():
            slope = body.diff(symbol)
            if not slope.has(symbol) and (body - slope * symbol).expand() == 0 and slope.free_symbols & set(variables):
                return ((name, S.One),), slope
        return (), body


def _limit(coef: Expr) -> Expr:
    if coef.has(N):
        raise NotCovered(f"the coefficient {coef} keeps a power of N: over layers only the limit N → ∞ is covered")
    return coef


def combination(name: str, body: Expr, variables: dict[Any, str]) -> tuple[SiteFunction, Weights]:
    """Write an output as a function of one linear combination of its unit's quantities."""
    used = [s for s in variables if body.has(s)]
    if not used:
        return SiteFunction(name, body), ()
    first, rest = used[0], used[1:]
    weights, function = [(variables[first], S.One)], body
    for other in rest:
        ratio = cancel(together(body.diff(other) / body.diff(first)))
        ratio = ratio if not ratio.free_symbols & set(used) else ratio.simplify()
        if ratio.free_symbols & set(used):
            raise NeedsTrajectories(f"the output {name} = {body} depends on several quantities of a unit separately")
        weights.append((variables[other], ratio))
        function = function.xreplace({first: first - ratio * other})
    function = function.xreplace({first: U})
    return SiteFunction(name, function.simplify() if rest else function), tuple(weights)


# --- mutants -------------------------------------------------------------------------------------------------------
def layer_mutants(p: LayeredGaussian) -> Iterator[tuple[str, LayeredGaussian]]:
    """The problem with one entry dropped or changed, or with shared and redrawn mixed up."""
    for kind in ("memory", "feed", "start"):
        rows = getattr(p, kind)
        for i, row in enumerate(rows):
            for label, changed in _entries(row):
                new: dict[str, Any] = {kind: (*rows[:i], changed, *rows[i + 1 :])}
                yield f"{kind}[{i}]{label}", replace(p, **new)
    for kind in ("constant", "start_constant"):
        for label, changed in _entries(getattr(p, kind)):
            vector: dict[str, Any] = {kind: changed}
            yield f"{kind}{label}", replace(p, **vector)
    for k, c in enumerate(p.covariance):
        for label, parts in (
            ("dropped", ()),
            ("× 1.1", (replace(c, coef=c.coef * Rational(11, 10)),)),
            ("shared and redrawn mixed up", (replace(c, same=not c.same),)),
        ):
            if label.startswith("shared") and not recurs(p, c.u):
                continue
            yield f"covariance[{k}] {label}", replace(p, covariance=(*p.covariance[:k], *parts, *p.covariance[k + 1 :]))
    for k, (u, coef, out) in enumerate(p.mean):
        changed_mean = (*p.mean[:k], (u, coef * Rational(11, 10), out), *p.mean[k + 1 :])
        yield f"mean[{k}] × 1.1", replace(p, mean=changed_mean)
    for k, s in enumerate(p.sources):
        for label, source in (
            ("variance × 1.1", replace(s, variance=s.variance * Rational(11, 10))),
            ("shared and redrawn mixed up", replace(s, fresh=not s.fresh)),
        ):
            if label.startswith("shared") and not recurs(p, s.name):
                continue
            yield f"source {s.name} {label}", replace(p, sources=(*p.sources[:k], source, *p.sources[k + 1 :]))


def recurs(p: LayeredGaussian, name: str) -> bool:
    """Whether an input is read at several events, so that it matters whether it is drawn afresh."""
    column = p.inputs.index(name)
    return any(row[column] != 0 for row in p.feed) or any(name in dict(o.argument) for o in p.outputs)


def _entries(row: tuple[Expr, ...]) -> Iterator[tuple[str, tuple[Expr, ...]]]:
    for j, value in enumerate(row):
        if value != 0:
            for label, new in (("dropped", S.Zero), ("× 1.1", value * Rational(11, 10))):
                yield f"[{j}] {label}", (*row[:j], new, *row[j + 1 :])
