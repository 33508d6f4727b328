"""Arguments of declarations that do not exist: refused by name, with the nearest that does."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

from quenched.theory.errors import QuenchedError, nearest

F = TypeVar("F", bound=Callable[..., Any])

#: Where something is declared that is often looked for elsewhere: argument → what to write.
_ELSEWHERE = {
    "initial": 'a start belongs to its field: Field("x", initial=…)',
    "shared": "every unit has its own; what all units share is a parameter or a function of t",
    "noise": 'noise is added to the equations: WhiteNoise("xi")',
    "tilt": "copies are independent given the disorder that they share; weights of their overlap are not covered",
    "quench": "copies stand on one footing; to hold some while others move is not covered",
    "each": "an index of its own (samples, components) is not covered: declare a field for every one",
    "symmetric": 'partial symmetry is an argument of couplings: Gaussian("J", variance, symmetry=…)',
}


class UnknownArgument(QuenchedError, TypeError):
    """A declaration has no argument of this name."""


def named_arguments(function: F) -> F:
    """Of a method or a function of a model: an unknown keyword, or one argument too many, says what there is."""
    own = "" if function.__name__.startswith("__") else function.__name__
    known = list(signature(function).parameters.values())[1:]
    names = [p.name for p in known if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    places = sum(p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for p in known)
    endless = any(p.kind is Parameter.VAR_POSITIONAL for p in known)

    @wraps(function)
    def checked(owner: Any, *args: Any, **kwargs: Any) -> Any:
        kind = own or (owner if isinstance(owner, type) else type(owner)).__name__
        for name in kwargs:
            if name not in names:
                raise UnknownArgument(
                    f"{kind} has no argument {name!r}: {_ELSEWHERE.get(name) or nearest(name, names)}"
                )
        if len(args) > places and not endless:
            raise UnknownArgument(f"{kind} takes {places} arguments ({', '.join(names)}), got {len(args)}")
        return function(owner, *args, **kwargs)

    return cast(F, checked)
