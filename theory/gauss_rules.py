"""Rules that evaluate averages over jointly Gaussian variables, and the registry that applies them.

An `Average` is a product of monomials (see `theory.gauss_forms`), one for each of n jointly Gaussian variables
("slots"), with their means and covariances. Every rule either gives its value or expresses it by simpler averages:

    Wick        polynomials                                       any means
    tilt        exp(−½ d u² + b u)                                any means: another Gaussian measure
    delta       δ^(k)(u)                                          any means: density × conditional average
    Stein       u^n × kernels                                     any means
    smooth      one erf, sign or step; one or two cosines         any means
    orthant     two of erf, sign, step                            zero mean of both arguments
    (with means the last is a bivariate normal probability, which is not elementary)

Formulas hold for positive variances and |c_12| ≤ √(v_1 v_2), the ends included: terms are arranged so that
v_1 v_2 − c_12² is exactly zero at c_12 = v_1 = v_2 in floating point and the arcus functions stay in their range
(a caller must not pass |c_12| > √(v_1 v_2), not even by rounding). At zero variance polynomials, exp, cos, erf and
all zero-mean forms keep their limit; the mean of a step with a non-zero mean divides by the variance, and
its limit there is f(mean).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb, factorial
from typing import ClassVar

from sympy import (
    Add,
    Dummy,
    Expr,
    Integer,
    Matrix,
    Mul,
    Pow,
    S,
    asin,
    atan2,
    cos,
    erf,
    erfc,
    exp,
    pi,
    sqrt,
    tanh,
)
from sympy import eye as identity

from quenched.theory.gauss_forms import ONE, Form, Kernel, Monomial, add, differentiate, scale
from quenched.theory.gauss_tidy import tidy

Row = tuple[Expr, ...]


class NoRule(Exception):
    """No rule gives this average in closed form (internal: callers turn it into None)."""


@dataclass(frozen=True)
class Average:
    """⟨Π_s slots[s](u_s)⟩ over Gaussian u with means `mean` and covariance `cov`."""

    slots: tuple[Monomial, ...]
    mean: Row
    cov: tuple[Row, ...]

    @property
    def kernels(self) -> list[tuple[int, Kernel]]:
        return [(s, k) for s, m in enumerate(self.slots) for k in m.kernels]

    def normal(self, slot: int, kernel: Kernel) -> tuple[Expr, Expr]:
        """Mean and variance of the kernel's argument."""
        return kernel.slope * self.mean[slot] + kernel.offset, kernel.slope**2 * self.cov[slot][slot]

    def put(self, slot: int, monomial: Monomial) -> Average:
        return replace(self, slots=(*self.slots[:slot], monomial, *self.slots[slot + 1 :]))

    def drop(self, slot: int) -> Average:
        keep = [s for s in range(len(self.slots)) if s != slot]
        cov = tuple(tuple(self.cov[i][j] for j in keep) for i in keep)
        return Average(tuple(self.slots[i] for i in keep), tuple(self.mean[i] for i in keep), cov)


Evaluate = Callable[[Average], Expr]


