"""Every trap of the parsing table, and every refusal with its one-line message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy
from sympy import (
    Abs,
    Function,
    Heaviside,
    Integer,
    MatrixSymbol,
    Max,
    Piecewise,
    Rational,
    Symbol,
    cos,
    erf,
    exp,
    lambdify,
    log,
    oo,
    pi,
    sign,
    simplify,
    sin,
    sqrt,
    symbols,
    tanh,
)
from sympy.utilities.iterables import iterable

from quenched import copies, derive, theory
from quenched.theory import (
    AmbiguousExpression,
    Critical,
    Dynamics,
    Field,
    Gaussian,
    Iid,
    Ising,
    Lyapunov,
    Map,
    Matrix,
    Mean,
    N,
    Normal,
    NotCovered,
    Population,
    Quenched,
    QuenchedError,
    Uniform,
    WhiteNoise,
    cov,
    diag,
    eye,
    mean,
    outer,
    t,
    tau,
    total,
    units,
)
from quenched.theory.couplings import Apply

g, k = symbols("g k", nonnegative=True)
x, y = Field("x"), Field("y")
J, A = Gaussian("J", variance=g**2), Gaussian("A")
E, I = Population("E", Rational(4, 5)), Population("I", Rational(1, 5))
xE, xI = Field("x", E), Field("x", I)


# -- the parsing table ---------------------------------------------------------------------------------------------
def test_star_and_at_have_equal_precedence() -> None:
    assert g * J @ tanh(x) == g * (J @ tanh(x))
    assert -J @ x == -(J @ x)
    assert 2 * J.T @ y == 2 * (J.T @ y)
    assert np.float64(2) * J @ x == 2.0 * (J @ x)
    assert np.int64(3) * J @ x == 3 * (J @ x)
    assert J * np.float64(0.5) == np.float64(0.5) * J
    assert sum([J, A]) @ x == J @ x + A @ x
    assert Rational(1, 2) * J @ x == J / 2 @ x
    assert (J - 2 * eye) @ x == J @ x - 2 * x


def test_gates_parse_as_products() -> None:
    assert J @ x * y == (J @ x) * y
    assert J @ (x * y) != J @ x * y
    assert sign(y) * (J @ x) == diag(sign(y)) @ J @ x


def test_a_coupling_is_no_sympy_matrix() -> None:
    # sympy's own matrices drop the contraction without a word; ours cannot be mistaken for one.
    assert not isinstance(J, sympy.matrices.expressions.MatrixExpr)
    assert isinstance(J @ tanh(x), Apply)
    with pytest.raises(QuenchedError, match="x"):
        Dynamics({x: MatrixSymbol("M", 3, 3) * x})


def test_same_name_in_two_populations_is_two_symbols() -> None:
    assert Field("x", E).population == E
    assert Field("x", I).population == I
    assert (xE + xI).free_symbols == {xE, xI}
    assert Quenched("u", Normal(0, 1), over=E) != Quenched("u", Normal(0, 1), over=I)


def test_laws_and_spaces_show_their_parameters() -> None:
    alpha = Symbol("alpha", positive=True)
    P = Population("P", alpha)
    B = Iid("B", Uniform(-k, k + 1), over=(units, P))
    assert {k, alpha} <= B.free_symbols
    z = Field("z", P)
    assert Dynamics({x: -x + (g * J + A @ J) @ x + B @ z, z: -z}).parameters == (alpha, g, k)


def test_substitution_and_derivatives_stay_outside_sums() -> None:
    assert mean(tanh(x)).subs(x, 0) == mean(tanh(x))
    assert mean(tanh(x)).diff(x) == 0
    assert (J @ tanh(x)).subs(x, 0) == J @ tanh(x)
    assert (x * (J @ tanh(x))).diff(x) == J @ tanh(x)


def test_two_copies_do_not_cancel() -> None:
    assert mean((x - x) ** 2) == 0
    assert isinstance(mean((x[1] - x[2]) ** 2), Mean)


def test_indexing_does_not_make_a_sequence() -> None:
    assert Max(x, 0, y) == Max(0, y, x)
    assert simplify(x[1] * 2 - x[1]) == x[1]
    assert not iterable(x)
    assert not iterable(J)
    with pytest.raises(TypeError):
        iter(x)
    for wrong in (-1, "a", slice(2), True, 1.0):
        with pytest.raises(QuenchedError, match="picks a copy"):
            x[wrong]


@pytest.mark.parametrize("f", [sign, tanh, exp, Abs, sin, cos, erf, log, Heaviside, abs, sympy.floor], ids=str)
def test_functions_of_matrices_are_refused(f: Callable[[Any], Any]) -> None:
    with pytest.raises((AmbiguousExpression, AttributeError), match="matrix"):
        f(J)
    with pytest.raises((AmbiguousExpression, AttributeError), match="matrix"):
        f(2 * J - A)


def test_functions_that_let_a_matrix_pass_are_refused_by_the_head() -> None:
    for f in (Function("f")(J), sympy.Max(0, x) * Function("f")(J)):
        with pytest.raises(QuenchedError):
            Dynamics({x: f})
    with pytest.raises(ValueError, match="J"):
        Max(J, 0)
    with pytest.raises(AmbiguousExpression, match="before @"):
        Function("f")(J) @ x


def test_a_vector_beside_a_matrix_is_ambiguous() -> None:
    for wrong in (lambda: tanh(x) * J, lambda: J * tanh(x), lambda: J / x, lambda: (J @ x) * A):
        with pytest.raises(AmbiguousExpression, match="diag"):
            wrong()
    with pytest.raises(AmbiguousExpression, match=r"J\.T"):
        tanh(x) @ J
    assert mean(x) * J @ y == mean(x) * (J @ y)  # an average is a number


def test_matrix_plus_number_is_refused() -> None:
    for wrong in (lambda: J - 2, lambda: 2 - J, lambda: J + g, lambda: J + x, lambda: x + J, lambda: g - J):
        with pytest.raises(QuenchedError, match="eye"):
            wrong()


def test_other_matrix_slips() -> None:
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: J * A, "entry by entry"),
        (lambda: J**2, "J @ J"),
        (lambda: 2**J, "no meaning"),
        (lambda: 1 / J, "no meaning"),
        (lambda: J / A, "divide by a number"),
        (lambda: J.inv() @ x, "not built"),
        (lambda: Gaussian("W", over=(E, I)).inv(), "only square"),
        (lambda: outer(x, x).inv(), "rank one"),
        (lambda: (J - J).inv(), "no inverse"),
        (lambda: (J + A)[0], "one by one"),
        (lambda: J(t), "no meaning"),
        (lambda: J @ "x", "J @"),
        (lambda: J @ [1, 2], "J @"),
        (lambda: np.ones(3) * J, "factor of the matrix"),
        (lambda: J + Gaussian("W", over=(E, I)), "different populations"),
        (lambda: Gaussian("W", over=(E, I)) @ Gaussian("V", over=(E, I)), "columns are 'I'"),
        (lambda: diag(J), "not a matrix"),
        (lambda: outer(J, x), "not a matrix"),
        (lambda: diag(x, over=E), "over 'units'"),
        (lambda: mean(J), "mean"),
        (lambda: total(2), "over="),
        (lambda: total(2 * J), "total"),
    ]
    for wrong, words in cases:
        with pytest.raises(QuenchedError, match=words) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def test_noise_is_named() -> None:
    with pytest.raises(QuenchedError, match="named"):
        WhiteNoise(1)
    assert WhiteNoise("xi") - WhiteNoise("xi") == 0
    assert WhiteNoise("xi") != WhiteNoise("zeta")


def test_one_name_one_matrix() -> None:
    with pytest.raises(QuenchedError, match="'J'"):
        Dynamics({x: Gaussian("J", g**2) @ x + Gaussian("J", 1) @ tanh(x)})
    assert Gaussian("J", g**2) == J
    two = {xE: Gaussian("J", over=(E, E)) @ xE + Gaussian("J", over=(E, I)) @ xI, xI: -xI}
    assert len(Dynamics(two).matrices) == 2  # one name over other spaces is another matrix


def test_names_of_sympy() -> None:
    with pytest.raises(QuenchedError, match="Population"):
        Field("x", population=sympy.E)
    with pytest.raises(ValueError, match="function N"):
        sqrt(sympy.N)
    for name in ("t", "N", "tau"):
        with pytest.raises(QuenchedError, match=f"from quenched import {name}"):
            Dynamics({x: -x + Symbol(name)})
    with pytest.raises(QuenchedError, match="from quenched import t"):
        x(Symbol("t") - 1)


def test_functions_are_not_called_at_times() -> None:
    with pytest.raises(TypeError):
        tanh(x)(t - 1)
    assert tanh(x(t - 1)).atoms(theory.At) == {x(t - 1)}


def test_derivatives_are_no_keys() -> None:
    for key in (x.diff(t), sympy.Derivative(Function("x")(t), t)):
        with pytest.raises(QuenchedError, match=r"Dynamics\(\{x"):
            Dynamics({key: -x})


def test_python_conditions_explain_themselves() -> None:
    conditions: list[Callable[[], Any]] = [
        lambda: 1 if mean(x) > 0 else 0,
        lambda: 0 < x < 1,
        lambda: max(x, 0),
        lambda: bool(J @ x >= y),
        lambda: bool(x(t - 1) <= 0),
    ]
    for wrong in conditions:
        with pytest.raises(QuenchedError, match="Heaviside, Piecewise or Max") as caught:
            wrong()
        assert isinstance(caught.value, TypeError)
    assert lambdify(x, Piecewise((x, x > 0), (0, True)))(-2) == 0
    assert (x > 0).reversed == (Integer(0) < x)
    assert isinstance(Dynamics({x: Piecewise((-x, x > 0), (0, True))}).eqs[x], Piecewise)
    assert (x**2 >= 0) == True  # noqa: E712 - decided relations stay decided


def test_stored_functions_are_expressions() -> None:
    up, down = (lambda w: Max(w, 0)), (lambda w: Max(-w, 0))
    assert J @ up(x) != J @ down(x)


# -- refusals of atoms ---------------------------------------------------------------------------------------------
_ATOMS: list[tuple[Callable[[], Any], str]] = [
    (lambda: Gaussian("J", variance=-1), "variance of J should be positive"),
    (lambda: Gaussian("J", variance=0), "variance of J should be positive"),
    (lambda: Gaussian("J", variance=-(Symbol("p", positive=True) ** 2)), "variance of J"),
    (lambda: Gaussian("J", variance=x**2), "contains the unit quantity x"),
    (lambda: Gaussian("J", variance=t), "contains the time t"),
    (lambda: Gaussian("J", variance=sympy.I), "finite real"),
    (lambda: Gaussian("J", variance=oo), "finite real"),
    (lambda: Gaussian("J", variance="g +"), "variance of J"),
    (lambda: Gaussian("J", symmetry=Rational(3, 2)), "symmetry of J should be between -1 and 1"),
    (lambda: Gaussian("J", symmetry=-1.01), "symmetry of J"),
    (lambda: Gaussian("J", symmetry=1, over=(E, I)), "equal row and column"),
    (lambda: Gaussian("J", over=E), "pair"),
    (lambda: Gaussian("J", over=(E, "I")), "Population"),
    (lambda: Gaussian("J", diagonal=1), "diagonal of J"),
    (lambda: Gaussian("J", redraw="daily"), "redraw of J"),
    (lambda: Gaussian("", 1), "name"),
    (lambda: Gaussian(g, 1), "name"),
    (lambda: Gaussian("B", correlation={A: 2}), "between -1 and 1"),
    (lambda: Gaussian("B", correlation={Gaussian("W", over=(E, I)): 0}), "populations differ"),
    (lambda: Gaussian("B", correlation={x: 1}), "another Gaussian"),
    (lambda: Iid("B", 1), "law of B"),
    (lambda: Normal(0, -1), "non-negative variance"),
    (lambda: Uniform(1, 0), "larger than"),
    (lambda: theory.Bernoulli(2), "between 0 and 1"),
    (lambda: theory.Laplace(0), "positive"),
    (lambda: theory.SpikeSlab(-1, Ising()), "between 0 and 1"),
    (lambda: theory.SpikeSlab(Rational(1, 2), 3), "law"),
    (lambda: theory.Bernoulli(), "takes 1 parameters"),
    (lambda: Population("P", fraction=0), "fraction"),
    (lambda: Population("P", fraction=-1), "fraction"),
    (lambda: Population("P", size=2.5), "size"),
    (lambda: Population("P", size=0), "size"),
    (lambda: Population("P", fraction=1, size=2), "both"),
    (lambda: Population(3), "name"),
    (lambda: Population("P", labels=3), "labels"),
    (lambda: Field(3), "name"),
    (lambda: Field("x", initial=[1]), "initial"),
    (lambda: Field("x", each=3), "each"),
    (lambda: Field("x", over=(E, I), each=E), "no further index"),
    (lambda: Quenched("u", 3), "law of 'u'"),
    (lambda: x(y), "needs a time"),
    (lambda: mean(x * xE), "mixes populations"),
    (lambda: mean(x, over=E), "units are in 'units'"),
    (lambda: cov(xE, xI), "mixes populations"),
    (lambda: Lyapunov(tanh(x)), "field"),
    (lambda: Critical(x, Lyapunov(x)), "parameter"),
    (lambda: J @ xE, "the columns of J are 'units'"),
    (lambda: J @ (x + xE), "mixes populations"),
    (lambda: J @ (x > 0), "expression in the units"),
]


@pytest.mark.parametrize(("wrong", "words"), _ATOMS, ids=[words for _, words in _ATOMS])
def test_wrong_atoms(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(QuenchedError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


# -- refusals of models --------------------------------------------------------------------------------------------
_xi = WhiteNoise("xi")
_d = Symbol("d", positive=True)
_MODELS: list[tuple[Callable[[], Any], str]] = [
    (lambda: Dynamics({}), "takes a dict"),
    (lambda: Dynamics(-x), "takes a dict"),
    (lambda: Dynamics({"x": -x}), "a key of Dynamics is a Field"),
    (lambda: Dynamics({g: -x}), "a key of Dynamics is a Field"),
    (lambda: Dynamics({x[1]: -x[1]}), "copies"),
    (lambda: Map({x(t + 1): -x}), "a key of Map"),
    (lambda: Dynamics({x: J}), "is a matrix"),
    (lambda: Dynamics({x: x > 0}), "is a condition"),
    (lambda: Dynamics({x: "-x +"}), "equation of x"),
    (lambda: Dynamics({x: None}), "equation of x"),
    (lambda: Dynamics({x: -x + y}), "field y of 'units', which has no equation"),
    (lambda: Dynamics({x: -x + J @ tanh(y)}), "field y of 'units', which has no equation"),
    (lambda: Dynamics({x: -x[1]}), "no equation"),
    (lambda: Dynamics({xE: -xE + xI, xI: -xI}), "x is over 'I'"),
    (lambda: Dynamics({xE: -xE + Quenched("u", Ising(), over=I)}), "u is over 'I'"),
    (lambda: Dynamics({xE: -xE + WhiteNoise("xi")}), "xi is over 'units'"),
    (lambda: Dynamics({xE: -xE + Gaussian("W", over=(I, E)) @ xE}), "is over 'I'"),
    (lambda: Dynamics({x: (J @ tanh(x)).body}), "out of the sum"),
    (lambda: Dynamics({x: -x + x(t + 1)}), "not causal"),
    (lambda: Dynamics({x: -x + J @ x(t + _d)}), "not causal"),
    (lambda: Dynamics({x: -x + x(t - Symbol("d"))}), "declare the delay d positive"),
    (lambda: Dynamics({x: -x + x(2 * t)}), "constant delay"),
    (lambda: Dynamics({x: -x + x(0)}), "constant delay"),
    (lambda: Dynamics({x: -x + x(t + tau)}), "lag tau|not causal|declare"),
    (lambda: Dynamics({x: -x + tau}), "lag tau"),
    (lambda: Dynamics({x: tanh(x + _xi)}), "noise xi inside a nonlinearity"),
    (lambda: Dynamics({x: _xi**2}), "noise xi inside a nonlinearity"),
    (lambda: Dynamics({x: _xi * WhiteNoise("zeta")}), "inside a nonlinearity"),
    (lambda: Dynamics({x: J @ tanh(_xi)}), "noise xi inside a nonlinearity"),
    (lambda: Dynamics({x: Piecewise((1, _xi > 0), (0, True))}), "noise xi inside a nonlinearity"),
    (lambda: Map({x: sign(J @ x + _xi)}), "noise xi inside a nonlinearity"),
    (lambda: Dynamics({x: mean(_xi)}), "average of independent noises"),
    (lambda: Dynamics({x: -x + sympy.I * x}), "not real"),
    (lambda: Dynamics({x: -x + oo}), "infinite or undefined"),
    (lambda: Dynamics({x: -x + sympy.nan}), "infinite or undefined"),
    (lambda: Dynamics({x: -x + Function("I")(t)}), "undefined function I"),
    (lambda: Dynamics({x: -x + Lyapunov(x)}), "Lyapunov, which is an observable"),
    (lambda: Dynamics({x: -Symbol("a") * x + Symbol("a", positive=True)}), "'a' with different assumptions"),
    (lambda: Dynamics({x: -Symbol("x") * x}), "'x' is both"),
    (lambda: Dynamics({x: -x + Symbol("J") * (J @ x)}), "'J' is both"),
    (lambda: Dynamics({x: -x + Quenched("x", Ising())}), "'x'"),
    (lambda: Dynamics({x: Quenched("u", Ising()) + Quenched("u", Normal(0, 1))}), "quenched quantity 'u'"),
    (lambda: Dynamics({x: -x, Field("x", initial=1): -x}), "field 'x'"),
    (lambda: Dynamics({xE: -xE, Field("y", Population("E")): 1}), "population 'E'"),
    (lambda: Dynamics({x: -Symbol("a", imaginary=True) * x}), "real"),
    (lambda: Dynamics({x: Gaussian("J", redraw="step") @ x}), "needs a Map"),
    (lambda: Dynamics({x: Quenched("u", Ising(), redraw="step")}), "needs a Map"),
    (
        lambda: Dynamics({x: Gaussian("B", symmetry=0.5, correlation={Gaussian("C", symmetry=0.5): 1}) @ x}),
        "no joint law of B, C",
    ),
    (lambda: Map({x: Gaussian("J", redraw="layer") @ x}), "not built yet"),
    (lambda: Dynamics({Field("x", each=E): 1}), "not built yet"),
    (lambda: Dynamics({x: -x}, defaults={"a": 1}), "unknown parameter 'a'"),
    (lambda: Dynamics({x: -g * x}, defaults={"g": -1}), "should be nonnegative"),
]


@pytest.mark.parametrize(("wrong", "words"), _MODELS, ids=[words for _, words in _MODELS])
def test_wrong_models(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(QuenchedError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_right_models_nearby() -> None:
    # The refusals above must not catch their legal neighbours.
    Dynamics({x: -x + x(t - _d) + J @ tanh(x(t - 2)) + sin(t) + x * _xi + J @ _xi})
    Dynamics({x: -x + tanh(J @ tanh(x)) * (J.T @ y) + (J @ x) ** 2, y: -y + mean(x) * y})
    Dynamics({x: -x + Gaussian("B", correlation={A: 1}) @ x})
    Map({x: Gaussian("W", redraw="step") @ tanh(x) + Quenched("u", Ising(), redraw="step")})
    Dynamics({xE: -xE + Gaussian("W", over=(E, I)) @ xI + mean(xI), xI: -xI})
    Dynamics({x: -x + Gaussian("B", variance=0, mean=g) @ x})
    Dynamics({x: Heaviside(J @ x) + Piecewise((x, x > 0), (_xi, True))})


# -- parameters and observables ------------------------------------------------------------------------------------
def _net() -> Dynamics:
    W = Gaussian("W", variance=Symbol("v", real=True), symmetry=Symbol("eta", real=True))
    return Dynamics({x: -g * x + W @ tanh(x)}, name="net")


_PARAMETERS: list[tuple[Callable[[], Any], str]] = [
    (lambda: _net().values(g=1, v=1, gain=2), "unknown parameter 'gain' of net: did you mean|unknown parameter 'gain'"),
    (lambda: _net().values(v=1, eta=0), "no value for g"),
    (lambda: _net().values(g=-1, v=1, eta=0), "parameter 'g' should be nonnegative, got -1"),
    (lambda: _net().values(g=oo, v=1, eta=0), "'g' should be finite"),
    (lambda: _net().values(g=float("nan"), v=1, eta=0), "'g' should be finite"),
    (lambda: _net().values(g=sympy.I, v=1, eta=0), "'g' should be"),
    (lambda: _net().values(g="abc", v=1, eta=0), "needs a number"),
    (lambda: _net().values(g=None, v=1, eta=0), "parameter 'g'"),
    (lambda: _net().values(g=1, v=-1, eta=0), "variance of W should be at least 0, got -1"),
    (lambda: _net().values(g=1, v=1, eta=1.5), "symmetry of W should be between -1 and 1"),
    (lambda: _net().values({g: 1}, g=2, v=1, eta=0), "given twice"),
    (lambda: _net().values({Symbol("g"): 1}, v=1, eta=0), "other assumptions"),
    (lambda: _net().fix(v=-1), "variance of W"),
    (lambda: _net().fix(h=-1), "unknown parameter 'h'"),
    (lambda: _net().observe(q=x), "depends on the unit through x"),
    (lambda: _net().observe(q=mean(y)), "y, which is not a field of the model"),
    (lambda: _net().observe(q=J), "is a matrix"),
    (lambda: _net().observe(**{"a b": mean(x)}), "plain word"),
    (lambda: _net().observe(q=mean(x)).observe(q=mean(x**2)), "already declared"),
    (lambda: _net().observe(c=Critical(Symbol("gg"), Lyapunov(x))), "no parameter gg"),
    (lambda: _net().observe(c=mean(Symbol("g") * x)), "different assumptions"),
]


@pytest.mark.parametrize(("wrong", "words"), _PARAMETERS, ids=[words for _, words in _PARAMETERS])
def test_wrong_parameters_and_observables(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(QuenchedError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_parameters_of_laws_and_sizes_are_checked() -> None:
    K = Symbol("K", positive=True)
    z = Field("z", Population("K3", size=K), initial=Normal(0, Symbol("q", real=True)))
    net = Dynamics({z: -z})
    assert net.values(K=3, q=1) == {K: 3.0, Symbol("q", real=True): 1.0}
    with pytest.raises(QuenchedError, match="whole"):
        net.values(K=2.5, q=1)
    with pytest.raises(QuenchedError, match="variance of Normal"):
        net.values(K=2, q=-1)
    with pytest.raises(QuenchedError, match="number of units"):
        Dynamics({Field("z", Population("P", Symbol("f", real=True))): 1}).values(f=-1)


# -- names that are not built --------------------------------------------------------------------------------------
def test_planned_names_say_so() -> None:
    for name in ("FixedPoints", "Sparse", "Entrywise", "Spikes", "grad", "freeze"):
        with pytest.raises(NotCovered, match=f"{name} is not built yet"):
            getattr(theory, name)(x)


def test_names_are_lazy_and_complete() -> None:
    for name in theory.__all__:
        assert getattr(theory, name) is not None
    assert theory.Gaussian is Gaussian
    assert "Gaussian" in dir(theory)
    with pytest.raises(AttributeError, match="gaussian"):
        theory.gaussian  # noqa: B018
    assert issubclass(theory.Participation, theory.Functional)


def test_entry_laws_are_shown() -> None:
    assert repr(J) == "J_ij ~ N(0, g²/N)"
    assert repr(Gaussian("J", mean=-k * sqrt(N))) == "J_ij ~ N(−k/√N, 1/N)"
    assert repr(Gaussian("W", over=(E, Population("K", size=3)))) == "W^EK_ij ~ N(0, 1)"
    assert repr(Gaussian("J", symmetry=Rational(1, 2), diagonal=0)) == (
        "J_ij ~ N(0, 1/N), Cov(J_ij, J_ji) = 1/(2 N), J_ii = 0"
    )
    assert repr(Iid("B", Ising(), redraw="step")) == "B_ij ~ Ising()/√N, drawn afresh at every step"
    assert isinstance(J, Matrix)
    assert str(J) == "J"
    assert pi.is_real


def test_names_that_sympy_keeps_get_a_hint() -> None:
    with pytest.raises(QuenchedError, match=r"write beta = symbols\('beta'\)"):
        Gaussian("K", mean=sympy.beta)
    with pytest.raises(QuenchedError, match=r"got None"):
        Gaussian("K", mean=None)


def test_a_keyword_like_nothing_names_the_settings() -> None:
    x = Field("x")
    solvable = derive(Dynamics({x: -x + Gaussian("J", variance=1) @ tanh(x)}))
    with pytest.raises(QuenchedError, match=r"unknown parameter 'durations'.*settings: lags"):
        solvable.solve(durations=3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: copies(Dynamics({x: -x}), 2, tilt=1), "copies has no argument .tilt.: copies are independent"),
        (lambda: Gaussian("J", each=1), "Gaussian has no argument .each.: an index of its own"),
        (lambda: Dynamics({x: -x}, initial=1), r'Dynamics has no argument .initial.: .* Field\("x", initial='),
        (lambda: Dynamics({x: -x}, default={}), "did you mean 'defaults'"),
        (lambda: WhiteNoise("xi", shared=True), "WhiteNoise has no argument 'shared': every unit has its own"),
        (lambda: WhiteNoise("xi", units, None, 1), r"takes 3 arguments \(name, over, each\), got 4"),
        (lambda: Field("y", init=1), "did you mean 'initial'"),
        (lambda: Gaussian("K", 1, symetry=1), "did you mean 'symmetry'"),
        (lambda: Population("Q", frac=1), "did you mean 'fraction'"),
    ],
)
def test_declarations_name_arguments_that_do_not_exist(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(QuenchedError, match=words) as caught:
        make()
    assert isinstance(caught.value, TypeError)


def test_starts_that_know_the_couplings_are_refused_by_theories() -> None:
    K, first = Gaussian("K", variance=1), Quenched("first", Normal(0, 1))
    y = Field("y", initial=K @ first)
    with pytest.raises(QuenchedError, match="K @ first of y is correlated with the couplings: expected a law"):
        derive(Dynamics({y: -y + K @ sympy.tanh(y)})).solve(times=[0, 1])
