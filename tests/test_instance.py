"""The instance reading: message passing, state evolution, and what it has to agree in with the other readings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Abs, Heaviside, Rational, exp, symbols

from quenched import (
    Circulant,
    Field,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    N,
    Normal,
    Population,
    Quenched,
    QuenchedError,
    Spherical,
    SpikeSlab,
    Uniform,
    derive,
    mean,
    total,
    units,
    zero_temperature,
)
from quenched.instance_theory import InstanceTheory
from quenched.theory.instance_evolution import EvolutionForm, GrowthForm
from quenched.theory.instance_identities import Identity, identities
from quenched.theory.instance_messages import NodeEquations
from quenched.theory.replica_limit import RepliconForm, SaddleEquations

alpha, K, beta, h = symbols("alpha K beta h", positive=True)
kappa, J0 = symbols("kappa J_0", real=True)
noise = symbols("epsilon", positive=True)
patterns, slow = Population("pattern", fraction=alpha), Population("slow", fraction=2)
w, s, r = Field("w"), Field("s"), Field("r", population=slow)
xi = Iid("xi", Ising(), over=(patterns, units))
J = Gaussian("J", variance=1, mean=J0, symmetry=1)
C = Gaussian("C", variance=h, over=(units, slow))
D = Gaussian("D", variance=1, symmetry=Rational(1, 3), over=(slow, slow))
condensed, sign, label = Quenched("xi_1", Ising()), Quenched("e", Ising()), Quenched("y", Ising(), over=patterns)

#: Name → (declaration, a point where messages converge).
MODELS: dict[str, tuple[Gibbs, dict[str, float]]] = {
    "margin": (Gibbs({w: Ising()}, weight=Heaviside(xi @ w - kappa)), {"alpha": 0.5, "kappa": 0}),
    "band": (Gibbs({w: Ising()}, weight=Heaviside(K - Abs(xi @ w))), {"alpha": 0.8, "K": 1}),
    "soft": (Gibbs({w: Ising()}, weight=1 / (1 + exp(-beta * (xi @ w)))), {"alpha": 1, "beta": 3}),
    "label noise": (
        Gibbs({w: Ising()}, weight=noise + (1 - 2 * noise) * Heaviside(label * (xi @ w) - kappa)),
        {"alpha": 0.6, "kappa": 0.2, "epsilon": 0.05},
    ),
    "regression": (Gibbs({w: Normal(0, 1)}, weight=exp(-beta * (xi @ w - 1) ** 2 / 2)), {"alpha": 1.5, "beta": 1.7}),
    "sparse weights": (
        Gibbs({w: SpikeSlab(Rational(1, 2), Normal(0, 1))}, weight=Heaviside(label * (xi @ w) - kappa)),
        {"alpha": 0.5, "kappa": 0.2},
    ),
    "sphere": (Gibbs({w: Spherical()}, weight=Heaviside(xi @ w - kappa)), {"alpha": 0.5, "kappa": 0.2}),
    "spin glass": (
        Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2 - h * total(s), beta=beta),
        {"beta": 1 / 1.2, "h": 0.5, "J_0": 0.2},
    ),
    "spins with zeros in a random field": (
        Gibbs({s: SpikeSlab(Rational(1, 2), Ising())}, energy=-total(s * (J @ s)) / 2 - h * total(sign * s), beta=beta),
        {"beta": 1, "h": 0.5, "J_0": 0},
    ),
    "spherical spins": (
        Gibbs({s: Spherical()}, energy=-total(s * (J @ s)) / 2 - h * total(s), beta=beta),
        {"beta": 0.8, "h": 0.3, "J_0": 0},
    ),
    "stored patterns": (
        Gibbs({s: Ising()}, energy=-N * mean(condensed * s) ** 2 / 2 - total(s * (xi.T @ (xi @ s))) / 2, beta=beta),
        {"alpha": 0.05, "beta": 2.5},
    ),
    "two populations": (
        Gibbs({s: Ising(), r: Uniform(-1, 1)}, energy=-total(s * (C @ r)) - total(r * (D @ r)) / 2 - h * total(s)),
        {"h": 0.4},
    ),
}


def theory(name: str) -> InstanceTheory:
    return derive(MODELS[name][0]).instance()


@pytest.mark.parametrize("name", MODELS)
def test_readings_agree_symbolically(name: str) -> None:
    """State evolution = replica saddle, growth = replicon, Bethe = replica free entropy, Onsager term = −memory."""
    found = theory(name).identities()
    assert [i.title for i in found if not i.holds] == []
    titles = " ".join(i.title for i in found)
    for words in ("State evolution = stationarity", "Growth of perturbed messages", "Bethe free entropy", "memory"):
        assert words in titles


@pytest.mark.parametrize("name", MODELS)
def test_state_evolution_and_replicas_give_equal_numbers(name: str) -> None:
    model, at = MODELS[name]
    ours, theirs = theory(name).solve(at), derive(model).solve(at)
    for quantity in ("free_entropy", "replicon"):
        assert float(ours[quantity]) == pytest.approx(float(theirs[quantity]), abs=1e-9)


# -- mistakes ------------------------------------------------------------------------------------------------------
def changed(name: str, kind: Any) -> list[tuple[str, list[Identity]]]:
    """Identities with every mutant of one form of the instance derivation in its place."""
    model, _ = MODELS[name]
    replica, instance = derive(model).derivation, theory(name).derivation
    saddle = replica.find(SaddleEquations)
    assert saddle is not None
    assert replica.find(RepliconForm) is not None
    out = []
    for step in instance.steps:
        if isinstance(step.after, kind):
            for text, form in step.after.mutants():
                out.append((text, _identities_with(replica, instance, form)))
    return out


def _identities_with(replica: Any, instance: Any, form: Any) -> list[Identity]:
    class Changed:
        model = instance.model
        refusal = instance.refusal

        @staticmethod
        def find(wanted: Any) -> Any:
            if isinstance(form, wanted):
                return form
            if wanted is GrowthForm and isinstance(form, EvolutionForm):
                from dataclasses import replace

                return replace(instance.find(GrowthForm), evolution=form)
            return instance.find(wanted)

    return identities(replica, Changed())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["margin", "spin glass", "stored patterns"])
@pytest.mark.parametrize("kind", [EvolutionForm, GrowthForm])
def test_every_mistake_breaks_an_identity(name: str, kind: Any) -> None:
    """Each term of state evolution and of the growth off by a tenth, each sign of the growth inverted."""
    survivors = [text for text, found in changed(name, kind) if all(i.holds for i in found)]
    fixed = [text for text in survivors if "of v of" in text]  # V drops out where x² is fixed
    assert survivors == fixed


def test_no_state_evolution_without_the_onsager_term() -> None:
    from quenched.theory.instance import StateEvolution
    from quenched.theory.instance_messages import Bethe

    nodes = theory("margin").derivation.find(NodeEquations)
    assert nodes is not None
    for text, form in nodes.mutants():
        if "Onsager" in text:
            with pytest.raises((QuenchedError, AssertionError)):
                StateEvolution()(Bethe()(form))


# -- runs ----------------------------------------------------------------------------------------------------------
#: Declarations whose runs are left to the longer tests (each compiles its own iteration).
LONGER = {"two populations", "soft", "band", "spherical spins", "spins with zeros in a random field", "sphere"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONGER)) for n in MODELS])
def test_fixed_points_of_instances_are_those_of_state_evolution(name: str) -> None:
    """N = 400: free entropy and growth of three instances within their fluctuations of the typical one."""
    _, at = MODELS[name]
    found = theory(name)
    solution = found.solve(at)
    runs = [found.run(400, 0, k, at) for k in range(3)]
    assert all(run.behaviour == "converged" for run in runs)
    average = {k: np.mean([run.observables[k] for run in runs]) for k in ("free_entropy", "growth")}
    assert average["free_entropy"] == pytest.approx(float(solution["free_entropy"]), abs=0.06)
    if float(solution["replicon"]) > 0.02:  # smaller ones are hidden by the uniform mode, which then decays more slowly
        assert average["growth"] == pytest.approx(float(solution["replicon"]), abs=0.12)


def test_plain_iteration_misses_the_fixed_point() -> None:
    """Without its Onsager term the same iteration ends elsewhere."""
    from dataclasses import replace

    from quenched.validate.message_passing import experiment

    model, at = MODELS["spin glass"]
    found = theory("spin glass")
    q = float(found.solve(at)["q"])
    right, wrong = (
        np.mean([np.mean(experiment(model, p, 600, 0, at).number(k).run().state.m["units"] ** 2) for k in range(3)])
        for p in (found.messages, replace(found.messages, reaction=0.0))
    )
    assert right == pytest.approx(q, abs=0.03)
    assert abs(wrong - q) > 0.1


def test_messages_do_not_settle_where_replicas_are_unstable() -> None:
    found = derive(MODELS["margin"][0]).instance()
    run = found.run(600, alpha=1.15, kappa=0)
    assert run.behaviour in ("does not settle", "diverged")
    assert np.isnan(run.observables["q"])
    assert not found.solve(alpha=1.15, kappa=0).main.stable
    assert run.behaviour in repr(run)


def test_generated_source_is_readable_and_runs_alone() -> None:
    source = theory("label noise").program.source
    assert "def site_pattern(b, V, q, p, L, m, v):" in source
    assert "what comes back is taken away" in source
    assert "sympy" not in source


# -- the record and bad input --------------------------------------------------------------------------------------
def test_the_derivation_prints_every_step() -> None:
    derivation = theory("margin").derivation
    text = derivation.text()
    for words in ("Belief propagation", "Relaxed", "Approximate message passing", "Onsager term", "State evolution"):
        assert words in text
    assert "growth = 1 − det(1 − G) = α·E[L₂²]_pattern·E[L₂²]_units" in text
    assert "zhao2022" in derivation.bibtex()
    assert derivation.latex().count("\\begin{align}") == len(derivation.steps) + 1


def test_what_messages_do_not_cover() -> None:
    with pytest.raises(QuenchedError, match="zero temperature"):
        derive(zero_temperature(MODELS["spin glass"][0])).instance()
    X = Circulant("X", {0: 1, 1: h, -1: h}, over=(patterns, patterns))
    window = Gibbs({s: Ising()}, energy=-total(s * (xi.T @ (X @ (xi @ s)))) / 2, beta=beta)
    with pytest.raises(QuenchedError, match="local fields of an instance"):
        derive(window).instance()
    with pytest.raises(QuenchedError, match="multiples of the state"):
        derive(Gibbs({s: Normal(0, 1)}, energy=total((J @ s) * s**3) + total(s**4))).instance()
