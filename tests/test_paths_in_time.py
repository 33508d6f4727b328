"""Units that are not Gaussian, in time: marched paths against loops, exact equations, published states and networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Expr, Max, Rational, exp, sin, sqrt, symbols, tanh

from quenched import (
    Dynamics,
    Field,
    Gaussian,
    Map,
    N,
    Normal,
    Population,
    Quenched,
    QuenchedError,
    Uniform,
    WhiteNoise,
    derive,
    freeze,
    mean,
    outer,
    simulate,
    t,
    units,
    validate,
)
from quenched.numerics import March
from quenched.theory.derivation import start
from quenched.theory.model import Model
from quenched.theory.readoff import EffectiveProcess
from quenched.theory_object import Theory
from quenched.validate.meaning_steps import Ensemble
from quenched.validate.witness import survey_mutants, verify

g, p, q, at = symbols("g p q at", positive=True)
k = symbols("k", real=True)
x, A = Field("x"), Field("A", over=(units, units))
J = Gaussian("J", variance=g**2)
SMALL = March(dt=0.2, paths=300, batches=4)


def hebbian(initial: Any = None) -> Model:
    u = Field("x", initial=initial)
    return Dynamics({u: -u + (J + A) @ tanh(u), A: (-A + k / N * outer(tanh(u), tanh(u))) / p})


def start_like_the_loops(name: str) -> Normal:
    return Normal(0.3 + Rational(len(name) % 3, 10), Rational(49, 100))


def gated_map() -> Model:
    """Two populations, one gated by the other, bonds between them that are halted, an input that depends on time."""
    E, I = Population("E", Rational(3, 5)), Population("I", Rational(2, 5))
    u, v = (Field(n, P, initial=start_like_the_loops(n)) for n, P in (("u", E), ("v", I)))
    B = Field("B", over=(E, I))
    K = {
        c: Gaussian(c, variance=g**2, mean=k, over=pair)
        for c, pair in {"EI": (E, I), "EE": (E, E), "IE": (I, E)}.items()
    }
    gain = Quenched("a", Uniform(Rational(1, 2), 1), over=E)
    net = Map(
        {
            u: gain * tanh(K["EI"] @ v) / (1 + exp(-(K["EE"] @ tanh(u)))) + B @ tanh(v) + sin(t) / 3,
            v: v / 3 + Max(K["IE"] @ u, 0) / 2 + WhiteNoise("xi", over=I) / 4,
            B: B / 2 + q / N * outer(u, tanh(v)),
        }
    )
    return freeze(net, B, at=2)


def test_a_map_against_loops() -> None:
    """Means and covariances over four steps against the step-by-step process with its fields drawn one by one."""
    net = gated_map()
    theory = derive(net)
    values = theory.model.values(g=0.9, k=0.5, q=1.2)
    solution: Any = theory.solve(g=0.9, k=0.5, q=1.2, times=np.arange(5.0), sampling=March(paths=4000, batches=4))
    process = theory.derivation.find(EffectiveProcess)
    loops = Ensemble(process, {**values, N: 400}, 40_000, 4, np.random.default_rng(0)).run()
    for name in ("u", "v"):
        paths = np.array(loops[name])
        spread = paths.std(axis=1) / 60
        assert np.all(np.abs(solution.means[name].values - paths.mean(axis=1)) < 5 * spread + 1e-3), name
        assert (
            np.abs(solution.two_time(name).values - np.cov(paths, bias=True)).max() < 0.05 * np.var(paths, axis=1).max()
        )


def test_second_order_through_a_halt() -> None:
    """Equal starts and no random couplings leave an integro-differential equation: order of the step, and its value."""
    net = freeze(
        Dynamics({(u := Field("x", initial=1)): -u + A @ tanh(u), A: (-A + k / N * outer(tanh(u), u)) / p}), A, at=1
    )
    values = dict(k=3.0, p=0.7)
    ends = [
        float(derive(net).solve(values, times=[0, 0.5, 1, 1.5, 2], sampling=March(dt, 8, 2)).means["x"][-1])
        for dt in (0.1, 0.05, 0.025)
    ]
    y, a = 1.0, 0.0
    h = 1e-4
    for n in range(20000):
        rate = lambda y, a: np.array([-y + a * np.tanh(y), (-a + 3 * np.tanh(y) * y) / 0.7 * (n < 10000)])  # noqa: B023, E731
        first = rate(y, a)
        second = rate(y + h * first[0], a + h * first[1])
        y, a = y + h / 2 * (first + second)[0], a + h / 2 * (first + second)[1]
    errors = np.abs(np.array(ends) - y)
    assert errors[2] < 1e-3 * abs(y)
    assert 3.2 < errors[0] / errors[1] < 5
    assert 3.2 < errors[1] / errors[2] < 5


def test_gaussian_units_by_paths() -> None:
    """Where units are Gaussian, paths give the marched covariances (both as the Euler map)."""
    net = Dynamics({x: -x + J @ tanh(x) + WhiteNoise("xi") / 2})
    net.observe(later=mean(tanh(x(t + 1)) * tanh(x)), since=mean(x * x(1)), before=mean(x * x(t - 1)))
    times = np.linspace(0, 4, 21)
    exact: Any = derive(net).solve(g=2, times=times, dt=0.2, scheme="euler")
    sampled = Theory(start(net).average().order_parameters().saddle().largest_time().read_off().sample("compared"))
    found: Any = sampled.solve(g=2, times=times, dt=0.2, scheme="euler", sampling=March(paths=1500, batches=4))
    expected = exact.two_time("x").values
    assert np.abs(found.two_time("x").values - expected).max() < 0.05
    assert found["since"].values == pytest.approx(expected[:, 5], abs=0.05)
    assert found["C_x0"].values == pytest.approx(np.diag(expected), abs=0.05)
    with pytest.raises(QuenchedError, match="before the start"):
        found["before"]


def test_the_halted_theory_is_derived_and_verified() -> None:
    derivation = derive(freeze(hebbian(), A, at=at)).derivation
    assert "Heaviside(at - t, 0)" in "\n".join(line.text for line in derivation.steps[1].after.lines())
    assert [f"{tick.title}: {tick.detail}" for tick in verify(derivation) if tick.passed is not True] == []
    assert [f"{s.step}: {s.label}" for s in survey_mutants(derivation) if not s.caught] == []


def test_a_halted_map_is_verified() -> None:
    derivation = derive(gated_map()).derivation
    assert [f"{tick.title}: {tick.detail}" for tick in verify(derivation) if tick.passed is not True] == []
    assert [f"{s.step}: {s.label}" for s in survey_mutants(derivation) if not s.caught] == []


def test_what_is_missing_is_said() -> None:
    halted = derive(freeze(hebbian(), A, at=at))
    values = dict(g=1.5, k=1, p=1.5, at=2)
    with pytest.raises(QuenchedError, match="give times="):
        halted.solve(values)
    with pytest.raises(QuenchedError, match="equally spaced"):
        halted.solve(values, times=[1, 2, 4])
    with pytest.raises(QuenchedError, match="give burn="):
        validate(freeze(hebbian(), A, at=at), values, quick=True)
    net = hebbian()
    net.observe(since=mean(x * x(5)))
    with pytest.raises(QuenchedError, match="reads the fixed time 5"):
        simulate(net, 20, trials=1, g=1, k=1, p=1, burn=1, duration=1, store=False)


def test_a_fixed_time_of_a_network() -> None:
    """⟨x(t) x(T)⟩ read once at T and at every t, against the correlation at that lag."""
    net = hebbian()
    net.observe(since=mean(x * x(2)), at_lag=mean(x(t + 3) * x))
    how: Any = dict(trials=2, seed=1, g=1.5, k=1, p=1, dt=0.1, store=False, workers=1)
    since = simulate(net, 30, burn=5, duration=0.1, **how)["since"].values
    assert since == pytest.approx(simulate(net, 30, burn=2, duration=0.1, **how)["at_lag"].values, rel=1e-12)


def halted(time: float) -> Model:
    """The halted network, with what is kept of the state at the halt."""
    net = freeze(hebbian(Normal(0, 4)), A, at=time)
    (u,) = net.fields
    phi: Expr = tanh(u)
    then = tanh(u(time))
    norm = sqrt(mean(phi**2) * mean(then**2))
    return net.observe(q=mean(phi**2), overlap=mean(phi * then) / norm, radius=g * sqrt(mean(phi.diff(u) ** 2)))


PUBLISHED = [
    ((2.5, 2, 2.5), (0.972, 0.863, 0.73)),
    ((2, 1.5, 1), (0.932, 0.759, 0.791)),
    ((2, 1.5, 5), (0.968, 0.762, 0.782)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("point", "expected"), PUBLISHED)
def test_halted_states(point: tuple[float, ...], expected: tuple[float, ...]) -> None:
    """Overlap, ⟨φ²⟩ and radius of the state that a chaotic one becomes when its synapses stop."""
    values = dict(zip("gkp", point, strict=True))
    how: Any = dict(times=np.arange(0, 91, 1.0), window=(85, 90), sampling=March(dt=0.2, paths=600, batches=12))
    solution = derive(halted(50)).solve(values, **how)
    for name, value, scatter in zip(("overlap", "q", "radius"), expected, (0.02, 0.012, 0.03), strict=True):
        assert abs(float(solution[name]) - value) < scatter + 3 * solution.error(name), name


@pytest.mark.slow
def test_halted_networks_agree_and_a_wrong_memory_is_rejected() -> None:
    net = halted(40)
    how: Any = dict(
        g=2.5, k=2, p=2.5, quick=True, burn=80, duration=4, dt=0.2, sizes=(100, 200, 400), trials=48, workers=1
    )
    right = validate(net, **how)
    assert right.verdict != "disagree"
    wrong = validate(net, theory=derive(net).mutate("memory-tenth"), **how)
    gone = validate(net, theory=derive(net).mutate("memory-dropped"), **how)
    assert gone.verdict == "disagree"
    assert wrong.verdict in ("disagree", "inconclusive")


def test_a_delay_is_a_field_of_the_past() -> None:
    """A map that reads its state two steps ago, against the same map with fields that hand the state on."""
    a, b, c = (Field(n, initial=1) for n in "abc")
    late = Map({a: Rational(3, 10) * (J @ tanh(a)) * a + a(t - 2) / 2 + Rational(1, 3)})
    kept = Map({a: Rational(3, 10) * (J @ tanh(a)) * a + c / 2 + Rational(1, 3), b: a, c: b})
    how: Any = dict(g=1, times=np.arange(7.0), sampling=March(paths=400, batches=2))
    found, expected = (derive(net).solve(**how)["mean_a"].values for net in (late, kept))
    assert found == pytest.approx(expected, abs=0.15)
    assert np.ptp(expected) > 0.2
