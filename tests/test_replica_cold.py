"""Zero temperature: ground states, regression, capacities, and the limit against low temperatures."""

from __future__ import annotations

from math import erf, erfc, exp, pi, sqrt

import numpy as np
import pytest
from scipy.optimize import brentq
from sympy import Abs, Heaviside, Max, Rational, log, symbols
from sympy import exp as sexp

from quenched import (
    Box,
    Field,
    Flat,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    N,
    Normal,
    Population,
    Positive,
    Quenched,
    QuenchedError,
    Spherical,
    derive,
    mean,
    total,
    units,
    zero_temperature,
)
from quenched.numerics.replica_evaluator import Evaluator
from quenched.theory.problem_replicas import ReplicaProblem

alpha, Delta, lam, T, h = symbols("alpha Delta lambda T h", positive=True)
kappa = symbols("kappa", real=True)
data = Population("pattern", fraction=alpha)
X = Iid("X", Normal(0, 1), over=(data, units))
s, w = Field("s"), Field("w")
J = Gaussian("J", variance=1, symmetry=1)
one = Quenched("xi_1", Ising())
PAIRS = Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2 - h * total(s), beta=1 / T)
MEMORY = Gibbs({s: Ising()}, energy=-N * mean(one * s) ** 2 / 2 - total(s * (X.T @ (X @ s))) / 2, beta=1 / T)
TARGET = X @ Quenched("w0", Normal(0, 1)) + Quenched("e", Normal(0, Delta), over=data)
RIDGE = Gibbs({w: Flat()}, energy=total((TARGET - X @ w) ** 2) / 2 + lam * total(w**2) / 2, beta=1 / T)
MARGIN = Gibbs({w: Spherical()}, weight=Heaviside(X @ w - kappa))


def numbers(model: Gibbs, *names: str, **at: float) -> list[float]:
    solution = derive(model).solve(at)
    return [float(solution[name]) for name in names]


# -- references ----------------------------------------------------------------------------------------------------
def test_ground_state_of_pairs() -> None:
    """Replicas that stay equivalent: energy −√(2/π), and no stability."""
    energy, replicon = numbers(zero_temperature(PAIRS), "energy", "replicon", h=1e-9)
    assert energy == pytest.approx(-0.797885, abs=1e-6)
    assert replicon == np.inf


def test_memory_at_zero_temperature() -> None:
    """m = erf y with y (√(2α) + (2/√π) e^{−y²}) = erf y."""
    y = brentq(lambda y: y * (sqrt(0.2) + 2 / sqrt(pi) * exp(-y * y)) - erf(y), 2, 5)
    solution = derive(zero_temperature(MEMORY)).solve(alpha=0.1)
    found = max(float(b.quantity("m").value) for b in solution.branches)
    assert found == pytest.approx(erf(y), abs=1e-9)
    assert found == pytest.approx(0.997999, abs=1e-6)


@pytest.mark.slow
def test_capacity_of_a_memory() -> None:
    theory = derive(zero_temperature(MEMORY))
    lost = theory.fold("alpha", bracket=(0.12, 0.2)).value
    assert lost == pytest.approx(0.13790557, abs=2e-8)
    m = max(float(b.quantity("m").value) for b in theory.solve(alpha=lost - 1e-7).branches)
    assert m == pytest.approx(0.967417, abs=3e-4)  # erf y at the maximum of α(y), a square root away


def test_ridge_regression() -> None:
    solution = derive(zero_temperature(RIDGE)).solve({"alpha": 2, "Delta": 0.1, "lambda": 0.5})
    m, q, train = (float(solution[name]) for name in ("m", "q", "r"))
    assert [m, q, 1 - 2 * m + q] == pytest.approx([0.719224, 0.579674, 0.141227], abs=1e-6)
    assert train == pytest.approx(0.098926, abs=1e-6)  # r = E[(∂energy/∂u)²]
    width = float(solution["chi"])
    assert width * (0.5 + 2 / (1 + width)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0])
