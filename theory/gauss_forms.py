"""Normal form of site functions: sums of polynomial × Gaussian × kinks, the class that Gaussian averages close on.

A *monomial* is u^n · exp(−½ d u² + b u) · Π k(u) with kernels k of an affine argument z = slope·u + offset,

    erf(z),  sign(z),  step(z) = θ(z),  wave(z) = cos z,  delta(z) = δ^(k)(z),

and a *form* is a linear combination {monomial: coefficient}. Forms add, multiply and differentiate (in the sense of
distributions), so ReLU, |u|, Heaviside, hard clips, sin, exp, erf and any polynomial or product of them are forms.
A function outside the class raises `NoForm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb
from typing import Literal

from sympy import Add, DiracDelta, Expr, Heaviside, Integer, Max, Min, Mul, S, cos, erf, exp, pi, sign, sqrt

from quenched.theory.problem import U

Kind = Literal["erf", "sign", "step", "wave", "delta"]

_FUNCTIONS: dict[str, Callable[[Expr], Expr]] = {"erf": erf, "sign": sign, "step": Heaviside, "wave": cos}


class NoForm(Exception):
    """The expression is not a sum of polynomial × Gaussian × kinks (internal: callers turn it into None)."""


@dataclass(frozen=True)
class Kernel:
    """k(slope·u + offset); `order` is the derivative order of a delta."""

    kind: Kind
    slope: Expr
    offset: Expr
    order: int = 0

    @property
    def argument(self) -> Expr:
        return self.slope * U + self.offset

    @property
    def root(self) -> Expr:
        return -self.offset / self.slope

    @property
    def expr(self) -> Expr:
        if self.kind == "delta":
            return DiracDelta(self.argument, self.order) if self.order else DiracDelta(self.argument)
        return _FUNCTIONS[self.kind](self.argument)


@dataclass(frozen=True)
class Monomial:
    """u^power · exp(−½ decay u² + drift u) · Π kernels."""

    power: int = 0
    decay: Expr = S.Zero
    drift: Expr = S.Zero
    kernels: tuple[Kernel, ...] = ()

    @property
    def expr(self) -> Expr:
        envelope = exp(-self.decay * U**2 / 2 + self.drift * U)
        return U**self.power * envelope * Mul(*(k.expr for k in self.kernels))

    @property
    def is_exponential(self) -> bool:
        return self.decay != 0 or self.drift != 0

    def plain(self) -> Monomial:
        """Without the exponential factor."""
        return replace(self, decay=S.Zero, drift=S.Zero)


Form = dict[Monomial, Expr]
ONE = Monomial()


# ---------------------------------------------------------------------------------------------------------- algebra
def constant(value: Expr) -> Form:
    return {ONE: value} if value != 0 else {}


def add(*forms: Form) -> Form:
    total: Form = {}
    for form in forms:
        for monomial, coefficient in form.items():
            total[monomial] = total.get(monomial, S.Zero) + coefficient
    return {m: c for m, c in total.items() if c != 0}


def scale(form: Form, factor: Expr) -> Form:
    return {m: factor * c for m, c in form.items()} if factor != 0 else {}


def multiply(left: Form, right: Form) -> Form:
    """Product of two forms in one variable."""
    products = (scale(_times(p, q), a * b) for p, a in left.items() for q, b in right.items())
    return add(*products)


def _times(left: Monomial, right: Monomial) -> Form:
    deltas = [k for k in left.kernels + right.kernels if k.kind == "delta"]
    if deltas:
        return _on_delta(left, right)
    bare = Monomial(left.power + right.power, left.decay + right.decay, left.drift + right.drift)
    total: Form = {replace(bare, kernels=left.kernels): S.One}
    for kernel in right.kernels:
        total = add(*(scale(_attach(m, kernel), c) for m, c in total.items()))
    return total


def _on_delta(left: Monomial, right: Monomial) -> Form:
    if any(k.kind == "delta" for k in left.kernels):
        left, right = right, left
    (kernel,) = right.kernels
    if any(k.kind == "delta" for k in left.kernels):
        raise NoForm("a product of deltas of one variable")
    return at_root(left.expr, kernel)


def at_root(rest: Expr, kernel: Kernel) -> Form:
    """r(u) δ^(k)(z) = Σ_j C(k,j) (−1)^j r^(j)(z=0) δ^(k−j)(z), derivatives with respect to z."""
    total = []
    for j in range(kernel.order + 1):
        value = rest.subs(U, kernel.root)
        if value.has(DiracDelta) or value.is_finite is False:
            raise NoForm("a delta on a singularity")
        lower = replace(kernel, order=kernel.order - j)
        total.append({Monomial(kernels=(lower,)): comb(kernel.order, j) * (-1) ** j * value})
        rest = rest.diff(U) / kernel.slope
    return add(*total)


def _attach(monomial: Monomial, kernel: Kernel) -> Form:
    """monomial × kernel, merging waves with waves and jumps with jumps."""
    for other in monomial.kernels:
        merged = _merge(other, kernel)
        if merged is not None:
            rest = tuple(k for k in monomial.kernels if k is not other)
            base: Form = {replace(monomial, kernels=rest): S.One}
            return multiply(base, merged)
    kernels = sorted((*monomial.kernels, kernel), key=str)
    return {replace(monomial, kernels=tuple(kernels)): S.One}


def _merge(a: Kernel, b: Kernel) -> Form | None:
    kinds = {a.kind, b.kind}
    if kinds == {"wave"}:
        waves = ((a.slope + b.slope, a.offset + b.offset), (a.slope - b.slope, a.offset - b.offset))
        return add(*(scale(wave(s, o), S.Half) for s, o in waves))
    if kinds == {"sign"} and a == b:
        return constant(S.One)
    if not kinds <= {"sign", "step"}:
        return None
    if kinds == {"step"}:
        return _merge_steps(a, b)
    steps = [add({Monomial(kernels=(replace(k, kind="step"),)): Integer(2)}, constant(-S.One)) for k in (a, b)]
    steps = [s if k.kind == "sign" else {Monomial(kernels=(k,)): S.One} for s, k in zip(steps, (a, b), strict=True)]
    return multiply(*steps)


def _merge_steps(a: Kernel, b: Kernel) -> Form | None:
    """Products of steps of unit slope are steps again; of unknown slope only squares merge."""
    if a == b:
        return {Monomial(kernels=(a,)): S.One}
    if {a.slope, b.slope} == {S.One}:
        return step(S.One, -Max(a.root, b.root))
    if {a.slope, b.slope} == {-S.One}:
        return step(-S.One, Min(a.root, b.root))
    if {a.slope, b.slope} == {S.One, -S.One}:
        up, down = (a, b) if a.slope == 1 else (b, a)
        return add(step(S.One, up.offset), scale(step(S.One, -Max(up.root, down.root)), -S.One))
    return None


# ------------------------------------------------------------------------------------------------------ constructors
def wave(slope: Expr, offset: Expr) -> Form:
    """cos(slope·u + offset)."""
    if slope == 0:
        return constant(cos(offset))
    return {Monomial(kernels=(Kernel("wave", slope, offset),)): S.One}


def step(slope: Expr, offset: Expr, kind: Kind = "step") -> Form:
    """θ or sign of slope·u + offset, the slope scaled to ±1 where its sign is known."""
    if slope == 0:
        return constant(sign(offset) if kind == "sign" else Heaviside(offset))
    if slope.is_positive:
        slope, offset = S.One, offset / slope
    elif slope.is_negative:
        slope, offset = -S.One, -offset / slope
    if kind == "sign" and slope == -1:
        return {Monomial(kernels=(Kernel("sign", S.One, -offset),)): -S.One}
    return {Monomial(kernels=(Kernel(kind, slope, offset),)): S.One}


def delta(slope: Expr, offset: Expr, order: int = 0) -> Form:
    """δ^(order)(slope·u + offset), the slope scaled to one where its sign is known."""
    if slope == 0:
        raise NoForm("a delta of a constant")
    if slope.is_positive or slope.is_negative:
        weight = sign(slope) * slope ** (-1 - order)
        return {Monomial(kernels=(Kernel("delta", S.One, offset / slope, order),)): weight}
    return {Monomial(kernels=(Kernel("delta", slope, offset, order),)): S.One}


def error_function(slope: Expr, offset: Expr) -> Form:
    if slope == 0:
        return constant(erf(offset))
    return {Monomial(kernels=(Kernel("erf", slope, offset),)): S.One}


def gaussian(decay: Expr, drift: Expr) -> Form:
    """exp(−½ decay u² + drift u)."""
    return {Monomial(decay=decay, drift=drift): S.One}


def differentiate(monomial: Monomial) -> Form:
    """d/du of a monomial as a distribution (no product is differentiated before jumps are merged)."""
    n, parts = monomial.power, []
    if n:
        parts.append({replace(monomial, power=n - 1): Integer(n)})
    if monomial.decay != 0:
        parts.append({replace(monomial, power=n + 1): -monomial.decay})
    if monomial.drift != 0:
        parts.append({monomial: monomial.drift})
    for i, kernel in enumerate(monomial.kernels):
        rest = replace(monomial, kernels=monomial.kernels[:i] + monomial.kernels[i + 1 :])
        parts.append(multiply({rest: S.One}, _kernel_slope(kernel)))
    return add(*parts)


def _kernel_slope(k: Kernel) -> Form:
    a, b = k.slope, k.offset
    if k.kind == "erf":
        return scale(gaussian(2 * a**2, -2 * a * b), 2 * a / sqrt(pi) * exp(-(b**2)))
    if k.kind == "wave":
        return scale(wave(a, b + pi / 2), a)
    if k.kind == "delta":
        return scale(delta(a, b, k.order + 1), a)
    return scale(delta(a, b), 2 * a if k.kind == "sign" else a)


def expression(form: Form) -> Expr:
    return Add(*(c * m.expr for m, c in form.items()))
