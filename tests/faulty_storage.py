"""A remote storage that can fail as a client library does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

__all__ = ["FaultyFileSystem", "OutageError"]


class OutageError(Exception):
    """Like botocore's errors, neither an `OSError` nor one of ours."""


class _FaultyFile(MemoryFile):  # type: ignore[misc]  # fsspec has no types
    def read(self, *size: Any) -> Any:
        FaultyFileSystem.ask()
        return super().read(*size)


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]  # as above
    """`faulty://...`, kept in memory."""

    protocol: ClassVar[str] = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    _error: ClassVar[Exception | None] = None

    @classmethod
    @contextmanager
    def failing(cls, error: Exception | None = None) -> Iterator[None]:
        """Fail every call within the block."""
        cls._error = error or OutageError("could not connect to the endpoint")
        try:
            yield
        finally:
            cls._error = None

    @classmethod
    def ask(cls) -> None:
        if cls._error is not None:
            raise cls._error

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("faulty://")))

    def info(self, path: str, **options: Any) -> Any:
        self.ask()
        return super().info(path, **options)

    def ls(self, path: str, **options: Any) -> Any:
        self.ask()
        return super().ls(path, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self.ask()
        file = super()._open(path, mode, **options)
        return _FaultyFile(self, path, file.getvalue()) if mode == "rb" else file


fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
