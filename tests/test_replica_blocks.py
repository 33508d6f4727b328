"""Broken replica symmetry: blocks of replicas, random functions, ground states, transitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from sympy import Heaviside, S, Symbol, symbols

from quenched import (
    Field,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    Landscape,
    Population,
    QuenchedError,
    Spherical,
    derive,
    start,
    total,
    units,
    zero_temperature,
)
from quenched.numerics.replica_evaluator import Evaluator
from quenched.theory.replica_blocks import BlockAction

T, h, alpha = symbols("T h alpha", positive=True)
kappa = Symbol("kappa", real=True)
s = Field("s")
J = Gaussian("J", variance=1, symmetry=1)
PAIRS = Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2 - h * total(s), beta=1 / T)


def bodies(p: int) -> Gibbs:
    return Gibbs({s: Spherical()}, energy=Landscape("V", lambda q: q**p / 2)(s), beta=1 / T)


# -- references ----------------------------------------------------------------------------------------------------
def test_ground_state_of_pairs_in_blocks() -> None:
    """Between the energy of symmetric replicas, −0.797885, and that of all steps, −0.76317."""
    solution = derive(zero_temperature(PAIRS)).broken().solve(h=1e-12)
    found = [float(solution[name]) for name in ("energy", "q_0", "y")]
    assert found == pytest.approx([-0.765259, 0.47678, 1.36082], abs=6e-6)
    assert not solution.main.stable


def test_transition_of_three_bodies() -> None:
    """At T_s blocks of all replicas, x = 1, are stationary; q jumps to 0.645."""
    theory = derive(bodies(3)).broken()
    solution = theory.solve(T=0.586054, x=1.0)
    assert float(solution["slope_x"]) == pytest.approx(0, abs=2e-6)
    assert float(solution["q_1"]) == pytest.approx(0.645007, abs=2e-6)
    below = theory.solve(T=0.5)
    assert 0 < float(below["x"]) < 1
    assert below.main.stable


@pytest.mark.slow
@pytest.mark.parametrize("p", [3, 4])
def test_dynamical_transition(p: int) -> None:
    """Blocks of size one are lost at T_d = √(p (p−2)^{p−2} / (2 (p−1)^{p−1}))."""
    exact = np.sqrt(p * (p - 2) ** (p - 2) / (2 * (p - 1) ** (p - 1)))
    theory = derive(bodies(p)).broken()
    found = theory.fold("T", bracket=(0.9 * exact, 1.1 * exact), start={"q_0": 0.0, "q_1": 0.75}, x=1.0)
    assert found.value == pytest.approx(exact, abs=1e-6)


@pytest.mark.slow
def test_ground_state_of_three_bodies() -> None:
    """Ground state −1.171675; states are marginal at the threshold, −√(4/3)."""
    theory = derive(zero_temperature(bodies(3))).broken()
    solution = theory.solve()
    assert float(solution["energy"]) == pytest.approx(-1.171675, abs=1e-6)
    assert float(solution["complexity"]) == pytest.approx(0, abs=1e-8)

    def marginal(y: float) -> float:
        return float(theory.solve(y=y, start={"q_0": 0.0})["replicon"]) - 1

    edge = theory.solve(y=brentq(marginal, 0.5, 0.88, xtol=1e-9), start={"q_0": 0.0})
    assert float(edge["energy_of_states"]) == pytest.approx(-np.sqrt(4 / 3), abs=1e-7)
    assert float(edge["complexity"]) > 0


def test_three_bodies_above_the_transition() -> None:
    energy, q = (float(derive(bodies(3)).solve(T=1.0)[name]) for name in ("energy", "q"))
    assert [energy, q] == pytest.approx([-0.5, 0], abs=1e-9)


# -- witnesses -----------------------------------------------------------------------------------------------------
def explicit(values: list[float], sizes: list[int], n: int) -> np.ndarray:
    """The matrix of overlaps of n replicas in blocks within blocks, 1 on the diagonal."""
    a = np.arange(n)
    out = np.full((n, n), values[0])
    for q, size in zip(values[1:], sizes, strict=True):
        out[a[:, None] // size == a[None, :] // size] = q
    np.fill_diagonal(out, 1.0)
    return out


@pytest.mark.parametrize(("q", "sizes"), [([0.2, 0.6], [2]), ([0.1, 0.3, 0.7], [6, 2])])
def test_sums_over_pairs_of_explicit_replicas(q: list[float], sizes: list[int]) -> None:
    """Σ_ab f(Q_ab) of 12 replicas per replica, with x₀ = n put back."""
    action = start(PAIRS).average().order_parameters().saddle().blocks(len(sizes)).find(BlockAction)
    assert action is not None
    n, b, field = 12, 0.9, 0.3
    matrix = explicit(q, sizes, n)
    names = {v: a for values in action.values.values() for v, a in zip(values, q, strict=False) if len(values) > 1}
    at = names | dict(zip(action.sizes, sizes, strict=True)) | {T: 1 / b, h: field}
    outer = -(b**2) / 4 * n * q[0] ** 2  # the n that the limit drops
    fixed = b**2 / 2 * (1 - q[-1])  # part of the site that a fixed norm moves into the terms
    found = float(action.terms.subs(at)) + outer
    assert found == pytest.approx(-(b**2) / 4 * float(np.sum(matrix**2)) / n + fixed, abs=1e-12)


def test_nested_fields_are_explicit_replicas() -> None:
    """ln Σ over 2⁶ states of six replicas in blocks of three, against nested Gaussian fields of the same blocks."""
    from itertools import product

    q0, q1, b, field, n, x = 0.25, 0.65, 0.8, 0.4, 6, 3
    matrix = explicit([q0, q1], [x], n)
    states = np.array(list(product((-1.0, 1.0), repeat=n)))
    off = b**2 * (matrix - np.eye(n))
    total_ = np.sum(np.exp(0.5 * np.einsum("ka,ab,kb->k", states, off, states) + b * field * states.sum(1)))
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / np.sqrt(2 * np.pi)
    inner = b * field + b * np.sqrt(q0) * z[:, None] + b * np.sqrt(q1 - q0) * z
    block = ((2 * np.cosh(inner)) ** x) @ w
    assert total_ * np.exp(b**2 * q1 * n / 2) == pytest.approx(w @ block ** (n // x), rel=1e-10)
    action = start(PAIRS).average().order_parameters().saddle().blocks().find(BlockAction)
    assert action is not None
    (site,) = action.sites
    at = {v: a for values in action.values.values() for v, a in zip(values, (q0, q1), strict=False) if len(values) > 1}
    numbers = at | {T: 1 / b, h: field, action.sizes[0]: x}
    assert [float(e.subs(numbers)) for e in (site.b, site.k, site.levels[0][0])] == pytest.approx(
        [b * field, b**2 * q0, b**2 * (q1 - q0)]
    )


@pytest.mark.parametrize("model", [PAIRS, bodies(3)])
def test_the_free_entropy_is_stationary(model: Gibbs) -> None:
    """In every overlap at the saddle, and with the stated slope in the size of blocks anywhere."""
    theory = derive(model).broken()
    at = {"T": 0.5, "h": 0.2} if model is PAIRS else {"T": 0.5}
    solution = theory.solve(**at, x=0.6)
    problem = theory.problem  # type: ignore[attr-defined]
    values = theory.values(at, x=0.6)
    ev = Evaluator(problem, values)
    x = np.array([float(solution[s_.name]) for s_ in ev.unknowns])
    point = ev.point(x)
    size = theory.sizes[0]  # type: ignore[attr-defined]
    for symbol in [*ev.unknowns, size]:
        up, down = (ev.number(problem.free_entropy, point | {symbol: point[symbol] + d}) for d in (1e-4, -1e-4))
        expected = float(solution["slope_x"]) if symbol == size else 0.0
        assert (up - down) / 2e-4 == pytest.approx(expected, abs=2e-6)


def test_one_overlap_at_all_levels_is_symmetry() -> None:
    """Two steps with the overlaps of replica symmetry have its free entropy."""
    symmetric = derive(PAIRS).solve(T=1.2, h=0.5)
    theory = start(PAIRS).average().order_parameters().saddle().blocks(2)
    problem = theory.replica_problem
    assert problem is not None
    sizes = dict(zip(problem.parameters[-2:], (0.4, 0.7), strict=True))
    ev = Evaluator(problem, {T: 1.2, h: 0.5, **sizes})
    q = float(symmetric["q"])
    seen = ev.observe(np.full(3, q))
    assert seen["free_entropy"] == pytest.approx(float(symmetric["free_entropy"]), abs=1e-9)
    assert ev.update(np.full(3, q)) == pytest.approx(np.full(3, q), abs=1e-8)
    assert seen["replicon"] == pytest.approx(float(symmetric["replicon"]), abs=1e-8)


# -- bad input -----------------------------------------------------------------------------------------------------
def test_what_blocks_and_random_functions_need() -> None:
    with pytest.raises(QuenchedError, match="expected terms"):
        Landscape("V", lambda q: 1 + q)
    with pytest.raises(QuenchedError, match="polynomials of the overlap"):
        Landscape("V", lambda q: 1 / q)
    with pytest.raises(QuenchedError, match="takes a field"):
        Landscape("V", lambda q: q**3)(3)
    xi = Iid("xi", Ising(), over=(Population("pattern", fraction=alpha), units))
    margins = Gibbs({s: Ising()}, weight=Heaviside(xi @ s - kappa))
    assert "√" in derive(margins).broken().derivation.text()
    assert S.Half == Landscape("V", lambda q: q**2 / 2).f.coeff(Symbol("q", real=True), 2)
