"""Participation ratios and cross-covariances in numbers: published values, closed forms, limits, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Expr, Rational, erf, pi, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Map,
    Normal,
    NotCovered,
    Participation,
    Population,
    Quenched,
    QuenchedError,
    WhiteNoise,
    cov,
    derive,
    mean,
)

g, s2, eta = symbols("g s2 eta", nonnegative=True)
x = Field("x")
J = Gaussian("J", variance=g**2)
CURVES = {"tanh": tanh(x), "erf": erf(sqrt(pi) * x / 2)}


def noisy(phi: Expr) -> Dynamics:
    return Dynamics({x: -x + J @ phi + sqrt(2 * s2) * WhiteNoise("xi")})


@pytest.fixture(scope="module")
def theories() -> dict[str, Any]:
    return {name: derive(noisy(phi)).fluctuations() for name, phi in CURVES.items()}


# Published values, grid-converged to the digits shown.
PUBLISHED = [
    ("tanh", 1.5, 0.0062394, 0.0056112),
    ("tanh", 2, 0.0197407, 0.0159148),
    ("tanh", 3, 0.0446509, 0.0313720),
    ("tanh", 5, 0.07407, 0.04563),
    ("erf", 1.5, 0.0074038, 0.0065839),
    ("erf", 2, 0.0230137, 0.0181994),
    ("erf", 3, 0.0497422, 0.0341995),
    ("erf", 5, 0.07880, 0.04768),
]


@pytest.mark.parametrize(("name", "gain", "output", "state"), PUBLISHED)
def test_published_participation_ratios(
    theories: dict[str, Any], name: str, gain: float, output: float, state: float
) -> None:
    found = theories[name].solve(g=gain, s2=0).participation
    digits = 1e-5 if gain == 5 else 1e-7
    assert found["phi"].value == pytest.approx(output, abs=digits)
    assert found["x"].value == pytest.approx(state, abs=digits)
    assert max(q.error for q in found.values()) < 1e-7


def test_published_cross_covariances(theories: dict[str, Any]) -> None:
    found = theories["tanh"].solve(g=4, s2=0, lags=np.array([0.0, 2.0, 4.0]))
    assert found.psi["phi"].value == pytest.approx([8.783, 8.093, 6.743], abs=6e-4)
    assert found.quantity("PR_phi").value == pytest.approx(0.06207, abs=6e-6)
    with pytest.raises(QuenchedError, match="PR_phi"):
        found.quantity("PR_pi")


def test_noise_changes_the_state_formula(theories: dict[str, Any]) -> None:
    """The published row (PR .10234; ψ 4.125, 3.687, 2.940) has a lag step of 0.2, too coarse for the cusp of C."""
    found = theories["tanh"].solve(g=3, s2=1, lags=np.array([0.0, 2.0, 4.0]))
    assert found.psi["phi"].value == pytest.approx([4.125, 3.687, 2.940], rel=1e-3)
    assert found.participation["phi"].value == pytest.approx(0.10234, rel=1e-3)
    assert found.psi["phi"].value == pytest.approx(direct(theories["tanh"], 3.0, 1.0), rel=2e-4)
    quiet = theories["tanh"].solve(g=3, s2=0).participation["x"].value
    assert found.participation["x"].value > 1.5 * quiet


def direct(fluctuations: Any, gain: float, noise: float) -> np.ndarray:
    """ψ of the output by the published formula on a plain grid, with the lag step extrapolated to zero."""
    out = []
    for step in (0.08, 0.04):
        theory = fluctuations.theory
        branch = theory.solved(theory.values(g=gain, s2=noise), lags=np.arange(0, 80 + step / 2, step)).state
        c, v = branch.two_point[0], branch.variance[0]
        u = np.linspace(-12, 12, 20001) * np.sqrt(v)
        slope = np.trapezoid(np.exp(-u * u / 2 / v) / np.cosh(u) ** 2, u) / np.sqrt(2 * np.pi * v)
        line = np.concatenate([c, c[-2:0:-1]])
        spectrum, omega = np.real(np.fft.fft(line)) * step, 2 * np.pi * np.fft.fftfreq(len(line), step)
        near = np.abs(omega) < 14
        spectrum, omega = spectrum[near], omega[near]
        r = slope / (1 + 1j * omega)
        weight = 1 / np.abs(1 - gain**2 * np.outer(r, r)) ** 2 - 1
        waves = [spectrum * np.exp(1j * omega * lag) for lag in (0, 2, 4)]
        out.append(np.array([np.real(w @ weight @ w) for w in waves]) / (len(line) * step) ** 2)
    return out[1] + (out[1] - out[0]) / 3


def test_a_discrete_map_has_a_closed_form() -> None:
    """x(n+1) = J φ(x(n)): PR^φ/N = 1 − r, PR^x/N = (1 − r)/(2 − r), r = (g⟨φ'⟩)⁴."""
    theory = derive(Map({x: J @ tanh(x)}))
    found = theory.fluctuations().solve(g=2).participation
    v = float(theory.solved(theory.values(g=2)).state.variance[0])
    u = np.linspace(-12, 12, 20001) * np.sqrt(v)
    slope = np.trapezoid(np.exp(-u * u / 2 / v) / np.cosh(u) ** 2, u) / np.sqrt(2 * np.pi * v)
    r = (2 * slope) ** 4
    assert found["phi"].value == pytest.approx(1 - r, rel=1e-9)
    assert found["x"].value == pytest.approx((1 - r) / (2 - r), rel=1e-9)


def test_equal_populations_are_one_population() -> None:
    """Split into two groups with the same couplings, each group has f·N units of the same network."""
    groups = [Population("A", fraction=Rational(3, 4)), Population("B", fraction=Rational(1, 4))]
    a, b = (Field("x", p) for p in groups)

    def row(to: Population, name: str) -> Expr:
        first, second = (Gaussian(f"{name}{p.name}", variance=g**2, over=(to, p)) for p in groups)
        return first @ tanh(a) + second @ tanh(b)

    found = derive(Map({a: row(groups[0], "P"), b: row(groups[1], "Q")})).fluctuations().solve(g=2)
    whole = derive(Map({x: J @ tanh(x)})).fluctuations().solve(g=2)
    for field, share in (("phi_1", 0.75), ("phi_2", 0.25)):
        assert found.psi[field].value[0] == pytest.approx(share * whole.psi["phi"].value[0], rel=1e-6)


def test_participation_is_an_observable() -> None:
    net = noisy(tanh(x)).observe(PR=Participation(cov(tanh(x))), PRx=Participation(cov(x)), odd=Participation(mean(x)))
    sol = derive(net).solve(g=2, s2=0)
    assert float(sol["PR"]) == pytest.approx(0.0197407, abs=1e-7)
    assert float(sol["PRx"]) == pytest.approx(0.0159148, abs=1e-7)
    with pytest.raises(NotCovered, match="Participation"):
        sol.quantity("odd")
    trivial = next(b for b in sol.branches if b.kind == "trivial")
    assert "PR" in trivial.missing()


def test_steps_and_refusals(theories: dict[str, Any]) -> None:
    shown = repr(theories["tanh"])
    assert [s.title for s in theories["tanh"].steps] == [
        "Fluctuations: quadratic action between two copies",
        "Propagators of one unit",
        "Variance of cross-covariances",
    ]
    assert "ψ_φ(ω1,ω2)" in shown
    assert "\\psi" in theories["tanh"].lines._repr_latex_()
    with pytest.raises(QuenchedError, match="trivial"):
        theories["tanh"].solve(g=0.5, s2=0)
    with_memory = derive(Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)})).fluctuations()
    assert "phi" in with_memory.result.closed
    with pytest.raises(NotCovered, match="not Gaussian"):
        with_memory.solve(g=2, eta=0.3)
    frozen = derive(Dynamics({x: -x + J @ tanh(x) + Quenched("b", Normal(0, 1))})).fluctuations()
    assert frozen.problem.shared
    assert frozen.result.closed == {}
