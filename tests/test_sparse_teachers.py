"""Teachers whose weights are partly zero and partly of a density, next to students of the same law and of others."""

from __future__ import annotations

import pytest
from sympy import DiracDelta, Rational, exp, symbols

from quenched import (
    Field,
    Gibbs,
    Iid,
    Laplace,
    Normal,
    Population,
    Quenched,
    SpikeSlab,
    derive,
    mean,
    simulate,
    units,
)
from quenched.numerics.replica_labels import label_nodes
from quenched.theory.distributions import Law
from quenched.theory.problem_replicas import X

alpha, Delta = symbols("alpha Delta", positive=True)
w, samples = Field("w"), Population("sample", fraction=alpha)
x, noise = Iid("x", Normal(0, 1), over=(samples, units)), Quenched("e", Normal(0, Delta), over=samples)
SPARSE = SpikeSlab(Rational(3, 10), Normal(0, 1))


def regression(teacher: Law, student: Law) -> Gibbs:
    """Linear measurements with noise, whose variance the student knows."""
    taught = Quenched("w_0", teacher)
    weight = exp(-((x @ taught + noise - x @ w) ** 2) / (2 * Delta))
    return Gibbs({w: student}, weight=weight).observe(
        q=mean(w[1] * w[2]), m=mean(w * taught), e=mean((w - taught) ** 2)
    )


@pytest.mark.parametrize("law", [SPARSE, SpikeSlab(Rational(1, 4), SpikeSlab(Rational(1, 2), Laplace(2)))])
def test_nodes_of_mixed_laws_have_their_moments(law: Law) -> None:
    nodes, p = label_nodes(X, (), law.density(X), {}, [0.0])
    found = [p.sum(), p @ nodes, p @ nodes**2]
    assert found == pytest.approx([1, 0, float(law.variance_())], abs=1e-10)
    atom = float(law.density(X).expand().coeff(DiracDelta(X)))
    assert p[nodes == 0].sum() == pytest.approx(atom)


def test_sparse_teacher_of_a_student_who_knows() -> None:
    """At the optimum of Bayes m = q, and the error is what is left: E w₀² − q."""
    solution = derive(regression(SPARSE, SPARSE)).solve(alpha=0.6, Delta=0.1)
    q, m, e = (float(solution[name]) for name in ("q", "m", "e"))
    assert m == pytest.approx(q, abs=1e-8)
    assert e == pytest.approx(2 * (0.3 - q), abs=1e-8)


def test_gaussian_student_of_a_sparse_teacher() -> None:
    """Of a Gaussian student only the variance of the teacher's weights matters."""
    sparse = derive(regression(SPARSE, Normal(0, 1))).solve(alpha=0.6, Delta=0.3)
    dense = derive(regression(Normal(0, Rational(3, 10)), Normal(0, 1))).solve(alpha=0.6, Delta=0.3)
    for name in ("q", "m", "e"):
        assert float(sparse[name]) == pytest.approx(float(dense[name]), abs=1e-8), name


def test_samples_agree() -> None:
    """Monte Carlo, within four standard errors and the finite-size term."""
    model, point = regression(SPARSE, Normal(0, 1)), {"alpha": 0.6, "Delta": 0.3}
    run, solution = (
        simulate(model, 40, trials=32, seed=3, params=point, store=False, workers=1),
        derive(model).solve(point),
    )
    for name in model.observables:
        allowed = 4 * float(run[name].error[0]) + 1.0 / 40
        assert float(run[name].mean[0]) == pytest.approx(float(solution[name]), abs=allowed), name
