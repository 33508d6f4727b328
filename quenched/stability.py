"""Stability of a theory's states: growth rates in numbers, and the two-copy Hessian that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quenched.rendering import Lines

if TYPE_CHECKING:
    from quenched.theory.copy_stability import CopyStability
    from quenched.theory.record import Step

Rates = Mapping[str, tuple[float, float]]


class Stability(Mapping[str, tuple[float, float]]):
    """Label of a branch → (rate, error), computed when it is asked for; and P''Σ between two copies, step by step.

    Parameters
    ----------
    derivation : of any reading
        With a verb ``stability()`` that takes the steps.
    solve : function without arguments
        Gives the numbers.
    """

    def __init__(self, derivation: Any, solve: Callable[[], Rates]) -> None:
        self._own, self._solve = derivation, solve

    @cached_property
    def rates(self) -> Rates:
        """The numbers of every branch."""
        return self._solve()

    def __getitem__(self, label: str) -> tuple[float, float]:
        return self.rates[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rates)

    def __len__(self) -> int:
        return len(self.rates)

    @cached_property
    def derivation(self) -> Any:
        """The theory's own steps and those from the quadratic action between two copies to P''Σ.

        Raises
        ------
        NotCovered
            For states whose two-copy Hessian is not built.
        """
        return self._own.stability()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the Hessian."""
        return tuple(self.derivation.steps[len(self._own.steps) :])

    @property
    def hessian(self) -> CopyStability:
        """P''Σ between two copies; its largest eigenvalue is 1 where a difference neither grows nor decays."""
        form: CopyStability = self.steps[-1].after  # type: ignore[assignment]
        return form

    @property
    def lines(self) -> Lines:
        """The lines of all steps of the Hessian."""
        return Lines(line for step in self.steps for line in step.after.lines())

    @property
    def agreement(self) -> Lines:
        """The Hessian against the condition that the reading derives by its own route, with their differences.

        Raises
        ------
        NotCovered
            The reading has no other route to its stability.
        """
        from quenched.theory.stability_identities import stability_identities

        return Lines(identity.line() for identity in stability_identities(self.derivation))

    def __repr__(self) -> str:
        return repr(dict(self.rates))

    def _repr_html_(self) -> str:
        return self.lines._repr_html_()
