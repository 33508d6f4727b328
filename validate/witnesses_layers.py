"""Witnesses of the steps over layers and samples, and of the order 1/N about them."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from quenched.theory.expansion import EliminateConjugates, ExpandTerms
from quenched.theory.layered import CloseLayers
from quenched.theory.layered_blocks import CloseLayerAverages, SeparateLayers
from quenched.theory.record import Rule
from quenched.validate.meaning_first_order import first_order_deviation, terms_deviation
from quenched.validate.meaning_layers import (
    SIZES,
    blocks_deviation,
    kernels_deviation,
    layer_averages_deviation,
    layers_deviation,
)
from quenched.validate.witness_types import EXACT, Scene, Tick, Witness

if TYPE_CHECKING:
    from quenched.theory.layers import Layers
    from quenched.theory.problem_layers import LayeredGaussian

#: Largest deviation of a moment of networks, in standard errors (of 12 ensembles).
STANDARD_ERRORS = 6.0
#: Finite differences of fourth order in covariances.
FIRST_ORDER = 1e-5

WITNESSES: dict[type[Rule], Witness] = {
    CloseLayers: Witness(
        "units unrolled over three layers at random order parameters",
        EXACT,
        lambda b, a, s: layers_deviation(b, a.problem, s.values, s.rng()),
    ),
    CloseLayerAverages: Witness(
        "closed forms against two-dimensional quadrature",
        EXACT,
        lambda b, a, s: layer_averages_deviation(a.problem, s.values, s.rng()),
    ),
    SeparateLayers: Witness(
        "covariances of shared and of redrawn disorder at random order parameters",
        EXACT,
        lambda b, a, s: blocks_deviation(b.problem, a, s.values, s.rng()),
    ),
    ExpandTerms: Witness(
        "second difference of the averaged exponent at random averages",
        EXACT,
        lambda b, a, s: terms_deviation(a.terms, b.terms, s.values, s.rng()),
    ),
    EliminateConjugates: Witness(
        "one-loop formulas with conjugate fields kept, three layers, finite differences",
        FIRST_ORDER,
        lambda b, a, s: first_order_deviation(b, a.problem, s.values),
    ),
}


def check_kernels(model: Layers, problem: LayeredGaussian, scene: Scene) -> Tick:
    """All steps at once: ensembles of finite networks against the kernels over layers and samples."""
    begin = perf_counter()
    worst, count = kernels_deviation(model, problem, scene.values, scene.seed)
    method = f"largest z of {count} moments, 1200 networks each of {SIZES[0]} and of {SIZES[1]} units"
    seconds = perf_counter() - begin
    return Tick("All steps up to the kernels", worst <= STANDARD_ERRORS, worst, STANDARD_ERRORS, method, seconds)
