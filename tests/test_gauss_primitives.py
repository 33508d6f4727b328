"""Antiderivatives: F(q) − F(p) is the integral of f, and F stays finite far out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy import integrate
from sympy import (
    Abs,
    DiracDelta,
    Expr,
    Heaviside,
    Integral,
    Max,
    Min,
    Piecewise,
    Rational,
    Symbol,
    asinh,
    atan,
    cos,
    cosh,
    erf,
    erfc,
    exp,
    lambdify,
    log,
    pi,
    sech,
    sign,
    sin,
    sinh,
    sqrt,
    tanh,
)

from quenched.theory.gauss import GaussAvg, antiderivative, derivative
from quenched.theory.problem import SiteFunction, U

A, B = Symbol("a", positive=True), Symbol("b", real=True)

BOUNDED = [
    tanh(U),
    tanh(A * U + B),
    tanh(U) ** 2,
    1 - tanh(U) ** 2,
    tanh(A * U) ** 3,
    tanh(A * U - B) * (1 + tanh(A * U - B)),
    sech(A * U + B),
    1 / cosh(A * U + B),
    cosh(U) ** -2,
    erf(sqrt(pi) * U / 2),
    erf(A * U + B),
    erf(U) ** 2,
    erfc(A * U) + 1,
    erf(U) * exp(-(U**2)),
    exp(-((A * U - B) ** 2)),
    U**3 * exp(-A * U**2 + B * U),
    1 / (1 + exp(-A * U)),
    1 / (2 + 3 * exp(-(U - B))),
    1 / (1 + exp(-U)) ** 3,
    exp(-A * U) / (1 + exp(-A * U)) ** 2,
    exp(2 * U) / (1 + exp(U)) ** 2,
    3 / (1 + exp(B - U)) - 1,
    sign(U - B),
    Heaviside(B - A * U),
    Max(-1, Min(1, U)),
    Max(0, Min(A, U)),
    Max(-A, Min(A, U)),
    Piecewise((0, U < 0), (U, U < 1), (1, True)),
    U / sqrt(1 + U**2),
    (A * U + B) / sqrt(3 + A * U**2),
    1 / sqrt(1 + (A * U + B) ** 2),
    1 / (1 + A * U**2),
    U / (1 + A * U**2),
    (1 + U**2) ** Rational(-3, 2),
    U / (1 + Abs(U)),
    (U - B) / (A + 2 * Abs(U - B)),
    1 / (1 + A * Abs(U)) ** 2,
    2 / pi * atan(pi * U / 2),
    sin(A * U + B),
    U * cos(A * U),
    exp(-(U**2) / 2) * U,
]
GROWING = [
    A * U**3 - B * U + 2,
    U**2 * erf(A * U),
    U * (1 + erf(U / sqrt(2))) / 2,
    U * Heaviside(U),
    Max(A * U + B, 0),
    Max(U - B, 0) ** 2,
    Max(U, 0) ** Rational(3, 2),
    Max(U, 0) ** A,
    Max(U, U / 10),
    Abs(A * U + B),
    Abs(U) * U,
    asinh(A * U + B),
    sqrt(1 + A * U**2),
    (U + sqrt(U**2 + 1)) / 2,
    Piecewise((U, U > 0), (exp(U) - 1, True)),
    exp(A * U),
    (U**2 + 1) * exp(B * U),
    2**U,
    sinh(A * U + B),
    cosh(U / 2),
    exp(B * U) * sin(A * U) * U,
    exp(B * U) * erf(A * U + B),
]
OPEN = [
    U * tanh(U),
    log(1 + exp(U)),
    sin(U**2),
    tanh(U**2),
    U / (1 + U**4),
    exp(-(U**2)) * cos(U),
    erf(U) * erf(A * U),
    Max(U, 0) ** -2,
    1 / (1 - 2 * exp(U)),
    tanh(A * U) ** B,
]
points = st.floats(-4, 4).map(lambda x: round(x, 3))
names = [str(f) for f in BOUNDED + GROWING]
quick = settings(
    max_examples=4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def numeric(expr: Expr):
    at = expr.subs({A: Rational(13, 10), B: Rational(-7, 10)})
    assert at.free_symbols <= {U}
    return lambdify(U, at, "scipy")


@pytest.mark.parametrize("f", BOUNDED + GROWING, ids=names)
def test_difference_is_the_integral(f):
    primitive = antiderivative(SiteFunction("phi", f))
    assert not primitive.expr.has(Integral)
    slope, whole = numeric(f), numeric(primitive.expr)
    kinks = [-1, 0, 1, 1.3, -1.3, 0.7 / 1.3, -0.7 / 1.3, 0.7, -0.7]

    @quick
    @seed(7)
    @given(points, points)
    def check(p, q):
        inside = [k for k in kinks if min(p, q) < k < max(p, q)] or None
        expected, error = integrate.quad(slope, p, q, points=inside, epsabs=1e-12, epsrel=1e-12, limit=200)
        assert whole(q) - whole(p) == pytest.approx(expected, rel=1e-9, abs=1e-10 + 2 * error)

    check()


@pytest.mark.parametrize("f", BOUNDED + GROWING, ids=names)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_finite_and_accurate_far_out(f):
    """Up to |u| = 50 in double precision, against 80 digits."""
    expr = antiderivative(SiteFunction("phi", f)).expr
    whole = numeric(expr)
    with mp.workdps(80):
        exact = lambdify(U, expr.subs({A: Rational(13, 10), B: Rational(-7, 10)}), "mpmath")
        for u in (-50.0, -31.7, -18.9, -0.3, 0.2, 19.1, 37.4, 50.0):
            found = float(whole(u))
            assert np.isfinite(found)
            assert found == pytest.approx(float(mp.re(exact(mp.mpf(u)))), rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("f", OPEN, ids=[str(f) for f in OPEN])
def test_what_has_no_rule_stays_an_integral(f):
    primitive = antiderivative(SiteFunction("phi", f))
    assert isinstance(primitive.expr, Integral)
    assert primitive.expr.diff(U) == f
    assert primitive.expr.subs(U, 0).doit() == 0
    assert primitive.expr.free_symbols == f.free_symbols


def test_one_open_term_leaves_the_whole_open():
    """A solver sees one integral, not a mixture."""
    assert isinstance(antiderivative(SiteFunction("f", tanh(U) + U * tanh(U))).expr, Integral)


def test_integration_variable_is_free():
    z = Symbol("z", real=True)
    primitive = antiderivative(SiteFunction("f", U * tanh(z * U))).expr
    assert primitive.diff(U) == U * tanh(z * U)


def test_log_cosh_as_written():
    expr = antiderivative(SiteFunction("phi", tanh(U))).expr
    assert expr == Abs(U) + log(1 + exp(-2 * Abs(U))) - log(2)


def test_delta_integrates_to_a_step():
    assert antiderivative(SiteFunction("d", DiracDelta(U - B))).expr == Heaviside(U - B)
    assert antiderivative(SiteFunction("d", DiracDelta(U, 1))).expr == DiracDelta(U)


def test_names():
    def name(n: str) -> str:
        return antiderivative(SiteFunction(n, tanh(U))).name

    assert [name("phi"), name("psi_1"), name("f"), name("phi'")] == ["Phi", "Psi_1", "F", "phi"]


@pytest.mark.parametrize("f", [erf(A * U), Max(U, 0), sign(U), sin(U), Abs(U), U**3])
def test_inverse_price(f):
    """∂/∂c ⟨ΦΦ⟩ = ⟨φφ⟩ for the antiderivative in both slots."""
    c, c0 = Symbol("c", positive=True), Symbol("c_0", positive=True)
    phi = SiteFunction("phi", f)
    whole = antiderivative(phi)
    low = GaussAvg([(phi, 0, 0), (phi, 0, 1)], (0, 0), ((c0, c), (c, c0))).close()
    high = GaussAvg([(whole, 0, 0), (whole, 0, 1)], (0, 0), ((c0, c), (c, c0))).close()
    assert not low.has(GaussAvg)
    assert not high.has(GaussAvg)
    at = {c: Rational(2, 5), c0: Rational(11, 10), A: Rational(13, 10)}
    assert float((high.diff(c) - low).subs(at)) == pytest.approx(0, abs=1e-13)
    assert derivative(whole).expr.subs(U, 2).subs(A, 1).evalf() == pytest.approx(float(f.subs(U, 2).subs(A, 1)))
