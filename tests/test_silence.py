"""Growth of small perturbations of the silent state: an observable of any dynamics that rests at zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sympy import Rational, cos, symbols, tanh

from quenched import (
    Critical,
    Dynamics,
    Field,
    Gaussian,
    Growth,
    Map,
    NotCovered,
    Population,
    QuenchedError,
    WhiteNoise,
    catalogue,
    derive,
    mean,
    simulate,
    t,
    validate,
)
from quenched.validate.realise import Network
from quenched.validate.silence import LAWS
from quenched.validate.simulate_dynamics import prepare

g = symbols("g", positive=True)
x, y = Field("x"), Field("y")
J, S = Gaussian("J", variance=g**2), Gaussian("S", variance=g**2, symmetry=1)
E, I = Population("E", fraction=Rational(3, 4)), Population("I", fraction=Rational(1, 4))
e, i = Field("e", over=E), Field("i", over=I)
BURN: dict[str, Any] = {"burn": 0.2, "duration": 0.2, "dt": 0.2, "lyapunov": False, "store": False, "workers": 1}


def two_populations() -> Dynamics:
    """Excitation and inhibition of their own time scales, with column-dependent gains."""
    JE, JI = (Gaussian(f"J{a}{b}", variance=v, over=(a, b)) for a, b, v in ((E, E, g**2), (I, I, g**2 / 4)))
    EI, IE = Gaussian("JEI", variance=2 * g**2, over=(E, I)), Gaussian("JIE", variance=g**2 / 2, over=(I, E))
    return Dynamics({e: -e + JE @ tanh(e) - EI @ tanh(2 * i), i: 2 * (-i + IE @ tanh(e) + JI @ tanh(2 * i))})


CASES: dict[str, tuple[Any, str]] = {
    "disc": (Dynamics({x: -x + J @ tanh(x)}), "tip"),
    "several fields": (Dynamics({x: -x + J @ tanh(x) - y, y: (x - 3 * y) / 2}), "tip"),
    "two populations": (two_populations(), "tip"),
    "symmetric": (Dynamics({x: -x + S @ tanh(x)}), "soft"),
    "mean": (Dynamics({x: -x + Gaussian("J", variance=g**2, mean=3) @ tanh(x)}), "single"),
    "map": (Map({x: J @ tanh(x)}), "rim"),
}


def by_hand(name: str, task: Any) -> np.ndarray:
    """All eigenvalues of the linear part, from the drawn matrices."""
    network = Network(task)
    drawn = dict(zip(task.program.matrices, network.matrices, strict=True))
    if name == "two populations":
        EE, EI, II, IE = (next(m for k, m in drawn.items() if k.startswith(n)) for n in ("JEE", "JEI", "JII", "JIE"))
        blocks = [[EE, -2 * EI], [2 * IE, 4 * II]]
        rates = np.concatenate([np.full(len(EE), 1.0), np.full(len(II), 2.0)])
        return np.linalg.eigvals(np.block(blocks) - np.diag(rates))
    (M,) = drawn.values()
    one = np.eye(len(M))
    if name == "several fields":
        return np.linalg.eigvals(np.block([[M - one, -one], [one / 2, -1.5 * one]]))
    return np.linalg.eigvals(M if name == "map" else M - one)


@pytest.mark.parametrize("name", CASES)
def test_growth_is_read_off_the_eigenvalues_of_the_network(name: str) -> None:
    """ARPACK on the generated tangents against all eigenvalues of what is drawn."""
    net, law = CASES[name]
    net = net.rewritten({})
    net.observe(growth=Growth())
    how = {k: v for k, v in BURN.items() if k not in ("store", "workers")} | ({"dt": None} if name == "map" else {})
    how |= {"burn": 1, "duration": 1} if name == "map" else {}
    run = simulate(net, 200, trials=3, seed=2, g=1.3, **how, store=False, workers=1)
    values = by_hand(name, prepare(net, 200, 2, {"g": 1.3}, **how).task)
    size = np.log(np.abs(values)) if name == "map" else values.real
    rank = {"tip": len(values) ** 0.25, "rim": len(values) ** 0.5}.get(law, 1.0)
    expected = np.interp(rank - 1, np.arange(len(size)), np.sort(size)[::-1])
    assert run["growth"].estimator.power == LAWS[law][1]  # type: ignore[index]
    assert run["growth"].values[0, 0] == pytest.approx(expected, abs=1e-4)


def test_theory_reads_it_off_the_jacobian() -> None:
    net = two_populations().observe(growth=Growth(), g_c=Critical(g, Growth()))
    theory = derive(net)
    solution = theory.solve(g=1.3)
    assert solution["growth"].values == pytest.approx(theory.fixed_point_stability().growth(g=1.3).value, abs=1e-9)
    critical = float(solution["g_c"])
    assert float(theory.solve(g=critical)["growth"]) == pytest.approx(0, abs=1e-7)
    assert solution.main.kind == "trivial"
    assert not solution.main.stable
    assert "half the width" in solution.main.rms("growth")[1]


def test_it_stands_beside_observables_of_the_state() -> None:
    """The silent state grows at rate g − 1 while the network is chaotic, and each keeps its own exponent."""
    net = Dynamics({x: -x + J @ tanh(x)}).observe(variance=mean(x**2), growth=Growth(), g_c=Critical(g, Growth()))
    solution = derive(net).solve(g=1.5)
    assert float(solution["growth"]) == pytest.approx(0.5, abs=1e-9)
    assert float(solution["g_c"]) == pytest.approx(1, abs=1e-9)
    assert solution.main.kind == "dynamic"
    assert solution.main.growth.value < 0.2
    mutant = derive(net).mutate("variance-tenth").solve(g=1.5)
    assert float(mutant["growth"]) == pytest.approx(1.5 * 1.1**0.5 - 1, abs=1e-9)


def test_what_has_no_silent_state_is_refused() -> None:
    driven = Dynamics({x: -x + J @ tanh(x) + 1}).observe(growth=Growth())
    with pytest.raises(NotCovered, match="no fixed point"):
        derive(driven).solve(g=1.3)
    with pytest.raises(QuenchedError, match="zero is no fixed point"):
        simulate(driven, 50, trials=1, g=1.3, **BURN)
    for other in (-x + J @ tanh(x) + WhiteNoise("n"), -x + J @ tanh(x(t - 1)), -x + J @ (tanh(x) * (1 + cos(t)))):
        run = simulate(Dynamics({x: other}).observe(growth=Growth()), 50, trials=1, g=1.3, **BURN)
        assert "growth" in run.unmeasured
    weak = Gaussian("J", variance=g**2 / (1 + g**2) / 4)
    always_stable = derive(Dynamics({x: -x + weak @ tanh(x)}).observe(c=Critical(g, Growth()))).solve(g=1)
    with pytest.raises(NotCovered, match="does not change its stability"):
        always_stable["c"]


@pytest.mark.slow
def test_a_sequence_network_just_above_its_threshold() -> None:
    """3 % above 1/√(1+α): runs of a set size; the theory with a variance 10 % too large is rejected."""
    net = catalogue["sequence-dynamics"]()
    net = Dynamics(dict(net.eqs), name=net.name, defaults=dict(net.defaults)).observe(growth=Growth())
    values = {"alpha": 0.5, "c": 0, "gamma": 1.03 / 1.5**0.5}
    theory = derive(net, c=0)
    runs = {N: simulate(net, N, 48, 1, values, **BURN, dtype="float32") for N in (150, 300, 600)}
    right = validate(net, values, theory=theory, data=list(runs.values()), quick=True, ci=True)
    assert right.verdict != "disagree"
    assert right.detectable < 0.12
    wrong = validate(net, values, theory=theory.mutate("variance-tenth"), data=list(runs.values()), quick=True, ci=True)
    assert wrong.verdict == "disagree"
