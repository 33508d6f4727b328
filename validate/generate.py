"""Array code for a finite network, from the declaration alone.

The declared sympy right-hand sides are walked as they stand: every coupling, average and delayed field in them becomes
a named intermediate, the rest is elementwise array code. Nothing of the theory's lowering is used, so that the two
readings of a declaration are independent and can be held against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sympy import Basic, Expr, Symbol

from quenched.theory.algebra import Transpose
from quenched.theory.bonds import BondEquation, bond_equations, starts_of
from quenched.theory.couplings import Apply, Row
from quenched.theory.eigenvalue_observables import OfEigenvalues
from quenched.theory.errors import QuenchedError
from quenched.theory.fields import At, Field, Quenched, UnitSymbol, WhiteNoise
from quenched.theory.model import Model
from quenched.theory.observables import Functional, Growth, Mean
from quenched.theory.spaces import N, Population, t
from quenched.validate.chains import fused
from quenched.validate.emit import Line, Names, write
from quenched.validate.products import Word
from quenched.validate.program import Program
from quenched.validate.tangent import directional, has_jump, noise_kind

#: Name of the right-hand side whose tangents make the columns of a Jacobian.
LINEARISED = "linearised"
#: Nodes that are replaced as a whole by a named intermediate.
LEAVES = (Apply, Mean, At, UnitSymbol, Functional)


def leaves(expr: Basic) -> list[Basic]:
    """The outermost couplings, averages, delayed fields and unit quantities of an expression, in order."""
    if isinstance(expr, LEAVES):
        return [expr]
    found: dict[Basic, None] = {}
    for arg in expr.args:
        found |= dict.fromkeys(leaves(arg))
    return list(found)


def label(atom: Any) -> str:
    """Name of a random object, unique in a model: name, population and copy."""
    spaces = [atom.population] if isinstance(atom, UnitSymbol) else [atom.rows, atom.cols]
    text = atom.name + "".join(f"@{p.name}" for p in spaces if p.name != "units")
    copy = getattr(atom, "copy", None)
    return text if not isinstance(copy, int) else f"{text}[{copy}]"


@dataclass(frozen=True)
class Node:
    """An intermediate: what a coupling returns, or an average.

    `word` are the couplings that act on the body, the outermost first, and `scales` what multiplies the vector between
    factor k and the next one.
    """

    symbol: Symbol
    body: Expr
    population: Population
    word: Word = ()
    scales: Mapping[int, Expr] = field(default_factory=dict)
    transposed: bool = False
    fixed: bool = False
    bond: int | None = None


@dataclass
class Tables:
    """Positions of the declared quantities, common to all generated functions."""

    populations: list[Population]
    fields: list[Field]
    noises: list[WhiteNoise]
    quenched: list[Quenched]
    parameters: list[Symbol]
    matrices: list[Any]
    bonds: list[BondEquation] = field(default_factory=list)
    delays: list[Expr] = field(default_factory=list)
    buffers: list[tuple[int, bool]] = field(default_factory=list)
    products: list[Word] = field(default_factory=list)

    @classmethod
    def of(cls, model: Model) -> Tables:
        """The tables of a model, completed by what only observables and initial states mention."""
        extra: list[Basic] = [*model.observables.values()]
        extra += [f.initial for f in model.eqs if isinstance(f.initial, Expr)]
        quenched = _complete(model.quenched, extra, Quenched)
        matrices = list(model.matrices)
        for expr in extra:
            for node in sorted(expr.atoms(Apply), key=str):
                atom = _atom(node.matrix)
                if atom not in matrices and atom not in model.bonds:
                    matrices.append(atom)
        for atom in list(matrices):
            matrices += [other for other in getattr(atom, "correlation", {}) if other not in matrices]
        populations: dict[Population, None] = {f.population: None for f in model.eqs}
        populations |= dict.fromkeys(q.population for q in [*quenched, *model.noises])
        populations |= dict.fromkeys(p for m in matrices for p in (m.rows, m.cols))
        means = [m for e in [*model.eqs.values(), *extra] for m in e.atoms(Mean)]
        populations |= dict.fromkeys(sorted((m.population for m in means), key=lambda p: p.name))
        populations |= dict.fromkeys(p for bond in model.bonds for p in (bond.rows, bond.cols))
        parameters = [p for p in model.parameters if p != N]
        bonds = list(bond_equations(model.bonds))
        return cls(list(populations), list(model.eqs), list(model.noises), quenched, [*parameters, N], matrices, bonds)

    def bond(self, atom: Any) -> int | None:
        """Position of a dynamic coupling, None for other matrices."""
        return next((k for k, equation in enumerate(self.bonds) if equation.bond == atom), None)

    def space(self, population: Population) -> int:
        """Position of a population."""
        return self.populations.index(population)


def _complete(known: Iterable[Any], exprs: Iterable[Basic], kind: type) -> list[Any]:
    found = dict.fromkeys(known)
    for expr in exprs:
        found |= dict.fromkeys(sorted((a.free() for a in expr.atoms(kind)), key=str))
    return list(found)


def _atom(matrix: Any) -> Any:
    return matrix.args[0] if isinstance(matrix, Transpose) else matrix


class Lowering:
    """Turns declared expressions into elementwise ones over named intermediates, for one generated function.

    Attributes
    ----------
    nodes : intermediates in the order in which they can be computed
    used : declared quantity → its symbol here
    """

    def __init__(self, tables: Tables, names: Names, shift: bool = False) -> None:
        self.tables, self.names, self.shift = tables, names, shift
        self.nodes: list[Node] = []
        self.used: dict[Basic, Symbol] = {}

    def lower(self, expr: Expr) -> Expr:
        """The expression with its leaves replaced by symbols."""
        table = {leaf: self._symbol(leaf) for leaf in leaves(expr)}
        lowered = expr.xreplace(table)
        parameters = {p: self._parameter(p) for p in lowered.free_symbols if p in self.tables.parameters}
        return lowered.xreplace(parameters)

    def _parameter(self, parameter: Symbol) -> Symbol:
        if parameter not in self.used:
            self.used[parameter] = Symbol(self.names.new(parameter.name), **parameter.assumptions0)
        return self.used[parameter]

    def _symbol(self, leaf: Basic) -> Symbol:
        key = leaf.free() if isinstance(leaf, UnitSymbol) else leaf
        if isinstance(leaf, At):
            key = At(leaf.field.free(), leaf.time)
        if key not in self.used:
            self.used[key] = self._make(key)
        return self.used[key]

    def _make(self, leaf: Basic) -> Symbol:
        if isinstance(leaf, Field):
            self._demand(leaf, self.tables.fields, "a field of the model")
            return self._new(label(leaf))
        if isinstance(leaf, Quenched):
            self._demand(leaf, self.tables.quenched, "unit disorder of the model")
            return self._new(label(leaf))
        if isinstance(leaf, Row):
            if leaf.matrix not in self.tables.matrices:
                raise QuenchedError(f"{leaf} is a row of {leaf.matrix.name}, which no equation uses")
            return self._new(leaf.name)
        if isinstance(leaf, WhiteNoise):
            self._demand(leaf, self.tables.noises, "a noise of the model (noise is not observed)")
            return self._new(label(leaf))
        if isinstance(leaf, At):
            return self._past(leaf)
        if isinstance(leaf, Apply):
            return self._apply(leaf)
        if isinstance(leaf, Mean):
            body = self.lower(leaf.body)
            return self._add(Node(self._new("mean"), body, leaf.population))
        raise QuenchedError(f"{leaf} has no meaning inside the equations of a simulation")

    def _new(self, name: str) -> Symbol:
        return Symbol(self.names.new(name), real=True)

    def _demand(self, leaf: Any, known: list[Any], what: str) -> None:
        if leaf not in known:
            raise QuenchedError(f"{label(leaf)} is not {what}; there are {', '.join(map(label, known)) or 'none'}")

    def _past(self, leaf: At) -> Symbol:
        delay = t - leaf.time
        if delay.has(t) or not set(delay.free_symbols) <= set(self.tables.parameters):
            raise QuenchedError(f"{leaf}: expected a field at an earlier time, such as {leaf.field}(t - d)")
        self._demand(leaf.field, self.tables.fields, "a field of the model")
        if delay not in self.tables.delays:
            self.tables.delays.append(delay)
        return self._new(f"{label(leaf.field)}_past")

    def _apply(self, leaf: Apply) -> Symbol:
        atom = _atom(leaf.matrix)
        body = self.lower(leaf.body)
        turned, bond = isinstance(leaf.matrix, Transpose), self.tables.bond(atom)
        if bond is not None:
            return self._add(Node(self._new(f"h_{atom.name}"), body, leaf.cols, transposed=turned, bond=bond))
        fixed = atom.redraw is None and self._fixed(body)
        index = self.tables.matrices.index(atom)
        return self._add(Node(self._new(f"h_{atom.name}"), body, leaf.cols, ((index, turned),), fixed=fixed))

    def compose(self, others: Iterable[Expr]) -> None:
        """Make one intermediate of static couplings that follow each other, unless something reads what is between."""
        redrawn = {k for k, atom in enumerate(self.tables.matrices) if atom.redraw is not None}
        self.nodes = fused(self.nodes, others, self._fixed, redrawn)

    def _fixed(self, body: Expr) -> bool:
        """Whether a lowered expression never changes during a realisation."""
        still = {s for q, s in self.used.items() if q in self.tables.parameters}
        still |= {s for q, s in self.used.items() if isinstance(q, Quenched) and q.redraw is None}
        still |= {n.symbol for n in self.nodes if n.fixed}
        return body.free_symbols <= still

    def _add(self, node: Node) -> Symbol:
        self.nodes.append(node)
        return node.symbol


class Function:
    """Writes the body of one generated function: unpacking, intermediates, results."""

    def __init__(self, lowering: Lowering, tangent: bool) -> None:
        self.low, self.tables, self.moving = lowering, lowering.tables, tangent
        self.tangents: dict[Symbol, Symbol] = {}
        if tangent:
            moving = [s for q, s in lowering.used.items() if isinstance(q, (Field, At))]
            self.tangents = {s: Symbol(lowering.names.new(f"d_{s.name}"), real=True) for s in moving}
        self.derivatives: list[Expr] = []

    def d(self, expr: Expr) -> Expr:
        """Its directional derivative, remembered for the check of jumps."""
        out = directional(expr, self.tangents)
        self.derivatives.append(out)
        return out

    def unpack(self) -> list[str]:
        """Lines that name what the function uses of the state, the noise, the disorder and the parameters."""
        tables, out = self.tables, []
        for source, symbol in self.low.used.items():
            if source in tables.parameters:
                out.append(f"{symbol} = env.parameters[{tables.parameters.index(source)}]")
            elif isinstance(source, Row):
                out.append(f"{symbol} = env.row({tables.matrices.index(source.matrix)}, {source.index})")
            elif isinstance(source, Quenched):
                out.append(f"{symbol} = env.quenched[{tables.quenched.index(source)}]")
            elif isinstance(source, WhiteNoise):
                out.append(f"{symbol} = noise[{tables.noises.index(source)}]")
            elif isinstance(source, Field):
                out += self._rows("y", symbol, tables.fields.index(source))
            elif isinstance(source, At):
                past = f"env.past({tables.delays.index(t - source.time)}, stage)"
                out += self._rows(past, symbol, tables.fields.index(source.field))
        return sorted(out, key=lambda line: ("env.parameters" not in line, "env.quenched" not in line))

    def _rows(self, state: str, symbol: Symbol, position: int) -> list[str]:
        out = [f"{symbol} = {state}[:B, env.slices[{position}]]"]
        if symbol in self.tangents:
            out.append(f"{self.tangents[symbol]} = {state}[B:, env.slices[{position}]]")
        return out

    def intermediates(self) -> list[Line]:
        """Lines that compute couplings and averages, tangents beside them."""
        lines: list[Line] = []
        buffers: dict[tuple[Expr, int], tuple[str, bool]] = {}
        for node in self.low.nodes:
            if node.bond is not None:
                lines += self._bond(node)
            elif not node.word:
                lines += self._mean(node)
            elif node.fixed:
                ((matrix, transposed),) = node.word
                lines.append(Line(f"{node.symbol} = env.fixed({matrix}, {transposed}, {{}})", node.body))
            else:
                lines += self._coupling(node, buffers)
        return lines

    def _mean(self, node: Node) -> list[Line]:
        space = self.tables.space(node.population)
        lines = [Line(f"{node.symbol} = env.mean({{}}, {space})", node.body)]
        slope = self.d(node.body)
        if slope != 0:
            self.tangents[node.symbol] = tangent = Symbol(self.low.names.new(f"d_{node.symbol}"), real=True)
            lines.append(Line(f"{tangent} = env.mean({{}}, {space})", slope))
        return lines

    def _coupling(self, node: Node, buffers: dict[tuple[Expr, int], tuple[str, bool]]) -> list[Line]:
        """What the coupling reads goes into a buffer (one a function of one population), then one pass over J."""
        lines: list[Line] = []
        space = self.tables.space(node.population)
        key = (node.body, space)
        if key not in buffers:
            slope = self.d(node.body)
            name, number = self.low.names.new("psi"), len(self.tables.buffers)
            buffers[key] = name, slope != 0
            self.tables.buffers.append((space, slope != 0))
            lines += [Line(f"{name} = env.buffers[{number}]"), Line(f"{name}[:B] = {{}}", node.body)]
            if slope != 0:
                lines.append(Line(f"{name}[B:] = {{}}", slope))
        name, moving = buffers[key]
        product = self._product(node, name, lines)
        if not moving:
            return [*lines, Line(f"{node.symbol} = {product}")]
        self.tangents[node.symbol] = tangent = Symbol(self.low.names.new(f"d_{node.symbol}"), real=True)
        both = self.low.names.new(f"both_{node.symbol}")
        return [*lines, Line(f"{both} = {product}"), Line(f"{node.symbol}, {tangent} = {both}[:B], {both}[B:]")]

    def _product(self, node: Node, name: str, lines: list[Line]) -> str:
        """Source of a coupling, or of several in a row, applied to a buffer."""
        if len(node.word) == 1:
            ((matrix, transposed),) = node.word
            return f"env.multiply({matrix}, {transposed}, {name})"
        if node.word not in self.tables.products:
            self.tables.products.append(node.word)
        scales = {}
        for at, value in node.scales.items():
            scales[at] = self.low.names.new("scale")
            lines.append(Line(f"{scales[at]} = {{}}", value))
        between = ", {" + ", ".join(f"{k}: {v}" for k, v in scales.items()) + "}" if scales else ""
        return f"env.product({node.word}, {name}{between})"

    def _bond(self, node: Node) -> list[Line]:
        """A dynamic coupling: its own motion moves the result even where what it reads does not."""
        space, number = self.tables.space(node.population), len(self.tables.buffers)
        self.tables.buffers.append((space, self.moving))
        name = self.low.names.new("psi")
        lines = [Line(f"{name} = env.buffers[{number}]"), Line(f"{name}[:B] = {{}}", node.body)]
        product = f"env.through({node.bond}, {node.transposed}, stage, {name})"
        if not self.moving:
            return [*lines, Line(f"{node.symbol} = {product}")]
        lines.append(Line(f"{name}[B:] = {{}}", self.d(node.body)))
        self.tangents[node.symbol] = tangent = Symbol(self.low.names.new(f"d_{node.symbol}"), real=True)
        both = self.low.names.new(f"both_{node.symbol}")
        return [*lines, Line(f"{both} = {product}"), Line(f"{node.symbol}, {tangent} = {both}[:B], {both}[B:]")]

    def drives(self, rates: list[Expr], ends: list[list[tuple[Expr, Expr]]]) -> list[Line]:
        """Lines that note the rate and the drives of every dynamic coupling at this stage."""
        lines = []
        for k, (rate, pairs) in enumerate(zip(rates, ends, strict=True)):
            lines.append(Line(f"env.bonds[{k}].rates[stage] = {{}}", rate))
            for m, pair in enumerate(pairs):
                for side, expr in zip(("left", "right"), pair, strict=True):
                    lines.append(Line(f"env.bonds[{k}].{side}[stage, {m}, :B] = {{}}", expr))
                    if self.moving:
                        lines.append(Line(f"env.bonds[{k}].{side}[stage, {m}, B:] = {{}}", self.d(expr)))
        return lines


def _function(head: str, doc: list[str], body: Iterable[str]) -> str:
    text = [f"def {head}:", f'    """{doc[0]}', *(f"    {line}" for line in doc[1:]), '    """']
    return "\n".join([*text, *(f"    {line}" for line in body)])


@dataclass(frozen=True)
class Dynamics:
    """Source of the right-hand side and what is known about it."""

    source: str
    noise_kind: Any
    jump: bool
    autonomous: bool


def right_hand_side(model: Model, tables: Tables, tangent: bool, name: str = "rhs") -> Dynamics:
    """The function `name` that writes dy/dt (or the next state of a map), with tangents if asked for."""
    low = Lowering(tables, Names())
    results = [(f, low.lower(rhs)) for f, rhs in model.eqs.items()]
    rates = [low.lower(equation.rate) for equation in tables.bonds]
    ends = [[(low.lower(d.coefficient * d.left), low.lower(d.right)) for d in e.drives] for e in tables.bonds]
    low.compose([*(e for _, e in results), *rates, *(x for p in ends for pair in p for x in pair)])
    function = Function(low, tangent)
    lines = function.intermediates()
    for k, (_, expr) in enumerate(results):
        lines.append(Line(f"out[:B, env.slices[{k}]] = {{}}", expr))
        if tangent:
            lines.append(Line(f"out[B:, env.slices[{k}]] = {{}}", function.d(expr)))
    lines += function.drives(rates, ends)
    body = ["B = env.trajectories", *function.unpack(), *write(lines, low.names)]
    left = "d{0}/dt" if model.clock == "flow" else "{0}(t+1)"
    doc = ["Right-hand side of", "", *(f"{left.format(label(f))} = {rhs}" for f, rhs in model.eqs.items())]
    doc += ["", "Rows of y: trajectories" + (", then their tangent vectors." if tangent else ".")]
    bodies = [(n.symbol, n.body) for n in low.nodes] + [(None, e) for _, e in results]
    noises = {s for q, s in low.used.items() if isinstance(q, WhiteNoise)}
    moving = {s for q, s in low.used.items() if isinstance(q, (Field, At))}
    kind = noise_kind(bodies, noises, moving)
    autonomous = not any(
        e.has(t) for e in (*(body for _, body in bodies), *rates, *(x for p in ends for q in p for x in q))
    )
    source = _function(f"{name}(env, t, y, noise, stage, out)", [line.replace("\\", "\\\\") for line in doc], body)
    return Dynamics(source, kind, has_jump(function.derivatives), autonomous)


def recorded(channels: Mapping[Expr, Population | None], tables: Tables) -> str:
    """The function ``channels``: the recorded unit quantities at one time, as a list of arrays."""
    low = Lowering(tables, Names())
    results = [low.lower(expr) for expr in channels]
    function = Function(low, tangent=False)
    lines = function.intermediates()
    names = [low.names.new("channel") for _ in results]
    lines += [Line(f"{name} = {{}}", expr) for name, expr in zip(names, results, strict=True)]
    body = ["B = env.trajectories", "stage = 0", *function.unpack(), *write(lines, low.names)]
    body.append(f"return [{', '.join(names)}]")
    doc = ["Recorded unit quantities:", "", *(str(e) for e in channels)]
    return _function("channels(env, t, y)", doc, body)


def initial_state(model: Model, tables: Tables) -> str:
    """The function ``start``: writes the initial values that are given by expressions."""
    low = Lowering(tables, Names())
    given = [(k, f.initial) for k, f in enumerate(tables.fields) if isinstance(f.initial, Expr)]
    results = [(k, low.lower(value)) for k, value in given]
    function = Function(low, tangent=False)
    lines = function.intermediates()
    lines += [Line(f"y[:B, env.slices[{k}]] = {{}}", expr) for k, expr in results]
    body = ["B = env.trajectories", *function.unpack(), *write(lines, low.names)]
    return _function("start(env, t, y)", ["Initial values that are declared as expressions."], body)


def bond_starts(tables: Tables) -> str:
    """The function ``start_bonds``: what dynamic couplings start at, from the initial state of the units."""
    low = Lowering(tables, Names())
    found = [(k, d) for k, equation in enumerate(tables.bonds) for d in starts_of(equation.bond)]
    ends = [(k, low.lower(d.coefficient * d.left), low.lower(d.right)) for k, d in found]
    function = Function(low, tangent=False)
    lines = function.intermediates()
    for k, left, right in ends:
        names = low.names.new("left"), low.names.new("right")
        lines += [Line(f"{name} = {{}}", side) for name, side in zip(names, (left, right), strict=True)]
        lines.append(Line(f"env.bonds[{k}].start({names[0]}, {names[1]})"))
    body = ["B = env.trajectories", *function.unpack(), *write(lines, low.names)]
    return _function("start_bonds(env, t, y)", ["Initial values of dynamic couplings, where they are declared."], body)


def generate(model: Model, tangent: bool = True, standard: bool = True) -> tuple[Program, Tables, Any]:
    """Array code of a model and its observables (the standard ones too if asked for, or where no other is measured).

    Returns
    -------
    program : Program
        Plain data for the simulator.
    tables : Tables
        The declared objects behind the positions that the program uses.
    plan : validate.measured.Plan
        What is measured, and what is not and why.

    Raises
    ------
    QuenchedError
        Noise inside a nonlinearity of a flow, or an expression without numerical code.
    """
    from quenched.validate.measured import plan_measurements

    tables = Tables.of(model)
    dynamics = right_hand_side(model, tables, tangent)
    if dynamics.noise_kind == "nonlinear" and model.clock == "flow":
        raise QuenchedError("white noise inside a nonlinearity of a flow has no meaning: let it enter linearly")
    if dynamics.jump:
        tables.buffers.clear()
        tables.products.clear()
        dynamics = replace(right_hand_side(model, tables, False), jump=True)
    tangent = tangent and not dynamics.jump
    moving = None
    if any(e.atoms(OfEigenvalues, Growth) for e in model.observables.values()):
        moving = right_hand_side(model, tables, True, LINEARISED)
        dynamics = replace(dynamics, jump=dynamics.jump or moving.jump)
    plan = plan_measurements(model, tables, tangent, dynamics, standard)
    head = '"""Simulation generated from a declaration."""\n\nimport numpy as np\nfrom scipy import special'
    parts = [head, dynamics.source, recorded(plan.channels, tables), initial_state(model, tables), *plan.functions]
    if any(equation.bond.initial is not None for equation in tables.bonds):
        parts.append(bond_starts(tables))
    if moving is not None and (plan.spectral or plan.silent):
        parts.insert(2, moving.source)
    program = Program(
        source="\n\n\n".join(parts) + "\n",
        tangent=tangent,
        populations=tuple(p.name for p in tables.populations),
        fields=tuple((label(f), tables.space(f.population)) for f in tables.fields),
        noises=tuple((label(x), tables.space(x.population)) for x in tables.noises),
        quenched=tuple((label(q), tables.space(q.population)) for q in tables.quenched),
        parameters=tuple(p.name for p in tables.parameters),
        matrices=tuple(label(m) for m in tables.matrices),
        bonds=tuple(
            (label(e.bond), tables.space(e.bond.rows), tables.space(e.bond.cols), len(e.drives)) for e in tables.bonds
        ),
        buffers=tuple(tables.buffers),
        products=tuple(tables.products),
        silent=plan.silent,
        channels=tuple(-1 if p is None else tables.space(p) for p in plan.channels.values()),
        autonomous=dynamics.autonomous and plan.autonomous,
        noise_kind=dynamics.noise_kind,
    )
    return program, tables, plan


__all__ = ["Dynamics", "Function", "Lowering", "Node", "Tables", "generate", "label", "leaves"]
