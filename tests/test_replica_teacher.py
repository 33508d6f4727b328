"""Labels: random ones, and those that a teacher gives. Bayes-optimal and mismatched teachers, noise on labels."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import Expr, Heaviside, Piecewise, Rational, exp, sign, sqrt, symbols

from quenched import Field, Gibbs, Iid, Ising, Normal, Population, Quenched, Spherical, derive, mean, total, units
from quenched.theory.distributions import Bernoulli
from quenched.theory.replica_forms import RSAction
from quenched.theory.replica_limit import FreeEntropyForm, SaddleEquations
from quenched.theory.replica_lower import combined
from quenched.validate.meaning_replicas import copies_free_entropy
from quenched.validate.spins import Instance

alpha, beta, Delta, lam = symbols("alpha beta Delta lambda", positive=True)
data = Population("pattern", fraction=alpha)
X = Iid("X", Normal(0, 1), over=(data, units))
w = Field("w")
BINARY = Gibbs({w: Ising()}, weight=Heaviside((X @ w) * sign(X @ Quenched("w0", Ising()))))


def continuous() -> Gibbs:
    return Gibbs({w: Normal(0, 1)}, weight=Heaviside((X @ w) * sign(X @ Quenched("w0", Normal(0, 1)))))


def numbers(model: Gibbs, *names: str, **at: float) -> list[float]:
    solution = derive(model).solve(**at)
    return [float(solution[name]) for name in names]


# -- references ----------------------------------------------------------------------------------------------------
def test_binary_weights_of_a_teacher() -> None:
    """At the optimum of Bayes the student is a copy of the teacher: m = q, and conjugates agree, too."""
    m, q, a, r = numbers(BINARY, "m", "q", "a", "r", alpha=1)
    assert q == pytest.approx(0.560715, abs=1e-6)
    assert m == pytest.approx(q, abs=1e-8)
    assert a == pytest.approx(r, abs=1e-8)


def test_gaussian_weights_of_a_teacher() -> None:
    q, m, size = numbers(continuous(), "q", "m", "Q", alpha=2)
    assert [q, m, size] == pytest.approx([0.728298, 0.728298, 1], abs=1e-6)
    assert np.arccos(m) / np.pi == pytest.approx(0.2401, abs=1e-3)


@pytest.mark.slow
def test_the_teacher_is_all_that_is_left() -> None:
    """The entropy of solutions other than the teacher vanishes at 1.2447."""
    theory = derive(BINARY)
    assert theory.critical("alpha", "entropy", 0, bracket=(1.1, 1.4)).value == pytest.approx(1.244684, abs=2e-6)


def test_regression_on_a_teacher_is_linear_algebra() -> None:
    """Mean weights of a large instance: E⟨w⟩w0, E⟨w⟩² and E⟨w²⟩ from the ridge estimator and its covariance."""
    noise = Quenched("e", Normal(0, Delta), over=data)
    w0 = Quenched("w0", Normal(0, 1))
    model = Gibbs({w: Normal(0, 1)}, energy=total((X @ w0 + noise - X @ w) ** 2) / 2, beta=beta)
    model.observe(e=mean((w - w0) ** 2))
    m, q, size, e = numbers(model, "m", "q", "Q", "e", alpha=1.5, beta=4, Delta=0.3)
    rng = np.random.default_rng(1)
    n, p = 800, 1200
    x, teacher = rng.standard_normal((p, n)) / np.sqrt(n), rng.standard_normal(n)
    teacher *= np.sqrt(n) / np.linalg.norm(teacher)
    y = x @ teacher + np.sqrt(0.3) * rng.standard_normal(p)
    spread = np.linalg.inv(np.eye(n) + 4 * x.T @ x)
    found = spread @ (4 * x.T @ y)
    assert [m, q, size - q] == pytest.approx([found @ teacher / n, found @ found / n, np.trace(spread) / n], abs=0.02)
    assert e == pytest.approx(size - 2 * m + 1, abs=1e-9)


# -- variants ------------------------------------------------------------------------------------------------------
def test_a_student_of_another_prior() -> None:
    """On the sphere the student of a ±1 teacher knows less of it than one of ±1 weights."""
    model = Gibbs({w: Spherical()}, weight=Heaviside((X @ w) * sign(X @ Quenched("w0", Ising()))))
    m, q, replicon = numbers(model, "m", "q", "replicon", alpha=1)
    assert 0 < m < 0.560715
    assert m == pytest.approx(q, abs=1e-6)  # a rotation makes any teacher Gaussian
    assert replicon < 1


def test_flipped_labels() -> None:
    """Labels flipped with probability p, and a student that tolerates errors at the right price: m = q again."""
    p = symbols("p", positive=True)
    flip = 1 - 2 * Quenched("z", Bernoulli(p), over=data)
    u, label = X @ w, flip * sign(X @ Quenched("w0", Ising()))
    model = Gibbs({w: Ising()}, weight=p + (1 - 2 * p) * Heaviside(u * label))
    m, q, clean = *numbers(model, "m", "q", alpha=1, p=0.1), numbers(BINARY, "q", alpha=1)[0]
    assert m == pytest.approx(q, abs=1e-7)
    assert 0 < q < clean


def test_noise_before_the_sign() -> None:
    """sign(v + noise) is a flip whose probability depends on v; the same labels by one field of larger variance."""
    noisy = X @ Quenched("w0", Ising()) + sqrt(Delta) * Quenched("e", Normal(0, 1), over=data)
    model = Gibbs({w: Ising()}, weight=Heaviside((X @ w) * sign(noisy)) + exp(-beta))
    small, large = (numbers(model, "m", alpha=1, Delta=d, beta=3)[0] for d in (0.01, 1.0))
    assert 0 < large < small
    theory = derive(model)
    action = theory.derivation.find(RSAction)
    assert action is not None
    assert "sign(zeta" in str(action.sites[1].variable.weight.factor).replace("sqrt(Delta + 1)*", "")


def test_two_teachers() -> None:
    """A committee of two teachers: exchanging them changes nothing, and both are learned alike."""
    one, two = Quenched("a", Normal(0, 1)), Quenched("b", Normal(0, 1))
    label = sign(X @ one) * Heaviside(X @ two) + sign(X @ two) * Heaviside(-(X @ two))
    model = Gibbs({w: Spherical()}, weight=exp(-beta * Heaviside(-(X @ w) * label)))
    theory = derive(model)
    action = theory.derivation.find(RSAction)
    assert action is not None
    assert sum("zeta" in str(q) for q in action.sites[1].variable.weight.labels) == 2


def test_sums_of_couplings_are_one_field() -> None:
    """What a weight depends on only through a sum is that sum, whichever way it is written."""
    a, b, c = symbols("a b c", real=True)
    for written in (Heaviside(2 * a - 3 * b), exp(-((a - b) ** 2).expand()), Piecewise((0, a + b > 1), (1, True))):
        groups = combined([written], [a, b])
        assert len(groups) == (2 if isinstance(written, Piecewise) else 1)
    assert combined([Heaviside(2 * a - 3 * b)], [a, b])[0][1] == [1, Rational(-3, 2)]
    assert len(combined([a * b + c], [a, b])) == 2


# -- witnesses -----------------------------------------------------------------------------------------------------
POINT = {"alpha": 0.6, "q": 0.5, "m": 0.3, "r": 1.3, "a": 0.8, "R": 0.7}


def at_point(model: Gibbs) -> tuple[RSAction, dict[Expr, float]]:
    action = derive(model).derivation.find(RSAction)
    assert action is not None
    found = {v.name: v for v in action.values.values() if v.is_Symbol}  # type: ignore[attr-defined]
    found |= {p.name: p for p in action.problem.action.parameters}
    return action, {found[k]: v for k, v in POINT.items() if k in found}


def evaluate(model: Gibbs, expr: Expr, at: dict[Expr, float]) -> float:
    from quenched.numerics.replica_evaluator import Evaluator

    problem = derive(model).derivation.replica_problem
    assert problem is not None
    ev = Evaluator(problem, at)  # type: ignore[arg-type]
    ev.names, ev.cache = list(at), {}  # type: ignore[arg-type]
    return ev.number(expr, at)  # type: ignore[arg-type]


def test_few_replicas_next_to_a_teacher() -> None:
    action, at = at_point(BINARY)
    free = derive(BINARY).derivation.find(FreeEntropyForm)
    assert free is not None
    limit = evaluate(BINARY, free.value, at)
    gaps = [copies_free_entropy(action, n, at) / n - limit for n in (0.01, 0.001)]  # type: ignore[arg-type]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


def test_gradient_next_to_a_teacher() -> None:
    _, at = at_point(BINARY)
    equations = derive(BINARY).derivation.find(SaddleEquations)
    assert equations is not None
    for unknown, gradient in equations.gradient.items():
        up, down = (evaluate(BINARY, equations.free.value, at | {unknown: at[unknown] + d}) for d in (1e-4, -1e-4))
        assert evaluate(BINARY, gradient, at) == pytest.approx((up - down) / 2e-4, abs=1e-6)


def test_enumeration_of_students() -> None:
    """Entropy of ±1 students by counting all states, against the theory at the actual ratio of patterns."""
    counts = [Instance(BINARY, 12, 1, k, alpha=0.5).enumerate().log_z / 12 + np.log(2) for k in range(60)]
    (theory,) = numbers(BINARY, "entropy", alpha=0.5)
    error = np.std(counts, ddof=1) / np.sqrt(len(counts))
    assert np.mean(counts) == pytest.approx(theory, abs=3 * error + 0.01)
    assert error < 0.012


def test_weights_of_two_populations_learn_as_those_of_one() -> None:
    """A logistic student of a sign teacher: where the priors are the same, dividing the weights changes nothing."""

    def overlaps(shares: list[Rational]) -> list[float]:
        samples = Population("sample", fraction=symbols("alpha", positive=True))
        parts = [Population(f"part_{k}", fraction=share) for k, share in enumerate(shares)]
        weights = [Field(f"w_{k}", p) for k, p in enumerate(parts)]
        teachers = [Quenched(f"t_{k}", Normal(0, 1), over=p) for k, p in enumerate(parts)]
        inputs = [Iid(f"x_{k}", Normal(0, 1), over=(samples, p)) for k, p in enumerate(parts)]
        label = sign(sum(x @ v for x, v in zip(inputs, teachers, strict=True)))
        field = sum(x @ w for x, w in zip(inputs, weights, strict=True))
        model = Gibbs({w: Normal(0, 1) for w in weights}, weight=1 / (1 + exp(-4 * label * field)))
        pairs = enumerate(zip(weights, teachers, strict=True))
        solution = derive(model.observe(**{f"m_{k}": mean(w * v) for k, (w, v) in pairs})).solve(alpha=1)
        return [float(solution[f"m_{k}"]) for k in range(len(shares))]

    (whole,) = overlaps([Rational(1)])
    assert overlaps([Rational(1, 4), Rational(3, 4)]) == pytest.approx([whole, whole], abs=1e-9)
