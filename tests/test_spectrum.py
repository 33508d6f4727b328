"""Spectra of declared matrices: the steps from the expression to its equations."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from sympy import Abs, Rational, S, Symbol, cosh, simplify, sqrt, symbols

from quenched import Dynamics, Field, Spectrum, derive
from quenched.theory import (
    Bernoulli,
    Gaussian,
    Iid,
    Ising,
    Laplace,
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
from quenched.theory.linearise import Linearise, Pencil, check_schur, hermitise
from quenched.theory.problem_dyson import Z
from quenched.theory.resolvent import Boundary, DysonEquation, LabelMean, PairAtoms, ScalarEquations, pair
from quenched.theory.spectral import SpectralDerivation, derive_spectrum
from quenched.theory.spectrum import SpectrumDeclaration

g = symbols("g", positive=True)
eta = symbols("eta", real=True)
J = Gaussian("J", variance=g**2, symmetry=eta)
W, V = Gaussian("W", symmetry=1), Gaussian("V", symmetry=1)
X, Y = Gaussian("X"), Gaussian("Y")
x, a, left, right = (
    Quenched("x", Normal(0, 1)),
    Quenched("a", Ising()),
    Quenched("l", Uniform()),
    Quenched("r", Uniform()),
)
D = 1 / cosh(x) ** 2


def boundary(matrix: object) -> Boundary:
    found = derive_spectrum(Spectrum(matrix)).find(Boundary)
    assert found is not None
    return found


def scalars(matrix: object) -> ScalarEquations:
    found = derive_spectrum(Spectrum(matrix)).find(ScalarEquations)
    assert found is not None
    return found


# -- declaration ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("matrix", "hermitian"),
    [
        (W, True),
        (J, False),
        (W @ V + V @ W, True),
        (W @ V, False),
        (diag(x) + g * W, True),
        (X @ X.T, True),
        (X + X.T, True),
        (X @ diag(x) @ X.T, True),
        (X @ Y.T, False),
        (diag(a) @ W @ diag(a), True),
        (diag(a) @ W, False),
        (outer(x, x), True),
    ],
)
def test_hermitian_matrices_are_recognised(matrix: object, hermitian: bool) -> None:
    assert Spectrum(matrix).hermitian is hermitian


def test_blocks_can_be_hermitian() -> None:
    E, I = Population("E", Rational(1, 2)), Population("I", Rational(1, 2))
    K = Gaussian("K", over=(E, I))
    assert Spectrum({(E, I): K, (I, E): K.T}).hermitian
    assert not Spectrum({(E, I): K, (I, E): Gaussian("L", over=(I, E))}).hermitian


def test_bad_declarations_say_so() -> None:
    P = Population("P", Rational(1, 2))
    with pytest.raises(QuenchedError, match=r"square matrix, got X \(P × units\).*M @ M\.T"):
        Spectrum(Gaussian("X", over=(P, units)))
    with pytest.raises(QuenchedError, match="matrix expression or a dict"):
        Spectrum(3)
    with pytest.raises(NotCovered, match="h in a Spectrum is no Quenched"):
        Spectrum(X @ diag(Field("h")))
    with pytest.raises(QuenchedError, match="drawn once"):
        Spectrum(Gaussian("X", redraw="step"))
    K = Population("K", size=3)
    with pytest.raises(NotCovered, match="fixed size"):
        Spectrum(Gaussian("X", over=(units, K)) @ Gaussian("Y", over=(K, units)))
    with pytest.raises(QuenchedError, match="did you mean 'g'"):
        derive(Spectrum(g * X)).solve(gg=1)
    with pytest.raises(QuenchedError, match="no value for g"):
        derive(Spectrum(g * X)).solve()
    with pytest.raises(NotCovered, match="variance of B scales as"):
        derive(Spectrum(Gaussian("B", variance=N)))


def test_parameters_can_be_fixed_and_defaulted() -> None:
    net = Spectrum(J, defaults={g: 2, "eta": 0.5})
    assert net.values() == {g: 2.0, eta: 0.5}
    assert derive(net, eta=0).model.parameters == (g,)
    assert pickle.loads(pickle.dumps(net)) == net
    assert Spectrum(X) != Spectrum(Y)


# -- pencil --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "matrix",
    [
        X @ Y,
        X @ Y @ X + 2 * Y,
        diag(a) + diag(left) @ X @ diag(right) @ Y @ diag(a + x) - g * eye,
        outer(x, a) @ X + X @ diag(x),
        diag(x) @ outer(x, a) @ diag(left) @ X,
        (X + Y) @ (X.T - eye) @ diag(x + 1),
    ],
)
def test_the_schur_complement_returns_the_matrix(matrix: object) -> None:
    declared = SpectrumDeclaration(Spectrum(matrix))
    pencil = Linearise()(declared)
    assert all(value.has(Z) for i, j, value in pencil.bare if i == j and i in pencil.heads)
    entry = pencil.occurrences[-1]
    broken = replace(pencil, occurrences=(*pencil.occurrences[:-1], replace(entry, coefficient=2 * entry.coefficient)))
    with pytest.raises(QuenchedError, match="Schur complement"):
        check_schur(declared, broken)


def test_the_pencil_grows_linearly_with_products() -> None:
    def blocks(matrix: object) -> int:
        return len(Linearise()(SpectrumDeclaration(Spectrum(matrix))).blocks)

    assert [blocks(m) for m in (X, X @ Y, X @ Y @ X, X @ Y + Y @ X)] == [1, 2, 3, 3]


# -- pairing -------------------------------------------------------------------------------------------------------
def self_energy(matrix: object) -> dict[tuple[int, int], object]:
    pencil = Linearise()(SpectrumDeclaration(Spectrum(matrix)))
    problem = pair(pencil)
    return {(f.row, f.col): f.coefficient for f in problem.feedback}


def test_pairs_follow_the_diagrams_of_the_law() -> None:
    assert self_energy(X) == {}
    assert self_energy(J) == {(0, 0): eta * g**2}
    assert self_energy(Iid("K", Laplace(g)) @ Iid("K", Laplace(g)).T)[0, 0] == 2 * g**2
    twin = Gaussian("T", correlation={X: Rational(1, 3)})
    assert self_energy(twin @ X.T) == self_energy(X @ twin.T)
    assert set(self_energy(twin @ X)) == set()
    assert {(0, 0), (1, 1)} <= set(self_energy(twin @ X.T))


def test_means_have_finite_rank_and_are_listed() -> None:
    step = SpectralDerivation(Spectrum(Gaussian("K", mean=g))).apply(Linearise()).apply(PairAtoms()).steps[-1]
    assert [line.comment for line in step.dropped] == ["finite rank: moves single eigenvalues, not the bulk"]
    problem = derive_spectrum(Spectrum(X + g * outer(S.One, S.One) / N)).problem
    assert [r.coefficient for r in problem.analytic.ranks] == [-g / N]


def test_the_doubled_pencil_contains_both_orders() -> None:
    pencil = Linearise()(SpectrumDeclaration(Spectrum(X @ diag(x) @ Y)))
    assert isinstance(pencil, Pencil)
    doubled = hermitise(pencil)
    assert (doubled.half, len(doubled.blocks), len(doubled.occurrences)) == (2, 4, 4)
    assert {o.transposed for o in doubled.occurrences if o.row >= 2} == {True}


def test_scalars_that_no_word_reaches_are_dropped() -> None:
    steps = derive_spectrum(Spectrum(W @ V + V @ W)).steps
    before, after = (s.after for s in steps[1:3])
    assert isinstance(before, DysonEquation)
    assert isinstance(after, DysonEquation)
    assert (len(before.problem.unknowns), len(after.problem.unknowns), len(after.dropped())) == (7, 3, 4)


# -- closed forms --------------------------------------------------------------------------------------------------
def test_boundaries_in_closed_form() -> None:
    t = Symbol("t_1")
    assert simplify(boundary(Gaussian("J", g**2)).condition - (1 - g**2 / Abs(Z) ** 2)) == 0
    assert boundary(J).table[0][0] == g**2 * Abs(1 / (Z - eta * g**2 * t)) ** 2
    expected = g**2 * LabelMean(left**2 * right**2 * Abs(1 / (Z - a)) ** 2)
    found = boundary(diag(a) + g * diag(left) @ X @ diag(right)).table[0][0]
    assert simplify(found / g**2).args[0].subs({Z: 3, a: 1}) == simplify(expected / g**2).args[0].subs({Z: 3, a: 1})
    assert simplify(boundary(X @ Y).condition - (1 - 1 / Abs(Z) ** 2)) == 0


def test_the_gain_of_partly_symmetric_couplings() -> None:
    found = scalars(J @ diag(D) - eye)
    (symbol, value), t = found.equations[0], found.equations[0][0]
    assert value == LabelMean(D / (Z + 1 - eta * g**2 * D * t))
    assert symbol == Symbol("t_1")
    table = boundary(J @ diag(D) - eye).table
    assert table[0][0].subs(g, 1) == LabelMean(D**2 * Abs(1 / (Z + 1 - eta * D * t)) ** 2)


def test_block_profile() -> None:
    f = symbols("f", positive=True)
    E, I = Population("E", f), Population("I", 1 - f)
    s = {p + q: Symbol(f"s_{p}{q}", positive=True) for p in "EI" for q in "EI"}
    pops = {"E": E, "I": I}
    blocks = {(pops[p], pops[q]): Gaussian(f"J{p}{q}", s[p + q], over=(pops[p], pops[q])) for p in "EI" for q in "EI"}
    table = boundary(blocks).table
    trace, expected = table[0][0] + table[1][1], s["EE"] * f + s["II"] * (1 - f)
    det = table[0][0] * table[1][1] - table[0][1] * table[1][0]
    assert simplify((trace * Abs(Z) ** 2).expand() - expected) == 0
    assert simplify((det * Abs(Z) ** 4).expand() - f * (1 - f) * (s["EE"] * s["II"] - s["EI"] * s["IE"])) == 0


def test_scalar_equations_in_closed_form() -> None:
    t4 = Symbol("t_4")
    anti = scalars(W @ V + V @ W)
    assert len(anti.equations) == 1
    assert simplify(anti.equations[0][1] - 1 / (Z - 2 * t4 / (1 - t4**2))) == 0
    y = symbols("y", positive=True)
    P = Population("P", y)
    K = Gaussian("K", over=(P, units))
    mp = scalars(K @ K.T)
    assert len(mp.equations) == 1
    t, value = mp.equations[0]
    # Marchenko and Pastur: z y g² + (y − 1 + z) g… in terms of whichever scalar is left
    G = scalars(K @ K.T).resolvent
    w = Symbol("w")
    assert simplify((value - t).subs(t, w)) != 0
    number = {y: Rational(1, 2), Z: 5}
    from sympy import nsolve

    root = nsolve((value - t).subs(number), t, 0.2)
    gz = G.subs(number).subs(t, root)
    assert abs(gz - 1 / (5 - 1 / (1 - gz / 2))) < 1e-12


def test_steps_print_in_text_latex_and_html() -> None:
    theory = derive(Spectrum(J @ diag(D) - eye, name="gains"))
    assert "Linearise the matrix expression" in repr(theory)
    assert "1/(-" in theory.equations[0].text or "⟨" in theory.equations[0].text
    assert theory.derivation.latex().count(r"\begin{align}") == len(theory.derivation.steps) + 1
    assert "<section" in theory._repr_html_()
    assert "ahmadian2015" in theory.derivation.bibtex()
    assert theory.derivation.titles()[-1] == "Boundary of the support"


def test_derive_still_takes_dynamics() -> None:
    h = Field("h")
    assert derive(Dynamics({h: -h})).model.fields == (h,)
    with pytest.raises(QuenchedError, match="Spectrum"):
        derive(3)  # type: ignore[call-overload]


def test_a_label_without_disorder_comes_out_of_the_average() -> None:
    assert LabelMean(g * x) == g * LabelMean(x)
    assert LabelMean(g + 1) == g + 1
    assert sqrt(2) * LabelMean(x) != LabelMean(x)
    assert LabelMean(Quenched("b", Bernoulli(g)) + 1).has(LabelMean)
