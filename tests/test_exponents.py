"""Lyapunov spectra of simulated networks."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Rational, sign, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Map, QuenchedError, WhiteNoise, outer, simulate, t, units
from quenched.theory.spaces import N
from quenched.validate.exponents import kaplan_yorke

g = symbols("g", positive=True)
x, y = Field("x"), Field("y")
HOW = {"trials": 1, "seed": 1, "workers": 1, "store": False}


def spectrum(net: object, size: int, count: int, **how: object) -> np.ndarray:
    return np.asarray(simulate(net, N=size, lyapunov_spectrum=count, **HOW, **how)["lyapunov_spectrum"].values)[0]


def test_linear_units_have_their_own_rates() -> None:
    net = Dynamics({x: -x + y, y: -3 * y + WhiteNoise("xi")})
    found = spectrum(net, 4, 8, dt=0.01, duration=20)
    assert found == pytest.approx([-1] * 4 + [-3] * 4, abs=2e-3)


def test_exponents_add_up_to_the_trace() -> None:
    """Without self-couplings the Jacobian's trace is −N at any time; the largest exponent is that of one vector."""
    net = Dynamics({x: -x + Gaussian("J", variance=g**2, diagonal=0) @ tanh(x)})
    run = simulate(net, N=40, lyapunov_spectrum=40, g=3, duration=60, dt=0.05, **HOW)
    found = run["lyapunov_spectrum"].values[0]
    assert found.sum() == pytest.approx(-40, rel=1e-3)
    assert np.all(np.diff(found) <= 0)
    assert run["lyapunov"].values[0, 0] == found[0]
    assert run["kaplan_yorke"].values[0, 0] == kaplan_yorke(found)


def test_a_delayed_unit_has_the_roots_of_its_characteristic_equation() -> None:
    from scipy.special import lambertw

    found = spectrum(Dynamics({x: -x - x(t - 1)}), 1, 1, dt=0.01, duration=100)
    exact = np.real(lambertw(-np.e, 0)) - 1
    assert found[0] == pytest.approx(exact, abs=0.01)


def test_the_dimension_of_known_spectra() -> None:
    assert kaplan_yorke([0.9056, 0.0, -14.572]) == pytest.approx(2.062, abs=1e-3)  # the Lorenz attractor
    assert kaplan_yorke([-1.0, -2.0]) == 0
    assert np.isnan(kaplan_yorke([0.3, 0.1]))


def test_what_has_no_spectrum_is_refused() -> None:
    net = Map({x: Gaussian("J", variance=g**2) @ tanh(x)})
    A = Field("A", over=(units, units))
    for model, how, message in (
        (net, {"lyapunov_spectrum": 11}, "there are 10 exponents"),
        (net, {"lyapunov_spectrum": -1}, "number of exponents"),
        (net, {"lyapunov_spectrum": 2, "trajectories": 3}, "one trajectory"),
        (net, {"lyapunov_spectrum": 2, "lyapunov": False}, "not asked for"),
        (Map({x: Gaussian("J", variance=g**2) @ sign(x)}), {"lyapunov_spectrum": 2}, "jumps"),
        (
            Dynamics({x: -x + A @ x + g * x / 9, A: -A + outer(x, x) * Rational(1, 9) / N}),
            {"lyapunov_spectrum": 2},
            "dynamic",
        ),
    ):
        with pytest.raises(QuenchedError, match=message):
            simulate(model, N=10, g=1, duration=5, **HOW, **how)
