"""The line on which replicas break their symmetry, in the plane of any two parameters."""

from __future__ import annotations

import numpy as np
import pytest
from sympy import symbols

from quenched import Field, Gibbs, Landscape, QuenchedError, Spherical, catalogue, derive, total

T, h = symbols("T h", positive=True)
s = Field("s")


def test_pairs_in_a_field() -> None:
    """de Almeida, Thouless: T(h), and the same line as h(T)."""
    theory = derive(catalogue["sk"](), J0=0)
    line = theory.at_line("T", "h", (0.1, 0.2, 0.5, 1.0), bracket=(0.2, 1.1))
    assert line.values == pytest.approx([0.81885, 0.72504, 0.53510, 0.32118], abs=6e-6)
    assert line.dims == ("h",)
    back = theory.at_line("h", T, line.values[1:3], bracket=(0.05, 1.5))
    assert back.values == pytest.approx([0.2, 0.5], abs=1e-6)


def test_three_bodies_in_a_field() -> None:
    """On the sphere q(1−q)² = T²/3 and h² = T² q/(1−q)² − (3/2) q² give the line in closed form."""
    model = Gibbs({s: Spherical()}, energy=Landscape("V", lambda q: q**3 / 2)(s) - h * total(s), beta=1 / T)
    q = np.array([0.7296380065878778, 0.6388241377678379])
    exact = np.sqrt(3 * q * (1 - q) ** 2)
    fields = np.sqrt(exact**2 * q / (1 - q) ** 2 - 1.5 * q**2)
    line = derive(model).at_line("T", "h", fields, bracket=(0.3, 0.9))
    assert line.values == pytest.approx(exact, abs=1e-7)


def test_memories() -> None:
    """Retrieval states near their largest load break the symmetry at low temperatures."""
    line = derive(catalogue["hopfield"]()).at_line("T", "alpha", (0.12, 0.13), bracket=(0.003, 0.02))
    assert 0.003 < line.values[0] < line.values[1] < 0.02


@pytest.mark.slow
def test_negative_margins() -> None:
    """Below κ = 0 solutions break the symmetry before the load at which equivalent replicas would lose them."""
    theory = derive(catalogue["gardner"]())
    line = theory.at_line("alpha", "kappa", (-0.5,), bracket=(3.5, 4.4))
    (load,) = line.values
    assert float(theory.stability(alpha=load, kappa=-0.5)["overlap"][0]) == pytest.approx(1, abs=1e-6)
    assert load < 1 / ((1 + 0.25) * 0.3085375 - 0.5 * 0.3520653)


def test_what_a_line_needs() -> None:
    theory = derive(catalogue["sk"](), J0=0)
    with pytest.raises(QuenchedError, match=r"no point of the line at h = 0\.5"):
        theory.at_line("T", "h", (0.5,), bracket=(0.8, 1.1))
    with pytest.raises(QuenchedError, match="two different parameters"):
        theory.at_line("T", "T", (0.5,), bracket=(0.8, 1.1))
