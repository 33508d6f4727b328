"""Stored patterns in a dynamics: extensively many are eliminated, a few are written out, and overlaps are followed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from sympy import Expr, I, Rational, Symbol, cos, exp, lambdify, pi, sign, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Iid,
    Ising,
    N,
    Normal,
    NotCovered,
    Peak,
    Population,
    Quenched,
    Uniform,
    catalogue,
    derive,
    diag,
    mean,
    outer,
    simulate,
    units,
    validate,
)
from quenched.theory.eliminate import EliminateLinear
from quenched.theory.label_means import label_mean
from quenched.theory.members import WriteMembers
from quenched.theory.problem import DS, DT
from quenched.theory.problem_labels import LabelMean
from quenched.theory.readoff import EffectiveProcess
from quenched.validate.witness import survey_mutants, verify

alpha = symbols("alpha", positive=True)
c, gamma = symbols("c gamma", real=True)
G, H = Symbol("G"), Symbol("H")
patterns = Population("P", fraction=alpha)
theta = Quenched("theta", Uniform(0, 2 * pi), over=patterns)


@lru_cache
def long_sequence(d: int = 1) -> Any:
    return derive(catalogue["sequence-dynamics"](d=d), c=0)


@lru_cache
def replay() -> Any:
    return derive(catalogue["sequence-replay"]())


# -- averages over modes ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("d", [1, 3])
def test_averages_over_modes_are_residues(d: int) -> None:
    """Rational functions on the circle against the trapezoidal rule, which converges exponentially."""
    wave = c + gamma * sum(exp(-I * r * theta) for r in range(1, d + 1))
    back = wave.xreplace({I: -I})
    nodes = 2 * np.pi * np.arange(256) / 256
    numbers = {G: 0.3, H: 0.2 + 0.1j, c: 0.3, gamma: 0.4 / d}
    double = back**2 / (1 - H * back) ** 2 / (1 - G * wave)
    for f in (wave / (1 - G * wave), wave * back / (1 - G * wave) / (1 - H * back), *([double] if d == 1 else [])):
        closed = label_mean(f, [G, H])
        assert not closed.atoms(Quenched)
        summed = lambdify(theta, f.subs(numbers))(nodes).mean()
        assert complex(closed.subs(numbers)) == pytest.approx(summed, rel=1e-12)


def test_averages_without_a_rule_keep_their_name() -> None:
    wave = c + 2 * gamma * cos(theta)
    assert isinstance(label_mean(wave / (1 - G * wave), [G]), LabelMean)
    turn = exp(-I * theta)
    relaxing = 1 - G * turn / (gamma - c * turn)  # 1 where γ is larger than c, else c/(c + G)
    assert isinstance(label_mean(1 / relaxing, [G]), LabelMean)
    strength = Quenched("k", Ising(), over=patterns)
    assert label_mean(strength / (1 - G * strength), [G]).equals(G / (1 - G**2))


# -- extensively many patterns ----------------------------------------------------------------------------------------
def test_one_sided_windows_leave_a_memory_of_self_coupling_alone() -> None:
    process = derive(catalogue["sequence-dynamics"]()).derivation.find(EffectiveProcess)
    ((memory,),) = process.memory.values()
    (operator,) = process.operators
    a, ca = (next(s for s in memory.coef.free_symbols if s.name == name) for name in ("alpha", "c"))
    assert (memory.coef - a * ca / (1 - ca * operator.symbol)).equals(0)


def test_wide_windows_have_closed_averages_and_no_paths_from_a_start() -> None:
    """d = 3: no average over modes is left; marching in time has no operators, and says so."""
    theory = derive(catalogue["sequence-dynamics"](d=3))
    assert theory.solvable
    process = theory.derivation.find(EffectiveProcess)
    coefficients = [part.coef for parts in (*process.memory.values(), *process.covariance.values()) for part in parts]
    assert coefficients
    assert not any(coef.has(LabelMean) for coef in coefficients)
    with pytest.raises(NotCovered, match="leave times= out"):
        long_sequence().solve(alpha=1, gamma=1.5, times=np.linspace(0, 5, 26))


def test_a_sequence_without_self_coupling_is_a_particle() -> None:
    """(1 + D_t)(1 + D_s) − a²γ² filters the noise; a is the mean slope of the state itself."""
    theory = long_sequence()
    (gain,) = theory.problem.gain[0]
    (a, ((_, slope),)), names = theory.problem.closing[0], {s.name: s for s in gain.free_symbols}
    filter_ = (1 + DT) * (1 + DS) - a**2 * names["gamma"] ** 2
    assert (gain - names["alpha"] * names["gamma"] ** 2 / filter_).equals(0)
    assert theory.problem.one_points[slope].f.expr.equals(theory.problem.two_points[0].f.diff().expr)


REFERENCE = {(1, 1.5): (2.18340, 0.53541, 0.46459), (0.5, 1.5): (1.43108, 0.45973, 0.54027)}


@pytest.mark.parametrize(("a", "g"), REFERENCE)
def test_chaos_of_a_long_sequence(a: float, g: float) -> None:
    """Variance, output and slope (reference values to five digits), and the largest exponent at its Jacobian's edge."""
    solution = long_sequence().solve(alpha=a, gamma=g)
    variance, output, slope = REFERENCE[a, g]
    assert float(solution["variance"]) == pytest.approx(variance, abs=6e-6)
    assert float(solution["output"]) == pytest.approx(output, abs=6e-6)
    assert 1 - float(solution["output"]) == pytest.approx(slope, abs=6e-6)  # of tanh
    assert solution.main.kind == "dynamic"
    assert solution.main.growth.value > 0


