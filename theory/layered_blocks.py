"""Step 6 over layers, second half: averages over pairs of copies, and which blocks of copies see which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from sympy import Add, Expr, KroneckerDelta, Rational, S, Symbol

from quenched.theory.gauss import two_point
from quenched.theory.layered import LayerEquations, Weights
from quenched.theory.layered_print import alike, covariance_line, input_pieces, memory_pieces, overlap_name
from quenched.theory.problem import M1, M2, SiteFunction
from quenched.theory.problem_layers import LAYER_A, LAYER_B, LayeredGaussian, LayerOutput
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import latex, text
from quenched.theory.spaces import t


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


# --- which blocks see which -----------------------------------------------------------------------------------------
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
