"""`Theory.onset`: whether activity sets in continuously or with a jump where silence loses its stability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quenched.derived_form import DerivedForm
from quenched.theory.counting import RestUnits
from quenched.theory.errors import QuenchedError
from quenched.theory.onset import ExpandActivity, WeakActivity

if TYPE_CHECKING:
    from quenched.theory.model import Model

Params = Mapping[Any, Any] | None


class Onset(DerivedForm[WeakActivity]):
    """C = L C + Q C² of weak activity."""

    kind = WeakActivity

    def coefficients(self, params: Params = None, **keywords: float) -> tuple[float, float]:
        """L and Q."""
        values = self.model.values(params, **keywords)
        linear, cubic = (float(e.subs(values)) for e in (self.form.linear, self.form.cubic))
        return linear, cubic

    def activity(self, params: Params = None, **keywords: float) -> float:
        """C of weak activity, (L − 1)/(−Q); nan where there is none with this sign.

        Where Q > 0 it is that of the unstable state between silence and strong activity.
        """
        linear, cubic = self.coefficients(params, **keywords)
        found = (1 - linear) / cubic if cubic else float("nan")
        return found if found >= 0 else float("nan")

    def tricritical(
        self, first: Any, second: Any, guess: tuple[float, float], params: Params = None
    ) -> dict[str, float]:
        """Values of two parameters at which L = 1 and Q = 0, from a guess.

        Raises
        ------
        QuenchedError
            For an unknown parameter, or where none is found.
        """
        import numpy as np
        from scipy.optimize import root

        pair = [self.named(first), self.named(second)]
        given = {str(k): v for k, v in (params or {}).items()}

        def apart(at: Any) -> list[float]:
            linear, cubic = self.coefficients({**given, **dict(zip(pair, map(float, at), strict=True))})
            return [linear - 1, cubic]

        found = root(apart, guess, tol=1e-12)
        if not found.success or np.max(np.abs(apart(found.x))) > 1e-8:
            raise QuenchedError(f"no point at which L = 1 and Q = 0 was found from {pair[0]}, {pair[1]} = {guess}")
        return dict(zip(pair, map(float, found.x), strict=True))


def onset(model: Model) -> Onset:
    """Derive how activity sets in.

    Raises
    ------
    NotCovered
        A declaration whose units at rest are not derived, or for which silence is no state.
    """
    from quenched.theory.derivation import start

    return Onset(start(model).average().apply(RestUnits()).apply(ExpandActivity()))
