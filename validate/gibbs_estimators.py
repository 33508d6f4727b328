"""How what is measured of a Gibbs measure is estimated, with its bias and the law of its corrections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quenched.validate.estimators import Estimator
from quenched.validate.gibbs_program import GibbsProgram

if TYPE_CHECKING:
    pass


#: Name under which a Monte Carlo run reports how far its replicas are from equilibrium.
EQUILIBRIUM = "equilibration"


#: Name under which an enumeration reports how many draws had no state at all and were drawn again.
EMPTY = "empty"


def estimator_of(name: str, expression: str, route: str, smallest: int) -> Estimator:
    bias = {
        "enumerate": "none: exact sums over all states of each realisation that has one (see empty)",
        "gaussian": "none: exact linear algebra of each realisation",
        "programme": "none: exact optimum of each realisation",
        "monte carlo": "finite run from the start; replicas with different starts show it (see equilibration)",
    }[route]
    reason = {
        "enumerate": "quenched means of intensive quantities: corrections start at order 1/N",
        "programme": "fluctuations of order 1/N of the optimum about its limit",
    }.get(route, "corrections to a self-averaging mean start at order 1/N (fluctuations of the overlaps)")
    return Estimator(name, expression, bias=bias, min_N=smallest, reason=reason)


def controlled(estimator: Estimator) -> Estimator:
    """The same mean with less scatter."""
    bias = f"{estimator.bias}; less what varies with the alignment of the rows of couplings, of mean zero: O(1/R²)"
    return replace(estimator, statistic="controlled mean", bias=bias)


def smallest_size(program: GibbsProgram, route: str) -> int:
    """N from which on corrections of order 1/N are expected to dominate.

    Random functions have their covariance at every N; in matrices and fields of sums of units it is that of N → ∞.
    """
    drawn = any(h.degree > 2 for h in program.heights) and not program.pairs and not program.blocks
    return 8 if drawn else {"enumerate": 8, "programme": 16}.get(route, 32)


def equilibrium_estimator() -> Estimator:
    return Estimator(
        EQUILIBRIUM,
        "overlap of early and late states within a replica minus between replicas; then of the exponent per unit, of "
        "what is observed of one state and of each field's first two moments: replicas from the prior minus those from "
        "a descent (or another scale), and early minus late times",
        bias="zero in equilibrium",
        vanishes="the replicas are not in equilibrium: use more sweeps=, burn= or temperatures=",
    )


def empty_estimator() -> Estimator:
    return Estimator(
        EMPTY,
        "draws without a state of positive weight, drawn again",
        bias="draws without any state, ln 0, are left out of the means of logarithms",
    )
