"""`Theory.stable_fixed_points`: the exponent of the mean number of stable fixed points of a declared flow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from quenched.derived_form import DerivedForm
from quenched.theory.counted import counted
from quenched.theory.counting import ORDER, StableCount, derive_count
from quenched.theory.errors import NotCovered, QuenchedError

if TYPE_CHECKING:
    from quenched.numerics.counting import Count
    from quenched.numerics.types import Number
    from quenched.theory.model import Model

Params = Mapping[Any, Any] | None


class StableFixedPoints(DerivedForm[StableCount]):
    """(1/N) ln of the mean number of stable fixed points, an extremum over an integral of one unit."""

    kind = StableCount

    def solve(self, params: Params = None, **keywords: float) -> Count:
        """Complexity Σ and the average C of most fixed points; −inf where none can be stable.

        Raises
        ------
        NotCovered
            Bonds or further fields of a unit that oppose what drives them do not lose stability at a growth rate of
            zero; the count is then an upper bound, which is given where it says that there are none.
        """
        from quenched.numerics.counting import count

        values = self.model.values(params, **keywords)
        found = count(self._site(values))
        if found.complexity.value > 0 and (who := self._opposing(values, found.order)):
            raise NotCovered(
                f"{who} that oppose what drives them may lose stability by an oscillation: only a bound "
                f"Σ ≤ {found.complexity.value:.4g} is derived"
            )
        return found

    def critical(self, parameter: Any, low: float, high: float, params: Params = None, **keywords: float) -> Number:
        """The value of one parameter between two others at which Σ crosses zero.

        Raises
        ------
        QuenchedError
            For an unknown parameter, or where Σ has one sign at both ends.
        """
        from scipy.optimize import brentq

        from quenched.numerics.types import Number

        name = self.named(parameter)
        given = {**{str(k): v for k, v in (params or {}).items()}, **keywords}

        @cache  # the ends are asked for again
        def height(value: float) -> float:
            return self.height(value, name, given)

        if not height(low) * height(high) < 0:
            raise QuenchedError(
                f"the number of stable fixed points does not change between {name} = {low:g} and {high:g}"
            )
        root = float(brentq(height, low, high, xtol=1e-7))
        step = 1e-3 * abs(high - low)
        slope = (height(root + step) - height(root - step)) / (2 * step)
        return Number(root, 1e-7 + self.solve({**given, name: root}).complexity.error / abs(slope))

    def height(self, value: float, parameter: str, given: Mapping[str, float]) -> float:
        """Σ at a value of a parameter, −1 where it is lower or no state can be stable."""
        return max(self.solve({**given, parameter: value}).complexity.value, -1.0)

    def _functions(self, values: Mapping[Any, float]) -> Any:
        """A compiler of expressions of a unit into functions of (state, C)."""
        import numpy as np
        from sympy import lambdify

        state = self.form.units.state

        def function(expr: Any) -> Any:
            raw = lambdify([state, ORDER], expr.xreplace(dict(values)), modules=["scipy", "numpy"])
            return lambda x, c: np.broadcast_to(np.asarray(raw(x, c), float), np.shape(x))

        return function

    def _site(self, values: Mapping[Any, float]) -> Any:
        from quenched.numerics.counting import Site

        make, form = self._functions(values), self.form
        units = form.units
        variance = make(units.variance)
        return Site(
            make(units.drift),
            lambda c: float(variance(0.0, c)),
            make(units.average),
            make(form.weight),
            make(form.edge),
        )

    def _opposing(self, values: Mapping[Any, float], order: float) -> str:
        """What pushes a unit back where it came from, later: dynamic couplings, other fields; "" for nothing."""
        import numpy as np
        from sympy import lambdify

        from quenched.numerics.counting import answers_slowly

        units, make, x = self.form.units, self._functions(values), np.linspace(-5, 5, 101)
        if np.any(make(units.feedback.diff(units.state))(x, order) < -1e-12):
            return "bonds"
        if not units.followers or units.inner is None:
            return ""
        x = x[make(self.form.weight)(x, order) > 0]
        raw = lambdify([units.state], units.inner.xreplace(dict(values)), modules=["scipy", "numpy"])
        inner = np.array([raw(value) for value in x], float)
        return "" if answers_slowly(inner, *units.ends) else f"fields ({', '.join(str(f) for f, _ in units.followers)})"


def observed_counts(model: Any) -> tuple[StableFixedPoints, ...]:
    """What is derived for an observed number of stable fixed points; nothing where none is observed or derived."""
    try:
        return (complexity(model),) if counted(model) else ()
    except NotCovered:
        return ()


def complexity(model: Model) -> StableFixedPoints:
    """Derive the number of stable fixed points of a declared flow.

    Raises
    ------
    NotCovered
        A declaration whose count is not derived: the message names the term.
    """
    return StableFixedPoints(derive_count(model))
