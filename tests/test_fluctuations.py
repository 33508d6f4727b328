"""1/N covariances: the quadratic action, the planar series, exact linear networks and published values."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sympy import Expr, Matrix, Rational, Symbol, cancel, lambdify, sqrt, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Map, NotCovered, Population, WhiteNoise, derive
from quenched.theory.average import Functional
from quenched.theory.fluctuations import (
    Mode,
    QuadraticAction,
    covariance,
    expand_between_copies,
    fluctuation_problem,
    fractions_of,
    response,
    site_covariance,
    spectrum,
    symbolic_propagator,
)
from quenched.theory.ladder import conjugate, ladder
from quenched.theory.linear import LinearUnits

g, s2, eta = symbols("g s2 eta", nonnegative=True)
x = Field("x")
J = Gaussian("J", variance=g**2)
E_, I_ = Population("E", fraction=Rational(4, 5)), Population("I", fraction=Rational(1, 5))


def noisy(phi: Expr) -> Dynamics:
    return Dynamics({x: -x + J @ phi + sqrt(2 * s2) * WhiteNoise("xi")})


def two_populations() -> Dynamics:
    e, i = Field("x", E_), Field("x", I_)

    def block(name: str, variance: Expr, rows: Population, cols: Population) -> Gaussian:
        return Gaussian(name, variance=variance, over=(rows, cols))

    return Dynamics(
        {
            e: -e + block("A", g**2, E_, E_) @ tanh(e) + block("B", g**2 / 2, E_, I_) @ tanh(i),
            i: -i + block("C", 2 * g**2, I_, E_) @ tanh(e) + block("D", g**2 / 3, I_, I_) @ tanh(i),
        }
    )


def one_matrix_twice() -> Dynamics:
    return Dynamics({x: -x + J @ tanh(x) + J @ x / 3 + Gaussian("M", variance=s2) @ x})


def quadratic(net: Any) -> tuple[QuadraticAction, Any]:
    derivation = derive(net).derivation
    functional, units = derivation.find(Functional), derivation.find(LinearUnits)
    q = expand_between_copies(functional)
    return q, fluctuation_problem(q, units, derivation.problem) if units else None


# --- two derivations -----------------------------------------------------------------------------------------------


def test_both_routes_give_the_same_formula() -> None:
    q, problem = quadratic(noisy(tanh(x)))
    series = ladder(problem, q.action)
    for name in ("phi", "x"):
        first = covariance(q, symbolic_propagator(q.action.fields), Mode("units", name, name))
        assert cancel(first - series.total(("units", name, name))) == 0


@pytest.mark.parametrize("net", [two_populations, one_matrix_twice])
def test_both_routes_agree_at_random_points(net: Callable[[], Dynamics]) -> None:
    q, problem = quadratic(net())
    series = ladder(problem, q.action)
    numbers = draw(q)
    for f in problem.fields:
        mode = Mode(f.population, f.name, f.name)
        k = series.pairs.index((f.population, f.name, f.name))
        corner = np.linalg.inv(np.eye(len(series.pairs)) - array(series.rung, numbers))[k]
        planar = corner @ array(series.centre, numbers) @ np.conj(corner)
        assert hessian_route(q, mode, numbers) == pytest.approx(planar, abs=1e-10 * abs(planar))
        assert abs(planar - array(series.centre, numbers)[k, k]) > 1e-3 * abs(planar)


def hessian_route(q: QuadraticAction, mode: Mode, numbers: dict[Symbol, complex]) -> complex:
    """Σ(1 − P''Σ)^{-1} with the observed mode added to those of the action, by numpy."""
    modes = list(dict.fromkeys([mode, *q.modes]))
    k, f = symbolic_propagator(q.action.fields), fractions_of(q.action)
    sigma = array(Matrix(len(modes), len(modes), lambda i, j: site_covariance(modes[i], modes[j], k, f)), numbers)
    second = np.zeros(sigma.shape, complex)
    where = [modes.index(m) for m in q.modes]
    second[np.ix_(where, where)] = array(Matrix(q.hessian), numbers)
    return complex((sigma @ np.linalg.inv(np.eye(len(modes)) - second @ sigma))[0, 0])


def array(matrix: Matrix, numbers: dict[Symbol, complex]) -> np.ndarray:
    values = lambdify(list(numbers), list(matrix), "numpy")(*numbers.values())
    return np.array(values, complex).reshape(matrix.shape)


def draw(q: QuadraticAction) -> dict[Symbol, complex]:
    """Random spectra and responses, conjugates included."""
    rng = random.Random(1)
    k = symbolic_propagator(q.action.fields)
    ends = [f.name for f in q.action.fields.values() if f.role != "local"]
    found = {s for a in ends for b in ends for c in (1, 2) for s in k(a, b, c).free_symbols}
    numbers: dict[Symbol, complex] = {g: 0.7, s2: 0.3, eta: 0.4}
    for s in sorted(found, key=str):
        if s not in numbers:
            numbers[s] = rng.uniform(0.1, 0.6) + (0 if s.is_real else 1j * rng.uniform(-0.5, 0.5))
            if not s.is_real:
                numbers[conjugate(s)] = complex(numbers[s]).conjugate()
    return numbers


# --- exact linear networks -----------------------------------------------------------------------------------------


def sampled_matrix(size: int, symmetry: float, rng: np.random.Generator) -> np.ndarray:
    a, b = rng.normal(size=(2, size, size))
    upper = np.triu(a, 1)
    lower = np.tril(symmetry * a.T + np.sqrt(1 - symmetry**2) * b, -1)
    return (upper + lower + np.diag(np.diag(a)) * np.sqrt(1 + symmetry)) / np.sqrt(size)


@pytest.mark.parametrize("symmetry", [0.0, 0.4, -0.5])
def test_a_linear_network_against_matrix_inverses(symmetry: float) -> None:
    """x' = −x + Jx + ξ at two frequencies, for partly symmetric couplings too: no simulation, N = 300."""
    q, _ = quadratic(Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ x + WhiteNoise("xi")}))
    gain, size, frequencies = 0.6, 300, (0.2, -0.35)
    rng, measured = np.random.default_rng(3), []
    for _ in range(20):
        couplings, c = gain * sampled_matrix(size, symmetry, rng), []
        for w in frequencies:
            inverse = np.linalg.inv((1 + 1j * w) * np.eye(size) - couplings)
            c.append(inverse @ inverse.conj().T)
        measured.append(np.sum(c[0] * c[1]) / size)  # ⟨O¹² O¹²⟩ pairs C_ij(ω1) with C_ij(ω2)
    output = next(f.name for f in q.action.of_role("output"))
    numbers: dict[Symbol, complex] = {g: gain, eta: symmetry}
    for k, w in enumerate(frequencies, start=1):
        r = single_response(1 + 1j * w, gain, symmetry)
        level = abs(r) ** 2 / (1 - gain**2 * abs(r) ** 2)
        numbers |= {spectrum(output, output, k): level, response(output, "hat_h", k): r}
        numbers[response(output, "hat_h", k, bar=True)] = np.conj(r)
    predicted = hessian_route(q, Mode("units", output, output), numbers)
    spread = np.std(np.array(measured)) / np.sqrt(len(measured))
    diagonal = numbers[spectrum(output, output, 1)] * numbers[spectrum(output, output, 2)]
    print(symmetry, np.mean(measured), predicted, spread, diagonal)
    assert abs(np.mean(measured) - predicted) < 4 * spread + 0.005 * abs(predicted)
    assert abs(predicted - diagonal) > 0.2 * abs(diagonal)


