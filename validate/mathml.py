"""LaTeX formulas as MathML, so that a report renders in any browser without a network.

Covers the notation that derivations print: fractions, roots, scripts, primes, accents, stretchy brackets, Greek
letters, big operators, text, matrices and cases. An unknown command is shown by its name, never dropped.
"""

from __future__ import annotations

import re
from html import escape

_TOKEN = re.compile(r"\\[a-zA-Z]+\*?|\\.|[{}^_&']|\d+(?:\.\d+)?|\s+|.", re.DOTALL)

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ϵ", "varepsilon": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "vartheta": "ϑ", "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π",
    "rho": "ρ", "varrho": "ϱ", "sigma": "σ", "tau": "τ", "upsilon": "υ", "phi": "ϕ", "varphi": "φ", "chi": "χ",
    "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π",
    "Sigma": "Σ", "Upsilon": "Υ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω", "partial": "∂", "infty": "∞", "ell": "ℓ",
    "hbar": "ℏ", "nabla": "∇", "Re": "ℜ", "Im": "ℑ", "emptyset": "∅", "top": "⊤", "dagger": "†",
}  # fmt: skip
_OPERATORS = {
    "cdot": "⋅", "times": "×", "pm": "±", "mp": "∓", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "neq": "≠",
    "ne": "≠", "approx": "≈", "sim": "∼", "simeq": "≃", "propto": "∝", "equiv": "≡", "to": "→", "rightarrow": "→",
    "mapsto": "↦", "leftarrow": "←", "Rightarrow": "⇒", "in": "∈", "ni": "∋", "notin": "∉", "cup": "∪",
    "cap": "∩", "wedge": "∧", "vee": "∨", "circ": "∘", "ast": "∗", "star": "⋆", "odot": "⊙", "otimes": "⊗",
    "oplus": "⊕", "ll": "≪", "gg": "≫", "mid": "∣", "ldots": "…", "dots": "…", "cdots": "⋯", "forall": "∀",
    "exists": "∃", "neg": "¬", "land": "∧", "lor": "∨", "colon": ":", "prime": "′",
}  # fmt: skip
_FENCES = {
    "langle": "⟨", "rangle": "⟩", "lvert": "|", "rvert": "|", "vert": "|", "lVert": "‖", "rVert": "‖", "Vert": "‖",
    "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "lbrace": "{", "rbrace": "}", "lbrack": "[",
    "rbrack": "]", "{": "{", "}": "}", "|": "‖",
}  # fmt: skip
_BIG = {"sum": "∑", "prod": "∏", "int": "∫", "iint": "∬", "oint": "∮"}
_LIMITS = {"lim", "max", "min", "sup", "inf", "limsup", "liminf"}
_FUNCTIONS = _LIMITS | {
    "log", "ln", "exp", "sin", "cos", "tan", "sinh", "cosh", "tanh", "coth", "arctan", "arcsin", "arccos", "atan",
    "asin", "acos", "sign", "erf", "erfc", "det", "tr", "Tr", "dim", "arg",
}  # fmt: skip
_ACCENTS = {
    "hat": "^", "widehat": "^", "tilde": "~", "widetilde": "~", "bar": "¯", "overline": "¯", "dot": "˙", "ddot": "¨",
    "vec": "→", "check": "ˇ",
}  # fmt: skip
_SPACES = {",": ".17", ":": ".22", ";": ".28", " ": ".28", "quad": "1", "qquad": "2", "!": "-.17"}
_SKIPPED = {"displaystyle", "textstyle", "limits", "nolimits", "nonumber", "big", "Big", "bigg", "Bigg", "bigl", "bigr"}
_WORDS = {
    "text",
    "mathrm",
    "operatorname",
    "textrm",
    "mathit",
    "mathsf",
    "mbox",
    "textbf",
    "mathtt",
    "texttt",
    "operatorname*",
}
_FENCED = {
    "pmatrix": "()",
    "bmatrix": "[]",
    "matrix": "  ",
    "cases": "{ ",
    "aligned": "  ",
    "array": "  ",
    "smallmatrix": "  ",
}


def mathml(latex: str, *, block: bool = True) -> str:
    """A formula as a ``<math>`` element.

    Parameters
    ----------
    latex : str
        Without surrounding dollar signs.
    block : bool
        Displayed on its own line, or inline.
    """
    display = "block" if block else "inline"
    body = _Parser(latex).row()
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="{display}">{body}</math>'


class _Parser:
    """Recursive descent over LaTeX tokens; every method returns MathML."""

    def __init__(self, latex: str) -> None:
        self.tokens = _TOKEN.findall(latex)  # spaces stay: they matter inside \text{…}
        self.at = 0

    # -- tokens -------------------------------------------------------------------------------------------------------
    def peek(self) -> str:
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    # -- grammar ------------------------------------------------------------------------------------------------------
    def row(self, *stops: str) -> str:
        """Everything up to one of the stop tokens (not consumed) or the end."""
        parts: list[str] = []
        while (token := self.peek()) and token not in stops:
            if token == "}":  # unbalanced: show it rather than fail
                self.next()
                parts.append("<mo>}</mo>")
                continue
            if token == "&":  # an alignment mark outside any table
                self.next()
                continue
            parts.append(self.scripted())
        return "<mrow>" + "".join(parts) + "</mrow>"

    def scripted(self) -> str:
        """An atom with its primes, subscript and superscript."""
        token = self.peek()
        base = "<mrow></mrow>" if token in ("^", "_") else self.atom()
        below = above = ""
        primes = 0
        while (mark := self.peek()) and mark in ("^", "_", "'"):
            self.next()
            if mark == "'":
                primes += 1
            elif mark == "_":
                below += self.atom()
            else:
                above += self.atom()
        if primes:
            above = f"<mo>{'′' * primes}</mo>{above}"
        if not below and not above:
            return base
        under = token.lstrip("\\") in _BIG.keys() - {"int", "oint", "iint"} | _LIMITS
        return _scripts(base, below, above, under)

    def atom(self) -> str:
        token = self.next()
        if not token:
            return "<mrow></mrow>"
        if token == "{":
            body = self.row("}")
            self.next()
            return body
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token == "-":
            return "<mo>−</mo>"
        stretch = ' stretchy="false"' if token in "()[]|" else ""
        return f"<mo{stretch}>{escape(token)}</mo>"

    def command(self, name: str) -> str:
        if name in _GREEK:
            upright = ' mathvariant="normal"' if name[0].isupper() or name in {"infty", "partial"} else ""
            return f"<mi{upright}>{_GREEK[name]}</mi>"
        if name in _OPERATORS:
            return f"<mo>{_OPERATORS[name]}</mo>"
        if name in _BIG:
            return f"<mo>{_BIG[name]}</mo>"
        if name in _FENCES:
            return f'<mo stretchy="false">{_FENCES[name]}</mo>'
        if name in _SPACES:
            return f'<mspace width="{_SPACES[name]}em"/>'
        if name in _SKIPPED:
            return ""
        if name in _FUNCTIONS:
            return f"<mi>{name}</mi>"
        return self.structure(name)

    def structure(self, name: str) -> str:
        if name in {"frac", "dfrac", "tfrac"}:
            return f"<mfrac>{self.atom()}{self.atom()}</mfrac>"
        if name in {"binom", "dbinom"}:
            return f'<mrow><mo>(</mo><mfrac linethickness="0">{self.atom()}{self.atom()}</mfrac><mo>)</mo></mrow>'
        if name == "sqrt":
            return self.root()
        if name in _ACCENTS:
            return f'<mover accent="true">{self.atom()}<mo stretchy="false">{_ACCENTS[name]}</mo></mover>'
        if name in _WORDS:
            tag = "mtext" if name.startswith(("text", "mbox")) else 'mi mathvariant="normal"'
            return f"<{tag}>{escape(self.braced())}</{tag.split()[0]}>"
        if name in {"mathbb", "mathcal", "mathbf", "boldsymbol", "mathfrak"}:
            return "<mi>" + "".join(_styled(name, c) for c in self.braced().lstrip("\\")) + "</mi>"
        if name == "left":
            return self.fenced()
        if name == "begin":
            return self.environment()
        return f"<mtext>{escape(name)}</mtext>"

    def root(self) -> str:
        if self.peek() != "[":
            return f"<msqrt>{self.atom()}</msqrt>"
        self.next()
        index = self.row("]")
        self.next()
        return f"<mroot>{self.atom()}{index}</mroot>"

    def braced(self) -> str:
        """The raw text of a braced argument."""
        if self.peek() != "{":
            return self.next()
        self.next()
        depth, out = 1, ""
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            depth += (token == "{") - (token == "}")
            if depth == 0:
                break
            out += token
        return out.replace("$", "")

    def fence(self) -> str:
        token = self.next()
        mark = _FENCES.get(token[1:], token) if token.startswith("\\") else token
        return "" if mark == "." else f'<mo stretchy="true">{escape(mark)}</mo>'

    def fenced(self) -> str:
        opening = self.fence()
        body = self.row("\\right")
        self.next()
        return f"<mrow>{opening}{body}{self.fence()}</mrow>"

    def environment(self) -> str:
        name = self.braced()
        if name == "array":
            self.braced()
        rows, cells = [], []
        while self.peek():
            cells.append(self.row("&", "\\\\", "\\end"))
            mark = self.next()
            if mark == "&":
                continue
            rows.append("<mtr>" + "".join(f"<mtd>{c}</mtd>" for c in cells) + "</mtr>")
            cells = []
            if mark != "\\\\":
                self.braced()
                break
        left, right = (f"<mo>{c}</mo>" if c.strip() else "" for c in _FENCED.get(name.rstrip("*"), "  "))
        return f'<mrow>{left}<mtable columnalign="left">{"".join(rows)}</mtable>{right}</mrow>'


def _scripts(base: str, below: str, above: str, under: bool) -> str:
    low, high = (f"<mrow>{x}</mrow>" if x else "" for x in (below, above))
    kind = ("munder", "mover", "munderover") if under else ("msub", "msup", "msubsup")
    tag = kind[2] if low and high else kind[0] if low else kind[1]
    return f"<{tag}>{base}{low}{high}</{tag}>"


_DOUBLE = {"C": "ℂ", "N": "ℕ", "P": "ℙ", "Q": "ℚ", "R": "ℝ", "Z": "ℤ", "H": "ℍ"}
_SCRIPT = {
    "B": "ℬ", "E": "ℰ", "F": "ℱ", "H": "ℋ", "I": "ℐ", "L": "ℒ", "M": "ℳ", "R": "ℛ", "e": "ℯ", "g": "ℊ", "o": "ℴ",
}  # fmt: skip


def _styled(style: str, c: str) -> str:
    """A letter of a mathematical alphabet (Unicode has holes where older letters exist)."""
    if not (c.isascii() and c.isalpha()):
        return escape(c)
    if style == "mathbb":
        return _DOUBLE.get(c) or chr((0x1D538 if c.isupper() else 0x1D552) + ord(c) - ord("A" if c.isupper() else "a"))
    if style == "mathcal":
        return _SCRIPT.get(c) or chr((0x1D49C if c.isupper() else 0x1D4B6) + ord(c) - ord("A" if c.isupper() else "a"))
    return chr((0x1D400 if c.isupper() else 0x1D41A) + ord(c) - ord("A" if c.isupper() else "a"))