def test_silent_states_become_unstable_where_the_spectrum_says() -> None:
    """Growth γ√(1+α) − 1 at zero, 3 % on either side of 1/√(1+α)."""
    for side in (0.97, 1.03):
        g = side / np.sqrt(1.5)
        rates = long_sequence().stability(alpha=0.5, gamma=g)
        assert rates["trivial"][0] == pytest.approx(side - 1, abs=1e-9)


@pytest.mark.slow
def test_jacobian_in_the_chaotic_state() -> None:
    """Radius γ√(α⟨φ'²⟩ + ⟨φ'⟩²) = 1.11470 at α = 1, γ = 1.5, about −1."""
    edges = long_sequence().jacobian_spectrum(alpha=1, gamma=1.5).edges()
    assert edges[-1].value == pytest.approx(0.1147, abs=2e-5)


@pytest.mark.slow
def test_self_coupling_makes_a_memory_that_simulations_see() -> None:
    """c = 0.2, where units are not Gaussian: against networks of 600 units."""
    net = catalogue["sequence-dynamics"]()
    theory = derive(net).solve(alpha=0.5, c=0.2, gamma=1.5)
    how: dict[str, Any] = {"burn": 40, "duration": 80, "dt": 0.1, "lyapunov": False, "store": False, "workers": 1}
    run = simulate(net, N=600, trials=12, seed=3, alpha=0.5, c=0.2, gamma=1.5, dtype="float32", **how)
    output = run["output"].values[:, 0]
    spread = np.hypot(output.std(ddof=1) / np.sqrt(len(output)), theory.error("output"))
    assert abs(output.mean() - float(theory["output"])) < 3 * spread
    assert spread < 0.03 * output.mean()


def test_patterns_of_two_strengths_are_summed_over() -> None:
    k = Quenched("k", Ising(), over=patterns)
    xi, x = Iid("xi", Uniform(-1, 1), over=(patterns, units)), Field("x")
    d = derive(Dynamics({x: -x + xi.T @ diag(1 + k / 2) @ xi @ tanh(x)})).derivation
    step = next(s for s in d.steps if isinstance(s.rule, EliminateLinear))
    assert not {q for cs in step.after.covariance.values() for p in cs for q in p.coef.atoms(Quenched)}
    assert d.process is not None


