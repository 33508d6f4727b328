"""Source code of a measure's factors: scalar functions for compiled sweeps, array functions for what is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sympy import Basic, Expr, Function, Heaviside, Mul, Symbol, exp, expand_log, log

from quenched.theory.couplings import Apply, Row, Transpose
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, Quenched, UnitSymbol, unbind
from quenched.theory.landscape import Height, Landscape
from quenched.theory.observables import Functional, Mean
from quenched.theory.spaces import N
from quenched.validate.emit import ArrayPrinter, array_code


class log_step(Function):
    """ln of a step: 0 above 0, −∞ below."""

    is_extended_real = True


class log_safe(Function):
    """ln of a number that may be zero."""

    is_extended_real = True


class ScalarPrinter(ArrayPrinter):
    """Source that numba compiles, every operand one number."""

    def _print_Heaviside(self, expr: Any) -> str:
        middle = float(expr.args[1]) if len(expr.args) > 1 else 0.5
        return f"step({self._print(expr.args[0])}, {middle!r})"

    def _print_log_step(self, expr: Any) -> str:
        return f"log_step({self._print(expr.args[0])})"

    def _print_log_safe(self, expr: Any) -> str:
        return f"log_safe({self._print(expr.args[0])})"

    def _print_Piecewise(self, expr: Any) -> str:
        text = "np.nan"
        for value, condition in reversed(expr.args):
            shown = self._print(value)
            text = shown if condition == True else f"({shown} if {self._print(condition)} else {text})"  # noqa: E712
        return text

    def _print_And(self, expr: Any) -> str:
        return "(" + " and ".join(self._print(a) for a in expr.args) + ")"

    def _print_Or(self, expr: Any) -> str:
        return "(" + " or ".join(self._print(a) for a in expr.args) + ")"

    def _print_erf(self, expr: Any) -> str:
        return f"math.erf({self._print(expr.args[0])})"

    def _print_erfc(self, expr: Any) -> str:
        return f"math.erfc({self._print(expr.args[0])})"


def scalar_code(expr: Expr) -> str:
    """One expression as scalar source."""
    try:
        return str(ScalarPrinter().doprint(expr))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotCovered(f"no numerical code for {expr}: {reason}") from error


def log_of(factor: Expr) -> Expr:
    """ln of a weight, −∞ where it vanishes, exponentials taken apart."""
    total: Expr = factor * 0
    for part in Mul.make_args(factor):
        base, power = part.as_base_exp()
        if isinstance(part, exp):
            total += part.args[0]
        elif isinstance(base, Heaviside) and power.is_positive:
            total += power * log_step(base.args[0])
        elif part.is_positive:
            total += expand_log(log(part), force=True)
        else:
            total += log_safe(part)
    return total


def outer(expr: Basic) -> list[Any]:
    """The outermost couplings, means, functionals and unit quantities of an expression, in order."""
    if isinstance(expr, (Apply, Mean, Height, UnitSymbol, Functional)):
        return [expr]
    found: dict[Any, None] = {}
    for arg in expr.args:
        found |= dict.fromkeys(outer(arg))
    return list(found)


def depends(expr: Basic) -> bool:
    """Whether an expression depends on the state."""
    return any(
        isinstance(node, (Field, Height)) or (isinstance(node, (Apply, Mean)) and depends(node.body))
        for node in outer(expr)
    )


def without_copy(expr: Expr) -> Expr:
    """The expression with every field taken in the system itself."""
    swap = {leaf: leaf._with(copy=None) for leaf in outer(expr) if isinstance(leaf, Field)}
    for node in outer(expr):
        if isinstance(node, Apply):
            swap[node] = Apply(node.matrix, without_copy(node.body))
    return expr.xreplace(swap)


class ArrayWriter:
    """Array functions of a state: lines of source for the couplings in an expression, then the expression.

    The functions see `x` (one array (…, units) a field), and `env` with labels, constants, parameters and couplings.
    """

    def __init__(self, fields: Sequence[Field], labels: Sequence[UnitSymbol], parameters: Sequence[Symbol]) -> None:
        self.fields, self.labels, self.parameters = list(fields), list(labels), [*parameters, N]
        self.matrices: list[Any] = []
        self.functions: list[Landscape] = []
        self.constants: list[tuple[Expr, str]] = []

    def matrix(self, atom: Any) -> int:
        """Position of a random matrix among those that are drawn."""
        if atom not in self.matrices:
            self.matrices.append(atom)
        return self.matrices.index(atom)

    def factor(self, node: Apply) -> tuple[int, bool]:
        """(matrix, transposed) of a coupling."""
        flipped = isinstance(node.matrix, Transpose)
        return self.matrix(node.matrix.matrix if flipped else node.matrix), flipped

    def function(self, name: str, expr: Expr) -> str:
        """Source of ``name(env, x)``."""
        lines: list[str] = []
        result = self._code(expr, lines, {})
        return "\n".join([f"def {name}(env, x):", *(f"    {line}" for line in lines), f"    return {result}"])

    def _code(self, expr: Expr, lines: list[str], known: dict[Any, Symbol]) -> str:
        swap: dict[Any, Symbol] = {p: Symbol(f"P{k}") for k, p in enumerate(self.parameters)}
        for node in outer(expr):
            swap[node] = self._leaf(node, lines, known)
        code = array_code(expr.xreplace(swap))
        for k in range(len(self.parameters)):
            code = _replaced(code, f"P{k}", f"env.p[{k}]")
        for k in range(len(self.fields)):
            code = _replaced(code, f"X{k}", f"x[{k}]")
        for k in range(len(self.labels)):
            code = _replaced(code, f"L{k}", f"env.labels[{k}]")
        return code

    def _leaf(self, node: Any, lines: list[str], known: dict[Any, Symbol]) -> Symbol:
        if isinstance(node, Field):
            return Symbol(f"X{self.fields.index(node.free()._with(copy=None))}")
        if isinstance(node, (Quenched, Row)):
            return Symbol(f"L{self.labels.index(node.free())}")
        if not isinstance(node, (Apply, Mean, Height)):
            raise NotCovered(f"{node} has no value in one state of a measure")
        if isinstance(node, Height) and node not in known:
            known[node] = Symbol(f"a{len(known)}")
            where = f"{self.functions.index(node.landscape)}, x[{self.fields.index(node.field._with(copy=None))}]"
            lines.append(f"{known[node]} = env.height({where})")
        if node not in known:
            body = self._code(unbind(node.body), lines, known)
            known[node] = Symbol(f"a{len(known)}")
            if isinstance(node, Apply):
                matrix, flipped = self.factor(node)
                lines.append(f"{known[node]} = env.apply({matrix}, {flipped}, {body})")
            else:
                size = f"env.sizes[{node.population.name!r}]"
                lines.append(f"{known[node]} = env.average({body}, {size})")
        return known[node]


def _replaced(code: str, name: str, by: str) -> str:
    import re

    return re.sub(rf"\b{name}\b", by, code)


def scalar_function(name: str, arguments: str, cases: Iterable[tuple[str, Expr, dict[Any, str]]]) -> str:
    """Source of a function that returns, in the first case whose condition holds, the value of its expression."""
    lines = [f"def {name}({arguments}):"]
    for condition, expr, names in cases:
        swap = {leaf: Symbol(f"V{k}", real=True) for k, leaf in enumerate(names)}
        code = scalar_code(expr.xreplace(swap))
        for k, text in enumerate(names.values()):
            code = _replaced(code, f"V{k}", text)
        lines += [f"    if {condition}:", f"        return {code}"]
    return "\n".join([*lines, "    return 0.0"])


__all__ = ["ArrayWriter", "depends", "log_of", "outer", "scalar_code", "scalar_function", "without_copy"]
