"""Expressions that a user types on the command line, read without evaluating any code."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from quenched.theory.errors import QuenchedError, nearest

if TYPE_CHECKING:
    from sympy import Expr

    from quenched.theory.distributions import Law

_FUNCTIONS = (
    *("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan"),
    *("asinh", "acosh", "atanh", "erf", "erfc", "Heaviside", "sign", "Abs", "Max", "Min"),
)
_LAWS = (
    *("Bernoulli", "Discrete", "Empirical", "Exponential", "HalfNormal", "Ising", "Laplace", "Normal", "SpikeSlab"),
    *("Uniform", "Box", "Flat", "Positive", "Spherical"),
)
#: Powers beyond this are a slip, and would take for ever to write out.
_LARGEST_EXPONENT = 1000


@cache
def _functions() -> dict[str, Any]:
    """Functions that may be called, by name."""
    import sympy

    return {name: getattr(sympy, name) for name in _FUNCTIONS} | {"abs": sympy.Abs, "max": sympy.Max, "min": sympy.Min}


def parse(text: str) -> Expr:
    """The sympy expression that `text` writes; every unknown name becomes a real symbol.

    Numbers are exact (``0.1`` is 1/10), so that the derivation stays exact.

    Raises
    ------
    QuenchedError
        If the text is not an expression of numbers, names, ``+ - * / **`` and known functions.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise QuenchedError(f"cannot read {text!r} as an expression: {getattr(error, 'msg', error)}") from None
    return _build(tree.body, text)


def _build(node: ast.expr, text: str) -> Expr:
    """The expression of one node of the syntax tree."""
    import sympy

    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return sympy.Rational(str(value))
        case ast.Name(id="pi"):
            return sympy.pi
        case ast.Name(id=name) if name in _functions():
            raise QuenchedError(f"{name} in {text!r} needs an argument, as in {name}(x)")
        case ast.Name(id=name):
            return sympy.Symbol(name, real=True)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_build(operand, text)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _build(operand, text)
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _build(left, text), _build(right, text), text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _call(name, [_build(arg, text) for arg in args], text)
    what = ast.unparse(node)
    raise QuenchedError(f"cannot read {what!r} in {text!r}: expected numbers, names, + - * / ** and functions")


def _binary(op: ast.operator, left: Expr, right: Expr, text: str) -> Expr:
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div() if right == 0:
            raise QuenchedError(f"division by zero in {text!r}")
        case ast.Div():
            return left / right
        case ast.Pow() if right.is_number and abs(right) > _LARGEST_EXPONENT:
            raise QuenchedError(f"the exponent in {text!r} is larger than {_LARGEST_EXPONENT}")
        case ast.Pow():
            return left**right
        case ast.BitXor():
            raise QuenchedError(f"'^' in {text!r} is not a power: write **")
    raise QuenchedError(f"an operator in {text!r} is none of + - * / **")


def _call(name: str, args: list[Expr], text: str) -> Expr:
    if name not in _functions():
        raise QuenchedError(f"unknown function {name!r} in {text!r}: {nearest(name, [*_functions(), *_LAWS])}")
    try:
        result: Expr = _functions()[name](*args)
    except TypeError:
        raise QuenchedError(f"{name} in {text!r} got {len(args)} arguments") from None
    return result


def number(text: str) -> int | float:
    """The finite real number that `text` writes, ``sqrt(2)/3`` say."""
    value = parse(text)
    if value.free_symbols:
        unknown = ", ".join(sorted(str(s) for s in value.free_symbols))
        raise QuenchedError(f"expected a number, got {text!r} ({unknown} has no value)")
    if not (value.is_real and value.is_finite):
        raise QuenchedError(f"expected a finite real number, got {text!r}")
    return int(value) if value.is_Integer else float(value)


@cache
def _laws() -> dict[str, Any]:
    """Laws of one number, by name."""
    from quenched import theory

    return {name: getattr(theory, name) for name in _LAWS}


def law(text: str) -> Law | None:
    """The law that `text` writes, ``Positive(Normal(0, 1))`` or ``Discrete({-1: 1/4, 1: 3/4})`` say; else None."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return None
    return _law(tree.body, text)


def _law(node: ast.expr, text: str) -> Law | None:
    from quenched.theory.distributions import Law

    match node:
        case ast.Name(id=name) if name in _laws():
            node = ast.Call(ast.Name(name), [], [])
        case ast.Call(func=ast.Name(id=name)) if name in _laws():
            pass
        case _:
            return None
    args = [_law_argument(arg, text) for arg in node.args]
    keywords = {str(k.arg): _law_argument(k.value, text) for k in node.keywords}
    try:
        found = _laws()[name](*args, **keywords)
    except QuenchedError:
        raise
    except (TypeError, ValueError):
        raise QuenchedError(f"{name} in {text!r} got arguments that it does not take") from None
    assert isinstance(found, Law)
    return found


def _law_argument(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_build(k, text): _build(v, text) for k, v in zip(keys, values, strict=True) if k is not None}
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_build(part, text) for part in parts]
    return _law(node, text) or _build(node, text)


def function_or_number(text: str) -> Callable[[Any], Expr] | Law | int | float:
    """A function of one variable (``tanh``, ``erf(sqrt(pi)*x/2)``, ``y/sqrt(1+y**2)``), a law, or a number."""
    text = text.strip()
    written = law(text)
    if written is not None:
        return written
    if text in _functions():
        function: Callable[[Any], Expr] = _functions()[text]
        return function
    body = parse(text)
    variables = sorted(body.free_symbols, key=str)
    if not variables:
        return number(text)
    if len(variables) > 1:
        names = ", ".join(map(str, variables))
        raise QuenchedError(f"expected an expression in one variable, {text!r} has {len(variables)}: {names}")
    variable = variables[0]
    return lambda argument: body.xreplace({variable: argument})
