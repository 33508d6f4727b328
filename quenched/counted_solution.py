"""Solutions where the number of stable fixed points is observed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quenched.readout import Quantity
from quenched.silence import bracket
from quenched.theory.counted import counts, is_counted
from quenched.theory.errors import NotCovered, QuenchedError

if TYPE_CHECKING:
    from sympy import Expr

    from quenched.solution import Branch, Solution
    from quenched.theory_object import Theory


#: What is told where the exponent is not positive.
_NONE = (
    "the theory expects no stable fixed point besides the silent one ({} = {:.4g} ≤ 0): nothing grows with N "
    "that small networks could show, they could only contradict it"
)


class CountReader:
    """Exponents of numbers of stable fixed points, and where they vanish, at values of the parameters."""

    def __init__(self, theory: Theory, values: Mapping[Any, float]) -> None:
        self._count, self._values = theory.stable_fixed_points(), {str(k): float(v) for k, v in values.items()}

    def quantity(self, expr: Expr) -> Quantity:
        """The exponent, or the value of a parameter nearest to the given one at which it vanishes.

        Raises
        ------
        NotCovered
            Another observable, or no state that could be stable.
        """
        if not is_counted(expr):
            raise NotCovered(f"{expr} is no number of fixed points: declare it apart")
        if counts(expr):
            found = self._count.solve(self._values).complexity
            return Quantity(found.value, found.error)
        name = str(expr.parameter)
        low, high = bracket(lambda v: self._count.height(v, name, self._values), self._values[name], expr)
        root = self._count.critical(name, low, high, self._values)
        return Quantity(root.value, root.error)

    def scale(self, expr: Expr) -> tuple[float, str] | None:
        """Errors are relative to the value itself."""
        return None


def counted_solution(theory: Theory, values: Mapping[Any, float]) -> Solution:
    """The solution where numbers of stable fixed points are observed: no state of the dynamics is looked for."""
    from quenched.solution import Branch, Solution
    from quenched.theory.observables import Critical

    reader, observed = CountReader(theory, values), dict(theory.model.observables)
    shared = frozenset(n for n, e in observed.items() if isinstance(e, Critical))
    none = Quantity(0.0, 0.0)  # where perturbations of a point neither grow nor fade, it becomes unstable
    branch = Branch("stable fixed points", "static", True, none, list(observed), lambda name: none, shared)
    given = {str(k): float(v) for k, v in values.items()}
    branch.reading(observed, reader)
    branch.doubt = _none_expected(branch, [n for n, e in observed.items() if counts(e)])
    return Solution([branch], 0, given, Solution.provenance_of(theory))


def _none_expected(branch: Branch, names: list[str]) -> str:
    """Why small networks can only contradict the theory where it expects no stable fixed point; "" where it does."""
    for name in names:
        try:
            value = branch.quantity(name).value
        except QuenchedError:  # told where the observable is asked for
            continue
        if value <= 0:
            return _NONE.format(name, value)
    return ""


__all__ = ["CountReader", "counted_solution"]
