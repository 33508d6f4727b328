"""Eigenvalues of the Jacobian of a running network: the matrix itself, theory against simulation, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Heaviside, cos, exp, symbols, tanh
from test_plastic import Loops, two_populations

from quenched import (
    Count,
    Dynamics,
    Edge,
    Field,
    Gaussian,
    Map,
    Moment,
    N,
    QuenchedError,
    Radius,
    WhiteNoise,
    catalogue,
    derive,
    mean,
    outer,
    simulate,
    units,
    validate,
)
from quenched.theory.bonds import bond_equations
from quenched.theory.model import Model
from quenched.theory.spaces import t
from quenched.validate.linearised import jacobian
from quenched.validate.program import load
from quenched.validate.realise import Network, integrate
from quenched.validate.simulate_dynamics import prepare

g, p = symbols("g p", positive=True)
k = symbols("k", real=True)
x, w, A = Field("x"), Field("w"), Field("A", over=(units, units))
J = Gaussian("J", variance=g**2)


def with_means() -> Model:
    """Two fields, a gate, and a population mean."""
    gated = J @ tanh(x + w) * (1 + tanh(w)) / 2
    return Dynamics({x: -x + gated + mean(tanh(x)) * cos(x), w: (x**2 / (1 + x**2) - w) / p})


def two_sums() -> Model:
    """One bond read by rows and by columns, in a sum within a sum."""
    inner = A @ tanh(x)
    return Dynamics(
        {x: -x + J @ tanh(x) + A.T @ exp(-(x**2)) + tanh(inner) * x, A: -A / p + k / N * outer(tanh(x), cos(x))}
    )


def test_means_and_gates_against_finite_differences() -> None:
    values = {"g": 0.8, "p": 1.7}
    task = prepare(with_means().observe(third=Moment(3)), 6, 3, values, dt=0.1, duration=1, burn=1).task
    net, functions = Network(task), load(task.program.source)
    integrate(net, functions)
    assert net.last is not None
    time, y = net.last

    def rates(state: np.ndarray) -> np.ndarray:
        both, out = np.concatenate([state[None], np.zeros((1, 12))]), np.zeros((2, 12))
        functions["rhs"](net, time, both, [], 0, out)
        return out[0]

    wanted = np.array([(rates(y[0] + e) - rates(y[0] - e)) / 2e-5 for e in 1e-5 * np.eye(12)]).T
    np.testing.assert_allclose(jacobian(net, functions["linearised"], time, y, 0), wanted, atol=1e-8)


@pytest.mark.parametrize("make", [two_sums, two_populations])
def test_the_matrix_against_finite_differences(make: Any) -> None:
    """All units and all bonds moved one by one, in loops over explicit matrices."""
    model = make()
    model = Dynamics({**{f: r.subs({xi: 0 for xi in model.noises}) for f, r in model.eqs.items()}, **model.bonds})
    values = {s.name: v for s, v in zip(model.parameters, (0.8, 1.1, 0.7, 1.3, 0.9), strict=False)}
    loops = Loops(model, 5, 3, values)
    for _ in range(15):
        loops.step(0.1)
    model.observe(third=Moment(3))
    task = prepare(model, 5, 3, values, dt=0.1, duration=1, burn=0, lyapunov=False).task
    net, functions = Network(task), load(task.program.source)
    for bond, explicit in zip(net.bonds, loops.bonds.values(), strict=True):
        bond.matrices[0][:] = explicit
    state = np.concatenate([*loops.state.values()])
    found = np.linalg.eigvals(jacobian(net, functions["linearised"], 0.0, state[None], 0))
    every = np.linalg.eigvals(_explicit(loops))
    slow = [float(e.rate.subs(loops.values)) for e in bond_equations(model.bonds)]
    rest = [z for z in every if not any(abs(z - r) < 1e-5 for r in slow)]
    left = [z for z in found if not any(abs(z - r) < 1e-5 for r in slow)]
    assert len(rest) > 4
    np.testing.assert_allclose(np.sort_complex(left), np.sort_complex(rest), atol=1e-6)


def _explicit(loops: Loops) -> np.ndarray:
    """∂F/∂(units, bonds) by central differences."""
    shapes = [v.shape for v in (*loops.state.values(), *loops.bonds.values())]
    edges = np.cumsum([int(np.prod(s)) for s in shapes])

    def rates(y: np.ndarray) -> np.ndarray:
        parts = [a.reshape(s) for a, s in zip(np.split(y, edges[:-1]), shapes, strict=True)]
        units_, bonds = parts[: len(loops.state)], parts[len(loops.state) :]
        out = loops.rates(dict(zip(loops.state, units_, strict=True)), dict(zip(loops.bonds, bonds, strict=True)))
        return np.concatenate([np.ravel(v) for part in out for v in part.values()])

    at = np.concatenate([np.ravel(v) for v in (*loops.state.values(), *loops.bonds.values())])
    h = 1e-5
    return np.array([(rates(at + h * e) - rates(at - h * e)) / (2 * h) for e in np.eye(len(at))]).T


def test_a_map_has_the_derivative_of_its_step() -> None:
    net = Map({x: J @ tanh(x) + w / 2, w: x / 3 + w / 4}).observe(second=Moment(2))
    task = prepare(net, 7, 1, {"g": 1.3}, duration=3, burn=2, lyapunov=False).task
    drawn, functions = Network(task), load(task.program.source)
    integrate(drawn, functions)
    assert drawn.last is not None
    t_, y = drawn.last
    one = np.eye(7)
    wanted = np.block([[drawn.matrices[0] * np.cosh(y[0, :7]) ** -2.0, one / 2], [one / 3, one / 4]])
    np.testing.assert_allclose(jacobian(drawn, functions["linearised"], t_, y, 0), wanted, atol=1e-12)
    run = simulate(net, 7, trials=1, seed=1, g=1.3, duration=3, burn=2, store=False)
    assert run["second"].mean[0] == pytest.approx(np.trace(wanted @ wanted) / 14)


def rate_network(noise: float = 0.5) -> Model:
    net = Dynamics({x: -x + J @ tanh(x) + noise * WhiteNoise("xi")}, defaults={g: 2})
    return net.observe(radius=Radius(centre=-1), body=Count(disc=(0.5, -1)), square=Moment(2))


def test_theory_and_simulation_of_a_rate_network() -> None:
    net = rate_network()
    sizes = (60, 90, 180)
    how: Any = dict(trials=64, seed=2, duration=1, burn=10, dt=0.1, trajectories=4, lyapunov=False, lags=[0])
    runs = [simulate(net, n, workers=1, store=False, **how) for n in sizes]
    report = validate(net, data=runs)
    assert report.reason.startswith("not rejected"), report
    assert report.detectable < 0.25
    assert validate(net, data=runs, theory=derive(net).mutate("variance-tenth")).verdict == "disagree"


def test_every_branch_has_its_own_jacobian() -> None:
    net = Dynamics({x: -x + J @ tanh(x)}, defaults={g: 2}).observe(right=Edge())
    edges = {b.label: b.quantity("right").value for b in derive(net).solve().branches}
    assert edges["trivial"] == pytest.approx(1)
    assert 0 < edges["dynamic"] < 1


def test_what_has_no_jacobian_to_observe() -> None:
    silent = dict(duration=1, burn=0, dt=0.1, lyapunov=False)
    refused = {
        "the right-hand side jumps": Dynamics({x: -x + J @ Heaviside(x)}),
        "delays": Dynamics({x: -x + J @ tanh(x(t - 1))}),
        "noise multiplies": Dynamics({x: -x + J @ tanh(x) + x * WhiteNoise("xi") / 4}),
    }
    for message, net in refused.items():
        plan = prepare(net.observe(right=Edge()), 10, 0, {"g": 1.0}, **silent).plan
        assert message in plan.unmeasured["right"]
    net = rate_network()
    with pytest.raises(QuenchedError, match="of the Jacobian of a dynamics contains"):
        net.observe(mixed=Edge() + mean(x**2))
    with pytest.raises(QuenchedError, match="complex"):
        net.observe(window=Count(0, 1))


@pytest.mark.slow
def test_the_joint_jacobian_of_a_plastic_network() -> None:
    """arXiv:2302.08985: eigenvalues of units and synapses of running networks, synapses included."""
    net = Dynamics(dict(catalogue["neuronal-synaptic"]().equations), defaults={"g": 2.5, "p": 2.5, "k": -1})
    net.observe(body=Count(disc=(0.3, -0.7)), pole=Count(disc=(0.3, -0.4)), right=Edge(), top=Edge("top"))
    net.observe(wide=Count(disc=(0.5, -0.7)))
    how: Any = dict(trials=96, seed=1, duration=1, burn=40, dt=0.2, lyapunov=False, lags=[0], store=False, workers=1)
    runs = [simulate(net, n, **how) for n in (40, 80, 160)]
    report = validate(net, data=runs, quick=True)
    assert report.reason.startswith("not rejected"), report
    assert report.detectable < 0.25
    assert {"pole", "wide"} <= set(report.reason.partition("alone agree: ")[2].split(", "))  # to five per cent
    assert validate(net, data=runs, theory=derive(net).mutate("variance-tenth")).verdict == "disagree"
