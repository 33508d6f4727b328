"""Antiderivatives of site functions, written so that they neither overflow nor cancel at large |u|.

log cosh u is |u| + log(1 + e^(−2|u|)) − log 2, the softplus of a logistic function Max(u,0) + log(1 + e^(−|u|)), and so
on. Additive constants are immaterial: potentials use differences only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import comb

from sympy import (
    Abs,
    Add,
    Expr,
    Heaviside,
    Integral,
    Max,
    Mul,
    Pow,
    Rational,
    S,
    Symbol,
    asinh,
    atan,
    cos,
    cosh,
    erf,
    exp,
    log,
    pi,
    sech,
    sign,
    sin,
    sinh,
    sqrt,
    tanh,
)

from quenched.theory.gauss_forms import Form, Kernel, Monomial, NoForm, multiply
from quenched.theory.gauss_parse import affine, coefficients, form_of, generic
from quenched.theory.problem import SiteFunction, U


class NoPrimitive(Exception):
    """No rule gives an antiderivative (internal: the integral then stays unevaluated)."""


def antiderivative(f: SiteFunction) -> SiteFunction:
    """F with F' = f, named by the capital of f (Φ for φ).

    Where no rule gives a closed form, `expr` is the unevaluated `Integral` of f from 0 to `U`. F is finite wherever f
    is, up to the range of the exponential function.
    """
    there, back = generic(f.expr)
    try:
        expr = _primitive(f.expr.xreplace(there)).xreplace(back)
    except NoPrimitive:
        taken = {s.name for s in f.expr.free_symbols}
        name = next(n for n in ("z", *(f"z_{k}" for k in range(len(taken) + 1))) if n not in taken)
        dummy = Symbol(name, real=True)
        expr = Integral(f.expr.xreplace({U: dummy}), (dummy, 0, U))
    return SiteFunction(_primitive_name(f.name), expr)


def _primitive_name(name: str) -> str:
    if name.endswith("'"):
        return name[:-1]
    return name[:1].upper() + name[1:]


@lru_cache(maxsize=512)
def _primitive(expr: Expr) -> Expr:
    """By linearity, a term at a time; first as the user wrote it, then multiplied out."""
    try:
        return _sum(expr)
    except NoPrimitive:
        return _sum(expr.expand(power_base=False, power_exp=False, log=False))


def _sum(expr: Expr) -> Expr:
    return Add(*(_term(t) for t in Add.make_args(expr)))


def _term(term: Expr) -> Expr:
    factor, rest = term.as_independent(U, as_Add=False)
    if rest == 1:
        return factor * U
    for rule in RULES:
        try:
            found = rule(rest)
        except NoForm:
            continue
        if found is not None:
            return factor * found
    raise NoPrimitive(str(term))


# ------------------------------------------------------------------------------------------- functions of one argument
_TABLE: dict[type, Callable[[Expr], Expr]] = {
    tanh: lambda z: Abs(z) + log(1 + exp(-2 * Abs(z))) - log(2),
    erf: lambda z: z * erf(z) + exp(-(z**2)) / sqrt(pi),
    sign: lambda z: Abs(z),
    Heaviside: lambda z: Max(z, 0),
    Abs: lambda z: z * Abs(z) / 2,
    atan: lambda z: z * atan(z) - log(1 + z**2) / 2,
    asinh: lambda z: z * asinh(z) - sqrt(1 + z**2),
    sech: lambda z: 2 * atan(tanh(z / 2)),
    exp: exp,
    sin: lambda z: -cos(z),
    cos: sin,
    sinh: cosh,
    cosh: sinh,
}


def _named(rest: Expr) -> Expr | None:
    """k(a·u + b) for the functions of the table."""
    rule = _TABLE.get(rest.func)
    if rule is None:
        return None
    slope, _ = affine(rest.args[0])
    return rule(rest.args[0]) / slope


def _named_power(rest: Expr) -> Expr | None:
    """Powers of tanh, sech, 1/cosh, erf² and threshold powers Max(z, 0)^p."""
    base, power = rest.as_base_exp()
    if isinstance(base, Max) and 0 in base.args and len(base.args) == 2:
        slope, _ = affine(Add(*base.args))
        return base ** (power + 1) / (slope * (power + 1)) if (power + 1).is_positive else None
    if not power.is_Integer or len(base.args) != 1:
        return None
    z = base.args[0]
    if base.func is cosh and power < 0:
        base, power = sech(z), -power
    if base.func is sech and power == 1:
        return _TABLE[sech](z) / affine(z)[0]
    if base.func is sech and power == 2:
        return tanh(z) / affine(z)[0]
    if base.func is tanh and power >= 2:
        return _term(base ** (power - 2)) - base ** (power - 1) / (affine(z)[0] * (power - 1))
    if base.func is erf and power == 2:
        primitive = z * erf(z) ** 2 + 2 * exp(-(z**2)) * erf(z) / sqrt(pi) - sqrt(2 / pi) * erf(sqrt(2) * z)
        return primitive / affine(z)[0]
    return None


# ------------------------------------------------------------------------------------------------- rational in e^(au)
def _logistic(rest: Expr) -> Expr | None:
    """e^(k w) (p + q e^w)^(−n) for 0 ≤ k ≤ n: a polynomial in the logistic function σ = 1/(1 + (q/p) e^w)."""
    powers = [f for f in Mul.make_args(rest) if isinstance(f, Pow) and not isinstance(f, exp) and f.exp.is_Integer]
    if len(powers) != 1 or powers[0].exp > 0:
        return None
    n = -int(powers[0].exp)
    p, grown = powers[0].base.as_independent(U, as_Add=True)
    q, envelope = grown.as_independent(U, as_Add=False)
    if not isinstance(envelope, exp) or p == 0 or not (q / p).is_positive:
        return None
    w = envelope.args[0]
    slope, _ = affine(w)
    others = Mul(*(f for f in Mul.make_args(rest) if f is not powers[0]))
    exponent = S.Zero if others == 1 else _exponent(others)
    rate, _ = affine(exponent)
    k = rate / slope
    if not k.is_Integer or not 0 <= k <= n:
        return None
    k = int(k)
    level = exp((exponent - k * w).expand()) * (p / q) ** k / p**n
    z = -(w + log(q / p))
    terms = [comb(k, j) * (-1) ** j * _logistic_power(z, -slope, n - k + j) for j in range(k + 1)]
    return level * Add(*terms)


def _exponent(factors: Expr) -> Expr:
    """The exponent of a product of exponentials."""
    parts = Mul.make_args(factors)
    if not all(isinstance(f, exp) for f in parts):
        raise NoForm(str(factors))
    return Add(*(f.args[0] for f in parts))


def _logistic_power(z: Expr, slope: Expr, m: int) -> Expr:
    """∫ σ(z)^m du for z = slope·u + …, by σ' = slope·σ(1−σ)."""
    if m == 0:
        return U
    total, sigma = (Max(z, 0) + log(1 + exp(-Abs(z)))) / slope, (1 + tanh(z / 2)) / 2
    for k in range(1, m):
        total -= sigma**k / (slope * k)
    return total


