"""`derive`: from a declaration to the theory of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from quenched.theory.errors import QuenchedError
from quenched.theory_object import Theory

if TYPE_CHECKING:
    from quenched.replica_theory import ReplicaTheory
    from quenched.spectral import SpectralTheory
    from quenched.theory.gibbs import Gibbs
    from quenched.theory.model import Model
    from quenched.theory.spectrum import Spectrum

Params = Mapping[Any, float] | None


def start(model: Model | Gibbs) -> Any:
    """The copied action of a model, to derive step by step (`.average()`, `.order_parameters()`, `.saddle()`, …)."""
    from quenched.theory.derivation import start as begin
    from quenched.theory.gibbs import Gibbs

    if isinstance(model, Gibbs):
        from quenched.theory.replicas import start as replicate

        return replicate(model)

    return begin(model)


@overload
def derive(model: Spectrum, params: Params = None, **fix: Any) -> SpectralTheory: ...
@overload
def derive(model: Gibbs, params: Params = None, **fix: Any) -> ReplicaTheory: ...
@overload
def derive(model: Model, params: Params = None, **fix: Any) -> Theory: ...
def derive(model: Model | Spectrum | Gibbs, params: Params = None, **fix: Any) -> Theory:
    """The N → ∞ theory of a model, derived step by step.

    Parameters
    ----------
    model : Dynamics, Map, Spectrum or Gibbs
        The declaration.
    params, **fix
        Parameters to fix before deriving (with η free a site may not be Gaussian, with η = 0 it is).

    Raises
    ------
    QuenchedError
        Something that is no model, or an unknown parameter.
    NotCovered
        No reading covers the model: the message says at which step and term the derivation stopped.
    """
    from quenched.theory.derivation import derive as run
    from quenched.theory.gibbs import Gibbs
    from quenched.theory.spectrum import Spectrum

    fixed = {str(name): value for name, value in (params or {}).items()} | fix
    if isinstance(model, Spectrum):
        from quenched.spectral import SpectralTheory
        from quenched.theory.spectral import derive_spectrum

        return SpectralTheory(derive_spectrum(model.fix(fixed) if fixed else model), fixed=fixed)
    if isinstance(model, Gibbs):
        from quenched.replica_theory import ReplicaTheory
        from quenched.theory.replicas import derive as replicate

        return ReplicaTheory(replicate(model, **fixed), fixed=fixed)
    if not hasattr(model, "eqs"):
        raise QuenchedError(f"derive takes a declaration (Dynamics, Map, Spectrum, Gibbs), got {type(model).__name__}")
    return Theory(run(model, **fixed), fixed=fixed)


def derive_at(model: Model, values: Mapping[str, Any]) -> Theory:
    """The theory for given values: where free parameters make a site non-Gaussian, those that are zero are fixed first.

    Parameters
    ----------
    values : {name: number or list of numbers}
        Parameters as they will be used; those left out take the declaration's defaults.
    """
    theory = derive(model)
    if not hasattr(model, "eqs") or theory.derivation.problem is not None:
        return theory
    complete = {str(k): v for k, v in model.defaults.items()} | dict(values)
    zeros = {name: 0 for name, value in complete.items() if not isinstance(value, (list, tuple)) and value == 0}
    fixed = derive(model, zeros) if zeros else theory
    return fixed if fixed.derivation.problem is not None else theory
