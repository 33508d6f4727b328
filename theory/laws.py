"""Laws of couplings as edge diagrams: the joint cumulants of their entries, and nothing else.

A diagram is a set of edges between *vertices* (sites): edge ``(atom, row, col)`` stands for one entry J_{row,col} of
the named matrix, and equal vertices are the same site. ``weight · N^power`` is the joint cumulant of the entries.
Adding a law to the language means adding its diagrams (and its sampler, elsewhere).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sympy import Add, Expr, Rational, S, sqrt, sympify

from quenched.theory.circulant import Circulant
from quenched.theory.couplings import Gaussian, Iid
from quenched.theory.errors import NotCovered
from quenched.theory.landscape import Landscape
from quenched.theory.spaces import N, Population

Edge = tuple[str, int, int]


@dataclass(frozen=True)
class Diagram:
    """One joint cumulant: its edges, its size ``weight · N^power``, and what it is called in print.

    `same_copy` marks matrices that are redrawn between copies: their entries are correlated only with themselves at
    the same copy.
    """

    kind: str
    edges: tuple[Edge, ...]
    weight: Expr
    power: Expr
    same_copy: bool = False


@dataclass(frozen=True)
class Law:
    """The law of one named matrix: spaces of its rows and columns, and its diagrams."""

    name: str
    rows: Population
    cols: Population
    diagrams: tuple[Diagram, ...]

    def text(self) -> list[str]:
        return [f"{d.kind} of {self.name}: {d.weight}·N^{d.power}" for d in self.diagrams]


@dataclass(frozen=True)
class FunctionLaw(Law):
    """The law of a Gaussian random function of the state: powers of the overlap with coefficients."""

    powers: tuple[tuple[int, Expr], ...] = ()

    def text(self) -> list[str]:
        return [f"covariance of {self.name}: N·({' + '.join(f'{c}·q^{p}' for p, c in self.powers)})"]


def covariance(landscape: Landscape) -> tuple[tuple[int, Expr], ...]:
    """The powers of the overlap in the covariance of a random function."""
    return landscape.powers


def law_of(atom: Gaussian | Iid) -> Law:
    """The diagrams of a declared matrix.

    Raises
    ------
    NotCovered
        For a law that has no finite list of diagrams.
    """
    if isinstance(atom, Gaussian):
        diagrams = gaussian_diagrams(atom)
    elif isinstance(atom, Iid):
        diagrams = iid_diagrams(atom)
    else:
        if isinstance(atom, Circulant):
            raise NotCovered(f"{atom} is not random: this reading has no place for a translation-invariant matrix yet")
        raise NotCovered(f"the law of {atom} has no edge diagrams: expected Gaussian or Iid couplings")
    return Law(atom.name, atom.rows, atom.cols, tuple(d for d in diagrams if d.weight != 0))


def strong_mean(laws: Iterable[Law]) -> str:
    """Which matrix has entries of so large a mean that local fields of a measure diverge, and what to declare instead.

    Empty where there is none. Entries of mean m/√N add m √N ⟨x⟩ to all local fields of a row at once: either ⟨x⟩
    vanishes as 1/√N and the sum becomes an order parameter, or constraints hold trivially.
    """
    for law in laws:
        if law.cols.size is not None or law.rows.size is not None:
            continue
        for order in (_degree(d.weight, d.power) for d in law.diagrams if len(d.edges) == 1):
            if order > -1:
                return (
                    f"the entries of {law.name} have a mean of order N^{order}, which drives the local fields of "
                    f"{law.rows.name} by N^{1 + order} times the mean of the units: expected entries of mean zero (as "
                    f"those of Iid({law.name!r}, Ising())), or a mean of order 1/N, declared as Gaussian({law.name!r}, "
                    "mean=..., variance=...); an offset of all local fields is a parameter in the weight"
                )
    return ""


def _degree(weight: Expr, power: Expr) -> Expr:
    """Order of magnitude of a diagram in N, powers of N in its weight included."""
    terms = Add.make_args(weight.expand())
    return power + max((t.as_coeff_exponent(N)[1] for t in terms), key=lambda e: float(e))


def gaussian_diagrams(atom: Gaussian) -> list[Diagram]:
    """Mean, variance, transpose and cross-matrix cumulants of a Gaussian matrix (entries mean/N, variance/N)."""
    power = S.Zero if atom.cols.size is not None else S.NegativeOne
    own, fresh = atom.name, atom.redraw is not None
    out = [
        Diagram("mean", ((own, 0, 1),), atom.mean, power),
        Diagram("variance", ((own, 0, 1), (own, 0, 1)), atom.variance, power, fresh),
        Diagram("symmetry", ((own, 0, 1), (own, 1, 0)), atom.symmetry * atom.variance, power, fresh),
    ]
    for other, rho in correlations(atom):
        weight = rho * sqrt(atom.variance) * sqrt(other.variance)
        out.append(Diagram("correlation", ((own, 0, 1), (other.name, 0, 1)), weight, power, fresh))
    return out


def correlations(atom: Gaussian) -> list[tuple[Gaussian, Expr]]:
    """Pairs (other matrix, correlation of equal entries) that the declaration gives."""
    return list(dict(atom.correlation or {}).items())


def iid_diagrams(atom: Iid) -> list[Diagram]:
    """First two cumulants of independent entries law/√N; the k-th contributes N^{1−k/2} and is dropped for k ≥ 3."""
    finite = atom.cols.size is not None
    own, fresh = atom.name, atom.redraw is not None
    half = S.Zero if finite else Rational(-1, 2)
    return [
        Diagram("mean", ((own, 0, 1),), atom.law.mean_(), half),
        Diagram("variance", ((own, 0, 1), (own, 0, 1)), atom.law.variance_(), 2 * half, fresh),
    ]


def averaging_law(name: str, rows: Population, cols: Population) -> Law:
    """The deterministic matrix whose product with ψ is the population mean of ψ."""
    weight = 1 / sympify(cols.fraction) if cols.size is None else S.One / cols.size
    power = S.NegativeOne if cols.size is None else S.Zero
    return Law(name, rows, cols, (Diagram("mean", ((name, 0, 1),), weight, power),))
