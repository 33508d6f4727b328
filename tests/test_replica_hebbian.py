"""Patterns that condense: Hebbian windows of any length, finite cycles, correlated attractors."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from sympy import I, Rational, cos, exp, symbols

from quenched import (
    Circulant,
    Field,
    Gibbs,
    Iid,
    Ising,
    N,
    Normal,
    Population,
    QuenchedError,
    catalogue,
    derive,
    mean,
    total,
    units,
    validate,
    zero_temperature,
)
from quenched.design import design_of
from quenched.numerics.replica_evaluator import Evaluator
from quenched.numerics.replica_signs import Density, FreeLabel
from quenched.numerics.replica_slopes import jacobian
from quenched.theory.circulant import ANGLE
from quenched.theory.replica_condense import Condensed, coefficients
from quenched.validate.witness import verify

alpha, T = symbols("alpha T", positive=True)
PROFILE = dict(m_xi_0=0.6, m_xi_1=0.4, m_xi_m1=0.4, m_xi_2=0.1, m_xi_m2=0.1, m_xi_3=0.02, m_xi_m3=0.02)


def cycle(size: int, d: int = 1) -> Gibbs:
    return catalogue["hebbian-length-correlations"](d=d, size=size, distances=4)


def numbers(model: Gibbs, *names: str, **at: float) -> list[float]:
    solution = derive(model).solve(at)
    return [float(solution[name]) for name in names]


# -- references ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("d", "at", "found"),
    [
        (1, (0.05, 0.25, 0.08), [0.99446, 0.00309, 0.98960, 1.09362, -0.49721]),
        pytest.param(1, (0.09, 0.2, 0.04), [0.99181, 0.00255, 0.98761, 1.12691, -0.49817], marks=pytest.mark.slow),
        pytest.param(2, (0.05, 0.2, -0.08), [0.99632, -0.00229, 0.99359, 1.09113, -0.49880], marks=pytest.mark.slow),
        pytest.param(1, (0.02, 0.1, 0.2), [0.99980, 0.00020, 0.99963, 1.08873, -0.49996], marks=pytest.mark.slow),
    ],
)
def test_retrieval_next_to_many_patterns(d: int, at: tuple[float, float, float], found: list[float]) -> None:
    """Overlaps with the pattern and its neighbours, noise of the others, energy; neighbours of either sign."""
    load, T, gamma = at
    model = catalogue["hebbian-length-correlations"](d=d)
    m0, m1, q, r, e = numbers(model, "m_0", "m_1", "q", "r", "e", alpha=load, T=T, gamma=gamma)
    assert [m0, m1, q, r * T**2, e] == pytest.approx(found, abs=6e-6)


def test_a_finite_cycle() -> None:
    m = numbers(cycle(9), "m_0", "m_1", "m_2", "m_3", "m_4", "q")
    assert m == pytest.approx([0.6030, 0.3970, 0.1031, 0.0217, 0.0048, 0.98878], abs=6e-5)


def test_a_cycle_with_negative_neighbours() -> None:
    m = numbers(cycle(9, 2), "m_0", "m_1", "m_2", "m_3", "q", T=0.1, gamma=-0.3)
    assert m == pytest.approx([0.8716, -0.1236, -0.1274, 0.0073, 0.98567], abs=6e-5)


def test_a_cycle_at_zero_temperature() -> None:
    """Overlaps 77, 51, 13, 3, 1 in units of 1/128; ties of the field count half."""
    m = numbers(zero_temperature(cycle(11)), "m_0", "m_1", "m_2", "m_3", "m_4", gamma=0.6)
    assert m == pytest.approx([k / 128 for k in (77, 51, 13, 3, 1)], abs=1e-9)
    assert numbers(zero_temperature(cycle(9)), "m_0", "m_1", gamma=0.4) == pytest.approx([1, 0], abs=1e-12)


def test_negative_neighbours_at_zero_temperature() -> None:
    m = numbers(zero_temperature(cycle(9, 2)), "m_0", "m_1", "m_2", "m_3", gamma=-0.3)
    assert m == pytest.approx([7 / 8, -1 / 8, -1 / 8, 0], abs=1e-9)


@pytest.mark.slow
def test_ground_states_next_to_many_patterns() -> None:
    cold = zero_temperature(catalogue["hebbian-length-correlations"]())
    m0, m1, r, chi, energy = numbers(cold, "m_0", "m_1", "r", "chi", "energy", alpha=0.08, gamma=0.1)
    assert [m0, m1, r, chi, energy] == pytest.approx([0.99807, 0.00160, 1.06553, 0.02077, -0.50014], abs=6e-6)


@pytest.mark.slow
def test_correlated_attractors() -> None:
    """A branch that iteration does not reach, by Newton's method from a rough profile."""
    solution = derive(catalogue["hebbian-length-correlations"](distances=3)).solve(
        {"alpha": 0.0015, "T": 0.1, "gamma": 0.5}, start=PROFILE
    )
    found = [float(solution[f"m_{k}"]) for k in range(4)]
    assert found == pytest.approx([0.5927, 0.4047, 0.0976, 0.0196], abs=6e-5)
    assert [float(solution["q"]), float(solution["r"]) / 100] == pytest.approx([0.97170, 5.723], abs=6e-4)
    assert float(solution["replicon"]) == pytest.approx(0.016, abs=6e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "found"),
    [
        ({"alpha": 0.0015, "gamma": 0.5}, [0.5927, 0.4047, 0.0976, 0.0196, 0.97170]),
        ({"alpha": 0.003, "gamma": 0.4}, [0.5779, 0.4194, 0.0822, 0.0169, 0.96690]),
    ],
)
def test_a_start_that_iteration_loses(at: dict[str, float], found: list[float]) -> None:
    """The correlated attractor as the state that the declared start leads to; samples of it are large."""
    model = catalogue["hebbian-length-correlations"](distances=3)
    solution = derive(model).solve({**at, "T": 0.1})
    assert [float(solution[n]) for n in ("m_0", "m_1", "m_2", "m_3", "q")] == pytest.approx(found, abs=6e-5)
    sizes = design_of(model, model.values({**at, "T": 0.1}), solution, True, {}).sizes
    assert at["alpha"] * min(sizes) > 80


