"""The public names: lazy, complete, and honest about what is not built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import quenched
from quenched import QuenchedError

HEAVY = ("sympy", "numpy", "scipy", "numba", "matplotlib", "xarray", "dask", "rich", "jinja2")


def _modules_after(code: str) -> set[str]:
    """Names of the heavy packages that a fresh interpreter has loaded after running `code`."""
    probe = f"{code}\nimport sys\nprint(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _modules_after("import quenched") == set()


def test_declaring_and_deriving_needs_sympy_only() -> None:
    code = "from quenched import catalogue, derive\nderive(catalogue['scs']())"
    assert _modules_after(code) == {"sympy"}


def test_the_list_of_systems_loads_nothing_heavy() -> None:
    assert _modules_after("from quenched.cli import main\nmain(['list'])") == set()


@pytest.mark.parametrize("name", [n for n in quenched.__all__ if n != "__version__"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(quenched, name) is not None


@pytest.mark.parametrize("name", ["FixedPoints", "Sparse", "Stable"])
def test_a_fixed_name_that_is_not_built_says_so(name: str) -> None:
    with pytest.raises(QuenchedError, match=f"{name} .* not built yet"):
        getattr(quenched, name)
    assert name not in quenched.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Gaussain"):
        quenched.Gaussain  # noqa: B018


def test_the_layer_validate_is_also_the_verb() -> None:
    from quenched import validate

    assert callable(validate)
    assert validate is sys.modules["quenched.validate"]


def test_layers_see_only_what_they_may() -> None:
    root = Path(__file__).parent.parent
    for file in root.glob("theory/*.py"):
        text = file.read_text(encoding="utf-8")
        for forbidden in ("quenched.numerics", "quenched.validate", "import numpy", "import scipy", "import numba"):
            assert forbidden not in text, f"{file.name}: {forbidden}"
    for file in root.glob("numerics/*.py"):
        lines = [s for s in file.read_text(encoding="utf-8").splitlines() if "quenched.theory" in s and "import" in s]
        for line in lines:
            assert "theory.problem" in line or "theory.errors" in line, f"{file.name}: {line.strip()}"
        assert "quenched.validate" not in file.read_text(encoding="utf-8"), file.name
