"""Files and folders as parts of an upload."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hmi.errors import InvalidInput


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Raises `InvalidInput` for a file that cannot be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def parts_of(folder: Path | None, *, single: str | None = None) -> Iterator[list[tuple[str, tuple[str, BinaryIO]]]]:
    """The files directly in a folder as parts of an upload, and no part for None.

    With `single`, a file is accepted in place of a folder and is uploaded under this name.
    """
    if folder is None:
        yield []
        return
    if single is not None and folder.is_file():
        with opened(folder) as file:
            yield [("files", (single, file))]
        return
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise InvalidInput(f"{folder} holds no files")
    with contextlib.ExitStack() as stack:
        yield [("files", (path.name, stack.enter_context(opened(path)))) for path in paths]
