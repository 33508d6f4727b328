"""Witnesses of the replica steps: exact moments, the limit n → 0, finite differences, explicit replicas, samples."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from sympy import Expr, Heaviside, S, Symbol, symbols

from quenched import Field, Gaussian, Gibbs, Iid, Ising, Population, Spherical, derive, start, total, units
from quenched.numerics.replica_evaluator import Evaluator
from quenched.numerics.replica_parts import Part
from quenched.numerics.replica_sites import channel, state
from quenched.theory.problem_replicas import L, heat, slope
from quenched.theory.replica_ansatz import coincidences
from quenched.theory.replica_forms import RSAction
from quenched.theory.replica_limit import FreeEntropyForm, SaddleEquations
from quenched.theory.replicas import ReplicaDerivation
from quenched.validate.meaning_replicas import (
    copies_free_entropy,
    log_second_moment_of_margins,
    log_second_moment_of_pairs,
)
from quenched.validate.spins import Instance, heat_bath

beta, h, alpha = symbols("beta h alpha", positive=True)
kappa = Symbol("kappa", real=True)
s = Field("s")
J = Gaussian("J", variance=1, symmetry=1)
patterns = Population("pattern", fraction=alpha)
xi = Iid("xi", Ising(), over=(patterns, units))
PAIRS = Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2 - h * total(s), beta=beta)
MARGINS = Gibbs({s: Ising()}, weight=Heaviside(xi @ s - kappa))
SPHERE = Gibbs({s: Spherical()}, weight=Heaviside(xi @ s - kappa))


def rs(model: Gibbs) -> RSAction:
    found = derive(model).derivation.find(RSAction)
    assert found is not None
    return found


def values_of(action: RSAction, **numbers: float) -> dict[Symbol, float]:
    symbols_ = {v.name: v for v in action.values.values() if isinstance(v, Symbol)}
    symbols_ |= {p.name: p for p in action.problem.action.parameters}
    symbols_ |= {lam.name: lam for lam in action.multipliers.values()}
    return {symbols_[k]: v for k, v in numbers.items()}


# -- n = 2: the saddle against the exact moment --------------------------------------------------------------------
def pair_saddle(action: RSAction, b: float, field: float) -> float:
    """Largest Φ_2 over q: at n = 2 the saddle is a maximum."""
    found = minimize_scalar(
        lambda q: -copies_free_entropy(action, 2, values_of(action, beta=b, h=field, q=q)), bounds=(0, 0.999)
    )
    return -float(found.fun)


@pytest.mark.parametrize("changed", [1.0, 1.1])
def test_second_moment_of_pair_energies(changed: float) -> None:
    """N·(ln E[Z²]/N − Φ_2) tends to a constant; with a term of Φ_2 changed by a tenth it does not."""
    action = rs(PAIRS)
    if changed != 1:
        action = next(m for label, m in action.mutants() if "× 1.1" in label)  # type: ignore[assignment]
    saddle = pair_saddle(action, 0.7, 0.4)
    a, b = (n * (log_second_moment_of_pairs(n, 0.7, 0.4) - saddle) for n in (30, 60))
    assert (abs(a - b) < 0.02 * (1 + abs(a))) == (changed == 1)


@pytest.mark.parametrize("changed", [False, True])
def test_second_moment_of_margins(changed: bool) -> None:
    """The same for constraints, where the saddle is over overlaps and conjugates."""
    action = rs(MARGINS)
    if changed:
        action = next(m for label, m in action.mutants() if label == "k of pattern × 1.1")  # type: ignore[assignment]

    def at(q: float) -> float:
        inner = minimize_scalar(
            lambda r: copies_free_entropy(action, 2, values_of(action, alpha=0.5, kappa=0.2, q=q, r=r, R=0.0)),
            bounds=(0, 3),
            method="bounded",
        )
        return float(inner.fun)

    saddle = -float(minimize_scalar(lambda q: -at(q), bounds=(0.0, 0.8), method="bounded").fun)
    a, b = (n * (log_second_moment_of_margins(n, n // 2, 0.2) - saddle) for n in (40, 80))
    assert (abs(a - b) < 0.02 * (1 + abs(a))) == (not changed)


# -- n → 0 ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "point"),
    [
        (PAIRS, {"beta": 0.9, "h": 0.3, "q": 0.37}),
        (MARGINS, {"alpha": 0.6, "kappa": 0.1, "q": 0.4, "r": 1.3, "R": 0.7}),
        (SPHERE, {"alpha": 0.6, "kappa": 0.1, "q": 0.4, "r": 1.3, "R": 0.7, "lambda": 1.9}),
    ],
)
def test_few_replicas_are_approached_linearly(model: Gibbs, point: dict[str, float]) -> None:
    """Φ_n/n − Φ falls tenfold with n, at any point."""
    theory = derive(model)
    action, free = rs(model), theory.derivation.find(FreeEntropyForm)
    assert free is not None
    at = values_of(action, **point)
    limit = evaluator(theory.derivation, at).number(free.value, at)
    gaps = [copies_free_entropy(action, n, at) / n - limit for n in (0.01, 0.001)]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


def evaluator(derivation: ReplicaDerivation, at: dict[Symbol, float]) -> Evaluator:
    assert derivation.replica_problem is not None
    ev = Evaluator(derivation.replica_problem, at)
    ev.names = list(at)
    ev.cache = {}
    return ev


# -- stationarity --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "point"),
    [
        (PAIRS, {"beta": 0.9, "h": 0.3, "q": 0.37}),
        (MARGINS, {"alpha": 0.6, "kappa": 0.1, "q": 0.4, "r": 1.3, "R": 0.7}),
        (SPHERE, {"alpha": 0.6, "kappa": 0.1, "q": 0.4, "r": 1.3, "R": 0.7, "lambda": 1.9}),
    ],
)
def test_gradient_is_the_slope_of_the_free_entropy(model: Gibbs, point: dict[str, float]) -> None:
    """Price's and the heat rule against differences, far from the saddle."""
    derivation = derive(model).derivation
    action, equations = rs(model), derivation.find(SaddleEquations)
    assert equations is not None
    at = values_of(action, **point)
    ev = evaluator(derivation, at)
    for unknown, gradient in equations.gradient.items():
        up, down = (ev.number(equations.free.value, at | {unknown: at[unknown] + d}) for d in (1e-4, -1e-4))
        assert ev.number(gradient, at) == pytest.approx((up - down) / 2e-4, abs=1e-7)
        assert abs(ev.number(gradient, at)) > 1e-4


