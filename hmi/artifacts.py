"""Content-addressed folders: base models, adapters, tables of rows.

An artifact is a flat set of named files. Its digest is the SHA-256 of its manifest, which lists the name, size and
SHA-256 of every file. So equal content has one digest, and the content of a digest never changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hmi.errors import Corrupt, InvalidInput, NotFound
from hmi.storage import Storage, translate_full_disk

__all__ = ["ArtifactFile", "ArtifactStore", "folder_digest"]

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 4 * 1024**2
_MANIFEST = "manifest.json"
_PARTS = "parts"
_DOWNLOAD = ".*.tmp"  # name of a folder that `_download` has not completed
_UNUSED_SECONDS = 24 * 3600  # after which downloads that are unfinished or partial are removed
_STAGING = "staging"

Progress = Callable[[int], None]
"""Called with the number of bytes of each block that was read; its exceptions end the work."""


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    name: str
    bytes: int
    sha256: str


def _manifest_bytes(files: list[ArtifactFile]) -> bytes:
    listing = [[f.name, f.bytes, f.sha256] for f in sorted(files, key=lambda f: f.name)]
    return json.dumps({"files": listing, "format": 1}, sort_keys=True).encode()


def _copy(source: IO[bytes], target: IO[bytes] | None, progress: Progress | None = None) -> tuple[int, str]:
    """Copy `source` to `target`, if given; return its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        if target is not None:
            target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        if progress is not None:
            progress(len(chunk))
    return size, digest.hexdigest()


def _check_file(path: Path, progress: Progress | None = None) -> tuple[int, str]:
    """Return a file's size and SHA-256."""
    with path.open("rb") as file:
        return _copy(file, None, progress)