# ------------------------------------------------------------------------------------------------------------ algebraic
def _algebraic(rest: Expr) -> Expr | None:
    """(α u + β) (c2 u² + c1 u + c0)^r, the quadratic without real roots."""
    powers = [f for f in Mul.make_args(rest) if isinstance(f, Pow) and not f.exp.has(U) and not f.base.is_Symbol]
    if len(powers) != 1:
        return None
    q, r = powers[0].as_base_exp()
    c0, c1, c2 = coefficients(q, 2)
    beta, alpha = coefficients(rest / powers[0], 1)
    centre = c1 / (2 * c2) if c2 != 0 else S.Zero
    gap = (c0 / c2 - centre**2).expand() if c2 != 0 else S.Zero
    if not (c2.is_positive and gap.is_positive):
        return None
    weight = alpha / (2 * c2)
    total = weight * (log(q) if r == -1 else q ** (r + 1) / (r + 1)) if alpha != 0 else S.Zero
    left = beta - weight * c1
    return total if left == 0 else _quadratic_power(q, r, U + centre, c2, gap, left, total)


def _quadratic_power(q: Expr, r: Expr, y: Expr, c2: Expr, gap: Expr, weight: Expr, total: Expr) -> Expr | None:
    """total + weight ∫ q^r for q = c2 (y² + gap)."""
    arc = asinh(y / sqrt(gap))
    table = {
        S.NegativeOne: atan(y / sqrt(gap)) / (c2 * sqrt(gap)),
        -S.Half: arc / sqrt(c2),
        S.Half: (y * sqrt(q) + sqrt(c2) * gap * arc) / 2,
        Rational(-3, 2): y / (c2 * gap * sqrt(q)),
    }
    return total + weight * table[r] if r in table else None


