"""The matrix Dyson equation as data: what the resolvent reading hands to the solvers.

A random matrix L with blocks, deterministic parts diagonal in the units' labels, and random blocks W has, as N → ∞,
a resolvent that is diagonal in units and block-valued in labels,

    𝒢(ℓ) = (Y₀(ℓ) − iη − 𝒮[𝒢](ℓ))⁻¹,   𝒮_{il}(ℓ) = Σ_u coefficient_{u,il}(ℓ) t_u,   t_u = f ⟨weight_u(ℓ) 𝒢_{jk}(ℓ)⟩_ℓ

so that everything hangs on a few scalars t_u. (Ajanki, Erdős and Krüger, Probab. Theory Relat. Fields 173, 2019.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sympy import Expr, Symbol

from quenched.theory.problem import Label
from quenched.theory.spaces import N

#: Spectral parameter, and its complex conjugate (a symbol of its own: derivatives with respect to it are the density).
Z, ZBAR = Symbol("z"), Symbol(r"\bar{z}")
#: Reference size, in the coefficients of finite-rank parts.
SIZE: Symbol = N

Sector = Literal["analytic", "upper", "lower"]


@dataclass(frozen=True)
class Space:
    """Units of one population: its size over N and the labels that its units carry."""

    name: str
    fraction: Expr
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Unknown:
    """One scalar t = fraction·⟨weight 𝒢_{jk}⟩ over the labels of a space.

    `sector` says where it sits in a doubled problem: in the analytic blocks, or in those that vanish outside the
    support (upper and lower).
    """

    symbol: Symbol
    space: int
    j: int
    k: int
    weight: Expr
    sector: Sector = "analytic"


@dataclass(frozen=True)
class Feedback:
    """𝒮_{row, col} contains coefficient · t_unknown."""

    row: int
    col: int
    coefficient: Expr
    unknown: int


@dataclass(frozen=True)
class RankOne:
    """The pencil contains coefficient · left rightᵀ at (row, col): one column times one row of unit quantities."""

    row: int
    col: int
    coefficient: Expr
    left: Expr
    right: Expr


@dataclass(frozen=True)
class DysonProblem:
    """A matrix Dyson equation.

    Attributes
    ----------
    parameters : symbols that need values
    spaces : populations
    blocks : space of every block
    heads : blocks that carry z; the resolvent of the declared matrix is the part of 𝒢 on them
    bare : (row, col, value): Y₀, values in labels, parameters, `Z` and `ZBAR`
    unknowns, feedback : the scalars and the self-energy
    half : None for the resolvent itself (η = 0); the number of blocks of L in a doubled problem, whose blocks
        0 … half−1 are the rows of L and whose other blocks are those of L†
    ranks : finite-rank parts, which do not enter the equation but move single eigenvalues
    """

    parameters: tuple[Symbol, ...]
    spaces: tuple[Space, ...]
    blocks: tuple[int, ...]
    heads: tuple[int, ...]
    bare: tuple[tuple[int, int, Expr], ...]
    unknowns: tuple[Unknown, ...]
    feedback: tuple[Feedback, ...]
    half: int | None = None
    ranks: tuple[RankOne, ...] = ()


@dataclass(frozen=True)
class SpectralProblem:
    """Everything that the spectrum of one declared matrix needs.

    Attributes
    ----------
    hermitian : whether all eigenvalues are real
    analytic : equation of the resolvent where it is analytic (outside the support; off the real axis if Hermitian)
    doubled : equation inside the support of a non-Hermitian matrix
    expandable : whether the resolvent has a branch that is analytic at z → ∞
    """

    hermitian: bool
    analytic: DysonProblem
    doubled: DysonProblem | None
    expandable: bool = True

    @property
    def parameters(self) -> tuple[Symbol, ...]:
        """Symbols that need values."""
        return self.analytic.parameters
