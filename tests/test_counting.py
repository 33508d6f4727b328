"""The mean number of stable fixed points: reference values, what cannot be stable, and steps against numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from sympy import Expr, Max, Min, Rational, asinh, atan, erf, pi, sign, sqrt, symbols, tanh

from quenched import (
    Complexity,
    Critical,
    Dynamics,
    Field,
    Gaussian,
    N,
    Population,
    catalogue,
    derive,
    mean,
    outer,
    simulate,
    t,
    units,
    validate,
)
from quenched.cli import main
from quenched.theory.counting import ORDER, UnitsAtRest
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.validate.fixed_point_count import number_of_points
from quenched.validate.realise import Network
from quenched.validate.simulate_dynamics import prepare
from quenched.validate.witness import survey_mutants, verify

PLASTIC = derive(catalogue["neuronal-synaptic"]()).stable_fixed_points()


@pytest.mark.parametrize(
    ("g", "k", "expected", "order"),
    [(0.8, 2, 0.3361, 0.908), (0.8, 3, 0.6332, 0.974), (1.5, 3, 0.4691, 0.976), (2.5, 2, 0.144, None)],
)
def test_complexity_at_known_points(g: float, k: float, expected: float, order: float | None) -> None:
    found = PLASTIC.solve(g=g, k=k)
    assert found.complexity.value == pytest.approx(expected, abs=3e-4)
    if order is not None:
        assert found.order == pytest.approx(order, abs=6e-4)


@pytest.mark.parametrize(("g", "expected"), [(0.3, 1.686), (0.8, 1.395), (2.5, 1.195)])
def test_first_stable_points_appear_where_the_count_says(g: float, expected: float) -> None:
    below, above = (PLASTIC.solve(g=g, k=expected + step).complexity.value for step in (-0.003, 0.003))
    assert below < 0 < above


def test_units_of_the_state_do_not_matter() -> None:
    """In halves of x, outputs reach 1 in place of 2, and the plasticity is four times as strong."""
    wide = derive(catalogue["neuronal-synaptic"](phi=lambda x: x / sqrt(1 + x**2 / 4))).stable_fixed_points()
    unit = derive(catalogue["neuronal-synaptic"](phi=lambda x: x / sqrt(1 + x**2))).stable_fixed_points()
    found, same = wide.solve(g=0.8, k=1), unit.solve(g=0.8, k=4)
    assert same.complexity.value > 0
    assert found.complexity.value == pytest.approx(same.complexity.value, abs=1e-5)
    assert found.order == pytest.approx(4 * same.order, abs=1e-3)


def test_the_scale_of_outputs_is_absorbed_by_couplings() -> None:
    """Twice the output at half the gain and an eighth of the plasticity is the same network."""
    doubled = derive(catalogue["neuronal-synaptic"](phi=lambda x: 2 * tanh(x))).stable_fixed_points()
    found, same = doubled.solve(g=0.4, k=0.25), PLASTIC.solve(g=0.8, k=2)
    assert found.complexity.value == pytest.approx(same.complexity.value, abs=1e-9)


def test_outputs_without_bound_are_refused() -> None:
    soft = derive(catalogue["neuronal-synaptic"](phi=lambda x: asinh(x))).stable_fixed_points()
    with pytest.raises(NotCovered, match="bounded outputs"):
        soft.solve(g=0.8, k=2)


@pytest.mark.parametrize("phi", [tanh, erf, lambda x: x / sqrt(1 + x**2)])
@pytest.mark.parametrize("k", [-2, 0])
def test_without_hebbian_bonds_no_fixed_point_is_stable(phi: object, k: float) -> None:
    count = derive(catalogue["neuronal-synaptic"](phi=phi)).stable_fixed_points()
    assert count.solve(g=1.5, k=k).complexity.value < 0


def test_a_unit_at_rest_against_networks() -> None:
    """Mean and variance over couplings of the right-hand side of four units, with bonds at rest."""
    units = PLASTIC.derivation.find(UnitsAtRest)
    assert units is not None
    g, k, rng = 1.3, 1.7, np.random.default_rng(0)
    x = rng.normal(size=4)
    phi, order = np.tanh(x), np.mean(np.tanh(x) ** 2)
    J = g / 2 * rng.standard_normal((40_000, 4, 4))
    rhs = -x + (J + k / 4 * np.outer(phi, phi)) @ phi
    values = {"g": g, "k": k, "p": 2.5, "C": order}
    put = {s: values[s.name] for s in (*units.parameters, ORDER)}
    drift = [float(units.drift.subs(put | {units.state: u})) for u in x]
    variance = float(units.variance.subs(put))
    z = (rhs.mean(axis=0) - drift) / np.sqrt(variance / len(rhs))
    assert np.abs(z).max() < 4.5
    assert rhs.var(axis=0) == pytest.approx(np.full(4, variance), rel=0.04)


def test_outside_of_the_bulk_the_determinant_is_a_product() -> None:
    rng = np.random.default_rng(1)
    weight, slope = rng.uniform(0.8, 1.4, 300), rng.uniform(0.1, 0.6, 300)
    assert np.mean(slope**2 / weight**2) < 1
    logs = [
        np.linalg.slogdet(np.diag(weight) - rng.standard_normal((300, 300)) * slope / np.sqrt(300))[1] for _ in range(8)
    ]
    assert np.mean(logs) / 300 == pytest.approx(np.mean(np.log(weight)), abs=5e-3)


def test_what_is_not_counted_says_so() -> None:
    g, eta = symbols("g eta", positive=True)
    x = Field("x")
    net = Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)})
    with pytest.raises(NotCovered, match="without mean, symmetry"):
        derive(net).stable_fixed_points()


Pair = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
TANH: Pair = np.tanh, lambda x: 1 / np.cosh(x) ** 2
ATAN: Pair = lambda x: 2 / np.pi * np.arctan(np.pi * x / 2), lambda x: 1 / (1 + (np.pi * x / 2) ** 2)


def stable_points(J: np.ndarray, k: float, unit: Pair, p: float = 2.5) -> int:
    """How many stable fixed points of units and bonds Newton steps find from all signs at three amplitudes."""
    n = len(J)
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * n)).reshape(n, -1).T
    x = np.concatenate([a * signs for a in (1.2, 2.0, 3.2)])
    eye = np.eye(n)

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        phi = unit[0](x)
        return phi, unit[1](x), (phi**2).mean(axis=1)

    for _ in range(30):
        phi, slope, order = parts(x)
        force = -x + phi @ J.T + k * order[:, None] * phi
        inner = J * slope[:, None, :] + k * order[:, None, None] * slope[:, :, None] * eye
        inner = inner + 2 * k / n * phi[:, :, None] * (phi * slope)[:, None, :] - eye
        step = np.linalg.solve(inner + 1e-13 * eye, force[..., None])[..., 0]
        x = np.clip(x - step, -50, 50)
    phi, slope, order = parts(x)
    at_rest = np.abs(-x + phi @ J.T + k * order[:, None] * phi).max(axis=1) < 1e-9
    x = np.unique(np.round(x[at_rest], 6), axis=0)
    phi, slope, order = parts(x)
    A = k / n * phi[:, :, None] * phi[:, None, :]
    units = (J + A) * slope[:, None, :] - eye
    feedback = (
        k / p * (order[:, None, None] * slope[:, :, None] * eye + phi[:, :, None] * (phi * slope)[:, None, :] / n)
    )
    ones = np.broadcast_to(eye, units.shape)
    joint = np.block([[units, ones], [feedback, -ones / p]])
    return int((np.linalg.eigvals(joint).real.max(axis=1) < 0).sum())


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "phi", "k"), [(TANH, tanh, 3), (ATAN, lambda x: 2 / pi * atan(pi * x / 2), 5)])
def test_networks_have_as_many_stable_points(unit: Pair, phi: Callable[[Expr], Expr], k: float) -> None:
    """ln of the mean count grows with N as derived; theories of other couplings are rejected."""
    theory = derive(catalogue["neuronal-synaptic"](phi=phi)).stable_fixed_points()
    g, rng, sizes, networks = 0.8, np.random.default_rng(2), (6, 10), 60
    logs, errors = [], []
    for n in sizes:
        found = [stable_points(g * rng.standard_normal((n, n)) / np.sqrt(n), k, unit) for _ in range(networks)]
        logs.append(np.log(np.mean(found)))
        errors.append(np.std(found) / np.mean(found) / np.sqrt(networks))
    slope, error = np.diff(logs)[0] / 4, np.hypot(*errors) / 4
    assert error < 0.01
    assert abs(slope - theory.solve(g=g, k=k).complexity.value) < 4 * error
    assert abs(slope - theory.solve(g=g, k=0.8 * k).complexity.value) > 4 * error


def plastic_count(strength: float = 1.0, **given: Expr) -> Dynamics:
    """A plastic network whose number of stable fixed points is observed."""
    g, p = symbols("g p", positive=True)
    k = symbols("k", real=True)
    x, A, J = Field("x"), Field("A", over=(units, units)), Gaussian("J", variance=g**2)
    phi = tanh(x)
    equations = {x: -x + (J + A) @ phi, A: (-A + strength * k / N * outer(phi, phi)) / p}
    net = Dynamics(equations, name="plastic", defaults={g: 0.8, k: 3, p: 2.5})
    return net.observe(**(given or {"S": Complexity()}))


def test_the_number_is_an_observable() -> None:
    k = symbols("k", real=True)
    theory = derive(plastic_count(S=Complexity(), k_FP=Critical(k, Complexity())))
    solution = theory.solve()
    assert float(solution["S"]) == pytest.approx(0.6332, abs=3e-4)
    assert float(solution["k_FP"]) == pytest.approx(1.395, abs=3e-3)


def test_averages_over_time_are_declared_apart() -> None:
    x = Field("x")
    net = plastic_count(S=Complexity(), q=mean(x**2))
    with pytest.raises(NotCovered, match="declare it apart"):
        simulate(net, N=4, trials=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_enumeration_finds_what_every_sign_pattern_finds(seed: int) -> None:
    """Against Newton steps from all signs at three amplitudes, written for this network alone."""
    task = prepare(plastic_count(), 5, seed).task
    network = Network(task.task)
    found = task.realise()["S"][0]
    assert found == pytest.approx(stable_points(np.asarray(network.matrices[0], float), 3, TANH), abs=1.0)


@pytest.mark.slow
def test_the_number_of_small_networks_agrees_and_mistakes_are_rejected() -> None:
    """The exponent over the size of small networks; with bonds four fifths as strong it is another one."""
    net = plastic_count()
    runs = [simulate(net, N=n, trials=90, seed=3, workers=1) for n in (5, 6, 8)]
    right = validate(net, data=runs, quick=True)
    assert right.p_value > right.level
    wrong = validate(net, theory=derive(plastic_count(0.8)), data=runs, quick=True)
    assert wrong.verdict == "disagree"


@pytest.mark.parametrize("phi", [tanh, lambda x: x / sqrt(1 + x**2)])
def test_witnesses_tick_the_steps_of_counting_and_catch_their_mutants(phi: Callable[[Expr], Expr]) -> None:
    steps = derive(catalogue["neuronal-synaptic"](phi=phi)).stable_fixed_points().derivation
    assert [tick.title for tick in verify(steps) if not tick.passed] == []
    ours = [m for m in survey_mutants(steps) if "at rest" in m.step or "number of stable" in m.step]
    assert len(ours) >= 7
    assert [m for m in ours if not m.caught] == []


def test_the_command_line_ticks_the_steps_of_counting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["derive", "neuronal-synaptic", "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "✓ Units at rest in the field of given states" in shown
    assert "✓ Mean number of stable fixed points" in shown


def test_an_observed_number_is_derived_beside_the_theory() -> None:
    (count,) = derive(plastic_count()).companions
    assert "Σ = max_C" in str(count)
    assert derive(catalogue["scs"]()).companions == ()


def test_a_number_that_is_not_derived_is_named_where_steps_are_checked() -> None:
    g, eta = symbols("g eta", positive=True)
    x = Field("x")
    net = Dynamics({x: -x + Gaussian("J", variance=g**2, symmetry=eta) @ tanh(x)}).observe(S=Complexity())
    ticks = verify(derive(net).derivation, simulate=False, stability=True)
    (missing,) = [tick for tick in ticks if tick.passed is None]
    assert missing.title == "Mean number of stable fixed points"
    assert "symmetry" in missing.detail


@pytest.mark.parametrize(("k", "exist"), [(0, False), (-2, False), (1, False), (3, True)])
def test_whether_points_exist_is_a_clear_statement(k: float, exist: bool) -> None:
    found = PLASTIC.solve(g=1.5, k=k)
    assert found.complexity.error < 1e-6
    assert found.exist is exist
    assert ("no stable fixed point" in str(found)) is not exist


@pytest.mark.parametrize(("g", "told"), [(1.5, "not rejected"), (0.5, "at most one of the drawn networks")])
def test_where_none_is_expected_the_verdict_says_so(g: float, told: str) -> None:
    """Bonds that nothing drives: few points of small networks, or none, against an exponent that is not positive."""
    report = validate(plastic_count(), g=g, k=0, sizes=(4, 5, 6), trials=16, seed=4, workers=1)
    assert report.verdict == "inconclusive"
    assert "expects no stable fixed point" in report.reason
    assert told in report.reason


def test_networks_with_many_points_contradict_a_theory_that_expects_none() -> None:
    net = plastic_count()
    runs = [simulate(net, N=n, trials=24, seed=3, workers=1) for n in (4, 5, 6)]
    assert validate(net, theory=derive(plastic_count(0.1)), data=runs, quick=True).verdict == "disagree"


def test_bonds_that_nothing_drives_are_derived() -> None:
    fixed = derive(catalogue["neuronal-synaptic"](), {"k": 0}).derivation
    assert [tick.title for tick in verify(fixed, simulate=False, stability=True) if tick.passed is False] == []


def followed(strength: float = 1.0) -> dict[str, Dynamics]:
    """Plastic networks whose units have further fields."""
    g, k = symbols("g k", positive=True)
    x, a, A, J = Field("x"), Field("a"), Field("A", over=(units, units)), Gaussian("J", variance=g**2)
    phi, b = tanh(x), Rational(1, 2)
    learn = {A: -A + strength * k / N * outer(phi, phi)}
    bonds = (J + A) @ phi
    equations = {
        "filter": {x: -x + a, a: (-a + bonds) / 3, **learn},
        "facilitation": {x: -x + b * a + bonds, a: (x / 2 - a) / 3, **learn},
        "adaptation": {x: -x - b * a + bonds, a: (phi - a) / 3, **learn},
        "cubic": {x: -x - b * a + bonds, a: (x - a**3) / 3, **learn},
        "growing": {x: -x - b * a + bonds, a: (x + a) / 3, **learn},
        "two driven": {x: -x + a + bonds, a: (-a + bonds) / 3, **learn},
        "two read": {x: -x - b * a + bonds + J @ tanh(a), a: (x - a) / 3, **learn},
    }
    return {name: Dynamics(e, defaults={g: 0.8, k: 3}).observe(S=Complexity()) for name, e in equations.items()}


FOLLOWED = followed()


def test_a_filter_does_not_change_the_number() -> None:
    plain = PLASTIC.solve(g=0.8, k=3).complexity.value
    assert derive(FOLLOWED["filter"]).stable_fixed_points().solve().complexity.value == pytest.approx(plain, abs=1e-9)


def test_slow_support_is_a_weaker_leak() -> None:
    """x' = −x + b a with a = x/2 at rest is a leak of 1 − b/2, which scales fields and bonds."""
    found = derive(FOLLOWED["facilitation"]).stable_fixed_points().solve()
    same = PLASTIC.solve(g=0.8 / 0.75, k=3 / 0.75)
    assert found.complexity.value == pytest.approx(same.complexity.value, abs=1e-8)
    assert found.order == pytest.approx(same.order, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("adaptation", r"fields \(a\) that oppose what drives them"),
        ("cubic", "rest at one value, not a"),
        ("growing", "a need -1/3 > 0"),
        ("two driven", "these drive: x, a"),
        ("two read", "these read: x, a"),
    ],
)
def test_other_fields_that_are_not_counted_are_named(name: str, told: str) -> None:
    with pytest.raises(NotCovered, match=told):
        derive(FOLLOWED[name]).stable_fixed_points().solve()


