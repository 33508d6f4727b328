"""Self-consistency problems written by hand, for tests of the solvers."""

from __future__ import annotations

from sympy import Expr, Integer, Symbol, asin, erf, pi, sqrt, symbols, tanh

from quenched.theory.problem import (
    C12,
    DS,
    DT,
    LAMBDA,
    U,
    V1,
    Argument,
    OnePoint,
    PotentialProblem,
    SiteFunction,
    StationaryGaussian,
    TwoPoint,
)

g, s2 = symbols("g s2", nonnegative=True)
J0, h, delta, gamma, a_rate = symbols("J0 h delta gamma a_rate", real=True)
FLOW = (1 + DT) * (1 + DS)
ERF = erf(sqrt(pi) * U / 2)
ERF_CLOSED = 2 / pi * asin(pi / 2 * C12 / (1 + pi * V1 / 2))


def one_argument(
    expr: Expr,
    *,
    gain: Expr = g**2 / FLOW,
    noise: Expr = 2 * s2 / FLOW,
    constant: Expr = Integer(0),
    mean_gain: Expr | None = None,
    static: Expr = Integer(0),
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


def scs(expr: Expr = tanh(U), closed: Expr | None = None) -> tuple[StationaryGaussian, PotentialProblem]:
    """The random rate network: x' = −x + J φ(x) + √(2 s2) ξ."""
    full = one_argument(expr, closed=closed)
    return full, particle(full)
