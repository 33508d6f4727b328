"""Step 1: lower a declaration into the copied action.

Every `J @ ψ` gets its local field h and its conjugate ĥ, so that whatever the unit does with h, the exponent stays
linear in the couplings: Σ_c ĥ_i(c) (h_i − Σ_j J_ij ψ_j)(c), summed over copies c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from sympy import Expr, I, S, Symbol

from quenched.theory.bonds import FOLLOWED, BondEquation, bond_equations
from quenched.theory.couplings import Apply, Transpose
from quenched.theory.delays import longer
from quenched.theory.errors import NotCovered
from quenched.theory.fields import At, Field
from quenched.theory.laws import Law, averaging_law, law_of
from quenched.theory.naming import applications, coupling_outputs, field_names, unbind
from quenched.theory.observables import Mean
from quenched.theory.record import Form, Line, Rule
from quenched.theory.render import equation_line, latex, signed_sum, text
from quenched.theory.spaces import Population
from quenched.theory.terms import Term

if TYPE_CHECKING:
    from quenched.theory.model import Model

Role = Literal["state", "local", "hat", "output"]


@dataclass(frozen=True)
class SiteField:
    """A field of one site: its name in terms, role, population, printed symbol and (for outputs) its definition.

    A `single` field is disorder: it exists once, not in every copy (the weights of a teacher, and what they see).
    """

    name: str
    role: Role
    population: Population
    symbol: Symbol
    definition: Expr | None = None
    single: bool = False


@dataclass(frozen=True)
class Use:
    """One occurrence of a coupling: the exponent contains coef · Σ_c row_i(c) J_ij col_j(c).

    `row` and `col` are products of fields at local dummies; the dummy 0 of both ends is the same copy.
    """

    coupling: str
    coef: Expr
    row: tuple[tuple[str, int], ...]
    col: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Bond:
    """A dynamic coupling: dA_ij/dt (the next A_ij of a map) = rate·A_ij + Σ coef·u_i v_j over drives (coef, u, v)."""

    name: str
    rows: Population
    cols: Population
    rate: Expr
    drives: tuple[tuple[Expr, str, str], ...]


@dataclass(frozen=True)
class CopiedAction(Form):
    """Site equations plus uses of couplings: the exponent of the copied generating functional.

    Attributes
    ----------
    clock : "flow", "map" or "none" (no dynamics: the weight of a site is given elsewhere)
    fields : every field by name
    equations : (state name, right-hand side in states, local fields, noises, quenched numbers)
    uses, laws : occurrences of the couplings and their laws
    parameters : free symbols of the declaration
    bonds : dynamic couplings, until they are integrated out
    terms : parts of the exponent per N that need no average (what integrated bonds leave)
    starts : (state name, start value), of a map that runs finitely many steps from its declared start
    advance : what one step of a map adds to the time in which delays are given
    """

    name: ClassVar[str] = "copied action"
    clock: str
    fields: dict[str, SiteField]
    equations: tuple[tuple[str, Expr], ...]
    uses: tuple[Use, ...]
    laws: tuple[Law, ...]
    parameters: tuple[Symbol, ...] = ()
    bonds: tuple[Bond, ...] = field(default=(), kw_only=True)
    terms: tuple[Term, ...] = field(default=(), kw_only=True)
    starts: tuple[tuple[str, Expr], ...] = field(default=(), kw_only=True)
    advance: Expr = field(default=S.One, kw_only=True)

    def __hash__(self) -> int:
        return hash((self.clock, self.equations, self.uses))

    def of_role(self, role: Role, population: Population | None = None) -> list[SiteField]:
        """Fields of one role, in order of declaration."""
        keep = [f for f in self.fields.values() if f.role == role]
        return [f for f in keep if population is None or f.population == population]

    @property
    def populations(self) -> tuple[Population, ...]:
        """Every population with a field, in order of appearance."""
        return tuple(dict.fromkeys(f.population for f in self.fields.values()))

    def lines(self) -> list[Line]:
        return self.site_lines() + [self._use_line(use) for use in self.uses] + [self._bond_line(b) for b in self.bonds]

    def _bond_line(self, bond: Bond) -> Line:
        """The equation of motion of a dynamic coupling."""
        pieces = [(bond.rate, f"{bond.name}_ij", f"{{{latex(Symbol(bond.name))}}}_{{ij}}")]
        for coef, u, v in bond.drives:
            left, right = (self.fields[a].symbol for a in (u, v))
            pieces.append((coef, f"{text(left)}_i {text(right)}_j", rf"{{{latex(left)}}}_i\, {{{latex(right)}}}_j"))
        plain, tex = signed_sum(pieces)
        step, step_tex = {"flow": ("d{}_ij/dt", r"\frac{{d {}_{{ij}}}}{{dt}}")}.get(
            self.clock, ("{}_ij(n+1)", "{}_{{ij}}(n+1)")
        )
        matrix = latex(Symbol(bond.name))
        return Line(f"{step.format(bond.name)} = {plain}", f"{step_tex.format(matrix)} = {tex}")

    def site_lines(self) -> list[Line]:
        """Equations of motion and outputs of one site, fields under their unique names."""
        step = {"flow": ("d{}/dt", r"\frac{{d {}}}{{dt}}"), "map": ("{}(n+1)", "{}(n+1)"), "none": ("{}", "{}")}
        plain, tex = step[self.clock]
        names = {f.symbol: Symbol(f.name) for f in self.of_role("state")}
        out = []
        for name, rhs in self.equations:
            shown = _printed(rhs, names)
            out.append(
                Line(
                    f"{plain.format(text(Symbol(name)))} = {text(shown)}",
                    f"{tex.format(latex(Symbol(name)))} = {latex(shown)}",
                )
            )
        for name, start in self.starts:
            shown = _printed(start, names)
            out.append(Line(f"{name}(0) = {text(shown)}", f"{latex(Symbol(name))}(0) = {latex(shown)}", "start"))
        for f in self.of_role("output"):
            if f.definition is not None:
                out.append(equation_line(f.symbol, _printed(f.definition, names), "output"))
        return out

    def _use_line(self, use: Use) -> Line:
        row = " ".join(text(self.fields[a].symbol) + "_i(c)" for a, _ in use.row)
        col = " ".join(text(self.fields[a].symbol) + "_j(c)" for a, _ in use.col)
        rtex = " ".join(f"{{{latex(self.fields[a].symbol)}}}^i_c" for a, _ in use.row)
        ctex = " ".join(f"{{{latex(self.fields[a].symbol)}}}^j_c" for a, _ in use.col)
        matrix = latex(Symbol(use.coupling))
        coef, tcoef = ("-i", "-i") if use.coef == -I else (text(use.coef), latex(use.coef))
        return Line(
            f"exponent: {coef} Σ_c Σ_ij {row} {use.coupling}_ij {col}",
            rf"\text{{exponent}} \ni {tcoef} \sum_c \sum_{{ij}} {rtex}\, {{{matrix}}}_{{ij}}\, {ctex}",
        )

    def mutants(self) -> Iterator[tuple[str, Form]]:
        for k, use in enumerate(self.uses):
            rest = self.uses[:k] + self.uses[k + 1 :]
            yield f"use {k + 1} dropped", replace(self, uses=rest)
            scaled = replace(use, coef=use.coef * 11 / 10)
            yield f"use {k + 1} × 1.1", replace(self, uses=(*self.uses[:k], scaled, *self.uses[k + 1 :]))
        for k, (name, rhs) in enumerate(self.equations):
            for j, piece in enumerate(rhs.as_ordered_terms()):
                for label, value in (("dropped", rhs - piece), ("× 1.1", rhs + piece / 10)):
                    new = (*self.equations[:k], (name, value), *self.equations[k + 1 :])
                    yield f"term {j + 1} of {name} {label}", replace(self, equations=new)
            if rhs.atoms(At):
                new = (*self.equations[:k], (name, longer(rhs)), *self.equations[k + 1 :])
                yield f"delays of {name} × 1.1", replace(self, equations=new)
        for k, bond in enumerate(self.bonds):
            for label, changed in bond_mutants(bond):
                yield f"{label} of {bond.name}", replace(self, bonds=(*self.bonds[:k], changed, *self.bonds[k + 1 :]))
        for k, (name, start) in enumerate(self.starts):
            for j, piece in enumerate(start.as_ordered_terms()):
                for label, value in (("dropped", start - piece), ("× 1.1", start + piece / 10)):
                    starts = (*self.starts[:k], (name, value), *self.starts[k + 1 :])
                    yield f"start term {j + 1} of {name} {label}", replace(self, starts=starts)
        yield from self._law_mutants()
        yield from self._output_mutants()

    def _law_mutants(self) -> Iterator[tuple[str, Form]]:
        for k, law in enumerate(self.laws):
            for j, diagram in enumerate(law.diagrams):
                rest = law.diagrams[:j] + law.diagrams[j + 1 :]
                scaled = (*rest, replace(diagram, weight=diagram.weight * 11 / 10))
                for label, diagrams in (("dropped", rest), ("× 1.1", scaled)):
                    laws = (*self.laws[:k], replace(law, diagrams=diagrams), *self.laws[k + 1 :])
                    yield f"{diagram.kind} of {law.name} {label}", replace(self, laws=laws)

    def _output_mutants(self) -> Iterator[tuple[str, Form]]:
        for out in self.of_role("output"):
            assert out.definition is not None
            if out.definition.atoms(At):
                fields = self.fields | {out.name: replace(out, definition=longer(out.definition))}
                yield f"delays of {out.name} × 1.1", replace(self, fields=fields)
            for j, piece in enumerate(out.definition.as_ordered_terms()):
                for label, value in (("dropped", out.definition - piece), ("× 1.1", out.definition + piece / 10)):
                    fields = self.fields | {out.name: replace(out, definition=value)}
                    yield f"term {j + 1} of {out.name} {label}", replace(self, fields=fields)


def _printed(expr: Expr, names: dict[Symbol, Symbol]) -> Expr:
    """An expression with the printed names of the fields, those at earlier times as they stand."""
    earlier = {a: Symbol(f"{names[a.field].name}({a.time})") for a in expr.atoms(At) if a.field in names}
    return expr.xreplace(earlier).xreplace(names)


def bond_mutants(bond: Bond) -> Iterator[tuple[str, Bond]]:
    """Its rate or one drive × 1.1, a drive dropped."""
    yield "rate × 1.1", replace(bond, rate=bond.rate * 11 / 10)
    for k, (coef, u, v) in enumerate(bond.drives):
        rest = bond.drives[:k] + bond.drives[k + 1 :]
        yield f"drive {k + 1} dropped", replace(bond, drives=rest)
        yield f"drive {k + 1} × 1.1", replace(bond, drives=(*rest, (coef * 11 / 10, u, v)))


@dataclass(frozen=True)
class Declaration(Form):
    """Step 0: the declaration itself, printed back with explicit indices."""

    name: ClassVar[str] = "declaration"
    model: Model

    def lines(self) -> list[Line]:
        from quenched.theory.indices import indexed, indexed_latex

        inside = indexed_latex(self.model).splitlines()[1:-1]  # without the environment
        rows = [row.removesuffix(r" \\") for row in inside]
        return [Line(plain, tex) for plain, tex in zip(indexed(self.model), rows, strict=True)]


@dataclass(frozen=True)
class Lower(Rule):
    """Give every `J @ ψ` its local field and conjugate."""

    title: ClassVar[str] = "Copied action"
    assumption: ClassVar[str] = ""
    source: ClassVar[str] = "martin1973,dedominicis1978"

    def __call__(self, before: Form) -> CopiedAction:
        assert isinstance(before, Declaration)
        return lower(before.model)


def lower(model: Model) -> CopiedAction:
    """Lower a declared dynamics into its copied action.

    Raises
    ------
    NotCovered
        For constructs without a place in the action (finite populations, several copies in one expression).
    """
    copies = {x.each for x in model.eqs}
    sources = {q.population for q in model.quenched if not q.law.has_moments}
    for pop in model.populations:
        if pop.size is not None and pop not in copies | sources:
            raise NotCovered(
                f"population {pop.name!r} has a finite size: a mean-field limit needs fraction=, not size="
            )
    return _Lowering(model).run()


class _Lowering:
    """Collects fields, uses and laws while it rewrites right-hand sides."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.fields: dict[str, SiteField] = {}
        self.uses: list[Use] = []
        self.laws: dict[str, Law] = {}
        self.locals: dict[Expr, Symbol] = {}

    def run(self) -> CopiedAction:
        for fld, name in field_names(self.model).items():
            self.fields[name] = SiteField(name, "state", fld.population, fld)
        nodes = applications(self.model)
        self.stem = self._stem()
        given = {q.name for q in self.model.quenched if not q.law.has_moments}
        outputs = {
            (o.body, o.population): o.name if o.name in given else self._unused(o.name)
            for o in coupling_outputs(self.model)
        }
        for k, node in enumerate(nodes):
            label = self.stem if len(nodes) == 1 else f"{self.stem}_{k + 1}"
            self._couple(node, label, outputs[unbind(node.body), node.cols])
        bonds = tuple(self._bond(equation, outputs) for equation in bond_equations(self.model.bonds))
        names = field_names(self.model)
        equations = tuple((names[f], self._site(rhs, f)) for f, rhs in self.model.eqs.items())
        starts = tuple((names[f], self._site(start, f)) for f, start in self.model.starts.items())
        return CopiedAction(
            self.model.clock,
            self.fields,
            equations,
            tuple(self.uses),
            tuple(self.laws.values()),
            tuple(self.model.parameters),
            bonds=bonds,
            starts=starts,
            advance=S.One if self.model.dt is None else self.model.dt,
        )

    def _bond(self, equation: BondEquation, outputs: dict[tuple[Expr, Population], str]) -> Bond:
        """A dynamic coupling whose ends are outputs of its two units."""
        bond, drives = equation.bond, []
        for drive in equation.drives:
            ends = ((drive.left, bond.rows), (drive.right, bond.cols))
            for body, population in ends:
                self._output(outputs[body, population], body, population)
            drives.append((drive.coefficient, *(outputs[end] for end in ends)))
        return Bond(bond.name, bond.rows, bond.cols, equation.rate, tuple(drives))

    def _taken(self) -> set[str]:
        """Names that the declaration uses itself."""
        model = self.model
        units = (*model.fields, *model.quenched, *model.noises, *model.parameters, *model.matrices)
        return {u.name for u in units} | set(self.fields)

    def _stem(self) -> str:
        """Letter of the local fields: h, unless the declaration has a quantity of that name."""
        first = {name.split("_")[0] for name in self._taken()}
        return next((s for s in "hufyv" if s not in first), "h")

    def _unused(self, name: str) -> str:
        return name if name not in self._taken() else f"{name}_out"

    def _couple(self, node: Apply, label: str, output: str) -> None:
        matrix = node.matrix
        flipped = isinstance(matrix, Transpose)
        atom = matrix.args[0] if flipped else matrix
        if atom not in self.model.bonds:
            self.laws.setdefault(atom.name, law_of(atom))
        self._output(output, unbind(node.body), node.cols)
        hat = self._local(label, node.rows)
        self.locals[node] = self.fields[label].symbol
        self.locals[unbind(node)] = self.fields[label].symbol
        ends = (((hat, 0),), ((output, 0),))
        self.uses.append(Use(atom.name, -I, *(ends[::-1] if flipped else ends)))

    def _local(self, label: str, population: Population) -> str:
        """Make a local field and its conjugate; the name of the conjugate."""
        hat = "hat_" + label
        self.fields[label] = SiteField(label, "local", population, Symbol(label, real=True))
        self.fields[hat] = SiteField(hat, "hat", population, Symbol(rf"\hat{{{label[0]}}}" + label[1:], real=True))
        return hat

    def _output(self, name: str, body: Expr, population: Population) -> None:
        if name not in self.fields:
            definition = self._site(body, None)
            self.fields[name] = SiteField(name, "output", population, Symbol(name, real=True), definition)

    def _site(self, expr: Expr, owner: Field | None) -> Expr:
        """An expression of one site: couplings and means replaced by their local fields."""
        swap: dict[Expr, Expr] = {}
        for node in expr.atoms(Mean):
            swap[node] = self._mean(node, owner)
        outer = [n for n in expr.atoms(Apply)]
        swap |= {n: self.locals[n] for n in outer if n in self.locals}
        return expr.xreplace(swap)

    def _mean(self, node: Mean, owner: Field | None) -> Symbol:
        """A population mean inside an equation is the deterministic coupling 1/(fN)."""
        if owner is None:
            raise NotCovered(f"{node} inside a coupling or another mean: {FOLLOWED.format(node)}")
        body = unbind(node.body)
        count = sum(1 for law in self.laws if law.startswith("mean_")) + 1
        key = (node, owner.population)
        if key in self.locals:
            return self.locals[key]
        label, output, law = f"{self.stem}_m{count}", self._unused(f"psi_{count}"), f"mean_{count}"
        self._output(output, body, node.population)
        hat = self._local(label, owner.population)
        self.laws[law] = averaging_law(law, owner.population, node.population)
        self.uses.append(Use(law, -I, ((hat, 0),), ((output, 0),)))
        self.locals[key] = self.fields[label].symbol
        return self.fields[label].symbol
