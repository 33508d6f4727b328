"""A measure as numbers see it, from the declaration alone: its exponent taken apart, and what is measured in a state.

The exponent of a measure is a sum over sites, over pairs of sites, over the units of further populations (each a
function of its local fields, which are linear in the state), and a function of a few means:

    ln P = Σ_i v(s_i) + ½ Σ_ij s_i A_ij s_j + Σ_μ F(u_μ, z_μ, …) + G(⟨ψ⟩, …) + c V(s),

V being random functions of the whole state.

Nothing of the theory's lowering is used, so that theory and samples meet only in their results. What leaves this module
is plain data and readable source: workers need no sympy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sympy import Add, Expr, Heaviside, Integer, Max, Mul, S, Symbol

from quenched.theory.couplings import Apply
from quenched.theory.distributions import SpikeSlab
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, UnitSymbol, population_of, unbind
from quenched.theory.landscape import Height
from quenched.theory.observables import Mean
from quenched.theory.priors import Restricted, on_sphere
from quenched.theory.spaces import Population
from quenched.validate.gibbs_code import ArrayWriter, depends, log_of, log_safe, log_step, outer, scalar_function

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs

#: A site's state in scalar functions.
STATE = Symbol("x", real=True)


@dataclass(frozen=True)
class Recipe:
    """A linear map of the state: a matrix applied to Σ coefficient·(a field, or another recipe).

    Coefficients are names of array functions of the labels, empty for 1.
    """

    matrix: int
    transposed: bool
    parts: tuple[tuple[str, int | Recipe], ...]


@dataclass(frozen=True)
class Smooth:
    """A function that is quadratic: its level, slopes and curvatures (row by row) at 0, as array functions."""

    level: str
    slopes: tuple[str, ...]
    curvatures: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Units of one population that weigh the state by a function of their local fields."""

    population: str
    recipes: tuple[Recipe, ...]
    labels: tuple[str, ...]
    smooth: Smooth | None = None
    #: (sign of the local field, offset) as array functions where F is a step: sign·u − offset > 0.
    step: tuple[str, str] | None = None


@dataclass(frozen=True)
class Pair:
    """coefficient · Σ_ij left_i s_i M_ij right_j s_j."""

    coefficient: str
    matrix: int
    transposed: bool
    left: tuple[str, int]
    right: tuple[str, int]


@dataclass(frozen=True)
class HeightTerm:
    """coefficient · V(s) of a random function of a field's state."""

    coefficient: str
    function: int
    field: int
    degree: int


@dataclass(frozen=True)
class StateField:
    """A field with its prior.

    Attributes
    ----------
    kind : "atoms" (finitely many values), "continuous" or "sphere"
    atoms, chances : values and probabilities, as array functions
    normal : (mean, variance) as array functions, for a Gaussian prior
    mixed : probability of the slab where there is also an atom at zero, as an array function
    labels : array functions of the labels that the weight of a site sees
    starts : array functions of the declared initial states, one for every copy that has its own, none without one
    smooth : the weight of a site where it is quadratic
    ends : lowest and highest value, as array functions; empty where there is none
    """

    name: str
    population: str
    kind: Literal["atoms", "continuous", "sphere"]
    atoms: tuple[str, ...]
    chances: tuple[str, ...]
    normal: tuple[str, str] | None
    mixed: str
    labels: tuple[str, ...]
    starts: tuple[str, ...]
    smooth: Smooth | None
    ends: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class QuadraticMeans:
    """A quadratic function of means over units of coefficient·field: (coefficient, field) of each mean."""

    means: tuple[tuple[str, int], ...]
    smooth: Smooth


@dataclass(frozen=True)
class GibbsProgram:
    """Source and tables.

    Attributes
    ----------
    scalar : functions ``prior(f, x, p)``, ``site(f, x, l, p)``, ``row(b, u, l, p)``, ``lack(b, u, l, p)``
        (by how much the steps in a row miss a positive weight), ``moment(k, f, x, l, p)``,
        ``joint(m, p)`` of numbers
    arrays : functions of (env, x) with x one array (…, units) a field
    moments : number of means that `joint` sees
    quadratic_means : the function of means instead, where it is quadratic and they are linear
    levels : (array function, population) of what does not depend on the state
    """

    scalar: str
    arrays: str
    fields: tuple[StateField, ...]
    pairs: tuple[Pair, ...]
    blocks: tuple[Block, ...]
    moments: int
    parameters: tuple[str, ...]
    quadratic_means: QuadraticMeans | None = None
    levels: tuple[tuple[str, str], ...] = ()
    heights: tuple[HeightTerm, ...] = ()

    @property
    def quadratic(self) -> bool:
        """Whether the exponent is quadratic in an unbounded state."""
        fields = all(f.kind == "continuous" and f.normal is not None and not f.mixed and f.smooth for f in self.fields)
        low = all(h.degree <= 2 for h in self.heights)
        return fields and low and self.moments == 0 and all(b.smooth for b in self.blocks)