@pytest.mark.parametrize("name", ["filter", "facilitation", "adaptation"])
def test_witnesses_tick_the_steps_with_other_fields(name: str) -> None:
    steps = derive(FOLLOWED[name]).stable_fixed_points().derivation
    assert [tick.title for tick in verify(steps, simulate=False) if not tick.passed] == []
    ours = [m for m in survey_mutants(steps) if "at rest" in m.step or "number of stable" in m.step]
    assert any(m.label.startswith("a ×") for m in ours)
    assert [m.label for m in ours if not m.caught] == []


@pytest.mark.parametrize(
    ("phi", "told"),
    [(lambda x: tanh(x(t - 1)), "without delays"), (sign, r"sign\(x\) jumps"), (None, "density of random fields")],
)
def test_what_has_no_density_or_slope_is_named(phi: Callable[[Expr], Expr] | None, told: str) -> None:
    g, k, x, A = *symbols("g k", positive=True), Field("x"), Field("A", over=(units, units))
    random = Gaussian("J", variance=g**2) @ phi(x) if phi else 0
    net = Dynamics({x: -x + random + A @ tanh(x), A: -A + k / N * outer(tanh(x), tanh(x))})
    with pytest.raises(NotCovered, match=told):
        derive(net).stable_fixed_points()


def test_couplings_of_no_strength_bring_no_density() -> None:
    g, x = symbols("g", nonnegative=True), Field("x")
    net = Dynamics({x: x - x**3 + Gaussian("J", variance=g**2) @ tanh(x)})
    with pytest.raises(NotCovered, match="whose variance is zero"):
        derive(net).stable_fixed_points().solve(g=0)


