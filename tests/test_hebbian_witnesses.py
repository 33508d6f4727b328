"""Every step of measures with many condensed patterns is compared, and mutants of the steps are caught."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import sign, symbols

from quenched import Field, Gibbs, Iid, Ising, Population, catalogue, derive, mean, total, units
from quenched.numerics.replica_labels import make_site, sets_of_labels
from quenched.theory.replica_forms import replica_site
from quenched.theory.replica_limit import FreeEntropyForm
from quenched.validate.witness import _trial as trial
from quenched.validate.witness import check, mutants_of, scene_of, verify

alpha, T = symbols("alpha T", positive=True)


def mixture() -> Gibbs:
    """A memory of independent patterns, near three of them."""
    patterns = Population("pattern", fraction=alpha)
    xi = Iid("xi", Ising(), over=(patterns, units))
    s = Field("s", initial=sign(xi[0] + xi[1] + xi[2]))
    model = Gibbs({s: Ising()}, energy=-total((xi @ s) ** 2) / 2, beta=1 / T)
    return model.observe(m_0=mean(xi[0] * s), m_1=mean(xi[1] * s), q=mean(s[1] * s[2]))


MODELS = {
    "mixture": mixture(),
    "a window next to many": catalogue["hebbian-length-correlations"](),
    "nine in a cycle": catalogue["hebbian-length-correlations"](size=9, other=2),
    "seven in a cold cycle": catalogue["hebbian-length-correlations"](size=7, cold=True),
    "ground states": catalogue["hebbian-length-correlations"](cold=True),
}
LONG = {"ground states"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in MODELS])
def test_every_step_is_compared(name: str) -> None:
    ticks = verify(derive(MODELS[name]).derivation)  # type: ignore[arg-type]
    assert [(t.title, t.passed, t.detail) for t in ticks if t.passed is not True] == []


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2])
def test_the_step_of_two_states_next_to_many_patterns(d: int) -> None:
    derivation = derive(catalogue["hebbian-length-correlations"](d=d, other=1)).derivation
    tick = check(derivation.steps[-1], scene_of(derivation))
    assert (tick.title, tick.passed) == ("Two states of one disorder", True), tick.detail


@pytest.mark.parametrize(("name", "most"), [("mixture", 6), ("nine in a cycle", 2)])
def test_mutants_are_caught(name: str, most: int) -> None:
    """A few of every step, chosen at random."""
    derivation = derive(MODELS[name]).derivation
    scene, rng, tried = scene_of(derivation), np.random.default_rng(1), 0
    for step in derivation.steps:
        mutants = mutants_of(step)
        for k in rng.permutation(len(mutants))[:most]:
            found = trial(step, *mutants[k], scene)
            assert found.caught, found
            tried += 1
    assert tried > 10


def test_random_sets_of_values_stand_for_many_labels() -> None:
    """Sets are equally likely, the same every time, and used inside the context alone."""
    form = derive(MODELS["nine in a cycle"]).derivation.find(FreeEntropyForm)
    assert form is not None
    (site,) = (s for s in form.action.sites if s.variable.kind == "state")
    values = {s: 0.5 for s in site.variable.weight.exponent.free_symbols}
    with sets_of_labels(7):
        one, two = (make_site(replica_site(site.variable), values) for _ in range(2))
    assert one.free == ()
    assert len(make_site(replica_site(site.variable), values).free) == 9
    (case,) = one.cases
    assert case.probability == pytest.approx(np.full((7, 1), 1 / 7))
    for q, nodes in case.labels.items():
        assert set(nodes.ravel()) <= {-1.0, 1.0}
        assert np.array_equal(nodes, two.cases[0].labels[q])