def single_response(z: complex, gain: float, symmetry: float) -> complex:
    """R = 1/(z − η g² R), the root that decays at large z."""
    if symmetry == 0:
        return 1 / z
    a = symmetry * gain**2
    roots = [(z + s * np.sqrt(z * z - 4 * a)) / (2 * a) for s in (1, -1)]
    return min(roots, key=abs)


# --- every coefficient matters -------------------------------------------------------------------------------------


def test_wrong_quadratic_actions_disagree_with_the_planar_series() -> None:
    q, problem = quadratic(two_populations())
    series, numbers = ladder(problem, q.action), draw(q)
    f = problem.fields[0]
    mode, k = Mode(f.population, f.name, f.name), series.pairs.index((f.population, f.name, f.name))
    corner = np.linalg.inv(np.eye(len(series.pairs)) - array(series.rung, numbers))[k]
    planar = corner @ array(series.centre, numbers) @ np.conj(corner)
    wrong = list(q.mutants())
    assert len(wrong) == 8
    for label, mutant in wrong:
        assert isinstance(mutant, QuadraticAction)
        assert abs(hessian_route(mutant, mode, numbers) - planar) > 1e-6 * abs(planar), label


def test_symmetric_couplings_are_left_to_the_quadratic_action() -> None:
    q, problem = quadratic(noisy(tanh(x)))
    other, _ = quadratic(Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)}))
    with pytest.raises(NotCovered, match="corners"):
        ladder(problem, other.action)
    assert len(other.modes) == 4
    assert len(q.modes) == 2


def test_redrawn_couplings_are_refused() -> None:
    redrawn = Map({x: Gaussian("J", variance=g**2, redraw="step") @ tanh(x)})
    with pytest.raises(NotCovered, match="not built"):
        derive(redrawn).fluctuations()
