"""Every step of a derivation is checked against numbers, on declarations that break every symmetry."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest
from sympy import Heaviside, Max, Piecewise, Rational, erf, exp, floor, sign, sqrt, symbols, tanh
from witness_models import EXTRAS, MODELS

from quenched.theory import Dynamics, Field, Gaussian, Map, WhiteNoise, copies
from quenched.theory.average import Average
from quenched.theory.derivation import derive, start
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.record import Rule, Step
from quenched.validate import meaning
from quenched.validate.witness import WITNESSES, Scene, Tick, check, check_chain, scene_of, strong_scene, verify

g, theta = symbols("g theta", positive=True)


def failures(ticks: list[Tick]) -> list[str]:
    return [f"{t.title}: {t.detail}" for t in ticks if t.passed is False]


@pytest.mark.parametrize("name", MODELS)
def test_every_step_keeps_its_meaning(name: str) -> None:
    derivation = derive(MODELS[name]())
    ticks = verify(derivation, simulate=False)
    assert failures(ticks) == []
    assert [t.title for t in ticks] == derivation.titles()
    assert sum(t.passed is None for t in ticks) <= 1  # at most the averages, where no closed form exists


@pytest.mark.parametrize("name", EXTRAS)
def test_unusual_declarations_keep_their_meaning(name: str) -> None:
    ticks = verify(derive(EXTRAS[name]()), seed=3)
    assert failures(ticks) == []


@pytest.mark.parametrize("name", ["mean_and_symmetry", "two_populations", "leaky_map", "gate", "two_laws"])
def test_few_steps_of_networks_follow_the_effective_process(name: str) -> None:
    derivation = derive(MODELS[name]())
    process = derivation.find(EffectiveProcess)
    assert process is not None
    tick = check_chain(derivation.model, process, strong_scene(derivation))
    assert tick.passed, tick.detail


def test_the_same_seed_gives_the_same_ticks() -> None:
    derivation = derive(MODELS["leaky_map"]())
    one, two = (verify(derivation, seed=5, simulate=False) for _ in range(2))
    assert [t.deviation for t in one] == [t.deviation for t in two]
    other = verify(derivation, seed=6, simulate=False)
    assert [t.deviation for t in one] != [t.deviation for t in other]
    assert failures(other) == []


@pytest.mark.parametrize(
    "phi",
    [
        lambda x: Max(0, x - theta),
        lambda x: sign(x - theta),
        lambda x: Heaviside(x - theta),
        lambda x: Piecewise((tanh(x), x > theta), (x - theta + tanh(theta), True)),
        lambda x: Piecewise((tanh(x), x > theta), (x, True)),
        lambda x: Piecewise((1, x >= 2 * theta), (tanh(x), x >= 0), (-g, True)),
        lambda x: Piecewise((tanh(x), (x > 0) & (x < 1)), (0, True)),
        lambda x: x / sqrt(1 + x**2),
        lambda x: 1 / (1 + exp(-x)),
        lambda x: x**3 - x,
        lambda x: erf(x) * exp(-(x**2)),
    ],
    ids=["relu", "sign", "step", "piecewise", "jump", "stairs", "window", "algebraic", "logistic", "cubic", "bump"],
)
def test_nonlinearities_with_kinks_jumps_and_no_closed_form(phi) -> None:  # type: ignore[no-untyped-def]
    x = Field("x")
    J = Gaussian("J", variance=g**2, mean=g / 3)
    model = Dynamics({x: -x + J @ phi(x) + WhiteNoise("xi") / 2})
    assert failures(verify(derive(model), simulate=False)) == []


@pytest.mark.parametrize("phi", [floor, lambda x: sqrt(Max(x, 0))], ids=["floor", "root"])
def test_what_has_no_numbers_is_said_not_ticked(phi) -> None:  # type: ignore[no-untyped-def]
    """Functions that the quadrature cannot do are named, neither passed nor failed."""
    x, J = Field("x"), Gaussian("J", variance=g**2)
    ticks = verify(derive(Dynamics({x: -x + J @ phi(x) + WhiteNoise("xi")})), simulate=False)
    assert failures(ticks) == []
    assert any(t.passed is None and "not compared" in t.detail for t in ticks)


def test_meanings_use_no_rule() -> None:
    """Meanings may import the classes that hold forms, symbols and names, but no function that a rule is made of."""
    # names of observables, used by theory and simulation alike; names of symbols and of orbits in a form
    shared = {"coupling_outputs", "field_names", "unit_name", "declared_name", "part_name", "population_of"}
    shared |= {"unbind", "response", "spectrum", "orbit_of"}
    shared |= {"site_bodies"}  # everything that a declaration says of its units
    # what a form says about its parts
    shared |= {"pattern_matrices", "fixed_norm", "on_sphere", "replica_site", "cold_site", "known_widths"}
    shared |= {"label_part", "site_of"}
    shared |= {"ladder"}  # the other derivation of the same result, which is what it is compared with
    for path in sorted(Path(meaning.__file__).parent.glob("meaning*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quenched.theory"):
                module = import_module(str(node.module))
                for alias in node.names:
                    thing = getattr(module, alias.name)
                    assert not isinstance(thing, FunctionType) or alias.name in shared, (path.name, alias.name)
                    assert not (isinstance(thing, type) and issubclass(thing, Rule)), (path.name, alias.name)


def test_a_derivation_may_stop_early() -> None:
    derivation = start(MODELS["noisy_erf"]()).average()
    assert [t.passed for t in verify(derivation, simulate=False)] == [True, True]


def test_a_rule_without_a_witness_is_said_to_have_none() -> None:
    class Odd(Average):
        pass

    derivation = start(MODELS["noisy_erf"]()).apply(Odd())
    assert check(derivation.steps[-1], scene_of(derivation)).passed  # a kind of average
    saved = WITNESSES.pop(Average)
    try:
        tick = check(Step(Odd(), derivation.steps[0].after), scene_of(derivation))
    finally:
        WITNESSES[Average] = saved
    assert tick.passed is None
    assert "Odd" in tick.detail


def test_a_missing_memory_is_seen_by_few_steps() -> None:
    """The chain of steps 1 to 6 as a whole, not only step by step."""
    from dataclasses import replace

    derivation = derive(MODELS["mean_and_symmetry"]())
    process = derivation.find(EffectiveProcess)
    assert process is not None
    strong = {"g": 1.2, "eta": 0.7, "m": 0.8, "a": 0.6, "s2": 0.1, "theta": 0.5}
    scene = Scene(derivation.model, {p: strong[p.name] for p in derivation.model.parameters}, 0)
    assert check_chain(derivation.model, process, scene).passed
    for change in ({"memory": {}}, {"mean": {}}):
        tick = check_chain(derivation.model, replace(process, **change), scene)
        assert tick.passed is False, (change, tick.detail)
        assert tick.deviation > 10


@pytest.mark.parametrize("name", ["leaky_map", "two_laws", "mean_and_symmetry"])
def test_two_declared_copies_keep_their_meaning(name: str) -> None:
    assert failures(verify(derive(copies(MODELS[name](), 2)))) == []


def test_the_doubled_system_is_the_theory_of_two_declared_copies() -> None:
    """With couplings and noise shared, the covariance between copies obeys the equation of one copy."""
    net = MODELS["noisy_erf"]()
    one = derive(net).problem
    two = derive(copies(net, 2, share=[*net.matrices, *net.noises])).problem
    assert one is not None
    assert two is not None
    names = [a.name for a in two.arguments]
    cross = two.pairs.index((names.index("x_1"), names.index("x_2")))
    (gain,) = one.gain[0]
    found = {(s.a, s.b): g for s, g in zip(two.two_points, two.gain[cross], strict=True) if g != 0}
    assert found == {two.pairs[cross]: gain}
    assert two.noise[cross] == one.noise[0] != 0
    apart = derive(copies(net, 2)).problem  # noise of its own in each copy
    assert apart is not None
    assert apart.noise[cross] == 0


def test_few_steps_take_delays_of_whole_steps() -> None:
    from quenched.theory import t

    x, J = Field("x"), Gaussian("J", variance=g**2)
    ticks = verify(derive(Map({x: J @ tanh(x(t - 1))})))
    assert failures(ticks) == []
    assert ticks[-1].passed
    ticks = verify(derive(Dynamics({x: -x + J @ tanh(x(t - Rational(1, 3)))})))
    assert failures(ticks) == []
    assert ticks[-1].passed is None
