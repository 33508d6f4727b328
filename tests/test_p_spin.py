"""Random functions of the state: drawn polynomials, sweeps that move them, p-body models of the catalogue."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sympy import symbols

from quenched import (
    Field,
    Gibbs,
    Ising,
    Landscape,
    N,
    Normal,
    NotCovered,
    QuenchedError,
    Spherical,
    SpikeSlab,
    catalogue,
    derive,
    mean,
    simulate,
    total,
    validate,
    zero_temperature,
)
from quenched.validate.gibbs_system import Chain
from quenched.validate.random_functions import FunctionSpec, draw
from quenched.validate.simulate_gibbs import prepare
from quenched.validate.witness import survey_mutants, verify

T, h, c = symbols("T h c", positive=True)
s = Field("s")


def mixed(prior: object, energy: object, function: Landscape | None = None) -> Gibbs:
    u = (function or V)(s) / N
    return Gibbs({s: prior}, energy=energy, beta=1 / T).observe(u=u, q=mean(s[1] * s[2]), m=mean(s))


FOUR = Landscape("V", lambda q: q**4 / 2)
V = Landscape("V", lambda q: q / 8 + q**2 / 4 + c * q**3 / 2 + q**4 / 3)


# -- drawn functions -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_covariance_of_drawn_functions(p: int) -> None:
    """σ² (s·s′)^p of two states, over many draws."""
    rng = np.random.default_rng(p)
    states = np.array([[1.0, -0.5, 2.0, 0.3], [0.4, 1.5, 1.0, -1.0]])
    values = np.array([draw(FunctionSpec("V", 4, ((p, 0.7),)), rng)(states)[:, 0] for _ in range(6000)])
    exact = 0.49 * (states @ states.T) ** p
    error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / len(values))
    assert np.all(np.abs(values.T @ values / len(values) - exact) < 4.5 * error)


def test_values_are_sums_over_all_couplings() -> None:
    f = draw(FunctionSpec("V", 3, ((1, 0.5), (3, 1.1))), np.random.default_rng(0))
    x = np.array([0.3, -1.2, 0.8])
    direct = f.tensors[0] @ x + sum(f.tensors[1][at] * np.prod(x[list(at)]) for at in product(range(3), repeat=3))
    assert f(x) == pytest.approx(direct)
    assert f(np.array([x, 2 * x])).shape == (2, 1)


@pytest.mark.parametrize("prior", [Spherical(), Ising()])
def test_sweeps_keep_the_exponent(prior: object) -> None:
    """Contractions moved one unit at a time, against those of the final state."""
    task = prepare(mixed(prior, V(s) - h * total(s)), 9, 1, {"T": 0.8, "h": 0.3, "c": 1.0}, route="monte carlo").task
    system = task.system()  # type: ignore[attr-defined]
    state = Chain(system).state(system.starting_state(np.random.default_rng(1), task.laws))  # type: ignore[attr-defined]
    before = state.exponent
    x = state.x.copy()
    chain = state.chain
    moved = chain.kernel.sweep(
        3, 1.0, np.random.default_rng(2), state.x, chain.owner, system.bounds, chain.kinds, chain.atoms, chain.chances,
        chain.mixed, state.width, np.zeros(1), chain.l, system.p, chain.field_sizes, chain.pair, chain.diagonal,
        chain.low, chain.dual, chain.towers.top, state.tower, chain.towers.table, chain.cols, chain.rb, chain.rl,
        state.scratch, state.s, state.logs, state.field, state.w, state.m, state.accepted,
    )  # fmt: skip
    tower = state.tower.copy()
    assert not np.allclose(x, state.x)
    state.refresh()
    assert state.tower == pytest.approx(tower, abs=1e-11)
    assert state.exponent - before == pytest.approx(moved, abs=1e-10)


def test_samples_are_the_sum_over_all_states() -> None:
    """Ising spins in mixed couplings and a field: enumeration against heat bath, draw by draw."""
    model, point = mixed(Ising(), V(s) - h * total(s)), {"T": 1.0, "h": 0.3, "c": 1.0}
    how = {"params": point, "trials": 3, "seed": 2, "store": False, "workers": 1}
    exact = simulate(model, 7, **how)
    sampled = simulate(model, 7, route="monte carlo", sweeps=6000, **how)
    for name in ("u", "m"):
        assert sampled[name].values == pytest.approx(exact[name].values, abs=0.03), name


# -- the entry -----------------------------------------------------------------------------------------------------
def test_samples_of_the_paramagnet() -> None:
    """−1/(2T), with all index tuples: with different indices only it would be −0.385 at 32 spins."""
    model = catalogue["p-spin"]()
    run = simulate(model, 32, trials=16, seed=0, T=1, store=False, workers=1)
    assert float(derive(model).solve(T=1)["u"]) == pytest.approx(-0.5, abs=1e-12)
    assert float(run["u"].mean[0]) == pytest.approx(-0.5, abs=3.5 * float(run["u"].error[0]))
    assert float(run["u"].error[0]) < 0.015


def test_static_transition() -> None:
    """T_s and the overlap that appears there (for T_d and ground states see `test_replica_blocks`)."""
    theory = derive(catalogue["p-spin"]()).broken()
    blocks = {"q_0": 0.0, "q_1": 0.75}
    static = theory.critical("T", "slope_x", 0.0, bracket=(0.57, 0.6), start=blocks, x=1.0)
    assert static.value == pytest.approx(0.586054, abs=1e-6)
    assert float(theory.solve(T=static.value, x=1.0, start=blocks)["q_1"]) == pytest.approx(0.645007, abs=2e-6)


def power(model: Gibbs, name: str, **point: float) -> float:
    return prepare(model, 12, 0, point, route="monte carlo").observables[name][0].power


def test_finite_size_powers_of_energies() -> None:
    """Corrections start where E exp(β² N f(q)) of two random states differs from 1 (not where q need not vanish)."""
    orders = {3: 2.0, 4: 2.0, 5: 4.0, 6: 3.0}
    assert {p: power(catalogue["p-spin"](p=p), "u", T=1) for p in orders} == orders
    assert power(catalogue["p-spin"](p=4, prior=Ising()), "u", T=1) == 2
    assert power(catalogue["p-spin"](), "q", T=1) == 1
    assert power(mixed(Ising(), V(s) - h * total(s)), "u", T=1, h=0.3, c=1) == 1
    assert power(mixed(Ising(), V(s)), "u", T=1, c=1) == 1
    assert power(mixed(SpikeSlab(0.5, Ising()), FOUR(s), FOUR), "u", T=1) == 1


@pytest.mark.slow
def test_verdict_and_mistakes(tmp_path: Path) -> None:
    """The quick tier agrees, and rejects couplings that are a tenth too strong."""
    model = catalogue["p-spin"]()
    how = {"quick": True, "workers": 1, "store": tmp_path}
    assert validate(model, **how).verdict == "agree"
    wrong = validate(model, theory=derive(model).mutate("variance-tenth"), **how)
    assert wrong.verdict == "disagree", wrong


# -- variants ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "point", "size"),
    [
        (catalogue["p-spin"](p=4), {"T": 1.2}, 16),
        (catalogue["p-spin"](prior=Ising()), {"T": 1.2}, 24),
        (mixed(Ising(), FOUR(s) - h * total(s), FOUR), {"T": 1.2, "h": 0.3}, 24),
        (mixed(Spherical(), V(s) - h * total(s)), {"T": 2.0, "h": 0.5, "c": 1.0}, 16),
    ],
    ids=["four bodies", "Ising spins", "four bodies of spins in a field", "mixed bodies in a field"],
)
def test_variants(model: Gibbs, point: dict[str, float], size: int) -> None:
    run = simulate(model, size, params=point, trials=24, seed=4, sweeps=160, burn=60, store=False, workers=1)
    solution = derive(model).solve(point)
    for name in ("u", "q"):
        allowed = 4 * float(run[name].error[0]) + 2 / size
        assert float(run[name].mean[0]) == pytest.approx(float(solution[name]), abs=allowed), name


@pytest.mark.parametrize("cold", [False, True])
def test_every_step_is_checked(cold: bool) -> None:
    model = mixed(Ising(), V(s) - h * total(s))
    derivation = derive(zero_temperature(model) if cold else model).derivation
    ticks = verify(derivation)
    assert [(t.title, t.detail) for t in ticks if t.passed is not True] == []
    same = {"replicon × 1.1", "replicon + 0.1"} if cold else set()  # infinite
    assert [m for m in survey_mutants(derivation) if not m.caught and m.label not in same] == []


@pytest.mark.parametrize("prior", [Spherical(), Ising()])
def test_every_step_is_checked_for_pairs(prior: object) -> None:
    """Where the field of a site grows linearly in the overlap, a free norm needs the largest multiplier."""
    derivation = derive(catalogue["p-spin"](p=2, prior=prior)).derivation
    assert [(t.title, t.detail) for t in verify(derivation) if t.passed is not True] == []
    assert [m.label for m in survey_mutants(derivation) if not m.caught] == []


def test_what_random_functions_need() -> None:
    with pytest.raises(QuenchedError, match="no largest value"):
        Gibbs({s: Normal(0, 1)}, energy=V(s))
    with pytest.raises(QuenchedError, match="random function 'V'"):
        mixed(Ising(), V(s) + Landscape("V", lambda q: q**3)(s))
    with pytest.raises(QuenchedError, match="use a smaller N"):
        simulate(catalogue["p-spin"](p=4), 200, trials=1, store=False, workers=1)
    grows = Gibbs({s: Ising()}, energy=V(s), beta=1 / T).observe(v=V(s))
    with pytest.raises(NotCovered, match="divide by N"):
        derive(grows).solve(T=2, c=1)["v"]
