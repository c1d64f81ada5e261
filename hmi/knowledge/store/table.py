"""One immutable table: a domain's own n-grams and their rows, memory-mapped.

A table is a folder with `keys.npy` (uint64, ascending), `rows.npy` (int8 or float16 `[n, hidden]`), for int8
`scales.npy` (float32), and `table.json` with their sizes and checksums. `table.json` is written last: a folder without
it is an unfinished write.

A domain with a delta may hold an *alias* of an n-gram: no row, since the ancestors' row of another function is close
enough. Aliases are in `aliases.npy` (uint64, ascending), which exists only where there are any.

A table has no `close`: the maps go with the last reference to it, so a batch that still reads an old version keeps its
pages.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.ngrams import NO_KEYS, Keys
from hmi.knowledge.store.manifest import ALIASES_FILE, KEYS_FILE, ROWS_FILE, SCALES_FILE, Manifest
from hmi.knowledge.store.npy import map_array
from hmi.knowledge.store.rows import EncodedRows, code_dtype, decode
from hmi.knowledge.store.search import KeySearch
from hmi.spec import RowDtype

_BLOCK_BYTES = 4 * 1024**2  # read at once


class Table:
    """Opened with `Table.open`. Thread-safe: nothing in it changes. `rows` and `scales` are in the order of `keys`."""

    def __init__(self, folder: Path, manifest: Manifest, keys: Keys, encoded: EncodedRows, aliases: Keys) -> None:
        self.folder = folder
        self.meta = manifest.meta
        self.keys = keys
        self.aliases = aliases
        self.rows = encoded.rows
        self.scales = encoded.scales
        self._encoded = encoded
        self._files = manifest.files
        self._key_search = KeySearch(keys)
        self._alias_search = KeySearch(aliases)

    @classmethod
    def open(cls, folder: Path, *, keys_only: bool = False) -> Self:
        """Map a table's files; reads only headers, whatever the size.

        With `keys_only`, the rows are not mapped, and files other than `KEY_FILES` need not exist.

        Raises `Corrupt`, naming the file, if one is missing, its size, dtype or shape is not that of `table.json`, or
        `table.json` itself was altered. `verify` compares the checksums.
        """
        manifest = Manifest.read(folder)
        meta = manifest.meta

        def mapped(name: str, dtype: np.dtype[Any], *shape: int) -> NDArray[Any]:
            return map_array(folder / name, manifest.files[name].bytes, dtype, shape)

        keys = mapped(KEYS_FILE, NO_KEYS.dtype, meta.entries)
        aliases = mapped(ALIASES_FILE, NO_KEYS.dtype, meta.aliases) if meta.aliases else NO_KEYS
        if keys_only:
            return cls(folder, manifest, keys, EncodedRows.empty(0, meta.row_dtype, meta.hidden_size), aliases)
        rows = mapped(ROWS_FILE, code_dtype(meta.row_dtype), meta.entries, meta.hidden_size)
        is_int8 = meta.row_dtype is RowDtype.INT8
        scales = mapped(SCALES_FILE, np.dtype(np.float32), meta.entries) if is_int8 else None
        return cls(folder, manifest, keys, EncodedRows(rows, scales), aliases)

    @property
    def bytes(self) -> int:
        """Bytes of its arrays on disk, headers included."""
        return sum(check.bytes for check in self._files.values())

    def find(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the row index of each key `[n]`, and whether it is held; without that the index means nothing."""
        return self._key_search.find(keys)

    def is_alias(self, keys: Keys) -> NDArray[np.bool_]:
        return self._alias_search.find(keys)[1]

    def encoded(self, index: NDArray[np.int64]) -> EncodedRows:
        return self._encoded.take(index)

    def read(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows at `index`, decoded: float32 `[n, hidden]`."""
        return decode(self.encoded(index))

    def warm(self, progress: Callable[[int], None] | None = None) -> None:
        """Touch every page once, in order, so that many pages come with one fault and lookups wait for none."""
        for array in (self.keys, self.rows, self.scales, self.aliases):
            if array is None or not array.size:
                continue
            pages = array.reshape(-1).view(np.uint8)
            for start in range(0, len(pages), _BLOCK_BYTES):
                block = pages[start : start + _BLOCK_BYTES]
                block[:: mmap.PAGESIZE].max()
                if progress is not None:
                    progress(len(block))
        self._key_search.warm()
        self._alias_search.warm()

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every byte; call `progress` with the bytes of each block that was read. Its exceptions end the reading.

        Raises `Corrupt` if a file does not match its checksum, keys or aliases are out of order, or a key is both.
        """
        for name, check in self._files.items():
            path = self.folder / name
            digest = hashlib.sha256()
            try:
                with path.open("rb") as file:
                    while block := file.read(_BLOCK_BYTES):
                        digest.update(block)
                        if progress is not None:
                            progress(len(block))
            except FileNotFoundError:
                raise Corrupt(f"{path} is missing") from None
            if digest.hexdigest() != check.sha256:
                raise Corrupt(f"{path} does not match its checksum")
        for name, keys in ((KEYS_FILE, self.keys), (ALIASES_FILE, self.aliases)):
            if not is_ascending(keys):
                raise Corrupt(f"{self.folder / name}: its keys do not ascend")
        if self.is_alias(self.keys).any():
            raise Corrupt(f"{self.folder / ALIASES_FILE}: it holds keys that have a row")


def is_ascending(keys: Keys) -> bool:
    """Return whether the keys ascend without duplicates."""
    return bool((keys[1:] > keys[:-1]).all())
