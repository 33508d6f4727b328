"""Deliberate mistakes in the single-site process of units that are not Gaussian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sympy import Expr, Heaviside, Rational, S

from quenched.theory.errors import NotCovered
from quenched.theory.spaces import t
from quenched.theory_object import Theory

if TYPE_CHECKING:
    from quenched.theory.problem import SiteProcess

ProcessChange = Callable[["SiteProcess"], "SiteProcess"]


class ProcessMutantTheory(Theory):
    """A theory with a deliberate mistake in its single-site process."""

    def __init__(self, right: Theory, name: str) -> None:
        super().__init__(right.derivation, fixed=right.fixed)
        what, self._change = PROCESS_MUTANTS[name]
        process = right.derivation.process
        if self._change(process) == process:
            raise NotCovered(f"the mutant {name!r} changes nothing in {right.model.name or 'this declaration'}")
        self.mistaken(f"{name}: {what}", right)

    def sampled(self, process: SiteProcess) -> SiteProcess:
        return self._change(process)


def _memory(factor: Expr) -> ProcessChange:
    """All memory of dynamic couplings times a factor."""

    def change(p: SiteProcess) -> SiteProcess:
        rows = tuple((u, coef * factor, *rest) for u, coef, *rest in p.bonds)
        return replace(p, bonds=rows if factor != 0 else ())

    return change


def _never_halted(p: SiteProcess) -> SiteProcess:
    """Switches of dynamic couplings left on."""
    on = lambda e: e.replace(lambda h: isinstance(h, Heaviside) and h.has(t), lambda h: S.One)  # noqa: E731
    return replace(p, bonds=tuple((u, on(coef), on(rate), *rest) for u, coef, rate, *rest in p.bonds))


PROCESS_MUTANTS: dict[str, tuple[str, ProcessChange]] = {
    "memory-dropped": ("no memory of dynamic couplings", _memory(S.Zero)),
    "memory-tenth": ("the memory of dynamic couplings 10 % too strong", _memory(Rational(11, 10))),
    "never-halted": ("dynamic couplings that are halted go on moving", _never_halted),
}