def test_derivative_rules_on_polynomials() -> None:
    assert slope(L[1] ** 2) == 2 * L[1] * L[2]
    assert heat(L[0]).expand() == (L[2] + L[1] ** 2).expand() / 2
    assert heat(L[1]) == (slope(heat(L[0]))).expand()


def test_copies_coincide_in_all_ways() -> None:
    """Set partitions, with n(n−1)… for the number of choices: they sum to n^copies."""
    n = Symbol("n")
    for size, bell in ((1, 1), (2, 2), (3, 5), (4, 15)):
        ways = list(coincidences(tuple(range(size))))
        assert len(ways) == bell
        count: Expr = S.Zero
        for _, blocks in ways:
            term: Expr = S.One
            for j in range(blocks):
                term *= n - j
            count += term
        assert (count - n**size).expand() == 0


# -- stability -----------------------------------------------------------------------------------------------------
def test_replicon_against_four_explicit_replicas() -> None:
    """The covariance of the pairs of 4 replicas, by enumeration, has the projected moment as a twofold eigenvalue."""
    q, b, field = 0.4, 1.1, 0.3
    states = np.array(list(product((-1, 1), repeat=4)))
    weight = np.exp(b**2 * q / 2 * states.sum(1) ** 2 + b * field * states.sum(1))
    weight /= weight.sum()
    pairs = np.array([states[:, i] * states[:, j] for i, j in combinations(range(4), 2)])
    sigma = (pairs * weight) @ pairs.T - np.outer(pairs @ weight, pairs @ weight)
    z, w = np.polynomial.hermite_e.hermegauss(90)
    inside = b * field + b * np.sqrt(q) * z
    tilt = w * np.cosh(inside) ** 4
    projected = (tilt @ np.cosh(inside) ** -4.0) / tilt.sum()
    assert sum(abs(np.linalg.eigvalsh(sigma) - projected) < 1e-10) == 2


