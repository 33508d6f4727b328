"""How what is measured of a Gibbs measure is estimated, with its bias and the law of its corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sympy import Add, Expr

from quenched.theory.landscape import Height
from quenched.theory.observables import Functional
from quenched.theory.priors import Spherical, fixed_norm
from quenched.validate.departures import DEPARTURE, departure_estimator
from quenched.validate.estimators import Estimator
from quenched.validate.gibbs_code import outer
from quenched.validate.gibbs_observables import Node
from quenched.validate.gibbs_program import GibbsProgram
from quenched.validate.gibbs_routes import factors_of, gaps

if TYPE_CHECKING:
    from quenched.theory.gibbs import Gibbs

#: Name under which a Monte Carlo run reports how far its replicas are from equilibrium.
EQUILIBRIUM = "equilibration"


#: Name under which a Monte Carlo run reports that its states keep a sign that the measure does not know.
SIDE = "sign"


#: Name under which an enumeration reports how many draws had no state at all and were drawn again.
EMPTY = "empty"


def estimator_of(
    name: str, expression: Any, route: str, smallest: int, energy: tuple[float, str] | None = None
) -> Estimator:
    """The estimator of an observable; `energy` as from `energy_power`."""
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
    power = 1.0
    leaves = outer(expression) if isinstance(expression, Expr) else []
    if energy and leaves and all(_energetic(leaf) for leaf in leaves):
        power, reason = energy
    return Estimator(name, str(expression), bias=bias, min_N=smallest, power=power, reason=reason)


#: Functionals that follow from ln Z and the mean energy.
_ENERGETIC = ("FreeEntropy", "Entropy")


def energy_power(model: Gibbs, values: Mapping[Any, Any]) -> tuple[float, str] | None:
    """(p, why) of the corrections b/N^p to the energy and free entropy of nothing but random functions, else None.

    Of states of fixed norm that a change of sign leaves alike, pairs from the prior overlap by q = O(N^-1/2). With
    the covariance N f(q) at every N, E ln Z = ln E Z − ½ ln E exp(β² N f(q)) + …: a term q^k gives N^(1−k/2) where k is
    even, and its square N^(2−k) where it is odd; both per unit. Up to k = 2 the overlap need not vanish.
    """
    leaves = {leaf for term in Add.make_args(model.energy.expand()) for leaf in outer(term)}
    plain = bool(leaves) and not model.weights and all(isinstance(leaf, Height) for leaf in leaves)
    if not plain or not all(_even(law) and fixed_norm(law) is not None for law in model.priors.values()):
        return None
    degrees = {k for v in model.landscapes for k, c in v.powers if c.subs(values) != 0}
    if min(degrees) < 3:
        return None
    p = min(k / 2 if k % 2 == 0 else k - 1.0 for k in degrees)
    kinds = " and ".join(str(k) for k in sorted(degrees))
    return p, f"overlaps of order N^-1/2 enter the energy of {kinds} bodies by E exp(β²N f(q)): order N^-{p:g} per unit"


def _energetic(leaf: Any) -> bool:
    return isinstance(leaf, Height) or (isinstance(leaf, Functional) and type(leaf).__name__ in _ENERGETIC)


def _even(law: Any) -> bool:
    atoms = dict(law.weights())
    return (isinstance(law, Spherical) and not atoms) or (bool(atoms) and {-a: c for a, c in atoms.items()} == atoms)


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


def side_estimator() -> Estimator:
    return Estimator(
        SIDE,
        "overlap of early and late states within a replica, where the measure does not change with the state's sign",
        bias="zero where both signs are reached",
        vanishes="the measure is the same for a state and for its opposite, but runs stay at one of the two: averages "
        "are over both, odd ones vanish; declare which, as in Field(..., initial=...), or use more sweeps=",
    )


def watched(program: GibbsProgram, nodes: Sequence[Node]) -> dict[str, tuple[Estimator, Any]]:
    """Diagnostics of Monte Carlo runs; where a start is declared, whether they stay in the state that it leads to."""
    found = {EQUILIBRIUM: (equilibrium_estimator(), np.arange(float(gaps(program, factors_of(nodes)))))}
    started = any(f.starts for f in program.fields)
    return found | ({DEPARTURE: (departure_estimator(), None)} if started else {SIDE: (side_estimator(), None)})


def empty_estimator() -> Estimator:
    return Estimator(
        EMPTY,
        "draws without a state of positive weight, drawn again",
        bias="draws without any state, ln 0, are left out of the means of logarithms",
    )
