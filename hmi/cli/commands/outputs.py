"""Files and folders that a command is told to make, or to read an adapter from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hmi.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from hmi.adapters import Adapter

__all__ = ["read_own_adapter", "require_new", "require_writable"]


def require_new(out: Path) -> None:
    """For a folder that will be made at the end: raises `Conflict` where it is there, `InvalidInput` as below."""
    require_writable(out)
    if out.exists():
        raise Conflict(f"{out} is there already; remove it or choose another folder")


def require_writable(out: Path) -> None:
    """Raises `InvalidInput` where `out`, or folders above it that are not there, could not be made: before any time is
    spent on what would lie there."""
    try:
        out.exists()  # fails of a name that is too long
        above = next(folder for folder in out.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise InvalidInput(f"cannot write {out}: {error.strerror}") from error


def read_own_adapter(folder: Path) -> Adapter:
    """The adapter or delta in a folder that `hmi` made. Raises `InvalidInput`, `AdapterRefused`."""
    from hmi.adapters.formats import FILE_NAME, load_adapter

    try:
        return load_adapter(folder / FILE_NAME)
    except OSError as error:
        raise InvalidInput(f"cannot read {folder / FILE_NAME}: {error.strerror}") from error
