"""Self-consistency problems written by hand, for tests of the solvers."""

from __future__ import annotations

from sympy import Expr, Integer, asin, erf, pi, sqrt, symbols, tanh

from quenched.theory.problem import (
    C12,
    DS,
    DT,
    LAMBDA,
    V1,
    Argument,
    OnePoint,
    PotentialProblem,
    SiteFunction,
    StationaryGaussian,
    TwoPoint,
    U,
)

g, s2 = symbols("g s2", nonnegative=True)
J0, h, delta, gamma, a_rate = symbols("J0 h delta gamma a_rate", real=True)
b, tau_a = symbols("b tau_a", positive=True)
MATRIX = (symbols("g_EE g_EI", nonnegative=True), symbols("g_IE g_II", nonnegative=True))
FLOW = (1 + DT) * (1 + DS)
ZERO, TANH = Integer(0), tanh(U)
ERF = erf(sqrt(pi) * U / 2)
ERF_CLOSED = 2 / pi * asin(pi / 2 * C12 / (1 + pi * V1 / 2))


def one_argument(
    expr: Expr,
    *,
    gain: Expr = g**2 / FLOW,
    noise: Expr = 2 * s2 / FLOW,
    constant: Expr = ZERO,
    mean_gain: Expr | None = None,
    static: Expr = ZERO,
    clock: str = "flow",
    closed: Expr | None = None,
    labels: tuple = (),
    responses: dict[str, Expr] | None = None,
) -> StationaryGaussian:
    """x with one nonlinear output; every option as in `StationaryGaussian`."""
    phi = SiteFunction("phi", expr)
    ones = () if mean_gain is None else (OnePoint(phi, 0),)
    rows = ((),) if mean_gain is None else ((mean_gain,),)
    free = set().union(*(e.free_symbols for e in (expr, gain, noise, constant, static, *(rows[0]))))
    free -= {U, DT, DS} | {label.symbol for label in labels}
    return StationaryGaussian(
        clock=clock,
        parameters=tuple(sorted(free, key=lambda s: s.name)),
        labels=labels,
        arguments=(Argument("x", "units", constant),),
        pairs=((0, 0),),
        one_points=ones,
        two_points=(TwoPoint(phi, 0, phi, 0, closed),),
        mean_gain=rows,
        gain=((gain,),),
        noise=(noise,),
        static=(static,),
        closure=1,
        responses={"x": 1 / (1 + DT)} if responses is None and clock == "flow" else (responses or {}),
    )


def particle(full: StationaryGaussian, *, kick: Expr = s2, weight: Expr = g**2) -> PotentialProblem:
    """The reduction of a first-order flow with unit time constant."""
    return PotentialProblem(
        full=full,
        inertia=Integer(1),
        stiffness=Integer(1),
        kick=kick,
        static=full.static[0],
        weights=(weight,),
        sources=full.two_points,
        potentials=full.two_points,
        growth_stiffness=(1 + LAMBDA) ** 2,
    )


def scs(expr: Expr = TANH, closed: Expr | None = None) -> tuple[StationaryGaussian, PotentialProblem]:
    """The random rate network: x' = −x + J φ(x) + √(2 s2) ξ."""
    full = one_argument(expr, closed=closed)
    return full, particle(full)


def leaky_map(expr: Expr = TANH) -> StationaryGaussian:
    """x(n+1) = (1 − δ) x(n) + δ J φ(x(n)) + √(2 s2 δ) ξ(n)."""
    decay = (DT - 1 + delta) * (DS - 1 + delta)
    return one_argument(expr, gain=g**2 * delta**2 / decay, noise=2 * s2 * delta / decay, clock="map")


def adapting(expr: Expr = TANH) -> StationaryGaussian:
    """x' = −x − b a + J φ(x) + √(2 s2) ξ, τ a' = x − a: a second-order unit."""

    def transfer(d: Expr) -> Expr:
        return (1 + tau_a * d) / ((1 + d) * (1 + tau_a * d) + b)

    both = transfer(DT) * transfer(DS)
    return one_argument(expr, gain=g**2 * both, noise=2 * s2 * both, responses={"x": transfer(DT)})


def two_populations(expr: Expr = TANH) -> StationaryGaussian:
    """Two populations with gains g_ab² / 2 on each other's output (2×2 matrix of independent couplings)."""
    phi = SiteFunction("phi", expr)
    gains = tuple(tuple(gain**2 / 2 / FLOW for gain in row) for row in MATRIX)
    return StationaryGaussian(
        clock="flow",
        parameters=tuple(sorted({x for row in MATRIX for x in row} | {s2}, key=lambda s: s.name)),
        labels=(),
        arguments=(Argument("x_E", "E", ZERO), Argument("x_I", "I", ZERO)),
        pairs=((0, 0), (1, 1)),
        one_points=(),
        two_points=(TwoPoint(phi, 0, phi, 0), TwoPoint(phi, 1, phi, 1)),
        mean_gain=((), ()),
        gain=gains,
        noise=(2 * s2 / FLOW, 2 * s2 / FLOW),
        static=(ZERO, ZERO),
        closure=2,
        responses={"x_E": 1 / (1 + DT)},
    )


def two_fields(rate: Expr) -> StationaryGaussian:
    """x' = −x + J ψ, y' = −rate·y + J ψ in one population with ψ = (φ(x) + φ(y))/2 and shared noise."""
    phi = SiteFunction("phi", TANH)
    fields = [(0, 0), (0, 1), (1, 0), (1, 1)]
    filters = [(1, 1), (1, rate), (rate, rate)]
    return StationaryGaussian(
        clock="flow",
        parameters=tuple(sorted({g, s2} | rate.free_symbols, key=lambda s: s.name)),
        labels=(),
        arguments=(Argument("x", "units", ZERO), Argument("y", "units", ZERO)),
        pairs=((0, 0), (0, 1), (1, 1)),
        one_points=(),
        two_points=tuple(TwoPoint(phi, a, phi, c) for a, c in fields),
        mean_gain=((), ()),
        gain=tuple(tuple(g**2 / 4 / ((p + DT) * (q + DS)) for _ in fields) for p, q in filters),
        noise=tuple(2 * s2 / ((p + DT) * (q + DS)) for p, q in filters),
        static=(ZERO,) * 3,
        closure=3,
        responses={"x": 1 / (1 + DT)},
    )
