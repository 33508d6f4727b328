"""Spectra as numbers: exact laws, published and independently computed values, and eigenvalues of samples."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from sympy import Heaviside, I, Rational, S, cos, cosh, exp, lambdify, pi, sqrt, symbols, sympify

from quenched import Spectrum, derive
from quenched.numerics.dyson import Dyson
from quenched.numerics.spectra import SpectralSolver
from quenched.spectral import SpectralSolution
from quenched.theory import (
    Bernoulli,
    Gaussian,
    Iid,
    Ising,
    N,
    Normal,
    NotCovered,
    Population,
    Quenched,
    QuenchedError,
    Uniform,
    diag,
    eye,
    outer,
    units,
)
from quenched.theory.resolvent import LabelMean, ScalarEquations
from quenched.validate.spectra import eigenvalues, quantile_points, sample

sigma, theta = symbols("sigma theta", positive=True)
kappa = symbols("kappa", real=True)
J = Gaussian("J", symmetry=kappa)
W, V = Gaussian("W", symmetry=1), Gaussian("V", symmetry=1)
A, B, C = Gaussian("A"), Gaussian("B"), Gaussian("C")
x, s = Quenched("x", Normal(0, 1)), Quenched("s", Ising())
half = Quenched("h", Bernoulli(Rational(2, 5)), over=Population("P", Rational(1, 5)))
K = Gaussian("K", over=(half.population, units))

MATRICES: dict[str, Any] = {
    "elliptic": J,
    "gains": Rational(3, 2) * J @ diag(1 / cosh(x) ** 2) - eye,
    "silent": Rational(3, 2) * A @ diag(Heaviside(x)) - eye,
    "product2": A @ B,
    "product3": A @ B @ C,
    "non-normal": diag(s) + diag((4 + s) / 5) @ A @ diag((19 - s) / 20),
    "two-atom": diag(s) + sigma * W,
    "anticommutator": W @ V + V @ W,
    "polynomial": W @ W + V / 2,
    "covariance": diag(sqrt(1 + 5 * half)) @ K @ K.T @ diag(sqrt(1 + 5 * half)),
    "columns": A @ diag((3 + 4 * Quenched("c", Bernoulli(Rational(1, 5)))) / 5),
}


@cache
def solution(name: str, **values: float) -> SpectralSolution:
    return derive(Spectrum(MATRICES[name])).solve(**values)


def edges(name: str, **values: float) -> list[float]:
    return [e.value for e in solution(name, **values).edges()]


# -- exact laws ----------------------------------------------------------------------------------------------------
def test_circular_and_elliptic_laws() -> None:
    z = np.array([0.5, 0.2 + 0.6j, 1.2, -0.3 - 1.4j])
    np.testing.assert_allclose(solution("elliptic", kappa=0).resolvent(z), [0.5, 0.2 - 0.6j, *(1 / z[2:])], atol=1e-10)
    w = np.array([0.5 + 0.3j, -1.2 + 0.1j])
    found = solution("elliptic", kappa=0.5)
    np.testing.assert_allclose(found.resolvent(w), (w.conj() - 0.5 * w) / 0.75, atol=1e-10)
    np.testing.assert_allclose(found.density(w), 1 / (np.pi * 0.75), rtol=1e-10)
    assert found.density(1.6) == 0.0
    rays = found.boundary(angles=8)
    for k, ray in enumerate(rays):
        angle = 2 * np.pi * k / 8
        expected = 1 / np.hypot(np.cos(angle) / 1.5, np.sin(angle) / 0.5)
        np.testing.assert_allclose(ray, [expected * np.exp(1j * angle)], atol=1e-8)


def test_the_largest_edge_of_squared_singular_values() -> None:
    low, high = edges_of(A @ B @ B.T @ A.T)
    assert high == pytest.approx(27 / 4, abs=1e-6)
    assert low == pytest.approx(0, abs=1e-4)


def edges_of(matrix: Any, **values: float) -> tuple[float, float]:
    found = [e.value for e in derive(Spectrum(matrix)).edges(**values)]
    return found[0], found[-1]


@pytest.mark.parametrize(("name", "radius", "power"), [("product2", 0.3, 1), ("product3", 0.5, 2 / 3)])
def test_products_of_independent_matrices(name: str, radius: float, power: float) -> None:
    assert solution(name).count(disc=radius).value == pytest.approx(radius**power, abs=1e-8)


def test_semicircle() -> None:
    theory = derive(Spectrum(sigma * W))
    assert [e.value for e in theory.edges(sigma=1.5)] == pytest.approx([-3, 3], abs=1e-7)
    np.testing.assert_allclose(theory.density([0.0, 1.0, 3.5], sigma=1.5), [2 / 3 / np.pi, 0.2000703, 0], atol=1e-6)
    assert theory.solve(sigma=1.5).count(window=(-4, 4)).value == pytest.approx(1, abs=1e-8)


# -- computed elsewhere to five digits -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("symmetry", "fraction", "right"), [(0, 0.30181, 0.02221), (0.4, 0.32743, 0.46516), (-0.4, 0.31971, -0.42580)]
)
def test_gains(symmetry: float, fraction: float, right: float) -> None:
    found = solution("gains", kappa=symmetry)
    assert found.count(box=((-1.4, -0.7), (-0.3, 0.3))).value == pytest.approx(fraction, abs=6e-6)
    assert found.edges()[-1].value == pytest.approx(right, abs=6e-6)


def test_half_of_the_units_silent() -> None:
    found = solution("silent")
    assert found.count(box=((-1.5, -0.5), (-0.4, 0.4))).value == pytest.approx(0.61318, abs=6e-6)
    assert found.edges()[-1].value == pytest.approx(1.5 / np.sqrt(2) - 1, abs=1e-9)


def test_an_offset_that_splits_the_cloud() -> None:
    found = solution("non-normal")
    assert found.count(box=((-0.4, 0.4), (-0.3, 0.3))).value == pytest.approx(0.00898, abs=6e-6)
    assert len(found.edges()) == 4
    assert found.edges()[-1].value == pytest.approx(1.64475, abs=6e-6)


def test_columns_of_two_kinds() -> None:
    assert edges("columns") == pytest.approx([-0.8246211, 0.8246211], abs=1e-6)
    assert solution("columns").count(disc=0.5).value == pytest.approx(0.51065, abs=6e-6)


@pytest.mark.parametrize(
    ("scale", "outer_edge", "inner", "at_one"),
    [(0.6, 1.92268, 0.26630, 0.38179), (1.0, 2.59808, None, 0.23710), (1.3, 3.12564, None, 0.18973)],
)
def test_two_atoms_and_a_semicircle(scale: float, outer_edge: float, inner: float | None, at_one: float) -> None:
    expected = [-outer_edge, *([-inner, inner] if inner else []), outer_edge]
    assert edges("two-atom", sigma=scale) == pytest.approx(expected, abs=6e-6)
    assert solution("two-atom", sigma=scale).density(1.0) == pytest.approx(at_one, abs=6e-6)


def test_polynomials_of_symmetric_matrices() -> None:
    assert edges("anticommutator")[-1] == pytest.approx(np.sqrt((11 + 5 * np.sqrt(5)) / 2), abs=1e-6)
    found = solution("anticommutator").density([0.5, 1, 2])
    np.testing.assert_allclose(found, [0.25536, 0.19299, 0.11391], atol=6e-6)
    assert solution("polynomial").density(1.0) == pytest.approx(0.28570, abs=6e-6)


def test_sample_covariance() -> None:
    assert edges("covariance") == pytest.approx([0.36942, 1.67228, 3.24227, 10.01203], abs=6e-6)
    found = solution("covariance")
    np.testing.assert_allclose(found.density([1, 1.5, 5, 8]), [0.52964, 0.24011, 0.08169, 0.05238], atol=6e-6)
    assert found.count(window=(6.6271, 20)).value == pytest.approx(0.15306, abs=2e-5)


def test_outliers() -> None:
    ones = theta * outer(S.One, S.One) / N
    for symmetry in (0, Rational(1, 2)):
        expected = 1.5 + float(symmetry) / 1.5
        for matrix in (Gaussian("J", symmetry=symmetry) + ones, Gaussian("J", symmetry=symmetry, mean=theta)):
            theory = derive(Spectrum(matrix))
            assert [o.value for o in theory.solve(theta=1.5).outliers()] == pytest.approx([expected], abs=1e-8)
        assert theory.solve(theta=0.5).outliers() == []
    assert derive(Spectrum(A)).solve().outliers() == []
    with pytest.raises(NotCovered, match="does not stay finite"):
        derive(Spectrum(A + outer(S.One, S.One) * theta)).solve(theta=1).outliers()


# -- consistency ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["gains", "covariance", "anticommutator"])
def test_printed_equations_hold_for_the_numbers(name: str) -> None:
    theory = derive(Spectrum(MATRICES[name]))
    form = theory.derivation.find(ScalarEquations)
    assert form is not None
    values = {p: 0.3 for p in theory.model.parameters}
    solver = SpectralSolver(theory.problem, theory.values(values))
    z = np.array([3.1 + 0.7j])
    t, _ = solver.analytic.follow_from_infinity(z)
    known = {u.symbol: complex(t[0, k]) for k, u in enumerate(theory.problem.analytic.unknowns)}
    known |= {symbol: value for symbol, value in values.items()}

    def number(expr: Any) -> complex:
        from quenched.theory.problem_dyson import Z

        def mean(body: Any) -> complex:
            index = next(k for k, sp in enumerate(theory.problem.analytic.spaces) if _carries(sp, body))
            space = theory.problem.analytic.spaces[index]
            function = lambdify([label.symbol for label in space.labels], body.xreplace({**known, Z: z[0]}))
            nodes = solver.analytic.nodes[index].nodes
            return complex(
                sum(w * function(*node) for node, w in zip(nodes, solver.analytic.spaces[index].weights, strict=True))
            )

        means = {node: mean(node.body) for node in expr.atoms(LabelMean)}
        return complex(sympify(expr.xreplace({k: sympify(v) for k, v in means.items()})).subs({**known, Z: z[0]}))

    for symbol, value in form.equations:
        assert number(value) == pytest.approx(known[symbol], abs=1e-9)
    assert number(form.resolvent) == pytest.approx(complex(solver.resolvent(z)[0][0]), abs=1e-9)


def _carries(space: Any, body: Any) -> bool:
    return any(label.symbol in body.free_symbols for label in space.labels)


@pytest.mark.parametrize("name", ["gains", "product2", "non-normal"])
def test_the_doubled_equation_against_explicit_matrices(name: str) -> None:
    """Tr of the diagonal blocks of (Y − iη)⁻¹ and of its lower left block, at a finite η, for sampled matrices."""
    net = Spectrum(MATRICES[name])
    values = net.values({p: -0.4 for p in net.parameters})
    dyson = Dyson(derive(net).problem.doubled, values)  # type: ignore[arg-type]
    z, size, width = 0.2 + 0.3j, 250, 0.4
    t = dyson.iterate(dyson.start(1), np.array([z]), width, 400)
    t, error = dyson.newton(t, np.array([z]), width)
    assert error[0] < 1e-9
    g = dyson.resolvent(dyson.propagators(t, np.array([z]), width))[0]
    found = []
    for k in range(6):
        matrix = z * np.eye(size) - sample(net, size, 1, k, values, quantiles=True)
        if name == "product2":  # η regularises the auxiliary block too: use the pencil itself
            first, second = (sample(Spectrum(m), size, 1, k, {}) for m in (A, B))
            matrix = np.block([[z * np.eye(size), -first], [-second, np.eye(size)]])
        inverse = matrix.conj().T @ np.linalg.inv(matrix @ matrix.conj().T + width**2 * np.eye(len(matrix)))
        found.append(np.trace(inverse[:size, :size]) / size)
    spread = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - g) < 5 * spread + 0.01


@pytest.mark.parametrize("name", ["elliptic", "gains", "product2", "columns", "covariance"])
def test_slopes_are_derivatives(name: str) -> None:
    net = Spectrum(MATRICES[name])
    found = derive(net).solve({p: 0.3 for p in net.parameters})
    if net.hermitian:
        z, step = 2 + 1j, 1e-4
        solver = found.solver.analytic
        t, _ = solver.follow_from_infinity(np.array([z]))
        exact = solver.resolvent_slope(t, np.array([z]), 0)[0]
        assert exact == pytest.approx((found.resolvent(z + step) - found.resolvent(z - step)) / (2 * step), abs=1e-6)
        return
    z, step = -0.2 + 0.25j, 1e-4
    gx = (found.resolvent(z + step) - found.resolvent(z - step)) / (2 * step)
    gy = (found.resolvent(z + 1j * step) - found.resolvent(z - 1j * step)) / (2 * step)
    assert found.density(z) == pytest.approx(((gx + 1j * gy) / 2).real / np.pi, abs=1e-6)


# -- samples -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["gains", "columns"])
def test_counts_agree_with_sampled_eigenvalues(name: str) -> None:
    net = Spectrum(MATRICES[name])
    values = {p: 0.4 for p in net.parameters}
    found = derive(net).solve(values)
    sampled = eigenvalues(net, N=200, trials=6, seed=3, params=values, quantiles=True)
    region = ((-1.1, -0.1), (-0.3, 0.3))
    estimate = sampled.box(*region)
    assert abs(found.count(box=region).value - estimate.value) < 5 * estimate.error + 0.01
    wrong = found.count(box=((-1.1, 0.1), (-0.3, 0.3))).value
    assert abs(wrong - estimate.value) > 5 * estimate.error


def test_windows_agree_with_sampled_eigenvalues() -> None:
    sampled = eigenvalues(Spectrum(MATRICES["covariance"]), N=300, trials=6, quantiles=True)
    estimate = sampled.window(6.6271, 20)
    assert abs(estimate.value - 0.15306) < 5 * estimate.error + 0.01
    assert sampled.leftmost().value == pytest.approx(0.36942, abs=0.06)
    assert sampled.rightmost().value == pytest.approx(10.012, rel=0.08)


def test_block_matrices_are_sampled_block_by_block() -> None:
    E, I = Population("E", Rational(3, 10)), Population("I", Rational(7, 10))
    blocks = {
        (p, q): Gaussian(f"J{p}{q}", v, over=(p, q))
        for (p, q, v) in ((E, E, 0.25), (E, I, 1.44), (I, E, 0.64), (I, I, 0.36))
    }
    net = Spectrum(blocks)
    found = derive(net).solve()
    assert found.edges()[-1].value == pytest.approx(0.78246, abs=6e-6)
    assert found.count(disc=0.5).value == pytest.approx(0.43087, abs=6e-6)
    estimate = eigenvalues(net, N=200, trials=6).disc(0.5)
    assert abs(estimate.value - 0.43087) < 5 * estimate.error + 0.01


def test_quantiles_have_the_moments_of_the_law() -> None:
    points = quantile_points(("Normal", 0.0, 1.0), 500)
    assert abs(points.mean()) < 0.01
    assert points.var() == pytest.approx(1, abs=0.02)
    assert sorted(quantile_points(("Ising",), 10)) == [-1] * 5 + [1] * 5


# -- bad requests --------------------------------------------------------------------------------------------------
def test_regions_are_asked_for_one_at_a_time() -> None:
    found = solution("elliptic", kappa=0)
    with pytest.raises(QuenchedError, match="one of window=, box=, disc=, got none"):
        found.count()
    with pytest.raises(QuenchedError, match="complex: give box= or disc="):
        found.count(window=(0, 1))
    with pytest.raises(QuenchedError, match="are real"):
        solution("covariance").density(1 + 1j)
    with pytest.raises(QuenchedError, match="ask for edges"):
        solution("covariance").boundary()
    with pytest.raises(QuenchedError, match="no points were given"):
        _ = found.g
    with pytest.raises(QuenchedError, match="at least 2 samples"):
        eigenvalues(Spectrum(A), N=10, trials=1)


def test_solve_takes_points() -> None:
    assert derive(Spectrum(J)).solve(kappa=0, z=[0.5, 2]).g == pytest.approx([0.5, 0.5])


def test_a_jump_that_is_no_polynomial_is_refused() -> None:
    u = Quenched("u", Uniform(0, 1))
    with pytest.raises(NotCovered, match="label function with a jump"):
        derive(Spectrum(A @ diag(Heaviside(u - cosh(x))))).solve(z=0.5)


# -- correlated patterns -------------------------------------------------------------------------------------------
alpha, c, gamma = symbols("alpha c gamma", real=True)
patterns = Population("P", fraction=symbols("alpha", positive=True))
angle = Quenched("angle", Uniform(0, 2 * pi), over=patterns)
xi = Iid("xi", Ising(), over=(patterns, units))


def test_symmetric_windows_of_patterns() -> None:
    """A diagonal of eigenvalues stands for the symmetric circulant between patterns (arXiv:2103.14324)."""
    matrix = xi.T @ diag(c + 2 * gamma * (cos(angle) + cos(2 * angle))) @ xi - patterns.fraction * c * eye
    found = derive(Spectrum(matrix)).solve(alpha=0.5, c=1, gamma=0.3)
    assert [e.value for e in found.edges()] == pytest.approx([-0.447101, 3.518138], abs=2e-6)
    assert found.density(3.518138 / 2) == pytest.approx(0.06156, abs=6e-6)
    assert found.count(window=(3.518138 / 2, 0.9 * 3.518138)).value == pytest.approx(0.05831, abs=6e-6)


def test_one_sided_windows_of_patterns() -> None:
    """A complex diagonal stands for the cyclic shift between patterns (arXiv:2208.11411): annulus, then a void."""
    net = Spectrum(xi.T @ diag(c + gamma * exp(-I * angle)) @ xi)
    assert not net.hermitian
    ring = derive(net).solve(alpha=0.5, c=0, gamma=1)
    assert [e.value for e in ring.edges()] == pytest.approx([-(1.5**0.5), -(0.5**1.5), 0.5**1.5, 1.5**0.5], abs=5e-6)
    assert ring.count(box=((0.4, 1), (-0.4, 0.4))).value == pytest.approx(0.06340, abs=6e-6)
