"""From lowered expressions to readable numpy source."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sympy import DiracDelta, Expr, Integer, Symbol, cse
from sympy.printing.numpy import SciPyPrinter

from quenched.theory.errors import QuenchedError

RESERVED = frozenset({"env", "t", "y", "noise", "stage", "out", "np", "special", "B", "m", "lyapunov"})


class Names:
    """Gives every symbol one identifier, close to its declared name."""

    def __init__(self) -> None:
        self._taken: set[str] = set(RESERVED)

    def new(self, wanted: str) -> str:
        """A fresh identifier like `wanted`."""
        base = re.sub(r"\W", "_", wanted) or "v"
        if base[0].isdigit() or keyword.iskeyword(base):
            base = "v_" + base
        name, k = base, 2
        while name in self._taken:
            name, k = f"{base}_{k}", k + 1
        self._taken.add(name)
        return name

    def temporaries(self) -> Iterator[Symbol]:
        """Endless fresh names for common subexpressions."""
        k = 0
        while True:
            yield Symbol(self.new(f"c{k}"), real=True)
            k += 1


class ArrayPrinter(SciPyPrinter):
    """numpy source in which every operand may be an array or a number."""

    def __init__(self) -> None:
        super().__init__({"fully_qualified_modules": True, "inline": True, "allow_unknown_functions": False})

    def _module_format(self, fqn: str, register: bool = True) -> str:
        return fqn.replace("numpy.", "np.").replace("scipy.special.", "special.")

    def _print_Pi(self, expr: Any) -> str:
        return "np.pi"

    def _print_GoldenRatio(self, expr: Any) -> str:
        return repr(float(expr))

    def _fold(self, function: str, args: Sequence[Any]) -> str:
        text: str = self._print(args[-1])
        for arg in reversed(args[:-1]):
            text = f"np.{function}({self._print(arg)}, {text})"
        return text

    def _print_Max(self, expr: Any) -> str:
        return self._fold("maximum", expr.args)

    def _print_Min(self, expr: Any) -> str:
        return self._fold("minimum", expr.args)

    def _print_And(self, expr: Any) -> str:
        return self._fold("logical_and", expr.args)

    def _print_Or(self, expr: Any) -> str:
        return self._fold("logical_or", expr.args)

    def _print_Heaviside(self, expr: Any) -> str:
        middle = expr.args[1] if len(expr.args) > 1 else Integer(1) / 2
        return f"np.heaviside({self._print(expr.args[0])}, {float(middle)!r})"

    def _print_Piecewise(self, expr: Any) -> str:
        text = "np.nan"
        for value, condition in reversed(expr.args):
            value_text = self._print(value)
            text = value_text if condition == True else f"np.where({self._print(condition)}, {value_text}, {text})"  # noqa: E712
        return text

    def _print_Pow(self, expr: Any, rational: bool = False) -> str:
        base, power = expr.args
        if base.is_Symbol and power in (3, 4):
            return "(" + "*".join([self._print(base)] * int(power)) + ")"
        text: str = super()._print_Pow(expr, rational)
        return text


def array_code(expr: Expr) -> str:
    """One expression as numpy source; almost-everywhere derivatives (a Dirac delta counts as zero)."""
    expr = expr.replace(DiracDelta, lambda *a: Integer(0))
    try:
        return str(ArrayPrinter().doprint(expr))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QuenchedError(f"no numerical code for {expr}: {reason}") from error


@dataclass
class Line:
    """A line of source: `template` with ``{}`` for the expression, if it has one."""

    template: str
    expr: Expr | None = None


def write(lines: Sequence[Line], names: Names) -> list[str]:
    """Source of the lines in order, with common subexpressions named just before their first use."""
    exprs = [line.expr for line in lines if line.expr is not None]
    temps, reduced = cse(exprs, symbols=names.temporaries(), order="canonical")
    table, written, out = dict(temps), set[Symbol](), list[str]()

    def define(expr: Expr) -> None:
        for symbol in sorted(expr.free_symbols & table.keys(), key=str):
            if symbol not in written:
                written.add(symbol)
                define(table[symbol])
                out.append(f"{symbol} = {array_code(table[symbol])}")

    remaining = iter(reduced)
    for line in lines:
        if line.expr is None:
            out.append(line.template)
            continue
        expr = next(remaining)
        define(expr)
        out.append(line.template.format(array_code(expr)))
    return out
