"""Bytes by path over fsspec: a folder on disk, or a bucket.

A path is readable only when it is complete: on disk a file is written to a temporary name, flushed and renamed; an
object store shows an object when its upload is complete.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from hmi.errors import HmiError, InvalidInput, NotFound, StorageFull, Transient

__all__ = ["Storage", "translate_full_disk"]

_log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # the names of files that `create` has not completed
_REMOTE_BUFFER_BYTES = 256 * 1024


@contextlib.contextmanager
def translate_full_disk(path: str) -> Iterator[None]:
    """Raise `StorageFull`, naming `path`, if the block runs out of disk space."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no room left to write {path}: {error.strerror}") from error
        raise


class Storage:
    """Reads and writes under one root URL (`file:///data`, `s3://bucket/prefix`).

    If a remote storage does not answer, every method raises `Transient`.
    """

    def __init__(self, url: str) -> None:
        if "::" in url:
            # fsspec would silently take it for a chain of file systems and write somewhere else.
            raise InvalidInput(f"a storage URL must not hold '::': {url}")
        self.url = url
        # Other processes write here too, so a cached listing may be wrong.
        self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def _full(self, path: str) -> str:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or "" in parts:
            raise ValueError(f"not a plain relative path: {path!r}")
        return f"{self._root}/{path}"

    def _reached(self, path: str) -> contextlib.AbstractContextManager[None]:
        """Translate errors of a remote file system."""
        return contextlib.nullcontext() if self._local else _translate_outage(path)

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """Open a new file for writing; it appears under `path` when the block ends without an exception.

        Raises `StorageFull` and removes what was written.
        """
        full = self._full(path)
        with translate_full_disk(path):
            if not self._local:
                # Through a temporary file: not every file system can abort a stream half-way.
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
            file = io.BufferedReader(_RemoteFile(file, path), _REMOTE_BUFFER_BYTES)
        if offset:
            file.seek(offset)
        return file

    def size(self, path: str) -> int:
        """Return the bytes at `path`. Raises `NotFound`."""
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
            # Not `exists`, which may return False for any error.
            with self._reached(path):
                self._fs.info(full)
        except FileNotFoundError:
            return False
        return True

    def delete(self, path: str) -> None:
        """Remove a file or a folder; no error if it does not exist."""
        full = self._full(path)
        # `rm` may treat any error as a missing file, as above.
        if self._local or self.exists(path):
            with contextlib.suppress(FileNotFoundError), self._reached(path):
                self._fs.rm(full, recursive=True)

    def move(self, source: str, target: str) -> None:
        """Rename a file; atomic on disk. Raises `NotFound`, `StorageFull`."""
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
        """Return the names directly under the folder `path`, without unfinished writes."""
        full = self._full(path)
        try:
            with self._reached(path):
                found = self._fs.ls(full, detail=False)
        except FileNotFoundError:
            return []
        names = [str(each).rstrip("/").rsplit("/", 1)[-1] for each in found]
        return sorted(name for name in names if not _UNFINISHED.fullmatch(name))

    def local(self, path: str) -> Path | None:
        """Return the path on this machine's disk; None for a bucket."""
        return Path(self._full(path)) if self._local else None


def _sync_directory(path: Path) -> None:
    """Make a rename durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _translate_outage(path: str) -> Iterator[None]:
    """Raise other exceptions of the block than our own and `FileNotFoundError` as `Transient`, naming `path`.

    Each client library has its own exceptions, and few of them are `OSError`s. Their messages may name hosts and
    buckets, so they are logged, and only the type is in the message.
    """
    try:
        yield
    except (HmiError, FileNotFoundError):
        raise
    except Exception as error:
        _log.warning("the storage fails at %s: %s: %s", path, type(error).__name__, error)
        raise Transient(f"the storage fails at {path} ({type(error).__name__})") from error


class _RemoteFile(io.RawIOBase):
    """Translates errors while reading: the content comes long after opening."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        self._file = file
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _translate_outage(self._path):
            return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with _translate_outage(self._path):
            block = self._file.read(len(view))
        view[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with _translate_outage(self._path):
                self._file.close()
