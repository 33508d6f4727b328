"""What witnesses are made of: the scene that they draw numbers from, the comparison, and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sympy import Symbol

#: Comparisons of algebra, and of finite differences of quadratures.
EXACT, DIFFERENCES = 1e-9, 1e-5


@dataclass(frozen=True)
class Tick:
    """The outcome of one comparison.

    Attributes
    ----------
    title : the step
    passed : whether the meanings agree; None where there is nothing to compare, with the reason in `method`
    deviation, tolerance : relative difference found and allowed (in standard errors for the few-step comparison)
    method : what was compared
    seconds : time taken
    """

    title: str
    passed: bool | None
    deviation: float
    tolerance: float
    method: str
    seconds: float

    @property
    def detail(self) -> str:
        """Deviation and method in one line."""
        if self.passed is None:
            return self.method
        return f"{self.method}: {self.deviation:.1e} (allowed {self.tolerance:.0e}, {1e3 * self.seconds:.0f} ms)"


@dataclass(frozen=True)
class Scene:
    """A declaration, random values of its parameters, and a seed: what witnesses draw their numbers from."""

    model: Any
    values: dict[Symbol, float] = field(hash=False)
    seed: int

    def rng(self) -> np.random.Generator:
        """Always the same numbers, so that a form and its mutants are compared on equal terms."""
        return np.random.default_rng([self.seed, 1])


@dataclass(frozen=True)
class Witness:
    """How a step is checked: the words, the tolerance, and the comparison (None: nothing to compare)."""

    method: str
    tolerance: float
    run: Callable[[Any, Any, Scene], float | None]
