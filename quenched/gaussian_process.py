"""Predictions by networks of infinite width: Gaussian-process regression with a derived kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sympy import Expr, Matrix, exp, eye, sqrt, sympify

from quenched.theory.errors import QuenchedError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Posterior of the output at test inputs.

    Attributes
    ----------
    mean : array (T,) or (T, outputs)
    covariance : array (T, T)
        Without the noise of the readout.
    log_evidence : float
        ln p(y), summed over outputs.
    """

    mean: Array
    covariance: Array
    log_evidence: float


def predict(kernel: ArrayLike, train: Sequence[int], y: ArrayLike, noise: float, test: Sequence[int]) -> Prediction:
    """Condition a Gaussian process on noisy outputs at the training inputs.

    Parameters
    ----------
    kernel : array (M, M)
        Covariance of the outputs over all inputs: the variance of the readout weights times `LayeredSolution.kernel`.
    train, test : positions of inputs
    y : array (len(train),) or (len(train), outputs)
    noise : float
        Variance σ² of the readout noise.

    Raises
    ------
    QuenchedError
        Shapes that do not fit, or a covariance of the data that is not positive definite.
    """
    from scipy.linalg import cho_factor, cho_solve

    K, data = np.asarray(kernel, float), np.asarray(y, float)
    if len(data) != len(train):
        raise QuenchedError(f"y has {len(data)} rows for {len(train)} training inputs")
    block = K[np.ix_(train, train)] + noise * np.eye(len(train))
    try:
        factor = cho_factor(block, lower=True)
    except np.linalg.LinAlgError:
        raise QuenchedError("the covariance of the training outputs is not positive definite: give noise > 0") from None
    cross = K[np.ix_(test, train)]
    weights = cho_solve(factor, data)
    columns = 1 if data.ndim == 1 else data.shape[1]
    spread = 2 * float(np.sum(np.log(np.diag(factor[0])))) + len(train) * np.log(2 * np.pi)
    evidence = -0.5 * float(np.sum(data * weights)) - 0.5 * columns * spread
    return Prediction(cross @ weights, K[np.ix_(test, test)] - cross @ cho_solve(factor, cross.T), evidence)


def prediction(kernel: Any, y: Sequence[Any], noise: Any) -> tuple[Expr, Expr]:
    """The posterior mean at the last input and the evidence of the others, as expressions in the kernel's entries.

    Parameters
    ----------
    kernel : nested sequence of expressions (n + 1, n + 1)
        For instance ``g_o**2 * mean(phi(h[i](A)) * phi(h[j](A)))``: then both are functions of one network's averages,
        and ``Posterior(*prediction(K, y, noise))`` is the prediction by prior networks weighted by their evidence.
    y : sequence (n,)
    noise : expression
    """
    K = Matrix(kernel)
    n = K.rows - 1
    if len(y) != n:
        raise QuenchedError(f"prediction takes {n} outputs for a kernel of {n + 1} inputs, got {len(y)}")
    block, data = K[:n, :n] + sympify(noise) * eye(n), Matrix([sympify(v) for v in y])
    inverse = block.inv(method="ADJ")
    found: Expr = (K[n, :n] * inverse * data)[0, 0]
    evidence: Expr = exp(-(data.T * inverse * data)[0, 0] / 2) / sqrt(block.det(method="berkowitz"))
    return found, evidence
