"""Names of the language whose meaning is not built yet: they exist, and say so when used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from quenched.theory.errors import NotCovered

_KINDS = {
    "head": "FixedPoints",
    "coupling": "Sparse Stable Data Entrywise",
    "transformation": "backward freeze",
    "unit quantity": "Spikes grad",
}
_INSTEAD = {
    "head": "the heads Dynamics, Map, Layers, Spectrum and Gibbs are",
    "coupling": "Gaussian, Iid, Circulant and Landscape are",
    "transformation": "copies, discretise and zero_temperature are",
    "unit quantity": "Field, Quenched and WhiteNoise are",
}


def _unbuilt(name: str, kind: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotCovered(f"the {kind} {name} is not built yet; {_INSTEAD[kind]}")

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"The {kind} {name}, not built yet: raises `NotCovered`."
    return refuse


for _kind, _names in _KINDS.items():
    for _name in _names.split():
        globals()[_name] = _unbuilt(_name, _kind)
