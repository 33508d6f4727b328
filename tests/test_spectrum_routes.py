"""Three derivations of one resolvent: Dyson equation, free probability, replicas of a Gaussian vector."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Rational, symbols

from quenched import (
    Circulant,
    Field,
    Gaussian,
    Gibbs,
    Iid,
    Ising,
    Population,
    Quenched,
    QuenchedError,
    Spectrum,
    Uniform,
    catalogue,
    derive,
    total,
)
from quenched.numerics.scalar_system import ScalarSolver
from quenched.spectral import SpectralTheory
from quenched.theory import NotCovered, diag, eye, outer, units
from quenched.theory.free import turning
from quenched.theory.observables import Replicon
from quenched.validate.witness import check, scene_of

W, V = Gaussian("W", symmetry=1), Gaussian("V", symmetry=1, variance=2)
A, B = Gaussian("A"), Gaussian("B", variance=2)
part = Population("P", Rational(3, 10))
K = Gaussian("K", over=(units, part))
d, s = Quenched("d", Uniform(1, 2)), Quenched("s", Ising())
h = Quenched("h", Uniform(0, 1), over=part)
POINTS = np.array([0.7 + 0.3j, -1.1 + 0.05j, 3 + 1e-2j, 0.2 - 0.4j, 5.0])

MATRICES = {
    "sum": W + 2 * V + diag(s) + 3 * eye,
    "difference": A @ diag(d) @ A.T - B @ B.T,
    "spiked": K @ diag(h) @ K.T + diag(d),
    "product": diag(d) @ A @ A.T @ diag(d) + W,
    "three": diag(d) @ K @ diag(1 + h) @ K.T @ diag(d),
    "chain": A @ B @ B.T @ A.T,
}


def theory(name: str) -> SpectralTheory:
    return derive(catalogue[name](d=2) if name in catalogue else Spectrum(MATRICES[name]))


@pytest.mark.parametrize("name", [*MATRICES, "hebbian-length-spectrum"])
def test_three_routes_agree(name) -> None:
    own = theory(name)
    for route in (own.free_probability(), own.replicas()):
        assert route.disagreement(POINTS) < 1e-10


def test_replicas_of_sums_that_share_an_atom() -> None:
    """A @ A.T and A.T @ A are not free of each other: five coupled fields a site."""
    assert derive(Spectrum(A @ A.T + A.T @ A)).replicas().disagreement(POINTS) < 1e-10


def test_the_window_equation_is_one_equation() -> None:
    """z = 1/w + α⟨λ/(1 − λw)⟩ − αc, by both routes, in symbols."""
    own = theory("hebbian-length-spectrum")
    free, replicas = (turning(r.system)[0].residuals[0] for r in (own.free_probability(), own.replicas()))
    assert (free - replicas).simplify() == 0
    assert own.replicas().equations[0].text.startswith("z = ")


@pytest.mark.parametrize(
    ("a", "c", "g", "d", "w", "edge"),
    [(0.1, 1, 0.3, 1, 1 / 1.820595, 2.130634), (0.5, 1, 0.3, 2, 1 / 2.757526, 3.518138)],
)
def test_where_the_resolvent_turns(a, c, g, d, w, edge) -> None:
    """w₊ at the upper edge is the inverse temperature of the spin glass (arXiv:2103.14324)."""
    own = derive(catalogue["hebbian-length-spectrum"](d=d))
    top = c + 2 * d * g
    for route in (own.free_probability(), own.replicas()):
        found = route.turning(1e-3, (1 - 1e-9) / top, alpha=a, c=c, gamma=g)
        assert found == pytest.approx((w, edge), abs=1e-6)
        assert found[1] == pytest.approx(own.edges(alpha=a, c=c, gamma=g)[-1].value, abs=1e-9)


def test_the_spin_glass_is_the_edge() -> None:
    """The replicon of paramagnetic Ising spins is 1 + w² dz/dw at w = β: both vanish together (T_SG · w₊ = 1)."""
    alpha, T, (c, gamma) = symbols("alpha", positive=True), symbols("T", positive=True), symbols("c gamma", real=True)
    patterns, spin = Population("P", fraction=alpha), Field("s")
    xi = Iid("xi", Ising(), over=(patterns, units))
    X = Circulant("X", {0: c, 1: gamma, -1: gamma}, over=(patterns, patterns))
    spins = Gibbs({spin: Ising()}, energy=-total(spin * (xi.T @ X @ xi @ spin)) / 2, beta=1 / T)
    replicas = derive(spins.observe(replicon=Replicon()))
    own = derive(catalogue["hebbian-length-spectrum"]())
    values = {"alpha": 0.1, "c": 1, "gamma": 0.3}
    slope = turning(own.replicas().system)[1]
    solver = ScalarSolver(slope.problem, own.solve(values).solver.analytic)
    for w in (0.3, 0.45, 0.53):
        expected = 1 + w**2 * solver.residual(np.array([w + 0j]), 0j)[0].real
        found = replicas.solve({**values, "T": 1 / w}).main.quantity("replicon").value
        assert float(found) == pytest.approx(expected, rel=1e-8)
    critical, _ = own.replicas().turning(1e-3, (1 - 1e-9) / 1.6, values)
    assert 1 / critical == pytest.approx(1.820595, abs=1e-6)


def test_what_the_routes_do_not_cover() -> None:
    with pytest.raises(NotCovered, match="share"):
        derive(Spectrum(W @ W + W)).free_probability()
    with pytest.raises(NotCovered, match="one symmetric matrix"):
        derive(Spectrum(A)).free_probability()
    with pytest.raises(NotCovered, match="one symmetric matrix"):
        derive(Spectrum(A)).replicas()
    with pytest.raises(NotCovered, match="no place in the replica route"):
        derive(Spectrum((W - 3 * eye).inv())).replicas()
    with pytest.raises(NotCovered):
        derive(Spectrum(W + outer(s, s))).free_probability()
    with pytest.raises(NotCovered, match="not written out"):
        derive(Spectrum(W @ W @ W @ W)).replicas()
    with pytest.raises(QuenchedError, match="single equation"):
        theory("chain").free_probability().turning(0, 1)


@pytest.mark.parametrize("name", ["difference", "three", "sum"])
def test_wrong_equations_disagree(name) -> None:
    own = theory(name)
    solution = own.solve()
    z = np.array([0.7 + 0.9j])
    right = solution.resolvent(z)
    for label, mutant in own.free_probability().system.mutants():
        try:
            wrong = ScalarSolver(mutant.problem, solution.solver.analytic).solve(z)[..., 0]
        except (QuenchedError, ArithmeticError):
            continue
        assert abs(wrong - right)[0] > 1e-6, label


def test_other_windows() -> None:
    """A two-sided window with negative coefficients, and a constant diagonal."""
    own = derive(catalogue["hebbian-length-spectrum"](d=3))
    values = {"alpha": 0.7, "c": -0.4, "gamma": -0.3}
    for route in (own.free_probability(), own.replicas()):
        assert route.disagreement([0.3 + 0.2j, -2 + 0.1j], values) < 1e-10


# -- meanings ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    ["hebbian-length-spectrum", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sum", "difference", "product"))],
)
def test_every_step_is_checked_and_mistakes_are_caught(name) -> None:
    own = theory(name)
    scene = scene_of(own.derivation)
    for route in (own.free_probability(), own.replicas()):
        for step in route:
            tick = check(step, scene)
            assert tick.passed, (tick.title, tick.detail)
            for label, mutant in step.after.mutants():
                assert check(step, scene, mutant).passed is False, (step.title, label)


def test_the_modes_of_a_one_sided_window_are_checked() -> None:
    own = derive(catalogue["sequence-retrieval"](d=2))
    tick = check(own.derivation.steps[0], scene_of(own.derivation))
    assert tick.passed
    assert "Fourier" in tick.method
