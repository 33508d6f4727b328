"""What users type: expressions, parameter values, model files."""

from __future__ import annotations

import ast
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from sympy import Rational, Symbol, erf, pi, sqrt, symbols, tanh

from quenched import (
    Discrete,
    Dynamics,
    Field,
    Gaussian,
    Ising,
    Normal,
    Positive,
    Quenched,
    SpikeSlab,
    derive,
    simulate,
    validate,
)
from quenched.expressions import function_or_number, number, parse
from quenched.parameters import assignments, only_numbers, open_model, points, value
from quenched.systems import catalogue
from quenched.theory.errors import QuenchedError

x = Symbol("x", real=True)


def test_an_expression_is_read_exactly() -> None:
    assert parse("erf(sqrt(pi)*x/2)") == erf(sqrt(pi) * x / 2)
    assert parse("0.1*x") == x * Rational(1, 10)
    assert parse("-x/sqrt(1+x**2)") == -x / sqrt(1 + x**2)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tanh(x", "expression"),
        ("tanhh(x)", "did you mean 'tanh'"),
        ("__import__('os').system('true')", "cannot read"),
        ("x.real", "cannot read"),
        ("[x]", "cannot read"),
        ("x^2", "write \\*\\*"),
        ("x/0", "division by zero"),
        ("9**9**9", "exponent"),
        ("tanh(x, y)", "arguments"),
        ("tanh", "needs an argument"),
        ("'x'", "cannot read"),
        ("True", "cannot read"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(text: str, hint: str) -> None:
    with pytest.raises(QuenchedError, match=hint) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_every_printed_float_is_read_back(given_value: float) -> None:
    assert float(number(repr(given_value))) == pytest.approx(given_value, rel=1e-15, abs=0)


@pytest.mark.parametrize("text", ["nan", "inf", "log(0)", "sqrt(-1)", "x", "1/0", ""])
def test_a_value_must_be_a_finite_real_number(text: str) -> None:
    with pytest.raises(QuenchedError):
        number(text)


def test_numbers_may_be_written_as_formulas() -> None:
    assert number("sqrt(2)/2") == pytest.approx(math.sqrt(0.5), rel=1e-15)
    assert number("2") == 2
    assert isinstance(number("2"), int)


def test_an_option_is_a_function_of_one_variable() -> None:
    assert function_or_number("tanh") is tanh
    function = function_or_number("y/sqrt(1+y**2)")
    assert callable(function)
    assert function(x) == x / sqrt(1 + x**2)
    assert function_or_number("1/4") == 0.25
    with pytest.raises(QuenchedError, match="one variable"):
        function_or_number("x*y")


def test_an_option_is_a_law() -> None:
    assert function_or_number("Ising") == function_or_number(" Ising() ") == Ising()
    assert function_or_number("Normal(0, 1/4)") == Normal(0, Rational(1, 4))
    assert function_or_number("Positive(Normal(0, 1))") == Positive(Normal(0, 1))
    assert function_or_number("SpikeSlab(1/2, Ising())") == SpikeSlab(Rational(1, 2), Ising())
    weights = {-1: Rational(1, 4), 0: Rational(1, 2), 1: Rational(1, 4)}
    assert function_or_number("Discrete({-1: 1/4, 0: 1/2, 1: 1/4})") == Discrete(weights)
    for wrong, told in (("Isin()", "Ising"), ("Normal(0, 1, 2)", "does not take"), ("Normal(0, -1)", "variance")):
        with pytest.raises(QuenchedError, match=told):
            function_or_number(wrong)


def test_values_lists_and_ranges() -> None:
    assert value("1.5") == 1.5
    assert value("1.5,2,3") == [1.5, 2, 3]
    assert value("1:3:5") == [1, 1.5, 2, 2.5, 3]
    assert value("Max(1, 2)") == 2
    for bad in ("1:2", "1:2:1", "1:2:x", "1,,2"):
        with pytest.raises(QuenchedError):
            value(bad)
    with pytest.raises(QuenchedError, match="one value of g"):
        only_numbers({"g": [1, 2]}, "solve")


def test_points_are_all_combinations() -> None:
    assert points({"g": [1, 2], "s": 0, "h": [3, 4]}) == [
        {"g": 1, "s": 0, "h": 3},
        {"g": 1, "s": 0, "h": 4},
        {"g": 2, "s": 0, "h": 3},
        {"g": 2, "s": 0, "h": 4},
    ]


@pytest.mark.parametrize("items", [["g"], ["=2"], ["g="], ["g=1", "g=2"]])
def test_assignments_are_checked(items: list[str]) -> None:
    with pytest.raises(QuenchedError):
        assignments(items)


def test_the_catalogue_names_the_nearest_system() -> None:
    with pytest.raises(QuenchedError, match="did you mean 'scs'"):
        catalogue["scss"]
    assert "scs" in catalogue
    assert catalogue.summary("scs")


def test_a_catalogue_entry_only_declares() -> None:
    """Functions of at most 30 lines, without loops, from what users import too."""
    folder = Path(__file__).parent.parent / "validate" / "catalogue"
    for file in folder.glob("[!_]*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            assert not isinstance(node, (ast.For, ast.While)), f"a loop in {file.name}"
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 30, file.name
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in ("sympy", "quenched", "functools", "collections"), file.name
            assert not isinstance(node, ast.Import), file.name


def test_no_system_is_named_in_the_engine() -> None:
    root = Path(__file__).parent.parent
    files = [*root.glob("theory/*.py"), *root.glob("numerics/*.py"), *root.glob("validate/*.py")]
    assert files
    for name in catalogue:
        for file in files:
            words = file.read_text(encoding="utf-8").replace("_", " ").replace('"', " ").replace("'", " ").split()
            assert name not in words, f"{file.name} names the system {name}"


MODEL = """
from sympy import symbols, tanh
from quenched import Dynamics, Field, Gaussian
g = symbols("g", nonnegative=True)
x, J = Field("x"), Gaussian("J", variance=g**2)
net = Dynamics({x: -x + J @ tanh(x)})
def made(phi=tanh):
    return Dynamics({x: -x + J @ phi(x)})
number = 3
"""


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MODEL, encoding="utf-8")
    return file


def test_a_model_file_gives_its_models(model_file: Path) -> None:
    net, values = open_model(f"{model_file}:net", ["g=2"])
    assert values == {"g": 2}
    assert [str(p) for p in net.parameters] == ["g"]
    only, _ = open_model(str(model_file), [])
    assert only.key() == net.key()
    made, _ = open_model(f"{model_file}:made", ["phi=erf(x)"])
    assert made.eqs != net.eqs


@pytest.mark.parametrize(("attribute", "hint"), [("nett", "did you mean 'net'"), ("number", "is a int")])
def test_a_wrong_attribute_is_named(model_file: Path, attribute: str, hint: str) -> None:
    with pytest.raises(QuenchedError, match=hint):
        open_model(f"{model_file}:{attribute}")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("net = Dynamics({x: -x + J @ tanhh(x)})", "line 10: NameError"),
        ("net = (", "line 10: SyntaxError"),
        ("raise SystemExit", "line 10: SystemExit"),
        ("net = Dynamics({x: tanh(x)*J})", "line 10: "),
    ],
)
def test_a_broken_model_file_is_reported_with_its_line(model_file: Path, line: str, hint: str) -> None:
    model_file.write_text(MODEL + line + "\n", encoding="utf-8")
    with pytest.raises(QuenchedError, match=hint) as caught:
        open_model(f"{model_file}:net")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(QuenchedError, match=r"no model file 'none\.py'"):
        open_model("none.py:net")


