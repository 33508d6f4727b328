"""Two attractors of one disorder, correlations in the paramagnet, and what is measured of them."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Rational, cos, symbols

from quenched import (
    Capacity,
    Circulant,
    Field,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    N,
    Normal,
    NotCovered,
    Population,
    Quenched,
    QuenchedError,
    Replicon,
    SpinGlassSusceptibility,
    catalogue,
    copies,
    derive,
    mean,
    simulate,
    total,
    units,
    validate,
    zero_temperature,
)
from quenched.validate.witness import verify

alpha, beta, T = symbols("alpha beta T", positive=True)
c, gamma, theta, h = symbols("c gamma theta h", real=True)
s = Field("s")


def attractors(distance: int, **options: int) -> Gibbs:
    """Two states of one disorder, near patterns at some distance."""
    model = catalogue["hebbian-length-correlations"](**options)
    (state,), xi = model.fields, model.rows[0].matrix
    pair = copies(model, 2, initial=[xi[0], xi[distance]])
    here, there = mean(xi[0] * state[1]), mean(xi[distance] * state[2])
    return pair.observe(q_k=mean(state[1] * state[2]), here=here, there=there, other=mean(xi[0] * state[2]))


# -- two attractors ------------------------------------------------------------------------------------------------
def test_attractors_of_two_patterns() -> None:
    solution = derive(attractors(1, size=9)).solve(T=0.05, gamma=0.6)
    found = [float(solution[name]) for name in ("q_k", "here", "there", "other")]
    assert found == pytest.approx([0.66005, 0.6030, 0.6030, 0.3970], abs=5e-5)


def test_attractors_at_zero_temperature() -> None:
    solution = derive(zero_temperature(attractors(2, size=11))).solve(gamma=0.6)
    assert [float(solution[n]) for n in ("q_k", "other")] == pytest.approx([85 / 256, 13 / 128], abs=1e-9)


def test_attractors_next_to_many_patterns() -> None:
    solution = derive(attractors(1)).solve(alpha=0.05, T=0.25, gamma=0.08)
    assert float(solution["here"]) == pytest.approx(0.99446, abs=6e-6)
    # far below capacity both are near their patterns, which are independent: what is left are the neighbours' overlaps
    assert float(solution["q_k"]) == pytest.approx(2 * 0.99446 * 0.00309, rel=0.2)


def test_samples_of_two_attractors() -> None:
    model = attractors(1, size=7)
    point = {"T": 0.3, "gamma": -0.2}
    run = simulate(model, 1000, trials=6, seed=2, params=point, sweeps=60, burn=20, workers=1, store=False)
    solution = derive(model).solve(point)
    for name in model.observables:
        value, error = float(run[name].mean[0]), float(run[name].error[0])
        assert value == pytest.approx(float(solution[name]), abs=4 * error + 2 / 1000), name


def test_copies_of_measures_say_what_they_need() -> None:
    model = catalogue["hebbian-length-correlations"]()
    xi = model.rows[0].matrix
    with pytest.raises(QuenchedError, match="initial= with 2 states"):
        copies(model, 2)
    with pytest.raises(QuenchedError, match="copies already"):
        copies(copies(model, 2, initial=[xi[0], xi[1]]), 2, initial=[xi[0], xi[1]])
    with pytest.raises(NotCovered, match="share all"):
        copies(model, 2, share=[], initial=[xi[0], xi[1]])
    state = model.fields[0]
    pair = copies(model, 2, initial=[xi[0], xi[1]]).observe(bad=mean(state[1] ** 2 * state[2]))
    with pytest.raises(NotCovered, match="products of two states"):
        derive(pair).solve(alpha=0.05, T=0.25)["bad"]
    other = copies(model, 2, initial=[xi[0], Quenched("start", Ising())]).observe(q=mean(state[1] * state[2]))
    with pytest.raises(NotCovered, match="rows of one matrix"):
        derive(other)


# -- correlations of units -----------------------------------------------------------------------------------------
def paramagnet() -> Gibbs:
    stored = Population("pattern", fraction=alpha)
    xi = Iid("xi", Ising(), over=(stored, units))
    J = xi.T @ Circulant("X", c + 2 * gamma * cos(theta), over=(stored, stored), angle=theta) @ xi
    energy = -total(s * (J @ s)) / 2 + alpha * c * N / 2
    model = Gibbs({s: Ising()}, energy=energy, beta=1 / T, defaults={alpha: 0.2, T: 2.6, c: 1, gamma: 0.2})
    return model.observe(chi=SpinGlassSusceptibility(s), R=Replicon(), e=energy / N)


def test_correlations_without_order() -> None:
    """χ = 1/(1 − R), R = α ⟨(βλ)²/(1 − βλ)²⟩."""
    for T_, R in ((2.6, 0.1105), (2.2, 0.2243)):
        solution = derive(paramagnet()).solve(T=T_)
        assert float(solution["R"]) == pytest.approx(R, abs=6e-5)
        assert float(solution["chi"]) == pytest.approx(1 / (1 - float(solution["R"])), abs=1e-9)


def test_correlations_of_other_measures() -> None:
    """In a field χ = w/(1 − R); without couplings the units' own squares are left; Gaussian units are exact."""
    glass = Gibbs({s: Ising()}, energy=-total(s * (Gaussian("J", symmetry=1) @ s)) / 2 - h * total(s), beta=beta)
    glass.observe(chi=SpinGlassSusceptibility(s), R=Replicon())
    found = derive(glass).solve(beta=0.7, h=0.6)
    w = float(found["R"]) / 0.7**2
    assert float(found["chi"]) == pytest.approx(w / (1 - float(found["R"])), abs=1e-9)
    normal = Gibbs({s: Normal(0, 1)}, energy=-total(s * (Gaussian("J", symmetry=1) @ s)) / 2, beta=beta)
    normal.observe(chi=SpinGlassSusceptibility(s))
    theory = float(derive(normal).solve(beta=0.3)["chi"])
    run = simulate(normal, 400, trials=8, seed=1, params={"beta": 0.3}, workers=1, store=False)
    assert float(run["chi"].mean[0]) == pytest.approx(theory, abs=4 * float(run["chi"].error[0]) + 2 / 400)


