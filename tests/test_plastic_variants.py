"""Rules of plasticity beyond one product: populations, sliding thresholds, gains; what is not covered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sympy import Rational, erf, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    N,
    NotCovered,
    Population,
    derive,
    diag,
    mean,
    outer,
    simulate,
    units,
)
from quenched.numerics import Sampling
from quenched.theory.model import Model
from quenched.validate.witness import verify

g, p, q = symbols("g p q", positive=True)
k, eta = symbols("k eta", real=True)
x, w, A, B = Field("x"), Field("w"), *(Field(name, over=(units, units)) for name in "AB")
J = Gaussian("J", variance=g**2)


def excitatory_only() -> Model:
    """Two populations, of which only the couplings within one are plastic."""
    E, I = Population("E", Rational(4, 5)), Population("I", Rational(1, 5))
    u, v, P = Field("u", E), Field("v", I), Field("P", over=(E, E))

    def random(name: str, rows: Any, cols: Any) -> Gaussian:
        return Gaussian(name, variance=g**2, over=(rows, cols))

    return Dynamics(
        {
            u: -u + (random("J_EE", E, E) + P) @ tanh(u) - random("J_EI", E, I) @ tanh(v),
            v: -v + random("J_IE", I, E) @ tanh(u) - random("J_II", I, I) @ tanh(v),
            P: (-P + k / N * outer(tanh(u), tanh(u))) / p,
        }
    )


def sliding_threshold() -> Model:
    """Potentiation above and depression below a threshold that follows the unit's own activity."""
    rule = k / N * outer(tanh(x) * (tanh(x) ** 2 - w), tanh(x))
    net = Dynamics({x: -x + (J + A) @ tanh(x), w: (-w + tanh(x) ** 2) / q, A: (-A + rule) / p})
    return net.observe(C_phi0=mean(tanh(x) ** 2), threshold=mean(w), C_x0=mean(x**2))


def homeostatic_gain() -> Model:
    """A slow variable that turns the output down, and a rule whose two sides differ."""
    output = tanh(x) / (1 + w**2)
    return Dynamics({x: -x + (J + A) @ output, w: (-w + x) / q, A: (-A + k / N * outer(erf(x), output)) / p})


def partly_symmetric() -> Model:
    """Memory of dynamic couplings beside that of couplings which are partly symmetric."""
    S = Gaussian("J", variance=g**2, symmetry=eta)
    net = Dynamics({x: -x + (S + A) @ tanh(x), A: (-A + k / N * outer(tanh(x), tanh(x))) / p})
    return net.observe(C_x0=mean(x**2), C_phi0=mean(tanh(x) ** 2))


def slow_gain() -> Model:
    """Each unit a gain that slowly holds its output at one level."""
    output = tanh(w * x)
    rule = (-A + k / N * outer(output, output)) / p
    net = Dynamics({x: -x + (J + A) @ output, w: (Rational(3, 2) - w - output**2) / q, A: rule})
    return net.observe(C_x0=mean(x**2), C_phi0=mean(output**2), gain=mean(w))


def running_average() -> Model:
    """Both sides of the rule as departures from a running average of the unit."""
    away = tanh(x) - w
    net = Dynamics({x: -x + (J + A) @ tanh(x), w: (tanh(x) - w) / q, A: (-A + k / N * outer(away, away)) / p})
    return net.observe(C_x0=mean(x**2), C_phi0=mean(tanh(x) ** 2))


def two_rates() -> Model:
    """A fast anti-Hebbian bond beside a slow Hebbian one."""
    drive = k / N * outer(tanh(x), tanh(x))
    net = Dynamics({x: -x + (J + A + B) @ tanh(x), A: (-A + drive) / p, B: (-B - drive) / q})
    return net.observe(C_x0=mean(x**2), C_phi0=mean(tanh(x) ** 2))


def following() -> Model:
    """p·A' = C − A, q·C' = −C + drive, as two bonds that do not read each other: B = r·C, r = q/(q − p)."""
    drive, r = k / N * outer(tanh(x), tanh(x)) / q, q / (q - p)
    return Dynamics({x: -x + (J + A + B) @ tanh(x), A: -A / p - r * drive, B: -B / q + r * drive})