def test_symbols_of_the_language_are_not_lost() -> None:
    net = catalogue["scs"]()
    g, s2 = symbols("g s2", nonnegative=True)
    assert net.defaults == {g: 2, s2: 0}


@pytest.mark.parametrize(
    ("verb", "keywords", "hint"),
    [
        ("solve", {"lagz": [0, 1]}, "setting 'lags'"),
        ("solve", {"gg": 2}, "parameter 'gg'.*'g'"),
        ("simulate", {"N": 10, "trails": 1}, "setting 'trials'"),
        ("simulate", {"N": 10, "trials": 1, "params": {"dt": 1}}, "dt= is a setting"),
        ("validate", {"quik": True}, "setting 'quick'"),
        ("validate", {"durration": 3}, "setting 'duration'"),
    ],
)
def test_a_misspelt_keyword_is_answered_with_the_nearest(verb: str, keywords: dict[str, Any], hint: str) -> None:
    net = catalogue["scs"]()
    verbs = {"solve": derive(net).solve, "simulate": partial(simulate, net), "validate": partial(validate, net)}
    with pytest.raises(QuenchedError, match=hint):
        verbs[verb](**keywords)


def test_a_function_in_place_of_a_symbol_is_told_apart() -> None:
    with pytest.raises(QuenchedError, match="import N from quenched"):
        Gaussian("J", variance=1, mean=sympy.N)


def test_a_start_that_reads_the_couplings_is_refused_in_time() -> None:
    b, J = Quenched("b", Normal(0, 1)), Gaussian("J", variance=1)
    y = Field("y", initial=J @ b)
    with pytest.raises(QuenchedError, match="initial value J @ b of y is correlated"):
        derive(Dynamics({y: -y + J @ tanh(y)})).solve(times=[0, 0.1])
