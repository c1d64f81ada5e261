"""One immutable table: a domain's own n-grams and their rows, memory-mapped.

A folder with `keys.npy` (uint64, ascending), `rows.npy` (int8 or float16 `[n, hidden]`), for int8
`scales.npy` (float32), and `table.json` with their sizes and checksums. `table.json` is written last:
a folder without one is a write that did not end.

A table has no `close`: the maps go with the last reference to it, so a batch that still reads an old
version cannot have the pages taken from under it.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.manifest import (
    KEYS_FILE,
    MANIFEST_FILE,
    ROWS_FILE,
    SCALES_FILE,
    FileCheck,
    Manifest,
    TableMeta,
)
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.npy import create_array, map_array
from hmi.knowledge.rows import EncodedRows, code_dtype, decode
from hmi.spec import RowDtype
from hmi.storage import Storage

__all__ = ["Places", "Table", "TableMeta", "find_first", "write_table", "write_table_blocks"]


class Table:
    """Opened with `Table.open`. Safe to read from many threads at once: nothing in it changes."""

    def __init__(self, folder: Path, manifest: Manifest, keys: Keys, encoded: EncodedRows) -> None:
        self.folder = folder
        self.meta = manifest.meta
        self.keys = keys
        self.rows = encoded.rows
        self.scales = encoded.scales
        self._files = manifest.files

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a table's files; reads only headers, whatever the size.

        Raises `Corrupt`, naming the file, where one is missing, of another size, dtype or shape than
        `table.json` says, or where `table.json` itself was altered. What only a look at every byte
        can show is left to `verify`.
        """
        manifest = Manifest.read(folder)
        meta, files = manifest.meta, manifest.files
        keys = map_array(folder / KEYS_FILE, files[KEYS_FILE].bytes, np.dtype(np.uint64), (meta.entries,), soon=True)
        shape = (meta.entries, meta.hidden_size)
        rows: NDArray[Any] = map_array(folder / ROWS_FILE, files[ROWS_FILE].bytes, code_dtype(meta.row_dtype), shape)
        scales = None
        if meta.row_dtype is RowDtype.INT8:
            scales = map_array(folder / SCALES_FILE, files[SCALES_FILE].bytes, np.dtype(np.float32), (meta.entries,))
        return cls(folder, manifest, keys, EncodedRows(rows, scales))

    @property
    def bytes(self) -> int:
        """Bytes of its arrays on disk, headers included."""
        return sum(check.bytes for check in self._files.values())

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Row index of each key, -1 where it is not held; `[n]`. Several times faster on ascending keys."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int64)
        index = np.searchsorted(self.keys, keys).astype(np.int64, copy=False)
        found = np.take(self.keys, index, mode="clip") == keys
        index[~found] = -1
        return index

    def encoded(self, index: NDArray[np.int64]) -> EncodedRows:
        """Copies of the stored rows at `index`, as they are."""
        rows: NDArray[Any] = np.take(self.rows, index, axis=0)
        return EncodedRows(rows, None if self.scales is None else np.take(self.scales, index))

    def read(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows at `index`, decoded: float32 `[n, hidden]`."""
        return decode(self.encoded(index))

    def warm(self) -> None:
        """Touch every page once, other threads running on.

        Rows that lookups reach first cost a page fault each, which is dearer than the rest of the
        lookup; done here, in order, many pages come with one fault.
        """
        for array in (self.keys, self.rows, self.scales):
            if array is not None and array.size:
                array.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].max()

    def verify(self) -> None:
        """Read every byte. Raises `Corrupt` where a file does not match its checksum, or keys are out of order."""
        for name, check in self._files.items():
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                raise Corrupt(f"{path} is missing") from None
            if digest != check.sha256:
                raise Corrupt(f"{path} does not match its checksum")
        if not _ascending(self.keys):
            raise Corrupt(f"{self.folder / KEYS_FILE}: its keys do not ascend")


@dataclass(frozen=True, slots=True)
class Places:
    """Where keys were found.

    Attributes:
        table: Position of the table `[n]`, -1 where no table holds the key.
        row: Row index in that table `[n]`, 0 where none does.
    """

    table: NDArray[np.int16]
    row: NDArray[np.int64]


def find_first(tables: Sequence[Table], keys: Keys) -> Places:
    """The first of the tables that holds each key; keys that one table holds are not looked for in the next."""
    table = np.full(len(keys), -1, np.int16)
    row = np.zeros(len(keys), np.int64)
    missing: NDArray[np.intp] | None = None  # None: all of them
    for position, each in enumerate(tables):
        if not len(each.keys):
            continue
        index = each.find(keys if missing is None else keys[missing])
        found = np.flatnonzero(index >= 0)
        at = found if missing is None else missing[found]
        table[at] = position
        row[at] = index[found]
        missing = np.flatnonzero(table < 0) if missing is None else missing[index < 0]
        if not len(missing):
            break
    return Places(table, row)


def write_table(folder: Path, meta: TableMeta, keys: Keys, encoded: EncodedRows) -> None:
    """Write a whole table that is in memory; see `write_table_blocks`."""
    write_table_blocks(folder, meta, keys, [encoded])


def write_table_blocks(folder: Path, meta: TableMeta, keys: Keys, blocks: Iterable[EncodedRows]) -> None:
    """Write a table into `folder`, its rows block by block in the order of `keys`.

    Files are written through, not mapped, so that a full disk is an error and not a signal.

    Raises:
        StorageFull: No room left.
        ValueError: Keys do not ascend, or keys or rows are not what `meta` says.
    """
    if len(keys) != meta.entries or not _ascending(keys):
        raise ValueError(f"table of {meta.domain}: expected {meta.entries} ascending keys, got {len(keys)}")
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
    with storage.create(MANIFEST_FILE) as file:
        file.write(Manifest(meta, files).to_json())


def _ascending(keys: Keys) -> bool:
    return bool((keys[1:] > keys[:-1]).all())
