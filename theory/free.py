"""Free probability: the spectrum of a sum of free matrices, by R-transforms, and of their products, by S-transforms.

Independent matrices whose laws are invariant under rotations are free of each other and of deterministic ones. With
w(z) the resolvent, z = 1/w + R(w), and R adds up over free parts; S multiplies over free factors, w = y S(y)/c and
R = y/w for c times a product. This route knows nothing of pencils and Dyson equations, and must agree with them where
it applies.
(Voiculescu, J. Funct. Anal. 66, 1986; J. Operator Theory 18, 1987.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from sympy import Expr, S, Symbol

from quenched.theory.algebra import Diag, Matrix, Transpose
from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Gaussian, Iid, RandomMatrix
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.fields import open_leaves
from quenched.theory.problem_dyson import Z
from quenched.theory.problem_scalars import LabelMean, ScalarProblem
from quenched.theory.record import Form, Line, Rule, Step
from quenched.theory.render import equation_line, latex, text
from quenched.theory.spectrum import Spectrum, SpectrumDeclaration

#: The resolvent.
W = Symbol("w")
Word = tuple[Matrix, ...]


@dataclass(frozen=True)
class ScalarSystem(Form):
    """Closed equations of the resolvent w(z) and of auxiliary scalars: each residual vanishes.

    Attributes
    ----------
    unknowns : w first
    residuals : in the unknowns, z, parameters and averages over labels; as many as unknowns
    shown : the same equations as they are read
    large : unknowns that grow as z; the others fall off as 1/z or start from 0
    """

    name: ClassVar[str] = "equations of the resolvent"
    unknowns: tuple[Symbol, ...]
    residuals: tuple[Expr, ...]
    shown: tuple[Line, ...]
    large: tuple[Symbol, ...] = ()

    @property
    def problem(self) -> ScalarProblem:
        """What the solver gets."""
        return ScalarProblem(self.unknowns, self.residuals, self.large)

    def lines(self) -> list[Line]:
        return list(self.shown)

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, residual in enumerate(self.residuals):
            for j, piece in enumerate(residual.as_ordered_terms()):
                for label, value in (("dropped", residual - piece), ("× 1.1", residual + piece / 10)):
                    changed = (*self.residuals[:k], value, *self.residuals[k + 1 :])
                    yield f"term {j + 1} of equation {k + 1} {label}", replace(self, residuals=changed)


@dataclass(frozen=True)
class FreePart:
    """One free part of a sum: coefficient · word, and which route gives its R-transform."""

    kind: str
    coefficient: Expr
    word: Word

    def line(self) -> Line:
        shown = " @ ".join(text(f) for f in self.word) or "eye"
        tex = r"\,".join(latex(f) for f in self.word) or r"\mathbb{1}"
        return Line(f"({text(self.coefficient)})·{shown}", rf"\left({latex(self.coefficient)}\right) {tex}", self.kind)


@dataclass(frozen=True)
class FreeParts(Form):
    """A matrix as a sum of parts that are free of each other."""

    name: ClassVar[str] = "free parts"
    parts: tuple[FreePart, ...]

    def lines(self) -> list[Line]:
        return [part.line() for part in self.parts]


# -- splitting -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SplitFree(Rule):
    """Read the terms of a symmetric matrix as free parts."""

    title: ClassVar[str] = "Free parts"
    assumption: ClassVar[str] = "N → ∞; independent rotation-invariant matrices are free of each other and of diagonals"
    source: ClassVar[str] = "voiculescu1986"

    def __call__(self, before: Form) -> FreeParts:
        assert isinstance(before, SpectrumDeclaration)
        return FreeParts(tuple(split(before.spectrum)))


def split(spectrum: Spectrum) -> list[FreePart]:
    """The free parts of a declared matrix.

    Raises
    ------
    NotCovered
        For matrices that are not symmetric, have blocks, or whose terms share an atom.
    """
    if not spectrum.hermitian or len(spectrum.blocks) != 1:
        raise NotCovered("free probability on the real line needs one symmetric matrix")
    (matrix,) = spectrum.blocks.values()
    diagonal: Expr = S.Zero
    parts: list[FreePart] = []
    owner: dict[RandomMatrix, int] = {}
    for k, (coefficient, word) in enumerate(matrix.terms):
        if all(isinstance(f, Diag) for f in word):
            diagonal += coefficient * _product(word)
            continue
        for atom in {f.matrix if isinstance(f, Transpose) else f for f in word}:
            if isinstance(atom, RandomMatrix) and owner.setdefault(atom, k) != k:
                raise NotCovered(f"two terms share {atom}: they are not free of each other")
        parts.append(_part(coefficient, word))
    if any(True for _ in open_leaves(diagonal)):
        parts.append(FreePart("law of labels", S.One, (Diag(diagonal, matrix.rows),)))
    elif diagonal != 0:
        parts.append(FreePart("shift", diagonal, ()))
    return parts


def _part(coefficient: Expr, word: Word) -> FreePart:
    if len(word) == 1 and isinstance(word[0], Gaussian) and word[0].symmetry == 1:
        return FreePart("semicircle", coefficient, word)
    if tuple(f.transposed() for f in reversed(word)) != word:
        raise NotCovered(f"{' @ '.join(map(str, word))} is no symmetric product A X A.T")
    core = word[1:-1]
    if _variance(word[0]) is not None and (not core or (len(core) == 1 and isinstance(core[0], Diag))):
        return FreePart("free compound Poisson law", coefficient, word)
    _s_transform(word, Symbol("y"), [])  # refuses what it does not cover
    return FreePart("product of free factors", coefficient, word)


def _variance(factor: Matrix) -> Expr | None:
    """N·Var of the entries of a matrix of independent entries, None for others."""
    atom = factor.matrix if isinstance(factor, Transpose) else factor
    if isinstance(atom, Circulant) or not isinstance(atom, RandomMatrix):
        return None
    if isinstance(atom, Iid):
        return atom.law.variance_()
    if isinstance(atom, Gaussian) and atom.symmetry == 0 and not atom.correlation:
        return atom.variance
    return None


def _fractions(factor: Matrix) -> tuple[Expr, Expr]:
    assert factor.rows.fraction is not None
    assert factor.cols.fraction is not None
    return factor.rows.fraction, factor.cols.fraction


def _product(word: Word) -> Expr:
    out: Expr = S.One
    for f in word:
        assert isinstance(f, Diag)
        out = out * f.vector
    return out


# -- R and S -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class AddRTransforms(Rule):
    """z = 1/w + Σ R(w), with each part's R explicit or through its S-transform."""

    title: ClassVar[str] = "Add the R-transforms"
    assumption: ClassVar[str] = "the parts are free; w ≈ 1/z far out"
    source: ClassVar[str] = "voiculescu1986,voiculescu1987"

    def __call__(self, before: Form) -> ScalarSystem:
        assert isinstance(before, FreeParts)
        return add(before)


