"""Observables of spectra: what can be declared, and the numbers that the theories of the catalogue give."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from sympy import I, Max, Rational, S, symbols

from quenched import (
    Count,
    Density,
    Edge,
    Field,
    Gaussian,
    Moment,
    N,
    NotCovered,
    Outlier,
    QuenchedError,
    Radius,
    Spectrum,
    catalogue,
    derive,
    load,
    mean,
    outer,
)
from quenched.cli import main
from quenched.spectral import SpectralSolution

sigma, r = symbols("sigma r", positive=True)
J, W = Gaussian("J", sigma**2), Gaussian("W", sigma**2, symmetry=1)


# -- declaration ---------------------------------------------------------------------------------------------------
def test_observables_are_declared_by_name() -> None:
    net = Spectrum(J, name="net", defaults={sigma: 1}).observe(inner=Count(disc=r), edge=Edge())
    assert [s.name for s in net.parameters] == ["r", "sigma"]
    assert net.fix(r=Rational(1, 2)).observables["inner"] == Count(disc=Rational(1, 2))
    assert net.key() != Spectrum(J).key()
    assert str(Count(box=((0, 1), (-1, 1)))) == "Count(box=((0, 1), (-1, 1)))"
    assert str(Edge("right", below=2)) == "Edge('right', below=2)"
    assert str(Count(0, 1)) == "Count(window=(0, 1))"
    with pytest.raises(QuenchedError, match="already declared"):
        net.observe(edge=Edge("left"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Count(), "one of window=, box=, disc=, got none"),
        (lambda: Count(1, 0), "low < high"),
        (lambda: Count(1), "two ends of a window"),
        (lambda: Count(disc=-1), "radius of a disc should be positive"),
        (lambda: Edge("up"), "takes a side"),
        (lambda: Outlier("top"), "'right' or 'left'"),
        (lambda: Outlier("right", 0), "rank of Outlier"),
        (lambda: Moment(0), "k ≥ 1"),
        (lambda: Density("x y"), "should be a number|Sympify|invalid"),
        (lambda: Spectrum(J).observe(a=Count(0, 1)), "are complex"),
        (lambda: Spectrum(W).observe(a=Density(I)), "are real"),
        (lambda: Spectrum(W).observe(a=Count(box=((0, 1), (0, 1)))), "needs window="),
        (lambda: Spectrum(J).observe(a=mean(Field("x"))), "read off eigenvalues"),
        (lambda: Spectrum(J).observe(a=sigma), "should be made of"),
    ],
)
def test_slips_in_observables_say_so(make: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        make()


# -- values ------------------------------------------------------------------------------------------------------
@cache
def solved(name: str, *options: tuple[str, Any], **values: float) -> SpectralSolution:
    found: SpectralSolution = derive(catalogue[name](**dict(options))).solve(**values)
    return found


#: Entry, its options, parameters, observable, value to the digits known.
REFERENCE: list[tuple[str, dict[str, Any], dict[str, float], str, float]] = [
    ("wigner", {}, {"sigma": 1.5}, "right", 3.0),
    ("wigner", {}, {}, "fourth", 2.0),
    ("circular", {}, {}, "half", 0.25),
    ("circular", {}, {}, "radius", 1.0),
    ("elliptic", {}, {}, "left", -1.5),
    ("elliptic", {}, {}, "top", 0.5),
    ("elliptic", {}, {}, "outlier", 1.83333),
    ("elliptic", {}, {"tau_": 0.0}, "outlier", 1.5),
    ("ginibre-product", {}, {}, "inner", 0.3),
    ("ginibre-product", {"factors": 3}, {}, "half", 0.62996),
    ("block-profile", {}, {}, "radius", 0.78246),
    ("block-profile", {}, {}, "half", 0.43087),
    ("ei-columns", {}, {}, "radius", 0.82462),
    ("ei-columns", {}, {}, "half", 0.51065),
    ("ei-columns", {"balanced_rows": False}, {}, "half", 0.51065),
    ("rate-jacobian", {}, {"eta": 0.0}, "box", 0.30181),
    ("rate-jacobian", {}, {"eta": 0.4}, "box", 0.32743),
    ("rate-jacobian", {}, {"eta": -0.4}, "box", 0.31971),
    ("rate-jacobian", {}, {"eta": 0.0}, "right", 0.02221),
    ("rate-jacobian", {}, {"eta": 0.4}, "right", 0.46516),
    ("rate-jacobian", {}, {"eta": -0.4}, "right", -0.42580),
    ("rate-jacobian", {"phi": lambda x: Max(x, 0)}, {"eta": 0.0}, "right", 0.06066),
    ("non-normal", {}, {}, "waist", 0.00898),
    ("non-normal", {}, {}, "right", 1.64475),
    ("sample-covariance", {}, {}, "low", 0.36942),
    ("sample-covariance", {}, {}, "gap_begins", 1.67228),
    ("sample-covariance", {}, {}, "gap_ends", 3.24227),
    ("sample-covariance", {}, {}, "high", 10.01203),
    ("random-matrix-core", {}, {}, "gap", 0.26630),
    ("random-matrix-core", {}, {}, "right", 1.92268),
    ("random-matrix-core", {}, {"sigma": 1.3}, "right", 3.12564),
    ("anticommutator", {}, {}, "right", float(np.sqrt((11 + 5 * np.sqrt(5)) / 2))),
    ("anticommutator", {}, {}, "second", 2.0),
]


@pytest.mark.parametrize(
    ("name", "options", "values", "observable", "expected"),
    REFERENCE,
    ids=[f"{r[0]}-{r[3]}-{k}" for k, r in enumerate(REFERENCE)],
)
def test_the_catalogue_gives_known_values(
    name: str, options: dict[str, Any], values: dict[str, float], observable: str, expected: float
) -> None:
    found = solved(name, *options.items(), **values).quantity(observable)
    assert found.value == pytest.approx(expected, abs=6e-6)
    assert found.error < 1e-5


def test_resolvents_and_densities_of_the_catalogue() -> None:
    np.testing.assert_allclose(solved("circular").resolvent([0.5, 1.2]), [0.5, 1 / 1.2], atol=1e-10)
    w = 0.5 + 0.3j
    assert solved("elliptic").resolvent(w) == pytest.approx((w.conjugate() - 0.5 * w) / 0.75, abs=1e-9)
    np.testing.assert_allclose(solved("random-matrix-core", sigma=1.3).density([1, 0]), [0.18973, 0.15645], atol=6e-6)
    found = solved("sample-covariance")
    np.testing.assert_allclose(found.density([1, 1.5, 5, 8]), [0.52964, 0.24011, 0.08169, 0.05238], atol=6e-6)
    assert found.quantity("tail").value == pytest.approx(0.15306, abs=2e-5)


def test_products_with_inverses() -> None:
    net = Spectrum(Gaussian("A").inv() @ Gaussian("B")).observe(inner=Count(disc=0.8))
    assert derive(net).solve().quantity("inner").value == pytest.approx(0.64 / 1.64, abs=1e-6)


def test_expressions_of_observables_carry_their_errors() -> None:
    net = Spectrum(W).observe(kurtosis=Moment(4) / Moment(2) ** 2, doubled=2 * Edge("right") - sigma)
    found = derive(net).solve(sigma=3)
    assert found.quantity("kurtosis").value == pytest.approx(2, abs=1e-8)
    assert found.quantity("doubled").value == pytest.approx(9, abs=1e-7)


def test_standard_observables_where_none_is_declared() -> None:
    assert derive(Spectrum(J)).solve(sigma=2).names == ["edge_left", "edge_right", "moment_2"]
    found = derive(Spectrum(W)).solve(sigma=2)
    assert found.names == ["edge_left", "edge_right", "moment_2", "density"]
    assert found["density"].dims == ("x",)


def test_what_a_spectrum_does_not_have_is_said() -> None:
    spiked = Spectrum(J + 3 * sigma * outer(1, 1) / N).observe(
        edge=Edge("right"), below=Edge("right", below=2), radius=Radius(), out=Outlier(), second=Outlier("right", 2)
    )
    found = derive(spiked).solve(sigma=1)
    missing = found.main.missing()
    assert "an outlier at 3 lies beyond the edge 1" in missing["edge"]
    assert "an outlier at 3 lies beyond the radius" in missing["radius"]
    assert "make 1 eigenvalues outside" in missing["second"]
    assert found.quantity("below").value == pytest.approx(1, abs=1e-6)
    assert found.quantity("out").value == pytest.approx(3, abs=1e-6)
    with pytest.raises(NotCovered, match="no disc or annulus"):
        derive(Spectrum(Gaussian("K", symmetry=Rational(1, 2))).observe(r=Radius())).solve().quantity("r")
    with pytest.raises(NotCovered, match="inside the support"):
        derive(Spectrum(W).observe(e=Edge("right", below=1))).solve(sigma=1).quantity("e")


def test_edges_in_all_directions() -> None:
    net = Spectrum(Gaussian("K", symmetry=-Rational(1, 2)) + S.Half * outer(0, 0) / N)
    found = derive(net.observe(t=Edge("top"), b=Edge("bottom"), r=Edge("right"), l=Edge("left"))).solve()
    assert [found.quantity(n).value for n in "tbrl"] == pytest.approx([1.5, -1.5, 0.5, -0.5], abs=1e-6)


# -- solution and command line --------------------------------------------------------------------------------------
def test_a_solution_is_saved_and_plotted(tmp_path: Any) -> None:
    found = solved("random-matrix-core")
    found.save(tmp_path / "core.nc")
    again = load(tmp_path / "core.nc")
    assert again.quantity("gap").value == found.quantity("gap").value
    assert len(again["density"].x) == len(found["density"].x)
    assert found.plot() is not None
    assert solved("circular").plot() is not None
    curve = derive(catalogue["wigner"]()).sweep(sigma=[1, 2])
    assert curve.numbers("right")[0] == pytest.approx([2, 4], abs=1e-7)


def test_the_command_line_takes_spectra(capsys: Any, tmp_path: Any) -> None:
    (tmp_path / "mine.py").write_text(
        "from quenched import *\n"
        "model = Spectrum(Gaussian('J') @ Gaussian('K'), name='mine').observe(f=Count(disc=0.5))\n"
    )
    file = f"{tmp_path / 'mine.py'}:model"
    for name, observable, value in (("wigner", "right", 2.0), (file, "f", 0.5)):
        assert main(["solve", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["observables"][observable]["value"] == pytest.approx(value, abs=1e-6)
        assert main(["simulate", name, "--json", "-N", "40", "--trials", "4"]) == 0
        assert observable in json.loads(capsys.readouterr().out)["observables"]
        assert main(["derive", name]) == 0
        assert "Self-energy" in capsys.readouterr().out
    assert main(["sweep", "wigner", "-p", "sigma=1,2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["observables"]["right"]["value"] == pytest.approx([2, 4], abs=1e-6)
    assert main(["export", "wigner", "-o", str(tmp_path / "w.py")]) == 2
    assert "not built yet" in capsys.readouterr().err
