"""Weak activity next to silence: the expansion against units at rest, the tricritical point, what is no silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from sympy import Expr, Rational, erf, exp, lambdify, pi, sqrt, symbols, tanh

from quenched import Dynamics, Field, Gaussian, N, catalogue, derive, outer, units
from quenched.onset import Onset
from quenched.theory.counting import ORDER
from quenched.theory.errors import NotCovered, QuenchedError
from quenched.theory.onset import WeakActivity

g, p, q = symbols("g p q", positive=True)
k = symbols("k", real=True)
x, J, A = Field("x"), Gaussian("J", variance=g**2), Field("A", over=(units, units))


def plastic(phi: Callable[[Expr], Expr]) -> Onset:
    return derive(catalogue["neuronal-synaptic"](phi=phi)).onset()


def skewed() -> Onset:
    """Units that are neither odd nor linear, two drives of one bond, and an output that is not odd."""
    out = tanh(x) + x**2 / 3
    rule = -A / p + k / N * outer(tanh(x), out) - q / N * outer(x**2 / (1 + x**2), out)
    return derive(Dynamics({x: -2 * x - x**2 / 3 + x**3 / 5 + J @ out + A @ out, A: rule})).onset()


MODELS: dict[str, Callable[[], Onset]] = {
    "tanh": lambda: plastic(tanh),
    "soft": lambda: plastic(lambda u: 2 * u / sqrt(3 + u**2)),
    "skewed": skewed,
}


def away(form: WeakActivity, values: dict[str, float]) -> float:
    """What ⟨f(x)⟩ of units at rest has beyond L C + Q C², as a part of C²: of order C where the expansion is right.

    Quadrature over the field and a root for every value of it; two values of C take the next order out.
    """
    unit = form.units
    put = {s: values[s.name] for s in form.parameters}
    drift, average = (lambdify([unit.state, ORDER], e.subs(put)) for e in (unit.drift, unit.average))
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    linear, cubic = float(form.linear.subs(put)), float(form.cubic.subs(put))

    def rest(c: float) -> float:
        size = float(unit.variance.subs({**put, ORDER: c})) ** 0.5
        roots = [brentq(lambda u, s=s: drift(u, c) + size * s, -1, 1, xtol=1e-15) for s in nodes]
        found = weights @ np.broadcast_to(average(np.array(roots), c), nodes.shape) / weights.sum()
        return float(found - linear * c - cubic * c**2) / c**2

    small = 4e-4
    return 2 * rest(small / 2) - rest(small)


@pytest.mark.parametrize("name", MODELS)
def test_the_expansion_is_that_of_units_at_rest(name: str) -> None:
    form, values = MODELS[name]().form, {"g": 1.1, "k": 0.7, "p": 1.3, "q": 0.4}
    assert abs(away(form, values)) < 1e-3
    caught = [label for label, wrong in form.mutants() if abs(away(wrong, values)) > 1e-2]  # type: ignore[arg-type]
    assert caught == [label for label, _ in form.mutants()]
    assert len(caught) > 2


@pytest.mark.parametrize(
    ("phi", "critical"),
    [(tanh, 1), (lambda u: erf(sqrt(pi) / 2 * u), pi / 4), (lambda u: u / sqrt(1 + u**2), Rational(3, 2))],
)
def test_the_tricritical_point(phi: Callable[[Expr], Expr], critical: Any) -> None:
    """arXiv:2302.08985: at g = 1 and k = −φ'''(0)/2, whatever p is."""
    onset = plastic(phi)
    found = onset.tricritical("g", "k", (1.2, 0.5))
    assert found == pytest.approx({"g": 1, "k": float(critical)})
    assert p not in (onset.form.linear + onset.form.cubic).free_symbols
    below, above = (onset.coefficients(g=1, k=float(critical) + step)[1] for step in (-0.1, 0.1))
    assert below < 0 < above


def test_weak_activity_without_plasticity() -> None:
    """Near g = 1 of the random rate network: Δ0 ≈ g² − 1 over two, against its own solution."""
    onset = derive(Dynamics({x: -x + J @ tanh(x)})).onset()
    assert onset.activity(g=1.01) == pytest.approx((1.01**2 - 1) / 2, rel=0.06)
    assert np.isnan(onset.activity(g=0.99))
    solved = derive(Dynamics({x: -x + J @ tanh(x)})).solve(g=1.05)
    assert onset.activity(g=1.05) == pytest.approx(float(solved["C_x0"]), rel=0.25)


def test_where_there_is_no_onset() -> None:
    driven = Dynamics({x: 1 - x + J @ tanh(x)})
    with pytest.raises(NotCovered, match="silence, which is no state"):
        derive(driven).onset()
    constant = Dynamics({x: -x + J @ exp(-(x**2))})
    with pytest.raises(NotCovered, match="silence"):
        derive(constant).onset()
    with pytest.raises(QuenchedError, match="no parameter 'kk'"):
        plastic(tanh).tricritical("g", "kk", (1, 1))
