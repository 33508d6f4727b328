"""Györgyi, Tishby (1990); Seung, Sompolinsky, Tishby, PRA 45, 6056 (1992); Zdeborová, Krzakala, arXiv:1511.02476."""

from sympy import Heaviside, sign, symbols

from quenched import Field, Gibbs, Growth, Iid, Normal, Population, Quenched, Replicon, mean, units
from quenched.theory.distributions import Law


def bayes_perceptron(prior: Law | None = None) -> Gibbs:
    """Weights that agree with the signs that a teacher of the same law gives to αN inputs."""
    law = prior or Normal(0, 1)
    alpha = symbols("alpha", positive=True)
    teacher, samples = Quenched("w_0", law), Population("sample", fraction=alpha)
    w = Field("w", initial=teacher)  # a state of the measure itself
    x = Iid("x", Normal(0, 1), over=(samples, units))
    model = Gibbs({w: law}, weight=Heaviside((x @ w) * sign(x @ teacher)), name="bayes-perceptron", defaults={alpha: 2})
    return model.observe(
        q=mean(w[1] * w[2]),
        m=mean(w * teacher),
        mse=mean((w[1] - teacher) * (w[2] - teacher)),  # of the mean of the posterior
        replicon=Replicon(),
        growth=Growth(),
    )