@dataclass(frozen=True)
class Rule:
    """One way to evaluate averages: `matches` says where it applies, `value` gives the result."""

    name: ClassVar[str] = ""
    statement: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def matches(self, average: Average) -> bool:
        raise NotImplementedError

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        """The average in closed form; `evaluate` is the value of the simpler averages that it is reduced to."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.name}: {self.statement}"


# --------------------------------------------------------------------------------------------------------- reductions
class Wick(Rule):
    name = "Wick"
    statement = "⟨u^n v^k⟩ = Σ_j j! C(n,j) C(k,j) c^j ⟨u^(n−j)⟩ ⟨v^(k−j)⟩"
    source = "Isserlis, Biometrika 12, 134 (1918)"

    def matches(self, average: Average) -> bool:
        polynomial = not any(m.kernels or m.is_exponential for m in average.slots)
        return polynomial and len(average.slots) <= 2

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        moments = [
            [_moment(j, m, average.cov[s][s]) for j in range(slot.power + 1)]
            for s, (slot, m) in enumerate(zip(average.slots, average.mean, strict=True))
        ]
        if len(moments) == 1:
            return moments[0][-1]
        n, k = (slot.power for slot in average.slots)
        c = average.cov[0][1]
        terms = (
            factorial(j) * comb(n, j) * comb(k, j) * c**j * moments[0][n - j] * moments[1][k - j]
            for j in range(min(n, k) + 1)
        )
        return Add(*terms)


def _moment(n: int, mean: Expr, variance: Expr) -> Expr:
    terms = (
        Integer(factorial(n) // (factorial(j) * factorial(n - 2 * j) * 2**j)) * mean ** (n - 2 * j) * variance**j
        for j in range(n // 2 + 1)
    )
    return Add(*terms)


class Tilt(Rule):
    name = "tilt"
    statement = "⟨exp(−½u·Du + b·u) F(u)⟩ = Z ⟨F⟩', a Gaussian with covariance (C⁻¹+D)⁻¹ and mean (1+CD)⁻¹(m+Cb)"
    source = "completing the square"

    def matches(self, average: Average) -> bool:
        return any(m.is_exponential for m in average.slots)

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        d = tuple(m.decay for m in average.slots)
        b = tuple(m.drift for m in average.slots)
        size = range(len(d))
        shifted = tuple(average.mean[i] + Add(*(average.cov[i][j] * b[j] for j in size)) for i in size)
        det, mean, cov = _restrict(d, shifted, average.cov)
        exponent = Add(*(b[i] * (mean[i] + average.mean[i]) - average.mean[i] * d[i] * mean[i] for i in size)) / 2
        slots = tuple(m.plain() for m in average.slots)
        return exp(exponent) / sqrt(det) * evaluate(Average(slots, mean, cov))


def _restrict(d: Row, y: Row, cov: tuple[Row, ...]) -> tuple[Expr, Row, tuple[Row, ...]]:
    """det(1+CD), (1+CD)⁻¹y and (1+CD)⁻¹C for diagonal D."""
    if not any(d):
        return S.One, y, cov
    if len(d) == 1:
        det = _one_plus(d[0] * cov[0][0])
        return det, (y[0] / det,), ((cov[0][0] / det,),)
    if len(d) == 2:
        (v1, c), (_, v2) = cov
        gap = v1 * v2 - c**2
        det = 1 + d[0] * v1 + d[1] * v2 + d[0] * d[1] * gap
        mean = ((1 + v2 * d[1]) * y[0] - c * d[1] * y[1]) / det, ((1 + v1 * d[0]) * y[1] - c * d[0] * y[0]) / det
        c = c / det
        return det, mean, (((v1 + d[1] * gap) / det, c), (c, (v2 + d[0] * gap) / det))
    full = Matrix(cov)
    matrix = identity(len(d)) + full * Matrix.diag(*d)
    inverse = matrix.inv()
    new, mean = inverse * full, inverse * Matrix(y)
    return matrix.det(), tuple(mean), tuple(tuple(new.row(i)) for i in range(len(d)))


class Condition(Rule):
    name = "delta"
    statement = "⟨δ(z) F⟩ = p_z(0) ⟨F | z=0⟩; derivatives of δ by Stein's lemma read backwards"
    source = "density of a Gaussian variable and its conditional law"

    def matches(self, average: Average) -> bool:
        return any(k.kind == "delta" for _, k in average.kernels)

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        deltas = [(s, k) for s, k in average.kernels if k.kind == "delta"]
        if len(deltas) > 1:
            return _by_shifts(average, deltas, evaluate)
        slot, kernel = deltas[0]
        return _lower_order(average, slot, kernel, evaluate) if kernel.order else _on_zero(average, evaluate)


def _lower_order(average: Average, slot: int, kernel: Kernel, evaluate: Evaluate) -> Expr:
    """v a ⟨δ^(k+1) F⟩ = (r − m) ⟨δ^(k) F⟩ − (k/a) ⟨δ^(k−1) F⟩ − Σ_j C_j ⟨δ^(k) ∂_j F⟩, from ⟨u δ^(k) F⟩ in two ways."""

    def of_order(k: int) -> Average:
        return average.put(slot, Monomial(kernels=(replace(kernel, order=k),)))

    k, row = kernel.order - 1, average.cov[slot]
    below = of_order(k)
    distance = kernel.root - average.mean[slot]
    terms = [distance * evaluate(below)] if distance != 0 else []
    if k:
        terms.append(-k * evaluate(of_order(k - 1)) / kernel.slope)
    for j, monomial in enumerate(average.slots):
        if j != slot and row[j] != 0:
            slopes = differentiate(monomial).items()
            terms.extend(-row[j] * w * evaluate(below.put(j, inner)) for inner, w in slopes)
    return Add(*terms) / (row[slot] * kernel.slope)


def _by_shifts(average: Average, deltas: list[tuple[int, Kernel]], evaluate: Evaluate) -> Expr:
    """Several deltas: ⟨δ^(k)(z) F⟩ = ∂_ε^k ⟨δ(z+ε) F⟩."""
    shifts: list[tuple[Expr, int]] = []
    for slot, kernel in deltas:
        if kernel.order:
            shift = Dummy("epsilon", real=True)
            moved = replace(kernel, order=0, offset=kernel.offset + shift)
            average = average.put(slot, Monomial(kernels=(moved,)))
            shifts.append((shift, kernel.order))
    result = _on_zero(average, evaluate)
    for shift, order in shifts:
        result = result.diff(shift, order).xreplace({shift: S.Zero})
    return result


def _on_zero(average: Average, evaluate: Evaluate) -> Expr:
    deltas = [(s, k) for s, k in average.kernels if k.kind == "delta"]
    slot, kernel = deltas[0]
    mu, s = average.normal(slot, kernel)
    if len(deltas) == len(average.slots) == 2:
        other, last = deltas[1]
        nu, r = average.normal(other, last)
        t = kernel.slope * last.slope * average.cov[slot][other]
        gap = s * r - t**2
        return exp(-(r * mu**2 - 2 * t * mu * nu + s * nu**2) / (2 * gap)) / (2 * pi * sqrt(gap))
    size, a = range(len(average.slots)), kernel.slope
    pull = tuple(a * average.cov[i][slot] for i in size)
    mean = tuple(average.mean[i] - pull[i] * mu / s for i in size)
    cov = tuple(tuple((average.cov[i][j] * s - pull[i] * pull[j]) / s for j in size) for i in size)
    density = exp(-(mu**2) / (2 * s)) / sqrt(2 * pi * s)
    return density * evaluate(Average(average.slots, mean, cov).drop(slot))


class Stein(Rule):
    name = "Stein"
    statement = "⟨u_i F⟩ = m_i ⟨F⟩ + Σ_j C_ij ⟨∂_j F⟩"
    source = "Stein, Ann. Stat. 9, 1135 (1981)"

    def matches(self, average: Average) -> bool:
        return any(m.power for m in average.slots)

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        slot = next(s for s, m in enumerate(average.slots) if m.power)
        lower = average.put(slot, replace(average.slots[slot], power=average.slots[slot].power - 1))
        terms = [average.mean[slot] * evaluate(lower)] if average.mean[slot] != 0 else []
        for j, monomial in enumerate(lower.slots):
            if average.cov[slot][j] == 0:
                continue
            for inner, weight in differentiate(monomial).items():
                terms.append(average.cov[slot][j] * weight * evaluate(lower.put(j, inner)))
        return Add(*terms)


class Product(Rule):
    name = "parts"
    statement = "a slot without a function drops out; independent slots factorise"
    source = "marginal of a Gaussian"

    def matches(self, average: Average) -> bool:
        return ONE in average.slots or _split(average) is not None

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        if ONE in average.slots:
            return evaluate(average.drop(average.slots.index(ONE)))
        slot = _split(average)
        assert slot is not None
        alone = Average((average.slots[slot],), (average.mean[slot],), ((average.cov[slot][slot],),))
        return evaluate(alone) * evaluate(average.drop(slot))


def _split(average: Average) -> int | None:
    if len(average.slots) < 2:
        return None
    for i, row in enumerate(average.cov):
        if all(c == 0 for j, c in enumerate(row) if j != i):
            return i
    return None


# ------------------------------------------------------------------------------------------------------ closed values
class ErfMean(Rule):
    name = "erf"
    statement = "⟨erf z⟩ = erf(μ/√(1+2s)), z ~ N(μ, s)"
    source = "erf(z) = ⟨sign(√2 z + ξ)⟩ over a standard normal ξ"

    def matches(self, average: Average) -> bool:
        return [k.kind for _, k in average.kernels] == ["erf"]

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        mu, s = average.normal(*average.kernels[0])
        return erf(mu / sqrt(_one_plus(2 * s))) if not _vanishes(mu) else S.Zero


class StepMean(Rule):
    name = "step"
    statement = "⟨sign z⟩ = erf(μ/√(2s)), ⟨θ(z)⟩ = ½ erfc(−μ/√(2s))"
    source = "normal distribution function"

    def matches(self, average: Average) -> bool:
        return [k.kind for _, k in average.kernels] in (["sign"], ["step"])

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        ((slot, kernel),) = average.kernels
        mu, s = average.normal(slot, kernel)
        if _vanishes(mu):
            return S.Zero if kernel.kind == "sign" else S.Half
        depth = mu / sqrt(2 * s)
        if kernel.kind == "sign":
            return erf(depth)
        tail = erfc(-depth)
        return tail / 2 if isinstance(tail, erfc) else (1 + erf(depth)) / 2


class WaveMean(Rule):
    name = "cosine"
    statement = "⟨cos z⟩ = e^(−s/2) cos μ"
    source = "characteristic function of a Gaussian"

    def matches(self, average: Average) -> bool:
        return [k.kind for _, k in average.kernels] == ["wave"]

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        mu, s = average.normal(*average.kernels[0])
        return exp(-s / 2) * cos(mu)


class WavePair(Rule):
    name = "two cosines"
    statement = "⟨cos z cos w⟩ = e^(−(s+r)/2) [cosh t cos μ cos ν + sinh t sin μ sin ν]"
    source = "characteristic function of a Gaussian; cosh and sinh arranged so that nothing overflows or cancels"

    def matches(self, average: Average) -> bool:
        return [k.kind for _, k in average.kernels] == ["wave", "wave"]

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        (mu, s), (nu, r), t = _pair(average)
        size = (exp(t - (s + r) / 2) + exp(-t - (s + r) / 2)) / 2
        return size * (cos(mu) * cos(nu) + tanh(t) * cos(mu - pi / 2) * cos(nu - pi / 2))


class Orthant(Rule):
    name = "orthant"
    statement = "⟨s(z) s(w)⟩ = (2/π) asin ρ for s = sign, erf at zero means; θ = (1+sign)/2"
    source = "Sheppard, Phil. Trans. A 192, 101 (1899); erf: Williams, NIPS 9 (1997), eq. 11"

    def matches(self, average: Average) -> bool:
        kinds = [k.kind for _, k in average.kernels]
        centred = all(_vanishes(average.normal(s, k)[0]) for s, k in average.kernels)
        return len(kinds) == 2 and set(kinds) <= {"erf", "sign", "step"} and centred

    def value(self, average: Average, evaluate: Evaluate) -> Expr:
        (_, s), (_, r), t = _pair(average)
        first, second = (k.kind for _, k in average.kernels)
        angle = _angle(first == "erf", second == "erf", s, r, t)
        halves = (first == "step") + (second == "step")
        return 2 * angle / (pi * 2**halves) + (S.One / 4 if halves == 2 else 0)


def _angle(smooth_z: bool, smooth_w: bool, s: Expr, r: Expr, t: Expr) -> Expr:
    """asin of the correlation of √2 z + ξ (smooth: an erf) or z (a jump) with the same of w.

    With a jump it is written as atan2, which stays finite when a variance vanishes.
    """
    if smooth_z and smooth_w:
        return asin(2 * t / (sqrt(_one_plus(2 * s)) * sqrt(_one_plus(2 * r))))
    if smooth_w:
        s, r = r, s
    if smooth_z or smooth_w:
        return atan2(sqrt(2) * t, sqrt((1 + 2 * s) * r - 2 * t**2))
    return atan2(t, sqrt(s * r - t**2))


def _pair(average: Average) -> tuple[tuple[Expr, Expr], tuple[Expr, Expr], Expr]:
    """(mean, variance) of the arguments of both kernels, and their covariance."""
    (i, k), (j, q) = average.kernels
    return average.normal(i, k), average.normal(j, q), k.slope * q.slope * average.cov[i][j]


def _one_plus(value: Expr) -> Expr:
    """1 + p/q as (q + p)/q: roots of conditional variances then cancel against determinants."""
    bottom = Mul(*(1 / f for f in Mul.make_args(value) if isinstance(f, Pow) and f.exp == -1))
    top = value * bottom
    for f in Mul.make_args(top):
        if isinstance(f, Add):
            top = Add(*(a * (top / f) for a in f.args))
            break
    return (bottom + top) / bottom


def _vanishes(value: Expr) -> bool:
    return value == 0 or value.expand() == 0


WICK = Wick()
#: The registry, in the order in which rules are tried.
RULES: tuple[Rule, ...] = (
    Product(),
    WICK,
    Tilt(),
    Condition(),
    Stein(),
    ErfMean(),
    StepMean(),
    WaveMean(),
    WavePair(),
    Orthant(),
)


# --------------------------------------------------------------------------------------------------------- evaluation
def expectation(forms: tuple[Form, ...], mean: Row, cov: tuple[Row, ...]) -> tuple[Expr, tuple[Rule, ...]]:
    """⟨Π_s forms[s](u_s)⟩ and the rules that gave it, in the order of their first use. Raises `NoRule`."""
    used: dict[Rule, None] = {}
    known: dict[Average, Expr] = {}

    def evaluate(average: Average) -> Expr:
        if not average.slots:
            return S.One
        if average not in known:
            rule = next((r for r in RULES if r.matches(average)), None)
            if rule is None:
                raise NoRule
            used.setdefault(rule)
            known[average] = rule.value(average, evaluate)
        return known[average]

    if len(forms) == 2 and all(not m.kernels and not m.is_exponential for form in forms for m in form):
        return _polynomials(forms, mean, cov), (WICK,)
    products: list[tuple[tuple[Monomial, ...], Expr]] = [((), S.One)]
    for form in forms:
        products = [((*ms, m), c * d) for ms, c in products for m, d in form.items()]
    total = Add(*(c * evaluate(Average(ms, mean, cov)) for ms, c in products))
    return tidy(total), tuple(used)


def _polynomials(forms: tuple[Form, ...], mean: Row, cov: tuple[Row, ...]) -> Expr:
    """Σ_j c^j/j! ⟨f^(j)⟩ ⟨g^(j)⟩: Wick's rule for whole polynomials, which keeps high degrees short."""
    terms, j = [], 0
    while all(forms):
        means = [Add(*(w * _moment(m.power, mean[s], cov[s][s]) for m, w in forms[s].items())) for s in (0, 1)]
        terms.append(cov[0][1] ** j * Mul(*means) / factorial(j))
        forms = tuple(add(*(scale(differentiate(m), w) for m, w in form.items())) for form in forms)
        j += 1
    return Add(*terms)
