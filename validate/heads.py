"""Which module simulates which head. A head is known by the classes it is made of; nothing else depends on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from quenched.theory.errors import NotCovered, QuenchedError, nearest

if TYPE_CHECKING:
    from quenched.validate.experiment import Simulation

#: Class of a declaration → module with ``prepare(model, N, seed, params, **settings)``.
SIMULATORS: dict[str, str] = {
    "quenched.theory.layers.Layers": "quenched.validate.simulate_layers",
    "quenched.theory.model.Model": "quenched.validate.simulate_dynamics",
    "quenched.theory.spectrum.Spectrum": "quenched.validate.simulate_spectrum",
    "quenched.theory.gibbs.Gibbs": "quenched.validate.simulate_gibbs",
}


def module_of(model: Any) -> ModuleType:
    """The simulator's module of a declaration.

    Raises
    ------
    QuenchedError
        Something that is no declaration.
    NotCovered
        A head without simulator.
    """
    names = [f"{c.__module__}.{c.__qualname__}" for c in type(model).__mro__]
    found = next((SIMULATORS[name] for name in names if name in SIMULATORS), None)
    if found is None:
        raise QuenchedError(
            f"simulate takes a declaration (Dynamics, Map, Spectrum, Gibbs), got {type(model).__name__}"
        )
    if find_spec(found) is None:
        raise NotCovered(f"the simulation of a {type(model).__name__} is not built yet, derive(...).solve(...) is")
    return import_module(found)


def simulator_of(model: Any) -> Callable[..., Simulation]:
    """The function that prepares simulations of a declaration."""
    prepare: Callable[..., Simulation] = module_of(model).prepare
    return prepare


def settings_of(prepare: Callable[..., Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the named values that are settings of the simulator; the rest are parameters."""
    return {k: v for k, v in named.items() if k in setting_names(prepare)}


def setting_names(prepare: Callable[..., Any]) -> list[str]:
    """Names of a simulator's settings."""
    parameters = inspect.signature(prepare).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def check_settings(model: Any, settings: Mapping[str, Any]) -> None:
    """Refuse settings that the simulator of a declaration does not have."""
    known = setting_names(simulator_of(model))
    for name in settings:
        if name not in known:
            raise QuenchedError(
                f"{name}= is no setting of a {type(model).__name__}'s simulation: {nearest(name, known)}"
            )
