"""Parameters as they are typed: ``g=2``, a list ``g=1.5,2,3``, a range ``g=1.1:3:20``, an option ``phi=erf``."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from quenched.expressions import function_or_number, number
from quenched.systems import catalogue
from quenched.theory.errors import QuenchedError, nearest

Values = dict[str, "int | float | list[int | float]"]


def assignments(items: Sequence[str], flag: str = "-p", what: str = "parameter") -> dict[str, str]:
    """Split ``name=text`` items, each name once."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name, text = name.strip(), text.strip()
        if not (equals and name and text):
            raise QuenchedError(f"expected NAME=VALUE after {flag}, got {item!r}")
        if name in found:
            raise QuenchedError(f"{what} {name!r} is given twice")
        found[name] = text
    return found


def value(text: str) -> int | float | list[int | float]:
    """A number, a list ``a,b,c`` or an evenly spaced range ``first:last:count``."""
    if ":" in text:
        return _range(text)
    if _has_top_level_comma(text):
        return [number(part) for part in text.split(",")]
    return number(text)


def settings(items: Sequence[str]) -> dict[str, Any]:
    """Settings of a simulation: a number, True or False, a word, or several with commas between them."""
    return {name: _setting(text) for name, text in assignments(items, "--set", "setting").items()}


def _setting(text: str) -> Any:
    if "," in text:
        return tuple(_setting(part.strip()) for part in text.split(",") if part.strip())
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _range(text: str) -> list[int | float]:
    parts = text.split(":")
    if len(parts) != 3:
        raise QuenchedError(f"expected FIRST:LAST:COUNT, got {text!r}")
    first, last, count = (number(part) for part in parts)
    if not isinstance(count, int) or count < 2:
        raise QuenchedError(f"the count in {text!r} must be a whole number of at least 2")
    step = (last - first) / (count - 1)
    return [*(first + k * step for k in range(count - 1)), last]


def _has_top_level_comma(text: str) -> bool:
    return any(c == "," and text[:k].count("(") == text[:k].count(")") for k, c in enumerate(text))


def only_numbers(values: Values, verb: str) -> dict[str, int | float]:
    """Refuse lists where one state is asked for."""
    for name, given in values.items():
        if isinstance(given, list):
            raise QuenchedError(f"{verb} takes one value of {name}, got {len(given)}: use sweep, or validate")
    return {name: given for name, given in values.items() if not isinstance(given, list)}


def points(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All combinations of the values that are lists, the last list running fastest."""
    lists = {name: v if isinstance(v, (list, tuple)) else [v] for name, v in values.items()}
    return [dict(zip(lists, combination, strict=True)) for combination in itertools.product(*lists.values())]


def open_model(name: str, items: Sequence[str] = ()) -> tuple[Any, Values]:
    """The model called `name` and the values of its parameters.

    Parameters
    ----------
    name : str
        A name of the catalogue, or ``path.py:model`` where `model` is a declaration or a function that returns one.
    items : sequence of str
        ``name=text`` items: arguments of that function first, parameters of the model otherwise.

    Raises
    ------
    QuenchedError
        Unknown system, missing or broken file, unreadable value.
    """
    source = _from_file(name) if ".py" in name or "/" in name else catalogue[name]
    given = assignments(items)
    if not _is_factory(source):
        return source, {key: value(text) for key, text in given.items()}
    signature = inspect.signature(source)
    options = {key: _option(p, given.pop(key)) for key, p in signature.parameters.items() if key in given}
    missing = [k for k, p in signature.parameters.items() if p.default is p.empty and k not in options]
    if missing:
        raise QuenchedError(f"{name} needs its option {missing[0]!r}: -p {missing[0]}=VALUE")
    model = _built(source, options, name)
    return model, {key: value(text) for key, text in given.items()}


def _option(parameter: inspect.Parameter, text: str) -> Any:
    """An argument of an entry: a word or a truth value where its default is one, else a number or a function."""
    if isinstance(parameter.default, str):
        return text
    if isinstance(parameter.default, bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise QuenchedError(f"option {parameter.name!r} should be true or false, got {text!r}")
        return words[text.lower()]
    return function_or_number(text)


def is_declaration(thing: object) -> bool:
    """Whether something is a declared model of any head: it has parameters, takes values for them, and has a key."""
    return not inspect.isclass(thing) and all(hasattr(thing, name) for name in ("parameters", "values", "key", "fix"))


def _is_factory(source: object) -> bool:
    return callable(source) and not is_declaration(source)


def _built(factory: Callable[..., Any], options: dict[str, Any], name: str) -> Any:
    """Call the entry; what a bad option breaks inside it is bad input."""
    try:
        return factory(**options)
    except QuenchedError:
        raise
    except Exception as error:
        raise QuenchedError(f"{name} cannot be built: {type(error).__name__}: {_one_line(error)}") from error


def _from_file(spec: str) -> Any:
    path_text, _, attribute = spec.partition(":")
    path = Path(path_text)
    if path.suffix != ".py":
        raise QuenchedError(f"a model file is written path.py:model, got {spec!r}")
    if not path.is_file():
        raise QuenchedError(f"no model file {path_text!r}")
    module = _executed(path)
    models = [k for k, v in vars(module).items() if not k.startswith("_") and is_declaration(v)]
    attribute = attribute or (models[0] if len(models) == 1 else "")
    if not attribute:
        raise QuenchedError(f"which model of {path_text}? Write {path_text}:NAME ({nearest('', models)})")
    if not hasattr(module, attribute):
        raise QuenchedError(f"{path_text} defines no {attribute!r}: {nearest(attribute, models)}")
    found = getattr(module, attribute)
    if not (is_declaration(found) or inspect.isfunction(found)):
        kind = type(found).__name__
        raise QuenchedError(f"{attribute!r} of {path_text} is a {kind}, expected a model or a function returning one")
    return found


def _executed(path: Path) -> Any:
    """Run a model file as a module of its own; any failure becomes one line with its place."""
    location = importlib.util.spec_from_file_location(f"quenched_model_{path.stem}", path)
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    sys.modules[location.name] = module  # so that its objects can be pickled
    try:
        location.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise QuenchedError(f"{path}, line {_line(error, path)}: {type(error).__name__}: {_one_line(error)}") from error
    return module


def _line(error: BaseException, path: Path) -> int | str:
    """The line of the model file at which `error` arose."""
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    absolute = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.resolve()]
    return next((line for line in reversed(frames + absolute) if line), "?")


def _one_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return str(error.msg)
    return " ".join(str(error).split())