@pytest.mark.slow
def test_correlated_attractors_next_to_more_patterns() -> None:
    """A start from which Newton's method stalls, and a mixture of three patterns at the same point."""
    theory = derive(catalogue["hebbian-length-correlations"](distances=3))
    at = {"alpha": 0.005, "T": 0.1, "gamma": 0.3}
    for start, m, q, r, replicon in (
        (PROFILE, [0.5610, 0.4063, 0.1051, 0.0330], 0.95095, 12.9, 0.22),
        (dict(m_xi_0=0.5, m_xi_1=0.5, m_xi_m1=0.5), [0.5137, 0.4862, 0.0138, 0.0009], 0.98237, 1.98, 0.01),
    ):
        solution = theory.solve(at, start=start)
        assert [float(solution[f"m_{k}"]) for k in range(4)] == pytest.approx(m, abs=6e-5)
        assert float(solution["q"]) == pytest.approx(q, abs=6e-6)
        assert float(solution["r"]) / 100 == pytest.approx(r, abs=0.05)
        assert float(solution["replicon"]) == pytest.approx(replicon, abs=6e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gamma", "end"),
    [(0.35, 0.00583), (0.4, 0.00424), (0.45, 0.00317), (0.5, 0.00232), (0.55, 0.00159), (0.6, 0.00095)],
)
def test_where_correlated_attractors_end(gamma: float, end: float) -> None:
    theory = derive(catalogue["hebbian-length-correlations"]())
    found = theory.fold("alpha", bracket=(0.0005, 0.02), gamma=gamma, T=0.1, start=PROFILE)  # type: ignore[attr-defined]
    assert found.value == pytest.approx(end, abs=6e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "end"), [(0.35, 0.00694), (0.45, 0.00415), (0.5, 0.00332), (0.6, 0.00189)])
def test_where_correlated_ground_states_end(gamma: float, end: float) -> None:
    theory = derive(zero_temperature(catalogue["hebbian-length-correlations"]()))
    bracket = (0.6 * end, 2 * end)
    found = theory.fold("alpha", bracket=bracket, gamma=gamma, start=PROFILE)  # type: ignore[attr-defined]
    assert found.value == pytest.approx(end, abs=6e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "gamma", "capacity"), [(1, 0.1, 0.1164), (1, 0.3, 0.0200), (2, 0.1, 0.0940), (2, -0.1, 0.0987)]
)
def test_capacities_of_windows(d: int, gamma: float, capacity: float) -> None:
    """Retrieval at zero temperature is lost at a fold."""
    theory = derive(zero_temperature(catalogue["hebbian-length-correlations"](d=d)))
    bracket = (0.7 * capacity, 1.3 * capacity)
    found = theory.fold("alpha", bracket=bracket, gamma=gamma)  # type: ignore[attr-defined]
    assert found.value == pytest.approx(capacity, abs=6e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gamma", "load", "temperature"),
    [
        (0, 0.12, 0.00499),
        (0, 0.13, 0.00947),
        (0, 0.137, 0.01795),
        (0.1, 0.09, 0.00234),
        (0.1, 0.10, 0.00449),
        (0.1, 0.11, 0.00902),
        (0.2, 0.05, 0.00179),
        (0.2, 0.064, 0.00933),
    ],
)
def test_where_retrieval_breaks_the_symmetry_of_replicas(gamma: float, load: float, temperature: float) -> None:
    """Far below other temperatures, where R = 1."""
    theory = derive(catalogue["hebbian-length-correlations"]())
    bracket = (0.7 * temperature, 1.3 * temperature)
    found = theory.critical("T", bracket=bracket, alpha=load, gamma=gamma)  # type: ignore[attr-defined]
    assert found.value == pytest.approx(temperature, abs=6e-6)