def add(form: FreeParts) -> ScalarSystem:
    """The equations of the resolvent of a sum of free parts."""
    build = _Names()
    total: Expr = 1 / W
    lines = []
    for k, part in enumerate(form.parts, start=1):
        R = _r_transform(part, build)
        total += R
        lines.append(Line(f"R_{k}(w) = {text(R)}", f"R_{{{k}}}(w) = {latex(R)}", part.kind))
    lines += [equation_line(left, right) for left, right in build.equations]
    lines.append(Line(f"z = {text(total)}", f"z = {latex(total)}"))
    residuals = (total - Z, *(right - left for left, right in build.equations))
    large = tuple(s for s in build.symbols if s.name.startswith("b"))
    return ScalarSystem((W, *build.symbols), residuals, tuple(lines), large)


class _Names:
    """Auxiliary scalars and their equations."""

    def __init__(self) -> None:
        self.symbols: list[Symbol] = []
        self.equations: list[tuple[Expr, Expr]] = []

    def new(self, letter: str) -> Symbol:
        symbol = Symbol(f"{letter}_{1 + sum(s.name.startswith(letter) for s in self.symbols)}")
        self.symbols.append(symbol)
        return symbol


def _r_transform(part: FreePart, build: _Names) -> Expr:
    c, word = part.coefficient, part.word
    if part.kind == "shift":
        return c
    if part.kind == "semicircle":
        (atom,) = word
        assert isinstance(atom, Gaussian)
        return c**2 * atom.variance * _fractions(atom)[0] * W
    if part.kind == "law of labels":
        b = build.new("b")
        build.equations.append((W, LabelMean(1 / (b - _product(word)))))
        return b - 1 / W
    if part.kind == "free compound Poisson law":
        rows, cols = _fractions(word[0])
        jump = c * _variance(word[0]) * _product(word[1:-1])
        return cols * LabelMean(jump / (1 - rows * jump * W))
    y = build.new("y")
    extra: list[tuple[Symbol, Expr, Expr]] = []
    product = _s_transform(word, y, extra)
    for u, left, right in extra:
        named = build.new("u")
        left, right, product = (e.xreplace({u: named}) for e in (left, right, product))
        build.equations.append((left, right))
    build.equations.append((c * W, y * product))
    return y / W


