"""How the equations over layers are printed: means, covariances and the terms that they are made of."""

from __future__ import annotations

from sympy import Expr, S, Symbol

from quenched.theory.problem_layers import LAYER_A, LAYER_B, LayeredGaussian
from quenched.theory.record import Line
from quenched.theory.render import latex, signed_sum, text
from quenched.theory.spaces import t

#: Coefficient, text and LaTeX of a term.
Piece = tuple[Expr, str, str]


def alike(p: LayeredGaussian, i: int, j: int) -> bool:
    """Whether two states belong to one population."""
    return p.population[p.states[i]] == p.population[p.states[j]]


def mean_line(p: LayeredGaussian, i: int) -> Line:
    """⟨x(a+1)⟩ of a state."""
    x = Symbol(p.states[i])
    pieces: list[Piece] = [
        (e.subs(t, LAYER_A), f"⟨{text(Symbol(y))}(I)⟩", rf"\langle {latex(Symbol(y))}(I) \rangle")
        for y, e in zip(p.states, p.memory[i], strict=True)
        if e != 0
    ]
    for u, coef, out in p.mean:
        gain = p.feed[i][p.inputs.index(u)].subs(t, LAYER_A) * coef
        if gain != 0:
            pieces.append((gain, f"⟨{text(Symbol(out))}(I)⟩", rf"\langle {latex(Symbol(out))}(I) \rangle"))
    constant = p.constant[i].subs(t, LAYER_A)
    for s in p.sources:
        constant += p.feed[i][p.inputs.index(s.name)].subs(t, LAYER_A) * s.mean
    if constant != 0:
        pieces.append((S.One, text(constant), latex(constant)))
    plain, tex = signed_sum(pieces)
    return Line(f"⟨{text(x)}(I+1)⟩ = {plain}", rf"\langle {latex(x)}(I{{+}}1) \rangle = {tex}")


def covariance_line(p: LayeredGaussian, i: int, j: int, when: str) -> Line:
    """Cov of two states: both at layer 0 (start), one of them (mixed), or both after a step."""
    x, y = Symbol(p.states[i]), Symbol(p.states[j])
    own = f"C_{text(x)}" if i == j else f"C_{text(x)},{text(y)}"
    tex = f"C_{{{latex(x)}}}" if i == j else f"C_{{{latex(x)},{latex(y)}}}"
    where = {"start": ("0α", "0β"), "mixed": ("0α", "J+1"), "steps": ("I+1", "J+1")}[when]
    where_tex = [w.replace("α", r"\alpha").replace("β", r"\beta").replace("+1", "{+}1") for w in where]
    pieces = input_pieces(p, i, j, when)
    if p.remembers and when != "start":
        pieces += memory_pieces(p, i, j, when)
    plain, right = signed_sum(pieces)
    return Line(f"{own}({','.join(where)}) = {plain}", f"{tex}({','.join(where_tex)}) = {right}")


def memory_pieces(p: LayeredGaussian, i: int, j: int, when: str) -> list[Piece]:
    """What a unit carries over from its own past."""
    out: list[Piece] = []
    rows = (p.memory[i], p.memory[j])
    for k, x in enumerate(p.states):
        for l, y in enumerate(p.states):
            gain = rows[0][k].subs(t, LAYER_A) * rows[1][l].subs(t, LAYER_B) if when == "steps" else S.Zero
            if gain != 0:
                out.append((gain, f"C_{x},{y}(I,J)", f"C_{{{x},{y}}}(I,J)"))
    for k, x in enumerate(p.states):
        for label, gain in ((f"Cov({x}(I), input_{p.states[j]}(J))", rows[0][k].subs(t, LAYER_A)),):
            if gain != 0 and when == "steps":
                out.append((gain, label, rf"\mathrm{{Cov}}({x}(I), \iota_{{{p.states[j]}}}(J))"))
        gain = rows[1][k].subs(t, LAYER_B)
        if gain != 0:
            first = "I" if when == "steps" else "0α"
            label = f"Cov(input_{p.states[i]}({first}), {x}(J))"
            out.append((gain, label, rf"\mathrm{{Cov}}(\iota_{{{p.states[i]}}}, {x}(J))"))
    return out


def input_pieces(p: LayeredGaussian, i: int, j: int, when: str) -> list[Piece]:
    """Cov of the inputs of two states at two events, term by term."""
    rows = {
        "start": (p.start[i], p.start[j]),
        "mixed": (p.start[i], tuple(e.subs(t, LAYER_B) for e in p.feed[j])),
        "steps": (tuple(e.subs(t, LAYER_A) for e in p.feed[i]), tuple(e.subs(t, LAYER_B) for e in p.feed[j])),
    }[when]
    place = {n: k for k, n in enumerate(p.inputs)}
    sums: dict[tuple[str, str], Expr] = {}

    def put(coef: Expr, fresh: bool, each: bool, plain: str, tex: str) -> None:
        if coef == 0 or (fresh and when == "mixed"):
            return
        layer = ("·δ_ab", r"\,\delta_{ab}") if fresh and when == "steps" else ("", "")
        sample = ("·δ_αβ", r"\,\delta_{\alpha\beta}") if each and p.samples > 1 else ("", "")
        key = (f"{plain}{layer[0]}{sample[0]}".lstrip("·"), f"{tex}{layer[1]}{sample[1]}")
        sums[key] = sums.get(key, S.Zero) + coef

    for c in p.covariance:
        ways = [(c.u, c.v, c.first, c.second)] + ([(c.v, c.u, c.second, c.first)] if c.u != c.v else [])
        for u, v, one, two in ways:
            plain, tex = overlap_name(p, one, two, when)
            put(rows[0][place[u]] * rows[1][place[v]] * c.coef, c.same, False, plain, tex)
    pieces = [(coef, *key) for key, coef in sums.items()]
    sums.clear()
    for s in p.sources:
        put(rows[0][place[s.name]] * rows[1][place[s.name]] * s.variance, s.fresh, s.each, "", "")
    for key, coef in sums.items():
        mark, mark_tex = (f"·{key[0]}" if key[0] else ""), key[1]
        pieces.append((S.One, f"{text(coef)}{mark}", f"{latex(coef)}{mark_tex}"))
    return pieces


def overlap_name(p: LayeredGaussian, one: str, two: str, when: str) -> tuple[str, str]:
    """The name of ⟨one(I) two(J)⟩, or of the overlaps of given vectors."""
    if p.output(one).given is not None:
        return "X_αβ", r"X_{\alpha\beta}"
    a, b = Symbol(one), Symbol(two)
    label, tex = (text(a), latex(a)) if one == two else (f"{text(a)},{text(b)}", f"{latex(a)},{latex(b)}")
    first = "start" if when in ("start", "mixed") else "I"
    second = "start" if when == "start" else "J"
    return f"Q_{label}({first},{second})", f"Q_{{{tex}}}({first},{second})"