def folder_digest(folder: Path) -> str:
    """Return the digest that `ArtifactStore.put_folder` would return; a stored artifact's folder has its own."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name != _MANIFEST)
    return hashlib.sha256(_manifest_bytes([ArtifactFile(path.name, *_check_file(path)) for path in paths])).hexdigest()


class ArtifactStore:
    """Stores and opens artifacts under `artifacts/` of a storage. From a remote storage, `folder` downloads into
    `cache_dir` once."""

    def __init__(self, storage: Storage, cache_dir: Path) -> None:
        self._storage = storage
        self._cache_dir = cache_dir

    def put(
        self,
        files: Mapping[str, IO[bytes]],
        *,
        owner: str = "",
        announce: Callable[[str], None] | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Store the named streams as one artifact and return its digest (64 hex digits).

        Storing the same content again repairs an artifact whose files were lost, truncated or, on a disk, altered.

        Args:
            owner: The owner in `unfinished` until the artifact is complete; no dot, no slash.
            announce: Called with the digest before anything appears under it; its exceptions end the storing.

        Raises `InvalidInput` for a file name that is not plain, `StorageFull`.
        """
        if not files:
            raise InvalidInput("an artifact needs at least one file")
        for name in files:
            if not _NAME.fullmatch(name) or name == _MANIFEST:
                raise InvalidInput(f"not a file name for an artifact: {name!r}")
        staging = f"{_STAGING}/{f'{owner}.' if owner else ''}{secrets.token_hex(16)}"
        try:
            listed = []
            for name, stream in files.items():
                with self._storage.create(f"{staging}/{name}") as target:
                    listed.append(ArtifactFile(name, *_copy(stream, target, progress)))
            manifest = _manifest_bytes(listed)
            digest = hashlib.sha256(manifest).hexdigest()
            if announce is not None:
                announce(digest)
            if not self._is_complete(digest, manifest, listed, progress):
                for each in listed:
                    self._storage.move(f"{staging}/{each.name}", f"{_place(digest)}/{each.name}")
                # The manifest comes last: an artifact without one does not exist.
                with self._storage.create(f"{_place(digest)}/{_MANIFEST}") as target:
                    target.write(manifest)
            return digest
        finally:
            self._storage.delete(staging)

    def put_folder(
        self,
        folder: Path,
        *,
        owner: str = "",
        announce: Callable[[str], None] | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Store all files directly under `folder`; see `put`."""
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        with contextlib.ExitStack() as stack:
            streams: dict[str, IO[bytes]] = {path.name: stack.enter_context(path.open("rb")) for path in paths}
            return self.put(streams, owner=owner, announce=announce, progress=progress)

    def unfinished(self) -> dict[str, str]:
        """Return the owners of unfinished artifacts, by a name for `abandon`: they are being stored, or their process
        ended."""
        names = self._storage.names(_STAGING)
        return {name: name.rpartition(".")[0] for name in names}

    def abandon(self, unfinished: str) -> None:
        """Remove an unfinished artifact."""
        self._storage.delete(f"{_STAGING}/{unfinished}")

    def files(self, digest: str) -> list[ArtifactFile]:
        """Return the artifact's files. Raises `NotFound`, `Corrupt`."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"not an artifact digest: {digest[:80]!r}")
        try:
            with self._storage.open(f"{_place(digest)}/{_MANIFEST}") as file:
                manifest = file.read()
        except NotFound:
            raise NotFound(f"there is no artifact {digest}") from None
        if hashlib.sha256(manifest).hexdigest() != digest:
            raise Corrupt(f"artifact {digest}: its manifest was changed after it was written")
        return [ArtifactFile(*entry) for entry in json.loads(manifest)["files"]]

    def folder(self, digest: str, *, verify: bool = False) -> Path:
        """Return a folder on this machine's disk with the artifact's files.

        Sizes are always compared with the manifest; `verify` compares the SHA-256 of every file. Raises `NotFound`,
        `Corrupt`.
        """
        files = self.files(digest)
        local = self._storage.local(_place(digest))
        if local is not None:
            _check(local, digest, files, verify)
            return local
        cached = self._cache_dir / digest
        if cached.exists():
            try:
                _check(cached, digest, files, verify)
            except Corrupt as error:
                _log.warning("downloading again, since the local copy was damaged: %s", error)
                shutil.rmtree(cached, ignore_errors=True)
        if not cached.exists():
            with translate_full_disk(f"artifact {digest} in {self._cache_dir}"):
                self._download(digest, files, cached)
        return cached

    def part(self, digest: str, names: Collection[str]) -> Path:
        """Return a folder on this machine's disk with the named files of the artifact: a table's keys, for example,
        without its gigabytes of rows.

        A downloaded part is removed by the next such download a day after its last use. Raises `NotFound`, `Corrupt`.
        """
        files = [each for each in self.files(digest) if each.name in names]
        local = self._storage.local(_place(digest))
        if local is not None:
            _check(local, digest, files, verify=False)
            return local
        parts = self._cache_dir / _PARTS
        target = parts / digest
        missing = [each for each in files if not _is_of_size(target / each.name, each.bytes)]
        if missing:
            with translate_full_disk(f"a part of artifact {digest} in {self._cache_dir}"):
                _remove_unused(parts.iterdir() if parts.is_dir() else ())
                target.mkdir(parents=True, exist_ok=True)
                for each in missing:
                    beside = target / f".{each.name}.{secrets.token_hex(4)}.tmp"
                    try:
                        self._fetch(digest, each, beside)
                        beside.replace(target / each.name)
                    finally:
                        beside.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.utime(target)  # when it was last used
        return target

    def delete(self, digest: str) -> None:
        """Remove the artifact; no error if it does not exist."""
        # First the manifest: without it, the other files are no artifact.
        self._storage.delete(f"{_place(digest)}/{_MANIFEST}")
        self._storage.delete(_place(digest))
        for copy in (self._cache_dir / digest, self._cache_dir / _PARTS / digest):
            shutil.rmtree(copy, ignore_errors=True)

    def prune(self) -> list[str]:
        """Remove this machine's copies of artifacts that were deleted elsewhere, and day-old unfinished downloads;
        return the digests. An open map of a removed file stays readable."""
        _remove_unused(self._cache_dir.glob(_DOWNLOAD))
        copies = [path for path in self._cache_dir.glob("*") if _DIGEST.fullmatch(path.name)]
        gone = [path for path in copies if not self._storage.exists(f"{_place(path.name)}/{_MANIFEST}")]
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)
        return sorted(path.name for path in gone)

    def _is_complete(self, digest: str, manifest: bytes, files: list[ArtifactFile], progress: Progress | None) -> bool:
        """Return whether the artifact is stored intact. For a remote storage only sizes are compared."""
        try:
            with self._storage.open(f"{_place(digest)}/{_MANIFEST}") as file:
                if file.read() != manifest:
                    return False
            local = self._storage.local(_place(digest))
            if local is not None:
                _check(local, digest, files, verify=True, progress=progress)
            return all(self._storage.size(f"{_place(digest)}/{each.name}") == each.bytes for each in files)
        except (NotFound, Corrupt):
            return False

    def _download(self, digest: str, files: list[ArtifactFile], target: Path) -> None:
        """Download all files, comparing their checksums."""
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        beside = self._cache_dir / f".{digest}.{secrets.token_hex(4)}.tmp"
        beside.mkdir()
        try:
            for each in files:
                self._fetch(digest, each, beside / each.name)
            try:
                beside.rename(target)
            except OSError:
                if not target.exists():  # otherwise another process was first, with the same bytes
                    raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _fetch(self, digest: str, file: ArtifactFile, target: Path) -> None:
        with self._storage.open(f"{_place(digest)}/{file.name}") as source, target.open("wb") as out:
            if _copy(source, out) != (file.bytes, file.sha256):
                raise Corrupt(f"artifact {digest}: {file.name} does not match its checksum")


def _check(
    folder: Path, digest: str, files: list[ArtifactFile], verify: bool, progress: Progress | None = None
) -> None:
    for each in files:
        path = folder / each.name
        size = path.stat().st_size if path.exists() else -1
        if size != each.bytes:
            found = "missing" if size < 0 else f"{size} bytes long instead of {each.bytes}"
            raise Corrupt(f"artifact {digest}: {each.name} is {found}")
        if verify and _check_file(path, progress)[1] != each.sha256:
            raise Corrupt(f"artifact {digest}: {each.name} does not match its checksum")


def _is_of_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _remove_unused(folders: Iterable[Path]) -> None:
    """Remove folders that were not used for a day. An open map of a file in one stays readable."""
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _place(digest: str) -> str:
    return f"artifacts/{digest[:2]}/{digest}"