def _softsign(rest: Expr) -> Expr | None:
    """z/(p + q|z|) and 1/(p + q|z|)²."""
    powers = [f for f in Mul.make_args(rest) if isinstance(f, Pow) and f.base.has(Abs)]
    if len(powers) != 1 or powers[0].exp not in (-1, -2):
        return None
    p, grown = powers[0].base.as_independent(U, as_Add=True)
    q, size = grown.as_independent(U, as_Add=False)
    if not isinstance(size, Abs) or not (p.is_positive and q.is_positive):
        return None
    z = size.args[0]
    slope, offset = affine(z)
    beta, alpha = coefficients(rest / powers[0], 1)
    if powers[0].exp == -2:
        return beta * z / (slope * p * (p + q * size)) if alpha == 0 else None
    if (beta * slope - alpha * offset).expand() != 0:
        return None
    return alpha / slope**2 * (size / q - p / q**2 * log(1 + q * size / p))


# ---------------------------------------------------------------------------------------------------------------- forms
def _formal(rest: Expr) -> Expr | None:
    """Polynomials × exponentials × erf, sign, step, cosine or delta, by parts."""
    return _integrate(form_of(rest))


def _integrate(form: Form) -> Expr:
    return Add(*(c * _monomial(m) for m, c in form.items()))


def _monomial(m: Monomial) -> Expr:
    for i, kernel in enumerate(m.kernels):
        if kernel.kind in ("step", "sign"):
            inner = _monomial(replace(m, kernels=m.kernels[:i] + m.kernels[i + 1 :]))
            return (inner - inner.subs(U, kernel.root)) * kernel.expr
    if not m.kernels:
        return _envelope(m.power, m.decay, m.drift)
    if len(m.kernels) > 1:
        raise NoPrimitive(str(m.expr))
    (kernel,) = m.kernels
    if kernel.kind == "delta":
        lower = replace(kernel, order=kernel.order - 1) if kernel.order else replace(kernel, kind="step")
        return lower.expr / kernel.slope
    if m.decay != 0:
        return _square(m, kernel)
    if kernel.kind == "wave":
        return _oscillation(m.power, m.drift, kernel)
    outer = _envelope(m.power, m.decay, m.drift)
    return outer * kernel.expr - _integrate(multiply(form_of(outer), _bell(kernel)))


def _bell(kernel: Kernel) -> Form:
    """Derivative of erf(a·u + b)."""
    return form_of(kernel.expr.diff(U))


def _square(m: Monomial, kernel: Kernel) -> Expr:
    """erf' erf = (erf²)'/2."""
    a, b = kernel.slope, kernel.offset
    if kernel.kind != "erf" or m.power or m.decay - 2 * a**2 != 0 or m.drift + 2 * a * b != 0:
        raise NoPrimitive(str(m.expr))
    return sqrt(pi) * exp(b**2) / (4 * a) * kernel.expr**2


def _envelope(n: int, d: Expr, b: Expr) -> Expr:
    """∫ u^n exp(−½ d u² + b u)."""
    if d == 0 and b == 0:
        return U ** (n + 1) / (n + 1)
    bell = exp(-d * U**2 / 2 + b * U)
    if d == 0:
        below = n * _envelope(n - 1, d, b) if n else S.Zero
        return U**n * bell / b - below / b
    if not d.is_positive:
        raise NoPrimitive(str(bell))
    if n == 0:
        return sqrt(pi / (2 * d)) * exp(b**2 / (2 * d)) * erf(sqrt(d / 2) * (U - b / d))
    below = (n - 1) * _envelope(n - 2, d, b) if n > 1 else S.Zero
    drift = b * _envelope(n - 1, d, b) if b != 0 else S.Zero
    return (drift + below - U ** (n - 1) * bell) / d


def _oscillation(n: int, b: Expr, kernel: Kernel) -> Expr:
    """∫ u^n e^(b u) cos(a u + c)."""
    a, z = kernel.slope, kernel.argument
    first = exp(b * U) * (b * cos(z) + a * sin(z)) / (a**2 + b**2)
    if n == 0:
        return first
    return U**n * first - n * _integrate(form_of(U ** (n - 1) * first))


#: Tried in this order on the part of a term that depends on the argument.
RULES: tuple[Callable[[Expr], Expr | None], ...] = (_named, _named_power, _logistic, _algebraic, _softsign, _formal)