def test_patterns_with_a_mean_are_not_eliminated_silently() -> None:
    xi, x = Iid("xi", Uniform(0, 1), over=(patterns, units)), Field("x")
    theory = derive(Dynamics({x: -x + xi.T @ xi @ tanh(x + 1)}))
    assert not any(isinstance(s.rule, EliminateLinear) for s in theory.derivation.steps)
    assert not theory.solvable
    assert "phi_2" in str(theory.coverage)


# -- finitely many ----------------------------------------------------------------------------------------------------
def test_replay_of_nine_patterns() -> None:
    """Peaks of patterns 1 and 2 and the overlap with 2 at time 3 (reference: .3571 at 1.04, .3054 at 1.96, .23618)."""
    solution = replay().solve()
    assert float(solution["peak_1"]) == pytest.approx(0.3571, abs=6e-5)
    assert float(solution["time_1"]) == pytest.approx(1.04, abs=0.011)
    assert float(solution["peak_2"]) == pytest.approx(0.3054, abs=6e-5)
    assert float(solution["time_2"]) == pytest.approx(1.96, abs=0.011)
    assert float(solution["second"]) == pytest.approx(0.23618, abs=5e-5)
    assert solution.error("peak_1") < 1e-6


def test_overlaps_follow_their_own_equations() -> None:
    """x = Σ ξ^μ u_μ with u' = −u + X m, m_μ = ⟨ξ^μ tanh(ξ·u)⟩ over all signs, by hand."""
    from itertools import product

    from scipy.integrate import solve_ivp

    net = catalogue["sequence-replay"](patterns=4, d=2)
    signs = np.array(list(product((-1.0, 1.0), repeat=4)))

    def overlaps(u: Any) -> Any:
        return signs.T @ np.tanh(signs @ u) / len(signs)

    def rate(_: float, u: Any) -> Any:
        m = overlaps(u)
        return -u + 0.3 * m - 1.2 * (np.roll(m, 1) + np.roll(m, 2))

    exact = solve_ivp(rate, (0, 3), np.eye(4)[0], rtol=1e-10, atol=1e-12).y[:, -1]
    found = float(derive(net).solve(c=0.3, gamma=-1.2)["second"])
    assert found == pytest.approx(float(overlaps(exact)[2]), abs=1e-8)


def test_every_step_of_the_replay_keeps_its_meaning() -> None:
    d = replay().derivation
    assert any(isinstance(s.rule, WriteMembers) for s in d.steps)
    assert [f"{t.title}: {t.detail}" for t in verify(d, simulate=False) if t.passed is not True] == []
    assert [f"{m.step}: {m.label}" for m in survey_mutants(d) if not m.caught] == []


def test_members_have_no_numbers_and_sizes_are_numbers() -> None:
    few, x, k = Population("P", size=3), Field("x"), symbols("k", positive=True, integer=True)
    xi, q = Iid("xi", Ising(), over=(few, units)), Quenched("q", Normal(0, 1), over=few)
    with pytest.raises(NotCovered, match="q over the finite population 'P'"):
        derive(Dynamics({x: -x + xi.T @ (q * (xi @ tanh(x)))}))
    many = Iid("xi", Ising(), over=(Population("P", size=k), units))
    with pytest.raises(NotCovered, match="whole number"):
        derive(Dynamics({x: -x + many.T @ many @ tanh(x)}))


def test_observables_at_times_stand_apart_from_averages_over_time() -> None:
    few, x = Population("P", size=2), Field("x")
    xi = Iid("xi", Ising(), over=(few, units))
    net = Dynamics({x: -x + xi.T @ xi @ tanh(x)}).observe(late=mean(x(3) ** 2), all=mean(x**2))
    with pytest.raises(NotCovered, match="average over time"):
        simulate(net, N=50, trials=1, store=False)