def test_capacity_at_a_point(margin: float) -> None:
    found = derive(zero_temperature(MARGIN)).capacity("alpha", bracket=(0.05, 4), kappa=margin)
    tail = 0.5 * erfc(-margin / sqrt(2))
    exact = 1 / ((1 + margin**2) * tail + margin * exp(-(margin**2) / 2) / sqrt(2 * pi))
    assert found.value == pytest.approx(exact, abs=1e-9)


def test_largest_margin() -> None:
    found = derive(zero_temperature(MARGIN)).capacity("kappa", bracket=(0.0, 1.0), alpha=1)
    assert found.value == pytest.approx(0.470655, abs=1e-6)


# -- variants ------------------------------------------------------------------------------------------------------
def test_weights_of_one_sign() -> None:
    """Half the capacity: the best of Σ G u over u ≥ 0 with Σ u² = N has mean square ½."""
    found = derive(zero_temperature(MARGIN).fix(kappa=0)).capacity("alpha", bracket=(0.5, 4))
    positive = zero_temperature(Gibbs({w: Positive(Spherical())}, weight=Heaviside(X @ w)))
    assert derive(positive).capacity("alpha", bracket=(0.2, 3)).value == pytest.approx(found.value / 2, abs=1e-8)


def test_bounded_weights() -> None:
    """A box wider than any weight changes nothing, a narrow one lowers the capacity towards that of ±1 weights, 4/π."""

    def capacity(high: float) -> float:
        box = zero_temperature(Gibbs({w: Box(-high, high, Spherical())}, weight=Heaviside(X @ w)))
        return float(derive(box).capacity("alpha", bracket=(0.5, 4)).value)

    assert capacity(12.0) == pytest.approx(2, abs=1e-8)
    assert 4 / pi < capacity(1.2) < capacity(2.0) < 2


HINGE = Gibbs({w: Flat()}, energy=total(Max(0, 1 - X @ w)) + total(w**2) / 2, beta=1 / T)
DEVIATION = Gibbs({w: Flat()}, energy=total(Abs(1 - X @ w)) + total(w**2) / 2, beta=1 / T)
LOGISTIC = Gibbs({w: Flat()}, energy=total(log(1 + sexp(-(X @ w)))) + total(w**2) / 2, beta=1 / T)


def test_losses_with_kinks() -> None:
    """The hinge loss at zero temperature, against low temperatures."""
    cold = numbers(zero_temperature(HINGE), "q", alpha=1.5)[0]
    one, two, three = (numbers(HINGE, "q", alpha=1.5, T=t)[0] for t in (0.01, 0.005, 0.0025))
    limit = three + (three - two) ** 2 / ((two - one) - (three - two))  # a power of T between ½ and 1
    assert limit == pytest.approx(cold, abs=1e-3)
    assert cold > three


def test_low_temperatures_approach_the_limit() -> None:
    cold = numbers(zero_temperature(RIDGE), "m", "q", "energy", **{"alpha": 2, "Delta": 0.1, "lambda": 0.5})
    near = [numbers(RIDGE, "m", "q", "Q", **{"alpha": 2, "Delta": 0.1, "lambda": 0.5, "T": t}) for t in (0.02, 0.01)]
    assert near[1][:2] == pytest.approx(cold[:2], abs=1e-9)
    assert (near[0][2] - near[0][1]) / 0.02 == pytest.approx((near[1][2] - near[1][1]) / 0.01, rel=1e-6)


# -- witnesses and bad input ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "at"),
    [
        (RIDGE, {"alpha": 2, "Delta": 0.1, "lambda": 0.5}),
        (MEMORY, {"alpha": 0.1}),
        (HINGE, {"alpha": 1.5}),
        (DEVIATION, {"alpha": 1.5}),
        (LOGISTIC, {"alpha": 1.5}),
    ],
)
def test_the_energy_is_stationary(model: Gibbs, at: dict[str, float]) -> None:
    """The limit of the free entropy knows nothing of the equations, yet is stationary where they hold."""
    theory = derive(zero_temperature(model))
    problem: ReplicaProblem = theory.problem  # type: ignore[attr-defined]
    values = theory.values(at)
    state = theory.solved(values).branches[-1]
    ev = Evaluator(problem, values)
    ev.cache = {}
    point = ev.base | dict(zip(ev.unknowns, state.x, strict=True))
    for unknown in ev.unknowns:
        step = 1e-4 * (1 + abs(point[unknown]))
        up, down = (ev.number(problem.free_entropy, point | {unknown: point[unknown] + d}) for d in (step, -step))
        assert abs(up - down) / (2 * step) < 3e-6


