"""Gibbs measures: references of the literature, and variants of the declarations whose results are known."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Abs, Heaviside, Symbol, exp, log, symbols

from quenched import (
    Capacity,
    Critical,
    Entropy,
    Field,
    FreeEntropy,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    Margin,
    N,
    Normal,
    Population,
    Quenched,
    QuenchedError,
    Replicon,
    Spherical,
    SpikeSlab,
    derive,
    mean,
    total,
    units,
)

beta, h, alpha, temperature, K = symbols("beta h alpha T K", positive=True)
kappa, J0 = symbols("kappa J_0", real=True)
s = Field("s")
J = Gaussian("J", variance=1, mean=J0, symmetry=1)
patterns = Population("pattern", fraction=alpha)
xi = Iid("xi", Ising(), over=(patterns, units))


def pairs(prior=None, matrix=J, **options) -> Gibbs:  # type: ignore[no-untyped-def]
    energy = -total(s * (matrix @ s)) / 2 - h * total(s)
    return Gibbs({s: prior or Ising()}, energy=energy, **({"beta": beta} | options))


def margins(weight=None, prior=None) -> Gibbs:  # type: ignore[no-untyped-def]
    return Gibbs({s: prior or Ising()}, weight=Heaviside(xi @ s - kappa) if weight is None else weight)


def numbers(model: Gibbs, *names: str, **at: float) -> list[float]:
    solution = derive(model).solve(**at)
    return [float(solution[name]) for name in names]


# -- references ----------------------------------------------------------------------------------------------------
def test_spin_glass_in_a_field() -> None:
    """Sherrington–Kirkpatrick at T = 1.2, h = 0.5."""
    found = numbers(pairs(), "q", "m", "energy", "replicon", beta=1 / 1.2, h=0.5, J_0=0)
    assert found == pytest.approx([0.220040, 0.352528, -0.572757, 0.450505], abs=6e-7)


@pytest.mark.parametrize(("field", "reference"), [(0.1, 0.81885), (0.5, 0.53510), (1.0, 0.32118)])
def test_de_almeida_thouless_line(field: float, reference: float) -> None:
    theory = derive(pairs().fix(beta=1 / temperature, J_0=0))
    found = theory.critical("T", bracket=(0.2, 1.1), h=field)
    assert found.value == pytest.approx(reference, abs=6e-6)


@pytest.mark.parametrize(
    ("at", "reference"),
    [
        (0.3, (0.190838, 0.474829, 0.127505)),
        (0.5, (0.322385, 0.314390, 0.233552)),
        (0.7, (0.462571, 0.135400, 0.385059)),
    ],
)
def test_binary_perceptron(at: float, reference: tuple[float, float, float]) -> None:
    found = numbers(margins(), "q", "entropy", "replicon", alpha=at, kappa=0)
    assert found == pytest.approx(reference, abs=6e-7)


def test_capacity_and_instability_of_the_binary_perceptron() -> None:
    theory = derive(margins())
    assert theory.critical(alpha, "entropy", 0, bracket=(0.75, 0.9), kappa=0).value == pytest.approx(0.833079, abs=1e-6)
    assert theory.critical(alpha, bracket=(0.95, 1.05), kappa=0).value == pytest.approx(1.01465, abs=6e-6)


@pytest.mark.parametrize(("margin", "reference"), [(0, 2.0), (0.5, 0.96121), (1, 0.51957), (2, 0.20023)])
def test_capacity_of_the_spherical_perceptron(margin: float, reference: float) -> None:
    """Gardner: 1/α_c = (1 + κ²)H(−κ) + κφ(κ)."""
    from math import erfc, pi, sqrt

    found = derive(margins(prior=Spherical())).capacity("alpha", bracket=(0.1, 3), kappa=margin)
    tail = 0.5 * erfc(-margin / sqrt(2))
    exact = 1 / ((1 + margin**2) * tail + margin * np.exp(-(margin**2) / 2) / sqrt(2 * pi))
    assert found.value == pytest.approx(exact, abs=max(10 * found.error, 1e-6))
    assert found.value == pytest.approx(reference, abs=1e-5)


def test_patterns_as_hebbian_couplings() -> None:
    """Hopfield at α = 0.05, T = 0.4: the couplings ξᵀξ are a composition, the condensed pattern a mean field."""
    one = Quenched("xi_1", Ising())
    model = Gibbs({s: Ising()}, energy=-N * mean(one * s) ** 2 / 2 - total(s * (xi.T @ (xi @ s))) / 2, beta=beta)
    solution = derive(model).solve(alpha=0.05, beta=2.5)
    assert [abs(float(solution["m"])), float(solution["q"])] == pytest.approx([0.966187, 0.936682], abs=6e-7)
    m, q = float(solution["m"]), float(solution["q"])
    z, w = np.polynomial.hermite_e.hermegauss(80)
    r = q / (1 - 2.5 * (1 - q)) ** 2
    direct = (
        0.05
        * 2.5**2
        / (1 - 2.5 * (1 - q)) ** 2
        * (w @ np.cosh(2.5 * (np.sqrt(0.05 * r) * z + m)) ** -4.0 / np.sqrt(2 * np.pi))
    )
    assert float(solution["replicon"]) == pytest.approx(direct, abs=1e-8)


def test_patterns_at_low_temperature() -> None:
    """Hopfield at α = 0.1, T → 0: a saddle that only exists near full overlap."""
    one = Quenched("xi_1", Ising())
    model = Gibbs({s: Ising()}, energy=-N * mean(one * s) ** 2 / 2 - total(s * (xi.T @ (xi @ s))) / 2, beta=beta)
    (m,) = numbers(model, "m", alpha=0.1, beta=100)
    assert abs(m) == pytest.approx(0.997999, abs=2e-5)


# -- variants ------------------------------------------------------------------------------------------------------
def test_ferromagnetic_mean_orders_the_spins() -> None:
    model = Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2, beta=beta)
    solution = derive(model).solve(beta=0.8, J_0=2.0)
    assert abs(float(solution["m"])) > 0.5
    disordered = [b for b in solution.branches if b.label == "zero"]
    assert len(disordered) == 1
    assert disordered[0].quantity("free_entropy").value < float(solution["free_entropy"])


def test_asymmetric_couplings_count_half() -> None:
    """Only the symmetric part of J enters s·Js: variance 1 without symmetry is variance ½ with it."""
    plain = numbers(pairs(matrix=Gaussian("J", variance=1)), "q", "replicon", beta=1, h=0.5)
    half = numbers(pairs(matrix=Gaussian("J", variance=0.5, symmetry=1)), "q", "replicon", beta=1, h=0.5)
    assert plain == pytest.approx(half, rel=1e-9)


def test_spherical_spins() -> None:
    """On the sphere q = 1 − T below T = 1, marginally stable; above, q = 0 and the replicon is β²."""
    model = Gibbs({s: Spherical()}, energy=-total(s * (Gaussian("J", variance=1, symmetry=1) @ s)) / 2, beta=beta)
    assert numbers(model, "q", "energy", beta=2) == pytest.approx([0.5, -0.75], abs=1e-6)
    assert numbers(model, "q", "replicon", "energy", beta=0.5) == pytest.approx([0, 0.25, -0.25], abs=1e-9)


def test_states_with_zeros() -> None:
    """A spike-and-slab prior of ±1 with p = 1 is Ising; with p = ½ the norm is an order parameter."""
    whole = numbers(pairs(SpikeSlab(1, Ising())), "q", "Q", beta=1, h=0.5, J_0=0)
    assert whole == pytest.approx([*numbers(pairs(), "q", beta=1, h=0.5, J_0=0), 1], abs=1e-9)
    q, norm = numbers(pairs(SpikeSlab(0.5, Ising())), "q", "Q", beta=1, h=0.5, J_0=0)
    assert 0 < q < norm < 1


def test_symmetric_constraint() -> None:
    """|u| ≤ K: no overlap, S = ln 2 + α ln P(|z| ≤ K), replicon α(1 − E[z² | |z| ≤ K])²."""
    from math import erf, pi, sqrt

    q, entropy, replicon = numbers(margins(Heaviside(K - Abs(xi @ s))), "q", "entropy", "replicon", alpha=0.8, K=1)
    inside = erf(1 / sqrt(2))
    second = 1 - 2 * np.exp(-0.5) / sqrt(2 * pi) / inside
    assert q == pytest.approx(0, abs=1e-9)
    assert entropy == pytest.approx(np.log(2) + 0.8 * np.log(inside), abs=1e-9)
    assert replicon == pytest.approx(0.8 * (1 - second) ** 2, abs=1e-9)


def test_labels_are_averaged_outside() -> None:
    """Random labels are gauged away; a random field of either sign does not magnetise."""
    y = Quenched("y", Ising(), over=patterns)
    labelled = numbers(margins(Heaviside(y * (xi @ s) - kappa)), "q", "entropy", alpha=0.5, kappa=0)
    assert labelled == pytest.approx([0.322385, 0.314390], abs=6e-7)
    sign = Quenched("e", Ising())
    energy = -total(s * (J @ s)) / 2 - h * total(sign * s)
    q, m = numbers(Gibbs({s: Ising()}, energy=energy, beta=beta), "q", "m", beta=1 / 1.2, h=0.5, J_0=0)
    assert [q, m] == pytest.approx([0.220040, 0], abs=6e-7)


def test_soft_constraints_interpolate() -> None:
    """Wrong patterns at a price: free at price 0, the hard constraint at a large one."""
    price = Symbol("g", nonnegative=True)
    soft = margins(exp(-price * Heaviside(kappa - xi @ s)))
    assert numbers(soft, "q", "free_entropy", alpha=0.5, kappa=0.1, g=0) == pytest.approx([0, 0], abs=1e-9)
    hard = numbers(margins(), "q", "replicon", alpha=0.5, kappa=0.1)
    assert numbers(soft, "q", "replicon", alpha=0.5, kappa=0.1, g=60) == pytest.approx(hard, abs=1e-9)


def test_gaussian_regression_is_linear_algebra() -> None:
    """Squared loss and a Gaussian prior: E ln Z of a large instance by a determinant."""
    rng = np.random.default_rng(0)
    n, p, b = 600, 900, 1.7
    x = rng.standard_normal((p, n)) / np.sqrt(n)
    _, logdet = np.linalg.slogdet(np.eye(n) + b * x.T @ x)
    model = Gibbs({s: Normal(0, 1)}, weight=exp(-beta * (xi @ s) ** 2 / 2))
    (phi,) = numbers(model, "free_entropy", alpha=1.5, beta=b)
    assert phi == pytest.approx(-0.5 * logdet / n, abs=3e-3)


# -- the record and bad input --------------------------------------------------------------------------------------
def test_the_derivation_prints_every_step() -> None:
    theory = derive(margins())
    text = theory.derivation.text()
    for words in ("Replicas: Zⁿ", "Average over the couplings", "Replica symmetry", "n → 0", "integrated by parts"):
        assert words in text
    assert "∂Φ/∂q = α·r/2 - α·E[L₁²]_pattern/2" in text
    assert "α·E[L₂²]_pattern·E[L₂²]_units" in text
    assert theory.derivation.latex().count("\\begin{align}") == len(theory.derivation.steps) + 1
    assert "dealmeida1978" in theory.derivation.bibtex()
    assert theory.coverage.solver == "covered"


def test_unstable_saddles_are_marked() -> None:
    solution = derive(pairs()).solve(beta=4, h=0.1, J_0=0)
    assert not solution.main.stable
    assert "UNSTABLE" in repr(solution)
    assert float(solution["replicon"]) > 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gibbs({}), "takes a dict"),
        (lambda: Gibbs({s: 3}), "law"),
        (lambda: Gibbs({s: Ising()}), "neither"),
        (lambda: Gibbs({s: Ising()}, energy=s), "open unit index"),
        (lambda: Gibbs({s: Ising()}, energy=total(s * Field("r"))), "no prior"),
        (lambda: Gibbs({s: Ising()}, weight=alpha), "per unit"),
        (lambda: pairs().values(beta=1), "no value"),
        (lambda: pairs().values(bta=1), "beta"),
        (lambda: derive(pairs()).critical("T", bracket=(0, 1)), "unknown parameter"),
        (lambda: derive(pairs()).critical("beta", bracket=(0.1, 0.2), h=0.1, J_0=0), "changes sign"),
        (lambda: derive(Gibbs({s: Ising()}, energy=total((J @ s) * s**3), beta=1)).problem, "multiples of the state"),
        (lambda: derive(Gibbs({s: Ising()}, energy=total(log(2 + (J @ s) ** 2)))).problem, "variables"),
    ],
)
def test_bad_declarations_say_why(make, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(QuenchedError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_declared_observables_are_site_averages() -> None:
    model = pairs().observe(twice=2 * mean(s), square=mean(s**2), spread=mean(s**2) - mean(s) ** 2)
    solution = derive(model, J_0=0).solve(beta=1 / 1.2, h=0.5)
    assert float(solution["twice"]) == pytest.approx(2 * 0.352528, abs=2e-6)
    assert float(solution["spread"]) == pytest.approx(1 - 0.352528**2, abs=2e-6)
    assert float(solution["square"]) == pytest.approx(1, abs=1e-12)


def test_means_that_are_no_site_averages_are_slopes_in_their_source() -> None:
    """s³ = s of ±1 states; the energy from its terms; the fraction of fields above a threshold by enumeration."""
    energy = -mean(s * (J @ s)) / 2 - h * mean(s)
    model = pairs().observe(odd=mean(s**3), u=energy, mixed=mean(s[1] * s[2]) * energy)
    solution = derive(model, J_0=0).solve(beta=1 / 1.2, h=0.5)
    assert float(solution["odd"]) == pytest.approx(0.352528, abs=1e-6)
    assert float(solution["u"]) == pytest.approx(float(solution["energy"]), abs=1e-7)
    assert float(solution["mixed"]) == pytest.approx(float(solution["q"]) * float(solution["energy"]), abs=1e-7)
    assert solution.error("u") < 1e-6
    price = Gibbs({s: Ising()}, weight=exp(-beta * Heaviside(kappa - xi @ s))).observe(
        wrong=mean(Heaviside(kappa - xi @ s))
    )
    found = derive(price).solve(alpha=0.5, beta=2, kappa=0.1)
    slope = [float(derive(price).solve(alpha=0.5, beta=b, kappa=0.1)["free_entropy"]) for b in (1.999, 2.001)]
    assert float(found["wrong"]) == pytest.approx(-(slope[1] - slope[0]) / 0.002 / 0.5, abs=1e-6)


def test_functionals_of_a_measure() -> None:
    """Where entropies vanish and replicas break their symmetry, found without a bracket."""
    model = margins().observe(S=Entropy(), f=FreeEntropy(), c=Capacity(alpha), at=Critical(alpha, Replicon() - 1))
    solution = derive(model).solve(alpha=0.5, kappa=0)
    assert float(solution["S"]) == pytest.approx(0.314390, abs=1e-6)
    assert float(solution["f"]) == pytest.approx(0.314390 - np.log(2), abs=1e-6)
    assert [float(solution[n]) for n in ("c", "at")] == pytest.approx([0.833079, 1.014654], abs=1e-6)
    sphere = margins(prior=Spherical()).observe(c=Capacity(alpha), k=Margin(kappa))
    solution = derive(sphere).solve(alpha=1, kappa=0.1)
    assert float(solution["k"]) == pytest.approx(0.470655, abs=2e-5)
    with pytest.raises(QuenchedError, match="does not vanish"):
        float(derive(pairs().observe(T=Critical(h, Replicon() - 1))).solve(beta=0.5, h=1, J_0=0)["T"])


def test_what_is_not_built_says_so() -> None:
    for action in (lambda t: t.export("x.py"), lambda t: t.fluctuations()):
        with pytest.raises(QuenchedError, match="not built"):
            action(derive(pairs()))
    with pytest.raises(QuenchedError, match="beyond a capacity"):
        derive(margins(prior=Spherical())).solve(alpha=2.5, kappa=0)


def test_keys_and_fixing() -> None:
    assert pairs() == pairs()
    assert pairs().key() != margins().key()
    assert pairs().fix(h=0.5).parameters == (J0, beta)
