"""Jacobians of several fields a unit and of dynamic couplings: the matrix, its bulk, and snapshots of networks."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from sympy import Rational, Symbol, cos, symbols, tanh

from quenched import (
    Count,
    Dynamics,
    Edge,
    Empirical,
    Field,
    Gaussian,
    Map,
    N,
    Normal,
    NotCovered,
    Population,
    QuenchedError,
    catalogue,
    derive,
    jacobian,
    outer,
    validate,
)
from quenched.numerics import Sampling
from quenched.spectral import SpectralSolution
from quenched.theory.spaces import units
from quenched.validate.quantiles import quantile_points
from quenched.validate.sampling import sample_law
from quenched.validate.simulate_spectrum import prepare
from quenched.validate.witness import verify

g, p, q = symbols("g p q", positive=True)
k = symbols("k", real=True)
x, w = Field("x"), Field("w")
A = Field("A", over=(units, units))
J = Gaussian("J", g**2)
SHORT = Sampling(dt=0.2, steps=512, paths=120, reach=16, settle=20, average=6)


# -- matrices ------------------------------------------------------------------------------------------------------
def test_several_fields_make_several_block_rows() -> None:
    net = jacobian(Dynamics({x: -x - w + J @ tanh(x), w: (x - w) / p}), {x: Normal(0, 1)})
    assert [str(r) for r in net.heads] == ["x", "w"]
    assert net.populations == (units, units)
    assert "M_w,x = 1/p·eye" in str(net)
    step = jacobian(Map({x: J @ tanh(w), w: x / 2}), {w: Normal(0, 1)})
    assert ("x", "x") not in {(a.name, b.name) for a, b in step.blocks}  # type: ignore[union-attr]


def test_adaptation_moves_the_edge() -> None:
    """z ↦ z + 1 + 1/(p(z + 1/p)) on the circle of radius g√⟨φ′²⟩, and the eigenvalues of samples."""
    net = jacobian(Dynamics({x: -x - w + J @ tanh(x), w: (x - w) / p}), {x: Normal(0, 1)})
    values = {"g": 2.0, "p": 3.0}
    found = derive(net).solve(values)
    slope = found.solver.doubled.nodes[0]
    size = np.sqrt(slope.weights @ np.cosh(slope.nodes[:, 0]) ** -4.0) * 2
    tip = found.rightmost()
    assert abs(tip + 1 + 1 / (3 * tip + 1)) == pytest.approx(size, abs=1e-6)
    eigen = np.array([prepare(net, 200, 1, values).task.number(n).eigenvalues() for n in range(4)])  # type: ignore[attr-defined]
    inside = np.abs(eigen + 0.5) < 0.6
    assert found.count(disc=(0.6, -0.5)).value == pytest.approx(inside.mean(), abs=0.02)
    assert all(tick.passed for tick in verify(derive(net).derivation))


def test_a_second_order_unit_is_the_same_however_it_is_written() -> None:
    """Eliminated by hand: z² + 2z = J gives the same counts as two block rows."""
    both = jacobian(Dynamics({x: w, w: -2 * w + J @ x}))
    found = derive(both).solve(g=1.0)
    assert found.rightmost() == pytest.approx(2**0.5 - 1, abs=1e-9)
    assert found.edges()[0].value == pytest.approx(-1 - 2**0.5, abs=1e-6)


def test_fixed_points_of_units_with_several_fields() -> None:
    """Adaptation delays the loss of stability of the silent state, which is lost with a frequency."""
    net = Dynamics({x: -x - w + J @ tanh(x), w: (x - w) / p})
    silent = derive(net).fixed_point_stability()
    assert silent.stable(g=1.2, p=0.5)
    edge = silent.critical(g, 0.5, 3, p=2.0).value
    z = 1j * np.linspace(0, 3, 30001)  # |z + 1 + 1/(pz + 1)| = g on the imaginary axis
    assert edge == pytest.approx(np.abs(z + 1 + 1 / (2 * z + 1)).min(), abs=1e-6)


def test_a_plastic_coupling_becomes_a_variable_of_the_unit() -> None:
    net = catalogue["neuronal-synaptic"]()
    values = Empirical(-1, Rational(1, 2), 2)
    (y,) = net.fields
    found = jacobian(net, {y: values})
    mean = sum(tanh(a) ** 2 for a in values.args) / 3
    rows = {str(r): r for r in found.heads}
    block = found.blocks[rows["A_1"], rows["x"]]
    (factor,) = [f for _, word in block.terms for f in word]
    kk, pp = (Symbol(n, **a) for n, a in (("k", {"real": True}), ("p", {"positive": True})))
    (quenched,) = found.quenched
    wanted = kk / pp * mean * (1 - tanh(quenched) ** 2)
    left = block.terms[0][0] * factor.vector - wanted
    assert left.subs({quenched: 0.3, kk: 1.2, pp: 2.5}).evalf() == pytest.approx(0, abs=1e-12)
    text = str(derive(found).equations)
    assert "on the boundary" in text
    assert "Abs" in text
    assert all(tick.passed for tick in verify(derive(found.fix(g=2, k=1, p=2)).derivation))


def two_populations() -> Dynamics:
    """Bonds from I to E, read forwards and backwards, and a frequency of their own."""
    E, I = Population("E", Rational(3, 5)), Population("I", Rational(2, 5))
    u, v, B = Field("u", E), Field("v", I), Field("B", over=(E, I))
    K, L = Gaussian("K", g**2, over=(E, I)), Gaussian("L", over=(E, E))
    return Dynamics(
        {
            u: -u + K @ tanh(v) + L @ tanh(u) + B @ (v + cos(v)),
            v: -2 * v + B.T @ tanh(u) + K.T @ tanh(u),
            B: -B / p + k / N * outer(tanh(u), cos(v)) - q / N * outer(u, tanh(v)),
        }
    )


def test_bonds_of_two_populations_against_explicit_matrices() -> None:
    """δB_ij of explicit bonds eliminated at one z, against the Schur complement of the extra rows."""
    net, size, z = two_populations(), 60, 0.3 + 0.7j
    values = {"g": 1.3, "k": 0.8, "p": 1.7, "q": 0.6}
    rng = np.random.default_rng(5)
    states = [np.round(rng.standard_normal(36), 6), np.round(0.7 + rng.standard_normal(24), 6)]
    u, v = net.fields
    found = jacobian(net, {u: Empirical(*states[0]), v: Empirical(*states[1])})
    task: Any = prepare(found, size, 3, values).task
    matrix = task.matrix()
    n = size
    rows = [str(r) for r in found.heads]
    order = np.concatenate([np.full(s, r) for r, s in zip(rows, task.sizes, strict=True)])
    own, extra = np.isin(order, ["u", "v"]), ~np.isin(order, ["u", "v"])
    whole = z * np.eye(len(matrix)) - matrix
    schur = whole[np.ix_(own, extra)] @ np.linalg.solve(whole[np.ix_(extra, extra)], whole[np.ix_(extra, own)])
    # by hand: the diagonal feedback of B @ (v + cos v) on u and of B.T @ tanh(u) on v
    labels = {x.identifier: task._labels(x) for x in task.labels}
    a, b = (next(l for l in labels.values() if len(l) == m) for m in (36, 24))
    psi, c = b + np.cos(b), 1 / (z + 1 / values["p"])
    up = c * (values["k"] * np.sum(np.cos(b) * psi) / n / np.cosh(a) ** 2 - values["q"] * np.sum(np.tanh(b) * psi) / n)
    low = c * (
        -values["k"] * np.sum(np.tanh(a) ** 2) / n * np.sin(b)
        - values["q"] * np.sum(a * np.tanh(a)) / n / np.cosh(b) ** 2
    )
    np.testing.assert_allclose(schur, np.diag(np.concatenate([up, low])), atol=1e-9)


def test_what_a_joint_jacobian_needs() -> None:
    net = Dynamics({x: -x + J @ tanh(w), w: -w + x + A @ tanh(x), A: -A + outer(x, w) / N})
    with pytest.raises(NotCovered, match="joint law of w, x"):
        jacobian(net, {x: Normal(0, 1), w: Normal(0, 1)})
    with pytest.raises(NotCovered, match="give the law of x"):
        jacobian(Dynamics({x: -x + J @ x + A @ x, A: -A + outer(x, x) / N}))
    nested = Dynamics({x: -x + J @ tanh(A @ x), A: -A + outer(x, x) / N})
    with pytest.raises(NotCovered, match="name it as a field"):
        jacobian(nested, {x: Normal(0, 1)})


# -- solved networks -----------------------------------------------------------------------------------------------
@cache
def plastic(strength: float) -> SpectralSolution:
    return derive(catalogue["neuronal-synaptic"]()).jacobian_spectrum(k=strength, sampling=SHORT)


@pytest.mark.slow
def test_anti_hebbian_couplings_make_the_rightmost_modes_oscillate() -> None:
    """arXiv:2302.08985: the onset lies between k = −0.35 and −0.5 at g = p = 2.5."""
    tips = {strength: plastic(strength).rightmost() for strength in (-3.0, -0.5, -0.35)}
    assert tips[-0.35].imag == 0
    assert tips[-0.5].imag == pytest.approx(0.26, abs=0.04)
    assert tips[-3.0].imag == pytest.approx(0.85, abs=0.03)
    assert all(tip.real > 0 for tip in tips.values())


@pytest.mark.slow
@pytest.mark.parametrize("strength", [-1.0, 1.0])
def test_the_bulk_of_a_snapshot(strength: float) -> None:
    """Eigenvalues of the joint Jacobian of a network of 300 units, A included; those close to −1/p apart.

    Saturated units have their own there, in slivers along the real axis that a law of finitely many points breaks up.
    """
    found, size, gain, slow = plastic(strength), 300, 2.5, 2.5
    rng = np.random.default_rng(4)
    couplings = gain * rng.standard_normal((size, size)) / np.sqrt(size)
    state, bonds = 2 * rng.standard_normal(size), np.zeros((size, size))
    for _ in range(1500):
        out = np.tanh(state)
        state = state + 0.1 * (-state + (couplings + bonds) @ out)
        bonds = bonds + 0.1 * (-bonds + strength / size * np.outer(out, out)) / slow
    out, slope = np.tanh(state), np.cosh(state) ** -2.0
    feedback = strength / slow * (out @ out / size * np.diag(slope) + np.outer(out, out * slope) / size)
    joint = np.block([[(couplings + bonds) * slope - np.eye(size), np.eye(size)], [feedback, -np.eye(size) / slow]])
    eigen = np.linalg.eigvals(joint)
    away = eigen[np.abs(eigen + 1 / slow) > 0.05]
    assert len(away) > len(eigen) / 2
    assert found.inside(away).mean() > 0.95
    assert eigen.real.max() == pytest.approx(found.rightmost().real, abs=0.15)
    for centre in (-0.7, -1 / slow, -1.2):
        fraction = np.mean(np.abs(eigen - centre) < 0.3)
        assert fraction == pytest.approx(found.count(disc=(0.3, centre)).value, abs=0.025)


def test_few_bonds_in_full() -> None:
    """Of N + N² eigenvalues N² − N are at the rate of the bonds, the others those of the 2N matrix."""
    size, strength, slow = 6, 0.9, 1.6
    rng = np.random.default_rng(2)
    state, weights = rng.standard_normal(size), rng.standard_normal((size, size))
    out, slope = np.tanh(state), np.cosh(state) ** -2.0
    one = np.eye(size)
    full = np.zeros((size + size**2,) * 2)
    full[:size, :size] = weights * slope - one
    full[:size, size:] = np.einsum("ia,j->iaj", one, out).reshape(size, -1)
    drive = np.einsum("ia,i,j->ija", one, slope, out) + np.einsum("ja,i,j->ija", one, out, slope)
    full[size:, :size] = strength / size / slow * drive.reshape(-1, size)
    full[size:, size:] = -np.eye(size**2) / slow
    feedback = strength / slow * (out @ out / size * np.diag(slope) + np.outer(out, out * slope) / size)
    joint = np.block([[weights * slope - one, one], [feedback, -one / slow]])
    every, few = np.linalg.eigvals(full), np.linalg.eigvals(joint)
    rest = every[np.abs(every + 1 / slow) > 1e-5]
    assert len(rest) == 2 * size
    np.testing.assert_allclose(np.sort_complex(rest), np.sort_complex(few), atol=1e-6)


def test_the_law_of_a_sample() -> None:
    law = Empirical(3, 1, Rational(3, 2))
    assert law.mean_() == Rational(11, 6)
    assert quantile_points(("Empirical", 3.0, 1.0, 1.5), 6).tolist() == [1, 1, 1.5, 1.5, 3, 3]
    drawn = sample_law(np.random.default_rng(0), (4000,), ("Empirical", 3.0, 1.0, 1.5))
    assert set(drawn) == {3.0, 1.0, 1.5}
    assert drawn.mean() == pytest.approx(11 / 6, abs=0.05)
    with pytest.raises(QuenchedError, match="numbers of a sample"):
        Empirical()


@pytest.mark.slow
def test_the_joint_jacobian_is_a_matrix_to_validate() -> None:
    net = derive(catalogue["neuronal-synaptic"]()).jacobian(k=-1, sampling=SHORT)
    net.observe(body=Count(disc=(0.3, -0.7)), pole=Count(disc=(0.3, -0.4)), right=Edge(), top=Edge("top"))
    how: Any = dict(quick=True, sizes=(60, 120, 240), trials=48, store=False, workers=1)
    report = validate(net, **how)
    assert report.reason.startswith("not rejected"), report
    assert report.detectable < 0.2
    assert validate(net, theory=derive(net).mutate("variance-tenth"), **how).verdict == "disagree"
