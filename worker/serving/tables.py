"""Tables of knowledge trees, opened and verified once, shared by all trees and builds of this process."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from hmi.artifacts import ArtifactStore
from hmi.errors import Corrupt
from hmi.knowledge.store import Table

_TRUSTED_SECONDS = 7 * 24 * 3600.0


class TableCache:
    """Opens each artifact once; an open table is returned without waiting for one that is being opened.

    All methods may be called from any thread.
    """

    def __init__(self, artifacts: ArtifactStore, notes: Path) -> None:
        self._artifacts = artifacts
        self._verified = VerifiedFiles(notes)
        self._tables: dict[str, Table] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()  # of the two above, held for an access only

    def find(self, artifact: str) -> Table | None:
        with self._lock:
            return self._tables.get(artifact)

    def open(self, artifact: str, pace: Callable[[int], None] | None = None) -> Table:
        """Return a table whose every byte was verified. Raises `NotFound`, `Corrupt` naming the file.

        `pace` is called with the number of bytes read, in small steps; what it raises ends the opening.
        """
        with self._lock:
            table = self._tables.get(artifact)
            if table is not None:
                return table
            opening = self._opening.setdefault(artifact, threading.Lock())
        with opening:
            table = self.find(artifact)
            if table is not None:
                return table
            try:
                table = self._open(artifact, pace)
                with self._lock:
                    self._tables[artifact] = table
                return table
            finally:
                with self._lock:
                    self._opening.pop(artifact, None)

    def keep(self, artifacts: Collection[str]) -> None:
        """Drop all others; their files are unmapped with the last batch that reads them."""
        with self._lock:
            self._tables = {artifact: table for artifact, table in self._tables.items() if artifact in artifacts}

    def forget(self, artifact: str) -> None:
        """Drop an artifact that was deleted."""
        with self._lock:
            self._tables.pop(artifact, None)
        self._verified.forget(artifact)

    def _open(self, artifact: str, pace: Callable[[int], None] | None) -> Table:
        try:
            return self._checked(artifact, self._artifacts.folder(artifact), pace)
        except Corrupt:
            # If the damaged copy is a local one of a remote artifact, it is fetched again.
            self._verified.forget(artifact)
            return self._checked(artifact, self._artifacts.folder(artifact, verify=True), pace)

    def _checked(self, artifact: str, folder: Path, pace: Callable[[int], None] | None) -> Table:
        stamp = VerifiedFiles.stamp(folder)
        table = Table.open(folder)
        if not self._verified.holds(artifact, stamp):
            table.verify(pace)
            self._verified.note(artifact, stamp)
        table.warm(pace)  # otherwise the first batch waits for its pages, for seconds with millions of rows
        return table


class VerifiedFiles:
    """Records on disk which artifacts were verified, so that a restart does not read them again.

    A file whose content or inode changed since is not trusted, and none is for longer than a week.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def stamp(folder: Path) -> dict[str, list[int]]:
        """Return what identifies an unchanged file; taken before it is read."""
        files = sorted(path for path in folder.iterdir() if path.is_file())
        stats = [(path.name, path.stat()) for path in files]
        return {name: [each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino] for name, each in stats}

    def holds(self, artifact: str, stamp: dict[str, list[int]]) -> bool:
        try:
            note = json.loads(self._path(artifact).read_bytes())
            age = time.time() - float(note["at"])
            return bool(note["files"] == stamp) and 0 <= age < _TRUSTED_SECONDS
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def note(self, artifact: str, stamp: dict[str, list[int]]) -> None:
        beside = self._folder / f".{artifact}.{secrets.token_hex(4)}.tmp"
        with contextlib.suppress(OSError):  # a full disk: the next start verifies again
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in self._folder.iterdir():
                if time.time() - old.stat().st_mtime > _TRUSTED_SECONDS:
                    old.unlink(missing_ok=True)
            try:
                beside.write_text(json.dumps({"at": time.time(), "files": stamp}))
                beside.replace(self._path(artifact))
            finally:
                beside.unlink(missing_ok=True)

    def forget(self, artifact: str) -> None:
        with contextlib.suppress(OSError):
            self._path(artifact).unlink(missing_ok=True)

    def _path(self, artifact: str) -> Path:
        return self._folder / f"{artifact}.json"
