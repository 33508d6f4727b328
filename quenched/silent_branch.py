"""The silent state as a branch: all units at zero, whatever the couplings are, and whether it is stable."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Expr, Heaviside, S, sign

from quenched.readout import GROWTH, Quantity
from quenched.solution import Branch
from quenched.theory.bonds import bond_equations
from quenched.theory.couplings import Apply
from quenched.theory.errors import NotCovered
from quenched.theory.fields import Field, unbind
from quenched.theory.naming import Output, standard_names
from quenched.theory.observables import Functional, Lyapunov, Mean

if TYPE_CHECKING:
    from quenched.fixed_points import FixedPointStability
    from quenched.theory.model import Model


def silent_branch(model: Model, values: Mapping[Any, float]) -> SilentBranch | None:
    """The silent state of a dynamics; None where it is no state, sits on a jump, or its stability is not derived."""
    from quenched.fixed_points import fixed_point_stability

    at_zero = {x: S.Zero for x in model.fields}
    drives = [d for e in bond_equations(model.bonds) for d in e.drives]
    if model.quenched or any((d.left * d.right).xreplace(at_zero) != 0 for d in drives):
        return None
    if any(_at_rest(step.args[0]) == 0 for e in model.eqs.values() for step in e.atoms(Heaviside, sign)):
        return None
    try:
        return SilentBranch(model, values, fixed_point_stability(model))
    except NotCovered:
        return None


def _at_rest(expr: Expr) -> Expr:
    """An expression of one unit where all fields vanish, and what couplings return with them."""
    bare = expr.xreplace({a: S.Zero for a in expr.atoms(Apply)})
    return bare.replace(
        lambda e: isinstance(e, Field) or (hasattr(e, "field") and hasattr(e, "time")), lambda e: S.Zero
    )


class SilentBranch(Branch):
    """All units at zero; its stability is computed when it is asked for."""

    def __init__(self, model: Model, values: Mapping[Any, float], stability: FixedPointStability) -> None:
        self._model, self._values, self._stability = model, dict(values), stability
        names = [*standard_names(model), GROWTH, *model.observables]
        names = list(dict.fromkeys(names))
        super().__init__("trivial", "trivial", lambda: self._rate.value < 0, lambda: self._rate, names, self._read)

    @cached_property
    def _rate(self) -> Quantity:
        found = self._stability.growth({s.name: v for s, v in self._values.items()})
        return Quantity(found.value, found.error)

    def _read(self, name: str) -> Quantity:
        if name in self._model.observables:
            return self._declared(name, self._model.observables[name])
        if name == GROWTH:
            return self._rate
        kind, what = standard_names(self._model)[name]
        if kind not in ("C", "C0", "mean", "C_out", "C_out0"):
            raise NotCovered(f"{name} of the silent state is not built")
        value = float(self._value(what.body if isinstance(what, Output) else what)) if kind != "mean" else 0.0
        if kind in ("C", "C_out"):
            return Quantity(np.full(2, value**2), np.zeros(2), "tau", np.array([0.0, 1.0]))
        return Quantity(value**2, 0.0)

    def _value(self, expr: Expr) -> Expr:
        """An expression of one unit at any time."""
        bare = expr.replace(lambda e: hasattr(e, "field") and hasattr(e, "time"), lambda e: e.field)
        fields = {s: S.Zero for s in bare.free_symbols if isinstance(s, Field)}
        return bare.xreplace(fields).xreplace({s: S(v) for s, v in self._values.items()})

    def _declared(self, name: str, expr: Expr) -> Quantity:
        if isinstance(expr, Lyapunov):
            return self._rate
        if expr.atoms(Functional):
            raise NotCovered(f"{expr} of the silent state is not built")
        table = {m: self._value(unbind(m.body)) for m in expr.atoms(Mean)}
        value = expr.xreplace(table).xreplace({s: S(v) for s, v in self._values.items()})
        if value.is_number and value.is_finite:
            return Quantity(float(value), 0.0)
        raise NotCovered(f"{name} = {expr} has no value where all units are silent")
