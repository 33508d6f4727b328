"""The second route to 1/N covariances: linear equivalence and planar averages.

At leading order the outputs of N coupled units behave as a linear network φ = S∘(Jφ) + n: S the response of one unit,
n independent between units with the spectrum that the diagonal demands. Then C = (1 − SJ)^{-1} n (1 − SJ)^{-†}, and in
the average of C(ω₁)C(ω₂) contractions of J with Jᵀ sit at four corners only, in planar order. Two corners rebuild the
diagonal C at each frequency; the other two are geometric series in a(ω₁, ω₂) = S(ω₁) S(ω₂)·(variance of J).

Nothing here uses conjugate fields, order parameters or a saddle: only site responses and the laws of the couplings.
"""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr, Matrix, S, Symbol, eye, zeros

from quenched.theory.errors import NotCovered
from quenched.theory.fluctuations import fractions_of, response, spectrum
from quenched.theory.lower import CopiedAction, Use
from quenched.theory.problem_fluctuations import FluctuationProblem

Pair = tuple[str, str, str]


@dataclass(frozen=True)
class Ladder:
    """Geometric series of planar contractions.

    Attributes
    ----------
    pairs : (population, field of copy 1, field of copy 2): what a rung may connect
    rung : (pairs × pairs) one contraction: from a pair of fields to the pair of outputs one coupling further in
    centre : (pairs × pairs) where the four chains meet: C(ω₁) C(ω₂) at one unit
    """

    pairs: tuple[Pair, ...]
    rung: Matrix
    centre: Matrix

    def total(self, pair: Pair) -> Expr:
        """N⟨O O⟩ of the pair: both corner series, meeting at the centre."""
        left = self._series(self.pairs.index(pair))
        value: Expr = (left * self.centre * conjugated(left).T)[0, 0]
        return value

    def _series(self, k: int) -> Matrix:
        """Row k of Σ_n rung^n."""
        size, rung = len(self.pairs), self.rung
        inner = [j for j in range(size) if any(rung[i, j] != 0 for i in range(size))]
        row = eye(size)[k, :]
        if inner:
            core = eye(len(inner)) - rung.extract(inner, inner)
            solved = core.T.LUsolve(rung.extract([k], inner).T)
            for n, j in enumerate(inner):
                row[0, j] += solved[n, 0]
        return row


def ladder(problem: FluctuationProblem, action: CopiedAction) -> Ladder:
    """The planar series of a declared network.

    Raises
    ------
    NotCovered
        Where entries J_ij and J_ji are correlated (corners that are not adjacent contract too) or are redrawn.
    """
    population = {f.name: f.population for f in problem.fields}
    reads = {_end(u.row).removeprefix("hat_"): _end(u.col) for u in action.uses}
    pairs = tuple((p, a, b) for a, p in population.items() for b, q in population.items() if p == q)
    fractions = fractions_of(action)
    rung = zeros(len(pairs), len(pairs))
    for u, v, weight in _variances(action):
        first, second = (_end(use.row).removeprefix("hat_") for use in (u, v))
        if population[reads[first]] != population[reads[second]]:
            continue
        inner = (population[reads[first]], reads[first], reads[second])
        for i, (_, a, b) in enumerate(pairs):
            if _reads(problem, a, first) and _reads(problem, b, second):
                # An average over the outer units becomes one over the inner units, f·N of them.
                gain = response(a, "hat_" + first, 1) * response(b, "hat_" + second, 2)
                rung[i, pairs.index(inner)] += gain * weight * fractions[inner[0]]
    centre = Matrix(len(pairs), len(pairs), lambda i, j: _centre(pairs[i], pairs[j], fractions))
    return Ladder(pairs, rung, centre)


def _centre(m: Pair, n: Pair, fractions: dict[str, Expr]) -> Expr:
    if m[0] != n[0]:
        return S.Zero
    return spectrum(m[1], n[1], 1) * spectrum(m[2], n[2], 2) / fractions[m[0]]


def _end(atoms: tuple[tuple[str, int], ...]) -> str:
    ((name, _),) = atoms
    return name


def _reads(problem: FluctuationProblem, name: str, local: str) -> bool:
    return problem.field(name).transfer.get(local, S.Zero) != 0


def _variances(action: CopiedAction) -> list[tuple[Use, Use, Expr]]:
    """Uses (u, v) whose entries J^u_ij, J^v_ij are correlated, with N times their covariance."""
    weights: dict[tuple[str, str], Expr] = {}
    for law in action.laws:
        for d in law.diagrams:
            if len(d.edges) == 1:
                continue
            names = (d.edges[0][0], d.edges[1][0])
            if len(d.edges) > 2 or d.same_copy or d.edges[0][1:] != d.edges[1][1:]:
                raise NotCovered(f"the {d.kind} of {law.name}: more corners contract than the planar series has")
            weights[names] = weights[names[::-1]] = d.weight
    return [
        (u, v, weights[u.coupling, v.coupling])
        for u in action.uses
        for v in action.uses
        if (u.coupling, v.coupling) in weights
    ]


def conjugated(matrix: Matrix) -> Matrix:
    """Complex conjugate: responses R and spectra C of unequal fields exchange with their bars."""
    return matrix.applyfunc(conjugate)


def conjugate(expr: Expr) -> Expr:
    """Complex conjugate of an expression in spectra, responses and real parameters."""
    swap = {}
    for s in expr.free_symbols:
        head, sep, rest = s.name.partition("_")
        if "__" in s.name and not s.is_real and sep:
            other = head.removesuffix("bar") if head.endswith("bar") else head + "bar"
            swap[s] = Symbol(f"{other}_{rest}")
    return expr.xreplace(swap)
