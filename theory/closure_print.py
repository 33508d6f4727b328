"""How a closed problem of Gaussian averages is written."""

from __future__ import annotations

from sympy import Expr, Function, S, Symbol, cancel, fraction, together

from quenched.theory.problem import (
    DS,
    DT,
    SiteFunction,
    StationaryGaussian,
    U,
)
from quenched.theory.record import Line
from quenched.theory.render import latex, signed_sum, text


def has_mean(p: StationaryGaussian, a: int) -> bool:
    return p.arguments[a].constant != 0 or any(e != 0 for e in p.mean_gain[a])


def average_print(f: SiteFunction, x: str, g: SiteFunction | None = None, y: str = "") -> tuple[str, str]:
    """⟨f(x) g(y)⟩ in both notations, by name."""
    names = [(f, x)] + ([(g, y)] if g else [])
    plain = " ".join(f"{text(_fsym(h))}({z})" for h, z in names)
    tex = r"\, ".join(f"{_flatex(h)}({_argtex(z)})" for h, z in names)
    return f"⟨{plain}⟩", rf"\langle {tex} \rangle"


def _fsym(f: SiteFunction) -> Symbol:
    return Symbol(f.name.rstrip("'")) if not f.name.endswith("'") else Symbol(f.name)


def _flatex(f: SiteFunction) -> str:
    stem = f.name.rstrip("'")
    return latex(Function(stem)(U)).split(r"{\left")[0] + "'" * (len(f.name) - len(stem))


def _argtex(z: str) -> str:
    stem, mark = (z[:-1], "'") if z.endswith("′") else (z, "")
    return latex(Symbol(stem)) + mark if stem.isidentifier() else stem.replace("·", r"\,") + mark


def mean_line(p: StationaryGaussian, a: int) -> Line:
    arg = p.arguments[a]
    pieces = [] if arg.constant == 0 else [(S.One, text(arg.constant), latex(arg.constant))]
    for gain, one in zip(p.mean_gain[a], p.one_points, strict=True):
        if gain != 0:
            pieces.append((gain, *average_print(one.f, p.arguments[one.a].name)))
    plain, tex = signed_sum(pieces)
    return Line(f"⟨{arg.name}⟩ = {plain}", rf"\langle {_argtex(arg.name)} \rangle = {tex}", "mean")


def closing_line(p: StationaryGaussian, k: int) -> Line:
    """A number that the state determines, as averages of its site functions."""
    symbol, terms = p.closing[k]
    pieces = [(c, *average_print(p.one_points[i].f, p.arguments[p.one_points[i].a].name)) for c, i in terms]
    plain, tex = signed_sum(pieces)
    return Line(f"{text(symbol)} = {plain}", f"{latex(symbol)} = {tex}", "determined by the state")


def common_filter(p: StationaryGaussian, k: int) -> Expr:
    """The least common denominator of everything that drives pair k: L(D_t, D_s) with L·C = sources."""
    from sympy import lcm

    dens = [fraction(together(e))[1] for e in (*p.gain[k], p.noise[k]) if e != 0]
    out: Expr = S.One
    for den in dens:
        out = lcm(out, den)
    return out.factor()


def pair_name(p: StationaryGaussian, k: int) -> tuple[str, str]:
    a, b = (p.arguments[i].name for i in p.pairs[k])
    return (f"C_{a}", f"C_{{{_argtex(a)}}}") if a == b else (f"C_{a},{b}", f"C_{{{_argtex(a)},{_argtex(b)}}}")


def two_time_line(p: StationaryGaussian, k: int) -> Line:
    """L(D_t, D_s) C(t, s) = Σ coefficient · average + noise δ + static."""
    denominator = common_filter(p, k)
    pieces = []
    for gain, two in zip(p.gain[k], p.two_points, strict=True):
        if gain != 0:
            shown = average_print(two.f, p.arguments[two.a].name, two.g, p.arguments[two.b].name + "′")
            pieces.append((cancel(gain * denominator), *shown))
    if p.noise[k] != 0:
        delta = ("δ(t−s)", r"\delta(t-s)") if p.clock == "flow" else ("δ_{t,s}", r"\delta_{ts}")
        pieces.append((cancel(p.noise[k] * denominator), *delta))
    if p.static[k] != 0:
        still = {DT: S.Zero, DS: S.Zero} if p.clock == "flow" else {DT: S.One, DS: S.One}
        pieces.append(
            (S.One, text(p.static[k] * denominator.subs(still)), latex(p.static[k] * denominator.subs(still)))
        )
    plain, tex = signed_sum(pieces)
    name, name_tex = pair_name(p, k)
    left, left_tex = (
        ("", "") if denominator == 1 else (f"[{text(denominator)}] ", rf"\left[{latex(denominator)}\right] ")
    )
    return Line(f"{left}{name}(t,s) = {plain}", f"{left_tex}{name_tex}(t,s) = {tex}")
