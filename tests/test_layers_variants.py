"""Networks of user-defined nonlinearities, and of gains that depend on depth, judged on ensembles of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layer_models import VALUES, c, g, g0, overlap, sb
from sympy import Expr, Max, Piecewise, exp, log, sin, tanh

from quenched import derive
from quenched import validate as judge
from quenched.theory import Field, Gaussian, Layers, Normal, Overlap, Population, Quenched, t, units

FUNCTIONS: dict[str, tuple[Callable[[Expr], Expr], Any]] = {
    "linear": (lambda u: u, 1),
    "softplus": (lambda u: log(1 + exp(u)), 1),
    "sine": (lambda u: sin(2 * u), 1),
    "relu": (lambda u: Max(u, 0), 1),
    "piecewise": (lambda u: Piecewise((tanh(u), u > 0), (u / 4, True)), 1),
    "gains by depth": (tanh, 1 + t / 4),
}


def network(phi: Callable[[Expr], Expr], gain: Any, redraw: str | None) -> Layers:
    """Two layers after the first, two inputs; overlaps of one input and of both."""
    sample, pixel = Population("sample", size=2), Population("pixel", size=2)
    x = Quenched("x", Overlap([[1, c], [c, 1]]), over=pixel, each=sample)
    b = Quenched("b", Normal(0, sb**2), redraw=redraw)
    h = Field("h", each=sample, initial=Gaussian("W_in", variance=g0**2 / 2, over=(units, pixel)) @ x + b)
    model = Layers({h: gain * (Gaussian("W", variance=g**2, redraw=redraw) @ phi(h)) + b}, depth=2)
    return model.observe(Q=overlap(h, 2, 2, 1, 1, phi), Q_cross=overlap(h, 2, 2, 1, 2, phi))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "redraw"), [(n, None if n in ("softplus", "linear") else "layer") for n in FUNCTIONS])
def test_networks_of_any_function_agree_and_a_mistake_is_rejected(
    name: str, redraw: str | None, tmp_path: Path
) -> None:
    model = network(*FUNCTIONS[name], redraw)
    how = {"sizes": (20, 40, 80), "trials": 48, "networks": 400, "quick": True, "workers": 1, "store": tmp_path}
    point = {s.name: VALUES[s] for s in model.parameters}
    right = judge(model, point, **how)
    assert "not rejected" in right.reason, right
    assert right.detectable < 0.1
    wrong = judge(model, point, theory=derive(model).mutate("variance-tenth"), **how)
    assert wrong.verdict == "disagree", wrong
