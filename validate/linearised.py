"""The Jacobian of a running network, from the tangent of its generated right-hand side: matrix and eigenvalues.

Many rows of the state hold the same trajectory, and each tangent vector is one unit vector. A small change of a linear
bond, dδA/dt = r δA + Σ_d (δl rᵀ + l δrᵀ), acts on the units only by the sums y = δA ψ that they read, and ψ stands
still: dy/dt = r y + Σ_d ((r·ψ) δl + (δr·ψ) l). Units and these sums have a closed matrix. Its eigenvalues are those of
the whole system of units and bonds but for those at the bonds' own rates r, of perturbations that no unit reads. No
sympy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quenched.validate.eigenvalue_experiment import MEASURE, Measure, evaluate

if TYPE_CHECKING:
    from quenched.validate.realise import Network

Array = NDArray[Any]
#: Columns of the matrix that are computed together.
CHUNK = 256


@dataclass(frozen=True)
class Observed:
    """What is read off the eigenvalues of the Jacobian.

    Attributes
    ----------
    measures : functionals of the eigenvalues
    formulas : (name, source in o[0], o[1], … the measures)
    """

    measures: tuple[Measure, ...] = ()
    formulas: tuple[tuple[str, str], ...] = ()

    def of(self, matrices: Iterable[Array]) -> dict[str, NDArray[np.float64]]:
        """Each observable, (1,), averaged over matrices."""
        rows = [self._one(np.linalg.eigvals(matrix).astype(complex)) for matrix in matrices]
        return {name: np.array([np.mean([row[name] for row in rows])]) for name, _ in self.formulas}

    def _one(self, values: Array) -> dict[str, float]:
        o = [MEASURE[m.kind](values, *m.numbers) for m in self.measures]
        return {name: float(evaluate(code, {"o": o})) for name, code in self.formulas}


@dataclass(frozen=True)
class Sum:
    """A sum δA ψ over a bond: the bond, whether it is read by its columns, ψ, and its units."""

    bond: int
    transposed: bool
    psi: Array
    units: int


@dataclass
class Tangents:
    """A network at one state, as the generated right-hand side sees it when it moves `width` tangent vectors at once.

    Attributes
    ----------
    trajectories : rows that hold the trajectory; as many tangent vectors follow
    added : changes δA ψ of the sums over bonds, one array (width, units) a sum in the order in which they are read
    sums : the sums that were read
    bonds : rates and drives that the right-hand side notes
    """

    net: Network
    which: int
    trajectories: int
    added: list[Array]
    sums: list[Sum] = field(default_factory=list)

    def __post_init__(self) -> None:
        net, rows = self.net, 2 * self.trajectories
        program, sizes = net.task.program, net.task.sizes
        self.buffers = [
            np.zeros((rows if moving else self.trajectories, sizes[p]), net.dtype) for p, moving in program.buffers
        ]
        self.bonds = [
            SimpleNamespace(
                rates=[0.0], left=np.zeros((1, drives, rows, sizes[p])), right=np.zeros((1, drives, rows, sizes[q]))
            )
            for _, p, q, drives in program.bonds
        ]

    def __getattr__(self, name: str) -> Any:
        """Couplings, parameters and disorder are those of the network."""
        return getattr(self.net, name)

    def through(self, bond: int, transposed: bool, stage: int, vectors: Array) -> Array:
        """A ψ, and A δψ + δA ψ for the tangent rows."""
        A = self.net.bonds[bond].matrices[self.which]
        out = np.asarray(vectors @ (A if transposed else A.T))
        if self.added:
            out[self.trajectories :] += self.added[len(self.sums)]
        self.sums.append(Sum(bond, transposed, vectors[0].copy(), out.shape[1]))
        return out

    def drive(self, one: Sum) -> Array:
        """Σ_d ((r·ψ) δl + (δr·ψ) l) for every tangent vector, (width, units of the sum)."""
        B, bond = self.trajectories, self.bonds[one.bond]
        left, right = (bond.right, bond.left) if one.transposed else (bond.left, bond.right)
        out = np.zeros((B, one.units))
        for u, v in zip(left[0], right[0], strict=True):
            out += (v[0] @ one.psi) * u[B:] + (v[B:] @ one.psi)[:, None] * u[0]
        return out


def jacobian(net: Network, rhs: Callable[..., None], t: float, y: Array, which: int) -> Array:
    """The matrix of units and of their sums over bonds at the state of one trajectory, (n, n).

    Parameters
    ----------
    net : the network, with its bonds at the time of the state
    rhs : generated right-hand side with tangents
    y : state (rows, units)
    which : number of the trajectory
    """
    state = np.asarray(y[which], float)
    first = Tangents(net, which, 1, [])
    _evaluate(first, rhs, t, state, np.zeros((1, len(state))))
    edges = np.cumsum([len(state), *(s.units for s in first.sums)])
    out = np.empty((edges[-1], edges[-1]))
    for start in range(0, edges[-1], CHUNK):
        unit = np.eye(edges[-1])[start : start + CHUNK]
        parts = np.split(unit, edges[:-1], axis=1)
        env = Tangents(net, which, len(unit), parts[1:])
        columns = [_evaluate(env, rhs, t, state, parts[0])]
        for one, part in zip(env.sums, parts[1:], strict=True):
            columns.append(env.bonds[one.bond].rates[0] * part + env.drive(one))
        out[:, start : start + len(unit)] = np.concatenate(columns, axis=1).T
    return out


def _evaluate(env: Tangents, rhs: Callable[..., None], t: float, state: Array, tangents: Array) -> Array:
    """The tangent rows of the right-hand side; noise has no part in them."""
    B = env.trajectories
    y = np.concatenate([np.broadcast_to(state, (B, len(state))), tangents])
    out = np.zeros_like(y)
    noise = [np.zeros((B, env.net.task.sizes[p])) for _, p in env.net.task.program.noises]
    rhs(env, t, y, noise, 0, out)
    return out[B:]
