"""Observables of the eigenvalues of the Jacobian, in a solved state of a dynamics.

The Jacobian is derived like any declared matrix, with the laws of the units' states that the solution gives. What is
not known of these laws is the error of the observable: other laws give other values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Expr

from quenched.readout import Quantity
from quenched.theory.eigenvalue_observables import OfEigenvalues

if TYPE_CHECKING:
    from quenched.eigenvalue_readout import Reader
    from quenched.solution import Branch
    from quenched.state_laws import Laws
    from quenched.theory_object import Theory


class JacobianReader:
    """The Jacobian's spectrum in one state.

    Parameters
    ----------
    theory : Theory
    values : dict of Symbol to float
    laws : function without arguments
        Gives equally good laws of the state, whose values are averaged, and laws that are moved by their errors.
    """

    def __init__(
        self, theory: Theory, values: Mapping[Any, float], laws: Callable[[], tuple[Sequence[Laws], Sequence[Laws]]]
    ) -> None:
        self._theory, self._values, self._laws = theory, dict(values), laws

    def quantity(self, expr: Expr) -> Quantity:
        """An expression in functionals of the eigenvalues.

        Raises
        ------
        NotCovered
            For a Jacobian that is not built, or whose spectrum has nothing of the kind.
        """
        good, moved = ([reader.quantity(expr) for reader in group] for group in self._readers)
        values = np.array([q.value for q in good])
        scatter = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
        shift = max((abs(q.value - good[0].value) for q in moved), default=0.0)
        return Quantity(float(values.mean()), float(max(q.error for q in good) + np.hypot(scatter, shift)))

    def scale(self, expr: Expr) -> tuple[float, str] | None:
        """What the error of an observable that may vanish is relative to."""
        return self._readers[0][0].scale(expr)

    @cached_property
    def _readers(self) -> tuple[list[Reader], list[Reader]]:
        from quenched.spectral import SpectralTheory, jacobian_of
        from quenched.theory.spectral import derive_spectrum

        def reader(laws: Laws) -> Reader:
            return SpectralTheory(derive_spectrum(jacobian_of(self._theory, self._values, laws))).solve().reader

        good, moved = self._laws()
        return [reader(laws) for laws in good], [reader(laws) for laws in moved]


def with_jacobian(theory: Theory, branch: Branch, reader: JacobianReader) -> Branch:
    """The branch, with observables of eigenvalues read off its Jacobian."""
    observed = {n: e for n, e in theory.written.observables.items() if e.atoms(OfEigenvalues)}
    return branch.reading(observed, reader) if observed else branch