def test_the_limit_is_a_step() -> None:
    text = derive(zero_temperature(RIDGE)).derivation.text()
    assert "Zero temperature: β → ∞" in text
    assert "Q = q + χ/β" in text
    assert "lim_{β→∞}" in text


def test_what_has_no_ground_state_says_so() -> None:
    with pytest.raises(QuenchedError, match="use capacity"):
        derive(zero_temperature(MARGIN)).solve(alpha=1, kappa=0)
    with pytest.raises(QuenchedError, match="takes a Gibbs measure"):
        zero_temperature(3)  # type: ignore[arg-type]
    with pytest.raises(QuenchedError, match="even law"):
        Positive(Normal(1, 1))
    with pytest.raises(QuenchedError, match="above low"):
        Box(1, -1)
    assert zero_temperature(PAIRS).key() != PAIRS.key()
    assert [p.name for p in zero_temperature(PAIRS).parameters] == ["h"]


@pytest.mark.slow
def test_sparse_regression() -> None:
    """|w| alone holds no state against a field, responses do: soft thresholds, their noise iterated by hand."""
    teacher = Quenched("w_0", Normal(0, 1))
    sparse = Gibbs({w: Flat()}, energy=total((X @ w - X @ teacher) ** 2) / 2 + lam * total(Abs(w)), beta=1 / T)
    load, strength, cold = 0.7, 0.5, zero_temperature(sparse.observe(q=mean(w[1] * w[2]), m=mean(w * teacher)))
    found = numbers(cold, "q", "m", **{"alpha": load, "lambda": strength})
    z, p = np.polynomial.hermite_e.hermegauss(121)
    W, Z, P = *np.meshgrid(z, z), np.outer(p, p) / (2 * np.pi)

    def states(noise: float, edge: float) -> np.ndarray:
        return np.sign(W + noise * Z) * np.maximum(np.abs(W + noise * Z) - edge, 0)

    noise, edge = 1.0, 1.0
    for _ in range(300):
        u = states(noise, edge)
        noise = np.sqrt(np.sum(P * (u - W) ** 2) / load)
        edge = strength / load + edge * erfc(edge / np.sqrt(2 * (1 + noise**2))) / load
    assert found == pytest.approx([np.sum(P * u**2), np.sum(P * u * W)], abs=2e-3)


def test_labels_in_an_energy_alone() -> None:
    """Quantile regression: where an overlap with the teacher vanishes, fields have no label but energies do."""
    alpha, lam = symbols("alpha lambda", positive=True)
    w, samples = Field("w"), Population("sample", fraction=alpha)
    x, noise = Iid("x", Normal(0, 1), over=(samples, units)), Quenched("e", Normal(0, Rational(1, 5)), over=samples)
    teacher = Quenched("w_0", Normal(0, 1))
    residual = x @ teacher + noise - x @ w
    loss = total(Max(3 * residual / 10, -7 * residual / 10)) + lam * total(w**2) / 2
    model = zero_temperature(Gibbs({w: Flat()}, energy=loss)).observe(m=mean(w * teacher), q=mean(w[1] * w[2]))
    solution = derive(model).solve({"alpha": 2, "lambda": 0.3})
    # least dual quadratic programmes of 120 to 480 units: 0.798 ± 0.004, 0.816 ± 0.004
    assert [float(solution[n]) for n in ("m", "q")] == pytest.approx([0.798, 0.816], abs=0.012)
