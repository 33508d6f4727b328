"""What the generator hands to the simulator: readable array code and the tables that it indexes.

Plain data without sympy, so that a realisation can be sent to any worker process.
"""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from quenched.validate.products import Word

NoiseKind = Literal["none", "additive", "multiplicative", "nonlinear"]


#: The sign of a factor at a fixed time: its offset is the time itself.
FIXED = 2


@dataclass(frozen=True)
class Factor:
    """One channel at time t + sign·τ + offset (in steps, resolved when the step is known), or at a fixed time."""

    channel: int
    sign: int
    offset: int


@dataclass(frozen=True)
class Moment:
    """Average over units, trajectories and time of a product of channels, or of `combine` of them."""

    factors: tuple[Factor, ...]
    combine: str | None = None

    @property
    def lagged(self) -> bool:
        """Whether it depends on τ."""
        return any(abs(f.sign) == 1 for f in self.factors)


@dataclass(frozen=True)
class Crossing:
    """Covariances C_ij(τ) = ⟨a_i(t) b_j(t+τ)⟩ between units, and what is formed of them.

    Attributes
    ----------
    statistic : "participation" ((Tr C)² and Tr C², kept apart) or "variance" (mean over i ≠ j of n C_ij², n units)
    first, second : channels a and b, at times t and t + sign·τ + offset
    """

    statistic: Literal["participation", "variance"]
    first: int
    second: Factor


@dataclass(frozen=True)
class Program:
    """Generated source and its tables.

    Attributes
    ----------
    source : str
        Functions ``rhs``, ``channels``, ``start``, ``observables`` and the ``combine_k`` of inseparable moments.
    tangent : bool
        Whether the state carries tangent vectors in its second half of rows.
    populations : names of the index spaces; other tables refer to them by position.
    fields, noises, quenched : (label, population) in the order of the state, noise and disorder tables.
    parameters : names in the order of ``env.parameters`` (``N`` included).
    matrices : labels of the atoms.
    bonds : (label, population of the rows, of the columns, number of drives) of dynamic couplings.
    buffers : (population, with tangent) of the arrays that couplings read.
    silent : names of the growth rates of the state in which all fields vanish.
    products : static couplings in a row, each as (matrix, transposed) from the left.
    channels : population of every recorded channel, −1 for one number.
    autonomous : False when time occurs explicitly.
    """

    source: str
    tangent: bool
    populations: tuple[str, ...]
    fields: tuple[tuple[str, int], ...]
    noises: tuple[tuple[str, int], ...]
    quenched: tuple[tuple[str, int], ...]
    parameters: tuple[str, ...]
    matrices: tuple[str, ...]
    bonds: tuple[tuple[str, int, int, int], ...]
    buffers: tuple[tuple[int, bool], ...]
    channels: tuple[int, ...]
    autonomous: bool
    noise_kind: NoiseKind
    products: tuple[Word, ...] = ()
    silent: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def load(source: str) -> dict[str, Any]:
    """Compile generated source once a process; tracebacks show its lines."""
    name = f"<generated simulation {abs(hash(source)):x}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    namespace: dict[str, Any] = {}
    exec(compile(source, name, "exec"), namespace)
    return namespace
