"""Dynamic couplings: declared as written, integrated out in the theory, moved as matrices in the simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Expr, Rational, cos, exp, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Map,
    N,
    Normal,
    NotCovered,
    Population,
    Quenched,
    QuenchedError,
    WhiteNoise,
    derive,
    outer,
    simulate,
    units,
)
from quenched.theory.fields import UnitSymbol
from quenched.theory.model import Model
from quenched.theory.naming import field_names
from quenched.theory.readoff import EffectiveProcess
from quenched.theory.transforms import copies, discretise, freeze
from quenched.validate.sampling import stream
from quenched.validate.simulate_dynamics import prepare
from quenched.validate.witness import survey_mutants, verify

g, p, q = symbols("g p q", positive=True)
k, m = symbols("k m", real=True)
x, A = Field("x"), Field("A", over=(units, units))
J = Gaussian("J", variance=g**2)


def hebbian(phi: Any = tanh) -> Model:
    return Dynamics({x: -x + (J + A) @ phi(x), A: (-A + k / N * outer(phi(x), phi(x))) / p})


def two_populations() -> Model:
    """Bonds from I to E with different ends, read forwards and backwards, besides random couplings."""
    E, I = Population("E", Rational(3, 5)), Population("I", Rational(2, 5))
    u, v = Field("u", E), Field("v", I)
    B = Field("B", over=(E, I))
    K = Gaussian("K", variance=g**2, mean=m, over=(E, I))
    return Dynamics(
        {
            u: -u + K @ tanh(v) + B @ (v + cos(v)) + sqrt(2) / 3 * WhiteNoise("xi", over=E),
            v: -2 * v + B.T @ tanh(u) + K.T @ exp(-(u**2)),
            B: -B / p + k / N * outer(tanh(u), cos(v)) - q / N * outer(u, tanh(v)),
        }
    )


def plastic_map() -> Model:
    """A map with two bonds, one of which alternates."""
    y, C = Field("y"), Field("C", over=(units, units))
    return Map(
        {
            x: J @ tanh(x) / 2 + A @ tanh(x + y) + C.T @ tanh(y) / 2,
            y: x / 3 + WhiteNoise("xi") / 4,
            A: A / 2 + k / N * outer(tanh(x), tanh(y)),
            C: -C / 3 + q / N * outer(x, cos(y)),
        }
    )


MODELS = {"hebbian": hebbian, "two populations": two_populations, "map": plastic_map}


@pytest.mark.parametrize("name", MODELS)
def test_every_step_keeps_its_meaning(name: str) -> None:
    ticks = verify(derive(MODELS[name]()).derivation)
    assert [f"{t.title}: {t.detail}" for t in ticks if t.passed is not True] == []
    assert len(ticks) > 7


@pytest.mark.parametrize("name", MODELS)
def test_every_mechanical_mistake_is_caught(name: str) -> None:
    survey = survey_mutants(derive(MODELS[name]()).derivation)
    assert len(survey) > 30
    assert [f"{s.step}: {s.label}" for s in survey if not s.caught] == []


def test_the_kernel_is_built_from_the_correlation() -> None:
    """A_ij summed over j gives C^φ(t, s), not a response."""
    process = derive(hebbian()).derivation.find(EffectiveProcess)
    assert process is not None
    (memory,) = process.memory["h_1"]
    assert memory.op is not None
    assert [a for a, _ in memory.op.atoms] == ["phi", "phi"]
    assert (memory.coef - k / p).equals(0)
    assert memory.kernels == (("past:A", (0, 1)),)


def test_the_declaration_is_printed_back() -> None:
    assert "dA_ij/dt = -1/p A_ij + (k/(N*p)) tanh(x_i) tanh(x_j)" in str(hebbian())
    assert "C_ij(t + 1) = -(1/3) C_ij + (q/N) x_i cos(y_j)" in str(plastic_map())
    assert r"\frac{\mathrm{d} A_{ij}}{\mathrm{d} t}" in hebbian()._repr_latex_()


def test_transformations_keep_dynamic_couplings() -> None:
    net = hebbian()
    fixed = net.fix(k=2)
    assert k not in fixed.parameters
    assert fixed.bonds
    assert [bond.name for bond in copies(net, 2).bonds] == ["A[1]", "A[2]"]
    step = discretise(net, symbols("dt", positive=True))
    assert "A_ij(t + dt)" in str(step)
    import pickle

    assert pickle.loads(pickle.dumps(net)) == net
    assert hebbian(cos) != net


def test_bad_declarations_get_one_line() -> None:
    bad: list[tuple[dict[Any, Any], str]] = [
        ({x: -x + A @ x}, "dynamic coupling A has no equation"),
        ({x: -x + A @ x, A: -x}, "equation of A should be a matrix"),
        ({x: -x + A @ x, A: -A @ A}, "bonds are linear in themselves"),
        ({x: -x + A @ x, A: -A + J}, "contains J: bonds are linear"),
        ({x: -x + A @ x, A: -A + outer(x, J @ x) / N}, "a sum over units"),
        ({x: -x + A @ x, A: -A + outer(x, Field("y")) / N}, "field y, which has no equation"),
    ]
    for eqs, message in bad:
        with pytest.raises(QuenchedError, match=message) as caught:
            Dynamics(eqs)
        assert "\n" not in str(caught.value)
    for start, message in ((1, "it starts at 0"), (J, "driven by outer"), (outer(J @ x, x), "a sum over units")):
        with pytest.raises(QuenchedError, match=message):
            Field("A", over=(units, units), initial=start)
    stray = Field("A", over=(units, units), initial=outer(x, Field("y")) / N)
    with pytest.raises(QuenchedError, match=r"contains the field y.*, which has no equation"):
        Dynamics({x: -x + stray @ x, stray: -stray})


def test_bonds_start_where_they_are_declared() -> None:
    """Aligned with the initial state of the units; kept by every transformation."""
    w = Field("w", initial=2 * Quenched("xi", Normal(0, 1)))
    B = Field("B", over=(units, units), initial=k / N * outer(tanh(w), cos(w)) - outer(1, w) / N)
    net = Dynamics({w: -w + (J + B) @ tanh(w), B: -B / p + outer(w, w) / N})
    assert "B_ij(0) = -1/N w_j + (k/N) tanh(w_i) cos(w_j)" in str(net)
    assert net.parameters == (g, k, p)
    import pickle

    again = pickle.loads(pickle.dumps(net))
    assert again == net
    assert net.fix(k=2) != net.fix(k=3)
    assert net != Dynamics({w: -w + (J + A) @ tanh(w), A: -A / p + outer(w, w) / N})
    assert all(bond.initial is not None for bond in copies(net, 2).bonds)
    values = dict(g=1.2, k=0.7, p=2.0)
    task = prepare(net, 6, 2, values, dt=0.1, duration=1, burn=0, trajectories=2).task
    from quenched.validate.program import load
    from quenched.validate.realise import Network, initial_state

    drawn = Network(task)
    state = initial_state(drawn, load(task.program.source))[:2]
    for start, matrix in zip(state, drawn.bonds[0].matrices, strict=True):
        expected = 0.7 / 6 * np.outer(np.tanh(start), np.cos(start)) - np.outer(np.ones(6), start) / 6
        np.testing.assert_allclose(matrix, expected, atol=1e-12)
    assert derive(net).solvable  # a stationary state has forgotten its start
    with pytest.raises(NotCovered, match="starts from an initial value"):
        derive(net).solve(values, times=[0, 1, 2])


class Loops:
    """A network with explicit matrices, by Heun's rule for units and bonds together."""

    def __init__(self, model: Model, size: int, seed: int, values: dict[str, float]) -> None:
        self.model, self.values = model, {s: values[s.name] for s in model.parameters} | {N: size}
        task = prepare(model, size, seed, values, dt=0.1, duration=1, burn=0).task
        self.task = task
        self.sizes = dict(zip(task.program.populations, task.sizes, strict=True))
        from quenched.validate.program import load
        from quenched.validate.realise import Network, initial_state

        self.net = Network(task)
        y = initial_state(self.net, load(task.program.source))[: task.trajectories]
        self.state = {f: y[0, s].copy() for f, s in zip(model.eqs, self.net.slices, strict=True)}
        shape = lambda b: (self.sizes[b.rows.name], self.sizes[b.cols.name])  # noqa: E731
        self.bonds = {b: np.zeros(shape(b)) for b in model.bonds}

    def rates(self, state: dict[Any, Any], bonds: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
        from sympy import lambdify

        from quenched.theory.couplings import Apply, Transpose

        def value(expr: Expr, sums: dict[Any, Any]) -> Any:
            flat = expr.xreplace(sums)
            names = {f: state[f.free()] for f in flat.atoms(UnitSymbol)}
            marks = {s: v for s, v in self.marks.items() if s in flat.free_symbols}
            every = {**names, **marks, **{s: v for s, v in self.values.items() if s in flat.free_symbols}}
            return lambdify(list(every), flat, "numpy")(*every.values())

        from sympy import Dummy

        self.marks: dict[Any, Any] = {}
        out = {}
        for f, rhs in self.model.eqs.items():
            sums = {}
            for node in rhs.atoms(Apply):
                atom = node.matrix.matrix if isinstance(node.matrix, Transpose) else node.matrix
                matrix = bonds.get(atom)
                if matrix is None:
                    matrix = self.net.matrices[[*self.model.matrices].index(atom)]
                matrix = matrix.T if isinstance(node.matrix, Transpose) else matrix
                sums[node] = Dummy()
                self.marks[sums[node]] = matrix @ value(node.body, {})
            out[f] = value(rhs, sums) + np.zeros_like(state[f])
        moved = {}
        for bond, rhs in self.model.bonds.items():
            total = np.zeros_like(bonds[bond])
            for coefficient, (factor,) in rhs.terms:
                number = float(coefficient.subs(self.values))
                pair = bonds[bond] if factor == bond else np.outer(value(factor.left, {}), value(factor.right, {}))
                total = total + number * pair
            moved[bond] = total
        return out, moved

    def step(self, dt: float) -> None:
        first, bond_first = self.rates(self.state, self.bonds)
        ahead = {f: v + dt * first[f] for f, v in self.state.items()}
        bonds_ahead = {b: v + dt * bond_first[b] for b, v in self.bonds.items()}
        second, bond_second = self.rates(ahead, bonds_ahead)
        self.state = {f: v + dt / 2 * (first[f] + second[f]) for f, v in self.state.items()}
        self.bonds = {b: v + dt / 2 * (bond_first[b] + bond_second[b]) for b, v in self.bonds.items()}


@pytest.mark.parametrize("make", [hebbian, lambda: two_populations().fix(g=1)])
def test_simulated_bonds_are_the_declared_ones(make: Any) -> None:
    """Units and bonds after some steps, against loops over explicit matrices."""
    model = make()
    eqs = {f: rhs.subs({xi: 0 for xi in model.noises}) for f, rhs in model.eqs.items()}
    model = Dynamics({**eqs, **model.bonds})
    values = {s.name: v for s, v in zip(model.parameters, (0.8, 1.1, 0.7, 1.3), strict=False)}
    loops = Loops(model, 10, 5, values)
    run = simulate(model, 10, trials=1, seed=5, params=values, dt=0.1, duration=0.1, burn=2.0, store=False, workers=1)
    for _ in range(20):
        loops.step(0.1)
    before = {f: v.copy() for f, v in loops.state.items()}
    for f, name in field_names(model).items():
        expected = np.mean(before[f] ** 2)
        assert run[f"C_{name}0"].mean[0] == pytest.approx(expected, rel=1e-9)


def test_tangent_vectors_follow_the_bonds() -> None:
    """Growth of a tangent vector against two nearby networks with their own bonds."""
    net = hebbian()
    values = dict(g=1.5, k=1.0, p=1.5)
    pair = []
    for shift in (0.0, 1e-6):
        loops = Loops(net, 8, 3, values)
        loops.state[x] = loops.state[x] + shift * stream(3, 8, 0, "tangent").standard_normal(8)
        for _ in range(200):
            loops.step(0.1)
        pair.append(loops.state[x].copy())
    growth = np.log(np.linalg.norm(pair[1] - pair[0]) / 1e-6) / 20
    tangent = stream(3, 8, 0, "tangent").standard_normal(8)
    run = simulate(net, 8, trials=1, seed=3, params=values, dt=0.1, duration=20, burn=0, lags=[0], store=False)
    assert run["lyapunov"].mean[0] == pytest.approx(growth - np.log(np.linalg.norm(tangent)) / 20, abs=2e-3)


def test_a_frozen_bond_stands_still() -> None:
    """Halting at time 0 leaves a network without plastic couplings; halting late changes nothing."""
    net, values = hebbian(), dict(g=1.5, k=1.0, p=1.5)
    how: Any = dict(trials=1, seed=3, dt=0.1, duration=0.1, burn=3, lags=[0], store=False)
    plain = simulate(Dynamics({x: -x + J @ tanh(x)}), 20, g=1.5, **how)["C_x0"].values
    halted = simulate(freeze(net, A, at=0), 20, params=values, **how)["C_x0"].values
    late = simulate(freeze(net, A, at=100), 20, params=values, **how)["C_x0"].values
    assert halted == pytest.approx(plain, rel=1e-9)
    assert late == pytest.approx(simulate(net, 20, params=values, **how)["C_x0"].values, rel=1e-9)
    assert abs(late - plain) > 1e-3
    with pytest.raises(QuenchedError, match="depend on time have no stationary state"):
        derive(freeze(net, A)).solve(values)
    with pytest.raises(QuenchedError, match="y has no equation in this model"):
        freeze(net, Field("y"))
