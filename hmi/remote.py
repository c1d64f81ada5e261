"""A file system that is not this machine's: whatever goes wrong there for a while is `Transient`."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import IO, Any

from hmi.errors import HmiError, Transient

__all__ = ["open_remote", "translate_outage"]

_log = logging.getLogger(__name__)

_BUFFER_BYTES = 256 * 1024


@contextlib.contextmanager
def translate_outage(path: str) -> Iterator[None]:
    """Raise what the block fails of as `Transient`, naming `path`; our own errors and `FileNotFoundError` pass.

    Each client library has errors of its own, and few of them are `OSError`s. What they say may name hosts and buckets,
    so it goes to the log, and the type alone to whoever asked.
    """
    try:
        yield
    except (HmiError, FileNotFoundError):
        raise
    except Exception as error:
        _log.warning("the storage fails at %s: %s: %s", path, type(error).__name__, error)
        raise Transient(f"the storage fails at {path} ({type(error).__name__})") from error


def open_remote(file: IO[bytes], path: str) -> IO[bytes]:
    """`file` with its errors translated: its content comes while it is read, long after it was opened."""
    return io.BufferedReader(_Remote(file, path), _BUFFER_BYTES)


class _Remote(io.RawIOBase):
    def __init__(self, file: IO[bytes], path: str) -> None:
        self._file = file
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with translate_outage(self._path):
            return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        with translate_outage(self._path):
            block = self._file.read(len(view))
        view[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with translate_outage(self._path):
                self._file.close()
