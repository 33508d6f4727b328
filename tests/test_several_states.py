"""Where there is no stationary state, or none that the equations single out, the engine says so."""

from __future__ import annotations

import pytest
from sympy import Max, Rational, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Map, Population, QuenchedError, WhiteNoise, derive, mean, t, validate
from quenched.numerics import Sampling
from quenched.theory.model import Model

g = symbols("g", positive=True)
eta = symbols("eta", real=True)
x, u, v = Field("x"), Field("u", Population("E", Rational(1, 2))), Field("v", Population("I", Rational(1, 2)))
J, S = Gaussian("J", variance=g**2), Gaussian("J", variance=g**2, symmetry=eta)
noise = WhiteNoise("xi") / 2
SHORT = Sampling(steps=256, paths=100, settle=12, average=4)


@pytest.mark.parametrize(
    ("net", "at", "message"),
    [
        (Dynamics({x: x + J @ tanh(x)}), {"g": 1}, "unstable or marginal"),
        (Dynamics({x: J @ tanh(x)}), {"g": 1}, "unstable or marginal"),
        (Dynamics({x: -x + J @ Max(x, 0)}), {"g": 5}, "diverges"),
        (Dynamics({x: -x + J @ x + noise}), {"g": 1.5}, "diverges"),
        (Map({x: 2 * x + J @ tanh(x)}), {"g": 1}, "unstable or marginal"),
        (Map({x: J @ Max(x, 0) + noise}), {"g": 3}, "diverges"),
        (Dynamics({x: -x + S @ Max(x, 0) + noise}), {"g": 5, "eta": 0.5}, "diverge"),
        (Dynamics({x: -x + x**2 + J @ tanh(x) + noise}), {"g": 0.5}, "diverge"),
        (Dynamics({x: -x + J @ tanh(x) + t}), {"g": 1}, "does not repeat"),
        (Dynamics({x: -x + J @ (1 / x) + noise}), {"g": 0.5}, "not finite"),
    ],
)
def test_states_that_do_not_exist_are_refused(net: Model, at: dict[str, float], message: str) -> None:
    theory = derive(net)
    how = {"sampling": SHORT} if theory.derivation.process is not None else {}
    with pytest.raises(QuenchedError, match=message):
        theory.solve(at, **how)


def test_units_with_two_lasting_states_are_told() -> None:
    two = derive(Dynamics({x: x - x**3 + J @ tanh(x)})).solve(g=0.1, sampling=SHORT)
    assert "remember where they started" in two.main.undetermined
    one = derive(Dynamics({x: -x - x**3 + J @ tanh(x) + noise})).solve(g=0.1, sampling=SHORT)
    assert one.main.undetermined == ""


def oscillating(delay: float) -> Model:
    """Units that inhibit each other in the mean, at once or later."""
    K = Gaussian("J", variance=g**2, mean=-4)
    return Dynamics({x: -x + K @ tanh(x(t - delay)) + 1 + noise}).observe(m=mean(x))


def pairs(strength: float) -> Model:
    """Excitation and inhibition that chase each other if they are strong."""
    E, I = u.population, v.population
    w = {
        n: Gaussian(n, variance=g**2, mean=m * strength, over=o)
        for n, m, o in (("A", 8, (E, E)), ("B", -12, (E, I)), ("C", 12, (I, E)))
    }
    return Dynamics(
        {
            u: -u + w["A"] @ tanh(u) + w["B"] @ tanh(v) + WhiteNoise("xi", over=E) / 4,
            v: -v + w["C"] @ tanh(u) + WhiteNoise("xi", over=I) / 4,
        }
    )


@pytest.mark.parametrize(
    ("net", "stable"), [(oscillating(2.0), False), (oscillating(0.2), True), (pairs(1.0), False), (pairs(0.2), True)]
)
def test_oscillations_of_the_mean_unsettle_a_stationary_state(net: Model, stable: bool) -> None:
    main = derive(net).solve(g=0.3).main
    assert main.stable is stable
    assert bool(main.undetermined) is not stable


@pytest.mark.slow
def test_no_verdict_on_a_state_that_oscillates() -> None:
    how = {"sizes": (100, 200, 400), "trials": 8, "quick": True, "ci": True, "store": False, "workers": 1}
    found = validate(oscillating(2.0), {"g": 0.3}, **how)
    assert found.verdict == "inconclusive"
    assert "unstable" in found.reason
