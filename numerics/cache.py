"""Generated modules on disk: one file per content, written atomically, imported once per process."""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import platformdirs

_LOADED: dict[str, ModuleType] = {}


def cache_directory() -> Path:
    """Where generated modules live: `QUENCHED_CACHE`, or the user's cache directory."""
    override = os.environ.get("QUENCHED_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("quenched"))


def digest(text: str) -> str:
    """Name of a content: the first 24 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def load(key: str, write: Callable[[], str]) -> ModuleType:
    """The generated module called `key`; `write()` gives its source if no earlier run has left it on disk.

    Parameters
    ----------
    key : str
        Content hash of what the module is generated from, including the version of the generator.
    write : callable
        Generates the source. Called at most once per key and machine.
    """
    if key not in _LOADED:
        path = cache_directory() / "code" / f"problem_{key}.py"
        if not path.exists():
            source = write()
            if not _store(path, source):
                _LOADED[key] = _in_memory(key, source)
                return _LOADED[key]
        _LOADED[key] = _import(key, path)
    return _LOADED[key]


def _store(path: Path, source: str) -> bool:
    """Write atomically, so that a second process sees all of the file or none; False where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as stream:
            stream.write(source)
        os.replace(temporary, path)
    except OSError:
        return False
    return True


def _import(key: str, path: Path) -> ModuleType:
    name = f"_quenched_generated_{key}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def _in_memory(key: str, source: str) -> ModuleType:
    """A module from its source alone (read-only cache directory); tracebacks still show its lines."""
    module = ModuleType(f"_quenched_generated_{key}")
    filename = f"<generated {key}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), module.__dict__)
    return module
