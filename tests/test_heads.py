"""What every head shares: how its simulator is found, and mistakes in its declaration."""

from __future__ import annotations

import pytest
from sympy import Heaviside, Rational, symbols, tanh

from quenched import Dynamics, Field, Gaussian, Gibbs, Iid, Ising, Population, QuenchedError, derive, simulate, total
from quenched.theory.errors import NotCovered
from quenched.validate.experiment import Prepared
from quenched.validate.heads import check_settings, module_of, setting_names, simulator_of

g = symbols("g", positive=True)
x, s = Field("x"), Field("s")
J = Gaussian("J", variance=g**2)


def test_a_simulator_is_found_by_the_class_of_the_declaration() -> None:
    assert module_of(Dynamics({x: -x + J @ tanh(x)})).__name__ == "quenched.validate.simulate_dynamics"
    with pytest.raises(QuenchedError, match=r"simulate takes a declaration .*, got float"):
        simulate(1.5, 10)


def test_settings_of_a_simulator_are_its_keyword_only_arguments() -> None:
    net = Dynamics({x: -x + J @ tanh(x)})
    assert {"dt", "duration", "burn", "trajectories"} <= set(setting_names(simulator_of(net)))
    with pytest.raises(
        QuenchedError, match="durations= is no setting of a Dynamics's simulation: did you mean 'duration'"
    ):
        check_settings(net, {"durations": 3})


def test_a_prepared_simulation_becomes_a_run() -> None:
    import numpy as np

    from quenched.validate.estimators import mean_estimator

    class Coin:
        seed, N = 3, 10

    prepared = Prepared(Coin(), {}, {"heads": (mean_estimator("heads", "mean(s)", None), None)}, {"p": 0.5})
    run = prepared.collect([{"heads": np.array([1.0])}, {"heads": np.array([3.0])}], (0, 1))
    assert run["heads"].mean == 2
    assert run.seeds == ((3, 10, 0), (3, 10, 1))


def test_mistakes_in_the_declaration_reach_the_theory_of_every_head() -> None:
    net = derive(Dynamics({x: -x + J @ tanh(x)}))
    wrong = net.mutate("variance-tenth")
    assert wrong.right is net
    assert "variance-tenth" in wrong.mutant
    assert wrong.solve(g=2).quantity("C_x0").value == pytest.approx(
        net.mutate("gain-tenth").solve(g=2).quantity("C_x0").value
    )
    alpha = symbols("alpha", positive=True)
    xi = Iid("xi", Ising(), over=(Population("pattern", fraction=alpha), s.population))
    from quenched.mutants import mistaken_declaration

    perceptron = derive(Gibbs({s: Ising()}, weight=Heaviside(xi @ s - Rational(1, 2))))
    right, moved = perceptron.solve(alpha=0.2), mistaken_declaration(perceptron, "variance-tenth").solve(alpha=0.2)
    assert abs(right.quantity("q").value - moved.quantity("q").value) > 1e-3


def test_a_mistake_that_changes_nothing_is_refused() -> None:
    with pytest.raises(NotCovered, match="symmetry-dropped"):
        derive(Dynamics({x: -x + J @ tanh(x)})).mutate("symmetry-dropped")
    glass = Gibbs({s: Ising()}, energy=-total(s * (Gaussian("J", symmetry=1) @ s)) / 2)
    from quenched.mutants import DECLARATION_MUTANTS

    assert DECLARATION_MUTANTS["symmetry-dropped"].change(glass.matrices[0]).symmetry == 0
