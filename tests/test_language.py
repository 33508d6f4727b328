"""The declaration language: canonical forms, bound indices, populations, laws, pickling and content keys."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import (
    Add,
    DiracDelta,
    Integer,
    Interval,
    Max,
    Mul,
    Pow,
    Rational,
    Symbol,
    cos,
    erf,
    integrate,
    oo,
    pi,
    simplify,
    sin,
    sqrt,
    symbols,
    tanh,
)

from quenched.theory import (
    Apply,
    Bernoulli,
    Critical,
    Dynamics,
    Exponential,
    Field,
    Gaussian,
    HalfNormal,
    Iid,
    Ising,
    Laplace,
    Lyapunov,
    Map,
    Mean,
    N,
    Normal,
    Population,
    Quenched,
    QuenchedError,
    SpikeSlab,
    Uniform,
    WhiteNoise,
    copies,
    cov,
    diag,
    discretise,
    eye,
    mean,
    outer,
    t,
    tau,
    total,
    units,
)

g, k, s2, eta = symbols("g k s2 eta", nonnegative=True)
x, y = Field("x"), Field("y")
J, A = Gaussian("J", variance=g**2), Gaussian("A")
E, I = Population("E", Rational(4, 5)), Population("I", Rational(1, 5))


def scs(**kw: Any) -> Dynamics:
    return Dynamics({x: -x + J @ tanh(x) + sqrt(2 * s2) * WhiteNoise("xi")}, **kw)


# -- canonical forms -----------------------------------------------------------------------------------------------
def test_scalars_stand_outside() -> None:
    assert g * (J @ x) == (g * J) @ x == J @ (g * x) == (J * g) @ x
    assert k * J == J * k
    assert hash(k * J) == hash(J * k)
    assert (J / 2) @ x == (J @ x) / 2
    assert -J @ x == -(J @ x)
    assert J @ (sin(t) * x) == sin(t) * (J @ x)
    assert J @ (mean(y) * x) == mean(y) * (J @ x)
    assert J @ x - (J @ x) == 0
    assert (0 * J) @ x == 0
    assert J @ Integer(0) == 0


def test_sums_split_by_what_they_read() -> None:
    assert J @ (x + k * y) == J @ x + k * (J @ y)
    assert J @ (x + tanh(x)) == Apply(J, x + tanh(x))  # one function of one unit stays one output
    half = J @ ((1 + tanh(x)) / 2)
    assert isinstance(half, Apply)
    assert half.body == (1 + tanh(x.bind())) / 2


def test_matrix_algebra_reduces_to_applications() -> None:
    assert (J + A) @ x == J @ x + A @ x
    assert (J @ A) @ x == J @ (A @ x) == Apply(J, Apply(A, x))
    assert (diag(y) @ J) @ x == y * (J @ x)
    assert (J @ diag(y)) @ x == J @ (y * x)
    assert eye @ x == eye() @ x == x
    assert J - J + eye == eye() == eye.T
    assert eye(E) @ Field("x", E) == Field("x", E)
    assert pickle.loads(pickle.dumps(2 * eye - J)) == 2 * eye - J
    assert outer(x, y) @ x == x * total(x * y)
    assert J.T.T == J
    assert (J @ A).T == A.T @ J.T
    assert J.T - eye == (J - eye).T
    assert isinstance((J.T @ x).matrix.matrix, Gaussian)
    assert J + A == A + J
    assert (J @ A) @ J == J @ (A @ J)


def test_apply_knows_its_populations() -> None:
    W = Gaussian("W", over=(E, I))
    node = W @ tanh(Field("x", I))
    assert (node.rows, node.cols) == (E, I)
    assert ((W.T @ Field("x", E)).rows, W.T.rows) == (I, I)


_MATRICES: dict[str, Any] = {"J": J, "A": A, "J.T": J.T, "eye": eye, "diag": diag(y), "outer": outer(x, tanh(y))}
_ENTRIES = {name: np.random.default_rng(i).normal(size=(3, 3)) for i, name in enumerate("JA")}
_UNITS = {x: np.array([0.3, -1.1, 0.7]), y: np.array([-0.4, 0.2, 1.3])}


def meaning(expr: Any) -> Any:
    """Value of an expression for a network of three units, from matrices as arrays."""
    if expr.is_Number:
        return float(expr)
    if isinstance(expr, Field):
        return _UNITS[expr.free()]
    if isinstance(expr, Apply):
        matrix = expr.matrix
        array = _ENTRIES[matrix.name] if isinstance(matrix, Gaussian) else _ENTRIES[matrix.matrix.name].T
        return array @ (meaning(expr.body) * np.ones(3))
    if isinstance(expr, Mean):
        return np.mean(meaning(expr.body) * np.ones(3))
    if isinstance(expr, Symbol):
        return {"g": 1.7, "N": 3.0}[expr.name]
    parts = [meaning(arg) for arg in expr.args]
    if isinstance(expr, Add):
        return sum(parts[1:], parts[0])
    if isinstance(expr, Mul):
        return np.prod(np.broadcast_arrays(*parts), axis=0)
    if isinstance(expr, Pow):
        return parts[0] ** parts[1]
    assert isinstance(expr, tanh)
    return np.tanh(parts[0])


def array_of(name: str) -> np.ndarray:
    named = {
        "J": _ENTRIES["J"],
        "A": _ENTRIES["A"],
        "J.T": _ENTRIES["J"].T,
        "eye": np.eye(3),
        "diag": np.diag(_UNITS[y]),
        "outer": np.outer(_UNITS[x], np.tanh(_UNITS[y])),
    }
    return named[name]


_words = st.lists(st.sampled_from(sorted(_MATRICES)), min_size=1, max_size=3)
_terms = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), _words), min_size=1, max_size=4)


def _product(word: list[str]) -> tuple[Any, np.ndarray]:
    matrix, array = _MATRICES[word[0]], array_of(word[0])
    for name in word[1:]:
        matrix, array = matrix @ _MATRICES[name], array @ array_of(name)
    return matrix, array


@settings(max_examples=60, deadline=None)
@given(_terms, st.sampled_from([x, tanh(x), x * y, x + g * tanh(y), 1 + tanh(x)]))
def test_linear_combinations_mean_what_arrays_mean(terms: list[Any], vector: Any) -> None:
    matrix, array, applied = 0 * J, np.zeros((3, 3)), Integer(0)
    for coefficient, scaled, word in terms:
        one, numbers = _product(word)
        scalar = coefficient * g if scaled else Integer(coefficient)
        matrix = matrix + scalar * one
        array = array + float(scalar.subs(g, 1.7)) * numbers
        applied += scalar * (one @ vector)
    assert matrix @ vector == applied
    assert np.allclose(meaning(matrix @ vector), array @ (meaning(vector) * np.ones(3)))
    assert np.allclose(meaning(matrix.T @ vector), array.T @ (meaning(vector) * np.ones(3)))
    assert matrix == matrix.T.T


@settings(max_examples=40, deadline=None)
@given(_terms, st.randoms(use_true_random=False))
def test_order_of_terms_does_not_matter(terms: list[Any], random: Any) -> None:
    shuffled = list(terms)
    random.shuffle(shuffled)
    build = [sum((c * (g if s else 1) * _product(w)[0] for c, s, w in order), 0 * J) for order in (terms, shuffled)]
    assert build[0] == build[1]
    assert hash(build[0]) == hash(build[1])
    assert pickle.loads(pickle.dumps(build[0])) == build[1]


# -- bound indices -------------------------------------------------------------------------------------------------
def test_bound_copies_are_out_of_reach() -> None:
    rhs = -x + x * (J @ tanh(x)) + mean(x**2)
    assert rhs.diff(x) == -1 + J @ tanh(x)
    assert rhs.subs(x, 0) == mean(x**2)
    assert (J @ tanh(x)).xreplace({x: y}) == J @ tanh(x)
    assert all(s.bound for s in (J @ tanh(x)).body.atoms(Field))
    assert x.bind() != x
    assert x.bind().free() == x
    assert x.bind().bind() == x.bind()


def test_parameters_reach_inside() -> None:
    node = J @ tanh(k * x)
    assert {g, k} <= node.free_symbols
    assert node.diff(k) == J @ (x * (1 - tanh(k * x) ** 2))
    assert node.subs(k, 0) == 0
    assert mean(tanh(k * x)).subs(k, 0) == 0
    assert node.subs(g, 2).matrix.variance == 4


def test_averages() -> None:
    assert mean(3) == 3
    assert mean(k * x + y) == k * mean(x) + mean(y)
    assert total(x) == N * mean(x)
    assert total(Field("x", E)) == Rational(4, 5) * N * mean(Field("x", E))
    assert total(Field("z", Population("K", size=3))) == 3 * mean(Field("z", Population("K", size=3)))
    assert total(1, over=E) == Rational(4, 5) * N
    assert cov(x) == mean(x**2) - mean(x) ** 2
    assert cov(x, y) == mean(x * y) - mean(x) * mean(y)
    assert mean(J @ x).body == (J @ x)


def test_times() -> None:
    assert x(t) == x
    later = x(t + tau)
    assert (later.field, later.time) == (x, t + tau)
    assert mean(x(t) * later).body == x.bind() * x.bind()(t + tau)
    assert x(t - 1).diff(x) == 0
    assert x(t - 1).xreplace({x: 2 * y + t}) == 2 * y(t - 1) + t - 1
    assert (J @ tanh(x(t - 2))).body == tanh(x.bind()(t - 2))


def test_rewriting_leaves_the_law_alone() -> None:
    W = Gaussian("W", variance=(1 + k) ** 2, over=(E, Population("P", 1 - k)))
    z = Field("z", W.cols)
    rhs = (1 + k) * (W @ ((1 + k) * tanh(z) * (1 + z))) * mean(z * (1 + z))
    for form in (rhs.expand(), simplify(rhs), rhs.factor(), rhs.doit(), rhs.together()):
        assert form.atoms(Gaussian) == {W}
        assert form.atoms(Population) == rhs.atoms(Population)


# -- fields, populations, laws -------------------------------------------------------------------------------------
def test_one_name_in_two_populations() -> None:
    xE, xI = Field("x", E), Field("x", I)
    assert xE != xI
    assert tanh(xE) != tanh(xI)
    assert (xE.population, xI.population) == (E, I)
    assert Field("x", E) == xE
    assert xE - Field("x", E) == 0
    assert len({xE, xI, Field("x", E)}) == 2


def test_copies_of_a_field() -> None:
    assert x[1] != x[2] != x
    assert x[1].copy == 1
    assert mean((x[1] - x[2]) ** 2) != 0
    assert str(x[1]) == "x[1]"
    assert x[1](t - 1).field == x[1]


def test_populations() -> None:
    alpha = Symbol("alpha", positive=True)
    assert units.count == N
    assert Population("P", alpha).free_symbols == {alpha}
    assert (Population("K", size=3).size, Population("K", size=3).fraction) == (3, None)
    assert Population("R", labels=Uniform(0, 1)).labels == Uniform(0, 1)
    assert not Population("K", size=3).extensive


@pytest.mark.parametrize(
    "law",
    [
        Normal(k, 2),
        Uniform(-1, 3),
        Laplace(2),
        HalfNormal(3),
        Exponential(Rational(1, 2)),
        Ising(),
        Bernoulli(Rational(1, 3)),
        SpikeSlab(Rational(1, 3), Uniform(0, 2)),
        SpikeSlab(Rational(1, 4), Ising()),
    ],
    ids=str,
)
def test_moments_of_laws_match_their_densities(law: Any) -> None:
    u = Symbol("u", real=True)
    support = law.support()
    low, high = (
        (support.inf, support.sup) if isinstance(support, Interval) and support.is_finite_set is False else (-oo, oo)
    )
    density = law.density(u)
    atoms = {d.args[0]: density.coeff(d) for d in density.atoms(DiracDelta)}
    smooth = density.xreplace({d: Integer(0) for d in density.atoms(DiracDelta)})

    def moment(power: int) -> Any:
        spikes = sum(weight * (u - shifted) ** power for shifted, weight in atoms.items())
        return simplify(spikes + integrate(u**power * smooth, (u, low, high)))

    assert moment(0) == 1
    assert simplify(moment(1) - law.mean_()) == 0
    assert simplify(moment(2) - moment(1) ** 2 - law.variance_()) == 0
    if law.weights():
        assert sum(p for _, p in law.weights()) == 1
        assert sum(p * a for a, p in law.weights()) == law.mean_()


# -- models --------------------------------------------------------------------------------------------------------
def test_contents_of_a_model() -> None:
    m, f = symbols("m f", positive=True)
    P = Population("P", f)
    u = Quenched("u", Normal(0, k), over=P)
    z = Field("z", P, initial=Normal(0, m))
    B = Iid("B", Laplace(eta), over=(units, P))
    net = Dynamics({x: -x + (g * J) @ tanh(x) + B @ z, z: -z + u + mean(x) + WhiteNoise("xi", over=P)})
    assert net.parameters == (eta, f, g, k, m)
    assert net.fields == (x, z)
    assert set(net.matrices) == {J, B}
    assert net.populations == (units, P)
    assert [n.name for n in net.noises] == ["xi"]
    assert net.quenched == (u,)
    assert net.clock == "flow"
    assert not net.uses_N
    assert Dynamics({x: -x + sqrt(N) * k}).uses_N


def test_observe_returns_the_model() -> None:
    net = scs()
    assert net.observe(C_x=mean(x * x(t + tau)), lyapunov=Lyapunov(x), g_c=Critical(g, Lyapunov(x))) is net
    assert set(net.observables) == {"C_x", "lyapunov", "g_c"}
    assert net.observables["lyapunov"].field == x
    assert net.observables["g_c"].parameter == g
    assert net.observables["g_c"].condition == Lyapunov(x)


def test_values_are_complete() -> None:
    net = scs(defaults={"s2": 0})
    assert net.values(g=2) == {g: 2.0, s2: 0.0}
    assert net.values({g: np.float64(1.5)}, s2=Rational(1, 8)) == {g: 1.5, s2: 0.125}


def test_fix_reaches_laws_and_populations() -> None:
    f = symbols("f", positive=True)
    P = Population("P", f)
    z = Field("z", P, initial=Normal(0, k))
    W = Gaussian("W", variance=g**2, symmetry=eta, over=(P, P))
    net = Dynamics({z: -z + W @ tanh(z)}, defaults={k: 1}).observe(crit=Critical(g, Lyapunov(z)), q=mean(z**2))
    fixed = net.fix(eta=0, f=Rational(1, 2), g=1.5)
    assert fixed.parameters == (k,)
    assert fixed.matrices[0].symmetry == 0
    assert fixed.populations[0].fraction == Rational(1, 2)
    assert fixed.matrices[0].rows == fixed.fields[0].population
    assert "crit" not in fixed.observables
    assert fixed.observables["q"].population == fixed.populations[0]
    assert fixed.defaults == {k: 1}
    assert net.parameters == (eta, f, g, k)  # the model itself is unchanged
    assert scs().fix(g=0).matrices[0].variance == 0


def test_pickling_keeps_everything() -> None:
    noise, theta = WhiteNoise("xi", over=E), Quenched("theta", Uniform(0, 2 * pi), over=E)
    z = Field("z", E, initial=Normal(0, 4))
    W = Gaussian("W", variance=g**2, symmetry=Rational(1, 2), over=(E, E), diagonal=0)
    B = Gaussian("B", over=(E, E), correlation={W: Rational(1, 4)})
    rhs = -z + Max(0, W.T @ tanh(z(t - 1)) + B @ z) + cos(t + theta) + noise + mean(z[1] * z[2]) - mean(z[1] * z[2])
    things = [z, z[1], z.bind(), noise, theta, W, W.T, 2 * W - B @ W, rhs, mean(z**2), Lyapunov(z), E, theta.law, x > 0]
    for thing in things:
        back = pickle.loads(pickle.dumps(thing))
        assert back == thing
        assert hash(back) == hash(thing)
    assert pickle.loads(pickle.dumps(z)).initial == Normal(0, 4)
    net = Dynamics({z: rhs}, name="test", defaults={g: 2}).observe(v=mean(z**2))
    back = pickle.loads(pickle.dumps(net))
    assert back == net
    assert (back.key(), back.name, back.defaults, back.observables) == (
        net.key(),
        net.name,
        net.defaults,
        net.observables,
    )


def test_keys_tell_models_apart() -> None:
    phi = erf(sqrt(pi) * x / 2)
    others = [
        Dynamics({x: -x + J @ tanh(x)}),
        Map({x: -x + J @ tanh(x)}),
        Dynamics({x: -x + J @ phi}),
        Dynamics({x: -x + J.T @ tanh(x)}),
        Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)}),
        Dynamics({Field("x", initial=Normal(0, 1)): -Field("x", initial=Normal(0, 1))}),
        Dynamics({x: -x}),
        Dynamics({x: -x}).observe(q=mean(x**2)),
        Dynamics({x: -Symbol("g", real=True) * x}),
        Dynamics({x: -g * x}),
    ]
    assert len({m.key() for m in others}) == len(others)
    assert scs().key() == scs(name="other").key()


_SCRIPT = """
from sympy import symbols, tanh, sqrt, Max, Heaviside
from quenched.theory import *
from quenched.theory.indices import indexed_latex
a, b, c = symbols("a b c", positive=True)
P, Q = Population("P", a), Population("Q", size=3)
x, z, w = Field("x", P), Field("z", P), Field("w", Q)
J, K, L = Gaussian("J", b, over=(P, P)), Iid("K", Laplace(c), over=(P, Q)), Gaussian("L", c, over=(P, P))
net = Dynamics({x: -x + (J + L.T - 2*J @ L) @ (tanh(x) + z*a + x*z) + K @ w + Heaviside(z), z: Max(x, z, a) + mean(x*z),
                w: -w + total(w) + K.T @ (x + z)})
