"""What is measured of a measure: means over units of thermal averages, named functionals, and formulas in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sympy import Add, Expr, Integer, Mul, S, Symbol

from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, unbind
from quenched.theory.landscape import Height
from quenched.theory.observables import Functional, Mean, SpinGlassSusceptibility
from quenched.validate.emit import array_code
from quenched.validate.gibbs_code import outer, without_copy
from quenched.validate.message_threshold import is_threshold

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs
    from quenched.validate.gibbs_program import ProgramWriter


@dataclass(frozen=True)
class Product:
    """Mean over units of Π_copies ⟨factor⟩, each factor averaged over the measure by itself.

    ``factors`` are array functions of one state; copies of the system are independent given the disorder. ``copies``
    says which copy each factor is of, where copies start from states of their own.
    """

    population: str
    factors: tuple[str, ...]
    copies: tuple[int, ...] = ()


@dataclass(frozen=True)
class Node:
    """Something that is measured: a sum of products, or a named functional of the measure with its parameter."""

    products: tuple[Product, ...] = ()
    functional: str = ""
    parameter: str = ""


@dataclass
class Measured:
    """Nodes, and observables as functions ``o_k(env, v)`` of their values.

    Attributes
    ----------
    nodes : in the order of ``v``
    formulas : name → name of its function
    used : name → positions of the nodes that it needs
    unmeasured : name → reason
    """

    nodes: list[Node] = field(default_factory=list)
    formulas: dict[str, str] = field(default_factory=dict)
    used: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)


def measured(model: Gibbs, writer: ProgramWriter) -> Measured:
    """The declared observables of a measure, and its standard ones where none is declared."""
    out = Measured()
    for name, expr in (model.observables or standard(model)).items():
        try:
            _observable(out, writer, name, expr)
        except NotCovered as stop:
            out.unmeasured[name] = str(stop)
    return out


def standard(model: Gibbs) -> dict[str, Expr]:
    """Mean, overlap and second moment of every field, under the names of the theory."""
    found: dict[str, Expr] = {}
    for f in model.fields:
        tag = "" if len(model.fields) == 1 else f"_{f.name}"
        found |= {
            f"m{tag}": Mean(f, f.population),
            f"q{tag}": Mean(f[1] * f[2], f.population),
            f"Q{tag}": Mean(f**2, f.population),
        }
    return found


def _observable(out: Measured, writer: ProgramWriter, name: str, expr: Expr) -> None:
    leaves = [n for n in outer(expr) if isinstance(n, (Mean, Height, Functional))]
    positions = [_place(out, _node(writer, leaf)) for leaf in leaves]
    swap: dict[Any, Symbol] = {leaf: Symbol(f"V{k}", real=True) for k, leaf in enumerate(leaves)}
    swap |= {p: Symbol(f"P{k}", real=True) for k, p in enumerate(writer.writer.parameters)}
    code = array_code(expr.xreplace(swap))
    for k, position in enumerate(positions):
        code = _word(code, f"V{k}", f"v[{position}]")
    for k in range(len(writer.writer.parameters)):
        code = _word(code, f"P{k}", f"env.p[{k}]")
    function = f"o_{len(out.formulas)}"
    writer.sources[function] = f"def {function}(env, v):\n    return {code}"
    out.formulas[name], out.used[name] = function, tuple(positions)


def _word(code: str, name: str, by: str) -> str:
    import re

    return re.sub(rf"\b{name}\b", by, code)


def _place(out: Measured, node: Node) -> int:
    if node not in out.nodes:
        out.nodes.append(node)
    return out.nodes.index(node)


def _node(writer: ProgramWriter, leaf: Any) -> Node:
    if isinstance(leaf, SpinGlassSusceptibility):
        return Node(functional=type(leaf).__name__, parameter=leaf.field.name)
    if is_threshold(leaf):
        return Node(functional="Threshold", parameter=str(leaf.parameter))
    if isinstance(leaf, Functional):
        parameter = str(leaf.args[0]) if leaf.args else ""
        return Node(functional=type(leaf).__name__, parameter=parameter)
    if isinstance(leaf, Height):  # the same for every unit
        return Node((Product(leaf.population.name, (writer.function(without_copy(leaf), "e"),)),))
    body = unbind(leaf.body)
    return Node(tuple(_products(writer, body, leaf.population.name)))


def _products(writer: ProgramWriter, body: Expr, population: str) -> Iterator[Product]:
    """A body as a sum of products of functions of one copy each."""
    own = writer.model.starts
    if len(_copies(body)) <= 1:
        which = tuple(max(k or 0, 1) - 1 for k in _copies(body)) if own else ()
        yield Product(population, (writer.function(without_copy(body), "e"),), which)
        return
    for term in Add.make_args(body.expand()):
        groups: dict[int | None, Expr] = {}
        for factor in Mul.make_args(term):
            copies = _copies(factor)
            if len(copies) > 1:
                raise NotCovered(f"{factor} mixes copies of the system inside a function: write a polynomial in them")
            key = copies.pop() if copies else None
            groups[key] = groups.get(key, S.One) * factor
        constant = groups.pop(None, Integer(1))
        bodies = list(groups.values()) or [Integer(1)]
        bodies[0] = bodies[0] * constant
        which = tuple(max(k or 0, 1) - 1 for k in groups) if own else ()
        yield Product(population, tuple(writer.function(without_copy(b), "e") for b in bodies), which)


def _copies(expr: Expr) -> set[int | None]:
    """Copies of the system that an expression reads (None, the system itself, counts as copy 0)."""
    found: set[int | None] = set()
    for node in outer(expr):
        if isinstance(node, Field):
            found.add(node.copy or 0)
        elif hasattr(node, "body"):
            found |= _copies(unbind(node.body))
    return found
