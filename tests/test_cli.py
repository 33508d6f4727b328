"""The command line: its documents, its exit codes and its errors of one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quenched.cli import main

MODEL = """
from sympy import symbols, tanh
from quenched import Dynamics, Field, Gaussian, mean
g = symbols("g", positive=True)
x, J = Field("x"), Gaussian("J", variance=g**2)
net = Dynamics({x: -x + J @ tanh(x)}).observe(v=mean(x**2), fourth=mean(x**4))
"""

Run = Any


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(MODEL, encoding="utf-8")
    return str(file)


def test_the_list_names_the_systems(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert "scs" in out
    code, out, _ = run("list", "--json")
    assert [row["name"] for row in json.loads(out)["systems"]] == sorted(
        row["name"] for row in json.loads(out)["systems"]
    )


@pytest.mark.parametrize("form", [[], ["--latex"], ["--markdown"], ["--html"]])
def test_a_derivation_is_printed_in_every_form(run: Run, form: list[str]) -> None:
    code, out, _ = run("derive", "scs", *form)
    assert code == 0
    assert "Average over the couplings" in out
    if form == ["--html"]:
        assert out.startswith("<!doctype html>")
        assert "<math" in out
        assert "http" not in out.replace("http://www.w3.org/1998/Math/MathML", "")


def test_a_derivation_follows_the_declaration(run: Run) -> None:
    _, odd, _ = run("derive", "scs", "-p", "s2=0")
    _, noisy, _ = run("derive", "scs")
    assert "s2" in noisy
    assert "s2" not in odd


def test_solving_gives_one_document_with_errors_everywhere(run: Run) -> None:
    code, out, err = run("solve", "scs", "-p", "g=1.5", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["parameters"] == {"g": 1.5, "s2": 0.0}
    found = document["observables"]
    assert found["C_x0"]["value"] == pytest.approx(0.7476863806, abs=1e-9)
    assert found["lyapunov"]["value"] == pytest.approx(0.0467462, abs=2e-7)
    assert found["g_c"]["value"] == pytest.approx(1, abs=1e-8)
    assert found["mean_x"]["value"] == pytest.approx(0, abs=1e-12)
    for name in ("C_x", "C_phi", "R_x"):
        assert len(found[name]["tau"]) == len(found[name]["value"]) == len(found[name]["error"])
    assert len(found["S_x"]["omega"]) == len(found["S_x"]["value"])
    assert found["C_x"]["value"][0] == pytest.approx(found["C_x0"]["value"], abs=1e-9)
    assert all(entry["error"] is not None for entry in found.values())
    assert {b["kind"] for b in document["branches"]} == {"trivial", "static"}
    static = next(b for b in document["branches"] if b["kind"] == "static")
    assert static["observables"]["C_x0"]["value"] == pytest.approx(0.7933540426, abs=1e-9)
    assert not static["stable"]


def test_options_are_expressions_and_noise_shifts_the_transition(run: Run) -> None:
    arguments = ["-p", "phi=erf(sqrt(pi)*x/2)", "-p", "g=2", "-p", "s2=0.125", "--json"]
    code, out, _ = run("solve", "scs", *arguments)
    assert code == 0
    assert json.loads(out)["observables"]["g_c"]["value"] == pytest.approx(1.43433207, abs=1e-7)


def test_a_model_file_is_first_class(run: Run, model_file: str) -> None:
    code, out, _ = run("solve", f"{model_file}:net", "-p", "g=2", "--json")
    assert code == 0
    found = json.loads(out)["observables"]
    assert found["v"]["value"] == pytest.approx(1.9248054137, abs=1e-9)
    assert found["fourth"]["value"] == pytest.approx(3 * 1.9248054137**2, abs=1e-7)


def test_a_sweep_is_a_table(run: Run) -> None:
    code, out, _ = run("sweep", "scs", "-p", "g=1.5,2", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["parameters"] == {"g": [1.5, 2.0], "s2": 0.0}
    assert found["observables"]["C_x0"]["value"] == pytest.approx([0.7476863806, 1.9248054137], abs=1e-9)
    code, out, _ = run("sweep", "scs", "-p", "g=1.5,2")
    assert code == 0
    assert "1.9248" in out


def test_a_solution_is_saved_and_read_back(run: Run, tmp_path: Path) -> None:
    from quenched import load

    file = tmp_path / "scs.nc"
    code, out, _ = run("solve", "scs", "-p", "g=2", "-o", str(file))
    assert code == 0
    assert "dynamic" in out
    solution = load(file)
    assert float(solution["C_x0"]) == pytest.approx(1.9248054137, abs=1e-9)
    assert solution.main.kind == "dynamic"
    assert solution.parameters == {"g": 2.0, "s2": 0.0}
    assert {b.kind for b in solution.branches} == {"dynamic", "static", "trivial"}
    assert [p.name for p in tmp_path.iterdir()] == ["scs.nc"]


def test_an_exported_solver_runs_alone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "solver.py"
    code, _, _ = run("export", "scs", "-o", str(file))
    assert code == 0
    text = file.read_text(encoding="utf-8")
    assert "quenched" not in "".join(line for line in text.splitlines() if line.lstrip().startswith(("import", "from")))
    compile(text, str(file), "exec")


def test_a_simulation_is_reported_under_the_same_names(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("QUENCHED_CACHE", str(tmp_path))
    arguments = ["-p", "g=2", "-N", "60", "--trials", "2", "--duration", "5", "--seed", "1", "--json"]
    code, out, _ = run("simulate", "scs", *arguments)
    assert code == 0
    found = json.loads(out)
    assert found["N"] == 60
    assert {"C_x", "C_x0", "C_phi", "lyapunov"} <= set(found["observables"])
    assert len(found["observables"]["C_x"]["tau"]) == len(found["observables"]["C_x"]["value"])


def test_settings_of_a_simulation_are_given_by_name(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("QUENCHED_CACHE", str(tmp_path))
    several = ["--set", "sizes=60,120,240", "--set", "trials=12", "--set", "route=messages"]
    code, out, _ = run("validate", "sk", "--quick", "--json", *several)
    found = json.loads(out)
    assert code in (0, 3)
    assert found["points"][0]["sizes"] == [60, 120, 240]
    assert "growth" in found["observables"]
    code, out, _ = run("simulate", "sk", "-N", "8", "--trials", "2", "--set", "only=q")
    assert code == 0
    assert "q" in out
    assert "empty" in out


BAD = [
    ("solv scs", "invalid choice"),
    ("solve", "required"),
    ("solve scss", "did you mean 'scs'"),
    ("solve scs -p gain=2", "unknown parameter 'gain'"),
    ("solve scs -p g=-1", "g"),
    ("solve scs -p g=two", "has no value"),
    ("solve scs -p g=nan", "nan"),
    ("solve scs -p g", "NAME=VALUE"),
    ("solve scs -p g=1,2", "use sweep"),
    ("solve scs -p phi=tanhh(x)", "did you mean 'tanh'"),
    ("solve scs -p phi=x*y", "one variable"),
    ("solve scs -p phi=Max(x,0) -p g=1.5", "diverge"),
    ("sweep scs -p g=2", "list of values"),
    ("sweep scs -p g=1:2", "FIRST:LAST:COUNT"),
    ("simulate scs -N 0", "at least 1"),
    ("simulate scs -N 2.5", "whole number"),
    ("simulate scs --duration -1", "positive"),
    ("simulate scs --seed x", "whole number"),
    ("validate", "at least one NAME"),
    ("simulate sk --set rout=messages", "did you mean 'route'"),
    ("simulate sk --set route", "after --set"),
    ("simulate sk -N 8 --set route=guess", "unknown route 'guess'"),
    ("validate sk --set trial=3", "did you mean 'trials'"),
    ("validate scs --mutant gain-roots", "did you mean 'gain-root'"),
    ("validate scs -p gain=1", "unknown parameter"),
    ("export scs", "required"),
    ("export scs -o no/such/folder/file.py", "existing folder"),
    ("solve scs -o no/such/folder/file.nc", "existing folder"),
    ("validate scs --report report.pdf", "ending in .html or .json"),
    ("solve none.py:net", "no model file"),
    ("derive scs --latex --html", "not allowed"),
]


@pytest.mark.parametrize(("command", "hint"), BAD)
def test_bad_input_gets_one_line_and_code_2(run: Run, command: str, hint: str) -> None:
    code, out, err = run(*command.split())
    assert code == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("quenched: ")
    assert hint in err


def test_a_missing_value_is_named(run: Run, model_file: str) -> None:
    code, out, err = run("solve", f"{model_file}:net", "--json")
    assert (code, out) == (2, "")
    assert "no value for g" in err


def test_close_to_the_transition_it_is_right_or_says_so(run: Run) -> None:
    code, out, err = run("solve", "scs", "-p", "g=1+1e-9", "--json")
    assert code in (0, 3)
    if code == 3:
        assert out == ""
        assert len(err.splitlines()) == 1
    else:  # Δ0 ≈ (g − 1) and λ ∝ (g − 1)² there
        found = json.loads(out)["observables"]
        assert found["C_x0"]["value"] == pytest.approx(1e-9, abs=1e-9 + found["C_x0"]["error"])


@pytest.mark.parametrize(("verdict", "code"), [("agree", 0), ("disagree", 1), ("inconclusive", 3)])
def test_the_verdict_is_the_exit_code(run: Run, monkeypatch: Any, tmp_path: Path, verdict: str, code: int) -> None:
    saved: list[str] = []
    fake = SimpleNamespace(verdict=verdict, to_dict=lambda: {"verdict": verdict}, save=saved.append)
    monkeypatch.setattr("quenched.validation.validate", lambda *a, **k: fake)
    found, out, _ = run("validate", "scs", "-p", "g=2", "--quick", "--json", "--report", "x.html")
    assert found == code
    assert json.loads(out)["verdict"] == verdict
    assert saved == ["x.html"]


def test_an_interruption_is_told(run: Run, monkeypatch: Any) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quenched.validation.validate", stop)
    code, _, err = run("validate", "scs")
    assert code == 130
    assert "resumes" in err


def test_a_fault_of_ours_is_no_disagreement(run: Run, monkeypatch: Any) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("quenched.validation.validate", fail)
    code, out, err = run("validate", "scs")
    assert (code, out) == (70, "")
    assert "unforeseen" in err