# -- sites ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("b", "v"), [(0.3, 0.8), (-4.0, 0.05)])
def test_truncated_gaussians_against_quadrature(b: float, v: float) -> None:
    parts = (Part(-np.inf, 0.2, (-1.0, 0.3, 0.0)), Part(0.2, np.inf, (0.0, 0.0, -0.7)))
    bs = np.array([b])
    value, first, second = (float(a[0]) for a in channel(parts, bs, v, "x"))

    def partition(shift: float) -> float:
        def f(u: float) -> float:
            part = parts[u > 0.2].c
            assert part is not None
            gauss = np.exp(-((u - shift) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
            return float(np.exp(part[0] + part[1] * u + part[2] * u * u / 2) * gauss)

        reach = 12 * np.sqrt(v)
        return float(quad(f, shift - reach, shift + reach, points=[0.2], epsabs=0, epsrel=1e-12, limit=200)[0])

    logs = [np.log(partition(b + d)) for d in (-1e-3, 0, 1e-3)]
    assert value == pytest.approx(logs[1], abs=1e-9)
    assert first == pytest.approx((logs[2] - logs[0]) / 2e-3, abs=1e-5)
    assert second == pytest.approx((logs[2] - 2 * logs[1] + logs[0]) / 1e-6, abs=1e-3)


def test_steps_far_in_the_tail_stay_accurate() -> None:
    """ln P(z > a) and the inverse Mills ratio where the probability underflows."""
    value, first, second = (float(a[0]) for a in channel((Part(0.0, np.inf, (0.0,) * 3),), np.array([-60.0]), 1.0, "x"))
    assert value == pytest.approx(-1800 - np.log(60 * np.sqrt(2 * np.pi)) - 1 / 3600, abs=1e-6)
    assert first == pytest.approx(60 + 1 / 60, abs=1e-5)
    assert second == pytest.approx(-1 + 1 / 3600, abs=1e-6)


def test_states_with_atoms_and_densities() -> None:
    """Half an atom at zero, half a standard normal number: the log-partition function by hand."""
    parts = (
        Part(0.0, 0.0, (np.log(0.5), 0.0, 0.0)),
        Part(-np.inf, np.inf, (np.log(0.5 / np.sqrt(2 * np.pi)), 0.0, -1.0)),
    )
    value, first, _ = (float(a[0]) for a in state(parts, np.array([0.7]), -0.5, "x"))
    slab = 0.5 / np.sqrt(1.5) * np.exp(0.7**2 / 3)
    assert value == pytest.approx(np.log(0.5 + slab), abs=1e-12)
    assert first == pytest.approx(slab / (0.5 + slab) * 0.7 / 1.5, abs=1e-12)


# -- finite systems ------------------------------------------------------------------------------------------------
def test_enumeration_of_constraints() -> None:
    """Entropy of ±1 weights by counting all states, against the theory at the actual ratio of patterns."""
    counts = [Instance(MARGINS, 12, 1, k, alpha=0.25, kappa=0).enumerate().log_z / 12 + np.log(2) for k in range(60)]
    theory = float(derive(MARGINS).solve(alpha=0.25, kappa=0)["entropy"])
    error = np.std(counts, ddof=1) / np.sqrt(len(counts))
    assert np.mean(counts) == pytest.approx(theory, abs=3 * error + 0.01)
    assert error < 0.01


def test_enumeration_agrees_with_the_pair_form() -> None:
    instance = Instance(PAIRS, 8, 3, 0, beta=0.7, h=0.3)
    exact = instance.enumerate()
    a, field = instance.pair_form()
    states = np.array(list(product((-1.0, 1.0), repeat=8)))
    energy = -0.5 * np.einsum("ki,ij,kj->k", states, a, states) - states @ field
    shift = instance.energy({s: states}) - energy
    assert np.ptp(shift) < 1e-10
    assert exact.log_z == pytest.approx(np.log(np.mean(np.exp(-0.7 * (energy + shift[0])))), abs=1e-10)


def test_heat_bath_against_theory() -> None:
    runs = heat_bath(PAIRS, 64, 24, 1200, seed=2, beta=1 / 1.2, h=0.5)
    solution = derive(PAIRS).solve(beta=1 / 1.2, h=0.5)
    for name in ("energy", "m", "q"):
        found = getattr(runs, name)
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert found.mean() == pytest.approx(float(solution[name]), abs=4 * error + 1 / 64), name
    assert abs(runs.drift.mean()) < 4 * runs.drift.std() / np.sqrt(len(runs.drift)) + 1e-3


def test_verbs_step_by_step() -> None:
    d = start(MARGINS).average().order_parameters().saddle().ansatz()
    assert isinstance(d.form, RSAction)
    assert d.few_replicas().stationarity().replicon().observables().replica_problem is not None
