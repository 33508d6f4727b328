"""Samples of Gibbs measures against sums over all states, linear algebra, combinatorics, and each other."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from sympy import Abs, Heaviside, Rational, exp, log, symbols

from quenched import (
    Bernoulli,
    Box,
    Capacity,
    Entropy,
    Field,
    FreeEntropy,
    Gaussian,
    Gibbs,
    HalfNormal,
    Iid,
    Ising,
    Laplace,
    Margin,
    N,
    Normal,
    NotCovered,
    Population,
    Positive,
    Quenched,
    QuenchedError,
    Spherical,
    SpikeSlab,
    Uniform,
    derive,
    mean,
    simulate,
    total,
    units,
    validate,
)
from quenched.theory.couplings import Apply
from quenched.theory.distributions import Law
from quenched.validate.estimators import doubt
from quenched.validate.gibbs_estimators import equilibrium_estimator
from quenched.validate.gibbs_starts import inside
from quenched.validate.gibbs_symmetry import mirrored
from quenched.validate.gibbs_system import Chain, draw_prior, every_state
from quenched.validate.simulate_gibbs import GibbsExperiment, prepare
from quenched.validate.spins import Instance

alpha, beta = symbols("alpha beta", positive=True)
h, kappa = symbols("h kappa", real=True)
s = Field("s")
J = Gaussian("J", variance=1, symmetry=1)
patterns = Population("pattern", fraction=alpha)
xi = Iid("xi", Ising(), over=(patterns, units))
y = Quenched("y", Ising(), over=patterns)
field = Quenched("b", Normal(0, 1))
teacher = Quenched("t", Ising())
y_spike = Quenched("t_2", Ising())
E, I = Population("E", Rational(1, 2)), Population("I", Rational(1, 2))
a, b = Field("a", E), Field("b", I)
POINT = {"alpha": 0.5, "beta": 0.7, "h": 0.3, "kappa": 0.1}

MODELS = {
    "pairs": Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2 - h * total(field * s), beta=beta),
    "chain": Gibbs({s: Ising()}, energy=-total(s * (xi.T @ (xi @ s))) / 2 - N * mean(teacher * s) ** 2, beta=beta),
    "window": Gibbs(
        {s: Ising()},
        energy=-total(s * (xi.T @ (Gaussian("X", symmetry=1, over=(patterns, patterns)) @ (xi @ s)))) / 2,
        beta=beta,
    ),
    "margins": Gibbs({s: Ising()}, weight=exp(-beta * Heaviside(kappa - y * (xi @ s)))),
    "noisy labels": Gibbs({s: Ising()}, weight=beta / 4 + Heaviside((xi @ s) * (xi @ teacher) - kappa)),
    "three values": Gibbs(
        {s: SpikeSlab(Rational(1, 3), Ising())}, weight=exp(-beta * Abs(xi @ s - y)), energy=h * total(s**2)
    ),
    "means": Gibbs({s: Bernoulli(Rational(1, 3))}, energy=N * log(1 + mean(s) ** 2) + total(s * (J @ s)), beta=beta),
    "two populations": Gibbs(
        {a: Ising(), b: Bernoulli(Rational(1, 2))},
        energy=-total(a * (Gaussian("K", over=(E, I)) @ b)) - h * total(b) - N * mean(a) * mean(b),
        beta=beta,
    ),
}


def experiment(model: Gibbs, size: int, seed: int = 0, **settings: object) -> GibbsExperiment:
    point = {p.name: POINT[p.name] for p in model.parameters}
    found = prepare(model, size, seed, point, **settings).task  # type: ignore[arg-type]
    assert isinstance(found, GibbsExperiment)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_program_is_the_declared_exponent(name: str) -> None:
    """All states in Gray order, against the declaration evaluated as it stands on each of them."""
    model, size = MODELS[name], 6
    system = experiment(model, size).system()
    direct = Instance(model, size, **{p.name: POINT[p.name] for p in model.parameters})
    direct.matrices = dict(zip(direct.matrices, system.matrices, strict=True))
    direct.labels = dict(zip(model.quenched, system.labels, strict=True))
    seen: list[np.ndarray] = []
    worst = []

    def visit(exponents: np.ndarray, states: np.ndarray) -> None:
        cut = {f: states[:, c] for f, c in zip(model.fields, system.slices, strict=True)}
        prior = sum(_log_prior(model, f, x) for f, x in cut.items())
        worst.append(np.max(np.abs(direct.log_weight(cut) + prior - exponents)))
        seen.append(states)

    every_state(Chain(system), visit, 10**5, chunk=50)
    states = np.concatenate(seen)
    assert max(worst) < 1e-10
    assert len(np.unique(states, axis=0)) == len(states) == np.prod([3.0 if name == "three values" else 2.0] * 6)


def _log_prior(model: Gibbs, f: Field, x: np.ndarray) -> np.ndarray:
    table = {float(v): float(np.log(float(p))) for v, p in model.priors[f].weights()}
    return np.vectorize(table.__getitem__)(x).sum(1)


@pytest.mark.parametrize("name", ["pairs", "three values", "means", "two populations", "chain"])
def test_monte_carlo_agrees_with_all_states(name: str) -> None:
    """The same disorder by both routes."""
    state = MODELS[name].fields[0]
    model = Gibbs(MODELS[name].priors, MODELS[name].energy, MODELS[name].weights, MODELS[name].beta)
    model.observe(m=mean(state), q=mean(state[1] * state[2]), v=mean(state**2) * mean(state))
    exact = experiment(model, 8, route="enumerate")
    sampled = experiment(model, 8, route="monte carlo", sweeps=6000)
    for k in range(2):
        left, right = exact.number(k).realise(), sampled.number(k).realise()
        for observable in model.observables:
            assert left[observable] == pytest.approx(right[observable], abs=0.03), (k, observable)


def test_monte_carlo_of_densities_agrees_with_linear_algebra() -> None:
    """A Gaussian posterior by Metropolis moves and by its quadratic form; copies are independent."""
    model = Gibbs({s: Normal(0.2, 1.5)}, weight=exp(-beta * (y - xi @ s) ** 2 / 2), energy=h * total(s * (J @ s)) / 9)
    model.observe(m=mean(s), q=mean(s[1] * s[2]), v=mean(s**2), e=mean((y - xi @ s) ** 2), f=FreeEntropy())
    exact = experiment(model, 12).realise()
    sampled = experiment(model, 12, route="monte carlo", sweeps=25000, burn=2000).realise()
    for name in ("m", "q", "v", "e"):
        assert exact[name] == pytest.approx(sampled[name], abs=0.03), name
    assert "f" not in sampled


def test_free_entropy_of_a_gaussian_measure() -> None:
    """ln Z of two units by quadrature."""
    model = Gibbs({s: Normal(0.2, 1.5)}, weight=exp(-beta * (y - xi @ s) ** 2 / 2)).observe(f=FreeEntropy())
    exp_ = experiment(model, 2)
    system = exp_.system()
    x, w = np.polynomial.hermite_e.hermegauss(60)
    u, v = np.meshgrid(0.2 + np.sqrt(1.5) * x, 0.2 + np.sqrt(1.5) * x)
    states = np.stack([u.ravel(), v.ravel()], 1)
    exponent = -0.7 * ((system.labels[0] - states @ system.matrices[0].T) ** 2).sum(1) / 2
    direct = np.log(np.outer(w, w).ravel() @ np.exp(exponent) / (2 * np.pi))
    assert exp_.realise()["f"] == pytest.approx(direct / 2, abs=1e-9)


@pytest.mark.parametrize(
    ("prior", "moments"),
    [(Uniform(-1, 3), (1.0, 7 / 3)), (SpikeSlab(0.3, Normal(1, 1)), (0.3, 0.6)), (Normal(1, 2), (1.0, 3.0))],
)
def test_priors_are_left_invariant(prior, moments) -> None:  # type: ignore[no-untyped-def]
    """A weight that is nearly constant: moments of the prior."""
    model = Gibbs({s: prior}, weight=exp(-(10**-9) * Abs(xi @ s))).observe(m=mean(s), v=mean(s**2))
    run = simulate(model, 100, trials=4, route="monte carlo", sweeps=1500, alpha=0.05, store=False, workers=1)
    assert [float(run["m"].mean[0]), float(run["v"].mean[0])] == pytest.approx(moments, abs=0.05)


def test_sphere_keeps_its_norm() -> None:
    model = Gibbs({s: Spherical()}, energy=-total(s * (J @ s)) / 2, beta=beta).observe(
        v=mean(s**2), u=mean(s * (J @ s))
    )
    run = simulate(model, 64, trials=6, beta=0.5, sweeps=800, store=False, workers=1)
    assert run["v"].values == pytest.approx(1, abs=1e-10)
    assert float(run["u"].mean[0]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("form", "rank"), [("chain", 16), ("window", 16), ("one-sided window", 31)])
def test_low_rank_and_pairs_are_the_same_measure(monkeypatch: pytest.MonkeyPatch, form: str, rank: int) -> None:
    """Patterns that see each other equally in both directions take one column each."""
    between = Gaussian("X", symmetry=0 if form == "one-sided window" else 1, over=(patterns, patterns))
    inner = xi @ s if form == "chain" else between @ (xi @ s)
    energy = -total(s * (xi.T @ inner)) / 2 - N * mean(teacher * s) ** 2
    model = Gibbs({s: Ising()}, energy=energy, beta=beta).observe(m=mean(s * teacher))
    pairs = experiment(model, 30, route="monte carlo").realise()
    monkeypatch.setattr("quenched.validate.gibbs_system.MOST_PAIRS", 10)
    thin = experiment(model, 30, route="monte carlo")
    assert Chain(thin.system()).low.shape == (30, rank)
    assert thin.realise()["m"] == pytest.approx(pairs["m"], abs=1e-9)


def test_frozen_runs_are_noticed() -> None:
    """Two replicas at a low temperature, with no time to meet: their overlaps differ; tempering helps."""
    model = Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2, beta=beta).observe(q=mean(s[1] * s[2]))
    cold = simulate(model, 60, trials=12, beta=3, sweeps=40, burn=20, store=False, workers=1)
    assert max(doubt(cold[n].estimator, cold[n].values, 60)[0] for n in ("equilibration", "sign")) > 5
    warm = simulate(model, 30, trials=12, beta=1.5, sweeps=800, temperatures=4, store=False, workers=1)
    assert max(doubt(warm[n].estimator, warm[n].values, 30)[0] for n in ("equilibration", "sign")) < 5
    model = Gibbs(model.priors, energy=model.energy - total(field * s) / 9, beta=beta).observe(q=mean(s[1] * s[2]))
    tilted = simulate(model, 60, trials=12, beta=3, sweeps=40, burn=20, store=False, workers=1)["equilibration"]
    assert doubt(tilted.estimator, tilted.values, 60)[0] > 5


def positive(law: Law) -> Gibbs:
    weight = Heaviside(y * (Iid("xi", Normal(0, 1), over=(patterns, units)) @ s) - kappa)
    return Gibbs({s: law}, weight=weight).observe(Q=mean(s**2), m=mean(s), q=mean(s[1] * s[2]))


def test_a_cone_leaves_the_length_of_a_normal_state_alone() -> None:
    """|w|² of a Gaussian law is independent of the direction: constraints without a margin do not change it."""
    how = {"params": {"alpha": 0.3, "kappa": 0}, "sweeps": 200, "burn": 100, "store": False, "workers": 1}
    run = simulate(positive(Positive(Normal(0, 1))), 50, trials=12, seed=3, **how)
    assert float(run["Q"].mean[0]) == pytest.approx(1, abs=4 * float(run["Q"].error[0]))
    assert float(run["Q"].error[0]) < 0.015
    assert run.doubts() == ()


@pytest.mark.parametrize("law", [Positive(Normal(0, 1)), HalfNormal()])
def test_hard_constraints_agree_with_rejection(law: Law) -> None:
    """Draws from the prior that meet the constraints of one realisation, and the chain."""
    task = experiment(positive(law), 5, route="monte carlo", sweeps=20000)
    system = task.system()
    x = draw_prior(np.random.default_rng(0), 5 * 400000, task.laws[0]).reshape(-1, 5)
    x = x[np.all(system.labels[0] * (x @ system.matrices[0].T) > POINT["kappa"], axis=1)]
    assert len(x) > 2000
    found = task.realise()
    exact = {"Q": np.mean(x**2), "m": np.mean(x), "q": np.mean(x.mean(0) ** 2)}
    for name, value in exact.items():
        assert found[name] == pytest.approx(value, abs=0.03), name


def test_chains_with_nothing_but_constraints_are_judged_by_what_is_observed() -> None:
    """No energy, but hardly a sweep: replicas that started at another scale have not come back."""
    how = {"params": {"alpha": 0.3, "kappa": 0}, "sweeps": 20, "burn": 0, "store": False, "workers": 1}
    run = simulate(positive(Positive(Normal(0, 1))), 100, trials=16, seed=1, **how)
    assert "not in equilibrium" in repr(run)


SPIKES = Gibbs(
    {s: Ising()}, energy=-total(s * (J @ s)) / 2 - N * mean(teacher * s) ** 2 - N * mean(y_spike * s) ** 2, beta=beta
).observe(m=mean(teacher * s), q=mean(s[1] * s[2]))


def test_restricted_laws_are_laws_of_labels_too() -> None:
    """A teacher of positive weights: moments of the half line, from the declaration and from draws."""
    label = Quenched("p", Positive(Normal(0, 4)))
    model = Gibbs({s: Ising()}, energy=-h * total(s * label)).observe(
        m=mean(label), v=mean(label**2), e=mean(s * label)
    )
    run = simulate(model, 400, trials=20, h=0.1, store=False, workers=1)
    solution = derive(model).solve(h=0.1)
    for name, exact in (("m", np.sqrt(8 / np.pi)), ("v", 4.0)):
        assert float(run[name].mean[0]) == pytest.approx(exact, abs=4 * float(run[name].error[0]))
    assert float(run["e"].mean[0]) == pytest.approx(float(solution["e"]), abs=4 * float(run["e"].error[0]))
    with pytest.raises(QuenchedError, match="prior only"):
        Positive(Spherical()).mean_()
    assert (Box(-1, 3).mean_(), Positive(Laplace(2)).variance_()) == (1, 4)


def test_states_that_keep_a_sign_of_their_own_are_told() -> None:
    """Two directions and no start: averages are over both signs, which is no lack of sweeps; a field chooses one."""
    how = {"trials": 12, "sweeps": 60, "burn": 40, "seed": 1, "store": False, "workers": 1}
    (text,) = simulate(SPIKES, 80, beta=1.5, **how).doubts()
    assert "declare which" in text
    assert simulate(SPIKES, 80, beta=0.2, **how).doubts() == ()
    tilted = Gibbs(SPIKES.priors, energy=SPIKES.energy - h * total(teacher * s), beta=beta).observe(
        **SPIKES.observables
    )
    assert simulate(tilted, 80, beta=1.5, h=0.5, **how).doubts() == ()
    found = validate(SPIKES, beta=1.5, sizes=(8, 10, 12), trials=12, quick=True, store=False, workers=1)
    assert found.verdict == "inconclusive"
    assert "m vanishes in every realisation by a symmetry" in found.reason


@pytest.mark.parametrize("shift", [0, 1])
def test_a_change_of_sign_of_some_fields_is_a_symmetry(shift: int) -> None:
    """One population without a field of its own couples to another: nothing changes where both change sign."""
    weight = -total(a * (Gaussian("K", over=(E, I)) @ b)) - shift * h * total(b)
    task = experiment(Gibbs({a: Ising(), b: Ising()}, energy=weight, beta=beta).observe(m=mean(a)), 12)
    chain = Chain(task.system())
    assert mirrored(chain, chain.system.starting_state(np.random.default_rng(0), task.laws)) is (shift == 0)


@pytest.mark.parametrize("name", ["pairs", "means", "margins"])
def test_no_symmetry_is_seen_where_there_is_none(name: str) -> None:
    task = experiment(MODELS[name].observe(m=mean(s)), 12)
    chain = Chain(task.system())
    assert not mirrored(chain, chain.system.starting_state(np.random.default_rng(0), task.laws))


def test_a_programme_finds_states_that_a_search_does_not() -> None:
    """A corner between constraints and bounds."""
    task = experiment(positive(Positive(Normal(0, 1))), 30, route="monte carlo")
    system = replace(task, parameters=(0.7, 0.0, 30.0), sizes=task.sizes | {"pattern": 21}).system()
    rng = np.random.default_rng(0)
    state = Chain(system).state(system.starting_state(rng, task.laws))
    assert not np.isfinite(state.exponent)
    assert inside(state, rng, task.laws)
    assert np.all(system.labels[0] * (system.matrices[0] @ state.x) > 0)
    assert np.all(state.x >= 0)


# -- convex programmes -----------------------------------------------------------------------------------------------
def gardner(**observables: object) -> Gibbs:
    weight = Heaviside(y * (Iid("xi", Normal(0, 1), over=(patterns, units)) @ s) - kappa)
    return Gibbs({s: Spherical()}, weight=weight, defaults={alpha: 1, kappa: 0}).observe(**observables)


def test_a_start_without_weight_is_left_by_a_search() -> None:
    """Random labels that a declared state does not meet: chains do not stay frozen there."""
    w = Field("w", initial=teacher)
    model = Gibbs({w: Spherical()}, weight=Heaviside(y * (Iid("xi", Normal(0, 1), over=(patterns, units)) @ w) - kappa))
    how = {"params": {"alpha": 0.5, "kappa": 0}, "sweeps": 60, "store": False, "workers": 1}
    run = simulate(model.observe(m=mean(w * teacher)), 40, trials=4, seed=1, **how)
    assert np.all(np.abs(run["m"].values) < 0.9)
    assert np.all(np.isfinite(run["equilibration"].values))


def test_what_is_no_number_is_in_doubt() -> None:
    """Diagnostics that are not finite never pass, and a run says so."""
    check = equilibrium_estimator()
    assert doubt(check, np.zeros((4, 3)), 10) == (0.0, "")
    assert doubt(check, np.array([[0.0], [np.nan]]), 10)[0] == np.inf
    s = Field("s")
    cold = Gibbs({s: Ising()}, energy=-total(s * (J @ s)) / 2, beta=beta).observe(q=mean(s[1] * s[2]))
    how = {"route": "monte carlo", "sweeps": 40, "burn": 10, "store": False, "workers": 1}
    run = simulate(cold, 60, trials=16, seed=1, beta=4, **how)
    assert "not in equilibrium" in repr(run)
    assert "dt=" not in repr(run)


def test_margins_of_weights_of_one_sign() -> None:
    """Capacities are half of those of all weights on the sphere, and samples keep the signs."""
    alpha, kappa = symbols("alpha", positive=True), symbols("kappa", real=True)
    w, patterns = Field("w"), Population("pattern", fraction=alpha)
    x, y = Iid("x", Normal(0, 1), over=(patterns, units)), Quenched("y", Ising(), over=patterns)
    model = Gibbs({w: Positive(Spherical())}, weight=Heaviside(y * (x @ w) - kappa))
    theory = derive(model)
    for margin in (0.3, 1.034314):
        free = (1 + margin**2) * ndtr(margin) + margin * np.exp(-(margin**2) / 2) / np.sqrt(2 * np.pi)
        found = theory.capacity("alpha", bracket=(0.1, 1.5), kappa=margin)
        assert found.value == pytest.approx(1 / free / 2, abs=1e-5)
    model.observe(margin=Margin(kappa), alpha_c=Capacity(alpha))
    run = simulate(model, 80, trials=60, seed=4, params={"alpha": 0.25, "kappa": 0}, workers=1, store=False)
    for name, value in (("margin", 1.034314), ("alpha_c", 1.0)):
        sample = run[name]
        assert float(sample.mean[0]) == pytest.approx(value, abs=3 * float(sample.error[0]) + 1 / 80), name
    bounded = Gibbs({w: Box(Spherical(), -2, 2)}, weight=Heaviside(y * (x @ w) - kappa)).observe(margin=Margin(kappa))
    with pytest.raises(QuenchedError, match="bound at zero"):
        simulate(bounded, 20, trials=2, params={"alpha": 0.25, "kappa": 0}, workers=1, store=False)


def test_separable_dichotomies_as_cover_counts_them() -> None:
    """Patterns are separable up to the N-th head of a fair coin: 2N in the mean, variance 2N, at any N."""
    values = simulate(gardner(c=Capacity(alpha)), 12, trials=400, store=False, workers=1)["c"].values[:, 0]
    assert values.mean() == pytest.approx(2, abs=4 * np.sqrt(2 / 12 / 400))
    assert values.var() == pytest.approx(2 / 12, rel=0.3)


def test_margin_is_the_best_one() -> None:
    """No random state does better, and the support is met with equality."""
    found = experiment(gardner(k=Margin(kappa)), 20)
    best = found.realise()["k"][0]
    system = found.system()
    fields = system.labels[0] * (np.random.default_rng(0).standard_normal((2000, 20)) @ system.matrices[0].T)
    assert best > 0
    assert np.max(fields.min(1)) < best


def test_margin_with_offsets_reduces_to_the_cone() -> None:
    shifted = Gibbs({s: Spherical()}, weight=Heaviside(y * (xi @ s) - kappa - 0.1), defaults={alpha: 1, kappa: 0})
    plain = Gibbs({s: Spherical()}, weight=Heaviside(y * (xi @ s) - kappa), defaults={alpha: 1, kappa: 0})
    left = simulate(shifted.observe(k=Margin(kappa)), 20, trials=3, store=False, workers=1)["k"].values
    right = simulate(plain.observe(k=Margin(kappa)), 20, trials=3, store=False, workers=1)["k"].values
    assert left == pytest.approx(right - 0.1, abs=1e-6)


# -- the front -------------------------------------------------------------------------------------------------------
def test_counting_solutions() -> None:
    """Quenched mean of the logarithm of the number of ±1 weights, N = 15, six patterns."""
    model = Gibbs({s: Ising()}, weight=Heaviside(xi @ s)).observe(S=Entropy(), f=FreeEntropy())
    run = simulate(model, 15, trials=100, alpha=0.4, store=False, workers=1)
    assert float(run["S"].mean[0]) == pytest.approx(0.3992, abs=0.016)
    assert run["S"].values == pytest.approx(run["f"].values + np.log(2), abs=1e-12)
    assert run["empty"].values.max() <= 1


def test_realisations_depend_on_their_number_only() -> None:
    model = Gibbs(MODELS["pairs"].priors, MODELS["pairs"].energy, beta=beta).observe(m=mean(s))
    one = simulate(model, 40, trials=3, seed=5, beta=0.5, h=0.2, store=False, workers=1)["m"].values
    two = simulate(model, 40, trials=1, seed=5, first=2, beta=0.5, h=0.2, store=False, workers=1)["m"].values
    assert one[2] == two[0]
    assert pickle.loads(pickle.dumps(experiment(model, 12))).realise()["m"] == experiment(model, 12).realise()["m"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: simulate(MODELS["pairs"], 10, beta=1, h=0, route="guess", store=False), "unknown route"),
        (lambda: simulate(gardner(), 10, alpha=6, store=False, workers=1), "fewer constraints"),
        (lambda: simulate(gardner(k=Margin(kappa)), 20, trials=1, alpha=6, store=False, workers=1), "margin"),
        (lambda: experiment(MODELS["pairs"], 60, route="enumerate").realise(), "enumeration"),
        (lambda: prepare(Gibbs({s: Ising()}, energy=total(s * (J @ s) ** 2)), 9, 0, {}), "read their own state"),
        (lambda: prepare(Gibbs({s: Normal(0, 1)}, energy=total(s * (J @ s**2))), 9, 0, {}), "multiples of a field"),
        (
            lambda: prepare(Gibbs({s: Spherical()}, energy=-h * total(s)).observe(f=FreeEntropy()), 9, 0, {"h": 1}),
            "nothing to measure",
        ),
    ],
)
def test_what_is_not_covered_says_why(make, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(QuenchedError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, NotCovered) or words
    assert Apply
