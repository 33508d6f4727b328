"""Generated right-hand sides and tangents against explicit loops over indices."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sympy import Heaviside, Max, Piecewise, cos, erf, exp, sign, sin, sqrt, symbols, tanh

from quenched.theory.algebra import Transpose, diag, outer
from quenched.theory.couplings import Apply, Gaussian, Iid
from quenched.theory.distributions import Laplace, Normal, Uniform
from quenched.theory.fields import At, Field, Quenched, UnitSymbol, WhiteNoise
from quenched.theory.model import Dynamics, Map
from quenched.theory.observables import Mean, mean, total
from quenched.theory.spaces import N, Population, t
from quenched.validate.generate import generate
from quenched.validate.program import load
from quenched.validate.realise import Network
from quenched.validate.simulate_dynamics import prepare

SETTINGS = dict(
    dt=None,
    duration=1,
    burn=0,
    lags=[0],
    dtype="float64",
    trajectories=2,
    scheme=None,
    lyapunov=True,
    substeps=1,
)


def network(model, size=3, **params):
    problem = prepare(model, size, 7, params, **SETTINGS)
    net = Network(problem.task)
    return net, load(problem.task.program.source)


class Loops:
    """The right-hand side of one trajectory by explicit sums, straight from the declaration."""

    def __init__(self, model, net, values, now, state, noise, past):
        self.tables = generate(model)[1]
        self.net, self.values, self.now = net, values, now
        self.state, self.noise, self.past_state = state, noise, past

    def __call__(self, expr, i):
        if isinstance(expr, At):
            return self.past_state[expr.field.free()][i]
        if isinstance(expr, UnitSymbol):
            return self.unit(expr.free(), i)
        if isinstance(expr, Mean):
            n = self.size(expr.population)
            return sum(self(expr.body, j) for j in range(n)) / n
        if isinstance(expr, Apply):
            return self.coupling(expr, i)
        if expr == t:
            return self.now
        if expr in self.values:
            return self.values[expr]
        if not expr.args:
            return float(expr) if expr.is_number else expr
        return expr.func(*(self(a, i) for a in expr.args))

    def unit(self, symbol, i):
        if symbol in self.state:
            return self.state[symbol][i]
        if isinstance(symbol, WhiteNoise):
            return self.noise[symbol][i]
        return float(self.net.quenched[self.tables.quenched.index(symbol)][i])

    def coupling(self, node, i):
        turned = isinstance(node.matrix, Transpose)
        atom = node.matrix.args[0] if turned else node.matrix
        entries = self.net.matrices[self.tables.matrices.index(atom)]
        row = entries[:, i] if turned else entries[i]
        return sum(float(row[j]) * self(node.body, j) for j in range(self.size(node.cols)))

    def size(self, population):
        return self.net.task.sizes[self.tables.space(population)]


def check_against_loops(model, size=3, **params):
    """rhs and tangent of every trajectory against loops and their finite differences."""
    net, functions = network(model, size, **params)
    values = {**model.values(params), N: float(net.task.N)}
    rng = np.random.default_rng(3)
    y, past = rng.normal(size=net.shape), rng.normal(size=net.shape)
    noise = [rng.normal(size=(2, net.task.sizes[p])) for _, p in net.task.program.noises]
    net.past = lambda delay, stage: past
    out = np.zeros(net.shape)
    functions["rhs"](net, 0.7, y, noise, 0, out)

    def loops(row, shift):
        tangent_row = row + net.trajectories
        moved = y[row] + shift * y[tangent_row] if net.task.program.tangent else y[row]
        moved_past = past[row] + shift * past[tangent_row] if net.task.program.tangent else past[row]
        state = {f: moved[s] for f, s in zip(model.eqs, net.slices, strict=True)}
        before = {f: moved_past[s] for f, s in zip(model.eqs, net.slices, strict=True)}
        named = {x: n[row] for x, n in zip(model.noises, noise, strict=True)}
        value = Loops(model, net, values, 0.7, state, named, before)
        return np.concatenate([[float(value(rhs, i)) for i in range(len(state[f]))] for f, rhs in model.eqs.items()])

    for row in range(net.trajectories):
        np.testing.assert_allclose(out[row], loops(row, 0), rtol=1e-12, atol=1e-12)
        if net.task.program.tangent:
            slope = (loops(row, 1e-5) - loops(row, -1e-5)) / 2e-5
            np.testing.assert_allclose(out[row + net.trajectories], slope, rtol=2e-8, atol=2e-8)
    return net


def nasty_flow():
    g, a, d, om = symbols("g a d omega", positive=True)
    E, In = Population("E", fraction=1), Population("I", fraction=2)
    pats = Population("patterns", size=2)
    x, y = Field("x", E), Field("x", In)
    J = Gaussian("J", variance=g**2, mean=1, symmetry=0.4, over=(E, E))
    K = Iid("K", Laplace(a), over=(E, In))
    A = Gaussian("A", variance=2, over=(E, E), correlation={J: 0.5})
    P = Gaussian("P", over=(pats, In))
    th, w = Quenched("theta", Uniform(0, 1), over=E), Quenched("w", Normal(0.2, 2), over=In)
    xi, zeta = WhiteNoise("xi", over=E), WhiteNoise("xi", over=In)
    h1, h2 = J @ tanh(x), K @ Max(y, 0)
    gate = h1 / (1 + exp(-h2 - mean(x**2)))
    inner = J.T @ tanh(th + A @ tanh(x))
    return Dynamics(
        {
            x: -x + gate + g * inner + sin(om * t + th) + mean(y * w) * x(t - d) + a * xi + (diag(th) @ J @ (x * th)),
            y: -y * w
            + K.T @ (erf(x) * mean(tanh(x)))
            + Piecewise((y**3, y > 0), (cos(y), True)) / 3
            + sqrt(2) * zeta
            + P.T @ (P @ tanh(y))
            + outer(w, w) @ y / N
            + total(y) / N,
        }
    )


def test_nasty_flow_equals_explicit_loops():
    net = check_against_loops(nasty_flow(), 3, g=1.3, a=0.7, d=0.1, omega=2)
    assert net.task.sizes[:2] == (3, 6)
    assert net.task.program.noise_kind == "additive"
    assert not net.task.program.autonomous


def test_map_with_jumps_has_no_tangent():
    x, J = Field("x"), Gaussian("J", symmetry=1, diagonal=0)
    model = Map({x: sign(J @ x) + Heaviside(x) * mean(x)})
    net = check_against_loops(model, 5)
    assert not net.task.program.tangent


def test_map_with_noise_through_a_coupling():
    x, y, J = Field("x"), Field("y"), Gaussian("J", mean=2)
    check_against_loops(Map({x: tanh(J @ x) * y + J @ WhiteNoise("xi"), y: (J.T @ J) @ x}), 5)


@pytest.mark.parametrize(
    ("rhs", "kind"),
    [
        (lambda x, J, xi: -x + J @ tanh(x), "none"),
        (lambda x, J, xi: -x + J @ xi + mean(x) * 2, "additive"),
        (lambda x, J, xi: -x + x * xi, "multiplicative"),
        (lambda x, J, xi: -x + (J @ xi) * (J @ tanh(x)), "multiplicative"),
        (lambda x, J, xi: -x + J @ (x * xi), "multiplicative"),
        (lambda x, J, xi: -x + sin(t) * xi, "additive"),
    ],
)
def test_noise_is_classified(rhs, kind):
    x, J, xi = Field("x"), Gaussian("J"), WhiteNoise("xi")
    assert generate(Dynamics({x: rhs(x, J, xi)}))[0].noise_kind == kind


def test_constant_couplings_are_applied_once():
    inputs = Population("input", size=2)
    x, u = Field("x"), Quenched("u", Normal(0, 1), over=inputs)
    W, J = Gaussian("W", over=(x.population, inputs)), Gaussian("J")
    program = generate(Dynamics({x: -x + J @ tanh(x) + W @ u}))[0]
    assert "env.fixed" in program.source
    assert program.source.count("env.multiply") == 1


FUNCTIONS = [
    tanh,
    erf,
    sin,
    lambda u: u / sqrt(1 + u**2),
    lambda u: Max(u, 0),
    lambda u: 1 / (1 + exp(-u)),
    lambda u: u,
]


@st.composite
def declarations(draw):
    """Random flows of two fields: couplings, transposes, gates, nested couplings, averages and disorder."""
    x, a = Field("x"), Field("a")
    J = Gaussian("J", variance=2, symmetry=draw(st.sampled_from([0, -0.5, 1])))
    K, b = Iid("K", Uniform(-1, 1)), Quenched("b", Normal(0, 1))
    function = st.sampled_from(FUNCTIONS)

    def local(depth):
        kind = draw(st.integers(0, 5 if depth else 2))
        f = draw(function)
        if kind == 0:
            return f(x + b)
        if kind == 1:
            return f(a) * draw(st.sampled_from([1, 2, -0.5]))
        if kind == 2:
            return mean(f(x) * a) + x
        inside = local(depth - 1)
        if kind == 3:
            return draw(st.sampled_from([J, J.T, K, 2 * J - K])) @ f(inside)
        if kind == 4:
            return (J @ f(inside)) * f(K @ tanh(a))
        return f(inside) + inside * x

    return Dynamics({x: -x + local(2), a: -a / 3 + local(2)})


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(declarations())
def test_random_flows_equal_explicit_loops(model):
    check_against_loops(model, 3)
