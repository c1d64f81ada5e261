"""One immutable table: a domain's own n-grams and their rows, memory-mapped.

A folder with `keys.npy` (uint64, ascending), `rows.npy` (int8 or float16 `[n, hidden]`), for int8
`scales.npy` (float32), and `table.json` with their sizes and checksums. `table.json` is written last:
a folder without one is a write that did not end.

A domain whose rows come from another function than its ancestors' may say of an n-gram that the ancestors' row is
as good as its own: an *alias*, in `aliases.npy` (uint64, ascending), which is there only where there are aliases.

A table has no `close`: the maps go with the last reference to it, so a batch that still reads an old
version cannot have the pages taken from under it.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store.manifest import (
    ALIASES_FILE,
    KEYS_FILE,
    MANIFEST_FILE,
    ROWS_FILE,
    SCALES_FILE,
    FileCheck,
    Manifest,
    TableMeta,
)
from hmi.knowledge.store.npy import create_array, map_array
from hmi.knowledge.store.rows import EncodedRows, code_dtype, decode
from hmi.knowledge.store.search import KeySearch
from hmi.spec import RowDtype
from hmi.storage import Storage

__all__ = ["RowRefs", "Table", "TableMeta", "find_first", "write_table", "write_table_blocks"]

_VERIFIED_BYTES = 4 * 1024**2  # read at once


class Table:
    """Opened with `Table.open`. Safe to read from many threads at once: nothing in it changes."""

    def __init__(self, folder: Path, manifest: Manifest, keys: Keys, encoded: EncodedRows, aliases: Keys) -> None:
        self.folder = folder
        self.meta = manifest.meta
        self.keys = keys
        self.aliases = aliases
        self.rows = encoded.rows
        self.scales = encoded.scales
        self._files = manifest.files
        self._key_search = KeySearch(keys)
        self._alias_search = KeySearch(aliases)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a table's files; reads only headers, whatever the size.

        Raises `Corrupt`, naming the file, where one is missing, of another size, dtype or shape than
        `table.json` says, or where `table.json` itself was altered. What only a look at every byte
        can show is left to `verify`.
        """
        manifest = Manifest.read(folder)
        meta, files = manifest.meta, manifest.files
        keys = map_array(folder / KEYS_FILE, files[KEYS_FILE].bytes, np.dtype(np.uint64), (meta.entries,))
        shape = (meta.entries, meta.hidden_size)
        rows: NDArray[Any] = map_array(folder / ROWS_FILE, files[ROWS_FILE].bytes, code_dtype(meta.row_dtype), shape)
        scales = None
        if meta.row_dtype is RowDtype.INT8:
            scales = map_array(folder / SCALES_FILE, files[SCALES_FILE].bytes, np.dtype(np.float32), (meta.entries,))
        aliases: Keys = np.empty(0, np.uint64)
        if meta.aliases:
            aliases = map_array(folder / ALIASES_FILE, files[ALIASES_FILE].bytes, aliases.dtype, (meta.aliases,))
        return cls(folder, manifest, keys, EncodedRows(rows, scales), aliases)

    @property
    def bytes(self) -> int:
        """Bytes of its arrays on disk, headers included."""
        return sum(check.bytes for check in self._files.values())

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Row index of each key, -1 where it is not held; `[n]`. Several times faster on ascending keys."""
        index, found = self._key_search.find(keys)
        index[~found] = -1
        return index

    def search(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """As `find`, with what is held said apart: the index of a key that is not held means nothing."""
        return self._key_search.find(keys)

    def is_alias(self, keys: Keys) -> NDArray[np.bool_]:
        """Whether each key is marked: held only as "what the ancestors have"; `[n]`."""
        return self._alias_search.find(keys)[1]

    def encoded(self, index: NDArray[np.int64]) -> EncodedRows:
        """Copies of the stored rows at `index`, as they are."""
        rows: NDArray[Any] = np.take(self.rows, index, axis=0)
        return EncodedRows(rows, None if self.scales is None else np.take(self.scales, index))

    def read(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows at `index`, decoded: float32 `[n, hidden]`."""
        return decode(self.encoded(index))

    def warm(self, progress: Callable[[int], None] | None = None) -> None:
        """Touch every page once, other threads running on.

        Rows that lookups reach first cost a page fault each, which is dearer than the rest of the
        lookup; done here, in order, many pages come with one fault.

        Args:
            progress: As in `verify`.
        """
        for array in (self.keys, self.rows, self.scales, self.aliases):
            if array is None or not array.size:
                continue
            pages = array.reshape(-1).view(np.uint8)
            for start in range(0, len(pages), _VERIFIED_BYTES):
                block = pages[start : start + _VERIFIED_BYTES]
                block[:: mmap.PAGESIZE].max()
                if progress is not None:
                    progress(len(block))
        self._key_search.warm()
        self._alias_search.warm()

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every byte.

        Args:
            progress: Called with the number of bytes read, block after block; what it raises ends the reading.

        Raises `Corrupt` where a file does not match its checksum, keys or aliases are out of order, or a key is both.
        """
        for name, check in self._files.items():
            path = self.folder / name
            digest = hashlib.sha256()
            try:
                with path.open("rb") as file:
                    while block := file.read(_VERIFIED_BYTES):
                        digest.update(block)
                        if progress is not None:
                            progress(len(block))
            except FileNotFoundError:
                raise Corrupt(f"{path} is missing") from None
            if digest.hexdigest() != check.sha256:
                raise Corrupt(f"{path} does not match its checksum")
        if not _ascending(self.keys):
            raise Corrupt(f"{self.folder / KEYS_FILE}: its keys do not ascend")
        if not _ascending(self.aliases):
            raise Corrupt(f"{self.folder / ALIASES_FILE}: its keys do not ascend")
        if self.is_alias(self.keys).any():
            raise Corrupt(f"{self.folder / ALIASES_FILE}: it holds keys that have a row")


@dataclass(frozen=True, slots=True)
class RowRefs:
    """Where keys were found.

    Attributes:
        table: Position of the table `[n]`, -1 where no table holds the key.
        row: Row index in that table `[n]`, 0 where none does.
    """

    table: NDArray[np.int16]
    row: NDArray[np.int64]


def find_first(tables: Sequence[Table], keys: Keys) -> RowRefs:
    """The first of the tables that holds each key; keys that one table holds are not looked for in the next."""
    table = np.full(len(keys), -1, np.int16)
    row = np.zeros(len(keys), np.int64)
    missing: NDArray[np.intp] | None = None  # None: all of them
    for position, each in enumerate(tables):
        if not len(each.keys):
            continue
        index, held = each.search(keys)
        found = np.flatnonzero(held)
        at = found if missing is None else missing[found]
        table[at] = position
        row[at] = index[found]
        if position + 1 == len(tables) or len(found) == len(keys):
            break
        lost = np.flatnonzero(~held)
        missing = lost if missing is None else missing[lost]
        keys = keys[lost]
    return RowRefs(table, row)


def write_table(folder: Path, meta: TableMeta, keys: Keys, encoded: EncodedRows, aliases: Keys | None = None) -> None:
    """Write a whole table that is in memory; see `write_table_blocks`."""
    write_table_blocks(folder, meta, keys, [encoded], aliases)


def write_table_blocks(
    folder: Path, meta: TableMeta, keys: Keys, blocks: Iterable[EncodedRows], aliases: Keys | None = None
) -> None:
    """Write a table into `folder`, its rows block by block in the order of `keys`.

    Files are written through, not mapped, so that a full disk is an error and not a signal.

    Args:
        aliases: Ascending uint64 `[meta.aliases]`, none of them in `keys`; None for none.

    Raises:
        StorageFull: No room left.
        ValueError: Keys or aliases do not ascend, a key is both, or they or the rows are not what `meta` says.
    """
    if len(keys) != meta.entries or not _ascending(keys):
        raise ValueError(f"table of {meta.domain}: expected {meta.entries} ascending keys, got {len(keys)}")
    aliases = np.empty(0, np.uint64) if aliases is None else aliases
    if len(aliases) != meta.aliases or not _ascending(aliases):
        raise ValueError(f"table of {meta.domain}: expected {meta.aliases} ascending aliases, got {len(aliases)}")
    if KeySearch(keys).find(aliases)[1].any():
        raise ValueError(f"table of {meta.domain}: a key that has a row is an alias too")
    folder.mkdir(parents=True, exist_ok=True)
    storage = Storage(str(folder))
    files: dict[str, FileCheck] = {}
    with create_array(storage, KEYS_FILE, files, np.dtype(np.uint64), (meta.entries,)) as out:
        out.write(np.ascontiguousarray(keys, np.uint64))
    dtype = code_dtype(meta.row_dtype)
    scales: list[NDArray[np.float32]] = []
    written = 0
    with create_array(storage, ROWS_FILE, files, dtype, (meta.entries, meta.hidden_size)) as out:
        for block in blocks:
            if block.rows.dtype != dtype or block.rows.shape[1] != meta.hidden_size:
                found = f"{block.rows.dtype} rows of {block.rows.shape[1]}"
                raise ValueError(f"table of {meta.domain}: {found} values instead of {dtype} of {meta.hidden_size}")
            out.write(np.ascontiguousarray(block.rows))
            written += len(block)
            if block.scales is not None:
                scales.append(block.scales)
    if written != meta.entries:
        raise ValueError(f"table of {meta.domain}: {written} rows for {meta.entries} keys")
    if meta.row_dtype is RowDtype.INT8:
        with create_array(storage, SCALES_FILE, files, np.dtype(np.float32), (meta.entries,)) as out:
            for part in scales:
                out.write(np.ascontiguousarray(part))
    if meta.aliases:
        with create_array(storage, ALIASES_FILE, files, np.dtype(np.uint64), (meta.aliases,)) as out:
            out.write(np.ascontiguousarray(aliases, np.uint64))
    with storage.create(MANIFEST_FILE) as file:
        file.write(Manifest(meta, files).to_json())


def _ascending(keys: Keys) -> bool:
    return bool((keys[1:] > keys[:-1]).all())
