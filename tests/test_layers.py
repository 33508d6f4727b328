"""Networks of finitely many layers: their declaration, kernels, and the order 1/N."""

from __future__ import annotations

import numpy as np
import pytest
from layer_models import MODELS, VALUES, c, g, g0, leaky, network, overlap, phi, residual, sb
from sympy import Max, exp, sin, tanh

from quenched import Map, NotCovered, QuenchedError, derive
from quenched.theory import Field, Fluctuation, Gaussian, Layers, Normal, Overlap, Population, Quenched, Shift, mean, t
from quenched.theory.layered_blocks import LayerBlocks

NUMBERS = {s.name: v for s, v in VALUES.items()}


def solve(model: Layers, **changed: float) -> object:
    names = [s.name for s in model.parameters]
    return derive(model).solve(**{k: v for k, v in (NUMBERS | changed).items() if k in names})


# -- declaration
def test_a_map_with_steps_is_layers() -> None:
    h = Field("h", initial=Normal(0, 1))
    one, two = Map({h: Gaussian("W") @ tanh(h)}, steps=3), Layers({h: Gaussian("W") @ tanh(h)}, depth=3)
    assert isinstance(one, Layers)
    assert one == two
    assert one != Layers({h: Gaussian("W") @ tanh(h)}, depth=4)


