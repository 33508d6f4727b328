"""Printing of formulas: plain text for terminals, LaTeX for papers and notebooks."""

from __future__ import annotations

from sympy import Expr, Symbol
from sympy import latex as sympy_latex
from sympy.printing.str import StrPrinter

from quenched.theory.record import Line

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ", "kappa": "κ",
    "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ",
    "chi": "χ", "psi": "ψ", "omega": "ω", "Delta": "Δ", "Phi": "Φ", "Psi": "Ψ",
}  # fmt: skip


def symbol_text(name: str) -> str:
    """A symbol's name with Greek letters and hats in unicode."""
    if name.startswith(r"\hat{"):
        inner, rest = name[5:].split("}", 1)
        return f"{inner}̂{rest}"
    bare = name.rstrip("'")
    stem, sep, index = bare.partition("_")
    return GREEK.get(stem, stem) + sep + GREEK.get(index, index) + "'" * (len(name) - len(bare))


class TextPrinter(StrPrinter):
    """sympy's string printer with ·, ² and Greek letters."""

    def _print_Symbol(self, expr: Symbol) -> str:
        return symbol_text(expr.name)

    def _print_ImaginaryUnit(self, expr: object) -> str:
        return "i"

    def _print_Field(self, expr: Symbol) -> str:
        return symbol_text(expr.name)


_POWERS = {"**2": "²", "**3": "³", "**4": "⁴"}


def text(expr: object) -> str:
    """One line of unicode."""
    out = TextPrinter().doprint(expr)
    for raw, nice in _POWERS.items():
        out = out.replace(raw + "0", raw + "\0").replace(raw, nice).replace(nice + "\0", raw + "0")
    return out.replace("*", "·").replace("··", "**")


def latex(expr: object) -> str:
    """LaTeX with the user's own names; adjoint operators G† get a dagger."""
    marked = [s for s in getattr(expr, "free_symbols", ()) if s.name.endswith("†")]
    names = {s: sympy_latex(Symbol(s.name.removesuffix("†"))) + r"^{\dagger}" for s in marked}
    return str(sympy_latex(expr, symbol_names=names))


def equation_line(lhs: object, rhs: object, comment: str = "") -> Line:
    """The line ``lhs = rhs`` in both notations."""
    return Line(f"{text(lhs)} = {text(rhs)}", f"{latex(lhs)} = {latex(rhs)}", comment)


def signed_sum(pieces: list[tuple[Expr, str, str]]) -> tuple[str, str]:
    """Print Σ coef·name from (coef, text, latex) triples, with tidy signs."""
    plain, tex = "", ""
    for coef, name, name_tex in pieces:
        minus = coef.could_extract_minus_sign()
        size = -coef if minus else coef
        sign = " − " if minus else " + "
        factor, factor_tex = ("", "") if size == 1 else (_wrap(size, text) + "·", _wrap(size, latex) + r" ")
        plain += (sign if plain else sign.strip().replace("+", "")) + factor + name
        tex += ((" - " if minus else " + ") if tex else ("-" if minus else "")) + factor_tex + name_tex
    return (plain or "0", tex or "0")


def _wrap(expr: Expr, show: object) -> str:
    body = show(expr)  # type: ignore[operator]
    if not expr.is_Add:
        return str(body)
    return f"({body})" if show is text else rf"\left({body}\right)"
