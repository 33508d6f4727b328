"""Closed Gaussian averages against quadrature that knows nothing of the rules."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy import special
from sympy import (
    Abs,
    DiracDelta,
    Expr,
    Float,
    Heaviside,
    I,
    Max,
    Min,
    Piecewise,
    S,
    Symbol,
    asin,
    cos,
    cosh,
    erf,
    erfc,
    exp,
    lambdify,
    latex,
    log,
    pi,
    sign,
    sin,
    sqrt,
    symbols,
    tanh,
)

from quenched.theory.errors import QuenchedError
from quenched.theory.gauss import RULES, GaussAvg, antiderivative, close, derivative, one_point, two_point
from quenched.theory.problem import C12, M1, M2, V1, V2, SiteFunction, U

A, B = Symbol("a", positive=True), Symbol("b", real=True)
CENTRED = (S.Zero, S.Zero)


@dataclass(frozen=True)
class Case:
    """A site function twice: as an expression and as plain numpy, with its kinks for the quadrature."""

    expr: Expr
    numpy: object
    kinks: object = lambda a, b: ()

    @property
    def function(self) -> SiteFunction:
        return SiteFunction("f", self.expr)


def root(a, b):
    return (-b / a,)


# Functions that close against anything, whatever the means.
SMOOTH = {
    "constant": Case(A + B, lambda u, a, b: (a + b) + 0 * u),
    "linear": Case(A * U + B, lambda u, a, b: a * u + b),
    "cubic": Case(U**3 - B * U**2 + A, lambda u, a, b: u**3 - b * u**2 + a),
    "quartic": Case((A * U + B) ** 4, lambda u, a, b: (a * u + b) ** 4),
    "exp": Case(exp(B * U / 2), lambda u, a, b: np.exp(b * u / 2)),
    "poly exp": Case((U**2 - 1) * exp(B * U / 2), lambda u, a, b: (u**2 - 1) * np.exp(b * u / 2)),
    "cosh": Case(cosh(U / 2), lambda u, a, b: np.cosh(u / 2)),
    "power": Case(2 ** (B * U), lambda u, a, b: 2.0 ** (b * u)),
    "bell": Case(exp(-A * U**2 / 2 + B * U), lambda u, a, b: np.exp(-a * u**2 / 2 + b * u)),
    "poly bell": Case(U * exp(-((U - B) ** 2)), lambda u, a, b: u * np.exp(-((u - b) ** 2))),
}
WAVES = {
    "sin": Case(sin(A * U + B), lambda u, a, b: np.sin(a * u + b)),
    "poly cos": Case(U**2 * cos(A * U), lambda u, a, b: u**2 * np.cos(a * u)),
    "sin squared": Case(sin(U) ** 2, lambda u, a, b: np.sin(u) ** 2),
    "damped": Case(cos(U + B) * exp(-A * U**2), lambda u, a, b: np.cos(u + b) * np.exp(-a * u**2)),
}
# One kink or erf each: a mean is allowed against a smooth function.
KINKS = {
    "erf": Case(erf(A * U + B), lambda u, a, b: special.erf(a * u + b)),
    "erfc": Case(erfc(-A * U), lambda u, a, b: special.erfc(-a * u)),
    "poly erf": Case(U**2 * erf(A * U + B), lambda u, a, b: u**2 * special.erf(a * u + b)),
    "gelu": Case(U * (1 + erf(U / sqrt(2))) / 2, lambda u, a, b: u * special.ndtr(u)),
    "bell erf": Case(exp(-(U**2)) * erf(A * U + B), lambda u, a, b: np.exp(-(u**2)) * special.erf(a * u + b)),
    "sign": Case(sign(A * U + B), lambda u, a, b: np.sign(a * u + b), root),
    "step": Case(Heaviside(B - A * U), lambda u, a, b: 1.0 * (b > a * u), lambda a, b: (b / a,)),
    "relu": Case(Max(A * U + B, 0), lambda u, a, b: np.maximum(a * u + b, 0), root),
    "threshold": Case(Max(U - B, 0) ** 2, lambda u, a, b: np.maximum(u - b, 0) ** 2, lambda a, b: (b,)),
    "minimum": Case(Min(U, B), lambda u, a, b: np.minimum(u, b), lambda a, b: (b,)),
    "modulus": Case(Abs(U - B), lambda u, a, b: np.abs(u - b), lambda a, b: (b,)),
    "clip": Case(Max(-1, Min(1, U)), lambda u, a, b: np.clip(u, -1, 1), lambda a, b: (-1, 1)),
    "unit clip": Case(Max(0, Min(A, U)), lambda u, a, b: np.clip(u, 0, a), lambda a, b: (0, a)),
    "leaky": Case(Max(U, U / 10), lambda u, a, b: np.maximum(u, u / 10), lambda a, b: (0,)),
    "elu": Case(
        Piecewise((U, U > 0), (exp(U) - 1, True)), lambda u, a, b: np.where(u > 0, u, np.expm1(u)), lambda a, b: (0,)
    ),
    "hat": Case(
        Piecewise((0, Abs(B) < 0), (1 - U, (U > 0) & (U < 1)), (0, True)),
        lambda u, a, b: np.where((u > 0) & (u < 1), 1 - u, 0),
        lambda a, b: (0, 1),
    ),
}
# Two of these close together at zero means.
ODD = {
    "erf": Case(erf(A * U), lambda u, a, b: special.erf(a * u)),
    "erf with slope one": Case(erf(sqrt(pi) * U / 2), lambda u, a, b: special.erf(np.sqrt(np.pi) * u / 2)),
    "poly erf": Case(U * erf(A * U), lambda u, a, b: u * special.erf(a * u)),
    "sign": Case(sign(B * U), lambda u, a, b: np.sign(b * u), lambda a, b: (0,)),
    "step": Case(Heaviside(-U), lambda u, a, b: 1.0 * (u < 0), lambda a, b: (0,)),
    "relu": Case(Max(A * U, 0), lambda u, a, b: np.maximum(a * u, 0), lambda a, b: (0,)),
    "square": Case(Max(U, 0) ** 2, lambda u, a, b: np.maximum(u, 0) ** 2, lambda a, b: (0,)),
    "modulus": Case(Abs(U), lambda u, a, b: np.abs(u), lambda a, b: (0,)),
    "leaky": Case(Max(U, U / 10) + 1, lambda u, a, b: np.maximum(u, u / 10) + 1, lambda a, b: (0,)),
}

numbers = st.floats(-1.2, 1.2).map(lambda x: round(x, 3))
variances = st.floats(0.2, 2.0).map(lambda x: round(x, 3))
points = st.tuples(numbers, numbers, variances, variances, st.floats(-0.95, 0.95).map(lambda x: round(x, 3)))
slopes = st.floats(0.3, 1.8).map(lambda x: round(x, 3))
offsets = st.floats(0.1, 0.9).map(lambda x: round(x, 3)).flatmap(lambda x: st.sampled_from((x, -x)))
quick = settings(
    max_examples=2, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def nodes(mean, sd, cuts, pieces=8):
    """Composite Gauss–Legendre nodes and weights over mean ± 9 sd, split at the cuts; rows broadcast over `mean`."""
    mean = np.atleast_1d(np.asarray(mean, float))
    edges = [mean + sd * z for z in np.linspace(-9, 9, pieces + 1)]
    edges += [np.clip(np.full_like(mean, cut), mean - 9 * sd, mean + 9 * sd) for cut in cuts]
    edges = np.sort(np.array(edges), axis=0)
    half = np.diff(edges, axis=0)[:, None, :] / 2
    centre = edges[:-1][:, None, :] + half
    x = (centre + half * _NODES[None, :, None]).reshape(-1, mean.size)
    w = (half * _WEIGHTS[None, :, None]).reshape(-1, mean.size)
    return x, w * np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * np.sqrt(2 * np.pi))


def reference_one(case, m, v, a, b):
    x, w = nodes(m, np.sqrt(v), case.kinks(a, b))
    return float((w * case.numpy(x, a, b)).sum())


def reference_two(f, g, m1, m2, v1, v2, c, a, b):
    u, wu = nodes(m1, np.sqrt(v1), f.kinks(a, b))
    u, wu = u[:, 0], wu[:, 0]
    inside, w = nodes(m2 + c / v1 * (u - m1), np.sqrt(v2 - c**2 / v1), g.kinks(a, b))
    return float((wu * f.numpy(u, a, b) * (w * g.numpy(inside, a, b)).sum(0)).sum())


@cache
def compiled(expr, used):
    return lambdify(used, expr, "scipy")


def value(expr, **given):
    """Number of a closed form; whatever symbol is left over makes it fail."""
    names = {M1: "m1", M2: "m2", V1: "v1", V2: "v2", C12: "c", A: "a", B: "b"}
    used = tuple(s for s in names if s in expr.free_symbols)
    assert expr.free_symbols <= set(used)
    return float(compiled(expr, used)(*(given[names[s]] for s in used)))


def check_two(f, g, point, a, b, centred):
    m1, m2, v1, v2, rho = point
    if centred:
        m1 = m2 = 0.0
    c = rho * np.sqrt(v1 * v2)
    closed = two_point(f.function, g.function, CENTRED if centred else (M1, M2))
    assert closed is not None
    expected = reference_two(f, g, m1, m2, v1, v2, c, a, b)
    found = value(closed, m1=m1, m2=m2, v1=v1, v2=v2, c=c, a=a, b=b)
    assert found == pytest.approx(expected, rel=2e-9, abs=2e-10)


@pytest.mark.parametrize("name", [*SMOOTH, *WAVES, *KINKS])
@quick
@seed(1)
@given(points, slopes, offsets)
def test_one_point(name, point, a, b):
    case = {**SMOOTH, **WAVES, **KINKS}[name]
    closed = one_point(case.function)
    assert closed is not None
    m, _, v, _, _ = point
    assert value(closed, m1=m, v1=v, a=a, b=b) == pytest.approx(reference_one(case, m, v, a, b), rel=1e-10, abs=1e-11)


@pytest.mark.parametrize("left", ["linear", "cubic", "exp", "poly bell"])
@pytest.mark.parametrize("right", [*SMOOTH, *WAVES, *KINKS])
@quick
@seed(2)
@given(points, slopes, offsets)
def test_smooth_with_anything(left, right, point, a, b):
    check_two(SMOOTH[left], {**SMOOTH, **WAVES, **KINKS}[right], point, a, b, centred=False)


@pytest.mark.parametrize("left", WAVES)
@pytest.mark.parametrize("right", WAVES)
@quick
@seed(3)
@given(points, slopes, offsets)
def test_two_waves(left, right, point, a, b):
    check_two(WAVES[left], WAVES[right], point, a, b, centred=False)


@pytest.mark.parametrize(("left", "right"), list(combinations_with_replacement(ODD, 2)))
@quick
@seed(4)
@given(points, slopes, offsets)
def test_two_kinks_at_zero_means(left, right, point, a, b):
    check_two(ODD[left], ODD[right], point, a, b, centred=True)


def test_kinks_with_cancelling_offset():
    """erf(a(u − b)) closes when the mean of u is b."""
    f = SiteFunction("f", erf(A * (U - B)))
    assert two_point(f, f, (B, B)) == two_point(*[ODD["erf"].function] * 2, CENTRED)
    assert two_point(f, f, CENTRED) is None


# ------------------------------------------------------------------------------------------------------------- deltas
DELTAS = {0: DiracDelta(A * U + B), 1: DiracDelta(A * U + B, 1), 2: DiracDelta(B - A * U, 2)}


def delta_reference(order, flip, g, m1, m2, v1, v2, c, a, b):
    """⟨δ^(k)(z) g⟩ = (−1/slope d/du)^k of density × ⟨g | u⟩ / |slope| at the root, by central differences."""
    slope, where = (-a, b / a) if flip else (a, -b / a)

    def weighted(u):
        x, w = nodes(m2 + c / v1 * (u - m1), np.sqrt(v2 - c**2 / v1), g.kinks(a, b))
        return np.exp(-((u - m1) ** 2) / (2 * v1)) / np.sqrt(2 * np.pi * v1) * (w * g.numpy(x, a, b)).sum()

    h = 1e-3
    stencil = {0: {0: 1}, 1: {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}}
    stencil[2] = {-2: -1 / 12, -1: 16 / 12, 0: -30 / 12, 1: 16 / 12, 2: -1 / 12}
    slopes = sum(w * weighted(where + k * h) for k, w in stencil[order].items()) / h**order
    return float(slopes * (-1 / slope) ** order / abs(slope))


@pytest.mark.parametrize("order", DELTAS)
@pytest.mark.parametrize("name", ["constant", "cubic", "exp", "poly erf", "relu", "sign", "damped"])
@quick
@seed(5)
@given(points, slopes, offsets)
def test_delta_with_anything(order, name, point, a, b):
    g = {**SMOOTH, **KINKS, **WAVES}[name]
    m1, m2, v1, v2, rho = point
    c = rho * np.sqrt(v1 * v2)
    expected = delta_reference(order, order == 2, g, m1, m2, v1, v2, c, a, b)
    args = {"m1": m1, "m2": m2, "v1": v1, "v2": v2, "c": c, "a": a, "b": b}
    delta = SiteFunction("d", DELTAS[order])
    assert value(two_point(delta, g.function), **args) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    swapped = {"m1": m2, "m2": m1, "v1": v2, "v2": v1, "c": c, "a": a, "b": b}
    assert value(two_point(g.function, delta), **swapped) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_two_deltas_are_the_density():
    """⟨δ(u) δ(v)⟩ is the bivariate normal density at the origin, with any means."""
    closed = two_point(*[SiteFunction("d", DiracDelta(U))] * 2)
    m, cov = np.array([0.3, -0.4]), np.array([[1.2, 0.5], [0.5, 0.9]])
    density = np.exp(-m @ np.linalg.inv(cov) @ m / 2) / (2 * np.pi * np.sqrt(np.linalg.det(cov)))
    assert value(closed, m1=m[0], m2=m[1], v1=1.2, v2=0.9, c=0.5) == pytest.approx(density, rel=1e-13)


def test_delta_takes_the_value_of_any_function():
    assert one_point(SiteFunction("f", DiracDelta(U - B) * tanh(U))).has(tanh(B))
    f = SiteFunction("f", DiracDelta(U, 1) * tanh(U))
    assert (one_point(f) + one_point(SiteFunction("f", DiracDelta(U)))).expand() == 0


def test_delta_takes_the_value_of_an_exponential():
    """δ(u − b) and its slope times exp(a u − u²): the value and the slope of the function at b."""
    f = exp(A * U - U**2)
    at = {A: 0.8, B: 0.5, V1: 0.9}
    density = exp(-(U**2) / (2 * V1)) / sqrt(2 * pi * V1)
    for order in (0, 1):
        found = one_point(SiteFunction("d", DiracDelta(U - B, order) * f), S.Zero).subs(at)
        expected = ((-1) ** order * (f * density).diff(U, order)).subs(U, B).subs(at)
        assert float(found) == pytest.approx(float(expected), rel=1e-13)


# -------------------------------------------------------------------------------------------------------- exact forms
def test_erf_of_the_sheet():
    """f(c; c0) = (2/π) asin[(π/2) c/(1 + π c0/2)] and ⟨φ'⟩ = (1 + π c0/2)^(−1/2), as printed."""
    phi = ODD["erf with slope one"].function
    c0, c = symbols("c_0 c", positive=True)
    f = two_point(phi, phi, CENTRED).subs({V1: c0, V2: c0, C12: c})
    assert f == 2 / pi * asin(pi / 2 * c / (1 + pi * c0 / 2))
    assert one_point(phi.diff(), S.Zero).subs(V1, c0) == (1 + pi * c0 / 2) ** -S.Half