def test_the_depth_survives_fixing_and_pickling() -> None:
    import pickle

    model, _ = network(None, 2, depth=3)
    assert model.fix(g=1).steps == 3
    assert pickle.loads(pickle.dumps(model)) == model
    table = Layers(network("layer", 3, overlaps=np.eye(3))[0].eqs, 2)
    assert pickle.loads(pickle.dumps(table)) == table


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layers({Field("h"): Gaussian("W") @ Field("h")}, depth=2), "has no start"),
        (lambda: Layers({Field("h", initial=0): Field("h", initial=0)}, depth=0), "positive whole number"),
        (lambda: Map({Field("h", each=Population("s", size=2)): 0}), "outside of Layers"),
        (lambda: Overlap([[1, 2], [3, 1]]), "symmetric"),
        (lambda: network("layer", 3, overlaps=[[1, c], [c, 1]]), "overlaps of 2 samples"),
    ],
)
def test_bad_declarations_are_refused(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(QuenchedError, match=message):
        make()


def test_overlaps_that_are_none_are_refused() -> None:
    model, h = network("layer", 2)
    model.observe(Q=overlap(h, 4, 4, 1, 2))
    with pytest.raises(QuenchedError, match="negative eigenvalue"):
        solve(model, c=1.5)


def test_layers_and_samples_that_there_are_none_of_are_refused() -> None:
    model, h = network("layer", 2)
    model.observe(deep=overlap(h, 5, 5, 1, 1), third=overlap(h, 1, 1, 3, 1), which=mean(phi(h(1)) ** 2))
    solution = solve(model)
    for name, message in (("deep", "no layer"), ("third", "sample 3"), ("which", "2 samples")):
        with pytest.raises(QuenchedError, match=message):
            solution.quantity(name)


# -- kernels
REFERENCE = {(0, 0): 0.453294, (2, 2): 0.386549, (4, 4): 0.377990}


@pytest.mark.parametrize("redraw", ["layer", None])
def test_reference_kernels(redraw: str | None) -> None:
    solution = solve(network(redraw)[0])
    for (a, b), value in REFERENCE.items():
        assert solution.kernel(a, b)[0, 0] == pytest.approx(value, abs=1e-6)
    apart = {(3, 4): 0.220679, (2, 4): 0.185498}
    for (a, b), value in apart.items():
        assert solution.kernel(a, b)[0, 0] == pytest.approx(value if redraw is None else 0.0, abs=1e-6)


def test_reference_kernel_of_two_inputs() -> None:
    for redraw in ("layer", None):
        assert solve(network(redraw, 2, depth=3)[0]).kernel(3)[0, 1] == pytest.approx(0.253465, abs=1e-6)


def test_the_start_and_a_layer_share_the_bias_only() -> None:
    assert solve(network(None)[0]).covariance(0, 3)[0, 0] == pytest.approx(0.2, abs=1e-12)


def test_relu_and_linear_kernels_in_closed_form() -> None:
    relu = solve(network("layer", 2, phi=lambda u: Max(u, 0))[0])
    assert relu.kernel(3)[0, 0] == pytest.approx(relu.covariance(3)[0, 0] / 2, rel=1e-12)
    linear = solve(network("layer", 2, phi=lambda u: u)[0])
    expected = np.array([[1.0, 0.3], [0.3, 1.0]]) + 0.2
    for _ in range(4):
        expected = 1.6 * expected + 0.2
    assert np.allclose(linear.kernel(4), expected)


@pytest.mark.parametrize(
    "f", [lambda u: u * exp(-(u**2)), lambda u: sin(2 * u) + u / 3 + u**2 / 9, lambda u: Max(u, 0) + tanh(u) / 2]
)
def test_functions_without_closed_form_by_quadrature(f) -> None:  # type: ignore[no-untyped-def]
    from sympy import Symbol, lambdify

    solution = solve(network("layer", 2, depth=1, phi=f)[0])
    u = Symbol("u", real=True)
    number = lambdify(u, f(u), modules=[{"amax": lambda x, axis: np.maximum(*x)}, "numpy"])
    z, w = np.polynomial.hermite_e.hermegauss(180)
    w = w / w.sum()
    cov = np.array([[1.2, 0.5], [0.5, 1.2]])
    root = np.linalg.cholesky(cov)
    left, right = root[0, 0] * z[:, None] + 0 * z, root[1, 0] * z[:, None] + root[1, 1] * z[None, :]
    relu = np.maximum(left, 0) if "Max" in str(f(u)) else None
    values = [number(v) if relu is None else np.maximum(v, 0) + np.tanh(v) / 2 for v in (left, right)]
    assert solution.kernel(0)[0, 1] == pytest.approx(
        w @ (values[0] * values[1]) @ w, rel=1e-6 if relu is None else 1e-3
    )


def test_many_inputs_agree_with_few() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 40))
    X = x @ x.T / 40
    for f in (phi, tanh):
        many = solve(network("layer", 30, phi=f, overlaps=X, depth=2)[0])
        few = solve(network("layer", 3, phi=f, overlaps=X[:3, :3], depth=2)[0])
        assert np.allclose(many.kernel(2)[:3, :3], few.kernel(2), rtol=1e-8)


def test_a_curve_over_layers() -> None:
    model, h = network("layer")
    model.observe(C=mean(h**2), Q=mean(phi(h(t)) ** 2))
    quantity = solve(model).quantity("Q")
    assert quantity.axis == "layer"
    assert quantity.value[[0, 2, 4]] == pytest.approx(list(REFERENCE.values()), abs=1e-6)


def test_gains_that_depend_on_depth() -> None:
    h = Field("h", initial=Normal(0, 1))
    gains = [1 + a / 4 for a in range(3)]
    model = Layers({h: (1 + t / 4) * (Gaussian("W", variance=g**2, redraw="layer") @ h)}, depth=3)
    expected = float(np.prod([x**2 * 0.49 for x in gains]))
    assert derive(model).solve(g=0.7).covariance(3)[0, 0] == pytest.approx(expected)


# -- what the derivation says about shared and redrawn disorder
def blocks(model: Layers) -> LayerBlocks:
    found = derive(model).derivation.find(LayerBlocks)
    assert found is not None
    return found


