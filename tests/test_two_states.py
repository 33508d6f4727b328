"""Two states of one disorder as a derived step: its witness, its mutants, and variants."""

from __future__ import annotations

import pytest
from sympy import Rational, symbols

from quenched import (
    Field,
    Gibbs,
    Iid,
    Ising,
    Population,
    Quenched,
    SpikeSlab,
    catalogue,
    copies,
    derive,
    mean,
    total,
    units,
    zero_temperature,
)
from quenched.theory.replica_pair import TwoStates, TwoStatesForm
from quenched.validate.witness import check, mutants_of, scene_of

alpha, T = symbols("alpha T", positive=True)
h = symbols("h", real=True)
xi = Iid("xi", Ising(), over=(Population("pattern", fraction=alpha), units))
s = Field("s", initial=xi[0])
memory = -total(s * (xi.T @ (xi @ s))) / 2


def pair(prior: object, energy: object) -> Gibbs:
    """Two states of a memory, near different patterns."""
    found = copies(Gibbs({s: prior}, energy=energy, beta=1 / T), 2, initial=[xi[0], xi[1]])  # type: ignore[dict-item]
    return found.observe(q_k=mean(s[1] * s[2]), there=mean(xi[1] * s[2]))


def ring(distance: int) -> Gibbs:
    return catalogue["hebbian-length-correlations"](size=4, other=distance)


MODELS = {
    "memory": pair(Ising(), memory),
    "memory in a random field": pair(Ising(), memory - h * total(Quenched("b", Ising()) * s)),
    "three values": pair(SpikeSlab(Rational(1, 2), Ising()), memory),
    "ring": ring(1),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_step_is_checked(name: str) -> None:
    derivation = derive(MODELS[name]).derivation
    step, scene = derivation.steps[-1], scene_of(derivation)
    assert step.title == TwoStates.title
    assert check(step, scene).passed, check(step, scene).detail
    mutants = list(mutants_of(step))
    assert [label for label, form in mutants if check(step, scene, form).passed] == []
    assert len(mutants) >= (3 if name == "ring" else 6)


def test_the_step_at_zero_temperature() -> None:
    derivation = derive(zero_temperature(MODELS["memory"])).derivation
    step, scene = derivation.steps[-1], scene_of(derivation)
    assert check(step, scene).passed, check(step, scene).detail
    labels = [label for label, form in mutants_of(step) if check(step, scene, form).passed]
    assert not [label for label in labels if label.startswith("cross")]


def test_covariance_of_fields() -> None:
    """α r₁₂ at the units; the patterns' own overlap has the linear response of one state."""
    form = derive(MODELS["memory"]).derivation.find(TwoStatesForm)
    assert form is not None
    assert "Hebbian length" in derive(MODELS["memory"]).derivation.bibtex()
    fields = {p.site: p for p in form.problem.sites}
    one = {u: form.action.values[o] for u, o in form.orbits}
    for site in fields.values():
        assert site.cross.xreplace(one) == site.k
        assert site.cross != site.k