@pytest.mark.parametrize(
    ("gamma", "load", "T", "replicon"),
    [(0, 0.1, 0.2, 0.0196), (0, 0.05, 0.5, 0.0270), (0.1, 0.05, 0.4, 0.0182), (0.1, 0.1, 0.1, 0.0577)],
)
def test_replicon_of_retrieval(gamma: float, load: float, T: float, replicon: float) -> None:
    found = numbers(catalogue["hebbian-length-correlations"](), "replicon", gamma=gamma, alpha=load, T=T)
    assert found == pytest.approx([replicon], abs=6e-5)


@pytest.mark.parametrize(
    ("size", "d", "T", "gamma", "between"),
    [
        (9, 1, 0.05, 0.6, (0.66005, 0.33022)),
        (9, 2, 0.1, -0.3, (-0.13048, -0.19884)),
        (9, 2, 0.05, 0.26, (1, 1)),
        (11, 1, 0, 0.6, (85 / 128, 85 / 256)),
    ],
)
def test_attractors_on_a_cycle_overlap(size: int, d: int, T: float, gamma: float, between: tuple[float, ...]) -> None:
    model = cycle(size, d)
    at = {"gamma": gamma, **({"T": T} if T else {})}
    theory = derive(model if T else zero_temperature(model))
    found = [theory.between(k, at).value for k in (1, 2)]  # type: ignore[attr-defined]
    assert found == pytest.approx(between, abs=6e-6)


def test_broad_states_of_a_cycle() -> None:
    """All attractors merge."""
    found = numbers(cycle(9, 2), "m_0", "m_1", "m_4", "q", T=0.05, gamma=0.26)
    assert found == pytest.approx([0.2734, 0.2734, 0.2734, 1], abs=5e-5)


@pytest.mark.slow
def test_larger_cycles() -> None:
    found = numbers(cycle(13, 2), "m_0", "m_1", "m_4", "q", T=0.3, gamma=0.4)
    assert found == pytest.approx([0.22429, 0.22429, 0.22429, 0.96701], abs=6e-6)
    at = {"T": 0.1, "gamma": 0.6}
    found = numbers(cycle(14), "m_0", "m_1", "m_2", "m_3", "m_4", "q", **at)
    assert found == pytest.approx([0.60107, 0.39759, 0.10373, 0.02027, 0.00386, 0.97653], abs=6e-6)
    theory = derive(cycle(14))
    assert [theory.between(k, at).value for k in (1, 2)] == pytest.approx([0.65235, 0.32266], abs=6e-6)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_attractors_of_neighbouring_patterns_overlap() -> None:
    """Correlated attractors at distance 1 and 2; far from each other nothing is left."""
    theory = derive(catalogue["hebbian-length-correlations"]())
    at = {"alpha": 0.0015, "T": 0.1, "gamma": 0.5}
    found = [theory.between(k, at, start=PROFILE).value for k in (1, 2, 0)]  # type: ignore[attr-defined]
    assert found[:2] == pytest.approx([0.6481, 0.3174], abs=6e-5)
    assert found[2] == pytest.approx(float(theory.solve(at, start=PROFILE)["q"]), abs=1e-9)  # the same state twice


# -- variants ------------------------------------------------------------------------------------------------------
def test_without_neighbours_it_is_a_memory() -> None:
    """γ = 0, the energy written in two ways."""
    patterns = Population("pattern", fraction=alpha)
    xi = Iid("xi", Ising(), over=(patterns, units))
    s = Field("s", initial=xi[0])
    plain = Gibbs({s: Ising()}, energy=-total(s * (xi.T @ (xi @ s))) / 2, beta=1 / T).observe(m=mean(xi[0] * s))
    assert numbers(plain, "m", "q", alpha=0.05, T=0.4) == pytest.approx([0.966187, 0.936682], abs=1e-6)
    both = Gibbs({s: Ising()}, energy=-total((xi @ s) ** 2) / 2, beta=1 / T).observe(m=mean(xi[0] * s))
    assert numbers(both, "m", alpha=0.05, T=0.4) == pytest.approx([0.966187], abs=1e-6)


