"""Stability of two copies: one Hessian for every reading, against the condition that each derives by its own route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sympy import Rational, erf, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Map,
    Normal,
    NotCovered,
    Population,
    Quenched,
    Spectrum,
    catalogue,
    derive,
    diag,
)
from quenched.theory.copy_stability import CopyStability
from quenched.theory.stability_identities import stability_identities
from quenched.validate.witness import check, mutants_of, scene_of
from quenched.validate.witnesses_stability import identity_ticks, stability_steps

g, s2, eta, b = symbols("g s2 eta b", positive=True)
x, a = Field("x"), Field("a")
J, M = Gaussian("J", variance=g**2), Gaussian("M", variance=s2)
E_, I_ = Population("E", fraction=Rational(4, 5)), Population("I", fraction=Rational(1, 5))


def two_populations() -> Dynamics:
    e, i = Field("x", E_), Field("x", I_)
    return Dynamics(
        {
            e: -e
            + Gaussian("A", variance=g**2, mean=1, over=(E_, E_)) @ tanh(e)
            + Gaussian("B", variance=g**2 / 2, mean=-2, over=(E_, I_)) @ tanh(i),
            i: -2 * i
            + Gaussian("C", variance=2 * g**2, over=(I_, E_)) @ tanh(e)
            + Gaussian("D", variance=g**2 / 3, over=(I_, I_)) @ tanh(i),
        }
    )


PATHS = {
    "two populations": two_populations(),
    "one matrix twice": Dynamics({x: -x + J @ tanh(x) + J @ x / 3 + M @ x}),
    "adaptation": Dynamics({x: -x + J @ tanh(x) - b * a, a: (-a + x) / 5}),
    "several fields": Dynamics({x: -x + J @ tanh(x + a / 2), a: -2 * a + M @ tanh(x)}),
    "correlated matrices": Dynamics(
        {
            x: -x + J @ tanh(x) + Gaussian("K", variance=g**2, correlation={J: Rational(1, 2)}) @ a,
            a: -2 * a + J @ erf(x),
        }
    ),
    "partial symmetry": Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)}),
    "a matrix and its transpose": Dynamics({x: -x + J @ tanh(x) + J.T @ x / 2}),
    "gate": Dynamics({x: -x + (J @ tanh(x)) * (1 + tanh(M @ x))}),
    "map": Map({x: x / 2 + J @ tanh(x)}),
    "redrawn couplings": Map({x: Gaussian("J", variance=g**2, redraw="step") @ tanh(x)}),
}
SPECTRA = {
    "product and sum": Spectrum(J @ Gaussian("K", variance=g**2) + J / 3),
    "a matrix and its transpose": Spectrum(J + J.T @ Gaussian("K", variance=s2)),
    "labels": Spectrum(J @ diag(Quenched("d", law=Normal(1, Rational(1, 4)))) + M),
}
CATALOGUE = [
    *("scs", "two-site-cavity", "wide-networks", "balanced-chaos-suppression"),
    *("sk", "hopfield", "binary-perceptron", "gardner", "hebbian-length-correlations"),
    *("circular", "elliptic", "non-normal", "ei-columns", "ginibre-product", "rate-jacobian"),
]


def models() -> list[Any]:
    own = {**{f"paths: {k}": v for k, v in PATHS.items()}, **{f"spectrum: {k}": v for k, v in SPECTRA.items()}}
    return [pytest.param(m, id=k) for k, m in own.items()] + [pytest.param(n, id=n) for n in CATALOGUE]


@pytest.mark.parametrize("model", models())
def test_the_hessian_is_what_the_reading_finds_itself(model: Any) -> None:
    derivation = derive(catalogue[model]() if isinstance(model, str) else model).derivation.stability()
    found = stability_identities(derivation)
    print([(i.title, str(i.difference)) for i in found])
    assert found
    assert all(i.holds for i in found)


@pytest.mark.parametrize("name", ["scs", "wide-networks", "sk", "binary-perceptron", "elliptic"])
def test_a_wrong_hessian_is_not_what_the_reading_finds(name: str) -> None:
    derivation = derive(catalogue[name]()).derivation.stability()
    form = derivation.find(CopyStability)
    wrong = list(form.mutants())
    assert wrong
    for label, mutant in wrong:
        step = derivation.steps[-1]
        step.__dict__["after"] = mutant
        assert not all(i.holds for i in stability_identities(derivation)), label
    step.__dict__["after"] = form


SMALL = ["scs", "wide-networks", "sk", "elliptic", "ei-columns"]


@pytest.mark.parametrize("model", [*SMALL, *(pytest.param(PATHS[k], id=k) for k in ("two populations", "gate"))])
def test_witnesses_of_the_steps_and_their_mutants(model: Any) -> None:
    derivation = derive(catalogue[model]() if isinstance(model, str) else model).derivation
    scene, steps = scene_of(derivation), stability_steps(derivation)
    assert len(steps) >= 2
    for step in steps:
        tick = check(step, scene)
        print(tick)
        assert tick.passed
        wrong = mutants_of(step)
        assert wrong
        for label, form in wrong:
            assert check(step, scene, form).passed is False, (step.title, label)
    assert all(tick.passed for tick in identity_ticks(derivation))


def test_numbers_and_hessian_of_a_network() -> None:
    stability = derive(catalogue["scs"]()).stability(g=2, s2=0)
    assert stability["trivial"][0] == pytest.approx(1, abs=1e-9)
    assert stability["dynamic"][0] > 0
    assert "D_t" in stability.steps[-1].text()
    assert all("difference 0" in line.text for line in stability.agreement)
    assert dict(stability) == stability.rates


@pytest.mark.parametrize("name", ["scs", "wide-networks", "sk", "elliptic"])
def test_new_steps_are_plain_latex(name: str) -> None:
    for step in derive(catalogue[name]()).stability().steps:
        assert step.latex().isascii(), step.title


def test_numbers_over_layers_are_depth_scales() -> None:
    theory = derive(catalogue["wide-networks"]())
    stability = theory.stability()
    scales = theory.depth_scales()
    assert {value for value, _ in stability.values()} == {scales.chi, scales.chi_equal}
    assert stability.hessian.site.step  # type: ignore[attr-defined]


def test_states_without_a_hessian_are_refused() -> None:
    with pytest.raises(NotCovered, match="real"):
        _ = derive(catalogue["wigner"]()).stability().steps
    with pytest.raises(NotCovered, match="remember"):
        _ = derive(catalogue["neuronal-synaptic"]()).stability().steps


def test_given_vectors_do_not_differ_between_copies() -> None:
    form = derive(catalogue["wide-networks"]()).stability().hessian
    assert len(form.modes) == 1
    assert any(line.comment == "given vectors" for line in replace(form).dropped())
