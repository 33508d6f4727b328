"""Finished realisations on disk: one small file each, written atomically, found again by content.

A key is the SHA-256 of everything that a realisation depends on, so a stored file can be used without asking when it
was made. Files are ``<folder>/<key[:2]>/<key>.npz``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float64]]


def key_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON-like description (floats by their exact value)."""
    text = json.dumps(content, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, complex):
        return [value.real, value.imag]
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    raise TypeError(f"cannot hash {value!r} of type {type(value).__name__}")


def default_folder() -> Path:
    """``QUENCHED_CACHE`` or the user's cache directory."""
    folder = os.environ.get("QUENCHED_CACHE")
    if folder:
        return Path(folder) / "realisations"
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("quenched", appauthor=False)) / "realisations"


class Store:
    """A folder of finished realisations.

    Parameters
    ----------
    folder : path, optional
        Where; `default_folder()` unless given. Created at the first write.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()

    def path(self, key: str) -> Path:
        """File of one key (it may not exist)."""
        return self.folder / key[:2] / f"{key}.npz"

    def load(self, key: str) -> Arrays | None:
        """The stored arrays, or None when there are none (a damaged file counts as none)."""
        path = self.path(key)
        try:
            with np.load(path, allow_pickle=False) as data:
                return {name: data[name] for name in data.files}
        except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError):
            return None

    def save(self, key: str, arrays: Arrays) -> None:
        """Write the arrays: the file appears complete or not at all."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{key[:8]}-", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def __contains__(self, key: str) -> bool:
        return self.path(key).exists()


def as_store(store: Store | str | os.PathLike[str] | bool | None) -> Store | None:
    """None or True: the default folder; False: none; a path: that folder."""
    if isinstance(store, Store):
        return store
    if store is False:
        return None
    return Store() if store is None or store is True else Store(store)
