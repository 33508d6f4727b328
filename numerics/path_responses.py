"""Responses ⟨δa(t)/δh(s)⟩ of marched paths, from perturbed twins of every path.

A twin has the random numbers of its path, and fields that are shifted by ε·z(s), with white z of its own. What the
shift changes of an output at t is linear in all earlier z, so that its average with z(s) is the response to the field
at s: one twin measures all of them at once. The z of different times are drawn orthogonal over the twins, which leaves
only the scatter of the response from path to path (none for linear units). A twin remembers its own past, as a response
does.

The response of a marched step, not of the flow, is what comes out: the memory of the network that takes the same steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sympy import Expr, Heaviside, Symbol, sign

from quenched.theory.problem import SampledUnit, SiteProcess

from .types import Array

#: Size of the shift of smooth units; where something jumps, in standard deviations of the field over a time of one, as
#: twins have to pass jumps often (the response is that to a field with a variance larger by its square).
_SMALL, _OVER_JUMPS = 1e-4, 0.15


class Twins:
    """Twins of all paths: columns of every array behind those of the paths themselves, as many for each path.

    Parameters
    ----------
    memory : (u, coefficient, a, v, b) by name, as in `SiteProcess`
    shape : paths, twins of each, steps
    dt : length of a step
    white : draws (variables, columns), orthogonal over the columns
    """

    def __init__(
        self,
        process: SiteProcess,
        memory: list[tuple[str, float, str, str, str]],
        shape: tuple[int, int, int],
        dt: float,
        white: Callable[[int, int], Array],
    ) -> None:
        self.paths, self.each, self.steps = shape
        if not memory:
            self.each = 0
        self.memory = memory
        self.dt, self.jump = dt, any(jumps(u) for u in process.units)
        kicked = list(dict.fromkeys(v for _, _, _, v, _ in memory))
        self.shifts = {v: white(self.steps, self.each * self.paths) for v in kicked}
        self.sizes = {v: np.full(self.steps, _SMALL) for v in kicked}
        self._rows: dict[tuple[str, str], Array] = {}

    @property
    def columns(self) -> int:
        """Paths and their twins."""
        return self.paths * (1 + self.each)

    def spread(self, rows: Array) -> Array:
        """What paths and twins share, (…, paths) → (…, columns)."""
        return np.concatenate([rows] * (1 + self.each), axis=-1) if self.each else rows

    def shift(self, unit: SampledUnit, step: int, h: Array) -> None:
        """Shift the fields (fields, columns) of the twins at this step."""
        for k, field in enumerate(unit.fields):
            if field.name in self.shifts:
                size = self.sizes[field.name]
                if self.jump:
                    size[step] = max(_SMALL, _OVER_JUMPS * h[k, : self.paths].std() / np.sqrt(self.dt))
                h[k, self.paths :] += size[step] * self.shifts[field.name][step]

    def begin(self) -> None:
        """Forget the rows of the last step."""
        self._rows.clear()

    def response(self, a: str, v: str, past: dict[str, Array], step: int) -> Array:
        """⟨δa(now)/δh_v(s)⟩ at all earlier steps s, (step,), times the length of a step."""
        if (a, v) not in self._rows:
            now = past[a][step]
            moved = now[self.paths :].reshape(self.each, -1) - now[: self.paths]
            z = self.shifts[v][:step]
            self._rows[a, v] = z @ moved.ravel() / (self.sizes[v][:step] * z.shape[1])
        return self._rows[a, v]


def jumps(unit: SampledUnit) -> bool:
    """Whether an equation or output of a unit jumps as its states or fields move."""
    moving = {*unit.states, *unit.fields, *(s for s, _, _ in unit.earlier)}
    return any(_jumps(e, moving) for e in (*unit.rhs, *(body for _, body in unit.outputs)))


def _jumps(e: Expr, moving: set[Symbol]) -> bool:
    return any(step.free_symbols & moving for step in e.atoms(Heaviside, sign))


__all__ = ["Twins", "jumps"]