class ProgramWriter:
    """Reads a declaration into a program; observables are added with `factor`."""

    def __init__(self, model: Gibbs) -> None:
        self.model = model
        self.fields = list(model.fields)
        self.labels: list[UnitSymbol] = [*model.quenched, *model.rows]
        self.writer = ArrayWriter(self.fields, self.labels, model.parameters)
        for matrix in model.matrices:
            self.writer.matrix(matrix)
        self.writer.functions = list(model.landscapes)
        self.heights: list[HeightTerm] = []
        self.site: dict[Field, Expr] = dict.fromkeys(self.fields, S.Zero)
        self.rows: dict[Population, Expr] = {}
        self.joint: Expr = S.Zero
        self.levels: list[tuple[str, str]] = []
        self.pairs: list[Pair] = []
        self.sources: dict[str, str] = {}
        self._names: dict[tuple[str, Expr], str] = {}
        self._moment_terms: dict[tuple[int, Field], Expr] = {}

    # -- array functions ---------------------------------------------------------------------------------------------
    def function(self, expr: Any, stem: str = "f") -> str:
        """The name of an array function for an expression."""
        expr = expr if isinstance(expr, Expr) else Integer(expr)
        key = (stem, expr)
        if key not in self._names:
            name = f"{stem}_{len(self._names)}"
            self.sources[name] = self.writer.function(name, expr)
            self._names[key] = name
        return self._names[key]

    def _coefficient(self, expr: Expr) -> str:
        return "" if expr == 1 else self.function(expr, "c")

    # -- the exponent ------------------------------------------------------------------------------------------------
    def read(self) -> GibbsProgram:
        """The program of the measure."""
        for term in Add.make_args((-self.model.beta * self.model.energy).expand()):
            self._energy(term)
        for weight in self.model.weights:
            self._weight(weight)
        blocks = tuple(self._block(population, expr) for population, expr in self.rows.items())
        moments, joint = self._joint()
        form = self._quadratic_means(moments, joint)
        if form:
            moments, joint = [], S.Zero
            self._moment_terms.clear()
        states = tuple(self._field(f) for f in self.fields)
        scalar = "\n\n\n".join(
            [self._priors(), self._sites(), self._rows(), self._lacks(), *self._moments(moments, joint)]
        )
        names = tuple(p.name for p in self.model.parameters)
        arrays = "\n\n\n".join(self.sources.values())
        return GibbsProgram(
            scalar,
            arrays,
            states,
            tuple(self.pairs),
            blocks,
            len(moments),
            (*names, "N"),
            form,
            tuple(self.levels),
            tuple(self.heights),
        )

    def _energy(self, term: Expr) -> None:
        if term == 0:
            return
        means = [f for f in Mul.make_args(term) if isinstance(f, Mean)]
        heights = [f for f in Mul.make_args(term) if isinstance(f, Height)]
        if len(heights) == 1 and not (term / heights[0]).atoms(Mean, Height):
            self._height(term / heights[0], heights[0])
        elif len(means) == 1 and not (term / means[0]).atoms(Mean):
            (mean,) = means
            self._sum(term / mean / mean.population.count, unbind(mean.body), mean.population)
        else:
            self.joint += term

    def _height(self, coef: Expr, node: Height) -> None:
        function = self.writer.functions.index(node.landscape)
        degree = max(p for p, _ in node.landscape.powers)
        place = self.fields.index(node.field)
        self.heights.append(HeightTerm(self.function(coef, "c"), function, place, int(degree)))

    def _sum(self, coef: Expr, body: Expr, population: Population) -> None:
        """coef · Σ_i body_i."""
        coupled = [n for n in outer(body) if isinstance(n, Apply) and depends(n)]
        states = [n for n in outer(body) if isinstance(n, Field)]
        if not coupled and not states:
            self.levels.append((self.function(coef * body, "v"), population.name))
        elif not coupled:
            self._site_term(coef * body, states)
        elif not states:
            self.rows[population] = self.rows.get(population, S.Zero) + coef * body
        elif len(coupled) == 1 and coupled[0] in Mul.make_args(body):
            self._bilinear(coef, body / coupled[0], coupled[0])
        else:
            raise NotCovered(f"sampling the term {body} of the energy: units that read their own state and couplings")

    def _site_term(self, term: Expr, states: list[Field]) -> None:
        if len(states) != 1:
            raise NotCovered(f"sampling the term {term} of the energy: one field per unit is covered")
        self.site[states[0]] += term

    def _bilinear(self, coef: Expr, left: Expr, node: Apply) -> None:
        chi = unbind(node.body)
        if any(isinstance(n, Apply) and depends(n) for n in outer(chi)):
            self._sum(coef, Apply(node.matrix.T, left) * chi, node.cols)
            return
        matrix, flipped = self.writer.factor(node)
        self.pairs.append(
            Pair(self.function(coef, "c"), matrix, flipped, self._multiple(left, node.rows), self._multiple(chi))
        )

    def _multiple(self, expr: Expr, population: Population | None = None) -> tuple[str, int]:
        """(coefficient, field) of a multiple of a field."""
        state = next((n for n in outer(expr) if isinstance(n, Field)), None)
        ratio = expr / state if state is not None else S.NaN
        if state is None or depends(ratio) or (population is not None and state.population != population):
            raise NotCovered(f"sampling {expr} at the end of a coupling: multiples of a field are covered")
        return self._coefficient(ratio), self.fields.index(state)

    def _weight(self, weight: Expr) -> None:
        exponent, population = log_of(weight), population_of(weight, "weight")
        assert population is not None
        coupled = [n for n in outer(exponent) if isinstance(n, Apply) and depends(n)]
        states = [n for n in outer(exponent) if isinstance(n, Field)]
        if coupled and states:
            raise NotCovered(f"sampling the weight {weight}: it reads both a unit's state and couplings")
        if coupled:
            self.rows[population] = self.rows.get(population, S.Zero) + exponent
        else:
            self._site_term(exponent, states)

    # -- local fields ------------------------------------------------------------------------------------------------
    def _recipe(self, node: Apply) -> Recipe:
        matrix, flipped = self.writer.factor(node)
        parts: list[tuple[str, int | Recipe]] = []
        for term in Add.make_args(unbind(node.body).expand()):
            leaves = [n for n in outer(term) if depends(n)]
            ratio = term / leaves[0] if leaves else S.NaN
            if len(leaves) != 1 or depends(ratio):
                raise NotCovered(f"sampling {node}: couplings that read multiples of fields are covered")
            inner = leaves[0]
            part: int | Recipe = self.fields.index(inner) if isinstance(inner, Field) else self._recipe(inner)
            parts.append((self._coefficient(ratio), part))
        return Recipe(matrix, flipped, tuple(parts))

    def _local(self, expr: Expr) -> tuple[list[Apply], list[Any]]:
        """The local fields, and the labels (constants of a realisation), of a unit's function."""
        nodes = outer(expr)
        return [n for n in nodes if depends(n)], [n for n in nodes if not depends(n)]

    def _block(self, population: Population, expr: Expr) -> Block:
        fields, labels = self._local(expr)
        recipes = tuple(self._recipe(f) for f in fields)
        names = tuple(self.function(label, "l") for label in labels)
        return Block(population.name, recipes, names, self._smooth(expr, fields), self._step(expr, fields))

    def _smooth(self, expr: Expr, variables: list[Any]) -> Smooth | None:
        """The function at 0 with two derivatives, where it is quadratic."""
        u = [Symbol(f"u{k}", real=True) for k in range(len(variables))]
        plain = expr.xreplace(dict(zip(variables, u, strict=True)))
        if not u or plain.has(Heaviside, log_safe, log_step):
            return None
        second = [plain.diff(a, b) for a in u for b in u]
        if any(e.has(*u) for e in second):
            return None
        zero = dict.fromkeys(u, 0)
        level = self.function(plain.subs(zero), "v")
        slopes = tuple(self.function(plain.diff(a).subs(zero), "g") for a in u)
        return Smooth(level, slopes, tuple(self.function(e, "k") for e in second))

    def _step(self, expr: Expr, fields: list[Apply]) -> tuple[str, str] | None:
        if len(fields) != 1 or expr.func.__name__ != "log_step":
            return None
        (u,) = fields
        inside = expr.args[0].expand()
        sign = inside.coeff(u, 1)
        rest = (inside - sign * u).expand()
        if depends(sign) or depends(rest):
            return None
        return self.function(sign, "sign"), self.function(-rest, "offset")

    def _field(self, f: Field) -> StateField:
        law = self.model.priors[f]
        atoms = law.weights()
        kind: Any = "sphere" if on_sphere(law) else "atoms" if atoms else "continuous"
        name = type(law).__name__
        normal = tuple(self.function(a, "n") for a in law.args) if name == "Normal" else None
        if name == "Flat":
            normal = ("", "")
        site = self.site[f]
        return StateField(
            f.name,
            f.population.name,
            kind,
            tuple(self.function(a, "a") for a, _ in atoms),
            tuple(self.function(p, "a") for _, p in atoms),
            normal,  # type: ignore[arg-type]
            self.function(law.args[0], "a") if isinstance(law, SpikeSlab) and not atoms else "",
            tuple(self.function(label, "l") for label in self._site_labels(f)),
            tuple(self.function(x, "i") for x in self.model.starts or (f.initial,) if isinstance(x, Expr)),
            self._smooth(site, [f]),
            self._ends(law),
        )

    def _ends(self, law: Any) -> Any:
        if not isinstance(law, Restricted):
            return "", ""
        return tuple("" if end.is_infinite else self.function(end, "end") for end in (law.low, law.high))

    # -- a function of means -----------------------------------------------------------------------------------------
    def _joint(self) -> tuple[list[Mean], Expr]:
        if self.joint == 0:
            return [], S.Zero
        means = sorted(self.joint.atoms(Mean), key=str)
        for k, mean in enumerate(means):
            body = unbind(mean.body)
            fields = [n for n in outer(body) if isinstance(n, Field)]
            if len(fields) != 1 or any(isinstance(n, Apply) for n in outer(body) if depends(n)):
                raise NotCovered(f"sampling {mean} inside a function of means: couplings in it are not covered")
            self._moment_terms[k, fields[0]] = body
        return means, self.joint

    def _quadratic_means(self, means: list[Mean], joint: Expr) -> QuadraticMeans | None:
        """The function of means as a quadratic form, where it is one."""
        smooth = self._smooth(joint, list(means))
        parts = []
        for (_, f), body in self._moment_terms.items():
            ratio = (body / f).expand()
            if depends(ratio) or smooth is None:
                return None
            parts.append((self._coefficient(ratio), self.fields.index(f)))
        return QuadraticMeans(tuple(parts), smooth) if smooth else None

    # -- scalar source -----------------------------------------------------------------------------------------------
    def _parameters(self) -> dict[Any, str]:
        return {p: f"p[{k}]" for k, p in enumerate(self.writer.parameters)}

    def _priors(self) -> str:
        cases = []
        for k, f in enumerate(self.fields):
            law = self.model.priors[f]
            if isinstance(law, Restricted):
                inner = S.One if on_sphere(law) or type(law.law).__name__ == "Flat" else law.law.density(STATE)
                cases.append((f"f == {k}", log_of(law.indicator(STATE) * inner), {STATE: "x", **self._parameters()}))
                continue
            if on_sphere(law) or law.weights() or type(law).__name__ == "Flat":
                continue
            slab = law.args[1] if isinstance(law, SpikeSlab) else law
            cases.append((f"f == {k}", log_of(slab.density(STATE)), {STATE: "x", **self._parameters()}))
        return scalar_function("prior", "f, x, p", cases)

    def _sites(self) -> str:
        cases = []
        for k, f in enumerate(self.fields):
            labels = {label: f"l[{j}]" for j, label in enumerate(self._site_labels(f))}
            if self._smooth(self.site[f], [f]) is None:
                cases.append((f"f == {k}", self.site[f], {f: "x", **labels, **self._parameters()}))
        return scalar_function("site", "f, x, l, p", cases)

    def _rows(self) -> str:
        return scalar_function("row", "b, u, l, p", [(f"b == {b}", e, names) for b, e, names in self._row_cases()])

    def _row_cases(self) -> Iterator[tuple[int, Expr, dict[Any, str]]]:
        """(block, its function, names of what it reads) of the blocks that are not quadratic."""
        for b, expr in enumerate(self.rows.values()):
            fields, labels = self._local(expr)
            if self._smooth(expr, fields) is None:
                names = {f: f"u[{k}]" for k, f in enumerate(fields)} | {q: f"l[{k}]" for k, q in enumerate(labels)}
                yield b, expr, {**names, **self._parameters()}

    def _lacks(self) -> str:
        cases = []
        for b, expr, names in self._row_cases():
            lack = Add(*(Max(0, -s.args[0]) for s in expr.atoms(log_step)))
            cases.append((f"b == {b}", 1 + lack if expr.atoms(log_safe) else lack, names))
        return scalar_function("lack", "b, u, l, p", cases)

    def _moments(self, means: list[Mean], joint: Expr) -> list[str]:
        cases = []
        for (k, f), body in self._moment_terms.items():
            place = self.fields.index(f)
            labels = {q: f"l[{j}]" for j, q in enumerate(self._site_labels(f))}
            size = Symbol("n", real=True)
            names = {f: "x", size: "n", **labels, **self._parameters()}
            cases.append((f"k == {k} and f == {place}", body / size, names))
        whole = {mean: f"m[{k}]" for k, mean in enumerate(means)}
        out = [scalar_function("moment", "k, f, x, l, p, n", cases)]
        return [*out, scalar_function("joint", "m, p", [("True", joint, {**whole, **self._parameters()})])]

    def _site_labels(self, f: Field) -> list[Any]:
        """Labels (constants of a realisation) that the weight of a site sees, and its part of the means."""
        bodies = [body for (_, g), body in self._moment_terms.items() if g == f]
        return list(dict.fromkeys(n for e in (self.site[f], *bodies) for n in outer(e) if not depends(n)))