@pytest.mark.slow
def test_replay_and_simulation_agree_and_a_mistake_is_rejected() -> None:
    net, how = catalogue["sequence-replay"](), {"quick": True, "ci": True, "store": False, "workers": 1}
    assert validate(net, **how).verdict == "agree"
    assert validate(net, theory=replay().mutate("variance-tenth"), **how).verdict == "disagree"


@pytest.mark.slow
def test_other_sequences_agree() -> None:
    """Patterns of another law, negative drive, a start between patterns, a different nonlinearity."""
    few, J = Population("P", size=2), symbols("J", positive=True)
    xi = Iid("xi", Uniform(-2, 1), over=(few, units))
    x = Field("x", initial=(xi[0] + xi[1]) / 2)
    net = Dynamics({x: -x / 2 + J * (xi.T @ xi @ (x / (1 + x**2))) - x**3 / 5}, defaults={J: 1})
    net.observe(early=mean(xi[0] * tanh(x(1))), late=mean(x(4) ** 2), peak=Peak(mean(xi[1] * x), until=4))
    agreement = validate(net, quick=True, ci=True, store=False, workers=1)
    assert agreement.verdict == "agree", agreement.reason


# -- low rank and random ----------------------------------------------------------------------------------------------
def rank_one() -> Dynamics:
    """A stored direction above its threshold, beside random couplings."""
    g, m, x = symbols("g", positive=True), Quenched("m", Normal(0, 1)), Field("x")
    K = Gaussian("J", variance=g**2)
    net = Dynamics({x: -x + K @ tanh(x) + Rational(5, 2) * outer(m, m) @ tanh(x) / N})
    return net.observe(overlap_squared=mean(m * tanh(x)) ** 2, variance=mean(x**2))


@pytest.mark.slow
def test_overlaps_obey_steins_lemma() -> None:
    """κ = ⟨m tanh⟩ = (5/2)κ⟨φ'⟩, so that ⟨φ'⟩ = 2/5 wherever κ does not vanish; random couplings are chaotic there."""
    solution = derive(rank_one()).solve(g=2)
    assert float(solution["C_phi0"]) == pytest.approx(1 - 2 / 5, abs=1e-9)
    assert float(solution["overlap_squared"]) > 0.1
    assert solution.main.kind == "dynamic"
    assert solution.main.growth.value > 0
    assert sorted(b.stable for b in solution.branches if b.kind == "dynamic") == [False, True, True]


def test_a_direction_that_overlaps_only_in_part() -> None:
    """Of what an output is multiplied by, only the part along the direction that moves units counts, whatever rest."""
    g, x = symbols("g", positive=True), Field("x")
    m, n = Quenched("m", Normal(0, 1)), Quenched("n", Normal(0, 3))
    K = Gaussian("J", variance=g**2)

    def stored(read: Expr) -> Any:
        return derive(Dynamics({x: -x + K @ tanh(x) + 2 * outer(m, read) @ tanh(x) / N})).problem

    (plain,), (mixed,) = stored(m).closing, stored(m + n).closing
    assert not stored(m + n).labels
    assert plain[1] == mixed[1]
    assert stored(m).static == stored(m + n).static
    assert stored(n).closing[0][1] == ()  # nothing along m: no overlap forms


def test_directions_read_by_outputs_that_jump() -> None:
    """Signs have no slope that Stein's lemma could use: their numbers stay labels."""
    x, m, n = Field("x"), Quenched("m", Normal(0, 1)), Quenched("n", Normal(0, 3))
    theory = derive(Dynamics({x: -x + 3 * outer(m, m + n) @ sign(x) / N}))
    assert {label.symbol.name for label in theory.problem.labels} == {"m", "n"}  # type: ignore[union-attr]
    assert all(tick.passed is not False for tick in verify(theory.derivation))
