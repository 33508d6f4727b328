"""Around the kernels: neural tangent kernel, depth scales, predictions, and networks against all of them."""

from __future__ import annotations

import numpy as np
import pytest
from layer_models import MODELS, VALUES, c, g, g0, network, overlap, phi, sb
from sympy import Max, Rational, exp, pi, tanh

from quenched import NotCovered, Posterior, QuenchedError, catalogue, derive, predict, prediction, simulate, tangent
from quenched import validate as judge
from quenched.design import StaticDesign, design_of
from quenched.theory import Dynamics, Field, Fluctuation, Gaussian, Layers, Normal, Population, Shift, mean

NUMBERS = {s.name: v for s, v in VALUES.items()}
SAMPLES = Population("sample", size=2)


def numbers_of(model: Layers) -> dict[str, float]:
    return {s.name: NUMBERS[s.name] for s in model.parameters}


def slope(u: np.ndarray) -> np.ndarray:
    return np.exp(-np.pi * u**2 / 4)


def tangent_kernel(model: Layers, depth: int) -> np.ndarray:
    """Θ(a+1) = C(a+1) + g²⟨φ'φ'⟩Θ(a), by plain quadrature of the solved kernels."""
    solution = derive(model).solve(**numbers_of(model))
    z, w = np.polynomial.hermite_e.hermegauss(90)
    w = w / w.sum()
    theta = solution.covariance(0)
    for a in range(depth):
        C, D = solution.covariance(a), np.empty((2, 2))
        for i, j in np.ndindex(2, 2):
            rest = np.sqrt(max(C[j, j] - C[i, j] ** 2 / C[i, i], 0.0))
            u, v = np.sqrt(C[i, i]) * z[:, None], C[i, j] / np.sqrt(C[i, i]) * z[:, None] + rest * z[None, :]
            D[i, j] = w @ (slope(u) * slope(v)) @ w
        theta = solution.covariance(a + 1) + 1.6 * D * theta
    return theta


@pytest.mark.parametrize("redraw", ["layer", None])
def test_the_neural_tangent_kernel_comes_from_the_tangent_network(redraw: str | None) -> None:
    model, _ = network(redraw, 2)
    both = derive(tangent(model)).solve(**numbers_of(model))
    assert np.allclose(both.covariance(4, field="d_h"), tangent_kernel(model, 4), rtol=1e-9)
    assert np.allclose(both.covariance(4, field="h"), derive(model).solve(**numbers_of(model)).covariance(4))


def test_every_step_of_a_tangent_network_keeps_its_meaning() -> None:
    from quenched.validate.witness import verify

    ticks = verify(derive(tangent(network("layer", 2, depth=2)[0])).derivation, simulate=False)
    assert [(k.title, k.detail) for k in ticks if k.passed is False] == []


def test_tangent_needs_layers() -> None:
    x = Field("x")
    with pytest.raises(QuenchedError, match="number of steps"):
        tangent(Dynamics({x: -x + Gaussian("J") @ tanh(x)}))


def test_depth_scales_at_the_edge_of_chaos() -> None:
    """tanh without bias: χ = g²⟨φ'²⟩ at q* = 0 is g², one at g = 1; above, inputs separate."""
    h = Field("h", initial=Normal(0, 1))
    from sympy import symbols

    g, s = symbols("g s", nonnegative=True)
    from quenched.theory import Quenched

    theory = derive(Layers({h: Gaussian("W", variance=g**2) @ tanh(h) + Quenched("b", Normal(0, s**2))}, depth=1))
    ordered, chaotic = theory.depth_scales(g=0.9, s=0.3), theory.depth_scales(g=2.0, s=0.1)
    assert ordered.chi_equal < 1
    assert ordered.covariance == ordered.variance
    assert ordered.depth == pytest.approx(-1 / np.log(ordered.chi))
    assert chaotic.chi_equal > 1
    assert chaotic.covariance < chaotic.variance
    assert chaotic.chi < 1
    assert theory.depth_scales(g=0.99, s=0.0).depth > 40


