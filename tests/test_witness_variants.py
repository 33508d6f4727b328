"""Random declarations: whatever is declared, every step of its derivation keeps its meaning."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from sympy import Expr, Max, cos, erf, exp, sign, sqrt, symbols, tanh

from quenched.theory import Dynamics, Field, Gaussian, Iid, Map, Normal, Population, Quenched, WhiteNoise, mean
from quenched.theory.couplings import Matrix
from quenched.theory.derivation import derive
from quenched.theory.model import Model
from quenched.validate.witness import verify

g, k, m, eta, rho, s2, share = symbols("g k m eta rho s2 f", positive=True)
theta = symbols("theta", real=True)
#: Random declarations a run; `make fuzz` asks for more.
EXAMPLES = int(os.environ.get("QUENCHED_FUZZ", "40"))

OUTPUTS = [
    tanh,
    lambda x: erf(x + theta),
    lambda x: Max(0, x - theta),
    lambda x: sign(x) + x,
    lambda x: x**2,
    lambda x: exp(-(x**2)),
    lambda x: cos(k * x),
    lambda x: x,
]


@dataclass(frozen=True)
class Space:
    """What a random declaration is built from: one or two populations with a field and matrices between them."""

    fields: list[Field]
    matrices: dict[tuple[int, int], list[Matrix]]


def space(two: bool) -> Space:
    if not two:
        J = Gaussian("J", variance=g**2, mean=m, symmetry=eta)
        A = Gaussian("A", variance=k**2, correlation={J: rho})
        return Space([Field("x"), Field("y")], {(0, 0): [J, A, J.T, A.T - J], (0, 1): [], (1, 0): [], (1, 1): []})
    E, I = Population("E", fraction=share), Population("I", fraction=0.2)
    JE = Gaussian("J_EE", variance=g**2, mean=m, symmetry=eta, over=(E, E))
    JI = Gaussian("J_EI", variance=k**2, mean=-m, over=(E, I))
    K = Iid("K", Normal(0, g), over=(I, E))
    return Space([Field("x", E), Field("x", I)], {(0, 0): [JE, JE.T], (0, 1): [JI, K.T], (1, 0): [K, JI.T], (1, 1): []})


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A flow or map with one to three couplings per field, and optional noise, inputs, means and gates."""
    two = draw(st.booleans())
    place = space(two)
    eqs: dict[Field, Expr] = {}
    for i, x in enumerate(place.fields):
        rhs: Expr = -x * draw(st.sampled_from([1, k, 2]))
        sources = [(j, M) for j in (0, 1) for M in (place.matrices[i, j] if two else place.matrices[0, 0])]
        for _ in range(draw(st.integers(1, 3))):
            j, M = draw(st.sampled_from(sources))
            h = M @ draw(st.sampled_from(OUTPUTS))(place.fields[j])
            gate = draw(st.sampled_from([None, None, None, None, "unit", "field"]))
            factor = {None: 1, "unit": 1 / (1 + x**2), "field": 1 / (1 + exp(-h))}[gate]
            rhs += draw(st.sampled_from([1, -1, k])) * h * factor
        if draw(st.booleans()):
            rhs += sqrt(2 * s2) * WhiteNoise("xi", over=x.population)
        if draw(st.booleans()):
            rhs += Quenched("b", Normal(theta, g), over=x.population)
        if draw(st.integers(0, 3)) == 0:
            rhs += mean(draw(st.sampled_from(OUTPUTS))(draw(st.sampled_from(place.fields))))
        if not two and draw(st.booleans()):
            rhs += place.fields[1 - i] / 2
        eqs[x] = rhs
    return draw(st.sampled_from([Dynamics, Map]))(eqs)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(models(), st.integers(0, 1000))
def test_random_declarations_keep_their_meaning(model: Model, seed: int) -> None:
    note(str(model))
    ticks = verify(derive(model), seed=seed, simulate=False)
    assert [f"{t.title}: {t.detail}" for t in ticks if t.passed is False] == []
