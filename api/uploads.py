"""Uploaded files: harmless names, size limits and digests on the way to the storage."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import UploadFile

from hmi.adapters import Adapter
from hmi.adapters.formats import FILE_NAME, save_adapter
from hmi.artifacts import ArtifactStore
from hmi.errors import InvalidInput
from hmi.storage import Storage

_CHUNK = 1024**2
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_FILENAME = 255


@dataclass(frozen=True, slots=True)
class StoredBytes:
    bytes: int
    sha256: str


def store(storage: Storage, path: str, source: IO[bytes], max_bytes: int) -> StoredBytes:
    """Copy a stream into the storage; nothing is left under `path` when it fails.

    Raises `InvalidInput` (code `request_too_large`), `StorageFull`.
    """
    digest, size = hashlib.sha256(), 0
    with storage.create(path) as target:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise too_large(max_bytes)
            digest.update(chunk)
            target.write(chunk)
    return StoredBytes(size, digest.hexdigest())


def too_large(max_bytes: int) -> InvalidInput:
    return InvalidInput(f"at most {max_bytes} bytes may be uploaded", code="request_too_large", param="file")


def display_name(filename: str | None) -> str:
    """A file's name for display, without folders and control characters. It never becomes a path."""
    last = re.split(r"[/\\]", filename or "")[-1]
    shown = "".join(character for character in last if unicodedata.category(character) not in {"Cc", "Cf", "Cs"})
    return shown.strip()[-_MAX_FILENAME:] or "file"


def plain_names(files: Iterable[UploadFile]) -> dict[str, UploadFile]:
    """An uploaded folder's files by name. Raises `InvalidInput` for a name that is not plain or is there twice."""
    named: dict[str, UploadFile] = {}
    for file in files:
        name = file.filename or ""
        if not _PLAIN_NAME.fullmatch(name):
            raise InvalidInput(f"not a plain file name: {name[:80]!r}", param="files")
        if name in named:
            raise InvalidInput(f"{name} was sent twice", param="files")
        named[name] = file
    return named


@contextlib.contextmanager
def saved_folder(files: Iterable[UploadFile], max_bytes: int) -> Iterator[Path]:
    """An uploaded folder on disk, for as long as the block runs. Raises as `plain_names` and `store` do."""
    left = max_bytes
    with tempfile.TemporaryDirectory(prefix="hmi-upload-") as folder:
        for name, file in plain_names(files).items():
            with (Path(folder) / name).open("xb") as target:
                while chunk := file.file.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise too_large(max_bytes)
                    target.write(chunk)
        yield Path(folder)


def keep_adapter(artifacts: ArtifactStore, adapter: Adapter) -> str:
    """Store an adapter or a delta in HMI's own form, in which equal ones are one artifact, and return its digest."""
    with tempfile.TemporaryDirectory(prefix="hmi-adapter-") as folder:
        save_adapter(adapter, Path(folder) / FILE_NAME)
        return artifacts.put_folder(Path(folder))
