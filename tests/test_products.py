"""Static couplings in a row are multiplied once where that is cheaper, and mean the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from sympy import symbols, tanh

from quenched import Circulant, Dynamics, Field, Gaussian, Iid, Ising, Map, Normal, Population, Quenched, diag, units
from quenched.validate.generate import generate
from quenched.validate.products import composing, entries, segments
from quenched.validate.program import load
from quenched.validate.realise import Network
from quenched.validate.simulate_dynamics import prepare

alpha, g = symbols("alpha g", positive=True)
patterns = Population("P", fraction=alpha)
xi, eta = (Iid(name, Ising(), over=(patterns, units)) for name in ("xi", "eta"))
X = Circulant("X", {0: 1, 1: g}, over=(patterns, patterns))
J = Gaussian("J", variance=g**2)
k = Quenched("k", Normal(0, 1), over=patterns)
x, y = Field("x"), Field("y")
p = Field("p", over=patterns)

CHAINS = {
    "three": xi.T @ X @ xi @ tanh(x),
    "two atoms and gains": J @ xi.T @ diag(1 + k) @ eta @ tanh(x),
    "a sum": xi.T @ (X @ (xi @ tanh(x)) + k) + J @ J @ x / 2,
}


def rates(net: Any, trajectories: int, dtype: str = "float64", composed: bool = True, **values: float) -> Any:
    """The right-hand side and its tangents at the declared start; without composing, of a run of no length."""
    how: dict[str, Any] = {"burn": 50, "duration": 50, "dt": 0.1, "dtype": dtype, "trajectories": trajectories}
    task = prepare(net, 60, 1, values, **how).task
    task = task if composed else replace(task, burn=0, window=0)
    net_, out = Network(task), np.zeros((2 * trajectories, sum(task.sizes[q] for _, q in task.program.fields)))
    state = np.random.default_rng(3).standard_normal(out.shape)
    load(task.program.source)["rhs"](net_, 0.0, state, [], 0, out)
    return out, net_, task


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("trajectories", [1, 6])
def test_composed_couplings_mean_the_same(name: str, trajectories: int) -> None:
    net = Dynamics({x: -x + CHAINS[name]})
    values = {"g": 0.7, "alpha": 0.8} if net.parameters and "alpha" in map(str, net.parameters) else {"g": 0.7}
    made, network, _ = rates(net, trajectories, **values)
    apart, plain, _ = rates(net, trajectories, composed=False, **values)
    assert np.abs(made - apart).max() < 1e-13 * np.abs(apart).max()
    assert any(len(parts) == 1 for parts in network._composed.values())
    assert all(len(parts) == len(word) for word, parts in plain._composed.items())


def test_single_precision_stays_single() -> None:
    net = Dynamics({x: -x + CHAINS["two atoms and gains"]})
    made, network, _ = rates(net, 3, "float32", g=0.7, alpha=0.8)
    apart, _, _ = rates(net, 3, composed=False, g=0.7, alpha=0.8)
    assert all(m.dtype == np.float32 for parts in network._composed.values() for m in parts)
    assert np.abs(made - apart).max() < 1e-5 * np.abs(apart).max()


def test_what_is_read_elsewhere_or_drawn_afresh_is_not_composed() -> None:
    shared = Dynamics({x: -x + xi.T @ X @ xi @ tanh(x), p: -p + xi @ tanh(x)})
    assert generate(shared)[0].products == (((0, True), (1, False)),)
    fresh = Gaussian("J", variance=g**2, redraw="step")
    assert generate(Map({x: xi.T @ xi @ fresh @ tanh(x)}))[0].products == (((0, True), (0, False)),)
    gain = Dynamics({x: -x + J @ (y * (J @ x)), y: -y})
    assert generate(gain)[0].products == ()


def test_few_dimensions_in_the_middle_are_left_alone() -> None:
    assert segments((1000, 9, 9, 1000), 1e4) == ((0, 1), (1, 3))
    assert segments((1000, 9, 1000), 1e9) == ((0, 1), (1, 2))
    assert segments((1000, 700, 700, 1000), 1e4) == ((0, 3),)
    assert segments((1000, 700, 700, 1000), 10) == ((0, 1), (1, 2), (2, 3))  # not worth the making


def test_the_parts_are_the_cheapest() -> None:
    """Against all ways to cut, for random dimensions."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        dims = tuple(int(n) for n in rng.integers(2, 60, 5))
        vectors = float(rng.integers(1, 200))

        def cost(cuts: tuple[int, ...], dims: tuple[int, ...] = dims, vectors: float = vectors) -> float:
            ends = (0, *cuts, 4)
            parts = list(pairwise(ends))
            return sum(vectors * dims[i] * dims[j] + composing(dims[i : j + 1]) for i, j in parts)

        best = min((c for n in range(4) for c in combinations((1, 2, 3), n)), key=cost)
        found = tuple(j for _, j in segments(dims, vectors))[:-1]
        assert cost(found) == cost(best)


def test_memory_and_work_count_what_is_composed() -> None:
    net = Dynamics({x: -x + xi.T @ X @ xi @ tanh(x)})
    _, _, task = rates(net, 2, g=0.7, alpha=0.8)
    short = replace(task, burn=0, window=0)
    assert task.memory() - short.memory() == 8 * (60 * 60 + 48 * 60)  # the product, and one made on the way
    assert entries((60, 48, 48, 60), 1e5) == (3600.0, 3600.0)
    assert task.work() < replace(task, program=replace(task.program, products=())).work()