def _s_transform(word: Word, y: Expr, extra: list[tuple[Symbol, Expr, Expr]]) -> Expr:
    """S(y) of a symmetric product; `extra` collects (u, y, ⟨d u/(1 − d u)⟩) for its diagonal factors."""
    if not word:
        return S.One
    first = word[0]
    if isinstance(first, Diag):
        d = first.vector if len(word) == 1 else first.vector**2
        u = Symbol(f"u_{len(extra)}'")
        extra.append((u, y, LabelMean(d * u / (1 - d * u))))
        return (1 + y) * u / y * _s_transform(word[1:-1] if len(word) > 1 else (), y, extra)
    v = _variance(first)
    if v is None or len(word) < 2:
        raise NotCovered(f"no S-transform of {' @ '.join(map(str, word))}: factors are diagonal or A X A.T")
    rows, cols = _fractions(first)
    return _s_transform(word[1:-1], y * rows / cols, extra) / (v * (cols + rows * y))


def turning(system: ScalarSystem) -> tuple[ScalarSystem, ScalarSystem]:
    """z(w) and dz/dw of a system of one equation: dz/dw = 0 on the edges of the support.

    Raises
    ------
    QuenchedError
        For more than one unknown, or an equation that is not z = … in w.
    """
    first = system.residuals[0]
    if len(system.unknowns) != 1:
        names = ", ".join(map(str, system.unknowns))
        raise QuenchedError(f"the equations have the unknowns {names}: a single equation z(w) is needed")
    z = first + Z if Z not in (first + Z).free_symbols else 1 / W - (1 / (first + W) - Z)
    if Z in z.free_symbols:
        raise QuenchedError("the equation cannot be written as z(w)")
    return tuple(replace(system, residuals=(value,), shown=()) for value in (z, z.diff(W)))  # type: ignore[return-value]


def free_route(spectrum: Spectrum) -> tuple[Step, ...]:
    """The steps of the free-probability route of a symmetric matrix.

    Raises
    ------
    NotCovered
        Where the matrix is no sum and product of free parts.
    """
    from quenched.theory.modes import Diagonalise

    form: Form = SpectrumDeclaration(spectrum)
    steps = []
    rules: list[Rule] = [Diagonalise()] if any(isinstance(m, Circulant) for m in spectrum.matrices) else []
    for rule in [*rules, SplitFree(), AddRTransforms()]:
        step = Step(rule, form)
        form = step.after
        steps.append(step)
    return tuple(steps)
