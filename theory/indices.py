"""A model printed back with explicit indices, as text and as LaTeX.

Most mistakes of a declaration show here: what is summed over, which entry law the scaling gives, which noise is which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sympy import Expr, S, Symbol, fraction, sqrt
from sympy.printing.conventions import split_super_sub
from sympy.printing.latex import LatexPrinter, translate
from sympy.printing.pretty.pretty_symbology import greek_unicode
from sympy.printing.str import StrPrinter

from quenched.theory.algebra import Transpose
from quenched.theory.bonds import Drive, bond_equations, starts_of
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Apply, Gaussian, Iid, RandomMatrix
from quenched.theory.distributions import Law, Normal
from quenched.theory.fields import At, UnitSymbol, WhiteNoise
from quenched.theory.landscape import Height
from quenched.theory.observables import Mean, split_scalar
from quenched.theory.spaces import N, Population

if TYPE_CHECKING:
    from quenched.theory.model import Model

_LETTERS = "ijklmnopq"
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_MUL = 50


class _Indices:
    """What text and LaTeX share: which letter the unit index has, and whether populations are shown."""

    tagged = False
    level = 0

    def index(self) -> str:
        return _LETTERS[self.level % len(_LETTERS)]

    def _as_ordered_terms(self, expr: Any, order: Any = None) -> list[Any]:
        """Local terms first, then the sums, then the noise."""
        terms = super()._as_ordered_terms(expr, order)  # type: ignore[misc]
        return sorted(terms, key=lambda term: 2 * term.has(WhiteNoise) + term.has(Apply, Mean))

    @contextmanager
    def inner(self) -> Iterator[str]:
        """One sum further inside: the next letter."""
        self.level += 1
        try:
            yield self.index()
        finally:
            self.level -= 1


class TextPrinter(_Indices, StrPrinter):
    """Right-hand sides as plain text."""

    printmethod = "_indexed_text"

    def __init__(self, tagged: bool = False) -> None:
        super().__init__({"full_prec": False})
        self.tagged = tagged

    def parenthesize(self, item: Any, level: int, strict: bool = False) -> str:
        """Sums need no brackets inside products: they stand last, and their index shows their extent."""
        if isinstance(item, (Apply, Mean)):
            return f"({self._print(item)})" if level > _MUL else str(self._print(item))
        return str(super().parenthesize(item, level, strict))

    def unit(self, symbol: UnitSymbol, index: str) -> str:
        """A unit quantity with its index."""
        copy = "" if symbol.copy is None else f"[{symbol.copy}]"
        tag = f"^{symbol.population.name}" if self.tagged else ""
        return f"{_greek(symbol.name)}{copy}{tag}_{index}"

    def entry(self, matrix: RandomMatrix, indices: str) -> str:
        """An entry of a matrix."""
        tag = f"^{matrix.rows.name}{matrix.cols.name}" if self.tagged else ""
        return f"{_greek(matrix.name)}{tag}_{indices}"

    def _print_UnitSymbol(self, expr: UnitSymbol) -> str:
        return self.unit(expr, self.index())

    def _print_WhiteNoise(self, expr: UnitSymbol) -> str:
        return self.unit(expr, self.index()) + "(t)"

    def _print_At(self, expr: Any) -> str:
        return f"{self._print(expr.field)}({self._print(expr.time)})"

    def _print_Symbol(self, expr: Any) -> str:
        return _greek(expr.name)

    def _print_Height(self, expr: Any) -> str:
        return f"{expr.landscape.name}({_greek(expr.field.name)})"

    def _print_Apply(self, expr: Any) -> str:
        outside = self.index()
        with self.inner() as inside:
            entry = self._entry_of(expr.matrix, outside, inside)
            body = "" if expr.body == 1 else " " + self.parenthesize(expr.body, _MUL, strict=True)
            return f"Σ_{inside} {entry}{body}"

    def _entry_of(self, matrix: Any, row: str, column: str) -> str:
        if isinstance(matrix, Transpose):
            return self.entry(matrix.matrix, column + row)
        return self.entry(matrix, row + column)

    def _print_Mean(self, expr: Any) -> str:
        count = self.parenthesize(expr.population.count, _MUL)
        return f"(1/{count}) {self._sum(expr.body)}"

    def _sum(self, body: Expr) -> str:
        with self.inner() as inside:
            return f"Σ_{inside} {self.parenthesize(body, _MUL, strict=True)}"

    def _print_Mul(self, expr: Any) -> str:
        rest, summed = _total(expr)
        if summed is None:
            sign, factors = _ordered(expr)
            if not factors:
                return str(super()._print_Mul(expr))
            return sign + "*".join(self.parenthesize(factor, _MUL) for factor in factors)
        text = self._sum(summed)
        return text if rest == 1 else f"-{text}" if rest == -1 else f"{self.parenthesize(rest, _MUL)}*{text}"

    def count(self, population: Population) -> str:
        """Number of units, as it is printed."""
        return self.tidy(population.count)

    def law(self, law: Law) -> str:
        """Name and parameters of a law."""
        if not law.has_moments:
            return _tidy(str(law))
        name = "N" if isinstance(law, Normal) else type(law).__name__
        parts = [self.law(a) if isinstance(a, Law) else self.tidy(a) for a in law.args]
        return f"{name}({', '.join(parts)})"

    def tidy(self, expr: Any) -> str:
        """An expression in the style of the printout."""
        return _tidy(self._print(expr))


class TexPrinter(_Indices, LatexPrinter):
    """Right-hand sides as LaTeX."""

    def __init__(self, tagged: bool = False) -> None:
        super().__init__({"full_prec": False})
        self.tagged = tagged

    def _print(self, expr: Any, **kwargs: Any) -> str:
        # The nodes of the language have a LaTeX form without indices, which would come first.
        for kind in (WhiteNoise, UnitSymbol, At, Apply, Mean, Height):
            if isinstance(expr, kind):
                return str(getattr(self, f"_print_{kind.__name__}")(expr))
        return str(super()._print(expr, **kwargs))

    def parenthesize(self, item: Any, level: int, is_neg: bool = False, strict: bool = False) -> str:
        """Sums need no brackets inside products: they stand last, and their index shows their extent."""
        if isinstance(item, (Apply, Mean)):
            text = self._print(item)
            return rf"\left({text}\right)" if level > _MUL else text
        return str(super().parenthesize(item, level, is_neg, strict))

    def unit(self, symbol: UnitSymbol, index: str) -> str:
        """A unit quantity with its index."""
        tags = [symbol.population.name] if self.tagged else []
        return _scripts(symbol.name, tags + ([] if symbol.copy is None else [f"[{symbol.copy}]"]), index)

    def entry(self, matrix: RandomMatrix, indices: str) -> str:
        """An entry of a matrix."""
        return _scripts(matrix.name, [matrix.rows.name + matrix.cols.name] if self.tagged else [], indices)

    def _print_UnitSymbol(self, expr: UnitSymbol) -> str:
        return self.unit(expr, self.index())

    def _print_WhiteNoise(self, expr: UnitSymbol) -> str:
        return self.unit(expr, self.index()) + "(t)"

    def _print_At(self, expr: Any) -> str:
        return rf"{self._print(expr.field)}\left({self._print(expr.time)}\right)"

    def _print_Height(self, expr: Any) -> str:
        return rf"{expr.landscape.name}\left({self._print(Symbol(expr.field.name))}\right)"

    def _print_Apply(self, expr: Any) -> str:
        outside = self.index()
        with self.inner() as inside:
            flipped = isinstance(expr.matrix, Transpose)
            matrix = expr.matrix.matrix if flipped else expr.matrix
            entry = self.entry(matrix, inside + outside if flipped else outside + inside)
            body = "" if expr.body == 1 else rf"\, {self.parenthesize(expr.body, _MUL, strict=True)}"
            return rf"\sum_{{{inside}}} {entry}{body}"

    def _print_Mean(self, expr: Any) -> str:
        return rf"\frac{{1}}{{{self._print(expr.population.count)}}} {self._sum(expr.body)}"

    def _sum(self, body: Expr) -> str:
        with self.inner() as inside:
            return rf"\sum_{{{inside}}} {self.parenthesize(body, _MUL, strict=True)}"

    def _print_Mul(self, expr: Any) -> str:
        rest, summed = _total(expr)
        if summed is None:
            sign, factors = _ordered(expr)
            if not factors:
                return str(super()._print_Mul(expr))
            return sign + " " * bool(sign) + " ".join(self.parenthesize(factor, _MUL) for factor in factors)
        text = self._sum(summed)
        return text if rest == 1 else f"- {text}" if rest == -1 else f"{self.parenthesize(rest, _MUL)} {text}"

    def law(self, law: Law) -> str:
        """Name and parameters of a law."""
        name = r"\mathcal{N}" if isinstance(law, Normal) else rf"\mathrm{{{type(law).__name__}}}"
        parts = [self.law(a) if isinstance(a, Law) else self._print(a) for a in law.args]
        return rf"{name}\left({', '.join(parts)}\right)"


# -- whole models --------------------------------------------------------------------------------------------------
def indexed(model: Model) -> list[str]:
    """Lines of text that write a model with explicit indices.

    Parameters
    ----------
    model : Model

    Returns
    -------
    list of str
        Equations of motion, then the laws of couplings, noises, disorder and initial states, then the populations.
    """
    if hasattr(model, "indexed"):  # heads without equations of motion print themselves
        return list(model.indexed())
    printer = TextPrinter(len(model.populations) > 1)
    lines = []
    for x, rhs in model.eqs.items():
        unit = printer.unit(x, "i")
        step = "1" if model.dt is None else printer.tidy(model.dt)
        left = f"d{unit}/dt" if model.clock == "flow" else f"{unit}(t + {step})"
        lines.append(f"{left} = {printer.tidy(rhs)}")
    lines += [f"{left} = {rhs}" for left, rhs in _bonds(model, printer)]
    lines += [entry_law(matrix, printer.tagged) for matrix in model.matrices]
    delta = "δ(t − s)" if model.clock == "flow" else "δ_ts"
    for xi in model.noises:
        lines.append(f"⟨{printer.unit(xi, 'i')}(t) {printer.unit(xi, 'j')}(s)⟩ = δ_ij {delta}")
    for q in model.quenched:
        lines.append(f"{printer.unit(q, 'i')} ~ {printer.law(q.law)}{_redrawn(q.redraw)}")
    for x in model.fields:
        if x.initial is not None:
            law = isinstance(x.initial, Law)
            start = printer.law(x.initial) if law else printer.tidy(x.initial)
            lines.append(f"{printer.unit(x, 'i')}(0) {'~' if law else '='} {start}")
    lines += [f"{left} = {start}" for left, start in _bond_starts(model, printer)]
    for population in model.populations:
        if printer.tagged or population.count != N:
            labels = "" if population.labels is None else f", labels ~ {printer.law(population.labels)}"
            lines.append(f"{population.name}: i = 1 … {printer.count(population)}{labels}")
    return lines


def indexed_latex(model: Model) -> str:
    """A model with explicit indices as one LaTeX ``aligned`` block (without dollar signs)."""
    if hasattr(model, "indexed_latex"):
        return str(model.indexed_latex())
    printer = TexPrinter(len(model.populations) > 1)
    rows = []
    for x, rhs in model.eqs.items():
        unit = printer.unit(x, "i")
        step = "1" if model.dt is None else printer._print(model.dt)
        flow = rf"\frac{{\mathrm{{d}} {unit}}}{{\mathrm{{d}} t}}"
        left = flow if model.clock == "flow" else rf"{unit}\left(t + {step}\right)"
        rows.append(f"{left} &= {printer._print(rhs)}")
    rows += [f"{left} &= {rhs}" for left, rhs in _bonds(model, printer)]
    rows += [entry_law_latex(matrix, printer.tagged).replace(r" \sim ", r" &\sim ", 1) for matrix in model.matrices]
    delta = r"\delta\left(t - s\right)" if model.clock == "flow" else r"\delta_{ts}"
    for xi in model.noises:
        pair = rf"{printer.unit(xi, 'i')}(t)\, {printer.unit(xi, 'j')}(s)"
        rows.append(rf"\left\langle {pair} \right\rangle &= \delta_{{ij}}\, {delta}")
    for q in model.quenched:
        note = rf"\quad\text{{{_redrawn(q.redraw)[2:]}}}" if q.redraw else ""
        rows.append(rf"{printer.unit(q, 'i')} &\sim {printer.law(q.law)}{note}")
    for x in model.fields:
        if x.initial is not None:
            law = isinstance(x.initial, Law)
            start = printer.law(x.initial) if law else printer._print(x.initial)
            relation = r"\sim" if law else "="
            rows.append(rf"{printer.unit(x, 'i')}(0) &{relation} {start}")
    rows += [f"{left} &= {start}" for left, start in _bond_starts(model, printer)]
    for population in model.populations:
        if printer.tagged or population.count != N:
            labels = "" if population.labels is None else rf",\ \text{{labels}} \sim {printer.law(population.labels)}"
            rows.append(rf"\mathrm{{{population.name}}}: i &= 1, \dots, {printer._print(population.count)}{labels}")
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _bonds(model: Model, printer: Any) -> Iterator[tuple[str, str]]:
    """Both sides of the equations of dynamic couplings A_ij."""
    tex = isinstance(printer, LatexPrinter)
    step = "1" if model.dt is None else printer._print(model.dt)
    for equation in bond_equations(model.bonds):
        entry = printer.entry(equation.bond, "ij")
        pieces = [(equation.rate, entry)] if equation.rate != 0 else []
        pieces += [_product(drive, printer) for drive in equation.drives]
        flow = rf"\frac{{\mathrm{{d}} {entry}}}{{\mathrm{{d}} t}}" if tex else f"d{entry}/dt"
        yield flow if model.clock == "flow" else f"{entry}(t + {step})", _weighted(pieces, printer)


def _bond_starts(model: Model, printer: Any) -> Iterator[tuple[str, str]]:
    """Where dynamic couplings start that do not start at 0."""
    for bond in (b for b in model.bonds if b.initial is not None):
        yield f"{printer.entry(bond, 'ij')}(0)", _weighted([_product(d, printer) for d in starts_of(bond)], printer)


def _product(drive: Drive, printer: Any) -> tuple[Expr, str]:
    """Coefficient and u_i v_j."""
    left = printer.parenthesize(drive.left, _MUL)
    with printer.inner():
        right = printer.parenthesize(drive.right, _MUL)
    return drive.coefficient, " ".join(side for side in (left, right) if side != "1") or "1"


def _weighted(pieces: list[tuple[Expr, str]], printer: Any) -> str:
    """Σ coefficient · text."""
    out = ""
    for coefficient, body in pieces:
        sign, size = ("−", -coefficient) if coefficient.could_extract_minus_sign() else ("+", coefficient)
        sign = sign.replace("−", "-")
        factor = "" if size == 1 else printer.parenthesize(size, _MUL) + " "
        out += f" {sign} {factor}{body}" if out else f"{sign.replace('+', '')}{factor}{body}"
    return out or "0"


# -- laws of entries -----------------------------------------------------------------------------------------------
def entry_law(matrix: RandomMatrix, tagged: bool | None = None) -> str:
    """The law of the entries of a random matrix, powers of N included: ``J_ij ~ N(0, g²/N)``."""
    printer = TextPrinter(_tag(matrix) if tagged is None else tagged)
    entry = printer.entry(matrix, "ij")
    if isinstance(matrix, Circulant):
        return f"{entry} depends on i − j, eigenvalues {printer.tidy(matrix.eigenvalue)}"
    if isinstance(matrix, Iid):
        scale = "" if matrix.cols.size is not None else "/√N"
        return f"{entry} ~ {printer.law(matrix.law)}{scale}{_redrawn(matrix.redraw)}"
    assert isinstance(matrix, Gaussian)
    mean, variance = entry_moments(matrix)
    text = f"{entry} ~ N({printer.tidy(mean)}, {printer.tidy(variance)})"
    if matrix.symmetry != 0:
        text += f", Cov({entry}, {printer.entry(matrix, 'ji')}) = {printer.tidy(matrix.symmetry * variance)}"
    if matrix.diagonal == 0:
        text += f", {printer.entry(matrix, 'ii')} = 0"
    for other, rho in matrix.correlation.items():
        covariance = rho * sqrt(variance * entry_moments(other)[1])
        text += f", Cov({entry}, {printer.entry(other, 'ij')}) = {printer.tidy(covariance)}"
    return text + _redrawn(matrix.redraw)


def entry_law_latex(matrix: RandomMatrix, tagged: bool | None = None) -> str:
    """The law of the entries of a random matrix as LaTeX."""
    printer = TexPrinter(_tag(matrix) if tagged is None else tagged)
    entry = printer.entry(matrix, "ij")
    note = rf"\quad\text{{{_redrawn(matrix.redraw)[2:]}}}" if matrix.redraw else ""
    if isinstance(matrix, Circulant):
        shown = printer._print(matrix.mode(Symbol("theta")))
        return rf"{entry} \text{{ depends on }} i - j, \quad \lambda(\theta) = {shown}"
    if isinstance(matrix, Iid):
        scale = "" if matrix.cols.size is not None else r" / \sqrt{N}"
        return rf"{entry} \sim {printer.law(matrix.law)}{scale}{note}"
    assert isinstance(matrix, Gaussian)
    mean, variance = entry_moments(matrix)
    text = rf"{entry} \sim \mathcal{{N}}\left({printer._print(mean)}, {printer._print(variance)}\right)"
    if matrix.symmetry != 0:
        flipped = printer.entry(matrix, "ji")
        text += rf",\quad \mathrm{{Cov}}\left({entry}, {flipped}\right) = {printer._print(matrix.symmetry * variance)}"
    if matrix.diagonal == 0:
        text += rf",\quad {printer.entry(matrix, 'ii')} = 0"
    for other, rho in matrix.correlation.items():
        covariance = rho * sqrt(variance * entry_moments(other)[1])
        pair = f"{entry}, {printer.entry(other, 'ij')}"
        text += rf",\quad \mathrm{{Cov}}\left({pair}\right) = {printer._print(covariance)}"
    return text + note


def entry_moments(matrix: Gaussian) -> tuple[Expr, Expr]:
    """Mean and variance of one off-diagonal entry: divided by N when the columns are extensive."""
    size = N if matrix.cols.extensive else S.One
    return matrix.mean / size, matrix.variance / size


def _tag(matrix: RandomMatrix) -> bool:
    return matrix.rows.name != "units" or matrix.cols.name != "units"


def _redrawn(redraw: str | None) -> str:
    return "" if redraw is None else f", drawn afresh at every {redraw}"


def _total(expr: Any) -> tuple[Expr, Expr | None]:
    """Recognise count·mean as a plain sum: the remaining factor and what is summed."""
    for factor in expr.args:
        if isinstance(factor, Mean):
            count = factor.population.count
            rest = expr / factor / count
            names = count.free_symbols or {S.Zero}
            if not any(rest.has(s) for s in names) and (count.free_symbols or rest.is_Integer):
                return rest, factor.body
    return S.One, None


def _ordered(expr: Any) -> tuple[str, list[Expr]]:
    """Sign and factors of a product without denominator: parameters, then unit quantities, then sums."""
    if fraction(expr)[1] != 1:
        return "", []
    number = expr.as_coeff_Mul()[0]
    sign, size = ("-", -number) if number.is_negative else ("", number)
    factors = [f for f in expr.as_ordered_factors() if not f.is_Rational and not f.is_Float]
    ranked = sorted(factors, key=lambda f: 2 * f.has(Apply, Mean) + (split_scalar(f)[1] != 1))
    return sign, ranked if size == 1 else [size, *ranked]


# -- letters -------------------------------------------------------------------------------------------------------
def _greek(name: str) -> str:
    """Spell Greek names with their letters: ``sigma_0`` → σ_0."""
    head, *rest = name.split("_")
    match = re.fullmatch(r"([A-Za-z]+)(\d*)", head)
    if match and match[1] in greek_unicode:
        head = greek_unicode[match[1]] + match[2]
    return "_".join([head, *rest])


def _tidy(text: str) -> str:
    """Typographic text from sympy's Python-like one."""
    text = re.sub(r"\*\*(\d+)", lambda m: m[1].translate(_SUPERSCRIPT), text)
    text = re.sub(r"sqrt\((\w+)\)", r"√\1", text).replace("sqrt(", "√(")
    text = re.sub(r"(?<![A-Za-z_])pi(?![A-Za-z_])", "π", text)
    return text.replace("**", "^").replace("*", " ").replace("-", "−")


def _scripts(name: str, above: list[str], index: str) -> str:
    """A LaTeX name with its own scripts, further superscripts and an index."""
    base, supers, subs = split_super_sub(name)
    over = [translate(s) for s in supers] + [rf"\mathrm{{{a}}}" if a.isalpha() else a for a in above]
    under = [translate(s) for s in subs] + [index] if subs else [index]
    text = translate(base) + "_{" + ",".join(under) + "}"
    return text + ("^{" + ",".join(over) + "}" if over else "")
