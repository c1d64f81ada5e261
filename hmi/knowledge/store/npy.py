"""npy files: written with a checksum, memory-mapped only if they are what the manifest says."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.store.manifest import FileCheck
from hmi.storage import Storage

_MOST_MAPS = 65_536  # Linux's default limit for a process, and few enough for libraries that close all descriptors


class HashedFile:
    """Writes to a file and keeps the size and SHA-256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: NDArray[Any] | bytes) -> int:
        view = memoryview(data) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data
        self._file.write(view)
        self._digest.update(view)
        self._bytes += view.nbytes
        return view.nbytes

    def check(self) -> FileCheck:
        return FileCheck(self._bytes, self._digest.hexdigest())


@contextlib.contextmanager
def create_array(
    storage: Storage, name: str, files: dict[str, FileCheck], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[HashedFile]:
    """Create an npy file with its header; `files` gets its size and checksum when the block ends."""
    with storage.create(name) as file:
        hashed = HashedFile(file)
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(hashed, header)
        yield hashed
        files[name] = hashed.check()


def allow_maps() -> None:
    """Raise this process's limit of open files to the number of maps it may have; to be called once, at its start.

    Python keeps the file of every map open. A tree has three or four for each domain, and two versions are open while
    one replaces the other. The usual 1,024 would do for a hundred domains.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MOST_MAPS if most == resource.RLIM_INFINITY else min(_MOST_MAPS, most)
    if allowed != resource.RLIM_INFINITY and allowed < limit:
        with contextlib.suppress(ValueError, OSError):  # some systems refuse a limit below the one that they name
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def map_array(path: Path, size: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a read-only array over the file's pages, unmapped with its last reference.

    Raises `Corrupt` if the file is missing or its size (bytes, header included), dtype or shape differs.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise Corrupt(f"{path} is missing") from None
    with file:
        found = file.seek(0, 2)
        if found != size or found == 0:
            raise Corrupt(f"{path} is {found} bytes long instead of {size}")
        file.seek(0)
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("not version 1.0 of the npy format")
            header = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise Corrupt(f"{path} has no readable npy header: {error}") from error
        if header != (shape, False, dtype):
            raise Corrupt(f"{path} holds {header[2]} {header[0]} instead of {dtype} {shape}")
        offset = file.tell()
        count = int(np.prod(shape, dtype=np.int64))
        if found != offset + count * dtype.itemsize:
            raise Corrupt(f"{path} is {found} bytes long, which does not fit {dtype} {shape}")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(pages, dtype, count, offset).reshape(shape)