@pytest.mark.parametrize("phi", [lambda x: Min(Max(x, 0), 1), lambda x: Max(x, 0), lambda x: x])
def test_witnesses_take_slopes_that_are_constant_in_parts(phi: Callable[[Expr], Expr]) -> None:
    ticks = verify(derive(catalogue["neuronal-synaptic"](phi=phi)).derivation, simulate=False, stability=True)
    ours = [tick for tick in ticks if "at rest" in tick.title or "number of stable" in tick.title]
    assert [tick.passed for tick in ours] == [True, True]


def test_several_populations_are_named() -> None:
    half, g = Rational(1, 2), symbols("g", positive=True)
    E, I = Population("E", half), Population("I", half)
    x, y = Field("x", over=E), Field("y", over=I)
    J, K = Gaussian("J", variance=g**2, over=(E, I)), Gaussian("K", variance=g**2, over=(I, E))
    net = Dynamics({x: -x + J @ tanh(y), y: -y + K @ tanh(x)}, defaults={g: 1.5}).observe(S=Complexity())
    with pytest.raises(NotCovered, match="one population so far, these are several: E, I"):
        validate(net, quick=True)


@pytest.mark.slow
def test_networks_with_slow_support_have_as_many_stable_points() -> None:
    net = FOLLOWED["facilitation"]
    runs = [simulate(net, N=n, trials=60, seed=3, workers=1) for n in (4, 5, 6)]
    report = validate(net, data=runs, quick=True)
    assert report.p_value > report.level
    wrong = validate(net, theory=derive(followed(0.8)["facilitation"]), data=runs, quick=True)
    assert wrong.verdict == "disagree"