def test_depth_scales_of_relu_in_closed_form() -> None:
    h = Field("h", initial=Normal(0, 1))
    theory = derive(Layers({h: Gaussian("W", variance=Rational(3, 2)) @ Max(h, 0) + h * 0}, depth=1))
    scales = theory.depth_scales()
    assert scales.chi_variance == pytest.approx(0.75, rel=1e-4) or scales.variance == pytest.approx(0, abs=1e-9)
    with pytest.raises(NotCovered, match="depth scales"):
        derive(MODELS["leaky"]()).depth_scales(**numbers_of(MODELS["leaky"]()))


def test_depth_scales_rule_the_approach_of_kernels() -> None:
    model, _ = network("layer", 2, depth=14)
    solution, scales = derive(model).solve(**numbers_of(model)), derive(model).depth_scales(**numbers_of(model))
    gaps = [scales.covariance - solution.covariance(a)[0, 1] for a in (12, 13, 14)]
    assert gaps[2] / gaps[1] == pytest.approx(scales.chi, rel=0.03)


# -- predictions
def test_predictions_condition_a_gaussian() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 7))
    K, y = root @ root.T, rng.normal(size=3)
    found = predict(K, [0, 1, 2], y, 0.1, [3, 4])
    block = np.linalg.inv(K[:3, :3] + 0.1 * np.eye(3))
    assert np.allclose(found.mean, K[3:, :3] @ block @ y)
    assert np.allclose(found.covariance, K[3:, 3:] - K[3:, :3] @ block @ K[:3, 3:])
    law = -0.5 * y @ block @ y + 0.5 * np.linalg.slogdet(block)[1] - 1.5 * np.log(2 * np.pi)
    assert found.log_evidence == pytest.approx(law)
    symbolic, evidence = prediction(K[:4, :4].tolist(), y.tolist(), 0.1)
    assert float(symbolic) == pytest.approx(found.mean[0])
    assert np.log(float(evidence)) == pytest.approx(law + 1.5 * np.log(2 * np.pi))
    with pytest.raises(QuenchedError, match="2 rows"):
        predict(K, [0, 1, 2], y[:2], 0.1, [3])


def conditioned(redraw: str | None) -> Layers:
    """Two training inputs and a test input, its prediction by prior networks weighted by their evidence."""
    X = [
        [1, Rational(3, 10), Rational(6, 10)],
        [Rational(3, 10), 1, Rational(7, 10)],
        [Rational(6, 10), Rational(7, 10), 1],
    ]
    model, h = network(redraw, 3, depth=2, overlaps=X)
    K = [[overlap(h, 2, 2, i, j) for j in (1, 2, 3)] for i in (1, 2, 3)]
    return model.observe(f=Posterior(*prediction(K, [1.0, 0.8], 0.1)))


def test_both_architectures_predict_alike() -> None:
    values = {k: NUMBERS[k] for k in ("g", "g_0", "sigma_b")}
    deep, recurrent = (derive(conditioned(r)).solve(**values) for r in ("layer", None))
    assert deep.quantity("f").value == pytest.approx(recurrent.quantity("f").value, rel=1e-12)
    by_hand = predict(deep.kernel(2), [0, 1], [1.0, 0.8], 0.1, [2])
    assert deep.quantity("f").value == pytest.approx(by_hand.mean[0])


# -- networks
def test_networks_have_the_kernels_and_tangent_kernels() -> None:
    model = tangent(network("layer", 2, depth=2)[0])
    d, h = model.fields[1], model.fields[0]
    model.observe(theta=mean(d[1](2) * d[2](2)), apart=mean(h[1](2) * d[1](2)))
    run = simulate(model, N=80, trials=20, networks=40, store=False, workers=1, **numbers_of(model))
    theory = tangent_kernel(network("layer", 2, depth=2)[0], 2)[0, 1]
    assert abs(run["theta"].mean[0] - theory) < 5 * run["theta"].error[0] + 0.02
    assert abs(run["apart"].mean[0]) < 5 * run["apart"].error[0] + 0.01