def test_finitely_many_patterns_next_to_many() -> None:
    """One stored pattern of its own matrix beside αN others."""
    few, many = Population("few", size=1), Population("many", fraction=alpha)
    xi, eta = Iid("xi", Ising(), over=(few, units)), Iid("eta", Ising(), over=(many, units))
    s = Field("s", initial=xi[0])
    energy = -total((xi @ s) ** 2) / 2 - total((eta @ s) ** 2) / 2
    model = Gibbs({s: Ising()}, energy=energy, beta=1 / T).observe(m=mean(xi[0] * s))
    assert numbers(model, "m", alpha=0.05, T=0.4) == pytest.approx([0.966187], abs=1e-6)


# -- witnesses -----------------------------------------------------------------------------------------------------
def test_fourier_coefficients_are_entries() -> None:
    c, g = symbols("c gamma", real=True)
    assert coefficients(c + 2 * g * cos(2 * ANGLE)) == {0: c, 2: g, -2: g}
    assert coefficients(c + g * exp(-3 * I * ANGLE)) == {0: c, 3: g}


def test_condensed_energy_of_a_cycle() -> None:
    """−½ s·ξᵀXξ s of a small instance is the energy in overlaps, whatever the state."""
    form = derive(cycle(5, 2)).derivation.find(Condensed)
    assert form is not None
    rng = np.random.default_rng(3)
    n, g = 12, 0.37
    xi, s = rng.choice([-1.0, 1.0], (5, n)), rng.choice([-1.0, 1.0], n)
    x = np.array([[1.0 if a == b else g for b in range(5)] for a in range(5)])  # d = 2 couples all of five
    direct = -0.5 * (xi @ s / np.sqrt(n)) @ x @ (xi @ s / np.sqrt(n))
    overlaps = {str(k): xi[k] @ s / n for k in range(5)}
    swap = {}
    for node in form.model.energy.atoms(type(mean(Field("s")))):
        (label,) = [q for q in node.body.free_symbols if q.name.startswith("xi_")]
        swap[node] = overlaps[label.name.removeprefix("xi_")]
    value = form.model.energy.xreplace(swap).subs({N: n, symbols("c", real=True): 1, symbols("gamma", real=True): g})
    assert float(value) == pytest.approx(direct, abs=1e-12)


def test_every_step_of_a_cycle_is_checked() -> None:
    ticks = verify(derive(cycle(4)).derivation)  # type: ignore[arg-type]
    assert [t.title for t in ticks if t.passed is not True] == []


@pytest.mark.parametrize("cold", [False, True])
def test_many_labels_against_all_their_values(cold: bool) -> None:
    """Averages of tanh (or of the sign) of a sum of six unequal numbers, and of its product with one of them."""
    a, k, b = np.array([0.9, -0.4, 0.7, 0.2, 0.5, 1.3]), 0.31, 0.15
    labels = [FreeLabel(symbols(f"x{m}"), np.array([-1.0, 1.0]), np.array([0.5, 0.5])) for m in range(5)]
    labels.append(FreeLabel(symbols("x5"), np.array([-1.0, 0.5, 2.0]), np.array([0.3, 0.5, 0.2])))
    density = Density(labels, a, k, b, np.array([0.0]) if cold else None, 1.0)
    f = np.sign if cold else np.tanh
    z, w = np.polynomial.legendre.leggauss(400)
    total_, product_, slope_ = 0.0, 0.0, 0.0
    for values in product(*(zip(q.values, q.weights, strict=True) for q in labels)):
        x, p = np.array([v for v, _ in values]), float(np.prod([p for _, p in values]))
        h = b + a @ x
        edges = [-10.0, -h / np.sqrt(k), 10.0]
        for lo, hi in pairwise(edges):
            u = lo + (hi - lo) * (z + 1) / 2
            weight = p * w * (hi - lo) / 2 * np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
            total_ += weight @ f(h + np.sqrt(k) * u)
            product_ += x[5] * weight @ f(h + np.sqrt(k) * u)
            slope_ += weight @ (u * f(h + np.sqrt(k) * u)) / np.sqrt(k)
    nodes = f(density.nodes)
    assert density.average((0,) * 6, "f", nodes) == pytest.approx(total_, abs=1e-9)
    assert density.average((0, 0, 0, 0, 0, 1), "f", nodes) == pytest.approx(product_, abs=1e-9)
    assert -density.average((0,) * 6, "f", nodes, True) == pytest.approx(slope_, abs=1e-8)


