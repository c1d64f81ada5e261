"""Bytes by path over fsspec: a folder on disk, or a bucket.

A path is readable only when it is whole: on disk a file is written beside, flushed and renamed; an
object store shows an object when its upload is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from hmi.errors import InvalidInput, NotFound, StorageFull
from hmi.remote import open_remote, translate_outage

__all__ = ["Storage", "translate_full_disk"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # what `create` calls a file before it is whole


@contextlib.contextmanager
def translate_full_disk(path: str) -> Iterator[None]:
    """Raise `StorageFull`, naming `path`, where the block runs out of room on a disk."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no room left to write {path}: {error.strerror}") from error
        raise


class Storage:
    """Reads and writes under one root URL (`file:///data`, `s3://bucket/prefix`).

    What is not on this machine's disk may be out of reach for a while: then everything here raises `Transient`.
    """

    def __init__(self, url: str) -> None:
        if "::" in url:
            # fsspec would take it for a chain of file systems and write somewhere else without a word.
            raise InvalidInput(f"a storage URL must not hold '::': {url}")
        self.url = url
        # Other processes write here too, so a listing that was remembered may be wrong.
        self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def _full(self, path: str) -> str:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or "" in parts:
            raise ValueError(f"not a plain relative path: {path!r}")
        return f"{self._root}/{path}"

    def _reached(self, path: str) -> contextlib.AbstractContextManager[None]:
        """For what asks the file system: errors of one that is remote are translated."""
        return contextlib.nullcontext() if self._local else translate_outage(path)

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """Open a new file for writing; it appears under `path` only when the block ends well.

        Raises `StorageFull`; whatever was written by then is removed.
        """
        full = self._full(path)
        with translate_full_disk(path):
            if not self._local:
                # By way of a temporary file: not every file system can give up a stream half-way.
                with tempfile.NamedTemporaryFile() as file:
                    yield cast(IO[bytes], file)
                    file.flush()
                    with self._reached(path), translate_full_disk(path):
                        self._fs.put_file(file.name, full)
                return
            target = Path(full)
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
            try:
                with beside.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(target)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            _sync_directory(target.parent)

    def open(self, path: str, offset: int = 0) -> IO[bytes]:
        """Open for reading from `offset` bytes. Raises `NotFound`."""
        full = self._full(path)
        try:
            with self._reached(path):
                file = cast(IO[bytes], self._fs.open(full, "rb"))
        except FileNotFoundError:
            raise NotFound(f"nothing is stored at {path}") from None
        if not self._local:
            file = open_remote(file, path)
        if offset:
            file.seek(offset)
        return file

    def size(self, path: str) -> int:
        """Bytes at `path`. Raises `NotFound`."""
        full = self._full(path)
        try:
            with self._reached(path):
                return int(self._fs.size(full))
        except FileNotFoundError:
            raise NotFound(f"nothing is stored at {path}") from None

    def exists(self, path: str) -> bool:
        full = self._full(path)
        if self._local:
            return bool(self._fs.exists(full))
        try:
            # Not `exists`, which may take any error for a no.
            with self._reached(path):
                self._fs.info(full)
        except FileNotFoundError:
            return False
        return True

    def delete(self, path: str) -> None:
        """Remove a file or a folder; nothing there is no error."""
        full = self._full(path)
        # `rm` may take an error for nothing there, as above.
        if self._local or self.exists(path):
            with contextlib.suppress(FileNotFoundError), self._reached(path):
                self._fs.rm(full, recursive=True)

    def move(self, source: str, target: str) -> None:
        """Give a whole file another path; on disk in one step. Raises `NotFound`, `StorageFull`."""
        old, full = self._full(source), self._full(target)
        try:
            with self._reached(target), translate_full_disk(target):
                if self._local:
                    Path(full).parent.mkdir(parents=True, exist_ok=True)
                    Path(old).replace(full)
                    _sync_directory(Path(full).parent)
                else:
                    self._fs.mv(old, full)
        except FileNotFoundError:
            raise NotFound(f"nothing is stored at {source}") from None

    def names(self, path: str) -> list[str]:
        """Names directly under the folder `path`, unfinished writes left out."""
        full = self._full(path)
        try:
            with self._reached(path):
                found = self._fs.ls(full, detail=False)
        except FileNotFoundError:
            return []
        names = [str(each).rstrip("/").rsplit("/", 1)[-1] for each in found]
        return sorted(name for name in names if not _UNFINISHED.fullmatch(name))

    def local(self, path: str) -> Path | None:
        """The path on this machine's disk, where the storage is one; None for a bucket."""
        return Path(self._full(path)) if self._local else None


def _sync_directory(path: Path) -> None:
    """Make a rename outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