def test_samples_of_correlations() -> None:
    """Two independent chains against sums over all states, on the same draws."""
    glass = Gibbs({s: Ising()}, energy=-total(s * (Gaussian("J", symmetry=1) @ s)) / 2 - h * total(s), beta=beta)
    glass.observe(chi=SpinGlassSusceptibility(s))
    how = {"seed": 4, "params": {"beta": 0.6, "h": 0.3}, "workers": 1, "store": False}
    exact = simulate(glass, 12, trials=6, **how)
    chains = simulate(glass, 12, trials=6, route="monte carlo", sweeps=8000, burn=100, **how)
    gap = float(chains["chi"].mean[0] - exact["chi"].mean[0])
    assert abs(gap) < 0.03


@pytest.mark.slow
def test_the_paramagnet_agrees_with_samples() -> None:
    """Correlations of units and the energy, at three sizes."""
    model = catalogue["hebbian-length-correlations"](start=False)
    theory, how = derive(model), {"quick": True, "workers": 1, "store": False, "T": 2.2}
    right = validate(model, theory=theory, **how)
    assert right.verdict == "agree", right


def test_options_of_the_catalogue() -> None:
    made = catalogue["hebbian-length-correlations"]
    assert float(derive(made(other=2, size=9)).solve()["q"]) == pytest.approx(0.33022, abs=6e-6)
    assert float(derive(made(start=False)).solve()["chi_SG"]) == pytest.approx(1 / (1 - 0.1105), abs=1e-4)
    assert float(derive(made(start=False, size=9)).solve()["chi_SG"]) == pytest.approx(1, abs=1e-9)


@pytest.mark.slow
def test_capacity_of_a_measure_with_a_start() -> None:
    """A declared observable: where the state of the start is lost."""
    model = zero_temperature(catalogue["hopfield"]())
    model.observe(alpha_c=Capacity(next(p for p in model.parameters if p.name == "alpha")))
    assert float(derive(model).solve(alpha=0.1)["alpha_c"]) == pytest.approx(0.13790557, abs=2e-8)


def test_fields_of_correlations() -> None:
    with pytest.raises(QuenchedError, match="takes a field"):
        SpinGlassSusceptibility(s[1])


def test_windows_of_energies_are_symmetric() -> None:
    """An energy would see the symmetric part alone; with and without rows that condense."""
    stored = Population("pattern", fraction=alpha)
    xi = Iid("xi", Ising(), over=(stored, units))
    X = Circulant("X", {0: 1, 1: gamma}, over=(stored, stored))
    for start in (xi[0], None):
        x = Field("s", initial=start)
        model = Gibbs({x: Ising()}, energy=-total(x * (xi.T @ (X @ (xi @ x)))) / 2, beta=1 / T)
        with pytest.raises(NotCovered, match="X is not symmetric"):
            derive(model)


def test_patterns_of_two_populations() -> None:
    """A quarter and three quarters of the units share three patterns: one state, every step compared, and samples."""
    E, I = Population("E", Rational(1, 4)), Population("I", Rational(3, 4))
    stored = Population("pattern", size=3)
    xa, xb = Iid("xa", Ising(), over=(stored, E)), Iid("xb", Ising(), over=(stored, I))
    a, b = Field("a", E, initial=xa[0]), Field("b", I, initial=xb[0])
    model = Gibbs({a: Ising(), b: Ising()}, energy=-total((2 * (xa @ a) + xb @ b) ** 2) / 2, beta=1 / T)
    model.observe(m_a=mean(xa[0] * a), m_b=mean(xb[0] * b), q=mean(a[1] * a[2]))
    theory = derive(model)
    found = [float(theory.solve(T=0.9)[n]) for n in ("m_a", "m_b")]
    # both see 2·m_a/4 + 3·m_b/4, the units of the first twice as strongly
    field = (2 * found[0] + 3 * found[1]) / 4 / 0.9
    assert found == pytest.approx([np.tanh(2 * field), np.tanh(field)], abs=1e-9)
    assert [t.title for t in verify(theory.derivation) if t.passed is not True] == []  # type: ignore[arg-type]
    run = simulate(model, 4000, trials=6, seed=1, params={"T": 0.9}, sweeps=80, burn=40, workers=1, store=False)
    for name, value in zip(("m_a", "m_b"), found, strict=True):
        assert value == pytest.approx(float(run[name].mean[0]), abs=4 * float(run[name].error[0]) + 1e-3)
