"""Whether message passing on finite instances gets where state evolution says that it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from quenched.instance_theory import InstanceTheory

#: Standard errors, and absolute distance, beyond which instances do not get there.
BEYOND, APART = 4.0, 0.02


#: Instances that a verdict without a state of partial knowledge rests on: reference size, and how many.
LOOKED_AT = 400, 8


def full_knowledge(theory: InstanceTheory, values: Mapping[Any, float]) -> str:
    """What state evolution promises where it goes on until everything is known; empty where it stops before."""
    from quenched.numerics.evolution import known

    names = tuple(n for n, _ in theory.problem.observables if n[0] in "qQ")
    path = theory.trajectory(values, sweeps=500, names=names)
    last = {n: float(p[-1]) for n, p in path.items() if len(p)}
    if not known(last):
        return ""
    found = ", ".join(f"{n} = {x:.6g}" for n, x in last.items() if n[0] == "q")
    sweeps = len(path[names[0]]) - 1
    return (
        "there is no state of partial knowledge: state evolution ends where everything is known "
        f"({found}, mean square error 0, after {sweeps} sweeps); whether instances get there is another question "
        "(see instance().attainment(N))"
    )


@dataclass(frozen=True)
class Attainment:
    """State evolution and message passing side by side.

    Attributes
    ----------
    name : the observable, an overlap
    promised : its value after the last sweep of state evolution
    promised_sweeps : sweeps that state evolution took
    found : array (instances,), its values after the last sweep on instances
    behaviours : how each run ended
    N : reference size
    """

    name: str
    promised: float
    promised_sweeps: int
    found: NDArray[np.float64]
    behaviours: tuple[str, ...]
    N: int

    @property
    def reached(self) -> float:
        """Share of the instances that are as close as their fluctuations allow."""
        return float(np.mean(np.abs(self.found - self.promised) < max(APART, 1.5 / np.sqrt(self.N))))

    @property
    def ended(self) -> NDArray[np.float64]:
        """The values of the instances whose messages stayed finite."""
        return self.found[np.isfinite(self.found)]

    @property
    def attained(self) -> bool:
        """Whether instances agree with state evolution on average."""
        ended = self.ended
        if len(ended) < 2:
            return False
        error = float(np.std(ended, ddof=1) / np.sqrt(len(ended)))
        gap = abs(float(np.mean(ended)) - self.promised)
        return gap < max(BEYOND * error, APART) and self.reached > 0.5

    def __repr__(self) -> str:
        count = len(self.found)
        counts = ", ".join(f"{self.behaviours.count(b)} {b}" for b in dict.fromkeys(self.behaviours))
        head = f"state evolution: {self.name} = {self.promised:.6g} after {self.promised_sweeps} sweeps"
        body = (
            f"messages at N = {self.N}: {self.name} = {np.mean(self.ended):.4g} on average over {count} instances "
            f"(median {np.median(self.ended):.4g}; {counts})"
        )
        if self.attained:
            return f"{head}; {body}: they get there"
        return (
            f"{head}; {body}: finite instances do NOT get where state evolution says "
            f"({self.reached:.0%} of them are near; sizes or sweeps are too small, or the state is hard to reach)"
        )