def test_arc_cosine():
    """⟨relu relu⟩ = (√(1−ρ²) + ρ(π − acos ρ)) √(v1 v2)/(2π) (Cho and Saul 2009)."""
    relu = SiteFunction("f", Max(U, 0))
    rho, v1, v2 = 0.37, 1.3, 0.6
    expected = np.sqrt(v1 * v2) * (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / (2 * np.pi)
    found = value(two_point(relu, relu, CENTRED), v1=v1, v2=v2, c=rho * np.sqrt(v1 * v2))
    assert found == pytest.approx(expected, rel=1e-14)


def test_polynomials_are_exact():
    f = SiteFunction("f", (U + 1) ** 3)
    g = SiteFunction("g", U**2)
    closed = two_point(f, g, CENTRED).expand()
    assert closed == (V2 + 6 * C12**2 + 3 * V1 * V2).expand()


def test_hermite_polynomials_are_orthogonal():
    h3, h2 = SiteFunction("h", U**3 - 3 * U), SiteFunction("h", U**2 - 1)
    unit = {V1: 1, V2: 1}
    assert two_point(h3, h3, CENTRED).subs(unit).expand() == 6 * C12**3
    assert two_point(h3, h2, CENTRED).subs(unit).expand() == 0


def test_linearity():
    f, g = ODD["relu"].expr, ODD["erf"].expr
    k = Symbol("k")
    other = SiteFunction("o", sign(U))
    both = two_point(SiteFunction("f", 3 * f - k * g), other, CENTRED)
    apart = 3 * two_point(SiteFunction("f", f), other, CENTRED) - k * two_point(SiteFunction("f", g), other, CENTRED)
    assert (both - apart).expand() == 0


# -------------------------------------------------------------------------------------------------------- what is open
@pytest.mark.parametrize(
    ("f", "g", "means"),
    [
        (erf(A * U), erf(A * U), (M1, M2)),
        (erf(A * U), erf(A * U), (S.Zero, M2)),
        (erf(A * U + B), erf(A * U + B), CENTRED),
        (Max(U, 0), Max(U, 0), (M1, M2)),
        (tanh(U), U, CENTRED),
        (erf(tanh(U)), S.One, CENTRED),
        (exp(U**2 / 4), S.One, CENTRED),
        (exp(B * U**2), S.One, CENTRED),
        (sign(U**2 - 1), S.One, CENTRED),
        (sin(U), erf(U), CENTRED),
        (log(1 + exp(U)), S.One, CENTRED),
        (sqrt(Max(U, 0)), S.One, CENTRED),
        (Max(0, Min(B, U)), S.One, CENTRED),
    ],
)
def test_no_rule_gives_none(f, g, means):
    assert two_point(SiteFunction("f", f), SiteFunction("g", g), means) is None


def test_symbols_without_assumptions_are_real():
    k = Symbol("k")
    closed = one_point(SiteFunction("f", exp(-((k * U) ** 2) / 2)), S.Zero)
    assert closed == 1 / sqrt(1 + k**2 * V1)


def test_a_parameter_that_may_vanish_is_generic():
    g = Symbol("g", nonnegative=True)
    relu = SiteFunction("f", Max(g * U, 0))
    unit = SiteFunction("f", Max(U, 0))
    assert (two_point(relu, relu, CENTRED) - g**2 * two_point(unit, unit, CENTRED)).expand() == 0
    assert antiderivative(SiteFunction("f", U / sqrt(1 + g**2 * U**2))).expr == sqrt(1 + g**2 * U**2) / g**2


def test_complex_exponential():
    assert one_point(SiteFunction("f", exp(I * U)), S.Zero) == exp(-V1 / 2)


# --------------------------------------------------------------------------------------- ends of the range, exactness
@pytest.mark.parametrize("name", ODD)
def test_full_correlation(name):
    """At c = v1 = v2 the two-point average is the second moment: nothing is lost to rounding there."""
    case = ODD[name]
    square = Case(S.Zero, lambda u, a, b: case.numpy(u, a, b) ** 2, case.kinks)
    closed = two_point(case.function, case.function, CENTRED)
    for v in (0.1, 0.3, 1.7):
        expected = reference_one(square, 0.0, v, 0.8, 0.5)
        assert value(closed, v1=v, v2=v, c=v, a=0.8, b=0.5) == pytest.approx(expected, rel=1e-12)
        odd = Case(S.Zero, lambda u, a, b: case.numpy(u, a, b) * case.numpy(-u, a, b), case.kinks)
        expected = reference_one(odd, 0.0, v, 0.8, 0.5)
        assert value(closed, v1=v, v2=v, c=-v, a=0.8, b=0.5) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_no_variance_at_zero_means(name):
    case = ODD[name]
    closed = two_point(case.function, case.function, CENTRED)
    at_zero = 0.25 if name == "step" else float(case.numpy(np.array(0.0), 0.8, 0.5)) ** 2
    assert value(closed, v1=0.0, v2=0.0, c=0.0, a=0.8, b=0.5) == pytest.approx(at_zero, abs=1e-15)


@pytest.mark.parametrize("name", [*SMOOTH, *WAVES, "erf", "erfc", "poly erf", "gelu", "bell erf"])
@pytest.mark.filterwarnings("error")
def test_no_variance_of_smooth_functions(name):
    case = {**SMOOTH, **WAVES, **KINKS}[name]
    expected = float(case.numpy(np.array(0.3), 0.8, 0.5))
    assert value(one_point(case.function), m1=0.3, v1=0.0, a=0.8, b=0.5) == pytest.approx(expected, rel=1e-14)


# ----------------------------------------------------------------------------------------------------- derivative rule
def precise_slope(expr, symbol, at):
    """Derivative of a closed form by central differences of 60-digit numbers."""
    with mp.workdps(60):
        f = lambdify(list(at), expr, "mpmath")
        h, values = mpf(10) ** -20, {s: mpf(v) for s, v in at.items()}
        low, high = ({**values, symbol: values[symbol] + k * h} for k in (-1, 1))
        return float((f(*high.values()) - f(*low.values())) / (2 * h))


PRICE = [
    (erf(A * U), erf(A * U), True),
    (erf(A * U), sign(U), True),
    (Max(A * U, 0), Max(U, 0), True),
    (Max(U, 0) ** 2, Abs(U), True),
    (Abs(U), Heaviside(U), True),
    (sign(U), Heaviside(-U), True),
    (U * erf(A * U), erf(U), True),
    (Max(U, U / 10), Max(-U, 0), True),
    (U**3, erf(A * U + B), False),
    (exp(B * U), Max(A * U + B, 0), False),
    (sin(A * U + B), cos(U), False),
    (exp(-(U**2)), U * erf(U), False),
]


@pytest.mark.parametrize(("f", "g", "centred"), PRICE)
@pytest.mark.parametrize("rho", [-0.4, 0.7, 1 - 1e-6, 1 - 1e-12])
def test_price(f, g, centred, rho):
    """∂/∂C = ⟨f'g'⟩, ∂/∂V1 = ½⟨f''g⟩, ∂/∂m1 = ⟨f'g⟩, every average closed by itself."""
    phi, psi = SiteFunction("f", f), SiteFunction("g", g)
    means = CENTRED if centred else (M1, M2)
    at = {M1: 0.3, M2: -0.2, V1: 1.3, V2: 1.3, C12: 1.3 * rho, A: 0.7, B: 0.4}
    with mp.workdps(60):
        exact = {s: mpf(v) for s, v in at.items()}

        def number(left, right):
            closed = two_point(left, right, means)
            assert closed is not None
            return float(lambdify(list(at), closed, "mpmath")(*exact.values()))

        whole = two_point(phi, psi, means)
        assert number(phi.diff(), psi.diff()) == pytest.approx(precise_slope(whole, C12, at), rel=1e-9, abs=1e-12)
        assert number(phi.diff(2), psi) == pytest.approx(2 * precise_slope(whole, V1, at), rel=1e-9, abs=1e-12)
        if not centred:
            assert number(phi.diff(), psi) == pytest.approx(precise_slope(whole, M1, at), rel=1e-9, abs=1e-12)


def test_derivative_keeps_the_jump_of_a_piecewise():
    step = SiteFunction("f", Piecewise((0, U < 0), (2, True)))
    assert one_point(step.diff()) == 0
    assert one_point(derivative(step), S.Zero).subs(V1, 1) == 2 / sqrt(2 * pi)
    clip = SiteFunction("f", Max(0, Min(1, U)))
    assert one_point(derivative(clip, 2)) == one_point(
        SiteFunction("d", DiracDelta(U) - DiracDelta(U - 1))
    )  # the slope is one inside only


# ------------------------------------------------------------------------------------------------------------ the node
PHI = SiteFunction("phi", tanh(A * U))
C0, C = symbols("c_0 c", positive=True)


def pair(f=PHI, g=PHI, orders=(0, 0), means=(0, 0), cov=((C0, C), (C, C0))):
    return GaussAvg([(f, orders[0], 0), (g, orders[1], 1)], means, cov)


def test_node_derivatives_raise_orders():
    m = Symbol("m", real=True)
    assert pair().diff(C) == pair(orders=(1, 1))
    assert pair().diff(C, 2) == pair(orders=(2, 2))
    assert pair().diff(C0) == (pair(orders=(2, 0)) + pair(orders=(0, 2))) / 2
    shifted = pair(means=(m, m**2))
    assert shifted.diff(m) == pair(orders=(1, 0), means=(m, m**2)) + 2 * m * pair(orders=(0, 1), means=(m, m**2))
    assert pair().diff(Symbol("other")) == 0


def test_node_chain_rule_and_products():
    node = pair(cov=((1, C**2), (C**2, 1)))
    assert node.diff(C) == 2 * C * pair(orders=(1, 1), cov=((1, C**2), (C**2, 1)))
    twice = GaussAvg([(PHI, 0, 0), (PHI, 1, 0)], (C,), ((1,),))
    assert twice.diff(C) == GaussAvg([(PHI, 1, 0), (PHI, 1, 0)], (C,), ((1,),)) + GaussAvg(
        [(PHI, 0, 0), (PHI, 2, 0)], (C,), ((1,),)
    )


def test_node_differentiates_in_a_parameter():
    """∂_a⟨φφ⟩ = ⟨(∂_a φ) φ⟩ + ⟨φ (∂_a φ)⟩, with numbers for φ = erf(a u)."""
    moved = pair().diff(A)
    assert sorted(map(str, moved.args)) == ["⟨φ(u)∂_aφ(v)⟩", "⟨∂_aφ(u)φ(v)⟩"]
    node = pair(ODD["erf"].function, ODD["erf"].function)
    closed = sum(term.close() for term in node.diff(A).args)
    at = {C: 0.4, C0: 1.1, A: 0.8}
    assert float((closed - node.close().diff(A)).subs(at)) == pytest.approx(0, abs=1e-14)


def test_node_closes_with_the_same_rules():
    phi = ODD["erf with slope one"].function
    node = pair(phi, phi)
    assert node.close() == 2 / pi * asin(pi / 2 * C / (1 + pi * C0 / 2))
    assert [r.name for r in node.closed().rules] == ["orthant"]
    assert float((node.diff(C).close() - node.close().diff(C)).subs({C: 0.4, C0: 1.1})) == pytest.approx(0, abs=1e-14)
    assert pair().close() == pair()
    assert pair().closed() is None


def test_node_with_more_slots():
    """⟨u v w x⟩ = C12 C34 + C13 C24 + C14 C23; a fifth factor φ comes out by Stein."""
    cov = [[Symbol(f"k_{min(i, j)}{max(i, j)}", real=True) for j in range(4)] for i in range(4)]
    line = SiteFunction("l", U)
    four = GaussAvg([(line, 0, s) for s in range(4)], (0,) * 4, cov)
    wick = cov[0][1] * cov[2][3] + cov[0][2] * cov[1][3] + cov[0][3] * cov[1][2]
    assert (four.close() - wick).expand() == 0
    assert (four.reduce() - wick).expand() == 0
    erfs = GaussAvg([(line, 0, 0), (line, 0, 1), (ODD["erf"].function, 0, 2), (line, 0, 3)], (0,) * 4, cov)
    slope = erf(A * U).diff(U)
    third = one_point(SiteFunction("s", slope.diff(U, 2)), S.Zero).subs(V1, cov[2][2])
    first = one_point(SiteFunction("s", slope), S.Zero).subs(V1, cov[2][2])
    expected = (
        first * (cov[0][1] * cov[2][3] + cov[0][2] * cov[1][3] + cov[0][3] * cov[1][2])
        + third * cov[0][2] * cov[1][2] * cov[2][3]
    )
    at = {s: v for s, v in zip(sorted(erfs.free_symbols, key=str), np.linspace(0.2, 1.3, 11), strict=True)}
    assert float((erfs.close() - expected).subs(at)) == pytest.approx(0, abs=1e-12)


MEAN = np.array([0.3, -0.2, 0.5])
COV = np.array([[1.1, 0.4, -0.3], [0.4, 0.9, 0.2], [-0.3, 0.2, 1.3]])


def three(*factors):
    """⟨f(u) g(v) h(w)⟩ at MEAN and COV."""
    functions = [SiteFunction("f", f) for f in factors]
    return float(close(functions, tuple(map(Float, MEAN)), tuple(tuple(map(Float, row)) for row in COV)).value)


def test_three_polynomials():
    m, c = MEAN, COV
    expected = m[1] * m[2] * (m[0] ** 2 + c[0, 0]) + c[1, 2] * (m[0] ** 2 + c[0, 0])
    expected += 2 * c[0, 1] * c[0, 2] + 2 * m[0] * (c[0, 1] * m[2] + c[0, 2] * m[1])
    assert three(U**2, U, U) == pytest.approx(expected, rel=1e-13)


def test_three_with_a_bell():
    """Sherman–Morrison instead of the matrix inverse: ⟨e^(−u²) v w⟩."""
    pull = 2 * COV[0] / (1 + 2 * COV[0, 0])
    mean, cov = MEAN - pull * MEAN[0], COV - np.outer(pull, COV[0])
    size = np.exp(-(MEAN[0] ** 2) / (1 + 2 * COV[0, 0])) / np.sqrt(1 + 2 * COV[0, 0])
    assert three(exp(-(U**2)), U, U) == pytest.approx(size * (cov[1, 2] + mean[1] * mean[2]), rel=1e-13)


def test_three_with_two_deltas():
    """⟨δ(u) δ(v) w⟩ is the density of (u, v) at zero times the conditional mean of w."""
    two, cross = COV[:2, :2], COV[2, :2]
    density = np.exp(-MEAN[:2] @ np.linalg.solve(two, MEAN[:2]) / 2) / (2 * np.pi * np.sqrt(np.linalg.det(two)))
    mean = MEAN[2] - cross @ np.linalg.solve(two, MEAN[:2])
    assert three(DiracDelta(U), DiracDelta(U), U) == pytest.approx(density * mean, rel=1e-12)


def test_stein_leaves_named_nodes():
    line = SiteFunction("l", U)
    m = Symbol("m", real=True)
    node = pair(line, means=(m, 0))
    alone = GaussAvg([(PHI, 0, 1)], (m, 0), ((C0, C), (C, C0)))
    assert node.reduce() == m * alone + C * GaussAvg([(PHI, 1, 1)], (m, 0), ((C0, C), (C, C0)))


def test_node_binds_its_argument():
    node = pair()
    assert node.free_symbols == {A, C, C0}
    assert node.subs(U, 3) == node
    assert node.subs(A, 2) == pair(SiteFunction("phi", tanh(2 * U)), SiteFunction("phi", tanh(2 * U)))
    assert pair(PHI, SiteFunction("phi", tanh(A * U))) == node
    assert pickle.loads(pickle.dumps(node)) == node


def test_node_prints_its_names():
    assert str(pair()) == "⟨φ(u)φ(v)⟩"
    assert latex(pair(orders=(1, 4))) == r"\left\langle \phi'(u) \phi^{(4)}(v) \right\rangle"
    assert str(pair(SiteFunction("psi_1'", U))) == "⟨ψ_1'(u)φ(v)⟩"
    assert latex(pair().diff(A).args[0]).count(r"\partial_{a} \phi(") == 1


@pytest.mark.parametrize(
    ("means", "cov", "slot"),
    [((0,), ((1, 0), (0, 1)), 0), ((0, 0), ((1, C), (0, 1)), 0), ((0, 0), ((1, C), (C, 1)), 2)],
)
def test_node_refuses_what_does_not_fit(means, cov, slot):
    with pytest.raises(QuenchedError, match="Gaussian average"):
        GaussAvg([(PHI, 0, slot)], means, cov)


# --------------------------------------------------------------------------------------------------------- the registry
def test_every_rule_is_used_and_says_its_source():
    used = set()
    everything = {**SMOOTH, **WAVES, **KINKS}
    for case in everything.values():
        used |= set(close([case.function], (M1,), ((V1,),)).rules)
    for f, g, _ in PRICE:
        used |= set(close([SiteFunction("f", f), SiteFunction("g", g)], CENTRED, ((V1, C12), (C12, V2))).rules)
    delta = SiteFunction("d", DiracDelta(U))
    used |= set(close([delta, delta], CENTRED, ((V1, C12), (C12, V2))).rules)
    assert used == set(RULES)
    assert all(rule.name and rule.statement and rule.source for rule in RULES)


def test_independent_arguments_factorise():
    f, g = SiteFunction("f", Max(U, 0)), SiteFunction("g", erf(A * U + B))
    product = close([f, g], (M1, M2), ((V1, 0), (0, V2))).value
    apart = one_point(f) * one_point(g).subs({M1: M2, V1: V2}, simultaneous=True)
    assert (product - apart).expand() == 0
