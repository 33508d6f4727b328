"""Growth rate of small perturbations of the state in which all fields vanish, from the linear part of a network.

The linear part is the tangent of the generated right-hand side at zero, applied to vectors; its outermost eigenvalues
come from ARPACK. No Jacobian is derived, and no theory is used. Runs in worker processes; no sympy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from quenched.theory.errors import QuenchedError
from quenched.validate.estimators import Estimator
from quenched.validate.linearised import Tangents

if TYPE_CHECKING:
    from quenched.validate.realise import Network

Array = NDArray[Any]
Law = Literal["tip", "rim", "soft", "single"]

#: Where the results of a realisation have what `silent_growth` returns.
SILENT = "silent state"
#: Networks of fewer dimensions have all their eigenvalues computed.
_DENSE = 160
#: Relative accuracy of the eigenvalues; the scatter between networks is a thousand times larger.
_TOL = 1e-5
#: What stands for the growth rate, the power of its finite-size correction, and why.
LAWS: dict[Law, tuple[str, float, str]] = {
    "tip": (
        "the real part of rank n^(1/4)",
        0.5,
        "the eigenvalue of rank N^(1/4) from the tip of a smooth boundary lies N^(-1/2) inside",
    ),
    "rim": (
        "the logarithm of the modulus of rank n^(1/2)",
        0.5,
        "the eigenvalue of rank N^(1/2) from the rim of a disc lies N^(-1/2) inside",
    ),
    "soft": (
        "the largest one, of a symmetric matrix",
        2 / 3,
        "extreme eigenvalues of a density that ends like a square root lie N^(-2/3) from its edge",
    ),
    "single": (
        "the outermost one, which stands apart from all others",
        1.0,
        "a single eigenvalue scatters by N^(-1/2) about a mean with corrections of order 1/N",
    ),
}


def silent_growth(net: Network, functions: dict[str, Any]) -> Array:
    """Growth rates of small perturbations of zero, per unit of time (a step of a map).

    Returns
    -------
    array (3,)
        The outermost one, that of the rank which follows a power of N, and the position in `LAWS` of how they end here.

    Raises
    ------
    QuenchedError
        Where zero is no fixed point.
    """
    apply, n = _linear_part(net, functions["linearised"]), net.shape[1]
    clock = net.task.clock
    wanted = 2 * int(np.ceil(_rank("tip" if clock == "flow" else "rim", n))) + 4
    values = _outermost(apply, n, wanted, clock, net.stream("silent"))
    size = np.real(values) if clock == "flow" else np.log(np.maximum(np.abs(values), 1e-300))
    order = np.argsort(-size)
    values, size = values[order], size[order]
    whole: Law = "soft" if _symmetric(apply, n, net.stream("silent symmetry")) else "tip" if clock == "flow" else "rim"
    law: Law = "single" if _stands_apart(values, size) else whole
    return np.array([size[0], _ranked(size, _rank(whole, n)), list(LAWS).index(law)])


def growth_rates(found: Array) -> tuple[Array, Law]:
    """What counts as growth rate of every realisation (R, 1), by the law that most of them follow.

    Parameters
    ----------
    found : array (R, 3), what `silent_growth` returned
    """
    law = list(LAWS)[int(np.bincount(found[:, 2].astype(int)).argmax())]
    return (found[:, :1] if law == "single" else found[:, 1:2]), law


def silence_estimator(name: str, law: Law) -> Estimator:
    """How the growth rate of the silent state is measured, given how its eigenvalues end."""
    what, power, reason = LAWS[law]
    return Estimator(
        name,
        f"of the eigenvalues of the linear part at zero: {what}",
        "mean",
        "none but finite N: eigenvalues at zero itself, no time steps",
        "declaration",
        min_N=100,
        power=power,
        reason=reason,
    )


def _linear_part(net: Network, rhs: Callable[..., None]) -> Callable[[Array], Array]:
    """v ↦ ∂F/∂x(0)·v."""
    one, shape = Tangents(net, 0, 1, []), (2, net.shape[1])
    y, out = np.zeros(shape), np.zeros(shape)

    def apply(vector: Array) -> Array:
        y[1] = np.ravel(vector)
        rhs(one, 0.0, y, [], 0, out)
        return out[1].copy()

    apply(y[0])
    if np.max(np.abs(out[0])) > 1e-12:
        raise QuenchedError("zero is no fixed point of this network, so that nothing grows from it")
    return apply


def _outermost(apply: Callable[[Array], Array], n: int, count: int, clock: str, rng: np.random.Generator) -> Array:
    """Eigenvalues with the largest real parts (of a map: moduli), at least `count`, or all."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

    if n >= _DENSE and 4 * count < n:
        operator, start = LinearOperator((n, n), matvec=apply, dtype=float), rng.standard_normal(n)
        end = "LR" if clock == "flow" else "LM"
        try:
            return np.asarray(
                eigs(operator, count, which=end, v0=start, ncv=4 * count, tol=_TOL, return_eigenvectors=False)
            )
        except ArpackNoConvergence:
            pass
    return np.linalg.eigvals(np.stack([apply(row) for row in np.eye(n)], axis=1))


def _stands_apart(values: Array, size: Array) -> bool:
    """Whether the outermost eigenvalue (or pair) is farther from the next than that from twice as many as a tip takes.

    Some networks of a density in the plane have such a one by chance, most of those where it belongs to the theory do.
    """
    rest = size[2 if values[0].imag else 1 :]
    return len(rest) < 2 or bool(size[0] - rest[0] > rest[0] - rest[-1])


def _symmetric(apply: Callable[[Array], Array], n: int, rng: np.random.Generator) -> bool:
    a, b = rng.standard_normal((2, n))
    left, right = a @ apply(b), b @ apply(a)
    return bool(abs(left - right) < 1e-4 * (abs(left) + abs(right)) / np.sqrt(n) + 1e-4 * np.linalg.norm(apply(b)))


def _rank(law: Law, n: int) -> float:
    return {"tip": n**0.25, "rim": n**0.5}.get(law, 1.0)


def _ranked(descending: Array, rank: float) -> float:
    """The value of a rank counted from the largest (1), interpolated between ranks."""
    return float(np.interp(rank - 1, np.arange(len(descending)), descending))


__all__ = ["LAWS", "SILENT", "Law", "growth_rates", "silence_estimator", "silent_growth"]
