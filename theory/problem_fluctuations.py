"""The fluctuation problem: what a derivation of 1/N covariances hands to the solver."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr

from quenched.theory.problem import SiteFunction, StationaryGaussian


@dataclass(frozen=True)
class UnitField:
    """A field of one unit, f(u_a), and how it responds.

    Attributes
    ----------
    name, population : str
    f : SiteFunction of the Gaussian argument (the identity for the argument itself)
    a : index of the argument
    transfer : local field → transfer function (in `DT`) from it to the argument; the response of the field to the
        local field is ⟨f'⟩ times that (Price's theorem)
    """

    name: str
    population: str
    f: SiteFunction
    a: int
    transfer: dict[str, Expr]


@dataclass(frozen=True)
class QuadraticProblem:
    """Gaussian fluctuations of the order parameters between two copies that share their couplings.

    A *mode* (A, a, b) is O_ab(t, s) = ⟨a¹(t) b²(s)⟩ of population A. Its fluctuations about 0 have, for every pair of
    frequencies, N·Cov = Σ(1 − P''Σ)^{-1} with Σ_{ab,cd} = K_ac(ω₁) K_bd(ω₂)/f_A and the single-site propagators K:
    spectra C of two fields, i times the response for a field and a conjugate field, 0 for two conjugate fields.

    Attributes
    ----------
    conjugates : name of a conjugate field → name of its local field
    fractions : population → share of all units
    modes : (population, first, second), the modes that the couplings correlate
    hessian : P'' between them
    """

    conjugates: dict[str, str]
    fractions: dict[str, Expr]
    modes: tuple[tuple[str, str, str], ...]
    hessian: tuple[tuple[Expr, ...], ...]


@dataclass(frozen=True)
class FluctuationProblem(QuadraticProblem):
    """The same where units are Gaussian, so that spectra and responses follow from the stationary problem.

    Attributes
    ----------
    full : the stationary problem of one copy
    fields : what may be observed: the outputs that couplings read, then the states
    shared : whether copies of a unit may share more than couplings (labels, constant or frozen inputs), so that Σ is
        an average over it
    """

    full: StationaryGaussian
    fields: tuple[UnitField, ...]
    shared: bool = False

    def field(self, name: str) -> UnitField:
        """The field of this name."""
        return next(f for f in self.fields if f.name == name)
