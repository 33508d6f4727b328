"""Reads an expression in the argument of a site function as a form (see `theory.gauss_forms`).

Jumps are put in by hand where sympy would lose them: ReLU, |u|, hard clips and `Piecewise` become steps, so that
derivatives of the form contain every delta.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from sympy import (
    Abs,
    Add,
    And,
    Basic,
    DiracDelta,
    Dummy,
    Expr,
    Heaviside,
    Integer,
    Max,
    Min,
    Mul,
    Not,
    Or,
    Piecewise,
    Poly,
    PolynomialError,
    Pow,
    S,
    cos,
    cosh,
    erf,
    erfc,
    exp,
    log,
    pi,
    sign,
    sin,
    sinh,
)
from sympy.core.relational import GreaterThan, LessThan, StrictGreaterThan, StrictLessThan

from quenched.theory.gauss_forms import (
    Form,
    Kind,
    Monomial,
    NoForm,
    add,
    at_root,
    constant,
    delta,
    error_function,
    gaussian,
    multiply,
    scale,
    step,
    wave,
)
from quenched.theory.problem import U


def generic(*exprs: Expr) -> tuple[dict[Expr, Expr], dict[Expr, Expr]]:
    """Stand-ins for parameters, and the way back.

    Symbols without assumptions are read as real and non-negative ones as positive: a parameter has a generic value.
    """
    symbols = set().union(*(e.free_symbols for e in exprs))
    there: dict[Expr, Expr] = {}
    for s in sorted(symbols, key=lambda s: str(s.name)):
        if s.is_extended_real is None:
            there[s] = Dummy(s.name, real=True)
        elif s.is_nonnegative and not s.is_positive:
            there[s] = Dummy(s.name, positive=True)
    return there, {d: s for s, d in there.items()}


@lru_cache(maxsize=1024)
def _cached(expr: Expr) -> tuple[tuple[Monomial, Expr], ...]:
    return tuple(_parse(expr).items())


def form_of(expr: Expr) -> Form:
    """The form of an expression in `U` with real parameters.

    Raises `NoForm` outside the class, and for exponentials of a square that are not known to decay (their averages
    can diverge).
    """
    return dict(_cached(expr))


def affine(expr: Expr) -> tuple[Expr, Expr]:
    """(slope, offset) of an affine expression in `U`; `NoForm` if it is none."""
    offset, slope = coefficients(expr, 1)
    return slope, offset


def coefficients(expr: Expr, degree: int) -> list[Expr]:
    try:
        poly = Poly(expr, U)
    except PolynomialError as error:
        raise NoForm(str(expr)) from error
    if poly.degree() > degree or any(c.has(U) for c in poly.all_coeffs()):
        raise NoForm(str(expr))
    found = [c.as_expr() for c in reversed(poly.all_coeffs())]
    return found + [S.Zero] * (degree + 1 - len(found))


def _parse(expr: Expr) -> Form:
    if not expr.has(U):
        return constant(expr)
    if expr == U:
        return {Monomial(power=1): S.One}
    if isinstance(expr, Add):
        return add(*(_parse(a) for a in expr.args))
    if isinstance(expr, Mul):
        return _factors(expr)
    if isinstance(expr, exp):
        return _exponential(expr.args[0])
    if isinstance(expr, Pow):
        return _power(expr)
    if isinstance(expr, Piecewise):
        return _piecewise(expr)
    if isinstance(expr, (Max, Min)):
        return _extremum(expr)
    handler = _HANDLERS.get(expr.func)
    if handler is None:
        raise NoForm(str(expr))
    return handler(expr)


def _product(forms: list[Form]) -> Form:
    """Jumps are multiplied before deltas: θ² = θ, sign² = 1, then f(u) δ(u) = f(0) δ(u) with θ(0) = ½."""
    forms.sort(key=lambda f: any(k.kind == "delta" for m in f for k in m.kernels))
    total = constant(S.One)
    for form in forms:
        total = multiply(total, form)
    return total


def _factors(expr: Mul) -> Form:
    try:
        return _product([_parse(a) for a in expr.args])
    except NoForm:
        deltas = [a for a in expr.args if isinstance(a, DiracDelta)]
        if len(deltas) != 1:
            raise
    # δ(u − r) times any function is known from the function at r
    rest = Mul(*(a for a in expr.args if a is not deltas[0]))
    return add(*(scale(at_root(rest, m.kernels[0]), c) for m, c in _delta(deltas[0]).items()))


def _power(expr: Pow) -> Form:
    base, power = expr.args
    if not base.has(U):
        return _exponential(power * log(base))
    if isinstance(power, Integer) and power > 0:
        form, total = _parse(base), constant(S.One)
        for _ in range(int(power)):
            total = multiply(total, form)
        return total
    raise NoForm(str(expr))


def _exponential(exponent: Expr) -> Form:
    level, drift, curvature = coefficients(exponent, 2)
    if curvature != 0 and not curvature.is_nonpositive:
        raise NoForm(f"exp({exponent}) is not known to decay")
    return scale(gaussian(-2 * curvature, drift), exp(level))


def _jump(expr: Expr) -> Form:
    kind: Kind = "sign" if isinstance(expr, sign) else "step"
    if expr.args[0].has(Max, Min, Abs):
        steps = _positive_part(expr.args[0])
        return add(scale(steps, Integer(2)), constant(-S.One)) if kind == "sign" else steps
    return step(*affine(expr.args[0]), kind=kind)


def _modulus(expr: Expr) -> Form:
    argument = expr.args[0]
    return multiply(_parse(argument), _jump(sign(argument, evaluate=False)))


def _delta(expr: Expr) -> Form:
    order = int(expr.args[1]) if len(expr.args) > 1 else 0
    return delta(*affine(expr.args[0]), order=order)


def _erf(expr: Expr) -> Form:
    form = error_function(*affine(expr.args[0]))
    return form if isinstance(expr, erf) else add(constant(S.One), scale(form, -S.One))


def _circular(expr: Expr) -> Form:
    slope, offset = affine(expr.args[0])
    return wave(slope, offset - pi / 2 if isinstance(expr, sin) else offset)


def _hyperbolic(expr: Expr) -> Form:
    argument = expr.args[0]
    parity = -S.One if isinstance(expr, sinh) else S.One
    return add(scale(_exponential(argument), S.Half), scale(_exponential(-argument), parity / 2))


_HANDLERS: dict[type, Callable[[Expr], Form]] = {
    sign: _jump,
    Heaviside: _jump,
    Abs: _modulus,
    DiracDelta: _delta,
    erf: _erf,
    erfc: _erf,
    sin: _circular,
    cos: _circular,
    sinh: _hyperbolic,
    cosh: _hyperbolic,
}


# --------------------------------------------------------------------------------------------------- piecewise linear
def _extremum(expr: Expr) -> Form:
    """Max/Min: two affine arguments with symbols, or any nesting whose order of kinks is decidable."""
    if len(expr.args) == 2 and not any(a.has(Max, Min, Abs) for a in expr.args):
        first, second = expr.args
        if first.has(U) and not second.has(U):
            first, second = second, first
        gap = second - first if isinstance(expr, Max) else first - second
        toward = second - first
        return add(_parse(first), multiply(_parse(toward), step(*affine(gap))))
    return _kinks(_pieces(expr))


#: One affine piece: from where on it holds, its slope and its offset.
Piece = tuple[Expr, Expr, Expr]


def _kinks(pieces: list[Piece]) -> Form:
    _, slope, offset = pieces[0]
    parts = [_parse(slope * U + offset)]
    for start, a, b in pieces[1:]:
        parts.append(multiply(_parse((a - slope) * U + b - offset), step(S.One, -start)))
        slope, offset = a, b
    return add(*parts)


def _positive_part(expr: Expr) -> Form:
    """θ of a piecewise linear expression."""
    pieces = _larger(_pieces(expr), [(S.NegativeInfinity, S.Zero, S.Zero)])
    levels = [S.Zero if (a, b) == (0, 0) else S.One for _, a, b in pieces]
    parts, level = [constant(levels[0])], levels[0]
    for (start, _, _), new in zip(pieces[1:], levels[1:], strict=True):
        parts.append(scale(step(S.One, -start), new - level))
        level = new
    return add(*parts)


def _pieces(expr: Expr) -> list[Piece]:
    if isinstance(expr, Max):
        parts = [_pieces(a) for a in expr.args]
        total = parts[0]
        for part in parts[1:]:
            total = _larger(total, part)
        return total
    if isinstance(expr, Min):
        return _negate(_pieces(Max(*(-a for a in expr.args))))
    if isinstance(expr, Abs):
        inner = _pieces(expr.args[0])
        return _larger(inner, _negate(inner))
    if isinstance(expr, Add) and expr.has(Max, Min, Abs):
        total = _pieces(expr.args[0])
        for term in expr.args[1:]:
            total = [(s, a + c, b + d) for s, (a, b), (c, d) in _overlay(total, _pieces(term))]
        return total
    factor, rest = expr.as_independent(U, as_Add=False)
    if rest.has(Max, Min, Abs) and factor != 1:
        return [(s, factor * a, factor * b) for s, a, b in _pieces(rest)]
    return [(S.NegativeInfinity, *affine(expr))]


def _negate(pieces: list[Piece]) -> list[Piece]:
    return [(s, -a, -b) for s, a, b in pieces]


def _above(left: Expr, right: Expr) -> bool:
    """left > right, decided or refused."""
    if left == right:
        return False
    verdict = (left - right).is_extended_positive
    if verdict is None:
        raise NoForm(f"cannot order {left} and {right}")
    return bool(verdict)


def _overlay(f: list[Piece], g: list[Piece]) -> list[tuple[Expr, tuple[Expr, Expr], tuple[Expr, Expr]]]:
    starts: list[Expr] = []
    for start in [p[0] for p in f + g]:
        if start not in starts:
            starts.insert(sum(_above(start, s) for s in starts), start)
    return [(s, _piece_at(f, s), _piece_at(g, s)) for s in starts]


def _piece_at(pieces: list[Piece], start: Expr) -> tuple[Expr, Expr]:
    active = [p for p in pieces if not _above(p[0], start)][-1]
    return active[1], active[2]


def _larger(f: list[Piece], g: list[Piece]) -> list[Piece]:
    """Maximum of two piecewise linear functions."""
    rows, total = _overlay(f, g), []
    ends = [row[0] for row in rows[1:]] + [S.Infinity]
    for (start, (a, b), (c, d)), end in zip(rows, ends, strict=True):
        cuts = [start]
        if a != c:
            root = (d - b) / (a - c)
            if _above(root, start) and _above(end, root):
                cuts.append(root)
        for left, right in zip(cuts, [*cuts[1:], end], strict=True):
            at = _inside(left, right)
            total.append((left, a, b) if _above(a * at + b, c * at + d) else (left, c, d))
    return [p for i, p in enumerate(total) if i == 0 or p[1:] != total[i - 1][1:]]


def _inside(left: Expr, right: Expr) -> Expr:
    if left == S.NegativeInfinity:
        return S.Zero if right == S.Infinity else right - 1
    return left + 1 if right == S.Infinity else (left + right) / 2


def _piecewise(expr: Piecewise) -> Form:
    parts, left = [], constant(S.One)
    for value, condition in expr.args:
        parts.append(multiply(_parse(value), multiply(left, _indicator(condition))))
        # the complement is a step of its own, not 1 − θ, which would cancel badly against exponentials
        left = multiply(left, _indicator(Not(condition)))
    if left:
        raise NoForm("a Piecewise without a last branch")
    return add(*parts)


def _indicator(condition: Basic) -> Form:
    if condition in (S.true, S.false):
        return constant(S.One if condition == S.true else S.Zero)
    if isinstance(condition, Not):
        return add(constant(S.One), scale(_indicator(condition.args[0]), -S.One))
    if isinstance(condition, And):
        return _product([_indicator(c) for c in condition.args])
    if isinstance(condition, Or):
        return add(constant(S.One), scale(_product([_indicator(Not(c)) for c in condition.args]), -S.One))
    if isinstance(condition, (StrictGreaterThan, GreaterThan)):
        return step(*affine(condition.lhs - condition.rhs))
    if isinstance(condition, (StrictLessThan, LessThan)):
        return step(*affine(condition.rhs - condition.lhs))
    raise NoForm(str(condition))
