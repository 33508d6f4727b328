"""Random well-posed declarations: nonlinearities, populations, symmetry, means, noise, further fields, flows and maps.

Gains are small against the leak, so that every declaration has one stationary state that forgets its start: what
derivation, solver and simulation then say about it must be the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from sympy import Expr, Max, Rational, cos, erf, exp, sqrt, tanh

from quenched.theory import (
    Dynamics,
    Field,
    Gaussian,
    Iid,
    Map,
    N,
    Normal,
    Population,
    Quenched,
    Uniform,
    WhiteNoise,
    mean,
)
from quenched.theory.algebra import Matrix, outer
from quenched.theory.model import Model

OUTPUTS: list[Any] = [
    tanh,
    erf,
    lambda x: tanh(x + Rational(1, 2)),
    lambda x: Max(0, x),
    lambda x: x / sqrt(1 + x**2),
    lambda x: 1 / (1 + exp(-2 * x)),
    lambda x: cos(x) / 2,
    lambda x: x,
]


@dataclass(frozen=True)
class Draw:
    """A declaration and what is special about it."""

    model: Model
    traits: frozenset[str]


class _Builder:
    """Collects the pieces of one declaration."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.traits: set[str] = set()
        self.clock = rng.choice([Dynamics, Dynamics, Map])
        self.map = self.clock is Map
        if self.map:
            self.traits.add("map")
        two = rng.random() < 0.4
        if two:
            self.traits.add("two populations")
        self.spaces = (
            [Population("E", Rational(3, 5)), Population("I", Rational(2, 5))] if two else [Population("units")]
        )
        self.fields = [Field(name, space) for name, space in zip("xy", self.spaces, strict=False)]

    def chance(self, p: float, trait: str) -> bool:
        """Decide for a trait, and remember it."""
        yes = self.rng.random() < p
        if yes:
            self.traits.add(trait)
        return yes

    def coupling(self, rows: int, cols: int, scale: Expr) -> Matrix:
        """A random matrix between two populations, with variance (scale)²."""
        name = f"J_{rows}{cols}"
        over = (self.spaces[rows], self.spaces[cols])
        if self.rng.random() < 0.2:
            return Iid(name, Normal(0, scale), over=over)
        how: dict[str, Any] = {"variance": scale**2, "over": over}
        if self.chance(0.35, "mean"):
            how["mean"] = self.rng.choice([-1, 1]) * Rational(1, 4)
        if rows == cols and self.chance(0.45, "symmetry"):
            how["symmetry"] = self.rng.choice([Rational(-1, 2), Rational(1, 4), Rational(1, 2)])
        return Gaussian(name, **how)

    def equation(self, k: int) -> Expr:
        """Leak, one or two couplings, input, noise."""
        x, rng = self.fields[k], self.rng
        leak: Expr = x / 3 if self.map else -rng.choice([1, 1, Rational(3, 2)]) * x
        rhs = leak
        sources = rng.sample(range(len(self.fields)), rng.randint(1, len(self.fields)))
        for j in sources:
            scale = rng.choice([Rational(1, 4), Rational(2, 5)]) / len(sources)
            rhs += self.coupling(k, j, scale) @ rng.choice(OUTPUTS)(self.fields[j])
        strength = rng.choice([Rational(1, 2), 1])
        rhs += strength * WhiteNoise("xi", over=x.population)
        if self.chance(0.3, "disorder"):
            rhs += Quenched("b", rng.choice([Normal(0, Rational(1, 2)), Uniform(-1, 1)]), over=x.population)
        if self.chance(0.15, "mean field"):
            rhs += mean(rng.choice(OUTPUTS)(x)) / 4
        return rhs

    def build(self) -> Model:
        """The declaration, perhaps with an adaptation variable, a gate or a dynamic coupling."""
        eqs: dict[Any, Any] = {x: self.equation(k) for k, x in enumerate(self.fields)}
        x = self.fields[0]
        if self.chance(0.45, "further field"):
            a = Field("a", x.population)
            eqs[x] -= a / 3
            eqs[a] = (a + x) / 2 if self.map else (x - a) / 2
        if self.chance(0.2, "gate"):
            eqs[x] += tanh(x) / 5
        if self.chance(0.35, "dynamic coupling"):
            A = Field("A", over=(x.population, x.population))
            eqs[x] += A @ tanh(x)
            drive = outer(tanh(x), x) / (4 * N)
            eqs[A] = A / 2 + drive if self.map else -A + drive
        return self.clock(eqs)


def draw(seed: int) -> Draw:
    """The declaration with this number."""
    builder = _Builder(Random(seed))
    model = builder.build()
    return Draw(model, frozenset(builder.traits))