def test_single_layer_readouts_of_deep_and_recurrent_networks_coincide() -> None:
    deep, recurrent = blocks(network("layer")[0]), blocks(network(None)[0])
    assert deep.alone
    assert recurrent.alone
    assert deep.separate == (("h", "h"),)
    assert recurrent.separate == ()
    one, two = (solve(network(redraw, 2)[0]) for redraw in ("layer", None))
    assert all(np.array_equal(one.kernel(a), two.kernel(a)) for a in range(5))


def test_units_with_memory_tell_shared_from_redrawn() -> None:
    assert not blocks(leaky()).alone
    told = " ".join(line.comment for line in blocks(leaky()).lines())
    assert "differ" in told
    assert blocks(residual()).separate == ()


@pytest.mark.parametrize("name", MODELS)
def test_every_step_keeps_its_meaning_and_its_mutants_are_caught(name: str) -> None:
    from quenched.validate.witness import survey_mutants, verify

    derivation = derive(MODELS[name]()).derivation
    ticks = {k.title: k for k in verify(derivation, simulate=False)}
    assert [(k.title, k.detail) for k in ticks.values() if k.passed is False] == []
    compared = [m for m in survey_mutants(derivation) if ticks[m.step].passed]
    assert len({m.step for m in compared}) >= 9
    assert [(m.step, m.label) for m in compared if not m.caught] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_networks_follow_the_kernels(name: str) -> None:
    from quenched.validate.witness import verify

    last = verify(derive(MODELS[name]()).derivation)[-1]
    assert last.title == "All steps up to the kernels"
    assert last.passed, last.detail


def test_what_layers_do_not_cover_says_so() -> None:
    h = Field("h", initial=Normal(0, 1))
    symmetric = Layers({h: Gaussian("W", symmetry=1) @ tanh(h)}, depth=3)
    with pytest.raises(NotCovered, match="remembers its own past"):
        derive(symmetric).solve()
    x = Quenched("x", Overlap(1), over=Population("pixel", size=2))
    W_in = Gaussian("W_in", over=(h.population, x.population))
    squared = Field("h", initial=W_in @ x**2)
    with pytest.raises(NotCovered, match="only overlaps are known"):
        derive(Layers({squared: Gaussian("W") @ tanh(squared)}, depth=2)).solve()


# -- the order 1/N
FIRST_ORDER = [
    ("layer", (0, 0), 0.1187, 0.0),
    ("layer", (2, 2), 0.1193, -0.050),
    ("layer", (4, 4), 0.1181, -0.062),
    ("layer", (3, 4), 0.1438, 0.0),
    (None, (2, 2), 0.1274, -0.025),
    (None, (4, 4), 0.1495, 0.011),
    (None, (3, 4), 0.3739, -0.067),
    (None, (2, 4), 0.2986, 0.528),
]


@pytest.mark.parametrize("redraw", ["layer", None])
def test_reference_fluctuations_and_shifts(redraw: str | None) -> None:
    model, h = network(redraw)
    rows = [row for row in FIRST_ORDER if row[0] == redraw]
    for _, (a, b), _, _ in rows:
        node = overlap(h, a, b)
        model.observe(**{f"V{a}{b}": Fluctuation(node), f"s{a}{b}": Shift(node)})
    solution = solve(model)
    for _, (a, b), variance, shift in rows:
        assert solution.quantity(f"V{a}{b}").value == pytest.approx(variance, rel=0.002)
        assert solution.quantity(f"s{a}{b}").value == pytest.approx(shift, abs=0.001)


def test_without_bias_both_fluctuate_alike() -> None:
    for redraw in ("layer", None):
        model, h = network(redraw, bias=0)
        model.observe(Q=overlap(h, 4, 4), V=Fluctuation(overlap(h, 4, 4)), s=Shift(overlap(h, 4, 4)))
        solution = solve(model)
        assert solution.quantity("Q").value == pytest.approx(0.274942, abs=1e-6)
        assert solution.quantity("V").value == pytest.approx(0.1096, abs=1e-4)
        assert solution.quantity("s").value == pytest.approx(-0.159, abs=1e-3)


