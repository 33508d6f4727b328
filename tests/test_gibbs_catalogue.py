"""Measures of the catalogue: references of the literature, verdicts, mistakes that they reject, and variants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sympy import Heaviside, Rational, exp, symbols

from quenched import (
    Field,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    Normal,
    Population,
    Quenched,
    SpikeSlab,
    Uniform,
    catalogue,
    derive,
    mean,
    simulate,
    total,
    units,
    validate,
)
from quenched.validate.witness import verify

alpha, beta, T = symbols("alpha beta T", positive=True)
h, kappa = symbols("h kappa", real=True)
s = Field("s")
patterns = Population("pattern", fraction=alpha)
xi = Iid("xi", Ising(), over=(patterns, units))

REFERENCES = [
    ("sk", {"T": 1.2, "h": 0.5}, {"q": 0.220040, "m": 0.352528, "u": -0.572757, "replicon": 0.450505}, 6e-7),
    ("sk", {"T": 1.2, "h": 0.5}, {"T_AT": 0.53510}, 6e-6),
    ("sk", {"T": 1.2, "h": 0.2}, {"T_AT": 0.72504}, 6e-6),
    ("sk", {"T": 0.5, "h": 0.5}, {"replicon": 1.06289}, 6e-6),
    ("hopfield", {"alpha": 0.05, "T": 0.4}, {"m": 0.966187, "q": 0.936682}, 6e-7),
    ("gardner", {"alpha": 1, "kappa": 0}, {"margin": 0.470655, "alpha_c": 2}, 5e-6),
    ("gardner", {"alpha": 0.5, "kappa": 1}, {"alpha_c": 0.51957}, 6e-6),
    (
        "ridge",
        {"alpha": 2, "lambda": 0.5, "Delta": 0.1},
        {"m": 0.719224, "q": 0.579674, "e": 0.141227, "train": 0.098926},
        6e-7,
    ),
    ("bayes-perceptron", {"alpha": 2}, {"q": 0.728298, "m": 0.728298}, 6e-7),
]


@pytest.mark.parametrize(("name", "at", "reference", "digits"), REFERENCES)
def test_references(name: str, at: dict[str, float], reference: dict[str, float], digits: float) -> None:
    solution = derive(catalogue[name]()).solve(at)
    assert {n: float(solution[n]) for n in reference} == pytest.approx(reference, abs=digits)
    assert solution.main.stable == (float(solution["replicon"]) < 1 if "replicon" in reference else True)


def test_signs_of_a_binary_teacher() -> None:
    solution = derive(catalogue["bayes-perceptron"](prior=Ising())).solve(alpha=1)
    assert float(solution["q"]) == pytest.approx(0.560715, abs=6e-7)
    overlap = float(derive(catalogue["bayes-perceptron"]()).solve(alpha=2)["q"])
    assert np.arccos(np.sqrt(overlap)) / np.pi == pytest.approx(0.174534, abs=1e-6)


# -- samples -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "N", "trials"), [("ridge", 100, 40), ("gardner", 50, 40)])
def test_samples_agree(name: str, N: int, trials: int) -> None:
    """One size, within four standard errors and the finite-size term."""
    model = catalogue[name]()
    run = simulate(model, N, trials=trials, seed=1, store=False, workers=1)
    solution = derive(model).solve()
    for observable, sample in run.observables.items():
        if observable not in model.observables:
            continue
        value = float(solution[observable])
        assert float(sample.mean[0]) == pytest.approx(value, abs=4 * float(sample.error[0]) + 1.5 / N), observable


@pytest.mark.slow
def test_a_mistake_is_rejected_and_the_theory_is_not() -> None:
    """Regression at three sizes: exact samples are cheap enough to tell couplings that are a tenth too strong."""
    model = catalogue["ridge"]()
    how = {"sizes": (50, 100, 200), "trials": 200, "quick": True, "ci": True, "workers": 1, "store": False}
    right = validate(model, **how)
    assert right.verdict in ("agree", "inconclusive"), right
    assert "not rejected" in right.reason
    wrong = validate(model, theory=derive(model).mutate("variance-tenth"), **how)
    assert wrong.verdict == "disagree", wrong


@pytest.mark.slow
def test_messages_contract_by_the_replicon_eigenvalue() -> None:
    """Spins in pairs: the change of messages between sweeps, on instances, against λ = .450505."""
    how = {"route": "messages", "trials": 60, "quick": True, "ci": True, "workers": 1, "store": False}
    model = catalogue["sk"]()
    found = validate(model, **how)
    assert "not rejected" in found.reason, found
    wrong = validate(model, theory=derive(model).mutate("averaged-before-squared"), **how)
    assert wrong.verdict == "disagree", wrong


MISTAKES = {
    "sk": ("overlap-tenth", {"route": "messages", "sizes": (100, 200, 400), "trials": 80}),
    "bayes-perceptron": ("averaged-before-squared", {"route": "messages", "sizes": (100, 200, 400), "trials": 40}),
    "hopfield": ("variance-tenth", {"trials": 24}),
    "gardner": ("overlap-tenth", {"route": "messages", "alpha": 0.5, "sizes": (100, 200, 400), "trials": 40}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_named_mistakes_are_rejected(name: str, tmp_path: Path) -> None:
    """A few realisations tell each mistake from the theory, which they do not reject."""
    mistake, how = MISTAKES[name]
    model = catalogue[name]()
    if name == "gardner":
        model.observe(q=mean(model.fields[0][1] * model.fields[0][2]))
    theory, common = derive(model), {"quick": True, "ci": True, "workers": 1, "store": tmp_path, **how}
    assert "not rejected" in validate(model, theory=theory, **common).reason
    wrong = validate(model, theory=theory.mutate(mistake), **common)
    assert wrong.verdict == "disagree", wrong


def test_broken_symmetry_of_replicas_is_never_agreement() -> None:
    model = catalogue["sk"]()
    found = validate(model, T=0.4, h=0.1, sizes=(8, 10, 12), trials=24, quick=True, workers=1, store=False)
    assert found.verdict != "agree"
    marked = derive(model).solve(T=0.4, h=0.1)
    assert "replicas break their symmetry" in marked.main.doubt


def test_runs_that_are_not_equilibrated_are_inconclusive() -> None:
    """A cold spin glass, with hardly any sweeps: the replicas disagree, and the verdict says so."""
    model = Gibbs({s: Ising()}, energy=-total(s * (Gaussian("J", symmetry=1) @ s)) / 2, beta=beta)
    model.observe(q=mean(s[1] * s[2]))
    how = {"route": "monte carlo", "sweeps": 40, "burn": 10, "sizes": (40, 60, 80), "trials": 24}
    found = validate(model, beta=3, quick=True, workers=1, store=False, **how)
    assert found.verdict == "inconclusive"
    assert "not in equilibrium" in found.reason


# -- variants ----------------------------------------------------------------------------------------------------------
E, I = Population("E", Rational(1, 2)), Population("I", Rational(1, 2))
a, b = Field("a", E), Field("b", I)
y, wrong = Quenched("y", Ising(), over=patterns), Quenched("e", Normal(0, 1), over=patterns)
teacher = Quenched("w_0", Normal(0, 1))
VARIANTS = {
    "two populations of spins": (
        Gibbs(
            {a: Ising(), b: Ising()},
            energy=-total(a * (Gaussian("A", over=(E, E), symmetry=1) @ a)) / 2
            - total(a * (Gaussian("B", variance=2, over=(E, I)) @ b))
            - h * (total(a) + 2 * total(b)),
            beta=beta,
        ).observe(m_a=mean(a), m_b=mean(b), q_b=mean(b[1] * b[2])),
        {"beta": 0.6, "h": 0.4},
        {"N": 80, "trials": 60},
    ),
    "three values": (
        Gibbs(
            {s: SpikeSlab(Rational(1, 2), Ising())},
            energy=-total(s * (Gaussian("J", symmetry=1) @ s)) / 2 - h * total(s),
            beta=beta,
        ).observe(m=mean(s), q=mean(s[1] * s[2]), v=mean(s**2)),
        {"beta": 1.0, "h": 0.4},
        {"N": 80, "trials": 60},
    ),
    "soft margins in a box": (
        Gibbs({s: Uniform(-1, 1)}, weight=exp(-beta * Heaviside(kappa - y * (xi @ s)))).observe(
            q=mean(s[1] * s[2]), v=mean(s**2), wrong=mean(Heaviside(kappa - y * (xi @ s)))
        ),
        {"alpha": 0.8, "beta": 2.0, "kappa": 0.3},
        {"N": 60, "trials": 24, "sweeps": 400, "burn": 100},
    ),
    "a mismatched student": (
        Gibbs({s: Normal(0, 2)}, energy=total((xi @ teacher + wrong - xi @ s) ** 2) / 2, beta=beta).observe(
            m=mean(s * teacher), q=mean(s[1] * s[2]), v=mean(s**2)
        ),
        {"alpha": 1.5, "beta": 0.7},
        {"N": 120, "trials": 80},
    ),
}


SLOW = ("soft margins in a box", "three values")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in VARIANTS])
def test_variants_agree_with_samples(name: str) -> None:
    """Declarations that nothing knows beforehand: theory against samples at one size."""
    model, point, how = VARIANTS[name]
    run = simulate(model, params=point, seed=3, store=False, workers=1, **how)  # type: ignore[arg-type]
    solution = derive(model).solve(point)
    for observable in model.observables:
        sample = run[observable]
        allowed = 4 * float(sample.error[0]) + 2 / how["N"]
        assert float(sample.mean[0]) == pytest.approx(float(solution[observable]), abs=allowed), observable


# -- command line ------------------------------------------------------------------------------------------------------
def test_the_command_line_takes_measures() -> None:
    base = [sys.executable, "-m", "quenched.cli"]
    done = subprocess.run([*base, "solve", "sk", "-p", "T=1.2", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["observables"]
    assert found["q"]["value"] == pytest.approx(0.220040, abs=6e-7)
    assert found["replicon"]["value"] == pytest.approx(0.450505, abs=6e-7)


def test_every_step_of_a_binary_teacher_is_checked() -> None:
    """Overlaps of the witnesses' own choice leave every field a variance, with a teacher of fixed norm too."""
    ticks = verify(derive(catalogue["bayes-perceptron"](prior=Ising())).derivation)
    assert [(t.title, t.detail) for t in ticks if t.passed is not True] == []
