"""Step 6 for a map of finitely many steps: Gaussian units over layers and samples, without an ansatz on the copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from sympy import Add, Expr, KroneckerDelta, Rational, S, Symbol, cancel, together

from quenched.theory.distributions import Law, Normal
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Field, Quenched, UnitSymbol, WhiteNoise
from quenched.theory.gauss import derivative, two_point
from quenched.theory.layers import Overlap
from quenched.theory.linear import NeedsTrajectories
from quenched.theory.lower import SiteField
from quenched.theory.naming import unit_name
from quenched.theory.problem import M1, M2, SiteFunction, U
from quenched.theory.problem_layers import LAYER_A, LAYER_B, Coupled, LayeredGaussian, LayerOutput, Source
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.spaces import N, t

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


def alike(p: LayeredGaussian, i: int, j: int) -> bool:
    """Whether two states belong to one population."""
    return p.population[p.states[i]] == p.population[p.states[j]]


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


# --- printing ------------------------------------------------------------------------------------------------------
Piece = tuple[Expr, str, str]


def mean_line(p: LayeredGaussian, i: int) -> Line:
    """⟨x(a+1)⟩ of a state."""
    x = Symbol(p.states[i])
    pieces: list[Piece] = [
        (e.subs(t, LAYER_A), f"⟨{text(Symbol(y))}(I)⟩", rf"\langle {latex(Symbol(y))}(I) \rangle")
        for y, e in zip(p.states, p.memory[i], strict=True)
        if e != 0
    ]
    for u, coef, out in p.mean:
        gain = p.feed[i][p.inputs.index(u)].subs(t, LAYER_A) * coef
        if gain != 0:
            pieces.append((gain, f"⟨{text(Symbol(out))}(I)⟩", rf"\langle {latex(Symbol(out))}(I) \rangle"))
    constant = p.constant[i].subs(t, LAYER_A)
    for s in p.sources:
        constant += p.feed[i][p.inputs.index(s.name)].subs(t, LAYER_A) * s.mean
    if constant != 0:
        pieces.append((S.One, text(constant), latex(constant)))
    plain, tex = signed_sum(pieces)
    return Line(f"⟨{text(x)}(I+1)⟩ = {plain}", rf"\langle {latex(x)}(I{{+}}1) \rangle = {tex}")


def covariance_line(p: LayeredGaussian, i: int, j: int, when: str) -> Line:
    """Cov of two states: both at layer 0 (start), one of them (mixed), or both after a step."""
    x, y = Symbol(p.states[i]), Symbol(p.states[j])
    own = f"C_{text(x)}" if i == j else f"C_{text(x)},{text(y)}"
    tex = f"C_{{{latex(x)}}}" if i == j else f"C_{{{latex(x)},{latex(y)}}}"
    where = {"start": ("0α", "0β"), "mixed": ("0α", "J+1"), "steps": ("I+1", "J+1")}[when]
    where_tex = [w.replace("α", r"\alpha").replace("β", r"\beta").replace("+1", "{+}1") for w in where]
    pieces = input_pieces(p, i, j, when)
    if p.remembers and when != "start":
        pieces += memory_pieces(p, i, j, when)
    plain, right = signed_sum(pieces)
    return Line(f"{own}({','.join(where)}) = {plain}", f"{tex}({','.join(where_tex)}) = {right}")


def memory_pieces(p: LayeredGaussian, i: int, j: int, when: str) -> list[Piece]:
    """What a unit carries over from its own past."""
    out: list[Piece] = []
    rows = (p.memory[i], p.memory[j])
    for k, x in enumerate(p.states):
        for l, y in enumerate(p.states):
            gain = rows[0][k].subs(t, LAYER_A) * rows[1][l].subs(t, LAYER_B) if when == "steps" else S.Zero
            if gain != 0:
                out.append((gain, f"C_{x},{y}(I,J)", f"C_{{{x},{y}}}(I,J)"))
    for k, x in enumerate(p.states):
        for label, gain in ((f"Cov({x}(I), input_{p.states[j]}(J))", rows[0][k].subs(t, LAYER_A)),):
            if gain != 0 and when == "steps":
                out.append((gain, label, rf"\mathrm{{Cov}}({x}(I), \iota_{{{p.states[j]}}}(J))"))
        gain = rows[1][k].subs(t, LAYER_B)
        if gain != 0:
            first = "I" if when == "steps" else "0α"
            label = f"Cov(input_{p.states[i]}({first}), {x}(J))"
            out.append((gain, label, rf"\mathrm{{Cov}}(\iota_{{{p.states[i]}}}, {x}(J))"))
    return out


def input_pieces(p: LayeredGaussian, i: int, j: int, when: str) -> list[Piece]:
    """Cov of the inputs of two states at two events, term by term."""
    rows = {
        "start": (p.start[i], p.start[j]),
        "mixed": (p.start[i], tuple(e.subs(t, LAYER_B) for e in p.feed[j])),
        "steps": (tuple(e.subs(t, LAYER_A) for e in p.feed[i]), tuple(e.subs(t, LAYER_B) for e in p.feed[j])),
    }[when]
    place = {n: k for k, n in enumerate(p.inputs)}
    sums: dict[tuple[str, str], Expr] = {}

    def put(coef: Expr, fresh: bool, each: bool, plain: str, tex: str) -> None:
        if coef == 0 or (fresh and when == "mixed"):
            return
        layer = ("·δ_ab", r"\,\delta_{ab}") if fresh and when == "steps" else ("", "")
        sample = ("·δ_αβ", r"\,\delta_{\alpha\beta}") if each and p.samples > 1 else ("", "")
        key = (f"{plain}{layer[0]}{sample[0]}".lstrip("·"), f"{tex}{layer[1]}{sample[1]}")
        sums[key] = sums.get(key, S.Zero) + coef

    for c in p.covariance:
        ways = [(c.u, c.v, c.first, c.second)] + ([(c.v, c.u, c.second, c.first)] if c.u != c.v else [])
        for u, v, one, two in ways:
            plain, tex = overlap_name(p, one, two, when)
            put(rows[0][place[u]] * rows[1][place[v]] * c.coef, c.same, False, plain, tex)
    pieces = [(coef, *key) for key, coef in sums.items()]
    sums.clear()
    for s in p.sources:
        put(rows[0][place[s.name]] * rows[1][place[s.name]] * s.variance, s.fresh, s.each, "", "")
    for key, coef in sums.items():
        mark, mark_tex = (f"·{key[0]}" if key[0] else ""), key[1]
        pieces.append((S.One, f"{text(coef)}{mark}", f"{latex(coef)}{mark_tex}"))
    return pieces


def overlap_name(p: LayeredGaussian, one: str, two: str, when: str) -> tuple[str, str]:
    """The name of ⟨one(I) two(J)⟩, or of the overlaps of given vectors."""
    if p.output(one).given is not None:
        return "X_αβ", r"X_{\alpha\beta}"
    a, b = Symbol(one), Symbol(two)
    label, tex = (text(a), latex(a)) if one == two else (f"{text(a)},{text(b)}", f"{latex(a)},{latex(b)}")
    first = "start" if when in ("start", "mixed") else "I"
    second = "start" if when == "start" else "J"
    return f"Q_{label}({first},{second})", f"Q_{{{tex}}}({first},{second})"


# --- Gaussian averages ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LayerAverages(Form):
    """The recursion with every Gaussian average that a rule covers in closed form."""

    name: ClassVar[str] = "averages over layers"
    problem: LayeredGaussian

    def lines(self) -> list[Line]:
        p = self.problem
        return [self._line(pair) for pair in pairs_of(p)]

    def _line(self, pair: tuple[str, str]) -> Line:
        p = self.problem
        plain, tex = overlap_name(p, *pair, "steps")
        a, b = (p.output(n) for n in pair)
        body = "".join(f"{_function(o.f)}({_name(o.argument)}({c}))" + _times(o, c) for o, c in ((a, "I"), (b, "J")))
        closed = p.closed.get(pair)
        if a.factor or b.factor:
            return self._product_line(plain, tex, body, a, b)
        shown = (
            (f"⟨{body}⟩", "named Gaussian integral") if closed is None else (f"⟨{body}⟩ = {text(closed)}", "v, c: C")
        )
        right = "" if closed is None else f" = {latex(closed)}"
        return Line(f"{plain} = {shown[0]}", rf"{tex} = \langle \mathtt{{{_tex(body)}}} \rangle{right}", shown[1])

    @staticmethod
    def _product_line(plain: str, tex: str, body: str, a: LayerOutput, b: LayerOutput) -> Line:
        """A product with a second Gaussian quantity: Gaussian integration by parts."""
        f, g = (f"{_function(o.f)}({_name(o.argument)}({c}))" for o, c in ((a, "I"), (b, "J")))
        both = f"C_{_name(a.factor)}(I,J)·⟨{f} {g}⟩ + …" if a.factor and b.factor else "⟨…⟩ of one derivative"
        return Line(
            f"{plain} = ⟨{body}⟩ = {both}",
            rf"{tex} = \langle \mathtt{{{_tex(body)}}} \rangle",
            "integration by parts; further terms vanish where the second quantity does not covary with the arguments",
        )

    def mutants(self) -> Iterator[tuple[str, Form]]:
        p = self.problem
        for pair, closed in p.closed.items():
            for j, piece in enumerate(closed.as_ordered_terms()):
                for label, new in (("dropped", closed - piece), ("× 1.1", closed + piece * Rational(1, 10))):
                    changed = replace(p, closed=p.closed | {pair: new})
                    yield f"⟨{' '.join(pair)}⟩ term {j + 1} {label}", replace(self, problem=changed)


def _tex(body: str) -> str:
    return body.replace("_", r"\_").replace("φ", r"\phi").replace("·", " ")


def _function(f: SiteFunction) -> str:
    return text(Symbol(f.name))


def _name(weights: Weights) -> str:
    return text(Add(*(w * Symbol(n) for n, w in weights)))


def _times(out: LayerOutput, copy: str) -> str:
    return f"·{_name(out.factor)}({copy})" if out.factor else ""


def pairs_of(p: LayeredGaussian) -> list[tuple[str, str]]:
    """The pairs of outputs whose overlaps the local fields need."""
    found = dict.fromkeys((c.first, c.second) for c in p.covariance)
    return [pair for pair in found if all(p.output(n).given is None for n in pair)]


@dataclass(frozen=True)
class CloseLayerAverages(Rule):
    """Evaluate the averages of pairs of outputs by the rule table."""

    title: ClassVar[str] = "Gaussian averages over pairs of copies"
    assumption: ClassVar[str] = "rule table (Price's theorem); what no rule covers stays a named integral"
    source: ClassVar[str] = "price1958"

    def __call__(self, before: Form) -> LayerAverages:
        assert isinstance(before, LayerEquations)
        p = before.problem
        means = (S.Zero, S.Zero) if p.centred else (M1, M2)
        closed = {}
        for pair in pairs_of(p):
            first, second = (p.output(n) for n in pair)
            found = None if t in first.f.expr.free_symbols | second.f.expr.free_symbols else _two(first, second, means)
            if found is not None:
                closed[pair] = found
        return LayerAverages(replace(p, closed=closed))


def _two(first: LayerOutput, second: LayerOutput, means: tuple[Expr, Expr]) -> Expr | None:
    return two_point(first.f, second.f, means)


# --- which blocks see which ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LayerBlocks(Form):
    """Equal and different layers apart.

    Attributes
    ----------
    problem : the recursion
    alone : the blocks of equal layers do not contain those of different layers, so that they are the same whether
        disorder is shared by the layers or drawn afresh
    separate : (state, state) whose blocks of different layers vanish
    """

    name: ClassVar[str] = "blocks of equal and of different layers"
    problem: LayeredGaussian
    alone: bool
    separate: tuple[tuple[str, str], ...] = field(default=())

    def lines(self) -> list[Line]:
        p = self.problem
        told = (
            "closed among equal layers: the same for shared and for redrawn disorder"
            if self.alone
            else "contains blocks of different layers: shared and redrawn disorder differ"
        )
        out = []
        for i in range(len(p.states)):
            line = equal_line(p, i)
            out.append(Line(line.text, line.latex, told))
        for x, y in self.separate:
            plain, tex = text(Symbol(x)), latex(Symbol(x))
            name = plain if x == y else f"{plain},{text(Symbol(y))}"
            name_tex = tex if x == y else f"{tex},{latex(Symbol(y))}"
            out.append(
                Line(f"C_{name}(aα,bβ) = 0 for a ≠ b", rf"C_{{{name_tex}}}(a\alpha,b\beta) = 0\ (a \ne b)", "redrawn")
            )
        return out

    def mutants(self) -> Iterator[tuple[str, Form]]:
        yield "the opposite statement on equal layers", replace(self, alone=not self.alone)
        for k in range(len(self.separate)):
            yield f"block {k + 1} not listed", replace(self, separate=self.separate[:k] + self.separate[k + 1 :])


def equal_line(p: LayeredGaussian, i: int) -> Line:
    """C(a+1 α, a+1 β): the block of equal layers."""
    line = covariance_line(p, i, i, "steps")
    plain = line.text.replace("·δ_ab", "").replace("I+1", "a+1 α").replace("J+1", "a+1 β")
    tex = line.latex.replace(r"\,\delta_{ab}", "").replace("I{+}1", r"a{+}1\,\alpha").replace("J{+}1", r"a{+}1\,\beta")
    plain = plain.replace("(I,J)", "(aα,aβ)")
    return Line(plain, tex.replace("(I,J)", r"(a\alpha,a\beta)"))


@dataclass(frozen=True)
class SeparateLayers(Rule):
    """Ask which blocks of copies the equations of equal layers contain."""

    title: ClassVar[str] = "Equal and different layers"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = "segadlo2022"

    def __call__(self, before: Form) -> LayerBlocks:
        assert isinstance(before, LayerAverages)
        p = before.problem
        shared, redrawn = (equal_equations(with_fresh(p, flag)) for flag in (False, True))
        return LayerBlocks(p, shared == redrawn, separate_pairs(p))


def with_fresh(p: LayeredGaussian, flag: bool) -> LayeredGaussian:
    """The same with all disorder drawn afresh at every layer (True) or shared by all layers (False)."""
    covariance = tuple(replace(c, same=flag) for c in p.covariance)
    return replace(p, covariance=covariance, sources=tuple(replace(s, fresh=flag) for s in p.sources))


def equal_equations(p: LayeredGaussian) -> dict[tuple[int, int], Expr]:
    """Cov(x_i(a+1), x_j(a+1)) in the covariances at layer a, blocks of different layers as symbols of their own."""
    delta = KroneckerDelta(LAYER_A, LAYER_B)
    out = {}
    for i in range(len(p.states)):
        for j in range(i, len(p.states)):
            total = S.Zero
            for coef, name, _ in input_pieces(p, i, j, "steps") + (memory_pieces(p, i, j, "steps")):
                factor = delta if "δ_ab" in name else S.One
                total += coef * Symbol(name.replace("·δ_ab", "").replace("δ_ab", "1")) * factor
            carried = [e for e in (*p.memory[i], *p.memory[j]) if e != 0]
            lasting = any(not c.same for c in p.covariance) or any(not s.fresh for s in p.sources)
            past = Symbol("blocks of different layers") if carried and lasting else S.Zero
            out[i, j] = (total + past).subs(LAYER_B, LAYER_A)
    return out


def separate_pairs(p: LayeredGaussian) -> tuple[tuple[str, str], ...]:
    """Pairs of states that are independent at different layers."""
    if p.remembers:
        return ()
    found = []
    for i in range(len(p.states)):
        for j in range(i, len(p.states)):
            pieces = input_pieces(p, i, j, "steps") + input_pieces(p, i, j, "mixed")
            if alike(p, i, j) and all("δ_ab" in name for _, name, _ in pieces):
                found.append((p.states[i], p.states[j]))
    return tuple(found)


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
