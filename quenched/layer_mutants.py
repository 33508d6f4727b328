"""Mistakes that people make with layers: in which disorder is shared, and in the order 1/N."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sympy import Integer

from quenched.theory.errors import NotCovered
from quenched.theory_object import Theory

if TYPE_CHECKING:
    from quenched.theory.problem_layers import FirstOrder, LayeredGaussian


@dataclass(frozen=True)
class LayerMutant:
    """One mistake: in words, as a change of the recursion, or as changed weights of the order 1/N."""

    what: str
    problem: Callable[[LayeredGaussian], LayeredGaussian] | None = None
    weights: Mapping[str, int] = field(default_factory=dict)


class LayerMutantTheory(Theory):
    """A theory over layers with a deliberate mistake."""

    def __init__(self, right: Theory, name: str, mutant: LayerMutant) -> None:
        super().__init__(right.derivation, fixed=right.fixed)
        if right.derivation.layered is None:
            raise NotCovered(f"the mutant {name!r} is a mistake over layers, and this theory has none")
        self._mutant = mutant
        self.mistaken(f"{name}: {mutant.what}", right)

    @property
    def layered(self) -> LayeredGaussian:
        right = super().layered
        return self._mutant.problem(right) if self._mutant.problem else right

    @property
    def order_one_over_n(self) -> FirstOrder:
        changed = {name: Integer(weight) for name, weight in self._mutant.weights.items()}
        return replace(super().order_one_over_n, layered=self.layered, **changed)


def _mixed_up(p: LayeredGaussian) -> LayeredGaussian:
    """What is shared by layers is redrawn and the other way round (noise stays noise)."""
    noises = {s.name for s in p.sources if s.variance == 1 and s.fresh and s.each}
    sources = tuple(s if s.name in noises else replace(s, fresh=not s.fresh) for s in p.sources)
    return replace(p, covariance=tuple(replace(c, same=not c.same) for c in p.covariance), sources=sources)


LAYER_MUTANTS: dict[str, LayerMutant] = {
    "redraw-mixed": LayerMutant("shared for redrawn disorder, and redrawn for shared", _mixed_up),
    "second-tadpole-dropped": LayerMutant(
        "the mean shift without the response of Σ to the order parameters", weights={"pull": 0}
    ),
    "pairs-twice": LayerMutant("pairs of different copies counted in both orders", weights={"pair": 2}),
}
