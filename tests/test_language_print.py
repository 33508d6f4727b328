"""Models printed back with explicit indices, as text and as LaTeX."""

from __future__ import annotations

from sympy import Max, Rational, Symbol, pi, sin, sqrt, symbols, tanh

from quenched.theory import (
    Dynamics,
    Field,
    Gaussian,
    Iid,
    Ising,
    Map,
    N,
    Normal,
    Population,
    Quenched,
    Uniform,
    WhiteNoise,
    copies,
    discretise,
    indexed,
    indexed_latex,
    mean,
    outer,
    t,
    total,
)

g, s2, eta, k = symbols("g s2 eta k", positive=True)
x, z = Field("x"), Field("z", initial=Normal(0, 4))
J = Gaussian("J", variance=g**2)


def test_the_random_rate_network() -> None:
    net = Dynamics({x: -x + J @ tanh(x) + sqrt(2 * s2) * WhiteNoise("xi")})
    assert indexed(net) == [
        "dx_i/dt = −x_i + Σ_j J_ij tanh(x_j) + √2 √s2 ξ_i(t)",
        "J_ij ~ N(0, g²/N)",
        "⟨ξ_i(t) ξ_j(s)⟩ = δ_ij δ(t − s)",
    ]
    assert str(net) == repr(net) == "\n".join(indexed(net))
    assert indexed_latex(net) == (
        "\\begin{aligned}\n"
        r"\frac{\mathrm{d} x_{i}}{\mathrm{d} t} &= - x_{i} + \sum_{j} J_{ij}\, \tanh{\left(x_{j} \right)}"
        r" + \sqrt{2} \sqrt{s_{2}} \xi_{i}(t) \\"
        "\n"
        r"J_{ij} &\sim \mathcal{N}\left(0, \frac{g^{2}}{N}\right) \\"
        "\n"
        r"\left\langle \xi_{i}(t)\, \xi_{j}(s) \right\rangle &= \delta_{ij}\, \delta\left(t - s\right)"
        "\n\\end{aligned}"
    )


def test_a_map_with_products_transposes_and_delays() -> None:
    A = Iid("A", Ising(), redraw="step")
    B = Gaussian("B", correlation={J: Rational(1, 2)}, diagonal=0, symmetry=eta / 2)
    net = Map({x: tanh(J.T @ (x * z) + B @ tanh(A @ x(t - 3))), z: x * total(x * z) + k * mean(z) ** 2 * x})
    assert indexed(net) == [
        "x_i(t + 1) = tanh(Σ_j B_ij tanh(Σ_k A_jk x_k(t − 3)) + Σ_j J_ji x_j z_j)",
        "z_i(t + 1) = x_i Σ_j x_j z_j + k x_i ((1/N) Σ_j z_j)²",
        "B_ij ~ N(0, 1/N), Cov(B_ij, B_ji) = η/(2 N), B_ii = 0, Cov(B_ij, J_ij) = g/(2 N)",
        "J_ij ~ N(0, g²/N)",
        "A_ij ~ Ising()/√N, drawn afresh at every step",
        "z_i(0) ~ N(0, 4)",
    ]
    assert r"\sum_{j} B_{ij}\, \tanh{\left(\sum_{k} A_{jk}\, x_{k}\left(t - 3\right) \right)}" in indexed_latex(net)


def test_populations_are_named_when_there_are_several() -> None:
    f = Symbol("f_E", positive=True)
    E, I = Population("E", f), Population("I", 1 - f)
    xE, xI = Field("x", E), Field("x", I)
    W = {(p, q): Gaussian("W", variance=g**2, mean=-k * sqrt(N), over=(p, q)) for p in (E, I) for q in (E, I)}
    theta = Quenched("theta", Uniform(0, 2 * pi), over=E)
    net = Dynamics(
        {
            xE: -xE + W[E, E] @ tanh(xE) - W[E, I] @ Max(xI, 0) + sin(2 * pi * t + theta),
            xI: -k * xI + (W[I, I] @ xI) ** 2 + mean(xE) * xI + outer(1, 1, over=(I, E)) @ xE,
        }
    )
    lines = indexed(net)
    assert lines[0] == "dx^E_i/dt = −x^E_i + sin(θ^E_i + 2 π t) + Σ_j W^EE_ij tanh(x^E_j) − Σ_j W^EI_ij Max(0, x^I_j)"
    assert lines[1] == "dx^I_i/dt = −k x^I_i + x^I_i (1/(N f_E)) Σ_j x^E_j + Σ_j x^E_j + (Σ_j W^II_ij x^I_j)²"
    assert "W^EI_ij ~ N(−k/√N, g²/N)" in lines
    assert lines[-3:] == ["θ^E_i ~ Uniform(0, 2 π)", "E: i = 1 … N f_E", "I: i = 1 … N (1 − f_E)"]
    assert r"W_{ij}^{\mathrm{EI}}" in indexed_latex(net)


def test_finite_populations_and_copies() -> None:
    K = Population("K", size=3)
    z3 = Field("z", K)
    U = Gaussian("U", over=(K, K))
    assert indexed(Dynamics({z3: -z3 + U @ tanh(z3) + total(z3)})) == [
        "dz_i/dt = −z_i + Σ_j U_ij tanh(z_j) + Σ_j z_j",
        "U_ij ~ N(0, 1)",
        "K: i = 1 … 3",
    ]
    two = copies(Dynamics({x: -x + J @ tanh(x) + WhiteNoise("xi")}), 2)
    assert indexed(two)[1] == "dx[2]_i/dt = −x[2]_i + Σ_j J_ij tanh(x[2]_j) + ξ[2]_i(t)"
    assert "x_{i}^{[2]}" in indexed_latex(two)


def test_discretised_flows() -> None:
    net = Dynamics({x: -x + J @ tanh(x) + WhiteNoise("xi")})
    assert indexed(discretise(net, 0.25))[0] == "x_i(t + 0.25) = 0.75 x_i + 0.25 Σ_j J_ij tanh(x_j) + 0.5 ξ_i(t)"
    assert indexed(discretise(net, Rational(1, 4)))[2] == "⟨ξ_i(t) ξ_j(s)⟩ = δ_ij δ_ts"