def test_strong_bonds_hold_every_pattern_of_signs() -> None:
    found = PLASTIC.solve(g=0.8, k=8)
    assert found.complexity.value == pytest.approx(np.log(2), abs=1e-6)


class Scripted:
    """Units whose stable fixed points are found by chance: downstream, and by Newton steps alone."""

    def __init__(self, chances: list[tuple[float, float]]) -> None:
        self.rng, self.chances, self.units = np.random.default_rng(0), np.array(chances), max(5, len(chances))

    def scale(self, rng: np.random.Generator) -> float:
        return 1.0

    def starts(self, rng: np.random.Generator) -> Any:
        return np.zeros((1, self.units))

    def found(self, starts: Any, downstream: bool) -> Any:
        kept = self.rng.random(len(self.chances)) < self.chances[:, 0 if downstream else 1]
        return np.eye(self.units)[: len(kept)][kept]


@pytest.mark.parametrize("chances", [[(1, 0), (0, 1)], [(1, 0), (1, 1), (0, 1)], [(1, 1)] * 4])
def test_points_that_one_kind_of_start_never_reaches_are_counted(chances: list[tuple[float, float]]) -> None:
    assert number_of_points(cast(Any, Scripted(chances)), np.random.default_rng(1)) == len(chances)


def test_many_missed_points_are_told() -> None:
    with pytest.raises(QuenchedError, match="12 rounds of starts"):
        number_of_points(cast(Any, Scripted([(0.02, 0.02)] * 200)), np.random.default_rng(1))


def test_small_networks_are_searched_for_longer() -> None:
    """One of these has a pair of points that few rounds reach."""
    net = catalogue["neuronal-synaptic"]()
    counted = Dynamics(net.equations, defaults=net.defaults).observe(S=Complexity())
    found = simulate(counted, 5, 120, seed=77, params={"g": 1.5, "k": 3, "p": 2.5}, workers=1, store=False)["S"]
    assert found.mean[0] == pytest.approx(0.44, abs=5 * found.error[0])
