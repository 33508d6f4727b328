"""Lyapunov spectra of simulated networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import sign, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Map, QuenchedError, WhiteNoise, outer, simulate, t, units
from quenched.theory.spaces import N
from quenched.validate.exponents import kaplan_yorke
from quenched.validate.program import load
from quenched.validate.realise import Network, initial_state
from quenched.validate.simulate_dynamics import prepare

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
    for model, how, message in (
        (net, {"lyapunov_spectrum": 11}, "there are 10 exponents of the units"),
        (net, {"lyapunov_spectrum": -1}, "number of exponents"),
        (net, {"lyapunov_spectrum": 2, "trajectories": 3}, "one trajectory"),
        (net, {"lyapunov_spectrum": 2, "lyapunov": False}, "not asked for"),
        (Map({x: Gaussian("J", variance=g**2) @ sign(x)}), {"lyapunov_spectrum": 2}, "jumps"),
    ):
        with pytest.raises(QuenchedError, match=message):
            simulate(model, N=10, g=1, duration=5, **HOW, **how)


def test_dynamic_couplings_belong_to_the_perturbations() -> None:
    """The largest exponents of 5 units and 25 couplings, against QR decompositions of all 30 components."""
    A = Field("A", over=(units, units))
    net = Dynamics({x: -x + (Gaussian("J", variance=g**2) + A) @ tanh(x), A: (-A + outer(tanh(x), tanh(x)) / N) / 2})
    how: Any = dict(g=1.5, duration=150, burn=20, dt=0.1, lags=[0])
    found = spectrum(net, 5, 4, **how)
    task = prepare(net, 5, 1, {"g": 1.5}, dt=0.1, duration=1, burn=0).task
    drawn = Network(task)
    y = initial_state(drawn, load(task.program.source))[0].copy()
    wanted = _by_hand(drawn.matrices[0], y)
    assert found == pytest.approx(wanted[:4], abs=0.01)
    assert wanted[4] < -0.1


def _by_hand(J: np.ndarray, x: np.ndarray, dt: float = 0.1) -> np.ndarray:
    """Exponents of units and couplings by Heun's rule for both and for their whole Jacobian."""
    n = len(x)
    one, z = np.eye(n), np.concatenate([x, np.zeros(n * n)])

    def rate(z: np.ndarray) -> np.ndarray:
        out, A = np.tanh(z[:n]), z[n:].reshape(n, n)
        return np.concatenate([-z[:n] + (J + A) @ out, ((np.outer(out, out) / n - A) / 2).ravel()])

    def slope(z: np.ndarray) -> np.ndarray:
        out, A = np.tanh(z[:n]), z[n:].reshape(n, n)
        gain, full = 1 - out**2, np.zeros((n + n * n,) * 2)
        full[:n, :n] = (J + A) * gain - one
        full[:n, n:] = np.einsum("ia,j->iaj", one, out).reshape(n, -1)
        moved = np.einsum("ia,i,j->ija", one, gain, out) + np.einsum("ja,i,j->ija", one, out, gain)
        full[n:, :n] = moved.reshape(-1, n) / (2 * n)
        full[n:, n:] = -np.eye(n * n) / 2
        return full

    vectors, total, steps = np.eye(n + n * n), np.zeros(n + n * n), 0
    for step in range(1700):
        first, bent = rate(z), slope(z)
        ahead = vectors + dt * bent @ vectors
        vectors = vectors + dt / 2 * (bent @ vectors + slope(z + dt * first) @ ahead)
        z = z + dt / 2 * (first + rate(z + dt * first))
        if step % 5 == 4:
            vectors, upper = np.linalg.qr(vectors)
            if step > 200:
                total, steps = total + np.log(np.abs(np.diag(upper))), steps + 5
    return np.sort(total / (steps * dt))[::-1]