def presynaptic() -> Model:
    """Bonds that grow with the activity of one of their units alone."""
    return Dynamics({x: -x + (J + A) @ tanh(x), A: (-A + k / N * outer(1, tanh(x))) / p})


OTHERS = [
    excitatory_only,
    sliding_threshold,
    homeostatic_gain,
    partly_symmetric,
    slow_gain,
    running_average,
    two_rates,
    following,
    presynaptic,
]


@pytest.mark.parametrize("make", OTHERS)
def test_every_step_of_other_rules(make: Callable[[], Model]) -> None:
    theory = derive(make())
    assert theory.solvable
    assert [f"{t.title}: {t.detail}" for t in verify(theory.derivation) if t.passed is not True] == []


def test_a_bond_that_follows_another_remembers_with_both_rates() -> None:
    """k/(q − p)·(e^{−τ/q} − e^{−τ/p}): what p·A' = C − A keeps of a kick of C."""
    process = derive(following()).derivation.process
    assert process is not None
    values, lags = {p: 2.0, q: 5.0, k: 0.7}, np.linspace(0, 10, 6)
    weight = sum(float(b[1].subs(values)) * np.exp(float(b[2].subs(values)) * lags) for b in process.bonds)
    assert weight == pytest.approx(0.7 / 3 * (np.exp(-lags / 5) - np.exp(-lags / 2)), abs=1e-12)


def test_rules_that_are_not_covered() -> None:
    drive = k / N * outer(tanh(x), tanh(x))
    centred = tanh(x) - mean(tanh(x))
    refused: list[tuple[dict[Any, Any], str]] = [
        ({A: -A + drive, B: (-B + A) / q}, "a bond that follows another one, A, is not covered"),
        ({A: -diag(tanh(x) ** 2) @ A + drive, B: -B}, "their decay has one rate for all pairs of units"),
        ({A: -A + outer(centred, centred) / N, B: -B}, "a sum over units"),
    ]
    for equations, message in refused:
        with pytest.raises(NotCovered, match=message):
            Dynamics({x: -x + (J + B) @ tanh(x), **equations})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "values"),
    [
        (partly_symmetric, dict(g=2.0, k=0.5, p=2.0, eta=0.3)),
        (slow_gain, dict(g=2.0, k=0.8, p=2.0, q=3.0)),
    ],
)
def test_other_rules_in_theory_and_simulation(make: Callable[[], Model], values: dict[str, float]) -> None:
    """Networks of 300 units, eight of each, against the theory; without the dynamic couplings it is rejected."""
    net, short = make(), Sampling(dt=0.2, steps=512, paths=120, reach=16, settle=20, average=8)
    theory, plain = (derive(net).solve(values | {"k": strength}, sampling=short) for strength in (values["k"], 0.0))
    how: Any = dict(trials=8, seed=4, dt=0.2, burn=40, duration=60, lags=[0], lyapunov=False, store=False, workers=1)
    run = simulate(net, 300, params=values, **how)
    for name in net.observables:
        error = 4 * (theory.error(name) + run[name].error[0]) + 0.01 * abs(run[name].mean[0])
        assert abs(float(theory[name]) - run[name].mean[0]) < error
        assert abs(float(plain[name]) - run[name].mean[0]) > error


@pytest.mark.slow
def test_a_sliding_threshold_in_theory_and_simulation() -> None:
    net, values = sliding_threshold(), dict(g=2.0, k=4.0, p=2.0, q=1.5)
    theory = derive(net).solve(values, sampling=Sampling(dt=0.2, steps=512, paths=200, reach=16, settle=25, average=12))
    how: Any = dict(trials=8, seed=4, dt=0.1, burn=40, duration=60, lags=[0], lyapunov=False, store=False, workers=1)
    run = simulate(net, 400, params=values, **how)
    for name in net.observables:
        away = abs(float(theory[name]) - run[name].mean[0])
        assert away < 4 * (theory.error(name) + run[name].error[0]) + 0.01 * abs(run[name].mean[0])
    static = derive(Dynamics({x: -x + J @ tanh(x)})).solve(g=2)
    assert run["C_x0"].mean[0] - float(static["C_x0"]) > 3 * run["C_x0"].error[0]