print(net.key(), [str(m) for m in net.matrices], str(net), indexed_latex(net))
"""


def test_keys_and_print_agree_between_processes() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


# -- transformations -----------------------------------------------------------------------------------------------
def test_discretise() -> None:
    dt = Symbol("dt", positive=True)
    model = discretise(scs(defaults={s2: 0}).observe(q=mean(x**2)), dt)
    xi = WhiteNoise("xi")
    assert isinstance(model, Map)
    assert (model.eqs[x] - (x - dt * x + dt * (J @ tanh(x)) + sqrt(dt) * sqrt(2 * s2) * xi)).expand() == 0
    assert (model.dt, model.parameters) == (dt, (dt, g, s2))
    assert model.defaults == {s2: 0}
    assert set(model.observables) == {"q"}
    through = discretise(Dynamics({x: -x + J @ xi}), dt)
    assert through.eqs[x] == x - dt * x + sqrt(dt) * (J @ xi)
    with pytest.raises(QuenchedError, match="dt should be positive"):
        discretise(scs(), -1)
    with pytest.raises(QuenchedError, match="got a map"):
        discretise(model, dt)


def test_copies_share_disorder_and_not_noise() -> None:
    u = Quenched("u", Normal(0, 1))
    xi = WhiteNoise("xi")
    net = Dynamics({x: -x + J @ tanh(x) + u + xi})
    two = copies(net, 2)
    assert two.eqs[x[1]] == -x[1] + J @ tanh(x[1]) + u + xi[1]
    assert two.eqs[x[2]] == -x[2] + J @ tanh(x[2]) + u + xi[2]
    two.observe(d=mean((x[1] - x[2]) ** 2))
    noisy = copies(net, 2, share=[J, xi])
    assert noisy.eqs[x[2]] == -x[2] + J @ tanh(x[2]) + u[2] + xi
    fresh = copies(net, 3, share=[u])
    assert [m.name for m in fresh.matrices] == ["J[1]", "J[2]", "J[3]"]
    with pytest.raises(QuenchedError, match="at least 2"):
        copies(net, 1)
    with pytest.raises(QuenchedError, match="cannot share"):
        copies(net, 2, share=[A])
    with pytest.raises(QuenchedError, match="copies already"):
        copies(two, 2)