def test_the_same_seed_gives_the_same_ensemble() -> None:
    model, h = network(None, 2, depth=2)
    model.observe(Q=overlap(h, 2, 2, 1, 2), V=Fluctuation(overlap(h, 2, 2, 1, 2)), s=Shift(overlap(h, 2, 2, 1, 2)))
    one, two = (
        simulate(model, N=20, trials=3, networks=30, seed=5, store=False, workers=1, **numbers_of(model))
        for _ in range(2)
    )
    assert np.array_equal(one["V"].values, two["V"].values)
    assert "by validate" in one.unmeasured["s"]
    with pytest.raises(QuenchedError, match="at least 2"):
        simulate(model, N=20, trials=3, networks=1, **numbers_of(model))


@pytest.mark.slow
@pytest.mark.parametrize("redraw", ["layer", None])
def test_conditioned_networks_predict_what_the_process_does(redraw: str | None) -> None:
    model = conditioned(redraw)
    report = judge(
        model,
        quick=True,
        ci=True,
        sizes=(40, 80, 160),
        trials=32,
        networks=100,
        store=False,
        workers=1,
        **numbers_of(model),
    )
    assert report.verdict == "agree", repr(report)


@pytest.mark.slow
def test_rms_distance_to_the_limit_falls_as_the_root_of_the_width() -> None:
    for redraw in ("layer", None):
        model, h = network(redraw)
        model.observe(Q=overlap(h, 4, 4), V=Fluctuation(overlap(h, 4, 4)))
        limit = derive(model).solve(**numbers_of(model)).quantity("Q").value
        widths, rms = (20, 40, 80, 160), []
        for N in widths:
            run = simulate(model, N=N, trials=8, networks=250, store=False, workers=1, **numbers_of(model))
            square = run["V"].mean[0] / N + (run["Q"].mean[0] - limit) ** 2
            rms.append(np.sqrt(square))
        assert np.polyfit(np.log(widths), np.log(rms), 1)[0] == pytest.approx(-0.5, abs=0.03)


@pytest.mark.slow
def test_variances_of_networks_that_break_every_symmetry() -> None:
    """Memory of units, a mean coupling, biases with a mean, two samples, against ensembles of networks."""
    model = MODELS["leaky"]()
    (h,) = model.fields
    nodes = {
        "one": mean(phi(h[1](3))),
        "two": mean(phi(h[1](3)) * phi(h[2](3))),
        "layers": mean(h[1](2) * phi(h[2](3))),
    }
    for name, node in nodes.items():
        model.observe(**{f"V_{name}": Fluctuation(node), f"s_{name}": Shift(node)})
    solution = derive(model).solve(**numbers_of(model))
    runs = {
        N: simulate(model, N=N, trials=24, networks=300, store=False, workers=1, **numbers_of(model)) for N in (50, 100)
    }
    for name in nodes:
        rows = [runs[N][f"V_{name}"].values[:, 0] for N in (50, 100)]
        found = 2 * rows[1] - rows[0]
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - solution.quantity(f"V_{name}").value) < 5 * error, name
        limit = solution.main.limit(f"s_{name}").value
        shifts = [N * (runs[N][f"s_{name} (mean)"].values[:, 0] - limit) for N in (50, 100)]
        moved = 2 * shifts[1] - shifts[0]
        error = moved.std(ddof=1) / np.sqrt(len(moved))
        assert abs(moved.mean() - solution.quantity(f"s_{name}").value) < 5 * error, name


@pytest.mark.slow
def test_mean_shifts_are_judged_without_their_limits() -> None:
    """Layers 2 and 4 of a recurrent network: 0.528, four fifths of it by the second term of the tadpole."""
    model = catalogue["wide-networks"]("rnn", shift=True)
    theory = derive(model)
    data = {N: simulate(model, N, trials=24, networks=2200, seed=1, store=False, workers=1) for N in (6, 12, 24, 48)}
    right, wrong = (judge(model, theory=x, data=data) for x in (theory, theory.mutate("second-tadpole-dropped")))
    row = right["shift"]
    assert row.components[0].theory == pytest.approx(0.528, abs=1e-3)
    assert row.independence == "nothing"
    assert row.detectable < 0.4
    assert right.verdict != "disagree", right
    assert wrong.verdict == "disagree", wrong