@pytest.mark.parametrize("cold", [False, True])
def test_slopes_of_averages_over_labels(cold: bool) -> None:
    """Derivatives of the equations against differences, at a point that is no solution."""
    model = catalogue["hebbian-length-correlations"]()
    problem = derive(zero_temperature(model) if cold else model).problem
    values = {s: {"alpha": 0.08, "T": 0.4, "c": 1, "gamma": 0.2}[s.name] for s in problem.parameters}
    ev, rng = Evaluator(problem, values), np.random.default_rng(1)
    size = {"mean": (0, 0.3), "overlap": (0.9, 1), "susceptibility": (0.1, 0.2)}
    x = np.array([rng.uniform(*size[k]) for k in problem.kinds])
    exact = jacobian(ev, x, ev.update(x))
    for j in range(0, len(x), 4):
        h = 1e-4 * np.eye(len(x))[j]
        assert exact[:, j] == pytest.approx((ev.update(x + h) - ev.update(x - h)) / 2e-4, rel=2e-6, abs=2e-7)


@pytest.mark.slow
def test_simulations_agree_and_reject_a_wrong_theory(tmp_path) -> None:
    model = catalogue["hebbian-length-correlations"]()
    theory, how = derive(model), {"quick": True, "workers": 1, "store": tmp_path}
    assert validate(model, theory=theory, **how).verdict == "agree"
    assert validate(model, theory=theory.mutate("variance-tenth"), **how).verdict == "disagree"


def test_a_wrong_variance_leaves_the_patterns_of_the_start() -> None:
    """Couplings grow by a tenth: the state that a tenth lower temperature has."""
    model = catalogue["hebbian-length-correlations"]()
    wrong = derive(model).mutate("variance-tenth").solve()
    assert numbers(model, "m_0", "m_1", "q", T=0.5) == pytest.approx(
        [float(wrong[k]) for k in ("m_0", "m_1", "q")], abs=1e-9
    )


@pytest.mark.parametrize(("d", "at"), [(4, {"gamma": -0.05}), (1, {"gamma": 0.05, "c": -1})])
def test_other_windows(d: int, at: dict[str, float]) -> None:
    """Negative neighbours at a large distance leave retrieval alone; a negative own weight leaves nothing."""
    solution = derive(catalogue["hebbian-length-correlations"](d=d)).solve(alpha=0.02, T=0.2, **at)
    assert (abs(float(solution["m_0"])) > 0.9) == (at.get("c", 1) > 0)
    assert np.sign(float(solution["m_1"]).__round__(6)) == (np.sign(at["gamma"]) if at.get("c", 1) > 0 else 0)


def test_patterns_with_densities_are_refused() -> None:
    patterns = Population("pattern", fraction=alpha)
    xi = Iid("xi", Normal(0, 1), over=(patterns, units))
    X = Circulant("X", {0: 1, 1: Rational(1, 10), -1: Rational(1, 10)}, over=(patterns, patterns))
    s = Field("s", initial=xi[0])
    model = Gibbs({s: Ising()}, energy=-total(s * (xi.T @ (X @ (xi @ s)))) / 2, beta=1 / T)
    with pytest.raises(QuenchedError, match="too many with continuous laws"):
        derive(model).solve(alpha=0.01, T=0.2)


# -- bad input -----------------------------------------------------------------------------------------------------
def test_rows_and_windows_say_what_they_need() -> None:
    patterns = Population("pattern", fraction=alpha)
    xi = Iid("xi", Ising(), over=(patterns, units))
    X = Circulant("X", {0: 1, 1: Rational(1, 2), -1: Rational(1, 2)}, over=(patterns, patterns))
    s = Field("s", initial=xi[0])
    for index in (0.5, True, "a"):
        with pytest.raises(QuenchedError, match="whole number"):
            xi[index]
    with pytest.raises(QuenchedError, match="can be picked"):
        X[0]
    with pytest.raises(QuenchedError, match="enter energies through"):
        derive(Gibbs({s: Ising()}, energy=total((xi @ s) ** 4), beta=1))
    free = Field("w")
    with pytest.raises(QuenchedError, match="2 variables"):
        derive(Gibbs({free: Normal(0, 1)}, energy=total((xi @ free**2) * (X @ (xi @ free))))).solve(alpha=1)
