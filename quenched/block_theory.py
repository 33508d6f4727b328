"""The theory of a measure whose replicas form blocks within blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quenched.replica_theory import Params, ReplicaTheory, Saddle
from quenched.solution import Solution
from quenched.theory.errors import QuenchedError

if TYPE_CHECKING:
    from sympy import Symbol

    from quenched.theory.replica_blocks import BlockAction


class BlockTheory(ReplicaTheory):
    """Replica symmetry broken in steps: sizes of blocks join the parameters, and Φ is stationary in them."""

    @property
    def sizes(self) -> tuple[Symbol, ...]:
        """x₁, …, x_k, or at zero temperature y₁, …, y_k = βx."""
        from quenched.theory.replica_blocks import BlockAction

        found: BlockAction | None = self.derivation.find(BlockAction)
        assert found is not None
        return self.problem.parameters[-len(found.sizes) :]

    def values(self, params: Params = None, **keywords: Any) -> dict[Symbol, float]:
        """Numbers of all parameters, and of the sizes of blocks that are given."""
        given = {**(params or {}), **keywords}
        own = {s: float(v) for k, v in given.items() for s in self.sizes if k in (s, s.name)}
        rest = {k: v for k, v in given.items() if not any(k in (s, s.name) for s in own)}
        return {**super().values(rest), **own}

    def solve(
        self,
        params: Params = None,
        *,
        start: Mapping[str, float] | None = None,
        bracket: tuple[float, float] | None = None,
        **keywords: Any,
    ) -> Solution:
        """The saddle at which Φ is stationary in the size of blocks, or, where the size is given, at that size.

        Parameters
        ----------
        params, **keywords : values of the parameters; sizes of blocks by their names
        start : order parameters to start from
        bracket : where the size is looked for, (0.02, 0.98), or (0.05, 8) at zero temperature

        Returns
        -------
        Solution
            With one branch, whose observables include the size, the slope of Φ in it, and the replicon eigenvalue
            of replicas in one innermost block.
        """
        from quenched.numerics.replica_blocks import solve_blocks
        from quenched.numerics.types import Number

        values = self.values(params, **keywords)
        span = bracket or ((0.05, 8.0) if self.problem.cold else (0.02, 0.98))
        raw, at = solve_blocks(self.problem, values, self.sizes, span, start)
        for branch in raw.branches:
            branch.values.update({x.name: Number(at[x], 1e-9) for x in self.sizes})
        given = {str(k): float(v) for k, v in at.items()}
        return Solution([Saddle.of(self, at, b) for b in raw.branches], 0, given, Solution.provenance_of(self))

    def _symbol(self, key: Any) -> Symbol:
        own = next((s for s in self.sizes if key in (s, s.name)), None)
        return own if own is not None else super()._symbol(key)

    def _rates(self, params: Params, **keywords: float) -> dict[str, tuple[float, float]]:
        raise QuenchedError("stability of blocks: see the observable 'replicon' of solve(...)")
