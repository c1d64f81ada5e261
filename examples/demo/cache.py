"""Work that is done once: a later run reuses the result unless its origin has changed."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import hmi

__all__ = ["code_hash", "file_hash", "hash_of", "made_once"]

_NOTE = "made.json"  # beside the result: its origin, and figures


def made_once(
    folder: Path, origin: str, make: Callable[[Path], Mapping[str, object]]
) -> tuple[dict[str, object], bool]:
    """Make `folder / "artifact"` unless it exists with the same origin; return its note and whether it existed.

    The note is written last, so an interrupted attempt is made again.
    """
    note_file = folder / _NOTE
    if note_file.exists():
        note: dict[str, object] = json.loads(note_file.read_text())
        if note["origin"] == origin:
            return note, True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    note = {"origin": origin, **make(folder / "artifact")}
    beside = folder / f".{_NOTE}.tmp"
    beside.write_text(json.dumps(note))
    beside.replace(note_file)
    return json.loads(note_file.read_text()), False


def hash_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


@functools.cache
def code_hash() -> str:
    """The hash of the code and the weight differences that make bases and adapters."""
    rooms = [Path(hmi.__file__).parent / room for room in ("differences", "models", "training")]
    files = [path for room in rooms for path in sorted(room.rglob("*")) if path.suffix in (".py", ".safetensors")]
    return hash_of([file_hash(path) for path in files])


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