def test_reference_fluctuations_of_two_inputs() -> None:
    for redraw, variance in (("layer", 0.2196), (None, 0.2807)):
        model, h = network(redraw, 2, depth=3)
        model.observe(V=Fluctuation(overlap(h, 3, 3, 1, 2)))
        assert solve(model).quantity("V").value == pytest.approx(variance, rel=0.003)


def test_one_layer_of_a_linear_network_exactly() -> None:
    """h(1)² averaged over N units is a product of two χ² variables: N·Var and N·bias by hand."""
    h = Field("h", initial=Normal(0, 1))
    model = Layers({h: Gaussian("W", variance=g**2) @ h}, depth=1)
    model.observe(V0=Fluctuation(mean(h(0) ** 2)), V=Fluctuation(mean(h(1) ** 2)), s=Shift(mean(h(1) ** 2) ** 2))
    solution = derive(model).solve(g=1.3)
    q = 1.3**2
    assert solution.quantity("V0").value == pytest.approx(2.0)
    assert solution.quantity("V").value == pytest.approx(4 * q**2)
    assert solution.quantity("s").value == pytest.approx(4 * q**2)  # E x² − (E x)² of x = q(0)·… at order 1/N


def test_relu_networks_have_the_known_variance() -> None:
    """⟨φ²⟩ of one ReLU layer: Var(φ²) = C²(3/2 − 1/4); each further layer adds (g²/2)² of the former."""
    model, h = network("layer", phi=lambda u: Max(u, 0), bias=0, depth=2)
    node = overlap(h, 2, 2, phi=lambda u: Max(u, 0))
    model.observe(V=Fluctuation(node))
    solution = solve(model, g=1.3)
    half, C = 1.3**2 / 2, [1.0]
    for _ in range(2):
        C.append(half * C[-1])
    expected = 0.0
    for a in range(3):
        expected = half**2 * expected + 1.25 * C[a] ** 2
    assert solution.quantity("V").value == pytest.approx(expected, rel=2e-3)
    assert {g, g0, sb} <= set(VALUES)


# -- the derivation of the order 1/N
def test_the_weights_of_the_order_one_over_n_are_derived() -> None:
    from sympy import Rational

    from quenched.theory.expansion import eliminated

    assert eliminated() == (Rational(1, 2), 1, 1)


def test_the_order_one_over_n_is_refused_where_more_contributes() -> None:
    from quenched.theory import Iid, Ising

    h = Field("h", initial=Normal(0, 1))
    model = Layers({h: Iid("W", Ising()) @ tanh(h)}, depth=2)
    model.observe(Q=mean(tanh(h(2)) ** 2), V=Fluctuation(mean(tanh(h(2)) ** 2)))
    solution = derive(model).solve()
    assert 0 < solution.quantity("Q").value < 1
    with pytest.raises(NotCovered, match="fourth cumulants"):
        solution.quantity("V")


@pytest.mark.parametrize(
    ("name", "observable"),
    [
        ("redraw-mixed", "Q_layers"),
        ("pairs-twice", "V_layers"),
        ("second-tadpole-dropped", "s_layers"),
        ("variance-tenth", "Q"),
    ],
)
def test_named_mutants_change_what_they_should(name: str, observable: str) -> None:
    model, h = network(None)
    node = overlap(h, 2, 4)
    model.observe(Q=overlap(h, 4, 4), Q_layers=node, V_layers=Fluctuation(node), s_layers=Shift(node))
    theory = derive(model)
    right, wrong = (t.solve(g=1.6**0.5, g_0=1, sigma_b=0.2**0.5) for t in (theory, theory.mutate(name)))
    before, after = right.quantity(observable).value, wrong.quantity(observable).value
    assert abs(after - before) > 0.05 * abs(before)
    assert wrong.provenance["mutant"].startswith(name)