def test_the_catalogue_declares_all_architectures() -> None:
    for arch in ("dnn", "rnn", "rnn_in"):
        model = catalogue["wide-networks"](arch, phi=lambda u: u * exp(-(u**2) / pi), depth=2)
        solution = derive(model).solve()
        assert np.isfinite(solution.quantity("V").value)
    with pytest.raises(QuenchedError, match="one of dnn, rnn, rnn_in"):
        catalogue["wide-networks"]("cnn")


def test_words_are_options_on_the_command_line() -> None:
    from quenched.parameters import open_model

    model, values = open_model("wide-networks", ["arch=rnn", "depth=2", "shift=true", "g=1.1"])
    assert (model.name, model.steps, list(model.observables)) == ("wide-networks (rnn)", 2, ["shift"])
    assert values == {"g": 1.1}
    with pytest.raises(QuenchedError, match="true or false"):
        open_model("wide-networks", ["shift=maybe"])


def test_second_moments_are_observed_where_nothing_is_declared() -> None:
    model, _ = network("layer", 2, depth=2)
    solution = derive(model).solve(**NUMBERS)
    assert solution.quantity("C_h0").value == pytest.approx(solution.covariance(2)[0, 0])
    run = simulate(model, N=60, trials=8, networks=50, store=False, workers=1, **NUMBERS)
    assert abs(run["C_h0"].mean[0] - solution.quantity("C_h0").value) < 6 * run["C_h0"].error[0]


def test_inputs_over_many_units_gains_by_layer_and_functions_with_parameters() -> None:
    from sympy import Piecewise, symbols

    from quenched.theory import Overlap, Quenched, t, units

    beta = symbols("beta", positive=True)
    x = Quenched("x", Overlap([[1, c], [c, 1]]), over=Population("pixel", fraction=Rational(1, 2)), each=SAMPLES)
    h = Field("h", each=SAMPLES, initial=Gaussian("W_in", variance=2 * g0**2, over=(units, x.population)) @ x)
    gain = Piecewise((1, t < 2), (Rational(3, 2), True))
    model = Layers({h: gain * (Gaussian("W", variance=g**2) @ tanh(beta * h))}, depth=3)
    node = mean(tanh(beta * h[1](3)) * tanh(beta * h[2](3)))
    model.observe(Q=node, V=Fluctuation(node))
    values = {"c": 0.3, "g": 1.2, "g_0": 1.0, "beta": 0.8}
    solution = derive(model).solve(**values)
    run = simulate(model, N=60, trials=20, networks=60, store=False, workers=1, **values)
    for name in ("Q", "V"):
        assert abs(run[name].mean[0] - solution.quantity(name).value) < 5 * run[name].error[0], name


def test_layered_networks_print_plot_and_refuse() -> None:
    theory = derive(network("layer", 2)[0])
    assert "Overlap([[1, c], [c, 1]])" in str(theory.model)
    assert len(theory.solve(**NUMBERS).plot().axes[0].lines) == 2
    with pytest.raises(NotCovered, match="Fluctuation"):
        theory.fluctuations()
    with pytest.raises(NotCovered, match="not built yet"):
        theory.export("nowhere.py")
    assert sb in VALUES


def test_layers_have_networks_of_their_own_and_no_way_from_a_start() -> None:
    """A layer is named like a time, but what is observed there is no transient of a flow."""
    model = catalogue["wide-networks"]()
    values = model.values({})
    design = design_of(model, values, derive(model).solve(), True, {})
    assert isinstance(design, StaticDesign)
    assert max(design.sizes) <= 160
    assert "networks" in design.how
