"""Meanings and witnesses of the intermediate forms, finite-size simulation, estimators, verdicts, catalogue, reports.

The only layer that sees theory and numerics. As a name of the front door, `quenched.validate` is both this package
and the verb: calling it compares a theory with simulations (see `quenched.validation.validate`).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """A package that can be called, because the layer and the public function share their name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from quenched.validation import validate

        return validate(*args, **options)


sys.modules[__name__].__class__ = _Verb
