"""Results are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from quenched.theory.errors import QuenchedError


def check_target(path: str | Path | None, *suffixes: str) -> None:
    """Refuse a place that cannot be written, before any work is done (None: nothing is to be written)."""
    if path is None:
        return
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise QuenchedError(f"cannot write {str(path)!r}: expected a file name in an existing folder")
    if suffixes and target.suffix not in suffixes:
        raise QuenchedError(f"cannot write {str(path)!r}: expected a name ending in {' or '.join(suffixes)}")


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it there."""
    check_target(path)
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    os.close(handle)
    draft = Path(name)
    try:
        write(draft)
        draft.chmod(0o666 & ~_umask())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
