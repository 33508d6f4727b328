"""The one family of errors that users see."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class QuenchedError(ValueError):
    """Bad input or an unsupported request, in one line: the thing, what was expected, the nearest choice."""


class AmbiguousExpression(QuenchedError, AttributeError):
    """An expression that mathematics and numpy read differently (an AttributeError, so that probing stays safe)."""


class NotCovered(QuenchedError):
    """A declaration that no reading covers: says at which step and term the derivation stopped."""


class NoneFound(QuenchedError):
    """Runs found nothing of what they count, so that the logarithm of its mean number is not defined."""


class ConvergenceError(QuenchedError):
    """A solver did not converge. Carries the history of residuals.

    Attributes
    ----------
    residuals : tuple of float
        Norm of the residual at every iteration, dimensionless unless the message says otherwise.
    """

    def __init__(self, message: str, residuals: Iterable[float] = ()) -> None:
        super().__init__(message)
        self.residuals = tuple(float(r) for r in residuals)


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint naming the nearest of `choices`, or all of them when none is near."""
    names = sorted(str(c) for c in choices)
    if not names:
        return "there are none"
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "choose from " + ", ".join(repr(n) for n in names)


def check_keywords(given: Iterable[object], parameters: Iterable[object], settings: Iterable[str]) -> None:
    """Refuse a keyword that is no parameter: it is nearly a setting, or like none, and then both are listed.

    What is like a parameter is left to those who know the parameters.
    """
    settings = list(settings)
    known = {str(p) for p in parameters}
    for name in (n for n in given if isinstance(n, str) and n not in known):
        if name in settings:
            raise QuenchedError(f"{name}= is a setting: give it as a keyword, not among the parameters")
        close = get_close_matches(name, sorted({*known, *settings}), n=1, cutoff=0.6)
        if close and close[0] in settings:
            raise QuenchedError(f"unknown keyword {name!r}: did you mean the setting {close[0]!r}?")
        if not close and not get_close_matches(name, sorted(known), n=1, cutoff=0.5):
            raise QuenchedError(f"unknown parameter {name!r}: {nearest('', known)}; settings: {', '.join(settings)}")
