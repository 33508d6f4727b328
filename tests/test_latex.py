"""The LaTeX of a derivation compiles: no double scripts, no stray marks, no letters that need a special engine."""

from __future__ import annotations

import re

import pytest
from witness_models import EXTRAS, MODELS

from quenched.theory.derivation import derive
from quenched.theory.record import Line, prose, row

EVERY = {**MODELS, **EXTRAS}


def group_end(tex: str, start: int) -> int:
    """Where the token that begins at `start` ends."""
    if tex[start] == "\\":
        found = re.match(r"\\([a-zA-Z]+|.)", tex[start:])
        assert found is not None
        return start + found.end()
    if tex[start] != "{":
        return start + 1
    depth = 0
    for k in range(start, len(tex)):
        depth += (tex[k] == "{") - (tex[k] == "}")
        if depth == 0:
            return k + 1
    raise ValueError(f"unbalanced braces: {tex[start : start + 40]}")


def double_scripts(tex: str) -> list[str]:
    """Places where one symbol has two subscripts or two superscripts."""
    found, seen, k = [], set(), 0
    while k < len(tex):
        if tex[k] in "_^":
            if tex[k] in seen:
                found.append(tex[max(0, k - 20) : k + 20])
            seen.add(tex[k])
            end = group_end(tex, k + 1)
            found += double_scripts(tex[k + 2 : end - 1]) if tex[k + 1] == "{" else []
        else:
            end = group_end(tex, k)
            found += double_scripts(tex[k + 1 : end - 1]) if tex[k] == "{" else []
            seen = set() if tex[k] != " " else seen
        k = end
    return found


@pytest.mark.parametrize("name", EVERY)
def test_derivations_compile(name: str) -> None:
    tex = derive(EVERY[name]()).latex()
    assert double_scripts(tex) == []
    assert not [line for line in tex.splitlines() if "&&=" in line]
    assert tex.replace("ö", "").isascii()
    for block in re.findall(r"\\begin\{align\}\n(.*?)\n\\end\{align\}", tex, flags=re.S):
        assert all(line.count("&") <= 3 for line in block.split("\\\\\n"))


def test_the_checker_sees_double_scripts() -> None:
    assert double_scripts(r"J_{EE}_{ij}")
    assert double_scripts(r"\frac{a^2^3}{b}")
    assert not double_scripts(r"{J_{EE}}_{ij} + a_b^c")


def test_prose() -> None:
    assert prose("⟨φ_1 ĥ⟩ at τ → ∞") == r"$\langle$$\phi$\_1 $\hat{h}$$\rangle$ at $\tau$ $\to$ $\infty$"
    assert row(Line("a = b", "a = b", "c_1")) == r"a &= b && \text{c\_1}"
    assert row(Line("a", r"a &\sim b")) == r"a &\sim b"
